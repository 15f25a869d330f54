"""Viable ranges against generic solvers, on this machine, in one process.

    python benchmarks/multiplicity.py [--programmes 20] [--rounds 3]

Programmes  the largest and the smallest logit of so many people over the level set of 1% of the loss, breast cancer
            with three features: 569 people, four coefficients. SciPy's SLSQP with gradients, and CVXPY with Clarabel,
            parametrised once, one programme after the other; this package solves those of all 569 people at once. Times
            are per programme, medians of rounds.
Sizes       both ends of all 569 people; both ends of all 6,366 people of ``fair`` (nine coefficients, identical people
            once), with the peak memory of this process.

Exit status 1 if an end differs by more than 1e-6, or if what is promised is not kept: 25 times SLSQP, 400 times
Clarabel, 0.5 s, 20 s and 2 GiB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from a checkout that is not installed

from experiments.multiplicity.real import read
from sandbox import multiplicity as m
from sandbox import runtime

try:
    import cvxpy as cp
    import sklearn  # noqa: F401
    import statsmodels  # noqa: F401
except ImportError as error:
    sys.exit(f"benchmarks/multiplicity.py compares with CVXPY on real data ({error}): pip install -e '.[peers]'")

AGREE = 1e-6


def seconds(run: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """What a call returns, and the median of its times."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - start)
    return found, statistics.median(times)


def slsqp(x: np.ndarray, y: np.ndarray, w0: np.ndarray, limit: float, programmes: np.ndarray) -> np.ndarray:
    signed = x * (2 * y - 1)[:, None]

    def room(w: np.ndarray) -> float:
        return limit - np.logaddexp(0, -signed @ w).mean()

    def slope(w: np.ndarray) -> np.ndarray:
        return signed.T @ (1 / (1 + np.exp(signed @ w))) / len(y)

    constraint = [{"type": "ineq", "fun": room, "jac": slope}]
    options = {"ftol": 1e-10, "maxiter": 200}
    return np.array([
        v @ minimize(lambda w, v=v: -v @ w, w0, jac=lambda w, v=v: -v, constraints=constraint, method="SLSQP",
                     options=options).x
        for v in programmes
    ])  # fmt: skip


def clarabel(x: np.ndarray, y: np.ndarray, limit: float) -> Callable[[np.ndarray], np.ndarray]:
    w, v, n = cp.Variable(x.shape[1]), cp.Parameter(x.shape[1]), len(y)
    signed = x * (2 * y - 1)[:, None]
    problem = cp.Problem(cp.Maximize(v @ w), [cp.sum(cp.logistic(-signed @ w)) <= n * limit])

    def solve(programmes: np.ndarray) -> np.ndarray:
        found = []
        for v.value in programmes:
            problem.solve(solver=cp.CLARABEL)
            found.append(problem.value)
        return np.array(found)

    return solve


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programmes", type=int, default=20, help="programmes that the peers solve")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each")
    given = parser.parse_args()
    runtime.configure(x64=True)
    x, y = read("breast_cancer_3")
    best = m.fit(x, y)
    epsilon = 0.01 * best.loss

    def ours() -> Any:
        return jax.block_until_ready(m.ranges(best, epsilon))

    start = time.perf_counter()
    ours()
    first = time.perf_counter() - start
    found, both = seconds(ours, 2 * given.rounds + 1)
    each = both / (2 * len(y))
    people = np.linspace(0, len(y) - 1, given.programmes // 2).astype(int)
    programmes = np.concatenate([x[people], -x[people]])
    ends = np.concatenate([np.asarray(found.high)[people], -np.asarray(found.low)[people]])
    limit = float(best.loss + epsilon)
    print(f"breast cancer, 569 people, 4 coefficients: both ends of all in {both:.3f} s, at first {first:.1f} s")
    failed = both > 0.5
    solve = clarabel(x, y, limit)
    solve(programmes[:1])  # compiled once
    peers = {
        "SLSQP": (lambda: slsqp(x, y, np.asarray(best.w), limit, programmes), given.rounds, 25),
        "CVXPY with Clarabel": (lambda: solve(programmes), 1, 400),
    }
    for name, (run, rounds, promised) in peers.items():
        values, spent = seconds(run, rounds)
        ratio, off = spent / len(programmes) / each, float(np.max(np.abs(values - ends)))
        print(f"{name}: {spent / len(programmes) * 1e3:.2f} ms a programme, {ratio:.0f} times ours ({each * 1e3:.4f} "
              f"ms); largest difference {off:.1e}")  # fmt: skip
        failed |= ratio < promised or off > AGREE
    x, y = read("fair")
    rows, ones, weight, _ = m.merged(x, y)
    best = m.fit(rows, ones, weight)
    level = jnp.asarray(0.01 * best.loss)
    jax.block_until_ready(m.ranges(best, level))
    found, spent = seconds(lambda: jax.block_until_ready(m.ranges(best, level)), 1)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"fair, {len(y):,} people ({len(rows):,} different), 9 coefficients: both ends of all in {spent:.1f} s, peak "
          f"memory of the process {memory:.2f} GiB; certificate {float(jnp.max(found.gap)):.1e}")  # fmt: skip
    return int(failed or spent > 20 or memory > 2)


if __name__ == "__main__":
    sys.exit(main())
