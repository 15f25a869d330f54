"""Calibration: are a classifier's probabilities right, and if not, which map of them is?

formulas: gaps, windows and maps in the words of ``sandbox.algebra``. binning: one rule for edges. objective: the
h-calibration loss, NLL and Brier. maps: recalibrators by one interface. fit: fitting and keeping them. metrics:
nineteen numbers with bootstrap intervals. Predictions are log-probabilities or logits (N, C), labels 0 to C - 1 (N,).
"""

from sandbox.calibration.binning import *  # noqa: F403
from sandbox.calibration.fit import *  # noqa: F403
from sandbox.calibration.formulas import *  # noqa: F403
from sandbox.calibration.maps import *  # noqa: F403
from sandbox.calibration.metrics import *  # noqa: F403
from sandbox.calibration.objective import *  # noqa: F403
