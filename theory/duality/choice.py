"""A softmax as a chooser: duels, regret, and what of its utilities is only an order (C1-C3).

u are utilities of outputs, P = softmax(u) reads them as probabilities; everything is in nats.
"""

from __future__ import annotations

from sandbox import utility
from sandbox.algebra import (
    dot,
    exp,
    exp_excess,
    grad,
    kl,
    log,
    log_softmax,
    logsumexp,
    mean,
    onehot,
    softmax,
    total,
    velocity,
)
from theory.statement import (
    All,
    AtMost,
    Equal,
    Given,
    Index,
    NonNegative,
    Positive,
    Positives,
    Real,
    Reals,
    Simplex,
    Source,
    theorem,
)

PAPER = "huang2023duality"


# -- C1: one step of maximum likelihood is a duel ----------------------------------------------------------------------


@theorem(Source(PAPER, "ours, for P1 and P2"),
         r"\nabla_w \log P_w(y) = E_{y' \sim P_w} \nabla_w [u_w(y) - u_w(y')]", claim="C1",
         x=Reals("V", "d"), w=Reals("d"), u=Reals("V"), v=Reals("V"), y=Index("V"))  # fmt: skip
def duel_identity(x, w, u, v, y):
    """A step of maximum likelihood lets the observed output beat an opponent drawn from the model itself.

    Along any curve of utilities, u + t v to first order; and for the parameters w of the curved utilities (x w)^2.
    """
    slope = 2 * (x @ w)
    p = softmax((x @ w) ** 2)
    return All(
        Equal(velocity(lambda t: log_softmax(u + t * v)[y])(0), dot(softmax(u), v[y] - v)),
        Equal(grad(lambda w: log_softmax((x @ w) ** 2)[y])(w), slope[y] * x[y] - (p * slope) @ x),
    )


@theorem(Source(PAPER, "ours, negative control"), r"y' \sim \text{uniform}", claim="C1", expect="refuted",
         instead=["duel_identity"], u=Reals("V"), v=Reals("V"), y=Index("V"))  # fmt: skip
def duel_with_a_uniform_opponent(u, v, y):
    """The same with an opponent drawn uniformly: false."""
    return Equal(velocity(lambda t: log_softmax(u + t * v)[y])(0), mean(v[y] - v))


# -- C2: regret, and the literal duality -------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, for P1 and P2"), r"-\log P_u(y) = \max_\pi \{\pi \cdot u + H(\pi)\} - u(y)", claim="C2",
         u=Reals("V"), pi=Simplex("V"), y=Index("V"))  # fmt: skip
def loss_is_regret(u, pi, y):
    """The loss of an output is the regret of a maximiser of utility plus entropy: softmax(u) attains the maximum."""
    p = softmax(u)

    def value(law):
        return dot(law, u) - dot(law, log(law))

    return All(
        AtMost(value(pi), utility.regret(u, y) + u[y], slack=kl(pi, p)),
        Equal(-log_softmax(u)[y], value(p) - u[y]),
        AtMost(0 * u[y], utility.regret(u, y), slack=log(1 + dot(exp(u - u[y]), 1 - onehot(y, u)))),
    )


@theorem(Source(PAPER, "ours, for P1; the title read literally"), r"P = \nabla\mathrm{lse}(u),\; u = \log P + c",
         claim="C2", u=Reals("V"), p=Simplex("V"), c=Real())  # fmt: skip
def utilities_and_probabilities_are_legendre_duals(u, p, c):
    """Probabilities are the gradient of logsumexp at the utilities, utilities that of negative entropy, up to c."""
    back = log(p) + c
    return All(
        Equal(grad(logsumexp)(u), softmax(u)),
        Equal(grad(lambda p: dot(p, log(p)))(p) - 1 + c, back),
        Equal(softmax(back), p),
        Equal(dot(p, back) - logsumexp(back), dot(p, log(p))),
        AtMost(dot(p, u) - logsumexp(u), dot(p, log(p)), slack=kl(p, softmax(u))),
    )


@theorem(Source(PAPER, "ours"), r"0 \le [\tau\,\mathrm{lse}(u/\tau) - u_y] - [\max u - u_y] \le \tau\log K", claim="C2",
         top=Real(), drop=Positives("V"), m=Index("V"), y=Index("V", distinct=False), tau=Positive())  # fmt: skip
def cold_regret_is_the_hinge(top, drop, m, y, tau):
    """As the temperature tau falls the regret becomes max u - u_y, which is 0 exactly if y maximises utility.

    It is never below u_m - u_y, for any m, and at most tau log K above top - u_y, for any top that no utility exceeds;
    equal utilities attain that. u is top less tau times positive drops.
    """
    u, count = top - tau * drop, total(1 + 0 * drop)
    p, uniform = softmax(u / tau), (1 + 0 * drop) / count
    cost = utility.regret(u, y, tau)
    return All(
        AtMost(u[m] - u[y], cost, slack=tau * log(1 + dot(exp((u - u[m]) / tau), 1 - onehot(m, u)))),
        AtMost(cost, top - u[y] + tau * log(count), slack=tau * kl(p, uniform) + tau * dot(p, drop)),
        Equal(utility.regret(0 * drop, y, tau), tau * log(count)),
    )


# -- C3: what is ordinal -----------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, for P1"), r"u_a > u_b \Rightarrow f(u_a) > f(u_b)", claim="C3",
         u=Reals("V"), a=Index("V"), b=Index("V"), d=Positive(), slope=Positive(), up=Positive(),
         down=Positive())  # fmt: skip
def order_survives_increasing_maps(u, a, b, d, slope, up, down):
    """Rankings, top-k sets and greedy choices do not change under an increasing map of the utilities of a context.

    Shown for f(x) = slope x + up e^x - down e^-x and a pair that is d apart.
    """
    u = u + (u[b] + d - u[a]) * onehot(a, u)

    def f(x):
        return slope * x + up * exp(x) - down * exp(-x)

    ahead = exp_excess(d) + d  # e^d - 1
    return AtMost(0 * d, f(u[a]) - f(u[b]), slack=slope * d + (up * exp(u[b]) + down * exp(-u[a])) * ahead)


@theorem(Source(PAPER, "ours, for P1"), r"\log P_{u+c} = \log P_u", claim="C3", u=Reals("V"), v=Reals("V"), c=Real(),
         y=Index("V"))  # fmt: skip
def probabilities_survive_shifts(u, v, c, y):
    """Log-probabilities, hence sampling, expected values, beams and exact modes, do not change if a constant is added.

    And they tell the utilities up to that constant.
    """
    return All(
        Equal(log_softmax(u + c)[y] - log_softmax(v)[y], log_softmax(u)[y] - log_softmax(v + c)[y]),
        Equal(log_softmax(u) + logsumexp(u), u),
    )


@theorem(
    Source(PAPER, "P1 read too widely"),
    r"P_{u/2} = P_u",
    claim="C3",
    expect="refuted",
    instead=["order_survives_increasing_maps", "probabilities_survive_shifts"],
    u=Reals("V"),
)
def probabilities_survive_halving(u):
    """Probabilities depend on the order of utilities only, so that halving them changes nothing: false."""
    return Equal(softmax(u / 2), softmax(u))


@theorem(Source(PAPER, "P1 read too widely"), r"g^L \ge e \Rightarrow \tilde g^L \ge \tilde e", claim="C3",
         expect="refuted", instead=["order_survives_increasing_maps", "probabilities_survive_shifts"],
         p=Simplex("V"), gold=Index("V"), end=Index("V"), length=Positive(),
         witness={"p": [1, 8, 1], "gold": 1, "end": 0, "length": 6})  # fmt: skip
def exact_mode_is_ordinal(p, gold, end, length):
    """If the gold sentence is likelier than the empty one, it stays so after all utilities are halved: false.

    Exact mode search and wide beams compare sums of log-probabilities over contexts, and those are no order.
    """
    halved = softmax(log(p) / 2)
    return Given(length * log(p[gold]) - log(p[end]), then=NonNegative(length * log(halved[gold]) - log(halved[end])))
