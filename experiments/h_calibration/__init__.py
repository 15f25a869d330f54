"""What the h-calibration loss measures, and recalibration; ``python -m experiments.h_calibration`` runs it."""
