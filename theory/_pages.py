"""The pages that are written from the ledger: ``docs/ledger.md``, every claim, ``docs/refuted.md``, the false ones."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import theory
from theory import _ledger
from theory.statement import Theorem

HEADINGS = ("Claim", "Source", "Relation", "Expected", "Proof", "On draws", "In simulation", "Errors caught")
RIGHT = {"On draws", "In simulation", "Errors caught"}


class Entry(NamedTuple):
    """What is known of one claim; ``checks``: its rows in the record of the phenomenon's full run."""

    theorem: Theorem
    proof: _ledger.Proof
    audit: _ledger.Audit
    checks: Sequence[Mapping[str, Any]]


def pages() -> dict[str, str]:
    """The text of each page by its path below the root. Proves and audits what the ledger does not know."""
    found = {name: entries(name) for name in theory.names()}
    return {"docs/ledger.md": ledger_page(found), "docs/refuted.md": refuted_page(found)}


def entries(name: str) -> list[Entry]:
    """The entries of one phenomenon, in the order in which they are stated."""
    proofs, audits, checks = _ledger.verdicts(name), _ledger.audits(name), recorded(name)
    return [Entry(t, proofs[t.name], audits[t.name], checks.get(t.id, [])) for t in theory.theorems(name)]


def recorded(name: str) -> dict[str, list[dict[str, Any]]]:
    """The claims of the phenomenon's full run by id, each with the rows of its checks; empty without a record."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with suppress(FileNotFoundError):
        text = (_ledger.ROOT / "paper_figures" / name / "numbers.json").read_text(encoding="utf-8")
        for row in json.loads(text)["claims"]:
            rows.setdefault(row["id"], []).append(row)
    return rows


# -- every claim -------------------------------------------------------------------------------------------------------

LEDGER = """\
# The ledger

Every claim on {phenomena} phenomena and what became of it: {proved} are proved, {checked} can only be checked (rates,
means, limits of algorithms), {refuted} are [refuted](refuted.md). Of the {true} true claims {broken} failed on {draws}
random draws of their arguments. In all {totals}.

`python -m theory --readme` writes this page from the statements in [theory/](../theory). How to read it:

- **Relation**: what kind of statement it is. **Expected**: what `theory/` says should become of it.
- **Proof**: the prover's verdict, with the sizes (of the vocabulary, of the parameters) that it covers.
- **On draws**: of {draws} random draws in float64, how many meet the premises, where a claim has some, and whether the
  claim holds on all that do; of a refuted claim, how many violate it. The suite tries every true claim on 200 draws of
  Hypothesis besides, and fails if one violates it or none meets its premises.
- **In simulation**: the largest gap between the two sides along the runs of the experiment, of the tolerance that it is
  allowed (its reason stands in `paper_figures/NAME/numbers.json`); empty where no run touches the claim. A
  refuted claim must exceed it.
- **Errors caught**: of the errors planted in the claim (a sign, a factor, chosen for rejected) those that the prover
  refutes; empty where none can be planted, and for a refuted claim.
"""


def ledger_page(found: Mapping[str, list[Entry]]) -> str:
    """Every claim in a table a phenomenon."""
    every = [entry for some in found.values() for entry in some]
    tried = [e for e in every if e.theorem.expect != "refuted"]
    counts = {"proved": 0, "checked": 0, "refuted": 0} | Counter(e.theorem.expect for e in every)
    counts |= {"phenomena": len(found), "draws": _ledger.DRAWS, "true": len(tried)}
    broken = sum(e.audit.broken > 0 for e in tried) or "none"
    text = [LEDGER.format(**counts, totals=_tally(every), broken=broken)]
    text += [f"- [{name}](#{name}): {_tally(some)}" for name, some in found.items()]
    for name, some in found.items():
        main = _main_paper(e.theorem for e in some)
        text += ["", f"## {name}", "", f"[{_ledger.paper(name)}](../{_ledger.place(name)})", ""]
        text += [_row(HEADINGS), _row("--:" if heading in RIGHT else "---" for heading in HEADINGS)]
        text += [_row((*stated(e.theorem, e.proof.relation, main), *_found(e))) for e in some]
    return "\n".join(text) + "\n"


def stated(theorem: Theorem, relation: str, paper: str) -> tuple[str, ...]:
    """The cells of a claim's row that need no proof: claim, source, relation, and what is expected."""
    source = theorem.source.place if theorem.source.key == paper else str(theorem.source)
    words = escaped(f"{theorem.claim} {theorem.statement}".strip())
    return f"{words} <br>`{theorem.name}`", escaped(source), relation, theorem.expect


def _found(entry: Entry) -> tuple[str, ...]:
    proof, audit = entry.proof, entry.audit
    verdict = str(proof) + (f" ({proof.detail})" if proof.verdict == "checked" else "")
    errors = f"{audit.killed}/{audit.planted}" if audit.planted and entry.theorem.expect != "refuted" else ""
    return ("" if proof.holds else "**not as expected:** ") + verdict, _draws(entry), _gap(entry), errors


def _draws(entry: Entry) -> str:
    audit = entry.audit
    met = "" if audit.met is None else f"{audit.met:.0%} meet the premises"
    if entry.theorem.expect == "refuted":
        return ", ".join(filter(None, [met, f"{audit.broken} violate it"]))
    return ", ".join(filter(None, [met, f"**{audit.broken} violate it**" if audit.broken else "all hold"]))


def _gap(entry: Entry) -> str:
    tried = [row for row in entry.checks if row["gap"] is not None]
    if not tried:
        return ""
    worst = max(tried, key=lambda row: float(row["gap"]) / (float(row["tolerance"]) or 1))
    amiss = "" if all(row["holds"] for row in tried) else ", **does not hold**"
    return f"{float(worst['gap']):.1g} of {float(worst['tolerance']):.1g}{amiss}"


def _tally(some: Iterable[Entry]) -> str:
    proofs, audits = [e.proof for e in some], [e.audit for e in some if e.theorem.expect != "refuted"]
    return _ledger.totals(proofs, audits)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Plain words as Markdown: a star or bar of a formula is no emphasis and no cell."""
    return re.sub(r"([\\*_<|$])", r"\\\1", text)


# -- the false ones ----------------------------------------------------------------------------------------------------

REFUTED = """\
# Refuted

{count} statements that look right and are not, each with a counterexample small enough to check by hand and with what
holds in its place. `python -m theory --readme` writes this page; the prover found or checked every counterexample
exactly, and the suite violates every statement with it once more in floating point.

**To be fair to the papers:** most of them prove what they print. What fails is mostly what a reader takes along: an
informal version at its word, a converse, a condition dropped, a picture in free variables carried over to a softmax; in
a few places it is a printed formula or a released script. The line under each heading says which. {controls} statements
are nobody's: controls of ours, false neighbours of a true statement, which show that its conditions are needed. They
come last.

How to read a counterexample: `p` is a distribution, `w` and `l` are the places of the chosen and the rejected response,
counted from 0; logarithms are natural, `E` is Euler's number; other names are arguments of the function in `theory/`.
"""


SPELT = {"apo": "APO", "bt": "BT", "ches": "CHES", "discopop": "DiscoPOP", "dpo": "DPO", "ipo": "IPO", "kl": "KL",
         "orpo": "ORPO", "rdpo": "R-DPO", "sft": "SFT", "simpo": "SimPO", "tic": "TIC"}  # fmt: skip


def is_control(theorem: Theorem) -> bool:
    """Is a refuted claim one that nobody made? Its source says "negative control", or "ours" and against nothing."""
    place = theorem.source.place
    return "negative control" in place or bool(re.match(r"ours\b(?!, against|, of the released)", place))


def refuted_page(found: Mapping[str, list[Entry]]) -> str:
    """Every refuted claim with its counterexample and what holds in its place, controls last."""
    false = [(name, e) for name, some in found.items() for e in some if e.theorem.expect == "refuted"]
    printed = [(name, e) for name, e in false if not is_control(e.theorem)]
    controls = [(name, e) for name, e in false if is_control(e.theorem)]
    text = [REFUTED.format(count=len(false), controls=len(controls)), "## Contents", ""]
    text += [f"- {name}: {_links(name, printed)}" for name in found if any(n == name for n, _ in printed)]
    text += ["- [controls of ours](#controls-of-ours)"]
    for name in found:
        here = [e for n, e in printed if n == name]
        text += ["", f"## {name}", "", _ledger.paper(name)] if here else []
        text += [line for e in here for line in _account(name, e, found)]
    text += ["", "## Controls of ours"]
    text += [line for name, e in controls for line in _account(name, e, found)]
    return "\n".join(text) + "\n"


def _links(name: str, false: Iterable[tuple[str, Entry]]) -> str:
    titles = [_title(e.theorem) for n, e in false if n == name]
    return ", ".join(f"[{title}](#{title.lower().replace(' ', '-')})" for title in titles)


def _title(theorem: Theorem) -> str:
    words = [SPELT.get(word, word) for word in theorem.name.split("_")]
    return " ".join([words[0][0].upper() + words[0][1:], *words[1:]])


def said(name: str, theorem: Theorem) -> list[str]:
    """The lines of a refuted claim that need no proof: what is said, and where."""
    return [
        "",
        f"### {_title(theorem)}",
        "",
        f"*{escaped(str(theorem.source))}* · `theory/{name}`, {theorem.claim}",
        "",
        f"> {escaped(theorem.statement)}",
        "",
        "```math",
        theorem.latex,
        "```",
        "",
    ]


def falsified(detail: str, relation: str) -> str:
    """The counterexample of the ledger in a sentence."""
    where, _, values = detail.rpartition(": ")
    left, _, right = values.partition(" against ")
    asked = "should be at most the right one" if relation == "bound" else "should equal the right one"
    return f"**Counterexample.** At `{where}` the left side, which {asked}, is `{left}`; the right one is `{right}`."


def _account(name: str, entry: Entry, found: Mapping[str, list[Entry]]) -> list[str]:
    """A refuted claim's lines: what is said, where, why it is false, what holds instead."""
    audit = entry.audit
    met = "" if audit.met is None else f", of which {audit.met:.0%} meet its premises"
    often = f"{audit.broken or 'none'} violate{'s' if audit.broken == 1 else ''} it."
    return [
        *said(name, entry.theorem),
        falsified(entry.proof.detail, entry.proof.relation) + f" Of {_ledger.DRAWS} random draws{met}, {often}",
        "",
        "**What holds instead.**",
        "",
        *(_corrected(name, other, found) for other in entry.theorem.instead),
    ]


def _corrected(name: str, other: str, found: Mapping[str, list[Entry]]) -> str:
    phenomenon, _, called = other.rpartition(".")
    entry = next(e for e in found[phenomenon or name] if e.theorem.name == called)
    theorem = entry.theorem
    known = f"{entry.proof}, {escaped(theorem.source.place)}, `{other}`"
    return f"- {escaped(theorem.statement)} $`{theorem.latex}`$ ({known})"


# -- in step -----------------------------------------------------------------------------------------------------------


def astray() -> list[str]:
    """What on the committed pages is not as ``theory/`` and the records of the full runs say. Nothing is proved."""
    ledger, refuted = (
        (_ledger.ROOT / page).read_text(encoding="utf-8") for page in ("docs/ledger.md", "docs/refuted.md")
    )
    rows = [line for line in ledger.splitlines() if line.startswith("| ") and "<br>`" in line]
    stands, false = [], []
    for name in theory.names():
        theorems, records = theory.theorems(name), recorded(name)
        main = _main_paper(theorems)
        for t in theorems:
            relation = records[t.id][0]["relation"] if t.id in records else ""  # to ask the theorem takes longer
            stands.append((f"docs/ledger.md: {name}: {t.id}", _row(stated(t, relation, main))))
            if t.expect == "refuted":
                false.append((f"docs/refuted.md: {name}: {t.id}", "\n".join(said(name, t))))
    wrong = [what for (what, row), line in zip(stands, rows, strict=False) if not line.startswith(row)]
    wrong += [what for what, text in false if text not in refuted]
    counts = {"ledger": (len(rows), len(stands)), "refuted": (refuted.count("\n### "), len(false))}
    return wrong + [f"docs/{page}.md: {n} claims, {m} are stated" for page, (n, m) in counts.items() if n != m]


def _main_paper(theorems: Iterable[Theorem]) -> str:
    """The key of the paper that most claims of a phenomenon are from."""
    return Counter(t.source.key for t in theorems).most_common(1)[0][0]
