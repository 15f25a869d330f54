"""How preference learning ranks pairs; ``python -m experiments.preference_rankings`` runs it."""
