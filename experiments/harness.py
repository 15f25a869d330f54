"""What an experiment is made of: setup -> measure -> claims -> draw -> save.

An experiment's module reads from top to bottom:

    @dataclass(frozen=True)
    class Setup:
        "Every number, its meaning and unit."
        runs: int = knob(20_000, "one-step runs", quick=2_000)

    def measure(setup, key): ...                    # pure; a dict of arrays, or {stage: function} for several stages
    def claims(setup, measured): ...                # yields Checks: along, measured, agrees, drift, refuted
    def draw(setup, measured, verdicts): ...        # yields (name, figure, caption); computes nothing

    EXPERIMENT = Experiment("NAME", __doc__, Setup, measure, claims, draw)

    if __name__ == "__main__":
        sys.exit(main(EXPERIMENT))
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from inspect import signature
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import theory
from experiments import _figures, _flags, _programs, _record, _terminal
from experiments._checks import Check, agrees, along, constant, drift, measured, refuted, word_of
from experiments._flags import knob
from sandbox import runtime
from sandbox.sweep import agreed, join, sweep
from theory import _ledger
from theory.statement import Theorem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments._gallery.movable import Movable

__all__ = [
    "Check", "Experiment", "Report", "Row", "Verdicts", "agrees", "along", "constant", "drift", "host", "knob", "main",
    "measured", "refuted", "word_of",
]  # fmt: skip

Drawings = Iterable[tuple[str, "Figure", str]]
Files = Iterable[tuple[str, Callable[[Path], object]]]
SMALL = 1000  # numbers of an array that goes into the record without being asked for


def host(stage: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a stage of ``measure`` that runs programs of its own, one by one: it is called, not compiled as a whole."""
    stage.on_host = True  # type: ignore[attr-defined]
    return stage


@dataclass(frozen=True)
class Row:
    """A theorem, the verdict of its proof, and one of its checks (None if the experiment does not touch it)."""

    theorem: Theorem
    proof: _ledger.Proof
    check: Check | None

    @property
    def holds(self) -> bool:
        """Is the verdict as expected, and the check within tolerance?"""
        return self.proof.holds and (self.check is None or self.check.holds)

    def reason(self) -> str:
        """Why it does not hold, in words."""
        found = []
        if not self.proof.holds:
            found.append(f"expected {self.theorem.expect}, but {self.proof.verdict} {self.proof.detail}".rstrip())
        if self.check is not None and not self.check.holds:
            gap, tolerance = _record.rounded_up(self.check.gap), _terminal.number(self.check.tolerance)
            limit = "only " if self.theorem.expect == "refuted" else ""
            found.append(f"gap {limit}{gap:g} over {self.check.over}, tolerance {tolerance}: {self.check.why}")
        return "; ".join(found)


@dataclass(frozen=True)
class Verdicts:
    """The rows of an experiment, in the order of the theory: one a check, and one for each theorem without a check."""

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def of(self, theorem: Theorem) -> list[Row]:
        """The rows of one theorem. Raises ValueError if it is none of the experiment's."""
        found = [row for row in self.rows if row.theorem is theorem]
        if not found:
            raise ValueError(f"{theorem.id} is none of the theorems of this experiment")
        return found

    def line(self, theorem: Theorem, says: str = "") -> str:
        """A line for a caption: "C3 · the chosen rises iff cos < kappa · proved (every size) · holds in 20,000 runs".

        says: the claim in other words; by default the theorem's own.
        """
        rows = self.of(theorem)
        parts = [theorem.claim, says or theorem.statement.rstrip("."), str(rows[0].proof)]
        words = ("violated", "NOT violated") if theorem.expect == "refuted" else ("holds", "DOES NOT HOLD")
        checks = [row.check for row in rows if row.check is not None]
        said = dict.fromkeys(f"{words[0] if check.holds else words[1]} in {check.over}" for check in checks)
        return " · ".join(part for part in (*parts, "; ".join(said)) if part)


@dataclass(frozen=True)
class Report:
    """What an experiment says about the user's own data.

    record: goes under "user" in numbers.json. table: printed, one mapping a row. drawings: as of ``draw``.
    files: what is written beside them, a name and a function that writes to a path each.
    """

    record: Mapping[str, Any]
    table: Sequence[Mapping[str, Any]] = ()
    drawings: Drawings = ()
    files: Files = ()


@dataclass(frozen=True)
class Experiment:
    """One phenomenon's experiment. ``name`` is that of its theory, ``about`` its docstring, ``setup`` its dataclass.

    measure(setup, key): a dict of arrays; or a mapping from stage to such a function, each with a key of its own, and
    then what is measured is a dict by stage of dicts by name. Each is compiled as one program; arrays come back as
    NumPy's. A stage ``measure(setup, key, sweep)`` runs as it stands, and calls ``sweep(run, points)`` of
    ``sandbox.sweep`` for what it trains.
    claims(setup, measured) yields checks. draw(setup, measured, verdicts) yields (name, figure, caption).
    series(measured): what numbers.json keeps; by default each array of at most 1,000 numbers.
    user: a frozen dataclass of knobs for the user's own data; if one of its flags is given, report(setup, user, key) is
    made instead of all this.
    borrowed: by phenomenon the theorems it is held against, where it has no theory of its own but tries other ones'.
    findings(setup, measured): what no theorem promises, one mapping a row; printed, and kept in the record.
    movable(setup): a figure that the reader of the gallery can move.

    Raises ValueError for fields without help, flags that clash, or a user without a report.
    """

    name: str
    about: str | None
    setup: type
    measure: Callable[..., Any] | Mapping[str, Callable[..., Any]]
    claims: Callable[..., Iterable[Check]]
    draw: Callable[..., Drawings]
    series: Callable[..., Mapping[str, Any]] | None = None
    user: type | None = None
    report: Callable[..., Report] | None = None
    borrowed: Mapping[str, Sequence[Theorem]] | None = None
    findings: Callable[..., Sequence[Mapping[str, Any]]] | None = None
    movable: Callable[[Any], Movable] | None = None

    def __post_init__(self) -> None:
        _flags.check_fields(self.name, (_flags.Run, self.setup, self.user))
        if (self.user is None) != (self.report is None):
            raise ValueError(f"{self.name}: give user and report, or neither")

    @property
    def stages(self) -> dict[str, Callable[..., Any]]:
        """The functions of ``measure`` by stage; a single one is the stage "simulation"."""
        return dict(self.measure) if isinstance(self.measure, Mapping) else {"simulation": self.measure}


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Run an experiment as a command line says (by default the process's own).

    Returns the exit status: 0 if every claim holds as expected, 1 if one does not, 2 for bad input. Input is bad if
    the words cannot be read, or if a check of this project refuses the user's data, a number that was changed, or the
    folder; any other exception is a bug and passes.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        options = _flags.read(experiment.name, experiment.about or "", experiment.setup, experiment.user, argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    except ValueError as error:
        return _flags.refuse(experiment.name, error)
    runtime.configure(x64=options.run.x64)
    if options.run.distributed:
        join()
    try:
        _record.ready(options.folder)
        return _report(experiment, options) if options.user is not None else _run(experiment, options)
    except ValueError as error:
        if (options.changed or options.user is not None) and _by_this_project(error):
            return _flags.refuse(experiment.name, error)
        raise
    except _record.Unwritable as error:
        return _flags.refuse(experiment.name, error)
    except OSError as error:
        if options.run.out is not None or options.user is not None:
            return _flags.refuse(experiment.name, error)
        raise


def _run(experiment: Experiment, options: _flags.Options) -> int:
    setup, folder = options.setup, options.folder
    stated = experiment.borrowed or {experiment.name: theory.theorems(experiment.name)}
    with _terminal.progress(len(experiment.stages) + 3) as begin:
        finished = _record.Partial(folder, setup, options.run.seed, experiment.stages)
        first = jax.process_index() == 0  # the process that proves, draws and writes; others help with its sweeps
        with ExitStack() as provers:
            for phenomenon in stated if first else ():
                provers.enter_context(_ledger.ahead(phenomenon))
            found = _measure(experiment, options, finished, begin)
            if not first:
                return 0
            begin("proofs")
        known = {phenomenon: _ledger.verdicts(phenomenon) for phenomenon in stated}
        proofs = {t: known[phenomenon][t.name] for phenomenon, some in stated.items() for t in some}
        begin("claims")
        verdicts = _joined(proofs, experiment.claims(setup, found))
        findings = [] if experiment.findings is None else experiment.findings(setup, found)
        series = _small(found) if experiment.series is None else experiment.series(found)
        begin("figures")
        record = _frame(experiment, options) | {"claims": [_said(row) for row in verdicts]}
        record |= {"findings": findings} if findings else {}
        files = _write(options, record | {"series": series}, experiment.draw(setup, found, verdicts))
        finished.remove()
    _terminal.print_verdicts(verdicts.rows)
    if findings:
        _terminal.print_table(findings)
    _print_files(folder, files)
    return 0 if all(row.holds for row in verdicts) else 1


def _report(experiment: Experiment, options: _flags.Options) -> int:
    assert experiment.report is not None
    with _terminal.progress(1) as begin, _figures.style(options.run.quick):  # a report may come with finished figures
        begin("your data")
        report = experiment.report(options.setup, options.user, runtime.root_key(options.run.seed))
        said = {"given": asdict(options.user), **report.record}
        record = _frame(experiment, options) | {"claims": [], "series": {}, "user": said}
        files = _write(options, record, report.drawings, report.files)
    _terminal.print_table(report.table)
    _print_files(options.folder, files)
    return 0


def _measure(
    experiment: Experiment, options: _flags.Options, finished: _record.Partial, begin: _terminal.Steps
) -> dict[str, Any]:
    """What each stage measured, as NumPy arrays: read if an earlier run finished it, kept until this one completes."""
    setup, root, first = options.setup, runtime.root_key(options.run.seed), jax.process_index() == 0
    if first and not options.run.resume:
        finished.forget()
    found: dict[str, Any] = {}
    for stage, function in experiment.stages.items():
        begin(stage)
        arrays = finished.read(stage) if first and options.run.resume else None
        if agreed(arrays is None):
            # by name, so that a new stage leaves the draws of the others as they are
            key = jax.random.fold_in(root, zlib.crc32(stage.encode()))
            level = 1 if options.run.quick else None
            program: dict[str, Any] = {"name": experiment.name, "written": function, "level": level}
            if "sweep" in signature(function).parameters:
                with _record.writing(options.folder):
                    measured = function(setup, key, _sweeping(stage, setup, finished, begin, program))
            elif getattr(function, "on_host", False):
                measured = function(setup, key)
            else:
                measured = _programs.run(partial(function, setup), key, made_of=f"{stage} {setup}", **program)
            arrays = {name: np.asarray(x) for name, x in measured.items()}
            if first:
                finished.write(stage, arrays)
        found[stage] = arrays
    return found if isinstance(experiment.measure, Mapping) else found["simulation"]


def _sweeping(
    stage: str, setup: Any, finished: _record.Partial, begin: _terminal.Steps, program: dict[str, Any]
) -> Callable[..., dict[str, np.ndarray]]:
    """``sandbox.sweep.sweep`` as a stage gets it: every call has its own chunks and its own compiled program."""
    numbers = count()

    def numbered(run: Callable[..., Any], points: Any, **options: Any) -> dict[str, np.ndarray]:
        number = next(numbers)
        compiled = partial(_programs.compiled, made_of=f"{stage}, sweep {number} {setup}", **program)
        folder = finished.chunks(stage) / str(number)
        return sweep(run, points, folder=folder, progress=begin.chunks, compiled=compiled, **options)

    return numbered


def _joined(proofs: Mapping[Theorem, _ledger.Proof], checks: Iterable[Check]) -> Verdicts:
    made: dict[Theorem, list[Check | None]] = {theorem: [] for theorem in proofs}
    for check in checks:
        if check.theorem not in made:
            raise ValueError(f"{check.theorem.id} is none of the theorems of this experiment")
        made[check.theorem].append(check)
    return Verdicts(tuple(Row(t, proofs[t], check) for t, found in made.items() for check in found or [None]))


# -- the record --------------------------------------------------------------------------------------------------------


def _frame(experiment: Experiment, options: _flags.Options) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "setup": asdict(options.setup),
        "seed": options.run.seed,
        "versions": _record.versions(),
    }


def _said(row: Row) -> dict[str, Any]:
    theorem, proof, check = row.theorem, row.proof, row.check
    refutation = {"counterexample": proof.detail} if proof.verdict == "refuted" else {}
    return {
        "id": theorem.id,
        "source": str(theorem.source),
        "statement": theorem.statement,
        "relation": proof.relation,
        "expect": theorem.expect,
        "proof": {"verdict": proof.verdict, "sizes": proof.sizes, **refutation},
        "lhs": check and check.lhs,
        "rhs": check and check.rhs,
        "gap": check and _record.rounded_up(check.gap),
        "tolerance": check and check.tolerance,
        "why": check and f"{check.why} (over {check.over})",
        "holds": row.holds,
    }


def _small(found: Mapping[str, Any]) -> dict[str, Any]:
    """Every array of at most ``SMALL`` numbers, in the shape of what was measured."""
    kept = {k: _small(v) if isinstance(v, Mapping) else v for k, v in found.items()}
    return {k: v for k, v in kept.items() if (v if isinstance(v, dict) else v.size <= SMALL)}


def _write(options: _flags.Options, record: Mapping[str, Any], drawings: Drawings, more: Files = ()) -> list[str]:
    """Figures, and then the record: all of them, or none if a drawing fails. The names of the files."""
    shown: list[dict[str, str]] = []

    def files(drawers: _figures.Drawers) -> Iterator[tuple[str, Callable[[Path], object]]]:
        yield from more
        for name, figure, words in drawings:
            shown.append({"name": name, "caption": words})
            below = _figures.caption(figure, words)
            first, *others = options.formats
            yield f"{name}.{first}", partial(drawers.write, figure, below, options.formats)
            yield from ((f"{name}.{kind}", lambda path: None) for kind in others)  # written with the first
        drawers.wait()
        whole = _record.text({**record, "figures": shown})
        yield "numbers.json", lambda path: path.write_text(whole, encoding="utf-8", newline="\n")

    with _figures.style(options.run.quick), _figures.Drawers(options.run.quick) as drawers:
        return _record.save(options.folder, files(drawers))


def _print_files(folder: Path, files: Sequence[str]) -> None:
    here = Path.cwd()
    place = folder.relative_to(here) if folder.is_absolute() and folder.is_relative_to(here) else folder
    kinds: dict[str, list[str]] = {}
    for name, _, kind in (file.rpartition(".") for file in files):
        kinds.setdefault(name, []).append(kind)
    said = ", ".join(f"{name}.{'|'.join(endings)}" for name, endings in kinds.items())
    _terminal.console().print(f"Written to {place}/: {said}")


def _by_this_project(error: ValueError) -> bool:
    """Was it raised by a line of this project, as its checks of input are, and not inside a library?"""
    inner = error.__traceback__
    while inner is not None and inner.tb_next is not None:
        inner = inner.tb_next
    file = Path(inner.tb_frame.f_code.co_filename) if inner is not None else Path()
    own = Path(__file__).parents[1]
    return any(file.is_relative_to(own / package) for package in ("sandbox", "theory", "experiments"))
