"""Toy C, sequences: one chosen token, rejected tokens in contexts of their own, one kernel between any two contexts.

Contexts: that of the chosen token, those of the rejected tokens, and one that no step trains (held out). A step moves
the logits of every context through the kernel, 1 with itself and ``overlap`` with any other. Token 0 is the likeliest
at the start, token 1 is the chosen, 2, 3 ... are the rejected ones, each in its own context.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.squeezing.setup import Setup
from sandbox.squeezing import kernel_ratio

TOP, CHOSEN, FIRST = 0, 1, 2
RHO = (0.3, 0.5)  # overlaps whose curves are drawn
MOST = 8  # rejected tokens of the phase diagram, which has two tokens more than the toy


def start(tokens: int, negatives: int) -> tuple[Array, Array]:
    """Logits (contexts, tokens), the same everywhere, and the one-hot targets of all contexts but the held-out one."""
    logits = jnp.zeros((negatives + 2, tokens)).at[:, TOP].set(4.0).at[:, CHOSEN].set(1.0)
    named = jax.nn.one_hot(jnp.concatenate([jnp.array([CHOSEN]), FIRST + jnp.arange(negatives)]), tokens)
    return logits, jnp.concatenate([named, jnp.zeros((1, tokens))])


def run(
    overlap: Any,
    negatives: Any,
    sft_steps: Any,
    extend: Any,
    *,
    tokens: int,
    most: int,
    longest: int,
    steps: int,
    rate: float,
    beta: float,
) -> dict[str, Array]:
    """Fine-tuning on the chosen token (``extend``: and on the rejected), then DPO; each array (steps + 1, ...).

    Static: the numbers of tokens, of contexts, of steps. ``negatives`` <= most, ``sft_steps`` <= longest.
    """
    logits, named = start(tokens, most)
    rejected = FIRST + jnp.arange(most)
    kernel = overlap + (1 - overlap) * jnp.eye(most + 2)
    is_rejected = (jnp.arange(most + 2) > 0) & (jnp.arange(most + 2) <= negatives)
    weight = is_rejected.astype(logits.dtype)
    sign = jnp.zeros(most + 2).at[0].set(1.0) - weight
    trained = jnp.where(is_rejected, extend, 0.0).at[0].set(1.0)

    def residuals(z: Array) -> Array:
        return named - jax.nn.softmax(z)

    def fine_tune(z: Array, step: Array) -> tuple[Array, None]:
        moved = z + rate * kernel @ (trained[:, None] * residuals(z))
        return jnp.where(step < sft_steps, moved, z), None

    z, _ = lax.scan(fine_tune, logits, jnp.arange(longest))
    reference = jax.nn.log_softmax(z)

    def look(z: Array) -> dict[str, Array]:
        log_p = jax.nn.log_softmax(z)
        of_named = jnp.sum(named * log_p, axis=1)
        since = of_named - jnp.sum(named * reference, axis=1)
        p = jnp.exp(log_p)
        ratios = jax.vmap(lambda q, l: kernel_ratio(p[0], CHOSEN, q, l, overlap))(p[1:-1], rejected)
        return {
            "chosen": of_named[0],
            "rejected": weight @ of_named / jnp.sum(weight),
            "top": weight @ log_p[:, TOP] / jnp.sum(weight),
            "held_out": log_p[-1, TOP],
            "margin": beta * (sign @ since),
            "ratio": weight[1:-1] @ ratios,
        }

    def dpo(z: Array, _: None) -> tuple[Array, dict[str, Array]]:
        weight = beta * jax.nn.sigmoid(-look(z)["margin"])
        z = z + rate * weight * kernel @ (sign[:, None] * residuals(z))
        return z, look(z)

    _, history = lax.scan(dpo, z, None, length=steps)
    return jax.tree.map(lambda first, later: jnp.concatenate([first[None], later]), look(z), history)


def sequence(setup: Setup, key: Array) -> dict[str, Array]:
    """Curves at both overlaps without and with fine-tuning on the rejected (overlap, mend, steps + 1), by name."""
    del key
    sizes = dict(tokens=setup.tokens, most=setup.negatives, longest=setup.sft_steps, steps=setup.steps)
    numbers: dict[str, Any] = dict(**sizes, rate=setup.rate, beta=setup.beta)

    def one(overlap: Any, extend: Any) -> dict[str, Array]:
        return run(overlap, setup.negatives, setup.sft_steps, extend, **numbers)

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(jnp.asarray(RHO), jnp.array([0.0, 1.0]))


def first_above_one(ratio: Array) -> Array:
    """The first step at which Q exceeds 1; -1 if none does."""
    above = ratio > 1
    return jnp.where(jnp.any(above), jnp.argmax(above), -1)


def turns(setup: Setup, key: Array) -> dict[str, Array]:
    """Over overlaps x numbers of rejected tokens, and x steps of fine-tuning: change of the chosen, and when Q > 1.

    ``best`` is the step at which the chosen is likeliest.
    """
    del key
    overlap = jnp.linspace(0, 0.9, setup.overlaps)
    numbers: dict[str, Any] = dict(steps=setup.steps, rate=setup.rate, beta=setup.beta)

    def summary(history: dict[str, Array]) -> dict[str, Array]:
        chosen = history["chosen"]
        return {
            "change": chosen[-1] - chosen[0],
            "turn": first_above_one(history["ratio"]),
            "best": jnp.argmax(chosen),
            "first_ratio": history["ratio"][0],
        }

    def by_count(rho: Array) -> Any:
        return jax.vmap(lambda n: summary(run(rho, n, setup.sft_steps, 0.0, tokens=setup.tokens + 2, most=MOST,
                                              longest=setup.sft_steps, **numbers)))(1 + jnp.arange(MOST))  # fmt: skip

    lengths = jnp.unique(jnp.linspace(1, setup.longest_sft, 14).astype(int), size=14, fill_value=setup.longest_sft)

    def by_sft(rho: Array) -> Any:
        return jax.vmap(lambda n: summary(run(rho, setup.negatives, n, 0.0, tokens=setup.tokens, most=setup.negatives,
                                              longest=setup.longest_sft, **numbers)))(lengths)  # fmt: skip

    counted, tuned = (jax.lax.map(f, overlap, batch_size=16) for f in (by_count, by_sft))
    found = {f"{name}_by_count": x for name, x in counted.items()} | {f"{name}_by_sft": x for name, x in tuned.items()}
    return {"overlap": overlap, "sft": lengths, **found}
