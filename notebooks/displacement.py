# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # You train No over Never, and Yes rises
# *45 minutes; it runs in seconds on a laptop.* DPO is told that "No" is better than "Never". The margin between the
# two grows, as it should. And the model starts to say **Yes**. After Razin, Malladi, Bhaskar, Chen, Arora and Hanin,
# *Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization* (ICLR 2025), arXiv:2410.08847.
#
# **Honesty first.** Theorems 4 to 9 and CHES are the paper's. The closed-form flow, the trichotomy, the threshold in
# $\kappa$, the counterexamples to CHES and what on-policy data do are **ours**. We read an earlier version of the
# paper than the published one, and all models here are toys.
#
# **You need** the softmax, gradients, and what DPO is. **Afterwards you can** say when a preferred response loses
# probability, who gets it, whether it comes back, and how far to trust a score of hidden vectors alone.
#
# Logarithms are natural: log-probabilities are in nats. We work in float64.

# %%
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from sandbox import losses, runtime
from sandbox.dynamics import train
from sandbox.losses import response_pair
from sandbox.measures import ches, ches_of_sums, first_order_fall
from sandbox.policies import Tied, tied_pair_gram
from sandbox.tied import pair_clock, pair_logits, pair_margin, pair_speed
from theory.displacement import flow, scores, sequences, tokens
from theory.proof import holds, prove

runtime.configure(x64=True)
plt.style.use("experiments.house")
assert jnp.ones(1).dtype == jnp.float64

# %% [markdown]
# ## 1. The puzzle
# Logits are $b + Wh$: a row $W_z$ for each token, a hidden vector $h$ of the context. In large models both move
# freely; so let both be parameters (*unconstrained features*). Four tokens in the plane: Never lies 20 degrees beyond
# No, Yes 80 degrees on the other side, Maybe in the origin. The bias $b$ makes No likely, 85%. Plain gradient descent
# on DPO:

# %%
NO, NEVER, YES, MAYBE = range(4)
start_law = np.array([0.85, 0.05, 0.05, 0.05])


def toy(angle=20.0, length=4.0, norm=0.1):
    """Embeddings, hidden vector and bias."""
    turns = np.deg2rad([80, 80 + angle, 0])
    rows = length * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    W = jnp.asarray(np.concatenate([rows, np.zeros((1, 2))]))
    h = norm * W[NO] / length
    return W, h, jnp.log(start_law) - W @ h


W, h, bias = toy()
reference = jax.nn.log_softmax(bias + W @ h)


def law(params, *_):
    return jax.nn.log_softmax(bias + params.unembedding @ params.hidden)


def dpo(params, reference):
    return losses.dpo(response_pair(law(params), reference, NO, NEVER), beta=0.1)


run = train(dpo, Tied(W, h), (reference,), steps=2000, learning_rate=0.1, record=law)
path = np.exp(run.history)
no = path[:, NO]
print(f"No: {no[0]:.2f} at the start, {no.min():.3f} at step {no.argmin()}, {no[-1]:.3f} at the end")
print(f"Yes: {path[:, YES].max():.2f} at most")
assert path[:, NO].min() < 0.16 and path[:, YES].max() > 0.8 and path[-1, NO] > 0.99

# %% [markdown]
# No falls to 16%, Yes takes its mass, *and then it all comes back*. Which part of this does your intuition explain?
#
# ## 2. A competition
# The push of the loss only sets a clock $\tau$, $d\tau = -\ell'\,dt$. With $\Delta = W_+ - W_-$ every token has a
# fitness,
# $$a_z = \langle W_z, \Delta\rangle + \|h\|^2(1_{z=+} - 1_{z=-}),\qquad \frac{d\ln\pi_z}{d\tau} = a_z - \sum_v \pi_v
# a_v.$$
# A **replicator**: the fitter than average grow. $\Delta$ points from Never to No *and on*: towards Yes. In this
# project *a theorem is a function whose body is the claim*; called with symbols it is proved.


# %%
def show(*claims):
    """Prove or refute, now, and insist on the verdict that each claim announces."""
    for claim in claims:
        verdict = prove(claim)
        print(f"{claim.statement}\n    {verdict}")
        assert holds(claim, verdict), claim


print(inspect.getsource(tokens.replicator.body))
show(tokens.replicator, tokens.third_gains_on_the_chosen, tokens.no_displacement_unless_a_third_gains)
speed = np.array([pair_speed(W, h, jnp.asarray(start_law), NO, NEVER, y) for y in range(4)])
print("speeds of No, Never, Yes, Maybe at the start:", np.round(speed, 3))
assert speed[NO] < 0 < speed[YES]

# %% [markdown]
# So: **no displacement unless some third token has $\langle W_z - W_+, \Delta\rangle > \|h\|^2$**, whatever the
# probabilities. With two tokens there is none.
#
# ## 3. Which term is to blame?
# The paper writes the speed in three terms (Theorem 4) and reads them (Theorem 1, informal): the larger the alignment
# $\langle W_+, W_-\rangle$, the worse. The identity is right; that reading is not.

# %%
show(tokens.speed_of_the_chosen, tokens.more_similar_displaces_more, tokens.equal_embeddings_never_displace)
show(tokens.shift_of_all_embeddings_changes_nothing, tokens.alignment_is_a_property_of_the_policy)


@jax.jit
def lowest(angle):
    turns = jnp.deg2rad(jnp.stack([jnp.asarray(80.0), 80 + angle, jnp.asarray(0.0)]))
    W = jnp.concatenate([4 * jnp.stack([jnp.cos(turns), jnp.sin(turns)], axis=1), jnp.zeros((1, 2))])
    h = 0.1 * W[NO] / 4
    bias = jnp.log(jnp.asarray(start_law)) - W @ h
    logits = jax.vmap(lambda t: pair_logits(W, h, bias, NO, NEVER, t))(jnp.linspace(0, 8, 800))
    return jnp.min(jax.nn.softmax(logits)[:, NO])


angles = np.linspace(1, 110, 110)
dip = np.array([lowest(a) for a in angles])
figure, ax = plt.subplots(figsize=(5.2, 3))
ax.plot(angles, dip)
ax.set(xlabel="angle between No and Never (degrees)", ylabel="lowest probability of No", ylim=(0, 0.9))
assert dip[0] > 0.84 and dip.min() < 0.17 and 10 < angles[dip.argmin()] < 30 and dip[-1] > 0.849

# %% [markdown]
# Nearly equal tokens do not displace, and far ones do not; the worst are 20 degrees apart. And the alignment is not
# even a property of the policy: add a vector to every embedding, and it is anything you like.
#
# ## 4. The whole flow in closed form
# Only $W_+$ and $W_-$ move, by $\pm h$, and $h$ moves by $\kappa\Delta$; hence $h' = \kappa\Delta$, $\Delta' = 2h$:
# hyperbolic functions. No loss stands in it: **DPO, IPO and every function of the margin trace the same curve**; IPO
# merely stops somewhere on it.

# %%
show(
    flow.forces_on_unembeddings, flow.closed_form_flow, flow.logits_along_the_flow, flow.margin_losses_share_their_path
)
gap = W[NO] - W[NEVER]
# the same run, read at the margin that it has reached
reached = jnp.asarray(run.history[:, NO] - run.history[:, NEVER]) - (bias[NO] - bias[NEVER])
clock = pair_clock(h, gap, reached)
closed = jax.nn.softmax(jax.vmap(lambda t: pair_logits(W, h, bias, NO, NEVER, t))(clock))
print(f"descent of DPO against the closed form, at equal margin: {np.abs(closed - path).max():.4f} apart at most")
assert np.abs(closed - path).max() < 0.01  # steps of 0.1 are no flow
figure, ax = plt.subplots(figsize=(5.4, 3))
tau = jnp.linspace(0, 2, 200)
for name, logits in (
    ("W and h", jax.vmap(lambda t: pair_logits(W, h, bias, NO, NEVER, t))(tau)),
    ("only h", jax.vmap(lambda t: bias + W @ (h + t * gap))(tau)),
    ("only W", jax.vmap(lambda t: bias + W @ h + t * jnp.dot(h, h) * jnp.array([1, -1, 0, 0]))(tau)),
):
    ax.plot(tau, jax.nn.softmax(logits)[:, NO], label=name)
ax.set(xlabel=r"clock $\tau$", ylabel="probability of No")
ax.legend(title="trained")
show(flow.unembedding_alone_never_displaces, flow.displacement_is_permanent_with_features_alone)
show(flow.displacement_is_transient_with_both, flow.kappa_threshold)

# %% [markdown]
# Train only $W$: never. Only $h$: for ever. Both: there and back, if you wait; DPO's own time runs as $e^{\beta M}$,
# and IPO with its target inside the dip stays there. And how fast $h$ may move, $\kappa$, is not ours to choose: in a
# network the Jacobian of $h$ decides. In this toy the chosen falls once $\kappa > \kappa^*$:

# %%
critical = float(flow.critical_kappa(jnp.asarray(start_law), W, h, NO, NEVER))
print(f"kappa* = {critical:.4f}")
assert pair_speed(W, h, jnp.asarray(start_law), NO, NEVER, NO, kappa=0.9 * critical) > 0
assert pair_speed(W, h, jnp.asarray(start_law), NO, NEVER, NO, kappa=1.1 * critical) < 0
stop = pair_clock(h, gap, pair_margin(h, gap, 0.0) + jnp.array([5.0, 10, 20, 50]))
stopped = jax.nn.softmax(jax.vmap(lambda t: pair_logits(W, h, bias, NO, NEVER, t))(stop))[:, NO]
print("No where IPO stops at a margin gain of 5, 10, 20, 50 nats:", np.round(np.asarray(stopped), 3))
assert stopped[1] < 0.2 and stopped[3] > 0.99

# %% [markdown]
# ## 5. Sequences, and a score
# For responses of several tokens *all pairs of positions* meet, weighted by $\alpha$, the product of their residuals
# (Theorem 6). Call the exact quantity $G = \langle\nabla\ln\pi(y^+), \nabla\ln\pi(y^-)\rangle -
# \|\nabla\ln\pi(y^+)\|^2$: the chosen falls, at first order, exactly if $G > 0$. **CHES** sets every $\alpha$ to one
# and drops the rest:
# $$\mathrm{CHES} = \langle S_+, S_-\rangle - \|S_+\|^2,\qquad S_\pm = \text{sum of the hidden vectors.}$$

# %%
show(
    sequences.speed_of_a_chosen_sequence,
    sequences.alpha_is_at_most_two,
    scores.ches_is_exact_where_all_tokens_are_alike,
)
show(scores.ches_is_a_difference_of_norms, scores.not_both_orientations_are_positive, scores.ches_measures_length)

# %% [markdown]
# It needs hidden states only: cheap. But it is blind to single tokens, *the example above*; at a uniform law its sign
# is wrong; and $h \to Mh$, $W \to WM^{-1}$ keeps the policy and changes the order.

# %%
show(scores.ches_sees_single_tokens, scores.uniform_law_turns_ches_around, scores.ches_ranks_pairs)
show(scores.no_displacement_below_zero_ches, scores.order_by_ches_is_a_property_of_the_policy)


def two_pairs(last, second):
    """G and CHES of chosen (0, 1) with W = 0 and four tokens."""
    hidden = jnp.array([[[1.0, 0], [0, 1]], [[1, 0], last]])[None]
    tokens = jnp.array([[0, 1], [2, second]])[None]
    gram = tied_pair_gram(Tied(jnp.zeros((4, 2)), hidden), tokens, jnp.ones((1, 2, 2), bool))
    length = jnp.array([2])
    return float(first_order_fall(gram)[0]), float(ches(hidden[:, 0], hidden[:, 1], length, length)[0])


for name, case in (("P", ([0.0, 1], 3)), ("Q", ([0.0, 2], 3)), ("R", ([-5.0, 4], 1))):
    print(f"pair {name}: G = {two_pairs(*case)[0]:5.2f}, CHES = {two_pairs(*case)[1]:5.2f}")
assert (
    two_pairs([0.0, 1], 3) == (-2, 0) and two_pairs([0.0, 2], 3) == (-2.25, 1) and two_pairs([-5.0, 4], 1) == (2.5, -2)
)

# %% [markdown]
# Q has the higher score and *rises faster*; R has a negative one and falls.
#
# ## 6. Pairs that the model wrote itself
# Refusals over refusals, both sampled from the model: the paper finds that such pairs unlearn refusing. Is it there at
# once? No: for independent draws from the policy the mean of $\langle\nabla\ln\pi(y^+),\nabla\ln\pi(y^-)\rangle$ is
# 0, and the mean gradient of the rejected is *minus* that of the chosen, **whatever the labels are**. On average the
# first step lifts.

# %%
show(scores.own_pair_lifts_on_policy, scores.other_pairs_lift_on_policy, scores.other_pairs_lift_off_policy)
rng = np.random.default_rng(0)
p = np.exp(rng.normal(size=6))
p = p / p.sum()
jacobian = rng.normal(size=(6, 9))
gradients = jacobian - p @ jacobian  # of the log-probabilities of six responses
raw = 4 * rng.normal(size=(6, 6))
wins = 1 / (1 + np.exp(raw.T - raw))  # any rule who wins
chosen = 2 * np.einsum("y,z,yz,yd->d", p, p, wins, gradients)
rejected = 2 * np.einsum("y,z,yz,yd->d", p, p, 1 - wins, gradients)
print("mean speed of the chosen by the other pairs:", round(float(chosen @ (chosen - rejected)), 4))
assert np.allclose(rejected, -chosen) and chosen @ (chosen - rejected) > 0

# %% [markdown]
# So displacement on such data is **drift**: a few steps on, the pairs are no longer the model's own. The experiment
# shows it on a small model (`python -m experiments.displacement`, figure *refusals*): $\ln\pi(y^+)$ rises at first
# and ends ten nats lower, and refusals with it.
#
# ## 7. Mends
# An SFT term or unequal weights help exactly from a threshold on (Propositions 1 and 2 with their constants).

# %%
show(sequences.sft_term_mends_from_a_weight_on, sequences.longer_chosen_is_at_more_risk_in_simpo)
show(sequences.another_sample_moves_the_chosen, sequences.contradicting_sample_always_hurts)

# %% [markdown]
# **To take away.** The margin grows; who pays is decided by geometry. Look for tokens *beyond* the chosen, not for
# similar ones. Dips are transient or permanent depending on what is trained. CHES is a cheap stand-in, mostly for
# length; where you have logits and the unembedding, compute $G$ (`--hidden FILE.npz`).
#
# ## 8. Exercises (answers folded below)
# 1. *Who wins?* $W_+ = (1, 0)$, $W_- = (0, 1)$, $W_a = (2, 0)$, $W_b = (2, -1)$, $h = 0$. Who gains most on the
#    chosen?
# 2. *How much SFT?* At the start of DPO with $\beta = 0.1$ a pair has $C / A = 3$. Which $\lambda$ keeps it from
#    falling?
# 3. *Length.* All hidden vectors are one unit vector. Which rejected length makes CHES zero for $|y^+| = 7$?

# %% jupyter={"outputs_hidden": true, "source_hidden": true}
# 1. D = (1, -1): <W_z - W_+, D> is 1 for a and 2 for b.
embeddings = np.array([[1, 0], [0, 1], [2, 0], [2, -1.0]])
lead = (embeddings - embeddings[0]) @ (embeddings[0] - embeddings[1])
# 2. beta / 2 (C / A - 1) = 0.1.
needed = 0.1 / 2 * (3 - 1)
# 3. |y+| (|y-| - |y+|) = 0: the same length, 7.
unit = np.array([0.6, 0.8])
same = float(ches_of_sums(7 * unit, 7 * unit))
print(f"1. b, by {lead[3]:.0f}   2. lambda = {needed:.1f}   3. seven: CHES = {same:.0f}")
assert lead.argmax() == 3 and abs(needed - 0.1) < 1e-12 and same == 0
