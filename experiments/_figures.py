"""How figures are made and saved: one style, the claim and its verdict below each, the same bytes in every run."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib takes a second to import: only those who draw do
    from matplotlib.figure import Figure

FORMATS: dict[str, dict[str, Any]] = {  # each with what would differ from run to run
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
_SIZE, _LEADING, _PAD = 7.0, 1.35, 5.0  # of a caption's letters, lines and margin, points (lines: of the letters' size)


@contextmanager
def style(quick: bool = False) -> Iterator[None]:
    """Draw and save in the style of the house, without a window; every figure made inside is closed afterwards.

    quick: with half the dots an inch.
    """
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    with plt.style.context(Path(__file__).with_name("house.mplstyle")):
        plt.rcParams["savefig.dpi"] /= 2 if quick else 1
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


def caption(figure: Figure, words: str) -> float:
    """Write a caption below a figure, wrapped to its width; return the height that it needs, inches.

    It stands outside of the figure's own area, so that nothing moves in there; ``write`` saves both.
    """
    if not words:
        return 0.0
    width, height = figure.get_size_inches()
    letters = int((72 * width - 2 * _PAD) / (0.52 * _SIZE))  # DejaVu Sans is about half as wide as high
    kept = re.sub(r"(?<=\d) (?=[a-z])", "\N{NO-BREAK SPACE}", words)  # a number stays with its noun
    lines = [line for part in kept.split("\n") for line in textwrap.wrap(part, letters) or [""]]
    top = -_PAD / 72 / height
    figure.text(
        _PAD / 72 / width, top, "\n".join(lines), va="top", ha="left", fontsize=_SIZE, color="0.25",
        linespacing=_LEADING, parse_math=False, in_layout=False,
    )  # fmt: skip
    return (len(lines) * _SIZE * _LEADING + 2 * _PAD) / 72


def write(figure: Figure, below: float, path: Path) -> None:
    """Save a figure and ``below`` inches of caption, in the format that the path's suffix names."""
    from matplotlib.transforms import Bbox

    _lay_out(figure)
    width, height = figure.get_size_inches()
    kind = path.suffix[1:]
    area = Bbox.from_extents(0, -below, width, height)
    figure.savefig(path, format=kind, metadata=FORMATS[kind], bbox_inches=area)


def _lay_out(figure: Figure) -> None:
    """Place the axes, once for all formats: ``savefig`` draws a figure that has a layout engine twice."""
    import matplotlib.pyplot as plt

    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(plt.rcParams["savefig.dpi"])  # letters have the width that they will have
        engine.execute(figure)
        with plt.rc_context({"figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)


class Drawers:
    """Saves figures, from the second on with one process more, where there is a processor for it: ``write``, ``wait``.

    Half of a short run is drawing, which is Python on one processor.
    """

    def __init__(self, quick: bool = False) -> None:
        self._quick, self._thread = quick, ThreadPoolExecutor(1)
        self._second: subprocess.Popen[bytes] | None = None
        self._drawing: tuple[Future[None], tuple[Figure, float, list[Path]]] | None = None
        self._begun = 0

    def __enter__(self) -> Drawers:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._thread.shutdown()

    def write(self, figure: Figure, below: float, kinds: Sequence[str], path: Path) -> None:
        """As the function ``write``, in each of the formats, beside ``path``; it may be done only after ``wait``.

        One process draws all formats of a figure, in their order: a figure that was drawn before may come out
        differently in the last digits, and a run must leave the same bytes whichever process was free.
        """
        self._begun += 1
        paths = [path.absolute().with_suffix(f".{kind}") for kind in kinds]
        idle = self._drawing is None or self._drawing[0].done()
        if self._begun > 1 and idle and (os.cpu_count() or 1) > 1:
            try:
                job = pickle.dumps((figure, below, paths))
            except (AttributeError, TypeError, pickle.PicklingError):  # a function inside that has no name, say
                return _write_all(figure, below, paths)
            self.wait()
            self._drawing = self._thread.submit(self._send, job), (figure, below, paths)
        else:
            _write_all(figure, below, paths)

    def wait(self) -> None:
        """Return once all is written. Raises what went wrong in the other process."""
        drawing, self._drawing = self._drawing, None
        if drawing is None:
            return
        try:
            drawing[0].result()
        except (EOFError, BrokenPipeError):  # it was killed, for memory perhaps
            self._end()
            _write_all(*drawing[1])

    def _end(self) -> None:
        second, self._second = self._second, None
        if second is not None:
            second.kill()
            second.communicate()

    def _send(self, job: bytes) -> None:
        if self._second is None:
            program = f"from experiments import _figures; _figures.serve({self._quick})"
            place = Path(__file__).parents[1]
            self._second = subprocess.Popen(
                [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=place
            )
        assert self._second.stdin is not None and self._second.stdout is not None
        self._second.stdin.write(job)
        self._second.stdin.flush()
        problem = pickle.load(self._second.stdout)
        if problem is not None:
            raise problem


def _write_all(figure: Figure, below: float, paths: Iterable[Path]) -> None:
    for path in paths:
        write(figure, below, path)


def serve(quick: bool) -> None:
    """What the other process does: read a figure, write it, say so, until there is no more."""
    with style(quick):
        while True:
            try:
                job = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                _write_all(*job)
                problem = None
            except Exception as error:  # it is raised where the figure comes from
                problem = error
            sys.stdout.buffer.write(pickle.dumps(problem))
            sys.stdout.buffer.flush()
