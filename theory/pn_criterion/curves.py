"""A model that is no exponential family: three informations in place of one (C6).

A curve of laws through theta = 0 has the logits log h + theta f + theta^2 g / 2; with g = 0 it is an exponential
family. The truth is q; nothing here asks that its score vanish at 0, which the expansion does.
"""

from __future__ import annotations

from typing import Any

from sandbox.algebra import dot, log, log_softmax, stack, velocity
from sandbox.expfam import curved
from sandbox.expfam.curved import Informations
from theory.pn_criterion.geometry import PAPER
from theory.statement import All, Domain, Equal, Positive, Reals, SameSign, Simplex, Source, theorem

CURVE: dict[str, Any] = dict(q=Simplex("K"), p=Simplex("K"), f=Reals("K"), g=Reals("K"))


def through(p, f, g):
    """theta -> log-probabilities (K,), with the law p at 0."""
    return lambda theta: log_softmax(log(p) + theta * f + theta**2 * g / 2)


@theorem(Source(PAPER, "ours"), r"I - J = (E_g - E_{*})\,\ddot\ell", claim="C6", **CURVE)
def curvature_parts_the_informations(q, p, f, g):
    """The information of the model and that of the truth differ by the means of the curvature g alone."""
    found = curved.informations(through(p, f, g), 0, q)
    return Equal(found.model - found.true, dot(q, g) - dot(p, g))


@theorem(Source(PAPER, "ours"), r"I = J = \mathrm{Var}_{*} f", claim="C6", q=Simplex("K"), p=Simplex("K"), f=Reals("K"))
def exponential_families_have_one_information(q, p, f):
    """In an exponential family both are the model's variance of the statistic, whatever the truth is."""
    found = curved.informations(through(p, f, 0 * f), 0, q)
    variance = dot(p, f**2) - dot(p, f) ** 2
    return All(Equal(found.true, variance), Equal(found.model, variance))


@theorem(Source(PAPER, "ours"), r"a > \tfrac{K}{2J} \iff I > J", claim="C6", I=Positive(), J=Positive(), K=Positive())
def first_order_is_half_of_tic_only_if(I, J, K):
    """The first-order risk is I K / 2 J^2; it is half of Takeuchi's penalty exactly if I = J."""
    found = Informations(I, J, K)
    return SameSign(curved.first_order(found) - curved.tic_penalty(found), I - J, factor=K / (2 * J**2))


@theorem(Source(PAPER, "negative control"), r"a = \tfrac{K}{2J}", claim="C6", expect="refuted",
         instead=["first_order_is_half_of_tic_only_if"], I=Positive(), J=Positive(), K=Positive())  # fmt: skip
def first_order_is_half_of_tic(I, J, K):
    """The first-order risk is half of Takeuchi's penalty for every model: false where I is not J."""
    found = Informations(I, J, K)
    return Equal(curved.first_order(found), curved.tic_penalty(found))


@theorem(Source(PAPER, "negative control"), r"D[g\|p_\theta] = D[g\|p_{*}] + D[p_{*}\|p_\theta]", claim="C6",
         expect="refuted", instead=["curvature_parts_the_informations"],
         q=Simplex("K"), p=Simplex("K"), f=Reals("K"), g=Reals("K"), t=Positive())  # fmt: skip
def pythagoras_on_a_curve(q, p, f, g, t):
    """Divergences add at the projection of a curved model too, the gap in the score taken off: false."""
    law = through(p, f, g)
    star, other = law(0), law(t)
    slope = velocity(law)(0)
    return Equal(dot(q, star - other), dot(p, star - other) - t * dot(q, slope))


THETA = Domain("positive", make=lambda k: 3 / (5 * (1 + k)))  # below 0.618, where 1 - theta - theta^2 is positive


def trinomial(theta):
    """Log-probabilities of three symbols: theta, theta^2 and the rest."""
    return stack(log(theta), 2 * log(theta), log(1 - theta - theta**2))


@theorem(Source(PAPER, "ours"), r"(A + 2N_3)\theta^2 + (A + N_3)\theta = A,\; A = N_1 + 2N_2", claim="C6",
         theta=THETA, n1=Positive(), n2=Positive(), n3=Positive())  # fmt: skip
def fit_of_the_curved_trinomial(theta, n1, n2, n3):
    """The likelihood of the counts rises below the positive root of this quadratic and falls above it."""
    score = dot(stack(n1, n2, n3), velocity(trinomial)(theta))
    a = n1 + 2 * n2
    return SameSign(score, a - (a + n3) * theta - (a + 2 * n3) * theta**2, factor=1 / (theta * (1 - theta - theta**2)))
