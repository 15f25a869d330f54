"""The words that formulas are written in.

A formula written in these words has three readings, and the reading is a context, not a guess from the arguments:

- ``arrays`` (the default): the numerically stable JAX functions; under ``jit`` a word costs nothing.
- ``sizefree``: a vector is an indexed family of sympy expressions and ``total`` an unevaluated sum, so that an identity
  proved here holds at every size.
- ``concrete``: a vector is a NumPy array of sympy expressions at a size of 2, 3 or 4: the fallback and the cross-check.

>>> import sympy
>>> with reading("concrete"):
...     log_sigmoid(sympy.Symbol("x", real=True))
-log(1 + exp(-x))

Conventions: natural logarithms, nats. Reductions (``total``, ``softmax``, ``kl`` …) run over the last axis. Constants
are Python integers, fractions of them (``x / 2``) or decimal fractions (``0.6``); to symbols they are exact rationals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from sandbox.algebra import arrays

__all__ = [
    "along", "arrays_only", "cosh", "dot", "exp", "exp_excess", "flow_margin", "grad", "kl", "log", "log1mexp",
    "log_sigmoid", "log_softmax", "logsumexp", "mean", "onehot", "outer", "reading", "relu", "sigmoid", "sinh",
    "softmax", "softplus", "sqrt", "stack", "step", "tanh", "tanh_excess", "total", "velocity",
]  # fmt: skip

_current: ContextVar[ModuleType] = ContextVar("reading", default=arrays)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Read every word as ``"arrays"``, ``"sizefree"`` or ``"concrete"`` inside the ``with`` block.

    Raises ValueError for any other name.
    """
    if name == "arrays":
        module: ModuleType = arrays
    elif name in ("sizefree", "concrete"):
        from importlib import import_module  # sympy is imported only by those who prove

        module = import_module(f"sandbox.algebra.{name}")
    else:
        raise ValueError(f"reading: {name!r} is none of 'arrays', 'sizefree', 'concrete'")
    token = _current.set(module)
    try:
        yield
    finally:
        _current.reset(token)


def arrays_only(what: str) -> None:
    """Say that what follows is numerical, an integration or a fit: in a symbolic reading NotImplementedError."""
    if _current.get() is not arrays:
        raise NotImplementedError(f"{what} has no symbolic reading")


# -- elementwise ---------------------------------------------------------------------------------------------------


def exp(x: Any) -> Any:
    """e^x."""
    return _current.get().exp(x)


def log(x: Any) -> Any:
    """Natural logarithm of x > 0."""
    return _current.get().log(x)


def sqrt(x: Any) -> Any:
    """Square root of x >= 0."""
    return _current.get().sqrt(x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return _current.get().sigmoid(x)


def log_sigmoid(x: Any) -> Any:
    """log sigmoid(x), exact for x of any size."""
    return _current.get().log_sigmoid(x)


def softplus(x: Any) -> Any:
    """log(1 + e^x) = -log_sigmoid(-x)."""
    return _current.get().softplus(x)


def log1mexp(x: Any) -> Any:
    """log(1 - e^x) for x < 0: the log-probability of the complement of an event of log-probability x."""
    return _current.get().log1mexp(x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return _current.get().tanh(x)


def cosh(x: Any) -> Any:
    """Hyperbolic cosine."""
    return _current.get().cosh(x)


def sinh(x: Any) -> Any:
    """Hyperbolic sine."""
    return _current.get().sinh(x)


def relu(x: Any) -> Any:
    """max(x, 0), the hinge; its derivative is ``step(x)``, hence 0 at the kink."""
    return _current.get().relu(x)


def step(x: Any) -> Any:
    """1 where x > 0, else 0; its derivative is 0."""
    return _current.get().step(x)


def flow_margin(s: Any) -> Any:
    """The y that solves y + e^y = s (y = s - W(e^s), W Lambert's function, without its overflow).

    It is the margin of a logistic loss under gradient flow. dy/ds = 1 / (1 + e^y).
    """
    return _current.get().flow_margin(s)


def exp_excess(x: Any) -> Any:
    """e^x - 1 - x, never negative."""
    return _current.get().exp_excess(x)


def tanh_excess(x: Any) -> Any:
    """x - tanh x, never negative for x >= 0."""
    return _current.get().tanh_excess(x)


# -- over the last axis --------------------------------------------------------------------------------------------


def total(x: Any) -> Any:
    """Sum over the last axis."""
    return _current.get().total(x)


def dot(a: Any, b: Any) -> Any:
    """total(a * b)."""
    return _current.get().dot(a, b)


def mean(x: Any) -> Any:
    """Mean over the last axis."""
    return _current.get().mean(x)


def logsumexp(x: Any) -> Any:
    """log total(e^x)."""
    return _current.get().logsumexp(x)


def log_softmax(z: Any) -> Any:
    """z - logsumexp(z): logits to log-probabilities, in nats."""
    return _current.get().log_softmax(z)


def softmax(z: Any) -> Any:
    """e^z / total(e^z): logits to probabilities."""
    return _current.get().softmax(z)


def kl(p: Any, q: Any) -> Any:
    """KL(p || q) = total(p (log p - log q)) of two laws, in nats; 0 log 0 = 0."""
    return _current.get().kl(p, q)


# -- making vectors ------------------------------------------------------------------------------------------------


def onehot(index: Any, like: Any) -> Any:
    """The vector that is 1 at ``index`` and 0 elsewhere, as long as the last axis of ``like``."""
    return _current.get().onehot(index, like)


def stack(*xs: Any) -> Any:
    """A vector of the given scalars (no size-free reading: its size is known)."""
    return _current.get().stack(*xs)


def outer(a: Any, b: Any) -> Any:
    """The matrix a_i b_j of two vectors."""
    return _current.get().outer(a, b)


# -- derivatives ---------------------------------------------------------------------------------------------------


def grad(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Gradient of a scalar function of one array: autodiff on arrays, symbolic differentiation on symbols."""
    return _current.get().grad(f)


def velocity(path: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Derivative of a function of one scalar, whose values may be vectors."""
    return _current.get().velocity(path)


def along(quantity: Callable[[Any], Any], field: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Lie derivative of a scalar quantity along the flow dz/dt = field(z), as a function of z."""
    return _current.get().along(quantity, field)
