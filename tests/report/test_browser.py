"""The pages in a browser: nothing in its console, everything drawn, no wider than a phone."""

import os
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest

from calogen import Showers
from calogen.report import browser as pages

WIDE, NARROW = 1280, 390
TALL = 12_000
"""A window in which the whole page is seen, so that everything is drawn at once."""

BRIGHT_PIXELS = """[...document.querySelectorAll('.panel canvas')].map((canvas) => {
  const p = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let bright = 0;
  for (let i = 0; i < p.length; i += 4) bright += p[i] > 120 && p[i + 2] < 120;
  return bright;
})"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


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


@pytest.fixture
def seen(chrome: chromium.Browser, page: Path, request: pytest.FixtureRequest) -> Iterator[chromium.Browser]:
    """The report in a window of the width asked for; its console must stay empty."""
    width = getattr(request, "param", WIDE)
    chrome.errors.clear()
    chrome.requests.clear()
    chrome.size(width, TALL, touch=width == NARROW)
    chrome.open(page)
    yield chrome
    assert chrome.errors == []
    assert chrome.requests == [page.resolve().as_uri()]


@pytest.mark.parametrize("seen", [WIDE, NARROW], indirect=True)
def test_all_is_drawn_and_nothing_overflows(seen, judgement):
    assert seen.run(OVERFLOW) <= 0
    curves = {c.name for f in judgement.comparisons[0].sections for c in f.curves}
    figures = "[...document.querySelectorAll('figure[data-curve]')]"
    assert seen.run(f"{figures}.length") == len(curves)
    assert seen.run(f"{figures}.filter((f) => !f.querySelector('svg path[stroke], svg circle')).length") == 0
    assert seen.run("[...document.querySelectorAll('svg *')].filter((e) => /NaN/.test(e.outerHTML)).length") == 0
    drawn = seen.run("[...document.querySelectorAll('figure[data-matrix] canvas')].map((c) => c.dataset.drawn)")
    assert drawn == ["16"] * 3  # Geant4's matrix stands once, the models' beside each other
    assert len(seen.run(BRIGHT_PIXELS)) == 3
    assert min(seen.run(BRIGHT_PIXELS)) > 20


@pytest.mark.parametrize("seen", [WIDE, NARROW], indirect=True)
def test_tables_are_complete_and_filter(seen, judgement):
    rows = "[...document.querySelectorAll('#scores tr[data-words]')]"
    shown = f"{rows}.filter((r) => !r.hidden).length"
    scores = {(f.name, s.observable, s.metric) for c in judgement.comparisons for f in c.sections for s in f.scores}
    assert seen.run(f"{rows}.length") == len(scores)
    assert seen.run(f"{rows}.filter((r) => r.querySelectorAll('td.group').length !== 2).length") == 0
    folded = sum(len(f.scores) for f in judgement.comparisons[0].sections if f.name == "correlations")
    assert seen.run(shown) == len(scores) - folded
    seen.run("document.querySelector('#scores-correlations .fold').click()")
    assert seen.run(shown) == len(scores)
    seen.run("document.getElementById('different').click()")
    different = seen.run(shown)
    assert 0 < different < len(scores)
    find = "(t) => { const f = document.getElementById('find'); f.value = t; f.dispatchEvent(new Event('input')); }"
    seen.run(f"({find})('high-level')")
    assert seen.run(shown) == 1


def test_showers_turn_step_and_filter(seen):
    panels = "[...document.querySelectorAll('.panel')]"
    titles = f"{panels}.map((p) => p.querySelector('figcaption span').textContent)"
    first = seen.run(titles)
    particles = {title.split(" GeV")[0] for title in first}
    assert len(first) == 3
    assert len(particles) == 1  # the same particle in all
    data = "document.querySelector('.panel canvas').toDataURL()"
    before = seen.run(data)
    x, y = seen.run(
        "(() => { const b = document.querySelector('.panel canvas').getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    seen.drag(x, y, (80, 30))
    assert seen.run(data) != before
    seen.run("[...document.querySelectorAll('.controls button')].find((b) => b.textContent.startsWith('next')).click()")
    seen.settle()
    second = seen.run(titles)
    assert second != first
    lowest = "[...document.querySelectorAll('.controls input')].find((i) => i.ariaLabel.startsWith('lowest'))"
    seen.run(f"(() => {{ const f = {lowest}; f.value = 1000; f.dispatchEvent(new Event('input')); }})()")
    assert "no event" in seen.run("document.querySelector('.controls').textContent")


def test_a_model_can_be_hidden_and_values_read(seen):
    strokes = "document.querySelectorAll('figure[data-curve=hits] path[stroke]').length"
    before = seen.run(strokes)
    seen.run("document.querySelector('button[data-toggle=\"1\"]').click()")
    assert 0 < seen.run(strokes) < before
    x, y = seen.run(
        "(() => { const b = document.querySelector('figure[data-curve=hits] svg').getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 3]; })()"
    )
    seen.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    seen.settle()
    said = seen.run("document.querySelector('.tip').textContent")
    assert "Geant4" in said
    assert "model-0" in said
    assert "model-1" not in said


def test_dark_pages_are_dark(seen):
    light = seen.run("getComputedStyle(document.body).backgroundColor")
    seen.scheme("dark")
    seen.settle()
    dark = seen.run("getComputedStyle(document.body).backgroundColor")
    seen.scheme("light")

    def brightness(colour: str) -> int:
        return sum(int(part) for part in colour.strip("rgb()").split(","))

    assert brightness(light) > 700
    assert brightness(dark) < 100


def test_the_event_browser_of_a_file(chrome: chromium.Browser, samples: tuple[Showers, Showers], tmp_path: Path):
    out = pages.show(samples[0][:6], range(10, 16), tmp_path / "x.html", heading="x.h5")
    chrome.errors.clear()
    chrome.size(NARROW, 844, touch=True)
    chrome.open(out)
    assert chrome.run(OVERFLOW) <= 0
    (bright,) = chrome.run(BRIGHT_PIXELS)
    assert bright > 20
    assert chrome.run("document.querySelector('.panel b').textContent") == "event 10"
    field = "document.querySelector('.controls input')"
    chrome.run(f"{field}.value = 14, {field}.dispatchEvent(new Event('change'))")
    assert chrome.run("document.querySelector('.panel b').textContent") == "event 14"
    assert chrome.errors == []
