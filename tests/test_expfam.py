"""Exponential families: fits against linear programs, terms against p^4 tensors, laws against counting."""

from __future__ import annotations

from itertools import product
from math import factorial, prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from sandbox.expfam import criterion, curved, exact, finite, gaussian, newton, one_parameter, regression, terms
from sandbox.expfam.terms import Expansion, Terms
from tests.tolerances import Tolerance, assert_close, identity

X64 = jax.config.jax_enable_x64
float64_only = pytest.mark.skipif(not X64, reason="the check needs more digits than float32 has")
PAIR = np.array([[0, 0], [1, 0], [0, 1], [2, 2]])
ROUNDED = (
    Tolerance(1e-8, 1e-8, "Newton's last step in float64") if X64 else Tolerance(2e-3, 2e-3, "the same in float32")
)


# -- terms -------------------------------------------------------------------------------------------------------------


def brute_force(P, spread, true_k3, k3, k4):
    """t0 .. t3 as the paper's sums read, in any coordinates, k4 with its p^4 elements."""
    A = P @ spread @ P
    t1 = np.einsum("ikm,ij,kl,ms,jls", true_k3, P, P, P, k3, optimize=True)
    pairs = [np.einsum(x, A, A) for x in ("ik,mo->ikmo", "im,ko->ikmo", "io,km->ikmo")]
    t2 = sum(np.einsum("uv,iku,mov,ikmo", P, k3, k3, x, optimize=True) for x in pairs)
    return Terms(np.trace(P @ spread), t1, t2, sum(np.einsum("ikmo,ikmo", k4, x) for x in pairs))


def cumulants_of(x, law):
    """Second to fourth cumulants of rows x under a law."""
    x = x - law @ x
    k2, k3, fourth = (np.einsum(f"n,{','.join(f'n{c}' for c in s)}->{s}", law, *[x] * len(s), optimize=True)
                      for s in ("ij", "ijk", "ijkl"))  # fmt: skip
    pairs = np.einsum("ij,kl->ijkl", k2, k2)
    return k2, k3, fourth - pairs - pairs.transpose(0, 2, 1, 3) - pairs.transpose(0, 3, 2, 1)


def some_laws(size=6, p=3):
    rng = np.random.default_rng(3)
    return rng.normal(size=(size, p)), rng.dirichlet(3 * np.ones(size)), rng.dirichlet(3 * np.ones(size))


def test_terms_against_sums_over_all_indices():
    x, model, truth = some_laws()
    found = finite.terms_at(jnp.asarray(x), jnp.asarray(model), jnp.asarray(truth))
    (V, k3, k4), (spread, true_k3, _) = cumulants_of(x, model), cumulants_of(x, truth)
    assert_close(jnp.stack(found), brute_force(np.linalg.inv(V), spread, true_k3, k3, k4))
    one = x[:, :1]
    (V, k3, k4), (spread, true_k3, _) = cumulants_of(one, model), cumulants_of(one, truth)
    scalars = terms.of_one_parameter(*(float(np.squeeze(y)) for y in (V, k3, k4, spread, true_k3)))
    found = finite.terms_at(jnp.asarray(one), jnp.asarray(model), jnp.asarray(truth))
    assert_close(jnp.stack(found), jnp.stack([jnp.asarray(t) for t in scalars]))


def test_terms_do_not_see_coordinates_or_columns_of_zeros():
    x, model, truth = (jnp.asarray(y) for y in some_laws())
    moved = x @ jnp.array([[2.0, 0.5, 0], [0, 1, 0], [1, 0, -3]]) + jnp.array([[5.0, 0, -2]])
    wider = jnp.concatenate([x[:, :2], jnp.zeros((6, 1)), x[:, 2:]], axis=1)
    found = [jnp.stack(finite.terms_at(y, model, truth)) for y in (x, moved, wider)]
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])


def test_well_specified_terms():
    x, model, _ = (jnp.asarray(y) for y in some_laws())
    found = finite.terms_at(x, model, model)
    assert_close(found.t0, 3.0)
    whole = finite.terms_at(jnp.eye(6)[:, 1:], model, model)
    k = 6
    assert_close(terms.risk(whole).b, (5 * jnp.sum(1 / model) - 6 * k + 1) / 12)
    assert_close(terms.reverse_risk(whole).b, (jnp.sum(1 / model) - 1) / 12)
    both = terms.optimism(whole)
    assert_close(both.a, terms.risk(whole).a + terms.reverse_risk(whole).a)
    assert_close(both.b, terms.risk(whole).b + terms.reverse_risk(whole).b)


@float64_only
def test_normal_model_on_any_data_against_tensors():
    """Two columns: the cumulants are derivatives of psi, and no formula for normal moments enters."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(9, 2)) ** 3 + rng.normal(size=(9, 2))
    law = rng.dirichlet(np.ones(9))

    def psi(theta):
        shape = jnp.array([[theta[2], theta[3] / 2], [theta[3] / 2, theta[4]]])
        return -theta[:2] @ jnp.linalg.solve(shape, theta[:2]) / 4 - jnp.linalg.slogdet(-2 * shape)[1] / 2

    x, y = rows.T
    statistics = np.column_stack([x, y, x * x, x * y, y * y])
    mean = law @ rows
    precision = np.linalg.inv((rows - mean).T @ np.diag(law) @ (rows - mean))
    theta = jnp.array([*(precision @ mean), -precision[0, 0] / 2, -precision[0, 1], -precision[1, 1] / 2])
    assert_close(jax.grad(psi)(theta), law @ statistics)  # it is the projection
    k2 = jax.hessian(psi)
    k3 = jax.jacfwd(k2)
    spread, true_k3, _ = cumulants_of(statistics, law)
    model = (np.asarray(jax.jit(f)(theta)) for f in (k2, k3, jax.jacfwd(k3)))
    V, third, fourth = model
    z = gaussian.whitened(jnp.asarray(rows), jnp.asarray(law))
    found = gaussian.terms(gaussian.moments(z, jnp.asarray(law)), 2)
    assert_close(jnp.stack(found), brute_force(np.linalg.inv(V), spread, true_k3, third, fourth), ROUNDED)
    assert_close(jnp.asarray(law) @ gaussian.leverage(z), found.t0)


def test_moments_of_weighted_and_of_repeated_rows():
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)))
    weights = jnp.array([1.0, 2, 3] * 4)
    repeated = jnp.repeat(rows, jnp.array([1, 2, 3] * 4), axis=0, total_repeat_length=24)
    of = jax.jit(lambda x, w: jnp.stack(gaussian.moments(gaussian.whitened(x, w), w)))
    assert_close(of(rows, weights), of(repeated, jnp.ones(24)))


@pytest.mark.parametrize("rows", [np.ones((5, 2)), np.arange(10.0).reshape(5, 2) * [[1, 2]], np.zeros((3, 1))])
def test_flat_tables_are_refused(rows):
    with pytest.raises(ValueError, match="must vary in every direction"):
        gaussian.whitened(jnp.asarray(rows))


def test_terms_of_normal_laws():
    """(t0, t1, t2, t3) of N_1, N_2 and N_3."""
    for d, printed in ((1, (2, 14, 46, 60)), (2, (5, 46, 156, 210)), (3, (9, 102, 354, 486))):
        assert gaussian.terms(gaussian.normal_moments(d), d) == printed


# -- fits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1, 2, 5, 8, 11])
def test_systems_are_solved_in_place_or_by_lapack(p):
    rng = np.random.default_rng(p)
    half = rng.normal(size=(p, p + 3))
    matrix, right = half @ half.T, rng.normal(size=p)
    assert_close(newton.solve(jnp.asarray(matrix), jnp.asarray(right)), np.linalg.solve(matrix, right), ROUNDED)


def inside(points, mean):
    """Is the mean in the interior of the hull? A linear program: can it be written with every weight above a share?"""
    k = len(points)
    equal = np.column_stack([np.vstack([points.T, np.ones(k)]), np.zeros(points.shape[1] + 1)])
    below = np.column_stack([-np.eye(k), np.ones(k)])
    cost = np.append(np.zeros(k), -1.0)
    best = linprog(cost, below, np.zeros(k), equal, np.append(mean, 1), [(0, 1)] * (k + 1))
    return best.status == 0 and -best.fun > 1e-9


def test_a_fit_exists_where_the_mean_is_inside_the_hull():
    """Every sample of 5 draws of four symbols: the fit and a linear program agree, its mean is the sample's."""
    counts = np.array([c for c in product(range(6), repeat=4) if sum(c) == 5])
    means = counts @ PAIR / 5
    found = jax.jit(jax.vmap(lambda m: finite.fit(jnp.asarray(PAIR, m.dtype), m)))(jnp.asarray(means))
    there = np.array([inside(PAIR, m) for m in means])
    assert 0 < there.sum() < len(there)
    assert np.array_equal(there, found.exists)
    law = jnp.exp(jax.vmap(lambda t: finite.log_law(jnp.asarray(PAIR, t.dtype), t))(found.theta))
    assert_close((law @ PAIR.astype(law.dtype))[there], means[there], ROUNDED)
    assert np.all(np.asarray(found.steps)[there] < newton.STEPS)


def test_statistics_that_do_not_fix_theta_are_refused():
    good = np.array([[0.0, 1], [1, 0], [0, 0], [2, 2]])
    finite.check_features(good)
    finite.check_features(np.column_stack([good, np.zeros(4)]))
    for bad in (np.column_stack([good, good.sum(axis=1)]), np.ones((4, 1)), np.eye(3)):
        with pytest.raises(ValueError, match="must be independent"):
            finite.check_features(bad)
    with pytest.raises(ValueError, match="finite"):
        finite.check_features(np.array([[np.nan], [1]]))


def test_cosines_are_orthonormal():
    x = finite.cosines(7, 6)
    assert_close(x.T @ x / 7, jnp.eye(6), identity())
    assert_close(jnp.mean(x, axis=0), jnp.zeros(6))
    for size, p in ((7, 7), (7, 0), (1, 1)):
        with pytest.raises(ValueError):
            finite.cosines(size, p)


# -- exact -------------------------------------------------------------------------------------------------------------


def test_lattice_law_is_the_multinomial():
    q = np.array([0.1, 0.2, 0.3, 0.4])
    (three, five) = exact.lattice_law(PAIR, jnp.asarray(q), [3, 5])
    for n, found in ((3, three), (5, five)):
        by_sum = dict.fromkeys(map(tuple, exact.lattice(PAIR, n)), 0.0)
        for c in product(range(n + 1), repeat=4):
            if sum(c) == n:
                pmf = factorial(n) / prod(map(factorial, c)) * np.prod(q ** np.array(c))
                by_sum[tuple(np.array(c) @ PAIR)] += pmf
        assert_close(found, np.array(list(by_sum.values())))
    with pytest.raises(ValueError, match="whole numbers"):
        exact.lattice_law([[0.5], [1]], jnp.asarray([0.5, 0.5]), [3])


def test_too_few_draws_are_refused():
    """30 draws of (.1, .3, .6) miss a symbol in four samples of a hundred, .9^30: there is no risk to speak of."""
    corner = [[0, 0], [1, 0], [0, 1]]
    with pytest.raises(ValueError, match=r"n = 30: with probability 0\.042 no fit exists"):
        exact.risk(corner, jnp.array([0.1, 0.3, 0.6]), [30])


@float64_only
def test_curved_formula_is_the_family_where_the_curve_is_one():
    x, _, truth = some_laws(size=4, p=1)
    x, truth = jnp.asarray(x), jnp.asarray(truth)
    theta = finite.project(x, truth).theta[0]
    found = jax.jit(lambda t: curved.expansion(lambda t: finite.log_law(x, t[None]), t, truth))(theta)
    model = jnp.exp(finite.log_law(x, theta[None]))
    assert_close(jnp.stack(found), jnp.stack(terms.risk(finite.terms_at(x, model, truth))))


def test_variance_functions():
    assert_close(jnp.stack(one_parameter.cumulants(one_parameter.VARIANCES["poisson"], 1.5)), [1.5, 1.5, 1.5])
    q = 0.3
    v, k3, k4 = one_parameter.cumulants(one_parameter.VARIANCES["bernoulli"], q)
    assert_close([v, k3, k4], [q * (1 - q), q * (1 - q) * (1 - 2 * q), q * (1 - q) * (1 - 6 * q * (1 - q))])


# -- criterion ---------------------------------------------------------------------------------------------------------


def test_criterion():
    assert_close(criterion.allowed_risk(0.05), 0.02)
    found = Expansion(2.0, 11.0)
    star = criterion.draws_needed(found, 0.02)
    assert_close(found.at(star), 0.02)
    assert_close(criterion.draws_needed_first(found, 0.02), 100.0)
    assert_close(criterion.bayes_error(jnp.array([0.6, 0.4]), jnp.array([0.4, 0.6])), 0.4)
    for alpha in (0.0, 0.5, -1.0):
        with pytest.raises(ValueError, match="alpha"):
            criterion.allowed_risk(alpha)
    n, loss = 50.0, 1.2
    assert_close(criterion.aicc(loss, n, 3) - criterion.aic(loss, n, 3), 2 * 3 * 4 / (50 - 4))
    assert_close(criterion.tic(loss, n, 3.0), criterion.aic(loss, n, 3))
    assert_close(criterion.tic_second(loss, n, Expansion(3.0, 10.0)) - criterion.tic(loss, n, 3.0), 2 * 10 / 50)


# -- regressions -------------------------------------------------------------------------------------------------------


def test_logistic_regressions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 80, 3))
    y = (rng.random((3, 80)) < 1 / (1 + np.exp(-x.sum(axis=2)))).astype(float)
    y[2] = x[2, :, 0] > 0  # these classes can be separated
    found = jax.jit(jax.vmap(regression.logistic))(jnp.asarray(x), jnp.asarray(y))
    assert found.exists.tolist() == [True, True, False]
    for k in (0, 1):
        gap = x[k].T @ (1 / (1 + np.exp(-x[k] @ np.asarray(found.theta[k], float))) - y[k]) / 80
        assert_close(gap, np.zeros(3), ROUNDED)


def test_bradley_terry_scores():
    rng = np.random.default_rng(1)
    wins = rng.integers(0, 6, (5, 5)) * (1 - np.eye(5))

    def loss(s):
        return np.sum(wins * np.logaddexp(0, s[None, :] - s[:, None])) + 0.1 * s @ s

    expected = minimize(loss, np.zeros(5), tol=1e-10).x
    found = regression.bradley_terry(jnp.asarray(wins), 0.1)
    assert_close(found.theta, expected - expected.mean(), Tolerance(1e-3, 1e-4, "where the peer's solver stops"))
    free = regression.bradley_terry(jnp.asarray(wins))
    assert free.exists and abs(float(jnp.sum(free.theta))) < 1e-4
    wins[0], wins[:, 0] = wins[0] + 1, 0  # the first never loses
    np.fill_diagonal(wins, 0)
    assert not regression.bradley_terry(jnp.asarray(wins)).exists
