"""Pages and pictures: self-contained, complete, written whole or not at all."""

import base64
import csv
import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers, write
from calogen.cli import main
from calogen.evaluate.findings import Findings
from calogen.evaluate.judgement import Comparison, Judgement
from calogen.evaluate.metrics import Score
from calogen.evaluate.published import compare
from calogen.report import browser, display, plots
from calogen.report.events import Row, energy_range_mev, event, matched
from calogen.report.folder import FILES
from calogen.report.page import write_report
from calogen.report.standing import ranking, table
from calogen.report.tables import OPEN_ROWS, Timing


class _Page(HTMLParser):
    """What a browser would load, and which elements stand in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.words: list[dict[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = dict(attrs)
        if "data-words" in names:
            self.words.append(names)
        if tag in ("script", "img", "link", "iframe", "image", "use"):
            self.loaded += [names[k] for k in ("src", "href", "xlink:href") if names.get(k)]


def test_page_loads_nothing(page):
    text = page.read_text(encoding="utf-8")
    parsed = _Page(text)
    assert all(target.startswith(("#", "data:")) for target in parsed.loaded)
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|src=[\"']http|href=[\"']http", text)
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 3e6


def test_every_score_stands_in_the_table(page, judgement):
    text = page.read_text(encoding="utf-8")
    rows = {(f.name, s.observable, s.metric) for c in judgement.comparisons for f in c.sections for s in f.scores}
    assert len(_Page(text).words) == len(rows) > OPEN_ROWS
    for comparison in judgement.comparisons:
        assert comparison.label in text
    assert 'data-folded="1"' in text  # the section of many scores


def test_page_says_what_it_is_and_escapes_it(page):
    text = page.read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in text
    assert "200 ×" in text
    assert "<b>bold</b>" not in text
    assert "&lt;b&gt;bold" in text


def test_numbers_on_the_page_are_those_in_the_folder(page, judgement):
    folder, text = page.parent, page.read_text(encoding="utf-8")
    assert {p.name for p in folder.iterdir()} == set(FILES)
    assert [p.name for p in folder.parent.iterdir()] == ["report"]
    scores = json.loads((folder / "scores.json").read_text())
    embedded = re.search(r'id="numbers">(.*?)</script>', text, re.DOTALL)
    assert json.loads(embedded[1]) == scores
    table = (folder / "scores.csv").read_text()
    assert base64.b64encode(table.encode()).decode() in text
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == len(judgement.rows())
    assert {row["indistinguishable"] for row in rows} == {"true", "false"}
    assert {"model", "section", "value", "error", "floor", "floor_error", "indistinguishable"} <= set(rows[0])


def test_the_same_judgement_makes_the_same_files(judgement, samples, tmp_path):
    def slower(c):
        return dataclasses.replace(c, findings=tuple(dataclasses.replace(f, seconds=f.seconds + 7) for f in c.findings))

    later = dataclasses.replace(judgement, comparisons=tuple(slower(c) for c in judgement.comparisons))
    first, second = (write_report(j, tmp_path / n).parent for j, n in ((judgement, "a"), (later, "b")))
    assert [(first / n).read_bytes() for n in FILES] == [(second / n).read_bytes() for n in FILES]


def test_the_same_command_makes_the_same_files(samples, tmp_path):
    paths = [tmp_path / "model.h5", tmp_path / "truth.h5"]
    for path, showers in zip(paths, samples, strict=True):
        write(path, showers)
    parts = "hadronic,correlations,copies"
    for name in ("a", "b"):
        out = ["-o", str(tmp_path / name), "--parts", parts, "--classifier", "none", "-q"]
        assert main(["evaluate", *map(str, paths), *out]) == 0
    made = [[(tmp_path / folder / name).read_bytes() for name in FILES] for folder in ("a", "b")]
    assert made[0] == made[1]
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert len(scores["models"][0]["findings"]) == 4


def test_coarse_rows_have_no_distance_of_their_own(judgement):
    found = {(s.observable, s.metric) for s in judgement.comparisons[0].sections[0].scores}
    assert ("cog_x_coarse", "jsd") in found
    assert ("cog_x", "wasserstein") in found
    assert ("cog_x_coarse", "wasserstein") not in found


def test_headlines_count_each_number_once(judgement, tmp_path):
    (first, *_) = judgement.comparisons
    again = Findings("again", "Again", "", first.sections[0].scores[:5], notes=("of ecal",))
    twice = dataclasses.replace(judgement, comparisons=(dataclasses.replace(first, findings=(again,)),))
    text = write_report(twice, tmp_path / "report").read_text(encoding="utf-8")
    total = len(first.sections[0].scores)
    assert re.search(rf"</b> of {total}</p>", text)
    assert "each number counted once (5 stand in two sections)" in text
    assert "of 5</th>" in text  # its section keeps its own count
    assert "<li>of ECal</li>" in text


def test_settings_stand_in_the_provenance_and_the_last_line(judgement, tmp_path):
    settings = {"protocol": "points", "match": True, "floor": {"sha256": "123abc"}}
    text = write_report(dataclasses.replace(judgement, settings=settings), tmp_path / "r").read_text(encoding="utf-8")
    assert "<dt>floor.sha256</dt><dd>123abc</dd>" in text
    assert "; protocol points, match yes, floor given</p></footer>" in text


def test_models_that_lack_a_score_get_a_dash(judgement, tmp_path):
    first, second = judgement.comparisons
    fewer = dataclasses.replace(judgement, comparisons=(first, dataclasses.replace(second, findings=())))
    text = write_report(fewer, tmp_path / "report").read_text(encoding="utf-8")
    assert text.count("&ndash;") > text.count("not there")
    assert "&ndash;</td></tr>" in text


def test_published_submissions_stand_beside_the_models(judgement, tmp_path):
    standing = compare("ds2", {"model-0": {"fpd": 0.02, "cpu_ms_1": 20.0}, "model-1": {"fpd": 900.0}})
    page = write_report(dataclasses.replace(judgement, standing=standing), tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    for name in ("CaloDREAM", "CaloDiffusion", "FPD", "GPU ms a shower"):
        assert name in text
    assert text.count('<tr class="ours">') == 2
    own = "".join(re.findall(r'<tr class="ours">.*?</tr>', text, re.DOTALL))
    assert ">900<sub>19</sub>" in own
    assert "≈" not in own  # nothing was carried to another size
    (fpd,) = [row for row in ranking(standing) if row[0] == "FPD"]
    assert fpd[1:3] == ("0.0200 (rank 1 of 19)", "900 (rank 19 of 19)")
    assert fpd[4].startswith("CaloDREAM")
    assert json.loads((page.parent / "scores.json").read_text())["published"]["dataset"] == "ds2"


def test_what_is_ranked_stands_in_the_published_table():
    score = Score("high-level features", "fpd", "", 0.5, 0.02, 0.47, 0.01)
    standing = compare("ds2", {"few showers": [score]})
    entry = standing.lines[1].entries["fpd"]
    assert entry.carried < 0.1 < entry.value
    (column,) = [i for i, h in enumerate(table(standing)["heads"]) if h["title"] == "FPD"]
    cell = table(standing)["lines"][1]["cells"][column]
    assert cell["value"] == f"≈{entry.carried:.4f}"
    assert cell["tip"].startswith("0.5 ± 0.02 measured")
    (fpd,) = [row for row in ranking(standing) if row[0] == "FPD"]
    assert fpd[1].startswith(cell["value"])


def test_the_nearest_particle_is_near_in_energy_and_direction(samples):
    truth = samples[0][:1]
    straight = truth.incident.direction[0]
    turned = np.array([straight[0] + 0.5, straight[1], straight[2]])
    energy = float(truth.incident.energy[0])
    others = Incident(
        np.array([energy, energy * 1.03, energy * 1.5]),
        np.stack([turned / np.linalg.norm(turned), straight, straight]),
        np.full(3, 22),
    )
    model = dataclasses.replace(samples[1][:3], incident=others)
    (row,) = matched(truth, [("model", model)], 1)
    assert row.events[1][1].incident_gev == pytest.approx(energy * 1.03, rel=1e-6)


def test_several_events_share_box_and_colours(samples):
    a, b = (event(s, 3) for s in samples)
    scene = json.loads(browser.viewer_data([Row(3, (("</script>", a), ("model", b)))]))
    (row,) = scene["rows"]
    packed = row["events"][0]
    x = np.frombuffer(base64.b64decode(packed["x"]), "<i2") * packed["step_mm"]
    np.testing.assert_allclose(x, a.x, atol=0.051)
    layer = np.frombuffer(base64.b64decode(packed["layer"]), "<u2")
    assert np.array_equal(layer, a.layer)
    level = np.frombuffer(base64.b64decode(packed["level"]), "u1") / browser.LEVELS
    low, high = np.log10(scene["range_mev"])
    inside = (a.energy > scene["range_mev"][0]) & (a.energy < scene["range_mev"][1])
    np.testing.assert_allclose(10 ** (low + level * (high - low))[inside], a.energy[inside], rtol=0.02)
    assert "</script>" not in browser.viewer_data([Row(0, (("</script>", a),))])


def test_matched_showers_are_of_the_same_particle(samples):
    truth, model = samples
    shuffled = model[np.random.default_rng(1).permutation(len(model))]
    rows = matched(truth, [("model", shuffled)], 5)
    assert len(rows) == 5
    energies = [row.events[0][1].incident_gev for row in rows]
    assert energies == sorted(energies)
    for row in rows:
        (_, a), (label, b) = row.events
        assert label == "model"
        assert (a.incident_gev, a.direction) == (b.incident_gev, b.direction)


def test_a_model_without_that_particle_says_so(samples):
    truth, model = samples
    other = dataclasses.replace(model, incident=Incident.gun(len(model), energy=(5, 50), angles="barrel", seed=9))
    (row,) = matched(truth, [("model", other)], 1)
    assert "nearest particle" in row.events[1][0]
    with pytest.raises(ValueError, match="no showers"):
        matched(truth, [("model", model[:0])], 1)


def test_colour_scale_is_decades_about_the_hits(samples):
    e = event(samples[0], 0)
    low, high = energy_range_mev([e])
    assert np.log10([low, high]) == pytest.approx(np.round(np.log10([low, high])))
    assert low <= np.median(e.energy) <= high
    assert energy_range_mev([dataclasses.replace(e, energy=e.energy[:0])]) == (0.1, 100.0)


def test_nothing_is_overwritten_unasked(judgement, tmp_path):
    small = dataclasses.replace(judgement, comparisons=(Comparison("model", 40),))
    out = tmp_path / "report"
    first = write_report(small, out)
    before = first.stat().st_ino
    with pytest.raises(ValueError, match="exists"):
        write_report(small, out)
    assert first.stat().st_ino == before
    write_report(small, out, overwrite=True)
    assert first.stat().st_ino != before
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        write_report(small, out, overwrite=True)
    with pytest.raises(ValueError, match="does not exist"):
        write_report(small, tmp_path / "no" / "report")
    with pytest.raises(ValueError, match="is a file"):
        write_report(small, out / "thesis.tex", overwrite=True)


def test_a_failed_report_leaves_nothing(judgement, tmp_path, monkeypatch):
    monkeypatch.setattr(Judgement, "to_json", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(judgement, tmp_path / "report", timing=[Timing("x", 1.0)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_show(samples, tmp_path, suffix):
    out = tmp_path / f"x{suffix}"
    browser.show(samples[0][:2], [17, 18], out, heading="x.h5")
    head = out.read_bytes()[:15]
    assert head.startswith(b"\x89PNG") if suffix == ".png" else head == b"<!doctype html>"
    assert suffix == ".png" or '"event 17"' in out.read_text()
    with pytest.raises(ValueError, match="exists"):
        browser.show(samples[0][:1], [0], out, heading="x.h5")
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_show_refuses(samples, tmp_path):
    with pytest.raises(ValueError, match="no event 40"):
        event(samples[0], len(samples[0]))
    for showers, numbers, name, words in (
        (samples[0][:1], [0], "x.jpg", r"\.html or a \.png"),
        (samples[0][:1], [0], "no/x.png", "folder"),
        (samples[0][:0], [], "x.html", "at least one"),
    ):
        with pytest.raises(ValueError, match=words):
            browser.show(showers, numbers, tmp_path / name, heading="x")
    assert list(tmp_path.iterdir()) == []


def test_file_summary(samples):
    assert plots.png(plots.file_summary(samples[0]), 50).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="empty"):
        plots.file_summary(Showers.empty(ILD_ECAL))


def test_an_event_without_hits_can_be_drawn():
    nothing = Showers([], [], [], [], [0, 0], Incident.gun(1), ILD_ECAL)
    assert plots.png(display.picture([event(nothing, 0)], ["empty"]), 50)
    (row,) = json.loads(browser.viewer_data([Row(0, (("empty", event(nothing, 0)),))]))["rows"]
    assert row["events"][0]["x"] == ""
    assert row["frame"]["z"][1] == pytest.approx(ILD_ECAL.z_mm[-1], abs=0.1)  # all layers are drawn
