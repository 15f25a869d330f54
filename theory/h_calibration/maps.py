"""Maps that keep the order of the classes, and one that was released and does not (C8)."""

from __future__ import annotations

from fractions import Fraction

from sandbox import calibration
from sandbox.algebra import dot, exp_excess, onehot, outer, softmax, stack
from theory.h_calibration.gaps import CODE, PAPER
from theory.statement import (
    AtMost,
    Equal,
    Index,
    Logits,
    Moderate,
    Positive,
    Positives,
    SameSign,
    Simplex,
    Source,
    Unit,
    theorem,
)


def raised(z, w, l, gap):
    """z with its element w put ``gap`` above its element l."""
    return z + (z[l] + gap - z[w]) * onehot(w, z)


@theorem(Source(PAPER, "ours"), r"f(\ell_w) - f(\ell_l) = s(\ell_w - \ell_l),\; s > 0 \Rightarrow \hat p_w > \hat p_l",
         claim="C8", z=Logits("K"), w=Index("K"), l=Index("K"), slope=Moderate(), gap=Moderate())  # fmt: skip
def increasing_maps_keep_the_order(z, w, l, slope, gap):
    """A map that rises between two log-probabilities, by slope times their gap, keeps their classes in order.

    One scalar map for all classes keeps every pair, hence each sample's ranking and its top-k accuracy.
    """
    p = softmax(raised(z, w, l, slope * gap))
    return SameSign(p[w] - p[l], gap, factor=p[l] * (exp_excess(slope * gap) / gap + slope))


@theorem(Source(PAPER, "ours"), r"\hat p_w - \hat p_l = \sum_r \omega_r \hat p_l^{(r)} (e^{a_r(\ell_w - \ell_l)} - 1)",
         claim="C8", z=Logits("K"), weights=Simplex("R"), a=Positives("R"), w=Index("K"), l=Index("K"),
         gap=Moderate())  # fmt: skip
def mixtures_of_temperatures_keep_the_order(z, weights, a, w, l, gap):
    """A mixture of temperatures keeps the order of the classes, though it is no map of each log-probability alone."""
    log_probs = raised(z, w, l, gap)
    mixed = calibration.mixture_probs(log_probs, a, weights)
    of_l = softmax(outer(a, log_probs)) @ onehot(l, z)
    return AtMost(mixed[l], mixed[w], slack=dot(weights * of_l, exp_excess(a * gap) + a * gap))


@theorem(Source(PAPER, "ours, in place of the " + CODE), r"h(k\delta + u) = \delta\sum_{i<k} s_i + s_k u", claim="C8",
         slopes=Positives("S"), u=Positive(), rest=Positive())  # fmt: skip
def piecewise_map_goes_on_from_its_knots(slopes, u, rest):
    """On each segment, u after its knot, the sum of hinges is the rises before it and its own slope times u.

    Hence it is continuous, increasing where slopes are positive, and keeps the order of the classes.
    """
    count, width = slopes.shape[-1], u + rest
    found = stack(*(calibration.piecewise(k * width + u, slopes, width) for k in range(count)))
    rises = (sum(slopes[i] for i in range(k)) * width + slopes[k] * u for k in range(count))
    return Equal(found, stack(*rises))


THREE = {"s0": Positive(), "s1": Positive(), "s2": Positive(), "width": Positive(), "below": Unit()}


def around_the_knot(s0, s1, s2, width, below):
    """The released map at the first knot, and ``below`` of a segment before it."""
    slopes = stack(s0, s1, s2)
    before = calibration.released_piecewise((1 - below) * width, slopes, width, 0)
    return before, calibration.released_piecewise(width, slopes, width, 1)


@theorem(Source(PAPER, CODE), r"z < z' \Rightarrow h(z) \le h(z')", claim="C8", expect="refuted",
         instead=["piecewise_map_goes_on_from_its_knots", "increasing_maps_keep_the_order"], **THREE,
         witness={"s0": Fraction(4, 5), "s1": 1, "s2": Fraction(3, 5), "width": 10, "below": 999})  # fmt: skip
def released_map_is_increasing(s0, s1, s2, width, below):
    """The piecewise map as released rises: false, with slopes .8, 1, .6 and knots at 10 it falls from 9.99 to 9.2."""
    before, at = around_the_knot(s0, s1, s2, width, below)
    return AtMost(before, at)


@theorem(Source(PAPER, CODE), r"h(k\delta - 0) = h(k\delta)", claim="C8", expect="refuted",
         instead=["piecewise_map_goes_on_from_its_knots", "released_map_is_right_while_slopes_are_one"],
         **{**THREE, "below": Positive()},
         witness={"s0": 1, "s1": Fraction(1, 2), "s2": 1, "width": 10, "below": Fraction(1, 1000)})  # fmt: skip
def released_map_is_continuous(s0, s1, s2, width, below):
    """It rises to a knot by no more than its slope: false, with slopes 1, .5, 1 it jumps from 4.995 to 10 there."""
    before, at = around_the_knot(s0, s1, s2, width, below)
    return AtMost(at - before, s1 * below * width)


@theorem(Source(PAPER, "ours, of the " + CODE), r"v_k = k\delta \Rightarrow h \text{ is right}", claim="C8",
         s=Positive(), width=Positive(), part=Unit())  # fmt: skip
def released_map_is_right_while_slopes_are_one(s, width, part):
    """While all slopes before are 1 the released map is the continuous one: its start hides the error."""
    slopes = stack(1 + 0 * s, 1 + 0 * s, s)
    at = (1 + part) * width
    return Equal(calibration.released_piecewise(at, slopes, width, 1), width + s * part * width)
