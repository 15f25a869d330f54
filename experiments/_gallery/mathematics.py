"""A statement's LaTeX as MathML, which browsers typeset by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

BREAK = re.compile(r"(?<=,)\s*\\[;, ]|\s*\\quad|(?=\\iff|\\Rightarrow)")  # where a line may end, outside of brackets
PAIRS = ("{", "}"), ("(", ")"), ("[", "]"), (r"\left", r"\right"), (r"\langle", r"\rangle")
# What the converter takes for letters, or gives other spaces than TeX does.
OPERATORS, ARROWS, BRACKETS, TIGHT = "↔±∓:;∼", "⟺⇒→", "⟨⟩", "|/‖"
BEFORE_A_SIGN = r"<mo[^>]*>(?:[(\[{,=≤≥⟺⇒→∼]|&lt;|&gt;)</mo>"
FUNCTIONS = "cos|cosh|exp|ln|log|sin|sinh|tanh"
THIN, THICK = "0.17em", "0.28em"


def mathml(latex: str) -> str:
    """Display mathematics, in parts between which a narrow page may break the line.

    Raises ValueError for LaTeX that cannot be converted whole.
    """
    bare = latex.replace(r"\{", "").replace(r"\}", "")
    if bare.count("{") != bare.count("}"):
        raise ValueError(f"LaTeX {latex!r}: its braces do not match")
    return " ".join(_part(part) for part in _parts(latex))


def _parts(latex: str) -> Iterator[str]:
    start = 0
    for place in BREAK.finditer(latex):
        part = latex[start : place.start()]
        if part.strip() and all(part.count(a) == part.count(b) for a, b in PAIRS):
            yield part
            start = place.end()
    yield latex[start:]


def _part(latex: str) -> str:
    from latex2mathml.converter import convert

    try:
        found = convert(latex.replace("~", r"\ "), display="block")
    except Exception as error:  # the converter has no common class of errors
        raise ValueError(f"LaTeX {latex!r}: cannot be converted: {type(error).__name__} {error}") from error
    found = re.sub(r"&#x([0-9A-F]+);", lambda m: _safe(chr(int(m[1], 16))), found)
    found = re.sub(f"<mi>([{OPERATORS}])</mi>", r"<mo>\1</mo>", found.replace("<mi>~</mi>", "<mi>∼</mi>"))
    found = re.sub(f"<mi>([{ARROWS}])</mi>", rf'<mo lspace="{THICK}" rspace="{THICK}">\1</mo>', found)
    found = re.sub(f"({BEFORE_A_SIGN})<mo>([−+±∓])</mo>", r'\1<mo form="prefix">\2</mo>', found)
    found = re.sub(f"<mi>([{BRACKETS}])</mi>", r'<mo stretchy="false">\1</mo>', found)
    found = re.sub(f"<mo([^>]*)>([{TIGHT}])</mo>", r'<mo\1 lspace="0" rspace="0">\2</mo>', found)
    found = re.sub(f"(</m(?!o)\\w+>)?<mi>({FUNCTIONS})</mi>(?=(<mo[^>]*>\\()?)", _function, found)
    if "\\" in found:
        raise ValueError(f"LaTeX {latex!r}: a command is left in {found}")
    return found.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")


def _function(found: re.Match[str]) -> str:
    """The name of a function with thin spaces, but none before its bracket."""
    before, after = (THIN if found[1] else "0"), ("0" if found[3] else THIN)
    return f'{found[1] or ""}<mo lspace="{before}" rspace="{after}">{found[2]}</mo>'


def _safe(letter: str) -> str:
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(letter, letter)
