"""What this machine can do at most: products of matrices, copies, sigmoids; and a C loop compiled on the spot."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

SOURCE = r"""
#include <math.h>
#include <string.h>
enum { LANES = 64, MOST = 256 };

/* Descent of DPO in a table: every model has its own start, beta and rate; models sit in the lanes of a vector. */
void table(float *restrict logits, const float *restrict beta, const float *restrict rate,
           const int *restrict chosen, const int *restrict rejected,
           int models, int responses, int pairs, int steps) {
  static float moved[MOST][LANES], added[MOST][LANES];
  for (int first = 0; first < models; first += LANES) {
    const float *restrict b = beta + first;
    float pace[LANES], push[LANES];
    for (int j = 0; j < LANES; j++) pace[j] = rate[first + j] * b[j] / pairs;
    memset(moved, 0, sizeof moved);
    for (int step = 0; step < steps; step++) {
      memset(added, 0, sizeof(float) * LANES * responses);
      for (int n = 0; n < pairs; n++) {
        const int w = chosen[n], l = rejected[n];
        for (int j = 0; j < LANES; j++) push[j] = pace[j] / (1 + expf(b[j] * (moved[w][j] - moved[l][j])));
        for (int j = 0; j < LANES; j++) added[w][j] += push[j];
        for (int j = 0; j < LANES; j++) added[l][j] -= push[j];
      }
      for (int i = 0; i < responses; i++)
        for (int j = 0; j < LANES; j++) moved[i][j] += added[i][j];
    }
    for (int i = 0; i < responses; i++)
      for (int j = 0; j < LANES; j++) logits[(long)(first + j) * responses + i] += moved[i][j];
  }
}

void sigmoids(float *restrict y, const float *restrict x, int n, int times) {
  for (int k = 0; k < times; k++)
    for (int i = 0; i < n; i++) y[i] = 1 / (1 + expf(x[i] + 1e-7f * k));
}
"""
FLAGS = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]


@cache
def library() -> Any | None:
    """The C functions above, or None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    with TemporaryDirectory() as folder:
        source, made = Path(folder, "loop.c"), Path(folder, "loop.so")
        source.write_text(SOURCE)
        for last in (["-lmvec", "-lm"], ["-lm"]):  # a vector exponential, where the C library has one
            done = subprocess.run([compiler, *FLAGS, "-o", made, source, *last], capture_output=True, check=False)
            if done.returncode == 0:
                return ctypes.CDLL(str(made))
    return None


def pointer(x: np.ndarray) -> Any:
    return x.ctypes.data_as(ctypes.c_void_p)


def best(run: Callable[[], Any], rounds: int = 7) -> float:
    """The fewest seconds of several calls, after one that does not count."""
    run()
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def limits() -> dict[str, float]:
    """Gigaflops of a float32 matrix product, GB/s of copies from memory and cache, and 10^9 sigmoids a second (C)."""
    a, b = np.ones((512, 512), np.float32), np.ones((512, 512), np.float32)
    far, near = np.ones(1 << 24, np.float32), np.ones(1 << 14, np.float32)
    to_far, to_near = np.empty_like(far), np.empty_like(near)

    def copy_near() -> None:
        for _ in range(500):
            np.copyto(to_near, near)

    found = {
        "matrix product, GFLOP/s": 2 * 512**3 / best(lambda: a @ b) / 1e9,
        "copy of 64 MiB, GB/s": 2 * far.nbytes / best(lambda: np.copyto(to_far, far)) / 1e9,
        "copy of 64 KiB, GB/s": 2 * 500 * near.nbytes / best(copy_near) / 1e9,
    }
    if (c := library()) is not None:
        x, y = np.linspace(-5, 5, 4096, dtype=np.float32), np.empty(4096, np.float32)
        found["sigmoids, 10^9 a second"] = (
            4096 * 500 / best(lambda: c.sigmoids(pointer(y), pointer(x), 4096, 500)) / 1e9
        )
    return found
