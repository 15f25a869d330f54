"""Sweeps: chunks, devices, files that survive, processes that share."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sandbox import sweep as sweeps
from sandbox.losses import dpo
from sandbox.pair_training import train_table
from sandbox.sweep import grid, left, sweep

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


def launch(folder: Path, pace: str = "", processes: int = 2) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    x64 = "1" if jax.config.jax_enable_x64 else "0"
    made = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": f"{processes}",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), x64, pace],
            cwd=ROOT, env={**made, "JAX_PROCESS_ID": str(rank)}, stderr=subprocess.DEVNULL,
        )
        for rank in range(processes)
    ]  # fmt: skip


def read(folder: Path, rank: int) -> dict[str, np.ndarray]:
    with np.load(folder / f"found-{rank}.npz") as arrays:
        return dict(arrays)


def test_two_processes_give_the_bytes_of_one(whole, tmp_path):
    assert [process.wait(timeout=120) for process in launch(tmp_path)] == [0, 0]
    for rank in range(2):
        assert_same(whole, read(tmp_path, rank))
    assert len(list((tmp_path / "chunks").iterdir())) == 3


def test_one_of_two_killed_in_the_middle_and_begun_again(whole, tmp_path):
    """Rank 0 stops after its first of two chunks, as if it were slow, and dies there."""
    processes = launch(tmp_path, "slow")
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
    assert [process.wait(timeout=120) for process in launch(tmp_path)] == [0, 0]
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "chunks").glob("*.npz")}
    assert len(after) == 3 and before.items() <= after.items()  # what was finished was not made again
    assert_same(whole, read(tmp_path, 0))
