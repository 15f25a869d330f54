"""A theorem on arrays: one compiled program a size, shared by all who try the claim at points."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import numpy as np

from sandbox.algebra import reading
from sandbox.runtime import quickly_compiled
from theory._points import as_arrays, random_generators, two_sizes
from theory.statement import Gap, Relation, Theorem, arguments, gap

NUMBERS = ("zero", "nonneg", "positive", "implied", "premise", "state")  # duties whose values are numbers or arrays


def sides(relation: Relation) -> list[Any]:
    """The values of the duties that have numbers, in order."""
    return [value for kind, values in relation.duties if kind in NUMBERS for value in values]


@cache
def compiled(theorem: Theorem) -> Callable[[Mapping[str, Any], float], tuple[Gap, list[Any]]]:
    """From generators and a tolerance to the gap and the values of the duties (a trace for each size and precision)."""

    def read(at: Mapping[str, Any], tolerance: float) -> tuple[Gap, list[Any]]:
        with reading("arrays"):
            relation = theorem(**arguments(theorem, at))
            return gap(relation, tolerance), sides(relation)

    return jax.jit(read, compiler_options=quickly_compiled(0))  # it runs for microseconds


def gap_at(theorem: Theorem, generators: Mapping[str, Any], tolerance: float) -> Gap:
    """The gap of a theorem at rational generators."""
    return Gap(*map(np.asarray, compiled(theorem)(as_arrays(generators), tolerance)[0]))


def relation_of(theorem: Theorem) -> tuple[str, frozenset[str]]:
    """The word of what a theorem asserts, and the kinds of its duties; nothing is computed."""
    found: list[tuple[str, frozenset[str]]] = []

    def look(at: Mapping[str, Any]) -> None:
        with reading("arrays"):
            relation = theorem(**arguments(theorem, at))
        found.append((relation.word, frozenset(kind for kind, _ in relation.duties)))

    jax.eval_shape(look, as_arrays(random_generators(theorem, two_sizes(theorem)[0], random.Random(0))))
    return found[0]
