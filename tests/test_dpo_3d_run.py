"""The run of the command line: every loss, both optimisers; what is refused; the three D's against the history."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.dpo_3d.__main__ import EXPERIMENT
from experiments.dpo_3d.run import loss_of, one_run
from experiments.dpo_3d.setup import Setup
from experiments.harness import main
from sandbox.losses import LOSSES, PairLogProbs, dpo
from tests.tolerances import assert_close, identity

SHORT = Setup(network_seeds=2, pretrain_steps=40, steps=60, every=5, width=4)
PAIR = PairLogProbs(-2.0, -3.0, -2.5, -2.5, 1.0, 1.0)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_can_be_named(name):
    assert np.isfinite(loss_of(replace(SHORT, loss=name))(PAIR))


def test_the_betas_of_the_setup_are_those_of_the_loss():
    setup = replace(SHORT, loss="flex_dpo", beta_chosen=0.3, beta_rejected=0.7)
    assert_close(loss_of(setup)(PAIR), jnp.log1p(jnp.exp(-(0.3 * 0.5 + 0.7 * 0.5))), identity())
    assert_close(loss_of(replace(SHORT, beta=0.4))(PAIR), dpo(PAIR, beta=0.4), identity())


@pytest.mark.parametrize("setup", [SHORT, replace(SHORT, loss="ipo", optimiser="sgd", learning_rate=0.01)])
def test_the_margin_grows_and_the_numbers_are_those_of_the_history(setup):
    found = one_run(setup, jax.random.key(0))
    start, end = (found["chosen"][:, k] - found["rejected"][:, k] for k in (0, -1))
    assert np.all(end > start)
    moved = [found[side][:, -1] - found[side][:, 0] for side in ("chosen", "rejected")]
    assert_close(found["share"], -moved[1] / (moved[0] - moved[1]), identity())
    assert_close(found["dispersion"], np.log(found["unseen"].max(axis=1) / found["unseen"][:, 0]), identity())
    total = np.exp(found["chosen"]) + np.exp(found["rejected"]) + found["unseen"]
    assert np.all(total < 1 + 1e-6)  # geometric means of the pair over prompts lie below arithmetic ones


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--loss", "dpoo"], "loss = 'dpoo': must be one of"),
        (["--width", "65"], "width = 65: must be in [1, 64]"),
        (["--width", "0"], "width = 0: must be a whole number of at least 1"),
        (["--beta", "0"], "beta = 0"),
        (["--steps", "7"], "steps = 7: must be a multiple of every = 5"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(words, said, tmp_path, capsys):
    assert main(EXPERIMENT, ["--quick", "--out", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("numbers.json"))
