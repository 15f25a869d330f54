"""A user's CSV of log-probabilities: what is said of it, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from experiments.preference_rankings.__main__ import EXPERIMENT
from experiments.preference_rankings._data import read
from experiments.preference_rankings.user import BETAS, EXAMPLE, User, diagnosis, notes
from tests.tolerances import Tolerance, assert_close

HEADER = "chosen,rejected,ref_chosen,ref_rejected"
LONG = HEADER + ",chosen_length,rejected_length,votes"
SIX = Tolerance(1e-5, 1e-5, "six digits are recorded; float32")


@pytest.fixture
def csv(tmp_path):
    def csv(*lines, name="pairs.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / name

    return csv


@pytest.fixture
def run(command):
    return partial(command, EXPERIMENT)


def test_three_pairs_by_hand(csv):
    """Wrong by 4 nats and turned; wrong by 10 nats and still so; right by 3 nats and unlearned."""
    path = csv(LONG, "-10,-12,-14,-10,10,12,0.75", "-30,-25,-30,-20,20,30,1", "", "-12,-11,-9,-12,10,10,0.5")
    record = diagnosis(User(pairs=path), beta=0.5)
    assert record["groups"] == {"right_right": 0, "wrong_right": 1, "right_wrong": 1, "wrong_wrong": 1}
    accuracy = record["accuracy"]
    assert_close([accuracy[n] for n in ("ranking", "reward", "reference")], [1 / 3, 2 / 3, 1 / 3], SIX)
    assert_close([accuracy[n] for n in ("ranking_per_token", "reference_per_token")], [1 / 3, 1 / 3], SIX)
    assert [pair["line"] for pair in record["pairs"]] == [3, 2, 5], "the hardest first, by its line in the file"
    hard, turned, right = record["pairs"]
    assert (hard["ranking"], turned["ranking"], right["ranking"]) == (
        "stays wrong", "wrong, now right", "right, now wrong",
    )  # fmt: skip
    assert right["flip_time"] is right["critical_beta"] is right["best_beta"] is None
    assert_close([turned["error"], turned["log_odds"], turned["margin"]], [4, 2, 6], SIX)
    assert_close(turned["loss"], np.log1p(np.exp(-3)), SIX)
    assert_close(turned["loss_needed"], np.log1p(np.exp(-2)), SIX)
    assert_close(turned["flip_time"], (np.exp(2) + 1) / 0.5, SIX)
    assert_close([turned["critical_beta"], hard["critical_beta"]], [np.log(3) / 4, np.log(999) / 10], SIX)
    # tilts at beta = 0.5: 2.2, 13.8 and 0 against errors 4, 10 and -3
    assert_close(record["ideal"]["dpo"], 2 / 3, SIX)
    assert_close(record["ideal"]["ipo"], 1 / 3, SIX)  # targets 2.5, 4.99, 0
    assert_close(record["ideal"]["hinge"], 0, SIX)  # 2 nats, but no majority in the third
    assert record["split_votes"] == 1
    losses = np.log1p(np.exp(-0.5 * np.array([6, 5, -4])))
    assert_close(record["mean_loss"], losses.mean(), SIX)
    needed = np.sort(np.log1p(np.exp(-0.5 * np.array([4, 10, -3]))))
    errors = np.sum(np.cumsum(needed) < losses.sum())
    assert_close(record["accuracy_at_least"], 1 - errors / 3, SIX)
    assert accuracy["ranking"] >= record["accuracy_at_least"]


def test_curve_falls_at_the_critical_betas():
    record = diagnosis(User(pairs=EXAMPLE))
    curve = np.array(record["ideal_curve"]["dpo"])
    assert np.all(np.diff(curve) <= 0)
    critical = np.array([p["critical_beta"] or np.inf for p in record["pairs"]])
    assert_close(curve, [np.mean(critical > beta) for beta in BETAS], SIX)
    right = [(p["loss"] <= p["loss_needed"]) == (p["log_odds"] >= 0) for p in record["pairs"]]
    assert all(right), "C1 on the user's own pairs"


def test_votes_without_a_column(csv):
    path = csv(HEADER, "-10,-12,-14,-10")
    few, many = (diagnosis(User(pairs=path, votes=v), beta=0.4)["ideal"]["dpo"] for v in (0.75, 0.9))
    assert (few, many) == (0, 1)  # tilts 2.7 and 5.5 against an error of 4
    assert "ranking_per_token" not in diagnosis(User(pairs=path))["accuracy"]


def test_large_errors_are_remarked(csv):
    lines = [f"-{40 + k},-20,-{90 + k},-20" for k in range(25)]
    record = diagnosis(User(pairs=csv(HEADER, *lines)))
    said = " ".join(notes(record))
    assert "dwarf 1/beta" in said and "hardest 20 of 25" in said
    assert "dwarf" not in " ".join(notes(diagnosis(User(pairs=EXAMPLE))))


def test_errors_beyond_what_a_float_holds(csv, run):
    status, record, _, _ = run("--pairs", csv(HEADER, "-9000,-2,-9000,-1000"), "--beta", "1")
    (pair,) = record["user"]["pairs"]
    assert status == 0 and pair["flip_time"] == "inf" and pair["loss_needed"] == 0


def test_command_line(run):
    status, record, out, err = run("--pairs", "example", "--beta", "0.2")
    assert (status, err) == (0, "")
    assert record["user"]["beta"] == 0.2 and record["user"]["file"] == "pairs.csv"
    assert len(record["user"]["pairs"]) == record["user"]["count"] == 24
    assert [figure["name"] for figure in record["figures"]] == ["user"]
    assert "24 pairs" in out and "critical" in out


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([HEADER, "-1,-2,-3,-4", "-1,-2,x,-4", "-1,-2,-3"], ["line 3: ref_chosen = 'x'", "line 4: 3 cells"]),
        ([HEADER, "-1,-2,-3,0.5"], ["line 2: ref_rejected = 0.5", "<= 0"]),
        ([HEADER, "-1,nan,-3,-4"], ["line 2: rejected = nan", "finite"]),
        ([HEADER, "-1,-inf,-3,-4"], ["line 2: rejected = -inf", "finite"]),
        ([HEADER, "-1,,-3,-4"], ["line 2: rejected = ''"]),
        ([LONG, "-1,-2,-3,-4,3,0,0.7"], ["line 2: rejected_length = 0", ">= 1"]),
        ([LONG, "-1,-2,-3,-4,3,2.5,0.7"], ["line 2: rejected_length = 2.5", "whole"]),
        ([LONG, "-1,-2,-3,-4,3,2,0.4"], ["line 2: votes = 0.4", "0.5 to 1"]),
        ([LONG, "-1,-2,-3,-4,3,2,75"], ["line 2: votes = 75"]),
        (["chosen,rejected", "-1,-2"], ["no column ref_chosen, ref_rejected"]),
        ([HEADER + ",chosen", "-1,-2,-3,-4,-5"], ["twice chosen"]),
        ([HEADER + ",chosen_length", "-1,-2,-3,-4,5"], ["chosen_length alone"]),
        ([HEADER], ["no pairs"]),
        ([""], ["empty"]),
    ],
)
def test_bad_rows_are_named(csv, run, lines, words):
    status, record, _, err = run("--pairs", csv(*lines))
    assert status == 2 and record is None
    assert [word for word in ["pairs.csv", *words] if word not in err] == []


def test_other_columns_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(
        "\ufeffid, chosen ,rejected,ref_chosen,ref_rejected\r\n7,-1,-2,-3,-4\r\n\r\n8,-5,-6,-7,-8\r\n".encode()
    )
    found = read(path)
    assert found.line == [2, 4] and found.votes is None
    assert_close(found.pairs.chosen, [-1, -5])
    path.write_bytes(b"chosen,rejected\n\xff\xfe")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        read(path)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--pairs", "missing.csv"], "missing.csv"),
        (["--pairs", "example", "--beta", "0"], "beta = 0"),
        (["--pairs", "example", "--tau", "-1"], "tau = -1"),
        (["--pairs", "example", "--votes", "0.3"], "votes = 0.3"),
        (["--pairs", "example", "--unanimous", "0"], "unanimous = 0"),
        (["--votes", "0.8"], "pairs: missing"),
    ],
)
def test_bad_flags_are_named(run, argv, words):
    status, record, _, err = run(*argv)
    assert (status, record) == (2, None) and words in err


def test_example_is_found_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert diagnosis(User(pairs=Path("example")))["file"] == "pairs.csv"
