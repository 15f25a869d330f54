"""What the papers say: one module a paper, each claim a function whose body is the claim.

``statement`` has what a claim is made of, ``proof`` what becomes of it; every other module is a paper's.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

from theory.statement import Theorem

_MACHINERY = {"statement", "proof"}


def names() -> list[str]:
    """The phenomena, one a module, in alphabetical order."""
    found = {m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)])}
    return sorted(n for n in found - _MACHINERY if not n.startswith("_"))


def theorems(name: str) -> list[Theorem]:
    """The theorems of one phenomenon, in the order in which its module states them.

    Raises ValueError if there is no such module.
    """
    if name not in names():
        raise ValueError(f"name: {name!r} is no phenomenon; there are {', '.join(names()) or 'none'}")
    return _stated_in(import_module(f"theory.{name}"))


def _stated_in(module: ModuleType) -> list[Theorem]:
    """The theorems of a module, or of a package's modules in the order in which it imports them."""
    found: list[Theorem] = []
    for value in vars(module).values():
        if isinstance(value, Theorem):
            found.append(value)
        elif isinstance(value, ModuleType) and value.__name__.startswith(f"{module.__name__}."):
            found += _stated_in(value)
    return found
