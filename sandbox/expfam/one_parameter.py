"""Natural families of one parameter, by their variance function V(mean): with it come all cumulants.

Morris's table: constant, linear and quadratic V are the normal, Poisson, binomial, gamma and hyperbolic secant laws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import digamma

from sandbox.algebra import velocity
from sandbox.expfam.terms import Terms, of_one_parameter

__all__ = ["VARIANCES", "cumulants", "exact_exponential_risk", "terms", "well_specified"]

Variance = Callable[[Any], Any]

VARIANCES: dict[str, Variance] = {
    "normal": lambda m: 1 + 0 * m,
    "poisson": lambda m: m,
    "bernoulli": lambda m: m * (1 - m),
    "exponential": lambda m: m**2,
    "hyperbolic secant": lambda m: 1 + m**2,
}


def cumulants(variance: Variance, mean: Any) -> tuple[Any, Any, Any]:
    """(V, V V', V (V V')'): second to fourth cumulant at a mean."""

    def third(m: Any) -> Any:
        return variance(m) * velocity(variance)(m)

    return variance(mean), third(mean), variance(mean) * velocity(third)(mean)


def terms(variance: Variance, mean: Any, true_variance: Any, true_k3: Any) -> Terms:
    """Terms of the family at its projection, whose mean is the truth's: the truth's variance and third cumulant."""
    return of_one_parameter(*cumulants(variance, mean), true_variance, true_k3)


def well_specified(variance: Variance, mean: Any) -> Terms:
    """The same where the truth is a member."""
    second, third, fourth = cumulants(variance, mean)
    return of_one_parameter(second, third, fourth, second, third)


def exact_exponential_risk(n: Any, shape: Any) -> Array:
    """E KL(g* || ghat) of the exponential model on n gamma draws of that shape (1: exponential ones), n shape > 1."""
    x = jnp.asarray(n * shape, jnp.result_type(float))
    return digamma(x) - jnp.log(x) + x / (x - 1) - 1
