"""Proper scoring rules, and what a calibration metric asserts (C9, C11)."""

from __future__ import annotations

from fractions import Fraction

from sandbox import calibration
from sandbox.algebra import dot, kl, log, outer, sqrt, total, velocity
from sandbox.calibration import absolute
from theory.h_calibration.gaps import PAPER
from theory.statement import (
    AtMost,
    Equal,
    Positive,
    Positives,
    SameSign,
    Simplex,
    Source,
    Unit,
    Units,
    theorem,
)


@theorem(Source(PAPER, "ours; Bröcker 2009"), r"E\,NLL(g) = E H(q) + E\,KL(q\|g)", claim="C9",
         weight=Simplex("Z"), q=Simplex("Z", "K"), g=Simplex("Z", "K"))  # fmt: skip
def nll_is_entropy_and_divergence(weight, q, g):
    """Over maps g of the logits, NLL is a constant plus a canonical calibration error, the KL from the truth."""
    entropy = -total(q * log(q))
    return Equal(dot(weight, calibration.expected_nll(q, log(g))), dot(weight, entropy) + dot(weight, kl(q, g)))


@theorem(Source(PAPER, "ours; Murphy 1973"), r"E\,Brier(g) = 1 - \|q\|^2 + \|q - g\|^2", claim="C9",
         q=Simplex("K"), g=Simplex("K"))  # fmt: skip
def brier_is_spread_and_distance(q, g):
    """And so is the Brier score: a constant plus the squared distance from the truth."""
    return Equal(calibration.expected_brier(q, g), 1 - dot(q, q) + dot(q - g, q - g))


@theorem(Source(PAPER, "ours"), r"\|\bar q - g\|^2 \le E\|q - g\|^2", claim="C9",
         weight=Simplex("Z"), q=Simplex("Z", "K"), g=Simplex("K"))  # fmt: skip
def merging_hides_calibration_error(weight, q, g):
    """Where g merges different logits z, conditioning on g(z) alone hides the error by which the q differ."""
    one = 1 + 0 * weight
    average = weight @ q
    seen = dot(average - g, average - g)  # what expected_brier has beside its constant
    whole, hidden = (dot(weight, total((q - outer(one, x)) ** 2)) for x in (g, average))
    return AtMost(seen, whole, slack=hidden)


# -- C11: what metrics assert ------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"E[gap^2] = b^2 + s^2", claim="C11", p=Units("M"), q=Units("M"))
def squared_gaps_are_biased_by_their_variance(p, q):
    """A bin's squared gap exceeds the true one by the variance of its outcomes, in the mean: hence debiased metrics."""
    slope = velocity(lambda s: calibration.window_cumulants(s, p, q))
    count = total(1 + 0 * p)
    second = velocity(slope)(0) + slope(0) ** 2
    return Equal(second, (total(p - q) ** 2 + total(q * (1 - q))) / count**2)


@theorem(Source(PAPER, "ours"), r"E|p - o| = 2p(1-p) > 0", claim="C11", p=Unit())
def a_single_outcome_never_looks_calibrated(p):
    """A right prediction, alone in its bin, has a plug-in error of 2 p (1 - p) in the mean: never zero."""
    hit, miss = (absolute(calibration.one_sided_gap(p, o)) for o in (1, 0))
    return SameSign(p * hit + (1 - p) * miss, p, factor=2 * (1 - p))


@theorem(Source(PAPER, "ours"), r"\sum_b w_b E|gap_b| \approx \sum_b \sqrt{2 w_b v_b/\pi N}", claim="C11",
         share=Simplex("B"), variance=Positives("B"), N=Positive())  # fmt: skip
def plug_in_error_of_the_truth(share, variance, N):
    """At the truth the plug-in ECE is about the sum over bins of sqrt(2 w v / (pi N)), by the floor of each."""
    floors = calibration.noise_floor(variance, N * share)
    once = calibration.noise_floor(1 + 0 * N, N)
    return Equal(dot(share, floors), once * total(sqrt(share) * sqrt(variance)))


@theorem(Source(PAPER, "ours"), r"ECE = 0 \Rightarrow \text{calibrated}", claim="C11", expect="refuted",
         instead=["plug_in_error_of_the_truth"], m=Positive(), n=Positive(), d=Positive())  # fmt: skip
def zero_binned_error_means_calibrated(m, n, d):
    """A bin without a gap holds calibrated predictions: false, two that err in opposite directions cancel."""
    binned = (m * d - n * (m * d / n)) / (m + n)
    return Equal(m * absolute(d) + n * absolute(-m * d / n), (m + n) * absolute(binned))


@theorem(Source(PAPER, "ours"), r"\text{top-label} \Rightarrow \text{class-wise calibrated}", claim="C11",
         expect="refuted",
         instead=["pooled_gaps_average_classwise_ones"], a=Unit(), witness={"a": Fraction(1, 4)})  # fmt: skip
def top_label_calibration_means_classwise(a):
    """Right about its largest probability, right about each class: false, (.6, .4) and (.4, .6) may cancel."""
    b = a - 2 / 10  # posteriors of class 0; the top labels, 0 and 1, are right in a share (a + 1 - b) / 2 = .6
    top = absolute(6 / 10 - (a + 1 - b) / 2)
    return Equal((absolute(6 / 10 - a) + absolute(4 / 10 - b)) / 2, top)
