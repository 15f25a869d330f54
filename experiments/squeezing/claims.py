"""What the simulations say of the statements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.harness import Check, agrees, along, constant, drift, measured, refuted
from experiments.squeezing.measure import AT_A, AT_B, LIKE, RARE, STEPS, TABLE
from experiments.squeezing.setup import Setup
from sandbox.tolerances import identity
from theory.squeezing import pairs, path, peaks, step

Found = Mapping[str, Mapping[str, Any]]
FLOW = "Runge-Kutta of fourth order in fixed steps"


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """Every check, in the order of the stages."""
    yield from _of_one_step(found["one step"])
    yield from _of_phases(found["phases"])
    yield from _of_the_path(found["path"])
    yield from _of_sequences(setup, found["sequence"], found["turns"])
    yield from _of_questions(found["questions"])


def _of_one_step(runs: Mapping[str, Any]) -> Iterator[Check]:
    wrong = runs["wrong"] == 0
    yield agrees(step.wins_iff_above_the_threshold, np.ones(wrong.shape, bool), wrong,
                 "no response may be on the wrong side of the threshold, but for rounding at it")  # fmt: skip
    l, p, s = runs["rejected"], runs["p"], runs["impulse"]
    i = (l + 1) % p.shape[1]
    yield along(step.factor_of_a_step, p=p, l=l, s=s, i=i, j=(l + 2) % p.shape[1])
    yield along(step.threshold_grows_with_the_step, p=p, l=l, s=s)
    yield along(step.rejected_falls_and_the_top_rises, p=p, l=l, s=s, m=i)
    yield along(peaks.rates_of_squeezing, p=p, l=l, i=i)
    yield along(peaks.winners_by_peakiness, p=p, l=l, i=i)
    alone = runs["winners"] == 1
    ruled = runs["majority"]
    yield agrees(peaks.majority_rule, np.ones(ruled.sum(), bool), alone[ruled],
                 "wherever the rule speaks, one response rises")  # fmt: skip
    yield refuted(
        peaks.a_rare_rejected_feeds_the_top_alone, p=np.array([[0.5, 0.48, 0.01, 0.01]]), l=3, i=1, m=0, s=1.0
    )
    share = np.linspace(0.55, 0.95, 9)
    yield refuted(peaks.rarer_rejected_lifts_the_top_more, r=share, q=0.4, shrink=0.125, s=1.0)
    yield along(peaks.a_rarer_rejected_raises_the_threshold, p=p, a=l, b=i, s=np.minimum(s, 4))
    yield along(peaks.on_policy_negatives_lower_all_alike, p=p, s=s)


def _of_phases(runs: Mapping[str, Any]) -> Iterator[Check]:
    q, bound = runs["q"][:, None], runs["bound"][None, :]
    half = 1 / (2 * runs["q"].size)
    clear = np.abs(q - bound) > half  # a step is not infinitesimal
    alone = runs["two"][0] == 1
    ruled = np.broadcast_to(q < bound, alone.shape)
    yield agrees(peaks.majority_rule_is_sharp, ruled[clear], alone[clear],
                 "two others, .01 nats: one rises below the bound, two above; cells on the line left out")  # fmt: skip
    yield agrees(peaks.majority_rule, np.ones(ruled.sum(), bool), runs["five"][ruled] == 1,
                 "with four third parties, too, one response rises wherever the rule speaks")  # fmt: skip


def _of_the_path(runs: Mapping[str, Any]) -> Iterator[Check]:
    z, times = runs["z"], runs["time"]
    yield drift(path.conserved_by_squeezing, times[:30], tolerance=1e-9 if z.dtype == np.float64 else 1e-3, why=FLOW,
                z=z[:30], l=RARE, i=0, j=1)  # fmt: skip
    yield measured(path.path_of_squeezing, runs["p"], runs["closed"], 1e-9 if z.dtype == np.float64 else 1e-4, FLOW)
    yield along(path.threshold_rises_once_it_is_positive, z=z, l=RARE)
    yield along(path.clock_of_squeezing, p=constant(TABLE), l=RARE, tau=np.linspace(0.05, 0.95, 7))
    late = slice(-8, None)
    slopes = [np.polyfit(times[late], np.log(x[late]), 1)[0] for x in (1 - runs["p"][:, 0], runs["p"][:, RARE])]
    yield measured(path.innocents_die_at_half_the_rate, np.array(slopes), np.array([-1.0, -2.0]), 0.01,
                   "the next order, e^-t, at times from 6 on")  # fmt: skip
    yield along(peaks.entropy_under_squeezing, z=z, l=RARE)
    order = np.polyfit(np.log(STEPS), np.log(runs["return_error"]), 1)[0]
    yield measured(path.mend_retraces_the_path, order, 1.0, 0.02,
                   "steps of Euler's method return up to an error that is proportional to the step")  # fmt: skip
    yield along(path.untrained_answers_bloom, p=runs["p"], l=RARE, i=1)


def _of_sequences(setup: Setup, curves: Mapping[str, Any], maps: Mapping[str, Any]) -> Iterator[Check]:
    turn, best = maps["turn_by_count"].astype(int), maps["best_by_count"].astype(int)
    turns = np.concatenate([turn.ravel(), maps["turn_by_sft"].astype(int).ravel()])
    bests = np.concatenate([best.ravel(), maps["best_by_sft"].astype(int).ravel()])
    bests = np.where(bests == setup.steps, -1, bests)
    both = (turns >= 0) & (bests >= 0)
    yield agrees(pairs.chosen_falls_iff_the_ratio_exceeds_one, turns >= 0, bests >= 0,
                 "the chosen turns in a run exactly if its ratio Q passes 1, over both phase diagrams")  # fmt: skip
    yield measured(pairs.chosen_falls_iff_the_ratio_exceeds_one, np.abs(turns - bests)[both], 0 * turns[both], 2.0,
                   "steps between Q > 1 and the best step: the tax of finite steps")  # fmt: skip
    yield along(pairs.a_table_of_sequences_never_lowers_the_chosen, p=np.array([[0.5, 0.3, 0.2]]),
                a=np.array([[0.6, 0.3, 0.1]]), w=0, l=1, y=1, s=0.5)  # fmt: skip
    kappa = np.linspace(-2, 6, 9)
    p = constant(np.array([0.05, 0.05, 0.85, 0.05]))
    yield along(pairs.one_law_in_two_contexts, p=p, w=0, l=1, m=2, kappa=kappa)
    yield refuted(pairs.a_rise_to_first_order_is_a_rise, p=p, w=0, l=1, kappa=np.array([2.5]), s=1.0)
    yield refuted(pairs.opposed_contexts_never_lower_the_chosen, p=constant(np.array([0.9, 0.05, 0.05])), w=0, l=1,
                  kappa=np.array([-1.0]))  # fmt: skip
    yield refuted(pairs.one_context_feeds_the_top, p=np.array([[0.2, 0.1, 0.6, 0.1]]), w=0, l=1, m=2, s=1.0)


def _of_questions(runs: Mapping[str, Any]) -> Iterator[Check]:
    """The first step of both runs, and the log-odds at A along the whole run."""
    alone, both = runs["log_probs"]
    odds = np.diff(alone[:, 0, 1] - alone[:, 0, 0])
    q = np.exp(alone[:-1, 1])
    yield measured(pairs.answers_leak_to_like_questions, odds, 0.1 * LIKE * (1 - q[:, 1] + q[:, 0]), identity())
    yield along(pairs.answers_leak_to_like_questions, p=AT_A[None], q=AT_B[None], a=0, b=1, k=LIKE, eta=0.1)
    p, q = (np.exp(both[:-1, k]) for k in (0, 1))
    leak, own = LIKE * (1 - q[:, 1] + q[:, 0]), 1 - p[:, 0] + p[:, 1]
    yield measured(pairs.a_learnt_answer_is_defenceless, np.diff(both[:, 0, 1] - both[:, 0, 0]), 0.1 * (leak - own),
                   identity())  # fmt: skip
