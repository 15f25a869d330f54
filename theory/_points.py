"""The arguments of a theorem: as symbols for the two symbolic readings, and at random rational points."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp

from sandbox.algebra import reading, sizefree
from sandbox.algebra.sizefree import Family, Law, axis_of
from sandbox.algebra.symbols import exact
from theory.statement import Domain, Relation, Theorem, axes_of, index_names, shapes

DIGITS = 30


# -- symbols for arguments -----------------------------------------------------------------------------------------


def _assumption(domain: Domain) -> dict[str, bool]:
    return {"positive": {"positive": True}, "nonzero": {"real": True, "nonzero": True}}.get(domain.kind, {"real": True})


def sizefree_arguments(theorem: Theorem) -> Iterator[dict[str, Any]]:
    """The arguments as size-free symbols: one set for each way in which free indices may coincide with others."""
    args: dict[str, Any] = {}
    with reading("sizefree"):
        for name, d in theorem.domains.items():
            if d.kind == "index":
                args[name] = sizefree.index(name, d.axes[0])
            elif not d.axes:
                args[name] = d.make(sp.Symbol(name, **_assumption(d)))
            else:
                base = (Law if d.law else sp.IndexedBase)(sp.Symbol(name, **_assumption(d)))
                family = Family(lambda *k, base=base: base[k if len(k) > 1 else k[0]], d.axes)
                args[name] = family if d.law else d.make(family)
    free = [n for n, d in theorem.domains.items() if d.kind == "index" and not d.distinct]
    yield from _coincidences(args, free, theorem)


@cache
def sizefree_relations(theorem: Theorem) -> list[tuple[dict[str, Any], Relation]]:
    """The claim at each of its ``sizefree_arguments``: prover, planter and tests begin with the same expressions."""
    with reading("sizefree"):
        return [(args, theorem(**args)) for args in sizefree_arguments(theorem)]


def _coincidences(args: dict[str, Any], free: list[str], theorem: Theorem) -> Iterator[dict[str, Any]]:
    if not free:
        yield args
        return
    name, *rest = free
    taken = [n for n, d in theorem.domains.items() if d.axes == theorem.domains[name].axes and d.kind == "index"]
    others = {args[n] for n in taken if n not in free}
    for value in [args[name], *sorted(others, key=str)]:
        yield from _coincidences({**args, name: value}, rest, theorem)


def concrete_arguments(theorem: Theorem, size: int) -> Iterator[dict[str, Any]]:
    """The arguments as arrays of symbols at one size, for every way in which indices may lie to each other.

    Distinct indices take the first places, which by symmetry are as good as any; at the smallest size all are tried.
    """
    sizes = {a: max(size, smallest_sizes(theorem)[a]) for a in axes_of(theorem)}
    args: dict[str, Any] = {}
    with reading("concrete"):
        for name, shape in shapes(theorem, sizes).items():
            d = theorem.domains[name]
            if d.kind != "index":
                symbols = _symbol_array(name, shape, _assumption(d))
                args[name] = d.make(symbols)
    for indices in _index_choices(theorem, sizes, every=size == 2):
        yield {n: indices[n] if n in indices else args[n] for n in theorem.domains}


def _symbol_array(name: str, shape: tuple[int, ...], assumption: dict[str, bool]) -> Any:
    if not shape:
        return sp.Symbol(name, **assumption)
    symbols = np.empty(shape, dtype=object)
    for k in np.ndindex(*shape):
        symbols[k] = sp.Symbol(f"{name}[{','.join(map(str, k))}]", **assumption)  # no argument is called so
    return symbols


def smallest_sizes(theorem: Theorem) -> dict[str, int]:
    needed = {a: len(index_names(theorem, a, distinct=True)) for a in axes_of(theorem)}
    return {a: max(n, 2) for a, n in needed.items()}


@cache
def two_sizes(theorem: Theorem) -> tuple[dict[str, int], dict[str, int]]:
    """The smallest size of each axis, and larger ones (3 or more), no two axes alike."""
    smallest = smallest_sizes(theorem)
    larger: dict[str, int] = {}
    for axis, least in smallest.items():
        larger[axis] = next(n for n in itertools.count(max(3, least + 1)) if n not in larger.values())
    return smallest, larger


def _index_choices(theorem: Theorem, sizes: Mapping[str, int], every: bool) -> Iterator[dict[str, int]]:
    per_axis = []
    for a in axes_of(theorem):
        distinct, free = (index_names(theorem, a, distinct=x) for x in (True, False))
        fixed = itertools.permutations(range(sizes[a]), len(distinct)) if every else [tuple(range(len(distinct)))]
        loose = itertools.product(range(min(sizes[a], len(distinct) + len(free))), repeat=len(free))
        choices = itertools.product(fixed, loose)
        per_axis.append([dict(zip([*distinct, *free], (*p, *q), strict=True)) for p, q in choices])
    for combination in itertools.product(*per_axis):
        yield {k: v for part in combination for k, v in part.items()}


# -- random points -------------------------------------------------------------------------------------------------


def random_generators(theorem: Theorem, sizes: Mapping[str, int], rng: random.Random, largest: int = 30) -> dict:
    """Rational generators at random, with numerators and denominators up to ``largest``; indices as integers."""

    def number(kind: str) -> Fraction:
        j, k = rng.randint(1, largest), rng.randint(1, largest)
        value = rng.choice((Fraction(j), Fraction(1, k), Fraction(j, k)))  # large and small as likely as in between
        return value if kind == "positive" else value * rng.choice((1, -1))

    chosen: dict[str, Any] = {}
    for a in axes_of(theorem):
        distinct, free = (index_names(theorem, a, distinct=x) for x in (True, False))
        chosen |= dict(zip(distinct, rng.sample(range(sizes[a]), len(distinct)), strict=True))
        chosen |= {n: rng.randrange(sizes[a]) for n in free}
    for name, shape in shapes(theorem, sizes).items():
        kind = theorem.domains[name].kind
        if kind != "index":
            flat = [number(kind) for _ in range(int(np.prod(shape)))]
            chosen[name] = np.array(flat, dtype=object).reshape(shape) if shape else flat[0]
    return {n: chosen[n] for n in theorem.domains}


def symbol_values(theorem: Theorem, generators: Mapping[str, Any]) -> dict[sp.Basic, Any]:
    """A value for each symbol of ``sizefree_arguments``."""
    values: dict[sp.Basic, Any] = {}
    for name, d in theorem.domains.items():
        x = generators[name]
        if d.kind == "index":
            values[sizefree.index(name, d.axes[0])] = x
        elif not d.axes:
            values[sp.Symbol(name, **_assumption(d))] = _digits(x)
        else:
            if d.law:
                x = x / x.sum(axis=-1, keepdims=True)
            base = (Law if d.law else sp.IndexedBase)(sp.Symbol(name, **_assumption(d)))
            values[base] = np.vectorize(_digits, otypes=[object])(x)
    return values


def _digits(x: Any) -> mp.mpf:
    with mp.workdps(DIGITS):
        return mp.mpf(x.numerator) / x.denominator


def as_arrays(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Rational generators as floating-point arrays (indices stay integers)."""
    return {n: x if isinstance(x, int) else np.asarray(x, dtype=object).astype(float) for n, x in generators.items()}


# -- two sides, element by element, and their values ------------------------------------------------------------------


def components(value: Any, points: list[sp.Symbol]) -> list[tuple[sp.Expr, ...]]:
    """The expressions of parallel values: a family at each known point of its axes and at a new one."""
    families = [v for v in value if isinstance(v, Family)]
    if not families:
        if any(isinstance(v, np.ndarray) for v in value):
            return [tuple(map(exact, row)) for row in np.broadcast(*(np.asarray(v, dtype=object) for v in value))]
        return [tuple(map(exact, value))]
    axes = max((f.axes for f in families), key=len)
    found = []
    for keys in _element_choices(axes, points):
        row = [v.at(*keys[len(axes) - len(v.axes) :]) if isinstance(v, Family) else v for v in value]
        found.append(tuple(map(exact, row)))
    return found


def _element_choices(axes: tuple[str, ...], points: list[sp.Symbol]) -> Iterator[tuple[sp.Symbol, ...]]:
    if not axes:
        yield ()
        return
    new = sizefree.index(f"other {len(points)}", axes[0])  # no argument has a space in its name
    for k in [*(p for p in points if axis_of(p) == axes[0]), new]:
        for rest in _element_choices(axes[1:], points if k in points else [*points, k]):
            yield (k, *rest)


def points_of(args: Mapping[str, Any]) -> list[sp.Symbol]:
    """The points of all axes among a theorem's arguments."""
    return sorted({v for v in args.values() if isinstance(v, sp.Symbol) and axis_of(v)}, key=str)


def strangers(expr: sp.Basic, used: Mapping[sp.Basic, Any], sizes: Mapping[str, int], rng: random.Random) -> dict:
    """Values for the points that no argument names, different from those that one does."""
    found: dict[sp.Basic, int] = {}
    for s in sorted(expr.free_symbols, key=str):
        if isinstance(s, sp.Symbol) and s.name.startswith("other "):
            taken = {v for k, v in {**used, **found}.items() if isinstance(k, sp.Symbol) and axis_of(k) == axis_of(s)}
            found[s] = rng.choice([n for n in range(sizes[axis_of(s)]) if n not in taken])
    return found


def differ(a: Any, b: Any) -> bool:
    """Are two values of 30 digits different (or not numbers)?"""
    distance = abs(a - b)
    return bool(mp.isnan(distance)) or bool(distance > mp.mpf(10) ** (-DIGITS // 2) * (1 + abs(a) + abs(b)))


def negative(x: Any) -> bool:
    """Is a value of 30 digits below zero by more than its rounding, or no real number at all?"""
    return isinstance(x, mp.mpc) or bool(x < -(mp.mpf(10) ** (-DIGITS // 2)))
