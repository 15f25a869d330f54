"""A user's pairs: the diagnosis against references and against steps that are really taken, and what is refused."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._record import plain
from experiments.entanglement import _diagnosis, user
from experiments.entanglement.__main__ import EXPERIMENT
from experiments.entanglement._data import LENGTHS, LOGPS, lines_with_pairs, loss_named, read_gradients
from experiments.entanglement._diagnosis import diagnose, encode, from_gradients, from_text, response_log_probs
from experiments.entanglement.user import EXAMPLE, User, diagnosis
from sandbox.losses import LOSSES, PairLogProbs
from sandbox.preferences import TextPair, read_pairs, vocabulary
from tests.tolerances import assert_close

X64 = jax.config.jax_enable_x64
FLOAT = jnp.result_type(float)
KEY = jax.random.key(0)
FEW = [
    TextPair("Is it warm?", "Yes", "No"),
    TextPair("", "A good day.", "A bad day."),
    TextPair("Shall we go?", "Yes we shall, and soon", "Never"),
]


@pytest.fixture
def run(command):
    return partial(command, EXPERIMENT)


@pytest.fixture
def npz(tmp_path):
    def npz(**arrays):
        np.savez(tmp_path / "g.npz", **arrays)
        return tmp_path / "g.npz"

    return npz


@cache
def example(seed=0):
    return diagnosis(User(pairs=Path("example")), jax.random.key(seed))


@cache
def of_few(steps=3, loss="dpo"):
    return from_text(FEW, loss_named(loss), steps, KEY)


def random_gradients(n=50, parameters=4):
    rng = np.random.default_rng(0)
    g_w, g_l = rng.normal(size=(2, n, parameters)).astype(FLOAT)
    logps = [-rng.uniform(2, 40, n) for _ in range(4)]
    return g_w, g_l, PairLogProbs(*(jnp.asarray(x, FLOAT) for x in (*logps, *rng.integers(2, 20, size=(2, n)))))


# -- gradients of one's own model --------------------------------------------------------------------------------------


def test_two_pairs_by_hand(npz):
    """(3, 0), (1, 1): both rise; (1, 0), (2, 1): both fall. With DPO at the reference d_w = d_l = beta / 2 = 0.05."""
    path = npz(chosen=[[3.0, 0.0], [1.0, 0.0]], rejected=[[1.0, 1.0], [2.0, 1.0]])
    record = diagnosis(User(gradients=path), KEY)
    assert record["cases"] == {"undefined": 0, "ideal": 0, "both fall": 1, "both rise": 1}
    # both hurt by 0.05, so rounding decides which comes first
    falls, rises = sorted(record["pairs"], key=lambda pair: -pair["id"])
    for pair, expected in (
        (rises, (3, 2**0.5, 3, 0.5**0.5, 3 / 2**0.5, 0.3, 0.05, 0.05, 1 / 3, 2 / 3)),
        (falls, (1, 5**0.5, 2, 2 / 5**0.5, 1 / 5**0.5, -0.05, -0.15, 0.05, 2, 2.5)),
    ):
        names = ("norm_chosen", "norm_rejected", "inner", "cosine", "kappa", "predicted_chosen", "predicted_rejected")
        assert_close([*(pair[name] for name in names), pair["hurt"], *pair["safe_ratio"]], expected)
        assert pair["measured_chosen"] is pair["measured_rejected"] is None
    assert (rises["case"], falls["case"]) == ("both rise", "both fall")
    # the inner product over the smaller squared norm; over the chosen's in both pairs it would be 1.166667
    smaller = [p["inner"] / min(p["norm_chosen"], p["norm_rejected"]) ** 2 for p in record["pairs"]]
    assert_close(np.mean(smaller), 1.75)
    # the mean step is along ((.1, -.05) + (-.05, -.05)) / 2, and moves all at once
    assert_close([rises["batch_predicted_chosen"], falls["batch_predicted_rejected"]], [0.075, 0.0])


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_predicts_the_step_that_is_taken(name):
    """Log-probabilities linear in theta, where first order is exact: against autodiff of the loss of theta itself."""
    g_w, g_l, pairs = random_gradients()
    loss = loss_named(name)
    found = from_gradients(g_w, g_l, loss, pairs)

    def of_theta(theta, g_w, g_l, pair):
        return loss(pair._replace(chosen=pair.chosen + g_w @ theta, rejected=pair.rejected + g_l @ theta))

    slope = jax.vmap(jax.grad(of_theta), (None, 0, 0, 0))(jnp.zeros(g_w.shape[1], FLOAT), g_w, g_l, pairs)
    taken = jnp.stack([-jnp.sum(g * slope, axis=-1) for g in (jnp.asarray(g_w), jnp.asarray(g_l))], axis=-1)
    unit = jnp.max(jnp.abs(taken)) + 1
    assert_close(found.alone.predicted / unit, taken / unit)
    mean = -jnp.mean(slope, axis=0)
    assert_close(found.batch.predicted / unit, jnp.stack([g_w @ mean, g_l @ mean], axis=-1) / unit)
    assert found.alone.measured is None


@pytest.mark.parametrize("name", LOSSES)
def test_the_case_says_which_way_both_move(name):
    g_w, g_l, pairs = random_gradients(200)
    found = from_gradients(g_w, g_l, loss_named(name), pairs)
    d_w, d_l = found.weights
    columns = diagnose(found.products, d_w, d_l)
    up, down = np.asarray(found.alone.predicted[:, 0] > 0), np.asarray(found.alone.predicted[:, 1] < 0)
    moved = np.select([up & down, ~up & down, up & ~down], [1, 2, 3], 0)
    usual = (np.asarray(d_w) > 0) & (np.asarray(d_l) > 0)
    np.testing.assert_array_equal(columns["case"][usual], moved[usual])
    safe = (columns["safe_low"] < columns["ratio"]) & (columns["ratio"] < columns["safe_high"])
    np.testing.assert_array_equal(safe[usual], (moved == 1)[usual])
    wrong_way = diagnose(found.products, jnp.array([1.0, -1, -1, 0] * 50), jnp.array([-1.0, 1, -1, 1] * 50))
    assert (wrong_way["case"] == 0).all()


def test_half_precision_gradients_do_not_overflow():
    g = np.full((1, 4), 300, np.float16)  # its square is infinite in float16
    found = from_gradients(g, -g, loss_named("dpo"), random_gradients(1)[2])
    assert_close(found.products.norm_chosen, 600)


@pytest.mark.parametrize(
    ("loss", "extra", "said"),
    [
        ("simpo", {}, "needs chosen_logp, rejected_logp, chosen_length, rejected_length too"),
        ("rdpo", {}, "needs chosen_length, rejected_length too"),
        ("dpo", {"chosen_logp": [-1.0, -2.0]}, "needs rejected_logp, ref_chosen_logp, ref_rejected_logp too"),
        ("dpo", {"rewards": [1.0, 2.0]}, "unknown: rewards; it must hold chosen and rejected, and may hold"),
        ("dpo", {"chosen": np.ones((3, 2))}, "chosen (3, 2), rejected (2, 2)"),
        ("dpo", {"chosen": np.ones(2), "rejected": np.ones(2)}, "must both be (pairs, parameters)"),
        ("dpo", {"chosen": np.array([[1.0, np.nan], [1, 1]])}, "chosen[0, 1] = nan: must be finite"),
        ("dpo", {"chosen": np.array([[1.0, 1], [0, 0]])}, "largest entry of chosen[1] = 0.0: must be > 0"),
        ("dpo", {"chosen": np.array([[1, "x"], [1, 1]], object)}, "chosen: must be an array of numbers"),
        ("dpo", {"chosen": np.array([["a", "b"]] * 2)}, "chosen (<U1): must be real numbers"),
        ("dpo", {"chosen": np.ones((2, 2)) * 1j}, "chosen (complex128): must be real numbers"),
        ("simpo", {"chosen_length": [3, 0]}, "chosen_length[1] = 0: must be finite and > 0"),
        ("dpo", {"chosen_length": [3]}, "chosen_length has shape (1,): must be (2,), one a pair"),
        ("orpo", dict.fromkeys(LOGPS[:2], (-1, 0.5)) | dict.fromkeys(LENGTHS, (1, 1)), "pair.chosen[1] = 0.5"),
    ],
)  # fmt: skip
def test_gradients_that_are_refused(run, npz, loss, extra, said):
    arrays = {"chosen": np.ones((2, 2)), "rejected": np.ones((2, 2))} | extra
    status, found, out, err = run("--gradients", npz(**arrays), "--loss", loss)
    assert (status, found, out, err.count("\n")) == (2, None, "", 1)
    assert said in err


def test_no_archive_and_no_file(run, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    (tmp_path / "a.txt").write_text("1 2")
    for name in ("a.npy", "a.txt"):
        assert f"{name}: not an .npz file; numpy.savez writes one" in run("--gradients", tmp_path / name)[3]
    np.savez(tmp_path / "one.npz", chosen=np.ones((2, 2)))
    assert "one.npz: no array rejected; it must hold" in run("--gradients", tmp_path / "one.npz")[3]
    torn = bytearray((tmp_path / "one.npz").read_bytes())
    torn[120] ^= 255
    (tmp_path / "torn.npz").write_bytes(torn)
    assert "torn.npz: chosen: " in run("--gradients", tmp_path / "torn.npz")[3]
    assert run("--gradients", tmp_path / "absent.npz")[0] == run("--pairs", tmp_path / "absent.jsonl")[0] == 2


def test_log_probabilities_are_used_where_given(npz):
    arrays = {"chosen": np.eye(2), "rejected": np.eye(2)[::-1]}
    logps = {"chosen_logp": [-1.0, -9], "rejected_logp": [-2.0, -3], "ref_chosen_logp": [-1.0, -4]}
    path = npz(**arrays, **logps, ref_rejected_logp=[-2.0, -3])
    loss = loss_named("dpo", ["beta=0.5"])
    chosen, rejected, pairs = read_gradients(path, loss)
    d_w, d_l = from_gradients(chosen, rejected, loss, pairs).weights
    expected = 0.5 / (1 + np.exp([0, 0.5 * -5]))  # beta sigmoid(-beta h), h = 0 and -5
    assert_close(d_w, expected)
    assert_close(d_l, expected)


# -- pairs of text -----------------------------------------------------------------------------------------------------


def test_neither_padding_nor_chunks_are_seen():
    ids = vocabulary(text for pair in FEW for text in pair)
    batch = encode(FEW, ids)
    policy = _diagnosis.toy(len(ids), batch.tokens.shape[-1])
    params = policy.net.init(KEY)
    padded = batch._replace(tokens=jnp.where(batch.mask, batch.tokens, 1))
    assert not (padded.tokens == batch.tokens).all()
    at_once = response_log_probs(policy._replace(chunk=3), params, batch)
    assert_close(at_once, response_log_probs(policy._replace(chunk=2), params, padded))
    pairs = _diagnosis.as_pairs(at_once, at_once, batch.mask)
    assert pairs.chosen_length.tolist() == [2, 5, 7]  # END counts
    assert pairs.rejected_length.tolist() == [2, 5, 2]
    assert_close(jnp.sum(batch.prompt**2, axis=-1), 1)  # the empty prompt too


def test_shares_of_the_tokens_sum_to_the_inner_product():
    found = of_few()
    assert_close(jnp.sum(found.shares, axis=-1), jnp.stack([found.products.inner] * 2, axis=-1))
    length = [(2, 2), (5, 5), (7, 2)]
    assert all((found.shares[i, k, n:] == 0).all() for i, pair in enumerate(length) for k, n in enumerate(pair))


def test_the_loss_is_trained_from_its_reference():
    start, later = of_few(0), of_few(3)
    assert_close(start.moved, 0)
    assert_close(start.weights, 0.05)  # beta / 2 at h = 0
    margin = later.moved[:, 0] - later.moved[:, 1]
    assert (margin > 0).all()
    assert_close(later.weights[0], 0.1 / (1 + np.exp(0.1 * margin)))
    assert_close(later.log_probs - later.moved, start.log_probs)


def test_what_is_missed_is_of_second_order(monkeypatch):
    """Half the step, a quarter of the gap; 10% for the third order, which is a few per cent of the second here.

    ORPO reads lengths, and its two weights differ.
    """
    gaps = []
    for step in (0.01, 0.005):
        monkeypatch.setattr(_diagnosis, "STEP", step * (1 if X64 else 8))  # below that float32 sees its rounding only
        found = from_text(FEW, loss_named("orpo"), 3, KEY)
        d_w, d_l = found.weights
        n_w, n_l, inner = found.products
        lengths = found.alone.learning_rate * jnp.sqrt((d_w * n_w) ** 2 - 2 * d_w * d_l * inner + (d_l * n_l) ** 2)
        assert_close(jnp.max(lengths), _diagnosis.STEP)
        gaps.append([float(jnp.max(jnp.abs(s.predicted - s.measured))) for s in (found.alone, found.batch)])
    assert min(gaps[1]) > 0
    ratio = np.divide(*gaps)
    assert (np.abs(ratio - 4) < 0.4).all(), ratio


def test_the_example_shows_the_pattern_of_the_paper():
    """A label alone rises; where both labels are followed by the same words the chosen has fallen, and goes on to."""
    pairs = {pair["id"]: pair for pair in example()["pairs"]}
    label, short, long = ([pairs[line] for line in range(first, first + 4)] for first in (1, 5, 9))
    moved = [np.mean([pair["moved_chosen"] for pair in group]) for group in (label, short, long)]
    assert moved[0] > 0 > max(moved[1:])
    assert all(pair["batch_predicted_chosen"] > 0 for pair in label)
    assert all(pair["batch_predicted_chosen"] < 0 for pair in short + long)
    assert example()["cases"]["both fall"] > 0
    assert {pair["case"] for pair in label} == {"ideal"}


def test_sorted_by_what_hurts():
    hurts = [pair["hurt"] for pair in example()["pairs"]]
    assert hurts == sorted(hurts, reverse=True)
    for pair in example()["pairs"]:
        assert pair["hurt"] == max(-pair["predicted_chosen"], pair["predicted_rejected"])
        assert (pair["hurt"] >= 0) == (pair["case"] != "ideal")
    assert sorted(pair["id"] for pair in example()["pairs"]) == list(range(1, 17))
    assert example()["gap"]["share"] < 0.1


def test_tokens_that_contribute():
    for pair in example()["pairs"]:
        for side in ("chosen", "rejected"):
            tokens = pair["tokens"][side]
            assert all(t["token"] in pair[side] or t["token"] == "<|end|>" for t in tokens)
            sizes = [abs(t["inner"]) for t in tokens]
            assert sizes == sorted(sizes, reverse=True)
    worst = example()["pairs"][0]
    assert worst["tokens"]["chosen"][0]["token"] == " sentiment"  # shared, right after the contrast
    assert worst["tokens"]["chosen"][0]["inner"] > 0


def test_same_key_same_numbers():
    again = from_text(FEW, loss_named("dpo"), 3, KEY)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, of_few(3)))
    other = from_text(FEW, loss_named("dpo"), 0, jax.random.key(1))
    assert (other.products.inner != of_few(0).products.inner).all()


# -- the command line --------------------------------------------------------------------------------------------------

KEYS = {
    "id", "norm_chosen", "norm_rejected", "inner", "cosine", "kappa", "case", "predicted_chosen", "predicted_rejected",
    "measured_chosen", "measured_rejected", "batch_predicted_chosen", "batch_measured_rejected", "moved_chosen", "hurt",
    "safe_ratio", "ratio", "d_chosen", "d_rejected",
}  # fmt: skip


def test_the_example_runs(run, tmp_path):
    status, found, out, err = run("--pairs", "example", "--loss_steps", 30)
    assert (status, err) == (0, "")
    said = found["user"]
    assert {key: value for key, value in said.items() if key != "given"} == plain(example())
    assert (said["loss"], said["constants"], said["file"]) == ("dpo", {"beta": 0.1, "reduction": "sum"}, "pairs.jsonl")
    assert len(said["pairs"]) == len(read_pairs(EXAMPLE)) == sum(said["cases"].values()) == 16
    assert all(set(pair) >= KEYS | {"tokens", "chosen", "rejected"} for pair in said["pairs"])
    (drawing,) = found["figures"]
    assert (tmp_path / "out" / "entanglement" / f"{drawing['name']}.png").stat().st_size > 10_000
    lines = out.splitlines()
    rows = [line.split() for line in lines if line.split()[1:2] in (["both"], ["ideal"]) and ":" not in line]
    assert [int(row[0]) for row in rows] == [pair["id"] for pair in said["pairs"]]
    assert max(len(line) for line in lines if "─" in line) <= 100
    assert "knows nothing but this file" in " ".join(out.split())


def test_gradients_are_reported_in_the_same_way(run, npz):
    g_w, g_l, pairs = random_gradients(30)
    lengths = {k: np.asarray(getattr(pairs, k)) for k in ("chosen_length", "rejected_length")}
    logps = {"chosen_logp": np.asarray(pairs.chosen), "rejected_logp": np.asarray(pairs.rejected)}
    path = npz(chosen=g_w, rejected=g_l, **lengths, **logps)
    status, found, out, err = run("--gradients", path, "--loss", "rrhf", "--constants", "lam=0.01")
    assert (status, err) == (0, "")
    assert found["user"]["constants"] == {"lam": 0.01}
    assert all(set(pair) >= KEYS for pair in found["user"]["pairs"])
    assert any(pair["kappa"] == "inf" for pair in found["user"]["pairs"])  # its hinge lets go of the rejected
    assert {pair["measured_chosen"] for pair in found["user"]["pairs"]} == {None}
    assert "The worst 20 of 30 pairs; all are in numbers.json." in out
    assert sorted(pair["id"] for pair in found["user"]["pairs"]) == list(range(30))


GOOD = '{"prompt": "p", "chosen": "yes", "rejected": "no"}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "must be an object"),
        (GOOD.replace("yes", " "), "chosen: empty"),
        (GOOD.replace("yes", "no"), "chosen and rejected are the same"),
        (GOOD.replace("prompt", "promt"), "missing field(s) prompt; unknown field(s) promt"),
        (GOOD.replace('"yes"', "3"), "chosen: must be a string or a list of messages, not a number"),
    ],
)
def test_bad_lines_are_named_and_nothing_is_used(run, tmp_path, line, said):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n{line}\n")
    status, found, out, err = run("--pairs", path)
    assert (status, found, out) == (2, None, "")
    assert "2 bad line(s)" in err
    assert f"line 3: {said}" in err
    assert f"line 5: {said}" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--loss", "simpo"], "pairs, gradients: give one of them"),
        (["--pairs", "example", "--gradients", "example"], "pairs, gradients: give one of them"),
        (["--pairs", "example", "--loss", "ppo"], "loss = 'ppo': must be one of 'dpo', 'rdpo'"),
        (["--pairs", "example", "--constants", "gamma=1"], "'gamma=1' must be name=value, once each of dpo's: beta"),
        (["--pairs", "example", "--constants", "beta"], "'beta' must be name=value"),
        (["--pairs", "example", "--constants", "beta=high"], "'beta=high' must be name=value"),
        (["--pairs", "example", "--constants", "beta=1", "beta=2"], "'beta=2' must be name=value, once"),
        (["--pairs", "example", "--constants", "beta=-1"], "beta = -1.0: must be finite and > 0"),
        (["--pairs", "example", "--constants", "reduction=max"], "reduction = 'max': must be one of 'sum', 'mean'"),
        (["--pairs", "example", "--loss_steps", "-1"], "loss_steps = -1: must be at least 0"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(run, argv, said):
    status, found, out, err = run(*argv)
    assert (status, found, out, err.count("\n")) == (2, None, "", 1)
    assert said in err


def test_ids_are_line_numbers(tmp_path):
    path = tmp_path / "mine.jsonl"
    text = GOOD.replace("yes", "yes\u2028indeed")  # ends a line in Unicode, not in a file of JSON lines
    path.write_text(f"\ufeff\n{GOOD}\n \n{text}\n", encoding="utf-8")
    assert lines_with_pairs(path) == [2, 4]
    assert len(read_pairs(path)) == 2


def test_a_loss_that_runs_away_is_said_so():
    with pytest.raises(ValueError, match="loss_steps = 2: training with this loss left the finite numbers"):
        from_text(FEW, lambda pair: pair.chosen * jnp.nan, 2, KEY)


def test_the_figure_holds_every_kind_of_pair():
    """An infinite kappa, an undefined case and a single pair are drawn without a warning."""
    pairs = [dict(pair) for pair in example()["pairs"][:3]]
    pairs[0] |= {"kappa": float("inf"), "case": "both rise"}
    pairs[1] |= {"kappa": float("nan"), "case": "undefined"}
    for some in (pairs, pairs[1:2]):
        counts = dict.fromkeys(example()["cases"], 0) | {"undefined": 1}
        record = {**example(), "pairs": some, "cases": counts}
        drawn = user.figure(record)
        drawn.canvas.draw()
        assert "1 undefined" in user.caption(record)
        assert user.table(record)
        assert user.details(record)
        user.plt.close(drawn)
