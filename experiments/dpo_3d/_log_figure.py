"""The picture of a user's log: log-probabilities, the margin's fit, the three D's on their scales, safe ratios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from experiments.dpo_3d._fit import Fit
from experiments.dpo_3d._log import Log, margin, safe_ratios, unseen_log_mass

# Okabe and Ito's colours, each with a line style of its own.
LOOKS = {"chosen": ("#0072B2", "-"), "rejected": ("#D55E00", "--"), "unseen": ("#009E73", "-.")}
ROOM = 1e3  # ratios beyond it, either way, leave the panel
STRIPS = {"D1": "exponent of the rejected's fall", "D2": "share of suppression",
          "D2c": "fall of the chosen from its peak (nats)", "D3": "unseen mass, log of peak over start"}  # fmt: skip


def figure(record: Mapping[str, Any], log: Log, fit: Fit) -> Figure:
    """Panels of the log-probabilities, the margin and the D's; with gradients also the safe ratios."""
    ratios = safe_ratios(log)
    below = "DS" if ratios is not None else "DD"
    drawn, panels = plt.subplot_mosaic(f"LM\n{below}", figsize=(8.0, 6.2), height_ratios=(1, 1.1))
    _log_probs(panels["L"], log)
    _margin(panels["M"], record, log, fit)
    _three(drawn, panels["D"], record)
    if ratios is not None:
        _ratios(panels["S"], log, *ratios)
    return drawn


def _along_steps(ax: Axes, log: Log) -> None:
    """Steps on a logarithmic scale that holds step 0 too, if they span more than a factor of a hundred."""
    first, last = log.step[log.step > 0][0], log.step[-1]
    if last > 100 * first:
        ax.set_xscale("symlog", linthresh=first, linscale=0.4)
        decades = np.arange(np.ceil(np.log10(first)), np.floor(np.log10(last)) + 1)
        ax.set_xticks([*log.step[:1][log.step[:1] == 0], *10 ** decades[:: 1 + len(decades) // 6]])
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlim=(log.step[0], last), xlabel="step")


def _log_probs(ax: Axes, log: Log) -> None:
    mass, _ = unseen_log_mass(log)
    for name, column in (("chosen", log.chosen), ("rejected", log.rejected), ("unseen", mass)):
        if column is not None:
            colour, style = LOOKS[name]
            drawn = np.where(np.isfinite(column), column, np.nan)
            ax.plot(log.step, drawn, color=colour, ls=style, label="all unseen" if name == "unseen" else name)
    _along_steps(ax, log)
    ax.legend(loc="best")
    ax.set(ylabel="log-probability (nats)", title="what the policy gives them")


def _margin(ax: Axes, record: Mapping[str, Any], log: Log, fit: Fit) -> None:
    ax.plot(
        log.step, margin(log), ls="", marker="o", ms=3.5, color="black", mfc="none", mew=0.8, clip_on=False, label="log"
    )
    if fit.curve is not None:
        beta = record["fit"]["beta"]
        label = "closed form" if beta is None else rf"closed form, $\beta$ = {beta:.3g}"
        ax.plot(log.step, fit.curve, color="#CC79A7", ls="-", label=label)
    _along_steps(ax, log)
    ax.legend(loc="best")
    ax.set(ylabel=r"margin $g$ since the first row (nats)", title="the margin")


def _three(drawn: Figure, ax: Axes, record: Mapping[str, Any]) -> None:
    """A strip for each D with a scale of its own: dots are the log's, dashed lines the thresholds."""
    spec = ax.get_subplotspec()
    assert spec is not None
    ax.axis("off")
    rows = spec.subgridspec(len(STRIPS), 1)
    for i, (name, what) in enumerate(STRIPS.items()):
        strip = drawn.add_subplot(rows[i])
        limits = [x for x in np.atleast_1d(record["thresholds"][name]).tolist() if x is not None]
        dots = {"whole log": record[name]}
        if name == "D2":
            dots["last decade"] = record["D2_last"]
        found = {label: x for label, x in dots.items() if x is not None}
        ends = [0.0, *limits, *found.values()]
        low, high = min(ends), max(ends)
        high += low == high
        reach = high - low
        strip.set(xlim=(low - 0.06 * reach, high + 0.06 * reach), ylim=(-1, 1), yticks=[0])
        strip.set_yticklabels([name], fontweight="bold")
        strip.set_title(f"{what}" if found else f"{what}: unknown", fontsize=8, color="0.25", pad=3)
        strip.spines["left"].set_visible(False)
        strip.tick_params(axis="y", length=0)
        strip.grid(axis="y", visible=False)
        if not found:
            strip.xaxis.set_visible(False)
            strip.spines["bottom"].set_visible(False)
        for limit in limits if found else []:
            strip.axvline(limit, color="0.3", ls="--", lw=1.2)
        for k, (label, x) in enumerate(found.items()):
            beyond = limits and x > limits[-1] + 1e-3
            strip.plot(x, 0, ls="", marker="oD"[k], ms=7, mew=1.4, color=LOOKS["rejected" if beyond else "chosen"][0],
                       mfc="none" if k else None, clip_on=False, label=label)  # fmt: skip
        if len(found) > 1:
            strip.legend(loc="lower right", bbox_to_anchor=(1, 0.85), ncols=2, fontsize=7, borderpad=0,
                         handletextpad=0, columnspacing=0.6, markerscale=0.7)  # fmt: skip


def _ratios(ax: Axes, log: Log, low: np.ndarray, high: np.ndarray) -> None:
    assert log.products is not None
    norm_w, norm_l, _ = log.products
    middle = norm_w / norm_l
    reach = min(ROOM, 2 * max(3, *middle, *(1 / middle), *high[np.isfinite(high)], *(1 / low[low > 0])))
    ax.fill_between(log.step, np.clip(low, 1 / reach, reach), np.clip(high, 1 / reach, reach), color="#56B4E9",
                    alpha=0.35, lw=0, label="safe")  # fmt: skip
    ax.plot(log.step, middle, color="#0072B2", ls="-.", label="ratio of the gradients' norms")
    ax.axhline(1, color="black", ls="--", lw=1.2, label="one beta for both")
    _along_steps(ax, log)
    ax.set(yscale="log", ylim=(1 / reach, reach), ylabel=r"$\beta_{rejected}\,/\,\beta_{chosen}$",
           title="ratios of the betas that are safe")  # fmt: skip
    ax.legend(loc="best")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if reach < 100 else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
