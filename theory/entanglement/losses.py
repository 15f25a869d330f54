"""The weights (d_w, d_l) of every preference loss, and their ratio rho where it is one formula (C11).

A, B: log-probabilities of the chosen and the rejected response; A0, B0: the reference's; n_w, n_l: lengths in tokens.
d_w = -dl/dA and d_l = +dl/dB decide what a step does to a pair, together with the gradients of A and B (C1-C3): the
chosen rises iff <g_w, g_l> < rho |g_w|^2. Each row's left side is the loss that trains, its right side is typed here.
A source names the place of the loss; the weights are ours unless it says more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

from sandbox import losses
from sandbox.algebra import dot, exp, grad, log, log1mexp, log_sigmoid, relu, sigmoid, softplus, step
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.policies import linear_log_probs
from theory.statement import (
    All,
    Domain,
    Equal,
    Index,
    Negative,
    Positive,
    Real,
    Reals,
    Source,
    Theorem,
    Unit,
    theorem,
)

PAPER = "yuan2025entanglement"
IN_TABLE_2 = f"weights also {PAPER}, Table 2"

MODEL: dict[str, Any] = dict(g_w=Reals("d"), g_l=Reals("d"))
LOG_PROBS: dict[str, Any] = dict(A=Negative(), B=Negative(), A0=Negative(), B0=Negative())
LENGTHS: dict[str, Any] = dict(n_w=Positive(), n_l=Positive())
HALF = Domain("positive", make=lambda k: 1 / (2 + k))  # strictly between 0 and 1/2, as a share of flipped labels


class Pair(NamedTuple):
    """A pair in the letters of the table."""

    A: Any
    B: Any
    A0: Any
    B0: Any
    n_w: Any
    n_l: Any

    @property
    def r_w(self) -> Any:
        """Log-ratio of the chosen to the reference."""
        return self.A - self.A0

    @property
    def r_l(self) -> Any:
        """Log-ratio of the rejected to the reference."""
        return self.B - self.B0

    @property
    def h(self) -> Any:
        """The margin."""
        return self.r_w - self.r_l


def weights(
    loss: Callable[..., Any], source: Source, latex: str, **domains: Domain
) -> Callable[[Callable[..., tuple]], Theorem]:
    """Make a row of the table a Theorem; the row is a function of a Pair and of the loss's constants.

    It returns (d_w, d_l) or (d_w, d_l, rho). The claim: for any model whose log-probabilities have the gradients g_w,
    g_l, minus the gradient of the loss is d_w g_w - d_l g_l; the derivatives in A and B are these; their ratio is rho.
    """

    def state(row: Callable[..., tuple]) -> Theorem:
        @wraps(row)
        def claim(g_w, g_l, A, B, A0, B0, n_w, n_l, **constants):
            x, this = Pair(A, B, A0, B0, n_w, n_l), partial(loss, **constants)

            def first_order(theta):
                return this(PairLogProbs(*x)._replace(chosen=A + dot(g_w, theta), rejected=B + dot(g_l, theta)))

            d_w, d_l, *rho = row(x, **constants)
            found_w, found_l = margin_weights(this, PairLogProbs(*x))
            return All(
                Equal(-grad(first_order)(0 * g_w), d_w * g_w - d_l * g_l),
                Equal(found_w, d_w),
                Equal(found_l, d_l),
                *(Equal(found_w, ratio * found_l) for ratio in rho),
            )

        return Theorem(claim, source, latex, {**MODEL, **LOG_PROBS, **LENGTHS, **domains}, "C11")

    return state


def bell(x):
    """The derivative of the sigmoid."""
    return sigmoid(x) * sigmoid(-x)


# -- functions of the margin: rho = 1, or n_l / n_w if it is a margin of token means -----------------------------------


@weights(losses.dpo, Source("rafailov2023dpo", f"Eq. 7; {IN_TABLE_2}"), r"d_w = d_l = \beta\,\sigma(-\beta h)",
         beta=Positive())  # fmt: skip
def weights_of_dpo(x, beta):
    """DPO pushes both responses equally, less and less as the margin grows."""
    d = beta * sigmoid(-beta * x.h)
    return d, d, 1


@weights(partial(losses.dpo, reduction="mean"), Source("rafailov2023dpo", "Eq. 7, in token means"),
         r"n_w d_w = n_l d_l = \beta\,\sigma(-\beta(r_w/n_w - r_l/n_l))", beta=Positive())  # fmt: skip
def weights_of_dpo_mean(x, beta):
    """DPO in token means pushes the shorter response harder."""
    d = beta * sigmoid(-beta * (x.r_w / x.n_w - x.r_l / x.n_l))
    return d / x.n_w, d / x.n_l, x.n_l / x.n_w


@weights(losses.rdpo, Source("park2024rdpo", f"as recalled; {IN_TABLE_2}"),
         r"d_w = d_l = \beta\,\sigma(-\beta h - \alpha(n_w - n_l))", beta=Positive(), alpha=Positive())  # fmt: skip
def weights_of_rdpo(x, beta, alpha):
    """R-DPO pushes a pair with a longer chosen response less."""
    d = beta * sigmoid(-beta * x.h - alpha * (x.n_w - x.n_l))
    return d, d, 1


@weights(losses.cdpo, Source("mitchell2023cdpo", "conservative DPO"),
         r"d_w = d_l = \beta(\sigma(-\beta h) - \epsilon)", beta=Positive(), epsilon=HALF)  # fmt: skip
def weights_of_cdpo(x, beta, epsilon):
    """Conservative DPO pulls the margin back once it is certain enough."""
    d = beta * (sigmoid(-beta * x.h) - epsilon)
    return d, d, 1


@weights(losses.robust_dpo, Source("chowdhury2024robust", "Sec. 3.1"),
         r"d_w = d_l = \beta\,\frac{(1-\epsilon)\sigma(-\beta h) + \epsilon\,\sigma(\beta h)}{1-2\epsilon}",
         beta=Positive(), epsilon=HALF)  # fmt: skip
def weights_of_robust_dpo(x, beta, epsilon):
    """Robust DPO pushes for ever."""
    u = beta * x.h
    d = beta * ((1 - epsilon) * sigmoid(-u) + epsilon * sigmoid(u)) / (1 - 2 * epsilon)
    return d, d, 1


@weights(losses.ipo, Source("azar2023ipo", f"Eq. 17; {IN_TABLE_2}"), r"d_w = d_l = 1/\tau - 2h",
         tau=Positive())  # fmt: skip
def weights_of_ipo(x, tau):
    """IPO pushes in proportion to what the margin lacks, and back beyond its target."""
    d = 1 / tau - 2 * x.h
    return d, d, 1


@weights(partial(losses.ipo, reduction="mean"), Source("azar2023ipo", "Eq. 17, in token means"),
         r"n_w d_w = n_l d_l = 1/\tau - 2(r_w/n_w - r_l/n_l)", tau=Positive())  # fmt: skip
def weights_of_ipo_mean(x, tau):
    """IPO in token means pushes the shorter response harder."""
    d = 1 / tau - 2 * (x.r_w / x.n_w - x.r_l / x.n_l)
    return d / x.n_w, d / x.n_l, x.n_l / x.n_w


@weights(losses.hinge, Source("liu2023rso", "hinge on implicit rewards"), r"d_w = d_l = \beta\,1[\beta h < 1]",
         beta=Positive())  # fmt: skip
def weights_of_hinge(x, beta):
    """The hinge pushes with full force up to its kink, and then not at all."""
    d = beta * step(1 - beta * x.h)
    return d, d, 1


@weights(losses.exo, Source("ji2024exo", "Eq. 16"),
         r"d_w = d_l = \beta\,\sigma'(\beta h)\,(\log\tfrac{1-\epsilon}{\epsilon} - \beta h)",
         beta=Positive(), epsilon=HALF)  # fmt: skip
def weights_of_exo(x, beta, epsilon):
    """EXO stops where conservative DPO does, and gives up on a pair that is badly wrong."""
    u = beta * x.h
    d = beta * bell(u) * (log((1 - epsilon) / epsilon) - u)
    return d, d, 1


@weights(losses.discopop, Source("lu2024discopop", "Eq. 5"),
         r"d = \beta\,[(1-M)\sigma(-u) + M e^{-u} + \tfrac{M(1-M)}{\tau}(\log(1+e^{-u}) - e^{-u})],\; u = \beta h,"
         r"\; M = \sigma(u/\tau)", beta=Positive(), tau=Unit())  # fmt: skip
def weights_of_discopop(x, beta, tau):
    """DiscoPOP mixes a logistic and an exponential loss; what the mixing adds can have either sign."""
    u = beta * x.h
    exponential = exp(log_sigmoid(u / tau) - u)
    mixing = bell(u / tau) * softplus(-u) - sigmoid(-u / tau) * exponential
    d = beta * (sigmoid(-u / tau) * sigmoid(-u) + exponential + mixing / tau)
    return d, d, 1


# -- with a reference, chosen and rejected apart -----------------------------------------------------------------------


@weights(losses.dpo_sft, Source("pang2024irpo", "DPO and the mean NLL of the chosen"),
         r"d_w = \beta\sigma(-\beta h) + \alpha/n_w,\; d_l = \beta\sigma(-\beta h)",
         beta=Positive(), alpha=Positive())  # fmt: skip
def weights_of_dpo_sft(x, beta, alpha):
    """DPO with a fine-tuning term pushes the chosen harder than the rejected."""
    d = beta * sigmoid(-beta * x.h)
    return d + alpha / x.n_w, d


@weights(partial(losses.dpo_sft, sft_reduction="sum"), Source("liu2024rpo", "DPO and the NLL of the chosen"),
         r"d_w = \beta\sigma(-\beta h) + \alpha,\; d_l = \beta\sigma(-\beta h)",
         beta=Positive(), alpha=Positive())  # fmt: skip
def weights_of_dpo_sft_sum(x, beta, alpha):
    """The same with the sum over tokens in the fine-tuning term."""
    d = beta * sigmoid(-beta * x.h)
    return d + alpha, d


@weights(losses.dpop, Source("pal2024dpop", "as recalled"),
         r"d_l = \beta\,\sigma(-\beta(h - \lambda\max(0,-r_w))),\; \rho = 1 + \lambda\,1[r_w < 0]",
         beta=Positive(), lam=Positive())  # fmt: skip
def weights_of_dpop(x, beta, lam):
    """DPO-Positive pushes the chosen 1 + lam times as hard while it is below its reference."""
    below = step(-x.r_w)
    d_l = beta * sigmoid(-beta * (x.h - lam * relu(-x.r_w)))
    return (1 + lam * below) * d_l, d_l, 1 + lam * below


@weights(losses.flex_dpo, Source("yan2024dpo3d", "Flex-DPO, as recalled"),
         r"d_l = \beta_l\,\sigma(-(\beta_w r_w - \beta_l r_l)),\; \rho = \beta_w/\beta_l",
         beta_chosen=Positive(), beta_rejected=Positive())  # fmt: skip
def weights_of_flex_dpo(x, beta_chosen, beta_rejected):
    """Flex-DPO sets the ratio of the weights."""
    left = sigmoid(-(beta_chosen * x.r_w - beta_rejected * x.r_l))
    return beta_chosen * left, beta_rejected * left, beta_chosen / beta_rejected


@weights(losses.kto, Source("ethayarajh2024kto", f"Eq. 7; {IN_TABLE_2}"),
         r"d_w = \lambda_w\beta\,\sigma'(\beta(r_w - z_0)),\; d_l = \lambda_l\beta\,\sigma'(\beta(r_l - z_0))",
         beta=Positive(), z0=Positive(), desirable_weight=Positive(), undesirable_weight=Positive())  # fmt: skip
def weights_of_kto(x, beta, z0, desirable_weight, undesirable_weight):
    """KTO weighs each response by its own reward: hardest at the reference point, little on either side."""
    d_w = desirable_weight * beta * bell(beta * (x.r_w - z0))
    return d_w, undesirable_weight * beta * bell(beta * (x.r_l - z0))


@weights(losses.sppo, Source("wu2024sppo", "Eq. 4.7"), r"d_w = \eta - 2r_w,\; d_l = \eta + 2r_l",
         eta=Positive())  # fmt: skip
def weights_of_sppo(x, eta):
    """SPPO gives each response a target of its own."""
    return eta - 2 * x.r_w, eta + 2 * x.r_l


@weights(losses.nca, Source("chen2024nca", "Sec. 4.1"),
         r"d_w = \beta(\sigma(-\beta r_w) - \tfrac12\sigma(\beta r_w)),\; d_l = \tfrac12\beta\,\sigma(\beta r_l)",
         beta=Positive())  # fmt: skip
def weights_of_nca(x, beta):
    """NCA contrasts each response with noise: the chosen has a target, the rejected has none."""
    u, v = beta * x.r_w, beta * x.r_l
    return beta * (sigmoid(-u) - sigmoid(u) / 2), beta * sigmoid(v) / 2


@weights(losses.bco, Source("jung2024bco", "Sec. 4, without the running mean"),
         r"d_w = \beta\,\sigma(-\beta r_w),\; d_l = \beta\,\sigma(\beta r_l)", beta=Positive())  # fmt: skip
def weights_of_bco(x, beta):
    """BCO classifies each response alone."""
    return beta * sigmoid(-beta * x.r_w), beta * sigmoid(beta * x.r_l)


@weights(losses.apo_zero, Source("doosterlinck2024apo", "Eq. 7"),
         r"d_w = \beta\,\sigma'(\beta r_w),\; d_l = \beta\,\sigma'(\beta r_l)", beta=Positive())  # fmt: skip
def weights_of_apo_zero(x, beta):
    """APO-zero is KTO with the reference policy as the reference point."""
    return beta * bell(beta * x.r_w), beta * bell(beta * x.r_l)


@weights(losses.apo_down, Source("doosterlinck2024apo", "Eq. 8"),
         r"d_w = \beta(\sigma'(\beta h) - \sigma'(\beta r_w)),\; d_l = \beta\,\sigma'(\beta h)",
         beta=Positive())  # fmt: skip
def weights_of_apo_down(x, beta):
    """APO-down is meant for pairs of poor responses: it can lower the chosen as well."""
    u, v = beta * x.h, beta * x.r_w
    return beta * (bell(u) - bell(v)), beta * bell(u)


# -- without a reference -----------------------------------------------------------------------------------------------


@weights(losses.slic_hf, Source("zhao2023slic", f"Sec. 2, as recalled; {IN_TABLE_2}"),
         r"d_l = 1[A - B < \delta],\; d_w = d_l + \lambda", delta=Positive(), lam=Positive())  # fmt: skip
def weights_of_slic_hf(x, delta, lam):
    """SLiC-HF is a hinge and a fine-tuning term: beyond the hinge only the chosen is pushed."""
    active = step(delta - x.A + x.B)
    return active + lam, active


@weights(losses.rrhf, Source("yuan2023rrhf", "as recalled"),
         r"d_l = I/n_l,\; d_w = I/n_w + \lambda,\; I = 1[A/n_w < B/n_l]", lam=Positive())  # fmt: skip
def weights_of_rrhf(x, lam):
    """RRHF asks for order, not for a margin: once the order is right only the chosen is pushed."""
    wrong = step(x.B / x.n_l - x.A / x.n_w)
    return wrong / x.n_w + lam, wrong / x.n_l


@weights(losses.simpo, Source("meng2024simpo", f"Eq. 6; {IN_TABLE_2}"),
         r"n_w d_w = n_l d_l = \beta\,\sigma(-(\beta A/n_w - \beta B/n_l - \gamma))",
         beta=Positive(), gamma=Positive())  # fmt: skip
def weights_of_simpo(x, beta, gamma):
    """SimPO pushes the shorter response harder: its logarithms are means over tokens."""
    d = beta * sigmoid(gamma - beta * (x.A / x.n_w - x.B / x.n_l))
    return d / x.n_w, d / x.n_l, x.n_l / x.n_w


@weights(losses.cpo, Source("xu2024cpo", f"Eq. 3; {IN_TABLE_2}"),
         r"d_l = \beta\,\sigma(-\beta(A - B)),\; d_w = d_l + \lambda", beta=Positive(), lam=Positive())  # fmt: skip
def weights_of_cpo(x, beta, lam):
    """CPO is DPO without a reference and with a fine-tuning term."""
    d = beta * sigmoid(-beta * (x.A - x.B))
    return d + lam, d


@weights(losses.orpo, Source("hong2024orpo", f"Eqs. 6-7; {IN_TABLE_2}"),
         r"n_w d_w = 1 + \frac{\lambda\,\sigma(-\ell)}{1-p},\; n_l d_l = \frac{\lambda\,\sigma(-\ell)}{1-q},\;"
         r"\ell = \log\frac{p(1-q)}{q(1-p)},\; p = e^{A/n_w},\; q = e^{B/n_l}", lam=Positive())  # fmt: skip
def weights_of_orpo(x, lam):
    """ORPO is fine-tuning and a contrast of odds: the push on either response grows as it becomes certain."""
    a, b = x.A / x.n_w, x.B / x.n_l
    left = sigmoid(b - log1mexp(b) - a + log1mexp(a))
    return (1 + lam * left / (1 - exp(a))) / x.n_w, lam * left / ((1 - exp(b)) * x.n_l)


# -- the step itself, of a policy that is no approximation: one token, logits linear in the parameters -----------------
# DPO's stands in ``geometry``. Here weights differ by length, by length without bound, by a term, a hinge, a bump.

LOG_LINEAR: dict[str, Any] = dict(features=Reals("V", "d"), theta=Reals("d"), w=Index("V"), l=Index("V"))


def entangled_step(loss, features, theta, w, l, *rest):
    """Minus the gradient of a loss in the parameters is d_w g_w - d_l g_l; ``rest`` of the pair: A0, B0, n_w, n_l."""

    def log_prob(y):
        return lambda theta: linear_log_probs(features, theta)[y]

    def pair(theta):
        return PairLogProbs(log_prob(w)(theta), log_prob(l)(theta), *rest)

    d_w, d_l = margin_weights(loss, pair(theta))
    descent = -grad(lambda theta: loss(pair(theta)))(theta)
    return Equal(descent, d_w * grad(log_prob(w))(theta) - d_l * grad(log_prob(l))(theta))


@theorem(Source(PAPER, "Eqs. 4-5, for SimPO"), r"-\nabla_\theta L = d_w g_w - d_l g_l", claim="C1",
         **LOG_LINEAR, **LENGTHS, beta=Positive(), gamma=Positive())  # fmt: skip
def step_of_simpo(features, theta, w, l, n_w, n_l, beta, gamma):
    """A gradient step of SimPO contains the gradients of both responses, each with its weight."""
    return entangled_step(partial(losses.simpo, beta=beta, gamma=gamma), features, theta, w, l, None, None, n_w, n_l)


@theorem(Source(PAPER, "Eqs. 4-5, for IPO in token means"), r"-\nabla_\theta L = d_w g_w - d_l g_l", claim="C1",
         **LOG_LINEAR, A0=Real(), B0=Real(), **LENGTHS, tau=Positive())  # fmt: skip
def step_of_ipo_mean(features, theta, w, l, A0, B0, n_w, n_l, tau):
    """A gradient step of IPO in token means contains the gradients of both responses, each with its weight."""
    return entangled_step(partial(losses.ipo, reduction="mean", tau=tau), features, theta, w, l, A0, B0, n_w, n_l)


@theorem(Source(PAPER, "Eqs. 4-5, for CPO"), r"-\nabla_\theta L = d_w g_w - d_l g_l", claim="C1",
         **LOG_LINEAR, beta=Positive(), lam=Positive())  # fmt: skip
def step_of_cpo(features, theta, w, l, beta, lam):
    """A gradient step of CPO contains the gradients of both responses, each with its weight."""
    return entangled_step(partial(losses.cpo, beta=beta, lam=lam), features, theta, w, l)


@theorem(Source(PAPER, "Eqs. 4-5, for DPO-Positive"), r"-\nabla_\theta L = d_w g_w - d_l g_l", claim="C1",
         **LOG_LINEAR, A0=Real(), B0=Real(), beta=Positive(), lam=Positive())  # fmt: skip
def step_of_dpop(features, theta, w, l, A0, B0, beta, lam):
    """A gradient step of DPO-Positive contains the gradients of both responses, each with its weight."""
    return entangled_step(partial(losses.dpop, beta=beta, lam=lam), features, theta, w, l, A0, B0)


@theorem(Source(PAPER, "Eqs. 4-5, for KTO"), r"-\nabla_\theta L = d_w g_w - d_l g_l", claim="C1",
         **LOG_LINEAR, A0=Real(), B0=Real(), beta=Positive(), z0=Positive())  # fmt: skip
def step_of_kto(features, theta, w, l, A0, B0, beta, z0):
    """A gradient step of KTO contains the gradients of both responses, each with its weight."""
    return entangled_step(partial(losses.kto, beta=beta, z0=z0), features, theta, w, l, A0, B0)
