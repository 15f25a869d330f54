"""The normal model N_d(mean, covariance), d(d+3)/2 parameters, fitted to any data.

Every term of its expansion is a number of the whitened data z (mean 0, covariance 1): with s = |z|^2 and c = z . z' of
two independent draws, only the means of s^2, s^3, c s s', c^2 s s', c^3 and c^4 enter. The first is Mardia's kurtosis,
the fifth his skewness.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import digamma

from sandbox.expfam.terms import Terms, whiten
from sandbox.validate import known, whole

__all__ = [
    "Moments", "exact_optimism", "exact_risk", "leverage", "moments", "normal_moments", "parameters", "terms",
    "whitened",
]  # fmt: skip


class Moments(NamedTuple):
    """Means over draws z, z' of whitened data. kurtosis: s^2, sixth: s^3, pull: c s s', shape: c^2 s s', skewness: c^3,
    fourth: c^4.
    """

    kurtosis: Any
    sixth: Any
    pull: Any
    shape: Any
    skewness: Any
    fourth: Any


def parameters(d: Any) -> Any:
    """d (d + 3) / 2."""
    return d * (d + 3) / 2


def terms(found: Moments, d: Any) -> Terms:
    """t0 .. t3 of the normal model in d dimensions: polynomials in the moments."""
    kurtosis, sixth, pull, shape, skewness, fourth = found
    return Terms(
        (kurtosis + d) / 2,
        sixth - d,
        2 * fourth + 8 * skewness + 4 * shape + 8 * pull - 4 * kurtosis + 2 * d**2 + 2 * d,
        3 * (fourth + 4 * skewness + 2 * shape + 4 * pull - 2 * kurtosis - d),
    )


def normal_moments(d: Any) -> Moments:
    """The moments of normal data, for which the model is right."""
    kurtosis = d * (d + 2)
    return Moments(kurtosis, kurtosis * (d + 4), 0 * d, kurtosis * (d + 2), 0 * d, 3 * kurtosis)


def whitened(rows: Array, weights: Array | None = None) -> Array:
    """Rows (n, d) with mean 0 and covariance 1 (denominator n); ``weights`` (n,) count a row so often.

    Raises ValueError where the covariance is not positive definite, as far as the values are known.
    """
    share = jnp.full(rows.shape[0], 1 / rows.shape[0]) if weights is None else weights / jnp.sum(weights)
    centred = rows - (share @ rows)[None, :]
    covariance = (centred * share[:, None]).T @ centred
    values = known(covariance)
    if values is not None:
        scale = np.sqrt(np.diagonal(values))
        if not np.all(scale > 0) or _smallest(values / np.outer(scale, scale)) < 1e3 * np.finfo(values.dtype).eps:
            raise ValueError(f"rows: {rows.shape[0]} rows of {rows.shape[1]} columns: must vary in every direction, so "
                             "that their covariance can be inverted")  # fmt: skip
    return whiten(centred, covariance)


def _smallest(matrix: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(matrix)[0])


def moments(z: Array, weights: Array | None = None) -> Moments:
    """The moments of whitened rows (n, d); arrays of d^4 numbers."""
    n, d = z.shape
    share = jnp.full(n, 1 / n) if weights is None else weights / jnp.sum(weights)
    s = jnp.sum(z**2, axis=1)
    pairs = (z[:, :, None] * z[:, None, :]).reshape(n, d * d)
    weighted = pairs * share[:, None]
    return Moments(
        share @ s**2, share @ s**3, jnp.sum(((share * s) @ z) ** 2), jnp.sum((s @ weighted) ** 2),
        jnp.sum((weighted.T @ z) ** 2), jnp.sum((weighted.T @ pairs) ** 2),
    )  # fmt: skip


def leverage(z: Array) -> Array:
    """(s^2 + d) / 2, s = |z|^2: how far each whitened row (n, d) pulls the fit; t0 is their mean."""
    s = jnp.sum(z**2, axis=1)
    return (s**2 + z.shape[1]) / 2


# -- exact, for normal data --------------------------------------------------------------------------------------------


def exact_risk(n: Any, d: int) -> Array:
    """E KL(N* || Nhat) in nats for n normal draws, n > d + 2: sums of digamma functions of Wishart's law."""
    whole("d", d)
    n = jnp.asarray(n, jnp.result_type(float))
    inverse = d / (n - d - 2)
    logs = sum(digamma((n - i) / 2) for i in range(1, d + 1))
    return (logs + d * jnp.log(2 / n) + n * inverse + inverse - d) / 2


def exact_optimism(n: Any, d: Any) -> Any:
    """E[cross-entropy on new draws - on the fitted ones] = p / (n - d - 2), n > d + 2."""
    return parameters(d) / (n - d - 2)
