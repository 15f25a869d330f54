"""The numbers of the experiment on likelihood displacement."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob
from sandbox.validate import positive, whole


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    length: float = knob(4.0, "norm of the embeddings of No, Never and Yes")
    norm: float = knob(0.1, "norm of the hidden vector, which points along No, at the start")
    angle: float = knob(20.0, "angle between No and Never, degrees")
    steps: int = knob(2000, "steps of DPO on the pair No, Never, at beta 0.1 and learning rate 0.1", quick=400)
    phases: int = knob(61, "angles, and norms of the hidden vector, of the phase diagram", quick=21)
    moments: int = knob(240, "times at which each of its runs is looked at", quick=80)
    pairs: int = knob(500, "random pairs whose scores are ranked", quick=200)
    seeds: int = knob(6, "draws of them", quick=3)
    levels: int = knob(5, "confidences, and shared means of the hidden vectors, at which they are drawn", quick=3)
    networks: int = knob(5, "small networks", quick=2)
    prompts: int = knob(20, "their prompts, each with eight pairs", quick=8)
    network_steps: int = knob(100, "steps of DPO of a network", quick=40)
    refusers: int = knob(10, "networks that learn to refuse", quick=3)
    refusal_steps: int = knob(300, "steps of DPO of those", quick=60)
    compared: int = knob(60, "pairs of responses of the comparison of accounts, per seed and kind", quick=24)
    compared_seeds: int = knob(5, "seeds there", quick=3)
    compared_steps: int = knob(60, "steps of DPO on each pair there")

    def __post_init__(self) -> None:
        for name in ("length", "norm", "angle"):
            positive(name, getattr(self, name))
        least = dict(steps=100, phases=5, moments=20, pairs=20, seeds=2, levels=2, networks=2, prompts=4)
        for name, allowed in (
            least | dict(network_steps=10, refusers=2, refusal_steps=20, compared=2, compared_seeds=2, compared_steps=1)
        ).items():
            whole(name, getattr(self, name), allowed)
