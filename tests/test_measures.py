"""Gradient products against numbers worked by hand; the case against the signs of what it predicts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox import measures
from sandbox.algebra import kl, log_softmax
from sandbox.losses import PairLogProbs
from sandbox.measures import Case, GradientProducts
from sandbox.policies import Responses, all_responses, gram, prefix_ids, same_context, sequence_log_prob
from tests.tolerances import assert_close, identity

WEIGHT = st.integers(1, 8)
VECTOR = st.tuples(st.integers(-4, 4), st.integers(-4, 4)).filter(any)


def products(g_w, g_l):
    return measures.gradient_products(np.array(g_w, float), np.array(g_l, float))


# -- what a run did to a pair ----------------------------------------------------------------------------------------


def test_the_share_of_suppression_by_hand():
    """The margin grew by 4 nats; of it 3 by the rejected's fall, 5 with a falling chosen, -1 with a rising rejected."""
    share = measures.suppression_share(np.array([1.0, -1.0, 5.0]), np.array([-3.0, -5.0, 1.0]))
    assert_close(share, np.array([0.75, 1.25, -0.25]), identity())


def test_the_exponent_of_a_power_is_read_off_the_last_decade():
    times = np.geomspace(1, 1e4, 41)
    bent = np.where(times < 1e3, 0.0, -3.0 * np.log(times / 1e3))  # constant, then like t^-3
    found = measures.decay_exponent(times, np.stack([bent, -0.5 * np.log(times)], axis=1))
    assert_close(found, np.array([3.0, 0.5]), identity())
    assert measures.decay_exponent(times, bent, decades=2) < 2.5


def test_the_exponent_needs_late_times_in_order():
    with pytest.raises(ValueError, match=r"times: 2 in the last 1 decades: must be at least 3"):
        measures.decay_exponent([0.0, 1.0, 50.0, 100.0], np.zeros(4))
    with pytest.raises(ValueError, match=r"times: shape \(3,\): must be one axis, increasing"):
        measures.decay_exponent([1.0, 1.0, 2.0], np.zeros(3))


def test_falls_and_rises_from_the_extremes():
    path = np.array([[-3.0, -1.0], [-1.0, -2.0], [-2.5, -4.0]])
    assert_close(measures.fall_from_peak(path), np.array([1.5, 3.0]), identity())
    assert_close(measures.rise_to_peak(path), np.array([2.0, 0.0]), identity())


def test_rewards_and_margins():
    pair = PairLogProbs(-1.0, -2.0, ref_chosen=-1.5, ref_rejected=-1.75)
    assert measures.margin(pair) == 0.75
    assert measures.implicit_reward(pair.chosen, pair.ref_chosen, beta=2) == 1.0
    assert measures.displacement(before=-1.0, after=-1.25) == -0.25


def test_gradient_products_pair_by_pair():
    """Two pairs whose norms are (3, sqrt 2) and (1, sqrt 5)."""
    found = products([(3, 0), (1, 0)], [(1, 1), (2, 1)])
    assert_close(found.norm_chosen, [3, 1])
    assert_close(found.norm_rejected, np.sqrt([2, 5]))
    assert_close(found.inner, [3, 2])
    assert_close(found.cosine, [1 / np.sqrt(2), 2 / np.sqrt(5)])


def test_gradients_by_autodiff_are_those_of_the_closed_form():
    tokens, mask = all_responses(2, 3, end=1)
    contexts = prefix_ids(tokens, 2)
    table = jax.random.normal(jax.random.key(0), (7, 2))

    def log_prob(params, response):
        (tokens, mask), contexts = response
        return sequence_log_prob(log_softmax(params["table"][contexts]), tokens, mask)

    found = measures.gradients(log_prob, {"table": table}, (Responses(tokens, mask), contexts))
    assert found.shape == (4, 14)
    closed = gram(log_softmax(table[contexts]), tokens, mask, same_context(contexts))
    assert_close(found @ found.T, closed)
    meeting = measures.gradient_products(found[:2], found[2:])
    assert_close(meeting.inner, jnp.diagonal(closed, 2))
    assert_close(meeting.norm_chosen**2, jnp.diagonal(closed)[:2])


@given(WEIGHT, WEIGHT, VECTOR, VECTOR)
def test_the_case_is_the_sign_of_both_changes(d_w, d_l, g_w, g_l):
    found = products(g_w, g_l)
    chosen, rejected = measures.first_order_changes(d_w, d_l, *found)
    step = d_w * np.array(g_w) - d_l * np.array(g_l)
    assert_close(chosen, np.dot(g_w, step)), assert_close(rejected, np.dot(g_l, step))
    assume(min(abs(chosen), abs(rejected)) > 0.5)  # integers, so either is 0 up to rounding, which decides nothing
    case = int(measures.case(measures.kappa(d_w, d_l, found.norm_chosen, found.norm_rejected), found.cosine))
    assert (
        case
        == {(1, -1): Case.IDEAL, (-1, -1): Case.BOTH_FALL, (1, 1): Case.BOTH_RISE}[
            int(np.sign(chosen)), int(np.sign(rejected))
        ]
    )


@given(WEIGHT, WEIGHT, VECTOR, VECTOR)
def test_the_safe_interval_is_where_the_case_is_ideal(d_w, d_l, g_w, g_l):
    found = products(g_w, g_l)
    low, high = measures.safe_interval(*found)
    chosen, rejected = measures.first_order_changes(d_w, d_l, *found)
    assume(min(abs(chosen), abs(rejected)) > 0.5)
    assert bool((low < d_w / d_l) & (d_w / d_l < high)) == bool((chosen > 0) & (rejected < 0))
    assert bool(low <= high * (1 + identity().rtol))  # Cauchy-Schwarz


@pytest.mark.parametrize(
    ("kappa", "cosine", "expected"),
    [
        (1, 0.99, Case.IDEAL),
        (1, 1, Case.UNDEFINED),
        (0.5, 0.5, Case.BOTH_FALL),
        (2, 0.5, Case.BOTH_RISE),
        (2, 0.49, Case.IDEAL),
        (np.inf, 0, Case.BOTH_RISE),
        (np.inf, -0.1, Case.IDEAL),
        (0, 0.5, Case.UNDEFINED),
        (-1, 0.5, Case.UNDEFINED),
        (np.nan, 0.5, Case.UNDEFINED),
        (1.5, np.nan, Case.UNDEFINED),
    ],
)
def test_the_case_on_its_boundaries(kappa, cosine, expected):
    assert measures.case(kappa, cosine) == expected


def test_no_gradient_no_cosine_and_no_rejected_weight_infinite_kappa():
    with np.errstate(invalid="ignore"):
        assert np.isnan(products((0, 0), (1, 0)).cosine)
    assert np.isinf(measures.kappa(jnp.array(1.0), jnp.array(0.0), 1.0, 1.0))
    low, high = measures.safe_interval(*GradientProducts(1.0, 2.0, jnp.array([-1.0, 0.0, 1.0])))
    assert_close(low, [0, 0, 1]), assert_close(high, [np.inf, np.inf, 4])


def test_ches_of_sums_and_of_means():
    """Razin et al. 2024, by hand: equal hidden vectors score |y_w| (|y_l| - |y_w|), and 0 when length-normalised."""
    h = jnp.array([0.6, 0.8])
    assert_close(measures.ches(2 * h, 3 * h), 2)
    assert_close(measures.ches(2 * h / 2, 3 * h / 3), 0)
    assert_close(measures.ches(jnp.array([1.0, 1.0]), jnp.array([0.0, 1.0])), -1)


def test_entropy_and_divergence():
    log_p, log_q = log_softmax(jax.random.normal(jax.random.key(1), (2, 5, 4)))
    assert_close(measures.entropy(jnp.full(8, -jnp.log(8.0))), np.log(8))
    assert_close(measures.log_kl(log_p, log_q), kl(jnp.exp(log_p), jnp.exp(log_q)))
    uniform = jnp.full((5, 4), -jnp.log(4.0))
    assert_close(measures.entropy(log_p), np.log(4) - measures.log_kl(log_p, uniform))
