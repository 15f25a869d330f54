"""What a run says: a progress bar while it lasts, the table of verdicts, and where the files are."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any

import jax
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments._record import rounded_up
from sandbox.sweep import Lines, left

if TYPE_CHECKING:
    from experiments.harness import Row

PATIENCE = 2.0  # seconds before a progress bar shows


class Steps:
    """Called with the name of each step of a run as it begins; ``chunks`` says how far a sweep in that step is."""

    def __init__(self, bar: Progress | None, steps: int) -> None:
        self.bar, self.begun = bar, 0
        self.task = None if bar is None else bar.add_task("", total=steps)

    def __call__(self, step: str) -> None:
        self.step, self.since, self.lines = step, time.monotonic(), Lines(step)
        self._show(step, self.begun)
        self.begun += 1

    def chunks(self, done: int, count: int) -> None:
        """The sweep has finished so many chunks: said in the bar, or on a line now and then where there is no bar."""
        if self.bar is None:
            self.lines(done, count)
        else:
            self._show(f"{self.step}, {left(done, count, time.monotonic() - self.since)}", self.begun - 1)

    def _show(self, words: str, completed: int) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, description=words, completed=completed)


@contextmanager
def progress(steps: int) -> Iterator[Steps]:
    """A bar on a terminal's stderr, shown once the run takes over two seconds; call it with the name of each step."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    shown = Progress(*columns, console=Console(stderr=True), transient=True)
    if not shown.console.is_terminal or jax.process_index() > 0:
        yield Steps(None, steps)
        return
    begin = Steps(shown, steps)
    timer = Timer(PATIENCE, shown.start)
    timer.daemon = True
    timer.start()
    try:
        yield begin
    finally:
        timer.cancel()
        timer.join()  # it may be starting the bar just now
        if shown.live.is_started:
            shown.stop()


def console() -> Console:
    """Stdout: the terminal's width, or 120 columns and no colours in a file or pipe."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a Greek letter on an old terminal is no reason to stop
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False, soft_wrap=False)


def number(x: Any) -> str:
    """A number to four digits, as the table shows it; empty for None."""
    if x is None or isinstance(x, str):
        return x or ""
    return f"{x:,}" if isinstance(x, int) else f"{x:.4g}"


def print_verdicts(rows: Sequence[Row]) -> None:
    """The table (claim | source | proof | theory | simulation | gap | tolerance | holds), and what does not hold."""
    [(paper, _)] = Counter(row.theorem.source.key for row in rows).most_common(1) or [("", 0)]
    out = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("claim", overflow="fold")
    table.add_column("source", overflow="fold")
    table.add_column("proof", no_wrap=True)
    for heading in ("theory", "simulation", "gap", "tolerance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("holds", no_wrap=True)
    for row in rows:
        claim, check = row.theorem.id.replace("_", " "), row.check
        source = row.theorem.source.place if row.theorem.source.key == paper else str(row.theorem.source)
        proof = str(row.proof).removeprefix("proved (").removesuffix(")")
        cells = ["", "", "", ""]
        if check is not None:
            cells = [number(x) for x in (check.rhs, check.lhs, rounded_up(check.gap), check.tolerance)]
        style = None if row.holds else "bold red"
        table.add_row(claim, source, proof, *cells, "yes" if row.holds else "NO", style=style)
    out.print(table)
    out.print()
    for row in rows:
        if not row.holds:
            out.print(f"DOES NOT HOLD: {row.theorem.id}: {row.theorem.statement}\n  {row.reason()}")
    claims, fallen = ({row.theorem for row in some} for some in (rows, [row for row in rows if not row.holds]))
    simulated = {row.theorem for row in rows if row.check is not None}
    out.print(
        f"{len(claims)} claims of {paper}: {len(claims - fallen)} hold, {len(simulated)} of them in simulation too."
    )


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the user's report: one mapping a row, its keys the headings."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    headings = list(dict.fromkeys(key for row in rows for key in row))
    for heading in headings:
        text = any(isinstance(row.get(heading), str) for row in rows)
        table.add_column(heading, justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(number(row.get(heading)) for heading in headings))
    console().print(table)
