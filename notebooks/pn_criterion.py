# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Are there data enough for this model?
# *45 minutes; it runs in under a minute on a laptop.* Every model is wrong, and yours has $p$ parameters. With $n$ data
# points you fit it by maximum likelihood. Somebody asks: **is $n$ large enough for $p$?** AIC will not tell: it says
# which of two models is better, not whether either is settled.
#
# This notebook follows Sheena (2021), *MLE convergence speed to information projection of exponential family*,
# arXiv:2105.08947. Of the paper we know the coefficients and the threshold from its author's programs; what we derived
# ourselves is marked *ours*.
#
# **You need** the softmax, a Taylor series, and variances.
# **Afterwards you can** split the error of a wrong model in two, expand the second part to the order $n^{-2}$, turn it
# into a yes or no, and say what the answer does not see.
#
# Logarithms are natural: divergences are in nats. We work in float64.

# %%
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from sandbox import runtime
from sandbox.expfam import criterion, curved, exact, finite, gaussian, terms
from sandbox.measures import log_kl
from theory.pn_criterion import curves, draws, expansion, families, geometry, scores, telling
from theory.proof import holds, prove

runtime.configure(x64=True)
plt.style.use("experiments.house")
assert jnp.ones(1).dtype == jnp.float64


def show(*claims):
    """Prove or refute, now, and insist on the verdict that each claim announces."""
    for claim in claims:
        verdict = prove(claim)
        print(f"{claim.statement}\n    {verdict}")
        assert holds(claim, verdict), claim


# %% [markdown]
# ## 1. The puzzle
# A die with four faces, $x = 0, 1, 2, 3$. The truth is $g = (.1, .1, .1, .7)$. Our model is a softmax with one number:
# $p_\theta(x) \propto e^{\theta x}$. It is wrong: no $\theta$ gives $g$. The fit to $n$ throws is $\hat g$.
#
# As $n$ grows, $\hat g$ goes somewhere. Where? And how far from there is it at $n = 100$: guess a number of nats.

# %%
features = jnp.arange(4.0)[:, None]
truth = jnp.array([0.1, 0.1, 0.1, 0.7])
star = finite.log_law(features, finite.project(features, truth).theta)
print("truth     ", np.round(truth, 3))
print("projection", np.round(jnp.exp(star), 3), f"at KL(g || g*) = {log_kl(jnp.log(truth), star):.4f} nats")

counted = jax.jit(lambda q: exact.risk([[0], [1], [2], [3]], q, [100, 200, 400, 800]))(truth)
sizes = np.array([100, 200, 400, 800])
exact.check_lost(counted.lost, sizes.tolist())
for n, risk in zip(sizes, counted.forward, strict=True):
    print(f"n = {n}: E KL(g* || fit) = {risk:.7f} nats, {n * risk:.5f} / n")
assert abs(float(counted.forward[0]) - 0.0074336588) < 1e-10

# %% [markdown]
# It goes to $g^*$, the **information projection**: the member of the model that is closest to the truth. The distance
# from there was counted, not simulated: the sum of 100 throws has 301 values, each with its probability and its fit.
# (If every throw shows the same face there is no fit at all. That happens with probability $10^{-16}$ here; the code
# reports it and refuses an $n$ at which it exceeds $10^{-6}$, since the risk would be infinite.)
#
# The number is close to $.72/n$. Not $\frac12/n$, which a textbook promises for one parameter: the model is wrong.
#
# ## 2. Two errors that add
# $\theta^*$ is where the model's mean of $x$ is the truth's; the fit is where it is the sample's. Then divergences add
# like squared lengths at a right angle: for every $\theta$
# $$KL(g\,\|\,p_\theta) = KL(g\,\|\,g^*) + KL(g^*\,\|\,p_\theta).$$
# The first term is the model's own error, and no data will lower it. The second is the **risk** of this notebook. In
# this project *a theorem is a function whose body is the claim*: called with arrays it is a test, with symbols it is
# proved. Turn every divergence round and it is false.

# %%
print(inspect.getsource(geometry.pythagoras.body))
show(geometry.projection_matches_the_means, geometry.pythagoras, geometry.pythagoras_reversed)

# %% [markdown]
# ## 3. A Taylor series of the sample mean
# The fit is a function of the sample mean $\bar x = \eta^* + \delta$, and so is the risk. With
# $\psi = \log\sum e^{\theta x}$
# it is a gap between $\psi$ and its tangent. Expand it in $\delta$: the derivatives are made of the **model's**
# cumulants
# $V, \kappa_3, \kappa_4$, since $\psi', \psi'', \ldots$ are cumulants. Then take the mean over samples: the
# moments of $\delta$
# are made of the **truth's** cumulants $\Sigma, \kappa_3^g$. That is all:
# $$R(n) = \frac an + \frac b{n^2} + O(n^{-3}),\qquad a = \frac{t_0}2,\quad b = \frac{-8t_1 + 9t_2 - 3t_3}{24},$$
# for one statistic with $t_0 = \Sigma/V$, $t_1 = \kappa_3^g\kappa_3/V^3$, $t_2 = 3\kappa_3^2\Sigma^2/V^5$,
# $t_3 = 3\kappa_4\Sigma^2/V^4$.

# %%
show(geometry.risk_is_a_bregman_divergence, expansion.moments_of_the_mean, expansion.second_order_risk)
found = finite.terms_at(features, jnp.exp(star), truth)
a, b = terms.risk(found)
print(f"a = {a:.5f}, b = {b:.5f}")
assert abs(a - 0.71927) < 1e-8 and abs(b - 2.26887003) < 1e-8

# %% [markdown]
# Does it hold? Take $c(n) = n^2 (R(n) - a/n)$. It must go to $b$ along a straight line in $1/n$. A formula with a wrong
# sign, or with the truth's cumulant where the model's belongs, goes elsewhere. And so does the other **direction**,
# $KL(\hat g\,\|\,g^*)$: the same $a$, another $b$ (*ours*).

# %%
b_reverse = terms.reverse_risk(found).b
figure, ax = plt.subplots(figsize=(5.2, 3))
for k, (name, risks, end) in enumerate((("forward", counted.forward, b), ("reverse", counted.reverse, b_reverse))):
    c = sizes**2 * (np.asarray(risks) - a / sizes)
    ax.plot(1 / sizes, c, "os"[k], color=f"C{k}")
    ax.plot([0, 1 / 100], [end, end + (c[0] - end)], color=f"C{k}", ls="-", lw=1)
    ax.plot(0, end, "*", ms=11, color=f"C{k}", clip_on=False)
    ax.annotate(name, (1 / 100, c[0]), (-4, -12), textcoords="offset points", ha="right", color=f"C{k}")
    assert abs(2 * c[-1] - c[-2] - end) < 0.01 * abs(end)
ax.set(xlabel="1 / n", ylabel="c(n), nats", xlim=(0, None), ylim=(0, 2.8), title="stars: b from the cumulants")
show(expansion.second_order_reverse_risk, expansion.direction_does_not_matter)

# %% [markdown]
# ## 4. Right models: a table
# If the model is right, $\Sigma = V$ and so on: $t_0 = p$ and $a = p/2$. The second order tells families apart. For one
# parameter it needs only the variance as a function of the mean (*ours*): $b = (10 V'^2/V - 9V'')/24$.

# %%
show(families.well_specified_by_the_variance_function, families.risks_of_right_models, families.risk_of_normal_laws)
show(expansion.risk_of_categories, families.second_order_can_be_negative)
for d in (1, 2, 5, 10, 20):
    of_normal = terms.risk(gaussian.terms(gaussian.normal_moments(float(d)), float(d)))
    n = np.arange(23, 6000)
    smallest = n[np.argmax(np.asarray(gaussian.exact_risk(n, d)) <= 0.02)]
    first, second = of_normal.a / 0.02, criterion.draws_needed(of_normal, 0.02)
    p = d * (d + 3) // 2
    print(f"N_{d:<2d}  p = {p:3d}: risk .02 needs n = {smallest} exactly; first order {first:.0f}, both {second:.1f}")
    assert abs(smallest - second) < 1.5

# %% [markdown]
# ## 5. How small is small?
# A risk of .02 nats: is that good? Let somebody see **one** draw, from $g^*$ or from $\hat g$, at even odds, and guess
# which. The best guesser errs with probability $Er = \frac12\sum\min(g^*, \hat g)$, at most $\frac12$. By Pinsker's
# inequality $Er \ge \frac12 - \sqrt{D/8}$. So if $R \le 8\alpha^2$, the mean error is at least
# $\frac12 - \alpha$: nobody
# does much better than a coin. The author's programs use $\alpha = .05$, hence .02.

# %%
show(telling.no_test_sees_more, telling.pinsker_for_a_test, telling.close_laws_cannot_be_told_apart)
show(telling.mean_risk_bounds_the_mean_error, telling.the_constant_is_sharp)

# %% [markdown]
# ## 6. The criterion
# First order: accept if $t_0/2n \le 8\alpha^2$. With $t_0 = p$ and $\alpha = .05$ that reads **$n \ge 25p$**. With both
# orders, accept from $n^* = (a + \sqrt{a^2 + 4bc})/2c$ on, $c = 8\alpha^2$. And the difference between the two is
# (*ours*) a constant: $n^* = a/c + b/a$ and a little less, **whatever $\alpha$ is**. Move $\alpha$ and see.

# %%
show(draws.first_order_criterion, draws.second_order_criterion, draws.second_order_adds_a_constant)
for alpha in (0.1, 0.05, 0.02, 0.01):
    allowed = criterion.allowed_risk(alpha)
    of_both = terms.Expansion(a, b)
    first, second = criterion.draws_needed_first(of_both, allowed), criterion.draws_needed(of_both, allowed)
    more = second - first
    print(f"alpha = {alpha}: {first:7.1f} draws, {second:7.1f} with both orders, {more:.3f} more (b/a = {b / a:.3f})")
    assert second - first <= b / a

# %% [markdown]
# ## 7. What it does not see
# The criterion is about the second error alone. *Ours*, the purest example: a $2\times2$ table, and independence
# of rows
# and columns as the model. Its $t_0$ is **exactly** $p = 2$ for every table, however dependent.

# %%
table = jnp.array([0.4, 0.1, 0.1, 0.4])
rows_and_columns = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
product = finite.log_law(rows_and_columns, finite.project(rows_and_columns, table).theta)
blind = finite.terms_at(rows_and_columns, jnp.exp(product), table)
print(
    f"t0 = {blind.t0:.12f}, b = {terms.risk(blind).b:.4f}, and KL(g || g*) = {log_kl(jnp.log(table), product):.3f} nats"
)
assert abs(blind.t0 - 2) < 1e-12
show(draws.dependence_is_not_seen, draws.full_marks_mean_a_right_model, draws.saturated_models_always_get_p)

# %% [markdown]
# ## 8. And AIC?
# AIC asks how much the training loss flatters. Twice the same expansion answers (*ours*): the gap between test and
# training loss is the sum of both directions of the risk. So TIC's penalty $2t_0$ is half risk, half flattery, and the
# second order of the flattery is the small-sample correction. For normal models it is $p(d+2)/n^2$: AICc's correction,
# made for regressions, is that number at $d = 1$ and too large beyond.

# %%
show(scores.both_directions_together, scores.second_order_optimism, scores.optimism_of_normal_laws)
show(scores.aicc_of_normal_laws)

# %% [markdown]
# Beyond exponential families there are three informations: $I$ under the model, $J$ and $K$ under the truth. The
# risk is
# $a = IK/2J^2$, while TIC has $K/2J$. Take three faces with $(\theta, \theta^2, 1-\theta-\theta^2)$:

# %%
show(curves.curvature_parts_the_informations, curves.first_order_is_half_of_tic_only_if)


def trinomial(theta):
    return jnp.stack([jnp.log(theta), 2 * jnp.log(theta), jnp.log(1 - theta - theta**2)])


three = curved.informations(trinomial, 0.5, jnp.array([0.2, 0.5, 0.3]))
print(f"I, J, K = {three.model:.1f}, {three.true:.1f}, {three.score:.1f}; a = {curved.first_order(three):.4f}, "
      f"half of TIC's penalty {curved.tic_penalty(three):.4f}")  # fmt: skip
assert abs(curved.first_order(three) - 0.44191919) < 1e-8

# %% [markdown]
# ## 9. Your own table
# ```
# python -m experiments.pn_criterion --data FILE.csv --model gaussian --alpha 0.05
# ```
# estimates $t_0$ and $b$ with intervals, both $n^*$, and names the rows that pull the fit most. For the normal model
# $a = (d + \beta)/4$ with Mardia's kurtosis $\beta$: heavy tails cost draws.

# %%
show(families.risk_of_the_normal_model)
rows = jax.random.t(runtime.root_key(1), 5.0, (400, 2))
of_tails = gaussian.terms(gaussian.moments(gaussian.whitened(rows)), 2)
print(f"400 rows with heavy tails: t0 = {of_tails.t0:.1f} instead of p = 5")
assert of_tails.t0 > 6

# %% [markdown]
# ## 10. Exercises
# 1. A fair coin, $n = 20$. Compute $a/n + b/n^2$ with $b = (5/v - 11)/12$, $v = q(1-q)$.
# 2. Which number of categories $K$, all equally likely, needs 1,000 draws at $\alpha = .05$ to first order? How
#    many more
#    does the second order ask for?
# 3. Gaussian shifts: $D = \mu^2/2$ and $Er = \Phi(-\mu/2)$. By what factor could the threshold $8\alpha^2$ be raised
#    for them, as $\mu \to 0$?
#
# **Answers.** 1. $b = (20 - 11)/12 = .75$: $.025 + .001875 = .026875$; counted, given that a fit exists, .0272.
# 2. $25(K-1) = 1000$, $K = 41$; $b/a = (5K - 1)/6 = 34$ more. 3. $\frac12 - Er \approx \mu/2\sqrt{2\pi}$ against
# $\sqrt{D/8} = \mu/4$: ratio $\sqrt{2/\pi}$, so $8\alpha^2$ may be $\pi/2$ times as large, $4\pi\alpha^2$.

# %%
v = 0.25
assert abs(0.5 / 20 + (5 / v - 11) / 12 / 20**2 - 0.026875) < 1e-12
K = 41
uniform = terms.risk(finite.terms_at(jnp.eye(K)[:, 1:], jnp.full(K, 1 / K), jnp.full(K, 1 / K)))
assert abs(uniform.a / 0.02 - 1000) < 1e-9 and abs(uniform.b / uniform.a - (5 * K - 1) / 6) < 1e-9
show(telling.normal_shifts_stay_below)
