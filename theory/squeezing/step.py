"""One step: the decomposition A K G and its remainder (C1), and who wins when a response is pushed down (C2).

p is the law before the step, l the rejected response, s > 0 the impulse: the step adds s (p - e_l) to the logits.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sandbox.algebra import (
    along,
    arrays_only,
    dot,
    exp,
    grad,
    kl,
    log,
    log_softmax,
    onehot,
    softmax,
    total,
    velocity,
)
from sandbox.policies import linear_log_probs
from sandbox.squeezing import push_down, small_threshold, threshold
from theory.statement import (
    All,
    AtMost,
    Equal,
    Index,
    Moderate,
    Positive,
    Rate,
    Reals,
    SameSign,
    Simplex,
    Source,
    Tends,
    Units,
    theorem,
)

PAPER = "ren2024dynamics"


def after(p, l, s):
    """The log-probabilities after the step."""
    return log_softmax(push_down(log(p), l, s))


def without(l, p):
    """1 at every response but l."""
    return 1 - onehot(l, p)


# -- C1: the decomposition ---------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Prop. 1"), r"\Delta\log\pi(\cdot|x_o) = -\eta\,A(x_o)\,K(x_o,x_u)\,G(x_u,y_u) + O(\eta^2)",
         claim="C1", theta=Reals("V", "d"), h=Reals("d"), k=Reals("d"), u=Index("V", distinct=False),
         y=Index("V", distinct=False))  # fmt: skip
def a_step_moves_others_by_akg(theta, h, k, u, y):
    """A step that fine-tunes on answer u to a prompt of features k moves answer y to one of features h by -A K G.

    G = p - e_u is the gradient of the loss in the logits, K = <h, k> I the kernel of linear logits, A = I - 1 p^T.
    """
    p, q = softmax(theta @ h), softmax(theta @ k)
    flow = grad(lambda theta: linear_log_probs(theta, k)[u])  # minus the gradient of the loss
    moved = dot(h, k) * (q - onehot(u, q))
    return Equal(along(lambda theta: linear_log_probs(theta, h)[y], flow)(theta), -(moved[y] - dot(p, moved)))


@theorem(Source(PAPER, "ours, the remainder of Prop. 1"), r"\Delta\log p = A\,\Delta z - J\mathbf 1,\;"
         r" J = \log E_p e^{\Delta z - E_p\Delta z} \ge 0", claim="C1", p=Simplex("V"), v=Reals("V"), i=Index("V"),
         j=Index("V"))  # fmt: skip
def a_finite_step_pays_one_tax(p, v, i, j):
    """A finite move v of the logits leaves every log-probability below its first-order forecast, and all by the same.

    The tax is the divergence of the law after the move from that before.
    """
    moved = log_softmax(log(p) + v) - log(p)
    forecast = v - dot(p, v)
    return All(
        Equal(forecast[i] - moved[i], kl(p, exp(log_softmax(log(p) + v)))),
        Equal(forecast[i] - moved[i], forecast[j] - moved[j]),
        Equal(dot(p, forecast), 0 * v[i]),
    )


@theorem(Source(PAPER, "Prop. 1, its remainder"), r"\|\Delta\log\pi - (-\eta AKG)\| = O(\eta^2)", claim="C1",
         expect="checked", w=Units("d", "d"), x=Units("d"), y=Units("d"))  # fmt: skip
def remainder_is_of_second_order(w, x, y):
    """In a tanh network, too, what the decomposition leaves out falls like the square of the learning rate."""
    arrays_only("steps of a network")

    def log_probs(w, x):
        return jax.nn.log_softmax(w @ jnp.tanh(w @ x))

    slope = jax.grad(lambda w: -log_probs(w, y)[0])(w)
    # a floor for the rate: a direction in which the curvature vanishes leaves third order, so take the largest entry
    etas = jnp.asarray([1e-1, 3e-2, 1e-2, 3e-3]) / (1 + jnp.sum(slope**2))
    first = jax.jvp(lambda w: log_probs(w, x), (w,), (-slope,))[1]

    def missed(eta):
        return jnp.max(jnp.abs(log_probs(w - eta * slope, x) - log_probs(w, x) - eta * first))

    return Rate(etas, jax.vmap(missed)(etas), 2, within=0.15)  # the third order, a few per cent at these steps


# -- C2: the squeezing theorem -----------------------------------------------------------------------------------------

STEP: dict[str, Any] = dict(p=Simplex("V"), l=Index("V"), s=Positive())


@theorem(Source(PAPER, "App. E, Lemma 1; in this form ours"), r"\frac{p'_i}{p_i} = e^{s(p_i - T)},\;"
         r" \frac{p'_-}{p_-} = e^{s(p_- - 1 - T)}", claim="C2", **STEP, i=Index("V"), j=Index("V"))  # fmt: skip
def factor_of_a_step(p, l, s, i, j):
    """A step against l multiplies every other probability by e^(s (p_i - T)), so that their order is kept.

    Between two others the likelier gains more: their log-ratio grows by s (p_i - p_j).
    """
    change = after(p, l, s) - log(p)
    return All(
        Equal(change[i], s * (p[i] - threshold(p, l, s))),
        Equal(change[l], s * (p[l] - 1 - threshold(p, l, s))),
        Equal(change[i] - change[j], s * (p[i] - p[j])),
    )


@theorem(Source(PAPER, "ours, sharpens App. E, Claims 1, 2 and 5"), r"p'_i > p_i \iff p_i > T(s)", claim="C2",
         **STEP, i=Index("V"))  # fmt: skip
def wins_iff_above_the_threshold(p, l, s, i):
    """Pushing l down raises exactly those others whose probability exceeds the threshold T(s) = psi(s) / s."""
    return SameSign(after(p, l, s)[i] - log(p[i]), p[i] - threshold(p, l, s), factor=s)


@theorem(Source(PAPER, "ours"), r"s^2\,T'(s) = KL(p'\|p) \ge 0", claim="C2", **STEP)  # fmt: skip
def threshold_grows_with_the_step(p, l, s):
    """The threshold grows with the impulse: as steps get longer winners only drop out."""
    slope = velocity(lambda s: threshold(p, l, s))(s)
    return Equal(s**2 * slope, kl(exp(after(p, l, s)), p))


@theorem(Source(PAPER, "App. E, Claims 1 and 2; in this form ours"), r"\frac{d}{ds}\log p'_- \le 0,\;"
         r" \frac{d}{ds}\log p'_* = E_{p'}[p_* - g] \ge 0", claim="C2", **STEP, m=Index("V"))  # fmt: skip
def rejected_falls_and_the_top_rises(p, l, s, m):
    """The longer the step, the further the pushed response falls, and the further the top of the others rises.

    A response m moves by the mean of p_m - p_j + (1 if j is l): never negative if no other has more than p_m.
    """
    q = exp(after(p, l, s))
    rate = velocity(lambda s: after(p, l, s))(s)
    return All(
        AtMost(rate[l], 0 * s, slack=(1 - p[l]) * (1 - q[l]) + dot(p * q, without(l, p))),
        Equal(rate[m], dot(q, p[m] - p) + q[l]),
    )


def with_top(share, m, l, rest):
    """A law whose most likely response but l is m: weights 1 there, ``share`` < 1 elsewhere, ``rest`` at l."""
    weights = share * (1 - onehot(m, share) - onehot(l, share)) + onehot(m, share) + rest * onehot(l, share)
    return weights / total(weights)


@theorem(Source(PAPER, "ours"), r"\theta \le T(s) \le p_*,\; T(0) = \theta,\; T(\infty) = p_*", claim="C2",
         expect="checked", share=Units("V"), m=Index("V"), l=Index("V"), rest=Moderate(), s=Positive())  # fmt: skip
def ends_of_the_threshold(share, m, l, rest, s):
    """The threshold runs from |p|^2 - p_l for a small step to the probability of the top for an endless one."""
    arrays_only("two limits in the impulse")
    p = with_top(share, m, l, rest)
    return All(
        AtMost(small_threshold(p, l), threshold(p, l, s)),
        AtMost(threshold(p, l, s), p[m]),
        Tends(lambda s: threshold(p, l, s), 0, small_threshold(p, l)),
        Tends(lambda s: threshold(p, l, s), "oo", p[m]),
    )
