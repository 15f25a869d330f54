"""The numbers of the experiment on predictive multiplicity."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from experiments.multiplicity import real
from sandbox.validate import in_range, positive, whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    tolerated: float = knob(0.01, "epsilon of the studies and of the example, as a share of the best model's loss")
    absolute: float = knob(0.005, "epsilon of the study of separation, nats")
    group_epsilon: float = knob(0.002, "epsilon of the groups, nats")
    group_rate: float = knob(0.3, "rate of ones in the groups")
    shares: int = knob(24, "shares of a minority, from 0.01 to 0.5", quick=8)
    seeds: int = knob(8, "seeds of each study", quick=3)
    people: int = knob(300, "people in each study", quick=200)
    searched: int = knob(2000, "directions in which a model with many conflicts is looked for", quick=300)
    deltas: int = knob(30, "thresholds delta for which conflicts are counted", quick=10)
    plane: int = knob(80, "grid points a side of the maps of the plane, an even number", quick=30)
    real: str = knob(
        "installed", "real data sets, names with commas; or installed: those whose package (extra data) is there",
        quick="iris",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("tolerated", "absolute", "group_epsilon"):
            positive(name, getattr(self, name))
        in_range("group_rate", self.group_rate, 0, 1, "()")
        for name, least in {"shares": 2, "seeds": 2, "people": 50, "searched": 1, "deltas": 2, "plane": 2}.items():
            whole(name, getattr(self, name), least)
        if self.plane % 2:
            raise ValueError(f"plane = {self.plane}: must be even")
        real.chosen(self.real)
