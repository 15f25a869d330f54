"""The suite's process: float64 unless SANDBOX_X64=0, no implicit rank promotion, no window, fixed examples."""

from __future__ import annotations

import os

# Before anything imports matplotlib or JAX, and for the processes that tests start. The suite is about numbers, not
# devices, and its workers would fight over one accelerator: JAX_PLATFORMS=cuda runs it there.
os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import jax
import pytest
from hypothesis import HealthCheck, settings

from experiments.harness import main
from sandbox import runtime
from tests.toy import proofs, run, toy  # noqa: F401 - fixtures, for the tests that ask for them

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_numpy_rank_promotion", "raise")
runtime.configure(x64=os.environ.get("SANDBOX_X64", "1") != "0")

settings.register_profile(
    "house",
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # its clock is the machine's load, not the test's
)
settings.load_profile("house")


finished = count(1)  # tests of this worker


def claim_of(item: pytest.Item) -> str | None:
    """The id of the claim that a test in ``test_theorems`` is about: "paper-theorem"."""
    found = getattr(item, "callspec", None)
    return found.id if found and "theorem" in found.params else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one claim stand side by side: a worker that has proved and compiled it has it for all of them."""
    first: dict[str, int] = {}
    place = [first.setdefault(claim_of(item) or item.nodeid, n) for n, item in enumerate(items)]
    items[:] = [item for _, item in sorted(zip(place, items, strict=True), key=lambda pair: pair[0])]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """The processor time of a claim's test goes with its report, from whichever worker."""
    start = time.process_time()
    try:
        return (yield)
    finally:
        if claim_of(item):
            item.user_properties.append(("claim", (claim_of(item), time.process_time() - start)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The mean processor time of a claim, all its tests together, and the slowest ten claims."""
    spent: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for what, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if what == "claim":
                    spent[value[0]] += value[1]
    if spent:
        mean = sum(spent.values()) / len(spent)
        terminalreporter.section(f"{len(spent)} claims, {mean:.2f} s of processor time each; the slowest")
        for claim, seconds in spent.most_common(10):
            terminalreporter.line(f"{seconds:6.2f} s  {claim}")


def mappings() -> int:
    """How many pieces of memory this process has mapped; 0 where the system does not say."""
    with suppress(OSError), open("/proc/self/maps", "rb") as pieces:
        return sum(1 for _ in pieces)
    return 0


def pytest_runtest_logfinish(nodeid: str, location: object) -> None:
    """Let go of the compiled programs now and then.

    Each takes a few mappings of memory, Linux gives a process 65,530, and a compilation that gets none ends the worker.
    """
    if next(finished) % 20 == 0 and mappings() > 10_000:
        jax.clear_caches()


@pytest.fixture
def command(tmp_path, capsys):
    """Run an experiment's command line, files in ``out``: exit status, numbers.json or None, stdout, stderr."""

    def command(experiment, *argv):
        precision = "--x64" if jax.config.jax_enable_x64 else "--no-x64"
        status = main(experiment, ["--out", str(tmp_path / "out"), "--format", "png", precision, *map(str, argv)])
        path = tmp_path / "out" / experiment.name / "numbers.json"
        found = json.loads(path.read_text()) if path.is_file() else None
        return status, found, *capsys.readouterr()

    return command
