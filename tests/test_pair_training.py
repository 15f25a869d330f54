"""Closed-form descent against autodiff of the same losses, alone and mapped, and the weights of margin losses."""

from __future__ import annotations

from functools import partial
from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sandbox import losses
from sandbox.dynamics import train
from sandbox.losses import LOSSES, PairLogProbs, margin_weights
from sandbox.margins import fast_exp, margin_weight
from sandbox.pair_training import train_linear, train_table
from sandbox.policies import linear_logits, sequence_log_prob
from sandbox.tolerances import Tolerance, identity
from tests.tolerances import assert_close

CHOSEN, REJECTED = np.array([0, 1, 2, 0]), np.array([3, 0, 4, 3])  # pairs meet in responses, one comes twice
MODELS = 3
MARGIN = {"dpo", "rdpo", "cdpo", "robust_dpo", "ipo", "hinge", "exo", "discopop", "simpo"}


def table_loss(loss, logits, start):
    policy, reference = jax.nn.log_softmax(logits), jax.nn.log_softmax(start)
    pair = PairLogProbs(policy[CHOSEN], policy[REJECTED], reference[CHOSEN], reference[REJECTED], 1.0, 1.0)
    return jnp.mean(loss(pair))


@pytest.mark.parametrize("name", [*sorted(MARGIN), "kto", "dpop", "cpo", "orpo"])
def test_a_table_is_trained_as_by_autodiff(name):
    """Losses of the margin and others, mapped over starts, learning rates, and a constant of the loss."""
    loss = LOSSES[name]
    constant = next(x.name for x in signature(loss).parameters.values() if x.kind is x.KEYWORD_ONLY)
    starts = jax.random.normal(jax.random.key(0), (MODELS, 5))
    rates, values = jnp.array([0.1, 0.2, 0.3]), jnp.array([0.1, 0.2, 0.3])

    def autodiff(start, rate, value):
        made = partial(loss, **{constant: value})
        objective = lambda logits: table_loss(made, logits, start)  # noqa: E731
        return train(objective, start, steps=6, learning_rate=rate, record=jax.nn.log_softmax, every=3)

    def closed(start, rate, value):
        made = partial(loss, **{constant: value})
        given = {"steps": 6, "learning_rate": rate, "record": jax.nn.log_softmax, "every": 3}
        return train_table(made, start, CHOSEN, REJECTED, **given)

    wanted = jax.jit(jax.vmap(autodiff))(starts, rates, values)
    found = jax.jit(jax.vmap(closed))(starts, rates, values)
    assert found.history.shape == (MODELS, 3, 5)
    jax.tree.map(assert_close, found, wanted)
    if name in ("dpo", "orpo"):
        alone = jax.jit(closed)(starts[1], rates[1], values[1])
        jax.tree.map(assert_close, alone, jax.tree.map(lambda x: x[1], wanted))


def test_models_may_have_pairs_of_their_own():
    starts = jax.random.normal(jax.random.key(0), (MODELS, 5))
    chosen = jnp.array([[0, 1], [2, 2], [3, 0]])
    one = lambda start, chosen: train_table(losses.dpo, start, chosen, chosen + 1, steps=4, learning_rate=0.5)  # noqa: E731
    many = jax.vmap(one)(starts, chosen)
    for i in range(MODELS):
        assert_close(many.params[i], one(starts[i], chosen[i]).params)


@pytest.mark.parametrize(
    "loss",
    [partial(losses.dpo, beta=0.7), losses.simpo, losses.orpo, losses.flex_dpo],
    ids=["dpo", "simpo", "orpo", "flex_dpo"],
)
def test_linear_logits_are_trained_as_by_autodiff(loss):
    """Also what ``record`` is given through ``args``, and a rate and a mask of each model's own."""
    keys = jax.random.split(jax.random.key(0), 3)
    theta, features = jax.random.normal(keys[0], (MODELS, 6, 5)), jax.random.normal(keys[1], (MODELS, 2, 3, 5))
    tokens, rates = jax.random.randint(keys[2], (MODELS, 2, 3), 0, 6), jnp.array([0.05, 0.1, 0.2])
    mask = jnp.arange(3)[None, None] < jnp.array([1, 2, 3])[:, None, None] * jnp.ones((1, 2, 1), int)

    def log_probs(theta, features, tokens, mask):
        return sequence_log_prob(jax.nn.log_softmax(linear_logits(theta, features)), tokens, mask)

    def autodiff(theta, rate, *data):
        start, lengths = log_probs(theta, *data), jnp.sum(data[-1], axis=1).astype(theta.dtype)
        objective = lambda theta: loss(PairLogProbs(*log_probs(theta, *data), *start, *lengths))  # noqa: E731
        return train(objective, theta, steps=6, learning_rate=rate, record=lambda t: log_probs(t, *data), every=2)

    def closed(theta, rate, *data):
        return train_linear(loss, theta, *data, steps=6, learning_rate=rate, record=log_probs, args=data, every=2)

    given = theta, rates, features, tokens, mask
    jax.tree.map(assert_close, jax.jit(jax.vmap(closed))(*given), jax.jit(jax.vmap(autodiff))(*given))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"every": 3}, "every = 3: must divide steps = 4"),
        ({"learning_rate": np.nan}, "learning_rate = nan: must be finite"),
    ],
)
def test_bad_input_is_refused(wrong, message):
    given = {"steps": 4, "learning_rate": 0.1, **wrong}
    with pytest.raises(ValueError, match=message):
        train_table(losses.dpo, np.zeros(5), CHOSEN, REJECTED, **given)


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MARGIN))
def test_the_weight_of_a_margin_is_the_derivative_of_the_loss(name):
    loss, h = LOSSES[name], np.concatenate([np.linspace(-2, 2, 101), np.linspace(-400, 400, 101)])
    if name == "simpo":  # has no reference: its margin is the policy's
        pair = PairLogProbs(h - 100, np.full_like(h, -100.0), None, None, 1.0, 1.0)
    else:
        pair = PairLogProbs(h, np.zeros_like(h), 0.0, 0.0, 1.0, 1.0)
    up, down = margin_weights(loss, PairLogProbs(*(x if x is None else jnp.asarray(x, float) for x in pair)))
    found = margin_weight(loss)(jnp.asarray(h, float), 0.0)
    assert_close(up, down)
    assert_close(found, up)


def test_other_losses_have_no_such_weight():
    assert {name for name, loss in LOSSES.items() if margin_weight(loss) is not None} == MARGIN


def test_constants_are_those_given_or_the_papers():
    h = jnp.linspace(-1, 1, 5)
    open_constant = margin_weight(partial(losses.cdpo, epsilon=0.3))(h, 0.0, beta=0.5)
    assert_close(open_constant, 0.5 * (jax.nn.sigmoid(-0.5 * h) - 0.3))


def test_the_exponential_is_right_to_its_last_digits():
    x = jnp.linspace(-87, 87, 100_001)
    digits = identity() if x.dtype == jnp.float64 else Tolerance(1e-6, 0, "x / log 2 is rounded to 2^-17 at 2^7")
    found = np.asarray(jax.jit(fast_exp)(x), float)
    assert_close(found / np.exp(np.asarray(x, float)), np.ones(len(x)), Tolerance(1.2e-5, 0, digits.why))
    near = jnp.linspace(-1, 1, 1001)
    assert_close(np.asarray(jax.jit(fast_exp)(near)) / np.exp(np.asarray(near)), np.ones(1001), digits)
    ends = fast_exp(jnp.array([-1e4, 1e4, jnp.nan]))
    assert ends[0] < 1e-37 and ends[1] > 1e37 and jnp.isnan(ends[2])
