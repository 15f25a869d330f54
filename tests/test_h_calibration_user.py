"""A user's predictions: what is said of them, what is refused, and the map that is kept."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from experiments.h_calibration import user
from experiments.h_calibration.__main__ import EXPERIMENT
from experiments.h_calibration._data import read
from experiments.h_calibration._digits import EXAMPLE
from sandbox import calibration
from sandbox.calibration import METRICS, Temperature, VectorScaling
from tests.tolerances import Tolerance, assert_close

SIX = Tolerance(1e-5, 1e-5, "six digits are recorded; float32")


def predictions(n=240, classes=3, seed=0, sharp=2.0):
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, classes))
    law = np.exp(z / sharp) / np.exp(z / sharp).sum(axis=1, keepdims=True)
    return z, (law.cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)


def probs_of(z):
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


@pytest.fixture
def run(command):
    return partial(command, EXPERIMENT)


@pytest.fixture
def few_maps(monkeypatch):
    """Two of the recalibrators: all have their own tests, and each compiles for a second."""
    monkeypatch.setattr(user, "MAPS", (Temperature(), VectorScaling()))


def test_the_record_of_a_file_and_the_map_applied_to_new_rows(run, few_maps, tmp_path):
    z, y = predictions()
    np.savez(tmp_path / "mine.npz", logits=z, labels=y)
    status, found, out, err = run("--logits", tmp_path / "mine.npz", "--resamples", 8, "--steps", 20)
    assert (status, err) == (0, "")
    record = found["user"]
    assert (record["rows"], record["fitted_to"], record["classes"]) == (240, 120, 3)
    assert set(record["before"]) == set(METRICS)
    assert set(record["after"]) == {"temperature", "vector"}
    assert record["after"]["temperature"]["NLL"] < record["before"]["NLL"]
    assert record["accuracy"]["temperature"] == record["accuracy"]["before"]
    for name, ends in record["intervals"].items():
        assert set(ends) == set(METRICS) and ends["NLL"][0] < ends["NLL"][1], name
    folder = tmp_path / "out" / "h_calibration"
    assert {"user.png", "map_temperature.npz", "map_vector.npz"} <= {path.name for path in folder.iterdir()}
    assert "temperature" in out and "accuracy" in out
    kept = calibration.load(folder / "map_temperature.npz")
    assert 1 / kept.params["inverse"] > 1.3

    new = predictions(7, seed=1)[0]
    header = "logit0,logit1,logit2"
    np.savetxt(tmp_path / "new.csv", new, delimiter=",", header=header, comments="", fmt="%.17g")
    status, found, _, err = run("--logits", tmp_path / "new.csv", "--apply", folder / "map_temperature.npz")
    assert (status, err, found["user"]["map"]) == (0, "", "temperature")
    written = np.loadtxt(folder / "recalibrated.csv", delimiter=",", skiprows=1)
    assert_close(written, probs_of(new * float(kept.params["inverse"])), SIX)
    np.savez(tmp_path / "four.npz", logits=np.zeros((2, 4)), labels=[0, 1])
    status, _, _, err = run("--logits", tmp_path / "four.npz", "--apply", folder / "map_vector.npz")
    assert status == 2 and "a map of 3 classes, the rows have 4" in err


def test_example_is_read():
    data = read(EXAMPLE)
    assert data.logits.shape == (900, 10) and data.labels.shape == (900,)
    assert 0.88 < np.mean(data.logits.argmax(axis=1) == data.labels) < 0.9


def test_probabilities_and_logits_say_the_same(tmp_path):
    z, y = predictions(20)
    np.savez(tmp_path / "p.npz", probs=probs_of(z).astype(np.float32), labels=y)
    np.savez(tmp_path / "z.npz", logits=z, labels=y)
    rows = "\n".join(",".join(f"{x:.9g}" for x in row) + f",{k}" for row, k in zip(probs_of(z), y, strict=True))
    (tmp_path / "p.csv").write_text("prob_0,prob_1,prob_2,label\n" + rows + "\n\n")
    found = [read(tmp_path / name) for name in ("p.npz", "z.npz", "p.csv")]
    for data in found:
        assert np.array_equal(data.labels, y)
        assert_close(probs_of(data.logits), probs_of(z), SIX)


BAD_ROWS = [
    ({"probs": [[0.5, 0.5], [np.nan, 1.0]], "labels": [0, 1]}, r"row 1: probs = \(nan, 1\): must be finite"),
    ({"probs": [[0.5, 0.5], [0.5, 0.4]], "labels": [0, 1]}, r"row 1: probs = \(0.5, 0.4\).*they sum to 0.9"),
    ({"probs": [[1.5, -0.5], [0.5, 0.5]], "labels": [0, 1]}, "row 0: probs"),
    ({"logits": [[0.5, 0.5], [np.inf, 1.0]], "labels": [0, 1]}, "row 1: logits"),
    ({"logits": np.zeros((3, 2)), "labels": [0, 1, 2]}, "row 2: label = 2: must be a whole number from 0 to 1"),
    ({"logits": np.zeros((3, 2)), "labels": [0, -1, 1]}, "row 1: label = -1"),
    ({"logits": np.zeros((3, 2)), "labels": [0, 0.5, 1]}, "row 1: label = 0.5"),
    ({"logits": np.zeros((3, 2)), "labels": [1, 1, 1]}, "all labels are 1"),
    ({"logits": np.zeros((3, 2)), "labels": [0, 1]}, r"labels \(2,\); must be \(3,\)"),
    ({"logits": np.zeros((3, 2))}, "no labels"),
    ({"logits": np.zeros((3, 1)), "labels": [0, 0, 0]}, "C >= 2"),
    ({"scores": np.zeros((3, 2)), "labels": [0, 1, 0]}, "must have one of logits and probs"),
    ({"logits": np.zeros((0, 2)), "labels": np.zeros(0, int)}, "no rows"),
]


@pytest.mark.parametrize(("arrays", "words"), BAD_ROWS)
def test_bad_rows_of_an_npz_are_named(tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **{name: np.array(x) for name, x in arrays.items()})
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prob0,prob1,label\n0.5,0.5,0\n\n0.5,x,1\n", "line 4: 3 cells, not all of them numbers"),
        ("prob0,prob1,label\n0.5,0.5,0\n0.5,0.2,1\n", "line 3: probs.*they sum to 0.7"),
        ("prob0,prob1,label\n0.5,0.5\n", "line 2: 2 cells"),
        ("a,b,label\n1,2,0\n", "must have logit0"),
        ("logit0,logit1,label\n", "no rows"),
        ("logit0,logit1\n1,2\n2,1\n", "no labels"),
        ("", "must have logit0"),
    ],
)
def test_bad_lines_of_a_csv_are_named(tmp_path, text, words):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "bad.csv")


def test_many_bad_rows_are_counted(tmp_path):
    np.savez(tmp_path / "bad.npz", logits=np.full((40, 2), np.nan), labels=np.arange(40) % 2)
    with pytest.raises(ValueError, match=r"40 bad row\(s\), nothing was used: row 0: .*; and 30 more"):
        read(tmp_path / "bad.npz")


def test_bad_flags_and_files_leave_what_there_is(run, tmp_path):
    z, y = predictions(20)
    np.savez(tmp_path / "mine.npz", logits=z, labels=y)
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "other.txt").write_text("no predictions")
    mine = tmp_path / "mine.npz"
    for argv, words in (
        (["--logits", mine, "--share", 0], "share = 0"),
        (["--logits", mine, "--objective", "hinge"], "objective = 'hinge'"),
        (["--logits", mine, "--weighting", "flat"], "weighting = 'flat'"),
        (["--logits", mine, "--resamples", 1], "resamples = 1"),
        (["--logits", tmp_path / "text.npz"], "not an .npz file"),
        (["--logits", tmp_path / "none.npz"], "none.npz"),
        (["--logits", tmp_path / "other.txt"], "must be an .npz or a .csv file"),
        (["--logits", mine, "--apply", tmp_path / "text.npz"], "no recalibrator was saved there"),
        (["--share", 0.4], "logits: missing"),
        (["--window", 10], "window = 10: must be odd"),
    ):
        status, found, _, err = run(*argv)
        assert (status, found) == (2, None) and words in err, (argv, err)
