# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Start here: from the softmax to the first theorem
# *20 minutes; it runs in seconds on a laptop.* A language model chooses its next word by a softmax. We push one answer
# up and another down, ask who else moves, guess a law from ten thousand random trials, and let the computer prove it,
# for a vocabulary of any size. On the way you meet all that this project consists of: a function that is measured on
# arrays, proved on symbols, attacked with a wrong constant, and drawn.
#
# **You need** Python, and the derivative of a logarithm. No language model, no GPU.
# **Afterwards you can** write down the gradient of a softmax from memory, state a claim about it as a function, have it
# proved or refuted, and read the other notebooks. Logarithms are natural, so log-probabilities are in nats.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from sandbox import runtime
from sandbox.algebra import dot, log_softmax, onehot, velocity
from theory.proof import Proved, Refuted, prove
from theory.statement import AtMost, Equal, Index, Simplex, Source, theorem

runtime.configure(x64=True)
plt.style.use("experiments.house")

# %% [markdown]
# ## 1. A softmax
# The model gives each answer $y$ a score $z_y$, its **logit**, and answers $y$ with the probability
# $$p_y = \frac{e^{z_y}}{\sum_j e^{z_j}}.$$
# Probabilities add up to one, so whoever gains takes from the others. Three answers; we raise the first logit by 1.

# %%
NAMES = ("Yes", "No", "Never")
z = jnp.array([0.5, 1.0, 2.0])
before, after = jax.nn.softmax(z), jax.nn.softmax(z.at[0].add(1.0))
for name, p, q in zip(NAMES, before, after, strict=True):
    print(f"{name:5s}  {p:.3f} -> {q:.3f}, times {q / p:.2f}")
assert np.isclose(after.sum(), 1) and np.isclose(after[1] / before[1], after[2] / before[2])

# %% [markdown]
# The two others lose by the *same factor*: a softmax knows no friends. Why? Take the logarithm,
# $\log p_y = z_y - \log\sum_j e^{z_j}$, and differentiate with respect to each logit $z_k$:
# $$\frac{\partial \log p_y}{\partial z_k} = [k = y] - p_k, \qquad\text{in one line}\qquad g_y = e_y - p.$$
# This vector $g_y$ is the one formula to remember: **where I point, less where the model stands.** JAX can check it.

# %%
for y in range(3):
    g_y = jnp.eye(3)[y] - before
    assert np.allclose(jax.grad(lambda z: jax.nn.log_softmax(z)[y])(z), g_y)  # noqa: B023 - used at once
    print(f"gradient of log p({NAMES[y]}):", np.round(g_y, 3))

# %% [markdown]
# ## 2. A pair
# In preference training a person has chosen one answer, $w$ (it won), and rejected another, $l$ (it lost). Losses like
# DPO push $\log p_w$ up and $\log p_l$ down, equally hard: the logits move along $g_w - g_l$. Along that direction the
# chosen changes, to first order, by
# $$g_w\cdot(g_w - g_l) = |g_w|^2 - g_w\cdot g_l .$$
# The second term is what pushing the *rejected* does to the *chosen*. If $g_w\cdot g_l$ were larger than $|g_w|^2$, the
# chosen answer would fall although we push it up. Can that happen? Here are ten thousand random softmaxes.

# %%
law = jax.random.dirichlet(jax.random.key(0), 0.3 * jnp.ones(5), (10_000,))
g_w, g_l = jnp.eye(5)[0] - law, jnp.eye(5)[1] - law
norm, inner = jnp.sum(g_w**2, axis=1), jnp.sum(g_w * g_l, axis=1)
largest = float(jnp.max(inner / norm))
print(f"largest inner product of {law.shape[0]:,}, as a share of |g_w|^2: {largest:.4f}")

figure, ax = plt.subplots(figsize=(5.2, 3.4))
ax.plot(norm, inner, ".", ms=2)
line = jnp.array([0.0, 2.0])
ax.plot(line, line, ls="--", color="0.4")
ax.annotate("beyond this line the chosen falls", (0.9, 1.06), color="0.3", ha="right", fontsize=8)
ax.plot(line, line / 2, ls="-", lw=2, color="C1")
ax.annotate("half of it", (1.1, 0.62), color="C1", ha="right")
ax.set(xlabel="$|g_w|^2$", ylabel="$g_w \\cdot g_l$", xlim=(0, 2), ylim=(-1.1, 1.2))
plt.show()
assert largest < 0.5

# %% [markdown]
# No dot lies beyond the dashed line, and none even beyond half of it. That is a guess worth a proof:
# $$2\, g_w\cdot g_l \le |g_w|^2 .$$
#
# ## 3. The first theorem
# By hand it takes two lines. With $e_w\cdot e_l = 0$ and $e_w\cdot p = p_w$,
# $$g_w\cdot g_l = |p|^2 - p_w - p_l, \qquad |g_w|^2 = 1 - 2p_w + |p|^2,$$
# $$|g_w|^2 - 2\,g_w\cdot g_l = 1 - |p|^2 + 2p_l \ge 0, \qquad\text{since}\quad |p|^2 \le 1.$$
# Here a theorem is **a function whose body is the claim**. It takes a distribution `p` over a vocabulary `V` of any
# size and two different places in it; `slack` is what we found by hand. The words `dot` and `onehot` mean the same on
# arrays and on symbols, so the function can be called with either.


# %%
@theorem(Source("start_here", "Section 3"), r"2 g_w \cdot g_l \le |g_w|^2", p=Simplex("V"), w=Index("V"), l=Index("V"))
def the_chosen_rises(p, w, l):
    """The inner product of two answers' gradients is at most half of the chosen's squared norm."""
    g_w, g_l = onehot(w, p) - p, onehot(l, p) - p
    return AtMost(2 * dot(g_w, g_l), dot(g_w, g_w), slack=1 - dot(p, p) + 2 * p[l])


claim = the_chosen_rises(before, 0, 1)  # on arrays: two numbers to compare
print(f"on arrays:  {claim.lhs:.3f} is at most {claim.rhs:.3f}")
verdict = prove(the_chosen_rises)  # on symbols: for every p and every size of V
print("on symbols:", verdict)
assert claim.lhs <= claim.rhs and verdict == Proved()

# %% [markdown]
# *Every size*: the prover never wrote out a vector. It simplified $|g_w|^2 - 2 g_w\cdot g_l - \text{slack}$ to zero
# with sums over an index, and saw from its form that the slack is not negative.
#
# ## 4. Try to break it
# A test that cannot fail shows nothing. Is the 2 needed? We claim the same with 3, and leave the slack to the prover.


# %%
@theorem(Source("start_here", "Section 4"), r"3 g_w \cdot g_l \le |g_w|^2", expect="refuted",
         p=Simplex("V"), w=Index("V"), l=Index("V"))  # fmt: skip
def with_three(p, w, l):
    """The same with 3: false."""
    g_w, g_l = onehot(w, p) - p, onehot(l, p) - p
    return AtMost(3 * dot(g_w, g_l), dot(g_w, g_w))


broken = prove(with_three)
print(broken)
assert isinstance(broken, Refuted)

# %% [markdown]
# The prover looked for the simplest counterexample and checked it with exact fractions. Put it into section 3's formula
# and see: $w$ and $l$ are both rare, and a third answer has the mass. In that corner the ratio tends to 1/2, so 2 is
# the best constant there is.
#
# ## 5. What the theorem is good for
# It says more than we asked. A loss that pushes with two *different* weights, $d_w$ up and $d_l$ down, changes the
# chosen by $d_w|g_w|^2 - d_l\,g_w\cdot g_l$. By the theorem that is positive while $d_l < 2 d_w$: **one answer of one
# token is safe up to a factor of two.** We draw the worst of many softmaxes for every ratio of the weights.

# %%
ratios = jnp.linspace(0, 4, 81)
change = norm[:, None] - ratios[None, :] * inner[:, None]
worst = jnp.min(change / norm[:, None], axis=0)
figure, ax = plt.subplots(figsize=(5.2, 3.2))
ax.plot(ratios[::4], worst[::4], "o", ms=4)
ax.plot(ratios, 1 - ratios / 2, ls="--", color="0.4")
ax.annotate("the theorem: $1 - d_l / 2 d_w$", (1.3, 0.42), color="0.3", fontsize=8)
ax.axhline(0, color="0.5", lw=0.8)
ax.annotate("the chosen falls", (4.0, -0.17), fontsize=8, ha="right")
ax.set(xlabel="ratio of the pushes $d_l / d_w$", ylabel="worst change of the chosen,\nin units of $d_w |g_w|^2$")
plt.show()
assert jnp.all(worst >= 1 - ratios / 2 - 1e-12) and worst[ratios <= 2].min() > 0 > worst[-1]

# %% [markdown]
# And yet in practice DPO does lower the likelihood of chosen answers. So an assumption of the theorem must fail there.
# Which? Real answers have *many tokens*, predicted in contexts that share parameters. What becomes of the theorem then
# is the story of `entanglement.ipynb`, the next notebook; `notebooks/README.md` lists the others.
#
# **To take away.** $g_y = e_y - p$. A claim is a function: call it with numbers to test it, with symbols to prove it,
# and change a constant to see that the proof can fail.
#
# ## 6. Exercises (answers folded below)
# 1. *The third answer.* The logits move along $g_w - g_l$. What does that do to $\log p_o$ of an answer $o$ that nobody
#    mentioned, and when does it rise? State it as an `Equal` and have it proved.
# 2. *The rejected.* Show that the rejected always falls along $g_w - g_l$. (Section 3 needs one change.)
# 3. *Temperature.* With $p = \mathrm{softmax}(z / T)$ all gradients change. Does the factor of two?

# %% jupyter={"outputs_hidden": true, "source_hidden": true}
# 1. p cancels in g_w - g_l = e_w - e_l, and g_o . (e_w - e_l) = p_l - p_w: it rises while the rejected is the likelier.


@theorem(Source("start_here", "Exercise 1"), r"g_o \cdot (g_w - g_l) = p_l - p_w",
         p=Simplex("V"), w=Index("V"), l=Index("V"), o=Index("V"))  # fmt: skip
def third_answers(p, w, l, o):
    """A third answer gains what the rejected's probability exceeds the chosen's by."""
    return Equal(dot(onehot(o, p) - p, onehot(w, p) - onehot(l, p)), p[l] - p[w])


# 2. w and l change roles: |g_l|^2 - 2 g_w . g_l = 1 - |p|^2 + 2 p_w, so g_l . (g_w - g_l) <= -|g_l|^2 / 2 < 0.


@theorem(Source("start_here", "Exercise 2"), r"2 g_w \cdot g_l \le |g_l|^2", p=Simplex("V"), w=Index("V"), l=Index("V"))
def the_rejected_falls(p, w, l):
    """The inner product is at most half of the rejected's squared norm, too."""
    g_w, g_l = onehot(w, p) - p, onehot(l, p) - p
    return AtMost(2 * dot(g_w, g_l), dot(g_l, g_l), slack=1 - dot(p, p) + 2 * p[w])


# 3. No: log p_y = z_y / T - log sum e^(z_j / T) has the gradient (e_y - p) / T, and both sides are divided by T^2.
T = 0.7
cooled = velocity(lambda step: log_softmax((z + step * jnp.eye(3)[1]) / T)[0])(0.0)
assert np.isclose(cooled, -jax.nn.softmax(z / T)[1] / T)
print("1.", prove(third_answers), "  2.", prove(the_rejected_falls), f"  3. {cooled:+.3f}")
assert prove(third_answers) == prove(the_rejected_falls) == Proved()
