"""Your own pairs: which of them would lower the response that they prefer?

``--hidden FILE.npz`` reads ``chosen`` and ``rejected`` (pairs, tokens, width), last-layer hidden states, zero-padded
behind each response, and ``chosen_length`` and ``rejected_length`` (pairs,), tokens. Row k is the state that predicts
token k of the response: the last position of the prompt comes first, the state at the last response token is left out.
Left-padded states must be shifted. ``--hidden example`` makes such arrays.

Optional, for the exact gradient quantity of the model with free hidden vectors: ``unembedding`` (vocabulary, width) and
``chosen_tokens`` and ``rejected_tokens`` (pairs, tokens), token ids; ``chosen_logits`` and ``rejected_logits`` (pairs,
tokens, vocabulary) where the logits are more than unembedding times state.

numbers.json gains ``"user": {"pairs": [{"id", "ches", "ches_length_normalised", "exact"}, ...], "drop": [ids]}``;
ids count from 0, ``exact`` is null where it cannot be computed. Dropped are the pairs with exact > 0, whose chosen
response falls at first order; without it all but the share ``--keep`` of lowest length-normalised CHES, as the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from experiments import _terminal
from experiments._npz import read_npz
from experiments.harness import Report, knob
from sandbox.measures import ches, first_order_fall
from sandbox.policies import Tied, tied_pair_gram
from sandbox.validate import finite, in_range, require

SIDES = ("chosen", "rejected")
NEEDED = ("chosen", "rejected", "chosen_length", "rejected_length")
EXACT = ("unembedding", "chosen_tokens", "rejected_tokens")
LOGITS = ("chosen_logits", "rejected_logits")
SHOWN = 20  # rows of the table
AT_ONCE = 16  # pairs whose exact quantity is computed together
BLUE, RED = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class User:
    """Your own data."""

    hidden: Path | None = knob(
        None, ".npz with chosen, rejected (pairs, tokens, width), row k the state that predicts token k, zero-padded; "
        "chosen_length, rejected_length (pairs,). Optional, for the exact quantity: unembedding (vocabulary, width), "
        "chosen_tokens, rejected_tokens (pairs, tokens); chosen_logits, rejected_logits (pairs, tokens, vocabulary). "
        "Or: example"
    )  # fmt: skip
    keep: float = knob(0.05, "share of the pairs that is kept where the exact quantity is not known, of lowest CHES")


def report(setup: Any, given: User, key: Array) -> Report:
    """The scores of every pair and the pairs to drop; what they mean is printed before them.

    Raises ValueError for data that cannot be used.
    """
    del setup, key  # nothing is drawn, no number is needed
    record = diagnosis(given)
    out = _terminal.console()
    for line in notes(record):
        out.print(line, markup=False, highlight=False)
    return Report(record, table(record), _drawings(record))


def _drawings(record: Mapping[str, Any]) -> Iterator[tuple[str, Figure, str]]:
    yield "user", figure(record), caption(record)  # drawn when it is asked for, in the style of the house


def example() -> dict[str, np.ndarray]:
    """Forty pairs over eight tokens whose hidden states have much in common."""
    rng = np.random.default_rng(0)
    unembedding = 0.5 * rng.normal(size=(8, 6))
    lengths = rng.integers(2, 6, (2, 40))
    hidden = 1 + 0.5 * rng.normal(size=(2, 40, 5, 6))
    hidden[1, :, 0] = hidden[0, :, 0]
    tokens = rng.integers(0, 8, (2, 40, 5))
    tokens[1, :, 0] = (tokens[0, :, 0] + 1 + tokens[1, :, 0] % 7) % 8  # another first token
    kept = np.arange(5) < lengths[..., None]
    hidden, tokens = np.where(kept[..., None], hidden, 0), np.where(kept, tokens, 0)
    return {
        "chosen": hidden[0], "rejected": hidden[1], "chosen_length": lengths[0], "rejected_length": lengths[1],
        "unembedding": unembedding, "chosen_tokens": tokens[0], "rejected_tokens": tokens[1],
    }  # fmt: skip


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, checked.

    Raises ValueError for an array that is missing, unknown, of another shape or not finite, and for lengths beyond the
    padding or tokens outside the vocabulary.
    """
    arrays = example() if str(path) == "example" and not path.exists() else read_npz(path)
    known = {*NEEDED, *EXACT, *LOGITS}
    unknown, missing = sorted(set(arrays) - known), [name for name in NEEDED if name not in arrays]
    if unknown or missing:
        wrong = [f"no array {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(
            f"{path}: {'; '.join(wrong)}; it must hold {', '.join(NEEDED)}, and may hold {', '.join((*EXACT, *LOGITS))}"
        )
    pairs, _, width = _shape(path, arrays, "chosen", (None, None, None))
    _shape(path, arrays, "rejected", (pairs, None, width))
    vocabulary = _shape(path, arrays, "unembedding", (None, width))[0] if "unembedding" in arrays else None
    for side in SIDES:
        tokens = arrays[side].shape[1]
        _shape(path, arrays, f"{side}_length", (pairs,))
        whole = partial(_whole, least=1, most=tokens)
        require(f"{side}_length", arrays[f"{side}_length"], whole, f"a whole number from 1 to {tokens}, rows of {side}")
        if f"{side}_logits" in arrays:
            vocabulary = _shape(path, arrays, f"{side}_logits", (pairs, tokens, vocabulary))[2]
        if f"{side}_tokens" in arrays:
            _shape(path, arrays, f"{side}_tokens", (pairs, tokens))
    for name in arrays:
        finite(name, arrays[name])
    for side in SIDES:  # tokens behind a response may be anything
        if f"{side}_tokens" in arrays and vocabulary is not None:
            behind = np.arange(arrays[side].shape[1]) >= arrays[f"{side}_length"][:, None]
            inside = np.where(behind, 0, arrays[f"{side}_tokens"])
            whole = partial(_whole, least=0, most=vocabulary - 1)
            require(f"{side}_tokens", inside, whole, f"a token id below {vocabulary}")
            arrays[f"{side}_tokens"] = inside
    return arrays


def _whole(x: np.ndarray, least: int, most: int) -> np.ndarray:
    return (x >= least) & (x <= most) & (x == np.floor(x))


def _shape(path: Path, arrays: Mapping[str, np.ndarray], name: str, wanted: tuple[int | None, ...]) -> tuple[int, ...]:
    shape = arrays[name].shape
    if len(shape) != len(wanted) or 0 in shape or any(w not in (None, n) for n, w in zip(shape, wanted, strict=True)):
        said = ", ".join("any" if size is None else str(size) for size in wanted)
        raise ValueError(f"{path}: {name} has shape {shape}: must be ({said}), none of them 0")
    return shape


@jax.jit
def _falls(unembedding: Array, hidden: Array, tokens: Array, mask: Array, logits: Array | None) -> Array:
    def one(pair: tuple[Array, ...]) -> Array:
        states, y, kept, *given = (x[None] for x in pair)
        law = jax.nn.log_softmax(given[0]) if given else None
        return first_order_fall(tied_pair_gram(Tied(unembedding, states), y, kept, law))[0]

    given = (hidden, tokens, mask) if logits is None else (hidden, tokens, mask, logits)
    return jax.lax.map(one, given, batch_size=AT_ONCE)


def exact_falls(arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The exact quantity of every pair, or None if unembedding or tokens are not given."""
    if any(name not in arrays for name in EXACT):
        return None
    longest = max(arrays[side].shape[1] for side in SIDES)

    def both(suffix: str) -> np.ndarray:
        parts = []
        for side in SIDES:
            x = arrays[side + suffix]
            parts.append(np.pad(x, [(0, 0), (0, longest - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]))
        return np.stack(parts, axis=1)

    lengths = np.stack([arrays[f"{side}_length"] for side in SIDES], axis=1)
    mask = np.arange(longest) < lengths[..., None]
    dtype = jnp.result_type(float)
    logits = jnp.asarray(both("_logits"), dtype) if all(name in arrays for name in LOGITS) else None
    unembedding, hidden = (jnp.asarray(x, dtype) for x in (arrays["unembedding"], both("")))
    return np.asarray(_falls(unembedding, hidden, jnp.asarray(both("_tokens").astype(int)), jnp.asarray(mask), logits))


def diagnosis(given: User) -> dict[str, Any]:
    """The record of the user's pairs; errors as ``report``."""
    if given.hidden is None:
        raise ValueError("hidden: missing; give a file, or: example")
    in_range("keep", given.keep, 0, 1, "()")
    arrays = read(given.hidden)
    states = [arrays[name] for name in NEEDED]
    plain, normalised = (np.asarray(ches(*states, length_normalised=means)) for means in (False, True))
    exact = exact_falls(arrays)
    if exact is None:
        kept = max(1, round(given.keep * len(plain)))
        drop = np.sort(np.argsort(normalised, kind="stable")[kept:])
    else:
        drop = np.flatnonzero(exact > 0)
    longer = arrays["rejected_length"].astype(float) - arrays["chosen_length"]
    spread = np.std(longer) * np.std(plain)
    pairs = [
        {"id": k, "ches": float(plain[k]), "ches_length_normalised": float(normalised[k]),
         "exact": None if exact is None else float(exact[k])}
        for k in range(len(plain))
    ]  # fmt: skip
    return {
        "file": given.hidden.name, "pairs": pairs, "drop": drop.tolist(),
        "length_correlation": float(np.corrcoef(plain, longer)[0, 1]) if spread > 0 else None,
        "first_rows_differ": int(np.sum(np.any(arrays["chosen"][:, 0] != arrays["rejected"][:, 0], axis=1))),
    }  # fmt: skip


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs that hurt most first."""
    by = "ches_length_normalised" if record["pairs"][0]["exact"] is None else "exact"
    dropped = set(record["drop"])
    ranked = sorted(record["pairs"], key=lambda pair: -pair[by])
    return [
        {"pair": pair["id"], "CHES": float(f"{pair['ches']:.4g}"),
         "CHES / length": float(f"{pair['ches_length_normalised']:.4g}"),
         **({} if pair["exact"] is None else {"exact": float(f"{pair['exact']:.4g}")}),
         "drop": "drop" if pair["id"] in dropped else ""}
        for pair in ranked[:SHOWN]
    ]  # fmt: skip


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, and how far to trust them."""
    pairs = record["pairs"]
    lines = [f"{record['file']}: {len(pairs)} pairs, {len(record['drop'])} to drop."]
    if pairs[0]["exact"] is None:
        lines.append("The exact quantity needs unembedding, chosen_tokens and rejected_tokens. CHES alone is a proxy: "
                     "it is blind to single tokens and may rank pairs the wrong way (C11).")  # fmt: skip
    else:
        score = np.array([pair["ches"] > 0 for pair in pairs])
        falls = np.array([pair["exact"] > 0 for pair in pairs])
        lines.append("Dropped: exact > 0, the chosen falls at first order where hidden vectors are free. "
                     f"The sign of CHES says otherwise in {int(np.sum(score != falls))} pairs.")  # fmt: skip
    lengths = record["length_correlation"]
    if lengths is not None and abs(lengths) > 0.5:
        lines.append(
            f"CHES follows the difference of the lengths (correlation {lengths:.2f}): prefer the normalised one."
        )
    if record["first_rows_differ"]:
        lines.append(f"In {record['first_rows_differ']} pairs the first rows differ; they should be the state at the "
                     "last position of the prompt, the same for both. Is a row missing or one too many?")  # fmt: skip
    if len(pairs) > SHOWN:
        lines.append(f"{SHOWN} of {len(pairs)} pairs, worst first; all are in numbers.json.")
    return lines


def caption(record: Mapping[str, Any]) -> str:
    """The claim, and what the figure shows."""
    known = record["pairs"][0]["exact"] is not None
    what = (
        "against the exact gradient quantity G (C8, C11); above 0 the chosen falls" if known else "in order (C11, C12)"
    )
    return f"{record['file']}: {len(record['pairs'])} pairs, CHES {what}. Triangles: to drop."


def figure(record: Mapping[str, Any]) -> Figure:
    """CHES and its normalised form, against the exact quantity or by rank."""
    drawn, axes = plt.subplots(1, 2, figsize=(7.4, 3.3), sharey=record["pairs"][0]["exact"] is not None)
    dropped = np.isin([pair["id"] for pair in record["pairs"]], record["drop"])
    known = record["pairs"][0]["exact"] is not None
    for ax, name, words in ((axes[0], "ches", "CHES"), (axes[1], "ches_length_normalised", "CHES, length-normalised")):
        score = np.array([pair[name] for pair in record["pairs"]])
        if known:
            x, y = score, np.array([pair["exact"] for pair in record["pairs"]])
        else:
            x, y = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1.0, score
        for here, colour, marker, said in ((~dropped, BLUE, "o", "keep"), (dropped, RED, "^", "drop")):
            ax.plot(x[here], y[here], ls="", marker=marker, color=colour, ms=4.5, mew=0, alpha=0.8, label=said)
        ax.axhline(0, color="0.5", ls=":", lw=1)
        ax.set(xlabel=words if known else "rank", ylabel="" if known else words)
    if known:
        axes[0].set_ylabel("exact quantity G")
    axes[1].legend(loc="best")
    return drawn
