"""The closed forms of a and b, derived (C4): each from its family's cumulants, the table's entry on the right."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from sandbox.algebra import arrays_only, exp, log, softplus
from sandbox.expfam import gaussian, one_parameter
from sandbox.expfam.one_parameter import VARIANCES, cumulants, well_specified
from sandbox.expfam.terms import risk
from theory.pn_criterion.expansion import derivatives
from theory.pn_criterion.geometry import PAPER
from theory.statement import All, Domain, Equal, Positive, Rate, Real, SameSign, Source, Unit, theorem

ONE_TO_TWO = Domain("positive", make=lambda k: 1 + 1 / (1 + k))
JET_OF_V: dict[str, Any] = dict(v=Positive(), v1=Real(), v2=Real())


def jet(v, v1, v2):
    """A variance function with these derivatives at 0."""
    return lambda m: v + v1 * m + v2 * m**2 / 2


@theorem(Source(PAPER, "ours"), r"\kappa_3 = VV',\; \kappa_4 = V(VV')'", claim="C4", t=Real(), k=Positive())
def cumulants_by_the_variance_function(t, k):
    """The derivatives of psi are those of the variance function at the mean: Bernoulli, Poisson and gamma laws."""

    def agree(psi, variance, theta):
        mean, *rest = derivatives(psi, theta)
        return [Equal(x, y) for x, y in zip(rest, cumulants(variance, mean), strict=True)]

    return All(
        *agree(softplus, VARIANCES["bernoulli"], t)[::-1],
        *agree(exp, VARIANCES["poisson"], log(k)),
        *agree(lambda t: -k * log(-t), lambda m: m**2 / k, -k),
    )


@theorem(Source(PAPER, "ours"),
         r"b = \frac{1}{24}\left(10\frac{V'^2}{V} - 9V''\right) = \frac{19\,skew^2 - 9\,exkurt}{24}", claim="C4",
         **JET_OF_V)  # fmt: skip
def well_specified_by_the_variance_function(v, v1, v2):
    """A right model of one natural parameter; or by the skewness and excess kurtosis of its statistic."""
    found = risk(well_specified(jet(v, v1, v2), 0 * v))
    skewness, kurtosis = v1**2 / v, (v1**2 + v * v2) / v
    return All(
        Equal(found.b, (10 * v1**2 / v - 9 * v2) / 24),
        Equal(found.b, (19 * skewness - 9 * kurtosis) / 24),
        Equal(24 * found.a, 12 + 0 * v),
    )


@theorem(Source(PAPER, "ours"),
         r"b = -\frac{V'\kappa_3^g}{3V^2} + \frac{3\Sigma^2}{8V^3}(2V'^2 - VV'')", claim="C4",
         **JET_OF_V, true_V=Positive(), true_k3=Real())  # fmt: skip
def misspecified_by_the_variance_function(v, v1, v2, true_V, true_k3):
    """A wrong model of one natural parameter: the truth's variance and third cumulant enter."""
    found = risk(one_parameter.terms(jet(v, v1, v2), 0 * v, true_V, true_k3))
    square = 3 * true_V**2 / (8 * v**3) * (2 * v1**2 - v * v2)
    return Equal(found.b, square - v1 * true_k3 / (3 * v**2))


def right(name):
    """a and b of a family of the table at a mean, the model being right."""
    return lambda m: risk(well_specified(VARIANCES[name], m))


@theorem(Source(PAPER, "ours"),
         r"b = \tfrac{1}{12}\left(\tfrac{5}{q(1-q)} - 11\right),\; \tfrac{5}{12\lambda},\; \tfrac{11}{12k},\; 0",
         claim="C4", q=Unit(), m=Positive(), k=Positive())  # fmt: skip
def risks_of_right_models(q, m, k):
    """Bernoulli laws; Poisson laws; gamma laws of known shape k, exponential ones at 1; normal laws, variance known."""
    gamma = risk(well_specified(lambda m: m**2 / k, m))
    return All(
        Equal(right("bernoulli")(q).b, (5 / (q * (1 - q)) - 11) / 12),
        Equal(right("poisson")(m).b, 5 / (12 * m)),
        Equal(gamma.b, 11 / (12 * k)),
        Equal(right("exponential")(m).b, (11 + 0 * m) / 12),
        Equal(right("normal")(m).b, 0 * m),
        *(Equal(m * found.a, m / 2) for found in (right("bernoulli")(q), right("poisson")(m), gamma)),
    )


@theorem(Source(PAPER, "ours"), r"b < 0 \iff 11\mu^2 < 9", claim="C4", m=Real())
def second_order_can_be_negative(m):
    """Hyperbolic secant laws, V = 1 + mu^2: the second order lowers the risk where mu^2 < 9/11, to -3/4 at 0."""
    return SameSign(right("hyperbolic secant")(m).b, 11 * m**2 - 9, factor=1 / (12 * (1 + m**2)))


@theorem(Source(PAPER, "ours"),
         r"\left(\tfrac{1 + \lambda/r}{2}, \tfrac{5}{12\lambda} + \tfrac{1}{2r} + \tfrac{\lambda}{12r^2}\right),\;"
         r" \left(\tfrac{1}{2s}, \tfrac{11}{12s^2}\right)",
         claim="C4", m=Positive(), r=Positive(), s=Positive())  # fmt: skip
def risks_of_wrong_models(m, r, s):
    """(a, b) of the Poisson model on negative binomial data of size r, and of the exponential on gamma data of shape s.

    Overdispersed counts cost more; gamma data more regular than exponential ones, s > 1, cost as much as n s of those.
    """
    odds = m / r
    counts = one_parameter.terms(VARIANCES["poisson"], m, m * (1 + odds), m * (1 + odds) * (1 + 2 * odds))
    times = one_parameter.terms(VARIANCES["exponential"], m, m**2 / s, 2 * m**3 / s**2)
    return All(
        Equal(risk(counts).b, 5 / (12 * m) + 1 / (2 * r) + m / (12 * r**2)),
        Equal(risk(counts).a, (1 + odds) / 2),
        Equal(risk(times).b, 11 / (12 * s**2)),
        Equal(risk(times).a, 1 / (2 * s)),
    )


@theorem(Source(PAPER, "ours"), r"a = \frac{p}{2},\; b = \frac{d(10d^2 + 51d + 61)}{24}", claim="C4", d=Positive())
def risk_of_normal_laws(d):
    """N_d with all its d(d+3)/2 parameters on normal data: b grows like p^(3/2)."""
    found = risk(gaussian.terms(gaussian.normal_moments(d), d))
    return All(Equal(found.b, d * (10 * d**2 + 51 * d + 61) / 24), Equal(found.a, d * (d + 3) / 4))


@theorem(Source(PAPER, "ours"), r"a = \frac{d + \beta}{4}", claim="C4",
         d=Positive(), kurtosis=Positive(), sixth=Positive(), pull=Positive(), shape=Positive(), skewness=Positive(),
         fourth=Positive())  # fmt: skip
def risk_of_the_normal_model(d, kurtosis, sixth, pull, shape, skewness, fourth):
    """N_d on any data: a is Mardia's kurtosis and d; b is six moments of the whitened data."""
    found = risk(gaussian.terms(gaussian.Moments(kurtosis, sixth, pull, shape, skewness, fourth), d))
    b = (3 * fourth + 12 * skewness + 6 * shape + 12 * pull - 6 * kurtosis) / 8 - sixth / 3
    return All(Equal(found.b, b + d * (18 * d + 35) / 24), Equal(found.a, (d + kurtosis) / 4))


# -- exact risks, of which these are the beginnings --------------------------------------------------------------------

SIZES = (200.0, 400.0, 800.0, 1600.0)


def left_over(exact, found, times):
    """n and what a/n + b/n^2 leave of an exact risk: of the order n^-3, within 0.1: the next is some 10/n of it."""
    arrays_only("a slope over n")
    n = times * jnp.array(SIZES)
    return Rate(n, exact(n) - found.at(n), -3, within=0.1)


@theorem(Source(PAPER, "ours"),
         r"R = \psi_0(ns) - \log ns + \frac{ns}{ns-1} - 1", claim="C4", expect="checked", s=ONE_TO_TWO)  # fmt: skip
def exact_risk_of_the_exponential_model(s):
    """The exact risk of the exponential model on gamma data, from 1 to 2 of shape, begins with these two terms."""
    terms = one_parameter.terms(VARIANCES["exponential"], 1.0, 1 / s, 2 / s**2)
    return left_over(lambda n: one_parameter.exact_exponential_risk(n, s), risk(terms), 1)


@theorem(Source(PAPER, "ours"),
         r"R = \tfrac12\left[\sum_i \psi_0(\tfrac{n-i}{2}) + d\log\tfrac2n + \frac{d(n+1)}{n-d-2} - d\right]",
         claim="C4", expect="checked", c=ONE_TO_TWO)  # fmt: skip
def exact_risk_of_normal_laws(c):
    """The exact risk of N_d on normal data begins with these two terms, from 200 c to 1600 c draws, d = 1, 2 and 3."""
    found = [
        left_over(lambda n, d=d: gaussian.exact_risk(n, d), risk(gaussian.terms(gaussian.normal_moments(d), d)), c)
        for d in (1, 2, 3)
    ]
    return All(*found)
