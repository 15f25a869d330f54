"""Compare the numbers of quick runs with the committed ones: ``python .ci/compare.py DIR``.

DIR/NAME/numbers.json, made by ``python -m experiments.NAME --quick --out DIR``, must say what
paper_figures/NAME/quick.json says: the same keys and words, and numbers to the six digits that are recorded. Versions
may differ, and so may gaps, which are mostly rounding errors: whether they are small enough, ``holds`` says. To accept
a change, copy the new file over the old one and say why in the commit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox.tolerances import Tolerance

SHOWN = 20
RECORDED = Tolerance(1.1e-5, 1e-9, "six digits are recorded: one unit of the sixth, which may round either way")


def differences(committed: Any, made: Any, at: str = "") -> Iterator[str]:
    """One line for each place where two records differ; ``at`` is the place."""
    number = (int, float)
    if isinstance(committed, dict) and isinstance(made, dict):
        for key in sorted({*committed, *made}):
            if not (key in committed and key in made):
                yield f"{at}.{key}: only in the {'committed' if key in committed else 'new'} record"
            elif (at, key) != ("", "versions") and key != "gap":
                yield from differences(committed[key], made[key], f"{at}.{key}")
    elif isinstance(committed, list) and isinstance(made, list):
        if len(committed) != len(made):
            yield f"{at}: {len(committed)} entries committed, {len(made)} made"
        for i, (old, new) in enumerate(zip(committed, made, strict=False)):
            yield from differences(old, new, f"{at}[{i}]")
    elif isinstance(committed, number) and isinstance(made, number) and bool not in (type(committed), type(made)):
        both_nan = committed != committed and made != made
        if not both_nan and not RECORDED.allows(committed, made):
            yield f"{at}: {committed!r} committed, {made!r} made"
    elif type(committed) is not type(made) or committed != made:
        yield f"{at}: {committed!r} committed, {made!r} made"


def main(figures: Path, out: Path) -> int:
    """Print a verdict for each folder of ``figures``; return how many do not agree with ``out``."""
    names = sorted(folder.name for folder in figures.iterdir() if folder.is_dir())
    failures = 0
    for name in names:
        committed, made = figures / name / "quick.json", out / name / "numbers.json"
        absent = [path for path in (committed, made) if not path.is_file()]
        if absent:
            found = [f"{path} is missing" for path in absent]
        else:
            found = list(differences(json.loads(committed.read_text()), json.loads(made.read_text())))
        print(f"{name}: {f'{len(found)} differences' if found else 'quick numbers agree'}")
        for line in found[:SHOWN]:
            print(f"  {line}")
        if len(found) > SHOWN:
            print(f"  and {len(found) - SHOWN} more")
        failures += bool(found)
    if not names:
        print(f"nothing to compare in {figures}")
    return failures if names else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(min(main(Path("paper_figures"), Path(sys.argv[1])), 1))
