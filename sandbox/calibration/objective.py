"""The h-calibration loss: sort all events by their probability, average predicted minus observed over windows.

Huang et al. 2025, arXiv:2506.17968, as released, except that the released code multiplies it by 1e5, clips at 1e-20
before it sorts, and clusters with a random k-means. It is differentiable almost everywhere; the gradient flows through
the probabilities, not through their order. Ties are in row-major order. Fixed shapes: ``jit``, ``grad`` and ``vmap``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from sandbox.calibration.binning import equal_width_edges, kmeans_edges, running_sum
from sandbox.calibration.formulas import excess
from sandbox.validate import nonnegative, one_of, whole

__all__ = ["SUBSETS", "WEIGHTINGS", "Events", "HLoss", "brier", "events", "h_loss", "nll", "window_gaps"]

SUBSETS = ("pooled", "leave_one_class_out", "classwise")
WEIGHTINGS = ("unweighted", "ace", "ece", "cluster_ace", "cluster_ece")
PADDING = 2.0  # a probability that sorts after all others
ROOM = 1e-5  # what the released code adds to the number of events of an equal-width bin


@dataclass(frozen=True)
class HLoss:
    """``h_loss`` with its options, equal to another of the same options: what is fitted with it compiles once."""

    window: int = 201
    epsilon: float = 0.0
    subsets: str = "pooled"
    weighting: str = "unweighted"
    bins: int = 15

    def __call__(self, log_probs: Array, labels: Array) -> Array:
        """The loss; shapes, units and errors as ``h_loss``."""
        return h_loss(log_probs, labels, **vars(self))


class Events(NamedTuple):
    """Events of S subsets in the order of their probabilities, each padded to n places.

    p: (S, n), 2 on the padding; gap: (S, n), p - o, 0 on the padding; size: (S,) events of each subset.
    """

    p: Array
    gap: Array
    size: Array


def nll(log_probs: Array, labels: Array) -> Array:
    """Mean negative log-likelihood, nats; log_probs (N, C), labels (N,) from 0 to C - 1."""
    return -jnp.mean(jnp.take_along_axis(log_probs, labels[:, None], axis=1))


def brier(log_probs: Array, labels: Array) -> Array:
    """Mean over samples of |p - onehot(y)|^2, from 0 to 2."""
    hits = jax.nn.one_hot(labels, log_probs.shape[1], dtype=log_probs.dtype)
    return jnp.mean(jnp.sum((jnp.exp(log_probs) - hits) ** 2, axis=1))


def h_loss(
    log_probs: Array,
    labels: Array,
    *,
    window: int = 201,
    epsilon: Any = 0.0,
    subsets: str = "pooled",
    weighting: str = "unweighted",
    bins: int = 15,
) -> Array:
    """Mean over subsets of the weighted mean of relu(|T_i| - epsilon), T_i the mean gap over a window around event i.

    log_probs: (N, C), rows that are log-probabilities; labels: (N,). window: events in a window, odd; it is centred on
    its event, and beyond the ends of the order gaps count as 0, so that the outermost (window - 1)/2 are shrunk.
    epsilon: what is tolerated, in probability, >= 0.
    subsets: "pooled", all events; "leave_one_class_out", for each class the samples of the others, all columns (the
    released default; its minimum is not at the truth unless classes are exchangeable); "classwise", each column.
    weighting: "unweighted"; "ace", the mean over ``bins`` equal-width bins, closed at both ends, of the mean in each;
    "ece", the same with each bin times its share of the subset's largest probabilities a sample; "cluster_ace", as
    "ace" with the clusters of a k-means for bins; "cluster_ece", those times that share, summed.

    Raises ValueError for shapes that do not match, an even window, epsilon < 0, and unknown names.
    """
    whole("window", window)
    if window % 2 == 0:
        raise ValueError(f"window = {window}: must be odd, as many events on either side of its own")
    nonnegative("epsilon", epsilon)
    one_of("weighting", weighting, WEIGHTINGS)
    whole("bins", bins)
    found = events(log_probs, labels, subsets)
    largest = jnp.exp(jnp.max(log_probs, axis=1))
    classes = jnp.arange(log_probs.shape[1])
    left_out = subsets == "leave_one_class_out"
    kept = labels[None, :] != classes[:, None] if left_out else jnp.ones((found.p.shape[0], labels.size), bool)

    def of(subset: tuple[Events, Array]) -> Array:
        (p, gap, count), kept = subset
        weights = lax.stop_gradient(_weights(p, count, largest, kept, weighting, bins))
        return jnp.sum(weights * excess(window_gaps(gap, window), epsilon))

    return jnp.mean(lax.map(of, (found, kept)))


def window_gaps(gap: Array, window: int) -> Array:
    """Mean of ``gap`` (n,) over the ``window`` places around each one, with zeros beyond both ends, (n,)."""
    padded = jnp.pad(gap, (window // 2, window // 2))
    first = jnp.sum(padded[:window], keepdims=True)
    return jnp.concatenate([first, first + running_sum(padded[window:] - padded[:-window])]) / window


def events(log_probs: Array, labels: Array, subsets: str = "pooled") -> Events:
    """The sorted events of each subset: S = 1 of N C, or C of at most N C, or C of N. Errors as ``h_loss``."""
    one_of("subsets", subsets, SUBSETS)
    if log_probs.ndim != 2 or labels.shape != log_probs.shape[:1]:
        raise ValueError(f"log_probs, labels: shapes {log_probs.shape}, {labels.shape}: must be (N, C) and (N,)")
    classes = log_probs.shape[1]
    gap = jnp.exp(log_probs) - jax.nn.one_hot(labels, classes, dtype=log_probs.dtype)
    if subsets == "classwise":
        return _ordered(log_probs.T, gap.T)[0]
    whole_set, order = _ordered(log_probs.reshape(1, -1), gap.reshape(1, -1))
    if subsets == "pooled":
        return whole_set
    label = labels[order[0] // classes]
    counter = jnp.float32 if label.size < 2**24 else jnp.int32  # the faster one, as far as it counts exactly

    def without(k: Array) -> Events:
        """Those that stay move together: each to its rank among them, the others past the end, where they drop."""
        stays = label != k
        rank = jnp.where(stays, running_sum(stays.astype(counter)).astype(jnp.int32) - 1, label.size)

        def moved(x: Array, padding: float) -> Array:
            return jnp.full_like(x, padding).at[rank].set(x, mode="drop", unique_indices=True)

        return Events(moved(whole_set.p[0], PADDING), moved(whole_set.gap[0], 0), jnp.sum(stays))

    return lax.map(without, jnp.arange(classes))


def _ordered(log_probs: Array, gap: Array) -> tuple[Events, Array]:
    """Rows in the order of their log-probabilities; the order is a constant to derivatives."""
    order = jax.vmap(_order)(lax.stop_gradient(log_probs))
    p = jnp.take_along_axis(lax.stop_gradient(jnp.exp(log_probs)), order, axis=1)
    count = jnp.full(order.shape[0], order.shape[1])
    return Events(p, jnp.take_along_axis(gap, order, axis=1), count), order


def _order(x: Array) -> Array:
    """``jnp.argsort(x)``, stable, of finite x (n,), several times faster where there are 64-bit integers.

    Those are sorted natively, floats and pairs by a slow comparison. The bits of a float, read as an integer (those of
    negative ones but for the sign turned round), are in its order; below them, or the rank they give, goes the place.
    """
    place = jnp.arange(x.size)
    if place.dtype != jnp.int64:
        return jnp.argsort(x)
    whole_number = {4: jnp.int32, 8: jnp.int64}[x.dtype.itemsize]
    bits = lax.bitcast_convert_type(jnp.where(x == 0, 0, x), whole_number)
    key = jnp.where(bits < 0, bits ^ jnp.iinfo(whole_number).max, bits)
    rank = key if x.dtype.itemsize == 4 else jnp.searchsorted(lax.sort(key), key)
    return (lax.sort((rank.astype(jnp.int64) << 32) | place) & 0xFFFFFFFF).astype(jnp.int32)


def _weights(p: Array, count: Array, largest: Array, kept: Array, weighting: str, bins: int) -> Array:
    """The weight (n,) of each event's excess, 0 on the padding: that of its bin, divided by the bin's events.

    In sorted order a bin is a range. largest, kept: the largest probability of each sample (N,), and whether it counts.
    """
    inside = (jnp.arange(p.size) < count).astype(p.dtype)
    if weighting == "unweighted":
        return inside / count
    clusters = weighting.startswith("cluster")
    edges = kmeans_edges(p, inside, bins) if clusters else equal_width_edges(bins, p.dtype)
    ends = jnp.searchsorted(p, edges, side="right")
    starts = ends if clusters else jnp.searchsorted(p, edges, side="left")  # a bin closed below has its edge, too
    size = (jnp.append(ends, count) - jnp.append(0, starts)).astype(p.dtype)
    each = 1 / jnp.maximum(size, 1) if clusters else 1 / (size + ROOM)
    if weighting.endswith("ece"):
        low, high = jnp.append(-jnp.inf, edges)[:, None], jnp.append(edges, jnp.inf)[:, None]
        member = (largest[None, :] > low if clusters else largest[None, :] >= low) & (largest[None, :] <= high)
        each = each * (jnp.sum(member & kept[None, :], axis=1) / jnp.sum(kept))
    if weighting != "cluster_ece":
        each = each / bins
    place = jnp.arange(p.size)
    found = jnp.broadcast_to(each[0], p.shape)
    for start, end, its in zip(starts, ends, each[1:], strict=True):  # faster than to look each one up
        found = jnp.where(place >= end, its, jnp.where(place >= start, found + its, found))
    return found.astype(p.dtype) * inside
