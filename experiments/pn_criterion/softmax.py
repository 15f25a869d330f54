"""The softmax toy: twelve symbols, p cosines, and a truth that no such model has once gamma is not 0."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from experiments.pn_criterion.setup import Setup
from sandbox.algebra import dot, log_softmax
from sandbox.expfam import criterion, finite, terms
from sandbox.expfam.criterion import bayes_error
from sandbox.measures import log_kl

SYMBOLS, MOST = 12, 11
ALPHA = 0.05  # of the larger simulations, whose n* it sets
FEW = 6  # statistics of the larger simulations
GAMMAS = tuple(k / 8 for k in range(13))
SIZES = (25, 35, 50, 70, 100, 140, 200, 280, 400)
SCORES = ("AIC", "AICc", "TIC", "second-order TIC")


def truth(gamma: Any) -> Array:
    """Log-probabilities (12,): a smooth law, and gamma nats up and down from symbol to symbol."""
    y = jnp.arange(SYMBOLS) + 0.5
    smooth = 0.8 * jnp.cos(jnp.pi * y / SYMBOLS) - 0.5 * jnp.cos(2 * jnp.pi * y / SYMBOLS)
    return log_softmax(smooth + gamma * (-1.0) ** jnp.arange(SYMBOLS))


def statistics(p: Any, most: int = MOST) -> Array:
    """The first p cosines; the columns beyond are 0, so that one program serves every p."""
    return finite.cosines(SYMBOLS, most) * (jnp.arange(most) < p)[None, :]


def draw_shares(key: Array, log_law: Array, samples: int, sizes: Array, most: int) -> Array:
    """Shares (len(sizes), samples, 12) of the first n of ``most`` draws, for each n of ``sizes``."""
    uniform = jax.random.uniform(key, (samples, most), log_law.dtype)
    ends = jnp.append(jnp.cumsum(jnp.exp(log_law))[:-1], 2.0)  # above every uniform number

    def below(end: Array) -> Array:
        running = jnp.cumsum(uniform < end, axis=1)
        return running[:, sizes - 1].T / sizes.astype(log_law.dtype)[:, None]

    return jnp.diff(jnp.moveaxis(jax.lax.map(below, ends), 0, -1), prepend=0, axis=-1)


def expansion(p: Any, gamma: Any, most: int = MOST) -> dict[str, Array]:
    """The projection's theta (most,), log-law (12,), distance from the truth, and t0 .. t3 (4,)."""
    features, log_g = statistics(p, most), truth(gamma)
    theta = finite.project(features, jnp.exp(log_g)).theta
    star = finite.log_law(features, theta)
    found = finite.terms_at(features, jnp.exp(star), jnp.exp(log_g))
    return {"theta": theta, "star": star, "distance": log_kl(log_g, star), "terms": jnp.stack(found)}


def coefficients(found: dict[str, Array]) -> dict[str, Array]:
    """a and b from t0 .. t3 on the last axis."""
    a, b = terms.risk(terms.Terms(*jnp.moveaxis(found["terms"], -1, 0)))
    return {"a": a, "b": b}


@partial(jax.jit, static_argnums=0)
def misspecified(setup: Setup, key: Array) -> dict[str, Array]:
    """a, b, t0, KL(g || g*) and both n* over p = 1 .. 11 and gamma."""
    del key
    over_gamma = jax.vmap(expansion, in_axes=(None, 0))
    found = jax.vmap(over_gamma, in_axes=(0, None))(jnp.arange(1, MOST + 1), jnp.array(GAMMAS))
    a, b = coefficients(found).values()
    allowed, of_both = criterion.allowed_risk(setup.alpha), terms.Expansion(a, b)
    return {
        "gamma": jnp.array(GAMMAS),
        "a": a,
        "b": b,
        "distance": found["distance"],
        "first": criterion.draws_needed_first(of_both, allowed),
        "second": criterion.draws_needed(of_both, allowed),
    }


# -- many samples at a few settings ------------------------------------------------------------------------------------


def fitted(features: Array, start: Array, share: Array) -> tuple[Array, Array]:
    """Log-law (12,) of the fit to the shares (12,) of a sample, and whether it exists; else the start's."""
    found = finite.fit(features, share @ features, start=start)
    return finite.log_law(features, jnp.where(found.exists, found.theta, start)), found.exists


@partial(jax.jit, static_argnums=0)
def sampled(setup: Setup, key: Array) -> dict[str, Array]:
    """Risk, Bayes error and optimism of the fits: at n = 100 and 60, and at n* for p = 1 .. 6."""
    p = jnp.array([4, 6, 4, *range(1, FEW + 1)])
    gamma = jnp.array([0.0, 1.0, 1.0, *[1.0] * FEW])
    at = jax.vmap(partial(expansion, most=FEW))(p, gamma)
    a, b = coefficients(at).values()
    needed = criterion.draws_needed(terms.Expansion(a, b), criterion.allowed_risk(ALPHA))
    n = jnp.concatenate([jnp.array([100, 100, 60]), jnp.ceil(needed[3:]).astype(int)])

    def one(args: Any) -> dict[str, Array]:
        key, p, gamma, n, theta, star = args
        log_g, features = truth(gamma), statistics(p, FEW)
        shares = draw_shares(key, log_g, setup.samples, n[None], 170)[0]
        law, exists = jax.vmap(partial(fitted, features, theta))(shares)
        kept = exists / jnp.sum(exists)
        forward, error = log_kl(star[None, :], law), bayes_error(jnp.exp(star)[None, :], jnp.exp(law))
        flattered = dot(shares, law) - dot(jnp.exp(log_g)[None, :], law)
        flattered = flattered - (dot(shares, star[None, :]) - dot(jnp.exp(log_g), star))  # its mean is 0

        def spread(x: Array) -> Array:
            return jnp.sqrt(jnp.sum(kept * (x - kept @ x) ** 2) / jnp.sum(exists))

        return {
            "risk": kept @ forward, "risk_error": spread(forward), "bayes": kept @ error, "bayes_error": spread(error),
            "share": kept @ (error >= 0.5 - ALPHA), "optimism": kept @ flattered, "optimism_error": spread(flattered),
            "lost": jnp.sum(~exists) / exists.size, "some_forward": forward[:200], "some_bayes": error[:200],
        }  # fmt: skip

    keys = jax.random.split(key, len(p))
    found = jax.lax.map(one, (keys, p, gamma, n, at["theta"], at["star"]))
    return {"p": p, "gamma": gamma, "n": n, "terms": at["terms"], "a": a, "b": b, **found}


# -- the phase diagram, and what AIC, AICc and TIC choose --------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def grid(setup: Setup, key: Array) -> dict[str, Array]:
    """For n of ``SIZES`` and p = 1 .. 11: mean risk, lost fits; the p that each score picks, and what n allows."""
    log_g, sizes = truth(setup.gamma), jnp.array(SIZES)
    shares = draw_shares(key, log_g, setup.grid_samples, sizes, SIZES[-1])
    allowed = criterion.allowed_risk(setup.alpha)

    def of_model(p: Array) -> dict[str, Array]:
        features = statistics(p)
        at = expansion(p, setup.gamma)

        def of_sample(share: Array, n: Array) -> dict[str, Array]:
            law, exists = fitted(features, at["theta"], share)
            model = jnp.exp(law)
            found = finite.terms_at(features, model, share)
            loss = -dot(share, law)
            scores = jnp.stack([
                criterion.aic(loss, n, p), jnp.where(n > p + 1, criterion.aicc(loss, n, p), jnp.inf),
                criterion.tic(loss, n, found.t0), criterion.tic_second(loss, n, terms.optimism(found)),
            ])  # fmt: skip
            forward = log_kl(at["star"], law)
            return {
                "forward": forward, "exists": exists, "scores": jnp.where(exists, scores, jnp.inf),
                "loss_to_truth": log_kl(log_g, law),
                "accepted": exists & (terms.risk(found).a / n <= allowed),
                "bayes": bayes_error(jnp.exp(at["star"]), model),
            }  # fmt: skip

        of_samples = jax.vmap(jax.vmap(of_sample, in_axes=(0, None)))
        return of_samples(shares, sizes.astype(shares.dtype))

    every = jax.lax.map(of_model, jnp.arange(1, MOST + 1))  # p, n, sample
    exists = every["exists"]
    chosen = jnp.argmin(every["scores"], axis=0)  # n, sample, score: p - 1
    accepted = jnp.moveaxis(every["accepted"], 0, -1)  # n, sample, p
    rejected = ~jnp.take_along_axis(accepted, chosen, axis=-1)
    largest = jnp.max(jnp.where(accepted, jnp.arange(1, MOST + 1)[None, None, :], 0), axis=-1)
    excess = jnp.moveaxis(every["loss_to_truth"], 0, -1)
    a, b = coefficients(jax.vmap(partial(expansion, gamma=setup.gamma))(jnp.arange(1, MOST + 1))).values()
    return {
        "n": sizes,
        "risk": jnp.sum(jnp.where(exists, every["forward"], 0), axis=-1) / jnp.maximum(jnp.sum(exists, axis=-1), 1),
        "lost": jnp.sum(~exists, axis=-1) / exists.shape[-1],
        "chosen": jnp.mean(chosen + 1.0, axis=1),
        "chosen_excess": jnp.mean(jnp.take_along_axis(excess, chosen, axis=-1), axis=1),
        "picked_but_rejected": jnp.mean(rejected, axis=1),
        "accepted_beyond": jnp.mean(largest[:, :, None] > chosen + 1, axis=1),
        "largest": jnp.mean(largest.astype(a.dtype), axis=1),
        "first": criterion.draws_needed_first(terms.Expansion(a, b), allowed),
        "second": criterion.draws_needed(terms.Expansion(a, b), allowed),
        "some_forward": every["forward"][:, 4, :40],
        "some_bayes": every["bayes"][:, 4, :40],
        "some_exists": exists[:, 4, :40],
    }


# -- the criterion, estimated ------------------------------------------------------------------------------------------

PLUG_IN_P, PLUG_IN_SIZES = 4, (50, 100, 200)


@partial(jax.jit, static_argnums=0)
def plug_in(setup: Setup, key: Array) -> dict[str, Array]:
    """Estimates of a and b from samples of 50, 100 and 200 draws at p = 4, gamma = 1, and the verdicts."""
    features, log_g = finite.cosines(SYMBOLS, PLUG_IN_P), truth(1.0)
    sizes = jnp.array(PLUG_IN_SIZES)
    at = expansion(PLUG_IN_P, 1.0, PLUG_IN_P)
    shares = draw_shares(key, log_g, setup.plug_in_samples, sizes, PLUG_IN_SIZES[-1])

    def estimate(share: Array) -> dict[str, Array]:
        law, exists = fitted(features, at["theta"], share)
        found = terms.risk(finite.terms_at(features, jnp.exp(law), share))
        return {"a": found.a, "b": found.b, "exists": exists}

    found = jax.vmap(jax.vmap(estimate))(shares)
    allowed, n = criterion.allowed_risk(setup.alpha), sizes[:, None].astype(found["a"].dtype)
    first = found["a"] / n
    second = terms.Expansion(found["a"], found["b"]).at(n)
    return {
        "n": sizes, "true": jnp.stack([*coefficients(at).values()]), **found, "first": first, "second": second,
        "pass_first": jnp.mean(first <= allowed, axis=1), "pass_second": jnp.mean(second <= allowed, axis=1),
    }  # fmt: skip
