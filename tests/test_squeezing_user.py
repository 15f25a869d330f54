"""A user's .npz of logits and rejected ids: what is read out of it, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from experiments.squeezing.__main__ import EXPERIMENT
from experiments.squeezing.setup import Setup
from experiments.squeezing.user import User, diagnosis, example, notes, table
from tests.tolerances import Tolerance, assert_close

CLOSE = Tolerance(1e-4, 1e-5, "sums in float32")
TABLE = np.array([[0.5, 0.3, 0.15, 0.05], [0.5, 0.3, 0.15, 0.05], [0.96, 0.02, 0.01, 0.01]])


@pytest.fixture
def npz(tmp_path):
    def npz(**arrays):
        np.savez(tmp_path / "l.npz", **arrays)
        return tmp_path / "l.npz"

    return npz


@pytest.fixture
def run(command):
    return partial(command, EXPERIMENT)


def test_three_tokens_by_hand(npz):
    """The last of (.5, .3, .15, .05) with one winner, the first with three; a sharp law, where the rule speaks."""
    path = npz(logits=np.log(TABLE) + 3, rejected=np.array([3, 0, 2]))
    record = diagnosis(Setup(impulse=1.0), User(logits=path))
    rare, peak, sharp = record["rows"]
    assert_close([rare["threshold"], rare["small_threshold"]], [0.3527184530, 0.315], CLOSE)
    assert (rare["winner_ids"], rare["receiver"], rare["majority"]) == ([0], 0, False)
    assert (peak["winner_ids"], peak["receiver"], peak["sft_advised"]) == ([1, 2, 3], 1, False)
    assert sharp["majority"] and sharp["winner_ids"] == [0]
    assert record["sft_advised"] == [0, 2]
    p = TABLE[0]
    after = p * np.exp(p - np.eye(4)[3])
    change = after / after.sum() - p
    assert_close(rare["gain"], change[0], CLOSE)
    assert_close([rare["paid_by_rejected"], rare["paid_by_innocents"]], [-change[3], -change[1] - change[2]], CLOSE)
    for row in (rare, sharp):  # one winner gets all that is paid
        assert_close(row["gain"], row["paid_by_rejected"] + row["paid_by_innocents"], CLOSE)


def test_what_fine_tuning_first_would_do(npz):
    """After sft_time of it, in small steps, nobody else loses: |p|^2 = p_rejected."""
    record = diagnosis(Setup(), User(logits=npz(logits=np.log(TABLE), rejected=np.array([3, 0, 2]))))
    z, steps = np.log(TABLE[0]), 4000
    for _ in range(steps):
        p = np.exp(z - z.max())
        p /= p.sum()
        z = z + record["rows"][0]["sft_time"] / steps * (np.eye(4)[3] - p)
    p = np.exp(z) / np.exp(z).sum()
    assert_close(p @ p, p[3], Tolerance(0, 1e-3, "4,000 steps of Euler's method"))
    assert record["rows"][1]["sft_time"] == 0


def test_longer_steps_have_fewer_winners(npz):
    path = npz(logits=np.log(TABLE), rejected=np.array([0, 0, 0]))
    counts = [diagnosis(Setup(impulse=s), User(logits=path))["rows"][0]["winners"] for s in (1.0, 5.0, 50.0)]
    assert counts == [3, 2, 1]


def test_rows_beyond_one_chunk_and_other_kinds_of_numbers(npz, monkeypatch):
    from experiments.squeezing import user

    arrays = example()
    whole = diagnosis(Setup(), User(logits=Path("example")))
    monkeypatch.setattr(user, "CHUNK", 5 * 50)  # 12 rows in chunks of 5
    path = npz(logits=arrays["logits"], rejected=arrays["rejected"].astype("float32"))
    parts = diagnosis(Setup(), User(logits=path))
    assert [row["receiver"] for row in parts["rows"]] == [row["receiver"] for row in whole["rows"]]
    assert_close([row["gain"] for row in parts["rows"]], [row["gain"] for row in whole["rows"]], CLOSE)
    half = diagnosis(Setup(), User(logits=npz(logits=arrays["logits"].astype("float16"), rejected=arrays["rejected"])))
    assert half["tokens"] == 12


def test_a_rejected_token_that_underflows_has_no_time(npz):
    record = diagnosis(Setup(), User(logits=npz(logits=np.array([[0.0, 1.0, -2000.0]]), rejected=np.array([2]))))
    assert record["rows"][0]["sft_time"] is None and record["rows"][0]["sft_advised"]


def test_the_command_line(run, tmp_path):
    status, found, out, err = run("--logits", "example", "--impulse", 2)
    assert (status, err) == (0, "")
    user = found["user"]
    assert user["given"] == {"logits": "example"} and user["impulse"] == 2
    assert len(user["rows"]) == user["tokens"] == 12 and user["vocabulary"] == 50
    assert (tmp_path / "out" / "squeezing" / "user.png").is_file()
    assert "12 tokens of a vocabulary of 50" in out and "SFT on the rejected tokens first is advised at" in out
    rows = table(user)
    assert rows[0]["innocents pay"] >= rows[-1]["innocents pay"]
    assert set(user["rows"][0]) == {
        "token", "rejected", "probability", "threshold", "small_threshold", "winners", "winner_ids", "majority",
        "receiver", "gain", "paid_by_rejected", "paid_by_innocents", "sft_advised", "sft_time",
    }  # fmt: skip


def test_advice_where_nobody_pays(npz):
    record = diagnosis(Setup(), User(logits=npz(logits=np.log(TABLE[:1]), rejected=np.array([0]))))
    assert "advised at none" in " ".join(notes(record))


GOOD = {"logits": np.log(TABLE), "rejected": np.array([3, 0, 2])}
HOLE = np.log(TABLE) + np.array([[0, 0, 0, 0], [0, np.nan, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rejected": None}, "no array rejected; it must hold logits and rejected"),
        ({"labels": np.ones(3)}, "unknown: labels"),
        ({"logits": np.log(TABLE)[0]}, "logits (4,): must be (tokens, vocabulary)"),
        ({"logits": np.log(TABLE)[:, :2]}, "logits (3, 2): must be (tokens, vocabulary)"),
        ({"logits": np.zeros((0, 4))}, "logits (0, 4): must be (tokens, vocabulary)"),
        ({"rejected": np.array([3, 0])}, "rejected (2,): must be (3,), one id a row"),
        ({"rejected": np.array([[3], [0], [2]])}, "rejected (3, 1): must be (3,)"),
        ({"logits": HOLE}, "logits[1, 1] = nan: must be finite"),
        ({"logits": np.where(TABLE > 0.9, -np.inf, 0.0)}, "logits[2, 0] = -inf: must be finite"),
        ({"rejected": np.array([3, 4, -1])}, "rejected[1] = 4: must be a whole number from 0 to 3, an id of the"),
        ({"rejected": np.array([3, 0.5, 1])}, "rejected[1] = 0.5: must be a whole number"),
        ({"rejected": np.array([3, np.nan, 1])}, "rejected[1] = nan: must be a whole number"),
        ({"logits": np.array([["a"] * 4] * 3)}, "logits (<U1): must be real numbers"),
    ],
)
def test_arrays_that_are_refused(run, npz, changed, said):
    arrays = {name: x for name, x in {**GOOD, **changed}.items() if x is not None}
    status, found, _, err = run("--logits", npz(**arrays))
    assert (status, found) == (2, None) and said in err
    assert err.count("\n") == 1


def test_files_and_flags_that_are_refused(run, tmp_path):
    (tmp_path / "l.csv").write_text("1,2\n")
    assert "l.csv: not an .npz file" in run("--logits", tmp_path / "l.csv")[3]
    assert "absent.npz" in run("--logits", tmp_path / "absent.npz")[3]
    assert "impulse = 0.0: must be" in run("--logits", "example", "--impulse", 0)[3]
    assert "tokens = 5: must be at least negatives + 3 = 7" in run("--tokens", 5)[3]
    with pytest.raises(ValueError, match="logits: missing"):
        diagnosis(Setup(), User())
