"""Toy D: a softmax regression on handwritten digits, which ship inside scikit-learn (extra ``data``)."""

from __future__ import annotations

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.squeezing.setup import Setup
from sandbox import squeezing
from sandbox.dynamics import train
from sandbox.measures import entropy

TRAIN, RATE = 500, 0.5  # full-batch steps from zero
STEP = 0.1  # learning rate of the one step on each image
ASCENT, FEW = 50, 50  # steps of ascent on the first images, with wrong labels


def there() -> bool:
    """Is scikit-learn installed?"""
    return find_spec("sklearn") is not None


def data() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 65), pixels from 0 to 1 and a bias, and labels (1797,)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.concatenate([found.data / 16, np.ones((len(found.data), 1))], axis=1), found.target


def loss(w: Array, x: Array, y: Array) -> Array:
    """Mean cross-entropy of logits x w^T."""
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x @ w.T), axis=1))


def rise(w: Array, x: Array, y: Array) -> Array:
    """The gradient whose descent pushes the labels y down."""
    return -jax.grad(loss)(w, x, y)


def digits(setup: Setup, key: Array) -> dict[str, Array]:
    """Who is mistaken for whom, one negative step an image, and many on wrong labels; empty without the data.

    One step: on each image's least likely class, and on its likeliest; the impulse is .1 |x|^2.
    """
    del key
    if not (setup.digits and there()):
        return {"present": jnp.zeros((), bool)}
    images, labels = data()
    x = jax.lax.optimization_barrier(jnp.asarray(images, jnp.result_type(float)))
    truth = jax.nn.one_hot(labels, 10, dtype=x.dtype)
    w = train(loss, jnp.zeros((10, x.shape[1]), x.dtype), (x, truth), steps=TRAIN, learning_rate=RATE).params
    z = x @ w.T
    p = jax.nn.softmax(z)
    impulse = STEP * jnp.sum(x**2, axis=1)
    rare = jnp.argmin(z, axis=1)
    of_rare, of_top = (squeezing.squeeze(z, l, impulse) for l in (rare, jnp.argmax(z, axis=1)))
    after = jax.nn.log_softmax(jax.vmap(squeezing.push_down)(z, rare, impulse))
    wrong = jax.nn.one_hot((labels[:FEW] + 5) % 10, 10, dtype=x.dtype)
    ruined = train(None, w, (x[:FEW], wrong), gradient=rise, steps=ASCENT, learning_rate=RATE).params
    many = jax.nn.softmax(x @ ruined.T)

    def share(which: Array) -> Array:
        return jnp.mean(which.astype(x.dtype))

    confusion = truth.T @ p / jnp.sum(truth, axis=0)[:, None]
    # influence of a step on class j's images on what class i's are called: first order, mean over pairs of images
    mean = truth.T @ x / jnp.sum(truth, axis=0)[:, None]
    return {
        "present": jnp.ones((), bool),
        "accuracy": share(jnp.argmax(z, axis=1) == labels),
        "loss": loss(w, x, truth),
        "confusion": confusion,
        "kernel": mean @ mean.T,
        "impulse": jnp.mean(impulse),
        "only_top": share(jnp.sum(of_rare.rises, axis=1) == 1),
        "risers_of_top": jnp.mean(jnp.sum(of_top.rises, axis=1)),
        "confidence": jnp.stack([jnp.mean(jnp.max(law, axis=1)) for law in (p, jnp.exp(after), many)]),
        "entropy": jnp.stack([jnp.mean(entropy(jax.nn.log_softmax(z))), jnp.mean(entropy(after))]),
        "ruined_accuracy": share(jnp.argmax(many, axis=1) == labels),
    }
