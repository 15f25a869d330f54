"""The forward pass of a model of the Llama family, pure functions over a pytree, and pairs packed into one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


class Config(NamedTuple):
    """The sizes of a model of the Llama family, and its constants; hashable, so that it can be static."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed: int
    vocabulary: int
    eps: float = 1e-5
    rope_base: float = 10_000.0
    rope_factors: tuple[float, ...] | None = None  # what each rotary frequency is divided by

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array of a layer."""
        keys = self.width // self.heads * self.kv_heads
        return {
            "attention_norm": (self.width,), "query": (self.width, self.width), "key": (keys, self.width),
            "value": (keys, self.width), "output": (self.width, self.width), "feed_norm": (self.width,),
            "gate": (self.feed, self.width), "up": (self.feed, self.width), "down": (self.width, self.feed),
        }  # fmt: skip


# -- the forward pass --------------------------------------------------------------------------------------------------


def hidden_states(config: Config, params: Any, tokens: Array, positions: Array, attends: Array) -> Array:
    """The last hidden states (T, width), after the final norm, of tokens (T,) at ``positions`` (T,).

    ``attends`` (T, T): whether the token of the row may look at that of the column. Touvron et al. 2023,
    arXiv:2302.13971; grouped queries: Ainslie et al. 2023, arXiv:2305.13245.
    """
    head = config.width // config.heads
    frequencies = config.rope_base ** (-np.arange(0, head, 2) / head) / np.array(config.rope_factors or 1.0)
    angles = positions[:, None] * jnp.asarray(frequencies, params["embed"].dtype)[None, :]
    turn = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
    groups = (config.kv_heads, config.heads // config.kv_heads)

    def layer(x: Array, w: Any) -> tuple[Array, None]:
        h = _rms_norm(x, w["attention_norm"], config.eps)
        q, k, v = ((h @ w[name].T).reshape(len(h), -1, head) for name in ("query", "key", "value"))
        q, k = _rotate(q, turn).reshape(len(h), *groups, head), _rotate(k, turn)
        scores = jnp.einsum("tkgh,skh->kgts", q, k) / head**0.5
        weights = jax.nn.softmax(jnp.where(attends[None, None], scores, -jnp.inf))
        mixed = jnp.einsum("kgts,skh->tkgh", weights, v).reshape(len(h), -1)
        x = x + mixed @ w["output"].T
        h = _rms_norm(x, w["feed_norm"], config.eps)
        return x + (jax.nn.silu(h @ w["gate"].T) * (h @ w["up"].T)) @ w["down"].T, None

    x, _ = lax.scan(layer, params["embed"][tokens], params["layers"])
    return _rms_norm(x, params["norm"], config.eps)


def logits(params: Any, states: Array) -> Array:
    """Logits (..., vocabulary) of the next token from last hidden states (..., width)."""
    return states @ unembedding(params).T


def unembedding(params: Any) -> Array:
    """The rows (vocabulary, width) that hidden states are compared with: the embedding's own where they are tied."""
    return params.get("unembed", params["embed"])


def _rms_norm(x: Array, weight: Array, eps: float) -> Array:
    scaled = x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)
    return scaled * weight.reshape((1,) * (x.ndim - 1) + (-1,))


def _rotate(x: Array, turn: tuple[Array, Array]) -> Array:
    """Rotary positions: each two neighbouring entries of (T, heads, head) are turned by an angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = turn
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def initial(config: Config, key: Array, scale: float = 1.0) -> Any:
    """Random parameters: each matrix N(0, scale^2 / columns), norms 1, embeddings tied and N(0, 1 / width)."""
    shapes = config.shapes
    keys = jax.random.split(key, len(shapes) + 1)
    layers = {
        name: jnp.ones((config.layers, *shape), jnp.float32) if len(shape) == 1
        else scale * jax.random.normal(k, (config.layers, *shape), jnp.float32) / shape[-1] ** 0.5
        for (name, shape), k in zip(shapes.items(), keys, strict=False)
    }  # fmt: skip
    embed = jax.random.normal(keys[-1], (config.vocabulary, config.width), jnp.float32) / config.width**0.5
    return {"embed": embed, "norm": jnp.ones(config.width, jnp.float32), "layers": layers}


# -- pairs -------------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A packed pair: ``tokens``, ``positions``, ``segment`` (T,); ``read``, ``target``, ``mask`` (2, R), chosen first.

    The token ``target`` is predicted from the hidden state at ``read``. Segments: 0 the prompt, 1 and 2 the responses
    without their last tokens, which predict nothing, 3 padding.
    """

    tokens: Any
    positions: Any
    segment: Any
    read: Any
    target: Any
    mask: Any

    @property
    def lengths(self) -> Any:
        """Tokens (2,) of the two responses."""
        return self.mask.sum(axis=-1)


def pack(
    prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], length: int = 0, responses: int = 0
) -> Pair:
    """Pack the token ids of a pair, padded to at least ``length`` tokens and ``responses`` tokens a response.

    Raises ValueError for a part without tokens.
    """
    for name, ids in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not len(ids):
            raise ValueError(f"{name}: no tokens; each needs at least one")
    parts = [np.asarray(prompt), np.asarray(chosen)[:-1], np.asarray(rejected)[:-1]]
    pad = max(0, length - sum(map(len, parts)))
    tokens = np.concatenate([*parts, np.zeros(pad, int)])
    segment = np.repeat(np.arange(4), [*map(len, parts), pad])
    after = [len(prompt) + np.arange(len(ids)) for ids in (*parts[1:], np.zeros(pad))]
    positions = np.concatenate([np.arange(len(prompt)), *after])
    R = max(responses, len(chosen), len(rejected))
    read, target, mask = np.zeros((2, R), int), np.zeros((2, R), int), np.zeros((2, R), bool)
    start = len(prompt)
    for k, ids in enumerate((chosen, rejected)):
        n = len(ids)
        read[k, :n] = [len(prompt) - 1, *range(start, start + n - 1)]
        target[k, :n], mask[k, :n] = ids, True
        start += n - 1
    whole = (tokens, positions, segment, read, target)
    return Pair._make([*(x.astype(np.int32) for x in whole), mask])


def first_difference(pair: Pair) -> int:
    """The first place at which the two responses of a pair have different tokens; up to there they share contexts."""
    differ = (pair.target[0] != pair.target[1]) | (pair.mask[0] != pair.mask[1])
    return int(np.argmax(np.asarray(differ)))


def attention(pair: Pair) -> Array:
    """Which token (T, T) of a packed pair may look at which: at earlier ones of the prompt and of its own segment."""
    place = jnp.arange(len(pair.tokens))
    earlier = place[None, :] <= place[:, None]
    return earlier & ((pair.segment[None, :] == 0) | (pair.segment[None, :] == pair.segment[:, None]))


def response_states(config: Config, params: Any, pair: Pair) -> Array:
    """The last hidden states (2, R, width) from which the tokens of both responses are predicted; 0 behind the end."""
    states = hidden_states(config, params, pair.tokens, pair.positions, attention(pair))
    return jnp.where(pair.mask[..., None], states[pair.read], 0)


def token_log_probs(params: Any, pair: Pair, states: Array) -> Array:
    """Log-probabilities (2, R) of the tokens of both responses in nats, from ``response_states``; 0 behind the end."""
    log_probs = jax.nn.log_softmax(logits(params, states))
    return jnp.where(pair.mask, jnp.take_along_axis(log_probs, pair.target[..., None], axis=-1)[..., 0], 0)
