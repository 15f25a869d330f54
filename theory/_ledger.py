"""The ledger: what became of every statement, kept until a source or a library changes.

Proving takes seconds, reading the ledger milliseconds and no sympy; so an experiment asks the ledger for its verdicts.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

import theory
from sandbox.runtime import cache_directory
from theory.statement import Theorem

if TYPE_CHECKING:
    from theory.proof import Refuted

ROOT = Path(__file__).parents[1]
SOURCES = ("sandbox", "theory")
LIBRARIES = ("jax", "mpmath", "numpy", "sympy")
DRAWS = 256
BEGIN, END = "<!-- verdicts -->", "<!-- /verdicts -->"


@dataclass(frozen=True)
class Proof:
    """The verdict on one statement.

    relation: the word of what it asserts. verdict: "proved", "checked", "undecided" or "refuted". sizes: at which it is
    proved, "every" or a list. detail: points, reason or counterexample. holds: is it the verdict that was expected?
    """

    relation: str
    verdict: str
    sizes: str | list[int] | None
    detail: str
    holds: bool
    milliseconds: float

    def __str__(self) -> str:
        if self.sizes == "every":
            return "proved (every size)"
        return f"proved (sizes {', '.join(map(str, self.sizes))})" if self.sizes else self.verdict


@dataclass(frozen=True)
class Audit:
    """How hard a statement was tried: planted errors (None where none can be planted), and random draws.

    killed, of planted: errors caught. equivalent: planted "errors" that are true statements. survivors: what went
    unnoticed. met: the share of ``DRAWS`` draws that meet the premises, None without premises. broken: how many draws
    meet them and violate the claim.
    """

    killed: int | None
    planted: int | None
    equivalent: int | None
    survivors: list[str]
    met: float | None
    broken: int


# -- what is kept ----------------------------------------------------------------------------------------------------


def verdicts(name: str) -> dict[str, Proof]:
    """The verdict on each theorem of a phenomenon, by the theorem's name, in the order in which they are stated.

    Raises ValueError for a name that is no phenomenon's, or two theorems of one name.
    """
    return _kept(name, "verdicts", Proof, _judge, lambda proof: proof.verdict != "undecided")


def known(theorem: Theorem) -> Proof | None:
    """The verdict on a theorem if it is in the ledger already; nothing is proved."""
    _, _, name = theorem.body.__module__.partition("theory.")
    proofs = _read(_path(name.partition(".")[0], "verdicts")) if name else {}
    return Proof(**proofs[theorem.name]) if theorem.name in proofs else None


def audits(name: str) -> dict[str, Audit]:
    """The audit of each theorem of a phenomenon, by the theorem's name. Takes several times as long as the verdicts."""
    return _kept(name, "audits", Audit, _audit, lambda audit: True)


@contextmanager
def ahead(name: str) -> Iterator[None]:
    """Prove in a process of its own what the ledger does not know, while this one simulates; done when it is left.

    ``verdicts`` then only reads; it proves by itself whatever that process did not.
    """
    stated = any((ROOT / "theory" / place).exists() for place in (f"{name}.py", name))
    if not stated or _path(name, "verdicts").exists():
        yield
        return
    program = f"from theory import _ledger; _ledger.verdicts({name!r})"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL) as prover:
        try:
            yield
        except BaseException:
            prover.kill()
            raise


def directory() -> Path:
    """Where the ledger is kept: beside the compiled programs. Nothing is created here."""
    return cache_directory().parents[1] / "proofs"


def fingerprint(folders: Iterable[str] = SOURCES, files: str = "*.py") -> str:
    """A digest of what a verdict depends on: each source of ``sandbox`` and ``theory``, and the libraries."""
    found = hashlib.sha256(platform.python_version().encode())
    for library in LIBRARIES:
        found.update(f"{library} {version(library)}\n".encode())
    every = (p for folder in folders for p in (ROOT / folder).rglob(files))
    for path in sorted(p for p in every if p.is_file() and p.parent.name != "__pycache__"):
        found.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def _path(name: str, kind: str) -> Path:
    return directory() / f"{name}-{kind}-{fingerprint()[:16]}.json"


Entry = TypeVar("Entry", Proof, Audit)


def _kept(
    name: str, kind: str, entry: type[Entry], find: Callable[[Theorem], Entry], lasting: Callable[[Entry], bool]
) -> dict[str, Entry]:
    stated = theory.theorems(name)
    if len({t.name for t in stated}) < len(stated):
        raise ValueError(f"{name}: two theorems of one name among {sorted(t.name for t in stated)}")
    path = _path(name, kind)
    known = _read(path)
    found = {t.name: entry(**known[t.name]) if t.name in known else find(t) for t in stated}
    keep = {n: asdict(e) for n, e in found.items() if lasting(e)}  # a busy machine may run out of time: ask again
    if keep != known:
        with suppress(OSError):  # a cache that cannot be written is slow, not wrong
            for old in path.parent.glob(f"{name}-{kind}-*.json"):
                old.unlink()
            write(path, json.dumps(keep, indent=1))
    return found


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    return {}


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: in a folder beside it first, then moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        new = Path(folder, path.name)
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(new, path)


# -- how it is found -------------------------------------------------------------------------------------------------


def _judge(theorem: Theorem) -> Proof:
    from theory._arrays import relation_of
    from theory.proof import Checked, EmptyClaim, Proved, Undecided, Verdict, holds, prove

    with jax.enable_x64(True):  # counterexamples are searched for, and claims checked, in float64
        start = time.perf_counter()
        try:
            verdict: Verdict = prove(theorem)
        except EmptyClaim:  # one claim that says nothing is no reason to hide the others
            verdict = Undecided("both sides are the same expression: it says nothing")
        milliseconds = 1e3 * (time.perf_counter() - start)
    if isinstance(verdict, Proved):
        sizes: str | list[int] | None = list(verdict.sizes) or "every"
        detail = ""
    elif isinstance(verdict, Checked):
        sizes, detail = None, f"{verdict.points} points, {verdict.digits} digits"
    elif isinstance(verdict, Undecided):
        sizes, detail = None, verdict.reason
    else:
        sizes, detail = None, counterexample(verdict)
    word = type(verdict).__name__.lower()
    return Proof(relation_of(theorem)[0], word, sizes, detail, holds(theorem, verdict), round(milliseconds, 1))


def counterexample(refuted: Refuted) -> str:
    """Where a claim is false, and what its sides are there."""
    where = ", ".join(f"{k} = {v}" for k, v in refuted.counterexample.items())
    return f"{where}: {refuted.lhs} against {refuted.rhs}"


def _audit(theorem: Theorem) -> Audit:
    from theory._planted import plant

    with jax.enable_x64(True):
        planted = plant(theorem)
    met, broken = _tried(theorem)
    if planted is None:
        return Audit(None, None, None, [], met, broken)
    return Audit(planted.killed, planted.planted, planted.equivalent, list(planted.survivors), met, broken)


def _tried(theorem: Theorem) -> tuple[float | None, int]:
    """The share of random draws that meet the premises, and the number that do and violate the claim.

    Of a claim that should be true a violation is looked at again exactly: at a kink rounding decides on the side.
    """
    from theory._arrays import gap_at, relation_of
    from theory._points import random_generators, two_sizes
    from theory._search import violated_at

    rng = random.Random(0)
    with jax.enable_x64(True):
        drawn = [random_generators(theorem, two_sizes(theorem)[1], rng, 9) for _ in range(DRAWS)]
        found = [gap_at(theorem, generators, 1e-9) for generators in drawn]
    met = float(np.mean([gap.met for gap in found])) if "premise" in relation_of(theorem)[1] else None
    broken = [at for at, gap in zip(drawn, found, strict=True) if gap.met and gap.excess > 1]
    if theorem.expect != "refuted":
        with suppress(NotImplementedError):  # no symbols: there is nothing more exact
            broken = [at for at in broken if violated_at(theorem, at)]
    return met, len(broken)


# -- the README's table ----------------------------------------------------------------------------------------------


def markdown() -> str:
    """One row a phenomenon: its paper, its claims by their verdict, and the planted errors that were caught."""
    counted = ["Claims", "Proved, every size", "Proved, sizes 2-4", "Checked", "Refuted", "Open"]
    rows = [
        " | ".join(["| Phenomenon", "Paper", *counted]) + " |",
        " | ".join(["| ---", "---", *["--:"] * len(counted)]) + " |",
    ]
    for name in theory.names():
        found = verdicts(name).values()
        counts = [
            len(found),
            sum(p.holds and p.sizes == "every" for p in found),
            sum(p.holds and isinstance(p.sizes, list) for p in found),
            sum(p.holds and p.verdict == "checked" for p in found),
            sum(p.holds and p.verdict == "refuted" for p in found),
            sum(not p.holds for p in found),
        ]
        rows.append(
            " | ".join([f"| [{name}]({place(name)})", paper(name).replace("|", r"\|"), *map(str, counts)]) + " |"
        )
    return "\n".join(rows)


def renewed(text: str) -> str:
    """A README with the table between its two marks made anew; equal to ``text`` if the table there was up to date.

    Raises ValueError unless each mark is there once, the beginning before the end.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README: {BEGIN} and then {END} must each be there once, on a line of its own")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{rest.split(END)[1]}"


def stale(readme: Path) -> str:
    """What is wrong with a README's table and how to mend it; empty if nothing is."""
    text = readme.read_text(encoding="utf-8")
    return "" if renewed(text) == text else f"{readme.name}: the table of verdicts is stale; python -m theory --readme"


def place(name: str) -> str:
    """Where a phenomenon is stated, below the root."""
    return f"theory/{name}" if (ROOT / "theory" / name).is_dir() else f"theory/{name}.py"


def paper(name: str) -> str:
    """The title of a phenomenon's paper: the first line of its docstring."""
    path = ROOT / place(name)
    source = path / "__init__.py" if path.is_dir() else path
    doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) if source.is_file() else None
    return (doc or "").partition("\n")[0].rstrip(".")


def errors(audits: Iterable[Audit]) -> tuple[int, int, int]:
    """The planted errors caught, all that change a claim, and the "errors" that are true statements."""
    tried = [a for a in audits if a.planted is not None]
    return sum(a.killed or 0 for a in tried), sum(a.planted or 0 for a in tried), sum(a.equivalent or 0 for a in tried)


def totals(proofs: Iterable[Proof], audits: Iterable[Audit]) -> str:
    """The count of claims that stand as expected, and of planted errors caught, in words."""
    proofs = list(proofs)
    open_ = sum(not p.holds for p in proofs)
    killed, planted, equivalent = errors(audits)
    return (
        f"{len(proofs)} claims, {f'{open_} not as expected' if open_ else 'all as expected'};"
        f" {killed} of {planted} planted errors caught (+{equivalent} that are true statements)"
    )
