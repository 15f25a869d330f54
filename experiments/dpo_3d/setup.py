"""The numbers of the dpo_3d experiment."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    beta: float = knob(0.1, "strength of the pull to the reference policy in DPO, per nat")
    network_seeds: int = knob(6, "seeds of the one-hot network", quick=2)
    pretrain_steps: int = knob(
        4000, "steps of Adam (rate 0.003) that bring the network to a scenario's laws", quick=2000
    )
    dpo_steps: int = knob(1500, "steps of the network's preference training", quick=600)
    every: int = knob(5, "steps between two records of the network")
