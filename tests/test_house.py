"""Rules of the house that no linter knows. Each check is a function of a text, tried on a text that breaks it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sandbox", "theory", "experiments")
LAYERS = ("sandbox.algebra", "sandbox", "theory", "experiments", "tests")  # each may import those before it
BORROWING = {"real_model"}  # experiments that try the theorems of other phenomena and have none of their own
LESSONS = {"start_here"}  # notebooks that belong to no phenomenon
SHARED = {"harness"}  # what experiments may import of one another's package; so may any name that begins with _

FIGURES = (
    "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e . "
    "&& .venv/bin/python -m experiments.entanglement"
)
TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[test]' && .venv/bin/python -m pytest"
)


def committed_files() -> Iterator[Path]:
    """Every file below the root that .gitignore does not name."""
    ignored = [".git", *(line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line)]
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not any(fnmatch(name, pattern) for pattern in ignored)]
        yield from (Path(folder, name) for name in files if not any(fnmatch(name, pattern) for pattern in ignored))


FILES = sorted(committed_files())
SCRIPTS = [path for path in FILES if path.suffix == ".py"]
MODULES = [path for path in SCRIPTS if path.relative_to(ROOT).parts[0] in PACKAGES]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """Dotted name; a package's own file keeps its ``.__init__``, so that a relative import is always one level up."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def found(check, paths: list[Path]) -> list[str]:
    """What ``check(source, module)`` finds in the files, one line each."""
    assert paths, "nothing to check"
    return [
        f"{shown(path)}: {finding}"
        for path in paths
        for finding in check(path.read_text(encoding="utf-8"), module_name(path))
    ]


# -- imports go one way --------------------------------------------------------------------------------------------


def imported(source: str, module: str) -> Iterator[str]:
    """Dotted names that a module imports; a name taken from a package counts as that package's member."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def layer(name: str) -> int | None:
    return next((i for i, top in enumerate(LAYERS) if name == top or name.startswith(f"{top}.")), None)


def upward_imports(source: str, module: str) -> list[str]:
    here = layer(module)
    return [f"{module} imports {name}" for name in imported(source, module) if (layer(name) or 0) > (here or 0)]


def imports_between_experiments(source: str, module: str) -> list[str]:
    own = module.split(".")[1:2]
    others = [(name, name.split(".")[1:2]) for name in imported(source, module) if name.startswith("experiments.")]
    return [
        f"{module} imports {name}"
        for name, other in others
        if own != other and other[0] not in SHARED and not other[0].startswith("_")
    ]


def test_imports_go_one_way():
    assert found(upward_imports, MODULES) == []


def test_experiments_do_not_import_one_another():
    paths = [path for path in MODULES if module_name(path).startswith("experiments.")]
    assert [line for path in paths for line in found(imports_between_experiments, [path])] == []


# -- one phenomenon, one name, five places -------------------------------------------------------------------------


def phenomena() -> list[str]:
    names = {
        path.stem for path in (ROOT / "theory").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    return sorted(name for name in names if name not in {"statement", "proof"} and not name.startswith("_"))


def test_every_phenomenon_is_in_five_places():
    missing = [
        pattern
        for name in [*phenomena(), *BORROWING]
        for pattern in (
            f"experiments/{name}",
            f"tests/test_{name}*.py",
            f"notebooks/{name}.py",
            f"paper_figures/{name}/numbers.json",
            f"paper_figures/{name}/quick.json",
        )
        if not any(ROOT.glob(pattern)) and not (ROOT / f"{pattern}.py").is_file()
    ]
    assert missing == []


def test_nothing_stands_without_its_theory():
    """An orphan folder of figures, notebook or experiment is a misspelt name."""
    known = {*phenomena(), *BORROWING, *SHARED}
    folders = {path.name for path in (ROOT / "paper_figures").glob("*") if path.is_dir()}
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("[!_]*.py")}
    experiments = {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")}
    assert (folders | (notebooks - LESSONS) | experiments) - known == set()


# -- sources -------------------------------------------------------------------------------------------------------


def long_files(source: str, module: str) -> list[str]:
    lines = len(source.splitlines())
    return [f"{lines} lines, at most 400"] if lines > 400 else []


def undocumented(source: str, module: str) -> list[str]:
    """Modules, public functions and public classes without a docstring.

    A word of the algebra has its docstring in ``__init__`` only; what lies in a module ``_name`` is not public.
    """
    from sandbox import algebra

    reads_words = module.startswith("sandbox.algebra.") and module != "sandbox.algebra.__init__"
    words = set(algebra.__all__) if reads_words else set()
    private = re.search(r"\._[^_]", f".{module}")
    tree = ast.parse(source)
    public = [
        node
        for node in tree.body
        if not private
        and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and node.name not in words
    ]
    bare = [node.name for node in public if not ast.get_docstring(node)]
    return bare if ast.get_docstring(tree) else ["the module", *bare]


def qualified_names(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Every use of something imported, by its full dotted name: ``np.random.rand`` is ``numpy.random.rand``."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        path: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            path.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in aliases and isinstance(node, ast.Attribute | ast.Name):
            yield ".".join([aliases[inner.id], *path]), node


def private_names(source: str, module: str) -> list[str]:
    """Names of JAX, Optax and Flax that begin with an underscore, imported or reached through an attribute."""
    names = [*imported(source, module), *(name for name, _ in qualified_names(ast.parse(source)))]
    return sorted(
        {
            name
            for name in names
            if name.split(".")[0] in {"jax", "jaxlib", "optax", "flax"}
            and any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
        }
    )


SEEDED = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "PCG64DXSM", "Philox", "SFC64"}
SEEDABLE = {"numpy.random.default_rng", "random.Random"}


def global_randomness(source: str, module: str) -> list[str]:
    """Draws from a state that the whole process shares, and generators made without a seed."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    bare = {id(call.func) for call in calls if not call.args and not call.keywords}
    findings = []
    for name, node in qualified_names(tree):
        head, _, last = name.rpartition(".")
        shared = (head == "random" and last != "Random") or (head == "numpy.random" and last not in SEEDED)
        if shared or (name in SEEDABLE and id(node) in bare):
            findings.append(name)
    return findings


def test_no_file_is_long():
    assert found(long_files, MODULES) == []


def test_public_names_are_documented():
    assert found(undocumented, MODULES) == []


def test_only_public_names_of_the_libraries():
    assert found(private_names, SCRIPTS) == []


def test_no_global_random_state():
    assert found(global_randomness, SCRIPTS) == []


@pytest.mark.parametrize(
    ("check", "module", "bad", "good"),
    [
        (
            upward_imports,
            "sandbox.algebra.arrays",
            "from sandbox import policies",
            "from sandbox.algebra import concrete",
        ),
        (upward_imports, "sandbox.algebra.arrays", "from .. import policies", "from . import concrete"),
        (upward_imports, "sandbox.algebra.__init__", "from .. import policies", "from . import concrete"),
        (upward_imports, "sandbox.losses", "import theory.duality", "from sandbox import algebra"),
        (upward_imports, "theory.duality", "from experiments import harness", "from theory import statement"),
        (upward_imports, "experiments.duality", "from tests.tolerances import golden", "import theory.duality"),
        (
            imports_between_experiments,
            "experiments.duality",
            "from experiments.entanglement import Setup",
            "from experiments.harness import Experiment",
        ),
        (
            imports_between_experiments,
            "experiments.duality.draw",
            "from experiments import entanglement",
            "from experiments.duality.setup import Setup",
        ),
        (long_files, "sandbox.x", "\n" * 401, "\n" * 400),
        (undocumented, "sandbox.x", '"""D."""\ndef f(): ...', '"""D."""\ndef f():\n    """D."""\ndef _g(): ...'),
        (undocumented, "sandbox.x", '"""D."""\nclass C: ...', '"""D."""\nclass C:\n    """D."""'),
        (undocumented, "sandbox.x", "x = 1", '"""D."""'),
        (undocumented, "theory._x", "def f(): ...", '"""D."""\ndef f(): ...'),
        (undocumented, "sandbox.algebra.x", '"""D."""\ndef f(): ...', '"""D."""\ndef exp(x): ...'),
        (undocumented, "sandbox.algebra.__init__", '"""D."""\ndef exp(x): ...', '"""D."""'),
        (private_names, "sandbox.x", "from jax._src import core", "from jax.sharding import Mesh"),
        (private_names, "sandbox.x", "import jax.numpy as jnp\njnp._where(1)", "import jax\njax.__version__"),
        (private_names, "sandbox.x", "import jax\njax._src.core.x", "import jax\nx._replace(a=jax.numpy.ones(2))"),
        (private_names, "sandbox.x", "from flax import _nnx", "from flax import nnx"),
        (
            global_randomness,
            "x",
            "import numpy as np\nnp.random.seed(0)",
            "import numpy as np\nnp.random.default_rng(0)",
        ),
        (global_randomness, "x", "import numpy\nnumpy.random.rand(2)", "import jax\njax.random.normal(key)"),
        (global_randomness, "x", "from numpy.random import randn\nrandn()", "rng.random.seed(0)"),
        (global_randomness, "x", "import random\nrandom.shuffle(x)", "import random\nrandom.Random(0).shuffle(x)"),
        (global_randomness, "x", "import numpy as np\nnp.random.default_rng()", "x = 1"),
        (global_randomness, "x", "import random\nrandom.Random()", "import random\nx: random.Random"),
    ],
)
def test_each_check_bites(check, module, bad, good):
    assert check(bad, module) != []
    assert check(good, module) == []


IMPORT_ALL = """
import importlib, pkgutil, random
import jax, numpy, rich.console, rich.progress, rich.table, tyro
state = random.getstate(), numpy.random.get_state()[1].tolist()
settings = dict(jax.config.values)
for package in map(importlib.import_module, {packages!r}):
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
changed = [key for key, value in jax.config.values.items() if key in settings and settings[key] != value]
assert not changed, changed
assert jax.numpy.ones(1).dtype == "float32"
assert state == (random.getstate(), numpy.random.get_state()[1].tolist()), "a random state"
"""


def test_importing_changes_nothing():
    """Neither the precision nor any other setting of JAX, nor a random state (but rich draws); no warning."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")} | {"JAX_PLATFORMS": "cpu"}
    program = IMPORT_ALL.format(packages=PACKAGES)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


# -- what a stranger meets -----------------------------------------------------------------------------------------

FORBIDDEN = {
    "host of a package registry": r"pyp[i]\.org|pythonhoste[d]\.org|registry\.npmj[s]|conda\.anacond[a]\.org",
    "path of a machine": r"(?<![\w.])/(?:home|Users|root|wor[k])/\w|[A-Z]:\\\\?Users\\",
}


def strangers_in(text: str) -> list[str]:
    return [f"{what} {m.group()!r}" for what, pattern in FORBIDDEN.items() for m in re.finditer(pattern, text)]


def test_no_registry_host_and_no_machine_path():
    texts = [path for path in FILES if b"\0" not in path.read_bytes() and path != Path(__file__)]
    assert len(texts) > 20
    assert [
        f"{shown(path)}: {finding}"
        for path in texts
        for finding in strangers_in(path.read_text(encoding="utf-8", errors="replace"))
    ] == []


@pytest.mark.parametrize("bad", ["see " + "pypi" + ".org/x", 'File "' + "/home" + '/ada/x.py"', "C:" + "\\Users\\ada"])
def test_hosts_and_paths_are_seen(bad):
    assert strangers_in(bad) != []
    assert strangers_in("https://example.org/home/x, ./home/x and a/root/b") == []


def test_constraints_name_versions_and_no_address():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.match(r"[\w.-]+==[\w.]+( ; .+)?$", line)] == []
    assert "://" not in (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(need for extra in extras if extra != "peers" for need in extras[extra])]
    assert {re.split(r"[^\w-]", need)[0] for need in wanted} - pinned == set()


@pytest.mark.parametrize("command", [FIGURES, TESTS], ids=["figures", "tests"])
def test_readme_gives_the_two_commands(command):
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    experiment = re.search(r"-m experiments\.(\w+)$", command)
    assert experiment is None or experiment[1] in phenomena()


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()


def test_ci_run_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_house_style_is_read_whole():
    """Matplotlib only logs a key it does not know; colours and line styles of the cycle must all differ."""
    path = ROOT / "experiments" / "house.mplstyle"
    keys = [line.split(":")[0] for line in path.read_text().splitlines() if line and not line.startswith("#")]
    style = matplotlib.rc_params_from_file(path, use_default_template=False)
    assert sorted(style) == sorted(keys)
    cycle = style["axes.prop_cycle"].by_key()
    assert len(set(cycle["color"])) == len(set(map(str, cycle["linestyle"]))) == len(cycle["color"])


def test_tests_have_the_same_names_in_every_process(request):
    """An address in one keeps several processes from sharing the tests."""
    assert not [item.nodeid for item in request.session.items if re.search(r" at 0x[0-9a-f]+", item.nodeid)]
