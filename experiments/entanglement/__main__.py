"""Gradient entanglement: why a margin loss can lower the response that it prefers.

Paper: Yuan et al., A Common Pitfall of Margin-based Language Model Alignment: Gradient Entanglement, ICLR 2025.
Question: when does a step that widens the margin raise the chosen response and lower the rejected one, and when do both
move the same way? Figures: log-probabilities along DPO for three suffix lengths (trajectories), the cosine of the
gradients (cosines), token by token (tokens); what is not in the paper: the phase diagram with every loss's path
(phase_diagram), where runs end that begin in each of its parts (followed), the suffix length beyond which the chosen
falls (n_star), what a finite step loses against first order (gap), and the mends (mends). Look for: no dot on the wrong
side of a boundary.

Your own pairs: --pairs FILE.jsonl; gradients of your own model: --gradients FILE.npz.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.entanglement import user
from experiments.entanglement.measure import STAGES
from experiments.entanglement.movable import movable
from experiments.entanglement.sentiment import SUFFIXES
from experiments.entanglement.setup import Setup
from experiments.harness import Check, Experiment, Verdicts, agrees, along, constant, drift, main, measured, refuted
from sandbox.measures import Case
from sandbox.tolerances import Tolerance, identity
from theory.entanglement import geometry, models, tokens

Found = Mapping[str, Mapping[str, Any]]


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """What the simulations say of the statements."""
    yield from _over_the_plane(setup, found["phase diagram"])
    yield from _suffixes(setup, found["suffix lengths"], found["n* map"])

    gap = found["gap to first order"]
    yield measured(geometry.first_order_is_an_upper_bound, gap["exact"], gap["first_order"], identity())
    yield measured(geometry.slack_is_at_most_hoeffding, gap["linear"], gap["hoeffding"], identity())

    flow = found["tabular flow"]
    p, times = jnp.exp(flow["log_probs"][0]), flow["time"][1:]
    closed = jax.vmap(lambda t: tokens.path_of_the_chosen(p, 0, 1, setup.beta, t).rhs)(times)
    rounding = "Runge-Kutta of fourth order, 16 steps between two times"
    yield measured(tokens.path_of_the_chosen, flow["log_probs"][1:, 0], closed, 1e-6, rounding)
    z0, z = flow["log_probs"][0], flow["log_probs"]  # shifted logits: all that the claim contains are differences
    pair = {"w": 0, "l": 1, "beta": setup.beta}
    yield drift(tokens.clock_of_dpo, flow["time"], tolerance=1e-6, why=rounding, z=z, z0=constant(z0), **pair)
    visited = {"p": np.exp(z), "w": 0, "l": 1}
    for theorem in (tokens.chosen_rises_at_every_step, tokens.rejected_falls_at_every_step):
        yield along(theorem, **visited, t=1.0)
    for theorem in (tokens.factor_two, tokens.factor_two_of_the_rejected, tokens.worst_cosine_of_one_token):
        yield along(theorem, **visited)


def _over_the_plane(setup: Setup, runs: Mapping[str, Any]) -> Iterator[Check]:
    """One small step of each of many random pairs."""
    clear = 10 * setup.step**2  # below this prediction the O(eta^2) term decides; steps have the length eta
    why = "exact signs, where the prediction exceeds the O(eta^2) term tenfold"
    sure = np.abs(runs["predicted_chosen"]) > clear, np.abs(runs["predicted_rejected"]) > clear
    kappa, cosine = runs["kappa"], runs["cosine"]
    rises, falls = runs["exact_chosen"] > 0, runs["exact_rejected"] < 0
    yield agrees(geometry.chosen_rises_iff_kappa_exceeds_cosine, (cosine < kappa)[sure[0]], rises[sure[0]], why)
    yield agrees(
        geometry.rejected_falls_iff_kappa_is_below_inverse_cosine, (cosine < 1 / kappa)[sure[1]], falls[sure[1]], why
    )
    both = sure[0] & sure[1]
    fourth = (runs["outcome"] == Case.UNDEFINED)[both]
    yield agrees(geometry.case_four_is_empty, np.zeros_like(fourth), fourth, why)
    kept = {name: runs[name] for name in ("g_w", "g_l", "d_w", "d_l")}
    for theorem in (
        geometry.chosen_rises_iff_inner_is_small,
        geometry.rejected_falls_iff_inner_is_small,
        geometry.weighted_margin_grows,
    ):
        yield along(theorem, **kept)
    yield refuted(geometry.margin_grows_for_every_loss, **kept)
    yield along(models.normalised_gradients_never_entangle, g_w=runs["g_w"], g_l=runs["g_l"])
    yield along(models.calibrated_weights_normalise, **kept)


def _suffixes(setup: Setup, lengths: Mapping[str, Any], tried: Mapping[str, Any]) -> Iterator[Check]:
    """A contrast token and a shared suffix."""
    a, b, c = lengths["a"], lengths["b"], lengths["c"]
    change = np.stack([lengths["change_chosen"], lengths["change_rejected"]])
    small = Tolerance(1e-5, 1e-5, "a step of 1e-8: rounding / step is 1e-6, the O(eta) term 1e-7")
    yield measured(geometry.entangled_changes_of_dpo, change, np.stack([a - c, c - b]), small)
    yield measured(tokens.suffix_margin_of_the_rejected, c, b, identity())
    inside = np.isfinite(tried["tried_n_star"])
    yield agrees(
        tokens.chosen_falls_beyond_n_star,
        (tried["tried_length"] > tried["tried_n_star"])[inside],
        (tried["tried_change"] < 0)[inside],
    )


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.entanglement import draw

    says = verdicts.line
    final = found["sentiment task"]["chosen"][:, :, -1].mean(axis=1)
    yield (
        "trajectories",
        draw.trajectories(setup, found),
        (
            "Mean log-probabilities along DPO on a sentiment task; thin lines: seeds. The more tokens both responses "
            f"share after the label, the more the chosen one falls (mean at the end: "
            f"{', '.join(f'{x:+.2f}' for x in final[: len(SUFFIXES)])} nats).\n"
            + says(geometry.entangled_changes_of_dpo)
        ),
    )
    yield (
        "cosines",
        draw.cosines(setup, found),
        (
            "The same runs: mean cosine of a pair's gradients, bands from the lowest to the highest seed.\n"
            + says(geometry.chosen_rises_iff_kappa_exceeds_cosine)
        ),
    )
    yield (
        "tokens",
        draw.token_map(setup, found),
        (
            "Labels push apart, equal tokens pull together. In the log-linear policy positions meet only where "
            "their features overlap; in the network all positions meet.\n" + says(models.every_position_pair_counts)
        ),
    )
    yield "phase_diagram", draw.phase_diagram(setup, found), (
        "Each dot: one small step of a random pair of responses, coloured by what really happened; circles: where each "
        "loss's training ends, from one starting point (a loss past its kink or target leaves the plane; letters of "
        "paths that end together hang above the place).\n"
        + says(geometry.chosen_rises_iff_kappa_exceeds_cosine) + "\n"
        + says(geometry.rejected_falls_iff_kappa_is_below_inverse_cosine) + "\n" + says(geometry.case_four_is_empty)
    )  # fmt: skip
    runs = found["followed runs"]
    stay = [
        np.mean(runs["end"][runs["start"] == case] == case) for case in (Case.IDEAL, Case.BOTH_FALL, Case.BOTH_RISE)
    ]
    yield "followed", draw.followed(setup, found), (
        f"Random pairs followed through {setup.run_steps:,} steps of Flex-DPO, whose two betas keep the ratio of the "
        "weights. What first order says of the first step is not what the run ends with: of the runs that begin as "
        f"ideal, both fall and both rise, {stay[0]:.0%}, {stay[1]:.0%} and {stay[2]:.0%} end so.\n"
        + says(geometry.chosen_rises_iff_kappa_exceeds_cosine)
    )  # fmt: skip
    yield "n_star", draw.n_star(setup, found), (
        "Left: the suffix length beyond which the chosen falls under equal weights. Right: random suffixes, tried.\n"
        + says(tokens.chosen_falls_beyond_n_star) + "\n" + says(tokens.suffix_is_worst_at_intermediate_sft)
    )  # fmt: skip
    yield "gap", draw.gap(setup, found), (
        "How far the exact change of the chosen log-probability is from first order.\n"
        + says(geometry.first_order_is_an_upper_bound) + "\n" + says(geometry.slack_is_at_most_hoeffding)
    )  # fmt: skip
    yield "mends", draw.mends(setup, found), (
        f"Six shared tokens, {setup.dpo_steps} steps; dots are seeds. Masking does not fully mend a network, whose "
        f"layers are shared; normalising does, slowly.\n"
        + says(models.normalised_gradients_never_entangle) + "\n" + says(models.mask_leaves_the_contrast)
    )  # fmt: skip


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that the figures show, the phase diagram's dots as counts."""
    runs, followed = found["phase diagram"], found["followed runs"]
    counts = {"phase diagram", "followed runs"}
    kept = {stage: dict(arrays) for stage, arrays in found.items() if stage not in counts}
    kept["n* map"] = {name: x for name, x in kept["n* map"].items() if name.startswith("tried")}
    kept["phase diagram"] = {case.name.lower(): int(np.sum(runs["outcome"] == case)) for case in Case}
    kept["followed runs"] = {
        f"{a.name.lower()} to {b.name.lower()}": int(np.sum((followed["start"] == a) & (followed["end"] == b)))
        for a in Case
        for b in Case
    }
    return kept


EXPERIMENT = Experiment(
    "entanglement", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report,
    movable=movable,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
