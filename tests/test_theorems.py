"""Every theorem of every paper: proved, tried on draws, its planted errors caught, its readings agreeing.

Nothing here names a theorem: whoever adds ``theory/NAME.py`` adds it to these tests.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Collection
from pathlib import Path

import pytest

import theory
from tests.engine import (
    assert_concrete_reading_agrees,
    assert_every_choice_of_indices_holds,
    assert_sizefree_reading_agrees,
    counterexample_on_arrays,
    planted,
    skip_unless_precise,
    survey,
    verdict,
)
from theory import _ledger, _pages, statement
from theory._arrays import relation_of
from theory.proof import Refuted, holds
from theory.statement import Theorem

ROOT = Path(theory.__file__).parents[1]
REFUTED = (ROOT / "docs/refuted.md").read_text(encoding="utf-8")
STATED = {name: theory.theorems(name) for name in theory.names()}
EVERY = [pytest.param(t, id=f"{name}-{t.name}") for name, found in STATED.items() for t in found]
TRUE = [p for p in EVERY if p.values[0].expect != "refuted"]
RELATIONS = {
    name for name, f in vars(statement).items() if getattr(f, "__annotations__", {}).get("return") == "Relation"
}
FALSE = [p for p in EVERY if p.values[0].expect == "refuted"]
PROVED = [p for p in EVERY if p.values[0].expect == "proved"]


@pytest.mark.parametrize("theorem", EVERY)
def test_verdict_is_the_expected_one(theorem: Theorem):
    skip_unless_precise(theorem)
    assert holds(theorem, verdict(theorem)), f"{theorem.id}: {verdict(theorem)}"


@pytest.mark.parametrize("theorem", TRUE)
def test_claim_holds_on_draws_and_some_meet_its_premises(theorem: Theorem, record_property):
    skip_unless_precise(theorem)
    share = survey(theorem)
    record_property("premises met", share)
    assert share > 0, f"{theorem.id}: no draw met the premises"


@pytest.mark.parametrize("theorem", TRUE)
def test_every_choice_of_indices_holds(theorem: Theorem):
    skip_unless_precise(theorem)
    assert_every_choice_of_indices_holds(theorem)


@pytest.mark.parametrize("theorem", FALSE)
def test_counterexample_as_shown_violates_the_claim_on_arrays(theorem: Theorem):
    found = verdict(theorem)
    assert isinstance(found, Refuted), found
    gap = counterexample_on_arrays(theorem, found)
    assert gap.met and gap.excess > 1, f"{found}: gap {gap.gap}"


@pytest.mark.parametrize("theorem", FALSE)
def test_counterexample_is_the_one_on_the_page(theorem: Theorem):
    skip_unless_precise(theorem)
    shown = _pages.falsified(_ledger.counterexample(verdict(theorem)), relation_of(theorem)[0])
    assert shown in REFUTED, "`python -m theory --readme` writes docs/refuted.md anew"


@pytest.mark.parametrize("theorem", PROVED)
def test_planted_errors_are_caught(theorem: Theorem):
    found = planted(theorem)
    if found is None or found.planted == 0:
        pytest.skip("nothing to plant an error in: no size-free reading, or no equality")
    assert found.survivors == (), f"{theorem.id}: {len(found.survivors)} of {found.planted} planted errors uncaught"


@pytest.mark.parametrize("theorem", EVERY)
def test_readings_agree(theorem: Theorem):
    read = 0
    for agrees in (assert_sizefree_reading_agrees, assert_concrete_reading_agrees):
        try:
            agrees(theorem)
            read += 1
        except NotImplementedError:
            continue
    if not read:
        pytest.skip("array reading only")


# -- how they are written ----------------------------------------------------------------------------------------------


def unstated(sources: list[str], elsewhere: Collection[str] = ()) -> list[str]:
    """The claims that lost their decorator: functions without one that nothing in the sources uses.

    ``elsewhere``: names that experiments use, for formulas; a function that returns a relation is none.
    """
    trees = [ast.parse(source) for source in sources]
    functions = [n for tree in trees for n in tree.body if isinstance(n, ast.FunctionDef) and not n.decorator_list]
    used = {
        name
        for top in itertools.chain.from_iterable(tree.body for tree in trees)
        for node in ast.walk(top)
        for name in [getattr(node, "id", getattr(node, "attr", None))]
        if name != getattr(top, "name", "")
    }
    return [
        f.name
        for f in functions
        if f.name not in used and (f.name not in elsewhere or RELATIONS & {*words(ast.unparse(f))})
    ]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("name", STATED)
def test_no_claim_is_without_its_decorator(name: str):
    theories, experiments = (
        [
            p.read_text(encoding="utf-8")
            for p in (ROOT / folder).rglob("*.py")
            if name in p.relative_to(ROOT).with_suffix("").parts
        ]
        for folder in ("theory", "experiments")
    )
    assert theories
    assert unstated(theories, {word for text in experiments for word in words(text)}) == []


def test_a_claim_without_its_decorator_is_seen():
    claim, helper = "def c(x):\n    return Equal(x, x)\n", "def h(x):\n    return 2 * x\n"
    assert unstated([claim, helper + "def user(x):\n    return h(x)\n"]) == ["c", "user"]
    assert unstated(["@theorem(SOURCE, 'x', x=Reals())\n" + claim]) == []
    assert unstated(["def again(n):\n    return again(n - 1)\n"]) == ["again"]
    assert unstated([claim, helper], elsewhere={"c", "h"}) == ["c"]


def keys_of(bibliography: str) -> set[str]:
    """The keys of a BibTeX file."""
    return set(re.findall(r"@\w+\s*\{\s*([^,\s]+)\s*,", bibliography))


def test_keys_are_read_from_a_bibliography():
    assert keys_of("@article{a2020b, title={x}}\n@misc{ c3 , }") == {"a2020b", "c3"}


@pytest.mark.parametrize("name", STATED)
def test_sources_stand_in_the_bibliography(name: str):
    known = keys_of((Path(theory.__file__).parent / "papers.bib").read_text(encoding="utf-8"))
    unknown = {t.source.key for t in STATED[name]} - known
    assert not unknown, f"{name} cites {sorted(unknown)}; papers.bib has no such entries"
    assert all(t.source.place for t in STATED[name])


@pytest.mark.parametrize("name", STATED)
def test_claims_are_said_in_words_and_in_a_formula(name: str):
    for theorem in STATED[name]:
        assert theorem.statement.endswith((".", "?")), f"{theorem.id}: the first paragraph is no sentence"
        latex = theorem.latex.replace(r"\{", "").replace(r"\}", "")
        assert latex.strip() and latex.count("{") == latex.count("}") and "$" not in latex, f"{theorem.id}: {latex}"


@pytest.mark.parametrize("name", STATED)
def test_names_are_unique(name: str):
    found = [t.name for t in STATED[name]]
    assert found, f"{name} states nothing"
    assert len(found) == len(set(found))


def test_papers_are_found():
    assert "entanglement" in theory.names()
    assert {t.name for t in theory.theorems("entanglement")} == {t.name for t in STATED["entanglement"]}
    with pytest.raises(ValueError, match="no_such_paper"):
        theory.theorems("no_such_paper")
