"""The h-calibration loss and metrics in plain NumPy with loops, from the definitions: what JAX must agree with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def subsets(p, y, kind):
    """Lists of (probabilities, outcomes, largest probabilities), one a subset, flattened row by row."""
    hit = np.eye(p.shape[1])[y]
    if kind == "pooled":
        return [(p.ravel(), hit.ravel(), p.max(axis=1))]
    if kind == "classwise":
        return [(p[:, k], hit[:, k], p.max(axis=1)) for k in range(p.shape[1])]
    return [(p[y != k].ravel(), hit[y != k].ravel(), p[y != k].max(axis=1)) for k in range(p.shape[1])]


def lloyd(values, bins, iterations=25):
    """Centres of one-dimensional k-means, started at the quantiles (b + 1/2) / B of the sorted values."""
    ordered = np.sort(values)
    centres = ordered[np.floor((np.arange(bins) + 0.5) * len(values) / bins).astype(int)]
    for _ in range(iterations):
        own = nearest(values, centres)
        centres = np.array([values[own == b].mean() if np.any(own == b) else centres[b] for b in range(bins)])
    return centres


def nearest(values, centres):
    """Index of the nearest of increasing centres, the lower of two."""
    return np.sum(values[:, None] > (centres[1:] + centres[:-1])[None, :] / 2, axis=1)


def h_loss(p, y, window, epsilon, kind, weighting, bins=15):
    """The loss, subset by subset, window by window."""
    found = []
    for values, hits, largest in subsets(p, y, kind):
        order = np.argsort(values, kind="stable")
        values, gap = values[order], (values - hits)[order]
        half, n = window // 2, len(gap)
        sums = [gap[max(0, i - half) : i + half + 1].sum() for i in range(n)]
        over = np.maximum(np.abs(np.array(sums) / window) - epsilon, 0)
        if weighting == "unweighted":
            found.append(over.mean())
            continue
        if weighting.startswith("cluster"):
            centres = lloyd(values, bins)
            own, top = nearest(values, centres), nearest(largest, centres)
            means = [over[own == b].mean() if np.any(own == b) else 0 for b in range(bins)]
            shares = [np.mean(top == b) for b in range(bins)]
        else:
            edges = np.array([b / bins for b in range(bins + 1)])
            inside = [(values >= a) & (values <= b) for a, b in pairwise(edges)]
            means = [over[s].sum() / (s.sum() + 1e-5) for s in inside]
            shares = [np.mean((largest >= a) & (largest <= b)) for a, b in pairwise(edges)]
        terms = means if weighting.endswith("_ace") or weighting == "ace" else np.multiply(means, shares)
        found.append(np.sum(terms) if weighting == "cluster_ece" else np.mean(terms))
    return np.mean(found)


def bins_of(values, edges):
    """Members of each bin (lo, hi], the first closed below, one mask a bin."""
    return [(values > a) & (values <= b) | ((k == 0) & (values == a)) for k, (a, b) in
            enumerate(pairwise(edges))]  # fmt: skip


def folded_normal(mean, deviation, points=400_001):
    """E|X| of a normal X by the trapezium rule."""
    if deviation == 0:
        return abs(mean)
    x = np.linspace(-12, 12, points)
    return np.trapezoid(np.abs(mean + deviation * x) * np.exp(-(x**2) / 2), x) / np.sqrt(2 * np.pi)


def metrics(p, y, bins=15):
    """Most of the metrics, by loops over bins and pairs."""
    n, classes = p.shape
    hit = np.eye(classes)[y]
    conf, acc = p.max(axis=1), (p.argmax(axis=1) == y).astype(float)
    equal = np.array([b / bins for b in range(bins + 1)])
    ordered = np.sort(conf)
    mass = np.interp(np.linspace(0, n, bins + 1), np.arange(n) + 0.5, ordered)

    def gaps(edges, conf=conf, acc=acc):
        return [
            (s.mean(), acc[s].mean() - conf[s].mean(), acc[s].mean(), s.sum()) for s in bins_of(conf, edges) if s.any()
        ]

    def of_class(k, edges, power=1, low=-1.0):
        q, o = p[p[:, k] > low, k], hit[p[:, k] > low, k]
        return sum(s.mean() * abs(o[s].mean() - q[s].mean()) ** power for s in bins_of(q, edges) if s.any()) ** (
            1 / power
        )

    order = np.argsort(conf, kind="stable")
    walk = np.cumsum((conf - acc)[order])
    gap = acc - conf
    apart = ~np.eye(n, dtype=bool)
    distance = np.sqrt(((p[:, None, :] - p[None, :, :]) ** 2).sum(axis=-1))
    inner = (hit - p) @ (hit - p).T
    fourteen = np.array([b / 14 for b in range(15)])
    debiased = sum(w * (2 * abs(d) - folded_normal(d, np.sqrt(a * (1 - a) / m))) for w, d, a, m in gaps(mass))
    return {
        "ECE_ew": sum(w * abs(d) for w, d, *_ in gaps(equal)),
        "ECE_em": sum(w * abs(d) for w, d, *_ in gaps(mass)),
        "ACE": np.mean([abs(d) for _, d, *_ in gaps(equal)]),
        "ECE_r2": np.sqrt(sum(w * d**2 for w, d, *_ in gaps(equal))),
        "dECE": debiased,
        "ECE_s_r1": sweep(conf[order], acc[order], 1),
        "ECE_s_r2": sweep(conf[order], acc[order], 2),
        "KS": np.abs(walk).max() / n,
        "MMCE": np.sqrt((np.outer(gap, gap) * np.exp(-2.5 * np.abs(conf[:, None] - conf[None, :]))).mean()),
        "CWECE_a": np.mean([of_class(k, equal) for k in range(classes)]),
        "CWECE_s": np.sum([of_class(k, fourteen) for k in range(classes)]),
        "CWECE_r2": np.mean([of_class(k, equal, 2) for k in range(classes)]),
        "tCWECE": np.mean([of_class(k, equal, low=1 / classes) for k in range(classes)]),
        "SKCE": (np.exp(-distance) * inner)[apart].mean(),
        "DKDE_CE": dirichlet(p, hit),
        "NLL": -np.log(p[np.arange(n), y]).mean(),
        "Brier": ((p - hit) ** 2).sum(axis=1).mean(),
    }


def sweep(conf, acc, power):
    """ECE at the last number of equal-mass bins before the bins' accuracies fall somewhere."""
    n, kept = len(conf), None
    for bins in range(1, n + 1):
        cuts = np.round(np.arange(bins + 1) * n / bins).astype(int)
        parts = [slice(a, b) for a, b in pairwise(cuts) if b > a]
        means = [acc[s].mean() for s in parts]
        if np.any(np.diff(means) < 0):
            break
        kept = parts
    return sum((s.stop - s.start) / n * abs(acc[s].mean() - conf[s].mean()) ** power for s in kept) ** (1 / power)


def dirichlet(p, hit):
    """Mean squared distance from the others' labels, weighted by SciPy's Dirichlet density."""
    from scipy.stats import dirichlet as law

    total = 0.0
    for i in range(len(p)):
        weights = np.array([law(p[j] + 1).pdf(p[i] / p[i].sum()) if j != i else 0 for j in range(len(p))])
        total += ((weights @ hit / weights.sum() - p[i]) ** 2).sum()
    return total / len(p)
