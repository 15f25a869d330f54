"""Utilities: inversion of runs, end points, and decisions, against brute force and by hand."""

from __future__ import annotations

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import lambertw

from sandbox import utility
from tests.tolerances import Tolerance, assert_close, identity

X64 = jax.config.jax_enable_x64
float64_only = pytest.mark.skipif(not X64, reason="the number is smaller than float32's rounding")
EXACT = Tolerance(1e-12, 1e-12, "an identity of float64: some hundred additions") if X64 else identity()


def laws(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]), jnp.result_type(float))


def normals(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.result_type(float))


# -- one step, by hand -------------------------------------------------------------------------------------------------


def test_a_step_is_the_gradient_of_the_loss():
    u, q = normals(0, 5), laws(1, 5)
    descended = u - 0.3 * jax.grad(lambda u: utility.loss(u, q) + 0.2 * u @ u / 2)(u)
    assert_close(utility.step(u, q, 0.3, 0.2), descended)


def test_a_step_of_two_outputs_is_the_binary_step():
    u, q = jnp.array([0.7, -0.4]), jnp.array([0.8, 0.2])
    after = utility.step(u, q, 1.7)
    assert_close(utility.binary_step(1.1, 0.6, 1.7), after[0] - after[1])


def test_regret_is_the_loss_and_cools_to_the_hinge():
    u = normals(2, 6)
    assert_close(utility.regret(u, 3), -jax.nn.log_softmax(u)[3])
    cold = utility.regret(u, 3, 1e-3)
    assert_close(cold, jnp.max(u) - u[3], Tolerance(0, 2e-3 * np.log(6), "tau log K, and rounding"))


def test_the_optimum_is_stationary_and_keeps_the_mean():
    q, start = laws(3, 4), normals(4, 4)
    best = utility.optimum(q, start)
    assert_close(jax.nn.softmax(best), q)
    assert_close(jnp.mean(best), jnp.mean(start))


# -- residual inversion ------------------------------------------------------------------------------------------------


def run_of(start, targets, steps, decay=0.0):
    """A run by plain NumPy in float64: utilities at the end, and probabilities before each step."""
    u, before = np.array(start, float), []
    for target, eta in zip(targets, steps, strict=True):
        p = np.exp(u - u.max(axis=-1, keepdims=True))
        p = p / p.sum(axis=-1, keepdims=True)
        before.append(p)
        u = u - eta[:, None] * decay * u + eta[:, None] * (target - p)
    return u, np.array(before)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.03]))
def test_a_recorded_run_gives_the_frequencies_of_what_it_saw(seed, decay):
    """Three contexts in any order, one output or a batch a step, steps of any size; some contexts rest."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0, 3, (12, 3)) * (rng.uniform(size=(12, 3)) < 0.6)
    steps[0] = 1  # each is visited
    targets = np.where(rng.uniform(size=(12, 3, 1)) < 0.5, np.eye(4)[rng.integers(0, 4, (12, 3))],
                       rng.dirichlet(np.ones(4), (12, 3)))  # fmt: skip
    start = rng.normal(size=(3, 4))
    end, probs = run_of(start, targets, steps, decay)
    left = np.cumprod((1 - steps * decay)[::-1], axis=0)[::-1]
    omega = steps * np.concatenate([left[1:], np.ones((1, 3))])
    frequency = np.einsum("tx,txv->xv", omega, targets) / omega.sum(axis=0)[:, None]
    found = utility.recorded(*(jnp.asarray(x) for x in (start, end, probs, steps)), decay)
    assert_close(found, frequency, EXACT)


def test_full_batches_give_the_law_at_every_time():
    q, start = laws(5, 3, 6), normals(6, 3, 6)
    for count in (1, 2, 7, 100):
        steps = np.full((count, 3), 0.8)
        end, probs = run_of(start, np.broadcast_to(q, (count, 3, 6)), steps)
        assert_close(utility.recorded(start, jnp.asarray(end), jnp.asarray(probs), jnp.asarray(steps)), q, EXACT)


def test_probabilities_after_the_step_are_the_wrong_ones():
    q, start = laws(5, 1, 6), 0 * normals(6, 1, 6)
    steps = np.ones((4, 1))
    end, probs = run_of(start, np.broadcast_to(q, (4, 1, 6)), steps)
    late = np.concatenate([probs[1:], np.asarray(jax.nn.softmax(jnp.asarray(end)))[None]])
    found = utility.recorded(start, jnp.asarray(end), jnp.asarray(late), jnp.asarray(steps))
    assert np.max(np.abs(found - q)) > 0.01


def test_a_context_that_was_never_visited_has_no_law():
    steps = jnp.array([[1.0, 0.0]])
    found = utility.recorded(jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.ones((1, 2, 3)) / 3, steps)
    assert_close(found[0], jnp.ones(3) / 3)
    assert np.all(np.isnan(found[1]))


def test_the_sums_of_a_run_are_those_of_its_record():
    q, start = laws(7, 5), normals(8, 5)
    sums = utility.run_sums(start)
    for eta in (0.5, 2.0, 1.0):
        sums = utility.advance(sums, q, eta, 0.1)
    end, probs = run_of(start[None], np.broadcast_to(q, (3, 1, 5)), np.array([[0.5], [2.0], [1.0]]), 0.1)
    assert_close(sums.u, end[0])
    assert_close(sums.kept, 0.95 * 0.8 * 0.9)
    assert_close(sums.weight, 0.5 * 0.8 * 0.9 + 2 * 0.9 + 1)
    assert_close(sums.probs, 0.36 * probs[0, 0] + 1.8 * probs[1, 0] + probs[2, 0])
    assert_close(utility.decayed_inverse(sums, start), q)


def test_a_penalty_and_smoothed_labels_are_taken_back():
    """Training with both ends where the defect is zero; the law comes back from the last utilities alone."""
    q = laws(9, 5)
    u = jnp.zeros(5)
    for _ in range(400):
        u = utility.step(u, q, 1.0, 0.2)
    assert_close(utility.penalised_law(u, 0.2 * u), q)
    smoothed = 0.9 * q + 0.1 / 5
    assert_close(utility.unsmoothed(smoothed, 0.1), q)
    assert utility.unsmoothed(jnp.array([0.01, 0.99]), 0.1)[0] < 0


solve = jax.jit(jax.vmap(utility.from_end_points))


@pytest.mark.parametrize(("eta", "count"), [(1.0, 10), (3.0, 3), (0.2, 50), (1.0, 400), (1.0, 1)])
def test_end_points_alone_give_the_law(eta, count):
    q, start = laws(10, 20, 5), 0.5 * normals(11, 20, 5)
    etas, counts = jnp.full(20, eta), jnp.full(20, count)
    end = jax.vmap(lambda q, u: utility.forward(q, u, eta, count)[0])(q, start)
    found = solve(start, end, etas, counts)
    allowed = 1e-10 if X64 else 2e-3
    assert_close(found.q, q, Tolerance(allowed, allowed, "Newton's method; a late run has forgotten digits"))
    assert np.max(found.miss) < (1e-12 if X64 else 1e-3)
    if count < 100:
        assert np.abs(np.asarray(jax.nn.softmax(end)) - q).max() > 0.01, "softmax itself would not do"


def test_a_shift_does_not_matter_and_wrong_steps_leave_the_simplex():
    q, start = laws(12, 20, 5), 0.3 * normals(13, 20, 5)
    end = jax.vmap(lambda q, u: utility.forward(q, u, 1.0, 6)[0])(q, start)
    one, six = jnp.ones(20), jnp.full(20, 6)
    assert_close(solve(start, end + 5, one, six).q, q, Tolerance(1e-4, 1e-4, "float32 loses digits to the shift"))
    wrong = solve(start, end, one, six // 3).q
    assert np.mean(wrong.min(axis=1) < -0.01) > 0.5
    assert_close(jnp.sum(wrong, axis=1), np.ones(20))


def test_a_sweep_keeps_the_law_and_only_it():
    q, start = laws(14, 4), normals(15, 4)
    end = utility.forward(q, start, 1.0, 10)[0]
    assert_close(utility.sweep(q, start, end, 1.0, 10), q)
    other = jnp.roll(q, 1)
    assert np.max(np.abs(utility.sweep(other, start, end, 1.0, 10) - other)) > 0.01


# -- links -------------------------------------------------------------------------------------------------------------


@float64_only
def test_clocks_of_two_outputs_against_an_integrator():
    x = 0.4
    times = np.array([0.5, 2.0, 8.0])
    flow = solve_ivp(lambda t, d: x - np.tanh(d / 2), (0, 8), [0.0], t_eval=times, rtol=1e-12, atol=1e-12)
    assert_close(utility.binary_clock(flow.y[0], x), times, Tolerance(1e-9, 1e-9, "the integrator's 1e-12 a step"))
    s = 2 * times + 1
    assert_close(utility.one_hot_margin(times), s - lambertw(np.exp(s)).real)


def test_links_at_uniform_utilities_are_uniform():
    for link in (utility.linear_link, utility.corrected_link):
        assert_close(link(jnp.zeros(4), 0.3), np.full(4, 0.25))
        assert_close(jnp.sum(link(normals(16, 4), 0.3)), 1)


# -- orders ------------------------------------------------------------------------------------------------------------


def test_order_accuracy_counts_pairs_and_skips_ties():
    q = jnp.array([0.4, 0.3, 0.3, 0.0])
    assert utility.order_accuracy(q, q) == 1
    assert_close(utility.order_accuracy(jnp.array([1.0, 2.0, 0.0, -1.0]), q), 4 / 5)  # of 5 pairs one is turned
    assert utility.order_accuracy(jnp.zeros(4), q) == 0, "a tie of the utilities is no order"
    assert np.isnan(utility.order_accuracy(q, jnp.full(4, 0.25)))


@given(st.integers(0, 10_000))
def test_what_is_ordinal_survives_every_increasing_map(seed):
    """Rankings and greedy choices under a random increasing map, piecewise through random values."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=6)
    mapped = np.interp(u, np.sort(u), np.cumsum(rng.uniform(0.1, 3, 6)) - 5)
    assert np.array_equal(np.argsort(u), np.argsort(mapped))
    q = np.exp(u) / np.exp(u).sum()
    assert utility.order_accuracy(jnp.asarray(mapped), jnp.asarray(q)) == 1


# -- sequences ---------------------------------------------------------------------------------------------------------


def every_sentence(table, end=0):
    """(tokens, log-probability) of each sentence of at most L tokens, by brute force."""
    length, size = table.shape
    words = [v for v in range(size) if v != end]
    for n in range(length + 1):
        for some in product(words, repeat=n):
            score = sum(table[i, v] for i, v in enumerate(some)) + (table[n, end] if n < length else 0)
            yield some, score


@pytest.mark.parametrize("seed", range(3))
def test_exact_mode_and_a_full_beam_are_the_best_of_all(seed):
    table = np.log(np.random.default_rng(seed).dirichlet(np.ones(3), 4))
    tokens, score = max(every_sentence(table), key=lambda pair: pair[1])
    wanted = [*tokens, *[0] * (4 - len(tokens))]
    for found in (utility.exact_mode(jnp.asarray(table)), utility.beam_search(jnp.asarray(table), 27, most=27)):
        assert found.tokens.tolist() == wanted and found.length == len(tokens)
        assert_close(found.log_prob, score)


def beam_by_hand(table, width, end=0):
    beam = [((), 0.0, False)]
    for row in table:
        grown = []
        for tokens, score, done in beam:
            grown += (
                [(tokens, score, True)] if done else [((*tokens, v), score + s, v == end) for v, s in enumerate(row)]
            )
        beam = sorted(grown, key=lambda hypothesis: -hypothesis[1])[:width]
    tokens = [v for v in beam[0][0] if v != end]
    return [*tokens, *[end] * (len(table) - len(tokens))], beam[0][1]


@pytest.mark.parametrize("seed", range(3))
def test_beams_of_every_width_share_one_program(seed):
    table = np.log(np.random.default_rng(seed).dirichlet([0.5, 1, 1, 1], 5))
    widths = jnp.arange(1, 8)
    found = jax.vmap(lambda width: utility.beam_search(jnp.asarray(table), width, most=7))(widths)
    for k in range(7):
        tokens, score = beam_by_hand(table, k + 1)
        assert found.tokens[k].tolist() == tokens
        assert_close(found.log_prob[k], score)


def test_ties_go_to_the_lower_token():
    table = jnp.log(jnp.array([[0.1, 0.45, 0.45], [0.0, 0.5, 0.5]]))
    assert utility.beam_search(table, 2, most=2).tokens.tolist() == [1, 1]
    assert utility.exact_mode(table).tokens.tolist() == [1, 1]


def test_a_beam_of_no_width_is_refused():
    with pytest.raises(ValueError, match="most = 0: must be a whole number of at least 1"):
        utility.beam_search(jnp.zeros((2, 3)), 1, most=0)


def test_sampled_sentences_have_the_probabilities_they_report():
    """All sentences of two positions: drawn as often as their log-probability says."""
    table = jnp.log(jnp.array([[0.3, 0.7, 1e-9], [0.6, 0.3, 0.1]]))
    drawn = jax.vmap(partial(utility.sample, log_probs=table))(jax.random.split(jax.random.key(3), 4000))
    counts = {}
    for tokens, score in zip(np.asarray(drawn.tokens).tolist(), np.asarray(drawn.log_prob), strict=True):
        counts.setdefault((tuple(tokens), round(float(score), 4)), []).append(1)
    assert np.isclose(sum(np.exp(score) for _, score in counts), 1, atol=1e-3)
    for (tokens, score), hits in counts.items():
        p = np.exp(score)
        assert abs(len(hits) / 4000 - p) < 4 * np.sqrt(p * (1 - p) / 4000), tokens
    assert np.array_equal(drawn.length, np.sum(np.asarray(drawn.tokens) != 0, axis=1))


def test_sampling_quality_is_that_of_all_sentences():
    """Two tokens beside the end; the mean share of gold over every sentence, weighted by its probability."""
    law = np.array([0.2, 0.5, 0.3])
    table = np.broadcast_to(np.log(law), (4, 3))
    mean = sum(np.exp(score) * tokens.count(1) / 4 for tokens, score in every_sentence(table))
    assert_close(utility.sampling_quality(0.5, 0.2, 4), mean)


def test_critical_length_is_where_the_mode_becomes_empty():
    law = jnp.array([0.05, 0.8, 0.15])
    turn = float(utility.critical_length(0.8, 0.05))
    assert 13 < turn < 14
    for length in (13, 14):
        mode = utility.exact_mode(jnp.broadcast_to(jnp.log(law), (length, 3)))
        assert mode.length == (0 if length > turn else length)


def test_expected_payoffs_by_hand():
    assert_close(utility.expected_payoffs(jnp.array([0.25, 0.75]), jnp.array([[4.0, 0.0], [1.0, 2.0]])), [1, 1.75])


def test_frequency_error_by_enumeration():
    q = np.array([0.6, 0.4])
    chance = [0.4**3, 3 * 0.6 * 0.4**2, 3 * 0.6**2 * 0.4, 0.6**3]
    mean = sum(p * 2 * (k / 3 - 0.6) ** 2 for k, p in enumerate(chance))
    assert_close(utility.frequency_error(q, 3), mean)
