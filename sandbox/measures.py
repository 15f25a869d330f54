"""What is measured on a policy: margins and rewards, how the gradients of a pair meet, entropies; all in nats.

Notation: g_w and g_l are the gradients of the log-probabilities of the chosen and of the rejected response, d_w and d_l
the margin weights of the loss, so that a step moves the parameters along d_w g_w - d_l g_l.
Formulas are written in the words of ``sandbox.algebra`` and apply to one pair or to an array of pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from sandbox.algebra import dot, exp, sqrt, total
from sandbox.losses import PairLogProbs
from sandbox.validate import finite, known, require

__all__ = [
    "Case", "GradientProducts", "case", "ches", "ches_of_sums", "decay_exponent", "displacement", "entropy",
    "fall_from_peak", "first_order_changes", "first_order_fall", "gradient_products", "gradients", "implicit_reward",
    "kappa", "log_kl", "margin", "rise_to_peak", "safe_interval", "suppression_share",
]  # fmt: skip


# -- rewards and margins ---------------------------------------------------------------------------------------------


def implicit_reward(log_prob: Any, reference: Any, *, beta: Any) -> Any:
    """beta (log pi(y) - log pi_ref(y)), the reward that a policy implies. Rafailov et al. 2023, arXiv:2305.18290."""
    return beta * (log_prob - reference)


def margin(pair: PairLogProbs) -> Any:
    """By how much the policy prefers the chosen response more than its reference does: h = r_w - r_l, in nats."""
    return (pair.chosen - pair.ref_chosen) - (pair.rejected - pair.ref_rejected)


def displacement(before: Any, after: Any) -> Any:
    """Change of a log-probability. Likelihood displacement: that of the chosen response is negative."""
    return after - before


# -- what a run did to a pair ----------------------------------------------------------------------------------------


def suppression_share(change_chosen: Any, change_rejected: Any) -> Any:
    """Share of the margin gained by lowering the rejected: -dB / (dA - dB), of changes of log-probabilities in nats.

    Above 1/2 the rejected moves more than the chosen, above 1 the chosen falls, below 0 the rejected rises.
    """
    return -change_rejected / (change_chosen - change_rejected)


def decay_exponent(times: Any, log_prob: Any, decades: float = 1) -> Array:
    """The exponent a of a fall like t^-a: minus the fitted slope of ``log_prob`` (T, ...) against log times (T,).

    Over the last ``decades`` of time. Raises ValueError unless times increase and at least 3 of them, > 0, lie there.
    """
    times = np.asarray(times, float)
    if times.ndim != 1 or np.any(np.diff(times) <= 0):
        raise ValueError(f"times: shape {times.shape}: must be one axis, increasing")
    late = (times > 0) & (times >= times[-1] * 10.0**-decades * (1 - 1e-9))
    if late.sum() < 3:
        raise ValueError(f"times: {late.sum()} in the last {decades:g} decades: must be at least 3")
    u = np.log(times[late])
    u = u - u.mean()
    return -jnp.tensordot(u / np.sum(u**2), jnp.asarray(log_prob)[late], axes=1)


def fall_from_peak(log_prob: Any) -> Array:
    """How far the last of ``log_prob`` (T, ...) lies below the highest so far, >= 0, in nats."""
    log_prob = jnp.asarray(log_prob)
    return jnp.max(log_prob, axis=0) - log_prob[-1]


def rise_to_peak(log_prob: Any) -> Array:
    """How far the highest of ``log_prob`` (T, ...) lies above the first, >= 0, in nats."""
    log_prob = jnp.asarray(log_prob)
    return jnp.max(log_prob, axis=0) - log_prob[0]


# -- how the gradients of a pair meet --------------------------------------------------------------------------------


class GradientProducts(NamedTuple):
    """|g_w|, |g_l| and <g_w, g_l>; ``cosine`` is theirs, NaN where a gradient vanishes."""

    norm_chosen: Any
    norm_rejected: Any
    inner: Any

    @property
    def cosine(self) -> Any:
        """<g_w, g_l> / (|g_w| |g_l|)."""
        return self.inner / (self.norm_chosen * self.norm_rejected)


def gradients(log_prob: Callable[[Any, Any], Array], params: Any, responses: Any) -> Array:
    """Gradients (N, P) of ``log_prob(params, response)`` with respect to all P parameters, by autodiff.

    ``responses`` is an array or a tree of arrays with a leading axis N.
    """
    one = jax.grad(log_prob)
    return jax.vmap(lambda response: ravel_pytree(one(params, response))[0])(responses)


def gradient_products(chosen: Any, rejected: Any) -> GradientProducts:
    """Norms and inner product of gradients (..., P), pair by pair."""
    return GradientProducts(sqrt(dot(chosen, chosen)), sqrt(dot(rejected, rejected)), dot(chosen, rejected))


def kappa(d_w: Any, d_l: Any, norm_w: Any, norm_l: Any) -> Any:
    """d_w |g_w| / (d_l |g_l|), how much harder a step pushes the chosen than the rejected; infinite for d_l = 0."""
    return d_w * norm_w / (d_l * norm_l)


def first_order_changes(d_w: Any, d_l: Any, norm_w: Any, norm_l: Any, inner: Any) -> tuple[Any, Any]:
    """Rates at which a step along d_w g_w - d_l g_l changes the log-probabilities of the chosen and of the rejected.

    d_w |g_w|^2 - d_l <g_w, g_l> and d_w <g_w, g_l> - d_l |g_l|^2; times the learning rate, up to terms of its square.
    Yuan et al. 2024, arXiv:2410.13828, Eqs. 4-5.
    """
    return d_w * norm_w**2 - d_l * inner, d_w * inner - d_l * norm_l**2


def safe_interval(norm_w: Any, norm_l: Any, inner: Any) -> tuple[Array, Array]:
    """The open interval of d_w / d_l in which, to first order, the chosen rises and the rejected falls.

    It is (<g_w, g_l> / |g_w|^2, |g_l|^2 / <g_w, g_l>); with an inner product <= 0 every ratio will do: (0, inf).
    """
    inner, entangled = jnp.asarray(inner), jnp.asarray(inner) > 0
    highest = norm_l**2 / jnp.where(entangled, inner, 1)
    return jnp.where(entangled, inner / norm_w**2, 0), jnp.where(entangled, highest, jnp.inf)


class Case(IntEnum):
    """What a small step does to a pair; numbers as in Yuan et al. 2024, arXiv:2410.13828, Table 1."""

    UNDEFINED = 0
    """A gradient vanishes, kappa is not positive, or equal pushes on parallel gradients cancel: nothing moves."""
    IDEAL = 1
    """The chosen rises and the rejected falls."""
    BOTH_FALL = 2
    BOTH_RISE = 3


def case(kappa: Any, cosine: Any) -> Array:
    """The ``Case`` of each pair, an integer: both fall if kappa <= cosine, both rise if 1 / kappa <= cosine.

    Equality counts as entangled: one of the two stays unmoved to first order. Where both weights are negative, the loss
    is past its target and all moves are reversed: kappa cannot tell.
    """
    kappa, cosine = jnp.asarray(kappa), jnp.asarray(cosine)
    fall, rise = kappa <= cosine, kappa * cosine >= 1
    defined = (kappa > 0) & ~jnp.isnan(cosine) & ~(fall & rise)
    # at kappa = inf the product is NaN for a cosine of 0, where the chosen rises and the rejected stays
    rise = rise | (jnp.isinf(kappa) & (cosine >= 0))
    entangled = jnp.where(fall, Case.BOTH_FALL, jnp.where(rise, Case.BOTH_RISE, Case.IDEAL))
    return jnp.where(defined, entangled, Case.UNDEFINED)


def ches_of_sums(chosen: Any, rejected: Any) -> Any:
    """Centred hidden embedding similarity <S_w, S_l> - |S_w|^2 of the sums S (..., d) of a response's hidden vectors.

    Each sum runs over the positions that predict the response's tokens. Of the means in place of the sums it is the
    length-normalised score. Razin et al. 2024, arXiv:2410.08847, Def. 2.
    """
    return dot(chosen, rejected - chosen)  # in this form equal sums give 0, not the rounding of two large squares


def ches(
    chosen_hidden: Any,
    rejected_hidden: Any,
    chosen_length: Any,
    rejected_length: Any,
    *,
    length_normalised: bool = False,
) -> Array:
    """``ches_of_sums`` (pairs,) of batches of zero-padded hidden states (pairs, tokens, width).

    Row k of a response is the state that predicts its token k: the last position of the prompt comes first, that of the
    response's last token is left out. Lengths (pairs,) are in tokens; rows beyond them do not count, but must be
    finite. ``length_normalised`` takes means over tokens in place of sums. The paddings of the two may differ.

    States are added up in their own precision, at least float32, whose rounding is that of the states themselves; the
    sums meet in the precision in force. Raises ValueError for shapes that do not fit, lengths outside 1 .. tokens, and
    states that are not finite or whose squares overflow.
    """
    given = {"chosen": (chosen_hidden, chosen_length), "rejected": (rejected_hidden, rejected_length)}
    for name, (hidden, length) in given.items():
        _check_states(name, np.shape(hidden), length, np.shape(chosen_hidden))
    scores = _ches(chosen_hidden, rejected_hidden, chosen_length, rejected_length, length_normalised)
    found = known(scores)
    if found is not None and not np.isfinite(found).all():  # looked for only then: it would be a second pass
        for name, (hidden, _) in given.items():
            finite(f"{name}_hidden", hidden)
        finite("ches (of states whose squares overflow)", found)
    return scores


def _check_states(name: str, shape: tuple[int, ...], length: Any, like: tuple[int, ...]) -> None:
    """Raise ValueError unless ``shape`` is one of states beside the shape ``like``, and the lengths fit into it."""
    if len(shape) != 3 or shape[::2] != like[::2] or 0 in shape:
        raise ValueError(
            f"{name}_hidden: shape {shape}: must be (pairs, tokens, width), none of them 0, with as many pairs and the "
            f"same width as chosen_hidden, {like}"
        )
    if np.shape(length) != shape[:1]:
        raise ValueError(f"{name}_length: shape {np.shape(length)}: must be {shape[:1]}, one a pair")
    allowed = f"a whole number from 1 to {shape[1]}, the tokens of {name}_hidden"
    require(f"{name}_length", length, lambda n: (n >= 1) & (n <= shape[1]) & (n == np.floor(n)), allowed)


@partial(jax.jit, static_argnums=4)
def _ches(chosen: Array, rejected: Array, n_w: Array, n_l: Array, length_normalised: bool) -> Array:
    def summed(hidden: Array, length: Array) -> Array:
        dtype = jnp.promote_types(hidden.dtype, jnp.float32)
        kept = (jnp.arange(hidden.shape[1])[None, :] < length[:, None]).astype(hidden.dtype)
        # a product of matrices, which no compiler stores an intermediate of: it runs at the speed of memory
        whole = jnp.einsum("ntd,nt->nd", hidden, kept, preferred_element_type=dtype).astype(jnp.result_type(float))
        return whole / length[:, None] if length_normalised else whole

    return ches_of_sums(summed(chosen, n_w), summed(rejected, n_l))


def first_order_fall(gram: Any) -> Any:
    """<g_w, g_l> - |g_w|^2 of Gram matrices (..., 2, 2) of chosen and rejected, in this order.

    Minus the speed of the chosen's log-probability while both weights are 1: it falls where this is > 0. ``ches`` is
    its stand-in where only hidden states are known, ``sandbox.policies.tied_pair_gram`` has what it needs.
    """
    return gram[..., 0, 1] - gram[..., 0, 0]


# -- of a whole distribution -----------------------------------------------------------------------------------------


def entropy(log_probs: Any) -> Any:
    """Entropy (...) in nats of log-probabilities (..., V), which must be finite."""
    return -total(exp(log_probs) * log_probs)


def log_kl(log_p: Any, log_q: Any) -> Any:
    """KL(p || q) (...) in nats from log-probabilities (..., V), which must be finite."""
    return total(exp(log_p) * (log_p - log_q))
