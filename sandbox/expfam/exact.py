"""The risk without an expansion: every outcome of n draws counted, and the derivatives of any estimator.

``lattice_law`` gives the law of the sum of n draws whose statistics are whole numbers, ``risk`` the exact risks of
a family with such statistics. R(n) is infinite where the fit may not exist; what is meant is the risk given that it
exists, and the probability that it does not is reported with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sandbox.algebra import dot, velocity
from sandbox.expfam import finite
from sandbox.expfam.terms import Expansion
from sandbox.measures import log_kl
from sandbox.validate import known, whole

LOST = 1e-6  # probability that no fit exists, from which on a conditional risk says little of the expansion


class ExactRisk(NamedTuple):
    """At each n: E KL(g* || ghat), E KL(ghat || g*), both given that the fit exists, and the lost probability."""

    forward: Array
    reverse: Array
    lost: Array


def check_lost(lost: Any, sizes: Sequence[int]) -> None:
    """Raise ValueError where the lost probability exceeds 1e-6: there R(n) is not what the expansion is about."""
    values = known(lost)
    if values is not None:
        for n, x in zip(sizes, np.atleast_1d(values), strict=True):
            if x > LOST:
                raise ValueError(f"n = {n}: with probability {x:.2g} no fit exists; must be at most {LOST:g}, so more "
                                 "draws")  # fmt: skip


def lattice(points: Any, n: int) -> np.ndarray:
    """Every sum that n draws can have and more: a grid (cells, p) of whole numbers from 0 to n times the largest."""
    ranges = [np.arange(n * int(top) + 1) for top in np.max(points, axis=0)]
    return np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, len(ranges))


def lattice_law(points: Any, law: Array, sizes: Sequence[int]) -> list[Array]:
    """The law of the sum of n draws at each n of ``sizes``, over the cells of ``lattice(points, n)``.

    points: statistics (K, p), whole numbers >= 0 known beforehand; law: (K,). Repeated convolution, no Fourier
    transform: small probabilities keep their digits.
    """
    points = np.asarray(points)
    if points.ndim != 2 or np.any(points != np.round(points)) or np.any(points < 0):
        raise ValueError(f"points = {points!r}: must be whole numbers >= 0 on the axes (symbols, statistics)")
    points, sizes = points.astype(int), sorted({whole("sizes", n) for n in sizes})
    top = points.max(axis=0)
    grid = np.zeros(sizes[-1] * top + 1)
    grid[(0,) * len(top)] = 1
    now = jnp.asarray(grid, law.dtype)

    def draw(_: Any, now: Array) -> Array:
        # what a roll brings round from the far end is 0: the grid holds the sum of the last draw
        shifted = (jnp.roll(now, tuple(row), tuple(range(len(top)))) for row in points)
        return jnp.sum(jnp.stack([q * x for q, x in zip(law, shifted, strict=True)]), axis=0)

    found = []
    for before, n in pairwise([0, *sizes]):
        now = jax.lax.fori_loop(0, n - before, draw, now)
        found.append(now[tuple(slice(n * t + 1) for t in top)].reshape(-1))
    return found


def risk(points: Any, law: Array, sizes: Sequence[int], log_base: Any = 0) -> ExactRisk:
    """Exact risks of the family with whole-number statistics ``points`` (K, p), fitted to n draws of ``law`` (K,).

    ``sizes`` ascending. Raises ValueError where more than 1e-6 is lost, unless the law is traced: then look at
    ``lost`` with ``check_lost``.
    """
    features = jnp.asarray(np.asarray(points), law.dtype)
    star = finite.log_law(features, finite.project(features, law, log_base).theta, log_base)

    def at(mean: Array) -> tuple[Array, Array, Array]:
        found = finite.fit(features, mean, log_base)
        fitted = finite.log_law(features, jnp.where(found.exists, found.theta, 0), log_base)
        return log_kl(star, fitted), log_kl(fitted, star), found.exists

    laws = lattice_law(points, law, sizes)
    means = [jnp.asarray(lattice(points, n), law.dtype) / n for n in sizes]
    forward, reverse, exists = jax.vmap(at)(jnp.concatenate(means))  # one program for all sizes
    ends = np.cumsum([len(x) for x in laws])[:-1]
    rows = []
    for weight, ahead, back, there in zip(laws, *(jnp.split(x, ends) for x in (forward, reverse, exists)), strict=True):
        kept = jnp.where(there, weight, 0)
        rows.append(jnp.stack([dot(kept, ahead) / jnp.sum(kept), dot(kept, back) / jnp.sum(kept),
                               jnp.sum(jnp.where(there, 0, weight))]))  # fmt: skip
    found = ExactRisk(*jnp.stack(rows, axis=1))
    check_lost(found.lost, sizes)
    return found


# -- any estimator -----------------------------------------------------------------------------------------------------


def by_derivatives(divergence: Callable[[Array], Array], truth: Array) -> Expansion:
    """a and b of E h(c / n), c the counts of n draws of ``truth`` (K,), for a smooth h that is least at the truth.

    a = <h2, S>/2, b = <h3, k3>/6 + <h4, S S>/8 with h's derivatives and the multinomial's cumulants S, k3. They are
    taken along lines: u = e_y - q, and u + v and u - v, whose fourth ones give that along u, u, v, v. h may have
    several values (m,).
    """
    size = truth.size
    u = jnp.eye(size) - truth[None, :]
    sums, gaps = u[:, None, :] + u[None, :, :], u[:, None, :] - u[None, :, :]
    lines = jnp.concatenate([u, sums.reshape(-1, size), gaps.reshape(-1, size)])

    def along(u: Array) -> list[Array]:
        path: Callable[[Any], Any] = lambda t: divergence(truth + t * u)  # noqa: E731
        found = []
        for _ in range(4):
            path = velocity(path)
            found.append(path(jnp.zeros((), truth.dtype)))
        return found[1:]

    second, third, fourth = jax.vmap(along)(lines)
    crossed = jnp.sum(fourth[size:].reshape(2, size, size, *fourth.shape[1:]), axis=0)
    mixed = (crossed - 2 * fourth[:size, None] - 2 * fourth[None, :size]) / 12
    pairs = jnp.tensordot(truth, jnp.tensordot(truth, mixed, 1), 1)
    return Expansion(jnp.tensordot(truth, second[:size], 1) / 2, jnp.tensordot(truth, third[:size], 1) / 6 + pairs / 8)


def expansion(features: Array, truth: Array, log_base: Any = 0) -> tuple[Expansion, Expansion]:
    """a and b of a family in both directions, forward first, by derivatives alone: the check of ``finite.terms_at``.

    No cumulant enters but the model's covariance, with which three steps from the projection reach the fit to a sample
    nearby: each leaves an error of one order more, the last of fourth order, and a divergence is flat at its root.
    """
    star = finite.log_law(features, finite.project(features, truth, log_base).theta, log_base)
    model = jnp.exp(star)
    x = features - (model @ features)[None, :]
    inverse = jnp.linalg.inv((x * model[:, None]).T @ x)

    def fitted(moved: Array) -> Array:
        weights = star + x @ moved
        return weights - jnp.log(jnp.sum(jnp.exp(weights)))

    def divergences(shares: Array) -> Array:
        moved = jnp.zeros(x.shape[1], x.dtype)
        for _ in range(3):
            moved = moved - inverse @ ((jnp.exp(fitted(moved)) - shares) @ x)
        law = fitted(moved)
        return jnp.stack([log_kl(star, law), log_kl(law, star)])

    a, b = by_derivatives(divergences, truth)
    return Expansion(a[0], b[0]), Expansion(a[1], b[1])
