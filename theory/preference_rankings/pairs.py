"""One pair: the loss that it needs to be ranked right, the time that it takes, and what a set of pairs can say (C1-C8).

c > 0 is a pair that the reference ranks wrongly. Pairs are read at log-odds m: of the four log-probabilities only m and
c enter, so that the pair is (m, 0) against (-c, 0).
"""

from __future__ import annotations

from typing import Any

from sandbox import losses, rankings
from sandbox.algebra import dot, exp, grad, log, log_softmax, mean, softplus, velocity
from sandbox.losses import PairLogProbs
from sandbox.measures import margin
from theory.statement import (
    All,
    AtMost,
    Bowl,
    Domain,
    Equal,
    Given,
    Grows,
    Index,
    Logits,
    Moderate,
    NonNegative,
    Positive,
    Positives,
    Real,
    Reals,
    Source,
    Unit,
    Units,
    theorem,
)

PAPER = "chen2024rankings"
LOG_PROBS: dict[str, Any] = dict(A=Real(), B=Real(), A0=Real(), B0=Real())


# Smaller still: e^(beta x) is to be a float in float32 too.
BETA = Domain("positive", make=lambda k: log(1 + k) / 10)


def pair_at(m, c):
    """A pair of log-odds m and reference error c."""
    return PairLogProbs(m, 0 * m, -c, 0 * c)


def dpo_at(m, c, beta):
    """Its DPO loss."""
    return losses.dpo(pair_at(m, c), beta=beta)


# -- C1, C2: the loss that a pair needs --------------------------------------------------------------------------------


@theorem(Source(PAPER, "Thm 4.1"), r"m \ge 0 \iff L \le -\log\sigma(\beta c)", claim="C1",
         m=Positive(), c=Real(), beta=Positive())  # fmt: skip
def loss_tells_the_ranking(m, c, beta):
    """A pair is ranked right exactly if its loss is at most -log sigmoid(beta c): m nats either way are on its side."""
    needed = rankings.loss_to_rank(c, beta=beta)
    return All(AtMost(dpo_at(m, c, beta), needed), AtMost(needed, dpo_at(-m, c, beta)))


@theorem(Source(PAPER, "Prop 2.6, sharpened: printed with 0.6"), r"c \le 0,\; L \le \log 2 \Rightarrow m \ge 0",
         claim="C2", m=Positive(), k=Positive(), beta=Positive())  # fmt: skip
def right_reference_and_small_loss_rank_right(m, k, beta):
    """Where the reference is right by k nats, a pair ranked wrongly has a loss above log 2, hence above 0.6."""
    return AtMost(log(2 + 0 * m), dpo_at(-m, -k, beta))


@theorem(Source(PAPER, "Prop 2.6 with a larger constant"), r"c \le 0,\; L \le 0.7 \Rightarrow m \ge 0", claim="C2",
         expect="refuted",
         instead=["right_reference_and_small_loss_rank_right"], m=Real(), k=Positive(), beta=Positive())  # fmt: skip
def right_reference_and_larger_loss_rank_right(m, k, beta):
    """The same with 0.7 in place of log 2: false, log 2 is sharp."""
    return Given(0.7 - dpo_at(m, -k, beta), then=NonNegative(m))


@theorem(Source(PAPER, "ours, negative control"), r"m \ge 0 \Rightarrow L \le \log 2", claim="C2", expect="refuted",
         instead=["right_reference_and_small_loss_rank_right"], m=Positive(), c=Real(), beta=Positive())  # fmt: skip
def ranked_right_has_small_loss(m, c, beta):
    """A pair that is ranked right has a loss of at most log 2: false, from a right reference it may rise above."""
    return AtMost(dpo_at(m, c, beta), log(2 + 0 * m))


@theorem(Source(PAPER, "Remark 2.5, negated"), r"h > 0 \Rightarrow m \ge 0", claim="C2", expect="refuted",
         instead=["right_reference_and_small_loss_rank_right"], **LOG_PROBS)  # fmt: skip
def rewarded_right_is_ranked_right(A, B, A0, B0):
    """A pair that the implicit reward gets right is ranked right: false, reward accuracy is another thing."""
    pair = PairLogProbs(A, B, A0, B0)
    return Given(margin(pair), then=NonNegative(rankings.log_odds(pair)))


# -- C5: IPO -----------------------------------------------------------------------------------------------------------


def ipo_at(m, c, tau):
    """The IPO loss of a pair of log-odds m and reference error c."""
    return losses.ipo(pair_at(m, c), tau=tau)


@theorem(Source(PAPER, "Prop A.7, first half; there c' = -c"), r"c > 1/2\tau,\; L = 0 \Rightarrow m < 0", claim="C5",
         m=Real(), k=Positive(), tau=Positive())  # fmt: skip
def perfect_ipo_may_rank_wrongly(m, k, tau):
    """A reference that is wrong by k nats more than IPO's target stays wrong, by k nats, at a loss of zero."""
    c = 1 / (2 * tau) + k
    return Bowl(lambda m: 0 * m, lambda m: ipo_at(m, c, tau), at=m, bottom=-k, factor=lambda m: 2)


@theorem(Source(PAPER, "Prop A.7, second half"),
         r"c \le 1/2\tau,\; L \le (1/2\tau - c)^2 \Rightarrow m \ge 0", claim="C5",
         m=Positive(), k=Positive(), tau=Positive())  # fmt: skip
def small_ipo_loss_ranks_right(m, k, tau):
    """Up to the target, c = 1 / (2 tau) - k: a pair ranked wrongly by m nats has a loss above k^2."""
    return AtMost(k**2, ipo_at(-m, 1 / (2 * tau) - k, tau), slack=m**2 + 2 * m * k)


@theorem(Source(PAPER, "Prop A.7, read both ways"), r"m \ge 0 \Rightarrow L \le (1/2\tau - c)^2", claim="C5",
         expect="refuted",
         instead=["small_ipo_loss_ranks_right"], m=Positive(), k=Positive(), tau=Positive())  # fmt: skip
def ranked_right_has_small_ipo_loss(m, k, tau):
    """The converse: false, a margin far beyond the target is ranked right at a large loss."""
    return AtMost(ipo_at(m, 1 / (2 * tau) - k, tau), k**2)


# -- C6: flip times ----------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\|\nabla m\|^2 = 2", claim="C6", z=Reals("V"), w=Index("V"), l=Index("V"))
def kappa_of_a_table(z, w, l):
    """The log-odds of two responses in a table of logits have a gradient of constant length, squared 2."""

    def m(z):
        now = log_softmax(z)
        return rankings.log_odds(PairLogProbs(now[w], now[l]))

    return Equal(dot(grad(m)(z), grad(m)(z)), 2)


@theorem(Source(PAPER, "ours; the loss Eq. 4"), r"u + e^u = u_0 + e^{u_0} + \kappa\beta^2 t,\; u_0 = (\gamma-1)\beta c",
         claim="C6", x=Logits("d"), theta=Logits("d"), c=Logits(), beta=BETA, gamma=Logits())  # fmt: skip
def clock_of_a_pair(x, theta, c, beta, gamma):
    """Along gradient flow with linear log-odds u + e^u, u = beta (m + gamma c), grows at the rate kappa beta^2.

    gamma = 1 is DPO, 0 has no reference; kappa = |x|^2 is the squared gradient of the log-odds.
    """

    def loss(theta):
        return dpo_at(dot(x, theta) - c, gamma * c, beta)

    def clock(theta):
        u = beta * (dot(x, theta) - c + gamma * c)
        return u + exp(u)

    before = (gamma - 1) * beta * c
    return Grows(clock, lambda z: -grad(loss)(z), at=theta, start=0 * theta, by=beta**2 * dot(x, x),
                 begins=before + exp(before))  # fmt: skip


@theorem(Source(PAPER, "ours"), r"t_{flip} = (e^{\gamma\beta c} - e^{-(1-\gamma)\beta c} + \beta c)/\kappa\beta^2",
         claim="C6", c=Moderate(), beta=Moderate(), gamma=Logits(), kappa=Positive())  # fmt: skip
def when_a_pair_flips(c, beta, gamma, kappa):
    """At the flip time the clock shows the margin at which the log-odds are zero: exponential in gamma beta c."""
    t = rankings.flip_time(c, beta=beta, kappa=kappa, gamma=gamma)
    before, flipped = (gamma - 1) * beta * c, gamma * beta * c
    return Equal(before + exp(before) + kappa * beta**2 * t, flipped + exp(flipped))


@theorem(Source(PAPER, "ours"), r"\min_\beta t_{flip} = (e^2+1)c^2/4\kappa \text{ at } \beta = 2/c", claim="C6",
         c=Moderate(), beta=Moderate(), kappa=Positive())  # fmt: skip
def valley_of_the_flip_time(c, beta, kappa):
    """No beta flips a pair sooner than beta = 2/c, at (e^2 + 1) c^2 / (4 kappa)."""
    return Bowl(
        lambda b: (exp(2 + 0 * b) + 1) * c**2 / (4 * kappa),
        lambda b: rankings.flip_time(c, beta=b, kappa=kappa),
        at=beta, bottom=2 / c, factor=lambda b: c * (exp(b * c) - 1) / (kappa * b**3),
    )  # fmt: skip


@theorem(Source(PAPER, "ours"), r"L = \log(1 + e^{-2}) = 0.1269", claim="C6", c=Positive())
def loss_in_the_valley(c):
    """At that best beta every pair flips at the same loss, log(1 + e^-2): there its margin is c."""
    return Equal(rankings.margin_at_loss(log(1 + exp(0 * c - 2)), beta=2 / c), c)


def ipo_margin(t, tau, kappa):
    """IPO's margin after time t of gradient flow on one pair."""
    return (1 - exp(-2 * kappa * t)) / (2 * tau)


@theorem(Source(PAPER, "ours"), r"t_{flip} = -\log(1-2\tau c)/2\kappa", claim="C6",
         s=Unit(), tau=Positive(), kappa=Positive(), t=Positive())  # fmt: skip
def flip_time_of_ipo(s, tau, kappa, t):
    """IPO's margin approaches its target exponentially and passes c = s / (2 tau), s < 1, at the flip time."""
    c = s / (2 * tau)

    def h(t):
        return ipo_margin(t, tau, kappa)

    flow = -kappa * velocity(lambda h: ipo_at(h - c, c, tau))(h(t))
    return All(Equal(velocity(h)(t), flow), Equal(h(rankings.ipo_flip_time(c, tau=tau, kappa=kappa)), c))


@theorem(Source(PAPER, "ours"), r"m < 0 \text{ for ever if } c \ge 1/2\tau", claim="C6",
         k=Positive(), tau=Positive(), kappa=Positive(), t=Positive())  # fmt: skip
def ipo_never_flips_beyond_its_target(k, tau, kappa, t):
    """A reference error k nats beyond IPO's target is never overturned."""
    c = 1 / (2 * tau) + k
    m = rankings.log_odds(pair_at(ipo_margin(t, tau, kappa) - c, c))
    return AtMost(m, 0 * t, slack=k + exp(-2 * kappa * t) / (2 * tau))


# -- C7, C8: a set of pairs --------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"h = -\log(e^L - 1)/\beta", claim="C7",
         A=Logits(), B=Logits(), A0=Logits(), B0=Logits(), beta=BETA)  # fmt: skip
def loss_tells_the_margin(A, B, A0, B0, beta):
    """The loss of a pair says its margin, whatever the policy."""
    loss = losses.dpo(PairLogProbs(A, B, A0, B0), beta=beta)
    return Equal(rankings.margin_at_loss(loss, beta=beta), (A - A0) - (B - B0))


@theorem(Source(PAPER, "ours"), r"R = F_c(u/\beta)", claim="C7", c=Reals("n"), u=Real(), beta=Positive())
def accuracy_is_the_law_of_the_errors(c, u, beta):
    """Pairs that share u = beta h, as on prompts of their own, are ranked right in the share with c <= u / beta."""
    pairs = pair_at(u / beta - c, c)
    margins = rankings.margin_at_loss(losses.dpo(pairs, beta=beta), beta=beta)
    return All(
        Equal(rankings.ranking_accuracy(pairs), mean(rankings.ranked_right(u / beta - c))),
        Equal(margins, u / beta + 0 * c),
    )


@theorem(Source(PAPER, "ours; in place of the remark on Markov's inequality"), r"n\bar L \ge \sum_{wrong} \tau_i",
         claim="C8", c=Reals("n"), m=Positives("n"), right=Reals("n"), wrong=Units("n"), beta=Positive())  # fmt: skip
def wrong_pairs_cost_what_they_need(c, m, right, wrong, beta):
    """The losses of all pairs together exceed what the wrong ones need, -log sigmoid(beta c_i) each.

    ``wrong``: the share of each pair that is ranked wrongly, by m nats; its other share has the log-odds ``right``.
    """
    needed = rankings.loss_to_rank(c, beta=beta)
    whole = dot(wrong, dpo_at(-m, c, beta)) + dot(1 - wrong, dpo_at(right, c, beta))
    over = dpo_at(-m, c, beta) - needed  # never negative: C1
    slack = dot(wrong, over) + dot(1 - wrong, softplus(-beta * (right + c)))
    return AtMost(dot(wrong, needed), whole, slack=slack)
