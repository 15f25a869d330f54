"""This package against its peers and against the machine, in one table.

    python -m benchmarks [--rounds 7]

Each comparison runs its two sides in turn, round after round, and gives the median of the rounds' ratios with the
smallest and the largest; the ends of both sides are compared. One core: the process is bound to it, and all libraries
with it. The share is that of the machine's own limit, measured in the same run: sigmoids for the table, of which DPO
needs one a pair and step, products of matrices for the network. Peers that are not installed are left out, as is the C
loop where there is no compiler. Written: benchmarks/measured.json and benchmarks/growth.png.

Exit status 1 if two ends differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(os.cpu_count() or 1))
PART = "BENCHMARKS_PART"  # of the environment: what a process that this one started is to measure
AGREE = 1e-4  # parameters in float32, after a few hundred steps


# -- what a part measures ----------------------------------------------------------------------------------------------


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    end = run()
    return time.perf_counter() - begin, end


def compare(name: str, unit: float, ours: Any, peers: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Nanoseconds times ``unit`` a model-step of each side, and the ratios of the peers to ours."""
    import numpy as np

    sides = {"ours": ours, **{peer: side for peer, side in peers.items() if side is not None}}
    ends = {side: np.asarray(contestant.run()) for side, contestant in sides.items()}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, contestant in sides.items():
            times[side].append(timed(contestant.run)[0] / contestant.model_steps * 1e9 / unit)
    rows = {}
    for side in sides:
        ratios = np.array(times[side]) / np.array(times["ours"])
        gap = float(np.max(np.abs(ends[side] - ends["ours"])))
        rows[side] = {
            "time": float(np.median(times[side])), "best": min(times[side]), "gap": gap,
            "ratio": [float(f(ratios)) for f in (np.median, np.min, np.max)],
        }  # fmt: skip
    return {"name": name, "unit": "us" if unit == 1e3 else "ns", "sides": rows}


def one_core(rounds: int) -> dict[str, Any]:
    from benchmarks import contestants as c
    from benchmarks.machine import limits

    found: dict[str, Any] = {"limits": limits(), "tables": []}
    data, steps = c.table_data(1024), 200
    peers = {"C loop": c.c_table(data, steps), "NumPy, batched": c.numpy_table(data, steps)}
    if c.torch is not None:
        c.torch.set_num_threads(1)
        one = c.Table(*(x[:1] for x in data[:3]), *data[3:])
        peers |= {"PyTorch, batched": c.torch_table(data, steps), "PyTorch, eager loop": c.torch_table(one, steps)}
    found["tables"].append(compare("DPO, 64 logits, 64 pairs", 1, c.our_table(data, steps), peers, rounds))
    constants = {"ipo": "tau", "hinge": "beta", "cdpo": "beta", "robust_dpo": "beta", "exo": "beta", "simpo": "beta",
                 "discopop": "beta"}  # fmt: skip
    others = {f"ours, {loss}": c.our_table(data, steps, loss, name) for loss, name in constants.items()}
    found["losses"] = compare("other losses, the same table", 1, c.our_table(data, steps), others, rounds)
    prompts, steps = c.network_data(256), 20
    peers = {"NumPy, batched": c.numpy_network(prompts, steps)}
    if c.torch is not None:
        peers["PyTorch, vmap of grad"] = c.torch_network(prompts, steps)
    found["tables"].append(compare("DPO, network 16-64-10", 1e3, c.our_network(prompts, steps), peers, rounds))
    return found


def all_cores(rounds: int) -> dict[str, Any]:
    from dataclasses import replace

    import jax

    from benchmarks import contestants as c
    from benchmarks.growth import growth
    from benchmarks.machine import limits
    from experiments.entanglement.measure import follow
    from experiments.entanglement.setup import Setup
    from sandbox.sweep import sweep

    found: dict[str, Any] = {"limits": limits(), "tables": []}
    data, prompts = c.table_data(8192), c.network_data(512)
    found["tables"].append(compare("DPO, 64 logits, 64 pairs", 1, c.our_table(data, 200), {}, rounds))
    found["tables"].append(compare("DPO, network 16-64-10", 1e3, c.our_network(prompts, 20), {}, rounds))
    setup, program = replace(Setup(), runs=100_000, run_steps=1000), c.once()

    def runs(some: Any) -> Any:
        return follow(some, jax.random.key(0), lambda *a, **k: sweep(*a, compiled=program, **k))

    runs(replace(setup, runs=4096))  # compiles
    found["entanglement"] = timed(lambda: runs(setup))[0]
    found["growth"] = growth()
    return found


def against_trl(rounds: int) -> dict[str, Any]:
    """Microseconds of DPO's loss with its gradient on 64 pairs; nothing where TRL is not installed."""
    try:
        import trl  # noqa: F401 - before JAX, which warns of the forks that it makes
    except ImportError:
        return {}
    import jax
    import numpy as np

    jax.config.update("jax_cpu_enable_async_dispatch", False)  # a hand-over between threads costs more than the call
    from benchmarks import losses

    calls = losses.calls(losses.DPO)

    def block(run: Callable[[], Any]) -> float:
        return timed(lambda: [run() for _ in range(50)])[0] / 50 * 1e6

    us = np.array([[block(run) for run in calls.values()] for _ in range(rounds + 1)])[1:]
    ratios = us / us[:, list(calls).index("ours")][:, None]
    spread = np.median, np.min, np.max
    return {
        side: {"time": float(np.median(us[:, i])), "ratio": [float(f(ratios[:, i])) for f in spread]}
        for i, side in enumerate(calls)
    }


def share(rounds: int) -> dict[str, Any]:
    """Seconds of a sweep in this process, which may share it with others."""
    from sandbox.sweep import agreed, join

    if os.environ.get("JAX_NUM_PROCESSES"):
        join()
    from benchmarks import contestants as c

    contestant = c.our_table(c.table_data(4096), 500, chunk=512)
    contestant.run()
    taken = []
    for _ in range(rounds):
        agreed(True)
        taken.append(timed(contestant.run)[0])
    return {"seconds": taken}


PARTS = {"one": one_core, "all": all_cores, "share": share}


# -- the run -----------------------------------------------------------------------------------------------------------


def start(part: str, rounds: int, cores: list[int], **environment: str) -> subprocess.Popen[str]:
    """This program again, bound to some cores, to measure one part."""
    threads = {name: str(len(cores)) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    made = {**os.environ, **threads, **environment, PART: part}

    def bind() -> None:
        if sys.platform == "linux":
            os.sched_setaffinity(0, cores)

    words = [sys.executable, "-m", "benchmarks", "--rounds", str(rounds)]
    return subprocess.Popen(words, env=made, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, preexec_fn=bind)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=1800)
    if process.returncode:
        sys.exit(f"benchmarks: a part of the measurement failed with status {process.returncode}")
    return json.loads(out.splitlines()[-1])


def measure(rounds: int) -> dict[str, Any]:
    import socket

    found = {"one core": result(start("one", rounds, CORES[:1])), "all cores": result(start("all", rounds, CORES))}
    found["losses with TRL"] = result(start("trl", rounds, CORES[:1]))
    if len(CORES) > 1:
        alone = result(start("share", rounds, CORES[:1]))["seconds"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        given = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        both = [start("share", rounds, CORES[rank : rank + 1], JAX_PROCESS_ID=str(rank), **given) for rank in range(2)]
        together = [result(process)["seconds"] for process in both]
        found["two processes"] = {"one": alone, "two": [max(pair) for pair in zip(*together, strict=True)]}
    return found


def machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
    versions = {}
    for package in ("jax", "numpy", "torch", "trl"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {
        "processor": name,
        "cores": len(CORES),
        "load before": load,
        "python": platform.python_version(),
        **versions,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Against peers and the machine.")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each side")
    options = parser.parse_args()
    if part := os.environ.get(PART):
        from benchmarks.machine import library

        library()  # before JAX, which warns of a fork
        if part == "trl":
            print(json.dumps(against_trl(options.rounds)))
            return 0
        from sandbox import runtime

        runtime.configure(x64=False)
        print(json.dumps(PARTS[part](options.rounds)))
        return 0
    from benchmarks import report

    record = {"machine": machine(), **measure(options.rounds)}
    (HERE / "measured.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return report.report(record, HERE / "growth.png", AGREE)


if __name__ == "__main__":
    sys.exit(main())
