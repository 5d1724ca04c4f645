"""The latent form of CaloDREAM: showers through an autoencoder keep their layers, and do not see each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_calodream import TINY, few_steps
from toy_voxels import RINGS, toy_voxels

import calogen
from calogen import Showers
from calogen.cli import main
from calogen.cli.reconstruct import _Reconstruction
from calogen.data.formats import open_source
from calogen.data.projection import voxelize
from calogen.detector.catalog import CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2, CALOCHALLENGE_3
from calogen.networks.voxel_vae import Level
from calogen.scale import generate
from calogen.systems.calodream import PRESETS, CaloDream
from calogen.systems.calodream_stages import cells_of
from calogen.systems.shape_spaces import Autoencoder, LatentSpace
from calogen.systems.voxel_targets import TargetConstants

LATENT = replace(
    TINY,
    shape_network=replace(TINY.shape_network, patch=(1, 2, 3)),
    autoencoder=Autoencoder((Level(6, (3, 4, 1), (3, 2, 1)), Level(6)), width=12),
)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> CaloDream:
    system = CaloDream.create(LATENT, RINGS, seed=1)
    plans = few_steps(system, 12)
    plans["code"] = replace(plans["code"], steps=120, validate_every=60, learning_rate=1e-2)
    system.fit(toy_voxels(160), plans, run_dir=tmp_path_factory.mktemp("run") / "a", progress=False)
    return system


def space_of(system: CaloDream) -> LatentSpace:
    assert isinstance(system.space, LatentSpace)
    return system.space


@pytest.mark.parametrize(
    ("name", "detector", "autoencoder", "shapes"),
    [
        ("published-latent", CALOCHALLENGE_2, 901_093, 10_711_566),
        ("published-latent-3", CALOCHALLENGE_3, 1_103_845, 10_720_224),
    ],
)
def test_published_sizes(name: str, detector: calogen.Detector, autoencoder: int, shapes: int) -> None:
    system = CaloDream.create(PRESETS[name].config, detector)
    sizes = {key: sum(p.numel() for p in part.parameters() if p.requires_grad) for key, part in system.parts().items()}
    assert (sizes["autoencoder"], sizes["shapes"], sizes["energies"]) == (autoencoder, shapes, 2_384_705)


def test_what_is_learned_is_standardised(fitted: CaloDream) -> None:
    """Channel by channel, over the showers the scales were taken from."""
    space = space_of(fitted)
    drawn = space.encode(*cells_of(toy_voxels(160)), np.random.default_rng(5))
    by_channel = drawn.x.unflatten(1, space.network.latent_shape).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(by_channel.mean(1), 0, atol=0.12)
    np.testing.assert_allclose(by_channel.std(1), 1, atol=0.12)


def test_reconstruction_keeps_layers_and_comes_near(fitted: CaloDream) -> None:
    """Energies of layers pass beside the code; shares in them are nearer to their own truth than to another's."""
    showers = toy_voxels(40, seed=9)
    made = fitted.reconstruct(showers, seed=3)
    before, after = (voxelize(s)[0] for s in (showers, made))
    bright = before.energy_per_layer > 20 * RINGS.threshold_gev
    np.testing.assert_allclose(after.energy_per_layer[bright], before.energy_per_layer[bright], rtol=1e-4)
    assert (made.energy >= RINGS.threshold_gev[made.layer] * (1 - 1e-5)).all()
    shares = [v.grid() / np.maximum(v.energy_per_layer, 1e-6)[:, :, None, None] for v in (before, after)]
    own, others = (np.abs(shares[1] - np.roll(shares[0], k, 0)).mean() for k in (0, 1))
    assert own < 0.9 * others


def test_a_shower_knows_nothing_of_its_company(fitted: CaloDream) -> None:
    showers = toy_voxels(7, seed=9)
    together = fitted.reconstruct(showers, seed=3)
    for k in range(len(showers)):
        alone = fitted.reconstruct(showers[[k]], seed=3, first=k)
        np.testing.assert_allclose(alone.energy, together[[k]].energy, rtol=1e-4)
    drawn = fitted.sample(showers.incident, seed=3)
    one = fitted.sample(showers.incident[[4]], seed=3, first=4)
    np.testing.assert_allclose(one.energy, drawn[[4]].energy, rtol=1e-4)


def test_the_state_holds_the_autoencoder(fitted: CaloDream, tmp_path: Path) -> None:
    fitted.save(tmp_path / "state.safetensors")
    again = calogen.load(tmp_path / "state.safetensors")
    incident = toy_voxels(5, seed=4).incident
    np.testing.assert_array_equal(again.sample(incident, seed=1).energy, fitted.sample(incident, seed=1).energy)


def test_the_command_line(fitted: CaloDream, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells in, cells out, the same showers as from Python; and what cannot be reconstructed is refused in a line."""
    state, source, made = (str(tmp_path / name) for name in ("s.safetensors", "in.h5", "out.h5"))
    fitted.save(state)
    voxels, _ = voxelize(toy_voxels(20, seed=2))
    calogen.write(source, voxels)
    assert main(["reconstruct", state, source, "-o", made, "--seed", "4", "-q"]) == 0
    found = calogen.read(made)
    expected = voxelize(fitted.reconstruct(toy_voxels(20, seed=2), seed=4))[0]
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-3, atol=1e-6)
    assert main(["reconstruct", state, source, "-o", made, "-q"]) == 2
    assert "out.h5" in capsys.readouterr().err
    plain = CaloDream.create(TINY, RINGS)
    plain.save(tmp_path / "plain.safetensors")
    assert main(["reconstruct", str(tmp_path / "plain.safetensors"), source, "-o", made + "2", "-q"]) == 2
    assert "no code to reconstruct" in capsys.readouterr().err
    assert not Path(made + "2").exists()


def test_a_reconstruction_that_was_killed_goes_on(
    fitted: CaloDream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By shards: what was finished is not computed again, and the file is that of one go."""
    showers = toy_voxels(25, seed=2)
    calogen.write(tmp_path / "in.h5", voxelize(showers)[0])
    asked: list[int] = []
    own = CaloDream.reconstruct

    def counting(self: CaloDream, showers: Showers, *, first: int = 0, **options: Any) -> Showers:
        if first == 20 and 20 not in asked:
            asked.append(20)
            raise KeyboardInterrupt
        asked.append(first)
        return own(self, showers, first=first, **options)

    monkeypatch.setattr(CaloDream, "reconstruct", counting)

    def run(name: str) -> None:
        with open_source(tmp_path / "in.h5", detector=RINGS) as source:
            generate(_Reconstruction(fitted, source), showers.incident, tmp_path / name, seed=4, shard_size=10)

    with pytest.raises(KeyboardInterrupt):
        run("out.h5")
    run("out.h5")
    assert asked == [0, 10, 20, 20]
    run("whole.h5")
    np.testing.assert_array_equal(*(calogen.read(tmp_path / name).energy for name in ("out.h5", "whole.h5")))


def test_layers_that_differ_are_refused() -> None:
    config = replace(TINY, autoencoder=LATENT.autoencoder)
    with pytest.raises(ValueError, match="layers of 'calochallenge-1-pions' have different cells"):
        CaloDream.create(config, CALOCHALLENGE_1_PIONS)


def test_turned_showers_have_turned_codes() -> None:
    """Angles close to a circle: a shower turned by a stride of the grid has its code turned by a place."""
    system = CaloDream.create(LATENT, RINGS, seed=3)
    space = space_of(system)
    space.module.eval()
    energy, incident = cells_of(toy_voxels(6))
    grid = energy.reshape(6, *space.grid)
    turned = np.roll(grid, 2, axis=2).reshape(6, -1)
    code, same = (space.latent(e, incident)[0].mu for e in (energy, turned))
    torch.testing.assert_close(code.roll(1, dims=3), same, rtol=1e-4, atol=1e-5)


def test_marginals_are_refused_with_an_autoencoder() -> None:
    with pytest.raises(ValueError, match="is for the voxels alone"):
        CaloDream.create(replace(LATENT, scaling=TargetConstants(shares="marginals")), RINGS)
