"""When is an expression zero, when has it a sign? Each rule proves something true, and not its false neighbour."""

from __future__ import annotations

import random
from typing import Any

import mpmath as mp
import pytest
import sympy as sp

from sandbox.algebra import (
    dot,
    exp,
    exp_excess,
    flow_margin,
    grad,
    kl,
    log,
    logsumexp,
    mean,
    onehot,
    outer,
    reading,
    relu,
    softmax,
    softplus,
    sqrt,
    step,
    tanh_excess,
    total,
    velocity,
)
from sandbox.algebra.normal import always_positive, is_zero, never_negative, normal
from sandbox.algebra.sizefree import Bound, Total, fresh
from tests.formulas import (
    REALS,
    SQUARE,
    A,
    RandomFormula,
    W,
    a,
    b,
    c,
    f,
    h,
    k,
    l,
    m,
    p,
    q,
    s,
    t,
    u,
    values,
    w,
    x,
    y,
)
from theory.proof import _time_limit

X = REALS["x"]


def read(formula: Any) -> sp.Expr:
    """A formula in the size-free reading."""
    with reading("sizefree"):
        return sp.sympify(formula())


def one(like: Any) -> Any:
    """The vector of ones."""
    return 0 * like + 1


# -- zero: what is proved ----------------------------------------------------------------------------------------------

ZERO = {
    "constants leave a sum": lambda: total(a * x + p[w] * y) - a * total(x) - p[w] * total(y),
    "the sum of ones is the size": lambda: total(one(x)) * mean(x) - total(x),
    "a delta picks its element": lambda: dot(onehot(w, x), x) - x[w],
    "a delta squared is a delta": lambda: dot(onehot(w, x) ** 2, x) - x[w],
    "two distinct deltas never meet": lambda: dot(onehot(w, x) * onehot(l, x), x),
    "a delta inside a function": lambda: total(exp(x + a * onehot(w, x))) - total(exp(x)) - exp(x[w]) * (exp(a) - 1),
    "two deltas inside a function": lambda: (
        total(exp(x + onehot(w, x) - onehot(l, x)) - exp(x)) - exp(x[w]) * (exp(1) - 1) - exp(x[l]) * (exp(-1) - 1)
    ),
    "a law sums to one": lambda: total(p) - 1,
    "each row of a law sums to one": lambda: total(c[m]) - 1,
    "a softmax sums to one": lambda: total(softmax(x + a * y)) - 1,
    "a made law sums to one": lambda: total(softmax(log(p) + t * (onehot(w, p) - p))) - 1,
    "double sums in either order": lambda: dot(x, W @ h) - dot(x @ W, h),
    "double sums over one axis": lambda: dot(x, A @ y) - dot(x @ A, y),
    "a product of sums is a double sum": lambda: total(x) * total(y) - total(total(outer(x, y))),
    "matrix products associate": lambda: dot(x, A @ (A @ y)) - dot(x @ A, A @ y),
    "logsumexp of a shift": lambda: logsumexp(x + a) - a - logsumexp(x),
    "softmax of a shift": lambda: softmax(x + total(y))[w] - softmax(x)[w],
    "exponentials of sums": lambda: exp(a + b) - exp(a) * exp(b),
    "powers of exponentials": lambda: exp(2 * a - b) - exp(a) ** 2 / exp(b),
    "a power with a symbolic exponent": lambda: (t * s) ** a - exp(a * (log(t) + log(s))),
    "log of a product": lambda: log(t * s / u[w]) - log(t) - log(s) + log(u[w]),
    "log of a power": lambda: log(t**2) - 2 * log(t),
    "log of an exponential": lambda: log(exp(a) * t) - a - log(t),
    "log of a fraction of sums": lambda: log((t * s + t) / (1 + s)) - log(t),
    "log of a whole number": lambda: log(sp.Integer(12)) - 2 * log(sp.Integer(2)) - log(sp.Integer(3)),
    "sigmoid and its logarithm": lambda: -softplus(-a) - a + softplus(a),
    "a divergence spelled out": lambda: kl(p, q) - dot(p, log(p) - log(q)),
    "a divergence of softmaxes": lambda: (
        kl(softmax(x), softmax(y)) - dot(softmax(x), x - y) + logsumexp(x) - logsumexp(y)
    ),
    "slope of logsumexp": lambda: grad(logsumexp)(x)[w] - softmax(x)[w],
    "slope of a divergence": lambda: grad(lambda z: kl(p, softmax(z)))(x)[w] - softmax(x)[w] + p[w],
    "relu is x times its step": lambda: relu(a) - a * step(a),
    "a step times its hinge": lambda: step(a) * relu(a) - relu(a),
    "the flow margin solves its equation": lambda: exp(flow_margin(a)) + flow_margin(a) - a,
    "slope of the flow margin": lambda: velocity(flow_margin)(a) * (1 + a - flow_margin(a)) - 1,
    "excess of the exponential": lambda: exp_excess(a) - exp(a) + 1 + a,
    "excess over tanh": lambda: tanh_excess(t) * (exp(2 * t) + 1) - t * (exp(2 * t) + 1) + exp(2 * t) - 1,
    "termwise, inside a logarithm": lambda: total(softplus(x)) - total(x) - total(softplus(-x)),
    "termwise, under two sums": lambda: total(total(softplus(A) - A - softplus(-A))),
    "roots": lambda: sqrt(dot(h, h)) ** 2 - dot(h, h),
}
# false, each the neighbour of a rule above
NOT_ZERO = {
    "wrong element": lambda: dot(onehot(w, x), x) - x[l],
    "wrong axis: the sizes of two axes": lambda: total(one(x)) - total(one(f)),
    "wrong axis: sums of one family's square": lambda: total(x) * total(one(f)) - total(x) * total(one(x)),
    "wrong axis: a law summed over its condition": lambda: (one(h) @ c)[w] - 1,
    "wrong axis: an element of a law summed": lambda: total(f * 0 + p[w]) - 1,
    "positive, but no law": lambda: total(u) - 1,
    "a law times a weight": lambda: dot(p, x) - 1,
    "the trace of laws": lambda: trace(SQUARE) - 1,
    "trace against the sum of all": lambda: trace(REALS["A"]) - total(total(A)),
    "a matrix against its transpose": lambda: dot(x, A @ y) - dot(y, A @ x),
    "product of sums against sum of products": lambda: total(x) * total(y) - dot(x, y),
    "logsumexp is not linear": lambda: logsumexp(2 * x) - 2 * logsumexp(x),
    "softmax of a shift at one element": lambda: softmax(x + onehot(w, x))[w] - softmax(x)[w],
    "exponential of a product": lambda: exp(a * b) - exp(a) * exp(b),
    "log of the square of a real": lambda: log(a**2) - 2 * log(a),
    "log of a product of reals": lambda: log(a * b) - log(a) - log(b),
    "root of the square of a real": lambda: sqrt(a**2) - a,
    "log of a sum": lambda: log(t + s) - log(t) - log(s),
    "divergence reversed": lambda: kl(p, q) - kl(q, p),
    "divergence of what is no law": lambda: kl(u, p) - dot(u, log(u)) + dot(p, log(p)),
    "steps of both signs, at zero": lambda: step(a) + step(-a) - 1,
    "hinges of both signs": lambda: relu(a) + relu(-a) - a,
    "the flow margin for its exponential": lambda: exp(flow_margin(a)) - a,
    "termwise, a sign off": lambda: total(softplus(x)) - total(softplus(-x)),
    "termwise, at a point": lambda: total(softplus(x) - x) - total(softplus(-x)) - softplus(x[w]) + softplus(x[l]),
    "a power of ten digits": lambda: exp(a) - exp(a * (1 + sp.Rational(1, 10**10))),
}
UNDEFINED_OR_AT_A_POINT = {"log of the square of a real", "log of a product of reals", "steps of both signs, at zero"}


def trace(base: sp.IndexedBase) -> sp.Expr:
    """The sum of the diagonal."""
    i = fresh("V")
    return Total(base[i, i], i)


@pytest.mark.parametrize("rule", ZERO)
def test_rule_proves_what_is_true(rule):
    expr = read(ZERO[rule])
    assert expr != 0, "nothing to prove"
    assert is_zero(expr)
    found = values(expr, random.Random(0), 6)
    assert found and max(map(abs, found)) < 1e-20


@pytest.mark.parametrize("rule", NOT_ZERO)
def test_rule_does_not_prove_its_false_neighbour(rule):
    expr = read(NOT_ZERO[rule])
    assert not is_zero(expr)
    if rule not in UNDEFINED_OR_AT_A_POINT:
        assert max(map(abs, values(expr, random.Random(0), 6))) > 1e-12


def test_size_of_an_axis_may_be_one_so_nothing_is_divided_by_its_neighbour():
    assert not is_zero(read(lambda: total(one(x)) - 2)) and is_zero(
        read(lambda: total(one(x)) / mean(one(x))) - Total(1, fresh("V"))
    )


# -- bound indices -----------------------------------------------------------------------------------------------------


def test_substitution_does_not_capture_a_bound_index():
    i = fresh("V")
    expr = Total(X[i] * REALS["y"][k], i)
    moved = expr.xreplace({k: i})
    assert moved.index != i and moved.free_symbols >= {i}
    assert is_zero(Total(moved, i) - read(lambda: total(x) * total(y)))
    assert is_zero(expr.subs(k, i) - moved)


def test_bound_index_is_not_free_and_is_not_replaced():
    i = fresh("V")
    expr = Total(X[i], i)
    assert i not in expr.free_symbols and X[i] not in expr.free_symbols
    assert expr.xreplace({i: w}) == expr


def test_names_of_bound_indices_do_not_matter():
    i, j = fresh("V"), fresh("V")
    assert is_zero(Total(X[i], i) - Total(X[j], j))
    assert is_zero(Total(Total(X[i] * A.at(i, j), i), j) - Total(Total(X[j] * A.at(j, i), j), i))
    assert normal(Total(X[i] * p[i], i)) == normal(Total(X[j] * p[j], j))


def test_head_without_a_derivative_rule_raises():
    class Largest(Bound):
        """A head of which nobody said what its slope is."""

    with pytest.raises(NotImplementedError, match="Largest has no derivative rule"):
        Largest(X[w], w).diff(X[l])
    i = fresh("V")
    assert is_zero(Total(X[i] ** 2, i).diff(X[w]) - 2 * X[w])


def test_element_at_an_index_that_may_be_a_point_is_not_decided():
    i = fresh("V")
    assert not is_zero(onehot_at(i)) and not is_zero(onehot_at(i) - 1) and is_zero(onehot_at(l))


def onehot_at(i: sp.Symbol) -> sp.Expr:
    """Is i the element w?"""
    return sp.KroneckerDelta(i, w)


# -- sign --------------------------------------------------------------------------------------------------------------

POSITIVE = {
    "symbols": lambda: t + s * u[w],
    "exponentials": lambda: exp(a) + exp(-b),
    "a square and more": lambda: a**2 + t,
    "a sum over an axis": lambda: total(exp(x)),
    "growth of an exponential": lambda: exp(t) - 1,
    "decay of an exponential": lambda: 1 - exp(-t * s),
    "log above one": lambda: log(1 + t) + log(1 + exp(a)),
    "rest of a law": lambda: (1 - p[w]) * 2 + p[l],
    "softmax": lambda: softmax(x)[w],
    "both parts of a ratio below zero": lambda: (t * s - (t + s) ** 2) / (t * s - (t + 2 * s) ** 2),
    "logistic slope": lambda: grad(softplus)(a) * grad(softplus)(-a),
}
NONNEGATIVE = {
    "square": lambda: (a - b) ** 2,
    "squared norm": lambda: dot(h, h),
    "mean square": lambda: mean(x**2),
    "Gibbs": lambda: kl(p, q),
    "Gibbs of softmaxes": lambda: kl(softmax(x), softmax(log(p) + t * y)),
    "Gibbs of rows": lambda: t * kl(c[m], p),
    "hinge": lambda: relu(a) + step(b),
    "excess of the exponential": lambda: exp_excess(a),
    "excess over tanh": lambda: tanh_excess(t),
    "two elements of a law": lambda: 1 - p[w] - p[l],
    "collision probability": lambda: 1 - dot(p, p),
    "collision at a point": lambda: dot(p, p) - p[w] ** 2 - p[l] ** 2,
    "cubes below squares": lambda: p[w] ** 2 + 1 - p[w] ** 2 - total(p**3),
    "sum above its elements": lambda: total(u) - u[w] - u[l],
    "logsumexp above an element": lambda: logsumexp(x) - x[w],
    "a delta is 0 or 1": lambda: 1 - sp.KroneckerDelta(fresh("V"), w),
    "hidden square": lambda: a**2 + b**2 + 2 * a * b if False else sp.expand((t - s) ** 2 + 2 * t * s),
    "log of a ratio": lambda: log(1 + t) - log(1 + t / 2),
    "flow margin beyond 1": lambda: flow_margin(1 + t),
}
MAY_BE_NEGATIVE = {
    "a real": lambda: a,
    "a difference": lambda: t - s,
    "exponential of a real": lambda: exp(a) - 1,
    "decay": lambda: exp(-t) - 1,
    "log": lambda: log(t),
    "sum of reals": lambda: total(x),
    "sum of reals above an element": lambda: total(x**2) - x[w],
    "sum above twice an element": lambda: total(u) - 2 * u[w],
    "law above one half": lambda: p[w] - p[l],
    "twice an element of a law": lambda: 1 - 2 * p[w],
    "collision against an element": lambda: dot(p, p) - p[w],
    "element against collision": lambda: p[w] - dot(p, p),
    "cubes against squares": lambda: total(p**3) - dot(p, p),
    "divergence of what is no law": lambda: kl(u, p),
    "divergence to what is no law": lambda: kl(p, u),
    "difference of divergences": lambda: kl(p, q) - kl(q, p),
    "three point inequality": lambda: kl(p, q) - kl(p, softmax(x)) - kl(softmax(x), q),
    "excess over tanh of a real": lambda: tanh_excess(a),
    "logsumexp": lambda: logsumexp(x),
    "logsumexp above a sum": lambda: logsumexp(x) - total(x),
    "indefinite form": lambda: a**2 + b**2 - 3 * a * b,
    "cube": lambda: a**3,
    "hinge difference": lambda: relu(a) - relu(b),
    "delta difference": lambda: sp.Rational(1, 2) - sp.KroneckerDelta(fresh("V"), w),
    "law below uniform": lambda: p[w] - 1 / total(one(p)),
    "flow margin": lambda: flow_margin(t),
    "size above two": lambda: total(one(x)) - 2,
}


@pytest.mark.parametrize("what", POSITIVE)
def test_positive_is_seen(what):
    expr = read(POSITIVE[what])
    assert always_positive(expr) and never_negative(expr)
    assert not never_negative(-expr)
    assert min(values(expr, random.Random(1), 9, extreme=True)) > 0


@pytest.mark.parametrize("what", NONNEGATIVE)
def test_nonnegative_is_seen_and_is_not_called_positive(what):
    expr = read(NONNEGATIVE[what])
    assert never_negative(expr)
    if what not in STRICT:
        assert not always_positive(expr)


STRICT = {
    "logsumexp above an element",
    "cubes below squares",
    "two elements of a law",
    "log of a ratio",
    "flow margin beyond 1",
    "hidden square",
}


@pytest.mark.parametrize("what", MAY_BE_NEGATIVE)
def test_what_may_be_negative_gets_no_sign(what):
    assert not never_negative(read(MAY_BE_NEGATIVE[what]))


# -- random formulas ---------------------------------------------------------------------------------------------------


def agree(found: mp.mpf, expected: mp.mpf) -> bool:
    return abs(found - expected) <= mp.mpf(10) ** -15 * (1 + abs(found) + abs(expected))


@pytest.mark.parametrize("chunk", range(8))
def test_random_formulas_keep_their_value_and_get_no_wrong_verdict(chunk):
    """The normal form is the same number; what is called zero is 0; what is called non-negative is not below."""
    decided = 0
    for seed in range(25 * chunk, 25 * chunk + 25):
        expr = read(lambda seed=seed: RandomFormula(seed).scalar(3))
        here = values(expr, random.Random(seed), 3)
        try:
            with _time_limit(2):  # some are too large to expand
                form, zero = normal(expr), is_zero(expr)
                signs = {sign: (never_negative(sign * expr), always_positive(sign * expr)) for sign in (1, -1)}
        except TimeoutError:
            continue
        decided += 1
        assert all(map(agree, values(form, random.Random(seed), 3), here)), f"seed {seed}: {expr} became {form}"
        assert not zero or all(agree(v, 0) for v in here), f"seed {seed}: {expr} was called zero"
        for sign, (at_least, above) in signs.items():
            assert not at_least or all(sign * v > -1e-15 for v in here), f"seed {seed}: {sign} ({expr}) was called >= 0"
            assert not above or all(sign * v > 0 for v in here), f"seed {seed}: {sign} ({expr}) was called > 0"
    assert decided > 20
