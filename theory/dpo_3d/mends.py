"""What mends it, and what only seems to: two betas, a safe cone, a fine-tuning term, other losses (C14-C18).

p: the law of the policy, S = |p|^2, U the mass of the unseen, w chosen, l rejected.
kappa = beta_rejected / beta_chosen.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sandbox import losses, tables
from sandbox.algebra import (
    dot,
    exp,
    log,
    log_softmax,
    onehot,
    sigmoid,
    softmax,
    softplus,
    sqrt,
    step,
    velocity,
)
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.measures import first_order_changes
from theory.dpo_3d.free import FREE, slopes
from theory.dpo_3d.softmax import LAW, tilted, unseen
from theory.statement import (
    All,
    AtMost,
    Equal,
    Index,
    Logits,
    Moderate,
    NonNegative,
    NonZeros,
    Positive,
    Real,
    Reals,
    SameSign,
    Source,
    Unit,
    theorem,
)

PAPER = "yan2024dpo3d"
BETAS: dict[str, Any] = dict(beta_w=Moderate(), beta_l=Moderate())


# -- C14: two betas ----------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Sec. 3.3, as reported; the formula its natural reading"),
         r"\frac{\partial_q L}{\partial_p L} = -\frac{\beta_-\,p}{\beta_+\,q},\;"
         r" \partial_q L = \frac{\beta_- E q^{\beta_--1}}{p^{\beta_+} + E q^{\beta_-}}",
         claim="C14", **FREE, **BETAS)  # fmt: skip
def slopes_of_flex_dpo(p, q, a, b, beta_w, beta_l):
    """Flex-DPO in free variables: the rejected beta decides whether the slope in q explodes; it scales the ratio."""
    slope_p, slope_q = slopes(partial(losses.flex_dpo, beta_chosen=beta_w, beta_rejected=beta_l), p, q, a, b)
    e = a**beta_w / b**beta_l
    return All(
        Equal(slope_q, beta_l * e * q ** (beta_l - 1) / (p**beta_w + e * q**beta_l)),
        Equal(slope_q / slope_p, -beta_l * p / (beta_w * q)),
    )


@theorem(Source(PAPER, "Sec. 3.3; the consequence ours"),
         r"\dot z = \sigma(-u)\,[\beta_-(e_w - e_l) + (\beta_+-\beta_-)(e_w - \pi)]", claim="C14",
         z=Reals("V"), z0=Reals("V"), w=Index("V"), l=Index("V"), **BETAS)  # fmt: skip
def flex_dpo_is_dpo_and_cross_entropy(z, z0, w, l, beta_w, beta_l):
    """In a table Flex-DPO is DPO with beta_l plus beta_w - beta_l times cross-entropy, both inside the sigmoid.

    With beta_w < beta_l the chosen is trained away.
    """
    p, now, start = softmax(z), log_softmax(z), log_softmax(z0)
    push = sigmoid(-(beta_w * (now[w] - start[w]) - beta_l * (now[l] - start[l])))
    rhs = push * (beta_l * (onehot(w, z) - onehot(l, z)) + (beta_w - beta_l) * (onehot(w, z) - p))
    flex = partial(losses.flex_dpo, beta_chosen=beta_w, beta_rejected=beta_l)
    return Equal(tables.force(flex, z, z0, w, l), rhs)


def pushed(p, w, l, d_w, d_l):
    """d/dt of all log-probabilities of a table pushed by d_w and d_l, margin weights of any loss."""
    push = d_w * (onehot(w, p) - p) - d_l * (onehot(l, p) - p)
    return push - dot(p, push)


@theorem(Source(PAPER, "ours, after Sec. 3.3"), r"\frac{d\log\pi_w}{dt} \propto"
         r" \beta_+(1-2\pi_w+S) + \beta_-(\pi_w+\pi_l-S),\;\ldots", claim="C14",
         **LAW, d_w=Positive(), d_l=Positive())  # fmt: skip
def speeds_under_two_weights(p, w, l, d_w, d_l):
    """Only the ratio of the two weights decides who rises: the speeds of chosen, rejected and unseen in a table."""
    rate, others, square = pushed(p, w, l, d_w, d_l), unseen(p, w, l), dot(p, p)
    mass, of_unseen = dot(p, others), dot(others, p**2)
    gain = d_l * (mass * (p[l] - square) + of_unseen) - d_w * (mass * (p[w] - square) + of_unseen)
    return All(
        Equal(rate[w], d_w * (1 - 2 * p[w] + square) + d_l * (p[w] + p[l] - square)),
        Equal(rate[l], d_w * (square - p[w] - p[l]) - d_l * (1 - 2 * p[l] + square)),
        Equal(dot(others, p * rate), gain),
    )


def boundary_of_the_chosen(p_w, p_l, square):
    """r_w: beyond this kappa the chosen falls, where some unseen response is peaked (S > p_w + p_l)."""
    return (1 - 2 * p_w + square) / (square - p_w - p_l)


def boundary_of_the_rejected(p_w, p_l, square):
    """r_l: below this kappa the rejected rises, where some unseen response is peaked (S > p_w + p_l)."""
    return (square - p_w - p_l) / (1 - 2 * p_l + square)


def boundary_of_the_unseen(p_w, p_l, square, unseen_mean):
    """r_U = (p_w + m - S) / (p_l + m - S), m = sum over the unseen of p^2 / U: the kappa at which they turn."""
    return (p_w + unseen_mean - square) / (p_l + unseen_mean - square)


@theorem(Source(PAPER, "ours, after Sec. 3.3"), r"\dot A = d_w (S-\pi_w-\pi_l)(r_w - \kappa),\;"
         r" \dot B = d_w(1-2\pi_l+S)(r_l - \kappa)", claim="C14", **LAW, d_w=Positive(), kappa=Positive())  # fmt: skip
def boundaries_of_two_weights(p, w, l, d_w, kappa):
    """If an unseen response is peaked, the chosen falls beyond kappa = r_w > 1 and the rejected rises below r_l < 1.

    r_w - 1 = (1 - pi_w + pi_l) / (S - pi_w - pi_l) and 1 - r_l = (1 + pi_w - pi_l) / (1 - 2 pi_l + S). Where S is below
    pi_w + pi_l neither happens.
    """
    rate, square = pushed(p, w, l, d_w, kappa * d_w), dot(p, p)
    peak = square - p[w] - p[l]
    r_w, r_l = (f(p[w], p[l], square) for f in (boundary_of_the_chosen, boundary_of_the_rejected))
    return All(
        Equal(rate[w], d_w * peak * (r_w - kappa)),
        Equal(rate[l], d_w * (1 - 2 * p[l] + square) * (r_l - kappa)),
        Equal((r_w - 1) * peak, 1 - p[w] + p[l]),
        AtMost(peak, 1 - 2 * p[l] + square, slack=1 + p[w] - p[l]),
    )


@theorem(Source(PAPER, "ours, after Sec. 3.3"), r"\pi_l = 0:\; \dot A > 0 \iff"
         r" \pi_o < \frac{\beta_-}{2(\beta_--\beta_+)}", claim="C14", o=Unit(), beta_w=Positive(),
         more=Positive())  # fmt: skip
def fate_is_sealed_beyond_the_separatrix(o, beta_w, more):
    """Once the rejected is gone, one unseen peak o wins for ever exactly above beta_l / (2 (beta_l - beta_w)).

    That is below 1 only for kappa > 2: with less, and so in plain DPO, the chosen always wins. beta_l = beta_w + more.
    """
    beta_l, p_w = beta_w + more, 1 - o
    square = o**2 + p_w**2
    rate = beta_w * (1 - 2 * p_w + square) + beta_l * (p_w - square)
    return All(
        SameSign(rate, separatrix(beta_w, beta_l) - o, factor=2 * more * o),
        SameSign(1 - separatrix(beta_w, beta_l), beta_l - 2 * beta_w, factor=1 / (2 * more)),
    )


def separatrix(beta_w, beta_l):
    """The mass above which an unseen peak wins, the rejected being gone; for beta_l > beta_w."""
    return beta_l / (2 * (beta_l - beta_w))


# -- C15: the safe cone ------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, after Sec. 3.3"), r"\kappa = \tfrac{|G_w|}{|G_l|}:\;"
         r" \dot A = \beta_+\sigma(-u)|G_w|^2(1-\cos) \ge 0 \ge \dot B", claim="C15",
         A=Real(), B=Real(), A0=Real(), B0=Real(), g_w=NonZeros("d"), g_l=NonZeros("d"), beta=Positive())  # fmt: skip
def safe_cone_is_never_empty(A, B, A0, B0, g_w, g_l, beta):
    """In any model Flex-DPO with kappa = |G_w| / |G_l| raises the chosen and lowers the rejected, to first order."""
    n_w, n_l = sqrt(dot(g_w, g_w)), sqrt(dot(g_l, g_l))
    loss = partial(losses.flex_dpo, beta_chosen=beta, beta_rejected=beta * n_w / n_l)
    d_w, d_l = margin_weights(loss, PairLogProbs(A, B, A0, B0))
    change_w, change_l = first_order_changes(d_w, d_l, n_w, n_l, dot(g_w, g_l))
    apart = g_w / n_w - g_l / n_l
    away = dot(apart, apart) / 2  # 1 - cos
    return All(
        AtMost(0 * n_w, change_w, slack=d_w * n_w**2 * away), AtMost(change_l, 0 * n_l, slack=d_w * n_w * n_l * away)
    )


# -- C16: a fine-tuning term -------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Sec. 3.3; the bound ours"), r"\log\pi_w(t) \ge \log\pi_w(0) - \frac{\log 2}{\alpha}",
         claim="C16", A0=Real(), h=Real(), decrease=Positive(), alpha=Positive(), beta=Positive())  # fmt: skip
def fine_tuning_bounds_the_fall(A0, h, decrease, alpha, beta):
    """With a fine-tuning term alpha, in any model, the chosen never falls by more than (log 2) / alpha nats.

    The total loss only falls, by ``decrease`` so far, and starts at log 2 + alpha (-A0); h is the margin by then.
    """
    A = A0 + (softplus(-beta * h) - log(2) + decrease) / alpha
    now, start = PairLogProbs(A, A - A0 - h, A0, 0 * h), PairLogProbs(A0, 0 * h, A0, 0 * h)
    loss = partial(losses.dpo_sft, beta=beta, alpha=alpha, sft_reduction="sum")
    return All(
        AtMost(A0 - log(2) / alpha, A, slack=(softplus(-beta * h) + decrease) / alpha),
        Equal(loss(now), loss(start) - decrease),
    )


@theorem(Source(PAPER, "Sec. 3.3; the threshold ours"), r"\dot A(0) > 0 \iff \alpha > \alpha^* ="
         r" -\tfrac{\beta}{2}\,\frac{d\cdot v}{|d|^2}", claim="C16",
         d=NonZeros("d"), v=Reals("d"), A0=Real(), B0=Real(), alpha=Positive(), beta=Positive())  # fmt: skip
def weight_that_starts_upwards(d, v, A0, B0, alpha, beta):
    """The fine-tuning weight above which the chosen rises at the start; d is its gradient, v that of the margin."""
    loss = partial(losses.dpo_sft, beta=beta, alpha=alpha, sft_reduction="sum")
    d_w, d_l = margin_weights(loss, PairLogProbs(A0, B0, A0, B0))
    rejected = d - v
    enough = -beta / 2 * dot(d, v) / dot(d, d)
    return SameSign(dot(d, d_w * d - d_l * rejected), alpha - enough, factor=dot(d, d))


@theorem(Source(PAPER, "Sec. 3.3; this ours"), r"\dot h_{DPO+SFT} \ge \dot h_{DPO}", claim="C16",
         **LAW, z0=Reals("V"), alpha=Positive(), beta=Positive())  # fmt: skip
def fine_tuning_does_not_slow_the_margin(p, w, l, z0, alpha, beta):
    """In a table the margin grows at least as fast with the fine-tuning term: it is no cure for the rejected's drop."""

    def rate(loss):
        push = tables.force(loss, log(p), z0, w, l)
        return push[w] - push[l]

    both = rate(partial(losses.dpo_sft, beta=beta, alpha=alpha, sft_reduction="sum"))
    return AtMost(rate(partial(losses.dpo, beta=beta)), both, slack=alpha * (1 - p[w] + p[l]))


# -- C17: other losses, the same table ---------------------------------------------------------------------------------


@theorem(Source(PAPER, "App., toy runs of IPO and SLiC; the table ours"),
         r"IPO:\; \frac{2(h - 1/2\tau)}{p},\; \frac{-2(h-1/2\tau)}{q};\quad SLiC:\; -\frac1p,\; \frac1q", claim="C17",
         **FREE, tau=Positive(), delta=Positive())  # fmt: skip
def slopes_of_ipo_and_slic(p, q, a, b, tau, delta):
    """IPO and SLiC's ranking term in free variables: beyond its target IPO's slopes turn round, SLiC's vanish.

    Each slope is the margin weight over the probability, as for every loss; so IPO restores, the more the smaller q.
    """
    ipo_p, ipo_q = slopes(partial(losses.ipo, tau=tau), p, q, a, b)
    slic_p, slic_q = slopes(partial(losses.slic_hf, delta=delta, lam=0), p, q, a, b)
    pull = 2 * (log(p / a) - log(q / b) - 1 / (2 * tau))
    active = step(delta - log(p / q))
    return All(Equal(ipo_p, pull / p), Equal(ipo_q, -pull / q), Equal(slic_p, -active / p), Equal(slic_q, active / q))


@theorem(Source(PAPER, "ours"),
         r"\partial_q L = \frac{b_- E q^{b_--1}}{p^{b_+} + E q^{b_-}},\; b_\pm = \beta/n_\pm,\; E = e^\gamma",
         claim="C17", p=Unit(), q=Unit(), n_w=Positive(), n_l=Positive(), beta=Unit(),
         gamma=Logits())  # fmt: skip
def slopes_of_simpo(p, q, n_w, n_l, beta, gamma):
    """SimPO in free variables is Flex-DPO without reference: kappa is the ratio of the lengths, chosen to rejected."""

    def loss(pair):
        lengths = pair._replace(chosen_length=n_w, rejected_length=n_l)
        return losses.simpo(lengths, beta=beta, gamma=gamma)

    slope_p, slope_q = slopes(loss, p, q, 1, 1)
    b_w, b_l, e = beta / n_w, beta / n_l, exp(gamma)
    return All(
        Equal(slope_q, b_l * e * q ** (b_l - 1) / (p**b_w + e * q**b_l)),
        Equal(slope_q / slope_p, -(n_w / n_l) * p / q),
    )


@theorem(Source(PAPER, "ours, against Cor. 1"), r"q\,\partial_q L = d_l = d_w = -p\,\partial_p L", claim="C17",
         **FREE, beta=Positive(), tau=Positive())  # fmt: skip
def ratio_is_the_same_for_margin_losses(p, q, a, b, beta, tau):
    """The ratio p/q is that of every loss of the margin alone, DPO and IPO alike, since their two weights are equal.

    A loss that stops and one that never does share it: it is not the cause of the drop.
    """
    pair = PairLogProbs(log(p), log(q), log(a), log(b))

    def balanced(loss):
        slope_p, slope_q = slopes(loss, p, q, a, b)
        d_w, d_l = margin_weights(loss, pair)
        return All(Equal(slope_p + slope_q, d_w * (p - q) / (p * q)), Equal(q * slope_q, d_l), Equal(d_w, d_l))

    return All(balanced(partial(losses.dpo, beta=beta)), balanced(partial(losses.ipo, tau=tau)))


@theorem(Source(PAPER, "Cor. 1 read as a cause"),
         r"\frac{\partial_q L}{\partial_p L} = -\frac pq \Rightarrow \dot h > 0",
         claim="C17", expect="refuted", instead=["ratio_is_the_same_for_margin_losses", "ipo_flows_to_its_target"],
         **LAW, z0=Reals("V"), tau=Positive())  # fmt: skip
def ratio_makes_the_margin_grow_for_ever(p, w, l, z0, tau):
    """A loss whose slopes have the ratio p/q widens the margin for ever: false for IPO, which comes back."""
    push = tables.force(partial(losses.ipo, tau=tau), log(p), z0, w, l)
    return NonNegative(push[w] - push[l])


@theorem(Source(PAPER, "ours"), r"\dot h = 4\left(\tfrac1{2\tau} - h\right),\; h = \frac{1 - e^{-4t}}{2\tau}",
         claim="C17", **LAW, z0=Reals("V"), tau=Positive(), t=Positive())  # fmt: skip
def ipo_flows_to_its_target(p, w, l, z0, tau, t):
    """In a table IPO's margin follows (1 - e^(-4t)) / (2 tau): it stops at its target."""
    z = log(p)
    push = tables.force(partial(losses.ipo, tau=tau), z, z0, w, l)
    h = (z - z0)[w] - (z - z0)[l]

    def path(t):
        return (1 - exp(-4 * t)) / (2 * tau)

    return All(
        Equal(push[w] - push[l], 4 * (1 / (2 * tau) - h)), Equal(velocity(path)(t), 4 * (1 / (2 * tau) - path(t)))
    )


@theorem(Source(PAPER, "ours"), r"\frac{d}{dt}\log\frac{\pi_w}{\pi_l} = 2 \text{ up to } \delta", claim="C17",
         z=Reals("V"), w=Index("V"), l=Index("V"), delta=Positive())  # fmt: skip
def slic_flows_to_its_margin(z, w, l, delta):
    """In a table SLiC's ranking term widens the log-odds at the rate 2 until they are delta, and stops."""
    push = tables.force(partial(losses.slic_hf, delta=delta, lam=0), z, z, w, l)
    return Equal(push[w] - push[l], 2 * step(delta - z[w] + z[l]))


@theorem(Source(PAPER, "ours"), r"U_\infty > R \iff \rho > e^{h/2},\; h = 1/2\tau", claim="C17",
         **LAW, o=Index("V"), half=Positive())  # fmt: skip
def where_a_finite_margin_leaves_the_unseen(p, w, l, o, half):
    """A loss that stops at the margin h leaves the unseen above their start exactly if P_l / P_w > e^(h/2)."""
    x = exp(half)
    after, normaliser = tilted(p, w, l, x)
    return SameSign(after[o] - p[o], p[l] - p[w] * x, factor=p[o] * (x - 1) / (x * normaliser))


# -- C18: on and off policy --------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Sec. 3.2; the control ours"), r"\dot U_{CE} > 0 \iff S > \pi_w + m", claim="C18", **LAW)
def cross_entropy_disperses_too(p, w, l):
    """Training on the chosen alone also feeds the unseen where a likely rejected has to give way: S > pi_w + m.

    m = sum over the unseen of p^2 / U, so an off-policy chosen with an on-policy rejected disperses without DPO.
    """
    rate, others = pushed(p, w, l, 1, 0), unseen(p, w, l)
    return Equal(dot(others, p * rate), dot(p, others) * (dot(p, p) - p[w]) - dot(others, p**2))
