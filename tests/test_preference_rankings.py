"""Preference rankings in numbers: the references to their printed digits, and what a wrong reading would say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from experiments.preference_rankings import measure
from experiments.preference_rankings.measure import (
    THREE,
    W6,
    ideal_accuracies,
    log_odds_over_time,
    shared_parameters,
)
from experiments.preference_rankings.setup import Setup
from sandbox import rankings
from sandbox.dynamics import flow
from sandbox.losses import PairLogProbs
from tests.tolerances import Tolerance, assert_close, golden
from theory.preference_rankings.optima import cycle_loss
from theory.preference_rankings.winning import on_policy_force, pair_loss, scores

X64 = jax.config.jax_enable_x64
float64_only = pytest.mark.skipif(not X64, reason="the number is smaller than float32's rounding")


def printed(decimals: int) -> Tolerance:
    rounding = Tolerance(0, 0.51 * 10**-decimals, f"half a unit of the printed decimal {decimals}, and rounding")
    return rounding if X64 else golden()


# -- one pair ----------------------------------------------------------------------------------------------------------


def test_thresholds():
    needed = rankings.loss_to_rank(jnp.array([0.5, 1, 2, 3, 5, 10]), beta=1.0)
    assert_close(needed, [0.474077, 0.313262, 0.126928, 0.048587, 0.006715, 4.54e-5], printed(6))
    assert_close(rankings.loss_to_rank(5.0, beta=0.1), 0.474077, printed(6))
    assert not np.allclose(needed, rankings.loss_to_rank(jnp.array([-0.5, -1, -2, -3, -5, -10]), beta=1.0)), "the sign"


REFERENCE_FLIPS = [  # beta, c, gamma, time
    (0.5, 4, 1, 16.778112), (1, 2, 1, 4.194528), (0.2, 5, 1, 33.978523),
    (0.5, 4, 0, 5.729329), (0.5, 4, 0.5, 8.700805), (0.5, 4, 2, 98.418188),
]  # fmt: skip


def test_flip_times():
    beta, error, gamma, time = np.array(REFERENCE_FLIPS).T
    assert_close(rankings.flip_time(error, beta=beta, gamma=gamma), time, printed(6))
    assert_close(rankings.ipo_flip_time(3.0, tau=0.1), 0.229073, printed(6))
    assert_close(rankings.flip_time(4.0, beta=0.5), (np.exp(2) + 1) * 4**2 / 8)  # in the valley
    assert_close(rankings.loss_to_rank(4.0, beta=0.5), 0.126928, printed(6))


@float64_only
def test_flip_times_of_a_table_that_is_trained():
    """Gradient flow on three logits reaches m = 0 at the reference's time: wrong just before, right just after."""
    beta, error, gamma, time = (jnp.asarray(x) for x in np.array(REFERENCE_FLIPS).T)
    around = time[:, None] * jnp.append(jnp.linspace(0, 1 - 1e-6, 200), 1 + 1e-6)[None, :]
    m = log_odds_over_time(measure._of_dpo, around, error, beta, gamma)
    assert jnp.all(m[:, -2] < 0) and jnp.all(m[:, -1] > 0)
    halved = log_odds_over_time(measure._of_dpo, around / 2, error, beta, gamma)  # |grad m|^2 is 2, not 1
    assert jnp.all(halved[:, -1] < -0.1)


# -- sets of pairs -----------------------------------------------------------------------------------------------------


def test_accuracy_against_loss():
    """Reference errors of a normal law of mean 5 and standard deviation 40, beta = 0.1."""
    law = norm(5, 40).cdf
    loss = np.array([np.log(2), 0.6, 0.5, 0.3, 0.1])
    accuracy = law(rankings.margin_at_loss(loss, beta=0.1))
    assert_close(accuracy, [0.45026, 0.46970, 0.49329, 0.55470, 0.66932], printed(5))
    flipped = (accuracy[1:] - accuracy[0]) / (1 - accuracy[0])
    assert_close(flipped, [0.03535, 0.07828, 0.18999, 0.39848], printed(5))
    assert flipped[1] < 0.1, "at a loss of one half fewer than a tenth of the wrong pairs are turned"


def test_bound_of_a_set():
    error = np.array([-20.0, -5, 0, 3, 8, 15, 30])
    needed = np.asarray(rankings.loss_to_rank(error, beta=0.1))
    right = [7 - rankings.errors_at_most(needed, loss) for loss in (0.05, 0.1, 0.3, 0.6)]
    assert right == [5, 4, 2, 1]


@pytest.mark.skipif(not X64, reason="a pair near a tie may fall on either side in float32")
def test_shared_parameters():
    """Columns: loss, reward accuracy, ranking accuracy, share of wrong pairs turned, share of right pairs unlearned."""
    run = shared_parameters(Setup(every=100), jax.random.key(0))
    columns = [
        np.mean(run["loss"], axis=-1),
        *(run[n] for n in ("reward_accuracy", "accuracy", "flipped", "unlearned")),
    ]
    found = np.stack([np.asarray(x) for x in columns], axis=-1)  # gamma, step, column
    assert_close(found[0, 1], [0.432663, 0.825, 0.680, 0.525862, 0.107143], printed(6))
    assert_close(found[0, -1], [0.427567, 0.835, 0.710, 0.586207, 0.119048], printed(6))
    assert_close(found[1, -1], [0.505638, 0.820, 0.730, 0.612069, 0.107143], printed(6))
    assert_close(found[2, -1], [0.630482, 0.825, 0.745, 0.655172, 0.130952], printed(6))
    assert_close(found[:, 0, 0], [np.log(2), 0.855551, 1.118843], printed(6))
    assert np.all(found[:, 0, 2] == 0.42)


# -- optima ------------------------------------------------------------------------------------------------------------

EIGHT = PairLogProbs(
    None, None,
    np.array([-40, -55, -30, -62, -48, -20, -75, -33.0]), np.array([-38, -35, -34, -60.5, -49, -25, -65, -33.0]),
    np.array([30, 50, 25, 60, 40, 16, 70, 30.0]), np.array([33, 28, 30, 50, 45, 20, 50, 27.0]),
)  # fmt: skip
ALPHA = np.array([0.75, 0.999, 0.75, 0.6, 0.55, 0.9, 0.999, 0.75])
REFERENCE = EIGHT._replace(chosen=EIGHT.ref_chosen, rejected=EIGHT.ref_rejected)


def test_eight_pairs():
    error = rankings.reference_error(EIGHT)
    assert rankings.ranking_accuracy(REFERENCE) == 0.5
    assert np.mean(error < 0) == 0.375, "strictly: a pair is tied"
    assert rankings.ranking_accuracy(REFERENCE, "mean") == 0.625

    def ideal(optimum):
        return float(np.mean(np.asarray(optimum) > error))

    assert [ideal(rankings.logit(ALPHA) / beta) for beta in (0.1, 0.5, 1, 5)] == [1, 0.75, 0.5, 0.5]
    unclipped = np.where(ALPHA == 0.999, 1, ALPHA)
    assert [ideal(rankings.ipo_optimum(unclipped, tau=tau)) for tau in (0.05, 0.1, 0.5)] == [0.75, 0.625, 0.5]
    assert [ideal(rankings.hinge_optimum(beta=beta)) for beta in (0.05, 0.1, 0.5)] == [0.875, 0.75, 0.625]
    critical = rankings.critical_beta(error[[0, 1, 3, 6]], ALPHA[[0, 1, 3, 6]])
    assert_close(critical, [0.549306, 0.345338, 0.270310, 0.690675], printed(6))
    columns = {"chosen": EIGHT.ref_chosen, "rejected": EIGHT.ref_rejected, "n_w": EIGHT.chosen_length,
               "n_l": EIGHT.rejected_length, "alpha": ALPHA}  # fmt: skip
    assert float(ideal_accuracies(columns, 5.0)["script"]) == 0.875


def test_printed_and_scripted_accuracy_of_a_synthetic_world():
    """Responses of some 60 tokens, in the order of draws of the reference; the true accuracy stays near the ref's."""
    rng = np.random.default_rng(0)
    n = 4000
    n_l, n_w = (np.maximum(5, np.round(np.exp(rng.normal(np.log(60) + shift, 0.6, n)))) for shift in (0, 0.1))
    per_token = [np.maximum(0.2, rng.normal(mean, 0.25, n)) for mean in (1.0, 1.03)]
    alpha = np.where(rng.uniform(size=n) < 0.6, 3 / 4, 1000 / 1001)
    columns = {"chosen": -n_w * per_token[0], "rejected": -n_l * per_token[1], "n_w": n_w, "n_l": n_l, "alpha": alpha}
    world = {name: jnp.asarray(x, jnp.result_type(float)) for name, x in columns.items()}
    found = [ideal_accuracies(world, beta) for beta in (0.01, 0.1, 1.0, 5.0, 10.0)]
    one = Tolerance(0, 0.51e-4 if X64 else 3 / n, "four printed decimals; in float32 a pair or two near a tie")
    assert_close([x["true"] for x in found], [0.9563, 0.6640, 0.4825, 0.4620, 0.4595], one)
    assert_close([x["script"] for x in found], [1, 1, 0.9295, 0.7400, 0.6558], one)
    assert_close([x["printed"] for x in found], [1, 1, 1, 0.8575, 0.7815], one)
    assert_close(np.mean(world["chosen"] >= world["rejected"]), 0.4575, one)


def test_length_normalised_counterexample():
    """Ten tokens each, log-likelihoods -20 and -10, three of four raters, beta = 0.2: tilt 5.493 below the error 10."""
    pair = PairLogProbs(-20.0, -10.0, -20.0, -10.0, 10.0, 10.0)
    tilt = rankings.logit(0.75) / 0.2
    assert_close(tilt, 5.493, printed(3))
    assert rankings.ideal_log_odds(rankings.reference_error(pair), 0.75, beta=0.2) < 0
    assert rankings.log_odds(pair, "mean") + tilt > 0 > rankings.log_odds(pair, "mean") + tilt / 10


def test_cycle_by_a_solver():
    """On a cycle of shares 3/4 DPO's optimum is the reference (.5, .3, .2), and the formula fails on every pair."""
    ref = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    loss = jax.jit(jax.value_and_grad(lambda z: cycle_loss(z, ref, (0, 1, 2), 0.75, 1.0)))
    found = minimize(lambda z: [np.asarray(x, float) for x in loss(z)], np.array([1.0, -2.0, 0.5]), jac=True,
                     method="BFGS", options={"gtol": 1e-7 if X64 else 1e-3})  # fmt: skip
    law = np.exp(found.x) / np.exp(found.x).sum()
    assert_close(law, [0.5, 0.3, 0.2], Tolerance(0, 1e-6 if X64 else 3e-3, "the gradient that the solver stops at"))
    for w, l in ((0, 1), (1, 2), (2, 0)):
        error = float(ref[l] - ref[w])
        formula = rankings.ideal_log_odds(error, 0.75, beta=1.0)
        assert abs(formula - np.log(law[w] / law[l])) > 1, "off by the logit of 3/4"


def test_majorities():
    assert_close(rankings.majority_agreement(0.6, 4), 0.726161, printed(6))
    assert_close(rankings.majority_agreement(0.5, 4), 0.5)


# -- win rate ----------------------------------------------------------------------------------------------------------


def test_first_move_off_policy():
    """The better of two good responses is rarer: both the log-odds rise and the win rate falls, at once."""
    ref, reward = jnp.array(THREE["ref"]), jnp.array(THREE["reward"], jnp.result_type(float))
    v = scores(ref, reward)
    step = -jax.grad(lambda z: pair_loss(z, ref, 0, 1, 0.7))(jnp.log(ref))
    speed = jax.jvp(lambda z: jax.nn.softmax(z) @ v, (jnp.log(ref),), (step,))[1]
    assert_close(speed / 0.7, -0.03651475, printed(8))
    assert step[0] - step[1] > 0
    force = on_policy_force(ref, v - 0.5, 0.7)
    assert jax.jvp(lambda z: jax.nn.softmax(z) @ v, (jnp.log(ref),), (force,))[1] > 0, "on-policy it rises"


@float64_only
def test_path_off_policy():
    ref, reward = np.array(THREE["ref"]), jnp.array(THREE["reward"])
    v = np.asarray(scores(jnp.array(ref), reward))

    def win(h):
        p = ref * np.exp(np.multiply.outer(h, [1, -1, 0]))
        return (p / p.sum(axis=-1, keepdims=True)) @ v

    h = np.linspace(1.1, 1.13, 30001)
    assert_close(h[np.argmin(win(h))], 1.11231, printed(5))
    assert_close(win(h).min(), 0.45064655, printed(8))
    assert_close(np.log(0.55 / 0.05) / 2, 1.19895, printed(5))  # the ranking flips at c / 2
    assert win(2.17355) < 0.5 < win(2.17357)
    states = flow(measure._of_pair, jnp.log(jnp.array(ref)), jnp.array([0.0, 5, 40]), (jnp.array(ref), 1.0))
    shift = (states[:, 0] - states[:, 1] - jnp.log(ref[0] / ref[1])) / 2
    assert_close(jax.nn.softmax(states) @ v, win(np.asarray(shift)))


def test_tilted_world():
    """Six responses, 15 pairs in the order of the proxy: ranking accuracy climbs to 1, the win rate turns at .6524."""
    ref, gold, proxy = (jnp.array(W6[name], jnp.result_type(float)) for name in ("ref", "gold", "proxy"))
    v = scores(ref, gold)
    times = jnp.array([0.0, 0.65235234, 1, 2, 3])
    log_probs = jnp.log(ref)[None, :] + times[:, None] * proxy[None, :]
    first, second = np.triu_indices(6, 1)
    up = np.where(proxy[first] > proxy[second], first, second)
    right = np.sum(log_probs[:, up] >= log_probs[:, first + second - up], axis=1)
    assert right.tolist() == [2, 7, 12, 14, 15]
    wins = jax.nn.softmax(log_probs) @ v
    assert_close(wins, [0.5, 0.524554, 0.517253, 0.434008, 0.321833], printed(6))
    p = jax.nn.softmax(log_probs[1])
    covariance = p @ (v * proxy) - (p @ v) * (p @ proxy)
    assert_close(covariance, 0, Tolerance(0, 1e-8 if X64 else 1e-6, "eight printed decimals of the turning point"))
    gold_up = np.where(gold[first] > gold[second], first, second)
    true = np.sum(log_probs[:, gold_up] >= log_probs[:, first + second - gold_up], axis=1)
    assert true.tolist() == [7, 10, 9, 9, 10], "in the true order accuracy is no monotone function of the tilt"
