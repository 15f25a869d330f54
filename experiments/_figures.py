"""How figures are made and saved: one style, the claim and its verdict below each, the same bytes in every run."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
Job = tuple["Figure", float, list[Path]]  # with the caption's height, and the files
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
    width, height = figure.get_size_inches()
    top = -_PAD / 72 / height
    if words:
        figure.text(
            _PAD / 72 / width, top, "\n".join(_wrapped(width, words)), va="top", ha="left", fontsize=_SIZE,
            color="0.25", linespacing=_LEADING, parse_math=False, in_layout=False,
        )  # fmt: skip
    return caption_height(width, words)


def caption_height(width: float, words: str) -> float:
    """Height of a caption below a figure of that width, inches."""
    return (len(_wrapped(width, words)) * _SIZE * _LEADING + 2 * _PAD) / 72 if words else 0.0


def _wrapped(width: float, words: str) -> list[str]:
    letters = int((72 * width - 2 * _PAD) / (0.52 * _SIZE))  # DejaVu Sans is about half as wide as high
    kept = re.sub(r"(?<=\d) (?=[a-z])", "\N{NO-BREAK SPACE}", words)  # a number stays with its noun
    return [line for part in kept.split("\n") for line in textwrap.wrap(part, letters) or [""]]


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
    """Saves figures, with one process more where there is a processor for it: ``write`` each, and then ``wait``.

    Half of a short run is drawing, which is Python on one processor. The other process takes the figures from the
    first one on while the later ones are still made; this one takes them from the end.
    """

    def __init__(self, quick: bool = False) -> None:
        self._quick, self._thread = quick, ThreadPoolExecutor(1)
        self._second: subprocess.Popen[bytes] | None = None
        self._jobs: deque[Job] = deque()
        self._left: deque[Job] = deque()  # what the other process could not draw
        self._taken: list[Future[None]] = []

    def __enter__(self) -> Drawers:
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)
        second = self._second
        if second is not None:
            second.kill()  # the thread may be waiting for its answer
        self._thread.shutdown()
        self._end()  # it may have been started since

    def write(self, figure: Figure, below: float, kinds: Sequence[str], path: Path) -> None:
        """As the function ``write``, in each of the formats, beside ``path``; it is done only after ``wait``.

        One process draws all formats of a figure, in their order: a figure that was drawn before may come out
        differently in the last digits, and a run must leave the same bytes whichever process was free.
        """
        self._jobs.append((figure, below, [path.absolute().with_suffix(f".{kind}") for kind in kinds]))
        if (os.cpu_count() or 1) > 1:
            self._taken.append(self._thread.submit(self._draw_first))

    def wait(self) -> None:
        """Return once all is written. Raises what went wrong in the other process."""
        while job := _popped(self._jobs.pop):
            _write_all(*job)
        for taken in self._taken:
            taken.result()
        self._taken.clear()
        while self._left:
            _write_all(*self._left.popleft())

    def _draw_first(self) -> None:
        job: Job | None = None
        try:
            second = self._started()  # it is there before a figure is taken: this process may draw them all until then
            job = _popped(self._jobs.popleft)
            if job is not None:
                self._ask(second, pickle.dumps(job))
        except (AttributeError, TypeError, pickle.PicklingError):  # a function inside that has no name, say
            assert job is not None
            self._left.append(job)
        except (EOFError, BrokenPipeError):  # the process was killed, for memory perhaps
            self._end()
            if job is not None:
                self._left.append(job)

    def _end(self) -> None:
        second, self._second = self._second, None
        if second is not None:
            second.kill()
            second.communicate()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._second is None:
            program = f"from experiments import _figures; _figures.serve({self._quick})"
            place = Path(__file__).parents[1]
            self._second = subprocess.Popen(
                [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=place
            )
            self._ask(self._second, pickle.dumps(None))
        return self._second

    @staticmethod
    def _ask(second: subprocess.Popen[bytes], job: bytes) -> None:
        assert second.stdin is not None and second.stdout is not None
        second.stdin.write(job)
        second.stdin.flush()
        problem = pickle.load(second.stdout)
        if problem is not None:
            raise problem


def _popped(pop: Callable[[], Job]) -> Job | None:
    """A job, or None where there is none left: the other process may have taken it a moment ago."""
    try:
        return pop()
    except IndexError:
        return None


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
                if job is not None:  # the first says only that the process is there
                    _write_all(*job)
                problem = None
            except Exception as error:  # it is raised where the figure comes from
                problem = error
            sys.stdout.buffer.write(pickle.dumps(problem))
            sys.stdout.buffer.flush()
