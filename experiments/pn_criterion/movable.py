"""The p-n diagram to move: how many draws a model of p statistics needs, over alpha and the misspecification."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments._gallery.movable import Axis, Mark, Movable, Panel, Reading, Slider, Word
from experiments.pn_criterion.setup import Setup
from experiments.pn_criterion.softmax import MOST, coefficients, expansion
from sandbox.expfam import criterion, terms

ALPHAS, GAMMAS = np.geomspace(0.01, 0.2, 27), np.linspace(0, 1.5, 13)
DRAWS = 10, 10_000  # that are shown
SHOWN = (1, 4, 8, 11)  # statistics whose risk is drawn
LOOKS = (("blue", ""), ("red", "7 4"), ("green", "9 4 2 4"), ("pink", "2 4"))


def movable(setup: Setup) -> Movable:
    """Sliders for alpha and gamma; the plane of p and n with both orders of n*, and the risks that n* comes from."""
    over = jax.jit(jax.vmap(jax.vmap(expansion, in_axes=(0, None)), in_axes=(None, 0)))
    a, b = (np.asarray(x) for x in coefficients(over(jnp.arange(1, MOST + 1), jnp.asarray(GAMMAS))).values())
    both, allowed = (0, 1), np.array([criterion.allowed_risk(float(alpha)) for alpha in ALPHAS])
    of_both, risk = terms.Expansion(a[None], b[None]), allowed[:, None, None]
    second = np.asarray(criterion.draws_needed(of_both, risk))  # (alphas, gammas, p)
    first = np.asarray(criterion.draws_needed_first(of_both, risk))
    p = np.arange(1, MOST + 1)
    edge = np.full((*second.shape[:2], 2), DRAWS[1])
    n = np.geomspace(*DRAWS, 41)
    risks = terms.Expansion(a[..., None], b[..., None]).at(n)  # (gammas, p, n)
    ticks = (10, 100, 1000, 10_000)
    draws = Axis("draws n", *DRAWS, ticks, log=True, names=("10", "100", "1,000", "10,000"))
    plane = Panel(
        "What n draws allow",
        "Draws n against statistics p: right of the line n* of p the criterion accepts a model, left of it it rejects.",
        draws,
        Axis("statistics p of the model", 0.5, 11.5, (2, 4, 6, 8, 10)),
        [
            Mark("area", np.concatenate([second[..., :1], second, second[..., -1:], edge], axis=2),
                 [0.5, *p, MOST + 0.5, MOST + 0.5, 0.5], both, colour="blue"),
            Mark("line", first, p, both, label="first order alone, a / 8α²", colour="orange", dash="7 4", width=2.5),
            Mark("line", second, p, both, label="n*, both orders", colour="blue", width=3),
            Mark("dots", second, p, both, colour="blue", width=9),
        ],
        [Word(DRAWS[0] * 1.25, 10.9, "rejected", "grey", "start"), Word(DRAWS[1] * 0.8, 1, "accepted", "blue", "end")],
    )  # fmt: skip
    high, low = 1.0, 1e-4
    curves = Panel(
        "Where it comes from: the risk against 8α²",
        "Mean risk of the fit against draws for models of some sizes; n* is where a curve crosses the allowed risk.",
        draws,
        Axis("risk a/n + b/n² (nats)", low, high, (0.001, 0.01, 0.1, 1), log=True),
        [
            *(Mark("line", n, risks[:, k - 1], (1,), label=f"p = {k}", colour=colour, dash=dash)
              for k, (colour, dash) in zip(SHOWN, LOOKS, strict=True)),
            Mark("line", DRAWS, np.repeat(allowed[:, None], 2, axis=1), (0,), label="allowed, 8α²", width=2.5),
            Mark("dots", second[..., np.array(SHOWN) - 1], np.broadcast_to(
                risk, (*second.shape[:2], len(SHOWN))), both, label="n*", width=11),
        ],
    )  # fmt: skip
    return Movable(
        "Are there draws enough?",
        "A softmax model with p statistics of twelve symbols. It is settled when nobody could tell its fit from its "
        "target: the Bayes error of telling them apart stays above 1/2 − α if the risk stays below 8α². The line n* "
        "moves with 1/α²; misspecification (γ) moves single models.",
        [Slider("α, how far below 1/2 the Bayes error may fall", ALPHAS, start=14),
         Slider("misspecification γ (nats)", GAMMAS, [f"{g:.3f}" for g in GAMMAS], start=8)],
        [plane, curves],
        [
            Reading("allowed risk", allowed, (0,), "{:.2g} nats"),
            *(Reading(f"n* at p = {k}", np.ceil(second[..., k - 1]), both, "{:,.0f} draws") for k in (1, 4, 8)),
        ],
    )  # fmt: skip
