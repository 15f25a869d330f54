"""Predictive multiplicity: how far do the models that fit almost as well as the best disagree about a person?

``fit`` a logistic ``Baseline``; ``ranges`` has the viable range of every risk over {w : loss(w) <= best + epsilon},
with certificates; ``ambiguity`` and ``discrepancy`` count the risks that some, and that one, near-optimal model moves.
``fit_softmax`` and ``log_odds_ranges`` do so for more classes; ``formulas`` has what is known in closed form, in words.

Watson-Daniels, Parkes and Ustun 2023, arXiv:2206.01131, define all of these; the algorithms are ours.
"""

from sandbox.multiplicity import formulas
from sandbox.multiplicity.baseline import Baseline, excess, fit, merged, separable, separable_classes
from sandbox.multiplicity.discrepancy import (
    Discrepancy,
    conflicts,
    directions,
    discrepancy,
    knapsack,
    sphere,
    trial_models,
)
from sandbox.multiplicity.ranges import (
    Ranges,
    ambiguity,
    candidates,
    kl_interval,
    leverage,
    radius,
    ranges,
    ranges_of,
    third_derivative,
)
from sandbox.multiplicity.softmax import (
    SoftmaxBaseline,
    can_win,
    fit_softmax,
    log_odds_ranges,
    probability_ranges,
    softmax_excess,
)

__all__ = [
    "Baseline", "Discrepancy", "Ranges", "SoftmaxBaseline", "ambiguity", "can_win", "candidates", "conflicts",
    "directions", "discrepancy", "excess", "fit", "fit_softmax", "formulas", "kl_interval", "knapsack", "leverage",
    "log_odds_ranges", "merged", "probability_ranges", "radius", "ranges", "ranges_of", "separable",
    "separable_classes", "softmax_excess", "sphere", "third_derivative", "trial_models",
]  # fmt: skip
