"""Where a claim's arguments come from: free generators, and a map from them to admissible values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.algebra import log, total


@dataclass(frozen=True)
class Domain:
    """A set of admissible values: free generators and a map from them to the value, written in the words.

    kind: what a generator is: "real", "nonzero", "positive" or "index". axes: the names of the value's axes.
    make: the map. law: the value is positive and sums to one over its last axis.
    distinct: an index that no other index equals.
    """

    kind: str
    axes: tuple[str, ...] = ()
    make: Callable[[Any], Any] = field(default=lambda x: x)
    law: bool = False
    distinct: bool = True


def Real() -> Domain:
    """Any real number."""
    return Domain("real")


def Reals(*axes: str) -> Domain:
    """Any real array."""
    return Domain("real", axes)


def NonZeros(*axes: str) -> Domain:
    """An array of real numbers none of which is 0: a vector that is not zero, in a basis that shows it."""
    return Domain("nonzero", axes)


def Positive() -> Domain:
    """A number > 0."""
    return Domain("positive")


def Moderate() -> Domain:
    """A number > 0, made as log(1 + k): draws stay below 4, where exponentials of products are floats."""
    return Domain("positive", make=lambda k: log(1 + k))


def Positives(*axes: str) -> Domain:
    """An array of numbers > 0."""
    return Domain("positive", axes)


def Negative() -> Domain:
    """A number < 0, as a log-probability is."""
    return Domain("positive", make=lambda k: -k)


def Unit() -> Domain:
    """A number strictly between 0 and 1."""
    return Domain("positive", make=lambda k: 1 / (1 + k))


def Units(*axes: str) -> Domain:
    """An array of numbers strictly between 0 and 1."""
    return Domain("positive", axes, lambda k: 1 / (1 + k))


def Below(top: int) -> Domain:
    """A number strictly between 0 and ``top``."""
    return Domain("positive", make=lambda k: top / (1 + k))


def Simplex(*axes: str) -> Domain:
    """A law on the last axis (one for each element of the axes before it), every probability > 0."""

    def normalised(x: Any) -> Any:
        whole = total(x)
        return x / (whole[..., None] if len(axes) > 1 else whole)

    return Domain("positive", axes, normalised, law=True)


def Logits(*axes: str) -> Domain:
    """Any real array, made as logarithms of positive numbers, so that its softmax is rational at rational points."""
    return Domain("positive", axes, log)


def Index(axis: str, distinct: bool = True) -> Domain:
    """An element of an axis. Distinct ones differ from each other; others may coincide with any."""
    return Domain("index", (axis,), distinct=distinct)
