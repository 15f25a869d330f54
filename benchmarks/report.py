"""The table of ``python -m benchmarks`` and its figure, from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import FLOPS, OURS
from benchmarks.growth import draw


def limit(comparison: dict[str, Any], limits: dict[str, float]) -> float | None:
    """The least time a model-step could take, in the unit of the comparison."""
    if comparison["unit"] == "us":
        return FLOPS / limits["matrix product, GFLOP/s"] / 1e3
    rate = limits.get("sigmoids, 10^9 a second")
    return None if rate is None else 64 / rate


def rows(where: str, comparison: dict[str, Any], least: float | None) -> list[list[str]]:
    made = []
    for side, found in comparison["sides"].items():
        name = OURS if side == "ours" else side
        middle, low, high = found["ratio"]
        ratio = "" if side == "ours" else f"{middle:,.1f} ({low:,.1f}-{high:,.1f})"
        share = "" if least is None else f"{least / found['time']:.0%}"
        time = f"{found['time']:,.1f} {comparison['unit']}"
        made.append([comparison["name"], where, name, time, ratio, share, f"{found['gap']:.0e}" if ratio else ""])
    return made


def report(record: dict[str, Any], figure: Path, agree: float) -> int:
    """Print the table and draw the figure; 1 if two ends differ."""
    machine, one, every = record["machine"], record["one core"], record["all cores"]
    said = ", ".join(f"{name} {value}" for name, value in machine.items())
    out = Console(width=150, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title=f"{said}; float32", title_justify="left", pad_edge=False)
    for heading in ("workload", "cores", "who"):
        table.add_column(heading, no_wrap=True)
    for heading in ("a model-step", "times ours (least-most)", "share of limit", "gap of ends"):
        table.add_column(heading, justify="right", no_wrap=True)
    for where, part in (("one", one), ("all", every)):
        for comparison in part["tables"]:
            # the sigmoids of the C loop are one core's: the limit of all is that times the cores
            least = limit(comparison, part["limits"])
            if where == "all" and comparison["unit"] == "ns" and least is not None:
                least /= machine["cores"]
            for row in rows(where, comparison, least):
                table.add_row(*row)
            table.add_section()
    for row in rows("one", one["losses"], None):
        table.add_row(*row[:-1], "")  # other losses end elsewhere
    table.add_section()
    for side, found in record["losses with TRL"].items():
        middle, low, high = found["ratio"]
        names = {"ours": OURS, "eager": "PyTorch, eager"}
        ratio = "" if side == "ours" else f"{middle:,.1f} ({low:,.1f}-{high:,.1f})"
        table.add_row(
            "DPO loss and gradient, 64 pairs", "one", names.get(side, side), f"{found['time']:,.1f} us", ratio
        )
    table.add_section()
    seconds = every["entanglement"]
    table.add_row(
        "entanglement: 10^5 runs, 10^3 steps", "all", OURS, f"{seconds / 1e8 * 1e9:,.0f} ns", f"{seconds:.1f} s"
    )
    if shared := record.get("two processes"):
        ratios = np.array(shared["one"]) / np.array(shared["two"])
        table.add_row("two processes, a core each", "all", OURS, "",
                      f"{np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f}) x one")  # fmt: skip
    out.print(table)
    limits = {"one core": one["limits"], f"{machine['cores']} cores": every["limits"]}
    for where, found in limits.items():
        out.print(f"limits, {where}: " + "; ".join(f"{name} {value:.3g}" for name, value in found.items()))
    draw(every["growth"], f"{machine['processor']}, {machine['cores']} cores, jax {machine['jax']}, float32", figure)
    out.print("Written to benchmarks/: measured.json, growth.png")
    gaps = [
        side["gap"] for part in (one, every) for comparison in part["tables"] for side in comparison["sides"].values()
    ]
    if max(gaps) > agree:
        out.print(f"DIFFER: two ends of one workload by {max(gaps):.1e}, more than {agree:.0e}")
    return int(max(gaps) > agree)
