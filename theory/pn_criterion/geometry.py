"""Projections and divergences: what adds up, sample by sample, and in which direction (C1, C2).

phi are the statistics of a family on a finite alphabet, q a law on it, s and t parameters: s that of the projection
where the mean statistics of q and of the model at s agree, t any other.
"""

from __future__ import annotations

from typing import Any

from sandbox.algebra import dot, exp, grad, kl, log, softmax
from sandbox.expfam.finite import log_law, log_partition
from sandbox.measures import log_kl
from theory.statement import All, AtMost, Equal, Real, Reals, Simplex, Source, theorem

PAPER = "sheena2021pn"
FAMILY: dict[str, Any] = dict(phi=Reals("K", "p"), s=Reals("p"), t=Reals("p"))


def mean_of(phi, theta):
    """The model's mean of the statistics."""
    return exp(log_law(phi, theta)) @ phi


@theorem(Source(PAPER, "ours"), r"\partial_\theta D[g\|p_\theta] = \dot\psi(\theta) - E_g\xi", claim="C1",
         q=Simplex("K"), phi=Reals("K", "p"), t=Reals("p"))  # fmt: skip
def projection_matches_the_means(q, phi, t):
    """The closest member of the family is the one whose mean statistics are the truth's; so is the fit, of a sample."""
    return Equal(grad(lambda t: -dot(q, log_law(phi, t)))(t), mean_of(phi, t) - q @ phi)


@theorem(Source(PAPER, "ours"), r"D[g\|p_\theta] = D[g\|p_{*}] + D[p_{*}\|p_\theta]", claim="C1",
         q=Simplex("K"), **FAMILY)  # fmt: skip
def pythagoras(q, phi, s, t):
    """Divergences add at the information projection; away from it the defect is the gap in the mean statistics.

    The entropy of the truth stands on both sides and is left out: cross-entropies for divergences from q.
    """
    star, other = log_law(phi, s), log_law(phi, t)
    defect = dot(s - t, q @ phi - mean_of(phi, s))
    return Equal(-dot(q, other), -dot(q, star) + log_kl(star, other) + defect)


@theorem(Source(PAPER, "ours"), r"D[g\|p_{*}] \le D[g\|p_\theta]", claim="C1",
         q=Simplex("K"), phi=Reals("K"), s=Real(), t=Real())  # fmt: skip
def projection_is_the_closest(q, phi, s, t):
    """No member is closer to the truth than the projection, where the defect vanishes."""
    star, other = softmax(s * phi), softmax(t * phi)
    defect = (s - t) * (dot(q, phi) - dot(star, phi))
    return AtMost(-dot(q, log(star)) + defect, -dot(q, log(other)), slack=kl(star, other))


@theorem(Source(PAPER, "negative control"), r"D[p_\theta\|g] = D[p_\theta\|p_{*}] + D[p_{*}\|g]", claim="C1",
         expect="refuted", instead=["pythagoras"], q=Simplex("K"), phi=Reals("K"), s=Real(), t=Real())  # fmt: skip
def pythagoras_reversed(q, phi, s, t):
    """The same with every divergence the other way round: false."""
    star, other = softmax(s * phi), softmax(t * phi)
    defect = (s - t) * (dot(q, phi) - dot(star, phi))
    return Equal(kl(other, q), kl(star, q) + kl(other, star) + defect)


def bregman(phi, s, t):
    """psi(t) - psi(s) - (t - s) . mean at s."""
    return log_partition(phi, t) - log_partition(phi, s) - dot(t - s, mean_of(phi, s))


@theorem(Source(PAPER, "first display of the published version"),
         r"D[p_{*}\|p_{\hat\theta}] = \psi(\hat\theta) - \psi(\theta_*) - (\hat\theta - \theta_*)\eta_*", claim="C2",
         **FAMILY)  # fmt: skip
def risk_is_a_bregman_divergence(phi, s, t):
    """The divergence from the projection to the fit is the gap between psi and its tangent at the projection.

    Or, with phi the conjugate of psi, phi(eta) - phi(mean) + theta . (mean - eta): a function of the sample mean alone.
    """

    def conjugate(theta):
        return dot(theta, mean_of(phi, theta)) - log_partition(phi, theta)

    around = conjugate(s) - conjugate(t) + dot(t, mean_of(phi, t) - mean_of(phi, s))
    divergence = log_kl(log_law(phi, s), log_law(phi, t))
    return All(Equal(divergence, bregman(phi, s, t)), Equal(divergence, around))


@theorem(Source(PAPER, "negative control"),
         r"D[p_{\hat\theta}\|p_{*}] = \psi(\hat\theta) - \psi(\theta_*) - (\hat\theta - \theta_*)\eta_*", claim="C2",
         expect="refuted",
         instead=["risk_is_a_bregman_divergence"], phi=Reals("K", "p"), s=Reals("p"), t=Reals("p"))  # fmt: skip
def risk_reversed(phi, s, t):
    """The same divergence, fitted first and projection second: false."""
    return Equal(log_kl(log_law(phi, t), log_law(phi, s)), bregman(phi, s, t))
