"""What the simulations say of the statements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from experiments.dpo_3d.linear import KNOBS as SCORES
from experiments.dpo_3d.linear import STEP, L, W
from experiments.dpo_3d.setup import Setup
from experiments.dpo_3d.table import DESCENT_BETA, START
from experiments.harness import Check, agrees, along, constant, drift, measured, refuted
from sandbox.statistics import log_log_slope
from sandbox.tables import dpo_margin
from sandbox.tolerances import Tolerance, identity, step_error
from theory.dpo_3d import free, mends, rates, softmax

Found = Mapping[str, Mapping[str, Any]]
RK4 = "Runge-Kutta of fourth order, 16 steps between two times"


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """Every claim that a simulation can touch."""
    yield from _in_a_table(setup, found["table"])
    yield from _in_free_variables(setup, found["table"])
    yield from _dispersion(setup, found)
    yield from _rates(setup, found)
    yield from _with_features(setup, found)
    yield from _mends(setup, found)
    yield from _other_losses(found)


def _in_a_table(setup: Setup, m: Mapping[str, Any]) -> Iterator[Check]:
    z, z0 = m["logits"], m["logits"][0]
    pair: dict[str, Any] = {"w": W, "l": L, "beta": setup.beta}
    table = {"phi": constant(np.eye(len(z0))), "w": W, "l": L, "beta": setup.beta}
    yield drift(softmax.clock_with_features, m["time"], tolerance=1e-6, why=RK4, theta=z, theta0=constant(z0), **table)
    yield drift(softmax.sum_of_logits_is_conserved, m["time"], tolerance=identity(), z=z, z0=constant(z0), **pair)
    yield measured(softmax.path_of_the_table, m["log_probs"], m["closed_form"], 1e-6, RK4)
    # The margin's speed falls from f0 = beta to f: Euler's error is (step / 2) f log(f0 / f) and less than step^2 more.
    # No log-probability moves by more than the margin does.
    euler = "at most f0 / 2e, where f0 = beta is the margin's first speed, which falls"
    descent = step_error(float(m["learning_rate"][-1]), DESCENT_BETA / (2 * np.e), euler)
    yield measured(softmax.path_of_the_table, m["descent_gap"][-1], 0.0, descent)
    states = {"z": z[z[:, L] > -300], "z0": constant(z0), **pair}
    for theorem in (
        softmax.forces_are_equal_and_opposite,
        softmax.table_never_lowers_the_chosen,
    ):
        yield along(theorem, **states)
    apart = z[m["log_probs"][:, W] < -1e-5]  # where 1 - pi_w has lost no more than five digits
    yield along(softmax.ratio_of_the_speeds, z=apart, z0=constant(z0), **pair)
    yield along(softmax.unseen_gain_while_the_rejected_leads, **states, o=2)


def _in_free_variables(setup: Setup, m: Mapping[str, Any]) -> Iterator[Check]:
    p = np.exp(m["log_probs"])
    early = p[:, L] > 1e-12
    reference = {"a": START[W], "b": START[L], "beta": setup.beta}
    at = {"p": p[early, W], "q": p[early, L], **reference}
    for theorem in (
        free.slopes_of_dpo,
        free.ratio_of_the_slopes,
        free.slope_as_the_rejected_vanishes,
        free.slope_in_the_chosen_vanishes,
        free.rejected_slope_grows_below_one,
    ):
        if theorem is not free.rejected_slope_grows_below_one or setup.beta < 1:
            yield along(theorem, **at)
    law = {"p": p[early], "w": W, "l": L}
    for theorem in (
        free.ratio_of_slopes_is_a_ratio_of_speeds,
        free.learning_is_mostly_suppression,
        free.mass_disperses_once_the_chosen_leads,
    ):
        yield refuted(theorem, **law, beta=setup.beta)
    yield refuted(free.balance_spares_the_others, **law, d=1.0)


def _dispersion(setup: Setup, found: Found) -> Iterator[Check]:
    m = found["dispersion"]
    inside = np.isfinite(m["bound"])
    grid = "a grid of 801 margins: none lies above the supremum"
    yield measured(softmax.dispersion_is_bounded, m["peak"][inside], m["bound"][inside], 1e-9, grid)
    start, top, back = m["unseen_at_stops"]
    bound = start / (1 - (np.sqrt(START[L]) - np.sqrt(START[W])) ** 2)
    finer = "Runge-Kutta of fourth order, 400 steps between two times"
    yield measured(softmax.dispersion_peaks_where_both_are_equal, top, bound, 1e-9, finer)
    yield measured(softmax.dispersion_is_transient, back, start, 1e-9, finer)
    for log_probs in found["scenarios in a table"]["log_probs"]:
        visited = {"p": np.exp(log_probs[log_probs[:, L] > -30]), "w": W, "l": L}
        yield along(mends.cross_entropy_disperses_too, **visited)
    model = found["reward model"]
    yield measured(free.reward_model_walks_the_path_of_dpo, model["tilted"], model["dpo"], 1e-6, RK4)
    scores = {"r": model["scores"], "w": W, "l": L}
    yield along(free.reward_slopes_balance, **scores)


def _rates(setup: Setup, found: Found) -> Iterator[Check]:
    m = found["powers of time"]
    for k, theory in ((L, -1 / m["beta"]), (2, -1 / (2 * m["beta"]))):
        fitted = [log_log_slope(m["time"], np.exp(x[:, k])).slope for x in m["log_probs"]]
        logs = "t from 1e6 to 1e8, where log t bends a power by less than 1e-3 of itself"
        yield measured(rates.rates_in_a_table, np.array(fitted), theory, 2e-3, logs)
    late = m["control_time"] > 1e6
    control = [log_log_slope(m["control_time"][late], np.exp(m["control"][late, k])).slope for k in (1, 2, 3, 4)]
    slow = "e^-z grows like t^(1/K), its differences stay: they bend the exponent by t^(-1/K) / K, t = 1e6, K = 5"
    yield measured(rates.clock_of_cross_entropy, np.array(control), -np.ones(4), 1e6**-0.2 / 5, slow)
    levels = {"z": m["control"], "w": W, "i": 1, "j": 2}
    yield drift(rates.cross_entropy_levels_the_others, m["control_time"], tolerance=1e-5, why=RK4, **_shifted(levels))
    ridge = found["crest"]
    top = np.argmax(ridge["margin"], axis=1)
    u = ridge["beta"][top] * np.take_along_axis(ridge["margin"], top[:, None], axis=1)[:, 0]
    spacing = float(np.log(ridge["beta"][1] / ridge["beta"][0]))
    yield measured(rates.margin_peaks_at_two, u, 2.0, 2 * spacing, "the best beta of a grid, one spacing off at most")
    grown = dpo_margin(ridge["time"][:, None], beta=ridge["some"])
    yield measured(rates.margin_peaks_at_two, ridge["integrated"], grown, 1e-6, "Runge-Kutta, 256 steps")


def _shifted(levels: dict[str, Any]) -> dict[str, Any]:
    """Logits for log-probabilities: those of the cross-entropy flow keep their sum."""
    z = levels["z"]
    return levels | {"z": z - z.mean(axis=-1, keepdims=True) + z[0].mean()}


def _with_features(setup: Setup, found: Found) -> Iterator[Check]:
    m = found["random log-linear models"]
    why = "exact signs, where the slope exceeds the term of the square of the step"
    sure = np.abs(m["slope"]) > m["clear"][:, None]
    rises, falls = m["change"][:, W] > 0, m["change"][:, L] < 0
    yield agrees(softmax.one_number_law, (m["mean_score"] < 1)[sure[:, 0]], rises[sure[:, 0]], why)
    yield agrees(softmax.one_number_law, (m["mean_score"] > 0)[sure[:, 1]], falls[sure[:, 1]], why)
    clear = np.abs(m["safe_slope"]).min(axis=1) > m["clear"]
    safe = (m["safe_change"][:, W] > 0) & (m["safe_change"][:, L] < 0)
    yield agrees(mends.safe_cone_is_never_empty, np.ones(clear.sum(), bool), safe[clear], why)
    clear = np.abs(m["tuned_slope"]) > m["clear"]
    tuned = m["tuned_change"] > 0
    yield agrees(mends.weight_that_starts_upwards, (m["alpha"] > m["enough"])[clear], tuned[clear], why)

    k = found["scores as knobs"]
    for case, (scores, _) in enumerate(SCORES.values()):
        count = len(scores)
        start = np.exp(k["start"][case, :count])
        later = k["margin"][case] > 0
        states = {"P": constant(start), "s": constant(k["scores"][case, :count]), "g": k["margin"][case][later]}
        yield along(softmax.tilt_by_the_scores, **states, k=W)
        p = np.exp(k["log_probs"][case, :, :count])
        p = p[p.min(axis=1) > 1e-250]
        yield along(softmax.share_of_suppression_is_the_mean_score, p=p, w=W, l=L, s=constant(np.array(scores)))
        yield along(softmax.dispersion_with_features, p=p, w=W, l=L, s=constant(np.array(scores)))
    square = (k["scores"][:, W] - k["scores"][:, L]) ** 2
    closed = dpo_margin(k["time"], beta=setup.beta, kappa=square[:, None])
    yield measured(softmax.clock_with_features, k["margin"], closed, 1e-6, RK4)

    edit = found["tokens"]
    clear = np.abs(edit["ahead"]) > 1e-3
    yield agrees(softmax.unigram_edit_lowers_the_chosen, (edit["ahead"] > 0)[clear], (edit["change"] < 0)[clear],
                 "exact signs, 1e-3 away from the boundary; steps of 1e-5")  # fmt: skip
    shared = found["a shared rejected"]
    clear = np.abs(shared["slope"]) > 10 * STEP
    yield agrees(softmax.second_chosen_lowers_the_first, (shared["slope"] > 0)[clear], (shared["change"] > 0)[clear],
                 why)  # fmt: skip


def _mends(setup: Setup, found: Found) -> Iterator[Check]:
    m = found["phase diagram"]
    why = "exact signs, where the slope exceeds the term of the square of the step tenfold; steps of 1e-6"
    sure = np.abs(m["slope"]) > 1e-5
    kappa = m["kappa"]
    rises = ~(kappa > m["r_w"])  # NaN: no boundary, the chosen always rises
    falls = ~(kappa < m["r_l"])
    yield agrees(mends.boundaries_of_two_weights, rises[sure[:, 0]], (m["change"][:, 0] > 0)[sure[:, 0]], why)
    yield agrees(mends.boundaries_of_two_weights, falls[sure[:, 1]], (m["change"][:, 1] < 0)[sure[:, 1]], why)
    turning = np.isfinite(m["r_u"]) & (np.abs(np.log(kappa / m["r_u"])) > 1e-3)
    yield agrees(mends.speeds_under_two_weights, (kappa > m["r_u"])[turning], (m["change_unseen"] > 0)[turning],
                 "exact signs, a thousandth of kappa away from r_U")  # fmt: skip
    ends = found["fates"]
    away = np.abs(ends["peak"] - ends["separatrix"]) > 0.01
    won = ends["log_chosen"] > ends["log_chosen_start"]
    yield agrees(mends.fate_is_sealed_beyond_the_separatrix, (ends["peak"] < ends["separatrix"])[away], won[away],
                 "no run may come out otherwise, a hundredth away from the separatrix")  # fmt: skip
    law = {"p": m["law"][:500], "w": W, "l": L}
    yield along(mends.boundaries_of_two_weights, **law, d_w=1.0, kappa=kappa[:500])
    tuned = found["fine-tuning term"]
    bounded = tuned["alpha"] > 0
    least = tuned["log_chosen"][:, 0] - np.log(2) / np.where(bounded, tuned["alpha"], 1)
    lowest = tuned["log_chosen"].min(axis=1)
    yield measured(mends.fine_tuning_bounds_the_fall, least[bounded], lowest[bounded], identity())
    z = found["table"]["log_probs"]
    z = z[z[:, L] > -30]
    yield along(mends.fine_tuning_does_not_slow_the_margin, p=np.exp(z), w=W, l=L, z0=constant(z[0]),
                alpha=setup.alpha, beta=setup.beta)  # fmt: skip


def _other_losses(found: Found) -> Iterator[Check]:
    m = found["losses that stop"]
    tau = 0.1
    closed = jax.vmap(lambda t: (1 - np.e ** (-4 * t)) / (2 * tau))(m["time"])
    yield measured(mends.ipo_flows_to_its_target, m["ipo_margin"], closed, 1e-6, RK4)
    start = m["slic_log_odds"][0]
    kink = Tolerance(0, 2 / 128, "2 a unit of time, in steps of 1/128: the kink is met within a step")
    yield measured(mends.slic_flows_to_its_margin, m["slic_log_odds"], np.minimum(start + 2 * m["time"], 5.0), kink)
    stays = np.abs(np.log(START[L] / START[W]) - 1 / (4 * m["tau"])) > 1e-9
    above = m["unseen_end"] > sum(START[2:])
    yield agrees(mends.where_a_finite_margin_leaves_the_unseen,
                 (START[L] / START[W] > np.exp(1 / (4 * m["tau"])))[stays], above[stays])  # fmt: skip
    z = found["table"]["log_probs"][:20]
    beyond = np.exp(z)
    yield refuted(mends.ratio_makes_the_margin_grow_for_ever, p=beyond, w=W, l=L, z0=constant(z[0]), tau=1.0)
