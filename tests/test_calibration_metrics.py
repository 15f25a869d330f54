"""Calibration metrics: a plain NumPy reference, weights against repetition, edges, truth, and intervals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

from sandbox import calibration
from sandbox.calibration import METRICS, bin_sums, bootstrap, metrics
from tests import calibration_numpy as plain
from tests.tolerances import Tolerance, assert_close

X64 = jax.config.jax_enable_x64
N = 90
CLOSE = Tolerance(1e-9 if X64 else 2e-4, 1e-9 if X64 else 2e-5, "sums over 90 rows; in float32 squares of small gaps")


def case(seed=0, n=N, classes=3):
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, classes))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    law = p**0.6 / (p**0.6).sum(axis=1, keepdims=True)
    return p, (law.cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)


P, Y = case()
LOG_P = np.log(P).astype(float if X64 else np.float32)
FOUND = {name: float(x) for name, x in metrics(LOG_P, Y).items()}


def test_names_are_those_of_the_record():
    assert tuple(FOUND) == METRICS


def test_agrees_with_plain_numpy():
    expected = plain.metrics(P, Y)
    assert set(METRICS) - set(expected) == {"KDE_ECE", "tCWECE_k"}
    for name, value in expected.items():
        assert_close(FOUND[name], value, CLOSE, name)


def test_clustered_classwise_error_by_hand():
    total = 0.0
    for k in range(3):
        likely = P[:, k] > 1 / 3
        p, o = P[likely, k], (Y[likely] == k).astype(float)
        own = plain.nearest(p, plain.lloyd(p, 15))
        total += sum(np.mean(own == b) * abs((o - p)[own == b].mean()) for b in range(15) if np.any(own == b))
    assert_close(FOUND["tCWECE_k"], total / 3, CLOSE)


def test_kernel_estimate_by_direct_sums():
    """Triweight kernels at every point, mirrored, on a coarser grid: no bins, no Fourier transform."""
    conf, acc = P.max(axis=1), (P.argmax(axis=1) == Y).astype(float)
    reach = 3 * conf[acc == 1].std() * (2 * N) ** -0.2
    c = (np.arange(4000) + 0.5) / 4000

    def density(weights):
        total = np.zeros_like(c)
        for mirrored in (conf, -conf, 2 - conf):
            u = (c[:, None] - mirrored[None, :]) / reach
            total += (np.where(np.abs(u) < 1, 35 / 32 * (1 - u**2) ** 3, 0) / reach) @ weights
        return total

    direct = np.mean(np.abs(c * density(np.ones(N)) - density(acc))) / N
    assert_close(FOUND["KDE_ECE"], direct, Tolerance(1e-3, 1e-4, "linear binning on 2^14 points"))


def test_sums_of_millions_keep_the_digits_of_float32():
    """One after the other they would lose 1%: beyond 2^19 float32 only knows multiples of 1/16."""
    many = 2**21
    found = bin_sums(jnp.zeros(many, int), jnp.full(many, 0.99, jnp.float32), 2)
    assert_close(found, [np.float32(0.99) * many, 0], Tolerance(128 * 2.0**-24, 0, "128 roundings in a block"))


def test_kernel_estimate_of_certainty():
    """All sure and half of them right: the narrowest kernel, halved at 1, still integrates to what is there."""
    found = metrics(np.log([[1 - 1e-9, 1e-9]] * 8), [0, 1] * 4)["KDE_ECE"]
    assert_close(found, 0.5, Tolerance(0.05, 0, "cells cut at 1, where two steps of the grid hold the kernel"))


def test_weights_are_repetitions():
    rows = np.random.default_rng(1).integers(0, N, N)
    counts = np.bincount(rows, minlength=N)
    repeated, weighted = metrics(LOG_P[rows], Y[rows]), metrics(LOG_P, Y, counts)
    for name in set(METRICS) - {"SKCE", "DKDE_CE"}:
        assert_close(weighted[name], repeated[name], CLOSE, name)
    apart = counts[:, None] * counts[None, :] * ~np.eye(N, dtype=bool)
    hit = np.eye(3)[Y]
    distance = np.sqrt(((P[:, None] - P[None]) ** 2).sum(axis=-1))
    terms = np.exp(-distance) * ((hit - P) @ (hit - P).T)
    assert_close(weighted["SKCE"], (apart * terms).sum() / apart.sum(), CLOSE)


def test_float32_is_close_to_float64():
    for name, value in metrics(LOG_P.astype(np.float32), Y).items():
        assert value.dtype == jnp.float32
        assert_close(value, FOUND[name], Tolerance(1e-4, 1e-4, "float32"), name)


def test_edges_of_the_confidence():
    """Confidences at 0.5, at an edge and at 1: (lo, hi] puts 0.6 of fifteen bins into the bin that it closes."""
    p = np.array([[0.5, 0.5], [0.6, 0.4], [1 - 1e-12, 1e-12], [0.4, 0.6]])
    y = np.array([0, 1, 0, 1])
    found = metrics(np.log(p), y)
    assert_close(found["ECE_ew"], (0.5 + abs(2 * 0.6 - 1) + 0) / 4, Tolerance(0, 1e-6, "float32"))


def test_plug_in_error_is_positive_at_the_truth_and_the_debiased_is_not():
    """Right predictions, 200 draws of labels: ECE is the mean of folded binomials, and dECE a share 2 - sqrt 2 of it.

    A gap that is noise alone, of deviation s, is taken for the truth; with the noise again its deviation is s sqrt 2.
    """
    q = np.repeat(np.linspace(0.55, 0.95, 5), 40)
    log_q = jnp.asarray(np.log(np.stack([q, 1 - q], axis=1)), jnp.result_type(float))
    edges = calibration.equal_width_edges(5, log_q.dtype)
    hits = jax.random.uniform(jax.random.key(0), (200, q.size)) < q[None, :]

    @jax.jit
    @jax.vmap
    def both(hit):
        top = calibration.top_label(log_q, jnp.where(hit, 0, 1), jnp.ones(q.size, log_q.dtype))
        plug_in = calibration.ece(top, edges)
        return plug_in, calibration.debiased_ece(top, edges)

    plug_in, debiased = (np.asarray(x) for x in both(hits))
    index = np.asarray(calibration.bin_index(jnp.asarray(q), edges))
    exact = 0.0
    for b in set(index):
        laws = np.array([1.0])
        for value in q[index == b]:
            laws = np.convolve(laws, [1 - value, value])
        exact += np.sum(laws * np.abs(np.arange(len(laws)) - q[index == b].sum())) / q.size
    error = plug_in.std() / np.sqrt(200)
    assert_close(plug_in.mean(), exact, Tolerance(0, 4 * error, "4 standard errors"))
    share = debiased.mean() / plug_in.mean()
    assert_close(share, 2 - np.sqrt(2), Tolerance(0, 0.04, "4 standard errors, and bins of 40"))
    assert plug_in.mean() > 4 * error


def test_within_bin_cancellation_and_top_label_against_classwise():
    """A bin without a gap that holds two wrong predictions; a right top label with wrong classes."""
    p = np.repeat([[0.61, 0.39], [0.66, 0.34]], 100, axis=0)
    hits = np.concatenate([np.arange(100) < 73, np.arange(100) < 54])  # .73 and .54 against .61 and .66
    assert_close(metrics(np.log(p), np.where(hits, 0, 1))["ECE_ew"], 0, Tolerance(0, 1e-6, "float32"))
    p = np.repeat([[0.6, 0.4], [0.4, 0.6]], 100, axis=0)
    y = np.where(np.concatenate([np.arange(100) < 80, np.arange(100) < 60]), 0, 1)
    found = metrics(np.log(p), y)
    assert_close(found["ECE_ew"], 0, Tolerance(0, 1e-6, "float32"))
    assert_close(found["CWECE_a"], 0.2, Tolerance(0, 1e-6, "float32"))


def test_folded_normal():
    for mean, deviation in ((0.0, 1.0), (0.3, 0.1), (-0.2, 0.5), (0.4, 0.0)):
        expected = plain.folded_normal(mean, deviation)
        assert_close(calibration.folded_normal(mean, deviation), expected, Tolerance(1e-5, 1e-6, "quadrature"))


@pytest.mark.parametrize(
    ("count", "exact", "formula"), [(51, 0.05614, 0.05586), (201, 0.02817, 0.02814), (801, 0.01410, 0.01410)]
)
def test_noise_floor_against_the_exact_binomial(count, exact, formula):
    k = np.arange(count + 1)
    assert abs(np.sum(binom.pmf(k, count, 0.5) * np.abs(k / count - 0.5)) - exact) < 6e-6
    assert_close(calibration.noise_floor(0.25, count), formula, Tolerance(0, 6e-6, "five printed decimals"))


def test_bootstrap_intervals():
    found = bootstrap(jax.random.key(0), LOG_P, Y, resamples=40)
    for name, interval in found.items():
        assert_close(interval.value, FOUND[name], CLOSE)
        assert interval.low < interval.high, name
    score = -LOG_P[np.arange(N), Y]
    spread = score.std() / np.sqrt(N)
    width = float(found["NLL"].high - found["NLL"].low)
    assert 2.5 * spread < width < 5 * spread, "a 95% interval of a mean is about four standard errors wide"
    with pytest.raises(ValueError, match="resamples = 1"):
        bootstrap(jax.random.key(0), LOG_P, Y, resamples=1)
    with pytest.raises(ValueError, match="level"):
        bootstrap(jax.random.key(0), LOG_P, Y, level=1.0)
    with pytest.raises(ValueError, match="labels"):
        metrics(LOG_P, Y + 1)


def test_of_a_tie_the_first_class_is_the_best():
    """As argmax has it, in rows whose largest stands once, twice, or everywhere."""
    scores = jnp.array([[0.2, 0.5, 0.3], [0.1, 0.45, 0.45], [0.4, 0.2, 0.4], [1 / 3, 1 / 3, 1 / 3], [-1.0, -3.0, -1.0]])
    largest, best = jax.jit(calibration.best_class)(scores)
    assert best.tolist() == [1, 1, 0, 0, 0] == jnp.argmax(scores, axis=1).tolist()
    assert jnp.array_equal(largest, jnp.max(scores, axis=1))
