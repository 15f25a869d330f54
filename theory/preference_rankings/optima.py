"""What a perfect optimum ranks: idealised accuracy, its shape in beta, two ways to get it wrong (C3, C4, C9-C11).

alpha is the share of raters who prefer the chosen; the chosen is the majority's, alpha > 1/2, which is written as odds
1 + more. Where a law of responses is wanted, log p are the reference's logits.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial

from sandbox import losses, rankings, tables
from sandbox.algebra import dot, grad, kl, log, log_softmax, logsumexp, onehot, sigmoid, softmax, velocity
from sandbox.losses import PairLogProbs
from sandbox.measures import margin
from theory.preference_rankings.pairs import BETA, LOG_PROBS, PAPER, dpo_at, ipo_at, pair_at
from theory.statement import (
    All,
    AtMost,
    Bowl,
    Equal,
    Given,
    Index,
    Logits,
    NonNegative,
    Positive,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Tends,
    Unit,
    theorem,
)

CODE = "released code"


def share(more):
    """A share above one half: odds of 1 + more."""
    return (1 + more) / (2 + more)


# -- C3: the optimum of RLHF and of DPO --------------------------------------------------------------------------------


def soft_dpo(m, c, alpha, beta):
    """DPO with soft labels, -alpha log sigmoid(u) - (1 - alpha) log sigmoid(-u) with u = beta (m + c)."""
    return losses.cdpo(pair_at(m, c), beta=beta, epsilon=1 - alpha)


@theorem(Source(PAPER, "Thm 3.1, RLHF"), r"E_\pi r - \beta KL(\pi\|ref) \le \beta \log Z", claim="C3",
         p=Simplex("V"), ref=Simplex("V"), s=Logits("V"), beta=Positive())  # fmt: skip
def optimum_of_rlhf(p, ref, s, beta):
    """No policy is better for RLHF than ref e^(r/beta) / Z, whose value is beta log Z; rewards are r = beta s."""
    r = beta * s
    tilted = log(ref) + r / beta
    value = dot(p, r) - beta * kl(p, ref)
    return AtMost(value, beta * logsumexp(tilted), slack=beta * kl(p, softmax(tilted)))


@theorem(Source(PAPER, "Thm 3.1, RLHF"), r"m^* = \frac{logit\,\alpha}{\beta} - c",
         claim="C3", ref=Simplex("V"), r=Reals("V"), w=Index("V"), l=Index("V"), beta=Positive())  # fmt: skip
def log_odds_of_rlhf(ref, r, w, l, beta):
    """RLHF's optimum adds logit(alpha) / beta to the reference's log-odds of every pair, alpha Bradley-Terry's share.

    It also fixes each log-ratio by itself, r / beta - log Z.
    """
    now, before = log_softmax(log(ref) + r / beta), log(ref)
    pair = PairLogProbs(now[w], now[l], before[w], before[l])
    error = rankings.reference_error(pair)
    alone = Equal(now[w] - before[w], r[w] / beta - logsumexp(log(ref) + r / beta))
    ideal = rankings.ideal_log_odds(error, sigmoid(r[w] - r[l]), beta=beta)
    return All(Equal(rankings.log_odds(pair), ideal), alone)


@theorem(Source(PAPER, "Thm 3.1, DPO"), r"u^* = logit\,\alpha", claim="C3",
         q=Unit(), c=Real(), more=Positive(), beta=Positive())  # fmt: skip
def optimum_of_dpo(q, c, more, beta):
    """DPO with soft labels is least where the policy's probability q of the preference is alpha.

    There u = logit(alpha), and the log-odds are the reference's plus logit(alpha) / beta.
    """
    alpha = share(more)
    entropy = -(1 - alpha) * log(1 - alpha) - alpha * log(alpha)
    above = Bowl(
        lambda q: entropy + 0 * q,
        lambda q: soft_dpo(rankings.ideal_log_odds(c, q, beta=beta), c, alpha, beta),
        at=q, bottom=alpha, factor=lambda q: 1 / (q * (1 - q)),
    )  # fmt: skip
    best = rankings.ideal_log_odds(c, alpha, beta=beta)
    return All(above, Equal(velocity(lambda m: soft_dpo(m, c, alpha, beta))(best), 0))


@theorem(Source(PAPER, "Sec. 3"), r"\alpha L(w,l) + (1-\alpha) L(l,w) = L_\alpha", claim="C3",
         **LOG_PROBS, more=Positive(), beta=Positive())  # fmt: skip
def hard_labels_have_the_same_optimum(A, B, A0, B0, more, beta):
    """Hard labels with frequency alpha have the expected loss of soft ones."""
    alpha = share(more)
    one, other = (losses.dpo(PairLogProbs(*x), beta=beta) for x in ((A, B, A0, B0), (B, A, B0, A0)))
    soft = losses.cdpo(PairLogProbs(A, B, A0, B0), beta=beta, epsilon=1 - alpha)
    return Equal(soft, alpha * one + (1 - alpha) * other)


@theorem(Source(PAPER, "Remark 3.2"), r"L'(m) < 0", claim="C3", m=Logits(), c=Logits(), beta=BETA)
def unanimous_labels_have_no_optimum(m, c, beta):
    """Under unanimous labels the loss falls for ever: there is no finite optimum."""
    slope = velocity(lambda m: dpo_at(m, c, beta))(m)
    return SameSign(-slope, 1, factor=beta * sigmoid(-beta * (m + c)))


def cycle_loss(z, z0, corners, alpha, beta):
    """Soft-labelled DPO in which each of three responses is preferred to the next by a share alpha > 1/2."""
    soft = partial(losses.cdpo, beta=beta, epsilon=1 - alpha)

    def of(w, l):
        return tables.pair_loss(soft, z, z0, w, l)

    a, b, c = corners
    return of(a, b) + of(b, c) + of(c, a)


@theorem(Source(PAPER, "ours, on the assumption of Thm 3.1"), r"\nabla L(ref) = 0 \text{ on a cycle}", claim="C3",
         z0=Reals("V"), a=Index("V"), b=Index("V"), c=Index("V"), more=Positive(), beta=Positive())  # fmt: skip
def optimum_on_a_cycle_is_the_reference(z0, a, b, c, more, beta):
    """Where three responses beat one another in a cycle, all by alpha, the reference is stationary; DPO is convex."""
    slope = grad(lambda z: cycle_loss(z, z0, (a, b, c), share(more), beta))(z0)
    return Equal(slope, 0 * z0)


@theorem(Source(PAPER, "Thm 3.1, without a Bradley-Terry model"), r"m^* = \tfrac{logit\,\alpha}{\beta} - c", claim="C3",
         expect="refuted", instead=["optimum_of_dpo", "optimum_on_a_cycle_is_the_reference"],
         z0=Reals("V"), a=Index("V"), b=Index("V"), c=Index("V"), more=Positive(),
         beta=Positive(), witness={"z0": [0, 0, 0], "a": 0, "b": 1, "c": 2, "more": 1, "beta": 1})  # fmt: skip
def optimum_of_dpo_on_a_cycle(z0, a, b, c, more, beta):
    """On the cycle, too, a policy that has the log-odds of the theorem on one of its pairs is stationary: false."""
    z = z0 + rankings.logit(share(more)) / beta * onehot(a, z0)
    return Equal(grad(lambda z: cycle_loss(z, z0, (a, b, c), share(more), beta))(z), 0 * z0)


# -- C4: which pairs the optimum ranks right ---------------------------------------------------------------------------


@theorem(Source(PAPER, "Cor 3.3, solved for beta"), r"m^* > 0 \iff \beta < logit(\alpha)/c", claim="C4",
         c=Positive(), more=Positive(), beta=Positive())  # fmt: skip
def right_below_the_critical_beta(c, more, beta):
    """Where the reference is wrong by c nats, the optimum is right exactly for beta below logit(alpha) / c."""
    ideal = rankings.ideal_log_odds(c, share(more), beta=beta)
    return SameSign(ideal, rankings.critical_beta(c, share(more)) - beta, factor=c / beta)


@theorem(Source(PAPER, "Cor 3.3"), r"c \le 0,\, \alpha > \tfrac12 \Rightarrow m^* > 0", claim="C4",
         k=Positive(), more=Positive(), beta=Positive())  # fmt: skip
def right_references_stay_right(k, more, beta):
    """Where the reference is right by k nats, the optimum is right for every beta."""
    ideal = rankings.ideal_log_odds(-k, share(more), beta=beta)
    return AtMost(0 * k, ideal, slack=k + log(1 + more) / beta)


@theorem(Source(PAPER, "ours"), r"\partial m^*/\partial\beta < 0", claim="C4",
         c=Real(), more=Positive(), beta=Positive())  # fmt: skip
def ideal_accuracy_falls_with_beta(c, more, beta):
    """The optimum's log-odds of every pair fall as beta grows, hence the idealised accuracy never rises."""
    slope = velocity(lambda beta: rankings.ideal_log_odds(c, share(more), beta=beta))(beta)
    return SameSign(-slope, log(1 + more), factor=1 / beta**2)


@theorem(
    Source(PAPER, "ours"), r"m^* \to \infty \;(\beta \to 0)", claim="C4", expect="checked", c=Real(), more=Positive()
)
def ideal_accuracy_of_small_beta_is_one(c, more):
    """As beta falls to 0 every pair is ranked right."""
    return Tends(lambda beta: rankings.ideal_log_odds(c, share(more), beta=beta), 0, "oo")


@theorem(
    Source(PAPER, "ours"), r"m^* \to -c \;(\beta \to \infty)", claim="C4", expect="checked", c=Real(), more=Positive()
)
def ideal_accuracy_of_large_beta_is_the_reference(c, more):
    """As beta grows the optimum ranks as the reference does."""
    return Tends(lambda beta: rankings.ideal_log_odds(c, share(more), beta=beta), "oo", -c)


@theorem(Source(PAPER, "ours, after Remark 2.5"), r"\beta h^* = logit\,\alpha > 0", claim="C4",
         c=Real(), more=Positive(), beta=Positive())  # fmt: skip
def reward_accuracy_of_the_optimum_is_one(c, more, beta):
    """The optimum rewards every pair rightly, so reward accuracy cannot see the idealised accuracy."""
    best = pair_at(rankings.ideal_log_odds(c, share(more), beta=beta), c)
    return AtMost(0 * c, beta * margin(best), slack=log(1 + more))


@theorem(Source(PAPER, "ours"), r"h^* = (2\alpha-1)/2\tau", claim="C4", h=Real(), alpha=Unit(), tau=Positive())
def optimum_of_ipo(h, alpha, tau):
    """IPO with soft labels is least at the margin (2 alpha - 1) / (2 tau): right exactly where c is below that."""

    def loss(h):
        return alpha * ipo_at(h, 0 * h, tau) + (1 - alpha) * ipo_at(-h, 0 * h, tau)

    best = rankings.ipo_optimum(alpha, tau=tau)
    return Bowl(lambda x: loss(best) + 0 * x, loss, at=h, bottom=best, factor=lambda x: 2)


@theorem(Source(PAPER, "ours"), r"h^* = 1/\beta \text{ for every } \alpha > \tfrac12", claim="C4",
         s=Positive(), inside=Unit(), more=Positive(), beta=Positive())  # fmt: skip
def optimum_of_the_hinge(s, inside, more, beta):
    """The hinge with soft labels is least at the margin 1 / beta, for every majority: right exactly where c < 1 / beta.

    Beyond, below -1 / beta, and in between the loss is larger.
    """
    alpha = share(more)

    def loss(h):
        one, other = (losses.hinge(pair_at(x, 0 * x), beta=beta) for x in (h, -h))
        return alpha * one + (1 - alpha) * other

    best = rankings.hinge_optimum(beta=beta)
    most = (2 * alpha - 1) * 2
    return All(
        AtMost(loss(best), loss((1 + s) / beta), slack=(1 - alpha) * s),
        AtMost(loss(best), loss(-(1 + s) / beta), slack=most + alpha * s),
        AtMost(loss(best), loss((1 - 2 * inside) / beta), slack=most * inside),
    )


# -- C9: length normalisation ------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\tilde m > 0 \iff m > 0 \text{ at equal lengths}", claim="C9",
         A=Real(), B=Real(), n=Positive())  # fmt: skip
def equal_lengths_rank_alike(A, B, n):
    """Responses of n tokens each are ranked alike with and without length normalisation, by every policy."""
    pair = PairLogProbs(A, B, None, None, n, n)
    return SameSign(rankings.log_odds(pair, "mean"), A - B, factor=1 / n)


def printed_ideal(A0, B0, n_w, n_l, alpha, beta):
    """The length-normalised optimum as printed: the reference's log-odds per token, tilted by all of logit / beta."""
    reference = PairLogProbs(A0, B0, None, None, n_w, n_l)
    return rankings.log_odds(reference, "mean") + rankings.logit(alpha) / beta


@theorem(Source(PAPER, "Cor 3.3, length-normalised"), r"\tilde m^*_{printed} \ge 0 \Rightarrow m^* \ge 0", claim="C9",
         expect="refuted", instead=["normalised_optimum_of_equal_lengths", "equal_lengths_rank_alike"],
         c=Positive(), n=Positive(), more=Positive(), beta=Positive(),
         witness={"c": 10, "n": 10, "more": 2, "beta": Fraction(1, 5)})  # fmt: skip
def printed_normalised_optimum_is_the_optimum(c, n, more, beta):
    """The printed length-normalised optimum ranks equal lengths as the optimum: false, it tilts n times too far."""
    printed = printed_ideal(-c, 0 * c, n, n, share(more), beta)
    return Given(printed, then=NonNegative(rankings.ideal_log_odds(c, share(more), beta=beta)))


@theorem(Source(PAPER, "ours, corrected Cor 3.3"), r"\tilde m^* = \tilde m_{ref} + \frac{logit\,\alpha}{\beta n}",
         claim="C9", c=Real(), n=Positive(), alpha=Unit(), beta=Positive())  # fmt: skip
def normalised_optimum_of_equal_lengths(c, n, alpha, beta):
    """At equal lengths the optimum's log-odds per token are the reference's, tilted by logit(alpha) / (beta n)."""
    best = pair_at(rankings.ideal_log_odds(c, alpha, beta=beta), c)._replace(chosen_length=n, rejected_length=n)
    return Equal(rankings.log_odds(best, "mean"), -c / n + rankings.logit(alpha) / (beta * n))


@theorem(Source(PAPER, "ours"), r"\Delta\tilde m = b\,(1/n_w - 1/n_l),\; \Delta L = 0", claim="C9",
         **LOG_PROBS, b=Real(), n_w=Positive(), n_l=Positive(), beta=Positive())  # fmt: skip
def dpo_leaves_normalised_rankings_open(A, B, A0, B0, b, n_w, n_l, beta):
    """DPO is blind to b nats more for both responses, which change the log-odds per token where lengths differ."""
    pair = PairLogProbs(A, B, A0, B0, n_w, n_l)
    more = pair._replace(chosen=A + b, rejected=B + b)
    per_token = rankings.log_odds(more, "mean") - rankings.log_odds(pair, "mean")
    return All(
        Equal(per_token, b * (n_l - n_w) / (n_w * n_l)),
        Equal(losses.dpo(more, beta=beta), losses.dpo(pair, beta=beta)),
    )


# -- C10: the released script ------------------------------------------------------------------------------------------


def vote_of_the_script(A0, B0):
    """What the released script adds to the log-odds for the reference: log of a ratio of LOG-likelihoods."""
    return log(A0 / B0)


@theorem(Source(PAPER, CODE), r"\log\frac{\log ref_w}{\log ref_l} \ge 0 \iff ref_w \ge ref_l", claim="C10",
         expect="refuted", instead=["script_reverses_the_reference"], a=Positive(), b=Positive())  # fmt: skip
def script_votes_with_the_reference(a, b):
    """The script's vote has the reference's sign: false. Log-likelihoods are -a and -b."""
    return Given(b - a, then=NonNegative(vote_of_the_script(-a, -b)))


@theorem(Source(PAPER, "ours, on the " + CODE), r"0 < -vote \le (a_l - a_w)/a_w", claim="C10",
         a=Positive(), k=Positive())  # fmt: skip
def script_reverses_the_reference(a, k):
    """A reference right by k nats gets a vote against it, of at most k over the chosen's negative log-likelihood a."""
    vote = vote_of_the_script(-a, -(a + k))
    against = AtMost(vote, 0 * a, slack=log(1 + k / a))
    small = Bowl(lambda k: log(1 + k / a), lambda k: k / a, at=k, bottom=0 * k, factor=lambda k: 1 / (a * (a + k)))
    return All(against, small)


# -- C11: majorities of few raters -------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"P = \frac{\alpha^3(4-3\alpha)}{\alpha^3(4-3\alpha)+(1-\alpha)^3(1+3\alpha)} < 1",
         claim="C11", alpha=Unit())  # fmt: skip
def majority_of_four_errs(alpha):
    """The majority of four raters, ties dropped, agrees with the majority of all with a probability P below 1.

    Yet against the majority label the idealised accuracy tends to 1 as beta falls to 0.
    """
    right, wrong = alpha**3 * (4 - 3 * alpha), (1 - alpha) ** 3 * (1 + 3 * alpha)
    agreement = rankings.majority_agreement(alpha, 4)
    below = AtMost(agreement, 1 + 0 * alpha, slack=wrong / (right + wrong))
    return All(Equal(agreement, right / (right + wrong)), below)


@theorem(Source(PAPER, "ours"), r"P > \tfrac12 \iff \alpha > \tfrac12", claim="C11", alpha=Unit())
def majority_of_four_is_a_coin_at_one_half(alpha):
    """It is better than a coin exactly for alpha above one half."""
    whole = alpha**3 * (4 - 3 * alpha) + (1 - alpha) ** 3 * (1 + 3 * alpha)
    factor = (1 + 2 * alpha * (1 - alpha)) / (2 * whole)
    return SameSign(rankings.majority_agreement(alpha, 4) - 0.5, 2 * alpha - 1, factor=factor)
