"""Random pairs of sequences: which score ranks them as the exact gradient quantity G does?"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.displacement.setup import Setup
from sandbox import policies
from sandbox.measures import ches, first_order_fall
from sandbox.policies import Tied, gram, similarity, tied_pair_gram
from sandbox.statistics import rank_correlation

VOCABULARY, WIDTH, TOKENS, FIXED = 8, 6, 6, 4
SCORES = ("CHES", "CHES / length", "alpha-weighted CHES", "edit distance", "last hidden state")
SOURCES = ("off-policy", "on-policy")


def edit_distance(a: Array, b: Array, n: Array, m: Array) -> Array:
    """Levenshtein's distance of the first n tokens of a and the first m of b, both (T,)."""
    place = jnp.arange(b.shape[0] + 1)

    def row(before: Array, token: Array) -> tuple[Array, Array]:
        swapped = before[:-1] + (token != b)
        ways = jnp.concatenate([before[:1] + 1, jnp.minimum(before[1:] + 1, swapped)])
        after = place + jax.lax.cummin(ways - place)  # or one more than the way to the left, and so on
        return after, after

    _, rows = jax.lax.scan(row, place, a)
    return jnp.concatenate([place[None], rows])[n, m]


def hidden_grams(log_probs: Array, hidden: Array, tokens: Array, mask: Array) -> Array:
    """Gram matrices (pairs, 2, 2) through the unembedding alone: hidden vectors meet, weighted by alpha."""
    return jax.vmap(lambda law, h, y, kept: gram(law, y, kept, similarity(h)))(log_probs, hidden, tokens, mask)


def scores_of(hidden: Array, log_probs: Array, tokens: Array, lengths: Array, after: Array) -> Array:
    """The five scores (5, pairs), each the higher, the more it expects the chosen to fall.

    hidden (pairs, 2, T, d), log_probs (pairs, 2, T, V), tokens (pairs, 2, T), lengths (pairs, 2), chosen first; after
    (pairs, 2, d): the hidden states after the last token.
    """
    mask = jnp.arange(tokens.shape[-1])[None, None, :] < lengths[..., None]
    given = hidden[:, 0], hidden[:, 1], lengths[:, 0], lengths[:, 1]
    far = jax.vmap(edit_distance)(tokens[:, 0], tokens[:, 1], lengths[:, 0], lengths[:, 1])
    return jnp.stack([
        ches(*given), ches(*given, length_normalised=True),
        first_order_fall(hidden_grams(log_probs, hidden, tokens, mask)),
        -far / jnp.max(lengths, axis=1), jnp.sum(after[:, 0] * after[:, 1], axis=-1),
    ])  # fmt: skip


class Noise(NamedTuple):
    """What is drawn once: standard normal numbers, Gumbel's, and lengths; every setting reads the same."""

    unembedding: Array
    hidden: Array
    after: Array
    tokens: Array
    first: Array
    lengths: Array


def noise(count: int, key: Array) -> Noise:
    """Draws for ``count`` pairs."""
    keys = jax.random.split(key, 3)
    sizes = [(VOCABULARY, WIDTH), (count, 2, TOKENS, WIDTH), (count, 2, WIDTH)]
    ends = np.cumsum([0, *(int(np.prod(size)) for size in sizes)])
    flat = jax.random.normal(keys[0], (int(ends[-1]),))  # in one call, or each would be compiled
    parts = [flat[a:b].reshape(size) for a, b, size in zip(ends[:-1], ends[1:], sizes, strict=True)]
    gumbel = jax.random.gumbel(keys[1], (count * (2 * TOKENS * VOCABULARY + VOCABULARY**2),)).reshape(count, -1)
    tokens, first = gumbel[:, : 2 * TOKENS * VOCABULARY], gumbel[:, 2 * TOKENS * VOCABULARY :]
    lengths = jax.random.randint(keys[2], (count * 2,), 2, TOKENS + 1).reshape(count, 2)
    unembedding, hidden, after = parts
    return Noise(unembedding, hidden, after, tokens.reshape(count, 2, TOKENS, VOCABULARY), first, lengths)


def pairs_of(drawn: Noise, confidence: Array, mean: Array, on_policy: Array, varied: Array) -> dict[str, Any]:
    """T2: embeddings confidence * N(0, 1), hidden vectors mean + N(0, 1); tokens uniform, or from the policy.

    The first two tokens of a pair are drawn again until they differ.
    """
    W = confidence * drawn.unembedding
    hidden = mean + drawn.hidden
    hidden = hidden.at[:, 1, 0].set(hidden[:, 0, 0])  # the prompt's
    log_probs = jax.nn.log_softmax(hidden @ W.T)
    source = jnp.where(on_policy, log_probs, -jnp.log(VOCABULARY))
    tokens = jnp.argmax(source + drawn.tokens, axis=-1)
    both = source[:, 0, 0, :, None] + source[:, 0, 0, None, :]
    unlike = jnp.where(jnp.eye(VOCABULARY, dtype=bool)[None], -jnp.inf, both).reshape(both.shape[0], -1)
    first = jnp.argmax(unlike + drawn.first, axis=-1)
    tokens = tokens.at[:, :, 0].set(jnp.stack([first // VOCABULARY, first % VOCABULARY], axis=1))
    lengths = jnp.where(varied, drawn.lengths, FIXED)
    return {"W": W, "hidden": hidden, "log_probs": log_probs, "tokens": tokens, "lengths": lengths,
            "after": mean + drawn.after}  # fmt: skip


def ranked(drawn: Noise, confidence: Array, mean: Array, on_policy: Array, varied: Array) -> dict[str, Array]:
    """Rank correlation with G of each score (5,), the share of alpha > 0, and how CHES follows the lengths."""
    x = pairs_of(drawn, confidence, mean, on_policy, varied)
    mask = jnp.arange(TOKENS)[None, None, :] < x["lengths"][..., None]
    exact = first_order_fall(tied_pair_gram(Tied(x["W"], x["hidden"]), x["tokens"], mask))
    scores = scores_of(x["hidden"], x["log_probs"], x["tokens"], x["lengths"], x["after"])
    alpha = token_gram(x["log_probs"], x["tokens"], mask)
    real = jnp.einsum("nkt,nms->nktms", mask, mask)
    longer = (x["lengths"][:, 1] - x["lengths"][:, 0]).astype(exact.dtype)
    return {
        "with G": jax.vmap(lambda score: rank_correlation(score, exact))(scores),
        "alpha": jnp.sum((alpha > 0) & real) / jnp.sum(real),
        "length": jnp.corrcoef(scores[0], longer)[0, 1],
        "falls": jnp.mean(exact > 0),
        "mean fall": jnp.mean(exact),
    }


def token_gram(log_probs: Array, tokens: Array, mask: Array) -> Array:
    """alpha (pairs, 2, T, 2, T) of all token pairs of each pair of responses."""
    one = jnp.ones((2, TOKENS, 2, TOKENS), log_probs.dtype)
    return jax.vmap(lambda law, y, kept: policies.token_gram(law, y, kept, one))(log_probs, tokens, mask)


def grid(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and shared means of the hidden vectors."""
    return np.linspace(0, 3, setup.levels), np.linspace(0, 2, setup.levels)


def scores(setup: Setup, key: Array) -> dict[str, Array]:
    """Heat maps (confidences, means, [off, on], seeds) at one length, and (seeds, ...) at varied lengths."""
    confidences, means = grid(setup)
    s, m, on = (x.ravel() for x in np.meshgrid(confidences, means, [False, True], indexing="ij"))
    dtype = jnp.result_type(float)
    drawn = jax.vmap(partial(noise, setup.pairs))(jax.random.split(key, setup.seeds))

    def over_seeds(x: tuple[Array, Array, Array, Array]) -> dict[str, Array]:
        return jax.vmap(lambda seed: ranked(seed, *x))(drawn)

    varied = [(1.0, 2.0), (0.0, 0.0)]
    s, m = np.append(s, [v[0] for v in varied]), np.append(m, [v[1] for v in varied])
    on, long = np.append(on, [False] * 2), np.arange(s.size) >= s.size - 2
    found = jax.lax.map(over_seeds, (jnp.asarray(s, dtype), jnp.asarray(m, dtype), jnp.asarray(on), jnp.asarray(long)))
    shape = (setup.levels, setup.levels, 2)
    fixed = {name: x[:-2].reshape(*shape, *x.shape[1:]) for name, x in found.items()}
    return fixed | {f"{name}, varied": x[-2:] for name, x in found.items()}
