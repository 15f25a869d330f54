"""What the level set is, and what certifies an end of a viable range (C1, C2, C7).

A condition on a gradient enters as a term of its own: at the baseline it is zero. Where a statement needs one, it holds
for any w0 with the labels that make it the best, which are its own risks: so says ``labels_no_longer_matter``.
"""

from __future__ import annotations

from typing import Any

from sandbox.algebra import dot, exp, grad, log, log_softmax, mean, sigmoid, softmax, total, velocity
from sandbox.multiplicity.formulas import bernoulli_kl, kl_at_least, loss, softmax_loss
from theory.statement import (
    Arch,
    AtMost,
    Bowl,
    Equal,
    Positive,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Unit,
    theorem,
)

PAPER = "watsondaniels2023multiplicity"
DATA: dict[str, Any] = {"x": Reals("n", "d"), "y": Reals("n")}


def mean_kl(x, w0, w):
    """Mean KL of the risks of w from those of w0."""
    return mean(bernoulli_kl(x @ w0, x @ w))


# -- C1: a ball of KL --------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"L(w) - L(w_0) = \frac1n \sum_i KL(p_i^0 \| g_w(x_i))", claim="C1",
         **DATA, w=Reals("d"), w0=Reals("d"))  # fmt: skip
def level_set_is_a_kl_ball(x, y, w, w0):
    """Excess logistic loss is the mean KL from the baseline's predictions; the last term vanishes at the optimum."""
    slope = dot(grad(lambda v: loss(v, x, y))(w0), w - w0)
    return Equal(loss(w, x, y) - loss(w0, x, y), mean_kl(x, w0, w) + slope)


@theorem(Source(PAPER, "ours"), r"L_\lambda(w) - L_\lambda(w_0) = \overline{KL} + \frac\lambda2\|w-w_0\|^2", claim="C1",
         **DATA, w=Reals("d"), w0=Reals("d"), ridge=Positive())  # fmt: skip
def level_set_with_a_ridge(x, y, w, w0, ridge):
    """With a ridge the excess loss is that KL plus ridge / 2 times the squared distance from the baseline."""
    slope = dot(grad(lambda v: loss(v, x, y, ridge))(w0), w - w0)
    away = ridge / 2 * dot(w - w0, w - w0)
    return Equal(loss(w, x, y, ridge) - loss(w0, x, y, ridge), mean_kl(x, w0, w) + away + slope)


@theorem(Source(PAPER, "ours"), r"L(W) - L(W_0) = \frac1n \sum_i KL(p_i^0 \| p_i^W)", claim="C1",
         x=Reals("n", "d"), y=Simplex("n", "C"), w=Reals("d", "C"), w0=Reals("d", "C"))  # fmt: skip
def level_set_of_softmax(x, y, w, w0):
    """The same with any number of classes: the mean categorical KL; the last term is the gradient's."""
    now, before = log_softmax(x @ w), log_softmax(x @ w0)
    divergence = mean(total(softmax(x @ w0) * (before - now)))
    slope = mean(total((softmax(x @ w0) - y) * (x @ w - x @ w0)))
    return Equal(softmax_loss(w, x, y) - softmax_loss(w0, x, y), divergence + slope)


@theorem(Source(PAPER, "negative control"), r"L(w) - L(w_0) = \frac1n \sum_i KL(g_w(x_i) \| p_i^0)", claim="C1",
         expect="refuted", instead=["level_set_is_a_kl_ball"], **DATA, w=Reals("d"), w0=Reals("d"))  # fmt: skip
def kl_the_other_way_round(x, y, w, w0):
    """The same with the KL from the other model to the baseline: false."""
    slope = dot(grad(lambda v: loss(v, x, y))(w0), w - w0)
    return Equal(loss(w, x, y) - loss(w0, x, y), mean_kl(x, w, w0) + slope)


@theorem(Source(PAPER, "ours"), r"\nabla L(w) - \nabla L(w_0) = \frac1n \sum_i (g_w(x_i) - p_i^0) x_i + \lambda(w-w_0)",
         claim="C1", **DATA, w=Reals("d"), w0=Reals("d"), ridge=Positive())  # fmt: skip
def labels_no_longer_matter(x, y, w, w0, ridge):
    """Given the baseline's risks, no label enters the gradient of the excess."""
    slope = grad(lambda v: loss(v, x, y, ridge))
    moved = sigmoid(x @ w) - sigmoid(x @ w0)
    return Equal(slope(w) - slope(w0), moved @ x / total(1 + 0 * y) + ridge * (w - w0))


# -- C2: one convex programme a person, and its certificates -----------------------------------------------------------


def variance(t):
    """p (1 - p) of the risk of a logit."""
    return sigmoid(t) * sigmoid(-t)


def bend(x, t, u, ridge=0):
    """Second derivative of the loss along u, at logits t."""
    return mean(variance(t) * (x @ u) ** 2) + ridge * dot(u, u)


@theorem(Source(PAPER, "ours"), r"\tau\,v\cdot(w'-w) + r\cdot(w'-w) \le L(w') - L(w), \; \nabla L(w) = \tau v + r",
         claim="C2", **DATA, w=Reals("d"), u=Reals("d"), v=Reals("d"), c=Positive(), tau=Real())  # fmt: skip
def outer_certificate(x, y, w, u, v, c, tau):
    """Any model w bounds how far another one, w' = w + c u, can move a logit v.w: r is what its gradient has beside it.

    Where r = 0, tau > 0 and the loss of w is the limit, v.w is the end of the range: the conditions are sufficient. A
    ridge makes the right side only larger.
    """
    off = grad(lambda w: loss(w, x, y))(w) - tau * v
    return Arch(
        lambda c: c * (tau * dot(v, u) + dot(off, u)), lambda c: loss(w + c * u, x, y) - loss(w, x, y),
        at=c, start=0 * c, curvature=lambda c: bend(x, x @ (w + c * u), u),
    )  # fmt: skip


@theorem(Source(PAPER, "ours"), r"\phi_i'' \ge 0", claim="C2",
         **DATA, w=Reals("d"), u=Reals("d"), c=Real(), ridge=Positive())  # fmt: skip
def profile_is_convex(x, y, w, u, c, ridge):
    """The loss bends upwards along every line; so the least loss at a given logit is a convex function of the logit."""
    bent = velocity(velocity(lambda c: loss(w + c * u, x, y, ridge)))(c)
    return AtMost(0 * c, bent, slack=bend(x, x @ (w + c * u), u, ridge))


@theorem(Source(PAPER, "ours"), r"K(c) \le c\,K'(c),\; K(c) = KL(\sigma(t_0)\|\sigma(t_0+ca))", claim="C2",
         t0=Real(), a=Real(), c=Positive())  # fmt: skip
def inner_certificate(t0, a, c):
    """Along a ray every KL per step grows, so their mean does: a share of the way has at most that share of the excess.

    That is how a point of the level set is made of one that rounding has put outside.
    """

    def spent(c):
        return bernoulli_kl(t0, t0 + c * a)

    return Bowl(
        spent, lambda c: c * velocity(spent)(c), at=c, bottom=0 * c, factor=lambda c: a**2 * variance(t0 + c * a)
    )


@theorem(Source(PAPER, "ours"), r"\phi'(t) = \tau", claim="C2",
         **DATA, w=Reals("d"), v=Reals("d"), other=Reals("d"), tau=Real())  # fmt: skip
def slope_of_the_profile(x, y, w, v, other, tau):
    """Where the gradient is tau v, every way of raising the logit v.w raises the loss at the rate tau."""

    def along(c):
        return loss(w + c * other, x, y)

    off = grad(lambda u: loss(u, x, y))(w) - tau * v
    return Equal(velocity(along)(0 * tau), tau * dot(v, other) + dot(off, other))


@theorem(Source(PAPER, "ours"), r"KL(\sigma(t) \| \sigma(t+a)) \ge p(1-p)(e^{-a} - 1 + a)", claim="C2",
         p=Unit(), a=Positive())  # fmt: skip
def kl_grows_at_least_so(p, a):
    """However far a logit moves, by a up from that of p, the KL is at least a constant times e^-a - 1 + a.

    Its sum over examples confines the level set to an ellipsoid, which makes the outer certificate rigorous.
    """
    t0 = log(p / (1 - p))

    def curvature(a):
        left = p + (1 - p) * exp(-a)  # the new risk is p / left
        return p * (1 - p) ** 2 * exp(-a) * (1 - exp(-a)) * (1 + left) / left**2

    return Arch(
        lambda a: kl_at_least(t0, a), lambda a: bernoulli_kl(t0, t0 + a), at=a, start=0 * a, curvature=curvature
    )


# -- C7: rays ----------------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\frac{d}{dc}\,g_{w_0+cu}(x) \text{ has the sign of } x\cdot u", claim="C7",
         t0=Real(), step=Real(), c=Positive())  # fmt: skip
def risks_move_one_way_along_a_ray(t0, step, c):
    """Along a ray from the baseline a risk moves one way only: a conflict, once on, stays on."""
    return SameSign(velocity(lambda c: sigmoid(t0 + c * step))(c), step, factor=variance(t0 + c * step))


@theorem(Source(PAPER, "ours"), r"K(c) \ge 0", claim="C7", t0=Real(), a=Real(), c=Positive())
def excess_is_never_negative(t0, a, c):
    """No KL is negative, so by the inner certificate the excess grows along a ray.

    With the conflicts, which only switch on: the most of any one model are found on the boundary of the level set.
    """
    return Arch(lambda c: 0 * c, lambda c: bernoulli_kl(t0, t0 + c * a), at=c, start=0 * c,
                curvature=lambda c: a**2 * variance(t0 + c * a))  # fmt: skip
