"""Figures of a record, small enough to stand inside a page: without their caption, which the page has as text."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

from experiments._figures import caption_height

COLOURS = 128  # of a picture: enough for a colour map, a third of the bytes
WIDEST = 1600  # pixels
THUMBNAIL = 560


class Picture(NamedTuple):
    """A picture as a data URI, and its size in pixels of a page."""

    data: str
    width: int
    height: int


def picture(path: Path, words: str, widest: int = WIDEST) -> Picture | None:
    """The figure that was saved there with the caption ``words``; None if there is no such file.

    Raises ValueError for a file that is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            dots: Any = opened.info.get("dpi", (200, 200))[0]  # an inch
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: is no picture: {error}") from error
    kept = image.height - round(caption_height(image.width / dots, words) * dots)
    if kept > 0:
        image = image.crop((0, 0, image.width, kept))
    if image.width > widest:
        image = image.resize((widest, round(image.height * widest / image.width)), Image.Resampling.LANCZOS)
    few = image.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    few.save(out, "PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    return Picture(f"data:image/png;base64,{data}", image.width // 2, image.height // 2)
