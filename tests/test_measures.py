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
    assert_close(measures.ches_of_sums(2 * h, 3 * h), 2)
    assert_close(measures.ches_of_sums(2 * h / 2, 3 * h / 3), 0)
    assert_close(measures.ches_of_sums(jnp.array([1.0, 1.0]), jnp.array([0.0, 1.0])), -1)


# By hand, Razin et al. 2024, Def. 2, last-layer states: (9, 9) stands before the last one of the prompt; (7, 7) and
# (5, 5) are those of the last response token, which predict nothing. The sums are (2, 2) and (3, -1).
CHOSEN = np.array([[9, 9], [1, 0], [0, 1], [1, 1], [7, 7.0]])
REJECTED = np.array([[9, 9], [1, 0], [2, -1], [5, 5.0]])


def padded(states, tokens):
    return jnp.asarray(np.pad(states, ((0, tokens - len(states)), (0, 0))))[None]


def test_ches_of_hidden_states():
    chosen, rejected = padded(CHOSEN[1:-1], 5), padded(REJECTED[1:-1], 3)
    lengths = jnp.array([3]), jnp.array([2])
    assert_close(measures.ches(chosen, rejected, *lengths), -4)
    assert_close(measures.ches(chosen, rejected, *lengths, length_normalised=True), -2 / 9)
    assert_close(measures.ches(rejected, chosen, *lengths[::-1]), -6)
    assert_close(measures.ches(rejected, chosen, *lengths[::-1], length_normalised=True), -11 / 6)
    late = padded(CHOSEN[1:], 4), padded(REJECTED[1:], 4)
    assert_close(measures.ches(*late, jnp.array([4]), jnp.array([3])), -54)  # the last row kept: wrong
    assert_close(measures.ches(*late, *lengths), -4)  # rows beyond a length do not count


def test_ches_of_a_batch_is_that_of_the_sums():
    rng = np.random.default_rng(0)
    hidden, lengths = rng.normal(size=(2, 7, 5, 3)), rng.integers(1, 6, (2, 7))
    sums = [np.array([h[: lengths[k, n]].sum(0) for n, h in enumerate(hidden[k])]) for k in (0, 1)]
    assert_close(measures.ches(*hidden, *lengths), measures.ches_of_sums(*sums))
    means = [sums[k] / lengths[k][:, None] for k in (0, 1)]
    assert_close(measures.ches(*hidden, *lengths, length_normalised=True), measures.ches_of_sums(*means))


def test_half_precision_states_are_not_added_in_half_precision():
    states = jnp.full((1, 1000, 4), 300.0, jnp.float16)  # their sum 300,000 is no float16, its square no float16 either
    found = measures.ches(states, states[:, :500], jnp.array([1000]), jnp.array([500]))
    assert_close(found, -4 * 300_000 * 150_000)


def test_ches_transforms():
    rng = np.random.default_rng(1)
    hidden, lengths = jnp.asarray(rng.normal(size=(2, 3, 4, 2))), jnp.array([[4, 2, 1], [3, 4, 2]])
    plain = measures.ches(*hidden, *lengths)
    assert_close(jax.jit(lambda h: measures.ches(*h, *lengths))(hidden), plain)
    gradient = jax.grad(lambda h: jnp.sum(measures.ches(*h, *lengths)))(hidden)
    assert jnp.all(gradient[0, 1, 2:] == 0) and jnp.any(gradient[0, 1, :2] != 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(chosen_hidden=np.ones((2, 3))), r"chosen_hidden: shape \(2, 3\): must be \(pairs, tokens, width\)"),
        (dict(rejected_hidden=np.ones((2, 3, 5))), r"rejected_hidden: shape \(2, 3, 5\).*same\s+width"),
        (dict(rejected_hidden=np.ones((3, 3, 4))), r"rejected_hidden: shape \(3, 3, 4\).*as many pairs"),
        (dict(chosen_length=np.array([3])), r"chosen_length: shape \(1,\): must be \(2,\), one a pair"),
        (dict(chosen_length=np.array([3, 4])), r"chosen_length\[1\] = 4: must be a whole number from 1 to 3"),
        (dict(rejected_length=np.array([0, 3])), r"rejected_length\[0\] = 0: must be a whole number from 1 to 3"),
        (dict(rejected_length=np.array([1.5, 3])), r"rejected_length\[0\] = 1.5: must be a whole number"),
        (dict(chosen_hidden=np.full((2, 3, 4), np.nan)), r"chosen_hidden\[0, 0, 0\] = nan: must be finite"),
        (dict(rejected_hidden=np.full((2, 3, 4), np.inf)), r"rejected_hidden\[0, 0, 0\] = inf: must be finite"),
        (dict(chosen_hidden=np.full((2, 3, 4), 1e300)), r"squares overflow|chosen_hidden\[0, 0, 0\] = inf"),
    ],
)
def test_ches_refuses(change, message):
    good = dict(
        chosen_hidden=np.ones((2, 3, 4)), rejected_hidden=np.ones((2, 3, 4)), chosen_length=np.array([1, 3]),
        rejected_length=np.array([2, 3]),
    )  # fmt: skip
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=message):
        measures.ches(**{**good, **change})


def test_entropy_and_divergence():
    log_p, log_q = log_softmax(jax.random.normal(jax.random.key(1), (2, 5, 4)))
    assert_close(measures.entropy(jnp.full(8, -jnp.log(8.0))), np.log(8))
    assert_close(measures.log_kl(log_p, log_q), kl(jnp.exp(log_p), jnp.exp(log_q)))
    uniform = jnp.full((5, 4), -jnp.log(4.0))
    assert_close(measures.entropy(log_p), np.log(4) - measures.log_kl(log_p, uniform))
