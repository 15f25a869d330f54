"""Bins of probabilities: one rule for the edges, for every metric and every weighting of the loss.

The rule: a bin is open below and closed above, (lo, hi], but for the first, which holds its lower edge too: with edges
0, 1/2, 1 the bins are [0, 1/2] and (1/2, 1]. Edges are compared as floats, hence an event at an edge never falls on
either side by rounding. Everything has fixed shapes, for ``jit`` and ``vmap``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sandbox.validate import whole

__all__ = ["bin_index", "bin_sums", "equal_mass_edges", "equal_width_edges", "kmeans_edges", "running_sum"]

ROW = 16  # numbers that a running sum takes at once
BLOCK = 128  # rows that are summed one after the other
LLOYD = 25  # iterations of k-means


def running_sum(x: Array) -> Array:
    """``jnp.cumsum(x)`` of x (n,), several times faster on a processor: within rows of 16 by a product with a triangle,
    then, the same way, of what the rows before it sum to.
    """
    rows = jnp.pad(x, (0, -x.size % ROW)).reshape(-1, ROW)
    within = rows @ jnp.triu(jnp.ones((ROW, ROW), x.dtype))
    ends = within[:, -1]
    before = (running_sum(ends) if ends.size > ROW else jnp.cumsum(ends)) - ends
    return (within + before[:, None]).ravel()[: x.size]


def bin_index(x: Any, edges: Array) -> Array:
    """The bin, 0 to B - 1, of each x, for increasing inner ``edges`` (B - 1,): the number of edges below x."""
    return jnp.searchsorted(edges, x, side="left", method="compare_all")


def equal_width_edges(bins: int, dtype: Any = None) -> Array:
    """Inner edges 1/B, ..., (B - 1)/B of B bins on [0, 1], each the float nearest to its fraction."""
    whole("bins", bins)
    return jnp.asarray([b / bins for b in range(1, bins)], jnp.result_type(float) if dtype is None else dtype)


def equal_mass_edges(ordered: Array, weights: Array, bins: int) -> Array:
    """Inner edges of B bins of equal weight: interpolated quantiles of the sorted values ``ordered`` (n,).

    weights: (n,) whole numbers >= 0, how often each value is there. Edge b lies at place b W / B of the W values laid
    out in order, place i - 1/2 being where the i-th is; nearer to the ends than that it is the first or the last.
    """
    reach = jnp.cumsum(weights)
    place = jnp.arange(1, bins) * (reach[-1] / bins) - 0.5
    below = jnp.floor(place)
    lower, upper = (
        ordered[jnp.clip(jnp.searchsorted(reach, jnp.clip(at, 0, reach[-1] - 1), side="right"), 0, ordered.size - 1)]
        for at in (below, below + 1)
    )
    return lower + (place - below) * (upper - lower)


def bin_sums(index: Array, values: Array, bins: int) -> Array:
    """Sums of ``values`` (n, ...) in each bin, (B, ...).

    By blocks of rows: one sum of them all would lose the digits of float32 where there are millions.
    """
    block = jnp.arange(index.size) // BLOCK
    count = -(-index.size // BLOCK)
    parts = jnp.zeros((count * bins, *values.shape[1:]), values.dtype).at[bins * block + index].add(values)
    return jnp.sum(parts.reshape(count, bins, *values.shape[1:]), axis=0)


def kmeans_edges(ordered: Array, weights: Array, bins: int) -> Array:
    """Inner edges (B - 1,) between the B clusters of one-dimensional k-means on sorted values (n,) with weights >= 0.

    Lloyd's iterations from the quantiles (b + 1/2) / B, 25 of them, each exact: on sorted values a cluster is a range.
    A cluster that loses its last value keeps its centre. A value halfway between two centres goes to the lower.
    """
    whole("bins", bins)
    reach, moment = (jnp.append(jnp.zeros(1, ordered.dtype), running_sum(x)) for x in (weights, weights * ordered))
    quantiles = (jnp.arange(bins) + 0.5) * (reach[-1] / bins)
    start = ordered[jnp.clip(jnp.searchsorted(reach[1:], quantiles, side="right"), 0, ordered.size - 1)]

    def halfway(centres: Array) -> Array:
        return (centres[1:] + centres[:-1]) / 2

    def lloyd(_: Any, centres: Array) -> Array:
        inner = jnp.searchsorted(ordered, halfway(centres), side="right")
        ends = jnp.concatenate([jnp.zeros(1, inner.dtype), inner, jnp.full(1, ordered.size, inner.dtype)])
        mass = jnp.diff(reach[ends])
        return jnp.where(mass > 0, jnp.diff(moment[ends]) / jnp.where(mass > 0, mass, 1), centres)

    return halfway(jax.lax.fori_loop(0, LLOYD, lloyd, start))
