"""The figures. Nothing is computed here: dots and paths are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.dpo_3d.linear import KNOBS
from experiments.dpo_3d.mends import KAPPA, RECIPES
from experiments.dpo_3d.setup import SCENARIOS, Setup
from experiments.dpo_3d.table import L, W

Measured = Mapping[str, Mapping[str, np.ndarray]]

# Colour-blind safe (Okabe and Ito), of different lightness in grey; each with a line style of its own.
CHOSEN, REJECTED = {"color": "#0072B2", "ls": "-"}, {"color": "#D55E00", "ls": "--"}
UNSEEN = {"color": "#009E73", "ls": "-."}
SIDES = (("chosen", CHOSEN), ("rejected", REJECTED))
LOOKS = (("#0072B2", "-", "o"), ("#D55E00", "--", "v"), ("#009E73", "-.", "s"), ("#CC79A7", ":", "D"))
BOX = {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 1.5}


def slopes(setup: Setup, measured: Measured) -> Figure:
    """The argument in free variables beside what happens: log-probabilities, slopes, speeds of one run in a table."""
    m = measured["table"]
    t = 1 + m["time"]
    figure, (path, slope, speed) = plt.subplots(1, 3, figsize=(8.4, 2.9))
    for k, (name, style) in enumerate(SIDES):
        path.plot(t, m["closed_form"][:, k], lw=1.8, **style)
        path.plot(t[::5], m["log_probs"][::5, k], ls="", marker="ov"[k], ms=3.5, color=style["color"])
        size = np.abs(m[f"slope_{name}"])
        slope.plot(t, size, lw=1.8, **style)
        speed.plot(t, np.abs(m["speed"][:, k]), lw=1.8, **style)
    path.plot(t, m["closed_form"][:, 2], lw=1.4, **UNSEEN)
    for ax, x, y, words, style in (
        (path, 0.95, 0.86, "chosen", CHOSEN),
        (path, 0.5, 0.1, "rejected", REJECTED),
        (path, 0.62, 0.62, "one unseen", UNSEEN),
        (slope, 0.1, 0.72, "rejected", REJECTED),
        (slope, 0.55, 0.08, "chosen", CHOSEN),
        (speed, 0.12, 0.9, "chosen", CHOSEN),
        (speed, 0.06, 0.2, "rejected", REJECTED),
    ):
        ax.text(x, y, words, transform=ax.transAxes, color=style["color"], bbox=BOX,
                ha="right" if x > 0.9 else "left")  # fmt: skip
    path.set(title="what happens", ylabel="log-probability (nats)")
    slope.set(
        title="slopes, free variables", ylabel=r"$|\partial L/\partial p|,\ |\partial L/\partial q|$", yscale="log"
    )
    speed.set(title="true speeds", ylabel=r"$|d\pi/dt|$", yscale="log", ylim=(1e-12, 1))
    for ax in (path, slope, speed):
        ax.set(xscale="log", xlabel="1 + time (rate × steps)")
    return figure


def scores(setup: Setup, measured: Measured) -> Figure:
    """The one-number law: log-probabilities against the margin for four sets of scores; the mean score below."""
    m = measured["scores as knobs"]
    figure, axes = plt.subplots(2, len(KNOBS), figsize=(8.6, 4.3), sharex="col", height_ratios=(1.6, 1))
    for k, (name, (knobs, _)) in enumerate(KNOBS.items()):
        (top, low), count = axes[:, k], len(knobs)
        for i in range(count):
            colour, style, _ = LOOKS[i]
            top.plot(m["margin"][k], m["log_probs"][k, :, i], color=colour, ls=style)
            top.plot([], [], color=colour, ls=style, label=f"{knobs[i]:g}")
        low.plot(m["margin"][k], m["mean_score"][k], color="black", ls="-")
        for height in (0, 1):
            low.axhline(height, color="0.5", lw=0.9, ls=":")
        top.set(title=name, ylim=(-14, 0.6), xlim=(0, min(40, m["margin"][k].max())))
        top.legend(title="score", loc="center right", handlelength=2.2, title_fontsize=8, labelspacing=0.2)
        low.set(xlabel="margin g (nats)", ylim=(-0.15, 2.15))
    axes[0, 0].set_ylabel("log-probability (nats)")
    axes[1, 0].set_ylabel(r"mean score $\bar s$")
    axes[1, 0].text(0.97, 0.62, "above: both fall", transform=axes[1, 0].transAxes, ha="right", fontsize=7.5)
    return figure


def betas(setup: Setup, measured: Measured) -> Figure:
    """Flex-DPO: final unseen mass and log-probability of the rejected against its beta, in the four scenarios."""
    m = measured["sweep of the rejected beta"]
    figure, axes = plt.subplots(2, len(m["time"]), figsize=(8.2, 4.6), sharex=True, sharey="row")
    unseen = np.exp(m["log_probs"][..., 2:]).sum(axis=-1)
    for column, time in enumerate(m["time"]):
        for k, scenario in enumerate(SCENARIOS.values()):
            colour, style, marker = LOOKS[k]
            look = {"color": colour, "ls": style, "marker": marker, "markevery": (5 * k, 20), "ms": 4}
            axes[0, column].plot(m["beta_rejected"], unseen[k, :, column], label=scenario.title, **look)
            axes[1, column].plot(m["beta_rejected"], m["log_probs"][k, :, column, L], **look)
        for ax in axes[:, column]:
            ax.axvline(setup.beta_chosen, color="0.4", lw=0.9, ls=":")
        axes[0, column].set(title=f"time {time:,.0f}", xscale="log", ylim=(-0.03, 1.03))
        axes[1, column].set(xlabel="rejected beta (1/nat)", yscale="symlog")
    axes[0, 0].set_ylabel("unseen mass U")
    axes[1, 0].set_ylabel(r"$\log\pi_l$ (nats)")
    axes[1, 0].annotate("DPO", (setup.beta_chosen, -3), xytext=(4, 0), textcoords="offset points", fontsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def reward_model(setup: Setup, measured: Measured) -> Figure:
    """A reward model walks DPO's path, at 1 / beta^2 of its speed; its own scores leave every third response alone."""
    m = measured["reward model"]
    t = 1 + m["time"]
    figure, (ax, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
    names = ("chosen", "rejected", "unseen")
    for k, (name, style) in enumerate(zip(names, (CHOSEN, REJECTED, UNSEEN), strict=True)):
        ax.plot(t, m["dpo"][:, k], lw=1.8, **style)
        ax.plot(t[::3], m["tilted"][::3, k], ls="", marker="ovs"[k], ms=4, mfc="white", color=style["color"])
        right.plot(t, m["scores"][:, k], lw=1.8, **style)
        right.annotate(name, (t[20], m["scores"][20, k]), xytext=(0, 10 if k != 1 else -14), ha="right",
                       textcoords="offset points", color=style["color"])  # fmt: skip
    ax.text(0.05, 0.08, "lines: DPO at $t/\\beta^2$\nmarks: reference tilted by $e^{r/\\beta}$",
            transform=ax.transAxes, fontsize=8)  # fmt: skip
    ax.set(xscale="log", xlabel="1 + time of the reward model", ylabel="log-probability (nats)", title="one path")
    right.set(
        xscale="log", xlabel="1 + time of the reward model", ylabel="score r (nats)", title="the scores themselves"
    )
    return figure


def phase_diagram(setup: Setup, measured: Measured) -> Figure:
    """Which way each response moves at the start, and who wins in the end, over unseen peak and ratio of the betas."""
    m, ends = measured["phase diagram"], measured["fates"]
    figure, (ax, right) = plt.subplots(1, 2, figsize=(8.6, 4.2), width_ratios=(1.25, 1))
    up_w, down_l, up_u = m["change"][:, 0] > 0, m["change"][:, 1] < 0, m["change_unseen"] > 0
    for here, colour, marker in (
        (up_w & down_l & ~up_u, "#0072B2", "o"),
        (up_w & down_l & up_u, "#56B4E9", "s"),
        (~up_w & down_l, "#D55E00", "v"),
        (up_w & ~down_l, "#E69F00", "^"),
    ):
        ax.plot(m["peak"][here], m["kappa"][here], ls="", marker=marker, ms=1.7, mew=0, color=colour, alpha=0.5,
                rasterized=True)  # fmt: skip
    for name in ("r_w", "r_l", "r_u"):
        ax.plot(m["grid_peak"], m[f"grid_{name}"], color="black", ls="-", lw=1.6)
    for x, y, words, colour in (
        (0.8, 6.0, "chosen falls", "#D55E00"),
        (0.25, 4.0, "ideal, unseen rise", "#0B6FA4"),
        (0.25, 0.17, "ideal, unseen fall", "#0072B2"),
        (0.84, 0.16, "rejected rises", "#B36B00"),
    ):
        ax.text(x, y, words, color=colour, ha="center", fontweight="bold", bbox=BOX)
    for name, label, at, shift in (("r_w", "$r_w$", 130, 9), ("r_l", "$r_l$", 130, -10), ("r_u", "$r_U$", 4, 7)):
        ax.annotate(label, (m["grid_peak"][at], m[f"grid_{name}"][at]), xytext=(0, shift), ha="center", va="center",
                    textcoords="offset points", bbox=BOX)  # fmt: skip
    ax.set(yscale="log", ylim=KAPPA, xlim=(0, 1), xlabel="unseen peak at the start",
           ylabel=r"$\kappa$ = rejected beta / chosen beta", title="the first step")  # fmt: skip
    lost = ends["log_chosen"] < ends["log_chosen_start"]
    for here, colour, marker in ((~lost, "#0072B2", "o"), (lost, "#009E73", "s")):
        right.plot(ends["peak"][here], ends["kappa"][here], ls="", marker=marker, ms=2.2, mew=0, color=colour,
                   alpha=0.6, rasterized=True)  # fmt: skip
    order = np.argsort(ends["kappa"])
    beyond = order[ends["kappa"][order] > 2.0]
    right.plot(ends["separatrix"][beyond], ends["kappa"][beyond], color="black", ls="-", lw=1.8)
    right.axhline(2, color="black", lw=1, ls=":")
    right.text(0.04, 2.1, r"$\kappa = 2$", fontsize=8, va="bottom", bbox=BOX)
    right.text(0.78, 6.5, "peak wins", color="#00694D", fontweight="bold", ha="center", bbox=BOX)
    right.text(0.3, 0.8, "chosen wins", color="#0072B2", fontweight="bold", ha="center", bbox=BOX)
    right.set(yscale="log", ylim=(10**-0.5, 10), xlim=(0, 1), xlabel="unseen peak at the start",
              title="the end, rejected almost extinct")  # fmt: skip
    for axis in (ax, right):
        ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10] if axis is ax else [0.5, 1, 2, 5, 10]
        axis.set_yticks(ticks, [f"{x:g}" for x in ticks])
        axis.minorticks_off()
    return figure


def triangle(setup: Setup, measured: Measured) -> Figure:
    """How far the unseen mass can rise, over the probabilities of chosen and rejected at the start."""
    m = measured["dispersion"]
    figure, ax = plt.subplots(figsize=(5.4, 4.0))
    share, bound = m["share"], np.log2(m["bound"])
    mesh = ax.pcolormesh(share, share, np.log2(m["peak"]).T, cmap="cividis", vmin=0, vmax=1.6, rasterized=True)
    lines = ax.contour(share, share, bound.T, levels=np.log2([1.1, 1.3, 1.6, 2, 3]), colors="white", linewidths=1.1,
                       linestyles="-")  # fmt: skip
    ax.clabel(lines, fmt=lambda x: f"{2**x:.2g}", fontsize=8)
    ax.plot([0, 0.5], [0, 0.5], color="white", lw=1.6, ls="--")
    ax.text(0.3, 0.1, "never rises", color="white", ha="left", fontsize=9)
    bar = figure.colorbar(mesh, label=r"largest unseen mass over its start, $U_{\max}/R$", extend="max")
    bar.set_ticks(np.log2([1, 1.5, 2, 3]).tolist(), labels=["1", "1.5", "2", "3"])
    ax.set(xlabel=r"chosen at the start, $P_w$", ylabel=r"rejected at the start, $P_l$", xlim=(0, 1), ylim=(0, 1),
           aspect="equal")  # fmt: skip
    ax.grid(False)
    return figure


def crest(setup: Setup, measured: Measured) -> Figure:
    """The margin against beta at three times: largest where u = beta g is 2."""
    m = measured["crest"]
    figure, ax = plt.subplots(figsize=(5.6, 3.6))
    for k, time in enumerate(m["time"]):
        colour, style, marker = LOOKS[k]
        ax.plot(m["beta"], m["margin"][k], color=colour, ls=style, lw=1.8)
        ax.plot(m["some"], m["integrated"][k], ls="", marker=marker, ms=4.5, mfc="white", color=colour)
        ax.annotate(f"time {time:,.0f}", (m["beta"][150], m["margin"][k, 150]), xytext=(-6, 10), color=colour,
                    textcoords="offset points", ha="right", fontsize=8)  # fmt: skip
    ax.plot(m["beta"], 2 / m["beta"], color="0.35", lw=1.2, ls="-")
    ax.annotate(
        r"$u = \beta g = 2$", (0.024, 80.0), xytext=(8, 0), textcoords="offset points", fontsize=9, color="0.25"
    )
    ax.set(xscale="log", yscale="log", xlim=(m["beta"][0], m["beta"][-1]), ylim=(0.05, 120), xlabel=r"$\beta$ (1/nat)",
           ylabel="margin g (nats)")  # fmt: skip
    return figure


def losses(setup: Setup, measured: Measured) -> Figure:
    """The three D's of every loss in the four scenarios, with their thresholds."""
    m = measured["three D's"]
    figure, axes = plt.subplots(1, 3, figsize=(8.6, 3.9), sharey=True)
    place = np.arange(len(RECIPES))[::-1]
    for ax, name, title, threshold in (
        (axes[0], "drop", "D1: exponent of the drop", 1),
        (axes[1], "share", "D2: share of suppression", 0.5),
        (axes[2], "dispersion", "D3: rise of the unseen (nats)", 0),
    ):
        for k, scenario in enumerate(SCENARIOS.values()):
            colour, _, marker = LOOKS[k]
            ax.plot(m[name][:, k], place + 0.21 - 0.14 * k, ls="", marker=marker, ms=5, color=colour,
                    label=scenario.title)  # fmt: skip
        ax.axvline(threshold, color="black", lw=1, ls="--")
        ax.set(title=title)
        ax.grid(axis="y", visible=False)
        for line in place[:-1] - 0.5:
            ax.axhline(line, color="0.85", lw=0.6, ls="-")
    axes[1].axvline(1, color="black", lw=1, ls=":")
    axes[0].set(xscale="symlog", xlim=(-0.05, 13), xlabel="minus slope of log $\\pi_l$ on log t")
    axes[0].set_xticks([0, 1, 5, 10], ["0", "1", "5", "10"])
    axes[1].set_xlabel("of the margin gained")
    axes[2].set_xlabel("log of largest over first")
    axes[0].set_yticks(place, RECIPES)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def fine_tuning(setup: Setup, measured: Measured) -> Figure:
    """What a fine-tuning term does where the chosen falls: its log-probability, and the bound (log 2) / alpha."""
    m = measured["fine-tuning term"]
    figure, ax = plt.subplots(figsize=(5.6, 3.4))
    t = 1 + m["time"]
    colours = plt.get_cmap("cividis")(np.linspace(0, 0.85, len(m["alpha"])))
    for colour, alpha, path in zip(colours, m["alpha"], m["log_chosen"], strict=True):
        ax.plot(t, path, color=colour, ls="-", lw=1.8)
        ax.plot([], [], color=colour, ls="-", lw=1.8, label=f"α = {alpha:g}")
        if alpha:
            ax.plot([t[-1] / 3, t[-1]], 2 * [path[0] - np.log(2) / alpha], color=colour, ls=":", lw=1.6)
    ax.annotate("bounds", (t[-1], path[0] - np.log(2) / m["alpha"][-1]), xytext=(4, -3), textcoords="offset points",
                fontsize=8)  # fmt: skip
    ax.legend(loc="lower left")
    ax.set(xscale="log", xlabel="1 + time (rate × steps)", ylabel="log-probability of the chosen (nats)",
           ylim=(-12, 0.3), xlim=(1, t[-1] * 2))  # fmt: skip
    return figure


assert W == 0 and L == 1  # the first two columns of every table of log-probabilities
