"""What a claim is made of: its source, the domains of its arguments, and the relation that it asserts.

A theorem is a function whose body is the claim, written in the words of ``sandbox.algebra``:

    @theorem(Source("someone2024", "Thm 1"), r"a - 2c \\ge 0", p=Simplex("V"), w=Index("V"), l=Index("V"))
    def factor_two(p, w, l):
        "One tabular token: the inner product is at most half of either squared norm."
        g = lambda y: onehot(y, p) - p
        return AtMost(2 * dot(g(w), g(l)), dot(g(w), g(w)), slack=1 - dot(p, p) + 2 * p[l])

Called with symbols it is proved, with arrays tested, along a run measured, on a grid drawn. The left side is built from
``sandbox`` functions, the right side from the arguments. Assumptions are part of the statement: either the domains
cannot leave them, or ``Given`` names them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sandbox.algebra import along, grad, velocity
from theory._domains import (
    Below,
    Domain,
    Index,
    Logits,
    Moderate,
    Negative,
    NonZeros,
    Positive,
    Positives,
    Real,
    Reals,
    Simplex,
    Unit,
    Units,
)

__all__ = [
    "All", "Arch", "AtMost", "Below", "Bowl", "Conserved", "Domain", "Duty", "Equal", "Gap", "Given", "Grows", "Index",
    "LargestIs", "Logits", "Mean", "Moderate", "Negative", "NonNegative", "NonZeros", "Positive", "Positives", "Rate",
    "Real", "Reals", "Relation", "SameSign", "Simplex", "Source", "Tends", "Theorem", "Unit", "Units", "arguments",
    "axes_of", "gap", "index_names", "shapes", "sizes_for", "theorem",
]  # fmt: skip

# -- sources -----------------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """Where a claim stands: a key of ``papers.bib`` and the place there ("Thm 1, eq. 4"); ours says "ours"."""

    key: str
    place: str

    def __str__(self) -> str:
        return f"{self.key}, {self.place}"


# -- relations: what is asserted, as a list of duties ------------------------------------------------------------------


class Duty(NamedTuple):
    """One thing to show. Prover, tester, planter and runs know only these kinds:

    zero (a, b): a = b. nonneg (x): x >= 0. positive (x): x > 0. between (f, a, b): f >= 0 from a to b.
    implied (x): x >= 0 follows from the others (tested, not proved again).
    premise (x): assumed, x >= 0. tends (f, point, limit). slope (x, y, exponent, within): log y against log x.
    mean (samples, value, errors): within that many standard errors. state (q): constant along a run.
    """

    kind: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Relation:
    """A claim at given arguments: ``lhs`` and ``rhs`` are its two sides, ``duties`` what there is to show."""

    word: str
    lhs: Any
    rhs: Any
    duties: tuple[Duty, ...]


def Equal(lhs: Any, rhs: Any) -> Relation:
    """lhs = rhs, numbers or arrays."""
    return Relation("equality", lhs, rhs, (Duty("zero", (lhs, rhs)),))


def AtMost(lhs: Any, rhs: Any, slack: Any = None) -> Relation:
    """lhs <= rhs, because rhs - lhs = slack and slack is manifestly never negative.

    Without a slack, rhs - lhs must be manifestly so itself.
    """
    if slack is None:
        return Relation("bound", lhs, rhs, (Duty("nonneg", (rhs - lhs,)),))
    duties = (Duty("zero", (rhs - lhs, slack)), Duty("nonneg", (slack,)), Duty("implied", (rhs - lhs,)))
    return Relation("bound", lhs, rhs, duties)


def SameSign(a: Any, b: Any, factor: Any) -> Relation:
    """a > 0 iff b > 0 (and a = 0 iff b = 0), because a = factor * b with factor > 0."""
    return Relation("equivalence", a, factor * b, (Duty("zero", (a, factor * b)), Duty("positive", (factor,))))


def NonNegative(x: Any) -> Relation:
    """x >= 0, by its own form."""
    return Relation("bound", 0, x, (Duty("nonneg", (x,)),))


def Bowl(
    lhs: Callable[[Any], Any],
    rhs: Callable[[Any], Any],
    at: Any,
    bottom: Any,
    factor: Callable[[Any], Any],
) -> Relation:
    """lhs(x) <= rhs(x) at x = ``at``: the gap is 0 at ``bottom`` and its slope is factor(x) * (x - bottom).

    factor: never negative between ``bottom`` and ``at``.
    """

    def gap(x: Any) -> Any:
        return rhs(x) - lhs(x)

    duties = (
        Duty("zero", (gap(bottom), 0)),
        Duty("zero", (grad(gap)(at), factor(at) * (at - bottom))),
        Duty("between", (factor, bottom, at)),
        Duty("implied", (gap(at),)),
    )
    return Relation("bound", lhs(at), rhs(at), duties)


def Arch(
    lhs: Callable[[Any], Any],
    rhs: Callable[[Any], Any],
    at: Any,
    start: Any,
    curvature: Callable[[Any], Any],
) -> Relation:
    """lhs(x) <= rhs(x) at x = ``at``: the gap and its slope are 0 at ``start``, its second derivative is curvature(x).

    curvature: never negative between ``start`` and ``at``.
    """

    def gap(x: Any) -> Any:
        return rhs(x) - lhs(x)

    slope = velocity(gap)
    duties = (
        Duty("zero", (gap(start), 0)),
        Duty("zero", (slope(start), 0)),
        Duty("zero", (velocity(slope)(at), curvature(at))),
        Duty("between", (curvature, start, at)),
        Duty("implied", (gap(at),)),
    )
    return Relation("bound", lhs(at), rhs(at), duties)


def Grows(
    quantity: Callable[[Any], Any], flow: Callable[[Any], Any], *, at: Any, start: Any, by: Any, begins: Any
) -> Relation:
    """Along dz/dt = flow(z) the quantity grows at the rate ``by`` and is ``begins`` at ``start``: begins + by * t."""
    rate = along(quantity, flow)(at)
    duties = (Duty("zero", (rate, by)), Duty("zero", (quantity(start), begins)), Duty("state", (quantity(at),)))
    return Relation("dynamics", rate, by, duties)


def Conserved(quantity: Callable[[Any], Any], flow: Callable[[Any], Any], *, at: Any) -> Relation:
    """Along dz/dt = flow(z) the quantity does not change."""
    rate = along(quantity, flow)(at)
    return Relation("dynamics", rate, 0, (Duty("zero", (rate, 0)), Duty("state", (quantity(at),))))


def LargestIs(values: Any, top: Any, slacks: Any, at: Any) -> Relation:
    """max(values) = top: every value is below by its slack, and one, ``values[at]``, reaches it."""
    duties = (Duty("zero", (top - values, slacks)), Duty("nonneg", (slacks,)), Duty("zero", (values[at], top)))
    return Relation("maximum", values[at], top, duties)


def Tends(f: Callable[[Any], Any], to: Any, limit: Any) -> Relation:
    """f(x) -> limit as x -> ``to`` from above (or as x grows, ``to="oo"``)."""
    return Relation("limit", f, limit, (Duty("tends", (f, to, limit)),))


def Rate(x: Any, y: Any, exponent: Any, within: float) -> Relation:
    """y falls or grows like x^exponent: the slope of log y against log x, arrays only.

    within: how far a fitted slope may be off, with its reason stated beside the claim.
    """
    return Relation("rate", y, exponent, (Duty("slope", (x, y, exponent, within)),))


def Mean(samples: Any, value: Any, errors: float = 4) -> Relation:
    """The mean of independent samples is ``value``, within so many standard errors, arrays only."""
    return Relation("mean", jnp.mean(samples), value, (Duty("mean", (samples, value, errors)),))


def Given(*premises: Any, then: Relation) -> Relation:
    """``then`` wherever every premise is >= 0. How often the premises are met is reported."""
    duties = (*(Duty("premise", (p,)) for p in premises), *then.duties)
    return Relation(then.word, then.lhs, then.rhs, duties)


def All(*relations: Relation) -> Relation:
    """Every one of the relations; the first is shown.

    Raises ValueError if one of them has premises, which would become premises of all: ``Given`` goes outside.
    """
    if any(d.kind == "premise" for r in relations for d in r.duties):
        raise ValueError("All: a relation has premises of its own; put Given around All, or state two theorems")
    first = relations[0]
    return Relation(first.word, first.lhs, first.rhs, tuple(d for r in relations for d in r.duties))


# -- theorems ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Theorem:
    """A claim with its source. Calling it evaluates the claim in the current reading and returns the Relation.

    expect: "proved"; "checked" for what only arrays can show (rates, means); "refuted" for a printed claim that is
    false. witness: for a refuted claim, generators of a counterexample (else one is searched for). instead: for a
    refuted claim, the names of the claims that hold in its place ("NAME.name" for another phenomenon's).
    """

    body: Callable[..., Relation]
    source: Source
    latex: str
    domains: Mapping[str, Domain]
    claim: str = ""
    expect: str = "proved"
    witness: Mapping[str, Any] | None = None
    instead: tuple[str, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Relation:
        """The claim at these arguments, in the current reading."""
        return self.body(*args, **kwargs)

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.body.__name__

    @property
    def statement(self) -> str:
        """The claim in words: the first paragraph of the docstring."""
        return " ".join((inspect.getdoc(self.body) or "").split("\n\n")[0].split())

    @property
    def id(self) -> str:
        """The label in tables: "C6(ii) factor_two"."""
        return f"{self.claim} {self.name}".strip()

    def __repr__(self) -> str:
        return f"Theorem({self.id})"


def theorem(
    source: Source,
    latex: str,
    *,
    claim: str = "",
    expect: str = "proved",
    witness: Mapping[str, Any] | None = None,
    instead: Sequence[str] = (),
    **domains: Domain,
) -> Callable[[Callable[..., Relation]], Theorem]:
    """Make a function a Theorem: one domain for each of its arguments.

    Raises ValueError if arguments and domains do not match, without a docstring, for another ``expect``, or if a claim
    that is not refuted says what holds instead.
    """

    def decorate(body: Callable[..., Relation]) -> Theorem:
        arguments = list(inspect.signature(body).parameters)
        if arguments != list(domains):
            raise ValueError(f"{body.__name__}: arguments {arguments}, domains {list(domains)}; they must be the same")
        if not body.__doc__:
            raise ValueError(f"{body.__name__}: no docstring; its first paragraph is the claim in words")
        if expect not in ("proved", "checked", "refuted"):
            raise ValueError(f"{body.__name__}: expect={expect!r} is none of 'proved', 'checked', 'refuted'")
        if instead and expect != "refuted":
            raise ValueError(f"{body.__name__}: instead={instead!r}: only a refuted claim has others in its place")
        return Theorem(body, source, latex, domains, claim, expect, witness, tuple(instead))

    return decorate


# -- the array reading -------------------------------------------------------------------------------------------------


def axes_of(theorem: Theorem) -> list[str]:
    """The axes of a theorem's arguments, in order of appearance."""
    return list(dict.fromkeys(a for d in theorem.domains.values() for a in d.axes))


def arguments(theorem: Theorem, generators: Mapping[str, Any]) -> dict[str, Any]:
    """Generators (numbers and arrays) to arguments, through each domain's map."""
    return {name: domain.make(generators[name]) for name, domain in theorem.domains.items()}


class Gap(NamedTuple):
    """How far a relation is from holding: holds iff excess <= 1 (gap / tolerance); met: were its premises met?"""

    excess: Any
    gap: Any
    met: Any


def gap(relation: Relation, tolerance: float) -> Gap:
    """The largest gap of a relation's duties on arrays; jit- and vmap-able.

    tolerance: relative, for zero and non-negative duties. Rates, means and limits carry their own. NaN is infinite.
    """
    excess, largest, met = jnp.zeros(()), jnp.zeros(()), jnp.asarray(True)
    for kind, values in relation.duties:
        allowed = tolerance
        if kind in ("premise", "state"):
            if kind == "premise":
                met = met & jnp.all(values[0] >= 0)
            continue
        if kind == "zero":
            a, b = (jnp.asarray(v, jnp.result_type(float)) for v in values)
            distance = jnp.max(jnp.abs(a - b) / (1 + jnp.maximum(jnp.abs(a), jnp.abs(b))))
        elif kind == "positive":
            distance = jnp.where(jnp.all(jnp.asarray(values[0]) > 0), 0.0, jnp.inf)
        elif kind == "between":
            f, a, b = values
            x = jax.vmap(f)(a + (b - a) * jnp.linspace(0, 1, 9))
            distance = jnp.max(jnp.maximum(-x, 0) / (1 + jnp.abs(x)))
        elif kind in ("nonneg", "implied"):
            x = jnp.asarray(values[0], jnp.result_type(float))
            distance = jnp.max(jnp.maximum(-x, 0) / (1 + jnp.abs(x)))
        elif kind == "tends":
            distance, allowed = _approach(*values), 1e-6  # at 1e-8 from the limit, or still closing in on it
        elif kind == "slope":
            distance, allowed = _slope_gap(*values[:3]), values[3]
        elif kind == "mean":
            samples, value, allowed = values
            error = jnp.std(samples, ddof=1) / jnp.sqrt(samples.size)
            distance = jnp.abs(jnp.mean(samples) - value) / error
        else:
            raise ValueError(f"no duty is called {kind!r}")
        distance = jnp.where(jnp.isnan(distance), jnp.inf, distance)
        largest = jnp.where(distance / allowed > excess, distance, largest)
        excess = jnp.maximum(excess, distance / allowed)
    return Gap(excess, largest, met)


def _approach(f: Callable[[Any], Any], to: Any, limit: Any) -> Any:
    """Distance from the limit close to it. An infinite limit is approached where the value doubles and has its sign."""

    def at(decades: float) -> Any:
        return f(10.0**decades if to == "oo" else to + 10.0**-decades)

    far, near = at(4), at(8)
    if isinstance(limit, str):
        sign = 1 if limit == "oo" else -1
        return jnp.where((sign * far > 0) & (sign * near > 2 * sign * far), 0, jnp.inf)
    off = jnp.abs(near - limit)
    return jnp.where(off < jnp.abs(far - limit) / 10, 0, off / (1 + jnp.abs(limit)))


def _slope_gap(x: Any, y: Any, exponent: Any) -> Any:
    u, v = jnp.log(x), jnp.log(jnp.abs(y))
    u, v = u - jnp.mean(u), v - jnp.mean(v)
    return jnp.abs(jnp.sum(u * v) / jnp.sum(u * u) - exponent)


def sizes_for(theorem: Theorem, base: int) -> dict[str, int]:
    """A size for each axis, all different, with room for two elements more than the indices on it."""
    needed = {a: 0 for a in axes_of(theorem)}
    for d in theorem.domains.values():
        if d.kind == "index":
            needed[d.axes[0]] += 1
    return {a: max(base, needed[a] + 2) + n for n, a in enumerate(needed)}


def shapes(theorem: Theorem, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shape of each argument's generators."""
    return {name: () if d.kind == "index" else tuple(sizes[a] for a in d.axes) for name, d in theorem.domains.items()}


def index_names(theorem: Theorem, axis: str, distinct: bool) -> Sequence[str]:
    """The arguments that are indices on an axis."""
    return [n for n, d in theorem.domains.items() if d.kind == "index" and d.axes == (axis,) and d.distinct is distinct]
