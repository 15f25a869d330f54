"""What is simulated: each stage a pure function of the setup and a key, compiled as a whole."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.multiplicity import real
from experiments.multiplicity.setup import Setup
from sandbox import multiplicity as m

# -- groups of their own: a saturated model, solved exactly ------------------------------------------------------------

CONFLICTS = (0.05, 0.1, 0.2)  # thresholds delta, of a risk
EPSILONS = np.geomspace(3e-4, 3e-2, 9)  # of the map of who pays, nats


def shares_of(setup: Setup) -> np.ndarray:
    """Shares of the smaller of two groups."""
    return np.geomspace(0.01, 0.5, setup.shares)


def groups(setup: Setup, key: Array) -> dict[str, Array]:
    """Ranges of the smaller of two groups with an indicator each, by the solver, for every share and every epsilon."""
    del key
    rates = jnp.array([setup.group_rate, 0.5])

    def solved(share: Array) -> tuple[Array, Array, Array]:
        weight = jnp.stack([share, 1 - share])
        baseline = m.fit(jnp.eye(2), rates, weight)
        found = jax.lax.map(lambda e: m.ranges(baseline, e), jnp.append(EPSILONS, setup.group_epsilon))
        return jax.nn.sigmoid(found.low[:, 0]), jax.nn.sigmoid(found.high[:, 0]), baseline.risk[0]

    low, high, risk = jax.lax.map(solved, jnp.asarray(shares_of(setup)))
    return {"low": low, "high": high, "risk": risk}


# -- studies on synthetic people: outliers, separation, a minority with shared slopes ----------------------------------

PLACES = (1.0, 2.0, 4.0, 8.0)  # where the one outlier is put, in standard deviations
DISTANCES = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # of two Gaussian classes, in their standard deviations
MINORITIES = (0.2, 0.1, 0.05, 0.025)  # shares


def people(setup: Setup, key: Array) -> tuple[Array, Array, Array, Array]:
    """Problems of all studies for one seed: x (B, n, 3), y (B, n), epsilon in nats (B,), or 0 for a share of the loss.

    Last, the person or people that the study is about: marked (B, n).
    """
    n = setup.people
    normal, coin = jax.random.split(key)
    z, u = jax.random.normal(normal, (n, 2)), jax.random.uniform(coin, (n,))
    one, rank = jnp.ones(n), jnp.arange(n)
    labelled = (u < jax.nn.sigmoid(z[:, 0] + 0.5 * z[:, 1])).astype(z.dtype)
    x, y, epsilon, marked = [], [], [], []
    for place in PLACES:
        x.append(jnp.stack([one, z[:, 0], z[:, 1].at[0].set(place)], axis=1))
        y.append(labelled)
        epsilon.append(0.0)
        marked.append(rank == 0)
    side = (rank % 2).astype(z.dtype)
    for level in (setup.absolute, 0.0):
        for distance in DISTANCES:
            x.append(jnp.stack([one, z[:, 0] + distance * (side - 0.5), z[:, 1]], axis=1))
            y.append(side)
            epsilon.append(level)
            marked.append(rank >= 0)
    for share in MINORITIES:
        few = rank < round(share * n)
        x.append(jnp.stack([one, z[:, 0], few.astype(z.dtype)], axis=1))
        y.append((u < jax.nn.sigmoid(z[:, 0] - 0.5 * few)).astype(z.dtype))
        epsilon.append(0.0)
        marked.append(few)
    return jnp.stack(x), jnp.stack(y), jnp.array(epsilon), jnp.stack(marked)


def studies(setup: Setup, key: Array) -> dict[str, Array]:
    """Widths and ambiguities of every problem, (seeds, problems) each."""

    def solved(problem: tuple[Array, ...]) -> dict[str, Array]:
        x, y, epsilon, marked = problem
        baseline = m.fit(x, y)
        found = m.ranges(baseline, jnp.where(epsilon > 0, epsilon, setup.tolerated * baseline.loss))
        logits = found.high - found.low
        risks = jax.nn.sigmoid(found.high) - jax.nn.sigmoid(found.low)
        here, n = marked / jnp.sum(marked), y.size
        rest = ~marked / jnp.maximum(jnp.sum(~marked), 1)
        return {
            "logits": here @ logits, "rest": rest @ logits, "risks": here @ risks, "loss": baseline.loss,
            "ambiguity_0.05": jnp.sum(m.ambiguity(baseline, found, 0.05)) / n,
            "ambiguity_0.1": jnp.sum(m.ambiguity(baseline, found, 0.1)) / n,
            "gradient": baseline.gradient, "gap": jnp.max(found.gap),
        }  # fmt: skip

    drawn = jax.vmap(lambda k: people(setup, k))(jax.random.split(key, setup.seeds))
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), drawn)
    found = jax.lax.map(solved, flat)
    return {name: a.reshape(setup.seeds, -1) for name, a in found.items()}


# -- two coefficients: the level set itself ----------------------------------------------------------------------------

PLANE = 60  # people in the plane
REACH = 3.0  # of the map of the features


def people_in_the_plane(key: Array) -> tuple[Array, Array]:
    """Two features (60, 2) and labels (60,), which a logistic model of both draws."""
    normal, coin = jax.random.split(key)
    x = jax.random.normal(normal, (PLANE, 2))
    return x, (jax.random.uniform(coin, (PLANE,)) < jax.nn.sigmoid(1.5 * x[:, 0] + x[:, 1])).astype(x.dtype)


def plane(setup: Setup, key: Array) -> dict[str, Array]:
    """A model of two coefficients: its excess on a grid around it, its boundary, widths over the plane of features."""
    x, y = people_in_the_plane(key)
    baseline = m.fit(x, y)
    epsilon = 5 * setup.tolerated * baseline.loss
    axis = jnp.linspace(-REACH, REACH, setup.plane)
    grid = jnp.stack([jnp.tile(axis, setup.plane), jnp.repeat(axis, setup.plane)], axis=1)
    known = m.ranges_of(baseline, jnp.concatenate([x, grid]), epsilon)
    width = jax.nn.sigmoid(known.high) - jax.nn.sigmoid(known.low)
    widest = jnp.argmax(width[:PLANE])
    return {
        "x": x, "y": y, "w": baseline.w, "epsilon": epsilon, "width": width[:PLANE],
        "map": width[PLANE:].reshape(setup.plane, setup.plane), "axis": axis,
        "boundary": baseline.w[None] + m.directions(baseline, epsilon, m.sphere(key, 200, 2)),
        "extremes": baseline.w[None] + jnp.concatenate([known.u_low[:PLANE], known.u_high[:PLANE]]),
        "adversary": baseline.w + known.u_high[widest], "widest": widest,
        "loss_of_adversary": m.excess(baseline, known.u_high[widest]),
        "logits": baseline.logits, "gap": jnp.max(known.gap),
    }  # fmt: skip


# -- irises: ranges, the small-epsilon law, the budget, conflicts ------------------------------------------------------

SMALL = (1e-6, 1e-5, 1e-4, 1e-3)  # epsilon as a share of the loss, for the law
LEVELS = (0.005, 0.01, 0.02, 0.05)  # for conflicts


def deltas_of(setup: Setup) -> np.ndarray:
    """Thresholds at which conflicts are counted."""
    return np.linspace(0.01, 0.4, setup.deltas)


def example(setup: Setup, key: Array) -> dict[str, Array]:
    """Everything about one data set that ships with this project: irises of two species."""
    x, y = real.read("iris")
    baseline, n = m.fit(x, y), len(y)
    shares = jnp.array([*SMALL, *LEVELS, setup.tolerated])
    found = jax.lax.map(lambda share: m.ranges(baseline, share * baseline.loss), shares)
    s, kappa = m.leverage(baseline), m.third_derivative(baseline)
    level = shares[: len(SMALL), None] * baseline.loss
    law = jax.tree.map(lambda a: a[: len(SMALL)], found)
    half = (law.high - law.low) / 2 / m.formulas.half_width(level, s[None])
    both = [m.formulas.second_order_end(level, s[None], kappa[None], sign) for sign in (1, -1)]
    shift = ((law.high + law.low) / 2 - baseline.logits[None]) / ((both[0] + both[1]) / 2)
    counted = jax.tree.map(lambda a: a[len(SMALL) : -1], found)
    z = m.sphere(key, setup.searched, x.shape[1])

    def counts(which: tuple[Any, Array]) -> tuple[Array, ...]:
        ranges, share = which
        epsilon = share * baseline.loss
        models = m.trial_models(baseline, ranges, epsilon, z)

        def at(delta: Array) -> tuple[Array, ...]:
            most = jnp.max(m.conflicts(baseline, models, delta))
            ambiguous = jnp.sum(m.ambiguity(baseline, ranges, delta)) / n
            return ambiguous, most, m.knapsack(baseline, ranges, epsilon, delta, n)

        return jax.lax.map(at, jnp.asarray(deltas_of(setup)))

    ambiguity, lower, knapsack = jax.lax.map(counts, (counted, jnp.array(LEVELS)))
    last = jax.tree.map(lambda a: a[-1], found)
    p = baseline.risk
    grid = jnp.broadcast_to(jnp.array([0.1, 0.3, 0.5, 0.7, 0.9]), (n, 5))
    candidates = m.candidates(baseline, jnp.log(grid) - jnp.log1p(-grid))
    return {
        "p": p, "low": last.low, "high": last.high, "gap": jnp.max(found.gap, axis=1), "leverage": s, "kappa": kappa,
        "half_error": half - 1, "shift_error": shift - 1, "budget": jnp.mean(p * (1 - p) * s), "loss": baseline.loss,
        "d": jnp.asarray(x.shape[1]), "ambiguity": ambiguity, "lower": lower, "knapsack": knapsack,
        "candidates": candidates, "grid": grid, "excess": m.excess(baseline, last.u_high), "n": jnp.asarray(n),
        "x": x, "y": y, "w": baseline.w, "models": baseline.w[None] + last.u_high[::5], "logits": baseline.logits,
        "half": half[-1] * m.formulas.half_width(level[-1], s),
    }  # fmt: skip


# -- real data ---------------------------------------------------------------------------------------------------------


def tables(setup: Setup, key: Array) -> dict[str, Array]:
    """For every data set and both levels: loss, widths, ambiguities, flips; without randomness."""
    del key
    found: dict[str, Array] = {}
    for name in real.chosen(setup.real):
        rows = table(*real.read(name))
        found |= {f"{name}/{what}": value for what, value in rows.items()}
    return found


def table(x: np.ndarray, y: np.ndarray) -> dict[str, Array]:
    """Prevalence on one data set, identical people solved once: (levels,) each, the ambiguities (levels, deltas)."""
    rows, ones, weight, _ = m.merged(x, y)
    baseline = m.fit(rows, ones, weight)

    def at(share: Array) -> tuple[Array, ...]:
        found = m.ranges(baseline, share * baseline.loss)
        width = jax.nn.sigmoid(found.high) - jax.nn.sigmoid(found.low)
        counts = jnp.stack([baseline.weight @ m.ambiguity(baseline, found, delta) for delta in real.DELTAS])
        return (
            baseline.weight @ width,
            counts,
            baseline.weight @ ((found.low <= 0) & (found.high >= 0)),
            jnp.max(found.gap),
        )

    width, ambiguity, flips, gap = jax.lax.map(at, jnp.array(real.LEVELS))
    size = {"n": jnp.asarray(len(y)), "d": jnp.asarray(x.shape[1])}
    return {**size, "loss": baseline.loss, "width": width, "ambiguity": ambiguity, "flips": flips, "gap": gap}


STAGES = {"groups": groups, "studies": studies, "plane": plane, "example": example, "real": tables}
