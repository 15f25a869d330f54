"""What is simulated: each stage a pure function of the setup and a key, compiled as a whole."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.preference_rankings.setup import Setup
from sandbox import losses, rankings
from sandbox.algebra import log_softmax
from sandbox.dynamics import descent, flow, log_times, train
from sandbox.losses import PairLogProbs
from sandbox.measures import log_kl
from theory.preference_rankings.optima import vote_of_the_script
from theory.preference_rankings.winning import on_policy_force, pair_loss, scores

# -- one pair in a table of three logits: when does its ranking flip? --------------------------------------------------

ERRORS = (1.0, 4.0, 16.0)  # reference errors c, nats
SCALES = np.linspace(0.25, 8, 32)  # beta c
GAMMAS = (0.0, 0.5, 1.0, 2.0)
LAST = 60.0  # end of a run, in units of c^2: beyond every flip of the map
IPO_ERROR = 4.0  # reference error of the pairs under IPO, nats


def table_log_odds(z: Array) -> Array:
    """Log-odds m of responses 0 and 1 of a table of logits."""
    return z[0] - z[1]


def table_pair(z: Array, error: Any, gamma: Any) -> PairLogProbs:
    """The pair against gamma times its reference, which is wrong by ``error`` nats."""
    now, before = log_softmax(z), log_softmax(reference(error))
    return PairLogProbs(now[0], now[1], gamma * before[0], gamma * before[1])


def reference(error: Any) -> Array:
    """Logits of the reference: chosen, rejected, and a third response."""
    return jnp.stack([jnp.zeros_like(error), error, jnp.ones_like(error)])


def _dpo(z: Array, error: Any, beta: Any, gamma: Any) -> Array:
    return losses.dpo(table_pair(z, error, gamma), beta=beta)


def _ipo(z: Array, error: Any, tau: Any, gamma: Any) -> Array:
    return losses.ipo(table_pair(z, error, gamma), tau=tau)


_of_dpo, _of_ipo = descent(_dpo), descent(_ipo)


def log_odds_over_time(field: Any, times: Array, error: Array, strength: Array, gamma: Array) -> Array:
    """Log-odds (n, T) of n pairs at times (n, T) along gradient flow from the reference; the rest (n,)."""

    def of(times: Array, *args: Array) -> Array:
        return jax.vmap(table_log_odds)(flow(field, reference(args[0]), times, args, substeps=8))

    return jax.vmap(of)(times, error, strength, gamma)


def crossing(times: Array, m: Array) -> Array:
    """The time at which m, rising, crosses 0: inverse cubic interpolation of log(1 + t) in m; NaN if it does not."""
    after = jnp.clip(jnp.argmax(m > 0), 2, m.size - 2)
    near = after + jnp.arange(-2, 2)
    x, y = m[near], jnp.log1p(times[near])
    gaps = x[:, None] - x[None, :] + jnp.eye(4)
    weights = jnp.prod(jnp.where(jnp.eye(4, dtype=bool), 1, -x[None, :] / gaps), axis=1)
    return jnp.where(m[-1] > 0, jnp.expm1(weights @ y), jnp.nan)


@partial(jax.jit, static_argnums=0)
def single_pairs(setup: Setup, key: Array) -> dict[str, Array]:
    """Pairs of every error and beta on the map, of DPO at every gamma, and IPO: log-odds over time, flip times."""
    del key
    error, scale = _grid(ERRORS, SCALES)
    gamma, gamma_scale = _grid(GAMMAS, (0.5, 1, 2, 3))
    part = jnp.linspace(0.05, 1.5, 30)  # 2 tau c; from 1 on IPO never flips
    four = jnp.full_like(gamma, 4.0)
    errors, scales = jnp.concatenate([error, four]), jnp.concatenate([scale, gamma_scale])
    clock = jnp.asarray(log_times(LAST, setup.clock_points), scales.dtype)
    times = errors[:, None] ** 2 * clock[None, :]
    gammas = jnp.concatenate([jnp.ones_like(error), gamma])
    m = log_odds_over_time(_of_dpo, times, errors, scales / errors, gammas)
    ipo_times = jnp.broadcast_to(jnp.linspace(0, 2, setup.clock_points), (part.size, setup.clock_points))
    ipo = log_odds_over_time(
        _of_ipo, ipo_times, jnp.full_like(part, IPO_ERROR), part / (2 * IPO_ERROR), jnp.ones_like(part)
    )
    flips = jax.vmap(crossing)(times, m)
    plain = error.size
    return {
        "error": error,
        "beta": scale / error,
        "time": times[:plain],
        "log_odds": m[:plain],
        "flip": flips[:plain],
        "gamma": gamma,
        "gamma_scale": gamma_scale,
        "gamma_flip": flips[plain:],
        "ipo_part": part,
        "ipo_flip": jax.vmap(crossing)(ipo_times, ipo),
    }


def _grid(rows: Any, columns: Any) -> tuple[Array, Array]:
    """All combinations, as two arrays."""
    a, b = np.meshgrid(rows, columns, indexing="ij")
    return jnp.asarray(a.ravel(), jnp.result_type(float)), jnp.asarray(b.ravel(), jnp.result_type(float))


# -- many pairs on prompts of their own: accuracy against loss ---------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def own_prompts(setup: Setup, key: Array) -> dict[str, Array]:
    """Gradient flow of each pair in a table of its own: mean loss and ranking accuracy over time."""
    errors = setup.offset + setup.spread * jax.random.normal(key, (setup.prompts,))
    times = jnp.asarray(log_times(60 / setup.beta**2, 60), errors.dtype)
    same = jnp.broadcast_to(times, (setup.prompts, times.size))
    m = log_odds_over_time(_of_dpo, same, errors, jnp.full_like(errors, setup.beta), jnp.ones_like(errors))
    loss = losses.dpo(PairLogProbs(m, 0 * m, -errors[:, None], 0 * m), beta=setup.beta)
    accuracy = jnp.mean(rankings.ranked_right(m), axis=0)
    return {"error": errors, "time": times, "loss": jnp.mean(loss, axis=0), "accuracy": accuracy}


# -- pairs that share parameters ---------------------------------------------------------------------------------------

TIED = (200, 20)  # pairs, parameters
MIXES = (1.0, 0.5, 0.0)  # gamma: how much of the reference the loss sees


def tied_pairs() -> tuple[Array, Array]:
    """Features X (200, 20) of the log-odds m = X theta - c, and the reference errors c (200,)."""
    i, j = np.arange(TIED[0])[:, None], np.arange(TIED[1])[None, :]
    features = np.cos(1.1 * i * (j + 1) + 0.3 * j**2)
    features *= np.sign(features @ np.cos(np.arange(TIED[1])))[:, None]
    features[::7] *= -1  # every seventh pair is labelled against the rest
    return jnp.asarray(features), jnp.asarray(20 * np.sin(0.7 * np.arange(TIED[0]) ** 2 + 0.1) + 4)


def _tied_pair(theta: Array, features: Array, errors: Array, beta: Any, gamma: Any) -> PairLogProbs:
    return PairLogProbs(features @ theta - errors, 0 * errors, -gamma * errors, 0 * errors)


def _tied_loss(theta: Array, features: Array, errors: Array, beta: Any, gamma: Any) -> Array:
    return jnp.mean(losses.dpo(_tied_pair(theta, features, errors, beta, gamma), beta=beta))


def _tied_record(theta: Array, features: Array, errors: Array, beta: Any, gamma: Any) -> dict[str, Array]:
    pairs = _tied_pair(theta, features, errors, beta, gamma)
    before = rankings.ranked_right(-errors)
    m = rankings.log_odds(pairs)
    now = rankings.ranked_right(m)
    return {
        "loss": losses.dpo(pairs, beta=beta),
        "log_odds": m,
        "accuracy": rankings.ranking_accuracy(pairs),
        "reward_accuracy": rankings.reward_accuracy(pairs._replace(ref_chosen=-errors)),
        "flipped": jnp.sum(now * (1 - before)) / jnp.sum(1 - before),
        "unlearned": jnp.sum((1 - now) * before) / jnp.sum(before),
    }


@partial(jax.jit, static_argnums=0)
def shared_parameters(setup: Setup, key: Array) -> dict[str, Array]:
    """Full-batch descent on 200 pairs of 20 shared parameters, for each gamma."""
    del key
    features, errors = tied_pairs()

    def run(gamma: Array) -> dict[str, Array]:
        start = jnp.zeros(TIED[1], features.dtype)
        args = features, errors, setup.beta, gamma
        return train(
            _tied_loss, start, args, steps=setup.steps, learning_rate=setup.learning_rate, record=_tied_record,
            every=setup.every,
        ).history  # fmt: skip

    found = jax.vmap(run)(jnp.array(MIXES))
    return {"error": errors, "step": jnp.arange(0, setup.steps + 1, setup.every), **found}


# -- what an optimum would rank: the truth, the formula as printed, and the script -------------------------------------

BETAS = np.geomspace(0.01, 10, 61)
MARKED = (0.01, 0.1, 1, 5, 10)  # the betas of the paper's range
TIE = 0.05  # the script calls ratios within 5 % of 1 a tie, and ties wrong
SHARES = np.linspace(0.5, 0.975, 20)


def sequences(setup: Setup, key: Array) -> dict[str, Array]:
    """Synthetic responses: lengths of some 60 tokens, about 1 nat a token, three or four of four raters agree."""
    keys = jax.random.split(key, 5)
    n = setup.sequences

    def length(key: Array, shift: float) -> Array:
        return jnp.maximum(5, jnp.round(jnp.exp(jnp.log(60.0) + shift + 0.6 * jax.random.normal(key, (n,)))))

    def per_token(key: Array, mean: float) -> Array:
        return jnp.maximum(0.2, mean + 0.25 * jax.random.normal(key, (n,)))

    n_l, n_w = length(keys[0], 0.0), length(keys[1], 0.1)
    chosen, rejected = -n_w * per_token(keys[2], 1.0), -n_l * per_token(keys[3], 1.03)
    alpha = jnp.where(jax.random.uniform(keys[4], (n,)) < 0.6, 0.75, 1 - setup.unanimous)
    return {"chosen": chosen, "rejected": rejected, "n_w": n_w, "n_l": n_l, "alpha": alpha}


def ideal_accuracies(pairs: dict[str, Array], beta: Any) -> dict[str, Array]:
    """Idealised accuracy of the optimum, as printed with length normalisation, and as the released script has it.

    The script, read from its code: odds of the raters^(1/beta) times (log p_w / log p_l), right if above 1.05.
    """
    tilt = rankings.logit(pairs["alpha"]) / beta
    error = pairs["rejected"] - pairs["chosen"]
    printed = pairs["chosen"] / pairs["n_w"] - pairs["rejected"] / pairs["n_l"] + tilt
    script = tilt + vote_of_the_script(pairs["chosen"], pairs["rejected"])
    return {
        "true": jnp.mean(rankings.ideal_log_odds(error, pairs["alpha"], beta=beta) > 0),
        "printed": jnp.mean(printed > 0),
        "script": jnp.mean(script > jnp.log1p(TIE)),
    }


@partial(jax.jit, static_argnums=0)
def optima(setup: Setup, key: Array) -> dict[str, Array]:
    """Idealised accuracies over beta; log-odds that soft-labelled DPO reaches; agreement of four raters."""
    pairs_key, raters_key = jax.random.split(key)
    pairs = sequences(setup, pairs_key)
    curves, marked = (jax.vmap(partial(ideal_accuracies, pairs))(jnp.array(b)) for b in (BETAS, MARKED))
    whole = PairLogProbs(pairs["chosen"], pairs["rejected"], None, None, pairs["n_w"], pairs["n_l"])
    shares = jnp.array(SHARES)
    votes = jax.random.binomial(raters_key, 4, shares, (setup.sequences, shares.size))
    share, betas = _grid((0.6, 0.75, 0.9), (0.1, 1))
    return {
        "beta": jnp.array(BETAS),
        **curves,
        **{f"marked_{name}": x for name, x in marked.items()},
        "reference": rankings.ranking_accuracy(whole),
        "reference_per_token": rankings.ranking_accuracy(whole, "mean"),
        "trained_alpha": share,
        "trained_beta": betas,
        "trained_log_odds": jax.vmap(_trained)(share, betas),
        "share": shares,
        "agreement": jnp.sum(votes > 2, axis=0) / jnp.sum(votes != 2, axis=0),
        "counted": jnp.sum(votes != 2, axis=0),
    }


TRAINED_ERROR = 3.0  # reference error of the pair that is trained to its optimum, nats


def _trained(alpha: Array, beta: Array) -> Array:
    """Log-odds after 500 steps of soft-labelled DPO in a table; 2 / beta^2 is the inverse of the largest curvature."""

    def loss(z: Array, alpha: Any, beta: Any) -> Array:
        return losses.cdpo(table_pair(z, TRAINED_ERROR, 1.0), beta=beta, epsilon=1 - alpha)

    start = reference(jnp.asarray(TRAINED_ERROR, alpha.dtype))
    return table_log_odds(train(loss, start, (alpha, beta), steps=500, learning_rate=2 / beta**2).params)


# -- ranking against win rate ------------------------------------------------------------------------------------------

W6 = {  # six responses: the reference, true rewards, and the proxy that the policy is tilted by; the last is a hack
    "ref": (0.30, 0.25, 0.20, 0.12, 0.08, 0.05),
    "gold": (0.2, -0.5, 1, 0.6, 1.5, -2),
    "proxy": (0, -1, 1, 0.8, 1.4, 2),
}
THREE = {"ref": (0.05, 0.55, 0.40), "reward": (1.2, 1, -1)}  # both good, the better one rarer


@partial(jax.jit, static_argnums=0)
def tilted(setup: Setup, key: Array) -> dict[str, Array]:
    """The path ref e^(t proxy) in the world of six: win rate, accuracy on pairs of the proxy's order and the gold's."""
    del key
    ref, gold, proxy = (jnp.array(W6[name]) for name in ("ref", "gold", "proxy"))
    times = jnp.linspace(0, setup.tilt, 351)
    v = scores(ref, gold)
    log_probs = log_softmax(jnp.log(ref)[None, :] + times[:, None] * proxy[None, :])
    first, second = jnp.triu_indices(6, 1)

    def right(order: Array) -> Array:
        up = jnp.where(order[first] > order[second], first, second)
        down = first + second - up
        return rankings.ranked_right(log_probs[:, up] - log_probs[:, down])

    return {
        "time": times,
        "log_probs": log_probs,
        "win_rate": jnp.exp(log_probs) @ v,
        "right": right(proxy),
        "accuracy": jnp.mean(right(proxy), axis=1),
        "accuracy_gold": jnp.mean(right(gold), axis=1),
        "kl": log_kl(log_probs, jnp.log(ref)[None, :]),
        "scores": v,
    }


@partial(jax.jit, static_argnums=0)
def off_policy(setup: Setup, key: Array) -> dict[str, Array]:
    """DPO on one pair in the world of three, and on pairs of the reference's own: log-odds and win rate over time."""
    del key
    ref, reward = jnp.array(THREE["ref"]), jnp.array(THREE["reward"])
    v = scores(ref, reward)
    beta = 1.0  # a unit: time is measured in 1 / beta^2
    times = jnp.asarray(log_times(400, 200))
    path = flow(_of_pair, jnp.log(ref), times, (ref, beta), substeps=8)
    return {
        "time": times,
        "shift": (path[:, 0] - path[:, 1] - jnp.log(ref[0] / ref[1])) / 2,
        "log_odds": path[:, 0] - path[:, 1],
        "win_rate": jax.nn.softmax(path) @ v,
        "scores": v,
    }


_of_pair = descent(lambda z, ref, beta: pair_loss(z, ref, 0, 1, beta))


@partial(jax.jit, static_argnums=0)
def first_moves(setup: Setup, key: Array) -> dict[str, Array]:
    """Random worlds of six responses: how DPO first moves the win rate, on one pair and on pairs of its own."""
    keys = jax.random.split(key, 2)
    ref = jax.random.dirichlet(keys[0], jnp.ones(6), (setup.worlds,))
    reward = 1.5 * jax.random.normal(keys[1], (setup.worlds, 6))
    beta = 1.0

    def of(ref: Array, reward: Array) -> dict[str, Array]:
        order = jnp.argsort(-reward[:2])  # of the first two responses the better one is the chosen
        v = scores(ref, reward)
        z = jnp.log(ref)

        def on_policy(z: Array) -> Array:
            now = log_softmax(z)
            difference = now[:, None] - now[None, :] - (jnp.log(ref)[:, None] - jnp.log(ref)[None, :])
            wins = jax.nn.sigmoid(reward[:, None] - reward[None, :])
            pairs = PairLogProbs(difference, 0 * difference, 0 * difference, 0 * difference)
            return jnp.sum(2 * ref[:, None] * ref[None, :] * wins * losses.dpo(pairs, beta=beta))

        def moved(loss: Any) -> Array:
            step = -jax.grad(loss)(z)
            return jax.jvp(lambda z: jax.nn.softmax(z) @ v, (z,), (step,))[1]

        return {
            "w": order[0],
            "l": order[1],
            "v": v,
            "one_pair": moved(lambda z: pair_loss(z, ref, order[0], order[1], beta)),
            "own_pairs": moved(on_policy),
            "force": -jax.grad(on_policy)(z),
            "predicted_force": on_policy_force(ref, v - 1 / 2, beta),
        }

    return {"ref": ref, "reward": reward, **jax.vmap(of)(ref, reward)}


STAGES = {
    "single pairs": single_pairs,
    "own prompts": own_prompts,
    "shared parameters": shared_parameters,
    "optima": optima,
    "tilted": tilted,
    "off policy": off_policy,
    "first moves": first_moves,
}
