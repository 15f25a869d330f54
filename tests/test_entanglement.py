"""Gradient entanglement in numbers: any two gradients, log-linear policies, every loss (C3-C5, C9, C11).

Next to what the theory says stands what a wrong reading of it would say (roles swapped, a sign flipped, a mask
shifted): that one must miss by more than the tolerance, or the test would not have noticed.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sandbox import losses, measures, policies
from sandbox.algebra import log_softmax, velocity
from sandbox.dynamics import one_step
from sandbox.losses import LOSSES, PairLogProbs, margin_weights
from sandbox.measures import Case, first_order_changes, gradient_products, kappa
from sandbox.policies import Tied, linear_log_probs, linear_logits, sequence_log_prob
from sandbox.statistics import log_log_slope
from tests.entangled import EPS, FLOAT, X64, float64_only, printed, tabular_dpo
from tests.tolerances import Tolerance, assert_close, identity

# -- any two gradients -------------------------------------------------------------------------------------------------


def random_pairs(n=200_000):
    rng = np.random.default_rng(0)
    g_w, g_l = rng.normal(size=(2, n, 3))
    d_w, d_l = np.exp(rng.normal(size=(2, n)))
    return [jnp.asarray(x, FLOAT) for x in (g_w, g_l, d_w, d_l)]


@jax.jit
def changes(g_w, g_l, d_w, d_l):
    """First-order changes along d_w g_w - d_l g_l, and where rounding cannot have decided their signs."""
    step = d_w[:, None] * g_w - d_l[:, None] * g_l
    size = jnp.sum((d_w[:, None] * jnp.abs(g_w) + d_l[:, None] * jnp.abs(g_l)) ** 2, axis=-1)
    found = [jnp.sum(g * step, axis=-1) for g in (g_w, g_l)]
    clear = [jnp.abs(d * x) > 100 * EPS * size for d, x in zip((d_w, d_l), found, strict=True)]
    return *found, clear[0] & clear[1]


def test_one_number_decides_on_200_000_random_pairs():
    g_w, g_l, d_w, d_l = random_pairs()
    chosen, rejected, clear = changes(g_w, g_l, d_w, d_l)
    assert jnp.mean(clear) > 0.999
    norm_w, norm_l, inner = gradient_products(g_w, g_l)
    k, cosine = kappa(d_w, d_l, norm_w, norm_l), inner / (norm_w * norm_l)
    assert jnp.array_equal((chosen > 0)[clear], (cosine < k)[clear])
    assert jnp.array_equal((rejected < 0)[clear], (cosine < 1 / k)[clear])

    assert not jnp.any((chosen < 0) & (rejected > 0) & clear), "the fourth case is empty"
    outcome = jnp.where(chosen < 0, Case.BOTH_FALL, jnp.where(rejected > 0, Case.BOTH_RISE, Case.IDEAL))
    shares = [float(jnp.mean(outcome == which)) for which in (Case.IDEAL, Case.BOTH_FALL, Case.BOTH_RISE)]
    assert min(shares) > 0.1, shares
    assert jnp.array_equal(measures.case(k, cosine)[clear], outcome[clear])
    wrong = {
        "chosen and rejected swapped": (1 / k, cosine),
        "weights dropped": (norm_w / norm_l, cosine),
        "norms dropped": (d_w / d_l, cosine),
        "norms squared": (k * norm_w / norm_l, cosine),
        "sign flipped": (k, -cosine),
    }
    for name, reading in wrong.items():
        assert jnp.mean((measures.case(*reading) != outcome) & clear) > 0.05, name


def test_kappa_of_one_never_entangles():
    g_w, g_l, *_ = random_pairs()
    norm_w, norm_l, inner = gradient_products(g_w, g_l)
    chosen, rejected, clear = changes(g_w, g_l, 1 / norm_w, 1 / norm_l)
    assert jnp.all((chosen > 0) & (rejected < 0) | ~clear) and jnp.mean(clear) > 0.999
    assert jnp.all(measures.case(jnp.ones_like(inner), inner / (norm_w * norm_l)) == Case.IDEAL)
    chosen, rejected, clear = changes(g_w, g_l, 1.1 / norm_w, 1 / norm_l)  # ten percent off, and it happens
    assert 0.01 < jnp.mean((rejected > 0) & clear) < 0.1


def test_condition_divides_by_the_smaller_of_both_norms():
    """With equal weights a pair is entangled iff <g_w, g_l> >= min(|g_w|^2, |g_l|^2).

    The published code divides by the chosen norm, having written it twice into the minimum.
    """
    found = gradient_products(np.array([(3.0, 0), (1, 0)]), np.array([(1.0, 1), (2, 1)]))
    a, b = found.norm_chosen**2, found.norm_rejected**2
    condition, as_published = (found.inner / np.minimum(a, other) for other in (b, a))
    means = [np.mean(x) for x in (condition, as_published, found.inner, found.cosine, *found[:2])]
    assert_close(means, [1.75, 1.166667, 2.5, 0.800767, 2, 1.825141], printed(6))
    entangled = measures.case(found.norm_chosen / found.norm_rejected, found.cosine)
    assert entangled.tolist() == [Case.BOTH_RISE, Case.BOTH_FALL]
    assert (condition >= 1).tolist() == [True, True]
    assert (as_published >= 1).tolist() == [False, True]


# -- C4: what really grows ---------------------------------------------------------------------------------------------

OF_MEANS = {
    "IPO": partial(losses.ipo, tau=0.5, reduction="mean"),
    "SimPO": partial(losses.simpo, beta=4.0, gamma=2 * np.log(3)),
}


@pytest.mark.parametrize("name", OF_MEANS)
def test_length_normalised_loss_shrinks_the_margin(name):
    """Responses of features (3/2, 1, -5/2) at a uniform law: g_w = 3/2, g_l = 1; two tokens against one: d = (1, 2)."""
    features, start = jnp.array([[1.5], [1.0], [-2.5]]), jnp.zeros(1)

    def policy(h):
        return linear_log_probs(features, h)[:2]

    def loss(h, lengths):
        return OF_MEANS[name](PairLogProbs(*policy(h), *policy(start), *lengths))

    def margin_change(eta, lengths):
        step = one_step(loss, start, (lengths,), learning_rate=eta, measure=lambda h, _: policy(h))
        return (step.after[0] - step.before[0] - step.after[1] + step.before[1]) / eta

    lengths = jnp.array([2.0, 1.0])
    pair = PairLogProbs(*policy(start), *policy(start), *lengths)
    d_w, d_l = margin_weights(OF_MEANS[name], pair)
    assert_close([d_w, d_l], [1, 2])
    chosen, rejected = jax.jvp(policy, (start,), (-jax.grad(loss)(start, lengths),))[1]
    assert_close(chosen - rejected, -0.25)
    assert_close(d_w * chosen - d_l * rejected, 0.25)
    for eta in (0.01, 1.0):  # one softmax: the margin is linear in the step
        assert_close(margin_change(eta, lengths), -0.25)
    assert margin_change(0.01, lengths[::-1]) > 0.25  # a longer rejected response is no example


# -- C5: the exact finite step -----------------------------------------------------------------------------------------


@float64_only
def test_second_order_of_one_token_under_dpo():
    """(exact - first order) / t^2 at p = (.2, .3, .5): the same for both tokens, and towards -.245."""
    start, beta = jnp.log(jnp.array([0.2, 0.3, 0.5])), 0.3

    def curvature(t, weight=beta / 2, slope=(1.1, -0.9)):
        rate = t / weight
        step = one_step(tabular_dpo, start, (start, beta), learning_rate=rate, measure=lambda z, *_: log_softmax(z))
        return ((step.after - step.before)[:2] - t * np.array(slope)) / t**2

    for t, value in ((0.05, -0.245375889), (0.025, -0.245193983), (0.0125, -0.245098497)):
        assert_close(curvature(t), np.full(2, value), printed(9))
        assert_close(curvature(-t)[0] + value, -0.49, Tolerance(0, t**2, "the third order cancels in t and -t"))
        wrong = curvature(-t), curvature(t, weight=1 / 2), curvature(t, slope=(0.9, -1.1))
        assert not any(printed(9).allows(w, value) for w in wrong), "swapped; beta dropped; delta's sign flipped"
    # between t and t / 2 the third order halves, so that the gap to the limit does
    assert_close(2 * curvature(0.0125) - curvature(0.025), -0.245, Tolerance(0, 0.025**2, "the fourth order"))


V, T, D = 4, 3, 5
ETAS = 10.0 ** np.arange(-3, 3.5, 0.5)


@jax.jit
@jax.vmap
def steps(theta, features, tokens, weights):
    """Slopes (2,), exact changes (steps, 2) and Hoeffding's bound / eta^2 (2,) of a log-linear token policy."""

    def policy(theta):
        return sequence_log_prob(log_softmax(linear_logits(theta, features)), tokens, jnp.ones_like(tokens))

    g_w, g_l = jax.jacrev(policy)(theta)
    step = weights[0] * g_w - weights[1] * g_l
    exact = jax.vmap(lambda eta: policy(theta + eta * step))(jnp.asarray(ETAS)) - policy(theta)[None]
    push = jnp.einsum("vd,ntd->ntv", step, features)
    width = jnp.max(push, axis=-1) - jnp.min(push, axis=-1)
    return jnp.stack([jnp.sum(g_w * step), jnp.sum(g_l * step)]), exact, jnp.sum(width**2, axis=-1) / 8


def random_models(rng, n):
    """theta, features and tokens of ``n`` random pairs."""
    drawn = rng.normal(size=(n, V, D)), rng.normal(size=(n, 2, T, D))
    return *(jnp.asarray(x, FLOAT) for x in drawn), jnp.asarray(rng.integers(V, size=(n, 2, T)))


def test_a_predicted_fall_is_a_fall_at_every_step_size():
    rng = np.random.default_rng(1)
    found = steps(*random_models(rng, 2000), jnp.asarray(np.exp(rng.normal(size=(2000, 2))), FLOAT))
    slope, exact, bound = (np.asarray(x, float) for x in found)
    slope, bound, etas = slope[:, None], bound[:, None], ETAS[:, None]  # (models, steps, responses)
    first = etas * slope
    falls = slope < -1e6 * EPS  # seen at the smallest step, 1e-3, through the rounding of the log-probabilities
    assert np.sum(falls[..., 0]) > 100 and np.sum(falls[..., 1]) > 1000
    assert np.all((exact < 0) | ~falls)
    spoilt = np.any((exact < 0) & (slope > 0), axis=1, keepdims=True)
    assert np.mean(spoilt[slope > 0]) > 0.5, "only a predicted rise can be spoilt, and it is"

    slack, limit, most = first - exact, identity().limit(first, exact), etas**2 * bound
    assert np.all(slack >= -limit), "first order is an upper bound"
    assert np.all(slack <= most + limit), "Hoeffding's"
    assert np.any(slack > 0.6 * most + limit), "and no bound of six tenths of it"


def test_first_order_is_no_bound_with_trained_features():
    """Logits W h, both trained: the chosen falls by less than predicted."""
    start = Tied(jnp.array([[1.0], [0.0], [4.0]]), jnp.array([1.0]))

    def loss(params):
        now, before = linear_log_probs(*params), linear_log_probs(*start)
        return losses.dpo(PairLogProbs(now[0], now[1], before[0], before[1]), beta=0.1)

    step = one_step(loss, start, learning_rate=0.1, measure=lambda params: linear_log_probs(*params))
    first = 0.1 * 0.05 * (9.578653737 - 11.399689364)
    assert first < 0.999 * first < (step.after - step.before)[0] < 0  # clear of the bound, hence of rounding


@float64_only
def test_gap_of_a_network_to_first_order_has_slope_two():
    tokens = jnp.array([[0, 2, 3], [1, 2, 3]])
    net = policies.network(2 + 3 + 2 * (V + 1), V, hidden=8)
    inputs = policies.token_inputs(jnp.array([[0.5, -1.0], [0.5, -1.0]]), tokens, V)
    start = net.init(jax.random.key(0))

    def policy(params):
        return sequence_log_prob(log_softmax(net.apply(params, inputs)), tokens, jnp.ones_like(tokens))

    etas = np.logspace(-4, -2.5, 7)

    @jax.jit
    def measured():
        g_w, g_l = (jax.tree.map(lambda g, n=n: g[n], jax.jacrev(policy)(start)) for n in (0, 1))

        def path(eta):
            return policy(jax.tree.map(lambda x, w, l: x + eta * (w - l), start, g_w, g_l))

        rates = velocity(path), velocity(velocity(path))
        return jax.vmap(path)(etas) - path(0.0)[None], *(rate(0.0) for rate in rates)

    exact, slope, second = (np.asarray(x) for x in measured())
    for n in (0, 1):
        gap = np.abs(exact[:, n] - etas * slope[n])
        fit = log_log_slope(etas, gap)
        # gap = (eta^2 / 2) |f''| (1 + r eta + ...): the slope is off by at most r eta, twice that for the orders behind
        off = 2 * abs(2 * gap[-1] / (etas[-1] ** 2 * abs(second[n])) - 1)
        assert off < 0.2
        assert_close(fit.slope, 2, Tolerance(0, off, "the term of order eta^3 at the largest step"))
        assert_close(2 * gap[0] / etas[0] ** 2, abs(second[n]), Tolerance(off, 0, "the same"))
        for wrong in (-slope[n], slope[1 - n], 2 * slope[n]):  # sign flipped, roles swapped, a factor dropped
            assert abs(log_log_slope(etas, np.abs(exact[:, n] - etas * wrong)).slope - 2) > 0.5


# -- C9: which positions meet ------------------------------------------------------------------------------------------


@jax.jit
def autodiff_gram(theta, features, tokens):
    def policy(theta):
        return sequence_log_prob(log_softmax(linear_logits(theta, features)), tokens, jnp.ones_like(tokens))

    rows = jax.jacrev(policy)(theta).reshape(len(tokens), -1)
    return rows @ rows.T


def test_positions_that_are_not_aligned_meet_too():
    features = jax.random.normal(jax.random.key(4), (2, T, D))
    theta = jax.random.normal(jax.random.key(5), (V, D))
    tokens = jnp.array([[0, 1, 2], [3, 1, 2]])
    log_probs, kernel = log_softmax(linear_logits(theta, features)), policies.similarity(features)
    found = autodiff_gram(theta, features, tokens)
    each = policies.token_gram(log_probs, tokens, jnp.ones_like(tokens), kernel)
    assert_close(jnp.einsum("ntms->nm", each), found)
    assert abs(jnp.einsum("tt->", each[0, :, 1]) - found[0, 1]) > 0.1, "aligned positions alone"
    shifted = policies.gram(log_probs, jnp.roll(tokens, 1, axis=1), jnp.ones_like(tokens), kernel)
    assert abs(shifted - found).min() > 0.1, "tokens shifted by one"


def test_hidden_embeddings_score_the_fall_where_residuals_are_alike():
    """At a uniform law, every token the same, all residual products are k0 = 1 - 1/V, and c - a = k0 CHES."""
    features = jax.random.normal(jax.random.key(6), (2, T, D))
    sums = jnp.sum(features, axis=1)
    score = measures.ches_of_sums(*sums)
    alike = autodiff_gram(jnp.zeros((V, D)), features, jnp.zeros((2, T), int))
    assert_close(alike[0, 1] - alike[0, 0], (1 - 1 / V) * score)
    others = autodiff_gram(jnp.zeros((V, D)), features, jnp.array([[0, 1, 2], [0, 2, 3]]))
    for wrong in (others[0, 1] - others[0, 0], alike[0, 1] - alike[1, 1]):  # other residuals; roles swapped
        assert not identity().allows(wrong, (1 - 1 / V) * score)


def test_a_batch_moves_by_its_whole_gram_matrix():
    """The mean of DPO over N pairs changes 2N log-probabilities by eta G v, v = (d_w, -d_l) / N."""
    n = 4
    features = jax.random.normal(jax.random.key(7), (2 * n, T, D))
    theta = jax.random.normal(jax.random.key(8), (V, D))
    tokens = jax.random.randint(jax.random.key(9), (2 * n, T), 0, V)
    reference = jax.random.normal(jax.random.key(10), (2 * n,)) - 4

    def policy(theta):
        return sequence_log_prob(log_softmax(linear_logits(theta, features)), tokens, jnp.ones_like(tokens))

    def pairs(theta):
        now = policy(theta)
        return PairLogProbs(now[:n], now[n:], reference[:n], reference[n:])

    dpo = partial(losses.dpo, beta=0.7)

    @jax.jit
    def both():
        found = jax.jvp(policy, (theta,), (-jax.grad(lambda theta: jnp.mean(dpo(pairs(theta))))(theta),))[1]
        d_w, d_l = margin_weights(dpo, pairs(theta))
        rows = jax.jacrev(policy)(theta).reshape(2 * n, -1)
        alone = jnp.concatenate(first_order_changes(d_w, d_l, *gradient_products(rows[:n], rows[n:]))) / n
        return found, rows @ rows.T @ jnp.concatenate([d_w, -d_l]) / n, alone

    found, predicted, alone = both()
    assert_close(found, predicted)
    assert abs(alone - found).max() > 0.05, "pair by pair"


# -- C11: the weights of every loss, by a step -------------------------------------------------------------------------

# Where the defaults are a special case, or the push would be too even to tell d_w from d_l: other constants.
CONSTANTS = {
    "flex_dpo": dict(beta_chosen=0.3, beta_rejected=0.1),
    "kto": dict(beta=0.5, z0=0.2, desirable_weight=1.5),
    "sppo": dict(eta=4),
    "nca": dict(beta=0.5),
    "bco": dict(beta=0.5),
}
LENGTH = 1e-5 if X64 else 2e-3  # of the step, in the units of theta: large enough for the rounding of a log-probability
PAIRS = 16


@cache
def random_pairs_of_responses():
    rng = np.random.default_rng(11)
    theta, features, tokens = random_models(rng, PAIRS)
    lengths = rng.integers(1, T + 1, size=(PAIRS, 2))
    mask = np.arange(T) < lengths[:, :, None]
    log_ratios = jnp.asarray(rng.normal(size=(PAIRS, 2)), FLOAT)
    return theta, features, tokens, jnp.asarray(mask), jnp.asarray(lengths, FLOAT), log_ratios


@jax.jit
@jax.vmap
def responses(theta, features, tokens, mask):
    return sequence_log_prob(log_softmax(linear_logits(theta, features)), tokens, mask)


@jax.jit
def response_gradients(theta, features, tokens, mask):
    return jax.vmap(jax.jacrev(lambda *args: responses(*(x[None] for x in args))[0]))(theta, features, tokens, mask)


@pytest.mark.parametrize("name", LOSSES)
def test_one_small_step_of_every_loss_moves_what_its_weights_say(name):
    """Measured = predicted minus at most Hoeffding's (eta^2 / 8) sum of squared ranges, on each of 16 random pairs."""
    theta, features, tokens, mask, lengths, log_ratios = random_pairs_of_responses()
    loss = partial(LOSSES[name], **CONSTANTS.get(name, {}))
    start = responses(theta, features, tokens, mask)

    def pairs(theta):
        now = responses(theta, features, tokens, mask)
        return PairLogProbs(*now.T, *(start - log_ratios).T, *lengths.T)

    slope = jax.grad(lambda theta: jnp.sum(loss(pairs(theta))))(theta)  # each pair has a theta of its own
    eta = LENGTH / jnp.linalg.norm(slope, axis=(1, 2))
    step = -eta[:, None, None] * slope
    measured = np.asarray(responses(theta + step, features, tokens, mask) - start, float)

    d_w, d_l = margin_weights(loss, pairs(theta))
    g, g_shifted = (response_gradients(theta, features, tokens, m) for m in (mask, jnp.roll(mask, 1, axis=2)))

    def predict(d_w, d_l, g=g):
        products = gradient_products(*(g[:, n].reshape(PAIRS, -1) for n in (0, 1)))
        return np.asarray(eta[:, None] * jnp.stack(first_order_changes(d_w, d_l, *products), axis=1), float)

    width = np.ptp(np.einsum("pvd,pntd->pntv", step, features), axis=-1)
    bound = np.sum(np.where(mask, width, 0) ** 2, axis=-1) / 8
    rounding = 30 * T * EPS  # a log-probability is a sum of T terms of at most ten nats

    def missed(predicted):
        return np.maximum(measured - predicted, predicted - bound - measured)

    assert np.all(bound < 0.02 * np.max(np.abs(measured), axis=1, keepdims=True))
    assert np.all(missed(predict(d_w, d_l)) <= rounding)
    assert np.any(missed(predict(-d_w, -d_l)) > 2 * (bound + rounding)), "sign flipped"
    assert np.any(missed(predict(d_w, d_l, g_shifted)) > 2 * (bound + rounding)), "mask shifted by one"
    if not identity().allows(d_w, d_l):
        assert np.any(missed(predict(d_l, d_w)) > 2 * (bound + rounding)), "weights swapped"
