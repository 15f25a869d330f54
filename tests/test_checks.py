"""A claim held against what was simulated or measured."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _checks
from experiments.harness import (
    agrees,
    along,
    constant,
    drift,
    measured,
    refuted,
)
from sandbox.algebra import exp
from sandbox.tolerances import golden, identity, monte_carlo
from tests.toy import (
    PAPER,
    THEOREMS,
    TOY,
    product_is_less,
    record,
    sign_of_a_product,
    square_is_more_above_one,
    square_of_a_sum,
    twice_the_product_is_less,
)
from theory.statement import (
    AtMost,
    Conserved,
    Equal,
    Grows,
    Index,
    Mean,
    Positive,
    Rate,
    Real,
    Reals,
    Simplex,
    Source,
    Tends,
    theorem,
)

pytestmark = pytest.mark.usefixtures("toy")


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
