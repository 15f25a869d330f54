"""Experiments are found, listed and run, with no list to edit."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import experiments
import theory
from experiments import __main__ as front

pytestmark = pytest.mark.usefixtures("toy")


MODULE = '''"""{title}.

More.
"""
from experiments.harness import Experiment
from tests import toy as t
EXPERIMENT = Experiment("{name}", __doc__, t.Setup, t.TOY.measure, t.claims, t.draw)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of experiments: a module, a package, and what is none."""
    place = tmp_path / "experiments"
    (place / "pkg").mkdir(parents=True)
    (place / "toy.py").write_text(MODULE.format(title="A toy", name="toy"))
    (place / "pkg/__init__.py").write_text("")
    (place / "pkg/__main__.py").write_text(MODULE.format(title="A package", name="pkg"))
    (place / "harness.py").write_text("")
    (place / "_private.py").write_text("")
    monkeypatch.setattr(experiments, "_FOLDER", place)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(place)])
    yield place
    for name in [n for n in sys.modules if n.startswith(("experiments.toy", "experiments.pkg"))]:
        del sys.modules[name]


def test_experiments_are_discovered(folder, capsys):
    assert experiments.names() == ["pkg", "toy"]
    assert (experiments.title("toy"), experiments.title("pkg")) == ("A toy.", "A package.")
    assert front.main([]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == ["pkg  A package.", "toy  A toy."]
    assert "python -m experiments all" in out
    assert experiments.load("toy").name == "toy"
    assert experiments.load("pkg").name == "pkg"
    with pytest.raises(ValueError, match="'nope' is no experiment; there are pkg, toy"):
        experiments.load("nope")
    (folder / "wrong.py").write_text(MODULE.format(title="x", name="other"))
    with pytest.raises(ValueError, match="must have one, 'wrong'"):
        experiments.load("wrong")
    assert front.main(["toy"]) == 2
    assert "python -m experiments.toy" in capsys.readouterr().err


def test_all_runs_all_and_returns_the_worst(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(theory, "names", lambda: ["toy", "pkg"])
    monkeypatch.setitem(sys.modules, "theory.pkg", ModuleType("theory.pkg"))  # its checks are of another theory: a bug
    argv = ["all", "--quick", "--format", "png", "--out", str(tmp_path / "out")]
    assert front.main(argv) == 1
    out, err = capsys.readouterr()
    assert "toy: every claim holds" in out
    assert "pkg: a claim does not hold, or it broke off" in out
    assert "Traceback" in err
    assert (tmp_path / "out/toy/numbers.json").is_file()
    assert front.main([*argv, "--seed", "-1"]) == 2
