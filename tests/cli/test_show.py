"""`calogen show`: pages and pictures of points and voxels, and which showers they hold."""

import json
import re
from pathlib import Path

import pytest

from calogen import Showers, read, write
from calogen.cli import main
from calogen.data.projection import voxelize
from calogen.detector.catalog import detector


def _events(page: Path) -> list[dict]:
    text = re.search(r'id="events">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text[1])["rows"]


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_show_draws_an_event(places, tmp_path, suffix):
    out = tmp_path / f"event{suffix}"
    assert main(["show", places["showers"], "--event", "2", "-o", str(out), "-q"]) == 0
    assert out.stat().st_size > 1000
    if suffix == ".html":
        assert [row["number"] for row in _events(out)] == [2]


def test_a_page_holds_as_many_as_asked(many, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["show", str(many), "-o", str(out)]) == 0
    assert [row["number"] for row in _events(out)] == list(range(40))
    assert "40 showers from number 0" in capsys.readouterr().out
    assert main(["show", str(many), "-o", str(out), "--event", "55", "-n", "10", "-q", "--overwrite"]) == 0
    assert [row["number"] for row in _events(out)] == list(range(55, 60))


def test_only_some_energies(many, tmp_path):
    out = tmp_path / "page.html"
    energy = read(many).incident.energy
    assert main(["show", str(many), "-o", str(out), "--energy", "50:90", "-n", "7", "-q"]) == 0
    wanted = ((energy >= 50) & (energy <= 90)).nonzero()[0][:7]
    assert [row["number"] for row in _events(out)] == wanted.tolist()
    assert main(["show", str(many), "-o", str(out), "--energy", "95:99", "-q", "--overwrite"]) == 2


def test_voxels_are_shown_where_their_cells_are(draw, tmp_path):
    file, out = tmp_path / "voxels.h5", tmp_path / "page.html"
    s = draw(2)
    points = Showers(s.x, s.y, s.layer, s.energy, s.offsets, s.incident, detector("calochallenge-2"))
    write(file, voxelize(points)[0])
    assert main(["show", str(file), "-o", str(out), "-q"]) == 0
    scene = json.loads(re.search(r'id="events">(.*?)</script>', out.read_text(), re.DOTALL)[1])
    assert scene["polar"]
    assert len(scene["layers"]) == 45
    assert len(scene["rows"]) == 2


def test_without_a_place_it_is_written_here(many, tmp_path, monkeypatch):
    opened = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", opened.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main(["show", str(many), "-n", "1", "-q"]) == 0
    assert (tmp_path / "many.html").is_file()
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["show", str(many), "-n", "1", "-q", "--overwrite"]) == 0
    assert opened == [(tmp_path / "many.html").as_uri()]


@pytest.mark.parametrize(
    ("options", "words"),
    [(["-n", "0"], "at least 1"), (["--event", "60"], "0 to 59"), (["--energy", "9:1"], "LOW <= HIGH")],
)
def test_mistakes_are_one_line(many, tmp_path, options, words, capsys):
    assert main(["show", str(many), "-o", str(tmp_path / "x.html"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
