"""How well a wrong statement is caught: a mistake in a true theorem, and errors planted one by one in its sides."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
import sympy as sp

from sandbox.algebra import dot, exp, flow_margin, mean, onehot, relu, stack, step, total
from sandbox.algebra.concrete import DivergenceOf
from sandbox.algebra.mutants import mutants
from sandbox.algebra.sizefree import Divergence, fresh, size
from tests.engine import stated
from tests.formulas import a, b, l, p, q, t, w, x
from theory._planted import plant
from theory.proof import Proved, Refuted, prove
from theory.statement import AtMost, Equal, Index, NonNegative, Positive, Rate, Real, Reals, Simplex

I = fresh("V")
AB = dict(a=Real(), b=Real())
SQUARE = stated(lambda a, b: AtMost(2 * a * b, a**2 + b**2, slack=(a - b) ** 2), **AB)

MISTAKES = {
    "as it is": (lambda p, w, l: 1 - dot(p, p) + 2 * p[l], Proved),
    "sign": (lambda p, w, l: 1 + dot(p, p) + 2 * p[l], Refuted),
    "factor": (lambda p, w, l: 1 - dot(p, p) + p[l], Refuted),
    "exchanged": (lambda p, w, l: 1 - dot(p, p) + 2 * p[w], Refuted),
    "axis": (lambda p, w, l: mean(p) * 0 + 1 - total(p) ** 2 + 2 * p[l], Refuted),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_in_a_true_theorem_is_refuted(mistake):
    """One tabular token: the inner product of two gradients is at most half of the first's square."""
    slack, verdict = MISTAKES[mistake]

    def factor_two(p, w, l):
        chosen, rejected = onehot(w, p) - p, onehot(l, p) - p
        return AtMost(2 * dot(chosen, rejected), dot(chosen, chosen), slack=slack(p, w, l))

    assert isinstance(prove(stated(factor_two, p=Simplex("V"), w=Index("V"), l=Index("V"))), verdict)


def kinds(expr: sp.Expr) -> set[str]:
    """The first word of each error, or that points were exchanged."""
    return {"exchanged" if "exchanged" in what else what.split()[0] for what, _ in mutants(expr)}


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (a + b, {"sign", "doubled"}),
        (3 * a * b, {"without", "doubled"}),
        (x[w] + x[l] ** 2, {"sign", "exchanged", "doubled"}),
        (x[w] + size("V"), {"sign", "doubled"}),  # the size of an axis is no point of it
        (Divergence(sp.Tuple(p.at(I), q.at(I)), I), {"divergence", "doubled"}),
        (DivergenceOf(t, 1 - t, a, 1 - a), {"divergence", "sign", "without", "doubled"}),
    ],
)
def test_each_kind_of_error_is_planted_where_it_can_be(expr, expected):
    assert kinds(expr) == expected


def test_errors_are_planted_at_every_depth():
    inside = sp.log(1 + sp.exp(a * b))
    found = {m for _, m in mutants(inside)}
    assert found >= {sp.log(1 + sp.exp(a)), sp.log(1 + sp.exp(b)), sp.log(1 - sp.exp(a * b)), 2 * inside}


def test_no_error_is_the_expression_itself_or_planted_twice():
    expr = a * x[w] + b * x[l] - sp.exp(a * b)
    found = [m for _, m in mutants(expr)]
    assert expr not in found and len(found) == len(set(found))


@pytest.mark.parametrize(
    ("claim", "at_least"),
    [
        (SQUARE, 6),
        (stated(lambda s: Equal(flow_margin(s) + exp(flow_margin(s)), s), s=Real()), 3),
        (stated(lambda a, b: Equal(relu(a * b), a * b * step(a * b)), **AB), 4),  # behind a kink
        (stated(lambda p, w: Equal(mean(p) + p[w], p[w] + 1 / total(0 * p + 1)), p=Simplex("V"), w=Index("V")), 4),
    ],
)
def test_planted_errors_are_caught_and_counted(claim, at_least):
    found = plant(claim)
    assert prove(claim) == Proved()
    assert found is not None and found.survivors == () and found.planted == found.killed >= at_least


def test_true_mutant_is_recognised_as_equivalent():
    """An exchange of the two points in (x_w - x_l)^2 plants no error."""

    def square(x, w, l):
        return Equal((x[w] - x[l]) ** 2, x[w] ** 2 + x[l] ** 2 - 2 * x[w] * x[l])

    found = plant(stated(square, x=Reals("V"), w=Index("V"), l=Index("V")))
    assert found is not None and found.equivalent >= 1 and found.survivors == () and found.killed >= 4


def test_error_too_small_to_see_survives_in_words():
    """Fifteen digits cannot tell e^-100 from its double, and the prover does not call it equal."""
    found = plant(stated(lambda a, b: Equal(b * (1 + exp(-100 - a**2)), b + b * exp(-100 - a**2)), **AB))
    assert found is not None and found.survivors and any("sign" in what for what in found.survivors)


@pytest.mark.parametrize(
    "claim",
    [
        stated(lambda a, b: Equal(stack(a + b), stack(b + a)), **AB),
        stated(lambda a, b: NonNegative(a**2 + b**2), **AB),
        stated(lambda t: Rate(t * jnp.arange(1.0, 9), jnp.arange(1.0, 9), 1, 0.05), expect="checked", t=Positive()),
    ],
)
def test_nothing_is_planted_without_an_equality_or_a_sizefree_reading(claim):
    assert plant(claim) is None
