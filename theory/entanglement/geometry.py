"""Two gradients and two weights: what a step does to a pair, whatever the model and the loss (C1-C5).

g_w, g_l: gradients of the log-probabilities A, B of the chosen and the rejected response. d_w, d_l: the margin weights
of the loss, both > 0. A step of size eta moves the parameters by eta U, U = d_w g_w - d_l g_l.
"""

from __future__ import annotations

from functools import partial

from sandbox.algebra import along, dot, exp, grad, kl, log, log_softmax, onehot, softmax, sqrt, total, velocity
from sandbox.losses import PairLogProbs, dpo, margin_weights
from sandbox.measures import first_order_changes, kappa
from sandbox.policies import linear_log_probs
from theory.statement import (
    All,
    Arch,
    AtMost,
    Equal,
    Index,
    NonZeros,
    Positive,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Units,
    theorem,
)

PAPER = "yuan2025entanglement"


def norm(g):
    """Euclidean norm."""
    return sqrt(dot(g, g))


def changes(g_w, g_l, d_w, d_l):
    """First-order changes of A and B along U, per unit of step: (<g_w, U>, <g_l, U>)."""
    step = d_w * g_w - d_l * g_l
    return dot(g_w, step), dot(g_l, step)


# -- C1: entangled changes ---------------------------------------------------------------------------------------------


@theorem(
    Source(PAPER, "Eqs. 4-5"), r"\dot A = \beta\sigma(-\beta h)\,(a - c),\quad \dot B = \beta\sigma(-\beta h)\,(c - b)",
    claim="C1", features=Reals("V", "d"), theta=Reals("d"), A0=Real(), B0=Real(), beta=Positive(), w=Index("V"),
    l=Index("V"),
)  # fmt: skip
def entangled_changes_of_dpo(features, theta, A0, B0, beta, w, l):
    """Along the gradient of DPO each log-probability moves by an amount that contains the other one's gradient."""

    def A(theta):
        return linear_log_probs(features, theta)[w]

    def B(theta):
        return linear_log_probs(features, theta)[l]

    loss = partial(dpo, beta=beta)

    def flow(theta):
        return -grad(lambda theta: loss(PairLogProbs(A(theta), B(theta), A0, B0)))(theta)

    d_w, d_l = margin_weights(loss, PairLogProbs(A(theta), B(theta), A0, B0))
    g_w, g_l = grad(A)(theta), grad(B)(theta)
    a, b, c = dot(g_w, g_w), dot(g_l, g_l), dot(g_w, g_l)
    return All(Equal(along(A, flow)(theta), d_w * a - d_l * c), Equal(along(B, flow)(theta), d_w * c - d_l * b))


# -- C2, C3: the condition, and the one number that decides ------------------------------------------------------------


@theorem(
    Source(PAPER, "Condition 1"), r"\dot A > 0 \iff c < \tfrac{d_w}{d_l} a",
    claim="C2", g_w=Reals("d"), g_l=Reals("d"), d_w=Positive(), d_l=Positive(),
)  # fmt: skip
def chosen_rises_iff_inner_is_small(g_w, g_l, d_w, d_l):
    """The chosen response rises exactly if the inner product is below (d_w / d_l) |g_w|^2."""
    return SameSign(changes(g_w, g_l, d_w, d_l)[0], d_w / d_l * dot(g_w, g_w) - dot(g_w, g_l), factor=d_l)


@theorem(
    Source(PAPER, "Condition 1"), r"\dot B < 0 \iff c < \tfrac{d_l}{d_w} b",
    claim="C2", g_w=Reals("d"), g_l=Reals("d"), d_w=Positive(), d_l=Positive(),
)  # fmt: skip
def rejected_falls_iff_inner_is_small(g_w, g_l, d_w, d_l):
    """The rejected response falls exactly if the inner product is below (d_l / d_w) |g_l|^2."""
    return SameSign(-changes(g_w, g_l, d_w, d_l)[1], d_l / d_w * dot(g_l, g_l) - dot(g_w, g_l), factor=d_w)


@theorem(
    Source(PAPER, "ours, after Condition 1"), r"\dot A > 0 \iff \cos < \kappa,\quad \kappa = \frac{d_w|g_w|}{d_l|g_l|}",
    claim="C3", g_w=NonZeros("d"), g_l=NonZeros("d"), d_w=Positive(), d_l=Positive(),
)  # fmt: skip
def chosen_rises_iff_kappa_exceeds_cosine(g_w, g_l, d_w, d_l):
    """One number decides: the chosen response rises exactly if the cosine is below kappa (gradients not zero)."""
    n_w, n_l = norm(g_w), norm(g_l)
    gap = kappa(d_w, d_l, n_w, n_l) - dot(g_w, g_l) / (n_w * n_l)
    return SameSign(changes(g_w, g_l, d_w, d_l)[0], gap, factor=d_l * n_w * n_l)


@theorem(
    Source(PAPER, "ours, after Condition 1"), r"\dot B < 0 \iff \cos < 1/\kappa",
    claim="C3", g_w=NonZeros("d"), g_l=NonZeros("d"), d_w=Positive(), d_l=Positive(),
)  # fmt: skip
def rejected_falls_iff_kappa_is_below_inverse_cosine(g_w, g_l, d_w, d_l):
    """The rejected response falls exactly if the cosine is below 1 / kappa (gradients not zero)."""
    n_w, n_l = norm(g_w), norm(g_l)
    gap = 1 / kappa(d_w, d_l, n_w, n_l) - dot(g_w, g_l) / (n_w * n_l)
    return SameSign(-changes(g_w, g_l, d_w, d_l)[1], gap, factor=d_w * n_w * n_l)


@theorem(
    Source(PAPER, "Table 1; the fourth case ours"), r"\dot A \le 0 \le \dot B \text{ only where } U = 0",
    claim="C3", g_w=Reals("d"), g_l=Reals("d"), d_w=Positive(), d_l=Positive(),
)  # fmt: skip
def case_four_is_empty(g_w, g_l, d_w, d_l):
    """The chosen cannot fall while the rejected rises: d_w times the one change minus d_l times the other is >= 0."""
    step = d_w * g_w - d_l * g_l
    change_w, change_l = first_order_changes(d_w, d_l, norm(g_w), norm(g_l), dot(g_w, g_l))
    return AtMost(d_l * change_l, d_w * change_w, slack=dot(step, step))


# -- C4: what really grows ---------------------------------------------------------------------------------------------


@theorem(
    Source(PAPER, "after Eq. 5"), r"\dot A - \dot B = d\,|g_w - g_l|^2 \ge 0 \text{ if } d_w = d_l = d",
    claim="C4", g_w=Reals("d"), g_l=Reals("d"), d=Positive(),
)  # fmt: skip
def margin_of_dpo_grows(g_w, g_l, d):
    """With equal weights, as in DPO, the margin never shrinks to first order."""
    change_w, change_l = changes(g_w, g_l, d, d)
    return AtMost(change_l, change_w, slack=d * dot(g_w - g_l, g_w - g_l))


@theorem(
    Source(PAPER, "ours, after Eq. 5"), r"d_w\dot A - d_l\dot B = |d_w g_w - d_l g_l|^2",
    claim="C4", g_w=Reals("d"), g_l=Reals("d"), d_w=Positive(), d_l=Positive(),
)  # fmt: skip
def weighted_margin_grows(g_w, g_l, d_w, d_l):
    """What grows for every loss is the margin weighted by d_w and d_l."""
    change_w, change_l = changes(g_w, g_l, d_w, d_l)
    step = d_w * g_w - d_l * g_l
    return Equal(d_w * change_w - d_l * change_l, dot(step, step))


@theorem(
    Source(PAPER, "the sentence after Eq. 5, read for every margin loss"), r"\dot A - \dot B \ge 0",
    claim="C4", expect="refuted", instead=["margin_of_dpo_grows", "weighted_margin_grows"],
         g_w=Reals("d"), g_l=Reals("d"), d_w=Positive(), d_l=Positive(),
)  # fmt: skip
def margin_grows_for_every_loss(g_w, g_l, d_w, d_l):
    """The unweighted margin never shrinks, whatever the weights: false, a length-normalised loss can shrink it."""
    change_w, change_l = changes(g_w, g_l, d_w, d_l)
    return AtMost(change_l, change_w)


# -- C5: the exact finite step of a log-linear policy ------------------------------------------------------------------


@theorem(
    Source(PAPER, "ours"), r"\Delta A = \eta\,(Uh)_y - K(\eta),\quad K(\eta) = \log E_{j\sim p}\,e^{\eta (Uh)_j}",
    claim="C5(i)", theta=Reals("V", "d"), U=Reals("V", "d"), h=Reals("d"), eta=Real(), y=Index("V"),
)  # fmt: skip
def exact_step(theta, U, h, eta, y):
    """A finite step of a log-linear policy, exactly: linear in the step minus the cumulant generating function of Uh.

    A response of several tokens adds up its positions, each with its own law and features.
    """
    before, after = linear_log_probs(theta, h), linear_log_probs(theta + eta * U, h)
    push = U @ h
    return Equal(after[y] - before[y], eta * push[y] - log(total(softmax(theta @ h) * exp(eta * push))))


@theorem(
    Source(PAPER, "ours"), r"\Delta A \le \eta\,\langle g_y, U\rangle",
    claim="C5(ii)", p=Simplex("V"), f=Reals("V"), eta=Real(), y=Index("V"),
)  # fmt: skip
def first_order_is_an_upper_bound(p, f, eta, y):
    """First order is an upper bound for log-linear policies: a predicted fall is a fall at every step size."""
    after = log_softmax(log(p) + eta * f)
    return AtMost(after[y] - log(p[y]), eta * (f[y] - dot(p, f)), slack=kl(p, exp(after)))


@theorem(
    Source(PAPER, "ours"), r"\eta\langle g_y, U\rangle - \Delta A \le \tfrac{\eta^2}{8}\,\mathrm{range}(f)^2",
    claim="C5(iii)", p=Simplex("V"), low=Real(), width=Positive(), u=Units("V"), eta=Real(),
)  # fmt: skip
def slack_is_at_most_hoeffding(p, low, width, u, eta):
    """What a finite step loses against first order is at most (eta^2 / 8) range^2 at each position (Hoeffding)."""
    f = low + width * u

    def lost(x):
        return log(total(p * exp(x * f))) - x * dot(p, f)

    def curvature(x):
        tilted = softmax(log(p) + x * f)
        return width**2 * ((dot(tilted, u) - 1 / 2) ** 2 + dot(tilted, u * (1 - u)))

    return Arch(lost, lambda x: x**2 * width**2 / 8, at=eta, start=0, curvature=curvature)


@theorem(
    Source(PAPER, "ours"), r"\Delta A = \eta\langle g_y,U\rangle - \tfrac{\eta^2}{2}\mathrm{Var}_p f"
    r" - \tfrac{\eta^3}{6}\kappa_3(f) + \ldots",
    claim="C5(i)", p=Simplex("V"), f=Reals("V"), y=Index("V"),
)  # fmt: skip
def second_order_is_a_variance(p, f, y):
    """The second and third derivative of the exact step are minus the second and third cumulant of f under p."""

    def change(eta):
        return log_softmax(log(p) + eta * f)[y] - log(p[y])

    centred = f - dot(p, f)
    second = velocity(velocity(change))
    return All(Equal(second(0), -dot(p, centred**2)), Equal(velocity(second)(0), -dot(p, centred**3)))


@theorem(
    Source(PAPER, "ours"), r"\Delta(A - B) = \eta\,(f_w - f_l)",
    claim="C5", p=Simplex("V"), f=Reals("V"), eta=Real(), w=Index("V"), l=Index("V"),
)  # fmt: skip
def margin_moves_linearly(p, f, eta, w, l):
    """With one position the loss against first order is the same for every token: the margin is linear in the step."""
    after = log_softmax(log(p) + eta * f)
    return Equal((after[w] - after[l]) - (log(p[w]) - log(p[l])), eta * (f[w] - f[l]))


@theorem(
    Source(PAPER, "ours"), r"\mathrm{Var}_p(e_w - e_l) = p_w + p_l - (p_w - p_l)^2",
    claim="C5", p=Simplex("V"), w=Index("V"), l=Index("V"),
)  # fmt: skip
def slack_of_a_single_token_pair(p, w, l):
    """The second-order constant of one token pair under equal weights."""
    f = onehot(w, p) - onehot(l, p)

    def change(t):
        return log_softmax(log(p) + t * f)[w]

    return Equal(-velocity(velocity(change))(0), p[w] + p[l] - (p[w] - p[l]) ** 2)
