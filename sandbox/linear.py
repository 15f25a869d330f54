"""Linear systems with a positive definite matrix, small ones many at a time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["solve"]

UNROLLED = 12  # unknowns up to which a system is solved in place


def solve(matrix: Array, right: Array) -> Array:
    """x (..., p) of matrix x = right, right (..., p), matrix (p, p) positive definite, by Cholesky's factor.

    NaN where the matrix is not. Small systems are unrolled: under ``vmap`` a batch of them is then arithmetic on
    arrays, several times faster than a call of LAPACK for each.
    """
    p = matrix.shape[0]
    if p > UNROLLED:
        rows = right.reshape(-1, p)
        return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(matrix), True), rows.T).T.reshape(right.shape)
    factor: list[list[Any]] = [[None] * p for _ in range(p)]
    for i in range(p):
        for j in range(i + 1):
            rest = matrix[i, j] - sum(factor[i][k] * factor[j][k] for k in range(j))
            factor[i][j] = jnp.sqrt(rest) if i == j else rest / factor[j][j]
    half: list[Any] = []
    for i in range(p):
        half.append((right[..., i] - sum(factor[i][k] * half[k] for k in range(i))) / factor[i][i])
    x: list[Any] = [None] * p
    for i in reversed(range(p)):
        x[i] = (half[i] - sum(factor[k][i] * x[k] for k in range(i + 1, p))) / factor[i][i]
    return jnp.stack(x, axis=-1) if p else right
