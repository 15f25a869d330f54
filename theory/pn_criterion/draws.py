"""How many draws a model needs, and what the answer does not see (C8, C9)."""

from __future__ import annotations

from typing import Any

from sandbox.algebra import dot, kl, stack, total
from sandbox.expfam.criterion import allowed_risk, draws_needed, draws_needed_first
from sandbox.expfam.terms import Expansion
from theory.pn_criterion.expansion import size_of
from theory.pn_criterion.geometry import PAPER
from theory.statement import All, AtMost, Domain, Equal, Positive, SameSign, Simplex, Source, theorem

HALF = Domain("positive", make=lambda k: 1 / (2 + k))
RISK: dict[str, Any] = dict(a=Positive(), b=Positive(), c=Positive())


@theorem(Source(PAPER, "the test in the author's programs"),
         r"\frac{t_0}{2n} \le 8\alpha^2 \iff n \ge \frac{t_0}{16\alpha^2}", claim="C8",
         t0=Positive(), n=Positive(), alpha=HALF)  # fmt: skip
def first_order_criterion(t0, n, alpha):
    """The first order accepts from t0 / (16 alpha^2) draws on: 25 a parameter at alpha = 1/20, model right."""
    found = Expansion(t0 / 2, 0)
    return All(
        SameSign(allowed_risk(alpha) - found.at(n), n - t0 / (16 * alpha**2), factor=8 * alpha**2 / n),
        Equal(draws_needed_first(found, allowed_risk(alpha)), t0 / (16 * alpha**2)),
    )


@theorem(Source(PAPER, "ours"), r"\frac{a}{n} + \frac{b}{n^2} \le c \iff n \ge n_*", claim="C8", **RISK, n=Positive())
def second_order_criterion(a, b, c, n):
    """With both orders a model is accepted from n* = (a + sqrt(a^2 + 4 b c)) / 2c draws on."""
    found = Expansion(a, b)
    star = draws_needed(found, c)
    return SameSign(c - found.at(n), n - star, factor=c * (n + b / (c * star)) / n**2)


@theorem(Source(PAPER, "ours"), r"0 \le \frac ac + \frac ba - n_* \le \frac{b^2 c}{a^3}", claim="C8",
         **RISK)  # fmt: skip
def second_order_adds_a_constant(a, b, c):
    """The second order adds b/a draws to the first, whatever alpha is; at most b^2 c / a^3 fewer."""
    star = draws_needed(Expansion(a, b), c)
    root = (2 * c * star - a) / a  # sqrt(1 + 4 b c / a^2)
    beyond = 4 * b * c / (a**2 * (1 + root))  # root - 1, in a form that shows its sign
    return All(
        AtMost(star, a / c + b / a, slack=a * beyond**2 / (4 * c)),
        AtMost(a / c + b / a - b**2 * c / a**3, star, slack=a * beyond**3 * (root + 3) / (16 * c)),
    )


# -- what it does not see ----------------------------------------------------------------------------------------------

TABLE: dict[str, Any] = dict(q00=Positive(), q01=Positive(), q10=Positive(), q11=Positive())


def table_of(*cells):
    """A 2 x 2 law (4,), and the indicators of its second row and column."""
    x = stack(*cells)
    return x / total(x), stack(0, 0, 1, 1), stack(0, 1, 0, 1)


@theorem(Source(PAPER, "ours"), r"t_0 = p", claim="C9", **TABLE)
def dependence_is_not_seen(q00, q01, q10, q11):
    """Independence fitted to any 2 x 2 table has t0 = 2 = p exactly, however dependent its rows and columns are.

    The model's covariance is diagonal, and the variances of rows and columns are the truth's.
    """
    q, row, column = table_of(q00, q01, q10, q11)
    r, c = dot(q, row), dot(q, column)
    return Equal(dot(q, (row - r) ** 2) / (r * (1 - r)) + dot(q, (column - c) ** 2) / (c * (1 - c)), 2)


@theorem(Source(PAPER, "negative control"), r"t_0 = p \Rightarrow D[g\|g_*] = 0", claim="C9", expect="refuted",
         instead=["dependence_is_not_seen"], **TABLE, witness={"q00": 4, "q01": 1, "q10": 1, "q11": 4})  # fmt: skip
def full_marks_mean_a_right_model(q00, q01, q10, q11):
    """A model of that table with t0 = p is right, so that rows and columns are independent: false."""
    q, row, column = table_of(q00, q01, q10, q11)
    r, c = dot(q, row), dot(q, column)
    product = (row * r + (1 - row) * (1 - r)) * (column * c + (1 - column) * (1 - c))
    return Equal(kl(q, product), 0)


@theorem(Source(PAPER, "ours"), r"\hat t_0 = \mathrm{tr}(\hat P\hat\Sigma) = p", claim="C9", q=Simplex("K"))
def saturated_models_always_get_p(q):
    """A model of K free categories is its own projection: t0 = K - 1 on every sample, so that a says nothing.

    P is 1/q on the diagonal, up to a constant that the sum of the categories does not see.
    """
    return Equal(dot(1 / q, q * (1 - q)), size_of(q) - 1)
