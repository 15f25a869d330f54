"""Predictive multiplicity in numbers: the references to their printed digits, and what a wrong reading would say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.multiplicity import real
from experiments.multiplicity.measure import DISTANCES, PLACES, studies, table
from experiments.multiplicity.setup import Setup
from sandbox import multiplicity as m
from sandbox.multiplicity.formulas import bernoulli_kl, pinsker_cost
from tests.tolerances import Tolerance, assert_close, golden

X64 = jax.config.jax_enable_x64
float64_only = pytest.mark.skipif(not X64, reason="counts of people at a threshold change in float32")


def printed(decimals: int) -> Tolerance:
    return Tolerance(0, 0.51 * 10**-decimals, f"half a unit of the printed decimal {decimals}, and rounding")


def needs(name: str) -> None:
    if not real.there(name):
        pytest.skip(f"{name} ships with {real.SETS[name][0]}, which is not installed")


# -- real data: n, d, loss; at 1% and 5% of it: mean width, ambiguity at .05, .1, .2, share whose label can flip -------

REFERENCE = {
    "diabetes": (442, 11, 0.473950, (0.24214, 0.96606, 0.74887, 0.14706, 0.28054),
                 (0.51349, 1, 0.99774, 0.93665, 0.61765)),
    "breast_cancer_3": (569, 4, 0.091255, (0.02662, 0.10545, 0.03515, 0, 0.02109),
                        (0.06047, 0.23023, 0.13533, 0.04745, 0.04218)),
    "breast_cancer_10": (569, 11, 0.12841, (0.06166, 0.21617, 0.15290, 0.03691, 0.05448),
                         (0.14031, 0.41125, 0.31107, 0.19508, 0.13357)),
    "iris": (100, 5, 0.059493, (0.01973, 0.12, 0.03, 0, 0.01), (0.04562, 0.14, 0.14, 0.06, 0.03)),
    "fair": (6366, 9, 0.545314, (0.25538, 1, 0.79877, 0.12959, 0.33019), (0.52817, 1, 1, 0.95617, 0.69620)),
    "spector": (32, 4, 0.402801, (0.12501, 0.65625, 0.1875, 0, 0.125), (0.27508, 1, 0.75, 0.28125, 0.34375)),
}  # fmt: skip


def test_every_data_set_has_its_reference():
    assert REFERENCE.keys() == real.SETS.keys()


@float64_only
@pytest.mark.parametrize("name", REFERENCE)
def test_prevalence_on_real_data(name):
    needs(name)
    n, d, loss, *rows = REFERENCE[name]
    found = jax.jit(lambda: table(*real.read(name)))()
    assert (int(found["n"]), int(found["d"])) == (n, d)
    assert_close(found["loss"], loss, printed(6 if loss != 0.12841 else 5))
    for k, (width, *ambiguity, flips) in enumerate(rows):
        assert_close(found["width"][k], width, printed(5))
        assert_close(found["ambiguity"][k], ambiguity, printed(5))
        assert_close(found["flips"][k], flips, printed(5))
    assert np.all(found["gap"] < 1e-6), "the certificate: what no model goes beyond"


@float64_only
def test_coefficients_and_one_person():
    needs("breast_cancer_3")
    baseline = m.fit(*real.read("breast_cancer_3"))
    assert_close(baseline.w, [0.511877, 9.693469, 2.333359, 1.556263], printed(6))
    found = m.ranges(baseline, 0.01 * baseline.loss)
    assert_close([found.low[19], found.high[19]], [-3.5385525134, -2.4572746720], printed(9))
    assert_close(baseline.logits[19], -2.97, printed(2))


@float64_only
def test_thirty_features_separate():
    """The linear programme's refusal, which says what to do."""
    needs("breast_cancer_3")
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    with pytest.raises(ValueError, match=r"separated.*ridge > 0, or fewer features"):
        m.fit(real.design(data.data), data.target)


# -- irises, which ship with this project ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def irises():
    return m.fit(*real.read("iris"))


@float64_only
def test_the_loss_is_a_mean_of_labels_one_and_minus_one(irises):
    """Not a sum, and not the formula of -1 and 1 on labels 0 and 1."""
    x, y = real.read("iris")
    assert_close(irises.loss, np.mean(np.log1p(np.exp(-(2 * y - 1) * (x @ np.asarray(irises.w))))))
    assert abs(float(irises.loss) - np.mean(np.log1p(np.exp(-y * (x @ np.asarray(irises.w)))))) > 0.1
    assert_close(irises.loss, 0.059493, printed(6))


@float64_only
def test_law_for_a_small_epsilon(irises):
    """Both relative errors fall like epsilon; with the wrong sign of the shift they do not."""
    s, kappa = m.leverage(irises), m.third_derivative(irises)
    errors = []
    for share in (1e-4, 1e-3):
        epsilon = share * irises.loss
        found = m.ranges(irises, epsilon)
        half = (found.high - found.low) / 2 / m.formulas.half_width(epsilon, s) - 1
        middle = (found.high + found.low) / 2 - irises.logits
        shift = -kappa * s**2 * epsilon / 3
        errors.append([np.median(np.abs(half)), np.median(np.abs(middle / shift - 1)), np.median(middle / -shift)])
    (half, shift, wrong), (half_10, shift_10, _) = errors
    assert 9 < half_10 / half < 11 and 9 < shift_10 / shift < 11
    assert wrong < -0.99


@float64_only
def test_budget_is_the_number_of_coefficients(irises):
    p = irises.risk
    assert_close(jnp.mean(p * (1 - p) * m.leverage(irises)), 5.0)
    assert abs(float(jnp.mean(m.leverage(irises))) - 5) > 1, "without the weights it is not"


@float64_only
def test_ambiguity_goes_beyond_every_bound_of_discrepancy(irises):
    epsilon = 0.05 * float(irises.loss)
    found = m.ranges(irises, epsilon)
    ambiguous = float(jnp.sum(m.ambiguity(irises, found, 0.2))) / 100
    assert ambiguous == 0.06 > epsilon / (2 * 0.2**2)
    one = m.discrepancy(irises, found, epsilon, 0.2, key=jax.random.key(0), searched=500, nodes=2000)
    assert one.lower <= one.upper <= epsilon / (2 * 0.2**2) and one.lower == one.upper == 0.02


# -- groups ------------------------------------------------------------------------------------------------------------


def test_ranges_of_groups():
    """p = .3, epsilon = .002, shares .5, .1, .02: the KL is epsilon over the share."""
    share = np.array([0.5, 0.1, 0.02])
    low, high = m.kl_interval(0.3, 0.002 / share)
    assert_close(low, [0.260, 0.214, 0.129], printed(3))
    assert_close(high, [0.342, 0.396, 0.521], printed(3))
    assert_close(pinsker_cost(0.3, high) * share / 0.002, np.ones(3), golden())
    reverse = np.asarray(pinsker_cost(high, 0.3)) * share / 0.002
    assert np.all(np.abs(reverse - 1) > 0.01), "the KL the other way round is another number"


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.8])
def test_solver_on_groups(rate):
    weight = np.array([0.02, 0.08, 0.9])
    baseline = m.fit(np.eye(3), np.array([rate, 0.5, 0.4]), weight)
    found = m.ranges(baseline, 0.002)
    low, high = m.kl_interval([rate, 0.5, 0.4], 0.002 / weight)
    tolerance = None if X64 else Tolerance(1e-3, 1e-4, "a root in float32, to the square root of its rounding")
    assert_close(jax.nn.sigmoid(found.low), low, *([tolerance] if tolerance else []))
    assert_close(jax.nn.sigmoid(found.high), high, *([tolerance] if tolerance else []))


# -- studies: directions of the trends ---------------------------------------------------------------------------------


@float64_only
def test_trends():
    """Outliers, separation, minorities; the digest's values on other draws, hence a tenth or more of room."""
    found = {
        k: np.asarray(v)
        for k, v in jax.jit(studies, static_argnums=0)(Setup(seeds=4, people=400), jax.random.key(1)).items()
    }
    places, apart = slice(0, len(PLACES)), slice(len(PLACES), len(PLACES) + len(DISTANCES))
    point = found["logits"][:, places].mean(axis=0)
    assert np.all(np.diff(point) > 0) and np.ptp(found["rest"][:, places].mean(axis=0)) < 0.1
    risks, logits = (found[k][:, apart].mean(axis=0) for k in ("risks", "logits"))
    room = Tolerance(0.1, 0.01, "means over five seeds, other draws")
    assert_close(risks, [0.162, 0.158, 0.146, 0.128, 0.109, 0.090, 0.073], room)
    assert np.all(np.diff(logits) > 0) and 0.6 < logits[0] < 0.75 and 2.2 < logits[-1] < 3.3
    often, seldom = (found[f"ambiguity_{d}"][:, apart].mean(axis=0) for d in ("0.05", "0.1"))
    assert np.all(np.diff(often) <= 0) and often[0] == 1 and 0.2 < often[-1] < 0.45
    assert seldom[0] > seldom[3] < seldom[-1] and seldom[3] < 0.16, "ambiguity at 0.1 falls and rises again"
    scaled = (found["logits"][:, -4:] * np.sqrt([0.2, 0.1, 0.05, 0.025])).mean(axis=0)
    assert np.ptp(scaled) < 0.1 and 0.4 < scaled.mean() < 0.7
    assert found["gradient"].max() < 1e-12 and found["gap"].max() < 1e-9


def test_kl_of_two_risks_is_not_symmetric():
    assert abs(float(bernoulli_kl(0.0, 2.0)) - float(bernoulli_kl(2.0, 0.0))) > 0.05
