"""A throwaway theory and experiment, about sums of squares, which the fixtures of conftest run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theory
from experiments.harness import Experiment, Report, agrees, along, knob, main, measured, refuted
from sandbox.algebra import dot
from sandbox.tolerances import identity
from sandbox.validate import positive, require
from theory import _ledger
from theory.statement import AtMost, Equal, Given, Positive, Real, Reals, SameSign, Source, theorem

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


@pytest.fixture
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


def written(folder):
    """What a run left in a folder, hidden files aside."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


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
