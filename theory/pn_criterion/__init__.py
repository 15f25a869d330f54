"""MLE convergence speed to information projection of exponential family (Sheena, arXiv 2021).

Fit a model of p parameters to n draws. The truth g need not be in it; g*, its information projection, is the closest
member, and the fit scatters around g*. The paper (Sheena, 2021) expands that part of the error alone, E KL(g* || ghat),
to the order n^-2 and asks: are there draws enough, that nobody could tell the fit from g*? The author's programs were
read for the coefficients and the threshold, the printed theorems were not: a claim that says "ours" was derived here.

geometry: projections and divergences (C1, C2). expansion: a/n + b/n^2 and the reverse direction (C3, C5). families: the
closed forms (C4). curves: models that are no exponential family (C6). telling: from divergence to Bayes error (C7).
draws: the criterion and its blind spots (C8, C9). scores: AIC, TIC and optimism (C10).
"""

from theory.pn_criterion import geometry, expansion, families, curves, telling, draws, scores  # noqa: I001  the order of the claims

__all__ = ["curves", "draws", "expansion", "families", "geometry", "scores", "telling"]
