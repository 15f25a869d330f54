"""x."""
from dataclasses import dataclass
from pathlib import Path
from experiments.harness import knob, Report
@dataclass(frozen=True)
class User:
    """x."""
    utilities: Path | None = knob(None, "x")
def report(setup, given, key):
    """x."""
    return Report({})
