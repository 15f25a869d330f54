"""What is simulated: each stage a pure function of the setup and a key."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from experiments.entanglement.sentiment import sentiment
from experiments.entanglement.setup import Setup
from sandbox import losses, tables
from sandbox.dynamics import Run, descent, flow, log_times, train
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.measures import Case, GradientProducts, first_order_changes, gradient_products, kappa
from sandbox.pair_training import train_linear
from sandbox.policies import (
    linear_logits,
    minimum_norm,
    network,
    sequence_log_prob,
    similarity,
    suffix_features,
    token_gram,
    token_inputs,
)
from theory.entanglement.tokens import n_star

Sweep = Callable[..., dict[str, Any]]  # sandbox.sweep.sweep

CONTRAST = (0.6, 0.3, 0.1)  # chosen, rejected, other at the position where the responses part

KEPT = 200  # runs whose gradients are kept, for the identities along them
BLOCK = 20  # steps over which the weights along a path are averaged

# The losses whose paths are drawn, each with the constants of its paper (or near them).
PATHS = {
    "DPO": partial(losses.dpo, beta=0.1),
    "R-DPO": partial(losses.rdpo, beta=0.1, alpha=0.05),
    "cDPO": partial(losses.cdpo, beta=0.1, epsilon=0.1),
    "robust DPO": partial(losses.robust_dpo, beta=0.1, epsilon=0.1),
    "IPO": partial(losses.ipo, tau=0.02),
    "SimPO": partial(losses.simpo, beta=2.0, gamma=1.0),
    "KTO": partial(losses.kto, beta=0.1, z0=0.0, desirable_weight=1.0, undesirable_weight=1.0),
    "SPPO": partial(losses.sppo, eta=20.0),
    "DPOP": partial(losses.dpop, beta=0.1, lam=5.0),
    "DPO + SFT": partial(losses.dpo_sft, beta=0.1, alpha=0.2, sft_reduction="mean"),
    "CPO": partial(losses.cpo, beta=0.1, lam=1.0),
    "ORPO": partial(losses.orpo, lam=1.0),
    "RRHF": partial(losses.rrhf, lam=0.02),
    "SLiC": partial(losses.slic_hf, delta=12.0, lam=0.5),
    "Flex-DPO": partial(losses.flex_dpo, beta_chosen=0.1, beta_rejected=0.3),
}


# -- random log-linear policies: what a small step does, over the whole plane ------------------------------------------


def phase(setup: Setup, key: Array, sweep: Sweep) -> dict[str, Any]:
    """Random pairs of responses, random weights, one small step each: predicted and exact changes (runs,)."""
    found = sweep(partial(_random_step, setup), jax.random.split(key, setup.runs))
    found |= {name: found[name][:KEPT] for name in ("g_w", "g_l", "d_w", "d_l")}
    return {**found, "outcome": _outcome(found["exact_chosen"], found["exact_rejected"])}


def _outcome(chosen: Any, rejected: Any) -> np.ndarray:
    """The cases of these changes; the fourth, if it ever happened, is not hidden among the others."""
    outcome = np.where(chosen > 0, np.where(rejected > 0, Case.BOTH_RISE, Case.IDEAL), Case.BOTH_FALL)
    return np.where((chosen <= 0) & (rejected > 0), Case.UNDEFINED, outcome)


class RandomPair(NamedTuple):
    """A log-linear policy, features (2, T, d), tokens and mask (2, T) of a pair, and a ratio d_w |g_w| / d_l |g_l|."""

    theta: Array
    features: Array
    tokens: Array
    mask: Array
    ratio: Array


def random_pair(setup: Setup, key: Array) -> RandomPair:
    """A random policy, a pair whose contexts are shared at random, and a ratio."""
    keys = jax.random.split(key, 7)
    shape = (setup.tokens, setup.features)
    shared, own = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], shape)
    mixed = jax.random.uniform(keys[2])  # 0: the two responses share no context, 1: every context
    features = jnp.stack([shared, jnp.sqrt(mixed) * shared + jnp.sqrt(1 - mixed) * own])
    theta = jax.random.normal(keys[3], (setup.vocabulary, setup.features)) * 0.5
    suffix = jax.random.randint(keys[4], (setup.tokens,), 0, setup.vocabulary)
    tokens = jnp.stack([suffix.at[0].set(0), suffix.at[0].set(1)])
    length = jax.random.randint(keys[6], (), 1, setup.tokens + 1)
    mask = jnp.broadcast_to(jnp.arange(setup.tokens) < length, tokens.shape)
    ratio = 10 ** jax.random.uniform(keys[5], minval=-1.6, maxval=1.6)  # kappa, the same at every scale
    return RandomPair(theta, features, tokens, mask, ratio)


def _random_step(setup: Setup, key: Array) -> dict[str, Array]:
    theta, *pair, ratio = random_pair(setup, key)

    def log_probs(theta: Array) -> Array:
        return response_log_probs(theta, *pair)

    g_w, g_l = jax.jacrev(log_probs)(theta).reshape(2, -1)
    products = gradient_products(g_w, g_l)
    d_w, d_l = ratio / products.norm_chosen, 1 / products.norm_rejected
    direction = d_w * g_w - d_l * g_l
    scale = setup.step / jnp.linalg.norm(direction)
    predicted = first_order_changes(d_w, d_l, *products)
    exact = log_probs(theta + scale * direction.reshape(theta.shape)) - log_probs(theta)
    return {
        "kappa": kappa(d_w, d_l, products.norm_chosen, products.norm_rejected),
        "cosine": products.cosine,
        "predicted_chosen": scale * predicted[0],
        "predicted_rejected": scale * predicted[1],
        "exact_chosen": exact[0],
        "exact_rejected": exact[1],
        "g_w": g_w,
        "g_l": g_l,
        "d_w": d_w,
        "d_l": d_l,
    }


def follow(setup: Setup, key: Array, sweep: Sweep) -> dict[str, Any]:
    """Random pairs trained by Flex-DPO, whose weights keep their ratio: cases at the start and the end (runs,)."""
    found = sweep(partial(_random_run, setup), jax.random.split(key, setup.runs), batch=64)
    start = np.where(found["cosine"] < found["kappa"], Case.IDEAL, Case.BOTH_FALL)
    start = np.where(found["cosine"] * found["kappa"] > 1, Case.BOTH_RISE, start)
    return {"start": start, "end": _outcome(found["chosen"], found["rejected"]), **found}


def _random_run(setup: Setup, key: Array) -> dict[str, Array]:
    pair = random_pair(setup, key)
    run, products, _ = flex_run(setup, pair, setup.run_steps)
    theta, *rest, ratio = pair
    chosen, rejected = response_log_probs(run.params, *rest) - response_log_probs(theta, *rest)
    return {"kappa": ratio, "cosine": products.cosine, "chosen": chosen, "rejected": rejected}


def flex_run(setup: Setup, pair: RandomPair, steps: int, **kept: Any) -> tuple[Run, GradientProducts, tuple[Any, Any]]:
    """Flex-DPO from the pair's policy: the run, the products of the gradients at its start, and its two betas.

    The betas give kappa at the start its value; their ratio is that of the weights d_w and d_l at every step. ``kept``
    is that of ``train_linear``.
    """
    theta, *rest, ratio = pair
    g_w, g_l = jax.jacrev(response_log_probs)(theta, *rest).reshape(2, -1)
    products = gradient_products(g_w, g_l)
    share = jnp.sqrt(ratio * products.norm_rejected / products.norm_chosen)
    up, down = setup.beta * share, setup.beta / share
    rate = setup.stride / (jnp.linalg.norm(up * g_w - down * g_l) / 2)  # sigmoid(0) = 1 / 2
    loss = partial(losses.flex_dpo, beta_chosen=up, beta_rejected=down)
    return train_linear(loss, theta, *rest, steps=steps, learning_rate=rate, **kept), products, (up, down)


# -- a contrast token and a shared suffix: linear features whose overlap we choose -------------------------------------


def suffix_task(length: int, overlap: Any, chosen_error: Any, rejected_error: Any) -> tuple[Array, Array, Array]:
    """theta of least norm, features (2, T, d) and tokens (2, T) of a contrast token followed by a shared suffix."""
    features = suffix_features(length, overlap)

    def law(error: Any) -> Array:
        return jnp.stack([1 - jnp.asarray(error), error / 2, error / 2])

    first = jnp.array([CONTRAST])
    wanted = [jnp.concatenate([first, jnp.tile(law(e), (length, 1))]) for e in (chosen_error, rejected_error)]
    distinct = jnp.concatenate([features[0], features[1, 1:]])  # the first position is the same for both
    theta = minimum_norm(distinct, jnp.log(jnp.concatenate([wanted[0], wanted[1][1:]])))
    tokens = jnp.zeros((2, 1 + length), int).at[1, 0].set(1)
    return theta, features, tokens


def response_log_probs(theta: Array, features: Array, tokens: Array, mask: Array | None = None) -> Array:
    """Log-probabilities (2,) of the chosen and the rejected response; ``mask`` (T,) keeps all positions by default."""
    log_probs = jax.nn.log_softmax(linear_logits(theta, features))
    kept = jnp.ones(tokens.shape[-1], bool) if mask is None else mask
    return sequence_log_prob(log_probs, tokens, jnp.broadcast_to(kept, tokens.shape))


LENGTHS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40)


def suffix_lengths(setup: Setup, key: Array) -> dict[str, Array]:
    """One small step of equal weights on suffixes of 0 to 40 tokens: Gram entries, exact changes per unit of step."""
    del key
    lengths = jnp.array(LENGTHS)
    stepped = partial(_suffix_step, LENGTHS[-1], step=setup.step**2)
    task = setup.overlap, setup.chosen_error, setup.rejected_error
    return {"length": lengths, **jax.jit(jax.vmap(lambda n: stepped(n, *task)))(lengths)}


def _suffix_step(
    longest: int, length: Any, overlap: Any, chosen_error: Any, rejected_error: Any, step: float
) -> dict[str, Array]:
    theta, features, tokens = suffix_task(longest, overlap, chosen_error, rejected_error)
    mask = jnp.arange(1 + longest) <= length  # positions have features of their own: those masked out do not matter
    g_w, g_l = jax.jacrev(response_log_probs)(theta, features, tokens, mask).reshape(2, -1)
    before = response_log_probs(theta, features, tokens, mask)
    after = response_log_probs(theta + step * (g_w - g_l).reshape(theta.shape), features, tokens, mask)
    change_chosen, change_rejected = (after - before) / step
    return {
        "a": g_w @ g_w,
        "b": g_l @ g_l,
        "c": g_w @ g_l,
        "change_chosen": change_chosen,
        "change_rejected": change_rejected,
    }


def n_star_map(setup: Setup, key: Array) -> dict[str, Array]:
    """The threshold n* over the chosen's residual and the overlap, and random lengths tried on either side of it."""
    error, overlap = jnp.linspace(0.01, 0.79, 118), jnp.linspace(0.02, 0.98, 97)
    threshold = _threshold(setup, error[:, None], overlap[None, :])
    keys = jax.random.split(key, 3)
    tried = {
        "tried_error": jax.random.uniform(keys[0], (200,), minval=0.05, maxval=0.75),
        "tried_overlap": jax.random.uniform(keys[1], (200,), minval=0.2, maxval=0.98),
        "tried_length": jax.random.randint(keys[2], (200,), 0, 21),
    }
    stepped = jax.jit(jax.vmap(lambda n, r, e: _suffix_step(20, n, r, e, setup.rejected_error, setup.step**2)))
    change = stepped(tried["tried_length"], tried["tried_overlap"], tried["tried_error"])["change_chosen"]
    return {
        "error": error,
        "overlap": overlap,
        "n_star": threshold,
        **tried,
        "tried_n_star": _threshold(setup, tried["tried_error"], tried["tried_overlap"]),
        "tried_change": change,
    }


def _threshold(setup: Setup, error: Array, overlap: Array) -> Array:
    """n* for residuals of the shape x (1, -1/2, -1/2); infinite where no suffix is long enough."""
    ratio = setup.rejected_error / error
    found = n_star(CONTRAST[0] - CONTRAST[1], 1.5 * error**2, overlap, ratio)
    return jnp.where(overlap * ratio > 1, found, jnp.inf)


def token_cosines(setup: Setup, key: Array) -> dict[str, Array]:
    """Cosines (T, T) of the gradients of every chosen token with every rejected token, four suffix tokens."""
    del key
    theta, features, tokens = suffix_task(4, setup.overlap, setup.chosen_error, setup.rejected_error)
    log_probs = jax.nn.log_softmax(linear_logits(theta, features))
    products = token_gram(log_probs, tokens, jnp.ones_like(tokens, bool), similarity(features))
    norm = jnp.sqrt(jnp.einsum("ntnt->nt", products))
    return {"cosine": products[0, :, 1] / (norm[0][:, None] * norm[1][None])}


def paths(setup: Setup, key: Array) -> dict[str, Array]:
    """kappa, cosine and log-probabilities (losses, steps) along the training of each loss from one starting point."""
    del key
    task = suffix_task(setup.suffix, setup.overlap, setup.chosen_error, setup.rejected_error)
    return _paths(setup.path_steps, jnp.arange(len(PATHS)), *task)


@partial(jax.jit, static_argnums=0)
def _paths(steps: int, which: Array, theta: Array, features: Array, tokens: Array) -> dict[str, Array]:
    return jax.vmap(lambda k: _path(steps, k, theta, features, tokens))(which)


def _path(steps: int, which: Array, theta: Array, features: Array, tokens: Array) -> dict[str, Array]:
    start = response_log_probs(theta, features, tokens)
    length = jnp.asarray(tokens.shape[-1], theta.dtype)

    def loss(pair: PairLogProbs) -> Array:
        return jax.lax.switch(which, list(PATHS.values()), pair)  # one program for all losses

    def pair(theta: Array) -> PairLogProbs:
        now = response_log_probs(theta, features, tokens)
        return PairLogProbs(now[0], now[1], start[0], start[1], length, length)

    def state(theta: Array) -> tuple[Array, Array, Any, Array]:
        products = gradient_products(*jax.jacrev(response_log_probs)(theta, features, tokens).reshape(2, -1))
        now = pair(theta)
        moved = jnp.stack([now.chosen - start[0], now.rejected - start[1]])
        return *margin_weights(loss, now), products, moved

    def objective(theta: Array) -> Array:
        return loss(pair(theta))

    # the same length of the first step for every loss: their constants set very different speeds
    rate = 0.05 / jnp.linalg.norm(jax.grad(objective)(theta))
    d_w, d_l, products, moved = train(objective, theta, steps=steps, learning_rate=rate, record=state).history

    def smooth(weight: Array) -> Array:
        """Mean over a block of steps: a loss with a kink slides along it, its weight jumping at every step."""
        return jnp.concatenate([weight[:1], jnp.mean(weight[1:].reshape(-1, BLOCK), axis=1)])

    return {
        "kappa": kappa(smooth(d_w), smooth(d_l), products.norm_chosen[::BLOCK], products.norm_rejected[::BLOCK]),
        "cosine": products.cosine[::BLOCK],
        "chosen": moved[::BLOCK, 0],
        "rejected": moved[::BLOCK, 1],
    }


# -- how first order fails: the gap against the step -------------------------------------------------------------------


def gaps(setup: Setup, key: Array) -> dict[str, Array]:
    """What a step of size eta loses against first order: log-linear policy with its bound, and a small network."""
    etas = jnp.logspace(-3, 0, 13)
    theta, features, tokens = suffix_task(4, setup.overlap, setup.chosen_error, setup.rejected_error)
    g_w, g_l = jax.jacrev(response_log_probs)(theta, features, tokens)
    direction = g_w - g_l
    push = jnp.einsum("vd,ntd->ntv", direction, features)
    width = jnp.max(push, axis=-1) - jnp.min(push, axis=-1)
    start = response_log_probs(theta, features, tokens)

    def moved(eta: Array) -> Array:
        return response_log_probs(theta + eta * direction, features, tokens) - start

    linear = jax.jit(jax.vmap(moved))(etas)
    slope = jnp.stack([jnp.sum(g_w * direction), jnp.sum(g_l * direction)])

    net = network(3 + 5 + 2 * 4, 3, hidden=64)
    weights, unravel = ravel_pytree(net.init(jax.random.fold_in(key, 0)))
    prompt = jax.random.normal(jax.random.fold_in(key, 1), (3,))
    inputs = token_inputs(jnp.stack([prompt, prompt]), tokens, 3)

    def log_probs(weights: Array) -> Array:
        logits = jax.nn.log_softmax(net.apply(unravel(weights), inputs))
        return sequence_log_prob(logits, tokens, jnp.ones_like(tokens, bool))

    jacobian = jax.jacrev(log_probs)(weights)
    step = jacobian[0] - jacobian[1]
    at_start = log_probs(weights)
    curved = jax.jit(jax.vmap(lambda eta: log_probs(weights + eta * step) - at_start))(etas)
    return {
        "eta": etas,
        "first_order": jnp.outer(etas, slope),
        "exact": linear,
        "linear": jnp.outer(etas, slope) - linear,
        "hoeffding": jnp.outer(etas**2 / 8, jnp.sum(width**2, axis=-1)),
        "network": jnp.abs(jnp.outer(etas, jacobian @ step) - curved),
    }


# -- one tabular token: the flow that the theory solves in closed form -------------------------------------------------


def tabular_flow(setup: Setup, key: Array) -> dict[str, Array]:
    """DPO's gradient flow on one pair of tokens, integrated: log-probabilities (T, 3) and the scaled margin (T,)."""
    del key
    start = jnp.log(jnp.array([0.2, 0.3, 0.5]))
    times = jnp.asarray(log_times(1e4, 25))
    logits = flow(_tabular_descent, start, times, (start, setup.beta), log_time=True)
    return {
        "time": times,
        "log_probs": jax.nn.log_softmax(logits),
        "scaled_margin": setup.beta * ((logits[:, 0] - logits[:, 1]) - (start[0] - start[1])),
    }


def _tabular_loss(logits: Array, start: Array, beta: Any) -> Array:
    return tables.pair_loss(partial(losses.dpo, beta=beta), logits, start, 0, 1)


_tabular_descent = descent(_tabular_loss)


STAGES: dict[str, Callable[..., Any]] = {
    "phase diagram": phase,
    "followed runs": follow,
    **{
        name: jax.jit(stage, static_argnums=0)
        for name, stage in {
            "suffix lengths": suffix_lengths,
            "n* map": n_star_map,
            "token cosines": token_cosines,
            "paths of the losses": paths,
            "gap to first order": gaps,
            "tabular flow": tabular_flow,
            "sentiment task": sentiment,
        }.items()
    },
}
