"""Viable ranges to move: what every person could be told by a model that is almost as good, over epsilon."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments._gallery.movable import Axis, Mark, Movable, Panel, Reading, Slider
from experiments.multiplicity.measure import people_in_the_plane
from experiments.multiplicity.setup import Setup
from sandbox import multiplicity as m
from sandbox.runtime import root_key

SHARES = np.geomspace(0.001, 0.3, 31)  # epsilon as a share of the best model's loss
DELTAS = np.array([0.02, 0.05, 0.1, 0.2, 0.3])


def movable(setup: Setup) -> Movable:
    """Sliders for epsilon and delta; the range of every person's risk, and who can be moved against epsilon."""
    baseline = m.fit(*people_in_the_plane(root_key(0)))
    found = jax.lax.map(lambda share: m.ranges(baseline, share * baseline.loss), jnp.asarray(SHARES))
    moved = np.stack([
        np.asarray(jax.vmap(lambda r, d=d: m.ambiguity(baseline, r, d))(found)) for d in DELTAS
    ], axis=1).astype(bool)  # fmt: skip
    order = np.argsort(baseline.risk)
    risk, low, high = (np.asarray(v)[..., order] for v in (
        baseline.risk, jax.nn.sigmoid(found.low), jax.nn.sigmoid(found.high)))  # fmt: skip
    flips = (low <= 0.5) & (high >= 0.5)
    moved = moved[..., order]
    people = np.arange(1, len(risk) + 1)
    places = np.broadcast_to(people, low.shape)
    ambiguity, flipped, width = moved.mean(axis=-1), flips.mean(axis=-1), (high - low).mean(axis=-1)

    def bars(here: np.ndarray, label: str, colour: str) -> Mark:
        """The ranges of the people in ``here`` (shares, people)."""
        x, y, top = ([row[k].tolist() for row, k in zip(v, here, strict=True)] for v in (places, low, high))
        return Mark("bars", x, y, (0,), top, label, colour, width=3)

    both = (0, 1)
    ranges = Panel(
        "The range of every person",
        "Risks of sixty people in order: a dot is what the best model says, a bar what some model within epsilon "
        "says. Bars that cross one half can change the label.",
        Axis("people, by their risk under the best model", 0, len(risk) + 1, (1, 20, 40, 60)),
        Axis("risk", 0, 1, (0, 0.25, 0.5, 0.75, 1)),
        [
            Mark("line", [0, len(risk) + 1], [0.5, 0.5], colour="grey", width=1, dash="2 4"),
            bars(~flips, "range of risks", "blue"),
            bars(flips, "… in which the label changes", "red"),
            Mark("dots", people, risk, label="best model", colour="ink", width=5),
        ],
    )
    here = SHARES[:, None]
    who = Panel(
        "Who can be moved",
        "Against epsilon: the share of people whose risk some model moves by delta (ambiguity), and the share whose "
        "label can change, with marks at the chosen epsilon.",
        Axis("ε, as a share of the best model's loss", SHARES[0], SHARES[-1], (0.001, 0.01, 0.1), log=True,
             names=("0.1 %", "1 %", "10 %")),
        Axis("share of people", 0, 1.02, (0, 0.25, 0.5, 0.75, 1)),
        [
            Mark("line", np.repeat(here, 2, axis=1), [0, 1.02], (0,), colour="grey", width=1.5),
            Mark("line", SHARES, ambiguity.T, (1,), label="risk moved by δ: ambiguity", colour="blue", width=3),
            Mark("line", SHARES, flipped, label="label can change", colour="red", dash="7 4", width=3),
            Mark("dots", np.repeat(here[:, None], len(DELTAS), axis=1), ambiguity[..., None], both, colour="blue",
                 width=12),
            Mark("dots", here, flipped[:, None], (0,), colour="red", width=12),
        ],
    )  # fmt: skip
    return Movable(
        "What could you be told by a model that is almost as good?",
        "Sixty people with two features, a logistic model of their labels, and all models whose loss exceeds the best "
        "by at most ε. Each bar is solved for, not sampled. See how little loss it takes until somebody's label hangs "
        "on which of two equally good models one happened to fit.",
        [Slider("ε, as a share of the best model's loss", SHARES, [f"{s:.2%}" for s in SHARES], start=15),
         Slider("δ, how far a risk must move to count", DELTAS, start=2)],
        [ranges, who],
        [
            Reading("risk moved by δ", ambiguity, both, "{:.0%} of people"),
            Reading("label can change", flipped, (0,), "{:.0%} of people"),
            Reading("mean width of a range", width, (0,), "{:.3f}"),
        ],
    )  # fmt: skip
