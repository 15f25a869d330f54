"""Symbolic expressions at a point, to any number of digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
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
    return evaluator(point, sizes, digits)(expr)


def evaluator(point: Mapping[sp.Basic, Any], sizes: Mapping[str, int], digits: int = 30) -> Callable[[sp.Expr], mp.mpf]:
    """``evaluate`` at one point, for many expressions: what they have in common is evaluated once."""
    evaluation = _Evaluation(point, sizes)

    def value(expr: sp.Expr) -> mp.mpf:
        with mp.workdps(digits):
            return evaluation.at(sp.sympify(expr))

    return value


def _kl(p: list[mp.mpf], q: list[mp.mpf]) -> mp.mpf:
    return mp.fsum(a * (mp.log(a) - mp.log(b)) for a, b in zip(p, q, strict=True) if a != 0)


_FUNCTIONS = {
    sp.exp: mp.exp,
    sp.log: mp.log,
    sp.Abs: abs,
    sp.sign: mp.sign,
    PositivePart: lambda x: mp.nan if isinstance(x, mp.mpc) else max(x, mp.mpf(0)),  # only real numbers have a sign
    Step: lambda x: mp.nan if isinstance(x, mp.mpc) else mp.mpf(x > 0),
    FlowMargin: lambda s: s - mp.lambertw(mp.exp(s)).real,
    ExpExcess: lambda x: mp.expm1(x) - x,
    TanhExcess: lambda x: x - mp.tanh(x),
}


Places = tuple[tuple[sp.Symbol, int], ...]


class _Evaluation:
    """Expressions at one point; a part met again, under the same summation indices, is not evaluated again."""

    def __init__(self, point: Mapping[sp.Basic, Any], sizes: Mapping[str, int]) -> None:
        self.point, self.sizes = point, sizes
        self.known: dict[tuple[sp.Basic, Places], Any] = {}

    def at(self, e: sp.Basic, places: Places = ()) -> Any:
        """The value of a part; ``places``: where the indices stand over which sums outside it run."""
        if places:
            inside = _indices(e)
            places = tuple(place for place in places if place[0] in inside)
        if (e, places) not in self.known:
            self.known[e, places] = self._value(e, places)
        return self.known[e, places]

    def _value(self, e: sp.Basic, places: Places) -> Any:
        if e.is_Rational:
            return mp.mpf(int(e.p)) / int(e.q)
        for index, n in places:
            if e == index:
                return n
        if e in self.point:
            value = self.point[e]
            return value if isinstance(value, int | mp.mpf) else _number(value)
        if isinstance(e, sp.Symbol) and e.name.startswith("size@"):
            return mp.mpf(self.sizes[axis_of(e)])
        if isinstance(e, sp.Add):
            return mp.fsum(self.at(x, places) for x in e.args)
        if isinstance(e, sp.Mul):
            return mp.fprod(self.at(x, places) for x in e.args)
        if isinstance(e, sp.Pow):
            return mp.power(self.at(e.base, places), self.at(e.exp, places))
        if isinstance(e, KroneckerDelta):
            return mp.mpf(self.at(e.args[0], places) == self.at(e.args[1], places))
        if isinstance(e, sp.Indexed):
            value = self.point[e.base]
            for k in e.indices:
                value = value[int(self.at(k, places))]
            return _number(value)
        if isinstance(e, Total | Divergence):
            return self._sum(e, places)
        if isinstance(e, DivergenceOf):
            return _kl(*([self.at(x, places) for x in law] for law in e.laws()))
        if e.func in _FUNCTIONS:
            return _FUNCTIONS[e.func](self.at(e.args[0], places))
        if e in (sp.zoo, sp.nan):
            raise ZeroDivisionError("the expression is not defined here")
        if e.is_number:
            return mp.mpmathify(e.evalf(mp.mp.dps))
        raise KeyError(f"no value for {e}")

    def _sum(self, e: Total | Divergence, places: Places) -> mp.mpf:
        each: list[Places] = [(*places, (e.index, n)) for n in range(self.sizes[axis_of(e.index)])]
        if isinstance(e, Total):
            return mp.fsum(self.at(e.body, p) for p in each)
        return _kl(*([self.at(law, p) for p in each] for law in e.body.args))


@lru_cache(maxsize=2**16)
def _indices(e: sp.Basic) -> frozenset[sp.Basic]:
    """The points of axes that an expression depends on."""
    if isinstance(e, sp.Symbol):
        return frozenset({e} if axis_of(e) else ())
    inside: frozenset[sp.Basic] = frozenset().union(*map(_indices, e.args))
    return inside - {e.index} if isinstance(e, Total | Divergence) else inside


def _number(value: Any) -> mp.mpf:
    rational = sp.nsimplify(value, rational=True) if not isinstance(value, mp.mpf) else value
    return rational if isinstance(rational, mp.mpf) else mp.mpf(int(rational.p)) / int(rational.q)
