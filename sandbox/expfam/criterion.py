"""The p-n criterion: are there draws enough for this model, so that nobody can tell the fit from its target?

The Bayes error of telling two laws apart from one draw, at even odds, is 1/2 (1 - TV). If KL <= 8 alpha^2 it is at
least 1/2 - alpha, so the criterion accepts a model at n draws when its risk stays below 8 alpha^2. AIC and TIC compare
models with each other; this one looks at a single model. Functions of numbers are written in the words.
"""

from __future__ import annotations

from typing import Any

from sandbox.algebra import relu, sqrt, total
from sandbox.expfam.terms import Expansion
from sandbox.validate import in_range

__all__ = ["aic", "aicc", "allowed_risk", "bayes_error", "draws_needed", "draws_needed_first", "tic", "tic_second"]


def allowed_risk(alpha: Any) -> Any:
    """8 alpha^2 nats; alpha, from 0 to 1/2, is how far below 1/2 the Bayes error may fall."""
    return 8 * in_range("alpha", alpha, 0, 0.5, "()") ** 2


def bayes_error(p: Any, q: Any) -> Any:
    """1/2 total(min(p, q)) of two laws (K,), from 0 (told apart for certain) to 1/2 (the same law)."""
    return (1 - total(relu(p - q))) / 2


def draws_needed_first(found: Expansion, risk: Any) -> Any:
    """n at which a/n is the allowed risk."""
    return found.a / risk


def draws_needed(found: Expansion, risk: Any) -> Any:
    """n* at which a/n + b/n^2 is the allowed risk: a/risk + b/a to first order. NaN if it never is (b far below 0)."""
    return (found.a + sqrt(found.a**2 + 4 * found.b * risk)) / (2 * risk)


# -- scores of models, deviance units: the smaller the better; ``loss``: mean training loss, nats a draw ---------------


def aic(loss: Any, n: Any, p: Any) -> Any:
    """2 n loss + 2 p. Akaike 1973."""
    return 2 * n * loss + 2 * p


def aicc(loss: Any, n: Any, p: Any) -> Any:
    """AIC with 2 p n / (n - p - 1) for n > p + 1. Hurvich and Tsai 1989, whose models are regressions."""
    return 2 * n * loss + 2 * p * n / (n - p - 1)


def tic(loss: Any, n: Any, t0: Any) -> Any:
    """2 n loss + 2 t0. Takeuchi 1976: t0 = tr(J^-1 K) is p only if the model is right."""
    return 2 * n * loss + 2 * t0


def tic_second(loss: Any, n: Any, optimism: Expansion) -> Any:
    """2 n (loss + optimism at n), to the order n^-2."""
    return 2 * n * (loss + optimism.at(n))
