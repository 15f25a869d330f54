"""One pair of single tokens: how fast the chosen rises, who takes its mass, and which term is to blame (C1-C3).

W: unembedding, h: hidden vector of the context, p: the law of the next token, w chosen, l rejected, D = W_w - W_l. A
bias that nobody trains lets any law stand beside any W and h. Speeds are by the clock of ``sandbox.tied``.
"""

from __future__ import annotations

from typing import Any

from sandbox.algebra import dot, grad, log, log_softmax, onehot, outer, total
from sandbox.tied import pair_speed
from theory.statement import All, AtMost, Equal, Index, Positive, Real, Reals, Simplex, Source, theorem

PAPER = "razin2024displacement"
PAIR: dict[str, Any] = dict(p=Simplex("V"), W=Reals("V", "d"), h=Reals("d"), w=Index("V"), l=Index("V"))


def speed(p, W, h, w, l, y):
    """The speed of log p_y in closed form; ``by_gradients`` is the same by differentiation."""
    return pair_speed(W, h, p, w, l, y)


def by_gradients(p, W, h, w, l, y):
    """<grad log p_y, grad (log p_w - log p_l)> in W and h, the law of logits b + W h being p at this W and h."""
    bias = log(p) - W @ h

    def log_prob(W, h):
        return log_softmax(bias + W @ h)[y]

    def margin(W, h):
        logits = bias + W @ h
        return logits[w] - logits[l]

    rows = grad(lambda W: log_prob(W, h))(W) * grad(lambda W: margin(W, h))(W)
    return total(total(rows)) + dot(grad(lambda h: log_prob(W, h))(h), grad(lambda h: margin(W, h))(h))


def others(p, w, l):
    """1 at every token but the chosen and the rejected."""
    return 1 - onehot(w, p) - onehot(l, p)


# -- C1: the speed of the chosen ---------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Thm 4"), r"\frac{d\ln\pi_+}{d\tau} = m - (1-\pi_++\pi_-)\langle W_+,W_-\rangle -"
         r" \sum_{z\ne\pm}\pi_z\langle W_z,W_+-W_-\rangle", claim="C1", **PAIR)  # fmt: skip
def speed_of_the_chosen(p, W, h, w, l):
    """Three terms: one that lifts the chosen, the alignment of the pair, and the third tokens along their difference.

    m = (1 - p_w) |W_w|^2 + p_l |W_l|^2 + (1 - p_w + p_l) |h|^2.
    """
    share = 1 - p[w] + p[l]
    m = (1 - p[w]) * dot(W[w], W[w]) + p[l] * dot(W[l], W[l]) + share * dot(h, h)
    rest = dot(p * others(p, w, l), W @ (W[w] - W[l]))
    return Equal(by_gradients(p, W, h, w, l, w), m - share * dot(W[w], W[l]) - rest)


# -- C2: where the mass goes -------------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Thm 5"), r"\frac{d\ln\pi_z}{d\tau} = \langle W_z,\Delta\rangle + (\pi_--\pi_+)\|h\|^2"
         r" - \langle\bar W,\Delta\rangle", claim="C2", **PAIR, z=Index("V"))  # fmt: skip
def speed_of_a_third(p, W, h, w, l, z):
    """A third token's speed is its alignment with the difference of the pair, up to what all third tokens share."""
    gap = W[w] - W[l]
    return Equal(speed(p, W, h, w, l, z), dot(W[z], gap) + (p[l] - p[w]) * dot(h, h) - dot(p @ W, gap))


@theorem(Source(PAPER, "ours, after Thms 4 and 5"), r"\frac{d\ln\pi_z}{d\tau} = a_z - \sum_v\pi_v a_v,\;"
         r" a_z = \langle W_z,\Delta\rangle + \|h\|^2(1_{z=+}-1_{z=-})", claim="C2", **PAIR,
         z=Index("V", distinct=False))  # fmt: skip
def replicator(p, W, h, w, l, z):
    """Tokens compete as in a replicator: each grows by its fitness less the mean fitness."""
    fitness = W @ (W[w] - W[l]) + dot(h, h) * (onehot(w, p) - onehot(l, p))
    grown = fitness[z] - dot(p, fitness)
    return All(Equal(by_gradients(p, W, h, w, l, z), grown), Equal(speed(p, W, h, w, l, z), grown))


@theorem(Source(PAPER, "ours, after Thms 4 and 5"), r"\frac{d}{d\tau}\ln\frac{\pi_z}{\pi_+} ="
         r" \langle W_z-W_+,\Delta\rangle - \|h\|^2", claim="C2(ii)", **PAIR, z=Index("V"))  # fmt: skip
def third_gains_on_the_chosen(p, W, h, w, l, z):
    """A third token gains on the chosen exactly if <W_z - W_w, D> exceeds |h|^2, whatever the probabilities are."""
    gained = speed(p, W, h, w, l, z) - speed(p, W, h, w, l, w)
    return Equal(gained, dot(W[z] - W[w], W[w] - W[l]) - dot(h, h))


@theorem(Source(PAPER, "ours, after Thms 4 and 5"), r"\frac{d\ln\pi_+}{d\tau} = \sum_{z\ne\pm}\pi_z"
         r"(\|h\|^2 - \langle W_z-W_+,\Delta\rangle) + \pi_-(2\|h\|^2+\|\Delta\|^2)", claim="C2(iii)",
         **PAIR)  # fmt: skip
def no_displacement_unless_a_third_gains(p, W, h, w, l):
    """If no third token gains on the chosen, no law displaces it: its speed is a mean of what it gains on the others.

    With two tokens only the last term is there: they never displace.
    """
    gap = W[w] - W[l]
    behind = dot(h, h) + dot(W[w], gap) - W @ gap
    last = p[l] * (2 * dot(h, h) + dot(gap, gap))
    return Equal(speed(p, W, h, w, l, w), dot(p * others(p, w, l), behind) + last)


# -- C3: which term is to blame ----------------------------------------------------------------------------------------


@theorem(Source(PAPER, "Thm 1 (informal), read as Thm 4 without its factor"),
         r"\frac{d\ln\pi_+}{d\tau} = m - \langle W_+,W_-\rangle - \sum_{z\ne\pm}\pi_z\langle W_z,\Delta\rangle",
         claim="C3", expect="refuted", instead=["speed_of_the_chosen"], **PAIR,
         witness=dict(p=[3, 1], W=[[1, 0], [1, 0]], h=[0, 0], w=0, l=1))  # fmt: skip
def alignment_counts_in_full(p, W, h, w, l):
    """The alignment of the pair counts with weight 1: false, with 1 - p_w + p_l, or equal embeddings would displace."""
    m = (1 - p[w]) * dot(W[w], W[w]) + p[l] * dot(W[l], W[l]) + (1 - p[w] + p[l]) * dot(h, h)
    rest = dot(p * others(p, w, l), W @ (W[w] - W[l]))
    return Equal(speed(p, W, h, w, l, w), m - dot(W[w], W[l]) - rest)


@theorem(Source(PAPER, "ours, against Thm 1 (informal)"),
         r"(1-\pi_+)\|W_+\|^2 + \pi_-\|W_-\|^2 - s\langle W_+,W_-\rangle = \tfrac s2\|\Delta\|^2 +"
         r" \tfrac{1-\pi_+-\pi_-}{2}(\|W_+\|^2-\|W_-\|^2),\; s = 1-\pi_++\pi_-", claim="C3", **PAIR)  # fmt: skip
def equal_norms_do_not_displace_by_alignment(p, W, h, w, l):
    """What lifts the chosen grows with the norms: if they are equal, alignment alone never displaces.

    The speed without the third tokens is (1 - p_w + p_l) (|D|^2 / 2 + |h|^2), up to the difference of the norms.
    """
    share, gap = 1 - p[w] + p[l], W[w] - W[l]
    alone = speed(p, W, h, w, l, w) + dot(p * others(p, w, l), W @ gap)
    norms = (1 - p[w] - p[l]) * (dot(W[w], W[w]) - dot(W[l], W[l])) / 2
    return Equal(alone, share * (dot(gap, gap) / 2 + dot(h, h)) + norms)


LINE: dict[str, Any] = dict(p=Simplex("V"), W=Reals("V"), a=Positive(), h=Real(), w=Index("V"), l=Index("V"))


def line(p, W, a, h, w, l, rejected):
    """The speed of the chosen with embeddings on a line: a of the chosen, ``rejected``, and W of the third tokens."""
    column = W * others(p, w, l) + a * onehot(w, p) + rejected * onehot(l, p)
    fitness = column * (a - rejected) + h**2 * (onehot(w, p) - onehot(l, p))
    return fitness[w] - dot(p, fitness)


@theorem(Source(PAPER, "Thm 1 (informal), read as: the more similar, the more displacement"),
         r"\langle W_+,W_-\rangle \uparrow\;\Rightarrow\; \frac{d\ln\pi_+}{d\tau} \downarrow", claim="C3",
         expect="refuted", instead=["equal_embeddings_never_displace", "kappa_threshold"],
         **LINE, witness=dict(p=[1, 1, 1], W=[0, 0, 4], a=1, h=0, w=0, l=1))  # fmt: skip
def more_similar_displaces_more(p, W, a, h, w, l):
    """A rejected token equal to the chosen displaces it more than one opposite, of the same norm: false."""
    return AtMost(line(p, W, a, h, w, l, a), line(p, W, a, h, w, l, -a))


@theorem(Source(PAPER, "ours, against Thm 1 (informal)"), r"W_+=W_-:\; \frac{d\ln\pi_+}{d\tau} ="
         r" (1-\pi_++\pi_-)\|h\|^2", claim="C3", **PAIR)  # fmt: skip
def equal_embeddings_never_displace(p, W, h, w, l):
    """With equal embeddings chosen and rejected part through W alone, and the chosen rises."""
    alike = W + outer(onehot(l, p), W[w] - W[l])
    return AtMost(0 * p[w], speed(p, alike, h, w, l, w), slack=(1 - p[w] + p[l]) * dot(h, h))


@theorem(Source(PAPER, "ours, against Thm 1 (informal)"), r"W_z \to W_z + v:\; \frac{d\ln\pi_+}{d\tau}\text{ stays},\;"
         r" \langle W_+,W_-\rangle\text{ does not}", claim="C3", **PAIR, v=Reals("d"))  # fmt: skip
def shift_of_all_embeddings_changes_nothing(p, W, h, w, l, v):
    """A vector added to every embedding leaves the speed as it is; only <W_w - mean W, D> has a meaning."""
    shifted = W + outer(1 + 0 * p, v)
    gap = W[w] - W[l]
    compact = (1 - p[w] + p[l]) * dot(h, h) + dot(W[w] - p @ W, gap)
    return Equal(speed(p, shifted, h, w, l, w), compact)


@theorem(Source(PAPER, "Thm 1 (informal), its terms taken as causes"),
         r"\langle W_++v,W_-+v\rangle = \langle W_+,W_-\rangle", claim="C3", expect="refuted",
         instead=["shift_of_all_embeddings_changes_nothing"], **PAIR,
         v=Reals("d"), witness=dict(p=[1, 1], W=[[1, 0], [0, 0]], h=[0, 0], w=0, l=1, v=[1, 0]))  # fmt: skip
def alignment_is_a_property_of_the_policy(p, W, h, w, l, v):
    """The alignment of the pair is the same for the same policy: false, a shift of all embeddings moves it at will."""
    shifted = W + outer(1 + 0 * p, v)
    kept = speed(p, shifted, h, w, l, w) - speed(p, W, h, w, l, w)
    return All(Equal(dot(shifted[w], shifted[l]), dot(W[w], W[l])), Equal(kept, 0 * total(v)))
