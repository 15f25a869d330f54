"""Who wins, by the peakiness of the law (C3); what a rare rejected response does (C4); on-policy ones (C11).

r is the law of the others, R = |r|^2 their peakiness, q the probability of the rejected response: p = (1 - q) r.
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
    log,
    log_softmax,
    onehot,
    softmax,
    velocity,
)
from sandbox.measures import entropy
from sandbox.squeezing import log_normaliser, majority_bound, push_down, small_threshold
from theory.squeezing.step import PAPER, after
from theory.statement import (
    All,
    AtMost,
    Equal,
    Given,
    Index,
    Logits,
    Moderate,
    Positive,
    SameSign,
    Simplex,
    Source,
    Tends,
    Unit,
    theorem,
)

LAW: dict[str, Any] = dict(p=Simplex("V"), l=Index("V"))


def squeezing(z, l):
    """The velocity of the logits when response l is pushed down: gradient ascent on its loss."""
    return grad(lambda z: -log_softmax(z)[l])(z)


def rates(p, l):
    """d log p / dt under that flow."""
    return velocity(lambda t: log_softmax(push_down(log(p), l, t)))(0)


# -- C3: who wins ------------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\frac{d\log p_i}{dt} = p_i - \theta,\; \frac{d\log p_-}{dt} = -(1 - p_- + \theta)",
         claim="C3", **LAW, i=Index("V"))  # fmt: skip
def rates_of_squeezing(p, l, i):
    """To first order the others move by their distance from theta = |p|^2 - p_l, the rejected by theta - (1 - p_l)."""
    theta = small_threshold(p, l)
    return All(Equal(rates(p, l)[i], p[i] - theta), Equal(rates(p, l)[l], -(1 - p[l] + theta)))


@theorem(Source(PAPER, "ours, App. E, Claims 3A to 3C exactly"), r"i \text{ wins} \iff r_i > R - q(1+R)", claim="C3",
         **LAW, i=Index("V"))  # fmt: skip
def winners_by_peakiness(p, l, i):
    """Among the others i wins a small step exactly if its share r_i exceeds R - q (1 + R).

    Hence all of them win once q >= R / (1 + R), as from a uniform law, where theta = 0.
    """
    rest = 1 - p[l]
    peak = (dot(p, p) - p[l] ** 2) / rest**2
    return Equal((p[i] - small_threshold(p, l)) / rest, p[i] / rest - (peak - p[l] * (1 + peak)))


def led_by(u, v, o):
    """Shares of a majority (1 + u) / 2 among the others, and q = v times the bound: r, q, theta.

    o is the law of the third parties, those that are neither the leader nor the rejected; theta as in the claim above.
    """
    r = (1 + u) / 2
    q, peak = v * majority_bound(r), r**2 + (1 - r) ** 2 * dot(o, o)
    return r, q, (1 - q) * (peak - q * (1 + peak))


@theorem(Source(PAPER, "ours"), r"r_* > \tfrac12,\; q < \frac{r_*(2r_*-1)}{2(1-r_*+r_*^2)} \Rightarrow \text{only } *"
         r" \text{ wins}", claim="C3", u=Unit(), v=Unit(), o=Simplex("V"), j=Index("V"))  # fmt: skip
def majority_rule(u, v, o, j):
    """If one response has more than half of the others' mass and the rejected is rarer than a bound, it alone rises.

    No third party is above theta, hence none above T(s), which only grows with the impulse (C2).
    """
    r, q, theta = led_by(u, v, o)
    lacks = dot(o, 1 - onehot(j, o))
    slack = (
        (1 - v) * majority_bound(r) * (1 + r**2 + (1 - r) ** 2)
        + (1 - r) * lacks * (u + (1 - r) * lacks + q * (1 - r) * (1 + o[j]))
        + (1 - q) * (1 - r) ** 2 * dot(o**2, 1 - onehot(j, o))
    )
    return AtMost((1 - q) * (1 - r) * o[j], theta, slack=(1 - q) * slack)


@theorem(Source(PAPER, "ours"), r"q = \frac{r(2r-1)}{2(1-r+r^2)} \Rightarrow \theta = p_2", claim="C3", u=Unit())
def majority_rule_is_sharp(u):
    """With two others the bound is sharp: there the second of them neither rises nor falls."""
    r = (1 + u) / 2
    q, peak = majority_bound(r), r**2 + (1 - r) ** 2
    return Equal((1 - q) * (peak - q * (1 + peak)), (1 - q) * (1 - r))


@theorem(Source(PAPER, "App. E, Claim 2 read for any law"), r"p_- \le \tfrac1{100} \Rightarrow \text{only } * \text{"
         r" wins}", claim="C3", expect="refuted",
         instead=["winners_by_peakiness", "majority_rule"], p=Simplex("V"), l=Index("V"), i=Index("V"), m=Index("V"),
         s=Positive(), witness={"p": [60, 59, 1, 1], "l": 3, "i": 1, "m": 0, "s": 1})  # fmt: skip
def a_rare_rejected_feeds_the_top_alone(p, l, i, m, s):
    """Pushing down a response of 1 per cent or less lowers all but the most likely: false, two leaders both rise."""
    lowered = log(p[i]) - after(p, l, s)[i]
    return Given(1 / 100 - p[l], p[m] - p[i], then=AtMost(0 * s, lowered))


# -- C4: a rarer rejected response -------------------------------------------------------------------------------------


@theorem(Source(PAPER, "App. E, Claim 4, first half; as derived by us"), r"\theta_b > \theta_a \iff p_b < p_a",
         claim="C4", p=Simplex("V"), a=Index("V"), b=Index("V"), s=Moderate())  # fmt: skip
def a_rarer_rejected_raises_the_threshold(p, a, b, s):
    """Of two responses that may be pushed down, at any impulse the rarer has the higher threshold: others lose more."""
    apart = exp(log_normaliser(p, b, s)) - exp(log_normaliser(p, a, s))
    return SameSign(apart, p[a] * exp(s * p[a]) - p[b] * exp(s * p[b]), factor=1 - exp(-s))


@theorem(Source(PAPER, "App. E, Claim 4, first half; as derived by us"),
         r"\frac{\partial}{\partial q}\frac{d\log p_i}{dt} = (1-q)(1+R) + \frac{1}{1-q}(-\tfrac{d\log p_i}{dt})",
         claim="C4", r=Simplex("V"), i=Index("V"), q=Unit())  # fmt: skip
def losers_fall_faster_as_the_rejected_gets_rare(r, i, q):
    """With the others' shares fixed, a response that falls falls the faster, the rarer the rejected one.

    The derivative in q is positive where the rate is negative.
    """

    def rate(q):
        return (1 - q) * r[i] - (q**2 + (1 - q) ** 2 * dot(r, r) - q)

    return Equal(velocity(rate)(q), (1 - q) * (1 + dot(r, r)) - rate(q) / (1 - q))


@theorem(Source(PAPER, "App. E, Claim 4, second half"), r"p_- \downarrow \;\Rightarrow\; \alpha_* \uparrow", claim="C4",
         expect="refuted", instead=["losers_fall_faster_as_the_rejected_gets_rare", "a_rare_rejected_gives_nothing_up"],
         r=Unit(), q=Unit(), shrink=Unit(), s=Positive())  # fmt: skip
def rarer_rejected_lifts_the_top_more(r, q, shrink, s):
    """The rarer the rejected response, the more the most likely one gains from pushing it down: false."""

    def gain(q):
        others = [(1 - q) * r, (1 - q) * (1 - r)]
        spread = sum(p * exp(s * p) for p in others) + q * exp(-s * (1 - q))
        return exp(s * others[0]) / spread

    return Given(r - (1 - r), then=AtMost(gain(q), gain(shrink * q)))


@theorem(Source(PAPER, "ours, in place of Claim 4's second half"),
         r"\frac{\dot p_*}{-\dot p_-} = \frac{p_*(p_*-\theta)}{p_-(1-p_-+\theta)} \sim \frac{r_*(r_*-R)}{q(1+R)}",
         claim="C4", expect="checked", r=Unit())  # fmt: skip
def a_rare_rejected_gives_nothing_up(r):
    """What does grow is the top's gain for each unit that the rejected loses, like 1/q: innocent responses pay.

    Two others with the shares r and 1 - r; shown is q times that ratio.
    """
    peak = r**2 + (1 - r) ** 2

    def times_q(q):
        top, theta = (1 - q) * r, q**2 + (1 - q) ** 2 * peak - q
        return q * top * (top - theta) / (q * (1 - q + theta))

    return Tends(times_q, 0, r * (r - peak) / (1 + peak))


# -- C11: rejected responses drawn by the policy -----------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"E_{y \sim Q}\,s(p - e_y) = s(p - Q)", claim="C11", p=Simplex("V"), Q=Simplex("V"),
         s=Moderate(), i=Index("V"))  # fmt: skip
def off_policyness_is_the_force(p, Q, s, i):
    """Negatives drawn from Q push the logits by s (p - Q) in the mean: by nothing if the policy itself drew them."""
    pushed = s * (p[i] - onehot(i, Q))  # what negative y adds to logit i, over y
    return All(Equal(dot(Q, pushed), s * (p - Q)[i]), Equal(dot(p, s * (p[i] - onehot(i, p))), 0 * s))


@theorem(Source(PAPER, "ours"), r"E_{y \sim p}\log\alpha_i = -E\psi \le 0 \;\forall i", claim="C11", expect="checked",
         p=Simplex("V"), s=Moderate())  # fmt: skip
def on_policy_negatives_lower_all_alike(p, s):
    """Negatives that the policy drew lower the mean log-probability of all responses by the same, at any impulse."""
    arrays_only("one step for each response")
    each = jax.vmap(lambda y: after(p, y, s) - log(p))(jnp.arange(p.size))
    mean = p @ each
    psi = jax.vmap(lambda y: log_normaliser(p, y, s))(jnp.arange(p.size))
    return All(AtMost(mean, 0 * p), Equal(mean, -dot(p, psi) + 0 * p))


@theorem(Source(PAPER, "ours"), r"\frac{dH}{dt} = -\mathrm{Cov}_p(p, \log p) + p_-(\log p_- + H)", claim="C11",
         z=Logits("V"), l=Index("V"))  # fmt: skip
def entropy_under_squeezing(z, l):
    """The entropy falls by the covariance of p and log p, and further if the pushed response is a surprise.

    Sampled responses have log p_l = -H in the mean.
    """
    p = softmax(z)
    rate = along(lambda z: entropy(log_softmax(z)), lambda z: squeezing(z, l))(z)
    covariance = dot(p, p * log(p)) - dot(p, p) * dot(p, log(p))
    return Equal(rate, -covariance + p[l] * (log(p[l]) + entropy(log(p))))
