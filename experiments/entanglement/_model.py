"""The user's pairs in a real language model: its full gradients, and how well cheaper stand-ins rank the pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from experiments import _language
from experiments.entanglement._diagnosis import Found, Loss, Step, from_text, predict
from sandbox.language_model import load
from sandbox.measures import GradientProducts, first_order_changes
from sandbox.preferences import read_pairs
from sandbox.statistics import rank_correlation

SHOWN = 3  # layers and tokens that are named


def from_model(
    path: Path, model: str, template: str | None, loss: Loss, made_of: str, loss_steps: int, key: Array
) -> tuple[Found, list[dict[str, Any]], dict[str, Any]]:
    """What is known of the pairs of a file, more about each of them, and the stand-ins' table.

    Errors as ``read_pairs`` and ``sandbox.language_model.load``.
    """
    plain = read_pairs(path)
    used = load(model, template)
    asked = read_pairs(path, used.render)
    found = _language.look_at_all(used, asked, loss, made_of, end=True)
    products = _language.products(found)
    d_w, d_l = np.array([x["weights"] for x in found]).T
    rates = np.array([x["rates"][0] for x in found])
    measured = np.array([x["measured"] for x in found])  # (N, 2 steps, 2 responses)
    predicted = np.array([x["predicted"] for x in found])
    logp = np.array([x["logp"] for x in found])
    alone = Step(rates, predicted[:, 0], measured[:, 0])
    whole = Found(logp, None, products, (d_w, d_l), alone, None, None)
    toy = from_text(plain, loss, loss_steps, key)
    rows = [
        {
            "lengths": x["lengths"], "learning_rate": x["rates"][0],
            "half_step": {"predicted": x["predicted"][1], "measured": x["measured"][1], "gap_ratio": _gap_ratio(x)},
            "tokens": _tokens(pieces, x["shares"]), "inner_by_part": x["parts"],
            "ches": x["ches"], "ches_normalised": x["ches_normalised"],
        }
        for x, pieces in zip(found, _pieces(used, asked), strict=True)
    ]  # fmt: skip
    return whole, rows, stand_ins(found, products, np.asarray(predict(toy.products, *toy.weights))[:, 0])


def _pieces(used: Any, asked: Sequence[Any]) -> list[list[list[str]]]:
    return [_language.pieces(used, pair) for pair in _language.packed(used, asked, end=True)]


def _gap_ratio(x: Mapping[str, Any]) -> float | None:
    """The gap between predicted and measured of the whole step, in gaps of the half step: 4 if it is quadratic."""
    whole, half = np.abs(np.array(x["measured"]) - np.array(x["predicted"])).max(axis=1)
    return float(whole / half) if half > 0 else None


def _tokens(pieces: list[list[str]], shares: list[list[float]]) -> dict[str, list[dict[str, Any]]]:
    """The tokens of either response with the largest shares of the inner product, positive or negative."""
    found = {}
    for side, texts, share in zip(("chosen", "rejected"), pieces, shares, strict=True):
        worst = np.argsort(-np.abs(share), kind="stable")[:SHOWN]
        found[side] = [{"token": texts[k], "place": int(k), "inner": float(share[k])} for k in worst]
    return found


def stand_ins(found: Sequence[Mapping[str, Any]], products: GradientProducts, toy: np.ndarray) -> dict[str, Any]:
    """What costs less than a gradient: how each ranks the pairs, and how often it is right that the chosen falls.

    Ranks are Spearman's against the fall of the chosen for a learning rate of one, d_l <g_w, g_l> - d_w |g_w|^2, and
    against how deep the pair is entangled, cosine - kappa. ``toy``: the changes of the chosen in the small network.
    None where there is nothing to rank.
    """
    d_w, d_l = np.array([x["weights"] for x in found]).T
    a, b, c = np.array([x["last"] for x in found]).T

    def fall(norm_w: Any, norm_l: Any, inner: Any) -> np.ndarray:
        return -np.asarray(first_order_changes(d_w, d_l, norm_w, norm_l, inner)[0])

    truth = fall(*products)
    depth = products.cosine - d_w * products.norm_chosen / (d_l * products.norm_rejected)
    scores = {
        "CHES": np.array([x["ches"] for x in found]),
        "length-normalised CHES": np.array([x["ches_normalised"] for x in found]),
        "last layer alone": fall(np.sqrt(a), np.sqrt(b), c),
        "toy trained on the pairs": -toy,
    }
    return {
        name: {
            "rank_of_fall": _rank(score, truth), "rank_of_depth": _rank(score, depth),
            "right_sign": float(np.mean((score > 0) == (truth > 0))),
        }
        for name, score in scores.items()
    }  # fmt: skip


def _rank(score: np.ndarray, truth: np.ndarray) -> float | None:
    if len(score) < 3 or np.ptp(score) == 0 or np.ptp(truth) == 0:
        return None
    return float(rank_correlation(score, truth))


def notes(record: Mapping[str, Any]) -> list[str]:
    """Where in the model the gradients meet, and what the stand-ins are worth here."""
    parts = [pair["inner_by_part"] for pair in record["pairs"]]
    layers = np.array([np.add(x["attention"], x["feed_forward"]) for x in parts])
    weight = np.abs(layers).sum(axis=0)
    most = np.argsort(-weight, kind="stable")[:SHOWN]
    whole = weight.sum() + sum(abs(x["embedding"]) + abs(x["rest"]) for x in parts)
    embedding = sum(abs(x["embedding"]) for x in parts) / whole
    named = ", ".join(f"{i + 1} ({weight[i] / whole:.0%})" for i in most)
    said = "; ".join(
        f"{name} {_shown(x['rank_of_fall'])} ({x['right_sign']:.0%} of signs)"
        for name, x in record["stand_ins"].items()
    )
    return [
        f"The inner products lie most in the layers {named} of {layers.shape[1]}, the embedding has {embedding:.0%}.",
        f"Cheaper than a gradient, ranked against the full gradient's fall of the chosen (Spearman): {said}.",
    ]


def _shown(x: float | None) -> str:
    return "-" if x is None else f"{x:+.2f}"
