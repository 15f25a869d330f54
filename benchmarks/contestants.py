"""The workloads of ``python -m benchmarks`` and who runs them: this package through its public call, and its peers.

Every contestant is a function without arguments that returns the trained parameters of its first model, so that the
ends can be compared, and comes with the number of model-steps that it makes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import library, pointer
from sandbox import losses
from sandbox.dynamics import train
from sandbox.losses import PairLogProbs
from sandbox.pair_training import train_table
from sandbox.policies import network
from sandbox.sweep import sweep

try:
    import torch
except ImportError:
    torch = None

OURS = "softmax-sandbox"


class Contestant(NamedTuple):
    run: Callable[[], Any]
    model_steps: int


Compiled = Callable[..., Callable[[Any], Any]]


def once() -> Compiled:
    """For ``sweep``: compile at the first call and keep the program, as a long sweep does for its chunks."""
    programs: dict[str, Any] = {}
    return lambda function, points, **options: programs.setdefault("", jax.jit(function, **options))


# -- 64 logits, 64 pairs that all models share: DPO by full-batch descent ---------------------------------------------


class Table(NamedTuple):
    start: np.ndarray
    beta: np.ndarray
    rate: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray


def table_data(models: int, responses: int = 64, pairs: int = 64) -> Table:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, responses, pairs)
    rejected = (chosen + rng.integers(1, responses, pairs)) % responses
    start = rng.normal(size=(models, responses)).astype(np.float32)
    constants = (rng.uniform(low, high, models).astype(np.float32) for low, high in ((0.1, 1), (0.1, 2)))
    return Table(start, *constants, chosen.astype(np.int32), rejected.astype(np.int32))


def our_table(data: Table, steps: int, loss: str = "dpo", constant: str = "beta", **options: Any) -> Contestant:
    """All models through ``sweep``; a chunk holds them all."""
    points = {"start": jnp.asarray(data.start), "beta": jnp.asarray(data.beta), "rate": jnp.asarray(data.rate)}
    chosen, rejected = jnp.asarray(data.chosen), jnp.asarray(data.rejected)

    def run(point: dict[str, Any]) -> dict[str, Any]:
        made = partial(losses.LOSSES[loss], **{constant: point["beta"]})
        given = {"steps": steps, "learning_rate": point["rate"]}
        return {"end": train_table(made, point["start"], chosen, rejected, **given).params}

    options = {"compiled": once(), "chunk": 4096, **options}
    return Contestant(lambda: sweep(run, points, **options)["end"][0], len(data.start) * steps)


def c_table(data: Table, steps: int) -> Contestant | None:
    c = library()
    if c is None:
        return None

    def run() -> np.ndarray:
        logits = data.start.copy()
        arrays = logits, data.beta, data.rate, data.chosen, data.rejected
        c.table(*map(pointer, arrays), *logits.shape, len(data.chosen), steps)
        return logits[0]

    return Contestant(run, len(data.start) * steps)


def numpy_table(data: Table, steps: int) -> Contestant:
    """The closed form as matrix products with the signs of the pairs, all models at once."""
    eye = np.eye(data.start.shape[1], dtype=np.float32)
    signs = eye[data.chosen] - eye[data.rejected]
    beta, pace = data.beta[:, None], (data.beta * data.rate / len(data.chosen))[:, None]

    def run() -> np.ndarray:
        moved = np.zeros_like(data.start)
        for _ in range(steps):
            moved += (pace / (1 + np.exp(beta * (moved @ signs.T)))) @ signs
        return data.start[0] + moved[0]

    return Contestant(run, len(data.start) * steps)


def torch_table(data: Table, steps: int) -> Contestant:
    """Autograd on log-softmax, all models in one batch (one model: an eager loop), as one writes it."""
    w, l = torch.tensor(data.chosen, dtype=torch.long), torch.tensor(data.rejected, dtype=torch.long)
    fixed, beta, rate = (torch.tensor(x) for x in (data.start, data.beta[:, None], data.rate[:, None]))

    def run() -> np.ndarray:
        theta = fixed.clone().requires_grad_(True)
        reference = torch.log_softmax(fixed, -1)
        for _ in range(steps):
            policy = torch.log_softmax(theta, -1)
            margin = policy[:, w] - policy[:, l] - reference[:, w] + reference[:, l]
            loss = torch.nn.functional.softplus(-beta * margin).mean(-1).sum()
            (slope,) = torch.autograd.grad(loss, theta)
            with torch.no_grad():
                theta -= rate * slope
        return theta.detach().numpy()[0]

    return Contestant(run, len(data.start) * steps)


# -- a network of 16 inputs, 64 tanh units, 10 responses; 64 prompts with a pair each --------------------------------

NETWORK = network(16, 10, hidden=64)
FLOPS = 2 * 64 * (16 * 64 + 64 * 10) + 2 * 64 * (16 * 64 + 2 * 64 * 10)  # of a step: forward and backward


class Prompts(NamedTuple):
    params: Any
    beta: np.ndarray
    rate: np.ndarray
    inputs: np.ndarray
    contrast: np.ndarray


def network_data(models: int) -> Prompts:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 10, 64)
    rejected = (chosen + rng.integers(1, 10, 64)) % 10
    eye = np.eye(10, dtype=np.float32)
    params = jax.vmap(NETWORK.init)(jax.random.split(jax.random.key(0), models))
    beta, rate = (np.linspace(0.1, high, models, dtype=np.float32) for high in (1, 0.5))
    return Prompts(params, beta, rate, rng.normal(size=(64, 16)).astype(np.float32), eye[chosen] - eye[rejected])


def our_network(data: Prompts, steps: int) -> Contestant:
    inputs, contrast = jnp.asarray(data.inputs), jnp.asarray(data.contrast)

    def loss(params: Any, reference: Any, beta: Any) -> Any:
        margin = NETWORK.margin(params, inputs, contrast)
        return jnp.mean(losses.dpo(PairLogProbs(margin, 0, reference, 0), beta=beta))

    def run(point: dict[str, Any]) -> dict[str, Any]:
        args = NETWORK.margin(point["params"], inputs, contrast), point["beta"]
        trained = train(loss, point["params"], args, steps=steps, learning_rate=point["rate"]).params
        return {"end": jax.tree.leaves(trained)[-1]}

    points = {"params": data.params, "beta": jnp.asarray(data.beta), "rate": jnp.asarray(data.rate)}
    options = {"compiled": once(), "batch": 64}
    return Contestant(lambda: sweep(run, points, **options)["end"][0], len(data.beta) * steps)


def numpy_network(data: Prompts, steps: int) -> Contestant:
    """The backward pass written out, all models at once."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(data.params)]
    x, signs, beta = data.inputs, data.contrast, data.beta[:, None]

    def run() -> np.ndarray:
        b1, w1, b2, w2 = (leaf.copy() for leaf in leaves)
        pace, reference = data.rate[:, None], None
        for _ in range(steps):
            hidden = np.tanh(x @ w1 + b1[:, None])
            margin = np.sum((hidden @ w2 + b2[:, None]) * signs, axis=-1)
            reference = margin if reference is None else reference
            push = (pace * beta / len(x)) / (1 + np.exp(beta * (margin - reference)))
            outer = push[..., None] * signs
            inner = (outer @ w2.transpose(0, 2, 1)) * (1 - hidden * hidden)
            w2 += hidden.transpose(0, 2, 1) @ outer
            w1 += x.T @ inner
            b1 += inner.sum(axis=1)
            b2 += outer.sum(axis=1)
        return w2[0]

    return Contestant(run, len(data.beta) * steps)


def torch_network(data: Prompts, steps: int) -> Contestant:
    """vmap of grad, all models at once."""
    leaves = [torch.tensor(np.asarray(leaf)) for leaf in jax.tree.leaves(data.params)]
    x, signs, beta, rate = (torch.tensor(a) for a in (data.inputs, data.contrast, data.beta, data.rate))

    def margin(theta: list[Any]) -> Any:
        b1, w1, b2, w2 = theta
        return (torch.log_softmax(torch.tanh(x @ w1 + b1) @ w2 + b2, -1) * signs).sum(-1)

    def loss(theta: list[Any], reference: Any, beta: Any) -> Any:
        return torch.nn.functional.softplus(-beta * (margin(theta) - reference)).mean()

    slopes = torch.func.vmap(torch.func.grad(loss))

    def run() -> np.ndarray:
        theta = leaves
        with torch.no_grad():
            reference = torch.func.vmap(margin)(theta)
        for _ in range(steps):
            found = slopes(theta, reference, beta)
            theta = [p - rate.reshape(-1, *[1] * (p.ndim - 1)) * g for p, g in zip(theta, found, strict=True)]
        return theta[-1][0].numpy()

    return Contestant(run, len(data.beta) * steps)
