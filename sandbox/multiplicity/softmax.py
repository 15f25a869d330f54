"""The same for more than two classes: coefficients (d, C - 1), the last class's logits are 0.

Log-odds of two classes are linear in the coefficients, so their ranges are as exact as with two classes. The largest
probability of a class is a convex problem, the smallest is not; with three classes both are found by a sweep.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sandbox.multiplicity._newton import least
from sandbox.multiplicity.baseline import separable_classes
from sandbox.multiplicity.ranges import CHUNK, Ranges, extremes
from sandbox.validate import finite, known, nonnegative, positive

__all__ = ["SoftmaxBaseline", "can_win", "fit_softmax", "log_odds_ranges", "probability_ranges", "softmax_excess"]


class SoftmaxBaseline(NamedTuple):
    """x (n, d); w (d (C - 1),), class by class; logits (n, C), the last 0; loss in nats; hessian of it; ridge."""

    x: Array
    w: Array
    logits: Array
    loss: Array
    hessian: Array
    ridge: Array

    @property
    def risk(self) -> Array:
        """Predicted probabilities (n, C)."""
        return jax.nn.softmax(self.logits)


def _logits(x: Array, w: Array) -> Array:
    """Logits (n, C) of coefficients (d (C - 1),): the last class's are 0."""
    free = x @ w.reshape(-1, x.shape[1]).T
    return jnp.concatenate([free, jnp.zeros_like(free[:, :1])], axis=1)


def fit_softmax(x: Any, y: Any, ridge: Any = 0.0) -> SoftmaxBaseline:
    """The coefficients of least mean cross-entropy; y (n,) classes, whole numbers from 0 to C - 1, each of them there.

    Raises ValueError for shapes or labels that do not fit, a negative ridge, and without a ridge for classes that can
    be separated.
    """
    x = finite("x", jnp.asarray(x, jnp.result_type(float)))
    labels = np.asarray(y)
    if x.ndim != 2 or labels.shape != x.shape[:1]:
        raise ValueError(f"x, y: shapes {x.shape} and {labels.shape}: must be (n, d) and (n,)")
    classes = np.unique(labels)
    if classes.size < 2 or not np.array_equal(classes, np.arange(classes.size)):
        raise ValueError(f"y: has the classes {classes.tolist()}: must be 0, 1, ... C - 1, each of them at least once")
    nonnegative("ridge", ridge)
    rows = known(x)
    if rows is not None and float(ridge) == 0 and separable_classes(rows, labels):
        raise ValueError("x, y: some class can be separated: no best model exists; use a ridge > 0, or fewer features")
    return _fit(x, jax.nn.one_hot(labels.astype(int), classes.size, dtype=x.dtype), jnp.asarray(ridge, x.dtype))


@jax.jit
def _fit(x: Array, y: Array, ridge: Array) -> SoftmaxBaseline:
    def value(w: Array) -> Array:
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(_logits(x, w)), axis=1)) + ridge / 2 * w @ w

    expand = _expansion(value)
    w = least(expand, jnp.zeros((y.shape[1] - 1) * x.shape[1], x.dtype))
    return SoftmaxBaseline(x, w, _logits(x, w), value(w), expand(w)[2], ridge)


def _expansion(value: Any) -> Any:
    return lambda u: (*jax.value_and_grad(value)(u), jax.hessian(value)(u))


def softmax_excess(baseline: SoftmaxBaseline, u: Array) -> Array:
    """Loss of w + u minus the baseline's, nats: the mean KL of the predicted laws, and ridge.

    KL(p0 || p) = log sum_c p0_c e^(a_c - mean a), a the step of the logits: it does not cancel where that is small.
    """
    p0, step = baseline.risk, _logits(baseline.x, u)
    centred = step - jnp.sum(p0 * step, axis=1, keepdims=True)
    top = jnp.max(centred, axis=1, keepdims=True)
    near = jnp.log1p(jnp.sum(p0 * (jnp.expm1(jnp.minimum(centred, 1)) - jnp.minimum(centred, 1)), axis=1))
    far = top[:, 0] + jnp.log(jnp.sum(p0 * jnp.exp(centred - top), axis=1))
    return jnp.mean(jnp.where(top[:, 0] < 1, near, far)) + baseline.ridge / 2 * u @ u


def log_odds_ranges(baseline: SoftmaxBaseline, epsilon: Any, a: int, b: int) -> Ranges:
    """Viable range of the log-odds of class a against class b of every row (see ``Ranges``).

    Raises ValueError unless epsilon > 0 and a, b are two different classes.
    """
    positive("epsilon", epsilon)
    classes = baseline.logits.shape[1]
    if a == b or not {a, b} <= set(range(classes)):
        raise ValueError(f"a, b = {a}, {b}: must be two different classes from 0 to {classes - 1}")
    direction = jnp.eye(classes)[a] - jnp.eye(classes)[b]
    return _log_odds_ranges(baseline, jnp.asarray(epsilon, baseline.x.dtype), direction)


def _reach(baseline: SoftmaxBaseline) -> Array:
    """The largest norm of the logits' steps: the KL of three or more classes bends at most as fast as they spread."""
    solved = jnp.linalg.inv(baseline.hessian)
    d, free = baseline.x.shape[1], baseline.logits.shape[1] - 1
    blocks = solved.reshape(free, d, free, d)
    spread = jnp.einsum("ni,aibj,nj->nab", baseline.x, blocks, baseline.x)
    return 2 * jnp.sqrt(jnp.max(jnp.trace(spread, axis1=1, axis2=2)))


@jax.jit
def _log_odds_ranges(baseline: SoftmaxBaseline, epsilon: Array, direction: Array) -> Ranges:
    x = baseline.x
    v = (direction[None, :-1, None] * x[:, None, :]).reshape(x.shape[0], -1)
    chunk = max(8, CHUNK // x.shape[0])
    expand = _expansion(partial(softmax_excess, baseline))
    return extremes(expand, baseline.hessian, v, v @ baseline.w, epsilon, _reach(baseline), chunk)


def can_win(found: Ranges) -> Array:
    """Whether (n,) some model of the set prefers class a to class b, from the range of their log-odds."""
    return found.high > 0


def probability_ranges(baseline: SoftmaxBaseline, epsilon: Any, row: int, angles: int = 400) -> Array:
    """Lowest and highest probability (2, C) of each of three classes for one row, over a sweep of directions.

    The logits that a level set allows one row fill a strictly convex body of the plane; its boundary is where linear
    functionals are largest, and every probability has its extremes there. The ends are inner ones: models attain them,
    and the error falls with the square of the angle between two directions.
    Raises ValueError unless there are three classes.
    """
    if baseline.logits.shape[1] != 3:
        raise ValueError(f"baseline: has {baseline.logits.shape[1]} classes: must be 3, the boundary is a curve then")
    positive("epsilon", epsilon)
    return _probability_ranges(baseline, jnp.asarray(epsilon, baseline.x.dtype), row, angles)


@partial(jax.jit, static_argnames="angles")
def _probability_ranges(baseline: SoftmaxBaseline, epsilon: Array, row: int, angles: int) -> Array:
    x = baseline.x[row]
    theta = jnp.pi * jnp.arange(angles) / angles  # both ends of each: the whole circle
    sides = jnp.stack([jnp.cos(theta), jnp.sin(theta)], axis=1)
    v = (sides[:, :, None] * x[None, None, :]).reshape(angles, -1)
    expand = _expansion(partial(softmax_excess, baseline))
    chunk = max(8, CHUNK // baseline.x.shape[0])
    found = extremes(expand, baseline.hessian, v, v @ baseline.w, epsilon, _reach(baseline), chunk)
    models = jnp.concatenate([found.u_low, found.u_high]) + baseline.w[None]
    p = jax.nn.softmax(jax.vmap(lambda w: _logits(x[None], w)[0])(models))
    return jnp.stack([jnp.min(p, axis=0), jnp.max(p, axis=0)])
