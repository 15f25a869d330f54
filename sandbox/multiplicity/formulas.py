"""What is known in closed form, in the words of ``sandbox.algebra``: arrays and symbols alike.

x (n, d) are the examples, the intercept a column of ones; y (n,) their labels, 1 or 0 (or shares of ones); w (d,) the
coefficients; t = x @ w the logits, sigmoid(t) the risks. A loss is the mean over examples, in nats; with labels
s = 2y - 1 it is the mean of log(1 + exp(-s t)). epsilon is how much worse than the best a model may be, absolute.
"""

from __future__ import annotations

from typing import Any

from sandbox.algebra import (
    dot,
    exp_excess,
    log,
    log_sigmoid,
    log_softmax,
    mean,
    sigmoid,
    softplus,
    sqrt,
    total,
)

__all__ = [
    "bernoulli_kl",
    "half_width",
    "kl_at_least",
    "loss",
    "pinsker_cost",
    "second_order_end",
    "softmax_loss",
    "universal_bound",
]


def loss(w: Any, x: Any, y: Any, ridge: Any = 0) -> Any:
    """Mean logistic loss of coefficients w, nats, plus ridge / 2 times |w|^2 (the intercept is shrunk, too)."""
    t = x @ w
    return mean(softplus(t) - y * t) + ridge / 2 * dot(w, w)


def softmax_loss(w: Any, x: Any, y: Any, ridge: Any = 0) -> Any:
    """Mean cross-entropy of logits x @ w, nats; w (d, C), y (n, C) laws, or one-hot. The same ridge."""
    return -mean(total(y * log_softmax(x @ w))) + ridge / 2 * total(total(w * w))


def bernoulli_kl(t0: Any, t: Any) -> Any:
    """KL(sigmoid(t0) || sigmoid(t)) in nats, elementwise: how much a risk may move, in the currency of the loss."""
    return sigmoid(t0) * (log_sigmoid(t0) - log_sigmoid(t)) + sigmoid(-t0) * (log_sigmoid(-t0) - log_sigmoid(-t))


def pinsker_cost(p: Any, q: Any) -> Any:
    """KL of two Bernoulli laws given by their probabilities, in nats."""
    return p * (log(p) - log(q)) + (1 - p) * (log(1 - p) - log(1 - q))


def kl_at_least(t0: Any, step: Any) -> Any:
    """At most bernoulli_kl(t0, t0 + step) and bernoulli_kl(-t0, -t0 - step), for step >= 0: p (1 - p) (e^-s - 1 + s).

    Unlike the quadratic model it holds however large the step.
    """
    return sigmoid(t0) * sigmoid(-t0) * exp_excess(-step)


def half_width(epsilon: Any, s: Any) -> Any:
    """Half the width of a viable range, in logits, to first order in sqrt(epsilon).

    s = x_i^T H^-1 x_i, H the Hessian of the loss at the baseline.
    """
    return sqrt(2 * epsilon * s)


def second_order_end(epsilon: Any, s: Any, kappa: Any, sign: Any = 1) -> Any:
    """Upper end (lower, with sign -1) of a range, logits from the baseline's, to first order in epsilon.

    kappa: the third derivative of the loss along H^-1 x_i / s.
    """
    return sign * half_width(epsilon, s) - kappa * s**2 * epsilon / 3


def universal_bound(epsilon: Any, delta: Any) -> Any:
    """No single model of the level set moves more than this share of the risks by delta or more (by Pinsker)."""
    return epsilon / (2 * delta**2)
