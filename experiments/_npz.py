"""Arrays from a user's .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises ValueError for another kind of file, a torn one, no real numbers."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an .npz file; numpy.savez writes one")
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                array = archive[name]
            except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{path}: {name}: {error}") from None
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
                kind = getattr(array, "dtype", "no array")
                raise ValueError(f"{path}: {name} ({kind}): must be real numbers (save bfloat16 as float32)")
            arrays[name] = array
    return arrays
