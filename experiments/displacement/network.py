"""A tiny recurrent network whose hidden vectors are not free (T3): which predictions survive?

h_1 = tanh(U x + 1/5), h_(k+1) = tanh(U x + R h_k + e(y_k) + 1/5), logits W h_k. Everything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from experiments.displacement.sequences import scores_of
from experiments.displacement.setup import Setup
from sandbox import losses
from sandbox.dynamics import train
from sandbox.losses import PairLogProbs
from sandbox.measures import first_order_fall
from sandbox.policies import Tied, tied_pair_gram
from sandbox.statistics import rank_correlation
from sandbox.tied import pair_speed

VOCABULARY, WIDTH, TOKENS, EACH = 8, 16, 4, 4
BETA, RATE = 0.1, 0.5
SUBSET = 16  # pairs of a subset of the data
PERCENTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN = ("G", "CHES", "edit distance", "last hidden state")  # by which subsets are formed
NAMES = ("G of the network", "G, hidden vectors free", "CHES", "CHES / length", "alpha-weighted CHES", "edit distance",
         "last hidden state")  # fmt: skip


SCALES = {
    "U": WIDTH**-0.5,
    "R": WIDTH**-0.5,
    "A": 1.0,
    "B": 1.0,
    "E": 0.5,
    "X": 0.5,
}  # standard deviations at the start


def sizes(prompts: int) -> dict[str, tuple[int, int]]:
    """The shape of each parameter."""
    return {"U": (WIDTH, WIDTH), "R": (WIDTH, WIDTH), "A": (VOCABULARY, 2), "B": (2, WIDTH), "E": (VOCABULARY, WIDTH),
            "X": (prompts, WIDTH)}  # fmt: skip


def parameters(normal: Array, prompts: int) -> dict[str, Array]:
    """A start, of standard normal numbers: the unembedding has rank 2, so that some tokens lie beyond others."""
    parts, at = {}, 0
    for name, (rows, columns) in sizes(prompts).items():
        parts[name] = SCALES[name] * normal[at : at + rows * columns].reshape(rows, columns)
        at += rows * columns
    parts["W"] = parts.pop("A") @ parts.pop("B")
    return parts


def states(params: Mapping[str, Array], x: Array, tokens: Array) -> Array:
    """Hidden vectors (T + 1, d) after prompt x, each before one of ``tokens`` (T,), and after the last."""
    drive = params["U"] @ params["X"][x] + 0.2
    hidden = [jnp.tanh(drive)]
    for token in tokens:
        hidden.append(jnp.tanh(drive + params["R"] @ hidden[-1] + params["E"][token]))
    return jnp.stack(hidden)


def log_prob(params: Mapping[str, Array], response: tuple[Array, Array]) -> Array:
    """Log-probability of a response (prompt, tokens (T,)), nats."""
    x, tokens = response
    law = jax.nn.log_softmax(states(params, x, tokens)[:-1] @ params["W"].T)
    return jnp.sum(jnp.take_along_axis(law, tokens[:, None], axis=1))


def pair_log_probs(params: Mapping[str, Array], x: Array, tokens: Array) -> Array:
    """Log-probabilities (pairs, 2) of pairs: prompts (pairs,), tokens (pairs, 2, T)."""
    return jax.vmap(lambda x, both: jax.vmap(lambda y: log_prob(params, (x, y)))(both))(x, tokens)


def dpo_loss(params: Any, x: Array, tokens: Array, reference: Array) -> Array:
    """DPO, the mean over the pairs."""
    now = pair_log_probs(params, x, tokens)
    return jnp.mean(losses.dpo(PairLogProbs(now[:, 0], now[:, 1], reference[:, 0], reference[:, 1]), beta=BETA))


def changed(steps: int, params: Any, x: Array, tokens: Array) -> Array:
    """The mean change of ln pi(y+) of these pairs after training on them."""
    reference = pair_log_probs(params, x, tokens)
    after = train(dpo_loss, params, (x, tokens, reference), steps=steps, learning_rate=RATE).params
    return jnp.mean((pair_log_probs(after, x, tokens) - reference)[:, 0])


def exact_fall(params: Any, x: Array, tokens: Array) -> Array:
    """G of the network itself, all its parameters counted, for one pair."""
    g_w, g_l = (ravel_pytree(jax.grad(log_prob)(params, (x, tokens[k])))[0] for k in (0, 1))
    return jnp.dot(g_w, g_l - g_w)


def kappa_of(params: Mapping[str, Array], x: Array) -> Array:
    """kappa of the first context, by the tangent kernel of its hidden vector: the mean of its diagonal."""
    jacobian = jax.jacrev(lambda p: states(p, x, jnp.zeros(0, int))[0])(params)
    rows = jax.vmap(lambda row: ravel_pytree(row)[0])(jacobian)
    return jnp.sum(rows**2) / WIDTH


def single(params: Any, x: Array, w: Array, l: Array) -> tuple[Array, Array]:
    """The speed of the chosen of a single-token pair: as C7 has it with that kappa, and by autodiff."""
    h = states(params, x, jnp.zeros(0, int))[0]
    p = jax.nn.softmax(params["W"] @ h)
    free = pair_speed(params["W"], h, p, w, l, w, kappa=kappa_of(params, x))
    return free, -exact_fall(params, x, jnp.stack([w, l])[:, None])


def one(setup: Setup, normal: Array, tokens: Array) -> dict[str, Array]:
    """One network: scores and changes of its pairs, each trained alone, and of subsets by percentile of a score."""
    params = parameters(normal, setup.prompts)
    count = EACH * setup.prompts
    x = jnp.repeat(jnp.arange(setup.prompts), EACH)
    other = (tokens[:, 0, 0] + 1 + tokens[:, 1, 0] % (VOCABULARY - 1)) % VOCABULARY  # another first token
    tokens = tokens.at[:, 1, 0].set(other)
    hidden = jax.vmap(lambda x, both: jax.vmap(lambda y: states(params, x, y))(both))(x, tokens)
    law = jax.nn.log_softmax(hidden[:, :, :-1] @ params["W"].T)
    free = first_order_fall(tied_pair_gram(Tied(params["W"], hidden[:, :, :-1]), tokens, jnp.ones(tokens.shape, bool)))
    exact = jax.vmap(partial(exact_fall, params))(x, tokens)
    lengths = jnp.full((count, 2), TOKENS)
    scores = jnp.concatenate([
        jnp.stack([exact, free]), scores_of(hidden[:, :, :-1], law, tokens, lengths, hidden[:, :, -1])
    ])  # fmt: skip
    alone = jax.vmap(lambda x, y: changed(setup.network_steps, params, x[None], y[None]))(x, tokens)
    size = min(SUBSET, count // 2)
    starts = jnp.clip(jnp.round(jnp.asarray(PERCENTILES) * (count - 1)).astype(int) - size // 2, 0, count - size)
    order = jnp.argsort(scores[jnp.asarray([0, 2, 5, 6])], axis=1)
    subsets = jax.vmap(lambda row: jax.vmap(lambda at: jax.lax.dynamic_slice(row, (at,), (size,)))(starts))(order)
    of_subset = jax.vmap(jax.vmap(lambda at: changed(setup.network_steps, params, x[at], tokens[at])))(subsets)
    w, l = tokens[:, 0, 0], tokens[:, 1, 0]
    predicted, speed = jax.vmap(partial(single, params))(x, w, l)
    return {
        "ranks": jax.vmap(lambda score: rank_correlation(score, -alone))(scores),
        "alone": alone, "ches": scores[2], "exact": exact, "subsets": of_subset,
        "predicted": predicted, "speed": speed, "kappa": jax.vmap(partial(kappa_of, params))(jnp.arange(setup.prompts)),
    }  # fmt: skip


def network(setup: Setup, key: Array) -> dict[str, Array]:
    """T3: several networks."""
    keys = jax.random.split(key)
    total = sum(rows * columns for rows, columns in sizes(setup.prompts).values())
    normal = jax.random.normal(keys[0], (setup.networks, total))
    tokens = jax.random.randint(keys[1], (setup.networks * EACH * setup.prompts * 2 * TOKENS,), 0, VOCABULARY)
    return jax.vmap(partial(one, setup))(normal, tokens.reshape(setup.networks, -1, 2, TOKENS))
