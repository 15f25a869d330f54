"""The words at one size: arrays are NumPy arrays of sympy expressions.

Nothing is shared with the size-free reading but the scalar formulas, so that agreement of the two says something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from sandbox.algebra.symbols import SCALAR_WORDS, exact


def each(f: Callable[[sp.Expr], Any], x: Any) -> Any:
    """``f`` of every element of an array, or of a scalar."""
    return np.frompyfunc(lambda v: f(exact(v)), 1, 1)(x) if isinstance(x, np.ndarray) else f(exact(x))


def _elementwise(formula: Callable[[sp.Expr], sp.Expr]) -> Callable[[Any], Any]:
    return lambda x: each(formula, x)


for _name, _formula in SCALAR_WORDS.items():
    globals()[_name] = _elementwise(_formula)


class DivergenceOf(sp.Function):
    """KL of two laws listed one after the other; closed, so that its sign (Gibbs) is known."""

    is_real = True

    def laws(self) -> tuple[tuple[sp.Expr, ...], tuple[sp.Expr, ...]]:
        half = len(self.args) // 2
        return self.args[:half], self.args[half:]

    def spelled_out(self) -> sp.Expr:
        # 0 log 0 = 0
        return sp.Add(*(p * (sp.log(p) - sp.log(q)) for p, q in zip(*self.laws(), strict=True) if p != 0))

    def _eval_derivative(self, x: sp.Basic) -> sp.Expr:
        return self.spelled_out().diff(x)

    def _eval_is_nonnegative(self) -> bool | None:
        from sandbox.algebra.normal import is_zero

        return True if all(is_zero(sp.Add(*law) - 1) for law in self.laws()) else None


def total(x: Any) -> Any:
    return np.sum(x, axis=-1)


def dot(a: Any, b: Any) -> Any:
    return total(a * b)


def mean(x: Any) -> Any:
    return total(x) / sp.Integer(x.shape[-1])


def logsumexp(z: Any) -> Any:
    return each(sp.log, total(each(sp.exp, z)))


def log_softmax(z: Any) -> Any:
    normaliser = logsumexp(z)
    return z - (normaliser[..., None] if z.ndim > 1 else normaliser)


def softmax(z: Any) -> Any:
    return each(sp.exp, log_softmax(z))


def kl(p: Any, q: Any) -> Any:
    if p.ndim == 1:
        return DivergenceOf(*map(exact, p), *map(exact, q))
    return np.array([kl(a, b) for a, b in zip(p, q, strict=True)], dtype=object)


def onehot(w: int, like: Any) -> Any:
    return np.array([sp.Integer(k == w) for k in range(like.shape[-1])], dtype=object)


def stack(*xs: Any) -> Any:
    return np.array([exact(x) for x in xs], dtype=object)


def outer(a: Any, b: Any) -> Any:
    return a[:, None] * b[None, :]


def _free(z: Any) -> tuple[Any, dict[sp.Basic, sp.Expr]]:
    if not isinstance(z, np.ndarray):
        x = sp.Dummy("x", real=True)
        return x, {x: exact(z)}
    x = np.array([sp.Dummy(f"x{n}", real=True) for n in range(z.size)], dtype=object).reshape(z.shape)
    return x, dict(zip(x.ravel(), map(exact, z.ravel()), strict=True))


def grad(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def gradient(z: Any) -> Any:
        x, back = _free(z)
        y = exact(f(x))
        return each(lambda v: y.diff(v).xreplace(back), x)

    return gradient


def velocity(path: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def at(t: Any) -> Any:
        x, back = _free(exact(t))
        return each(lambda v: v.diff(x).xreplace(back), path(x))

    return at


def along(quantity: Callable[[Any], Any], field: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def at(z: Any) -> Any:
        product = grad(quantity)(z) * field(z)
        return np.sum(product) if isinstance(product, np.ndarray) else product

    return at
