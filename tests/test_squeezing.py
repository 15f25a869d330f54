"""The squeezing effect in numbers: references to their printed digits, and what a wrong reading would say."""

from __future__ import annotations

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theory
from experiments.squeezing.sequence import first_above_one, run
from sandbox import squeezing, tables
from sandbox.algebra import flow_margin
from sandbox.dynamics import flow
from sandbox.policies import tied_gram
from tests.engine import verdict
from tests.tolerances import Tolerance, assert_close, golden
from theory.proof import Refuted

float64_only = pytest.mark.skipif(not jax.config.jax_enable_x64, reason="reference numbers carry ten digits")
P = jnp.array([0.5, 0.3, 0.15, 0.05])
PRINTED = Tolerance(0, 1e-9, "ten printed digits")
FOUR = Tolerance(0, 6e-5, "four printed digits")


def claim(name):
    return next(t for t in theory.theorems("squeezing") if t.name == name)


def factors(p, l, s):
    return jax.nn.softmax(squeezing.push_down(jnp.log(p), l, s)) / p


# -- one step ----------------------------------------------------------------------------------------------------------


@float64_only
@pytest.mark.parametrize(
    ("l", "s", "threshold", "factor"),
    [
        (3, 1.0, 0.3527184530, (1.1586801400, 0.9486470636, 0.8165080945, 0.2717919343)),
        (3, 5.0, 0.4096349658, (1.5711772373, 0.5780038040, 0.2730296644, 0.0011158098)),
        (1, 1.0, None, (1.3737341502, 0.4137607748, 0.9680541094, 0.8759315670)),
        (0, 5.0, 0.1138906475, None),
    ],
)
def test_table_of_four(l, s, threshold, factor):
    if threshold is not None:
        assert_close(squeezing.threshold(P, l, s), threshold, PRINTED)
    if factor is not None:
        assert_close(factors(P, l, s), factor, Tolerance(0, 2e-8, "printed digits"))


@float64_only
def test_small_thresholds_and_winners_that_drop_out():
    assert_close([squeezing.small_threshold(P, l) for l in (3, 1, 0)], [0.315, 0.065, -0.135], PRINTED)
    assert jnp.all(factors(P, 0, 1.0)[1:] > 1), "from the peak all others rise"
    later = factors(P, 0, 5.0)
    assert jnp.all(later[1:3] > 1) and later[3] < 1
    assert_close(later[3], 0.7265, FOUR)


@float64_only
def test_a_rare_rejected_gives_the_top_less():
    """Claim 4, second half: at fixed shares the gain of the top falls with q, and at a fixed law with the rarity."""
    r = jnp.array([0.8, 0.15, 0.05])
    gains = [factors(jnp.append((1 - q) * r, q), 3, 1.0)[0] for q in (1e-12, 0.05, 0.2, 0.4)]
    assert_close(gains, [1.1087, 1.1505, 1.2809, 1.4370], FOUR)
    p = jnp.array([0.6, 0.25, 0.1, 0.05])
    assert_close([factors(p, l, 1.0)[0] for l in (1, 2, 3)], [1.3257, 1.2087, 1.1800], FOUR)
    q, found = 0.2, []
    for q in (0.2, 0.05):
        law = jnp.append((1 - q) * r, q)
        theta = squeezing.small_threshold(law, 3)
        found.append(law[0] * (law[0] - theta) / (q * (1 - q + theta)))
    assert_close(found, [1.124, 2.097], Tolerance(0, 6e-4, "three printed digits"))


def test_counterexample_to_claim_4_by_hand():
    """r = 1/2 and s = 1: the gain e^(s (1-q)/2) / ((1-q) e^(s (1-q)/2) + q e^(-s (1-q))) is larger at q = 1/2."""

    def gain(q):
        up, down = math.exp((1 - q) / 2), math.exp(-(1 - q))
        return up / ((1 - q) * up + q * down)

    found = verdict(claim("rarer_rejected_lifts_the_top_more"))
    assert isinstance(found, Refuted)
    assert dict(found.counterexample) == {"r": "1/2", "q": "1/2", "shrink": "1/2", "s": "1"}
    assert_close([float(found.lhs), float(found.rhs)], [gain(1 / 2), gain(1 / 4)], golden())
    assert gain(1 / 2) > gain(1 / 4)


def test_other_counterexamples_as_they_are_shown():
    for name, shown in {
        "one_context_feeds_the_top": {"p": "(3/10, 1/10, 3/5)", "w": "0", "l": "1", "m": "2", "s": "1"},
        "opposed_contexts_never_lower_the_chosen": {"p": "(9/10, 1/20, 1/20)", "w": "0", "l": "1", "kappa": "-1"},
        "threshold_always_rises": {"p": "(1/8, 7/8)", "l": "1"},
    }.items():
        found = verdict(claim(name))
        assert isinstance(found, Refuted) and dict(found.counterexample) == shown


# -- the path ----------------------------------------------------------------------------------------------------------


@float64_only
@pytest.mark.parametrize(
    ("tau", "time", "law"),
    [
        (1.0, 1.2428098040, (0.6173155721, 0.2645638166, 0.1089380421, 0.0091825691)),
        (1.5, 2.2743497834, None),
        (-2.0, -1.6610150743, (0.3285649295, 0.2464236971, 0.1516453521, 0.2733660213)),
    ],
)
def test_closed_form_at_a_time(tau, time, law):
    assert_close(squeezing.flow_time(P, 3, tau), time, PRINTED)
    assert_close(squeezing.flow_parameter(P, 3, time), tau, Tolerance(0, 1e-8, "ten printed digits of the time"))
    found = squeezing.flow_law(P, 3, tau)
    assert_close(found, law, PRINTED) if law else assert_close(found[0], 0.7287750487, PRINTED)


@float64_only
def test_constants_of_the_end():
    """1 - p_* ~ C e^-t and p_- ~ C_- e^-2t, C = 7.1438026042 and C_- = .3841894775."""
    t = 17.0
    law = squeezing.flow_law(P, 3, squeezing.flow_parameter(P, 3, t))
    assert_close((1 - law[0]) * math.exp(t), 7.1438026042, Tolerance(2e-6, 0, "the next order, 7 e^-t"))
    assert_close(law[3] * math.exp(2 * t), 0.3841894775, Tolerance(4e-6, 0, "the next order, 14 e^-t"))


@float64_only
def test_equal_others_by_lambert_and_two_others_by_sinh():
    """p_- = .3 and t = 2 with one and with four equal others; (.6, .4) without the rejected at t = 3."""
    for k, printed in ((1, 0.0117668386), (4, 0.0487984098)):
        y = math.log(0.7 / 0.3)
        c = y - math.exp(-y) + (1 + 1 / k) * 2
        assert_close(jax.nn.sigmoid(flow_margin(-c)), printed, PRINTED)
        law = jnp.append(jnp.full(k, 0.7 / k), 0.3)
        found = squeezing.flow_law(law, k, squeezing.flow_parameter(law, k, 2.0))[k]
        assert_close(found, printed, PRINTED)
    x = 2 * math.asinh(math.sinh(math.log(0.6 / 0.4) / 2) * math.exp(1.5))
    assert_close(1 / (1 + math.exp(-x)), 0.8374921378, PRINTED)


def ascent(z, l):
    return jax.nn.softmax(z) - jax.nn.one_hot(l, z.size)


@float64_only
def test_a_rejected_response_that_leads_is_followed_to_the_end():
    """tau runs beyond 1 / p_rejected here: the logarithm of the closed form must not be that of the rejected."""
    p = jnp.array([0.1, 0.05, 0.85])
    times = jnp.array([0.0, 1.0, 6.0, 12.0])
    found = jax.nn.softmax(flow(ascent, jnp.log(p), times, (2,), substeps=200))
    closed = [squeezing.flow_law(p, 2, squeezing.flow_parameter(p, 2, t)) for t in times]
    assert_close(found, jnp.stack(closed), Tolerance(0, 1e-8, "Runge-Kutta in steps of .03"))
    assert squeezing.flow_parameter(p, 2, 12.0) > 1 / 0.85


def test_time_to_flat_is_where_nobody_else_loses():
    t = squeezing.time_to_flat(P, 3)
    law = squeezing.flow_law(P, 3, squeezing.flow_parameter(P, 3, -t))
    assert_close(squeezing.small_threshold(law, 3), 0, Tolerance(0, 1e-5, "float32"))
    assert squeezing.time_to_flat(P, 0) == 0


# -- pairs -------------------------------------------------------------------------------------------------------------


@float64_only
def test_dpo_in_one_context():
    """(.1, .2, .6, .1), chosen 0, rejected 1: one factor for both others; the flow at beta = .5, t = 40."""
    p, row = jnp.array([0.1, 0.2, 0.6, 0.1]), jnp.array([1.0, -1.0, 0, 0])
    ratio = jax.nn.softmax(jnp.log(p) + 0.5 * row) / p
    assert_close(ratio, [1.6718288561, 0.6150314653, 1.014015459, 1.014015459], PRINTED)
    found = jax.nn.softmax(tables.dpo_logits(jnp.log(p), 0, 1, 40.0, beta=0.5))
    assert_close(found, [0.7179989071, 0.0043813782, 0.2379597555, 0.0396599593], PRINTED)


@float64_only
def test_a_table_of_sequences():
    """Three tokens, s = .5, tokens (1, 1) against (2, 2): +.7756 and -1.3051; only the rejected branch is squeezed."""
    split, a, b = (jnp.log(jnp.array(p)) for p in ((0.5, 0.3, 0.2), (0.6, 0.3, 0.1), (0.7, 0.2, 0.1)))
    first = jax.nn.log_softmax(split + 0.5 * jnp.array([0, 1, -1])) - split
    up = jax.nn.log_softmax(squeezing.push_down(a, 1, -0.5)) - a
    down = jax.nn.log_softmax(squeezing.push_down(b, 2, 0.5)) - b
    assert_close([first[1] + up[1], first[2] + down[2]], [0.7755995502, -1.3050906758], PRINTED)
    assert_close(down, [0.1045907531, -0.1454092469, -0.6954092469], PRINTED)


@float64_only
def test_critical_kernels_and_the_tax():
    p = jnp.array([0.05, 0.05, 0.85, 0.05])
    kappa = squeezing.critical_kernel(p, 0, 1)
    assert_close([kappa, squeezing.critical_kernel(jnp.array([0.1, 0.02, 0.8, 0.08]), 0, 1)],
                 [2.5873015873, 2.7138599106], PRINTED)  # fmt: skip

    def change(s):
        e = jnp.eye(4)
        moved = jnp.log(p) + s * (e[0] - p - 0.99 * kappa * (e[1] - p))
        return (jax.nn.log_softmax(moved) - jnp.log(p))[0]

    assert change(0.001) > 0
    assert_close(change(1.0), -0.1487, FOUR)


@float64_only
def test_one_token_with_a_kernel_that_is_no_number():
    """W and h trained: the chosen falls, which no scalar kernel allows, and class 3, not the likeliest, gains most."""
    w, h = jnp.array([[1.0, 1], [1, 2], [6, 0], [0, -1]]), jnp.array([0.5, 0])
    rates = [tied_gram(w, h, y, 0) - tied_gram(w, h, y, 1) for y in range(4)]
    assert_close(rates, [-0.5882, -2.0882, 0.1618, 1.1618], FOUR)
    assert jnp.argmax(w @ h) == 2 and np.argmax(rates) == 3


# -- sequences with a kernel -------------------------------------------------------------------------------------------

SIZES = dict(tokens=10, most=4, longest=40, steps=200, rate=0.5, beta=0.1)


@pytest.fixture(scope="module")
def sequences():
    """overlap x (baseline, extend) of toy C, and longer fine-tuning, in one program."""
    many = jax.jit(jax.vmap(lambda o, n, e: run(o, 4, n, e, **SIZES)))
    found = many(jnp.array([0.3, 0.3, 0.5, 0.5, 0.7, 0.5, 0.3]), jnp.array([10, 10, 10, 10, 10, 20, 40]),
                 jnp.array([0.0, 1, 0, 1, 0, 0, 1]))  # fmt: skip
    return {name: np.asarray(x) for name, x in found.items()}


@float64_only
def test_extend_mends(sequences):
    chosen = sequences["chosen"]
    assert_close(chosen[:4, [0, -1]], [[-0.2553, -0.4250], [-0.3642, -0.0596], [-0.2553, -0.5312], [-0.5370, -0.0120]],
                 FOUR)  # fmt: skip
    assert_close([chosen[2].max(), chosen[2].argmax()], [-0.2192, 30], FOUR)
    assert_close(sequences["top"][2:4, [0, -1]], [[-0.6803, -0.0427], [-3.1453, -4.2995]], FOUR)
    assert_close(sequences["held_out"][2:4, [0, -1]], [[-0.6803, -0.0820], [-2.0984, -3.4071]], FOUR)


@float64_only
def test_ratio_tells_the_turn(sequences):
    assert_close(sequences["ratio"][2, [0, 30, 50, 100, 200]], [-0.6791, 1.0180, 1.9876, 2.6921, 2.2242], FOUR)
    first = [int(first_above_one(jnp.asarray(r))) for r in sequences["ratio"]]
    assert first == [12, -1, 30, -1, -1, -1, -1]
    assert sequences["chosen"][0].argmax() == 12


@float64_only
def test_the_mend_survives_at_equal_margin(sequences):
    """At margin 1: -.2464 after 63 steps against -.0337 after 150. After 40 steps of extend DPO hardly starts."""
    margin = sequences["margin"]
    assert_close(margin[2:4, -1], [2.235, 1.616], Tolerance(0, 6e-4, "three printed digits"))
    steps = [int(np.argmax(m >= 1)) for m in margin[2:4]]
    assert steps == [63, 150]
    assert_close([sequences["chosen"][2, 63], sequences["chosen"][3, 150]], [-0.2464, -0.0337], FOUR)
    assert_close(margin[6, -1], 0.02, Tolerance(0, 0.006, "two printed digits"))


@float64_only
def test_more_rejected_tokens_lower_the_chosen_more():
    """Twelve tokens, no fine-tuning on the rejected: 1, 2, 4 and 8 rejected tokens at both overlaps."""
    sizes = SIZES | dict(tokens=12, most=8, longest=10)
    many = jax.jit(jax.vmap(lambda o, n: run(o, n, 10, 0.0, **sizes)["chosen"]))
    chosen = many(jnp.repeat(jnp.array([0.3, 0.5]), 4), jnp.tile(jnp.array([1, 2, 4, 8]), 2))
    change = (chosen[:, -1] - chosen[:, 0]).reshape(2, 4)
    assert_close(change, [[0.1024, 0.0204, -0.1503, -0.3529], [0.1356, 0.0302, -0.2416, -0.4818]], FOUR)
    assert all(b < a for row in change for a, b in pairwise(row))
