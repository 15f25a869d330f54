"""The h-calibration loss: sort all events by their probability, average predicted minus observed over windows.

Huang et al. 2025, arXiv:2506.17968, as released, except that the released code multiplies it by 1e5, clips at 1e-20
before it sorts, and clusters with a random k-means. It is differentiable almost everywhere; the gradient flows through
the probabilities, not through their order. Ties are in row-major order. Fixed shapes: ``jit``, ``grad`` and ``vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """Events of S sets in the order of their probabilities.

    p: (S, n); gap: (S, n), p - o; label: (S, n), the label of the event's sample.
    """

    p: Array
    gap: Array
    label: Array


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
    one_of("subsets", subsets, SUBSETS)
    found = events(log_probs, labels, classwise=subsets == "classwise")
    largest = jnp.exp(jnp.max(log_probs, axis=1))

    left_out = subsets == "leave_one_class_out"
    sets = jnp.arange(log_probs.shape[1] if left_out else found.p.shape[0])
    # Floats count exactly up to 2 / eps, and faster than whole numbers do.
    number = log_probs.dtype if found.p.shape[1] < 2 / jnp.finfo(log_probs.dtype).eps else jnp.int32

    def for_each_set(f: Callable[..., Array], *of_each: Array, **options: Any) -> Array:
        """f(p, gap, number of the set, ...) of every set; without one class, all look at the same events."""
        if left_out:
            p, gap = found.p[0], found.gap[0]
            return lax.map(lambda one: f(p, gap, *one), (sets, *of_each), **options)
        return lax.map(lambda one: f(*one), (found.p, found.gap, sets, *of_each), **options)

    def stays(k: Array) -> Array:
        return (found.label[0] != k if left_out else jnp.ones(found.p.shape[1], bool)).astype(number)

    def clustered(p: Array, gap: Array, k: Array) -> Array:
        return kmeans_edges(p, stays(k).astype(p.dtype), bins)

    def loss(p: Array, gap: Array, k: Array, edges: Array) -> Array:
        kept = labels != k if left_out else jnp.ones(labels.size, bool)
        reach = jnp.append(0, running_sum(stays(k))) if left_out else jnp.arange(p.size + 1, dtype=number)
        weights = lax.stop_gradient(_weights(p, edges, reach, largest, kept, weighting))
        if left_out:  # those that stay move together, the others past the end, where they drop
            rank = jnp.where(stays(k) > 0, reach[1:] - 1, p.size).astype(jnp.int32)
            gap = jnp.zeros_like(gap).at[rank].set(gap, mode="drop", unique_indices=True)
        return weights @ excess(window_gaps(gap, window), epsilon)

    if weighting.startswith("cluster"):  # an iteration of k-means is short, hence many sets at once
        edges = for_each_set(clustered, batch_size=16)
    else:
        edges = jnp.tile(equal_width_edges(bins, found.p.dtype), (sets.size, 1))
    return jnp.mean(for_each_set(loss, edges))


def window_gaps(gap: Array, window: int) -> Array:
    """Mean of ``gap`` (n,) over the ``window`` places around each one, with zeros beyond both ends, (n,)."""
    half = min(window // 2, gap.size - 1)
    beyond = jnp.zeros(half, gap.dtype)
    enter, leave = jnp.append(gap[half + 1 :], beyond), jnp.append(beyond, gap)[: gap.size - 1]
    return running_sum(jnp.append(jnp.sum(gap[: half + 1]), enter - leave)) / window


def events(log_probs: Array, labels: Array, *, classwise: bool = False) -> Events:
    """The sorted events: one set of all N C, or one of N for each class; log_probs (N, C), labels (N,).

    Raises ValueError for other shapes.
    """
    if log_probs.ndim != 2 or labels.shape != log_probs.shape[:1]:
        raise ValueError(f"log_probs, labels: shapes {log_probs.shape}, {labels.shape}: must be (N, C) and (N,)")
    classes = log_probs.shape[1]
    gap = jnp.exp(log_probs) - jax.nn.one_hot(labels, classes, dtype=log_probs.dtype)
    if classwise:
        p, gap, order = _ordered(log_probs.T, gap.T)
        return Events(p, gap, labels[order])
    p, gap, order = _ordered(log_probs.reshape(1, -1), gap.reshape(1, -1))
    return Events(p, gap, labels[order // classes])


def _ordered(log_probs: Array, gap: Array) -> tuple[Array, Array, Array]:
    """p and gap of rows in the order of their log-probabilities, and that order, a constant to derivatives."""
    order = jax.vmap(_order)(lax.stop_gradient(log_probs))
    p = jnp.take_along_axis(lax.stop_gradient(jnp.exp(log_probs)), order, axis=1)
    return p, jnp.take_along_axis(gap, order, axis=1), order


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


def _weights(p: Array, edges: Array, reach: Array, largest: Array, kept: Array, weighting: str) -> Array:
    """The weight (n,) of the excess of each event that stays, in order, and 0 after them: its bin's, shared by the bin.

    In sorted order a bin is a range. p (n,): all events, in order; edges (B - 1,): between the bins; reach (n + 1,):
    how many stay before each. largest, kept: the largest probability of each sample (N,), and whether it counts.
    """
    place, count = jnp.arange(p.size, dtype=reach.dtype), reach[-1]
    inside = (place < count).astype(p.dtype)
    if weighting == "unweighted":
        return inside / count
    clusters = weighting.startswith("cluster")
    ends = reach[jnp.searchsorted(p, edges, side="right")]
    starts = ends if clusters else reach[jnp.searchsorted(p, edges, side="left")]  # closed below: has its edge, too
    size = (jnp.append(ends, count) - jnp.append(0, starts)).astype(p.dtype)
    each = 1 / jnp.maximum(size, 1) if clusters else 1 / (size + ROOM)
    if weighting.endswith("ece"):
        low, high = jnp.append(-jnp.inf, edges)[:, None], jnp.append(edges, jnp.inf)[:, None]
        member = (largest[None, :] > low if clusters else largest[None, :] >= low) & (largest[None, :] <= high)
        each = each * (jnp.sum(member & kept[None, :], axis=1) / jnp.sum(kept))
    if weighting != "cluster_ece":
        each = each / each.size
    found = jnp.broadcast_to(each[0], p.shape)
    for start, end, its in zip(starts, ends, each[1:], strict=True):  # faster than to look each one up
        at_edge = found if clusters else jnp.where(place >= start, found + its, found)
        found = jnp.where(place >= end, its, at_edge)
    return found.astype(p.dtype) * inside
