"""Programs and figures that a run leaves to others: traced once, and drawn by a second process."""

import pickle
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.ticker import FuncFormatter

from experiments import _figures, _programs
from sandbox import measures
from sandbox.runtime import quickly_compiled


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_programs, "directory", lambda: tmp_path)
    return tmp_path


def traced(counts: list[int], x: jax.Array, by: float) -> dict[str, jax.Array]:
    counts.append(1)
    return {"sum": jnp.sum(x) + by, "all": x * by}


def run(counts: list[int], x: jax.Array, by: float = 2.0, written: object = measures.margin) -> dict[str, jax.Array]:
    function = lambda x: traced(counts, x, by)  # noqa: E731 - a new function, as a new process would have
    return _programs.run(function, x, name="toy", made_of=f"{by}", written=written)  # type: ignore[arg-type]


def test_a_program_is_traced_once(programs: Path) -> None:
    counts: list[int] = []
    x = jnp.arange(3.0)
    first, second = run(counts, x), run(counts, x + 1)
    assert len(counts) == 1
    assert float(first["sum"]) == 5
    assert float(second["sum"]) == 8
    np.testing.assert_array_equal(second["all"], [2, 4, 6])
    assert len(list(programs.iterdir())) == 1


def test_what_a_program_is_made_of_and_its_shapes_make_another(programs: Path) -> None:
    counts: list[int] = []
    assert float(run(counts, jnp.ones(3))["sum"]) == 5
    assert float(run(counts, jnp.ones(3), by=4.0)["sum"]) == 7
    assert float(run(counts, jnp.ones(4))["sum"]) == 6
    assert run(counts, jnp.ones(4, int))["all"].dtype == jnp.result_type(float)
    assert len(counts) == len(list(programs.iterdir())) == 4


def test_another_source_forgets_the_program(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    run(counts, jnp.ones(3))
    monkeypatch.setattr(_programs, "_fingerprint", lambda: "another source, or another version of a library")
    run(counts, jnp.ones(3))
    assert len(counts) == 2
    assert len(list(programs.iterdir())) == 1  # the older one is gone


def test_the_fingerprint_sees_every_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in _programs.SOURCES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "of.py").write_text("1")
        (tmp_path / name / "data.csv").write_text("1")
    monkeypatch.setattr(_programs._ledger, "ROOT", tmp_path)
    seen = {_programs._fingerprint.__wrapped__()}
    for k, path in enumerate(sorted(tmp_path.rglob("*.*"))):
        path.write_text("2")
        seen.add(_programs._fingerprint.__wrapped__())
        assert len(seen) == k + 2
    (tmp_path / "theory" / "__pycache__").mkdir()
    (tmp_path / "theory" / "__pycache__" / "of.pyc").write_text("3")
    assert _programs._fingerprint.__wrapped__() in seen


def test_what_is_written_elsewhere_is_never_kept(programs: Path) -> None:
    counts: list[int] = []
    for written in (traced, partial(traced, counts), len):
        assert float(run(counts, jnp.ones(3), written=written)["sum"]) == 5
    assert len(counts) == 3
    assert not list(programs.iterdir())
    assert _programs._ours(partial(jax.jit(measures.margin)))


def test_what_cannot_be_kept_runs_all_the_same(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("a call that is not promised to be kept")

    monkeypatch.setattr(jax.export, "export", refuse)
    assert float(run([], jnp.ones(3))["sum"]) == 5
    assert not list(programs.iterdir())


def test_a_folder_that_cannot_be_written_is_slow_not_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_programs, "directory", lambda: tmp_path / "file" / "programs")
    assert float(run([], jnp.ones(3))["sum"]) == 5


def test_keys_go_in_and_the_draws_are_those_of_the_function_itself(programs: Path) -> None:
    key = jax.random.key(7)

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (5,))

    draws = partial(_programs.run, draw, key, name="toy", made_of="", written=measures.margin)
    for _ in range(2):
        np.testing.assert_array_equal(draws(), jax.random.normal(key, (5,)))


@pytest.mark.parametrize("level", [0, 1])
def test_a_cheap_compilation_computes_the_same(programs: Path, level: int) -> None:
    assert float(_programs.run(jnp.sum, jnp.arange(4.0), name="t", made_of="", written=run, level=level)) == 6
    assert quickly_compiled(level)["xla_backend_optimization_level"] == level


# -- figures -----------------------------------------------------------------------------------------------------------


KINDS = ("png", "pdf", "svg")


def figures(count: int) -> list[plt.Figure]:
    drawn = []
    for k in range(count):
        figure, axes = plt.subplots()
        axes.plot(np.arange(5.0) ** k, label=f"$x^{k}$")
        axes.set(xlabel="x, nats", yscale="log")
        drawn.append(figure)
    return drawn


def test_two_processes_draw_the_same_bytes_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_figures.os, "cpu_count", lambda: 2)
    with _figures.style(quick=True), _figures.Drawers(quick=True) as drawers:
        for k, figure in enumerate(figures(3)):
            drawers.write(figure, 0.2, KINDS, tmp_path / f"both{k}.png")
        drawers._taken[0].result()  # the other process has drawn the first
        assert (tmp_path / "both0.svg").exists()
        drawers.wait()
        for k, figure in enumerate(figures(3)):
            for kind in KINDS:
                _figures.write(figure, 0.2, tmp_path / f"one{k}.{kind}")
    for k in range(3):
        for kind in KINDS:
            assert (tmp_path / f"both{k}.{kind}").read_bytes() == (tmp_path / f"one{k}.{kind}").read_bytes()


def test_what_the_other_process_could_not_write_is_raised_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_figures.os, "cpu_count", lambda: 2)
    with _figures.style(quick=True), _figures.Drawers(quick=True) as drawers:
        first, second = figures(2)
        drawers.write(second, 0, ["png"], tmp_path / "missing" / "bad.png")
        drawers.write(first, 0, ["png"], tmp_path / "good.png")
        assert drawers._taken[0].exception() is not None
        with pytest.raises(FileNotFoundError, match="missing"):
            drawers.wait()


@pytest.mark.parametrize("cores", [1, 2])
def test_a_figure_that_cannot_be_drawn_is_no_missing_file(
    cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An IndexError of a drawing is none of the queue's."""
    monkeypatch.setattr(_figures.os, "cpu_count", lambda: cores)
    with _figures.style(quick=True), _figures.Drawers(quick=True) as drawers:
        [figure] = figures(1)
        figure.axes[0].xaxis.set_major_formatter(FuncFormatter("{2}".format))  # there are two arguments
        drawers.write(figure, 0, ["png"], tmp_path / "bad.png")
        for taken in drawers._taken:
            assert isinstance(taken.exception(), IndexError)
        with pytest.raises(IndexError, match="index 2"):
            drawers.wait()


def test_a_figure_that_cannot_be_sent_is_drawn_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_figures.os, "cpu_count", lambda: 2)
    with _figures.style(quick=True), _figures.Drawers(quick=True) as drawers:
        first, second = figures(2)
        second.axes[0].xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        with pytest.raises((AttributeError, pickle.PicklingError)):
            pickle.dumps(second)
        for name, figure in (("b.png", second), ("a.png", first)):
            drawers.write(figure, 0, ["png"], tmp_path / name)
        drawers._taken[0].result()
        assert len(drawers._left) == 1
        drawers.wait()
    assert (tmp_path / "b.png").stat().st_size > 0


def test_a_figure_outlives_the_process_that_should_have_drawn_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_figures.os, "cpu_count", lambda: 2)
    with _figures.style(quick=True), _figures.Drawers(quick=True) as drawers:
        for name, figure in zip("abc", figures(3), strict=True):
            drawers.write(figure, 0, ["png"], tmp_path / f"{name}.png")
            drawers._taken[-1].result()
            if drawers._second is not None:
                drawers._second.kill()
        assert len(drawers._left) == 1  # the second; the third one found another process
        drawers.wait()
    assert all((tmp_path / f"{name}.png").stat().st_size > 0 for name in "abc")
