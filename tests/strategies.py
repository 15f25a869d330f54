"""Hypothesis strategies from the domains of a theorem: simple rationals, the simplest first.

A generator is one draw from a table of rationals ordered by simplicity, so a failing example shrinks to the smallest
integers at which a claim fails, and no float is subnormal, infinite or NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from theory._points import smallest_sizes
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


def number(kind: str) -> st.SearchStrategy[Fraction]:
    """A generator of one kind: "real", "nonzero" or "positive"."""
    return st.sampled_from(TABLE[kind])


def array(kind: str, shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    """Generators of one kind: a number for the empty shape, else a NumPy array of Fractions."""
    if not shape:
        return number(kind)
    flat = st.lists(number(kind), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    return flat.map(lambda xs: np.array(xs, dtype=object).reshape(shape))


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


def generators(theorem: Theorem, sizes: Sizes) -> st.SearchStrategy[Generators]:
    """The generators of a theorem's arguments at fixed sizes, rational; indices are integers."""
    numbers = {
        name: array(theorem.domains[name].kind, shape)
        for name, shape in shapes(theorem, sizes).items()
        if theorem.domains[name].kind != "index"
    }
    both = st.tuples(st.fixed_dictionaries(numbers), st.sampled_from(index_choices(theorem, sizes)))
    return both.map(lambda drawn: {n: (drawn[0] | drawn[1])[n] for n in theorem.domains})


@cache
def two_sizes(theorem: Theorem) -> tuple[dict[str, int], dict[str, int]]:
    """The smallest size of each axis, and larger ones (3 or more), no two axes alike."""
    smallest = smallest_sizes(theorem)
    larger: dict[str, int] = {}
    for axis, least in smallest.items():
        larger[axis] = next(n for n in itertools.count(max(3, least + 1)) if n not in larger.values())
    return smallest, larger
