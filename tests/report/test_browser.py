"""The pages in a browser: nothing in its console, everything drawn, no wider than a phone."""

import os
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest

from calogen import Showers
from calogen.evaluate.judgement import Judgement
from calogen.report import browser as pages

WIDE, NARROW = (1280, 800), (390, 844)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
FIGURES = "[...document.querySelectorAll('figure[data-curve]')]"
ROWS = "[...document.querySelectorAll('#scores tr[data-words]')]"
SHOWN = f"{ROWS}.filter((r) => !r.hidden).length"
TITLES = "[...document.querySelectorAll('.panel figcaption span')].map((s) => s.textContent)"
BRIGHT_PIXELS = """[...document.querySelectorAll('.panel canvas')].map((canvas) => {
  const p = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let bright = 0;
  for (let i = 0; i < p.length; i += 4) bright += p[i] > 120 && p[i + 2] < 120;
  return bright;
})"""
"""Pixels of each display in the warm colours that only hits have."""


CUT_OFF = """[...document.querySelectorAll('.plot .axes text')].filter((t) => {
  const box = t.getBoundingClientRect(), figure = t.closest('svg').getBoundingClientRect();
  return box.left < figure.left - 0.5 || box.right > figure.right + 0.5;
}).map((t) => t.textContent)"""
"""Numbers and labels of axes that reach beyond their figure."""
BROKEN_WORDS = """[...document.querySelectorAll('.overview tr > :first-child, #scores thead th')].flatMap((cell) => {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), broken = [];
  for (let t = texts.nextNode(); t; t = texts.nextNode())
    for (const word of t.textContent.matchAll(/[A-Za-z]+/g)) {
      const range = document.createRange();
      range.setStart(t, word.index);
      range.setEnd(t, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((r) => r.top)).size > 1) broken.push(word[0]);
    }
  return broken;
})"""
"""Words of heads that go on in the next line."""


@pytest.fixture(scope="module")
def chrome() -> Iterator[chromium.Browser]:
    """One browser for all tests; without it they are skipped, except in CI."""
    program = chromium.find()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is missing: apt-get install chromium")
        pytest.skip("needs Chromium: apt-get install chromium")
    with chromium.Browser(program) as opened:
        yield opened


def fill(chrome: chromium.Browser, field: str, value: object) -> None:
    """Type a value into a field."""
    chrome.run(f"(() => {{ const f = {field}; f.value = {value!r}; f.dispatchEvent(new Event('input')); }})()")


def middle(chrome: chromium.Browser, selector: str) -> tuple[float, float]:
    """Scroll an element into sight; where its middle is then."""
    find = f"document.querySelector({selector!r})"
    chrome.run(f"{find}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")
    chrome.settle()
    x, y = chrome.run(
        f"(() => {{ const b = {find}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
    )
    return x, y


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_report(chrome: chromium.Browser, page: Path, judgement: Judgement, size: tuple[int, int]) -> None:
    chrome.size(*size, touch=size == NARROW)
    chrome.open(page)
    chrome.run("dispatchEvent(new Event('beforeprint'))")  # draws what is out of sight too
    all_is_drawn(chrome, judgement)
    tables_are_complete_and_filter(chrome, judgement)
    showers_turn_step_and_filter(chrome)
    models_hide_and_values_are_read(chrome)
    axes_become_logarithmic(chrome)
    blocks_open_on_request(chrome, size)
    dark_pages_are_dark(chrome)
    assert chrome.run(OVERFLOW) <= 0
    assert chrome.errors == []
    assert chrome.requests == [page.resolve().as_uri()]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_stays_blank_or_is_cut_off(chrome: chromium.Browser, page: Path, size: tuple[int, int]) -> None:
    chrome.size(*size, touch=size == NARROW)
    chrome.open(page)
    blank = "[...document.querySelectorAll('.plot .canvas')].filter((c) => c.clientWidth && !c.firstChild).length"
    left = f"new Promise((done) => {{ const look = (n) => ({blank} && n ? setTimeout(look, 50, n - 1) : done({blank}))"
    assert chrome.run(f"{left}; look(200); }})") == 0  # without a scroll, and before any print
    assert chrome.run(CUT_OFF) == []
    assert chrome.run(BROKEN_WORDS) == []
    assert chrome.errors == []


def all_is_drawn(chrome: chromium.Browser, judgement: Judgement) -> None:
    assert chrome.run(OVERFLOW) <= 0
    own = [f for f in judgement.comparisons[0].sections if f.name == "classifier"]
    curves = sum(len(f.curves) for f in (*judgement.comparisons[0].sections, *own))  # a classifier's, of both models
    assert chrome.run(f"{FIGURES}.length") == curves
    assert chrome.run(f"{FIGURES}.filter((f) => !f.querySelector('svg path[stroke], svg circle')).length") == 0
    assert chrome.run("[...document.querySelectorAll('svg *')].filter((e) => /NaN/.test(e.outerHTML)).length") == 0
    drawn = chrome.run("[...document.querySelectorAll('figure[data-matrix] canvas')].map((c) => c.dataset.drawn)")
    assert drawn == ["16"] * 3 + ["12"]  # Geant4's matrix stands once, the models' beside each other; the competition's
    assert chrome.run("document.querySelectorAll('.colours').length") == len(drawn)
    bright = chrome.run(BRIGHT_PIXELS)
    assert len(bright) == 3
    assert min(bright) > 20


def tables_are_complete_and_filter(chrome: chromium.Browser, judgement: Judgement) -> None:
    scores = {(f.name, s.observable, s.metric) for c in judgement.comparisons for f in c.sections for s in f.scores}
    folded = sum(len(f.scores) for f in judgement.comparisons[0].sections if f.name == "correlations")
    assert chrome.run(f"{ROWS}.length") == len(scores)
    assert chrome.run(f"{ROWS}.filter((r) => r.querySelectorAll('td.group').length !== 2).length") == 0
    assert chrome.run(SHOWN) == len(scores) - folded
    chrome.run("document.querySelector('#scores-correlations .fold').click()")
    assert chrome.run(SHOWN) == len(scores)
    chrome.run("document.getElementById('different').click()")
    assert 0 < chrome.run(SHOWN) < len(scores)
    fill(chrome, "document.getElementById('find')", "high-level")
    assert chrome.run(SHOWN) == 1


def showers_turn_step_and_filter(chrome: chromium.Browser) -> None:
    first = chrome.run(TITLES)
    assert len({title.split(" GeV")[0] for title in first}) == 1  # the same particle in all
    picture = "document.querySelector('.panel canvas').toDataURL()"
    place = middle(chrome, ".panel canvas")
    before = chrome.run(picture)
    chrome.drag(*place, (60, 20))
    assert chrome.run(picture) != before
    chrome.run(
        "[...document.querySelectorAll('.controls button')].find((b) => b.textContent.startsWith('next')).click()"
    )
    chrome.settle()
    assert chrome.run(TITLES) != first
    fill(
        chrome, "[...document.querySelectorAll('.controls input')].find((i) => i.ariaLabel.startsWith('lowest'))", 1000
    )
    assert "no event" in chrome.run("document.querySelector('.controls').textContent")


def models_hide_and_values_are_read(chrome: chromium.Browser) -> None:
    strokes = "document.querySelectorAll('figure[data-curve=hits] path[stroke]').length"
    before = chrome.run(strokes)
    chrome.run("document.querySelector('button[data-toggle=\"1\"]').click()")
    assert 0 < chrome.run(strokes) < before
    x, y = middle(chrome, "figure[data-curve=hits] svg")
    chrome.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y - 20)
    chrome.settle()
    said = chrome.run("document.querySelector('.tip').textContent")
    assert "Geant4" in said
    assert "model-0" in said
    assert "model-1" not in said


def axes_become_logarithmic(chrome: chromium.Browser) -> None:
    ticks = (
        "[...document.querySelectorAll('figure[data-curve=hits] .axes:first-of-type text')].map((t) => t.textContent)"
    )
    linear = chrome.run(ticks)
    assert "10⁻¹" not in linear
    chrome.run("document.querySelector('figure[data-curve=hits] [data-log]').click()")
    assert chrome.run(ticks) != linear
    assert chrome.run("document.querySelector('figure[data-curve=hits] [data-log]').ariaPressed") == "true"
    chrome.run("document.querySelector('figure[data-curve=hits] [data-log]').click()")
    assert chrome.run(ticks) == linear


def blocks_open_on_request(chrome: chromium.Browser, size: tuple[int, int]) -> None:
    opened = "[...document.querySelectorAll('#classifier details.own')].map((d) => d.open)"
    assert chrome.run(opened) == [True, size == WIDE]
    chrome.run("document.querySelectorAll('#classifier details.own')[1].open = true")
    chrome.settle()
    assert chrome.run(OVERFLOW) <= 0
    titles = "[...document.querySelectorAll('#log_posterior tbody tr')].map((r) => r.cells[0].textContent)"
    assert chrome.run(titles) == ["model-1", "model-0"]


def dark_pages_are_dark(chrome: chromium.Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = chrome.run(ground)
    chrome.scheme("dark")
    chrome.settle()
    dark = chrome.run(ground)
    chrome.scheme("light")
    brightness = [sum(int(part) for part in colour.strip("rgb()").split(",")) for colour in (light, dark)]
    assert brightness[0] > 700
    assert brightness[1] < 100


def test_the_event_browser(chrome: chromium.Browser, samples: tuple[Showers, Showers], tmp_path: Path) -> None:
    out = pages.show(samples[0][:6], range(10, 16), tmp_path / "x.html", heading="x.h5")
    chrome.size(*NARROW, touch=True)
    chrome.open(out)
    name = "document.querySelector('.panel b').textContent"
    assert chrome.run(OVERFLOW) <= 0
    assert chrome.run(f"{BRIGHT_PIXELS}[0]") > 20
    assert chrome.run(name) == "event 10"
    field = "document.querySelector('.controls input')"
    chrome.run(f"{field}.value = 14, {field}.dispatchEvent(new Event('change'))")
    assert chrome.run(name) == "event 14"
    assert chrome.errors == []
