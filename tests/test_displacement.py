"""Displacement in numbers: the references to their printed digits, the controls, and on-policy data by enumeration."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from experiments.displacement import measure, network, refusal, sequences
from experiments.displacement.measure import MAYBE, NEVER, NO, START, YES, toy
from experiments.displacement.setup import Setup
from sandbox.algebra import log_softmax
from sandbox.measures import ches, first_order_fall
from sandbox.policies import (
    Tied,
    all_responses,
    linear_logits,
    prefix_ids,
    sequence_log_prob,
    tied_pair_gram,
    tied_response_gram,
)
from sandbox.runtime import quickly_compiled
from sandbox.tied import pair_clock, pair_logits, pair_margin, pair_speed
from tests.tolerances import Tolerance, assert_close, identity
from theory.displacement.flow import critical_kappa

float64_only = pytest.mark.skipif(not jax.config.jax_enable_x64, reason="printed digits beyond float32's rounding")
NUMBERS = Path(__file__).parents[1] / "paper_figures/displacement/numbers.json"


def printed(decimals: int) -> Tolerance:
    return Tolerance(0, 0.51 * 10**-decimals, f"half a unit of the printed decimal {decimals}")


def default(angle=20.0, length=4.0, norm=0.1):
    return toy(jnp.deg2rad(jnp.asarray(float(angle))), jnp.asarray(float(length)), jnp.asarray(float(norm)))


@jax.jit
def law_at(W, h, bias, clock):
    return jax.nn.softmax(pair_logits(W, h, bias, NO, NEVER, clock))


def lowest(*where):
    """Clock and probability of No where it is lowest, from its start on."""
    given = default(*where)
    clock = np.linspace(0, 12, 3001)
    no = np.asarray(jax.vmap(lambda t: law_at(*given, t))(jnp.asarray(clock)))[:, NO]
    at = int(np.argmin(no))
    if at == 0:
        return 0.0, no[0]
    found = minimize_scalar(lambda t: float(law_at(*given, t)[NO]), bounds=(clock[at - 1], clock[at + 1]),
                            method="bounded", options={"xatol": 1e-10})  # fmt: skip
    return found.x, found.fun


def gained(clock):
    W, h, _ = default()
    return float(pair_margin(h, W[NO] - W[NEVER], clock) - pair_margin(h, W[NO] - W[NEVER], 0.0))


def time_of(clock):
    grid = jnp.linspace(0, clock, 20_001)
    W, h, _ = default()
    return float(measure.dpo_time(grid, pair_margin(h, W[NO] - W[NEVER], grid))[-1])


# -- T1: No, Never, Yes, Maybe -----------------------------------------------------------------------------------------


@float64_only
def test_speed_at_the_start():
    W, h, _ = default()
    p = jnp.asarray(START)
    assert_close(pair_speed(W, h, p, NO, NEVER, NO), -0.082853, printed(6))
    assert abs(float(pair_speed(W, h, p, NEVER, NO, NO)) + 0.082853) > 0.01, "labels swapped"
    assert_close(sum(p[y] * pair_speed(W, h, p, NO, NEVER, y) for y in range(4)), 0)


@float64_only
@pytest.mark.parametrize(
    ("clock", "law", "gain"),
    [
        (0.5, (0.624632, 0.009408, 0.349155, 0.016805), 1.362401),
        (1, (0.197918, 0.000029, 0.801685, 0.000368), 5.991960),
    ],
)
def test_both_trained(clock, law, gain):
    assert_close(law_at(*default(), float(clock)), law, printed(6))
    assert_close(gained(clock), gain, printed(6))


@float64_only
def test_dip_and_recovery():
    clock, no = lowest()
    assert_close(clock, 1.17503, printed(5)), assert_close(no, 0.159671, printed(6))
    assert_close(law_at(*default(), clock)[YES], 0.840294, printed(6))
    assert_close(gained(clock), 9.8661, printed(4)), assert_close(time_of(clock), 27.806, printed(3))
    back = brentq(lambda t: float(law_at(*default(), t)[NO]) - 0.5, 1.2, 2)
    assert_close(back, 1.49184, printed(5))
    assert_close(time_of(back), 48.08, printed(2)), assert_close(gained(back), 24.23, printed(2))
    assert_close(law_at(*default(), 2.0)[NO], 1.0, printed(6))


@float64_only
def test_only_one_of_the_two_trained():
    W, h, bias = default()
    gap = W[NO] - W[NEVER]
    only_h = [jax.nn.softmax(bias + W @ (h + t * gap)) for t in (1, 3)]
    assert_close(only_h[0], (0.146299, 0.001249, 0.849173, 0.003279), printed(6))
    assert_close(only_h[1][NO], 1.8e-5, printed(6))
    alone = jax.nn.softmax(bias + W @ h + jnp.dot(h, h) * jnp.array([1, -1, 0, 0]))
    assert_close(alone, (0.851691, 0.049107, 0.049601, 0.049601), printed(6))


@float64_only
def test_descent_and_stops():
    run = jax.jit(partial(measure.pair, Setup()))(jax.random.key(0))
    no = np.exp(run["descent"][:, NO])
    assert_close(no.min(), 0.159141, printed(6)), assert_close(no[1999], 0.999153, printed(6))
    assert int(no.argmin()) == 279
    assert_close(run["stopped"][:, NO], (0.2292, 0.1597, 0.3253, 0.9982), printed(4))


@float64_only
def test_minimum_by_length_and_norm():
    wanted = {1: 0.849784, 2: 0.840604, 3: 0.610399, 4: 0.159671, 5: 0.011637}
    assert_close([lowest(20, length)[1] for length in wanted], list(wanted.values()), printed(6))
    assert [lowest(20, length, 1)[0] for length in (1, 2, 3, 4)] == [0, 0, 0, 0]
    assert_close(lowest(20, 5, 1)[1], 0.738758, printed(6))
    W, h, _ = default(20, 5, 1)
    assert_close(pair_speed(W, h, jnp.asarray(START), NO, NEVER, NO), 0.067416, printed(6))


@float64_only
def test_minimum_by_angle():
    """The dip vanishes as the tokens become alike: more similar is not worse."""
    wanted = {2: 0.846122, 5: 0.625717, 10: 0.270756, 20: 0.159671, 35: 0.208372, 50: 0.394051, 65: 0.671968}
    assert_close([lowest(angle)[1] for angle in wanted], list(wanted.values()), printed(6))
    assert lowest(80)[0] == lowest(100)[0] == 0


def test_lead_of_yes_peaks_and_vanishes():
    angles = np.arange(1.0, 130)

    def lead(angle):
        W, _, _ = default(angle)
        return jnp.dot(W[YES] - W[NO], W[NO] - W[NEVER])

    leads = np.array([lead(angle) for angle in angles])
    assert angles[leads.argmax()] == 50 and abs(leads[angles == 100]) < 1e-5 and leads[angles > 101].max() < 0


def test_maybe_never_counts():
    W, h, bias = default()
    assert_close(W[MAYBE], 0)
    assert_close(jax.nn.softmax(bias + W @ h), START)


def test_critical_kappa_stops_the_fall():
    W, h, _ = default()
    p = jnp.asarray(START, W.dtype)
    critical = critical_kappa(p, W, h, NO, NEVER)
    assert_close(pair_speed(W, h, p, NO, NEVER, NO, kappa=critical), 0, identity())
    assert pair_speed(W, h, p, NO, NEVER, NO, kappa=1.1 * critical) < 0
    assert jnp.isinf(critical_kappa(p, W, h, YES, NEVER)), "nothing lies beyond Yes"
    assert_close(pair_clock(h, W[NO] - W[NEVER], jnp.dot(h, W[NO] - W[NEVER])), 0, Tolerance(0, 1e-3, "a log near 0"))


# -- C11: two-token counterexamples ------------------------------------------------------------------------------------


@jax.jit
def rise_and_score(rejected_tokens, last):
    """The speed of chosen 0 1, W = 0 and four tokens, and CHES; ``last``: the second hidden vector of the rejected."""
    hidden = jnp.stack([jnp.eye(2), jnp.stack([jnp.array([1.0, 0]), last])])[None]
    tokens = jnp.stack([jnp.array([0, 1]), rejected_tokens])[None]
    gram = tied_pair_gram(Tied(jnp.zeros((4, 2)), hidden), tokens, jnp.ones((1, 2, 2), bool))
    two = jnp.array([2])
    return -first_order_fall(gram)[0], ches(hidden[:, 0], hidden[:, 1], two, two)[0]


def test_counterexamples_to_ches():
    def of(tokens, last):
        return rise_and_score(np.array(tokens), np.array(last))

    assert_close(of([2, 3], [0.0, 1]), (2, 0))  # pair P
    assert_close(of([2, 3], [0.0, 2]), (2.25, 1))  # pair Q scores higher, and rises faster
    assert_close(of([2, 1], [-5.0, 4]), (-2.5, -2))  # falls below a score of 0


# -- C13: on-policy data -----------------------------------------------------------------------------------------------


@jax.jit
def enumerated(key):
    """Probabilities (9,) of all responses of two tokens out of three, and the Gram matrix (9, 9) of their gradients."""
    responses = all_responses(3, 2)
    tokens, mask, contexts = jnp.asarray(responses.tokens), jnp.asarray(responses.mask), prefix_ids(responses.tokens, 3)
    normal = jax.random.normal(key, (14,))
    params = Tied(normal[:6].reshape(3, 2), normal[6:].reshape(4, 2))
    law = log_softmax(linear_logits(params.unembedding, params.hidden[contexts]))
    return jnp.exp(sequence_log_prob(law, tokens, mask)), tied_response_gram(params, contexts, tokens, mask)


def test_first_step_on_policy_by_enumeration():
    """All 9 x 9 pairs of two tokens, any labels: what a pair does to itself, and what all others do to it."""
    p, gram = (np.asarray(x) for x in enumerated(jax.random.key(3)))
    assert_close(p.sum(), 1)
    raw = 3 * np.random.default_rng(0).normal(size=(9, 9))
    wins = 1 / (1 + np.exp(raw.T - raw))  # how often y beats z: any rule

    def steps(drawn):
        """Mean inner product of a pair, mean speed by the own pair, and by the others against 2 |mean gradient|^2."""
        chance = drawn[:, None] * drawn[None, :]
        own = 2 * np.sum(chance * wins * (np.diag(gram)[:, None] - gram))
        chosen, rejected = 2 * np.sum(chance * wins, axis=1), 2 * np.sum(chance * (1 - wins), axis=1)
        assert_close(chosen.sum(), 1)
        return np.sum(chance * gram), own, chosen @ gram @ (chosen - rejected), 2 * chosen @ gram @ chosen

    inner, own, others, squared = steps(p)
    assert_close(inner, 0), assert_close(others, squared)
    assert own > 0.1 and squared > 1e-3
    inner, _, others, squared = steps(p**2 / np.sum(p**2))  # drawn at another temperature: neither holds
    assert abs(inner) > 1e-3 and abs(others - squared) > 1e-3


# -- T2 ----------------------------------------------------------------------------------------------------------------


def test_edit_distance():
    words = jnp.array([[1, 2, 3, 4], [2, 3, 4, 0], [1, 2, 0, 4]])
    far = jax.jit(sequences.edit_distance)
    assert far(words[0], words[1], 4, 3) == 1 and far(words[0], words[2], 4, 4) == 1
    assert far(words[0], words[1], 4, 4) == 2 and far(words[1], words[2], 0, 3) == 3


@float64_only
def test_power_of_ches_is_length_and_goes_on_policy():
    """Four seeds: the trends of the digest, within its ranges widened by half; the exact ones to their digits."""
    drawn = jax.vmap(partial(sequences.noise, 300))(jax.random.split(jax.random.key(0), 4))
    settings = jnp.array([[1.0, 2, 0, 1], [0, 0, 0, 1], [1, 1, 0, 0], [1, 1, 1, 0]])

    def of(x):
        return jax.vmap(lambda seed: sequences.ranked(seed, x[0], x[1], x[2] > 0, x[3] > 0))(drawn)

    found = jax.jit(partial(jax.lax.map, of), compiler_options=quickly_compiled(1))(settings)
    with_g = np.asarray(found["with G"]).mean(axis=1)  # (settings, scores)
    assert 0.5 < with_g[0, 0] < 0.9 and abs(with_g[0, 1]) < 0.25, "at varied lengths raw CHES has power"
    assert 0.4 < with_g[1, 0] < 0.6 and with_g[1, 1] < 0, "at W = 0 all of it is length"
    assert np.asarray(found["length"])[0].min() > 0.85, "it follows the difference of the lengths"
    assert with_g[2, 0] > 0.25 and abs(with_g[3, 0]) < 0.12, "fixed length: some off-policy, none on-policy"
    assert with_g[:3, 2].min() > 0.9, "weighted by alpha it nearly is G"
    assert_close(found["alpha"][1].mean(), 0.23, Tolerance(0, 0.03, "a share of 300 pairs"))
    assert np.asarray(found["mean fall"])[3].max() < 0


# -- T3, T4 ------------------------------------------------------------------------------------------------------------


def test_network_sums_the_logs_of_its_tokens():
    normal = jax.random.normal(jax.random.key(0), (sum(a * b for a, b in network.sizes(3).values()),))
    params = network.parameters(normal, 3)
    assert np.linalg.matrix_rank(params["W"], tol=1e-4) == 2
    every = all_responses(network.VOCABULARY, 2).tokens
    total = jax.vmap(lambda y: jnp.exp(network.log_prob(params, (1, y))))(jnp.asarray(every))
    assert_close(jnp.sum(total), 1)


def test_pairs_of_answers_prefer_the_refusal():
    normal = jax.random.normal(jax.random.key(1), (int(refusal.ENDS[-1]),))
    noise = jax.random.gumbel(jax.random.key(2), (2, refusal.PROMPTS, 4, refusal.VOCABULARY + 1))
    params = refusal.parameters(normal)
    tokens, differ = refusal.draw_pairs(params, noise)
    refuses = refusal.REFUSE[np.asarray(tokens)[..., 0]]
    mixed = refuses.sum(axis=1) == 1
    assert mixed.any() and refuses[mixed, 0].all()
    assert differ.tolist() == np.any(np.asarray(tokens)[:, 0] != np.asarray(tokens)[:, 1], axis=1).tolist()
    first, second = refusal.laws(params)
    joint = first[:, :, None] + second
    assert_close(jnp.sum(jnp.exp(joint), axis=(1, 2)), 1)
    assert_close(refusal.of_pairs(params, tokens)[5, 1], joint[2, tokens[5, 1, 0], tokens[5, 1, 1]])


def test_recorded_trends():
    """The full run: two refusals a pair lower the refusals, SFT mends it; CHES is not claimed to."""
    series = json.loads(NUMBERS.read_text())["series"]
    mass = np.array(series["refusal"]["mass"])
    start, end = mass[:, 0, 0], mass[:, :, -1]
    two, all_pairs, mended = (refusal.VARIANTS.index(v) for v in ("two refusals", "all pairs", "all pairs + SFT"))
    assert 0.77 < start.mean() < 0.82
    assert np.sum(end[:, two] < start) >= 7 and end[:, two].mean() < start.mean() - 0.1
    assert abs(end[:, all_pairs].mean() - start.mean()) < 0.1 and end[:, mended].min() > start.max()
    change = np.array(series["refusal"]["change"])[:, two]
    assert change.max(axis=1).mean() > 0.1 and change[:, -1].max() < -4, "rises first, then falls far"
    assert np.max(series["refusal"]["entangled"]) < 0.06
    by_g = np.array(series["network"]["subsets"])[:, 0].mean(axis=0)
    assert by_g[0] - by_g[-1] > 3, "G orders the subsets"
