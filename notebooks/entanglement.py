# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Why DPO can lower the likelihood of what you prefer
# *45 minutes; it runs in seconds on a laptop.* You train a model to prefer response A to response B. The loss falls,
# the margin grows, and **A becomes less likely than before**. This notebook takes the effect apart, after Yuan et al.
# (2024), *A Common Pitfall of Margin-based Language Model Alignment: Gradient Entanglement*, arXiv:2410.13828. Where a
# statement is ours and not theirs, the text says so.
#
# **You need** the softmax, gradients and a first-order Taylor expansion, and to have seen a preference pair once.
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
# DPO sees a pair only through the **margin**
# $$h = \big[\log\pi(y_w) - \log\pi_{ref}(y_w)\big] - \big[\log\pi(y_l) - \log\pi_{ref}(y_l)\big],$$
# and minimises $-\log\sigma(\beta h)$. Here $y_w$ is the chosen response (it won), $y_l$ the rejected one (it lost),
# and the reference policy $\pi_{ref}$ is the one that we start from.
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


def run_dpo(policy, params, pair, rate, steps=200, seen=None, gradient=None):
    """Changes of both log-probabilities, and how their gradients meet, at every step (section 6: seen, gradient)."""

    def loss(params, pair, start, seen, seen_start):
        return dpo(PairLogProbs(*policy(params, seen), *seen_start), beta=BETA)

    def record(params, pair, start, *_):
        return policy(params, pair) - start, gradient_products(*gradients(policy, params, pair))

    args = pair, policy(params, pair), seen or pair, policy(params, seen or pair)
    loss = None if gradient else loss
    return train(loss, params, args, steps=steps, learning_rate=rate, gradient=gradient, record=record).history


linear = partial(log_prob, policies.linear_logits)  # logits linear in the parameters
runs = {n: run_dpo(linear, *toy(n), rate=0.5) for n in (0, 10)}

figure, axes = plt.subplots(1, 2, figsize=(7.4, 3))
axes[0].set_ylabel("change of log-probability (nats)")
for ax, (n, (changes, _)) in zip(axes, runs.items(), strict=True):
    changes = {"chosen": changes[:, 0], "rejected": changes[:, 1], "margin": changes[:, 0] - changes[:, 1]}
    for k, (name, values) in enumerate(changes.items()):
        ax.plot(values, lw=2)
        ax.annotate(name, (200, values[-1]), (4, 0), textcoords="offset points", color=f"C{k}", va="center")
    ax.axhline(0, color="0.5", lw=0.8, ls="-")
    ax.set(title=f"label and {n} shared tokens" if n else "label only", xlabel="step of DPO")
    ax.set(xlim=(0, 265), xticks=(0, 100, 200))
    print(f"{n:2d} shared tokens: chosen {changes['chosen'][-1]:+.2f}, rejected {changes['rejected'][-1]:+.2f} nats")
    assert np.all(np.diff(changes["margin"]) > 0), "the margin grows at every step"
    assert np.all(np.sign(np.diff(changes["chosen"])) == (-1 if n else 1)), "and the chosen always moves one way"

# %% [markdown]
# Both runs are a success for the loss. But on the right **both** log-probabilities fall, at every single step, and the
# margin grows only because the rejected one falls faster. The two runs differ in ten tokens that the two responses
# *share*. Before you read on: what could shared tokens, of all things, have to do with it?
#
# ## 2. The toy
# A response is a row of tokens and $\log\pi(y) = \sum_k \log p_k(y_k)$. At position $k$ the policy has a feature vector
# $x_k$ of what came before, and predicts $p_k = \mathrm{softmax}(\theta x_k)$; only the matrix $\theta$ is trained.
# Think of the last layer of a language model above frozen features. Then
# $\nabla_\theta \log p_k(y) = (e_y - p_k)\, x_k^\top$, the **residual** times the features, so that two tokens'
# gradients have the inner product (residual · residual) × (features · features). Tokens interact through what the model
# gets wrong, and as far as their contexts look alike.
#
# We choose both. Features of different positions are orthogonal; at a suffix position those of the two responses have
# the inner product $R = 0.8$ (`overlap`), since what came before differs in one word. After *Positive*, which
# fine-tuning has seen, a suffix token misses with probability 0.2 (`error_w`); after *Negative*, which it has not, with
# 0.8 (`error_l`). The closed form and automatic differentiation had better agree:

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
# Let $A = \log\pi(y_w)$, $B = \log\pi(y_l)$, $g_w = \nabla A$, $g_l = \nabla B$. Any loss of $A$ and $B$ has two
# **weights**, $d_w = -\partial\ell/\partial A$ and $d_l = \partial\ell/\partial B$; for DPO both are
# $\beta\,\sigma(-\beta h)$. A gradient step of size $\eta$ moves the parameters by $\eta\,(d_w g_w - d_l g_l)$. Expand:
# $$\Delta A = \eta\,\big(d_w |g_w|^2 - d_l \langle g_w, g_l\rangle\big) + O(\eta^2),\qquad
#   \Delta B = \eta\,\big(d_w \langle g_w, g_l\rangle - d_l |g_l|^2\big) + O(\eta^2).$$
# That is the whole mechanism: the step *away* from the rejected response carries a part of $g_w$ with it. The paper's
# Condition 1 follows: the chosen rises iff $\langle g_w, g_l\rangle < \frac{d_w}{d_l}|g_w|^2$, and the rejected falls
# iff $\langle g_w, g_l\rangle < \frac{d_l}{d_w}|g_l|^2$. Divided by the norms (this is ours), one number decides:
# $$\kappa = \frac{d_w\,|g_w|}{d_l\,|g_l|}\,:\qquad
#   \text{the chosen rises} \iff \cos < \kappa, \qquad \text{the rejected falls} \iff \cos < 1/\kappa .$$
# $\kappa$ says how much harder the step pushes the chosen. For $\kappa < 1$ and $\cos > \kappa$ both fall; for
# $\kappa > 1$ and $\cos > 1/\kappa$ both rise. No cosine exceeds 1, so the fourth case (chosen down, rejected up) is
# empty, and $\kappa = 1$ is safe unless the gradients are parallel.
#
# You need not take this on trust. In this project *a theorem is a function whose body is the claim*; one is printed
# below. `SameSign(a, b, factor)` claims that $a$ and $b$ have the same sign *because* $a$ = factor × $b$ with a
# positive factor. Call the function with arrays and it evaluates both sides. Call it with symbols and sympy shows that
# they are one expression, for vectors of no particular length: the proof holds for every number of parameters.


# %%
def show(*claims):
    """Prove or refute, now, and insist on the verdict that each claim announces."""
    for claim in claims:
        verdict = prove(claim)
        print(f"{claim.statement}\n    {verdict}")
        assert holds(claim, verdict), claim


rises = geometry.chosen_rises_iff_kappa_exceeds_cosine
print(inspect.getsource(rises.body))
show(geometry.entangled_changes_of_dpo, rises, geometry.case_four_is_empty)
assert str(prove(rises)) == "proved (every size)"
sides = rises(g_w, g_l, 0.05, 0.05)  # the same function, on the gradients of our toy; DPO starts with weights beta / 2
print(f"\nour toy with ten shared tokens: A changes by {sides.lhs:.3f} per unit of step")
assert np.isclose(sides.lhs, sides.rhs) and sides.lhs < 0

# %% [markdown]
# ### A sentence that needs a correction
# "The margin grows", one says of these losses, and for DPO it is right: with equal weights the margin grows by
# $\eta\, d\,|g_w - g_l|^2$. Read for every margin loss, the sentence is false; length-normalised losses, SimPO for one,
# have $d_w/d_l = n_l/n_w$, the ratio of lengths. What always grows is the margin *with the weights inside* (this is
# ours): $d_w\Delta A - d_l\Delta B = \eta\,|d_w g_w - d_l g_l|^2 + O(\eta^2)$.

# %%
show(geometry.margin_of_dpo_grows, geometry.margin_grows_for_every_loss, geometry.weighted_margin_grows)
# another counterexample, by hand: one parameter, g_w = 1.5, g_l = 1, d_w = 1, d_l = 2
rise_w, rise_l = geometry.changes(jnp.array([1.5]), jnp.array([1.0]), 1.0, 2.0)
assert rise_w - rise_l == -0.25 and rise_w - 2 * rise_l == 0.25, "the margin shrinks, with the weights inside it grows"

# %% [markdown]
# ## 4. Predictions meet measurements
# First order speaks of small steps. How small? For log-linear policies it is an upper bound, and what a step of size
# $\eta$ loses is at most $\frac{\eta^2}{8}\mathrm{range}^2$ at each position (both are ours). So **a predicted fall is
# a fall at every step size**, and only a predicted rise can be spoilt. With our orthonormal features a step of length
# $s$ in $\theta$ loses at most $s^2/4$ nats: so near the boundary the rule may err. Now 4000 random pairs:

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
right = outcome == case(ratio, cosine)
print(
    f"{int(clear.sum())} of 4000 pairs are clear of the boundary, and the rule is right on {int((right & clear).sum())}"
)
assert clear.mean() > 0.99 and jnp.all(right[clear])
gap = predicted - exact  # sums near -100 nats round to 1e-14
print(f"first order minus measured: {jnp.min(gap):.0e} to {jnp.max(gap):.1e} nats, allowed 0 to {STEP**2 / 4:.1e}")
assert jnp.all((gap > -1e-13) & (gap < STEP**2 / 4 + 1e-13))

figure, ax = plt.subplots(figsize=(6.6, 4))
bold = {"fontweight": "bold", "bbox": {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 2}}
for kind, name, colour, marker, x, y in (
    (Case.IDEAL, "chosen up, rejected down", "C0", "o", 1, -0.6),
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
    name, side, shift = (f"{n} shared", "right", -8) if n else ("label only", "left", 8)
    ax.annotate(name, path[:, 0], (shift, -3), textcoords="offset points", ha=side, **bold)
ax.set(xscale="log", xlim=(line[0], line[-1]), ylim=(-1, 1), xlabel=r"$\kappa = d_w|g_w|\,/\,d_l|g_l|$")
ax.set(ylabel=r"cosine of $g_w$ and $g_l$", title=r"dots: measured; line: $\cos = \min(\kappa, 1/\kappa)$")
assert not jnp.any(up_l & ~up_w & clear), "nobody saw the chosen fall and the rejected rise"

# %% [markdown]
# Circles mark where our two runs start, dashes where they go. The label alone stays in the safe wedge. The ten shared
# tokens turn the gradients towards each other and make $g_l$ the longer one: the pair starts inside "both fall".
#
# ## 5. What it takes
# **One token of a tabular policy cannot do it.** The paper (as we recall its theorems) shows that one contrasting token
# is harmless where the model is uniform. More is true (ours): one step of DPO on one pair of single tokens raises the
# chosen, at every step size, from every starting point; it takes weights that differ by more than a *factor of two*.
# **A shared prefix cannot do it either**, with equal weights and a free softmax in each context, although it drives the
# cosine to 1. *A large cosine alone is no entanglement*: what counts is how it compares with $\kappa$.

# %%
show(tokens.chosen_rises_at_every_step, tokens.no_entanglement_within_factor_two, tokens.no_entanglement_at_any_ratio)
laws = jax.random.dirichlet(runtime.root_key(1), jnp.full(4, 0.2), (20_000,))
a, b, c = jax.vmap(lambda law: tokens.gram(law, 0, 1))(laws)
print(f"20000 random laws: the largest 2 <g_w, g_l> / |g_w|^2 is {jnp.max(2 * c / a):.4f}\n")
assert 0.99 < jnp.max(2 * c / a) <= 1 + 1e-9, "never beyond the factor two, and close to it"

show(tokens.shared_prefix_never_entangles_equal_weights)
calm = tokens.tabular_gram(jnp.array([0.7, 0.2, 0.1]), 0, 0)  # squared residual of a prefix token that is hit
a, b, c = tokens.prefix_gram(jnp.array([0.5, 0.3, 0.2]), 0, 1, 1000 * calm, 0.0, 0.0)
print(f"prefix of 1000 tokens: cosine {c / jnp.sqrt(a * b):.3f}, and the chosen rises by {a - c:.2f} per unit of step")
assert c / jnp.sqrt(a * b) > 0.99 and np.isclose(a - c, 1 - 0.5 + 0.3)

# %% [markdown]
# **A shared suffix can**: its contexts differ, its parameters meet. With residuals $u$ after the chosen label and $Tu$
# after the rejected, $\delta$ the difference of the two labels' probabilities and $T > 1/R$, the chosen falls exactly
# beyond $n^* = (1-\delta)/(|u|^2\,(RT-1))$ tokens (ours). But "a shared suffix lowers the chosen" is wrong as it
# stands: where both contexts predict alike, it cancels. The paper's theorem on several tokens assumes otherwise.

# %%
show(tokens.chosen_falls_beyond_n_star, tokens.shared_suffix_lowers_the_chosen)
u = policies.residual(GO_ON, p)
threshold = tokens.n_star(LABEL[0] - LABEL[1], u @ u, R=0.8, T=4.0)  # T: the rejected misses four times as often


def measured_rise(n):
    """Rise of the chosen under equal weights per unit of step, measured, when n of the ten suffix tokens are kept."""
    kept = pair[0], pair[1], jnp.broadcast_to(jnp.arange(11) <= n, pair[1].shape)
    g_w, g_l = gradients(linear, theta, kept)
    return (linear(theta + 1e-6 * (g_w - g_l).reshape(theta.shape), kept) - linear(theta, kept))[0] / 1e-6


lengths = np.arange(11)
rise = np.asarray(jax.vmap(measured_rise)(lengths))
figure, ax = plt.subplots(figsize=(5.2, 2.6))
ax.bar(lengths, rise, color=np.where(rise < 0, "C1", "C0"), width=0.5)
ax.axvline(threshold, color="black", ls=":", lw=1.5)
ax.annotate(f"$n^* = {threshold:.2f}$", (threshold, 0.4), (6, 0), textcoords="offset points")
ax.set(xlabel="shared suffix (tokens)", ylabel="rise of the chosen\n(nats per unit of step)")
assert np.array_equal(rise < 0, lengths > threshold)

# %% [markdown]
# **Shared parameters at their barest.** A unigram policy, one softmax for all positions: of AB against BB, A is pushed
# up and B down, but AB needs its B. And with **trained embeddings** one token is enough: prefer *No* to *Never*, whose
# embeddings are close, and both fall, while *Yes*, far away on the same side, takes what they lose.

# %%
show(models.unigram_exact_step, models.tied_embeddings_may_lower_the_chosen)
change = models.unigram_exact_step(jnp.array([0.7, 0.3]), 0, 1, 0.5).lhs  # on numbers, the left side is the experiment
tied = policies.Tied(unembedding=jnp.array([[1.0], [0.0], [4.0]]), hidden=jnp.ones(1))  # of No, Never, Yes
before = policies.linear_log_probs(*tied)


def no_rather_than_never(model):
    return dpo(PairLogProbs(*policies.linear_log_probs(*model)[:2], *before[:2]), beta=BETA)


step = one_step(no_rather_than_never, tied, learning_rate=0.01, measure=lambda model: policies.linear_log_probs(*model))
no, never, yes = step.after - step.before
print(f"\nunigram: AB {change:+.3f} nats; trained embeddings: No {no:+.1e}, Never {never:+.1e}, Yes {yes:+.1e} nats")
assert change < 0 and no < 0 and never < 0 and yes > 0

# %% [markdown]
# ## 6. Two mends, and their limits
# The paper proposes two (we recall its formulas). **Normalise**: step along $g_w/|g_w| - g_l/|g_l|$, so that
# $\kappa = 1$. **Mask**: let the loss see only the tokens that differ. What does a nat of margin cost the chosen? We
# ask the toy, and a network of one hidden layer, in which label and suffix share parameters, for 200 steps each.

# %%
show(models.normalised_gradients_never_entangle, models.calibrated_weights_normalise, models.mask_leaves_the_contrast)


def normalised(policy, params, pair, start, *_):
    """Minus a step with the weights of DPO times z and over z, z = kappa^(-1/2); in general of no loss the gradient."""
    g_w, g_l = gradients(policy, params, pair)
    d_w, d_l = margin_weights(partial(dpo, beta=BETA), PairLogProbs(*policy(params, pair), *start))
    z = kappa(d_w, d_l, *gradient_products(g_w, g_l)[:2]) ** -0.5
    return ravel_pytree(params)[1](d_l / z * g_l - z * d_w * g_w)


inputs = policies.token_inputs(jnp.ones((2, 1)), pair[1], 3)  # the same prompt for both responses, the number 1
net = policies.network(inputs.shape[-1], 3, hidden=32)
neural = partial(log_prob, net.apply)
untrained = net.init(runtime.root_key(2))
tuned = train(lambda w: -neural(w, (inputs, *pair[1:]))[0] / 11, untrained, steps=30, learning_rate=0.5).params  # SFT

figure, axes = plt.subplots(1, 2, figsize=(7.4, 3))
found = {}
tasks = ("toy", linear, theta, pair[0]), ("network", neural, tuned, inputs)
for ax, (title, policy, params, x) in zip(axes, tasks, strict=True):
    label_only = x, pair[1], pair[2] & (jnp.arange(11) == 0)
    mends = {"DPO": {}, "mask": {"seen": label_only}, "normalise": {"gradient": partial(normalised, policy)}}
    for k, (name, mend) in enumerate(mends.items()):
        changes, _ = run_dpo(policy, params, (x, *pair[1:]), rate=0.2, **mend)
        margin, chosen = found[title, name] = changes[:, 0] - changes[:, 1], changes[:, 0]
        print(f"{title:8}{name:10} margin {margin[-1]:+6.2f}, chosen {chosen[-1]:+6.2f} nats")
        ax.plot(margin, chosen, lw=2)
        ax.annotate(name, (margin[-1], chosen[-1]), (4, 4), textcoords="offset points", color=f"C{k}")
    ax.set(title=title, xlabel="margin (nats)", ylabel="change of the chosen (nats)")

mask, plain = (np.interp([10, 45], *found["network", name]) for name in ("mask", "DPO"))  # at margins of 10 and 45 nats
assert mask[0] > plain[0] and mask[1] < plain[1] < 0 and found["toy", "mask"][1][-1] > 0
assert all(found[title, "normalise"][1][-1] > 0 for title in ("toy", "network"))
assert found["network", "normalise"][0][-1] < found["network", "DPO"][0][-1] / 5

# %% [markdown]
# In the toy both mends keep their promise. In the network the **mask** is cheap at first and then costs *more* than
# DPO: learning the label moves the suffix too, and nothing in the loss holds the suffix any more. **Normalising** keeps
# the chosen up, but slowly: it makes a tenth of DPO's margin in as many steps, its speed vanishes as $\cos \to 1$, and
# it needs both gradients of every pair. Its promise, too, is of first order and for one pair at a time.
#
# **To take away.** DPO rewards the margin alone. Where parameters are shared across contexts, a push on one response
# pushes the other; $\cos$ against $\kappa$ says which way both go. So plot $\log\pi(y_w)$ in training, not the margin.
#
# ## 7. Exercises (answers folded below)
# 1. *A longer answer.* A tabular policy and a loss with $d_w/d_l = 0.8$. Both responses share $k$ tokens, then part at
#    the law (.5, .3, .2); the chosen has two more tokens. All other tokens are predicted (.7, .2, .1) and hit. From
#    which $k$ on does the chosen fall?
# 2. *How much fine-tuning?* In the toy let `error_w` vary, all else as it is. Where is $n^*$ smallest?
# 3. *Two pairs.* One prompt, one tabular token, two pairs: chosen and rejected have the probabilities .1, .1 in the
#    first, .6, .2 in the second. No pair is entangled by itself. From which ratio $t_2/t_1$ of the pushes on does the
#    first chosen fall?

# %% jupyter={"outputs_hidden": true, "source_hidden": true}
# 1. The products of section 5 under unequal weights; the closed form gives 33.86.
k = jnp.arange(100)
a, b, c = tokens.prefix_gram(jnp.array([0.5, 0.3, 0.2]), 0, 1, k * calm, 2 * calm, 0.0)
first = int(jnp.argmax(first_order_changes(0.8, 1.0, jnp.sqrt(a), jnp.sqrt(b), c)[0] < 0))
# 2. |u|^2 (RT - 1) peaks at error_w = R error_l / 2: halfway tuned is worst.
x = jnp.linspace(0.01, 0.63, 63)
n_star = tokens.n_star(0.3, 1.5 * x**2, 0.8, 0.8 / x)
# 3. Beyond 2.5. Condition 1 looks at one pair: the second raises a likely token at the expense of the first.
law = jnp.array([0.1, 0.1, 0.6, 0.2])
inside, beyond = (float(models.batch_change(law, 0, 1, 2, 3, 1.0, t)) for t in (2.4, 2.6))
best = n_star.argmin()
print(f"1. k = {first}   2. n* = {n_star[best]:.2f} at error_w = {x[best]:.2f}   3. {inside:+.2f}, {beyond:+.2f}\n")
assert first == 34 and np.isclose(x[best], 0.32) and inside > 0 > beyond
show(tokens.prefix_threshold_of_the_chosen, tokens.suffix_is_worst_at_intermediate_sft)
show(models.second_pair_lowers_the_first_chosen, models.pairwise_condition_covers_a_batch)
