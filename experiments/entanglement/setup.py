"""The numbers of the entanglement experiment."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from sandbox.dynamics import whole_blocks
from sandbox.validate import in_range, positive, whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    runs: int = knob(20_000, "random one-step runs in the phase diagram", quick=10_000)
    step: float = knob(1e-4, "length of such a step, in the units of the parameters")
    run_steps: int = knob(1000, "steps of a run of Flex-DPO in the phase diagram", quick=100)
    stride: float = knob(0.005, "length of the first of them, in the units of the parameters")
    vocabulary: int = knob(6, "tokens of a random policy of the phase diagram")
    tokens: int = knob(4, "tokens of a response there")
    features: int = knob(8, "features of a context there")
    beta: float = knob(0.1, "strength of the pull to the reference policy in DPO, per nat")
    path_steps: int = knob(400, "steps of each loss's path through the diagram", quick=100)
    suffix: int = knob(10, "shared tokens after the contrast, on the paths")
    overlap: float = knob(0.8, "inner product of the two responses' features at a suffix token, between 0 and 1")
    chosen_error: float = knob(0.2, "probability that the chosen response's suffix token misses at the start")
    rejected_error: float = knob(0.8, "the same of the rejected response")
    seeds: int = knob(5, "seeds of the sentiment network", quick=2)
    sentiment_pairs: int = knob(64, "preference pairs of the sentiment task", quick=16)
    sft_steps: int = knob(64, "steps of fine-tuning on the chosen responses (rate 0.5) before DPO")
    dpo_steps: int = knob(100, "steps of DPO (rate 0.1)", quick=60)
    every: int = knob(5, "steps between two records of the sentiment task", quick=20)

    def __post_init__(self) -> None:
        for name in ("step", "stride", "beta"):
            positive(name, getattr(self, name))
        for name in ("runs", "run_steps", "tokens", "features", "path_steps", "sft_steps", "dpo_steps", "every"):
            whole(name, getattr(self, name))
        for name in ("vocabulary", "seeds", "sentiment_pairs"):
            whole(name, getattr(self, name), 2)
        whole("suffix", self.suffix, 0)
        in_range("overlap", self.overlap, 0, 1)
        in_range("chosen_error", self.chosen_error, 0, 1, "()")
        in_range("rejected_error", self.rejected_error, 0, 1, "()")
        whole_blocks(self.dpo_steps, self.every)
