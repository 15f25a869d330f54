"""Rankings of pairs, what turns them round, and what optima rank: by hand, by other formulas, at their edges."""

from __future__ import annotations

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from sandbox import losses, rankings
from sandbox.losses import PairLogProbs
from tests.tolerances import Tolerance, assert_close, identity

PAIRS = PairLogProbs(
    jnp.array([-10.0, -6.0, -3.0]), jnp.array([-9.0, -8.0, -3.0]), jnp.array([-12.0, -5.0, -3.0]),
    jnp.array([-8.0, -9.0, -4.0]), jnp.array([10.0, 2.0, 3.0]), jnp.array([4.0, 8.0, 2.0]),
)  # fmt: skip


def test_three_pairs_by_hand():
    assert_close(rankings.log_odds(PAIRS), [-1, 2, 0])
    assert_close(rankings.log_odds(PAIRS, "mean"), [-1 + 9 / 4, -3 + 1, -1 + 3 / 2])
    assert_close(rankings.reference_error(PAIRS), [4, -4, -1])
    assert_close(rankings.ranking_accuracy(PAIRS), 2 / 3)  # a tie is right
    assert_close(rankings.ranking_accuracy(PAIRS, "mean"), 2 / 3)
    assert_close(rankings.reward_accuracy(PAIRS), 1 / 3)  # margins 3, -2, -1
    assert rankings.ranked_right(jnp.array([-1e-30, 0.0, 1e-30])).tolist() == [0, 1, 1]


def test_a_tie_of_the_reward_is_wrong():
    at_start = PAIRS._replace(chosen=PAIRS.ref_chosen, rejected=PAIRS.ref_rejected)
    assert rankings.reward_accuracy(at_start) == 0


@pytest.mark.parametrize("error", [-30.0, -1.0, 0.0, 2.0, 40.0])
def test_loss_to_rank_is_the_loss_of_a_tie(error):
    tie = PairLogProbs(-7.0, -7.0, -9.0, -9.0 + error)
    needed = rankings.loss_to_rank(error, beta=0.3)
    assert_close(needed, losses.dpo(tie, beta=0.3))
    assert_close(rankings.margin_at_loss(needed, beta=0.3), error, Tolerance(1e-4, 1e-4, "float32 loses half of e^-12"))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("error", "beta"), [(1.0, 0.2), (3.0, 1.0)])
def test_flip_time_is_the_integral_of_the_slowness(error, beta, gamma):
    """dt/dm = (1 + e^u) / (kappa beta), u = beta (m + gamma c): the mean over m from -c to 0, times c."""
    u, weights = np.polynomial.legendre.leggauss(40)
    m = -error * (1 - u) / 2
    slowness = (1 + np.exp(beta * (m + gamma * error))) / (3 * beta)
    assert_close(rankings.flip_time(error, beta=beta, kappa=3, gamma=gamma), error / 2 * weights @ slowness)


def test_flip_time_of_ipo_is_that_of_its_exponential():
    time = rankings.ipo_flip_time(3.0, tau=0.1, kappa=2)
    crossing = brentq(lambda t: (1 - np.exp(-4 * t)) / 0.2 - 3, 0, 5)
    assert_close(time, crossing)
    assert np.isposinf(rankings.ipo_flip_time(jnp.array(0.5), tau=1.0))


def brute_force(needed, mean_loss):
    n = len(needed)
    fits = [k for k in range(n + 1) for wrong in combinations(needed, k) if k == 0 or sum(wrong) < n * mean_loss]
    return max(fits)


def test_errors_at_most_tries_every_set_of_wrong_pairs():
    rng = np.random.default_rng(0)
    for _ in range(60):
        needed = np.log1p(np.exp(-0.1 * rng.normal(5, 30, rng.integers(1, 9))))
        mean_loss = rng.uniform(0, 1.5)
        assert rankings.errors_at_most(needed, mean_loss) == brute_force(needed, mean_loss)
    assert rankings.errors_at_most([0.2, 0.1], 0) == 0
    assert rankings.errors_at_most([0.2, 0.1], 9) == 2


def test_errors_at_most_is_attained_in_the_limit():
    """The cheapest pairs wrong by a hair, the others right by far: as many errors as the bound allows."""
    error, beta = np.array([-20.0, -5, 0, 3, 8, 15, 30]), 0.1
    needed = np.asarray(rankings.loss_to_rank(error, beta=beta))
    for k in range(1, 8):
        wrong = np.argsort(needed)[:k]
        m = np.full(7, 1e4)
        m[wrong] = -1e-3
        loss = losses.dpo(PairLogProbs(m, 0 * m, -error, 0 * m), beta=beta)
        assert rankings.errors_at_most(needed, float(np.mean(loss))) == k == int(np.sum(m < 0))


def test_majority_agrees_with_enumerated_votes():
    for raters in (1, 2, 3, 4, 5):
        votes = (np.arange(2**raters)[:, None] >> np.arange(raters)) & 1
        for alpha in (0.5, 0.6, 0.93):
            chance = np.prod(np.where(votes == 1, alpha, 1 - alpha), axis=1)
            ahead = 2 * votes.sum(axis=1) - raters
            expected = chance[ahead > 0].sum() / chance[ahead != 0].sum()
            assert_close(rankings.majority_agreement(alpha, raters), expected)


def test_optima_minimise_soft_labelled_losses():
    """On a grid of margins, every loss is least where its optimum says."""
    h, alpha = np.linspace(-20, 20, 8001), 0.8
    zero = np.zeros_like(h)

    def best(loss, **constants):
        one, other = (loss(PairLogProbs(x, zero, zero, zero), **constants) for x in (h, -h))
        return h[np.argmin(alpha * np.asarray(one) + (1 - alpha) * np.asarray(other))]

    grid = Tolerance(0, 0.0051, "half a step of the grid")
    assert_close(best(losses.dpo, beta=0.2), rankings.logit(alpha) / 0.2, grid)
    assert_close(best(losses.ipo, tau=0.1), rankings.ipo_optimum(alpha, tau=0.1), grid)
    assert_close(best(losses.hinge, beta=0.2), rankings.hinge_optimum(beta=0.2), grid)
    assert_close(rankings.ideal_log_odds(1.5, alpha, beta=0.2), np.log(4) / 0.2 - 1.5)
    assert_close(rankings.ideal_log_odds(3.0, alpha, beta=rankings.critical_beta(3.0, alpha)), 0, identity())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rankings.log_odds(PAIRS, "median"), "reduction = 'median'"),
        (lambda: rankings.errors_at_most([0.1, -1.0], 0.3), r"needed\[1\] = -1.0"),
        (lambda: rankings.errors_at_most([np.nan], 0.3), "needed"),
        (lambda: rankings.errors_at_most([0.1], -0.1), "mean_loss = -0.1"),
        (lambda: rankings.majority_agreement(0.6, 0), "raters = 0"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
