"""The squeezing effect: who gains the probability that a rejected response loses, and when does the chosen one pay?

Paper: Ren and Sutherland, Learning Dynamics of LLM Finetuning, ICLR 2025.
Question: a gradient step against one response moves all others of a softmax; which of them win, along which path, what
mends it, and is that why DPO lowers even what it should raise? Figures: one step on fifty responses (one_step), who
wins (phase_diagram), the whole path in closed form (path), the mend by fine-tuning on the rejected too (mend), when the
chosen turns (displacement_map), answers that leak to like questions (questions), five accounts of displacement held
against the same runs (accounts), a classifier of digits (digits, if scikit-learn is installed). Look for: triangles up
exactly above T(s); one orange line that no cell crosses; innocents that die at half the culprit's rate; black dots,
where the ratio Q passes 1, at the top of every curve.

Your own model: --logits FILE.npz; --logits example reads ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jax import Array

from experiments import _accounts
from experiments.harness import Experiment, Verdicts, main
from experiments.squeezing import digits, measure, sequence, user
from experiments.squeezing.claims import claims
from experiments.squeezing.setup import Setup
from theory.squeezing import pairs, path, peaks, step

Found = Mapping[str, Mapping[str, Any]]


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.squeezing import draw

    says = verdicts.line
    yield "one_step", draw.one_step(setup, found), (
        f"One step against one of fifty responses, impulse s = {setup.impulse:g} nats. Dashed: the threshold.\n"
        + says(step.wins_iff_above_the_threshold) + "\n" + says(pairs.one_context_feeds_the_top)
    )  # fmt: skip
    yield "phase_diagram", draw.phase_diagram(setup, found), (
        f"Colours: counted after steps of {measure.IMPULSES[0]:g} nats; broken lines: where longer steps put the "
        "left edge. Solid: the majority rule's bound.\n"
        + says(peaks.majority_rule) + "\n" + says(peaks.majority_rule_is_sharp)
    )  # fmt: skip
    yield "path", draw.path(setup, found), (
        "Dots: the integrated flow; lines: its closed form. Right: from the black dots, pushed down towards a corner, "
        "fine-tuned towards the upper one.\n"
        + says(path.path_of_squeezing) + "\n" + says(path.innocents_die_at_half_the_rate)
    )  # fmt: skip
    yield "mend", draw.mend(setup, found), (
        f"{setup.negatives} rejected tokens in contexts of their own, whose overlap with the chosen's is "
        f"{sequence.RHO[1]:g} (left, middle); black: the first step with Q > 1.\n"
        + says(path.mend_retraces_the_path) + "\n" + says(pairs.longer_sft_needs_less_overlap)
    )  # fmt: skip
    yield "displacement_map", draw.displacement_map(setup, found), (
        f"Change of the chosen in {setup.steps} steps of DPO. Numbers: the first step with Q > 1; none where Q stays "
        "below.\n" + says(pairs.chosen_falls_iff_the_ratio_exceeds_one)
    )  # fmt: skip
    yield "questions", draw.questions(setup, found), (
        f"Two questions whose unit features have the inner product {measure.LIKE:g}.\n"
        + says(pairs.answers_leak_to_like_questions) + "\n" + says(pairs.a_learnt_answer_is_defenceless)
    )  # fmt: skip
    yield "accounts", _accounts.figure(found["accounts"]), _accounts.caption(found["accounts"])
    if found["digits"]["present"]:
        yield "digits", draw.digits(setup, found), (
            "A softmax regression on 1,797 handwritten digits. One step against each image's least likely class raises "
            f"only its top on {found['digits']['only_top']:.1%} of the images.\n"
            + says(peaks.winners_by_peakiness) + "\n" + says(path.untrained_answers_bloom)
        )  # fmt: skip


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that the figures show, every third point of the long curves."""
    left_out = {"one step": {"p", "rejected", "impulse", "wrong", "winners", "majority", "top_rises"}, "path": {"z"},
                "phases": {"two", "five"}}  # fmt: skip
    kept = {
        stage: {name: x for name, x in arrays.items() if name not in left_out.get(stage, ())}
        for stage, arrays in found.items()
    }
    kept["accounts"]["table"] = _accounts.table(found["accounts"])
    kept["sequence"] = {name: x[..., ::5] for name, x in kept["sequence"].items()}
    return kept


def accounts(setup: Setup, key: Array) -> dict[str, Array]:
    """Entanglement, the exact gradient, CHES, squeezing and similarity scores, against the same runs of DPO."""
    return _accounts.measure(key, pairs=setup.pairs, seeds=setup.seeds, steps=setup.account_steps)


STAGES = {
    "one step": measure.one_step,
    "phases": measure.phases,
    "path": measure.path,
    "sequence": sequence.sequence,
    "turns": sequence.turns,
    "questions": measure.questions,
    "digits": digits.digits,
    "accounts": accounts,
}
EXPERIMENT = Experiment(
    "squeezing", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
