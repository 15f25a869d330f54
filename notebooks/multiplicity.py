# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Equally good models, different verdicts
# *45 minutes; it runs in seconds on a laptop.* You fit a logistic model that decides about people. Another model, whose
# loss is worse by one percent, would have been just as acceptable. **How far could it have moved one person's risk?**
# This notebook answers that exactly, after Watson-Daniels, Parkes and Ustun (2023), *Predictive Multiplicity in
# Probabilistic Classification*, arXiv:2206.01131. The definitions are theirs; the KL ball, and all that follows from
# it, is ours.
#
# **You need** logistic regression, convexity, and the Kullback-Leibler divergence.
# **Afterwards you can** compute the range of risks that near-optimal models give a person, with a certificate; say from
# $\epsilon$ and $\delta$ alone how many people one replacement model could move; and predict who has a wide range.
#
# Logarithms are natural, losses are means over people, in nats. We work in float64.

# %%
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.multiplicity.real import read
from sandbox import multiplicity as m
from sandbox import runtime
from sandbox.multiplicity.formulas import half_width, pinsker_cost, universal_bound
from theory.multiplicity import ball, counts, ends
from theory.proof import holds, prove

runtime.configure(x64=True)
plt.style.use("experiments.house")
assert jnp.ones(1).dtype == jnp.float64

# %% [markdown]
# ## 1. The puzzle
# A hundred irises of two species, four measurements, an intercept: five coefficients $w$, risks
# $g_w(x) = \sigma(w \cdot x)$, loss $L(w)$. The best model is $w_0$. Allow one percent more loss.

# %%
x, y = read("iris")
best = m.fit(x, y)
epsilon = 0.01 * best.loss
found = m.ranges(best, epsilon)
low, high = jax.nn.sigmoid(found.low), jax.nn.sigmoid(found.high)
who = int(jnp.argmax(high - low))
print(f"best loss {best.loss:.6f} nats; the widest range: risk {best.risk[who]:.3f}, but from {low[who]:.3f} "
      f"to {high[who]:.3f} among models that are worse by 1%")  # fmt: skip
assert abs(float(best.loss) - 0.059493) < 1e-6 and high[who] - low[who] > 0.2

figure, ax = plt.subplots(figsize=(5.6, 3))
order = np.argsort(best.risk)
ax.vlines(np.arange(100), low[order], high[order], lw=1.5)
ax.plot(np.asarray(best.risk)[order], "k.", ms=2)
ax.set(xlabel="irises, sorted by risk", ylabel="risk of being virginica", title="viable ranges at 1% of the loss")
assert jnp.all(low < best.risk) and jnp.all(best.risk < high)

# %% [markdown]
# Those bars are **viable prediction ranges** over the **level set** $S_\epsilon = \{w : L(w) \le L(w_0) + \epsilon\}$.
# Before you read on: which property of a person makes the bar long? Being near the border? Being unusual?
#
# ## 2. The level set is a ball of KL
# The labels have done their work once $w_0$ is known. At the optimum $\sum_i (y_i - p_i^0) x_i = 0$, so labels may be
# replaced by the best model's risks $p^0$, and then
# $$L(w) - L(w_0) = \frac1n \sum_i KL(p_i^0 \,\|\, g_w(x_i)).$$
# Exactly, not to second order. In this project *a theorem is a function whose body is the claim*; with symbols it is
# proved, for any number of people and coefficients. Away from the optimum a gradient term remains, which the statement
# shows.


# %%
def show(*claims):
    """Prove or refute, now, and insist on the verdict that each claim announces."""
    for claim in claims:
        verdict = prove(claim)
        print(f"{claim.statement}\n    {verdict}")
        assert holds(claim, verdict), claim


print(inspect.getsource(ball.level_set_is_a_kl_ball.body))
show(ball.level_set_is_a_kl_ball, ball.level_set_with_a_ridge, ball.kl_the_other_way_round)
other = best.w + 0.3 * found.u_high[who]
p0, p = best.risk, jax.nn.sigmoid(x @ other)
assert np.isclose(m.excess(best, 0.3 * found.u_high[who]), jnp.mean(pinsker_cost(p0, p)), rtol=1e-9)

# %% [markdown]
# So multiplicity has a currency. A model owns a **budget** of $n\epsilon$ nats, and moving person $i$ from $p_i^0$ to
# $q$ costs $KL(p_i^0 \| q)$. The direction matters: the other way round the claim is refuted.
#
# ## 3. One person, exactly
# The end of person $i$'s range maximises $x_i \cdot w$ over a convex set. Its conditions
# $$\nabla L(w) = \tau\, x_i, \qquad L(w) = L(w_0) + \epsilon$$
# are $d + 1$ equations, solved by Newton's method, for all people at once. How do we know that the answer is right?
# From inside, the model *is in the set*. From outside, convexity: any model whose gradient is $\tau x_i$ up to a rest
# bounds what every other one can do.

# %%
show(ball.outer_certificate, ball.inner_certificate)
value = m.excess(best, found.u_high[who])
print(f"excess of the extremal model: epsilon times {value / epsilon:.14f}")
print(f"no range of the hundred can be longer by more than {jnp.max(found.gap):.1e} of a logit")
assert value <= epsilon * (1 + 1e-11) and jnp.max(found.gap) < 1e-9

# a second opinion: the paper's candidate models, the least loss at which a given risk is possible
grid = jnp.broadcast_to(jnp.linspace(-3, 3, 7), (100, 7))
possible = m.candidates(best, grid) <= epsilon
assert jnp.array_equal(possible, (grid >= found.low[:, None]) & (grid <= found.high[:, None]))

# %% [markdown]
# ## 4. Who has a wide range?
# For a small $\epsilon$, with $H$ the Hessian at $w_0$ and $s_i = x_i^\top H^{-1} x_i$, the logit's range is
# $t_i \pm \sqrt{2 \epsilon s_i}$, and the risk's half-width $p_i(1 - p_i)\sqrt{2\epsilon s_i}$: both answers to the
# question were right, and they multiply. The relative error falls like $\epsilon$.

# %%
s = m.leverage(best)
law = half_width(epsilon, s) * best.risk * (1 - best.risk)
figure, ax = plt.subplots(figsize=(4.6, 3))
ax.plot(law, (high - low) / 2, "o", mfc="white")
ax.plot([0, law.max()], [0, law.max()], "k-", lw=1)
ax.set(xlabel=r"$p(1-p)\sqrt{2\epsilon s}$", ylabel="half-width of the range (of a risk)")
for share in (1e-4, 1e-3, 1e-2):
    ends_of = m.ranges(best, share * best.loss)
    error = jnp.median(jnp.abs((ends_of.high - ends_of.low) / 2 / half_width(share * best.loss, s) - 1))
    print(f"epsilon = {share:.2%} of the loss: relative error of the law {error:.1e}")
assert 1e-4 < error < 1e-1

# %% [markdown]
# And there is a **conservation law**: $\overline{p(1-p)s} = d$, the number of coefficients, whatever the data.
# Multiplicity can be moved from one group of people to another, not abolished.

# %%
budget = jnp.mean(best.risk * (1 - best.risk) * s)
print(f"mean of p (1 - p) s: {budget:.12f}; coefficients: {x.shape[1]}")
assert np.isclose(budget, 5, rtol=1e-9)
show(ends.budget_of_multiplicity)

# %% [markdown]
# ## 5. One model, many people
# **Ambiguity** counts people whose risk *some* near-optimal model moves by $\delta$; each may need another model.
# **Discrepancy** is what *one* such model does. By Pinsker's inequality $KL(p\|q) \ge 2(p-q)^2$, so a budget of
# $n\epsilon$ buys at most $\epsilon/2\delta^2$ of the people. Ambiguity obeys no such bound.

# %%
show(counts.pinsker, counts.universal_bound_on_the_discrepancy, counts.universal_bound_on_the_ambiguity)
wide = m.ranges(best, 5 * epsilon)
key = runtime.root_key(0)
for delta in (0.05, 0.1, 0.2):
    ambiguous = jnp.sum(m.ambiguity(best, wide, delta)) / 100
    most = m.discrepancy(best, wide, 5 * epsilon, delta, key=key, searched=500)
    bound = universal_bound(5 * epsilon, delta)
    print(f"delta = {delta}: ambiguity {ambiguous:.2f}, discrepancy from {most.lower:.2f} to {most.upper:.2f}, "
          f"Pinsker's bound {bound:.2f}")  # fmt: skip
    assert most.lower <= most.upper <= min(ambiguous, bound) + 1e-9
assert ambiguous > bound  # at delta = 0.2

# %% [markdown]
# ## 6. Who pays?
# Give every group an indicator of its own. A group with the share $g$ of the people and the rate $p$ then has exactly
# the range $\{q : KL(p\|q) \le \epsilon/g\}$: **the smaller the group, the wider the range**. It is ambiguous at
# $\delta$ up to the share $\epsilon / KL(p\|p\pm\delta)$. Try other rates.

# %%
show(counts.saturated_model_is_a_weighted_ball, counts.small_groups_pay)
for share in (0.5, 0.1, 0.02):
    two = m.fit(np.eye(2), np.array([0.3, 0.5]), np.array([share, 1 - share]))
    one = m.ranges(two, 0.002)
    exact = m.kl_interval(0.3, 0.002 / share)
    print(f"share {share}: risks from {exact[0]:.3f} to {exact[1]:.3f}")
    assert np.allclose(jax.nn.sigmoid(jnp.array([one.low[0], one.high[0]])), jnp.array(exact), atol=1e-9)

# %% [markdown]
# ## 7. What breaks it
# *Separable classes.* If a rule puts everybody on the right side, the loss has no minimum: $w$ grows for ever, and any
# risk between 0 and 1 is near-optimal. A linear programme sees that and refuses.
#
# *Words.* When classes move apart, ranges of **risks** shrink and ranges of **logits** grow. "More multiplicity" says
# nothing before you say of what.

# %%
try:
    m.fit(np.array([[1.0, -2], [1, -1], [1, 1], [1, 2]]), np.array([0.0, 0, 1, 1]))
except ValueError as refused:
    print(refused)
else:
    raise AssertionError("separable classes were fitted")
show(counts.separation_narrows_risks, counts.separation_widens_logits)

# %% [markdown]
# **To take away.** A near-optimal model has a budget of KL. One model can move few people far, but whom is a choice
# that the loss does not make, and small groups and unusual people are the cheapest to move. Never report
# ambiguity as if one model did it.
#
# ## 8. Exercises (answers folded below)
# 1. *A promise.* You promise that no replacement model worse by at most 0.001 nats moves more than 2% of the people by
#    $\delta$. For which $\delta$ is that certain, whatever the data?
# 2. *A confidence region.* For which $\epsilon$ is the level set of the irises the 95% likelihood-ratio region?
# 3. *A ridge.* What does a ridge of 0.01 do to the conservation law?

# %% jupyter={"outputs_hidden": true, "source_hidden": true}
# 1. epsilon / (2 delta^2) <= 0.02.
delta = np.sqrt(0.001 / (2 * 0.02))
# 2. 2 n (L(w) - L(w0)) is chi-square with d degrees of freedom.
from scipy.stats import chi2

level = chi2.ppf(0.95, 5) / 200
# 3. The sum becomes tr H_L (H_L + ridge)^-1 < d: a ridge takes directions out of the market.
shrunk = m.fit(x, y, ridge=0.01)
left = float(jnp.mean(shrunk.risk * (1 - shrunk.risk) * m.leverage(shrunk)))
print(f"1. delta = {delta:.3f}   2. epsilon = {level:.4f} nats, {level / best.loss:.0%} of the loss")
print(f"3. {left:.2f} of 5")
assert np.isclose(universal_bound(0.001, delta), 0.02) and 0.05 < level < 0.06 and 0 < left < 4.5
show(ends.budget_of_a_baseline)
