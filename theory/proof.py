"""From a theorem to a verdict.

``prove`` tries, in this order: exact rational points (a false claim dies here, in milliseconds), the size-free reading
(a proof at every size), the concrete reading at sizes 2 to 4, and points at 30 digits. Only a proof is called one.
"""

from __future__ import annotations

import gc
import random
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import jax
import numpy as np
import sympy as sp

from sandbox.algebra import reading
from sandbox.algebra.normal import always_positive, is_zero, never_negative
from sandbox.algebra.numeric import evaluator
from sandbox.algebra.sizefree import axis_of
from theory._arrays import gap_at
from theory._points import (
    DIGITS,
    components,
    concrete_arguments,
    differ,
    negative,
    points_of,
    random_generators,
    sizefree_relations,
    strangers,
    symbol_values,
    two_sizes,
)
from theory._search import counterexample
from theory._verdicts import Checked, Proved, Refuted, Undecided, Verdict
from theory.statement import Duty, Relation, Theorem, sizes_for

POINTS = 3
SIZES = (2, 3, 4)


class EmptyClaim(ValueError):
    """The two sides of a claim, of each of its equalities, are the same expression: it says nothing."""


def prove(theorem: Theorem, seconds: float = 20) -> Verdict:
    """The best verdict to be had for a theorem within a limit of processor time, whatever else the machine does.

    Only the main thread has a limit.

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
    for args, relation in sizefree_relations(theorem):
        with reading("sizefree"):
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
    sides = [(relation.lhs, relation.rhs), *(duty.values for duty in relation.duties if duty.kind == "zero")]
    return all(a == b for pair in sides for a, b in components(pair, points))


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
        known = evaluator(point, sizes, DIGITS)
        try:
            for kind, sides in relation.duties:
                for row in components(sides, points_of(args)) if kind in ("zero", "nonneg", "implied") else ():
                    others = strangers(sp.Tuple(*row), used, sizes, rng)
                    at = evaluator({**point, **others}, sizes, DIGITS) if others else known
                    values = [at(x) for x in row]
                    if differ(*values) if kind == "zero" else bare and negative(values[0]):
                        return True
        except ZeroDivisionError:
            continue
        tried += 1
        if tried == POINTS:
            break
    return False


# -- counterexamples and checks ----------------------------------------------------------------------------------------


def _check(theorem: Theorem, points: int = 64) -> Verdict:
    """The claim on arrays, at random points of each of two sizes."""
    rng = random.Random(1)
    worst, count, violated = 0.0, 0, False
    tolerance = 1e-9 if jax.config.read("jax_enable_x64") else 1e-4
    for sizes in two_sizes(theorem):
        for _ in range(points // 2):
            at = gap_at(theorem, random_generators(theorem, sizes, rng, 6), tolerance)
            if at.met:
                count += 1
                worst = max(worst, float(at.gap))
                violated = violated or bool(at.excess > 1)
    if violated:
        found: Verdict | None = None
        with suppress(NotImplementedError):  # what only arrays can show has no symbolic reading to search in
            found = counterexample(theorem)
        return found or Undecided(f"off by {worst:.2g} on arrays, no small counterexample found")
    if count == 0:
        return Undecided("no random point meets the premises")
    return Checked(count, int(min(15, -np.log10(max(worst, 1e-16)))))


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return

    collecting = False

    def note(phase: str, _: Mapping[str, int]) -> None:
        nonlocal collecting
        collecting = phase == "start"

    def ring(_: int, frame: FrameType | None) -> None:
        if collecting or _in_a_callback(frame):  # what is raised in a finaliser is lost, too
            signal.setitimer(signal.ITIMER_PROF, 0.01)
            return
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, ring)
    gc.callbacks.append(note)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.callbacks.remove(note)
        signal.signal(signal.SIGPROF, before)


def _in_a_callback(frame: FrameType | None) -> bool:
    """Is a callback of the garbage collector at work? An error raised in one is lost; JAX and Hypothesis have some."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False


__all__ = ["Checked", "EmptyClaim", "Proved", "Refuted", "Undecided", "Verdict", "holds", "prove"]
