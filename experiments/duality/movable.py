"""Order first, to move: from a table to a network that shares parameters, step by step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments._gallery.movable import Axis, Mark, Movable, Panel, Reading, Slider
from experiments.duality.measure import divergence
from experiments.duality.network import OUTPUTS, recorded_steps, scores, shared_run
from experiments.duality.setup import Setup
from sandbox.runtime import root_key

RHOS = np.linspace(0, 1, 21)
LAST = 512
SHOWN = 3  # the context whose law is drawn


class Found(NamedTuple):
    """The law (8,) that is drawn, its model (rhos, steps, 8); KL over its start and pairs in order (rhos, steps)."""

    law: Array
    model: Array
    left: Array
    pairs: Array


@jax.jit
def runs(key: Array) -> Found:
    """One world under every degree of sharing, looked at at ``recorded_steps``."""
    at = jnp.asarray(recorded_steps(LAST)) - 1

    def of(rho: Array) -> Found:
        q, path = shared_run(key, rho, LAST)
        found = scores(path[at], q)
        start = jnp.mean(divergence(q, jnp.full_like(q, 1 / OUTPUTS)))
        model = jax.nn.softmax(path[at, SHOWN])
        order = jnp.argsort(-q[SHOWN])
        return Found(q[SHOWN][order], model[:, order], found["kl"] / start, found["pairs"])

    return jax.lax.map(of, jnp.asarray(RHOS))


def movable(setup: Setup) -> Movable:
    """Sliders for the sharing and the step; order and divergence over training, and one law with its model."""
    found = jax.tree.map(np.asarray, runs(root_key(0)))
    steps, both = recorded_steps(LAST), (0, 1)
    here = steps[:, None]
    law, rank = found.law[0], np.arange(1, OUTPUTS + 1)
    marked = np.broadcast_to(here, (len(RHOS), *here.shape))  # whatever the sharing
    over = Panel(
        "Order and divergence over training",
        "Against the step of descent: the share of pairs of outputs whose utilities are in the order of the data law, "
        "and the divergence that is left as a share of its start, with marks at the chosen step.",
        Axis("step of descent", 1, LAST, (1, 4, 16, 64, 256), log=True),
        Axis("share of pairs; share of KL", 0, 1.05, (0, 0.25, 0.5, 0.75, 1)),
        [
            Mark("line", np.repeat(here, 2, axis=1), [0, 1.05], (1,), colour="grey", width=1.5),
            Mark("line", steps, found.pairs, (0,), label="pairs in order", colour="blue", width=3),
            Mark("line", steps, found.left, (0,), label="KL left", colour="red", dash="7 4", width=3),
            Mark("dots", marked, found.pairs[..., None], both, colour="blue", width=12),
            Mark("dots", marked, found.left[..., None], both, colour="red", width=12),
        ],
    )
    top = float(np.ceil(10 * max(law.max(), found.model.max())) / 10)
    one = Panel(
        "One law, and the model at that step",
        "Probabilities of eight outputs, from the likeliest to the rarest of the data: bars are the data law, dots the "
        "model at the chosen step. In order, the dots fall from left to right.",
        Axis("output, by its rank in the data", 0.5, OUTPUTS + 0.5, rank.tolist()),
        Axis("probability", 0, top, np.round(np.arange(0, top + 0.05, 0.1), 1).tolist()),
        [
            Mark("bars", rank, np.zeros(OUTPUTS), top=law, label="data law", colour="grey", width=22),
            Mark("line", rank, found.model, both, colour="blue", width=1.5),
            Mark("dots", rank, found.model, both, label="softmax of the utilities", colour="blue", width=12),
        ],
    )
    return Movable(
        "Order first, numbers later",
        "Utilities of 16 contexts with 8 outputs each, trained from a uniform start. Without sharing (ρ = 0, a table) "
        "every pair is in order after the first step, long before the numbers are right. Let outputs share parameters, "
        "and order itself becomes something that has to be learnt; at ρ = 1 some of it never is.",
        [Slider("sharing ρ, from a table to a shared kernel", RHOS, [f"{x:.2f}" for x in RHOS]),
         Slider("step of descent", steps, [f"{n:,}" for n in steps.tolist()], start=4)],
        [over, one],
        [
            Reading("pairs in order", found.pairs, both, "{:.1%}"),
            Reading("KL left", found.left, both, "{:.1%}"),
        ],
    )  # fmt: skip
