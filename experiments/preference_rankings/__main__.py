"""Preference learning does not learn preference rankings: why the preferred response often stays the less likely one.

Paper: Chen et al., Preference Learning Algorithms Do Not Learn Preference Rankings, NeurIPS 2024.
Question: which pairs does a policy rank right, log pi(y_w) >= log pi(y_l), after training on them; which could it at
best, and how long would that take? Figures: pairs that flip, stay wrong, or are unlearned (groups), their loss against
the loss that they need (loss_and_error), what a perfect optimum would rank (idealised), ranking against win rate
(win_rate); what is not in the paper: when a pair flips (flip_map), ranking accuracy as a function of the loss
(accuracy_against_loss). Look for: no pair right above the curve of the loss that it needs; every flip on one curve with
its valley at beta c = 2; the printed and the scripted accuracy far above the true one.

Your own pairs: --pairs FILE.csv; --pairs example reads one of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.harness import Check, Experiment, Verdicts, agrees, along, constant, drift, main, measured, refuted
from experiments.preference_rankings import user
from experiments.preference_rankings.measure import ERRORS, IPO_ERROR, SCALES, STAGES, TRAINED_ERROR, W6
from experiments.preference_rankings.setup import Setup
from sandbox import rankings
from sandbox.tolerances import identity, monte_carlo
from theory.preference_rankings import optima, pairs, winning

Found = Mapping[str, Mapping[str, Any]]
CLEAR = 1e-9  # nats: closer to a tie than this, rounding decides


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """What the simulations say of the statements."""
    yield from _of_single_pairs(found["single pairs"])
    yield from _of_sets(setup, found["shared parameters"], found["own prompts"])
    yield from _of_optima(found["optima"])
    yield from _of_the_win_rate(found["tilted"], found["first moves"])


def _of_single_pairs(runs: Mapping[str, Any]) -> Iterator[Check]:
    error, beta = runs["error"], runs["beta"]
    inside = "inverse cubic interpolation between recorded times, the error of which falls with their distance^4"
    spacing = 1e-5 if runs["time"].shape[1] >= 400 else 1e-3
    gamma, scale = runs["gamma"], runs["gamma_scale"]
    simulated = np.concatenate([runs["flip"], runs["gamma_flip"]])
    theory = np.concatenate([
        rankings.flip_time(error, beta=beta), rankings.flip_time(4.0, beta=scale / 4, gamma=gamma),
    ])  # fmt: skip
    yield measured(pairs.when_a_pair_flips, np.log(simulated), np.log(theory), spacing, inside)
    ordered = runs["flip"].reshape(len(ERRORS), -1)
    fastest = ordered == ordered.min(axis=1, keepdims=True)
    yield agrees(pairs.valley_of_the_flip_time, np.broadcast_to(SCALES == 2, fastest.shape), fastest,
                 "of each error's betas, among them 2/c, the fastest")  # fmt: skip
    below = runs["ipo_part"] < 1
    ipo = rankings.ipo_flip_time(IPO_ERROR, tau=runs["ipo_part"][below] / (2 * IPO_ERROR))
    yield measured(pairs.flip_time_of_ipo, runs["ipo_flip"][below], ipo, spacing, inside)
    never = np.isnan(runs["ipo_flip"])
    yield agrees(pairs.ipo_never_flips_beyond_its_target, ~below, never, "no pair at or beyond the target may flip")
    k = int(np.argmin(np.abs(error * beta - 3)))
    path = runs["log_odds"][k][:, None]  # one parameter, the log-odds themselves in units of their gradient's length
    yield drift(
        pairs.clock_of_a_pair, runs["time"][k], tolerance=1e-4, why="Runge-Kutta of fourth order, growing steps",
        theta=(path + error[k]) / np.sqrt(2), x=constant(np.array([np.sqrt(2)])), c=error[k], beta=beta[k], gamma=1.0,
    )  # fmt: skip


def _of_sets(setup: Setup, tied: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[Check]:
    m, loss, beta = tied["log_odds"][0], tied["loss"][0], setup.beta
    needed = rankings.loss_to_rank(tied["error"], beta=beta)
    clear = np.abs(m) > CLEAR
    yield agrees(
        pairs.loss_tells_the_ranking, (loss <= needed)[clear], (m >= 0)[clear], "no pair may lie beyond the curve"
    )
    right_before = tied["error"] <= 0
    low = np.broadcast_to(right_before, loss.shape) & (loss <= np.log(2))
    yield agrees(pairs.right_reference_and_small_loss_rank_right, np.ones(low.sum(), bool), (m >= 0)[low])
    some = {"m": np.abs(m[-1]) + CLEAR, "c": tied["error"], "beta": beta}
    yield along(pairs.loss_tells_the_ranking, **some)
    yield refuted(pairs.ranked_right_has_small_loss, **some)
    cost = np.sum(np.where(m < 0, needed, 0), axis=1)
    yield measured(pairs.wrong_pairs_cost_what_they_need, cost, loss.sum(axis=1), identity())

    shared = rankings.margin_at_loss(own["loss"], beta=beta)  # all have the same margin, hence the same loss
    predicted = np.mean(own["error"] <= np.asarray(shared)[:, None] + CLEAR, axis=1)
    yield measured(
        pairs.accuracy_is_the_law_of_the_errors, own["accuracy"], predicted, 2 / own["error"].size,
        "two pairs whose flip is nearer to a recorded time than the integration is exact",
    )  # fmt: skip


def _of_optima(found: Mapping[str, Any]) -> Iterator[Check]:
    alpha, beta = found["trained_alpha"], found["trained_beta"]
    best = rankings.ideal_log_odds(TRAINED_ERROR, alpha, beta=beta)
    why = "500 steps of descent: the slowest direction, at alpha = 0.9, shrinks by 0.64 a step"
    yield measured(optima.optimum_of_dpo, found["trained_log_odds"], best, 1e-8, why)
    critical = rankings.critical_beta(TRAINED_ERROR, alpha)
    yield agrees(optima.right_below_the_critical_beta, beta < critical, found["trained_log_odds"] > 0)
    yield measured(
        optima.ideal_accuracy_falls_with_beta, np.maximum(np.diff(found["true"]), 0), np.zeros(found["true"].size - 1),
        0.0, "a share of the same pairs",
    )  # fmt: skip
    share = found["share"]
    theory = np.asarray(rankings.majority_agreement(share, 4))
    error = float(np.sqrt(np.max(theory * (1 - theory) / found["counted"])))
    yield measured(optima.majority_of_four_errs, found["agreement"], theory, monte_carlo(error))


def _of_the_win_rate(tilted: Mapping[str, Any], moves: Mapping[str, Any]) -> Iterator[Check]:
    ref, proxy = (jnp.array(W6[name]) for name in ("ref", "proxy"))
    times, v = tilted["time"], tilted["scores"]
    first, second = np.triu_indices(6, 1)
    up = np.where(proxy[first] > proxy[second], first, second)
    down = first + second - up
    flip = np.log(ref[down] / ref[up]) / (proxy[up] - proxy[down])
    clear = np.abs(times[:, None] - flip) > CLEAR
    predicted = times[:, None] >= flip
    yield agrees(winning.when_a_pair_flips_on_the_tilt, predicted[clear], (tilted["right"] == 1)[clear])
    yield along(
        winning.win_rate_turns_where_the_covariance_does, ref=constant(ref), g=constant(proxy), v=constant(v), t=times
    )
    yield along(
        winning.when_a_pair_flips_on_the_tilt, ref=constant(ref), g=constant(proxy), w=up[0], l=down[0],
        k=float(proxy[up[0]] - proxy[down[0]]), t=times,
    )  # fmt: skip
    sure = np.abs(moves["one_pair"]) > 1e-12
    gain = _first_gain(moves)
    yield agrees(winning.first_move_of_the_win_rate, (gain > 0)[sure], (moves["one_pair"] > 0)[sure])
    which = np.arange(len(moves["w"]))
    ahead = moves["reward"][which, moves["w"]] - moves["reward"][which, moves["l"]]
    worlds = {"ref": moves["ref"], "r": moves["reward"], "w": moves["w"], "l": moves["l"], "k": ahead, "beta": 1.0}
    yield refuted(winning.ranking_and_win_rate_start_together, **worlds)
    yield measured(winning.force_of_on_policy_pairs, moves["force"], moves["predicted_force"], identity())
    yield along(winning.on_policy_pairs_start_together, ref=moves["ref"], v=moves["v"], beta=1.0)
    yield measured(winning.on_policy_pairs_start_together, np.zeros(sure.shape), moves["own_pairs"], identity())


def _first_gain(moves: Mapping[str, Any]) -> Any:
    which = np.arange(len(moves["w"]))
    ref, lead = moves["ref"], moves["v"] - 0.5
    return ref[which, moves["w"]] * lead[which, moves["w"]] - ref[which, moves["l"]] * lead[which, moves["l"]]


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.preference_rankings import draw

    says = verdicts.line
    tied = found["shared parameters"]
    yield "groups", draw.groups(setup, found), (
        f"{tied['error'].size} pairs that share 20 parameters: of those that the reference ranks wrongly "
        f"{tied['flipped'][0, -1]:.0%} are right after {setup.steps} steps of DPO, of the others "
        f"{tied['unlearned'][0, -1]:.0%} are wrong; reward accuracy {tied['reward_accuracy'][0, -1]:.0%}, ranking "
        f"accuracy {tied['accuracy'][0, -1]:.0%}. Right: the less of its reference a loss sees (gamma; 1 "
        "is DPO), the better it learns rankings."
    )  # fmt: skip
    yield "loss_and_error", draw.loss_and_error(setup, found), (
        "Each mark: one of the pairs that share parameters, at the end of DPO. Dots: right; triangles: wrong.\n"
        + says(pairs.loss_tells_the_ranking) + "\n" + says(pairs.wrong_pairs_cost_what_they_need)
    )  # fmt: skip
    yield "flip_map", draw.flip_map(setup, found), (
        "Gradient flow on one pair in a table of logits, from a reference that is wrong by c nats. Left: simulated "
        "flip times of three errors and 32 betas fall on one curve. Right: the loss sees gamma times the reference.\n"
        + says(pairs.when_a_pair_flips) + "\n" + says(pairs.valley_of_the_flip_time)
    )  # fmt: skip
    yield "accuracy_against_loss", draw.accuracy_against_loss(setup, found), (
        f"{own_count(found)} pairs with prompts of their own, reference errors of mean {setup.offset:g} and standard "
        f"deviation {setup.spread:g} nats; dots: along DPO; line: the law of the errors.\n"
        + says(pairs.accuracy_is_the_law_of_the_errors)
    )  # fmt: skip
    yield "idealised", draw.idealised(setup, found), (
        "What a perfect optimum would rank right, on synthetic responses: by the theorem, as printed with length "
        "normalisation, and as the released script computes it.\n"
        + says(optima.right_below_the_critical_beta) + "\n" + says(optima.printed_normalised_optimum_is_the_optimum)
        + "\n" + says(optima.script_votes_with_the_reference) + "\n" + says(optima.majority_of_four_errs)
    )  # fmt: skip
    yield "win_rate", draw.win_rate(setup, found), (
        "Left: six responses, tilted towards a proxy that loves a hack: accuracy climbs, the win rate turns. Right: "
        "one pair of two good responses of which the better is rarer: the win rate falls from the first step.\n"
        + says(winning.win_rate_turns_where_the_covariance_does) + "\n"
        + says(winning.ranking_and_win_rate_start_together) + "\n" + says(winning.on_policy_pairs_start_together)
    )  # fmt: skip


def own_count(found: Found) -> str:
    """How many pairs have prompts of their own, with a comma for thousands."""
    return f"{found['own prompts']['error'].size:,}"


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that the figures show, the paths of single pairs as their flip times."""
    left_out = {
        "single pairs": {"time", "log_odds"},
        "own prompts": {"error"},
        "shared parameters": {"loss", "log_odds"},
        "first moves": {"ref", "reward", "v", "w", "l", "force", "predicted_force"},
        "tilted": {"log_probs", "right"},
    }
    kept = {
        stage: {name: x for name, x in arrays.items() if name not in left_out.get(stage, ())}
        for stage, arrays in found.items()
    }
    tied, moves = found["shared parameters"], found["first moves"]
    kept["shared parameters"] |= {"last_loss": tied["loss"][0, -1], "last_log_odds": tied["log_odds"][0, -1],
                                  "mean_loss": tied["loss"].mean(axis=-1)}  # fmt: skip
    kept["first moves"] = {
        "one_pair_lowers_the_win_rate": float(np.mean(moves["one_pair"] < 0)),
        "smallest_of_own_pairs": float(moves["own_pairs"].min()),
    }
    return kept


EXPERIMENT = Experiment(
    "preference_rankings", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
