"""`calogen codebooks` end to end on small tokenizers: what is measured, that a kill changes nothing, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_box import BOX, toy_box
from toys import toy_showers

from calogen import BOX_30, Showers, write
from calogen.cli import main
from calogen.codebook_study import Request, Sample, study
from calogen.codebook_study.coding import coded, usage
from calogen.codebook_study.study import seen_before
from calogen.systems.hit_autoencoder import AutoencoderSizes
from calogen.systems.hit_tokenizer import HitTokenizer, TokenizerConfig
from calogen.systems.hit_tokenizer_stage import TokenizerStage
from calogen.systems.omnijet import OmniJet, OmniJetConfig
from calogen.systems.token_generator import GeneratorSizes
from calogen.train import Plan, fit
from calogen.train.run import Run

TINY = TokenizerConfig(
    AutoencoderSizes(codes=16, code_dim=4, width=8, heads=2, blocks=1, dropout=0.0, start="hits"),
    scaling="fitted",
    conditioned=True,
)
FEW = Plan(steps=12, batch_size=4, optimizer="adamw", learning_rate=3e-3, validate_every=6)
REQUEST = Request("omnijet", TINY, FEW, sizes=(8, 128), showers=20)


@pytest.fixture(scope="module")
def sample() -> Sample:
    showers = toy_box(72)
    energy = showers.incident.energy
    order = np.argsort(energy)
    unseen = order[10:60:2][:20]
    rest = np.setdiff1d(np.arange(72), unseen)
    return Sample(showers[rest[:40]], showers[rest[40:]], showers[np.sort(unseen)])


@pytest.fixture(scope="module")
def undisturbed(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("study") / "whole"
    return study(REQUEST, sample, folder=folder), folder


def numbers(made: Any) -> list[dict[str, Any]]:
    """Scores without times and memory."""
    scores = json.loads(json.dumps([score.to_dict() for score in made.scores]))
    for score in scores:
        for key in ("seconds", "peak_memory_mb"):
            score["training"].pop(key)
    return scores


def test_more_codes_resolve_more(undisturbed: Any) -> None:
    made, _ = undisturbed
    few, many = made.trained
    assert (few.codes, many.codes, few.hits) == (8, 128, many.hits)
    for key in ("x", "y", "layer", "ln_energy"):
        assert many.before[key].sigma.value > 0
        assert many.before[key].sigma.error > 0
        assert sum(many.histograms[key].counts) + many.histograms[key].below + many.histograms[key].above == many.hits
    assert many.before["x"].sigma.value < few.before["x"].sigma.value
    assert many.before["x_mm"].rms.value == pytest.approx(5.0 * many.before["x"].rms.value)
    assert 1 <= few.perplexity.value <= 8
    assert few.training is not None
    assert few.training["steps"] == 12


def test_the_tokenizer_is_the_systems(sample: Sample, undisturbed: Any, tmp_path: Path) -> None:
    made, _ = undisturbed
    config = OmniJetConfig(
        REQUEST.code_of(8), GeneratorSizes(width=8, blocks=1, heads=2, feedforward=8, groups=0, rank=4)
    )
    system = OmniJet.create(config, BOX, seed=REQUEST.seed)
    fit(
        system.stages()[:1], sample.train, sample.held_out, {"tokenizer": FEW}, run_dir=tmp_path / "run", progress=False
    )
    hits = coded(system.tokenizer, sample.truth)
    x = hits.decoded[:, 0] - hits.place[:, 0]
    assert made.scores[0].before["x"].sigma.value == pytest.approx(x.std(), rel=1e-12)


def test_what_is_measured_is_what_reconstruction_gives(sample: Sample, tmp_path: Path) -> None:
    tokenizer = HitTokenizer(REQUEST.code_of(16), BOX)
    stage = TokenizerStage(tokenizer, replace(FEW, steps=2))
    fit([stage], sample.train, None, run_dir=tmp_path / "run", progress=False)
    hits = coded(tokenizer, sample.truth, batch_size=7)
    tokens = tokenizer.encode(sample.truth)
    decoded = tokenizer.decode(tokens, sample.truth.incident)
    assert np.array_equal(hits.code, tokens.ids.numpy())
    assert np.array_equal(hits.settled, decoded.hits.places())
    assert np.allclose(hits.decoded_energy, decoded.hits.energy, rtol=1e-4)
    assert (hits.moved.sum(), hits.outside.sum()) == (decoded.moved.sum(), decoded.outside.sum())
    assert usage(tokenizer, sample.truth).share == len(np.unique(hits.code)) / 16


class Killed(Exception):
    """What ends a process."""


@pytest.mark.parametrize("stores", [2, 9, 16])
def test_a_study_that_was_killed_ends_with_the_same_numbers(
    stores: int, sample: Sample, undisturbed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [stores]
    store = Run.store

    def until(self: Run, *arguments: Any) -> None:
        store(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "store", until)
        with pytest.raises(Killed):
            study(REQUEST, sample, folder=tmp_path / "study", checkpoint_seconds=0.0)
    again = study(REQUEST, sample, folder=tmp_path / "study", checkpoint_seconds=0.0)
    assert numbers(again) == numbers(undisturbed[0])


def test_finished_sizes_are_not_trained_again(
    sample: Sample, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = undisturbed
    monkeypatch.setattr(TokenizerStage, "loss", None)
    monkeypatch.setattr(HitTokenizer, "hits", None)
    again = study(replace(REQUEST, targets={"layer": 0.5}), sample, folder=folder)
    assert [s.to_dict() for s in again.scores] == [s.to_dict() for s in made.scores]
    assert again.targets == {"layer": 0.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan": replace(FEW, steps=13)}, "plan.steps was 12, is 13"),
        ({"showers": 15}, "truth.number was 20, is 15"),
        ({"code": replace(TINY, conditioned=False)}, "code.conditioned was True, is False"),
    ],
)
def test_another_study_is_refused_by_its_difference(
    change: dict[str, Any], said: str, sample: Sample, undisturbed: Any
) -> None:
    with pytest.raises(ValueError, match=said):
        study(replace(REQUEST, **change), sample, folder=undisturbed[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sizes": (8, 1)}, "size 1: a codebook needs at least 2"),
        ({"sizes": (8, 16, 8)}, "size 8 is given twice"),
        ({"showers": 3}, "at least 10"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"targets": {"lyer": 1.0}}, "did you mean 'layer'"),
        ({"targets": {"x": 0.0}}, "above 0"),
    ],
)
def test_bad_requests_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(REQUEST, **change)


def faster(showers: Showers) -> Showers:
    """Particles of ten times the energy."""
    incident = replace(showers.incident, energy=showers.incident.energy * 10)
    return replace(showers, incident=incident)


def test_showers_that_cannot_be_studied_are_refused(sample: Sample, tmp_path: Path) -> None:
    bad = {
        "are training showers": sample._replace(truth=sample.train),
        "outside the trained range": sample._replace(truth=faster(sample.truth)),
        "convert them to the same cells": sample._replace(truth=toy_showers(20)),
        "at least 10": sample._replace(truth=sample.truth[:5]),
        "no showers to learn from": sample._replace(train=None),
        "no training showers": sample._replace(train=sample.train[:0]),
    }
    for said, one in bad.items():
        with pytest.raises(ValueError, match=said):
            study(REQUEST, one, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="nothing to study"):
        study(replace(REQUEST, sizes=()), sample, folder=tmp_path / "new")
    assert seen_before(sample.train, sample.truth) == 0


def test_a_truth_without_hits_is_refused(sample: Sample, tmp_path: Path) -> None:
    dark = replace(sample.truth, energy=np.full_like(sample.truth.energy, 1e-9))
    with pytest.raises(ValueError, match="no hit that the readout sees"):
        study(replace(REQUEST, sizes=(8,)), sample._replace(truth=dark), folder=tmp_path / "new")


def boxed(n: int, seed: int) -> Showers:
    """Toy showers in the box of 30 cells a side."""
    return replace(toy_box(n, seed=seed), detector=BOX_30)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    sharp = boxed(20, 5)
    energy = np.clip(sharp.incident.energy, 20.0, 80.0)
    samples = {
        "train": boxed(60, 4),
        "truth": replace(sharp, incident=replace(sharp.incident, energy=energy)),
        "points": toy_showers(20),
    }
    for name, showers in samples.items():
        write(folder / name, showers)
    return {name: str(folder / name) for name in samples}


SMALL = (
    *("code.sizes.width=8", "code.sizes.heads=2", "code.sizes.blocks=1", "code.sizes.code_dim=4"),
    *("tokenizer.warmup_steps=0", "tokenizer.validate_every=3"),
)


def run(files: dict[str, str], output: Path, *more: str, truth: str = "truth", data: str = "train") -> int:
    changes = [word for key in SMALL for word in ("--set", key)]
    known = ["--data", files[data], "--truth", files[truth], "--steps", "3", "-o", str(output), "-q"]
    return main(["codebooks", "omnijet", *known, *changes, *more])


def test_the_command_makes_page_and_numbers(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "codebooks"
    wanted = ("--sizes", "8", "32", "--target", "layer=0.5")
    assert run(files, folder, *wanted) == 0
    assert capsys.readouterr().out == ""
    found = json.loads((folder / "scores.json").read_text())
    page = (folder / "index.html").read_text()
    assert [s["codes"] for s in found["scores"]] == [8, 32]
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "Target for σ of z: 0.5 layers" in page
    assert sorted(p.name for p in folder.iterdir()) == ["index.html", "measured", "runs", "scores.json", "study.json"]
    first = (folder / "runs" / "8" / "stages" / "tokenizer.json").stat().st_mtime_ns
    assert run(files, folder, "--sizes", "8", "16") == 0
    assert [s["codes"] for s in json.loads((folder / "scores.json").read_text())["scores"]] == [8, 16]
    assert (folder / "runs" / "8" / "stages" / "tokenizer.json").stat().st_mtime_ns == first
    assert run(files, folder, "--sizes", "8", "--seed", "1") == 2
    assert "seed was 0, is 1" in capsys.readouterr().err
    assert run(files, folder, "--sizes", "8", "--seed", "1", "--overwrite") == 0
    assert [p.name for p in (folder / "runs").iterdir()] == ["8"]


def test_states_are_measured_as_they_are(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = GeneratorSizes(width=8, blocks=1, heads=2, feedforward=8, groups=0, rank=4)
    system = OmniJet.create(OmniJetConfig(REQUEST.code_of(24), network), BOX_30, seed=1)
    fit(system.stages()[:1], boxed(60, 4), None, {"tokenizer": FEW}, run_dir=tmp_path / "fit", progress=False)
    system.save(tmp_path / "mine.safetensors")
    state = str(tmp_path / "mine.safetensors")
    alone = ["codebooks", "omnijet", "--truth", files["truth"], "--states", state, "-o", str(tmp_path / "alone"), "-q"]
    assert main(alone) == 0
    (one,) = json.loads((tmp_path / "alone" / "scores.json").read_text())["scores"]
    assert (one["name"], one["codes"], one["training"], one["used_training"]) == ("mine", 24, None, None)
    assert run(files, tmp_path / "beside", "--states", state, "--sizes", "8") == 0
    scores = json.loads((tmp_path / "beside" / "scores.json").read_text())["scores"]
    assert [s["codes"] for s in scores] == [8, 24]
    assert scores[1]["before"] == one["before"]
    assert main([*alone, "--states", state]) == 2
    assert "given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--sizes", "1"), "at least 2 codes"),
        (("--sizes", "8", "8"), "given twice"),
        (("--sizes", "8.5"), "8.5"),
        (("--sizes", "many"), "many"),
        (("--set", "code.sizes.codes=64"), "give those"),
        (("--set", "generator.steps=3"), "the tokenizer alone"),
        (("--set", "tokenizer.stepps=3"), "'steps'"),
        (("--preset", "nothing"), "published"),
        (("--steps", "0"), "steps"),
        (("-n", "2"), "at least 10"),
        (("--target", "layer"), "NAME=VALUE"),
        (("--target", "z=1"), "layer"),
        (("--validation", "1.5"), "below 1"),
        (("--threads", "0"), "at least 1"),
        (("--states", "none.safetensors"), "none.safetensors"),
    ],
)
def test_bad_commands_end(
    more: tuple[str, ...], said: str, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = () if "--sizes" in more else ("--sizes", "8")
    assert run(files, tmp_path / "new", *sizes, *more) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_bad_files_end(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    tries = {
        "is what is learned from": run(files, tmp_path / "a", truth="train"),
        "preset 'box-photons-desk' is for 'box-30'": run(files, tmp_path / "a", data="points"),
        "convert them to the same cells": run(files, tmp_path / "a", truth="points"),
        "is not empty": run(files, tmp_path / "full"),
        "has no codebook": main(["codebooks", "caloclouds3", "--truth", files["truth"], "-o", str(tmp_path / "a")]),
    }
    error = capsys.readouterr().err
    assert set(tries.values()) == {2}
    for said in tries:
        assert said in error
    assert not (tmp_path / "a").exists()
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
