"""Recalibrators: order, continuity, identity at the start; fits against SciPy and by hand; files."""

from __future__ import annotations

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.nn import log_softmax
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax as log_softmax_numpy

from sandbox import calibration
from sandbox.calibration import (
    MAPS,
    HLoss,
    Isotonic,
    MonotoneNetwork,
    Piecewise,
    Temperature,
    brier,
    fit,
    fit_temperature,
    nll,
)
from sandbox.runtime import quickly_compiled
from tests.tolerances import Tolerance, assert_close, golden

X64 = jax.config.jax_enable_x64
WIDTH = np.float64 if X64 else np.float32
KEY = jax.random.key(0)
ORDERLY = [kind() for kind in MAPS.values() if kind.keeps_order]
ALL = [kind() for kind in MAPS.values()]
CLASSES = 4
APPLY = {
    m.name: jax.jit(lambda p, z, m=m: m.apply(p, log_softmax(z)), compiler_options=quickly_compiled(0)) for m in ALL
}
PIECEWISE = jax.jit(calibration.piecewise, compiler_options=quickly_compiled(0))
SOME = np.random.default_rng(3).normal(size=(8, CLASSES)) * 2
STARTS = {m.name: m.init(KEY, log_softmax(jnp.asarray(SOME, jnp.result_type(float)))) for m in ALL}


def sample(n=400, classes=3, sharp=1.7, seed=0):
    """Logits that are ``sharp`` times too large for their labels."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, classes))
    law = np.exp(log_softmax_numpy(z / sharp, axis=1))
    return z, (law.cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)


LOGITS, LABELS = sample()


def shifted(params, amounts):
    """Parameters away from the start, still finite: each times e^amount."""
    leaves, tree = jax.tree.flatten({k: v for k, v in params.items() if k != "frame"})
    changes = [(np.exp(a), 0 if np.all(np.asarray(x) > 0) else 0.3 * a) for x, a in zip(leaves, amounts, strict=False)]
    moved = [np.asarray(x) * by + more for x, (by, more) in zip(leaves, changes, strict=True)]
    return {**jax.tree.unflatten(tree, moved), **({"frame": params["frame"]} if "frame" in params else {})}


@pytest.mark.parametrize("recalibrator", ORDERLY, ids=lambda m: m.name)
@given(data=st.data())
def test_order_is_kept(recalibrator, data):
    """Any parameters, any logits with gaps that survive rounding: every pair of classes stays in its order."""
    gaps = data.draw(st.lists(st.floats(0.05, 3), min_size=CLASSES - 1, max_size=CLASSES - 1))
    amounts = data.draw(st.lists(st.floats(-1, 1), min_size=8, max_size=8))
    levels = np.concatenate([[0.0], np.cumsum(gaps)])
    z = np.tile(levels[np.array([2, 0, 3, 1])], (8, 1))
    params = shifted(STARTS[recalibrator.name], amounts)
    found = np.asarray(APPLY[recalibrator.name](params, z.astype(WIDTH)))
    assert np.array_equal(np.argsort(found, axis=1), np.argsort(z, axis=1))
    assert_close(np.exp(found).sum(axis=1), 1.0)


def test_order_may_change_where_it_is_not_promised():
    moved = {"scale": jnp.ones(CLASSES), "shift": jnp.array([0.0, 0, 0, 9])}
    found = calibration.VectorScaling().apply(moved, log_softmax(jnp.asarray(SOME)))
    assert np.any(np.argmax(found, axis=1) != SOME.argmax(axis=1))


@pytest.mark.parametrize("recalibrator", [m for m in ALL if m.name != "mixture"], ids=lambda m: m.name)
def test_start_changes_nothing(recalibrator):
    before = log_softmax(jnp.asarray(SOME, jnp.result_type(float)))
    assert_close(APPLY[recalibrator.name](STARTS[recalibrator.name], before), before)


@given(slopes=st.lists(st.floats(0, 4), min_size=4, max_size=4), z=st.floats(0, 12), step=st.floats(0, 3))
def test_piecewise_map_is_monotone_and_continuous(slopes, z, step):
    s = np.array(slopes)

    def h(x):
        return float(np.interp(x, [0, 2, 4, 6, 100], np.cumsum([0, 2 * s[0], 2 * s[1], 2 * s[2], 94 * s[3]])))

    ours = np.asarray(PIECEWISE(np.array([z, z + step], WIDTH), s.astype(WIDTH), 2.0))
    assert_close(ours, [h(z), h(z + step)], Tolerance(1e-5, 1e-4, "sums of slopes times nats, in float32"))
    assert ours[1] - ours[0] >= -1e-4 and ours[1] - ours[0] <= 4 * step + 1e-4


def test_piecewise_map_applied_is_the_sum_of_hinges():
    slopes = jnp.asarray([0.5, 2.0, 0.0, 1.3, 0.7], jnp.result_type(float))
    before = log_softmax(jnp.asarray(SOME * 3, slopes.dtype))
    found = Piecewise(4, 8.0).apply({"slopes": slopes}, before)
    assert_close(found, log_softmax(-calibration.piecewise(-before, slopes, 2.0)))


@pytest.mark.parametrize(
    ("slopes", "values"), [((0.8, 1, 0.6), (9.99, 9.20)), ((1, 0.5, 1), (4.995, 10.0))], ids=["falls", "jumps"]
)
def test_released_map_fails_at_its_knots(slopes, values):
    found = [calibration.released_piecewise(z, slopes, 10.0, k) for k, z in enumerate((9.99, 10.0))]
    assert_close(found, values)
    mended = [calibration.piecewise(jnp.asarray(z), jnp.asarray(slopes), 10.0) for z in (9.99, 10.0)]
    assert 0 < mended[1] - mended[0] < 0.0101


# -- fits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharp", [0.3, 1.0, 1.7, 6.0])
def test_temperature_is_scipys(sharp):
    z, y = sample(sharp=sharp)

    def loss(t):
        return -log_softmax_numpy(z / t, axis=1)[np.arange(len(y)), y].mean()

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    assert_close(fit_temperature(z, y), best, Tolerance(1e-6 if X64 else 1e-4, 0, "where the search stops; float32"))


def test_float32_gives_the_same_temperature_and_its_own_precision():
    for z, y in (sample(), sample(3000, 10, 2.5)):
        narrow = fit_temperature(jnp.asarray(z, jnp.float32), y)
        assert narrow.dtype == jnp.float32
        assert_close(narrow, fit_temperature(z, y), Tolerance(1e-4, 0, "float32 against float64"))
        assert abs(narrow - 1) > 0.2, "fitted, not left at 1"


def test_many_temperatures_at_once():
    every = [sample(seed=k) for k in range(3)]
    z, y = (jnp.stack([jnp.asarray(x[i]) for x in every]) for i in (0, 1))
    found = jax.jit(jax.vmap(fit_temperature))(z, y)
    assert_close(found, [fit_temperature(*x) for x in every], golden())


@pytest.mark.parametrize("objective", [nll, brier, HLoss(window=101), HLoss(window=101, subsets="classwise")],
                         ids=["nll", "brier", "pooled", "classwise"])  # fmt: skip
def test_objectives_agree_on_a_temperature(objective):
    """All are least near the temperature that the labels were drawn with, whatever the optimiser."""
    z, y = sample(2000, sharp=1.7)
    fitted = fit(Temperature(), z, y, objective, key=KEY, steps=150, learning_rate=0.02)
    assert_close(1 / fitted.params["inverse"], 1.7, Tolerance(0, 0.2, "2000 labels: .05 a standard error, and noise"))
    assert fitted.after < fitted.before


def test_every_map_is_fitted_by_one_interface():
    """Each lowers its objective; a richer map does not end above a temperature by more than the optimiser leaves."""
    best = fit(Temperature(), LOGITS, LABELS, key=KEY).after
    for recalibrator in ALL:
        fitted = fit(
            recalibrator, LOGITS, LABELS, brier if recalibrator.name == "isotonic" else nll, key=KEY, steps=200
        )
        assert np.isfinite(fitted.after) and fitted.after < fitted.before, recalibrator.name
        probs = np.exp(fitted(LOGITS))
        assert_close(probs.sum(axis=1), 1.0)
        if recalibrator.name not in ("isotonic", "temperature"):
            assert fitted.after < best + 0.005, recalibrator.name
        if recalibrator.keeps_order:
            assert np.array_equal(probs.argmax(axis=1), LOGITS.argmax(axis=1))


def test_isotonic_by_hand():
    """Pool adjacent violators: .2 .4 .6 .8 with hits 0 1 0 1 give 0, 1/2, 1/2, 1, kept half a count from the ends."""
    p = np.array([0.2, 0.4, 0.6, 0.8])
    log_probs = np.log(np.stack([1 - p, p], axis=1))
    params = Isotonic().solve(log_probs, np.array([0, 1, 0, 1]))
    assert_close(jnp.interp(jnp.asarray(p), params["knots"][1], params["values"][1]), [0.125, 0.5, 0.5, 0.875])


def test_fits_compile_once():
    from sandbox import dynamics

    z, y = sample(seed=5)
    before = dynamics._train._cache_size()
    for rate in (0.01, 0.02, 0.03):
        fit(Piecewise(3, 6.0), z, y, HLoss(window=21), key=KEY, steps=3, learning_rate=rate)
    assert dynamics._train._cache_size() == before + 1


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ([[0.0, 1.0]], [[1]], "shapes"),
        ([[0.0], [1.0]], [0, 0], "C >= 2"),
        ([[0.0, np.nan], [1.0, 0.0]], [0, 1], r"logits\[0, 1\] = nan"),
        ([[0.0, 1.0], [1.0, 0.0]], [0, 2], r"labels\[1\] = 2: must be from 0 to 1"),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 1], "all are 1"),
        ([[0.0, 1.0], [1.0, 0.0]], [0.0, 1.0], "must be whole numbers"),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 0], "no maximum at a finite temperature"),
        ([[0.0, 1.0], [1.0, 0.0]], [0, 1], "no maximum at a finite temperature"),
    ],
)
def test_bad_data_are_named_and_never_silently_unfitted(logits, labels, words):
    with pytest.raises(ValueError, match=words):
        fit(Temperature(), np.array(logits), np.array(labels), key=KEY)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.int32])
def test_what_is_stored_in_half_precision_or_whole_numbers_is_fitted_in_float32(dtype):
    stored = np.round(LOGITS).astype(dtype)  # no rounding enters, but that of the computation
    for objective in (nll, HLoss(window=21)):
        fitted = fit(Piecewise(3, 6.0), stored, LABELS, objective, key=KEY, steps=5)
        wide = fit(Piecewise(3, 6.0), np.round(LOGITS).astype(np.float32), LABELS, objective, key=KEY, steps=5)
        assert fitted.params["slopes"].dtype == jnp.float32
        assert np.array_equal(fitted.params["slopes"], wide.params["slopes"])
    assert calibration.metrics(stored, LABELS)["KDE_ECE"].dtype == jnp.float32


def test_isotonic_refuses_other_objectives():
    with pytest.raises(ValueError, match="must be nll or brier"):
        fit(Isotonic(), LOGITS, LABELS, HLoss(), key=KEY)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recalibrator", [MonotoneNetwork(3), Piecewise(3, 6.0), Isotonic()], ids=lambda m: m.name)
def test_a_saved_map_says_the_same(recalibrator, tmp_path):
    fitted = fit(recalibrator, LOGITS, LABELS, key=KEY, steps=5)
    calibration.save(tmp_path / "map.npz", fitted)
    again = calibration.load(tmp_path / "map.npz")
    assert again.map == recalibrator and dataclasses.asdict(again.map) == dataclasses.asdict(recalibrator)
    assert np.array_equal(again(LOGITS), fitted(LOGITS))


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.ones(2))
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match="no recalibrator"):
            calibration.load(tmp_path / name)
    for about, words in (
        ('{"map": "magic", "options": {}}', "map = 'magic'"),
        ('{"map": "mixture", "options": {"parts": 3}}', "no recalibrator was saved there.*'parts'"),
    ):
        file = io.BytesIO()
        np.savez(file, about=np.array(about))
        file.seek(0)
        with pytest.raises(ValueError, match=words):
            calibration.load(file)
