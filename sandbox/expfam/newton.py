"""Newton's method for likelihoods, with steps that are cut where the logits would move too far at once.

A likelihood of an exponential family is concave, but it may have no maximum: then the logits grow without end. A fit is
there if the gradient vanishes AND the logits stayed within what the precision can tell from infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sandbox.linear import solve

STEPS = 60
REACH = 2.0  # nats that the logits may spread by in one step


class Fit(NamedTuple):
    """theta (p,); does it exist; the largest element of the gradient (nats a draw); the steps that it took."""

    theta: Array
    exists: Array
    gradient: Array
    steps: Array


def newton(
    derivatives: Callable[[Array], tuple[Array, Array]], spread: Callable[[Array], Array], start: Array,
    steps: int = STEPS,
) -> Fit:  # fmt: skip
    """The minimum of a convex function of theta (p,), by at most ``steps`` steps from ``start``; vmap-able.

    derivatives(theta): gradient (p,) and Hessian (p, p). spread(x): by how many nats the logits of x lie apart, for
    theta and for a step. ``exists`` is false where the logits ran away.
    """
    precision = jnp.finfo(start.dtype).eps
    limit = -jnp.log(16 * precision)  # at a spread of 33 (float64) a probability comes near to being lost in rounding
    small = jnp.sqrt(precision)  # what such a step leaves is its square: rounding

    def more(state: tuple[Array, Array, Array, Array]) -> Array:
        _, change, _, taken = state
        return (change > small) & (taken < steps)

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        theta, _, travelled, taken = state
        gradient, hessian = derivatives(theta)
        direction = solve(hessian, gradient)
        solved = jnp.all(jnp.isfinite(direction))  # a probability that is lost in rounding leaves no curvature
        direction = jnp.where(solved, direction, 0)
        change = spread(direction)
        theta = theta - direction * jnp.minimum(1, REACH / jnp.maximum(change, small))
        travelled = jnp.where(solved, travelled + jnp.minimum(change, REACH), jnp.inf)
        return theta, jnp.where(travelled < 2 * limit, change, 0), travelled, taken + 1

    zero = jnp.zeros((), start.dtype)
    theta, _, travelled, taken = jax.lax.while_loop(more, step, (start, zero + jnp.inf, zero, jnp.asarray(0)))
    gradient = jnp.max(jnp.abs(derivatives(theta)[0]), initial=0)
    flat = gradient <= jnp.sqrt(precision) * (1 + jnp.max(jnp.abs(theta), initial=0))
    return Fit(theta, (travelled < 2 * limit) & (spread(theta) <= limit) & flat, gradient, taken)
