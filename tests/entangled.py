"""What the tests of gradient entanglement share: printed digits, one pair under one loss, and a step on it."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from sandbox import losses
from sandbox.algebra import log_softmax
from sandbox.losses import PairLogProbs
from tests.tolerances import Tolerance, golden

X64 = jax.config.jax_enable_x64
FLOAT = jnp.result_type(float)
EPS = float(jnp.finfo(FLOAT).eps)
float64_only = pytest.mark.skipif(not X64, reason="the change measured is below float32's rounding")

DPO = partial(losses.dpo, beta=0.1)  # pushes both responses with d = beta / 2 = .05 where the policy is its reference


def printed(decimals: int) -> Tolerance:
    rounding = Tolerance(0, 0.51 * 10**-decimals, f"half a unit of the printed decimal {decimals}, and rounding")
    return rounding if X64 else golden()


def pair_loss(loss, policy, start, *lengths):
    """The loss as a function of the parameters; ``start`` is the reference, ``policy(params)`` are A and B."""
    return lambda params: loss(PairLogProbs(*policy(params), *policy(start), *lengths))


def rates(loss, policy, start, *lengths):
    """Changes (2,) of A and B per unit of a step of gradient descent on the loss."""
    down = jax.tree.map(jnp.negative, jax.grad(pair_loss(loss, policy, start, *lengths))(start))
    return jax.jvp(policy, (start,), (down,))[1]


def moved(loss, policy, start, learning_rate, *lengths):
    """Changes (2,) of A and B by that step."""
    slope = jax.grad(pair_loss(loss, policy, start, *lengths))(start)
    return policy(jax.tree.map(lambda x, g: x - learning_rate * g, start, slope)) - policy(start)


def tabular_dpo(z, reference, beta):
    """DPO on tokens 0 and 1 of a tabular policy, of logits z."""
    now, before = log_softmax(z), log_softmax(reference)
    return losses.dpo(PairLogProbs(now[0], now[1], before[0], before[1]), beta=beta)
