"""The one-hot network in the four scenarios: exact identities of its parts, and the trends of a quick run."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.dpo_3d import network as toy
from experiments.dpo_3d.setup import Setup
from sandbox.algebra import log_softmax, sigmoid
from sandbox.dynamics import descent, flow, log_times, train
from sandbox.losses import PairLogProbs, dpo
from sandbox.policies import Network, network
from tests.tolerances import Tolerance, assert_close, golden

INPUTS, CONTRAST = jnp.eye(toy.PROMPTS), jnp.asarray(toy.CONTRAST)
LAWS = {name: jnp.asarray(toy.laws(scenario)) for name, scenario in toy.SCENARIOS.items()}
ROWS = np.arange(toy.PROMPTS)
# A table is a policy whose prompts share nothing.
TABLE = Network(lambda key: None, lambda z, x: x @ z, lambda z, x, contrast: jnp.sum(contrast * (x @ z), axis=-1))

needs_float64 = pytest.mark.skipif(not jax.config.jax_enable_x64, reason="a difference quotient")


def loss(net, params, reference, beta=0.1):
    margins = net.margin(params, INPUTS, CONTRAST)
    return jnp.mean(dpo(PairLogProbs(margins, 0, reference, 0), beta=beta))


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_roles_and_laws():
    assert [np.bincount(row, minlength=5).tolist() for row in toy.ROLE] == toy.PROMPTS * [[1, 1, 3, 3, 2]]
    for (name, law), scenario in zip(LAWS.items(), toy.SCENARIOS.values(), strict=True):
        assert_close(jnp.sum(jnp.exp(law), axis=-1), np.ones(toy.PROMPTS), what=name)
        assert_close(jnp.exp(law[ROWS, ROWS]), np.full(toy.PROMPTS, scenario.chosen))
        assert_close(jnp.exp(law[ROWS, toy.PROMPTS + ROWS]), np.full(toy.PROMPTS, scenario.rejected))
        rest = jnp.exp(law[toy.ROLE > 1])
        assert_close(jnp.max(rest), scenario.peak or (1 - scenario.chosen - scenario.rejected) / 8)


def test_two_shared_units_cannot_hold_the_laws():
    """Logits are affine in the last hidden layer: their span over the prompts has at most as many dimensions."""
    for law in LAWS.values():
        logits = law - jnp.mean(law, axis=-1, keepdims=True)  # a constant in a prompt's logits is no law
        across = logits - jnp.mean(logits, axis=0, keepdims=True)
        assert np.linalg.matrix_rank(across, tol=1e-3) == toy.PROMPTS - 1
    assert 2 in toy.WIDTHS and min(set(toy.WIDTHS) - {2}) == toy.PROMPTS - 1


def test_a_narrow_layer_is_a_wide_one_whose_other_units_are_zero():
    """Adam and gradient descent leave them there to the last bit, and the rest moves as a network of that width."""
    wide, narrow = network(4, 10, hidden=(64, 6)), network(4, 10, hidden=(64, 3))
    start = toy.start(wide, jax.random.key(0), 3)
    b1, w1, b2, w2, b3, w3 = jax.tree.leaves(start)
    tree = jax.tree.structure(narrow.init(jax.random.key(0)))
    small = jax.tree.unflatten(tree, [b1, w1, b2[:3], w2[:, :3], b3, w3[:3]])
    assert_close(jnp.std(w3[:3]), 3**-0.5, Tolerance(4 / np.sqrt(60), 0, "four standard errors of 30 normals"))
    for optimizer, rate in ((optax.adam, 1e-2), (optax.sgd, 0.5)):
        run = partial(train, steps=20, learning_rate=rate, optimizer=optimizer)
        b1, w1, b2, w2, b3, w3 = jax.tree.leaves(run(partial(loss, wide, reference=0.0), start).params)
        assert not jnp.any(b2[3:]) and not jnp.any(w2[:, 3:]) and not jnp.any(w3[3:])
        trained = jax.tree.leaves(run(partial(loss, narrow, reference=0.0), small).params)
        for a, b in zip((b1, w1, b2[:3], w2[:, :3], b3, w3[:3]), trained, strict=True):
            assert_close(a, b)
        assert jnp.max(jnp.abs(trained[-1] - jax.tree.leaves(small)[-1])) > 1e-3  # it did move


def test_the_network_feels_the_forces_of_a_table():
    """Its gradient is the table's, -beta sigma(-u) (e_w - e_l) at each prompt's logits, carried back through them."""
    net, beta = network(4, 10, hidden=(64, 3)), 0.5
    params, reference = net.init(jax.random.key(1)), jnp.array([0.3, -0.2, 0.0, 1.0])
    logits, back = jax.vjp(lambda p: net.apply(p, INPUTS), params)
    margin = logits[ROWS, ROWS] - logits[ROWS, toy.PROMPTS + ROWS]
    speed = beta * sigmoid(-beta * (margin - reference)) / toy.PROMPTS
    force = jnp.zeros((4, 10)).at[ROWS, ROWS].set(speed).at[ROWS, toy.PROMPTS + ROWS].set(-speed)
    (expected,) = back(-force)
    found = jax.grad(partial(loss, net, beta=beta))(params, reference=reference)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(a, b)


def test_summary_of_a_law():
    for law in LAWS.values():
        found = toy.summary(jnp.stack([law, law]), np.array([1]))
        whole = jnp.exp(found["chosen"]) + jnp.exp(found["rejected"]) + found["unseen"]
        assert_close(whole, [1.0])  # prompts have the same law but for names, so that means of logs are logs
        assert_close(found["never"], jnp.mean(jnp.sum(jnp.exp(law[:, 8:]), axis=-1))[None])
        assert_close(found["fall"], np.zeros(4))


def test_summary_names_the_winner_the_peak_and_the_fall():
    winners = jnp.array([0, 4 + 1, 3, 8])  # its chosen; its rejected; another's chosen; never listed
    last = log_softmax(5 * jax.nn.one_hot(winners, 10))
    even = jnp.full((4, 10), -jnp.log(10.0))
    found = toy.summary(jnp.stack([last, even, last]), np.array([0, 2]))
    assert found["winner"].tolist() == [0, 1, 2, 4] and found["unseen"].shape == (2,)
    assert_close(found["peak"], 0.8)  # at the record that is not kept
    assert_close(found["fall"], jnp.max(jnp.stack([last, even]), axis=0)[ROWS, ROWS] - last[ROWS, ROWS])
    assert toy.summary(last[None], np.array([0]))["winner"].tolist() == [0, 1, 2, 4]
    another = toy.summary(log_softmax(jax.nn.one_hot((ROWS + 1) % 4 + 4, 10))[None], np.array([0]))
    assert another["winner"].tolist() == [3, 3, 3, 3]


# -- similarity scores -------------------------------------------------------------------------------------------------


def test_scores_of_a_table():
    """One half for every response that is neither; the mean score at the start of each scenario."""
    for law, mean in zip(LAWS.values(), (0.50, 0.11, 0.89, 0.50), strict=True):
        for found in toy.scores(TABLE, law):
            assert_close(found, np.select([toy.ROLE == 0, toy.ROLE == 1], [1.0, 0.0], 0.5))
            assert_close(jnp.sum(jnp.exp(law) * found, axis=-1), np.full(4, mean))


@needs_float64
@pytest.mark.parametrize("width", [64, 3])
def test_scores_give_the_first_step_of_a_network(width):
    """A small step of descent changes log pi_w by (1 - mean score) times what it adds to the margin."""
    net = network(4, 10, hidden=(64, width))
    params = net.init(jax.random.key(2))
    own, scores = toy.scores(net, params)
    slope = jax.grad(partial(loss, net))(params, reference=net.margin(params, INPUTS, CONTRAST))

    def log_probs(step):
        return log_softmax(net.apply(jax.tree.map(lambda p, g: p - step * g, params, slope), INPUTS))

    rate = (log_probs(1e-4) - log_probs(-1e-4)) / 2e-4
    margin = rate[ROWS, ROWS] - rate[ROWS, toy.PROMPTS + ROWS]
    pi, close = jnp.exp(log_probs(0.0)), Tolerance(1e-6, 1e-9, "a central difference: 1e-4 squared, tenfold room twice")
    assert_close(rate[ROWS, ROWS], margin * (1 - jnp.sum(pi * scores, axis=-1)), close)
    alone = margin * (1 - jnp.sum(pi * own, axis=-1))  # without what the other prompts do to this one
    assert not close.allows(rate[ROWS, ROWS], alone)


# -- why narrow layers leak for so long: prompts that share nearly all of their features -----------------------------

SHARED = jnp.concatenate(
    [jnp.ones((4, 1)), jnp.sqrt(0.02) * jnp.eye(4)], axis=1
)  # one common feature, a little of its own


def nearly_shared(theta, reference, beta):
    return loss(LINEAR, theta, reference, beta)


def likelihood_nearly_shared(theta):
    return -jnp.mean(log_softmax(SHARED @ theta)[ROWS, ROWS])


LINEAR = Network(
    lambda key: None, lambda theta, x: SHARED @ theta, lambda theta, x, c: jnp.sum(c * (SHARED @ theta), -1)
)
SHARED_DPO, SHARED_LIKELIHOOD = descent(nearly_shared), descent(likelihood_nearly_shared)


def test_dpo_leaves_the_mass_with_the_other_prompts_chosen_and_likelihood_does_not():
    """All four prompts gain margin together, so that dispersal costs DPO nothing: it falls as a small power of time.

    With a share eps of its own features the score of another prompt's chosen is 1 - eps / (2 + 2 eps), and the law of
    one number gives its mass at every margin.
    """
    eps, beta, start, times = 0.02, 0.1, jnp.zeros((5, 10)), log_times(1e4, 60)
    gain = 1 - eps / (2 + 2 * eps)
    assert_close(toy.scores(LINEAR, start)[1], np.array([1, 0, gain, 1 - gain, 0.5])[toy.ROLE])
    log_probs = log_softmax(SHARED @ flow(SHARED_DPO, start, times, (jnp.zeros(4), beta), log_time=True)[-1])
    chosen, rejected = log_probs[ROWS, ROWS], log_probs[ROWS, 4 + ROWS]
    integrated = Tolerance(1e-5, 1e-5, "Runge-Kutta of fourth order, 16 steps between two times")
    others = log_probs[ROWS, (ROWS + 1) % 4]
    assert_close(others - chosen, (chosen - rejected) * (gain - 1), integrated)
    u = beta * (chosen - rejected)
    assert_close(u + jnp.exp(u), np.full(4, 1 + beta**2 * (2 + 2 * eps) / 4 * 1e4), integrated)
    likelihood = log_softmax(SHARED @ flow(SHARED_LIKELIHOOD, start, times, log_time=True)[-1])
    assert jnp.all(jnp.exp(chosen) < 0.4) and jnp.all(jnp.exp(rejected) < 1e-4)
    assert jnp.all(jnp.exp(likelihood[ROWS, ROWS]) > 0.9)


# -- the four scenarios ------------------------------------------------------------------------------------------------


def force_of_likelihood(z):
    return jnp.eye(10)[0] - jax.nn.softmax(z)


def test_likelihood_in_a_table_disperses_where_the_chosen_is_off_policy():
    """Highest mass of the unseen under cross-entropy on the chosen: 0.2, 0.3252, 0.18, 0.96."""
    times = log_times(1e3, 2000)
    for law, peak in zip(LAWS.values(), (0.2, 0.3252, 0.18, 0.96), strict=True):
        p = jax.nn.softmax(flow(force_of_likelihood, law[0], times, substeps=1, log_time=True))
        digits = Tolerance(0, 6e-5, "printed to four digits; a crest between two times is missed by 1e-6")
        assert_close(jnp.max(1 - p[:, 0] - p[:, toy.PROMPTS]), peak, digits)


@pytest.mark.parametrize("seeds", [1, 3])
def test_all_models_are_one_program(seeds, monkeypatch):
    """The model is traced once for all widths, scenarios and seeds: no rest of a batch, no program for each width."""
    traced = []
    run = toy._run
    monkeypatch.setattr(toy, "_run", lambda *args: traced.append(0) or run(*args))
    setup = Setup(network_seeds=seeds, pretrain_steps=2, steps=20, every=2)
    found = jax.eval_shape(partial(toy.scenarios, setup), jax.random.key(0))
    assert len(traced) == 1
    assert found["scores"].shape == (len(toy.WIDTHS), 4, seeds, 4, 10)
    assert found["dpo_unseen"].shape == (len(toy.WIDTHS), 4, seeds, *found["step"].shape)


@pytest.fixture(scope="module")
def found():
    setup = Setup(network_seeds=2, pretrain_steps=2000, steps=600)
    return jax.tree.map(np.asarray, jax.jit(toy.scenarios, static_argnums=0)(setup, jax.random.key(0)))


def test_pretraining_reaches_the_laws_that_the_layer_can_hold(found):
    """Within 0.01 nats from three units on; with two never, but where the law is almost one response."""
    enough = np.array(toy.WIDTHS) >= toy.PROMPTS - 1
    assert np.max(found["miss"][enough]) < 0.01 and np.max(found["miss"][0]) < 1e-3
    assert np.min(np.mean(found["miss"][~enough][:, :3], axis=-1)) > 0.02


def test_a_wide_layer_behaves_like_a_table(found):
    """The chosen wins everywhere, and the unseen stay below the table's bound with its last digits."""
    for scenario, peak in zip(range(4), found["descent_peak"][0], strict=True):
        s = list(toy.SCENARIOS.values())[scenario]
        rest = 1 - s.chosen - s.rejected
        crest = 1 - max(0.0, s.rejected**0.5 - s.chosen**0.5) ** 2
        assert np.all(peak <= rest / crest + 1e-3), scenario  # miss of the law
    assert np.all(found["dpo_winner"][0] == 0) and np.all(found["dpo_fall"][0] < 0.01)
    assert np.all(found["dpo_chosen"][0, :, :, -1] > -0.01)
    assert np.all(found["descent_peak"][0, 1] > 0.33)  # off-policy chosen, on-policy rejected: 0.18 at the start


def test_a_narrow_layer_leaks_beyond_the_bound_of_a_table(found):
    """Off-policy chosen, on-policy rejected: under Adam, under gradient descent, and under likelihood alone too."""
    narrow = slice(1, 3)  # four and three units
    assert np.all(found["dpo_peak"][narrow, 1] > 0.416 + 0.1)
    assert np.all(found["descent_peak"][narrow, 1] > 0.416 + 0.05)
    assert np.all(found["likelihood_peak"][narrow, 1] > 0.3252 + 0.1)  # so the leak is no property of DPO
    assert np.all(found["dpo_unseen"][narrow, 1, :, -1] > 0.416)  # and lasts
    assert np.all(found["dpo_peak"][narrow, 2] < 0.25)  # not with an on-policy chosen


def test_scores_at_the_start_tell_wide_from_narrow(found):
    assert_close(np.max(found["scores"][0, :3]), 1.0, golden(np.float32))  # nobody gains more than the chosen
    assert np.all(np.max(found["scores"][1:3, 1], axis=(-2, -1)) > 1.05)  # some unseen response does
