"""Pages and pictures: self-contained, complete, written whole or not at all."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers
from calogen.evaluate import Evaluation, evaluate
from calogen.report import display, plots
from calogen.report.page import FILES, Timing, write_report

N = 40


@pytest.fixture(scope="module")
def samples() -> tuple[Showers, Showers]:
    """Two draws of simple showers for the same particles."""
    incident = Incident.gun(N, energy=(5, 50), angles="barrel", seed=1)

    def draw(seed: int) -> Showers:
        rng = np.random.default_rng(seed)
        counts = rng.poisson(60, N) + 1
        total = int(counts.sum())
        x, y = rng.normal(0, 15, (2, total))
        layer = rng.integers(0, 30, total)
        return Showers(
            x, y, layer, rng.exponential(2e-3, total), np.concatenate([[0], np.cumsum(counts)]), incident, ILD_ECAL
        )

    return draw(1), draw(2)


@pytest.fixture(scope="module")
def evaluation(samples) -> Evaluation:
    return evaluate(*samples, replicas=20)


@pytest.fixture(scope="module")
def page(evaluation, samples, tmp_path_factory):
    timing = [Timing("model", 0.002, "1 thread"), Timing("Geant4", 0.4)]
    return write_report(
        evaluation,
        tmp_path_factory.mktemp("out") / "report",
        displays=samples,
        timing=timing,
        provenance={"seed": "<b>1</b>"},
        title="A & B",
    )


class _Page(HTMLParser):
    """What a browser would load, and which elements stand in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.rows += tag == "tr"
        names = dict(attrs)
        if tag in ("script", "img", "link", "iframe", "image", "use"):
            self.loaded += [names[k] for k in ("src", "href", "xlink:href") if names.get(k)]


def test_page_loads_nothing(page):
    text = page.read_text(encoding="utf-8")
    parsed = _Page(text)
    assert all(target.startswith(("#", "data:")) for target in parsed.loaded)
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", text)
    assert parsed.tags.count("svg") == 11
    assert "canvas" not in parsed.tags  # the viewer makes them
    assert len(text) < 4e6


def test_page_says_everything_and_escapes_it(page, evaluation):
    text = page.read_text(encoding="utf-8")
    for row in evaluation.scores:
        assert row.title in text
    assert "200 x" in text
    assert "<h1>A &amp; B</h1>" in text
    assert "<b>1</b>" not in text
    assert "currentColor" in text
    assert plots.INK not in text


def test_folder_holds_the_numbers(page, evaluation):
    assert {p.name for p in page.parent.iterdir()} == set(FILES)
    scores = json.loads((page.parent / "scores.json").read_text())
    assert Evaluation.from_dict(scores).scores == evaluation.scores
    assert len((page.parent / "scores.csv").read_text().splitlines()) == 1 + len(evaluation.scores)
    assert [p.name for p in page.parent.parent.iterdir()] == ["report"]


def test_viewer_data_holds_every_hit(samples):
    a, b = (display.event(s, 3) for s in samples)
    scene = json.loads(display.viewer_data([[("</script>", a), ("model", b)]]))
    assert len(scene["rows"][0]["events"][0]["x"]) == a.total_hits
    assert max(scene["rows"][0]["events"][1]["colour"]) < len(scene["colours"])
    assert "</script>" not in display.viewer_data([[("</script>", a)]])


def test_nothing_is_overwritten_unasked(evaluation, tmp_path):
    evaluation = dataclasses.replace(evaluation, histograms=())
    out = tmp_path / "report"
    first = write_report(evaluation, out)
    before = first.stat().st_ino
    with pytest.raises(ValueError, match="exists"):
        write_report(evaluation, out)
    assert first.stat().st_ino == before
    write_report(evaluation, out, overwrite=True)
    assert first.stat().st_ino != before
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        write_report(evaluation, out, overwrite=True)
    with pytest.raises(ValueError, match="does not exist"):
        write_report(evaluation, tmp_path / "no" / "report")
    with pytest.raises(ValueError, match="is a file"):
        write_report(evaluation, out / "thesis.tex", overwrite=True)


def test_a_failed_report_leaves_nothing(evaluation, samples, tmp_path):
    with pytest.raises(ValueError, match="as many"):
        write_report(evaluation, tmp_path / "report", displays=(samples[0][:2], samples[1]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_show(samples, tmp_path, suffix):
    out = tmp_path / f"x{suffix}"
    display.show(samples[0], [0, 1, 5], out, heading="x.h5")
    head = out.read_bytes()[:15]
    assert head.startswith(b"\x89PNG") if suffix == ".png" else head == b"<!doctype html>"
    display.show(samples[0], [0], out, heading="x.h5", first=17, overwrite=True)
    assert suffix == ".png" or '"event 17"' in out.read_text()
    with pytest.raises(ValueError, match="exists"):
        display.show(samples[0], [0], out, heading="x.h5")
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_show_refuses(samples, tmp_path):
    with pytest.raises(ValueError, match="no event 40"):
        display.show(samples[0], [N], tmp_path / "x.png", heading="x")
    with pytest.raises(ValueError, match=r"\.html or a \.png"):
        display.show(samples[0], [0], tmp_path / "x.jpg", heading="x")
    with pytest.raises(ValueError, match="folder"):
        display.show(samples[0], [0], tmp_path / "no" / "x.png", heading="x")
    assert list(tmp_path.iterdir()) == []


def test_file_summary(samples):
    assert plots.png(plots.file_summary(samples[0]), 50).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="empty"):
        plots.file_summary(Showers.empty(ILD_ECAL))


def test_an_event_without_hits_can_be_drawn():
    nothing = Showers([], [], [], [], [0, 0], Incident.gun(1), ILD_ECAL)
    assert plots.png(display.picture([display.event(nothing, 0)], ["empty"]), 50)


def test_joined_bins_keep_their_sum(evaluation):
    pair = next(h for h in evaluation.histograms if h.name == "cog_x")
    _, generated, _, truth, _ = plots._drawn(pair)
    assert truth.size <= plots.PLOT_BINS
    assert truth.sum() == pytest.approx(pair.truth.sum(), abs=0.1)
    assert generated.sum() <= pair.generated.sum() + 1e-9
