"""What tells the losses apart: which of them stop, and where; which push for ever, give up, or push the wrong way.

F1, the ratio of the weights, stands in the table of ``losses``; the facts are numbered from there on. A function of the
margin alone is read at the margin h of a pair whose other log-probabilities are 0: only h enters it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sandbox import losses
from sandbox.algebra import dot, exp, kl, log, log_sigmoid, log_softmax, relu, sigmoid, softmax, step, tanh
from sandbox.losses import PairLogProbs, margin_weights
from theory.entanglement.losses import HALF, LENGTHS, LOG_PROBS, bell
from theory.statement import (
    All,
    AtMost,
    Bowl,
    Domain,
    Equal,
    Index,
    Negative,
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


def at_margin(h):
    """A pair of margin h."""
    return PairLogProbs(h, 0 * h, 0 * h, 0 * h)


def weights_of(loss, pair, **constants):
    """(d_w, d_l) of a loss at its constants."""
    return margin_weights(partial(loss, **constants), pair)


# -- F2: losses that stop (a hinge at its kink: its row in the table has the indicator) --------------------------------


@theorem(Source("azar2023ipo", "Eq. 17"), r"L'(h) = 2\,(h - 1/2\tau)", claim="F2", h=Real(), tau=Positive())
def ipo_stops(h, tau):
    """IPO stops at the margin 1 / (2 tau), and comes back from beyond; its minimum is 0."""

    def loss(h):
        return losses.ipo(at_margin(h), tau=tau)

    return Bowl(lambda h: 0 * h, loss, at=h, bottom=1 / (2 * tau), factor=lambda h: 2)


@theorem(Source("wu2024sppo", "Eq. 4.7"), r"\partial L/\partial r_w = 2(r_w - \eta/2),\;"
         r" \partial L/\partial r_l = 2(r_l + \eta/2)", claim="F2", r_w=Real(), r_l=Real(), eta=Positive())  # fmt: skip
def sppo_stops(r_w, r_l, eta):
    """SPPO stops where the log-ratio of the chosen is eta / 2 and that of the rejected -eta / 2, each on its own."""

    def loss(r_w, r_l):
        return losses.sppo(PairLogProbs(r_w, r_l, 0 * r_w, 0 * r_l), eta=eta)

    def bowl(of, at, bottom):
        return Bowl(lambda r: of(bottom) + 0 * r, of, at=at, bottom=bottom, factor=lambda r: 2)

    return All(bowl(lambda r: loss(r, r_l), r_w, eta / 2), bowl(lambda r: loss(r_w, r), r_l, -eta / 2))


@theorem(Source("mitchell2023cdpo", "ours"),
         r"L = H(\epsilon) + \mathrm{KL}(1-\epsilon \| q) \ge H(\epsilon),\; q = \sigma(\beta h)", claim="F2",
         q=Unit(), beta=Positive(), epsilon=HALF)  # fmt: skip
def cdpo_stops(q, beta, epsilon):
    """Conservative DPO stops at beta h = log((1 - epsilon) / epsilon); its minimum is the binary entropy of epsilon.

    In q = sigmoid(beta h), the probability that the policy gives the preference: the minimum is at q = 1 - epsilon.
    """

    def loss(q):
        return losses.cdpo(at_margin(log(q / (1 - q)) / beta), beta=beta, epsilon=epsilon)

    entropy = -(1 - epsilon) * log(1 - epsilon) - epsilon * log(epsilon)
    divergence = (1 - epsilon) * log((1 - epsilon) / q) + epsilon * log(epsilon / (1 - q))
    above = Bowl(lambda q: entropy + 0 * q, loss, at=q, bottom=1 - epsilon, factor=lambda q: 1 / (q * (1 - q)))
    return All(above, Equal(loss(q), entropy + divergence))


@theorem(Source("ji2024exo", "Eq. 16"), r"L'(u) = \sigma'(u)\,(u - \log\tfrac{1-\epsilon}{\epsilon}),\; u = \beta h",
         claim="F2", u=Real(), beta=Positive(), epsilon=HALF)  # fmt: skip
def exo_stops(u, beta, epsilon):
    """EXO stops at the same margin as conservative DPO; its minimum is 0."""

    def loss(u):
        return losses.exo(at_margin(u / beta), beta=beta, epsilon=epsilon)

    return Bowl(lambda u: 0 * u, loss, at=u, bottom=log(1 - epsilon) - log(epsilon), factor=bell)


@theorem(Source("chen2024nca", "ours"), r"d_w > 0 \iff \beta r_w < \log 2", claim="F2", **LOG_PROBS, beta=Positive())
def nca_stops_the_chosen(A, B, A0, B0, beta):
    """NCA raises the chosen up to beta r_w = log 2 and lowers it from there."""
    u = beta * (A - A0)
    d_w, _ = weights_of(losses.nca, PairLogProbs(A, B, A0, B0), beta=beta)
    return SameSign(d_w, 2 - 3 * sigmoid(u), factor=beta / 2)  # sigmoid(log 2) = 2/3


@theorem(Source("yuan2025entanglement", "ours"), r"d_w \ge 0,\; d_l \ge 0", claim="F2",
         **LOG_PROBS, **LENGTHS, beta=Positive(), k=Positive())  # fmt: skip
def the_rest_only_slow_down(A, B, A0, B0, n_w, n_l, beta, k):
    """R-DPO, SimPO, Flex-DPO, DPO-Positive and BCO have no target: no margin turns either of their pushes round."""
    r_w, r_l = A - A0, B - B0

    def push(loss, at_w, at_l, **constants):
        found = weights_of(loss, PairLogProbs(A, B, A0, B0, n_w, n_l), beta=beta, **constants)
        return [AtMost(0 * d, d, slack=beta * at) for d, at in zip(found, (at_w, at_l), strict=True)]

    priced = sigmoid(-beta * (r_w - r_l) - k * (n_w - n_l))
    each = sigmoid(k - beta * (A / n_w - B / n_l))
    raised = sigmoid(-beta * (r_w - r_l - k * relu(-r_w)))
    flexible = sigmoid(k * r_l - beta * r_w)
    return All(
        *push(losses.rdpo, priced, priced, alpha=k),
        *push(losses.simpo, each / n_w, each / n_l, gamma=k),
        *push(losses.dpop, (1 + k * step(-r_w)) * raised, raised, lam=k),
        *push(lambda x, beta: losses.flex_dpo(x, beta_chosen=beta, beta_rejected=k), flexible, k / beta * flexible),
        *push(losses.bco, sigmoid(-beta * r_w), sigmoid(beta * r_l)),
    )


# -- F3: noisy labels, a brake or a push -------------------------------------------------------------------------------


@theorem(Source("mitchell2023cdpo", "ours"), r"L_{cDPO} = L_{DPO} + \epsilon\beta h", claim="F3",
         **LOG_PROBS, beta=Positive(), epsilon=HALF)  # fmt: skip
def cdpo_is_dpo_with_a_brake(A, B, A0, B0, beta, epsilon):
    """Conservative DPO is DPO with a linear brake."""
    x = PairLogProbs(A, B, A0, B0)
    brake = epsilon * beta * ((A - A0) - (B - B0))
    return Equal(losses.cdpo(x, beta=beta, epsilon=epsilon), losses.dpo(x, beta=beta) + brake)


@theorem(Source("chowdhury2024robust", "ours"), r"L_{rob} = L_{DPO} - \tfrac{\epsilon}{1-2\epsilon}\beta h", claim="F3",
         **LOG_PROBS, beta=Positive(), epsilon=HALF)  # fmt: skip
def robust_dpo_is_dpo_with_a_push(A, B, A0, B0, beta, epsilon):
    """Robust DPO is DPO with a linear push."""
    x = PairLogProbs(A, B, A0, B0)
    push = epsilon / (1 - 2 * epsilon) * beta * ((A - A0) - (B - B0))
    return Equal(losses.robust_dpo(x, beta=beta, epsilon=epsilon), losses.dpo(x, beta=beta) - push)


@theorem(Source("chowdhury2024robust", "Lemma on unbiasedness, as recalled"),
         r"(1-\epsilon)L_{rob}(h) + \epsilon L_{rob}(-h) = L_{DPO}(h)", claim="F3",
         **LOG_PROBS, beta=Positive(), epsilon=HALF)  # fmt: skip
def robust_dpo_is_unbiased(A, B, A0, B0, beta, epsilon):
    """The mean of robust DPO over flipped labels is the DPO loss of the true ones."""
    robust = partial(losses.robust_dpo, beta=beta, epsilon=epsilon)
    mean = (1 - epsilon) * robust(PairLogProbs(A, B, A0, B0)) + epsilon * robust(PairLogProbs(B, A, B0, A0))
    return Equal(mean, losses.dpo(PairLogProbs(A, B, A0, B0), beta=beta))


@theorem(Source("chowdhury2024robust", "ours"), r"d \ge \frac{\epsilon\beta}{1-2\epsilon}", claim="F3",
         **LOG_PROBS, beta=Positive(), epsilon=HALF)  # fmt: skip
def robust_dpo_pushes_for_ever(A, B, A0, B0, beta, epsilon):
    """The weights of robust DPO never fall below epsilon beta / (1 - 2 epsilon): on one pair it has no lower bound."""
    d, _ = weights_of(losses.robust_dpo, PairLogProbs(A, B, A0, B0), beta=beta, epsilon=epsilon)
    return AtMost(epsilon * beta / (1 - 2 * epsilon), d, slack=beta * sigmoid(-beta * ((A - A0) - (B - B0))))


@theorem(Source("chowdhury2024robust", "negative control"), r"L_{rob} \ge 0", claim="F3", expect="refuted",
         instead=["robust_dpo_pushes_for_ever", "robust_dpo_is_unbiased"],
         h=Real(), beta=Positive(), epsilon=HALF)  # fmt: skip
def robust_dpo_is_never_negative(h, beta, epsilon):
    """Robust DPO, like DPO, is never negative: false on a single pair."""
    return NonNegative(losses.robust_dpo(at_margin(h), beta=beta, epsilon=epsilon))


# -- F4: what a badly wrong pair gets ----------------------------------------------------------------------------------


@theorem(Source("ethayarajh2024kto", "ours"), r"d_w \le \lambda_w\beta/4,\; d_l \le \lambda_l\beta/4", claim="F4",
         **LOG_PROBS, beta=Positive(), z0=Positive(), lam_w=Positive(), lam_l=Positive())  # fmt: skip
def kto_peaks_at_its_reference_point(A, B, A0, B0, beta, z0, lam_w, lam_l):
    """KTO's weights are at most a quarter of beta, reached where the log-ratio is z0."""
    constants = dict(beta=beta, z0=z0, desirable_weight=lam_w, undesirable_weight=lam_l)
    d_w, d_l = weights_of(losses.kto, PairLogProbs(A, B, A0, B0), **constants)

    def slack(lam, r):
        return lam * beta * (1 / 2 - sigmoid(beta * (r - z0))) ** 2

    return All(
        AtMost(d_w, lam_w * beta / 4, slack=slack(lam_w, A - A0)),
        AtMost(d_l, lam_l * beta / 4, slack=slack(lam_l, B - B0)),
    )


@theorem(Source("rafailov2023dpo", "ours"), r"0 \le d \le \beta", claim="F4", **LOG_PROBS, beta=Positive())
def dpo_only_slows_down(A, B, A0, B0, beta):
    """DPO's weights lie between 0 and beta, at every margin."""
    u = beta * ((A - A0) - (B - B0))
    d, _ = weights_of(losses.dpo, PairLogProbs(A, B, A0, B0), beta=beta)
    return All(AtMost(0 * d, d, slack=beta * sigmoid(-u)), AtMost(d, beta, slack=beta * sigmoid(u)))


@theorem(Source("ethayarajh2024kto", "ours"), r"d^{KTO} \to 0,\; d^{DPO} \to \beta \;(h \to -\infty)", claim="F4",
         expect="checked", beta=Positive(), z0=Positive())  # fmt: skip
def kto_gives_up_where_dpo_does_not(beta, z0):
    """As a pair becomes badly wrong, KTO stops pushing and DPO pushes with beta; as it becomes right both stop."""

    def dpo(h):
        return weights_of(losses.dpo, at_margin(h), beta=beta)[0]

    def kto(k, sign):
        def at(x):
            pair = PairLogProbs(sign * x, -sign * x, 0 * x, 0 * x)
            return weights_of(losses.kto, pair, beta=beta, z0=z0)[k]

        return at

    return All(
        Tends(lambda x: dpo(-x), "oo", beta),
        Tends(dpo, "oo", 0),
        *(Tends(kto(k, sign), "oo", 0) for k in (0, 1) for sign in (1, -1)),
    )


# -- F5: a fine-tuning term --------------------------------------------------------------------------------------------


@theorem(Source("pang2024irpo", "ours"), r"d_w \ge \alpha/n_w \;(\alpha, \lambda)", claim="F5",
         **LOG_PROBS, **LENGTHS, beta=Positive(), alpha=Positive())  # fmt: skip
def fine_tuning_terms_push_for_ever(A, B, A0, B0, n_w, n_l, beta, alpha):
    """With a fine-tuning term the chosen is pushed for ever: no such loss is stationary short of A = 0."""
    x = PairLogProbs(A, B, A0, B0, n_w, n_l)
    contrast = beta * sigmoid(-beta * ((A - A0) - (B - B0)))

    def pushed(loss, least, slack, **constants):
        return AtMost(least, weights_of(loss, x, **constants)[0], slack=slack)

    in_sums = partial(losses.dpo_sft, sft_reduction="sum")
    return All(
        pushed(losses.dpo_sft, alpha / n_w, contrast, beta=beta, alpha=alpha),
        pushed(in_sums, alpha, contrast, beta=beta, alpha=alpha),
        pushed(losses.cpo, alpha, beta * sigmoid(-beta * (A - B)), beta=beta, lam=alpha),
        pushed(losses.slic_hf, alpha, step(beta - A + B), delta=beta, lam=alpha),
        pushed(losses.rrhf, alpha, step(B / n_l - A / n_w) / n_w, lam=alpha),
    )


# -- F6: ORPO in probabilities -----------------------------------------------------------------------------------------


@theorem(Source("hong2024orpo", "ours"),
         r"n_w d_w = 1 + \frac{\lambda q}{p + q - 2pq},\; n_l d_l = \frac{\lambda q (1-p)}{(1-q)(p + q - 2pq)}",
         claim="F6", A=Negative(), B=Negative(), **LENGTHS, lam=Positive())  # fmt: skip
def orpo_in_probabilities(A, B, n_w, n_l, lam):
    """ORPO's weights are rational in the mean probabilities per token p = e^(A / n_w) and q = e^(B / n_l)."""
    d_w, d_l = weights_of(losses.orpo, PairLogProbs(A, B, None, None, n_w, n_l), lam=lam)
    p, q = exp(A / n_w), exp(B / n_l)
    both = p + q - 2 * p * q
    return All(Equal(n_w * d_w, 1 + lam * q / both), Equal(n_l * d_l, lam * q * (1 - p) / ((1 - q) * both)))


def of_orpo(p, q, n_w, n_l, lam):
    """(n_w d_w, n_l d_l) of ORPO at probabilities p, q per token."""
    d_w, d_l = weights_of(losses.orpo, PairLogProbs(n_w * log(p), n_l * log(q), None, None, n_w, n_l), lam=lam)
    return n_w * d_w, n_l * d_l


@theorem(Source("hong2024orpo", "ours"), r"q \to 1:\; n_l d_l \to \infty", claim="F6", expect="checked",
         p=HALF, q=HALF, **LENGTHS, lam=Unit())  # fmt: skip
def orpo_at_the_ends(p, q, n_w, n_l, lam):
    """A certain chosen or an impossible rejected ends the contrast; a certain rejected makes it explode.

    p, q below 1/2 and lam below 1: a limit is read close to it, and 1 / (1 - q)^2 says how close is close.
    """

    def at(p, q, k):
        return of_orpo(p, q, n_w, n_l, lam)[k]

    return All(
        Tends(lambda x: at(1 - x, q, 0), 0, 1 + lam * q / (1 - q)),
        Tends(lambda x: at(1 - x, q, 1), 0, 0),
        Tends(lambda x: at(x, q, 0), 0, 1 + lam),
        Tends(lambda x: at(x, q, 1), 0, lam / (1 - q)),
        Tends(lambda x: at(p, x, 0), 0, 1),
        Tends(lambda x: at(p, x, 1), 0, 0),
        Tends(lambda x: at(p, 1 - x, 1), 0, "oo"),
    )


@theorem(Source("hong2024orpo", "negative control"), r"n_l d_l \le \lambda", claim="F6", expect="refuted",
         instead=["orpo_at_the_ends"], p=Unit(), q=Unit(), **LENGTHS, lam=Positive())  # fmt: skip
def orpo_pushes_the_rejected_at_most_by_lambda(p, q, n_w, n_l, lam):
    """ORPO's push on the rejected is bounded, as SimPO's is: false."""
    return AtMost(of_orpo(p, q, n_w, n_l, lam)[1], lam)


# -- F7: the sign in R-DPO ---------------------------------------------------------------------------------------------

TOKENS = Domain("positive", ("V",), make=lambda k: 1 + k)  # lengths: every response has its end token
REWARDED: dict[str, Any] = dict(net=Reals("V"), ref=Simplex("V"), n=TOKENS, alpha=Positive(), beta=Positive())


def reward_of(net, n, alpha, beta):
    """Any reward, given by (reward - alpha n) / beta, whose exponential stays a number."""
    return beta * net + alpha * n


def length_penalised(reward, ref, n, alpha, beta):
    """The policy that maximises E[reward - alpha n] - beta KL(policy || ref), as logits."""
    return log(ref) + (reward - alpha * n) / beta


@theorem(Source("park2024rdpo", "as recalled"), r"J(\pi^*) - J(q) = \beta\,\mathrm{KL}(q \| \pi^*) \ge 0", claim="F7",
         **REWARDED, q=Simplex("V"))  # fmt: skip
def optimum_under_a_length_penalty(net, ref, n, alpha, beta, q):
    """pi* = ref exp((reward - alpha n) / beta) / Z is the best policy for a reward with a price on length."""
    reward = reward_of(net, n, alpha, beta)
    best = softmax(length_penalised(reward, ref, n, alpha, beta))

    def objective(q):
        return dot(q, reward - alpha * n) - beta * kl(q, ref)

    return AtMost(objective(q), objective(best), slack=beta * kl(q, best))


def length_penalised_pair(reward, ref, n, alpha, beta, w, l):
    """Two responses under the best policy, as R-DPO sees them."""
    best = log_softmax(length_penalised(reward, ref, n, alpha, beta))
    return PairLogProbs(best[w], best[l], log(ref[w]), log(ref[l]), n[w], n[l])


@theorem(Source("park2024rdpo", "as recalled"), r"L_{R-DPO}(\pi^*) = -\log\sigma(r(y_w) - r(y_l))", claim="F7",
         **REWARDED, w=Index("V"), l=Index("V"))  # fmt: skip
def rdpo_prices_length(net, ref, n, alpha, beta, w, l):
    """At that policy R-DPO is the Bradley-Terry loss of the reward itself: the sign + alpha (n_w - n_l) is right."""
    reward = reward_of(net, n, alpha, beta)
    pair = length_penalised_pair(reward, ref, n, alpha, beta, w, l)
    return Equal(losses.rdpo(pair, beta=beta, alpha=alpha), -log_sigmoid(reward[w] - reward[l]))


@theorem(Source("park2024rdpo", "with the sign of later comparison tables, as recalled"),
         r"-\log\sigma(\beta h - \alpha(n_w - n_l)) = -\log\sigma(r(y_w) - r(y_l))", claim="F7", expect="refuted",
         instead=["rdpo_prices_length"], **REWARDED, w=Index("V"), l=Index("V"))  # fmt: skip
def rdpo_with_the_other_sign(net, ref, n, alpha, beta, w, l):
    """The same with - alpha (n_w - n_l): false, that sign seeks length."""
    reward = reward_of(net, n, alpha, beta)
    x = length_penalised_pair(reward, ref, n, alpha, beta, w, l)
    h = (x.chosen - x.ref_chosen) - (x.rejected - x.ref_rejected)
    return Equal(-log_sigmoid(beta * h - alpha * (n[w] - n[l])), -log_sigmoid(reward[w] - reward[l]))


# -- F8: the margin of SimPO -------------------------------------------------------------------------------------------


@theorem(Source("meng2024simpo", "Eq. 6"), r"L = -\log\sigma(\beta(A/n_w - B/n_l - \gamma/\beta))", claim="F8",
         A=Negative(), B=Negative(), **LENGTHS, beta=Positive(), gamma=Positive())  # fmt: skip
def margin_of_simpo_is_outside_beta(A, B, n_w, n_l, beta, gamma):
    """SimPO asks for a margin of gamma / beta nats per token."""
    loss = losses.simpo(PairLogProbs(A, B, None, None, n_w, n_l), beta=beta, gamma=gamma)
    return Equal(loss, -log_sigmoid(beta * (A / n_w - B / n_l - gamma / beta)))


@theorem(Source("meng2024simpo", "Eq. 6, with gamma inside beta"), r"L = -\log\sigma(\beta(A/n_w - B/n_l - \gamma))",
         claim="F8", expect="refuted", instead=["margin_of_simpo_is_outside_beta"],
         A=Negative(), B=Negative(), **LENGTHS, beta=Positive(), gamma=Positive())  # fmt: skip
def margin_of_simpo_is_inside_beta(A, B, n_w, n_l, beta, gamma):
    """SimPO asks for a margin of gamma nats per token: false, unless beta is 1."""
    loss = losses.simpo(PairLogProbs(A, B, None, None, n_w, n_l), beta=beta, gamma=gamma)
    return Equal(loss, -log_sigmoid(beta * (A / n_w - B / n_l - gamma)))


# -- losses that push the wrong way ------------------------------------------------------------------------------------


@theorem(Source("doosterlinck2024apo", "ours"), r"d_w > 0 \iff |h| < |r_w|", claim="C11",
         **LOG_PROBS, beta=Positive())  # fmt: skip
def apo_down_lowers_the_chosen_of_a_wide_pair(A, B, A0, B0, beta):
    """APO-down raises the chosen exactly while the margin is smaller, in size, than the chosen's own log-ratio."""
    u, v = beta * ((A - A0) - (B - B0)), beta * (A - A0)
    d_w, _ = weights_of(losses.apo_down, PairLogProbs(A, B, A0, B0), beta=beta)
    return SameSign(d_w, tanh(v / 2) ** 2 - tanh(u / 2) ** 2, factor=beta / 4)


@theorem(Source("doosterlinck2024apo", "negative control"), r"d_w \ge 0", claim="C11", expect="refuted",
         instead=["apo_down_lowers_the_chosen_of_a_wide_pair"], **LOG_PROBS, beta=Positive())  # fmt: skip
def apo_down_raises_the_chosen(A, B, A0, B0, beta):
    """APO-down never lowers the chosen: false, and not meant to be true."""
    return NonNegative(weights_of(losses.apo_down, PairLogProbs(A, B, A0, B0), beta=beta)[0])


@theorem(Source("lu2024discopop", "negative control"), r"d_w \ge 0 \text{ at } \tau = 1/20", claim="C11",
         expect="refuted", instead=["weights_of_discopop"], u=Real())  # fmt: skip
def discopop_is_monotone(u):
    """DiscoPOP falls as the margin grows: false, it rises between beta h = -0.119 and 0.072."""
    return NonNegative(weights_of(losses.discopop, at_margin(20 * u), beta=1 / 20, tau=1 / 20)[0])
