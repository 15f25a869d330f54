from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib
import numpy as np
import pytest

from sandbox import runtime
from tests import conftest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys
import jax
from sandbox import runtime

runtime.configure(x64=sys.argv[1] == "1")
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
print(jax.jit(lambda x: (x * 3).sum())(jax.numpy.ones(5)).dtype, len(hits) > 0)
"""


def test_second_process_finds_the_programs_of_the_first(tmp_path):
    """A fresh process in each precision, twice: right dtype, programs from the cache, nothing on standard error."""
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for x64, dtype in [("1", "float64"), ("0", "float32")]:
        for cached in (False, True):
            run = subprocess.run(
                [sys.executable, "-W", "error", "-c", PROGRAM, x64],
                env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert (run.stdout.split(), run.stderr) == ([dtype, str(cached)], "")
    assert any(tmp_path.iterdir())


def test_cache_lies_in_the_checkout_one_a_version():
    assert runtime.cache_directory() == ROOT / ".cache" / "jax" / jaxlib.__version__
    ignored = (ROOT / ".gitignore").read_text().split()
    assert ".cache/" in ignored


def test_installed_copy_caches_in_the_users_directory(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "lib" / "sandbox" / "runtime.py"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert runtime.cache_directory() == tmp_path / "caches" / "softmax-sandbox" / "jax" / jaxlib.__version__


@pytest.mark.parametrize(
    ("platform", "caches"), [("darwin", "Library/Caches"), ("win32", "AppData/Local"), ("linux", ".cache")]
)
def test_caches_lie_where_each_system_keeps_them(monkeypatch, tmp_path, platform, caches):
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "lib" / "sandbox" / "runtime.py"))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    assert runtime.cache_directory() == tmp_path / caches / "softmax-sandbox" / "jax" / jaxlib.__version__


def test_root_key_is_typed_and_the_same_in_both_precisions():
    for seed in (0, 7, 2**32 - 1):
        bits = []
        for x64 in (False, True):
            with jax.enable_x64(x64):
                key = runtime.root_key(seed)
                assert (key.shape, str(jax.random.key_impl(key))) == ((), "threefry2x32")
                bits.append(np.asarray(jax.random.key_data(key)))
        np.testing.assert_array_equal(bits[0], bits[1])
        assert bits[0].tolist() == [0, seed]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "0"])
def test_seed_that_would_lose_bits_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed: .*2\*\*32"):
        runtime.root_key(seed)


def test_a_worker_lets_go_of_its_programs_before_it_runs_out_of_mappings(monkeypatch):
    program = jax.jit(lambda x: x + 1)
    for test, mapped, kept in ((20, 9_000, 1), (21, 20_000, 1), (40, 20_000, 0)):
        program(1.0)
        monkeypatch.setattr(conftest, "finished", iter([test]))
        monkeypatch.setattr(conftest, "mappings", lambda mapped=mapped: mapped)
        conftest.pytest_runtest_logfinish("a test", None)
        assert program._cache_size() == kept
