"""What a run leaves behind: numbers as JSON, figures, and the stages finished so far. Each file is whole or absent."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import platform
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments._figures import FORMATS

DIGITS = 6
_ROOT = Path(__file__).parents[1]


def versions() -> dict[str, str]:
    """The versions that a run's numbers depend on, and its precision."""
    found = {name: version(name) for name in ("jax", "jaxlib", "numpy", "sympy")}
    python = ".".join(platform.python_version_tuple()[:2])
    return {**found, "python": python, "precision": jnp.dtype(jnp.result_type(float)).name}


# -- JSON --------------------------------------------------------------------------------------------------------------


def plain(x: Any) -> Any:
    """A value as JSON has it: floats to six significant digits, NaN as null, infinities as "inf" and "-inf".

    Raises TypeError for what JSON cannot say.
    """
    if x is None or isinstance(x, bool | str):
        return x
    if isinstance(x, PurePath):
        return x.as_posix()
    if isinstance(x, Mapping):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [plain(v) for v in x]
    if isinstance(x, int):
        return int(x)
    if isinstance(x, float):
        if math.isnan(x):
            return None
        return float(f"{x:.{DIGITS}g}") + 0.0 if math.isfinite(x) else f"{x}"  # + 0.0: -0.0 is 0.0
    if hasattr(x, "dtype") and np.asarray(x).dtype.kind in "biufU":
        return plain(np.asarray(x).tolist())
    raise TypeError(f"{type(x).__name__} {x!r:.60}: must be a number, a text, an array, or lists and dicts of them")


def rounded_up(gap: float) -> float:
    """A gap to one significant digit, rounded up: rounding error differs from machine to machine, its size does not."""
    if isinstance(gap, int) or not math.isfinite(gap) or gap <= 0:
        return gap
    unit = 10.0 ** math.floor(math.log10(gap))
    return float(f"{math.ceil(gap / unit * (1 - 1e-9)) * unit:.1g}")


def text(record: Mapping[str, Any]) -> str:
    """A record as JSON, lists of numbers on one line each."""

    def on_one_line(found: re.Match[str]) -> str:  # only line breaks go, and no text of JSON has any
        return re.sub(r"\n\s*", " ", re.sub(r"(?<=\[)\n\s*|\n\s*(?=\])", "", found[0]))

    spread = json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[[^\[\]{}]*\]", on_one_line, spread) + "\n"


# -- the stages finished so far ----------------------------------------------------------------------------------------


class Partial:
    """The finished stages of a run, in ``FOLDER/.partial``: there until the run completes, for ``--resume``.

    A stage counts only for the same setup, seed, versions and precision, and the same sources of what is simulated.
    """

    def __init__(self, folder: Path, setup: Any, seed: int, stages: Mapping[str, Callable[..., Any]]) -> None:
        self.folder = folder / ".partial"
        key = hashlib.sha256(json.dumps([plain(asdict(setup)), repr(setup), seed, versions()]).encode())
        sources = {*(_ROOT / "sandbox").rglob("*.py"), *(_ROOT / "theory").rglob("*.py")}
        with suppress(TypeError):  # a class or function made at the prompt has no file
            sources |= {Path(inspect.getfile(x)) for x in (type(setup), *map(inspect.unwrap, stages.values()))}
        for path in sorted(sources):
            key.update(path.read_bytes())
        self.key = key.hexdigest()[:16]

    def _path(self, stage: str) -> Path:
        return self.folder / f"{self.key}-{hashlib.sha256(stage.encode()).hexdigest()[:8]}.npz"

    def chunks(self, stage: str) -> Path:
        """The folder of the finished chunks of that stage's sweep."""
        return self._path(stage).with_suffix("")

    def read(self, stage: str) -> dict[str, np.ndarray] | None:
        """The arrays of a finished stage; None if it is not there."""
        with suppress(OSError, ValueError, zipfile.BadZipFile), np.load(self._path(stage)) as arrays:
            return {name: arrays[name] for name in arrays.files}
        return None

    def write(self, stage: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of a stage."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder) as new:
            np.savez(Path(new, "stage.npz"), **arrays)  # type: ignore[arg-type]  # keys are names of arrays
            os.replace(Path(new, "stage.npz"), self._path(stage))

    def forget(self) -> None:
        """Remove what an earlier run of the same setup left: this one does not resume it."""
        for left in self.folder.glob(f"{self.key}-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def remove(self) -> None:
        """Forget every stage: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


# -- all or nothing ----------------------------------------------------------------------------------------------------


class Unwritable(OSError):
    """A folder that cannot be written, and why."""


def ready(folder: Path) -> None:
    """Make the folder and try to write there, before anything is computed. Raises Unwritable."""
    with writing(folder), TemporaryDirectory(dir=_made(folder), prefix=_NEW) as new:
        Path(new, "tried").write_bytes(b"")


def save(folder: Path, files: Iterable[tuple[str, Callable[[Path], object]]]) -> list[str]:
    """Write files, each by its writer, and move them into ``folder`` when all are written; their names in order.

    If a writer fails, what lay in the folder stays as it was; a process that is killed leaves every file old or new.
    Runs that save at once do so one after the other, and a figure of an earlier run in another format goes, so that
    all files are of one run. Raises Unwritable.
    """
    names = []
    with writing(folder), TemporaryDirectory(dir=_made(folder), prefix=_NEW) as new:
        for name, write in files:
            write(Path(new, name))
            names.append(name)
        with _alone(folder):
            for name in names:
                os.replace(Path(new, name), folder / name)
            figures = {name.partition(".")[0] for name in names} - {"numbers"}
            for stale in (folder / f"{figure}.{kind}" for figure in figures for kind in FORMATS):
                if stale.name not in names:
                    stale.unlink(missing_ok=True)
            _sweep(folder)
    return names


_NEW = ".new-"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What is done inside writes there: an OSError becomes Unwritable."""
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"{folder}: cannot be written: {error.strerror or error}; --out names another folder"
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time is inside, on systems that can lock a file."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the system lets go of it if the process dies
        yield
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind, a day later: a younger one may still be at work."""
    for left in folder.glob(f"{_NEW}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left)
