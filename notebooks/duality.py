# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Are the numbers of a softmax probabilities?
# *45 minutes; it runs in seconds on a laptop.* We train a model by maximum likelihood and call its outputs
# probabilities. Greedy decoding works splendidly. Then somebody searches for the *most probable* sentence, and it is
# **the empty one**. This notebook takes that apart, after Huang and Yuan (2023), *Utility-Probability Duality of Neural
# Networks*, arXiv:2305.14859, who say: read the logits as a *utility*, a score of which at first only the order means
# something.
#
# **Honesty first.** Of the paper we know the abstract and the first page. Its four statements are: (P1) a trained
# network is an ordinal utility; (P2) maximum likelihood drives it towards an optimal one; (P3) this explains paradoxes
# of language generation; (P4) an equation turns utilities into better probabilities. **Every theorem below is ours**,
# built from the same premise, and what we call *residual inversion* is not the paper's equation, which we have not
# seen.
#
# **You need** the softmax and gradient descent. **Afterwards you can** say which decision rules a half-trained model is
# fit for, read the law of the data back out of its utilities, and tell when you should not.
#
# Logarithms are natural, so utilities and log-probabilities are in nats. We work in float64.

# %%
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from sandbox import runtime, utility
from sandbox.dynamics import train
from theory.duality import choice, decisions, inversion, training
from theory.proof import holds, prove

runtime.configure(x64=True)
plt.style.use("experiments.house")
assert jnp.ones(1).dtype == jnp.float64

# %% [markdown]
# ## 1. The puzzle
# A sentence has up to eight positions, and each position the same law over ten tokens: the right word, "gold", has 82%;
# the end-of-sentence token is the rarest, 0.7%. We train a table of utilities $u$ on that law, full batch, step size 1,
# from $u = 0$.

# %%
shares = 0.18 * 0.8 ** np.arange(9) / np.sum(0.8 ** np.arange(9))
q = jnp.asarray([shares[-1], 0.82, *shares[:-1]])  # token 0 is the end, token 1 is gold
END, GOLD, LENGTH = 0, 1, 8


def gradient(u, q):
    return jax.nn.softmax(u) - q


def itself(u, q):
    return u


u = train(None, jnp.zeros(10), (q,), gradient=gradient, steps=128, learning_rate=1.0, record=itself).history
p = jax.nn.softmax(u)
table = jnp.log(jnp.broadcast_to(p[4], (LENGTH, 10)))  # after four steps
mode = utility.exact_mode(table)
print(f"after 4 steps: greedy picks token {p[4].argmax()} everywhere (gold is {GOLD}), P(gold) = {p[4, GOLD]:.3f};")
print(f"the most probable sentence has {mode.length} tokens: P = {np.exp(mode.log_prob):.4f}, "
      f"all gold {p[4, GOLD] ** LENGTH:.4f}")  # fmt: skip
assert p[4].argmax() == GOLD and mode.length == 0

# %% [markdown]
# The end token is the *last* choice at every position, and yet the sentence that ends at once is the most probable one.
# Before you read on: is that a failure of search, of training, or of reading the numbers as probabilities?
#
# ## 2. One step is a duel
# For every differentiable utility $u_w$ (ours, C1)
# $$\nabla_w \log P_w(y) = E_{y' \sim P_w}\, \nabla_w\,[u_w(y) - u_w(y')].$$
# The observed output beats an opponent that the model draws from itself. And the loss is a *regret*: what choosing $y$
# costs somebody who maximises utility plus entropy (C2). In this project *a theorem is a function whose body is the
# claim*; called with symbols it is proved.


# %%
def show(*claims):
    """Prove or refute, now, and insist on the verdict that each claim announces."""
    for claim in claims:
        verdict = prove(claim)
        print(f"{claim.statement}\n    {verdict}")
        assert holds(claim, verdict), claim


print(inspect.getsource(choice.loss_is_regret.body))
show(choice.duel_identity, choice.duel_with_a_uniform_opponent, choice.loss_is_regret)
show(choice.utilities_and_probabilities_are_legendre_duals)

# %% [markdown]
# The last one is a duality in the literal sense: $P = \nabla\,\mathrm{lse}(u)$ and $u = \log P + c$.
#
# ## 3. Order comes first
# In a table a step adds $\eta(q - P)$. Take two outputs $d$ apart in utility and $x$ apart in the law. Since
# $P_a - P_b = (P_a + P_b)\tanh(d/2) \le d/2$,
# $$d_+ \ge (1 - \eta/2)\, d + \eta x > 0 \quad\text{for } \eta \le 2:$$
# **after one step every decision that uses only the order is the final one** (C5). The probabilities take
# many steps more.

# %%
show(training.order_after_one_step, training.order_after_a_longer_step, choice.order_survives_increasing_maps)
divergence = np.sum(q * np.log(q / p), axis=1)
accuracy = np.asarray(utility.order_accuracy(u[1:], q))
figure, ax = plt.subplots(figsize=(5.2, 3))
steps = np.arange(1, 129)
ax.plot(steps, accuracy, label="pairs in order")
ax.plot(steps, divergence[1:] / divergence[0], label="KL, share of its start")
ax.set(xscale="log", xlabel="step of descent", ylabel="share", ylim=(0, 1.05))
ax.legend(loc="center left")
assert np.all(accuracy == 1) and divergence[4] > 0.1 * divergence[0]

# %% [markdown]
# ## 4. What uses the numbers pays for them
# All gold has $P(\text{gold})^L$, the empty sentence $P(\text{end})$. So the mode is empty exactly beyond
# $$L^*(T) = \log P_T(\text{end}) / \log P_T(\text{gold}).$$
# A flat model, right order or not, has a small $L^*$. Halving all utilities of the *converged* model changes no order
# and cuts $L^*$ from 25 to 4.

# %%
show(decisions.empty_beats_gold_beyond_the_critical_length, choice.exact_mode_is_ordinal)
critical = np.asarray(utility.critical_length(p[1:, GOLD], p[1:, END]))
converged = float(utility.critical_length(q[GOLD], q[END]))
half = jax.nn.softmax(jnp.log(q) / 2)
halved = float(utility.critical_length(half[GOLD], half[END]))
figure, ax = plt.subplots(figsize=(5.2, 3))
ax.plot(steps, critical)
ax.axhline(converged, color="0.4", ls="--", lw=1)
ax.axhline(LENGTH, color="0.4", ls=":", lw=1)
ax.annotate("our sentences", (30, LENGTH + 0.5), color="0.3")
ax.annotate("even for the data law", (1.2, converged - 1.6), color="0.3")
ax.set(xscale="log", xlabel="step of descent T", ylabel=r"$L^*(T)$ (tokens)", title="above the line the mode is empty")
print(
    f"L* = {critical[3]:.2f} after 4 steps, {critical[7]:.2f} after 8, {converged:.2f} at the end; halved {halved:.2f}"
)
assert abs(critical[3] - 5.270) < 5e-4 and abs(converged - 25.020) < 5e-4 and abs(halved - 3.79) < 0.005

# %% [markdown]
# So the answer to the question: not search. A *beam* hides the problem for a while. At each position it keeps the $B$
# likeliest hypotheses, finished ones among them; it finds the empty sentence exactly when it is wide enough to keep the
# end token at the first position, and here that token has rank 10. That is the **beam search curse**: more search,
# worse sentences.

# %%
widths = jnp.arange(1, 13)
beams = jax.vmap(lambda width: utility.beam_search(table, width, most=12))(widths)
rank = int(np.sum(p[4] >= p[4, END]))
print("length of the best sentence at width 1 to 12:", beams.length.tolist(), "  rank of the end token:", rank)
assert np.array_equal(beams.length == 0, widths >= rank)

# %% [markdown]
# A caution that we found while building this: the rule needs $P(\text{gold})\,P(\text{second}) \le P(\text{end})$. For
# the *converged* model at 30 positions the mode is empty again ($30 > 25.02$), but no beam of up to twelve finds it:
# better beginnings crowd it out of the beam. And there the curse is real, since even the true law has an empty mode.
#
# ## 5. Residual inversion (ours)
# Every step adds $\eta_t(\text{target}_t - P_t)$. Sum up, divide by $H = \sum_t \eta_t$:
# $$\hat q := \bar P + \frac{u_T - u_0}{H} = \text{the weighted frequency of what was observed, exactly,}$$
# with $\bar P$ the mean of the model's probabilities *during* training. Any batch, any order, any steps; with the law
# itself as target, $\hat q = q$ at every $T$. The model is far from its data; its utility is not.

# %%
show(inversion.inversion_counts_what_was_observed, inversion.inversion_of_full_batches_is_the_law)
show(inversion.inversion_under_weight_decay, inversion.law_behind_label_smoothing)
for T in (1, 4, 128):
    read = utility.inverted(p[:T].mean(axis=0), u[0], u[T], 1.0 * T)
    print(f"T = {T:3d}: P(gold) of softmax {p[T, GOLD]:.3f}, inverted {read[GOLD]:.3f}; "
          f"largest error {np.max(np.abs(read - q)):.1e}")  # fmt: skip
    assert np.max(np.abs(read - q)) < 1e-12
sampling = [float(utility.sampling_quality(law[GOLD], law[END], LENGTH)) for law in (p[4], q)]
print(f"share of gold tokens in a sampled sentence: softmax {sampling[0]:.3f}, inverted {sampling[1]:.3f}")

# %% [markdown]
# Do we need the whole run? If it was full batch, its ends will do: guess $q$, simulate the run, compare (C8). And it is
# no matter of temperature: after one step no $\beta$ turns $\mathrm{softmax}(\beta u)$ into the law (C12).

# %%
end_point = utility.from_end_points(u[0], u[4], 1.0, 4)
print(f"from u_0 and u_4 alone: error {np.max(np.abs(end_point.q - q)):.1e} after {end_point.rounds} rounds of Newton")
assert np.max(np.abs(end_point.q - q)) < 1e-12
show(inversion.the_law_is_a_fixed_point, decisions.a_temperature_repairs)

# %% [markdown]
# ## 6. One utility, many links
# From $u = 0$ and with $h = \eta T$ the map from utility to probability *changes with training time* (C9): a straight
# line at first, $q \approx 1/K + (u - \bar u)/h$, and the exponential only at the end.

# %%
show(inversion.early_link_is_linear, inversion.corrected_link_solves_the_linear_flow)
figure, axes = plt.subplots(1, 3, figsize=(8, 2.8), sharey=True)
law = jnp.asarray([0.3, 0.22, 0.16, 0.12, 0.08, 0.06, 0.04, 0.02])
for ax, h in zip(axes, (0.2, 4.0, 40.0), strict=True):
    now, _ = utility.forward(law, jnp.zeros(8), h / 400, 400)
    x = now - now.mean()
    ax.plot(x, utility.linear_link(now, h), label="linear")
    ax.plot(x, utility.corrected_link(now, h), label="corrected")
    ax.plot(x, jax.nn.softmax(now), label="softmax")
    ax.plot(x, law, "o", color="black", mfc="white", label="the law")
    ax.set(xlabel="utility less its mean (nats)", title=f"h = {h:g}")
    off = [float(np.max(np.abs(link - law))) for link in (utility.linear_link(now, h), jax.nn.softmax(now))]
    assert (off[0] < off[1]) == (h < 20)
axes[0].set_ylabel("probability")
axes[0].legend(loc="upper left", fontsize=7)
assert off[1] < off[0]

# %% [markdown]
# ## 7. The honest question
# In section 5 inversion is perfect *by construction*. So: where does it help, where does it hurt, and what is left of
# it in a network?
#
# **Small samples: it hurts.** With $n$ draws as data, inversion gives their raw frequency, with the mean squared error
# $(1 - |q|^2)/n$. Early-stopped softmax is that frequency *shrunk towards uniform*, and shrinking wins below a sample
# size that we can write down (C13).

# %%
show(
    decisions.error_of_the_raw_frequency, decisions.shrinking_wins_below_a_sample_size, decisions.inversion_never_hurts
)
small = jnp.asarray([0.5, 0.25, 0.15, 0.1])
draws = jax.random.choice(runtime.root_key(0), 4, (4000, 80), p=small)
for n in (10, 80):
    frequency = jnp.mean(jax.nn.one_hot(draws[:, :n], 4), axis=1)
    stopped = jax.vmap(lambda f: jax.nn.softmax(utility.forward(f, jnp.zeros(4), 1.0, 4)[0]))(frequency)
    errors = [float(jnp.mean(jnp.sum((x - small) ** 2, axis=1))) for x in (stopped, frequency)]
    print(f"n = {n:2d}: mean squared error after 4 steps, softmax {errors[0]:.4f}, inverted {errors[1]:.4f}")
    assert (errors[0] < errors[1]) == (n == 10)

# %% [markdown]
# **Shared parameters: the order goes first.** With one feature $\phi = (0, 1, 2)$ the best utility matches the *mean
# feature* of the data and nothing else: on $q = (.2, .5, .3)$ it ranks the wrong output first, for ever (C6). So P1 and
# P2 are theorems of a table. A knob from the one to the other: move utilities through the kernel
# $(1 - \rho) I + \rho S$, with $S$ the Gram matrix of 24 random features of 48 outputs, and look at the order at the
# same divergence.

# %%
show(training.features_match_moments, training.best_utility_in_a_class_keeps_the_order, training.a_kernel_sets_the_rate)
keys = jax.random.split(runtime.root_key(1), 2)
target = jax.random.dirichlet(keys[0], jnp.ones(48))
features = jax.random.normal(keys[1], (48, 24)) / np.sqrt(24)


@jax.jit
@jax.vmap
def path(rho):
    def once(u, _):
        residual = target - jax.nn.softmax(u)
        u = u + 2 * ((1 - rho) * residual + rho * (features @ (residual @ features)))
        return u, u

    return jax.lax.scan(once, jnp.zeros(48), None, length=2000)[1]


rhos = jnp.array([0.0, 0.5, 0.9, 1.0])
runs = path(rhos)
left = jnp.sum(target * (jnp.log(target) - jax.nn.log_softmax(runs)), axis=-1)
left = left / jnp.sum(target * jnp.log(48 * target))
order = utility.order_accuracy(runs, target)
figure, ax = plt.subplots(figsize=(5.2, 3))
for k, rho in enumerate(rhos):
    ax.plot(left[k], order[k], label=rf"$\rho$ = {rho:g}")
ax.set(xlabel="KL left, share of its start", ylabel="pairs in order", xscale="log", xlim=(1, 0.01), ylim=(0.5, 1.02))
ax.legend(loc="lower right")
ends = [float(order[k, -1]) for k in range(4)]
half_way = [float(order[k, jnp.argmax(left[k] <= 0.7)]) for k in range(4)]
print("order when 70% of the divergence is left:", np.round(half_way, 3))
assert half_way[0] == 1 > half_way[1] > half_way[3] and float(left[3, -1]) > 0.1

# %% [markdown]
# **And inversion survives, through the kernel.** Residuals reach the utilities as $\Theta_t(q - P_t)$. Invert a linear
# model as if it were a table, and the reading is wrong; solve with its kernel, and it is exact again. For a network,
# whose kernel moves, the sum of the kernels along the run does it: the experiment reads a 12-64-8 network with a mean
# squared error below $10^{-5}$, where its softmax has a hundredth and more. The price is that you must have recorded
# the kernels.

# %%
show(inversion.linear_models_add_the_kernel_times_the_residual)
square = jax.random.normal(keys[0], (6, 6))
goal, rate, count = small[jnp.array([0, 1, 2, 3, 3, 2])] / 1.25, 0.1, 50
goal = goal / goal.sum()
weights, seen = jnp.zeros(6), jnp.zeros(6)
for _ in range(count):
    seen = seen + jax.nn.softmax(square @ weights) / count
    weights = weights + rate * (goal - jax.nn.softmax(square @ weights)) @ square
rise = square @ weights / (rate * count)
as_table, through_kernel = seen + rise, seen + jnp.linalg.solve(square @ square.T, rise)
print(f"largest error: as a table {np.max(np.abs(as_table - goal)):.3f}, "
      f"through the kernel {np.max(np.abs(through_kernel - goal)):.1e}")  # fmt: skip
assert np.max(np.abs(through_kernel - goal)) < 1e-10 < 0.01 < np.max(np.abs(as_table - goal))

# %% [markdown]
# **And the optimiser counts.** Adam adds something else than $\eta(q - P)$; invert its run as if it were plain descent,
# and you get no law at all.

# %%
show(inversion.inversion_ignores_the_optimiser)
adam = train(None, jnp.zeros(10), (q,), gradient=gradient, steps=12, learning_rate=0.7, optimizer=optax.adam,
             record=itself).history  # fmt: skip
misread = utility.inverted(jax.nn.softmax(adam[:-1]).mean(axis=0), adam[0], adam[-1], 0.7 * 12)
print("Adam, inverted as plain descent:", np.round(np.asarray(misread), 2))
assert np.max(np.abs(misread - q)) > 0.05

# %% [markdown]
# ## 8. How large a step?
# Two limits: 2 for any start in order, sharp. From a *uniform* start 4, the limit of descent itself; for two outputs
# that is proved. For more we had conjectured it, and no search among few outputs finds an exception. **For very many it
# is false**: let two outputs hold all the data, one slightly more than the other, among 35 million. While both are
# rare, nothing opposes their lead, which grows by $4x$ a step; then they hold two thirds of the mass all at once,
# and at step 10 they change places.

# %%
show(training.two_is_sharp, training.two_outputs_never_step_further_away, training.four_is_sharp_from_a_uniform_start)
show(training.few_outputs_keep_their_order_up_to_four, training.very_many_outputs_lose_their_order_at_four)
gaps = jax.jit(jax.vmap(training.gap_of_two_leaders, (None, None, None, 0)))
figure, ax = plt.subplots(figsize=(5.2, 3))
for n, words in ((1e3, "a thousand"), (3.5e7, "35 million")):
    path_of_gap = gaps(1e-4, n, 4.0, jnp.arange(1, 15)) / 1e-4
    ax.plot(jnp.arange(1, 15), path_of_gap, marker="o", label=f"among {words}")
ax.axhline(0, color="black", ls="-", lw=0.9)
ax.set(xlabel="step of size 4", ylabel="lead in utility / lead in the law")
ax.legend()
assert path_of_gap[9] < -0.1 and path_of_gap[:9].min() > 0

# %% [markdown]
# **To take away.** A half-trained softmax is a utility whose order you may trust sooner than its numbers, in a table.
# Rules that multiply or average its numbers are not entitled to them yet. If you know the run, you can read the law
# back out, exactly; do so when data are many and parameters are not shared, or when you have the kernel.
#
# ## 9. Exercises (answers folded below)
# 1. *The last step first.* A table with $K = 4$ was trained for a single step of size 3 from zero and shows
#    $u = (1.2, 0, -0.45, -0.75)$. What is $q$?
# 2. *A lie about the steps.* Somebody reports two steps where six were made. How do you notice?
# 3. *Certain data.* One of two outputs is certain. How many steps of size 1/10 does gradient descent need, about, until
#    the other one has probability 1/1000?

# %% jupyter={"outputs_hidden": true, "source_hidden": true}
# 1. The linear link is exact after one step: q = 1/4 + u / 3.
first = 1 / 4 + np.array([1.2, 0, -0.45, -0.75]) / 3
# 2. The inverted law leaves the simplex.
start = jnp.array([0.3, 0.0, -0.2, 0.1])
lied = utility.from_end_points(start, utility.forward(jnp.asarray(first), start, 1.0, 6)[0], 1.0, 2)
# 3. P = 1 / (2 t + 2 - d) with d about log(2 t): t is about 500 nats^-1, ten steps each.
t = np.linspace(400, 600, 20_001)
enough = t[np.argmax(1 / (1 + np.exp(np.asarray(utility.one_hot_margin(t)))) < 1e-3)]
print(f"1. q = {np.round(first, 3)}   2. smallest probability {lied.q.min():.2f}   3. about {10 * enough:.0f} steps")
assert np.allclose(first, [0.65, 0.25, 0.1, 0.0]) and lied.q.min() < 0 and 4900 < 10 * enough < 5100
show(inversion.one_hot_flow, inversion.clock_of_two_outputs, training.optimal_utility)
