"""h-calibration: what does a loss of sorted windows measure, when is the truth its minimum, and does it recalibrate?

Paper: Huang et al., h-calibration: Rethinking Classifier Recalibration with Probabilistic Error-Bounded Objective, IEEE
TPAMI 2025.
Question: predicted minus observed, averaged over neighbours in the order of all events; what is that at the truth, what
can it not see, which form of it is biased, and what does a map gain that is fitted by it? Figures: the noise of a
window (noise), the loss against a temperature (landscape), where leaving one class out goes wrong (phase_diagram), what
is averaged (windows), a known miscalibration undone (recovery), a released map that breaks the order (released_map).
Look for: a loss at the truth that falls as M^-1/2; a triangle that leaves T = 1 as soon as classes differ, while
circles and squares stay; a jump at a knot.

Your own classifier: --logits FILE (.npz or .csv); --logits example reads one of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.h_calibration import user
from experiments.h_calibration.claims import claims
from experiments.h_calibration.measure import STAGES
from experiments.h_calibration.movable import movable
from experiments.h_calibration.setup import Setup
from experiments.harness import Experiment, Verdicts, main
from theory.h_calibration import gaps, maps, scores, subsets

Found = Mapping[str, Mapping[str, Any]]


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.h_calibration import draw

    says = verdicts.line
    yield "noise", draw.noise(setup, found), (
        f"{setup.events:,} events whose predictions are right, from .1 to .9. Dots: mean size of a window's gap; line: "
        "the floor.\n" + says(gaps.noise_floor_of_a_window) + "\n" + says(gaps.noise_floor_falls_like_the_root)
    )  # fmt: skip
    yield "landscape", draw.landscape(setup, found), (
        f"Gaussian classes with exact posteriors, {setup.samples:,} samples, windows of {setup.window} events; softmax "
        "of logits / T. Marks: where each loss is least. Right: two classes.\n"
        + says(subsets.truth_minimises_the_pooled_loss) + "\n" + says(subsets.truth_minimises_leave_one_class_out)
    )  # fmt: skip
    yield "phase_diagram", draw.phase_diagram(setup, found), (
        "Two Gaussian classes, population losses by quadrature. Pooled and class-wise losses are least at T = 1 "
        "everywhere.\n" + says(subsets.gap_at_the_truth_without_a_class) + "\n"
        + says(subsets.exchangeable_classes_save_the_truth)
    )  # fmt: skip
    yield "windows", draw.windows(setup, found), (
        f"{setup.test:,} test samples of five classes, all events in the order of their probability.\n"
        + says(gaps.predicted_minus_observed) + "\n" + says(gaps.mean_and_variance_of_a_window)
    )  # fmt: skip
    yield "recovery", draw.recovery(setup, found), (
        f"A known miscalibration, {setup.calibration:,} samples to fit; dots: {setup.seeds} seed(s). TS: temperature "
        "scaling; the losses in the names are NLL, or h-calibration's with those windows.\n"
        + says(scores.nll_is_entropy_and_divergence) + "\n" + says(maps.piecewise_map_goes_on_from_its_knots)
    )  # fmt: skip
    yield "released_map", draw.released(setup, found), (
        "Dashed: the piecewise map as released goes on from its last value, not from the knot. Solid: as it is meant.\n"
        + says(maps.released_map_is_increasing) + "\n" + says(maps.released_map_is_continuous)
    )  # fmt: skip


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that the figures show."""
    left_out = {"recovery": {"log_probs", "truth"}, "order": {"kept", "random_slopes", "knot"}}
    return {
        stage: {name: x for name, x in arrays.items() if name not in left_out.get(stage, ())}
        for stage, arrays in found.items()
    }


EXPERIMENT = Experiment(
    "h_calibration", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report,
    movable=movable,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
