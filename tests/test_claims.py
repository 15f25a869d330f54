"""The mechanism carries fourteen hard claims of nine papers: the verdict of each, its planted errors, its readings.

Those whose paper has its turn are in ``theory``; the others in ``tests/claims.py``.
"""

from __future__ import annotations

import random

import pytest

import theory
from tests import claims
from tests.engine import (
    assert_concrete_reading_agrees,
    assert_every_choice_of_indices_holds,
    assert_sizefree_reading_agrees,
    planted,
    skip_unless_precise,
    survey,
    verdict,
)
from theory._arrays import compiled, gap_at
from theory._points import random_generators, two_sizes
from theory.proof import Checked, Proved, Refuted, Verdict, holds
from theory.statement import Theorem

CLAIMS = {name: value for name, value in vars(claims).items() if isinstance(value, Theorem)}
EVERY_SIZE = Proved()
# What each claim deserves.
DESERVED: dict[str, Verdict | type[Verdict]] = {
    "forces_on_unembeddings": EVERY_SIZE,
    "closed_form_flow": EVERY_SIZE,
}
# Those that have moved to their papers' own files.
MOVED: dict[tuple[str, str], Verdict | type[Verdict]] = {
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
    ("squeezing", "conserved_by_squeezing"): Proved,
    ("squeezing", "rarer_rejected_lifts_the_top_more"): Refuted,
}
TRUE = [name for name, claim in CLAIMS.items() if claim.expect != "refuted"]


def test_every_claim_has_its_verdict_here():
    assert DESERVED.keys() == CLAIMS.keys()


@pytest.mark.parametrize("name", CLAIMS)
def test_verdict(name):
    skip_unless_precise(CLAIMS[name])
    found, deserved = verdict(CLAIMS[name]), DESERVED[name]
    assert holds(CLAIMS[name], found)
    assert isinstance(found, deserved) if isinstance(deserved, type) else found == deserved


@pytest.mark.parametrize(("paper", "name"), MOVED)
def test_verdict_of_a_claim_in_its_own_file(paper, name):
    (claim,) = (t for t in theory.theorems(paper) if t.name == name)
    skip_unless_precise(claim)
    found, deserved = verdict(claim), MOVED[paper, name]
    assert isinstance(found, deserved) if isinstance(deserved, type) else found == deserved
    assert deserved is not Proved or found == EVERY_SIZE


@pytest.mark.parametrize("name", TRUE)
def test_claim_holds_on_draws(name):
    skip_unless_precise(CLAIMS[name])
    assert survey(CLAIMS[name]) == 1  # none of them has premises


@pytest.mark.parametrize("name", TRUE)
def test_every_choice_of_indices_holds(name):
    skip_unless_precise(CLAIMS[name])
    assert_every_choice_of_indices_holds(CLAIMS[name])


@pytest.mark.parametrize("name", [n for n, deserved in DESERVED.items() if isinstance(deserved, Proved)])
def test_planted_errors_are_caught(name):
    found = planted(CLAIMS[name])
    assert found is not None and found.survivors == () and found.killed >= 5, found


@pytest.mark.parametrize("name", CLAIMS)
def test_readings_agree(name):
    claim = CLAIMS[name]
    assert_sizefree_reading_agrees(claim)
    assert_concrete_reading_agrees(claim)


@pytest.mark.parametrize("name", CLAIMS)
def test_array_reading_is_one_compiled_call_a_size(name):
    claim, rng = CLAIMS[name], random.Random(5)
    for sizes in 3 * two_sizes(claim):
        gap_at(claim, random_generators(claim, sizes, rng, 3), 1e-9)
    has_arrays = any(d.axes and d.kind != "index" for d in claim.domains.values())
    assert compiled(claim)._cache_size() == (2 if has_arrays else 1)
