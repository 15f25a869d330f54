"""What is simulated: each stage a pure function of the setup and a key, compiled as a whole."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import log_softmax, sigmoid, softmax
from jax.scipy.stats import norm

from experiments.h_calibration._digits import digits
from experiments.h_calibration.setup import Setup
from sandbox import calibration
from sandbox.calibration import HLoss, Mixture, Piecewise, Recalibrator, Temperature
from sandbox.dynamics import train

# -- the noise of a window ---------------------------------------------------------------------------------------------

WINDOWS = (51, 101, 201, 401, 801, 1601)  # events
TAIL = 0.08  # a gap that few windows of 201 exceed
BINS = (5, 15, 50)


def noise(setup: Setup, key: Array) -> dict[str, Array]:
    """Events whose predictions are right: mean |T| over windows, its floor, tails, and plug-in ECE by numbers of bins.

    Predictions are spread evenly over [.1, .9]; windows at the ends, which are shrunk, are left out.
    """
    q = jnp.linspace(0.1, 0.9, setup.events)
    hit = (jax.random.uniform(key, q.shape) < q).astype(q.dtype)
    found, floor = [], []
    for window in WINDOWS:
        whole = slice(window // 2, setup.events - window // 2)
        found.append(jnp.mean(jnp.abs(calibration.window_gaps(q - hit, window)[whole])))
        floor.append(jnp.mean(calibration.noise_floor(q * (1 - q), window)[whole]))
    apart = calibration.window_gaps(q - hit, 201)[100::201][:-1]  # windows that share no event
    rows = setup.events // 100
    several = (jnp.reshape(x[: 100 * rows], (rows, 100)).T for x in (q, hit))  # 100 samples over the whole range
    ece = {f"ece{bins}": _plug_in(bins, *pair) for bins, pair in zip(BINS, [tuple(several)] * 3, strict=True)}
    return {
        "window": jnp.asarray(WINDOWS),
        "loss": jnp.stack(found),
        "floor": jnp.stack(floor),
        "beyond": jnp.mean(jnp.abs(apart) > TAIL),
        "windows": jnp.asarray(apart.size),
        **ece,
    }


def _plug_in(bins: int, q: Array, hit: Array) -> Array:
    """Mean plug-in ECE of the samples (100, rows), its standard error, and what the floors of the bins add up to."""
    edges = calibration.equal_width_edges(bins, q.dtype)

    def of(q: Array, hit: Array) -> Array:
        return calibration.ece(calibration.Top(q, hit, jnp.ones_like(q)), edges)

    found = jax.vmap(of)(q, hit)
    index = calibration.bin_index(q[0], edges)
    mass, variance = calibration.bin_sums(index, jnp.stack([jnp.ones_like(q[0]), q[0] * (1 - q[0])], 1), bins).T
    floors = jnp.where(mass > 0, calibration.noise_floor(variance / jnp.maximum(mass, 1), jnp.maximum(mass, 1)), 0)
    return jnp.stack([jnp.mean(found), jnp.std(found) / 10, mass @ floors / q.shape[1]])


# -- T1: the loss against the temperature, at exact posteriors ---------------------------------------------------------

PRIORS = ((0.25, 0.25, 0.25, 0.25), (0.7, 0.2, 0.07, 0.03), (0.97, 0.01, 0.01, 0.01))
SEPARATION = 2.0  # of the means of the four classes, in standard deviations, from the origin
TWO = (0.127, 0.873)  # prior of the binary example
TWO_SEPARATION = 1.87
SUBSETS = calibration.SUBSETS


def temperatures(setup: Setup) -> np.ndarray:
    """The grid, 1 in the middle."""
    return np.geomspace(1 / 3, 3, setup.temperatures)


def gaussian_classes(key: Array, count: int, prior: Array, separation: float) -> tuple[Array, Array]:
    """Labels, and logits that are exact: x given y is N(separation e_y, I)."""
    label_key, key = jax.random.split(key)
    labels = jax.random.categorical(label_key, jnp.log(prior), shape=(count,))
    x = jax.random.normal(key, (count, prior.size)) + separation * jax.nn.one_hot(labels, prior.size)
    return labels, jnp.log(prior)[None, :] + separation * x


def landscape(setup: Setup, key: Array) -> dict[str, Array]:
    """Losses (prior, subsets, T) of softmax(logits / T), unweighted; the binary example apart."""
    keys = jax.random.split(key, len(PRIORS) + 1)
    grid = jnp.asarray(temperatures(setup))

    def of(key: Array, prior: Array, separation: float) -> Array:
        labels, logits = gaussian_classes(key, setup.samples, prior, separation)

        def at(t: Array) -> Array:
            log_probs = log_softmax(logits / t)
            return jnp.stack([calibration.h_loss(log_probs, labels, window=setup.window, subsets=s) for s in SUBSETS])

        return lax.map(at, grid).T

    four = lax.map(lambda x: of(x[0], x[1], SEPARATION), (keys[:-1], jnp.asarray(PRIORS)))
    return {"temperature": grid, "four": four, "two": of(keys[-1], jnp.asarray(TWO), TWO_SEPARATION)}


# -- the bias of leaving one class out, in the population --------------------------------------------------------------

PHASE_TEMPERATURES = np.geomspace(0.5, 4, 121)
NODES = 401  # of the quadrature over the recalibrated logit


def population_losses(t: Array, prior: Array, separation: Array) -> tuple[Array, Array]:
    """Leave-one-class-out and pooled loss of two Gaussian classes at temperature t, without noise, by quadrature.

    The exact log-odds s of class 1 are N(m + d^2/2, d^2) in class 1 and N(m - d^2/2, d^2) in class 0, m the prior's. Of
    the events predicted sigmoid(a), those of class 1 have s = a t and those of class 0 have s = -a t.
    """
    m = jnp.log(prior / (1 - prior))
    edge = (jnp.abs(m) + separation**2 / 2 + 6 * separation) / t
    a, step = jnp.linspace(-edge, edge, NODES, retstep=True)

    def density(s: Array, y: int) -> Array:
        return norm.pdf(s, m + (2 * y - 1) * separation**2 / 2, separation)

    zero = jnp.abs(density(a * t, 0) * sigmoid(a) - density(-a * t, 0) * sigmoid(-a))
    one = jnp.abs(density(-a * t, 1) * sigmoid(a) - density(a * t, 1) * sigmoid(-a))
    both = prior * density(a * t, 1) + (1 - prior) * density(a * t, 0)
    left_out = jnp.sum(zero + one) / 4
    pooled = jnp.sum(both * jnp.abs(sigmoid(a) - sigmoid(a * t)))
    return left_out * step * t, pooled * step * t


def phases(setup: Setup, key: Array) -> dict[str, Array]:
    """The temperature at which each loss is least, over priors and separations d; and both losses of the example."""
    del key
    prior, separation = jnp.linspace(0.02, 0.5, setup.phases), jnp.linspace(0.3, 4, setup.phases)
    grid = jnp.asarray(PHASE_TEMPERATURES)

    def best(prior: Array, separation: Array) -> Array:
        losses = jax.vmap(lambda t: jnp.stack(population_losses(t, prior, separation)))(grid)
        return grid[jnp.argmin(losses, axis=0)]

    found = lax.map(lambda p: jax.vmap(partial(best, p))(separation), prior)
    example = jax.vmap(lambda t: jnp.stack(population_losses(t, jnp.asarray(TWO[1]), TWO_SEPARATION * jnp.sqrt(2.0))))
    return {
        "prior": prior,
        "separation": separation,
        "left_out": found[..., 0],
        "pooled": found[..., 1],
        "temperature": grid,
        "example": example(grid),
    }


# -- T2: a known miscalibration ----------------------------------------------------------------------------------------

CLASSES, KNOT = 5, 2.0
SLOPES = (0.5, 0.9)  # of the true map h, before and after the knot
STRETCH = np.linspace(0, 10, 101)  # nats, where a learned map is looked at
FITS: dict[str, tuple[Recalibrator, str]] = {
    "TS, NLL": (Temperature(), "nll"),
    "TS, pooled": (Temperature(), "pooled"),
    "piecewise, NLL": (Piecewise(), "nll"),
    "piecewise, pooled": (Piecewise(), "pooled"),
    "piecewise, leave one out": (Piecewise(), "leave_one_class_out"),
    "piecewise, classwise": (Piecewise(), "classwise"),
}


def known_map(z: Array) -> Array:
    """h(z) = .5 min(z, 2) + .9 max(z - 2, 0): the true law is softmax(-h(-log p))."""
    return SLOPES[0] * jnp.minimum(z, KNOT) + SLOPES[1] * jnp.maximum(z - KNOT, 0)


def known_miscalibration(key: Array, count: int, spread: float) -> tuple[Array, Array, Array]:
    """Predicted log-probabilities, true probabilities, labels."""
    logits_key, key = jax.random.split(key)
    log_probs = log_softmax(spread * jax.random.normal(logits_key, (count, CLASSES)))
    truth = -known_map(-log_probs)
    return log_probs, softmax(truth), jax.random.categorical(key, truth)


def objective_of(name: str, window: int) -> Any:
    """``nll``, or the h-calibration loss of those subsets."""
    return calibration.nll if name == "nll" else HLoss(window=window, subsets=name)


def recovery(setup: Setup, key: Array) -> dict[str, Array]:
    """Maps fitted to a known miscalibration, for each seed: canonical error, NLL, slopes; windows before and after."""

    def of(seed: Array) -> dict[str, Array]:
        keys = jax.random.split(jax.random.fold_in(key, seed))
        log_probs, _, labels = known_miscalibration(keys[0], setup.calibration, setup.spread)
        test, truth, test_labels = known_miscalibration(keys[1], setup.test, setup.spread)
        errors, scores, curves, gaps = [_error(test, truth)], [calibration.nll(test, test_labels)], [], []
        for recalibrator, name in FITS.values():
            objective = objective_of(name, setup.fit_window)

            def loss(params: Any, log_probs: Array, labels: Array, m: Any = recalibrator, f: Any = objective) -> Array:
                return f(m.apply(params, log_probs), labels)

            if name == "nll" and isinstance(recalibrator, Temperature):
                params = {"inverse": 1 / calibration.fit_temperature(log_probs, labels)}
            else:
                start = recalibrator.init(keys[0], log_probs)
                params = train(loss, start, (log_probs, labels), steps=setup.steps, optimizer=_adam,
                               learning_rate=setup.learning_rate).params  # fmt: skip
            found = recalibrator.apply(params, test)
            errors.append(_error(found, truth))
            scores.append(calibration.nll(found, test_labels))
            slopes = params["slopes"] if "slopes" in params else params["inverse"] * jnp.ones(11)
            curves.append(calibration.piecewise(jnp.asarray(STRETCH), jnp.abs(slopes), 1.0))
        for predicted in (test, found):  # the last: class-wise windows
            ordered = calibration.events(predicted, test_labels)
            some = jnp.linspace(0, ordered.p.shape[1] - 1, 400).astype(int)
            gap = calibration.window_gaps(ordered.gap[0], setup.window)
            gaps.append(jnp.stack([ordered.p[0, some], gap[some]]))
        scores.append(calibration.nll(jnp.log(truth), test_labels))
        return {"error": jnp.stack(errors), "nll": jnp.stack(scores), "curve": jnp.stack(curves),
                "windows": jnp.stack(gaps)}  # fmt: skip

    found = lax.map(of, jnp.arange(setup.seeds))
    few = known_miscalibration(key, 200, setup.spread)
    return {**found, "windows": found["windows"][0], "log_probs": few[0], "truth": few[1]}


def _adam(learning_rate: Any) -> Any:
    import optax

    return optax.adam(learning_rate)


def _error(log_probs: Array, truth: Array) -> Array:
    """Canonical L1 error, the mean of sum_k |p_k - q_k|."""
    return jnp.mean(jnp.sum(jnp.abs(jnp.exp(log_probs) - truth), axis=1))


# -- maps and order ----------------------------------------------------------------------------------------------------

KINDS: tuple[Recalibrator, ...] = (Temperature(), Mixture(8), Piecewise(10, 10.0))
RELEASED = ((0.8, 1.0, 0.6), (1.0, 0.5, 1.0))  # slopes of the two failures, knots at multiples of 10
TRIALS = 200


def order(setup: Setup, key: Array) -> dict[str, Array]:
    """Random maps on random predictions: how often the class order stays; the released map's failures, drawn out."""
    keys = jax.random.split(key, 3)
    log_probs = log_softmax(3 * jax.random.normal(keys[0], (TRIALS, CLASSES)))
    before = jnp.argsort(log_probs, axis=1)

    def kept(recalibrator: Recalibrator) -> Array:
        start = recalibrator.init(keys[1], log_probs)
        noisy = jax.tree.map(lambda x: x * jnp.exp(0.5 * jax.random.normal(keys[2], x.shape)), start)
        return jnp.all(jnp.argsort(recalibrator.apply(noisy, log_probs), axis=1) == before, axis=1)

    z = jnp.linspace(0, 20, 401)[:-1]
    slopes = jnp.asarray(RELEASED)
    released = jax.vmap(lambda s: jnp.where(z < 10, *(calibration.released_piecewise(z, s, 10.0, k) for k in (0, 1))))
    mended = jax.vmap(lambda s: calibration.piecewise(z, s, 10.0))
    random = jnp.exp(0.3 * jax.random.normal(keys[2], (TRIALS, 3)))
    ends = (9.99, 0), (10.0, 1)
    values = (jax.vmap(lambda s, z=z, k=k: calibration.released_piecewise(z, s, 10.0, k))(random) for z, k in ends)
    return {"kept": jnp.stack([kept(m) for m in KINDS]), "z": z, "released": released(slopes), "mended": mended(slopes),
            "random_slopes": random, "knot": jnp.stack(list(values), axis=1)}  # fmt: skip


# -- T3: digits --------------------------------------------------------------------------------------------------------


def sharpened_digits(setup: Setup, key: Array) -> dict[str, Array]:
    """Logits of a classifier of handwritten digits, far too sharp: one half fits, the other judges.

    Rows: as it is, temperature, piecewise under NLL, piecewise under class-wise windows. Columns: NLL, Brier, ECE of 15
    bins, accuracy.
    """
    del key
    logits, labels = (jnp.asarray(x) for x in digits())
    log_probs = log_softmax(logits)
    half = labels.size // 2
    fit, judge = (log_probs[:half], labels[:half]), (log_probs[half:], labels[half:])
    found = [judge[0], log_softmax(judge[0] / calibration.fit_temperature(*fit))]
    recalibrator = Piecewise(10, 20.0)
    for objective in (calibration.nll, HLoss(window=101, subsets="classwise")):

        def loss(params: Any, log_probs: Array, labels: Array, f: Any = objective) -> Array:
            return f(recalibrator.apply(params, log_probs), labels)

        params = train(loss, recalibrator.init(jax.random.key(0), fit[0]), fit, steps=setup.steps, optimizer=_adam,
                       learning_rate=setup.learning_rate).params  # fmt: skip
        found.append(recalibrator.apply(params, judge[0]))
    edges = calibration.equal_width_edges(15, log_probs.dtype)

    def row(predicted: Array) -> Array:
        top = calibration.top_label(predicted, judge[1], jnp.ones(judge[1].size, predicted.dtype))
        scores = calibration.nll(predicted, judge[1]), calibration.brier(predicted, judge[1])
        return jnp.stack([*scores, calibration.ece(top, edges), jnp.mean(top.acc)])

    return {"scores": jnp.stack([row(x) for x in found])}


STAGES = {
    "noise": noise,
    "landscape": landscape,
    "phases": phases,
    "recovery": recovery,
    "order": order,
    "digits": sharpened_digits,
}
