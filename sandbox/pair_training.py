"""Descent on preference pairs with the gradient in closed form: what sweeps of many models train with.

Each function trains one model, as ``dynamics.train`` does by autodiff, which is its test. Under ``jax.vmap`` (hence in
``sandbox.sweep``) all models are trained at once with the models on the last axis: rows of logits are then contiguous,
and a processor's vector lanes hold models. ``loss`` is any loss of ``sandbox.losses``, or a ``functools.partial`` of it
whose constants may be traced, mapped and swept over; the batch loss is its mean over pairs. The policy at the start is
the reference. A network needs none of this: ``dynamics.train`` on ``Network.margin`` is as fast mapped as by hand.
``record(params, *args)`` is kept at the steps 0, every, 2 every, ...; what it needs of a model beside
the parameters goes through ``args``, not through a closure.

Notation: A and B are the log-probabilities of a pair, d_w = -dl/dA and d_l = dl/dB its weights, p is the policy.
Inside, every array has the models on its last axis, one model alone being an axis of length 1; what there is one of for
each pair is (N, models).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from sandbox.dynamics import Run, recorded, whole_blocks
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.margins import fast_exp, margin_weight
from sandbox.validate import finite

__all__ = ["train_linear", "train_table"]

Loss = Callable[[PairLogProbs], Any]
Record = Callable[..., Any]
Parts = tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]  # a start, its update, the parameters of a state


def train_table(
    loss: Loss, logits: Any, chosen: Any, rejected: Any, *, steps: int, learning_rate: Any,
    record: Record | None = None, args: tuple[Any, ...] = (), every: int = 1,
) -> Run:  # fmt: skip
    """Train a table of ``logits`` (V,) on pairs of one-token responses, ``chosen`` and ``rejected`` (N,) integers.

    A step adds learning_rate / N sum_n [d_w (e_w - p) - d_l (e_l - p)]. For a loss of the margin alone the weights are
    equal and p cancels: no softmax is computed. Models that share their pairs are several times faster than models with
    pairs of their own.

    Raises ValueError unless steps >= 1, ``every`` divides steps and the learning rate is finite.
    """
    whole, constants = _taken_apart(loss)
    weight = margin_weight(whole)

    def begin(logits: Array, rate: Array, constants: Mapping[str, Array], chosen: Array, rejected: Array) -> Parts:
        of_pair, pace = partial(whole, **constants), rate / chosen.shape[0]
        reference = jax.nn.log_softmax(logits, axis=0)
        start = logits[chosen] - logits[rejected]

        def update(moved: Array) -> Array:
            if weight is not None:
                push = pace * weight(moved[chosen] - moved[rejected], start, **constants)
                return moved.at[chosen].add(push).at[rejected].add(-push)
            now = jax.nn.log_softmax(logits + moved, axis=0)
            pair = PairLogProbs(now[chosen], now[rejected], reference[chosen], reference[rejected], 1.0, 1.0)
            up, down = (pace * weight for weight in margin_weights(of_pair, pair))
            pulled = moved - jnp.exp(now) * jnp.sum(up - down, axis=0, keepdims=True)
            return pulled.at[chosen].add(up).at[rejected].add(-down)

        return jnp.zeros_like(logits), update, lambda moved: logits + moved

    pairs = jnp.asarray(chosen), jnp.asarray(rejected)
    kept = record, args, steps, every
    return _run(begin, jnp.asarray(logits, jnp.result_type(float)), learning_rate, constants, (), pairs, kept)


def train_linear(
    loss: Loss, theta: Any, features: Any, tokens: Any, mask: Any, *, steps: int, learning_rate: Any,
    record: Record | None = None, args: tuple[Any, ...] = (), every: int = 1,
) -> Run:  # fmt: skip
    """Train logits theta h, ``theta`` (V, d), on one pair of responses with fixed ``features`` h (2, T, d).

    ``tokens`` and ``mask`` (2, T) are the chosen response and the rejected one. A step adds learning_rate v (e_y - p)
    outer h for every token y that the mask keeps, v = d_w or -d_l. So theta is always its start plus sum_t c_t outer
    h_t: the run moves c (2 T, V), and reads the features through their inner products only.

    Raises ValueError as ``train_table``.
    """
    whole, constants = _taken_apart(loss)
    theta = jnp.asarray(theta, jnp.result_type(float))
    features, tokens, mask = jnp.asarray(features), jnp.ravel(tokens), jnp.ravel(mask)
    features = features.reshape(-1, features.shape[-1])
    half = features.shape[0] // 2

    def begin(
        theta: Array, rate: Array, constants: Mapping[str, Array], features: Array, targets: Array, mask: Array
    ) -> Parts:
        of_pair = partial(whole, **constants)
        start = jnp.sum(features[:, None] * theta[None], axis=2)
        gram = [
            jnp.sum(features * h[None], axis=1) for h in features
        ]  # its columns: their sum is faster than one of XLA
        lengths = jnp.sum(mask[:half], axis=0, keepdims=True), jnp.sum(mask[half:], axis=0, keepdims=True)

        def law(c: Array) -> tuple[Array, Array, Array]:
            """Probabilities (2 T, V) at the positions, A and B."""
            logits = start + sum(column[:, None] * row[None] for column, row in zip(gram, c, strict=True))
            logits = logits - jnp.max(logits, axis=1, keepdims=True)
            mass = fast_exp(logits)
            whole = jnp.sum(mass, axis=1)
            each = mask * (jnp.sum(targets * logits, axis=1) - jnp.log(whole))
            a, b = (jnp.sum(side, axis=0, keepdims=True) for side in (each[:half], each[half:]))
            return mass * (1 / whole)[:, None], a, b

        zero = jnp.zeros_like(start)
        reference = law(zero)[1:]

        def update(c: Array) -> Array:
            p, a, b = law(c)
            up, down = margin_weights(of_pair, PairLogProbs(a, b, *reference, *lengths))
            push = mask * jnp.concatenate([rate * up] * half + [-rate * down] * half)
            return c + push[:, None] * (targets - p)

        return zero, update, lambda c: theta + jnp.sum(c[:, :, None] * features[:, None], axis=0)

    targets = jax.nn.one_hot(tokens, theta.shape[0], dtype=theta.dtype)
    data = features.astype(theta.dtype), targets, mask.astype(theta.dtype)
    return _run(begin, theta, learning_rate, constants, data, (), (record, args, steps, every))


def _taken_apart(loss: Loss) -> tuple[partial[Any], dict[str, Any]]:
    """The loss with the constants that are known as they are, and those that are arrays, traced ones among them."""
    whole = loss if isinstance(loss, partial) else partial(loss)
    arrays = {name: x for name, x in whole.keywords.items() if isinstance(x, jax.Array)}
    fixed = {name: x for name, x in whole.keywords.items() if name not in arrays}
    return partial(whole.func, *whole.args, **fixed), arrays


def _run(begin: Callable[..., Parts], start: Any, rate: Any, constants: Any, data: Any, indices: Any, kept: Any) -> Run:
    """Train from ``start``; ``begin(start, rate, constants, *data, *indices)`` in arrays with the models last.

    ``indices`` are those that models share, without an axis of models.
    """
    record, args, *counts = kept
    steps, every = whole_blocks(*counts)
    finite("learning_rate", rate)

    def many(models: int, mapped: Any, arrays: Any, indices: Any) -> Run:
        start, rate, constants, data, args = _models_last(models, mapped, arrays)
        state, update, params = begin(start, rate, constants, *data, *indices)

        def keep(state: Any) -> Any:
            assert record is not None
            return jax.vmap(lambda params, args: record(params, *args), in_axes=-1)(params(state), args)

        state, history = recorded(update, state, None if record is None else keep, steps, every)
        return Run(jax.tree.map(partial(_first, -1), params(state)), jax.tree.map(partial(_first, 1), history))

    def alone(*arrays: Any) -> Run:
        *own, indices = arrays
        run = many(1, jax.tree.map(lambda _: False, own), own, indices)
        return jax.tree.map(lambda x: x[0], run)

    one = custom_vmap(alone)

    @one.def_vmap
    def _(models: int, mapped: Any, *arrays: Any) -> tuple[Run, Any]:
        *own, indices = arrays
        if any(jax.tree.leaves(mapped[-1])):  # every model has pairs of its own
            axes = jax.tree.map(lambda m: 0 if m else None, tuple(mapped))
            run = jax.vmap(alone, in_axes=axes)(*arrays)
        else:
            run = many(models, mapped[:-1], own, indices)
        return run, jax.tree.map(lambda _: True, run)

    return one(start, jnp.asarray(rate, jnp.result_type(float)), constants, data, args, indices)


def _first(axis: int, x: Array) -> Array:
    """The models, on that axis, to the front."""
    return jnp.moveaxis(x, axis, 0)


def _models_last(models: int, mapped: Any, arrays: Any) -> Any:
    """Start, rate, constants, data, args with the models on a last axis, of length 1 where all share an array."""

    def last(mapped: bool, x: Any) -> Array:
        return jnp.moveaxis(x, 0, -1) if mapped else jnp.asarray(x)[..., None]

    def of_pairs(mapped: bool, x: Any) -> Array:
        y = last(mapped, x)
        return y if y.ndim > 1 else y[None]

    def every_one(mapped: bool, x: Any) -> Array:
        y = last(mapped, x)
        return jnp.broadcast_to(y, (*y.shape[:-1], models))

    ways = every_one, of_pairs, of_pairs, last, every_one
    return [jax.tree.map(way, m, x) for way, m, x in zip(ways, mapped, arrays, strict=True)]
