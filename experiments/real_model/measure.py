"""What is run: a step on every pair, and short trainings of the pairs that lie deepest inside each region."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from experiments import _language, _terminal
from experiments.harness import host
from experiments.real_model.setup import Setup
from sandbox.language_model import Model, Pair, load, unembedding
from sandbox.losses import LOSSES
from sandbox.losses import margin_weights as weights_of
from sandbox.measures import Case, case, first_order_changes, kappa
from sandbox.preferences import TextPair, read_pairs
from sandbox.statistics import rank_correlation

SHIPPED = Path(__file__).with_name("pairs.jsonl")
REGIONS = (Case.BOTH_FALL, Case.IDEAL, Case.BOTH_RISE)
MEND = "normalised gradients"
LOSS_NAMES = {"DPO": "dpo", "DPO + SFT": "dpo_sft", "DPOP": "dpop", "SimPO": "simpo"}
TRAININGS = ("DPO", MEND, "DPO + SFT", "DPOP", "SimPO")
TOP = 100  # the most probable tokens at the start, of which it is asked where the mass goes


@cache
def model_of(setup: Setup) -> Model:
    """The model, read once. Raises ValueError where it cannot be used."""
    return load(setup.model, setup.template or None)


def texts(setup: Setup, model: Model) -> tuple[list[TextPair], list[str]]:
    """The pairs that are looked at, prompts as the model sees them, and their categories."""
    whole = read_pairs(SHIPPED)
    named = [json.loads(line)["category"] for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    taken = np.unique(np.linspace(0, len(whole) - 1, min(setup.pairs, len(whole))).round().astype(int))
    return [whole[i]._replace(prompt=model.render(whole[i].prompt)) for i in taken], [named[i] for i in taken]


@cache
def loss_of(name: str, beta: float) -> Any:
    """A loss by its heading: DPO with the setup's beta, the others with their papers' constants."""
    return partial(LOSSES[LOSS_NAMES[name]], beta=beta) if name == "DPO" else LOSSES[LOSS_NAMES[name]]


def look(setup: Setup) -> list[dict[str, Any]]:
    """What the next step of DPO does to each pair; kept from run to run."""
    model = model_of(setup)
    return _language.look_at_all(
        model, texts(setup, model)[0], loss_of("DPO", setup.beta), f"dpo {setup.beta}", end=False
    )


def weights(name: str, beta: float, found: dict[str, Any]) -> tuple[float, float]:
    """The weights d_w, d_l of a loss, or of the mend, at the start of a pair."""
    d_w, d_l = (float(d) for d in weights_of(loss_of("DPO" if name == MEND else name, beta), _start(found)))
    if name != MEND:
        return d_w, d_l
    ratio = (found["gram"][1] / found["gram"][0]) ** 0.25  # sqrt(|g_l| / |g_w|)
    return d_w * ratio, d_l / ratio


def _start(found: dict[str, Any]) -> Any:
    logp = [np.float64(x) for x in found["logp"]]
    return _language.as_pair(logp, logp, [np.float64(n) for n in found["lengths"]])


@host
def pairs(setup: Setup, key: Array) -> dict[str, Any]:
    """The steps on every pair as arrays: one a pair, of the losses (losses, pairs), of the layers (pairs, layers)."""
    found = look(setup)
    names, categories = texts(setup, model_of(setup))
    products = _language.products(found)
    both = np.array([[weights(name, setup.beta, x) for x in found] for name in TRAININGS])
    kappas = np.asarray(kappa(both[..., 0], both[..., 1], products.norm_chosen[None], products.norm_rejected[None]))
    last = np.array([x["last"] for x in found])
    arrays = ("rates", "predicted", "measured", "logp", "lengths")
    parts = {name: np.array([x["parts"][name] for x in found]) for name in found[0]["parts"]}
    return {
        **products._asdict(), "cosine": products.cosine, "kappa": kappas,
        "case": np.asarray(case(kappas, np.broadcast_to(products.cosine, kappas.shape))),
        **{name: np.array([x[name] for x in found]) for name in arrays},
        **{f"inner_{name}": x for name, x in parts.items()},
        "last_cosine": last[:, 2] / np.sqrt(last[:, 0] * last[:, 1]), "last_kappa": np.sqrt(last[:, 0] / last[:, 1]),
        "last_inner": last[:, 2], "last_fall": last[:, 2] - last[:, 0],
        "ches": np.array([x["ches"] for x in found]),
        "ches_normalised": np.array([x["ches_normalised"] for x in found]),
        "first_token_inner": np.array([x["shares"][0][0] for x in found]),
        "category": np.array(categories), "chosen": np.array([t.chosen for t in names]),
        "rejected": np.array([t.rejected for t in names]),
    }  # fmt: skip


def deepest(setup: Setup, found: list[dict[str, Any]]) -> list[tuple[Case, int]]:
    """The pairs that are trained: of each region in turn the one farthest from the region's border, under DPO."""
    products = _language.products(found)
    k = products.norm_chosen / products.norm_rejected
    depth = np.abs(np.minimum(k, 1 / k) - products.cosine)
    cases = np.asarray(case(k, products.cosine))
    ranked = [(region, np.flatnonzero(cases == region)) for region in REGIONS]
    queues = [
        [(region, int(i)) for i in inside[np.argsort(-depth[inside], kind="stable")]] for region, inside in ranked
    ]
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return turns[: setup.trained]


def runs_of(setup: Setup) -> list[tuple[str, str]]:
    """(optimizer, loss) of each training."""
    return [
        (optimizer, name)
        for optimizer, many in zip(_language.OPTIMIZERS, (setup.losses, setup.adaptive), strict=True)
        for name in TRAININGS[:many]
    ]


@host
def trainings(setup: Setup, key: Array) -> dict[str, Any]:
    """Every training (runs, trained pairs, records, 2), and where the mass went; kept from run to run."""
    model, found = model_of(setup), look(setup)
    prompts, _ = texts(setup, model)
    trained = deepest(setup, found)
    packed = _language.packed(model, [prompts[i] for _, i in trained], end=False, shapes=1)
    numbers = (setup.beta, setup.steps, setup.every, setup.gain, setup.rmsprop_rate)
    kept, runs = _language.Kept(model.key, str(numbers)), runs_of(setup)
    done: list[list[dict[str, Any]]] = []
    with _terminal.progress(len(runs) * len(trained)) as begin:
        for optimizer, name in runs:
            done.append([])
            for (_, i), pair in zip(trained, packed, strict=True):
                begin(f"{optimizer}, {name}")
                text = hashlib.sha256(json.dumps(prompts[i]).encode()).hexdigest()
                made = partial(_train, setup, model, pair, found[i], optimizer, name)
                done[-1].append(kept.get(f"{optimizer} {name} {text}", made))
    return {
        **{of: np.array([[run[of] for run in row] for row in done]) for of in done[0][0]},
        "region": np.array([region.name.lower().replace("_", " ") for region, _ in trained]),
        "pair": np.array([i for _, i in trained]),
        "step": np.arange(0, setup.steps + 1, setup.every),
    }


def _train(setup: Setup, model: Model, pair: Pair, found: dict[str, Any], optimizer: str, name: str) -> dict[str, Any]:
    mend = name == MEND
    how: Callable[..., Any] = (
        _language.normalised(model.config, setup.beta)
        if mend
        else _language.objective(model.config, loss_of(name, setup.beta))
    )
    a, b, c = found["gram"]
    d_w, d_l = weights(name, setup.beta, found)
    up, down = first_order_changes(d_w, d_l, a**0.5, b**0.5, c)
    rate = setup.rmsprop_rate if optimizer == "RMSProp" else setup.gain / (up - down)
    run = _language.train_pair(
        model, pair, how, _language.OPTIMIZERS[optimizer], rate, steps=setup.steps, every=setup.every, mend=mend
    )
    return {"history": run.history.tolist(), **_mass(model, pair, *run.first)}


def _mass(model: Model, pair: Pair, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Where the mass went at the place where the responses part: who else gained most, and how two accounts foresee it.

    peak: did the most probable other token gain (the squeezing account)? aligned: rank correlation, over the ``TOP``
    tokens but the two, of the gain in log-probability with <W_z, W_w - W_l> (the displacement account).
    """
    place = _language.first_difference(pair)
    w, l = (int(pair.target[k, place]) for k in (0, 1))
    gained = np.exp(after) - np.exp(before)
    others = [int(z) for z in np.argsort(-before)[: TOP + 2] if z not in (w, l)][:TOP]
    peak = others[0]
    rows = np.asarray(unembedding(model.params))
    along = rows[others] @ (rows[w] - rows[l])
    top = [int(z) for z in np.argsort(-gained)[:5] if z not in (w, l)][:3]
    return {
        "gainers": [model.decode([z]) for z in top], "mass": [float(gained[z]) for z in (w, l, *top)],
        "peak": model.decode([peak]), "peak_gain": float(after[peak] - before[peak]),
        "aligned": float(rank_correlation(along, (after - before)[others])),
        "rejected_share": float(np.exp(before[l])),
    }  # fmt: skip


STAGES = {"pairs": pairs, "trainings": trainings}
