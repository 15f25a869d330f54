"""A model of one parameter that need not be an exponential family, on a finite alphabet: a curve of laws.

The target theta* of maximum likelihood is where E_g of the score vanishes. Three informations meet there, I under the
model, J and K under the truth; only in an exponential family are I and J the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox.algebra import dot, exp, velocity
from sandbox.expfam.terms import Expansion

__all__ = ["Informations", "expansion", "first_order", "informations", "tic_penalty"]


class Informations(NamedTuple):
    """model: I = -E_p l''; true: J = -E_g l''; score: K = E_g l'^2; l = log p_theta at theta*, per draw."""

    model: Any
    true: Any
    score: Any


def informations(log_law: Callable[[Any], Any], theta: Any, truth: Any) -> Informations:
    """I, J and K of theta -> log p_theta (K,) at theta*."""
    first, second = velocity(log_law)(theta), velocity(velocity(log_law))(theta)
    return Informations(-dot(exp(log_law(theta)), second), -dot(truth, second), dot(truth, first**2))


def first_order(found: Informations) -> Any:
    """a = I K / (2 J^2), the first-order risk times n."""
    return found.model * found.score / (2 * found.true**2)


def tic_penalty(found: Informations) -> Any:
    """K / (2 J): what Takeuchi's criterion adds to the mean loss, times n / 2."""
    return found.score / (2 * found.true)


def expansion(log_law: Callable[[Any], Any], theta: Any, truth: Any) -> Expansion:
    """a and b of E KL(p_theta* || p_thetahat) for theta -> log p_theta (K,), four times differentiable.

    From the third-order expansion of the score's root; d_k = -E_p l^(k) expands the divergence under the model.
    """
    path, rows = log_law, []
    for _ in range(4):
        path = velocity(path)
        rows.append(path(theta))
    l1, l2, l3, l4 = rows
    model = exp(log_law(theta))
    J, K, m3 = -dot(truth, l2), dot(truth, l1**2), dot(truth, l1**3)
    c12, c112, c22 = dot(truth, l1 * l2), dot(truth, l1**2 * (l2 + J)), dot(truth, (l2 + J) ** 2)
    c13 = dot(truth, l1 * l3)
    C, F = dot(truth, l3) / J, dot(truth, l4) / J
    d2, d3, d4 = -dot(model, l2), -dot(model, l3), -dot(model, l4)
    fourth = 3 * K * c22 + 6 * c12**2 + 12 * C * K * c12 + 15 / 4 * C**2 * K**2 + 3 * K * c13 + F * K**2
    square = 2 * c112 / J**3 + C * m3 / J**3 + fourth / J**4
    cube = m3 / J**3 + 9 * K * c12 / J**4 + 9 / 2 * C * K**2 / J**4
    return Expansion(d2 * K / (2 * J**2), d2 / 2 * square + d3 / 6 * cube + d4 / 8 * K**2 / J**4)
