"""Viable prediction ranges: how far can one risk move among the models that fit almost as well as the best?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sandbox.linear import solve
from sandbox.multiplicity._newton import Expand, extreme, least
from sandbox.multiplicity.baseline import Baseline, expansion
from sandbox.multiplicity.formulas import bernoulli_kl
from sandbox.validate import in_range, positive

__all__ = [
    "Ranges", "ambiguity", "candidates", "extremes", "kl_interval", "leverage", "radius", "ranges", "ranges_of",
    "third_derivative",
]  # fmt: skip

CHUNK = 2**15  # numbers of one array (programmes times rows) that are worked on at once: they stay in a cache


class Ranges(NamedTuple):
    """Ends of linear functionals v.(w + u) over a level set, m of them; of logits where v is a row of x.

    low, high (m,): attained, by the displacements u_low, u_high (m, d), which lie in the set. low_outer, high_outer
    (m,): no model of the set goes beyond. tau_low, tau_high (m,): derivative of epsilon by the end, the multipliers.
    residual (m,): the larger of the two relative residuals of the optimality conditions.
    """

    low: Array
    high: Array
    low_outer: Array
    high_outer: Array
    u_low: Array
    u_high: Array
    tau_low: Array
    tau_high: Array
    residual: Array

    @property
    def gap(self) -> Array:
        """Certificate (m,): how much further an end could lie, in the unit of the functional."""
        return jnp.maximum(self.low - self.low_outer, self.high_outer - self.high)


def ranges(baseline: Baseline, epsilon: Any, chunk: int | None = None) -> Ranges:
    """The viable range of each row's logit among the models whose loss is at most the baseline's plus epsilon (nats).

    Raises ValueError unless epsilon > 0.
    """
    return ranges_of(baseline, baseline.x, epsilon, chunk)


def ranges_of(baseline: Baseline, v: Any, epsilon: Any, chunk: int | None = None) -> Ranges:
    """The same for the logits of any people v (m, d), whom the model need not have seen."""
    positive("epsilon", epsilon)
    chunk = max(8, CHUNK // baseline.x.shape[0]) if chunk is None else chunk
    return _ranges(baseline, jnp.asarray(v, baseline.x.dtype), jnp.asarray(epsilon, baseline.x.dtype), chunk)


@partial(jax.jit, static_argnames="chunk")
def _ranges(baseline: Baseline, v: Array, epsilon: Array, chunk: int) -> Ranges:
    reach = jnp.sqrt(jnp.max(leverage(baseline)))
    return extremes(expansion(baseline), baseline.hessian, v, v @ baseline.w, epsilon, reach, chunk)


def extremes(
    expand: Expand, hessian: Array, v: Array, centre: Array, epsilon: Array, reach: Array, chunk: int
) -> Ranges:
    """Ends of v.(w + u), v (m, d), over {u: value <= epsilon}; ``centre`` (m,) is v.w. For use inside ``jit``.

    expand: value, gradient and Hessian at u of a mean of KLs, 0 at u = 0; hessian: that at 0. reach: the largest
    sqrt(x^T H^-1 x) of the logits x.u that the KLs are of (see ``radius``). chunk: programmes solved at once.
    """
    widest = radius(epsilon, reach)

    def one(v: Array) -> tuple[Array, ...]:
        now = extreme(expand, hessian, v, epsilon)
        u = jnp.where(jnp.isfinite(now.u), now.u, 0)
        value, gradient, _ = expand(u)
        share = jnp.minimum(1, epsilon / jnp.maximum(value, epsilon))
        inside = share * u  # convex: a share c of u costs at most c of the value
        # for any u' of the set: epsilon >= value + gradient.(u' - u), and |u' - u| <= radius + radius / c in H's norm
        off = gradient - now.tau * v
        r = solve(hessian, off)
        apart = widest + widest / share
        beyond = (epsilon - value + apart * jnp.sqrt(jnp.maximum(off @ r, 0))) / now.tau + v @ (u - inside)
        beyond = jnp.where((now.tau > 0) & jnp.isfinite(beyond), jnp.maximum(beyond, 0), jnp.inf)
        return v @ inside, beyond, inside, now.tau, now.residual

    m = v.shape[0]
    reached, beyond, u, tau, residual = in_chunks(one, jnp.concatenate([v, -v]), chunk)
    high, low = centre + reached[:m], centre - reached[m:]
    return Ranges(
        low, high, low - beyond[m:], high + beyond[:m], u[m:], u[:m], -tau[m:], tau[:m],
        jnp.maximum(residual[:m], residual[m:]),
    )  # fmt: skip


def in_chunks(one: Callable[[Any], Any], of: Any, chunk: int) -> Any:
    """``one`` of each element of the leading axis of the arrays ``of``, so many at once; the last is filled up."""
    count = jax.tree.leaves(of)[0].shape[0]
    chunk = min(chunk, count)
    whole = -(-count // chunk) * chunk
    filled = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[:1], whole - count, axis=0)]), of)
    return jax.tree.map(lambda x: x[:count], jax.lax.map(one, filled, batch_size=chunk))


def radius(epsilon: Any, reach: Any) -> Array:
    """No model of the level set is further from the baseline than this, in the norm sqrt(u^T H u).

    Each KL is at least p (1 - p) (e^-|a| - 1 + |a|) for a step a of its logit, and |a| <= reach |u|; so the excess is
    at least (e^-b - 1 + b) / reach^2 with b = reach |u|, and b is found by Newton, which descends to it from the right.
    """
    level = jnp.asarray(epsilon) * reach**2

    def step(_: int, b: Array) -> Array:
        return b - (jnp.expm1(-b) + b - level) / -jnp.expm1(-b)

    b = jax.lax.fori_loop(0, 12, step, 1 + level + jnp.sqrt(2 * level))
    return b / reach


def kl_interval(p: Any, budget: Any) -> tuple[Array, Array]:
    """The risks q with KL(p || q) <= budget (nats), their lowest and highest: the range of a group of its own.

    Its budget is epsilon over its share of the examples. By bisection, 0 < p < 1; broadcasts.
    """
    p, budget = jnp.broadcast_arrays(*(jnp.asarray(a, jnp.result_type(float)) for a in (p, budget)))
    logit = jnp.log(p) - jnp.log1p(-p)

    def end(sign: int) -> Array:
        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            inside, outside = ends
            middle = (inside + outside) / 2
            fits = bernoulli_kl(logit, logit + sign * middle) <= budget
            return jnp.where(fits, middle, inside), jnp.where(fits, outside, middle)

        far = (budget + 1) / jnp.minimum(p, 1 - p) + 1
        return jax.nn.sigmoid(logit + sign * jax.lax.fori_loop(0, 70, halve, (0 * far, far))[0])

    return end(-1), end(1)


def leverage(baseline: Baseline) -> Array:
    """s_i = x_i^T H^-1 x_i (n,): the viable half-width of a logit is about sqrt(2 epsilon s_i)."""
    solved = solve(baseline.hessian, baseline.x)
    return jnp.sum(baseline.x * solved, axis=1)


def third_derivative(baseline: Baseline) -> Array:
    """kappa_i (n,): third derivative of the loss along H^-1 x_i / s_i, along which the logit of i grows by one."""
    u = solve(baseline.hessian, baseline.x) / leverage(baseline)[:, None]
    p = baseline.risk
    return (u @ baseline.x.T) ** 3 @ (baseline.weight * p * (1 - p) * (1 - 2 * p))


def ambiguity(baseline: Baseline, found: Ranges, delta: Any, outer: bool = False) -> Array:
    """Which risks (n,) some model of the level set moves by delta or more. bool.

    outer: take the ends that none goes beyond instead of those attained; where the two answers agree they are certain.
    Raises ValueError unless 0 < delta < 1.
    """
    in_range("delta", delta, 0, 1, "()")
    low, high = (found.low_outer, found.high_outer) if outer else (found.low, found.high)
    p = baseline.risk
    return (jax.nn.sigmoid(high) - p >= delta) | (p - jax.nn.sigmoid(low) >= delta)


def candidates(baseline: Baseline, logits: Any, chunk: int | None = None) -> Array:
    """The least excess (n, k) with which a model gives row i the logit ``logits[i, k]``: the paper's candidate models.

    It is convex in the logit; a risk is viable exactly if its excess is at most epsilon. Another algorithm than
    ``ranges``: damped Newton on the plane of models with that logit, 15 steps, which leave rounding where the excess is
    below a nat or so, and else a value that is too large by a millionth. Watson-Daniels et al. 2023, arXiv:2206.01131.
    """
    chunk = max(8, CHUNK // baseline.x.shape[0]) if chunk is None else chunk
    return _candidates(baseline, jnp.asarray(logits, baseline.x.dtype), chunk)


@partial(jax.jit, static_argnames="chunk")
def _candidates(baseline: Baseline, logits: Array, chunk: int) -> Array:
    expand: Callable[[Array], Any] = expansion(baseline)

    def one(asked: tuple[Array, Array]) -> Array:
        v, step = asked
        r = solve(baseline.hessian, v)
        return expand(least(expand, step / (v @ r) * r, v, steps=15))[0]

    steps = logits - baseline.logits[:, None]
    rows = jnp.repeat(baseline.x, logits.shape[1], axis=0)
    return in_chunks(one, (rows, steps.reshape(-1)), chunk).reshape(logits.shape)
