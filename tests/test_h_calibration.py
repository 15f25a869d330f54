"""h-calibration in numbers: the references to their printed digits, and what a wrong reading would say."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theory
from experiments.h_calibration.measure import FITS, TWO, TWO_SEPARATION, known_miscalibration, population_losses
from sandbox import calibration
from sandbox.calibration import HLoss, Piecewise, Temperature, fit, nll
from tests.engine import verdict
from tests.tolerances import Tolerance, assert_close
from theory.proof import Refuted

X64 = jax.config.jax_enable_x64
float64_only = pytest.mark.skipif(not X64, reason="the same programs, slower sorts: float64 is enough")


def claim(name):
    return next(t for t in theory.theorems("h_calibration") if t.name == name)


# -- sets of atoms -----------------------------------------------------------------------------------------------------


def test_worst_set_by_enumeration():
    """Ten atoms, all 1,023 subsets: the largest mean gap is an atom's, the largest sum that of one sign."""
    rng = np.random.default_rng(0)
    mass, p, q = rng.dirichlet(np.ones(10)), rng.uniform(size=10), rng.uniform(size=10)
    gap = p - q
    sets = [list(s) for n in range(1, 11) for s in combinations(range(10), n)]
    means = [abs(mass[s] @ gap[s]) / mass[s].sum() for s in sets]
    sums = [abs(mass[s] @ gap[s]) for s in sets]
    assert_close(max(means), np.abs(gap).max(), Tolerance(1e-12, 1e-12, "float64 sums of ten numbers"))
    expected = max(mass @ np.maximum(gap, 0), mass @ np.maximum(-gap, 0))
    assert_close(max(sums), expected, Tolerance(1e-12, 1e-12, "float64 sums of ten numbers"))
    inside = np.isin(np.arange(10), sets[700]).astype(float)
    found = calibration.set_error(jnp.asarray(mass), jnp.asarray(gap), jnp.asarray(inside))
    assert_close(abs(found), means[700])


# -- what pooling hides ------------------------------------------------------------------------------------------------


def test_two_contexts_in_rationals():
    """Pooled gaps exactly zero, canonical errors 2/5; leaving a class out the gaps are 1/15 and 1/35, mean 1/21."""
    half, p, q = Fraction(1, 2), (Fraction(3, 5), Fraction(2, 5)), (Fraction(4, 5), Fraction(3, 5))
    contexts = [(p, (q[0], 1 - q[0])), (p[::-1], (q[1], 1 - q[1]))]
    for value in p:
        here = [(law[k], true[k]) for law, true in contexts for k in (0, 1) if law[k] == value]
        assert sum(half * (a - b) for a, b in here) == 0
    assert [sum(abs(a - b) for a, b in zip(*context, strict=True)) for context in contexts] == [Fraction(2, 5)] * 2
    gaps = {}
    for k in (0, 1):
        kept = [half * (1 - true[k]) for _, true in contexts]
        for value in p:
            total = Fraction(0)
            for (law, _), mass in zip(contexts, kept, strict=True):
                j = law.index(value)
                total += mass * (value - (0 if j == k else 1))
            gaps[k, value] = abs(total / sum(kept))
    assert {gaps[0, value] for value in p} == {Fraction(1, 15)} and {gaps[1, value] for value in p} == {Fraction(1, 35)}
    assert sum(gaps.values()) / 4 == Fraction(1, 21)


def test_counterexamples_as_they_are_shown():
    found = verdict(claim("zero_pooled_loss_means_calibrated"))
    assert isinstance(found, Refuted) and (found.counterexample, found.lhs, found.rhs) == ({"a": "4/5"}, "2/5", "0")
    found = verdict(claim("truth_minimises_leave_one_class_out"))
    assert isinstance(found, Refuted) and (found.counterexample, found.lhs, found.rhs) == ({"q": "1/3"}, "1/2", "0")
    found = verdict(claim("released_map_is_increasing"))
    assert isinstance(found, Refuted) and (found.lhs, found.rhs) == ("999/100", "46/5")


def test_losses_of_the_two_contexts():
    """40,000 samples: pooled at its noise floor, about .012; without one class about .0476; class by class 0.2."""
    rng = np.random.default_rng(0)
    context = rng.integers(0, 2, 40_000)
    p = np.where(context[:, None] == 0, [0.6, 0.4], [0.4, 0.6]) + 1e-9 * rng.normal(size=(40_000, 1)) * [1, -1]
    y = (rng.uniform(size=40_000) > np.where(context == 0, 0.8, 0.6)).astype(int)
    loss = jax.jit(calibration.h_loss, static_argnames=("window", "subsets"))
    width = float if X64 else np.float32
    pooled, left_out, classwise = (
        float(loss(np.log(p).astype(width), y, window=1001, subsets=kind)) for kind in calibration.SUBSETS
    )
    assert pooled < 0.014
    assert_close(left_out, 1 / 21, Tolerance(0, 0.005, "windows of 1001 are noisy by .012, which |.| adds in part"))
    assert_close(classwise, 0.2, Tolerance(0, 0.01, "noise, and shrunk ends"))


def test_uniform_predictions_have_no_pooled_loss():
    """Whatever the prior, below 1/M; the class-wise loss is the mean |1/C - prior|, but for the ends."""
    rng = np.random.default_rng(1)
    loss = jax.jit(calibration.h_loss, static_argnames=("window", "subsets"))
    for prior in ((0.7, 0.3), (0.6, 0.2, 0.1, 0.05, 0.05)):
        classes = len(prior)
        y = rng.choice(classes, size=5000, p=prior)
        log_p = np.full((5000, classes), -np.log(classes), np.float64 if X64 else np.float32)
        assert loss(log_p, y, window=201, subsets="pooled") < 1 / 201
        expected = np.mean(np.abs(1 / classes - np.asarray(prior)))
        found = loss(log_p, y, window=201, subsets="classwise")
        assert_close(found, expected, Tolerance(0, 0.02, "a window of 201 labels is noisy by .028, and |.|"))


def test_classwise_calibration_is_not_canonical():
    """All orders of (.2, .3, .5), each moved by its sign: every class and value is right, no context is."""
    value, move = np.array([0.2, 0.3, 0.5]), np.array([0.1, -0.1, 0])
    orders = [list(order) for order in permutations(range(3))]
    predicted = np.array([value[order] for order in orders])
    signs = [round(np.linalg.det(np.eye(3)[order])) for order in orders]
    truth = predicted + np.array([sign * move for sign in signs])
    for k in range(3):
        for v in value:
            here = predicted[:, k] == v
            assert_close((predicted - truth)[here, k].sum(), 0, Tolerance(0, 1e-12, "float64"))
    assert_close(np.abs(predicted - truth).sum(axis=1), 0.2, Tolerance(0, 1e-12, "float64"))


# -- leaving one class out ---------------------------------------------------------------------------------------------


def test_population_losses_of_the_binary_example():
    """Prior (.127, .873), x ~ N(1.87 e_y, I): .066 at the truth, .050 at T = 1.8; pooled 0 at the truth."""
    t = jnp.asarray([1.0, 1.8], jnp.result_type(float))
    losses = jax.vmap(lambda t: jnp.stack(population_losses(t, jnp.asarray(TWO[1]), TWO_SEPARATION * jnp.sqrt(2.0))))(t)
    assert_close(losses[:, 0], [0.066, 0.050], Tolerance(0, 0.002, "Monte Carlo of the reference, three decimals"))
    assert_close(losses[0, 1], 0, Tolerance(0, 1e-6, "rounding in float32"))
    assert losses[1, 1] > 0.05


@pytest.mark.parametrize("separation", [0.7, 2.0, 3.5])
def test_equal_priors_save_the_truth(separation):
    t = jnp.asarray([0.8, 1.0, 1.25], jnp.result_type(float))
    losses = jax.vmap(lambda t: jnp.stack(population_losses(t, jnp.asarray(0.5), jnp.asarray(separation))))(t)
    assert_close(losses[1], 0, Tolerance(0, 1e-6, "rounding in float32"))
    assert jnp.all(losses[jnp.array([0, 2])] > 1e-3)


@float64_only
def test_argmin_moves_without_one_class_and_stays_with_others():
    """60,000 samples of the binary example: least at T = 1.6 to 2 without one class, at 1 within .05 else."""
    from experiments.h_calibration.measure import gaussian_classes

    labels, logits = gaussian_classes(jax.random.key(0), 60_000, jnp.asarray(TWO), TWO_SEPARATION)
    loss = jax.jit(
        lambda t, kind: calibration.h_loss(jax.nn.log_softmax(logits / t), labels, window=1001, subsets=kind),
        static_argnums=1,
    )
    fine, coarse = np.linspace(0.9, 1.1, 9), np.array([1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.4])
    for kind in ("pooled", "classwise"):
        assert abs(fine[np.argmin([loss(t, kind) for t in fine])] - 1) <= 0.0501
    values = [float(loss(t, "leave_one_class_out")) for t in coarse]
    assert 1.6 <= coarse[np.argmin(values)] <= 2.4 and values[0] > 1.2 * min(values)


# -- a known miscalibration --------------------------------------------------------------------------------------------

REFERENCE = {  # canonical L1 error, two seeds of the reference
    "identity": (0.247, 0.247), "TS": (0.069, 0.070), "piecewise NLL": (0.0216, 0.0162),
    "piecewise pooled": (0.0168, 0.0194), "piecewise leave one out": (0.0204, 0.0162),
}  # fmt: skip


@float64_only
def test_known_miscalibration_is_undone():
    """8,000 samples to fit, 20,000 to judge: within the seeds' spread of the reference; NLL within .02 of it.

    Falsified if the h-loss does not halve temperature scaling's error, or leaves half as much again as NLL does.
    """
    log_probs, _, labels = known_miscalibration(jax.random.key(1), 8000, 2.5)
    test, truth, _ = known_miscalibration(jax.random.key(2), 20_000, 2.5)

    def error(found):
        return float(jnp.mean(jnp.sum(jnp.abs(jnp.exp(found) - truth), axis=1)))

    key = jax.random.key(0)
    left = {"TS": error(fit(Temperature(), log_probs, labels, key=key)(test))}
    for name, objective in (("NLL", nll), ("classwise", HLoss(subsets="classwise"))):
        fitted = fit(Piecewise(), log_probs, labels, objective, key=key, steps=100, learning_rate=0.04)
        left[name] = error(fitted(test))
    assert_close(error(test), 0.247, Tolerance(0, 0.002, "another 20,000 samples"))
    assert_close(left["TS"], 0.0695, Tolerance(0, 0.005, "the spread of seeds, .003"))
    assert 0.010 < left["NLL"] < 0.027 and 0.010 < left["classwise"] < 0.027
    assert left["classwise"] < left["TS"] / 2 and left["classwise"] < 1.5 * left["NLL"]


def test_full_run_holds_the_reference_numbers():
    """The committed run, five seeds: all but a tenth of the error is gone, temperature scaling is beaten 3.5-fold.

    Of the same map, NLL leaves less than the h-losses do, in the mean by a quarter to a half: there the reference, of
    which two seeds have .0216 and .0162 against .0168 to .0204, was too kind to them.
    """
    import json
    from pathlib import Path

    record = json.loads((Path(theory.__file__).parents[1] / "paper_figures/h_calibration/numbers.json").read_text())
    errors = np.array(record["series"]["recovery"]["error"])
    assert errors.shape == (5, 1 + len(FITS))
    before, ts, ts_pooled, by_nll, pooled, left_out, classwise = errors.mean(axis=0)
    assert_close([before, ts, ts_pooled], [0.247, 0.0695, 0.0685], Tolerance(0, 0.004, "the spread of seeds"))
    assert 0.009 < by_nll < 0.017
    for value in (pooled, left_out, classwise):
        assert 0.013 < value < 0.022 and value < before / 10 and value < ts / 3.5
        assert by_nll < value < 1.5 * by_nll
    scores = np.array(record["series"]["recovery"]["nll"]).mean(axis=0)
    assert scores[0] - scores[-1] > 0.04 and scores[4] - scores[-1] < 0.005, "identity and pooled against the truth"
