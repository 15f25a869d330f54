"""The ledger of proofs, and what is printed of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.toy import PAPER, THEOREMS
from theory import __main__ as prove_all
from theory import _ledger
from theory.statement import (
    Equal,
    Real,
    Source,
    theorem,
)

pytestmark = pytest.mark.usefixtures("toy")


def test_verdicts_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(_ledger, "directory", lambda: tmp_path / "kept")
    asked = []
    judge = _ledger._judge
    monkeypatch.setattr(_ledger, "_judge", lambda t: asked.append(t.name) or judge(t))
    first = _ledger.verdicts("toy")
    assert list(first) == asked == [t.name for t in THEOREMS]
    assert str(first["square_of_a_sum"]) == "proved (every size)"
    assert all(proof.holds for proof in first.values())
    assert _ledger.verdicts("toy") == first
    assert len(asked) == 5
    monkeypatch.setattr(_ledger, "fingerprint", lambda: "another source")
    assert _ledger.verdicts("toy").keys() == first.keys()
    assert len(asked) == 10
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_undecided_is_asked_again(monkeypatch, tmp_path):
    monkeypatch.setattr(_ledger, "directory", lambda: tmp_path)
    asked = []
    late = _ledger.Proof("equality", "undecided", None, "no answer within 20 s", False, 2e4)
    monkeypatch.setattr(_ledger, "_judge", lambda t: asked.append(t) or late)
    for _ in range(2):
        _ledger.verdicts("toy")
    assert len(asked) == 10


def test_a_claim_that_says_nothing_is_a_row_of_the_ledger(monkeypatch):
    @theorem(Source(PAPER, "Eq. 9"), r"x = x", claim="T9", x=Real())
    def nothing(x):
        """A number is itself."""
        return Equal(x + 1, 1 + x)

    proof = _ledger._judge(nothing)
    assert (proof.verdict, proof.holds) == ("undecided", False) and "says nothing" in proof.detail


def test_what_is_not_proved_yet_is_proved_meanwhile(monkeypatch, tmp_path):
    """By a process of its own, for a paper that stands on disk; not if all is known; not after an error."""
    began = []

    class Prover:
        def __init__(self, command, **kwargs):
            began.append(command[-1])

        def __enter__(self):
            return self

        def __exit__(self, *error):
            began.append("waited")

        def kill(self):
            began.append("killed")

    monkeypatch.setattr(_ledger, "directory", lambda: tmp_path)
    monkeypatch.setattr(_ledger.subprocess, "Popen", Prover)
    with _ledger.ahead("toy"):
        pass
    assert began == []
    with _ledger.ahead("entanglement"):
        pass
    assert began == ["from theory import _ledger; _ledger.verdicts('entanglement')", "waited"]
    with pytest.raises(RuntimeError), _ledger.ahead("entanglement"):
        raise RuntimeError
    assert began[2:] == [began[0], "killed", "waited"]
    _ledger.write(_ledger._path("entanglement", "verdicts"), "{}")
    with _ledger.ahead("entanglement"):
        pass
    assert len(began) == 5


def test_a_warm_ledger_needs_no_sympy(proofs):
    _ledger.verdicts("toy")
    program = (
        "import sys, theory\nfrom experiments import harness\n"
        "assert not {'sympy', 'matplotlib'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])


def test_audits():
    found = _ledger.audits("toy")
    assert found["square_of_a_sum"].killed == found["square_of_a_sum"].planted > 5
    assert found["square_of_a_sum"].met is None
    assert 0.2 < found["square_is_more_above_one"].met < 0.9
    broken = {name: audit.broken for name, audit in found.items()}
    assert 50 < broken.pop("product_is_less") < 206
    assert set(broken.values()) == {0}


def test_errors_are_added_over_the_claims_that_they_were_planted_in():
    numbers = [(3, 4, 2), (None, None, None), (5, 5, 1)]
    found = [_ledger.Audit(*killed_planted_equivalent, [], None, 0) for killed_planted_equivalent in numbers]
    assert _ledger.errors(found) == (8, 9, 3)
    assert _ledger.totals([], found) == (
        "0 claims, all as expected; 8 of 9 planted errors caught (+3 that are true statements)"
    )


def test_python_m_theory(capsys, monkeypatch):
    assert prove_all.main([]) == 0
    out = capsys.readouterr().out
    killed, planted, equivalent = _ledger.errors(_ledger.audits("toy").values())
    assert f"toy: 5 claims, all as expected; {killed} of {planted} planted errors caught (+{equivalent} " in out
    assert "errors caught" in out
    assert prove_all.main(["toys"]) == 2
    assert "'toys' is no phenomenon; there are toy" in capsys.readouterr().err
    assert prove_all.main(["--help"]) == 0
    assert "without one, all" in capsys.readouterr().out
    found = _ledger.verdicts("toy")
    sad = {name: replace(proof, holds=False) for name, proof in found.items()}
    monkeypatch.setattr(_ledger, "verdicts", lambda name: sad)
    assert prove_all.main(["toy"]) == 1


def test_the_table_in_the_readme(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    marks = f"# x\n\n{_ledger.BEGIN}\nold\n{_ledger.END}\n\nmore\n"
    readme.write_text(marks)
    (tmp_path / "theory").mkdir()
    (tmp_path / "theory/toy.py").write_text('"""Sums and products (Toy et al., 2026).\n\nMore."""\n')
    fingerprint = _ledger.fingerprint()
    monkeypatch.setattr(_ledger, "fingerprint", lambda: fingerprint)
    monkeypatch.setattr(_ledger, "ROOT", tmp_path)
    assert "python -m theory --readme" in _ledger.stale(readme)
    assert prove_all.main(["--readme"]) == 0
    assert _ledger.stale(readme) == ""
    text = readme.read_text()
    assert "| Sums and products (Toy et al., 2026) | 5 | 4 | 0 | 0 | 1 | 0 |" in text
    assert "| [toy](theory/toy.py) | " in text
    assert text.startswith("# x\n")
    assert text.endswith("\n\nmore\n")
    for bad in ("no marks", f"{_ledger.END}\n{_ledger.BEGIN}", marks + marks):
        readme.write_text(bad)
        assert prove_all.main(["--readme"]) == 2
        assert readme.read_text() == bad
