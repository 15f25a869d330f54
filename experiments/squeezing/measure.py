"""What is simulated on single laws: each stage a pure function of the setup and a key, compiled as a whole."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.squeezing.setup import Setup
from sandbox import squeezing
from sandbox.dynamics import flow, train
from sandbox.policies import linear_logits, minimum_norm

TABLE = np.array([0.5, 0.3, 0.15, 0.05])  # toy A; the last response is the rejected one
RARE = 3

# -- toy A: one step ---------------------------------------------------------------------------------------------------

RESPONSES, PEAK, VALLEY, LEVEL, CHOSEN = 50, 11, 42, 42, 5
CASES = ("flat", "on the peak", "in the valley", "in the valley, with a positive term")


def fifty_laws() -> tuple[np.ndarray, np.ndarray]:
    """A flat law of 50 responses, and one of .76 at its peak; both uneven, by a fixed pattern."""
    wave = np.cos(1.7 * np.arange(RESPONSES)) + np.cos(0.9 * np.arange(RESPONSES) + 1)
    flat = np.exp(0.3 * wave)
    rest = np.exp(0.8 * wave)
    rest[PEAK] = 0
    peaked = 0.24 * rest / rest.sum()
    peaked[PEAK] = 0.76
    return flat / flat.sum(), peaked


def one_step(setup: Setup, key: Array) -> dict[str, Array]:
    """Before and after a step, four times; and random laws: which responses the threshold says rise, and which did."""
    flat, peaked = (jnp.asarray(law, jnp.result_type(float)) for law in fifty_laws())
    s, row = setup.impulse, jax.nn.one_hot(jnp.asarray([VALLEY, CHOSEN]), RESPONSES)
    before = jnp.stack([flat, peaked, peaked, peaked])
    moved = [
        squeezing.push_down(jnp.log(flat), LEVEL, s),
        squeezing.push_down(jnp.log(peaked), PEAK, s),
        squeezing.push_down(jnp.log(peaked), VALLEY, s),
        jnp.log(peaked) + s * (row[1] - row[0]),
    ]
    thresholds = [squeezing.threshold(p, l, s) for p, l in ((flat, LEVEL), (peaked, PEAK), (peaked, VALLEY))]
    return {
        "before": before,
        "after": jax.nn.softmax(jnp.stack(moved)),
        "threshold": jnp.stack(thresholds),
        **random_steps(setup.laws, key),
    }


KEPT = 200  # random laws that are kept, for the identities along them


def random_steps(count: int, key: Array) -> dict[str, Array]:
    """Random laws of eight responses, from nearly even to peaked, one of them pushed down by .01 to 30 nats."""
    keys = jax.random.split(key, 4)
    spread = jnp.exp(jax.random.uniform(keys[0], (count, 1), minval=-2.0, maxval=1.5))
    logits = spread * jax.random.normal(keys[1], (count, 8))
    rejected = jax.random.randint(keys[2], (count,), 0, 8)
    impulse = 10 ** jax.random.uniform(keys[3], (count,), minval=-2.0, maxval=1.5)
    p = jax.nn.softmax(logits)
    found = squeezing.squeeze(logits, rejected, impulse)
    moved = jax.nn.log_softmax(jax.vmap(squeezing.push_down)(jax.nn.log_softmax(logits), rejected, impulse))
    change = moved - jax.nn.log_softmax(logits)
    near = jnp.abs(p - found.threshold[:, None]) * impulse[:, None] < 1e4 * jnp.finfo(p.dtype).eps
    pushed = jax.nn.one_hot(rejected, 8, dtype=bool)
    rises = found.rises
    return {
        "p": p[:KEPT],
        "rejected": rejected[:KEPT],
        "impulse": impulse[:KEPT],
        "wrong": jnp.sum((rises != (change > 0)) & ~near & ~pushed, axis=1),
        "winners": jnp.sum(rises, axis=1),
        "majority": found.majority,
        "top_rises": found.gain > 0,
    }


# -- who wins: phase diagrams ------------------------------------------------------------------------------------------

IMPULSES = (0.01, 2.0, 6.0)
THIRD = 0.6 ** np.arange(4)  # shares of four third parties, not normalised


def phases(setup: Setup, key: Array) -> dict[str, Array]:
    """How many of the others rise, over the probability q of the rejected and the share r of their top.

    two (impulse, q, r): beside the top there is one other; five (q, r): there are four, at a small step.
    """
    del key
    q = (jnp.arange(setup.grid) + 0.5) / setup.grid
    share = 0.5 + 0.5 * (jnp.arange(setup.grid) + 0.5) / setup.grid

    def count(q: Array, r: Array, third: Array, s: Any) -> Array:
        others = jnp.concatenate([r[None], (1 - r) * third])
        p = jnp.concatenate([(1 - q) * others, q[None]])
        after = squeezing.push_down(jnp.log(p), p.size - 1, s)
        return jnp.sum(jax.nn.log_softmax(after)[:-1] > jnp.log(p)[:-1])

    def over(third: Array, s: Any) -> Array:
        return jax.vmap(lambda q: jax.vmap(lambda r: count(q, r, third, s))(share))(q)

    third = jnp.asarray(THIRD / THIRD.sum(), q.dtype)
    return {
        "q": q,
        "share": share,
        "two": jnp.stack([over(jnp.ones(1, q.dtype), s) for s in IMPULSES]),
        "five": over(third, IMPULSES[0]),
        "bound": squeezing.majority_bound(share),
    }


# -- the whole path ----------------------------------------------------------------------------------------------------

TIMES = np.concatenate([[0.0], np.geomspace(0.05, 14, 60)])  # learning rate times steps
SIMPLEX = np.array([[0.45, 0.35, 0.2], [0.3, 0.5, 0.2], [0.1, 0.3, 0.6], [0.3, 0.1, 0.6]])
STEPS = (0.1, 0.05, 0.025)  # of the mend
BACK = 2.0  # time of fine-tuning on the rejected, before it is pushed down


def pull(z: Array, rejected: Any) -> Array:
    """The velocity of the logits under fine-tuning on a response: also the gradient that pushing it down descends."""
    return jax.nn.one_hot(rejected, z.shape[-1], dtype=z.dtype) - jax.nn.softmax(z)


def push(z: Array, rejected: Any) -> Array:
    """The velocity of the logits when it is pushed down: also the gradient that fine-tuning descends."""
    return -pull(z, rejected)


def path(setup: Setup, key: Array) -> dict[str, Array]:
    """The flow, integrated and in closed form: a table of four, laws of three, and the mend in finite steps."""
    del setup, key
    p, times = jnp.asarray(TABLE, jnp.result_type(float)), jnp.asarray(TIMES, jnp.result_type(float))
    run = flow(push, jnp.log(p), times, (RARE,), substeps=24)
    tau = jax.vmap(lambda t: squeezing.flow_parameter(p, RARE, t))(times)
    short = jnp.linspace(0, 3, 13)
    starts = jnp.asarray(SIMPLEX, p.dtype)

    def both_ways(start: Array) -> tuple[Array, Array]:
        dots = [jax.nn.softmax(flow(f, jnp.log(start), short, (2,))) for f in (push, pull)]
        line = jax.vmap(lambda t: squeezing.flow_law(start, 2, squeezing.flow_parameter(start, 2, t)))
        ends = jnp.linspace(-3, 6, 91)
        return jnp.concatenate(dots), line(ends.astype(p.dtype))

    dots, lines = jax.lax.map(both_ways, starts)

    def mended(step: float) -> tuple[Array, Array]:
        count = round(BACK / step)
        there = train(None, jnp.log(p), (RARE,), gradient=push, steps=count, learning_rate=step)
        back = train(None, there.params, (RARE,), gradient=pull, steps=count, learning_rate=step,
                     record=lambda z, l: jax.nn.softmax(z))  # fmt: skip
        plain = train(None, jnp.log(p), (RARE,), gradient=pull, steps=count, learning_rate=step)
        return back.history, jax.nn.softmax(plain.params)

    found = [mended(step) for step in STEPS]
    return {
        "time": times,
        "z": run,
        "p": jax.nn.softmax(run),
        "tau": tau,
        "closed": jax.vmap(lambda tau: squeezing.flow_law(p, RARE, tau))(tau),
        "dots": dots,
        "lines": lines,
        "return_error": jnp.stack([jnp.max(jnp.abs(history[-1] - p)) for history, _ in found]),
        "mended": found[0][0],
        "unmended": jnp.stack([plain for _, plain in found]),
    }


# -- toy B: two questions ----------------------------------------------------------------------------------------------

AT_A, AT_B = np.array([0.9, 0.02, 0.05, 0.03]), np.array([0.1, 0.3, 0.4, 0.2])
LIKE = 0.5  # inner product of the unit features of the two questions
LEARN = 60  # steps of fine-tuning, of rate .1


def questions(setup: Setup, key: Array) -> dict[str, Array]:
    """Fine-tuning on answer 1 to B, alone or with answer 0 to A: log-probabilities (run, steps + 1, question, 4)."""
    del setup, key
    features = jnp.array([[1.0, 0.0], [LIKE, (1 - LIKE**2) ** 0.5]])
    theta = minimum_norm(features, jnp.log(jnp.stack([jnp.asarray(AT_A), jnp.asarray(AT_B)])).astype(features.dtype))

    def loss(theta: Array, weight: Any) -> Array:
        at = jax.nn.log_softmax(linear_logits(theta, features))
        return -at[1, 1] - weight * at[0, 0]

    def record(theta: Array, weight: Any) -> Array:
        return jax.nn.log_softmax(linear_logits(theta, features))

    def run(weight: Any) -> Array:
        return train(loss, theta, (weight,), steps=LEARN, learning_rate=0.1, record=record).history

    return {"log_probs": jax.vmap(run)(jnp.array([0.0, 1.0]))}
