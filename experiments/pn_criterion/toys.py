"""What is counted exactly: families on small alphabets, a curved trinomial, normal and exponential data."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.pn_criterion.setup import Setup
from sandbox.expfam import criterion, curved, exact, finite, gaussian, one_parameter, terms
from sandbox.expfam.terms import Expansion
from sandbox.measures import log_kl


class Toy(NamedTuple):
    """A family with whole-number statistics, the truth, and whether it has two statistics."""

    name: str
    points: tuple[tuple[int, ...], ...]
    truth: tuple[float, ...]

    @property
    def pair(self) -> bool:
        """Two statistics, enumerated on a plane."""
        return len(self.points[0]) == 2


TOYS = (
    Toy("four symbols", ((0,), (1,), (2,), (3,)), (0.1, 0.1, 0.1, 0.7)),
    Toy("two statistics", ((0, 0), (1, 0), (0, 1), (2, 2)), (0.15, 0.25, 0.25, 0.35)),
    Toy("saturated", ((0, 0), (1, 0), (0, 1)), (0.2, 0.3, 0.5)),
)


def sizes(setup: Setup, toy: Toy) -> list[int]:
    """Numbers of draws at which a toy is enumerated, each the double of one before it."""
    top = setup.largest_pair if toy.pair else setup.largest
    if toy.name == "saturated":
        return [max(70, top // 3 * 2), max(90, top)]  # fewer lose a symbol too often
    return [n for n in (top // 8, top // 4, top // 2, top) if n >= (30 if toy.pair else 50)]


def expansions(toy: Toy, truth: Array) -> dict[str, Array]:
    """t0 .. t3, (a, b) of both directions by cumulants and by derivatives, and KL(g || g*)."""
    features = jnp.array(toy.points, truth.dtype)
    star = finite.log_law(features, finite.project(features, truth).theta)
    found = finite.terms_at(features, jnp.exp(star), truth)
    forward, reverse = exact.expansion(features, truth)
    return {
        "terms": jnp.stack(found),
        "expansion": jnp.stack(terms.risk(found)),
        "reverse_expansion": jnp.stack(terms.reverse_risk(found)),
        "by_derivatives": jnp.stack(forward),
        "reverse_by_derivatives": jnp.stack(reverse),
        "distance": log_kl(jnp.log(truth), star),
    }


@partial(jax.jit, static_argnums=0)
def enumerated(setup: Setup, key: Array) -> dict[str, Array]:
    """Every toy: what the expansion says, and exact risks at its numbers of draws."""
    del key
    found: dict[str, Array] = {}
    for toy in TOYS:
        n = sizes(setup, toy)
        truth = jax.lax.optimization_barrier(jnp.array(toy.truth))  # or XLA computes it all while compiling
        risks = exact.risk(toy.points, truth, n)
        of_toy = {"n": jnp.array(n), **expansions(toy, truth), **risks._asdict()}
        found |= {f"{toy.name}: {name}": x for name, x in of_toy.items()}
    return found


# -- a curved model: theta, theta^2 and the rest ---------------------------------------------------------------------

TRINOMIALS = ((0.2, 0.5, 0.3), (0.45, 0.2025, 0.3475), (0.6, 0.1, 0.3))  # the second is in the model
CURVED_SIZES = (50, 100)


def trinomial(theta: Any) -> Array:
    """Log-probabilities of the three symbols."""
    return jnp.stack([jnp.log(theta), 2 * jnp.log(theta), jnp.log(1 - theta - theta**2)])


def trinomial_fit(shares: Array) -> Array:
    """Maximum likelihood from shares (3,): the positive root of (A + 2 N3) t^2 + (A + N3) t = A, A = N1 + 2 N2."""
    a, rest = shares[0] + 2 * shares[1], shares[2]
    linear = a + rest
    return 2 * a / (linear + jnp.sqrt(linear**2 + 4 * a * (a + 2 * rest)))


def _trinomial(truth: Array) -> dict[str, Array]:
    theta = trinomial_fit(truth)
    star = trinomial(theta)
    informations = curved.informations(trinomial, theta, truth)

    def divergence(shares: Array) -> Array:
        return log_kl(star, trinomial(trinomial_fit(shares)))

    risks = []
    corner = ((1, 0), (0, 1), (0, 0))
    for n, weight in zip(CURVED_SIZES, exact.lattice_law(corner, truth, CURVED_SIZES), strict=True):
        counts = exact.lattice(corner, n)
        shares = jnp.asarray(np.column_stack([counts, n - counts.sum(axis=1)]), truth.dtype) / n
        there = (shares[:, 2] > 0) & (shares[:, 2] < 1)
        inside = jnp.where(there[:, None], shares, truth[None, :])
        kept = jnp.where(there, weight, 0)
        risks.append(jnp.stack([kept @ jax.vmap(divergence)(inside) / jnp.sum(kept), 1 - jnp.sum(kept)]))
    exact_risk, lost = jnp.stack(risks, axis=1)
    return {
        "theta": theta,
        "expansion": jnp.stack(curved.expansion(trinomial, theta, truth)),
        "by_derivatives": jnp.stack(exact.by_derivatives(divergence, truth)),
        "half_penalty": curved.tic_penalty(informations),
        "informations": jnp.stack(informations),
        "first_order": curved.first_order(informations),
        "forward": exact_risk,
        "lost": lost,
    }


@partial(jax.jit, static_argnums=0)
def curves(setup: Setup, key: Array) -> dict[str, Array]:
    """The curved trinomial at three truths: the closed form, derivatives of its fit, and exact risks."""
    del setup, key
    return {"truth": jnp.array(TRINOMIALS), **jax.vmap(_trinomial)(jax.lax.optimization_barrier(jnp.array(TRINOMIALS)))}


# -- continuous data -------------------------------------------------------------------------------------------------

DIMENSIONS = (1, 2, 5, 10, 20)
SHAPES = (0.5, 1.0, 2.0)  # of gamma data; 1 is exponential


@partial(jax.jit, static_argnums=0)
def continuous(setup: Setup, key: Array) -> dict[str, Array]:
    """Normal and exponential models: the exact n* against those of both orders; exact risks over n."""
    del key
    allowed = criterion.allowed_risk(setup.alpha)
    found: dict[str, list[Any]] = {name: [] for name in ("first", "second", "exact", "risk", "expansion", "n")}

    def add(expansion: Expansion, risk: Any, least: float) -> None:
        first, second = criterion.draws_needed_first(expansion, allowed), criterion.draws_needed(expansion, allowed)
        around = jnp.floor(second) + jnp.arange(-30, 31)
        enough = (risk(jnp.maximum(around, least)) <= allowed) & (around >= least)
        n = second * jnp.geomspace(0.5, 8, 5)
        row = {"first": first, "second": second, "exact": around[jnp.argmax(enough)], "n": n, "risk": risk(n)}
        for name, x in {**row, "expansion": jnp.stack([jnp.asarray(y, n.dtype) for y in expansion])}.items():
            found[name].append(x)

    for d in DIMENSIONS:
        of_d = terms.risk(gaussian.terms(gaussian.normal_moments(float(d)), float(d)))
        add(of_d, lambda n, d=d: gaussian.exact_risk(n, d), d + 3)
    for shape in SHAPES:
        of_shape = one_parameter.terms(one_parameter.VARIANCES["exponential"], 1.0, 1 / shape, 2 / shape**2)
        add(terms.risk(of_shape), lambda n, s=shape: one_parameter.exact_exponential_risk(n, s), 3 / shape)
    return {name: jnp.stack([jnp.asarray(x) for x in rows]) for name, rows in found.items()}
