"""One pair of single tokens: the whole flow in closed form, and what training only W or only h makes of it (C4-C7).

W: unembedding, h: hidden vector, D = W_w - W_l, tau: the clock. ``kappa`` is the learning rate of h over that of W, 1
in the paper. Nearly all of it is ours; a bias that nobody trains is left in, it changes nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sandbox import losses
from sandbox.algebra import (
    dot,
    exp,
    grad,
    log,
    log_softmax,
    onehot,
    sigmoid,
    softmax,
    velocity,
)
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.tied import pair_flow, pair_logits, pair_margin, pair_speed
from theory.displacement.tokens import PAIR, PAPER
from theory.statement import (
    All,
    AtMost,
    Equal,
    Index,
    Logits,
    Moderate,
    Positive,
    Real,
    Reals,
    Simplex,
    Source,
    Tends,
    Unit,
    Units,
    theorem,
)

OURS = Source(PAPER, "ours")
STATE: dict[str, Any] = dict(W=Reals("V", "d"), h=Reals("d"), w=Index("V"), l=Index("V"))


# -- C4: the flow ------------------------------------------------------------------------------------------------------


@theorem(OURS, r"\dot h = W_+ - W_-,\; \dot W_\pm = \pm h", claim="C4", **STATE, k=Index("V", distinct=False))
def forces_on_unembeddings(W, h, w, l, k):
    """The margin of one single-token sample moves only the two rows that it names, by plus and minus h."""

    def margin(W, h):
        return log_softmax(W @ h)[w] - log_softmax(W @ h)[l]

    rows = grad(lambda W: margin(W, h))(W)[k]
    features = grad(lambda h: margin(W, h))(h)
    pull = onehot(w, W @ h)[k] - onehot(l, W @ h)[k]
    return All(Equal(rows, pull * h), Equal(features, W[w] - W[l]))


@theorem(OURS, r"h = h_0\cosh\omega\tau + \tfrac\kappa\omega\Delta_0\sinh\omega\tau,\; \omega = \sqrt{2\kappa},\;"
         r" M = M_0\cosh 2\omega\tau + \ldots", claim="C4", h0=Reals("d"), delta0=Reals("d"), tau=Unit(),
         kappa=Moderate())  # fmt: skip
def closed_form_flow(h0, delta0, tau, kappa):
    """Hidden vector and difference solve h' = kappa D, D' = 2 h by hyperbolic functions; the margin follows."""

    def h(t):
        return pair_flow(h0, delta0, t, kappa=kappa)[0]

    def delta(t):
        return pair_flow(h0, delta0, t, kappa=kappa)[1]

    return All(
        Equal(dot(h(tau), delta(tau)), pair_margin(h0, delta0, tau, kappa=kappa)),
        Equal(velocity(h)(tau), kappa * delta(tau)),
        Equal(velocity(delta)(tau), 2 * h(tau)),
    )


@theorem(OURS, r"\frac{d z_k}{d\tau} = (1_{k=+}-1_{k=-})\|h\|^2 + \kappa\langle W_k,\Delta\rangle", claim="C4",
         b=Logits("V"), **STATE, tau=Moderate(), kappa=Moderate(), k=Index("V", distinct=False))  # fmt: skip
def logits_along_the_flow(b, W, h, w, l, tau, kappa, k):
    """All logits in closed form: only the rows of the pair move, by half of what their difference gains, and apart."""
    gap = W[w] - W[l]
    here, now = pair_flow(h, gap, tau, kappa=kappa)
    pull = onehot(w, b) - onehot(l, b)
    row = W[k] + pull[k] / 2 * (now - gap)

    def logits(t):
        return pair_logits(W, h, b, w, l, t, kappa=kappa)[k]

    return Equal(velocity(logits)(tau), pull[k] * dot(here, here) + kappa * dot(row, now))


TWO: dict[str, Any] = dict(W=Reals("V", "d"), h=Reals("d"), k=Reals("d"), v=Reals("d"), g=Reals("V"), f=Reals("V"))


def pulled(W, h, k, g, f):
    """The velocities of W and of two hidden vectors h, k under any weights g, f of their log-probabilities."""

    def objective(W, h, k):
        return dot(g, log_softmax(W @ h)) + dot(f, log_softmax(W @ k))

    return (
        grad(lambda W: objective(W, h, k))(W),
        grad(lambda h: objective(W, h, k))(h),
        grad(lambda k: objective(W, h, k))(k),
    )


@theorem(OURS, r"\frac{d}{d\tau}\Big(W^\top W - \sum_c h_c h_c^\top\Big) = 0,\; \frac{d}{d\tau}\sum_z W_z = 0",
         claim="C4", **TWO, o=Index("V"))  # fmt: skip
def balance_is_conserved(W, h, k, v, g, f, o):
    """W'W less the sum of h h' over contexts stays, and so does the sum of all embeddings: for any loss, any samples.

    Here two contexts, and any weights g, f of the log-probabilities of their tokens; v is any direction.
    """
    of_w, of_h, of_k = pulled(W, h, k, g, f)
    contexts = 2 * dot(h, v) * dot(of_h, v) + 2 * dot(k, v) * dot(of_k, v)
    return All(Equal(2 * dot(W @ v, of_w @ v), contexts), Equal((of_w @ v)[o], -dot(1 - onehot(o, g), of_w @ v)))


@theorem(OURS, r"\frac{dt}{d\tau} = \frac{1 + e^{\beta(M - M_0)}}{\beta}", claim="C4",
         A=Real(), B=Real(), A0=Real(), B0=Real(), beta=Moderate())  # fmt: skip
def time_of_dpo(A, B, A0, B0, beta):
    """What the clock takes in DPO's own time: ever longer as the margin M grows."""
    push, pull = margin_weights(partial(losses.dpo, beta=beta), PairLogProbs(A, B, A0, B0))
    pace = (1 + exp(beta * ((A - B) - (A0 - B0)))) / beta
    return All(Equal(push * pace, 1 + 0 * A), Equal(pull, push))


# -- C5: one path for every margin loss --------------------------------------------------------------------------------

STEP: dict[str, Any] = dict(**STATE, A0=Real(), B0=Real(), k=Index("V", distinct=False))


def step_of(loss, W, h, w, l, A0, B0):
    """Minus the gradients of a loss of one pair in W and in h."""

    def of(W, h):
        now = log_softmax(W @ h)
        return loss(PairLogProbs(now[w], now[l], A0, B0))

    return -grad(lambda W: of(W, h))(W), -grad(lambda h: of(W, h))(h)


@theorem(OURS, r"\dot\theta \propto \nabla\ln\pi_+ - \nabla\ln\pi_-: \text{one path for DPO and IPO}", claim="C5",
         **STEP, beta=Moderate(), tau=Positive())  # fmt: skip
def margin_losses_share_their_path(W, h, w, l, A0, B0, k, beta, tau):
    """DPO and IPO move one sample's parameters along one direction: they trace the same distributions.

    So does every function of the margin. Only the speed differs, and the margin at which IPO stops. It holds for
    gradient flow on one sample.
    """
    M = dot(W[w] - W[l], h) - (A0 - B0)
    both = (
        (partial(losses.dpo, beta=beta), beta * sigmoid(-beta * M)),
        (partial(losses.ipo, tau=tau), 1 / tau - 2 * M),
    )
    shown = []
    for loss, speed in both:
        of_w, of_h = step_of(loss, W, h, w, l, A0, B0)
        pull = onehot(w, W @ h)[k] - onehot(l, W @ h)[k]
        shown += [Equal(of_w[k], speed * pull * h), Equal(of_h, speed * (W[w] - W[l]))]
    return All(*shown)


@theorem(Source(PAPER, "ours, the limit of C5"), r"\text{the same with } -\lambda\ln\pi_+", claim="C5",
         expect="refuted", instead=["margin_losses_share_their_path"], **STEP, beta=Moderate(), alpha=Positive(),
         witness=dict(W=[[1, 0], [0, 0], [0, 0]], h=[1, 0], w=0, l=1, A0=0, B0=0, k=2, beta=1, alpha=1))  # fmt: skip
def sft_term_keeps_the_path(W, h, w, l, A0, B0, k, beta, alpha):
    """A fine-tuning term on the chosen leaves the path as it is: false, it moves every third row."""
    loss = partial(losses.dpo_sft, beta=beta, alpha=alpha, sft_reduction="sum")
    of_w, _ = step_of(loss, W, h, w, l, A0, B0)
    return Equal(of_w[k] * (1 - onehot(w, W @ h)[k] - onehot(l, W @ h)[k]), 0 * h)


# -- C6: which of the two is trained -----------------------------------------------------------------------------------


@theorem(Source(PAPER, "Prop. 3 (as reported), for fixed hidden vectors; the path ours"),
         r"\text{only } W:\; \pi_+ \uparrow,\; \frac{\pi_z}{\pi_o} = \text{const}", claim="C6",
         **PAIR, o=Index("V"), z=Index("V"))  # fmt: skip
def unembedding_alone_never_displaces(p, W, h, w, l, o, z):
    """With only W trained the chosen rises all the way, and third tokens keep their proportions."""

    def fixed(y):
        return pair_speed(W, h, p, w, l, y, kappa=0)

    return All(
        AtMost(0 * p[w], fixed(w), slack=(1 - p[w] + p[l]) * dot(h, h)),
        Equal(fixed(z) - p[w] * fixed(z), fixed(o) - p[w] * fixed(o)),
    )


@theorem(OURS, r"\text{only } h:\; \pi_z(\tau) \propto \pi_z(0)\,e^{\tau\langle W_z,\Delta\rangle}", claim="C6",
         b=Logits("V"), **STATE, tau=Moderate(), o=Index("V"))  # fmt: skip
def features_alone_tilt(b, W, h, w, l, tau, o):
    """With only h trained the law is tilted for ever by <W_z, D>: all mass ends on the token that is furthest along D.

    log(p_o / p_w) moves at a constant rate.
    """
    before, after = (log_softmax(b + W @ (h + t * (W[w] - W[l]))) for t in (0, tau))
    moved = (after[o] - after[w]) - (before[o] - before[w])
    return Equal(moved, tau * dot(W[o] - W[w], W[w] - W[l]))


@theorem(OURS, r"\text{only } h:\; \frac{d^2\ln\pi_+}{d\tau^2} = -\mathrm{Var}_\pi\langle W_z,\Delta\rangle \le 0",
         claim="C6", p=Simplex("V"), W=Reals("V", "d"), w=Index("V"), l=Index("V"))  # fmt: skip
def displacement_is_permanent_with_features_alone(p, W, w, l):
    """With only h trained the speed of the chosen only falls: what is displaced never comes back."""
    fitness = W @ (W[w] - W[l])

    def speed(t):
        return fitness[w] - dot(softmax(log(p) + t * fitness), fitness)

    return AtMost(velocity(speed)(0), 0 * p[w], slack=dot(p, (fitness - dot(p, fitness)) ** 2))


@theorem(OURS, r"\frac{z_+ - z_o}{e^{2\omega\tau}} \to \frac{\|u\|^2}{4\omega},\; u = h_0 + \sqrt{\kappa/2}\,\Delta_0",
         claim="C6", expect="checked", W=Units("V", "d"), h=Units("d"), w=Index("V"), l=Index("V"),
         o=Index("V"))  # fmt: skip
def displacement_is_transient_with_both(W, h, w, l, o):
    """With both trained the chosen's own term outgrows all others: its probability goes to 1, unless u = 0.

    Here kappa = 2, omega = 2; x = e^(2 tau).
    """
    u = h + W[w] - W[l]

    def lead(x):
        logits = pair_logits(W, h, 0 * (W @ h), w, l, log(x) / 2, kappa=2)
        return (logits[w] - logits[o]) / x**2

    return Tends(lead, "oo", dot(u, u) / 8)


# -- C7: how fast the hidden vector must be ----------------------------------------------------------------------------


@theorem(OURS, r"\frac{d\ln\pi_+}{d\tau}\Big|_0 < 0 \iff \kappa > \kappa^* ="
         r" \frac{(1-\pi_++\pi_-)\|h\|^2}{\langle\bar W-W_+,\Delta\rangle}", claim="C7", **PAIR,
         kappa=Positive())  # fmt: skip
def kappa_threshold(p, W, h, w, l, kappa):
    """The chosen falls at the start exactly if h learns fast enough, kappa > kappa*.

    That is, if kappa <mean W - W_w, D> exceeds (1 - p_w + p_l) |h|^2.
    """
    pull = dot(p @ W - W[w], W[w] - W[l])
    return Equal(-pair_speed(W, h, p, w, l, w, kappa=kappa), kappa * pull - (1 - p[w] + p[l]) * dot(h, h))


def critical_kappa(p, W, h, w, l):
    """kappa*, above which the chosen falls at the start: infinite where nothing pulls it down."""
    from jax import numpy as jnp

    pull = dot(p @ W - W[w], W[w] - W[l])
    return jnp.where(pull > 0, (1 - p[w] + p[l]) * dot(h, h) / jnp.where(pull > 0, pull, 1), jnp.inf)
