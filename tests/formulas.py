"""Symbols for formulas at every size, random points for them, and formulas at random."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath as mp
import sympy as sp

from sandbox.algebra import (
    dot,
    exp,
    exp_excess,
    flow_margin,
    grad,
    kl,
    log,
    log_softmax,
    logsumexp,
    mean,
    onehot,
    outer,
    relu,
    sigmoid,
    softmax,
    sqrt,
    step,
    tanh_excess,
    total,
)
from sandbox.algebra.numeric import evaluate
from sandbox.algebra.sizefree import Family, Law, index

Sizes = Mapping[str, int]


def family(base: sp.IndexedBase, *axes: str) -> Family:
    """The elements of an indexed base as a family."""
    return Family(lambda *k: base[k if len(k) > 1 else k[0]], axes)


# p, q: laws on V; c, r: a law on V for each element of d, of V; u > 0 and x, y on V; h, f on d; W on V, d; A on V, V.
LAWS = {name: Law(sp.Symbol(name, positive=True)) for name in "pq"}
ROWS, SQUARE = (Law(sp.Symbol(name, positive=True)) for name in "cr")
ABOVE = sp.IndexedBase(sp.Symbol("u", positive=True))
REALS = {name: sp.IndexedBase(sp.Symbol(name, real=True)) for name in "xyhfWA"}
p, q = (family(LAWS[name], "V") for name in "pq")
x, y = (family(REALS[name], "V") for name in "xy")
h, f = (family(REALS[name], "d") for name in "hf")
c, W, A = family(ROWS, "d", "V"), family(REALS["W"], "V", "d"), family(REALS["A"], "V", "V")
u = family(ABOVE, "V")
w, l, k = (index(name, "V") for name in "wlk")
m = index("m", "d")
a, b = sp.symbols("a b", real=True)
s, t = sp.symbols("s t", positive=True)


def random_point(rng: random.Random, sizes: Sizes, extreme: bool = False) -> dict[sp.Basic, Any]:
    """A value for every symbol above; V has at least three elements."""

    def number(positive: bool) -> mp.mpf:
        size = Fraction(rng.randint(1, 5), rng.randint(1, 4))
        if extreme:
            size *= rng.choice([Fraction(1, 100), 1, 30])
        return mp.mpf(size.numerator) / size.denominator * (1 if positive else rng.choice([1, -1]))

    def numbers(n: int, positive: bool = False) -> list[mp.mpf]:
        return [number(positive) for _ in range(n)]

    def law() -> list[mp.mpf]:
        weights = numbers(sizes["V"], positive=True)
        return [v / mp.fsum(weights) for v in weights]

    with mp.workdps(40):
        point: dict[sp.Basic, Any] = {a: number(False), b: number(False), s: number(True), t: number(True)}
        point |= dict(zip((w, l, k), rng.sample(range(sizes["V"]), 3), strict=True))
        point[m] = rng.randrange(sizes["d"])
        point |= {LAWS["p"]: law(), LAWS["q"]: law()}
        point |= {ROWS: [law() for _ in range(sizes["d"])], SQUARE: [law() for _ in range(sizes["V"])]}
        point |= {ABOVE: numbers(sizes["V"], positive=True), REALS["x"]: numbers(sizes["V"])}
        point |= {REALS["y"]: numbers(sizes["V"]), REALS["h"]: numbers(sizes["d"]), REALS["f"]: numbers(sizes["d"])}
        point |= {REALS["W"]: [numbers(sizes["d"]) for _ in range(sizes["V"])]}
        point |= {REALS["A"]: [numbers(sizes["V"]) for _ in range(sizes["V"])]}
    return point


def values(expr: sp.Expr, rng: random.Random, count: int, extreme: bool = False) -> list[mp.mpf]:
    """The values of an expression at random points, at three sizes in turn, where it is defined and real."""
    found = []
    for n in range(count):
        sizes = {"V": 3 + n % 3, "d": (2, 1, 3)[n % 3]}
        try:
            value = evaluate(expr, random_point(rng, sizes, extreme), sizes)
        except ZeroDivisionError:
            continue
        if isinstance(value, mp.mpf) and mp.isfinite(value):
            found.append(value)
    return found


class RandomFormula:
    """Formulas in the words, at random: scalars of about the given depth, on two axes and three points."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed).choice

    def scalar(self, depth: int) -> Any:
        """A number of any sign."""
        if depth <= 0:
            return self.choice(
                [a, t, s, p[w], p[l], p[k], x[w], x[l], u[w], u[l], h[m], c[m, w], *map(sp.Integer, (1, 2, -1))]
            )
        n = depth - self.choice([1, 1, 2])
        one, other, vector = (lambda: self.scalar(n)), (lambda: self.scalar(n)), (lambda: self.vector(n))
        ways = [
            lambda: one() + other(),
            lambda: one() - other(),
            lambda: one() * other(),
            lambda: one() ** 2,
            lambda: one() / self.positive(n),
            lambda: relu(one()),
            lambda: total(vector()),
            lambda: total(total(self.matrix(n))),
            lambda: mean(vector()),
            lambda: dot(vector(), vector()),
            lambda: self.slope(vector()),
            lambda: log(self.positive(n)),
            lambda: sqrt(self.positive(n)),
            lambda: self.choice([exp, sigmoid, flow_margin, exp_excess, step])(self.exponent()),
            lambda: tanh_excess(t),
            lambda: kl(self.law(), self.law()),
            lambda: logsumexp(self.logits()),
            lambda: softmax(self.logits())[self.choice([w, l])],
            lambda: onehot(w, x)[self.choice([w, l, k])],
            lambda: self.positive(n),
        ]
        return self.choice(ways)()

    def slope(self, direction: Family) -> Any:
        """A derivative along a direction."""
        functions = [lambda z: log_softmax(z)[w], logsumexp, lambda z: dot(p, z) ** 2, lambda z: kl(p, softmax(z))]
        return dot(grad(self.choice([*functions, lambda z: exp(z[w] - z[l])]))(self.logits()), direction)

    def positive(self, depth: int) -> Any:
        """A number > 0."""
        if depth <= 0:
            return self.choice([t, s, 1 + t, t * s, t**2, u[w], u[w] + u[l], p[w], p[l], p[w] + p[l]])
        n = depth - 1
        one = lambda: self.positive(n)  # noqa: E731
        ways = [
            lambda: one() + one(),
            lambda: one() * one(),
            lambda: one() / one(),
            lambda: one() ** self.choice([2, -1, 3, a]),
            lambda: exp(self.exponent()),
            lambda: sigmoid(self.exponent()),
            lambda: total(self.weights()),
            lambda: dot(self.weights(), self.weights()),
            lambda: softmax(self.logits())[w],
        ]
        return self.choice(ways)()

    def exponent(self) -> Any:
        """A number to be put into an exponential."""
        return self.choice(
            [a, -t, 2 * t, a * t, a + t, t + s, a / 2, x[w], x[w] - x[l], x[w] + a, log(u[w]), flow_margin(a)]
        )

    def logits(self) -> Family:
        """A family on V, to be put into a softmax."""
        plain = [x, x + a, t * x, x + y, log(u), log(p), log(p) + t * x, W @ h]
        pushed = [x + onehot(w, x), x + a * (onehot(w, x) - p), log(p) + t * (onehot(w, p) - onehot(l, p))]
        return self.choice(plain + pushed)

    def law(self) -> Family:
        """A law on V."""
        return self.choice([p, q, softmax(x), softmax(self.logits())])

    def weights(self) -> Family:
        """A positive family on V."""
        return self.choice(
            [p, q, u, 1 / u, p * u, p * q, p**2, u**2, t * u, 1 + p, p / (1 + u), exp(x), exp(t * x), self.law()]
        )

    def vector(self, depth: int) -> Family:
        """A family on V."""
        if depth <= 0:
            return self.choice([p, q, u, x, y, onehot(w, x), onehot(k, x) - p, W @ h])
        n = depth - self.choice([1, 2])
        one, other = (lambda: self.vector(n)), (lambda: self.vector(n))
        ways = [
            lambda: one() + other(),
            lambda: one() - other(),
            lambda: one() * other(),
            lambda: self.scalar(n - 1) * one(),
            lambda: self.scalar(n - 1) + one(),
            lambda: self.weights(),
            lambda: log(self.weights()),
            lambda: relu(one()),
            lambda: grad(lambda z: log_softmax(z)[w])(self.logits()),
            lambda: self.choice([h @ c, c[m], total(W), total(W * h), total(W**2)]),
        ]
        return self.choice(ways)()

    def matrix(self, depth: int) -> Family:
        """A family on two axes."""
        n = depth - 1
        ways = [
            lambda: outer(self.vector(n), h),
            lambda: outer(self.vector(n), self.vector(n)),
            lambda: outer(p, x) - outer(x, p),
            lambda: outer(u, x) * outer(x, p),
            lambda: c * self.vector(n),
            lambda: W * h,
        ]
        return self.choice(ways)()
