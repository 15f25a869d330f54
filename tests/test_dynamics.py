"""The training loop is gradient descent, the flow is the flow, and neither compiles twice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sandbox.algebra import flow_margin, log_softmax
from sandbox.dynamics import descent, flow, log_times, one_step, train
from sandbox.losses import PairLogProbs, dpo
from sandbox.statistics import log_log_slope
from tests.tolerances import Tolerance, assert_close, identity

float64_only = pytest.mark.skipif(not jax.config.jax_enable_x64, reason="the error measured is below float32's")

TARGET = jnp.array([1.0, -2.0, 0.5])


def bowl(z, target):
    return jnp.sum((z - target) ** 2 * jnp.array([1.0, 2.0, 3.0])) / 2


def bowl_gradient(z, target):
    return (z - target) * jnp.array([1.0, 2.0, 3.0])


def dpo_loss(logits, start, beta):
    """DPO on one pair of a tabular policy: token 0 over token 1."""
    policy, reference = log_softmax(logits), log_softmax(start)
    return dpo(PairLogProbs(policy[0], policy[1], reference[0], reference[1]), beta=beta)


def dpo_margin(logits, start, beta):
    """Beta times the margin."""
    return beta * ((logits - start)[0] - (logits - start)[1])


dpo_field = descent(dpo_loss)
START = jnp.log(jnp.array([0.2, 0.3, 0.5]))


# -- descent ---------------------------------------------------------------------------------------------------------


def test_train_is_gradient_descent():
    z = np.zeros(3)
    visited = [z]
    for _ in range(12):
        z = z - 0.1 * np.asarray(bowl_gradient(z, np.asarray(TARGET)))
        visited.append(z)
    run = train(bowl, jnp.zeros(3), (TARGET,), steps=12, learning_rate=0.1, record=lambda z, target: (z, z - target))
    assert_close(run.history[0], np.array(visited))
    assert_close(run.history[1], np.array(visited) - np.asarray(TARGET))
    assert_close(run.params, visited[-1])
    closed = train(None, jnp.zeros(3), (TARGET,), steps=12, learning_rate=0.1, gradient=bowl_gradient)
    assert_close(closed.params, visited[-1])
    assert closed.history is None


@pytest.mark.parametrize("every", [1, 3, 4, 12])
def test_history_is_kept_every_few_steps_from_step_0(every):
    full = train(bowl, jnp.zeros(3), (TARGET,), steps=12, learning_rate=0.1, record=bowl)
    some = train(bowl, jnp.zeros(3), (TARGET,), steps=12, learning_rate=0.1, record=bowl, every=every)
    assert some.history.shape == (12 // every + 1,)
    assert_close(some.history, full.history[::every])
    assert_close(some.params, full.params)
    assert_close(some.history[-1], bowl(some.params, TARGET))


def test_any_optax_optimiser_by_constructor_or_ready_made():
    optimiser = optax.adam(0.05)
    z, state = jnp.zeros(3), optimiser.init(jnp.zeros(3))
    for _ in range(20):
        changes, state = optimiser.update(jax.grad(bowl)(z, TARGET), state, z)
        z = optax.apply_updates(z, changes)
    by_constructor = train(bowl, jnp.zeros(3), (TARGET,), steps=20, learning_rate=0.05, optimizer=optax.adam)
    ready_made = train(bowl, jnp.zeros(3), (TARGET,), steps=20, optimizer=optimiser)
    assert_close(by_constructor.params, z)
    assert_close(ready_made.params, z)


def test_trains_a_tree_and_keeps_its_dtype():
    params = {"a": jnp.zeros(3, jnp.float32), "b": jnp.zeros((), jnp.float32)}

    def loss(params, target):
        return bowl(params["a"], target) + (params["b"] - 1) ** 2

    run = train(loss, params, (TARGET,), steps=200, learning_rate=np.float64(0.2), record=lambda p, _: p["b"])
    assert jax.tree.map(lambda x: x.dtype, run.params) == {"a": jnp.float32, "b": jnp.float32}
    assert_close(run.params["a"], TARGET, identity("float32"))  # the slowest rate is .8 ** 200 = 4e-20
    assert run.history.shape == (201,)


def test_nothing_compiles_again_for_other_numbers():
    traces = []

    def loss(z, target):
        traces.append(None)
        return bowl(z, target)

    def run(learning_rate, scale, **options):
        return train(loss, scale * jnp.ones(3), (scale * TARGET,), steps=8, learning_rate=learning_rate, **options)

    for options in ({}, {"optimizer": optax.adam}, {"record": bowl, "every": 4}):
        run(0.1, 1.0, **options)
        seen = len(traces)
        for learning_rate, scale in ((0.2, 1.0), (0.1, 2.0), (0.3, -1.0)):
            run(learning_rate, scale, **options)
        assert len(traces) == seen > 0, options
    field, seen = descent(loss), 0
    for scale in (1.0, 2.0, 3.0):
        flow(field, scale * jnp.ones(3), scale * np.array([0.0, 1.0, 2.0]), (scale * TARGET,))
        assert seen in (0, len(traces))
        seen = len(traces)


def test_runs_map_over_learning_rates_starts_and_constants():
    rates, starts = jnp.array([0.05, 0.1, 0.3]), jax.random.normal(jax.random.key(0), (3, 3))

    @jax.jit
    def sweep(rates, starts):
        one = lambda rate, start: train(bowl, start, (TARGET,), steps=9, learning_rate=rate, record=bowl)  # noqa: E731
        return jax.vmap(one)(rates, starts)

    many = sweep(rates, starts)
    assert many.history.shape == (3, 10)
    for i in range(3):
        alone = train(bowl, starts[i], (TARGET,), steps=9, learning_rate=rates[i], record=bowl)
        assert_close(many.history[i], alone.history)
        assert_close(many.params[i], alone.params)


def test_differentiable_through_the_run():
    """d/d rate of the end point of one step is minus the gradient."""
    end = lambda rate: train(bowl, jnp.zeros(3), (TARGET,), steps=1, learning_rate=rate).params  # noqa: E731
    assert_close(jax.jacfwd(end)(0.1), -bowl_gradient(jnp.zeros(3), TARGET))


def test_one_step_measures_before_and_after():
    step = one_step(
        bowl, jnp.zeros(3), (TARGET,), learning_rate=0.1, measure=lambda z, _: {"log_probs": log_softmax(z)}
    )
    moved = -0.1 * bowl_gradient(jnp.zeros(3), TARGET)
    assert_close(step.params, moved)
    assert_close(step.before["log_probs"], log_softmax(jnp.zeros(3)))
    assert_close(step.after["log_probs"], log_softmax(moved))
    same = one_step(None, jnp.zeros(3), (TARGET,), learning_rate=0.1, measure=bowl, gradient=bowl_gradient)
    assert_close(same.after, bowl(moved, TARGET))


# -- flow ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_time", [False, True])
def test_flow_of_dpo_is_the_closed_form(log_time):
    """u = beta h obeys u + e^u = 1 + 2 beta^2 t on a tabular policy that starts at its reference."""
    beta, times = 0.7, np.array([0.0, 1.0, 2.0, 5.0])
    states = flow(dpo_field, START, times, (START, beta), log_time=log_time)
    assert states.shape == (4, 3)
    margins = jax.vmap(dpo_margin, (0, None, None))(states, START, beta)
    # 16 substeps an interval: h <= .19, and the fourth-order constant of this field is below .1 h^4 = 1e-4; found 1e-8
    runge_kutta = Tolerance(0, 1e-6, "fourth-order steps of at most .19 time units at rates below 2 beta^2 = 1")
    assert_close(margins, flow_margin(1 + 2 * beta**2 * times), runge_kutta)
    assert_close(margins[-1], 1.485006387, runge_kutta)
    assert_close(log_softmax(states[-1])[0], -0.71554736, runge_kutta)


@float64_only
@pytest.mark.parametrize("log_time", [False, True])
def test_runge_kutta_is_of_fourth_order(log_time):
    beta, end, substeps = 1.0, 2.0, [16, 32, 64]

    def error(n):
        states = flow(dpo_field, START, [0.0, end], (START, beta), substeps=n, log_time=log_time)
        return abs(dpo_margin(states[-1], START, beta) - flow_margin(1 + 2 * beta**2 * end))

    errors = [error(n) for n in substeps]
    assert abs(log_log_slope(substeps, errors).slope + 4) < 0.2, errors  # the fifth order adds .1 in log time


@float64_only
def test_descent_follows_the_flow_up_to_the_step():
    """At a fixed time the margin of descent differs from the flow's by a constant times the learning rate."""
    beta, end, steps = 0.7, 5.0, np.array([50, 100, 200, 400])

    def error(n):
        run = train(dpo_loss, START, (START, beta), steps=int(n), learning_rate=end / n)
        return abs(dpo_margin(run.params, START, beta) - flow_margin(1 + 2 * beta**2 * end))

    errors = [error(n) for n in steps]
    assert abs(log_log_slope(end / steps, errors).slope - 1) < 0.02, errors


@float64_only
def test_log_time_reaches_far():
    """dz/dt = -z^3 falls like (2 t)^(-1/2); from 0 to 1e8 in 400 steps."""
    times = log_times(1e8, 26)
    z = flow(lambda z: -(z**3), jnp.array(1.0), times, log_time=True)
    assert times[0] == 0 and np.isclose(times[-1], 1e8) and len(times) == 26
    exact = 1 / np.sqrt(1 + 2 * times)
    # |d^5 z / ds^5| < 4 z in s = log(1 + t), and errors fade as z does: (.046)^4 * 4 / 120 < 2e-7
    assert_close(z, exact, Tolerance(1e-6, 0, "fourth-order steps of .046 in log(1 + t)"))


def test_flow_of_a_tree_with_data_maps_and_traces():
    def field(state, rate):
        return {"x": -rate * state["x"], "v": jnp.zeros_like(state["v"])}

    start = {"x": jnp.array([1.0, 2.0]), "v": jnp.array(3.0)}
    rates = jnp.array([0.5, 1.0])
    states = jax.jit(jax.vmap(lambda rate: flow(field, start, jnp.array([0.0, 1.0]), (rate,))))(rates)
    # e^-h to fourth order at h = 1/16: (1/16)^4 / 120
    error = Tolerance(0, 1e-6, "sixteen fourth-order steps of 1/16: 1.3e-7; one rounding each in float32")
    assert_close(states["x"][:, 1], jnp.exp(-rates)[:, None] * jnp.array([[1.0, 2.0]]), error)
    assert_close(states["v"], jnp.full((2, 2), 3.0))


def test_flow_begins_anywhere_and_takes_integers():
    late = flow(lambda z: jnp.ones_like(z), 1, [3, 4, 6])
    assert_close(late, np.array([1.0, 2.0, 4.0]))


# -- errors ----------------------------------------------------------------------------------------------------------


def run(**options):
    given = {"steps": 4, "learning_rate": 0.1, **options}
    return train(given.pop("loss", bowl), jnp.zeros(3), (TARGET,), **given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run(steps=0), "steps = 0"),
        (lambda: run(steps=2.5), "steps = 2.5"),
        (lambda: run(every=0), "every = 0"),
        (lambda: run(every=3, record=bowl), "every = 3: must divide steps = 4"),
        (lambda: run(learning_rate=None), "learning_rate: missing"),
        (lambda: run(learning_rate=np.inf), "learning_rate = inf"),
        (lambda: run(learning_rate=jnp.nan, optimizer=optax.adam), "learning_rate = nan"),
        (lambda: run(optimizer=optax.adam(0.1)), "learning_rate = 0.1: the optimizer"),
        (lambda: run(loss=None), "loss, gradient: give one"),
        (lambda: run(gradient=bowl_gradient), "loss, gradient: give one"),
        (lambda: flow(dpo_field, START, [0.0], (START, 1.0)), "times: shape"),
        (lambda: flow(dpo_field, START, 1.0, (START, 1.0)), "times: shape"),
        (lambda: flow(dpo_field, START, [0.0, 2.0, 1.0], (START, 1.0)), r"times: step to the next\[1\] = -1.0"),
        (lambda: flow(dpo_field, START, [0.0, np.nan], (START, 1.0)), "times"),
        (lambda: flow(dpo_field, START, [-1.0, 1.0], (START, 1.0), log_time=True), "times"),
        (lambda: flow(dpo_field, START, [0.0, 1.0], (START, 1.0), substeps=0), "substeps = 0"),
        (lambda: log_times(0, 4), "last = 0"),
        (lambda: log_times(1.0, 1), "count = 1"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
