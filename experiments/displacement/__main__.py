"""Likelihood displacement: why the response that you prefer may lose probability, and can hidden vectors tell?

Paper: Razin et al., Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization, ICLR 2025.
Question: train "No" over "Never" and "Yes" may rise. When does the chosen fall, who takes its mass, does it come back,
and does CHES, a score of hidden vectors alone, say which pairs do it? Figures: No, Never and Yes in closed form
(curves), when No dips (phases), CHES against the exact gradient quantity G (ranks), what training did by percentile of
a score (percentiles), a model that unlearns to refuse (refusals), hidden vectors that are not free (kernels), five
accounts of displacement held against the same runs (accounts).
Look for: a dip that comes back if W and h are both trained, stays if only h is, and never is if only W is; loss
functions that differ in nothing but where they stop; CHES without any power on-policy, and blind to single tokens;
pairs of two refusals that lower the refusals.

Your own pairs: --hidden FILE.npz ranks them and says which to drop; --hidden example makes some.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax import Array

from experiments import _accounts
from experiments.displacement import measure, network, refusal, sequences, user
from experiments.displacement.measure import BETA, NEVER, NO, YES
from experiments.displacement.setup import Setup
from experiments.harness import Check, Experiment, Verdicts, agrees, along, main, measured, refuted
from sandbox.tolerances import monte_carlo
from theory.displacement import flow, scores, tokens

Found = Mapping[str, Mapping[str, np.ndarray]]
RUNGE = "Runge-Kutta of fourth order in fixed steps"


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """What the simulations say of the statements."""
    yield from _of_the_pair(found["pair"])
    yield from _of_phases(found["phase"])
    yield from _of_networks(found["network"], found["refusal"])


def _of_the_pair(run: Mapping[str, np.ndarray]) -> Iterator[Check]:
    precise = run["h"].dtype == np.float64
    solved = 1e-8 if precise else 1e-3
    p = np.exp(run["both, run"])
    seen = p.min(axis=1) > 0  # float32 loses the rejected in the end
    states = dict(p=p[seen], W=run["W"][seen], h=run["h"][seen], w=NO, l=NEVER)
    yield along(tokens.speed_of_the_chosen, **states)
    yield along(tokens.replicator, **states, z=YES)
    yield along(tokens.no_displacement_unless_a_third_gains, **states)
    yield refuted(tokens.alignment_counts_in_full, **states)
    for name, claim in (("both", flow.logits_along_the_flow), ("only W", flow.unembedding_alone_never_displaces),
                        ("only h", flow.features_alone_tilt)):  # fmt: skip
        law, closed = np.exp(run[f"{name}, run"]), np.exp(run[f"{name}, closed"])
        if name != "only W":
            yield measured(claim, law, closed, solved, RUNGE)
        else:
            rising = np.diff(run[f"{name}, run"][:, NO]) > 0
            yield agrees(claim, np.ones(rising.shape, bool), rising, "No rises all the way")
    balance = np.einsum("tva,tvb->tab", run["W"], run["W"]) - np.einsum("ta,tb->tab", run["h"], run["h"])
    unit = np.abs(run["W"]).max() ** 2  # W'W and h h' grow, their difference does not
    yield measured(flow.balance_is_conserved, balance / unit, balance[:1] / unit, solved, RUNGE)
    for loss in ("dpo", "ipo"):
        path, predicted = np.exp(run[f"{loss} path"]), np.exp(run[f"{loss} predicted"])
        yield measured(flow.margin_losses_share_their_path, path, predicted, solved, RUNGE)
    early = {name: x[:20] if np.ndim(x) else x for name, x in states.items() if name != "p"}
    yield refuted(flow.sft_term_keeps_the_path, **early, A0=0.0, B0=0.0, k=YES, beta=BETA, alpha=0.1)
    no = np.exp(run["both, run"][:, NO])
    there_and_back = np.array([no.min() < no[0], no[-1] > 0.99])
    yield agrees(flow.displacement_is_transient_with_both, np.ones(2, bool), there_and_back,
                 "No falls, and is all there is in the end")  # fmt: skip
    falls = np.diff(run["only h, run"][:, NO])
    after = np.arange(falls.size) >= int(np.argmax(falls < 0))
    yield agrees(
        flow.displacement_is_permanent_with_features_alone, after, falls < 0, "once it falls it falls for ever"
    )
    yield refuted(scores.ches_sees_single_tokens, **states)


def _of_phases(run: Mapping[str, np.ndarray]) -> Iterator[Check]:
    dips = run["lowest"] < np.log(measure.START[NO]) - 1e-4
    out = run["gains"] <= 0
    yield agrees(tokens.third_gains_on_the_chosen, np.zeros(out.sum(), bool), dips[out],
                 "in this plane No never dips where Yes does not gain on it at the start")  # fmt: skip
    at_once = run["speed"] < -0.05
    yield agrees(flow.kappa_threshold, np.ones(at_once.sum(), bool), dips[at_once], "it dips where it falls at once")
    below = run["kappas"] > run["critical"]
    yield agrees(flow.kappa_threshold, below, run["kappa speed"] < 0, "the threshold in kappa")


def _of_networks(run: Mapping[str, np.ndarray], taught: Mapping[str, np.ndarray]) -> Iterator[Check]:
    alike = np.mean((run["predicted"] < 0) == (run["speed"] < 0))
    yield measured(flow.kappa_threshold, alike, 1.0, 0.1, "one number kappa for a whole tangent kernel: a trend")
    error = float(np.std(taught["mean fall"], ddof=1) / np.sqrt(taught["mean fall"].size))
    yield measured(scores.own_pair_lifts_on_policy, taught["mean fall"].mean(), 0.0, monte_carlo(error))
    rise = taught["change"][:, 1, 1]
    error = float(np.std(rise, ddof=1) / np.sqrt(rise.size))
    yield measured(scores.other_pairs_lift_on_policy, -rise.mean(), 0.0, monte_carlo(error))


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.displacement import draw

    says = verdicts.line
    yield "curves", draw.curves(setup, found), (
        "DPO on No (chosen) against Never; Yes is in no pair. Lines: closed form, dots: Runge-Kutta.\n"
        + says(flow.logits_along_the_flow) + "\n" + says(flow.unembedding_alone_never_displaces) + "\n"
        + says(flow.displacement_is_permanent_with_features_alone) + "\n"
        + says(flow.displacement_is_transient_with_both)
    )  # fmt: skip
    yield "phases", draw.phases(setup, found), (
        "Left: the lowest probability of No on its way, from 0.85. Full line: C2(ii) at the start; dashed: where the "
        "speed at the start is 0. Right: IPO stops at a margin; full line: back at 0.85, dashed: C7.\n"
        + says(tokens.third_gains_on_the_chosen) + "\n" + says(flow.kappa_threshold) + "\n"
        + says(tokens.more_similar_displaces_more) + "\n" + says(flow.margin_losses_share_their_path)
    )  # fmt: skip
    yield "ranks", draw.ranks(setup, found), (
        f"Random pairs of sequences, {setup.pairs} each, means of {setup.seeds} draws; bars: smallest to largest. "
        "Maps: four tokens each. On-policy CHES has no power, and its power at varied lengths is mostly length.\n"
        + says(scores.ches_is_exact_where_all_tokens_are_alike) + "\n"
        + says(scores.uniform_law_turns_ches_around) + "\n" + says(scores.ches_ranks_pairs) + "\n"
        + says(scores.ches_measures_length)
    )  # fmt: skip
    yield "percentiles", draw.percentiles(setup, found), (
        f"A small recurrent network trained on {network.SUBSET} pairs around a percentile of a score (high: similar). "
        f"Means and standard errors of {setup.networks} networks. A trend of this toy; real models are not it.\n"
        + says(scores.no_displacement_below_zero_ches) + "\n" + says(scores.order_by_ches_is_a_property_of_the_policy)
    )  # fmt: skip
    yield "refusals", draw.refusals(setup, found), (
        f"{setup.refusers} models taught to refuse with probability 0.8, then DPO on pairs of their own answers. "
        f"Middle: dots are models, bars means; the filter keeps the {refusal.KEPT:.0%} of lowest CHES. The mean of "
        "ln pi(y+) rises at first, as it must, and falls once the pairs are no longer the model's own.\n"
        + says(scores.own_pair_lifts_on_policy) + "\n" + says(scores.other_pairs_lift_on_policy) + "\n"
        + says(scores.other_pairs_lift_off_policy)
    )  # fmt: skip
    yield "kernels", draw.kernels(setup, found), (
        "Networks in which hidden vectors are not free. Left: pairs of single tokens. Right: sequences of four tokens, "
        "bars from smallest to largest network.\n"
        + says(flow.kappa_threshold) + "\n" + says(scores.ches_sees_single_tokens)
    )  # fmt: skip
    yield "accounts", _accounts.figure(found["accounts"]), _accounts.caption(found["accounts"])


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that the figures show, and two ways to tell a fall."""
    left_out = {"pair": {"W", "h"}}
    kept: dict[str, dict[str, Any]] = {
        stage: {name: x for name, x in arrays.items() if name not in left_out.get(stage, ())}
        for stage, arrays in found.items()
    }
    change = found["refusal"]["change"][:, 0]
    highest = np.maximum.accumulate(change, axis=1)
    kept["refusal"] |= {"end less start": change[:, -1], "largest drop": (highest - change).max(axis=1)}
    kept["accounts"]["table"] = _accounts.table(found["accounts"])
    return kept


def accounts(setup: Setup, key: Array) -> dict[str, Array]:
    """Entanglement, the exact gradient, CHES, squeezing and similarity scores, against the same runs of DPO."""
    return _accounts.measure(key, pairs=setup.compared, seeds=setup.compared_seeds, steps=setup.compared_steps)


STAGES = {
    "pair": measure.pair,
    "phase": measure.phase,
    "scores": sequences.scores,
    "network": network.network,
    "refusal": refusal.refusal,
    "accounts": accounts,
}
EXPERIMENT = Experiment(
    "displacement", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
