"""The numbers of the dpo_3d experiment."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.harness import knob


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so."""

    beta: float = knob(0.1, "strength of the pull to the reference policy in DPO, per nat")
    beta_chosen: float = knob(0.1, "Flex-DPO's beta of the chosen response, per nat")
    beta_rejected: float = knob(0.25, "Flex-DPO's beta of the rejected response, per nat (in the table of losses)")
    alpha: float = knob(0.05, "weight of the fine-tuning term in DPO + SFT, per nat")
    runs: int = knob(20_000, "runs in the phase diagram", quick=10_000)
    models: int = knob(2_000, "random log-linear models for the one-number law and the safe cone", quick=500)
    last: float = knob(1e6, "time at which the table's runs end, learning rate times steps")
