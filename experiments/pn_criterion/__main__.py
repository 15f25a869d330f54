"""The p-n criterion: are there draws enough for a model of p parameters, whether or not it is right?

Paper: Sheena, MLE convergence speed to information projection of exponential family: criterion for model dimension and
sample size (2021, arXiv:2105.08947).
Question: how far from the closest member of the model does its fit to n draws lie, and from which n on could nobody
tell the two apart? Figures: exact risks against a/n + b/n^2 (risk), the coefficient of n^-2 and the direction of the
divergence (second_order), what p and n allow and what AIC and TIC would choose (phase_diagram), what a wrong model
changes (misspecification), from divergence to Bayes error (bayes_error), the criterion estimated (plug_in). Look for:
intercepts that hit b; a score that picks a model which n* rejects; a mean that is safe where single fits are not.

Your own table: --data FILE.csv --model gaussian, loglinear or softmax, with --alpha.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.harness import Check, Experiment, Verdicts, agrees, along, main, measured, refuted
from experiments.pn_criterion import softmax, toys, user
from experiments.pn_criterion.movable import movable
from experiments.pn_criterion.setup import Setup
from experiments.pn_criterion.toys import TOYS
from sandbox.expfam import exact
from sandbox.tolerances import identity
from theory.pn_criterion import curves, draws, expansion, families, telling

Found = Mapping[str, Mapping[str, Any]]

STAGES = {
    "enumerated": toys.enumerated,
    "curved": toys.curves,
    "continuous": toys.continuous,
    "misspecified": softmax.misspecified,
    "sampled": softmax.sampled,
    "grid": softmax.grid,
    "plug in": softmax.plug_in,
}


def richardson(n: np.ndarray, risk: np.ndarray, a: float) -> float:
    """2 c(2n) - c(n) at the last two n, c = n^2 (R - a/n): free of the order n^-3."""
    c = n**2 * (risk - a / n)
    return float((n[-1] * c[-1] - n[-2] * c[-2]) / (n[-1] - n[-2]))


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """What the simulations say of the statements."""
    yield from _of_counting(found["enumerated"])
    yield from _of_curves(found["curved"])
    run = found["continuous"]
    normal = slice(0, len(toys.DIMENSIONS))
    yield measured(families.exact_risk_of_normal_laws, run["risk"][normal, -1],
                   _at(run["expansion"][normal], run["n"][normal, -1]), 1e-4, "the order n^-3 at 8 n*")  # fmt: skip
    yield measured(families.exact_risk_of_the_exponential_model, run["risk"][normal.stop :, -1],
                   _at(run["expansion"][normal.stop :], run["n"][normal.stop :, -1]), 1e-4,
                   "the order n^-3 at 8 n*")  # fmt: skip
    needed = slice(0, normal.stop + 2)
    yield measured(draws.second_order_criterion, run["exact"][needed], run["second"][needed], 0.02,
                   "n* is no whole number, and the order n^-3 moves it by less than one of 27 or more")  # fmt: skip
    run = found["misspecified"]
    allowed = 8 * setup.alpha**2
    yield along(draws.second_order_adds_a_constant, a=run["a"].ravel(), b=run["b"].ravel(), c=allowed)
    tables = np.array([[4, 1, 1, 4], [1, 2, 3, 4], [9, 1, 2, 2], [1, 1, 1, 1]], float)
    cells = dict(zip(("q00", "q01", "q10", "q11"), tables.T, strict=True))
    yield along(draws.dependence_is_not_seen, **cells)
    yield refuted(draws.full_marks_mean_a_right_model, **cells)
    yield from _of_telling(found["sampled"], found["grid"])


def _at(expansion: np.ndarray, n: np.ndarray) -> np.ndarray:
    return expansion[:, 0] / n + expansion[:, 1] / n**2


def _of_counting(run: Mapping[str, Any]) -> Iterator[Check]:
    why = "Richardson's step leaves the order n^-2 of b"
    found: dict[str, list[float]] = {
        name: [] for name in ("b", "forward", "b_rev", "reverse", "slope", "cumulants", "derivatives")
    }
    of_toy = ("n", "lost", *(f"{way}{name}" for way in ("", "reverse_") for name in ("expansion", "by_derivatives")))
    for toy in TOYS:
        of = {name: run[f"{toy.name}: {name}"] for name in (*of_toy, "forward", "reverse")}
        exact.check_lost(of["lost"], of["n"].tolist())
        (a, b), (_, b_rev) = of["expansion"], of["reverse_expansion"]
        found["b"].append(b)
        found["b_rev"].append(b_rev)
        found["forward"].append(richardson(of["n"], of["forward"], a))
        found["reverse"].append(richardson(of["n"], of["reverse"], a))
        found["cumulants"] += [*of["expansion"], *of["reverse_expansion"]]
        found["derivatives"] += [*of["by_derivatives"], *of["reverse_by_derivatives"]]
        rest = of["forward"] - _at(of["expansion"][None, :], of["n"])
        found["slope"].append(np.diff(np.log(np.abs(rest)))[-1] / np.diff(np.log(of["n"]))[-1])
    yield measured(expansion.second_order_risk, found["forward"], found["b"], 0.02, why)
    yield measured(expansion.second_order_risk, found["cumulants"], found["derivatives"], identity())
    yield measured(expansion.second_order_reverse_risk, found["reverse"], found["b_rev"], 0.02, why)
    yield measured(expansion.what_is_left_is_of_third_order, found["slope"], np.full(len(TOYS), -3.0), 0.1,
                   "the slope between two n: the order n^-4 is some 10/n of this one")  # fmt: skip


def _of_curves(run: Mapping[str, Any]) -> Iterator[Check]:
    model, true, score = run["informations"].T
    clear = np.abs(model - true) > 1e-9 * model
    first_order = curves.first_order_is_half_of_tic_only_if
    by_derivatives = run["by_derivatives"][:, 0]
    yield agrees(first_order, (model > true)[clear], (by_derivatives > run["half_penalty"])[clear])
    yield measured(first_order, by_derivatives, run["first_order"], identity())
    yield refuted(curves.first_order_is_half_of_tic, I=model, J=true, K=score)


def _of_telling(run: Mapping[str, Any], grid: Mapping[str, Any]) -> Iterator[Check]:
    error = np.concatenate([run["some_bayes"].ravel(), grid["some_bayes"][grid["some_exists"]]])
    risk = np.concatenate([run["some_forward"].ravel(), grid["some_forward"][grid["some_exists"]]])
    yield measured(telling.close_laws_cannot_be_told_apart, 0.5 - error, np.sqrt(np.maximum(risk, 0) / 8), identity())
    yield measured(telling.mean_risk_bounds_the_mean_error, (0.5 - run["bayes"]) ** 2, run["risk"] / 8, identity())


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.pn_criterion import draw

    says = verdicts.line
    yield "risk", draw.risk(setup, found), (
        "Dots: every sample of n draws counted (left), exact (right). The risk is E KL(projection || fit).\n"
        + says(expansion.second_order_risk) + "\n" + says(families.exact_risk_of_normal_laws)
    )  # fmt: skip
    yield "second_order", draw.second_order(setup, found), (
        "What is left of the exact risk beyond a/n, times n^2: it hits b where 1/n = 0.\n"
        + says(expansion.second_order_risk) + "\n" + says(expansion.second_order_reverse_risk)
    )  # fmt: skip
    grid = found["grid"]
    picked, beyond = grid["picked_but_rejected"][:, 0], grid["accepted_beyond"][:, 0]
    yield "phase_diagram", draw.phase_diagram(setup, found), (
        f"Left: mean risk over {setup.grid_samples} samples a cell. Right: scores look for the closest fit, the "
        f"criterion for a fit that is settled. At n = {grid['n'][4]} AIC's model is rejected in {picked[4]:.0%} of the "
        f"samples; in {beyond[4]:.0%} a larger one would be accepted.\n"
        + says(draws.second_order_criterion) + "\n" + says(draws.second_order_adds_a_constant)
    )  # fmt: skip
    yield "misspecification", draw.misspecification(setup, found), (
        "Twelve symbols, p cosines; gamma moves the truth away from every such model but the saturated one (p = 11). "
        "The first order hardly sees it.\n"
        + says(draws.dependence_is_not_seen) + "\n" + says(draws.full_marks_mean_a_right_model)
    )  # fmt: skip
    yield "bayes_error", draw.bayes_error(setup, found), (
        "The error of telling fit from projection by one draw. Right: at n* (alpha = 0.05) the mean is safe, single "
        "fits are not: the criterion is about the mean.\n"
        + says(telling.close_laws_cannot_be_told_apart) + "\n" + says(telling.mean_risk_bounds_the_mean_error)
    )  # fmt: skip
    yield "plug_in", draw.plug_in(setup, found), (
        f"Softmax toy, p = {softmax.PLUG_IN_P}, gamma = 1: both orders estimated from {setup.plug_in_samples:,} "
        "samples. Dashed: 8 alpha^2; green: both orders at the truth. The second order is noisier, and less often "
        "deceived.\n"
        + says(draws.first_order_criterion)
    )  # fmt: skip


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that the figures show; single fits and estimates by their quantiles."""
    left_out = {
        "sampled": {"some_forward", "some_bayes"},
        "grid": {"some_forward", "some_bayes", "some_exists"},
        "plug in": {"a", "b", "first", "second", "exists"},
    }
    kept = {
        stage: {name: x for name, x in arrays.items() if name not in left_out.get(stage, ())}
        for stage, arrays in found.items()
    }
    run = found["plug in"]
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    for name in ("a", "b", "first", "second"):
        kept["plug in"][f"{name}_quantiles"] = [
            np.quantile(x[there], levels) for x, there in zip(run[name], run["exists"], strict=True)
        ]
    return kept


EXPERIMENT = Experiment(
    "pn_criterion", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report,
    movable=movable,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
