"""The suite's process: float64 unless SANDBOX_X64=0, no implicit rank promotion, no window, fixed examples."""

from __future__ import annotations

import os

# Before anything imports matplotlib or JAX, and for the processes that tests start. The suite is about numbers, not
# devices, and its workers would fight over one accelerator: JAX_PLATFORMS=cuda runs it there.
os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from hypothesis import HealthCheck, settings

from sandbox import runtime

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_numpy_rank_promotion", "raise")
runtime.configure(x64=os.environ.get("SANDBOX_X64", "1") != "0")

settings.register_profile(
    "house",
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # its clock is the machine's load, not the test's
)
settings.load_profile("house")
