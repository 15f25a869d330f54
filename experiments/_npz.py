"""Arrays from a user's .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np


def read_npz(path: Path, only: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, all or ``only`` some. Raises ValueError for another kind of file, a torn one,
    and for what is no real numbers.
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an .npz file; numpy.savez writes one")
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in (name for name in archive.files if not only or name in only):
            try:
                array = archive[name]
            except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{path}: {name}: must be an array of numbers: {error}") from None
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
                kind = getattr(array, "dtype", "no array")
                raise ValueError(f"{path}: {name} ({kind}): must be real numbers (save bfloat16 as float32)")
            arrays[name] = array
    return arrays
