"""Checks of arguments, made before anything is compiled. A ValueError names the argument, its value, what is allowed.

Only what is known is checked. A value traced by ``jit``, ``vmap`` or ``grad`` and a symbol of a symbolic reading pass,
since nobody knows them yet; numbers, NumPy arrays and JAX arrays outside a transformation are looked at, also when the
code around them is being traced. Each check returns its argument: ``step_size = positive("step_size", step_size)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from numbers import Number
from typing import Any, TypeVar

import jax
import numpy as np

__all__ = [
    "broadcastable",
    "finite",
    "in_range",
    "known",
    "negative",
    "nonnegative",
    "one_of",
    "positive",
    "require",
    "whole",
]

T = TypeVar("T")


def known(x: Any) -> np.ndarray | None:
    """``x`` as a NumPy array if its values are known now; None for a tracer, a symbol or an array of symbols."""
    if isinstance(x, jax.core.Tracer):
        return None
    if isinstance(x, (np.ndarray, np.generic, jax.Array)):
        return None if x.dtype == object else np.asarray(x)
    return np.asarray(x, float) if isinstance(x, Number) else None  # sympy's numbers are, its symbols are not


def require(name: str, x: T, holds: Callable[[np.ndarray], Any], allowed: str) -> T:
    """Return ``x``; raise ValueError with its first element for which ``holds``, applied elementwise, is false."""
    values = known(x)
    if values is not None and not (good := np.asarray(holds(values))).all():
        where = tuple(np.argwhere(~good)[0].tolist())
        raise ValueError(f"{name}{list(where) or ''} = {values[where] if where else x}: must be {allowed}")
    return x


def finite(name: str, x: T) -> T:
    """Return ``x``; raise ValueError on a NaN or an infinity."""
    return require(name, x, np.isfinite, "finite")


def positive(name: str, x: T) -> T:
    """Return ``x``; raise ValueError unless 0 < x < infinity."""
    return require(name, x, lambda v: (v > 0) & np.isfinite(v), "finite and > 0")


def nonnegative(name: str, x: T) -> T:
    """Return ``x``; raise ValueError unless 0 <= x < infinity."""
    return require(name, x, lambda v: (v >= 0) & np.isfinite(v), "finite and >= 0")


def negative(name: str, x: T) -> T:
    """Return ``x``; raise ValueError unless -infinity < x < 0."""
    return require(name, x, lambda v: (v < 0) & np.isfinite(v), "finite and < 0")


def in_range(name: str, x: T, low: float, high: float, ends: str = "[]") -> T:
    """Return ``x``; raise ValueError unless it is from ``low`` to ``high``; ``ends="[)"`` means low <= x < high."""
    above = np.greater_equal if ends[0] == "[" else np.greater
    below = np.less_equal if ends[1] == "]" else np.less
    return require(name, x, lambda v: above(v, low) & below(v, high), f"in {ends[0]}{low}, {high}{ends[1]}")


def one_of(name: str, x: T, allowed: Collection[T]) -> T:
    """Return ``x``; raise ValueError unless it is one of ``allowed``."""
    if x not in allowed:
        raise ValueError(f"{name} = {x!r}: must be one of {', '.join(map(repr, allowed))}")
    return x


def broadcastable(name: str, fields: Mapping[str, Any]) -> None:
    """Raise ValueError unless the arrays among ``fields`` have the same number of axes and broadcast.

    A batch of shape [n] never meets one of shape [n, 1] by mistake. Shapes are known of traced values too.
    """
    arrays = {field: x for field, x in fields.items() if isinstance(x, (jax.Array, np.ndarray))}
    shapes = {field: x.shape for field, x in arrays.items() if x.shape}
    axes = zip(*shapes.values(), strict=False)
    if len({len(shape) for shape in shapes.values()}) > 1 or any(len({*sizes} - {1}) > 1 for sizes in axes):
        raise ValueError(f"{name} has the shapes {shapes}: must be scalars, or have as many axes each and broadcast")


def whole(name: str, n: Any, least: int = 1) -> int:
    """Return ``n``; raise ValueError unless it is a whole number of at least ``least``."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < least:
        raise ValueError(f"{name} = {n!r}: must be a whole number of at least {least}")
    return int(n)
