"""The checks: what passes, what is refused, and that the message names argument, value and range."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp

from sandbox import validate
from sandbox.algebra.sizefree import Family


@pytest.mark.parametrize(
    ("check", "allowed", "refused", "range_"),
    [
        (validate.finite, [0, -1.5, 1e300], [float("nan"), float("-inf")], "finite"),
        (validate.positive, [1, 1e-30], [0, -0.0, -1, float("inf"), float("nan")], "finite and > 0"),
        (validate.nonnegative, [0, 1], [-1e-30, float("inf"), float("nan")], "finite and >= 0"),
        (validate.negative, [-1e-30], [0, 1, float("-inf"), float("nan")], "finite and < 0"),
    ],
)
def test_ranges(check, allowed, refused, range_):
    for x in allowed:
        assert check("x", x) is x
    check("x", np.array(allowed))
    for x in refused:
        for kind in (float, np.float64, np.asarray, jnp.asarray, sp.sympify):
            with pytest.raises(ValueError) as error:
                check("x", kind(x))
            assert str(error.value) == f"x = {kind(x)}: must be {range_}"


@pytest.mark.parametrize(
    ("ends", "inside", "outside"),
    [("[]", [0, 1], [-1, 2]), ("[)", [0], [1]), ("(]", [1], [0]), ("()", [0.5], [0, 1, float("nan")])],
)
def test_in_range_reads_its_ends_as_an_interval(ends, inside, outside):
    for x in inside:
        assert validate.in_range("x", x, 0, 1, ends) is x
    for x in outside:
        with pytest.raises(ValueError) as error:
            validate.in_range("x", x, 0, 1, ends)
        assert str(error.value) == f"x = {x}: must be in {ends[0]}0, 1{ends[1]}"


def test_an_array_is_refused_by_its_first_bad_element():
    with pytest.raises(ValueError, match=r"^x\[1, 0\] = -2\.0: must be finite and > 0$"):
        validate.positive("x", np.array([[1.0, 3.0], [-2.0, -3.0]]))


def test_one_of():
    assert validate.one_of("way", "sum", ("sum", "mean")) == "sum"
    with pytest.raises(ValueError, match=r"^way = 'median': must be one of 'sum', 'mean'$"):
        validate.one_of("way", "median", ("sum", "mean"))


def test_whole():
    for n in (2, np.int32(2), np.uint8(2)):
        assert type(validate.whole("n", n)) is int
        assert validate.whole("n", n, least=2) == 2
    for n in (0, -1, 2.0, True, "2", None, float("nan")):
        with pytest.raises(ValueError) as error:
            validate.whole("n", n)
        assert str(error.value) == f"n = {n!r}: must be a whole number of at least 1"
    with pytest.raises(ValueError, match=r"^n = 2: must be a whole number of at least 3$"):
        validate.whole("n", 2, least=3)


def test_only_what_is_known_is_looked_at():
    unknown = [sp.Symbol("x"), -sp.Symbol("x", positive=True), np.array([sp.Symbol("x")]), Family(lambda i: i, ("V",))]
    for x in [*unknown, None, "text"]:
        assert validate.known(x) is None
        assert validate.positive("x", x) is x
    for transform in (jax.jit, jax.vmap, jax.grad):
        run = transform(lambda x: validate.positive("x", x))
        run(-jnp.ones(() if transform is jax.grad else (2,)))
    for x in (True, 2, 0.5, sp.Rational(1, 2), sp.Float("0.5"), np.float32(1), jnp.ones(2, jnp.bfloat16)):
        assert validate.known(x) is not None


def test_broadcastable():
    for shapes in [(), ((),), ((3,), ()), ((3,), (3,)), ((3, 1), (1, 2)), ((3, 2), (1, 1), ())]:
        validate.broadcastable("pair", {str(n): np.zeros(shape) for n, shape in enumerate(shapes)})
    validate.broadcastable("pair", {"a": 1.0, "b": None, "c": sp.Symbol("c"), "d": np.zeros((2, 3))})
    for shapes in [((3,), (4,)), ((3,), (3, 1)), ((3, 2), (1, 3)), ((1,), (2,), (3,))]:
        with pytest.raises(ValueError, match=r"^pair has the shapes \{'0': .*: must be scalars, or have as many axes"):
            validate.broadcastable("pair", {str(n): np.zeros(shape) for n, shape in enumerate(shapes)})
