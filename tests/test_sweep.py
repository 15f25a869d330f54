"""Sweeps: chunks, devices, files that survive, processes that share."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theory
from experiments.harness import main
from sandbox import sweep as sweeps
from sandbox.losses import dpo
from sandbox.pair_training import train_table
from sandbox.sweep import grid, left, sweep
from tests.toy import THEOREMS, TOY, record, signs
from theory import _ledger

ROOT = Path(__file__).parents[1]
BATCH = 128
MODELS = 5 * BATCH // 2  # three chunks of a batch each, the last half empty


def points(models: int = MODELS) -> dict[str, jax.Array]:
    return {"beta": jnp.linspace(0.1, 1, models), "key": jax.random.split(jax.random.key(0), models)}


def run(point: dict[str, jax.Array]) -> dict[str, jax.Array]:
    start = jax.random.normal(point["key"], (5,))
    loss = partial(dpo, beta=point["beta"])
    end = train_table(loss, start, np.array([0, 1]), np.array([2, 3]), steps=3, learning_rate=0.5).params
    return {"end": end, "up": end[0] > start[0]}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, x in one.items():
        assert x.dtype == other[name].dtype
        np.testing.assert_array_equal(x, other[name])


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    return sweep(run, points(), chunk=BATCH)


def test_a_sweep_is_the_run_of_every_point(whole):
    alone = [run(jax.tree.map(lambda x, i=i: x[i], points())) for i in (0, BATCH, MODELS - 1)]
    for i, found in zip((0, BATCH, MODELS - 1), alone, strict=True):
        np.testing.assert_allclose(whole["end"][i], found["end"], rtol=1e-5)  # a batch rounds otherwise than a model
        assert whole["up"][i] == found["up"]
    assert whole["end"].shape == (MODELS, 5) and whole["up"].dtype == bool


def test_the_bytes_are_those_of_any_chunk_and_any_number_of_devices(whole, monkeypatch):
    assert_same(whole, sweep(run, points(), chunk=4 * BATCH))
    first = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    assert_same(whole, sweep(run, points(), chunk=4 * BATCH))


def test_grid_is_every_combination():
    made = grid(beta=np.array([1.0, 2]), key=jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(made["beta"], [1, 1, 1, 2, 2, 2])
    assert (made["key"][:3] == made["key"][3:]).all() and made["key"].shape == (6,)


# -- files -----------------------------------------------------------------------------------------------------------


def test_finished_chunks_are_read_and_missing_ones_made_again(whole, tmp_path):
    seen = []
    assert_same(whole, sweep(run, points(), chunk=BATCH, folder=tmp_path, progress=lambda *n: seen.append(n)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    files = sorted(tmp_path.iterdir())
    first = {file.name: file.read_bytes() for file in files}
    files[1].unlink()
    files[2].write_bytes(first[files[2].name][:100])  # torn
    calls = []

    def counting(function, points, **options):
        return lambda x: calls.append(1) or jax.jit(function, **options)(x)

    assert_same(whole, sweep(run, points(), chunk=BATCH, folder=tmp_path, compiled=counting))
    assert len(calls) == 2
    assert {file.name: file.read_bytes() for file in sorted(tmp_path.iterdir())} == first


def test_chunks_of_other_points_do_not_count(tmp_path):
    sweep(run, points(), chunk=BATCH, folder=tmp_path)
    other = points() | {"beta": jnp.linspace(0.2, 1, MODELS)}
    assert_same(sweep(run, other, chunk=BATCH), sweep(run, other, chunk=BATCH, folder=tmp_path))
    assert len(list(tmp_path.iterdir())) == 6


def test_a_full_disk_leaves_the_finished_chunks_good(whole, tmp_path, monkeypatch):
    savez, written = np.savez, []

    def full(path, **arrays):
        if len(written) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        savez(path, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left on device: chunk 3 of 3 is lost, those finished before stay good"):
        sweep(run, points(), chunk=BATCH, folder=tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2  # and nothing half-written
    assert_same(whole, sweep(run, points(), chunk=BATCH, folder=tmp_path))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("")
    never = partial(pytest.fail, "computed")
    with pytest.raises(OSError, match="file"):
        sweep(run, points(), chunk=BATCH, folder=tmp_path / "file" / "chunks", compiled=lambda *_, **__: never)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"points": {"a": np.ones(3), "b": np.ones(4)}}, r"points: rows \[\(3,\), \(4,\)\]: must be the same"),
        ({"points": {"a": np.ones(())}}, r"points: rows \[\(\)\]: must be the same number"),
        ({"points": {"a": np.ones((0, 2))}}, r"points: rows \[\(0,\)\]: .* at least one"),
        ({"chunk": BATCH + 1}, f"chunk = {BATCH + 1}: must be a multiple of batch = {BATCH}"),
        ({"chunk": 0}, "chunk = 0: must be a whole number of at least 1"),
    ],
)
def test_bad_input_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        sweep(run, **{"points": points(), **wrong})


def test_time_left():
    assert left(12, 400, 60) == "12 of 400 chunks, 32 min left"
    assert left(1, 2, 7) == "1 of 2 chunks, 7 s left"
    assert left(1, 4, 7200) == "1 of 4 chunks, 6 h left"


def test_lines_wait(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    said = sweeps.Lines("runs")
    for done, at in ((1, 5), (2, 11), (3, 12), (4, 22)):
        now[0] = at
        said(done, 8)
    assert capsys.readouterr().err.splitlines() == [
        "runs: 2 of 8 chunks, 33 s left", "runs: 4 of 8 chunks, 22 s left",
    ]  # fmt: skip


# -- experiments -----------------------------------------------------------------------------------------------------


def of_one(key: jax.Array) -> dict[str, jax.Array]:
    x, y = jax.random.uniform(key, (2, 3))
    return {"x": x, "y": y}


def swept(setup, key, sweep):
    return sweep(of_one, jax.random.split(key, setup.runs), chunk=BATCH)


SWEPT = replace(TOY, measure={"points": swept, "signs": signs})


def test_an_experiment_resumes_in_the_middle_of_a_sweep(toy, run, tmp_path, monkeypatch):
    words = "--runs", "300", "--seed", "3"
    assert run(*words, experiment=SWEPT, out=tmp_path / "whole") == 0
    replaced, left_over = os.replace, [2]

    def full(source, target):
        if ".partial" in str(target):
            left_over[0] -= 1
            if left_over[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replaced(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert run(*words, experiment=SWEPT) == 2
    monkeypatch.setattr(os, "replace", replaced)
    chunks = {path: path.stat().st_mtime_ns for path in (tmp_path / "toy").rglob("*.npz")}
    assert len(chunks) == 2
    made = []
    monkeypatch.setattr(os, "replace", lambda a, b: made.append(Path(b)) or replaced(a, b))
    assert run(*words, "--resume", experiment=SWEPT) == 0
    assert len([path for path in made if path.parent.name == "0"]) == 1  # of three chunks
    assert not (tmp_path / "toy" / ".partial").exists()
    assert record(tmp_path / "whole") == record(tmp_path)


# -- processes -------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
from sandbox import runtime
from sandbox.sweep import join, sweep
from tests import test_sweep
runtime.configure(x64=sys.argv[2] == "1")
join(timeout=10)
folder = Path(sys.argv[1])
slow = sys.argv[3] == "slow"
found = sweep(test_sweep.run, test_sweep.points(), chunk=test_sweep.BATCH, folder=folder / "chunks",
              progress=lambda *_: time.sleep(60 * slow))
import jax
np.savez(folder / f"found-{jax.process_index()}.npz", **found)
"""


def launch_sweep(folder: Path, pace: str = "") -> list[subprocess.Popen[bytes]]:
    return launch(PROGRAM, [str(folder), "1" if jax.config.jax_enable_x64 else "0", pace])


def launch(program: str, argv: list[str], processes: int = 2) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    made = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": f"{processes}",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *argv],
            cwd=ROOT, env={**made, "JAX_PROCESS_ID": str(rank)}, stderr=subprocess.DEVNULL,
        )
        for rank in range(processes)
    ]  # fmt: skip


def read(folder: Path, rank: int) -> dict[str, np.ndarray]:
    with np.load(folder / f"found-{rank}.npz") as arrays:
        return dict(arrays)


def test_two_processes_give_the_bytes_of_one(whole, tmp_path):
    assert [process.wait(timeout=120) for process in launch_sweep(tmp_path)] == [0, 0]
    for rank in range(2):
        assert_same(whole, read(tmp_path, rank))
    assert len(list((tmp_path / "chunks").iterdir())) == 3


EXPERIMENT = """
import sys
from tests import test_sweep, toy
import pytest
with pytest.MonkeyPatch.context() as patch:
    sys.exit(test_sweep.main_of_toy(patch, sys.argv[1], sys.argv[2:]))
"""


def main_of_toy(patch, folder, argv):
    """The command line of the swept toy in a process of its own."""
    module = ModuleType("theory.toy")
    vars(module).update({t.name: t for t in THEOREMS})
    patch.setattr(theory, "names", lambda: ["toy"])
    patch.setitem(sys.modules, "theory.toy", module)
    patch.setattr(_ledger, "directory", lambda: Path(folder, "proofs"))
    return main(SWEPT, ["--out", folder, "--format", "png", *argv])


def test_two_processes_share_an_experiment_and_one_of_them_writes(tmp_path):
    for name, words, processes in (("one", [], 1), ("two", ["--distributed"], 2)):
        argv = [str(tmp_path / name), "--runs", "300", *words]
        assert [process.wait(timeout=120) for process in launch(EXPERIMENT, argv, processes)] == [0] * processes
    assert record(tmp_path / "one") == record(tmp_path / "two")


def test_one_of_two_killed_in_the_middle_and_begun_again(whole, tmp_path):
    """Rank 0 stops after its first of two chunks, as if it were slow, and dies there."""
    processes = launch_sweep(tmp_path, "slow")
    try:
        until = time.monotonic() + 100
        while len(list(tmp_path.glob("chunks/*.npz"))) < 2:
            assert time.monotonic() < until and processes[1].poll() is None
            time.sleep(0.1)
        processes[0].send_signal(signal.SIGKILL)
        assert processes[0].wait(timeout=20) == -signal.SIGKILL
        assert processes[1].wait(timeout=60) != 0  # it cannot go on alone, and says so
    finally:
        for process in processes:
            process.kill()
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "chunks").glob("*.npz")}
    assert len(before) == 2
    assert [process.wait(timeout=120) for process in launch_sweep(tmp_path)] == [0, 0]
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "chunks").glob("*.npz")}
    assert len(after) == 3 and before.items() <= after.items()  # what was finished was not made again
    assert_same(whole, read(tmp_path, 0))


def test_the_page_on_sweeps_shows_one_that_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sweeps.md").read_text(encoding="utf-8"), re.DOTALL)
    [shown] = [block for block in blocks if "sweep(run, points)" in block]
    found: dict[str, np.ndarray] = {}
    exec(re.sub(r"\b1000\b", "5", re.sub(r"\b100\b", "4", shown)), found)
    assert found["risen"].shape == (4, 5) and (found["risen"] > 0).all()
