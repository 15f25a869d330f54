"""A hundred thousand toy trainings: a function of one model, run for every point of a grid.

>>> points = grid(beta=np.linspace(0.1, 1, 4), key=jax.random.split(jax.random.key(0), 3))
>>> found = sweep(lambda point: {"x": point["beta"] * jax.random.normal(point["key"])}, points)
>>> found["x"].shape
(12,)

The models of a batch are mapped together, so that a training of ``sandbox.pair_training`` has them on its last axis;
a batch, which fits a processor's cache, runs to its end before the next one begins. A chunk is a fixed number of
batches, spread over the devices of this process; processes that ``join`` made one run share the chunks. The result of a
model depends on its batch alone: one device or many, one process or many, one run or a run that was killed and begun
again, the bytes are the same.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sandbox.validate import whole

__all__ = ["Lines", "agreed", "grid", "join", "left", "sweep"]


def grid(**axes: Any) -> dict[str, Any]:
    """Every combination of the values on the axes, the last axis fastest: ``{name: array of all points}``.

    An axis is an array, of numbers or keys, whose first axis is gone through.
    """
    sizes = [len(x) for x in axes.values()]
    places = np.indices(sizes).reshape(len(sizes), -1)
    return {name: jnp.asarray(x)[place] for (name, x), place in zip(axes.items(), places, strict=True)}


def _by_jax(function: Callable[[Any], Any], points: Any, **shardings: Any) -> Callable[[Any], Any]:
    return jax.jit(function, **shardings)


def sweep(
    run: Callable[[Any], dict[str, Any]],
    points: Any,
    *,
    batch: int = 128,
    chunk: int = 4096,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    compiled: Callable[..., Callable[[Any], Any]] = _by_jax,
) -> dict[str, np.ndarray]:
    """Return the arrays of ``run(point)`` for every point, by name, with an axis of models in front.

    points: a tree of arrays, one point a row. batch: models that are mapped together; what they read and write in a
    step should fit a core's cache, and an accelerator takes a whole chunk instead. chunk: models of a chunk. folder: of
    the finished chunks, for this run and these points only; those that are there are read instead of computed.
    progress: called by the process of rank 0 with the number of chunks finished and that of all, of its own ones
    (``Lines``). compiled: returns the program of a function for points such as these; its other arguments are those of
    ``jax.jit``.

    Raises ValueError for points that do not have the same number of rows, at least one, or for a chunk that is no
    multiple of the batch; OSError for a folder that cannot be written: the chunks finished before it stay good.
    """
    rows = {jnp.shape(x)[:1] for x in jax.tree.leaves(points)}
    if len(rows) != 1 or rows & {(), (0,)}:
        raise ValueError(f"points: rows {sorted(rows)}: must be the same number for every array, and at least one")
    if whole("chunk", chunk) % whole("batch", batch):
        raise ValueError(f"chunk = {chunk}: must be a multiple of batch = {batch}")
    [(models,)] = rows
    batch = min(batch if jax.default_backend() == "cpu" else chunk, models)
    size = min(chunk, -(-models // batch) * batch)
    count, rank, ranks = -(-models // size), jax.process_index(), jax.process_count()
    kept = None if folder is None else _Chunks(folder, points, (batch, size), count)

    def of_chunk(index: int) -> Any:
        places = np.minimum(np.arange(index * size, (index + 1) * size), models - 1)  # the last chunk is filled up
        return jax.tree.map(lambda x: x[places], points)

    compute = _spread(run, batch, size // batch, compiled, of_chunk(0))

    own, found = range(rank, count, ranks), []
    for index in own:
        arrays = kept.read(index) if kept else None
        if arrays is None:
            arrays = {name: np.asarray(x) for name, x in compute(of_chunk(index)).items()}
            if kept:
                kept.write(index, arrays)
        found.append(arrays)
        if progress and rank == 0:
            progress(len(found), len(own))
    shapes = jax.eval_shape(compute, of_chunk(0)) if ranks > 1 else found[0]
    return {name: _all(x, [arrays[name] for arrays in found], count)[:models] for name, x in shapes.items()}


def _spread(run: Callable[[Any], Any], batch: int, batches: int, compiled: Any, points: Any) -> Callable[[Any], Any]:
    """``run`` of every point of a chunk, on as many devices of this process as share its batches evenly."""
    devices = jax.local_devices()
    many = max(n for n in range(1, len(devices) + 1) if batches % n == 0)
    one = partial(lax.map, run, batch_size=batch)
    if many == 1:
        return compiled(one, points)
    mesh, models = Mesh(np.array(devices[:many]), ("models",)), PartitionSpec("models")
    whole = jax.shard_map(one, mesh=mesh, in_specs=models, out_specs=models)
    return compiled(whole, points, in_shardings=NamedSharding(mesh, models))


def _all(like: Any, own: list[np.ndarray], count: int) -> np.ndarray:
    """The arrays of all ``count`` chunks in order, in every process; of its ``own`` it has every n-th."""
    ranks = jax.process_count()
    if ranks == 1:
        return np.concatenate(own)
    most = -(-count // ranks)
    mine = np.zeros((most, *like.shape), like.dtype)
    mine[: len(own)] = own if own else mine[:0]
    every = np.asarray(multihost_utils.process_allgather(mine))  # ranks, most, models of a chunk, ...
    return np.swapaxes(every, 0, 1).reshape(-1, *like.shape[1:])[: count * like.shape[0]]


# -- finished chunks ---------------------------------------------------------------------------------------------------


class _Chunks:
    """One file a chunk, written elsewhere and renamed; its name says which points, of which JAX and precision."""

    def __init__(self, folder: Path, points: Any, sizes: tuple[int, int], count: int) -> None:
        self.folder, self.count = folder, count
        settings = jax.__version__, jax.default_backend(), str(jnp.result_type(float)), sizes
        key = hashlib.sha256(repr((settings, jax.tree.structure(points))).encode())
        for x in jax.tree.leaves(points):
            plain = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
            key.update(repr((plain.shape, plain.dtype)).encode() + np.asarray(plain).tobytes())
        self.key = key.hexdigest()[:16]
        with self._written("none", 0) as new:
            (new / "tried").write_bytes(b"")

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.key}-{index:06d}.npz"

    def read(self, index: int) -> dict[str, np.ndarray] | None:
        """The arrays of a chunk; None if it is not there, or torn by a broken disk."""
        torn = OSError, ValueError, zipfile.BadZipFile
        with suppress(*torn), open(self._path(index), "rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
        return None

    def write(self, index: int, arrays: dict[str, np.ndarray]) -> None:
        """Keep a chunk; the file is whole or absent."""
        with self._written(f"chunk {index + 1}", index) as new:
            np.savez(new / "chunk.npz", **arrays)  # type: ignore[arg-type]  # keys are names of arrays
            os.replace(new / "chunk.npz", self._path(index))

    @contextmanager
    def _written(self, what: str, index: int) -> Iterator[Path]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self.folder, prefix=".new-") as new:
                yield Path(new)
        except OSError as error:
            said = f"{error.strerror or error}; {what} of {self.count} could be kept"
            if what != "none":
                said = f"{error.strerror or error}: {what} of {self.count} is lost, those finished before stay good"
            raise OSError(error.errno, said, str(self.folder)) from error


# -- several processes -------------------------------------------------------------------------------------------------


def join(timeout: int = 60) -> None:
    """Make this process one of several that share sweeps; before the first array.

    JAX finds the others itself under Slurm, Open MPI and on cloud TPUs. Under another launcher the environment says
    JAX_COORDINATOR_ADDRESS (host:port of rank 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Should one process die, the
    others stop within about ``timeout`` seconds; the chunks that are finished stay good.
    """
    count, rank = (os.environ.get(f"JAX_{name}") for name in ("NUM_PROCESSES", "PROCESS_ID"))
    jax.distributed.initialize(
        num_processes=None if count is None else int(count),
        process_id=None if rank is None else int(rank),
        heartbeat_timeout_seconds=timeout,
    )


def agreed(flag: bool) -> bool:
    """What the process of rank 0 says; the others wait for it."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.asarray(flag)))


class Lines:
    """Progress on stderr: how many chunks are finished and how long the others will take, at most every ten seconds."""

    def __init__(self, what: str, pause: float = 10) -> None:
        self.what, self.pause = what, pause
        self.begun = self.said = time.monotonic()

    def __call__(self, done: int, count: int) -> None:
        """So many chunks of so many are finished."""
        now = time.monotonic()
        if done < count and now - self.said >= self.pause:
            self.said = now
            print(f"{self.what}: {left(done, count, now - self.begun)}", file=sys.stderr, flush=True)


def left(done: int, count: int, seconds: float) -> str:
    """ "12 of 400 chunks, 3 min left" after so many seconds."""
    rest = seconds / done * (count - done)
    unit = next((f"{rest / size:.0f} {name}" for name, size in (("h", 3600), ("min", 60)) if rest > 2 * size), None)
    return f"{done} of {count} chunks, {unit or f'{rest:.0f} s'} left"
