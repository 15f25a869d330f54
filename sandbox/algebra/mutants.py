"""Small errors planted in an expression: the mistakes that people make in formulas."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import sympy as sp

from sandbox.algebra.concrete import DivergenceOf
from sandbox.algebra.sizefree import Divergence, axis_of, is_point


def mutants(expr: sp.Expr) -> Iterator[tuple[str, sp.Expr]]:
    """Pairs (what was done, the expression with that one error).

    A term negated, a factor dropped, the whole doubled, two points of an axis exchanged, a divergence reversed.
    """
    seen = {expr}
    for what, mutant in itertools.chain(_everywhere(expr), _exchanged(expr), [("doubled", 2 * expr)]):
        if mutant not in seen:
            seen.add(mutant)
            yield what, mutant


def _everywhere(expr: sp.Basic) -> Iterator[tuple[str, sp.Basic]]:
    """The errors at the root, then those inside each argument."""
    yield from _here(expr)
    for n, part in enumerate(expr.args):
        if isinstance(part, sp.Expr | sp.Tuple) and not part.is_number and not isinstance(expr, sp.Indexed):
            for what, mutant in _everywhere(part):
                yield what, expr.func(*expr.args[:n], mutant, *expr.args[n + 1 :])


def _here(expr: sp.Basic) -> Iterator[tuple[str, sp.Basic]]:
    args: Sequence[sp.Basic] = expr.args
    if isinstance(expr, sp.Add):
        for n, term in enumerate(args):
            yield f"sign of {_short(term)}", sp.Add(*args[:n], -term, *args[n + 1 :])
    elif isinstance(expr, sp.Mul):
        for n, factor in enumerate(args):
            if factor not in (1, -1):
                yield f"without factor {_short(factor)}", sp.Mul(*args[:n], *args[n + 1 :])
    elif isinstance(expr, Divergence):
        p, q = expr.body.args
        yield "divergence reversed", Divergence(sp.Tuple(q, p), expr.index)
    elif isinstance(expr, DivergenceOf):
        p, q = expr.laws()
        yield "divergence reversed", DivergenceOf(*q, *p)


def _exchanged(expr: sp.Basic) -> Iterator[tuple[str, sp.Basic]]:
    points = sorted((s for s in expr.free_symbols if is_point(s)), key=str)
    for a, b in itertools.combinations(points, 2):
        if axis_of(a) == axis_of(b):
            yield f"{a} and {b} exchanged", expr.xreplace({a: b, b: a})


def _short(expr: sp.Basic, length: int = 40) -> str:
    text = str(expr)
    return text if len(text) <= length else text[: length - 1] + "…"
