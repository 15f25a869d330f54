"""Predictive multiplicity: how far do the models that fit almost as well as the best disagree about one person?

Paper: Watson-Daniels, Parkes and Ustun, Predictive Multiplicity in Probabilistic Classification, AAAI 2023.
Question: over all models whose loss is within epsilon of the best, what range of risks can one person get, how many
people's risks can move by delta under some model (ambiguity), and how many under one and the same (discrepancy)?
Figures: who pays, minorities against epsilon (who_pays), the level set of two coefficients and where ranges are wide
(level_set), conflicts against their threshold (conflicts), the range of every person, and its law (ranges), outliers,
separation and minorities over seeds (studies), real data (prevalence). Look for: dots on the closed-form lines of
who_pays, ambiguity far above the bound that discrepancy obeys, risks and logits that disagree on what separation does.

Your own data: --data FILE.csv --label COLUMN; --data example reads irises.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from experiments.harness import Check, Experiment, Verdicts, agrees, along, constant, main, measured, refuted
from experiments.multiplicity import real, user
from experiments.multiplicity.measure import (
    CONFLICTS,
    DISTANCES,
    EPSILONS,
    LEVELS,
    PLACES,
    SMALL,
    STAGES,
    shares_of,
)
from experiments.multiplicity.movable import movable
from experiments.multiplicity.setup import Setup
from sandbox import multiplicity as m
from sandbox.multiplicity.formulas import pinsker_cost, universal_bound
from sandbox.tolerances import identity
from theory.multiplicity import ball, counts, ends

Found = Mapping[str, Mapping[str, Any]]
CERTAIN = 1e-6  # logits: inner and outer end of a range may differ by rounding, which a small multiplier magnifies


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """What the simulations say of the statements."""
    yield from _of_the_level_set(setup, found["example"])
    yield from _of_the_ends(found["example"])
    yield from _of_conflicts(found["example"])
    yield from _of_groups(setup, found["groups"])
    yield from _of_separation(found["studies"])


def _of_the_level_set(setup: Setup, runs: Mapping[str, Any]) -> Iterator[Check]:
    data = {"x": constant(runs["x"]), "y": constant(runs["y"])}
    yield along(ball.level_set_is_a_kl_ball, **data, w=runs["models"], w0=constant(runs["w"]))
    yield along(ball.labels_no_longer_matter, **data, w=runs["models"], w0=constant(runs["w"]), ridge=0.5)
    epsilon = setup.tolerated * runs["loss"]
    yield measured(ball.inner_certificate, runs["excess"], epsilon, identity())
    why = "what rounding leaves between a model of the set and a bound on all of them"
    yield measured(ball.outer_certificate, runs["gap"], np.zeros_like(runs["gap"]), CERTAIN, why)
    logit = np.log(runs["grid"]) - np.log1p(-runs["grid"])
    inside = (logit >= runs["low"][:, None]) & (logit <= runs["high"][:, None])
    clear = np.abs(runs["candidates"] - epsilon) > 1e-9
    yield agrees(ball.profile_is_convex, inside[clear], (runs["candidates"] <= epsilon)[clear],
                 "two algorithms, the range of a person and the paper's candidate models")  # fmt: skip


def _of_the_ends(runs: Mapping[str, Any]) -> Iterator[Check]:
    decades = np.log(SMALL[-1] / SMALL[-2])
    for claim, name in ((ends.half_width_of_a_range, "half_error"), (ends.shift_of_a_range, "shift_error")):
        last, before = np.abs(runs[name][-1]), np.abs(runs[name][-2])
        slope = float(np.median(np.log(last / before) / decades))
        yield measured(claim, slope, 1.0, 0.05, "slope between the two largest epsilons, median over people")
    yield measured(ends.budget_of_a_baseline, runs["budget"], runs["d"], identity())
    spread = runs["p"] * (1 - runs["p"]) * runs["leverage"]
    yield measured(counts.leverage_is_at_most_one, spread, float(runs["n"]), identity())


def _of_conflicts(runs: Mapping[str, Any]) -> Iterator[Check]:
    delta = np.linspace(0.01, 0.4, runs["lower"].shape[1])
    epsilon = np.array(LEVELS)[:, None] * runs["loss"]
    bound = universal_bound(epsilon, delta[None])
    yield measured(counts.universal_bound_on_the_discrepancy, runs["lower"], bound, identity())
    yield measured(counts.a_conflict_costs_at_least, runs["lower"], runs["knapsack"], identity())
    lower, upper = zip(*(small_problem(seed) for seed in range(3)), strict=True)
    same = np.isclose(lower, upper, atol=1e-9)
    yield agrees(ball.risks_move_one_way_along_a_ray, np.ones(3, bool), same,
                 "a search over directions against an integer programme's bound, 20 people each")  # fmt: skip


def small_problem(seed: int) -> tuple[float, float]:
    """Discrepancy of 20 people in the plane, from below by directions, from above by the integer programme."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.ones((20, 1)), rng.normal(size=(20, 1))], axis=1)
    y = (rng.random(20) < 1 / (1 + np.exp(-x[:, 1]))).astype(float)
    baseline = m.fit(x, y)
    epsilon = 0.02 * float(baseline.loss)
    found = m.ranges(baseline, epsilon)
    solved = m.discrepancy(baseline, found, epsilon, 0.08, key=jax.random.key(seed), nodes=5000)
    return solved.lower, solved.upper


def _of_groups(setup: Setup, runs: Mapping[str, Any]) -> Iterator[Check]:
    shares, p = shares_of(setup), setup.group_rate
    low, high = m.kl_interval(p, setup.group_epsilon / shares)
    yield measured(counts.a_group_may_take_all, [runs["low"][:, -1], runs["high"][:, -1]], [low, high], identity())
    delta, epsilon = np.array(CONFLICTS)[:, None, None], EPSILONS[None, None, :]
    pays = np.minimum(pinsker_cost(p, p + delta), pinsker_cost(p, p - delta))
    predicted = shares[None, :, None] <= epsilon / pays
    moved = np.maximum(runs["high"][:, :-1] - p, p - runs["low"][:, :-1])[None]
    yield agrees(counts.small_groups_pay, predicted, np.broadcast_to(moved >= delta, predicted.shape),
                 "the solver against the closed boundary")  # fmt: skip
    few = shares[shares < 0.1]
    yield refuted(counts.universal_bound_on_the_ambiguity, m=few, epsilon=setup.group_epsilon, p=p, delta=0.1 / (1 - p))


def _of_separation(runs: Mapping[str, Any]) -> Iterator[Check]:
    first = len(PLACES)
    here = slice(first, first + len(DISTANCES))
    why = "means over the same seeds at every distance; the theorem is of one parameter, the study of three"
    risks, logits = runs["risks"][:, here].mean(axis=0), runs["logits"][:, here].mean(axis=0)
    yield measured(counts.separation_narrows_risks, risks[1:], risks[:-1], 5e-3, why)
    yield measured(counts.separation_widens_logits, logits[:-1], logits[1:], 2e-2, why)


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.multiplicity import draw

    says = verdicts.line
    yield "who_pays", draw.who_pays(setup, found), (
        f"Two groups with an indicator each; rate of ones of the smaller {setup.group_rate:g}. Left: its "
        "viable range at "
        f"epsilon = {setup.group_epsilon:g} nats, solver (dots) and KL (shaded). Right: above a line no model "
        "moves its "
        "risk by delta; filled dots, some model of the solver does.\n"
        + says(counts.a_group_may_take_all) + "\n" + says(counts.small_groups_pay)
    )  # fmt: skip
    share = float(found["plane"]["loss_of_adversary"] / found["plane"]["epsilon"])
    yield "level_set", draw.level_set(setup, found), (
        "A logistic model of two coefficients and 60 people. Left: its level set, and the extremal model of "
        "each person; "
        f"the star moves the most movable person furthest, its excess is {share:.12f} epsilon. Right: width "
        "of the range "
        "of risks over the plane of features.\n" + says(ball.level_set_is_a_kl_ball)
    )  # fmt: skip
    yield "conflicts", draw.conflicts(setup, found), (
        "Irises, 100 people and 5 coefficients. Ambiguity counts different models for different people, "
        "discrepancy one "
        "model for all: solid from below, by directions; dotted from above, by the knapsack; dashed, Pinsker's bound.\n"
        + says(counts.universal_bound_on_the_discrepancy) + "\n" + says(counts.universal_bound_on_the_ambiguity)
    )  # fmt: skip
    yield "ranges", draw.ranges(setup, found), (
        f"Irises, epsilon = {setup.tolerated:.1%} of the loss. Left: the range of every person's risk, "
        "sorted. Right: its "
        "half-width against leverage, with the law for small epsilon.\n"
        + says(ends.half_width_of_a_range) + "\n" + says(ends.budget_of_a_baseline)
    )  # fmt: skip
    yield "studies", draw.studies(setup, found), (
        f"{setup.people} people, two features and an intercept; means over {setup.seeds} seeds with 95% intervals. "
        "Outlier: one point is moved. Separation: two Gaussians move apart; ambiguity at delta = 0.1 is not monotone. "
        "Minority: shared slope, a coefficient of its own.\n"
        + says(counts.separation_narrows_risks) + "\n" + says(counts.separation_widens_logits)
    )  # fmt: skip
    names = real.chosen(setup.real)
    absent = [name for name in real.SETS if name not in names]
    yield "prevalence", draw.prevalence(names, found), (
        "Real data, deterministic. Left: share of people whose risk some model moves by 0.1, against epsilon as a "
        "likelihood-ratio statistic, 2 n epsilon, in units of the coefficients' number; epsilon is 1% and 5% "
        "of the loss. "
        "Right: mean width of a range." + (f" Not drawn: {', '.join(absent)}." if absent else "")
    )  # fmt: skip


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that the figures show."""
    left_out = {
        "example": {"candidates", "grid", "x", "y", "models", "shift_error", "half_error", "logits"},
        "plane": {"map", "extremes", "boundary", "axis"},
        "studies": {"gradient", "gap"},
    }
    return {
        stage: {name: x for name, x in arrays.items() if name not in left_out.get(stage, ())}
        for stage, arrays in found.items()
    }


EXPERIMENT = Experiment(
    "multiplicity", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report,
    movable=movable,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
