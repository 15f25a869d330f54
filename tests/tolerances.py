"""The table of tolerances, which experiments share, and the assertion that reads it."""

from __future__ import annotations

from typing import Any

import numpy as np

from sandbox.tolerances import GOLDEN, IDENTITY, Tolerance, golden, identity, monte_carlo, step_error

__all__ = ["GOLDEN", "IDENTITY", "Tolerance", "assert_close", "golden", "identity", "monte_carlo", "step_error"]


def assert_close(found: Any, expected: Any, tolerance: Tolerance | None = None, what: str = "") -> None:
    """Fail unless the shapes broadcast and ``tolerance`` (by default ``identity()``) allows every pair.

    The message names ``what``, the worst pair, the gap, and the tolerance with its reason.
    """
    tolerance = identity() if tolerance is None else tolerance
    if tolerance.allows(found, expected):
        return
    found, expected = np.broadcast_arrays(np.asarray(found), np.asarray(expected))
    with np.errstate(invalid="ignore"):
        excess = np.abs(found - expected) - tolerance.limit(found, expected)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
    a, b = found[worst], expected[worst]
    raise AssertionError(
        f"{what or 'values'} at {list(map(int, worst))}: {a!r} and {b!r} differ by {abs(a - b):.3g};"
        f" allowed {tolerance.limit(a, b):.3g} ({tolerance.why})"
    )
