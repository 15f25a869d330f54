"""One run of the paper's toy with the loss, scenario, optimiser and width of the command line, and its three D's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments.dpo_3d.network import PROMPTS, ROLE, laws, one_hot_network, pretrained
from experiments.dpo_3d.setup import SCENARIOS, Setup
from sandbox.dynamics import train
from sandbox.losses import LOSSES, PairLogProbs
from sandbox.measures import decay_exponent, fall_from_peak, rise_to_peak, suppression_share
from sandbox.policies import Network

OPTIMISERS = {"adam": optax.adam, "sgd": optax.sgd}


def loss_of(setup: Setup) -> Callable[[PairLogProbs], Any]:
    """The loss that the setup names, with the setup's betas and alpha where it has such constants."""
    loss = LOSSES[setup.loss]
    ours = ("beta", "beta_chosen", "beta_rejected", "alpha")
    given = {name: getattr(setup, name) for name in ours if name in signature(loss).parameters}
    return partial(loss, **given)


def one_run(setup: Setup, key: Array) -> dict[str, Array]:
    """Mean log-probabilities of chosen and rejected, and the unseen mass, along training: (seeds, records).

    ``drop``, ``share``, ``fall``, ``dispersion`` (seeds,): the three D's, as in the table of losses, of the means over
    prompts. Responses have one token.
    """
    net, loss = one_hot_network(), loss_of(setup)
    law = jnp.asarray(laws(SCENARIOS[setup.scenario]))
    keys = jax.random.split(key, setup.network_seeds)
    log_probs = jax.vmap(partial(_run, setup, net, loss, law))(keys)  # seeds, records, prompts, responses
    chosen, rejected = (jnp.mean(jnp.sum(jnp.where(ROLE == role, log_probs, 0), axis=-1), axis=-1) for role in (0, 1))
    unseen = jnp.mean(jnp.sum(jnp.where(ROLE > 1, jnp.exp(log_probs), 0), axis=-1), axis=-1)
    steps = setup.every * np.arange(chosen.shape[-1])
    moved = chosen[:, -1] - chosen[:, 0], rejected[:, -1] - rejected[:, 0]
    return {
        "step": jnp.asarray(steps),
        "chosen": chosen,
        "rejected": rejected,
        "unseen": unseen,
        "drop": decay_exponent(steps, rejected.T),
        "share": suppression_share(*moved),
        "fall": fall_from_peak(chosen.T),
        "dispersion": rise_to_peak(jnp.log(unseen.T)),
    }


def _run(setup: Setup, net: Network, loss: Callable[..., Any], law: Array, key: Array) -> Array:
    """Log-probabilities (records, prompts, responses) of one seed."""
    inputs = jnp.eye(PROMPTS, dtype=law.dtype)

    def log_probs(params: Any) -> Array:
        return jax.nn.log_softmax(net.apply(params, inputs))

    def of_pair(params: Any) -> tuple[Array, Array]:
        now = log_probs(params)
        return jnp.sum(jnp.where(ROLE == 0, now, 0), axis=-1), jnp.sum(jnp.where(ROLE == 1, now, 0), axis=-1)

    reference = pretrained(net, law, key, setup.width, setup.pretrain_steps)
    start, one = of_pair(reference), jnp.ones(PROMPTS, law.dtype)

    def objective(params: Any) -> Array:
        return jnp.mean(loss(PairLogProbs(*of_pair(params), *start, one, one)))

    return train(
        objective,
        reference,
        steps=setup.steps,
        learning_rate=setup.learning_rate,
        optimizer=OPTIMISERS[setup.optimiser],
        record=log_probs,
        every=setup.every,
    ).history


STAGES = {"one run": one_run}
