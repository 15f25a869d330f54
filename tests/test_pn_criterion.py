"""The p-n criterion in numbers: references to their printed digits by three routes, and every wrong reading caught."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from experiments.pn_criterion import softmax, toys
from experiments.pn_criterion.__main__ import richardson
from experiments.pn_criterion.setup import Setup
from sandbox.expfam import criterion, curved, exact, finite, gaussian, one_parameter, terms
from sandbox.expfam.criterion import bayes_error
from sandbox.measures import log_kl
from tests.test_expfam import cumulants_of
from tests.tolerances import Tolerance, assert_close, monte_carlo

X64 = jax.config.jax_enable_x64
float64_only = pytest.mark.skipif(not X64, reason="printed digits and counts need float64")


def printed(decimals: int) -> Tolerance:
    """Half a unit of the last printed decimal; float32 has some four digits of a second order."""
    rounding = Tolerance(0, 0.51 * 10**-decimals, f"half a unit of the printed decimal {decimals}, and rounding")
    return rounding if X64 else Tolerance(2e-3, 2e-3, "fourth cumulants in float32")


LINE3, LINE4 = [[0], [1], [2]], [[0], [1], [2], [3]]
PAIR, CORNER = [[0, 0], [1, 0], [0, 1], [2, 2]], [[0, 0], [1, 0], [0, 1]]
MUTATION = (0.1, 0.1, 0.1, 0.7)


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is all of its time
def routes(features, truth, log_base):
    """theta*, the model's law, t0 .. t3, and (a, b) of both directions by cumulants and by derivatives."""
    theta = finite.project(features, truth, log_base).theta
    star = finite.log_law(features, theta, log_base)
    found = finite.terms_at(features, jnp.exp(star), truth)
    forward, reverse = exact.expansion(features, truth, log_base)
    return {
        "theta": theta, "law": jnp.exp(star), "terms": jnp.stack(found), "distance": log_kl(jnp.log(truth), star),
        "cumulants": jnp.stack([*terms.risk(found), *terms.reverse_risk(found)]),
        "derivatives": jnp.stack([*forward, *reverse]),
    }  # fmt: skip


def at(points, truth, base=None):
    features = jnp.array(points, jnp.result_type(float))
    log_base = jnp.zeros(len(points)) if base is None else jnp.log(jnp.array(base))
    return {k: np.asarray(v) for k, v in routes(features, jnp.array(truth), log_base).items()}


@cache
def counted(points, truth, sizes):
    found = jax.jit(lambda q: exact.risk(points, q, sizes))(jnp.array(truth))
    exact.check_lost(found.lost, sizes)
    return np.array(sizes), *map(np.asarray, found)


def enumerate_at(points, truth, *sizes):
    return counted(tuple(map(tuple, points)), truth, sizes)


# -- three routes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "truth", "base", "numbers"),
    [
        (LINE3, (0.2, 0.3, 0.5), None, {"theta": (0.46612146,), "law": (0.1947799, 0.3104403, 0.4947799),
                                        "ab": (0.50870661, 0.70303618)}),
        (LINE3, (0.5, 0.1, 0.4), None, {"ab": (0.67509000, 1.04879172)}),
        (LINE3, (0.2, 0.5, 0.3), (1.0, 2.0, 1.0), {"ab": (0.49494949, 0.37577953)}),
        (LINE4, MUTATION, None, {"theta": (0.86149494,), "ab": (0.71927000, 2.26887003)}),
        (PAIR, (0.15, 0.25, 0.25, 0.35), None, {
            "theta": (0.16213982, 0.16213982), "terms": (2.05890945, 1.19883469, 2.39581970, -11.48026093),
            "ab": (1.02945473, 1.93385344), "b_rev": 0.57801589, "distance": 0.00783073}),
        (CORNER, (0.2, 0.3, 0.5), None, {"ab": (1.0, 26 / 9), "b_rev": 7 / 9}),
        (CORNER, (1 / 3, 1 / 3, 1 / 3), None, {"ab": (1.0, 7 / 3), "b_rev": 2 / 3}),
    ],
)  # fmt: skip
def test_two_routes_to_the_printed_digits(points, truth, base, numbers):
    found = at(points, truth, base)
    both = Tolerance(1e-9, 1e-9, "the same numbers") if X64 else Tolerance(0.02, 0.02, "fourth derivatives in float32")
    assert_close(found["cumulants"], found["derivatives"], both)
    assert_close(found["cumulants"][:2], numbers["ab"], printed(8))
    assert_close(found["theta"], numbers.get("theta", found["theta"]), printed(8))
    assert_close(found["law"], numbers.get("law", found["law"]), printed(7))
    assert_close(found["terms"], numbers.get("terms", found["terms"]), printed(8))
    assert_close(found["cumulants"][3], numbers.get("b_rev", found["cumulants"][3]), printed(8))
    assert_close(found["distance"], numbers.get("distance", found["distance"]), printed(8))


@float64_only
def test_counting_one_statistic():
    n, forward, _, lost = enumerate_at(LINE3, (0.2, 0.3, 0.5), 100, 200, 400, 800)
    a, b = at(LINE3, (0.2, 0.3, 0.5))["cumulants"][:2]
    assert_close(n**2 * (forward - a / n), [0.72164, 0.71215, 0.70755, 0.70528], printed(5))
    assert_close(richardson(n, forward, a), b, Tolerance(1e-4, 0, "the order n^-2 of b"))
    n, forward, reverse, lost = enumerate_at(LINE4, MUTATION, 100, 400, 800)
    assert_close(forward[[0, 2]], [0.0074336588, 0.0009026581], printed(10))
    a, b, _, b_rev = at(LINE4, MUTATION)["cumulants"]
    c = n**2 * (forward - a / n)
    assert_close(c[1:], [2.30178, 2.28516], printed(5))
    assert_close(richardson(n, forward, a), 2.26854, Tolerance(0, 1.6e-5, "2 c(800) - c(400) of five decimals each"))
    assert_close(richardson(n, reverse, a), b_rev, Tolerance(1e-2, 0, "the order n^-2 of b"))
    assert np.all(lost < 1e-15)


@float64_only
def test_counting_two_statistics():
    n, forward, reverse, lost = enumerate_at(PAIR, (0.15, 0.25, 0.25, 0.35), 60, 120)
    assert_close(forward, [0.017728203, 0.008717066], printed(9))
    a, b, _, b_rev = at(PAIR, (0.15, 0.25, 0.25, 0.35))["cumulants"]
    assert_close(richardson(n, forward, a), b, Tolerance(1e-2, 0, "the order n^-2 of b"))
    assert_close(richardson(n, reverse, a), b_rev, Tolerance(1e-2, 0, "the order n^-2 of b"))
    _, forward, reverse, lost = enumerate_at(CORNER, (0.2, 0.3, 0.5), 120)
    assert_close([*forward, *reverse], [0.0085458918, 0.0083888770], printed(10))
    assert_close(lost, 0.8**120, Tolerance(1e-3, 0, "another symbol may be missed, too"))


# -- six mistakes ------------------------------------------------------------------------------------------------------

MISTAKES = {
    "k3 of the truth read as the model's": 2.771,
    "k3 of the model read as the truth's": 11.45,
    "k4 of the model read as the truth's": 2.072,
    "the truth's variance read as the model's": 0.544,
    "the model's variance read as the truth's": 0.139,
    "the reverse divergence": 0.578,
}


def mistaken():
    """b of the mutation case, right and with one cumulant or the direction swapped."""
    x = np.arange(4.0)[:, None]
    law, truth = at(LINE4, MUTATION)["law"], np.array(MUTATION)
    (V, k3, k4), (S, g3, g4) = (tuple(float(np.squeeze(c)) for c in cumulants_of(x, q)) for q in (law, truth))

    def b(*cumulants, direction=terms.risk):
        return direction(terms.of_one_parameter(*cumulants)).b

    right = b(V, k3, k4, S, g3)
    wrong = (b(V, k3, k4, S, k3), b(V, g3, k4, S, g3), b(V, k3, g4, S, g3), b(V, k3, k4, V, g3), b(S, k3, k4, S, g3),
             b(V, k3, k4, S, g3, direction=terms.reverse_risk))  # fmt: skip
    return right, dict(zip(MISTAKES, wrong, strict=True))


@float64_only
def test_each_of_six_mistakes_is_caught():
    """Counting tells every one of them from the right b, which it meets to a hundredth."""
    n, forward, _, _ = enumerate_at(LINE4, MUTATION, 100, 400, 800)
    a = at(LINE4, MUTATION)["cumulants"][0]
    by_counting = richardson(n, forward, a)
    right, wrong = mistaken()
    assert abs(right / by_counting - 1) < 0.01
    for name, b in wrong.items():
        assert abs(b / by_counting - 1) > 0.08, name
        assert_close(b, MISTAKES[name], printed(2 if MISTAKES[name] > 3 else 3), name)


@float64_only
def test_models_and_truths_are_not_exchanged_in_the_tensors():
    """The same swaps in the code for any p: the model's law where the truth belongs, and the other way round."""
    x, law, truth = jnp.arange(4.0)[:, None], at(LINE4, MUTATION)["law"], jnp.array(MUTATION)
    right = terms.risk(finite.terms_at(x, law, truth)).b
    for model, true in ((truth, law), (law, law), (truth, truth)):
        assert abs(terms.risk(finite.terms_at(x, model, true)).b / right - 1) > 0.05


# -- closed forms ------------------------------------------------------------------------------------------------------


@float64_only
def test_bernoulli_given_that_the_fit_exists():
    """At these n a sample of one symbol is no rarity: the printed risks are conditional, and else refused."""
    sizes = (20, 50, 100)

    def right(q):
        return terms.risk(one_parameter.well_specified(lambda m: m * (1 - m), q))

    conditional = jax.jit(lambda q: exact.risk([[0], [1]], jnp.stack([1 - q, q]), sizes))
    half, fifth = conditional(0.5), conditional(0.2)
    assert_close([half.forward[0], fifth.forward[1]], [0.0271957222, 0.0108141865], printed(10))
    assert_close([half.lost[0], fifth.lost[1]], [2 * 0.5**20, 0.8**50], Tolerance(1e-9, 1e-12, "by hand"))
    assert_close(right(0.5).at(20), 0.026875, printed(6))
    assert_close(half.forward[2], right(0.5).at(100), Tolerance(1e-3, 0, "the order n^-3"))
    with pytest.raises(ValueError, match=r"n = 20: with probability 1\.9e-06 no fit exists"):
        exact.check_lost(half.lost, sizes)


@float64_only
def test_normal_table():
    """alpha = .05: the smallest n whose exact risk is allowed, against the first and the second order."""
    first, second, smallest = [], [], []
    for d in (1, 2, 5, 10, 20):
        found = terms.risk(gaussian.terms(gaussian.normal_moments(float(d)), float(d)))
        first.append(criterion.draws_needed_first(found, 0.02))
        second.append(criterion.draws_needed(found, 0.02))
        n = np.arange(23, 6000)
        smallest.append(n[np.argmax(np.asarray(gaussian.exact_risk(n, d)) <= 0.02)])
    assert smallest == [55, 132, 512, 1646, 5787]
    assert_close(first, [50, 125, 500, 1625, 5750])
    assert_close(second, [54.65, 131.44, 511.53, 1644.90, 5786.59], printed(2))
    assert all(abs(x - y) < 1 for x, y in zip(smallest[:3], second[:3], strict=True))
    exponential = terms.risk(one_parameter.well_specified(lambda m: m**2, 1.0))
    n = np.arange(2, 100)
    assert n[np.argmax(np.asarray(one_parameter.exact_exponential_risk(n, 1.0)) <= 0.02)] == 27
    assert_close([exponential.a / 0.02, criterion.draws_needed(exponential, 0.02)], [25, 26.72], printed(2))


@float64_only
def test_exact_risks_against_samples():
    """The digamma formulas against simulated fits: N_2 at n = 12, and the exponential model of gamma data."""

    @jax.jit
    def fits(key):
        keys = jax.random.split(key, 2)
        x = jax.random.normal(keys[0], (20_000, 12, 2))
        mean, centred = x.mean(axis=1), x - x.mean(axis=1, keepdims=True)
        (a, b), (_, c) = jnp.einsum("sni,snj->ijs", centred, centred) / 12
        volume = a * c - b**2
        pulled = (c * (1 + mean[:, 0] ** 2) + a * (1 + mean[:, 1] ** 2) - 2 * b * mean[:, 0] * mean[:, 1]) / volume
        means = jax.random.exponential(keys[1], (20_000, 8, 2)).sum(axis=2).mean(axis=1) / 2
        return (pulled - 2 + jnp.log(volume)) / 2, jnp.log(means) + 1 / means - 1

    formulas = gaussian.exact_risk(12, 2), one_parameter.exact_exponential_risk(8, 2.0)
    for sampled, formula in zip(fits(jax.random.key(3)), formulas, strict=True):
        assert_close(jnp.mean(sampled), formula, monte_carlo(float(jnp.std(sampled)) / np.sqrt(20_000)))


# -- curved, blind spots -----------------------------------------------------------------------------------------------


@float64_only
def test_curved_trinomial():
    found = {k: np.asarray(v) for k, v in toys.curves(Setup(), None).items()}
    assert_close(found["theta"][0], 0.5)
    assert_close(found["expansion"], found["by_derivatives"])
    assert_close(found["expansion"][0], [0.44191919, 0.95029493], printed(8))
    assert_close(found["half_penalty"][0], 0.53030303, printed(8))
    assert_close(found["forward"][0, 1], 0.004518809, printed(9))
    assert_close(found["expansion"][1], [0.5, 0.96590775], printed(8))
    assert_close([*found["expansion"][2], found["half_penalty"][2]], [0.51997858, 1.17147980, 0.47241989], printed(8))
    n = np.array(toys.CURVED_SIZES)
    for (a, b), forward in zip(found["expansion"], found["forward"], strict=True):
        assert_close(richardson(n, forward, a), b, Tolerance(0.02, 0, "the order n^-2 of b"))
    off = np.abs(found["expansion"][[0, 2], 0] / found["half_penalty"][[0, 2]] - 1)
    assert np.all(off > 0.09), "half of TIC's penalty is another number where I is not J"


def test_pythagoras_fails_on_the_curve():
    truth = np.array([0.2, 0.5, 0.3])
    theta = toys.trinomial_fit(jnp.array(truth))
    star, other = (np.asarray(toys.trinomial(t)) for t in (theta, 0.4))
    gap = truth @ (star - other) - np.exp(star) @ (star - other)
    assert abs(gap) > 0.01
    assert_close(curved.informations(toys.trinomial, theta, jnp.array(truth)).model, 22.0, printed(4))


def test_what_the_criterion_does_not_see():
    """Independence fitted to (.4, .1, .1, .4): t0 = p exactly, though rows and columns agree four times of five."""
    found = at([[0, 0], [0, 1], [1, 0], [1, 1]], (0.4, 0.1, 0.1, 0.4))
    assert_close(found["distance"], 0.193, printed(3))
    assert_close(found["terms"][0], 2.0, printed(9))
    assert_close(found["cumulants"][1], 1.5, printed(8))


def test_gaussian_location_at_its_n():
    """n = p / (16 alpha^2) draws for a mean of p numbers: the criterion is about the mean of Er."""
    keys = jax.random.split(jax.random.key(1), 3)
    for key, p, error, share in zip(keys, (1, 10, 100), (0.46827, 0.46116, 0.46027), (0.7911, 0.8942, 0.9998),
                                    strict=True):  # fmt: skip
        length = np.sqrt(np.asarray(jax.random.chisquare(key, p, shape=(40_000,))) * 16 * 0.05**2 / p)
        er = norm.cdf(-length / 2)
        assert_close(er.mean(), error, monte_carlo(er.std() / 200))
        assert_close(np.mean(er >= 0.45), share, monte_carlo(max(np.sqrt(share * (1 - share)), 0.01) / 200))


# -- the softmax toy ---------------------------------------------------------------------------------------------------


@float64_only
def test_softmax_toy():
    """(a, b, KL(g || g*), n* of both orders), well specified and not."""
    found = {k: np.asarray(v) for k, v in softmax.misspecified(Setup(), None).items()}
    printed_rows = {
        (2, 0): (1, 3.0936, 0, 50, 52.92), (4, 0): (2, 11.0609, 0, 100, 105.25), (6, 0): (3, 22.8837, 0, 150, 157.28),
        (11, 0): (5.5, 86.3209, 0, 275, 289.89), (1, 8): (0.384642, 0.439751, 0.35681, 19.23, 20.31),
        (4, 8): (1.982322, 10.701692, 0.310164, 99.12, 104.25), (11, 8): (5.5, 236.776, 0, 275, 312.84),
    }  # fmt: skip
    for (p, k), row in printed_rows.items():
        names = ("a", "b", "distance", "first", "second")
        for name, number in zip(names, row, strict=True):
            digits = len(str(number).partition(".")[2])
            assert_close(found[name][p - 1, k], number, printed(digits or 9))


@float64_only
def test_softmax_toy_sampled():
    run = {k: np.asarray(v) for k, v in softmax.sampled(Setup(samples=4000), jax.random.key(0)).items()}

    def close(name, k, number, own=1e-4):
        error = np.hypot(run[f"{name}_error"][k], own)  # the printed number is a mean of 20,000 samples itself
        assert_close(run[name][k], number, monte_carlo(float(error)))

    close("risk", 0, 0.02136)
    close("risk", 1, 0.03224, 1.5e-4)
    close("optimism", 2, 0.07132, 2e-4)
    assert_close(terms.optimism(terms.Terms(*run["terms"][2])).at(60), 0.06973, printed(5))
    assert np.all((run["bayes"][3:] > 0.4615) & (run["bayes"][3:] < 0.468))
    assert 0.74 < run["share"][3] < 0.80 and 0.82 < run["share"][-1] < 0.88
    assert np.all(run["lost"] == 0)


@float64_only
def test_estimated_criterion():
    """Pass rates at n = 100, where the truth is .0212 > .02: the first order is deceived, the second is not."""
    run = {k: np.asarray(v) for k, v in softmax.plug_in(Setup(plug_in_samples=600), jax.random.key(0)).items()}
    assert_close(run["true"], [1.9823, 10.70], Tolerance(0, 0.005, "two printed decimals"))
    a = run["a"]
    for k, (mean, spread) in enumerate(((1.957, 0.097), (1.974, 0.058))):
        assert_close(a[k].mean(), mean, monte_carlo(spread / np.sqrt(600) + 5e-4))
        assert_close(a[k].std(), spread, Tolerance(0.15, 0, "600 samples know a deviation to 3 %, tails to 10 %"))
    assert abs(run["pass_first"][1] - 0.70) < 0.08 and abs(run["pass_second"][1] - 0.08) < 0.05
    assert run["pass_first"][2] == run["pass_second"][2] == 1


def test_bayes_error_bound_near_certainty():
    """Random pairs, some almost disjoint, some almost alike: never below 1/2 - sqrt(D / 8), in either direction."""
    rng = np.random.default_rng(0)
    for scale in (0.03, 1.0, 30.0):
        p, q = (jnp.asarray(rng.dirichlet(scale * np.ones(5), 500)) + 1e-9 for _ in range(2))
        for a, b in ((p, q), (q, p), (p, (p + 1e-3 * q) / 1.001)):
            divergence = jnp.sum(a * (jnp.log(a) - jnp.log(b)), axis=1)
            rounding = 1e-7 if X64 else 1e-3
            assert jnp.all(0.5 - bayes_error(a, b) <= jnp.sqrt(jnp.maximum(divergence, 0) / 8) + rounding)


def test_a_law_and_its_reverse_in_the_theory():
    """The refuted Pythagoras shows two outcomes: the smallest there can be."""
    from tests.engine import verdict
    from theory.pn_criterion import geometry
    from theory.proof import Refuted

    found = verdict(geometry.pythagoras_reversed)
    assert isinstance(found, Refuted)
    assert len(dict(found.counterexample)["q"].split(",")) == 2


@pytest.mark.parametrize(
    ("field", "value"), [("alpha", 0.5), ("alpha", 0.0), ("gamma", -1.0), ("largest", 50), ("samples", 1)]
)
def test_numbers_of_the_setup_are_checked(field, value):
    with pytest.raises(ValueError, match=field):
        Setup(**{field: value})


@float64_only
def test_log_linear_model():
    """15 products of two of six binary columns: t0 = p where the model is right; its own law is its projection."""
    cells = np.stack(np.meshgrid(*[[0.0, 1]] * 6, indexing="ij"), axis=-1).reshape(-1, 6)
    first, second = np.triu_indices(6, 1)
    features = jnp.asarray(cells[:, first] * cells[:, second])
    theta = jnp.asarray(np.random.default_rng(0).normal(0, 0.3, 15))
    law = jnp.exp(finite.log_law(features, theta))
    t0, found = jax.jit(lambda q: (finite.terms_at(features, q, q).t0, finite.project(features, q).theta))(law)
    assert_close(t0, 15.0)
    assert_close(found, theta, Tolerance(1e-8, 1e-8, "Newton's last step"))
