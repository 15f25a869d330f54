# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Why DPO can lower the likelihood of what you prefer
#
# *45 minutes; it runs in seconds on a laptop.* You train a model to prefer response A to response B. The loss falls, the
# margin grows, and **A becomes less likely than before**. This notebook takes the effect apart, after Yuan et al. (2024),
# *A Common Pitfall of Margin-based Language Model Alignment: Gradient Entanglement*, arXiv:2410.13828. Where a statement
# is ours and not theirs, the text says so.
#
# **You need** the softmax, gradients and a first-order Taylor expansion, and to have seen a preference pair once.
#
# **Afterwards you can** tell from two gradients and two weights whether a chosen response will rise or fall; say which
# models and losses can show the effect and which cannot; and say what each mend buys, and what it does not.
#
# Logarithms are natural, so log-probabilities are in nats. We work in float64: we will subtract nearly equal numbers.

# %%
import inspect
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

from sandbox import policies, runtime
from sandbox.dynamics import one_step, train
from sandbox.losses import PairLogProbs, dpo, margin_weights
from sandbox.measures import Case, case, first_order_changes, gradient_products, gradients, kappa
from theory.entanglement import geometry, models, tokens
from theory.proof import holds, prove

runtime.configure(x64=True)
plt.style.use("experiments.house")
assert jnp.ones(1).dtype == jnp.float64

# %% [markdown]
# ## 1. The puzzle
#
# DPO sees a pair only through the **margin** $h = [\log\pi(y_w) - \log\pi_{ref}(y_w)] - [\log\pi(y_l) -
# \log\pi_{ref}(y_l)]$, and minimises $-\log\sigma(\beta h)$. Here $y_w$ is the chosen response (it won), $y_l$ the
# rejected one (it lost), and the reference policy $\pi_{ref}$ is the one that we start from.
#
# Our pair is as small as it can be. A prompt asks for the sentiment of a text. The chosen answer is *Positive*, the
# rejected one *Negative*, and both go on with the same $n$ tokens, as in *... sentiment based on my judgment*. The
# vocabulary has three tokens: *Positive*, *Negative*, *go on*. We train twice: without a suffix, and with ten tokens.

# %%
POSITIVE, NEGATIVE, GO_ON = range(3)
LABEL = (0.6, 0.3, 0.1)  # probabilities of the three tokens at the place of the label
BETA = 0.1


def toy(n, overlap=0.8, error_w=0.2, error_l=0.8):
    """Parameters, and the pair as (features, tokens, mask), chosen first; section 2 explains them."""
    features = policies.suffix_features(n, overlap)
    laws = [LABEL] + n * [(error_w / 2, error_w / 2, 1 - error_w)] + n * [(error_l / 2, error_l / 2, 1 - error_l)]
    contexts = jnp.concatenate([features[0], features[1, 1:]])  # both labels are predicted from the same context
    ids = jnp.full((2, 1 + n), GO_ON).at[:, 0].set(jnp.array([POSITIVE, NEGATIVE]))
    return policies.minimum_norm(contexts, jnp.log(jnp.array(laws))), (features, ids, jnp.ones_like(ids, bool))


def log_prob(logits, params, responses):
    """log pi of a response, or of each of a pair: a softmax at each position, the sum over the positions kept."""
    inputs, ids, mask = responses
    return policies.sequence_log_prob(jax.nn.log_softmax(logits(params, inputs)), ids, mask)


linear = partial(log_prob, policies.linear_logits)


def run_dpo(policy, params, pair, rate, steps=200, seen=None, gradient=None):
    """Changes of both log-probabilities, and how their gradients meet, at every step (section 6: seen, gradient)."""
    seen = pair if seen is None else seen  # the pair as the loss sees it

    def loss(params, pair, start, seen, seen_start):
        return dpo(PairLogProbs(*policy(params, seen), *seen_start), beta=BETA)

    def record(params, pair, start, *_):
        return policy(params, pair) - start, gradient_products(*gradients(policy, params, pair))

    args = pair, policy(params, pair), seen, policy(params, seen)
    loss = None if gradient else loss
    return train(loss, params, args, steps=steps, learning_rate=rate, gradient=gradient, record=record).history


runs = {n: run_dpo(linear, *toy(n), rate=0.5) for n in (0, 10)}

figure, axes = plt.subplots(1, 2, figsize=(7.4, 3), sharex=True)
for ax, (n, (changes, _)) in zip(axes, runs.items(), strict=True):
    shown = ("margin", "-.", "C2", changes @ np.array([1, -1])), ("chosen", "-", "C0", changes[:, 0])
    for name, style, colour, values in (*shown, ("rejected", "--", "C1", changes[:, 1])):
        ax.plot(values, color=colour, ls=style, lw=2)
        ax.annotate(name, (200, values[-1]), xytext=(4, 0), textcoords="offset points", color=colour, va="center")
    ax.axhline(0, color="0.5", lw=0.8, ls="-")
    ax.set(title=f"label and {n} shared tokens" if n else "label only", xlabel="step of DPO", xlim=(0, 265))
    ax.set_xticks([0, 100, 200])
axes[0].set_ylabel("change of log-probability (nats)")

for n, (changes, _) in runs.items():
    assert np.all(np.diff(changes @ np.array([1, -1])) > 0), "the margin grows at every step"
    print(f"{n:2d} shared tokens: chosen {changes[-1, 0]:+.2f}, rejected {changes[-1, 1]:+.2f} nats")
assert np.all(np.diff(runs[0][0][:, 0]) > 0) and np.all(np.diff(runs[10][0][:, 0]) < 0), "chosen: first up, then down"

# %% [markdown]
# Both runs are a success for the loss. But on the right, **both** log-probabilities fall, at every single step, and the
# margin grows only because the rejected one falls faster. The two runs differ in ten tokens that the two responses
# *share*. Before you read on: what could shared tokens, of all things, have to do with it?
#
# ## 2. The toy
#
# A response is a row of tokens and $\log\pi(y) = \sum_k \log p_k(y_k)$. At position $k$ the policy has a feature vector
# $x_k$ of what came before, and predicts $p_k = \mathrm{softmax}(\theta x_k)$; only the matrix $\theta$ is trained. Think
# of the last layer of a language model above frozen features. Then
# $$\nabla_\theta \log p_k(y) = (e_y - p_k)\, x_k^\top ,$$
# the **residual** times the features, so that two tokens' gradients have the inner product (residual · residual) ×
# (features · features). Tokens interact through what the model gets wrong, and as far as their contexts look alike.
#
# We choose both. Features of different positions are orthogonal; at a suffix position those of the two responses have
# the inner product $R = 0.8$ (`overlap`), since what came before differs in one word. After *Positive*, which fine-tuning
# has seen, a suffix token misses with probability 0.2 (`error_w`); after *Negative*, which it has not, with 0.8
# (`error_l`). The closed form and automatic differentiation had better agree:

# %%
theta, pair = toy(10)
g_w, g_l = gradients(linear, theta, pair)
features = pair[0][:, 1]  # of the first suffix token, after Positive and after Negative
p, q = jax.nn.softmax(policies.linear_logits(theta, features))
label = policies.tabular_gram(jnp.array(LABEL), POSITIVE, NEGATIVE)
one_token = policies.linear_gram(p, features[0], GO_ON, q, features[1], GO_ON)
print(f"<g_w, g_l> = {label:.2f} (label) + 10 x {one_token:.3f} (suffix) = {g_w @ g_l:.2f}")
assert np.allclose(p, [0.1, 0.1, 0.8]) and np.isclose(label + 10 * one_token, g_w @ g_l)

# %% [markdown]
# The label pulls the gradients apart, each shared token pulls them together. Keep that in mind.
#
# ## 3. Two gradients and one number
#
# Let $A = \log\pi(y_w)$, $B = \log\pi(y_l)$, $g_w = \nabla A$, $g_l = \nabla B$. Any loss of $A$ and $B$ has two
# **weights**, $d_w = -\partial\ell/\partial A$ and $d_l = \partial\ell/\partial B$; for DPO both are
# $\beta\,\sigma(-\beta h)$. A gradient step of size $\eta$ moves the parameters by $\eta\,(d_w g_w - d_l g_l)$. Expand:
# $$\Delta A = \eta\,\big(d_w |g_w|^2 - d_l \langle g_w, g_l\rangle\big) + O(\eta^2),\qquad
#   \Delta B = \eta\,\big(d_w \langle g_w, g_l\rangle - d_l |g_l|^2\big) + O(\eta^2).$$
# That is the whole mechanism: the step *away* from the rejected response carries a part of $g_w$ with it. The paper's
# Condition 1 follows: the chosen rises iff $\langle g_w, g_l\rangle < \frac{d_w}{d_l}|g_w|^2$, and the rejected falls iff
# $\langle g_w, g_l\rangle < \frac{d_l}{d_w}|g_l|^2$. Divide by the norms (this form is ours) and one number is left:
# $$\kappa = \frac{d_w\,|g_w|}{d_l\,|g_l|}\,:\qquad
#   \text{the chosen rises} \iff \cos < \kappa, \qquad \text{the rejected falls} \iff \cos < 1/\kappa .$$
# $\kappa$ says how much harder the step pushes the chosen. For $\kappa < 1$ and $\cos \ge \kappa$ both fall; for
# $\kappa > 1$ and $\cos \ge 1/\kappa$ both rise. No cosine exceeds 1, so the fourth case (chosen down, rejected up) is
# empty, and $\kappa = 1$ is safe unless the gradients are parallel.
#
# You need not take this on trust. In this project *a theorem is a function whose body is the claim*. Here is one:

# %%
rises = geometry.chosen_rises_iff_kappa_exceeds_cosine
print(inspect.getsource(rises.body))

# %% [markdown]
# `SameSign(a, b, factor)` claims that $a$ and $b$ have the same sign *because* $a$ = factor × $b$ with a positive factor.
# Call the function with arrays and it evaluates both sides; call it with symbols and sympy shows that they are the same
# expression. Vectors then have no particular length, so that the proof holds for every number of parameters.


# %%
def show(*claims):
    """Prove or refute, now, and insist on the verdict that each claim announces."""
    for claim in claims:
        verdict = prove(claim)
        print(f"{claim.statement}\n    {verdict}")
        assert holds(claim, verdict), claim


show(geometry.entangled_changes_of_dpo, rises, geometry.case_four_is_empty)
assert str(prove(rises)) == "proved (every size)"
sides = rises(g_w, g_l, 0.05, 0.05)  # the same function, on the gradients of our toy; DPO starts with weights beta / 2
print(f"\nour toy with ten shared tokens: A changes by {sides.lhs:.3f} per unit of step")
assert np.isclose(sides.lhs, sides.rhs) and sides.lhs < 0

# %% [markdown]
# ### A sentence that needs a correction
#
# "The margin grows", one says of these losses, and for DPO it is right: with equal weights the margin grows by
# $\eta\, d\,|g_w - g_l|^2$. Read for every margin loss, the sentence is false. What always grows is the margin *with the
# weights inside*: $d_w\Delta A - d_l\Delta B = \eta\,|d_w g_w - d_l g_l|^2 + O(\eta^2)$ (the correction is ours).

# %%
show(geometry.margin_of_dpo_grows, geometry.margin_grows_for_every_loss, geometry.weighted_margin_grows)

# a counterexample to check by hand: one parameter, g_w = 1.5, g_l = 1, d_w = 1, d_l = 2
rise_w, rise_l = geometry.changes(jnp.array([1.5]), jnp.array([1.0]), 1.0, 2.0)
print(f"\nper unit of step: margin {rise_w - rise_l:+.2f}, weighted margin {rise_w - 2 * rise_l:+.2f}")
assert rise_w - rise_l == -0.25 and rise_w - 2 * rise_l == 0.25

# %% [markdown]
# Such weights are not exotic: length-normalised losses, SimPO for one, have $d_w/d_l = n_l/n_w$, the ratio of lengths.
#
# ## 4. Predictions meet measurements
#
# First order speaks of small steps. How small? Take one real step of DPO at four learning rates:

# %%
start = linear(theta, pair)
d_w, d_l = margin_weights(partial(dpo, beta=BETA), PairLogProbs(*start, *start))
first_order, _ = first_order_changes(d_w, d_l, *gradient_products(g_w, g_l))
lost = []
for eta in (1.0, 0.1, 0.01, 0.001):
    change = (linear(theta + eta * (d_w * g_w - d_l * g_l).reshape(theta.shape), pair) - start)[0]
    lost.append(eta * first_order - change)
    print(f"eta {eta:<5g}  chosen: first order {eta * first_order:+.2e}, measured {change:+.2e}, gap {lost[-1]:.1e}")
assert min(lost) > 0 and np.allclose(np.divide(lost[1:-1], lost[2:]), 100, rtol=0.05), "of second order"

# %% [markdown]
# The gap is also *positive*, every time. That is a theorem (ours): for log-linear policies first order is an upper bound,
# and what is lost is at most $\frac{\eta^2}{8}\mathrm{range}^2$ at each position. So **a predicted fall is a fall at every
# step size**, and only a predicted rise can be spoilt. It also tells us how close to the boundary the rule may err: a
# step of length $s$ in $\theta$ loses at most $s^2/4$ nats. With that we test the rule on 4000 random pairs.

# %%
show(geometry.first_order_is_an_upper_bound, geometry.slack_is_at_most_hoeffding)
STEP, LONGEST = 1e-4, 12


def random_step(key):
    """One step on a random policy, pair, and ratio of weights: kappa, cosine, first-order and exact changes (2,)."""
    keys = jax.random.split(key, 4)
    features = policies.suffix_features(LONGEST, jax.random.uniform(keys[0]))
    theta = 1.5 * jax.random.normal(keys[1], (3, features.shape[-1]))
    ids = jnp.full((2, 1 + LONGEST), GO_ON).at[:, 0].set(jnp.array([POSITIVE, NEGATIVE]))
    kept = jnp.arange(1 + LONGEST) <= jax.random.randint(keys[2], (), 0, LONGEST + 1)
    pair = features, ids, jnp.broadcast_to(kept, ids.shape)
    g_w, g_l = gradients(linear, theta, pair)
    n_w, n_l, inner = gradient_products(g_w, g_l)
    d_w, d_l = 10 ** jax.random.uniform(keys[3], minval=-1.5, maxval=1.5) / n_w, 1 / n_l
    move = STEP * (d_w * g_w - d_l * g_l) / jnp.linalg.norm(d_w * g_w - d_l * g_l)
    exact = linear(theta + move.reshape(theta.shape), pair) - linear(theta, pair)
    return kappa(d_w, d_l, n_w, n_l), inner / (n_w * n_l), jnp.stack([g_w @ move, g_l @ move]), exact


ratio, cosine, predicted, exact = jax.jit(jax.vmap(random_step))(jax.random.split(runtime.root_key(0), 4000))
clear = jnp.all(jnp.abs(predicted) > STEP**2 / 4, axis=1)
up_w, up_l = (exact > 0).T
outcome = jnp.where(up_w, jnp.where(up_l, Case.BOTH_RISE, Case.IDEAL), Case.BOTH_FALL)
print(f"{int(clear.sum())} of 4000 pairs are clear of the boundary; the rule is right on all of them")
assert clear.mean() > 0.99 and jnp.array_equal(outcome[clear], case(ratio, cosine)[clear])
assert jnp.all(exact <= predicted + 1e-13), "an upper bound; sums near -100 nats round to 1e-14"
assert not jnp.any(up_l & ~up_w & clear), "nobody saw the chosen fall and the rejected rise"

figure, ax = plt.subplots(figsize=(6.6, 4))
bold = {"fontweight": "bold", "bbox": {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 2}}
for kind, name, colour, marker, x, y in (
    (Case.IDEAL, "chosen up, rejected down", "C0", "o", 1, -0.75),
    (Case.BOTH_FALL, "both fall", "C1", "v", 0.07, 0.9),
    (Case.BOTH_RISE, "both rise", "C4", "^", 14, 0.9),
):
    ax.scatter(ratio[outcome == kind], cosine[outcome == kind], s=6, lw=0, alpha=0.5, color=colour, marker=marker)
    ax.text(x, y, name, color=colour, ha="center", va="center", **bold)
line = np.geomspace(10**-1.5, 10**1.5, 301)
ax.plot(line, np.minimum(line, 1 / line), color="black", ls="-", lw=2)
for n, (_, products) in runs.items():  # the weights of DPO are equal: kappa is the ratio of the norms
    path = np.stack([products.norm_chosen / products.norm_rejected, products.cosine])
    ax.plot(*path[:, path[0] > line[0]], color="black", ls="--")
    ax.plot(*path[:, 0], "o", color="black", ms=7, mfc="white", mew=1.4)
    ax.annotate(f"{n} shared" if n else "label only", path[:, 0], (8, -3), textcoords="offset points", **bold)
ax.set(xscale="log", xlim=(line[0], line[-1]), ylim=(-1, 1), xlabel=r"$\kappa = d_w|g_w|\,/\,d_l|g_l|$")
ax.set(ylabel=r"cosine of $g_w$ and $g_l$", title=r"dots: measured; line: $\cos = \min(\kappa, 1/\kappa)$")

# %% [markdown]
# Circles mark where our two runs start, dashes where they go. The label alone stays in the safe wedge. The ten shared
# tokens turn the gradients towards each other and make $g_l$ the longer one: the pair starts inside "both fall".
#
# ## 5. What it takes
#
# **One token of a tabular policy cannot do it.** Our result: one step of DPO on one pair of single tokens raises the
# chosen, at every step size, from every starting point. It takes weights that differ by more than a *factor of two*.

# %%
show(tokens.chosen_rises_at_every_step, tokens.no_entanglement_within_factor_two, tokens.no_entanglement_at_any_ratio)
laws = jax.random.dirichlet(runtime.root_key(1), jnp.full(4, 0.2), (20_000,))
a, b, c = jax.vmap(lambda p: tokens.gram(p, 0, 1))(laws)
print(f"\n20000 random laws: the largest 2 <g_w, g_l> / |g_w|^2 is {jnp.max(2 * c / a):.4f}")
assert 0.99 < jnp.max(2 * c / a) <= 1 + 1e-9, "never beyond the factor two, and close to it"

# %% [markdown]
# **A shared prefix cannot do it either**, with equal weights and a free softmax in each context, although it drives the
# cosine to 1. *A large cosine alone is no entanglement.* What counts is how it compares with $\kappa$.

# %%
show(tokens.shared_prefix_never_entangles_equal_weights)
for length in (0, 10, 1000):  # prefix tokens predicted as (.7, .2, .1) and hit
    calm = tokens.tabular_gram(jnp.array([0.7, 0.2, 0.1]), 0, 0)
    a, b, c = tokens.prefix_gram(jnp.array([0.5, 0.3, 0.2]), 0, 1, length * calm, 0.0, 0.0)
    print(f"prefix {length:4d}: cosine {c / jnp.sqrt(a * b):+.3f}, the chosen rises by {a - c:.2f} per unit of step")
    assert a - c > 0.79

# %% [markdown]
# **A shared suffix can**: its contexts differ, its parameters meet. With residuals $u$ after the chosen and $Tu$ after
# the rejected label, $\delta$ the difference of the two label probabilities and $T > 1/R$, the chosen falls exactly beyond
# $$n^* = \frac{1-\delta}{|u|^2\,(RT-1)}\ \text{ suffix tokens (ours)}.$$
# A suffix alone is not enough. Read without its assumption on confidence, the paper's theorem on several tokens fails.

# %%
show(tokens.chosen_falls_beyond_n_star, tokens.shared_suffix_lowers_the_chosen)
u = policies.residual(GO_ON, p)
threshold = tokens.n_star(LABEL[0] - LABEL[1], u @ u, R=0.8, T=4.0)  # T: the rejected misses four times as often
theta_12, (features_12, ids_12, _) = toy(12)


def rise(n):
    """How fast the chosen rises under equal weights, measured with a tiny step, when n suffix tokens are kept."""
    pair = features_12, ids_12, jnp.broadcast_to(jnp.arange(13) <= n, ids_12.shape)
    g_w, g_l = gradients(linear, theta_12, pair)
    return (linear(theta_12 + 1e-6 * (g_w - g_l).reshape(theta_12.shape), pair) - linear(theta_12, pair))[0] / 1e-6


lengths = np.arange(13)
rises_by = np.asarray(jax.vmap(rise)(lengths))
print(f"\nn* = {threshold:.3f}; measured: {rises_by[5]:+.4f} with 5 shared tokens, {rises_by[6]:+.4f} with 6")
assert np.array_equal(rises_by < 0, lengths > threshold)

figure, ax = plt.subplots(figsize=(5.2, 2.6))
ax.bar(lengths, rises_by, color=np.where(rises_by < 0, "C1", "C0"), width=0.5)
ax.axvline(threshold, color="black", ls=":", lw=1.5)
ax.annotate(f"$n^* = {threshold:.2f}$", (threshold, 0.4), (6, 0), textcoords="offset points")
ax.set(xlabel="shared suffix (tokens)", ylabel="rise of the chosen\n(nats per unit of step)")

# %% [markdown]
# **Shared parameters at their barest.** A unigram policy, one softmax for all positions: of AB against BB, A is pushed up
# and B down, but AB needs its B. And with **trained embeddings** one token is enough: prefer *No* to *Never*, whose
# embeddings are close, and both fall, while *Yes*, far away on the same side, takes what they lose.

# %%
show(models.unigram_exact_step, models.tied_embeddings_may_lower_the_chosen)
for p_a in (0.3, 0.7):  # a theorem is a function: on numbers, its left side is the experiment
    change = models.unigram_exact_step(jnp.array([p_a, 1 - p_a]), 0, 1, 0.5).lhs
    print(f"\nunigram, p(A) = {p_a}: log pi(AB) changes by {change:+.3f}", end="")
    assert (change > 0) == (p_a < 0.5)


def words(params, *_):
    """Log-probabilities of No, Never and Yes; embeddings and hidden vector are both trained."""
    return policies.linear_log_probs(params.unembedding, params.hidden)


def no_rather_than_never(params, start):
    return dpo(PairLogProbs(*words(params)[:2], *start[:2]), beta=BETA)


tied = policies.Tied(unembedding=jnp.array([[1.0], [0.0], [4.0]]), hidden=jnp.ones(1))
step = one_step(no_rather_than_never, tied, (words(tied),), learning_rate=0.01, measure=words)
no, never, yes = step.after - step.before
print(f"\n\ntrained embeddings: No {no:+.1e}, Never {never:+.1e}, Yes {yes:+.1e} nats")
assert no < 0 and never < 0 and yes > 0
