"""How well would a wrong statement be caught? Errors are planted in both sides of each equality it asserts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import islice

import sympy as sp

from sandbox.algebra import reading
from sandbox.algebra.mutants import mutants
from sandbox.algebra.normal import is_zero
from sandbox.algebra.numeric import evaluate
from theory._points import (
    DIGITS,
    components,
    differ,
    points_of,
    random_generators,
    sizefree_arguments,
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
        with reading("sizefree"):
            args = next(sizefree_arguments(theorem))
            relation = theorem(**args)
    except (NotImplementedError, TypeError):
        return None
    rng = random.Random(0)
    sizes = sizes_for(theorem, 4)
    drawn = [random_generators(theorem, sizes, rng, 9) for _ in range(POINTS)]
    killed, equivalent, survivors = 0, 0, []
    pairs = [c for d in relation.duties if d.kind == "zero" for c in components(d.values, points_of(args))[-1:]]
    if not pairs:
        return None
    for a, b in pairs:
        for side, other in ((a, b), (b, a)):
            for what, mutant in _spread(side):
                caught: list[bool | None] = [None]
                for generators in drawn:  # until one catches it
                    caught.append(_caught(theorem, mutant, other, generators, sizes, rng))
                    if caught[-1]:
                        break
                if caught[-1]:
                    killed += 1
                elif not any(c is False for c in caught):  # defined nowhere: no statement, neither caught nor missed
                    continue
                elif is_zero(mutant - other):
                    equivalent += 1
                else:
                    survivors.append(what)
    return Planted(killed, equivalent, tuple(survivors))


def _spread(side: sp.Expr) -> list[tuple[str, sp.Expr]]:
    if side.is_number:  # nothing to mutate in "= 0"
        return []
    found = list(islice(mutants(side), 400))
    stride = max(1, -(-len(found) // PER_SIDE))
    return found[::stride]


def _caught(theorem: Theorem, a: sp.Expr, b: sp.Expr, generators: dict, sizes: dict, rng: random.Random) -> bool | None:
    values = symbol_values(theorem, generators)
    point = {**values, **strangers(sp.Tuple(a, b), values, sizes, rng)}
    try:
        return differ(evaluate(a, point, sizes, DIGITS), evaluate(b, point, sizes, DIGITS))
    except ZeroDivisionError:
        return None
