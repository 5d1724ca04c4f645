"""Commands that succeed: files in, files out, the same numbers as the Python calls."""

import os
import tomllib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from calogen import BOX_30, read, write
from calogen.cli import main
from calogen.cli.options import read_state
from calogen.cli.presets import as_toml, targets
from calogen.cli.train import resolve
from calogen.systems import PRESETS


def test_info_says_what_is_inside(places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", places["showers"], "--plot", places["new"]]) == 0
    out = capsys.readouterr().out
    for word in ("calogen", "ild-ecal, 30 layers", "22: 3", "GeV", "150"):
        assert word in out
    assert Path(places["new"]).read_bytes().startswith(b"\x89PNG")


def test_info_tells_the_whole_command(places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    command = " ".join(f"--option-{i} value-{i}" for i in range(30))
    long = Path(places["folder"]) / "long.h5"
    about = {"command": command, "source_provenance": {"command": command.upper()}}
    write(long, read(places["showers"]), provenance=about)
    assert main(["info", str(long)]) == 0
    told = "".join(capsys.readouterr().out.split())
    assert "provenance:command" + "".join(command.split()) in told
    assert "provenanceofthesource:command" + "".join(command.upper().split()) in told


def test_convert_takes_its_output_either_way(places: dict[str, str], tmp_path: Path) -> None:
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    assert main(["convert", places["showers"], str(first), "-q"]) == 0
    assert main(["convert", "-o", str(second), places["showers"], "-q"]) == 0
    assert np.array_equal(read(first).energy, read(second).energy)


def test_the_directory_of_a_training_stands_for_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    assert main(["sample", "run", "-n", "1", "-o", "new.h5"]) == 2
    assert "run: a directory without state.safetensors" in capsys.readouterr().err
    (tmp_path / "run" / "state.safetensors").touch()
    assert main(["sample", "run", "-n", "1", "-o", "new.h5"]) == 2
    assert "run/state.safetensors: not a safetensors file" in capsys.readouterr().err
    (tmp_path / "caloclouds3").mkdir()  # the name of a shipped state stays that
    assert read_state("caloclouds3") == "caloclouds3"


def test_convert_and_back_keeps_everything(places: dict[str, str], tmp_path: Path) -> None:
    other, back = str(tmp_path / "other.h5"), str(tmp_path / "back.h5")
    assert main(["convert", places["showers"], other, "--format", "showerdata", "-q"]) == 0
    assert main(["convert", other, back, "--detector", "ild-ecal", "-q"]) == 0
    first, last = read(places["showers"]), read(back)
    assert np.array_equal(first.offsets, last.offsets)
    assert np.isclose(first.energy.sum(), last.energy.sum())


def test_convert_compact_is_smaller_and_close(places: dict[str, str], tmp_path: Path) -> None:
    small = tmp_path / "small.h5"
    assert main(["convert", places["showers"], str(small), "--compact", "-q"]) == 0
    assert np.allclose(read(small).energy, read(places["showers"]).energy, rtol=5.1e-4)


def test_convert_into_voxels(places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = tmp_path / "box.h5"
    assert main(["convert", places["showers"], str(box), "--format", "getting-high", "--voxels", "box-30"]) == 0
    voxels = read(box)
    assert voxels.detector == BOX_30
    assert np.isclose(voxels.energy.sum(), read(places["showers"]).energy.sum(), rtol=1e-4)
    assert "outside box-30" in capsys.readouterr().out


def test_overwrite_replaces(places: dict[str, str]) -> None:
    arguments = ["convert", places["showers"], places["text"], "-q"]
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0
    assert len(read(places["text"])) == 3


def test_quiet_prints_nothing(places: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", places["showers"], places["new"], "-q"]) == 0
    assert capfd.readouterr() == ("", "")


def test_presets_lists_and_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    assert "ild-photons-desk" in capsys.readouterr().out
    assert main(["presets", "ild-photons-desk"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["config"]["sigma_data"] == 0.5
    assert {"flow", "teacher", "student"} <= set(printed)


@pytest.mark.parametrize(("system", "name"), [(s, n) for s in PRESETS for n in PRESETS[s]])
def test_a_printed_preset_is_the_preset(system: str, name: str, tmp_path: Path) -> None:
    from calogen.cli.options import differences

    file = tmp_path / "preset.toml"
    file.write_text(as_toml(targets(PRESETS[system][name])))
    assert resolve(system, name, differences(file, None), 0, None) == targets(PRESETS[system][name])


def test_set_wins_over_config_over_preset(tmp_path: Path) -> None:
    from calogen.cli.options import differences

    file = tmp_path / "mine.toml"
    file.write_text("halo_mm = 20.0\n[flow]\nsteps = 7\nbatch_size = 8\n")
    changes = differences(file, ["flow.steps=9", "*.validate_every=3"])
    resolved = resolve("caloclouds3", "ild-photons-desk", changes, 5, 10.0)
    assert resolved["config"].halo_mm == 20.0
    assert (resolved["flow"].steps, resolved["flow"].batch_size) == (9, 8)
    assert {resolved[stage].seed for stage in ("flow", "teacher", "student")} == {5}
    assert {resolved[stage].validate_every for stage in ("flow", "teacher")} == {3}
    shares = [plan.max_minutes for key, plan in resolved.items() if key != "config" and plan.max_minutes]
    assert sum(shares) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("file", "group", "tensors"),
    [
        ("caloclouds3_point_published.npz", "student_ema", 33),
        ("cc3_showerflow_random_12d.npz", "sd", 98),
        ("pointcountfm_published.npz", "sd", 12),
        ("pointcountfm.pt", "state_dict", 8),
        ("allshowers.pt", "state_dict", 32),
    ],
)
def test_convert_weights_makes_state_dicts(shared: Path, tmp_path: Path, file: str, group: str, tensors: int) -> None:
    from calogen.systems import published_files

    out = tmp_path / "ours.safetensors"
    assert main(["convert-weights", str(shared / "parity" / file), str(out), "-q"]) == 0
    assert len(published_files.read(out, group)) == tensors
    with pytest.raises(ValueError, match=group):
        published_files.read(out, "nobody")


class _Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


def test_a_checkpoint_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark, file = tmp_path / "ran", tmp_path / "hostile.pt"
    torch.save({"state_dict": {"network.network.0.weight": torch.ones(2, 2)}, "others": _Harm(mark)}, file)
    assert main(["convert-weights", str(file), str(tmp_path / "out.safetensors")]) == 2
    assert "not a readable file of weights" in capsys.readouterr().err
    assert not mark.exists()


def test_a_checkpoint_of_calohadronic_is_known(tmp_path: Path) -> None:
    """By the names of the authors' code, as a training on several devices leaves them."""
    from calogen.systems import published_files

    names = ["point_embeding.1.weight", "denoiser.layers.0.self_attn.in_proj_bias", "decoder.0.bias"]
    average = {f"module.diffusion.inner_model.{name}": torch.ones(3) for name in names}
    torch.save({"others": {"model_ema": average}, "args": Namespace(seed=42)}, tmp_path / "ckpt.pt")
    assert main(["convert-weights", str(tmp_path / "ckpt.pt"), str(tmp_path / "o.safetensors"), "-q"]) == 0
    state = published_files.read(tmp_path / "o.safetensors", "others/model_ema")
    assert set(state) == {"points.1.weight", "encoder.0.attention.query_key_value.bias", "head.0.bias"}


@pytest.mark.parametrize(("system", "name"), [(s, n) for s in PRESETS for n in PRESETS[s]])
def test_no_stage_starves_of_minutes(system: str, name: str) -> None:
    """Plans in epochs say nothing of their steps; the largest networks must not get seconds for it."""
    resolved = resolve(system, name, {}, 0, 60.0)
    minutes = {key: plan.max_minutes for key, plan in resolved.items() if key != "config" and plan.max_minutes}
    assert sum(minutes.values()) == pytest.approx(60.0)
    longest = max(minutes, key=lambda key: resolved[key].steps or 0)
    assert minutes[longest] >= 60.0 / len(minutes)


@pytest.mark.parametrize(("variable", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "3000")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert main(["presets"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv(variable, value)
    assert main(["presets"]) == 0
    assert os.environ.get("OMP_WAIT_POLICY") in (None, "ACTIVE")
