"""Which events are averaged together: pooled, leaving one class out, class by class (C5-C7)."""

from __future__ import annotations

from fractions import Fraction

from sandbox import calibration
from sandbox.algebra import dot, onehot, stack, total
from sandbox.calibration import absolute
from theory.h_calibration.gaps import CODE, PAPER
from theory.statement import (
    All,
    AtMost,
    Equal,
    Given,
    Index,
    Positives,
    SameSign,
    Simplex,
    Source,
    Unit,
    Units,
    theorem,
)

# -- C5: the pooled form -----------------------------------------------------------------------------------------------


def pooled_loss(mass, p, q, inside):
    """Population loss of one window: the magnitude of its mean gap; mass and inside (X, K), the share of each event."""
    return absolute(total(total(mass * inside * (p - q))))


@theorem(Source(PAPER, "ours"), r"L(q) = 0 \le L(p)", claim="C5",
         mass=Positives("X", "K"), p=Simplex("X", "K"), q=Simplex("X", "K"), inside=Units("X", "K"))  # fmt: skip
def truth_minimises_the_pooled_loss(mass, p, q, inside):
    """No window of pooled events has a gap at the truth, whatever the classes' shares: it is a minimum of the loss."""
    return AtMost(pooled_loss(mass, q, q, inside), pooled_loss(mass, p, q, inside))


# -- C6: what pooling cannot see ---------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"p \equiv 1/C \Rightarrow \text{pooled gap } 0", claim="C6", prior=Simplex("K"))
def uniform_prediction_has_no_pooled_gap(prior):
    """Predicting 1/C for every sample has no pooled gap, for any prior: each row adds up to 1 - 1."""
    count = total(1 + 0 * prior)
    uniform = (1 + 0 * prior) / count
    return Equal(calibration.set_error(1 + 0 * prior, uniform - prior, 1 + 0 * prior), 0)


@theorem(
    Source(PAPER, "ours"),
    r"p \equiv 1/C \Rightarrow p = \pi",
    claim="C6",
    expect="refuted",
    instead=["uniform_prediction_has_no_pooled_gap"],
    prior=Simplex("K"),
)
def uniform_prediction_is_classwise_calibrated(prior):
    """And yet its class-wise errors are |1/C - prior|, not 0."""
    uniform = (1 + 0 * prior) / total(1 + 0 * prior)
    return Equal(total(absolute(uniform - prior)), total(0 * prior))


def two_contexts(a, b):
    """Gaps of all four events of two contexts predicted (.6, .4) and (.4, .6), their posteriors of class 0 a and b."""
    return (6 / 10 - a, a - 6 / 10), (4 / 10 - b, b - 4 / 10)


@theorem(Source(PAPER, "abstract, read as zero loss"), r"\text{pooled loss} = 0 \Rightarrow \text{calibrated}",
         claim="C6", expect="refuted",
         instead=["truth_minimises_the_pooled_loss", "leaving_one_out_sees_what_pooling_hides"],
         a=Unit(), witness={"a": Fraction(1, 4)})  # fmt: skip
def zero_pooled_loss_means_calibrated(a):
    """Two contexts predicted (.6, .4) and (.4, .6): with both pooled gaps at zero, each context would be calibrated."""
    b = a - 2 / 10  # the posterior of the second context that closes the pooled gaps
    (one, two), (three, four) = two_contexts(a, b)
    pooled = absolute((one + four) / 2) + absolute((two + three) / 2)
    canonical = absolute(one) + absolute(two)
    return Given(b, then=Equal(canonical, pooled))


# -- C7: leaving one class out -----------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, of the " + CODE), r"E[(p_j - o_j)1\{Y \ne k\}|x] = p_k(\delta_{jk} - p_j)", claim="C7",
         p=Simplex("K"), j=Index("K", distinct=False), k=Index("K", distinct=False))  # fmt: skip
def gap_at_the_truth_without_a_class(p, j, k):
    """At the truth, dropping class k leaves event j a gap of -p_j p_k, and of p_k (1 - p_k) if j = k: not zero."""
    return Equal(calibration.left_out_gaps(p, p, j)[k], p[k] * (onehot(k, p)[j] - p[j]))


@theorem(Source(PAPER, "ours"), r"\sum_k E[(p_j - o_j)1\{Y \ne k\}|x] = (C-1)(p_j - q_j)", claim="C7",
         p=Simplex("K"), q=Simplex("K"), j=Index("K"))  # fmt: skip
def gaps_without_a_class_add_up(p, q, j):
    """Summed over the class that is dropped they are C - 1 times the gap, 0 at the truth; the loss takes |.| first."""
    return Equal(total(calibration.left_out_gaps(p, q, j)), (total(1 + 0 * q) - 1) * (p[j] - q[j]))


@theorem(Source(PAPER, "ours"), r"\sum_{\sigma} E[(\sigma p_{\sigma j} - o)1\{Y \ne k\}] = 0", claim="C7",
         p=Simplex("K"))  # fmt: skip
def exchangeable_classes_save_the_truth(p):
    """If classes are exchangeable, relabelled samples share a window, and there the gaps without class 0 cancel."""
    size = p.shape[0]

    def gap(shift):  # of the event with the probability p_1 in the sample whose labels are shifted
        moved = stack(*(p[(i - shift) % size] for i in range(size)))
        return calibration.left_out_gaps(moved, moved, (1 + shift) % size)[0]

    return Equal(sum(gap(shift) for shift in range(size)), 0)


def constant_prediction(p, q, in_one_window):
    """Leave-one-class-out loss of the prediction (p, 1 - p) for all samples, a share q of which is of class 0."""
    law, truth = stack(p, 1 - p), stack(q, 1 - q)
    gaps = [[calibration.left_out_gaps(law, truth, j)[k] / (1 - truth[k]) for j in range(2)] for k in range(2)]
    if in_one_window:
        return sum(absolute((a + b) / 2) for a, b in gaps) / 2
    return sum(absolute(a) + absolute(b) for a, b in gaps) / 4


@theorem(Source(PAPER, "ours, of the " + CODE), r"L_{LOO}(q) \le L_{LOO}(p)", claim="C7", expect="refuted",
         instead=["gap_at_the_truth_without_a_class", "exchangeable_classes_save_the_truth"], q=Unit(),
         witness={"q": Fraction(2)})  # fmt: skip
def truth_minimises_leave_one_class_out(q):
    """The truth minimises the leave-one-class-out loss: false, a right constant has 1/2, (1/2, 1/2) has 0."""
    return AtMost(constant_prediction(q, q, in_one_window=False), constant_prediction((1 + 0 * q) / 2, q, True))


@theorem(Source(PAPER, "ours"), r"L_{LOO}(q, 1-q) = \tfrac12", claim="C7", q=Unit())
def every_calibrated_constant_pays_one_half(q):
    """Whatever the share q of class 0, predicting it for every sample costs 1/2 without one class."""
    return Equal(constant_prediction(q, q, in_one_window=False), 1 / 2)


@theorem(Source(PAPER, "ours"), r"gap_{.6} \ge 0 \iff a \le .6", claim="C7", u=Unit())
def leaving_one_out_sees_what_pooling_hides(u):
    """Of the two contexts that pooling calls calibrated, it sees that they are not: only a = .6 has no gap.

    a, b = a - .2: posteriors of class 0 in the contexts predicted (.6, .4) and (.4, .6); class 0 is left out.
    """
    a = (2 + 8 * u) / 10
    b = a - 2 / 10
    one = calibration.left_out_gaps(stack(0.6, 0.4), stack(a, 1 - a), 0)[0]
    other = calibration.left_out_gaps(stack(0.4, 0.6), stack(b, 1 - b), 1)[0]
    return SameSign((one + other) / (2 - a - b), 6 / 10 - a, factor=1 / (11 - 10 * a))


@theorem(Source(PAPER, "ours"), r"|\sum_k m_k g_k| \le \sum_k m_k |g_k|", claim="C7",
         over=Positives("K"), up=Positives("K"), under=Positives("L"), down=Positives("L"))  # fmt: skip
def pooled_gaps_average_classwise_ones(over, up, under, down):
    """A pooled gap is the average of the classes' own, hence never larger: class-wise windows see all that pooled do.

    Classes of masses ``over`` have the gaps ``up`` > 0, those of masses ``under`` the gaps -``down``. No sample is
    dropped, so that at the truth no class has a gap, for any prior. The same holds for the parts of a bin: more bins
    never lower a population's calibration error.
    """
    first, second = total(over), total(under)
    whole = first + second

    def average(f):
        parts = ((over, f(up), first), (under, f(-down), second))
        return sum(calibration.set_error(m, gap, 1 + 0 * m) * mass for m, gap, mass in parts) / whole

    pooled, classwise = average(lambda gap: gap), average(absolute)
    return All(
        AtMost(pooled, classwise, slack=2 * dot(under, down) / whole),
        AtMost(-pooled, classwise, slack=2 * dot(over, up) / whole),
    )
