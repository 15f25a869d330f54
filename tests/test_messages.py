"""What a user can do wrong at the command line: each row of a table is a cause, and what the message must say.

Which value, where it stands, and what would be right; on standard error, with exit status 2, no traceback, and nothing
computed or written. Flags are discovered, so that a new experiment is in the table without a line here.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import experiments
from experiments import __main__ as listing
from experiments.harness import Experiment, host
from theory import __main__ as prove

NAMES = experiments.names()
ALLOWED = r"must|there|give|needs?|name|--help|not an|no column|empty|missing|python -m"  # words that say what to do


class Computed(Exception):
    """Something was computed, although the input is bad."""


@host
def computing(setup: Any, key: Any) -> Any:
    raise Computed


def loaded(name: str) -> Experiment:
    """The experiment, but for what it would compute of its own numbers."""
    return dataclasses.replace(experiments.load(name), measure={"simulation": computing})


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def kinds(group: type | None) -> dict[str, tuple[type, ...]]:
    """The types that each flag of a group takes."""
    hints = typing.get_type_hints(group) if group is not None else {}
    return {name: typing.get_args(hint) or (hint,) for name, hint in hints.items()}


# -- files -------------------------------------------------------------------------------------------------------------

CONTENTS: dict[str, bytes | None] = {
    "absent.csv": None,
    "empty.csv": b"",
    "empty.npz": b"",
    "bytes.csv": bytes(range(256)),
    "bytes.npz": bytes(range(256)),
    "prose.csv": b"Dear Sir,\nplease find\n",
    "header.csv": b"step,chosen,rejected,ref_chosen,ref_rejected,logit0,logit1,label\n",
    "torn.npz": b"PK\x03\x04" + bytes(40),
}


def file_flags(name: str) -> list[str]:
    return [field for field, types in kinds(experiments.load(name).user).items() if Path in types]


def with_a_file(name: str, field: str, path: Path | str) -> list[str]:
    """A command line that gives a file to a flag, and what is asked for with it."""
    fields = kinds(experiments.load(name).user)
    others = ["--label", "label"] if "label" in fields else []
    first = [f for f in file_flags(name) if f == "logits" and field == "apply"]
    return [flag(field), str(path), *others, *(word for f in first for word in (flag(f), "example"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    (root / "folder").mkdir()
    for name, content in CONTENTS.items():
        if content is not None:
            (root / name).write_bytes(content)
    np.savez(root / "strange.npz", strange=np.zeros(3))
    np.savez(root / "objects.npz", logits=np.array([{}, None]), chosen=np.array(["a"]))
    return root


def faults(capsys, run: Callable[[], int], *said: str) -> list[str]:
    """What is wrong with the refusal of a command: its message stands on standard error alone."""
    try:
        status = run()
    except Exception as error:
        return [f"{capsys.readouterr().err}{error!r} was raised"]
    out, err = capsys.readouterr()
    plain = " ".join(re.sub(r"[│╭╮╰╯─]", " ", err).split())
    found = [f"exit status {status}"] * (status != 2) + ["standard output"] * bool(out)
    found += [f"{len(plain)} characters"] * (len(plain) > 1200) + ["a number of the system"] * ("[Errno" in plain)
    found += [f"no {pattern!r}" for pattern in (*said, ALLOWED) if not re.search(pattern, plain)]
    return [f"{', '.join(found)}: {plain}"] * bool(found)


@pytest.mark.parametrize("name, field", [(n, f) for n in NAMES for f in file_flags(n)])
def test_files_that_cannot_be_used(name, field, folder, tmp_path, capsys):
    """Absent, a folder, empty, bytes, prose, a header alone, torn, and arrays that nobody asked for."""
    experiment, found = loaded(name), []
    for bad in [*CONTENTS, "folder", "strange.npz", "objects.npz"]:
        path = folder / bad
        words = with_a_file(name, field, path)
        said = [re.escape(str(path))]
        if bad in ("absent.csv", "folder"):
            said = [f"{field} = {said[0]}: (there is no such file|must be a file)"]
        found += faults(capsys, lambda words=words: run(experiment, tmp_path, *words), f"experiments.{name}: ", *said)
    assert found == []
    assert not list((tmp_path / "out").rglob("*.*"))


def run(experiment: Experiment, tmp_path: Path, *words: str) -> int:
    from experiments.harness import main

    return main(experiment, ["--out", str(tmp_path / "out"), *words])


@pytest.mark.parametrize("name", [n for n in NAMES if file_flags(n)])
def test_flags_of_ones_own_data_alone_ask_for_the_data(name, tmp_path, capsys):
    experiment, needed, found = loaded(name), file_flags(name), []
    values = {float: "0.3", int: "7", str: "ipo"}
    for field, types in kinds(experiment.user).items():
        if field not in needed:
            value = next(values[t] for t in types if t in values)
            found += faults(capsys, lambda f=field, v=value: run(experiment, tmp_path, flag(f), v), "|".join(needed))
    assert found == []


# -- values ------------------------------------------------------------------------------------------------------------

BAD = {float: ("nan",), int: ("-1",)}


@pytest.mark.parametrize("name", NAMES)
def test_numbers_out_of_range(name, tmp_path, capsys):
    """Every number of the setup, and of the user's flags beside the example: NaN, a negative count."""
    experiment, found = loaded(name), []
    groups = [(experiment.setup, [])]
    if file_flags(name):
        groups.append((experiment.user, [flag(file_flags(name)[0]), "example"]))
    for group, before in groups:
        for field, types in kinds(group).items():
            for kind, values in BAD.items():
                for value in values if kind in types else ():
                    words = [*before, f"{flag(field)}={value}"]
                    found += faults(capsys, lambda w=words: run(experiment, tmp_path, *w), rf"{field} = {value}\b")
    assert found == []


WORDS = [
    (("--nonsense", "1"), ("--nonsense", "--help")),
    (("stray",), ("stray",)),
    (("--seed", "one"), ("--seed", "'one'")),
    (("--seed",), ("--seed",)),
    (("--seed", "-1"), (r"seed = -1", r"from 0 to 2\*\*32 - 1")),
    (("--seed", str(2**32)), (r"seed = 4294967296", r"from 0 to 2\*\*32 - 1")),
    (("--format", "bmp"), ("format = 'bmp'", "'png', 'pdf', 'svg'")),
    (("--format", "png,"), ("format = ''", "'png', 'pdf', 'svg'")),
]


@pytest.mark.parametrize("name", NAMES)
def test_words_that_are_no_flags_or_values(name, tmp_path, capsys):
    experiment, found = loaded(name), []
    table = [*WORDS] if name == NAMES[0] else []  # one parser reads them all
    for field in kinds(experiment.setup):
        if field in ("loss", "scenario", "optimiser", "real"):
            table += [((flag(field), "nonsense"), (field, "nonsense", "dpo|adam|iris|on"))]
    for kind in (int, float):
        for field in [field for field, types in kinds(experiment.setup).items() if kind in types][:1]:
            table += [((flag(field), "much"), (flag(field), "'much'"))]
    for words, said in table:
        found += faults(capsys, lambda words=words: run(experiment, tmp_path, *words), f"experiments.{name}", *said)
    assert found == []


@pytest.mark.parametrize("name", NAMES)
def test_folders_that_cannot_be_written(name, tmp_path, capsys):
    from experiments.harness import main

    experiment, found = loaded(name), []
    (tmp_path / "file").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    for out in (tmp_path / "file", tmp_path / "out"):
        words = ["--out", str(out), "--resume"]
        found += faults(capsys, lambda words=words: main(experiment, words), re.escape(str(out)), "--out names")
    assert found == []
    assert (tmp_path / "file").read_text() == (tmp_path / "out" / name).read_text() == "mine"


def test_a_good_command_line_is_not_refused(tmp_path):
    with pytest.raises(Computed):
        run(loaded("entanglement"), tmp_path, "--quick", "--resume")


# -- the other commands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "main, words, said",
    [
        (listing.main, ["entangelment"], ["'entangelment'", "python -m experiments lists them"]),
        (listing.main, ["duality"], ["'duality'", r"python -m experiments\.duality"]),
        (prove.main, ["nobody"], ["'nobody' is no phenomenon", "there are .*entanglement"]),
        (prove.main, ["--nonsense"], ["--nonsense", "--help"]),
    ],
)
def test_other_commands(main, words, said, capsys):
    assert faults(capsys, lambda: main(words), *said) == []
