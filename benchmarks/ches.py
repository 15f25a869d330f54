"""CHES of 10,000 pairs of hidden states against a copy of the same bytes: does it run at the speed of memory?

    python benchmarks/ches.py [--rounds 9] [--tokens 16] [--width 512]

Ours        ``sandbox.measures.ches`` of float32 states, validation of every argument included, compiled before.
Copy        NumPy's of the two arrays of states into memory that is there already.

Both read every state once; the copy also writes it. They alternate, medians of all rounds. The lengths are random, and
the scores are compared with float64 sums in NumPy. Exit status 1 if ours takes more than 3 times as long as the copy,
or a score differs by more than 1e-5 of the product of the sums' norms.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from a checkout that is not installed

from sandbox.measures import ches, ches_of_sums

PAIRS, WANTED, AGREE = 10_000, 3, 1e-5


def seconds(f: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter() - start


def difference(hidden: list[np.ndarray], lengths: np.ndarray, scores: np.ndarray) -> float:
    """The largest difference of a score from that of sums in float64, as a share of |S_w| (|S_w| + |S_l|)."""

    def summed(states: np.ndarray, length: np.ndarray) -> np.ndarray:
        kept = np.arange(states.shape[1])[None, :] < length[:, None]
        return np.einsum("ntd,nt->nd", states, kept, dtype=float)

    chosen, rejected = (summed(*response) for response in zip(hidden, lengths, strict=True))
    exact = np.asarray(ches_of_sums(chosen, rejected))
    n_w, n_l = (np.linalg.norm(x, axis=1) for x in (chosen, rejected))
    return float(np.max(np.abs(scores - exact) / (n_w * (n_w + n_l))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="repetitions of each timing")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of the padding")
    parser.add_argument("--width", type=int, default=512, help="width of a state")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    shape = (PAIRS, options.tokens, options.width)
    hidden = [rng.standard_normal(shape, np.float32) for _ in range(2)]
    lengths = rng.integers(1, options.tokens + 1, (2, PAIRS))
    given = [jnp.asarray(x) for x in (*hidden, *lengths)]
    room = [np.zeros_like(x) for x in hidden]  # written once, so that its pages are there

    def copy() -> None:
        for to, states in zip(room, hidden, strict=True):
            np.copyto(to, states)

    gap = difference(hidden, lengths, np.asarray(ches(*given)))
    times = [(seconds(lambda: ches(*given)), seconds(copy)) for _ in range(options.rounds)]
    ours, theirs = (median(column) for column in zip(*times, strict=True))
    size = sum(x.nbytes for x in hidden) / 1e9
    print(f"{PAIRS:,} pairs, {options.tokens} tokens, width {options.width}: {size:.2f} GB of states")
    print(f"CHES {ours:.3f} s, copy {theirs:.3f} s: ratio {ours / theirs:.2f} (wanted: at most {WANTED})")
    print(f"largest difference from float64 sums: {gap:.1e} (wanted: at most {AGREE:g})")
    return 0 if ours <= WANTED * theirs and gap <= AGREE else 1


if __name__ == "__main__":
    sys.exit(main())
