"""h-calibration: rethinking classifier recalibration with a probabilistic error-bounded objective (Huang et al. 2025).

A recalibration loss that sorts events by their probability and averages predicted minus observed over windows. What it
measures, how noisy that is, where the truth is its minimum and where not, what it cannot see, and which maps keep a
classifier's order. The paper's body was not at hand: statements marked "ours" are derived here, those marked "released
code" were read from its code.

gaps: sets, windows and their noise (C1-C4). subsets: pooled, leave-one-class-out, classwise (C5-C7). maps: order (C8).
scores: scoring rules and metrics (C9, C11). That the loss helps on data (C10, C12) is no statement: tests hold what was
measured.

Notation: an event is a sample and a class; p what is predicted, o 1 if it happens, q its true probability.
"""

from theory.h_calibration import gaps, subsets, maps, scores  # noqa: I001  the order of the claims

__all__ = ["gaps", "maps", "scores", "subsets"]
