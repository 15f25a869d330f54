"""Preference learning algorithms do not learn preference rankings (Chen et al., NeurIPS 2024).

How often is the preferred response the likelier one after training? The paper says what a perfect optimum would reach
and what loss a pair needs; flip times, the law of accuracy against loss, the bound for a data set and the corrections
are ours, and say so.

pairs: one pair, its loss, its time, and a set of pairs (C1, C2, C5-C8). optima: what a perfect optimum ranks (C3, C4,
C9-C11). winning: ranking against win rate (C12, C13). The paper's measurements (C14) are no statement.

Notation: m, log-odds of chosen against rejected; c, those of the reference for the rejected (> 0: it is wrong);
alpha, the share of raters who prefer the chosen. A pair is ranked right if m >= 0.
"""

from theory.preference_rankings import pairs, optima, winning  # noqa: I001  the order of the claims

__all__ = ["optima", "pairs", "winning"]
