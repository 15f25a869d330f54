"""What hidden vectors alone tell: CHES against the exact gradient quantity; and what on-policy data do (C11-C13).

G = <grad ln pi(y+), grad ln pi(y-)> - |grad ln pi(y+)|^2 is minus the speed of the chosen. CHES = <S+, S-> - |S+|^2 of
the summed hidden vectors S is G with every alpha set to 1 and what passes through shared contexts left out.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from sandbox.algebra import dot, log, log_softmax, outer, softmax, total, velocity
from sandbox.measures import ches_of_sums
from sandbox.policies import residual
from theory.displacement.sequences import Token, alphas
from theory.displacement.tokens import PAIR, PAPER, speed
from theory.statement import (
    All,
    AtMost,
    Equal,
    Given,
    Index,
    NonZeros,
    Positive,
    Reals,
    Simplex,
    Source,
    Units,
    theorem,
)

OURS = Source(PAPER, "ours")
CHES = Source(PAPER, "Def. 2, read as a rule")


# -- C11: CHES against G -----------------------------------------------------------------------------------------------

SEQUENCES: dict[str, Any] = dict(h1=Reals("d"), h2=Reals("d"), k2=Reals("d"))


@theorem(Source(PAPER, "ours, after Def. 2"), r"G = \|e_y-p\|^2\,\mathrm{CHES}", claim="C11", p=Simplex("V"),
         **SEQUENCES, y=Index("V"))  # fmt: skip
def ches_is_exact_where_all_tokens_are_alike(p, h1, h2, k2, y):
    """With hidden vectors fixed, one token and one law everywhere, G is CHES times a positive number.

    In general it has this order where all alpha share one positive value.
    """

    def log_prob(t):  # a step along the gradient of ln pi(y-) - ln pi(y+) through W
        pull = h1 + k2 - (h1 + h2)
        return sum(log_softmax(log(p) + t * dot(pull, h) * residual(y, p))[y] for h in (h1, h2))

    alpha = 1 - 2 * p[y] + dot(p, p)
    return Equal(velocity(log_prob)(0), alpha * ches_of_sums(h1 + h2, h1 + k2))


FLAT: dict[str, Any] = dict(x=Reals("V"), **SEQUENCES, a=Index("V"), b=Index("V"), c=Index("V"), e=Index("V"))


def flat_fall(x, h1, h2, k2, a, b, c, e):
    """G of chosen a b and rejected c e where W = 0 and every law is uniform."""
    u = softmax(0 * x)
    chosen, rejected = [Token(1, h1, u, a), Token("+", h2, u, b)], [Token(1, h1, u, c), Token("-", k2, u, e)]
    return alphas(chosen, rejected) - alphas(chosen, chosen)


@theorem(Source(PAPER, "ours, against Def. 2"), r"W = 0:\; G = -\frac{\mathrm{CHES}}{V} - \sum_k\|h^+_k\|^2",
         claim="C11(b)", **FLAT)  # fmt: skip
def uniform_law_turns_ches_around(x, h1, h2, k2, a, b, c, e):
    """At a uniform law, without repeated tokens, G falls with CHES: the sign is wrong."""
    share = softmax(0 * x)[a]
    score = ches_of_sums(h1 + h2, h1 + k2)
    return Equal(flat_fall(x, h1, h2, k2, a, b, c, e), -share * score - dot(h1, h1) - dot(h2, h2))


@theorem(CHES, r"\mathrm{CHES} \le 0 \;\Rightarrow\; G \le 0, \text{ of single tokens}", claim="C11(a)",
         expect="refuted", instead=["speed_of_the_chosen", "kappa_threshold"], **PAIR,
         witness=dict(p=[1, 1, 8], W=[[1, 0], [0, 0], [3, 0]], h=[1, 0], w=0, l=1))  # fmt: skip
def ches_sees_single_tokens(p, W, h, w, l):
    """A pair of single tokens does not displace, as its CHES is 0: false, it is 0 for every pair of single tokens."""
    return AtMost(-speed(p, W, h, w, l, w), ches_of_sums(h, h))


@theorem(CHES, r"\mathrm{CHES}_P \le \mathrm{CHES}_Q \;\Rightarrow\; G_P \le G_Q", claim="C11(b)", expect="refuted",
         instead=["uniform_law_turns_ches_around", "ches_is_exact_where_all_tokens_are_alike"], **FLAT, q2=Reals("d"),
         witness=dict(x=[0, 0, 0, 0], h1=[1, 0], h2=[0, 1], k2=[0, 1], a=0, b=1, c=2, e=3, q2=[0, 2]))  # fmt: skip
def ches_ranks_pairs(x, h1, h2, k2, a, b, c, e, q2):
    """Of two rejected responses to one chosen the one with the higher CHES hurts more: false, the chosen rises faster.

    The two differ in one hidden vector; W = 0.
    """
    other, hurts = ches_of_sums(h1 + h2, h1 + k2), ches_of_sums(h1 + h2, h1 + q2)
    falls = flat_fall(x, h1, h2, k2, a, b, c, e)
    return Given(hurts - other, then=AtMost(falls, flat_fall(x, h1, h2, q2, a, b, c, e)))


@theorem(CHES, r"\mathrm{CHES} \le 0 \;\Rightarrow\; G \le 0", claim="C11(c)", expect="refuted",
         instead=["speed_of_a_chosen_sequence", "ches_is_exact_where_all_tokens_are_alike"], x=Reals("V"),
         **SEQUENCES, a=Index("V"), b=Index("V"), c=Index("V"),
         witness=dict(x=[0, 0, 0, 0], h1=[1, 0], h2=[0, 1], k2=[-5, 4], a=0, b=1, c=2))  # fmt: skip
def no_displacement_below_zero_ches(x, h1, h2, k2, a, b, c):
    """A pair whose CHES is negative does not displace: false, for chosen a b and rejected c b with W = 0."""
    score = ches_of_sums(h1 + h2, h1 + k2)
    return Given(-score, then=AtMost(flat_fall(x, h1, h2, k2, a, b, c, b), 0 * score))


@theorem(Source(PAPER, "ours, against Def. 2"), r"h \to Mh,\; W \to WM^{-1}:\; \pi \text{ stays, the order by CHES does"
         r" not}", claim="C11(d)", expect="refuted",
         instead=["ches_is_a_difference_of_norms"], s=Reals("d"), r=Reals("d"), s2=Reals("d"), r2=Reals("d"),
         m=NonZeros("d"),
         witness=dict(s=[1, 0], r=[2, 0], s2=[0, 1], r2=[0, Fraction(3, 2)], m=[1, 2]))  # fmt: skip
def order_by_ches_is_a_property_of_the_policy(s, r, s2, r2, m):
    """Two pairs keep their order by CHES for the same policy: false, hidden vectors times m, W over m give it, too."""
    before = ches_of_sums(s, r) - ches_of_sums(s2, r2)
    return Given(before, then=AtMost(ches_of_sums(s2 * m, r2 * m), ches_of_sums(s * m, r * m)))


# -- C12: identities ---------------------------------------------------------------------------------------------------

SUMS: dict[str, Any] = dict(s=Reals("d"), r=Reals("d"))


@theorem(OURS, r"\mathrm{CHES} = \tfrac12(\|S_-\|^2 - \|S_+\|^2 - \|S_+-S_-\|^2)", claim="C12", **SUMS)
def ches_is_a_difference_of_norms(s, r):
    """CHES rewards a rejected response of long sums, close to the chosen's."""
    return Equal(ches_of_sums(s, r), (dot(r, r) - dot(s, s) - dot(s - r, s - r)) / 2)


@theorem(OURS, r"\mathrm{CHES}(y^+,y^-) + \mathrm{CHES}(y^-,y^+) = -\|S_+-S_-\|^2 \le 0", claim="C12", **SUMS)
def not_both_orientations_are_positive(s, r):
    """A pair and the same pair with its labels swapped cannot both have a positive CHES."""
    return AtMost(ches_of_sums(s, r) + ches_of_sums(r, s), 0 * dot(s, r), slack=dot(s - r, s - r))


@theorem(OURS, r"h_k = h:\; \mathrm{CHES} = |y^+|(|y^-|-|y^+|)\|h\|^2", claim="C12", h=Reals("d"), n_w=Positive(),
         n_l=Positive())  # fmt: skip
def ches_measures_length(h, n_w, n_l):
    """With equal hidden vectors CHES is the difference in length, times the chosen's; normalised it is 0."""
    same = ches_of_sums(n_w * h / n_w, n_l * h / n_l)
    return All(Equal(ches_of_sums(n_w * h, n_l * h), n_w * (n_l - n_w) * dot(h, h)), Equal(same, 0 * dot(h, h)))


# -- C13: data drawn from the policy -----------------------------------------------------------------------------------

DATA: dict[str, Any] = dict(p=Simplex("V"), J=Reals("V", "d"), win=Units("V"))


def scores(p, J):
    """grad ln pi(y) (V, d) of every response y of a policy softmax(z): J, the gradients of z, less their mean."""
    return J - outer(1 + 0 * p, p @ J)


def mean_scores(drawn, p, J, win):
    """Mean gradients of chosen and rejected; both are drawn from ``drawn``, and y wins with probability ``win``."""
    each = scores(p, J)
    return 2 * (drawn * win) @ each, 2 * (drawn * (1 - win)) @ each


@theorem(OURS, r"y^\pm \sim \pi:\; E[C] = 0,\; E[A] = \mathrm{tr}F \ge 0", claim="C13", **DATA)
def own_pair_lifts_on_policy(p, J, win):
    """Two draws from the policy, in any model: the mean inner product of their gradients is 0, whatever the labels.

    So the mean step of a pair lifts its own chosen. ``win`` is how often a response wins.
    """
    each = scores(p, J)
    squares = dot(2 * p * win, total(each * each))
    inner = dot(p @ each, p @ each)
    return AtMost(0 * squares, squares - inner, slack=squares)


@theorem(OURS, r"E\nabla\ln\pi(y^-) = -E\nabla\ln\pi(y^+):\; E\,\dot{\ln\pi_+} = 2\|E\nabla\ln\pi(y^+)\|^2 \ge 0",
         claim="C13", **DATA)  # fmt: skip
def other_pairs_lift_on_policy(p, J, win):
    """And the mean step of all other pairs lifts it too, whatever the labels: on average a first step cannot displace.

    Only drift can: the pairs are no longer the policy's own. Here one prompt; with several the mean over prompts of
    these mean gradients takes their place.
    """
    chosen, rejected = mean_scores(p, p, J, win)
    return AtMost(0 * dot(chosen, chosen), dot(chosen, chosen - rejected), slack=2 * dot(chosen, chosen))


@theorem(Source(PAPER, "ours, the limit of C13"), r"y^\pm \sim \nu \ne \pi", claim="C13", expect="refuted",
         instead=["other_pairs_lift_on_policy"], **DATA,
         nu=Simplex("V"),
         witness=dict(p=[1, 1], J=[[1, 0], [0, 0]], win=[Fraction(1, 4), Fraction(3, 2)], nu=[1, 3]))  # fmt: skip
def other_pairs_lift_off_policy(p, J, win, nu):
    """The same for pairs drawn from any other law: false."""
    chosen, rejected = mean_scores(nu, p, J, win)
    return AtMost(0 * dot(chosen, chosen), dot(chosen, chosen - rejected))
