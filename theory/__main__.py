"""Prove every statement: ``python -m theory [NAME ...] [--readme]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

import theory
from sandbox import runtime
from theory import _ledger
from theory.statement import Theorem

Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")]
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def ledger(names: Names = (), readme: Switch = False) -> int:
    """Prove every statement and print the ledger: claim, source, verdict, time, planted errors caught, premises met.

    Exit status: 0 if every verdict is as expected, 1 if one is not, 2 for bad input. Verdicts are kept until a source
    changes.

    Args:
        names: phenomena whose statements are proved; without one, all
        readme: only renew the table of verdicts in README.md, docs/ledger.md and docs/refuted.md
    """
    runtime.configure()
    path = _ledger.ROOT / "README.md"
    try:
        stated = {name: theory.theorems(name) for name in names or theory.names()}
        text = _ledger.renewed(path.read_text(encoding="utf-8")) if readme else ""
    except (ValueError, FileNotFoundError) as error:
        print(f"theory: {error}", file=sys.stderr)
        return 2
    if readme:
        from theory import _pages

        _ledger.write(path, text)
        for page, written in _pages.pages().items():
            _ledger.write(_ledger.ROOT / page, written)
        print(f"{path.name}: the table of verdicts is up to date, and so are docs/ledger.md and docs/refuted.md")
        return 0
    status = 0
    for name, theorems in stated.items():
        with Console(stderr=True).status(f"{name}: proving {len(theorems)} claims, and errors planted in them"):
            proofs, audits = _ledger.verdicts(name), _ledger.audits(name)
        _print(name, theorems, proofs, audits)
        status |= any(not proof.holds for proof in proofs.values())
    return status


def _print(
    name: str, theorems: list[Theorem], proofs: dict[str, _ledger.Proof], audits: dict[str, _ledger.Audit]
) -> None:
    terminal = Console(width=None if sys.stdout.isatty() else 120)
    sources = {t.source.key for t in theorems}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("claim", "source", "verdict"):
        table.add_column(heading, overflow="fold")
    for heading in ("ms", "errors caught", "premises met"):
        table.add_column(heading, justify="right")
    for theorem in theorems:
        proof, audit = proofs[theorem.name], audits[theorem.name]
        detail = proof.detail if proof.verdict != "checked" else ""
        table.add_row(
            f"{theorem.claim} {theorem.name.replace('_', ' ')}".strip(),
            theorem.source.place if len(sources) == 1 else str(theorem.source),
            ("" if proof.holds else "NOT AS EXPECTED: ") + str(proof) + (f": {detail}" if detail else ""),
            f"{proof.milliseconds:.0f}",
            "" if audit.planted is None else f"{audit.killed}/{audit.planted} (+{audit.equivalent})",
            "" if audit.met is None else f"{audit.met:.0%}",
        )
    terminal.print(table, markup=False, highlight=False)
    terminal.print(f"{name}: {_ledger.totals(proofs.values(), audits.values())}\n", markup=False, highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        return tyro.cli(ledger, prog="python -m theory", args=argv)
    except SystemExit as stop:
        return int(stop.code or 0)


if __name__ == "__main__":
    sys.exit(main())
