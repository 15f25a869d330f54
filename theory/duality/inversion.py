"""Residual inversion (ours): the data law comes back out of utilities, and how the link changes with time (C7-C9).

None of this is the paper's own equation, which is not known to us. A run of maximum likelihood adds
eta (target - softmax(u)) to u at every step; summed up and divided by the sum of the step sizes, that gives the law.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from sandbox import utility
from sandbox.algebra import (
    arrays_only,
    dot,
    exp,
    grad,
    log,
    mean,
    onehot,
    sigmoid,
    softmax,
    tanh,
    total,
    velocity,
)
from sandbox.dynamics import flow
from theory.duality.choice import PAPER
from theory.statement import (
    All,
    Below,
    Equal,
    Given,
    Grows,
    Index,
    NonNegative,
    Positive,
    Positives,
    Rate,
    Reals,
    Simplex,
    Source,
    Tends,
    Unit,
    theorem,
)

# -- C7: residual inversion, exactly -----------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours, for P4: residual inversion"),
         r"\hat q := \bar P + (u_T - u_0)/H = \textstyle\sum_t \eta_t e_{y_t}/H", claim="C7",
         start=Reals("V"), u=Reals("V"), probs=Positives("V"), weight=Positive(), y=Index("V"), batch=Simplex("V"),
         eta=Positive())  # fmt: skip
def inversion_counts_what_was_observed(start, u, probs, weight, y, batch, eta):
    """After any run, of any steps in any order, the inverted law is the weighted frequency of what was observed.

    By induction: the first step gives what it saw, an output or a batch; and one more step on an output y, after a run
    that left utilities u, a sum ``probs`` and a weight, moves the inverted law as it moves the frequency.
    """
    before = utility.Sums(u, probs, weight, 1)
    after = utility.advance(before, onehot(y, u), eta)
    counted = (weight * utility.decayed_inverse(before, start) + eta * onehot(y, u)) / (weight + eta)
    return All(
        Equal(utility.decayed_inverse(after, start), counted),
        Equal(utility.decayed_inverse(utility.advance(utility.run_sums(start), batch, eta), start), batch),
    )


@theorem(Source(PAPER, "ours, for P4: residual inversion"), r"\hat q = q \text{ at every } T", claim="C7",
         start=Reals("V"), u=Reals("V"), probs=Positives("V"), weight=Positive(), q=Simplex("V"),
         eta=Positive())  # fmt: skip
def inversion_of_full_batches_is_the_law(start, u, probs, weight, q, eta):
    """With the data law itself as target, every step keeps the inverted law where it is: at q from the first step on.

    The left side is what the sums of a run miss of q, times their weight; a step does not change it.
    """

    def missed(sums):
        return sums.weight * (q - utility.decayed_inverse(sums, start))

    before = utility.Sums(u, probs, weight, 1)
    return Equal(missed(utility.advance(before, q, eta)), missed(before))


@theorem(Source(PAPER, "ours, for P4: residual inversion"),
         r"\hat q = \bar P_\omega + (u_T - u_0\textstyle\prod_s(1-\eta_s\lambda))/\sum\omega", claim="C7",
         start=Reals("V"), u=Reals("V"), probs=Positives("V"), weight=Positive(), kept=Positive(), target=Simplex("V"),
         eta=Positive(), decay=Positive())  # fmt: skip
def inversion_under_weight_decay(start, u, probs, weight, kept, target, eta, decay):
    """Weight decay only changes the weights: omega_t = eta_t prod_{s > t} (1 - eta_s decay).

    One more step shrinks what the sums miss of the target law by 1 - eta decay, and the first step misses nothing. That
    is for eta decay <= 1: beyond it weights change sign, and where they add up to 0 there is no inverse.
    """

    def missed(sums):
        return sums.weight * (target - utility.decayed_inverse(sums, start))

    before = utility.Sums(u, probs, weight, kept)
    first = utility.advance(utility.run_sums(start), target, eta, decay)
    shrinks = Equal(missed(utility.advance(before, target, eta, decay)), (1 - eta * decay) * missed(before))
    return Given(1 - eta * decay, then=All(shrinks, Equal(utility.decayed_inverse(first, start), target)))


@theorem(Source(PAPER, "ours, for P4: residual inversion"), r"q = \mathrm{softmax}(u) + \nabla\Omega(u)", claim="C7",
         u=Reals("V"), v=Reals("V"), q=Simplex("V"), lam=Positive())  # fmt: skip
def law_at_a_penalised_optimum(u, v, q, lam):
    """Where a penalised loss stands still, the data law is softmax(u) plus the slope of the penalty.

    Shown for lam |u - v|^2 / 2: the gradient is the distance of that law from q, and 0 exactly where they agree.
    """
    gradient = utility.stationary_defect(u, q, lambda u: lam * dot(u - v, u - v) / 2)
    return Equal(gradient, utility.penalised_law(u, lam * (u - v)) - q)


@theorem(Source(PAPER, "ours, for P4: residual inversion"), r"q = (P - s/K)/(1-s)", claim="C7", u=Reals("V"),
         q=Simplex("V"), s=Unit())  # fmt: skip
def law_behind_label_smoothing(u, q, s):
    """Trained on smoothed labels (1 - s) q + s/K, a table that stands still gives q back."""
    smoothed = (1 - s) * q + s / total(1 + 0 * q)
    gradient = utility.stationary_defect(u, smoothed, lambda u: 0 * u[0])
    return Equal(utility.unsmoothed(softmax(u), s) - q, gradient / (1 - s))


@theorem(Source(PAPER, "ours, negative control"), r"(P - s/K)/(1-s) \ge 0", claim="C7", expect="refuted",
         instead=["law_behind_label_smoothing"], p=Simplex("V"), s=Unit())  # fmt: skip
def unsmoothing_stays_in_the_simplex(p, s):
    """Taking label smoothing back always leaves a law: false for an output that is rarer than s/K."""
    return NonNegative(utility.unsmoothed(p, s))


@theorem(Source(PAPER, "ours, for P4: residual inversion"),
         r"u_{t+1} - u_t = \eta\,\Theta(\text{target} - P_t),\; \Theta = \Phi\Phi^T", claim="C7", phi=Reals("V", "d"),
         w=Reals("d"), target=Simplex("V"), eta=Positive())  # fmt: skip
def linear_models_add_the_kernel_times_the_residual(phi, w, target, eta):
    """With features the residuals come through the kernel: q = P + Theta^-1 (u_T - u_0) / H if it can be inverted."""
    after = w - eta * grad(lambda w: utility.loss(phi @ w, target))(w)
    return Equal(phi @ after - phi @ w, eta * (phi @ ((target - softmax(phi @ w)) @ phi)))


@theorem(Source(PAPER, "ours, negative control"), r"\text{momentum}", claim="C7", expect="refuted",
         instead=["inversion_counts_what_was_observed"], start=Reals("V"), q=Simplex("V"), mu=Unit())  # fmt: skip
def inversion_ignores_the_optimiser(start, q, mu):
    """Two steps of size 1 with momentum mu can be inverted as if they were plain: false, the true weights are needed.

    The first residual is added once and mu times more.
    """
    first = q - softmax(start)
    between = start + first
    end = between + (q - softmax(between)) + mu * first
    return Equal(utility.inverted((softmax(start) + softmax(between)) / 2, start, end, 2), q)


# -- C8: from end points alone -----------------------------------------------------------------------------------------


def two_steps(q, start, eta):
    """Utilities after two full-batch steps towards q, and the mean of the probabilities before each."""
    between = utility.step(start, q, eta)
    return utility.step(between, q, eta), (softmax(start) + softmax(between)) / 2


@theorem(Source(PAPER, "ours, for P4"), r"q = \bar P[q] + (u_T - u_0)/\eta T", claim="C8", start=Reals("V"),
         q=Simplex("V"), eta=Positive(), r=Simplex("V"))  # fmt: skip
def the_law_is_a_fixed_point(start, q, eta, r):
    """The law is a fixed point of simulating the run towards a guess and inverting with its mean probabilities.

    And what a sweep leaves of a wrong guess r is how far the run towards it misses the end, over the step sizes' sum.
    Written out for two steps.
    """
    end, mean_probs = two_steps(q, start, eta)
    other_end, other_probs = two_steps(r, start, eta)
    missed = (end - other_end) / (2 * eta)
    return All(
        Equal(utility.inverted(mean_probs, start, end, 2 * eta), q),
        Equal(utility.inverted(other_probs, start, end, 2 * eta) - r, missed),
    )


@theorem(Source(PAPER, "ours; convergence observed, not proved"), r"\lim_k q_k = q", claim="C8", expect="checked",
         start=Reals("V"), q=Simplex("V"), eta=Below(2))  # fmt: skip
def sweeps_find_the_law(start, q, eta):
    """From the end points of five full-batch steps of size below 2 the sweeps converge to the law, from softmax(u_T).

    Utilities start between -1 and 1; 200 sweeps.
    """
    arrays_only("an iteration")
    first = jnp.tanh(start)
    end, _ = utility.forward(q, first, eta, 5)
    guess, _ = lax.scan(lambda r, _: (utility.sweep(r, first, end, eta, 5), None), softmax(end), None, length=200)
    return Equal(guess, q)


# -- C9: the link changes with training time ---------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\tfrac{d}{dh}P_{h(q-1/K)}|_{h=0} = \tfrac1K(q - \tfrac1K)", claim="C9",
         q=Simplex("V"))  # fmt: skip
def early_link_is_linear(q):
    """From a uniform start q = 1/K + (u - mean u)/h + (P - 1/K): what the linear link lacks is the mean of P - 1/K.

    That grows like t (q - 1/K)/K, whose mean up to h is (h/2K)(q - 1/K). After a single step it lacks nothing.
    """
    uniform = 1 / total(1 + 0 * q)
    return All(
        Equal(velocity(lambda h: softmax(h * (q - uniform)))(0), uniform * (q - uniform)),
        Equal(utility.linear_link(utility.step(0 * q, q, 2), 2), q),
    )


@theorem(
    Source(PAPER, "ours"), r"\dot u = q - \tfrac1K - \tfrac1K(u - \bar u)", claim="C9", q=Simplex("V"), h=Positive()
)
def corrected_link_solves_the_linear_flow(q, h):
    """The corrected link inverts u = (1 - e^(-h/K)) (K q - 1), the flow with softmax linear about uniform: O(h^2)."""
    uniform = 1 / total(1 + 0 * q)

    def u(h):
        return (1 - exp(-h * uniform)) * (q / uniform - 1)

    return All(
        Equal(velocity(u)(h), q - uniform - uniform * (u(h) - mean(u(h)))),
        Equal(utility.corrected_link(u(h), h), q),
    )


@theorem(Source(PAPER, "ours"), r"\hat q_{lin} - q = O(h),\; \hat q_{corr} - q = O(h^2)", claim="C9", expect="checked",
         k=Unit())  # fmt: skip
def orders_of_the_early_links(k):
    """The error of the linear link grows like h and that of the corrected one like h^2.

    For the law (6 + k, 3, 1)/(10 + k), flow integrated, h from 1e-3 to 1e-1.
    """
    arrays_only("a fitted slope")
    q = jnp.stack([6 + k, 3 + 0 * k, 1 + 0 * k]) / (10 + k)
    h = jnp.concatenate([jnp.zeros(1), 10.0 ** jnp.linspace(-3, -1, 9)])
    path = flow(residual_of, 0 * q, h, (q,), substeps=4)[1:]
    linear, corrected = (jax.vmap(link)(path, h[1:]) - q[None, :] for link in
                         (utility.linear_link, utility.corrected_link))  # fmt: skip
    # within: the next power of h, at h / K up to 1/30
    return All(
        Rate(h[1:], jnp.max(jnp.abs(linear), axis=1), 1, within=0.02),
        Rate(h[1:], jnp.max(jnp.abs(corrected), axis=1), 2, within=0.02),
    )


def residual_of(u, q):
    """The velocity of utilities under gradient flow towards q."""
    return q - jax.nn.softmax(u)


@theorem(Source(PAPER, "ours"), r"t = -\frac{xd + 2\ln(\cosh\frac d2 - \frac1x\sinh\frac d2)}{1-x^2}", claim="C9",
         k=Positive(), s=Positive())  # fmt: skip
def clock_of_two_outputs(k, s):
    """For two outputs the time of gradient flow is a closed form of the gap d, from 0 on, while tanh(d/2) < x < 1.

    Here d = log(1 + k), tanh(d/2) = k/(k + 2) and x = (k + 2 s)/(k + 2 s + 2); both sides are multiplied by 1 - x^2.
    """
    x = (k + 2 * s) / (k + 2 * s + 2)
    return Grows(
        lambda d: (1 - x**2) * utility.binary_clock(d, x), lambda d: x - tanh(d / 2),
        at=log(1 + k), start=0 * k, by=1 - x**2, begins=0,
    )  # fmt: skip


@theorem(Source(PAPER, "ours"), r"d = 2t + 1 - W(e^{2t+1}) \;(x = 1)", claim="C9", t=Positive())
def one_hot_flow(t):
    """Where one of two outputs is certain the gap solves the flow with d + e^d = 2 t + 1 (W is Lambert's function)."""
    d = utility.one_hot_margin(t)
    return All(
        Equal(velocity(utility.one_hot_margin)(t), 1 - tanh(d / 2)),
        Grows(lambda d: d + exp(d), lambda d: 1 - tanh(d / 2), at=d, start=0 * t, by=2, begins=1),
    )


@theorem(Source(PAPER, "ours"), r"P(\text{wrong}) \sim 1/2t", claim="C9", expect="checked", k=Unit())
def a_certain_output_is_learned_slowly(k):
    """Then the probability of the other output vanishes like 1 / (2 t), here k times 2 t P."""
    return Tends(lambda t: 2 * k * t * sigmoid(-utility.one_hot_margin(t)), "oo", k)


@theorem(Source(PAPER, "ours"), r"\hat q_{stopped} - \hat q_{\lambda = 1/H} = \bar P - P_T", claim="C9",
         mean_probs=Simplex("V"), u=Reals("V"), weight=Positive())  # fmt: skip
def early_stopping_is_weight_decay(mean_probs, u, weight):
    """Stopping from u_0 = 0 at H and a penalty |u|^2 / 2H invert alike: the laws differ by the mean of P less the last.

    q = P_mean + u/H against q = P_last + u/H.
    """
    stopped = utility.inverted(mean_probs, 0 * u, u, weight)
    penalised = utility.penalised_law(u, grad(lambda u: dot(u, u) / (2 * weight))(u))
    return Equal(stopped - penalised, mean_probs - softmax(u))
