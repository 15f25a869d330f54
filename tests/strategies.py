"""Hypothesis strategies from the domains of a theorem: simple rationals, the simplest first.

A generator is one draw from a table of rationals ordered by simplicity, so a failing example shrinks to the smallest
integers at which a claim fails, and no float is subnormal, infinite or NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from theory.statement import Theorem, axes_of, index_names, shapes

Sizes = Mapping[str, int]
Generators = dict[str, Any]


def complexity(x: Fraction) -> tuple[int, int, bool]:
    """Integers before fractions of the same height, positive before negative."""
    return abs(x.numerator) + x.denominator, x.denominator, x < 0


# Up to e^6 in an exponent: beyond it the sum of two terms loses more digits than the tolerance of an identity allows.
_SMALL = {Fraction(j, k) for j in range(7) for k in range(1, 5)}
TABLE = {
    "positive": sorted(_SMALL - {0} | {Fraction(1, 30), Fraction(30)}, key=complexity),
    "nonzero": sorted((_SMALL | {-x for x in _SMALL}) - {0}, key=complexity),
    "real": sorted(_SMALL | {-x for x in _SMALL}, key=complexity),
}


def index_choices(theorem: Theorem, sizes: Sizes) -> list[dict[str, int]]:
    """Every choice of a theorem's indices: distinct ones differ, free ones may coincide."""
    choices: list[dict[str, int]] = [{}]
    for axis in axes_of(theorem):
        distinct, free = (index_names(theorem, axis, distinct=d) for d in (True, False))
        places = itertools.product(
            itertools.permutations(range(sizes[axis]), len(distinct)),
            itertools.product(range(sizes[axis]), repeat=len(free)),
        )
        here = [dict(zip([*distinct, *free], (*p, *q), strict=True)) for p, q in places]
        choices = [a | b for a in choices for b in here]
    return choices


def points(theorem: Theorem, sizes: Sizes, count: int) -> st.SearchStrategy[list[Generators]]:
    """So many points of a theorem at fixed sizes: the rational generators of its arguments, and integers as indices.

    All are read from one string of bytes, a byte a number and two for the indices: Hypothesis takes a millisecond for a
    draw, however small. Bytes shrink to 0, which is the simplest number.
    """
    numbers = {n: s for n, s in shapes(theorem, sizes).items() if theorem.domains[n].kind != "index"}
    choices = index_choices(theorem, sizes)
    length = 2 + sum(int(np.prod(shape)) for shape in numbers.values())

    def point(drawn: bytes) -> Generators:
        found: Generators = dict(choices[int.from_bytes(drawn[:2]) % len(choices)])
        rest = iter(drawn[2:])
        for name, shape in numbers.items():
            table = TABLE[theorem.domains[name].kind]
            flat = [table[byte % len(table)] for byte in itertools.islice(rest, int(np.prod(shape)))]
            found[name] = np.array(flat, dtype=object).reshape(shape) if shape else flat[0]
        return {name: found[name] for name in theorem.domains}

    @st.composite
    def some(draw: Any) -> list[Generators]:
        drawn = draw(st.binary(min_size=count * length, max_size=count * length))
        return [point(drawn[k : k + length]) for k in range(0, count * length, length)]

    return some()
