# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Why preference learning does not learn preference rankings
# *45 minutes; it runs in seconds on a laptop.* You train a model to prefer response A to response B. The loss falls,
# the implicit reward says "A" almost everywhere, and still **B stays the likelier response on a third of your pairs**.
# This notebook takes that apart, after Chen et al. (2024), *Preference Learning Algorithms Do Not Learn Preference
# Rankings*, arXiv:2405.19534. Where a statement is ours and not theirs, the text says so.
#
# **You need** the softmax, the logistic function and one ordinary differential equation.
# **Afterwards you can** tell from two numbers of a pair which loss it must reach before it is ranked right, how long
# that takes and which $\beta$ is fastest; say what a perfect optimum would rank; and find two ways to compute that
# wrongly.
#
# Logarithms are natural, so log-probabilities are in nats. We work in float64.

# %%
import inspect
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

from sandbox import rankings, runtime
from sandbox.algebra import log_softmax
from sandbox.dynamics import descent, flow, log_times, train
from sandbox.losses import PairLogProbs, cdpo, dpo
from theory.preference_rankings import optima, pairs, winning
from theory.proof import holds, prove

runtime.configure(x64=True)
plt.style.use("experiments.house")
assert jnp.ones(1).dtype == jnp.float64

# %% [markdown]
# ## 1. The puzzle
# A pair has a chosen response $y_w$ and a rejected one $y_l$. Two numbers are all we need of it:
# $$m = \log\pi(y_w) - \log\pi(y_l), \qquad c = \log\pi_{ref}(y_l) - \log\pi_{ref}(y_w).$$
# $m$ are the **log-odds** of the policy: the pair is *ranked right* if $m \ge 0$. $c$ is the **reference error**: by
# how many nats the reference, from which training starts, prefers the wrong response. Their sum $m + c$ is DPO's
# margin, and DPO minimises $L = -\log\sigma(\beta(m + c))$.
#
# Two hundred pairs share twenty parameters: $m_i = x_i \cdot \theta - c_i$, with $\theta = 0$ at the reference. Every
# seventh pair is labelled against the rest, as real raters do. We train for a thousand steps.

# %%
BETA = 0.1
i, j = np.arange(200)[:, None], np.arange(20)[None, :]
features = np.cos(1.1 * i * (j + 1) + 0.3 * j**2)
features *= np.sign(features @ np.cos(np.arange(20)))[:, None]
features[::7] *= -1
errors = 20 * np.sin(0.7 * np.arange(200) ** 2 + 0.1) + 4


def batch(theta, x, c):
    """The pairs, read at their log-odds: a loss sees only differences."""
    return PairLogProbs(x @ theta - c, 0 * c, -c, 0 * c)


def loss(theta, x, c):
    return jnp.mean(dpo(batch(theta, x, c), beta=BETA))


def record(theta, x, c):
    return dpo(batch(theta, x, c), beta=BETA), x @ theta - c


run = train(loss, jnp.zeros(20), (jnp.asarray(features), jnp.asarray(errors)), steps=1000, learning_rate=50.0,
            record=record, every=10).history  # fmt: skip
losses, m = (np.asarray(x) for x in run)
before, right, rewarded = errors <= 0, m >= 0, m + errors > 0

figure, ax = plt.subplots(figsize=(5.6, 3))
steps = np.arange(0, 1001, 10)
lines = ("rewarded right", rewarded), ("ranked right", right), ("of the wrong ones, turned", right[:, ~before])
for k, (name, which) in enumerate(lines):
    ax.plot(steps, which.mean(axis=1), lw=2)
    shift = (8, 0, -8)[k]
    ax.annotate(name, (1000, which[-1].mean()), (4, shift), textcoords="offset points", color=f"C{k}", va="center")
ax.set(xlabel="step of DPO", ylabel="share of the pairs", ylim=(0, 1), xlim=(0, 1500), xticks=(0, 500, 1000))
print(f"ranked right: {right[0].mean():.0%} at the start, {right[-1].mean():.0%} at the end; "
      f"of the wrong ones {right[-1][~before].mean():.0%} were turned, "
      f"of the right ones {(~right[-1][before]).mean():.0%} unlearned; "
      f"rewarded right: {rewarded[-1].mean():.1%}")  # fmt: skip
assert right[0].mean() == 0.42 and right[-1].mean() == 0.71 and rewarded[-1].mean() == 0.835

# %% [markdown]
# The policy *rewards* 84% of the pairs rightly and *ranks* 71%. Reward accuracy, the number on everybody's dashboard,
# answers another question: did $m$ rise above $-c$, where it started? Before you read on: which of the pairs that stay
# wrong would you expect them to be, those with a large loss, or those with a large $c$?
#
# ## 2. One pair, one threshold
# A pair is ranked right, $m \ge 0$, exactly if its margin is at least $c$. The loss is a falling function of the
# margin. So (the paper's Theorem 4.1)
# $$m \ge 0 \iff L \le -\log\sigma(\beta c).$$
# In this project *a theorem is a function whose body is the claim*. Called with arrays it is a test, called with
# symbols it is proved. Here it is in two halves, $m$ nats on either side of a tie; `AtMost` says what the gap is, and
# sympy shows that the gap is right and never negative.


# %%
def show(*claims):
    """Prove or refute, now, and insist on the verdict that each claim announces."""
    for claim in claims:
        verdict = prove(claim)
        print(f"{claim.statement}\n    {verdict}")
        assert holds(claim, verdict), claim


print(inspect.getsource(pairs.loss_tells_the_ranking.body))
show(pairs.loss_tells_the_ranking, pairs.right_reference_and_small_loss_rank_right)
show(pairs.rewarded_right_is_ranked_right)

# %%
figure, ax = plt.subplots(figsize=(5.6, 3.2))
for here, colour, marker, name in ((right[-1], "C0", "o", "ranked right"), (~right[-1], "C1", "^", "ranked wrongly")):
    ax.plot(errors[here], losses[-1][here], ls="", marker=marker, color=colour, ms=4, mew=0, alpha=0.8, label=name)
line = np.linspace(errors.min(), errors.max(), 200)
ax.plot(line, rankings.loss_to_rank(line, beta=BETA), color="black", ls="-")
ax.set(xlabel="reference error c (nats)", ylabel="loss at the end (nats)", ylim=(0, 4.2), title="line: the loss needed")
ax.legend(loc="upper left")
assert np.array_equal(right, losses <= np.asarray(rankings.loss_to_rank(errors, beta=BETA)))
for c in (5, 30, 100):
    print(f"c = {c:3d} nats: the loss must fall from 0.693 to {rankings.loss_to_rank(c, beta=BETA):.6f}")

# %% [markdown]
# No dot lies on the wrong side. Both answers to the question were right: what counts is the loss *against a threshold
# that falls like* $e^{-\beta c}$. Five nats are nothing; a hundred nats, no rarity for sequences of some hundred
# tokens, need a loss that no training run reports.
#
# ## 3. How long does it take?
# (This section is ours.) Let one pair follow gradient flow, with $|\nabla m|^2 = \kappa$ constant; in a table of logits
# $\kappa = 2$. Then $u = \beta(m + c)$ obeys $\dot u = \kappa\beta^2\sigma(-u)$, so that $u + e^u$ is a clock: it grows
# at the constant rate $\kappa\beta^2$. The pair flips at $u = \beta c$:
# $$t_{flip} = \frac{e^{\beta c} + \beta c - 1}{\kappa\beta^2}.$$
# A small $\beta$ makes every step small, a large one makes the loss content too early. In between there is a valley.

# %%
show(pairs.kappa_of_a_table, pairs.clock_of_a_pair, pairs.when_a_pair_flips, pairs.valley_of_the_flip_time)


def table_loss(z, error, beta):
    """DPO on a table of three logits whose reference prefers the rejected response by ``error`` nats."""
    now, start = log_softmax(z), log_softmax(jnp.stack([0 * error, error, 1 + 0 * error]))
    return dpo(PairLogProbs(now[0], now[1], start[0], start[1]), beta=beta)


downhill = descent(table_loss)


@jax.jit
@jax.vmap
def log_odds(error, beta, times):
    states = flow(downhill, jnp.stack([0 * error, error, 1 + 0 * error]), times, (error, beta))
    return states[:, 0] - states[:, 1]


error = 4.0
scale = np.linspace(0.5, 6, 23)
times = np.broadcast_to(error**2 * log_times(12, 400), (23, 400))
path = np.asarray(log_odds(jnp.full(23, error), jnp.asarray(scale / error), jnp.asarray(times)))
flips = np.array([np.interp(0, p, t) for p, t in zip(path, times, strict=True)])  # the first-order read-out of a run
theory = np.asarray(rankings.flip_time(error, beta=scale / error))
assert np.allclose(flips, theory, rtol=1e-3) and scale[flips.argmin()] == 2

figure, ax = plt.subplots(figsize=(5.2, 3))
ax.plot(scale, theory, color="black", ls="-")
ax.plot(scale, flips, "o", mfc="white")
ax.annotate(r"$\beta = 2/c$", (2, theory.min()), (0, -14), textcoords="offset points", ha="center")
ax.set(yscale="log", ylim=(10, None), xlabel=r"$\beta c$", ylabel="time of the flip")
ax.set_title("c = 4 nats; dots: a table of logits, trained")
assert np.isclose(theory.min(), (np.exp(2) + 1) * error**2 / 8)

# %% [markdown]
# At the bottom of the valley, $\beta = 2/c$, the flip comes at the time $(e^2+1)c^2/4\kappa$ and at the loss
# $\log(1 + e^{-2}) = 0.127$. Beyond it the time grows exponentially: at $\beta = 0.1$ an error of 100 nats takes a
# million units of time, at $\beta = 0.02$ it takes ten thousand. IPO has another pathology: its margin stops at
# $1/2\tau$, so that a pair with a larger error *never* flips, at a loss of zero (the paper's Proposition A.7).
#
# ## 4. What an accuracy is made of
# (Ours.) Let many pairs have prompts of their own. All start at $u = 0$ and see the same clock, so they share $u$, and
# a pair is ranked right exactly if $c \le u/\beta$. **Ranking accuracy is the distribution function of the reference's
# errors**, read at $u/\beta$ with $u = -\log(e^L - 1)$. Nothing else enters: no model, no data.

# %%
show(pairs.loss_tells_the_margin, pairs.accuracy_is_the_law_of_the_errors)
spread = np.asarray(5 + 40 * jax.random.normal(runtime.root_key(0), (20_000,)))
for level in (0.6, 0.5, 0.3, 0.1):
    reach = rankings.margin_at_loss(level, beta=BETA)
    start, now = (norm(5, 40).cdf(x) for x in (0, reach))
    print(f"loss {level}: accuracy {now:.3f}, of the wrong pairs {(now - start) / (1 - start):.1%} turned")
    assert abs(np.mean(spread <= reach) - now) < 4 * 0.5 / np.sqrt(20_000)
assert (norm(5, 40).cdf(rankings.margin_at_loss(0.5, beta=BETA)) - start) / (1 - start) < 0.1

# %% [markdown]
# The paper reports that at the best validation loss fewer than a tenth of the wrong pairs were turned. With errors that
# scatter by 40 nats, which is what sequences of that length do, **this follows from the spread alone**.
#
# Without any assumption on the prompts there is a bound (ours): a wrong pair costs more than it needs, so at the mean
# loss $\bar L$ the number of wrong pairs is at most the largest $k$ for which the $k$ smallest thresholds stay below
# $n \bar L$.

# %%
show(pairs.wrong_pairs_cost_what_they_need)
needed = np.asarray(rankings.loss_to_rank(np.array([-20.0, -5, 0, 3, 8, 15, 30]), beta=BETA))
at_least = [7 - rankings.errors_at_most(needed, level) for level in (0.05, 0.1, 0.3, 0.6)]
print("seven pairs, right at a mean loss of .05, .1, .3, .6: at least", at_least)
assert at_least == [5, 4, 2, 1]

# %% [markdown]
# ## 5. What would be perfect?
# Let a share $\alpha > 1/2$ of raters prefer the chosen. The optimum of RLHF, and of DPO with such labels, has the
# log-odds $m^* = \mathrm{logit}(\alpha)/\beta - c$ (the paper's Theorem 3.1): the reference's, plus a push that is the
# smaller the larger $\beta$. Hence a pair with $c > 0$ is right at the optimum exactly for $\beta <
# \mathrm{logit}(\alpha)/c$, and **even a perfect optimum ranks as the reference does** once $\beta$ is large.
#
# DPO needs an assumption for it that RLHF does not: the shares must come from a Bradley-Terry model. On a cycle, where
# each of three responses beats the next, its optimum is the reference itself (ours).

# %%
show(optima.log_odds_of_rlhf, optima.optimum_of_dpo, optima.right_below_the_critical_beta)
show(optima.optimum_on_a_cycle_is_the_reference, optima.optimum_of_dpo_on_a_cycle)


def soft_loss(z, c, alpha, beta):
    return cdpo(PairLogProbs(z[0], z[1], -c, 0 * c), beta=beta, epsilon=1 - alpha)


@partial(jax.vmap, in_axes=(None, None, 0))
def trained(c, alpha, beta):
    """Log-odds of a table after 300 steps of soft-labelled DPO."""
    z = train(soft_loss, jnp.stack([-c, 0 * c]), (c, alpha, beta), steps=300, learning_rate=2 / beta**2).params
    return z[0] - z[1]


betas = jnp.array([0.1, 0.2, 0.3, 0.4, 0.6, 1.0])
reached = trained(3.0, 0.75, betas)
critical = rankings.critical_beta(3.0, 0.75)
print(f"c = 3, alpha = 3/4: critical beta {critical:.3f}; log-odds reached", np.round(np.asarray(reached), 2))
assert np.allclose(reached, rankings.ideal_log_odds(3.0, 0.75, beta=betas))
assert np.array_equal(reached > 0, betas < critical)

# %% [markdown]
# ### Two ways to compute it wrongly
# Likelihoods per token are popular. The paper prints an idealised accuracy for them in which the reference's log-odds
# *per token* get the whole push $\mathrm{logit}(\alpha)/\beta$. But two responses of $n$ tokens each are ranked alike
# per token and as a whole, by every policy: the push must be divided by $n$, too. As printed it is refuted (ours).
# And a released script weighs the raters' odds with $\log\pi_{ref}(y_w)/\log\pi_{ref}(y_l)$, a ratio of
# *log*-likelihoods: since both are negative, that is a vote *against* the reference.

# %%
show(optima.equal_lengths_rank_alike, optima.printed_normalised_optimum_is_the_optimum)
show(optima.normalised_optimum_of_equal_lengths, optima.script_votes_with_the_reference)
for name, value in (("the optimum", rankings.ideal_log_odds(10.0, 0.75, beta=0.2)),
                    ("as printed", optima.printed_ideal(-20.0, -10.0, 10.0, 10.0, 0.75, 0.2))):  # fmt: skip
    print(f"ten tokens each, reference -20 against -10 nats, alpha = 3/4, beta = 0.2: {name} {value:+.2f}")

# %% [markdown]
# ## 6. What breaks it: ranking is not winning
# Does a policy that ranks better also win more? Win rate is linear in the policy: $W = \sum_y \pi(y)\,v(y)$, $v(y)$ the
# probability that $y$ beats a response of the reference. Near the reference the two rise together *if the pairs are the
# reference's own* (ours): $\dot W = 2\beta\sum_k \pi_{ref}(k)^2 (v_k - \frac12)^2$. With pairs from elsewhere, no law.
# Take two good responses of which the better is rare, and a bad third: pushing the common good one down feeds the bad
# one.

# %%
show(winning.force_of_on_policy_pairs, winning.on_policy_pairs_start_together)
show(winning.ranking_and_win_rate_start_together)
ref, reward = jnp.array([0.05, 0.55, 0.40]), jnp.array([1.2, 1.0, -1.0])
v = winning.scores(ref, reward)
h = jnp.linspace(0, 2.6, 261)
law = jax.nn.softmax(jnp.log(ref) + h[:, None] * jnp.array([1.0, -1.0, 0.0]))
wins, ranked = law @ v, law[:, 0] >= law[:, 1]
figure, ax = plt.subplots(figsize=(5.2, 3))
ax.plot(h, wins, lw=2)
ax.axhline(0.5, color="0.5", lw=0.8, ls=":")
ax.axvline(h[ranked.argmax()], color="C1", ls="-", lw=1.2)
ax.annotate("the ranking flips", (h[ranked.argmax()], 0.515), (4, 0), textcoords="offset points", color="C1")
ax.set(xlabel="shift of the logits, +h and -h (nats)", ylabel="win rate against the reference")
turn, flip = h[wins.argmin()], h[ranked.argmax()]
print(f"lowest win rate {wins.min():.4f} at h = {turn:.2f}; the ranking flips at h = {flip:.2f}")
assert wins[1] < wins[0] and 0.45 < wins.min() < 0.4507 and wins[-1] > 0.5

# %% [markdown]
# **To take away.** DPO is content with a margin; a ranking asks that the margin exceed the reference's error. So log
# $\beta c$ of your pairs before you train: where it is above 3 or so, neither a good loss, nor a good reward accuracy,
# nor a perfect optimum will rank them right. And do not take a better ranking for a better policy.
#
# ## 7. Exercises (answers folded below)
# 1. *A second opinion.* A reference is wrong by 6 nats. Which $\beta$ turns the pair soonest in a table of logits,
#    when, and how many times longer does $\beta = 1$ take?
# 2. *How few raters?* Four raters vote, ties are dropped. From which share $\alpha$ on is the majority label right in
#    95% of the pairs?
# 3. *No reference.* Without a reference in the loss, $-\log\sigma(\beta m)$, started from the reference: is there still
#    a valley in $\beta$? (`flip_time` takes `gamma=0`.)

# %% jupyter={"outputs_hidden": true, "source_hidden": true}
# 1. beta = 2/c = 1/3, at (e^2 + 1) c^2 / 8.
best, slow = (float(rankings.flip_time(6.0, beta=b)) for b in (1 / 3, 1.0))
# 2. By bisection of the closed form.
shares = np.linspace(0.5, 1, 5001)
enough = shares[np.argmax(np.asarray(rankings.majority_agreement(shares, 4)) >= 0.95)]
# 3. No: the time is (1 - e^(-beta c) + beta c) / (kappa beta^2), which falls for ever. The loss pushes on m itself, and
#    wants more than a tie: nothing is gained by stopping early, and a large beta only makes the steps larger.
free = np.asarray(rankings.flip_time(6.0, beta=np.linspace(0.05, 20, 400), gamma=0))
print(f"1. at {best:.1f}, {slow / best:.1f} times longer   2. alpha = {enough:.3f}   3. falls throughout")
assert np.isclose(best, (np.exp(2) + 1) * 36 / 8) and 5 < slow / best < 6
assert 0.769 < enough < 0.771 and np.all(np.diff(free) < 0)
show(pairs.loss_in_the_valley, optima.majority_of_four_errs, pairs.perfect_ipo_may_rank_wrongly)
