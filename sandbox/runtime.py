"""How a process is set up: precision, the generator of random keys, the cache of compiled programs.

Entry points (the command line, a notebook, the test suite) call ``configure`` once, before the first array. Importing a
module never does, so a program that imports this package keeps its own precision.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jaxlib

GENERATOR = "threefry2x32"
"""The generator of every key: counter-based, the same bits on every device, whatever JAX's default becomes."""


def configure(x64: bool = True) -> None:
    """Set the precision (float64, or float32 if ``x64`` is false), the generator, and the persistent compilation cache.

    Each core becomes a device, over which sweeps are spread; all else runs on the first.

    Every program is cached, however small: compiling is most of the time of a short experiment. The directory is
    ``cache_directory()``, or that of the environment variable ``JAX_COMPILATION_CACHE_DIR`` where it is set.
    """
    jax.config.update("jax_enable_x64", x64)
    with suppress(RuntimeError):  # once arrays exist, the devices are what they are
        jax.config.update(
            "jax_num_cpu_devices", len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
        )
    jax.config.update("jax_default_prng_impl", GENERATOR)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_directory() -> Path:
    """Directory of the compiled programs: ``.cache/jax/VERSION`` of the checkout, else of the user's caches.

    One a version of jaxlib, since entries of mixed versions have crashed. Nothing is created here.
    """
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        return checkout / ".cache" / "jax" / jaxlib.__version__
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "softmax-sandbox" / "jax" / jaxlib.__version__


def root_key(seed: int) -> jax.Array:
    """Return the typed key of shape () that an experiment splits; the same bits in both precisions.

    Raises ValueError unless 0 <= seed < 2**32: of a larger seed float32 mode would drop the upper half.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed!r} is not an integer with 0 <= seed < 2**32")
    return jax.random.key(seed, impl=GENERATOR)


@cache
def quickly_compiled(level: int) -> dict[str, Any]:
    """The options for ``jax.jit`` of a cheap compilation on this device, as far as this version of XLA knows them.

    level: how hard XLA's backend tries. On a processor 0 compiles the toys here in about a sixth of the usual time, but
    what it compiles runs several times slower; 1 takes less than half of the usual time, and networks train as fast.
    """
    wanted = {
        "xla_backend_optimization_level": level,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }
    known = {}
    for name, value in wanted.items():
        with suppress(jax.errors.JaxRuntimeError):  # it refuses an option that it does not know
            jax.jit(lambda x: x, compiler_options={name: value})(0.0)
            known[name] = value
    return known
