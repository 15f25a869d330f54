"""Newton's method for one convex function and one linear functional, written for one programme: callers ``vmap``.

``expand(u)`` gives value, gradient (d,) and Hessian (d, d) of a convex function of the displacement u (d,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sandbox.linear import solve

Expand = Callable[[Array], tuple[Array, Array, Array]]
STAGES = (1, 4, 16, 64)  # of the continuation, tried in this order
STEPS = 12  # of Newton a stage: it converges quadratically, eight are enough unless it diverges


class Extreme(NamedTuple):
    """Where v.u is largest on a level set: displacement (d,), multiplier, relative residual before the last step."""

    u: Array
    tau: Array
    residual: Array


def rounding() -> float:
    """The relative error of one operation."""
    return float(jnp.finfo(jnp.result_type(float)).eps)


def extreme(expand: Expand, hessian: Array, v: Array, epsilon: Array) -> Extreme:
    """Maximise v.u where the function is at most epsilon; it and its gradient are 0 at u = 0.

    hessian: that at 0. Newton on the conditions gradient = tau v, value = epsilon, from the maximum of the quadratic
    model. Where that diverges, epsilon is reached in more and more stages, (k / K)^2 of it at stage k, each from the
    one before.
    """
    r = solve(hessian, v)
    s = v @ r

    def begin(attempt: Any) -> _State:
        stages = jnp.asarray(STAGES, s.dtype)[attempt]
        tau = jnp.sqrt(2 * epsilon / s) / stages
        return _State(attempt, stages, jnp.ones_like(s), 0, tau * r, tau, jnp.full_like(s, jnp.inf), False)

    def step(now: _State) -> _State:
        level = epsilon * (now.stage / now.stages) ** 2
        value, gradient, curvature = expand(now.u)
        a, b = solve(curvature, jnp.stack([v, gradient]))
        off = jnp.max(jnp.abs(gradient - now.tau * v)) / (now.tau * jnp.max(jnp.abs(v)))
        residual = jnp.abs(value / level - 1) + off
        tau = (gradient @ b - (value - level)) / (gradient @ a)
        stalls = (residual <= rounding() ** (1 / 3)) & (residual > now.residual / 4)  # rounding keeps it from falling
        close = (residual <= rounding() ** 0.5) | stalls  # the step that follows leaves about its square
        solved = close & (now.stage >= now.stages)
        farther = jnp.where(close & ~solved, 1 + 1 / now.stage, 1)  # to the start of the next stage
        moved = _State(
            now.attempt, now.stages, now.stage + (close & ~solved), jnp.where(close, 0, now.steps + 1),
            farther * (now.u + tau * a - b), farther * tau, residual, solved,
        )  # fmt: skip
        lost = ~close & (now.steps + 1 >= STEPS)
        anew = lost & (now.attempt + 1 < len(STAGES))
        again = begin(jnp.minimum(now.attempt + 1, len(STAGES) - 1))
        chosen = jax.tree.map(lambda x, y: jnp.where(anew, x, y), again, moved)
        return chosen._replace(attempt=now.attempt + lost)

    def unsolved(now: _State) -> Array:
        return ~now.solved & (now.attempt < len(STAGES))

    start = jax.tree.map(jnp.asarray, begin(0))
    return Extreme(*jax.lax.while_loop(unsolved, step, start)[4:7])


class _State(NamedTuple):
    """Where the continuation is: ``stage`` of ``stages`` in its attempt, steps taken in the stage, the iterate."""

    attempt: Any
    stages: Any
    stage: Any
    steps: Any
    u: Any
    tau: Any
    residual: Any
    solved: Any


def least(expand: Expand, start: Array, v: Array | None = None, steps: int = 40) -> Array:
    """Minimise by damped Newton from ``start``; with v, among the u that have the v.u of the start."""

    enough = rounding() ** (1.5 if v is None else 1)  # a value is rounding then; a gradient needs more

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        n, _, decrement = state
        return (n < steps) & (decrement > enough)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        n, u, _ = state
        value, gradient, curvature = expand(u)
        if v is None:
            move = -solve(curvature, gradient)
        else:
            a, b = solve(curvature, jnp.stack([v, gradient]))
            move = (v @ b) / (v @ a) * a - b
        decrement = -(gradient @ move)
        room = 1e4 * rounding() * (1 + jnp.abs(value))  # a rise that rounding explains

        def too_far(scale: Array) -> Array:
            return (expand(u + scale * move)[0] > value - 1e-4 * scale * decrement + room) & (scale > 1e-4)

        scale = jax.lax.while_loop(too_far, lambda scale: scale / 2, jnp.ones_like(value))
        return n + 1, u + scale * move, decrement

    return jax.lax.while_loop(unfinished, step, (jnp.asarray(0), start, jnp.full_like(start[0], jnp.inf)))[1]


def scaled_to(value: Callable[[Array], Any], u: Array, epsilon: Array, steps: int = 12) -> Array:
    """The displacement along u at which a convex function, 0 at 0, reaches epsilon: never beyond it.

    Newton on the square root, which is almost linear. What remains is pulled back: f(c u) <= c f(u) for 0 <= c <= 1.
    """

    def step(_: int, scale: Array) -> Array:
        f, slope = jax.jvp(lambda c: value(c * u), (scale,), (jnp.ones_like(scale),))
        root = jnp.sqrt(f)
        return jnp.clip(scale - (root - jnp.sqrt(epsilon)) * 2 * root / slope, scale / 4, scale * 4)

    start = jnp.sqrt(epsilon / value(u * 1e-3)) * 1e-3
    scale = jax.lax.fori_loop(0, steps, step, start)
    return scale * jnp.minimum(1, epsilon / value(scale * u)) * u
