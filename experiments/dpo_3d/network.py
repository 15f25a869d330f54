"""The paper's toy: a one-hot network on four prompts, brought to the laws of an on- or off-policy scenario, then DPO.

Prompt i prefers response i to response 4 + i; responses 8 and 9 are listed for no prompt. The network has 64 tanh units
and then a layer that all prompts and responses share, wide or narrow. All widths, scenarios and seeds are one compiled
program: a narrow layer is a wide one whose other units start at zero, where their gradients keep them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments.dpo_3d.setup import SCENARIOS, UNITS, Scenario, Setup
from sandbox.dynamics import train
from sandbox.losses import PairLogProbs, dpo
from sandbox.measures import log_kl
from sandbox.policies import Network, network

PROMPTS, RESPONSES = 4, 10
WIDTHS = (UNITS, 4, 3, 2)  # units of the shared layer; laws that favour different responses need PROMPTS - 1
ADAM, DESCENT = 1e-3, 0.1  # learning rates of the preference training
SWEEP = jnp.float32  # trends over many runs, in half the time
BATCH = 8  # models side by side: with Adam's moments they fit into a processor's cache

# What a response is to a prompt.
ROLES = ("its chosen", "its rejected", "another's chosen", "another's rejected", "never listed")

_PROMPT, _RESPONSE = np.indices((PROMPTS, RESPONSES))
_OWN = _RESPONSE % PROMPTS == _PROMPT
ROLE = np.where(_RESPONSE < 2 * PROMPTS, _RESPONSE // PROMPTS + np.where(_OWN, 0, 2), len(ROLES) - 1)  # (4, 10)
CONTRAST = (ROLE == 0) * 1.0 - (ROLE == 1)  # +1 at a prompt's chosen response, -1 at its rejected


def laws(scenario: Scenario) -> np.ndarray:
    """Log-probabilities (prompts, responses) of a scenario; what its numbers leave over is spread evenly."""
    first = np.full(RESPONSES, np.nan)
    first[[0, PROMPTS]] = scenario.chosen, scenario.rejected
    if scenario.peak is not None:
        first[2 * PROMPTS] = scenario.peak
    rest = np.isnan(first)
    first[rest] = (1 - np.nansum(first)) / rest.sum()
    names = np.where(
        _RESPONSE < 2 * PROMPTS, (_RESPONSE - _PROMPT) % PROMPTS + _RESPONSE // PROMPTS * PROMPTS, _RESPONSE
    )
    return np.log(first[names])


def one_hot_network() -> Network:
    """4-64-64-10, tanh; ``start`` gives parameters at which its last hidden layer is narrower."""
    return network(PROMPTS, RESPONSES, hidden=(64, WIDTHS[0]))


def start(net: Network, key: Array, width: Any) -> Any:
    """Parameters at which the last hidden layer of ``net`` has ``width`` units; ``width`` may be traced.

    Weights out of it are normal with deviation 1 / sqrt(width). The other units are zero with all weights into and out
    of them, a point where their gradients vanish: gradient descent and Adam leave them there.
    """
    leaves, tree = jax.tree.flatten(net.init(key))
    b1, w1, b2, w2, b3, w3 = leaves
    units = w3.shape[0]
    alive = jnp.arange(units) < width
    w2, w3 = jnp.where(alive, w2, 0), jnp.where(alive[:, None], w3 * jnp.sqrt(units / width), 0)
    return jax.tree.unflatten(tree, [b1, w1, b2, w2, b3, w3])


def scenarios(setup: Setup, key: Array) -> dict[str, Array]:
    """Four scenarios, each width and seed: arrays (widths, scenarios, seeds, ...), log-probabilities in nats.

    ``miss`` (prompts): KL of the scenario's law from the network's after pretraining. ``own_scores`` and ``scores``
    (prompts, responses): see ``scores``. For each training (``dpo``: Adam, ``descent``: gradient descent on the same
    loss, ``likelihood``: Adam on the chosen alone), means over prompts along training, (records): ``_chosen`` and
    ``_rejected`` log-probabilities, ``_unseen`` probability of all others, of which ``_never`` is never listed.
    They are kept at ``step`` (records). ``_peak``: the highest ``_unseen`` of every ``setup.every`` steps. ``_winner``
    (prompts): the role of the most probable response at the end, as in ``ROLES``; ``_fall`` (prompts): how far the
    chosen log-probability ends below its highest. In float32.
    """
    keys = jax.random.split(key, setup.network_seeds)
    wanted = jnp.asarray(np.stack([laws(scenario) for scenario in SCENARIOS.values()]))
    shape = len(WIDTHS), len(wanted), len(keys)
    width, scenario, seed = (index.reshape(-1) for index in np.indices(shape))
    models = jnp.array(WIDTHS)[width], wanted[scenario].astype(SWEEP), keys[seed]
    found = jax.lax.map(partial(_run, setup, one_hot_network()), models, batch_size=BATCH)
    found = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)
    return found | {"step": jnp.asarray(setup.every * kept(setup))}


def kept(setup: Setup) -> np.ndarray:
    """Which of the records, one every ``setup.every`` steps, are returned: about 40, dense at first."""
    last = setup.steps // setup.every
    return np.unique(np.round(np.geomspace(1, last + 1, 48)).astype(int)) - 1


def pretrained(net: Network, law: Array, key: Array, width: Any, steps: int) -> Any:
    """Parameters of ``net`` with ``width`` shared units, brought to ``law`` (prompts, responses) by cross-entropy."""
    inputs = jnp.eye(PROMPTS, dtype=law.dtype)

    def miss(params: Any) -> Array:
        return jnp.mean(log_kl(law, jax.nn.log_softmax(net.apply(params, inputs))))

    initial = jax.tree.map(lambda x: x.astype(law.dtype), start(net, key, width))
    return train(miss, initial, steps=steps, learning_rate=3e-3, optimizer=optax.adam).params


def _run(setup: Setup, net: Network, model: tuple[Array, Array, Array]) -> dict[str, Array]:
    """One model: pretraining, then each way of training from there."""
    width, law, key = model
    inputs, contrast = jnp.eye(PROMPTS, dtype=law.dtype), jnp.asarray(CONTRAST, law.dtype)

    def log_probs(params: Any) -> Array:
        return jax.nn.log_softmax(net.apply(params, inputs))

    reference = pretrained(net, law, key, width, setup.pretrain_steps)
    at_start = net.margin(reference, inputs, contrast)

    def preference(params: Any) -> Array:
        now = net.margin(params, inputs, contrast)
        return jnp.mean(dpo(PairLogProbs(now, 0, at_start, 0), beta=setup.beta))

    def likelihood(params: Any) -> Array:
        return -jnp.mean(jnp.sum(jnp.where(ROLE == 0, log_probs(params), 0), axis=-1))

    found = {"miss": log_kl(law, log_probs(reference))}
    found["own_scores"], found["scores"] = scores(net, reference)
    for name, loss, rate, optimizer in (
        ("dpo", preference, ADAM, optax.adam),
        ("descent", preference, DESCENT, optax.sgd),
        ("likelihood", likelihood, ADAM, optax.adam),
    ):
        run = train(
            loss, reference, steps=setup.steps, learning_rate=rate, optimizer=optimizer,
            record=log_probs, every=setup.every,
        )  # fmt: skip
        found |= {f"{name}_{what}": x for what, x in summary(run.history, kept(setup)).items()}
    return found


def summary(log_probs: Array, kept: np.ndarray) -> dict[str, Array]:
    """What ``scenarios`` says of one training, from log-probabilities (records, prompts, responses)."""
    chosen, rejected = (jnp.sum(jnp.where(ROLE == role, log_probs, 0), axis=-1) for role in (0, 1))
    mass = [jnp.sum(jnp.where(ROLE == role, jnp.exp(log_probs), 0), axis=-1) for role in (2, 3, 4)]
    unseen = jnp.mean(sum(mass), axis=-1)
    return {
        "chosen": jnp.mean(chosen, axis=-1)[kept],
        "rejected": jnp.mean(rejected, axis=-1)[kept],
        "unseen": unseen[kept],
        "never": jnp.mean(mass[-1], axis=-1)[kept],
        "peak": jnp.max(unseen),
        "winner": jnp.asarray(ROLE)[np.arange(PROMPTS), jnp.argmax(log_probs[-1], axis=-1)],
        "fall": jnp.max(chosen, axis=0) - chosen[-1],
    }


def scores(net: Network, params: Any) -> tuple[Array, Array]:
    """Similarity scores (prompts, responses) of the empirical kernel: 0 at the rejected response, 1 at the chosen.

    How fast a response's logit gains on the rejected one's, in units of the margin's growth, when a small step
    raises the margin of the prompt itself (the first array) or of all prompts together (the second), as DPO's first
    step does. The mean score under the policy then decides: the chosen falls where it exceeds 1 and the margin grows.
    """
    dtype = jnp.result_type(*jax.tree.leaves(params))
    inputs, contrast, ones = (jnp.asarray(x, dtype) for x in (np.eye(PROMPTS), CONTRAST, np.ones(PROMPTS)))

    def along(weights: Array) -> Array:
        direction = jax.grad(lambda p: jnp.sum(weights * net.margin(p, inputs, contrast)))(params)
        speed = jax.jvp(lambda p: net.apply(p, inputs), (params,), (direction,))[1]
        from_rejected = speed - jnp.sum(jnp.where(ROLE == 1, speed, 0), axis=-1, keepdims=True)
        return from_rejected / jnp.sum(jnp.where(ROLE == 0, from_rejected, 0), axis=-1, keepdims=True)

    own = jax.vmap(along)(inputs)[np.arange(PROMPTS), np.arange(PROMPTS)]
    return own, along(ones)


STAGES = {"scenarios": scenarios}
