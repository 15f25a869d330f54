"""Mutation testing of sandbox/ and theory/: Cosmic Ray makes small errors in a copy, and the tests run on each.

    python benchmarks/mutation.py [MODULE ...] [--sample 180] [--seed 0] [--fresh]

A module (``sandbox/losses.py``; all, if none is named) gets its share of the sample by the number of places that can be
mutated, six at least, and each mutant the tests that guard its module: ``tests/test_losses*.py`` by name, or those of
``GUARDS``; a line of a paper's theory gets the tests of the theorems that use it. Interpreter and libraries are loaded
once and forked. Mutants that were killed are remembered in ``.cache/mutation``, so that a second run asks only for the
survivors; ``--fresh`` forgets. Left out, since no test should see them: annotations, texts, decorators that only buy
speed, and replacements that cannot run on numbers (``a << b``) or mean the same (``a is 1``).
Exit status 1 if fewer than 90 % were killed. Needs the extras ``lint`` and ``test``, and a system that forks.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import parso  # noqa: F401  (before cosmic_ray, whose operators import half of it in a circle)
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
STORE = ROOT / ".cache" / "mutation"
COPY = STORE / "checkout"
PACKAGES = ("sandbox", "theory")
LOADED = ("flax.nnx", "hypothesis.extra.numpy", "jax", "matplotlib.pyplot", "optax", "pytest", "scipy.stats", "sympy")
GOAL, AT_LEAST = 0.9, 6
TIMEOUT = 240  # seconds; a mutant that takes longer is caught

ENGINE = ("test_proof", "test_claims", "test_planted")
LEDGER = ("test_ledger",)
GUARDS = {  # the quickest first
    "sandbox/algebra/__init__.py": ("test_algebra",),
    "sandbox/algebra/arrays.py": ("test_algebra", "test_normal"),
    "sandbox/algebra/concrete.py": ("test_proof", "test_planted", "test_algebra"),
    "sandbox/algebra/mutants.py": ("test_planted",),
    "sandbox/algebra/normal.py": ("test_normal", "test_proof"),
    "sandbox/algebra/numeric.py": ("test_algebra", "test_normal", "test_planted"),
    "sandbox/algebra/sizefree.py": ("test_algebra", "test_normal", "test_planted", "test_proof"),
    "sandbox/algebra/symbols.py": ("test_algebra", "test_normal", "test_proof"),
    "theory/__init__.py": ("test_theorems", "-k", "papers_are_found or unique"),
    "theory/__main__.py": LEDGER,
    "theory/_ledger.py": LEDGER,
    "theory/_domains.py": ENGINE,
    "theory/_planted.py": ("test_planted", "test_claims"),
    "theory/_points.py": ENGINE,
    "theory/_search.py": ENGINE,
    "theory/_verdicts.py": ENGINE,
    "theory/proof.py": ENGINE,
    "theory/statement.py": ENGINE,
}


Span = tuple[tuple[int, int], tuple[int, int]]


class Mutant(NamedTuple):
    """An error that Cosmic Ray makes: which operator, the how-manieth place it finds, and where that is."""

    module: str
    operator: str
    occurrence: int
    line: int
    column: int


# -- which mutants, which tests --------------------------------------------------------------------------------------


def modules() -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for folder in PACKAGES for p in (ROOT / folder).rglob("*.py"))


def mutants(module: str) -> list[Mutant]:
    """Every mutant of a module that a test could see."""
    source = (ROOT / module).read_text(encoding="utf-8")
    nodes = list(ast_nodes(get_ast(source)))
    left_out = list(unseen(source))
    signs = list(between_operands(source))  # the star of a signature is no product
    found = []
    for name in filter(telling, operator_names()):
        operator = get_operator(name)()
        positions = [position for node in nodes for position in operator.mutation_positions(node)]
        for n, (start, end) in enumerate(positions):
            within = [any(a <= start and end <= b for a, b in spans) for spans in (left_out, signs)]
            if not within[0] and (within[1] or "BinaryOperator" not in name):
                found.append(Mutant(module, name, n, *start))
    return found


def telling(operator: str) -> bool:
    """Whether an operator of Cosmic Ray needs no settings, and its mutants run and differ at all."""
    name = operator.partition("/")[2]
    if get_operator(operator).arguments() or name == "NoOp":
        return False
    if "BinaryOperator" in name:
        return not re.search("Bit|Shift", name)
    if "ComparisonOperator" in name:
        return name.endswith(("_Is_IsNot", "_IsNot_Is")) or "Is" not in name.split("_", 1)[1]
    return True


def between_operands(source: str) -> Iterator[Span]:
    """Where the signs of binary operations stand."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp):
            yield (node.left.end_lineno, node.left.end_col_offset), (node.right.lineno, node.right.col_offset)
        elif isinstance(node, ast.AugAssign):
            yield (node.target.end_lineno, node.target.end_col_offset), (node.value.lineno, node.value.col_offset)


def unseen(source: str) -> Iterator[Span]:
    """The spans of annotations, texts, unions of types, and decorators that only buy speed."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        spans: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef):
            speed = [d for d in node.decorator_list if re.search(r"\b(cache|jit|lru_cache)\b", ast.unparse(d))]
            yield from (((d.lineno, 0), (d.end_lineno + 1, 0)) for d in speed)
            spans = [node.returns]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            spans = [node.annotation]
        elif isinstance(node, ast.JoinedStr):
            spans = [node]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "TypeVar"):
            spans = node.args[1:]
        elif isinstance(node, ast.Assign) and node in tree.body and isinstance(node.value, ast.BinOp):
            spans = [node.value] if isinstance(node.value.op, ast.BitOr) else []
        yield from (((s.lineno, s.col_offset), (s.end_lineno, s.end_col_offset)) for s in spans if s is not None)


def guards(mutant: Mutant) -> list[str]:
    """The arguments that give pytest the tests of a mutant."""
    if mutant.module in GUARDS:
        words = GUARDS[mutant.module]
        return [f"tests/{w}.py" if w.startswith("test_") else w for w in words]
    folder, *_, stem = Path(mutant.module).with_suffix("").parts
    if folder == "theory":
        return ["tests/test_theorems.py", "-k", " or ".join([*theorems(mutant), "decorator"])]
    return sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").glob(f"test_{stem}*.py"))


def theorems(mutant: Mutant) -> list[str]:
    """The theorems that a line of a paper's theory is part of, or whose function uses it; else all of its module."""
    source = (COPY / mutant.module).read_text(encoding="utf-8")
    tree = ast.parse(source)
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    stated = {f.name: ast.unparse(f) for f in functions if any(isinstance(d, ast.Call) for d in f.decorator_list)}
    names = [
        name
        for n in tree.body
        if min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", []))]) <= mutant.line <= n.end_lineno
        for name in ([n.name] if hasattr(n, "name") else re.findall(r"\w+", ast.unparse(n).partition("=")[0]))
    ]
    used = [t for t, text in stated.items() if t in names or any(re.search(rf"\b{n}\b", text) for n in names)]
    return [f"{Path(mutant.module).parts[1].removesuffix('.py')}-{t}]" for t in used or stated]


# -- one mutant ------------------------------------------------------------------------------------------------------


def renew_copy() -> None:
    """The files of the checkout, in a folder of their own whose compiled programs stay."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    COPY.mkdir(parents=True, exist_ok=True)
    for old in COPY.iterdir():
        if old.name != ".cache":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, COPY / name)


def run(tests: list[str], timeout: float, bytecode: bool = False) -> int | None:
    """pytest's exit status in a forked process, or None if the time ran out."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(tests, bytecode))
    process.start()
    process.join(timeout)
    late = process.is_alive()
    if late:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    return None if late else process.exitcode


def _child(tests: list[str], bytecode: bool) -> None:
    os.setsid()
    log = os.open(STORE / "last.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(COPY)
    sys.path.insert(0, str(COPY))
    sys.dont_write_bytecode = not bytecode  # a mutant's must not outlive it
    import hypothesis
    import pytest

    house = {"derandomize": True, "database": None, "deadline": None, "max_examples": 200}
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # one counterexample will do, however large
    checks = list(hypothesis.HealthCheck)
    hypothesis.settings.register_profile("mutants", **house, phases=phases, suppress_health_check=checks)
    options = ["-n", "0", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # loaded beforehand
    os._exit(int(pytest.main([*options, *tests])))


def survives(mutant: Mutant, text: str) -> bool:
    """Whether every guard passes with the mutant in place. A mutant that never ends is caught."""
    path = COPY / mutant.module
    original = path.read_bytes()
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()
    tests = guards(mutant)
    try:
        path.write_text(text, encoding="utf-8")
        status = run(tests, TIMEOUT)
    finally:
        path.write_bytes(original)
    if status == 5:  # 4 is a mutant that conftest.py could not import
        raise RuntimeError(f"{mutant}: pytest {tests} ran no test, see {STORE / 'last.log'}")
    return status == 0


# -- the whole -------------------------------------------------------------------------------------------------------


def sampled(size: int, seed: int) -> dict[str, list[Mutant]]:
    """The sample by module: one mutant at each of its share of places (``a + b`` has many mutants, a number two)."""
    found: dict[str, dict[tuple[int, int], list[Mutant]]] = {}
    for module in modules():
        found[module] = defaultdict(list)
        for mutant in mutants(module):
            found[module][mutant.line, mutant.column].append(mutant)
    total = sum(map(len, found.values()))
    drawn = {}
    for module, places in found.items():
        share = max(AT_LEAST, round(size * len(places) / total))
        order = random.Random(f"{seed} {module}").sample(
            sorted(places), len(places)
        )  # a larger sample has the smaller in it
        drawn[module] = [random.Random(f"{seed} {module} {at}").choice(places[at]) for at in sorted(order[:share])]
    return {module: sample for module, sample in drawn.items() if sample}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="a file of sandbox/ or theory/; without one, all")
    parser.add_argument("--sample", type=int, default=180, help="mutants in all, before every module has six (180)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--fresh", action="store_true", help="try again what was killed before")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.modules) - set(modules())):
        parser.error(f"no module of {' or '.join(PACKAGES)}: {', '.join(unknown)}")
    chosen = {m: s for m, s in sampled(args.sample, args.seed).items() if not args.modules or m in args.modules}

    renew_copy()
    for name in LOADED:
        __import__(name)
    record = STORE / "killed.json"
    killed: dict[str, str] = json.loads(record.read_text()) if record.is_file() and not args.fresh else {}
    survivors: dict[str, list[str]] = defaultdict(list)
    for module, sample in chosen.items():
        for mutant in sample:
            source = (COPY / module).read_text(encoding="utf-8")
            text = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
            key = hashlib.sha256(f"{module}\0{text}".encode()).hexdigest()[:16]
            if key in killed:
                continue
            start = time.monotonic()
            alive = survives(mutant, text)
            what = f"{module}:{mutant.line}:{mutant.column} {mutant.operator.partition('/')[2]}"
            print(f"{'SURVIVED' if alive else 'killed  '} {time.monotonic() - start:5.1f} s  {what}", flush=True)
            if alive:
                lines = zip(source.splitlines(), text.splitlines(), strict=False)
                changed = next(f"{a.strip()}  ->  {b.strip()}" for a, b in lines if a != b)
                survivors[module].append(f"{what}\n    {changed}")
            else:
                killed[key] = what
                record.write_text(json.dumps(killed, indent=1))

    passing = {guards(sample[0])[0] for module, sample in chosen.items() if survivors[module]}
    for module, sample in chosen.items():
        first = guards(sample[0])[0]
        if first not in passing and run(guards(sample[0]), 2 * TIMEOUT, bytecode=True) != 0:
            raise RuntimeError(f"{module}: its tests fail without a mutant, see {STORE / 'last.log'}")
        passing.add(first)
    print("\n" + "\n".join(line for found in survivors.values() for line in found))
    for module, sample in [*chosen.items(), ("in all", [m for s in chosen.values() for m in s])]:
        n = len(sample)
        left = sum(map(len, survivors.values())) if module == "in all" else len(survivors[module])
        low, high = binomtest(n - left, n).proportion_ci()
        print(f"| {module} | {n - left}/{n} | {(n - left) / n:.0%} | {low:.0%}-{high:.0%} |")
    every = sum(map(len, chosen.values()))
    return int(every - sum(map(len, survivors.values())) < GOAL * every)


if __name__ == "__main__":
    sys.exit(main())
