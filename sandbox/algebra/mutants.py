"""Small errors planted in an expression: the mistakes that people make in formulas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import sympy as sp

from sandbox.algebra.concrete import DivergenceOf
from sandbox.algebra.sizefree import Divergence, axis_of, is_point

Error = Callable[[], tuple[str, sp.Basic]]  # built when it is called: most of the cost of a long list


def mutants(expr: sp.Expr, at_most: int | None = None) -> Iterator[tuple[str, sp.Expr]]:
    """Pairs (what was done, the expression with that one error).

    A term negated, a factor dropped, the whole doubled, two points of an axis exchanged, a divergence reversed.
    at_most: so many of them, spread evenly over all.
    """
    errors = [*_everywhere(expr), *_exchanged(expr), lambda: ("doubled", 2 * expr)]
    seen = {expr}
    for error in errors[:: -(-len(errors) // at_most) if at_most else 1]:
        what, mutant = error()
        if mutant not in seen:
            seen.add(mutant)
            yield what, mutant


def _everywhere(expr: sp.Basic) -> Iterator[Error]:
    """The errors at the root, then those inside each argument."""
    yield from _here(expr)
    for n, part in enumerate(expr.args):
        if isinstance(part, sp.Expr | sp.Tuple) and not part.is_number and not isinstance(expr, sp.Indexed):
            for error in _everywhere(part):
                yield partial(_inside, expr, n, error)


def _inside(expr: sp.Basic, n: int, error: Error) -> tuple[str, sp.Basic]:
    what, mutant = error()
    return what, expr.func(*expr.args[:n], mutant, *expr.args[n + 1 :])


def _here(expr: sp.Basic) -> Iterator[Error]:
    args: Sequence[sp.Basic] = expr.args
    if isinstance(expr, sp.Add):
        for n in range(len(args)):
            yield partial(_negated, args, n)
    elif isinstance(expr, sp.Mul):
        for n, factor in enumerate(args):
            if factor not in (1, -1):
                yield partial(_dropped, args, n)
    elif isinstance(expr, Divergence):
        p, q = expr.body.args
        yield lambda: ("divergence reversed", Divergence(sp.Tuple(q, p), expr.index))
    elif isinstance(expr, DivergenceOf):
        p, q = expr.laws()
        yield lambda: ("divergence reversed", DivergenceOf(*q, *p))


def _exchanged(expr: sp.Basic) -> Iterator[Error]:
    points = sorted((s for s in expr.free_symbols if is_point(s)), key=str)
    for a, b in itertools.combinations(points, 2):
        if axis_of(a) == axis_of(b):
            yield partial(_swapped, expr, a, b)


def _negated(args: Sequence[sp.Basic], n: int) -> tuple[str, sp.Basic]:
    return f"sign of {_short(args[n])}", sp.Add(*args[:n], -args[n], *args[n + 1 :])


def _dropped(args: Sequence[sp.Basic], n: int) -> tuple[str, sp.Basic]:
    return f"without factor {_short(args[n])}", sp.Mul(*args[:n], *args[n + 1 :])


def _swapped(expr: sp.Basic, a: sp.Symbol, b: sp.Symbol) -> tuple[str, sp.Basic]:
    return f"{a} and {b} exchanged", expr.xreplace({a: b, b: a})


def _short(expr: sp.Basic, length: int = 40) -> str:
    text = str(expr)
    return text if len(text) <= length else text[: length - 1] + "…"
