"""What the simulations say of the statements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.h_calibration.measure import BINS, TAIL, TRIALS
from experiments.h_calibration.setup import Setup
from experiments.harness import Check, agrees, along, measured, refuted
from theory.h_calibration import gaps, maps, scores, subsets

Found = Mapping[str, Mapping[str, Any]]


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """Every check, in the order of the stages."""
    yield from _of_the_noise(setup, found["noise"])
    yield from _of_the_subsets(setup, found["landscape"], found["phases"])
    yield from _of_predictions(found["recovery"])
    yield from _of_maps(found["order"])


def _of_the_noise(setup: Setup, noise: Mapping[str, Any]) -> Iterator[Check]:
    window, independent = noise["window"], setup.events / noise["window"]
    error = noise["floor"] * np.sqrt((np.pi / 2 - 1) / independent)
    yield measured(
        gaps.noise_floor_of_a_window, np.abs(noise["loss"] / noise["floor"] - 1), 4 * error / noise["floor"] + 0.01,
        0.0, "4 standard errors of as many windows as share no event, and 1 % for windows of 51 events",
    )  # fmt: skip
    slopes = np.polyfit(np.log(window[:3]), np.log(noise["loss"][:3]), 1)[0]
    spread = 4 * np.sqrt((np.pi / 2 - 1) / independent[2])
    yield measured(gaps.noise_floor_falls_like_the_root, slopes, -0.5, 0.03 + spread,
                   "0.03, stated with the claim, and 4 standard errors of the longest of three windows")  # fmt: skip
    bound = 2 * np.exp(-2 * 201 * TAIL**2)
    yield measured(
        gaps.hoeffding_exponent_is_least, np.log(max(float(noise["beyond"]), 1e-12)), np.log(bound), 0.0,
        f"the share of windows of 201 whose |gap| is beyond {TAIL}, and its bound, as logarithms",
    )  # fmt: skip
    for bins in BINS[:2]:
        mean, error, floor = noise[f"ece{bins}"]
        yield measured(
            scores.plug_in_error_of_the_truth, mean, floor, 0.05 * floor + 4 * float(error),
            f"4 standard errors, and 5 % for bins of {100 // bins} samples, which are not quite normal",
        )  # fmt: skip


def _of_the_subsets(setup: Setup, landscape: Mapping[str, Any], phases: Mapping[str, Any]) -> Iterator[Check]:
    every = np.concatenate([landscape["four"], landscape["two"][None]])
    pooled, left_out, classwise = np.moveaxis(np.argmin(every, axis=-1), -1, 0)
    middle = setup.temperatures // 2
    right = np.concatenate([pooled, classwise]) == middle
    yield agrees(subsets.truth_minimises_the_pooled_loss, np.ones(right.shape, bool), right,
                 "on the grid, pooled and class-wise losses are least at T = 1, for every prior")  # fmt: skip
    population = np.abs(np.log(phases["pooled"]))
    yield agrees(subsets.truth_minimises_the_pooled_loss, np.ones(population.shape, bool), population < 0.02,
                 "in the population, too, for every prior and separation")  # fmt: skip
    yield agrees(subsets.exchangeable_classes_save_the_truth, np.array([True]), left_out[:1] == middle,
                 "with equal shares the loss without one class is least at T = 1, too")  # fmt: skip
    share = np.linspace(0.05, 0.95, 19)
    yield refuted(subsets.truth_minimises_leave_one_class_out, q=share)
    yield along(subsets.every_calibrated_constant_pays_one_half, q=share)
    yield along(subsets.leaving_one_out_sees_what_pooling_hides, u=share)
    yield refuted(subsets.zero_pooled_loss_means_calibrated, a=np.array([0.5, 0.7, 0.8]))
    yield refuted(scores.top_label_calibration_means_classwise, a=np.array([0.5, 0.7, 0.8]))


def _of_predictions(run: Mapping[str, Any]) -> Iterator[Check]:
    predicted, truth = np.exp(run["log_probs"]), run["truth"]
    count = len(truth)
    which = np.arange(count) % truth.shape[1]
    hit = np.eye(truth.shape[1])[which]
    yield along(gaps.predicted_minus_observed, p=predicted, o=hit)
    yield along(gaps.mean_and_variance_of_a_window, p=predicted, q=truth)
    yield along(subsets.gap_at_the_truth_without_a_class, p=truth, j=which, k=which[::-1])
    yield along(subsets.gaps_without_a_class_add_up, p=predicted, q=truth, j=which)
    yield along(subsets.uniform_prediction_has_no_pooled_gap, prior=truth)
    yield refuted(subsets.uniform_prediction_is_classwise_calibrated, prior=truth)
    yield along(scores.brier_is_spread_and_distance, q=truth, g=predicted)
    yield along(scores.nll_is_entropy_and_divergence, weight=np.full((1, count), 1 / count), q=truth[None],
                g=predicted[None])  # fmt: skip


def _of_maps(run: Mapping[str, Any]) -> Iterator[Check]:
    temperature, mixture, piecewise = run["kept"]
    always = np.ones(TRIALS, bool)
    for theorem, kept in ((maps.increasing_maps_keep_the_order, temperature),
                          (maps.mixtures_of_temperatures_keep_the_order, mixture),
                          (maps.piecewise_map_goes_on_from_its_knots, piecewise)):  # fmt: skip
        yield agrees(theorem, always, kept, "no sample may change the order of its classes")
    s0, s1, s2 = run["random_slopes"].T
    both = {"s0": s0, "s1": s1, "s2": s2, "width": 10.0, "below": 0.001}
    yield refuted(maps.released_map_is_increasing, **both)
    yield refuted(maps.released_map_is_continuous, **both)
