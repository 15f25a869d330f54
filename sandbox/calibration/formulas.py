"""What calibration is made of, as formulas in the words of ``sandbox.algebra``: they apply to numbers and to symbols.

p: what is predicted; o: 1 if the event happens, else 0; q: the true probability of the event. An *event* is a sample
and a class. The gap of some events is the mean of p - o over them. Probabilities are in [0, 1], logarithms natural.
"""

from __future__ import annotations

from math import pi
from typing import Any

from sandbox.algebra import dot, exp, log, onehot, outer, relu, softmax, sqrt, total

__all__ = [
    "absolute", "excess", "expected_brier", "expected_nll", "hoeffding_exponent", "left_out_gaps",
    "mixture_probs", "noise_floor", "one_sided_gap", "piecewise", "released_piecewise", "set_error", "window_cumulants",
]  # fmt: skip


def absolute(x: Any) -> Any:
    """The magnitude of x."""
    return relu(x) + relu(-x)


# -- gaps --------------------------------------------------------------------------------------------------------------


def one_sided_gap(p: Any, o: Any) -> Any:
    """p (1 - o) - (1 - p) o: the two sums that the released code of h-calibration forms, one less the other."""
    return p * (1 - o) - (1 - p) * o


def set_error(mass: Any, gap: Any, inside: Any) -> Any:
    """Mean gap over a set of atoms: ``mass`` (A,) > 0, ``gap`` (A,), ``inside`` (A,) the share of each in the set."""
    return dot(mass * inside, gap) / dot(mass, inside)


def excess(gaps: Any, epsilon: Any) -> Any:
    """relu(|gap| - epsilon), elementwise: by how much a gap is larger than what is tolerated, epsilon > 0."""
    return relu(gaps - epsilon) + relu(-gaps - epsilon)


def left_out_gaps(p: Any, q: Any, j: Any) -> Any:
    """E[(p_j - 1{Y = j}) 1{Y != k}], Y ~ q, for each k (K,): the gap of event "class j" without class k's samples.

    p, q: (K,) predicted and true probabilities of one sample. Divided by 1 - q_k it is a mean over those that stay.
    """
    gaps = p[j] - onehot(j, q)  # for each label
    return dot(q, gaps) - q * gaps


# -- the window --------------------------------------------------------------------------------------------------------


def window_cumulants(s: Any, p: Any, q: Any) -> Any:
    """log E e^(s T) of the gap T = mean(p - o) of independent events: its derivatives at s = 0 are T's cumulants.

    p: (M,) predicted, q: (M,) true probabilities of the events.
    """
    t = s / total(1 + 0 * p)
    return total(t * p + log(1 - q + q * exp(-t)))


def hoeffding_exponent(s: Any, t: Any, count: Any) -> Any:
    """s^2 / (8 count) - s t: Chernoff's exponent, s > 0, of Pr(gap - its mean > t) for ``count`` events."""
    return s**2 / (8 * count) - s * t


def noise_floor(variance: Any, count: Any) -> Any:
    """sqrt(2 v / (pi M)): what the mean of |gap| tends to where predictions are right.

    variance: mean of q (1 - q) over the window's events; count: their number M.
    """
    return sqrt(2 * variance / (pi * count))


# -- maps of a log-probability -----------------------------------------------------------------------------------------


def piecewise(z: Any, slopes: Any, width: Any) -> Any:
    """Continuous piecewise linear map h(z), z >= 0, h(0) = 0: slopes (S,) on [0, width), [width, 2 width) ...

    The last slope goes on for ever. ``slopes`` has a known length (no size-free reading).
    """
    last = slopes.shape[-1] - 1
    turns = [slopes[i] - slopes[i - 1] for i in range(1, last + 1)]
    return slopes[0] * z + sum(turn * relu(z - i * width) for i, turn in enumerate(turns, 1))


def released_piecewise(z: Any, slopes: Any, width: Any, segment: int) -> Any:
    """The map of h-calibration's released code on one segment: it goes on from the value v_k, not from the knot.

    v_k = width (s_0 + ... + s_k - 1); the map is v_k + s_(k + 1) (z - v_k) for k width <= z < (k + 1) width.
    """
    v = width * (sum(slopes[i] for i in range(segment + 1)) - 1)
    return v + slopes[segment + 1] * (z - v)


def mixture_probs(log_probs: Any, inverse: Any, weights: Any) -> Any:
    """Probabilities (K,) of a mixture of temperatures: weights (R,) of softmax(a_r log p), ``inverse`` (R,) the a_r."""
    return weights @ softmax(outer(inverse, log_probs))


# -- proper scoring rules ----------------------------------------------------------------------------------------------


def expected_nll(q: Any, log_g: Any) -> Any:
    """E[-log g_Y], Y ~ q, nats; q and log g (..., K)."""
    return -dot(q, log_g)


def expected_brier(q: Any, g: Any) -> Any:
    """E |g - onehot(Y)|^2, Y ~ q; q and g (K,)."""
    return dot(q, dot(g, g) - 2 * g + 1)
