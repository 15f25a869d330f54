"""Predictive multiplicity in probabilistic classification (Watson-Daniels, Parkes and Ustun, AAAI 2023).

Many models fit almost equally well: how far do they disagree about one person? The paper defines viable ranges,
ambiguity and discrepancy, and computes them; that the level set is a ball of KL, and all that follows from it, is ours.

ball: what the level set is, and what certifies an end of a range (C1, C2, C7). ends: where the ends lie for a small
epsilon, and what all ranges sum to (C3, C4). counts: how many can conflict, and who pays (C5, C6, C8). Prevalence on
real data (C9) is no statement: the experiment and its tests have the table.

Notation: x (n, d) examples, y labels in {0, 1}, w0 the best coefficients, w others, t logits, p risks; L mean loss in
nats; epsilon, how much worse than w0 a model may be; delta, the move of a risk that counts as a conflict.
"""

from theory.multiplicity import ball, ends, counts  # noqa: I001  the order of the claims

__all__ = ["ball", "counts", "ends"]
