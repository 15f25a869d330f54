"""The words at every size at once.

A vector is a ``Family``: a function from an index to a sympy expression, over a named axis. A sum over an axis is a
``Total``, left unevaluated with a bound index of its own. What ``normal.is_zero`` then proves holds for any number of
responses, tokens or features.

The axis stands in the name of every index (``i@V``), so that a sum over responses never equals a sum over features.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import sympy as sp
from sympy import KroneckerDelta

from sandbox.algebra.symbols import SCALAR_WORDS, exact


def index(name: str, axis: str) -> sp.Symbol:
    """A point of ``axis``; two points of different names are different elements."""
    return sp.Symbol(f"{name}@{axis}", integer=True, nonnegative=True)


def fresh(axis: str) -> sp.Dummy:
    """An index on ``axis`` that no expression holds yet; it may coincide with any point."""
    return sp.Dummy(f"i@{axis}", integer=True, nonnegative=True)


def axis_of(i: sp.Symbol) -> str:
    """The axis an index runs on; '' for a symbol that is no index."""
    return i.name.rpartition("@")[2] if "@" in i.name else ""


def is_point(i: sp.Basic) -> bool:
    """Is it an index that names one element, rather than one that a sum runs over (or the size of an axis)?"""
    named = isinstance(i, sp.Symbol) and not isinstance(i, sp.Dummy) and i.name[:1].isalpha()
    return named and axis_of(i) != "" and i != size(axis_of(i))


def size(axis: str) -> sp.Symbol:
    """The number of elements of ``axis``."""
    return sp.Symbol(f"size@{axis}", integer=True, positive=True)


class Law(sp.IndexedBase):
    """A positive family that sums to one over its last index."""


class Bound(sp.Expr):
    """An expression ``args[0]`` under a bound index ``args[1]``, as a sum or a divergence over an axis."""

    is_commutative = True
    is_real = True

    @property
    def body(self) -> sp.Basic:
        return self.args[0]

    @property
    def index(self) -> sp.Symbol:
        return self.args[1]

    @property
    def free_symbols(self) -> set[sp.Basic]:
        return {s for s in self.body.free_symbols if self.index not in s.free_symbols}

    def _eval_derivative(self, x: sp.Basic) -> sp.Expr:
        # sympy's default would be a silent 0
        raise NotImplementedError(f"{type(self).__name__} has no derivative rule")

    def _xreplace(self, rule: dict[sp.Basic, sp.Basic]) -> tuple[sp.Expr, bool]:
        if self in rule:
            return rule[self], True
        rule = {old: new for old, new in rule.items() if old != self.index}
        body, i = self.body, self.index
        if any(i in new.free_symbols for new in rule.values()):  # the substitution would capture i
            i = fresh(axis_of(i))
            body = body.xreplace({self.index: i})
        body, changed = body._xreplace(rule)
        return (self.func(body, i), True) if changed else (self, False)

    def _eval_subs(self, old: sp.Basic, new: sp.Basic) -> sp.Expr:
        return self._xreplace({old: new})[0]


class Total(Bound):
    """The sum of the body over the index."""

    def _eval_derivative(self, x: sp.Basic) -> sp.Expr:
        return Total(self.body.diff(x), self.index)

    def _eval_is_nonnegative(self) -> bool | None:
        return True if self.body.is_nonnegative else None

    def _eval_is_positive(self) -> bool | None:
        return True if self.body.is_positive else None  # no axis is empty


class Divergence(Bound):
    """KL of the two laws ``body = Tuple(p_i, q_i)``: never negative (Gibbs), once both are known to sum to one."""

    def spelled_out(self) -> sp.Expr:
        p, q = self.body.args
        return Total(p * (sp.log(p) - sp.log(q)), self.index)

    def _eval_derivative(self, x: sp.Basic) -> sp.Expr:
        return self.spelled_out().diff(x)

    def _eval_is_nonnegative(self) -> bool | None:
        from sandbox.algebra.normal import normal

        both_laws = all(normal(Total(p, self.index) - 1) == 0 for p in self.body.args)
        return True if both_laws else None


class Family:
    """A symbolic array of any size: ``at(*indices)`` is an expression, ``axes`` names one axis an index."""

    __iter__ = None  # `for x in family` would never end
    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, at: Callable[..., sp.Expr], axes: tuple[str, ...]) -> None:
        self.at, self.axes = at, axes

    def __repr__(self) -> str:
        return f"Family({self.at(*(index('ijk'[n], a) for n, a in enumerate(self.axes)))}, axes={self.axes})"

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > len(self.axes):
            raise IndexError(f"{len(keys)} indices for axes {self.axes}")
        for k, axis in zip(keys, self.axes, strict=False):
            if isinstance(k, sp.Symbol):
                if axis_of(k) != axis:
                    raise ValueError(f"index {k} does not run on axis {axis!r}")
            elif not isinstance(k, int | sp.Integer) or k < 0:  # from the end, or a slice: only where the size is known
                raise NotImplementedError(f"index {k!r} has no size-free reading")
        if len(keys) == len(self.axes):
            return self.at(*keys)
        return Family(lambda *rest: self.at(*keys, *rest), self.axes[len(keys) :])

    @property
    def shape(self) -> tuple[int, ...]:
        """Not to be had: raises NotImplementedError, whereupon a claim is read at concrete sizes."""
        raise NotImplementedError("a family has axes, not a shape")

    def map(self, f: Callable[[sp.Expr], sp.Expr]) -> Family:
        """``f`` of every element."""
        return Family(lambda *k: f(self.at(*k)), self.axes)

    def _combine(self, other: Any, f: Callable[[Any, Any], Any]) -> Family:
        if not isinstance(other, Family):
            constant = exact(other)
            return self.map(lambda x: f(x, constant))
        long, short = (self, other) if len(self.axes) >= len(other.axes) else (other, self)
        n = len(long.axes) - len(short.axes)
        if long.axes[n:] != short.axes:
            raise ValueError(f"axes {self.axes} and {other.axes} do not match")
        cut, other_cut = (0, n) if long is self else (n, 0)
        return Family(lambda *k: f(self.at(*k[cut:]), other.at(*k[other_cut:])), long.axes)

    def __add__(self, other: Any) -> Family:
        return self._combine(other, operator.add)

    def __radd__(self, other: Any) -> Family:
        return self._combine(other, lambda a, b: operator.add(b, a))

    def __sub__(self, other: Any) -> Family:
        return self._combine(other, operator.sub)

    def __rsub__(self, other: Any) -> Family:
        return self._combine(other, lambda a, b: operator.sub(b, a))

    def __mul__(self, other: Any) -> Family:
        return self._combine(other, operator.mul)

    def __rmul__(self, other: Any) -> Family:
        return self._combine(other, lambda a, b: operator.mul(b, a))

    def __truediv__(self, other: Any) -> Family:
        return self._combine(other, operator.truediv)

    def __rtruediv__(self, other: Any) -> Family:
        return self._combine(other, lambda a, b: operator.truediv(b, a))

    def __pow__(self, other: Any) -> Family:
        return self._combine(other, operator.pow)

    def __rpow__(self, other: Any) -> Family:
        return self._combine(other, lambda a, b: operator.pow(b, a))

    def __matmul__(self, other: Family) -> Any:
        if len(other.axes) == 1:
            return total(self * other)
        if len(other.axes) > 2 or self.axes[-1] != other.axes[0]:
            raise ValueError(f"axes {self.axes} and {other.axes} do not match in a product")
        i = fresh(self.axes[-1])
        axes = self.axes[:-1] + other.axes[1:]
        return Family(lambda *k: Total(self.at(*k[:-1], i) * other.at(i, k[-1]), i), axes)

    def __neg__(self) -> Family:
        return self.map(operator.neg)


# -- the words -----------------------------------------------------------------------------------------------------


def _elementwise(formula: Callable[[sp.Expr], sp.Expr]) -> Callable[[Any], Any]:
    return lambda x: x.map(formula) if isinstance(x, Family) else formula(exact(x))


for _name, _formula in SCALAR_WORDS.items():
    globals()[_name] = _elementwise(_formula)


def _over_last_axis(x: Family, head: Callable[[tuple[sp.Expr, ...], sp.Symbol], sp.Expr], *more: Family) -> Any:
    axis = x.axes[-1]
    if any(y.axes != x.axes for y in more):
        raise ValueError(f"axes {x.axes} and {[y.axes for y in more]} do not match")

    def at(*k: sp.Expr) -> sp.Expr:
        i = fresh(axis)
        return head(tuple(y.at(*k, i) for y in (x, *more)), i)

    return at() if len(x.axes) == 1 else Family(at, x.axes[:-1])


def total(x: Family) -> Any:
    return _over_last_axis(x, lambda terms, i: Total(terms[0], i))


def dot(a: Family, b: Family) -> Any:
    return total(a * b)


def mean(x: Family) -> Any:
    return total(x) / size(x.axes[-1])


def logsumexp(z: Family) -> Any:
    return _over_last_axis(z, lambda terms, i: sp.log(Total(sp.exp(terms[0]), i)))


def log_softmax(z: Family) -> Family:
    normaliser = logsumexp(z)
    if len(z.axes) == 1:
        return z - normaliser
    return Family(lambda *k: z.at(*k) - normaliser[k[:-1]], z.axes)


def softmax(z: Family) -> Family:
    return log_softmax(z).map(sp.exp)


def kl(p: Family, q: Family) -> Any:
    return _over_last_axis(p, lambda laws, i: Divergence(sp.Tuple(*laws), i), q)


def onehot(w: sp.Symbol, like: Family) -> Family:
    axis = like.axes[-1]
    if isinstance(w, sp.Symbol) and axis_of(w) != axis:
        raise ValueError(f"index {w} does not run on axis {axis!r}")
    return Family(lambda k: KroneckerDelta(k, w), (axis,))


def stack(*xs: Any) -> Family:
    raise NotImplementedError("stack has a known size, hence no size-free reading")


def outer(a: Family, b: Family) -> Family:
    return Family(lambda i, j: a.at(i) * b.at(j), a.axes + b.axes)


def _derivative(y: Any, x: sp.Basic, back: Callable[[sp.Expr], sp.Expr]) -> Any:
    return y.map(lambda e: back(sp.sympify(e).diff(x))) if isinstance(y, Family) else back(sp.sympify(y).diff(x))


def _opened(z: Family) -> tuple[Family, sp.IndexedBase, Callable[[sp.Expr], sp.Expr]]:
    """Free variables of the axes of ``z``, and the way back to ``z``."""
    base = sp.IndexedBase(sp.Dummy("z", real=True))
    free = Family(lambda *k: base[k], z.axes)

    def back(expr: sp.Expr) -> sp.Expr:
        return expr.replace(lambda x: isinstance(x, sp.Indexed) and x.base == base, lambda x: z.at(*x.indices))

    return free, base, back


def grad(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def gradient(z: Any) -> Any:
        if not isinstance(z, Family):
            return velocity(f)(z)
        free, base, back = _opened(z)
        j = [fresh(a) for a in z.axes]
        slope = sp.sympify(f(free)).diff(base[tuple(j)])
        return Family(lambda *k: back(slope.xreplace(dict(zip(j, k, strict=True)))), z.axes)

    return gradient


def velocity(path: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def at(t: Any) -> Any:
        time = sp.Dummy("t", real=True)
        return _derivative(path(time), time, lambda expr: expr.xreplace({time: exact(t)}))

    return at


def along(quantity: Callable[[Any], Any], field: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def at(z: Any) -> Any:
        slope, direction = grad(quantity)(z), field(z)
        if not isinstance(z, Family):
            return slope * direction
        product = slope * direction
        for _ in z.axes:
            product = total(product)
        return product

    return at
