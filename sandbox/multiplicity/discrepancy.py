"""Discrepancy: the largest share of the risks that ONE near-optimal model moves, from below and from above.

Counting makes it a mixed-integer problem. From below: the extremal models of every row, and a search over directions,
which suffices since conflicts only ever switch on along a ray from the baseline. From above: Pinsker's bound, a
knapsack, and a mixed-integer programme whose convex constraint is replaced by tangents.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import Bounds, LinearConstraint, milp

from sandbox.multiplicity._newton import scaled_to
from sandbox.multiplicity.baseline import Baseline, excess, expansion
from sandbox.multiplicity.formulas import pinsker_cost, universal_bound
from sandbox.multiplicity.ranges import CHUNK, Ranges, ambiguity, in_chunks
from sandbox.validate import in_range, positive

__all__ = ["Discrepancy", "conflicts", "directions", "discrepancy", "knapsack", "sphere", "trial_models"]

SLACK = 1e-6  # of epsilon: how far a tangent model may leave the level set before another tangent is added
ROUNDS = 30  # of tangents, at most
ROUND = 1e-6  # of a count: what the integer programme's bound may be off by


class Discrepancy(NamedTuple):
    """lower: a share that the model with displacement ``u`` (d,) moves; upper: no model of the set moves more.

    Shares of the examples. They are equal where the problem was solved.
    """

    lower: float
    upper: float
    u: np.ndarray


def conflicts(baseline: Baseline, u: Any, delta: Any) -> Array:
    """The share of the risks that each model w + u, u (k, d), moves by delta or more; (k,)."""

    def one(u: Array) -> Array:
        moved = jnp.abs(jax.nn.sigmoid(baseline.logits + baseline.x @ u) - baseline.risk)
        return baseline.weight @ (moved >= delta)

    return in_chunks(one, jnp.asarray(u), max(8, CHUNK // baseline.x.shape[0]))


def sphere(key: Array, count: int, d: int) -> Array:
    """Directions (count, d): random, or, in the plane, spread evenly over the circle."""
    if d == 2:
        angle = 2 * jnp.pi * jnp.arange(count) / count
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    z = jax.random.normal(key, (count, d))
    return z / jnp.linalg.norm(z, axis=1, keepdims=True)


def directions(baseline: Baseline, epsilon: Any, z: Array) -> Array:
    """Models u (k, d) on the boundary of the level set, in the directions z (k, d) of a space where it is almost round.

    Their loss is epsilon above the baseline's, up to rounding, and never more.
    """
    factor = jnp.linalg.cholesky(baseline.hessian)
    u = jax.scipy.linalg.solve_triangular(factor, z.T, lower=True, trans=1).T
    epsilon = jnp.asarray(epsilon, baseline.x.dtype)
    to_boundary = partial(scaled_to, lambda u: excess(baseline, u))
    return in_chunks(lambda u: to_boundary(u, epsilon), u, max(8, CHUNK // baseline.x.shape[0]))


def costs(baseline: Baseline, found: Ranges, delta: Any) -> Array:
    """The least KL (n,) for which each risk moves by delta, nats; infinite where no model of the set does it."""
    p = baseline.risk
    best = jnp.full(p.shape, jnp.inf)
    for sign, end in ((1, found.high_outer), (-1, found.low_outer)):
        q = p + sign * delta
        within = (q > 0) & (q < 1) & (sign * (jax.nn.sigmoid(end) - q) >= 0)
        best = jnp.minimum(best, jnp.where(within, pinsker_cost(p, jnp.where(within, q, 0.5)), jnp.inf))
    return best


def knapsack(baseline: Baseline, found: Ranges, epsilon: Any, delta: Any, count: int) -> Array:
    """Upper bound of the discrepancy: the largest set of risks whose costs fit into the budget epsilon.

    The mean of the KLs is at most epsilon, and a risk that moves by delta costs at least ``costs``: the cheapest first.
    count: number of examples; the bound is a whole number of them, as a share.
    """
    cost = costs(baseline, found, delta)
    order = jnp.argsort(cost)
    cost, weight = cost[order], baseline.weight[order]
    spent = jnp.cumsum(jnp.where(jnp.isfinite(cost), cost * weight, jnp.inf))
    before = jnp.concatenate([jnp.zeros_like(spent[:1]), spent[:-1]])
    part = jnp.where(jnp.isfinite(cost), (epsilon - before) / cost, 0)  # merged rows may fit in part
    share = jnp.sum(jnp.where(spent <= epsilon, weight, jnp.clip(part, 0, weight)))
    return jnp.floor(share * count + ROUND) / count


def discrepancy(
    baseline: Baseline, found: Ranges, epsilon: Any, delta: float, *, key: Array, count: int | None = None,
    searched: int = 2000, nodes: int = 0,
) -> Discrepancy:  # fmt: skip
    """Bounds of the discrepancy at delta over the level set of epsilon, whose ranges are ``found``.

    count: number of examples, by default that of the rows. searched: directions tried. nodes: branch-and-bound nodes
    for each integer programme, 0 for none (a limit of time would make the answer the machine's).
    Raises ValueError unless 0 < delta < 1 and epsilon > 0.
    """
    in_range("delta", delta, 0, 1, "()")
    epsilon = float(positive("epsilon", epsilon))
    count = baseline.x.shape[0] if count is None else count
    lower, u = _search(baseline, found, epsilon, delta, sphere(key, searched, baseline.w.size))
    best, model = _whole(lower, count), np.asarray(u)
    reach = float(np.asarray(ambiguity(baseline, found, delta, outer=True)) @ np.asarray(baseline.weight))
    upper = min(reach, universal_bound(epsilon, delta), float(knapsack(baseline, found, epsilon, delta, count)))
    upper = max(np.floor(upper * count + ROUND) / count, best)
    if nodes > 0 and upper > best:
        return _integer_programme(baseline, found, epsilon, delta, count, nodes, Discrepancy(best, upper, model))
    return Discrepancy(best, float(upper), model)


def trial_models(baseline: Baseline, found: Ranges, epsilon: Any, z: Array) -> Array:
    """Models (2 m + k, d) among which the most conflicts are looked for: the extremal ones, and directions z."""
    return jnp.concatenate([found.u_low, found.u_high, directions(baseline, epsilon, z)])


@jax.jit
def _search(baseline: Baseline, found: Ranges, epsilon: Any, delta: Any, z: Array) -> tuple[Array, Array]:
    models = trial_models(baseline, found, epsilon, z)
    share = conflicts(baseline, models, delta)
    best = jnp.argmax(share)
    return share[best], models[best]


# -- the mixed-integer programme ---------------------------------------------------------------------------------------


def _integer_programme(
    baseline: Baseline, found: Ranges, epsilon: float, delta: float, count: int, nodes: int, known: Discrepancy
) -> Discrepancy:
    """Tighten known bounds: maximise the number of conflicts, the level set replaced by its tangents.

    Every solution lies in a larger set, so its optimum is an upper bound. It is pulled back into the set, its conflicts
    are counted again, exactly, and a tangent is added where it left the set.
    """
    x, weight = np.asarray(baseline.x, float), np.asarray(baseline.weight, float)
    t0, p = np.asarray(baseline.logits, float), np.asarray(baseline.risk, float)
    value_and_gradient = jax.jit(lambda u: expansion(baseline)(u)[:2])
    cuts, best, upper = [], known, known.upper
    for u in np.unique(np.concatenate([found.u_low, found.u_high, known.u[None]]).round(12), axis=0):
        cuts.append(_tangent(value_and_gradient, u, epsilon))
    rows, low, high, gain = _switches(x, weight, t0, p, found, delta)
    d, switches = x.shape[1], gain.size
    for _ in range(ROUNDS):
        tangents = np.array([g for g, _ in cuts]), np.array([c for _, c in cuts])
        solved = milp(
            np.concatenate([np.zeros(d), -gain]),
            constraints=[
                LinearConstraint(rows, low, high),
                LinearConstraint(np.pad(tangents[0], ((0, 0), (0, switches))), -np.inf, tangents[1]),
            ],
            integrality=np.concatenate([np.zeros(d), np.ones(switches)]),
            bounds=Bounds(np.r_[np.full(d, -np.inf), np.zeros(switches)], np.r_[np.full(d, np.inf), np.ones(switches)]),
            options={"node_limit": nodes, "mip_rel_gap": 0.0},
        )
        if solved.mip_dual_bound is not None and np.isfinite(solved.mip_dual_bound):
            upper = min(upper, np.floor(-solved.mip_dual_bound * count + ROUND) / count)
        if solved.x is None:
            break
        u = solved.x[:d]
        value = float(value_and_gradient(jnp.asarray(u))[0])
        inside = u * min(1.0, epsilon / value) if value > 0 else u
        share = _whole(conflicts(baseline, inside[None], delta)[0], count)
        if share > best.lower:
            best = Discrepancy(share, upper, inside)
        if upper <= best.lower + ROUND / count or solved.status != 0 or value <= epsilon * (1 + SLACK):
            break
        cuts.append(_tangent(value_and_gradient, u, epsilon))
    return Discrepancy(best.lower, float(max(upper, best.lower)), best.u)


def _whole(share: Any, count: int) -> float:
    """A sum of weights as the number of examples that it is, over all of them."""
    return round(float(share) * count) / count


def _tangent(value_and_gradient: Any, u: np.ndarray, epsilon: float) -> tuple[np.ndarray, float]:
    """The tangent g.(u' - u) <= epsilon - value at u, as the row g and its limit, in units of its length."""
    value, gradient = (np.asarray(part) for part in value_and_gradient(jnp.asarray(u)))
    length = np.linalg.norm(gradient) or 1.0
    return gradient / length, float((epsilon - value + gradient @ u) / length)


def _switches(
    x: np.ndarray, weight: np.ndarray, t0: np.ndarray, p: np.ndarray, found: Ranges, delta: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A binary for each conflict that is within reach: on, it forces the logit beyond delta; off, nothing.

    x_i.u >= least + (needed - least) b with the exact ends as ``least``: the tightest such constraint.
    Both of one row cannot be on, since they ask for risks on either side.
    """
    ends = np.asarray(found.low_outer) - t0, np.asarray(found.high_outer) - t0
    made = []
    for sign in (1, -1):
        q = p + sign * delta
        open_ = (q > 0) & (q < 1)
        inside = np.where(open_, q, 0.5)
        needed = np.log(inside) - np.log1p(-inside) - t0
        far, near = (ends[1], ends[0]) if sign > 0 else (-ends[0], -ends[1])
        made += [(i, sign, near[i], sign * needed[i]) for i in np.flatnonzero(open_ & (far >= sign * needed))]
    rows = np.zeros((len(made), x.shape[1] + len(made)))
    low = np.zeros(len(made))
    for k, (i, sign, near, needed) in enumerate(made):
        rows[k, : x.shape[1]], rows[k, x.shape[1] + k], low[k] = sign * x[i], near - needed, near
    return rows, low, np.full(len(made), np.inf), np.array([weight[i] for i, *_ in made])
