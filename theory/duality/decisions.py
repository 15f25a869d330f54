"""What follows for decisions: the curse of wide beams, sampling, expected payoffs, and small samples (C10-C13)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sandbox import utility
from sandbox.algebra import arrays_only, dot, log, onehot, softmax, velocity
from theory.duality.choice import PAPER
from theory.statement import (
    All,
    AtMost,
    Equal,
    Given,
    Index,
    NonNegative,
    Positive,
    Positives,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Unit,
    theorem,
)

# -- C10: the empty sentence -------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, for P3"), r"P(\text{end}) > P(\text{gold})^L \iff L > L^*", claim="C10",
         gold=Unit(), end=Unit(), length=Positive())  # fmt: skip
def empty_beats_gold_beyond_the_critical_length(gold, end, length):
    """The empty sentence is likelier than gold at every position exactly if L > log P(end) / log P(gold)."""
    ahead = log(end) - length * log(gold)
    return SameSign(ahead, length - utility.critical_length(gold, end), factor=log(1 / gold))


@theorem(Source(PAPER, "ours, for P3"), r"\frac{d}{d\beta}\log P_{\beta u}(y) = u_y - E_{\beta u} u", claim="C10",
         u=Reals("V"), beta=Real(), y=Index("V"))  # fmt: skip
def sharpening_moves_log_probabilities(u, beta, y):
    """Sharper utilities raise the log-probability of what lies above the mean utility, and lower that of the rest.

    Hence flattening shortens L* from both ends wherever the end token lies below the mean.
    """
    return Equal(velocity(lambda b: log(softmax(b * u))[y])(beta), dot(softmax(beta * u), u[y] - u))


@theorem(Source(PAPER, "ours, for P3"), r"\text{Beam}(B) = \varnothing \iff B \ge \mathrm{rank}(\text{end})",
         claim="C10", expect="checked", p=Simplex("V"), tilt=Positive(), width=Unit())  # fmt: skip
def wide_beams_return_the_empty_sentence(p, tilt, width):
    """Beyond L*, if P(gold) P(second) <= P(end), a beam is empty exactly if it is as wide as the rank of the end token.

    By the premise only runs of gold are likelier than the end once there are two tokens; without it better beginnings
    may crowd the empty sentence out. Position by position the same law, here at 8 positions; the end is token 0, never
    the top one.
    """
    arrays_only("beam search")
    size = p.shape[-1]
    law = jax.nn.softmax(jnp.log(p) + tilt * jnp.arange(size))  # lets the premises hold in a good share of draws
    order = jnp.sort(law)[::-1]
    rank = jnp.sum(law >= law[0])
    beam = 1 + jnp.floor(width * size).astype(int)
    found = utility.beam_search(jnp.broadcast_to(jnp.log(law), (8, size)), beam, most=size)
    return Given(
        8 * jnp.log(1 / order[0]) - jnp.log(1 / law[0]) - 1e-6,
        law[0] - order[0] * order[1] - 1e-6,
        order[0] - law[0] - 1e-6,
        then=Equal(1.0 * (found.length == 0), 1.0 * (beam >= rank)),
    )


# -- C11: sampling -----------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, for P4"), r"Q_L = \frac1L\sum_{i=1}^L c(1-e)^{i-1} = \frac{c(1-(1-e)^L)}{Le}",
         claim="C11", c=Unit(), e=Unit(), length=Positive())  # fmt: skip
def quality_of_sampling(c, e, length):
    """Of L positions the i-th is reached with probability (1 - e)^(i - 1), and then holds gold with probability c."""

    def matches(length):
        return length * utility.sampling_quality(c, e, length)

    return All(
        Equal(matches(length + 1) - matches(length), c * (1 - e) ** length),
        Equal(matches(1), c),
    )


# -- C12: what temperature can and cannot do ---------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\frac{d}{d\beta} E_{\beta u} r = \mathrm{Cov}_{\beta u}(u, r)", claim="C12",
         u=Reals("V"), r=Reals("V"), beta=Real())  # fmt: skip
def sharpening_pays_by_the_covariance(u, r, beta):
    """Sharpening raises the mean payoff exactly as far as utility and payoff are positively correlated."""
    p = softmax(beta * u)
    return Equal(velocity(lambda b: dot(softmax(b * u), r))(beta), dot(p, u * r) - dot(p, u) * dot(p, r))


@theorem(Source(PAPER, "ours"), r"\frac{d}{d\beta} P_{\beta u}(\text{top}) \ge 0", claim="C12",
         u=Real(), drop=Positives("V"), top=Index("V"), beta=Real())  # fmt: skip
def sharpening_suffices_for_the_top_output(u, drop, top, beta):
    """To draw the top output, temperature is enough: its probability never falls as beta rises."""
    scores = u - drop * (1 - onehot(top, drop))
    p = softmax(beta * scores)
    rate = velocity(lambda b: softmax(b * scores)[top])(beta)
    return AtMost(0 * u, rate, slack=p[top] * dot(p, drop * (1 - onehot(top, drop))))


@theorem(Source(PAPER, "ours, negative control"), r"\exists\beta:\; \mathrm{softmax}(\beta u_1) = q", claim="C12",
         expect="refuted",
         instead=["sharpening_suffices_for_the_top_output"], q=Simplex("V"), a=Index("V"), b=Index("V"), c=Index("V"),
         witness={"q": [3, 2, 1], "a": 0, "b": 1, "c": 2})  # fmt: skip
def a_temperature_repairs(q, a, b, c):
    """After one step from uniform utilities some temperature gives back the data law: false with three outputs.

    If one did, log-ratios of q would be proportional to differences of utilities.
    """
    u = utility.step(0 * q, q, 1)
    return Equal((u[b] - u[c]) * log(q[a] / q[c]), (u[a] - u[c]) * log(q[b] / q[c]))


# -- C13: small samples ------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"E\|\hat q - q\|^2 = (1 - \|q\|^2)/n", claim="C13", q=Simplex("V"), m=Positive(),
         n=Positive())  # fmt: skip
def error_of_the_raw_frequency(q, m, n):
    """Inverted from n samples the law is their raw frequency, off by (1 - |q|^2) / n in mean square.

    From one draw it is; and pooling two independent samples, m and n, adds their variances.
    """
    once = dot(q, 1 - 2 * q + dot(q, q))  # |e_y - q|^2, averaged over y
    pooled = (m**2 * utility.frequency_error(q, m) + n**2 * utility.frequency_error(q, n)) / (m + n) ** 2
    return All(Equal(utility.frequency_error(q, 1), once), Equal(utility.frequency_error(q, m + n), pooled))


@theorem(Source(PAPER, "ours"), r"\text{shrinking wins} \iff n < \frac{1+s}{1-s}\frac{1-\|q\|^2}{\|q-1/K\|^2}",
         claim="C13", q=Simplex("V"), s=Unit(), n=Positive())  # fmt: skip
def shrinking_wins_below_a_sample_size(q, s, n):
    """A frequency shrunk by s towards uniform, as early stopping does, beats the raw one exactly if n is small."""
    count = dot(1 + 0 * q, 1 + 0 * q)
    spread = dot(q - 1 / count, q - 1 / count)
    raw = utility.frequency_error(q, n)
    shrunk = s**2 * raw + (1 - s) ** 2 * spread
    return SameSign(raw - shrunk, (1 + s) * (1 - dot(q, q)) - n * (1 - s) * spread, factor=(1 - s) / n)


@theorem(Source(PAPER, "P4 without its condition"), r"E\|\hat q - q\|^2 \le E\|P_T - q\|^2", claim="C13",
         expect="refuted",
         instead=["shrinking_wins_below_a_sample_size"], q=Simplex("V"), s=Unit(), n=Positive())  # fmt: skip
def inversion_never_hurts(q, s, n):
    """Inverting a run never gives a worse law than a shrunk one: false, it undoes the shrinking that helps."""
    count = dot(1 + 0 * q, 1 + 0 * q)
    raw = utility.frequency_error(q, n)
    return NonNegative(s**2 * raw + (1 - s) ** 2 * dot(q - 1 / count, q - 1 / count) - raw)
