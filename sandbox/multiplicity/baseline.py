"""The best model, and how much worse than it another one is."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import linprog

from sandbox.multiplicity._newton import least
from sandbox.validate import finite, in_range, known, nonnegative, positive

__all__ = ["Baseline", "excess", "expansion", "fit", "merged", "separable", "separable_classes"]


class Baseline(NamedTuple):
    """A fitted logistic model with what its level sets are made of. n rows, d coefficients.

    x (n, d); weight (n,), the rows' shares of the examples, which sum to one; w (d,) and logits (n,) of the best model;
    loss, its own (nats, with the ridge); hessian (d, d) of the loss there; ridge; gradient, the largest entry of the
    loss's gradient there, which is rounding.
    """

    x: Array
    weight: Array
    w: Array
    logits: Array
    loss: Array
    hessian: Array
    ridge: Array
    gradient: Array

    @property
    def risk(self) -> Array:
        """Predicted risks (n,)."""
        return jax.nn.sigmoid(self.logits)


def merged(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Identical examples as one row: x (m, d), the share of ones (m,), weight (m,), and each example's row (n,)."""
    rows, place, counts = np.unique(np.asarray(x), axis=0, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    ones = np.bincount(place, weights=np.asarray(y, float), minlength=len(rows))
    return rows, ones / counts, counts / counts.sum(), place


def fit(x: Any, y: Any, weight: Any = None, ridge: Any = 0.0) -> Baseline:
    """The coefficients of least loss, by damped Newton from 0, until the gradient is rounding (1e-12 in float64).

    x (n, d), with a column of ones for an intercept; y (n,) labels 1 or 0, or shares of ones; weight (n,) shares of the
    examples, by default all alike.
    Raises ValueError, unless the arrays are traced: for shapes that do not fit, a label outside [0, 1], a weight that
    is not positive, a negative ridge; and without a ridge for columns that are linearly dependent and for classes that
    can be separated, where no best model exists.
    """
    x, y = jnp.asarray(x, jnp.result_type(float)), jnp.asarray(y, jnp.result_type(float))
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"x, y: shapes {x.shape} and {y.shape}: must be (n, d) and (n,)")
    nonnegative("ridge", ridge)
    in_range("y", finite("y", y), 0, 1)
    finite("x", x)
    weight = jnp.full_like(y, 1 / y.size) if weight is None else positive("weight", jnp.asarray(weight, y.dtype))
    if weight.shape != y.shape:
        raise ValueError(f"weight: shape {weight.shape}: must be {y.shape}, as y")
    penalty = known(ridge if isinstance(ridge, jax.Array) else np.asarray(ridge, float))
    rows, labels = known(x), known(y)
    if rows is not None and labels is not None and penalty is not None and penalty == 0:
        _has_a_best_model(rows, labels)
    return _fit(x, y, weight / jnp.sum(weight), jnp.asarray(ridge, x.dtype))


def _has_a_best_model(x: np.ndarray, y: np.ndarray) -> None:
    rank = np.linalg.matrix_rank(x)
    if rank < x.shape[1]:
        raise ValueError(
            f"x: its {x.shape[1]} columns have rank {rank}: some are sums of others, so coefficients are not unique; "
            "drop columns, or use a ridge > 0"
        )
    if separable(x, y):
        raise ValueError(
            "x, y: the classes can be separated (a linear programme says so): no best model exists, the loss tends to "
            "its infimum as coefficients grow, and every risk is open; use a ridge > 0, or fewer features"
        )


@jax.jit
def _fit(x: Array, y: Array, weight: Array, ridge: Array) -> Baseline:
    products, place = _products(x)

    def expand(w: Array) -> tuple[Array, Array, Array]:
        t = x @ w
        p = jax.nn.sigmoid(t)
        value = weight @ (jax.nn.softplus(t) - y * t) + ridge / 2 * w @ w
        gradient = (weight * (p - y)) @ x + ridge * w
        return value, gradient, ((weight * p * jax.nn.sigmoid(-t)) @ products)[place] + ridge * jnp.eye(w.size)

    w = least(expand, jnp.zeros_like(x, shape=x.shape[1:]))
    value, gradient, hessian = expand(w)
    return Baseline(x, weight, w, x @ w, value, hessian, ridge, jnp.max(jnp.abs(gradient)))


def _products(x: Array) -> tuple[Array, np.ndarray]:
    """x_j x_k of each row, each pair once (n, d (d + 1) / 2), and where each entry of a matrix (d, d) is found."""
    j, k = np.triu_indices(x.shape[1])
    place = np.zeros((x.shape[1], x.shape[1]), int)
    place[j, k] = place[k, j] = np.arange(j.size)
    return x[:, j] * x[:, k], place


# -- how much worse is another model? ----------------------------------------------------------------------------------


def _kl_and_move(t0: Array, step: Array) -> tuple[Array, Array, Array]:
    """KL(p0 || p), p - p0 and p (1 - p), elementwise, of the risk p whose logit is ``step`` above t0, that of p0.

    To full relative precision for small steps and for risks near 0 and 1, without overflow for large ones: with q the
    probability of the outcome that becomes rarer and E = e^-|step| - 1, KL = q |step| + log(1 + q E). Three
    transcendental functions an element, since they are what it costs.
    """
    up = step > 0
    ahead, behind = jax.nn.sigmoid(t0), jax.nn.sigmoid(-t0)
    q, rest = jnp.where(up, behind, ahead), jnp.where(up, ahead, behind)
    size = jnp.abs(step)
    shrunk = jnp.exp(-size)
    e = -jnp.tanh(size / 2) * (1 + shrunk)
    near = q * e > -0.5
    whole = jnp.where(near, 1 + q * e, jnp.maximum(rest + q * shrunk, jnp.finfo(q.dtype).tiny))
    kept = whole - 1  # log(1 + x) = x log(1 + x) / x, with the rounded 1 + x in the last two (Kahan)
    logarithm = jnp.log(whole) * jnp.where(near & (kept != 0), q * e / jnp.where(kept != 0, kept, 1), 1)
    logarithm = jnp.where(near & (kept == 0), q * e, logarithm)
    share = 1 / whole
    moved = -q * rest * e * share
    return q * size + logarithm, jnp.where(up, moved, -moved), q * rest * shrunk * share**2


def excess(baseline: Baseline, u: Any) -> Array:
    """Loss of the coefficients w + u minus the baseline's, nats, never negative: the mean KL of the risks, and ridge.

    u (..., d). Watson-Daniels et al. 2023, arXiv:2206.01131, define level sets by it; that it is a KL is ours.
    """
    divergence = _kl_and_move(baseline.logits, jnp.asarray(u) @ baseline.x.T)[0]
    return divergence @ baseline.weight + baseline.ridge / 2 * jnp.sum(u * u, axis=-1)


def expansion(baseline: Baseline) -> Any:
    """The function u -> (excess, its gradient (d,), its Hessian (d, d)); labels enter no more."""
    products, place = _products(baseline.x)

    def expand(u: Array) -> tuple[Array, Array, Array]:
        divergence, moved, variance = _kl_and_move(baseline.logits, baseline.x @ u)
        value = baseline.weight @ divergence + baseline.ridge / 2 * u @ u
        gradient = (baseline.weight * moved) @ baseline.x + baseline.ridge * u
        hessian = ((baseline.weight * variance) @ products)[place] + baseline.ridge * jnp.eye(u.size)
        return value, gradient, hessian

    return expand


# -- does a best model exist? ------------------------------------------------------------------------------------------


def separable(x: Any, y: Any) -> bool:
    """Can a linear rule put no example on its wrong side, and not all of them on the border?

    Then the logistic loss has no minimum. By Stiemke's lemma this is so unless some l >= 1 solves
    sum_i l_i s_i x_i = 0, s_i = 1 or -1 for the labels 1 and 0; a linear programme (HiGHS) looks for it.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    return _no_positive_balance(np.concatenate([x[y > 0], -x[y < 1]]))


def separable_classes(x: Any, y: Any) -> bool:
    """The same for classes y (n,), whole numbers from 0: can a softmax of x @ w be pushed for ever?"""
    x, y = np.asarray(x, float), np.asarray(y, int)
    classes = np.arange(y.max() + 1)
    rows = []
    for other in classes:
        sign = np.eye(classes.size)[y] - np.eye(classes.size)[other]
        rows.append((x[:, :, None] * sign[:, None, :-1])[y != other].reshape(np.sum(y != other), -1))
    return _no_positive_balance(np.concatenate(rows))


def _no_positive_balance(rows: np.ndarray) -> bool:
    scale = np.abs(rows).max(axis=0)
    rows = rows[:, scale > 0] / scale[scale > 0]
    found = linprog(np.zeros(len(rows)), A_eq=rows.T, b_eq=np.zeros(rows.shape[1]), bounds=(1, None), method="highs")
    if found.status not in (0, 2):
        raise RuntimeError(f"the linear programme on separability ended without an answer: {found.message}")
    return bool(found.status == 2)
