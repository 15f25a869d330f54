"""Which response of a pair comes first: how a policy ranks it, what turns the ranking round, and how the optimum ranks.

Notation: m = log pi(y_w) - log pi(y_l), the log-odds of chosen against rejected; c = log ref(y_l) - log ref(y_w), the
reference error, > 0 where the reference ranks the pair wrongly; h = m + c, the margin. A pair is ranked right if
m >= 0; that it is rewarded right, h > 0, is another thing. Everything is in nats.
Formulas are written in the words of ``sandbox.algebra`` and apply to one pair or to an array of pairs.
"""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np

from sandbox.algebra import exp, log, log1mexp, mean, softplus, step
from sandbox.losses import PairLogProbs
from sandbox.measures import margin
from sandbox.validate import finite, nonnegative, one_of, whole

__all__ = [
    "critical_beta", "errors_at_most", "flip_time", "hinge_optimum", "ideal_log_odds", "ipo_flip_time", "ipo_optimum",
    "log_odds", "logit", "loss_to_rank", "majority_agreement", "margin_at_loss", "ranked_right", "ranking_accuracy",
    "reference_error", "reward_accuracy",
]  # fmt: skip


# -- how a policy ranks ----------------------------------------------------------------------------------------------


def log_odds(pair: PairLogProbs, reduction: str = "sum") -> Any:
    """m = log pi(y_w) - log pi(y_l); with ``reduction="mean"`` of log-probabilities per token, which needs lengths."""
    if one_of("reduction", reduction, ("sum", "mean")) == "sum":
        return pair.chosen - pair.rejected
    return pair.chosen / pair.chosen_length - pair.rejected / pair.rejected_length


def reference_error(pair: PairLogProbs) -> Any:
    """c = log ref(y_l) - log ref(y_w): by how many nats the reference prefers the rejected response."""
    return pair.ref_rejected - pair.ref_chosen


def ranked_right(m: Any) -> Any:
    """1 where m >= 0, else 0: a tie counts as right. Chen et al. 2024, arXiv:2405.19534, Def. 2.3."""
    return 1 - step(-m)


def ranking_accuracy(pair: PairLogProbs, reduction: str = "sum") -> Any:
    """Share of pairs (n,) that the policy ranks right, in [0, 1]; per token with ``reduction="mean"``."""
    return mean(ranked_right(log_odds(pair, reduction)))


def reward_accuracy(pair: PairLogProbs) -> Any:
    """Share of pairs (n,) whose implicit reward of the chosen is the larger, h > 0, in [0, 1]."""
    return mean(step(margin(pair)))


# -- what turns a ranking round ----------------------------------------------------------------------------------------


def loss_to_rank(error: Any, *, beta: Any) -> Any:
    """-log sigmoid(beta c): the DPO loss at and below which a pair of reference error c is ranked right.

    Chen et al. 2024, arXiv:2405.19534, Thm 4.1.
    """
    return softplus(-beta * error)


def margin_at_loss(loss: Any, *, beta: Any) -> Any:
    """h = -log(e^L - 1) / beta: the margin of a pair whose DPO loss is L > 0."""
    return -(loss + log1mexp(-loss)) / beta


def flip_time(error: Any, *, beta: Any, kappa: Any = 2, gamma: Any = 1) -> Any:
    """Time at which gradient flow of -log sigmoid(beta (m + gamma c)) on one pair, from the reference, reaches m = 0.

    (e^(gamma beta c) - e^(-(1 - gamma) beta c) + beta c) / (kappa beta^2) for c > 0. ``kappa`` = |grad m|^2, constant,
    2 for a table of logits; ``gamma`` = 1 is DPO, 0 has no reference.
    """
    x = beta * error
    return (exp(gamma * x) - exp((gamma - 1) * x) + x) / (kappa * beta**2)


def ipo_flip_time(error: Any, *, tau: Any, kappa: Any = 2) -> Any:
    """The same for IPO: -log(1 - 2 tau c) / (2 kappa), for 0 < c < 1 / (2 tau); beyond, the ranking never flips."""
    return -log(1 - 2 * tau * error) / (2 * kappa)


def errors_at_most(needed: Any, mean_loss: float) -> int:
    """The largest number of pairs that can be ranked wrongly at a mean loss, from the losses ``needed`` (n,) to rank.

    Each wrong pair has more than the loss that it needs, so that k are wrong only if the k smallest together stay below
    n times the mean. Raises ValueError unless all numbers are finite and >= 0.
    """
    needed = np.sort(np.asarray(nonnegative("needed", finite("needed", np.asarray(needed, float)))))
    nonnegative("mean_loss", mean_loss)
    return int(np.sum(np.cumsum(needed) < needed.size * mean_loss))


# -- how an optimum ranks ----------------------------------------------------------------------------------------------


def logit(probability: Any) -> Any:
    """log(p / (1 - p)), 0 < p < 1."""
    return log(probability / (1 - probability))


def ideal_log_odds(error: Any, alpha: Any, *, beta: Any) -> Any:
    """logit(alpha) / beta - c: log-odds at the optimum of RLHF, or of DPO, where a share alpha prefers the chosen.

    Chen et al. 2024, arXiv:2405.19534, Thm 3.1; of DPO only if the shares follow a Bradley-Terry model.
    """
    return logit(alpha) / beta - error


def critical_beta(error: Any, alpha: Any) -> Any:
    """logit(alpha) / c: the beta below which that optimum ranks a pair of reference error c > 0 right."""
    return logit(alpha) / error


def ipo_optimum(alpha: Any, *, tau: Any) -> Any:
    """(2 alpha - 1) / (2 tau): the margin at the optimum of IPO where a share alpha prefers the chosen."""
    return (2 * alpha - 1) / (2 * tau)


def hinge_optimum(*, beta: Any) -> Any:
    """1 / beta: the margin at the optimum of the hinge on implicit rewards, for every majority."""
    return 1 / beta


def majority_agreement(alpha: Any, raters: int) -> Any:
    """Probability that the majority of raters is on the side of the majority of all, ties dropped.

    Each of them prefers the chosen with probability ``alpha``. Raises ValueError unless there is at least one rater.
    """
    whole("raters", raters)

    def votes(p: Any) -> Any:
        more = range(raters // 2 + 1, raters + 1)
        return sum(comb(raters, k) * p**k * (1 - p) ** (raters - k) for k in more)

    return votes(alpha) / (votes(alpha) + votes(1 - alpha))
