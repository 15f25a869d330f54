"""What is left of it when parameters are shared: duels and training of a network, and a knob from table to network."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from experiments.duality.measure import divergence, flat_dirichlet, nothing
from experiments.duality.setup import Setup
from sandbox import utility

CONTEXTS, INPUTS, WIDTH, OUTPUTS = 16, 12, 64, 8
RATE = 0.5  # step size on the mean loss
FEATURES = 64  # of the shared kernel, for 128 pairs of context and output
LEVELS = np.geomspace(0.5, 0.05, 12)  # KL left, as a share of that at the start


class Weights(NamedTuple):
    """A network u = tanh(x a) b without biases."""

    a: Array
    b: Array


def utilities(weights: Weights, x: Array) -> Array:
    """Utilities (..., outputs) of inputs (..., inputs)."""
    return jnp.tanh(x @ weights.a) @ weights.b


def world(key: Array) -> tuple[Array, Array, Weights]:
    """Inputs (16, 12), laws (16, 8) and first weights, the output layer zero."""
    keys = jax.random.split(key, 3)
    x = jax.random.normal(keys[0], (CONTEXTS, INPUTS)) * 2 / np.sqrt(INPUTS)
    q = flat_dirichlet(keys[1], (CONTEXTS, OUTPUTS))
    a = jax.random.normal(keys[2], (INPUTS, WIDTH)) / np.sqrt(INPUTS)
    return x, q, Weights(a, jnp.zeros((WIDTH, OUTPUTS), a.dtype))


def scores(u: Array, q: Array) -> dict[str, Array]:
    """Mean KL, pair order and top-1 accuracy of utilities (..., contexts, outputs) against the laws."""
    q = jnp.broadcast_to(q, u.shape)
    best = jnp.argmax(u, axis=-1) == jnp.argmax(q, axis=-1)
    return {
        "kl": jnp.mean(divergence(q, jax.nn.softmax(u)), axis=-1),
        "pairs": jnp.mean(utility.order_accuracy(u, q), axis=-1),
        "top": jnp.mean(best, axis=-1),
    }


def recorded_steps(last: int) -> np.ndarray:
    """Steps that are looked at: 1 and powers of two, and one between each two of them."""
    steps = np.unique(np.round(2 ** np.arange(0, np.log2(last) + 0.1, 0.5)).astype(int))
    return steps[steps <= last]


def kernel_of(weights: Weights, x: Array) -> Array:
    """Tangent kernel (128, 128) on pairs of context and output, for the mean of the loss over contexts."""
    hidden = jnp.tanh(x @ weights.a)
    bent = ((1 - hidden**2)[:, None, :] * weights.b.T[None, :, :]).reshape(-1, WIDTH)  # d u / d (x a)
    one = jnp.ones((OUTPUTS, OUTPUTS), x.dtype)
    last = jnp.kron(hidden @ hidden.T, jnp.eye(OUTPUTS, dtype=x.dtype))
    return (last + jnp.kron(x @ x.T, one) * (bent @ bent.T)) / CONTEXTS


def trained(key: Array, steps: int) -> dict[str, Array]:
    """Full-batch descent of a network, with its kernel along the way; and of a table with the same laws.

    Three inversions of the network's run: as if it were a table (each context has the step RATE / 16); with the kernel
    of the first step; and with the sum of the kernels of all steps, sum Theta_t (q - P_t) = (u_T - u_0) / RATE.
    """
    x, q, first = world(key)

    def loss(weights: Weights) -> Array:
        return jnp.mean(jax.vmap(utility.loss)(utilities(weights, x), q))

    class Carry(NamedTuple):
        weights: Weights
        table: Array
        probs: Array
        kernels: Array
        pushed: Array

    def once(_: int, c: Carry) -> Carry:
        p = jax.nn.softmax(utilities(c.weights, x))
        kernel = kernel_of(c.weights, x)
        weights = jax.tree.map(lambda w, g: w - RATE * g, c.weights, jax.grad(loss)(c.weights))
        table = c.table + RATE * (q - jax.nn.softmax(c.table))
        return Carry(weights, table, c.probs + p, c.kernels + kernel, c.pushed + kernel @ p.ravel())

    start = utilities(first, x)
    kernel = kernel_of(first, x)
    size = CONTEXTS * OUTPUTS

    def stretch(c: Carry, ends: tuple[Array, Array]) -> tuple[Carry, dict[str, Array]]:
        begin, end = ends
        c = lax.fori_loop(begin, end, once, c)
        u = utilities(c.weights, x)
        rise = (u - start).ravel() / RATE
        ridge = 1e-9 * jnp.trace(kernel) / size * jnp.eye(size, dtype=u.dtype)
        kernels = jnp.stack([kernel + ridge, c.kernels / end + ridge])
        sides = jnp.stack([kernel @ c.probs.ravel() + rise, c.pushed + rise]) / end
        first_kernel, all_kernels = jnp.linalg.solve(kernels, sides[..., None]).reshape(2, *q.shape)
        as_table = utility.inverted(c.probs / end, start, u, end * RATE / CONTEXTS)
        guesses = jnp.stack([jax.nn.softmax(u), as_table, first_kernel, all_kernels])
        off = jnp.mean(jnp.sum((guesses - q[None]) ** 2, axis=-1), axis=-1)
        table = {f"table_{name}": x for name, x in scores(c.table, q).items()}
        return c, {**scores(u, q), **table, "off": off, "negative": jnp.mean(guesses < -1e-9, axis=(1, 2))}

    ends = jnp.asarray(recorded_steps(steps))
    begins = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
    carry = Carry(first, nothing(q), jnp.zeros_like(q), jnp.zeros((size, size), q.dtype), jnp.zeros(size, q.dtype))
    found = lax.scan(stretch, carry, (begins, ends))[1]
    return found | {"start": jnp.mean(divergence(q, jnp.full_like(q, 1 / OUTPUTS)))}


def networks(setup: Setup, key: Array) -> dict[str, Array]:
    """Toy D, one network a seed: accuracies, divergences, and what its inversions give."""
    return jax.vmap(partial(trained, steps=setup.network_steps))(jax.random.split(key, setup.seeds))


# -- C1: duels ---------------------------------------------------------------------------------------------------------


def duels(setup: Setup, key: Array) -> dict[str, Array]:
    """The gradient of a network's log-probability, by autodiff and as a duel; and duels drawn one by one in a table."""
    keys = jax.random.split(key, 3)
    x, _, first = world(keys[0])
    weights = first._replace(b=jax.random.normal(keys[1], first.b.shape) / np.sqrt(WIDTH))

    def log_prob(weights: Weights) -> Array:
        return jax.nn.log_softmax(utilities(weights, x[0]))[2]

    slopes = jax.jacrev(lambda w: utilities(w, x[0]))(weights)
    each = jax.vmap(lambda s: ravel_pytree(s)[0])(slopes)  # (outputs, parameters)
    p = jax.nn.softmax(utilities(weights, x[0]))
    q, u = jnp.arange(1.0, OUTPUTS + 1) / 36, jnp.sin(jnp.arange(1.0, OUTPUTS + 1))
    drawn = jax.random.uniform(keys[2], (3, setup.duels))
    laws = jnp.stack([q, jax.nn.softmax(u), jnp.full_like(q, 1 / OUTPUTS)])
    below = jnp.cumsum(laws, axis=1)[:, None, :-1]
    seen, opponents, uniform = jnp.sum(drawn[:, :, None] > below, axis=-1)

    def moves(other: Array) -> Array:
        return jax.nn.one_hot(seen, OUTPUTS, dtype=u.dtype) - jax.nn.one_hot(other, OUTPUTS, dtype=u.dtype)

    def standing(other: Array) -> Array:
        moved, expected = moves(other), q - jax.nn.softmax(u)
        return (jnp.mean(moved, axis=0) - expected) * jnp.sqrt(setup.duels) / jnp.std(moved, axis=0, ddof=1)

    return {
        "autodiff": ravel_pytree(jax.grad(log_prob)(weights))[0],
        "duel": each[2] - p @ each,
        "uniform_duel": each[2] - jnp.mean(each, axis=0),
        "z": standing(opponents),
        "uniform_z": standing(uniform),
        "u": u,
        "rise": jnp.cos(jnp.arange(1.0, OUTPUTS + 1)),
    }


# -- from a table to a network -----------------------------------------------------------------------------------------


def shared_run(key: Array, rho: Any, steps: int) -> tuple[Array, Array]:
    """Random laws (16, 8), and utilities (steps, 16, 8) moved through the kernel (1 - rho) I + rho S.

    S is the Gram matrix of 64 random features of 128 pairs of context and output, with mean diagonal 1.
    """
    keys = jax.random.split(key)
    q = flat_dirichlet(keys[0], (CONTEXTS, OUTPUTS))
    features = jax.random.normal(keys[1], (CONTEXTS * OUTPUTS, FEATURES)) / np.sqrt(FEATURES)

    def once(u: Array, _: None) -> tuple[Array, Array]:
        residual = (q - jax.nn.softmax(u)).ravel()
        push = (1 - rho) * residual + rho * (features @ (residual @ features))
        u = u + 0.5 * push.reshape(u.shape)
        return u, u

    return q, lax.scan(once, nothing(q), None, length=steps)[1]


def sharing(setup: Setup, key: Array) -> dict[str, Array]:
    """Runs that share more and more: order accuracy when the KL first falls to each level; NaN where it never does."""
    rho = jnp.linspace(0, 1, setup.levels)
    marks = jnp.asarray(recorded_steps(setup.sharing_steps))

    def run(key: Array, rho: Array) -> tuple[Array, Array]:
        q, path = shared_run(key, rho, setup.sharing_steps)
        found = scores(path, q)
        start = jnp.mean(divergence(q, jnp.full_like(q, 1 / OUTPUTS)))
        left = found["kl"] / start
        reached = left[None, :] <= jnp.asarray(LEVELS, left.dtype)[:, None]
        first = jnp.argmax(reached, axis=1)
        at_level = jnp.where(jnp.any(reached, axis=1), found["pairs"][first], jnp.nan)
        return at_level, found["pairs"][marks - 1]

    keys = jax.random.split(key, setup.seeds)
    at_level, over_time = jax.vmap(lambda k: lax.map(partial(run, k), rho))(keys)
    return {"rho": rho, "at_level": at_level, "over_time": over_time}  # (seeds, rho, levels), (seeds, rho, steps)


STAGES: dict[str, Any] = {"networks": networks, "duels": duels, "sharing": sharing}
