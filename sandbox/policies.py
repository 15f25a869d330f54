"""Softmax policies over a response set small enough to enumerate.

A policy is a pure function of its parameters, any pytree; it gives log-probabilities in nats. A response is one token,
or a row of tokens whose mask says which positions count; its log-probability is the sum over its tokens. A policy
differs from another only in how a position's logits depend on the parameters:

=============  ==============================================  =======================================
policy         parameters                                      logits
=============  ==============================================  =======================================
tabular        ``table`` (contexts, V), or one row (V,)        ``table[contexts]``
unigram        one row, shared by all positions                ``table[zeros]``
linear         ``theta`` (V, d), fixed features h              ``linear_logits(theta, h)``
tied           ``Tied(unembedding (V, d), hidden (..., d))``   ``linear_logits(unembedding, hidden[contexts])``
network        a flax state                                    ``network(...).apply(params, token_inputs(...))``
=============  ==============================================  =======================================

The first part is written in the words of ``sandbox.algebra`` and takes one response; the second takes batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sandbox.algebra import dot, log_softmax, onehot, softmax
from sandbox.validate import known, require, whole

__all__ = [
    "Network", "Responses", "Tied", "all_responses", "feature_gram", "gram", "linear_gram", "linear_log_probs",
    "linear_logits", "minimum_norm", "network", "number_of_prefixes", "pair_contexts", "prefix_ids", "residual",
    "same_context", "sequence_log_prob", "similarity", "suffix_features", "tabular_gram", "tied_gram",
    "tied_pair_gram", "tied_response_gram", "token_gram", "token_inputs",
]  # fmt: skip


class Tied(NamedTuple):
    """Logits W h with both trained (unconstrained features): ``unembedding`` W (V, d) and ``hidden`` h (..., d)."""

    unembedding: Any
    hidden: Any


# -- one response, in the words of the algebra -----------------------------------------------------------------------


def residual(y: Any, p: Any) -> Any:
    """Gradient of log p_y with respect to the logits of p = softmax(logits): the vector onehot(y) - p."""
    return onehot(y, p) - p


def linear_log_probs(theta: Any, h: Any) -> Any:
    """Log-probabilities (V,) of the V tokens after a context with features h (d,); theta is (V, d).

    Read the other way round, ``theta`` are fixed features of V responses and ``h`` is the trained vector.
    """
    return log_softmax(theta @ h)


def tabular_gram(p: Any, y: Any, z: Any) -> Any:
    """Inner product of the gradients of log p_y and log p_z with respect to the logits of p."""
    return dot(residual(y, p), residual(z, p))


def linear_gram(p: Any, h: Any, y: Any, q: Any, k: Any, z: Any) -> Any:
    """Inner product of the gradients, with respect to theta, of token y after features h and of token z after k.

    ``p`` and ``q`` are the laws of the token after the one and the other: softmax(theta @ h) and softmax(theta @ k).
    """
    return dot(residual(y, p), residual(z, q)) * dot(h, k)


def feature_gram(features: Any, p: Any, y: Any, z: Any) -> Any:
    """The same where ``features`` (V, d) are fixed and only the vector h (d,) of p = softmax(features @ h) is trained.

    The gradient of log p_y is the feature of y minus the mean feature under p.
    """
    mean = p @ features
    return dot(features[y] - mean, features[z] - mean)


def tied_gram(unembedding: Any, hidden: Any, y: Any, z: Any) -> Any:
    """Inner product of the gradients of log p_y and log p_z, p = softmax(W h), with respect to both W and h."""
    p = softmax(unembedding @ hidden)
    return tabular_gram(p, y, z) * dot(hidden, hidden) + feature_gram(unembedding, p, y, z)


# -- batches of token sequences --------------------------------------------------------------------------------------


def linear_logits(theta: Array, features: Array) -> Array:
    """Logits (..., V) of features (..., d) under theta (V, d)."""
    return features @ theta.T


def sequence_log_prob(log_probs: Array, tokens: Array, mask: Array) -> Array:
    """Log-probability (...) of responses, in nats: the sum over the tokens that the mask keeps.

    ``log_probs`` (..., T, V) of every token at every position, ``tokens`` (..., T) integers, ``mask`` (..., T) 0 or 1.
    """
    taken = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(mask, taken, 0), axis=-1)


class Responses(NamedTuple):
    """``tokens`` (N, T) integers and ``mask`` (N, T): True where a token belongs to the response."""

    tokens: np.ndarray
    mask: np.ndarray


def all_responses(vocabulary: int, length: int, end: int | None = None) -> Responses:
    """Every response over ``vocabulary`` tokens: their probabilities sum to one under any policy.

    Without ``end`` all have ``length`` tokens. With it a response stops after the token ``end``, at the latest after
    ``length`` tokens; the masked places behind it hold ``end``.
    """
    whole("vocabulary", vocabulary)
    whole("length", length)
    tokens = np.indices((vocabulary,) * length).reshape(length, -1).T.astype(np.int32)
    if end is None:
        return Responses(tokens, np.ones(tokens.shape, bool))
    require("end", end, lambda e: (e >= 0) & (e < vocabulary), f"a token below {vocabulary}")
    ended_before = np.cumsum(tokens == end, axis=1) - (tokens == end) > 0
    tokens = np.unique(np.where(ended_before, end, tokens), axis=0)
    return Responses(tokens, np.cumsum(tokens == end, axis=1) - (tokens == end) == 0)


def number_of_prefixes(vocabulary: int, length: int) -> int:
    """How many contexts responses of up to ``length`` tokens meet: 1 + V + ... + V^(length - 1)."""
    return sum(vocabulary**k for k in range(length))


def prefix_ids(tokens: Array | np.ndarray, vocabulary: int) -> Array:
    """Row of a table (``number_of_prefixes``, V) for each position: the identity of the tokens before it. (..., T)."""
    row = jnp.zeros(tokens.shape[:-1], jnp.int32)
    rows = []
    for k in range(tokens.shape[-1]):
        rows.append(row)
        row = row * vocabulary + 1 + tokens[..., k]  # numbers the tree breadth first: the children of r follow V r
    return jnp.stack(rows, axis=-1)


# -- closed-form Gram matrices ---------------------------------------------------------------------------------------


def similarity(features: Array) -> Array:
    """Inner products (N, T, N, T) of the features (N, T, d) of every two positions: the kernel of a linear policy."""
    return jnp.einsum("ntd,msd->ntms", features, features)


def same_context(contexts: Array | np.ndarray) -> Array:
    """1 where two positions read the same row of the table, else 0 (N, T, N, T): the kernel of a tabular policy."""
    flat = jnp.asarray(contexts).reshape(-1)
    return (flat[:, None] == flat[None, :]).astype(jnp.result_type(float)).reshape(2 * contexts.shape)


def token_gram(log_probs: Array, tokens: Array, mask: Array, kernel: Array) -> Array:
    """Inner products (N, T, N, T) of the gradients of every two tokens' log-probabilities.

    Position (n, t) and position (m, s) meet through ``kernel`` (``similarity`` or ``same_context``) times the product
    of their residuals: all position pairs, not only aligned ones. Shapes as in ``sequence_log_prob``, batch (N,).
    """
    kept = jnp.where(mask[..., None], residual(tokens, jnp.exp(log_probs)), 0)
    return kernel * jnp.einsum("ntv,msv->ntms", kept, kept)


def gram(log_probs: Array, tokens: Array, mask: Array, kernel: Array) -> Array:
    """Inner products (N, N) of the gradients of N responses' log-probabilities: ``token_gram`` summed over tokens.

    A step theta + eta * sum_n v_n grad log pi(y_n) changes the log-probabilities by eta * gram @ v to first order.
    """
    return jnp.sum(token_gram(log_probs, tokens, mask, kernel), axis=(1, 3))


def tied_response_gram(
    params: Tied, contexts: Array, tokens: Array, mask: Array, log_probs: Array | None = None
) -> Array:
    """The same (N, N) for logits W h with W (V, d) and the hidden vectors of all contexts (C, d) trained.

    ``contexts`` (N, T) are rows of ``params.hidden``. Training the hidden vectors adds the positions that share a
    context, through W_y minus the mean of W there. ``log_probs`` (N, T, V) are given where the logits have more parts
    than W h, none of them trained.
    """
    hidden = params.hidden[contexts]
    if log_probs is None:
        log_probs = log_softmax(linear_logits(params.unembedding, hidden))
    kept = jnp.where(mask[..., None], residual(tokens, jnp.exp(log_probs)) @ params.unembedding, 0)
    return gram(log_probs, tokens, mask, similarity(hidden)) + jnp.einsum(
        "ntd,msd,ntms->nm", kept, kept, same_context(contexts)
    )


def pair_contexts(tokens: Array) -> Array:
    """Which context (2, T) each position of two responses ``tokens`` (2, T) to one prompt has, numbers below 2 T.

    Position k of the first has number k, and so has that of the second as long as the tokens before it are the same.
    """
    length = tokens.shape[-1]
    alike = jnp.cumprod(tokens[0] == tokens[1])
    shared = jnp.concatenate([jnp.ones(1, bool), alike[:-1] == 1])
    own = jnp.arange(length)
    return jnp.stack([own, jnp.where(shared, own, length + own)])


@partial(jax.vmap, in_axes=(None, 0, 0, 0, 0))
def _pair_gram(unembedding: Array, hidden: Array, tokens: Array, mask: Array, log_probs: Array | None) -> Array:
    params = Tied(unembedding, hidden.reshape(-1, hidden.shape[-1]))
    return tied_response_gram(params, pair_contexts(tokens), tokens, mask, log_probs)


def tied_pair_gram(params: Tied, tokens: Array, mask: Array, log_probs: Array | None = None) -> Array:
    """Gram matrices (pairs, 2, 2) of chosen and rejected response, with W and the hidden vectors of each pair trained.

    ``params.hidden`` (pairs, 2, T, d), ``tokens`` and ``mask`` (pairs, 2, T): chosen first. The two responses of a pair
    share the prompt, hence the first context, and the contexts after a common prefix, whose hidden vectors must be the
    same for both. ``log_probs`` (pairs, 2, T, V) as in ``tied_response_gram``.
    """
    return _pair_gram(params.unembedding, params.hidden, tokens, mask, log_probs)


# -- linear features by design ---------------------------------------------------------------------------------------


def minimum_norm(features: Array, log_probs: Array) -> Array:
    """The theta (V, d) of least norm whose policy has the wanted log-probabilities (C, V) at C features (C, d).

    Raises ValueError where no theta has: features that depend on each other and ask for different things.
    """
    centred = log_probs - jnp.mean(log_probs, axis=-1, keepdims=True)  # a constant in the logits only adds norm
    theta = (jnp.linalg.pinv(features) @ centred).T
    missed = known(linear_logits(theta, features) - centred)
    if missed is not None:
        worst = float(np.max(np.abs(missed)))
        allowed = 1e3 * np.finfo(missed.dtype).eps * max(1.0, float(np.max(np.abs(np.asarray(centred)))))
        if not worst <= allowed:
            raise ValueError(
                f"log_probs: not realisable on these features, which are linearly dependent: "
                f"the nearest theta misses a logit by {worst:.3g}"
            )
    return theta


def suffix_features(length: int, overlap: Any) -> Array:
    """Unit features (2, 1 + length, 1 + 3 * length) of a contrast token and a shared suffix after it.

    Position 0 is the same for both responses. At a suffix position the two responses' features have the inner product
    ``overlap``, in [0, 1]; features of different positions are orthogonal.
    """
    whole("length", length, least=0)
    require("overlap", overlap, lambda r: (r >= 0) & (r <= 1), "in [0, 1]")
    eye = jnp.eye(1 + 3 * length)
    shared = jnp.sqrt(jnp.asarray(overlap)) * eye[1 : 1 + length]
    own = jnp.sqrt(1 - jnp.asarray(overlap)) * eye[1 + length :].reshape(2, length, 1 + 3 * length)
    first = jnp.broadcast_to(eye[:1], (2, 1, eye.shape[0]))
    return jnp.concatenate([first, shared[None] + own], axis=1)


# -- a small network -------------------------------------------------------------------------------------------------


class Network(NamedTuple):
    """Pure functions: ``init(key)`` gives parameters, ``apply(params, inputs (..., inputs))`` logits (..., outputs).

    ``margin(params, inputs (N, inputs), contrast (N, outputs))`` (N,) are the sums of contrast times logits: where the
    rows of contrast add to zero, differences of log-probabilities. In the first and the last layer weights only meet
    data, which models share: ``jax.vmap`` over the parameters of many models folds them into one matrix product. Sweep
    with ``jax.lax.map(run, models, batch_size=64)``, whose batches fit into a processor's cache.
    """

    init: Callable[[Array], Any]
    apply: Callable[[Any, Array], Array]
    margin: Callable[[Any, Array, Array], Array]


def network(inputs: int, outputs: int, *, hidden: int | tuple[int, ...] = 64, scale: float = 1) -> Network:
    """Hidden layers of ``hidden`` tanh units, first to last (a number: one layer), biases zero at the start.

    Weights start normal with standard deviation 1 / sqrt(units of the layer before), in the first layer ``scale`` /
    sqrt(inputs). Make it once and use it many times: each call makes functions that compile anew.
    """
    from flax import nnx  # 2 seconds to import, and few need it

    widths = hidden if isinstance(hidden, tuple) else (hidden,)
    for name, size in (("inputs", inputs), ("outputs", outputs), *(("hidden", width) for width in widths)):
        whole(name, size)
    deviations = (scale / inputs**0.5, *(width**-0.5 for width in widths))

    def build(key: Array) -> tuple[Any, Any]:
        rngs, dtype, normal = nnx.Rngs(key), jnp.result_type(float), nnx.initializers.normal
        layers: list[Any] = []
        for before, after, deviation in zip((inputs, *widths), (*widths, outputs), deviations, strict=True):
            layers += [nnx.Linear(before, after, kernel_init=normal(deviation), param_dtype=dtype, rngs=rngs), jnp.tanh]
        return nnx.split(nnx.Sequential(*layers[:-1]))

    def margin(params: Any, inputs: Array, contrast: Array) -> Array:
        leaves = jax.tree.leaves(params)  # bias and weights of each layer
        units = inputs.T  # the N inputs on the last axis: folded models then stay contiguous
        for bias, weights in zip(leaves[:-2:2], leaves[1:-2:2], strict=True):
            units = jnp.tanh(weights.T @ units + bias[:, None])
        bias, weights = leaves[-2:]
        return jnp.sum(units * (weights @ contrast.T), axis=0) + contrast @ bias

    graph, _ = build(jax.random.key(0))
    return Network(
        init=lambda key: build(key)[1],
        apply=lambda params, inputs: nnx.merge(graph, params)(inputs),
        margin=margin,
    )


def token_inputs(x: Array, tokens: Array, vocabulary: int) -> Array:
    """Network inputs (..., T, d + T + 2 (V + 1)) for each position of ``tokens`` (..., T) after a prompt x (..., d).

    They are x, the position, the token before (one-hot; before the first stands a begin token V) and the first token
    (the begin token where it is not known yet).
    """
    length = tokens.shape[-1]
    begin = jnp.full((*tokens.shape[:-1], 1), vocabulary, tokens.dtype)
    before = jnp.concatenate([begin, tokens[..., :-1]], axis=-1)
    first = jnp.concatenate([begin, jnp.broadcast_to(tokens[..., :1], (*tokens.shape[:-1], length - 1))], axis=-1)
    spread = jnp.broadcast_to(x[..., None, :], (*tokens.shape, x.shape[-1]))
    place = jnp.broadcast_to(jnp.eye(length, dtype=x.dtype), (*tokens.shape, length))
    seen = [jax.nn.one_hot(ids, vocabulary + 1, dtype=x.dtype) for ids in (before, first)]
    return jnp.concatenate([spread, place, *seen], axis=-1)
