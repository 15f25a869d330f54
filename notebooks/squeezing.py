# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Who gets what a rejected answer loses?
# *45 minutes; it runs in a minute on a laptop.* Preference training pushes rejected answers down. A softmax sums to
# one, so somebody gains. Ren and Sutherland (*Learning Dynamics of LLM Finetuning*, ICLR 2025, arXiv:2407.10490)
# noticed who: if the rejected answer is improbable already, almost everybody **loses**, and only the current
# favourite gains. They call it the *squeezing effect*, and see in it a reason why DPO lowers even the chosen answer.
# Here we take it apart: exactly who wins, along which path, what mends it, and what it does *not* explain.
#
# We knew the paper from its abstract, its official code and summaries of its appendix; what those do not give is ours.
#
# **You need** the softmax and a gradient.
# **Afterwards you can** tell from a row of logits who would gain and who would pay, write down the whole path of
# that training in closed form, and say when the chosen answer falls, and which of two popular reasons is wrong.
#
# Logarithms are natural. We work in float64.

# %%
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from sandbox import runtime, squeezing
from sandbox.dynamics import flow
from sandbox.policies import tied_gram
from theory.proof import holds, prove
from theory.squeezing import pairs, path, peaks, step

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
# Four answers, $p = (.5, .3, .15, .05)$. We take one gradient step that pushes the last one down, and nothing else.
# Before you run the cell: which of the others go up? (The last one gives up at most .05, and it has to go somewhere.)

# %%
p = jnp.array([0.5, 0.3, 0.15, 0.05])
after = jax.nn.softmax(squeezing.push_down(jnp.log(p), 3, 1.0))
print("before", np.round(p, 4), "\nafter ", np.round(after, 4))
assert after[0] > p[0] and jnp.all(after[1:] < p[1:])
assert after[0] - p[0] > p[3] - after[3]

# %% [markdown]
# Only the top gains. It even gains more (.079) than the culprit loses (.036): the two answers in the middle, which
# nobody trained, pay the rest. Now push the *first* answer down instead.

# %%
other = jax.nn.softmax(squeezing.push_down(jnp.log(p), 0, 1.0))
print("after pushing down the favourite:", np.round(other, 4))
assert jnp.all(other[1:] > p[1:])

# %% [markdown]
# ## 2. A threshold
# The step adds $s\,(p - e_-)$ to the logits ($s$: learning rate times squared norm of the features). Hence
# $p'_i / p_i = e^{s (p_i - T)}$ for all $i \ne -$, with *one* number $T = \psi(s)/s$,
# $\psi(s) = \log E_p\, e^{s (p - e_-)}$. **Whoever is above $T$ rises.**
#
# In this project *a theorem is a function whose body is the claim*. Called with symbols it is proved, for every number
# of answers.

# %%
print(inspect.getsource(step.wins_iff_above_the_threshold.body))
show(step.factor_of_a_step, step.wins_iff_above_the_threshold, step.threshold_grows_with_the_step)
show(step.rejected_falls_and_the_top_rises)

# %% [markdown]
# $T$ starts at $\theta = |p|^2 - p_-$ for tiny steps and climbs to $p_*$, the top of the others. So for a tiny step
# the *peakiness* $|p|^2$ and the probability of the rejected answer decide everything.

# %%
impulses = jnp.geomspace(0.01, 100, 60)
figure, ax = plt.subplots(figsize=(5, 3))
for l, colour, words in ((3, "#D55E00", "pushing down the rarest"), (0, "#0072B2", "pushing down the top")):
    T = jax.vmap(lambda s, l=l: squeezing.threshold(p, l, s))(impulses)
    ax.plot(impulses, T, color=colour, label=words)
for value in p[:3]:
    ax.axhline(float(value), color="0.6", lw=0.8, ls=":")
ax.set(xscale="log", xlabel="impulse s (nats)", ylabel="threshold T(s)")
ax.legend()
assert np.isclose(squeezing.small_threshold(p, 3), 0.315) and np.isclose(squeezing.small_threshold(p, 0), -0.135)

# %% [markdown]
# With shares $r_i = p_i/(1-q)$ of the others, $q = p_-$ and $R = \sum r_i^2$: answer $i$ wins iff $r_i > R - q(1+R)$.
# All win once $q \ge R/(1+R)$. And a rule of thumb with a proof: if one answer has **more than half** of the others'
# mass and $q < r(2r-1)/(2(1-r+r^2))$, it alone wins, at *any* step size. Without the majority it need not be alone.

# %%
show(peaks.winners_by_peakiness, peaks.majority_rule_is_sharp, peaks.a_rare_rejected_feeds_the_top_alone)
leaders = jnp.array([0.45, 0.44, 0.1, 0.01])
rises = jax.nn.softmax(squeezing.push_down(jnp.log(leaders), 3, 1.0)) > leaders
print("two leaders:", rises)
assert rises.tolist() == [True, True, False, False]

# %% [markdown]
# ## 3. Half of a claim is false
# The paper says that with a rarer rejected answer (a) the others fall more *and* (b) the top rises more. (a) is right.
# (b) sounds right, and it is false. What grows is the top's gain *per unit that the culprit loses*, like $1/q$: a rare
# culprit has nothing to give, so innocents pay.

# %%
show(peaks.losers_fall_faster_as_the_rejected_gets_rare, peaks.rarer_rejected_lifts_the_top_more)
r, gains, ratios = jnp.array([0.8, 0.15, 0.05]), [], []
for q in (0.4, 0.2, 0.05, 1e-6):
    law = jnp.append((1 - q) * r, q)
    new = jax.nn.softmax(squeezing.push_down(jnp.log(law), 3, 1.0))
    gains.append(float(new[0] / law[0]))
    ratios.append(float((new[0] - law[0]) / (law[3] - new[3])))
    print(
        f"q = {q:7.1g}: the top is multiplied by {gains[-1]:.4f}, and gains {ratios[-1]:.3g} of what the culprit loses"
    )
assert gains == sorted(gains, reverse=True) and ratios == sorted(ratios)

# %% [markdown]
# ## 4. The whole path
# Keep pushing: $\dot z = p - e_-$. The differences $e^{-z_i} - e^{-z_j}$ of any two others do not change. That solves
# the flow for any number of answers, in a parameter $\tau$:
# $$p_i(\tau) \propto \frac{p_i}{1 - \tau p_i}, \qquad p_-(\tau) \propto p_- \prod_{i \ne -} (1 - \tau p_i).$$

# %%
show(path.conserved_by_squeezing, path.path_of_squeezing)


def push(z, l):
    """The velocity of the logits."""
    return jax.nn.softmax(z) - jax.nn.one_hot(l, z.size)


times = jnp.linspace(0, 14, 57)
run = jax.nn.softmax(flow(push, jnp.log(p), times, (3,), substeps=24))
tau = jax.vmap(lambda t: squeezing.flow_parameter(p, 3, t))(times)
closed = jax.vmap(lambda tau: squeezing.flow_law(p, 3, tau))(tau)
print(f"integrated against closed form: {float(jnp.max(jnp.abs(run - closed))):.1e}")
assert jnp.allclose(run, closed, atol=1e-9)
slopes = [float(np.polyfit(times[-12:], jnp.log(closed[-12:, k]), 1)[0]) for k in (1, 2, 3)]
print("slopes of log p at the end:", np.round(slopes, 3))
assert np.allclose(slopes, [-1, -1, -2], atol=0.01)

# %% [markdown]
# The culprit dies like $e^{-2t}$ and innocents like $e^{-t}$: half as fast, but to the same end. On the way each answer
# but the top falls from the start, or rises once and then falls for ever, because $\theta$ only grows once it is
# positive. A chosen answer that is not the favourite may look fine early.
#
# ## 5. The mend is the same path
# Fine-tuning *on* the rejected answer is $\dot z = e_- - p$: the same flow, backwards ($\tau < 0$). So the paper's
# mend, "extend" (fine-tune on rejected answers, too, before DPO), retraces the path: what you push down later, you
# first pulled up.

# %%
show(path.threshold_rises_once_it_is_positive, path.sft_walks_the_same_path_backwards, path.mend_retraces_the_path)
pulled = squeezing.flow_law(p, 3, squeezing.flow_parameter(p, 3, -2.0))
back = squeezing.flow_law(pulled, 3, squeezing.flow_parameter(pulled, 3, 2.0))
plain = squeezing.flow_law(p, 3, squeezing.flow_parameter(p, 3, 2.0))
print("pulled up:", np.round(pulled, 3), " and pushed down again:", np.round(back, 3), " without:", np.round(plain, 3))
assert jnp.allclose(back, p, atol=1e-6) and plain[0] > 0.69

# %% [markdown]
# ## 6. What breaks it: DPO on one prompt
# DPO pushes one answer down and pulls another up. In *one* context, with free logits, the two gradients are
# $(e_+ - p)$ and $-(e_- - p)$: **$p$ cancels**. Nobody is favoured for being likely; all third answers share one
# factor, the chosen always rises. So squeezing alone cannot explain why DPO lowers the chosen.

# %%
show(pairs.one_context_feeds_the_top, pairs.a_table_of_sequences_never_lowers_the_chosen)

# %% [markdown]
# It needs two contexts that share features (later tokens of the two answers). With a kernel $\kappa$ between them, the
# chosen falls to first order iff the ratio
# $$Q = \kappa\, \frac{(e_+ - p^+) \cdot (e_- - p^-)}{|e_+ - p^+|^2}$$
# exceeds 1. If the model has been fine-tuned on the chosen answer, down to an error $\epsilon$, then the least $\kappa$
# is $2\epsilon/(p^-_* - p^-_+)$: **the longer the fine-tuning, the less likeness suffices**. After extend it is
# $2\epsilon/\epsilon'$.

# %%
show(pairs.chosen_falls_iff_the_ratio_exceeds_one, pairs.longer_sft_needs_less_overlap)
for epsilon in (0.1, 0.02, 0.004):
    rejected = jnp.array([0.03, 0.07, 0.9])  # chosen, rejected, favourite
    chosen = jnp.array([1 - epsilon, 1e-12, epsilon])
    at_one = float(squeezing.kernel_ratio(chosen, 0, rejected, 1, 1.0))
    print(f"error {epsilon}: the chosen falls if kappa > {1 / at_one:.4f}")
    assert np.isclose(1 / at_one, 2 * epsilon / 0.87)

# %% [markdown]
# And a first order is no step: the chosen can rise to first order and fall in a step of size 1, because every finite
# step pays a tax, the same for all answers.

# %%
show(step.a_finite_step_pays_one_tax, pairs.a_rise_to_first_order_is_a_rise)

# %% [markdown]
# ## 7. When the kernel is no number
# Train the unembedding *and* the hidden vector, one token. The kernel is now a matrix, $|h|^2 I + W W^T$. Here is a
# case in which the chosen falls, though no scalar kernel allows it in one context, and the answer that gains most is
# not the favourite (2) but the one best aligned with $W_+ - W_-$ (3).

# %%
W, h = jnp.array([[1.0, 1], [1, 2], [6, 0], [0, -1]]), jnp.array([0.5, 0])
rates = jnp.array([tied_gram(W, h, y, 0) - tied_gram(W, h, y, 1) for y in range(4)])
print("favourite:", int(jnp.argmax(W @ h)), " rates of log p:", np.round(rates, 4))
assert rates[0] < 0 and jnp.argmax(rates) == 3

# %% [markdown]
# `python -m experiments.squeezing` holds this account and four others (gradient entanglement, the exact gradient
# product, CHES, similarity scores) against the same runs of DPO, and says where each fails.
#
# ## Exercises
# 1. Two others with shares $r$ and $1-r$. For which $q$ do both rise in a small step? (Answer: for $q$ above the bound
#    $r(2r-1)/(2(1-r+r^2))$ of the larger $r$; at $r = .8$ it is .2857.)
# 2. Rejected answers are sampled from the policy itself. What is the mean force on the logits? (None:
#    $E\,s(p - e_y) = 0$. The squeezing force is $p - Q$, how far $Q$ is off-policy.)
# 3. Fine-tuning on an answer also raises some answers that nobody trained. Which? (Those with $p_i < |p|^2 - p_+$:
#    bell curves of untrained answers need no similarity.)

# %%
assert np.isclose(squeezing.majority_bound(0.8), 0.2857, atol=1e-4)
show(peaks.off_policyness_is_the_force, path.untrained_answers_bloom)

# %% [markdown]
# **Where to go on.** `python -m experiments.squeezing --logits FILE.npz` does this to your own model: per rejected
# token the threshold, the winners, who pays, and whether to fine-tune on it first.
