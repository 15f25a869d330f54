"""The figures that move: what they show at every place of the sliders is what the theorems say there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import experiments
from experiments._gallery.movable import Mark, Movable, drawn
from experiments._gallery.render import embedded
from tests.tolerances import Tolerance, assert_close, identity

MOVING = [name for name in experiments.names() if experiments.load(name).movable is not None]


@cache
def figure(name: str) -> Movable:
    experiment = experiments.load(name)
    return experiment.movable(experiment.setup())


def reading(name: str, label: str) -> np.ndarray:
    [found] = [r for r in figure(name).readings if r.label == label]
    return np.asarray(found.values)


def marks(name: str, label: str) -> list[Mark]:
    found = [m for panel in figure(name).panels for m in panel.marks if m.label == label]
    assert found, label
    return found


def test_there_are_those_that_were_promised():
    assert {"entanglement", "dpo_3d", "duality", "h_calibration", "multiplicity", "pn_criterion"} <= set(MOVING)


@pytest.mark.parametrize("name", MOVING)
def test_figures_can_be_drawn(name):
    """Each has finite numbers at every place, and every slider changes the picture."""
    found = drawn(figure(name))
    moved = {slider for mark in found["data"]["marks"] for slider in mark["by"]}
    assert moved == set(range(len(found["sliders"])))
    assert len(embedded(found["data"])) < 250_000
    for panel in found["panels"]:
        assert panel["x"]["label"] and panel["y"]["label"] and panel["about"]


def test_the_first_step_is_what_kappa_and_the_cosine_say():
    """Chosen up iff the cosine is below kappa, rejected down iff below 1 / kappa; in the end, by what changed."""
    ratio, cosine = (np.asarray(s.values) for s in figure("entanglement").sliders)
    ratio, cosine = np.meshgrid(ratio, cosine, indexing="ij")
    clear = (np.abs(cosine - ratio) > 1e-3) & (np.abs(cosine - 1 / ratio) > 1e-3)
    rises, falls = cosine < ratio, cosine < 1 / ratio
    wanted = np.where(rises & falls, "ideal: chosen up, rejected down", np.where(rises, "both rise", "both fall"))
    words = reading("entanglement", "first step")
    assert clear.mean() > 0.9 and (words == wanted)[clear].all() and len(set(words.ravel())) == 3
    after, chosen, rejected = (reading("entanglement", x) for x in ("after 400 steps", "chosen", "rejected"))
    assert ((chosen > 0) == (after != "both fall")).all() and ((rejected > 0) == (after == "both rise")).all()


def test_the_margin_is_largest_where_beta_times_it_is_two():
    """And the three lines are what their legend says: the rejected falls at every beta, the chosen ends above it."""
    for at in ("10", "100", "1,000"):
        [line] = marks("dpo_3d", f"time {at}")
        u, time = line.x * line.y, float(at.replace(",", ""))
        assert_close(u + np.exp(u), 1 + 2 * line.x**2 * time)  # u' = 2 beta^2 sigma(-u), from 0
        crest = np.argmax(line.y)
        around = u[[max(crest - 1, 0), min(crest + 1, len(line.x) - 1)]]
        assert around[0] < 2 < around[1]  # beta g grows with beta
    [chosen], [rejected] = marks("dpo_3d", "chosen"), marks("dpo_3d", "rejected")
    assert (np.diff(rejected.y, axis=-1) < 0).all() and (np.asarray(chosen.y)[..., -1] > rejected.y[..., -1]).all()


def test_a_table_is_in_order_after_one_step():
    [pairs], [left] = marks("duality", "pairs in order"), marks("duality", "KL left")
    assert (pairs.y[0] == 1).all() and pairs.y[-1].max() < 1
    [law] = marks("duality", "data law")
    assert (np.diff(law.top) < 0).all()  # from the likeliest to the rarest
    assert (np.diff(left.y[0]) < 0).all() and 0 < left.y[0, -1] < 0.01 < 0.5 < left.y[0, 0]


def test_the_pooled_loss_is_least_at_the_truth():
    """Leaving one class out that is so at equal priors alone: elsewhere its best is too cold or too warm."""
    assert_close(reading("h_calibration", "pooled is least at T"), 1.0)
    other = reading("h_calibration", "leaving one class out is least at T")
    priors = np.asarray(figure("h_calibration").sliders[0].values)
    assert_close(other[np.argmin(np.abs(priors - 0.5))], 1.0)
    assert other.min() < 0.9 and other[priors < 0.15].max() > 2


def test_ranges_hold_the_best_model_and_grow_with_epsilon():
    [best] = marks("multiplicity", "best model")
    bars = [*marks("multiplicity", "range of risks"), *marks("multiplicity", "… in which the label changes")]
    for place, changed in enumerate(reading("multiplicity", "label can change")):
        for bar in bars:
            of = np.asarray(bar.x[place], int) - 1
            assert (np.asarray(bar.y[place]) < best.y[of]).all() and (best.y[of] < np.asarray(bar.top[place])).all()
        still, change = (len(bar.x[place]) for bar in bars)
        assert still + change == len(best.y) and change == round(changed * len(best.y))
        for bar, crosses in zip(bars, (False, True), strict=True):
            ends = zip(bar.y[place], bar.top[place], strict=True)
            assert all((low <= 0.5 <= high) == crosses for low, high in ends)
    moved = reading("multiplicity", "risk moved by δ")
    assert (
        (np.diff(moved, axis=0) >= 0).all()
        and (np.diff(moved, axis=1) <= 0).all()
        and moved[0, -1] == 0 < moved[-1].min()
    )


def test_the_risk_at_the_draws_needed_is_the_allowed_one():
    """a/n + b/n^2 = 8 alpha^2 at n*, with a and b from the drawn curve itself; a/n alone for the first order."""
    alpha = np.asarray(figure("pn_criterion").sliders[0].values)
    allowed = 8 * alpha**2
    assert_close(reading("pn_criterion", "allowed risk"), allowed)
    [both], [first] = marks("pn_criterion", "n*, both orders"), marks("pn_criterion", "first order alone, a / 8α²")
    solved = Tolerance(1e3 * identity().rtol, 0, "a and b are solved for from two points of a curve")
    for p in (1, 4, 8, 11):
        [curve] = marks("pn_criterion", f"p = {p}")
        n = np.asarray(curve.x)[[0, -1]]
        a, b = np.linalg.solve(np.stack([1 / n, 1 / n**2], axis=1), np.asarray(curve.y)[:, [0, -1]].T)
        for line, second in ((both, b), (first, 0 * b)):
            at = np.asarray(line.x)[..., p - 1]  # (alphas, misspecifications)
            assert_close(a / at + second / at**2, np.broadcast_to(allowed[:, None], at.shape), solved, f"p = {p}")
