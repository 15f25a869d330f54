"""Pages as HTML: templates beside this file, everything in them escaped, style and script inside each page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from experiments._gallery.page import Page, counted
from experiments._terminal import number

HERE = Path(__file__).parent


def index(pages: Sequence[Page]) -> str:
    """The first page: a card a phenomenon, and all verdicts counted, borrowed theorems once."""
    kinds = {c["anchor"] + c["statement"]: c["kind"] for p in pages for c in (*p.refuted, *p.holding)}
    moving = sum(p.movable is not None for p in pages)
    return (
        _templates()
        .get_template("index.html")
        .render(pages=pages, counted=counted(list(kinds.values())), movable=moving)
    )


def phenomenon(page: Page, before: Page | None, after: Page | None) -> str:
    """A phenomenon's page, with links to those beside it."""
    return _templates().get_template("page.html").render(page=page, before=before, after=after)


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.globals |= {name: Markup(_text(file)) for name, file in (("style", "style.css"), ("script", "movable.js"))}
    found.filters |= {
        "embedded": embedded,
        "number": number,
        "spaced": lambda name: name.replace("_", " "),
    }
    return found


def embedded(data: Any) -> Markup:
    """JSON that can stand inside a script element. Raises ValueError for a number that is not finite."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", r"\u003c"))


def _text(file: str) -> str:
    return (HERE / file).read_text(encoding="utf-8")
