"""The phase diagram to move: from any kappa and cosine the path of a training, and what it does to both responses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments._gallery.movable import Axis, Mark, Movable, Panel, Reading, Slider, Word
from experiments.entanglement.measure import RandomPair, flex_run, response_log_probs, suffix_task
from experiments.entanglement.setup import Setup
from sandbox.measures import Case, case, gradient_products, kappa, safe_interval

SUFFIX, ERROR = 12, 0.5  # shared tokens, and how probable it is that one misses: cosines up to 0.8 are within reach
KAPPAS, COSINES = np.geomspace(0.05, 20, 25), np.linspace(0, 0.8, 17)
STEPS, EVERY, STRIDE = 400, 25, 5  # steps, five times as long as those of the followed runs
PLANE = (0.04, 25)  # of kappa
WORDS = {Case.IDEAL: "ideal: chosen up, rejected down", Case.BOTH_FALL: "both fall", Case.BOTH_RISE: "both rise"}


class Path(NamedTuple):
    """kappa, cosine and changes of log-probability of the chosen and the rejected, (kappas, cosines, steps)."""

    kappa: Array
    cosine: Array
    chosen: Array
    rejected: Array


@partial(jax.jit, static_argnums=0)
def paths(setup: Setup) -> Path:
    """Flex-DPO from every point of the grid, on a contrast token and a shared suffix."""
    longer = replace(setup, stride=STRIDE * setup.stride)

    def pair(overlap: Any, ratio: Any) -> RandomPair:
        theta, features, tokens = suffix_task(SUFFIX, overlap, ERROR, ERROR)
        return RandomPair(theta, features, tokens, jnp.ones_like(tokens, bool), ratio)

    def products(theta: Array, *pair: Array) -> Any:
        return gradient_products(*jax.jacrev(response_log_probs)(theta, *pair).reshape(2, -1))

    apart, same = (products(*pair(overlap, 1.0)[:-1]) for overlap in (0.0, 1.0))
    norms = apart.norm_chosen * apart.norm_rejected  # whatever the overlap; the inner product is affine in it
    overlaps = (jnp.asarray(COSINES) * norms - apart.inner) / (same.inner - apart.inner)

    def run(ratio: Array, overlap: Array) -> Path:
        begun = pair(overlap, ratio)
        kept = {"record": lambda *now: (products(*now), response_log_probs(*now)), "every": EVERY}
        run, _, betas = flex_run(longer, begun, STEPS, args=begun[1:-1], **kept)
        met, log_probs = run.history
        change = log_probs - log_probs[:1]
        return Path(kappa(*betas, met.norm_chosen, met.norm_rejected), met.cosine, change[:, 0], change[:, 1])

    return jax.vmap(lambda ratio: jax.vmap(partial(run, ratio))(overlaps))(jnp.asarray(KAPPAS))


def movable(setup: Setup) -> Movable:
    """Sliders for kappa and the cosine; the plane with the path from there, and both log-probabilities."""
    found = jax.tree.map(np.asarray, paths(setup))
    both = (0, 1)
    steps = EVERY * np.arange(found.kappa.shape[-1])
    cosines = np.linspace(0.02, 1, 99)
    low, high = (np.asarray(end) for end in safe_interval(1.0, 1.0, cosines))  # in kappa, at unit gradients
    begun = np.asarray(case(found.kappa[..., 0], found.cosine[..., 0]))
    ends = np.sign(found.chosen[..., -1]), np.sign(found.rejected[..., -1])
    ended = np.where(ends[0] > 0, np.where(ends[1] > 0, Case.BOTH_RISE, Case.IDEAL), Case.BOTH_FALL)
    reach = 4 * float(np.ceil(np.abs([found.chosen, found.rejected]).max() / 4))
    plane = Panel(
        "Where the training goes",
        "The plane of kappa and the cosine of the two gradients: both responses fall on the left above the line "
        "cosine = kappa, both rise on the right above 1 / kappa, elsewhere the chosen rises and the rejected falls. A "
        "path leads from the chosen point through the training.",
        Axis("κ = d_w |g_w| / d_l |g_l|", *PLANE, (0.05, 0.2, 1, 5, 20), log=True),
        Axis("cosine of the two gradients", -0.15, 1, (0, 0.25, 0.5, 0.75, 1)),
        [
            Mark("area", np.append(low, [PLANE[0], PLANE[0]]), np.append(cosines, [1, cosines[0]]), colour="red"),
            Mark("area", np.append(high, [PLANE[1], PLANE[1]]), np.append(cosines, [1, cosines[0]]), colour="orange"),
            Mark("area", np.concatenate([low, high[::-1], PLANE[::-1]]),
                 np.concatenate([cosines, cosines[::-1], [-0.15, -0.15]]), colour="blue"),
            Mark("line", np.append(low, high[::-1]), np.append(cosines, cosines[::-1])),
            Mark("line", found.kappa, found.cosine, both, label=f"{STEPS} steps of Flex-DPO", colour="green", width=3),
            Mark("dots", found.kappa[..., :1], found.cosine[..., :1], both, label="start", colour="ink", width=13),
            Mark("dots", found.kappa[..., -1:], found.cosine[..., -1:], both, label="end", colour="green", width=9),
        ],
        [Word(0.15, 0.9, "both fall", "red"), Word(6.5, 0.9, "both rise", "orange"), Word(1, 0.12, "ideal", "blue")],
    )  # fmt: skip
    log_probs = Panel(
        "What it does to the two responses",
        "Change of the log-probabilities of the chosen and of the rejected response over the steps of training.",
        Axis("step of Flex-DPO", 0, STEPS, (0, 100, 200, 300, 400)),
        Axis("change of log-probability (nats)", -reach, reach, (-reach, -reach / 2, 0, reach / 2, reach)),
        [
            Mark("line", [0, STEPS], [0, 0], colour="grey", width=1),
            Mark("line", steps, found.chosen, both, label="chosen", colour="blue", width=3),
            Mark("line", steps, found.rejected, both, label="rejected", colour="red", dash="7 4", width=3),
        ],
    )
    return Movable(
        "When does the preferred response fall?",
        f"Two responses that differ in one token and share {SUFFIX} more. Choose how hard a step pushes the chosen "
        "against the rejected (κ) and how much their gradients share (the cosine). The theorem says in which region "
        "both move together; the path is a training. Near a cosine of 1 only κ = 1 is safe. Start just inside the "
        "blue: does the training stay there?",
        [Slider("κ at the start", KAPPAS, start=7), Slider("cosine at the start", COSINES, start=12)],
        [plane, log_probs],
        [
            Reading("first step", _said(begun), both),
            Reading(f"after {STEPS} steps", _said(ended), both),
            Reading("chosen", found.chosen[..., -1], both, "{:+.2f} nats"),
            Reading("rejected", found.rejected[..., -1], both, "{:+.2f} nats"),
        ],
    )


def _said(cases: np.ndarray) -> list[list[str]]:
    return [[WORDS.get(Case(c), "nothing moves") for c in row] for row in cases.tolist()]
