"""The numbers of the experiment on the duality of utilities and probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from sandbox.validate import whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    length: int = knob(8, "positions of a sentence in toy A, tokens")
    longest: int = knob(40, "largest length of the phase diagram, tokens", quick=30)
    tasks: int = knob(4000, "random payoff tasks of toy B", quick=1000)
    samples: int = knob(50, "largest sample that toy C enumerates, draws", quick=16)
    replicas: int = knob(4000, "samples of 80 and of 320 draws in toy C", quick=500)
    instances: int = knob(4000, "random tables in which order is followed, for each step size", quick=500)
    follow: int = knob(40, "steps for which it is followed")
    search: int = knob(20_000, "random tables that try the conjecture at step size 4", quick=2000)
    duels: int = knob(40_000, "duels whose mean is compared with a step", quick=4000)
    seeds: int = knob(3, "networks of toy D, and tables with a shared kernel", quick=2)
    network_steps: int = knob(1024, "steps of the networks", quick=128)
    sharing_steps: int = knob(1024, "steps of the tables with a shared kernel", quick=256)
    levels: int = knob(9, "degrees of sharing, from none to all", quick=5)

    def __post_init__(self) -> None:
        least = dict.fromkeys(("length", "samples", "follow", "network_steps", "sharing_steps"), 16)
        least |= dict(length=8, samples=10, seeds=2, levels=2, longest=26, tasks=2, replicas=2, instances=2, duels=2)
        for name, allowed in least.items():
            whole(name, getattr(self, name), allowed)
        whole("search", self.search)
