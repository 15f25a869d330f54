"""A claim held against a simulation: one ``Check`` is one row of the table of verdicts.

Gaps are relative to one plus the larger side, as in ``theory.statement.gap``. The two sides shown are those of the
worst state; where every state is within tolerance they are those of the first, since which of them has the most
rounding error differs from machine to machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _programs
from sandbox.tolerances import Tolerance, identity
from sandbox.validate import broadcastable
from theory import _ledger
from theory.statement import Domain, Gap, Relation, Theorem, arguments, gap, shapes, sizes_for


@dataclass(frozen=True)
class Check:
    """One claim in one simulation.

    lhs: simulation, rhs: theory, None where there is no single number. gap, tolerance: holds iff gap <= tolerance (for
    a refuted claim: iff gap > tolerance). why: the reason for the tolerance. over: what it was held against, in words.
    """

    theorem: Theorem
    lhs: float | None
    rhs: float | None
    gap: float
    tolerance: float
    why: str
    holds: bool
    over: str


class _Constant(NamedTuple):
    value: Any


def constant(value: Any) -> Any:
    """Mark an array as one and the same in every state, for ``along``; numbers need no mark."""
    return _Constant(value)


# -- the claim itself, evaluated along states --------------------------------------------------------------------------


def along(
    theorem: Theorem, /, *, tolerance: Tolerance | float | None = None, why: str | None = None, **arrays: Any
) -> Check:
    """The claim evaluated at every state of a run: each argument an array with the states on its first axis.

    Numbers, and arrays in ``constant(...)``, are the same in every state. tolerance: relative, by default that of an
    identity in the precision in force; rates, means and limits carry their own. States that do not meet the premises
    are left out; if none meets them the check fails. Raises ValueError for arguments outside their domains.
    """
    _expected(theorem, refuted=False)
    allowed = _tolerance(tolerance, why, default=identity())
    return _worst(theorem, arrays, allowed, refuted=False)


def refuted(
    theorem: Theorem, /, *, tolerance: Tolerance | float | None = None, why: str | None = None, **arrays: Any
) -> Check:
    """A claim that is false as printed: holds if some state violates it by more than the tolerance.

    Arguments and errors as ``along``; the state shown is the one with the largest violation.
    """
    _expected(theorem, refuted=True)
    allowed = _tolerance(tolerance, why, default=replace(identity(), why="a violation must be larger than rounding"))
    return _worst(theorem, arrays, allowed, refuted=True)


def drift(
    theorem: Theorem,
    /,
    times: Any,
    *,
    tolerance: Tolerance | float,
    why: str | None = None,
    **arrays: Any,
) -> Check:
    """The quantities of a ``Conserved`` or ``Grows`` claim along one run: q(t) against q(t0) + rate * (t - t0).

    times: (T,), those of the states on the first axis of the arguments, which are as in ``along``.
    """
    _expected(theorem, refuted=False)
    given, axes, count = _states(theorem, arrays)
    times = np.asarray(times, float)
    if times.shape != (count,):
        raise ValueError(f"{theorem.id}: times has shape {times.shape}; must be {(count,)}, one a state")

    def quantities(_: Any, values: dict[str, Any]) -> list[tuple[Any, Any]]:
        return list(_rates(theorem(**values)))

    found = _programs.run(
        jax.vmap(quantities, in_axes=(0, axes)), jnp.zeros(count), given,
        name=theorem.name, made_of=f"drift {theorem.id} {axes}", written=theorem.body, level=0,
    )  # fmt: skip
    if not found:
        raise ValueError(f"{theorem.id}: nothing in it is conserved or grows at a rate")
    values, rates = (np.concatenate([np.reshape(pair[k], (count, -1)) for pair in found], axis=1) for k in (0, 1))
    lhs, rhs = values, values[0] + rates[0] * (times - times[0])[:, None]
    return _sides_compared(theorem, lhs, rhs, _tolerance(tolerance, why), f"{count:,} states")


# -- what was measured, against what the theory predicts ---------------------------------------------------------------


def measured(theorem: Theorem, lhs: Any, rhs: Any, tolerance: Tolerance | float, why: str | None = None) -> Check:
    """A measured array against the theory's: equal within tolerance, or, for a bound, at most ``rhs``.

    Arrays of as many axes that broadcast, or numbers. tolerance: one of the table's, or a number t, which allows
    |lhs - rhs| <= t (1 + max(|lhs|, |rhs|)) and needs its reason, ``why``.
    """
    _expected(theorem, refuted=False)
    lhs, rhs = np.asarray(lhs, float), np.asarray(rhs, float)
    broadcastable(theorem.id, {"lhs": lhs, "rhs": rhs})
    count = np.broadcast(lhs, rhs).size
    over = f"{count:,} measured value{'' if count == 1 else 's'}"
    return _sides_compared(theorem, lhs, rhs, _tolerance(tolerance, why), over)


def agrees(theorem: Theorem, predicted: Any, happened: Any, why: str = "no run may come out otherwise") -> Check:
    """What the theory predicted against what happened, yes or no for each run: the gap is how often they differ.

    The two sides shown are how often it happened, and how often it was predicted to.
    """
    _expected(theorem, refuted=False)
    predicted, happened = np.asarray(predicted), np.asarray(happened)
    for name, x in (("predicted", predicted), ("happened", happened)):
        if x.dtype != bool or x.shape != predicted.shape:
            raise ValueError(f"{theorem.id}: {name} is {x.dtype} {x.shape}; must be bool {predicted.shape}")
    if not predicted.size:
        return _vacuous(theorem, 0.0, "no run to judge by")
    differ = int(np.sum(predicted != happened))
    return Check(
        theorem, int(happened.sum()), int(predicted.sum()), differ, 0, why, differ == 0, f"{predicted.size:,} runs"
    )


@cache
def word_of(theorem: Theorem) -> str:
    """The word of the relation that a theorem asserts: "equality", "bound" …; nothing is computed."""
    known = _ledger.known(theorem)
    if known is not None:
        return known.relation
    found = []

    def note(generators: Any) -> Any:
        found.append(theorem(**arguments(theorem, generators)).word)
        return 0

    kinds = {n: int if d.kind == "index" else float for n, d in theorem.domains.items()}
    shape = shapes(theorem, sizes_for(theorem, 3))
    jax.eval_shape(note, {n: jax.ShapeDtypeStruct(shape[n], jnp.result_type(kinds[n])) for n in theorem.domains})
    return found[0]


# -- the parts ---------------------------------------------------------------------------------------------------------


def _expected(theorem: Theorem, *, refuted: bool) -> None:
    if refuted != (theorem.expect == "refuted"):
        word = "along, measured or agrees" if refuted else "refuted"
        raise ValueError(f"{theorem.id}: expect is {theorem.expect!r}; use {word}")


def _tolerance(tolerance: Tolerance | float | None, why: str | None, default: Tolerance | None = None) -> Tolerance:
    if tolerance is None and default is not None:
        tolerance = default
    if isinstance(tolerance, Tolerance):
        return Tolerance(tolerance.rtol, tolerance.atol, why or tolerance.why)
    if tolerance is None or not why:
        raise ValueError(f"tolerance = {tolerance}, why = {why!r}: a number needs its reason, why")
    return Tolerance(tolerance, tolerance, why)


def _vacuous(theorem: Theorem, tolerance: float, why: str) -> Check:
    return Check(theorem, None, None, np.inf, tolerance, f"vacuous: {why}", False, "nothing")


def _states(theorem: Theorem, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int | None], int]:
    """The arguments as arrays, the axis of states of each (0 or None), and the number of states."""
    if sorted(arrays) != sorted(theorem.domains):
        raise ValueError(f"{theorem.id}: arguments {', '.join(arrays)}; must be {', '.join(theorem.domains)}")
    given: dict[str, Any] = {}
    axes: dict[str, int | None] = {}
    sizes: dict[str, int] = {}
    for name, domain in theorem.domains.items():
        value = arrays[name]
        fixed = isinstance(value, _Constant)
        x = np.asarray(value.value if fixed else value)
        axes[name] = None if fixed or x.ndim == 0 else 0
        wanted = [*(["states"] if axes[name] == 0 else []), *(() if domain.kind == "index" else domain.axes)]
        found = dict(zip(wanted, x.shape, strict=False))
        if x.ndim != len(wanted) or any(sizes.get(axis, size) != size for axis, size in found.items()):
            known = ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in wanted)
            hint = "" if fixed else "; constant(...) if it is the same in every state"
            raise ValueError(f"{theorem.id}: {name} has shape {x.shape}; must be ({known}){hint}")
        sizes |= found
        given[name] = x
    for name, domain in theorem.domains.items():
        _in_domain(theorem, name, domain, given, sizes)
    return given, axes, sizes.get("states", 1)


def _in_domain(theorem: Theorem, name: str, domain: Domain, given: dict[str, Any], sizes: dict[str, int]) -> None:
    """Raise ValueError where an argument is seen to lie outside its domain: there the claim says nothing."""
    x = given[name]
    if domain.kind == "index":
        size = sizes.get(domain.axes[0], np.inf)
        good, allowed = (x >= 0) & (x < size), f"an index of axis {domain.axes[0]}, of size {size}"
        for other, its in theorem.domains.items():
            if other != name and its.axes == domain.axes and its.kind == "index" and its.distinct and domain.distinct:
                good, allowed = good & (x != given[other]), f"{allowed}, other than {other}"
    elif domain.law:
        off = np.abs(np.sum(x, axis=-1, keepdims=True) - 1)
        good, allowed = (x > 0) & (off <= identity().atol), "> 0 and sum to one"
    elif domain.kind == "positive" and domain.make is Domain.make:
        good, allowed = x > 0, "> 0"
    else:
        good, allowed = np.isfinite(x), "finite"
    if not np.all(good):
        where = tuple(np.argwhere(~good)[0].tolist())
        bad = np.broadcast_to(x, good.shape)[where]
        raise ValueError(f"{theorem.id}: {name}{list(where) or ''} = {bad}: must be {allowed}; leave such states out")


def _worst(theorem: Theorem, arrays: dict[str, Any], allowed: Tolerance, *, refuted: bool) -> Check:
    given, axes, count = _states(theorem, arrays)
    if allowed.rtol != allowed.atol:
        raise ValueError(f"tolerance = {allowed}: must have rtol = atol, it is relative to 1 + the larger side")
    word = word_of(theorem)

    def at(_: Any, values: dict[str, Any]) -> Any:
        relation = theorem(**values)
        return tuple(gap(relation, allowed.rtol)), _sides(relation)

    if not count:
        return _vacuous(theorem, allowed.rtol, "no states")
    judged, sides = _programs.run(
        jax.vmap(at, in_axes=(0, axes)), jnp.zeros(count), given,
        name=theorem.name, made_of=f"along {theorem.id} {axes} {allowed.rtol}", written=theorem.body,
        level=0,
    )  # fmt: skip
    found = Gap(*judged)
    excess, met = np.asarray(found.excess), np.asarray(found.met)
    if not met.any():
        return _vacuous(theorem, allowed.rtol, f"no state of {count:,} meets the premises")
    ranked = np.where(met, _rank(excess), -1)
    worst = int(np.argmax(ranked))
    largest = float(np.max(np.asarray(found.gap), where=met & (ranked == ranked[worst]), initial=0))
    tolerance, why = _own(theorem, found, worst, allowed, word)
    lhs, rhs = (None if side is None else np.asarray(side)[worst] for side in sides)
    over = f"{met.sum():,} of {count:,} states" if met.sum() < count else f"{count:,} state{'' if count == 1 else 's'}"
    beyond = bool(np.any(excess[met] > 1))
    if beyond and not refuted:
        over += f", worst in state {worst}"
    shown = _shown(lhs, rhs, allowed, word)
    return Check(theorem, *shown, largest, tolerance, why, beyond if refuted else not beyond, over)


def _rank(excess: Any) -> Any:
    """Gaps in tolerances, those within it all alike, to three digits beyond."""
    with np.errstate(invalid="ignore", over="ignore"):
        digits = 10.0 ** np.floor(np.log10(np.maximum(excess, 1)) - 2)
        return np.where(excess <= 1, 0, np.where(np.isfinite(excess), np.round(excess / digits) * digits, np.inf))


def _own(theorem: Theorem, found: Any, worst: int, allowed: Tolerance, word: str) -> tuple[float, str]:
    """The tolerance in force: rates, means and limits carry their own."""
    reasons = {
        "rate": "how far a fitted slope may be off, stated with the claim",
        "mean": "standard errors, stated with the claim",
        "limit": "a point near the limit is not the limit",
    }
    excess, distance = float(np.asarray(found.excess)[worst]), float(np.asarray(found.gap)[worst])
    if word not in reasons or not 0 < excess < np.inf:
        return allowed.rtol, reasons.get(word, allowed.why)
    return float(f"{distance / excess:.6g}"), reasons[word]


def _sides(relation: Relation) -> tuple[Any, Any]:
    """The two sides as arrays; None for what is no number."""
    if relation.word == "rate":
        x, y, exponent, _ = next(duty.values for duty in relation.duties if duty.kind == "slope")
        u, v = jnp.log(x), jnp.log(jnp.abs(y))
        u = u - jnp.mean(u)
        return jnp.sum(u * v) / jnp.sum(u * u), jnp.asarray(exponent, float)
    return tuple(  # type: ignore[return-value]
        None if callable(side) or isinstance(side, str) else jnp.asarray(side, float)
        for side in (relation.lhs, relation.rhs)
    )


def _rates(relation: Relation) -> Iterator[tuple[Any, Any]]:
    """Each quantity of a claim on dynamics, and its rate: the first equality since the one before."""
    rate: Any = None
    for kind, values in relation.duties:
        if kind == "zero" and rate is None:
            rate = jnp.asarray(values[1], float)
        elif kind == "state":
            quantity = jnp.asarray(values[0], float)
            yield quantity, jnp.broadcast_to(rate, quantity.shape)
            rate = None


def _shown(lhs: Any, rhs: Any, allowed: Tolerance, word: str) -> tuple[float | None, float | None]:
    """The first of the components with the largest gap, as numbers."""
    if lhs is None or rhs is None:
        return (None, float(rhs) if rhs is not None and np.ndim(rhs) == 0 else None)
    lhs, rhs = np.broadcast_arrays(lhs, rhs)
    at = np.unravel_index(np.argmax(_rank(_excess(lhs, rhs, allowed, word))), lhs.shape)
    return float(lhs[at]), float(rhs[at])


def _excess(lhs: Any, rhs: Any, allowed: Tolerance, word: str) -> Any:
    """Gaps in tolerances, elementwise; a bound is violated from above only. NaN is infinite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.maximum(lhs - rhs, 0) if word == "bound" else np.abs(lhs - rhs)
        excess = np.where((lhs == rhs) | (distance == 0), 0.0, distance / allowed.limit(lhs, rhs))
    return np.where(np.isnan(excess), np.inf, excess)


def _sides_compared(theorem: Theorem, lhs: Any, rhs: Any, allowed: Tolerance, over: str) -> Check:
    lhs, rhs = np.broadcast_arrays(lhs, rhs)
    unit = max(allowed.rtol, allowed.atol)
    if not lhs.size:
        return _vacuous(theorem, unit, "nothing was measured")
    word = word_of(theorem)
    largest = float(np.max(_excess(lhs, rhs, allowed, word)))
    largest_gap = largest * unit if unit else float(np.max(np.abs(lhs - rhs)))
    shown = _shown(lhs, rhs, allowed, word)
    return Check(theorem, *shown, largest_gap, unit, allowed.why, largest <= 1, over)
