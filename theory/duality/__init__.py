"""Utility-probability duality of neural networks (Huang and Yuan, 2023).

What the paper itself says was known to us from its abstract and first page: (P1) a trained network is an ordinal
utility, not a probability model; (P2) maximum likelihood drives it towards an optimal utility; (P3) that explains
paradoxes of language generation; (P4) an equation turns utilities into probabilities on which probability-compatible
decision rules do better. The theorems here, C1 to C13, are ours, built from the same premise; above all "residual
inversion (ours)" is not the paper's equation, which we have not seen.
"""

from theory.duality import choice, training, inversion, decisions  # noqa: I001

__all__ = ["choice", "decisions", "inversion", "training"]
