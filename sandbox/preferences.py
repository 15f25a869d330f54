"""Who prefers what: annotators as probabilities, labelled pairs drawn from them, and pairs read from a file.

An annotator is the probability that the first of two responses is preferred; a preference matrix P (N, N) has it for
every two of N responses, and P + P^T = 1. Rewards are in nats: their difference is the log-odds of a Bradley-Terry
annotator.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sandbox.algebra import sigmoid, total
from sandbox.validate import in_range, require

__all__ = [
    "END", "Pairs", "TextPair", "TokenPairs", "bradley_terry", "cycle", "encode", "encode_pairs", "intransitive",
    "label", "noisy", "pluralistic", "preference_matrix", "read_pairs", "sample_pairs", "tokenize", "vocabulary",
]  # fmt: skip


# -- annotators, in the words of the algebra -------------------------------------------------------------------------


def bradley_terry(reward: Any, other: Any) -> Any:
    """Probability that a response of this reward beats the other: sigmoid(reward - other). Bradley & Terry, 1952."""
    return sigmoid(reward - other)


def noisy(probability: Any, flip: Any) -> Any:
    """The same after each label is flipped with probability ``flip``, in [0, 1]."""
    return (1 - flip) * probability + flip * (1 - probability)


def pluralistic(weights: Any, rewards: Any, others: Any) -> Any:
    """The same for a label from a random annotator of several Bradley-Terry groups.

    ``weights`` (groups,) sum to one; ``rewards`` and ``others`` (groups,) are the groups' rewards of the two responses.
    """
    return total(weights * bradley_terry(rewards, others))


def intransitive(advantage: Any) -> Any:
    """The same from log-odds that need not be differences of rewards: sigmoid(advantage), any antisymmetric matrix."""
    return sigmoid(advantage)


# -- preference matrices and samples ---------------------------------------------------------------------------------


def preference_matrix(annotator: Callable[[Any, Any], Any], rewards: Array) -> Array:
    """The annotator's probability for every two responses (N, N), from rewards (N, ...) of each.

    ``annotator`` takes the rewards of two responses: ``bradley_terry``, or ``partial(pluralistic, weights)`` where the
    rewards are (N, groups).
    """
    against_all = jax.vmap(annotator, (None, 0))
    return jax.vmap(against_all, (0, None))(rewards, rewards)


def cycle(size: int, advantage: Any) -> Array:
    """Log-odds (size, size) by which each of ``size`` >= 3 responses beats the next, and the last the first; else 0."""
    if size < 3:
        raise ValueError(f"size = {size}: a cycle needs at least 3 responses")
    beats_next = jnp.roll(jnp.eye(size), 1, axis=1)
    return advantage * (beats_next - beats_next.T)


class Pairs(NamedTuple):
    """Labelled pairs: ``chosen`` (n,) and ``rejected`` (n,), indices of responses."""

    chosen: Array
    rejected: Array


def label(key: Array, preference: Array, first: Array, second: Array) -> Pairs:
    """Ask the annotator once for each candidate pair (first, second) (n,) of indices into ``preference`` (N, N).

    Raises ValueError unless the preferences are probabilities and those of the two orders sum to one.
    """
    in_range("preference", preference, 0, 1)
    both = preference + preference.T
    require("preference + its transpose", both, lambda s: np.abs(s - 1) < 1e3 * np.finfo(s.dtype).eps, "1")
    won = jax.random.bernoulli(key, preference[first, second])
    return Pairs(jnp.where(won, first, second), jnp.where(won, second, first))


def sample_pairs(key: Array, preference: Array, count: int) -> Pairs:
    """``count`` labelled pairs of two different responses, drawn uniformly; errors as ``label``."""
    size = preference.shape[0]
    if size < 2:
        raise ValueError(f"preference: {size} response: a pair needs 2")
    first_key, second_key, label_key = jax.random.split(key, 3)
    first = jax.random.randint(first_key, (count,), 0, size)
    second = (first + jax.random.randint(second_key, (count,), 1, size)) % size
    return label(label_key, preference, first, second)


# -- pairs from a file -----------------------------------------------------------------------------------------------


class TextPair(NamedTuple):
    """A prompt and two different responses to it, as text."""

    prompt: str
    chosen: str
    rejected: str


_FIELDS = TextPair._fields
# What public preference sets commonly carry along; it says nothing that a pair needs, and is skipped.
_EXTRAS = {
    "id", "prompt_id", "question_id", "messages", "source", "dataset", "category", "language", "margin", "metadata",
    "score_chosen", "score_rejected", "chosen_score", "rejected_score", "chosen_rating", "rejected_rating",
    "chosen_model", "rejected_model",
}  # fmt: skip


def read_pairs(path: str | os.PathLike[str], prompt: Callable[[Any], str] | None = None) -> list[TextPair]:
    """Read preference pairs from a file of JSON lines, one object {"prompt", "chosen", "rejected"} a line.

    Each field is a string or a list of messages {"role", "content"}. Where both responses are lists that begin with the
    same conversation, it must repeat the prompt, and is dropped; what remains starts with the assistant. The text of
    messages is their contents, with "role: " before those of a prompt and those after a response's first. Blank lines
    are skipped, and so are fields that say nothing about the pair: an id, a score, a source ... ``prompt`` makes the
    text of a prompt, from a string or a list of (role, content), otherwise: a model's chat template, say.

    Raises ValueError that lists every bad line with its number: broken JSON or UTF-8, a field that is missing, unknown
    or of another type, an empty response, equal responses. FileNotFoundError if there is no such file.
    """
    pairs, errors = [], []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    pairs.append(_parse(text, prompt or _text))
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
                errors.append(f"  line {number}: {error}")
    asked = "each line must be a JSON object with prompt, chosen and rejected"
    if errors:
        told = "\n".join(errors)
        raise ValueError(f"{os.fspath(path)}: {len(errors)} bad line(s), nothing was used; {asked}:\n{told}")
    if not pairs:
        raise ValueError(f"{os.fspath(path)}: no pairs; {asked}")
    return pairs


def _parse(line: str, prompt_text: Callable[[Any], str]) -> TextPair:
    try:
        record = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(record, dict):
        raise ValueError(f"must be an object with {', '.join(_FIELDS)}, not {_kind(record)}")
    missing = [name for name in _FIELDS if name not in record]
    unknown = sorted(set(record) - set(_FIELDS) - _EXTRAS)
    if missing or unknown:
        problems = [f"missing field(s) {', '.join(missing)}"] * bool(missing)
        problems += [f"unknown field(s) {', '.join(unknown)}"] * bool(unknown)
        raise ValueError("; ".join(problems))
    values = {name: _messages(name, record[name]) for name in _FIELDS}
    prompt, chosen, rejected = (values[name] for name in _FIELDS)
    if isinstance(chosen, list) and isinstance(rejected, list):
        chosen, rejected = _drop_conversation(prompt, chosen, rejected)
    pair = TextPair(prompt_text(prompt), _response("chosen", chosen), _response("rejected", rejected))
    if pair.chosen == pair.rejected:
        raise ValueError("chosen and rejected are the same")
    return pair


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(items)
    if len(record) < len(items):
        raise ValueError(f"the same field twice among {', '.join(name for name, _ in items)}")
    return record


_Messages = str | list[tuple[str, str]]  # (role, content)


def _messages(name: str, value: Any) -> _Messages:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"{name}: must be a string or a list of messages, not {_kind(value)}")
    for i, message in enumerate(value, 1):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError(f"{name}: message {i} must have the strings role and content")
    return [(message["role"], message["content"]) for message in value]


def _drop_conversation(prompt: _Messages, chosen: list[Any], rejected: list[Any]) -> tuple[list[Any], list[Any]]:
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and chosen[shared - 1][0] == "assistant":  # an equal beginning of the answers is part of the answers
        shared -= 1
    repeated = chosen[:shared]
    if repeated and prompt not in (repeated, repeated[-1][1], _text(repeated)):
        raise ValueError("chosen and rejected begin with messages that do not repeat the prompt")
    return chosen[shared:], rejected[shared:]


def _response(name: str, value: _Messages) -> str:
    if isinstance(value, list) and value and value[0][0] != "assistant":
        raise ValueError(f"{name}: begins with a message of {value[0][0]!r}, not of 'assistant'")
    text = value if isinstance(value, str) else _text(value).removeprefix("assistant: ")
    if not text.strip():
        raise ValueError(f"{name}: empty")
    return text


def _text(value: _Messages) -> str:
    return value if isinstance(value, str) else "\n".join(f"{role}: {content}" for role, content in value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


# -- text to tokens --------------------------------------------------------------------------------------------------

END = "<|end|>"


def tokenize(text: str) -> list[str]:
    """Words and punctuation marks, each with one space before it if there is one: joined, they are the text again."""
    return re.findall(r" ?\w+| ?[^\w\s]|\s", text)


def vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Ids of all tokens of the texts in order of appearance; id 0 is END, which closes every response and pads."""
    tokens = dict.fromkeys(token for text in texts for token in tokenize(text))
    return {token: i for i, token in enumerate([END, *tokens])}


def encode(text: str, ids: Mapping[str, int]) -> list[int]:
    """The ids of the tokens of a text. Raises ValueError that names the tokens outside the vocabulary ``ids``."""
    tokens = tokenize(text)
    unknown = [token for token in dict.fromkeys(tokens) if token not in ids]
    if unknown:
        raise ValueError(f"text: tokens outside the vocabulary: {', '.join(map(repr, unknown[:10]))}")
    return [ids[token] for token in tokens]


class TokenPairs(NamedTuple):
    """Token ids (n, T), padded with END, and masks (n, T), True on tokens and one END; T differs between the fields."""

    prompt: np.ndarray
    prompt_mask: np.ndarray
    chosen: np.ndarray
    chosen_mask: np.ndarray
    rejected: np.ndarray
    rejected_mask: np.ndarray


def encode_pairs(pairs: Sequence[TextPair], ids: Mapping[str, int]) -> TokenPairs:
    """Pad the pairs to arrays; a response ends with END, a prompt does not. Raises ValueError as ``encode``."""
    end = ids[END]

    def pad(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        tokens = np.full(mask.shape, end, np.int32)
        tokens[mask] = [token for row in rows for token in row]
        return tokens, mask

    prompt = pad([encode(pair.prompt, ids) for pair in pairs])
    chosen = pad([[*encode(pair.chosen, ids), end] for pair in pairs])
    rejected = pad([[*encode(pair.rejected, ids), end] for pair in pairs])
    return TokenPairs(*prompt, *chosen, *rejected)
