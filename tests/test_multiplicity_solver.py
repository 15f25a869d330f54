"""The solver: against generic ones and exact cases, its certificates, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from sandbox import multiplicity as m
from sandbox.multiplicity import formulas
from sandbox.multiplicity.baseline import expansion
from tests.tolerances import Tolerance, assert_close, identity

X64 = jax.config.jax_enable_x64
float64_only = pytest.mark.skipif(not X64, reason="it looks at digits that float32 does not have")
PRECISE = Tolerance(1e-12, 1e-12, "a root in float64")
ROUGH = Tolerance(2e-3, 2e-3, "a root in float32, where counts and ends carry three digits")


def problem(seed=0, n=40, d=3):
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.ones((n, 1)), rng.normal(size=(n, d - 1))], axis=1)
    y = (rng.random(n) < 1 / (1 + np.exp(-x @ np.linspace(0.5, 1, d)))).astype(float)
    return x, y


@pytest.fixture(scope="module", params=[0.0, 0.1], ids=["no ridge", "ridge"])
def fitted(request):
    return m.fit(*problem(), ridge=request.param)


@pytest.fixture(scope="module")
def plain():
    return m.fit(*problem())


# -- the baseline and its excess ---------------------------------------------------------------------------------------


def test_baseline_is_a_minimum(fitted):
    x, y = problem()
    slope = jax.grad(formulas.loss)(fitted.w, x, y, fitted.ridge)
    assert np.max(np.abs(slope)) < (1e-12 if X64 else 1e-6)
    assert_close(fitted.loss, formulas.loss(fitted.w, x, y, fitted.ridge))
    assert_close(fitted.hessian, jax.hessian(formulas.loss)(fitted.w, jnp.asarray(x, fitted.x.dtype), y, fitted.ridge))


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_excess_is_the_difference_of_losses(fitted, size):
    """At every size of the step, with its gradient and Hessian; where it is small, to more digits than the losses."""
    x, y = problem()
    u = size * jnp.array([0.3, -1.0, 0.5])
    value, gradient, hessian = expansion(fitted)(u)

    def difference(u):
        return formulas.loss(fitted.w + u, x, y, fitted.ridge) - fitted.loss

    room = Tolerance(identity().rtol, 1e-6 if not X64 else 1e-12, identity().why)
    assert_close(value, difference(u), room)
    assert_close(m.excess(fitted, u), value)
    assert_close(gradient, jax.grad(difference)(u), Tolerance(1e-9, 1e-9, "autodiff") if X64 else ROUGH)
    assert_close(hessian, jax.hessian(difference)(u), Tolerance(1e-9, 1e-9, "autodiff") if X64 else ROUGH)


@float64_only
def test_excess_keeps_its_digits_where_losses_cancel(plain):
    u = 1e-9 * jnp.array([0.3, -1.0, 0.5])
    assert_close(m.excess(plain, u) / (u @ plain.hessian @ u / 2), 1.0, Tolerance(1e-7, 0, "the quadratic model"))


@float64_only
def test_excess_of_a_risk_that_rounds_to_one():
    """A logit of 54 halved: 1 - p0 is no number of float64, and yet the gradient has all its digits."""
    one = m.fit(np.eye(2), np.array([0.5, 0.5]))._replace(logits=jnp.array([54.0, -54.0]))
    value, gradient, _ = expansion(one)(jnp.array([-27.0, 27.0]))
    kl = np.log1p(np.exp(-27)) - np.log1p(np.exp(-54)) - 27 * np.exp(-54)
    assert_close(value, kl, Tolerance(0, 1e-14, "a difference of two terms of 27 nats"))
    assert_close(gradient / np.exp(-27), [-0.5, 0.5])


def test_no_overflow_far_away(plain):
    value, gradient, hessian = expansion(plain)(jnp.array([1e3, -2e3, 1e3]))
    assert jnp.all(jnp.isfinite(value)) and jnp.all(jnp.isfinite(gradient)) and jnp.all(jnp.isfinite(hessian))


def test_merged_rows_are_the_same_model():
    x, y = problem(n=30)
    x, y = np.concatenate([x, x[:10]]), np.concatenate([y, 1 - y[:10]])
    rows, ones, weight, place = m.merged(x, y)
    assert len(rows) == 30 and np.array_equal(rows[place], x)
    whole, less = m.fit(x, y), m.fit(rows, ones, weight)
    assert_close(whole.loss, less.loss)
    a, b = m.ranges(whole, 0.01), m.ranges(less, 0.01)
    assert_close(a.high, b.high[place], PRECISE if X64 else ROUGH)
    assert_close(a.high[:10], a.high[30:], PRECISE if X64 else ROUGH)  # duplicates share their range


# -- ranges ------------------------------------------------------------------------------------------------------------


@float64_only
def test_conditions_of_optimality(fitted):
    epsilon = 0.02 * float(fitted.loss)
    found = m.ranges(fitted, epsilon)
    assert jnp.all(found.tau_high > 0) and jnp.all(found.tau_low < 0)
    for u, tau in ((found.u_low, found.tau_low), (found.u_high, found.tau_high)):
        value, gradient, _ = jax.vmap(expansion(fitted))(u)
        assert_close(value, epsilon * jnp.ones_like(value), PRECISE)
        assert_close(gradient, tau[:, None] * fitted.x, PRECISE)


@float64_only
def test_against_a_generic_solver(fitted):
    epsilon = 0.02 * float(fitted.loss)
    found = m.ranges(fitted, epsilon)
    room = {"type": "ineq", "fun": lambda u: epsilon - float(m.excess(fitted, u)),
            "jac": lambda u: -np.asarray(expansion(fitted)(jnp.asarray(u))[1])}  # fmt: skip
    for i in range(5):
        v = np.asarray(fitted.x[i])
        for sign, end in ((1, found.high), (-1, found.low)):
            best = minimize(lambda u, v=v, sign=sign: -sign * (v @ u), np.zeros(3), jac=lambda u, g=-sign * v: g,
                            constraints=[room], method="SLSQP", options={"ftol": 1e-12, "maxiter": 200})  # fmt: skip
            assert_close(end[i], fitted.logits[i] + v @ best.x, Tolerance(1e-6, 1e-6, "what SLSQP stops at"))


@pytest.mark.parametrize("share", [1e-6, 0.01, 0.5, 2.0, 10.0])
def test_certificates_meet(plain, share):
    """From a millionth to ten times the loss; a single stage of Newton would diverge at the far end."""
    epsilon = share * plain.loss
    found = m.ranges(plain, epsilon)
    ends = jnp.concatenate([found.u_low, found.u_high])
    rounding = 50 * jnp.finfo(epsilon.dtype).eps / jnp.sqrt(epsilon)  # a KL is a difference of terms of its square root
    assert jnp.all(m.excess(plain, ends) <= epsilon * (1 + rounding)), "a model outside the set"
    assert jnp.all(found.low_outer <= found.low) and jnp.all(found.high <= found.high_outer)
    width = found.high - found.low
    assert jnp.all(found.gap <= (1e-9 if X64 else 2e-2) * width)


@float64_only
def test_outer_certificate_holds_for_an_unfinished_model(plain):
    """No model of the set goes beyond what a poor one certifies: Newton of one step is enough for a bound."""
    from sandbox.multiplicity import _newton
    from sandbox.multiplicity.ranges import extremes

    epsilon = 0.5 * plain.loss
    exact = m.ranges(plain, epsilon)
    steps, _newton.STEPS = _newton.STEPS, 1
    stages, _newton.STAGES = _newton.STAGES, (1,)
    try:
        reach = jnp.sqrt(jnp.max(m.leverage(plain)))
        poor = extremes(expansion(plain), plain.hessian, plain.x, plain.logits, epsilon, reach, 64)
    finally:
        _newton.STEPS, _newton.STAGES = steps, stages
    assert jnp.max(poor.gap) > 1e-3, "it is unfinished"
    assert jnp.all(poor.high_outer >= exact.high) and jnp.all(poor.low_outer <= exact.low)
    assert jnp.all(poor.high <= exact.high + 1e-12) and jnp.all(poor.low >= exact.low - 1e-12)


def test_ranges_are_nested_and_contain_the_baseline(plain):
    small, large = m.ranges(plain, 0.005), m.ranges(plain, 0.02)
    assert jnp.all(large.low < small.low) and jnp.all(small.low < plain.logits)
    assert jnp.all(large.high > small.high) and jnp.all(small.high > plain.logits)


def test_every_model_of_the_set_is_within_the_radius(plain):
    for epsilon in (0.001, 0.1, 1.0):
        u = m.directions(plain, epsilon, m.sphere(jax.random.key(0), 200, 3))
        far = jnp.sqrt(jnp.max(jnp.sum(u @ plain.hessian * u, axis=1)))
        assert far <= m.radius(epsilon, jnp.sqrt(jnp.max(m.leverage(plain)))) * (1 + 1e-5)


@float64_only
def test_candidate_models_agree_with_the_ranges(plain):
    epsilon = 0.02 * plain.loss
    found = m.ranges(plain, epsilon)
    grid = jnp.broadcast_to(jnp.linspace(-4, 4, 9), (40, 9))
    costs = m.candidates(plain, grid)
    inside = (grid >= found.low[:, None]) & (grid <= found.high[:, None])
    assert jnp.array_equal(inside, costs <= epsilon) and 0 < jnp.sum(inside) < inside.size
    assert_close(m.candidates(plain, jnp.stack([found.low, found.high], axis=1)), epsilon * jnp.ones((40, 2)), PRECISE)


def test_ranges_compile_once(plain):
    from sandbox.multiplicity.ranges import _ranges

    m.ranges(plain, 0.01)
    before = _ranges._cache_size()
    m.ranges(plain, 0.013)
    m.ranges(m.fit(*problem(1)), 0.01)
    assert _ranges._cache_size() == before


# -- conflicts ---------------------------------------------------------------------------------------------------------


def test_ambiguity_and_its_limits(plain):
    found = m.ranges(plain, 0.02)
    shares = [float(jnp.mean(m.ambiguity(plain, found, delta) * 1.0)) for delta in (1e-4, 0.05, 0.1, 0.2, 0.6)]
    assert shares[0] == 1 and shares == sorted(shares, reverse=True) and shares[-1] == 0


@float64_only
def test_ambiguity_agrees_with_candidate_models(plain):
    epsilon, delta = 0.02 * plain.loss, 0.12
    p = plain.risk
    found = m.ranges(plain, epsilon)
    either = jnp.zeros(40, bool)
    for q in (p + delta, p - delta):
        open_ = (q > 0) & (q < 1)
        q = jnp.where(open_, q, 0.5)
        either |= open_ & (m.candidates(plain, (jnp.log(q) - jnp.log1p(-q))[:, None])[:, 0] <= epsilon)
    assert jnp.array_equal(either, m.ambiguity(plain, found, delta))
    assert jnp.array_equal(either, m.ambiguity(plain, found, delta, outer=True)) and 0 < jnp.sum(either) < 40


@float64_only
@pytest.mark.parametrize("seed", range(3))
def test_integer_programme_meets_the_search(seed):
    """In the plane the sweep of directions is dense: it must find what the integer programme proves to be the most."""
    baseline = m.fit(*problem(seed, n=20, d=2))
    epsilon = 0.03 * float(baseline.loss)
    found = m.ranges(baseline, epsilon)
    loose = m.discrepancy(baseline, found, epsilon, 0.08, key=jax.random.key(0))
    exact = m.discrepancy(baseline, found, epsilon, 0.08, key=jax.random.key(0), nodes=5000)
    assert loose.lower == exact.lower == exact.upper <= loose.upper
    ambiguous = float(jnp.mean(m.ambiguity(baseline, found, 0.08) * 1.0))
    assert 0 < exact.lower <= ambiguous and exact.lower <= formulas.universal_bound(epsilon, 0.08)
    assert float(m.excess(baseline, exact.u)) <= epsilon * (1 + 1e-12)
    assert_close(m.conflicts(baseline, exact.u[None], 0.08)[0], exact.lower)


@float64_only
def test_integer_programme_alone_finds_the_most():
    """Without a search to help it: few directions, and its own solutions pulled back into the set and counted again."""
    baseline = m.fit(*problem(4, n=20, d=2))
    epsilon = 0.05 * float(baseline.loss)
    found = m.ranges(baseline, epsilon)
    long = m.discrepancy(baseline, found, epsilon, 0.1, key=jax.random.key(0), searched=20_000)
    short = m.discrepancy(baseline, found, epsilon, 0.1, key=jax.random.key(1), searched=1, nodes=5000)
    assert short.lower <= long.lower == short.upper


def test_knapsack_by_enumeration():
    """The largest set whose costs fit is found by trying all."""
    baseline = m.fit(*problem(5, n=20, d=2))
    found = m.ranges(baseline, 0.02)
    from itertools import combinations

    from sandbox.multiplicity.discrepancy import costs

    cost = np.asarray(costs(baseline, found, 0.12))
    finite = cost[np.isfinite(cost)]
    assert 2 < len(finite) < 15
    fits = [k for k in range(len(finite) + 1) if any(sum(s) / 20 <= 0.01 for s in combinations(finite, k))]
    assert 0 < max(fits) < len(finite)
    assert_close(m.knapsack(baseline, found, 0.01, 0.12, 20), max(fits) / 20)


def test_conflicts_only_switch_on_along_a_ray(plain):
    z = m.sphere(jax.random.key(2), 20, 3)
    shares = jnp.stack([m.conflicts(plain, c * z, 0.1) for c in np.linspace(0, 5, 12)])
    assert jnp.all(jnp.diff(shares, axis=0) >= 0) and jnp.all(shares[0] == 0) and jnp.all(shares[-1] > 0)


# -- more classes ------------------------------------------------------------------------------------------------------


def three_classes(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    centre = np.array([[0, 1], [1, -1], [-1, -1]])[y]
    return np.concatenate([np.ones((n, 1)), centre + rng.normal(size=(n, 2))], axis=1), y


@float64_only
def test_two_classes_are_the_logistic_model(plain):
    x, y = problem()
    two = m.fit_softmax(x, 1 - y.astype(int))  # class 0 is y = 1, the last class has logits 0
    assert_close(two.w, plain.w, Tolerance(1e-9, 1e-9, "two minimisations"))
    a, b = m.log_odds_ranges(two, 0.01, 0, 1), m.ranges(plain, 0.01)
    assert_close([a.low, a.high], [b.low, b.high], Tolerance(1e-9, 1e-9, "two solutions"))


@float64_only
def test_three_classes():
    x, y = three_classes()
    baseline = m.fit_softmax(x, y)
    w = baseline.w.reshape(2, 3).T
    onehot = np.eye(3)[y]
    full = jnp.concatenate([w, jnp.zeros((3, 1))], axis=1)
    assert_close(baseline.loss, formulas.softmax_loss(full, x, onehot))
    u = 0.3 * jnp.arange(6.0) - 0.5
    moved = full + jnp.concatenate([u.reshape(2, 3).T, jnp.zeros((3, 1))], axis=1)
    assert_close(m.softmax_excess(baseline, u), formulas.softmax_loss(moved, x, onehot) - baseline.loss)
    epsilon = 0.02 * float(baseline.loss)
    found = m.log_odds_ranges(baseline, epsilon, 0, 1)
    reverse = m.log_odds_ranges(baseline, epsilon, 1, 0)
    assert_close(found.high, -reverse.low, PRECISE)
    assert jnp.max(found.gap) < 1e-9
    assert jnp.all(m.can_win(found) | m.can_win(reverse)) and jnp.any(m.can_win(found) & m.can_win(reverse))
    low, high = m.probability_ranges(baseline, epsilon, 7)
    assert jnp.all(low < baseline.risk[7]) and jnp.all(baseline.risk[7] < high)

    def minus_log_probability(u):
        return -jax.nn.log_softmax(jnp.append((baseline.w + u).reshape(2, 3) @ x[7], 0.0))[0]

    room = {"type": "ineq", "fun": lambda u: epsilon - float(m.softmax_excess(baseline, jnp.asarray(u)))}
    best = minimize(lambda u: float(minus_log_probability(jnp.asarray(u))), np.zeros(6), constraints=[room],
                    method="SLSQP", options={"ftol": 1e-10})  # fmt: skip
    assert_close(high[0], np.exp(-best.fun), Tolerance(1e-4, 1e-4, "400 angles, and what SLSQP stops at"))


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_separable_classes_are_refused():
    x = np.concatenate([np.ones((20, 1)), np.linspace(-1, 1, 20)[:, None]], axis=1)
    y = (x[:, 1] > 0).astype(float)
    assert m.separable(x, y) and not m.separable(x, np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"separated.*ridge > 0, or fewer features"):
        m.fit(x, y)
    assert m.fit(x, y, ridge=0.01).gradient < 1e-5
    tied = np.concatenate([y[:9], [1, 0], y[11:]])  # quasi-separable: only on the border are both labels
    border = np.where(np.arange(20)[:, None] // 9 == 1, [[1.0, 0.0]], x)[:, :]
    assert m.separable(border[:20], np.where(np.arange(20) < 9, 0, np.where(np.arange(20) < 18, np.arange(20) % 2, 1)))
    assert tied.shape == y.shape
    with pytest.raises(ValueError, match="some class can be separated"):
        m.fit_softmax(x, y.astype(int))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.full(40, 2.0)}, r"y\[0\] = 2.0: must be in \[0, 1\]"),
        ({"y": np.zeros(39)}, "shapes"),
        ({"ridge": -1.0}, "ridge = -1.0"),
        ({"weight": np.zeros(40)}, "weight"),
        ({"x": np.ones((40, 2))}, "rank 1"),
        ({"x": np.full((40, 2), np.nan)}, "x.*nan.*finite"),
    ],
)
def test_bad_data_are_refused(change, words):
    x, y = problem()
    with pytest.raises(ValueError, match=words):
        m.fit(**{"x": x, "y": y, **change})


def test_bad_constants_are_refused(plain):
    with pytest.raises(ValueError, match="epsilon = 0"):
        m.ranges(plain, 0)
    found = m.ranges(plain, 0.01)
    with pytest.raises(ValueError, match="delta = 1"):
        m.ambiguity(plain, found, 1)
    with pytest.raises(ValueError, match="delta = 0"):
        m.discrepancy(plain, found, 0.01, 0, key=jax.random.key(0))
    soft = m.fit_softmax(*three_classes())
    with pytest.raises(ValueError, match="two different classes from 0 to 2"):
        m.log_odds_ranges(soft, 0.01, 1, 3)
    with pytest.raises(ValueError, match=r"classes.*must be 0, 1"):
        m.fit_softmax(np.ones((4, 1)), [0, 0, 2, 2])
