"""From a theorem to a verdict: each kind of verdict, counterexamples, and errors planted in true statements."""

from __future__ import annotations

import gc
import signal
import threading
import time

import jax.numpy as jnp
import pytest

from sandbox.algebra import arrays_only, dot, exp, kl, log, onehot, relu, softmax, sqrt, stack, total
from tests.engine import counterexample_on_arrays, stated
from theory.proof import Checked, EmptyClaim, Proved, Refuted, Undecided, _time_limit, holds, prove
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
)

X, XY = dict(x=Real()), dict(x=Real(), y=Real())
T, ST = dict(t=Positive()), dict(s=Positive(), t=Positive())
XW = dict(x=Reals("V"), w=Index("V"))
XWL = XW | dict(l=Index("V"))
XWLK = XWL | dict(k=Index("V", distinct=False))
XJK = dict(x=Reals("V"), j=Index("V", distinct=False), k=Index("V", distinct=False))
PQ = dict(p=Simplex("V"), q=Simplex("V"))


# -- true claims, and how far the proof reaches ------------------------------------------------------------------------

EVERY_SIZE = {
    "identity": stated(lambda x, y: Equal((x + y) ** 2 - (x - y) ** 2, 4 * x * y), **XY),
    "between arrays": stated(lambda x, w: Equal(softmax(x + x[w]), softmax(x)), **XW),
    "bound with a slack": stated(lambda x, y: AtMost(2 * x * y, x**2 + y**2, slack=(x - y) ** 2), **XY),
    "bound by Gibbs": stated(lambda p, q: AtMost(dot(p, log(q)), dot(p, log(p)), slack=kl(p, q)), **PQ),
    "bound by its own form": stated(lambda p, w, l: AtMost(p[w], 1 - p[l]), p=Simplex("V"), w=Index("V"), l=Index("V")),
    "same sign": stated(lambda x, t: SameSign(exp(t) * x - x, x, exp(t) - 1), **X, **T),
    "under a premise": stated(lambda x, t: Given(x, then=NonNegative(x * t)), **X, **T),
    "four indices and an array": stated(
        lambda x, i, j, k, l: Equal(softmax(x + x[i] + x[j] - x[k] - x[l]), softmax(x)),
        x=Reals("V"), i=Index("V"), j=Index("V"), k=Index("V"), l=Index("V"),
    ),
    "an index that may coincide": stated(
        lambda x, w, l, k: Equal(dot(onehot(w, x) + onehot(k, x), x * onehot(k, x)), x[k] + x[w] * onehot(w, x)[k]),
        **XWLK,
    ),
    "trivial only where indices coincide": stated(
        lambda x, j, k: Equal(onehot(j, x)[k] * x[j], onehot(j, x)[k] * x[k]), **XJK
    ),
    "a flow": stated(lambda x, w, l: Conserved(total, lambda z: onehot(w, z) - onehot(l, z), at=x), **XWL),
}  # fmt: skip
SIZES = {
    "known size": stated(lambda x, t: LargestIs(stack(x, x - t), x, stack(0, t), at=0), **X, **T),
    "arrays of premises": stated(lambda x: Given(x, then=NonNegative(stack(2 * x[0], x[1]))), x=Reals("V")),
    "an index that may coincide": stated(
        lambda x, w, l, k: Equal(stack(dot(onehot(w, x) + onehot(k, x), onehot(k, x))), stack(1 + onehot(w, x)[k])),
        **XWLK,
    ),
    "an element from the end": stated(lambda x: Equal(dot(x, x) - dot(x[:-1], x[:-1]), x[-1] ** 2), x=Reals("V")),
}  # fmt: skip
BEYOND = {
    "hinges of both signs": stated(lambda x: Equal(relu(x) - relu(-x), x), **X),
    "a bound without its slack": stated(lambda x: AtMost(x, exp(x) - 1), **X),
    "a logarithm below its argument": stated(lambda t: AtMost(log(1 + t), t), **T),
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
    "not linear": stated(lambda x: Equal(exp(2 * x), 2 * exp(x)), **X),
    "at one element only": stated(lambda x, w: Equal(x * onehot(w, x), x), **XW),
    "where indices coincide": stated(lambda x, j, k: Equal(onehot(j, x)[k] + x[j], x[j]), **XJK),
    "where indices differ": stated(lambda x, w, l, k: Equal((onehot(w, x) + onehot(l, x))[k], 1), **XWLK),
    "where indices differ, at known sizes": stated(
        lambda x, w, l, k: Equal(stack((onehot(w, x) + onehot(l, x))[k], 1), stack(1, 1)), **XWLK
    ),
    "named like an element": stated(lambda h, h0: Equal(stack(h[0], 1), stack(h0, 1)), h=Reals("d"), h0=Real()),
    "the last element is no other": stated(lambda x, w: Equal(onehot(w, x)[-1], 0), **XW),
    "transposed": stated(lambda A, x: Equal(A @ x, x @ A), A=Reals("V", "V"), x=Reals("V")),
    "elementwise product": stated(lambda A, B: Equal(A @ B, A * B), A=Reals("V", "V"), B=Reals("V", "V")),
    "factor may be 0": stated(lambda x, y: SameSign(x * ((y + 1) ** 2 - 1 - 2 * y), x, y**2), **XY),
    "factor may be negative": stated(lambda x, y: SameSign(x * (y + 1) - x, x, y), **XY),
    "slack of either sign": stated(lambda x, y: AtMost(x, y, slack=y - x), **XY),
    "slack of something else": stated(lambda x, y: AtMost(x, y, slack=(y - x) ** 2), **XY),
    "divergence of no law": stated(lambda u, q: NonNegative(kl(u, q)), u=Positives("V"), q=Simplex("V")),
    "bowl upside down": stated(
        lambda x, y: Bowl(lambda z: (z - y) ** 2, lambda z: 0 * z, x, y, lambda z: -2 + 0 * z), **XY
    ),
    "bowl of a slope right at one point": stated(
        lambda t: Bowl(lambda x: 0 * x, pushed(t), 2 * t, t, lambda x: t / 10), **T
    ),
    "a flow that moves it": stated(lambda x, w: Conserved(lambda z: z[w], lambda z: onehot(w, z), at=x), **XW),
    "logarithm of a square": stated(lambda x: Equal(log(x**2), 2 * log(x)), **X),
    "root of a square": stated(lambda x: Equal(sqrt(x**2), x), **X),
    "outside the domain of the logarithm": stated(lambda x: AtMost(log(x), x - 2), **X),
    "pole": stated(lambda x, y: AtMost(1 / (x - y), 0 * x), **XY),
    "limit a little off": stated(lambda t: Tends(lambda x: t + x, 0, t + 1 / 2000), expect="checked", **T),
    "limit of 0 missed": stated(lambda t: Tends(lambda x: x + 1 / 10000, 0, 0 * t), expect="checked", **T),
    "finite where it should grow": stated(lambda t: Tends(lambda x: t - x, 0, "oo"), expect="checked", **T),
    "another rate": stated(
        lambda t: Rate(t * jnp.arange(1.0, 9), jnp.arange(1.0, 9) ** 2, 2.1, 0.05), expect="checked", **T
    ),
}


@pytest.mark.parametrize("what", FALSE)
def test_false_claim_is_never_passed(what):
    found = prove(FALSE[what])
    assert not isinstance(found, Proved) and not holds(FALSE[what], found), str(found)


# no draw of either meets y = 0 exactly; limits and rates have no numbers to show
UNREFUTED = {
    "factor may be 0",
    "limit a little off",
    "limit of 0 missed",
    "finite where it should grow",
    "another rate",
}


@pytest.mark.parametrize("what", sorted(FALSE.keys() - UNREFUTED))
def test_false_claim_is_refuted_by_a_counterexample(what):
    found = prove(FALSE[what])
    assert isinstance(found, Refuted), str(found)
    assert counterexample_on_arrays(FALSE[what], found).excess > 1


def test_index_on_the_wrong_axis_is_an_error_not_a_claim():
    wrong = stated(lambda h, w: Equal(total(onehot(w, h)), 1), h=Reals("d"), w=Index("V"))
    with pytest.raises(ValueError, match="does not run on axis 'd'"):
        prove(wrong)


def test_premises_of_one_relation_are_not_shared_with_others():
    pooled = stated(lambda x: All(Given(x, then=NonNegative(x)), NonNegative(x**3)), **X)
    with pytest.raises(ValueError, match="put Given around All"):
        prove(pooled)


# -- counterexamples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "counterexample", "lhs", "rhs"),
    [
        (stated(lambda s, t: AtMost(s * t, s), **ST), {"s": "1", "t": "2"}, "2", "1"),
        (stated(lambda t: Equal(t**2, t), **T), {"t": "2"}, "4", "2"),
        (stated(lambda t: Given(t - 3, then=AtMost(t, 2)), **T), {"t": "3"}, "3", "2"),
        (stated(lambda p: AtMost(dot(p, p), 1 / 2), p=Simplex("V")), {"p": "(1/3, 2/3)"}, "5/9", "1/2"),
    ],
)
def test_counterexample_is_simple_and_exact(claim, counterexample, lhs, rhs):
    assert prove(claim) == Refuted(counterexample, lhs, rhs)


def test_counterexample_of_arrays_has_few_and_small_elements():
    found = prove(stated(lambda x, w: Equal(total(x), x[w]), **XW))
    assert isinstance(found, Refuted) and found.counterexample["x"] in {"(0, 1)", "(1, 0)", "(0, -1)", "(-1, 0)"}
    assert str(found).startswith("refuted (x=(")


def test_given_witness_is_taken_as_it_is():
    claim = stated(lambda s, t: AtMost(s * t, s), expect="refuted", witness={"s": 5, "t": 7}, **ST)
    assert prove(claim) == Refuted({"s": "5", "t": "7"}, "35", "5")


def test_witness_that_does_not_violate_the_claim_refutes_nothing():
    claim = stated(lambda s, t: AtMost(s * t, s), expect="refuted", witness={"s": 5, "t": 1}, **ST)
    assert prove(claim) == Undecided("no counterexample found")


@pytest.mark.parametrize("claim", [lambda t: AtMost(0, t), lambda t: Given(-t, then=AtMost(t, 0))])
def test_no_counterexample_to_a_true_or_vacuous_claim(claim):
    assert prove(stated(claim, expect="refuted", **T)) == Undecided("no counterexample found")


def test_vacuous_claim_is_not_checked():
    claim = stated(lambda t: Given(-t, then=AtMost(t, 0)), expect="checked", **T)
    assert prove(claim) == Undecided("no random point meets the premises")


# -- what is expected --------------------------------------------------------------------------------------------------


def test_expectations_accept_the_verdict_or_a_better_one():
    verdicts = (Proved(), Proved((2,)), Checked(64, 12), Refuted({}, "", ""), Undecided("why"))
    accepted = {"proved": (1, 1, 0, 0, 0), "checked": (1, 1, 1, 0, 0), "refuted": (0, 0, 0, 1, 0)}
    for expect, flags in accepted.items():
        claim = stated(lambda x: Equal(x, x), expect=expect, **X)
        assert tuple(map(int, (holds(claim, v) for v in verdicts))) == flags


def test_verdicts_read_well():
    said = [
        str(v) for v in (Proved(), Proved((2, 3)), Checked(64, 12), Undecided("why"), Refuted({"x": "1"}, "2", "3"))
    ]
    assert said == [
        "proved (every size)", "proved (sizes 2, 3)", "checked (64 points, 12 digits)", "undecided (why)",
        "refuted (x=1: 2 against 3)",
    ]  # fmt: skip


def test_a_claim_with_one_equality_that_says_something_is_not_empty():
    claim = stated(lambda x: All(Equal(x + 1, 1 + x), Equal((x + 1) ** 2, x**2 + 2 * x + 1)), **X)
    assert prove(claim) == Proved()


@pytest.mark.parametrize(
    "claim",
    [
        stated(lambda x: All(Equal(x + 1, 1 + x), Equal(x, x)), **X),
        stated(lambda x: Equal(x + 1, 1 + x), **X),
        stated(lambda x: Equal(exp(x), exp(x)), x=Reals("V")),
        stated(lambda s, t: SameSign(s * t, t, s), **ST),
        stated(lambda x: AtMost(x, x), **X),
    ],
)
def test_claim_with_equal_sides_is_empty(claim):
    with pytest.raises(EmptyClaim, match="both sides are the same expression"):
        prove(claim)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_no_answer_in_time_is_undecided_and_the_clock_is_put_back():
    before = signal.getsignal(signal.SIGPROF)
    assert prove(EVERY_SIZE["four indices and an array"], seconds=1e-4) == Undecided("no answer within 0.0001 s")
    assert signal.getsignal(signal.SIGPROF) is before and signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def busy(seconds):
    """Use that much processor time."""
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


def test_the_time_limit_is_one_of_processor_time():
    with _time_limit(0.2):
        time.sleep(0.5)
    with pytest.raises(TimeoutError), _time_limit(0.1):
        busy(60)


def test_a_time_limit_that_ends_in_a_callback_of_the_collector_is_not_lost():
    """An error raised there would be printed and forgotten."""
    calls = []

    def callback(phase, info):
        calls.append(phase)
        busy(0.3)

    def collect():
        gc.collect()
        busy(60)

    gc.callbacks.append(callback)
    try:
        with pytest.raises(TimeoutError), _time_limit(0.1):
            collect()
    finally:
        gc.callbacks.remove(callback)
    assert calls[:2] == ["start", "stop"]


def test_too_deep_an_expression_is_undecided():
    def tower(x):
        for _ in range(3000):
            x = exp(-x)
        return NonNegative(x)

    assert prove(stated(tower, **X)) == Undecided("expression too deep")


def test_a_false_claim_that_only_arrays_can_show_is_undecided():
    def squares(x):
        arrays_only("an integral")
        return Equal(x**2, x)

    found = prove(stated(squares, expect="checked", **X))
    assert isinstance(found, Undecided) and found.reason.startswith("off by ")


class Slow:
    """In a cycle, so that only the collector takes it; it takes its time to go."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        busy(0.3)


def test_a_time_limit_that_ends_in_a_finaliser_is_not_lost():
    def collect():
        Slow()
        gc.collect()
        busy(60)

    with pytest.raises(TimeoutError), _time_limit(0.1):
        collect()
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def test_prover_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(prove(EVERY_SIZE["bound with a slack"])))
    thread.start()
    thread.join()
    assert found == [Proved()]
