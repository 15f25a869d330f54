"""Recalibrators: maps of a classifier's log-probabilities, by one interface.

Each is a frozen dataclass of its options with ``init(key, log_probs)``, parameters (a dictionary of arrays) at which it
changes nothing, and ``apply(params, log_probs)``, log-probabilities (N, C) in and out; pure functions, for ``jit``,
``grad`` and ``vmap``. ``keeps_order``: a sample's classes stay in their order, hence its top-k accuracy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import log_softmax
from jax.scipy.special import logsumexp

from sandbox.validate import positive, whole

__all__ = [
    "MAPS", "Isotonic", "MatrixScaling", "Mixture", "MonotoneNetwork", "Piecewise", "Recalibrator", "Temperature",
    "VectorScaling",
]  # fmt: skip

Params = dict[str, Any]


class Recalibrator(ABC):
    """What every map offers."""

    name: ClassVar[str]
    keeps_order: ClassVar[bool] = True

    @abstractmethod
    def init(self, key: Array, log_probs: Array) -> Params:
        """Parameters to start from, for predictions like ``log_probs`` (N, C)."""

    @abstractmethod
    def apply(self, params: Params, log_probs: Array) -> Array:
        """Recalibrated log-probabilities (N, C)."""


@dataclass(frozen=True)
class Temperature(Recalibrator):
    """softmax(|a| log p): one inverse temperature a = 1 / T."""

    name: ClassVar[str] = "temperature"

    def init(self, key: Array, log_probs: Array) -> Params:
        """T = 1."""
        return {"inverse": jnp.ones((), log_probs.dtype)}

    def apply(self, params: Params, log_probs: Array) -> Array:
        """Recalibrated log-probabilities (N, C)."""
        return log_softmax(jnp.abs(params["inverse"]) * log_probs)


@dataclass(frozen=True)
class Mixture(Recalibrator):
    """sum_r w_r softmax(|a_r| log p), w = |v| / sum |v|: a mixture of temperatures.

    It starts from inverse temperatures spread over [1/4, 4], equally weighted.
    """

    name: ClassVar[str] = "mixture"
    components: int = 16

    def init(self, key: Array, log_probs: Array) -> Params:
        """Inverse temperatures (R,) in geometric steps, equal weights (R,)."""
        spread = jnp.geomspace(0.25, 4, whole("components", self.components), dtype=log_probs.dtype)
        return {"inverse": spread, "weights": jnp.full_like(spread, 1 / self.components)}

    def apply(self, params: Params, log_probs: Array) -> Array:
        """Recalibrated log-probabilities (N, C)."""
        weights = jnp.abs(params["weights"])
        parts = log_softmax(jnp.abs(params["inverse"])[:, None, None] * log_probs[None])
        return logsumexp(parts, axis=0, b=(weights / jnp.sum(weights))[:, None, None])


def _stretch(log_probs: Array, slopes: Array, width: Any) -> Array:
    """log_softmax of -h(-log p), h piecewise linear from h(0) = 0 with slopes (S + 1,), the last for ever."""
    z = -log_probs
    segment = jnp.clip(jnp.floor(z / width), 0, slopes.size - 1).astype(jnp.int32)
    start = jnp.append(jnp.zeros(1, slopes.dtype), jnp.cumsum(slopes[:-1])) * width
    return log_softmax(-(start[segment] + slopes[segment] * (z - segment * width)))


@dataclass(frozen=True)
class Piecewise(Recalibrator):
    """softmax(-h(-log p)), h continuous and piecewise linear with slopes |s_k| on ``segments`` pieces of [0, top].

    Beyond ``top``, nats, a last slope goes on for ever. (The released map of h-calibration jumps at its knots.)
    """

    name: ClassVar[str] = "piecewise"
    segments: int = 10
    top: float = 10.0

    def init(self, key: Array, log_probs: Array) -> Params:
        """Slopes 1, the identity."""
        positive("top", self.top)
        return {"slopes": jnp.ones(whole("segments", self.segments) + 1, log_probs.dtype)}

    def apply(self, params: Params, log_probs: Array) -> Array:
        """Recalibrated log-probabilities (N, C)."""
        return _stretch(log_probs, jnp.abs(params["slopes"]), self.top / self.segments)


@dataclass(frozen=True)
class MonotoneNetwork(Recalibrator):
    """softmax(-h(-log p)), h the integral of a positive network: h' = ELU(net(u)) + 1, two hidden ReLU layers.

    u is z = -log p, standardised over the predictions that it starts from; the integral is by the midpoint rule on 256
    pieces from 0 to the largest z among them, and goes on with its last slope.
    """

    name: ClassVar[str] = "network"
    hidden: int = 10
    pieces: ClassVar[int] = 256

    def _network(self, key: Array, dtype: Any) -> tuple[Any, Any]:
        from flax import nnx  # 2 seconds to import, and few need it

        normal, zeros, rngs = nnx.initializers.he_normal(), nnx.initializers.zeros, nnx.Rngs(key)
        shapes = ((1, self.hidden, normal), (self.hidden, self.hidden, normal), (self.hidden, 1, zeros))
        layers: list[Any] = []
        for before, after, start in shapes:
            layers += [nnx.Linear(before, after, kernel_init=start, param_dtype=dtype, rngs=rngs), jax.nn.relu]
        return nnx.split(nnx.Sequential(*layers[:-1]))

    def init(self, key: Array, log_probs: Array) -> Params:
        """Random hidden layers, and zeros in the last: h' = 1."""
        whole("hidden", self.hidden)
        z = -log_probs
        leaves = jax.tree.leaves(self._network(key, log_probs.dtype)[1])
        frame = jnp.stack([jnp.mean(z), jnp.std(z), jnp.max(z)])
        return {"frame": jnp.maximum(frame, 1e-6), **{f"layer{n}": x for n, x in enumerate(leaves)}}

    def apply(self, params: Params, log_probs: Array) -> Array:
        """Recalibrated log-probabilities (N, C)."""
        from flax import nnx

        mean, deviation, top = jax.lax.stop_gradient(params["frame"])
        graph, like = self._network(jax.random.key(0), log_probs.dtype)
        state = jax.tree.unflatten(jax.tree.structure(like), [params[f"layer{n}"] for n in range(6)])
        width = top / self.pieces
        middles = (jnp.arange(self.pieces) + 0.5) * width
        net = nnx.merge(graph, state)
        slopes = jax.nn.elu(net(((middles - mean) / deviation)[:, None])[:, 0]) + 1
        return _stretch(log_probs, slopes, width)


@dataclass(frozen=True)
class VectorScaling(Recalibrator):
    """softmax(a * log p + b): a scale and a shift for each class. It may change the order."""

    name: ClassVar[str] = "vector"
    keeps_order: ClassVar[bool] = False

    def init(self, key: Array, log_probs: Array) -> Params:
        """Scales 1, shifts 0, the identity."""
        classes = log_probs.shape[1]
        return {"scale": jnp.ones(classes, log_probs.dtype), "shift": jnp.zeros(classes, log_probs.dtype)}

    def apply(self, params: Params, log_probs: Array) -> Array:
        """Recalibrated log-probabilities (N, C)."""
        return log_softmax(log_probs * params["scale"][None, :] + params["shift"][None, :])


@dataclass(frozen=True)
class MatrixScaling(Recalibrator):
    """softmax(W log p + b): C^2 + C numbers, unregularised. It may change the order."""

    name: ClassVar[str] = "matrix"
    keeps_order: ClassVar[bool] = False

    def init(self, key: Array, log_probs: Array) -> Params:
        """The identity."""
        classes = log_probs.shape[1]
        return {"weights": jnp.eye(classes, dtype=log_probs.dtype), "shift": jnp.zeros(classes, log_probs.dtype)}

    def apply(self, params: Params, log_probs: Array) -> Array:
        """Recalibrated log-probabilities (N, C)."""
        return log_softmax(log_probs @ params["weights"].T + params["shift"][None, :])


@dataclass(frozen=True)
class Isotonic(Recalibrator):
    """One non-decreasing map for each class's probability, linear between its knots, then rows made to sum to one.

    Its fit is least squares of class against not class. It may change the order.
    """

    name: ClassVar[str] = "isotonic"
    keeps_order: ClassVar[bool] = False

    def init(self, key: Array, log_probs: Array) -> Params:
        """The identity: knots 0 and 1."""
        knots = jnp.tile(jnp.asarray([0.0, 1.0], log_probs.dtype), (log_probs.shape[1], 1))
        return {"knots": knots, "values": knots}

    def apply(self, params: Params, log_probs: Array) -> Array:
        """Recalibrated log-probabilities (N, C)."""
        of_class = jax.vmap(jnp.interp, in_axes=(1, 0, 0), out_axes=1)
        p = of_class(jnp.exp(log_probs), params["knots"], params["values"])
        return jnp.log(p) - jnp.log(jnp.sum(p, axis=1, keepdims=True))

    def solve(self, log_probs: Any, labels: Any) -> Params:
        """Knots and values of the fit, kept half a count away from 0 and 1, padded to one length with the last."""
        from scipy.optimize import isotonic_regression

        p, y = np.exp(np.asarray(log_probs, float)), np.asarray(labels)
        room = 0.5 / len(y)
        found = []
        for k in range(p.shape[1]):
            order = np.argsort(p[:, k], kind="stable")
            x, first, count = np.unique(p[order, k], return_index=True, return_counts=True)
            hits = np.add.reduceat((y[order] == k).astype(float), first) / count
            fitted = np.clip(isotonic_regression(hits, weights=count).x, room, 1 - room)
            turns = np.ones(len(x), bool)  # inside of a block a knot says nothing new
            turns[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
            found.append((x[turns], fitted[turns]))
        longest = max(len(x) for x, _ in found)
        padded = [[np.pad(side, (0, longest - len(side)), mode="edge") for side in pair] for pair in found]
        knots, values = (jnp.asarray(np.stack(side), jnp.result_type(log_probs)) for side in zip(*padded, strict=True))
        return {"knots": knots, "values": values}


MAPS: dict[str, type[Recalibrator]] = {
    kind.name: kind
    for kind in (Temperature, Mixture, Piecewise, MonotoneNetwork, VectorScaling, MatrixScaling, Isotonic)
}
