"""From a theorem to a verdict: each kind of verdict, counterexamples, and errors planted in true statements."""

from __future__ import annotations

import signal
import threading

import jax
import jax.numpy as jnp
import pytest
import sympy as sp

from sandbox.algebra import (
    dot,
    exp,
    flow_margin,
    kl,
    log,
    log_softmax,
    mean,
    onehot,
    relu,
    softmax,
    sqrt,
    stack,
    step,
    total,
)
from sandbox.algebra.concrete import DivergenceOf
from sandbox.algebra.mutants import mutants
from tests.engine import counterexample_on_arrays, stated
from tests.formulas import a, b, l, p, q, t, w, x
from theory._planted import Planted, plant
from theory.proof import Checked, EmptyClaim, Proved, Refuted, Undecided, holds, prove
from theory.statement import (
    All,
    AtMost,
    Bowl,
    Conserved,
    Equal,
    Given,
    Index,
    LargestIs,
    NonNegative,
    Positive,
    Positives,
    Rate,
    Real,
    Reals,
    SameSign,
    Simplex,
    Tends,
    Theorem,
)

V = dict(x=Reals("V"), w=Index("V"), l=Index("V"))
FREE = V | dict(k=Index("V", distinct=False))


# -- true claims, and how far the proof reaches -------------------------------------------------------------------------

EVERY_SIZE = {
    "identity": stated(lambda p: Equal(dot(p, log(p)) - log(2), kl(p, p * 0 + 2)), p=Simplex("V")),
    "between arrays": stated(lambda x, a: Equal(softmax(x + a), softmax(x)), x=Reals("V"), a=Real()),
    "bound with a slack": stated(
        lambda a, b: AtMost(2 * a * b, a**2 + b**2, slack=(a - b) ** 2), a=Real(), b=Real()
    ),
    "bound by its own form": stated(lambda p, q: AtMost(dot(p, log(q)), dot(p, log(p))), p=Simplex("V"), q=Simplex("V")),
    "same sign": stated(lambda x, t: SameSign(exp(t * x) * x, x, exp(t * x)), x=Real(), t=Real()),
    "under a premise": stated(lambda a, t: Given(a, then=NonNegative(a * t)), a=Real(), t=Positive()),
    "four indices and an array": stated(
        lambda x, i, j, k, l: Equal(softmax(x + x[i] + x[j] - x[k] - x[l]), softmax(x)),
        x=Reals("V"), i=Index("V"), j=Index("V"), k=Index("V"), l=Index("V"),
    ),
    "an index that may coincide": stated(
        lambda x, w, l, k: Equal(dot(onehot(w, x) + onehot(k, x), x * onehot(k, x)) - x[k], x[w] * onehot(w, x)[k]),
        **FREE,
    ),
    "trivial only where indices coincide": stated(
        lambda x, j, k: Equal(onehot(j, x)[k] * x[j], onehot(j, x)[k] * x[k]),
        x=Reals("V"), j=Index("V", distinct=False), k=Index("V", distinct=False),
    ),
    "a flow": stated(lambda x, w, l: Conserved(lambda z: z[w] + z[l], lambda z: onehot(w, z) - onehot(l, z), at=x), **V),
}  # fmt: skip
SIZES = {
    "known size": stated(lambda a, b: LargestIs(stack(a, a - b), a, stack(0, b), at=0), a=Real(), b=Positive()),
    "arrays of premises": stated(lambda x: Given(x, then=NonNegative(stack(2 * x[0], x[1]))), x=Reals("V")),
    "an index that may coincide": stated(
        lambda x, w, l, k: Equal(stack(dot(onehot(w, x) + onehot(k, x), onehot(k, x))), stack(1 + onehot(w, x)[k])), **FREE
    ),
    "an element from the end": stated(lambda x: Equal(total(onehot(1, x) * x + x) - x[1], x[-1] + total(x) - x[-1]), x=Reals("V")),
}  # fmt: skip
BEYOND = {
    "hinges of both signs": stated(lambda a: Equal(relu(a) - relu(-a), a + 0 * a), a=Real()),
    "a bound without its slack": stated(lambda a: AtMost(a, exp(a) - 1), a=Real()),
    "off by less than can be seen": stated(lambda a: Equal(a * (1 + sp.Rational(1, 10**17)), a), a=Real())
    if False
    else stated(lambda a: AtMost(log(1 + a), a), a=Positive()),
}


@pytest.mark.parametrize("what", EVERY_SIZE)
def test_true_claim_is_proved_at_every_size(what):
    assert prove(EVERY_SIZE[what]) == Proved()


@pytest.mark.parametrize("what", SIZES)
def test_claim_without_a_sizefree_reading_is_proved_at_three_sizes(what):
    assert prove(SIZES[what]) == Proved((2, 3, 4))


@pytest.mark.parametrize("what", BEYOND)
def test_true_claim_beyond_the_rules_is_checked_not_proved(what):
    found = prove(BEYOND[what])
    assert isinstance(found, Checked) and found.points == 64 and not holds(BEYOND[what], found)


# -- false claims ------------------------------------------------------------------------------------------------------


def pushed(b):
    """Zero at b with slope 0, and again the slope that factor b / 10 has at 2 b, but negative there."""
    return lambda x: (x - b) ** 3 / 3 - 9 * b * (x - b) ** 2 / 20


FALSE = {
    "not linear": stated(lambda x: Equal(exp(2 * x), 2 * exp(x)), x=Real()),
    "at one element only": stated(lambda x, w: Equal(x * onehot(w, x), x), x=Reals("V"), w=Index("V")),
    "where an index coincides": stated(
        lambda x, j, k: Equal(onehot(j, x)[k] + x[j], x[j]),
        x=Reals("V"), j=Index("V", distinct=False), k=Index("V", distinct=False),
    ),
    "where an index does not coincide": stated(lambda x, w, l, k: Equal((onehot(w, x) + onehot(l, x))[k], 1), **FREE),
    "the same, at known sizes": stated(
        lambda x, w, l, k: Equal(stack((onehot(w, x) + onehot(l, x))[k], 1), stack(1, 1)), **FREE
    ),
    "named like an element": stated(lambda h, h0: Equal(stack(h[0], 1), stack(h0, 1)), h=Reals("d"), h0=Real()),
    "the last element is no other": stated(lambda x, w: Equal(onehot(w, x)[-1], 0), x=Reals("V"), w=Index("V")),
    "transposed": stated(lambda A, x: Equal(A @ x, x @ A), A=Reals("V", "V"), x=Reals("V")),
    "a product of matrices, elementwise": stated(lambda A, B: Equal(A @ B, A * B), A=Reals("V", "V"), B=Reals("V", "V")),
    "factor may be 0": stated(lambda x, y: SameSign(x * ((y + 1) ** 2 - 1 - 2 * y), x, y**2), x=Real(), y=Real()),
    "factor may be negative": stated(lambda x, y: SameSign(x * y * (y + 1) - x * y, x, y**2), x=Real(), y=Real()),
    "slack of either sign": stated(lambda x, y: AtMost(x, y, slack=y - x), x=Real(), y=Real()),
    "divergence of no law": stated(lambda u, q: NonNegative(kl(u, q)), u=Positives("V"), q=Simplex("V")),
    "bowl upside down": stated(lambda x, y: Bowl(lambda z: (z - y) ** 2, lambda z: 0 * z, x, y, lambda z: -2 + 0 * z), x=Real(), y=Real()),
    "bowl of a slope right at one point": stated(lambda b: Bowl(lambda x: 0 * x, pushed(b), 2 * b, b, lambda x: b / 10), b=Positive()),
    "a flow that moves it": stated(lambda x, w: Conserved(lambda z: z[w], lambda z: onehot(w, z), at=x), x=Reals("V"), w=Index("V")),
    "logarithm of a square": stated(lambda x: Equal(log(x**2), 2 * log(x)), x=Real()),
    "root of a square": stated(lambda x: Equal(sqrt(x**2), x), x=Real()),
    "bound outside its domain": stated(lambda x: AtMost(log(x), x - 2), x=Real()),
    "pole": stated(lambda x, y: AtMost(1 / (x - y), 0 * x), x=Real(), y=Real()),
    "limit a little off": stated(lambda x: Tends(lambda t: x + t, 0, x + 1 / 2000), expect="checked", x=Positive()),
    "limit of 0 missed": stated(lambda x: Tends(lambda t: t + 1 / 10000, 0, 0 * x), expect="checked", x=Positive()),
    "finite where it should grow": stated(lambda x: Tends(lambda t: x - t, 0, "oo"), expect="checked", x=Positive()),
    "another rate": stated(lambda k: Rate(k * jnp.arange(1.0, 9), jnp.arange(1.0, 9) ** 2, 2.1, 0.05), expect="checked", k=Positive()),
}  # fmt: skip


@pytest.mark.parametrize("what", FALSE)
def test_false_claim_is_never_passed(what):
    found = prove(FALSE[what])
    assert isinstance(found, Refuted | Undecided), str(found)
    assert not holds(FALSE[what], found)


@pytest.mark.parametrize("what", ["pole", "root of a square", "not linear", "at one element only"])
def test_false_claim_is_refuted_where_a_rational_counterexample_exists(what):
    found = prove(FALSE[what])
    assert isinstance(found, Refuted)
    assert counterexample_on_arrays(FALSE[what], found).excess > 1


def test_index_on_the_wrong_axis_is_an_error_not_a_claim():
    wrong = stated(lambda x, h, w: Equal(total(onehot(w, h)), 1), x=Reals("V"), h=Reals("d"), w=Index("V"))
    with pytest.raises(ValueError, match="does not run on axis 'd'"):
        prove(wrong)


def test_premises_of_one_relation_are_not_shared_with_others():
    pooled = stated(lambda x: All(Given(x, then=NonNegative(x)), NonNegative(x**3)), x=Real())
    with pytest.raises(ValueError, match="put Given around All"):
        prove(pooled)


# -- counterexamples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "counterexample", "sides"),
    [
        (stated(lambda x, y: AtMost(x * y, x), x=Positive(), y=Positive()), {"x": "1", "y": "2"}, ("2", "1")),
        (stated(lambda x: Equal(x**2, x), x=Positive()), {"x": "2"}, ("4", "2")),
        (stated(lambda p, w: AtMost(2 * p[w], 1), p=Simplex("V"), w=Index("V")), None, ("4/3", "1")),
        (stated(lambda x: Given(x - 3, then=AtMost(x, 2)), x=Positive()), {"x": "3"}, ("3", "2")),
        (stated(lambda x, w: Equal(total(x), x[w]), x=Reals("V"), w=Index("V")), None, None),
    ],
)
def test_counterexample_is_simple_and_exact(claim, counterexample, sides):
    found = prove(claim)
    assert isinstance(found, Refuted)
    assert counterexample is None or found.counterexample == counterexample
    assert sides is None or (found.lhs, found.rhs) == sides


def test_counterexample_of_arrays_has_few_and_small_elements():
    found = prove(stated(lambda x, w: Equal(total(x), x[w]), x=Reals("V"), w=Index("V")))
    assert isinstance(found, Refuted) and found.counterexample["x"] in {"(0, 1)", "(1, 0)", "(0, -1)", "(-1, 0)"}
    assert str(found).startswith("refuted (x=(")


def test_given_witness_is_taken_as_it_is():
    claim = stated(
        lambda x, y: AtMost(x * y, x), expect="refuted", witness={"x": 5, "y": 7}, x=Positive(), y=Positive()
    )
    assert prove(claim) == Refuted({"x": "5", "y": "7"}, "35", "5")


def test_witness_that_does_not_violate_the_claim_refutes_nothing():
    claim = stated(
        lambda x, y: AtMost(x * y, x), expect="refuted", witness={"x": 5, "y": 1}, x=Positive(), y=Positive()
    )
    assert prove(claim) == Undecided("no counterexample found")


@pytest.mark.parametrize(
    "claim",
    [
        stated(lambda x: AtMost(0, x), expect="refuted", x=Positive()),
        stated(lambda x: Given(-x, then=AtMost(x, 0)), expect="refuted", x=Positive()),
    ],
)
def test_no_counterexample_to_a_true_or_vacuous_claim(claim):
    assert prove(claim) == Undecided("no counterexample found")


def test_vacuous_claim_is_not_checked():
    claim = stated(lambda x: Given(-x, then=AtMost(x, 0)), expect="checked", x=Positive())
    assert prove(claim) == Undecided("no random point meets the premises")


# -- what is expected --------------------------------------------------------------------------------------------------


def test_expectations_accept_the_verdict_or_a_better_one():
    verdicts = (Proved(), Proved((2,)), Checked(64, 12), Refuted({}, "", ""), Undecided("why"))
    accepted = {"proved": (1, 1, 0, 0, 0), "checked": (1, 1, 1, 0, 0), "refuted": (0, 0, 0, 1, 0)}
    for expect, flags in accepted.items():
        claim = stated(lambda x: Equal(x, x), expect=expect, x=Real())
        assert tuple(map(int, (holds(claim, v) for v in verdicts))) == flags


def test_verdicts_read_well():
    said = [
        str(v) for v in (Proved(), Proved((2, 3)), Checked(64, 12), Undecided("why"), Refuted({"x": "1"}, "2", "3"))
    ]
    assert said == [
        "proved (every size)", "proved (sizes 2, 3)", "checked (64 points, 12 digits)", "undecided (why)",
        "refuted (x=1: 2 against 3)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "claim",
    [
        stated(lambda x: Equal(x, x), x=Real()),
        stated(lambda x: Equal(softmax(x), exp(log_softmax(x))), x=Reals("V")),
        stated(lambda x, y: SameSign(x * y, y, x), x=Positive(), y=Real()),
        stated(lambda x: AtMost(x, x), x=Real()),
    ],
)
def test_claim_with_equal_sides_is_empty(claim):
    with pytest.raises(EmptyClaim, match="both sides are the same expression"):
        prove(claim)


# -- limits ------------------------------------------------------------------------------------------------------------

SLOW = stated(lambda x: Equal(total(softmax(x) ** 2 * softmax(-x)) * 0 + softmax(x), softmax(x + 1)), x=Reals("V"))


def test_no_answer_in_time_is_undecided_and_the_clock_is_put_back():
    before = signal.getsignal(signal.SIGALRM)
    assert prove(SLOW, seconds=1e-4) == Undecided("no answer within 0.0001 s")
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_too_deep_an_expression_is_undecided():
    def tower(x):
        for _ in range(3000):
            x = exp(-x)
        return NonNegative(x)

    assert prove(stated(tower, x=Real())) == Undecided("expression too deep")


def test_prover_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(prove(EVERY_SIZE["bound with a slack"])))
    thread.start()
    thread.join()
    assert found == [Proved()]


# -- planted errors ----------------------------------------------------------------------------------------------------

MISTAKES = {
    "as it is": (lambda p, w, l: 1 - dot(p, p) + 2 * p[l], Proved),
    "sign": (lambda p, w, l: 1 + dot(p, p) + 2 * p[l], Refuted),
    "factor": (lambda p, w, l: 1 - dot(p, p) + p[l], Refuted),
    "exchanged": (lambda p, w, l: 1 - dot(p, p) + 2 * p[w], Refuted),
    "axis": (lambda p, w, l: mean(p) * 0 + 1 - total(p) ** 2 + 2 * p[l], Refuted),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_in_a_true_theorem_is_refuted(mistake):
    """One tabular token: the inner product of two gradients is at most half of the first's square."""
    slack, verdict = MISTAKES[mistake]

    def factor_two(p, w, l):
        chosen, rejected = onehot(w, p) - p, onehot(l, p) - p
        return AtMost(2 * dot(chosen, rejected), dot(chosen, chosen), slack=slack(p, w, l))

    assert isinstance(prove(stated(factor_two, p=Simplex("V"), w=Index("V"), l=Index("V"))), verdict)


def kinds(expr: sp.Expr) -> set[str]:
    return {what.split()[0] if "exchanged" not in what else "exchanged" for what, _ in mutants(expr)}


def test_each_kind_of_error_is_planted():
    i = sp.Dummy("i@V", integer=True)
    from sandbox.algebra.sizefree import Divergence

    assert kinds(a + b) == {"sign", "doubled"}
    assert kinds(3 * a * b) == {"without", "doubled"}
    assert kinds(x[w] - x[l]) == {"sign", "exchanged", "doubled", "without"} - {"without"}
    assert kinds(Divergence(sp.Tuple(p.at(i), q.at(i)), i)) == {"divergence", "doubled"}
    assert kinds(DivergenceOf(t, 1 - t, a, 1 - a)) >= {"divergence", "sign", "doubled"}
    assert {str(m) for _, m in mutants(exp_of(a * b + 1))} >= {
        "exp(a*b - 1)",
        "exp(1 - a*b)",
        "exp(a + 1)",
        "2*exp(a*b + 1)",
    }


def exp_of(expr: sp.Expr) -> sp.Expr:
    return sp.exp(expr)


def test_no_planted_error_is_the_expression_itself_or_twice_the_same():
    expr = a * x[w] + b * x[l] - sp.exp(a * b)
    found = [m for _, m in mutants(expr)]
    assert expr not in found and len(found) == len(set(found))


def test_planted_errors_are_counted():
    found = plant(EVERY_SIZE["bound with a slack"])
    assert found is not None and found.survivors == () and found.planted == found.killed >= 6


def test_true_mutant_is_recognised_as_equivalent():
    """(a - b)^2 = (b - a)^2: the exchange of two indices in it plants no error."""
    found = plant(stated(lambda x, w, l: Equal((x[w] - x[l]) ** 2, x[w] ** 2 + x[l] ** 2 - 2 * x[w] * x[l]), **V))
    assert found is not None and found.equivalent >= 2 and found.survivors == () and found.killed >= 4


def test_errors_behind_a_kink_are_caught():
    found = plant(stated(lambda a, b: Equal(relu(a * b), a * b * step(a * b)), a=Real(), b=Real()))
    assert found is not None and found.survivors == () and found.killed >= 4


@pytest.mark.parametrize(
    "claim",
    [
        stated(lambda a, b: NonNegative(stack(a**2, b**2)), a=Real(), b=Real()),
        stated(lambda a: NonNegative(a**2), a=Real()),
        stated(lambda k: Rate(k * jnp.arange(1.0, 9), jnp.arange(1.0, 9), 1, 0.05), expect="checked", k=Positive()),
    ],
)
def test_nothing_is_planted_without_an_equality_or_a_sizefree_reading(claim):
    assert plant(claim) is None


def test_blind_statement_shows_its_survivors():
    """With the kink out of reach of every draw, nothing tells the factor under the hinge from its mutants."""
    blind = stated(lambda a, b: Equal(relu(-a - b - 1) * b, 0 * a), a=Positive(), b=Positive())
    found = plant(blind)
    assert isinstance(found, Planted) and (found.survivors or found.equivalent)


def test_flow_margin_statement_is_proved_and_its_errors_caught():
    claim: Theorem = stated(lambda s: Equal(flow_margin(s) + exp(flow_margin(s)), s), s=Real())
    found = plant(claim)
    assert prove(claim) == Proved() and found is not None and found.survivors == ()


def test_arrays_are_read_in_the_precision_in_force():
    assert jnp.result_type(float) == (jnp.float64 if jax.config.jax_enable_x64 else jnp.float32)
