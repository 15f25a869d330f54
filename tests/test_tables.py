"""One pair in a table: by hand, against autodiff, and the closed form against an integrated flow."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sandbox import losses, tables
from sandbox.dynamics import flow
from sandbox.tolerances import Tolerance
from tests.tolerances import assert_close, identity

START = jnp.log(jnp.array([0.2, 0.3, 0.1, 0.4]))
DPO = partial(losses.dpo, beta=0.7)


def test_the_loss_of_a_pair_by_hand():
    """Logits 1 nat up at the chosen, at w = 2, l = 0: the margin is 1 nat, whatever the normaliser."""
    loss = tables.pair_loss(DPO, START.at[2].add(1), START + 5, 2, 0)
    assert_close(loss, np.log1p(np.exp(-0.7)), identity())


def test_the_force_pushes_two_logits_apart_and_descends():
    """At the reference DPO's weight is beta / 2."""
    assert_close(tables.force(DPO, START, START, 2, 0), jnp.array([-0.35, 0, 0.35, 0]), identity())
    step = START + 1e-3 * tables.force(DPO, START, START, 2, 0)
    assert tables.pair_loss(DPO, step, START, 2, 0) < tables.pair_loss(DPO, START, START, 2, 0)


def field(z):
    return tables.force(DPO, z, START, 2, 0)


def test_the_path_is_that_of_the_flow():
    times = jnp.array([0.0, 1.0, 5.0, 20.0])
    path = jnp.stack([tables.dpo_logits(START, 2, 0, t, beta=0.7) for t in times])
    close = Tolerance(1e-5, 1e-5, "Runge-Kutta of fourth order, 64 steps between two times, in float32")
    assert_close(jax.jit(lambda: flow(field, START, times, substeps=64))(), path, close)
    margin = path[:, 2] - path[:, 0] - (START[2] - START[0])
    assert_close(margin, tables.dpo_margin(times, beta=0.7), close)


def test_the_margin_at_a_time():
    """beta g + e^(beta g) = 1 + kappa beta^2 t, from 0 on."""
    for kappa in (0.5, 2.0):
        u = 0.7 * tables.dpo_margin(jnp.array([0.0, 3.0, 50.0]), beta=0.7, kappa=kappa)
        assert_close(u + jnp.exp(u), 1 + kappa * 0.49 * jnp.array([0.0, 3.0, 50.0]), identity())
    assert abs(u[0]) < 1e-6  # the start is rounded by one
