"""A user's pairs in a language model: against gradients of rows of their own, resumed, and what is refused."""

from __future__ import annotations

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments import _language, _programs
from experiments.entanglement import _model
from experiments.entanglement.__main__ import EXPERIMENT
from experiments.entanglement._data import loss_named
from sandbox import language_model
from sandbox.measures import GradientProducts
from sandbox.preferences import TextPair, read_pairs

PAIRS = [TextPair("Hm?\n", "No", "Yes"), TextPair("A, B\n", "ab c", "ab d"), TextPair("?\n", "So.", "So it is")]
DPO = loss_named("dpo")
# float32: gradients are sums of 1e3 terms, each rounded to 6e-8
ROUNDING = {"rtol": 2e-4, "atol": 2e-4}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """What is kept goes to a folder of the test."""
    monkeypatch.setattr(_programs, "directory", lambda: tmp_path / "programs")
    return tmp_path / "pairs"


@pytest.fixture(scope="module")
def model():
    return language_model.load("tiny")


@pytest.fixture(scope="module")
def looked(model):
    return [_language.look(model, pair, DPO) for pair in _language.packed(model, PAIRS, end=True, shapes=1)]


def own_row(model, params, prompt, response):
    """The sum of log-probabilities of a response, in a row without the other one."""
    ids = jnp.array([*prompt, *response])
    place = jnp.arange(len(ids))
    states = language_model.hidden_states(model.config, params, ids, place, place[None, :] <= place[:, None])
    log_probs = jax.nn.log_softmax(language_model.logits(params, states))
    rows = jnp.arange(len(prompt) - 1, len(ids) - 1)
    return jnp.sum(log_probs[rows, ids[rows + 1]])


def test_norms_and_inner_products_are_those_of_rows_of_their_own(model, looked):
    for pair, found in zip(PAIRS[:2], looked, strict=False):
        prompt = model.encode(pair.prompt)
        g_w, g_l = (
            ravel_pytree(jax.grad(partial(own_row, model))(model.params, prompt, [*model.encode(text), model.end]))[0]
            for text in pair[1:]
        )
        assert found["lengths"] == [len(text) + 1 for text in pair[1:]]
        np.testing.assert_allclose(found["gram"], [g_w @ g_w, g_l @ g_l, g_w @ g_l], **ROUNDING)


def test_layers_and_tokens_share_the_inner_product_out(looked):
    for found in looked:
        inner, parts = found["gram"][2], found["parts"]
        layers = sum(parts["attention"]) + sum(parts["feed_forward"])
        np.testing.assert_allclose(parts["embedding"] + parts["rest"] + layers, inner, **ROUNDING)
        for shares, length in zip(found["shares"], found["lengths"], strict=True):
            assert len(shares) == length
            np.testing.assert_allclose(sum(shares), inner, rtol=2e-3, atol=1e-2)


def test_predicted_is_measured_up_to_the_square_of_the_step(looked):
    for found in looked:
        predicted, measured = np.array(found["predicted"]), np.array(found["measured"])
        assert np.isclose(np.abs(predicted[0]).max(), _language.CHANGE) and np.allclose(predicted[1], predicted[0] / 2)
        # a change of .05 nats: its square, and rounding of sums of log-probabilities of some ten nats
        assert np.abs(measured - predicted).max() < 2 * _language.CHANGE**2
        assert (measured[:, 0] - measured[:, 1] > 0).all()


def test_the_step_is_quadratic_in_float64(model):
    if not jax.config.jax_enable_x64:
        pytest.skip("float32 rounds the gap of a small step away")
    exact = model._replace(params=jax.tree.map(lambda x: x.astype(float), model.params))
    (pair,) = _language.packed(model, PAIRS[:1], end=True)
    found = _language.look(exact, pair, DPO)
    ratio = _model._gap_ratio(found)
    assert ratio is not None and 3.5 < ratio < 4.5  # 4, up to the share of the third order


def test_identical_hidden_states_are_blind_spots_of_ches(model, looked):
    """Single tokens: both responses are predicted from one state, and CHES is 0 for every pair."""
    (pair,) = _language.packed(model, [TextPair("x", "a", "b")], end=False)
    found = _language.look(model, pair, DPO)
    assert found["ches"] == found["ches_normalised"] == 0 and found["gram"][2] != 0
    assert any(x["ches"] != 0 for x in looked)


def test_stand_ins_are_ranked_against_the_gradient():
    """A stand-in that is the truth has rank 1 and every sign; the opposite, rank -1 and none."""
    grams = np.array([[1.0, 2.0, 1.2], [3.0, 1.0, 0.5], [2.0, 4.0, 2.5], [1.0, 1.0, -0.3]])
    fall = 0.05 * (grams[:, 2] - grams[:, 0])
    found = [
        {"weights": (0.05, 0.05), "last": g, "ches": f, "ches_normalised": -f}
        for g, f in zip(grams.tolist(), fall, strict=True)
    ]
    products = GradientProducts(*np.sqrt(grams[:, :2].T), grams[:, 2])
    table = _model.stand_ins(found, products, toy=fall)
    ranks = {name: (row["rank_of_fall"], row["right_sign"]) for name, row in table.items()}
    assert ranks["CHES"] == ranks["last layer alone"] == (pytest.approx(1), 1.0)
    assert ranks["length-normalised CHES"] == ranks["toy trained on the pairs"] == (pytest.approx(-1), 0.0)


def test_a_stopped_run_keeps_what_it_found(model, elsewhere, monkeypatch):
    looks = []

    def look(model, pair, loss):
        if len(looks) == 2:
            raise KeyboardInterrupt
        looks.append(pair)
        return {"n": len(looks)}

    monkeypatch.setattr(_language, "look", look)
    with pytest.raises(KeyboardInterrupt):
        _language.look_at_all(model, PAIRS, DPO, "dpo", end=True)
    (file,) = elsewhere.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-3])  # killed in the middle of a line
    looks.clear()
    assert [x["n"] for x in _language.look_at_all(model, PAIRS, DPO, "dpo", end=True)] == [1, 1, 2]
    assert [json.loads(line)[1]["n"] for line in file.read_text().splitlines() if line.endswith("}]")] == [1, 1, 2]
    looks.clear()
    with pytest.raises(KeyboardInterrupt):  # nothing of another loss is taken
        _language.look_at_all(model, PAIRS, DPO, "simpo", end=True)


def test_the_command_line(command, elsewhere, tmp_path):
    lines = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in PAIRS]
    lines[0]["prompt"] = [{"role": "user", "content": "Hm?"}]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, found, out, _ = command(
        EXPERIMENT, "--pairs", path, "--model", "tiny", "--template", "{prompt}:", "--loss", "simpo", "--loss-steps", 0
    )
    said = found["user"]
    assert status == 0 and said["model"] == "tiny" and said["loss"] == "simpo"
    assert sorted(pair["id"] for pair in said["pairs"]) == [1, 2, 3]
    hurts = [pair["hurt"] for pair in said["pairs"]]
    assert hurts == sorted(hurts, reverse=True)
    for pair in said["pairs"]:
        assert pair["cosine"] == pytest.approx(pair["inner"] / (pair["norm_chosen"] * pair["norm_rejected"]), rel=1e-4)
        predicted = max(-pair["predicted_chosen"], pair["predicted_rejected"])
        assert pair["hurt"] == pytest.approx(predicted * said["learning_rate"] / pair["learning_rate"], rel=1e-4)
        assert pair["batch_predicted_chosen"] is None and len(pair["inner_by_part"]["attention"]) == 2
    assert set(said["stand_ins"]) == {
        "CHES", "length-normalised CHES", "last layer alone", "toy trained on the pairs"
    }  # fmt: skip
    assert "Cheaper than a gradient" in out and len(list(elsewhere.glob("*.jsonl"))) == 1
    assert (tmp_path / "out/entanglement/user.png").is_file()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--pairs", "example", "--model", "none.gguf"], "must be smollm2, tiny, or a GGUF file"),
        (["--model", "tiny"], "pairs, gradients: give one of them"),
        (["--gradients", __file__, "--model", "tiny"], "model needs pairs, and template a model"),
        (["--pairs", "example", "--template", "{prompt}"], "model needs pairs, and template a model"),
        (["--pairs", "example", "--model", "tiny", "--template", "no"], "must contain {prompt}"),
    ],
)
def test_what_is_refused(command, argv, said):
    status, found, _, err = command(EXPERIMENT, *argv)
    assert (status, found, err.count("\n")) == (2, None, 1) and said in err


def test_a_prompt_is_rendered_from_its_messages(tmp_path):
    path = tmp_path / "p.jsonl"
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    path.write_text(json.dumps({"prompt": asked, "chosen": "a", "rejected": "b"}) + "\n")
    assert read_pairs(path, repr)[0].prompt == "[('system', 's'), ('user', 'u')]"
    assert read_pairs(path)[0].prompt == "system: s\nuser: u"
