"""Families on a finite alphabet: log p_theta = log_softmax(log h + xi theta). A softmax model is one with h = 1.

Laws are (K,) over the alphabet, ``features`` xi (K, p), ``log_base`` log h (K,) or 0, theta (p,). Nats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from sandbox.algebra import log_softmax, logsumexp
from sandbox.expfam import terms
from sandbox.expfam.newton import STEPS, Fit, newton
from sandbox.validate import known, whole

__all__ = ["check_features", "cosines", "fit", "log_law", "log_partition", "project", "terms_at"]


def log_law(features: Any, theta: Any, log_base: Any = 0) -> Any:
    """Log-probabilities (K,) at theta."""
    return log_softmax(features @ theta + log_base)


def log_partition(features: Any, theta: Any, log_base: Any = 0) -> Any:
    """psi(theta) = log total(h e^(xi theta)), whose gradient is the mean of the statistics."""
    return logsumexp(features @ theta + log_base)


def check_features(features: Any, name: str = "features") -> None:
    """Raise ValueError unless the p statistics (K, p) and a constant are linearly independent: else theta is not one.

    Columns that are 0 count for nothing and are left out.
    """
    x = known(features)
    if x is None:
        return
    if x.ndim != 2 or not np.all(np.isfinite(x)):
        raise ValueError(f"{name}: shape {x.shape}: must be finite and have the axes (symbols, statistics)")
    x = x[:, np.any(x != 0, axis=0)]
    whole = np.column_stack([np.ones(len(x)), x])
    if (rank := int(np.linalg.matrix_rank(whole))) < whole.shape[1]:
        raise ValueError(f"{name}: rank {rank - 1} of {x.shape[1]} statistics: must be independent of one another and "
                         "of a constant")  # fmt: skip


def cosines(size: int, p: int) -> Array:
    """p smooth statistics (size, p) of an ordered alphabet: sqrt(2) cos(pi j (y + 1/2) / size), j = 1 .. p < size.

    Under the uniform law they have mean 0 and covariance 1.
    """
    whole("size", size, 2)
    if not 1 <= whole("p", p) < size:
        raise ValueError(f"p = {p}: must be from 1 to {size - 1}, one less than the alphabet has symbols")
    y, j = jnp.arange(size)[:, None] + 0.5, jnp.arange(1, p + 1)[None, :]
    return jnp.sqrt(2.0) * jnp.cos(jnp.pi * j * y / size)


def fit(features: Array, mean: Array, log_base: Any = 0, start: Array | None = None, steps: int = STEPS) -> Fit:
    """Maximum likelihood from the sample mean (p,) of the statistics: the theta at which the model's mean is that.

    It exists iff the mean lies inside the convex hull of the rows of ``features``. Columns that are 0 keep theta at 0.
    """
    features = jnp.asarray(features)
    still = jnp.all(features == 0, axis=0).astype(features.dtype)

    def derivatives(theta: Array) -> tuple[Array, Array]:
        p = jnp.exp(log_law(features, theta, log_base))
        centre = p @ features
        x = features - centre[None, :]
        return centre - mean, (x * p[:, None]).T @ x + jnp.diag(still)

    def spread(theta: Array) -> Array:
        z = features @ theta
        return jnp.max(z) - jnp.min(z)

    return newton(derivatives, spread, jnp.zeros_like(mean) if start is None else start, steps)


def project(features: Array, truth: Array, log_base: Any = 0) -> Fit:
    """The information projection of a law (K,): the fit to its own mean."""
    return fit(features, truth @ features, log_base)


def terms_at(features: Array, model: Array, truth: Array) -> terms.Terms:
    """t0 .. t3 from the statistics (K, p), the model's law at the projection (K,) and the true law (K,).

    p x p x p arrays and (K, p^2) at most; for a plug-in estimate ``truth`` is the empirical law.
    """
    x = features - (model @ features)[None, :]
    x = terms.whiten(x, (x * model[:, None]).T @ x)
    y = x - (truth @ x)[None, :]
    spread = (y * truth[:, None]).T @ y
    quartic = model @ jnp.sum((x @ spread) * x, axis=1) ** 2
    return terms.of_tensors(_third(x, model), quartic, spread, _third(y, truth))


def _third(x: Array, law: Array) -> Array:
    """Third moment (p, p, p) of rows x (K, p)."""
    size, p = x.shape
    pairs = (x[:, :, None] * x[:, None, :]).reshape(size, p * p)
    return (pairs.T @ (x * law[:, None])).reshape(p, p, p)
