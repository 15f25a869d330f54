"""Pairs in a real language model: the next step of a loss, predicted and measured, and short trainings, one by one.

What is found of a pair is kept in a file of JSON lines as soon as it is known, so that a run that was stopped goes on
where it was. A gradient is as large as the model: two of them and two sets of parameters are in memory at most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments import _programs, _terminal
from sandbox.dynamics import train
from sandbox.language_model import Config, Model, Pair, first_difference, logits, pack, response_states, unembedding
from sandbox.language_model import token_log_probs as _by_token
from sandbox.losses import PairLogProbs, margin_weights
from sandbox.measures import GradientProducts, ches, first_order_changes
from sandbox.policies import Tied, tied_pair_gram
from sandbox.preferences import TextPair
from sandbox.runtime import quickly_compiled
from theory import _ledger

CHANGE = 0.05  # nats: what the longer of the two measured steps changes the log-probability that moves most
SHAPES = 3  # programs are compiled for at most so many shapes of pairs
SMALL = 1_000_000  # parameters: a smaller model runs in no time, whatever the compiler did

Loss = Callable[[PairLogProbs], Any]


# -- what is kept ------------------------------------------------------------------------------------------------------


class Kept:
    """Results by name in a file of JSON lines; each is on the disk as soon as it is put. A torn line is not read."""

    def __init__(self, *made_of: str) -> None:
        own = Path(__file__).read_bytes(), _ledger.fingerprint(("sandbox",)).encode(), *map(str.encode, made_of)
        digest = hashlib.sha256(b"\0".join(own)).hexdigest()[:16]
        self.path = _programs.directory().parent / "pairs" / f"{digest}.jsonl"
        self.found: dict[str, Any] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    name, found = json.loads(line)
                except ValueError:
                    continue
                self.found[name] = found

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """What is kept under a name; where nothing is, what ``make`` returns."""
        if name not in self.found:
            self.found[name] = make()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("\n" * (file.tell() > 0 and not self._whole()) + json.dumps([name, self.found[name]]) + "\n")
        return self.found[name]

    def _whole(self) -> bool:
        with open(self.path, "rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"


# -- pairs as tokens ---------------------------------------------------------------------------------------------------


def packed(model: Model, pairs: Sequence[TextPair], *, end: bool, shapes: int = SHAPES) -> list[Pair]:
    """The pairs, prompts as they are, as tokens in at most so many shapes; ``end``: the end closes each response."""
    close = [model.end] * end
    ids = [[model.encode(p.prompt), *([*model.encode(text), *close] for text in p[1:])] for p in pairs]
    lengths = [len(prompt) + len(chosen) + len(rejected) - 2 for prompt, chosen, rejected in ids]
    groups = np.array_split(np.argsort(lengths, kind="stable"), min(shapes, len(pairs)))
    found: dict[int, Pair] = {}
    for group in groups:
        longest, most = max(lengths[i] for i in group), max(len(text) for i in group for text in ids[i][1:])
        for i in group:
            prompt, chosen, rejected = ids[i]
            room = -(-longest // 8) * 8, -(-most // 4) * 4
            found[int(i)] = pack(prompt, chosen, rejected, *room)
    return [found[i] for i in range(len(pairs))]


def pieces(model: Model, pair: Pair) -> list[list[str]]:
    """The tokens of the two responses as text."""
    return [[model.decode([t]) for t in ids[kept]] for ids, kept in zip(pair.target, pair.mask, strict=True)]


# -- programs ----------------------------------------------------------------------------------------------------------


@cache
def _program(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    options = quickly_compiled(0 if size < SMALL else 1)
    return jax.jit(function, static_argnums=0, compiler_options=options)


def _run(function: Callable[..., Any], model: Model, *args: Any) -> Any:
    """``function(config, params, *args)`` as one program; of a small model it is compiled as cheaply as can be."""
    size = sum(x.size for x in jax.tree.leaves(model.params))
    return _program(function, min(size, SMALL))(model.config, model.params, *args)


# -- one pair ----------------------------------------------------------------------------------------------------------


def log_probs(config: Config, params: Any, pair: Pair) -> Array:
    """Log-probabilities (2, R) of the tokens of both responses, in nats."""
    return _by_token(params, pair, response_states(config, params, pair))


def _gradients(config: Config, params: Any, pair: Pair) -> tuple[Array, Array, Any, Any]:
    """Log-probabilities of the tokens, hidden states, and the gradients of the sums of the chosen and the rejected."""

    def by_token(params: Any) -> tuple[Array, Array]:
        states = response_states(config, params, pair)
        return _by_token(params, pair, states), states

    tokens, pull, states = jax.vjp(by_token, params, has_aux=True)
    chosen, rejected = (pull(jnp.zeros_like(tokens).at[k].set(1))[0] for k in (0, 1))
    return tokens, states, chosen, rejected


def _along(config: Config, params: Any, pair: Pair, direction: Any) -> Array:
    """Derivatives (2, R) of the log-probabilities of all tokens along a direction."""
    return jax.jvp(lambda params: log_probs(config, params, pair), (params,), (direction,))[1]


def _after(config: Config, params: Any, pair: Pair, chosen: Any, rejected: Any, up: Array, down: Array) -> Array:
    """Log-probabilities (2,) at the parameters + up chosen - down rejected."""
    moved = jax.tree.map(
        lambda p, w, l: p + up.astype(p.dtype) * w - down.astype(p.dtype) * l, params, chosen, rejected
    )
    return jnp.sum(log_probs(config, moved, pair).astype(jnp.result_type(float)), axis=-1)


def _met(config: Config, params: Any, chosen: Any, rejected: Any) -> Any:
    """The inner product of two gradients, part by part; of the layers (layers,)."""
    outside = {name: _dot(w, rejected[name], 0) for name, w in chosen.items() if name != "layers"}
    return {**outside, "layers": jax.tree.map(partial(_dot, kept=1), chosen["layers"], rejected["layers"])}


def _dot(w: Array, l: Array, kept: int) -> Array:
    rows = jnp.sum(w * l, axis=-1).astype(jnp.result_type(float))  # long sums in the precision in force
    return jnp.sum(rows, axis=tuple(range(kept, rows.ndim)))


def _last_layer(config: Config, params: Any, pair: Pair, states: Array) -> tuple[Array, Array, Array]:
    """Gram matrix (2, 2) of both responses if unembedding and hidden states were free; CHES, plain and normalised."""
    gram = tied_pair_gram(Tied(unembedding(params), states[None]), pair.target[None], pair.mask[None])[0]
    given = states[None, 0], states[None, 1], *pair.lengths[:, None]
    return gram, ches(*given)[0], ches(*given, length_normalised=True)[0]


def as_pair(now: Any, start: Any, lengths: Any) -> PairLogProbs:
    """What a loss may know of a pair, from log-probabilities (2,) now and at the reference, and lengths (2,)."""
    return PairLogProbs(now[0], now[1], start[0], start[1], lengths[0], lengths[1])


def look(model: Model, pair: Pair, loss: Loss) -> dict[str, Any]:
    """Everything about a pair's next step of the loss, in numbers and lists of them; the model is its reference.

    weights: d_w, d_l. gram: |g_w|^2, |g_l|^2, <g_w, g_l>. shares: of <g_w, g_l> by each token of either response.
    parts: the same inner product by the embedding, the attention and the feed-forward of each layer, and the rest.
    rates: two learning rates, the second half of the first; predicted, measured: changes of both, for each rate.
    last: the Gram matrix of the last layer alone, as (chosen, rejected, both); ches, and normalised.
    """
    tokens, states, chosen, rejected = _run(_gradients, model, pair)
    now = np.asarray(tokens, float).sum(axis=-1)
    along_w, along_l = (np.asarray(_run(_along, model, pair, g), float) for g in (chosen, rejected))
    a, b = along_w[0].sum(), along_l[1].sum()  # the derivative of A along its own gradient is |g_w|^2
    parts = jax.tree.map(np.asarray, _run(_met, model, chosen, rejected))
    layers = parts.pop("layers")
    c = float(sum(x.sum() for x in layers.values()) + sum(parts.values()))
    d_w, d_l = (float(d) for d in margin_weights(loss, as_pair(*_known(now, pair))))
    slopes = np.array(first_order_changes(d_w, d_l, a**0.5, b**0.5, c))
    rates = [CHANGE / float(np.max(np.abs(slopes))) * share for share in (1.0, 0.5)]

    def after(rate: float) -> np.ndarray:
        up, down = (jnp.asarray(rate * d) for d in (d_w, d_l))
        return np.asarray(_run(_after, model, pair, chosen, rejected, up, down), float)

    before = after(0.0)  # by the same program, so that its rounding drops out
    last, plain, normalised = _run(_last_layer, model, pair, states)
    feed = {"gate", "up", "down", "feed_norm"}
    lengths = pair.lengths.tolist()
    return {
        "logp": now.tolist(), "lengths": lengths, "weights": [d_w, d_l], "gram": [a, b, c],
        "shares": [along_l[0, : lengths[0]].tolist(), along_w[1, : lengths[1]].tolist()],
        "parts": {
            "embedding": float(parts.pop("embed")), "rest": float(sum(parts.values())),
            "attention": sum(x for name, x in layers.items() if name not in feed).tolist(),
            "feed_forward": sum(x for name, x in layers.items() if name in feed).tolist(),
        },
        "rates": rates, "predicted": [(r * slopes).tolist() for r in rates],
        "measured": [(after(rate) - before).tolist() for rate in rates],
        "last": [float(last[0, 0]), float(last[1, 1]), float(last[0, 1])],
        "ches": float(plain), "ches_normalised": float(normalised),
    }  # fmt: skip


def _known(now: np.ndarray, pair: Pair) -> tuple[list[Array], list[Array], list[Array]]:
    exact = jnp.result_type(float)
    values = [jnp.asarray(x, exact) for x in now]
    return values, values, [jnp.asarray(n, exact) for n in pair.lengths]


def look_at_all(
    model: Model, texts: Sequence[TextPair], loss: Loss, made_of: str, *, end: bool
) -> list[dict[str, Any]]:
    """``look`` at every pair, with a progress bar; what an earlier run found is not looked for again."""
    kept = Kept(model.key, made_of, str(end), jnp.dtype(jnp.result_type(float)).name)
    pairs = packed(model, texts, end=end)
    named = [hashlib.sha256(json.dumps(text).encode()).hexdigest() for text in texts]
    found = []
    with _terminal.progress(len(texts)) as begin:
        for name, pair, text in zip(named, pairs, texts, strict=True):
            begin(text.chosen[:30])
            found.append(kept.get(name, partial(look, model, pair, loss)))
    return found


def products(found: Sequence[dict[str, Any]]) -> GradientProducts:
    """Norms and inner products (N,) of what was found."""
    a, b, c = np.array([x["gram"] for x in found]).T
    return GradientProducts(np.sqrt(a), np.sqrt(b), c)


# -- a short training --------------------------------------------------------------------------------------------------

Objective = Callable[..., Array]


@cache  # a program is compiled once for a function
def objective(config: Config, loss: Loss) -> Objective:
    """The loss of a pair as a function of the parameters; args: the pair, and its log-probabilities at the start."""

    def value(params: Any, pair: Pair, start: Array) -> Array:
        return loss(as_pair(jnp.sum(log_probs(config, params, pair), axis=-1), start, pair.lengths))

    return value


@cache
def normalised(config: Config, beta: float) -> Objective:
    """The mend's step in place of a gradient: equal pushes on both gradients, at the speed of DPO.

    -beta sigmoid(-beta h) sqrt(|g_w| |g_l|) (g_w / |g_w| - g_l / |g_l|): no gradient of any scalar loss.
    """

    def direction(params: Any, pair: Pair, start: Array) -> Any:
        now, pull = jax.vjp(lambda params: jnp.sum(log_probs(config, params, pair), axis=-1), params)
        both = [pull(jnp.zeros_like(now).at[k].set(1))[0] for k in (0, 1)]
        n_w, n_l = (jnp.sqrt(sum(jnp.sum(jnp.sum(x * x, axis=-1)) for x in jax.tree.leaves(g))) for g in both)
        margin = (now[0] - start[0]) - (now[1] - start[1])
        speed = beta * jax.nn.sigmoid(-beta * margin) * jnp.sqrt(n_w * n_l)
        return jax.tree.map(lambda w, l: -speed * (w / n_w - l / n_l), *both)

    return direction


@cache
def _training(how: Objective, mend: bool, optimizer: Any, steps: int, every: int) -> Callable[..., Any]:
    def run(config: Config, params: Any, pair: Pair, start: Array, rate: Array) -> Any:
        def record(params: Any, pair: Pair, start: Array) -> Array:
            return jnp.sum(log_probs(config, params, pair), axis=-1)

        return train(
            None if mend else how, params, (pair, start), steps=steps, learning_rate=rate, optimizer=optimizer,
            gradient=how if mend else None, record=record, every=every,
        )  # fmt: skip

    return run


class Trained(NamedTuple):
    """Log-probabilities (records, 2) along a run, and those of every token (2, V) at the pair's first difference."""

    history: np.ndarray
    first: np.ndarray


def train_pair(
    model: Model, pair: Pair, how: Objective, optimizer: Any, rate: float, *, steps: int, every: int, mend: bool = False
) -> Trained:
    """Train the whole model on one pair alone; ``first`` has the start and the end."""
    start = jnp.sum(_run(log_probs, model, pair), axis=-1)
    run = _run(_training(how, mend, optimizer, steps, every), model, pair, start, jnp.float32(rate))
    ends = (model, model._replace(params=run.params))
    first = [_run(_first_choice, now, pair, first_difference(pair)) for now in ends]
    return Trained(np.asarray(run.history, float), np.asarray(first, float))


def _first_choice(config: Config, params: Any, pair: Pair, place: Any) -> Array:
    """Log-probabilities (V,) of the next token where the two responses part."""
    return jax.nn.log_softmax(logits(params, response_states(config, params, pair)[0, place]))


OPTIMIZERS: dict[str, Any] = {"gradient descent": optax.sgd, "RMSProp": optax.rmsprop}
