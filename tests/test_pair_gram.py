"""Gram matrices of the two responses of a pair, unembedding and hidden vectors trained, against autodiff."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sandbox.algebra import log_softmax
from sandbox.measures import first_order_fall
from sandbox.policies import Tied, linear_logits, pair_contexts, sequence_log_prob, tied_pair_gram
from tests.tolerances import assert_close

V, D, T = 5, 3, 4
PAIRS = {  # tokens of the chosen, tokens of the rejected
    "no common prefix": ([0, 1, 2], [3, 1]),
    "a common prefix": ([0, 1, 2, 2], [0, 1, 4, 2]),
    "one begins like the whole other": ([0, 1, 2], [0, 1]),
    "alike again after a difference": ([0, 1, 2, 3], [0, 2, 2, 3]),
    "the same response": ([4, 4, 1], [4, 4, 1]),
}


def arrays(pair):
    tokens = np.zeros((2, T), int)
    mask = np.zeros((2, T), bool)
    for k, response in enumerate(pair):
        tokens[k, : len(response)], mask[k, : len(response)] = response, True
    return jnp.asarray(tokens), jnp.asarray(mask)


def contexts_by_prefix(pair):
    """The contexts by hand: a dictionary from prefix to row."""
    rows: dict[tuple[int, ...], int] = {}
    return [[rows.setdefault(tuple(y[:k]), len(rows)) for k in range(len(y))] for y in pair], len(rows)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("bias", [False, True], ids=["logits W h", "a bias beside them"])
def test_gram_of_a_pair(name, bias):
    pair = PAIRS[name]
    tokens, mask = arrays(pair)
    rows, count = contexts_by_prefix(pair)
    keys = jax.random.split(jax.random.key(len(name)), 3)
    params = Tied(jax.random.normal(keys[0], (V, D)), jax.random.normal(keys[1], (count, D)))
    offset = jax.random.normal(keys[2], (V,)) * bias
    flat, tree = ravel_pytree(params)

    def log_prob(x, k):
        unembedding, hidden = tree(x)
        logits = linear_logits(unembedding, hidden[jnp.array(rows[k])]) + offset[None]
        return sum(log_softmax(logits)[n, y] for n, y in enumerate(pair[k]))

    gradients = jnp.stack([jax.grad(log_prob)(flat, k) for k in (0, 1)])
    padded = jnp.array([row + [0] * (T - len(row)) for row in rows])
    hidden = params.hidden[padded]
    law = log_softmax(linear_logits(params.unembedding, hidden) + offset[None, None])[None] if bias else None
    found = tied_pair_gram(Tied(params.unembedding, hidden[None]), tokens[None], mask[None], law)[0]
    assert_close(found, gradients @ gradients.T)
    assert_close(first_order_fall(found), gradients[0] @ (gradients[1] - gradients[0]))
    assert_close(log_prob(flat, 0), sequence_log_prob(
        log_softmax(linear_logits(params.unembedding, hidden) + offset[None, None]), tokens, mask)[0])  # fmt: skip


def test_contexts_are_shared_as_long_as_the_prefix_is():
    assert pair_contexts(jnp.array([[0, 1, 2, 2], [0, 1, 4, 2]])).tolist() == [[0, 1, 2, 3], [0, 1, 2, 7]]
    assert pair_contexts(jnp.array([[0, 1], [3, 1]])).tolist() == [[0, 1], [0, 3]]
