"""Pushing one response down: who gains what it loses, in one step and along the whole path.

A step of gradient ascent on the loss of a response moves the logits by s (p - e), p the law of the softmax before it, e
the one-hot vector of the rejected response, s > 0 the impulse: learning rate times the squared norm of the features
times the weight of the loss, in nats of logit. Probabilities of *others*, all but the rejected, are multiplied by
e^(s (p_i - T)): those above the threshold T rise. The flow dz/dt = p - e has a closed form in a parameter tau, which is
0 at the start, below 1 / max of the others, and negative where the response is pulled up instead.

The first two parts are written in the words of ``sandbox.algebra``: laws p (..., V) of V responses, ``rejected`` (...)
an index. The last takes arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from sandbox.algebra import arrays_only, dot, exp, log, logsumexp, onehot, softmax, total
from sandbox.policies import residual

__all__ = [
    "Squeeze", "critical_kernel", "flow_law", "flow_logits", "flow_pace", "flow_parameter", "flow_time",
    "kernel_ratio", "log_normaliser", "majority_bound", "push_down", "small_threshold", "squeeze", "threshold",
    "time_to_flat",
]  # fmt: skip


# -- one step ----------------------------------------------------------------------------------------------------------


def push_down(logits: Any, rejected: Any, impulse: Any) -> Any:
    """Logits (..., V) after one step against the rejected response: logits + s (softmax(logits) - onehot)."""
    return logits - impulse * residual(rejected, softmax(logits))


def log_normaliser(p: Any, rejected: Any, impulse: Any) -> Any:
    """psi(s) = log E_p exp(s g), g = p - onehot(rejected): by how much the step raises logsumexp of the logits."""
    return logsumexp(log(p) - impulse * residual(rejected, p))


def threshold(p: Any, rejected: Any, impulse: Any) -> Any:
    """T(s) = psi(s) / s: of the others exactly those with p_i > T rise in a step of impulse s > 0."""
    return log_normaliser(p, rejected, impulse) / impulse


def small_threshold(p: Any, rejected: Any) -> Any:
    """The threshold of an infinitesimal step, |p|^2 - p_rejected, between -1/4 and 1."""
    return dot(p, p) - dot(p, onehot(rejected, p))


def majority_bound(share: Any) -> Any:
    """Only the top of the others rises, at any impulse, if the rejected response is less likely than this.

    share: the probability of the top among the others; up to 1/2 the bound is not above 0, and nothing is rarer.
    """
    return share * (2 * share - 1) / (2 * (1 - share + share**2))


# -- the path ----------------------------------------------------------------------------------------------------------


def flow_logits(p: Any, rejected: Any, tau: Any) -> Any:
    """Logits (..., V) of the flow dz/dt = softmax(z) - onehot(rejected) from the law p, at the parameter tau.

    log p_i - log(1 - tau p_i) of the others, log p + total of their log(1 - tau p_i) of the rejected; tau p_i < 1.
    """
    others = 1 - onehot(rejected, p)
    kept = log(1 - tau * p * others) * others
    whole = total(kept)
    return log(p) - kept + (whole[..., None] if getattr(whole, "shape", ()) else whole) * onehot(rejected, p)


def flow_law(p: Any, rejected: Any, tau: Any) -> Any:
    """The law (..., V) of those logits."""
    return softmax(flow_logits(p, rejected, tau))


def flow_pace(p: Any, rejected: Any, tau: Any) -> Any:
    """dt / dtau > 0 on that path: the normaliser, total of e^logits."""
    return exp(logsumexp(flow_logits(p, rejected, tau)))


# -- two contexts ------------------------------------------------------------------------------------------------------


def kernel_ratio(p: Any, chosen: Any, q: Any, rejected: Any, kernel: Any) -> Any:
    """Q = kernel (e - p)(e' - q) / |e - p|^2: to first order the chosen response falls exactly if Q > 1.

    p and q are the laws after the contexts of the chosen and of the rejected token, e and e' the tokens, ``kernel`` the
    features' inner product over the squared norm of the first. The ratios of several rejected tokens add.
    """
    up = residual(chosen, p)
    return kernel * dot(up, residual(rejected, q)) / dot(up, up)


def critical_kernel(p: Any, chosen: Any, rejected: Any) -> Any:
    """The kernel above which the chosen falls if the two contexts have the same law p: above 1 where it exists.

    It exists, as a positive number, where |p|^2 > p_chosen + p_rejected; elsewhere no kernel > 0 lowers the chosen.
    """
    square, up, down = dot(p, p), dot(p, onehot(chosen, p)), dot(p, onehot(rejected, p))
    return (1 - 2 * up + square) / (square - up - down)


# -- arrays ------------------------------------------------------------------------------------------------------------


class Squeeze(NamedTuple):
    """What a step against the rejected response does to each of N laws: arrays (N,), but ``rises`` (N, V)."""

    rejected: Array
    """Probability of the rejected response, before."""
    threshold: Array
    small_threshold: Array
    rises: Array
    """Which of the responses gain."""
    receiver: Array
    """The response that gains most, the most likely of the others."""
    gain: Array
    """By how much its probability rises."""
    majority: Array
    """Does the majority rule say that it alone gains, whatever the impulse?"""
    paid_by_rejected: Array
    """Probability that the rejected response loses."""
    paid_by_innocents: Array
    """Probability that all others that fall lose."""


@jax.jit
def squeeze(logits: Array, rejected: Array, impulse: Any) -> Squeeze:
    """One step from each row of ``logits`` (N, V), V > 2, against ``rejected`` (N,), integers.

    ``impulse``: one number > 0, or one a row (N,).
    """
    impulse = jnp.broadcast_to(jnp.asarray(impulse, logits.dtype), rejected.shape)
    log_p = jax.nn.log_softmax(logits)
    p, is_rejected = jnp.exp(log_p), onehot(rejected, logits)
    g = p - is_rejected
    psi = logsumexp(log_p + impulse[:, None] * g)  # not through log(p), which may be -inf in a large vocabulary
    change = p * jnp.expm1(impulse[:, None] * g - psi[:, None])
    mass = jnp.sum(p * is_rejected, axis=1)
    others = jnp.where(is_rejected > 0, 0, p)
    top = jnp.argmax(others, axis=1)
    rest = jnp.sum(others, axis=1)
    share = jnp.max(others, axis=1) / rest
    paid = jnp.sum(jnp.where((is_rejected == 0) & (change < 0), -change, 0), axis=1)
    return Squeeze(
        rejected=mass,
        threshold=psi / impulse,
        small_threshold=jnp.sum(p * g, axis=1),
        rises=(p > (psi / impulse)[:, None]) & (is_rejected == 0),
        receiver=top,
        gain=jnp.take_along_axis(change, top[:, None], axis=1)[:, 0],
        majority=mass < majority_bound(share),
        paid_by_rejected=-jnp.sum(change * is_rejected, axis=1),
        paid_by_innocents=paid,
    )


NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)


def flow_time(p: Any, rejected: Any, tau: Any) -> Array:
    """The time at which the flow from the law p (V,) is at tau (one number), by quadrature of ``flow_pace``.

    -total of log(1 - tau p_i) over the others + p_rejected times the integral of the product of (1 - u p_i), u from 0
    to tau; 20 Gauss-Legendre nodes, which leave rounding only while that product is smooth, as below 1 / max p.
    """
    arrays_only("quadrature")
    others = p * (1 - onehot(rejected, p))
    u = tau * (1 + jnp.asarray(NODES, p.dtype)) / 2
    product = jnp.exp(jnp.sum(jnp.log1p(-u[:, None] * others[None, :]), axis=1))
    integral = tau / 2 * jnp.sum(jnp.asarray(WEIGHTS, p.dtype) * product)
    return -jnp.sum(jnp.log1p(-tau * others)) + jnp.sum(p * onehot(rejected, p)) * integral


@jax.jit
def flow_parameter(p: Array, rejected: Any, time: Any) -> Array:
    """The tau that the flow from the law p (V,) reaches at a time of either sign, by bisection and Newton's method."""
    others = p * (1 - onehot(rejected, p))
    end = 1 / jnp.max(others)
    # for time > 0 tau lies in (0, end); for time < 0 it is finite, because time <= tau p_rejected
    low = jnp.where(time < 0, -1.0, 0.0).astype(p.dtype)
    low = lax.while_loop(lambda x: flow_time(p, rejected, x) > time, lambda x: 2 * x, low)
    high = jnp.where(time < 0, 0.0, end).astype(p.dtype)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        early = flow_time(p, rejected, middle) < time
        return jnp.where(early, middle, ends[0]), jnp.where(early, ends[1], middle)

    return jnp.mean(jnp.stack(lax.fori_loop(0, 60, halve, (low, high))))


@jax.jit
def time_to_flat(p: Array, rejected: Any) -> Array:
    """How long the rejected response must be pulled up from the law p (V,) until no other loses when it is pushed down.

    The time of that flow (learning rate times steps) at which ``small_threshold`` is 0; 0 where it is not above 0, and
    infinite for a rejected response whose probability underflows.
    """

    def above(tau: Array) -> Array:
        return small_threshold(flow_law(p, rejected, tau), rejected) > 0

    first = lax.while_loop(lambda tau: above(tau) & (tau > -1e30), lambda tau: 2 * tau, jnp.asarray(-1.0, p.dtype))

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        up = above(middle)
        return jnp.where(up, ends[0], middle), jnp.where(up, middle, ends[1])

    ends = lax.fori_loop(0, 50, halve, (first, jnp.zeros_like(first)))
    found = -flow_time(p, rejected, jnp.mean(jnp.stack(ends)))
    found = jnp.where(dot(p, onehot(rejected, p)) > 0, found, jnp.inf)
    return jnp.where(above(jnp.zeros_like(first)), found, 0.0)
