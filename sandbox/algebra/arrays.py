"""The words on JAX arrays: stable at any magnitude, differentiable where the formula is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

exp = jnp.exp
log = jnp.log
sqrt = jnp.sqrt
tanh = jnp.tanh
cosh = jnp.cosh
sinh = jnp.sinh
sigmoid = jax.nn.sigmoid
log_sigmoid = jax.nn.log_sigmoid
softplus = jax.nn.softplus
relu = jax.nn.relu
softmax = jax.nn.softmax
log_softmax = jax.nn.log_softmax


def step(x: Any) -> Array:
    x = jnp.asarray(x)
    return jnp.where(x > 0, jnp.ones_like(x), jnp.zeros_like(x))


def log1mexp(x: Any) -> Array:
    """Two formulas meet at -log 2; each is evaluated only where it is safe, so that no NaN enters a gradient."""
    x = jnp.asarray(x)
    near_zero = x > -jnp.log(2.0).astype(x.dtype)
    small = jnp.where(near_zero, x, -1)
    large = jnp.where(near_zero, -1, x)
    return jnp.where(near_zero, jnp.log(-jnp.expm1(small)), jnp.log1p(-jnp.exp(large)))


@jax.custom_jvp
def _flow_margin(s: Array) -> Array:
    # y + e^y - s is convex and increasing: Newton's method descends to its root from any start on the right
    right = jnp.where(s > 1, jnp.log(jnp.maximum(s, 1)), s)
    return jax.lax.fori_loop(0, 8, lambda _, y: y - (y + jnp.exp(y) - s) / (1 + jnp.exp(y)), right)


@_flow_margin.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = _flow_margin(*primals)
    return y, tangents[0] / (1 + jnp.exp(y))


def flow_margin(s: Any) -> Array:
    return _flow_margin(jnp.asarray(s, jnp.result_type(s, float)))


def exp_excess(x: Any) -> Array:
    return jnp.expm1(x) - x


def tanh_excess(x: Any) -> Array:
    return x - jnp.tanh(x)


def total(x: Any) -> Array:
    return jnp.sum(x, axis=-1)


def dot(a: Any, b: Any) -> Array:
    return jnp.sum(a * b, axis=-1)


def mean(x: Any) -> Array:
    return jnp.mean(x, axis=-1)


def logsumexp(x: Any) -> Array:
    return jax.scipy.special.logsumexp(x, axis=-1)


def kl(p: Any, q: Any) -> Array:
    inside = p > 0
    safe = jnp.where(inside, p, 1)  # a second `where`, so that log 0 enters no gradient either
    return jnp.sum(jnp.where(inside, p * (jnp.log(safe) - jnp.log(jnp.where(inside, q, 1))), 0), axis=-1)


def onehot(index: Any, like: Any) -> Array:
    return jax.nn.one_hot(index, like.shape[-1], dtype=jnp.result_type(like, float))


def stack(*xs: Any) -> Array:
    dtype = jnp.result_type(*xs, float)
    return jnp.stack([jnp.asarray(x, dtype) for x in xs], axis=-1)


def outer(a: Any, b: Any) -> Array:
    return a[..., :, None] * b[..., None, :]


def _floating(x: Any) -> Array:
    """A number that can be differentiated; the precision of a floating one is kept."""
    return x if jnp.issubdtype(jnp.result_type(x), jnp.floating) else jnp.asarray(x, jnp.result_type(float))


def grad(f: Callable[[Any], Any]) -> Callable[[Any], Array]:
    return lambda x: jax.grad(f)(_floating(x))


def velocity(path: Callable[[Any], Any]) -> Callable[[Any], Array]:
    return lambda t: jax.jvp(path, (t := _floating(t),), (jnp.ones_like(t),))[1]


def along(quantity: Callable[[Any], Any], field: Callable[[Any], Any]) -> Callable[[Any], Array]:
    return lambda z: jax.jvp(quantity, (z,), (field(z),))[1]
