"""The figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.real_model.measure import runs_of
from experiments.real_model.setup import Setup

Found = Mapping[str, Mapping[str, Any]]

# Colour-blind safe (Okabe and Ito); each kind of pair has a marker of its own, so that it can be told in grey.
KINDS = {
    "single token": ("#0072B2", "o"), "short suffix": ("#56B4E9", "s"), "long suffix": ("#009E73", "D"),
    "No over Never": ("#CC79A7", "v"), "Never over No": ("#CC79A7", "^"), "No over Yes": ("#000000", "<"),
    "length mismatched": ("#E69F00", "P"), "near-duplicate": ("#D55E00", "X"), "arithmetic": ("#7F7F7F", "p"),
}  # fmt: skip
FALL, RISE = "#D55E00", "#E69F00"
LINES = ("-", "--", "-.", ":", (0, (1, 1)))


def _kinds(runs: Mapping[str, Any]) -> list[str]:
    return [kind for kind in KINDS if np.any(runs["category"] == kind)]


def diagram(setup: Setup, found: Found) -> Figure:
    """kappa against the cosine, of the whole model and of its last layer alone, under DPO."""
    runs = found["pairs"]
    figure, (ax, right) = plt.subplots(1, 2, figsize=(8.4, 4.4), sharex=True, sharey=True)
    kappa, cosine = runs["kappa"][0], runs["cosine"]
    last = runs["last_kappa"], runs["last_cosine"]
    reach = np.clip(1.1 * np.abs(np.log10(np.concatenate([kappa, last[0]]))).max(), 0.3, 1.5)
    for here, (x, y), title in ((ax, (kappa, cosine), "all parameters"), (right, last, "last layer alone, exactly")):
        _regions(here, reach)
        for kind in _kinds(runs):
            colour, marker = KINDS[kind]
            at = runs["category"] == kind
            here.plot(x[at], y[at], ls="", marker=marker, color=colour, ms=5, mec="white", mew=0.4, alpha=0.9)
        here.set(xscale="log", xlim=(10**-reach, 10**reach), ylim=(-0.5, 1), title=title,
                 xlabel=r"$\kappa = |g_w|\,/\,|g_l|$")  # fmt: skip
        here.minorticks_off()
        ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if abs(np.log10(t)) <= reach]
        here.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_ylabel(r"cosine of $g_w$ and $g_l$")
    handles = [
        Line2D([], [], ls="", color=c, marker=m, label=kind) for kind, (c, m) in KINDS.items() if kind in _kinds(runs)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, fontsize=8)
    return figure


def _regions(ax: Axes, reach: float) -> None:
    kappa = np.logspace(-reach, reach, 401)
    border = np.minimum(kappa, 1 / kappa)
    for where, colour, hatch in ((kappa < 1, FALL, "////"), (kappa > 1, RISE, "....")):
        ax.fill_between(
            kappa, border, 1, where=where, facecolor=colour, edgecolor=colour, hatch=hatch, alpha=0.13, lw=0
        )
    ax.plot(kappa, border, color="black", ls="-", lw=1.2)
    for x, y, text, colour, side in (
        (0.03, 0.93, "both fall", FALL, "left"), (0.97, 0.93, "both rise", "#8A5A00", "right"),
        (0.5, 0.05, "ideal", "#0072B2", "center"),
    ):  # fmt: skip
        ax.text(x, y, text, transform=ax.transAxes, color=colour, ha=side, fontweight="bold", fontsize=10)


def first_order(setup: Setup, found: Found) -> Figure:
    """Predicted and measured changes, and the gap at both step sizes."""
    runs = found["pairs"]
    figure, (ax, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
    limit = 1.1 * np.abs(runs["predicted"]).max() * 1e3
    ax.plot([-limit, limit], [-limit, limit], color="0.4", lw=0.9, ls="-")
    for k, (side, colour, marker) in enumerate((("chosen", "#0072B2", "o"), ("rejected", "#D55E00", "v"))):
        x, y = (1e3 * runs[name][..., k] for name in ("predicted", "measured"))
        ax.plot(x[:, 0], y[:, 0], ls="", marker=marker, ms=4, color=colour, label=side)
        ax.plot(x[:, 1], y[:, 1], ls="", marker=marker, ms=3, color=colour, mfc="white")
    ax.set(xlabel="predicted change (1/1000 nat)", ylabel="measured change (1/1000 nat)", title="hollow: half the step")
    ax.legend(loc="upper left")
    gaps = 1e3 * np.abs(runs["measured"] - runs["predicted"]).max(axis=2)
    for kind in _kinds(runs):
        at = runs["category"] == kind
        colour, marker = KINDS[kind]
        right.plot(gaps[at, 0], gaps[at, 1], ls="", marker=marker, ms=4, color=colour)
    ends = np.array([gaps[gaps > 0].min() / 1.5, gaps.max() * 1.5])
    for factor, style, text in ((4, "-", "a quarter (second order)"), (1, ":", "the same (rounding)")):
        right.plot(ends, ends / factor, color="0.4", lw=0.9, ls=style, label=text)
    right.set(xscale="log", yscale="log", xlim=ends, xlabel="gap of the step (1/1000 nat)",
              ylabel="gap of half the step (1/1000 nat)", title="what first order misses")  # fmt: skip
    right.legend(loc="upper left", fontsize=7.5)
    return figure


def layers(setup: Setup, found: Found) -> Figure:
    """Where in the model the gradients meet, by kind of pair."""
    runs = found["pairs"]
    scale = (runs["norm_chosen"] * runs["norm_rejected"])[:, None]
    depth = (runs["inner_attention"] + runs["inner_feed_forward"]) / scale
    kinds = _kinds(runs)
    figure, (ax, right) = plt.subplots(1, 2, figsize=(8.4, 3.8), width_ratios=(1.7, 1))
    rows = np.array([depth[runs["category"] == kind].mean(axis=0) for kind in kinds])
    limit = np.abs(rows).max()
    mesh = ax.pcolormesh(np.arange(1, depth.shape[1] + 2) - 0.5, np.arange(len(kinds) + 1) - 0.5, rows, cmap="RdBu_r",
                         vmin=-limit, vmax=limit, rasterized=True)  # fmt: skip
    ax.set_yticks(range(len(kinds)), kinds)
    ax.invert_yaxis()
    ax.set(xlabel="layer, from the input", title="share of the cosine")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(False)
    figure.colorbar(mesh, ax=ax)
    whole = {
        "attention": runs["inner_attention"].sum(axis=1), "feed-forward": runs["inner_feed_forward"].sum(axis=1),
        "embedding": runs["inner_embedding"] + runs["inner_rest"],
    }  # fmt: skip
    left = np.zeros(len(kinds))
    for (name, values), colour, hatch in zip(
        whole.items(), ("#0072B2", "#E69F00", "#009E73"), ("", "//", ".."), strict=True
    ):
        means = np.array([(values / scale[:, 0])[runs["category"] == kind].mean() for kind in kinds])
        right.barh(range(len(kinds)), means, left=left, color=colour, hatch=hatch, edgecolor="white", lw=0, label=name)
        left += means
    last = [runs["last_cosine"][runs["category"] == kind].mean() for kind in kinds]
    right.plot(last, range(len(kinds)), ls="", marker="|", ms=14, mew=2, color="black", label="last layer alone")
    right.invert_yaxis()
    right.set_yticks(range(len(kinds)), [""] * len(kinds))
    right.axvline(0, color="0.3", lw=0.8, ls="-")
    right.set(xlabel="cosine", title="by part of the model")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


def trainings(setup: Setup, found: Found) -> Figure:
    """Changes of both log-probabilities along each training."""
    run, pairs, runs = found["trainings"], found["pairs"], runs_of(setup)
    optimizers = list(dict.fromkeys(optimizer for optimizer, _ in runs))
    trained = run["pair"]
    figure, axes = plt.subplots(
        len(optimizers), len(trained), figsize=(2.9 * max(len(trained), 2), 2.7 * len(optimizers)), squeeze=False,
        sharex=True,
    )  # fmt: skip
    names = list(dict.fromkeys(name for _, name in runs))
    for row, optimizer in enumerate(optimizers):
        for column, pair in enumerate(trained):
            ax = axes[row, column]
            for i, (which, name) in enumerate(runs):
                if which == optimizer:
                    k = names.index(name)
                    change = run["history"][i, column] - run["history"][i, column, :1]
                    ax.plot(run["step"], change[:, 0], color=f"C{k}", ls="-", lw=1.8)
                    ax.plot(run["step"], change[:, 1], color=f"C{k}", ls=":", lw=1.2)
                    ax.plot(
                        run["step"][-1], change[-1, 0], color=f"C{k}", marker="osDv^"[k], ms=4, ls="", clip_on=False
                    )
            ax.axhline(0, color="0.3", lw=0.8, ls="-")
            ax.set_yscale("symlog", linthresh=1, linscale=2)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if row == 0:
                text = f"{pairs['chosen'][pair]} > {pairs['rejected'][pair]}"
                ax.set_title(f"{run['region'][column]}\n{_clip(text)}", fontsize=8.5)
            if row == len(optimizers) - 1:
                ax.set_xlabel("step of the loss on the pair alone")
        axes[row, 0].set_ylabel(f"{optimizer}\nchange (nats)")
    handles = [Line2D([], [], color=f"C{k}", marker="osDv^"[k], ls="-", label=name) for k, name in enumerate(names)]
    handles += [Line2D([], [], color="0.3", ls=":", label="rejected")]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, fontsize=8)
    return figure


def stand_ins(setup: Setup, found: Found) -> Figure:
    """What costs less than a gradient against the full gradient."""
    runs = found["pairs"]
    fall = runs["inner"] - runs["norm_chosen"] ** 2
    figure, axes = plt.subplots(1, 3, figsize=(8.6, 3.4), sharey=True)
    named = {"CHES": runs["ches"], "normalised CHES": runs["ches_normalised"], "last layer alone": runs["last_fall"]}
    for ax, (name, score) in zip(axes, named.items(), strict=True):
        for kind in _kinds(runs):
            at = runs["category"] == kind
            colour, marker = KINDS[kind]
            ax.plot(_root(score[at]), _root(fall[at]), ls="", marker=marker, ms=4.5, color=colour, label=kind)
        ax.axhline(0, color="0.3", lw=0.8, ls="-")
        ax.axvline(0, color="0.3", lw=0.8, ls="-")
        ax.set(xlabel=f"{name} (signed root)", title="")
    axes[0].set_ylabel(r"fall of the chosen, $\langle g_w, g_l\rangle - |g_w|^2$" + "\n(signed root, nats / rate)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8)
    return figure


def _root(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.sqrt(np.abs(x))


def mass(setup: Setup, found: Found) -> Figure:
    """Gains of probability where the two responses part, after DPO by descent."""
    run, pairs = found["trainings"], found["pairs"]
    trained = run["pair"]
    figure, axes = plt.subplots(1, len(trained), figsize=(2.9 * max(len(trained), 2), 2.9), squeeze=False)
    for k, ax in enumerate(axes[0]):
        gains = run["mass"][0, k]
        names = ["chosen", "rejected", *(repr(str(token)) for token in run["gainers"][0, k])]
        colours = ["#0072B2", "#D55E00", *["#7F7F7F"] * (len(gains) - 2)]
        hatches = ["", "////", *[".."] * (len(gains) - 2)]
        for place, (gain, colour, hatch) in enumerate(zip(gains, colours, hatches, strict=True)):
            ax.barh(place, gain, color=colour, hatch=hatch, edgecolor="white", lw=0)
        ax.set_yticks(range(len(names)), names, fontsize=8, fontfamily="monospace", parse_math=False)
        ax.invert_yaxis()
        ax.axvline(0, color="0.3", lw=0.8, ls="-")
        text = f"{pairs['chosen'][trained[k]]} > {pairs['rejected'][trained[k]]}"
        ax.set_title(f"{run['region'][k]}\n{_clip(text)}", fontsize=8.5)
        ax.set_xlabel("change of probability")
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.grid(axis="y", visible=False)
    return figure


def _clip(text: str, length: int = 28) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
