"""What the losses take: what they refuse and how they say it, batches, transformations, types."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp

from sandbox import losses
from sandbox.losses import LOSSES, PairLogProbs, margin_weights
from tests.test_losses import DTYPES, FIRST, constants_of
from tests.tolerances import assert_close

# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "constant"), [(name, c) for name in LOSSES for c in constants_of(name)])
def test_every_constant_has_a_range(name, constant):
    reduction = "reduction" in constant
    bad = ["median", None] if reduction else [float("nan"), float("inf"), -1, jnp.array([0.1, -0.5]), sp.Integer(-1)]
    for value in bad:
        with pytest.raises(ValueError, match=rf"^{constant}(\[1\])? = .*: must be "):
            LOSSES[name](FIRST, **{constant: value})


@pytest.mark.parametrize(
    ("name", "constants", "message"),
    [
        ("dpo", dict(beta=0), r"beta = 0: must be finite and > 0"),
        ("ipo", dict(tau=0), r"tau = 0: must be finite and > 0"),
        ("cdpo", dict(epsilon=0.5), r"epsilon = 0\.5: must be in \[0, 0\.5\)"),
        ("robust_dpo", dict(epsilon=0.5), r"epsilon = 0\.5: must be in \[0, 0\.5\)"),
        ("exo", dict(epsilon=0), r"epsilon = 0: must be in \(0, 0\.5\)"),
        ("dpo", dict(reduction="token"), r"reduction = 'token': must be one of 'sum', 'mean'"),
    ],
)
def test_edges_of_the_ranges(name, constants, message):
    with pytest.raises(ValueError, match=message):
        LOSSES[name](FIRST, **constants)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("field", PairLogProbs._fields)
def test_a_pair_that_is_not_finite_is_refused_by_name(name, field):
    for value in (float("nan"), np.array([-1.0, np.nan]), jnp.array([-1.0, -jnp.inf])):
        with pytest.raises(ValueError, match=rf"pair\.{field}(\[\d\])? = -?(nan|inf|1\.0): must be finite"):
            LOSSES[name](FIRST._replace(**{field: value}))


@pytest.mark.parametrize("length", [0, -3, np.array([4, 0])])
@pytest.mark.parametrize("field", ["chosen_length", "rejected_length"])
def test_a_length_of_zero_is_refused(field, length):
    with pytest.raises(ValueError, match=rf"pair\.{field}(\[1\])? = (0|-3): must be finite and > 0"):
        losses.simpo(FIRST._replace(**{field: length}))


@pytest.mark.parametrize("field", ["chosen", "rejected"])
def test_orpo_refuses_a_certain_response(field):
    with pytest.raises(ValueError, match=rf"pair\.{field} = 0\.0: must be finite and < 0"):
        losses.orpo(FIRST._replace(**{field: 0.0}))


@pytest.mark.parametrize("shapes", [((3,), (3, 1)), ((3,), (4,)), ((2, 3), (3,))])
def test_fields_that_do_not_fit_are_refused_also_under_jit(shapes):
    pair = PairLogProbs(*(-jnp.ones(shape) for shape in shapes), 0.0, 0.0)
    for loss in (losses.dpo, jax.jit(losses.dpo)):
        with pytest.raises(ValueError, match=r"pair has the shapes \{'chosen': .*rejected"):
            loss(pair)


def test_unknown_constants_are_refused():
    with pytest.raises(TypeError, match="epsilon"):
        losses.dpo(FIRST, epsilon=0.1)


def test_what_is_known_is_checked_inside_jit_and_what_is_traced_is_not():
    with pytest.raises(ValueError, match="beta = -1"):
        jax.jit(lambda pair: losses.dpo(pair, beta=-1))(FIRST)
    with pytest.raises(ValueError, match=r"pair\.ref_chosen = nan"):
        jax.jit(lambda a: losses.dpo(FIRST._replace(chosen=a, ref_chosen=float("nan"))))(-1.0)
    assert jnp.isnan(jax.jit(losses.dpo)(FIRST._replace(chosen=float("nan"))))
    with pytest.raises(ValueError, match=r"pair\.chosen = nan"):
        margin_weights(losses.dpo, FIRST._replace(chosen=float("nan")))


# -- batches and transformations -----------------------------------------------------------------------------------


def batch(shape: tuple[int, ...], dtype=None) -> PairLogProbs:
    keys = jax.random.split(jax.random.key(0), 6)
    logps = [-0.1 - 10 * jax.random.uniform(k, shape, dtype) for k in keys[:4]]
    return PairLogProbs(*logps, *(jax.random.randint(k, shape, 1, 30) for k in keys[4:]))


@pytest.mark.parametrize("name", LOSSES)
def test_any_batch_shape_jit_and_vmap_give_the_pairs_one_by_one(name):
    loss, pairs = LOSSES[name], batch((2, 3))
    one_by_one = np.array(
        [[loss(jax.tree.map(lambda x, i=i, j=j: x[i, j], pairs)) for j in range(3)] for i in range(2)]
    )
    assert_close(loss(pairs), one_by_one)
    assert_close(jax.jit(loss)(pairs), one_by_one)
    assert_close(jax.vmap(loss)(pairs), one_by_one)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_a_batch_are_its_gradient(name):
    loss, pairs = LOSSES[name], batch((2, 3))
    slopes = jax.jit(jax.grad(lambda p: loss(p).sum(), allow_int=True))(pairs)
    for weights in (margin_weights(loss, pairs), jax.jit(partial(margin_weights, loss))(pairs)):
        assert_close(weights[0], -slopes.chosen)
        assert_close(weights[1], slopes.rejected)


def test_scalars_broadcast_and_a_grid_has_the_weights_of_its_points():
    """A grid A x B as [n, 1] and [1, m]: weights belong to points, and are not summed over what was broadcast."""
    a, b = -jnp.arange(1.0, 4)[:, None], -jnp.arange(1.0, 3)[None, :]
    grid = margin_weights(losses.cpo, PairLogProbs(a, b))
    points = margin_weights(losses.cpo, PairLogProbs(*jnp.broadcast_arrays(a, b)))
    assert_close(grid, points)
    assert grid[0].shape == (3, 2)


def test_constants_may_be_traced_arrays_and_nothing_is_compiled_twice():
    traces = []

    @jax.jit
    def loss(pair, beta):
        traces.append(beta)
        return losses.dpo(pair, beta=beta)

    pairs, betas = batch((3,)), jnp.array([0.1, 0.2, 0.7])
    each = jnp.stack([loss(pairs, beta) for beta in betas])
    assert len(traces) == 1
    assert_close(jax.vmap(loss, (None, 0))(pairs, betas), each)
    assert_close(losses.dpo(pairs, beta=betas), jnp.diagonal(each))


def test_a_pair_is_a_pytree_with_or_without_its_optional_fields():
    short = PairLogProbs(jnp.array([-1.0, -2.0]), jnp.array([-3.0, -1.0]))
    assert len(jax.tree.leaves(short)) == 2
    assert_close(jax.vmap(losses.cpo)(short), losses.cpo(short))
    with pytest.raises(ValueError, match=r"pair\.ref_chosen = None"):
        jax.jit(losses.dpo)(short)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_dtype_of_the_log_probabilities_is_kept(name, dtype):
    assert LOSSES[name](batch((3,), dtype)).dtype == dtype


def test_unsigned_lengths_do_not_wrap():
    """A chosen response one token shorter: in unsigned integers n_w - n_l would be 255."""
    short = batch((2,))._replace(chosen_length=np.uint8([3, 3]), rejected_length=np.uint8([4, 4]))
    assert_close(losses.rdpo(short), losses.rdpo(short._replace(chosen_length=3.0, rejected_length=4.0)))
