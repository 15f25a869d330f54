"""Symbolic expressions at a point, to any number of digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mpmath as mp
import sympy as sp
from sympy import KroneckerDelta

from sandbox.algebra.concrete import DivergenceOf
from sandbox.algebra.sizefree import Divergence, Total, axis_of
from sandbox.algebra.symbols import ExpExcess, FlowMargin, PositivePart, Step, TanhExcess


def evaluate(expr: sp.Expr, point: Mapping[sp.Basic, Any], sizes: Mapping[str, int], digits: int = 30) -> mp.mpf:
    """The value of ``expr`` at ``point``.

    point: a number for each symbol, an integer for each index, a nested sequence for each indexed base.
    sizes: the number of elements of each axis. Raises KeyError for a symbol without a value, ZeroDivisionError where
    the expression is not defined; a value outside the reals (log of a negative number) comes back complex or as nan.
    """
    with mp.workdps(digits):
        return _Evaluation(sizes).at(sp.sympify(expr), dict(point))


def _kl(p: list[mp.mpf], q: list[mp.mpf]) -> mp.mpf:
    return mp.fsum(a * (mp.log(a) - mp.log(b)) for a, b in zip(p, q, strict=True) if a != 0)


_FUNCTIONS = {
    sp.exp: mp.exp,
    sp.log: mp.log,
    sp.Abs: abs,
    sp.sign: mp.sign,
    PositivePart: lambda x: max(x, mp.mpf(0)),
    Step: lambda x: mp.mpf(x > 0),
    FlowMargin: lambda s: s - mp.lambertw(mp.exp(s)).real,
    ExpExcess: lambda x: mp.expm1(x) - x,
    TanhExcess: lambda x: x - mp.tanh(x),
}


class _Evaluation:
    """One expression at one point; a sum met again under the same indices is not summed again."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.sums: dict[tuple[Any, ...], mp.mpf] = {}

    def at(self, e: sp.Basic, point: dict[sp.Basic, Any]) -> Any:
        if e.is_Rational:
            return mp.mpf(int(e.p)) / int(e.q)
        if e in point:
            value = point[e]
            return value if isinstance(value, int | mp.mpf) else _number(value)
        if isinstance(e, sp.Symbol) and e.name.startswith("size@"):
            return mp.mpf(self.sizes[axis_of(e)])
        if isinstance(e, sp.Add):
            return mp.fsum(self.at(x, point) for x in e.args)
        if isinstance(e, sp.Mul):
            return mp.fprod(self.at(x, point) for x in e.args)
        if isinstance(e, sp.Pow):
            return mp.power(self.at(e.base, point), self.at(e.exp, point))
        if isinstance(e, KroneckerDelta):
            return mp.mpf(self.at(e.args[0], point) == self.at(e.args[1], point))
        if isinstance(e, sp.Indexed):
            value = point[e.base]
            for k in e.indices:
                value = value[int(self.at(k, point))]
            return _number(value)
        if isinstance(e, Total | Divergence):
            return self.sum(e, point)
        if isinstance(e, DivergenceOf):
            return _kl(*([self.at(x, point) for x in law] for law in e.laws()))
        if e.func in _FUNCTIONS:
            return _FUNCTIONS[e.func](self.at(e.args[0], point))
        if e in (sp.zoo, sp.nan):
            raise ZeroDivisionError("the expression is not defined here")
        if e.is_number:
            return mp.mpmathify(e.evalf(mp.mp.dps))
        raise KeyError(f"no value for {e}")

    def sum(self, e: Total | Divergence, point: dict[sp.Basic, Any]) -> mp.mpf:
        indices = sorted((s for s in e.free_symbols if s in point and axis_of(s)), key=sp.default_sort_key)
        key = (e, *(point[i] for i in indices))
        if key not in self.sums:
            each = [{**point, e.index: n} for n in range(self.sizes[axis_of(e.index)])]
            if isinstance(e, Total):
                self.sums[key] = mp.fsum(self.at(e.body, p) for p in each)
            else:
                self.sums[key] = _kl(*([self.at(law, p) for p in each] for law in e.body.args))
        return self.sums[key]


def _number(value: Any) -> mp.mpf:
    rational = sp.nsimplify(value, rational=True) if not isinstance(value, mp.mpf) else value
    return rational if isinstance(rational, mp.mpf) else mp.mpf(int(rational.p)) / int(rational.q)
