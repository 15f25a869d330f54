"""Real data: what ships inside scikit-learn and statsmodels, and irises beside this file. Features standardised."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sandbox.validate import one_of

IRIS = Path(__file__).with_name("iris.csv")  # Fisher 1936, versicolor and virginica
DELTAS = (0.05, 0.1, 0.2)
LEVELS = (0.01, 0.05)  # epsilon as a share of the best model's loss

Data = tuple[np.ndarray, np.ndarray]


def design(features: Any) -> np.ndarray:
    """A column of ones, and the features (n, k) at mean 0 and standard deviation 1 (of the population)."""
    features = np.asarray(features, float)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    return np.concatenate([np.ones((len(scaled), 1)), scaled], axis=1)


def _diabetes() -> Data:
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    return design(data.data), (data.target > np.median(data.target)).astype(float)


THREE = ("worst area", "worst smoothness", "mean texture")


def _breast_cancer(names: tuple[str, ...] = ()) -> Data:
    """Malignant or not, from the features of these names; by default from the ten means."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    known = list(data.feature_names)
    columns = [known.index(name) for name in names or [name for name in known if name.startswith("mean ")]]
    return design(data.data[:, columns]), (data.target == 0).astype(float)


def _iris() -> Data:
    cells = np.genfromtxt(IRIS, delimiter=",", skip_header=1, dtype=str)
    return design(cells[:, :-1].astype(float)), (cells[:, -1] == "virginica").astype(float)


def _fair() -> Data:
    from statsmodels.datasets import fair

    table = fair.load_pandas().data
    return design(table.drop(columns="affairs")), (table["affairs"] > 0).to_numpy(float)


def _spector() -> Data:
    from statsmodels.datasets import spector

    table = spector.load_pandas().data
    return design(table.drop(columns="GRADE")), table["GRADE"].to_numpy(float)


# name: (package, reader)
SETS: dict[str, tuple[str, Callable[[], Data]]] = {
    "diabetes": ("sklearn", _diabetes),
    "breast_cancer_3": ("sklearn", lambda: _breast_cancer(THREE)),
    "breast_cancer_10": ("sklearn", _breast_cancer),
    "iris": ("", _iris),
    "fair": ("statsmodels", _fair),
    "spector": ("statsmodels", _spector),
}


def there(name: str) -> bool:
    """Is the package that a data set ships with installed?"""
    package = SETS[name][0]
    return not package or find_spec(package) is not None


def chosen(names: str) -> list[str]:
    """The data sets of a flag. Raises ValueError for one that is unknown, or whose package is not installed."""
    if names == "installed":
        return [name for name in SETS if there(name)]
    found = [one_of("real", name.strip(), SETS) for name in names.split(",")]
    for name in found:
        if not there(name):
            raise ValueError(
                f"real: {name} ships with {SETS[name][0]}, which is not installed: pip install -e '.[data]'"
            )
    return found


def read(name: str) -> Data:
    """Design (n, d) and labels (n,) of a data set."""
    return SETS[name][1]()
