"""One pair of tied embeddings in closed form, against Runge-Kutta and against each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from sandbox import tied
from sandbox.algebra import log_softmax
from sandbox.dynamics import flow
from tests.tolerances import Tolerance, assert_close, identity

V, D = 5, 3
KEYS = jax.random.split(jax.random.key(0), 3)
W, H, BIAS = (jax.random.normal(k, shape) for k, shape in zip(KEYS, ((V, D), (D,), (V,)), strict=True))
CHOSEN, REJECTED = 3, 1


def climb(state, kappa):
    """The gradient of the margin in W and, times kappa, in h, by autodiff."""

    def margin(W, h):
        logits = BIAS + W @ h
        return logits[CHOSEN] - logits[REJECTED]

    of_w, of_h = jax.grad(margin, (0, 1))(*state)
    return of_w, kappa * of_h


@pytest.mark.parametrize("kappa", [0.25, 1.0, 3.0])
def test_closed_form_is_the_flow(kappa):
    times = jnp.linspace(0, 1, 9)
    rows, hidden = flow(climb, (W, H), times, (jnp.asarray(kappa),), substeps=64)
    logits = BIAS[None] + jnp.einsum("tvd,td->tv", rows, hidden)
    found = jax.vmap(lambda t: tied.pair_logits(W, H, BIAS, CHOSEN, REJECTED, t, kappa=kappa))(times)
    precise = jnp.result_type(float) == jnp.float64
    assert_close(found, logits, Tolerance(1e-8, 1e-8, "Runge-Kutta: 64 steps, h^4") if precise else identity())
    gap = W[CHOSEN] - W[REJECTED]
    margins = tied.pair_margin(H, gap, times, kappa=kappa)
    assert_close(margins, found[:, CHOSEN] - found[:, REJECTED] - BIAS[CHOSEN] + BIAS[REJECTED])
    assert_close(tied.pair_clock(H, gap, margins, kappa=kappa), times, Tolerance(1e-5, 1e-5, "a logarithm near 0"))


def test_speed_is_the_derivative_of_the_closed_form():
    p = jax.nn.softmax(BIAS + W @ H)
    for kappa in (0.5, 2.0):

        def log_probs(t, kappa=kappa):
            return log_softmax(tied.pair_logits(W, H, BIAS, CHOSEN, REJECTED, t, kappa=kappa))

        found = jnp.stack([tied.pair_speed(W, H, p, CHOSEN, REJECTED, y, kappa=kappa) for y in range(V)])
        assert_close(jax.jvp(log_probs, (0.0,), (1.0,))[1], found)
