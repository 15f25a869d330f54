"""Training: gradient descent with any optimiser, and gradient flow. Each run is one compiled ``lax.scan``.

Functions are static, everything else is traced: a run compiles once for one loss *function*, whatever the learning
rate, the parameters and the data. Hence pass data through ``args`` rather than closing over it, and define a loss once:

>>> def loss(logits, chosen, rejected, beta):
...     return -jax.nn.log_sigmoid(beta * (logits[chosen] - logits[rejected]))
>>> run = train(loss, jnp.zeros(3), (0, 1, 0.1), steps=1000, learning_rate=0.1)
>>> bool(run.params[0] > run.params[2] > run.params[1])
True

Runs are mapped over seeds, starts or constants with ``jax.vmap``, inside or outside of ``jit``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from sandbox.validate import finite, nonnegative, require, whole

__all__ = [
    "OneStep", "Run", "descent", "flow", "log_times", "one_step", "recorded", "train", "whole_blocks",
]  # fmt: skip


class Run(NamedTuple):
    """The last ``params``, and what ``record`` returned at the steps 0, every, 2 every, ... on a new leading axis."""

    params: Any
    history: Any


class OneStep(NamedTuple):
    """``params`` after the step, and what was measured ``before`` and ``after`` it."""

    params: Any
    before: Any
    after: Any


def train(
    loss: Callable[..., Any] | None,
    params: Any,
    args: tuple[Any, ...] = (),
    *,
    steps: int,
    learning_rate: Any = None,
    optimizer: Callable[[Any], optax.GradientTransformation] | optax.GradientTransformation = optax.sgd,
    gradient: Callable[..., Any] | None = None,
    record: Callable[..., Any] | None = None,
    every: int = 1,
) -> Run:
    """Minimise ``loss(params, *args)`` for ``steps`` steps.

    ``optimizer`` is a function of the learning rate (``optax.sgd``, plain gradient descent, or ``optax.adam`` ...), or
    an optax transformation that has its own; the first kind does not compile again for another learning rate.
    ``gradient(params, *args)`` replaces autodiff, and the loss, which is then None: a closed form, or the opposite of
    any update direction that is no gradient. ``record(params, *args)`` is kept every ``every`` steps, step 0 included.

    Raises ValueError unless steps >= 1, ``every`` divides steps, the learning rate is finite (and absent for an optax
    transformation), and exactly one of loss and gradient is given.
    """
    steps, every = whole_blocks(steps, every)
    if (loss is None) == (gradient is None):
        raise ValueError("loss, gradient: give one of them, and None for the other")
    if isinstance(optimizer, optax.GradientTransformation):
        if learning_rate is not None:
            raise ValueError(f"learning_rate = {learning_rate}: the optimizer given has its own")
    elif learning_rate is None:
        raise ValueError("learning_rate: missing")
    else:
        finite("learning_rate", learning_rate)
    return _train(loss, gradient, optimizer, record, steps, every, learning_rate, params, args)


@partial(jax.jit, static_argnums=range(6))
def _train(
    loss: Any,
    gradient: Any,
    optimizer: Any,
    record: Any,
    steps: int,
    every: int,
    learning_rate: Any,
    params: Any,
    args: Any,
) -> Run:
    transform = optimizer if isinstance(optimizer, optax.GradientTransformation) else optimizer(learning_rate)
    slope = gradient or jax.grad(loss)

    def update(carry: Any) -> Any:
        params, state = carry
        changes, state = transform.update(slope(params, *args), state, params)
        return optax.apply_updates(params, changes), state

    start = (params, transform.init(params))
    kept = None if record is None else lambda carry: record(carry[0], *args)
    (params, _), history = recorded(update, start, kept, steps, every)
    return Run(params, history)


def whole_blocks(steps: Any, every: Any) -> tuple[int, int]:
    """Return both; ValueError unless they are whole numbers of at least 1 and ``every`` divides ``steps``."""
    steps, every = whole("steps", steps), whole("every", every)
    if steps % every:
        raise ValueError(f"every = {every}: must divide steps = {steps}")
    return steps, every


def recorded(
    update: Callable[[Any], Any], start: Any, record: Callable[[Any], Any] | None, steps: int, every: int
) -> tuple[Any, Any]:
    """The state after ``steps`` updates, and what ``record`` returned of it at the steps 0, every, 2 every, ..."""

    def several(state: Any, _: None, length: int = every) -> tuple[Any, Any]:
        state, _ = lax.scan(lambda state, _: (update(state), None), state, None, length=length)
        return state, None if record is None else record(state)

    if record is None:
        return several(start, None, steps)
    first = record(start)
    state, later = lax.scan(several, start, None, length=steps // every)
    return state, jax.tree.map(_prepend, first, later)


def one_step(
    loss: Callable[..., Any] | None,
    params: Any,
    args: tuple[Any, ...] = (),
    *,
    learning_rate: Any,
    measure: Callable[..., Any],
    gradient: Callable[..., Any] | None = None,
) -> OneStep:
    """One step of gradient descent, and ``measure(params, *args)`` (log-probabilities, say) before and after it."""
    run = train(loss, params, args, steps=1, learning_rate=learning_rate, gradient=gradient, record=measure)
    before, after = (jax.tree.map(lambda x, i=i: x[i], run.history) for i in (0, 1))
    return OneStep(run.params, before, after)


def descent(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The field -grad loss, whose flow is gradient flow. Make it once: what each call returns compiles anew."""
    slope = jax.grad(loss)
    return lambda state, *args: jax.tree.map(jnp.negative, slope(state, *args))


def flow(
    field: Callable[..., Any],
    start: Any,
    times: Any,
    args: tuple[Any, ...] = (),
    *,
    substeps: int = 16,
    log_time: bool = False,
) -> Any:
    """The states at ``times`` (T,) of d state / dt = field(state, *args), on a new leading axis, from ``start`` on.

    Fixed Runge-Kutta steps of fourth order, ``substeps`` between two times: the error falls as substeps^-4. With
    ``log_time`` they are equal in log(1 + t) instead of t, which reaches t = 1e8 where the state slows down like 1 / t
    (``log_times``); a state that moves at a constant rate for ever needs equal steps in t.

    Raises ValueError unless times are finite, increasing, at least two, and, for ``log_time``, >= 0.
    """
    whole("substeps", substeps)
    times = finite("times", jnp.asarray(times, jnp.result_type(float)))
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"times: shape {times.shape}: must be one axis of at least 2 times")
    if log_time:
        nonnegative("times", times)
    require("times: step to the next", jnp.diff(times), lambda d: d > 0, "> 0 (times increase)")
    return _flow(field, substeps, log_time, start, times, args)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _flow(field: Any, substeps: int, log_time: bool, start: Any, times: Array, args: Any) -> Any:
    clock = jnp.log1p(times) if log_time else times

    def velocity(state: Any, at: Array) -> Any:
        pace = jnp.exp(at) if log_time else jnp.ones_like(at)
        return jax.tree.map(lambda v: (pace * v).astype(v.dtype), field(state, *args))

    def move(state: Any, by: Array, direction: Any) -> Any:
        return jax.tree.map(lambda x, v: x + (by * v).astype(x.dtype), state, direction)

    def between(state: Any, interval: tuple[Array, Array]) -> tuple[Any, Any]:
        begin, end = interval
        h = (end - begin) / substeps

        def substep(state: Any, i: Array) -> tuple[Any, None]:
            at = begin + i * h
            k1 = velocity(state, at)
            k2 = velocity(move(state, h / 2, k1), at + h / 2)
            k3 = velocity(move(state, h / 2, k2), at + h / 2)
            k4 = velocity(move(state, h, k3), at + h)
            mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
            return move(state, h, mean), None

        state, _ = lax.scan(substep, state, jnp.arange(substeps, dtype=h.dtype))
        return state, state

    start = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x, float)), start)
    _, later = lax.scan(between, start, (clock[:-1], clock[1:]))
    return jax.tree.map(_prepend, start, later)


def log_times(last: float, count: int) -> np.ndarray:
    """``count`` times from 0 to ``last``, equal steps in log(1 + t): linear below 1, logarithmic above."""
    require("last", last, lambda t: (t > 0) & np.isfinite(t), "finite and > 0")
    return np.expm1(np.linspace(0, np.log1p(last), whole("count", count, least=2)))


def _prepend(first: Any, later: Array) -> Array:
    return jnp.concatenate([jnp.asarray(first, later.dtype)[None], later])
