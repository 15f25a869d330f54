"""AIC, TIC and the optimism of the training loss, which is the sum of both risks (C10).

r is the law of a sample, t the fit to it, s the projection of the truth q.
"""

from __future__ import annotations

from sandbox.algebra import dot, velocity
from sandbox.expfam import criterion, gaussian, one_parameter
from sandbox.expfam.finite import log_law
from sandbox.expfam.one_parameter import VARIANCES
from sandbox.expfam.terms import of_one_parameter, optimism
from sandbox.measures import log_kl
from theory.pn_criterion.expansion import JET, expected, in_the_mean
from theory.pn_criterion.geometry import PAPER, mean_of
from theory.statement import All, AtMost, Equal, Positive, Real, Reals, SameSign, Simplex, Source, theorem


@theorem(Source(PAPER, "ours"),
         r"D[p_*\|p_{\hat\theta}] + D[p_{\hat\theta}\|p_*] = (\hat\theta - \theta_*)(\bar\xi - \eta_*)", claim="C10",
         phi=Reals("K", "p"), s=Reals("p"), t=Reals("p"))  # fmt: skip
def both_directions_together(phi, s, t):
    """The two divergences of fit and projection add up to the product of their gaps in theta and in the mean."""
    star, fitted = log_law(phi, s), log_law(phi, t)
    return Equal(log_kl(star, fitted) + log_kl(fitted, star), dot(t - s, mean_of(phi, t) - mean_of(phi, s)))


@theorem(Source(PAPER, "ours"),
         r"E_g[-\log \hat p] - E_r[-\log\hat p] = (\hat\theta - \theta_*)(\bar\xi - \eta_*) + \textrm{mean } 0",
         claim="C10", q=Simplex("K"), r=Simplex("K"), phi=Reals("K", "p"), s=Reals("p"), t=Reals("p"))  # fmt: skip
def optimism_is_both_risks(q, r, phi, s, t):
    """What the training loss of a fit flatters, beside a term linear in the sample, whose mean is 0."""
    star, fitted = log_law(phi, s), log_law(phi, t)
    flattered = dot(r, fitted) - dot(q, fitted)
    return Equal(flattered, dot(t - s, r @ phi - q @ phi) + dot(r, star) - dot(q, star))


@theorem(Source(PAPER, "ours"), r"\frac{t_0}{n} + \frac{-3t_1 + 3t_2 - t_3}{6n^2}", claim="C10", **JET)
def second_order_optimism(V, k3, k4, true_V, true_k3):
    """One statistic, any truth: the mean of that product; half of TIC's penalty t0 is risk, half is optimism."""

    def product(psi, t):
        return t * velocity(psi)(t)

    a, b = expected(in_the_mean(product, V, k3, k4), true_V, true_k3)
    found = optimism(of_one_parameter(V, k3, k4, true_V, true_k3))
    return All(Equal(found.b, b), Equal(found.a, a))


@theorem(Source(PAPER, "ours"), r"\frac{p}{n-d-2} = \frac pn + \frac{p(d+2)}{n^2} + \ldots", claim="C10",
         d=Positive(), more=Positive())  # fmt: skip
def optimism_of_normal_laws(d, more):
    """Normal laws: p / (n - d - 2) exactly, n = d + 2 + more; its first two terms are those of the expansion."""
    n, p = d + 2 + more, d * (d + 3) / 2
    found = optimism(gaussian.terms(gaussian.normal_moments(d), d))
    return All(
        AtMost(found.at(n), gaussian.exact_optimism(n, d), slack=p * (d + 2) ** 2 / (n**2 * more)),
        Equal(found.b, p * (d + 2)),
        Equal(found.a * d, p * d),
    )


@theorem(Source(PAPER, "ours"), r"\frac{1}{ns-1} = \frac{1}{ns} + \frac{1}{(ns)^2} + \ldots", claim="C10",
         m=Positive(), s=Positive(), more=Positive())  # fmt: skip
def optimism_of_the_exponential_model(m, s, more):
    """The exponential model on gamma data of shape s: E[x/m + m/x] - 2 = 1 / (ns - 1), ns = 1 + more."""
    terms = one_parameter.terms(VARIANCES["exponential"], m, m**2 / s, 2 * m**3 / s**2)
    ns = 1 + more
    found = optimism(terms)
    return All(Equal(1 / more - found.at(ns / s), 1 / (ns**2 * more)), Equal(found.b, 1 / s**2))


@theorem(
    Source(PAPER, "ours"), r"AICc \textrm{ too large} \iff d > 1", claim="C10", loss=Real(), d=Positive(), n=Positive()
)
def aicc_of_normal_laws(loss, d, n):
    """The second order of AICc, p (p + 1) / n, is the normal model's p (d + 2) / n at d = 1; beyond it is larger."""
    p = d * (d + 3) / 2
    corrected = 2 * n * loss + 2 * p + 2 * p * (p + 1) / n
    exact = criterion.tic_second(loss, n, optimism(gaussian.terms(gaussian.normal_moments(d), d)))
    return SameSign(corrected - exact, d - 1, factor=p * (d + 2) / n)
