"""The numbers of the experiment on h-calibration."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from sandbox.validate import positive, whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    events: int = knob(400_000, "events at the truth, for the noise of a window", quick=40_000)
    samples: int = knob(40_000, "samples of the Gaussian classes whose losses are drawn against T", quick=3_000)
    window: int = knob(1001, "events in a window there, odd", quick=301)
    temperatures: int = knob(25, "temperatures there, from 1/3 to 3 in geometric steps, odd so that 1 is one", quick=9)
    phases: int = knob(40, "priors, and separations, of the phase diagram", quick=12)
    seeds: int = knob(5, "seeds of the known miscalibration", quick=1)
    calibration: int = knob(8_000, "samples that a map is fitted to", quick=1_500)
    test: int = knob(20_000, "samples that it is judged by", quick=4_000)
    fit_window: int = knob(201, "events in a window of the losses that fit, odd")
    steps: int = knob(200, "steps of Adam a fit", quick=60)
    learning_rate: float = knob(0.02, "its learning rate", quick=0.05)
    spread: float = knob(2.5, "standard deviation of the logits there")

    def __post_init__(self) -> None:
        for name in ("events", "samples", "phases", "seeds", "calibration", "test", "steps"):
            whole(name, getattr(self, name))
        for name in ("window", "fit_window", "temperatures"):
            if whole(name, getattr(self, name)) % 2 == 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be odd")
        positive("learning_rate", self.learning_rate)
        positive("spread", self.spread)
