"""A common pitfall of margin-based alignment: gradient entanglement (Yuan et al., ICLR 2025).

A margin loss asks only that the chosen response gain on the rejected one. A gradient step moves each log-probability
through an inner product that contains the gradient of the other: when that product is large, both rise, or both fall,
while the margin grows. What the paper states is marked with its equation; what is ours says so.

geometry: two gradients and two weights, any model (C1-C5). tokens: one token, prefixes, suffixes (C6-C8). models: where
entanglement can come from (C9, C10) and what mends it. losses: the weights of every preference loss (C11).
facts: what each loss does in the end: where it stops, what it bounds, what it never sees (F1-F8).
"""

from theory.entanglement import geometry, tokens, models, losses, facts  # noqa: I001  the order of the claims

__all__ = ["facts", "geometry", "losses", "models", "tokens"]
