"""The duality in numbers: the references to their printed digits, the controls, and where a claim of ours is false."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import theory
from experiments.duality import measure, network
from experiments.duality.measure import END, GOLD, RANKS, SMALL_LAW, WIDTHS, quality, sample_sizes, sentence_laws
from experiments.duality.setup import Setup
from sandbox import utility
from sandbox.dynamics import train
from tests.engine import verdict
from tests.tolerances import Tolerance, assert_close, golden, identity
from theory.duality import training
from theory.proof import Refuted

X64 = jax.config.jax_enable_x64
float64_only = pytest.mark.skipif(not X64, reason="the number is smaller than float32's rounding")
LAWS = sentence_laws()


def printed(decimals: int) -> Tolerance:
    rounding = Tolerance(0, 0.51 * 10**-decimals, f"half a unit of the printed decimal {decimals}, and rounding")
    return rounding if X64 else Tolerance(1e-4, 0.51 * 10**-decimals + 1e-5, "the same, in float32")


@pytest.fixture(scope="module")
def trained():
    """Utilities (129, 9, 10) of the nine sentences along 128 steps."""
    return np.asarray(measure.path(jnp.asarray(LAWS), 128))


def softmax(u):
    return np.asarray(jax.nn.softmax(jnp.asarray(u)))


# -- toy A -------------------------------------------------------------------------------------------------------------


def test_laws_of_the_sentences():
    last, first = LAWS[-1], LAWS[0]
    assert_close(last[[END, GOLD]], [0.00698, 0.82], printed(5))
    assert_close([last[2], last[-1]], [0.04158, 0.00872], printed(5))
    assert_close(first[END], 0.04158, printed(5))
    assert_close(LAWS.sum(axis=1), np.ones(9))
    assert [int(np.sum(law >= law[END])) for law in LAWS] == RANKS.tolist()


SAMPLING = {1: 0.1463, 2: 0.2560, 4: 0.4721, 5: 0.5451, 6: 0.5976, 8: 0.6632, 16: 0.7448, 32: 0.7624, 64: 0.7638,
            128: 0.7649}  # fmt: skip
MODES = {1: 0, 2: 0, 4: 0, 5: 0, 6: 1, 8: 1, 16: 1, 32: 1, 64: 1, 128: 1}
DIVERGENCES = {1: 0.9214, 2: 0.5341, 4: 0.1760, 8: 0.0403, 16: 0.0155, 32: 0.0078, 64: 0.0025, 128: 0.0004}


def test_sampling_modes_and_divergences_over_training(trained):
    for step in SAMPLING:
        law = softmax(trained[step])
        assert_close(np.mean(utility.sampling_quality(law[:, GOLD], law[:, END], 8)), SAMPLING[step], printed(4))
        modes = jax.vmap(lambda p: utility.exact_mode(jnp.broadcast_to(jnp.log(p), (8, 10))))(jnp.asarray(law))
        assert np.mean(quality(modes.tokens, 8)) == MODES[step]
    found = [np.mean(np.sum(LAWS * np.log(LAWS / softmax(trained[step])), axis=1)) for step in DIVERGENCES]
    assert_close(found, list(DIVERGENCES.values()), printed(4))
    four = softmax(trained[4])
    assert_close(four[-1, [GOLD, END]], [0.5591, 0.0467], printed(4))
    assert_close(four[0, END], 0.0529, printed(4))


def test_sampling_from_the_inverted_law(trained):
    per = utility.sampling_quality(LAWS[:, GOLD], LAWS[:, END], 8)
    assert_close(np.mean(per), 0.76549, printed(5))
    assert_close([per[0], per[-1]], [0.7101, 0.8003], printed(4))
    inverse = measure.inverted_path(jnp.asarray(trained))
    assert_close(inverse, np.broadcast_to(LAWS, inverse.shape), Tolerance(1e-12, 1e-12, "an identity") if X64 else None)
    gain = np.mean(per) - 0.4721
    assert gain > 0.29 and np.mean(per) - 0.7638 < 0.002, "a gain of double digits that is gone at 64 steps"


def test_beams_lose_a_sentence_with_every_width(trained):
    def mean_quality(laws):
        tables = jnp.broadcast_to(jnp.log(jnp.asarray(laws))[:, None], (9, 8, 10))
        beams = jax.vmap(jax.vmap(lambda t, w: utility.beam_search(t, w, most=12), (None, 0)), (0, None))
        return np.mean(quality(beams(tables, jnp.asarray(WIDTHS)).tokens, 8), axis=0)

    assert_close(mean_quality(softmax(trained[4])), np.maximum(10 - WIDTHS, 0) / 9)
    for later in (softmax(trained[8]), LAWS):
        assert_close(mean_quality(later), np.ones(12))


CRITICAL = {1: (1.481, 1.502), 2: (2.309, 2.368), 4: (5.056, 5.270), 6: (8.236, 8.700), 8: (10.963, 11.731),
            16: (16.269, 18.309), 32: (17.181, 21.075), 128: (16.086, 23.674)}  # fmt: skip


def test_critical_lengths(trained):
    for step, both in CRITICAL.items():
        law = softmax(trained[step])[[0, -1]]
        assert_close(utility.critical_length(law[:, GOLD], law[:, END]), both, printed(3))
    assert_close(utility.critical_length(LAWS[[0, -1], GOLD], LAWS[[0, -1], END]), [16.025, 25.020], printed(3))
    halved = softmax(np.log(LAWS[-1]) / 2)
    assert_close(utility.critical_length(halved[GOLD], halved[END]), 3.79, printed(2))


def test_a_wide_beam_drops_the_empty_sentence_where_better_beginnings_crowd_it_out():
    """Beyond L* a beam as wide as the rank need not find the mode: the premise P(gold) P(second) <= P(end) is needed.

    At 30 positions the data law of the last sentence has the empty sentence as its mode; no beam of up to 12 finds it.
    """
    law = LAWS[-1]
    table = jnp.broadcast_to(jnp.log(jnp.asarray(law)), (30, 10))
    assert utility.exact_mode(table).length == 0 and law[GOLD] * law[2] > law[END]
    beams = jax.vmap(lambda width: utility.beam_search(table, width, most=12))(jnp.asarray(WIDTHS))
    assert np.all(beams.length == 30)


def test_an_order_preserving_map_changes_mode_and_beam():
    halved = jax.nn.log_softmax(jnp.log(jnp.asarray(LAWS[-1])) / 2)
    for log_probs, length in ((jnp.log(jnp.asarray(LAWS[-1])), 20), (halved, 0)):
        table = jnp.broadcast_to(log_probs, (20, 10))
        assert utility.exact_mode(table).length == length
        assert utility.beam_search(table, 12, most=12).length == length
    assert np.array_equal(np.argsort(LAWS[-1]), np.argsort(halved))


# -- toy B, toy C ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decided():
    found = jax.jit(measure.payoffs, static_argnums=0)(Setup(tasks=4000), jax.random.key(1))
    return {name: np.asarray(x) for name, x in found.items()}


def test_payoffs_within_the_stated_spread(decided):
    """4,000 tasks here and 4,000 behind the references: four standard errors of the difference."""
    softmax_, tempered = decided["regret"].T
    spread = 4 * np.sqrt(2) * np.maximum(decided["error"], 1e-4)
    assert np.all(np.abs(softmax_ - [0.1174, 0.0693, 0.0251, 0.0064, 0.0017, 0.0003]) < spread[:, 0])
    assert np.all(np.abs(tempered - [0.0090, 0.0088, 0.0077, 0.0046, 0.0015, 0.0004]) < spread[:, 1])
    assert np.all(np.abs(decided["others"][1:] - [0.1892, 0.1865]) < 4 * np.sqrt(2) * decided["others_error"][1:])
    assert decided["others"][0] < 1e-6, "the inverted law decides as the data's"
    assert np.all(tempered[:4] > 4 * decided["error"][:4, 1]), "no temperature does"
    assert abs(decided["wrong"][2] - 0.204) < 4 * np.sqrt(2 * 0.204 * 0.796 / 4000)
    assert np.all(np.abs(decided["beta"][:4] / [4.66, 2.40, 1.50, 1.13] - 1) < 0.3), "a flat minimum on a grid"


BRIER = {10: ([0.0559, 0.0412, 0.0404, 0.0502, 0.0575, 0.0611], 0.0655),
         20: ([0.0537, 0.0340, 0.0243, 0.0265, 0.0299, 0.0317], 0.0328)}  # fmt: skip


@float64_only
def test_small_samples_by_enumeration():
    """The references have 4,000 draws, about 2%; the enumeration has none."""
    found = jax.jit(measure.small_samples, static_argnums=0)(Setup(samples=20, replicas=200), jax.random.key(0))
    sizes = sample_sizes(Setup(samples=20))
    assert_close(found["total"], np.ones(len(sizes)))
    assert_close(found["raw"], (1 - np.sum(SMALL_LAW**2)) / np.array(sizes))
    for n, (errors, raw) in BRIER.items():
        k = sizes.index(n)
        assert np.all(np.abs(np.asarray(found["trained"][k])[[0, 1, 3, 7, 15, 31]] / errors - 1) < 0.08)
        assert abs(float(found["raw"][k]) / raw - 1) < 0.002
    better = np.asarray(found["trained"] < found["raw"][:, None])
    assert better[sizes.index(10)].all(), "with ten draws early stopping wins at every time"
    assert not better[sizes.index(20), 0] and better[sizes.index(20), 3], "with twenty only after some steps"


# -- links -------------------------------------------------------------------------------------------------------------


@float64_only
def test_errors_of_the_links():
    """The printed references are of 2,000 plain steps; of the flow itself the last digits are others."""
    found = jax.jit(measure.links, static_argnums=0)(Setup(), jax.random.key(0))
    q = jnp.asarray(measure.FOUR)
    for h, printed_, flow in ((0.2, (0.00620, 0.000051, 0.23765), (0.0062000, 0.0000542, 0.2376520)),
                              (0.8, (0.02410, 0.000761, 0.20276), (0.0241139, 0.0007728, 0.2027602))):  # fmt: skip
        at = int(np.argmin(np.abs(np.asarray(found["h"]) - h)))
        assert_close(found["four_error"][:, at], flow, printed(7))
        u, _ = utility.forward(q, jnp.zeros(4), h / 2000, 2000)
        errors = [float(jnp.max(jnp.abs(link(u, h) - q))) for link in measure.LINKS]
        for error, reference, digits in zip(errors, printed_, (5, 6, 5), strict=True):
            assert_close(error, reference, printed(digits))


# -- end points --------------------------------------------------------------------------------------------------------


@float64_only
def test_sweeps_that_the_end_points_need():
    """44 to 60 sweeps at eight outputs and ten steps of 1, to 1e-13; softmax is off by .035 to .050."""
    rng = np.random.default_rng(0)
    sweep = jax.jit(utility.sweep)
    needed, off = [], []
    for _ in range(5):
        q = jnp.asarray(rng.dirichlet(np.full(8, 2.0)))
        end, _ = utility.forward(q, jnp.zeros(8), 1.0, 10)
        guess, count = jax.nn.softmax(end), 0
        off.append(float(jnp.max(jnp.abs(guess - q))))
        while count < 200:
            after = sweep(guess, jnp.zeros(8), end, 1.0, 10)
            guess, count, moved = after, count + 1, float(jnp.max(jnp.abs(after - guess)))
            if moved < 1e-13:
                break
        needed.append(count)
        assert_close(guess, q, Tolerance(1e-11, 1e-11, "where sweeps of 1e-13 stop"))
    assert 30 < min(needed) and max(needed) < 90 and min(off) > 0.02


# -- negative controls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "exact"), [(optax.sgd, True), (optax.adam, False),
                                                  (lambda rate: optax.sgd(rate, momentum=0.5), False)])  # fmt: skip
def test_inversion_needs_the_weights_of_the_optimiser(optimizer, exact):
    q = jnp.asarray(LAWS[4])
    u = train(None, jnp.zeros(10), (q,), gradient=measure.downhill, steps=12, learning_rate=0.7, optimizer=optimizer,
              record=lambda u, q: u).history  # fmt: skip
    off = float(jnp.max(jnp.abs(measure.inverted_path(u, 0.7)[-1] - q)))
    assert off < identity().atol if exact else off > 0.05


def test_a_uniform_opponent_is_another_duel():
    found = jax.jit(network.duels, static_argnums=0)(Setup(duels=4000), jax.random.key(0))
    tight = Tolerance(1e-12, 1e-12, "an identity of float64") if X64 else identity()
    assert_close(found["autodiff"], found["duel"], tight)
    assert np.max(np.abs(found["autodiff"] - found["uniform_duel"])) > 0.01
    assert np.max(np.abs(found["z"])) < 4 and np.max(np.abs(found["uniform_z"])) > 8


# -- order -------------------------------------------------------------------------------------------------------------


def shown(name):
    (claim,) = (t for t in theory.theorems("duality") if t.name == name)
    found = verdict(claim)
    assert isinstance(found, Refuted)
    return found


def test_a_step_of_five_halves_breaks_the_order_at_one_seventeenth():
    """By hand: from u = (1, 0) and q = (x, 0) the gap is d + 5/2 (x - tanh(d / 2)); at x = 1/17 it is -.0082."""
    found = shown("order_after_a_longer_step")
    assert dict(found.counterexample) == {"u": "(0, 0)", "q": "(0, 0)", "a": "0", "b": "1", "d": "1", "x": "1/17"}
    assert found.lhs == "0"
    assert_close(float(found.rhs), 1 + 2.5 * (1 / 17 - math.tanh(0.5)), golden())


def test_the_sharp_case_of_two_outputs():
    assert_close(utility.binary_step(0.9624, 0.05, 2.5), -0.031, printed(3))


@float64_only
def test_shares_of_runs_that_lose_an_order():
    found = jax.jit(measure.order, static_argnums=0)(Setup(instances=2000, search=2000), jax.random.key(2))
    consistent, uniform = np.asarray(found["lost"]).T
    etas = measure.ETAS
    assert np.all(consistent[etas <= 2] == 0) and np.all(np.diff(consistent[etas >= 2]) >= 0) and consistent[-1] > 0.5
    assert np.all(uniform[etas <= 4] == 0) and 0.005 < uniform[etas == 4.05][0] < 0.1 and uniform[-1] > 0.5
    rose = np.asarray(found["rose"])
    assert np.all(rose[etas <= 4] == 0) and np.all(rose[etas > 4] > 0.01), "the loss itself rises beyond 4"
    assert found["searched"] > 0


@float64_only
def test_very_many_outputs_lose_their_order_at_four():
    """The recursion in three numbers, against a table of a few outputs, and at 35 million."""
    gaps = jax.jit(jax.vmap(training.gap_of_two_leaders, (None, None, None, 0)))
    others, lead = 40, 0.1
    q = jnp.concatenate([jnp.array([(1 + lead) / 2, (1 - lead) / 2]), jnp.zeros(others)])
    u = measure.path(q, 14, 4.0)[1:]
    assert_close(gaps(lead, others, 4.0, jnp.arange(1, 15)), u[:, 0] - u[:, 1])
    smallest = {n: float(jnp.min(gaps(1e-4, n, 4.0, jnp.arange(1, 15)))) for n in (1e3, 1e5, 1e6, 1e7, 3.5e7)}
    assert all((gap < 0) == (n == 3.5e7) for n, gap in smallest.items())
    assert_close(smallest[3.5e7] / 1e-4, -0.119, printed(3))


# -- shared parameters -------------------------------------------------------------------------------------------------


def test_one_feature_ranks_the_wrong_output_first_for_ever():
    phi, q = jnp.array([0.0, 1.0, 2.0]), jnp.array([0.2, 0.5, 0.3])
    theta = train(lambda t, phi, q: utility.loss(t * phi, q), jnp.zeros(()), (phi, q), steps=400, learning_rate=1.0)
    assert_close(theta.params, 0.1506, printed(4))
    p = jax.nn.softmax(theta.params * phi)
    assert_close(p, [0.2846, 0.3308, 0.3846], printed(4))
    assert_close(p @ phi, q @ phi)
    assert jnp.argmax(p) == 2 and jnp.argmax(q) == 1


@float64_only
def test_linear_models_are_inverted_through_their_kernel():
    """u = phi w with an invertible kernel, one pair of context and output a step: the joint frequency, to 1e-12."""
    rng = np.random.default_rng(4)
    phi, w = rng.normal(size=(6, 6)), rng.normal(size=6)  # two contexts of three outputs
    kernel, start = phi @ phi.T, phi @ w
    mean_probs, seen, count = np.zeros(6), np.zeros(6), 40
    for _ in range(count):
        context, output = rng.integers(2), rng.integers(3)
        rows = slice(3 * context, 3 * context + 3)
        p = np.zeros(6)
        p[rows] = softmax(phi[rows] @ w)
        hit = np.eye(6)[3 * context + output]
        w = w + 0.1 * (hit - p) @ phi
        mean_probs, seen = mean_probs + p / count, seen + hit / count
    rise = np.linalg.solve(kernel, phi @ w - start) / (0.1 * count)
    assert_close(mean_probs + rise, seen, Tolerance(1e-11, 1e-11, "the condition of the kernel, some hundred"))


def test_kernel_of_the_network_is_that_of_its_slopes():
    x, _, weights = network.world(jax.random.key(5))
    weights = weights._replace(b=jnp.sin(jnp.arange(weights.b.size, dtype=x.dtype)).reshape(weights.b.shape))
    slopes = jax.jacrev(lambda w: network.utilities(w, x).ravel())(weights)
    flat = jnp.concatenate([s.reshape(128, -1) for s in slopes], axis=1)
    assert_close(network.kernel_of(weights, x), flat @ flat.T / 16)


@float64_only
def test_the_network_learns_order_late_and_is_read_through_its_kernels():
    """Trends, three seeds: pair order .70 to .71 after a step, .74 at 16; read through all its kernels to 1e-4."""
    found = jax.jit(network.networks, static_argnums=0)(Setup(network_steps=256), jax.random.key(0))
    steps = network.recorded_steps(256).tolist()
    at = [steps.index(n) for n in (1, 16, 256)]
    kl, pairs = (np.asarray(found[name])[:, at] for name in ("kl", "pairs"))
    assert np.all((0.25 < kl[:, 0]) & (kl[:, 0] < 0.6)) and np.all(kl[:, 2] < 0.12) and np.all(np.diff(kl) < 0)
    assert np.all((0.6 < pairs[:, 0]) & (pairs[:, 0] < 0.8)) and np.all(pairs[:, 2] > 0.82) and np.all(pairs[:, 2] < 1)
    assert np.all(np.asarray(found["table_pairs"]) == 1)
    softmax_, table, first, every = np.moveaxis(np.asarray(found["off"]), -1, 0)
    assert np.all(every[:, 1:] < 1e-4) and np.all(every < softmax_)
    assert np.all(table > softmax_), "as if it were a table the reading is worse than softmax"
    assert np.all(first[:, 2] < softmax_[:, 2]) and np.all(first[:, -1] > every[:, -1])


@float64_only
def test_sharing_costs_order_at_the_same_divergence():
    found = jax.jit(network.sharing, static_argnums=0)(Setup(levels=3, sharing_steps=256), jax.random.key(0))
    at = np.asarray(found["at_level"]).mean(axis=0)  # (rho, levels)
    assert np.nanmin(at[0]) == 1 and at[1, 0] < 0.97 and at[2, 0] < at[1, 0]
    assert np.isnan(at[2, -1]), "64 features never fit 128 outputs"


def test_numbers_that_cannot_be_run_are_refused():
    with pytest.raises(ValueError, match="samples = 5: must be a whole number of at least 10"):
        Setup(samples=5)
