"""Predictive multiplicity; ``python -m experiments.multiplicity`` runs it."""
