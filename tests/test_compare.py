"""The comparison of quick runs with the committed numbers, on small records made by hand."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / ".ci" / "compare.py"
spec = importlib.util.spec_from_file_location("compare", PATH)
assert spec is not None
assert spec.loader is not None
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)

RECORD = {
    "experiment": "x",
    "seed": 0,
    "versions": {"jax": "0.10.2"},
    "claims": [{"id": "one", "gap": 1e-12, "lhs": 2.0, "holds": True}, {"id": "two", "gap": None, "holds": True}],
    "series": {"margin": [0.0, 0.5, float("inf"), float("nan")]},
}


def changed(path: tuple, value: object) -> dict:
    record = copy.deepcopy(RECORD)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("versions", "jax"), "0.12"),
        (("versions", "numpy"), "2.5"),
        (("claims", 0, "gap"), 2e-9),  # rounding errors differ; whether they are small, "holds" says
        (("claims", 1, "gap"), 0.0),
        (("series", "margin", 0), 9e-10),  # below the absolute tolerance
        (("claims", 0, "lhs"), 2.0 * (1 + 1e-5)),  # one unit of the sixth digit
        (("claims", 0, "lhs"), 2),
    ],
)
def test_what_may_differ(path, value):
    assert list(compare.differences(RECORD, changed(path, value))) == []


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("experiment",), "y", ".experiment"),
        (("seed",), 1, ".seed"),
        (("seed",), False, ".seed"),
        (("claims", 0, "holds"), 1, ".claims[0].holds"),
        (("series", "margin", 0), 2e-9, ".series.margin[0]"),
        (("claims", 0, "lhs"), 2.0 * (1 + 2e-5), ".claims[0].lhs"),
        (("claims", 1, "versions"), "0.12", ".claims[1].versions"),  # only the record's own versions are free
        (("series", "margin"), [0.0, 0.5], ".series.margin: 4 entries"),
        (("series", "margin", 1), float("nan"), ".series.margin[1]"),
        (("series", "margin", 2), 1e300, ".series.margin[2]"),
        (("series", "margin", 3), 0.0, ".series.margin[3]"),
    ],
)
def test_what_may_not(path, value, place):
    for found in (
        list(compare.differences(RECORD, changed(path, value))),
        list(compare.differences(changed(path, value), RECORD)),
    ):
        assert len(found) == 1
        assert found[0].startswith(place.split(":")[0])


def test_every_folder_needs_both_records(tmp_path, capsys):
    figures, out = tmp_path / "figures", tmp_path / "out"
    figures.mkdir()
    assert compare.main(figures, out) == 1  # nothing to compare is no success
    for name in ("a", "b", "c"):
        (figures / name).mkdir()
        (out / name).mkdir(parents=True)
    for path in (figures / "a/quick.json", out / "a/numbers.json", figures / "b/quick.json", out / "c/numbers.json"):
        path.write_text(json.dumps(RECORD))
    assert compare.main(figures, out) == 2
    (out / "a/numbers.json").write_text(json.dumps(changed(("seed",), 1)))
    assert compare.main(figures, out) == 3
    assert ".seed: 0 committed, 1 made" in capsys.readouterr().out
