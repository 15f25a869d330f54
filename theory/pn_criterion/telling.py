"""From a divergence to the error of telling two laws apart (C7), and how sharp that is (C11).

Er = 1/2 total(min(p, q)) is the error of the best test between p and q at even odds. u is any test: the probability
with which it says "p", symbol by symbol.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.stats import norm

from sandbox.algebra import arrays_only, dot, kl, log, relu, sqrt, stack, total
from sandbox.expfam.criterion import bayes_error
from theory.pn_criterion.families import ONE_TO_TWO
from theory.pn_criterion.geometry import PAPER
from theory.statement import (
    AtMost,
    Bowl,
    Given,
    Positives,
    Simplex,
    Source,
    Tends,
    Unit,
    Units,
    theorem,
)


@theorem(Source(PAPER, "ours"), r"X\log\frac XY \le \sum x_i\log\frac{x_i}{y_i}", claim="C7",
         x=Positives("K"), y=Positives("K"))  # fmt: skip
def no_test_sees_more(x, y):
    """What one outcome of a test sees of two laws is at most what there is: the log-sum inequality, outcome by outcome.

    x = p u and y = q u are the parts of the two laws with which the test says so.
    """
    X, Y = total(x), total(y)
    return AtMost(X * (log(X) - log(Y)), dot(x, log(x) - log(y)), slack=X * kl(x / X, y / Y))


@theorem(Source(PAPER, "ours"), r"2(p-q)^2 \le KL(p\|q)", claim="C7", p=Unit(), q=Unit())
def pinsker_for_a_test(p, q):
    """Two outcomes: the squared difference of their probabilities is at most half the divergence."""

    def divergence(q):
        return p * (log(p) - log(q)) + (1 - p) * (log(1 - p) - log(1 - q))

    return Bowl(
        lambda q: 2 * (p - q) ** 2, divergence, at=q, bottom=p, factor=lambda q: (1 - 2 * q) ** 2 / (q * (1 - q))
    )


@theorem(Source(PAPER, "the bound in the author's programs"), r"D \le 8\alpha^2 \Rightarrow Er \ge \tfrac12 - \alpha",
         claim="C7", expect="checked", p=Simplex("K"), q=Simplex("K"))  # fmt: skip
def close_laws_cannot_be_told_apart(p, q):
    """1/2 - Er is at most sqrt(D / 8), D taken in either direction: Pinsker's bound for the best of all tests."""
    arrays_only("the best of all tests")
    lead = 1 / 2 - bayes_error(p, q)
    return AtMost(stack(lead, lead), sqrt(stack(kl(p, q), kl(q, p)) / 8 + 1e-30))


@theorem(Source(PAPER, "ours"), r"(E\sqrt{D/8})^2 \le E\,D/8", claim="C7", w=Simplex("m"), x=Positives("m"))
def mean_risk_bounds_the_mean_error(w, x):
    """Over samples, with x = sqrt(D / 8): if the risk is at most 8 alpha^2, then 1/2 - E Er is at most alpha."""
    mean = dot(w, x)
    return AtMost(mean**2, dot(w, x**2), slack=dot(w, (x - mean) ** 2))


def lead_over_bound(p, q):
    """(1/2 - Er) / sqrt(D / 8): 1 if the bound is sharp."""
    return (1 / 2 - bayes_error(p, q)) / sqrt(kl(p, q) / 8)


def step_of(x):
    """From 0.03 to 0.001 on the way of a limit: closer, the divergence drowns in rounding."""
    arrays_only("a limit of floats")
    return x ** (3 / 8)


@theorem(Source(PAPER, "ours"), r"\frac{1/2 - Er}{\sqrt{D/8}} \to 1", claim="C7", expect="checked", c=ONE_TO_TWO)
def the_constant_is_sharp(c):
    """Two points at 1/2 plus and minus d reach the bound as d goes to 0: 8 cannot be raised."""

    def at(x):
        d = c * step_of(x)
        return lead_over_bound(stack(1 / 2 + d, 1 / 2 - d), stack(1 / 2 - d, 1 / 2 + d))

    return Tends(at, 0, 1)


@theorem(Source(PAPER, "ours"), r"\frac{1/2 - Er}{\sqrt{D/8}} \to \frac{E|s|}{\mathrm{sd}(s)}", claim="C11",
         expect="checked", p=Simplex("K"), s=Units("K"))  # fmt: skip
def the_score_decides_how_sharp(p, s):
    """Close to a law the ratio is the mean size of the score s over its deviation; only two points reach 1."""
    x = s - dot(p, s)
    variance = dot(p, x**2)
    size = dot(p, relu(x) + relu(-x))

    def at(d):
        return lead_over_bound(p * (1 - step_of(d) * x), p * (1 + step_of(d) * x)) - size / sqrt(variance)

    return Given(variance - 0.01, then=Tends(at, 0, 0))


@theorem(Source(PAPER, "ours"), r"\frac{\Phi(\mu/2) - 1/2}{\mu/4} \to \sqrt{2/\pi}", claim="C11", expect="checked",
         c=Unit())  # fmt: skip
def normal_shifts_stay_below(c):
    """Of a shifted normal law Er is Phi(-mu/2) and D is mu^2/2: the ratio tends to 0.798, so 4 pi alpha^2 would do."""
    arrays_only("the normal distribution function")
    return Tends(lambda m: (norm.cdf(c * m / 2) - 1 / 2) / (c * m / 4), 0, jnp.sqrt(2 / jnp.pi))
