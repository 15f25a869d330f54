"""What the risk is made of: t0 .. t3, contractions of the cumulants of the true law and of the model's.

In whitened coordinates, where the model's covariance at the projection is the identity: S = Cov_g, k3g the third
cumulant of the statistics under the truth, k3, k4 the third and fourth under the model. There is no k4 of the truth.

    t0 = tr S    t1 = <k3g, k3>    t2 = |k3 : S|^2 + 2 <k3, S k3 S>    t3 = 3 k4 : S : S

Formulas of ``Terms`` alone are written in + - * /, for numbers, arrays and symbols alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

__all__ = ["Expansion", "Terms", "of_one_parameter", "of_tensors", "optimism", "reverse_risk", "risk", "whiten"]


class Terms(NamedTuple):
    """The four contractions, no unit. Sheena 2021, arXiv:2105.08947; well specified t0 = p."""

    t0: Any
    t1: Any
    t2: Any
    t3: Any


class Expansion(NamedTuple):
    """a/n + b/n^2, in nats."""

    a: Any
    b: Any

    def at(self, n: Any) -> Any:
        """Its value at n draws."""
        return self.a / n + self.b / n**2


def risk(terms: Terms) -> Expansion:
    """E KL(g* || ghat): a = t0/2, b = (-8 t1 + 9 t2 - 3 t3) / 24."""
    return Expansion(terms.t0 / 2, (-8 * terms.t1 + 9 * terms.t2 - 3 * terms.t3) / 24)


def reverse_risk(terms: Terms) -> Expansion:
    """E KL(ghat || g*): the same a, b = (-4 t1 + 3 t2 - t3) / 24."""
    return Expansion(terms.t0 / 2, (-4 * terms.t1 + 3 * terms.t2 - terms.t3) / 24)


def optimism(terms: Terms) -> Expansion:
    """E[cross-entropy on new draws - on the fitted ones], nats a draw: the sum of both risks."""
    return Expansion(terms.t0, (-3 * terms.t1 + 3 * terms.t2 - terms.t3) / 6)


def of_one_parameter(variance: Any, k3: Any, k4: Any, true_variance: Any, true_k3: Any) -> Terms:
    """Terms of one statistic: its cumulants under the model, and under the truth."""
    spread = true_variance / variance**2
    return Terms(
        true_variance / variance,
        true_k3 * k3 / variance**3,
        3 * k3**2 * spread**2 / variance,
        3 * k4 * spread**2,
    )


def whiten(x: Array, covariance: Array) -> Array:
    """Rows x (K, p) in coordinates in which ``covariance`` (p, p) is the identity; columns without variance stay 0."""
    still = jnp.diagonal(covariance) == 0
    factor = jnp.linalg.cholesky(covariance + jnp.diag(still.astype(x.dtype)))
    return solve_triangular(factor, x.T, lower=True).T


def of_tensors(k3: Array, quartic: Array, spread: Array, true_k3: Array) -> Terms:
    """Terms in whitened coordinates. No array has p^4 elements.

    k3, true_k3: (p, p, p) third cumulants under the model and the truth. spread: S (p, p). quartic: the mean of
    (x . S x)^2 under the model, of which k4 : S : S is what is left without the Gaussian part.
    """
    pushed = jnp.tensordot(k3, spread, 2)
    across = jnp.einsum("uij,jk,ukl,il", k3, spread, k3, spread, optimize=True)
    gaussian = jnp.trace(spread) ** 2 + 2 * jnp.sum(spread * spread.T)
    return Terms(jnp.trace(spread), jnp.sum(true_k3 * k3), jnp.sum(pushed**2) + 2 * across, 3 * (quartic - gaussian))
