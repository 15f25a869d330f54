"""A user's table: what is said of it by each model, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pn_criterion.__main__ import EXPERIMENT
from experiments.pn_criterion._data import levels, numbers, read
from experiments.pn_criterion.user import EXAMPLE, User, notes, verdict
from sandbox.expfam import criterion, finite, gaussian, terms
from tests.tolerances import Tolerance, assert_close

X64 = jax.config.jax_enable_x64
SIX = Tolerance(1e-5, 1e-5, "six digits are recorded") if X64 else Tolerance(5e-3, 5e-3, "float32")
ORDERS = [f"{name}_{order}" for name in ("risk", "n_star", "accept") for order in ("first", "second")]
KEY = jax.random.key(0)


@pytest.fixture
def csv(tmp_path):
    def csv(*lines):
        (tmp_path / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "table.csv"

    return csv


@pytest.fixture
def run(command):
    return partial(command, EXPERIMENT)


def test_normal_model_on_the_command_line(run):
    status, record, out, err = run("--data", "example", "--columns", "height,weight", "--alpha", "0.1")
    assert (status, err) == (0, "")
    said = record["user"]
    assert set(said) >= {"n", "p", "t0", "b", *ORDERS} and (said["n"], said["p"], said["model"]) == (160, 5, "gaussian")
    rows = jnp.asarray(numbers(EXAMPLE, read(EXAMPLE, "height,weight")))
    found = gaussian.terms(gaussian.moments(gaussian.whitened(rows)), 2)
    expansion = terms.risk(found)
    assert_close([said["t0"], said["b"]], [found.t0, expansion.b], SIX)
    assert_close([said["risk_first"], said["risk_second"]], [expansion.a / 160, expansion.at(160)], SIX)
    assert_close([said["n_star_first"], said["n_star_second"]],
                 [expansion.a / 0.08, criterion.draws_needed(expansion, 0.08)], SIX)  # fmt: skip
    assert said["accept_first"] and said["accept_second"] and said["allowed_risk"] == 0.08
    for name in ("t0", "b"):
        low, high = said[f"{name}_interval"]
        assert low < high and low < said[name] * 1.05
    shares = [row["share"] for row in said["rows"]]
    assert shares == sorted(shares, reverse=True)
    assert_close(sum(shares), 1.0, SIX)
    assert [figure["name"] for figure in record["figures"]] == ["user"]
    assert "ENOUGH" in out and "leverage" in out


def test_row_that_pulls_most_is_named_by_its_line(csv):
    rng = np.random.default_rng(0)
    lines = [f"{x:.3f},{y:.3f}" for x, y in rng.normal(size=(60, 2))]
    lines[7] = "9,-9"
    record = verdict(User(data=csv("a,b", "", *lines), resamples=20), 0.05, KEY)
    assert record["rows"][0]["line"] == 10 and record["rows"][0]["share"] > 0.3
    assert record["t0"] > 2 * record["p"] and "heavy tails" in " ".join(notes(record))
    assert not record["accept_first"] and not record["accept_second"]


def test_softmax_model_by_hand(csv):
    counts = (4, 9, 7, 5)
    path = csv("grade", *(str(2 * k) for k, times in enumerate(counts) for _ in range(times)))
    record = verdict(User(data=path, model="softmax", features=2, resamples=40), 0.05, KEY)
    features, share = finite.cosines(4, 2), jnp.array(counts) / 25
    model = jnp.exp(finite.log_law(features, finite.project(features, share).theta))
    found = finite.terms_at(features, model, share)
    assert (record["n"], record["p"]) == (25, 2)
    assert_close([record["t0"], record["b"]], [found.t0, terms.risk(found).b], SIX)
    assert sorted(row["count"] for row in record["rows"]) == sorted(counts)
    assert [row["line"] for row in sorted(record["rows"], key=lambda row: row["values"])] == [2, 6, 15, 22]


def test_log_linear_model_that_is_saturated():
    """Two binary columns with their interaction: three parameters, four cells, t0 = p whatever the rows are."""
    record = verdict(User(data=EXAMPLE, model="loglinear", columns="smoker,club", resamples=40), 0.05, KEY)
    _, places = levels(read(EXAMPLE, "smoker,club"))
    share = np.bincount(2 * places[:, 0] + places[:, 1], minlength=4) / 160
    assert record["p"] == 3
    if X64:
        assert "saturated" in " ".join(notes(record))
    assert_close([record["t0"], record["b"]], [3, (5 * np.sum(1 / share) - 23) / 12], SIX)


def test_few_rows_are_remarked(csv):
    rng = np.random.default_rng(4)
    lines = [",".join(f"{x:.3f}" for x in row) for row in rng.normal(size=(14, 5))]
    record = verdict(User(data=csv("a,b,c,d,e", *lines), resamples=20), 0.05, KEY)
    assert not record["accept_first"] and not record["accept_second"]
    said = " ".join(notes(record))
    assert "NOT ENOUGH" in said and "not whether that law is right" in said


@pytest.mark.parametrize(
    ("lines", "argv", "words"),
    [
        (["a,b", "1,2", "1,x", "3"], [], ["line 4: 1 cells, the header has 2"]),
        (["a,b", "1,2", "1,x", "3,nan"], [], ["line 3: b = 'x'", "line 4: b = 'nan'", "finite number"]),
        (["a,b", "1,2", "1,"], [], ["line 3: nothing in b"]),
        (["a,b"], [], ["1 line(s)", "header"]),
        ([""], [], ["0 line(s)"]),
        (["a,a", "1,2"], [], ["columns: 'a' stands 2 times"]),
        (["a,b", "1,2"], ["--columns", "c"], ["columns: 'c' stands 0 times"]),
        (["a,b", "1,2"], ["--columns", "a,a"], ["columns: 'a' stands 1 times in the header and 2 times"]),
        (["a,b", "1,2", "2,1", "3,4"], [], ["3 rows", "at least 4"]),
        (["a,b", "1,2", "2,4", "3,6", "4,8"], [], ["must vary in every direction"]),
        (["a", "x", "x"], ["--model", "loglinear"], ["column a", "at least 2 values"]),
        (["a,b", "x,0", "y,1", "x,0"], ["--model", "loglinear"], ["no fit exists", "x, 1"]),
        (["a,b", "x,0", "y,1"], ["--model", "softmax"], ["takes one (--columns NAME)"]),
        (["a", "0", "1", "2"], ["--model", "softmax", "--features", "3"], ["features = 3", "from 1 to 2"]),
    ],
)
def test_bad_tables_are_refused(csv, run, lines, argv, words):
    status, record, _, err = run("--data", csv(*lines), *argv)
    assert status == 2 and record is None
    assert [word for word in words if word not in err] == []


def test_too_large_models_are_refused(csv, run):
    rng = np.random.default_rng(0)
    wide = [
        ",".join(f"c{k}" for k in range(31)),
        *(",".join(f"{x:.2f}" for x in row) for row in rng.normal(size=(40, 31))),
    ]
    status, _, _, err = run("--data", csv(*wide))
    assert status == 2 and "columns: 31" in err and "at most 30" in err
    many = [",".join(f"c{k}" for k in range(14)), *(",".join(map(str, row)) for row in rng.integers(0, 2, (40, 14)))]
    status, _, _, err = run("--data", csv(*many), "--model", "loglinear")
    assert status == 2 and "16,384 cells and 105 parameters are too many" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data", "missing.csv"], "missing.csv"),
        (["--data", "example", "--model", "poisson"], "model = 'poisson'"),
        (["--data", "example", "--alpha", "0.7"], "alpha = 0.7"),
        (["--data", "example", "--resamples", "3"], "resamples = 3"),
        (["--model", "softmax"], "data: missing"),
    ],
)
def test_bad_flags_are_named(run, argv, words):
    status, record, _, err = run(*argv)
    assert (status, record) == (2, None) and words in err


def test_tables_that_are_no_text(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b\n\xff\xfe")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        read(path)
    path.write_bytes("\ufeffx, y\r\n1, 2\r\n\r\n3, 4\r\n".encode())
    found = read(path)
    assert (found.line, found.columns) == ([2, 4], ["x", "y"])


def test_example_is_found_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = User(data=Path("example"), model="softmax", columns="grade", resamples=20)
    assert verdict(given, 0.05, KEY)["file"] == "table.csv"


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_packaged_tables(name, tmp_path):
    """Four columns of real tables: 14 parameters, and a second order that adds to the first."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    table = getattr(datasets, f"load_{name}")().data[:, :4]
    path = tmp_path / "table.csv"
    np.savetxt(path, table, delimiter=",", header="a,b,c,d", comments="")
    record = verdict(User(data=path, resamples=20), 0.05, KEY)
    assert record["p"] == 14 and record["b"] > 0 and record["risk_second"] > record["risk_first"]
