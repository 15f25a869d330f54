"""From a theorem to a verdict.

``prove`` tries, in this order: exact rational points (a false claim dies here, in milliseconds), the size-free reading
(a proof at every size), the concrete reading at sizes 2 to 4, and points at 30 digits. Only a proof is called one.
"""

from __future__ import annotations

import itertools
import random
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import mpmath as mp
import numpy as np
import sympy as sp

from sandbox.algebra import reading, sizefree
from sandbox.algebra.normal import always_positive, is_zero, never_negative
from sandbox.algebra.numeric import evaluate
from sandbox.algebra.sizefree import Family, axis_of
from sandbox.algebra.symbols import exact
from theory._points import (
    DIGITS,
    as_arrays,
    concrete_arguments,
    random_generators,
    sizefree_arguments,
    smallest_sizes,
    symbol_values,
)
from theory.statement import Duty, Relation, Theorem, arguments, gap, sizes_for

POINTS = 3
SIZES = (2, 3, 4)


@dataclass(frozen=True)
class Proved:
    """Proved, at every size (``sizes == ()``) or at the sizes listed."""

    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"proved (sizes {', '.join(map(str, self.sizes))})" if self.sizes else "proved (every size)"


@dataclass(frozen=True)
class Checked:
    """No proof, but right at so many points to so many digits."""

    points: int
    digits: int

    def __str__(self) -> str:
        return f"checked ({self.points} points, {self.digits} digits)"


@dataclass(frozen=True)
class Undecided:
    """Neither proved nor refuted; never a pass."""

    reason: str

    def __str__(self) -> str:
        return f"undecided ({self.reason})"


@dataclass(frozen=True)
class Refuted:
    """False: the arguments of a counterexample, and the two sides there."""

    counterexample: Mapping[str, str]
    lhs: str
    rhs: str

    def __str__(self) -> str:
        where = ", ".join(f"{k}={v}" for k, v in self.counterexample.items())
        return f"refuted ({where}: {self.lhs} against {self.rhs})"


Verdict = Proved | Checked | Undecided | Refuted


class EmptyClaim(ValueError):
    """Both sides of a claim are the same expression: it says nothing."""


def prove(theorem: Theorem, seconds: float = 20) -> Verdict:
    """The best verdict to be had for a theorem within a time limit (main thread only; elsewhere there is none).

    Raises EmptyClaim if both sides of the claim are the same expression.
    """
    try:
        with _time_limit(seconds):
            if theorem.expect == "refuted":
                return counterexample(theorem) or Undecided("no counterexample found")
            return _check(theorem) if theorem.expect == "checked" else _prove(theorem)
    except TimeoutError:
        return Undecided(f"no answer within {seconds:g} s")
    except RecursionError:
        return Undecided("expression too deep")


def holds(theorem: Theorem, verdict: Verdict) -> bool:
    """Is the verdict the one that the theorem expects, or better?"""
    accepted = {"proved": (Proved,), "checked": (Proved, Checked), "refuted": (Refuted,)}[theorem.expect]
    return isinstance(verdict, accepted)


# -- proofs --------------------------------------------------------------------------------------------------------


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


def _prove(theorem: Theorem) -> Verdict:
    try:
        found = _prove_sizefree(theorem)
    except NotImplementedError:
        found = Undecided("no size-free reading")
    if isinstance(found, Proved | Refuted):
        return found
    with suppress(NotImplementedError):
        if all(_prove_concrete(theorem, size) for size in SIZES):
            return Proved(SIZES)
    return _check(theorem)


def _prove_sizefree(theorem: Theorem) -> Verdict:
    proved, empty = True, True
    for args in sizefree_arguments(theorem):
        with reading("sizefree"):
            relation = theorem(**args)
            empty = empty and _is_empty(relation, points_of(args))
            if _fails_somewhere(theorem, args, relation):
                return counterexample(theorem) or Undecided("fails at random points, no small counterexample found")
            proved = proved and all(_discharged(duty, relation, points_of(args)) for duty in relation.duties)
    if empty:  # under every coincidence of indices
        raise EmptyClaim(f"{theorem.id}: both sides are the same expression")
    return Proved() if proved else Undecided("no proof")


def _prove_concrete(theorem: Theorem, size: int) -> bool:
    with reading("concrete"):
        for args in concrete_arguments(theorem, size):
            relation = theorem(**args)
            if not all(_discharged(duty, relation, []) for duty in relation.duties):
                return False
    return True


def _is_empty(relation: Relation, points: list[sp.Symbol]) -> bool:
    if callable(relation.lhs) or relation.word == "dynamics":
        return False
    return all(a == b for a, b in components((relation.lhs, relation.rhs), points))


def _discharged(duty: Duty, relation: Relation, points: list[sp.Symbol]) -> bool:
    kind, values = duty
    if kind in ("premise", "implied", "state"):
        return True
    if kind == "zero":
        return all(is_zero(a - b) for a, b in components(values, points))
    if kind == "between":
        f, a, b = values
        k = sp.Dummy("k", positive=True)
        return never_negative(f((a + k * b) / (1 + k)))
    if kind == "positive":
        return all(always_positive(x) for (x,) in components(values, points))
    if kind == "nonneg":
        premises = [x for d in relation.duties if d.kind == "premise" for (x,) in components(d.values, points)]
        return all(_signed(x, premises) for (x,) in components(values, points))
    return False


def _signed(x: sp.Expr, premises: list[sp.Expr]) -> bool:
    """x >= 0, by itself or as a premise times something >= 0."""
    return never_negative(x) or any(never_negative(sp.cancel(x / p)) for p in premises)


def _fails_somewhere(theorem: Theorem, args: Mapping[str, Any], relation: Relation) -> bool:
    """Is a duty violated at a random point? An equality is meant without its premises, a sign only with them."""
    rng = random.Random(0)
    sizes = sizes_for(theorem, 4)
    named = {n: v for n, v in args.items() if isinstance(v, sp.Symbol) and axis_of(v)}
    bare = not any(d.kind == "premise" for d in relation.duties)
    tried = 0
    for largest in (3, 6, 30) + 9 * (3,):  # more where the claim is not defined
        generators = random_generators(theorem, sizes, rng, largest)
        used = {v: generators[n] for n, v in named.items() if str(v).partition("@")[0] == n}
        point = {**symbol_values(theorem, generators), **used}
        try:
            for kind, sides in relation.duties:
                for row in components(sides, points_of(args)) if kind in ("zero", "nonneg", "implied") else ():
                    here = {**point, **strangers(sp.Tuple(*row), used, sizes, rng)}
                    values = [evaluate(x, here, sizes, DIGITS) for x in row]
                    if differ(*values) if kind == "zero" else bare and _negative(values[0]):
                        return True
        except ZeroDivisionError:
            continue
        tried += 1
        if tried == POINTS:
            break
    return False


def _negative(x: Any) -> bool:
    """Is a value of 30 digits below zero by more than its rounding?"""
    return bool(x < -(mp.mpf(10) ** (-DIGITS // 2)))


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


# -- counterexamples and checks ----------------------------------------------------------------------------------------


def counterexample(theorem: Theorem) -> Refuted | None:
    """The simplest rational counterexample found, re-checked exactly; None if there is none among the tries."""
    for generators in _suspects(theorem):
        if _violated_at(theorem, generators):
            generators = _shrunk(theorem, generators) if theorem.witness is None else generators
            with reading("concrete"):
                args = arguments(theorem, _exactly(generators))
                relation = theorem(**args)
            shown = {n: _shown(v) for n, v in args.items()}
            return Refuted(shown, _shown(relation.lhs), _shown(relation.rhs))
    return None


def _violated_at(theorem: Theorem, generators: Mapping[str, Any]) -> bool:
    try:
        with reading("concrete"):
            return _violated(theorem(**arguments(theorem, _exactly(generators))))
    except (ZeroDivisionError, TypeError):  # not defined, or not real, there: no counterexample
        return False


def _shrunk(theorem: Theorem, generators: dict[str, Any]) -> dict[str, Any]:
    """Each number replaced by a simpler one where the claim stays violated."""
    for name, value in list(generators.items()):
        kind = theorem.domains[name].kind
        if kind == "index":
            continue
        for k in np.ndindex(np.shape(value)):
            for simpler in (*((Fraction(0),) if kind == "real" else ()), Fraction(1), Fraction(1, 2), Fraction(2)):
                trial = np.array(value, dtype=object)
                trial[k] = simpler
                candidate = {**generators, name: trial if np.ndim(value) else simpler}
                if _complexity(candidate) < _complexity(generators) and _violated_at(theorem, candidate):
                    generators = candidate
                    value = candidate[name]
                    break
    return generators


def _suspects(theorem: Theorem, tries: int = 2000) -> Iterator[dict[str, Any]]:
    """Generators at which floating-point arrays violate the claim, the simplest first."""
    if theorem.witness is not None:
        yield {n: np.array(x, dtype=object) if isinstance(x, list | tuple) else x for n, x in theorem.witness.items()}
        return
    rng = random.Random(0)
    for base in (2, 3):
        sizes = {a: max(base, n) for a, n in smallest_sizes(theorem).items()}
        drawn = [
            random_generators(theorem, sizes, rng, largest) for largest in (2, 3, 6, 20) for _ in range(tries // 4)
        ]
        drawn.sort(key=_complexity)
        stacked = {n: np.stack([as_arrays(g)[n] for g in drawn]) for n in theorem.domains}
        with reading("arrays"):
            found = jax.jit(jax.vmap(lambda g: gap(theorem(**arguments(theorem, g)), 1e-6)))(stacked)
        yield from (drawn[k] for k in np.flatnonzero(np.asarray((found.excess > 1) & found.met))[:20])


def _complexity(generators: Mapping[str, Any]) -> int:
    flat = itertools.chain.from_iterable(np.ravel(np.asarray(x, dtype=object)) for x in generators.values())
    return sum(abs(x.numerator) + x.denominator for x in flat)


def _exactly(generators: Mapping[str, Any]) -> dict[str, Any]:
    def rational(x: Any) -> sp.Expr:
        return x if isinstance(x, sp.Basic) else sp.Rational(x.numerator, x.denominator)

    return {
        n: x if isinstance(x, int) else np.vectorize(rational, otypes=[object])(x) if np.ndim(x) else rational(x)
        for n, x in generators.items()
    }


def _violated(relation: Relation) -> bool:
    """Is a duty violated at exact numbers, with every premise met?"""

    def value(x: sp.Expr) -> Any:
        return evaluate(x, {}, {}, DIGITS)

    if any(value(p) < 0 for d in relation.duties if d.kind == "premise" for (p,) in components(d.values, [])):
        return False
    for kind, values in relation.duties:
        if kind == "zero" and any(differ(value(a), value(b)) for a, b in components(values, [])):
            return True
        if kind == "between":
            f, a, b = values
            if any(value(f(a + (b - a) * sp.Rational(n, 4))) < 0 for n in range(5)):
                return True
        if kind == "positive" and any(value(x) <= 0 for (x,) in components(values, [])):
            return True
        if kind in ("nonneg", "implied") and any(_negative(value(x)) for (x,) in components(values, [])):
            return True
    return False


def _shown(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return "(" + ", ".join(_shown(v) for v in x) + ")"
    exactly = exact(x)
    if exactly.is_Rational:
        return str(exactly)
    short = sp.nsimplify(exactly) if len(str(exactly)) < 30 else exactly
    return str(short) if len(str(short)) < 30 else mp.nstr(evaluate(exactly, {}, {}), 8)


def _check(theorem: Theorem, points: int = 64) -> Verdict:
    """The claim on arrays, at random points of each of two sizes."""
    rng = random.Random(1)
    worst, count, violated = 0.0, 0, False
    tolerance = 1e-9 if jax.config.read("jax_enable_x64") else 1e-4
    for base in (3, 5):
        sizes = sizes_for(theorem, base)
        drawn = [as_arrays(random_generators(theorem, sizes, rng, 6)) for _ in range(points // 2)]
        stacked = {n: np.stack([g[n] for g in drawn]) for n in theorem.domains}
        with reading("arrays"):
            found = jax.jit(jax.vmap(lambda g: gap(theorem(**arguments(theorem, g)), tolerance)))(stacked)
        met = np.asarray(found.met)
        count += int(met.sum())
        worst = max(worst, float(np.max(np.where(met, found.gap, 0))))
        violated = violated or bool(np.any(np.where(met, found.excess, 0) > 1))
    if violated:
        return counterexample(theorem) or Undecided(f"off by {worst:.2g} on arrays, no small counterexample found")
    if count == 0:
        return Undecided("no random point meets the premises")
    return Checked(count, int(min(15, -np.log10(max(worst, 1e-16)))))


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return

    def ring(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


__all__ = ["Checked", "EmptyClaim", "Proved", "Refuted", "Undecided", "Verdict", "holds", "prove"]
