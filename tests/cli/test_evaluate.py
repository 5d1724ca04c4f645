"""`calogen evaluate`: one or several models, points or voxels, and requests that cannot be judged."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from calogen import BOX_30, Showers, Voxels, write
from calogen.cli import main
from calogen.cli.samples import examine
from calogen.data.projection import voxelize
from calogen.detector.catalog import detector

N = 60


@pytest.fixture
def files(tmp_path: Path, draw: Callable[..., Showers]) -> dict[str, str]:
    """A truth, two models, and files that cannot be judged against it."""
    paths = {name: tmp_path / f"{name}.h5" for name in ("geant4", "a", "b", "copy", "three", "box", "nan", "voxels")}
    samples = {name: draw(N, seed=seed) for seed, name in enumerate(("geant4", "a", "b"))}
    for name, showers in samples.items():
        write(paths[name], showers)
    write(paths["copy"], samples["a"], provenance={})
    paths["copy"].write_bytes(paths["a"].read_bytes())
    write(paths["three"], draw(3, seed=7))
    write(paths["box"], _in_box(samples["a"]))
    write(paths["nan"], samples["a"], format="showerdata")
    with h5py.File(paths["nan"], "r+") as file:
        energies = file["energies"]
        energies[5] = np.nan
    write(paths["voxels"], voxelize(_in_box(samples["a"]))[0])
    return {name: str(path) for name, path in paths.items()} | {"new": str(tmp_path / "new"), "folder": str(tmp_path)}


def _in_box(s: Showers) -> Showers:
    return Showers(s.x, s.y, s.layer, s.energy, s.offsets, s.incident, BOX_30)


def test_several_models_on_one_page(files, capsys):
    arguments = ["evaluate", files["a"], files["b"], "--truth", files["geant4"], "-o", files["new"]]
    arguments += ["--parts", "sections"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for word in ("Visible energy", "floor", "a", "b", "indistinguishable", "report in"):
        assert word in out
    folder = Path(files["new"])
    page, scores = (folder / "index.html").read_text(), json.loads((folder / "scores.json").read_text())
    assert [m["label"] for m in scores["models"]] == ["a", "b"]
    assert [f["name"] for f in scores["models"][0]["findings"]] == ["distributions", "sections"]
    assert len(scores["models"][0]["provenance"]["sha256"]) == 64
    assert 'src="http' not in page
    assert 'id="displays"' in page
    assert all({"value", "error", "floor", "indistinguishable"} <= set(s) for s in _scores(scores))
    assert len((folder / "scores.csv").read_text().splitlines()) == 1 + len(_scores(scores))
    assert main([*arguments, "-q"]) == 2


def _scores(plain):
    return [s for m in plain["models"] for f in m["findings"] for s in f["scores"]]


def test_two_files_are_generated_and_truth(files):
    assert main(["evaluate", files["a"], files["geant4"], "-o", files["new"], "-q", "--parts", "none"]) == 0
    scores = json.loads((Path(files["new"]) / "scores.json").read_text())
    assert (scores["truth"]["label"], scores["models"][0]["label"]) == ("geant4.h5", "a")
    assert (scores["detector"], scores["truth"]["n_showers"]) == ("ild-ecal", N)


def test_files_of_one_name_are_called_by_their_folders(files, draw, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write(other / "a.h5", draw(20, seed=8))
    examined = examine([Path(files["a"]), other / "a.h5"], Path(files["geant4"]))
    truth, models = examined.truth, examined.models
    assert truth.n_showers == N
    assert [m.label for m in models] == [f"{tmp_path.name}/a", "other/a"]


def test_the_terminal_says_what_has_no_scores(files, capsys):
    start = ["evaluate", files["a"], "--truth", files["geant4"], "-o", files["new"]]
    assert main([*start, "--parts", "distances,copies,classifier_all"]) == 0
    out = capsys.readouterr().out
    for words in ("distances need at least 100", "at least 100 showers of each", "needs at least 200"):
        assert words in out


def _voxels(s: Showers) -> Voxels:
    return voxelize(Showers(s.x, s.y, s.layer, s.energy, s.offsets, s.incident, detector("calochallenge-2")))[0]


def test_voxels_get_the_scores_of_the_challenge(draw, tmp_path, capsys):
    files = [tmp_path / f"{seed}.h5" for seed in (1, 2)]
    for seed, path in enumerate(files, start=1):
        write(path, _voxels(draw(N, seed=seed)))
    report = tmp_path / "report"
    assert main(["evaluate", *map(str, files), "-o", str(report), "--against", "published"]) == 0
    out = capsys.readouterr().out
    assert "CaloDREAM" in out
    assert "of 18)" in out  # rank among the seventeen submissions to data set 2
    scores = json.loads((report / "scores.json").read_text())
    assert scores["models"][0]["findings"][0]["name"] == "calochallenge"
    assert len(scores["published"]["lines"]) == 19
    assert "CaloDREAM" in (report / "index.html").read_text()
    assert {"separation", "pearson"} <= {s["metric"] for s in _scores(scores)}
    assert main(["evaluate", *map(str, files), "-o", str(report), "-q", "--overwrite", "--parts", "angle"]) == 2


def test_voxels_of_other_spectra_are_matched(draw, tmp_path):
    both = [_voxels(draw(2 * N, seed=seed)) for seed in (3, 4)]
    low = both[0].incident.energy < 30
    paths = [tmp_path / name for name in ("low.h5", "all.h5")]
    write(paths[0], both[0][low])
    write(paths[1], both[1])
    assert main(["evaluate", *map(str, paths), "-o", str(tmp_path / "report"), "-q", "--match"]) == 0
    scores = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert scores["settings"]["match"]
    notes = scores["models"][0]["warnings"]
    kept = int(notes[0].split(" generated")[0].split()[-1])
    assert "were matched" in notes[0]
    assert 20 <= kept <= low.sum()
    assert f"{2 * N - kept} left out" in notes[0]
    assert not any("distributed differently" in note for note in notes)


MISTAKES = {
    "no truth": (["{a}"], "--truth"),
    "no truth of three": (["{a}", "{b}", "{geant4}"], "--truth"),
    "no model": (["--truth", "{geant4}"], "nothing to judge"),
    "missing file": (["{folder}/none.h5", "{geant4}"], "no such file"),
    "missing truth": (["{a}", "--truth", "{folder}/none.h5"], "no such file"),
    "same file twice": (["{a}", "{a}", "--truth", "{geant4}"], "given twice"),
    "the truth as a model": (["{geant4}", "{geant4}"], "given twice"),
    "a copy": (["{a}", "{copy}", "--truth", "{geant4}"], "is a copy of"),
    "three showers": (["{three}", "{geant4}"], "at least 20"),
    "other detector": (["{box}", "{geant4}"], "box-30"),
    "voxels against points": (["{voxels}", "{box}"], "holds voxels"),
    "not a number": (["{nan}", "{geant4}", "--detector", "ild-ecal"], "{nan}"),
    "floor of another detector": (["{a}", "{geant4}", "--floor", "{box}"], "box-30"),
    "an unknown part": (["{a}", "{geant4}", "--parts", "sektions"], "sections"),
    "points against the challenge": (["{a}", "{geant4}", "--against", "published"], "CaloChallenge"),
    "voxels of points": (["{a}", "{geant4}", "--protocol", "voxels"], "holds points"),
    "a full directory": (["{a}", "{geant4}", "-o", "{folder}"], "not empty"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_input_is_one_line(mistake, files, capfd):
    arguments, expected = MISTAKES[mistake]
    given = [a.format(**files) for a in arguments]
    if "-o" not in given:
        given += ["-o", files["new"]]
    assert main(["evaluate", *given, "-q"]) == 2  # where files were read, their progress stands before the line
    out, err = capfd.readouterr()
    (line,) = (text for text in err.splitlines() if text.strip())
    assert line.startswith("calogen: error: ")
    assert expected.format(**files) in line
    assert not out
    assert not Path(files["new"]).exists()


def test_options_that_contradict_each_other_are_refused(files, capsys):
    start = ["evaluate", files["a"], "--truth", files["geant4"], "-o", files["new"]]
    for more, words in (
        (["--repeats", "0"], "--repeats 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--match", "--floor", files["b"]], "leave one out"),
        (["--parts", "classifier_all", "--classifier", "none"], "exclude each other"),
        (["--parts", "magic"], "unknown part 'magic'"),
        (["--training", files["box"]], "detector"),
        (["--training", files["a"]], "given twice"),
    ):
        assert main([*start, *more]) == 2
        assert words in capsys.readouterr().err


def test_training_showers_are_looked_for(files, draw, tmp_path):
    for name, seed in (("model", 21), ("truth", 22), ("known", 23)):
        write(tmp_path / f"{name}.h5", draw(110, seed=seed))
    paths = [str(tmp_path / f"{name}.h5") for name in ("model", "truth", "known")]
    arguments = ["evaluate", *paths[:2], "--training", paths[2], "--parts", "copies", "-o", files["new"], "-q"]
    assert main(arguments) == 0
    scores = _scores(json.loads((Path(files["new"]) / "scores.json").read_text()))
    assert {"training_neighbours", "training_distance", "repeats"} <= {s["metric"] for s in scores}
