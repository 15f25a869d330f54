"""List the experiments, run all, or build the gallery: ``python -m experiments [all | gallery] [flags]``."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import experiments

USAGE = """\
python -m experiments               this list
python -m experiments.NAME [flags]  one experiment; --quick for a small run, --help for its numbers
python -m experiments all [flags]   every one, with the same flags (--quick, --seed, --out, --format, --x64, --resume)
python -m experiments gallery       what they left as a folder of pages: statements, proofs, figures, some that move
"""


def listing() -> str:
    """Each experiment and the first line of its docstring, and how to run them."""
    names = experiments.names()
    width = max(map(len, names), default=0)
    return "\n".join([*(f"{name:{width}}  {experiments.title(name)}" for name in names), "", USAGE])


def run_all(argv: Sequence[str]) -> int:
    """Run every experiment with the same flags, whatever becomes of the others; the worst exit status."""
    from experiments.harness import main

    ends = {0: "every claim holds", 1: "a claim does not hold, or it broke off", 2: "bad input"}
    statuses = {}
    for name in experiments.names():
        print(f"== {name}", flush=True)
        try:
            statuses[name] = main(experiments.load(name), argv)
        except Exception:  # a bug in one is no reason to leave out the others
            traceback.print_exc()
            statuses[name] = 1
    print("\n".join(f"{name}: {ends[status]}" for name, status in statuses.items()))
    return max(statuses.values(), default=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(listing(), end="")
        return 0
    if argv[0] == "all":
        return run_all(argv[1:])
    if argv[0] == "gallery":
        from experiments import _gallery

        return _gallery.main(argv[1:])
    hint = f"python -m experiments.{argv[0]}" if argv[0] in experiments.names() else "python -m experiments lists them"
    print(f"experiments: {argv[0]!r} is not a command; {hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
