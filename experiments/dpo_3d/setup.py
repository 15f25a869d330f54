"""The numbers of the dpo_3d experiment, and the four scenarios of on- and off-policy pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from experiments.harness import knob
from sandbox.losses import LOSSES
from sandbox.validate import in_range, one_of, positive, whole

UNITS = 64  # of the network's widest shared layer


class Scenario(NamedTuple):
    """Probabilities at the start of the chosen, the rejected, and of one response that is never listed (None: even)."""

    title: str
    chosen: float
    rejected: float
    peak: float | None = None


SCENARIOS = {
    "on-on": Scenario("both on-policy", 0.4, 0.4),
    "off-on": Scenario("chosen off-policy", 0.02, 0.8),
    "on-off": Scenario("rejected off-policy", 0.8, 0.02),
    "off-off": Scenario("both off-policy", 0.02, 0.02, peak=0.7),
}


@dataclass(frozen=True)
class Setup:
    """Every number of the experiment, with its unit; the quick run differs only where it says so.

    Raises ValueError for a number out of its range, a loss that there is not, steps that ``every`` does not divide.
    """

    beta: float = knob(0.1, "strength of the pull to the reference policy in DPO, per nat")
    beta_chosen: float = knob(0.1, "Flex-DPO's beta of the chosen response, per nat")
    beta_rejected: float = knob(0.25, "Flex-DPO's beta of the rejected response, per nat")
    alpha: float = knob(0.05, "weight of the fine-tuning term in DPO + SFT, per nat")
    runs: int = knob(20_000, "runs in the phase diagram", quick=10_000)
    models: int = knob(2_000, "random log-linear models for the one-number law and the safe cone", quick=500)
    last: float = knob(1e6, "time at which the table's runs end, learning rate times steps")
    loss: str = knob("dpo", "loss of the run that is shown first, by its name in sandbox.losses, its own constants "
                     "but for the betas and alpha above")  # fmt: skip
    scenario: Literal["on-on", "off-on", "on-off", "off-off"] = knob(
        "off-on", "where that run starts: are chosen-rejected likely under the policy?"
    )
    optimiser: Literal["adam", "sgd"] = knob("adam", "optimiser of that run")
    learning_rate: float = knob(1e-3, "its learning rate (gradient descent wants 0.1)")
    width: int = knob(3, "units of the layer that all prompts and responses share in that run, from 1 to 64")
    steps: int = knob(1500, "steps of the network's preference training", quick=200)
    network_seeds: int = knob(6, "seeds of the network", quick=2)
    pretrain_steps: int = knob(
        4000, "steps of Adam (rate 0.003) that bring the network to a scenario's laws", quick=600
    )
    every: int = knob(5, "steps between two records of the network")

    def __post_init__(self) -> None:
        for name in ("beta", "beta_chosen", "beta_rejected", "alpha", "last", "learning_rate"):
            positive(name, getattr(self, name))
        for name in ("runs", "models", "network_seeds", "pretrain_steps", "steps", "every"):
            whole(name, getattr(self, name))
        in_range("width", whole("width", self.width), 1, UNITS)
        one_of("loss", self.loss, list(LOSSES))
        if self.steps % self.every or self.steps < 10 * self.every:
            raise ValueError(f"steps = {self.steps}: must be a multiple of every = {self.every}, at least ten times it")
