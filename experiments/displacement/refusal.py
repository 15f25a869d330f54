"""A small model that has learned to refuse, trained on pairs of its own answers (T4).

Ten tokens: 0-3 begin a refusal, 4-7 comply, 8-9 close. Responses have two tokens. Hidden vectors tanh(U x + 1/2) of a
prompt and tanh(U x + e(y_1) + 1/2) after the first token, logits W h; all is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from experiments.displacement.setup import Setup
from sandbox import losses
from sandbox.dynamics import train
from sandbox.losses import PairLogProbs
from sandbox.measures import ches

VOCABULARY, WIDTH, PROMPTS, TWICE = 10, 16, 40, 2
PAIRS = PROMPTS * TWICE
REFUSE, COMPLY, CLOSE = np.arange(10) < 4, (np.arange(10) >= 4) & (np.arange(10) < 8), np.arange(10) >= 8
SFT_STEPS, SFT_RATE, RATE, BETA, LAM = 400, 0.3, 2.0, 0.1, 0.1
TAUGHT = 0.8  # probability of a refusal
KEPT = 0.15  # share of the pairs that a filter keeps
VARIANTS = ("two refusals", "all pairs", "all pairs + SFT", "lowest CHES", "one refusal")
KINDS = ("two refusals", "one refusal", "none")


def every(setup: Setup) -> int:
    """Steps between two records."""
    return 5 if setup.refusal_steps % 5 == 0 else 1


SIZES = {
    "U": (WIDTH, WIDTH),
    "X": (PROMPTS, WIDTH),
    "E": (VOCABULARY, WIDTH),
    "W": (VOCABULARY, WIDTH),
    "r": (2, WIDTH),
}
ENDS = np.cumsum([0, *(int(np.prod(size)) for size in SIZES.values())])


def parameters(normal: Array) -> dict[str, Array]:
    """A start, of standard normal numbers, in which refusals have similar embeddings, and tokens that comply have."""
    raw = {n: normal[a:b].reshape(s) for (n, s), a, b in zip(SIZES.items(), ENDS[:-1], ENDS[1:], strict=True)}
    unit = raw["r"] / jnp.linalg.norm(raw["r"], axis=1, keepdims=True)
    group = jnp.asarray(np.stack([REFUSE, COMPLY], axis=1), normal.dtype) @ unit
    return {"U": WIDTH**-0.5 * raw["U"], "X": raw["X"], "E": 0.5 * raw["E"], "W": 0.3 * raw["W"] + 1.05 * group}


def hidden(params: Mapping[str, Array]) -> tuple[Array, Array]:
    """Hidden vectors (prompts, d) and, after each first token, (prompts, V, d)."""
    drive = params["X"] @ params["U"].T + 0.5
    return jnp.tanh(drive), jnp.tanh(drive[:, None, :] + params["E"][None, :, :])


def laws(params: Mapping[str, Array]) -> tuple[Array, Array]:
    """Log-probabilities of the first token (prompts, V), and of the second (prompts, V, V)."""
    first, second = (jax.nn.log_softmax(h @ params["W"].T) for h in hidden(params))
    return first, second


def refusal_mass(params: Mapping[str, Array]) -> Array:
    """The probability of a refusal, the mean over prompts."""
    return jnp.mean(jnp.sum(jnp.where(jnp.asarray(REFUSE), jnp.exp(laws(params)[0]), 0), axis=1))


def of_pairs(params: Mapping[str, Array], tokens: Array) -> Array:
    """Log-probabilities (pairs, 2) of pairs of responses (pairs, 2, 2), two pairs a prompt."""
    joint = laws(params)
    x = jnp.repeat(jnp.arange(PROMPTS), TWICE)[:, None]
    return joint[0][x, tokens[..., 0]] + joint[1][x, tokens[..., 0], tokens[..., 1]]


def sft_loss(params: Any) -> Array:
    """Cross-entropy with the behaviour that is taught: refuse with probability 0.8, any token of the kind, any end."""
    target = TAUGHT * REFUSE / 4 + (1 - TAUGHT) * COMPLY / 4
    first, second = laws(params)
    closing = jnp.mean(second[..., 8:], axis=-1)
    return -jnp.mean(jnp.sum(jnp.asarray(target, first.dtype)[None, :] * (first + closing), axis=1))


def dpo_loss(params: Any, tokens: Array, reference: Array, weight: Array, lam: Array) -> Array:
    """DPO and lam times the mean NLL of the chosen, means over the pairs by their weight."""
    now = of_pairs(params, tokens)
    each = losses.dpo(PairLogProbs(now[:, 0], now[:, 1], reference[:, 0], reference[:, 1]), beta=BETA)
    return jnp.sum(weight * (each - lam * now[:, 0])) / jnp.sum(weight)


def record(params: Any, tokens: Array, reference: Array, weight: Array, lam: Array) -> tuple[Array, Array]:
    """The refusal mass, and the mean change of ln pi(y+)."""
    del lam
    change = (of_pairs(params, tokens) - reference)[:, 0]
    return refusal_mass(params), jnp.sum(weight * change) / jnp.sum(weight)


def draw_pairs(params: Mapping[str, Array], noise: Array) -> tuple[Array, Array]:
    """Pairs (pairs, 2, 2) of the model's own answers, the refusal preferred, ties by coin; and which are two answers.

    noise (2, prompts, 4, V + 1): Gumbel's numbers, for the two tokens of four answers a prompt, and for the coins.
    """
    first, second = laws(params)
    coins, noise = noise[0, :, :TWICE, -1] > noise[1, :, :TWICE, -1], noise[..., :-1]
    one = jnp.argmax(first[:, None, :] + noise[0], axis=-1)
    two = jnp.argmax(jnp.take_along_axis(second, one[..., None], axis=1) + noise[1], axis=-1)
    both = jnp.stack([one, two], axis=-1).reshape(PAIRS, 2, 2)
    refuses = jnp.asarray(REFUSE)[both[..., 0]]
    swap = jnp.where(refuses[:, 0] == refuses[:, 1], coins.ravel(), refuses[:, 1])
    pairs = jnp.where(swap[:, None, None], both[:, ::-1], both)
    return pairs, jnp.any(pairs[:, 0] != pairs[:, 1], axis=-1)


def falls(params: Any, tokens: Array) -> Array:
    """G of the model itself for each pair (pairs,)."""
    flat, tree = ravel_pytree(params)
    slopes = jax.jacrev(lambda x: of_pairs(tree(x), tokens))(flat)
    return jnp.sum(slopes[:, 0] * (slopes[:, 1] - slopes[:, 0]), axis=-1)


def one(setup: Setup, normal: Array, noise: Array) -> dict[str, Array]:
    """One model: taught, asked for pairs, trained on five choices of them."""
    taught = train(sft_loss, parameters(normal), steps=SFT_STEPS, learning_rate=SFT_RATE).params
    tokens, differ = draw_pairs(taught, noise)
    number = jnp.sum(jnp.asarray(REFUSE)[tokens[..., 0]], axis=1)
    prompt, after = hidden(taught)
    x = jnp.repeat(jnp.arange(PROMPTS), TWICE)[:, None]
    rows = jnp.stack([jnp.broadcast_to(prompt[x], (PAIRS, 2, WIDTH)), after[x, tokens[..., 0]]], axis=2)
    length = jnp.full(PAIRS, 2)
    score = ches(rows[:, 0], rows[:, 1], length, length)
    count = jnp.sum(differ)
    rank = jnp.argsort(jnp.argsort(jnp.where(differ, score, jnp.inf)))
    kept = [number == 2, number >= 0, number >= 0, rank < jnp.round(KEPT * count), number == 1]
    weight = jnp.stack([(differ & some).astype(score.dtype) for some in kept])
    lam = jnp.asarray([0, 0, LAM, 0, 0], score.dtype)
    reference = of_pairs(taught, tokens)

    def trained(weight: Array, lam: Array) -> tuple[Array, Array]:
        return train(
            dpo_loss, taught, (tokens, reference, weight, lam), steps=setup.refusal_steps, learning_rate=RATE,
            record=record, every=every(setup),
        ).history  # fmt: skip

    mass, change = jax.vmap(trained)(weight, lam)
    g = falls(taught, tokens)
    two = weight[0]
    return {
        "mass": mass, "change": change, "score": score / 4, "kind": jnp.where(differ, 2 - number, -1),
        "entangled": jnp.sum(two * (g > 0)) / jnp.sum(two), "mean fall": jnp.sum(two * g) / jnp.sum(two),
    }  # fmt: skip


def refusal(setup: Setup, key: Array) -> dict[str, Array]:
    """T4: several models."""
    keys = jax.random.split(key)
    normal = jax.random.normal(keys[0], (setup.refusers, int(ENDS[-1])))
    shape = (setup.refusers, 2, PROMPTS, 2 * TWICE, VOCABULARY + 1)
    noise = jax.random.gumbel(keys[1], (int(np.prod(shape)),))  # of five axes it would take 20 seconds to compile
    return jax.vmap(partial(one, setup))(normal, noise.reshape(shape))
