"""Utilities: what training adds to them, how the data law comes back out of them, and the decisions taken on them.

A utility ``u`` (V,) scores V outputs; softmax(u) reads it as probabilities. Maximum likelihood with step size eta moves
it by eta (target - softmax(u)), so that u is an accumulated residual, and what was accumulated can be inverted.
``steps`` are step sizes (no unit), log-probabilities and utilities are in nats, probabilities in [0, 1].
The first parts are written in the words of ``sandbox.algebra`` and take one context; inversion from end points and the
decisions that follow take arrays, are pure, and are meant to be mapped with ``jax.vmap`` and compiled.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from sandbox.algebra import dot, exp, flow_margin, grad, log, logsumexp, mean, softmax, tanh, total
from sandbox.validate import whole

__all__ = [
    "Decoded", "EndPoint", "Sums", "advance", "beam_search", "binary_clock", "binary_step", "corrected_link",
    "critical_length", "decayed_inverse", "exact_mode", "expected_payoffs", "forward", "frequency_error",
    "from_end_points", "inverted", "linear_link", "loss", "one_hot_margin", "optimum", "order_accuracy",
    "penalised_law", "recorded", "regret", "run_sums", "sample", "sampling_quality", "stationary_defect", "step",
    "sweep", "unsmoothed",
]  # fmt: skip


# -- training a table of utilities -----------------------------------------------------------------------------------


def loss(u: Any, q: Any) -> Any:
    """Cross-entropy -E_q log softmax(u), nats, of a data law q (V,) that sums to one."""
    return logsumexp(u) - dot(q, u)


def regret(u: Any, y: Any, temperature: Any = 1) -> Any:
    """tau logsumexp(u / tau) - u_y >= 0: what choosing y costs a maximiser of utility plus tau times entropy.

    At tau = 1 it is -log softmax(u)_y; as tau vanishes it tends to max u - u_y.
    """
    return temperature * logsumexp(u / temperature) - u[y]


def step(u: Any, target: Any, eta: Any, decay: Any = 0) -> Any:
    """u after one step of size eta on -E_target log softmax(u) + decay |u|^2 / 2.

    ``target`` (V,) is an observed output as a one-hot vector, the frequencies of a batch, or the data law.
    """
    return u - eta * decay * u + eta * (target - softmax(u))


def binary_step(d: Any, x: Any, eta: Any) -> Any:
    """The same for two outputs, in terms of d = u_1 - u_2 and x = q_1 - q_2."""
    return d + eta * (x - tanh(d / 2))


def optimum(q: Any, start: Any) -> Any:
    """Where training in a table ends: the utilities with softmax(u) = q > 0 whose mean is that of ``start``."""
    return log(q) - mean(log(q)) + mean(start)


# -- residual inversion: from utilities back to the law that they were trained on ------------------------------------


class Sums(NamedTuple):
    """What a run leaves behind: its last utilities, and sums over its steps weighted by what decay left of each.

    weight: sum of omega_t = eta_t prod_{s > t} (1 - eta_s decay); probs: sum of omega_t softmax(u_t), before step t;
    kept: prod_t (1 - eta_t decay), the share of the first utilities that is left.
    """

    u: Any
    probs: Any
    weight: Any
    kept: Any


def run_sums(start: Any) -> Sums:
    """The sums of a run of no step, from utilities ``start``."""
    return Sums(start, 0 * start, 0, 1)


def advance(sums: Sums, target: Any, eta: Any, decay: Any = 0) -> Sums:
    """The sums after one more ``step``."""
    left = 1 - eta * decay
    return Sums(
        step(sums.u, target, eta, decay),
        left * sums.probs + eta * softmax(sums.u),
        left * sums.weight + eta,
        left * sums.kept,
    )


def inverted(mean_probs: Any, start: Any, end: Any, weight: Any) -> Any:
    """Residual inversion (ours): P + (u_T - u_0) / H, the weighted frequency of what was observed, exactly.

    mean_probs: P (V,), the mean over steps of softmax(u_t) before the step, weighted by its size; weight: H, the sum of
    the step sizes. It sums to one; where it leaves [0, 1] the run was not as reported.
    """
    return mean_probs + (end - start) / weight


def decayed_inverse(sums: Sums, start: Any) -> Any:
    """Residual inversion (ours) of the sums of a run, with weight decay or without."""
    return inverted(sums.probs / sums.weight, sums.kept * start, sums.u, sums.weight)


def penalised_law(u: Any, slope: Any) -> Any:
    """softmax(u) + slope: the data law, if u minimises the loss plus a penalty whose gradient at u is ``slope``."""
    return softmax(u) + slope


def stationary_defect(u: Any, q: Any, penalty: Any) -> Any:
    """Gradient of loss + penalty at u: 0 where training with a ``penalty`` (a function of u) ends."""
    return grad(lambda u: loss(u, q) + penalty(u))(u)


def unsmoothed(p: Any, s: Any) -> Any:
    """(p - s/V) / (1 - s): the law behind p fitted with label smoothing 0 <= s < 1; negative where p < s/V."""
    return (p - s / total(1 + 0 * p)) / (1 - s)


def linear_link(u: Any, h: Any) -> Any:
    """1/V + (u - mean u) / h: the law behind utilities grown from uniform for a short time h; the error is O(h)."""
    return 1 / total(1 + 0 * u) + (u - mean(u)) / h


def corrected_link(u: Any, h: Any) -> Any:
    """1/V + (u - mean u) / (V (1 - e^(-h/V))): the same with an error O(h^2)."""
    count = total(1 + 0 * u)
    return 1 / count + (u - mean(u)) / (count * (1 - exp(-h / count)))


def binary_clock(d: Any, x: Any) -> Any:
    """Time at which gradient flow on two outputs, from d = 0, reaches d = u_1 - u_2; x = q_1 - q_2, tanh(d/2) < x < 1.

    -(x d + 2 log(cosh(d/2) - sinh(d/2) / x)) / (1 - x^2), with e^(d/2) / 2 taken out of the logarithm.
    """
    left = 1 + exp(-d) - (1 - exp(-d)) / x
    return -((1 + x) * d + 2 * log(left / 2)) / (1 - x**2)


def one_hot_margin(time: Any) -> Any:
    """d after that time where the first of two outputs is certain (x = 1): d + e^d = 2 t + 1."""
    return flow_margin(2 * time + 1)


# -- what follows for decisions --------------------------------------------------------------------------------------


def critical_length(gold: Any, end: Any) -> Any:
    """log P(end) / log P(gold): beyond this length the empty sentence is likelier than gold at every position."""
    return log(end) / log(gold)


def sampling_quality(gold: Any, end: Any, length: Any) -> Any:
    """Expected share of positions that hold the gold token if tokens are drawn until the end token: in [0, 1].

    c (1 - (1 - e)^L) / (L e) for probabilities c and e > 0 of the two, L positions.
    """
    return gold * (1 - (1 - end) ** length) / (length * end)


def frequency_error(q: Any, n: Any) -> Any:
    """(1 - |q|^2) / n: mean squared distance of the frequencies of n draws from their law q."""
    return (1 - dot(q, q)) / n


def expected_payoffs(probs: Any, payoff: Any) -> Any:
    """Expected payoff (A,) of A actions, payoff (A, V), under a law (V,)."""
    return payoff @ probs


# -- arrays from here on: recorded runs, and runs of which only the ends are known -----------------------------------


def order_accuracy(u: Array, q: Array, tie: float = 1e-9) -> Array:
    """Share of pairs (a, b) with q_a > q_b + tie for which u_a > u_b, over the last axis; NaN without such a pair."""
    apart = q[..., :, None] - q[..., None, :] > tie
    right = u[..., :, None] > u[..., None, :]
    return jnp.sum(apart & right, axis=(-2, -1)) / jnp.sum(apart, axis=(-2, -1))


def recorded(start: Array, end: Array, probs: Array, steps: Array, decay: Array | float = 0.0) -> Array:
    """Residual inversion (ours) of a recorded run: one law (X, V) for each of X contexts.

    start, end: (X, V). probs: (T, X, V), softmax(u_t) before each step. steps: (T, X), the size of the step on each
    context, 0 where it was not visited; any batch, any order. ``decay`` acts with the steps. A context that was never
    visited gives NaN.
    """
    left = 1 - steps * decay
    later = jnp.flip(jnp.cumprod(jnp.flip(left, 0), 0), 0)  # prod over s >= t
    after = jnp.concatenate([later[1:], jnp.ones_like(later[:1])])
    omega = steps * after
    sums = Sums(end, jnp.einsum("tx,txv->xv", omega, probs), jnp.sum(omega, 0)[:, None], later[0][:, None])
    return decayed_inverse(sums, start)


def forward(q: Array, start: Array, eta: Array | float, count: Array | int) -> tuple[Array, Array]:
    """Utilities (V,) after ``count`` full-batch steps of size eta towards q, and the mean of softmax(u_t) before each.

    ``count`` may be traced: runs of different lengths share one program.
    """

    def once(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        u, probs = carry
        return step(u, q, eta), probs + softmax(u)

    u, probs = lax.fori_loop(0, count, once, (start, jnp.zeros_like(start)))
    return u, probs / count


def sweep(q: Array, start: Array, end: Array, eta: Array | float, count: Array | int) -> Array:
    """One step of the fixed-point iteration q <- P[q] + (u_T - u_0) / (eta T), whose only fixed point is the law."""
    return inverted(forward(q, start, eta, count)[1], start, end, eta * count)


class EndPoint(NamedTuple):
    """A law (V,) found from end points; ``miss``: how far the run towards it ends from u_T, nats; ``rounds`` used."""

    q: Array
    miss: Array
    rounds: Array


class _Newton(NamedTuple):
    q: Array
    gap: Array
    slope: Array
    miss: Array
    scale: Array
    n: Array


def from_end_points(start: Array, end: Array, eta: Array | float, count: Array | int, rounds: int = 60) -> EndPoint:
    """The law q (V,) towards which ``count`` full-batch steps of size eta lead from ``start`` to ``end``.

    Newton's method on the end point of the run, halving a step that does not bring it nearer; at most ``rounds``.
    Only increments are used, the mean of which is taken out. ``miss`` says whether it was found.
    """
    rise = end - start - jnp.mean(end - start)

    def off(q: Array) -> tuple[Array, Array]:
        gap = forward(q, start, eta, count)[0] - start - rise
        return gap, gap

    gap_and_slope = jax.jacfwd(off, has_aux=True)

    def newton(state: _Newton) -> _Newton:
        # the run conserves the sum of the utilities iff q sums to one: ones in the matrix keep it there
        trial = state.q - state.scale * jnp.linalg.solve(state.slope + jnp.ones_like(state.slope), state.gap)
        trial = trial + (1 - jnp.sum(trial)) / trial.size
        slope, gap = gap_and_slope(trial)
        miss = jnp.max(jnp.abs(gap))
        better = _Newton(trial, gap, slope, miss, jnp.minimum(1, 2 * state.scale), state.n + 1)
        worse = state._replace(scale=state.scale / 2, n=state.n + 1)
        return jax.tree.map(partial(jnp.where, miss < state.miss), better, worse)

    def more(state: _Newton) -> Array:
        small = 64 * jnp.finfo(rise.dtype).eps * (1 + jnp.max(jnp.abs(rise)))
        return (state.miss > small) & (state.scale > 1e-6) & (state.n < rounds)

    q = softmax(end)  # with a gap of 0 the first trial is this start itself, and any miss is less than infinite
    one = jnp.ones((), q.dtype)
    first = _Newton(q, jnp.zeros_like(q), jnp.eye(q.size, dtype=q.dtype), jnp.inf * one, one, jnp.zeros((), int))
    found = lax.while_loop(more, newton, first)
    return EndPoint(found.q, found.miss, found.n - 1)


# -- decision rules over sequences; positions are independent, log_probs (L, V) --------------------------------------


class Decoded(NamedTuple):
    """A sentence: tokens (L,), ``end`` from its end on, and its log-probability; ``length`` counts what precedes."""

    tokens: Array
    log_prob: Array
    length: Array


def exact_mode(log_probs: Array, end: int = 0) -> Decoded:
    """The likeliest of all sentences of at most L tokens (the end after L is free); ties to the shortest."""
    length = log_probs.shape[0]
    words = log_probs.at[:, end].set(-jnp.inf)
    best, scores = jnp.argmax(words, axis=1), jnp.max(words, axis=1)
    before = jnp.concatenate([jnp.zeros_like(scores[:1]), jnp.cumsum(scores)])  # (L + 1,)
    whole_scores = before + jnp.append(log_probs[:, end], 0)
    n = jnp.argmax(whole_scores)
    return Decoded(jnp.where(jnp.arange(length) < n, best, end), whole_scores[n], n)


@partial(jax.jit, static_argnames=("most", "end"))
def beam_search(log_probs: Array, width: Array | int, *, most: int, end: int = 0) -> Decoded:
    """The best sentence that a beam of ``width`` <= ``most`` hypotheses finds.

    At each position the likeliest hypotheses are kept, finished ones, which stay as they are, among them; no
    normalisation by length; ties to the better parent, then to the lower token. ``width`` may be traced, so that widths
    are mapped. Raises ValueError unless ``most`` is a whole number >= 1.
    """
    whole("most", most)
    length, size = log_probs.shape
    none = jnp.full((most - 1,), -jnp.inf, log_probs.dtype)

    def position(beam: tuple[Array, Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        scores, tokens, done = beam
        now, i = at
        stays = jnp.where(jnp.arange(size) == end, 0, -jnp.inf)[None, :]
        grown = scores[:, None] + jnp.where(done[:, None], stays, now[None, :])
        kept, which = lax.top_k(grown.ravel(), most)
        parent, token = which // size, which % size
        kept = jnp.where(jnp.arange(most) < width, kept, -jnp.inf)
        return (kept, tokens[parent].at[:, i].set(token), done[parent] | (token == end)), None

    start = (
        jnp.concatenate([jnp.zeros((1,), log_probs.dtype), none]),
        jnp.full((most, length), end),
        jnp.zeros(most, bool),
    )
    (scores, tokens, _), _ = lax.scan(position, start, (log_probs, jnp.arange(length)))
    return Decoded(tokens[0], scores[0], jnp.sum(jnp.cumprod(tokens[0] != end)))


def sample(key: Array, log_probs: Array, end: int = 0) -> Decoded:
    """A sentence drawn token by token until ``end`` or L tokens."""
    drawn = jax.random.categorical(key, log_probs, axis=-1)
    alive = jnp.cumprod(drawn != end)  # (L,), 1 before the first end
    taken = jnp.take_along_axis(log_probs, drawn[:, None], axis=1)[:, 0]
    reached = jnp.concatenate([jnp.ones_like(alive[:1]), alive[:-1]])
    return Decoded(jnp.where(alive == 1, drawn, end), jnp.sum(reached * taken), jnp.sum(alive))
