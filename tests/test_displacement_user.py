"""A user's hidden states: CHES and the exact quantity of each pair, which are dropped, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.displacement.__main__ import EXPERIMENT
from experiments.displacement.user import User, diagnosis, example, notes, table
from sandbox.measures import ches, first_order_fall
from sandbox.policies import Tied, tied_pair_gram
from tests.tolerances import assert_close

# Four tokens and W = 0: pair P, pair Q, and the pair that falls below a CHES of 0 (C11), the last two padded.
CHOSEN = np.array([[[1, 0], [0, 1.0], [0, 0]]] * 3)
REJECTED = np.array([[[1, 0], [0, 1.0]], [[1, 0], [0, 2]], [[1, 0], [-5, 4]]])
PAIRS = dict(chosen=CHOSEN, rejected=REJECTED, chosen_length=[2, 2, 2], rejected_length=[2, 2, 2])
TOKENS = dict(unembedding=np.zeros((4, 2)), chosen_tokens=[[0, 1, -100]] * 3, rejected_tokens=[[2, 3], [2, 3], [2, 1]])


@pytest.fixture
def npz(tmp_path):
    def npz(**arrays):
        np.savez(tmp_path / "h.npz", **arrays)
        return tmp_path / "h.npz"

    return npz


@pytest.fixture
def run(command):
    return partial(command, EXPERIMENT)


def test_three_pairs_by_hand(npz, run):
    status, found, *_ = run("--hidden", npz(**PAIRS, **TOKENS))
    assert status == 0
    pairs = found["user"]["pairs"]
    assert [pair["id"] for pair in pairs] == [0, 1, 2] and found["user"]["drop"] == [2]
    assert_close([pair["ches"] for pair in pairs], [0, 1, -2])
    assert_close([pair["ches_length_normalised"] for pair in pairs], [0, 0.25, -0.5])
    assert_close([pair["exact"] for pair in pairs], [-2, -2.25, 2.5])
    assert {*pairs[0]} == {"id", "ches", "ches_length_normalised", "exact"}


def test_without_tokens_exact_is_null_and_the_lowest_are_kept(npz, run):
    status, found, out, _ = run("--hidden", npz(**PAIRS), "--keep", 0.4)
    assert status == 0 and [pair["exact"] for pair in found["user"]["pairs"]] == [None] * 3
    assert found["user"]["drop"] == [0, 1] and "needs unembedding" in out
    record = diagnosis(User(hidden=npz(**PAIRS, unembedding=np.zeros((4, 2))), keep=0.67))
    assert record["drop"] == [1] and record["pairs"][0]["exact"] is None


def test_example_against_each_pair_alone():
    arrays, record = example(), diagnosis(User(hidden=Path("example")))
    states = [jnp.asarray(arrays[n]) for n in ("chosen", "rejected", "chosen_length", "rejected_length")]
    assert_close([pair["ches"] for pair in record["pairs"]], ches(*states))
    hidden = jnp.stack([states[0], states[1]], axis=1)
    tokens = jnp.stack([jnp.asarray(arrays[f"{side}_tokens"]) for side in ("chosen", "rejected")], axis=1)
    mask = jnp.arange(5)[None, None, :] < jnp.stack(states[2:], axis=1)[..., None]
    exact = first_order_fall(tied_pair_gram(Tied(jnp.asarray(arrays["unembedding"]), hidden), tokens, mask))
    assert_close([pair["exact"] for pair in record["pairs"]], exact)
    assert record["drop"] == np.flatnonzero(exact > 0).tolist() != []
    assert record["first_rows_differ"] == 0 and len(table(record)) == 20
    assert any("follows the difference of the lengths" in line for line in notes(record))


def test_logits_with_a_bias_are_read(npz):
    bias = np.array([3.0, 0, 0, 0])
    logits = {f"{side}_logits": np.broadcast_to(bias, (*PAIRS[side].shape[:2], 4)) for side in ("chosen", "rejected")}
    plain = diagnosis(User(hidden=npz(**PAIRS, **TOKENS)))
    tilted = diagnosis(User(hidden=npz(**PAIRS, **TOKENS, **logits)))
    p = np.asarray(jax.nn.softmax(jnp.asarray(bias)))
    first, second = np.eye(4)[0] - p, np.eye(4)[1] - p  # P: h1 = (1, 0), h2 = (0, 1) for both
    rise = first @ (first - (np.eye(4)[2] - p)) + second @ (second - (np.eye(4)[3] - p))
    assert_close(tilted["pairs"][0]["exact"], -rise)
    assert abs(tilted["pairs"][0]["exact"] - plain["pairs"][0]["exact"]) > 0.1


def test_first_rows_that_differ_are_noted(npz):
    shifted = REJECTED + np.array([0, 1.0])
    record = diagnosis(User(hidden=npz(**{**PAIRS, "rejected": shifted})))
    assert record["first_rows_differ"] == 3 and any("last position of the prompt" in line for line in notes(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(chosen=CHOSEN[:, 0]), "chosen has shape (3, 2): must be (any, any, any)"),
        (dict(rejected=REJECTED[:2]), "rejected has shape (2, 2, 2): must be (3, any, 2)"),
        (dict(rejected=REJECTED[..., :1]), "rejected has shape (3, 2, 1): must be (3, any, 2)"),
        (dict(chosen_length=[2, 2]), "chosen_length has shape (2,): must be (3)"),
        (dict(chosen_length=[2, 4, 2]), "chosen_length[1] = 4: must be a whole number from 1 to 3"),
        (dict(rejected_length=[2, 3, 2]), "rejected_length[1] = 3: must be a whole number from 1 to 2"),
        (dict(rejected_length=[0, 1, 2]), "rejected_length[0] = 0: must be a whole number from 1"),
        (dict(chosen=np.where(CHOSEN == 1, np.nan, CHOSEN)), "chosen[0, 0, 0] = nan: must be finite"),
        (dict(unembedding=np.zeros((4, 3))), "unembedding has shape (4, 3): must be (any, 2)"),
        (dict(chosen_tokens=[[0, 4, 0]] * 3), "chosen_tokens[0, 1] = 4: must be a token id below 4"),
        (dict(chosen_tokens=[[0, 1]] * 3), "chosen_tokens has shape (3, 2): must be (3, 3)"),
        (dict(chosen_logits=np.zeros((3, 3, 5))), "chosen_logits has shape (3, 3, 5): must be (3, 3, 4)"),
        (dict(states=np.zeros(2)), "unknown: states; it must hold chosen, rejected"),
    ],
)
def test_refused(npz, run, change, message):
    status, found, _, error = run("--hidden", npz(**{**PAIRS, **TOKENS, **change}))
    assert status == 2 and found is None and message in " ".join(error.split())


def test_missing_arrays_and_a_bad_share(npz, run):
    status, _, _, error = run("--hidden", npz(chosen=CHOSEN))
    assert status == 2 and "no array rejected, chosen_length, rejected_length" in " ".join(error.split())
    status, _, _, error = run("--hidden", npz(**PAIRS), "--keep", 1)
    assert status == 2 and "keep" in error
