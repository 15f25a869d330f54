"""Every command and code block that a newcomer meets works: in the README, CONTRIBUTING, docs/, docstrings.

Python is run. Commands that install are run by ``.ci/run``; here their extras exist. The words of the other commands
are read by the command's own parser, with the user's FILE made by the test; that they run well, other tests show.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import tomllib
from pathlib import Path

import jax
import pytest

import experiments
import sandbox
import theory
from experiments import _flags
from sandbox import algebra, policies
from theory import statement
from theory.entanglement import geometry
from theory.proof import Proved, prove

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, ROOT / "notebooks/README.md"]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [(page, *found) for page in PAGES for found in FENCED.findall(page.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[str]:
    """The shell commands on a page: lines of blocks, and code between backticks that begins like one."""
    blocks = [text for where, kind, text in BLOCKS if where == page and kind in ("", "bash")]
    inline = re.findall(r"`((?:python|pip|srun|uv|\.venv/bin/)\S* [^`]+)`", page.read_text(encoding="utf-8"))
    lines = [*"\n".join(blocks).splitlines(), *inline]
    return [line.partition("  #")[0].strip() for line in lines if line.strip()]


def told(page: Path) -> list[list[str]]:
    """The words of each ``python -m ...`` on a page, from the module on."""
    parts = [part for line in commands(page) for part in line.split(" && ")]
    asked = [part for part in parts if re.search(r"python\S* -m (?!venv)", part)]
    return [shlex.split(part.split("-m ", 1)[1]) for part in asked]


def examples(text: str) -> str:
    return text.replace("NAME", "entanglement")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_understood(page: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module, *words in told(page):
        words = [word for word in words if word != "--help"]
        for word in words:
            if re.fullmatch(r"FILE\.\w+", word):
                Path(word).touch()
        package, _, name = examples(module).partition(".")
        if package == "experiments" and name:
            experiment = experiments.load(name)
            _flags.read(name, "", experiment.setup, experiment.user, words)
        elif package == "experiments" and words:
            assert words[0] in ("all", "gallery"), words
        elif package == "theory":
            assert all(word in ("--readme", "NAME", *theory.names()) for word in words), words
        else:
            assert importlib.util.find_spec(examples(module)) is not None, module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_extras_exist(page: Path):
    for line in commands(page):
        for extras in re.findall(r"'?\.\[([\w,]+)\]'?", line):
            assert set(extras.split(",")) <= set(EXTRAS), line


def test_every_kind_of_block_is_run_or_read():
    assert {kind for _, kind, _ in BLOCKS} <= {"", "bash", "text", "python", "math", "bibtex"}
    assert sum(len(told(page)) for page in PAGES) > 20


THEOREMS = [(page, text) for page, kind, text in BLOCKS if kind == "python" and "@theorem" in text]
WORDS = {**vars(statement), **vars(algebra), **vars(policies), **vars(geometry)}


@pytest.mark.parametrize("page, text", THEOREMS, ids=lambda x: x.name if isinstance(x, Path) else "")
def test_theorems_on_the_pages_are_proved(page: Path, text: str):
    names: dict = {}
    exec(text, WORDS | {"__builtins__": __builtins__}, names)
    [stated] = [x for x in names.values() if isinstance(x, statement.Theorem)]
    assert prove(stated) == Proved()


def test_no_python_is_left_out():
    """What is no theorem is the sweep, which test_sweep runs."""
    others = [text for _, kind, text in BLOCKS if kind == "python" and "@theorem" not in text]
    assert len(THEOREMS) == 2 and len(others) == 1 and "sweep(run, points)" in others[0]


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", text):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


MODULES = [
    info.name
    for package in (sandbox, theory, experiments)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if ">>> " in Path(importlib.util.find_spec(info.name).origin).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str):
    """Examples run; ``+SKIP`` is for what is no expression on its own."""
    with jax.numpy_rank_promotion("raise"):
        failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
