"""The search for a counterexample: many points in floating point, the simplest shrunk and re-checked exactly."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp

from sandbox.algebra import reading
from sandbox.algebra.numeric import evaluate
from sandbox.algebra.symbols import exact
from theory._arrays import gap_at
from theory._points import DIGITS, components, differ, negative, random_generators, two_sizes
from theory._verdicts import Refuted
from theory.statement import Relation, Theorem, arguments


def counterexample(theorem: Theorem) -> Refuted | None:
    """The simplest rational counterexample found, re-checked exactly; None if there is none among the tries."""
    for generators in _suspects(theorem):
        if violated_at(theorem, generators):
            generators = _shrunk(theorem, generators) if theorem.witness is None else generators
            with reading("concrete"):
                args = arguments(theorem, _exactly(generators))
                relation = theorem(**args)
            shown = {n: _shown(v) for n, v in args.items()}
            return Refuted(shown, _shown(relation.lhs), _shown(relation.rhs))
    return None


def violated_at(theorem: Theorem, generators: Mapping[str, Any]) -> bool:
    """Is the claim violated at these rational generators, exactly?"""
    try:
        with reading("concrete"):
            return _violated(theorem(**arguments(theorem, _exactly(generators))))
    except (ZeroDivisionError, TypeError):  # not defined, or not real, there: no counterexample
        return False


def _shrunk(theorem: Theorem, generators: dict[str, Any]) -> dict[str, Any]:
    """Each number replaced by a simpler one where the claim stays violated."""
    for name, value in list(generators.items()):
        kind = theorem.domains[name].kind
        if kind == "index":
            continue
        for k in np.ndindex(np.shape(value)):
            for simpler in (*((Fraction(0),) if kind == "real" else ()), Fraction(1), Fraction(1, 2), Fraction(2)):
                trial = np.array(value, dtype=object)
                trial[k] = simpler
                candidate = {**generators, name: trial if np.ndim(value) else simpler}
                if _complexity(candidate) < _complexity(generators) and violated_at(theorem, candidate):
                    generators = candidate
                    value = candidate[name]
                    break
    return generators


def _suspects(theorem: Theorem, tries: int = 2000) -> Iterator[dict[str, Any]]:
    """Generators at which floating-point arrays violate the claim, the simplest first."""
    if theorem.witness is not None:
        yield {n: np.array(x, dtype=object) if isinstance(x, list | tuple) else x for n, x in theorem.witness.items()}
        return
    rng = random.Random(0)
    for sizes in two_sizes(theorem):
        drawn = [
            random_generators(theorem, sizes, rng, largest) for largest in (2, 3, 6, 20) for _ in range(tries // 4)
        ]
        drawn.sort(key=_complexity)
        found = (g for g, at in ((g, gap_at(theorem, g, 1e-6)) for g in drawn) if at.met and at.excess > 1)
        yield from itertools.islice(found, 20)


def _complexity(generators: Mapping[str, Any]) -> int:
    flat = itertools.chain.from_iterable(np.ravel(np.asarray(x, dtype=object)) for x in generators.values())
    return sum(abs(x.numerator) + x.denominator for x in flat)


def _exactly(generators: Mapping[str, Any]) -> dict[str, Any]:
    def rational(x: Any) -> sp.Expr:
        return x if isinstance(x, sp.Basic) else sp.Rational(x.numerator, x.denominator)

    return {
        n: x if isinstance(x, int) else np.vectorize(rational, otypes=[object])(x) if np.ndim(x) else rational(x)
        for n, x in generators.items()
    }


def _violated(relation: Relation) -> bool:
    """Is a duty violated at exact numbers, with every premise met?"""

    def value(x: sp.Expr) -> Any:
        return evaluate(x, {}, {}, DIGITS)

    if any(value(p) < 0 for d in relation.duties if d.kind == "premise" for (p,) in components(d.values, [])):
        return False
    for kind, values in relation.duties:
        if kind == "zero" and any(differ(value(a), value(b)) for a, b in components(values, [])):
            return True
        if kind == "between":
            f, a, b = values
            if any(value(f(a + (b - a) * sp.Rational(n, 4))) < 0 for n in range(5)):
                return True
        if kind == "positive" and any(value(x) <= 0 for (x,) in components(values, [])):
            return True
        if kind in ("nonneg", "implied") and any(negative(value(x)) for (x,) in components(values, [])):
            return True
    return False


def _shown(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return "(" + ", ".join(_shown(v) for v in x) + ")"
    exactly = exact(x)
    if exactly.is_Rational:
        return str(exactly)
    short = sp.nsimplify(exactly) if len(str(exactly)) < 30 else exactly
    return str(short) if len(str(short)) < 30 else mp.nstr(evaluate(exactly, {}, {}), 8)
