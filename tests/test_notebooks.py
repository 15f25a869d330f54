"""Every notebook runs as a script and in a kernel, and the .ipynb beside it is its executed copy.

``python -m tests.test_notebooks [NAME ...]`` executes them (all, without a name) and writes the copies anew, without
what differs from run to run: the same source and versions give the same bytes.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.test_house import strangers_in

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("[!_]*.py"))
ANEW = "`python -m tests.test_notebooks` writes it anew"
LARGEST = 600_000  # bytes: what a reviewer's browser still shows
RACES = [f"ignore:Error {doing} persistent compilation cache entry:UserWarning" for doing in ("reading", "writing")]


def environment(**more: str) -> dict[str, str]:
    """A reader's: the packages are found, figures go where the kernel puts them, and nothing else is set."""
    kept = {key: value for key, value in os.environ.items() if key not in {"MPLBACKEND", "PYTHONWARNINGS"}}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {"JAX_PLATFORMS": "cpu", **kept, "PYTHONPATH": path, **more}


def executed(script: Path) -> NotebookNode:
    """The notebook of a script with its outputs, as it is committed: no times, no versions, cells numbered."""
    notebook = jupytext.read(script)
    folder = {"metadata": {"path": str(script.parent)}}
    client = NotebookClient(notebook, timeout=300, record_timing=False, coalesce_streams=True, resources=folder)
    client.execute(env=environment())
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{number:02d}"
    return notebook


def committed(script: Path) -> NotebookNode:
    copied = script.with_suffix(".ipynb")
    assert copied.is_file(), f"{copied.name} is missing: {ANEW}"
    return nbformat.read(copied, as_version=4)


def sources(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """(number of the cell, output), in order."""
    return [(number, output) for number, cell in enumerate(notebook.cells) for output in cell.get("outputs", [])]


def printed(notebook: NotebookNode) -> list[str]:
    return [output.text for _, output in outputs(notebook) if output.output_type == "stream"]


def stale(notebook: NotebookNode, script: NotebookNode) -> list[str]:
    """Cells of the copy that are not those of the script."""
    ours, theirs = sources(notebook), sources(script)
    changed = [f"cell {n} differs" for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
    return changed + [f"{len(ours)} cells, the script has {len(theirs)}"] * (len(ours) != len(theirs))


def faults(notebook: NotebookNode) -> list[str]:
    """What a committed copy must not be: half run, failed, silent, noisy, or a telltale of the machine."""
    found = [f"cell {n}: {out.ename}: {out.evalue}" for n, out in outputs(notebook) if out.output_type == "error"]
    found += [f"cell {n}: standard error" for n, out in outputs(notebook) if out.get("name") == "stderr"]
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    found += ["not run from top to bottom in one go"] * (counts != list(range(1, 1 + len(counts))))
    found += ["no text"] * (not printed(notebook))
    found += ["no figure"] * (not any("image/png" in out.get("data", {}) for _, out in outputs(notebook)))
    found += ["the value of an expression"] * any(out.output_type == "execute_result" for _, out in outputs(notebook))
    found += [f"cell {n}: times" for n, cell in enumerate(notebook.cells) if "execution" in cell.metadata]
    return found + strangers_in(nbformat.writes(notebook))


each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert SCRIPTS


@each
def test_runs_as_a_script(script, tmp_path):
    """From top to bottom, its assertions with it, from another folder, and without a warning."""
    ignored = [flag for race in RACES for flag in ("-W", race)]
    run = subprocess.run(
        [sys.executable, "-W", "error", *ignored, str(script)],
        env=environment(MPLBACKEND="agg"), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, ""), f"{script.name}:\n{run.stderr}"


@each
def test_copy_is_in_step(script):
    assert stale(committed(script), jupytext.read(script)) == [], f"{script.stem}.ipynb is stale: {ANEW}"


@each
def test_copy_shows_a_clean_run(script):
    assert faults(committed(script)) == [], f"{script.stem}.ipynb: {ANEW}"
    assert script.with_suffix(".ipynb").stat().st_size < LARGEST


def test_first_runs_in_a_kernel():
    """And prints what its copy shows."""
    fresh = executed(SCRIPTS[0])
    assert faults(fresh) == []
    assert printed(fresh) == printed(committed(SCRIPTS[0])), f"{SCRIPTS[0].stem}.ipynb shows other results: {ANEW}"


def test_each_check_bites():
    good = committed(SCRIPTS[0])
    code = next(n for n, cell in enumerate(good.cells) if cell.cell_type == "code" and cell.outputs)

    def spoilt(spoil) -> NotebookNode:
        bad = copy.deepcopy(good)
        spoil(bad)
        return bad

    def says(*output) -> NotebookNode:
        return spoilt(lambda bad: bad.cells[code].outputs.append(nbformat.v4.new_output(*output[:1], **output[1])))

    assert stale(good, good) == [] and faults(good) == []
    assert stale(spoilt(lambda bad: bad.cells[code].update(source="1")), good) == [f"cell {code} differs"]
    assert stale(spoilt(lambda bad: bad.cells.pop()), good) != []
    for bad in (
        says("error", {"ename": "ValueError", "evalue": "no", "traceback": []}),
        says("stream", {"name": "stderr", "text": "a warning"}),
        says("stream", {"text": "read " + "/home" + "/ada/x"}),
        says("execute_result", {"data": {"text/plain": "1"}}),
        spoilt(lambda bad: bad.cells[code].update(execution_count=None)),
        spoilt(lambda bad: bad.cells[code].metadata.update(execution={})),
        spoilt(lambda bad: [cell.update(outputs=[]) for cell in bad.cells if cell.cell_type == "code"]),
    ):
        assert faults(bad) != []


if __name__ == "__main__":
    for path in [path for path in SCRIPTS if path.stem in (sys.argv[1:] or [path.stem])]:
        nbformat.write(executed(path), path.with_suffix(".ipynb"))
        print(f"notebooks/{path.stem}.ipynb: {path.with_suffix('.ipynb').stat().st_size / 1000:.0f} kB")
