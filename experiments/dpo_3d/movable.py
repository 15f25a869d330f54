"""The three D's to move: DPO from four starts, at any beta."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments._gallery.movable import Axis, Mark, Movable, Panel, Reading, Slider
from experiments.dpo_3d.setup import SCENARIOS, Setup
from experiments.dpo_3d.table import L, W, closed_form, laws, unseen_mass
from sandbox import tables
from sandbox.dynamics import log_times
from sandbox.measures import decay_exponent, suppression_share

BETAS = np.geomspace(0.01, 1, 41)
LAST, TIMES = 1e4, 49
DECADES = 1, 10, 100, 1000, 10_000
AT = (10.0, 100.0, 1000.0)  # times at which the margin is drawn against beta


@jax.jit
def paths() -> Array:
    """Log-probabilities (scenarios, betas, times, V) in closed form."""
    start, times = jnp.log(jnp.asarray(laws())), jnp.asarray(log_times(LAST, TIMES))
    return jax.vmap(
        lambda z: jax.vmap(lambda beta: jax.vmap(partial(closed_form, z, beta))(times))(jnp.asarray(BETAS))
    )(start)


def movable(setup: Setup) -> Movable:
    """Sliders for the scenario and beta; log-probabilities over time, and the margin against beta."""
    log_probs, times = paths(), log_times(LAST, TIMES)
    unseen = jnp.log(unseen_mass(log_probs))
    shown = 1 + times
    moved = np.asarray(log_probs - log_probs[:, :, :1])
    share = suppression_share(moved[..., -1, W], moved[..., -1, L])
    exponent = np.asarray(decay_exponent(times, jnp.moveaxis(log_probs[..., L], -1, 0)))
    rise = np.exp(np.asarray(jnp.max(unseen, axis=-1) - unseen[..., 0]))
    margins = np.asarray(tables.dpo_margin(jnp.asarray(AT)[:, None], beta=jnp.asarray(BETAS)[None]))
    looks = (("sky", "2 4"), ("blue", "7 4"), ("ink", ""))
    beta = BETAS[:, None]
    path = Panel(
        "What happens to the three",
        "Log-probabilities of the chosen, the rejected and all unseen responses together over the time of training.",
        Axis(
            "1 + time (learning rate × steps)", 1, 1 + LAST, DECADES, log=True, names=("1", "10", "100", "1,000", "10⁴")
        ),
        Axis("log-probability (nats)", -14, 0.6, (-12, -8, -4, 0)),
        [
            Mark("line", shown, log_probs[..., W], (0, 1), label="chosen", colour="blue", width=3),
            Mark("line", shown, log_probs[..., L], (0, 1), label="rejected", colour="red", dash="7 4", width=3),
            Mark("line", shown, unseen, (0, 1), label="all unseen together", colour="green", dash="9 4 2 4", width=3),
        ],
    )
    margin = Panel(
        "The margin against beta",
        "The margin that DPO has gained at three times, against beta, with a mark at the chosen beta. It is largest "
        "where beta times the margin is 2.",
        Axis("β (1/nat)", BETAS[0], BETAS[-1], (0.01, 0.1, 1), log=True),
        Axis("margin g (nats)", 0.1, 200, (1, 10, 100), log=True),
        [
            Mark("line", BETAS, 2 / BETAS, colour="grey", width=1.5, label="β g = 2: the crest"),
            *(Mark("line", BETAS, margins[k], colour=looks[k][0], dash=looks[k][1], label=f"time {at:,.0f}")
              for k, at in enumerate(AT)),
            Mark("line", np.repeat(beta, 2, axis=1), [0.1, 200], (1,), colour="orange", width=1.5),
            Mark("dots", np.repeat(beta, 3, axis=1), margins.T, (1,), colour="orange", width=11, label="your β"),
        ],
    )  # fmt: skip
    both = (0, 1)
    return Movable(
        "The three D's over beta",
        "DPO in a table of ten responses, in closed form. Choose where the training starts and how strongly it is held "
        "to its reference (β). Drastic drop: the rejected falls like a power of time. Degradation: the margin is "
        "gained by suppressing it. Dispersion: what it loses goes to responses that nobody ranked. Try the "
        "chosen off-policy.",
        [
            Slider("start", range(len(SCENARIOS)), [s.title for s in SCENARIOS.values()], start=1),
            Slider("β (1/nat)", BETAS, start=20),
        ],
        [path, margin],
        [
            Reading("drop of the rejected in the last decade, like time to the power", -exponent, both, "{:.2f}"),
            Reading("share of the margin gained by suppression", share, both, "{:.0%}"),
            Reading("largest unseen mass, over that at first", rise, both, "{:.2f} times"),
        ],
    )
