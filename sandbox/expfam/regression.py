"""Logistic regressions and Bradley-Terry models, many at once in one compiled program.

``jax.vmap`` over these, or, for hundreds, ``jax.lax.map`` with ``batch_size=16``: a batch stays in the cache and waits
for the slowest of its own fits only.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from sandbox.expfam.newton import Fit, newton

__all__ = ["bradley_terry", "logistic"]


def logistic(x: Array, y: Array) -> Fit:
    """Maximum likelihood of P(y = 1) = sigmoid(x theta): rows x (n, p), y (n,) in {0, 1}; mean loss, no penalty.

    It does not exist where the classes can be separated.
    """
    n = x.shape[0]

    def derivatives(theta: Array) -> tuple[Array, Array]:
        p = jax.nn.sigmoid(x @ theta)
        return x.T @ (p - y) / n, (x * (p * (1 - p))[:, None]).T @ x / n

    return newton(derivatives, lambda theta: jnp.max(jnp.abs(x @ theta)), jnp.zeros(x.shape[1], x.dtype))


def bradley_terry(wins: Array, ridge: float = 0.0) -> Fit:
    """Scores (items,), centred, from the table of wins (items, items), row over column, with ridge * |scores|^2.

    Without a ridge they exist iff no group of items wins, or loses, every game against the rest.
    """
    games, items = wins + wins.T, wins.shape[0]
    played = jnp.sum(wins)

    def derivatives(scores: Array) -> tuple[Array, Array]:
        p = jax.nn.sigmoid(scores[:, None] - scores[None, :])
        gradient = jnp.sum(games * p - wins, axis=1) + 2 * ridge * scores
        weights = games * p * (1 - p)
        # a constant is free without a ridge: a level of 1 game holds it, and moves nothing since scores stay centred
        curvature = jnp.diag(jnp.sum(weights, axis=1) + 2 * ridge) - weights + 1 / items
        return gradient / played, curvature / played

    return newton(derivatives, lambda scores: jnp.max(scores) - jnp.min(scores), jnp.zeros(items, wins.dtype))
