"""Fitting recalibrators on held-out predictions, and keeping them.

>>> from sandbox.calibration import Temperature, nll
>>> logits, labels = 3 * jnp.eye(2)[jnp.array([0, 0, 1, 1])], jnp.array([0, 0, 1, 0])     # surer than it is right
>>> fitted = fit(Temperature(), logits, labels, nll, key=jax.random.key(0))
>>> bool(fitted(logits)[3, 1] < jax.nn.log_softmax(logits)[3, 1])                         # save(path, fitted)
True
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.nn import log_softmax

from sandbox.calibration.maps import MAPS, Isotonic, Params, Recalibrator, Temperature
from sandbox.calibration.objective import brier, nll
from sandbox.dynamics import train
from sandbox.validate import finite, known, one_of

__all__ = ["COLDEST", "HOTTEST", "Fitted", "fit", "fit_temperature", "load", "save"]

Objective = Callable[[Array, Array], Array]
COLDEST, HOTTEST = 1e-3, 1e3  # temperatures at which a fit stops: beyond, there is no finite optimum
NEWTON = 60  # iterations at most; from T = 1 an ordinary fit takes five


class Fitted(NamedTuple):
    """A map with its parameters; called with logits (N, C) it returns recalibrated log-probabilities (N, C).

    before, after: the objective at the start (temperatures, slopes and scales 1) and at the end of the fit.
    """

    map: Recalibrator
    params: Params
    before: Any = None
    after: Any = None

    def __call__(self, logits: Any) -> Array:
        """Recalibrated log-probabilities (N, C) of logits, or of log-probabilities, (N, C)."""
        return _applied(self.map, self.params, jnp.asarray(logits))


@partial(jax.jit, static_argnums=0)
def _applied(recalibrator: Recalibrator, params: Params, logits: Array) -> Array:
    return recalibrator.apply(params, log_softmax(logits))


@dataclass(frozen=True)
class _Training:
    """The objective as a function of a map's parameters; equal for equal options, so that it compiles once."""

    recalibrator: Recalibrator
    objective: Objective

    def __call__(self, params: Params, log_probs: Array, labels: Array) -> Array:
        return self.objective(self.recalibrator.apply(params, log_probs), labels)


def fit(
    recalibrator: Recalibrator,
    logits: Any,
    labels: Any,
    objective: Objective = nll,
    *,
    key: Array,
    steps: int = 500,
    learning_rate: float = 0.02,
) -> Fitted:
    """Fit a map to logits, or log-probabilities, (N, C) and labels (N,) by minimising ``objective(log_probs, labels)``.

    ``nll``, ``brier``, an ``HLoss`` or any function of that kind. Full-batch Adam for ``steps`` steps; one temperature
    under ``nll`` by Newton's method, isotonic maps by least squares, the optimum of ``nll`` and ``brier`` alike. The
    precision is that of the logits, float32 at least.

    Raises ValueError for shapes that do not match, logits that are not finite, labels outside 0 to C - 1, labels that
    are all the same, an objective that an isotonic map has no fit for, and a fit that does not end at finite numbers:
    no map is ever returned unfitted.
    """
    logits, labels = checked(logits, labels)
    log_probs = log_softmax(logits)
    start = recalibrator.init(key, log_probs)
    loss = _Training(recalibrator, objective)
    if isinstance(recalibrator, Isotonic):
        if objective not in (nll, brier):
            raise ValueError(f"objective = {objective}: must be nll or brier, isotonic maps are fitted in closed form")
        params = recalibrator.solve(log_probs, labels)
    elif isinstance(recalibrator, Temperature) and objective is nll:
        temperature = fit_temperature(logits, labels)
        if not 1.01 * COLDEST < float(temperature) < 0.99 * HOTTEST:  # of float32, too
            raise ValueError(
                f"labels: the likelihood has no maximum at a finite temperature, the search ended at {temperature:.3g}:"
                " must have rows whose largest logit is wrong, and rows whose label is more likely than the others"
            )
        params = {"inverse": 1 / temperature}
    else:
        params = train(loss, start, (log_probs, labels), steps=steps, learning_rate=learning_rate,
                       optimizer=optax.adam).params  # fmt: skip
    for name, x in params.items():
        finite(f"fit of {recalibrator.name}: {name}", np.asarray(x))
    before, after = (_value(loss, at, log_probs, labels) for at in (start, params))
    return Fitted(recalibrator, params, float(before), float(after))


@partial(jax.jit, static_argnums=0)
def _value(loss: _Training, params: Params, log_probs: Array, labels: Array) -> Array:
    return loss(params, log_probs, labels)


def checked(logits: Any, labels: Any) -> tuple[Array, Array]:
    """Logits and labels as arrays of matching shape, looked at as far as they are known. Errors as ``fit``."""
    logits = jnp.asarray(logits, None if hasattr(logits, "dtype") else jnp.result_type(float))
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))  # whole numbers, and half precision as stored
    labels = jnp.asarray(labels)
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1] or not labels.size:
        raise ValueError(f"logits, labels: shapes {logits.shape}, {labels.shape}: must be (N, C), C >= 2, and (N,)")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels: {labels.dtype}: must be whole numbers")
    finite("logits", logits)
    values = known(labels)
    if values is not None:
        bad = np.flatnonzero((values < 0) | (values >= logits.shape[1]))
        if bad.size:
            raise ValueError(f"labels[{bad[0]}] = {values[bad[0]]}: must be from 0 to {logits.shape[1] - 1}")
        if np.all(values == values[0]):
            raise ValueError(f"labels: all are {values[0]}: must be of two classes at least")
    return logits, labels


@jax.jit
def fit_temperature(logits: Any, labels: Any) -> Array:
    """The temperature T that minimises the NLL of softmax(logits / T), (N, C) and (N,); ``jit``- and ``vmap``-able.

    Newton's method for the inverse temperature a, in which the NLL is convex, within factors of 4; it stops when a step
    is below the root of a rounding error. Where there is no finite optimum the answer is ``COLDEST`` or ``HOTTEST``.
    """
    logits = jnp.asarray(logits, jnp.result_type(logits, jnp.float32))
    z = logits - jnp.max(logits, axis=1, keepdims=True)
    right = jnp.mean(jnp.take_along_axis(z, labels[:, None], axis=1))
    small = jnp.sqrt(jnp.finfo(z.dtype).eps)  # the error after such a step is its square

    zero = jnp.zeros((), z.dtype)

    def added(x: tuple[Array, ...], y: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(a + b for a, b in zip(x, y, strict=True))

    def newton(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        a, _, count = state
        e = jnp.exp(a * z)
        mass, first, second = lax.reduce((e, e * z, e * z * z), (zero, zero, zero), added, (1,))  # in one pass
        mean = first / mass
        slope, curvature = jnp.mean(mean) - right, jnp.mean(second / mass - mean * mean)
        tiny = jnp.finfo(z.dtype).tiny
        new = jnp.clip(a - slope / jnp.maximum(curvature, tiny), a / 4, 4 * a)
        new = jnp.clip(new, 1 / HOTTEST, 1 / COLDEST).astype(z.dtype)
        return new, jnp.abs(new - a) / a, count + 1

    def going(state: tuple[Array, Array, Array]) -> Array:
        return (state[1] > small) & (state[2] < NEWTON)

    start = jnp.ones((), z.dtype), jnp.ones((), z.dtype), jnp.zeros((), int)
    a, step, _ = lax.while_loop(going, newton, start)
    return jnp.where(step > small, jnp.where(a > 1, COLDEST, HOTTEST), 1 / a).astype(z.dtype)


# -- files -------------------------------------------------------------------------------------------------------------


def save(file: str | Path | IO[bytes], fitted: Fitted) -> None:
    """Write a fitted map to an .npz file: its name, its options, its parameters."""
    about = json.dumps({"map": fitted.map.name, "options": asdict(fitted.map)})  # type: ignore[call-overload]
    arrays: dict[str, Any] = {f"params.{name}": np.asarray(x) for name, x in fitted.params.items()}
    np.savez(file, about=np.array(about), **arrays)


def load(file: str | Path | IO[bytes]) -> Fitted:
    """A map that ``save`` wrote. Raises ValueError for any other file."""
    if not isinstance(file, str | Path):
        return _loaded(file, file)
    with open(file, "rb") as opened:  # here, since NumPy leaves a torn file open
        return _loaded(opened, file)


def _loaded(opened: IO[bytes], file: Any) -> Fitted:
    try:
        with np.load(opened, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            params = {name.removeprefix("params."): jnp.asarray(stored[name]) for name in stored if name != "about"}
        recalibrator = MAPS[one_of("map", about["map"], MAPS)](**about["options"])
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: no recalibrator was saved there; calibration.save writes one ({error})") from None
    return Fitted(recalibrator, params)
