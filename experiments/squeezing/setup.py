"""The numbers of the experiment on the squeezing effect."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from sandbox.validate import in_range, positive, whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    impulse: float = knob(5.0, "impulse of the steps on 50 responses, nats of logit: learning rate x |features|^2")
    laws: int = knob(20_000, "random laws on which winners are predicted", quick=2_000)
    grid: int = knob(120, "probabilities, and shares, of the phase diagram of winners", quick=24)
    tokens: int = knob(10, "tokens of the toy of sequences")
    negatives: int = knob(4, "rejected tokens there, after the first")
    sft_steps: int = knob(10, "steps of fine-tuning before DPO there")
    steps: int = knob(200, "steps of DPO there")
    rate: float = knob(0.5, "learning rate there")
    beta: float = knob(0.1, "beta of DPO, per nat")
    overlaps: int = knob(31, "overlaps of the contexts, from 0 to 0.9, of the phase diagrams there", quick=7)
    longest_sft: int = knob(40, "most steps of fine-tuning in its phase diagram", quick=16)
    digits: bool = knob(True, "steps on a classifier of digits, if scikit-learn (extra data) is installed", quick=False)
    pairs: int = knob(60, "pairs of responses of the comparison of accounts, per seed and kind", quick=24)
    seeds: int = knob(5, "seeds there", quick=3)
    account_steps: int = knob(60, "steps of DPO on each pair there")

    def __post_init__(self) -> None:
        for name in ("laws", "grid", "sft_steps", "steps", "longest_sft", "pairs", "seeds", "account_steps"):
            whole(name, getattr(self, name), 2)
        whole("overlaps", self.overlaps, 3)
        whole("negatives", self.negatives)
        if whole("tokens", self.tokens, 4) < self.negatives + 3:
            raise ValueError(f"tokens = {self.tokens}: must be at least negatives + 3 = {self.negatives + 3}")
        for name in ("impulse", "rate", "beta"):
            positive(name, getattr(self, name))
        in_range("impulse", self.impulse, 0, 100, "(]")
