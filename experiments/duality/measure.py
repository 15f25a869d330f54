"""What is simulated on tables: each stage a pure function of the setup and a key, compiled as a whole."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy.special import gammaln

from experiments.duality.setup import Setup
from sandbox import utility
from sandbox.dynamics import flow, log_times, train
from theory.duality.inversion import residual_of
from theory.duality.training import gap_of_two_leaders

END, GOLD = 0, 1
RANKS = np.arange(2, 11)  # of the end token, one sentence each
WIDTHS = np.arange(1, 13)
STEPS = np.unique(np.round(np.geomspace(1, 128, 29)).astype(int))  # of the phase diagram
BETAS = np.geomspace(0.5, 12, 64)  # temperatures tried, as factors of the utilities


def nothing(law: Any) -> Array:
    """Utilities of a uniform start."""
    return jnp.zeros(np.shape(law), jnp.result_type(float))


def downhill(u: Array, q: Array) -> Array:
    """The gradient of the full-batch loss in a table, contexts on the first axes."""
    return jax.nn.softmax(u) - q


def path(q: Array, steps: int, eta: float = 1.0) -> Array:
    """Utilities (steps + 1, ..., V) of a table trained on laws q (..., V) from a uniform start."""
    return train(
        None, nothing(q), (q,), gradient=downhill, steps=steps, learning_rate=eta, record=lambda u, q: u
    ).history


def inverted_path(u: Array, eta: float = 1.0) -> Array:
    """Inverted laws (steps, ..., V) after 1, 2, ... steps, from utilities (steps + 1, ..., V)."""
    count = jnp.arange(1, u.shape[0], dtype=u.dtype).reshape(-1, *(1,) * (u.ndim - 1))
    mean_probs = jnp.cumsum(jax.nn.softmax(u[:-1]), axis=0) / count
    return utility.inverted(mean_probs, u[:1], u[1:], eta * count)


def flat_dirichlet(key: Array, shape: tuple[int, ...]) -> Array:
    """Laws on the last axis, uniform on the simplex: normalised exponential draws."""
    raw = jax.random.exponential(key, shape) + 1e-9  # none of them 0
    return raw / jnp.sum(raw, axis=-1, keepdims=True)


def divergence(q: Array, p: Array) -> Array:
    """KL(q || p) over the last axis, nats, of positive laws."""
    return jnp.sum(q * (jnp.log(q) - jnp.log(p)), axis=-1)


# -- toy A: sentences with an end token --------------------------------------------------------------------------------


def sentence_laws() -> np.ndarray:
    """The laws (9, 10) of nine sentences: gold 0.82, then ranks falling by 0.8, of which the end takes 2 to 10."""
    shares = 0.18 * 0.8 ** np.arange(9) / np.sum(0.8 ** np.arange(9))  # ranks 2 to 10
    laws = []
    for rank in RANKS:
        words = np.delete(shares, rank - 2)
        laws.append([shares[rank - 2], 0.82, *words])
    return np.array(laws)


def cut(log_probs: Array, length: Any, longest: int) -> Array:
    """The same law (V,) at ``length`` positions of (longest, V); after them the sentence ends for nothing."""
    over = jnp.where(jnp.arange(log_probs.size) == END, 0, -jnp.inf)
    return jnp.where(jnp.arange(longest)[:, None] < length, log_probs[None, :], over[None, :])


def quality(tokens: Array, length: Any) -> Array:
    """Share of gold tokens among ``length`` positions."""
    return jnp.sum(tokens == GOLD, axis=-1) / length


def sentences(setup: Setup, key: Array) -> dict[str, Array]:
    """Toy A: sampling, exact mode, beams and critical lengths at every step; and a check of sampling by drawing."""
    q = jnp.asarray(sentence_laws(), jnp.result_type(float))
    u = path(q, 128)
    laws = jnp.concatenate([jax.nn.softmax(u), q[None]])  # (130, 9, 10), the last is the data's
    inverse = inverted_path(u)

    def sampled(law: Array) -> Array:
        return utility.sampling_quality(law[..., GOLD], law[..., END], setup.length)

    tempered = jax.nn.softmax(jnp.asarray(BETAS, u.dtype)[:, None, None, None] * u[None])
    fit = jnp.mean(divergence(q[None, None], tempered), axis=-1)  # (betas, steps)
    best = jnp.argmin(fit, axis=0)
    at_best = tempered[best, jnp.arange(u.shape[0])]

    modes = jax.vmap(jax.vmap(lambda law: utility.exact_mode(jnp.broadcast_to(jnp.log(law), (setup.length, 10)))))(laws)

    def beams(law: Array) -> Array:
        table = jnp.broadcast_to(jnp.log(law), (setup.length, 10))
        found = jax.vmap(lambda width: utility.beam_search(table, width, most=12))(jnp.asarray(WIDTHS))
        return quality(found.tokens, setup.length)

    at = jnp.array([4, 8, -1])
    lengths = jnp.arange(1, setup.longest + 1)
    chosen = jnp.concatenate([laws[jnp.asarray(STEPS)], laws[-1:]])
    grid = jax.vmap(
        lambda law: jax.vmap(lambda n: utility.exact_mode(cut(jnp.log(law), n, setup.longest)).length)(lengths)
    )
    keys = jax.random.split(key, 1000)
    table = jnp.broadcast_to(jnp.log(laws[4, -1]), (setup.length, 10))
    drawn = jax.vmap(utility.sample, in_axes=(0, None))(keys, table)
    return {
        "laws": laws,
        "inverse": inverse,
        "sampling": sampled(laws),
        "sampling_inverse": sampled(inverse),
        "sampling_tempered": sampled(at_best),
        "beta": jnp.asarray(BETAS, u.dtype)[best],
        "mode": quality(modes.tokens, setup.length),
        "mode_length": modes.length,
        "kl": divergence(q[None], laws),
        "critical": utility.critical_length(laws[..., GOLD], laws[..., END]),
        "halved": utility.critical_length(*(jax.nn.softmax(jnp.log(q) / 2)[:, k] for k in (GOLD, END))),
        "beam": jax.vmap(jax.vmap(beams))(laws[at]),  # (3, 9, 12)
        "rank": jnp.sum(laws[at] >= laws[at][..., :1], axis=-1),
        "phase": grid(chosen[:, -1]),  # (steps + 1, lengths), of the sentence whose end has rank 10
        "drawn": quality(drawn.tokens, setup.length),
    }


# -- toy B: expected payoffs -------------------------------------------------------------------------------------------

DECIDED = np.array([1, 2, 4, 8, 16, 32])  # steps


def payoffs(setup: Setup, key: Array) -> dict[str, Array]:
    """Toy B: regret of the best action under softmax, under each temperature, and under the inverted law."""
    keys = jax.random.split(key)
    q = flat_dirichlet(keys[0], (setup.tasks, 6))
    payoff = jax.random.normal(keys[1], (setup.tasks, 10, 6))
    true = jax.vmap(utility.expected_payoffs)(q, payoff)

    def decide(law: Array) -> tuple[Array, Array]:
        choice = jnp.argmax(jax.vmap(utility.expected_payoffs)(law, payoff), axis=-1)
        return jnp.max(true, axis=-1) - jnp.take_along_axis(true, choice[:, None], axis=1)[:, 0], choice

    u = path(q, 32)
    best = jnp.argmax(true, axis=-1)

    def at(step: Array) -> tuple[Array, Array, Array, Array]:
        regrets = lax.map(lambda beta: jnp.mean(decide(jax.nn.softmax(beta * u[step]))[0]), jnp.asarray(BETAS, u.dtype))
        regret, choice = decide(jax.nn.softmax(u[step]))
        tempered, _ = decide(jax.nn.softmax(jnp.asarray(BETAS, u.dtype)[jnp.argmin(regrets)] * u[step]))
        return jnp.stack([regret, tempered]), jnp.mean(choice != best), jnp.argmin(regrets), step

    both, wrong, which, _ = lax.map(at, jnp.asarray(DECIDED))
    one_hot = jax.nn.one_hot(jnp.argmax(q, axis=-1), 6, dtype=q.dtype)
    others = jnp.stack([decide(law)[0] for law in (inverted_path(u)[3], jnp.full_like(q, 1 / 6), one_hot)])
    return {
        "regret": jnp.mean(both, axis=-1),
        "error": jnp.std(both, axis=-1, ddof=1) / jnp.sqrt(setup.tasks),
        "beta": jnp.asarray(BETAS, u.dtype)[which],
        "wrong": wrong,
        "others": jnp.mean(others, axis=-1),  # inverted, uniform, one-hot
        "others_error": jnp.std(others, axis=-1, ddof=1) / jnp.sqrt(setup.tasks),
        "largest_inverted": jnp.max(jnp.abs(inverted_path(u)[3] - q)),
    }


# -- toy C: small samples ----------------------------------------------------------------------------------------------

SMALL_LAW = np.array([0.5, 0.25, 0.15, 0.1])
STOPS = np.unique(np.round(np.geomspace(1, 32, 13)).astype(int))
LARGE = (80, 320)


def counts_of(n: int) -> np.ndarray:
    """All counts (rows, 4) that n draws of four outputs may have."""
    a, b, c = (x.ravel() for x in np.indices((n + 1,) * 3))
    inside = a + b + c <= n
    return np.stack([a, b, c, n - a - b - c], axis=1)[inside]


def small_samples(setup: Setup, key: Array) -> dict[str, Array]:
    """Toy C: mean squared error of softmax(u_T) and of the raw frequency, exact up to ``samples`` draws."""
    sizes = sample_sizes(setup)
    blocks = [counts_of(n) for n in sizes]
    counts, n = np.concatenate(blocks), np.repeat(sizes, [len(b) for b in blocks])
    chance = np.exp(gammaln(n + 1) - gammaln(counts + 1).sum(axis=1) + counts @ np.log(SMALL_LAW))
    law = jnp.asarray(SMALL_LAW, jnp.result_type(float))
    group = np.repeat(np.arange(len(sizes)), [len(b) for b in blocks])
    # behind a barrier, or the compiler would do the work, slowly
    share, weight, group = lax.optimization_barrier(
        (jnp.asarray(counts / n[:, None], law.dtype), jnp.asarray(chance, law.dtype), jnp.asarray(group))
    )

    def errors(q: Array) -> tuple[Array, Array]:
        u = nothing(q)

        def once(u: Array, _: None) -> tuple[Array, Array]:
            u = utility.step(u, q, 1)
            return u, jnp.sum((jax.nn.softmax(u) - law) ** 2)

        return lax.scan(once, u, None, length=32)[1], jnp.sum((q - law) ** 2)

    trained, raw = jax.vmap(errors)(share)

    def mean(x: Array) -> Array:
        return jax.ops.segment_sum(weight.reshape(-1, *(1,) * (x.ndim - 1)) * x, group, len(sizes))

    found = {"trained": mean(trained), "raw": mean(raw), "total": mean(jnp.ones_like(raw))}
    for size, k in zip(LARGE, jax.random.split(key, len(LARGE)), strict=True):
        drawn = jax.random.choice(k, 4, (setup.replicas, size), p=law)
        frequency = jnp.mean(jax.nn.one_hot(drawn, 4, dtype=law.dtype), axis=1)
        trained, raw = jax.vmap(errors)(frequency)
        found |= {f"trained_{size}": jnp.mean(trained, axis=0), f"raw_{size}": jnp.mean(raw)}
        found[f"error_{size}"] = jnp.std(raw, ddof=1) / jnp.sqrt(setup.replicas)
    return found


def sample_sizes(setup: Setup) -> list[int]:
    """Numbers of draws that are enumerated."""
    return [n for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 40, 45, 50) if n <= setup.samples]


# -- the link over time ------------------------------------------------------------------------------------------------

FOUR = np.array([0.5, 0.3, 0.15, 0.05])
MARKED = (0.2, 0.8, 2.0, 20.0)  # times h that are looked at
SPREAD = np.array([0.28, 0.2, 0.15, 0.11, 0.08, 0.06, 0.045, 0.03, 0.02, 0.015, 0.007, 0.003])
LINKS = (utility.linear_link, utility.corrected_link, lambda u, h: jax.nn.softmax(u))


def links(setup: Setup, key: Array) -> dict[str, Array]:
    """Gradient flow from uniform utilities towards a law of four outputs and one of twelve; what each link reads."""
    del setup, key
    h = jnp.concatenate([jnp.asarray(np.concatenate([[0], np.geomspace(1e-3, 1e-1, 9)])), jnp.asarray(MARKED)])
    found: dict[str, Array] = {"h": h[1:]}
    for name, law in (("four", FOUR), ("twelve", SPREAD)):
        q = jnp.asarray(law, h.dtype)
        u = flow(residual_of, nothing(q), h, (q,), substeps=64)[1:]
        found[f"{name}_u"] = u
        read = jnp.stack([jax.vmap(link)(u, h[1:]) for link in LINKS])  # (links, times, outputs)
        found[f"{name}_read"], found[f"{name}_error"] = read, jnp.max(jnp.abs(read - q[None, None]), axis=-1)
    times = jnp.asarray(log_times(200, 60))
    pair = jnp.array([0.7, 0.3])
    found["time"] = times
    found["gap"] = (two := flow(residual_of, nothing(pair), times, (pair,), substeps=32))[:, 0] - two[:, 1]
    certain = jnp.array([1.0, 0.0])
    found["certain"] = (one := flow(residual_of, nothing(pair), times, (certain,), substeps=32))[:, 0] - one[:, 1]
    return found


# -- order: at which step size is it lost? -----------------------------------------------------------------------------

ETAS = np.array([1, 1.5, 2, 2.1, 2.25, 2.5, 3, 3.5, 4, 4.05, 4.2, 4.5, 5, 6, 8])
OTHERS = np.geomspace(1e1, 1e9, 400)  # outputs beside two leaders


def tables(key: Array, count: int, most: int = 6) -> tuple[Array, Array, Array]:
    """Laws (count, 6) of 2 to 6 outputs, utilities in their order, and which outputs there are."""
    keys = jax.random.split(key, 4)
    present = jnp.arange(most)[None, :] < jax.random.randint(keys[0], (count, 1), 2, most + 1)
    power = jnp.exp(jax.random.uniform(keys[3], (count, 1), minval=-1.5, maxval=1.0))  # from nearly even to one-sided
    raw = jnp.where(present, jax.random.exponential(keys[1], (count, most)) ** power + 1e-6, 0)
    q = raw / jnp.sum(raw, axis=1, keepdims=True)
    rank = jnp.sum(q[:, :, None] > q[:, None, :], axis=2)
    rising = jnp.cumsum(jax.random.exponential(keys[2], (count, most)), axis=1)
    start = jnp.take_along_axis(rising, rank, axis=1)
    return q, jnp.where(present, start, -1e4), present


def worst_of_run(q: Array, start: Array, present: Array, eta: Array, steps: int) -> tuple[Array, Array]:
    """Of a run: the smallest (u_a - u_b) / (eta (q_a - q_b)) over pairs and steps; did the loss ever rise?"""
    pairs = present[:, None] & present[None, :] & (q[:, None] - q[None, :] > 1e-3)
    lead = jnp.where(pairs, q[:, None] - q[None, :], 1)

    def once(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        u, worst, rose = carry
        after = utility.step(u, q, eta)
        gap = jnp.where(pairs, (after[:, None] - after[None, :]) / (eta * lead), jnp.inf)
        up = utility.loss(after, q) - utility.loss(u, q) > 1e-9 if q.dtype == jnp.float64 else jnp.asarray(False)
        return (after, jnp.minimum(worst, jnp.min(gap)), rose | up), None

    (_, worst, rose), _ = lax.scan(once, (start, jnp.asarray(jnp.inf, q.dtype), jnp.asarray(False)), None, length=steps)
    return worst, rose


def order(setup: Setup, key: Array) -> dict[str, Array]:
    """Shares of runs that lose an order, for both kinds of start; the search at step size 4; two leaders among many."""
    keys = jax.random.split(key)
    q, start, present = tables(keys[0], setup.instances)
    uniform = jnp.where(present, 0, -1e4).astype(q.dtype)

    def at(eta: Array, begin: Array) -> tuple[Array, Array]:
        worst, rose = jax.vmap(worst_of_run, in_axes=(0, 0, 0, None, None))(q, begin, present, eta, setup.follow)
        return jnp.mean(worst <= 0), jnp.mean(rose)

    etas = jnp.asarray(ETAS, q.dtype)
    both = lax.map(lambda eta: jax.tree.map(lambda *x: jnp.stack(x), at(eta, start), at(eta, uniform)), etas)
    q, _, present = tables(keys[1], setup.search)
    begin = jnp.where(present, 0, -1e4).astype(q.dtype)
    worst, _ = jax.vmap(worst_of_run, in_axes=(0, 0, 0, None, None))(q, begin, present, jnp.asarray(4.0, q.dtype), 60)
    lead = jnp.asarray(1e-4, q.dtype)

    def leaders(others: Array) -> Array:
        gaps = jax.vmap(lambda n: gap_of_two_leaders(lead, others, 4.0, n))(jnp.arange(1, 15))
        return jnp.min(gaps) / (4 * lead)

    return {
        "lost": both[0],  # (etas, [consistent, uniform])
        "rose": both[1],
        "searched": jnp.min(worst),
        "leaders": lax.map(leaders, jnp.asarray(OTHERS, q.dtype)),
    }
