"""Responses of several tokens, several samples, and the mends (C8-C10).

h1, h2: hidden vectors of the contexts, one each, the prompt's first; p1, p2: the laws of the next token there;
R = W_y - mean W: the gradient of log p_y in the hidden vector of its context.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from sandbox import losses
from sandbox.algebra import dot, grad, log, log_softmax, onehot, softmax, total, velocity
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.policies import linear_gram, residual
from theory.displacement.tokens import PAPER
from theory.statement import (
    All,
    AtMost,
    Domain,
    Equal,
    Index,
    Moderate,
    NonZeros,
    Positive,
    Real,
    Reals,
    SameSign,
    Simplex,
    Source,
    theorem,
)

OURS = Source(PAPER, "ours")


class Token(NamedTuple):
    """A token of a response: the name of its context, the hidden vector h and the law p there, and the token y."""

    at: Any
    h: Any
    p: Any
    y: Any


def forces(W, token, chosen, rejected):
    """The velocity of the logits at a token's context while ln pi(y+) - ln pi(y-) is climbed in W and all h.

    Every token pulls through W, in proportion to the product of the hidden vectors; those of the same context also
    pull its hidden vector along R.
    """
    signed = [(1, k) for k in chosen] + [(-1, k) for k in rejected]
    through_w = sum(sign * dot(k.h, token.h) * residual(k.y, k.p) for sign, k in signed)
    return through_w + sum(sign * (W @ (W[k.y] - k.p @ W)) for sign, k in signed if k.at == token.at)


def speed(W, response, chosen, rejected):
    """The speed of a response's log-probability, by differentiation along those forces."""

    def log_prob(t):
        return sum(log_softmax(log(k.p) + t * forces(W, k, chosen, rejected))[k.y] for k in response)

    return velocity(log_prob)(0)


def alphas(first, second):
    """Sum over all token pairs of alpha <h, h'>, alpha the product of their residuals."""
    return sum(linear_gram(j.p, j.h, j.y, k.p, k.h, k.y) for j in first for k in second)


# -- C8: sequences -----------------------------------------------------------------------------------------------------

PAIR: dict[str, Any] = dict(W=Reals("V", "d"), p1=Simplex("V"), p2=Simplex("V"), h1=Reals("d"), h2=Reals("d"),
                            a=Index("V"), b=Index("V"), c=Index("V", distinct=False))  # fmt: skip


@theorem(Source(PAPER, "Thm 6"), r"\frac{d\ln\pi(y^+)}{d\tau} = \sum\alpha^+\langle h^+,h^+\rangle -"
         r" \sum\alpha^-\langle h^+,h^-\rangle + \langle R^+_1,R^+_1-R^-_1\rangle + \sum_{k\ge2}\|R^+_k\|^2",
         claim="C8", **PAIR)  # fmt: skip
def speed_of_a_chosen_sequence(W, p1, p2, h1, h2, a, b, c):
    """All token pairs meet, weighted by alpha; only the contexts that both responses share meet through R.

    Chosen a c, rejected b, another first token: the prompt's context is the only shared one. Each further token adds
    terms of the same kind.
    """
    chosen, rejected = [Token(1, h1, p1, a), Token("+", h2, p2, c)], [Token(1, h1, p1, b)]
    r1, r2 = W[a] - p1 @ W, W[c] - p2 @ W
    through_w = alphas(chosen, chosen) - alphas(chosen, rejected)
    return Equal(speed(W, chosen, chosen, rejected), through_w + dot(r1, W[a] - W[b]) + dot(r2, r2))


@theorem(Source(PAPER, "ours, after Thm 6"), r"\text{common prefix of } J:\; \langle R^+_{J+1},"
         r"R^+_{J+1}-R^-_{J+1}\rangle + \sum_{k\ge J+2}\|R^+_k\|^2", claim="C8", **PAIR)  # fmt: skip
def common_prefix_moves_the_terms_on(W, p1, p2, h1, h2, a, b, c):
    """Through the contexts of a common prefix nothing acts; the first context after it takes the prompt's place.

    Chosen c a, rejected c b: they share the contexts of the prompt and after c.
    """
    first, last, other = Token(1, h1, p1, c), Token(2, h2, p2, a), Token(2, h2, p2, b)
    through_w = alphas([first, last], [last]) - alphas([first, last], [other])
    through_h = dot(W[a] - p2 @ W, W[a] - W[b])
    return Equal(speed(W, [first, last], [first, last], [first, other]), through_w + through_h)


@theorem(Source(PAPER, "Thm 7"), r"\frac{d\ln\pi(z)}{d\tau} = \langle W_{z_1}-\bar W, W_{y^+_1}-W_{y^-_1}\rangle"
         r" + \sum\beta^+\langle h_z,h^+\rangle - \sum\beta^-\langle h_z,h^-\rangle", claim="C8", **PAIR,
         z=Index("V"))  # fmt: skip
def speed_of_another_sequence(W, p1, p2, h1, h2, a, b, c, z):
    """Any other response, z c, moves through the prompt's context as a third token, and through all token pairs."""
    chosen, rejected = [Token(1, h1, p1, a)], [Token(1, h1, p1, b)]
    other = [Token(1, h1, p1, z), Token("z", h2, p2, c)]
    through_w = alphas(other, chosen) - alphas(other, rejected)
    return Equal(speed(W, other, chosen, rejected), dot(W[z] - p1 @ W, W[a] - W[b]) + through_w)


@theorem(Source(PAPER, "Thm 6"), r"-2 \le \alpha \le 2", claim="C8", p=Simplex("V"), q=Simplex("V"),
         y=Index("V", distinct=False), z=Index("V", distinct=False))  # fmt: skip
def alpha_is_at_most_two(p, q, y, z):
    """The weight of a token pair lies between -2 and 2."""
    one, two = residual(y, p), residual(z, q)
    room = (1 + 2 * p[y] - dot(p, p)) / 2 + (1 + 2 * q[z] - dot(q, q)) / 2
    alpha = dot(one, two)
    return All(
        AtMost(alpha, 2 + 0 * p[y], slack=dot(one - two, one - two) / 2 + room),
        AtMost(-2 + 0 * p[y], alpha, slack=dot(one + two, one + two) / 2 + room),
    )


# -- C9: several samples -----------------------------------------------------------------------------------------------

OTHER: dict[str, Any] = dict(W=Reals("V", "d"), h=Reals("d"), k=Reals("d"), w=Index("V"), l=Index("V"))


def from_another(W, h, k, y, w, l):
    """The speed of token y after h from the pair (w, l) after k, through W, by differentiation."""
    of_y = grad(lambda W: log_softmax(W @ h)[y])(W)
    return total(total(of_y * grad(lambda W: (W @ k)[w] - (W @ k)[l])(W)))


@theorem(Source(PAPER, "Thm 8"), r"\alpha\langle h_x,h_{x_j}\rangle,\; \alpha = 1[y^+=y^+_j] - 1[y^+=y^-_j] +"
         r" \pi(y^-_j|x) - \pi(y^+_j|x)", claim="C9", **OTHER, y=Index("V", distinct=False))  # fmt: skip
def another_sample_moves_the_chosen(W, h, k, w, l, y):
    """A pair (w, l) after another prompt moves y through the product of the two hidden vectors.

    For a positive product an unrelated pair hurts if its chosen is here likelier than its rejected.
    """
    p = softmax(W @ h)
    alpha = onehot(w, p)[y] - onehot(l, p)[y] + p[l] - p[w]
    return Equal(from_another(W, h, k, y, w, l), alpha * dot(h, k))


@theorem(Source(PAPER, "ours, after Thm 8"), r"y^\pm_j = y^\mp:\; \alpha = -(1-\pi_++\pi_-) < 0", claim="C9", **OTHER)
def contradicting_sample_always_hurts(W, h, k, w, l):
    """A sample with the labels swapped lowers the chosen wherever the hidden vectors have a positive product."""
    p = softmax(W @ h)
    return SameSign(-from_another(W, h, k, w, l, w), dot(h, k), factor=1 - p[w] + p[l])


@theorem(Source(PAPER, "ours, C6 read for several samples"), r"\text{only } W:\; \pi_+ \uparrow", claim="C9",
         expect="refuted", instead=["unembedding_alone_never_displaces", "another_sample_moves_the_chosen"],
         p=Simplex("V"), s=Positive(), w=Index("V"), l=Index("V"), o=Index("V"),
         witness=dict(p=[1, 1, 8], s=2, w=0, l=1, o=2))  # fmt: skip
def unembedding_alone_never_displaces_in_a_batch(p, s, w, l, o):
    """With only W trained no chosen falls, also with a second sample: false, its pair (o, l) may lift a leader o.

    s is the product of the two hidden vectors, as a share of |h|^2.
    """
    rise = dot(residual(w, p), onehot(w, p) - onehot(l, p)) + s * dot(residual(w, p), onehot(o, p) - onehot(l, p))
    return AtMost(0 * s, rise)


# -- C10: mends --------------------------------------------------------------------------------------------------------

LENGTH = Domain("positive", make=lambda k: 1 + k)  # tokens
GRADIENTS: dict[str, Any] = dict(g_w=NonZeros("d"), g_l=Reals("d"), A=Real(), B=Real(), A0=Real(), B0=Real())


def rate(loss, g_w, g_l, pair):
    """The speed of the chosen under gradient flow of a loss."""
    d_w, d_l = margin_weights(loss, pair)
    return dot(g_w, d_w * g_w - d_l * g_l)


@theorem(Source(PAPER, "Prop. 1; the threshold ours"), r"\dot{\ln\pi_+} \ge 0 \iff \lambda \ge"
         r" -\ell'\Big(\frac CA - 1\Big)", claim="C10", **GRADIENTS, beta=Moderate(), alpha=Positive())  # fmt: skip
def sft_term_mends_from_a_weight_on(g_w, g_l, A, B, A0, B0, beta, alpha):
    """A fine-tuning term keeps the chosen from falling exactly from the weight d (C / A - 1) on, d the push of DPO."""
    pair = PairLogProbs(A, B, A0, B0)
    push, _ = margin_weights(partial(losses.dpo, beta=beta), pair)
    loss = partial(losses.dpo_sft, beta=beta, alpha=alpha, sft_reduction="sum")
    needed = push * (dot(g_w, g_l) / dot(g_w, g_w) - 1)
    return SameSign(rate(loss, g_w, g_l, pair), alpha - needed, factor=dot(g_w, g_w))


@theorem(Source(PAPER, "Prop. 2, for SimPO"), r"\dot{\ln\pi_+} \ge 0 \iff \frac CA \le \frac{|y^-|}{|y^+|}",
         claim="C10", g_w=NonZeros("d"), g_l=Reals("d"), A=Real(), B=Real(), n_w=LENGTH, n_l=LENGTH,
         beta=Moderate(), gamma=Positive())  # fmt: skip
def longer_chosen_is_at_more_risk_in_simpo(g_w, g_l, A, B, n_w, n_l, beta, gamma):
    """Under token means the chosen falls once C / A exceeds |y-| / |y+|: a longer chosen response is at more risk."""
    pair = PairLogProbs(A, B, 0 * A, 0 * B, n_w, n_l)
    _, d_l = margin_weights(partial(losses.simpo, beta=beta, gamma=gamma), pair)
    room = n_l / n_w - dot(g_w, g_l) / dot(g_w, g_w)
    return SameSign(rate(partial(losses.simpo, beta=beta, gamma=gamma), g_w, g_l, pair), room,
                    factor=d_l * dot(g_w, g_w))  # fmt: skip
