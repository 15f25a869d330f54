"""What the paper argues: the two probabilities as free variables (C1-C5), where that leads (C12), and what it misses.

p, q: probabilities of the chosen and the rejected response; a, b: those under the reference policy; C = (a/b)^beta.
The derivatives are right. That they govern the training of a softmax is an inference, and it is false: such claims
stand here as refuted, each with the smallest law at which it fails.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sandbox import losses
from sandbox.algebra import along, dot, grad, log, log_sigmoid, onehot, sigmoid, total, velocity
from sandbox.losses import PairLogProbs, margin_weights
from theory.statement import (
    All,
    AtMost,
    Below,
    Conserved,
    Equal,
    Index,
    Moderate,
    NonNegative,
    Positive,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Tends,
    Unit,
    Units,
    theorem,
)

PAPER = "yan2024dpo3d"
FREE: dict[str, Any] = dict(p=Unit(), q=Unit(), a=Unit(), b=Unit())


def slopes(loss, p, q, a, b):
    """Derivatives of a loss in p and in q, the two probabilities taken as free variables."""

    def at(p, q):
        return loss(PairLogProbs(log(p), log(q), log(a), log(b)))

    return velocity(lambda p: at(p, q))(p), velocity(lambda q: at(p, q))(q)


def constant(a, b, beta):
    """C = (a/b)^beta."""
    return a**beta / b**beta


# -- C1, C2: the derivatives, and their ratio --------------------------------------------------------------------------


@theorem(Source(PAPER, "Sec. 3.1, as reported"),
         r"\partial_p L = \frac{-\beta C q^\beta}{p(p^\beta + Cq^\beta)},\;"
         r" \partial_q L = \frac{\beta C q^{\beta-1}}{p^\beta + Cq^\beta}", claim="C1",
         **FREE, beta=Moderate())  # fmt: skip
def slopes_of_dpo(p, q, a, b, beta):
    """The derivatives of DPO's loss in the two probabilities, taken as free variables."""
    slope_p, slope_q = slopes(partial(losses.dpo, beta=beta), p, q, a, b)
    c = constant(a, b, beta)
    both = p**beta + c * q**beta
    return All(Equal(slope_p, -beta * c * q**beta / (p * both)), Equal(slope_q, beta * c * q ** (beta - 1) / both))


@theorem(Source(PAPER, "Cor. 1, as reported"), r"\frac{\partial_q L}{\partial_p L} = -\frac{p}{q}", claim="C2",
         **FREE, beta=Moderate())  # fmt: skip
def ratio_of_the_slopes(p, q, a, b, beta):
    """The slope in the rejected probability is larger than that in the chosen by p/q, whatever beta and reference.

    Hence it is the larger one exactly if the chosen is the likelier.
    """
    slope_p, slope_q = slopes(partial(losses.dpo, beta=beta), p, q, a, b)
    push = beta * sigmoid(-beta * (log(p / a) - log(q / b)))
    return All(SameSign(slope_q + slope_p, p - q, factor=push / (p * q)), Equal(slope_q / slope_p, -p / q))


# -- C3: the limits ----------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Cor. 2, as reported; every beta ours"),
         r"\partial_q L \sim \beta C p^{-\beta} q^{\beta-1}\;(q \to 0)", claim="C3",
         **FREE, beta=Moderate())  # fmt: skip
def slope_as_the_rejected_vanishes(p, q, a, b, beta):
    """As q falls, the slope in q approaches beta C p^-beta q^(beta - 1), from below and with a vanishing share missing.

    It grows without bound for beta < 1, tends to C/p at beta = 1 and to 0 beyond.
    """
    _, slope_q = slopes(partial(losses.dpo, beta=beta), p, q, a, b)
    c = constant(a, b, beta)
    power = beta * c * q ** (beta - 1) / p**beta
    share = c * q**beta / p**beta  # goes to 0 with q, for every beta > 0
    missing = share / (1 + share)
    return All(
        AtMost(slope_q, power, slack=power * missing),
        AtMost(power * (1 - share), slope_q, slack=power * share * missing),
    )


@theorem(Source(PAPER, "Cor. 2, as reported"), r"-\partial_p L \sim \beta C q^\beta p^{-\beta-1} \to 0\;(q \to 0)",
         claim="C3", **FREE, beta=Moderate())  # fmt: skip
def slope_in_the_chosen_vanishes(p, q, a, b, beta):
    """With p fixed, the slope in the chosen probability is at most beta C q^beta / p^(beta + 1), which goes to 0."""
    slope_p, _ = slopes(partial(losses.dpo, beta=beta), p, q, a, b)
    c = constant(a, b, beta)
    power = beta * c * q**beta / p ** (beta + 1)
    share = c * q**beta / p**beta
    return AtMost(-slope_p, power, slack=power * share / (1 + share))


@theorem(Source(PAPER, "Cor. 2"), r"\partial_q L \to C/p \; (\beta = 1)", claim="C3", expect="checked",
         p=Positive(), a=Positive(), b=Positive())  # fmt: skip
def limits_of_the_slope_in_the_rejected(p, a, b):
    """As q vanishes the slope in q grows without bound at beta = 1/2, tends to C/p at 1, and vanishes at 2."""

    def slope(beta):
        return lambda q: slopes(partial(losses.dpo, beta=beta), p, q, a, b)[1]

    return All(Tends(slope(1), 0, a / (b * p)), Tends(slope(1 / 2), 0, "oo"), Tends(slope(2), 0, 0))


@theorem(Source(PAPER, "Cor. 2, the condition beta < 1"), r"\partial_q^2 L \le 0 \;(\beta < 1)", claim="C3",
         **FREE, beta=Below(1))  # fmt: skip
def rejected_slope_grows_below_one(p, q, a, b, beta):
    """For beta < 1 the slope in q grows, at every q, as q falls."""
    c = constant(a, b, beta)
    both = p**beta + c * q**beta
    bend = velocity(lambda q: slopes(partial(losses.dpo, beta=beta), p, q, a, b)[1])(q)
    falling = (1 - beta) * p**beta + c * q**beta
    return AtMost(bend, 0 * q, slack=beta * c * q ** (beta - 2) * falling / both**2)


@theorem(Source(PAPER, "Cor. 2 without its condition"), r"\partial_q^2 L \le 0 \text{ for every } \beta", claim="C3",
         expect="refuted", instead=["rejected_slope_grows_below_one", "limits_of_the_slope_in_the_rejected"],
         witness=dict(p=1, q=3, a=1, b=1, beta=2), **FREE, beta=Positive())  # fmt: skip
def rejected_slope_grows_for_every_beta(p, q, a, b, beta):
    """The slope in q grows as q falls, whatever beta: false above 1, where it vanishes."""
    bend = velocity(lambda q: slopes(partial(losses.dpo, beta=beta), p, q, a, b)[1])(q)
    return NonNegative(-bend)


# -- C4: "hence the three D's" -----------------------------------------------------------------------------------------

LAW: dict[str, Any] = dict(p=Simplex("V"), w=Index("V"), l=Index("V"), beta=Positive())


def dpo_at_reference(p, w, l, beta):
    """Velocities of all probabilities under DPO's flow on one pair of a softmax table, at the reference policy.

    Away from it only the common factor beta sigmoid(-u) differs.
    """
    from theory.dpo_3d.softmax import force

    push = force(log(p), log(p), w, l, beta)
    return p * (push - dot(p, push))


@theorem(Source(PAPER, "Cor. 1 read as D1, drastic drop"), r"-\dot\pi_l/\dot\pi_w = \pi_w/\pi_l", claim="C4",
         expect="refuted", instead=["ratio_of_the_slopes", "ratio_of_the_speeds", "rates_in_a_table"],
         witness=dict(p=[2, 1], w=0, l=1, beta=1), **LAW)  # fmt: skip
def ratio_of_slopes_is_a_ratio_of_speeds(p, w, l, beta):
    """The rejected falls faster than the chosen rises by the ratio of the slopes: false with two responses already.

    There the two speeds are equal for ever, although the ratio of the slopes grows without bound.
    """
    speed = dpo_at_reference(p, w, l, beta)
    return Equal(-speed[l] / speed[w], p[w] / p[l])


@theorem(Source(PAPER, "Cor. 2 read as D2, degradation into suppression"),
         r"-\frac{d}{dt}\log\pi_l \ge \frac{d}{dt}\log\pi_w", claim="C4", expect="refuted",
         instead=["share_of_suppression_is_the_mean_score", "table_never_lowers_the_chosen"], **LAW)  # fmt: skip
def learning_is_mostly_suppression(p, w, l, beta):
    """The rejected's log-probability always moves more than the chosen's: false while the rejected is the likelier."""
    speed = dpo_at_reference(p, w, l, beta)
    return AtMost(speed[w] / p[w], -speed[l] / p[l])


@theorem(Source(PAPER, "Cor. 3 read as D3, dispersion"), r"\dot U > 0 \iff \pi_w > \pi_l", claim="C4",
         expect="refuted",
         instead=["unseen_gain_while_the_rejected_leads", "dispersion_is_transient"], **LAW)  # fmt: skip
def mass_disperses_once_the_chosen_leads(p, w, l, beta):
    """The unseen responses gain while the chosen is likelier than the rejected: false, exactly the other way round."""
    speed = dpo_at_reference(p, w, l, beta)
    gained = -(speed[w] + speed[l])
    return NonNegative(gained * (p[w] - p[l]))


# -- C5: the reward model ----------------------------------------------------------------------------------------------

REWARDS: dict[str, Any] = dict(r=Reals("V"), w=Index("V"), l=Index("V"))


def reward_loss(r, w, l):
    """The Bradley-Terry loss of a reward model with a free score for each response."""
    return -log_sigmoid(r[w] - r[l])


@theorem(Source(PAPER, "Sec. 3.4, as reported"), r"\partial_{r_w}L = -\sigma(r_l - r_w) = -\partial_{r_l}L", claim="C5",
         **REWARDS)  # fmt: skip
def reward_slopes_balance(r, w, l):
    """A reward model's slopes are equal, opposite, at most 1, and zero for every third response."""
    slope = grad(lambda r: reward_loss(r, w, l))(r)
    push = sigmoid(r[l] - r[w])
    return All(
        Equal(slope, push * (onehot(l, r) - onehot(w, r))), AtMost(push, 1 + 0 * r[w], slack=sigmoid(r[w] - r[l]))
    )


@theorem(Source(PAPER, "ours, after Sec. 3.4"), r"d_w = d_l = \beta\sigma(-u)", claim="C5",
         A=Real(), B=Real(), A0=Real(), B0=Real(), beta=Positive())  # fmt: skip
def dpo_slopes_balance_too(A, B, A0, B0, beta):
    """In log-probabilities, the coordinates a policy is trained in, DPO is balanced just as well."""
    d_w, d_l = margin_weights(partial(losses.dpo, beta=beta), PairLogProbs(A, B, A0, B0))
    push = beta * sigmoid(-beta * ((A - A0) - (B - B0)))
    return All(Equal(d_w, push), Equal(d_l, push))


@theorem(Source(PAPER, "ours, after Sec. 3.4"),
         r"\frac{\partial L/\partial e^{r_l}}{\partial L/\partial e^{r_w}} = -\frac{e^{r_w}}{e^{r_l}}", claim="C5",
         p=Positive(), q=Positive())  # fmt: skip
def reward_slopes_are_unbalanced_in_their_exponentials(p, q):
    """In e^r, what DPO's probabilities correspond to, a reward model has the same ratio of slopes as DPO."""

    def loss(p, q):
        return -log_sigmoid(log(p) - log(q))

    slope_p, slope_q = velocity(lambda p: loss(p, q))(p), velocity(lambda q: loss(p, q))(q)
    return All(SameSign(slope_q + slope_p, p - q, factor=1 / (p * (p + q))), Equal(slope_q / slope_p, -p / q))


@theorem(Source(PAPER, "ours, after Sec. 3.4"), r"\pi_r(t) = \pi_{DPO}(t/\beta^2)", claim="C5",
         r=Reals("V"), z0=Reals("V"), w=Index("V"), l=Index("V"), beta=Positive())  # fmt: skip
def reward_model_walks_the_path_of_dpo(r, z0, w, l, beta):
    """Training rewards r and tilting the reference by e^(r/beta) visits the policies of DPO, in beta^2 of its time.

    The logits z0 + r/beta of the tilted reference move with 1/beta^2 of DPO's velocity at the same logits.
    """
    from theory.dpo_3d.softmax import force

    reward_flow = -grad(lambda r: reward_loss(r, w, l))(r)
    return Equal(reward_flow / beta, force(z0 + r / beta, z0, w, l, beta) / beta**2)


@theorem(Source(PAPER, "Sec. 3.4, the inference"), r"d_w = d_l \Rightarrow \dot U = 0", claim="C5", expect="refuted",
         instead=["dpo_slopes_balance_too", "unseen_gain_while_the_rejected_leads"],
         p=Simplex("V"), w=Index("V"), l=Index("V"), d=Positive())  # fmt: skip
def balance_spares_the_others(p, w, l, d):
    """Equal and opposite pushes leave every third response alone, as in a reward model: false for a softmax.

    What a reward model lacks is not the imbalance of slopes but the simplex: its scores need not sum to one.
    """
    push = d * (onehot(w, p) - onehot(l, p))
    others = 1 - onehot(w, p) - onehot(l, p)
    return Equal(dot(others, p * (push - dot(p, push))), 0 * d)


# -- C12: the flow of free variables -----------------------------------------------------------------------------------

CLOCK: dict[str, Any] = dict(x=Units("V"), start=Units("V"), w=Index("V"), l=Index("V"), beta=Moderate())


def free_flow(start, w, l, beta):
    """The descent of DPO's loss in free variables x, chosen x_w and rejected x_l, from the reference ``start``."""

    def loss(x):
        return losses.dpo(PairLogProbs(log(x[w]), log(x[l]), log(start[w]), log(start[l])), beta=beta)

    return lambda x: -grad(loss)(x)


@theorem(Source(PAPER, "ours, implicit in Sec. 3.1"), r"p^2 + q^2 = \text{const}", claim="C12", **CLOCK)
def free_flow_is_a_circle(x, start, w, l, beta):
    """The flow of free variables runs on a circle."""
    return Conserved(lambda x: dot(x, x), free_flow(start, w, l, beta), at=x)


@theorem(Source(PAPER, "ours, implicit in Sec. 3.1"), r"\frac{d}{dt}\frac{q^{2-\beta}}{2-\beta} ="
         r" \frac{-\beta C}{p^\beta + Cq^\beta}", claim="C12", **CLOCK)  # fmt: skip
def free_rejected_dies_below_two(x, start, w, l, beta):
    """q^(2 - beta) / (2 - beta) falls at a rate that stays between two constants: q is 0 in finite time iff beta < 2.

    On the circle p and q are bounded; for beta > 2 the quantity is -oo at q = 0, hence never reached.
    """
    c = constant(start[w], start[l], beta)
    rate = along(lambda x: x[l] ** (2 - beta), free_flow(start, w, l, beta))(x)
    return Equal(rate, -(2 - beta) * beta * c / (x[w] ** beta + c * x[l] ** beta))


@theorem(Source(PAPER, "ours, implicit in Cor. 3"), r"\frac{d}{dt}(p + q) < 0 \iff p > q", claim="C12", **CLOCK)
def free_sum_shrinks_once_the_chosen_leads(x, start, w, l, beta):
    """The sum of free p and q, whose complement would be the unseen mass, shrinks exactly if p > q.

    A softmax does the opposite (C9); and where the sum grows it can exceed 1.
    """
    c = constant(start[w], start[l], beta)
    factor = beta * c * x[l] ** (beta - 1) / (x[w] * (x[w] ** beta + c * x[l] ** beta))
    return SameSign(-along(total, free_flow(start, w, l, beta))(x), x[w] - x[l], factor=factor)
