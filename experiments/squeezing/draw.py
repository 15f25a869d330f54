"""The figures. Nothing is computed here: dots are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from experiments.squeezing.measure import CASES, CHOSEN, IMPULSES, LEVEL, PEAK, TABLE, VALLEY
from experiments.squeezing.sequence import RHO
from experiments.squeezing.setup import Setup

Measured = Mapping[str, Mapping[str, np.ndarray]]

BLUE, RED, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.55"


def label(ax: Axes, x: float, y: float, words: str, colour: str = "black", **kwargs: Any) -> None:
    """Words beside a line, in its colour, on white."""
    box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
    ax.text(x, y, words, color=colour, fontsize=8, bbox=box, **{"va": "center", **kwargs})


def one_step(setup: Setup, measured: Measured) -> Figure:
    """Fifty probabilities before and after a step, on logarithmic axes, four times."""
    run = measured["one step"]
    figure, axes = plt.subplots(2, 2, figsize=(8.6, 5.0), sharex=True, sharey=True)
    pushed = (LEVEL, PEAK, VALLEY, VALLEY)
    for k, (ax, title, l) in enumerate(zip(axes.flat, CASES, pushed, strict=True)):
        before, after = run["before"][k], run["after"][k]
        up = after > before
        x = np.arange(before.size)
        for which, colour, marker in ((up, BLUE, "^"), (~up, RED, "v")):
            ax.vlines(x[which], before[which], after[which], color=colour, lw=1.2)
            ax.plot(x[which], after[which], ls="", marker=marker, color=colour, ms=4)
        ax.plot(x, before, ls="", marker="_", color="black", ms=5, mew=1)
        ax.plot(l, before[l], ls="", marker="o", mfc="none", mec="black", ms=11)
        if k == 3:
            ax.plot(CHOSEN, before[CHOSEN], ls="", marker="s", mfc="none", mec="black", ms=11)
        others = np.arange(before.size) != l
        ax.set(yscale="log", title=f"{title}: {int(up[others].sum())} of {others.sum()} others rise", ylim=(1e-7, 2))
        if k < 3 and run["threshold"][k] > 0:
            ax.axhline(run["threshold"][k], color="0.4", lw=0.8, ls="--")
            label(ax, 49, run["threshold"][k] * (2.2 if k == 0 else 0.35), "T(s)", "0.4", ha="right")
    for ax in axes[1]:
        ax.set_xlabel("response")
    for ax in axes[:, 0]:
        ax.set_ylabel("probability")
    label(
        axes[0, 0], 0, 3e-6, "bar: before; triangle: after, up or down\ncircle: pushed down; square: chosen", ha="left"
    )
    return figure


def phase_diagram(setup: Setup, measured: Measured) -> Figure:
    """Who wins, over the probability of the rejected and the share of the top: one other, and four others."""
    run = measured["phases"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.9), sharex=True, sharey=True, width_ratios=(1, 1.2))
    left.pcolormesh(run["share"], run["q"], run["two"][0], cmap="cividis", vmin=1, vmax=2, shading="nearest",
                    rasterized=True)  # fmt: skip
    for counts, s, style in zip(run["two"][1:], IMPULSES[1:], ("--", ":"), strict=True):
        edge = np.array([run["q"][np.argmax(column == 2)] if (column == 2).any() else np.nan for column in counts.T])
        left.plot(run["share"], edge, color="black", ls=style, lw=1.4)
        at = int(0.72 * edge.size)
        left.text(run["share"][at], edge[at] + 0.02, f"s = {s:g}", color="black", fontsize=8, ha="right")
    mesh = right.pcolormesh(run["share"], run["q"], run["five"], cmap="cividis", shading="nearest", rasterized=True,
                            norm=BoundaryNorm(np.arange(0.5, 6.5), 256))  # fmt: skip
    figure.colorbar(mesh, ax=right, ticks=range(1, 6), label="how many of the five others rise")
    for ax in (left, right):
        ax.plot(run["share"], run["bound"], color="#D55E00", ls="-", lw=2)
        ax.grid(visible=False)
        ax.set_xlabel(r"share $r_*$ of the top among the others")
    for ax, words in ((left, "both rise"), (right, "all rise")):
        ax.text(0.62, 0.85, words, color="black", fontsize=9, ha="center")
    for ax in (left, right):
        ax.text(0.9, 0.1, "only the top rises", color="white", fontsize=9, ha="center")
    left.set(ylabel="probability q of the rejected response", title="one other beside the top", ylim=(0, 1))
    right.set_title("four others beside the top")
    return figure


def path(setup: Setup, measured: Measured) -> Figure:
    """All probabilities along the flow, and flows of three responses on the simplex."""
    run = measured["path"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.8), width_ratios=(1.2, 1))
    looks = ((BLUE, "-", "o"), (GREEN, "--", "s"), (PINK, "-.", "D"), (RED, ":", "v"))
    names = ("top", "innocent", "innocent", "pushed down")
    for k, (colour, style, marker) in enumerate(looks):
        left.plot(run["time"], run["closed"][:, k], color=colour, ls=style)
        left.plot(run["time"][::6], run["p"][::6, k], color=colour, ls="", marker=marker, mfc="white", ms=5)
    for k, (x, y) in enumerate(((9.5, 0.25), (7.3, 2.5e-2), (6.7, 2e-4), (4.8, 1e-6))):
        label(left, x, y, names[k], looks[k][0], ha="left" if k < 2 else "right")
    label(left, 13.8, 2e-4, "slope $-1$", GREEN, ha="right")
    label(left, 9.6, 3e-11, "slope $-2$", RED, ha="right")
    left.set(yscale="log", ylim=(1e-13, 3), xlabel="time (learning rate x steps)", ylabel="probability",
             title=f"pushing down the last of {', '.join(f'{x:g}' for x in TABLE)}")  # fmt: skip
    corner = np.array([[0, 0], [1, 0], [0.5, 3**0.5 / 2]])
    right.plot(*np.append(corner, corner[:1], axis=0).T, color="black", ls="-", lw=1)
    for k, (line, dots) in enumerate(zip(run["lines"], run["dots"], strict=True)):
        right.plot(*(line @ corner).T, color=(BLUE, RED, GREEN, PINK, "0.35")[k], ls="-", lw=1.3)
        right.plot(
            *(dots[::2] @ corner).T, ls="", marker="o", mfc="white", mec=(BLUE, RED, GREEN, PINK, "0.35")[k], ms=3.5
        )
        right.plot(*(dots[0] @ corner), ls="", marker="o", color="black", ms=5)
    for (x, y), words, ha in zip(corner, ("first", "second", "pushed down"), ("right", "left", "center"), strict=True):
        right.text(x + (-0.02, 0.02, 0)[("first", "second", "pushed down").index(words)], y + (0.05 if y else 0), words,
                   fontsize=8, ha=ha, va="center")  # fmt: skip
    right.set(xlim=(-0.15, 1.2), ylim=(-0.06, 1), aspect="equal", title="three responses: one line both ways")
    right.set_axis_off()
    return figure


def mend(setup: Setup, measured: Measured) -> Figure:
    """Toy C: log-probabilities along DPO, with and without fine-tuning on the rejected responses first."""
    run = measured["sequence"]
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.5), width_ratios=(1, 1, 0.9))
    steps = np.arange(run["chosen"].shape[-1])
    shown = (("chosen", BLUE, "-", "chosen"), ("rejected", RED, "--", "rejected"),
             ("top", GREEN, "-.", "top, after rejected"), ("held_out", PINK, ":", "top, held out"))  # fmt: skip
    for k, (ax, title) in enumerate(zip(axes, ("DPO", "rejected fine-tuned too, then DPO"), strict=False)):
        for name, colour, style, words in shown:
            ax.plot(steps, run[name][1, k], color=colour, ls=style, label=words)
        ax.set(xlabel="steps of DPO", title=title, ylim=(-9, 0.4))
    axes[0].set_ylabel("log-probability (nats)")
    axes[0].legend(loc="lower left", fontsize=7.5)
    axes[1].sharey(axes[0])
    for k, (colour, style) in enumerate(((RED, "--"), (BLUE, "-"))):
        axes[2].plot(steps, run["chosen"][k, 0], color=colour, ls=style)
        best = int(np.argmax(run["ratio"][k, 0] > 1))
        axes[2].plot(best, run["chosen"][k, 0, best], marker="o", color="black", ls="", ms=6)
        label(axes[2], (150, 108)[k], (-0.34, -0.45)[k], rf"overlap {RHO[k]:g}", colour, ha=("left", "right")[k])
    axes[2].set(xlabel="steps of DPO", ylabel="log-probability of the chosen (nats)", title="where Q passes 1")
    return figure


def displacement_map(setup: Setup, measured: Measured) -> Figure:
    """Toy C's change of the chosen over overlaps, numbers of rejected tokens, fine-tuning; and when Q passes 1."""
    run = measured["turns"]
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.9), sharey=True, width_ratios=(1, 1.25))
    most = 0.6  # nats, beyond which colours stay as they are: runs after a step or two of fine-tuning
    ticks = (np.arange(1, run["change_by_count"].shape[1] + 1), run["sft"])
    for ax, kind, x in zip(axes, ("count", "sft"), ticks, strict=True):
        mesh = ax.pcolormesh(np.arange(x.size), run["overlap"], run[f"change_by_{kind}"], cmap="PuOr", vmin=-most,
                             vmax=most, shading="nearest", rasterized=True)  # fmt: skip
        ax.set_xticks(np.arange(x.size), [str(int(n)) for n in x])
        ax.grid(visible=False)
        rows = np.linspace(0, run["overlap"].size - 1, 7).round().astype(int)
        for row in rows:
            for column in range(0, x.size, 1 if kind == "count" else 2):
                turn = int(run[f"turn_by_{kind}"][row, column])
                if turn >= 0:
                    ax.text(column, run["overlap"][row], str(turn), ha="center", va="center", fontsize=6.5)
    figure.colorbar(mesh, ax=axes[1], label="change of log p(chosen) (nats)", extend="both")
    axes[0].set(
        xlabel="rejected tokens", ylabel="overlap of the contexts", title=f"{setup.sft_steps} steps of fine-tuning"
    )
    axes[1].set(xlabel="steps of fine-tuning on the chosen before", title=f"{setup.negatives} rejected tokens")
    return figure


def questions(setup: Setup, measured: Measured) -> Figure:
    """Toy B: log-probabilities at question A while B's answer is trained, alone or with A's."""
    run = measured["questions"]["log_probs"]
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.1), sharey=True)
    looks = ((BLUE, "-", "A's answer"), (RED, "--", "B's answer"), (GREY, ":", "two others"), (GREY, ":", ""))
    for ax, at, title in zip(axes, run[:, :, 0], ("training B alone", "training A and B"), strict=True):
        for k, (colour, style, words) in enumerate(looks):
            ax.plot(at[:, k], color=colour, ls=style)
            if words and ax is axes[1]:
                label(ax, at.shape[0] + 1, float(at[-1, k]), words, colour, ha="left")
        ax.set(xlabel="steps of fine-tuning", title=title, xlim=(0, at.shape[0] * (1.35 if ax is axes[1] else 1.0)))
        ax.set_xticks(range(0, at.shape[0], 20))
    axes[0].set_ylabel("log-probability at A (nats)")
    return figure


def digits(setup: Setup, measured: Measured) -> Figure:
    """Toy D: what each digit is mistaken for, how alike the digits are, and what negative steps do."""
    run = measured["digits"]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1, 1, 1.05))
    off = run["confusion"] + np.where(np.eye(10, dtype=bool), np.nan, 0)
    for ax, values, words, title in (
        (axes[0], off, "mean probability", "mistaken for"),
        (axes[1], run["kernel"], "inner product of mean images", "kernel between digits"),
    ):
        mesh = ax.imshow(values, cmap="cividis", rasterized=True)
        figure.colorbar(mesh, ax=ax, label=words, shrink=0.8)
        ax.set(xticks=range(10), yticks=range(10), title=title)
        ax.grid(visible=False)
    axes[0].set(xlabel="class", ylabel="true digit")
    axes[1].set(xlabel="digit")
    names = ("trained", "one step\nagainst rarest", "50 steps,\nwrong labels")
    bars = axes[2].bar(range(3), run["confidence"], color=(GREY, BLUE, RED), width=0.6)
    for bar, hatch in zip(bars, ("", "//", "xx"), strict=True):
        bar.set_hatch(hatch)
        bar.set_edgecolor("white")
    for k, (value, accuracy) in enumerate(
        zip(run["confidence"], (run["accuracy"], None, run["ruined_accuracy"]), strict=True)
    ):
        words = f"{value:.3f}" if accuracy is None else f"{value:.3f}\naccuracy {accuracy:.2f}"
        axes[2].text(k, value + 0.02, words, ha="center", fontsize=7.5)
    axes[2].set_xticks(range(3), names, fontsize=7.5)
    axes[2].set(ylabel="mean largest probability", ylim=(0, 1.25), title="squeezed")
    axes[2].grid(axis="x", visible=False)
    return figure
