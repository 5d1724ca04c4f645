"""OmniJet-alpha_C: published sizes, showers of cells, what is reconstructed, transfer, and what is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_box import BOX, toy_box

from calogen import BOX_30, Incident, Showers
from calogen.data.projection import project
from calogen.methods.token_slots import TooLongError
from calogen.systems.code_groups import CodeGroups
from calogen.systems.hit_autoencoder import AutoencoderSizes
from calogen.systems.hit_tokenizer import TokenizerConfig
from calogen.systems.omnijet import PRESETS, OmniJet, OmniJetConfig
from calogen.systems.state import State
from calogen.systems.token_generator import PUBLISHED_SIZES, GeneratorSizes
from calogen.train import Plan

TOKENIZER = TokenizerConfig(
    AutoencoderSizes(codes=64, code_dim=4, width=16, heads=2, blocks=1, dropout=0.0, start="hits"),
    scaling="fitted",
    conditioned=True,
)
SMALL = OmniJetConfig(
    TOKENIZER,
    GeneratorSizes(width=24, blocks=1, heads=2, feedforward=32, groups=8, rank=8, drafts=2, counted=True, recalls=True),
    calibrated=True,
    ranked=True,
)
PUBLISHED = OmniJetConfig(TOKENIZER, replace(PUBLISHED_SIZES, width=16, blocks=1, heads=2, feedforward=24))
MEGABYTE = 1e6


def quick(system: OmniJet, generator: int = 150, tokenizer: int = 120) -> dict[str, Plan]:
    few = {"batch_size": 16, "validate_every": 75, "validation_showers": 20}
    steps = {"tokenizer": tokenizer, "counts": 400, "generator": generator, "drafts": 60}
    plans = {
        name: replace(plan, **few, steps=steps.get(name, 1), warmup_steps=5) for name, plan in system.plans().items()
    }
    return plans | {"generator": replace(plans["generator"], learning_rate=1e-2, ema="none")}


@pytest.fixture(scope="module")
def showers() -> Showers:
    return toy_box(200)


@pytest.fixture(scope="module")
def fitted(showers: Showers, tmp_path_factory: pytest.TempPathFactory) -> OmniJet:
    system = OmniJet.create(SMALL, BOX, seed=1)
    system.fit(showers, quick(system), run_dir=tmp_path_factory.mktemp("run") / "fit", progress=False)
    return system


def visible(showers: Showers) -> np.ndarray:
    return project(showers).showers.visible_energy


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes() -> None:
    published = OmniJet.create(PRESETS["published"].config, BOX_30)
    assert parameters(published.tokenizer) == 1_589_544
    assert parameters(published.generator) == 35_987_970
    desk = OmniJet.create(PRESETS["box-photons-desk"].config, BOX_30)
    stored = sum(tensor.nbytes for tensor in desk.state().tensors.values())
    assert stored < 8 * MEGABYTE


def test_showers_are_cells_of_the_box(fitted: OmniJet, showers: Showers) -> None:
    made = fitted.sample(showers.incident[:40], seed=1)
    found = project(made)
    cells = found.showers.shower_index * BOX.n_cells + found.cell
    assert len(np.unique(cells)) == len(cells)
    assert fitted.decoding_did.hits == made.n_points
    assert 0 < fitted.decoding_did.moved < made.n_points
    assert made.counts.max() < BOX.n_cells


def test_more_hits_and_energy_for_more_energetic_particles(fitted: OmniJet) -> None:
    low, high = (fitted.sample(Incident.gun(40, energy=e), seed=2) for e in (20.0, 80.0))
    assert high.counts.mean() > 1.5 * low.counts.mean()
    assert high.visible_energy.mean() > 1.5 * low.visible_energy.mean()


def test_showers_have_the_hits_that_were_drawn_first(fitted: OmniJet, showers: Showers) -> None:
    assert fitted.counts is not None
    request = Incident.gun(100, energy=(15.0, 90.0), seed=4)
    counts = fitted.counts.draw(request, seed=6)
    made = fitted.sample(request, seed=6)
    assert (made.counts == counts).mean() > 0.9
    np.testing.assert_array_equal(fitted.counts.draw(request[3:5], seed=6, first=3), counts[3:5])
    drawn = np.log(fitted.counts.draw(showers.incident, seed=1) / fitted.tokenizer.hits(showers).counts)
    assert abs(drawn.mean()) < 0.03
    assert drawn.std() < 0.5 * np.log(fitted.tokenizer.hits(showers).counts).std()


def test_counts_are_told_where_the_network_wants_them(fitted: OmniJet) -> None:
    with pytest.raises(ValueError, match="counts are for a generator that is told"):
        fitted.generator.sample(Incident.gun(2, energy=20.0), seed=1)
    with pytest.raises(ValueError, match="published form is not told"):
        replace(PUBLISHED_SIZES, counted=True)


def test_a_state_without_counts_can_be_gone_on_from(showers: Showers, fitted: OmniJet, tmp_path: Path) -> None:
    plain = OmniJet.create(replace(SMALL, network=replace(SMALL.network, counted=False)), BOX, seed=2)
    plain.fit(showers, quick(plain, 5, 5), run_dir=tmp_path / "plain", progress=False)
    system = OmniJet.create(SMALL, BOX, seed=3)
    taken, total = system.start_from(plain)
    assert 0 < taken < total
    assert torch.equal(system.tokenizer.network.codebook.weight, plain.tokenizer.network.codebook.weight)


def test_reconstruction_keeps_hits_and_nearly_the_energy(fitted: OmniJet, showers: Showers) -> None:
    truth = showers[150:]
    again = fitted.reconstruct(truth, seed=1, batch_size=7)
    np.testing.assert_array_equal(again.counts, fitted.tokenizer.hits(truth).counts)
    np.testing.assert_allclose(again.visible_energy.sum(), visible(truth).sum(), rtol=0.05)
    assert np.corrcoef(again.visible_energy, visible(truth))[0, 1] > 0.95
    whole = fitted.reconstruct(truth, seed=2)
    assert (
        whole.layer == again.layer
    ).mean() > 0.99  # round-off of batches: a hit between two codes may take the other
    assert len(fitted.reconstruct(truth[:0], seed=1)) == 0


def test_tokens_are_codes_in_groups_of_neighbours(fitted: OmniJet, showers: Showers) -> None:
    groups, book = fitted.groups, fitted.tokenizer.network.codebook
    assert sorted(groups.code.tolist()) == list(range(64))
    values = book.codes().detach()[groups.code].view(8, 8, -1)
    within = (values - values.mean(1, keepdim=True)).square().sum(2).mean()
    flat = values.flatten(0, 1)
    assert within < 0.6 * (flat - flat.mean(0)).square().sum(1).mean()
    codes = fitted.tokenizer.encode(showers[:5]).ids
    assert torch.equal(groups.codes_of(groups.tokens_of(codes)), codes)
    tokens, offsets = fitted.tokens.encode(showers[:5])
    direct = fitted.tokenizer.decode(fitted.tokenizer.encode(showers[:5]), showers[:5].incident)
    again = fitted.tokens.decode(tokens, offsets, showers[:5].incident)
    np.testing.assert_array_equal(direct.hits.cell, again.hits.cell)


def test_codes_without_groups_stay_as_they_are() -> None:
    system = OmniJet.create(PUBLISHED, BOX)
    assert [stage.name for stage in system.stages()] == ["tokenizer", "generator"]
    assert torch.equal(CodeGroups(5).tokens_of(torch.tensor([4, 0])), torch.tensor([4, 0]))


def test_published_form_says_that_it_is_asked_for_nothing(showers: Showers, tmp_path: Path) -> None:
    system = OmniJet.create(PUBLISHED, BOX, seed=1)
    system.fit(showers, quick(system, 150, 10), run_dir=tmp_path / "run", progress=False)
    with pytest.warns(UserWarning, match="not those asked for"):
        low = system.sample(Incident.gun(30, energy=12.0), seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        high = system.sample(Incident.gun(30, energy=85.0), seed=2)
        with pytest.raises(ValueError, match="needs drafts"):
            system.sample(Incident.gun(3, energy=20.0), seed=1, guess=True)
    np.testing.assert_array_equal(low.counts, high.counts)


def test_published_form_refuses_what_it_cannot_tell(showers: Showers, tmp_path: Path) -> None:
    system = OmniJet.create(PUBLISHED, BOX)
    some = showers[:60]
    pdg = np.where(np.arange(60) % 2, 22, 11)
    mixed = replace(some, incident=Incident(some.incident.energy, some.incident.direction, pdg))
    inclined = np.tile(np.array([0.6, 0.0, 0.8]), (60, 1))
    tilted = replace(some, incident=Incident(some.incident.energy, inclined, some.incident.pdg))
    for wrong, match in ((mixed, "particles .* no condition"), (tilted, "inclined showers")):
        with pytest.raises(ValueError, match=match):
            system.fit(wrong, quick(system), run_dir=tmp_path / "run", progress=False)


def test_transfer_keeps_the_tokens(fitted: OmniJet, tmp_path: Path) -> None:
    """Showers of other particles, in the tokens that the generator knows."""
    others = toy_box(120, seed=9)
    electrons = replace(others, incident=Incident(others.incident.energy, others.incident.direction, np.full(120, 11)))
    system = OmniJet.create(SMALL, BOX, seed=5)
    taken, total = system.start_from(fitted, label="fitted")
    assert taken == total
    system.fit(electrons, quick(system, generator=5), run_dir=tmp_path / "run", progress=False)
    for name in ("tokenizer", "groups"):
        known = fitted.parts()[name].state_dict()
        assert all(torch.equal(tensor, known[key]) for key, tensor in system.parts()[name].state_dict().items())
    assert system.domain.species == [11]
    assert len(system.sample(electrons.incident[:4], seed=1)) == 4
    with pytest.raises(ValueError, match="has not been trained"):
        OmniJet.create(SMALL, BOX).start_from(OmniJet.create(SMALL, BOX))


def test_options_of_sampling(fitted: OmniJet, showers: Showers, tmp_path: Path) -> None:
    request = showers.incident[:20]
    plain = fitted.sample(request, seed=4)
    likeliest = fitted.sample(request, seed=4, temperature=0.8, top_k=5, top_p=0.95)
    assert likeliest.n_points != plain.n_points or not np.array_equal(likeliest.layer, plain.layer)
    one_by_one = fitted.sample(request, seed=4, guess=False)
    assert not np.array_equal(one_by_one.x, plain.x)
    assert 0.5 < one_by_one.n_points / plain.n_points < 2
    assert fitted.sample(request, seed=4, precision="bfloat16").n_points > 0
    for wrong, match in (
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"precision": "half"}, "unknown precision"),
        ({"batch_size": 0}, "slots=0"),
    ):
        with pytest.raises(ValueError, match=match):
            fitted.sample(request, seed=1, **wrong)


def test_a_shower_that_does_not_end_is_an_error(fitted: OmniJet, showers: Showers, tmp_path: Path) -> None:
    fitted.save(tmp_path / "s.safetensors")
    endless = OmniJet.from_state(State.read(tmp_path / "s.safetensors"))
    vocabulary = endless.generator.network.vocabulary
    with torch.no_grad():
        vocabulary.first.bias[-1] = -1e9
    with pytest.raises(TooLongError, match="has not stopped"):
        endless.sample(showers.incident[:2], seed=1)


def test_energy_outside_of_hits_is_told(fitted: OmniJet, showers: Showers) -> None:
    expected = 1 - visible(showers).sum() / showers.energy.sum()
    assert fitted.left_out(showers) == pytest.approx(expected, abs=1e-5)
    assert fitted.left_out(showers) > 0.001
