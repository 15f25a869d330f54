"""A user's .npz of utilities: what is read out of it, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from experiments.duality.__main__ import EXPERIMENT
from experiments.duality.user import User, diagnosis, example, notes, read, table
from tests.tolerances import Tolerance, assert_close

CLOSE = Tolerance(1e-3, 1e-3, "six steps in float32, and what Newton's method makes of it")


@pytest.fixture
def npz(tmp_path):
    def npz(**arrays):
        np.savez(tmp_path / "u.npz", **arrays)
        return tmp_path / "u.npz"

    return npz


@pytest.fixture
def run(command):
    return partial(command, EXPERIMENT)


def trained(start, law, eta, count):
    """Utilities after so many full-batch steps of eta (rows,)."""
    end = np.array(start, float)
    for _ in range(count):
        p = np.exp(end)
        end = end + np.reshape(eta, (-1, 1)) * (law - p / p.sum(axis=1, keepdims=True))
    return end


LAW = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
START = np.array([[0.5, -0.2, 0.0], [0.0, 0.1, -0.4]])


def test_two_rows_of_a_known_law(npz):
    path = npz(u0=START, uT=trained(START, LAW, 0.8, 5), eta=0.8, steps=5)
    record = diagnosis(User(utilities=path))
    assert_close([row["inverted"] for row in record["rows"]], LAW, CLOSE)
    assert record["flagged"] == [] and record["outputs"] == 3
    off = np.abs([row["softmax"] for row in record["rows"]] - LAW).max()
    assert off > 0.03, "softmax is not the law"


def test_the_inverted_laws_are_written_beside_the_figure(npz, run, tmp_path):
    shifted = START + np.array([[0.0], [0.5]])  # of the second row the end is misreported
    end = trained(START, LAW, 0.8, 5) + shifted - START
    status, found, *_ = run("--utilities", npz(u0=START, uT=end, eta=0.8, steps=5))
    assert status == 0 and found["user"]["flagged"] == [2]
    with np.load(tmp_path / "out/duality/inverted.npz") as written:
        assert_close(written["inverted"][0], LAW[0], CLOSE)
        assert written["flagged"].tolist() == [False, True]


def test_weights_scale_the_step_of_each_context(npz):
    """Two contexts that share a batch, the second three times as often: eta alone would be wrong."""
    weights = np.array([0.25, 0.75])
    end = trained(START, LAW, 2 * weights, 4)
    found = diagnosis(User(utilities=npz(u0=START, uT=end, eta=2.0, steps=4, weights=weights)))
    assert_close([row["inverted"] for row in found["rows"]], LAW, CLOSE)
    without = diagnosis(User(utilities=npz(u0=START, uT=end, eta=2.0, steps=4)))
    assert np.abs([row["inverted"] for row in without["rows"]] - LAW).max() > 0.05


def test_one_number_a_row_and_a_single_row(npz):
    end = np.vstack([trained(START[:1], LAW[:1], 0.5, 3), trained(START[1:], LAW[1:], 1.5, 8)])
    record = diagnosis(User(utilities=npz(u0=START, uT=end, eta=[0.5, 1.5], steps=[3, 8])))
    assert_close([row["inverted"] for row in record["rows"]], LAW, CLOSE)
    one = diagnosis(User(utilities=npz(u0=START[0], uT=end[0], eta=0.5, steps=3)))
    assert_close(one["rows"][0]["inverted"], LAW[0], CLOSE)


def test_what_was_misreported_is_flagged():
    record = diagnosis(User(utilities=Path("example")))
    assert record["flagged"] == [11, 12]
    flags = {row["row"]: row["flags"] for row in record["rows"] if row["flags"]}
    assert flags == {11: ["leaves the simplex"], 12: ["shifted"]}
    rows = table(record)
    assert [row["row"] for row in rows[:2]] == [11, 12] and len(rows) == 12
    assert min(record["rows"][10]["inverted"]) < -0.05, "reported as it is, not clipped"
    said = " ".join(notes(record))
    assert "2 flagged" in said and "Leaves the simplex: eta, steps, u0 or weights" in said and "Shifted:" in said


def test_the_shifted_row_has_its_law_all_the_same():
    arrays = example()
    law = 0.55 ** (np.arange(5) + 0.15 * 11 * (np.arange(5) % 2))
    record = diagnosis(User(utilities=Path("example")))
    assert_close(record["rows"][11]["inverted"], law / law.sum(), CLOSE)
    assert_close(record["rows"][11]["shift"], 0.7, CLOSE)
    assert set(arrays) == {"u0", "uT", "eta", "steps"}


def test_the_command_line_writes_every_row_beside_the_figure(run, tmp_path):
    status, found, out, err = run("--utilities", "example")
    assert (status, err) == (0, "")
    assert len(found["user"]["rows"]) == 12 and len(found["user"]["rows"][0]["inverted"]) == 5
    assert (tmp_path / "out" / "duality" / "user.png").is_file()
    assert "12 rows of 5 outputs; 2 flagged" in out and "leaves the simplex" in out
    assert found["user"]["given"] == {"utilities": "example"}


GOOD = {"u0": START, "uT": START + 0.1, "eta": 1.0, "steps": 3}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"uT": None}, "no array uT; it must hold u0, uT, eta, steps, and may hold weights"),
        ({"rate": 1.0}, "unknown: rate"),
        ({"uT": START[:, :2]}, "u0 (2, 3), uT (2, 2): must both be (rows, outputs)"),
        ({"u0": np.ones((2, 1)), "uT": np.ones((2, 1))}, "of at least one row and two outputs"),
        ({"u0": START * np.nan}, "u0[0, 0] = nan: must be finite"),
        ({"eta": 0.0}, "eta = 0.0: must be finite and > 0"),
        ({"eta": [1.0, -2.0]}, "eta[1] = -2.0: must be finite and > 0"),
        ({"eta": np.ones((2, 3))}, "eta has shape (2, 3): must be one number, or (2,), one a row"),
        ({"steps": 0}, "steps = 0: must be a whole number from 1 to 100000"),
        ({"steps": 2.5}, "steps = 2.5: must be a whole number from 1 to 100000"),
        ({"steps": [3, 200_000]}, "steps[1] = 200000: must be a whole number from 1 to 100000"),
        ({"weights": [0.5, 0.0]}, "weights[1] = 0.0: must be finite and > 0"),
        ({"weights": [0.5, 0.2, 0.3]}, "weights has shape (3,)"),
        ({"u0": np.array([["a", "b", "c"]] * 2)}, "u0 (<U1): must be real numbers"),
    ],
)
def test_arrays_that_are_refused(run, npz, changed, said):
    arrays = {name: x for name, x in {**GOOD, **changed}.items() if x is not None}
    status, found, _, err = run("--utilities", npz(**arrays))
    assert (status, found) == (2, None) and said in err
    assert err.count("\n") == 1


def test_files_that_are_refused(run, tmp_path):
    (tmp_path / "u.csv").write_text("1,2\n")
    assert "u.csv: not an .npz file; numpy.savez writes one" in run("--utilities", tmp_path / "u.csv")[3]
    status, found, _, err = run("--utilities", tmp_path / "absent.npz")
    assert (status, found) == (2, None) and "absent.npz" in err
    with pytest.raises(ValueError, match="utilities: missing"):
        diagnosis(User())


def test_numbers_of_any_kind_are_read(npz):
    arrays = read(npz(u0=START.astype("float32"), uT=START.astype("float16"), eta=1, steps=np.array([2])))
    assert arrays["steps"].tolist() == [2, 2] and arrays["weights"].tolist() == [1, 1]
