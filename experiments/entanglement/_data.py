"""What the user gives: a loss with its constants, gradients in an .npz file, lines of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments._npz import read_npz
from sandbox.losses import LOSSES, PairLogProbs
from sandbox.validate import finite, one_of, positive, require


def loss_named(name: str, constants: Sequence[str] = ()) -> partial[Any]:
    """The loss of that name with its constants, "name=value" each; ValueError that lists what there is."""
    one_of("loss", name, list(LOSSES))
    of_paper = {p.name: p.default for p in signature(LOSSES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY}
    values = {}
    for text in constants:
        constant, _, value = text.partition("=")
        try:
            if constant in values:
                raise ValueError
            values[constant] = value if isinstance(of_paper[constant], str) else float(value)
        except (KeyError, ValueError):
            known = ", ".join(f"{constant}={value}" for constant, value in of_paper.items())
            raise ValueError(f"constants: {text!r} must be name=value, once each of {name}'s: {known}") from None
    loss = partial(LOSSES[name], **{**of_paper, **values})
    loss(PairLogProbs(-1.0, -1.0, -1.0, -1.0, 1.0, 1.0))  # checks the constants
    return loss


GRADIENTS = ("chosen", "rejected")
LOGPS = ("chosen_logp", "rejected_logp", "ref_chosen_logp", "ref_rejected_logp")
LENGTHS = ("chosen_length", "rejected_length")


def read_gradients(path: Path, loss: Callable[[PairLogProbs], Any]) -> tuple[np.ndarray, np.ndarray, PairLogProbs]:
    """Gradients (N, P) of both responses, and what the loss needs to know of the N pairs.

    Raises ValueError for an array that is missing, unknown, of another shape, not numeric or not finite, and for a
    gradient of length zero.
    """
    arrays = read_npz(path)
    unknown = sorted(set(arrays) - {*GRADIENTS, *LOGPS, *LENGTHS})
    missing = [name for name in GRADIENTS if name not in arrays]
    if unknown or missing:
        wrong = [f"no array {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"{path}: {'; '.join(wrong)}; it must hold chosen and rejected, and may hold "
                         f"{', '.join((*LOGPS, *LENGTHS))}")  # fmt: skip
    chosen, rejected = (arrays[name] for name in GRADIENTS)
    if chosen.ndim != 2 or chosen.shape != rejected.shape or not chosen.size:
        raise ValueError(f"{path}: chosen {chosen.shape}, rejected {rejected.shape}: must both be (pairs, parameters)")
    for name, array in arrays.items():
        finite(name, array)
        if name in GRADIENTS:
            require(f"largest entry of {name}", np.max(np.abs(array), axis=1), lambda m: m > 0, "> 0")
        elif array.shape != chosen.shape[:1]:
            raise ValueError(f"{path}: {name} has shape {array.shape}: must be {chosen.shape[:1]}, one a pair")
        elif name in LENGTHS:
            positive(name, array)
    referenced = _needs(loss, "ref_chosen", "ref_rejected")
    logps = LOGPS if referenced else LOGPS[:2]
    needed = [*logps] * (not referenced or any(name in arrays for name in LOGPS))
    needed += [*LENGTHS] * _needs(loss, "chosen_length", "rejected_length")
    if absent := [name for name in needed if name not in arrays]:
        raise ValueError(f"{path}: the loss needs {', '.join(absent)} too: {chosen.shape[:1]} each")
    at_reference = [*(np.zeros(len(chosen)),) * 4, *(np.ones(len(chosen)),) * 2]
    values = [arrays.get(name, value) for name, value in zip((*LOGPS, *LENGTHS), at_reference, strict=True)]
    return chosen, rejected, PairLogProbs(*(jnp.asarray(value, jnp.result_type(float)) for value in values))


def _needs(loss: Callable[[PairLogProbs], Any], *fields: str) -> bool:
    pair = PairLogProbs(-1.0, -1.0, -1.0, -1.0, 1.0, 1.0)
    try:
        loss(pair._replace(**dict.fromkeys(fields)))
    except ValueError:
        return True
    return False


def lines_with_pairs(path: Path) -> list[int]:
    """Numbers of the lines with a pair, of a file that has none but good lines and blank ones."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        return [number for number, line in enumerate(file, 1) if line.strip()]
