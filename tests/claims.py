"""Fourteen claims of nine papers that the mechanism must carry, each until its paper's own file states it.

Those of squeezing wait here; the others stand in ``theory``.
"""

from __future__ import annotations

from sandbox.algebra import (
    exp,
    grad,
    log_softmax,
    total,
)
from theory.statement import (
    All,
    AtMost,
    Conserved,
    Given,
    Index,
    Positive,
    Reals,
    Source,
    Unit,
    theorem,
)

DYNAMICS = "ren2024dynamics"


# -- learning dynamics ---------------------------------------------------------------------------------------------


@theorem(Source(DYNAMICS, "ours"), r"e^{-z_i} - e^{-z_j} = \text{const}", claim="C5",
         z=Reals("V"), l=Index("V"), i=Index("V"), j=Index("V"))  # fmt: skip
def conserved_by_squeezing(z, l, i, j):
    """Pushing down one response conserves e^-z_i - e^-z_j of any two others, and the sum of all logits."""

    def flow(z):
        return grad(lambda z: -log_softmax(z)[l])(z)

    return All(Conserved(lambda z: exp(-z[i]) - exp(-z[j]), flow, at=z), Conserved(total, flow, at=z))


@theorem(Source(DYNAMICS, "App. E, Claim 4"), r"p_- \downarrow \;\Rightarrow\; \alpha_* \uparrow", claim="C4",
         expect="refuted", r=Unit(), q=Unit(), shrink=Unit(), s=Positive())  # fmt: skip
def rarer_rejected_lifts_the_top_more(r, q, shrink, s):
    """The rarer the rejected response, the more the most likely one gains from pushing it down."""

    def gain(q):
        others = [(1 - q) * r, (1 - q) * (1 - r)]
        spread = sum(p * exp(s * p) for p in others) + q * exp(-s * (1 - q))
        return exp(s * others[0]) / spread

    return Given(r - (1 - r), then=AtMost(gain(q), gain(shrink * q)))
