"""The gallery: what runs left, as one folder of pages that need no network. ``python -m experiments gallery``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

import experiments
from experiments import _record, _terminal
from sandbox import runtime

ROOT = Path(__file__).parents[2]
NEEDS = ("jinja2", "latex2mathml", "PIL")
Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")]


def gallery(names: Names = (), out: Path = Path("build/gallery"), record: Path = ROOT / "paper_figures") -> int:
    """Build a folder of pages from what the runs left; open its index.html in any browser, no network needed.

    A page a phenomenon: its statements typeset, each with the verdict of its proof and the gap of its simulation, what
    is false with its counterexample, the figures, the record; on some a figure with sliders, computed now. Statements
    that are not proved yet are, which takes minutes the first time.

    Exit status: 0 if the folder is built, 2 for bad input.

    Args:
        names: experiments that get a page; without one, all
        out: folder of the pages
        record: folder with NAME/numbers.json and the figures
    """
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        return _refuse(f"{', '.join(missing)} not installed: pip install -e '.[gallery]'")
    unknown = [name for name in names if name not in experiments.names()]
    if unknown:
        return _refuse(f"{unknown[0]!r} is no experiment; there are {', '.join(experiments.names())}")
    if not record.is_dir():
        return _refuse(f"record = {record}: there is no such folder; python -m experiments all --out {record} fills it")
    runtime.configure()
    try:
        _record.ready(out)
        return _build(tuple(names) or tuple(experiments.names()), out, record)
    except (_record.Unwritable, ValueError) as error:
        return _refuse(" ".join(str(error).split()))


def _build(names: Sequence[str], out: Path, record: Path) -> int:
    from experiments._gallery import page, render

    pages = []
    with _terminal.progress(len(names) + 1) as begin:
        for name in names:
            begin(name)
            pages.append(page.page(name, record / name))
        begin("pages")
        texts = {"index.html": render.index(pages)}
        texts |= {f"{p.name}.html": render.phenomenon(p, *page.neighbours(pages, p)) for p in pages}
        _record.save(out, [(name, _writer(text)) for name, text in texts.items()])
    for p in pages:
        if p.missing:
            print(p.missing)
    sizes = sum(map(len, texts.values())) / 1e6
    print(f"Written to {out}/: {len(texts)} pages, {sizes:.1f} MB; begin with {out / 'index.html'}")
    return 0


def _writer(text: str) -> Callable[[Path], object]:
    return partial(Path.write_text, data=text, encoding="utf-8", newline="\n")


def _refuse(words: str) -> int:
    print(f"experiments gallery: {words}", file=sys.stderr)
    return 2


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    try:
        return tyro.cli(gallery, prog="python -m experiments gallery", args=list(argv))
    except SystemExit as stop:
        return int(stop.code or 0)
