"""The command line of an experiment, made from the fields of its ``Setup``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import tyro

from experiments._figures import FORMATS
from sandbox.validate import one_of

_ROOT = Path(__file__).parents[1]


def knob(default: Any, meaning: str, *, quick: Any = MISSING) -> Any:
    """One number of a ``Setup``: its default, its meaning with the unit (the help text), its quick value if another.

    >>> runs: int = knob(20_000, "one-step runs in the phase diagram", quick=2_000)    # doctest: +SKIP
    """
    return field(default=default, metadata={"help": meaning, **({} if quick is MISSING else {"quick": quick})})


def quick_values(setup: type) -> dict[str, Any]:
    """The fields of a ``Setup`` that the quick run sets otherwise, with their quick values."""
    return {f.name: f.metadata["quick"] for f in fields(setup) if "quick" in f.metadata}


@dataclass(frozen=True)
class Run:
    """What every experiment takes from the command line, beside its own numbers."""

    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = knob(False, "a smaller run, with the quick values below")
    seed: int = knob(0, "seed of every random number, from 0 to 2**32 - 1")
    out: Path | None = knob(
        None, "folder for NAME/numbers.json and the figures. By default paper_figures; build/ with --quick or if a "
        "number, the seed or the precision is not the default"
    )  # fmt: skip
    format: str = knob("png,pdf", f"formats of the figures, any of {','.join(FORMATS)}", quick="png")
    x64: bool = knob(True, "compute in float64; --no-x64 in float32")
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = knob(
        False, "keep what a stopped run finished: stages, chunks of sweeps"
    )
    distributed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = knob(
        False, "share sweeps with the other processes of the launcher, on this host or others"
    )


@dataclass(frozen=True)
class Options:
    """A command line, read.

    user: None unless a flag of the user's own data was given. changed: was a number of the setup given? folder: where
    the files go.
    """

    run: Run
    setup: Any
    user: Any
    changed: bool
    formats: tuple[str, ...]
    folder: Path


def check_fields(name: str, groups: Sequence[type | None]) -> None:
    """Raise ValueError unless the groups are frozen dataclasses of knobs and no name comes twice."""
    seen: set[str] = set()
    for group in groups:
        if group is None:
            continue
        if not is_dataclass(group) or not group.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise ValueError(f"{name}: {group.__name__} must be a frozen dataclass")
        for f in fields(group):
            if f.default is MISSING or not f.metadata.get("help"):
                raise ValueError(f"{name}: {group.__name__}.{f.name} must be made by knob(default, meaning)")
            if f.name in seen:
                raise ValueError(f"{name}: two flags are called --{f.name}; rename {group.__name__}.{f.name}")
            seen.add(f.name)


def read(name: str, about: str, setup: type, user: type | None, argv: Sequence[str]) -> Options:
    """Options from the words of a command line. ``--quick`` sets quick values; flags that are given win.

    Raises SystemExit after printing help, or an error of spelling or type; ValueError for a value not allowed.
    """
    quick = "--quick" in argv
    base = quick_values(setup) if quick else {}
    groups = {"run": _flags(Run, quick_values(Run) if quick else {}), "setup": _flags(setup, base)}
    if user is not None:
        groups["user"] = _flags(user, {})
    flat = [
        (key, Annotated[flags, tyro.conf.arg(name="")], field(default_factory=flags)) for key, flags in groups.items()
    ]
    if {"-h", "--help"} & {*argv}:
        print(about.strip(), end="\n\n")  # tyro would join its lines
    prog = f"python -m experiments.{name}"
    given = tyro.cli(make_dataclass(name, flat), prog=prog, description="", args=list(argv))  # type: ignore[var-annotated]
    run, chosen = Run(**vars(given.run)), setup(**vars(given.setup))
    data = user(**vars(given.user)) if user is not None else None
    data = None if user is None or data == user() else data
    _look_at_files(data)
    formats = tuple(one_of("format", word.strip(), FORMATS) for word in run.format.split(","))
    default = chosen == setup() and (run.seed, run.x64) == (0, True)
    if not 0 <= run.seed < 2**32:
        raise ValueError(f"seed = {run.seed}: must be from 0 to 2**32 - 1")
    kind = "user" if data is not None else "quick" if quick else "" if default else "changed"
    root = _ROOT if (_ROOT / "pyproject.toml").is_file() else Path.cwd()
    out = run.out or (root / "build" / kind if kind else root / "paper_figures")
    return Options(run, chosen, data, chosen != setup(**base), formats, out / name)


def _look_at_files(data: Any) -> None:
    """Raise ValueError where a file of the user's own is not there, or is a folder; what is in it, its reader sees."""
    for name, path in (vars(data) if data is not None else {}).items():
        if isinstance(path, Path) and path.is_dir():
            raise ValueError(f"{name} = {path}: must be a file, and is a folder")
        if isinstance(path, Path) and not path.exists() and str(path) != "example":
            raise ValueError(f"{name} = {path}: there is no such file; --help says what it takes")


def _flags(group: type, instead: Mapping[str, Any]) -> type:
    """A dataclass of the same fields, with their help where tyro looks for it; ``instead``: other defaults."""
    hints = get_type_hints(group, include_extras=True)
    made = []
    for f in fields(group):
        meaning = f.metadata["help"]
        if "quick" in f.metadata:
            meaning += f" (quick: {f.metadata['quick']})"
        options: dict[str, Any] = {"help": meaning}
        if type(None) in get_args(hints[f.name]):
            options["metavar"] = "|".join(t.__name__.upper() for t in get_args(hints[f.name]) if t is not type(None))
        default = instead.get(f.name, f.default)
        made.append((f.name, Annotated[hints[f.name], tyro.conf.arg(**options)], field(default=default)))
    return make_dataclass(group.__name__, made)


def refuse(name: str, error: Exception) -> int:
    """Say in one line what is wrong with the input; the exit status for it."""
    words = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:  # its own words begin with a number
        words = f"{error.filename}: {error.strerror}"
    print(f"experiments.{name}: {' '.join(words.split())}", file=sys.stderr)
    return 2
