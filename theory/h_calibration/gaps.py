"""Predicted minus observed: over sets, over windows, and how noisy a window is (C1-C4)."""

from __future__ import annotations

from itertools import combinations

import jax.numpy as jnp
from jax.scipy.special import gammaln

from sandbox import calibration
from sandbox.algebra import arrays_only, dot, exp, grad, mean, onehot, outer, stack, step, total, velocity
from theory.statement import (
    All,
    Arch,
    AtMost,
    Equal,
    LargestIs,
    Logits,
    Positive,
    Positives,
    Rate,
    Real,
    Reals,
    Source,
    Units,
    theorem,
)

PAPER = "huang2025hcalibration"
CODE = "released code"


@theorem(Source(PAPER, CODE), r"p(1-o) - (1-p)o = p - o", claim="C1", p=Reals("n"), o=Reals("n"))
def predicted_minus_observed(p, o):
    """What the released code averages, p (1 - o) less (1 - p) o, is predicted minus observed."""
    return Equal(calibration.one_sided_gap(p, o), p - o)


# -- C2: error-bounded calibration, as a statement on sets -------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\max_A |E[(p-o)1_A]|/P(A) = \max_a |p_a - q_a|", claim="C2",
         weight=Positives("A"), top=Positive(), drop=Positives("A"))  # fmt: skip
def worst_set_is_an_atom(weight, top, drop):
    """Of all sets of atoms, the largest mean gap is that of one atom, the one with the largest gap."""
    size = weight.shape[0]
    drops = drop * (1 - onehot(0, drop))  # atom 0 has the largest gap
    subsets = [s for n in range(1, size + 1) for s in combinations(range(size), n)]

    def inside(s):
        return sum(onehot(a, weight) for a in s)

    values = stack(*(calibration.set_error(weight, top - drops, inside(s)) for s in subsets))
    slacks = stack(*(sum(weight[a] * drops[a] for a in s) / sum(weight[a] for a in s) for s in subsets))
    return LargestIs(values, top, slacks, at=0)


@theorem(Source(PAPER, "ours"), r"|E[(p-o)1_A]| \le h P(A)", claim="C2",
         weight=Positives("A"), inside=Positives("A"), top=Positive(), drop=Positives("A"))  # fmt: skip
def no_set_beats_the_worst_atom(weight, inside, top, drop):
    """Over any (even fractional) set of atoms the mean gap is at most the largest atom's, at every number of atoms."""
    error = calibration.set_error(weight, top - drop, inside)
    return AtMost(error, top, slack=dot(weight * inside, drop) / dot(weight, inside))


@theorem(Source(PAPER, "ours"), r"\max_A |E[(p-o)1_A]| = \max(E[(p-q)_+], E[(p-q)_-])", claim="C2",
         over=Positives("A"), up=Positives("A"), some=Units("A"), under=Positives("B"), down=Positives("B"),
         others=Units("B"))  # fmt: skip
def largest_set_error_unnormalised(over, up, some, under, down, others):
    """Without the normalisation no set has a larger error than that of all over-confident atoms (or of all others).

    Atoms of masses ``over`` have the gaps ``up`` > 0, those of masses ``under`` the gaps -``down``; ``some`` and
    ``others`` are the shares of each in the set.
    """
    error = calibration.set_error(over, up, some) * dot(over, some)
    error = error + calibration.set_error(under, -down, others) * dot(under, others)
    left_out = dot(over * (1 - some), up) + dot(under * others, down)
    return AtMost(error, dot(over, up), slack=left_out)


@theorem(Source(PAPER, "ours"), r"\|E[(\hat p - o) 1_A]\|^2 \le P(A) E[\|\hat p - q\|^2 1_A]", claim="C2",
         mass=Positives("A"), gap=Reals("A", "K"))  # fmt: skip
def set_error_of_vectors(mass, gap):
    """For whole vectors: a set's mean gap is no longer than the root mean square of its atoms' gaps."""
    whole = total(mass)
    share = mass / whole
    average = share @ gap
    spread = dot(share, total(gap**2)) - dot(average, average)
    around = gap - outer(1 + 0 * mass, average)
    return All(
        AtMost(dot(average, average), dot(share, total(gap**2)), slack=dot(share, total(around**2))),
        Equal(spread, dot(share, total(around**2))),
    )


@theorem(Source(PAPER, "ours"), r"E[(p-o)1_A] = E[(p-q)1_A]", claim="C2",
         weight=Positives("A"), p=Units("A"), q=Units("A"), inside=Units("A"))  # fmt: skip
def outcomes_stand_for_the_truth(weight, p, q, inside):
    """In the mean over outcomes, predicted minus observed is predicted minus true, on every set of predictions."""
    observed = q * calibration.one_sided_gap(p, 1 + 0 * p) + (1 - q) * calibration.one_sided_gap(p, 0 * p)
    return Equal(calibration.set_error(weight, observed, inside), dot(weight * inside, p - q) / dot(weight, inside))


# -- C3: the noise of a window -----------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"E T = \overline{p - q},\; Var\, T = \sum q(1-q)/M^2", claim="C3",
         p=Units("M"), q=Units("M"))  # fmt: skip
def mean_and_variance_of_a_window(p, q):
    """The mean gap of M independent events has the mean of p - q, and the variance sum q (1 - q) / M^2."""
    slope = velocity(lambda s: calibration.window_cumulants(s, p, q))
    count = total(1 + 0 * p)
    return All(Equal(slope(0), mean(p - q)), Equal(velocity(slope)(0), total(q * (1 - q)) / count**2))


@theorem(Source(PAPER, "ours; Hoeffding 1963"), r"\log E e^{s(T-b)} \le s^2/8M", claim="C3",
         p=Units("M"), q=Units("M"), s=Logits())  # fmt: skip
def hoeffding_of_a_window(p, q, s):
    """Its exponential moments are at most those of a normal law of variance 1/4M: the second derivatives say so."""
    count = total(1 + 0 * p)

    def tilted(s):  # the events' probabilities under the tilt e^(s T)
        return q * exp(-s / count) / (1 - q + q * exp(-s / count))

    return Arch(
        lambda s: calibration.window_cumulants(s, p, q),
        lambda s: s * mean(p - q) + s**2 / (8 * count),
        at=s, start=0, curvature=lambda s: total((1 / 2 - tilted(s)) ** 2) / count**2,
    )  # fmt: skip


@theorem(Source(PAPER, "ours; Hoeffding 1963"), r"\min_s s^2/8M - st = -2Mt^2", claim="C3",
         s=Positive(), t=Positive(), M=Positive())  # fmt: skip
def hoeffding_exponent_is_least(s, t, M):
    """The best of Chernoff's exponents is -2 M t^2, at s = 4 M t: Pr(|T - b| > t) is at most 2 e^(-2 M t^2)."""
    exponent = calibration.hoeffding_exponent(s, t, M)
    return AtMost(-2 * M * t**2, exponent, slack=(s - 4 * M * t) ** 2 / (8 * M))


def binomial_mean(count, q):
    """Exact E|mean of o - q| of ``count`` events of probability q, by the sum over all counts of hits."""
    arrays_only("a sum over the hits of a window")
    hits = jnp.arange(2001.0)
    logs = gammaln(count + 1) - gammaln(hits + 1) - gammaln(jnp.maximum(count - hits, 0) + 1)
    law = jnp.where(hits <= count, jnp.exp(logs + hits * jnp.log(q) + (count - hits) * jnp.log1p(-q)), 0)
    return jnp.sum(law * jnp.abs(hits / count - q))


COUNTS = (51.0, 101.0, 201.0, 401.0, 801.0, 1601.0)


@theorem(Source(PAPER, "ours"), r"E|T| \sim M^{-1/2} \text{ at the truth}", claim="C3", expect="checked",
         odds=Positive())  # fmt: skip
def noise_floor_falls_like_the_root(odds):
    """At the truth the mean of |T| falls as M^(-1/2), however many samples there are: 0.03 for windows of 51 on."""
    q = 0.1 + 0.8 / (1 + odds)
    means = jnp.stack([binomial_mean(count, q) for count in COUNTS])
    return Rate(jnp.array(COUNTS), means, -1 / 2, within=0.03)


@theorem(Source(PAPER, "ours"), r"E|T| \approx \sqrt{2q(1-q)/\pi M}", claim="C3", expect="checked",
         odds=Positive())  # fmt: skip
def noise_floor_of_a_window(odds):
    """At the truth the loss is not 0 but sqrt(2 q (1 - q) / (pi M)), within 1 % for M >= 51 and q from .1 to .9."""
    q = 0.1 + 0.8 / (1 + odds)
    exact = jnp.stack([binomial_mean(count, q) for count in (51.0, 201.0, 801.0)])
    floor = calibration.noise_floor(q * (1 - q), jnp.array([51.0, 201, 801]))
    return AtMost(jnp.abs(exact / floor - 1), 0.01 + 0 * floor)


@theorem(Source(PAPER, "ours"), r"f \le E|T| \le f(1 + b^2/2s^2),\; f = s\sqrt{2/\pi}", claim="C3", expect="checked",
         b=Real(), s=Positive())  # fmt: skip
def folded_normal_lies_between(b, s):
    """In the normal limit E|T| is at least the floor f, and at most f (1 + b^2/2s^2), which it is near b = 0."""
    arrays_only("the error function")
    floor, found = calibration.noise_floor(s**2, 1), calibration.folded_normal(b, s)
    return All(AtMost(floor, found), AtMost(found, floor * (1 + b**2 / (2 * s**2))))


# -- C4: the loss ------------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, CODE), r"\nabla_p L = \frac1n \sum_i sign(T_i) 1\{|T_i| > \epsilon\} W_{i\cdot}", claim="C4",
         W=Reals("n", "n"), p=Reals("n"), o=Reals("n"), epsilon=Positive())  # fmt: skip
def gradient_of_the_loss(W, p, o, epsilon):
    """The loss sees a probability through the signs of the windows that hold it, and only if they exceed epsilon.

    W: the windows, rows of weights; between sign changes the gradient is constant.
    """

    def loss(p):
        return mean(calibration.excess(W @ (p - o), epsilon))

    gaps = W @ (p - o)
    signs = step(gaps - epsilon) - step(-gaps - epsilon)
    return Equal(grad(loss)(p), signs @ W / total(1 + 0 * p))
