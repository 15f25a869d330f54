"""The weights of the losses that know a pair of one-token responses through its margin alone: what sweeps train with.

Such a loss l pushes the chosen up as hard as the rejected down, d_w = d_l = -dl/dh. Each function here is that, in
closed form, with the loss's constants; ``losses.margin_weights``, which differentiates the loss itself, is its test. In
float32 the exponential is a polynomial, right to a few units of the last digit as XLA's own is, in half of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from sandbox import losses

__all__ = ["fast_exp", "margin_weight"]

_FIT = np.polynomial.Chebyshev.interpolate(lambda f: 2.0**f, 5, domain=[-0.5, 0.5])
_POWER = _FIT.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)  # of 2^f for f within 1/2 of 0
_ROUNDS = np.float32(1.5 * 2**23)


def fast_exp(x: Array) -> Array:
    """e^x; in float32 for results from 1e-38 to 1e38, beyond which it stays there."""
    if x.dtype != jnp.float32:
        return jnp.exp(x)
    power = jnp.clip(x * np.float32(1 / np.log(2)), -126, 126)
    rest, value = power - jnp.round(power), jnp.full_like(x, _POWER[-1])
    for coefficient in _POWER[-2::-1]:
        value = value * rest + coefficient
    rounded = lax.bitcast_convert_type(power + _ROUNDS, jnp.int32)  # the nearest whole number in the last bits
    return lax.bitcast_convert_type(lax.bitcast_convert_type(value, jnp.int32) + (rounded << 23), jnp.float32)


def _log1p(x: Array) -> Array:
    """log(1 + x) for x from 0 to 1; in float32 by the odd series of 2 artanh(x / (2 + x)), whose next term is 1e-8."""
    if x.dtype != jnp.float32:
        return jnp.log1p(x)
    ratio = x / (2 + x)
    value = jnp.zeros_like(x)
    for power in range(13, 0, -2):
        value = value * (ratio * ratio) + np.float32(2 / power)
    return value * ratio


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + fast_exp(-x)) if x.dtype == jnp.float32 else jax.nn.sigmoid(x)


def _dpo(h: Array, *, beta: Any) -> Array:
    return beta * _sigmoid(-beta * h)


def _rdpo(h: Array, *, beta: Any, alpha: Any) -> Array:
    return _dpo(h, beta=beta)  # the lengths are equal


def _simpo(margin: Array, *, beta: Any, gamma: Any) -> Array:
    return beta * _sigmoid(gamma - beta * margin)


def _cdpo(h: Array, *, beta: Any, epsilon: Any) -> Array:
    return beta * (_sigmoid(-beta * h) - epsilon)


def _robust_dpo(h: Array, *, beta: Any, epsilon: Any) -> Array:
    return beta * (_sigmoid(-beta * h) + epsilon / (1 - 2 * epsilon))


def _ipo(h: Array, *, tau: Any) -> Array:
    return 1 / tau - 2 * h


def _hinge(h: Array, *, beta: Any) -> Array:
    return jnp.where(beta * h < 1, beta, jnp.zeros_like(h))


def _exo(h: Array, *, beta: Any, epsilon: Any) -> Array:
    # sigmoid(u) sigmoid(-u) (c - u); both factors by one exponential of -|u|, so that none is a difference near 1
    u = beta * h
    small = fast_exp(-jnp.abs(u))
    return beta * small / ((1 + small) * (1 + small)) * (jnp.log((1 - epsilon) / epsilon) - u)


def _discopop(h: Array, *, beta: Any, tau: Any) -> Array:
    u = beta * h
    x = u / tau
    small, tiny = fast_exp(-jnp.abs(u)), fast_exp(-jnp.abs(x))
    both = 1 / (1 + tiny)  # M and 1 - M are this and this times tiny, in the order of the sign
    blend, other = jnp.where(x > 0, both, tiny * both), jnp.where(x > 0, tiny * both, both)
    grown = fast_exp(jnp.minimum(x, 0) - u) * both  # M e^-u, where neither factor is a float
    falls = jnp.where(u > 0, small, jnp.ones_like(u)) / (1 + small)
    plain = _log1p(small) + jnp.maximum(-u, 0)
    return beta * (other * (falls - (grown - blend * plain) / tau) + grown)


_WEIGHTS: dict[Callable[..., Any], Callable[..., Array]] = {
    losses.dpo: _dpo,
    losses.rdpo: _rdpo,
    losses.cdpo: _cdpo,
    losses.robust_dpo: _robust_dpo,
    losses.ipo: _ipo,
    losses.hinge: _hinge,
    losses.exo: _exo,
    losses.discopop: _discopop,
    losses.simpo: _simpo,
}


def margin_weight(loss: Callable[..., Any]) -> Callable[..., Array] | None:
    """The weight as a function of h, of A_ref - B_ref and of the constants that ``loss`` leaves open.

    ``loss`` is a loss or a ``functools.partial`` of one; a constant that is nowhere given is the paper's. None for a
    loss of more than the margin.
    """
    whole = loss if isinstance(loss, partial) else partial(loss)
    if whole.func not in _WEIGHTS:
        return None
    weight = _WEIGHTS[whole.func]
    names = {p.name: p.default for p in signature(whole.func).parameters.values() if p.kind is p.KEYWORD_ONLY}
    given = {name: x for name, x in {**names, **whole.keywords}.items() if name != "reduction"}

    def of_margin(h: Array, reference: Array, **constants: Any) -> Array:
        return weight(h + reference if whole.func is losses.simpo else h, **{**given, **constants})

    return of_margin
