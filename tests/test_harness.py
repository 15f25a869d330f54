"""The harness: a run, its exit status, its flags, on a throwaway experiment."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import _flags, _terminal
from experiments.harness import Experiment, Report, along, host, knob, main
from sandbox.tolerances import identity
from tests.toy import THEOREMS, TOY, Setup, User, record, square_of_a_sum
from theory import _ledger

pytestmark = pytest.mark.usefixtures("toy")


# -- what a run leaves and says ----------------------------------------------------------------------------------------


def test_a_run_that_holds(run, tmp_path, capsys):
    assert run() == 0
    assert sorted(p.name for p in (tmp_path / "toy").iterdir()) == ["numbers.json", "points.png"]
    out, err = capsys.readouterr()
    assert err == ""
    heading = next(line for line in out.splitlines() if "claim" in line)
    assert heading.split() == ["claim", "source", "proof", "theory", "simulation", "gap", "tolerance", "holds"]
    assert max(map(len, out.splitlines())) <= 120
    for t in THEOREMS:
        assert t.name.replace("_", " ") in out
    assert "\x1b" not in out
    assert "numbers.json" in out.splitlines()[-1]


def test_the_record(run, tmp_path):
    run("--seed", "3", "--width", "1.5")
    found = record(tmp_path)
    assert list(found) == ["experiment", "setup", "seed", "versions", "claims", "series", "figures"]
    assert (found["experiment"], found["seed"]) == ("toy", 3)
    assert found["setup"] == {"runs": 50, "width": 1.5, "error": 0.0}
    assert set(found["versions"]) == {"jax", "jaxlib", "numpy", "sympy", "python", "precision"}
    assert [c["id"] for c in found["claims"]] == [t.id for t in THEOREMS]
    keys = [
        "id",
        "source",
        "statement",
        "relation",
        "expect",
        "proof",
        "lhs",
        "rhs",
        "gap",
        "tolerance",
        "why",
        "holds",
    ]
    assert all(list(c) == keys for c in found["claims"])
    equality, bound, false, untouched, sign = found["claims"]
    assert equality["proof"] == {"verdict": "proved", "sizes": "every"}
    assert (equality["relation"], equality["source"], equality["holds"]) == ("equality", "toy2026, Eq. 1", True)
    assert equality["lhs"] == pytest.approx(equality["rhs"])
    assert equality["gap"] <= equality["tolerance"]
    assert "50 states" in equality["why"]
    assert bound["lhs"] <= bound["rhs"]
    assert false["proof"]["verdict"] == "refuted"
    assert "against" in false["proof"]["counterexample"]
    assert false["lhs"] > false["rhs"]
    assert false["gap"] > false["tolerance"]
    assert [untouched[k] for k in ("lhs", "rhs", "gap", "tolerance", "why", "holds")] == [None] * 5 + [True]
    assert (sign["relation"], sign["gap"], sign["lhs"]) == ("equivalence", 0, sign["rhs"])
    assert np.shape(found["series"]["points"]["x"]) == (50, 3)
    (figure,) = found["figures"]
    said, false_said = figure["caption"].split("\n")
    assert said == f"T1 · {square_of_a_sum.statement[:-1]} · proved (every size) · holds in 50 states"
    assert false_said == "T3 · ab <= aa · refuted · violated in 50 states"


def test_same_seed_same_bytes(run, tmp_path):
    formats = ["--format", "png,pdf,svg"]
    for out in ("one", "two"):
        assert run("--out", str(tmp_path / out), *formats) == 0
    names = sorted(p.name for p in (tmp_path / "one/toy").iterdir())
    assert names == ["numbers.json", "points.pdf", "points.png", "points.svg"]
    for name in names:
        assert (tmp_path / "one/toy" / name).read_bytes() == (tmp_path / "two/toy" / name).read_bytes()


def test_another_seed_other_numbers(run, tmp_path):
    run()
    first = record(tmp_path)
    run("--seed", "1")
    assert record(tmp_path)["series"] != first["series"]


def test_stages_have_keys_of_their_own(run):
    drawn = []

    def keep(setup, key):
        return {"bits": jax.random.key_data(key)}

    def collect(setup, found):
        drawn.extend(found[stage]["bits"].tolist() for stage in found)
        return ()

    for stages in ({"a": keep, "b": keep}, {"b": keep}):
        assert run(experiment=replace(TOY, measure=stages, claims=collect, draw=lambda s, m, v: ())) == 0
    a, b, b_alone = drawn
    assert a != b == b_alone


def test_float32(run, tmp_path):
    assert run("--no-x64") == 0
    found = record(tmp_path)
    assert found["versions"]["precision"] == "float32"
    assert found["claims"][0]["tolerance"] == identity("float32").rtol


# -- exit status -------------------------------------------------------------------------------------------------------


def test_a_false_check_is_exit_1(run, tmp_path, capsys):
    assert run("--error", "100") == 1
    out = capsys.readouterr().out
    assert "DOES NOT HOLD: T2 twice_the_product_is_less" in out
    assert identity().why.split(":")[0] in " ".join(out.split())
    assert [c["holds"] for c in record(tmp_path)["claims"]] == [True, False, True, True, True]


def test_an_unexpected_verdict_is_exit_1(run, monkeypatch, capsys):
    found = _ledger.verdicts("toy")
    sad = replace(found["square_of_a_sum"], verdict="undecided", sizes=None, detail="no proof", holds=False)
    monkeypatch.setattr(_ledger, "verdicts", lambda name: found | {"square_of_a_sum": sad})
    assert run() == 1
    assert "expected proved, but undecided no proof" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--width", "-1"], "width = -1.0: must be finite and > 0"),
        (["--seed", "-1"], "seed = -1"),
        (["--seed", str(2**32)], "seed = 4294967296"),
        (["--format", "jpg"], "format = 'jpg': must be one of 'png', 'pdf', 'svg'"),
        (["--numbers", "no such file"], "no such file"),
        (["--power", "3"], "power = 3: must be given with --numbers FILE"),
    ],
)
def test_bad_input_is_exit_2_and_one_line(run, capsys, argv, said):
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("experiments.toy: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("argv", [["--runs", "many"], ["--nonsense", "1"]])
def test_what_cannot_be_read_is_exit_2(run, capsys, argv):
    assert run(*argv) == 2
    assert argv[0] in capsys.readouterr().err


def broken(*_):
    return jnp.stack([jnp.ones(2), jnp.ones(3)])


@pytest.mark.parametrize("argv", [[], ["--width", "1"]])
def test_a_bug_keeps_its_traceback(run, argv):
    with pytest.raises(ValueError, match="shape"):
        run(*argv, experiment=replace(TOY, measure=broken))


def test_help_tells_every_knob(run, capsys):
    assert run("--help") == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("A throwaway theory and experiment", "how often it is tried (quick: 20) (default: 50)", "metres",
                  "a JSON list of numbers", "--quick", "--seed", "--out", "--format", "--x64, --no-x64", "--resume",
                  "--numbers PATH"):  # fmt: skip
        assert words in out
    assert "--no-quick" not in out


# -- quick, flags, and where things go ---------------------------------------------------------------------------------


def options(*argv):
    return _flags.read("toy", "", Setup, User, argv)


def test_quick_is_derived_and_flags_win():
    assert options().setup == Setup()
    assert options("--quick").setup == Setup(runs=20)
    assert options("--quick", "--runs", "7", "--width", "1").setup == Setup(runs=7, width=1)
    assert options("--runs", "50", "--quick").setup == Setup(runs=50)


@pytest.mark.parametrize(
    ("argv", "place"),
    [
        ([], "paper_figures/toy"),
        (["--format", "svg"], "paper_figures/toy"),
        (["--quick"], "build/quick/toy"),
        (["--seed", "1"], "build/changed/toy"),
        (["--no-x64"], "build/changed/toy"),
        (["--runs", "51"], "build/changed/toy"),
        (["--power", "3"], "build/user/toy"),
    ],
)
def test_only_the_default_run_goes_to_the_committed_figures(argv, place):
    assert options(*argv).folder == Path(__file__).parents[1] / place
    assert options(*argv, "--out", "x").folder == Path("x/toy")


def test_an_experiment_without_a_theory_borrows_theorems_and_has_findings(run, tmp_path, capsys):
    """Only the borrowed ones are in the table; a stage on the host is called as it is; what fails is no failure."""
    seen = []

    @host
    def eager(setup, key):
        seen.append(isinstance(key, jax.core.Tracer))
        return {"x": np.ones((2, 3)), "y": np.zeros((2, 3))}

    def claims(setup, m):
        yield along(square_of_a_sum, x=m["points"]["x"], y=m["points"]["y"])

    def draw(setup, m, verdicts):
        return iter(())

    def findings(setup, m):
        return [{"says": "x is 2", "measured": float(m["points"]["x"].mean()), "holds": "NO"}]

    borrows = Experiment(
        "other",
        __doc__,
        Setup,
        {"points": eager},
        claims,
        draw,
        borrowed={"toy": (square_of_a_sum,)},
        findings=findings,
    )
    assert run(experiment=borrows) == 0
    assert seen == [False]
    said = json.loads((tmp_path / "other/numbers.json").read_text())
    assert [claim["id"] for claim in said["claims"]] == [square_of_a_sum.id]
    assert said["findings"] == [{"says": "x is 2", "measured": 1.0, "holds": "NO"}]
    assert "x is 2" in capsys.readouterr().out


def test_what_the_user_gives_is_reported_instead(run, tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_text("[1.5, 2]")
    assert run("--numbers", str(path), "--power", "3") == 0
    found = record(tmp_path)
    assert found["user"] == {"given": {"numbers": path.as_posix(), "power": 3}, "powers": [3.375, 8]}
    assert found["claims"] == found["figures"] == []
    assert found["setup"]["runs"] == 50
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["number", "power"] in table
    assert ["1.5", "3.375"] in table
    path.write_text("[1.5, -2]")
    assert run("--numbers", str(path)) == 2
    assert "numbers[1] = -2.0" in capsys.readouterr().err


def test_a_report_may_draw_before_it_returns(tmp_path, monkeypatch):
    """Its figures are in the style of the house, also if they are finished by then."""

    def report(setup, user, key):
        import matplotlib.pyplot as plt

        figure, ax = plt.subplots()
        report.spines = ax.spines["top"].get_visible()
        return Report({}, [{"number": 1}], [("mine", figure, "a caption")])

    path = tmp_path / "mine.json"
    path.write_text("[1]")
    assert main(replace(TOY, report=report), ["--numbers", str(path), "--out", str(tmp_path)]) == 0
    assert not report.spines and record(tmp_path)["figures"] == [{"name": "mine", "caption": "a caption"}]


def test_experiments_that_cannot_be():
    @dataclass(frozen=True)
    class Bare:
        runs: int = 3

    @dataclass(frozen=True)
    class Clash:
        seed: int = knob(3, "seed of something")

    @dataclass
    class Loose:
        runs: int = knob(3, "runs")

    @dataclass(frozen=True)
    class Twice:
        runs: int = knob(3, "runs again")

    for setup, said in ((Bare, "Bare.runs must be made by knob"), (Clash, "--seed"), (Loose, "frozen")):
        with pytest.raises(ValueError, match=said):
            replace(TOY, setup=setup)
    with pytest.raises(ValueError, match="--runs"):
        replace(TOY, user=Twice)
    with pytest.raises(ValueError, match="user and report"):
        replace(TOY, report=None)


# -- progress ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_progress_shows_late_and_on_terminals_only(monkeypatch, terminal, patience):
    said = StringIO()
    monkeypatch.setattr(_terminal, "PATIENCE", patience)
    monkeypatch.setattr(_terminal, "Console", lambda stderr: Console(file=said, force_terminal=terminal, width=80))
    with _terminal.progress(2) as begin:
        begin("first")
        begin("second")
        until = time.monotonic() + (5 if terminal and not patience else 0.1)
        while "second" not in said.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert ("second" in said.getvalue()) == (terminal and not patience)
