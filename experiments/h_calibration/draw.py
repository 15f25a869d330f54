"""The figures. Nothing is computed here: dots are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.h_calibration.measure import FITS, KNOT, PRIORS, RELEASED, SLOPES, STRETCH, TWO, TWO_SEPARATION
from experiments.h_calibration.setup import Setup

Measured = Mapping[str, Mapping[str, np.ndarray]]

POOLED, LEFT_OUT, CLASSWISE = "#0072B2", "#D55E00", "#009E73"  # colour-blind safe, of different lightness in grey
LOOKS = (
    (POOLED, "-", "o", "pooled"),
    (LEFT_OUT, "--", "^", "leaving one class out"),
    (CLASSWISE, ":", "s", "class-wise"),
)


def label(ax: Axes, x: float, y: float, words: str, colour: str, **kwargs: Any) -> None:
    """Words beside a line, in its colour, on white."""
    box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
    ax.text(x, y, words, color=colour, fontsize=8, bbox=box, **{"va": "center", **kwargs})


def noise(setup: Setup, measured: Measured) -> Figure:
    """Mean |T| at the truth against the window, on logarithmic axes."""
    run = measured["noise"]
    figure, ax = plt.subplots(figsize=(4.8, 3.3))
    ax.plot(run["window"], run["floor"], color="black", ls="-", lw=1.4)
    ax.plot(run["window"], run["loss"], ls="", marker="o", color=POOLED, mfc="white", ms=6)
    label(
        ax, 110, float(run["floor"][0]) * 0.42, r"$\overline{\sqrt{2q(1-q)/\pi M}}$, slope $-1/2$", "black", ha="center"
    )
    ax.set(xscale="log", yscale="log", xlabel="window M (events)", ylabel="mean |predicted $-$ observed| of a window",
           title="right predictions, and yet a loss")  # fmt: skip
    ax.set_xticks(run["window"], [str(int(m)) for m in run["window"]])
    ax.set_yticks([0.01, 0.02, 0.05], ["0.01", "0.02", "0.05"])
    ax.minorticks_off()
    return figure


def landscape(setup: Setup, measured: Measured) -> Figure:
    """The three losses against the temperature, at exact posteriors; four priors."""
    run = measured["landscape"]
    figure, axes = plt.subplots(1, 4, figsize=(10.4, 3.0), sharex=True)
    every = [*run["four"], run["two"]]
    names = [", ".join(f"{x:g}" for x in prior) for prior in (*PRIORS, TWO)]
    for ax, losses, name in zip(axes, every, names, strict=True):
        for (colour, style, marker, words), values in zip(LOOKS, losses, strict=True):
            ax.plot(run["temperature"], values, color=colour, ls=style, label=words)
            lowest = int(np.argmin(values))
            ax.plot(run["temperature"][lowest], values[lowest], marker=marker, color=colour, ms=7, mec="black", mew=0.6,
                    clip_on=False, zorder=4)  # fmt: skip
        ax.axvline(1, color="0.5", lw=0.8, ls="-")
        ax.set(xscale="log", title=f"prior {name}", xlabel="temperature T", ylim=(0, 0.16))
        ax.set_xticks([0.4, 1, 2.5], ["0.4", "1", "2.5"])
        ax.minorticks_off()
        ax.title.set_fontsize(8)
    axes[0].set_ylabel("h-calibration loss")
    axes[0].legend(loc="upper center", fontsize=7)
    return figure


def phase_diagram(setup: Setup, measured: Measured) -> Figure:
    """Where the loss without one class is least, over priors and separations; the example's losses against T."""
    run = measured["phases"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.4), width_ratios=(1.2, 1))
    mesh = left.pcolormesh(run["separation"], run["prior"], run["left_out"], cmap="cividis", shading="nearest",
                           vmin=1, rasterized=True)  # fmt: skip
    figure.colorbar(mesh, ax=left, label="T that it calls best (truth: 1)")
    left.plot(TWO_SEPARATION * np.sqrt(2), TWO[0], marker="^", ms=9, color="white", mec="black")
    label(left, TWO_SEPARATION * np.sqrt(2) - 0.15, TWO[0] + 0.035, "right panel", "black", ha="right")
    left.set(xlabel="separation of the two classes (standard deviations)", ylabel="prior of the rarer class",
             title="leaving one class out")  # fmt: skip
    left.grid(visible=False)
    for k, (colour, style, marker, words) in enumerate((LOOKS[1], LOOKS[0])):
        values = run["example"][:, k]
        right.plot(run["temperature"], values, color=colour, ls=style)
        lowest = int(np.argmin(values))
        right.plot(run["temperature"][lowest], values[lowest], marker=marker, color=colour, ms=8, mec="black", mew=0.6,
                   clip_on=False, zorder=4)  # fmt: skip
        at = ((1.05, 0.078), (3.9, 0.02))[k]
        label(right, *at, words if k == 0 else "pooled, class-wise", colour, ha="left" if k == 0 else "right")
    right.axvline(1, color="0.5", lw=0.8)
    right.set(xscale="log", xlabel="temperature T", ylabel="population loss, no noise", ylim=(0, 0.11), xlim=(0.5, 4),
              title=f"prior {TWO[0]}, separation {TWO_SEPARATION * np.sqrt(2):.2f}")  # fmt: skip
    right.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    right.minorticks_off()
    return figure


def windows(setup: Setup, measured: Measured) -> Figure:
    """Window gaps against the probability, before and after recalibration."""
    run = measured["recovery"]["windows"]
    figure, ax = plt.subplots(figsize=(5.4, 3.2))
    looks = (("0.35", "--", "as predicted"), (POOLED, "-", "after a piecewise map, class-wise loss"))
    for (p, gap), (colour, style, words) in zip(run, looks, strict=True):
        ax.plot(p, gap, color=colour, ls=style, label=words)
    ax.axhline(0, color="0.6", lw=0.8)
    ax.legend(loc="upper left")
    ax.set(xlabel="predicted probability of the event", ylabel=f"mean of {setup.window} events: predicted $-$ observed",
           xlim=(0, 1), title="what the loss averages")  # fmt: skip
    return figure


def recovery(setup: Setup, measured: Measured) -> Figure:
    """The map that was learned against the true one; canonical error of every fit, a dot a seed."""
    run = measured["recovery"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), width_ratios=(1, 1.25))
    true = np.interp(STRETCH, [0, KNOT, 10], [0, SLOPES[0] * KNOT, SLOPES[0] * KNOT + SLOPES[1] * (10 - KNOT)])
    left.plot(STRETCH, true, color="black", ls="-", lw=2.2)
    names = list(FITS)
    shown = (("TS, NLL", "0.5", "-."), ("piecewise, NLL", LEFT_OUT, "--"), ("piecewise, classwise", CLASSWISE, ":"))
    for name, colour, style in shown:
        left.plot(STRETCH, run["curve"][0, names.index(name)], color=colour, ls=style, lw=1.8, label=name)
    left.plot([], [], color="black", lw=2.2, label="the truth")
    left.legend(loc="upper left", fontsize=7.5)
    left.set(xlabel="$z = -\\log p$ (nats)", ylabel="h(z) (nats)", xlim=(0, 8), ylim=(0, 7), title="the map, seed 0")
    bars = ["as predicted", *names]
    for k, errors in enumerate(run["error"].T):
        colour = "0.55" if k == 0 else POOLED if k < 3 else CLASSWISE
        right.barh(
            k, errors.mean(), color=colour, alpha=0.55, height=0.7, hatch="" if k < 3 else "///", edgecolor="white"
        )
        right.plot(errors, np.full(errors.size, k), ls="", marker="o", color="black", ms=3)
        label(right, float(errors.max()) + 0.006, k, f"{errors.mean():.3f}", "black", ha="left")
    right.set_yticks(range(len(bars)), bars)
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    right.set(
        xlabel=r"canonical error, mean of $\sum_k |\hat p_k - q_k|$", xlim=(0, 0.3), title="what is left of the error"
    )
    return figure


def released(setup: Setup, measured: Measured) -> Figure:
    """The piecewise map as released, and mended, at the two settings at which it fails."""
    run = measured["order"]
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.1), sharey=True)
    words = ("it falls: the order flips", "it jumps")
    for ax, slopes, wrong, right, title in zip(axes, RELEASED, run["released"], run["mended"], words, strict=True):
        first = run["z"] < 10
        ax.plot(run["z"], right, color=POOLED, ls="-", lw=1.5)
        for part in (first, ~first):
            ax.plot(run["z"][part], wrong[part], color=LEFT_OUT, ls="--", lw=2)
        ax.plot(run["z"][first][-1], wrong[first][-1], marker="o", mfc="white", color=LEFT_OUT)
        ax.plot(run["z"][~first][0], wrong[~first][0], marker="o", color=LEFT_OUT)
        ax.set(xlabel="$z = -\\log p$ (nats)", title=f"slopes {', '.join(f'{s:g}' for s in slopes)}: {title}")
    axes[0].set_ylabel("h(z) (nats)")
    label(axes[0], 2.2, 7.0, "as released", LEFT_OUT, ha="left")
    label(axes[0], 13, 6.3, "mended", POOLED, ha="left")
    return figure
