"""The table of weights: that it is complete, that its rows can fail, and numbers that no proof mentions."""

from __future__ import annotations

import inspect
from functools import partial

import pytest

from sandbox import losses
from sandbox.algebra import sigmoid
from sandbox.losses import LOSSES, PairLogProbs, margin_weights
from tests.tolerances import Tolerance, assert_close
from theory.entanglement import facts
from theory.entanglement import losses as table
from theory.proof import Proved, Refuted, prove
from theory.statement import Positive, Source, Theorem

ROWS = {n.removeprefix("weights_of_") for n, x in vars(table).items() if n.startswith("weights_of_")}


def test_every_loss_has_a_row_in_each_of_its_reductions():
    readings = {
        f"{name}_{'mean' if p.default == 'sum' else 'sum'}"
        for name, loss in LOSSES.items()
        for p in inspect.signature(loss).parameters.values()
        if p.name.endswith("reduction")
    }
    assert ROWS == LOSSES.keys() | readings
    assert all(isinstance(getattr(table, f"weights_of_{row}"), Theorem) for row in ROWS)


@pytest.mark.parametrize("row", sorted(ROWS))
def test_the_constants_of_a_row_are_those_of_the_loss(row):
    theorem = getattr(table, f"weights_of_{row}")
    loss = LOSSES.get(row) or LOSSES[row.rpartition("_")[0]]
    expected = [n for n in inspect.signature(loss).parameters if n != "pair" and not n.endswith("reduction")]
    assert [n for n in theorem.domains if n not in {**table.MODEL, **table.LOG_PROBS, **table.LENGTHS}] == expected


# -- rows that are wrong -----------------------------------------------------------------------------------------------


def without_the_lengths(x, beta, gamma):
    """SimPO's sigmoid without the 1/n of the chain rule."""
    d = beta * sigmoid(gamma - beta * (x.A / x.n_w - x.B / x.n_l))
    return d, d


def with_the_ratio_upside_down(x, beta, gamma):
    """SimPO's weights with n_w / n_l for their ratio."""
    d = beta * sigmoid(gamma - beta * (x.A / x.n_w - x.B / x.n_l))
    return d / x.n_w, d / x.n_l, x.n_w / x.n_l


def with_an_equal_ratio(x, beta, lam):
    """CPO's weights, called equal."""
    d = beta * sigmoid(-beta * (x.A - x.B))
    return d + lam, d, 1


def with_one_sigmoid(x, beta):
    """APO-zero's weights as if it were BCO."""
    return beta * sigmoid(-beta * x.r_w), beta * sigmoid(beta * x.r_l)


@pytest.mark.parametrize(
    ("loss", "row", "constants"),
    [
        (losses.simpo, without_the_lengths, ("beta", "gamma")),
        (losses.simpo, with_the_ratio_upside_down, ("beta", "gamma")),
        (losses.cpo, with_an_equal_ratio, ("beta", "lam")),
        (losses.apo_zero, with_one_sigmoid, ("beta",)),
    ],
)
def test_a_wrong_row_is_refuted(loss, row, constants):
    wrong = table.weights(loss, Source("nobody", "nowhere"), "", **{c: Positive() for c in constants})(row)
    assert isinstance(prove(wrong), Refuted)


def test_the_same_row_of_the_right_loss_is_proved():
    right = table.weights(losses.bco, Source("nobody", "nowhere"), "", beta=Positive())(with_one_sigmoid)
    assert prove(right) == Proved()


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("u", "falls_before"), [(-0.118570, True), (0.072006, False)])
def test_discopop_turns_where_it_should(u, falls_before):
    """At its tau of 0.05 the loss has a minimum and a maximum in u = beta h; they are known to six decimals."""

    def slope(u):
        return float(margin_weights(partial(losses.discopop, beta=1.0, tau=0.05), facts.at_margin(u))[0])

    # the curvature at either point is about 10: a unit of the sixth decimal moves the slope by 1e-5
    assert_close(slope(u), 0.0, Tolerance(0, 2e-5, "six decimals of u, times the curvature there"))
    assert (slope(u - 0.01) > 0) == falls_before
    assert (slope(u + 0.01) > 0) != falls_before


def test_the_sign_of_rdpo_decides_who_is_favoured():
    """Two pairs of the same margin: the right sign pushes the one with a longer chosen response less."""

    def push(n_w, n_l):
        pair = PairLogProbs(-6.5, -7.25, -7.0, -7.5, n_w, n_l)
        return float(margin_weights(partial(losses.rdpo, beta=0.3, alpha=0.05), pair)[0])

    assert push(9, 4) < push(4, 4) < push(4, 9)


@pytest.mark.parametrize(("margin", "weight"), [(-1e4, 0.0), (1e4, 0.0), (0.0, 0.3 / 4)])
def test_kto_pushes_only_near_its_reference_point(margin, weight):
    pair = PairLogProbs(margin, -margin, 0.0, 0.0)
    found = margin_weights(partial(losses.kto, beta=0.3, z0=0), pair)
    assert_close(found, (weight, weight))
