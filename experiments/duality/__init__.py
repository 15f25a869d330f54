"""The experiment on the duality of utilities and probabilities."""
