"""The pages that are written from the ledger, and the committed ones against what theory/ states."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import theory
from tests.toy import PAPER
from theory import __main__ as prove_all
from theory import _ledger, _pages
from theory.statement import Equal, Real, Source, theorem

ROOT = Path(__file__).parents[1]
ANEW = "`python -m theory --readme` writes it anew"


# -- the committed ones ------------------------------------------------------------------------------------------------


def test_committed_pages_are_in_step_with_the_statements():
    assert _pages.astray() == [], ANEW


def test_table_of_the_readme_is_in_step_with_the_statements():
    """Counts by what is expected, and no claim is open: that each has its verdict, test_theorems shows."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").split(_ledger.BEGIN)[1].split(_ledger.END)[0]
    found = {}
    for name, *counts in re.findall(r"^\| \[(\w+)\].*?" + r"\| (\d+) " * 6 + r"\|$", table, re.MULTILINE):
        claims, every_size, sizes, checked, refuted, open_ = map(int, counts)
        found[name] = {"claims": claims, "proved": every_size + sizes, "checked": checked, "refuted": refuted}
        assert open_ == 0, name
    wanted = {}
    for name in theory.names():
        expected = [t.expect for t in theory.theorems(name)]
        wanted[name] = {"claims": len(expected), **{e: expected.count(e) for e in ("proved", "checked", "refuted")}}
    assert found == wanted, ANEW


def test_no_verdict_on_the_ledger_is_unexpected():
    text = (ROOT / "docs/ledger.md").read_text(encoding="utf-8")
    assert "not as expected" not in text and "does not hold" not in text and "**" not in text.partition("\n## ")[2]


@pytest.mark.parametrize("name", theory.names())
def test_what_holds_instead_is_true_and_stands_in_the_theory(name: str):
    for t in theory.theorems(name):
        assert bool(t.instead) == (t.expect == "refuted"), f"{t.id}: instead={t.instead}"
        for other in t.instead:
            phenomenon, _, called = other.rpartition(".")
            [found] = [u for u in theory.theorems(phenomenon or name) if u.name == called] or [None]
            assert found is not None and found.expect != "refuted", f"{t.id}: {other!r} is no true claim"


def test_only_a_refuted_claim_has_others_in_its_place():
    with pytest.raises(ValueError, match="only a refuted claim"):

        @theorem(Source(PAPER, "Eq. 1"), "x", instead=["y"], x=Real())
        def claim(x):
            """A number is itself."""
            return Equal(x, x)


def test_rounding_at_a_kink_breaks_no_claim():
    """At z = (1/3, -1/6) the floats' distance is not 1/2: the two sides see different sides of the kink."""
    [slic] = [t for t in theory.theorems("dpo_3d") if t.name == "slic_flows_to_its_margin"]
    assert _ledger._tried(slic) == (None, 0)


# -- how they are written ----------------------------------------------------------------------------------------------


@pytest.fixture
def written(toy, tmp_path, monkeypatch):
    """The toy's pages, in a folder of their own."""
    fingerprint = _ledger.fingerprint()
    monkeypatch.setattr(_ledger, "fingerprint", lambda: fingerprint)
    monkeypatch.setattr(_ledger, "ROOT", tmp_path)
    (tmp_path / "theory").mkdir()
    (tmp_path / "theory/toy.py").write_text('"""Sums and products (Toy et al., 2026).\n\nMore."""\n')
    (tmp_path / "paper_figures/toy").mkdir(parents=True)
    row = '{"id": "%s", "relation": "%s", "gap": %s, "tolerance": 1e-09, "holds": true}'
    kinds = {"T1 square_of_a_sum": "equality", "T2 twice_the_product_is_less": "bound", "T3 product_is_less": "bound",
             "T4 square_is_more_above_one": "bound", "T5 sign_of_a_product": "equivalence"}  # fmt: skip
    rows = [row % (name, kind, "3e-16" if name[1] == "1" else "null") for name, kind in kinds.items()]
    (tmp_path / "paper_figures/toy/numbers.json").write_text(f'{{"claims": [{", ".join(rows)}]}}')
    (tmp_path / "README.md").write_text(f"{_ledger.BEGIN}\n{_ledger.END}\n")
    assert prove_all.main(["--readme"]) == 0
    return tmp_path


def test_pages_of_the_toy(written):
    ledger, refuted = ((written / f"docs/{page}.md").read_text() for page in ("ledger", "refuted"))
    assert "[Sums and products (Toy et al., 2026)](../theory/toy.py)" in ledger
    [first] = [line for line in ledger.splitlines() if "`square_of_a_sum`" in line]
    assert "| Eq. 1 | equality | proved | proved (every size) | all hold | 3e-16 of 1e-09 |" in first
    [fourth] = [line for line in ledger.splitlines() if "`square_is_more_above_one`" in line]
    assert re.search(r"\| \d\d% meet the premises, all hold \|  \|", fourth)
    assert "### Product is less" in refuted and "> A product is at most the square of its first factor" in refuted
    found = re.search(
        r"At `a = (.+), b = (.+)` the left side, which should be at most the right one, is `(.+)`;", refuted
    )
    a, b, left = (eval(number) for number in found.groups())
    assert left == a * b > a**2


def test_what_is_astray_is_seen(written):
    assert _pages.astray() == []
    for page, old, new in (
        ("ledger", "| Eq. 4 |", "| Eq. 5 |"),
        ("ledger", "| bound | proved |", "| equality | proved |"),
        ("ledger", "T5 ", ""),
        ("refuted", "first factor", "second factor"),
        ("refuted", "ab \\le a^2", "ab < a^2"),
    ):
        path = written / f"docs/{page}.md"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        assert [line for line in _pages.astray() if line.startswith(f"docs/{page}.md")] != [], old
        path.write_text(text)
    path = written / "docs/ledger.md"
    path.write_text(path.read_text().replace("<br>`square_of_a_sum`", ""))
    assert any("4 claims, 5 are stated" in line for line in _pages.astray())
