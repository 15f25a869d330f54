"""What may become of a claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Proved:
    """Proved, at every size (``sizes == ()``) or at the sizes listed."""

    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"proved (sizes {', '.join(map(str, self.sizes))})" if self.sizes else "proved (every size)"


@dataclass(frozen=True)
class Checked:
    """No proof, but right at so many points to so many digits."""

    points: int
    digits: int

    def __str__(self) -> str:
        return f"checked ({self.points} points, {self.digits} digits)"


@dataclass(frozen=True)
class Undecided:
    """Neither proved nor refuted; never a pass."""

    reason: str

    def __str__(self) -> str:
        return f"undecided ({self.reason})"


@dataclass(frozen=True)
class Refuted:
    """False: the arguments of a counterexample, and the two sides there."""

    counterexample: Mapping[str, str]
    lhs: str
    rhs: str

    def __str__(self) -> str:
        where = ", ".join(f"{k}={v}" for k, v in self.counterexample.items())
        return f"refuted ({where}: {self.lhs} against {self.rhs})"


Verdict = Proved | Checked | Undecided | Refuted
