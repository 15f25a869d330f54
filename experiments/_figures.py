"""How figures are made and saved: one style, the claim and its verdict below each, the same bytes in every run."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
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

    width, height = figure.get_size_inches()
    kind = path.suffix[1:]
    area = Bbox.from_extents(0, -below, width, height)
    figure.savefig(path, format=kind, metadata=FORMATS[kind], bbox_inches=area)
