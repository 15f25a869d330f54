"""The gallery: pages from the committed record, and in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
import theory
from experiments import __main__ as front
from experiments import _gallery
from experiments._gallery import page as pages
from experiments._gallery.mathematics import mathml
from experiments._gallery.movable import Axis, Mark, Movable, Panel, Reading, Slider, drawn
from experiments._gallery.render import embedded
from tests.browser import MISSING, browser
from theory import _ledger

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "paper_figures"
BUILT = ("duality", "real_model")  # one with a figure that moves, one that borrows its theorems
VOID = {"meta", "link", "img", "input", "br", "hr"}


@pytest.fixture(scope="module")
def kept():
    """A ledger in which every verdict is as expected, so that nothing is proved here."""

    def verdicts(name):
        sizes = {"proved": "every", "checked": None, "refuted": None}
        return {
            t.name: _ledger.Proof("equality", t.expect, sizes[t.expect], f"detail <of> {t.name}", True, 1.0)
            for t in theory.theorems(name)
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ledger, "verdicts", verdicts)
        yield verdicts


@pytest.fixture(scope="module")
def folder(kept, tmp_path_factory):
    """A built gallery of two pages."""
    out = tmp_path_factory.mktemp("gallery") / "pages"
    x64 = jax.config.jax_enable_x64
    try:
        assert front.main(["gallery", *BUILT, "--out", str(out), "--record", str(RECORD)]) == 0
    finally:
        jax.config.update("jax_enable_x64", x64)
    return out


class Seen(HTMLParser):
    """Tags, what they load and name, and whether every one that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.loads, self.ids, self.links, self.problems = [], [], [], [], [], []
        self.feed(text)
        self.problems += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.loads += [v for k, v in attrs if k in ("src", "srcset", "data") or (k == "href" and tag != "a")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.problems.append(f"</{tag}> closes nothing")


def faults(text: str) -> list[str]:
    """What is wrong with a page that should stand alone and be usable by everybody."""
    seen = Seen(text)
    found = list(seen.problems)
    found += [f"loads {url[:60]}" for url in seen.loads if not url.startswith("data:")]
    found += [f"style loads {url}" for url in re.findall(r"url\(([^#)][^)]*)\)|@import", text)]
    found += [f"id {name} twice" for name in {i for i in seen.ids if seen.ids.count(i) > 1}]
    found += [f"no such place: {link}" for link in seen.links if link[0] == "#" and link[1:] not in seen.ids]
    found += ["a picture without alt" for tag, attrs in seen.tags if tag == "img" and "alt" not in attrs]
    labels = {attrs.get("for") for tag, attrs in seen.tags if tag == "label"}
    found += ["a slider without label" for tag, attrs in seen.tags if tag == "input" and attrs["id"] not in labels]
    tags = [tag for tag, _ in seen.tags]
    found += [f"no <{tag}>" for tag in ("title", "main", "header", "h1") if tags.count(tag) < 1]
    found += [] if ("html", {"lang": "en"}) in seen.tags else ["no language"]
    return found


# -- the pages ---------------------------------------------------------------------------------------------------------


def test_every_statement_is_typeset():
    stated = [t for name in theory.names() for t in theory.theorems(name)]
    assert len(stated) > 400
    wrong = []
    for theorem in stated:
        try:
            assert Seen(mathml(theorem.latex)).problems == []
        except (ValueError, AssertionError) as error:
            wrong.append(f"{theorem.id}: {error}")
    assert wrong == []


def test_latex_that_cannot_be_typeset_is_refused():
    with pytest.raises(ValueError, match="cannot be converted"):
        mathml(r"a_b_c")
    with pytest.raises(ValueError, match="braces"):
        mathml(r"\{ \frac{1}{2 \}")
    with pytest.raises(ValueError, match="a command is left"):
        mathml(r"a \nosuchcommand b")
    assert ">⟺</mo>" in mathml(r"a < b \iff c") and "&lt;" in mathml("a < b")
    assert '<mo form="prefix">−</mo>' in mathml("f(-x)") and "prefix" not in mathml("f(y - x)")


def test_a_line_may_end_outside_of_brackets_only():
    assert mathml(r"a = b,\; c = d \iff e").count("<math") == 3
    assert mathml(r"f(a,\; b)").count("<math") == 1


def test_pages_stand_alone_and_are_sound(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["duality.html", "index.html", "real_model.html"]
    for path in folder.iterdir():
        assert faults(path.read_text(encoding="utf-8")) == [], path.name


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ('<img src="https://example.org/x.png" alt="">', "loads https"),
        ('<link rel="stylesheet" href="style.css">', "loads style.css"),
        ("<div><p></div>", "</div> closes nothing"),
        ('<a href="#nowhere">x</a>', "no such place: #nowhere"),
        ('<img src="data:,">', "a picture without alt"),
        ('<input id="x" type="range">', "a slider without label"),
        ("<style>body { background: url(x.png) }</style>", "style loads x.png"),
    ],
)
def test_unsound_pages_are_seen(folder, bad, said):
    text = (folder / "index.html").read_text(encoding="utf-8").replace("</main>", f"{bad}</main>")
    assert any(said in fault for fault in faults(text))


def test_a_page_says_what_theory_and_record_say(folder):
    text = (folder / "duality.html").read_text(encoding="utf-8")
    record = json.loads((RECORD / "duality/numbers.json").read_text(encoding="utf-8"))
    stated = theory.theorems("duality")
    seen = Seen(text)
    assert [t for t in stated if t.name not in seen.ids] == []
    assert text.count('<div class="math"><math') == len(stated)
    refuted = [t for t in stated if t.expect == "refuted"]
    assert text.count("Counterexample:") == len(refuted)
    assert f"detail &lt;of&gt; {refuted[0].name}" in text and "detail <of>" not in text
    checks = [row for row in record["claims"] if row["gap"] is not None]
    assert text.count("<summary>") == len(checks) > 20
    assert text.count("<img") == len(record["figures"])
    for name in record["setup"]:
        assert f"<code>{name}</code>" in text
    assert f"jax {record['versions']['jax']}" in text
    assert "<pre><code>python -m experiments.duality</code></pre>" in text


def test_the_index_counts_borrowed_theorems_once(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    stated = [
        *theory.theorems("duality"),
        *(t for some in experiments.load("real_model").borrowed.values() for t in some),
    ]
    proved = sum(t.expect == "proved" for t in stated)
    assert f"✓ {proved}</span> proved at every size" in text
    assert {a["href"] for tag, a in Seen(text).tags if tag == "a"} == {"#content", "duality.html", "real_model.html"}


def test_the_same_bytes_again(folder, kept, tmp_path):
    x64 = jax.config.jax_enable_x64
    try:
        assert front.main(["gallery", "real_model", "--out", str(tmp_path), "--record", str(RECORD)]) == 0
    finally:
        jax.config.update("jax_enable_x64", x64)
    first, again = (re.sub(r"<footer>.*</footer>", "", (f / "real_model.html").read_text(), flags=re.S)
                    for f in (folder, tmp_path))  # fmt: skip
    assert first == again


def test_captions_are_cut_off_and_pictures_small(kept):
    from PIL import Image

    from experiments._gallery.pictures import picture

    record = json.loads((RECORD / "duality/numbers.json").read_text(encoding="utf-8"))
    figure = record["figures"][0]
    path = RECORD / "duality" / f"{figure['name']}.png"
    with Image.open(path) as whole:
        bottom = np.asarray(whole.convert("L"))
        found = picture(path, figure["caption"])
        kept_rows = found.height * 2
        assert 0.7 * bottom.shape[0] < kept_rows < bottom.shape[0]
        assert bottom[kept_rows:].min() < 128  # the caption was there
        assert picture(path, "").height * 2 >= bottom.shape[0] - 1
    assert len(found.data) < path.stat().st_size
    assert picture(path.with_name("nope.png"), "") is None


# -- what can be wrong with the input ----------------------------------------------------------------------------------


def test_bad_input_is_refused_in_one_line(kept, tmp_path, capsys, monkeypatch):
    def refused(*argv):
        assert front.main(["gallery", *map(str, argv)]) == 2
        out, err = capsys.readouterr()
        assert len(err.splitlines()) == 1 and out == ""
        return err

    assert "'nope' is no experiment; there are displacement" in refused("nope", "--record", RECORD)
    assert "there is no such folder; python -m experiments all --out" in refused("--record", tmp_path / "none")
    file = tmp_path / "file"
    file.write_text("")
    assert "cannot be written" in refused("real_model", "--record", RECORD, "--out", file / "below")
    record = tmp_path / "record/real_model"
    record.mkdir(parents=True)
    (record / "numbers.json").write_text("{")
    assert "numbers.json: cannot be read" in refused("real_model", "--record", record.parent, "--out", tmp_path / "out")
    (record / "numbers.json").write_text("[]")
    assert "is no record of a run; python -m experiments.real_model makes it anew" in refused(
        "real_model", "--record", record.parent, "--out", tmp_path / "out"
    )
    monkeypatch.setattr(_gallery, "NEEDS", ("jinja2", "no_such_module"))
    assert "no_such_module not installed: pip install -e '.[gallery]'" in refused("--record", RECORD)
    assert front.main(["gallery", "--nope"]) == 2
    capsys.readouterr()
    assert front.main(["gallery", "--help"]) == 0
    assert "no network needed" in capsys.readouterr().out


def test_without_a_run_a_page_says_so(kept, tmp_path, capsys):
    (tmp_path / "record").mkdir()
    shutil.copytree(RECORD / "real_model", tmp_path / "figures/real_model", ignore=shutil.ignore_patterns("*.p??"))
    said = "real_model: no run is recorded at"
    assert front.main(["gallery", "real_model", "--out", str(tmp_path), "--record", str(tmp_path / "record")]) == 0
    assert said in capsys.readouterr().out
    text = (tmp_path / "real_model.html").read_text(encoding="utf-8")
    assert said in text and faults(text) == [] and "<math" in text
    assert front.main(["gallery", "real_model", "--out", str(tmp_path), "--record", str(tmp_path / "figures")]) == 0
    text = (tmp_path / "real_model.html").read_text(encoding="utf-8")
    assert "diagram.png is missing; python -m experiments.real_model draws it" in text and faults(text) == []


def test_the_record_says_how_it_was_made():
    experiment = experiments.load("duality")
    record = json.loads((RECORD / "duality/numbers.json").read_text(encoding="utf-8"))
    record["setup"]["network_steps"], record["seed"], record["versions"]["precision"] = 32, 7, "float32"
    made = pages._settings(experiment, record)["command"]
    assert made == "python -m experiments.duality --network-steps 32 --seed 7 --no-x64"


def test_what_is_not_as_expected_is_said(kept):
    theorem = theory.theorems("duality")[0]
    fallen = _ledger.Proof("equality", "undecided", None, "out of time", False, 1.0)
    found = pages._claim(theorem, fallen, "", [])
    assert (found["kind"], found["verdict"]) == ("open", "not as expected: undecided")
    row = {"id": "x", "gap": 2.0, "tolerance": 1.0, "why": "reason (over 3 runs)", "expect": "proved", "holds": False}
    assert pages._checks([row])["x"][0]["summary"] == "DOES NOT HOLD: simulation: gap 2, tolerance 1, in 3 runs"
    assert "violated by 2 in 3 runs" in pages._checks([{**row, "expect": "refuted", "holds": True}])["x"][0]["summary"]


# -- figures that move -------------------------------------------------------------------------------------------------


def toy(y=((0.0, 1.0), (1.0, 0.0)), reading=(1.0, 2.0)):
    panel = Panel("title", "about", Axis("x", 1, 100, (1, 10, 100), log=True), Axis("y", 0, 1, (0, 1)),
                  [Mark("line", [1, 100], y, (0,)), Mark("dots", [10], [0.5])])  # fmt: skip
    return Movable("toy", "caption", [Slider("a </script>", (1, 2), start=1)], [panel], [Reading("r", reading, (0,))])


def test_marks_stand_where_their_axes_say():
    found = drawn(toy())
    [line, dot] = found["panels"][0]["marks"]
    assert line["d"] == "M54 28L396 272" and line["moves"]  # from the top left to the bottom right: the second place
    assert dot["d"] == "M225 150h0" and not dot["moves"]  # 10 is half-way from 1 to 100
    assert found["data"]["marks"] == [
        {"kind": "line", "by": [0], "x": [54, 396], "y": [[272, 28], [28, 272]], "top": []}
    ]
    assert found["readings"] == [{"label": "r", "now": "2"}]


@pytest.mark.parametrize("bad", [{"y": ((0, np.nan), (0, 1))}, {"reading": (1.0, np.inf)}])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        drawn(toy(**bad))


def test_data_cannot_end_their_script():
    assert "</script>" not in embedded({"x": "</script>"}) and json.loads(embedded({"x": "</"})) == {"x": "</"}
    with pytest.raises(ValueError):
        embedded([float("nan")])


def test_script_and_style_are_small():
    sizes = [(ROOT / "experiments/_gallery" / file).stat().st_size for file in ("movable.js", "style.css")]
    assert sizes[0] < 3_000 and sum(sizes) < 12_000


# -- in a browser ------------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING or "there is one")
WIDE = "return document.documentElement.scrollWidth"  # a wide page widens the window of a phone
SHOWN = """return [[...document.querySelectorAll("path.moves")].map(p => p.getAttribute("d")),
    [...document.querySelectorAll("output")].map(o => o.value),
    document.querySelector("input").getAttribute("aria-valuetext")]"""
REQUESTS = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@needs_browser
def test_pages_load_in_silence_and_fit_a_phone(folder, window):
    for width, mobile in ((1200, False), (360, True)):
        window.size(width, 800, mobile)
        for path in sorted(folder.iterdir()):
            for dark in (False, True):
                window.dark(dark)
                window.open(path)
                assert (window.errors(), window.run(REQUESTS)) == ([], []), path.name
                assert window.run(WIDE) <= width, path.name
                paper, ink = window.run(
                    "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color].map("
                    "c => c.match(/[0-9]+/g).map(Number).reduce((a, b) => a + b))"
                )
                assert (paper < 150 < 600 < ink) if dark else (ink < 150 < 600 < paper)


@needs_browser
def test_keys_move_a_slider_the_picture_and_the_number(folder, window):
    window.size(1200, 800)
    window.open(folder / "duality.html")
    marks, said, spoken = window.run(SHOWN)
    window.press("input", "right")
    after, says, speaks = window.run(SHOWN)
    assert said[0] == spoken == "0.00" and says[0] == speaks == "0.05"
    assert any(a != b for a, b in zip(marks, after, strict=True))
    assert said[2:] != says[2:]  # the numbers below the sliders
    window.press("input", "home")
    assert window.run(SHOWN) == [marks, said, spoken]
    window.press("input", "end")
    assert window.run(SHOWN)[1][0] == "1.00"
    assert window.errors() == []
    window.open(folder / "index.html")
    window.press("body", "tab", "tab", "enter")  # past the link to the content, to the first card
    assert window.run("return location.pathname").endswith("duality.html")


@needs_browser
def test_the_script_draws_what_was_drawn_when_it_was_built(folder, window):
    """What the page has without its script is what the script puts there."""
    text = (folder / "duality.html").read_text(encoding="utf-8")
    built = [a["d"] for tag, a in Seen(text).tags if tag == "path" and "moves" in a.get("class", "").split()]
    window.open(folder / "duality.html")
    numbers = [[float(x) for path in paths for x in re.findall(r"-?[\d.]+", path)]
               for paths in (built, window.run(SHOWN)[0])]  # fmt: skip
    assert len(built) > 3 and numbers[0] == numbers[1]


@needs_browser
@pytest.mark.parametrize("fault", ["nowhere.value = 1", "console.error('something')"])
def test_a_fault_in_the_script_is_seen(folder, window, tmp_path, fault):
    text = (folder / "duality.html").read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(text.replace("const move = () => {", f"const move = () => {{ {fault};"), encoding="utf-8")
    window.open(bad)
    assert window.errors() != []


@needs_browser
def test_a_page_that_is_too_wide_is_seen(folder, window, tmp_path):
    window.size(360, 800, mobile=True)
    bad = tmp_path / "bad.html"
    text = (folder / "index.html").read_text(encoding="utf-8")
    bad.write_text(text.replace("</main>", '<div style="width: 500px">wide</div></main>'), encoding="utf-8")
    window.open(bad)
    assert window.run(WIDE) > 360
