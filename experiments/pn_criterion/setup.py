"""The numbers of the experiment on the p-n criterion."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from sandbox.validate import in_range, nonnegative, whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    alpha: float = knob(0.05, "how far below 1/2 the Bayes error may fall, here and for your data (--data)")
    gamma: float = knob(1.0, "misspecification of the softmax toy in the phase diagram, nats")
    largest: int = knob(800, "draws up to which one statistic is enumerated, at least 100", quick=400)
    largest_pair: int = knob(120, "draws up to which two statistics are enumerated, at least 60", quick=60)
    samples: int = knob(10_000, "samples for mean risks and Bayes errors", quick=2_000)
    grid_samples: int = knob(300, "samples in each cell of the phase diagram", quick=60)
    plug_in_samples: int = knob(2_000, "samples on which the criterion is estimated", quick=300)

    def __post_init__(self) -> None:
        in_range("alpha", self.alpha, 0, 0.5, "()")
        nonnegative("gamma", self.gamma)
        for name, least in (("largest", 100), ("largest_pair", 60), ("samples", 2), ("grid_samples", 2),
                            ("plug_in_samples", 2)):  # fmt: skip
            whole(name, getattr(self, name), least)
