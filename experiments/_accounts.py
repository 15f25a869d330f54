"""Five accounts of why a chosen response loses probability, held against the same runs of DPO.

The toy is a softmax with tied embeddings, logits W h, in which the unembedding W and the hidden vectors h of all
contexts of a pair are trained; each pair of responses of one to four tokens is trained by itself. From the start of
each run every account computes a score, the higher, the more the chosen should fall:

- entanglement: cos - kappa of the two responses' gradients (kappa: |g_w| / |g_l|);
- exact gradient: <g_w, g_l> - |g_w|^2, the speed at which the chosen falls while both weights are 1;
- CHES and its length-normalised form: what is left of it if only hidden vectors are known;
- squeezing: the ratio Q of its rejected and chosen terms, of a kernel that is a number for any two contexts, <h, h'>;
- similarity scores: their mean at the tokens where the responses part, features W, h alone trained.

Any experiment may draw this: a stage named "accounts" that calls ``measure`` with its key (the same name, the same
runs), and ``figure``, ``caption`` and ``table`` of what it found.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from sandbox import losses
from sandbox.dynamics import train
from sandbox.losses import PairLogProbs
from sandbox.measures import ches, first_order_fall
from sandbox.policies import (
    Tied,
    gram,
    linear_logits,
    pair_contexts,
    sequence_log_prob,
    similarity,
    tied_pair_gram,
)
from sandbox.statistics import mean, rank_correlation

__all__ = ["ACCOUNTS", "CASES", "KINDS", "caption", "figure", "measure", "table"]

ACCOUNTS = ("entanglement", "exact gradient", "CHES", "CHES, normalised", "squeezing", "similarity scores")
NEUTRAL = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0)  # above it the chosen is said to fall; of CHES the quantity's it stands for
KINDS = ("off-policy", "on-policy")
VOCABULARY, WIDTH, TOKENS = 12, 8, 4
BETA, RATE = 1.0, 0.02
HIDDEN, ROWS, TUNED = 1.0, 1.0, 3.0  # scales of hidden vectors and of unembeddings; how far fine-tuning goes
KEPT = 0.85  # chance of a token of the chosen to stand in the rejected, too

# Smallest cases in which an account fails: unembedding, hidden vectors of the chosen's and of the rejected's tokens, of
# which the first is shared, and the two responses.
Case = tuple[tuple[tuple[float, ...], ...], tuple[Any, Any], tuple[Any, Any]]
CASES: dict[str, Case] = {
    "one token, a third beyond the chosen": (
        ((1, 1), (1, 2), (6, 0), (0, -1)), (((0.5, 0), (0, 0)), ((0.5, 0), (0, 0))), ((0,), (1,)),
    ),
    "a sure suffix, longer vectors for the rejected": (
        ((1, 0), (-1, 0), (0, 2), (0, -2)), (((1, 0), (0, 3)), ((1, 0), (0, 6))), ((0, 2), (1, 2)),
    ),
    "one token, a long hidden vector": (((2,), (1,), (0,)), (((2,),), ((2,),)), ((1,), (2,))),
    "a flat start, a third that takes over": (((3,), (-3,), (1,), (0,)), (((0.1,),), ((0.1,),)), ((3,), (2,))),
}  # fmt: skip


# -- pairs of responses and their runs ---------------------------------------------------------------------------------


class Pair(NamedTuple):
    """W and the hidden vectors of eight contexts, numbered as ``pair_contexts`` does; biases; both responses."""

    params: Tied
    bias: Array
    tokens: Array
    mask: Array


def random_pair(key: Array, on_policy: Any) -> Pair:
    """A rejected response that is the chosen one with some tokens drawn anew: uniformly, or from the policy.

    The policy has been fine-tuned on the chosen, which moves its hidden vectors towards the unembeddings of its tokens,
    and those of the rejected by as much of that as their contexts are alike.
    """
    keys = jax.random.split(key, 9)
    share = jax.random.uniform(keys[0], minval=0.3, maxval=0.98)  # how alike contexts are
    common, own = jax.random.normal(keys[1], (1, WIDTH)), jax.random.normal(keys[2], (2 * TOKENS, WIDTH))
    hidden = HIDDEN * (jnp.sqrt(share) * common + jnp.sqrt(1 - share) * own)
    unembedding = ROWS * jax.random.normal(keys[3], (VOCABULARY, WIDTH))

    def draw(key: Array, hidden: Array, barred: Array) -> Array:
        z = jnp.where(on_policy, linear_logits(unembedding, hidden), 0.0)
        return jax.random.categorical(key, jnp.where(barred, -jnp.inf, z))

    chosen = draw(keys[4], hidden[:TOKENS], jnp.zeros((TOKENS, VOCABULARY), bool))
    tuned = TUNED * jax.random.uniform(keys[7]) * unembedding[chosen]
    hidden = hidden + jnp.concatenate([tuned, share * tuned])
    split = jnp.arange(TOKENS) == 0  # there they part, after a prompt that they share
    after = jnp.where(split[:, None], hidden[:TOKENS], hidden[TOKENS:])
    fresh = draw(keys[5], after, split[:, None] & jax.nn.one_hot(chosen, VOCABULARY, dtype=bool))
    kept = (jax.random.uniform(keys[6], (TOKENS,)) < KEPT) & ~split
    tokens = jnp.stack([chosen, jnp.where(kept, chosen, fresh)])
    length = jax.random.randint(keys[8], (2, 1), 1, TOKENS + 1)
    return Pair(Tied(unembedding, hidden), jnp.zeros(VOCABULARY), tokens, jnp.arange(TOKENS)[None, :] < length)


def case_pair(unembedding: Any, hidden: Any, responses: Any) -> Pair:
    """A case in the shapes of the random pairs: other tokens are impossible, other positions not counted."""
    rows, width, length = len(unembedding), len(unembedding[0]), len(hidden[0])
    dtype = jnp.result_type(float)
    table = np.zeros((2, TOKENS, WIDTH))
    table[:, :length, :width] = hidden
    tokens, mask = np.zeros((2, TOKENS), int), np.zeros((2, TOKENS), bool)
    for k, response in enumerate(responses):
        tokens[k, : len(response)], mask[k, : len(response)] = response, True
    w = np.zeros((VOCABULARY, WIDTH))
    w[:rows, :width] = unembedding
    bias = np.where(np.arange(VOCABULARY) < rows, 0.0, -1e9)
    params = Tied(jnp.asarray(w, dtype), jnp.asarray(table.reshape(-1, WIDTH), dtype))
    return Pair(params, jnp.asarray(bias, dtype), jnp.asarray(tokens), jnp.asarray(mask))


# -- scores, and what happened -----------------------------------------------------------------------------------------


def token_log_probs(params: Tied, pair: Pair) -> Array:
    """Log-probabilities (2, T, V) of every token at every position of chosen and rejected."""
    hidden = params.hidden[pair_contexts(pair.tokens)]
    return jax.nn.log_softmax(linear_logits(params.unembedding, hidden) + pair.bias[None, None, :])


def dpo_loss(params: Tied, pair: Pair, reference: Array) -> Array:
    """DPO on the pair."""
    now = sequence_log_prob(token_log_probs(params, pair), pair.tokens, pair.mask)
    return losses.dpo(PairLogProbs(now[0], now[1], reference[0], reference[1]), beta=BETA)


def one_run(pair: Pair, *, steps: int) -> dict[str, Array]:
    """The scores of a pair by name, CHES left out, and the changes (2,) of its log-probabilities in the run."""
    log_probs = token_log_probs(pair.params, pair)
    reference = sequence_log_prob(log_probs, pair.tokens, pair.mask)
    end = train(dpo_loss, pair.params, (pair, reference), steps=steps, learning_rate=RATE).params
    hidden = pair.params.hidden[pair_contexts(pair.tokens)]
    batch = Tied(pair.params.unembedding, hidden[None])
    exact = tied_pair_gram(batch, pair.tokens[None], pair.mask[None], log_probs[None])[0]
    scalar = gram(log_probs, pair.tokens, pair.mask, similarity(hidden))
    norm_w, norm_l = jnp.sqrt(exact[0, 0]), jnp.sqrt(exact[1, 1])
    return {
        "entanglement": exact[0, 1] / (norm_w * norm_l) - norm_w / norm_l,
        "exact gradient": first_order_fall(exact),
        "squeezing": scalar[0, 1] / scalar[0, 0],
        "similarity scores": mean_score(pair.params.unembedding, log_probs[0], pair.tokens),
        "hidden": hidden,
        "length": jnp.sum(pair.mask, axis=1),
        "change": sequence_log_prob(token_log_probs(end, pair), pair.tokens, pair.mask) - reference,
    }


def mean_score(rows: Array, log_probs: Array, tokens: Array) -> Array:
    """The mean of s_k = (W_k - W_l) v / |v|^2, v = W_w - W_l, under the law at the position where the two part."""
    split = jnp.argmax(tokens[0] != tokens[1])
    w, l = rows[tokens[0, split]], rows[tokens[1, split]]
    return jnp.exp(log_probs[split]) @ ((rows - l[None, :]) @ (w - l)) / ((w - l) @ (w - l))


def measure(key: Array, *, pairs: int, seeds: int, steps: int) -> dict[str, Array]:
    """Rank correlations of every score with the fall of the chosen in runs of DPO, and the cases.

    correlation (kinds, accounts, 3): mean over the seeds and its interval, 95 per cent, Student's t; right (kinds,
    accounts): share of runs whose sign the score tells, falls and rises weighed alike (chance: 1/2). scores (kinds,
    pairs, accounts) and change (kinds, pairs, 2) of the first seed; fell (kinds,): share of all runs in which the
    chosen fell; turned (kinds,): of those, the share that rose to first order. case_scores (cases, accounts),
    case_change (cases, 2).
    """
    shape = (seeds, len(KINDS), pairs)
    keys = jax.random.split(key, shape).reshape(-1)
    on_policy = jnp.broadcast_to(jnp.arange(len(KINDS))[None, :, None] == 1, shape).reshape(-1)
    small = jax.tree.map(lambda *x: jnp.stack(x), *(case_pair(*case) for case in CASES.values()))
    made = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), jax.vmap(random_pair)(keys, on_policy), small)
    runs = jax.vmap(partial(one_run, steps=steps))(made)
    for name, normalised in (("CHES", False), ("CHES, normalised", True)):
        states, lengths = runs["hidden"], runs["length"]
        runs[name] = ches(states[:, 0], states[:, 1], lengths[:, 0], lengths[:, 1], length_normalised=normalised)
    scores = jnp.stack([runs[name] for name in ACCOUNTS], axis=1)
    all_scores, all_changes = (x[: keys.shape[0]].reshape(*shape, -1) for x in (scores, runs["change"]))
    fall = -all_changes[..., 0]

    def ranked(scores: Array, fall: Array) -> Array:
        return jax.vmap(lambda score: rank_correlation(score, fall), in_axes=1)(scores)

    found = mean(jax.vmap(jax.vmap(ranked))(all_scores, fall))
    neutral = jnp.asarray(NEUTRAL)
    told = ((all_scores > neutral[None, None, None, :]) == (fall > 0)[..., None]).astype(fall.dtype)
    fell = (fall > 0).astype(fall.dtype)

    def hits(which: Array) -> Array:
        return jnp.sum(told * which[..., None], axis=(0, 2)) / jnp.maximum(jnp.sum(which, axis=(0, 2)), 1)[:, None]

    right = (hits(fell) + hits(1 - fell)) / 2  # else "it rises", which is rarely wrong, would look well
    rose_at_first = (all_scores[..., ACCOUNTS.index("exact gradient")] < 0).astype(fall.dtype)
    return {
        "correlation": jnp.stack([found.mean, found.low, found.high], axis=-1),
        "right": right,
        "fell": jnp.mean(fell, axis=(0, 2)),
        "turned": jnp.sum(fell * rose_at_first, axis=(0, 2)) / jnp.maximum(jnp.sum(fell, axis=(0, 2)), 1),
        "scores": all_scores[0],
        "change": all_changes[0],
        "case_scores": scores[keys.shape[0] :],
        "case_change": runs["change"][keys.shape[0] :],
    }


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an account and kind of pairs: the rank correlation, its interval, and how often the sign was right."""
    rows = []
    for kind, correlation, right in zip(KINDS, found["correlation"], found["right"], strict=True):
        for name, (middle, low, high), share in zip(ACCOUNTS, correlation, right, strict=True):
            rows.append({
                "account": name, "pairs": kind, "rank correlation": float(middle), "low": float(low),
                "high": float(high), "sign right": float(share),
            })  # fmt: skip
    return rows


def caption(found: Mapping[str, Any]) -> str:
    """What the figure shows."""
    fell, turned = found["fell"], found["turned"]
    return (
        "Scores at the start of DPO against the fall of log p(chosen) by its end, one run a pair, tied embeddings.\n"
        "Left: Spearman's rank correlation, 95% over seeds; numbers: how often the sign is right, falls and rises "
        "weighed alike (chance: 50%).\n"
        f"The chosen fell in {fell[0]:.0%} of the off-policy and {fell[1]:.0%} of the on-policy runs; of those it had "
        f"risen to first order in {turned[0]:.0%} and {turned[1]:.0%}."
    )


def figure(found: Mapping[str, Any]) -> Figure:
    """The rank correlation of every account; the best of them, and CHES, run by run; the cases in which one fails."""
    import matplotlib.pyplot as plt

    drawn, (left, middle, right) = plt.subplots(1, 3, figsize=(12.6, 3.9), width_ratios=(1.05, 0.95, 1.6))
    looks = (("#0072B2", "o", -0.16), ("#D55E00", "s", 0.16))
    place = np.arange(len(ACCOUNTS))
    for kind, correlation, right_share, (colour, marker, shift) in zip(
        KINDS, found["correlation"], found["right"], looks, strict=True
    ):
        centre, low, high = np.clip(correlation.T, -1, 1)
        left.errorbar(
            centre, place + shift, xerr=[centre - low, high - centre], ls="", marker=marker, color=colour, label=kind
        )
        for y, share in zip(place + shift, right_share, strict=True):
            left.text(1.05, y, f"{share:.0%}", fontsize=7, color=colour, va="center")
    left.set_yticks(place, ACCOUNTS)
    left.invert_yaxis()
    left.axvline(0, color="0.6", lw=0.8)
    left.set(xlim=(-1.02, 1.25), xlabel="rank correlation with the fall", title="who told it")
    left.set_xticks([-1, -0.5, 0, 0.5, 1])
    for change, scores, kind, (colour, marker, _) in zip(found["change"], found["scores"], KINDS, looks, strict=True):
        middle.plot(scores[:, 1], change[:, 0], ls="", marker=marker, color=colour, ms=3, alpha=0.6, mew=0, label=kind)
    middle.legend(loc="upper right", fontsize=7.5)
    middle.axhline(0, color="0.6", lw=0.8)
    middle.axvline(0, color="0.6", lw=0.8)
    middle.set_xscale("symlog", linthresh=1)
    middle.set(xlabel=r"exact gradient, $g_w \cdot g_l - |g_w|^2$", ylabel="change of log p(chosen) (nats)",
               title="run by run, one seed")  # fmt: skip
    right.set_axis_off()
    for k, (name, scores, change) in enumerate(zip(CASES, found["case_scores"], found["case_change"], strict=True)):
        lines = [name, f"  log p(chosen): {change[0]:+.2f} nats"]
        lines += [f"  {account}: {score:+.2f}{_verdict(score, neutral, change[0])}"
                  for account, score, neutral in zip(ACCOUNTS, scores, NEUTRAL, strict=True)]  # fmt: skip
        right.text(0.52 * (k % 2), 1 - 0.52 * (k // 2), "\n".join(lines), fontsize=6.8, va="top", linespacing=1.25)
    right.set_title("where they fail")
    return drawn


def _verdict(score: float, neutral: float, change: float) -> str:
    if score == neutral:
        return "  (blind)"
    return "" if (score > neutral) == (change < 0) else "  (wrong)"
