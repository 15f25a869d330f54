"""What a softmax makes of DPO on one pair: the flow in closed form, and the one number that decides (C6-C9, C13).

z: logits, z0: those of the reference, p their law; w chosen, l rejected, the others unseen. u = beta h is the scaled
margin, g = u / beta the margin in nats. With fixed features phi_k the logits are phi_k . theta; v = phi_w - phi_l, and
the score of a response is s_k = (phi_k - phi_l) . v / |v|^2, so that s_w = 1 and s_l = 0.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sandbox import losses, tables
from sandbox.algebra import (
    along,
    dot,
    exp,
    grad,
    log,
    log_softmax,
    onehot,
    sigmoid,
    softmax,
    sqrt,
    total,
    velocity,
)
from sandbox.losses import response_pair
from sandbox.measures import suppression_share
from sandbox.policies import linear_log_probs
from theory.statement import (
    All,
    AtMost,
    Conserved,
    Equal,
    Grows,
    Index,
    Logits,
    Moderate,
    Positive,
    Positives,
    Reals,
    SameSign,
    Simplex,
    Source,
    theorem,
)

PAPER = "yan2024dpo3d"
TABLE: dict[str, Any] = dict(z=Logits("V"), z0=Logits("V"), w=Index("V"), l=Index("V"), beta=Moderate())
FEATURES: dict[str, Any] = dict(
    phi=Logits("V", "d"), theta=Logits("d"), theta0=Logits("d"), w=Index("V"), l=Index("V"), beta=Moderate()
)  # fmt: skip
LAW: dict[str, Any] = dict(p=Simplex("V"), w=Index("V"), l=Index("V"))


def force(z, z0, w, l, beta):
    """The velocity of the logits under DPO's gradient flow on the pair (w, l)."""
    return tables.force(partial(losses.dpo, beta=beta), z, z0, w, l)


def speeds(z, z0, w, l, beta):
    """d/dt of all log-probabilities under that flow."""
    push = force(z, z0, w, l, beta)
    return push - dot(softmax(z), push)


def scaled_margin(z, z0, w, l, beta):
    """u = beta h."""
    return beta * ((z - z0)[w] - (z - z0)[l])


def unseen(p, w, l):
    """1 at every response but the chosen and the rejected."""
    return 1 - onehot(w, p) - onehot(l, p)


# -- C6: the flow in closed form ---------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\dot z = \beta\sigma(-u)\,(e_w - e_l)", claim="C6", **TABLE)
def forces_are_equal_and_opposite(z, z0, w, l, beta):
    """In a table DPO pushes two logits, equally hard and in opposite directions; the unseen logits stay."""
    push = beta * sigmoid(-scaled_margin(z, z0, w, l, beta))
    return Equal(force(z, z0, w, l, beta), push * (onehot(w, z) - onehot(l, z)))


@theorem(Source(PAPER, "ours"), r"\sum_k z_k = \text{const}", claim="C6", **TABLE)
def sum_of_logits_is_conserved(z, z0, w, l, beta):
    """The sum of the logits does not change."""
    return Conserved(total, lambda z: force(z, z0, w, l, beta), at=z)


def log_linear_flow(features, theta0, w, l, beta):
    """The velocity of theta under DPO's flow on the pair (w, l), logits features @ theta."""
    reference = linear_log_probs(features, theta0)

    def loss(theta):
        return losses.dpo(response_pair(linear_log_probs(features, theta), reference, w, l), beta=beta)

    return lambda theta: -grad(loss)(theta)


@theorem(Source(PAPER, "ours"), r"u + e^u = 1 + \beta^2|v|^2 t", claim="C6", **FEATURES)
def clock_with_features(phi, theta, theta0, w, l, beta):
    """Along DPO's flow on one pair u + e^u grows at the constant rate beta^2 |v|^2, and parameters move along v alone.

    Hence u = y(1 + beta^2 |v|^2 t), y + e^y = s. A table has the features of the identity, |v|^2 = 2.
    """
    v, flow = phi[w] - phi[l], log_linear_flow(phi, theta0, w, l, beta)

    def u(theta):
        return beta * dot(theta - theta0, v)

    def clock(theta):
        return u(theta) + exp(u(theta))

    return All(
        Grows(clock, flow, at=theta, start=theta0, by=beta**2 * dot(v, v), begins=1),
        Equal(flow(theta), beta * sigmoid(-u(theta)) * v),
    )


# -- C7: the one number that decides -----------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\frac{d}{dg}\log\pi_k = s_k - \bar s,\quad \frac{d\bar s}{dg} = \mathrm{Var}_\pi(s)",
         claim="C7", P=Simplex("V"), s=Reals("V"), g=Positive(), k=Index("V"))  # fmt: skip
def tilt_by_the_scores(P, s, g, k):
    """DPO tilts the reference by e^(g s): a response grows while its score exceeds the mean score, which only grows."""

    def log_probs(g):
        return log_softmax(log(P) + g * s)

    def mean_score(g):
        return dot(exp(log_probs(g)), s)

    p = exp(log_probs(g))
    return All(
        Equal(velocity(log_probs)(g)[k], s[k] - mean_score(g)),
        Equal(velocity(mean_score)(g), dot(p, (s - mean_score(g)) ** 2)),
    )


@theorem(Source(PAPER, "ours"), r"\frac{d}{dt}\log\pi_w > 0 \iff \bar s < 1,\;"
         r" \frac{d}{dt}\log\pi_l < 0 \iff \bar s > 0", claim="C7", **FEATURES)  # fmt: skip
def one_number_law(phi, theta, theta0, w, l, beta):
    """The mean similarity score decides: between 0 and 1 chosen up and rejected down, above 1 both fall, below 0 rise.

    At every moment of DPO's flow on one pair, in any log-linear model; both sides are times |v|^2.
    """
    v, flow = phi[w] - phi[l], log_linear_flow(phi, theta0, w, l, beta)
    mean_score = dot(softmax(phi @ theta), phi @ v) - dot(phi[l], v)  # times |v|^2

    def rate(y):
        return along(lambda theta: linear_log_probs(phi, theta)[y], flow)(theta)

    factor = beta * sigmoid(-beta * dot(theta - theta0, v))
    return All(SameSign(rate(w), dot(v, v) - mean_score, factor=factor), SameSign(-rate(l), mean_score, factor=factor))


@theorem(Source(PAPER, "ours"), r"\frac{d}{dt}\log\pi_w = \beta\sigma(-u)(1-\pi_w+\pi_l),\;"
         r" \frac{d}{dt}\log\pi_l = -\beta\sigma(-u)(1+\pi_w-\pi_l)", claim="C7", **TABLE)  # fmt: skip
def table_never_lowers_the_chosen(z, z0, w, l, beta):
    """In a table the mean score is (1 + pi_w - pi_l) / 2, always between 0 and 1: chosen up, rejected down."""
    p, rate = softmax(z), speeds(z, z0, w, l, beta)
    push = beta * sigmoid(-scaled_margin(z, z0, w, l, beta))
    return All(
        AtMost(0 * beta, rate[w], slack=push * (1 - p[w] + p[l])),
        AtMost(rate[l], 0 * beta, slack=push * (1 + p[w] - p[l])),
    )


@theorem(Source(PAPER, "ours"), r"\frac{-\,d\log\pi_l}{d\log\pi_w - d\log\pi_l} = \bar s", claim="C7",
         **LAW, s=Reals("V"))  # fmt: skip
def share_of_suppression_is_the_mean_score(p, w, l, s):
    """The share of the margin that is gained by lowering the rejected is the mean score (s_w = 1, s_l = 0)."""
    scores = scores_of_pair(p, w, l, s)
    moved = velocity(lambda g: log_softmax(log(p) + g * scores))(0)
    return Equal(suppression_share(moved[w], moved[l]), dot(p, scores))


def scores_of_pair(p, w, l, s):
    """Scores s of the unseen responses, 1 of the chosen and 0 of the rejected."""
    return s * unseen(p, w, l) + onehot(w, p)


# -- C8: speeds --------------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, against Cor. 1"), r"\frac{-d\log\pi_l}{d\log\pi_w} = \frac{1+\Delta}{1-\Delta},\;"
         r" \frac{-d\pi_l}{d\pi_w} = \frac{\pi_l}{\pi_w}\frac{1+\Delta}{1-\Delta}", claim="C8", **TABLE)  # fmt: skip
def ratio_of_the_speeds(z, z0, w, l, beta):
    """What becomes of the ratio of the slopes in a softmax table, D = pi_w - pi_l.

    In log-probability it is below 1 while the rejected is likelier. In probability it is 1 for ever if there are only
    these two responses, and goes to 0 with the rejected if there are others.
    """
    p, rate = softmax(z), speeds(z, z0, w, l, beta)
    delta = p[w] - p[l]
    return All(
        Equal(-rate[l] / rate[w], (1 + delta) / (1 - delta)),
        Equal(-p[l] * rate[l] / (p[w] * rate[w]), p[l] / p[w] * (1 + delta) / (1 - delta)),
    )


# -- C9: dispersion ----------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, against Cor. 3"), r"\dot U > 0 \iff \pi_l > \pi_w", claim="C9",
         **TABLE, o=Index("V"))  # fmt: skip
def unseen_gain_while_the_rejected_leads(z, z0, w, l, beta, o):
    """In a table every unseen response o gains exactly while the rejected is likelier than the chosen.

    Their log-probabilities all move alike; free variables would have it the other way round (C12).
    """
    p, rate = softmax(z), speeds(z, z0, w, l, beta)
    return SameSign(rate[o], p[l] - p[w], factor=beta * sigmoid(-scaled_margin(z, z0, w, l, beta)))


def tilted(P, w, l, x):
    """The law after a margin of 2 log x: chosen logit up by log x, rejected down by as much; and its normaliser Z."""
    law = softmax(log(P) + log(x) * (onehot(w, P) - onehot(l, P)))
    return law, P[w] * x + P[l] / x + dot(P, unseen(P, w, l))


@theorem(Source(PAPER, "ours"), r"\pi_k = P_k/Z,\; Z - 1 = (x-1)(P_w x - P_l)/x,\; x = e^{g/2}", claim="C9",
         **LAW, x=Positive())  # fmt: skip
def unseen_keep_their_proportions(p, w, l, x):
    """Every unseen probability is divided by the same Z: DPO never changes their ratios in a table."""
    after, normaliser = tilted(p, w, l, x)
    others = unseen(p, w, l)
    return All(Equal(after * others * normaliser, p * others), Equal(normaliser - 1, (x - 1) * (p[w] * x - p[l]) / x))


@theorem(Source(PAPER, "ours"), r"\frac{U}{R} \le \frac{1}{1 - (\sqrt{P_l}-\sqrt{P_w})^2}", claim="C9",
         **LAW, x=Positive())  # fmt: skip
def dispersion_is_bounded(p, w, l, x):
    """Along DPO's flow in a table the unseen mass U never exceeds R / (1 - (sqrt P_l - sqrt P_w)^2), R at the start."""
    after, normaliser = tilted(p, w, l, x)
    others = unseen(p, w, l)
    start, now = dot(p, others), dot(after, others)
    bound = 1 - (sqrt(p[l]) - sqrt(p[w])) ** 2
    over = (sqrt(p[w]) * x - sqrt(p[l])) ** 2 / x
    return AtMost(now, start / bound, slack=start * over / (normaliser * (start + 2 * sqrt(p[w] * p[l]))))


@theorem(Source(PAPER, "ours"), r"t^* = \frac{\beta\log\rho + \rho^\beta - 1}{2\beta^2},\; \rho = P_l/P_w", claim="C9",
         **LAW, beta=Moderate())  # fmt: skip
def dispersion_peaks_where_both_are_equal(p, w, l, beta):
    """At the margin log(P_l / P_w) chosen and rejected are equally likely and the bound on U is reached; time t*."""
    ratio = p[l] / p[w]
    after, _ = tilted(p, w, l, sqrt(ratio))
    others = unseen(p, w, l)
    bound = 1 - (sqrt(p[l]) - sqrt(p[w])) ** 2
    u = beta * (log(after[w] / after[l]) - log(p[w] / p[l]))
    return All(
        Equal(after[w], after[l]),
        Equal(dot(after, others), dot(p, others) / bound),
        Equal(u + exp(u), 1 + 2 * beta**2 * peak_time(ratio, beta)),
    )


def peak_time(ratio, beta):
    """The time t* at which the unseen mass peaks, for P_l / P_w = ratio > 1."""
    return (beta * log(ratio) + ratio**beta - 1) / (2 * beta**2)


@theorem(Source(PAPER, "ours"), r"t^{**} = \frac{2\beta\log\rho + \rho^{2\beta} - 1}{2\beta^2}", claim="C9",
         **LAW, beta=Moderate())  # fmt: skip
def dispersion_is_transient(p, w, l, beta):
    """At twice that margin the unseen mass is back where it was, and it only falls from there; time t**."""
    ratio = p[l] / p[w]
    after, _ = tilted(p, w, l, ratio)
    others = unseen(p, w, l)
    u = beta * (log(after[w] / after[l]) - log(p[w] / p[l]))
    return All(
        Equal(dot(after, others), dot(p, others)),
        Equal(u + exp(u), 1 + 2 * beta**2 * return_time(ratio, beta)),
    )


def return_time(ratio, beta):
    """The time t** at which the unseen mass is back at its start, for P_l / P_w = ratio > 1."""
    return peak_time(ratio**2, beta)


@theorem(Source(PAPER, "ours"), r"\frac{dU}{dg} = (\pi_w+\pi_l) \sum_{unseen} \pi_k s_k - \pi_w U",
         claim="C9", **LAW, s=Reals("V"))  # fmt: skip
def dispersion_with_features(p, w, l, s):
    """With features the unseen gain exactly while their mean score exceeds pi_w / (pi_w + pi_l)."""
    others, scores = unseen(p, w, l), scores_of_pair(p, w, l, s)
    rate = velocity(lambda g: dot(softmax(log(p) + g * scores), others))(0)
    return Equal(rate, (p[w] + p[l]) * dot(p * others, scores) - p[w] * dot(p, others))


@theorem(Source(PAPER, "ours"), r"\log\pi_w = \log P_w + \tfrac{g}{2} - \log Z,\; g = \tfrac1\beta y(1 + 2\beta^2 t)",
         claim="C6", **LAW, beta=Positive(), t=Positive())  # fmt: skip
def path_of_the_table(p, w, l, beta, t):
    """The whole path in closed form: logits moved by g/2 along e_w - e_l solve the flow of DPO."""
    start = log(p)

    def z(t):
        return tables.dpo_logits(start, w, l, t, beta=beta)

    return Equal(velocity(z)(t), force(z(t), start, w, l, beta))


# -- C13: the smallest cases in which the chosen falls -----------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\phi = (1_w, 0_l, 2_o):\quad \frac{d}{dg}\log\pi_w = \pi_l - \pi_o", claim="C13(a)",
         P=Simplex("V"), g=Positive(), w=Index("V"), l=Index("V"), o=Index("V"))  # fmt: skip
def one_feature_lowers_the_chosen(P, g, w, l, o):
    """One feature, 1 for the chosen, 2 for a third and 0 else: the chosen falls once the third leads all those at 0."""
    scores = onehot(w, P) + 2 * onehot(o, P)

    def log_probs(g):
        return log_softmax(log(P) + g * scores)

    p = exp(log_probs(g))
    rest = dot(p, 1 - onehot(w, P) - onehot(o, P))  # with three responses: the rejected
    return Equal(velocity(log_probs)(g)[w], rest - p[o])


@theorem(Source(PAPER, "ours, against Cor. 3"), r"\dot A < 0 \iff p_a - p_b > (n_{w,a} - n_{w,b})/T", claim="C13(b)",
         z=Reals("V"), n=Positives("V"), a=Index("V"), b=Index("V"))  # fmt: skip
def unigram_edit_lowers_the_chosen(z, n, a, b):
    """One softmax for all positions, token b of the rejected changed to a: when the chosen falls; n counts its tokens.

    Shared parameters are needed: in a table over prefixes a common prefix cancels.
    """
    p, length = softmax(z), total(n)

    def log_prob(counts):
        return grad(lambda z: dot(counts, log_softmax(z)))(z)

    chosen, rejected = log_prob(n), log_prob(n - onehot(a, n) + onehot(b, n))
    return SameSign(-dot(chosen, chosen - rejected), (p[a] - p[b]) - (n[a] - n[b]) / length, factor=length)


@theorem(Source(PAPER, "ours"), r"\dot A_1 < 0 \iff n_1(1-\pi_1+\pi_l) < n_2(\pi_2-\pi_l)", claim="C13(c)",
         z=Reals("V"), one=Index("V"), two=Index("V"), l=Index("V"), n1=Positive(), n2=Positive(),
         beta=Positive())  # fmt: skip
def second_chosen_lowers_the_first(z, one, two, l, n1, n2, beta):
    """Two chosen responses over the same rejected one, n1 and n2 copies, at the start: when the first falls."""
    reference = log_softmax(z)

    def loss(z):
        now = log_softmax(z)
        each = [losses.dpo(response_pair(now, reference, w, l), beta=beta) for w in (one, two)]
        return n1 * each[0] + n2 * each[1]

    p = softmax(z)
    rate = along(lambda z: log_softmax(z)[one], lambda z: -grad(loss)(z))(z)
    return SameSign(rate, n1 * (1 - p[one] + p[l]) - n2 * (p[two] - p[l]), factor=beta / 2)
