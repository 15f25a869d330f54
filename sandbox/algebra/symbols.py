"""What the two symbolic readings share: the scalar words on sympy expressions, and the few functions sympy lacks.

A function that sympy would open too early, or cannot sign, is kept closed here with its sign and its derivative, and is
opened only when an expression is tested for zero (``spelled_out``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp


def exact(x: Any) -> sp.Expr:
    """A sympy expression without floating-point numbers: 0.1 becomes 1/10."""
    expr = sp.sympify(x)
    floats = expr.atoms(sp.Float)
    return expr.xreplace({f: sp.Rational(str(f)) for f in floats}) if floats else expr


class PositivePart(sp.Function):
    """max(x, 0)."""

    nargs = 1
    is_real = True
    is_nonnegative = True

    @classmethod
    def eval(cls, x: sp.Expr) -> sp.Expr | None:
        if x.is_number:
            return sp.Max(x, 0)
        return x if x.is_positive else sp.S.Zero if x.is_nonpositive else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return Step(self.args[0])


class Step(sp.Function):
    """1 where x > 0, else 0."""

    nargs = 1
    is_real = True
    is_nonnegative = True

    @classmethod
    def eval(cls, x: sp.Expr) -> sp.Expr | None:
        if x.is_number:
            return sp.Integer(bool(x > 0))
        return sp.S.One if x.is_positive else sp.S.Zero if x.is_nonpositive else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero

    def _eval_power(self, power: sp.Expr) -> sp.Expr | None:
        return self if power.is_positive else None


class FlowMargin(sp.Function):
    """The y of y + e^y = s; it is 0 at s = 1."""

    nargs = 1
    is_real = True

    def _eval_is_positive(self) -> bool | None:
        return (self.args[0] - 1).is_positive or None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return 1 / (1 + sp.exp(self))


class ExpExcess(sp.Function):
    """e^x - 1 - x >= 0."""

    nargs = 1
    is_real = True
    is_nonnegative = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.exp(self.args[0]) - 1


class TanhExcess(sp.Function):
    """x - tanh x, of the sign of x."""

    nargs = 1
    is_real = True

    def _eval_is_nonnegative(self) -> bool | None:
        return self.args[0].is_nonnegative

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return tanh(self.args[0]) ** 2


def tanh(x: sp.Expr) -> sp.Expr:
    return (sp.exp(2 * x) - 1) / (sp.exp(2 * x) + 1)


def spelled_out(expr: sp.Expr) -> sp.Expr:
    """``expr`` with the closed functions that have a formula opened."""
    return expr.replace(ExpExcess, lambda x: sp.exp(x) - 1 - x).replace(TanhExcess, lambda x: x - tanh(x))


# The textbook formula of each elementwise word. Stability is no concern of symbols.
SCALAR_WORDS: dict[str, Callable[[sp.Expr], sp.Expr]] = {
    "exp": sp.exp,
    "log": sp.log,
    "sqrt": sp.sqrt,
    "sigmoid": lambda x: 1 / (1 + sp.exp(-x)),
    "log_sigmoid": lambda x: -sp.log(1 + sp.exp(-x)),
    "softplus": lambda x: sp.log(1 + sp.exp(x)),
    "log1mexp": lambda x: sp.log(1 - sp.exp(x)),
    "tanh": tanh,
    "cosh": lambda x: (sp.exp(x) + sp.exp(-x)) / 2,
    "sinh": lambda x: (sp.exp(x) - sp.exp(-x)) / 2,
    "relu": PositivePart,
    "step": Step,
    "flow_margin": FlowMargin,
    "exp_excess": ExpExcess,
    "tanh_excess": TanhExcess,
}
