"""One token, a shared prefix, a shared suffix: where a softmax lets gradients entangle, and where it cannot (C6-C8).

p is the law at the position where the two responses part; delta = p_w - p_l there. rho = d_w / d_l.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sandbox import tables
from sandbox.algebra import (
    dot,
    exp,
    grad,
    log,
    log_softmax,
    onehot,
    sigmoid,
    softmax,
    total,
    velocity,
)
from sandbox.losses import dpo
from sandbox.policies import linear_log_probs, residual, tabular_gram
from theory.statement import (
    All,
    AtMost,
    Equal,
    Grows,
    Index,
    Logits,
    NonZeros,
    Positive,
    Positives,
    Reals,
    SameSign,
    Simplex,
    Source,
    Tends,
    Unit,
    Units,
    theorem,
)

PAPER = "yuan2025entanglement"
TOKENS: dict[str, Any] = dict(p=Simplex("V"), w=Index("V"), l=Index("V"))


def gram(p, w, l):
    """(a, b, c) of the branch: |g_w|^2, |g_l|^2 and <g_w, g_l> of one token of a tabular policy."""
    return tabular_gram(p, w, w), tabular_gram(p, l, l), tabular_gram(p, w, l)


# -- C6: one token -----------------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "ours; Thm 2 for uniform p"), r"a = 1 - 2p_w + |p|^2,\; c = |p|^2 - p_w - p_l", claim="C6",
         z=Logits("V"), w=Index("V"), l=Index("V"))  # fmt: skip
def gram_of_one_token(z, w, l):
    """Norms and inner product of the gradients of one token; hence a - c = 1 - delta, |g_w - g_l|^2 = 2."""
    p = softmax(z)

    def g(y):
        return grad(lambda z: log_softmax(z)[y])(z)

    difference = g(w) - g(l)
    return All(
        Equal(dot(g(w), g(l)), dot(p, p) - p[w] - p[l]),
        Equal(dot(g(w), g(w)), 1 - 2 * p[w] + dot(p, p)),
        Equal(dot(g(w), difference), 1 - p[w] + p[l]),
        Equal(dot(difference, difference), 2),
    )


@theorem(Source(PAPER, "ours"), r"\langle g_w, g_l\rangle = |h|^2\,(|p|^2 - p_w - p_l)", claim="C6",
         theta=Reals("V", "d"), h=Reals("d"), w=Index("V"), l=Index("V"))  # fmt: skip
def gram_with_features(theta, h, w, l):
    """Under a trained last layer with features h, everything is multiplied by |h|^2."""
    p = softmax(theta @ h)

    def g(y):
        return grad(lambda theta: linear_log_probs(theta, h)[y])(theta)

    return Equal(total(total(g(w) * g(l))), dot(h, h) * (dot(p, p) - p[w] - p[l]))


def one_token_step(p, t, w, l):
    """Log-probabilities after a step of size t along e_w - e_l, and its normaliser Z."""
    after = log_softmax(log(p) + t * (onehot(w, p) - onehot(l, p)))
    return after, 1 + p[w] * (exp(t) - 1) + p[l] * (exp(-t) - 1)


@theorem(Source(PAPER, "ours"), r"\Delta A = t - \log Z > 0 \text{ for every } t > 0", claim="C6(i)",
         **TOKENS, t=Positive())  # fmt: skip
def chosen_rises_at_every_step(p, w, l, t):
    """One tabular step with equal weights, of any size, on one pair, raises the chosen token."""
    after, z = one_token_step(p, t, w, l)
    gain = (1 - p[w]) * (exp(t) - 1) + p[l] * (1 - exp(-t))
    return AtMost(0 * t, after[w] - log(p[w]), slack=log(1 + gain / z))


@theorem(Source(PAPER, "ours"), r"\Delta B = -t - \log Z < 0 \text{ for every } t > 0", claim="C6(i)",
         **TOKENS, t=Positive())  # fmt: skip
def rejected_falls_at_every_step(p, w, l, t):
    """One tabular step with equal weights, of any size, on one pair, lowers the rejected token."""
    after, _ = one_token_step(p, t, w, l)
    loss = (1 - p[l]) * (exp(t) - 1) + p[w] * exp(t) * (exp(t) - 1)
    return AtMost(after[l] - log(p[l]), 0 * t, slack=log(1 + loss))


@theorem(Source(PAPER, "ours"), r"2c \le a", claim="C6(ii)", **TOKENS)
def factor_two(p, w, l):
    """The inner product of two tokens' gradients is at most half of |g_w|^2."""
    a, _, c = gram(p, w, l)
    return AtMost(2 * c, a, slack=1 - dot(p, p) + 2 * p[l])


@theorem(Source(PAPER, "ours"), r"2c \le b", claim="C6(ii)", **TOKENS)
def factor_two_of_the_rejected(p, w, l):
    """The inner product of two tokens' gradients is at most half of |g_l|^2; with the chosen's half, cos <= 1/2."""
    _, b, c = gram(p, w, l)
    return AtMost(2 * c, b, slack=1 - dot(p, p) + 2 * p[w])


@theorem(Source(PAPER, "ours"), r"\tfrac12 \le d_w/d_l \le 2 \Rightarrow \dot A \ge 0 \ge \dot B", claim="C6(ii)",
         **TOKENS, d=Positive(), u=Unit(), v=Unit())  # fmt: skip
def no_entanglement_within_factor_two(p, w, l, d, u, v):
    """One tabular token: no entanglement while the two weights are within a factor two of each other."""
    a, b, c = gram(p, w, l)
    d_l = 2 * u * d  # any weight of the rejected below twice that of the chosen
    d_w = 2 * v * d  # and the other way round
    rising = AtMost(0 * d, d * a - d_l * c, slack=d * ((1 - u) * a + u * (1 - dot(p, p) + 2 * p[l])))
    falling = AtMost(d_w * c - d * b, 0 * d, slack=d * ((1 - v) * b + v * (1 - dot(p, p) + 2 * p[w])))
    return All(rising, falling)


@theorem(Source(PAPER, "ours, negative control"), r"\dot A \ge 0 \text{ for every } d_w, d_l", claim="C6(ii)",
         expect="refuted",
         instead=["no_entanglement_within_factor_two"], **TOKENS, d_w=Positive(), d_l=Positive())  # fmt: skip
def no_entanglement_at_any_ratio(p, w, l, d_w, d_l):
    """One tabular token never entangles, whatever the weights: false, the factor two is sharp."""
    a, _, c = gram(p, w, l)
    return AtMost(0 * d_w, d_w * a - d_l * c)


@theorem(
    Source(PAPER, "ours"), r"a\,b - c^2 = 2\,(|p|^2 - p_w^2 - p_l^2) + (1 - p_w - p_l)^2", claim="C6(ii)", **TOKENS
)
def worst_cosine_of_one_token(p, w, l):
    """The cosine is -1 exactly if the two tokens share all the mass: ab - c^2 vanishes only there."""
    a, b, c = gram(p, w, l)
    others = 1 - onehot(w, p) - onehot(l, p)
    return AtMost(c**2, a * b, slack=2 * dot(others, p**2) + dot(others, p) ** 2)


@theorem(Source(PAPER, "Thm on single tokens, as recalled"), r"c = -|h|^2/M,\; a = b = (M-1)|h|^2/M", claim="C6(iii)",
         h=Reals("d"), z=Reals("V"), w=Index("V"), l=Index("V"))  # fmt: skip
def uniform_first_token(h, z, w, l):
    """Uniform on M tokens: chosen up, rejected down, the others unmoved to first order."""
    p = softmax(0 * z)
    scale = dot(h, h)
    tokens = total(1 + 0 * z)
    pull = scale * (residual(w, p) - residual(l, p))
    return All(
        Equal(scale * tabular_gram(p, w, l), -scale / tokens),
        Equal(scale * tabular_gram(p, w, w), (tokens - 1) * scale / tokens),
        Equal(pull - dot(p, pull), scale * (onehot(w, p) - onehot(l, p))),
    )


# -- C6(iv): DPO's gradient flow on one pair ---------------------------------------------------------------------------


@theorem(Source(PAPER, "ours"), r"S + e^S = 1 + 2\beta^2 t,\; S = \beta h", claim="C6(iv)",
         z=Reals("V"), z0=Reals("V"), w=Index("V"), l=Index("V"), beta=Positive())  # fmt: skip
def clock_of_dpo(z, z0, w, l, beta):
    """Along DPO's gradient flow on one tabular pair S + e^S grows at the constant rate 2 beta^2."""

    def clock(z):
        s = beta * ((z - z0)[w] - (z - z0)[l])
        return s + exp(s)

    def flow(z):
        return tables.force(partial(dpo, beta=beta), z, z0, w, l)

    return Grows(clock, flow, at=z, start=z0, by=2 * beta**2, begins=1)


@theorem(Source(PAPER, "ours"), r"\dot S = 2\beta^2 \sigma(-S)", claim="C6(iv)", beta=Positive(), t=Positive())
def flow_of_the_margin(beta, t):
    """S = y - W(e^y), y = 1 + 2 beta^2 t, solves the flow of the scaled margin (W is Lambert's function)."""

    def s(t):
        return beta * tables.dpo_margin(t, beta=beta)

    return All(Equal(s(t) + exp(s(t)), 1 + 2 * beta**2 * t), Equal(velocity(s)(t), 2 * beta**2 * sigmoid(-s(t))))


@theorem(Source(PAPER, "ours"), r"A(t) = \log p_w + \tau - \log Z(\tau),\; \tau = S/2\beta", claim="C6(iv)",
         **TOKENS, beta=Positive(), t=Positive())  # fmt: skip
def path_of_the_chosen(p, w, l, beta, t):
    """The whole path of DPO's flow: the logits moved by tau along e_w - e_l solve dz/dt = -grad loss."""
    start = log(p)

    def z(t):
        return tables.dpo_logits(start, w, l, t, beta=beta)

    tau = tables.dpo_margin(t, beta=beta) / 2
    normaliser = 1 + p[w] * (exp(tau) - 1) + p[l] * (exp(-tau) - 1)
    return All(
        Equal(log_softmax(z(t))[w], log(p[w]) + tau - log(normaliser)),
        Equal(velocity(z)(t), tables.force(partial(dpo, beta=beta), z(t), start, w, l)),
    )


# -- C7: a shared prefix, one free softmax for each context ------------------------------------------------------------
# S: summed squared residuals of the shared prefix; A_s, B_s: of the own suffixes. Only shared contexts meet.

PREFIX: dict[str, Any] = dict(S=Positive(), A_s=Positive(), B_s=Positive())


def prefix_gram(p, w, l, S, A_s, B_s):
    """(a, b, c) of two responses that share a prefix, part at law p, and go on in contexts of their own."""
    a, b, c = gram(p, w, l)
    return S + a + A_s, S + b + B_s, S + c


@theorem(Source(PAPER, "ours"), r"a - c = 1 - \delta + A_s > 0,\; b - c = 1 + \delta + B_s > 0", claim="C7",
         **TOKENS, **PREFIX)  # fmt: skip
def shared_prefix_never_entangles_equal_weights(p, w, l, S, A_s, B_s):
    """Equal weights never entangle a pair of a tabular autoregressive policy, however long the prefix."""
    a, b, c = prefix_gram(p, w, l, S, A_s, B_s)
    delta = p[w] - p[l]
    return All(AtMost(c, a, slack=1 - delta + A_s), AtMost(c, b, slack=1 + delta + B_s))


@theorem(Source(PAPER, "ours"), r"\dot A < 0 \iff S > \rho(1-\delta+A_s)/(1-\rho) - c_m", claim="C7",
         **TOKENS, **PREFIX, rho=Unit(), d_l=Positive())  # fmt: skip
def prefix_threshold_of_the_chosen(p, w, l, S, A_s, B_s, rho, d_l):
    """If the chosen is pushed less hard (rho < 1), it falls exactly for a long enough shared prefix."""
    a, _, c = prefix_gram(p, w, l, S, A_s, B_s)
    threshold = rho * (1 - p[w] + p[l] + A_s) / (1 - rho) - tabular_gram(p, w, l)
    return SameSign(-(rho * d_l * a - d_l * c), S - threshold, factor=d_l * (1 - rho))


@theorem(Source(PAPER, "ours"), r"\dot B > 0 \iff S > (1+\delta+B_s)/(\rho-1) - c_m", claim="C7",
         **TOKENS, **PREFIX, more=Positive(), d_l=Positive())  # fmt: skip
def prefix_threshold_of_the_rejected(p, w, l, S, A_s, B_s, more, d_l):
    """If the chosen is pushed harder (rho = 1 + more), the rejected rises exactly for a long enough shared prefix."""
    _, b, c = prefix_gram(p, w, l, S, A_s, B_s)
    threshold = (1 + p[w] - p[l] + B_s) / more - tabular_gram(p, w, l)
    return SameSign((1 + more) * d_l * c - d_l * b, S - threshold, factor=d_l * more)


@theorem(Source(PAPER, "ours"), r"n_w\dot A = (1-\delta+A_s) - \frac{n_w-n_l}{n_l}\,c,\; \dot A<0 \iff \ldots",
         claim="C7",
         **TOKENS, **PREFIX, n_w=Positive(), n_l=Positive())  # fmt: skip
def length_normalised_prefix(p, w, l, S, A_s, B_s, n_w, n_l):
    """Length-normalised weights: a longer chosen falls once (n_w - n_l) c exceeds n_l (1 - delta + A_s)."""
    a, _, c = prefix_gram(p, w, l, S, A_s, B_s)
    condition = n_l * (1 - p[w] + p[l] + A_s) - (n_w - n_l) * (S + tabular_gram(p, w, l))
    return SameSign(a / n_w - c / n_l, condition, factor=1 / (n_w * n_l))


# -- C8: a shared suffix -----------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Thm on multiple tokens, as recalled"),
         r"\langle u, u - v\rangle \le 0,\; \langle v, u - v\rangle \le 0",
         claim="C8(i)", q=Simplex("V"), share=Units("V"), s=Index("V"))  # fmt: skip
def both_fall_under_a_more_confident_chosen(q, share, s):
    """A suffix position whose logits both gradients hit: if the chosen context is surer of the shared token, both fall.

    q is the law after the rejected response; the chosen one keeps a share of each other token and adds the rest to s.
    """
    others = 1 - onehot(s, q)
    surer = share * q * others + (1 - dot(share * q, others)) * onehot(s, q)
    u, v = residual(s, surer), residual(s, q)
    moved = dot((1 - share) * q, others)  # the mass that the chosen context adds to s

    def fall(kept, outer):
        return outer * moved + dot(kept * q * others, (1 - share) * q)

    chosen = AtMost(dot(u, u - v), 0 * q[s], slack=fall(share, dot(share * q, others)))
    rejected = AtMost(dot(v, u - v), 0 * q[s], slack=fall(1, dot(q, others)))
    return All(chosen, rejected)


@theorem(Source(PAPER, "Thm on multiple tokens, read without its assumption"),
         r"\dot A < 0 \text{ for a shared suffix}",

         claim="C8(i)", expect="refuted",
         instead=["both_fall_under_a_more_confident_chosen"], **TOKENS, q=Simplex("V"), s=Index("V", distinct=False),
         n=Positive())  # fmt: skip
def shared_suffix_lowers_the_chosen(p, w, l, q, s, n):
    """A shared suffix by itself lowers the chosen: false, where both contexts predict alike it cancels."""
    u = v = residual(s, q)
    branch = tabular_gram(p, w, w) - tabular_gram(p, w, l)
    return AtMost(branch + n * dot(u, u - v), 0 * n)


# n suffix positions, features of overlap R, residuals u after the chosen and v = T u after the rejected response.
SUFFIX: dict[str, Any] = dict(u=NonZeros("V"), n=Positive())


def suffix_gram(p, w, l, u, n, R, T):
    """(a, b, c) of a contrast at law p followed by n shared suffix tokens."""
    a, b, c = gram(p, w, l)
    square = dot(u, u)
    return a + n * square, b + n * T**2 * square, c + n * R * T * square


def n_star(delta, square, R, T):
    """The suffix length beyond which the chosen falls, for T > 1/R; square = |u|^2."""
    return (1 - delta) / (square * (R * T - 1))


@theorem(Source(PAPER, "ours"), r"\dot A < 0 \iff n > n^* = \frac{1-\delta}{|u|^2(RT-1)}", claim="C8(ii)",
         **TOKENS, **SUFFIX, R=Unit(), more=Positive())  # fmt: skip
def chosen_falls_beyond_n_star(p, w, l, u, n, R, more):
    """With partly shared features and T > 1/R the chosen falls exactly beyond n* suffix tokens."""
    T = (1 + more) / R
    a, _, c = suffix_gram(p, w, l, u, n, R, T)
    square = dot(u, u)
    return SameSign(c - a, n - n_star(p[w] - p[l], square, R, T), factor=square * (R * T - 1))


@theorem(Source(PAPER, "ours"), r"b - c = 1 + \delta + n|u|^2 T(T-R) > 0 \text{ if } T \ge R", claim="C8(ii)",
         **TOKENS, **SUFFIX, R=Unit(), more=Positive())  # fmt: skip
def suffix_margin_of_the_rejected(p, w, l, u, n, R, more):
    """The rejected always falls if its residuals are at least R times those of the chosen."""
    T = R + more
    _, b, c = suffix_gram(p, w, l, u, n, R, T)
    return AtMost(c, b, slack=1 + p[w] - p[l] + n * dot(u, u) * T * more)


@theorem(Source(PAPER, "ours"), r"\dot B > 0 \iff n > \frac{1+\delta}{|u|^2 T(R-T)} \text{ if } T < R", claim="C8(ii)",
         **TOKENS, **SUFFIX, R=Unit(), share=Unit())  # fmt: skip
def both_rise_for_a_long_calm_suffix(p, w, l, u, n, R, share):
    """If the rejected's residuals are below R times the chosen's, a long suffix makes the rejected rise as well."""
    T = share * R
    _, b, c = suffix_gram(p, w, l, u, n, R, T)
    square = dot(u, u)
    threshold = (1 + p[w] - p[l]) / (square * T * (R - T))
    return SameSign(c - b, n - threshold, factor=square * T * (R - T))


@theorem(Source(PAPER, "ours"), r"\cos^2 \to R^2,\; \kappa^2 \to 1/T^2 \;(n \to \infty)",
         claim="C8(ii)", expect="checked",
         **TOKENS, u=Positives("V"), R=Unit(), T=Positive())  # fmt: skip
def suffix_cosine_tends_to_overlap(p, w, l, u, R, T):
    """As the suffix grows the squared cosine tends to R^2 and kappa^2 to 1/T^2."""

    def cosine(n):
        a, b, c = suffix_gram(p, w, l, u, n, R, T)
        return c**2 / (a * b)

    def ratio(n):
        a, b, _ = suffix_gram(p, w, l, u, n, R, T)
        return a / b

    return All(Tends(cosine, "oo", R**2), Tends(ratio, "oo", 1 / T**2))


@theorem(Source(PAPER, "ours"), r"n^* \ge \frac{8(1-\delta)}{3R^2 x_l^2} \text{, reached at } x_w = R x_l/2",
         claim="C8(ii)",
         R=Unit(), x_l=Positive(), x_w=Positive())  # fmt: skip
def suffix_is_worst_at_intermediate_sft(R, x_l, x_w):
    """Entanglement is worst at intermediate fine-tuning: |u|^2 (RT - 1) peaks where x_w = R x_l / 2."""
    square, T = 3 * x_w**2 / 2, x_l / x_w  # residuals of the shape x (1, -1/2, -1/2)
    return AtMost(square * (R * T - 1), 3 * R**2 * x_l**2 / 8, slack=3 * (x_w - R * x_l / 2) ** 2 / 2)
