"""Gradient entanglement in numbers: one token, and a shared prefix (C6, C7).

Changes per unit of step are derivatives of the policy along minus the gradient of the loss that trains; where a sign is
at stake, a step is taken too. Next to the right reading stands the wrong one, which must miss.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sandbox import losses, policies
from sandbox.algebra import flow_margin, log_softmax
from sandbox.dynamics import descent, flow, train
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.measures import safe_interval
from sandbox.policies import sequence_log_prob, tabular_gram
from tests.entangled import FLOAT, float64_only, moved, printed, rates, tabular_dpo
from tests.tolerances import Tolerance, assert_close, golden

# -- C6: one token -----------------------------------------------------------------------------------------------------


def one_token(z):
    return log_softmax(z)[:2]


@float64_only
def test_beyond_the_factor_two_one_token_entangles():
    """p = (.01, .01, .98), weights 1 and 2.2: the chosen falls."""
    p = jnp.array([0.01, 0.01, 0.98])
    assert_close([tabular_gram(p, 0, 0), tabular_gram(p, 0, 1)], [1.9406, 0.9406])

    def weighed(d_w, d_l):  # Flex-DPO pushes with half its constants where the policy is its reference
        return partial(losses.flex_dpo, beta_chosen=2 * d_w, beta_rejected=2 * d_l)

    found = rates(weighed(1.0, 2.2), one_token, jnp.log(p))[0]
    assert_close(found, -0.12872)
    step = moved(weighed(1.0, 2.2), one_token, jnp.log(p), 1e-3)[0] / 1e-3
    second = Tolerance(0, 1e-3 / 8 * 3.2**2, "Hoeffding's eta / 8 times the squared range of the logits' change")
    assert_close(step, -0.12872, second)
    for d in ((2.2, 1.0), (1.0, 2.0), (1.0, 1.0)):  # swapped; at the factor two; equal
        assert moved(weighed(*d), one_token, jnp.log(p), 1e-3)[0] > 0
    assert not golden().allows(rates(weighed(1.0, 2.2), one_token, jnp.log(p)[::-1])[0], -0.12872)


def test_the_factor_two_is_sharp_and_the_cosine_ends_at_minus_one():
    def products(p):
        norms = (jnp.sqrt(tabular_gram(p, y, y)) for y in (0, 1))
        return *norms, tabular_gram(p, 0, 1)

    lows = [safe_interval(*products(jnp.array([s, s, 1 - 2 * s])))[0] for s in (0.1, 0.01, 0.001)]
    assert lows[0] < lows[1] < lows[2] < 0.5
    assert_close(lows[2], 0.5, Tolerance(0, 0.0016, "3/2 of the two tokens' probability, to first order"))
    for p_w, rest in ((0.3, 0.0), (0.3, 1e-3), (0.9, 1e-3)):
        norm_w, norm_l, inner = products(jnp.array([p_w, 1 - p_w - rest, rest / 2, rest / 2]))
        cosine = inner / (norm_w * norm_l)
        assert_close(cosine, -1) if rest == 0 else np.testing.assert_array_less(-1 + 1e-7, cosine)


EQUAL = {
    "dpo": lambda x, s: losses.dpo(x, beta=s),
    "rdpo": lambda x, s: losses.rdpo(x, beta=s, alpha=0.05),
    "robust_dpo": lambda x, s: losses.robust_dpo(x, beta=s, epsilon=0.1),
    "hinge": lambda x, s: losses.hinge(x, beta=s),
    "cdpo": lambda x, s: losses.cdpo(x, beta=s, epsilon=0.1),
    "ipo": lambda x, s: losses.ipo(x, tau=s),
    "exo": lambda x, s: losses.exo(x, beta=s, epsilon=0.01),
    "discopop": lambda x, s: losses.discopop(x, beta=s, tau=0.05),
}
PUSHING = 4  # the first of them never push back


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None, None))
@partial(jax.vmap, in_axes=(None, 0, None, None))
@partial(jax.vmap, in_axes=(None, None, 0, None))
@partial(jax.vmap, in_axes=(None, None, None, 0))
def trained(which, strength, rate, start):
    """Log-probabilities (losses, strengths, rates, starts, steps + 1, 2) of both tokens."""

    def loss(z):
        pair = PairLogProbs(*one_token(z), *one_token(start), 3.0, 2.0)
        return jax.lax.switch(which, list(EQUAL.values()), pair, strength)

    return train(loss, start, steps=20, learning_rate=rate, record=one_token).history


def test_no_step_of_equal_weights_moves_one_token_the_wrong_way():
    """Whatever the loss, its strength, the rate and the law: a positive weight raises the chosen, lowers the rejected.

    Losses with a target overshoot it at the larger rates, and then both moves are reversed.
    """
    strengths, step_sizes = jnp.array([0.05, 0.5, 3.0]), jnp.array([0.1, 1.0, 5.0])
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(20, 5)) * 2, FLOAT)
    found = trained(jnp.arange(len(EQUAL)), strengths, step_sizes, starts)
    assert found.shape == (len(EQUAL), 3, 3, 20, 21, 2)
    for (name, loss), now in zip(EQUAL.items(), found, strict=True):
        ref = now[..., :1, :]
        pair = PairLogProbs(now[..., 0], now[..., 1], ref[..., 0], ref[..., 1], 3.0, 2.0)
        d_w, d_l = margin_weights(partial(loss, s=strengths[:, None, None, None]), pair)
        assert_close(d_w, d_l, what=name)
        now, push = np.asarray(now, float), np.sign(np.asarray(d_w))[..., :-1, None]
        right_way = push * np.diff(now, axis=-2) * np.array([1, -1])
        rounding = 10 * np.finfo(FLOAT).eps * (1 + np.abs(now).max(axis=-1, keepdims=True))
        assert np.all(right_way >= -np.maximum(rounding[..., 1:, :], rounding[..., :-1, :])), name
        if name in list(EQUAL)[:PUSHING]:
            total = now[..., -1, :] - now[..., 0, :]
            assert np.all(push >= 0) and np.all(total[..., 0] > 0) and np.all(total[..., 1] < 0), name
        else:
            assert np.any(push < 0), name


dpo_field = descent(tabular_dpo)


def test_path_of_dpo_flow():
    """A(t) = log p_w + tau - log Z(tau), tau = S / (2 beta), S + e^S = 1 + 2 beta^2 t, on the actual loss."""
    times = jnp.array([0.0, 0.5, 2.0, 5.0])
    p = jnp.array([0.2, 0.3, 0.4, 0.1])
    # 16 substeps of at most .19 time units, at rates below 2 beta^2 = 2: fourth order
    runge_kutta = Tolerance(0, 1e-5, "Runge-Kutta steps of .19 time units at rates of at most 2")

    def path(clock, beta):
        tau = flow_margin(1 + clock * times) / (2 * beta)
        return jnp.log(p[0]) + tau - jnp.log(1 + p[0] * jnp.expm1(tau) + p[1] * jnp.expm1(-tau))

    for beta in (0.3, 0.7, 1.0):
        states = flow(dpo_field, jnp.log(p), times, (jnp.log(p), beta))
        found = log_softmax(states)[:, 0]
        assert_close(found, path(2 * beta**2, beta), runge_kutta)
        assert not runge_kutta.allows(found, path(beta**2, beta)), "as if only one response moved"
        assert beta == 1 or not runge_kutta.allows(found, path(2 * beta, beta)), "beta dropped"


# -- C7: a shared prefix -----------------------------------------------------------------------------------------------

LONGEST = 40
LENGTHS = jnp.arange(LONGEST + 1)
BRANCH, OTHER = (0.5, 0.3, 0.2), (0.7, 0.2, 0.1)
TABLE = jnp.log(jnp.array([OTHER] * LONGEST + [BRANCH] + [OTHER] * 2))  # one row a context


def prefix_policy(table, prefix, token):
    """The last ``prefix`` of LONGEST shared tokens, the branch, and two more tokens of the chosen response's own."""
    places = jnp.arange(LONGEST + 3)
    tokens = jnp.where(places < LONGEST, token, 0)[None] + jnp.array([[0], [1]]) * (places == LONGEST)[None]
    own = jnp.array([[True], [False]]) & (places > LONGEST)[None]
    mask = own | ((places >= LONGEST - prefix) & (places <= LONGEST))[None]
    return sequence_log_prob(log_softmax(jnp.broadcast_to(table, (2, *table.shape))), tokens, mask)


@jax.jit
def all_prefixes(tables, token):
    """A and B (LONGEST + 1, 2) for every length of prefix, each under a table of its own."""
    return jax.vmap(prefix_policy, (0, 0, None))(tables, LENGTHS, token)


@jax.jit
def rates_of_all_prefixes(tables, steps, token):
    return jax.jvp(partial(all_prefixes, token=token), (tables,), (steps,))[1]


def along_prefixes(loss, token):
    """Changes (LONGEST + 1, 2) by a step of 1e-3 on the loss, and per unit of step, for every length of prefix."""
    tables = jnp.broadcast_to(TABLE, (len(LENGTHS), *TABLE.shape))
    before = all_prefixes(tables, token)

    def total(tables):
        pairs = PairLogProbs(*all_prefixes(tables, token).T, *before.T, LENGTHS + 3.0, LENGTHS + 1.0)
        return jnp.sum(loss(pairs))

    down = -jax.grad(total)(tables)
    return all_prefixes(tables + 1e-3 * down, token) - before, rates_of_all_prefixes(tables, down, token)


FLEX = partial(losses.flex_dpo, beta_chosen=1.6, beta_rejected=2.0)
FLEX_UP = partial(losses.flex_dpo, beta_chosen=4.0, beta_rejected=2.0)


@float64_only
def test_a_long_prefix_turns_the_chosen_at_33_857():
    """rho = .8, residuals of .14 a prefix token, suffix of two: the chosen falls from 34 tokens on."""
    square, delta, own = 0.3**2 + 0.2**2 + 0.1**2, 0.5 - 0.3, 2 * 0.14
    meet = sum(x**2 for x in BRANCH) - 0.8

    def threshold(rho, delta=delta, own=own, meet=meet):
        return (rho * (1 - delta + own) / (1 - rho) - meet) / square

    assert_close(threshold(0.8), 33.857, printed(3))
    step, rate = along_prefixes(FLEX, 0)
    for change in (step, rate):
        assert jnp.array_equal(change[:, 0] < 0, threshold(0.8) < LENGTHS)
        assert jnp.all(change[:, 1] < 0)
    wrong = {
        "sign of delta": threshold(0.8, delta=-delta),
        "suffix dropped": threshold(0.8, own=0),
        "branch dropped": threshold(0.8, meet=0),
        "rho inverted": threshold(1 / 0.8),
    }
    for name, n in wrong.items():
        assert not jnp.array_equal(step[:, 0] < 0, n < LENGTHS), name

    # and the other way round: rho = 2, the rejected rises beyond (1 + delta) / (rho - 1) - c of the branch
    step, _ = along_prefixes(FLEX_UP, 0)
    assert jnp.array_equal(step[:, 1] > 0, (1 + delta - meet) / square < LENGTHS)
    assert jnp.all(step[:, 0] > 0)


OF_MEANS = {
    "SimPO": losses.simpo,
    "IPO": partial(losses.ipo, reduction="mean"),
    "DPO": partial(losses.dpo, reduction="mean"),
}


@float64_only
@pytest.mark.parametrize("name", OF_MEANS)
def test_a_longer_chosen_falls_under_token_means(name):
    """Three own tokens against one: for long prefixes iff twice a prefix token's squared residual exceeds 1.08.

    Exactly: iff n_l (1 - delta + A_s) < (n_w - n_l) c.
    """
    for token, square in ((0, 0.14), (1, 0.7**2 + 0.8**2 + 0.1**2), (2, 0.7**2 + 0.2**2 + 0.9**2)):
        _, rate = along_prefixes(OF_MEANS[name], token)
        falls = rate[:, 0] < 0
        assert bool(falls[-1]) == (2 * square > 1.08)
        assert jnp.array_equal(falls, (LENGTHS + 1) * 1.08 < 2 * (square * LENGTHS - 0.42))
    step, _ = along_prefixes(OF_MEANS[name], 1)
    assert step[-1, 0] < 0 < step[0, 0]


TOKENS, _ = policies.all_responses(3, 4)


@jax.jit
@jax.vmap
def steps_of_equal_weights(table, contexts, tokens):
    """Changes (6, 2) of A and B by steps of 1e-3 to 100 along g_w - g_l."""

    def policy(table):
        return sequence_log_prob(log_softmax(table[contexts]), tokens, jnp.ones_like(tokens))

    g_w, g_l = jax.jacrev(policy)(table)
    after = jax.vmap(lambda t: policy(table + t * (g_w - g_l)))(10.0 ** jnp.arange(-3, 3))
    return after - policy(table)[None]


@float64_only
def test_equal_weights_never_entangle_a_tabular_tree_at_any_step_size():
    rng = np.random.default_rng(0)
    pairs = np.stack([rng.choice(len(TOKENS), 2, replace=False) for _ in range(1000)])
    tables = jnp.asarray(2 * rng.normal(size=(1000, policies.number_of_prefixes(3, 4), 3)))
    change = steps_of_equal_weights(tables, policies.prefix_ids(TOKENS, 3)[pairs], TOKENS[pairs])
    assert jnp.all(change[..., 0] > 0) and jnp.all(change[..., 1] < 0)
    shared = steps_of_equal_weights(tables, jnp.zeros((1000, 2, 4), jnp.int32), TOKENS[pairs])  # one softmax for all
    assert jnp.mean(shared[:, 0, 0] < 0) > 0.05 and jnp.mean(shared[:, 0, 1] > 0) > 0.05
