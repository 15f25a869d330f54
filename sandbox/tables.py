"""One pair of responses in a table: free logits over an enumerated response set, trained on the pair (w, l).

Written in the words of ``sandbox.algebra``: ``logits`` and ``reference`` (V,) are the logits of the policy and of its
reference, ``w`` and ``l`` the indices of the chosen and of the rejected response, ``loss`` any function of a
``PairLogProbs``. Log-probabilities in nats; times are learning rate times steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.algebra import flow_margin, grad, log_softmax, onehot
from sandbox.losses import PairLogProbs, response_pair

__all__ = ["dpo_logits", "dpo_margin", "force", "pair_loss"]


def pair_loss(loss: Callable[[PairLogProbs], Any], logits: Any, reference: Any, w: Any, l: Any) -> Any:
    """The loss of the pair under a table of logits."""
    return loss(response_pair(log_softmax(logits), log_softmax(reference), w, l))


def force(loss: Callable[[PairLogProbs], Any], logits: Any, reference: Any, w: Any, l: Any) -> Any:
    """The velocity (V,) of the logits under gradient flow of that loss."""
    return -grad(lambda z: pair_loss(loss, z, reference, w, l))(logits)


def dpo_margin(time: Any, *, beta: Any, kappa: Any = 2) -> Any:
    """The margin g, in nats, after a time of DPO's gradient flow on one pair: beta g = y(1 + kappa beta^2 t).

    y + e^y = s defines y(s). ``kappa`` is the squared gradient of the log-odds where that is constant: 2 in a table,
    |phi_w - phi_l|^2 with fixed features.
    """
    return flow_margin(1 + kappa * beta**2 * time) / beta


def dpo_logits(reference: Any, w: Any, l: Any, time: Any, *, beta: Any) -> Any:
    """The logits (V,) after that time in a table: half the margin goes up at w, half goes down at l."""
    return reference + dpo_margin(time, beta=beta) / 2 * (onehot(w, reference) - onehot(l, reference))
