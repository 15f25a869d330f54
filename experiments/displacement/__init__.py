"""The experiment on likelihood displacement."""
