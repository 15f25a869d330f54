"""One pair of single tokens, No against Never: each stage a pure function of the setup and a key."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.displacement.setup import Setup
from sandbox import losses
from sandbox.dynamics import descent, flow, train
from sandbox.losses import response_pair
from sandbox.policies import Tied
from sandbox.tied import pair_clock, pair_logits, pair_margin, pair_speed
from theory.displacement.flow import critical_kappa

NO, NEVER, YES, MAYBE = range(4)
START = np.array([0.85, 0.05, 0.05, 0.05])
PSI = np.deg2rad(80)  # from Yes to No
BETA, RATE = 0.1, 0.1
TARGETS = (5.0, 10.0, 20.0, 50.0)  # margins gained at which IPO stops, nats
LAST = 2.0  # the clock at which the closed form is compared with runs
TRAINED = {"both": (1.0, 1.0), "only W": (1.0, 0.0), "only h": (0.0, 1.0)}


def toy(angle: Any, length: Any, hidden: Any) -> tuple[Array, Array, Array]:
    """Embeddings (4, 2) of No, Never, Yes, Maybe, hidden vector (2,), and the bias (4,) that makes START the law.

    ``angle`` between No and Never in radians.
    """
    turns = jnp.stack([jnp.asarray(PSI), PSI + angle, jnp.zeros(())])
    rows = length * jnp.stack([jnp.cos(turns), jnp.sin(turns)], axis=1)
    W = jnp.concatenate([rows, jnp.zeros((1, 2))])
    h = hidden * jnp.stack([jnp.cos(jnp.asarray(PSI)), jnp.sin(jnp.asarray(PSI))])
    return W, h, jnp.log(jnp.asarray(START, W.dtype)) - W @ h


def dpo_time(clock: Array, margin: Array) -> Array:
    """DPO's own time at each clock, from 0 on: the integral of (1 + e^(beta gained)) / beta, by the trapezoid rule."""
    pace = (1 + jnp.exp(BETA * (margin - margin[0]))) / BETA
    return jnp.concatenate([jnp.zeros(1, pace.dtype), jnp.cumsum((pace[1:] + pace[:-1]) / 2 * jnp.diff(clock))])


def climb(params: Tied, bias: Array, pace: Array) -> Tied:
    """The gradient of the margin No - Never in W and h, each times its pace."""
    slope = jax.grad(lambda at: (bias + at.unembedding @ at.hidden) @ jnp.array([1.0, -1, 0, 0], bias.dtype))(params)
    return Tied(pace[0] * slope.unembedding, pace[1] * slope.hidden)


def dpo_loss(params: Tied, bias: Array, reference: Array) -> Array:
    """DPO on the pair."""
    return losses.dpo(response_pair(log_law(params, bias), reference, NO, NEVER), beta=BETA)


def ipo_loss(params: Tied, bias: Array, reference: Array) -> Array:
    """IPO on the pair, with the target margin 50: 1 / (2 tau)."""
    return losses.ipo(response_pair(log_law(params, bias), reference, NO, NEVER), tau=0.01)


def log_law(params: Tied, bias: Array, reference: Any = None) -> Array:
    """Log-probabilities (4,)."""
    del reference
    return jax.nn.log_softmax(bias + params.unembedding @ params.hidden)


DPO_FLOW, IPO_FLOW = descent(dpo_loss), descent(ipo_loss)


def pair(setup: Setup, key: Array) -> dict[str, Array]:
    """T1: runs that train both, only W, only h, against the closed form; descent of DPO; IPO's stops."""
    del key
    W, h, bias = toy(jnp.deg2rad(jnp.asarray(setup.angle)), setup.length, setup.norm)
    start = Tied(W, h)
    reference = log_law(start, bias)
    gap = W[NO] - W[NEVER]
    clock = jnp.linspace(0, LAST, 81, dtype=W.dtype)
    closed = {
        "both": jax.vmap(lambda t: pair_logits(W, h, bias, NO, NEVER, t))(clock),
        "only W": jax.vmap(lambda t: bias + W @ h + t * jnp.dot(h, h) * jnp.array([1, -1, 0, 0]))(clock),
        "only h": jax.vmap(lambda t: bias + W @ (h + t * gap))(clock),
    }
    found: dict[str, Array] = {"clock": clock}
    run = None
    for name, pace in TRAINED.items():
        states = flow(climb, start, clock, (bias, jnp.asarray(pace, W.dtype)), substeps=16)
        found[f"{name}, closed"] = jax.nn.log_softmax(closed[name])
        found[f"{name}, run"] = jax.vmap(lambda s: log_law(s, bias))(states)
        run = states if name == "both" else run
    assert run is not None
    found["W"], found["h"] = run.unembedding, run.hidden
    margin = pair_margin(h, gap, clock)
    found["gained"], found["time"] = margin - margin[0], dpo_time(clock, margin)
    # descent in steps, and the same path under two losses: at each margin that they reach the closed form is asked
    steps = train(
        dpo_loss, start, (bias, reference), steps=setup.steps, learning_rate=RATE, record=log_law
    ).history  # fmt: skip
    found["descent"] = steps
    for name, field, last in (("dpo", DPO_FLOW, 60), ("ipo", IPO_FLOW, 0.05)):
        states = flow(field, start, jnp.linspace(0, last, 61, dtype=W.dtype), (bias, reference), substeps=8)
        laws = jax.vmap(lambda s: log_law(s, bias))(states)
        reached = laws[:, NO] - laws[:, NEVER] - (bias[NO] - bias[NEVER])
        at = pair_clock(h, gap, reached)
        found[f"{name} path"] = laws
        found[f"{name} predicted"] = jax.nn.log_softmax(jax.vmap(lambda t: pair_logits(W, h, bias, NO, NEVER, t))(at))
    stops = pair_clock(h, gap, margin[0] + jnp.asarray(TARGETS, W.dtype))
    found["stopped"] = jax.nn.softmax(jax.vmap(lambda t: pair_logits(W, h, bias, NO, NEVER, t))(stops))
    p = jnp.exp(reference)
    found["speed"] = jnp.stack([pair_speed(W, h, p, NO, NEVER, y) for y in range(4)])
    return found


# -- phases ------------------------------------------------------------------------------------------------------------

LATEST = 6.0  # the clock up to which a dip is looked for: the slowest corner has its dip before


def lowest(W: Array, h: Array, bias: Array, moments: int) -> Array:
    """The lowest log-probability of No along the flow, from its start on."""
    clock = jnp.linspace(0, LATEST, moments, dtype=W.dtype)
    laws = jax.vmap(lambda t: jax.nn.log_softmax(pair_logits(W, h, bias, NO, NEVER, t)))(clock)
    return jnp.min(laws[:, NO])


def phase(setup: Setup, key: Array) -> dict[str, Array]:
    """How deep No dips, by the angle of No and Never and the norm of h; and by kappa and the margin of the stop."""
    del key
    angles = jnp.linspace(2, 122, setup.phases)
    shares = jnp.linspace(0.005, 0.45, setup.phases)  # |h0| / L

    def at(angle: Array, share: Array) -> tuple[Array, ...]:
        W, h, bias = toy(jnp.deg2rad(angle), setup.length, share * setup.length)
        p = jnp.asarray(START, W.dtype)
        gains = jnp.dot(W[YES] - W[NO], W[NO] - W[NEVER]) - jnp.dot(h, h)
        return lowest(W, h, bias, setup.moments), gains, pair_speed(W, h, p, NO, NEVER, NO)

    depth, gains, speed = jax.lax.map(lambda angle: jax.vmap(lambda share: at(angle, share))(shares), angles)
    W, _, _ = jax.vmap(lambda angle: toy(angle, 1.0, 0.0))(jnp.deg2rad(angles))
    p = jnp.asarray(START, W.dtype)
    gap = W[:, NO] - W[:, NEVER]
    third = jnp.einsum("ad,ad->a", W[:, YES] - W[:, NO], gap)
    pull = jnp.einsum("ad,ad->a", jnp.einsum("v,avd->ad", p, W) - W[:, NO], gap)
    found = {
        "angles": angles, "shares": shares, "lowest": depth, "gains": gains, "speed": speed,
        "third line": jnp.sqrt(jnp.maximum(third, 0)),
        "start line": jnp.sqrt(jnp.maximum(pull, 0) / (1 - p[NO] + p[NEVER])),
    }  # fmt: skip
    W, h, bias = toy(jnp.deg2rad(jnp.asarray(setup.angle)), setup.length, setup.norm)
    kappas, stops = jnp.geomspace(1e-3, 10, setup.phases), jnp.geomspace(0.1, 60, setup.phases)

    def stopped(kappa: Array) -> Array:
        gap = W[NO] - W[NEVER]
        at = pair_clock(h, gap, jnp.dot(h, gap) + stops, kappa=kappa)
        return jax.vmap(lambda t: jax.nn.log_softmax(pair_logits(W, h, bias, NO, NEVER, t, kappa=kappa))[NO])(at)

    p = jnp.asarray(START, W.dtype)
    return found | {
        "kappas": kappas,
        "stops": stops,
        "stopped": jax.vmap(stopped)(kappas),
        "critical": critical_kappa(p, W, h, NO, NEVER),
        "kappa speed": jax.vmap(lambda kappa: pair_speed(W, h, p, NO, NEVER, NO, kappa=kappa))(kappas),
    }
