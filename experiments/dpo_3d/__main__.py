"""DPO's 3D-properties: what the slopes of its loss say, and what a softmax makes of them.

Paper: Yan et al., 3D-Properties: Identifying Challenges in DPO and Charting a Path Forward, ICLR 2025.
Question: does the rejected likelihood drop drastically (D1), does learning degrade into suppressing it (D2), and does
mass disperse to responses nobody ranked (D3), because the slope in the rejected probability is the larger one? Figures:
the paper's toy network and what it does (run), the slopes beside the true speeds (slopes), four on- and off-policy
scenarios (scenarios), two betas (betas), a reward model on the same path (reward_model), a fine-tuning term
(fine_tuning); what is not in the paper: the one-number law (scores), the phase diagram of the two betas with its fates
(phase_diagram), the bound on dispersion (triangle), the worst beta (crest), the three D's of every loss (losses).
Look for: slopes that part by forty orders of magnitude, while the rejected's true speed is the smaller one.

Your own training log: --log FILE.csv with the columns step, chosen, rejected; or: --log example.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.dpo_3d import linear, mends, network, run, table, user
from experiments.dpo_3d.claims import claims
from experiments.dpo_3d.movable import movable
from experiments.dpo_3d.setup import SCENARIOS, Setup
from experiments.harness import Experiment, Verdicts, main
from sandbox.statistics import mean
from theory.dpo_3d import free, rates, softmax
from theory.dpo_3d import mends as stated

Found = Mapping[str, Mapping[str, Any]]
STAGES = {name: stage for module in (table, linear, mends, run, network) for name, stage in module.STAGES.items()}


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.dpo_3d import draw
    from experiments.dpo_3d._network_figure import run_figure, scenarios_figure

    says = verdicts.line
    one = found["one run"]
    ds = {name: mean(one[name]) for name in ("drop", "share", "dispersion")}
    measured = ", ".join(f"{d} {x.mean:.2f} ± {x.standard_error:.2f}" for d, x in zip(("D1", "D2", "D3"), ds.values(),
                                                                                   strict=True))  # fmt: skip
    toy = found["scenarios"]
    wide, narrow = toy["dpo_fall"][:1].max(), toy["dpo_fall"][1:].max()
    most = toy["dpo_unseen"][1:, list(SCENARIOS).index("off-on"), :, -1].max()
    winners = toy["dpo_winner"][:3]  # two shared units cannot hold four prompts' laws
    lost = ", ".join(f"{np.sum(winners == k)} {role}" for k, role in enumerate(network.ROLES) if k)
    yield "run", run_figure(setup, found), (
        f"The paper's toy, {setup.loss} by {setup.optimiser}, start {SCENARIOS[setup.scenario].title}, {setup.width} "
        f"shared units, thin lines {setup.network_seeds} seeds: {measured} (mean and standard error over seeds). In "
        "the paper's own figure of this toy the chosen rises, then falls while the unseen take all. That did "
        f"not come out: the chosen of any prompt, scenario and seed ends at most {wide:.2f} nats below its peak with "
        f"64 shared units and {narrow:.2f} with 2 to 4, where runs from chosen off-policy end with at most {most:.2f} "
        "unseen.\n"
        + says(softmax.table_never_lowers_the_chosen)
    )  # fmt: skip
    yield "slopes", draw.slopes(setup, found), (
        "One run in a table: marks are integrated, lines the closed form. The slopes in free variables are right, and "
        "say nothing of the speeds.\n"
        + says(free.ratio_of_the_slopes) + "\n" + says(free.ratio_of_slopes_is_a_ratio_of_speeds) + "\n"
        + says(softmax.ratio_of_the_speeds)
    )  # fmt: skip
    yield "scenarios", scenarios_figure(setup, found), (
        "The four scenarios in a table and in the network; the dotted bound holds in a table. Where the shared layer "
        "is narrow, mass leaks to what other prompts list rather than disperses. Prompts whose chosen is not on top at "
        f"the end, of {winners.size} with three or more shared units: {lost}.\n"
        + says(softmax.unseen_gain_while_the_rejected_leads) + "\n" + says(softmax.dispersion_is_bounded) + "\n"
        + says(stated.cross_entropy_disperses_too)
    )  # fmt: skip
    yield "betas", draw.betas(setup, found), (
        "Flex-DPO in a table: a smaller rejected beta slows the drop early and steepens it late.\n"
        + says(stated.flex_dpo_is_dpo_and_cross_entropy) + "\n"
        + says(rates.smaller_beta_of_the_rejected_ends_in_a_steeper_drop)
    )  # fmt: skip
    yield "reward_model", draw.reward_model(setup, found), (
        "A reward model's slopes balance, and the policy it implies walks DPO's own path.\n"
        + says(free.reward_model_walks_the_path_of_dpo) + "\n" + says(free.balance_spares_the_others)
    )  # fmt: skip
    yield "fine_tuning", draw.fine_tuning(setup, found), (
        "DPO with a fine-tuning term where the chosen falls without it (scores 1, 0, 2). It bounds the fall of the "
        "chosen, and leaves the rejected its exponent.\n"
        + says(stated.fine_tuning_bounds_the_fall) + "\n" + says(rates.fine_tuning_keeps_the_drop)
    )  # fmt: skip
    yield "scores", draw.scores(setup, found), (
        "DPO on one pair with fixed features: who wins is read off the scores, the chosen's being 1 and the "
        "rejected's 0.\n"
        + says(softmax.one_number_law) + "\n" + says(softmax.tilt_by_the_scores)
    )  # fmt: skip
    yield "phase_diagram", draw.phase_diagram(setup, found), (
        "Each dot is a run of Flex-DPO in a table, coloured by what really happened; lines are the theory's. Left: "
        "four responses, chosen and rejected 1 : 2. Right: three.\n"
        + says(stated.boundaries_of_two_weights) + "\n" + says(stated.fate_is_sealed_beyond_the_separatrix)
    )  # fmt: skip
    yield "triangle", draw.triangle(setup, found), (
        "Colour: the largest unseen mass along DPO's path, searched for; white lines: the bound.\n"
        + says(softmax.dispersion_is_bounded) + "\n" + says(softmax.dispersion_is_transient)
    )  # fmt: skip
    yield "crest", draw.crest(setup, found), (
        "Marks are integrated, lines the closed form.\n" + says(rates.margin_peaks_at_two)
    )  # fmt: skip
    yield "losses", draw.losses(setup, found), (
        "Every loss in a table, from its gradient flow. Dashed: exponent of plain cross-entropy, balance, no rise; "
        "dotted: the chosen falls.\n"
        + says(rates.rates_in_a_table) + "\n" + says(stated.ratio_makes_the_margin_grow_for_ever)
    )  # fmt: skip


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that is small, and the phase diagram and the network's ends as counts."""
    kept = {}
    for stage, arrays in found.items():
        kept[stage] = {name: x for name, x in arrays.items() if x.size <= 300}
    moves = found["phase diagram"]["change"]
    kept["phase diagram"] = {
        "runs": len(moves),
        "chosen_falls": int(np.sum(moves[:, 0] < 0)),
        "rejected_rises": int(np.sum(moves[:, 1] > 0)),
        "unseen_rise": int(np.sum(found["phase diagram"]["change_unseen"] > 0)),
    }
    ends = found["fates"]
    kept["fates"] = {
        "runs": ends["peak"].size,
        "peak_wins": int(np.sum(ends["log_chosen"] < ends["log_chosen_start"])),
    }
    winners = found["scenarios"]["dpo_winner"]
    kept["scenarios"]["winners"] = {role: int(np.sum(winners == k)) for k, role in enumerate(network.ROLES)}
    return kept


EXPERIMENT = Experiment(
    "dpo_3d", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report,
    movable=movable,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
