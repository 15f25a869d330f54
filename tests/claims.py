"""Fourteen claims of nine papers that the mechanism must carry, each until its paper's own file states it.

Those of the displacement of likelihoods wait here; the others stand in ``theory``.
"""

from __future__ import annotations

from sandbox.algebra import (
    cosh,
    dot,
    grad,
    log_softmax,
    onehot,
    sinh,
    sqrt,
    velocity,
)
from theory.statement import (
    All,
    Equal,
    Index,
    Real,
    Reals,
    Source,
    theorem,
)

DISPLACEMENT = "razin2024displacement"


# -- likelihood displacement ----------------------------------------------------------------------------------------


@theorem(Source(DISPLACEMENT, "ours"), r"\dot h = W_+ - W_-,\; \dot W_\pm = \pm h", claim="C4",
         W=Reals("V", "d"), h=Reals("d"), w=Index("V"), l=Index("V"), k=Index("V", distinct=False))  # fmt: skip
def forces_on_unembeddings(W, h, w, l, k):
    """The margin of one single-token sample moves only the two rows that it names, by plus and minus h."""

    def margin(W, h):
        return log_softmax(W @ h)[w] - log_softmax(W @ h)[l]

    rows = grad(lambda W: margin(W, h))(W)[k]
    features = grad(lambda h: margin(W, h))(h)
    pull = onehot(w, W @ h)[k] - onehot(l, W @ h)[k]
    return All(Equal(rows, pull * h), Equal(features, W[w] - W[l]))


@theorem(Source(DISPLACEMENT, "ours"), r"M = M_0\cosh 2\sqrt2\tau + \ldots", claim="C4",
         h0=Reals("d"), delta0=Reals("d"), tau=Real())  # fmt: skip
def closed_form_flow(h0, delta0, tau):
    """The coupled flow of features and unembedding difference solves h' = delta, delta' = 2h; the margin follows."""
    omega = sqrt(2 + 0 * tau)

    def h(t):
        return h0 * cosh(omega * t) + delta0 * (sinh(omega * t) / omega)

    def delta(t):
        return delta0 * cosh(omega * t) + h0 * (2 * sinh(omega * t) / omega)

    grown = dot(h0, delta0) * cosh(2 * omega * tau)
    driven = (dot(delta0, delta0) + 2 * dot(h0, h0)) / (2 * omega) * sinh(2 * omega * tau)
    return All(
        Equal(dot(h(tau), delta(tau)), grown + driven),
        Equal(velocity(h)(tau), delta(tau)),
        Equal(velocity(delta)(tau), 2 * h(tau)),
    )
