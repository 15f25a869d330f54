"""When is a symbolic expression zero, and when is it never negative?

``is_zero`` brings an expression to a normal form in which sums are linear, bound indices have standard names and
logarithms are independent atoms; what remains is a rational function, and its numerator is expanded. Every rewriting is
an identity on the declared domains (no forced expansion of logarithms, no ``simplify``), so True is a proof; False only
says that the rules do not reach.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import lru_cache

import sympy as sp
from sympy import KroneckerDelta

from sandbox.algebra.concrete import DivergenceOf
from sandbox.algebra.sizefree import Bound, Divergence, Law, Total, axis_of, fresh, is_point, size
from sandbox.algebra.symbols import ExpExcess, FlowMargin, PositivePart, Step, TanhExcess, exact, spelled_out

# -- sums ----------------------------------------------------------------------------------------------------------


def _deltas(expr: sp.Expr, i: sp.Symbol) -> list[KroneckerDelta]:
    return sorted((d for d in expr.atoms(KroneckerDelta) if i in d.args), key=sp.default_sort_key)


def _other(delta: KroneckerDelta, i: sp.Symbol) -> sp.Expr:
    return delta.args[1] if delta.args[0] == i else delta.args[0]


def _sum_term(term: sp.Expr, i: sp.Symbol) -> sp.Expr:
    """The sum over i of one product."""
    constant, rest = term.as_independent(i, as_Add=False)
    if rest == 1:
        return constant * size(axis_of(i))
    for factor in sp.Mul.make_args(rest):
        if isinstance(factor, KroneckerDelta) and i in factor.args:  # sum_i delta_iw f(i) = f(w)
            return constant * (rest / factor).xreplace({i: _other(factor, i)})
    deltas = _deltas(rest, i)
    if deltas:  # inside a nonlinear function: f = f|0 + delta (f|1 - f|0), since delta is 0 or 1
        off, on = (rest.xreplace({deltas[0]: sp.Integer(v)}) for v in (0, 1))
        at_point = {i: _other(deltas[0], i)}
        return constant * (_sum(off, i) + on.xreplace(at_point) - off.xreplace(at_point))
    return constant * Total(rest, i)


def _sum(body: sp.Expr, i: sp.Symbol) -> sp.Expr:
    """The sum over i of an expression, linear, with constants outside and deltas collapsed."""
    return sp.Add(*(_sum_term(t, i) for t in sp.Add.make_args(_expanded(body))))


def _expanded(expr: sp.Expr) -> sp.Expr:
    """Multiplied out, exponentials of sums split into products, but denominators as products of factors."""
    return sp.expand(expr).replace(
        lambda x: isinstance(x, sp.Pow) and isinstance(x.base, sp.Add) and x.exp.is_Integer and x.exp < 0,
        lambda x: _factor(x.base) ** x.exp,
    )


_factor = lru_cache(maxsize=4096)(sp.factor)  # the same few denominators come up all the time


def _height(expr: sp.Basic) -> int:
    return max((1 + _height(b.body) for b in expr.atoms(Bound)), default=0)


def _renamed(total: Total) -> Total:
    """Bound indices named by nesting height and axis, so that equal sums look equal."""
    axis = axis_of(total.index)
    for height in itertools.count(_height(total.body)):
        i = sp.Symbol(f"{height}@{axis}", integer=True, nonnegative=True)
        if i == total.index or i not in total.body.free_symbols:  # an outer index of that name must not be captured
            return Total(total.body.xreplace({total.index: i}), i)
    raise AssertionError("unreachable")


def _reordered(total: Total) -> Total:
    """Of the two orders of a double sum, the one that sorts first."""
    inner = total.body
    if not isinstance(inner, Total):
        return total
    i, j = fresh(axis_of(inner.index)), fresh(axis_of(total.index))  # fresh, or the two names would clash
    body = inner.body.xreplace({inner.index: i, total.index: j})
    swapped = _renamed(Total(_renamed(Total(body, j)), i))
    return min(total, swapped, key=sp.default_sort_key)


def _merged(total: Total) -> Total:
    """A product with a sum under one outer index becomes a sum of products: x_i sum_j -> sum_j x_i."""
    factors = sp.Mul.make_args(total.body)
    inner = [f for f in factors if isinstance(f, Total)]
    if len(inner) != 1 or len(factors) == 1:
        return total
    rest = sp.Mul(*(f for f in factors if f is not inner[0]))
    return Total(Total(rest * inner[0].body, inner[0].index), total.index)


# -- logarithms ----------------------------------------------------------------------------------------------------


def open_logs(expr: sp.Expr) -> sp.Expr:
    """log(ab) = log a + log b and log a^n = n log a where every part is known to be positive; nothing is forced."""

    def opened(x: sp.Expr) -> sp.Expr:
        if isinstance(x, sp.exp) and x.args[0].is_real:
            return x.args[0]
        if isinstance(x, sp.Mul):
            known = [f for f in x.args if f.is_positive]
            rest = x.func(*(f for f in x.args if not f.is_positive))
            return sp.Add(*map(opened, known)) + (opened(rest) if known and rest != 1 else sp.log(rest))
        if isinstance(x, sp.Pow) and x.base.is_positive and x.exp.is_real:
            return x.exp * opened(x.base)
        if isinstance(x, sp.Pow) and x.exp.is_odd and x.base.is_real:
            return x.exp * sp.log(x.base)  # where log x^n is real for an odd n, x is positive
        if isinstance(x, sp.Rational) and x.is_positive and not x.is_Integer:
            return sp.log(x.p) - sp.log(x.q)
        if isinstance(x, sp.Integer) and x > 1:
            return sp.Add(*(n * sp.log(b, evaluate=False) for b, n in sp.factorint(x).items()))
        return sp.log(x)

    return expr.replace(sp.log, opened)


# -- the normal form -----------------------------------------------------------------------------------------------


def _open_divergences(expr: sp.Expr) -> sp.Expr:
    return expr.replace(lambda x: isinstance(x, Divergence | DivergenceOf), lambda x: x.spelled_out())


def _distinct(expr: sp.Expr) -> sp.Expr:
    """Points of different names are different elements."""
    return expr.replace(lambda x: isinstance(x, KroneckerDelta) and all(map(is_point, x.args)), lambda x: sp.S.Zero)


def _sums_to_one(x: sp.Basic) -> bool:
    return (
        isinstance(x, Total)
        and isinstance(x.body, sp.Indexed)
        and isinstance(x.body.base, Law)
        and x.body.indices[-1] == x.index
        and x.index not in x.body.indices[:-1]
    )


def normal(expr: sp.Expr) -> sp.Expr:
    """The normal form: equal expressions tend to look equal, and an expression equal to 0 tends to become 0."""
    expr = spelled_out(_open_divergences(exact(expr)))
    for _ in range(6):
        before = expr
        expr = open_logs(_distinct(expr))
        expr = expr.replace(lambda x: isinstance(x, Total), lambda x: _sum(x.body, x.index))
        expr = expr.replace(lambda x: isinstance(x, Total), _merged)
        expr = expr.replace(lambda x: isinstance(x, Total), lambda x: _reordered(_renamed(x)))
        expr = expr.replace(_sums_to_one, lambda x: sp.S.One)
        expr = _expanded(expr)
        if expr == before:
            break
    return expr


# -- zero ----------------------------------------------------------------------------------------------------------


def _exponentials_as_symbols(expr: sp.Expr, table: dict[sp.Expr, sp.Expr]) -> sp.Expr:
    """Each e^monomial as a positive symbol, so that sums of exponents are products; kept in ``table``."""

    def power(argument: sp.Expr) -> sp.Expr:
        product = sp.S.One
        for term in sp.Add.make_args(sp.expand(argument)):
            coefficient, monomial = term.as_coeff_Mul()
            if isinstance(monomial, FlowMargin) and coefficient.is_Integer:
                product *= (monomial.args[0] - monomial) ** coefficient  # e^y = s - y
                continue
            if monomial not in table:
                table[monomial] = sp.Dummy("e", positive=True)
            product *= table[monomial] ** coefficient
        return product

    expr = expr.replace(
        lambda x: isinstance(x, sp.Pow) and not x.exp.is_number and x.base.is_positive,
        lambda x: sp.exp(sp.expand(x.exp * open_logs(sp.log(x.base)))),
    )
    return expr.replace(sp.exp, power)


def _factored_logs(expr: sp.Expr) -> sp.Expr:
    """log of a fraction of sums as a difference of logs of factors."""
    return open_logs(expr.replace(sp.log, lambda x: sp.log(sp.factor(sp.together(x)))))


def _sums_as_symbols(expr: sp.Expr) -> sp.Expr:
    """Each outermost sum as a plain symbol of the same sign."""
    rule: dict[sp.Expr, sp.Expr] = {}

    def visit(x: sp.Basic) -> None:
        if isinstance(x, Bound):
            rule[x] = _symbol_like(x)
        else:
            for part in x.args:
                visit(part)

    visit(expr)
    return expr.xreplace(rule)


def _symbol_like(x: sp.Expr) -> sp.Dummy:
    return sp.Dummy(type(x).__name__, real=True, positive=x.is_positive, nonnegative=x.is_nonnegative)


def _rational(expr: sp.Expr, factor_logs: bool = False) -> tuple[sp.Expr, dict[sp.Expr, sp.Expr]]:
    """``expr`` as a rational function of independent symbols and logarithms; and the monomials of its exponentials."""
    monomials: dict[sp.Expr, sp.Expr] = {}
    expr = _exponentials_as_symbols(_sums_as_symbols(expr), monomials)
    if factor_logs:
        expr = _factored_logs(expr)
        back = {e: m for m, e in monomials.items()}
        expr = expr.replace(sp.log, lambda x: back.get(x, sp.log(x)))
    expr = expr.replace(PositivePart, lambda x: x * Step(x))
    closed = expr.atoms(sp.Indexed, FlowMargin, DivergenceOf, Step, ExpExcess, TanhExcess)
    return expr.xreplace({x: _symbol_like(x) for x in closed}), monomials


def _vanishes(expr: sp.Expr) -> bool:
    """Is a rational function of independent symbols and logarithms zero?"""
    logs = {x: sp.Dummy("log", real=True) for x in expr.atoms(sp.log)}
    expr = expr.xreplace(logs)
    parts = [expr]
    slopes = [expr.diff(name) for name in logs.values()]
    if not any(slope.has(*logs.values()) for slope in slopes if logs):  # linear in the logarithms: one test each
        parts = [*slopes, expr.xreplace(dict.fromkeys(logs.values(), sp.S.Zero))]
    return all(p == 0 or sp.expand(sp.fraction(sp.together(p))[0]) == 0 for p in parts)


def is_zero(expr: sp.Expr) -> bool:
    """True only if ``expr`` is zero for every admissible value of its symbols, and at every size of its sums."""
    expr = normal(expr)
    if expr == 0:
        return True
    # first with each logarithm of a sum kept whole, then opened
    if any(_vanishes(open_logs(_rational(expr, factor_logs)[0])) for factor_logs in (False, True)):
        return True
    return any(_vanishes_termwise(expr, axis) for axis in sorted({axis_of(t.index) for t in expr.atoms(Total)}))


def _vanishes_termwise(expr: sp.Expr, axis: str) -> bool:
    """Is ``expr`` one sum over the axis, of a body that is zero?"""
    i = fresh(axis)
    body = sp.S.Zero
    for term in sp.Add.make_args(expr):
        outer = [_outermost(f, axis) if isinstance(f, Total) else None for f in sp.Mul.make_args(term)]
        found = [t for t in outer if t is not None]
        if not found:
            return False
        coefficient = sp.Mul(*(f for f, t in zip(sp.Mul.make_args(term), outer, strict=True) if t is not found[0]))
        body += coefficient * found[0].body.xreplace({found[0].index: i})
    return is_zero(body)


def _outermost(total: Total, axis: str) -> Total | None:
    """The same multiple sum with a sum over ``axis`` outside; None if it has none."""
    if axis_of(total.index) == axis:
        return total
    inner = _outermost(total.body, axis) if isinstance(total.body, Total) else None
    return None if inner is None else Total(Total(inner.body, total.index), inner.index)


# -- sign --------------------------------------------------------------------------------------------------------------


def never_negative(expr: sp.Expr) -> bool:
    """True only if ``expr`` >= 0 for every admissible value of its symbols, and at every size of its sums."""
    return _signed(exact(expr), strict=False)


def always_positive(expr: sp.Expr) -> bool:
    """True only if ``expr`` > 0 for every admissible value of its symbols, and at every size of its sums."""
    return _signed(exact(expr), strict=True)


def _signed(expr: sp.Expr, strict: bool) -> bool:
    if _plainly_signed(expr, strict) or _has_one_sign(expr, strict):
        return True
    if isinstance(expr, sp.Add) and all(_signed(x, False) for x in expr.args):
        return not strict or any(_signed(x, True) for x in expr.args)
    if isinstance(expr, sp.Mul) and all(_signed(x, strict) for x in expr.args):
        return True
    if isinstance(expr, Total) and _signed(expr.body, strict):
        return True
    free = [d for d in expr.atoms(KroneckerDelta) if d.free_symbols <= expr.free_symbols]
    deltas = sorted(free, key=sp.default_sort_key)
    if deltas:  # 0 or 1, either will do
        return all(_signed(expr.xreplace({deltas[0]: sp.Integer(v)}), strict) for v in (0, 1))
    opened = normal(expr)
    return opened != expr and (_plainly_signed(opened, strict) or _has_one_sign(opened, strict))


def _plainly_signed(expr: sp.Expr, strict: bool) -> bool:
    """By the signs of symbols alone: sums and products of what has a sign, squares, closed functions."""
    if expr.is_positive or (expr.is_nonnegative and not strict):
        return True
    if isinstance(expr, sp.Add):
        signed = all(_plainly_signed(x, False) for x in expr.args)
        return signed and (not strict or any(_plainly_signed(x, True) for x in expr.args))
    if isinstance(expr, sp.Mul):
        return all(_plainly_signed(x, strict) for x in expr.args)
    if isinstance(expr, Total):
        return _plainly_signed(expr.body, strict)
    if isinstance(expr, sp.Pow):
        square = bool(expr.exp.is_even) and (not strict or bool(expr.base.is_nonzero))
        return square or (bool(expr.exp.is_real) and _plainly_signed(expr.base, strict))
    if isinstance(expr, sp.log):
        return _plainly_signed(sp.expand(expr.args[0] - 1), strict)
    return False


def _has_one_sign(expr: sp.Expr, strict: bool) -> bool:
    """Is the sign plain once sums are opened at their points and exponentials are symbols?"""
    ratio = _as_ratio(expr)
    for candidate in (expr,) if ratio is None else (expr, ratio):
        for form in _over_generators(candidate):
            plain, monomials = _rational(form)
            # e^t = 1 + something positive for t > 0
            grown = {e: 1 + sp.Dummy("e", positive=True) for m, e in monomials.items() if m.is_positive}
            if _one_sign(plain.xreplace(grown), strict):
                return True
    return False


def _one_sign(expr: sp.Expr, strict: bool) -> bool:
    """Do numerator and denominator have coefficients of one sign each, and the same one? (Strict: and not all zero.)"""
    numerator, denominator = (sp.Add.make_args(sp.expand(x)) for x in sp.fraction(sp.together(expr)))
    terms = (*numerator, *denominator)
    up = all(t.is_nonnegative for t in terms) and (not strict or any(t.is_positive for t in numerator))
    down = all(t.is_nonpositive for t in terms) and (not strict or any(t.is_negative for t in numerator))
    return up or down


def _over_generators(expr: sp.Expr) -> Iterable[sp.Expr]:
    """``expr`` with each law opened at its points: p_w = a / (a + b + … + rest), in each form worth a try.

    The powers of the rest are written either as a free quantity >= 0 or as rest^n - (a quantity >= 0), both true.
    """
    elements = {x for x in expr.atoms(sp.Indexed) if isinstance(x.base, Law) and len(x.indices) == 1}
    outside = {x for x in elements if is_point(x.indices[0])}
    sums = {t for t in expr.atoms(Total) if _power_of_law(t) is not None}
    laws = {x.base for x in outside} | {_power_of_law(t)[0] for t in sums}  # type: ignore[index]
    weights = {x: sp.Dummy(str(x), positive=True) for x in outside}
    rest = {p: sp.Dummy("rest", nonnegative=True) for p in laws}
    whole = {p: sp.Add(rest[p], *(a for x, a in weights.items() if x.base == p)) for p in laws}
    rule = {x: a / whole[x.base] for x, a in weights.items()}
    for forms in itertools.product((False, True), repeat=len(sums)):
        for t, subtract in zip(sorted(sums, key=sp.default_sort_key), forms, strict=True):
            p, n = _power_of_law(t)  # type: ignore[misc]
            free = sp.Dummy("free", nonnegative=True)
            remainder = rest[p] ** n - free if subtract else free
            rule[t] = sp.Add(remainder, *(a**n for x, a in weights.items() if x.base == p)) / whole[p] ** n
        yield expr.xreplace(rule)
    points = {i for x in expr.free_symbols | expr.atoms(sp.Indexed) for i in x.atoms(sp.Symbol) if is_point(i)}
    opened = {}
    for t in expr.atoms(Total) - sums:
        if t.body.is_positive and not any(isinstance(i, sp.Symbol) and i.name[0].isdigit() for i in t.free_symbols):
            here = [i for i in points if axis_of(i) == axis_of(t.index)]
            opened[t] = sp.Add(sp.Dummy("rest", nonnegative=True), *(t.body.xreplace({t.index: i}) for i in here))
    if opened and points:
        yield expr.xreplace(opened)


def _power_of_law(t: Total) -> tuple[sp.IndexedBase, int] | None:
    base, n = t.body.as_base_exp()
    known = isinstance(base, sp.Indexed) and isinstance(base.base, Law) and base.indices == (t.index,)
    return (base.base, int(n)) if known and n.is_Integer and n >= 2 else None


def _as_ratio(expr: sp.Expr) -> sp.Expr | None:
    """x with expr = log(1 + x), when expr is a sum of logarithms and of terms without one."""
    inside, rest = sp.S.One, sp.S.Zero
    for term in sp.Add.make_args(open_logs(expr)):
        coefficient, factor = term.as_coeff_Mul()
        if isinstance(factor, sp.log) and coefficient.is_Integer:
            inside *= factor.args[0] ** coefficient
        elif term.has(sp.log):
            return None
        else:
            rest += term
    return None if inside == 1 else inside * sp.exp(rest) - 1
