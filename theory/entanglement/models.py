"""Where entanglement under equal weights can come from at all (C9, C10), and what mends it."""

from __future__ import annotations

from typing import Any

from sandbox.algebra import dot, exp, grad, log, log_softmax, onehot, sigmoid, softmax, sqrt, total
from sandbox.losses import PairLogProbs, dpo
from sandbox.measures import first_order_changes, kappa
from sandbox.policies import linear_gram, linear_log_probs, residual, tabular_gram, tied_gram
from theory.statement import (
    All,
    AtMost,
    Equal,
    Index,
    NonZeros,
    Positive,
    Positives,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    theorem,
)

PAPER = "yuan2025entanglement"


# -- C9: linear policies -----------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"),
         r"\langle \nabla\log p_y, \nabla\log q_z\rangle = \langle h,k\rangle\,(e_y-p)\cdot(e_z-q)",
         claim="C9", theta=Reals("V", "d"), h=Reals("d"), k=Reals("d"), y=Index("V", distinct=False),
         z=Index("V", distinct=False))  # fmt: skip
def gram_of_a_linear_policy(theta, h, k, y, z):
    """Two tokens after two contexts meet through the product of their features and of their residuals."""

    def g(features, token):
        return grad(lambda theta: linear_log_probs(theta, features)[token])(theta)

    p, q = softmax(theta @ h), softmax(theta @ k)
    return Equal(total(total(g(h, y) * g(k, z))), linear_gram(p, h, y, q, k, z))


@theorem(Source(PAPER, "ours"), r"c = \sum_{k,k'} \langle h_k,h'_{k'}\rangle\,(e_{y_k}-p_k)\cdot(e_{y'_{k'}}-p'_{k'})",
         claim="C9", theta=Reals("V", "d"), h1=Reals("d"), h2=Reals("d"), k1=Reals("d"), k2=Reals("d"), y1=Index("V"),
         y2=Index("V"), z1=Index("V"), z2=Index("V"))  # fmt: skip
def every_position_pair_counts(theta, h1, h2, k1, k2, y1, y2, z1, z2):
    """The inner product of two responses sums over all pairs of their positions, not only over aligned ones."""

    def gradient(first, second):
        def log_prob(theta):
            return sum(linear_log_probs(theta, h)[y] for h, y in (first, second))

        return grad(log_prob)(theta)

    chosen, rejected = ((h1, y1), (h2, y2)), ((k1, z1), (k2, z2))
    positions = [
        linear_gram(softmax(theta @ h), h, y, softmax(theta @ k), k, z) for h, y in chosen for k, z in rejected
    ]
    return Equal(total(total(gradient(*chosen) * gradient(*rejected))), sum(positions))


# -- C10(a): parameters shared by contexts, smallest case: a unigram ---------------------------------------------------


@theorem(Source(PAPER, "ours"), r"y_w = ab,\, y_l = bb:\quad \dot A > 0 \iff p_b > p_a", claim="C10(a)",
         z=Reals("V"), a=Index("V"), b=Index("V"))  # fmt: skip
def unigram_chosen_falls(z, a, b):
    """One softmax for all positions, chosen "ab" against rejected "bb": the chosen falls if a is likelier than b."""
    p = softmax(z)

    def response(*tokens):
        return grad(lambda z: sum(log_softmax(z)[y] for y in tokens))(z)

    chosen, rejected = response(a, b), response(b, b)
    return SameSign(dot(chosen, chosen - rejected), p[b] - p[a], factor=2)


@theorem(Source(PAPER, "ours"), r"\Delta A = -2\log(1 + p_a(e^t-1) + p_b(e^{-t}-1)),\; \Delta A > 0 \iff e^t < p_b/p_a",
         claim="C10(a)", p=Simplex("V"), a=Index("V"), b=Index("V"), t=Positive())  # fmt: skip
def unigram_exact_step(p, a, b, t):
    """The same at any step size t: the chosen rises exactly while e^t < p_b / p_a, hence never if p_a >= p_b."""
    after = log_softmax(log(p) + t * (onehot(a, p) - onehot(b, p)))
    z = 1 + p[a] * (exp(t) - 1) + p[b] * (exp(-t) - 1)
    change = after[a] + after[b] - log(p[a]) - log(p[b])
    above = SameSign(1 - exp(-change / 2), p[b] - p[a] * exp(t), factor=1 - exp(-t))
    return All(Equal(change, -2 * log(z)), above)


@theorem(Source(PAPER, "ours"), r"y_w = aa,\, y_l = ab:\quad \dot B > 0 \iff p_b > p_a", claim="C10(a)",
         z=Reals("V"), a=Index("V"), b=Index("V"))  # fmt: skip
def unigram_rejected_rises(z, a, b):
    """One softmax for all positions, chosen "aa" against rejected "ab": the rejected rises if b is likelier than a."""
    p = softmax(z)

    def response(*tokens):
        return grad(lambda z: sum(log_softmax(z)[y] for y in tokens))(z)

    chosen, rejected = response(a, a), response(a, b)
    return Equal(dot(rejected, chosen - rejected), 2 * (p[b] - p[a]))


# -- C10(b): unembedding and features both trained ---------------------------------------------------------------------


@theorem(Source(PAPER, "ours"),
         r"c = |h|^2 (e_w-p)\cdot(e_l-p) + (W_w-\bar W)\cdot(W_l-\bar W)", claim="C10(b)",
         W=Reals("V", "d"), h=Reals("d"), w=Index("V", distinct=False), l=Index("V", distinct=False))  # fmt: skip
def gram_of_tied_embeddings(W, h, w, l):
    """With logits W h and both trained, the second term lets tokens of like embeddings entangle."""

    def by_unembedding(y):
        return grad(lambda W: linear_log_probs(W, h)[y])(W)

    def by_features(y):
        return grad(lambda h: linear_log_probs(W, h)[y])(h)

    through = total(total(by_unembedding(w) * by_unembedding(l))) + dot(by_features(w), by_features(l))
    return Equal(through, tied_gram(W, h, w, l))


@theorem(Source(PAPER, "ours"), r"a - c = |h|^2(1-\delta) + (W_w-\bar W)\cdot(W_w-W_l)", claim="C10(b)",
         W=Reals("V", "d"), h=Reals("d"), w=Index("V"), l=Index("V"))  # fmt: skip
def tied_embeddings_may_lower_the_chosen(W, h, w, l):
    """One token and equal weights: the chosen falls once a third embedding pulls the mean far enough past it."""
    p = softmax(W @ h)
    rise = dot(h, h) * (1 - p[w] + p[l]) + dot(W[w] - p @ W, W[w] - W[l])
    return Equal(tied_gram(W, h, w, w) - tied_gram(W, h, w, l), rise)


# -- C10(c): several pairs ---------------------------------------------------------------------------------------------

TWO_PAIRS: dict[str, Any] = dict(
    p=Simplex("V"), w1=Index("V"), l1=Index("V"), w2=Index("V"), l2=Index("V"), t1=Positive(), t2=Positive()
)


def batch_change(p, w1, l1, w2, l2, t1, t2):
    """First-order change of the first chosen under two pairs of one prompt, pushed by t1 and t2."""
    push = t1 * (residual(w1, p) - residual(l1, p)) + t2 * (residual(w2, p) - residual(l2, p))
    return dot(residual(w1, p), push)


@theorem(
    Source(PAPER, "ours"), r"\dot A_1 = t_1(1-p_{w_1}+p_{l_1}) - t_2(p_{w_2}-p_{l_2})", claim="C10(c)", **TWO_PAIRS
)
def second_pair_lowers_the_first_chosen(p, w1, l1, w2, l2, t1, t2):
    """Two pairs of one prompt: a second pair whose chosen is the likelier one lowers the first pair's chosen."""
    change = t1 * (1 - p[w1] + p[l1]) - t2 * (p[w2] - p[l2])
    return Equal(batch_change(p, w1, l1, w2, l2, t1, t2), change)


@theorem(Source(PAPER, "Condition 1, read pair by pair for a batch"),
         r"c_i < \min(a_i, b_i)\ \forall i \Rightarrow \dot A_i \ge 0",
         claim="C10(c)", expect="refuted", instead=["second_pair_lowers_the_first_chosen"], **TWO_PAIRS)  # fmt: skip
def pairwise_condition_covers_a_batch(p, w1, l1, w2, l2, t1, t2):
    """If no pair is entangled by itself, a batch lowers no chosen response: false, one token's pairs never are."""
    return AtMost(0 * t1, batch_change(p, w1, l1, w2, l2, t1, t2))


# -- the mends ---------------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "normalised gradient, as recalled"),
         r"U \propto \frac{g_w}{|g_w|} - \frac{g_l}{|g_l|}:\quad \dot A = |g_w|(1-\cos) \ge 0 \ge \dot B",
         claim="mend 1", g_w=NonZeros("d"), g_l=NonZeros("d"))  # fmt: skip
def normalised_gradients_never_entangle(g_w, g_l):
    """With each gradient divided by its norm, kappa is 1: the chosen rises and the rejected falls unless parallel."""
    n_w, n_l = sqrt(dot(g_w, g_w)), sqrt(dot(g_l, g_l))
    change_w, change_l = first_order_changes(1 / n_w, 1 / n_l, n_w, n_l, dot(g_w, g_l))
    apart = g_w / n_w - g_l / n_l
    distance = dot(apart, apart) / 2  # 1 - cos
    return All(AtMost(0 * n_w, change_w, slack=n_w * distance), AtMost(change_l, 0 * n_l, slack=n_l * distance))


@theorem(Source(PAPER, "ours, beyond the paper"),
         r"z d_w g_w - \tfrac{d_l}{z} g_l \parallel \frac{g_w}{|g_w|} - \frac{g_l}{|g_l|},\; z = \kappa^{-1/2}",
         claim="mend 1", g_w=NonZeros("d"), g_l=NonZeros("d"), d_w=Positive(), d_l=Positive())  # fmt: skip
def calibrated_weights_normalise(g_w, g_l, d_w, d_l):
    """Weights times kappa^(-1/2) and its inverse keep their product and step along the normalised gradients."""
    n_w, n_l = sqrt(dot(g_w, g_w)), sqrt(dot(g_l, g_l))
    z = 1 / sqrt(kappa(d_w, d_l, n_w, n_l))
    return Equal(z * d_w * g_w - d_l / z * g_l, sqrt(d_w * d_l * n_w * n_l) * (g_w / n_w - g_l / n_l))


@theorem(Source(PAPER, "sparse token mask, as recalled"),
         r"\partial L/\partial m^w_k = -\beta\sigma(-u)\,r^w_k + \lambda", claim="mend 2",
         m=Positives("K"), r=Reals("K"), other=Real(), beta=Positive(), lam=Positive())  # fmt: skip
def gradient_of_the_mask(m, r, other, beta, lam):
    """A chosen token's mask shrinks unless beta sigmoid(-u) times its log-ratio exceeds the sparsity weight."""

    def loss(m):
        return dpo(PairLogProbs(dot(m, r), other, 0 * other, 0 * other), beta=beta) + lam * total(m)

    u = beta * (dot(m, r) - other)
    return Equal(grad(loss)(m), -beta * sigmoid(-u) * r + lam)


@theorem(Source(PAPER, "sparse token mask; this consequence ours"),
         r"\dot A_{contrast} = d(1-\delta),\; \dot B_{contrast} = -d(1+\delta)", claim="mend 2",
         p=Simplex("V"), w=Index("V"), l=Index("V"), d=Positive())  # fmt: skip
def mask_leaves_the_contrast(p, w, l, d):
    """A mask on all but the differing tokens leaves the changes of one token pair, whatever the suffix."""
    a, b, c = tabular_gram(p, w, w), tabular_gram(p, l, l), tabular_gram(p, w, l)
    return All(Equal(d * (a - c), d * (1 - p[w] + p[l])), Equal(d * (c - b), -d * (1 + p[w] - p[l])))
