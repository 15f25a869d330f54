"""Two betas, a fine-tuning term and other losses in a table: phase diagram, fates, and the three D's of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.dpo_3d.linear import score_loss
from experiments.dpo_3d.setup import Setup
from experiments.dpo_3d.table import START, L, W, laws, unseen_mass
from sandbox import losses, tables
from sandbox.dynamics import descent, flow, log_times
from sandbox.measures import decay_exponent, fall_from_peak, rise_to_peak, suppression_share
from theory.dpo_3d.mends import boundary_of_the_chosen, boundary_of_the_rejected, boundary_of_the_unseen, separatrix

Sweep = Callable[..., dict[str, Any]]  # sandbox.sweep.sweep
STEP = 1e-6
TINY = 1e-6  # what is left of a rejected response that is almost extinct
KAPPA = (0.1, 10.0)  # range of beta_rejected / beta_chosen in the phase diagram


def flex_loss(z: Array, z0: Array, beta_chosen: Any, beta_rejected: Any) -> Array:
    """Flex-DPO's loss of the pair (W, L) in a table."""
    flex = partial(losses.flex_dpo, beta_chosen=beta_chosen, beta_rejected=beta_rejected)
    return tables.pair_loss(flex, z, z0, W, L)


flex_flow = descent(flex_loss)


# -- the phase diagram -------------------------------------------------------------------------------------------------


def peaked_law(peak: Any) -> Array:
    """Chosen, rejected, an unseen peak and another unseen response; of the rest the rejected has half."""
    rest = (1 - jnp.asarray(peak)) / 4
    return jnp.stack([rest, 2 * rest, jnp.asarray(peak), rest])


def _boundaries(peak: Array) -> dict[str, Array]:
    """r_w, r_l and r_U along the family ``peaked_law``; NaN where no unseen response is peaked enough."""
    p = peaked_law(peak)
    square = jnp.sum(p**2, axis=0)
    mean = jnp.sum(p[2:] ** 2, axis=0) / jnp.sum(p[2:], axis=0)
    peaked = square > p[0] + p[1]
    turns = jnp.minimum(p[0], p[1]) + mean > square  # otherwise the unseen move one way whatever kappa
    return {
        "r_w": jnp.where(peaked, boundary_of_the_chosen(p[0], p[1], square), jnp.nan),
        "r_l": jnp.where(peaked, boundary_of_the_rejected(p[0], p[1], square), jnp.nan),
        "r_u": jnp.where(turns, boundary_of_the_unseen(p[0], p[1], square, mean), jnp.nan),
    }


def phase(setup: Setup, key: Array, sweep: Sweep) -> dict[str, Any]:
    """Random peaks and ratios of the two betas, one small step of Flex-DPO each: who moved which way (runs,)."""
    peak_key, kappa_key = jax.random.split(key)
    peak = jax.random.uniform(peak_key, (setup.runs,), minval=0.02, maxval=0.98)
    low, high = np.log10(KAPPA)
    kappa = 10 ** jax.random.uniform(kappa_key, (setup.runs,), minval=low, maxval=high)

    def one(point: dict[str, Array]) -> dict[str, Array]:
        z = jnp.log(peaked_law(point["peak"]))
        push = flex_flow(z, z, setup.beta_chosen, point["kappa"] * setup.beta_chosen)
        step = STEP * push / jnp.linalg.norm(push)
        moved = jax.nn.log_softmax(z + step)
        slope = jax.jvp(jax.nn.log_softmax, (z,), (push / jnp.linalg.norm(push),))[1]
        return {
            "change": (moved - z)[:2],
            "change_unseen": jnp.log(unseen_mass(moved) / unseen_mass(z)),
            "slope": slope[:2],
            "law": jnp.exp(z),
        }

    points = {"peak": peak, "kappa": kappa}
    grid = jnp.linspace(0.005, 0.985, 197)
    edges = {f"grid_{name}": x for name, x in _boundaries(grid).items()}
    return {**points, **sweep(one, points), **_boundaries(peak), "grid_peak": grid, **edges}


def fates(setup: Setup, key: Array, sweep: Sweep) -> dict[str, Any]:
    """Who wins in the end: an unseen peak or the chosen, from an almost extinct rejected; a quarter of the runs."""
    count = setup.runs // 4
    peak_key, kappa_key = jax.random.split(key)
    peak = jax.random.uniform(peak_key, (count,), minval=0.02, maxval=0.98)
    kappa = 10 ** jax.random.uniform(kappa_key, (count,), minval=-0.5, maxval=1.0)
    beta = 0.5
    times = jnp.asarray(log_times(1e6, 41))

    def one(point: dict[str, Array]) -> dict[str, Array]:
        peak = point["peak"]
        z = jnp.log(jnp.stack([1 - peak - TINY, jnp.full_like(peak, TINY), peak]))
        args = z, beta, point["kappa"] * beta
        return {"log_chosen": jax.nn.log_softmax(flow(flex_flow, z, times, args, substeps=8, log_time=True)[-1])[W]}

    points = {"peak": peak, "kappa": kappa}
    edge = jnp.where(kappa > 2, separatrix(1.0, jnp.maximum(kappa, 1.01)), 1.0)
    return {**points, "log_chosen_start": jnp.log(1 - peak - TINY), **sweep(one, points), "separatrix": edge}


# -- against the rejected beta -----------------------------------------------------------------------------------------


def sweep(setup: Setup, key: Array) -> dict[str, Array]:
    """Flex-DPO in the four scenarios against the rejected beta: unseen mass and log pi_l at three times."""
    del key
    betas = jnp.logspace(-2, 0, 61)
    times = jnp.array([0.0, 100.0, 1_000.0, 100_000.0])

    def one(z: Array, beta: Array) -> Array:
        states = flow(flex_flow, z, times, (z, setup.beta_chosen, beta), substeps=128, log_time=True)
        return jax.nn.log_softmax(states)[1:]

    found = jax.vmap(lambda z: jax.vmap(partial(one, z))(betas))(jnp.log(laws()))
    return {"beta_rejected": betas, "time": times[1:], "log_probs": found}


def fine_tuning(setup: Setup, key: Array) -> dict[str, Array]:
    """DPO and a fine-tuning term where the chosen falls (one feature, scores 1, 0, 2): log pi_w (alphas, T)."""
    del key
    scores, start = jnp.array([1.0, 0, 2]), jnp.log(jnp.array([0.3, 0.2, 0.5]))
    alphas = jnp.array([0.0, 0.02, 0.05, 0.1, 0.4])
    times = jnp.asarray(log_times(3_000.0, 121))

    def one(alpha: Array) -> Array:
        theta = flow(tuned_flow, jnp.zeros(()), times, (scores, start, setup.beta, alpha), log_time=True)
        return jax.nn.log_softmax(start[None] + jnp.outer(theta, scores))[:, W]

    return {"time": times, "alpha": alphas, "log_chosen": jax.vmap(one)(alphas)}


def tuned_loss(theta: Array, scores: Array, start: Array, beta: Any, alpha: Any) -> Array:
    """DPO and alpha times -log pi_w, in the one-parameter policy of ``score_loss``."""
    chosen = jax.nn.log_softmax(start + theta * scores)[W]
    return score_loss(theta, scores, start, beta) - alpha * chosen


tuned_flow = descent(tuned_loss)


# -- the three D's of every loss ---------------------------------------------------------------------------------------


def _recipes(setup: Setup) -> dict[str, Any]:
    beta, unit = setup.beta, {"chosen_length": 1.0, "rejected_length": 1.0}
    return {
        "DPO": partial(losses.dpo, beta=beta),
        "Flex-DPO": partial(losses.flex_dpo, beta_chosen=setup.beta_chosen, beta_rejected=setup.beta_rejected),
        "DPO + SFT": partial(losses.dpo_sft, beta=beta, alpha=setup.alpha, sft_reduction="sum"),
        "SFT alone": lambda pair: -pair.chosen,
        "IPO": partial(losses.ipo, tau=0.1),
        "SLiC": partial(losses.slic_hf, delta=5.0, lam=0.0),
        "SimPO, equal lengths": lambda pair: losses.simpo(pair._replace(**unit), beta=2.0, gamma=1.0),
        "SimPO, chosen 3x as long": lambda pair: losses.simpo(
            pair._replace(chosen_length=3.0, rejected_length=1.0), beta=2.0, gamma=1.0
        ),
    }


RECIPES = tuple(_recipes(Setup()))
STOP = {
    "IPO": 100.0,
    "SLiC": 100.0,
}  # losses that stop are followed no further: at rest, log time is too coarse for them


def three_ds(setup: Setup, key: Array) -> dict[str, Array]:
    """The three D's of every loss in the four scenarios, in a table (losses, scenarios), from its gradient flow.

    ``drop``: exponent of the rejected's fall over the last decade. ``share``: of the margin gained by suppression so
    far. ``fall``: of the chosen below its peak. ``dispersion``: log of the largest unseen mass over its start.
    """
    del key
    times = log_times(setup.last, 121)
    pushes = [descent(partial(_loss_in_a_table, loss)) for loss in _recipes(setup).values()]

    pace = jnp.array([STOP.get(name, setup.last) / setup.last for name in RECIPES])

    def field(z: Array, z0: Array, which: Array) -> Array:
        return pace[which] * jax.lax.switch(which, pushes, z, z0)

    def one(which: Array, z: Array) -> Array:
        return jax.nn.log_softmax(flow(field, z, jnp.asarray(times), (z, which), log_time=True))

    each = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(len(pushes)), jnp.log(laws()))
    log_probs = jnp.moveaxis(each, 2, 0)  # time first
    moved = log_probs[-1, ..., :2] - log_probs[0, ..., :2]
    return {
        "drop": decay_exponent(times, log_probs[..., L]),
        "share": suppression_share(moved[..., W], moved[..., L]),
        "fall": fall_from_peak(log_probs[..., W]),
        "dispersion": rise_to_peak(jnp.log(unseen_mass(log_probs))),
        "chosen": log_probs[-1, ..., W],
        "rejected": log_probs[-1, ..., L],
    }


def _loss_in_a_table(loss: Any, z: Array, z0: Array) -> Array:
    return tables.pair_loss(loss, z, z0, W, L)


def stopping(setup: Setup, key: Array) -> dict[str, Array]:
    """IPO's and SLiC's flows from ``START``: margins and log-odds (T,), and the unseen mass that IPO ends with."""
    del setup, key
    start = jnp.log(jnp.array(START))
    times = jnp.linspace(0, 6, 49)
    tau, delta = 0.1, 5.0
    ipo = descent(partial(_loss_in_a_table, partial(losses.ipo, tau=tau)))
    slic = descent(partial(_loss_in_a_table, partial(losses.slic_hf, delta=delta, lam=0.0)))
    by_ipo = flow(ipo, start, times, (start,))
    by_slic = flow(slic, start, times, (start,))
    taus = jnp.logspace(-1.6, 0.3, 40)
    shift = 1 / (4 * taus)
    ends = jax.nn.log_softmax(start[None] + jnp.outer(shift, jnp.array([1.0, -1, 0, 0, 0])))
    return {
        "time": times,
        "ipo_margin": by_ipo[:, W] - by_ipo[:, L] - (start[W] - start[L]),
        "ipo_end": jax.nn.softmax(by_ipo[-1]),
        "slic_log_odds": by_slic[:, W] - by_slic[:, L],
        "tau": taus,
        "unseen_end": unseen_mass(ends),
    }


STAGES = {
    "phase diagram": phase,
    "fates": fates,
    "sweep of the rejected beta": sweep,
    "fine-tuning term": fine_tuning,
    "losses that stop": stopping,
    "three D's": three_ds,
}
