"""Every preference loss, once: the function that trains is the function that is differentiated, proved and drawn.

Notation, for a prompt with a chosen response y_w and a rejected response y_l (natural logarithms, nats):

    A, B      = log pi(y_w), log pi(y_l)    sums over the tokens of each response, its end token included
    n_w, n_l                                their lengths in tokens
    r_w, r_l  = A - A_ref, B - B_ref        log-ratios to the reference policy; beta r is the implicit reward
    h         = r_w - r_l                   the margin
    d_w, d_l  = -dl/dA, +dl/dB              the margin weights, >= 0 for a loss that pushes the usual way

A loss is ``loss(pair, *, constants)``: one number a pair, elementwise over any batch shape. A batch loss is its mean.
``reduction="sum"`` reads log pi as a sum over tokens, ``"mean"`` as a mean over tokens; the default is the paper's.
A constant may be a number, an array that broadcasts against the batch, a traced value or a symbol. Each docstring gives
the equation, its source, the range and default of each constant, and the weights where they tell losses apart.

Values and derivatives are finite and right for margins of +-1e4 nats, in float32 too. ValueError, from every loss: a
constant out of its range, a log-probability that is not finite, a length that is not positive, a field of the pair that
the loss needs and did not get, fields whose shapes do not fit. Traced values and symbols are not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple, TypeVar, cast

from sandbox.algebra import exp, log, log1mexp, log_sigmoid, relu, sigmoid, softplus, velocity
from sandbox.validate import broadcastable, finite, in_range, negative, nonnegative, one_of, positive

__all__ = ["LOSSES", "PairLogProbs", "margin_weights", "response_pair"]  # and every loss, below

Loss = TypeVar("Loss", bound=Callable[..., Any])
LOSSES: dict[str, Callable[..., Any]] = {}


class PairLogProbs(NamedTuple):
    """What a loss may know of a pair: log-probabilities summed over tokens, in nats, and lengths in tokens.

    A field is a scalar or an array; arrays have the same number of axes and broadcast. A loss without a reference
    policy ignores ``ref_*``, a loss of token sums ignores the lengths: these may stay None, and a loss that needs them
    says so. For the reference-free reading of a loss that has a reference, pass zeros.
    """

    chosen: Any
    rejected: Any
    ref_chosen: Any = None
    ref_rejected: Any = None
    chosen_length: Any = None
    rejected_length: Any = None


def response_pair(log_probs: Any, reference: Any, w: Any, l: Any) -> PairLogProbs:
    """The pair of the responses ``w`` and ``l`` of a set: ``log_probs`` and ``reference`` (V,), in nats."""
    return PairLogProbs(log_probs[w], log_probs[l], reference[w], reference[l])


def margin_weights(loss: Callable[[PairLogProbs], Any], pair: PairLogProbs) -> tuple[Any, Any]:
    """(d_w, d_l) = (-dl/dA, +dl/dB) of each pair: how hard a descent step pushes the chosen up and the rejected down.

    ``loss`` is an elementwise function of the pair alone, as ``functools.partial(dpo, beta=0.3)``. The derivative of a
    hinge at its kink is 0. A and B are token sums: a loss of token means has its 1/n in the weight.
    """

    def slope(field: str) -> Any:
        start = getattr(pair, field)
        return velocity(lambda shift: loss(pair._replace(**{field: start + shift})))(0)

    return -slope("chosen"), slope("rejected")


# -- what the losses share -----------------------------------------------------------------------------------------

_PAIR_CHECKS = (finite, finite, finite, finite, positive, positive)  # of the fields, in their order
_reduction = partial(one_of, allowed=("sum", "mean"))
_flip_rate = partial(in_range, low=0, high=0.5, ends="[)")


def _loss(**ranges: Callable[[str, Any], Any]) -> Callable[[Loss], Loss]:
    """Enter a formula into LOSSES, with a check of the pair and of each constant where their values are known."""

    def enter(formula: Loss) -> Loss:
        @wraps(formula)
        def loss(pair: PairLogProbs, **constants: Any) -> Any:
            broadcastable("pair", pair._asdict())
            for field, x, check in zip(pair._fields, pair, _PAIR_CHECKS, strict=True):
                check(f"pair.{field}", x)
            for name, in_its_range in ranges.items():
                if name in constants:
                    in_its_range(name, constants[name])
            return formula(pair, **constants)

        LOSSES[formula.__name__] = loss
        return cast(Loss, loss)

    return enter


def _given(pair: PairLogProbs, field: str) -> Any:
    """That field of the pair; ValueError if it was left out."""
    if getattr(pair, field) is None:
        raise ValueError(f"pair.{field} = None: must be given, this loss needs it")
    return getattr(pair, field)


def _lengths(pair: PairLogProbs) -> tuple[Any, Any]:
    """(n_w, n_l)."""
    return _given(pair, "chosen_length"), _given(pair, "rejected_length")


def _means(pair: PairLogProbs) -> tuple[Any, Any]:
    """(A / n_w, B / n_l), log-probabilities per token."""
    n_w, n_l = _lengths(pair)
    return pair.chosen / n_w, pair.rejected / n_l


def _ratios(pair: PairLogProbs, reduction: str = "sum") -> tuple[Any, Any]:
    """(r_w, r_l), per token if ``reduction`` is "mean"."""
    r_w, r_l = pair.chosen - _given(pair, "ref_chosen"), pair.rejected - _given(pair, "ref_rejected")
    return _means(pair._replace(chosen=r_w, rejected=r_l)) if reduction == "mean" else (r_w, r_l)


def _margin(pair: PairLogProbs, reduction: str = "sum") -> Any:
    """h, or r_w / n_w - r_l / n_l if ``reduction`` is "mean"."""
    r_w, r_l = _ratios(pair, reduction)
    return r_w - r_l


# -- DPO and its kin: functions of the margin ----------------------------------------------------------------------


@_loss(beta=positive, reduction=_reduction)
def dpo(pair: PairLogProbs, *, beta: Any = 0.1, reduction: str = "sum") -> Any:
    """DPO: -log sigmoid(beta h).

    Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. ``beta`` > 0, 0.1 as there. ``reduction="mean"`` is a later variant.
    d_w = d_l = beta sigmoid(-beta h): beta at h -> -inf, 0 at h -> +inf.
    """
    return softplus(-beta * _margin(pair, reduction))


@_loss(beta=positive, alpha=nonnegative)
def rdpo(pair: PairLogProbs, *, beta: Any = 0.1, alpha: Any = 0.01) -> Any:
    """R-DPO: -log sigmoid(beta h + alpha (n_w - n_l)).

    Park et al. 2024, arXiv:2403.19159. ``beta`` > 0, 0.1 (DPO's); ``alpha`` >= 0 in nats per token, 0.01 (in use: 0.005
    to 0.05). Length explains part of a longer chosen response, so that it gets less weight. Some later papers print the
    opposite sign: that one seeks length.
    """
    n_w, n_l = _lengths(pair)
    return softplus(-(beta * _margin(pair) + (alpha * n_w - alpha * n_l)))  # n_w - n_l would wrap in unsigned integers


@_loss(beta=positive, epsilon=_flip_rate)
def cdpo(pair: PairLogProbs, *, beta: Any = 0.1, epsilon: Any = 0.1) -> Any:
    """Conservative DPO: -(1 - epsilon) log sigmoid(beta h) - epsilon log sigmoid(-beta h).

    Mitchell 2023, a note on DPO with noisy preferences. ``beta`` > 0, 0.1 (DPO's); ``epsilon`` in [0, 1/2), 0.1, the
    share of flipped labels. d_w = d_l = beta (sigmoid(-beta h) - epsilon): 0 at beta h = log((1 - epsilon) / epsilon),
    negative beyond.
    """
    u = beta * _margin(pair)
    return (1 - epsilon) * softplus(-u) + epsilon * softplus(u)


@_loss(beta=positive, epsilon=_flip_rate)
def robust_dpo(pair: PairLogProbs, *, beta: Any = 0.1, epsilon: Any = 0.1) -> Any:
    """Robust DPO: [-(1 - epsilon) log sigmoid(beta h) + epsilon log sigmoid(-beta h)] / (1 - 2 epsilon).

    Chowdhury et al. 2024, arXiv:2403.00409, Sec. 3.1. ``beta`` > 0, 0.1 (DPO's); ``epsilon`` in [0, 1/2), 0.1 as there,
    the share of flipped labels. Its mean over flips is the DPO loss, but on one pair it has no lower bound: the weights
    tend to epsilon beta / (1 - 2 epsilon) at h -> +inf.
    """
    u = beta * _margin(pair)
    return ((1 - epsilon) * softplus(-u) - epsilon * softplus(u)) / (1 - 2 * epsilon)


@_loss(tau=positive, reduction=_reduction)
def ipo(pair: PairLogProbs, *, tau: Any = 0.1, reduction: str = "sum") -> Any:
    """IPO: (h - 1 / (2 tau))^2.

    Azar et al. 2023, arXiv:2310.12036, Eq. 17, in token sums; TRL takes ``reduction="mean"``. ``tau`` > 0 per nat, 0.1.
    d_w = d_l = 1 / tau - 2 h: 0 at h = 1 / (2 tau), negative beyond, unbounded on both sides.
    """
    return (_margin(pair, reduction) - 1 / (2 * tau)) ** 2


@_loss(beta=positive)
def hinge(pair: PairLogProbs, *, beta: Any = 0.1) -> Any:
    """Hinge on implicit rewards: max(0, 1 - beta h).

    Liu et al. 2023 (RSO), arXiv:2309.06657: SLiC's hinge with a reference policy. ``beta`` > 0, 0.1 (DPO's).
    d_w = d_l = beta up to the margin h = 1 / beta, 0 from there.
    """
    return relu(1 - beta * _margin(pair))


@_loss(beta=positive, epsilon=partial(in_range, low=0, high=0.5, ends="()"))
def exo(pair: PairLogProbs, *, beta: Any = 0.1, epsilon: Any = 0.001) -> Any:
    """EXO on a pair: KL((q, 1 - q) || (1 - epsilon, epsilon)) with q = sigmoid(beta h).

    Ji et al. 2024, arXiv:2402.00856, Eq. 16. ``beta`` > 0, 0.1, and ``epsilon`` in (0, 1/2), 0.001, both as there.
    The weights are 0 where cDPO's are, and fade at both ends: a pair that is badly wrong gets no gradient.
    """
    u = beta * _margin(pair)
    return sigmoid(u) * (log_sigmoid(u) - log(1 - epsilon)) + sigmoid(-u) * (log_sigmoid(-u) - log(epsilon))


@_loss(beta=positive, tau=positive)
def discopop(pair: PairLogProbs, *, beta: Any = 0.05, tau: Any = 0.05) -> Any:
    """DiscoPOP: (1 - M) log(1 + e^-u) + M e^-u with u = beta h and M = sigmoid(u / tau).

    Lu et al. 2024, arXiv:2406.08414, Eq. 5. ``beta`` > 0, 0.05, and ``tau`` > 0, 0.05, both as there. Not monotone: at
    that tau it has a minimum at u = -0.118570 and a maximum at u = 0.072006. At u -> -inf it is linear for tau <= 1 and
    e^(-u (1 - 1 / tau)) for tau > 1.
    """
    u = beta * _margin(pair)
    return sigmoid(-u / tau) * softplus(-u) + exp(log_sigmoid(u / tau) - u)


@_loss(beta=positive, alpha=nonnegative, sft_reduction=_reduction)
def dpo_sft(pair: PairLogProbs, *, beta: Any = 0.1, alpha: Any = 1, sft_reduction: str = "mean") -> Any:
    """DPO + SFT: -log sigmoid(beta h) - alpha A / n_w, or with ``sft_reduction="sum"`` - alpha A.

    Pang et al. 2024 (Iterative RPO), arXiv:2404.19733; in sums Liu et al. 2024 (RPO), arXiv:2405.16436. ``beta`` > 0,
    0.1; ``alpha`` >= 0, 1 (the second paper: 0.005 at beta = 0.01).
    d_w = d_l + alpha / n_w (d_l + alpha): the chosen is pushed for ever.
    """
    n_w = _given(pair, "chosen_length") if sft_reduction == "mean" else 1
    return softplus(-beta * _margin(pair)) - alpha * pair.chosen / n_w


# -- with a reference, chosen and rejected apart -------------------------------------------------------------------


@_loss(beta=positive, lam=nonnegative)
def dpop(pair: PairLogProbs, *, beta: Any = 0.3, lam: Any = 5) -> Any:
    """DPO-Positive: -log sigmoid(beta (h - lam max(0, -r_w))).

    Pal et al. 2024 (Smaug), arXiv:2402.13228. ``beta`` > 0, 0.3; ``lam`` >= 0, 5 (in use: 5 to 50).
    d_w = (1 + lam) d_l while the chosen is below its reference, d_l otherwise.
    """
    r_w, r_l = _ratios(pair)
    return softplus(-beta * (r_w - r_l - lam * relu(-r_w)))


@_loss(beta_chosen=positive, beta_rejected=positive)
def flex_dpo(pair: PairLogProbs, *, beta_chosen: Any = 0.1, beta_rejected: Any = 0.1) -> Any:
    """Flex-DPO: -log sigmoid(beta_chosen r_w - beta_rejected r_l).

    Yan et al. 2024 (3D-Properties), arXiv:2406.07327. Both constants > 0, 0.1, which is DPO.
    d_w / d_l = beta_chosen / beta_rejected on every pair.
    """
    r_w, r_l = _ratios(pair)
    return softplus(-(beta_chosen * r_w - beta_rejected * r_l))


@_loss(beta=positive, z0=nonnegative, desirable_weight=nonnegative, undesirable_weight=nonnegative)
def kto(
    pair: PairLogProbs, *, beta: Any = 0.1, z0: Any = 0, desirable_weight: Any = 1, undesirable_weight: Any = 1
) -> Any:
    """KTO: desirable_weight sigmoid(-beta (r_w - z0)) + undesirable_weight sigmoid(beta (r_l - z0)).

    Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 7, summed over a chosen and a rejected example (half of it is their
    mean). ``beta`` > 0, 0.1, and both weights >= 0, 1, as there; ``z0`` >= 0 in nats, 0: the KL to the reference, which
    the caller estimates and detaches. A weight peaks at r = z0, beta / 4, and fades both ways.
    """
    r_w, r_l = _ratios(pair)
    return desirable_weight * sigmoid(-beta * (r_w - z0)) + undesirable_weight * sigmoid(beta * (r_l - z0))


@_loss(eta=positive)
def sppo(pair: PairLogProbs, *, eta: Any = 1000) -> Any:
    """SPPO with certain preferences: (r_w - eta / 2)^2 + (r_l + eta / 2)^2.

    Wu et al. 2024, arXiv:2405.00675, Eq. 4.7. ``eta`` > 0 in nats, 1000 as there; the reference is the previous
    iterate. d_w = eta - 2 r_w, d_l = eta + 2 r_l: each response has its own target and is pulled back beyond it.
    """
    r_w, r_l = _ratios(pair)
    return (r_w - eta / 2) ** 2 + (r_l + eta / 2) ** 2


@_loss(beta=positive)
def nca(pair: PairLogProbs, *, beta: Any = 0.01) -> Any:
    """NCA on a pair: -log sigmoid(u_w) - [log sigmoid(-u_w) + log sigmoid(-u_l)] / 2 with u = beta r.

    Chen et al. 2024, arXiv:2402.05369, Sec. 4.1. ``beta`` > 0, 0.01 as there (its alpha).
    d_w is negative beyond u_w = log 2: the chosen has a target.
    """
    r_w, r_l = _ratios(pair)
    return softplus(-beta * r_w) + (softplus(beta * r_w) + softplus(beta * r_l)) / 2


@_loss(beta=positive)
def bco(pair: PairLogProbs, *, beta: Any = 0.01) -> Any:
    """BCO on a pair, without its running mean of rewards: -log sigmoid(beta r_w) - log sigmoid(-beta r_l).

    Jung et al. 2024, arXiv:2404.04656, Sec. 4. ``beta`` > 0, 0.01 as there.
    d_w = beta sigmoid(-beta r_w), d_l = beta sigmoid(beta r_l): each response is classified alone.
    """
    r_w, r_l = _ratios(pair)
    return softplus(-beta * r_w) + softplus(beta * r_l)


@_loss(beta=positive)
def apo_zero(pair: PairLogProbs, *, beta: Any = 0.1) -> Any:
    """APO-zero, chosen up and rejected down: sigmoid(-beta r_w) + sigmoid(beta r_l).

    D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7. ``beta`` > 0, 0.1 as there. It is KTO at z0 = 0.
    """
    r_w, r_l = _ratios(pair)
    return sigmoid(-beta * r_w) + sigmoid(beta * r_l)


@_loss(beta=positive)
def apo_down(pair: PairLogProbs, *, beta: Any = 0.1) -> Any:
    """APO-down, chosen down and rejected further down: sigmoid(beta r_w) + sigmoid(-beta h).

    D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 8. ``beta`` > 0, 0.1 as there.
    d_w / beta = s(beta h) - s(beta r_w) with s(x) = sigmoid(x) sigmoid(-x): negative while |r_w| < |h|.
    """
    r_w, r_l = _ratios(pair)
    return sigmoid(beta * r_w) + sigmoid(-beta * (r_w - r_l))


# -- without a reference -------------------------------------------------------------------------------------------


@_loss(delta=nonnegative, lam=nonnegative)
def slic_hf(pair: PairLogProbs, *, delta: Any = 1, lam: Any = 0.5) -> Any:
    """SLiC-HF: max(0, delta - A + B) - lam A.

    Zhao et al. 2023, arXiv:2305.10425, Sec. 2. ``delta`` >= 0 in nats, 1; ``lam`` >= 0, 0.5 (in use: 0.1 to 1).
    d_w = d_l + lam; d_l = 1 up to A - B = delta, 0 from there.
    """
    return relu(delta - pair.chosen + pair.rejected) - lam * pair.chosen


@_loss(lam=nonnegative)
def rrhf(pair: PairLogProbs, *, lam: Any = 1) -> Any:
    """RRHF on a pair: max(0, B / n_l - A / n_w) - lam A.

    Yuan et al. 2023, arXiv:2304.05302. ``lam`` >= 0, 1 as there, weighs a token sum. It asks for no margin: once
    A / n_w >= B / n_l, d_w = lam and d_l = 0.
    """
    a, b = _means(pair)
    return relu(b - a) - lam * pair.chosen


@_loss(beta=positive, gamma=nonnegative)
def simpo(pair: PairLogProbs, *, beta: Any = 2.5, gamma: Any = 1.375) -> Any:
    """SimPO: -log sigmoid(beta A / n_w - beta B / n_l - gamma).

    Meng et al. 2024, arXiv:2405.14734, Eq. 6. ``beta`` > 0, 2.5, and ``gamma`` >= 0 in nats, 1.375, as in its code.
    Mind that gamma stands outside beta. d_w / d_l = n_l / n_w.
    """
    a, b = _means(pair)
    return softplus(-(beta * a - beta * b - gamma))


@_loss(beta=positive, lam=nonnegative)
def cpo(pair: PairLogProbs, *, beta: Any = 0.1, lam: Any = 1) -> Any:
    """CPO: -log sigmoid(beta (A - B)) - lam A.

    Xu et al. 2024, arXiv:2401.08417, Eq. 3. ``beta`` > 0, 0.1, and ``lam`` >= 0, 1, as there. d_w = d_l + lam.
    """
    return softplus(-beta * (pair.chosen - pair.rejected)) - lam * pair.chosen


@_loss(lam=nonnegative)
def orpo(pair: PairLogProbs, *, lam: Any = 0.1) -> Any:
    """ORPO: -a - lam log sigmoid(log odds(e^a) - log odds(e^b)) with a = A / n_w, b = B / n_l.

    Hong et al. 2024, arXiv:2403.07691, Eqs. 6-7. ``lam`` >= 0, 0.1 as there. ValueError unless A, B < 0: the odds of a
    certain response are infinite. d_l has no bound as the rejected becomes certain.
    """
    negative("pair.chosen", pair.chosen)
    negative("pair.rejected", pair.rejected)
    a, b = _means(pair)
    return -a + lam * softplus((b - log1mexp(b)) - (a - log1mexp(a)))


__all__ += list(LOSSES)
