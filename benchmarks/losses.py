"""The losses of this package against TRL's own code, on this machine, in one process.

    python benchmarks/losses.py [--rounds 20] [--threads 1]

Agreement   every loss that both have: the mean loss of 64 pairs of several tokens and its gradient by each token-sum
            log-probability. TRL's ``_compute_loss`` runs as it is, on a stand-in for the model that returns given token
            log-probabilities: no weights, no network. float64, except where TRL casts to float32 (ORPO).
Time        one mean loss with its gradient on the same 64 pairs, float32: TRL's ``_compute_loss`` (which also collects
            the metrics it logs, every time), the formula alone in eager PyTorch, and the jitted loss, all of
            them synchronous. Blocks of 50 calls alternate; medians of all blocks.

Exit status 1 if a loss or a gradient differs by more than 1e-6.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from a checkout that is not installed
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from sandbox import losses
from sandbox.losses import PairLogProbs

try:
    import torch
    import torch.nn.functional as F
    import trl
    from trl import DPOTrainer, KTOTrainer
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer
except ImportError as error:
    sys.exit(f"benchmarks/losses.py compares with TRL on PyTorch ({error}): pip install -e '.[peers]'")

PAIRS, TOKENS = 64, 12
BETA, EPSILON, TAU, GAMMA, Z0, LAM = 0.3, 0.1, 0.05, 0.4, 0.2, 0.1
AGREE = 1e-6
TokenLoss = Callable[[torch.Tensor], torch.Tensor]  # token log-probabilities [2 * PAIRS, TOKENS], chosen first -> mean


def sample(seed: int, one_length: bool = False) -> PairLogProbs:
    """64 pairs of 1 to 12 tokens (all of 5 if ``one_length``), within some nats of their reference."""
    rng = np.random.default_rng(seed)
    lengths = [np.full(PAIRS, 5.0)] * 2 if one_length else rng.integers(1, TOKENS + 1, (2, PAIRS)).astype(float)
    policy = [-n * rng.uniform(0.1, 3, PAIRS) for n in lengths]
    reference = [a + rng.normal(0, 3, PAIRS) for a in policy]
    return PairLogProbs(*policy, *reference, *lengths)


# -- TRL's side: its own methods on a stand-in for the trainer -------------------------------------------------------


def token_mask(pair: PairLogProbs) -> torch.Tensor:
    lengths = np.concatenate([pair.chosen_length, pair.rejected_length])
    return torch.tensor(np.arange(TOKENS) < lengths[:, None])


def token_log_probs(pair: PairLogProbs, dtype: torch.dtype) -> torch.Tensor:
    """Each sum spread evenly over its tokens: a leaf whose gradient in column 0 is that by the sum."""
    sums = np.concatenate([pair.chosen, pair.rejected])
    lengths = np.concatenate([pair.chosen_length, pair.rejected_length])
    spread = torch.tensor(sums / lengths, dtype=dtype)[:, None] * token_mask(pair)
    return spread.requires_grad_(True)


def trainer(**settings: Any) -> Any:
    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    return SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=accelerator, aux_loss_enabled=False, beta=BETA,
        precompute_ref_logps=True, _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1, **settings,
    )  # fmt: skip


def batch_and_model(pair: PairLogProbs) -> tuple[dict[str, torch.Tensor], Callable[..., Callable[..., Any]]]:
    """TRL's batch, one prompt token before each completion, and a stand-in for the model on given log-probabilities."""
    mask = F.pad(token_mask(pair), (1, 0)).long()
    zeros = torch.zeros(2 * PAIRS, TOKENS)
    rest = {"entropy": zeros, "mean_logits": zeros, "log_sum_sq_probs": zeros, "is_top1": zeros.bool()}
    batch = {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    return batch, lambda tokens: lambda **inputs: SimpleNamespace(log_probs=tokens, logits=None, **rest)


def dpo_trainer(pair: PairLogProbs, dtype: torch.dtype, kinds: list[str], weights: list[float]) -> TokenLoss:
    me = trainer(
        loss_types=kinds, loss_weights=weights, label_smoothing=EPSILON, args=SimpleNamespace(discopop_tau=TAU),
        ld_alpha=None, f_divergence_type="reverse_kl", use_weighting=False,
    )  # fmt: skip
    batch, model = batch_and_model(pair)
    batch["ref_chosen_logps"] = torch.tensor(pair.ref_chosen, dtype=dtype)
    batch["ref_rejected_logps"] = torch.tensor(pair.ref_rejected, dtype=dtype)
    return lambda tokens: DPOTrainer._compute_loss(me, model(tokens), batch, False)


def kto_trainer(pair: PairLogProbs, dtype: torch.dtype) -> TokenLoss:
    """Its reference point is a mean of log-ratios of mismatched completions; these are given such that it is Z0."""
    kl = torch.full((2 * PAIRS,), Z0, dtype=dtype)
    me = trainer(
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=1.0,
        undesirable_weight=1.0,
        _compute_kl_logps=lambda *_: kl,
    )
    batch, model = batch_and_model(pair)
    batch["label"] = torch.arange(2 * PAIRS) < PAIRS
    batch["ref_logps"] = torch.tensor(np.concatenate([pair.ref_chosen, pair.ref_rejected]), dtype=dtype)
    batch["ref_KL_logps"] = torch.zeros_like(kl)
    return lambda tokens: KTOTrainer._compute_loss(me, model(tokens), batch, False)


def sequence_loss(pair: PairLogProbs, loss: Callable[..., torch.Tensor], means: bool) -> TokenLoss:
    """A loss of one number a completion, as CPO's and ORPO's trainers have it: token sums, or means."""
    lengths = token_mask(pair).sum(1) if means else 1
    return lambda tokens: loss(*(tokens.sum(1) / lengths).chunk(2)).mean()


def cpo_trainer(pair: PairLogProbs, dtype: torch.dtype, kind: str, smoothing: float = 0.0) -> TokenLoss:
    me = trainer(loss_type=kind, label_smoothing=smoothing, simpo_gamma=GAMMA, alpha=0.0)
    means = kind in ("simpo", "ipo")  # as its concatenated_forward averages
    return sequence_loss(pair, lambda a, b: CPOTrainer.cpo_loss(me, a, b)[0], means)


def orpo_trainer(pair: PairLogProbs, dtype: torch.dtype) -> TokenLoss:
    """The odds-ratio term, which its trainer subtracts from the SFT term."""
    me: Any = SimpleNamespace(beta=LAM, accelerator=SimpleNamespace(device="cpu"))
    return sequence_loss(pair, lambda a, b: -ORPOTrainer.odds_ratio_loss(me, a, b)[0], means=True)


# -- who meets whom --------------------------------------------------------------------------------------------------


class Meeting(NamedTuple):
    """One of our losses and the same loss in TRL; ``theirs`` makes a loss of tokens for a pair and a dtype."""

    name: str
    trainer: str
    kind: str
    ours: Callable[[PairLogProbs], Any]
    theirs: Callable[[PairLogProbs, torch.dtype], TokenLoss]
    remark: str = ""
    one_length: bool = False


def with_dpo_trainer(name: str, kind: str, ours: Callable[[PairLogProbs], Any], remark: str = "") -> Meeting:
    return Meeting(name, "DPO", kind, ours, partial(dpo_trainer, kinds=[kind], weights=[1.0]), remark)


def with_cpo_trainer(name: str, kind: str, ours: Callable[..., Any], remark: str = "", smoothing: float = 0) -> Meeting:
    def without_reference(pair: PairLogProbs) -> Any:
        return ours(pair._replace(ref_chosen=0, ref_rejected=0))

    theirs = partial(cpo_trainer, kind=kind, smoothing=smoothing)
    return Meeting(name, "CPO", kind, without_reference, theirs, remark)


DPO = with_dpo_trainer("dpo", "sigmoid", partial(losses.dpo, beta=BETA))
IPO = with_dpo_trainer("ipo", "ipo", partial(losses.ipo, tau=BETA, reduction="mean"), 'reduction="mean"')
APO = with_dpo_trainer("apo_zero", "apo_zero", partial(losses.apo_zero, beta=BETA))
CDPO = partial(losses.cdpo, beta=BETA, epsilon=EPSILON)
MEETINGS = [
    DPO,
    with_dpo_trainer("dpo", "sigmoid_norm", partial(losses.dpo, beta=BETA, reduction="mean"), 'reduction="mean"'),
    IPO,
    with_dpo_trainer("hinge", "hinge", partial(losses.hinge, beta=BETA)),
    with_dpo_trainer("robust_dpo", "robust", partial(losses.robust_dpo, beta=BETA, epsilon=EPSILON)),
    with_dpo_trainer("exo", "exo_pair", partial(losses.exo, beta=BETA, epsilon=EPSILON)),
    with_dpo_trainer("nca", "nca_pair", partial(losses.nca, beta=BETA)),
    with_dpo_trainer("bco", "bco_pair", partial(losses.bco, beta=BETA)),
    with_dpo_trainer("sppo", "sppo_hard", partial(losses.sppo, eta=1 / BETA), "eta = 1 / beta"),
    APO,
    with_dpo_trainer("apo_down", "apo_down", partial(losses.apo_down, beta=BETA)),
    with_dpo_trainer("discopop", "discopop", partial(losses.discopop, beta=BETA, tau=TAU)),
    Meeting(
        "dpo_sft", "DPO", "sigmoid + sft", partial(losses.dpo_sft, beta=BETA, alpha=LAM),
        partial(dpo_trainer, kinds=["sigmoid", "sft"], weights=[1.0, LAM]),
        "equal lengths: TRL's NLL is one token mean a batch", one_length=True,
    ),
    Meeting("kto", "KTO", "kto", lambda pair: losses.kto(pair, beta=BETA, z0=Z0) / 2, kto_trainer, "mean over 2 x 64"),
    with_cpo_trainer("simpo", "simpo", partial(losses.simpo, beta=BETA, gamma=GAMMA)),
    with_cpo_trainer("cpo", "sigmoid", partial(losses.cpo, beta=BETA, lam=0), "lam = 0: TRL adds its NLL elsewhere"),
    with_cpo_trainer("cdpo", "sigmoid", CDPO, "zero reference, label smoothing", EPSILON),
    with_cpo_trainer("hinge", "hinge", partial(losses.hinge, beta=BETA), "zero reference"),
    with_cpo_trainer("ipo", "ipo", partial(losses.ipo, tau=BETA, reduction="mean"), 'reduction="mean", zero reference'),
    Meeting(
        "orpo", "ORPO", "odds ratio", lambda pair: losses.orpo(pair, lam=LAM) + pair.chosen / pair.chosen_length,
        orpo_trainer, "odds-ratio term alone; TRL computes it in float32",
    ),
]  # fmt: skip


def mean_loss_and_gradient(loss: Callable[[PairLogProbs], Any]) -> Callable[..., Any]:
    """Of (A, B) and the rest of the pair; compiled."""
    return jax.jit(jax.value_and_grad(lambda sums, rest: jnp.mean(loss(PairLogProbs(*sums, *rest)))))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def gaps(meeting: Meeting, seed: int = 0) -> tuple[float, float, float]:
    """TRL's mean loss in float64, and the largest difference from ours: in the loss, and in the gradient."""
    pair = sample(seed, meeting.one_length)
    with default_dtype(torch.float64), jax.enable_x64(True):
        tokens = token_log_probs(pair, torch.float64)
        theirs = meeting.theirs(pair, torch.float64)(tokens)
        (by_token,) = torch.autograd.grad(theirs, tokens)
        ours, slopes = mean_loss_and_gradient(meeting.ours)(pair[:2], pair[2:])
        gradient = by_token[:, 0].numpy().reshape(2, PAIRS)
        return theirs.item(), abs(float(ours) - theirs.item()), float(np.max(np.abs(np.array(slopes) - gradient)))


# -- time ------------------------------------------------------------------------------------------------------------


def eager(name: str, a: Any, b: Any, pair: PairLogProbs) -> torch.Tensor:
    """The formula in PyTorch, as one would write it."""
    u, v = a - pair.ref_chosen, b - pair.ref_rejected
    if name == "dpo":
        return F.softplus(-BETA * (u - v)).mean()
    if name == "ipo":
        return ((u / pair.chosen_length - v / pair.rejected_length - 1 / (2 * BETA)) ** 2).mean()
    return (torch.sigmoid(-BETA * u) + torch.sigmoid(BETA * v)).mean()


def calls(meeting: Meeting) -> dict[str, Callable[[], Any]]:
    pair = PairLogProbs(*(np.float32(x) for x in sample(0)))
    on_torch, on_jax = PairLogProbs(*map(torch.tensor, pair)), PairLogProbs(*map(jnp.asarray, pair))
    tokens, theirs = token_log_probs(pair, torch.float32), meeting.theirs(pair, torch.float32)
    sums = [x.clone().requires_grad_(True) for x in on_torch[:2]]
    compiled = mean_loss_and_gradient(meeting.ours)
    return {
        "TRL": lambda: torch.autograd.grad(theirs(tokens), tokens),
        "eager": lambda: torch.autograd.grad(eager(meeting.name, sums[0], sums[1], on_torch), sums),
        "ours": lambda: jax.block_until_ready(compiled(on_jax[:2], on_jax[2:])),
    }


def medians(runs: dict[str, Callable[[], Any]], rounds: int, block: int = 50) -> dict[str, float]:
    """Microseconds a call, the median of ``rounds`` blocks of calls."""
    times = defaultdict(list)
    for _ in range(rounds + 1):  # the first block is warm-up: compilation, caches
        for name, run in runs.items():
            begin = time.perf_counter()
            for _ in range(block):
                run()
            times[name].append((time.perf_counter() - begin) / block)
    return {name: float(np.median(each[1:])) * 1e6 for name, each in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Preference losses against TRL and eager PyTorch.")
    parser.add_argument("--rounds", type=int, default=20, help="timed blocks of 50 calls of each")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    jax.config.update(
        "jax_cpu_enable_async_dispatch", False
    )  # a hand-over between threads would cost five times the call

    agreement = Table(title=f"largest difference on 64 pairs, float64 (TRL {trl.__version__}, jax {jax.__version__})")
    for heading in ("loss", "TRL's trainer: loss_type"):
        agreement.add_column(heading)
    for heading in ("mean loss", "loss", "gradient"):
        agreement.add_column(heading, justify="right")
    agreement.add_column("remark")
    worst = 0.0
    for meeting in MEETINGS:
        value, gap, gradient_gap = gaps(meeting)
        worst = max(worst, gap, gradient_gap)
        row = (meeting.name, f"{meeting.trainer}: {meeting.kind}", f"{value:.6f}", f"{gap:.0e}", f"{gradient_gap:.0e}")
        agreement.add_row(*row, meeting.remark)
    alone = sorted(losses.LOSSES.keys() - {meeting.name for meeting in MEETINGS})

    speed = Table(title=f"one loss with its gradient, 64 pairs, float32, microseconds (torch {torch.__version__})")
    speed.add_column("loss")
    for heading in ("TRL", "eager PyTorch", "ours, jitted", "TRL / ours", "eager / ours"):
        speed.add_column(heading, justify="right")
    for meeting in (DPO, IPO, APO):
        us = medians(calls(meeting), options.rounds)
        ratios = us["TRL"] / us["ours"], us["eager"] / us["ours"]
        speed.add_row(meeting.name, *(f"{us[name]:.1f}" for name in us), *(f"{ratio:.1f}" for ratio in ratios))

    console = Console(width=130)
    console.print(agreement)
    console.print(f"not in TRL: {', '.join(alone)}")
    console.print(f"largest difference {worst:.1e}, allowed {AGREE:.0e}: {'agree' if worst <= AGREE else 'DIFFER'}\n")
    console.print(speed)
    return 0 if worst <= AGREE else 1


if __name__ == "__main__":
    sys.exit(main())
