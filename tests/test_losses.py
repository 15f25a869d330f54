"""What the losses say: recorded values, limits, agreement of the readings, identities between losses, the list."""

from __future__ import annotations

import inspect
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from sandbox import losses
from sandbox.algebra import reading
from sandbox.algebra.numeric import evaluate
from sandbox.losses import LOSSES, PairLogProbs, margin_weights
from tests.tolerances import Tolerance, assert_close, golden, identity

X64 = jax.config.jax_enable_x64
DTYPES = [jnp.float32] + [jnp.float64] * X64


def constants_of(name: str) -> dict:
    """The keyword arguments of a loss, with their defaults."""
    return {k: p.default for k, p in inspect.signature(LOSSES[name]).parameters.items() if p.kind is p.KEYWORD_ONLY}


def printed(decimals: int) -> Tolerance:
    rounding = Tolerance(0, 0.51 * 10**-decimals, f"half a unit of the printed decimal {decimals}, and rounding")
    return rounding if X64 else golden()


# -- recorded values: loss; d_w; d_l -------------------------------------------------------------------------------

FIRST = PairLogProbs(-6.5, -7.25, -7.0, -7.5, 5, 4)
FIRST_NUMBERS = [
    ("dpo", dict(beta=0.3), (0.65635014, 0.14437764, 0.14437764)),
    ("rdpo", dict(beta=0.3, alpha=0.05), (0.63259904, 0.14063719, 0.14063719)),
    ("ipo", dict(tau=0.25), (3.0625, 3.5, 3.5)),
    ("ipo", dict(tau=0.25, reduction="mean"), (3.85140625, 0.785, 0.98125)),
    ("slic_hf", dict(delta=1, lam=0.5), (3.5, 1.5, 1)),
    ("rrhf", dict(lam=1), (6.5, 1, 0)),
    ("simpo", dict(beta=2, gamma=1), (0.6807253, 0.19750013, 0.24687516)),
    ("cpo", dict(beta=0.3, lam=1), (7.086962, 1.13319583, 0.13319583)),
    ("dpop", dict(beta=0.3, lam=5), (0.65635014, 0.14437764, 0.14437764)),
    ("kto", dict(beta=0.3, z0=0.2), (0.9812651, 0.07484833, 0.07499578)),
    ("sppo", dict(eta=4), (7.3125, 3, 4.5)),
    ("orpo", dict(lam=0.1), (1.34192121, 0.20941444, 0.01023106)),
    ("flex_dpo", dict(beta_chosen=0.3, beta_rejected=0.1), (0.63259904, 0.14063719, 0.04687906)),
    ("dpo_sft", dict(beta=0.3, alpha=1), (1.95635014, 0.34437764, 0.14437764)),
    ("dpo_sft", dict(beta=0.3, alpha=0.1, sft_reduction="sum"), (1.30635014, 0.24437764, 0.14437764)),
    ("cdpo", dict(beta=0.3, epsilon=0.1), (0.66385014, 0.11437764, 0.11437764)),
    ("robust_dpo", dict(beta=0.3, epsilon=0.1), (0.64697514, 0.18187764, 0.18187764)),
    ("exo", dict(beta=0.3, epsilon=0.1), (0.47034959, 0.15894322, 0.15894322)),
    ("nca", dict(beta=0.3), (1.37211064, 0.05815657, 0.07781118)),
    ("bco", dict(beta=0.3), (1.35230719, 0.13877105, 0.15562236)),
    ("apo_zero", dict(beta=0.3), (0.98131137, 0.0745797, 0.07489463)),
    ("apo_down", dict(beta=0.3), (1.01868863, 0.00031493, 0.07489463)),
    ("discopop", dict(beta=0.3, tau=0.05), (0.87823441, 0.01102386, 0.01102386)),
]
SECOND = PairLogProbs(-4.2, -5.0, -4.0, -4.5, 4, 5)
SECOND_NUMBERS = [
    ("dpo", dict(beta=0.5), (0.6209570478, 0.2312850773, 0.2312850773)),
    ("rdpo", dict(beta=0.5, alpha=0.05), (0.6443966601, 0.2375104063, 0.2375104063)),
    ("cdpo", dict(beta=0.5, epsilon=0.1), (0.6359570478, 0.1812850773, 0.1812850773)),
    ("robust_dpo", dict(beta=0.5, epsilon=0.1), (0.6022070478, 0.2937850773, 0.2937850773)),
    ("ipo", dict(tau=0.5), (0.49, 1.4, 1.4)),
    ("ipo", dict(tau=0.5, reduction="mean"), (0.9025, 0.475, 0.38)),
    ("slic_hf", dict(delta=1, lam=0.5), (2.3, 1.5, 1)),
    ("rrhf", dict(lam=0.5), (2.15, 0.75, 0.2)),
    ("simpo", dict(beta=0.5, gamma=0.25), (0.8400706677, 0.0710399979, 0.0568319983)),
    ("cpo", dict(beta=0.5, lam=0.5), (2.6130152524, 0.7006561699, 0.2006561699)),
    ("dpop", dict(beta=0.5, lam=0.5), (0.6443966601, 0.3562656094, 0.2375104063)),
    ("kto", dict(beta=0.5, z0=0.1), (0.9629873285, 0.1242995033, 0.1222291558)),
    ("sppo", dict(eta=2), (1.69, 2.4, 1)),
    ("orpo", dict(lam=0.5), (1.4164506258, 0.3498918031, 0.0821816528)),
    ("dpo_sft", dict(beta=0.5, alpha=0.05), (0.6734570478, 0.2437850773, 0.2312850773)),
    ("flex_dpo", dict(beta_chosen=0.5, beta_rejected=0.25), (0.6807253035, 0.2468751628, 0.1234375814)),
]


@pytest.mark.parametrize(
    ("pair", "decimals", "name", "constants", "numbers"),
    [(FIRST, 8, *row) for row in FIRST_NUMBERS] + [(SECOND, 10, *row) for row in SECOND_NUMBERS],
)
def test_recorded_value_and_weights(pair, decimals, name, constants, numbers):
    loss = partial(LOSSES[name], **constants)
    assert_close([loss(pair), *margin_weights(loss, pair)], numbers, printed(decimals), name)


def test_recorded_values_cover_every_loss_but_the_hinge():
    assert {name for name, *_ in FIRST_NUMBERS} == LOSSES.keys() - {"hinge"}


def test_hinge_by_hand():
    loss = partial(losses.hinge, beta=0.3)
    assert_close([loss(FIRST), *margin_weights(loss, FIRST)], [1 - 0.3 * 0.25, 0.3, 0.3])


# -- limits --------------------------------------------------------------------------------------------------------

# (d_w, d_l) as h -> +inf and as h -> -inf, both log-ratios going to infinity, at FAR's lengths; H is the margin of FAR.
H = 1e4
LIMITS = [
    ("dpo", dict(beta=0.3), (0, 0), (0.3, 0.3)),
    ("dpo", dict(beta=0.3, reduction="mean"), (0, 0), (0.3 / 5, 0.3 / 4)),
    ("rdpo", dict(beta=0.3, alpha=0.05), (0, 0), (0.3, 0.3)),
    ("cdpo", dict(beta=0.3, epsilon=0.1), (-0.03, -0.03), (0.27, 0.27)),
    ("robust_dpo", dict(beta=0.3, epsilon=0.1), (0.03 / 0.8, 0.03 / 0.8), (0.27 / 0.8, 0.27 / 0.8)),
    ("ipo", dict(tau=0.25), (4 - 2 * H, 4 - 2 * H), (4 + 2 * H, 4 + 2 * H)),
    ("hinge", dict(beta=0.3), (0, 0), (0.3, 0.3)),
    ("exo", dict(beta=0.3, epsilon=0.1), (0, 0), (0, 0)),
    ("discopop", dict(beta=0.3, tau=0.05), (0, 0), (0.3, 0.3)),
    ("discopop", dict(beta=0.3, tau=1), (0, 0), (0.3, 0.3)),
    ("dpo_sft", dict(beta=0.3, alpha=1), (1 / 5, 0), (0.3 + 1 / 5, 0.3)),
    ("dpo_sft", dict(beta=0.3, alpha=1, sft_reduction="sum"), (1, 0), (1.3, 0.3)),
    ("dpop", dict(beta=0.3, lam=5), (0, 0), (1.8, 0.3)),
    ("flex_dpo", dict(beta_chosen=0.3, beta_rejected=0.1), (0, 0), (0.3, 0.1)),
    ("kto", dict(beta=0.3, z0=0.2), (0, 0), (0, 0)),
    ("sppo", dict(eta=4), (4 - H, 4 - H), (4 + H, 4 + H)),
    ("nca", dict(beta=0.3), (-0.15, 0), (0.3, 0.15)),
    ("bco", dict(beta=0.3), (0, 0), (0.3, 0.3)),
    ("apo_zero", dict(beta=0.3), (0, 0), (0, 0)),
    ("apo_down", dict(beta=0.3), (0, 0), (0, 0)),
    ("slic_hf", dict(delta=1, lam=0.5), (0.5, 0), (1.5, 1)),
    ("rrhf", dict(lam=1), (1, 0), (1 + 1 / 5, 1 / 4)),
    ("simpo", dict(beta=2, gamma=1), (0, 0), (2 / 5, 2 / 4)),
    ("cpo", dict(beta=0.3, lam=1), (1, 0), (1.3, 0.3)),
    ("orpo", dict(lam=0.1), (1 / 5, 0), (1.1 / 5, 0.1 / (4 * (1 - np.exp(-1 / 4))))),
]


def far(dtype=float) -> PairLogProbs:
    """Two pairs, of margin H and -H, half of it from each response; the better response has log-probability -1."""
    chosen, rejected, ref = [-1, -1 - H], [-1 - H, -1], [-1 - H / 2] * 2
    return PairLogProbs(*(jnp.array(x, dtype) for x in (chosen, rejected, ref, ref)), 5.0, 4.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "constants", "above", "below"), LIMITS)
def test_weights_reach_their_limits_at_margins_of_1e4(name, constants, above, below, dtype):
    loss, pairs = partial(LOSSES[name], **constants), far(dtype)
    slopes = jax.grad(lambda p: loss(p).sum())(pairs)  # reverse mode, at the dtype of the pair
    assert slopes.chosen.dtype == slopes.rejected.dtype == dtype
    for d_w, d_l in ((-slopes.chosen, slopes.rejected), margin_weights(loss, pairs)):
        assert_close([d_w, d_l], np.transpose([above, below]), identity(dtype))


def test_limits_cover_every_loss():
    assert {name for name, *_ in LIMITS} == LOSSES.keys()


@pytest.mark.parametrize("log_ratio", [10.0, 100.0] + [1000.0] * X64)  # e^-100 is 0 in float32
def test_tail_of_a_logistic_loss_is_right_in_relative_terms(log_ratio):
    """Both the loss and its weight decay as e^-u; a subtraction from one would leave 0 or noise."""
    tail = Tolerance(1e-12 if X64 else 1e-4, 0, "a few roundings of numbers as small as e^-100, none of them absolute")
    pair, loss, u = PairLogProbs(log_ratio, 0.0, 0.0, 0.0), partial(losses.dpo, beta=0.1), log_ratio / 10
    assert_close(loss(pair), np.log1p(np.exp(-u)), tail)
    assert_close(margin_weights(loss, pair)[0], 0.1 / (1 + np.exp(u)), tail)


# -- the symbolic readings say the same ----------------------------------------------------------------------------

POINTS = [FIRST, SECOND, PairLogProbs(-40.0, -3.0, -10.0, -9.0, 7, 2)]
POINTS += [PairLogProbs(-1.0, -1.0 - H, -1.0 - H / 2, -1.0 - H / 2, 5, 4)]
POINTS += [p._replace(chosen=p.rejected, rejected=p.chosen) for p in POINTS]
SYMBOLS = PairLogProbs(*sp.symbols("A B A_0 B_0", real=True), *sp.symbols("n_w n_l", positive=True))


@pytest.mark.parametrize("name", LOSSES)
def test_both_symbolic_readings_agree_with_the_arrays(name):
    """Textbook formulas at 60 digits, their derivatives by sympy: no code shared with the stable ones but the loss."""
    chosen = {k: v if isinstance(v, str) else sp.Rational(str(v)) for k, v in constants_of(name).items()}
    loss = partial(LOSSES[name], **chosen)
    numeric = partial(LOSSES[name], **{k: v if isinstance(v, str) else float(v) for k, v in chosen.items()})
    for way in ("sizefree", "concrete"):
        with reading(way):
            formulas = [loss(SYMBOLS), *margin_weights(loss, SYMBOLS)]
        for pair in POINTS:
            values = dict(zip(SYMBOLS, (sp.Rational(str(float(x))) for x in pair), strict=True))
            exact = [float(evaluate(sp.sympify(f), values, {}, digits=60)) for f in formulas]
            assert_close([numeric(pair), *margin_weights(numeric, pair)], exact, what=f"{name}, {way}, {pair}")


# -- identities between losses, and invariances --------------------------------------------------------------------

LOGP = st.floats(-50, -0.125, width=32)
PAIRS = st.builds(PairLogProbs, LOGP, LOGP, LOGP, LOGP, st.integers(1, 60), st.integers(1, 60))
BETA = st.floats(0.0625, 4, width=32)
FLIPS = st.floats(0, 0.375, width=32)
WITH_REFERENCE = sorted(LOSSES.keys() - {"slic_hf", "rrhf", "simpo", "cpo", "orpo", "dpo_sft"})


def margin(pair: PairLogProbs) -> float:
    return (pair.chosen - pair.ref_chosen) - (pair.rejected - pair.ref_rejected)


@given(PAIRS, BETA, FLIPS)
def test_cdpo_is_dpo_with_a_linear_brake_and_robust_dpo_with_a_linear_push(pair, beta, epsilon):
    plain, slope = losses.dpo(pair, beta=beta), beta * margin(pair)
    assert_close(losses.cdpo(pair, beta=beta, epsilon=epsilon), plain + epsilon * slope)
    assert_close(losses.robust_dpo(pair, beta=beta, epsilon=epsilon), plain - epsilon / (1 - 2 * epsilon) * slope)


@given(PAIRS, BETA, FLIPS)
def test_robust_dpo_is_unbiased_over_flipped_labels(pair, beta, epsilon):
    loss = partial(losses.robust_dpo, beta=beta, epsilon=epsilon)
    flipped = PairLogProbs(pair.rejected, pair.chosen, pair.ref_rejected, pair.ref_chosen)
    assert_close((1 - epsilon) * loss(pair) + epsilon * loss(flipped), losses.dpo(pair, beta=beta))


@given(PAIRS, BETA, st.floats(0, 4, width=32))
def test_gamma_of_simpo_stands_outside_beta(pair, beta, gamma):
    shifted = pair._replace(chosen=pair.chosen - pair.chosen_length * gamma / beta)
    assert_close(losses.simpo(pair, beta=beta, gamma=gamma), losses.simpo(shifted, beta=beta, gamma=0))


@given(PAIRS, BETA)
def test_special_cases_are_dpo(pair, beta):
    expected = losses.dpo(pair, beta=beta)
    for name, constants in {
        "rdpo": dict(beta=beta, alpha=0),
        "cdpo": dict(beta=beta, epsilon=0),
        "robust_dpo": dict(beta=beta, epsilon=0),
        "dpop": dict(beta=beta, lam=0),
        "dpo_sft": dict(beta=beta, alpha=0),
        "flex_dpo": dict(beta_chosen=beta, beta_rejected=beta),
    }.items():
        assert_close(LOSSES[name](pair, **constants), expected, what=name)


@given(PAIRS, BETA)
def test_other_special_cases(pair, beta):
    without = pair._replace(ref_chosen=0, ref_rejected=0)
    assert_close(losses.cpo(pair, beta=beta, lam=0), losses.dpo(without, beta=beta))
    assert_close(losses.simpo(pair, beta=beta, gamma=0), losses.dpo(without, beta=beta, reduction="mean"))
    assert_close(losses.slic_hf(pair, delta=1 / beta, lam=0) * beta, losses.hinge(without, beta=beta))
    assert_close(losses.apo_zero(pair, beta=beta), losses.kto(pair, beta=beta, z0=0))
    assert_close(losses.rrhf(pair, lam=0), losses.slic_hf(of_means(pair), delta=0, lam=0))


def of_means(pair: PairLogProbs) -> PairLogProbs:
    """The same pair with a mean over tokens wherever there was a sum."""
    n_w, n_l = pair.chosen_length, pair.rejected_length
    return PairLogProbs(
        pair.chosen / n_w, pair.rejected / n_l, pair.ref_chosen / n_w, pair.ref_rejected / n_l, n_w, n_l
    )


@given(PAIRS)
def test_mean_reduction_is_the_sum_reduction_of_means(pair):
    assert_close(losses.dpo(pair, reduction="mean"), losses.dpo(of_means(pair)))
    assert_close(losses.ipo(pair, reduction="mean"), losses.ipo(of_means(pair)))
    summed = losses.dpo(pair) - losses.dpo_sft(pair, alpha=1, sft_reduction="sum")
    assert_close(losses.dpo(pair) - losses.dpo_sft(pair, alpha=1), summed / pair.chosen_length)


@given(pair=PAIRS, shift=st.tuples(*[st.floats(-64, 64, width=32)] * 2), name=st.sampled_from(WITH_REFERENCE))
def test_only_log_ratios_matter_to_a_loss_with_a_reference(pair, shift, name):
    moved = jax.tree.map(lambda x, by: x + by, pair, PairLogProbs(*shift, *shift, 0, 0))
    # Values and weights of SPPO and IPO reach 1e6 and 1e3; the tolerance is relative to them.
    assert_close(LOSSES[name](moved), LOSSES[name](pair))
    assert_close(margin_weights(LOSSES[name], moved), margin_weights(LOSSES[name], pair))


@pytest.mark.parametrize("name", LOSSES)
def test_a_field_is_demanded_by_name_or_has_no_influence(name):
    """So a forgotten reference is never a silent zero, and a forgotten length never a silent one."""
    pairs = PairLogProbs(*np.transpose([FIRST, SECOND]))  # RRHF's hinge is active in the second only
    expected = LOSSES[name](pairs)
    for field in PairLogProbs._fields[2:]:
        try:
            assert_close(LOSSES[name](pairs._replace(**{field: None})), expected)
        except ValueError as error:
            if f"pair.{field} = None" not in str(error):
                raise
            changed = LOSSES[name](pairs._replace(**{field: getattr(pairs, field) * 1.5}))
            assert np.any(np.asarray(changed) != expected), f"{field} is demanded but changes nothing"


@pytest.mark.parametrize(
    ("name", "constants", "pair", "weights"),
    [
        ("hinge", dict(beta=0.5), PairLogProbs(-1.0, -3.0, 0.0, 0.0), (0, 0)),
        ("slic_hf", dict(delta=2, lam=0.5), PairLogProbs(-1.0, -3.0), (0.5, 0)),
        ("rrhf", dict(lam=1), PairLogProbs(-2.0, -3.0, None, None, 2, 3), (1, 0)),
        ("dpop", dict(beta=1, lam=5), PairLogProbs(-1.0, -2.0, -1.0, -2.0), (0.5, 0.5)),
    ],
)
def test_the_derivative_of_a_hinge_at_its_kink_is_zero(name, constants, pair, weights):
    assert_close(margin_weights(partial(LOSSES[name], **constants), pair), weights)


def test_a_pair_of_an_enumerated_set():
    policy, reference = jnp.log(jnp.array([0.5, 0.3, 0.2])), jnp.log(jnp.array([0.2, 0.3, 0.5]))
    found = losses.response_pair(policy, reference, 2, 0)
    assert_close(jnp.exp(jnp.array(found[:4])), jnp.array([0.2, 0.5, 0.5, 0.2]), identity())
    assert found.chosen_length is None and found.rejected_length is None


# -- the list ------------------------------------------------------------------------------------------------------


def test_every_loss_is_listed_exported_and_public():
    assert set(losses.__all__) == LOSSES.keys() | {"LOSSES", "PairLogProbs", "margin_weights", "response_pair"}
    assert all(getattr(losses, name) is loss and loss.__name__ == name for name, loss in LOSSES.items())


@pytest.mark.parametrize("name", LOSSES)
def test_docstring_has_an_equation_a_source_and_each_constant_with_its_default(name):
    text = " ".join(LOSSES[name].__doc__.split())
    assert re.search(r"(19|20)\d\d.* arXiv:\d{4}\.\d{5}|Mitchell 2023", text), "no source"
    assert re.match(r"[^:]*: .*\.", text), "no equation"
    for constant, default in constants_of(name).items():
        assert constant in text, constant
        if not isinstance(default, str):
            assert re.search(rf", {re.escape(str(default))}\b", text), f"{constant} = {default}"
