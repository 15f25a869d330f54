"""The one table of tolerances, each with its reason. Tests and the verdicts of experiments read it.

Two numbers a and b agree under a tolerance when |a - b| <= atol + rtol * max(|a|, |b|); both readings of a claim are
trusted equally, so neither is the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, sqrt
from typing import Any

import jax.numpy as jnp
import numpy as np

from sandbox.validate import in_range, one_of, positive


@dataclass(frozen=True)
class Tolerance:
    """How far apart two equal numbers may lie, ``atol`` in their unit and ``rtol`` as a share, and why that far."""

    rtol: float
    atol: float
    why: str

    def limit(self, a: Any, b: Any) -> Any:
        """Largest |a - b| allowed, elementwise (arrays broadcast)."""
        return self.atol + self.rtol * np.maximum(np.abs(a), np.abs(b))

    def allows(self, a: Any, b: Any) -> bool:
        """Whether all of ``a`` and ``b`` (arrays broadcast) are this close; inf agrees with inf, NaN with nothing."""
        a, b = np.asarray(a), np.asarray(b)
        with np.errstate(invalid="ignore"):  # inf - inf
            close = np.abs(a - b) <= self.limit(a, b)
        finite = np.isfinite(a) & np.isfinite(b)
        return bool(np.all(np.where(finite, close, a == b)))


IDENTITY = {
    "float64": Tolerance(
        rtol=1e-9,
        atol=1e-9,
        why="an identity in float64: sums of 1e3 terms round to 1e-13, cancellation may cost four digits more;"
        " absolute where terms of order one cancel",
    ),
    "float32": Tolerance(
        rtol=1e-4,
        atol=1e-4,
        why="an identity in float32: sums of 1e3 terms round to 6e-5; absolute where terms of order one cancel",
    ),
}
GOLDEN = {
    "float64": Tolerance(
        rtol=1e-6,
        atol=1e-9,
        why="a recorded number: printed references carry seven digits; what rounding differs between machines and"
        " versions of JAX stays far below",
    ),
    "float32": Tolerance(
        rtol=1e-4,
        atol=1e-5,
        why="recorded in float64, computed in float32: 1e3 training steps were seen to part the two by 6e-6; tenfold"
        " room for longer runs",
    ),
}


def identity(dtype: Any = None) -> Tolerance:
    """Tolerance of an identity in ``dtype`` (float32 or float64; by default the precision now in force)."""
    return IDENTITY[_precision(dtype)]


def golden(dtype: Any = None) -> Tolerance:
    """Tolerance of a committed number, computed again in ``dtype`` (by default the precision now in force)."""
    return GOLDEN[_precision(dtype)]


def monte_carlo(standard_error: float, k: float = 4) -> Tolerance:
    """``k`` standard errors, for a mean estimated at a fixed key.

    ``standard_error`` is in the unit of the mean; of a vector of means compare the z-scores, with ``standard_error=1``.
    Raises ValueError unless 0 < standard_error and 0 < k <= 10.
    """
    positive("standard_error", standard_error)
    in_range("k", k, 0, 10, "(]")
    keys = 1 / erfc(k / sqrt(2))
    return Tolerance(0.0, k * standard_error, f"{k:g} standard errors: a right formula fails at one key in {keys:,.0f}")


def step_error(step: float, constant: float, because: str, order: int = 1) -> Tolerance:
    """``constant * step**order``: what a discretised flow may differ by from the flow itself.

    ``step`` is the step size (time), ``order`` that of the method (1 for gradient descent), and ``because`` says where
    the constant comes from, say "half of max |m''| times the time run". Raises ValueError unless all numbers are > 0.
    """
    positive("step", step)
    positive("constant", constant)
    positive("order", order)
    power = "" if order == 1 else f"^{order}"
    return Tolerance(0.0, constant * step**order, f"the flow in steps of {step:g}: {constant:g} step{power}; {because}")


def _precision(dtype: Any) -> str:
    name = jnp.dtype(jnp.result_type(float) if dtype is None else dtype).name
    return one_of("dtype", name, IDENTITY)
