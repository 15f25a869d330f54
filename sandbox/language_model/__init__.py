"""A real language model: the Llama family as pure functions over a pytree, read from a GGUF file, and pairs of text.

``load("smollm2")`` finds the 135-million-parameter instruct model of an installed package, ``load("FILE.gguf")`` reads
the user's own file, ``load("tiny")`` draws a small random model that needs nothing. The files need the extra ``lm``.

A pair is packed into one row of tokens: the prompt, the chosen response, the rejected one. Both responses attend to the
prompt and to themselves, not to one another, so that the prompt is computed once for both. All arrays of a model are
float32; the functions compute in whatever precision the parameters have. Log-probabilities are in nats.
"""

from __future__ import annotations

from sandbox.language_model.network import (
    Config,
    Pair,
    attention,
    first_difference,
    hidden_states,
    initial,
    logits,
    pack,
    response_states,
    token_log_probs,
    unembedding,
)
from sandbox.language_model.source import Model, load

__all__ = [
    "Config", "Model", "Pair", "attention", "first_difference", "hidden_states", "initial", "load", "logits", "pack",
    "response_states", "token_log_probs", "unembedding",
]  # fmt: skip
