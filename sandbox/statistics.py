"""Means over seeds and slopes, each with its uncertainty. Samples lie on the first axis."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from scipy.special import stdtrit

from sandbox.validate import in_range, positive

__all__ = ["Estimate", "Slope", "bootstrap_mean", "log_log_slope", "mean", "rank_correlation"]


class Estimate(NamedTuple):
    """A mean, its standard error, and the interval (low, high) that covers the truth at the level asked for."""

    mean: Array
    standard_error: Array
    low: Array
    high: Array


class Slope(NamedTuple):
    """Least-squares slope and intercept, and the standard error of the slope."""

    slope: Array
    standard_error: Array
    intercept: Array


def mean(samples: Any, level: float = 0.95) -> Estimate:
    """Mean of independent samples (n, ...) over the first axis, with Student's t interval.

    Raises ValueError for fewer than 2 samples or a level outside (0, 1).
    """
    samples, standard_error = _moments(samples, level)
    n = samples.shape[0]
    half = float(stdtrit(n - 1, (1 + level) / 2)) * standard_error
    centre = jnp.mean(samples, axis=0)
    return Estimate(centre, standard_error, centre - half, centre + half)


def bootstrap_mean(key: Array, samples: Any, level: float = 0.95, resamples: int = 10_000) -> Estimate:
    """The same with the percentile interval of the means of ``resamples`` draws with replacement.

    For samples too skewed for Student's t. Errors as ``mean``, and for ``resamples`` <= 0.
    """
    positive("resamples", resamples)
    samples, standard_error = _moments(samples, level)
    n = samples.shape[0]
    drawn = jnp.floor(jax.random.uniform(key, (resamples, n)) * n).astype(int)  # a third of the time of randint
    share = jnp.zeros((resamples, n)).at[jnp.arange(resamples)[:, None], drawn].add(1 / n)
    low, high = jnp.quantile(jnp.tensordot(share, samples, 1), jnp.array([(1 - level) / 2, (1 + level) / 2]), axis=0)
    return Estimate(jnp.mean(samples, axis=0), standard_error, low, high)


def log_log_slope(x: Any, y: Any) -> Slope:
    """Least-squares line through (log x, log y), both (n,): y is about e^intercept x^slope.

    Raises ValueError for fewer than 3 points, or for values that are not finite and > 0.
    """
    u, v = (jnp.log(positive(name, jnp.asarray(values))) for name, values in (("x", x), ("y", y)))
    if u.shape != v.shape or u.ndim != 1 or u.shape[0] < 3:
        raise ValueError(
            f"x, y: shapes {u.shape} and {v.shape}: must be one axis of at least 3 points, the same for both"
        )
    du = u - jnp.mean(u)
    spread = jnp.sum(du**2)
    slope = jnp.sum(du * v) / spread
    intercept = jnp.mean(v) - slope * jnp.mean(u)
    residual = v - intercept - slope * u
    return Slope(slope, jnp.sqrt(jnp.sum(residual**2) / (u.shape[0] - 2) / spread), intercept)


def rank_correlation(a: Any, b: Any) -> Array:
    """Spearman's rank correlation of two samples (n,), ties at their mean rank; NaN where one is constant."""

    def centred_ranks(x: Any) -> Array:
        x = jnp.asarray(x, jnp.result_type(float))
        ordered = jnp.sort(x)
        below, upto = (jnp.searchsorted(ordered, x, side=side).astype(x.dtype) for side in ("left", "right"))
        return (below + upto - x.shape[0]) / 2

    r, s = centred_ranks(a), centred_ranks(b)
    return jnp.sum(r * s) / jnp.sqrt(jnp.sum(r**2) * jnp.sum(s**2))


def _moments(samples: Any, level: float) -> tuple[Array, Array]:
    samples = jnp.asarray(samples, jnp.result_type(float))
    if samples.ndim == 0 or samples.shape[0] < 2:
        raise ValueError(f"samples: shape {samples.shape}: must have at least 2 on the first axis")
    in_range("level", level, 0, 1, ends="()")
    return samples, jnp.std(samples, axis=0, ddof=1) / jnp.sqrt(samples.shape[0])
