"""What one sees: one experiment a phenomenon, ``python -m experiments.NAME``; ``python -m experiments`` lists them.

``harness`` has what an experiment is made of; every other module, or package, is an experiment.
"""

from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.harness import Experiment

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The experiments, one a module or package, in alphabetical order. Imports none of them."""
    found = {m.name for m in pkgutil.iter_modules([str(_FOLDER)])}
    return sorted(n for n in found - {"harness"} if not n.startswith("_"))


def title(name: str) -> str:
    """The first line of an experiment's docstring, read without importing it; empty if there is none."""
    for path in (_FOLDER / f"{name}.py", _FOLDER / name / "__main__.py", _FOLDER / name / "__init__.py"):
        if path.is_file() and (doc := ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))):
            return doc.partition("\n")[0]
    return ""


def load(name: str) -> Experiment:
    """The experiment of a name, from the module ``experiments.NAME`` or the package's ``__main__``.

    Raises ValueError if there is no such module, or none in it that ``harness.Experiment`` made.
    """
    from experiments.harness import Experiment

    if name not in names():
        raise ValueError(f"name: {name!r} is no experiment; there are {', '.join(names()) or 'none'}")
    module = import_module(f"experiments.{name}")
    if hasattr(module, "__path__"):
        module = import_module(f"experiments.{name}.__main__")
    found = [value for value in vars(module).values() if isinstance(value, Experiment)]
    if [e.name for e in found] != [name]:
        raise ValueError(f"{module.__name__}: has the experiments {[e.name for e in found]}; must have one, {name!r}")
    return found[0]
