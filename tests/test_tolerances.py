from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tolerances import GOLDEN, IDENTITY, Tolerance, assert_close, golden, identity, monte_carlo, step_error


def test_precision_in_force_decides():
    for x64, dtype in [(True, "float64"), (False, "float32")]:
        with jax.enable_x64(x64):
            assert identity() == identity(dtype) == identity(jnp.zeros(2).dtype)
            assert golden() == golden(dtype)
    assert identity("float64").rtol == 1e-9
    assert identity("float32").rtol == 1e-4


@pytest.mark.parametrize("table", [IDENTITY, GOLDEN])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_limits_lie_above_rounding_and_far_below_one(table, dtype):
    eps, tolerance = np.finfo(dtype).eps, table[dtype]
    assert 10 * eps < tolerance.atol <= tolerance.rtol < np.cbrt(eps)


@pytest.mark.parametrize(
    ("a", "b", "agree"),
    [
        (1.0, 1.0 + 2.9e-3, True),  # 1e-3 absolute and 2e-3 relative
        (1.0, 1.0 + 3.1e-3, False),
        (100.0, 100.2, True),
        (100.0, 100.202, False),
        ([1.0, 2.0], [1.0, 2.1], False),  # one of many is enough
        (np.inf, np.inf, True),
        (np.inf, -np.inf, False),
        (np.inf, 1.0, False),
        (np.nan, np.nan, False),
    ],
)
def test_limit_is_absolute_plus_relative(a, b, agree):
    tolerance = Tolerance(rtol=2e-3, atol=1e-3, why="chosen by hand")
    assert tolerance.allows(a, b) is tolerance.allows(b, a) is agree


def test_message_names_the_worst_pair_and_the_reason():
    assert_close([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(AssertionError, match=r"margins at \[1\].*differ by 0\.5; allowed 0\.01 \(chosen by hand\)"):
        assert_close([1.0, 2.0, 3.0], [1.0, 2.5, 3.1], Tolerance(0, 0.01, "chosen by hand"), "margins")
    with pytest.raises(AssertionError, match=r"at \[2\]"):
        assert_close([1.0, 9.0, np.nan], [1.0, 2.0, 3.0])


def test_monte_carlo_rejects_at_the_rate_it_states():
    tolerance = monte_carlo(0.5, k=2)
    assert tolerance.atol == 1.0
    assert tolerance.why.endswith("one key in 22")  # two-sided tail of the normal law beyond 2: 0.0455
    z = jax.random.normal(jax.random.key(0), (100_000,))
    rejected = float(jnp.mean(jnp.abs(z) > 2))
    assert monte_carlo(np.sqrt(0.0455 * 0.9545 / 100_000)).allows(rejected, 0.0455)


def test_step_error_is_the_error_of_a_step():
    """Euler steps of dz/dt = -z from 1 to time 1 end e^-1/2 * step away from e^-1, half of max |z''| times the time."""
    for step in (0.1, 0.01):
        tolerance = step_error(step, 0.5, because="half of max |z''| times the time run")
        end = (1 - step) ** round(1 / step)
        assert tolerance.allows(end, np.exp(-1))
        assert not step_error(step, 0.15, because="too small").allows(end, np.exp(-1))
    assert step_error(0.1, 1.0, because="", order=2).atol == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: monte_carlo(0.0), "standard_error"),
        (lambda: monte_carlo(1.0, k=-1), "k"),
        (lambda: step_error(-0.1, 1.0, because=""), "step"),
        (lambda: step_error(0.1, np.nan, because=""), "constant"),
        (lambda: identity("int32"), "dtype.*int32.*float64"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
