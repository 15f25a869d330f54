"""The p-n criterion: are there draws enough for a model of p parameters? ``python -m experiments.pn_criterion``."""
