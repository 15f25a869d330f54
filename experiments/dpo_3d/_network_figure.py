"""The four scenarios: a table in closed form, a network with a wide shared layer, one with a narrow layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.dpo_3d.network import WIDTHS
from experiments.dpo_3d.setup import SCENARIOS, Setup

Measured = Mapping[str, Mapping[str, np.ndarray]]

# Colour-blind safe (Okabe and Ito), of different lightness in grey; each with a dash of its own.
CURVES: dict[str, dict[str, Any]] = {
    "chosen": {"color": "#0072B2", "ls": "-"},
    "rejected": {"color": "#D55E00", "ls": "--"},
    "unseen": {"color": "#555555", "ls": "-."},
}
SHOWN = (WIDTHS[0], 3)  # wide, and the narrowest layer that can hold the laws


def scenarios_figure(setup: Setup, measured: Measured) -> Figure:
    """Probabilities along DPO, one column a scenario; thin lines are seeds, thick ones their mean.

    The table's are in closed form; the most that the unseen can have there is a dotted line in every row.
    """
    found, table_ = measured["scenarios"], measured["scenarios in a table"]
    figure, axes = plt.subplots(1 + len(SHOWN), len(SCENARIOS), figsize=(7.8, 5.4), sharey=True, sharex="row")
    for column, scenario in enumerate(SCENARIOS.values()):
        table, *networks = axes[:, column]
        for values, style in zip(table_["probabilities"][column], CURVES.values(), strict=True):
            table.plot(1 + table_["time"], values, lw=2, **style)
        for ax, width in zip(networks, SHOWN, strict=True):
            of = WIDTHS.index(width), column
            for values, style in zip(_probabilities(found, of), CURVES.values(), strict=True):
                ax.plot(1 + found["step"], values.T, lw=0.6, alpha=0.45, **{**style, "ls": "-"})
                ax.plot(1 + found["step"], values.mean(axis=0), lw=2, **style)
        for ax in axes[:, column]:
            ax.axhline(table_["bound"][column], color="black", lw=0.9, ls=":")
            ax.set(xscale="log", ylim=(-0.03, 1.03))
            ax.minorticks_off()
        table.set_title(scenario.title, fontsize=9)
        table.set_xlabel("1 + time")
        axes[-1, column].set_xlabel("1 + step of Adam")
    labels = ("table", *(f"{width} shared units" for width in SHOWN))
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(f"{label}\nprobability", fontsize=8)
    handles = [Line2D([], [], lw=2, **style) for style in CURVES.values()]
    handles.append(Line2D([], [], color="black", lw=0.9, ls=":"))
    names = ["chosen", "rejected", "all others (unseen)", "most that a table lets the unseen have"]
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def run_figure(setup: Setup, measured: Measured) -> Figure:
    """The run of the command line: log-probabilities of the pair and unseen mass along training, a line a seed."""
    found = measured["one run"]
    figure, (ax, right) = plt.subplots(1, 2, figsize=(7.4, 3.0), width_ratios=(1.2, 1))
    for name, panel in (("chosen", ax), ("rejected", ax), ("unseen", right)):
        style = CURVES[name]
        panel.plot(found["step"], found[name].T, lw=0.6, alpha=0.5, **{**style, "ls": "-"})
        panel.plot(found["step"], found[name].mean(axis=0), lw=2, **style)
        panel.plot([], [], lw=2, label=name, **style)
    ax.set(xlabel="step", ylabel="log-probability (nats)", title="the pair, mean over prompts")
    ax.legend(loc="lower left")
    right.set(xlabel="step", ylabel="probability", ylim=(-0.03, 1.03), title="all other responses")
    return figure


def _probabilities(found: Mapping[str, np.ndarray], of: tuple[int, int]) -> list[Any]:
    """Chosen, rejected, unseen (seeds, records) of one width and scenario; of the first two the geometric mean."""
    return [np.exp(found["dpo_chosen"][of]), np.exp(found["dpo_rejected"][of]), found["dpo_unseen"][of]]
