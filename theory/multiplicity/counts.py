"""How many can conflict, and who pays (C5, C6, C8)."""

from __future__ import annotations

from fractions import Fraction

from sandbox.algebra import dot, mean, onehot, sigmoid, softplus, total, velocity
from sandbox.multiplicity.formulas import bernoulli_kl, half_width, pinsker_cost, universal_bound
from theory.multiplicity.ball import PAPER, variance
from theory.statement import (
    Arch,
    AtMost,
    Bowl,
    Equal,
    Given,
    Index,
    Positive,
    Positives,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    Unit,
    Units,
    theorem,
)

# -- C5: discrepancy has a universal bound, ambiguity has none ---------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"2(p-q)^2 \le KL(p\|q)", claim="C5", p=Unit(), q=Unit())
def pinsker(p, q):
    """The squared difference of two Bernoulli probabilities is at most half their KL divergence."""
    return Bowl(
        lambda q: 2 * (q - p) ** 2, lambda q: pinsker_cost(p, q), at=q, bottom=p,
        factor=lambda q: (1 - 2 * q) ** 2 / (q * (1 - q)),
    )  # fmt: skip


@theorem(Source(PAPER, "ours"), r"\gamma_\epsilon(\delta) \le \frac{\epsilon}{2\delta^2}", claim="C5",
         moved=Units("n"), more=Positives("n"), delta=Positive(), rest=Positive())  # fmt: skip
def universal_bound_on_the_discrepancy(moved, more, delta, rest):
    """One model of the level set moves at most a share epsilon / (2 delta^2) of the risks by delta or more.

    moved is 1 for the risks that it moves so (any share will do), whose squared moves are delta^2 or more; by Pinsker
    the excess is at least twice the mean square, and by ``rest`` more.
    """
    squares = delta**2 * moved + more
    epsilon = 2 * mean(squares) + rest
    return AtMost(mean(moved), universal_bound(epsilon, delta), slack=(2 * mean(more) + rest) / (2 * delta**2))


@theorem(Source(PAPER, "ours"), r"KL(p\|q) \ge KL(p\|p+\delta), \; q \ge p+\delta", claim="C5",
         t=Real(), a=Real(), k=Positive())  # fmt: skip
def a_conflict_costs_at_least(t, a, k):
    """A risk that moves by more than delta costs more than what moving it by delta does: the price in the knapsack.

    In logits, a up to the risk p + delta and k beyond: the KL grows at least at the rate delta, which is positive.
    """
    delta = sigmoid(t + a) - sigmoid(t)
    return Arch(
        lambda k: bernoulli_kl(t, t + a) + k * delta, lambda k: bernoulli_kl(t, t + a + k), at=k, start=0 * k,
        curvature=lambda k: variance(t + a + k),
    )  # fmt: skip


@theorem(Source(PAPER, "ours"), r"KL_i \le n\epsilon", claim="C5", kls=Positives("n"), i=Index("n"))
def one_person_may_take_all(kls, i):
    """Of the budget n epsilon one person's risk may take all: for one alone there is no better bound."""
    return AtMost(kls[i], mean(kls) * total(1 + 0 * kls), slack=dot(kls, 1 - onehot(i, kls)))


@theorem(Source(PAPER, "ours"), r"\alpha_\epsilon(\delta) \le \frac{\epsilon}{2\delta^2}", claim="C5",
         expect="refuted", instead=["universal_bound_on_the_discrepancy", "one_person_may_take_all"],
         m=Unit(), epsilon=Positive(), p=Unit(), delta=Unit(),
         witness={"m": 99, "epsilon": Fraction(1, 100), "p": 1, "delta": 3})  # fmt: skip
def universal_bound_on_the_ambiguity(m, epsilon, p, delta):
    """The same bound on the ambiguity: false, different models may move different people.

    Groups of share m each, all with the risk p: each is ambiguous if m KL(p || p + (1 - p) delta) fits into epsilon.
    """
    move = (1 - p) * delta
    budget = epsilon - m * pinsker_cost(p, p + move)
    return Given(budget, then=AtMost(1 + 0 * m, universal_bound(epsilon, move)))


# -- C6: majority and minority -----------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"L(t) - L(t^0) = \sum_g m_g KL(p_g\|\sigma(t_g))", claim="C6",
         m=Simplex("G"), t0=Reals("G"), t=Reals("G"), p=Units("G"))  # fmt: skip
def saturated_model_is_a_weighted_ball(m, t0, t, p):
    """With one indicator a group the excess is each group's KL times its share; the last term is the gradient's."""

    def cost(t):
        return dot(m, softplus(t) - p * t)

    return Equal(cost(t) - cost(t0), dot(m, bernoulli_kl(t0, t)) + dot(m * (sigmoid(t0) - p), t - t0))


@theorem(Source(PAPER, "ours"), r"KL(p_g\|\sigma(t_g)) \le \epsilon/m_g", claim="C6",
         m=Simplex("G"), kls=Positives("G"), g=Index("G"), rest=Positive())  # fmt: skip
def a_group_may_take_all(m, kls, g, rest):
    """A group's KL is at most epsilon over its share, and no less is enough: the rest of the budget goes to others."""
    epsilon = dot(m, kls) + rest
    return AtMost(kls[g], epsilon / m[g], slack=(dot(m * kls, 1 - onehot(g, m)) + rest) / m[g])


@theorem(Source(PAPER, "ours"), r"m \le \epsilon/KL \iff m\,KL \le \epsilon", claim="C6",
         m=Unit(), cost=Positive(), epsilon=Positive())  # fmt: skip
def small_groups_pay(m, cost, epsilon):
    """A group is ambiguous at delta exactly up to the share epsilon / KL(p || p +- delta)."""
    return SameSign(epsilon - m * cost, epsilon / cost - m, factor=cost)


@theorem(Source(PAPER, "ours"), r"m\,\partial_q^2 KL(p\|q)|_{q=p} = \frac{m}{p(1-p)}", claim="C6", p=Unit(), m=Unit())
def width_of_a_group(p, m):
    """A group's excess bends by m / (p (1 - p)), so its range is sqrt(2 epsilon p (1 - p) / m) each way, if small.

    The width times sqrt(m) is a constant.
    """
    return Equal(velocity(velocity(lambda q: m * pinsker_cost(p, q)))(p), m / (p * (1 - p)))


# -- C8: outliers and separability -------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"p_i(1-p_i)(x_i\cdot u)^2 \le n\,u^T H u", claim="C8",
         v=Positives("n"), a=Reals("n"), i=Index("n"))  # fmt: skip
def leverage_is_at_most_one(v, a, i):
    """An outlier's range is wide, but not for ever: p (1 - p) s of one of n is at most n, and then its label decides.

    v are the variances p (1 - p), a the steps of the logits along any direction u.
    """
    return AtMost(v[i] * a[i] ** 2, total(v * a**2), slack=dot(v * a**2, 1 - onehot(i, v)))


def agreeing(more):
    """A rate above one half: odds of 1 + more. The more, the better a model separates the classes."""
    return (1 + more) / (2 + more)


@theorem(Source(PAPER, "ours"), r"p\uparrow \Rightarrow \sqrt{2\epsilon p(1-p)} \downarrow", claim="C8",
         epsilon=Positive(), more=Positive(), k=Positive())  # fmt: skip
def separation_narrows_risks(epsilon, more, k):
    """The better classes are separated, the narrower is the range of a risk, at the same epsilon.

    One parameter, x = +1 or -1, a share p of labels on its side: the squared half-width is 2 epsilon p (1 - p).
    """
    p, q = agreeing(more), agreeing(more + k)
    drop = (q - p) * (p + q - 1)
    square = lambda p: 2 * epsilon * p * (1 - p)  # noqa: E731
    return AtMost(square(q), square(p), slack=2 * epsilon * drop)


@theorem(Source(PAPER, "ours"), r"p\uparrow \Rightarrow \sqrt{2\epsilon/(p(1-p))} \uparrow", claim="C8",
         epsilon=Positive(), more=Positive(), k=Positive())  # fmt: skip
def separation_widens_logits(epsilon, more, k):
    """And the wider is the range of its logit: which of the two is multiplicity must be said."""
    p, q = agreeing(more), agreeing(more + k)
    square = lambda p: half_width(epsilon, 1 / (p * (1 - p))) ** 2  # noqa: E731
    return AtMost(square(p), square(q), slack=2 * epsilon * (q - p) * (p + q - 1) / (p * (1 - p) * q * (1 - q)))
