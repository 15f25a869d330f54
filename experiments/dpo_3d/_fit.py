"""The margin of a log against its closed form under DPO: g = y(1 + c t) / beta, y + e^y = s (C6)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.special import wrightomega

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


def _shape(log_rate: float, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """beta times the margin gained since the first time, and its derivative by the logarithm of the rate.

    y(s) is the logarithm of Wright's omega function: sandbox.algebra.flow_margin, at once and without compiling.
    """
    s = np.exp(log_rate) * time
    power = wrightomega(1 + s)  # e^y
    u, slope = np.log(power), s / (1 + power)
    return u - u[0], slope - slope[0]


def _best_scale(log_rate: float, time: np.ndarray, margin: np.ndarray) -> tuple[float, float]:
    """The best 1 / beta at this rate, and the sum of squares that remains."""
    f, _ = _shape(log_rate, time)
    scale = f @ margin / (f @ f)
    return scale, np.sum((margin - scale * f) ** 2)


def fit_margin(time: np.ndarray, margin: np.ndarray) -> Fit:
    """Least squares for the logarithms of beta and rate; ``margin`` (rows,) is counted from the first row, in nats.

    Time 0 is that of the reference.
    """
    nothing = Fit(None, None, None, None, None, None, "")
    if len(time) < 4:
        return nothing._replace(word="two constants need 4 rows or more")
    if margin[-1] <= 0:
        return nothing._replace(word="the margin has not grown")
    low, high = REACH - np.log(time[-1])
    grid = np.linspace(low, high, 61)
    scale, left = np.array([_best_scale(log_rate, time, margin) for log_rate in grid]).T
    best = int(np.argmin(np.where(scale > 0, left, np.inf)))

    def residuals(logs: np.ndarray) -> np.ndarray:
        return _shape(logs[1], time)[0][1:] / np.exp(logs[0]) - margin[1:]

    def slopes(logs: np.ndarray) -> np.ndarray:
        f, df = (x[1:] / np.exp(logs[0]) for x in _shape(logs[1], time))
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
    if (u := float(np.log(wrightomega(1 + rate * time[-1])))) < STRAIGHT:
        return fit._replace(beta=None, rate=None, errors=None, clock=None,
                            word=f"the margin has not bent down yet (beta times margin would be {u:.2g}): only rate / "
                            f"beta = {rate / beta:.4g} is known")  # fmt: skip
    if errors[0] > UNSURE:
        return fit._replace(beta=None, rate=None, errors=None, clock=None,
                            word="the margin is too noisy, or too straight, to tell beta")  # fmt: skip
    if errors[1] > UNSURE:
        return fit._replace(rate=None, clock=None, word="the log starts too late, or is too noisy, to tell the rate")
    return fit


def _errors(jacobian: np.ndarray, variance: float) -> tuple[float, float]:
    """Standard errors of two parameters; infinite where the columns are parallel."""
    (a, c), (_, b) = jacobian.T @ jacobian
    determinant = a * b - c**2
    if determinant <= 1e-12 * a * b:
        return np.inf, np.inf
    return float(np.sqrt(variance * b / determinant)), float(np.sqrt(variance * a / determinant))
