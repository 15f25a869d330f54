"""Where the ends of the ranges lie for a small epsilon, and what all of them sum to (C3, C4).

H is the Hessian of the loss at the baseline, s = x_i^T H^-1 x_i, and u = H^-1 x_i / s the direction in which the logit
of i grows by one at the least cost.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sandbox.algebra import arrays_only, dot, mean, sigmoid, total, velocity
from sandbox.multiplicity import Baseline, directions, leverage, third_derivative
from sandbox.multiplicity.formulas import half_width, loss, second_order_end
from theory.multiplicity.ball import DATA, PAPER, variance
from theory.statement import (
    All,
    Equal,
    Moderate,
    NonZeros,
    Positive,
    Positives,
    Rate,
    Real,
    Reals,
    Source,
    Unit,
    theorem,
)

# -- C3: small epsilon -------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"D^2L[u,u] = \frac1n\sum_j p_j(1-p_j)(x_j\cdot u)^2 + \lambda\|u\|^2", claim="C3",
         **DATA, w0=Reals("d"), u=Reals("d"), ridge=Positive(), c=Real())  # fmt: skip
def second_derivative_of_the_loss(x, y, w0, u, ridge, c):
    """The loss bends along a direction by the variances of the labels, weighted by the squared steps of the logits."""
    bend = velocity(velocity(lambda c: loss(w0 + c * u, x, y, ridge)))(c)
    return Equal(bend, mean(variance(x @ (w0 + c * u)) * (x @ u) ** 2) + ridge * dot(u, u))


@theorem(Source(PAPER, "ours"), r"D^3L[u,u,u] = \frac1n\sum_j p_j(1-p_j)(1-2p_j)(x_j\cdot u)^3", claim="C3",
         **DATA, w0=Reals("d"), u=Reals("d"), ridge=Positive(), c=Real())  # fmt: skip
def third_derivative_of_the_loss(x, y, w0, u, ridge, c):
    """Its third derivative is that of each logit's term, in which a ridge has no part."""
    third = velocity(velocity(velocity(lambda c: loss(w0 + c * u, x, y, ridge))))(c)
    t = x @ (w0 + c * u)
    return Equal(third, mean(variance(t) * (1 - 2 * sigmoid(t)) * (x @ u) ** 3))


@theorem(Source(PAPER, "ours"), r"\frac{h^2}{2s} + \frac{\kappa h^3}{6} - \epsilon = O(\epsilon^2)", claim="C3",
         r=Positive(), kappa=Real(), root=Positive())  # fmt: skip
def the_printed_ends_solve_the_expansion(r, kappa, root):
    """With the two terms of the small-epsilon law the cubic expansion of the profile misses epsilon by its square.

    root is sqrt(2 s), r is sqrt(epsilon); what is left is a polynomial with the factor r^4.
    """
    s = root**2 / 2
    h = root * r - kappa * s**2 * r**2 / 3
    k = kappa * s**2 / 3
    left = h**2 / (2 * s) + kappa * h**3 / 6 - r**2
    rest = k**2 / (2 * s) + kappa / 6 * (-3 * root**2 * k + 3 * root * k**2 * r - k**3 * r**2)
    return Equal(left, r**4 * rest)


EPSILON = (1e-5, 1e-4, 1e-3, 1e-2)  # times the mean variance of a label; below, what the shift leaves is rounding


def one_slope(k):
    """A baseline of one coefficient, -k, on x = 1 ... 5; the labels that make it the best are its own risks."""
    x = jnp.arange(1.0, 6.0)[:, None]
    t, weight = -k * x[:, 0], jnp.full(5, 1 / 5)
    hessian = ((weight * variance(t)) @ x**2)[:, None]
    zero = jnp.zeros(())
    return Baseline(x, weight, jnp.full(1, -k), t, zero, hessian, zero, zero)


def ends_of_one_slope(k):
    """Levels of epsilon (4,), ends (4,) of the range of the first row above and below its logit, its s and kappa."""
    baseline = one_slope(k)
    levels = jnp.asarray(EPSILON) * (baseline.weight @ variance(baseline.logits))
    ends = jax.vmap(lambda level: directions(baseline, level, jnp.array([[1.0], [-1.0]])) @ baseline.x[0])(levels)
    return levels, ends[:, 0], ends[:, 1], leverage(baseline)[0], third_derivative(baseline)[0]


@theorem(Source(PAPER, "ours"), r"\tfrac12(t^+ - t^-) = \sqrt{2\epsilon s}\,(1 + O(\epsilon))", claim="C3",
         expect="checked", k=Unit())  # fmt: skip
def half_width_of_a_range(k):
    """Half the width of a viable range of logits is sqrt(2 epsilon s), up to a share that falls like epsilon.

    Tried on one coefficient, within 0.1 of the slope; the experiment has real data.
    """
    arrays_only("a search for the ends")
    levels, high, low, s, _ = ends_of_one_slope(k)
    return Rate(levels, (high - low) / 2 / half_width(levels, s) - 1, 1, 0.1)


@theorem(Source(PAPER, "ours"), r"\tfrac12(t^+ + t^-) - t^0 = -\tfrac13\kappa s^2\epsilon\,(1 + O(\epsilon))",
         claim="C3", expect="checked", k=Unit())  # fmt: skip
def shift_of_a_range(k):
    """Its middle lies kappa s^2 epsilon / 3 below the logit, kappa the third derivative: with a like error."""
    arrays_only("a search for the ends")
    levels, high, low, s, kappa = ends_of_one_slope(k)
    middle = (second_order_end(levels, s, kappa) + second_order_end(levels, s, kappa, -1)) / 2
    return Rate(levels, (high + low) / 2 / middle - 1, 1, 0.1)


# -- C4: the budget ----------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"\overline{p(1-p)s} = \sum_j \frac{h_j}{h_j+\lambda}",
         claim="C4", z=NonZeros("n", "d"), v=Positives("n"), ridge=Positive())  # fmt: skip
def budget_of_multiplicity(z, v, ridge):
    """What all squared half-widths sum to, weighted by p (1 - p), is set by the number of coefficients.

    In the basis of the eigenvectors of the Hessian, which is diagonal there: z are the examples, v the variances of the
    labels, h the eigenvalues. Without a ridge the sum is d.
    """
    h = v @ (z * z) / total(1 + 0 * v)
    s = (z * z) @ (1 / (h + ridge))
    free = mean(v * ((z * z) @ (1 / h)))
    return All(
        Equal(mean(v * s), total(1 + 0 * h) - total(ridge / (h + ridge))),
        Equal(free, total(1 + 0 * h)),
    )


@theorem(Source(PAPER, "ours"), r"\overline{p(1-p)s} = tr\,H_L(H_L + \lambda I)^{-1}", claim="C4", expect="checked",
         x=Reals("n", "d"), t=Reals("n"), ridge=Moderate())  # fmt: skip
def budget_of_a_baseline(x, t, ridge):
    """The squared half-widths, weighted by p (1 - p), sum to d in any basis; with a ridge to less.

    H_L is the Hessian without the ridge."""
    arrays_only("the inverse of a matrix")
    weight = jnp.full(t.shape, 1 / t.size)
    part = (x * (weight * variance(t))[:, None]).T @ x
    hessian = part + ridge * jnp.eye(x.shape[1])
    nothing = jnp.zeros(())
    baseline = Baseline(x, weight, 0 * x[0], t, nothing, hessian, ridge, nothing)
    return Equal(weight @ (variance(t) * leverage(baseline)), jnp.trace(jnp.linalg.solve(hessian, part)))
