"""How well would a wrong statement be caught? Errors are planted in both sides of each equality it asserts."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import sympy as sp

from sandbox.algebra.mutants import mutants
from sandbox.algebra.normal import is_zero
from sandbox.algebra.numeric import evaluator
from theory._points import (
    DIGITS,
    components,
    differ,
    points_of,
    random_generators,
    sizefree_relations,
    strangers,
    symbol_values,
)
from theory.statement import Theorem, sizes_for

PER_SIDE = 12
POINTS = 48  # hinges need points on either side of each kink


@dataclass(frozen=True)
class Planted:
    """killed: errors refuted at random points. equivalent: those that the prover recognised as true statements.

    survivors: errors that nothing caught, in words.
    """

    killed: int
    equivalent: int
    survivors: tuple[str, ...]

    @property
    def planted(self) -> int:
        """The errors that change the claim."""
        return self.killed + len(self.survivors)


def plant(theorem: Theorem) -> Planted | None:
    """Plant errors and count those caught; None for a theorem with no size-free reading or no equality.

    At most ``PER_SIDE`` errors a side, spread evenly over those there are. Judged at random interior points; a survivor
    that the prover proves is a true statement, not a missed error.
    """
    try:
        args, relation = sizefree_relations(theorem)[0]
    except (NotImplementedError, TypeError):
        return None
    pairs = [c for d in relation.duties if d.kind == "zero" for c in components(d.values, points_of(args))[-1:]]
    if not pairs:
        return None
    sizes = sizes_for(theorem, 4)

    @cache
    def drawn(n: int) -> dict[sp.Basic, Any]:
        return symbol_values(theorem, random_generators(theorem, sizes, random.Random(n), 9))

    found = [_fate(a, b, drawn, sizes) for a, b in pairs]
    return Planted(
        sum(killed for killed, _, _ in found),
        sum(equivalent for _, equivalent, _ in found),
        tuple(what for _, _, survivors in found for what in survivors),
    )


def _fate(
    a: sp.Expr, b: sp.Expr, drawn: Callable[[int], dict[sp.Basic, Any]], sizes: dict[str, int]
) -> tuple[int, int, list[str]]:
    """How many errors in a = b are caught, how many are none, and those that nothing catches."""

    @cache
    def at(n: int) -> Callable[[sp.Expr], Any]:
        values = drawn(n)
        return evaluator({**values, **strangers(sp.Tuple(a, b), values, sizes, random.Random(n))}, sizes, DIGITS)

    killed, equivalent, survivors = 0, 0, []
    for side, other in ((a, b), (b, a)):
        for what, mutant in mutants(side, PER_SIDE) if not side.is_number else ():  # nothing to mutate in "= 0"
            defined = False
            for n in range(POINTS):  # until one catches it
                with suppress(ZeroDivisionError):
                    if differ(at(n)(mutant), at(n)(other)):
                        killed += 1
                        break
                    defined = True
            else:
                if not defined:  # anywhere: no statement, neither caught nor missed
                    continue
                if is_zero(mutant - other):
                    equivalent += 1
                else:
                    survivors.append(what)
    return killed, equivalent, survivors
