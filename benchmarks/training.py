"""Training runs of this package against the same runs as a PyTorch autograd loop, on this machine, in one process.

    python benchmarks/training.py [--rounds 20] [--threads N]

Workloads, both float32, full-batch gradient descent on the DPO loss:
tabular    64 logits, 64 preference pairs, 1,000 steps
network    16 inputs, 64 tanh units, 10 responses (1,738 parameters), 64 prompts with a pair each, 300 steps

Every run starts from the same numbers, and the end points are compared. The runs take turns, round after round; the
medians count. Compilation, which a first call adds, stands in its own column.
Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from a checkout that is not installed

from sandbox.algebra import log_softmax, sigmoid
from sandbox.dynamics import train
from sandbox.losses import PairLogProbs, dpo
from sandbox.policies import network

try:
    import torch
except ImportError:
    sys.exit("benchmarks/training.py compares with PyTorch, which is not installed: pip install -e '.[peers]'")

TABULAR_STEPS, NETWORK_STEPS = 1000, 300
BETA, RATE = 0.5, 0.5
# The least factor by which the fastest of our runs must beat the loop, and by which results may differ in float32.
TARGETS = {"tabular": 250.0, "network": 25.0}
AGREE = 1e-4


class Workload(NamedTuple):
    """A name, the steps of a run, the run to beat, and ours: functions without arguments that return the end point."""

    name: str
    steps: int
    peer: Callable[[], Any]
    ours: dict[str, Callable[[], Any]]


# -- 64 logits, 64 pairs ---------------------------------------------------------------------------------------------


def tabular_loss(logits: Array, start: Array, chosen: Array, rejected: Array) -> Array:
    policy, reference = log_softmax(logits), log_softmax(start)
    pair = PairLogProbs(policy[chosen], policy[rejected], reference[chosen], reference[rejected])
    return jnp.mean(dpo(pair, beta=BETA))


def tabular_gradient(logits: Array, start: Array, contrast: Array) -> Array:
    """The closed form; row n of ``contrast`` (64, 64) is +1 at the chosen and -1 at the rejected response of pair n."""
    weight = BETA * sigmoid(-BETA * (contrast @ (logits - start)))
    return -(weight @ contrast) / contrast.shape[0]


def tabular(rng: np.random.Generator) -> Workload:
    start = rng.normal(size=64).astype(np.float32)
    chosen = rng.integers(0, 64, 64)
    rejected = (chosen + rng.integers(1, 64, 64)) % 64
    contrast = np.eye(64, dtype=np.float32)[chosen] - np.eye(64, dtype=np.float32)[rejected]
    logits, pairs, rows = jnp.array(start), (jnp.array(chosen), jnp.array(rejected)), jnp.array(contrast)

    def peer() -> np.ndarray:
        fixed, w, l = torch.tensor(start), torch.tensor(chosen), torch.tensor(rejected)
        theta = fixed.clone().requires_grad_(True)
        optimiser = torch.optim.SGD([theta], lr=RATE)
        reference = torch.log_softmax(fixed, -1)
        reference_margin = reference[w] - reference[l]
        for _ in range(TABULAR_STEPS):
            policy = torch.log_softmax(theta, -1)
            margin = policy[w] - policy[l] - reference_margin
            loss = torch.nn.functional.softplus(-BETA * margin).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return theta.detach().numpy()

    def autodiff() -> Array:
        run = train(tabular_loss, logits, (logits, *pairs), steps=TABULAR_STEPS, learning_rate=RATE)
        return run.params

    def closed_form() -> Array:
        options: dict[str, Any] = {"steps": TABULAR_STEPS, "learning_rate": RATE, "gradient": tabular_gradient}
        return train(None, logits, (logits, rows), **options).params

    return Workload("tabular", TABULAR_STEPS, peer, {"autodiff": autodiff, "closed-form gradient": closed_form})


# -- a small network -------------------------------------------------------------------------------------------------

NETWORK = network(16, 10, hidden=64)


def network_margin(params: Any, inputs: Array, chosen: Array, rejected: Array) -> Array:
    policy = log_softmax(NETWORK.apply(params, inputs))
    rows = jnp.arange(inputs.shape[0])
    return policy[rows, chosen] - policy[rows, rejected]


def network_loss(params: Any, reference_margin: Array, inputs: Array, chosen: Array, rejected: Array) -> Array:
    margin = network_margin(params, inputs, chosen, rejected)
    return jnp.mean(dpo(PairLogProbs(margin, 0, reference_margin, 0), beta=BETA))


def network_gradient(params: Any, reference_margin: Array, inputs: Array, transposed: Array, contrast: Array) -> Any:
    """The closed form; rows of ``contrast`` (64, 10) as above. The log-partition cancels in a margin."""
    (b1, w1, b2, w2), tree = jax.tree.flatten(params)
    hidden = jnp.tanh(inputs @ w1 + b1)
    towards = contrast @ w2.T  # gradient of each margin with respect to the hidden units
    margin = jnp.sum(hidden * towards, axis=-1) + contrast @ b2 - reference_margin
    weight = -BETA / inputs.shape[0] * sigmoid(-BETA * margin)[:, None]
    first, second = weight * towards * (1 - hidden * hidden), weight * contrast
    parts = [jnp.sum(first, axis=0), transposed @ first, jnp.sum(second, axis=0), hidden.T @ second]
    return jax.tree.unflatten(tree, parts)


def small_network(rng: np.random.Generator) -> Workload:
    inputs = rng.normal(size=(64, 16)).astype(np.float32)
    chosen = rng.integers(0, 10, 64)
    rejected = (chosen + rng.integers(1, 10, 64)) % 10
    params = NETWORK.init(jax.random.key(0))
    data = jnp.array(inputs), jnp.array(chosen), jnp.array(rejected)
    rows = jnp.array(np.eye(10, dtype=np.float32)[chosen] - np.eye(10, dtype=np.float32)[rejected])
    transposed, reference = data[0].T.copy(), network_margin(params, *data)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]  # biases and kernels of the layers, in this order
    assert [leaf.shape for leaf in leaves] == [(64,), (16, 64), (10,), (64, 10)]

    def peer() -> list[np.ndarray]:
        b1, w1, b2, w2 = theta = [torch.tensor(leaf).requires_grad_(True) for leaf in leaves]
        x, w, l = torch.tensor(inputs), torch.tensor(chosen)[:, None], torch.tensor(rejected)[:, None]
        optimiser = torch.optim.SGD(theta, lr=RATE)
        reference_margin = torch.tensor(np.asarray(reference))
        for _ in range(NETWORK_STEPS):
            policy = torch.log_softmax(torch.tanh(x @ w1 + b1) @ w2 + b2, -1)
            margin = policy.gather(1, w)[:, 0] - policy.gather(1, l)[:, 0] - reference_margin
            loss = torch.nn.functional.softplus(-BETA * margin).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return [part.detach().numpy() for part in theta]

    def autodiff() -> Any:
        return train(network_loss, params, (reference, *data), steps=NETWORK_STEPS, learning_rate=RATE).params

    def closed_form() -> Any:
        options: dict[str, Any] = {"steps": NETWORK_STEPS, "learning_rate": RATE, "gradient": network_gradient}
        return train(None, params, (reference, data[0], transposed, rows), **options).params

    return Workload("network", NETWORK_STEPS, peer, {"autodiff": autodiff, "closed-form gradient": closed_form})


# -- timing ----------------------------------------------------------------------------------------------------------


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - begin, result


def compare(workload: Workload, rounds: int, table: Table) -> bool:
    """Time all runs in turn and add a row for each; whether the target is met and the end points agree."""
    runs = {"PyTorch autograd loop": workload.peer, **workload.ours}
    first = {name: seconds(run) for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run)[0])
    typical = {name: float(np.median(times)) for name, times in taken.items()}
    ends = {name: np.concatenate([np.ravel(part) for part in jax.tree.leaves(end)]) for name, (_, end) in first.items()}
    peer, ratios, agreed = "PyTorch autograd loop", {}, True
    for name in runs:
        gap = float(np.max(np.abs(ends[name] - ends[peer])))
        ratios[name] = typical[peer] / typical[name]
        agreed &= gap < AGREE
        per_step = f"{typical[name] / workload.steps * 1e6:,.2f}"
        table.add_row(workload.name, name, per_step, f"{ratios[name]:,.0f}", f"{first[name][0]:.2f}", f"{gap:.1e}")
    target, reached = TARGETS[workload.name], max(ratios.values())
    met = reached >= target and agreed
    table.add_row(workload.name, f"target {target:g}: {'met' if met else 'MISSED'}", "", f"{reached:,.0f}", "", "")
    table.add_section()
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="Training against a PyTorch autograd loop.")
    parser.add_argument("--rounds", type=int, default=20, help="timed runs of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch; its own default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    versions = f"jax {jax.__version__}, torch {torch.__version__} on {options.threads} thread(s)"
    table = Table(title=f"{versions}, float32, median of {options.rounds}")
    table.add_column("workload")
    table.add_column("run")
    for heading in ("us a step", "times faster", "first call, s", "largest difference"):
        table.add_column(heading, justify="right")
    rng = np.random.default_rng(0)
    met = [compare(workload, options.rounds, table) for workload in (tabular(rng), small_network(rng))]
    Console(width=110).print(table)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
