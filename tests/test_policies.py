"""Every kind of policy is a distribution; every closed-form Gram matrix is the one autodiff finds."""

from __future__ import annotations

import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from sandbox import policies
from sandbox.algebra import log_softmax, softmax
from sandbox.policies import Tied, linear_logits, sequence_log_prob
from tests.tolerances import Tolerance, assert_close, golden, identity

V, T, D = 3, 4, 5
TOKENS, MASK = policies.all_responses(V, T, end=V - 1)
PREFIXES = policies.prefix_ids(TOKENS, V)
FEATURES = jax.random.normal(jax.random.key(0), (*TOKENS.shape, D))
NETWORK = policies.network(D + T + 2 * (V + 1), V, hidden=6, scale=1.5)
INPUTS = policies.token_inputs(jnp.broadcast_to(FEATURES[0, 0], (len(TOKENS), D)), jnp.asarray(TOKENS), V)

GRAM = Tolerance(1e-10, 1e-10, "two ways to sum the same hundred products") if jax.config.jax_enable_x64 else identity()


def normal(*shape: int):
    return lambda key: 2 * jax.random.normal(key, shape)


# kind -> (parameters from a key, log-probabilities (N, T, V) from parameters); one free feature vector a context where
# features must agree on equal prefixes for the policy to be one
POLICIES = {
    "tabular": (normal(policies.number_of_prefixes(V, T), V), lambda table: log_softmax(table[PREFIXES])),
    "unigram": (normal(1, V), lambda row: log_softmax(row[jnp.zeros_like(PREFIXES)])),
    "linear": (normal(V, D), lambda theta: log_softmax(linear_logits(theta, FEATURES.reshape(-1, D)[PREFIXES]))),
    "tied": (
        lambda key: Tied(normal(V, D)(key), normal(policies.number_of_prefixes(V, T), D)(jax.random.fold_in(key, 1))),
        lambda tied: log_softmax(linear_logits(tied.unembedding, tied.hidden[PREFIXES])),
    ),
    "network": (NETWORK.init, lambda params: log_softmax(NETWORK.apply(params, INPUTS))),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_probabilities_of_all_responses_sum_to_one(kind):
    init, log_probs = POLICIES[kind]
    for seed in range(3):
        responses = sequence_log_prob(log_probs(init(jax.random.key(seed))), TOKENS, MASK)
        assert responses.shape == (len(TOKENS),)
        assert_close(jnp.sum(jnp.exp(responses)), 1)


def test_without_an_end_token_all_responses_have_full_length():
    tokens, mask = policies.all_responses(3, 2)
    assert {tuple(row) for row in tokens.tolist()} == set(itertools.product(range(3), repeat=2))
    assert mask.all() and len(tokens) == 9


def test_responses_stop_at_the_end_token():
    tokens, mask = policies.all_responses(2, 3, end=1)
    kept = {tuple(row[keep].tolist()) for row, keep in zip(tokens, mask, strict=True)}
    assert kept == {(1,), (0, 1), (0, 0, 1), (0, 0, 0)} and len(tokens) == 4


def test_log_probability_is_the_sum_over_the_tokens_kept():
    log_probs = log_softmax(jax.random.normal(jax.random.key(1), (len(TOKENS), T, V)))
    by_hand = [sum(float(log_probs[n, t, TOKENS[n, t]]) for t in range(T) if MASK[n, t]) for n in range(len(TOKENS))]
    assert_close(sequence_log_prob(log_probs, TOKENS, MASK), np.array(by_hand))
    impossible = jnp.where(
        jnp.asarray(MASK)[..., None], log_probs, -jnp.inf
    )  # behind the mask: neither value nor slope
    assert_close(sequence_log_prob(impossible, TOKENS, MASK), np.array(by_hand))
    slope = jax.grad(lambda x: jnp.sum(sequence_log_prob(x, TOKENS, MASK.astype(int))))(impossible)
    assert_close(slope, jax.nn.one_hot(TOKENS, V) * MASK[..., None])


def test_prefix_ids_tell_prefixes_apart():
    tokens, _ = policies.all_responses(3, 4)
    ids = np.asarray(policies.prefix_ids(tokens, 3))
    by_prefix = {(k, *row[:k].tolist()): int(ids[n, k]) for n, row in enumerate(tokens) for k in range(4)}
    assert sorted(by_prefix.values()) == list(range(policies.number_of_prefixes(3, 4)))
    assert all(by_prefix[k, *row[:k].tolist()] == ids[n, k] for n, row in enumerate(tokens) for k in range(4))
    nested = policies.prefix_ids(tokens.reshape(9, 9, 4), 3)  # tokens lie on the last axis, whatever comes before
    np.testing.assert_array_equal(nested.reshape(81, 4), ids)
    np.testing.assert_array_equal(policies.prefix_ids(tokens[5], 3), ids[5])


# -- Gram matrices ---------------------------------------------------------------------------------------------------


def autodiff_gram(log_probs, params, tokens=TOKENS, mask=MASK):
    flat, tree = ravel_pytree(params)
    rows = jax.jacrev(lambda x: sequence_log_prob(log_probs(tree(x)), tokens, mask))(flat)
    return rows @ rows.T


KERNELS = {
    "tabular": policies.same_context(PREFIXES),
    "unigram": policies.same_context(np.zeros_like(PREFIXES)),
    "linear": policies.similarity(FEATURES.reshape(-1, D)[PREFIXES]),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_gram_of_a_log_linear_policy(kind):
    init, log_probs = POLICIES[kind]

    @jax.jit
    def both(key):
        params = init(key)
        return policies.gram(log_probs(params), TOKENS, MASK, KERNELS[kind]), autodiff_gram(log_probs, params)

    for seed in range(20):
        closed, found = both(jax.random.key(seed))
        assert_close(closed, found, GRAM, f"{kind}, seed {seed}")


def test_gram_of_tied_embeddings():
    init, log_probs = POLICIES["tied"]

    @jax.jit
    def both(key):
        params = init(key)
        return policies.tied_response_gram(params, PREFIXES, TOKENS, MASK), autodiff_gram(log_probs, params)

    for seed in range(20):
        closed, found = both(jax.random.key(seed))
        assert_close(closed, found, GRAM, f"seed {seed}")


def test_token_gram_splits_the_gram_by_positions():
    log_probs = POLICIES["linear"][1](normal(V, D)(jax.random.key(2)))
    parts = policies.token_gram(log_probs, TOKENS, MASK, KERNELS["linear"])
    assert parts.shape == (len(TOKENS), T, len(TOKENS), T)
    assert not jnp.any(jnp.where(jnp.asarray(MASK)[:, :, None, None], 0, parts))
    one = policies.linear_gram(
        jnp.exp(log_probs[4, 1]), FEATURES.reshape(-1, D)[PREFIXES[4, 1]], TOKENS[4, 1],
        jnp.exp(log_probs[7, 0]), FEATURES.reshape(-1, D)[PREFIXES[7, 0]], TOKENS[7, 0],
    )  # fmt: skip
    assert MASK[4, 1] and MASK[7, 0]
    assert_close(parts[4, 1, 7, 0], one)


def autodiff(log_probs, params):
    """Inner products (V, V) of the gradients of all tokens' log-probabilities."""
    flat, tree = ravel_pytree(params)
    rows = jax.jacrev(lambda x: log_probs(tree(x)))(flat)
    return rows @ rows.T


@jax.jit
@jax.vmap
def word_grams(key):
    a, b, c = jax.random.split(key, 3)
    w, h, logits = normal(V, D)(a), normal(D)(b), normal(V)(c)
    p, linear = softmax(w @ h), policies.linear_log_probs
    words = {
        "tabular": lambda y, z: policies.tabular_gram(softmax(logits), y, z),
        "linear": lambda y, z: policies.linear_gram(p, h, y, p, h, z),
        "feature": lambda y, z: policies.feature_gram(w, p, y, z),
        "tied": lambda y, z: policies.tied_gram(w, h, y, z),
    }
    found = {
        "tabular": autodiff(log_softmax, logits),
        "linear": autodiff(lambda w: linear(w, h), w),
        "feature": autodiff(lambda h: linear(w, h), h),
        "tied": autodiff(lambda tied: linear(*tied), Tied(w, h)),
    }
    closed = {kind: jnp.array([[word(y, z) for z in range(V)] for y in range(V)]) for kind, word in words.items()}
    return closed, found


def test_gram_entries_in_words():
    closed, found = word_grams(jax.random.split(jax.random.key(3), 20))
    for kind in closed:
        assert_close(closed[kind], found[kind], GRAM, kind)


def test_residual_is_the_gradient_with_respect_to_the_logits():
    logits = jnp.array([1.0, -2.0, 0.5])
    for y in range(3):
        assert_close(policies.residual(y, softmax(logits)), jax.grad(lambda z, y=y: log_softmax(z)[y])(logits))


def test_tied_scalar_reference():
    """Yuan et al. 2024's effect in one dimension: chosen and rejected fall, the third token rises."""
    w, h = jnp.array([[1.0], [0.0], [4.0]]), jnp.array([1.0])
    a, b, c = (policies.tied_gram(w, h, y, z) for y, z in ((0, 0), (1, 1), (0, 1)))
    assert_close(jnp.exp(policies.linear_log_probs(w, h)), np.array([0.046612623, 0.017147826, 0.936239552]), golden())
    assert_close(jnp.stack([a, b, c]), np.array([9.578653737, 16.220724991, 11.399689364]), golden())


@pytest.mark.parametrize(
    ("length", "a", "b", "c"),
    [
        (0, 0.26, 0.86, -0.44),
        (1, 0.32, 1.82, -0.248),
        (5, 0.56, 5.66, 0.52),
        (6, 0.62, 6.62, 0.712),
        (10, 0.86, 10.46, 1.48),
        (40, 2.66, 39.26, 7.24),
    ],
)
def test_shared_suffix_reference(length, a, b, c):
    """One contrast token (.6, .3, .1), then a suffix whose residuals are four times as large after the rejected one."""
    laws = np.full((2, 1 + length, 3), [0.6, 0.3, 0.1])
    laws[0, 1:], laws[1, 1:] = [0.8, 0.1, 0.1], [0.2, 0.4, 0.4]

    @jax.jit
    def measured():
        features = policies.suffix_features(length, 0.8)
        flat = features.reshape(-1, features.shape[-1])  # position 0 twice, asked the same
        theta = policies.minimum_norm(flat, jnp.log(laws.reshape(-1, 3)))
        log_probs = log_softmax(linear_logits(theta, features))
        tokens = jnp.zeros((2, 1 + length), int).at[1, 0].set(1)
        mask = jnp.ones_like(tokens)
        return jnp.exp(log_probs), policies.gram(log_probs, tokens, mask, policies.similarity(features))

    found_laws, found = measured()
    assert_close(found_laws, laws)
    assert_close(found, np.array([[a, c], [c, b]]), golden())


def test_unigram_reference():
    """AB over BB with p_A = .3: |g_w|^2 - <g_w, g_l> = 2 (p_B - p_A), though each token is tabular."""
    log_probs = jnp.broadcast_to(jnp.log(jnp.array([0.3, 0.7])), (2, 2, 2))
    tokens = jnp.array([[0, 1], [1, 1]])
    found = policies.gram(log_probs, tokens, jnp.ones_like(tokens), policies.same_context(jnp.zeros((2, 2), int)))
    assert_close(found[0, 0] - found[0, 1], 0.8)


# -- linear features by design ---------------------------------------------------------------------------------------


@given(st.integers(0, 2**20), st.integers(0, 3))
def test_minimum_norm_is_exact_and_least(seed, repeated):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(4, 6))
    features[3] = features[repeated]  # repeated == 3 leaves all four independent
    wanted = np.log(rng.dirichlet(np.ones(3), 4))
    wanted[3] = wanted[repeated]
    theta = policies.minimum_norm(jnp.asarray(features), jnp.asarray(wanted))
    assert theta.shape == (3, 6)
    assert_close(log_softmax(linear_logits(theta, jnp.asarray(features))), wanted)
    moved = theta + rng.normal(size=(1, 6))  # the same vector on every row moves all logits of a context alike
    assert_close(log_softmax(linear_logits(moved, jnp.asarray(features))), wanted)
    assert jnp.sum(theta**2) <= jnp.sum(moved**2)
    assert_close(theta, theta @ np.linalg.pinv(features) @ features)  # nothing outside the span of the features


def test_minimum_norm_says_what_cannot_be():
    features = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="log_probs: not realisable"):
        policies.minimum_norm(features, jnp.log(jnp.array([[0.5, 0.5], [0.1, 0.9]])))
    assert policies.minimum_norm(features, jnp.log(jnp.array([[0.1, 0.9], [0.1, 0.9]]))).shape == (2, 2)
    traced = jax.jit(policies.minimum_norm)(jnp.eye(2), jnp.log(jnp.array([[0.5, 0.5], [0.1, 0.9]])))
    assert bool(jnp.all(jnp.isfinite(traced)))


@pytest.mark.parametrize("overlap", [0, 0.5, 1])
def test_suffix_features_overlap_as_asked(overlap):
    features = policies.suffix_features(3, overlap)
    assert features.shape == (2, 4, 10)
    products = policies.similarity(features)
    assert_close(products[0, :, 0, :], np.eye(4)), assert_close(products[1, :, 1, :], np.eye(4))
    assert_close(products[0, :, 1, :], np.diag([1, overlap, overlap, overlap]))


# -- network ---------------------------------------------------------------------------------------------------------


def test_network_of_the_sentiment_toy():
    """A prompt in R^20, 12 tokens, a label and a suffix of 6: 64 tanh units on 53 inputs."""
    vocabulary, length = 12, 7
    net = policies.network(20 + length + 2 * (vocabulary + 1), vocabulary, hidden=64, scale=1.5)
    params = net.init(jax.random.key(0))
    flat, _ = ravel_pytree(params)
    assert flat.shape == (53 * 64 + 64 + 64 * 12 + 12,) and flat.dtype == jnp.result_type(float)
    x, tokens = jnp.ones((5, 20)), jnp.zeros((5, length), int)
    inputs = policies.token_inputs(x, tokens, vocabulary)
    assert inputs.shape == (5, length, 53)
    assert net.apply(params, inputs).shape == (5, length, vocabulary)
    matrices = {leaf.shape: leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2}
    for shape, std in {(53, 64): 1.5 / np.sqrt(53), (64, 12): 1 / 8}.items():
        n = matrices[shape].size
        error = Tolerance(4 / np.sqrt(2 * n), 0, "four standard errors of a normal sample's standard deviation")
        assert_close(jnp.std(matrices[shape]), std, error)
    assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(params) if leaf.ndim == 1)


def test_network_is_pure_and_vmaps_over_seeds():
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(NETWORK.init)(keys)
    logits = jax.vmap(NETWORK.apply, (0, None))(many, INPUTS)
    for i, key in enumerate(keys):
        assert_close(logits[i], NETWORK.apply(NETWORK.init(key), INPUTS))
    assert not np.allclose(logits[0], logits[1])


def test_network_with_several_hidden_layers():
    """4-64-3-10: logits by hand from the parameters, deviations 1 / sqrt(fan-in), ``scale`` in the first layer only."""
    net = policies.network(4, 10, hidden=(64, 3), scale=2)
    params = net.init(jax.random.key(1))
    b1, w1, b2, w2, b3, w3 = leaves = jax.tree.leaves(params)
    assert [leaf.shape for leaf in leaves] == [(64,), (4, 64), (3,), (64, 3), (10,), (3, 10)]
    for weights, deviation in ((w1, 1), (w2, 1 / 8), (w3, 3**-0.5)):
        error = Tolerance(4 / np.sqrt(2 * weights.size), 0, "four standard errors of a sample's standard deviation")
        assert_close(jnp.std(weights), deviation, error)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases too
    b1, w1, b2, w2, b3, w3 = jax.tree.leaves(moved)
    x = jax.random.normal(jax.random.key(2), (5, 4))
    units = jnp.tanh(jnp.tanh(x @ w1 + b1[None]) @ w2 + b2[None])
    assert_close(net.apply(moved, x), units @ w3 + b3[None])


def test_one_hidden_layer_has_the_same_bits_as_a_tuple_of_one():
    one, several = (policies.network(5, 3, hidden=hidden).init(jax.random.key(3)) for hidden in (7, (7,)))
    assert jax.tree.structure(one) == jax.tree.structure(several)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, several))


@pytest.mark.parametrize("hidden", [6, (6, 2), (5, 4, 3)])
def test_margin_of_a_network_is_a_difference_of_log_probabilities(hidden):
    """With its gradient, under vmap over models too; and a contrast that does not add to zero contrasts logits."""
    net = policies.network(3, 4, hidden=hidden)
    params = jax.vmap(net.init)(jax.random.split(jax.random.key(4), 3))
    x, chosen, rejected = (
        jax.random.normal(jax.random.key(5), (5, 3)),
        jnp.array([0, 1, 2, 3, 0]),
        3 - jnp.arange(5) % 2,
    )
    contrast = jax.nn.one_hot(chosen, 4) - jax.nn.one_hot(rejected, 4)

    def by_log_probs(params):
        log_probs = log_softmax(net.apply(params, x))
        return log_probs[jnp.arange(5), chosen] - log_probs[jnp.arange(5), rejected]

    assert_close(jax.vmap(net.margin, (0, None, None))(params, x, contrast), jax.vmap(by_log_probs)(params))
    found = jax.vmap(jax.jacrev(lambda p: net.margin(p, x, contrast)))(params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(jax.vmap(jax.jacrev(by_log_probs))(params)), strict=True):
        assert_close(a, b)
    first = jax.tree.map(lambda leaf: leaf[0], params)
    assert_close(net.margin(first, x, jax.nn.one_hot(chosen, 4)), net.apply(first, x)[jnp.arange(5), chosen])


@given(st.lists(st.integers(0, V - 1), min_size=T, max_size=T), st.integers(0, T - 1))
def test_network_sees_the_past_only(tokens, k):
    """Inputs up to position k do not depend on token k, and those of the next do."""
    changed = [*tokens]
    changed[k] = (tokens[k] + 1) % V
    x = jnp.zeros((2, 1))
    before, after = policies.token_inputs(x, jnp.array([tokens, changed]), V)
    assert jnp.array_equal(before[: k + 1], after[: k + 1])
    assert k == T - 1 or not jnp.array_equal(before[k + 1], after[k + 1])
    assert_close(jnp.sum(before, axis=-1), 3)  # a zero prompt and three one-hot codes


def test_flax_is_imported_by_networks_only():
    code = "import sys, sandbox.policies; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: policies.all_responses(0, 2), "vocabulary = 0"),
        (lambda: policies.all_responses(2, 1.5), "length = 1.5"),
        (lambda: policies.all_responses(2, 2, end=2), "end = 2"),
        (lambda: policies.suffix_features(-1, 0.5), "length = -1"),
        (lambda: policies.suffix_features(2, 1.5), "overlap = 1.5"),
        (lambda: policies.network(3, 0), "outputs = 0"),
        (lambda: policies.network(3, 2, hidden=True), "hidden = True"),
        (lambda: policies.network(3, 2, hidden=(4, 0)), "hidden = 0"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
