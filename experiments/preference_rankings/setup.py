"""The numbers of the experiment on preference rankings."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from sandbox.dynamics import whole_blocks
from sandbox.validate import finite, in_range, positive, whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    beta: float = knob(0.1, "strength of the pull to the reference policy in DPO, and in yours (--pairs), per nat")
    clock_points: int = knob(400, "times at which single pairs are looked at", quick=100)
    prompts: int = knob(4000, "pairs with prompts of their own", quick=1000)
    offset: float = knob(5.0, "mean of their reference errors, nats")
    spread: float = knob(40.0, "standard deviation of their reference errors, nats")
    steps: int = knob(1000, "steps of DPO on the pairs that share parameters")
    learning_rate: float = knob(50.0, "step size there, on the mean loss")
    every: int = knob(10, "steps between two records there", quick=50)
    sequences: int = knob(4000, "synthetic pairs of responses with lengths and four raters", quick=1000)
    unanimous: float = knob(0.001, "what is taken off a share of raters of 1")
    worlds: int = knob(500, "random worlds of six responses for the first move of the win rate", quick=100)
    tilt: float = knob(3.5, "end of the path on which ranking and win rate part, in units of 1/beta")

    def __post_init__(self) -> None:
        for name in ("beta", "spread", "learning_rate", "tilt"):
            positive(name, getattr(self, name))
        finite("offset", self.offset)
        in_range("unanimous", self.unanimous, 0, 0.5, "()")
        for name in ("clock_points", "prompts", "steps", "every", "sequences", "worlds"):
            whole(name, getattr(self, name), 1 if name in ("steps", "every") else 2)
        whole_blocks(self.steps, self.every)
