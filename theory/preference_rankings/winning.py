"""Ranking against win rate: together near the reference, if pairs are its own; then apart (C12, C13).

The win rate of a policy against the reference is linear in it: W = sum_y pi(y) v(y), where v(y) is the probability that
y beats a response of the reference. P is Bradley-Terry's of the rewards r. z are the logits of a table, z0 = log ref.
"""

from __future__ import annotations

from functools import partial

from sandbox import losses, rankings, tables
from sandbox.algebra import along, dot, grad, log, log_softmax, onehot, outer, sigmoid, softmax, tanh, total, velocity
from sandbox.losses import PairLogProbs
from theory.preference_rankings.pairs import PAPER
from theory.statement import (
    AtMost,
    Equal,
    Index,
    Positive,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    theorem,
)


def preferences(r):
    """Bradley-Terry's probabilities P[i, j] that response i beats response j."""
    one = 1 + 0 * r
    return sigmoid(outer(r, one) - outer(one, r))


def scores(ref, r):
    """The probability v that each response beats one of the reference's."""
    return preferences(r) @ ref


def raised(x, w, l, k):
    """x with its element w put k above its element l."""
    return x + (x[l] + k - x[w]) * onehot(w, x)


def pair_loss(z, ref, w, l, beta):
    """DPO's loss of one pair of responses in a table."""
    return tables.pair_loss(partial(losses.dpo, beta=beta), z, log(ref), w, l)


def win_rate_of(v):
    """Win rate of logits, given the scores."""
    return lambda z: dot(softmax(z), v)


@theorem(Source(PAPER, "Sec. 5, definition"), r"W(ref) = \tfrac12", claim="C12", ref=Simplex("V"), M=Reals("V", "V"))
def the_reference_wins_half(ref, M):
    """The reference against itself wins one half, whoever the annotator: any P with P + P^T = 1 is 1/2 + M - M^T."""
    v = 1 / 2 + M @ ref - ref @ M
    return Equal(win_rate_of(v)(log(ref)), 1 / 2)


@theorem(Source(PAPER, "ours"), r"\dot W > 0 \iff ref_w (v_w - \bar v) > ref_l (v_l - \bar v)", claim="C12",
         ref=Simplex("V"), v=Reals("V"), w=Index("V"), l=Index("V"), beta=Positive())  # fmt: skip
def first_move_of_the_win_rate(ref, v, w, l, beta):
    """DPO's first step on one pair moves the win rate with what the chosen gains, less what the rejected gave up."""
    flow = along(win_rate_of(v), lambda z: -grad(lambda z: pair_loss(z, ref, w, l, beta))(z))
    average = dot(ref, v)
    gain = ref[w] * (v[w] - average) - ref[l] * (v[l] - average)
    return SameSign(flow(log(ref)), gain, factor=beta / 2)


@theorem(Source(PAPER, "Sec. 5, read as a law"), r"\dot m > 0 \Rightarrow \dot W \ge 0", claim="C12", expect="refuted",
         instead=["first_move_of_the_win_rate", "on_policy_pairs_start_together"],
         ref=Simplex("V"), r=Reals("V"), w=Index("V"), l=Index("V"), k=Positive(), beta=Positive(),
         witness={"ref": [1, 3, 3], "r": [0, 0, -2], "w": 0, "l": 1, "k": 1, "beta": 1})  # fmt: skip
def ranking_and_win_rate_start_together(ref, r, w, l, k, beta):
    """Near the reference a pair's log-odds and the win rate rise together, if the chosen is better by k: false.

    Of two good responses the chosen may be the rarer one.
    """
    v = scores(ref, raised(r, w, l, k))
    flow = along(win_rate_of(v), lambda z: -grad(lambda z: pair_loss(z, ref, w, l, beta))(z))
    return AtMost(0 * beta, flow(log(ref)))


def on_policy_force(p, lead, beta):
    """How DPO moves the logits on pairs of the policy's own, at its reference; lead = v - W, and W = 1/2."""
    return 2 * beta * p * lead


@theorem(Source(PAPER, "ours"), r"\dot z_k = 2\beta\, ref_k (v_k - \tfrac12)", claim="C12",
         ref=Simplex("V"), r=Reals("V"), k=Index("V"), beta=Positive())  # fmt: skip
def force_of_on_policy_pairs(ref, r, k, beta):
    """DPO's first step on pairs drawn from the reference and labelled by Bradley-Terry lifts what wins, if likely."""
    one, before = 1 + 0 * ref, log(ref)

    def loss(z):
        now = log_softmax(z)
        i_over_j = PairLogProbs(outer(now, one), outer(one, now), outer(before, one), outer(one, before))
        return total(total(2 * outer(ref, ref) * preferences(r) * losses.dpo(i_over_j, beta=beta)))

    lead = tanh((outer(r, one) - outer(one, r)) / 2) / 2 @ ref  # P - 1/2 is half a tanh of half the difference
    return Equal(-grad(loss)(before)[k], on_policy_force(ref, lead, beta)[k])


@theorem(Source(PAPER, "ours"), r"\dot W = 2\beta\sum_k ref_k^2 (v_k - W)^2 \ge 0", claim="C12",
         ref=Simplex("V"), v=Reals("V"), beta=Positive())  # fmt: skip
def on_policy_pairs_start_together(ref, v, beta):
    """That force never lowers the win rate: with pairs of its own, ranking and win rate start together."""
    flow = along(win_rate_of(v), lambda z: on_policy_force(softmax(z), v - dot(softmax(z), v), beta))
    gain = dot(ref**2, (v - dot(ref, v)) ** 2)
    return AtMost(0 * beta, flow(log(ref)), slack=2 * beta * gain)


@theorem(Source(PAPER, "Fig. 4, ours"), r"m(t) \ge 0 \iff t \ge c/(g_w - g_l)", claim="C13",
         ref=Simplex("V"), g=Reals("V"), w=Index("V"), l=Index("V"), k=Positive(), t=Real())  # fmt: skip
def when_a_pair_flips_on_the_tilt(ref, g, w, l, k, t):
    """On the path ref e^(t g) a pair with g_w = g_l + k is ranked right exactly from t = c / k on."""
    now, before = log_softmax(log(ref) + t * raised(g, w, l, k)), log(ref)
    pair = PairLogProbs(now[w], now[l], before[w], before[l])
    return SameSign(rankings.log_odds(pair), t - rankings.reference_error(pair) / k, factor=k)


@theorem(Source(PAPER, "Fig. 4, ours"), r"\dot W = Cov_t(v, g)", claim="C13",
         ref=Simplex("V"), g=Reals("V"), v=Reals("V"), t=Real())  # fmt: skip
def win_rate_turns_where_the_covariance_does(ref, g, v, t):
    """On that path the win rate rises exactly while scores and tilt are positively correlated under the policy."""
    p = softmax(log(ref) + t * g)
    speed = velocity(lambda t: win_rate_of(v)(log(ref) + t * g))(t)
    return Equal(speed, dot(p, v * g) - dot(p, v) * dot(p, g))
