"""The margin of a log against its closed form under DPO: g = y(1 + c t) / beta, y + e^y = s (C6)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

from sandbox.algebra import flow_margin

STRAIGHT = 0.1  # beta times margin below which the curve cannot be told from a line
UNSURE = 0.5  # standard error of a logarithm above which the constant counts as unknown
REACH = np.log([1e-3, 1e12])  # of the rate times the last time


class Fit(NamedTuple):
    """What was found; beta (per nat) and rate (per unit of time) are None where the log does not tell them.

    errors: standard errors of their logarithms, if residuals were independent. curve: the fitted margins (rows,).
    clock: rate times last time. word: why something is None, or "".
    """

    beta: float | None
    rate: float | None
    r2: float | None
    errors: tuple[float, float] | None
    curve: np.ndarray | None
    clock: float | None
    word: str


@jax.jit
def _shape(log_rate: Any, time: Any) -> Any:
    """beta times the margin gained since the first time, and its derivative by the logarithm of the rate."""

    def gained(log_rate: Any) -> Any:
        u = flow_margin(1 + jnp.exp(log_rate) * time)
        return u - u[0]

    return jax.jvp(gained, (log_rate,), (jnp.ones_like(log_rate),))


@jax.jit
def _misfit(grid: Any, time: Any, margin: Any) -> Any:
    """For each rate the best 1 / beta, and the sum of squares that remains."""

    def one(log_rate: Any) -> Any:
        f, _ = _shape(log_rate, time)
        scale = f @ margin / (f @ f)
        return scale, jnp.sum((margin - scale * f) ** 2)

    return jax.lax.map(one, grid)


def fit_margin(time: np.ndarray, margin: np.ndarray) -> Fit:
    """Least squares for the logarithms of beta and rate; ``margin`` (rows,) is counted from the first row, in nats.

    Time 0 is that of the reference. To be called in float64.
    """
    nothing = Fit(None, None, None, None, None, None, "")
    if len(time) < 4:
        return nothing._replace(word="two constants need 4 rows or more")
    if margin[-1] <= 0:
        return nothing._replace(word="the margin has not grown")
    low, high = REACH - np.log(time[-1])
    grid = np.linspace(low, high, 61)
    scale, left = (np.asarray(x) for x in _misfit(grid, time, margin))
    best = int(np.argmin(np.where(scale > 0, left, np.inf)))

    def residuals(logs: np.ndarray) -> np.ndarray:
        return np.asarray(_shape(logs[1], time)[0])[1:] / np.exp(logs[0]) - margin[1:]

    def slopes(logs: np.ndarray) -> np.ndarray:
        f, df = (np.asarray(x)[1:] / np.exp(logs[0]) for x in _shape(logs[1], time))
        return np.stack([-f, df], axis=1)

    start = np.array([-np.log(scale[best]), np.clip(grid[best], low + 1e-6, high - 1e-6)])
    bounds = ([-np.inf, low], [np.inf, high])
    found = least_squares(residuals, start, slopes, bounds, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    beta, rate = np.exp(found.x)
    squares = float(np.sum(found.fun**2))
    r2 = 1 - squares / float(np.sum((margin - margin.mean()) ** 2))
    errors = _errors(found.jac, squares / (len(time) - 3))
    curve = np.concatenate([[0.0], margin[1:] + found.fun])
    fit = Fit(float(beta), float(rate), r2, errors, curve, float(rate * time[-1]), "")
    if (u := float(flow_margin(1 + fit.rate * time[-1]))) < STRAIGHT:
        return fit._replace(beta=None, rate=None, errors=None, clock=None,
                            word=f"the margin has hardly bent yet (beta times margin would be {u:.2g}): only rate / "
                            f"beta = {rate / beta:.4g} is known")  # fmt: skip
    if errors[0] > UNSURE:
        return fit._replace(beta=None, rate=None, errors=None, clock=None,
                            word="the margin is too noisy, or too straight, to tell beta")  # fmt: skip
    if errors[1] > UNSURE:
        return fit._replace(rate=None, clock=None, word="the log starts too late to tell the rate")
    return fit


def _errors(jacobian: np.ndarray, variance: float) -> tuple[float, float]:
    """Standard errors of two parameters; infinite where the columns are parallel."""
    (a, c), (_, b) = jacobian.T @ jacobian
    determinant = a * b - c**2
    if determinant <= 1e-12 * a * b:
        return np.inf, np.inf
    return float(np.sqrt(variance * b / determinant)), float(np.sqrt(variance * a / determinant))
