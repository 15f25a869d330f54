"""The whole path: squeezing in closed form (C5), one turn only (C6), and fine-tuning as the same path backwards (C7).

dz/dt = p - e_l. tau is the parameter of ``sandbox.squeezing.flow_logits``: 0 at the start, below 1 / max p.
"""

from __future__ import annotations

from typing import Any

from sandbox.algebra import (
    along,
    arrays_only,
    dot,
    exp,
    flow_margin,
    grad,
    log,
    log_softmax,
    onehot,
    sinh,
    softmax,
    stack,
    total,
)
from sandbox.algebra import velocity as rate_of
from sandbox.squeezing import flow_law, flow_logits, flow_pace, flow_time, small_threshold
from theory.squeezing.peaks import rates, squeezing
from theory.squeezing.step import PAPER, with_top, without
from theory.statement import (
    All,
    AtMost,
    Conserved,
    Equal,
    Grows,
    Index,
    Logits,
    Moderate,
    Negative,
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

LAW: dict[str, Any] = dict(p=Simplex("V"), l=Index("V"))


# -- C5: the closed form -----------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"e^{-z_i} - e^{-z_j} = \text{const}", claim="C5",
         z=Reals("V"), l=Index("V"), i=Index("V"), j=Index("V"))  # fmt: skip
def conserved_by_squeezing(z, l, i, j):
    """Pushing down one response conserves e^-z_i - e^-z_j of any two others, and the sum of all logits."""

    def flow(z):
        return squeezing(z, l)

    return All(Conserved(lambda z: exp(-z[i]) - exp(-z[j]), flow, at=z), Conserved(total, flow, at=z))


@theorem(Source(PAPER, "ours"), r"p_i(\tau) \propto \frac{p_i}{1-\tau p_i},\; p_-(\tau) \propto p_-\prod_{i\ne-}"
         r"(1-\tau p_i)", claim="C5", **LAW, tau=Unit())  # fmt: skip
def path_of_squeezing(p, l, tau):
    """The flow in closed form for any number of responses: its path in tau, along which dt = pace dtau."""
    z, slope = flow_logits(p, l, tau), rate_of(lambda tau: flow_logits(p, l, tau))(tau)
    return All(Equal(slope, flow_pace(p, l, tau) * squeezing(z, l)), Equal(flow_logits(p, l, 0 * tau), log(p)))


@theorem(Source(PAPER, "ours"), r"\frac{dt}{d\tau} = \sum_{i\ne-}\frac{p_i}{1-\tau p_i} + p_-\prod_{i\ne-}(1-\tau p_i)",
         claim="C5", expect="checked", **LAW, tau=Unit())  # fmt: skip
def clock_of_squeezing(p, l, tau):
    """The time that the flow takes to tau: the integral of its pace, in closed form but for one quadrature."""
    arrays_only("quadrature")
    return Equal(rate_of(lambda tau: flow_time(p, l, tau))(tau), flow_pace(p, l, tau))


@theorem(Source(PAPER, "ours"), r"1 - p_* \sim C\epsilon,\; p_- \sim C_-\epsilon^2,\; \epsilon = 1 - \tau p_* \sim"
         r" e^{-t}", claim="C5", expect="checked", share=Units("V"), m=Index("V"), l=Index("V"), j=Index("V"),
         rest=Moderate())  # fmt: skip
def innocents_die_at_half_the_rate(share, m, l, j, rest):
    """In the end innocents die at half the culprit's rate, their mutual ratios freeze, and the top takes all.

    With a single top: as epsilon = 1 - tau p_* goes to 0, the pace is 1 / epsilon to leading order, so that t grows
    like -log epsilon; an innocent goes as epsilon p_j / (p_* - p_j), the culprit as epsilon squared.
    """
    p = with_top(share, m, l, rest)

    def at(epsilon):
        return flow_law(p, l, (1 - epsilon) / p[m])

    gone = total(log(1 - p / p[m] * (1 - onehot(m, p) - onehot(l, p))))
    return All(
        Tends(lambda e: at(e)[j] / e, 0, p[j] / (p[m] - p[j])),
        Tends(lambda e: at(e)[l] / e**2, 0, p[l] / p[m] * exp(gone)),
        Tends(lambda e: flow_pace(p, l, (1 - e) / p[m]) * e, 0, p[m]),  # dt = -de / e
    )


@theorem(Source(PAPER, "ours"), r"y - e^{-y} = c,\; \dot c = 1 + 1/k,\; y = \log\frac{1-p_-}{p_-} = c + W(e^{-c})",
         claim="C5", a=Real(), b=Real(), z=Reals("V"), l=Index("V"), c=Real())  # fmt: skip
def equal_others(a, b, z, l, c):
    """If the k others are equally likely, the log-odds y against the rejected are known at all times, through W."""
    equal = a * without(l, z) + b * onehot(l, z)

    def log_odds(z):
        p = softmax(z)
        return log(1 - p[l]) - log(p[l])

    def clock(z):
        return log_odds(z) - exp(-log_odds(z))

    count = total(without(l, z))
    y = -flow_margin(-c)
    return All(Equal(along(clock, lambda z: squeezing(z, l))(equal), 1 + 1 / count), Equal(y - exp(-y), c))


@theorem(Source(PAPER, "ours"), r"\sinh\tfrac{x}{2} = \sinh\tfrac{x_0}{2}\,e^{t/2}", claim="C5", x=Positive(),
         start=Positive())  # fmt: skip
def two_others_part_exponentially(x, start):
    """Once the rejected is gone, two others are apart by x nats with sinh(x/2) growing as e^(t/2): a replicator."""

    def flow(x):
        p = softmax(stack(x, 0 * x))
        return p[0] - p[1]

    def clock(x):
        return log(sinh(x / 2))

    return Grows(clock, flow, at=x, start=start, by=1 / 2 + 0 * x, begins=log(sinh(start / 2)))


# -- C6: one turn only -------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\frac{d\theta}{dt} = 2\,\mathrm{Var}_p(p) + p_-(1-p_-) + 3p_-\theta", claim="C6",
         z=Logits("V"), l=Index("V"))  # fmt: skip
def threshold_rises_once_it_is_positive(z, l):
    """While theta >= 0 it rises: each response but the top falls from the start, or rises once, then falls for ever.

    A response turns where p_i = theta > 0, and there p_i - theta falls. "DPO for too long" needs no more than this.
    """
    p = softmax(z)
    theta = small_threshold(p, l)
    rate = along(lambda z: small_threshold(softmax(z), l), lambda z: squeezing(z, l))(z)
    variance = dot(p, (p - dot(p, p)) ** 2)
    return Equal(rate, 2 * variance + p[l] * (1 - p[l]) + 3 * p[l] * theta)


@theorem(Source(PAPER, "ours, negative control"), r"\dot\theta \ge 0", claim="C6", expect="refuted",
         instead=["threshold_rises_once_it_is_positive"],
         p=Simplex("V"), l=Index("V"), witness={"p": [1, 7], "l": 1})  # fmt: skip
def threshold_always_rises(p, l):
    """The threshold rises at any moment: false while the rejected response has most of the mass."""
    rate = along(lambda z: small_threshold(softmax(z), l), lambda z: squeezing(z, l))(log(p))
    return AtMost(0 * p[l], rate)


# -- C7: fine-tuning, backwards ----------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\dot z = e_+ - p:\; \tau < 0", claim="C7", expect="checked", **LAW, tau=Negative())
def sft_walks_the_same_path_backwards(p, l, tau):
    """Fine-tuning on response l is the flow that pushes it down, run backwards: its path is that of tau < 0."""
    arrays_only("the prover shows the path once, in C5")
    sft = grad(lambda z: log_softmax(z)[l])(flow_logits(p, l, tau))
    return Equal(-rate_of(lambda tau: flow_logits(p, l, tau))(tau), flow_pace(p, l, tau) * sft)


@theorem(Source(PAPER, "ours"), r"\frac{d\log p_i}{dt} = S - p_+ - p_i > 0 \iff p_i < S - p_+", claim="C7",
         **LAW, i=Index("V"))  # fmt: skip
def untrained_answers_bloom(p, l, i):
    """Fine-tuning on l also raises any answer less likely than |p|^2 - p_l: a bell curve without any similarity.

    A confound where such curves are read as similarity of answers.
    """
    sft = rate_of(lambda t: log_softmax(log(p) + t * (onehot(l, p) - p)))(0)
    return All(SameSign(sft[i], small_threshold(p, l) - p[i], factor=1), Equal(sft, -rates(p, l)))


@theorem(Source(PAPER, "ours, for the mend of Sec. 4"), r"\Phi_{t_2} \circ \Phi_{t_1} = \Phi_{t_1 + t_2}", claim="C7",
         expect="checked", **LAW, back=Negative(), share=Unit())  # fmt: skip
def mend_retraces_the_path(p, l, back, share):
    """Fine-tune on the rejected response first, then push it down: the law walks back, not beyond where it began.

    From the law at tau = back a push leads through those of tau between back and 0; at 0 all is as it was.
    """
    arrays_only("a path from a point of a path")
    pulled, pace = flow_law(p, l, back), flow_pace(p, l, back)

    def pushed(share):
        return flow_law(pulled, l, -share * back * pace)

    return All(Equal(pushed(share), flow_law(p, l, (1 - share) * back)), Equal(pushed(1.0), p))
