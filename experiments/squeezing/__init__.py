"""Who gains what a rejected response loses; ``python -m experiments.squeezing`` runs it."""
