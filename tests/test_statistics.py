"""Intervals cover as often as they say; slopes are recovered with an honest error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sandbox import statistics
from tests.tolerances import assert_close, golden, monte_carlo


def test_mean_is_scipys():
    samples = np.random.default_rng(0).normal(2, 3, (7, 4))
    found = statistics.mean(samples, level=0.9)
    assert_close(found.mean, samples.mean(0))
    assert_close(found.standard_error, scipy.stats.sem(samples))
    low, high = scipy.stats.t.interval(0.9, 6, samples.mean(0), scipy.stats.sem(samples))
    assert_close(found.low, low, golden()), assert_close(found.high, high, golden())


def coverage(interval, draws):
    found = jax.vmap(interval)(draws)
    return np.mean((found.low <= 1) & (found.high >= 1))


@pytest.mark.parametrize("n", [3, 20])
def test_students_interval_covers(n):
    draws = 1 + jax.random.normal(jax.random.key(0), (4000, n))
    assert_close(coverage(lambda x: statistics.mean(x, 0.8), draws), 0.8, monte_carlo(np.sqrt(0.8 * 0.2 / 4000)))


def test_bootstrap_interval_of_zeros_and_ones_is_the_binomial_one():
    """The mean of a resample of 12 ones among 40 is Binomial(40, .3) / 40; a second column holds the complements."""
    ones = np.arange(40) < 12
    level, law, resamples = 0.92, scipy.stats.binom(40, 0.3), 10_000
    found = statistics.bootstrap_mean(jax.random.key(2), np.stack([ones, ~ones], axis=1), level, resamples)
    low, high = law.ppf(0.04), law.ppf(0.96)
    noise = 4 * np.sqrt(0.04 * 0.96 / resamples)
    for end, q in ((low, 0.04), (high, 0.96)):  # else the sampled quantile could be the next whole number
        assert law.cdf(end - 1) + noise < q < law.cdf(end) - noise
    assert_close(found.low, np.array([low, 40 - high]) / 40)
    assert_close(found.high, np.array([high, 40 - low]) / 40)
    assert_close(found.mean, [0.3, 0.7])
    assert_close(found.standard_error, np.sqrt(0.3 * 0.7 / 39))


def test_bootstrap_is_reproducible_and_has_its_own_key():
    samples = jax.random.uniform(jax.random.key(5), (20,))
    first, again, other = (statistics.bootstrap_mean(jax.random.key(k), samples, resamples=500) for k in (0, 0, 1))
    assert first == again and (first.low, first.high) != (other.low, other.high)
    assert 0 <= first.low < first.mean < first.high <= 1


def test_slope_of_a_power():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    found = statistics.log_log_slope(x, 3 * x**-2)
    assert_close(jnp.stack(found), np.array([-2, 0, np.log(3)]), golden())


def test_slope_is_scipys_with_noise():
    rng = np.random.default_rng(3)
    x = np.exp(rng.uniform(0, 3, 30))
    y = np.exp(1 + 0.7 * np.log(x) + rng.normal(0, 0.2, 30))
    expected = scipy.stats.linregress(np.log(x), np.log(y))
    found = statistics.log_log_slope(list(x), list(y))
    assert_close(jnp.stack(found), np.array([expected.slope, expected.stderr, expected.intercept]), golden())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.mean(jnp.ones(1)), "samples: shape"),
        (lambda: statistics.mean(jnp.ones(())), "samples: shape"),
        (lambda: statistics.mean(jnp.ones(3), level=1), "level = 1"),
        (lambda: statistics.bootstrap_mean(jax.random.key(0), jnp.ones(1)), "samples: shape"),
        (lambda: statistics.bootstrap_mean(jax.random.key(0), jnp.ones(3), resamples=0), "resamples = 0"),
        (lambda: statistics.log_log_slope([1, 2, 3], [1.0, 0.0, 2.0]), r"y\[1\] = 0.0"),
        (lambda: statistics.log_log_slope([1.0, 2.0], [1.0, 2.0]), "x, y: shapes"),
        (lambda: statistics.log_log_slope([1.0, 2.0, 3.0], [1.0, 2.0]), "x, y: shapes"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rank_correlation_with_ties():
    """By hand: mean ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): 4.5 / sqrt(4.5 * 5)."""
    assert_close(statistics.rank_correlation([0.0, 3, 3, 9], [1, 2, 5, 7]), 4.5 / (4.5 * 5) ** 0.5)
    assert_close(statistics.rank_correlation([0.0, 3, 3, 9], [8, 3, 3, -1]), -1)
    assert np.isnan(statistics.rank_correlation([1.0, 1, 1], [1, 2, 3]))


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (2, 40)).astype(float)
    assert_close(statistics.rank_correlation(a, b), scipy.stats.spearmanr(a, b).statistic)
