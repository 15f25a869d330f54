"""The words: on arrays against textbook formulas at 50 digits and SciPy, and the symbolic readings against arrays."""

from __future__ import annotations

import subprocess
import sys
from contextvars import copy_context

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.special as special
import sympy as sp

from sandbox import algebra
from sandbox.algebra import arrays, concrete, reading, sizefree
from sandbox.algebra.numeric import evaluate
from sandbox.algebra.sizefree import Family, index
from sandbox.algebra.symbols import exact
from tests.engine import assert_concrete_reading_agrees, assert_sizefree_reading_agrees, value_of
from tests.tolerances import Tolerance, assert_close
from theory.statement import Index, Positive, Positives, Real, Reals, Simplex

X64 = jax.config.jax_enable_x64
DTYPES = [jnp.float32] + [jnp.float64] * X64
WORDS = [word for word in algebra.__all__ if word not in ("arrays_only", "reading")]


def rounding(dtype: type, of_order_one: bool = False) -> Tolerance:
    """Relative, unless the number is known as a difference of numbers of order one."""
    info = np.finfo(dtype)
    if of_order_one:
        return Tolerance(40 * float(info.eps), 2 * float(info.eps), "a difference of numbers of order one")
    return Tolerance(40 * float(info.eps), float(info.tiny), "a few roundings; numbers below the smallest normal are 0")


# -- on arrays, elementwise --------------------------------------------------------------------------------------------

ANY = (-1e4, -80, -1, -1e-3, 0, 1e-3, 1, 80, 1e4)
ABOVE = (1e-30, 1e-3, 1 / 2, 1, 2, 1e4, 1e30)
BELOW = (-1e4, -80, -1, -0.7, -0.69, -1e-3, -1e-30)


def root_of_flow(s: mp.mpf) -> mp.mpf:
    """y + e^y = s by bisection."""
    low, high = min(s, 0) - 1, max(s, 1)
    for _ in range(250):
        middle = (low + high) / 2
        low, high = (middle, high) if middle + mp.exp(middle) < s else (low, middle)
    return low


# word: its formula, the formula of its slope, and where both are compared
FORMULAS = {
    "exp": (mp.exp, mp.exp, ANY),
    "log": (mp.log, lambda x: 1 / x, ABOVE),
    "sqrt": (mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x)), ABOVE),
    "sigmoid": (lambda x: 1 / (1 + mp.exp(-x)), lambda x: 1 / (2 + mp.exp(x) + mp.exp(-x)), ANY),
    "log_sigmoid": (lambda x: -mp.log1p(mp.exp(-x)), lambda x: 1 / (1 + mp.exp(x)), ANY),
    "softplus": (lambda x: mp.log1p(mp.exp(x)), lambda x: 1 / (1 + mp.exp(-x)), ANY),
    "log1mexp": (lambda x: mp.log(-mp.expm1(x)), lambda x: mp.exp(x) / mp.expm1(x), BELOW),
    "tanh": (mp.tanh, lambda x: 1 / mp.cosh(x) ** 2, ANY),
    "cosh": (mp.cosh, mp.sinh, ANY),
    "sinh": (mp.sinh, mp.cosh, ANY),
    "relu": (lambda x: max(x, mp.mpf(0)), lambda x: mp.mpf(x > 0), ANY),
    "step": (lambda x: mp.mpf(x > 0), lambda x: mp.mpf(0), ANY),
    "flow_margin": (root_of_flow, lambda s: 1 / (1 + mp.exp(root_of_flow(s))), (*ANY, 1e30, -1e30)),
    "exp_excess": (lambda x: mp.expm1(x) - x, mp.expm1, ANY),
    "tanh_excess": (lambda x: x - mp.tanh(x), lambda x: mp.tanh(x) ** 2, ANY),
}

ABSOLUTE = {"exp_excess", "tanh_excess", "flow_margin"}  # right to a rounding of order one, also where they vanish
SATURATING = {"sigmoid", "tanh"}  # the slope is 1 - y^2 or y (1 - y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("word", FORMULAS)
def test_word_and_its_slope_are_right_at_any_magnitude(word, dtype):
    formula, slope, points = FORMULAS[word]
    x = jnp.array(points, dtype)
    f = getattr(algebra, word)
    with mp.workdps(50):
        exactly = [mp.mpf(float(v)) for v in x]
        with np.errstate(over="ignore"):
            values, slopes = (np.array([float(g(v)) for v in exactly]).astype(dtype) for g in (formula, slope))
    assert_close(f(x), values, rounding(dtype, word in ABSOLUTE), word)
    assert_close(jax.vmap(jax.grad(f))(x), slopes, rounding(dtype, word in ABSOLUTE | SATURATING), f"slope of {word}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_words_keep_the_precision_of_their_arguments(dtype):
    x = jnp.full(2, -0.5, dtype)
    for word in FORMULAS:
        assert getattr(algebra, word)(x).dtype == dtype, word
        assert getattr(algebra, word)(x[0]).dtype == dtype, word
    made = (algebra.onehot(0, x), algebra.stack(x[0], 1), algebra.kl(-x, -x), algebra.outer(x, x), algebra.mean(x))
    slopes = (algebra.grad(algebra.total)(x), algebra.velocity(algebra.exp)(x[0]))
    assert {y.dtype for y in (*made, *slopes)} == {jnp.dtype(dtype)}
    assert algebra.flow_margin(1).dtype == algebra.grad(algebra.exp)(1).dtype == jnp.result_type(float)


def test_flow_margin_solves_its_equation():
    y = np.linspace(-30, 30, 121)
    s = jnp.asarray(y + np.exp(y))
    eps = float(np.finfo(s.dtype).eps)
    assert_close(algebra.flow_margin(s), y, Tolerance(4 * eps, 32 * eps, "s is rounded, and dy/ds <= 1 / (1 + e^y)"))


# -- on arrays, over the last axis -------------------------------------------------------------------------------------

ROWS = np.array([[0.5, -1.0, 2.0], [1e4, 0.0, -1e4], [-1e4, -1e4, -1e4], [3.0, 3.0, 3.0]])
LAWS = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
OTHERS = np.array([[0.1, 0.6, 0.3], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25]])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: algebra.total(ROWS), ROWS.sum(-1)),
        (lambda: algebra.mean(ROWS), ROWS.mean(-1)),
        (lambda: algebra.dot(LAWS, OTHERS), np.einsum("ij,ij->i", LAWS, OTHERS)),
        (lambda: algebra.logsumexp(ROWS), special.logsumexp(ROWS, -1)),
        (lambda: algebra.log_softmax(ROWS), special.log_softmax(ROWS, -1)),
        (lambda: algebra.softmax(ROWS), special.softmax(ROWS, -1)),
        (lambda: algebra.kl(LAWS, OTHERS), special.rel_entr(LAWS, OTHERS).sum(-1)),
        (lambda: algebra.kl(OTHERS[1:], LAWS[1:]), [np.inf, np.inf]),
        (lambda: algebra.onehot(1, ROWS), [0, 1, 0]),
        (lambda: algebra.outer(ROWS[0], LAWS[0]), np.outer(ROWS[0], LAWS[0])),
        (lambda: algebra.stack(1, 2.5, jnp.float32(3)), [1, 2.5, 3]),
    ],
)
def test_reduction_agrees_with_scipy(found, expected):
    assert_close(found(), expected, Tolerance(1e-12, 1e-12, "sums of three terms") if X64 else None)


def test_gradients_are_finite_on_the_boundary_of_the_simplex():
    slopes = jax.jacobian(lambda p: algebra.kl(p, jnp.asarray(OTHERS)).sum())(jnp.asarray(LAWS))
    assert bool(jnp.all(jnp.isfinite(slopes)))
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda z: algebra.log_softmax(z)[0])(jnp.asarray(ROWS[1])))))


# -- the symbolic readings ---------------------------------------------------------------------------------------------


def elementwise(word, domain=Reals):
    return lambda x, t: getattr(algebra, word)(x) + getattr(algebra, word)(t), dict(x=domain("V", "d"), t=domain())


def scalar_or_reals(*axes):
    return Reals(*axes) if axes else Real()


def scalar_or_positives(*axes):
    return Positives(*axes) if axes else Positive()


ONE = dict(z=Reals("V"), w=Index("V"))
CASES = {
    **{word: elementwise(word, scalar_or_reals) for word in FORMULAS},
    **{word: elementwise(word, scalar_or_positives) for word in ("log", "sqrt")},
    "log1mexp": (lambda x: algebra.log1mexp(-x), dict(x=Positives("V", "d"))),
    "total": (lambda x: algebra.total(x), dict(x=Reals("V", "d"))),
    "mean": (lambda x: algebra.mean(x), dict(x=Reals("V", "d"))),
    "dot": (lambda x, y: algebra.dot(x, y) + algebra.dot(x, x), dict(x=Reals("V", "d"), y=Reals("V", "d"))),
    "logsumexp": (lambda z: algebra.logsumexp(z), dict(z=Reals("V", "d"))),
    "log_softmax": (lambda z: algebra.log_softmax(z), dict(z=Reals("V", "d"))),
    "softmax": (lambda z: algebra.softmax(z), dict(z=Reals("V", "d"))),
    "kl": (lambda p, q: algebra.kl(p, q), dict(p=Simplex("V", "d"), q=Simplex("V", "d"))),
    "onehot": (lambda z, w: algebra.onehot(w, z), dict(z=Reals("d", "V"), w=Index("V"))),
    "stack": (lambda s, t: algebra.stack(s, 2, t), dict(s=Real(), t=Real())),
    "outer": (lambda x, y: algebra.outer(x, y), dict(x=Reals("V"), y=Reals("d"))),
    "grad": (lambda z, w: algebra.grad(lambda z: algebra.log_softmax(z)[w] ** 2)(z), ONE),
    "velocity": (lambda z, t: algebra.velocity(lambda t: algebra.softmax(t * z))(t), dict(z=Reals("V"), t=Real())),
    "along": (lambda z, w: algebra.along(lambda z: algebra.softmax(z)[w], lambda z: z * z)(z), ONE),
}  # fmt: skip
MATRIX = dict(W=Reals("V", "d"), h=Reals("d"), w=Index("V"))
COMPOSED = {
    "matrix times vector": (lambda W, h, w: (W @ h) + 0 * W[w][0], MATRIX),
    "vector times matrix": (lambda W, x: x @ W, dict(W=Reals("V", "d"), x=Reals("V"))),
    "matrix times matrix": (lambda A, B: A @ B, dict(A=Reals("V", "V"), B=Reals("V", "V"))),
    "gradient by a matrix": (
        lambda W, h, w: algebra.grad(lambda W: algebra.log_softmax(W @ h)[w])(W),
        MATRIX,
    ),
    "Hessian": (
        lambda z, w, l: algebra.grad(lambda z: algebra.grad(lambda z: algebra.log_softmax(z)[w])(z)[l])(z),
        ONE | dict(l=Index("V")),
    ),
    "gradient of a scalar": (lambda t: algebra.grad(lambda t: algebra.flow_margin(t) ** 2)(t), dict(t=Real())),
    "along a scalar flow": (lambda t: algebra.along(lambda t: t**3, lambda t: algebra.exp(t))(t), dict(t=Real())),
    "along a matrix flow": (
        lambda W, h, w: algebra.along(lambda W: algebra.softmax(W @ h)[w], lambda W: W * W)(W),
        MATRIX,
    ),
    "slope of a divergence": (
        lambda p, z: algebra.grad(lambda z: algebra.kl(p, algebra.softmax(z)))(z),
        dict(p=Simplex("V"), z=Reals("V")),
    ),
    "slope at a made point": (
        lambda p, a, w: algebra.grad(algebra.logsumexp)(algebra.log(p) + a * (algebra.onehot(w, p) - p)),
        dict(p=Simplex("V"), a=Real(), w=Index("V")),
    ),
    "rows of a law": (lambda c, m: c[m] - algebra.softmax(c)[m], dict(c=Simplex("d", "V"), m=Index("d"))),
    "second derivative": (
        lambda t: algebra.velocity(algebra.velocity(lambda t: algebra.tanh_excess(t) * algebra.relu(t)))(t),
        dict(t=Real()),
    ),
}


@pytest.mark.parametrize("word", WORDS)
def test_symbolic_readings_of_a_word_are_its_array_reading(word):
    body, domains = CASES[word]
    formula = value_of(body, **domains)
    assert_concrete_reading_agrees(formula)
    if word == "stack":
        with pytest.raises(NotImplementedError, match="known size"):
            assert_sizefree_reading_agrees(formula)
    else:
        assert_sizefree_reading_agrees(formula)


@pytest.mark.parametrize("what", COMPOSED)
def test_symbolic_readings_of_words_together_are_their_array_reading(what):
    body, domains = COMPOSED[what]
    assert_concrete_reading_agrees(value_of(body, **domains))
    assert_sizefree_reading_agrees(value_of(body, **domains))


@pytest.mark.parametrize("name", ["sizefree", "concrete"])
def test_what_is_numerical_says_so_in_a_symbolic_reading(name):
    algebra.arrays_only("a fit")
    with reading(name), pytest.raises(NotImplementedError, match="a fit has no symbolic reading"):
        algebra.arrays_only("a fit")


def test_every_word_has_a_case_and_three_readings():
    assert CASES.keys() == set(WORDS)
    for word in WORDS:
        assert all(hasattr(module, word) for module in (arrays, sizefree, concrete))


# -- derivatives against finite differences ----------------------------------------------------------------------------

H = 1e-5 if X64 else 1e-2
DIFFERENCE = Tolerance(0, 1e-8 if X64 else 3e-3, "central differences: H^2 / 6 of a third derivative, and eps / H")
Z = np.array([0.3, -0.7, 1.1])


def field(z):
    return jnp.array([-1.0, 2.0, 0.5]) * z + algebra.softmax(z)


def quantity(z):
    return algebra.log_softmax(z)[0] * algebra.tanh(z[2]) + algebra.softplus(z[1])


def test_grad_is_the_slope_along_each_axis():
    steps = H * np.eye(3)
    differences = [(quantity(Z + e) - quantity(Z - e)) / (2 * H) for e in steps]
    assert_close(algebra.grad(quantity)(Z), differences, DIFFERENCE)


def test_velocity_is_the_slope_of_a_path():
    difference = (field((0.4 + H) * Z) - field((0.4 - H) * Z)) / (2 * H)
    assert_close(algebra.velocity(lambda t: field(t * Z))(0.4), difference, DIFFERENCE)


def test_along_is_the_slope_along_the_flow():
    push = field(Z)
    difference = (quantity(Z + H * push) - quantity(Z - H * push)) / (2 * H)
    assert_close(algebra.along(quantity, field)(jnp.asarray(Z)), difference, DIFFERENCE)


# -- the reading is a context ------------------------------------------------------------------------------------------


def test_reading_is_arrays_until_told_and_after():
    x = sp.Symbol("x", real=True)
    with reading("sizefree"):
        assert algebra.exp(x) == sp.exp(x)
        with reading("arrays"):
            assert isinstance(algebra.exp(1.0), jax.Array)
        assert algebra.sqrt(2) == sp.sqrt(2)
    assert isinstance(algebra.sqrt(2), jax.Array)


def test_reading_is_left_after_an_error_and_is_of_one_context():
    def fail():
        with reading("concrete"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert isinstance(algebra.exp(0.0), jax.Array)
    with reading("concrete"):
        other = copy_context()
    assert isinstance(other.run(algebra.exp, 0), sp.Expr) and isinstance(algebra.exp(0.0), jax.Array)


def test_unknown_reading_is_refused():
    with (
        pytest.raises(ValueError, match="'size-free' is none of 'arrays', 'sizefree', 'concrete'"),
        reading("size-free"),
    ):
        pass


def test_reading_arrays_needs_no_sympy():
    code = "import sys, sandbox.algebra as a; a.softmax(a.stack(1, 2)); sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- families refuse what arrays would not mean ------------------------------------------------------------------------

W, L, D = index("w", "V"), index("l", "V"), index("m", "d")
X = Family(lambda i: sp.IndexedBase("x", real=True)[i], ("V",))
F = Family(lambda j: sp.IndexedBase("f", real=True)[j], ("d",))
M = Family(lambda i, j: sp.IndexedBase("M", real=True)[i, j], ("V", "d"))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: X[D], ValueError),
        (lambda: M[W, W], ValueError),
        (lambda: X[W, L], IndexError),
        (lambda: X[-1], NotImplementedError),
        (lambda: X[1:], NotImplementedError),
        (lambda: X[..., None], IndexError),
        (lambda: X[None], NotImplementedError),
        (lambda: X + F, ValueError),
        (lambda: X * M, ValueError),
        (lambda: M @ X, ValueError),
        (lambda: F @ M, ValueError),
        (lambda: M @ M, ValueError),
        (lambda: sizefree.dot(X, F), ValueError),
        (lambda: sizefree.kl(X, F), ValueError),
        (lambda: sizefree.onehot(D, X), ValueError),
        (lambda: sum(X), TypeError),
        (lambda: list(X), TypeError),
        (lambda: X.shape, NotImplementedError),
        (lambda: {X}, TypeError),
    ],
)
def test_family_refuses(wrong, error):
    with pytest.raises(error):
        wrong()


def test_family_takes_indices_of_its_axes():
    assert M[W, D] == M[W][D] and X[0] == X.at(0)
    assert (M @ F).axes == ("V",) and (X @ M).axes == ("d",)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_floats_become_the_rationals_that_they_show():
    assert exact(0.1) == sp.Rational(1, 10) and exact(2.5 * sp.Symbol("x")).atoms(sp.Float) == set()


def test_evaluation_to_many_digits_and_what_it_refuses():
    x = sp.Symbol("x", real=True)
    assert mp.almosteq(evaluate(sp.exp(x) - 1, {x: sp.Rational(1, 10**20)}, {}, digits=60) * mp.mpf(10) ** 20, 1, 1e-15)
    with pytest.raises(KeyError, match="no value for y"):
        evaluate(sp.Symbol("y"), {x: 1}, {})
    with pytest.raises(ZeroDivisionError):
        evaluate(1 / x, {x: 0}, {})
    with pytest.raises(ZeroDivisionError):
        evaluate(sp.zoo, {}, {})
