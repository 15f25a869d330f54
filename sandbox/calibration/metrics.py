"""How far predictions are from calibrated: nineteen metrics, exact under weights, and their bootstrap intervals.

conf: the largest probability of a sample, acc: whether its class is the label (the first one of a tie). Bins are
(lo, hi], the first closed below, 15 unless said otherwise (``sandbox.calibration.binning``). Definitions follow the
released code of h-calibration (Huang et al. 2025, arXiv:2506.17968) unless said otherwise.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.nn import log_softmax
from jax.scipy.special import erf, gammaln

from sandbox.calibration.binning import (
    bin_index,
    bin_sums,
    equal_mass_edges,
    equal_width_edges,
    kmeans_edges,
    running_sum,
)
from sandbox.calibration.fit import checked
from sandbox.validate import in_range, whole

__all__ = [
    "BINS", "METRICS", "Interval", "Top", "best_class", "bootstrap", "debiased_ece", "ece", "ece_sweep",
    "folded_normal", "kde_ece", "ks", "metrics", "mmce", "pair_metrics", "top_label",
]  # fmt: skip

BINS = 15
SUMMED_BINS = 14  # of CWECE_s
SWEEP = 200  # bins at most in a sweep
GRID = 2**14  # points of the kernel density estimate on [-0.6, 1.6]
PAIRS = 1000  # rows at most whose pairs are compared
METRICS = (
    "ECE_ew", "ECE_em", "ACE", "ECE_r2", "dECE", "ECE_s_r1", "ECE_s_r2", "KS", "MMCE", "KDE_ECE", "CWECE_a", "CWECE_s",
    "CWECE_r2", "tCWECE", "tCWECE_k", "SKCE", "DKDE_CE", "NLL", "Brier",
)  # fmt: skip


class Top(NamedTuple):
    """Top-label predictions in the order of confidence: conf, acc, and how often each counts; all (n,)."""

    conf: Array
    acc: Array
    weights: Array


class Interval(NamedTuple):
    """A metric on the data, and the percentile interval of its bootstrap."""

    value: Array
    low: Array
    high: Array


def folded_normal(mean: Any, deviation: Any) -> Array:
    """E|X| of a normal X: s sqrt(2/pi) exp(-b^2 / 2 s^2) + b erf(b / (s sqrt 2)); |b| where s = 0."""
    safe = jnp.where(deviation > 0, deviation, 1)
    z = mean / safe
    spread = safe * jnp.sqrt(2 / jnp.pi) * jnp.exp(-(z**2) / 2) + mean * erf(z / jnp.sqrt(2))
    return jnp.where(deviation > 0, spread, jnp.abs(mean))


# -- of the top label --------------------------------------------------------------------------------------------------


def best_class(scores: Array) -> tuple[Array, Array]:
    """The largest of each row of scores (N, C) and its class, the first one of a tie: (N,) both, in one pass."""

    def better(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        first = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
        return jnp.where(first, a[0], b[0]), jnp.where(first, a[1], b[1])

    places = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    none = jnp.array(-jnp.inf, scores.dtype), jnp.int32(scores.shape[1])
    largest, place = lax.reduce((scores, places), none, better, (1,))
    return largest, place


def top_label(log_probs: Array, labels: Array, weights: Array) -> Top:
    """Top-label predictions of log_probs (N, C) in the order of confidence."""
    largest, best = best_class(log_probs)
    conf = jnp.exp(largest)
    order = jnp.argsort(conf)
    return Top(conf[order], (best == labels).astype(conf.dtype)[order], weights[order])


def _binned(values: Array, weights: Array, edges: Array, *means: Array) -> tuple[Array, ...]:
    """Of each bin of ``values``: its weight, and the mean of each of ``means`` in it (0 where it is empty)."""
    columns = jnp.stack([weights, *(weights * x for x in means)], axis=1)
    mass, *sums = bin_sums(bin_index(values, edges), columns, edges.size + 1).T
    full = jnp.where(mass > 0, mass, 1)
    return mass, *(x / full for x in sums)


def ece(top: Top, edges: Array, power: int = 1) -> Array:
    """(sum_b w_b |acc_b - conf_b|^power)^(1/power) over the bins between inner ``edges``; w_b: a bin's share."""
    mass, gap = _binned(top.conf, top.weights, edges, top.acc - top.conf)
    return jnp.sum(mass * jnp.abs(gap) ** power / jnp.sum(mass)) ** (1 / power)


def _ace(top: Top, edges: Array) -> Array:
    mass, gap = _binned(top.conf, top.weights, edges, top.acc - top.conf)
    return jnp.sum(jnp.abs(gap)) / jnp.sum(mass > 0)


def debiased_ece(top: Top, edges: Array) -> Array:
    """2 ECE less the mean of what ECE would be if the bins' gaps were the truth: noise then counts once, not twice."""
    mass, acc, conf = _binned(top.conf, top.weights, edges, top.acc, top.conf)
    again = folded_normal(acc - conf, jnp.sqrt(acc * (1 - acc) / jnp.where(mass > 0, mass, 1)))
    share = mass / jnp.sum(mass)
    return jnp.sum(share * (2 * jnp.abs(acc - conf) - again))


def ece_sweep(top: Top, power: int = 1) -> Array:
    """ECE with as many equal-mass bins, at most 200, as leave the bins' accuracies in order.

    The first number of bins whose accuracies fall somewhere ends the search. Bins are cut at ranks, ties or not.
    """
    reach = jnp.append(0, running_sum(top.weights))
    hits, sure = (jnp.append(0, running_sum(top.weights * x)) for x in (top.acc, top.conf))

    def bins(count: Any) -> tuple[Array, Array, Array]:
        ranks = jnp.minimum(jnp.round(jnp.arange(SWEEP + 1) * (reach[-1] / count)), reach[-1])
        mass, acc, conf = (jnp.diff(jnp.interp(ranks, reach, x)) for x in (reach, hits, sure))
        full = jnp.where(mass > 0, mass, 1)
        return mass, acc / full, conf / full

    def in_order(count: Any) -> Array:
        mass, acc, _ = bins(count)
        return jnp.all((jnp.diff(acc) >= 0) | (mass[1:] == 0)) & (count <= jnp.minimum(SWEEP, reach[-1]))

    last = lax.while_loop(lambda n: in_order(n + 1), lambda n: n + 1, 1)
    mass, acc, conf = bins(last)
    return jnp.sum(mass * jnp.abs(acc - conf) ** power / reach[-1]) ** (1 / power)


def ks(top: Top) -> Array:
    """max_k |sum_{i <= k} w_i (conf_i - acc_i)| / sum w, in the order of confidence: no bins."""
    return jnp.max(jnp.abs(running_sum(top.weights * (top.conf - top.acc)))) / jnp.sum(top.weights)


def mmce(top: Top) -> Array:
    """sqrt of the mean over pairs of (acc - conf)_i (acc - conf)_j exp(-2.5 |conf_i - conf_j|), in n log n steps.

    In the order of confidence the kernel is e^(-2.5 c_i) e^(2.5 c_j): a running sum.
    """
    gap = top.weights * (top.acc - top.conf)
    rise = jnp.exp(2.5 * top.conf)
    before = running_sum(gap * rise) - gap * rise
    return jnp.sqrt(jnp.maximum(jnp.sum(gap * gap + 2 * gap * before / rise), 0)) / jnp.sum(top.weights)


def kde_ece(top: Top) -> Array:
    """Integral over [0, 1] of |c - acc(c)| f(c), with kernel estimates of the density f and of the accuracy acc(c).

    Triweight kernels of standard deviation std(conf of the right) (2 N)^(-1/5), mirrored at 0 and 1, on 2^14 points of
    [-0.6, 1.6]; their half-width, three standard deviations, is at least two steps and at most 0.6.
    """
    size = jnp.sum(top.weights)
    right = top.weights * top.acc
    mean = jnp.sum(right * top.conf) / jnp.maximum(jnp.sum(right), 1)
    deviation = jnp.sqrt(jnp.sum(right * (top.conf - mean) ** 2) / jnp.maximum(jnp.sum(right), 1))
    step = 2.2 / (GRID - 1)
    reach = jnp.clip(3 * deviation * (2 * size) ** -0.2, 2 * step, 0.6)

    def spread(weights: Array) -> Array:
        """Weights on the grid, each split between its two neighbours."""
        points = jnp.concatenate([top.conf, -top.conf, 2 - top.conf])
        place = (points + 0.6) / step
        inside = (place >= 0) & (place <= GRID - 1)
        low = jnp.clip(jnp.floor(place), 0, GRID - 2)
        part, weights = place - low, jnp.where(inside, jnp.tile(weights, 3), 0)
        low = low.astype(jnp.int32)
        return jnp.zeros(GRID, weights.dtype).at[low].add(weights * (1 - part)).at[low + 1].add(weights * part)

    offsets = jnp.minimum(jnp.arange(2 * GRID), 2 * GRID - jnp.arange(2 * GRID)) * step / reach
    kernel = jnp.where(offsets < 1, (1 - offsets**2) ** 3, 0)
    kernel = jnp.fft.rfft(kernel / (jnp.sum(kernel) * step))

    def density(weights: Array) -> Array:
        return jnp.fft.irfft(jnp.fft.rfft(spread(weights), 2 * GRID) * kernel, 2 * GRID)[:GRID]

    c = -0.6 + step * jnp.arange(GRID)
    gap = jnp.abs(c * density(top.weights) - density(right))
    inside = jnp.clip((1 - c) / step + 0.5, 0, 1) * jnp.clip(c / step + 0.5, 0, 1)  # of the cell around each point
    return jnp.sum(inside * gap) * step / size


# -- of each class -----------------------------------------------------------------------------------------------------


def _classwise(probs: Array, hits: Array, weights: Array, edges: Array, power: int = 1) -> Array:
    """ECE (C,) of each class's column, (N, C); weights (N, C), edges (C, B - 1); 0 for a class without weight."""

    def of(p: Array, o: Array, w: Array, edges: Array) -> Array:
        mass, gap = _binned(p, w, edges, o - p)
        return jnp.sum(mass * jnp.abs(gap) ** power / jnp.maximum(jnp.sum(w), 1e-9)) ** (1 / power)

    return jax.vmap(of, in_axes=(1, 1, 1, 0))(probs, hits, weights, edges)


def _class_metrics(probs: Array, hits: Array, weights: Array, order: Array) -> dict[str, Array]:
    classes = probs.shape[1]

    def all_alike(bins: int) -> Array:
        return jnp.tile(equal_width_edges(bins, probs.dtype), (classes, 1))

    every = jnp.broadcast_to(weights[:, None], probs.shape)
    likely = every * (probs > 1 / classes)
    clusters = jax.vmap(lambda p, w, order: kmeans_edges(p[order], w[order], BINS), (1, 1, 1))(probs, likely, order)
    return {
        "CWECE_a": jnp.mean(_classwise(probs, hits, every, all_alike(BINS))),
        "CWECE_s": jnp.sum(_classwise(probs, hits, every, all_alike(SUMMED_BINS))),
        "CWECE_r2": jnp.mean(_classwise(probs, hits, every, all_alike(BINS), 2)),
        "tCWECE": jnp.mean(_classwise(probs, hits, likely, all_alike(BINS))),
        "tCWECE_k": jnp.mean(_classwise(probs, hits, likely, clusters)),
    }


# -- of pairs of rows --------------------------------------------------------------------------------------------------


def _kernels(log_probs: Array, labels: Array) -> tuple[Array, Array]:
    """Of all pairs of rows: SKCE's terms, and the Dirichlet kernel by rows, up to a factor a row; 0 on the diagonal."""
    probs = jnp.exp(log_probs)
    hits = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    squares = jnp.sum(probs**2, axis=1)
    distance = jnp.sqrt(jnp.maximum(squares[:, None] + squares[None, :] - 2 * probs @ probs.T, 0))
    apart = ~jnp.eye(labels.size, dtype=bool)
    terms = jnp.where(apart, jnp.exp(-distance) * ((hits - probs) @ (hits - probs).T), 0)
    logs = log_probs @ probs.T - jnp.sum(gammaln(probs + 1), axis=1)[None, :]  # parameters p_j + 1, whose sum is C + 1
    logs = jnp.where(apart, logs, -jnp.inf)
    return terms, jnp.exp(logs - jnp.max(logs, axis=1, keepdims=True))


def pair_metrics(log_probs: Array, labels: Array, weights: Array, kernels: tuple[Array, Array]) -> dict[str, Array]:
    """SKCE, unbiased, and DKDE_CE from the kernels of all pairs; a row is in no pair with itself, however often drawn.

    SKCE: mean over pairs of exp(-|p_i - p_j|) (o_i - p_i) . (o_j - p_j). DKDE_CE: mean over i of |E_i - p_i|^2, E_i the
    mean label of the others, weighted by the density at p_i of a Dirichlet law with parameters p_j + 1.
    """
    terms, near = kernels
    probs = jnp.exp(log_probs)
    hits = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    pairs = jnp.sum(weights) ** 2 - jnp.sum(weights**2)
    mass = near @ weights
    around = near @ (weights[:, None] * hits) / jnp.where(mass > 0, mass, 1)[:, None]
    off = jnp.sum((around - probs) ** 2, axis=1)
    return {
        "SKCE": weights @ terms @ weights / pairs,
        "DKDE_CE": jnp.sum(weights * off) / jnp.sum(weights),
    }


# -- all of them -------------------------------------------------------------------------------------------------------


class _Prepared(NamedTuple):
    log_probs: Array
    labels: Array
    order: Array
    rows: Array
    kernels: tuple[Array, Array]


def _prepare(log_probs: Array, labels: Array) -> _Prepared:
    """What no weights change: orders and kernels. Pairs are of at most 1000 rows, evenly spaced."""
    n = labels.size
    rows = jnp.arange(n) if n <= PAIRS else (jnp.arange(PAIRS) * n) // PAIRS
    kernels = _kernels(log_probs[rows], labels[rows])
    return _Prepared(log_probs, labels, jnp.argsort(log_probs, axis=0), rows, kernels)


def _measure(data: _Prepared, weights: Array) -> dict[str, Array]:
    log_probs, labels, order, rows, kernels = data
    probs = jnp.exp(log_probs)
    hits = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    size = jnp.sum(weights)
    top = top_label(log_probs, labels, weights)
    equal, mass = equal_width_edges(BINS, probs.dtype), equal_mass_edges(top.conf, top.weights, BINS)
    found = {
        "ECE_ew": ece(top, equal),
        "ECE_em": ece(top, mass),
        "ACE": _ace(top, equal),
        "ECE_r2": ece(top, equal, 2),
        "dECE": debiased_ece(top, mass),
        "ECE_s_r1": ece_sweep(top),
        "ECE_s_r2": ece_sweep(top, 2),
        "KS": ks(top),
        "MMCE": mmce(top),
        "KDE_ECE": kde_ece(top),
        **_class_metrics(probs, hits, weights, order),
        **pair_metrics(log_probs[rows], labels[rows], weights[rows], kernels),
        "NLL": -weights @ jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0] / size,
        "Brier": weights @ jnp.sum((probs - hits) ** 2, axis=1) / size,
    }
    return found


@jax.jit
def _all(log_probs: Array, labels: Array, weights: Array) -> dict[str, Array]:
    return _measure(_prepare(log_softmax(log_probs), labels), weights)


def metrics(log_probs: Any, labels: Any, weights: Any = None) -> dict[str, Array]:
    """Every metric of predictions, log-probabilities or logits (N, C), against labels (N,); names in ``METRICS``.

    weights: (N,) whole numbers >= 0, how often each sample counts (once): the value is that of the sample so repeated,
    but that no pair of SKCE and DKDE_CE is a sample with itself. All are >= 0 but dECE and SKCE, which may be negative.
    Probabilities in [0, 1]; NLL in nats. SKCE and DKDE_CE are of at most 1000 rows, evenly spaced.

    Raises ValueError for shapes that do not match, predictions that are not finite, and labels outside 0 to C - 1.
    """
    log_probs, labels = checked(log_probs, labels)
    ones = jnp.ones(labels.size, log_probs.dtype) if weights is None else jnp.asarray(weights, log_probs.dtype)
    found = _all(log_probs, labels, ones)
    return {name: found[name] for name in METRICS}


def bootstrap(
    key: Array, log_probs: Any, labels: Any, *, resamples: int = 200, level: float = 0.95
) -> dict[str, Interval]:
    """Every metric with the percentile interval of ``resamples`` draws of the samples with replacement.

    Errors as ``metrics``, and unless resamples >= 2 and 0 < level < 1.
    """
    whole("resamples", resamples, 2)
    in_range("level", level, 0, 1, "()")
    log_probs, labels = checked(log_probs, labels)
    value, drawn = _bootstrap(resamples, key, log_probs, labels)
    ends = jnp.asarray([(1 - level) / 2, (1 + level) / 2])
    return {name: Interval(value[name], *jnp.quantile(drawn[name], ends)) for name in METRICS}


@partial(jax.jit, static_argnums=0)
def _bootstrap(resamples: int, key: Array, log_probs: Array, labels: Array) -> tuple[Any, Any]:
    data = _prepare(log_softmax(log_probs), labels)
    n = labels.size

    def draw(key: Array) -> Array:
        picked = jnp.floor(jax.random.uniform(key, (n,)) * n).astype(jnp.int32)
        return jnp.zeros(n, log_probs.dtype).at[picked].add(1)

    counts = jnp.concatenate([jnp.ones((1, n), log_probs.dtype), lax.map(draw, jax.random.split(key, resamples))])
    found = lax.map(lambda weights: _measure(data, weights), counts)  # the first are the data
    return {name: x[0] for name, x in found.items()}, {name: x[1:] for name, x in found.items()}
