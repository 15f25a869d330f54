"""What a run leaves on the disk: all or nothing, whatever happens to it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _record
from experiments.harness import (
    main,
)
from tests.toy import TOY, Counting, Setup, draw, points, signs, written

pytestmark = pytest.mark.usefixtures("toy")


# -- nothing half done -------------------------------------------------------------------------------------------------


def test_a_failing_draw_leaves_what_was_there(run, tmp_path):
    run()
    before = written(tmp_path / "toy")

    def fails_at_the_second(setup, m, verdicts):
        yield from draw(setup, m, verdicts)
        raise RuntimeError("no ink")

    with pytest.raises(RuntimeError, match="no ink"):
        run("--seed", "1", experiment=replace(TOY, draw=fails_at_the_second))
    assert written(tmp_path / "toy") == before
    assert [p.name for p in (tmp_path / "toy").iterdir() if p.is_dir()] == [".partial"]
    assert run("--seed", "1", "--resume") == 0
    assert not (tmp_path / "toy/.partial").exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    Path(tmp_path, "toy").write_text("a file where the folder should be")
    stage = Counting(points)
    argv = ["--out", str(tmp_path), "--format", "png"]
    assert main(replace(TOY, measure={"points": stage, "signs": signs}), argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "toy: cannot be written: File exists; --out names another folder" in said
    assert not stage.runs
    Path(tmp_path, "toy").unlink()

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(TOY, argv) == 2
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))


def files_of(run, pause=0.0):
    def writer(path):
        path.write_bytes(run * 4096)
        time.sleep(pause)

    return [(name, writer) for name in ("a.png", "b.png", "numbers.json")]


def test_runs_that_save_at_once_do_not_mix(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: _record.save(tmp_path, files_of(b"%d" % (k % 4), pause=1e-3)), range(40)))
    found = written(tmp_path)
    assert found.keys() == {"a.png", "b.png", "numbers.json"} and len(set(found.values())) == 1


def test_a_figure_in_a_format_of_an_earlier_run_goes(tmp_path):
    _record.save(tmp_path, [(f"a.{kind}", lambda path: path.write_bytes(b"old")) for kind in ("png", "pdf")])
    Path(tmp_path, "quick.json").write_bytes(b"kept")
    _record.save(tmp_path, [("a.png", lambda path: path.write_bytes(b"new"))])
    assert written(tmp_path) == {"a.png": b"new", "quick.json": b"kept"}


KILLED = """
import sys, time
from pathlib import Path
from experiments import _record
def writer(path):
    path.write_bytes(b"new" * 4096)
    time.sleep(0.02)
print("ready", flush=True)
while True:
    _record.save(Path(sys.argv[1]), [(name, writer) for name in ("a.png", "b.png", "numbers.json")])
"""


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.09])
def test_a_killed_run_leaves_every_file_old_or_new(tmp_path, delay):
    """kill -9 while files are written: none of them is ever half."""
    _record.save(tmp_path, files_of(b"old"))
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    time.sleep(delay)
    child.kill()
    child.communicate()
    assert written(tmp_path).keys() == {"a.png", "b.png", "numbers.json"}
    assert {*written(tmp_path).values()} <= {b"old" * 4096, b"new" * 4096}
    left = list(tmp_path.glob(".new-*"))
    for folder in left:  # a day later
        os.utime(folder, (0, 0))
    _record.save(tmp_path, files_of(b"last"))
    assert {*written(tmp_path).values()} == {b"last" * 4096} and not list(tmp_path.glob(".new-*"))


def test_a_stopped_run_resumes(run, tmp_path):
    def run_anew(*argv, experiment):
        jax.clear_caches()  # a stage that is compiled already would not be seen to run
        return run(*argv, experiment=experiment)

    run("--out", str(tmp_path / "whole"))
    first, second = Counting(points), Counting(signs, breaks=True)
    experiment = replace(TOY, measure={"points": first, "signs": second})
    with pytest.raises(KeyboardInterrupt):
        run_anew(experiment=experiment)
    second.breaks = False
    assert (
        run_anew("--resume", "--seed", "1", "--out", str(tmp_path), experiment=experiment) == 0
    )  # nothing of another seed
    assert len(first.runs) == 2
    second.breaks = True
    with pytest.raises(KeyboardInterrupt):
        run_anew(experiment=experiment)
    second.breaks = False
    assert run_anew("--resume", experiment=experiment) == 0
    assert (len(first.runs), len(second.runs)) == (3, 4)
    for name in ("numbers.json", "points.png"):
        assert (tmp_path / "toy" / name).read_bytes() == (tmp_path / "whole/toy" / name).read_bytes()
    assert run_anew(experiment=experiment) == 0  # without --resume everything is simulated
    assert len(first.runs) == 4


def test_partial_stages_are_of_one_setup_only(tmp_path):
    first = _record.Partial(tmp_path, Setup(), 0, TOY.stages)
    first.write("n* map", {"x": np.arange(3)})
    assert _record.Partial(tmp_path, Setup(), 0, TOY.stages).read("n* map")["x"].tolist() == [0, 1, 2]
    for setup, seed in ((Setup(runs=3), 0), (Setup(), 1)):
        assert _record.Partial(tmp_path, setup, seed, TOY.stages).read("n* map") is None
    next((tmp_path / ".partial").glob("*.npz")).write_bytes(b"PK half a file")
    assert first.read("n* map") is None


# -- numbers as JSON ---------------------------------------------------------------------------------------------------


def test_plain():
    values = {"a": np.float32(1 / 3), "b": [np.nan, np.inf, -np.inf, -0.0], "c": jnp.arange(2), "d": (True, None, "x")}
    found = json.loads(_record.text(values))
    assert found == {"a": 0.333333, "b": [None, "inf", "-inf", 0.0], "c": [0, 1], "d": [True, None, "x"]}
    assert str(found["b"][3]) == "0.0"
    assert '"c": [0, 1]' in _record.text(values)
    assert json.loads(_record.text({"a": ["x [ 1,  2 ] {y", "]"], "b": [[1, 2], []]})) == {
        "a": ["x [ 1,  2 ] {y", "]"],
        "b": [[1, 2], []],
    }
    assert _record.plain(1234567.8) == 1234570.0
    with pytest.raises(TypeError, match="must be a number"):
        _record.plain({1, 2})


@pytest.mark.parametrize(
    ("gap", "shown"),
    [(1.1e-13, 2e-13), (9.2e-5, 1e-4), (3e-7, 3e-7), (0.0, 0.0), (17, 17), (np.inf, np.inf), (1.0, 1.0)],
)
def test_gaps_are_rounded_up(gap, shown):
    assert _record.rounded_up(gap) == shown
