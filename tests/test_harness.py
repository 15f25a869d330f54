"""The harness, on a throwaway experiment about sums of squares; the ledger of proofs; discovery."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import experiments
import theory
from experiments import __main__ as front
from experiments import _checks, _flags, _record, _terminal
from experiments.harness import (
    Experiment,
    Report,
    agrees,
    along,
    constant,
    drift,
    knob,
    main,
    measured,
    refuted,
)
from sandbox.algebra import dot, exp
from sandbox.tolerances import golden, identity, monte_carlo
from sandbox.validate import positive, require
from theory import __main__ as prove_all
from theory import _ledger
from theory.statement import (
    AtMost,
    Conserved,
    Equal,
    Given,
    Grows,
    Index,
    Mean,
    Positive,
    Rate,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Tends,
    theorem,
)

# -- a theory of nothing much ------------------------------------------------------------------------------------------

PAPER = "toy2026"


@theorem(Source(PAPER, "Eq. 1"), r"|x+y|^2", claim="T1", x=Reals("n"), y=Reals("n"))
def square_of_a_sum(x, y):
    """The square of a sum is the sum of the squares and twice the product."""
    return Equal(dot(x + y, x + y), dot(x, x) + 2 * dot(x, y) + dot(y, y))


@theorem(Source(PAPER, "Eq. 2"), r"2ab \le a^2 + b^2", claim="T2", a=Real(), b=Real())
def twice_the_product_is_less(a, b):
    """Twice a product is at most the sum of the squares."""
    return AtMost(2 * a * b, a**2 + b**2, slack=(a - b) ** 2)


@theorem(Source(PAPER, "Eq. 3"), r"ab \le a^2", claim="T3", expect="refuted", a=Real(), b=Real())
def product_is_less(a, b):
    """A product is at most the square of its first factor: false."""
    return AtMost(a * b, a**2)


@theorem(Source(PAPER, "Eq. 4"), r"a \le a^2 (a \ge 1)", claim="T4", a=Positive())
def square_is_more_above_one(a):
    """Above one a square exceeds its root."""
    return Given(a - 1, then=AtMost(a, a**2, slack=a * (a - 1)))


@theorem(Source(PAPER, "Eq. 5"), r"ab + a > 0 \iff b > -1", claim="T5", a=Positive(), b=Real())
def sign_of_a_product(a, b):
    """A positive number times b plus itself is positive exactly if b exceeds -1."""
    return SameSign(a * b + a, b + 1, factor=a)


THEOREMS = [
    square_of_a_sum,
    twice_the_product_is_less,
    product_is_less,
    square_is_more_above_one,
    sign_of_a_product,
]


@dataclass(frozen=True)
class Setup:
    runs: int = knob(50, "how often it is tried", quick=20)
    width: float = knob(2.0, "largest number tried, metres")
    error: float = knob(0.0, "added to what is measured")

    def __post_init__(self):
        positive("width", self.width)


@dataclass(frozen=True)
class User:
    numbers: Path | None = knob(None, "a JSON list of numbers")
    power: int = knob(2, "power to raise them to")


def points(setup, key):
    x, y = jax.random.uniform(key, (2, setup.runs, 3), minval=-setup.width, maxval=setup.width)
    return {"x": x, "y": y}


def signs(setup, key):
    a, b = jax.random.normal(key, (2, setup.runs))
    return {"a": jnp.exp(a), "b": b}


def claims(setup, m):
    x, y = m["points"]["x"], m["points"]["y"]
    yield along(square_of_a_sum, x=x, y=y)
    yield measured(twice_the_product_is_less, 2 * x * y + setup.error, x**2 + y**2, identity())
    yield refuted(product_is_less, a=x[:, 0], b=y[:, 0])
    a, b = m["signs"]["a"], m["signs"]["b"]
    yield agrees(sign_of_a_product, b > -1, a * b + a > 0)


def draw(setup, m, verdicts):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    ax.plot(m["points"]["x"][:, 0], m["points"]["y"][:, 0], "o")
    yield "points", figure, verdicts.line(square_of_a_sum) + "\n" + verdicts.line(product_is_less, "ab <= aa")


def report(setup, user, key):
    if user.numbers is None:
        require("power", user.power, lambda power: False, "given with --numbers FILE")
    values = json.loads(user.numbers.read_text())
    positive("numbers", np.asarray(values, float))
    powers = [v**user.power for v in values]
    return Report({"powers": powers}, [{"number": v, "power": p} for v, p in zip(values, powers, strict=True)])


TOY = Experiment("toy", __doc__, Setup, {"points": points, "signs": signs}, claims, draw, user=User, report=report)


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    return tmp_path_factory.mktemp("proofs")


@pytest.fixture(autouse=True)
def toy(monkeypatch, proofs):
    """The toy's theory among the theories, its ledger in a folder of its own, and the precision as it was."""
    module = ModuleType("theory.toy")
    vars(module).update({t.name: t for t in THEOREMS})
    monkeypatch.setattr(theory, "names", lambda: ["toy"])
    monkeypatch.setitem(sys.modules, "theory.toy", module)
    monkeypatch.setattr(_ledger, "directory", lambda: proofs)
    x64 = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", x64)


@pytest.fixture
def run(tmp_path):
    """Run the toy as a command line would, files below ``tmp_path``; PNG only, which is the fastest."""

    def run(*argv, experiment=TOY, out=tmp_path):
        return main(experiment, ["--out", str(out), "--format", "png", *argv])

    return run


def record(folder):
    return json.loads((folder / "toy" / "numbers.json").read_text())


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
    for words in ("The harness, on a throwaway", "how often it is tried (quick: 20) (default: 50)", "metres",
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


# -- nothing half done -------------------------------------------------------------------------------------------------


def test_a_failing_draw_leaves_what_was_there(run, tmp_path):
    run()
    before = written(tmp_path / "toy")

    def fails_at_the_second(setup, m, verdicts):
        yield from draw(setup, m, verdicts)
        raise RuntimeError("no ink")

    with pytest.raises(RuntimeError, match="no ink"):
        run("--seed", "1", experiment=replace(TOY, draw=fails_at_the_second))
    assert written(tmp_path / "toy") == before
    assert [p.name for p in (tmp_path / "toy").iterdir() if p.is_dir()] == [".partial"]
    assert run("--seed", "1", "--resume") == 0
    assert not (tmp_path / "toy/.partial").exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    Path(tmp_path, "toy").write_text("a file where the folder should be")
    stage = Counting(points)
    argv = ["--out", str(tmp_path), "--format", "png"]
    assert main(replace(TOY, measure={"points": stage, "signs": signs}), argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "toy: cannot be written: File exists; --out names another folder" in said
    assert not stage.runs
    Path(tmp_path, "toy").unlink()

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(TOY, argv) == 2
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))


def written(folder):
    """What a run left in a folder, hidden files aside."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def files_of(run, pause=0.0):
    def writer(path):
        path.write_bytes(run * 4096)
        time.sleep(pause)

    return [(name, writer) for name in ("a.png", "b.png", "numbers.json")]


def test_runs_that_save_at_once_do_not_mix(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: _record.save(tmp_path, files_of(b"%d" % (k % 4), pause=1e-3)), range(40)))
    found = written(tmp_path)
    assert found.keys() == {"a.png", "b.png", "numbers.json"} and len(set(found.values())) == 1


def test_a_figure_in_a_format_of_an_earlier_run_goes(tmp_path):
    _record.save(tmp_path, [(f"a.{kind}", lambda path: path.write_bytes(b"old")) for kind in ("png", "pdf")])
    Path(tmp_path, "quick.json").write_bytes(b"kept")
    _record.save(tmp_path, [("a.png", lambda path: path.write_bytes(b"new"))])
    assert written(tmp_path) == {"a.png": b"new", "quick.json": b"kept"}


KILLED = """
import sys, time
from pathlib import Path
from experiments import _record
def writer(path):
    path.write_bytes(b"new" * 4096)
    time.sleep(0.02)
print("ready", flush=True)
while True:
    _record.save(Path(sys.argv[1]), [(name, writer) for name in ("a.png", "b.png", "numbers.json")])
"""


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.09])
def test_a_killed_run_leaves_every_file_old_or_new(tmp_path, delay):
    """kill -9 while files are written: none of them is ever half."""
    _record.save(tmp_path, files_of(b"old"))
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    time.sleep(delay)
    child.kill()
    child.communicate()
    assert written(tmp_path).keys() == {"a.png", "b.png", "numbers.json"}
    assert {*written(tmp_path).values()} <= {b"old" * 4096, b"new" * 4096}
    left = list(tmp_path.glob(".new-*"))
    for folder in left:  # a day later
        os.utime(folder, (0, 0))
    _record.save(tmp_path, files_of(b"last"))
    assert {*written(tmp_path).values()} == {b"last" * 4096} and not list(tmp_path.glob(".new-*"))


@dataclass(eq=False)
class Counting:
    """A stage that says how often it ran, and breaks off while told to."""

    stage: object
    breaks: bool = False
    runs: list[str] = field(default_factory=list)

    def __call__(self, setup, key):
        self.runs.append("ran")
        if self.breaks:
            raise KeyboardInterrupt
        return self.stage(setup, key)


def test_a_stopped_run_resumes(run, tmp_path):
    def run_anew(*argv, experiment):
        jax.clear_caches()  # a stage that is compiled already would not be seen to run
        return run(*argv, experiment=experiment)

    run("--out", str(tmp_path / "whole"))
    first, second = Counting(points), Counting(signs, breaks=True)
    experiment = replace(TOY, measure={"points": first, "signs": second})
    with pytest.raises(KeyboardInterrupt):
        run_anew(experiment=experiment)
    second.breaks = False
    assert (
        run_anew("--resume", "--seed", "1", "--out", str(tmp_path), experiment=experiment) == 0
    )  # nothing of another seed
    assert len(first.runs) == 2
    second.breaks = True
    with pytest.raises(KeyboardInterrupt):
        run_anew(experiment=experiment)
    second.breaks = False
    assert run_anew("--resume", experiment=experiment) == 0
    assert (len(first.runs), len(second.runs)) == (3, 4)
    for name in ("numbers.json", "points.png"):
        assert (tmp_path / "toy" / name).read_bytes() == (tmp_path / "whole/toy" / name).read_bytes()
    assert run_anew(experiment=experiment) == 0  # without --resume everything is simulated
    assert len(first.runs) == 4


def test_partial_stages_are_of_one_setup_only(tmp_path):
    first = _record.Partial(tmp_path, Setup(), 0, TOY.stages)
    first.write("n* map", {"x": np.arange(3)})
    assert _record.Partial(tmp_path, Setup(), 0, TOY.stages).read("n* map")["x"].tolist() == [0, 1, 2]
    for setup, seed in ((Setup(runs=3), 0), (Setup(), 1)):
        assert _record.Partial(tmp_path, setup, seed, TOY.stages).read("n* map") is None
    next((tmp_path / ".partial").glob("*.npz")).write_bytes(b"PK half a file")
    assert first.read("n* map") is None


# -- checks ------------------------------------------------------------------------------------------------------------


def test_along_shows_the_worst_state_or_the_first():
    x = np.array([[1.0, 2], [3, 4], [5, 6]])
    check = along(square_of_a_sum, x=x, y=constant(np.array([1.0, 1])))
    assert (check.holds, check.over, check.lhs, check.rhs) == (True, "3 states", 13, 13)

    @theorem(Source(PAPER, "none"), "", a=Real(), b=Real())
    def false(a, b):
        """Not so."""
        return Equal(a, b)

    check = along(false, a=np.array([1.0, 5, 2, 5]), b=1.0)
    assert (check.holds, check.lhs, check.rhs) == (False, 5, 1)
    assert check.gap == pytest.approx(4 / 6)
    assert along(false, tolerance=0.7, why="rough", a=np.array([5.0]), b=1.0).holds
    assert not along(false, a=np.array([1.0, 1e30]), b=1.0).holds
    assert along(false, a=1.0, b=1.0).over == "1 state"


def test_along_leaves_out_what_misses_the_premises():
    check = along(square_is_more_above_one, a=np.array([0.5, 2, 3]))
    assert (check.holds, check.over) == (True, "2 of 3 states")
    vacuous = along(square_is_more_above_one, a=np.array([0.5, 0.7]))
    assert not vacuous.holds
    assert vacuous.why == "vacuous: no state of 2 meets the premises"
    assert not along(square_is_more_above_one, a=np.zeros(0)).holds


def test_a_vacuous_check_is_exit_1(run, tmp_path, capsys):
    experiment = replace(TOY, claims=lambda s, m: [along(square_is_more_above_one, a=np.array([0.5]))])
    assert run(experiment=experiment) == 1
    assert "vacuous: no state of 1 meets the premises" in capsys.readouterr().out
    assert record(tmp_path)["claims"][3]["gap"] == "inf"


@theorem(Source(PAPER, "none"), "", p=Simplex("V"), z=Reals("V"), w=Index("V"), l=Index("V"), k=Positive())
def many(p, z, w, l, k):
    """A claim with arguments from every kind of domain."""
    return AtMost(0 * k, k * p[w] + (z[l] - z[w]) ** 2)


GOOD = {"p": np.full((2, 4), 0.25), "z": np.ones((2, 4)), "w": np.array([0, 1]), "l": 2, "k": np.ones(2)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"p": np.full((2, 4), 0.3)}, r"p\[0, 0\] = 0.3: must be > 0 and sum to one"),
        ({"p": np.full(4, 0.25)}, r"p has shape \(4,\); must be \(states, V\); constant\(...\) if it is the same"),
        ({"z": np.ones((3, 4))}, r"z has shape \(3, 4\); must be \(states=2, V=4\)"),
        ({"z": np.full((2, 4), np.nan)}, r"z\[0, 0\] = nan: must be finite"),
        ({"w": np.array([0, 4])}, r"w\[1\] = 4: must be an index of axis V, of size 4"),
        ({"w": np.array([0, 2])}, r"w\[1\] = 2: must be .*, other than l"),
        ({"k": np.array([1.0, 0.0])}, r"k\[1\] = 0.0: must be > 0"),
        ({"extra": 1}, "arguments .*; must be p, z, w, l, k"),
    ],
)
def test_along_refuses_what_is_outside_the_domains(wrong, said):
    assert along(many, **GOOD).holds
    with pytest.raises(ValueError, match=said):
        along(many, **{**GOOD, **wrong})


def test_relations_with_a_tolerance_of_their_own():
    @theorem(Source(PAPER, "none"), "", expect="checked", c=Positive(), x=Reals("n"))
    def falls(c, x):
        """A power law."""
        t = jnp.linspace(1, 9, 9)
        return Rate(t, c / t**2, -2, within=0.1)

    @theorem(Source(PAPER, "none"), "", expect="checked", a=Positive(), s=Reals("n"))
    def average(a, s):
        """A mean."""
        return Mean(s, 0 * a)

    @theorem(Source(PAPER, "none"), "", expect="checked", a=Positive())
    def limit(a):
        """A limit."""
        return Tends(lambda x: a + x, 0, a)

    rate = along(falls, c=np.array([1.0, 2]), x=constant(np.ones(3)))
    assert (rate.holds, rate.lhs, rate.rhs) == (True, pytest.approx(-2), -2)
    sample = np.random.default_rng(0).normal(size=(1, 100))
    mean = along(average, a=1.0, s=sample)
    assert (mean.holds, mean.tolerance, mean.lhs) == (True, 4, pytest.approx(sample.mean()))
    assert not along(average, a=1.0, s=sample + 1).holds
    near = along(limit, a=np.array([3.0]))
    assert (near.holds, near.lhs, near.rhs) == (True, None, 3)


def test_measured():
    assert measured(square_of_a_sum, [1.0, 2], [1.0, 2], identity()).over == "2 measured values"
    off = measured(square_of_a_sum, [1.0, 2, 3], [1.0, 2.5, 3], golden())
    assert (off.holds, off.lhs, off.rhs) == (False, 2, 2.5)
    assert measured(square_of_a_sum, 2.0, 2.5, monte_carlo(0.2)).holds
    check = measured(square_of_a_sum, 2.0, 2.5, monte_carlo(0.2))
    assert (check.gap, check.tolerance) == (pytest.approx(0.5), pytest.approx(0.8))
    assert measured(square_of_a_sum, np.inf, np.inf, identity()).holds
    assert not measured(square_of_a_sum, np.inf, 1, identity()).holds
    assert not measured(square_of_a_sum, np.nan, np.nan, identity()).holds
    assert not measured(square_of_a_sum, [], [], identity()).holds
    assert measured(square_of_a_sum, 3, 3, 0.0, "whole numbers").holds
    missed = measured(square_of_a_sum, [4, 3], 3, 0.0, "whole numbers")
    assert (missed.holds, missed.gap) == (False, 1)
    with pytest.raises(ValueError, match="needs its reason"):
        measured(square_of_a_sum, 1.0, 1.0, 1e-3)
    with pytest.raises(ValueError, match="shapes"):
        measured(square_of_a_sum, np.ones(3), np.ones((3, 1)), identity())


def test_measured_bounds_are_one_sided():
    assert measured(twice_the_product_is_less, [0.0, 1.0], [5.0, 1.0], identity()).holds
    assert not measured(twice_the_product_is_less, [0.0, 1.0], [5.0, 0.9], identity()).holds


def test_agrees():
    check = agrees(sign_of_a_product, np.array([True, False, True]), np.array([True, True, True]))
    assert (check.holds, check.gap, check.tolerance, check.over) == (False, 1, 0, "3 runs")
    assert (check.lhs, check.rhs) == (3, 2)
    assert not agrees(sign_of_a_product, np.zeros(0, bool), np.zeros(0, bool)).holds
    with pytest.raises(ValueError, match="must be bool"):
        agrees(sign_of_a_product, np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="must be bool"):
        agrees(sign_of_a_product, np.ones(3, bool), np.ones(2, bool))


def test_refuted_needs_a_violation():
    assert not refuted(product_is_less, a=np.array([3.0]), b=np.array([1.0])).holds
    check = refuted(product_is_less, a=np.array([3.0, 1, 1]), b=np.array([1.0, 2, 9]))
    assert (check.holds, check.lhs, check.rhs) == (True, 9, 1)
    for other in (along, refuted):
        claim = product_is_less if other is along else twice_the_product_is_less
        with pytest.raises(ValueError, match="expect is"):
            other(claim, a=np.ones(1), b=np.ones(1))


def test_drift():
    @theorem(Source(PAPER, "none"), "", z=Reals("n"))
    def still(z):
        """The sum of logits stays."""
        return Conserved(lambda z: z[0] + z[1], lambda z: (z[0] - z[1]) * (z - z[::-1]), at=z)

    @theorem(Source(PAPER, "none"), "", z=Real(), c=Positive())
    def clock(z, c):
        """exp z grows at rate c."""
        return Grows(lambda z: exp(z), lambda z: c * exp(-z), at=z, start=0 * z, by=c, begins=1)

    t = np.linspace(0, 3, 7)
    assert drift(clock, t, z=np.log(1 + 2 * t), c=2.0, tolerance=identity()).holds
    off = drift(clock, t, z=np.log(1 + 3 * t), c=2.0, tolerance=identity())
    assert (off.holds, off.lhs, off.rhs) == (False, pytest.approx(10), pytest.approx(7))
    path = np.stack([1 + t, 2 - t], axis=1)
    assert drift(still, t, z=path, tolerance=identity()).holds
    assert not drift(still, t, z=path**2, tolerance=identity()).holds
    with pytest.raises(ValueError, match="times has shape"):
        drift(still, t[:3], z=path, tolerance=identity())
    with pytest.raises(ValueError, match="nothing in it"):
        drift(square_of_a_sum, t, x=path, y=path, tolerance=identity())


def test_words_of_relations():
    words = [_checks.word_of(t) for t in THEOREMS]
    assert words == ["equality", "bound", "bound", "bound", "equivalence"]


def test_a_check_of_another_theory_is_refused(run):
    with pytest.raises(ValueError, match="none of the theorems"):
        run(experiment=replace(TOY, claims=lambda s, m: [along(many, **GOOD)]))


# -- numbers as JSON ---------------------------------------------------------------------------------------------------


def test_plain():
    values = {"a": np.float32(1 / 3), "b": [np.nan, np.inf, -np.inf, -0.0], "c": jnp.arange(2), "d": (True, None, "x")}
    found = json.loads(_record.text(values))
    assert found == {"a": 0.333333, "b": [None, "inf", "-inf", 0.0], "c": [0, 1], "d": [True, None, "x"]}
    assert str(found["b"][3]) == "0.0"
    assert '"c": [0, 1]' in _record.text(values)
    assert json.loads(_record.text({"a": ["x [ 1,  2 ] {y", "]"], "b": [[1, 2], []]})) == {
        "a": ["x [ 1,  2 ] {y", "]"],
        "b": [[1, 2], []],
    }
    assert _record.plain(1234567.8) == 1234570.0
    with pytest.raises(TypeError, match="must be a number"):
        _record.plain({1, 2})


@pytest.mark.parametrize(
    ("gap", "shown"),
    [(1.1e-13, 2e-13), (9.2e-5, 1e-4), (3e-7, 3e-7), (0.0, 0.0), (17, 17), (np.inf, np.inf), (1.0, 1.0)],
)
def test_gaps_are_rounded_up(gap, shown):
    assert _record.rounded_up(gap) == shown


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


# -- the ledger --------------------------------------------------------------------------------------------------------


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


def test_errors_are_added_over_the_claims_that_they_were_planted_in():
    numbers = [(3, 4, 2), (None, None, None), (5, 5, 1)]
    found = [_ledger.Audit(*killed_planted_equivalent, [], None) for killed_planted_equivalent in numbers]
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


# -- discovery ---------------------------------------------------------------------------------------------------------

MODULE = '''"""{title}.

More.
"""
from experiments.harness import Experiment
from tests import test_harness as t
EXPERIMENT = Experiment("{name}", __doc__, t.Setup, t.TOY.measure, t.claims, t.draw)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of experiments: a module, a package, and what is none."""
    place = tmp_path / "experiments"
    (place / "pkg").mkdir(parents=True)
    (place / "toy.py").write_text(MODULE.format(title="A toy", name="toy"))
    (place / "pkg/__init__.py").write_text("")
    (place / "pkg/__main__.py").write_text(MODULE.format(title="A package", name="pkg"))
    (place / "harness.py").write_text("")
    (place / "_private.py").write_text("")
    monkeypatch.setattr(experiments, "_FOLDER", place)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(place)])
    yield place
    for name in [n for n in sys.modules if n.startswith(("experiments.toy", "experiments.pkg"))]:
        del sys.modules[name]


def test_experiments_are_discovered(folder, capsys):
    assert experiments.names() == ["pkg", "toy"]
    assert (experiments.title("toy"), experiments.title("pkg")) == ("A toy.", "A package.")
    assert front.main([]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == ["pkg  A package.", "toy  A toy."]
    assert "python -m experiments all" in out
    assert experiments.load("toy").name == "toy"
    assert experiments.load("pkg").name == "pkg"
    with pytest.raises(ValueError, match="'nope' is no experiment; there are pkg, toy"):
        experiments.load("nope")
    (folder / "wrong.py").write_text(MODULE.format(title="x", name="other"))
    with pytest.raises(ValueError, match="must have one, 'wrong'"):
        experiments.load("wrong")
    assert front.main(["toy"]) == 2
    assert "python -m experiments.toy" in capsys.readouterr().err


def test_all_runs_all_and_returns_the_worst(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(theory, "names", lambda: ["toy", "pkg"])
    monkeypatch.setitem(sys.modules, "theory.pkg", ModuleType("theory.pkg"))  # its checks are of another theory: a bug
    argv = ["all", "--quick", "--format", "png", "--out", str(tmp_path / "out")]
    assert front.main(argv) == 1
    out, err = capsys.readouterr()
    assert "toy: every claim holds" in out
    assert "pkg: a claim does not hold, or it broke off" in out
    assert "Traceback" in err
    assert (tmp_path / "out/toy/numbers.json").is_file()
    assert front.main([*argv, "--seed", "-1"]) == 2
