"""Gradient entanglement in numbers: shared suffixes, where equal weights entangle, and a small network (C8, C10).

Next to the right reading stands the wrong one, which must miss.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sandbox import policies
from sandbox.algebra import log_softmax
from sandbox.dynamics import one_step
from sandbox.losses import PairLogProbs
from sandbox.measures import Case, case, gradient_products, kappa
from sandbox.policies import Tied, linear_log_probs, linear_logits, sequence_log_prob, tabular_gram, tied_gram
from sandbox.statistics import mean
from tests.entangled import DPO, FLOAT, float64_only, moved, pair_loss, printed, rates
from tests.tolerances import Tolerance, assert_close, golden
from theory.entanglement.tokens import n_star

# -- C8: a shared suffix -----------------------------------------------------------------------------------------------

OVERLAP, DELTA = 0.8, 0.3


@cache
def suffix_toy(chosen_error=0.2, rejected_error=0.8, length=40):
    """theta and features of a contrast (.6, .3, .1), then suffix tokens missed with these probabilities."""
    features = policies.suffix_features(length, OVERLAP)
    laws = np.full((2, 1 + length, 3), [0.6, 0.3, 0.1])
    for n, error in enumerate((chosen_error, rejected_error)):
        laws[n, 1:] = [1 - error, error / 2, error / 2]
    theta = policies.minimum_norm(
        features.reshape(-1, features.shape[-1]), jnp.log(jnp.asarray(laws.reshape(-1, 3), FLOAT))
    )
    return theta, features


def suffix_policy(theta, features, kept):
    """A and B of the positions ``kept`` (T,)."""
    tokens = jnp.zeros(features.shape[:2], int).at[1, 0].set(1)
    return sequence_log_prob(log_softmax(linear_logits(theta, features)), tokens, jnp.stack([kept, kept]))


@jax.jit
def suffix_run(theta, features, length, learning_rate):
    """DPO on a suffix of ``length``: cosine, changes per unit of step, change by a step; the same of both mends."""
    places = jnp.arange(features.shape[1])
    policy = partial(suffix_policy, features=features, kept=places <= length)
    g_w, g_l = jax.jacrev(policy)(theta)
    norm_w, norm_l, inner = gradient_products(g_w.ravel(), g_l.ravel())
    normalised = jax.jvp(policy, (theta,), (g_w / norm_w - g_l / norm_l,))[1]

    def masked(mask):
        seen = pair_loss(DPO, partial(suffix_policy, features=features, kept=mask), theta)
        return jax.jvp(policy, (theta,), (-jax.grad(seen)(theta),))[1] / 0.05

    return {
        "products": (norm_w, norm_l, inner),
        "rates": rates(DPO, policy, theta),
        "step": moved(DPO, policy, theta, learning_rate),
        "normalised": normalised,
        "masked": masked(places == 0),
        "masked one too late": masked(places == 1),
    }


SUFFIX_TABLE = [
    (0, -0.930501, 0.035, -0.065),
    (1, -0.324968, 0.0284, -0.1034),
    (5, 0.292080, 0.002, -0.257),
    (6, 0.351443, -0.0046, -0.2954),
    (10, 0.493454, -0.031, -0.449),
    (40, 0.708472, -0.229, -1.601),
]


@pytest.mark.parametrize(("length", "cosine", "chosen", "rejected"), SUFFIX_TABLE)
def test_shared_suffix_under_dpo(length, cosine, chosen, rejected):
    """d = .05: the chosen falls from six suffix tokens on; a step of 1e-2 agrees with the sign of first order."""
    found = suffix_run(*suffix_toy(), length, 1e-2)
    norm_w, norm_l, inner = found["products"]
    assert_close(inner / (norm_w * norm_l), cosine, printed(6))
    assert_close(found["rates"], [chosen, rejected], golden())
    assert jnp.array_equal(jnp.sign(found["step"]), jnp.sign(jnp.array([chosen, rejected])))
    assert case(norm_w / norm_l, cosine) == (Case.IDEAL if chosen > 0 else Case.BOTH_FALL)
    assert not golden().allows(found["rates"] / 0.05, [chosen, rejected]), "beta dropped"
    assert not golden().allows(-found["rates"][::-1], [chosen, rejected]), "roles swapped"


def test_length_from_which_the_chosen_falls():
    """n* = 5.30303, between the lengths where a step turns."""
    square = 0.2**2 + 2 * 0.1**2
    assert_close(n_star(DELTA, square, OVERLAP, 4), 5.30303, printed(5))
    falls = [float(suffix_run(*suffix_toy(), n, 1e-2)["step"][0]) < 0 for n in (5, 6)]
    assert falls == [False, True]
    wrong = {
        "sign of delta": n_star(-DELTA, square, OVERLAP, 4),
        "residuals of the rejected": n_star(DELTA, 16 * square, OVERLAP, 4),
        "overlap dropped": n_star(DELTA, square, 1, 4),
        "ratio inverted": n_star(DELTA, square, OVERLAP, 1 / 4),
        "ratio squared": n_star(DELTA, square, OVERLAP, 16),
    }
    assert not any(5 <= n < 6 for n in wrong.values()), wrong


def test_a_suffix_that_the_rejected_knows_better_makes_both_rise():
    """T = 1/4 < R: the rejected rises beyond (1 + delta) / (|u|^2 T (R - T)) = 9.848 tokens."""
    square = 0.8**2 + 2 * 0.4**2
    assert_close((1 + DELTA) / (square * (OVERLAP - 1 / 4) / 4), 9.848, printed(3))
    for length, rises in ((9, False), (10, True)):
        found = suffix_run(*suffix_toy(0.8, 0.2), length, 1e-2)
        assert bool(found["rates"][1] > 0) == rises and found["step"][0] > 0
    assert suffix_run(*suffix_toy(0.8, 0.2), 40, 1e-2)["step"][1] > 0


def test_both_mends_on_ten_suffix_tokens():
    found = suffix_run(*suffix_toy(), 10, 1e-2)
    assert_close(found["normalised"], [0.469751, -1.638267], printed(6))
    for length in (1, 10, 40):
        assert_close(suffix_run(*suffix_toy(), length, 1e-2)["masked"], [0.7, -1.3], golden())
    for wrong in (found["masked one too late"], -found["masked"][::-1], found["rates"] / 0.05):
        assert not golden().allows(wrong, [0.7, -1.3])


def test_which_tokens_meet():
    """The contrast tokens at -.930501, equal tokens at the overlap, all others not at all."""
    theta, features = suffix_toy()
    tokens = jnp.zeros((2, 5), int).at[1, 0].set(1)
    log_probs = log_softmax(linear_logits(theta, features[:, :5]))
    kernel = policies.similarity(features[:, :5])
    products = policies.token_gram(log_probs, tokens, jnp.ones_like(tokens), kernel)
    norm = jnp.sqrt(jnp.einsum("ntnt->nt", products))
    heat = products[0, :, 1] / (norm[0][:, None] * norm[1][None])
    assert_close(heat, np.diag([-0.930501] + 4 * [0.8]), printed(6))


# -- C10: where equal weights entangle ---------------------------------------------------------------------------------


def unigram(chosen, rejected):
    """One softmax (1, 2) for all positions."""
    tokens = jnp.array([chosen, rejected])

    def policy(table):
        return sequence_log_prob(log_softmax(table[jnp.zeros_like(tokens)]), tokens, jnp.ones_like(tokens))

    return policy


AB_BB, AA_AB = unigram((0, 1), (1, 1)), unigram((0, 0), (0, 1))
UNIGRAMS = [(0.3, 0.168529556), (0.5, -0.240229014), (0.7, -0.579456087)]


@partial(jax.jit, static_argnums=0)
def unigram_step(policy, p, t):
    """One step of DPO, of size t along e_A - e_B."""
    return moved(DPO, policy, jnp.log(jnp.stack([p, 1 - p]))[None], t / 0.05)


@pytest.mark.parametrize(("p", "change"), UNIGRAMS)
def test_unigram_step(p, change):
    chosen, rejected = unigram_step(AB_BB, p, 0.5)
    assert_close(chosen, change, printed(9))
    assert rejected < 0
    assert not golden().allows(unigram_step(AB_BB, p, 0.5 / 0.1)[0], change), "beta dropped"
    assert p == 0.5 or not golden().allows(unigram_step(AB_BB, p, -0.5)[0], change), "roles swapped"
    risen, also = unigram_step(AA_AB, p, 0.5)  # the same response on the other side: the rejected may rise
    assert_close(also, change, printed(9))
    assert risen > 0
    for t in (1e-3, 0.1, 10.0):
        assert p < 0.5 or unigram_step(AB_BB, p, t)[0] < 0


def test_unigram_chosen_rises_up_to_a_step_only():
    t = jnp.log(0.7 / 0.3)
    assert_close(unigram_step(AB_BB, 0.3, t)[0], 0)
    assert unigram_step(AB_BB, 0.3, 0.99 * t)[0] > 1e-3 and unigram_step(AB_BB, 0.3, 1.01 * t)[0] < -1e-3


@float64_only
def test_tied_embeddings_lower_both_and_raise_the_third():
    """W = (1, 0, 4), h = 1: cosine .914546200, and one step of DPO (d = .05, rate .01)."""
    start = Tied(jnp.array([[1.0], [0.0], [4.0]]), jnp.array([1.0]))
    a, b, c = (tied_gram(*start, y, z) for y, z in ((0, 0), (1, 1), (0, 1)))
    assert_close([c / jnp.sqrt(a * b), a - c, b - c], [0.914546200, -1.8210356, 4.8210356], printed(7))

    def change(w, l, learning_rate):
        def loss(params):
            now, before = linear_log_probs(*params), linear_log_probs(*start)
            return DPO(PairLogProbs(now[w], now[l], before[w], before[l]))

        step = one_step(loss, start, learning_rate=learning_rate, measure=lambda params: linear_log_probs(*params))
        return step.after - step.before

    expected = np.array([-9.10348023e-4, -2.41084802e-3, 8.94019766e-5])
    digits = Tolerance(1e-8, 0, "nine digits are printed")
    assert_close(change(0, 1, 0.01), expected, digits)
    for wrong in (change(1, 0, 0.01), change(0, 1, -0.01), change(0, 1, 0.01 / 0.05)):  # swapped; sign; beta dropped
        assert not digits.allows(wrong, expected)


TWO_PAIRS = jnp.log(jnp.array([0.1, 0.1, 0.6, 0.2]))  # w1, l1, w2, l2


@jax.jit
def change_of_the_first_chosen(chosen, rejected, weights):
    """Per unit of the first pair's push, by the sum of weighted DPO losses; and by a step of 1e-2."""
    before = log_softmax(TWO_PAIRS)

    def loss(z):
        now = log_softmax(z)
        return jnp.sum(weights * DPO(PairLogProbs(now[chosen], now[rejected], before[chosen], before[rejected])))

    step = one_step(loss, TWO_PAIRS, learning_rate=1e-2, measure=log_softmax)
    slope = jax.jvp(log_softmax, (TWO_PAIRS,), (-jax.grad(loss)(TWO_PAIRS),))[1]
    return slope[0] / 0.05, (step.after - step.before)[0]


def test_a_second_pair_lowers_the_first_chosen():
    """p = (.1, .1, .6, .2): d log w1 = t1 - .4 t2, a fall of .2 at t2 = 3 t1, though no pair is entangled by itself."""
    w, l = jnp.array([0, 2]), jnp.array([1, 3])
    for t2, expected in ((3.0, -0.2), (2.0, 0.2), (0.0, 1.0)):
        slope, step = change_of_the_first_chosen(w, l, jnp.array([1.0, t2]))
        assert_close(slope, expected)
        assert jnp.sign(step) == jnp.sign(expected)
    for wrong in ((jnp.array([0, 3]), jnp.array([1, 2])), (l, w)):  # the second pair swapped; both
        assert not golden().allows(change_of_the_first_chosen(*wrong, jnp.array([1.0, 3.0]))[0], -0.2)
    p = jnp.exp(TWO_PAIRS)
    for chosen, rejected in ((0, 1), (2, 3)):
        norm_w, norm_l = (jnp.sqrt(tabular_gram(p, y, y)) for y in (chosen, rejected))
        cosine = tabular_gram(p, chosen, rejected) / (norm_w * norm_l)
        assert case(kappa(1, 1, norm_w, norm_l), cosine) == Case.IDEAL


# -- a small network ---------------------------------------------------------------------------------------------------


def test_trends_of_the_sentiment_network():
    """With the label alone the chosen stays; six shared tokens pull it down, and each mend holds it back.

    In each of four seeds, whose falls differ by a factor of ten; shares of a seed's own fall differ much less.
    """
    from experiments.entanglement.sentiment import MENDS, SUFFIXES, sentiment
    from experiments.entanglement.setup import Setup

    setup = Setup(seeds=2, every=20)  # the full task; both calls are one compiled program
    halves = [sentiment(setup, jax.random.key(seed)) for seed in (0, 1)]
    found = {k: jnp.concatenate([half[k] for half in halves], axis=1) for k in ("chosen", "rejected", "cosine")}
    names = [*SUFFIXES, *MENDS]
    chosen, rejected, cosine = ({n: x for n, x in zip(names, found[k], strict=True)} for k in found)
    assert chosen[0].shape == (4, 1 + setup.dpo_steps // setup.every)
    end = {n: x[:, -1] for n, x in chosen.items()}
    assert all(jnp.all(rejected[n][:, -1] < -1) for n in names)

    assert jnp.all(jnp.abs(chosen[0]) <= 0.02) and jnp.all(cosine[0] < 0)
    assert jnp.all(end[6] < -0.5) and jnp.mean(end[6]) < -1
    assert jnp.all(cosine[6][:, 0] < 0) and jnp.all(cosine[6][:, -1] > 0.5), "training brings it"
    for longer, shorter in ((1, 0), (6, 1)):
        assert jnp.all(end[longer] < end[shorter])
        assert mean((cosine[longer] - cosine[shorter])[:, -1]).low > 0

    for mend in MENDS:
        assert jnp.all(end[mend] > end[6])
        assert mean(end[mend] / end[6]).high < 0.9, f"the share of the fall that {mend} leaves"
    assert jnp.all(chosen["normalised gradients"][:, 1:] > 0)
    assert jnp.all(end["masked to the contrast"] < -0.1), "a mask does not cure a shared hidden layer"
