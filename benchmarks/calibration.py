"""Calibration against the tools of today, on this machine, in one process: ratios, medians of alternating blocks.

    python benchmarks/calibration.py [--rounds 5] [--threads 1]

A  ECE of 100,000 x 10 probabilities, 15 bins: netcal, NumPy's bincount; all start from NumPy arrays.
B  one temperature on 100,000 x 10 logits: SciPy's bounded search, netcal, scikit-learn.
C  1,000 temperatures on 1,000 x 10 logits each: netcal, SciPy and scikit-learn (the first ten, scaled).
D  one step of training a piecewise map under the h-calibration loss (8,000 x 10, windows of 201 events): eager PyTorch.
   The loss as released: without one class, clustered by k-means (25 iterations of Lloyd's in both); and pooled.

Labels are drawn at temperature 1.7, so that B and C have a known answer. All data are float32; netcal's fit gets
float64, since on float32 it returns 1, unfitted. JAX has 64-bit integers switched on, with which it sorts. Exit status
1 if an answer differs from a peer's by more than it should.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from a checkout that is not installed

from sandbox import calibration

try:
    import torch
    from netcal.metrics import ECE
    from netcal.scaling import TemperatureScaling
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
except ImportError as error:
    sys.exit(f"benchmarks/calibration.py compares with netcal and PyTorch ({error}): pip install -e '.[peers]'")

ROWS, CLASSES, BINS, TRUE = 100_000, 10, 15, 1.7
MANY, SMALL, SCALED = 1000, 1000, 10
TRAIN, WINDOW, SEGMENTS, WIDTH = 8000, 201, 10, 1.0
LLOYD = 25


def alternating(rounds, functions):
    """Median seconds of each function, their calls in turn, after one call each."""
    quiet = contextlib.ExitStack
    seconds = {name: [] for name in functions}
    answers = {}
    with quiet() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name, f in functions.items():
            answers[name] = f()
        for _ in range(rounds):
            for name, f in functions.items():
                begun = time.perf_counter()
                f()
                seconds[name].append(time.perf_counter() - begun)
    return answers, {name: statistics.median(found) for name, found in seconds.items()}


def data():
    rng = np.random.default_rng(0)
    z = (3 * rng.normal(size=(ROWS, CLASSES))).astype(np.float32)
    law = np.exp(log_softmax(z / TRUE, axis=1))
    labels = (law.cumsum(axis=1) > rng.random((ROWS, 1))).argmax(axis=1)
    return z, np.exp(log_softmax(z, axis=1)).astype(np.float32), labels


# -- ECE ---------------------------------------------------------------------------------------------------------------


@jax.jit
def ece(probs, labels):
    conf, best = calibration.best_class(probs)
    top = calibration.Top(conf, (best == labels).astype(conf.dtype), jnp.ones_like(conf))
    return calibration.ece(top, calibration.equal_width_edges(BINS, conf.dtype))


def numpy_ece(probs, labels):
    conf = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    index = np.clip(np.ceil(conf * BINS).astype(int) - 1, 0, BINS - 1)
    return np.abs(np.bincount(index, right - conf.astype(float), BINS)).sum() / len(conf)


# -- temperatures ------------------------------------------------------------------------------------------------------


def scipy_temperature(z, y):
    def loss(t):
        return -log_softmax(z / t, axis=1)[np.arange(len(y)), y].mean()

    return minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}).x


def netcal_temperature(z, y):
    scaling = TemperatureScaling()
    scaling.fit(np.exp(log_softmax(z.astype(float), axis=1)), y)
    return 1 / float(np.ravel(scaling.temperature)[0])  # it multiplies the logits


class Logits(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its logits."""

    def fit(self, x, y):
        self.classes_ = np.arange(CLASSES)
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


def sklearn_temperature(z, y):
    fitted = CalibratedClassifierCV(FrozenEstimator(Logits().fit(None, None)), method="temperature").fit(z, y)
    inverse = [float(np.ravel(c.calibrators[0].beta_)[0]) for c in fitted.calibrated_classifiers_]
    return 1 / np.mean(inverse)


@jax.jit
def many_temperatures(z, y):
    return jax.lax.map(lambda pair: calibration.fit_temperature(*pair), (z, y), batch_size=10)


# -- a step of training ------------------------------------------------------------------------------------------------


def torch_loss(log_p, labels, left_out):
    """The loss as it is written in eager PyTorch: a sort for each subset, k-means on detached values."""
    p, hit = log_p.exp(), torch.nn.functional.one_hot(labels, CLASSES).to(log_p.dtype)
    losses = []
    for k in range(CLASSES) if left_out else (None,):
        keep = slice(None) if k is None else labels != k
        values, order = torch.sort(p[keep].flatten())
        gap = values - hit[keep].flatten()[order]
        sums = torch.nn.functional.pad(gap, (WINDOW // 2, WINDOW // 2))[None, None]
        over = torch.nn.functional.avg_pool1d(sums, WINDOW, stride=1)[0, 0].abs()
        if not left_out:
            losses.append(over.mean())
            continue
        with torch.no_grad():
            at = ((torch.arange(BINS) + 0.5) * len(values) / BINS).long()
            centres = values[at]
            for _ in range(LLOYD):
                own = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
                count = torch.bincount(own, minlength=BINS)
                total = torch.zeros(BINS).scatter_add(0, own, values)
                centres = torch.where(count > 0, total / count.clamp(min=1), centres)
            own = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
            count = torch.bincount(own, minlength=BINS).clamp(min=1)
        losses.append(torch.zeros(BINS).scatter_add(0, own, over).div(count).mean())
    return torch.stack(losses).mean()


def torch_step(z, y, left_out):
    log_p = torch.log_softmax(torch.tensor(z), dim=1)
    labels, slopes = torch.tensor(y), torch.ones(SEGMENTS + 1, requires_grad=True)
    optimiser = torch.optim.Adam([slopes], lr=0.02)

    def step():
        optimiser.zero_grad()
        s, x = slopes.abs(), -log_p
        segment = (x / WIDTH).floor().clamp(0, SEGMENTS).long()
        start = torch.cat([torch.zeros(1), s[:-1].cumsum(0)]) * WIDTH
        mapped = torch.log_softmax(-(start[segment] + s[segment] * (x - segment * WIDTH)), dim=1)
        loss = torch_loss(mapped, labels, left_out)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def jax_steps(z, y, left_out, steps):
    """A function that runs ``steps`` steps, and the loss at the start."""
    recalibrator = calibration.Piecewise(SEGMENTS, SEGMENTS * WIDTH)
    weighting = {"subsets": "leave_one_class_out", "weighting": "cluster_ace"} if left_out else {}
    objective = calibration.HLoss(WINDOW, **weighting)
    start = float(objective(jax.nn.log_softmax(jnp.asarray(z)), jnp.asarray(y)))

    def run():
        return calibration.fit(recalibrator, z, y, objective, key=jax.random.key(0), steps=steps).after

    return run, start


# -- the table ---------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and the BLAS; JAX takes what it finds")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    jax.config.update("jax_enable_x64", True)
    z, probs, labels = data()
    table = Table("", "milliseconds", "times ours", "answer", title="under load, the ratios are of one run")
    fine = True

    def rows(what, found, unit=1, close=1e-3):
        nonlocal fine
        answers, seconds = found
        ours = next(iter(answers))
        for name, value in answers.items():
            ratio = seconds[name] / seconds[ours]
            table.add_row(f"{what} {name}", f"{1e3 * unit * seconds[name]:.2f}", f"{ratio:.1f}", f"{value:.6f}")
            fine &= abs(value - answers[ours]) <= close

    rows("A", alternating(4 * options.rounds, {
        "this": lambda: float(ece(probs, labels)), "netcal": lambda: float(ECE(BINS).measure(probs, labels)),
        "NumPy bincount": lambda: float(numpy_ece(probs, labels)),
    }), close=1e-5)  # fmt: skip
    rows("B", alternating(options.rounds, {
        "this": lambda: float(calibration.fit_temperature(z, labels)),
        "SciPy bounded": lambda: scipy_temperature(z, labels),
        "netcal": lambda: netcal_temperature(z, labels), "scikit-learn": lambda: sklearn_temperature(z, labels),
    }))  # fmt: skip

    parts, part_labels = z.reshape(-1, SMALL, CLASSES), labels.reshape(-1, SMALL)
    every = np.arange(MANY) % len(parts)
    parts, part_labels = parts[every], part_labels[every]
    peers = ("netcal", netcal_temperature), ("SciPy bounded", scipy_temperature), ("scikit-learn", sklearn_temperature)
    answers, seconds = alternating(options.rounds, {
        "this": lambda: float(np.mean(np.asarray(many_temperatures(parts, part_labels))[:SCALED])),
        **{name: lambda f=f: float(np.mean([f(parts[i], part_labels[i]) for i in range(SCALED)])) for name, f in peers},
    })  # fmt: skip
    scaled = {name: x * (1 if name == "this" else MANY / SCALED) for name, x in seconds.items()}
    rows("C", (answers, scaled))

    z, labels, steps = z[:TRAIN], labels[:TRAIN], 20
    for left_out, words in ((True, "D as released"), (False, "D pooled")):
        run, start = jax_steps(z, labels, left_out, steps)
        peer = torch_step(z, labels, left_out)
        fine &= abs(peer() - start) < 1e-4
        _, seconds = alternating(options.rounds, {"this": run, "eager PyTorch": peer})
        seconds["this"] /= steps
        rows(words, ({"this": start, "eager PyTorch": start}, seconds))
    Console(width=110).print(table)
    unfitted = TemperatureScaling()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        unfitted.fit(probs[:5000], np.asarray(labels[:5000]))
    print(f"netcal on float32: T = {1 / float(np.ravel(unfitted.temperature)[0]):.6f}")
    print(f"this on float32: T = {float(calibration.fit_temperature(z[:5000], labels[:5000])):.6f}, on float64: "
          f"{float(calibration.fit_temperature(z[:5000].astype(float), labels[:5000])):.6f}")  # fmt: skip
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
