"""Figures that a reader can move: sliders over a sweep that JAX computed.

Everything is placed when the gallery is built: what goes into a page are points of the picture, a list for each place
of the sliders, and the script of the page does no more than look them up. A picture is drawn without the script, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Axis", "Mark", "Movable", "Panel", "Reading", "Slider", "Word", "drawn"]

WIDTH, HEIGHT = 420, 320  # of a panel, in the unit of its points: a twentieth of a millimetre or so on a screen
LEFT, RIGHT, TOP, BOTTOM = 54, 24, 28, 48
KINDS = ("line", "area", "dots", "bars")
COLOURS = ("blue", "red", "green", "pink", "orange", "sky", "ink", "grey")  # of style.css, which follow dark and light
DASHES = ("", "7 4", "2 4", "9 4 2 4")
Values = Any  # an array, or nested lists of numbers


@dataclass(frozen=True)
class Slider:
    """A number that the reader chooses among ``values``.

    label: what it is, with its unit. shown: each value in words, by default the number to three digits. start: the
    place at first.
    """

    label: str
    values: Values
    shown: Sequence[str] = ()
    start: int = 0

    def words(self) -> list[str]:
        """What is said of each value."""
        return list(self.shown) or [f"{x:.3g}" for x in self.values]


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high`` with its ``label`` (unit in it) and the numbers that are written at it."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False
    names: Sequence[str] = ()  # what is written instead of the numbers

    def share(self, x: Values) -> np.ndarray:
        """Where numbers lie: 0 at the low end, 1 at the high end; at most a little beyond."""
        low, high, x = (np.log(v) if self.log else np.asarray(v, float) for v in (self.low, self.high, x))
        return np.clip((x - low) / (high - low), -0.2, 1.2)


@dataclass(frozen=True)
class Mark:
    """A line, an area, dots or bars (from y to ``top``) in a panel.

    x, y, top: numbers on the last axis; axes before it are places of the sliders of ``by``, which are their numbers in
    the list of sliders. What has one axis alone does not move. label: for the legend; none for an empty one.
    """

    kind: str
    x: Values
    y: Values
    by: tuple[int, ...] = ()
    top: Values = None
    label: str = ""
    colour: str = "ink"
    dash: str = ""
    width: float = 2
    fill: float = 0.14  # opacity of an area


@dataclass(frozen=True)
class Word:
    """A word that stands at a place of a panel."""

    x: float
    y: float
    text: str
    colour: str = "ink"
    anchor: str = "middle"


@dataclass(frozen=True)
class Panel:
    """Two axes and what is drawn in them. about: the picture in a sentence, for those who do not see it."""

    title: str
    about: str
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    words: Sequence[Word] = ()


@dataclass(frozen=True)
class Reading:
    """A number or word below the sliders: ``values`` has an axis for each slider of ``by``."""

    label: str
    values: Values
    by: tuple[int, ...]
    form: str = "{:.3g}"


@dataclass(frozen=True)
class Movable:
    """A figure that moves. caption: what is shown and what to try."""

    title: str
    caption: str
    sliders: Sequence[Slider]
    panels: Sequence[Panel]
    readings: Sequence[Reading] = ()


# -- places in the picture ---------------------------------------------------------------------------------------------


def _each(values: Values, of: Callable[[Any], Any]) -> Any:
    """``of`` of every innermost list of numbers, in nested lists."""
    if isinstance(values, np.ndarray) or hasattr(values, "dtype"):
        values = np.asarray(values).tolist()
    nested = len(values) > 0 and not np.isscalar(values[0])
    return [_each(v, of) for v in values] if nested else of(values)


def _across(axis: Axis) -> Callable[[Any], list[float]]:
    return lambda x: _pixels(LEFT + axis.share(x) * (WIDTH - LEFT - RIGHT))


def _up(axis: Axis) -> Callable[[Any], list[float]]:
    return lambda y: _pixels(HEIGHT - BOTTOM - axis.share(y) * (HEIGHT - TOP - BOTTOM))


def _pixels(x: np.ndarray) -> list[float]:
    """To a tenth of a unit. Raises ValueError for what is no number."""
    if not np.isfinite(x).all():
        raise ValueError("a mark: must be made of finite numbers")
    return [int(v) if v == int(v) else v for v in np.round(x, 1).tolist()]


def _at(values: Any, by: Sequence[int], places: Sequence[int]) -> Any:
    """What stands at the sliders' places in nested lists: what the script does, too."""
    for slider in by:
        if values and isinstance(values[0], list):
            values = values[places[slider]]
    return values


def _path(mark: Mapping[str, Any], places: Sequence[int]) -> str:
    """A mark as the d of an SVG path: what the script does, too."""
    x, y, top = (_at(mark[name], mark["by"], places) for name in ("x", "y", "top"))
    points = [f"{a:g} {b:g}" for a, b in zip(x, y, strict=True)]
    if mark["kind"] == "bars":
        return "".join(f"M{p}V{t:g}" for p, t in zip(points, top, strict=True))
    if mark["kind"] == "dots":
        return "".join(f"M{p}h0" for p in points)
    return "M" + "L".join(points) + ("Z" if mark["kind"] == "area" else "") if points else ""


# -- what a template needs ---------------------------------------------------------------------------------------------


def drawn(movable: Movable) -> dict[str, Any]:
    """The figure as the template and the script read it; ``data`` is what is embedded as JSON.

    Raises ValueError for numbers that are not finite, and for a mark, colour or slider that there is not.
    """
    places = [slider.start for slider in movable.sliders]
    panels, moving = [], []
    for panel in movable.panels:
        marks = []
        for mark in panel.marks:
            placed = _placed(panel, mark, movable.sliders)
            marks.append({**_look(mark), "d": _path(placed, places), "moves": bool(mark.by), "label": mark.label})
            if mark.by:
                moving.append(placed)
        words = [
            {"x": _across(panel.x)([w.x])[0], "y": _up(panel.y)([w.y])[0], "text": w.text, "colour": w.colour,
             "anchor": w.anchor} for w in panel.words
        ]  # fmt: skip
        panels.append({
            "title": panel.title, "about": panel.about, "marks": marks, "words": words,
            "x": {"label": panel.x.label, "ticks": _ticks(panel.x, _across)},
            "y": {"label": panel.y.label, "ticks": _ticks(panel.y, _up)},
            "legend": [m for m in marks if m["label"]],
        })  # fmt: skip
    readings = [
        {"label": r.label, "by": list(r.by), "shown": _each(r.values, _words(r.form))} for r in movable.readings
    ]
    sliders = [
        {"label": s.label, "last": len(s.values) - 1, "start": s.start, "shown": s.words()} for s in movable.sliders
    ]
    inside = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
    return {
        "title": movable.title, "caption": movable.caption, "sliders": sliders, "panels": panels,
        "box": {"width": WIDTH, "height": HEIGHT, **inside},
        "readings": [{"label": r["label"], "now": _at(r["shown"], r["by"], places)[0]} for r in readings],
        "data": {
            "sliders": [s["shown"] for s in sliders],
            "marks": moving,
            "readings": [{"by": r["by"], "shown": r["shown"]} for r in readings],
        },
    }  # fmt: skip


def _words(form: str) -> Callable[[Any], list[list[str]]]:
    """Numbers or words as they are shown, each a list of its own: it has an axis for every slider."""

    def shown(value: Any) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a reading: must be a finite number or a word")
        return value if isinstance(value, str) else form.format(value).replace("-", "\N{MINUS SIGN}")

    return lambda row: [[shown(value)] for value in row]


def _placed(panel: Panel, mark: Mark, sliders: Sequence[Slider]) -> dict[str, Any]:
    """A mark in points of the picture."""
    if mark.kind not in KINDS or mark.colour not in COLOURS or mark.dash not in DASHES:
        raise ValueError(f"a mark: {mark.kind}, {mark.colour}, {mark.dash!r}: of {KINDS}, {COLOURS}, {DASHES}")
    if not all(0 <= k < len(sliders) for k in mark.by):
        raise ValueError(f"a mark: by {mark.by}: there are {len(sliders)} sliders")
    up = _up(panel.y)
    return {
        "kind": mark.kind, "by": list(mark.by), "x": _each(mark.x, _across(panel.x)), "y": _each(mark.y, up),
        "top": [] if mark.top is None else _each(mark.top, up),
    }  # fmt: skip


def _look(mark: Mark) -> dict[str, Any]:
    return {"kind": mark.kind, "colour": mark.colour, "dash": mark.dash, "width": mark.width, "fill": mark.fill}


def _ticks(axis: Axis, place: Callable[[Axis], Callable[[Any], list[float]]]) -> list[tuple[float, str]]:
    names = axis.names or [f"{t:g}".replace("-", "\N{MINUS SIGN}") for t in axis.ticks]
    return list(zip(place(axis)(axis.ticks), names, strict=True))
