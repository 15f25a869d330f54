"""Sweeps of a small network with this package against the fastest layout written by hand, on this machine.

    python benchmarks/network_sweep.py [--rounds 9]

Workload: DPO by full-batch gradient descent in float32, 16 inputs, 64 tanh units, 10 responses (1,738 parameters), 64
prompts with a pair each; every model has its own start, beta and learning rate. 128 models for 50 steps, 1,024 for 10.

By hand: models folded into the rows of one matrix product for each layer, gradient in closed form, in chunks that fit
into the cache. Ours: ``train`` on ``Network.margin`` with autodiff, in ``lax.map`` over batches, as experiments do; and
the same on log-probabilities, which XLA cannot fold. Every run starts from the same numbers, and the end points are
compared. The runs take turns, round after round; the medians count. Compilation stands in its own column.
Exit status 1 if ours takes more than twice the time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from a checkout that is not installed

from sandbox.algebra import log_softmax, sigmoid
from sandbox.dynamics import train
from sandbox.losses import PairLogProbs, dpo
from sandbox.policies import network

PROMPTS, INPUTS, UNITS, RESPONSES = 64, 16, 64, 10
SIZES = ((128, 50), (1024, 10))  # models, steps
BATCH, CHUNKS = 64, (64, 128)
TARGET = 2.0  # most that ours may take, in units of the faster chunk of the layout by hand
AGREE = 1e-4  # by which parameters may differ in float32
NETWORK = network(INPUTS, RESPONSES, hidden=UNITS)

Run = Callable[[], Any]


def by_hand(data: tuple[Array, Array], params: Any, beta: Array, rate: Array, steps: int, chunk: int) -> Any:
    """Leaves of the trained parameters. Arrays (units, models, ...): both products have units * models rows."""
    inputs, contrast = data

    def run(models: tuple[list[Array], Array, Array]) -> list[Array]:
        (b1, w1, b2, w2), beta, rate = models
        rows = UNITS * len(beta)

        def forward(b1: Array, w1: Array, b2: Array, w2: Array) -> tuple[Array, Array, Array]:
            units = jnp.tanh((w1.reshape(rows, INPUTS) @ inputs.T).reshape(UNITS, -1, PROMPTS) + b1[..., None])
            towards = (w2.reshape(rows, RESPONSES) @ contrast.T).reshape(UNITS, -1, PROMPTS)
            return units, towards, jnp.sum(units * towards, axis=0) + b2 @ contrast.T

        def step(theta: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
            units, towards, margin = forward(*theta)
            push = (rate * beta / PROMPTS)[:, None] * sigmoid(-beta[:, None] * (margin - reference))
            outer = push * units
            inner = push * towards * (1 - units * units)
            b1, w1, b2, w2 = theta
            return (
                b1 + jnp.sum(inner, axis=-1),
                w1 + (inner.reshape(rows, PROMPTS) @ inputs).reshape(w1.shape),
                b2 + push @ contrast,
                w2 + (outer.reshape(rows, PROMPTS) @ contrast).reshape(w2.shape),
            ), None

        start = b1.T, w1.transpose(2, 0, 1), b2, w2.transpose(1, 0, 2)
        reference = forward(*start)[2]
        b1, w1, b2, w2 = lax.scan(step, start, None, length=steps)[0]
        return [b1.T, w1.transpose(1, 2, 0), b2, w2.transpose(1, 0, 2)]

    models = jax.tree.leaves(params), beta, rate
    chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), models)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lax.map(run, chunks))


def margins(params: Any, inputs: Array, contrast: Array) -> Array:
    """The margins (prompts,) as a difference of log-probabilities."""
    return jnp.sum(contrast * log_softmax(NETWORK.apply(params, inputs)), axis=-1)


def ours(
    margin: Callable[..., Array], data: tuple[Array, Array], params: Any, beta: Array, rate: Array, steps: int
) -> Any:
    """Leaves of the trained parameters."""

    def loss(params: Any, reference: Array, beta: Array) -> Array:
        return jnp.mean(dpo(PairLogProbs(margin(params, *data), 0, reference, 0), beta=beta))

    def run(model: tuple[Any, Array, Array]) -> list[Array]:
        params, beta, rate = model
        trained = train(loss, params, (margin(params, *data), beta), steps=steps, learning_rate=rate).params
        return jax.tree.leaves(trained)

    return lax.map(run, (params, beta, rate), batch_size=BATCH)


def runs(models: int, steps: int) -> dict[str, Run]:
    """Functions without arguments that return the end points; those by hand come first."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, RESPONSES, PROMPTS)
    rejected = (chosen + rng.integers(1, RESPONSES, PROMPTS)) % RESPONSES
    eye = np.eye(RESPONSES, dtype=np.float32)
    data = jnp.array(rng.normal(size=(PROMPTS, INPUTS)), jnp.float32), jnp.array(eye[chosen] - eye[rejected])
    params = jax.vmap(NETWORK.init)(jax.random.split(jax.random.key(0), models))
    own = params, jnp.linspace(0.1, 1, models), jnp.linspace(0.1, 0.5, models)
    assert [leaf.shape[1:] for leaf in jax.tree.leaves(params)] == [(64,), (16, 64), (10,), (64, 10)]

    def compiled(sweep: Callable[..., Any]) -> Run:
        jitted = jax.jit(sweep)
        return lambda: jitted(data, *own)

    found = {f"by hand, chunks of {c}": compiled(lambda *a, c=c: by_hand(*a, steps, c)) for c in CHUNKS}
    found["ours, margins"] = compiled(lambda *a: ours(NETWORK.margin, *a, steps))
    found["ours, log-probabilities"] = compiled(lambda *a: ours(margins, *a, steps))
    return found


def seconds(run: Run) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - begin, result


def compare(models: int, steps: int, rounds: int, table: Table) -> bool:
    """Time all runs in turn and add a row for each; whether the target is met and the end points agree."""
    contestants = runs(models, steps)
    first = {name: seconds(run) for name, run in contestants.items()}
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            taken[name].append(seconds(run)[0])
    typical = {name: float(np.median(times)) for name, times in taken.items()}
    names = list(contestants)
    fastest, end = min(typical[name] for name in names[: len(CHUNKS)]), first[names[0]][1]
    agreed = True
    for name in names:
        gap = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(first[name][1], end, strict=True))
        agreed &= gap < AGREE
        per_step = f"{typical[name] / models / steps * 1e6:,.2f}"
        ratio = f"{typical[name] / fastest:.2f}"
        table.add_row(f"{models:,}", name, per_step, ratio, f"{first[name][0]:.2f}", f"{gap:.1e}")
    reached = typical[names[len(CHUNKS)]] / fastest
    met = reached <= TARGET and agreed
    table.add_row("", f"target {TARGET:g}: {'met' if met else 'MISSED'}", "", f"{reached:.2f}", "", "")
    table.add_section()
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="Sweeps of a small network against a layout written by hand.")
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each")
    options = parser.parse_args()
    table = Table(title=f"jax {jax.__version__} on {jax.default_backend()}, float32, median of {options.rounds}")
    table.add_column("models", justify="right")
    table.add_column("run", no_wrap=True)
    for heading in ("us a model and step", "times as long", "first call, s", "largest difference"):
        table.add_column(heading, justify="right")
    met = [compare(models, steps, options.rounds, table) for models, steps in SIZES]
    Console(width=110).print(table)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
