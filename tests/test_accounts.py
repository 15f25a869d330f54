"""The comparison of accounts: its pairs, its scores, and the cases in which one fails."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _accounts
from experiments._accounts import ACCOUNTS, CASES, NEUTRAL
from sandbox.policies import pair_contexts
from sandbox.runtime import quickly_compiled
from tests.tolerances import Tolerance, assert_close

SMALL = Tolerance(1e-3, 1e-3, "one step of 1e-5 against its first order")


@pytest.fixture(scope="module")
def found():
    measure = partial(_accounts.measure, pairs=12, seeds=3, steps=60)
    run = jax.jit(measure, compiler_options=quickly_compiled(0))
    return {name: np.asarray(x) for name, x in run(jax.random.key(0)).items()}


@pytest.fixture(scope="module")
def pairs():
    keys = jax.random.split(jax.random.key(1), 64)
    drawn = jax.jit(jax.vmap(_accounts.random_pair), compiler_options=quickly_compiled(0))
    return drawn(keys, jnp.arange(64) % 2 == 1)


def test_pairs_part_at_the_first_token_and_share_the_prompt(pairs):
    tokens = np.asarray(pairs.tokens)
    assert np.all(tokens[:, 0, 0] != tokens[:, 1, 0])
    assert (tokens[:, 0, 1:] == tokens[:, 1, 1:]).mean() > 0.75, "most later tokens are the chosen's"
    assert np.all(np.asarray(pairs.mask)[:, :, 0])
    contexts = np.asarray(jax.vmap(pair_contexts)(pairs.tokens))
    assert np.all(contexts[:, 0, 0] == contexts[:, 1, 0]) and np.all(contexts[:, 0, 1:] != contexts[:, 1, 1:])


def test_on_policy_tokens_are_the_likelier_ones(pairs):
    """At the split the rejected token is drawn from the policy, or uniformly."""
    log_probs = jax.vmap(lambda pair: _accounts.token_log_probs(pair.params, pair))(pairs)
    drawn = np.take_along_axis(np.asarray(log_probs)[:, 1, 0], np.asarray(pairs.tokens)[:, 1, :1], axis=1)[:, 0]
    assert drawn[1::2].mean() > drawn[::2].mean() + 0.5


def test_exact_score_is_minus_the_first_step(pairs):
    """Learning rate times the weight beta / 2 at the reference: the change of log p(chosen) is minus that times G."""
    few = jax.tree.map(lambda x: x[:8], pairs)
    score = jax.jit(jax.vmap(lambda pair: _accounts.one_run(pair, steps=1)["exact gradient"]))(few)

    def slope(pair):
        def chosen(params):
            log_probs = _accounts.token_log_probs(params, pair)
            return jnp.sum(jnp.where(pair.mask[0], log_probs[0, jnp.arange(4), pair.tokens[0]], 0))

        def rejected(params):
            log_probs = _accounts.token_log_probs(params, pair)
            return jnp.sum(jnp.where(pair.mask[1], log_probs[1, jnp.arange(4), pair.tokens[1]], 0))

        up, down = jax.grad(chosen)(pair.params), jax.grad(rejected)(pair.params)
        direction = jax.tree.map(jnp.subtract, up, down)
        return jax.jvp(chosen, (pair.params,), (direction,))[1]

    assert_close(-score, jax.jit(jax.vmap(slope))(few), SMALL)


def test_cases_fail_as_they_say(found):
    scores, change = (dict(zip(CASES, found[name], strict=True)) for name in ("case_scores", "case_change"))
    at = {name: k for k, name in enumerate(ACCOUNTS)}
    one = "one token, a third beyond the chosen"
    assert change[one][0] < 0 and scores[one][at["exact gradient"]] > 0
    assert_close(scores[one][at["exact gradient"]], 0.5882, Tolerance(0, 6e-5, "four printed digits"))
    assert scores[one][at["CHES"]] == scores[one][at["CHES, normalised"]] == 0, "blind to single tokens"
    assert scores[one][at["squeezing"]] < 1, "no scalar kernel lowers the chosen in one context"
    sure = "a sure suffix, longer vectors for the rejected"
    assert change[sure][0] > 0 and scores[sure][at["exact gradient"]] < 0
    assert_close(scores[sure][at["CHES"]], 9.0)  # (1, 3) (1, 6) - (1, 3) (1, 3)
    assert_close(scores[sure][at["CHES, normalised"]], 2.25)
    long = "one token, a long hidden vector"
    assert change[long][0] > 0 and scores[long][at["exact gradient"]] < 0 and scores[long][at["similarity scores"]] > 1
    flat = "a flat start, a third that takes over"
    assert change[flat][0] < 0
    assert all(scores[flat][at[name]] < 0 for name in ("entanglement", "exact gradient")), "a rise to first order"


def test_the_exact_score_ranks_best(found):
    correlation, right = found["correlation"][..., 0], found["right"]
    best = ACCOUNTS.index("exact gradient")
    assert np.all(correlation[:, best] > 0.8) and np.all(np.argmax(correlation, axis=1) == best)
    assert np.all(right[:, best] >= 0.7)
    assert_close(right[:, 0], right[:, best])  # cos > kappa is the same sign
    assert np.all(found["correlation"][..., 1] <= found["correlation"][..., 2])


def test_table_and_words(found):
    rows = _accounts.table(found)
    assert len(rows) == 2 * len(ACCOUNTS) and len(NEUTRAL) == len(ACCOUNTS)
    assert all(row["low"] <= row["rank correlation"] <= row["high"] for row in rows)
    assert "of the off-policy" in _accounts.caption(found)
