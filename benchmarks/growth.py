"""How the cost of a sweep grows: with the models, the responses and the steps; and its memory. The figure of it."""

from __future__ import annotations

import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.contestants import once
from sandbox import losses
from sandbox.pair_training import train_table
from sandbox.sweep import sweep

MODELS, RESPONSES, STEPS = (
    (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000),
    (4, 16, 64, 256, 1024, 4096),
    (10, 100, 1000),
)


def peak() -> float:
    """The most memory that this process has had so far, MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20) if sys.platform == "darwin" else most / 1024


def seconds(models: int, responses: int, steps: int) -> float:
    """Of a sweep whose every model draws its start, keeps one number, and meets as many pairs as responses."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, responses, responses)
    rejected = (chosen + rng.integers(1, responses, responses)) % responses

    def run(key: jax.Array) -> dict[str, Any]:
        start = jax.random.normal(key, (responses,))
        loss = partial(losses.dpo, beta=0.5)
        return {"first": train_table(loss, start, chosen, rejected, steps=steps, learning_rate=0.5).params[0]}

    keys = jax.random.split(jax.random.key(0), models)
    options = {"compiled": once(), "batch": min(128, max(8, (1 << 15) // responses))}  # what a core's cache holds
    sweep(run, keys[:4096], **options)
    begin = time.perf_counter()
    sweep(run, keys, **options)
    return time.perf_counter() - begin


def growth() -> dict[str, list[list[float]]]:
    """Model-steps a second against each of the three, and the peak of memory against models: [x, y] each."""
    found: dict[str, list[list[float]]] = {"models": [], "responses": [], "steps": [], "memory": []}
    for models in MODELS:
        found["models"].append([models, models * 50 / seconds(models, 64, 50)])
        found["memory"].append([models, peak()])
    for responses in RESPONSES:
        steps = max(50, 12_800 // responses)
        found["responses"].append([responses, 1024 * steps / seconds(1024, responses, steps)])
    for steps in STEPS:
        found["steps"].append([steps, 1024 * steps / seconds(1024, 64, steps)])
    return found


def draw(found: dict[str, list[list[float]]], title: str, path: Path) -> None:
    import matplotlib.pyplot as plt

    with plt.style.context(Path(__file__).parents[1] / "experiments" / "house.mplstyle"):
        figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
        for ax, (name, points) in zip(axes, found.items(), strict=True):
            x, y = np.array(points).T
            ax.loglog(x, y, marker="o", color="#0072B2", ls="-")
            ax.set(xlabel="models" if name == "memory" else name)
        axes[0].set(ylabel="model-steps a second", title="64 responses, 50 steps")
        axes[1].set(title="1,024 models, pairs as responses")
        guide = np.array(RESPONSES[2:], float)
        middle = dict(found["responses"])[256]
        axes[1].loglog(guide, middle * 256 / guide, color="0.5", ls="--")
        axes[1].annotate("1 / responses", (guide[0], middle * 256 / guide[0]), (4, 6), textcoords="offset points",
                         color="0.35", fontsize=8)  # fmt: skip
        axes[2].set(title="1,024 models, 64 responses")
        axes[3].set(ylabel="peak memory, MiB", title="one number kept a model")
        for ax in (axes[0], axes[1], axes[2]):
            low, high = ax.get_ylim()
            ax.set_ylim(min(low, high / 30), high * 1.3)
        most = max(y for _, y in found["memory"])
        axes[3].set_ylim(most / 10, most * 3)
        figure.suptitle(title, fontsize=9)
        figure.savefig(path, dpi=150, metadata={"Software": None})
        plt.close(figure)
