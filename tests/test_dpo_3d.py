"""DPO's 3D-properties: the reference numbers of the table, the features and the mends, to their printed digits."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.dpo_3d import linear, table
from experiments.dpo_3d.mends import flex_flow, tuned_flow
from sandbox import losses
from sandbox.algebra import flow_margin
from sandbox.dynamics import flow, log_times
from sandbox.losses import response_pair
from sandbox.statistics import log_log_slope
from tests.tolerances import assert_close
from theory.dpo_3d import free, mends, softmax

pytestmark = pytest.mark.skipif(not jax.config.jax_enable_x64, reason="reference numbers carry seven digits and more")

PRINTED = 1e-6  # relative: the references carry seven digits
START = jnp.log(jnp.array(table.START))


def closed(beta, t, start=START):
    return jnp.exp(table.closed_form(start, beta, t))


def agrees(found, printed, digits=PRINTED):
    np.testing.assert_allclose(np.asarray(found), np.asarray(printed), rtol=digits, atol=0)


# -- C6, C8, C9: the table --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beta", "t", "u", "chosen", "rejected", "unseen"),
    [
        (0.1, 10, 0.0975421218, 0.09284530, 0.28004632, 0.62710837),
        (0.1, 100, 0.7920599684, 0.82471719, 0.0023961958, 0.17288661),
        (0.1, 1000, 2.8961259512, 0.99999434, 2.1153018e-12, 5.66e-6),
        (0.5, 100, 3.8532647646, 0.80846418, 0.0029096954, 0.18862613),
        (1.0, 100, 5.2767019173, 0.54730238, 0.022370454, 0.43032716),
    ],
)
def test_the_flow_at_a_time(beta, t, u, chosen, rejected, unseen):
    p = closed(beta, t)
    agrees(flow_margin(1 + 2 * beta**2 * t), u)
    agrees(p[:2], [chosen, rejected])
    agrees(jnp.sum(p[2:]), unseen, 1e-3 if unseen < 1e-4 else PRINTED)


def test_integrated_flow_is_the_closed_form_and_descent_approaches_it_in_proportion_to_the_step():
    times = jnp.array([0.0, 10.0, 100.0])
    states = flow(table.dpo_flow, START, times, (START, 0.1), substeps=64)
    assert_close(jax.nn.softmax(states), jnp.stack([closed(0.1, t) for t in times]), golden_or(1e-8))
    gaps = table.table(table.Setup(), jax.random.key(0))["descent_gap"]
    agrees(gaps, [0.0108, 0.0053, 0.0027], 0.02)  # two digits are printed
    assert 1.9 < gaps[0] / gaps[1] < 2.1 and 1.9 < gaps[1] / gaps[2] < 2.1
    # Euler overshoots the margin by (step / 2) f log(f0 / f) where its speed f fell from f0 = beta; the step^2 term is
    # a twentieth of that at most, as the halving shows. Each of the two logits has half of it.
    p = closed(0.5, 10)
    speed = 0.5 * (1 - jnp.tanh(0.25 * jnp.log(p[0] / p[1] * table.START[1] / table.START[0])))
    overshoot = 0.05 / 2 * speed * jnp.log(0.5 / speed)
    agrees(gaps[2], overshoot / 2 * (1 + jnp.abs(p[0] - p[1])), 0.05)
    assert overshoot < 0.05 * table.DESCENT_BETA / (2 * np.e)


def golden_or(rtol):
    from sandbox.tolerances import Tolerance

    return Tolerance(rtol, rtol, "Runge-Kutta of fourth order, 64 steps")


def test_slopes_and_speeds_part():
    """p/q, the ratio of log speeds and that of speeds at t = 0, 10, 100 for beta = 0.1."""
    found = []
    for t in (0.0, 10.0, 100.0):
        z = START + flow_margin(1 + 0.02 * t) / 0.2 * jnp.array([1.0, -1, 0, 0, 0])
        p, rate = jax.nn.softmax(z), softmax.speeds(z, START, 0, 1, 0.1)
        found.append([p[0] / p[1], -rate[1] / rate[0], -p[1] * rate[1] / (p[0] * rate[0])])
    agrees(found, [[0.125, 0.48148, 3.85185], [0.33154, 0.68463, 2.06504], [344.18, 10.2563, 0.029799]], 2e-5)


def test_dispersion_peaks_and_returns():
    ratio = table.START[1] / table.START[0]
    top, back = softmax.peak_time(ratio, 0.1), softmax.return_time(ratio, 0.1)
    agrees([top, back], [21.954428, 46.580244])
    agrees([jnp.sum(closed(0.1, t)[2:]) for t in (top, back)], [0.6603888, 0.55])


def test_slopes_in_free_variables():
    dpo = partial(losses.dpo, beta=0.1)
    agrees(free.slopes(dpo, 0.2, 0.1, 0.15, 0.3), [-0.232699019, 0.465398039])
    agrees(free.slopes(dpo, 0.2, 1e-6, 0.15, 0.3), [-0.107933, 21586.60], 5e-6)
    agrees(free.slopes(partial(losses.dpo, beta=1.0), 0.2, 1e-6, 0.15, 0.3), [-1.25e-5, 2.49999], 5e-6)


@pytest.mark.parametrize(("beta", "time"), [(0.5, 0.442972), (1.0, 0.381430)])
def test_the_free_rejected_dies_in_finite_time(beta, time):
    """From p = .2, q = .4 along the circle: dt = (p^beta + C q^beta) q^(1 - beta) / (beta C) dq, by Gauss-Legendre."""
    c = free.constant(0.2, 0.4, beta)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = (nodes + 1) / 2  # q = .4 x^(1 / (2 - beta)) takes the root off the integrand
    q = 0.4 * x ** (1 / (2 - beta))
    p = np.sqrt(0.2 - q**2)
    pace = (p**beta + c * q**beta) / (beta * c) * 0.4 ** (2 - beta) / (2 - beta)
    agrees(np.sum(weights / 2 * pace), time, 2e-6)


# -- C7, C10, C13: features -------------------------------------------------------------------------------------------


def test_the_chosen_peaks_where_the_mean_score_is_one():
    scores, start = jnp.array([1.0, 0, 0.5, 1.5]), jnp.log(jnp.array([0.05, 0.35, 0.55, 0.05]))
    margins = jnp.linspace(0, 6, 60_001)
    chosen = jax.vmap(lambda g: jax.nn.softmax(start + g * scores)[0])(margins)
    best = jnp.argmax(chosen)
    agrees(chosen[best], 0.1222604)
    agrees(margins[best], 2.68490, 4e-5)  # the grid's spacing is 1e-4
    agrees(jax.nn.softmax(start + margins[best] * scores) @ scores, 1.0, 1e-4)


def test_one_feature_lowers_the_chosen():
    scores, start = jnp.array([1.0, 0, 2]), jnp.log(jnp.array([0.3, 0.2, 0.5]))
    times = jnp.array([0.0, 1.0, 10.0, 100.0])
    theta = flow(linear.score_flow, jnp.zeros(()), times, (scores, start, 0.1), substeps=64)
    p = jax.nn.softmax(start[None] + jnp.outer(theta[1:], scores))
    agrees(p[:, 0], [0.29531614, 0.24167673, 0.00710782], 5e-7)
    agrees(p[:, 2], [0.51739656, 0.65999285, 0.99283564], 5e-7)


@pytest.mark.parametrize(("beta", "rejected", "unseen"), [(0.1, 10, 5), (0.25, 4, 2), (0.5, 2, 1), (1.0, 1, 0.5)])
def test_exponents_in_a_table(beta, rejected, unseen):
    times = jnp.logspace(7, 9, 9)
    p = jax.vmap(partial(closed, beta))(times)
    slopes = [log_log_slope(times, p[:, k]).slope for k in (1, 2)]
    np.testing.assert_allclose(slopes, [-rejected, -unseen], rtol=2e-3)  # log corrections at t = 1e7


def test_exponents_where_an_unseen_response_wins():
    """s* = 2 at beta = 1/2: the chosen falls like t^-2, the rejected like t^-4."""
    start = jnp.log(jnp.array([0.3, 0.2, 0.5]))
    times = jnp.logspace(7, 9, 9)
    g = flow_margin(1 + 0.25 * times) / 0.5
    log_probs = jax.nn.log_softmax(start[None] + jnp.outer(g, jnp.array([1.0, 0, 2])))
    slopes = [log_log_slope(times, jnp.exp(log_probs[:, k])).slope for k in (0, 1)]
    np.testing.assert_allclose(slopes, [-2, -4], rtol=2e-3)


def test_token_overlap_and_a_shared_rejected():
    n_w, n_l, p = jnp.array([1.0, 2, 0]), jnp.array([0.0, 3, 0]), jnp.full(3, 1 / 3)
    agrees((n_w - 3 * p) @ (n_w - n_l), -1.0)
    z, n1, n2 = jnp.log(jnp.array([0.05, 0.1, 0.8, 0.05])), 1.0, 3.0

    def loss(z):
        now, reference = jax.nn.log_softmax(z), jax.nn.log_softmax(jnp.log(jnp.array([0.05, 0.1, 0.8, 0.05])))
        pairs = [losses.dpo(response_pair(now, reference, w, 1), beta=0.1) for w in (0, 2)]
        return n1 * pairs[0] + n2 * pairs[1]

    push = -jax.grad(loss)(z)
    agrees((push - jax.nn.softmax(z) @ push)[0], -0.0525)
    agrees((1 - 0.05 + 0.1) / (0.8 - 0.1), 1.5)  # the ratio of copies at which it turns


# -- C14-C18: mends and scenarios --------------------------------------------------------------------------------------


def test_boundaries_of_two_betas():
    p = jnp.array([0.02, 0.02, 0.9, 0.06])
    square, mean = jnp.sum(p**2), jnp.sum(p[2:] ** 2) / jnp.sum(p[2:])
    agrees(mends.boundary_of_the_chosen(p[0], p[1], square), 2.291322)
    agrees(mends.boundary_of_the_rejected(p[0], p[1], square), 0.436429)
    agrees(mends.boundary_of_the_unseen(p[0], p[1], square, mean), 1.0)


@pytest.mark.parametrize(("rejected", "edge"), [(0.25, 0.8333), (0.3, 0.75), (0.4, 0.667)])
def test_either_side_of_the_separatrix(rejected, edge):
    assert mends.separatrix(0.1, rejected) == pytest.approx(edge, abs=5e-4)
    ends = []
    for peak in (edge - 0.03, edge + 0.03):
        z = jnp.log(jnp.array([1 - peak - 1e-6, 1e-6, peak]))
        times = jnp.asarray(log_times(1e8, 41))
        ends.append(jax.nn.softmax(flow(flex_flow, z, times, (z, 0.1, rejected), log_time=True)[-1])[0])
    assert ends[0] > 0.99 and ends[1] < 0.01


def test_a_fine_tuning_term_bounds_the_fall():
    scores, start = jnp.array([1.0, 0, 2]), jnp.log(jnp.array([0.3, 0.2, 0.5]))
    times = jnp.asarray(log_times(3000.0, 121))

    def lowest(alpha):
        theta = flow(tuned_flow, jnp.zeros(()), times, (scores, start, 0.1, alpha), log_time=True)
        return jnp.min(jax.nn.log_softmax(start[None] + jnp.outer(theta, scores))[:, 0])

    agrees(lowest(0.0), -33.72, 2e-4)
    agrees(lowest(0.05), -2.524, 2e-4)
    gradient = 1 - jnp.exp(start) @ scores  # d, of the one feature; v is 1
    agrees(-0.1 / 2 * gradient / gradient**2, 1 / 6)


def test_ipo_ends_at_its_target():
    margin = 1 / (2 * 0.1)
    p = jax.nn.softmax(START + margin / 2 * jnp.array([1.0, -1, 0, 0, 0]))
    agrees([p[0], p[1], jnp.sum(p[2:])], [0.51102836, 0.02754626, 0.46142538])


def test_the_four_scenarios():
    """Start, peak and its time, return, and the time at which the chosen has .9 with the rejected's log there."""
    laws = table.laws()
    printed = {
        0: (0.5, 39.466, -3.689),
        1: (0.11, 116.095, -5.307),
        2: (0.89, 15.730, -5.307),
        3: (0.5, 178.980, -12.242),
    }
    for k, (mean_score, time, rejected) in printed.items():
        start = jnp.log(laws[k])
        agrees((1 + laws[k, 0] - laws[k, 1]) / 2, mean_score)
        p = closed(0.1, time, start)
        assert p[0] == pytest.approx(0.9, abs=2e-5)
        assert jnp.log(p[1]) == pytest.approx(rejected, abs=1e-3)
    ratio = laws[1, 1] / laws[1, 0]
    top, back = softmax.peak_time(ratio, 0.1), softmax.return_time(ratio, 0.1)
    agrees([top, back], [40.751, 91.453], 1e-5)
    agrees(jnp.sum(closed(0.1, top, jnp.log(laws[1]))[2:]), 0.415721, 2e-6)
    times = jnp.linspace(0, 40, 2001)
    control = jax.vmap(lambda z: flow(table.likelihood_flow, z, times, substeps=1))(jnp.log(laws))
    peaks = jnp.max(table.unseen_mass(jax.nn.log_softmax(control)), axis=-1)
    np.testing.assert_allclose(peaks, [0.2, 0.3252, 0.18, 0.96], atol=5e-5)  # four digits are printed


def test_the_best_beta_at_a_time():
    betas = jnp.logspace(-1, 1, 200_001)
    best = betas[jnp.argmax(flow_margin(1 + 2 * betas**2) / betas)]
    agrees(best, 2.0480, 3e-5)
