"""What a page says, gathered from the theory, the kept verdicts, the record of the run and its figures."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import experiments
import theory
from experiments._gallery import movable
from experiments._gallery.mathematics import mathml
from experiments._gallery.pictures import THUMBNAIL, Picture, picture
from experiments._record import plain
from experiments._terminal import number
from experiments.harness import Experiment
from theory import _ledger
from theory.statement import Theorem

KINDS = {  # of verdicts: a sign and words for a count
    "every": ("✓", "proved at every size"),
    "sizes": ("✓", "proved at some sizes"),
    "checked": ("≈", "checked on numbers"),
    "refuted": ("✗", "refuted, as expected"),
    "open": ("?", "not as expected"),
}


@dataclass(frozen=True)
class Page:
    """Everything on a phenomenon's page. missing: why there is no record, and what makes one; else empty."""

    name: str
    title: str
    paper: str
    links: Sequence[Mapping[str, str]]
    about: Sequence[Mapping[str, str]]
    counted: Sequence[Mapping[str, Any]]
    refuted: Sequence[Mapping[str, Any]]
    holding: Sequence[Mapping[str, Any]]
    movable: Mapping[str, Any] | None
    findings: Sequence[Mapping[str, Any]]
    figures: Sequence[Mapping[str, Any]]
    thumbnail: Picture | None
    record: Mapping[str, Any] | None
    missing: str

    @property
    def contents(self) -> list[tuple[str, str]]:
        """The sections there are: anchors and headings."""
        said = (
            ("move", "Move it", self.movable), ("refuted", "What is false", self.refuted),
            ("statements", "What holds", self.holding), ("findings", "Findings", self.findings),
            ("figures", "Figures", self.figures), ("record", "The record", self.record),
        )  # fmt: skip
        return [(anchor, words) for anchor, words, there in said if there]


def neighbours(pages: Sequence[Page], here: Page) -> tuple[Page | None, Page | None]:
    """The pages before and after this one."""
    at = pages.index(here)
    return pages[at - 1] if at else None, pages[at + 1] if at + 1 < len(pages) else None


def page(name: str, folder: Path) -> Page:
    """The page of an experiment whose run left ``folder``.

    Raises ValueError for a record or a figure that cannot be read, and for LaTeX that cannot be typeset.
    """
    experiment = experiments.load(name)
    path = folder / "numbers.json"
    record = _read(path, name)
    stated = dict(experiment.borrowed or {name: theory.theorems(name)})
    known = {phenomenon: _ledger.verdicts(phenomenon) for phenomenon in stated}
    proofs = {t: known[phenomenon][t.name] for phenomenon, some in stated.items() for t in some}
    keys = [key for key, _ in Counter(t.source.key for t in proofs).most_common()]
    checks = _checks(record.get("claims", []))
    claims = [_claim(t, proof, keys[0], checks.get(t.id, [])) for t, proof in proofs.items()]
    drawn = [(f["name"], f["caption"]) for f in record.get("figures", [])]
    shown = [f for f in drawn if "diagram" in f[0]] or drawn
    return Page(
        name=name,
        title=experiments.title(name).rstrip("."),
        paper=_ledger.paper(name) if name in theory.names() else _borrowed(stated),
        links=_links(keys[0]),
        about=list(_about(experiment.about or "")),
        counted=counted([c["kind"] for c in claims]),
        refuted=[c for c in claims if c["kind"] == "refuted"],
        holding=[c for c in claims if c["kind"] != "refuted"],
        movable=movable.drawn(experiment.movable(experiment.setup())) if experiment.movable else None,
        findings=record.get("findings", []),
        figures=[_figure(name, folder, *figure) for figure in drawn],
        thumbnail=picture(folder / f"{shown[0][0]}.png", shown[0][1], THUMBNAIL) if shown else None,
        record=_settings(experiment, record) if record else None,
        missing="" if record else f"{name}: no run is recorded at {path}; python -m experiments.{name} makes one",
    )


def counted(kinds: list[str]) -> list[dict[str, Any]]:
    """How many verdicts of each kind there are, in the order of ``KINDS``."""
    there = [kind for kind in KINDS if kind in kinds]
    return [{"kind": k, "count": kinds.count(k), "sign": KINDS[k][0], "words": KINDS[k][1]} for k in there]


# -- the record --------------------------------------------------------------------------------------------------------


def _read(path: Path, name: str) -> dict[str, Any]:
    """The record, or an empty one where there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}; python -m experiments.{name} makes it anew") from error
    expected = {"setup": dict, "seed": int, "versions": dict, "claims": list, "figures": list}
    if not isinstance(record, dict) or not all(isinstance(record.get(k), kind) for k, kind in expected.items()):
        raise ValueError(f"{path}: is no record of a run; python -m experiments.{name} makes it anew")
    return record


def _settings(experiment: Experiment, record: Mapping[str, Any]) -> dict[str, Any]:
    meanings = {f.name: f.metadata["help"] for f in fields(experiment.setup)}
    rows = [{"name": n, "value": _value(v), "meaning": meanings.get(n, "")} for n, v in record["setup"].items()]
    usual, seed = plain(asdict(experiment.setup())), record["seed"]
    changed = {n.replace("_", "-"): v for n, v in record["setup"].items() if n in usual and v != usual[n]}
    flags = [f"--{n} {shlex.quote(str(v))}" for n, v in (changed | ({"seed": seed} if seed else {})).items()]
    flags += ["--no-x64"] if record["versions"].get("precision") == "float32" else []
    command = " ".join([f"python -m experiments.{experiment.name}", *flags])
    return {"seed": seed, "versions": record["versions"], "settings": rows, "command": command}


def _value(x: Any) -> str:
    return str(x).replace("\n", "⏎ ") if isinstance(x, str | bool) or x is None else number(x)


def _checks(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """What the record says of each claim, by its id: a line, and why the tolerance is what it is."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["gap"] is None:
            continue
        why, _, over = row["why"].rpartition(" (over ")
        over = over.removesuffix(")")
        gap, tolerance = number(row["gap"]), number(row["tolerance"])
        if row["expect"] == "refuted":
            said = f"simulation: violated by {gap} in {over}" if row["holds"] else f"simulation: NOT violated in {over}"
        else:
            said = f"simulation: gap {gap}, tolerance {tolerance}, in {over}"
            said = said if row["holds"] else f"DOES NOT HOLD: {said}"
        found.setdefault(row["id"], []).append({"summary": said, "why": f"The tolerance: {why}."})
    return found


# -- statements --------------------------------------------------------------------------------------------------------


def _claim(theorem: Theorem, proof: _ledger.Proof, key: str, checks: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    kind = proof.verdict if proof.holds else "open"
    if kind == "proved":
        kind = "every" if proof.sizes == "every" else "sizes"
    details = {"refuted": "Counterexample", "checked": "On", "open": "Reason"}
    return {
        "claim": theorem.claim or theorem.name.replace("_", " "),
        "anchor": theorem.name,
        "kind": kind,
        "sign": KINDS[kind][0],
        "verdict": str(proof) if proof.holds else f"not as expected: {proof}",
        "source": theorem.source.place if theorem.source.key == key else str(theorem.source),
        "math": mathml(theorem.latex),
        "statement": theorem.statement,
        "detail": proof.detail,
        "detail_of": details.get(kind, ""),
        "checks": checks,
    }


def _borrowed(stated: Mapping[str, Sequence[Theorem]]) -> str:
    return f"Theorems of {', '.join(name.replace('_', ' ') for name in stated)}"


def _links(key: str) -> list[dict[str, str]]:
    """Where the paper can be read, if papers.bib says so."""
    bib = (_ledger.ROOT / "theory" / "papers.bib").read_text(encoding="utf-8")
    entry = next((part for part in bib.split("\n@") if part.partition("{")[2].startswith(f"{key},")), "")
    found = re.search(r"eprint\s*=\s*\{([\d.]+)\}", entry)
    return [{"href": f"https://arxiv.org/abs/{found[1]}", "text": f"arXiv:{found[1]}"}] if found else []


def _about(doc: str) -> Iterator[dict[str, str]]:
    """Of an experiment's docstring what is asked and what to look for: not its title, nor its figures and flags."""
    text = " ".join(doc.partition("\n\n")[2].rpartition("\n\nYour own")[0].split() or doc.partition("\n\n")[2].split())
    heads = list(re.finditer(r"(?:^|(?<=[.?;] ))(Paper|Model|Question|Figures|Look for): ", text))
    ends = [b.start() for _, b in pairwise(heads)] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        if head[1] in ("Model", "Question", "Look for"):
            words = text[head.end() : end].strip()
            yield {"head": head[1], "text": words[:1].upper() + words[1:]}


# -- figures -----------------------------------------------------------------------------------------------------------


def _figure(name: str, folder: Path, figure: str, caption: str) -> dict[str, Any]:
    words, *verdicts = caption.split("\n")
    path = folder / f"{figure}.png"
    return {
        "name": figure,
        "picture": picture(path, caption),
        "missing": f"{path} is missing; python -m experiments.{name} draws it",
        "alt": f"Figure {figure.replace('_', ' ')}. {words}",
        "words": words,
        "verdicts": verdicts,
    }
