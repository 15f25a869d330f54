"""The next step of a preference loss on every pair, predicted from two gradients (C1-C3) and measured.

Gradients of the user's own model need nothing else. Pairs of text need a policy: one hidden layer that sees the words
of the prompt, the place in the response, the token before and the response's first token. It starts random, is
fine-tuned on the chosen responses, and is its own reference policy while it is trained with the loss on all pairs for
some steps: right after fine-tuning the gradients of a pair rarely meet; they come to meet as the loss is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from sandbox.dynamics import one_step, train
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.measures import Case, GradientProducts, case, first_order_changes, gradient_products, kappa, safe_interval
from sandbox.policies import Network, network, token_inputs
from sandbox.preferences import END, TextPair, encode_pairs, vocabulary

WIDTH = 256  # inputs for a token; tokens whose ids agree modulo WIDTH share one
# Adam, on means. At higher rates, or with more units, what a pair does depends on the random start, not on the pair.
HIDDEN = 64
SFT_STEPS, SFT_RATE, LOSS_RATE = 48, 0.005, 0.001
STEP = 0.01  # length of the longest step on one pair, in the units of the parameters

Loss = Callable[[PairLogProbs], Any]


class Step(NamedTuple):
    """Changes of log-probability (N, 2) in nats, of the chosen and the rejected, by one step of gradient descent.

    ``learning_rate`` is one number, or one a pair (N,).
    """

    learning_rate: Any
    predicted: Any
    measured: Any


class Found(NamedTuple):
    """What is known of N pairs; what only a policy can tell is None."""

    log_probs: Any  # of the chosen and the rejected (N, 2)
    moved: Any  # their change since fine-tuning (N, 2)
    products: GradientProducts
    weights: tuple[Any, Any]  # d_w, d_l
    alone: Step  # each pair, by a step on itself
    batch: Step | None  # each pair, by a step on the mean over all
    shares: Any  # by each token, of the inner product (N, 2, T)


def diagnose(products: GradientProducts, d_w: Any, d_l: Any) -> dict[str, np.ndarray]:
    """Weights, their ratio and its safe interval, cosine, kappa and case of every pair (N,).

    A case is UNDEFINED too where a weight has the wrong sign: the loss then does not push the pair the usual way.
    """
    k = kappa(d_w, d_l, products.norm_chosen, products.norm_rejected)
    usual = jnp.asarray(d_w) > 0  # of two negative weights kappa would be positive
    low, high = safe_interval(products.norm_chosen, products.norm_rejected, products.inner)
    columns = {
        "d_chosen": d_w,
        "d_rejected": d_l,
        "ratio": jnp.asarray(d_w) / jnp.asarray(d_l),
        "cosine": products.cosine,
        "kappa": k,
        "case": jnp.where(usual, case(k, products.cosine), Case.UNDEFINED),
        "safe_low": low,
        "safe_high": high,
    }
    return {name: np.asarray(column) for name, column in columns.items()}


def predict(products: GradientProducts, d_w: Any, d_l: Any) -> Array:
    """First-order changes (N, 2) by a step on each pair alone, for a learning rate of one (C1)."""
    return jnp.stack(first_order_changes(d_w, d_l, *products), axis=-1)


# -- gradients from any model ------------------------------------------------------------------------------------------


def from_gradients(chosen: np.ndarray, rejected: np.ndarray, loss: Loss, pairs: PairLogProbs) -> Found:
    """Predict both steps, for a learning rate of one, from gradients (N, P) of the log-probabilities of N responses."""
    loss(pairs)  # checks the values, which the derivative cannot see
    d_w, d_l = (np.broadcast_to(np.asarray(d), len(chosen)) for d in margin_weights(loss, pairs))
    exact = np.result_type(jnp.result_type(float))
    found = [
        gradient_products(*(jnp.asarray(row, exact) for row in pair)) for pair in zip(chosen, rejected, strict=True)
    ]
    products = GradientProducts(*(jnp.stack(column) for column in zip(*found, strict=True)))
    direction = (d_w @ chosen - d_l @ rejected) / len(chosen)
    together = np.stack([chosen @ direction, rejected @ direction], axis=-1)
    return Found(
        log_probs=None,
        moved=None,
        products=products,
        weights=(d_w, d_l),
        alone=Step(1.0, predict(products, d_w, d_l), None),
        batch=Step(1.0, together, None),
        shares=None,
    )


# -- pairs of text -----------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Pairs as arrays: ``prompt`` (N, WIDTH) unit rows, ``tokens`` and ``mask`` (N, 2, T), chosen before rejected."""

    prompt: Any
    tokens: Any
    mask: Any


class Toy(NamedTuple):
    """The policy; ``chunk`` pairs are looked at together, to bound the memory."""

    net: Network
    chunk: int


def encode(pairs: Sequence[TextPair], ids: dict[str, int]) -> Batch:
    """The words of each prompt as a unit vector, and the tokens of both responses padded to one length."""
    coded = encode_pairs(pairs, ids)
    length = max(coded.chosen.shape[1], coded.rejected.shape[1])

    def pad(chosen: np.ndarray, rejected: np.ndarray) -> Array:
        return jnp.stack([np.pad(x, ((0, 0), (0, length - x.shape[1]))) for x in (chosen, rejected)], axis=1)

    prompt = np.zeros((len(pairs), WIDTH), jnp.result_type(float))
    for row, tokens, mask in zip(prompt, coded.prompt, coded.prompt_mask, strict=True):
        row[tokens[mask] % WIDTH if mask.any() else ids[END]] = 1  # an empty prompt is the token END
        row /= np.linalg.norm(row)
    return Batch(jnp.asarray(prompt), pad(coded.chosen, coded.rejected), pad(coded.chosen_mask, coded.rejected_mask))


@cache  # one policy, compiled once
def toy(tokens: int, length: int) -> Toy:
    """A policy for responses of up to ``length`` tokens of a vocabulary of ``tokens``."""
    inputs = WIDTH + length + 2 * (WIDTH + 1)
    # a place has four unit inputs: this scale starts every hidden unit with a variance of one
    net = network(inputs, tokens, hidden=HIDDEN, scale=inputs**0.5 / 2)
    return Toy(net, max(1, 2**21 // (length * (tokens + inputs))))


def by_token(policy: Toy, params: Any, row: Batch) -> Array:
    """Log-probabilities (2, T) of the tokens of one pair's responses, in nats; 0 behind the end."""
    x = jnp.broadcast_to(row.prompt, (row.tokens.shape[0], WIDTH))
    log_probs = jax.nn.log_softmax(policy.net.apply(params, token_inputs(x, row.tokens % WIDTH, WIDTH)))
    return jnp.where(row.mask, jnp.take_along_axis(log_probs, row.tokens[..., None], axis=-1)[..., 0], 0)


def response_log_probs(policy: Toy, params: Any, batch: Batch) -> Array:
    """Log-probabilities (N, 2) of the chosen and the rejected responses, in nats."""
    each = jax.checkpoint(lambda row: jnp.sum(by_token(policy, params, row), axis=-1))  # a gradient runs it again
    return lax.map(each, batch, batch_size=policy.chunk)


def as_pairs(log_probs: Array, reference: Array, mask: Array) -> PairLogProbs:
    """What a loss may know of pairs, from (..., 2) log-probabilities and (..., 2, T) masks."""
    lengths = jnp.sum(mask, axis=-1).astype(log_probs.dtype)
    return PairLogProbs(*(x[..., k] for x in (log_probs, reference, lengths) for k in (0, 1)))


def from_text(pairs: Sequence[TextPair], loss: Loss, loss_steps: int, key: Array) -> Found:
    """Train the policy on the pairs, with the loss for the last ``loss_steps`` steps, and try the next step on each."""
    ids = vocabulary(text for pair in pairs for text in pair)
    batch = encode(pairs, ids)
    policy = toy(len(ids), batch.tokens.shape[-1])

    def objective(params: Any, batch: Batch, reference: Array) -> Array:
        return jnp.mean(loss(as_pairs(response_log_probs(policy, params, batch), reference, batch.mask)))

    params, reference = _train(policy, objective, loss_steps, batch, key)
    now, products, shares = _look(policy, params, batch)
    if not (jnp.isfinite(now).all() and jnp.isfinite(products.inner).all()):
        raise ValueError(
            f"loss_steps = {loss_steps}: training with this loss left the finite numbers; take fewer steps"
        )
    d_w, d_l = margin_weights(loss, as_pairs(now, reference, batch.mask))

    rates = predict(products, d_w, d_l)
    longest = jnp.sqrt(jnp.max(d_w * rates[:, 0] - d_l * rates[:, 1]))  # |d_w g_w - d_l g_l|^2, C4
    rate = jnp.where(longest > 0, STEP / longest, 0)
    alone = _step_alone(policy, loss, params, batch, reference, rate)
    return Found(
        log_probs=now,
        moved=now - reference,
        products=products,
        weights=(d_w, d_l),
        alone=Step(rate, rate * rates, alone),
        batch=_step_together(policy, objective, params, batch, reference),
        shares=shares,
    )


def _train(policy: Toy, objective: Any, loss_steps: int, batch: Batch, key: Array) -> tuple[Any, Array]:
    """Parameters after both trainings, and log-probabilities (N, 2) after the first."""
    # training needs no more digits than float32, which takes half the time
    half, whole = (partial(jax.tree.map, partial(_cast, dtype)) for dtype in (jnp.float32, jnp.result_type(float)))

    def nll(params: Any, batch: Batch) -> Array:
        return -jnp.sum(response_log_probs(policy, params, batch)) / jnp.sum(batch.mask)

    adam = {"optimizer": optax.adam}
    chosen = half(Batch(batch.prompt, batch.tokens[:, :1], batch.mask[:, :1]))
    params = train(nll, half(policy.net.init(key)), (chosen,), steps=SFT_STEPS, learning_rate=SFT_RATE, **adam).params
    reference = jax.jit(partial(response_log_probs, policy))(whole(params), batch)
    if loss_steps:
        args = half((batch, reference))
        params = train(objective, params, args, steps=loss_steps, learning_rate=LOSS_RATE, **adam).params
    return whole(params), reference


def _cast(dtype: Any, x: Array) -> Array:
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


@partial(jax.jit, static_argnums=0)
def _look(policy: Toy, params: Any, batch: Batch) -> tuple[Array, GradientProducts, Array]:
    """Log-probabilities (N, 2), products of the gradients (N,), and each token's share (N, 2, T) of <g_w, g_l>."""
    flat, unravel = ravel_pytree(params)

    def one(row: Batch) -> tuple[Array, GradientProducts, Array]:
        def tokens(flat: Array) -> Array:
            return by_token(policy, unravel(flat), row)

        g_w, g_l = jax.jacrev(lambda flat: jnp.sum(tokens(flat), axis=-1))(flat)
        # the derivative along the other response's gradient: over the tokens it sums to the inner product
        along = jax.vmap(lambda g: jax.jvp(tokens, (flat,), (g,))[1])(jnp.stack([g_l, g_w]))
        return jnp.sum(tokens(flat), axis=-1), gradient_products(g_w, g_l), along[jnp.arange(2), jnp.arange(2)]

    return lax.map(one, batch)


@partial(jax.jit, static_argnums=(0, 1))
def _step_alone(policy: Toy, loss: Loss, params: Any, batch: Batch, reference: Array, rate: Array) -> Array:
    """Change (N, 2) of each pair's log-probabilities by one step of the loss on that pair alone."""

    def measure(params: Any, row: Batch, start: Array) -> Array:
        return jnp.sum(by_token(policy, params, row), axis=-1)

    def objective(params: Any, row: Batch, start: Array) -> Array:
        return loss(as_pairs(measure(params, row, start), start, row.mask))

    def one(args: tuple[Batch, Array]) -> Array:
        step = one_step(objective, params, args, learning_rate=rate, measure=measure)
        return step.after - step.before

    return lax.map(one, (batch, reference))


@partial(jax.jit, static_argnums=(0, 1))
def _step_together(policy: Toy, objective: Any, params: Any, batch: Batch, reference: Array) -> Step:
    """The same by one step of length STEP on the mean over all pairs, with its first order beside it."""

    def measure(params: Any, batch: Batch, reference: Array) -> Array:
        return response_log_probs(policy, params, batch)

    slope = jax.grad(objective)(params, batch, reference)
    length = jnp.linalg.norm(ravel_pytree(slope)[0])
    rate = jnp.where(length > 0, STEP / length, 0)
    back = jax.tree.map(jnp.negative, slope)
    predicted = jax.jvp(lambda params: response_log_probs(policy, params, batch), (params,), (back,))[1]
    step = one_step(objective, params, (batch, reference), learning_rate=rate, measure=measure)
    return Step(rate, rate * predicted, step.after - step.before)
