"""The h-calibration loss: worked values, a plain NumPy reference, its gradient, bins and their edges."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sandbox import calibration
from sandbox.calibration import SUBSETS, WEIGHTINGS, HLoss
from sandbox.runtime import quickly_compiled
from tests import calibration_numpy as plain
from tests.tolerances import Tolerance, assert_close, identity

X64 = jax.config.jax_enable_x64
FOUR = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
FOUR_LABELS = jnp.array([0, 1, 0, 1])
h_loss = jax.jit(
    calibration.h_loss, static_argnames=("window", "subsets", "weighting", "bins"), compiler_options=quickly_compiled(0)
)
CLOSE = Tolerance(0, 1e-10 if X64 else 2e-5, "sums of some hundred gaps, in other orders")


def case(n=60, classes=4, seed=0):
    """Predictions without ties, and labels that they do not fit."""
    rng = np.random.default_rng(seed)
    p = np.exp(2 * rng.normal(size=(n, classes)))
    p /= p.sum(axis=1, keepdims=True)
    return p, rng.integers(0, classes, n)


def logs(p):
    return jnp.log(jnp.asarray(p, jnp.result_type(float)))


@pytest.mark.parametrize(
    ("subsets", "epsilon", "loss"),
    [("pooled", 0, 0.125), ("pooled", 0.1, 0.0416667), ("leave_one_class_out", 0, 0.1583333),
     ("leave_one_class_out", 0.1, 0.075)],
)  # fmt: skip
def test_worked_values(subsets, epsilon, loss):
    found = h_loss(logs(FOUR), FOUR_LABELS, window=3, epsilon=epsilon, subsets=subsets)
    assert_close(found, loss, Tolerance(0, 1e-7 if X64 else 1e-6, "seven printed digits"))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("subsets", SUBSETS)
def test_agrees_with_plain_numpy(subsets, weighting):
    p, y = case()
    for epsilon in (0.0, 0.05):
        found = h_loss(
            logs(p), jnp.asarray(y), window=21, epsilon=epsilon, subsets=subsets, weighting=weighting, bins=5
        )
        assert_close(found, plain.h_loss(p, y, 21, epsilon, subsets, weighting, 5), CLOSE)


@pytest.mark.parametrize("weighting", ["ace", "ece"])
@pytest.mark.parametrize("subsets", SUBSETS)
def test_an_event_at_an_edge_counts_in_both_bins(subsets, weighting):
    p = np.array([[0.5, 0.3, 0.2], [0.5, 0.1, 0.4], [0.25, 0.5, 0.25], [0.1, 0.2, 0.7], [0.6, 0.35, 0.05]])
    y = np.array([0, 2, 1, 2, 1])
    assert np.array_equal(np.asarray(jnp.exp(logs(p)) == 0.5), p == 0.5)  # no rounding moves them off the edge
    found = h_loss(logs(p), jnp.asarray(y), window=3, epsilon=0.0, subsets=subsets, weighting=weighting, bins=2)
    assert_close(found, plain.h_loss(p, y, 3, 0.0, subsets, weighting, 2), CLOSE)


def test_a_wrong_reading_would_be_seen():
    """An unsorted order or wrong labels give other numbers on the same case."""
    p, y = case()
    right = plain.h_loss(p, y, 7, 0.0, "pooled", "unweighted")
    gap = (p - np.eye(4)[y]).ravel()
    unsorted = np.mean(np.abs(np.convolve(gap, np.ones(7) / 7, "same")))
    assert abs(unsorted - right) > 1e-3
    assert abs(plain.h_loss(p, 0 * y + (y == 3), 7, 0.0, "pooled", "unweighted") - right) > 1e-3


@pytest.mark.parametrize("subsets", SUBSETS)
def test_gradient_is_that_of_the_windows(subsets):
    """By p: (1/n) sum over windows of sign(T_i) / M, for each subset; by hand in NumPy."""
    p, y = case(30, 3)
    window = 5

    def loss(p):
        return calibration.h_loss(jnp.log(p), jnp.asarray(y), window=window, subsets=subsets)

    found = jax.jit(jax.grad(loss), compiler_options=quickly_compiled(0))(jnp.asarray(p, jnp.result_type(float)))
    expected = np.zeros_like(p)
    hit = np.eye(3)[y]
    rows = {"pooled": [np.ones(30, bool)], "classwise": [np.ones(30, bool)] * 3,
            "leave_one_class_out": [y != k for k in range(3)]}[subsets]  # fmt: skip
    for k, kept in enumerate(rows):
        columns = [k] if subsets == "classwise" else [0, 1, 2]
        events = [(i, j) for i in np.flatnonzero(kept) for j in columns]
        events.sort(key=lambda event: p[event])
        gaps = np.array([p[e] - hit[e] for e in events])
        signs = np.sign(np.convolve(gaps, np.ones(window), "same"))
        for e, slope in zip(events, np.convolve(signs, np.ones(window), "same"), strict=True):
            expected[e] += slope / (window * len(events) * len(rows))
    assert_close(found, expected, CLOSE)


def test_tolerance_is_a_dead_zone():
    p, y = case(200)
    loss = jax.jit(jax.value_and_grad(lambda z: calibration.h_loss(z, jnp.asarray(y), window=51, epsilon=0.9)))
    value, slope = loss(logs(p))
    assert value == 0 and not np.any(slope)


def test_compiles_once_for_all_tolerances_and_maps_over_samples():
    p, y = case(40)
    traces = []

    @jax.jit
    def loss(log_probs, labels, epsilon):
        traces.append(1)
        return calibration.h_loss(log_probs, labels, window=5, epsilon=epsilon, subsets="leave_one_class_out")

    for epsilon in (0.0, 0.1, 0.2):
        loss(logs(p), jnp.asarray(y), epsilon)
    assert len(traces) == 1
    both = jax.jit(jax.vmap(lambda z: calibration.h_loss(z, jnp.asarray(y), window=5, subsets="leave_one_class_out")))
    assert_close(
        both(jnp.stack([logs(p)] * 2))[1], plain.h_loss(p, y, 5, 0, "leave_one_class_out", "unweighted"), CLOSE
    )


def test_ends_are_shrunk_and_the_middle_is_not():
    gaps = calibration.window_gaps(jnp.ones(20), 5)
    assert_close(gaps[2:18], 1.0)
    assert_close(gaps[jnp.array([0, 1, 18, 19])], [0.6, 0.8, 0.8, 0.6])


def test_ties_stay_in_row_order():
    p = np.full((30, 2), 0.5)
    y = np.arange(30) % 2
    for subsets in SUBSETS:
        found = h_loss(logs(p), jnp.asarray(y), window=3, subsets=subsets)
        assert_close(found, plain.h_loss(p, y, 3, 0, subsets, "unweighted"), CLOSE)


def test_order_of_floats_by_their_bits():
    from sandbox.calibration.objective import _order

    x = np.round(np.random.default_rng(0).normal(size=3000), 2)
    x[::7] = -0.0
    for dtype in (jnp.float32, jnp.result_type(float)):
        assert np.array_equal(_order(jnp.asarray(x, dtype)), np.argsort(x.astype(dtype), kind="stable"))


def test_objectives_with_the_same_options_are_equal():
    assert HLoss(window=7) == HLoss(window=7) and hash(HLoss(7)) == hash(HLoss(7)) and HLoss(7) != HLoss(9)
    assert HLoss(7, subsets="classwise")(logs(FOUR), FOUR_LABELS) == h_loss(
        logs(FOUR), FOUR_LABELS, window=7, subsets="classwise"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [({"window": 4}, "window = 4: must be odd"), ({"window": 0}, "window = 0"), ({"epsilon": -0.1}, "epsilon = -0.1"),
     ({"subsets": "all"}, "subsets = 'all'"), ({"weighting": "flat"}, "weighting = 'flat'"), ({"bins": 0}, "bins = 0")],
)  # fmt: skip
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        calibration.h_loss(logs(FOUR), FOUR_LABELS, **{"window": 3, **options})
    with pytest.raises(ValueError, match="shapes"):
        calibration.h_loss(logs(FOUR), FOUR_LABELS[:3], window=3)


# -- bins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [2, 10, 15])
def test_a_bin_is_open_below_and_closed_above_and_the_first_has_zero(bins):
    edges = calibration.equal_width_edges(bins)
    at = np.asarray([0, *np.asarray(edges), 1])
    assert calibration.bin_index(jnp.asarray(at), edges).tolist() == [0, *range(bins)]
    just_above = np.nextafter(np.asarray(edges), np.asarray(2, edges.dtype))
    assert calibration.bin_index(jnp.asarray(just_above), edges).tolist() == list(range(1, bins))
    just_below = np.nextafter(np.asarray(edges), np.asarray(0, edges.dtype))
    assert calibration.bin_index(jnp.asarray(just_below), edges).tolist() == list(range(bins - 1))


def test_equal_mass_bins_hold_equal_counts_and_weights_repeat():
    x = jnp.sort(jnp.asarray(np.random.default_rng(0).uniform(size=60), jnp.result_type(float)))
    one = jnp.ones_like(x)
    edges = calibration.equal_mass_edges(x, one, 6)
    assert calibration.bin_sums(calibration.bin_index(x, edges), one, 6).tolist() == [10] * 6
    counts = np.random.default_rng(1).integers(0, 4, 60)
    repeated = jnp.repeat(x, counts)
    assert_close(
        calibration.equal_mass_edges(x, jnp.asarray(counts, x.dtype), 5),
        calibration.equal_mass_edges(repeated, jnp.ones_like(repeated), 5),
    )


def test_kmeans_is_lloyds():
    x = np.sort(np.random.default_rng(2).beta(0.3, 0.5, 500))
    centres = plain.lloyd(x, 7)
    found = calibration.kmeans_edges(jnp.asarray(x, jnp.result_type(float)), jnp.ones(500), 7)
    assert_close(found, (centres[1:] + centres[:-1]) / 2, identity())


def test_running_sum():
    for n in (1, 15, 16, 100):
        assert_close(calibration.running_sum(jnp.arange(1.0, n + 1)), np.cumsum(np.arange(1, n + 1)))
