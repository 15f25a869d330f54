"""A real language model on the toys' diagram: what of their account holds for 135 million parameters.

Model: SmolLM2-135M-Instruct (--model FILE.gguf for your own, tiny for a random one). No theorems of its own: those of
gradient entanglement are tried on it.
Question: does the one number that decides in a toy, kappa against the cosine, decide in a real model, for how many
steps, and do the toys say why? Figures: the shipped pairs on the diagram, whole model and last layer alone (diagram),
predicted against measured changes (first_order), which layers carry the inner product (layers), the trainings
(trainings), cheap stand-ins for the gradient (stand_ins), who receives the mass (mass). Look for: the law holding to
the last pair, and the last layer not knowing why.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.harness import Check, Experiment, Verdicts, agrees, main, measured
from experiments.real_model.findings import findings
from experiments.real_model.measure import MEND, STAGES, TRAININGS, runs_of
from experiments.real_model.setup import Setup
from sandbox.measures import Case
from theory.entanglement import geometry, models

Found = Mapping[str, Mapping[str, Any]]

BORROWED = {
    "entanglement": (
        geometry.entangled_changes_of_dpo,
        geometry.chosen_rises_iff_kappa_exceeds_cosine,
        geometry.rejected_falls_iff_kappa_is_below_inverse_cosine,
        geometry.case_four_is_empty,
        models.normalised_gradients_never_entangle,
    )
}


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """What the steps say of the statements, to first order."""
    runs, trained = found["pairs"], found["trainings"]
    slope, predicted = (runs[name][:, 0] / runs["rates"][:, :1] for name in ("measured", "predicted"))
    unit = np.abs(predicted).max(axis=1, keepdims=True)
    why = "shares of the larger change: the square of a step of 0.05 nats, and rounding in float32"
    yield measured(geometry.entangled_changes_of_dpo, slope / unit, predicted / unit, 0.03, why)
    kappa, cosine = runs["kappa"][TRAININGS.index("DPO")], runs["cosine"]
    sure = np.abs(predicted) > 0.06 * unit  # below, the tolerance of the changes decides
    why = "exact signs, where the predicted change exceeds what the measured one may be off"
    rises, falls = slope[:, 0] > 0, slope[:, 1] < 0
    yield agrees(geometry.chosen_rises_iff_kappa_exceeds_cosine, (cosine < kappa)[sure[:, 0]], rises[sure[:, 0]], why)
    yield agrees(
        geometry.rejected_falls_iff_kappa_is_below_inverse_cosine,
        (cosine < 1 / kappa)[sure[:, 1]], falls[sure[:, 1]], why,
    )  # fmt: skip
    both = sure.all(axis=1)
    fourth = (~rises & ~falls)[both]
    yield agrees(geometry.case_four_is_empty, np.zeros_like(fourth), fourth, why)
    rows = [i for i, (optimizer, name) in enumerate(runs_of(setup)) if (optimizer, name) == ("gradient descent", MEND)]
    if rows:  # the mend may be left out
        first = np.diff(trained["history"][rows][:, :, :2], axis=2)[:, :, 0].reshape(-1, 2)
        right = (first[:, 0] > 0) & (first[:, 1] < 0)
        why = "the first steps of the mend's descent"
        yield agrees(models.normalised_gradients_never_entangle, np.ones_like(right), right, why)


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption."""
    from experiments.real_model import draw

    says, runs = verdicts.line, found["pairs"]
    cases = runs["case"][0]
    counts = ", ".join(f"{np.sum(cases == case)} {case.name.lower().replace('_', ' ')}" for case in list(Case)[1:])
    yield "diagram", draw.diagram(setup, found), (
        f"{setup.model}: {len(cases)} pairs under DPO, {counts}. Left: gradients of all parameters. Right: the exact "
        "gradients of the last layer alone, unembedding and hidden states free, as in the toys.\n"
        + says(geometry.chosen_rises_iff_kappa_exceeds_cosine)
    )  # fmt: skip
    yield "first_order", draw.first_order(setup, found), (
        "Left: changes by one step of DPO, at two step sizes. Right: by how much they miss the prediction, "
        "markers as in the diagram.\n"
        + says(geometry.entangled_changes_of_dpo)
    )  # fmt: skip
    yield "layers", draw.layers(setup, found), (
        "Which parts of the model carry the inner product of a pair's two gradients: means over the pairs of a kind, "
        "shares of the product of the norms, so that they add up to the cosine."
    )  # fmt: skip
    yield "trainings", draw.trainings(setup, found), (
        f"{setup.steps} steps on one pair of each region, all parameters trained: change of the chosen (solid) and the "
        "rejected (dotted), logarithmic beyond one nat.\n" + says(models.normalised_gradients_never_entangle)
    )  # fmt: skip
    yield "stand_ins", draw.stand_ins(setup, found), (
        "How fast each pair's chosen falls under equal weights (above the line it falls), against what costs less than "
        "a gradient; signed square roots. CHES is 0 for every pair of single tokens."
    )  # fmt: skip
    rows = [row for row in findings(setup, found) if row["holds"] == "NO"]
    yield "mass", draw.mass(setup, found), (
        "Who receives the mass where the responses part, after DPO by descent: changes of probability of the chosen, "
        "the rejected and the largest gainers among the others. What fails on this model: "
        + ("; ".join(f"{row['on the real model']}: {row['measured']:.2g}" for row in rows) or "nothing") + "."
    )  # fmt: skip


EXPERIMENT = Experiment(
    "real_model", __doc__, Setup, STAGES, claims, draw, series=lambda found: found, borrowed=BORROWED, findings=findings
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
