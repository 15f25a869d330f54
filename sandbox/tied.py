"""One pair of single tokens with logits b + W h, both the unembedding W and the hidden vector h trained.

Written in the words of ``sandbox.algebra``. The clock tau of a margin loss L is d tau = -L' dt, its push added up:
along it every such loss moves the parameters alike. ``kappa`` is the learning rate of h over that of W.
"""

from __future__ import annotations

from typing import Any

from sandbox.algebra import cosh, dot, log, onehot, outer, sinh, sqrt
from sandbox.policies import feature_gram, tabular_gram

__all__ = ["pair_clock", "pair_flow", "pair_logits", "pair_margin", "pair_speed"]


def pair_speed(unembedding: Any, hidden: Any, p: Any, w: Any, l: Any, y: Any, *, kappa: Any = 1) -> Any:
    """d log p_y / d tau of token y, in nats, while the pair (w, l) is trained; p = softmax(b + W h)."""
    apart = tabular_gram(p, y, w) - tabular_gram(p, y, l)
    aligned = feature_gram(unembedding, p, y, w) - feature_gram(unembedding, p, y, l)
    return apart * dot(hidden, hidden) + kappa * aligned


def pair_flow(hidden: Any, gap: Any, clock: Any, *, kappa: Any = 1) -> tuple[Any, Any]:
    """h (d,) and W_w - W_l (d,) at the clock tau, from ``hidden`` and ``gap``: h' = kappa gap, gap' = 2 h.

    Of floats: the clock must stay below 88 / sqrt(2 kappa) in float32, 700 / sqrt(2 kappa) in float64.
    """
    omega = sqrt(2 * kappa)
    c, s = cosh(omega * clock), sinh(omega * clock)
    return hidden * c + gap * (kappa * s / omega), gap * c + hidden * (2 * s / omega)


def pair_margin(hidden: Any, gap: Any, clock: Any, *, kappa: Any = 1) -> Any:
    """<h, W_w - W_l> at the clock: the log-odds of the pair without their bias."""
    omega = 2 * sqrt(2 * kappa)
    driven = kappa * dot(gap, gap) + 2 * dot(hidden, hidden)
    return dot(hidden, gap) * cosh(omega * clock) + driven * (sinh(omega * clock) / omega)


def pair_clock(hidden: Any, gap: Any, margin: Any, *, kappa: Any = 1) -> Any:
    """The clock at which ``pair_margin`` is ``margin``, not below that at 0: the inverse, for gap or hidden not 0."""
    omega = 2 * sqrt(2 * kappa)
    start, driven = dot(hidden, gap), (kappa * dot(gap, gap) + 2 * dot(hidden, hidden)) / omega
    # e^(omega tau) is the larger root of (start + driven) x^2 - 2 margin x + (start - driven) = 0
    return log((margin + sqrt(margin**2 + driven**2 - start**2)) / (start + driven)) / omega


def pair_logits(unembedding: Any, hidden: Any, bias: Any, w: Any, l: Any, clock: Any, *, kappa: Any = 1) -> Any:
    """The logits (V,) at the clock: W_w and W_l have moved by half of what their difference has gained, and apart."""
    gap = unembedding[w] - unembedding[l]
    h, now = pair_flow(hidden, gap, clock, kappa=kappa)
    moved = outer(onehot(w, bias) - onehot(l, bias), (now - gap) / 2)
    return bias + (unembedding + moved) @ h
