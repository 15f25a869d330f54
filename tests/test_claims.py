"""The mechanism carries fourteen hard claims of nine papers: the verdict of each, where its paper states it."""

from __future__ import annotations

import pytest

import theory
from tests.engine import skip_unless_precise, verdict
from theory.proof import Checked, Proved, Refuted, Verdict

EVERY_SIZE = Proved()
# What each claim deserves: Refuted stands for any counterexample.
DESERVED: dict[tuple[str, str], Verdict | type[Verdict]] = {
    ("entanglement", "chosen_rises_iff_kappa_exceeds_cosine"): Proved,
    ("entanglement", "first_order_is_an_upper_bound"): Proved,
    ("entanglement", "factor_two"): Proved,
    ("entanglement", "gram_of_one_token"): Proved,
    ("dpo_3d", "limits_of_the_slope_in_the_rejected"): Checked,
    ("entanglement", "clock_of_dpo"): Proved,
    ("dpo_3d", "clock_with_features"): Proved,
    ("dpo_3d", "ratios_follow_powers_of_time"): Proved,
    ("dpo_3d", "rates_in_a_table"): Checked,
    ("duality", "order_after_one_step"): Proved,
    ("duality", "order_after_a_longer_step"): Refuted,
    ("pn_criterion", "pythagoras"): Proved,
    ("pn_criterion", "pythagoras_reversed"): Refuted,
    ("h_calibration", "worst_set_is_an_atom"): Proved((2, 3, 4)),  # sets of atoms are listed, so their number is known
    ("h_calibration", "no_set_beats_the_worst_atom"): Proved,
    ("h_calibration", "zero_pooled_loss_means_calibrated"): Refuted,
    ("multiplicity", "level_set_is_a_kl_ball"): Proved,
    ("multiplicity", "pinsker"): Proved,
    ("displacement", "forces_on_unembeddings"): Proved,
    ("displacement", "closed_form_flow"): Proved,
    ("squeezing", "conserved_by_squeezing"): Proved,
    ("squeezing", "rarer_rejected_lifts_the_top_more"): Refuted,
}


@pytest.mark.parametrize(("paper", "name"), DESERVED)
def test_verdict(paper, name):
    (claim,) = (t for t in theory.theorems(paper) if t.name == name)
    skip_unless_precise(claim)
    found, deserved = verdict(claim), DESERVED[paper, name]
    assert isinstance(found, deserved) if isinstance(deserved, type) else found == deserved
    assert deserved is not Proved or found == EVERY_SIZE
