"""The numbers of the experiment on a real model."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from sandbox.dynamics import whole_blocks
from sandbox.validate import positive, whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    model: str = knob("smollm2", "smollm2 (the installed package), tiny (random), or a GGUF file", quick="tiny")
    template: str = knob(
        "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
        "the text around a prompt; empty: the file's own chat template",
    )
    pairs: int = knob(70, "shipped pairs that are looked at, taken evenly over the file", quick=4)
    beta: float = knob(0.1, "strength of the pull to the reference policy in DPO, per nat")
    steps: int = knob(40, "steps of a training", quick=4)
    every: int = knob(2, "steps between two records of a training")
    gain: float = knob(0.2, "gain of the margin in the first step of descent, to first order, in nats")
    rmsprop_rate: float = knob(5e-7, "learning rate of RMSProp, in the units of the parameters", quick=1e-3)
    trained: int = knob(3, "pairs that are trained: of each region in turn the one deepest inside", quick=1)
    losses: int = knob(5, "losses they are trained with by descent: DPO, the mend, DPO + SFT, DPOP, SimPO", quick=2)
    adaptive: int = knob(2, "how many of these losses they are trained with by RMSProp, too")

    def __post_init__(self) -> None:
        for name in ("beta", "gain", "rmsprop_rate"):
            positive(name, getattr(self, name))
        for name in ("pairs", "steps", "every", "trained", "losses"):
            whole(name, getattr(self, name))
        whole("adaptive", self.adaptive, 0)
        whole_blocks(self.steps, self.every)
        if self.template and "{prompt}" not in self.template:
            raise ValueError(f"template = {self.template!r}: must have {{prompt}} in it, or be empty")
