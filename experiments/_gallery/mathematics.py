"""A statement's LaTeX as MathML, which browsers typeset by themselves."""

from __future__ import annotations

import re

OPERATORS = "⟺⇒→↔±∓:;"  # which the converter takes for letters, without the space around them
BRACKETS = "⟨⟩"


def mathml(latex: str) -> str:
    """Display mathematics. Raises ValueError for LaTeX that cannot be converted whole."""
    from latex2mathml.converter import convert

    bare = latex.replace(r"\{", "").replace(r"\}", "")
    if bare.count("{") != bare.count("}"):
        raise ValueError(f"LaTeX {latex!r}: its braces do not match")
    try:
        found = convert(latex.replace("~", r"\ "), display="block")
    except Exception as error:  # the converter has no common class of errors
        raise ValueError(f"LaTeX {latex!r}: cannot be converted: {type(error).__name__} {error}") from error
    found = re.sub(r"&#x([0-9A-F]+);", lambda m: _safe(chr(int(m[1], 16))), found)
    found = re.sub(f"<mi>([{OPERATORS}])</mi>", r"<mo>\1</mo>", found)
    found = re.sub(f"<mi>([{BRACKETS}])</mi>", r'<mo stretchy="false">\1</mo>', found)
    if "\\" in found:
        raise ValueError(f"LaTeX {latex!r}: a command is left in {found}")
    return found.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")


def _safe(letter: str) -> str:
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(letter, letter)
