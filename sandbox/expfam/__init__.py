"""Exponential families, and how far from its target a maximum-likelihood fit of n draws lies, to the order n^-2.

A family has laws p_theta(x) = h(x) e^(theta . xi(x) - psi(theta)). The truth g need not be one of them: the member g*
closest to it, argmin KL(g || p_theta), is its information projection, and the fit ghat scatters around g*. The risk is
R(n) = E KL(g* || ghat) = a/n + b/n^2 + O(n^-3), in nats; projection first, fitted second.

terms: the cumulants that a and b are made of. finite: families on a finite alphabet, softmax models among them, and
their fits. exact: the same risk by enumeration, and by derivatives of any estimator. curved: one parameter, any model.
gaussian: the normal model on any data. one_parameter: families by their variance function. criterion: what follows for
p and n. regression: many small logistic and Bradley-Terry fits at once, by the same Newton steps.
"""

from sandbox.expfam import (
    criterion,
    curved,
    exact,
    finite,
    gaussian,
    newton,
    one_parameter,
    regression,
    terms,
)
from sandbox.expfam.terms import Expansion, Terms

__all__ = [
    "Expansion", "Terms", "criterion", "curved", "exact", "finite", "gaussian", "newton", "one_parameter", "regression",
    "terms",
]  # fmt: skip
