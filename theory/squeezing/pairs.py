"""Chosen and rejected together: one context (C8), two contexts with a kernel between them (C9), two questions (C10).

w chosen, l rejected; p and q the laws after the contexts of the chosen and of the rejected; kappa the kernel, the inner
product of the two contexts' features over the squared norm of the chosen's.
"""

from __future__ import annotations

from fractions import Fraction

from sandbox.algebra import dot, exp, log, log_softmax, onehot, softmax, velocity
from sandbox.policies import linear_gram, residual
from sandbox.squeezing import critical_kernel, kernel_ratio
from theory.squeezing.step import PAPER, without
from theory.statement import (
    All,
    AtMost,
    Equal,
    Given,
    Index,
    Negative,
    NonZeros,
    Positive,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Unit,
    theorem,
)

# -- C8: in one context ------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Sec. 4 read for one context"), r"\text{DPO in one context feeds } y^*", claim="C8",
         expect="refuted",
         instead=["a_table_of_sequences_never_lowers_the_chosen", "dpo_3d.unseen_gain_while_the_rejected_leads"],
         p=Simplex("V"), w=Index("V"), l=Index("V"), m=Index("V"), s=Positive(),
         witness={"p": [3, 1, 6], "w": 0, "l": 1, "m": 2, "s": 1})  # fmt: skip
def one_context_feeds_the_top(p, w, l, m, s):
    """A step of DPO on two answers to one prompt raises a third that is the likeliest of all: false.

    The two gradients' parts in p cancel; all third answers share one factor, which falls below 1 where the chosen leads
    the rejected. (theory/dpo_3d has the factor and the flow.)
    """
    q = softmax(log(p) + s * (residual(w, p) - residual(l, p)))
    return Given(p[m] - p[w], p[m] - p[l], then=AtMost(p[m], q[m]))


@theorem(Source(PAPER, "ours"), r"\Delta\log\pi(y_+) \ge 0 \ge \Delta\log\pi(y_-)", claim="C8", p=Simplex("V"),
         a=Simplex("V"), w=Index("V"), l=Index("V"), y=Index("V", distinct=False), s=Positive())  # fmt: skip
def a_table_of_sequences_never_lowers_the_chosen(p, a, w, l, y, s):
    """With logits of their own in each context the chosen sequence rises and the rejected falls, at any step size.

    Tokens before the split cancel. w and l at the split, of law p; y at a later position of either branch, of law a,
    rises after w and falls after l, where it is squeezed (C2). The further, the longer the step.
    """

    def split(s):
        return log_softmax(log(p) + s * (residual(w, p) - residual(l, p)))

    def later(s):
        return log_softmax(log(a) + s * residual(y, a))

    q, b = exp(split(s)), exp(later(s))
    return All(
        AtMost(0 * s, velocity(split)(s)[w], slack=1 - q[w] + q[l]),
        AtMost(velocity(split)(s)[l], 0 * s, slack=1 + q[w] - q[l]),
        AtMost(0 * s, velocity(later)(s)[y], slack=(1 - a[y]) * (1 - b[y]) + dot(a * b, without(y, a))),
    )


# -- C9: two contexts --------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\frac{d\log p_+}{dt} < 0 \iff \kappa\,(e_+-p)\cdot(e_--q) > |e_+-p|^2", claim="C9",
         p=Simplex("V"), q=Simplex("V"), h=NonZeros("d"), k=Reals("d"), w=Index("V"), l=Index("V"))  # fmt: skip
def chosen_falls_iff_the_ratio_exceeds_one(p, q, h, k, w, l):
    """Linear features: the rate of the chosen is 1 - Q times its squared gradient, so that it falls exactly if Q > 1.

    Under gradients of equal weights, as DPO's are. The ratios Q of several rejected tokens add.
    """
    norm, inner = linear_gram(p, h, w, p, h, w), linear_gram(p, h, w, q, k, l)
    return Equal(norm - inner, norm * (1 - kernel_ratio(p, w, q, l, dot(h, k) / dot(h, h))))


def pushed(p, w, l, kappa, s):
    """Log-probabilities after a step in the chosen's context, both contexts of the law p: + chosen, - kappa rejected.

    What is left of p is (kappa - 1) p: squeezing of the strength of a difference.
    """
    return log_softmax(log(p) + s * (residual(w, p) - kappa * residual(l, p)))


@theorem(Source(PAPER, "ours"), r"\frac{d\log p_+}{ds} = 1 - 2p_+ + S - \kappa(S - p_+ - p_-),\;"
         r" \frac{d\log p_*}{ds} = (\kappa-1)(p_*-S) + \kappa p_- - p_+", claim="C9", p=Simplex("V"), w=Index("V"),
         l=Index("V"), m=Index("V"), kappa=Real())  # fmt: skip
def one_law_in_two_contexts(p, w, l, m, kappa):
    """With the same law in both contexts a third answer gains long before the chosen falls."""
    rate = velocity(lambda s: pushed(p, w, l, kappa, s))(0)
    square = dot(p, p)
    return All(
        Equal(rate[w], 1 - 2 * p[w] + square - kappa * (square - p[w] - p[l])),
        Equal(rate[m], (kappa - 1) * (p[m] - square) + kappa * p[l] - p[w]),
    )


@theorem(Source(PAPER, "ours"), r"\kappa^* > 1 \iff S > p_+ + p_-", claim="C9", p=Simplex("V"), w=Index("V"),
         l=Index("V"))  # fmt: skip
def critical_kernel_exceeds_one(p, w, l):
    """The kernel at which the chosen turns is above 1 wherever it is positive: likeness of the prompts is not enough.

    At it the rate is 0, and (kappa* - 1) (S - p_w - p_l) = 1 - p_w + p_l > 0.
    """
    kappa, room = critical_kernel(p, w, l), dot(p, p) - p[w] - p[l]
    return All(
        Equal((kappa - 1) * room, 1 - p[w] + p[l]),
        Equal(velocity(lambda s: pushed(p, w, l, kappa, s))(0)[w], 0 * kappa),
    )


@theorem(Source(PAPER, "ours"), r"0 \le \kappa \le 1 \Rightarrow \Delta\log p_+ \ge 0", claim="C9", p=Simplex("V"),
         w=Index("V"), l=Index("V"), kappa=Unit(), s=Positive())  # fmt: skip
def kernels_below_one_never_lower_the_chosen(p, w, l, kappa, s):
    """With one law in both contexts and a kernel between 0 and 1 the chosen rises, the further the longer the step.

    Its rate has two parts that are never negative, with the weights kappa and 1 - kappa.
    """
    q = exp(pushed(p, w, l, kappa, s))
    own = (1 - p[w]) * (1 - q[w]) + dot(p * q, without(w, p))
    rate = velocity(lambda s: pushed(p, w, l, kappa, s)[w])(s)
    return Equal(rate, kappa * (1 - q[w] + q[l]) + (1 - kappa) * own)


@theorem(Source(PAPER, "ours"), r"\kappa \ge 0,\; p_+ = \max p \Rightarrow \Delta\log p_+ \ge 0", claim="C9",
         p=Simplex("V"), w=Index("V"), l=Index("V"), kappa=Positive(), s=Positive())  # fmt: skip
def the_top_is_safe(p, w, l, kappa, s):
    """A chosen answer that is the most likely of all rises at any step size, whatever the kernel > 0.

    Its rate is a mean of terms none of which is negative while no lead p_w - p_j is.
    """
    q, lead = exp(pushed(p, w, l, kappa, s)), p[w] - p
    rate = velocity(lambda s: pushed(p, w, l, kappa, s)[w])(s)
    return Equal(rate, dot(q, (1 - lead) * without(w, p) + kappa * lead) + kappa * q[l])


@theorem(Source(PAPER, "ours, negative control"), r"\kappa < 0 \Rightarrow \frac{d\log p_+}{ds} \ge 0", claim="C9",
         expect="refuted", instead=["chosen_falls_iff_the_ratio_exceeds_one"],
         p=Simplex("V"), w=Index("V"), l=Index("V"), kappa=Negative(),
         witness={"p": [18, 1, 1], "w": 0, "l": 1, "kappa": 1})  # fmt: skip
def opposed_contexts_never_lower_the_chosen(p, w, l, kappa):
    """Contexts that point away from each other spare the chosen: false if it is very likely already."""
    return AtMost(0 * kappa, velocity(lambda s: pushed(p, w, l, kappa, s))(0)[w])


@theorem(Source(PAPER, "ours, against reading signs off a first order"), r"\frac{d\log p_+}{ds} \ge 0 \Rightarrow"
         r" \Delta\log p_+ \ge 0", claim="C9", expect="refuted",
         instead=["chosen_falls_iff_the_ratio_exceeds_one", "the_top_is_safe"],
         p=Simplex("V"), w=Index("V"), l=Index("V"),
         kappa=Positive(), s=Positive(),
         witness={"p": [1, 1, 17, 1], "w": 0, "l": 1, "kappa": Fraction(5, 2), "s": 1})  # fmt: skip
def a_rise_to_first_order_is_a_rise(p, w, l, kappa, s):
    """If the chosen rises to first order, then so it does in a finite step: false, the tax of C1 comes on top."""
    rate = velocity(lambda s: pushed(p, w, l, kappa, s))(0)[w]
    return Given(rate, then=AtMost(0 * s, pushed(p, w, l, kappa, s)[w] - log(p[w])))


@theorem(Source(PAPER, "ours, for Sec. 4's longer SFT"), r"\kappa^* = \frac{2\epsilon}{q_*-q_+},\;"
         r" \kappa^* = \frac{2\epsilon}{\epsilon'} \text{ after SFT on both}", claim="C9", epsilon=Unit(), delta=Unit(),
         q=Simplex("V"), w=Index("V"), l=Index("V"), m=Index("V"), kappa=Positive())  # fmt: skip
def longer_sft_needs_less_overlap(epsilon, delta, q, w, l, m, kappa):
    """After fine-tuning on the chosen down to epsilon the least overlap that lowers it is 2 epsilon / (q_* - q_+).

    It vanishes with epsilon. After fine-tuning on the rejected as well, down to delta, it is 2 epsilon / delta.
    """
    p = (1 - epsilon) * onehot(w, q) + epsilon * onehot(m, q)
    both = (1 - delta) * onehot(l, q) + delta * onehot(m, q)
    return All(
        Equal(kernel_ratio(p, w, q, l, kappa), kappa * (q[m] - q[w]) / (2 * epsilon)),
        Equal(kernel_ratio(p, w, both, l, kappa), kappa * delta / (2 * epsilon)),
    )


# -- C10: two questions ------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Sec. 3's hallucination; in this form ours"), r"\Delta\log\pi(y_B|x_A) \approx \eta k\,"
         r"(e_B-p^A)\cdot(e_B-p^B) \ge 0", claim="C10", p=Simplex("V"), q=Simplex("V"), a=Index("V"), b=Index("V"),
         k=Positive(), eta=Positive())  # fmt: skip
def answers_leak_to_like_questions(p, q, a, b, k, eta):
    """Fine-tuning on answer b to question B raises b at a question A of like features; p at A, q at B, k = <h_A, h_B>.

    And its log-odds against A's own answer a rise by exactly eta k (1 - q_b + q_a), at any step size.
    """

    def moved(eta):
        return log_softmax(log(p) + eta * k * residual(b, q))

    slack = k * ((1 - p[b]) * (1 - q[b]) + dot(p * q, without(b, p)))
    odds = moved(eta)[b] - moved(eta)[a] - (log(p[b]) - log(p[a]))
    return All(
        AtMost(0 * eta, velocity(moved)(0)[b], slack=slack),
        Equal(odds, eta * k * (1 - q[b] + q[a])),
    )


@theorem(Source(PAPER, "ours"), r"\text{odds rise} \iff k(1-q_b+q_a) > n(1-p_a+p_b)", claim="C10", p=Simplex("V"),
         q=Simplex("V"), a=Index("V"), b=Index("V"), k=Positive(), n=Positive(), eta=Positive())  # fmt: skip
def a_learnt_answer_is_defenceless(p, q, a, b, k, n, eta):
    """Training A's answer too makes up for the leak only while A is unlearnt: n = |h_A|^2 meets 1 - p_a + p_b.

    As p_a goes to 1 that vanishes, and the odds of the wrong answer rise at every step.
    """
    moved = log_softmax(log(p) + eta * (k * residual(b, q) + n * residual(a, p)))
    odds = moved[b] - moved[a] - (log(p[b]) - log(p[a]))
    return SameSign(odds, k * (1 - q[b] + q[a]) - n * (1 - p[a] + p[b]), factor=eta)
