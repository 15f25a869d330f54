"""The sentiment task: a small network, fine-tuned on chosen responses, then trained on pairs that share a suffix.

A prompt x is a point of one of two clouds; the chosen response starts with the label of its cloud, the rejected with
the other label, and both go on with the same suffix of 0, 1 or 6 tokens. All runs have six suffix tokens and a mask, so
that every suffix length, mend and seed is one compiled program.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from experiments.entanglement.setup import Setup
from sandbox.dynamics import train
from sandbox.losses import PairLogProbs, dpop
from sandbox.measures import gradient_products, gradients
from sandbox.policies import Network, network, sequence_log_prob, token_inputs

LABELS, SUFFIX_TOKENS, VOCABULARY, PROMPT = 2, 6, 12, 20
SUFFIXES = (0, 1, 6)  # shared tokens after the label: the three lengths of the paper's task
MENDS = ("DPO + SFT", "DPOP", "masked to the contrast", "normalised gradients")  # on the longest suffix


class Task(NamedTuple):
    """Pairs of one seed: network inputs (2, pairs, positions, ...) and tokens (2, pairs, positions), chosen first."""

    inputs: Array
    tokens: Array


class Recipe(NamedTuple):
    """One way of training. ``mask`` (T,): the tokens of a response; ``trained`` (T,): those that the loss sees.

    ``sft``: weight of the token-mean likelihood of the chosen; ``penalty``: DPOP's lambda. Both 0: DPO.
    """

    mask: Any
    trained: Any
    sft: Any = 0.0
    penalty: Any = 0.0


def sentiment(setup: Setup, key: Array) -> dict[str, Array]:
    """Mean changes of log-probabilities (nats) and mean cosine along training: (recipes, seeds, records).

    Recipes: DPO on each suffix length of ``SUFFIXES``, then the ``MENDS`` on the longest.
    """
    whole, contrast = _mask(SUFFIXES[-1]), _mask(0)
    recipes = [Recipe(_mask(n), _mask(n)) for n in SUFFIXES]
    recipes += [Recipe(whole, whole, sft=0.1), Recipe(whole, whole, penalty=5.0), Recipe(whole, contrast)]
    stacked = Recipe(*(jnp.asarray(np.stack(field)) for field in zip(*recipes, strict=True)))
    keys = jax.random.split(key, setup.seeds)
    pushed = _runs(setup, False, keys, stacked)
    normalised = _runs(setup, True, keys, jax.tree.map(lambda x: x[len(SUFFIXES) - 1 : len(SUFFIXES)], stacked))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), pushed, normalised)


def _mask(suffix: int) -> np.ndarray:
    return np.arange(1 + SUFFIX_TOKENS) <= suffix


@partial(jax.jit, static_argnums=(0, 1))
def _runs(setup: Setup, normalised: bool, keys: Array, recipes: Recipe) -> dict[str, Array]:
    one = partial(_run, setup, normalised)
    return jax.vmap(lambda recipe: jax.vmap(lambda key: one(key, recipe))(keys))(recipes)


def task(setup: Setup, key: Array) -> Task:
    """Prompts from two clouds at +-mean, their label as the chosen first token, the same suffix for all."""
    keys = jax.random.split(key, 3)
    mean = 1.5 * jax.random.normal(keys[0], (PROMPT,)) / PROMPT**0.5
    label = jax.random.bernoulli(keys[1], shape=(setup.sentiment_pairs,)).astype(int)
    x = 0.5 * jax.random.normal(keys[2], (setup.sentiment_pairs, PROMPT)) + jnp.outer(1 - 2 * label, mean)
    suffix = jnp.broadcast_to(LABELS + jnp.arange(SUFFIX_TOKENS), (setup.sentiment_pairs, SUFFIX_TOKENS))
    tokens = jnp.stack([jnp.concatenate([first[:, None], suffix], axis=1) for first in (label, 1 - label)])
    return Task(token_inputs(jnp.stack([x, x]), tokens, VOCABULARY), tokens)


def _run(setup: Setup, normalised: bool, key: Array, recipe: Recipe) -> dict[str, Array]:
    """One seed of one recipe: fine-tuning, then the preference loss, measured every ``setup.every`` steps."""
    net = network(PROMPT + 1 + SUFFIX_TOKENS + 2 * (VOCABULARY + 1), VOCABULARY, scale=1.5)
    data_key, net_key = jax.random.split(key)
    data = task(setup, data_key)
    length = jnp.sum(recipe.mask).astype(data.inputs.dtype)

    def both(params: Any, mask: Array) -> Array:
        return _log_probs(net, params, data.inputs, data.tokens, mask)

    def sft(params: Any) -> Array:
        return -jnp.mean(_log_probs(net, params, data.inputs[0], data.tokens[0], recipe.mask)) / length

    reference = train(sft, net.init(net_key), steps=setup.sft_steps, learning_rate=0.5).params
    start, start_trained = both(reference, recipe.mask), both(reference, recipe.trained)

    def preference(params: Any) -> Array:
        now = both(params, recipe.trained)
        pair = PairLogProbs(now[0], now[1], start_trained[0], start_trained[1], length, length)
        pushed = dpop(pair, beta=setup.beta, lam=recipe.penalty)
        return jnp.mean(pushed) + recipe.sft * sft(params)

    def pair_gradients(params: Any) -> Array:
        """Gradients (2, pairs, P) of the chosen and of the rejected log-probabilities."""

        def log_prob(params: Any, row: Task) -> Array:
            return _log_probs(net, params, row.inputs, row.tokens, recipe.mask)

        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)
        return gradients(log_prob, params, flat).reshape(2, setup.sentiment_pairs, -1)

    def normalised_gradient(params: Any) -> Any:
        """Equal pushes on gradients of unit length, at the speed of DPO: per pair, no gradient of any scalar loss."""
        g_w, g_l = pair_gradients(params)
        n_w, n_l = (jnp.linalg.norm(g, axis=-1, keepdims=True) for g in (g_w, g_l))
        now = both(params, recipe.mask)
        margin = (now[0] - start[0]) - (now[1] - start[1])
        speed = (setup.beta * jax.nn.sigmoid(-setup.beta * margin))[:, None] * jnp.sqrt(n_w * n_l)
        return ravel_pytree(params)[1](-jnp.mean(speed * (g_w / n_w - g_l / n_l), axis=0))

    def record(params: Any) -> dict[str, Array]:
        now = both(params, recipe.mask)
        return {
            "chosen": jnp.mean(now[0] - start[0]),
            "rejected": jnp.mean(now[1] - start[1]),
            "cosine": jnp.mean(gradient_products(*pair_gradients(params)).cosine),
        }

    run = train(
        None if normalised else preference,
        reference,
        steps=setup.dpo_steps,
        learning_rate=0.1,
        gradient=normalised_gradient if normalised else None,
        record=record,
        every=setup.every,
    )

    def one_by_one(params: Any) -> Array:
        """Directions (2, 8, T, P) of the gradients of single tokens, of the first eight pairs."""
        alone = jnp.eye(1 + SUFFIX_TOKENS, dtype=bool)

        def log_prob(params: Any, row: tuple[Array, Array, Array]) -> Array:
            return _log_probs(net, params, *row)

        some = jax.tree.map(lambda x: jnp.repeat(x[:, :8].reshape(-1, *x.shape[2:]), len(alone), axis=0), data)
        found = gradients(log_prob, params, (*some, jnp.tile(alone, (16, 1)))).reshape(2, 8, len(alone), -1)
        return found / jnp.linalg.norm(found, axis=-1, keepdims=True)

    g_w, g_l = one_by_one(run.params)
    return {**run.history, "tokens": jnp.mean(jnp.einsum("ntp,nsp->nts", g_w, g_l), axis=0)}


def _log_probs(net: Network, params: Any, inputs: Array, tokens: Array, mask: Array) -> Array:
    log_probs = jax.nn.log_softmax(net.apply(params, inputs))
    return sequence_log_prob(log_probs, tokens, jnp.broadcast_to(mask, tokens.shape))
