"""The landscape of the loss to move: where it is least, over the prior and the separation of two classes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments._gallery.movable import Axis, Mark, Movable, Panel, Reading, Slider
from experiments.h_calibration.measure import PHASE_TEMPERATURES, population_losses
from experiments.h_calibration.setup import Setup

PRIORS, SEPARATIONS = np.linspace(0.02, 0.5, 25), np.linspace(0.5, 4, 15)
SHOWN = slice(None, None, 3)  # temperatures that are drawn; the least is looked for among all


@jax.jit
def losses() -> Array:
    """Both losses (priors, separations, temperatures, 2), without noise: leaving one class out, and pooled."""
    grid = jnp.asarray(PHASE_TEMPERATURES)

    def of(prior: Array, separation: Array) -> Array:
        return jax.vmap(lambda t: jnp.stack(population_losses(t, prior, separation)))(grid)

    return jax.lax.map(lambda prior: jax.vmap(partial(of, prior))(jnp.asarray(SEPARATIONS)), jnp.asarray(PRIORS))


def movable(setup: Setup) -> Movable:
    """Sliders for prior and separation; both losses against the temperature, and the best temperature over priors."""
    found = np.asarray(losses())
    at = PHASE_TEMPERATURES[np.argmin(found, axis=2)]  # (priors, separations, 2)
    least = found.min(axis=2)
    both = (0, 1)
    grid = PHASE_TEMPERATURES[SHOWN]
    ticks = (0.5, 1, 2, 4)
    landscape = Panel(
        "The loss against the temperature",
        "The h-calibration loss of predictions at temperature T, where 1 is the truth: pooled over all events, and "
        "with each class left out in turn. A mark stands where each is least.",
        Axis("temperature T (the truth: 1)", 0.5, 4, ticks, log=True),
        Axis("population loss (of a probability)", 0, 0.5, (0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        [
            Mark("line", [1, 1], [0, 1], colour="grey", width=1.5),
            Mark("line", grid, found[:, :, SHOWN, 1], both, label="pooled", colour="blue", width=3),
            Mark("line", grid, found[:, :, SHOWN, 0], both, label="leaving one class out", colour="red", dash="7 4",
                 width=3),
            Mark("dots", at[..., 1:], least[..., 1:], both, colour="blue", width=13),
            Mark("dots", at[..., :1], least[..., :1], both, colour="red", width=13),
        ],
    )  # fmt: skip
    across = np.moveaxis(at, 0, 1)  # (separations, priors, 2): the line moves with the separation alone
    marked = np.broadcast_to(PRIORS[:, None, None], (*at.shape[:2], 1))
    best = Panel(
        "The temperature that each calls best",
        "The temperature of the least loss against the prior of the rarer class: pooled it is always 1, leaving one "
        "class out it moves away as the classes differ.",
        Axis("prior of the rarer class", 0, 0.5, (0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        Axis("T of the least loss", 0.5, 4, ticks, log=True),
        [
            Mark("line", [0, 0.5], [1, 1], colour="grey", width=1.5),
            Mark("line", PRIORS, across[..., 1], (1,), label="pooled", colour="blue", width=3),
            Mark("line", PRIORS, across[..., 0], (1,), label="leaving one class out", colour="red", dash="7 4",
                 width=3),
            Mark("dots", marked, at[..., 1:], both, colour="blue", width=13),
            Mark("dots", marked, at[..., :1], both, colour="red", width=13),
        ],
    )  # fmt: skip
    return Movable(
        "Which loss has its minimum at the truth?",
        "Two Gaussian classes whose posteriors are known exactly, so that T = 1 is the truth; losses in the population "
        "without noise. Make one class rare: the pooled loss stays, the loss that leaves one class out calls another "
        "temperature best.",
        [Slider("prior of the rarer class", PRIORS, [f"{x:.2f}" for x in PRIORS], start=6),
         Slider("separation of the classes (standard deviations)", SEPARATIONS, start=8)],
        [landscape, best],
        [
            Reading("leaving one class out is least at T", at[..., 0], both),
            Reading("its loss at the truth", found[:, :, int(np.argmin(np.abs(PHASE_TEMPERATURES - 1))), 0], both),
            Reading("pooled is least at T", at[..., 1], both),
        ],
    )  # fmt: skip
