"""The user's table: read, refused with the line and the column, and what is said of it."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from experiments.multiplicity import real
from experiments.multiplicity.__main__ import EXPERIMENT
from experiments.multiplicity._data import read
from experiments.multiplicity.user import User, diagnosis, notes
from sandbox import multiplicity as m
from tests.tolerances import Tolerance, assert_close

SIX = Tolerance(1e-6, 1e-6, "six digits are recorded")
float64_only = pytest.mark.skipif(not jax.config.jax_enable_x64, reason="counts change in float32")


@pytest.fixture
def csv(tmp_path):
    def csv(*lines):
        (tmp_path / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "people.csv"

    return csv


@pytest.fixture
def run(command):
    return partial(command, EXPERIMENT)


@float64_only
def test_irises_from_the_command_line(run):
    """The record is the reference's row of irises, at 1% of the loss and delta = 0.1."""
    status, record, out, err = run("--data", "example", "--searched", "100")
    assert (status, err) == (0, "")
    user = record["user"]
    assert (user["n"], user["d"], user["file"], user["positive"]) == (100, 5, "iris.csv", "virginica")
    assert_close([user["loss"], user["mean_width"]], [0.059493, 0.01973], Tolerance(0, 5e-6, "printed digits"))
    assert_close([user["ambiguity"], user["flip_share"]], [0.03, 0.01], SIX)
    assert 0 < user["discrepancy"]["lower"] <= user["discrepancy"]["upper"] <= 0.03
    assert_close(user["epsilon"], 0.01 * user["loss"], SIX)
    baseline = m.fit(*real.read("iris"))
    found = m.ranges(baseline, user["epsilon"])
    rows = user["rows"]
    assert [row["line"] for row in rows] == list(range(2, 102))
    assert_close([row["p"] for row in rows], baseline.risk, SIX)
    assert_close([row["lower"] for row in rows], jax.nn.sigmoid(found.low), SIX)
    assert_close([row["upper"] for row in rows], jax.nn.sigmoid(found.high), SIX)
    assert sum(row["flips"] for row in rows) == 1
    assert "100 people" in out and "ambiguity" in out and [figure["name"] for figure in record["figures"]] == ["user"]


def test_columns(csv):
    """Numbers standardised, texts one-hot without the first, an intercept; labels by --positive or 0 and 1."""
    path = csv("age,town,bought", "20,Rome,yes", "", "40,Oslo,no", "30,Rome,no", "50,Lima,yes")
    table = read(path, "bought", "yes")
    assert table.names == ["intercept", "age", "town=Oslo", "town=Rome"] and table.line == [2, 4, 5, 6]
    assert_close(table.x[:, 1] * np.std([20, 40, 30, 50]), [-15, 5, -5, 15])
    assert_close(table.x[:, 2:], [[0, 1], [1, 0], [0, 1], [0, 0]])
    assert_close(table.y, [1, 0, 0, 1])
    assert_close(read(csv("a,b", "1,0", "2,1", "4,1.0"), "b", None).y, [0, 1, 1])


BODY = ["age,bought", "20,1", "30,0", "25,0", "40,1"]


@pytest.mark.parametrize(
    ("lines", "argv", "words"),
    [
        (["age,town,bought", "20,,1", "?,Rome,0", "1,Oslo"], (),
         ["line 2: no value for town", "line 3: no value for age", "line 4: 2 cells"]),
        (["age,bought", "20,1", "inf,0"], (), ["line 3", "age = inf", "finite"]),
        (["age,bought", "20,1", "3o,0", "25,0"], (), ["line 3", "age = '3o'", "number"]),
        (["age,k,bought", "20,7,1", "30,7,0"], (), ["column k", "every line has 7", "leave it out"]),
        (["id,bought", *(f"n{k},{k % 2}" for k in range(30))], (), ["column id", "30 different texts"]),
        (["age,age,bought", "1,2,0"], (), ["'age'", "different"]),
        (["age,bought"], (), ["no people"]),
        (BODY, ("--label", "sold"), ["label = 'sold'", "age, bought"]),
        (["age,bought", "20,yes", "30,no"], (), ["positive: missing", "'no', 'yes'"]),
        (BODY, ("--positive", "maybe"), ["positive = 'maybe'", "'0', '1'"]),
        (["age,bought", "20,1", "30,1", "31,1"], ("--positive", "1"), ["every line has '1'"]),
        (["age,bought", "20,0", "30,0", "25,1", "40,1"], (), ["separated"]),
        (["a,b,bought", "1,2,0", "2,4,1", "3,6,0", "4,8,1"], (), ["rank 2", "ridge"]),
        (BODY, ("--epsilon-rel", "0"), ["epsilon_rel = 0"]),
        (BODY, ("--delta", "1"), ["delta = 1"]),
        (BODY, ("--ridge", "-1"), ["ridge = -1"]),
    ],
)  # fmt: skip
def test_bad_tables_and_flags_are_named(csv, run, lines, argv, words):
    label = () if "--label" in argv else ("--label", "bought")
    if "separated" in words:
        lines = ["age,bought", "20,0", "22,0", "30,1", "40,1"]
    status, record, _, err = run("--data", csv(*lines), *label, *argv)
    assert (status, record) == (2, None)
    assert [word for word in words if word not in err] == [], err


@pytest.mark.parametrize(
    ("argv", "words"),
    [(["--data", "missing.csv", "--label", "y"], "missing.csv"), (["--label", "y"], "data: missing")],
)
def test_what_is_missing_is_said(run, argv, words):
    status, record, _, err = run(*argv)
    assert (status, record) == (2, None) and words in err


def test_no_label_and_no_text(csv, tmp_path):
    with pytest.raises(ValueError, match="label: missing"):
        diagnosis(User(data=csv(*BODY)), jax.random.key(0))
    (tmp_path / "x.csv").write_bytes(b"a,b\n\xff\xfe")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        read(tmp_path / "x.csv", "a", None)


@float64_only
def test_separated_classes_with_a_ridge(csv):
    path = csv("age,bought", "20,0", "22,0", "30,1", "40,1")
    record = diagnosis(User(data=path, label="bought", ridge=0.1, delta=0.02), jax.random.key(0), 50)
    assert record["ridge"] == 0.1 and 0 < record["mean_width"] < 1
    assert "4 people" in notes(record)[0] and "single model" in notes(record)[1]
