"""Programs traced once: a stage, or a claim along a run, is kept as StableHLO until a source or a library changes.

JAX's own cache spares the compiler, not the tracing and lowering in Python before it, which is most of a short run.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from sandbox.runtime import cache_directory, quickly_compiled
from theory import _ledger

SOURCES = ("sandbox", "theory", "experiments")


def run(function: Callable[..., Any], /, *args: Any, **kept: Any) -> Any:
    """Return ``function(*args)``, arrays in and dicts, tuples or lists of arrays out, as one compiled program.

    ``kept`` is that of ``compiled``.
    """
    return compiled(function, *args, **kept)(*args)


def compiled(
    function: Callable[..., Any],
    /,
    *args: Any,
    name: str,
    made_of: str,
    written: Callable[..., Any],
    level: int | None = None,
    **shardings: Any,
) -> Callable[..., Any]:
    """The program of ``function`` for arguments such as ``args``.

    name: of its file. made_of: in words, all that the program depends on besides sources, shapes and types (the stage,
    the setup, a tolerance). written: the function whose source says what is computed; where that is none of this
    project's own sources, a test's say, nothing is kept. level: of ``sandbox.runtime.quickly_compiled``; None: as
    JAX compiles by itself. shardings: of ``jax.jit``.
    """
    jit = partial(jax.jit, compiler_options=None if level is None else quickly_compiled(level), **shardings)
    if not _ours(written):
        return jit(function)
    shapes = str(jax.tree.map(jax.typeof, args))
    settings = (str(jnp.result_type(float)), jax.default_backend(), jax.device_count(), *shardings)
    digest = hashlib.sha256(repr((made_of, shapes, settings)).encode()).hexdigest()[:16]
    path = directory() / f"{name}-{digest}-{_fingerprint()[:16]}.stablehlo"
    with suppress(OSError):
        return jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    try:
        exported = jax.export.export(jax.jit(function, **shardings))(*args)
    except (ValueError, NotImplementedError):  # a call that JAX does not promise to keep, into LAPACK for instance
        return jit(function)
    with suppress(OSError):  # a cache that cannot be written is slow, not wrong
        _keep(path, bytes(exported.serialize()), f"{name}-{digest}-*.stablehlo")
    return jit(exported.call)


def directory() -> Path:
    """Where programs are kept: beside the compiled ones. Nothing is created here."""
    return cache_directory().parents[1] / "programs"


def _keep(path: Path, program: bytes, older: str) -> None:
    for old in path.parent.glob(older):
        old.unlink(missing_ok=True)
    _ledger.write(path, program)


@cache
def _fingerprint() -> str:
    """A digest of every file of the packages, and of every library installed."""
    found = hashlib.sha256(repr(sorted({(d.name, d.version) for d in distributions()})).encode())
    found.update(_ledger.fingerprint(SOURCES, "*").encode())  # files of data, too
    return found.hexdigest()


def _ours(function: Callable[..., Any]) -> bool:
    """Is it written in a file of this project's packages?"""
    while isinstance(function, partial):
        function = function.func
    try:
        file = Path(inspect.getfile(inspect.unwrap(function)))
    except TypeError:
        return False
    return any(file.is_relative_to(_ledger.ROOT / package) for package in SOURCES)
