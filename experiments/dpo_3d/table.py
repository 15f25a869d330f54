"""DPO in a table of probabilities: the flow and its closed form, dispersion, the crest, the reward model, scenarios."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.dpo_3d.setup import SCENARIOS, Setup
from sandbox import losses, tables
from sandbox.algebra import log_sigmoid
from sandbox.dynamics import descent, flow, log_times, train
from theory.dpo_3d.free import slopes
from theory.dpo_3d.softmax import peak_time, return_time

START = (0.05, 0.4, 0.3, 0.15, 0.1)  # chosen, rejected and three unseen responses: the chosen off-policy
W, L = 0, 1
DESCENT_BETA = 0.5  # of the run by gradient descent whose distance from the flow is measured

RESPONSES = 10


def laws() -> np.ndarray:
    """The starting laws (scenarios, 10): chosen, rejected, the peak if there is one, the others equal."""
    found = []
    for scenario in SCENARIOS.values():
        named = [x for x in scenario[1:] if x is not None]
        rest = RESPONSES - len(named)
        found.append([*named, *[(1 - sum(named)) / rest] * rest])
    return np.array(found)


def table_loss(z: Array, z0: Array, beta: Any) -> Array:
    """DPO's loss of the pair (W, L) under logits z and reference logits z0."""
    return tables.pair_loss(partial(losses.dpo, beta=beta), z, z0, W, L)


def likelihood_loss(z: Array) -> Array:
    """Cross-entropy on the chosen response, the control."""
    return -jax.nn.log_softmax(z)[W]


dpo_flow, likelihood_flow = descent(table_loss), descent(likelihood_loss)


def closed_form(start: Array, beta: Any, t: Any) -> Array:
    """Log-probabilities under DPO's flow at time t from the log-probabilities ``start``, by the clock u + e^u."""
    return jax.nn.log_softmax(tables.dpo_logits(start, W, L, t, beta=beta))


def unseen_mass(log_probs: Array) -> Array:
    """Probability (...) of all responses but the pair, from log-probabilities (..., V)."""
    return jnp.sum(jnp.exp(log_probs[..., 2:]), axis=-1)


def table(setup: Setup, key: Array) -> dict[str, Array]:
    """DPO's flow from ``START`` by Runge-Kutta and in closed form; slopes in free variables beside true speeds."""
    del key
    start = jnp.log(jnp.array(START))
    times = jnp.asarray(log_times(setup.last, 61))
    logits = flow(dpo_flow, start, times, (start, setup.beta), log_time=True)
    log_probs = jax.nn.log_softmax(logits)
    p = jnp.exp(log_probs)
    velocity = jax.vmap(lambda z: jax.jvp(jax.nn.softmax, (z,), (dpo_flow(z, start, setup.beta),))[1])(logits)
    free = jax.vmap(lambda a, b: slopes(partial(losses.dpo, beta=setup.beta), a, b, START[W], START[L]))(
        p[:, W], p[:, L]
    )
    rates = jnp.array([0.2, 0.1, 0.05])
    steps = 200  # of the smallest rate; all end at the same time
    end = steps * rates[-1]

    def gap(rate: Array, count: int) -> Array:
        last = train(table_loss, start, (start, DESCENT_BETA), steps=count, learning_rate=rate).params
        return jnp.max(jnp.abs(jax.nn.log_softmax(last) - closed_form(start, DESCENT_BETA, end)))

    gaps = [gap(rate, steps // 2**k) for rate, k in zip(rates, (2, 1, 0), strict=True)]
    return {
        "time": times,
        "logits": logits,
        "log_probs": log_probs,
        "closed_form": jax.vmap(partial(closed_form, start, setup.beta))(times),
        "slope_chosen": free[0],
        "slope_rejected": free[1],
        "speed": velocity[:, :2],
        "log_speed": velocity[:, :2] / p[:, :2],
        "learning_rate": rates,
        "descent_gap": jnp.stack(gaps),
    }


def powers(setup: Setup, key: Array) -> dict[str, Array]:
    """Late log-probabilities (betas, T, V) from ``START``: DPO in closed form, and cross-entropy integrated."""
    del setup, key
    start = jnp.log(jnp.array(START))
    betas = jnp.array([0.1, 0.25, 0.5, 1.0])
    times = jnp.logspace(6, 8, 25)
    late = jax.vmap(lambda beta: jax.vmap(partial(closed_form, start, beta))(times))(betas)
    grid = jnp.asarray(log_times(1e8, 97))
    control = jax.nn.log_softmax(flow(likelihood_flow, start, grid, log_time=True))
    return {"beta": betas, "time": times, "log_probs": late, "control_time": grid, "control": control}


def dispersion(setup: Setup, key: Array) -> dict[str, Array]:
    """Largest unseen mass over its start, U_max / R, over the triangle of (P_w, P_l); and along one flow at t*, t**."""
    del key
    share = jnp.linspace(0.005, 0.985, 99)
    chosen, rejected = jnp.meshgrid(share, share, indexing="ij")
    inside = chosen + rejected < 0.995
    rest = jnp.where(inside, 1 - chosen - rejected, 0.5)
    x = jnp.exp(jnp.linspace(0, 4, 801))  # half the margin, up to 4 nats: beyond sqrt(P_l / P_w) nothing rises

    def peak(p_w: Array, p_l: Array, r: Array) -> Array:
        return jnp.max(1 / (p_w * x + p_l / x + r))

    found = jnp.vectorize(peak)(chosen, rejected, rest)
    start = jnp.log(jnp.array(START))
    ratio = START[L] / START[W]
    stops = jnp.array([0.0, peak_time(ratio, setup.beta), return_time(ratio, setup.beta)])
    at_stops = flow(dpo_flow, start, stops, (start, setup.beta), substeps=400)
    return {
        "share": share,
        "peak": jnp.where(inside, found, jnp.nan),
        "bound": jnp.where(
            inside, jnp.where(rejected > chosen, 1 / (1 - (jnp.sqrt(rejected) - jnp.sqrt(chosen)) ** 2), 1), jnp.nan
        ),
        "stops": stops,
        "unseen_at_stops": unseen_mass(jax.nn.log_softmax(at_stops)),
    }


def crest(setup: Setup, key: Array) -> dict[str, Array]:
    """The margin g = u / beta (times, betas) at three times: closed form on a grid, the flow at some of the betas."""
    del setup, key
    times = jnp.array([10.0, 100.0, 1000.0])
    betas = jnp.logspace(-2.3, 0.7, 601)
    some = jnp.logspace(-2, 0.5, 11)
    start = jnp.log(jnp.array(START))
    grid = jnp.concatenate([jnp.zeros(1), times])

    def integrated(beta: Array) -> Array:
        z = flow(dpo_flow, start, grid, (start, beta), substeps=256, log_time=True)[1:]
        return (z[:, W] - z[:, L]) - (start[W] - start[L])

    return {
        "time": times,
        "beta": betas,
        "margin": tables.dpo_margin(times[:, None], beta=betas[None]),
        "some": some,
        "integrated": jax.vmap(integrated)(some).T,
    }


def reward_loss(r: Array) -> Array:
    """The Bradley-Terry loss of free scores of the pair."""
    return -log_sigmoid(r[W] - r[L])


reward_flow = descent(reward_loss)


def reward_model(setup: Setup, key: Array) -> dict[str, Array]:
    """A reward model's flow from zero scores, the reference tilted by e^(r / beta); DPO at 1 / beta^2 of its times."""
    del key
    start = jnp.log(jnp.array(START))
    times = jnp.asarray(log_times(setup.last * setup.beta**2, 41))
    scores = flow(reward_flow, jnp.zeros_like(start), times, log_time=True)
    return {
        "time": times,
        "scores": scores,
        "tilted": jax.nn.log_softmax(start[None] + scores / setup.beta),
        "dpo": jax.nn.log_softmax(flow(dpo_flow, start, times / setup.beta**2, (start, setup.beta), log_time=True)),
    }


def scenarios_in_a_table(setup: Setup, key: Array) -> dict[str, Array]:
    """The four scenarios (scenarios, T, V): DPO in closed form, and cross-entropy on the chosen integrated."""
    del key
    start = jnp.log(jnp.asarray(laws()))
    times = jnp.asarray(log_times(2_000.0, 201))
    path = jax.vmap(lambda z: jax.vmap(partial(closed_form, z, setup.beta))(times))(start)
    control = jax.vmap(lambda z: flow(likelihood_flow, z, times, log_time=True))(start)
    p = jnp.exp(path)
    chosen, rejected = jnp.exp(start[:, W]), jnp.exp(start[:, L])
    apart = jnp.maximum(jnp.sqrt(rejected) - jnp.sqrt(chosen), 0)  # 0: the unseen never rise
    return {
        "time": times,
        "log_probs": path,
        "probabilities": jnp.stack([p[..., W], p[..., L], unseen_mass(path)], axis=1),
        "bound": unseen_mass(start) / (1 - apart**2),
        "control": jax.nn.log_softmax(control),
    }


STAGES = {
    "table": table,
    "powers of time": powers,
    "dispersion": dispersion,
    "crest": crest,
    "reward model": reward_model,
    "scenarios in a table": scenarios_in_a_table,
}
