"""How fast, and at which beta: power laws in time, the control without a rejected response, the worst beta (C10, C11).

With fixed features every ratio of two probabilities is (P_k / P_j) e^(-(s_j - s_k) u / beta), and u is the logarithm of
time to within log 2: hence powers of time, with both constants.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sandbox import losses, tables
from sandbox.algebra import (
    arrays_only,
    exp,
    exp_excess,
    flow_margin,
    grad,
    log,
    log_softmax,
    onehot,
    softmax,
    total,
    velocity,
)
from sandbox.dynamics import flow, log_times
from theory.statement import (
    All,
    AtMost,
    Conserved,
    Grows,
    Index,
    Positive,
    Rate,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Unit,
    Units,
    theorem,
)

PAPER = "yan2024dpo3d"


# -- C10: powers of time -----------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\frac{\pi_k}{\pi_j} \asymp \frac{P_k}{P_j}\,(1 + \beta^2|v|^2 t)^{-(s_j-s_k)/\beta}",
         claim="C10", P=Simplex("V"), s=Reals("V"), j=Index("V"), k=Index("V"), less=Positive(), u=Positive(),
         beta=Positive())  # fmt: skip
def ratios_follow_powers_of_time(P, s, j, k, less, u, beta):
    """A response whose score is lower by ``less`` falls behind like time to the power -less/beta.

    The constant is between 1 and 2^(less/beta). In a table: the rejected to the chosen 1/beta, the unseen 1/(2 beta).
    u is the margin at the time at which 1 + beta^2 |v|^2 t = u + e^u (C6).
    """
    scores = s + (s[j] - less - s[k]) * onehot(k, P)
    after = log_softmax(log(P) + u / beta * scores)
    behind = after[k] - after[j] - log(P[k] / P[j])
    clock = log(u + exp(u))
    return All(
        AtMost(-less / beta * clock, behind, slack=less / beta * log(1 + u * exp(-u))),
        AtMost(
            behind,
            -less / beta * (clock - log(2)),
            slack=less / beta * log(1 + (exp_excess(u) + 1) / (u + exp(u))),
        ),
    )


@theorem(Source(PAPER, "ours"), r"\pi_l \sim t^{-1/\beta},\; \pi_k \sim t^{-1/2\beta}", claim="C10", expect="checked",
         p_w=Positive(), p_l=Positive(), p_o=Positive(), k=Positive())  # fmt: skip
def rates_in_a_table(p_w, p_l, p_o, k):
    """Under DPO's flow on one tabular pair the rejected falls like t^(-1/beta), the unseen like t^(-1/(2 beta)).

    Seen from 1e10 to 1e14, for beta between 1/4 and 1.
    """
    arrays_only("a fitted slope")
    beta = 1 / (1 + 3 * k / (1 + k))
    t = 10.0 ** jnp.linspace(10, 14, 9)
    shift = flow_margin(1 + 2 * beta**2 * t) / (2 * beta)
    rest = jnp.log(jnp.stack([p_w, p_l, p_o]))
    log_probs = jax.nn.log_softmax(rest[None, :] + shift[:, None] * jnp.array([[1.0, -1.0, 0.0]]), axis=-1)
    # within: log corrections to the power of t and the mass still off the chosen, at t of 1e10 to 1e14
    rejected = Rate(t, jnp.exp(log_probs[:, 1]), -1 / beta, within=0.02)
    return All(rejected, Rate(t, jnp.exp(log_probs[:, 2]), -1 / (2 * beta), within=0.02))


@theorem(Source(PAPER, "ours, control"), r"e^{-z_i} - e^{-z_j} = \text{const}", claim="C10",
         z=Reals("V"), w=Index("V"), i=Index("V"), j=Index("V"))  # fmt: skip
def cross_entropy_levels_the_others(z, w, i, j):
    """Cross-entropy on the chosen, the control, conserves e^-z_i - e^-z_j of any two others: they become equal."""
    return Conserved(lambda z: exp(-z[i]) - exp(-z[j]), lambda z: cross_entropy_force(z, w), at=z)


def cross_entropy_force(z, w):
    """The velocity of the logits under gradient flow of -log pi_w."""
    return grad(lambda z: log_softmax(z)[w])(z)


@theorem(Source(PAPER, "ours, control"), r"(K-1)\delta + e^\delta = 1 + Kt,\; \delta = z_w - z_o", claim="C10",
         like=Reals("V"), d=Real(), w=Index("V"), o=Index("V"))  # fmt: skip
def clock_of_cross_entropy(like, d, w, o):
    """From a uniform start, pi_o / pi_w = e^-delta falls like 1 / (K t): exponent 1, the yardstick of "drastic".

    DPO in a table is faster than that exactly for beta < 1, the paper's own condition.
    """
    count = total(1 + 0 * like)

    def clock(z):
        ahead = z[w] - z[o]
        return (count - 1) * ahead + exp(ahead)

    def step(z):
        return cross_entropy_force(z, w)

    return Grows(clock, step, at=d * onehot(w, like), start=0 * like, by=count, begins=1)


# -- C11: the worst beta at a given time -------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\frac{dg}{d\beta} > 0 \iff u < 2", claim="C11", beta=Positive(), t=Positive())
def margin_peaks_at_two(beta, t):
    """At a given time the margin g = u / beta is largest, over beta, where u = 2: beta^2 |v|^2 t = 1 + e^2, g = 2/beta.

    Smaller beta: a slower drop before, a larger exponent after. Stated for a table, |v|^2 = 2.
    """
    u = flow_margin(1 + 2 * beta**2 * t)
    slope = velocity(lambda beta: tables.dpo_margin(t, beta=beta))(beta)
    return SameSign(slope, 2 - u, factor=(exp_excess(u) + u) / (beta**2 * (1 + exp(u))))


# -- C14, C16: late rates of the mends ---------------------------------------------------------------------------------

TIMES = log_times(1e9, 73)
LATE = TIMES > 1e7
BAND = 1 / np.log(1e7)  # a factor log t bends the exponent of t by 1 / log t; other powers have left 1e-3 by then


def late_rates(loss, p, w, l, o, exponents):
    """Rates of the rejected l and of an unseen o late under the flow of ``loss(pair, beta)`` in a table from the law p.

    exponents: for each beta those of l and of o.
    """
    arrays_only("an integrated flow")

    def push(z, beta):
        return tables.force(lambda pair: loss(pair, beta), z, log(p), w, l)

    def states(beta):
        return flow(push, log(p), TIMES, (beta,), log_time=True)

    late = softmax(jax.vmap(states)(jnp.array(list(exponents))))[:, LATE]
    return All(
        *(
            Rate(TIMES[LATE], late[i, :, k], -x, within=BAND)
            for i, pair in enumerate(exponents.values())
            for k, x in zip((l, o), pair, strict=True)
        )
    )


# Laws within a factor of two of uniform: from further off, e^-z keeps differences that t^(1/K) takes long to outgrow.
THREE: dict[str, Any] = dict(x=Units("V"), w=Index("V"), l=Index("V"), o=Index("V"))


def near_uniform(x):
    """A law proportional to 1 + x."""
    return (1 + x) / total(1 + x)


@theorem(Source(PAPER, "Sec. 3.3; the rate ours"), r"\pi_l \sim t^{-\max(1/\beta,1)}, \pi_k \sim t^{-\max(1/2\beta,1)}",
         claim="C16", expect="checked", **THREE, alpha=Unit())  # fmt: skip
def fine_tuning_keeps_the_drop(x, w, l, o, alpha):
    """A fine-tuning term of any weight leaves the rejected its exponent: max(1/beta, 1), and max(1/(2 beta), 1) unseen.

    Integrated at beta = 1/4 and 2, in a table.
    """

    def loss(pair, beta):
        return losses.dpo_sft(pair, beta=beta, alpha=alpha, sft_reduction="sum")

    return late_rates(loss, near_uniform(x), w, l, o, {1 / 4: (4, 2), 2.0: (1, 1)})


@theorem(Source(PAPER, "Sec. 3.3; the rate ours"), r"\pi_l \sim t^{-1/\beta_-},\; \pi_k \sim t^{-1/2\beta_-}",
         claim="C14", expect="checked", **THREE)  # fmt: skip
def smaller_beta_of_the_rejected_ends_in_a_steeper_drop(x, w, l, o):
    """Flex-DPO: while the chosen wins, the rejected falls like t^(-1/beta_rejected): a smaller one ends up steeper.

    Integrated at beta_chosen = 1/2, beta_rejected = 1/4 and 1/2.
    """

    def loss(pair, beta):
        return losses.flex_dpo(pair, beta_chosen=1 / 2, beta_rejected=beta)

    return late_rates(loss, near_uniform(x), w, l, o, {1 / 4: (4, 2), 1 / 2: (2, 1)})
