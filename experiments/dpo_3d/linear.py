"""Shared parameters: log-linear policies whose similarity scores are the knobs, and token sequences."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from experiments.dpo_3d.setup import Setup
from sandbox import losses
from sandbox.dynamics import descent, flow, log_times
from sandbox.losses import margin_weights, response_pair
from sandbox.measures import gradient_products
from sandbox.policies import linear_log_probs

W, L = 0, 1
STEP = 1e-5  # length of a small step, in the units of the parameters

# Scores of chosen, rejected and unseen responses, and their starting law: highest unseen score below, at and above 1.
KNOBS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "highest unseen score 1/2": ((1, 0, 0.5, 0.2), (0.05, 0.35, 0.55, 0.05)),
    "highest unseen score 1": ((1, 0, 0.5, 1.0), (0.05, 0.35, 0.55, 0.05)),
    "highest unseen score 3/2": ((1, 0, 0.5, 1.5), (0.05, 0.35, 0.55, 0.05)),
    "highest unseen score 2": ((1, 0, 2.0), (0.3, 0.2, 0.5)),
}


def score_loss(theta: Array, scores: Array, start: Array, beta: Any) -> Array:
    """DPO's loss of the pair (W, L) of the one-parameter policy start * e^(theta scores), normalised."""
    now = jax.nn.log_softmax(start + theta * scores)
    return losses.dpo(response_pair(now, start, W, L), beta=beta)


score_flow = descent(score_loss)


def knobs(setup: Setup, key: Array) -> dict[str, Array]:
    """DPO's flow on four sets of scores: log-probabilities (cases, T, responses), mean score and margin (cases, T)."""
    del key
    times = jnp.asarray(log_times(setup.last, 121))
    padded = [(s + (0.0,) * (4 - len(s)), p + (0.0,) * (4 - len(p))) for s, p in KNOBS.values()]
    scores = jnp.array([s for s, _ in padded])
    start = jnp.log(jnp.maximum(jnp.array([p for _, p in padded]), 1e-300))  # a padded response has no mass

    def one(s: Array, z: Array) -> dict[str, Array]:
        theta = flow(score_flow, jnp.zeros(()), times, (s, z, setup.beta), log_time=True)
        log_probs = jax.nn.log_softmax(z[None] + jnp.outer(theta, s))
        return {"margin": theta, "log_probs": log_probs, "mean_score": jnp.exp(log_probs) @ s}

    return {"time": times, "scores": scores, "start": start, **jax.vmap(one)(scores, start)}


def one_number(setup: Setup, key: Array) -> dict[str, Array]:
    """Random log-linear models in mid-training, one small step each: mean scores, exact changes, the safe cone."""
    return jax.lax.map(partial(_random_model, setup), jax.random.split(key, setup.models), batch_size=250)


def _random_model(setup: Setup, key: Array) -> dict[str, Array]:
    keys = jax.random.split(key, 4)
    responses, features = 6, 3
    phi = jax.random.normal(keys[0], (responses, features)) * jnp.exp(jax.random.normal(keys[1], (responses, 1)))
    theta, reference = jax.random.normal(keys[2], (2, features))
    start = linear_log_probs(phi, reference)

    def log_probs(theta: Array) -> Array:
        return linear_log_probs(phi, theta)

    def change(direction: Array) -> Array:
        moved = log_probs(theta + STEP * direction / jnp.linalg.norm(direction)) - log_probs(theta)
        return moved[jnp.array([W, L])]

    v = phi[W] - phi[L]
    scores = (phi @ v - phi[L] @ v) / (v @ v)
    pair = response_pair(log_probs(theta), start, W, L)
    g_w, g_l = jax.jacrev(lambda t: log_probs(t)[jnp.array([W, L])])(theta)
    norm_w, norm_l, _ = gradient_products(g_w, g_l)
    d_w, d_l = margin_weights(partial(losses.dpo, beta=setup.beta), pair)
    safe = partial(losses.flex_dpo, beta_chosen=setup.beta, beta_rejected=setup.beta * norm_w / norm_l)
    safe_w, safe_l = margin_weights(safe, pair)
    alpha = jnp.exp(2 * jax.random.normal(keys[3])) * setup.beta
    tuned = partial(losses.dpo_sft, beta=setup.beta, alpha=alpha, sft_reduction="sum")
    at_start = jnp.asarray(reference)
    d, _ = jax.jacrev(lambda t: log_probs(t)[jnp.array([W, L])])(at_start)
    e_w, e_l = margin_weights(tuned, response_pair(start, start, W, L))
    along = e_w * d - e_l * (d - v)
    tuned_step = (log_probs(at_start + STEP * along / jnp.linalg.norm(along)) - start)[W]
    safe_push = safe_w * g_w - safe_l * g_l
    return {
        "mean_score": jnp.exp(log_probs(theta)) @ scores,
        "square": v @ v,
        "change": change(d_w * g_w - d_l * g_l),
        "clear": STEP * (1 + jnp.max(jnp.linalg.norm(phi, axis=-1))) ** 2,  # slope of the square term over the step
        "slope": jnp.stack([g_w, g_l]) @ (v / jnp.linalg.norm(v)),
        "safe_change": change(safe_push),
        "safe_slope": jnp.stack([g_w, g_l]) @ (safe_push / jnp.linalg.norm(safe_push)),
        "alpha": alpha,
        "enough": -setup.beta / 2 * (d @ v) / (d @ d),
        "tuned_slope": d @ along / jnp.linalg.norm(along),
        "tuned_change": tuned_step,
    }


def tokens(setup: Setup, key: Array) -> dict[str, Array]:
    """One softmax for all positions, a rejected response with one token changed: exact small steps, and a prefix table.

    ``ahead``: (p_a - p_b) - (n_a - n_b) / T, the boundary. ``change``: of the chosen's log-probability. ``prefix``: the
    same change where every prefix has a softmax of its own.
    """
    return jax.vmap(_random_edit)(jax.random.split(key, setup.models))


def _random_edit(key: Array) -> dict[str, Array]:
    keys = jax.random.split(key, 3)
    vocabulary, length = 4, 3
    z = 1.5 * jax.random.normal(keys[0], (vocabulary,))
    rejected = jax.random.randint(keys[1], (length,), 0, vocabulary)
    a = (rejected[0] + jax.random.randint(keys[2], (), 1, vocabulary)) % vocabulary
    chosen = rejected.at[0].set(a)
    p = jax.nn.softmax(z)

    def count(response: Array) -> Array:
        return jnp.sum(jax.nn.one_hot(response, vocabulary), axis=0)

    n, m = count(chosen), count(rejected)

    def log_prob(z: Array) -> Array:
        return n @ jax.nn.log_softmax(z)

    direction = n - m  # the gradients' difference; equal lengths
    step = STEP * direction / jnp.linalg.norm(direction)
    b = rejected[0]
    first = (
        jax.nn.log_softmax(z + step)[a] - jax.nn.log_softmax(z)[a]
    )  # in a prefix table only the first token's row moves
    return {
        "ahead": (p[a] - p[b]) - (n[a] - n[b]) / length,
        "change": log_prob(z + step) - log_prob(z),
        "clear": jnp.asarray(length * STEP),
        "prefix": first,
    }


def shared_rejected(setup: Setup, key: Array) -> dict[str, Array]:
    """Two chosen responses over one rejected in a table, n1 and n2 copies: one small step at the start."""

    def one(key: Array) -> dict[str, Array]:
        law_key, count_key = jax.random.split(key)
        p = jax.nn.softmax(2 * jax.random.normal(law_key, (4,)))
        n1, n2 = jnp.exp(jax.random.uniform(count_key, (2,), minval=-1.5, maxval=1.5))
        push = n1 * jnp.array([1.0, 0, -1, 0]) + n2 * jnp.array([0, 1.0, -1, 0])
        step = STEP * push / jnp.linalg.norm(push)
        slope = n1 * (1 - p[0] + p[2]) - n2 * (p[1] - p[2])
        return {
            "slope": slope / jnp.linalg.norm(push),
            "change": jax.nn.log_softmax(jnp.log(p) + step)[0] - jnp.log(p[0]),
        }

    return jax.vmap(one)(jax.random.split(key, setup.models))


STAGES = {
    "scores as knobs": knobs,
    "random log-linear models": one_number,
    "tokens": tokens,
    "a shared rejected": shared_rejected,
}
