"""What the tests of claims and of theorems share: one compiled program a theorem, and the checks themselves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.algebra import reading
from sandbox.algebra.numeric import evaluator
from sandbox.algebra.sizefree import Family
from sandbox.runtime import quickly_compiled
from tests.strategies import Generators, Sizes, index_choices, points
from tests.tolerances import assert_close, identity
from theory._arrays import compiled, gap_at, relation_of, sides
from theory._planted import Planted, plant
from theory._points import as_arrays, random_generators, sizefree_relations, symbol_values, two_sizes
from theory.proof import Refuted, Verdict, prove
from theory.statement import Domain, Equal, Gap, Relation, Source, Theorem, arguments, gap

DRAWS, TOGETHER = 200, 10  # points at which a claim is tried; so many of them are one example of Hypothesis


def stated(body: Callable[..., Relation], *, expect: str = "proved", witness: Any = None, **domains: Domain) -> Theorem:
    """A theorem of a test's own: its claim and the domains of its arguments, no source and no words."""
    return Theorem(body, Source("test", "here"), "-", domains, "", expect, witness)


def value_of(body: Callable[..., Any], **domains: Domain) -> Theorem:
    """A formula as a theorem that nobody proves, so that its readings can be compared."""
    return stated(lambda **args: Equal(body(**args), 0), **domains)


@cache
def verdict(theorem: Theorem) -> Verdict:
    """What the prover says, asked once a process."""
    return prove(theorem)


@cache
def planted(theorem: Theorem) -> Planted | None:
    """What became of the planted errors, asked once a process."""
    return plant(theorem)


@cache
def duty_kinds(theorem: Theorem) -> frozenset[str]:
    """The kinds of duties that a theorem has."""
    return relation_of(theorem)[1]


def skip_unless_precise(theorem: Theorem) -> None:
    """Limits and rates are read at 1e-8 or 1e14: in float32 they say nothing."""
    if not jax.config.jax_enable_x64 and duty_kinds(theorem) & {"tends", "slope"}:
        pytest.skip("limits and rates are checked in float64 only")


# -- the checks --------------------------------------------------------------------------------------------------------


def survey(theorem: Theorem) -> float:
    """Try the claim on Hypothesis's draws at two sizes; the share of points that met its premises."""
    tally: Counter[bool] = Counter()

    @settings(max_examples=DRAWS // TOGETHER)
    @given(st.one_of([points(theorem, sizes, TOGETHER) for sizes in two_sizes(theorem)]))
    def holds_at(drawn: list[Generators]) -> None:
        for point in drawn:
            found = gap_at(theorem, point, identity().rtol)
            met = bool(found.met)
            tally[met] += 1
            assert not met or found.excess <= 1, (
                f"{theorem.id} at {point}: off by {found.gap:.3g}, {found.excess:.3g} times the tolerance"
            )

    holds_at()
    return tally[True] / tally.total()


def assert_every_choice_of_indices_holds(theorem: Theorem) -> None:
    """Choosing indices by symmetry is itself a claim: all of them, at the larger sizes, at one random point each."""
    sizes, rng = two_sizes(theorem)[1], random.Random(2)
    for choice in index_choices(theorem, sizes):
        found = gap_at(theorem, random_generators(theorem, sizes, rng, 4) | choice, identity().rtol)
        assert not found.met or found.excess <= 1, f"{theorem.id} at {choice}: off by {found.gap:.3g}"


def assert_sizefree_reading_agrees(theorem: Theorem) -> None:
    """Every number in every duty: symbols at a point and arrays there, for every way in which free indices coincide.

    Raises NotImplementedError if there is no size-free reading.
    """
    sizes, rng = two_sizes(theorem)[1], random.Random(3)
    for args, relation in sizefree_relations(theorem):
        at = random_generators(theorem, sizes, rng, 4)
        at |= {n: at[str(args[n]).partition("@")[0]] for n, d in theorem.domains.items() if d.kind == "index"}
        value = evaluator(symbol_values(theorem, at), sizes)
        with reading("sizefree"):
            found = [_numbers(_elements(x, sizes), value) for x in sides(relation)]
        _assert_same(theorem, found, at, "size-free")


def assert_concrete_reading_agrees(theorem: Theorem) -> None:
    """The same for the concrete reading, at exact rational numbers."""
    at = random_generators(theorem, two_sizes(theorem)[1], random.Random(4), 4)
    with reading("concrete"):
        exactly = {n: x if isinstance(x, int) else _rational(x) for n, x in at.items()}
        value = evaluator({}, {})
        found = [_numbers(np.asarray(x, dtype=object), value) for x in sides(theorem(**arguments(theorem, exactly)))]
    _assert_same(theorem, found, at, "concrete")


def _assert_same(theorem: Theorem, found: list[Any], at: Generators, what: str) -> None:
    on_arrays = compiled(theorem)(as_arrays(at), identity().rtol)[1]
    for n, (a, b) in enumerate(zip(found, on_arrays, strict=True)):
        assert a.shape == np.shape(b), f"{theorem.id}, {what} reading, value {n}: shapes {a.shape} and {np.shape(b)}"
        assert_close(b, a, what=f"{theorem.id}, arrays and the {what} reading, value {n}")


def _elements(x: Any, sizes: Sizes) -> Any:
    if not isinstance(x, Family):
        return np.asarray(x, dtype=object)
    elements = np.empty([sizes[a] for a in x.axes], dtype=object)
    for k in np.ndindex(elements.shape):
        elements[k] = x.at(*map(sp.Integer, k))
    return elements


def _numbers(elements: Any, value: Callable[[sp.Expr], Any]) -> Any:
    return np.vectorize(lambda e: float(value(e)), otypes=[float])(elements)


def _rational(x: Any) -> Any:
    exactly = np.vectorize(lambda v: sp.Rational(v.numerator, v.denominator), otypes=[object])(x)
    return exactly if exactly.shape else exactly.item()


def counterexample_on_arrays(theorem: Theorem, found: Refuted) -> Gap:
    """The gap at the arguments that a refutation shows (they are read back from its text)."""

    def number(text: str) -> Any:
        value = sp.sympify(text)
        if theorem.domains[name].kind == "index":
            return int(value)
        return np.array(value.tolist() if hasattr(value, "tolist") else value, dtype=float)

    args = {}
    for name, text in found.counterexample.items():
        args[name] = number(text)
    read = jax.jit(lambda args: gap(theorem(**args), identity().rtol), compiler_options=quickly_compiled(0))
    return read(args)
