"""Showers to tokens and back: features are exact both ways, showers keep to themselves, and a fit brings hits back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_box import BOX, toy_box

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.catalog import BOX_30, CALOCHALLENGE_2
from calogen.methods.codebook import Usage
from calogen.networks.turns import LOG_SCALE, TURN_FEATURES, turns
from calogen.systems.box_cells import Box
from calogen.systems.box_view import BoxHits, hits_of
from calogen.systems.hit_autoencoder import AutoencoderSizes
from calogen.systems.hit_features import CELLS, HitFeatures
from calogen.systems.hit_tokenizer import PRESETS, HitTokenizer, TokenizerConfig, Tokens
from calogen.systems.hit_tokenizer_stage import PLANS, TokenizerStage
from calogen.train import Plan, fit
from calogen.train.streams import seeded

SIZES = AutoencoderSizes(codes=64, code_dim=6, width=16, heads=2, blocks=1, dropout=0.0, start="hits", patience=10)
SMALL = TokenizerConfig(SIZES, scaling="fitted", conditioned=True)
PLAN = Plan(steps=120, batch_size=8, learning_rate=5e-3, optimizer="adamw", validate_every=60, grad_clip=1.0)


def small(config: TokenizerConfig = SMALL) -> HitTokenizer:
    with seeded(0, "weights"):
        return HitTokenizer(config, BOX)


def stage(**changes: object) -> TokenizerStage:
    return TokenizerStage(small(), Plan(**(PLAN.__dict__ | changes)))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[HitTokenizer, list[dict[str, float]]]:
    made, folder = stage(), tmp_path_factory.mktemp("fit")
    fit([made], toy_box(150), toy_box(30, seed=1), run_dir=folder, progress=False)
    log = [json.loads(line) for line in next(folder.rglob("*.jsonl")).read_text().splitlines()]
    return made.tokenizer, log


def test_turns_tell_when_a_hit_comes_in_its_shower() -> None:
    made = turns(torch.cat([torch.arange(2), torch.arange(1000)]), torch.tensor([2] * 2 + [1000] * 1000))
    assert made.shape == (1002, TURN_FEATURES)
    torch.testing.assert_close(made[:3, 0], torch.tensor([0.25, 0.75, 0.0005]))
    torch.testing.assert_close(made[:3, 2] * LOG_SCALE, torch.tensor([1.0, 2.0, 1.0]).log())
    torch.testing.assert_close(made[2:, 3], torch.ones(1000))
    torch.testing.assert_close(made[:, 1], made[:, 0].square())


def test_turns_tell_energies_of_hits_that_come_brightest_first(tmp_path: Path) -> None:
    """With one code for all, all that comes back of a hit is what its turn tells."""

    def error(told: bool) -> float:
        sizes = replace(SIZES, codes=2, turns=told)
        with seeded(0, "weights"):
            tokenizer = HitTokenizer(replace(SMALL, sizes=sizes), BOX)
        with torch.no_grad():
            tokenizer.network.codebook.weight.zero_()
        made = TokenizerStage(tokenizer, replace(PLAN, steps=80))
        fit([made], toy_box(60), toy_box(20, seed=1), run_dir=tmp_path / str(told), progress=False)
        hits = tokenizer.hits(toy_box(30, seed=2))
        tokenizer.eval()
        again = tokenizer.decode(tokenizer.encode_hits(hits), hits.incident).hits
        return float(np.log(again.energy / hits.energy).std())

    assert error(True) < 0.6 * error(False)


def test_a_cell_counts_alike_in_all_directions_where_places_share_a_unit() -> None:
    fitted_scale, cells = (HitFeatures(scaling) for scaling in ("fitted", "cells"))
    for features in (fitted_scale, cells):
        features.fit([hits_of(toy_box(50), "energy")])
    assert cells.scale.scale[:3].tolist() == [CELLS] * 3
    assert len(set(fitted_scale.scale.scale[:3].tolist())) == 3
    assert torch.equal(cells.scale.scale[3], fitted_scale.scale.scale[3])
    assert torch.equal(cells.scale.shift, fitted_scale.scale.shift)
    places, energy = cells.decode(cells.encode(hits_of(toy_box(5), "energy")))
    again = hits_of(toy_box(5), "energy")
    np.testing.assert_allclose(places, again.places(), atol=1e-4)
    np.testing.assert_allclose(energy, again.energy, rtol=1e-5)


def test_published_features() -> None:
    hits = BoxHits(
        Box.of(BOX_30).cell(np.array([0, 29, 15]), np.array([29, 14, 15]), np.array([0, 15, 16])),
        np.array([1e-3, 1e-4, 2e-3]),
        np.array([0, 3]),
        Incident.gun(1),
        BOX_30,
    )
    features = HitFeatures("published")
    expected = [
        [-14.5 * 0.3, 14.5 * 0.3, -15.5 * 0.2, 1.0],
        [14.5 * 0.3, -0.5 * 0.3, -0.5 * 0.2, np.log(0.1) + 1],
        [0.5 * 0.3, 0.5 * 0.3, 0.5 * 0.2, np.log(2) + 1],
    ]
    torch.testing.assert_close(features.encode(hits), torch.tensor(expected, dtype=torch.float32))
    before = {name: tensor.clone() for name, tensor in features.state_dict().items()}
    features.fit([hits])
    assert all(torch.equal(tensor, before[name]) for name, tensor in features.state_dict().items())


@pytest.mark.parametrize("scaling", ["published", "fitted"])
def test_features_both_ways(scaling: str) -> None:
    hits, features = hits_of(toy_box(30)), HitFeatures(scaling)
    features.fit([hits_of(toy_box(30)[:10]), hits_of(toy_box(30)[10:])])
    encoded = features.encode(hits)
    if scaling == "fitted":
        torch.testing.assert_close(encoded.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(encoded.std(0), torch.ones(4))
    places, energy = features.decode(encoded)
    assert np.array_equal(np.rint(places), hits.places())
    assert np.abs(places - hits.places()).max() < 1e-5
    assert np.allclose(energy, hits.energy, rtol=3e-6)


def test_what_cannot_be_an_energy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hit 1 is decoded to exp\(499\) MeV"):
        HitFeatures("published").decode(torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 500]]))
    with pytest.raises(ValueError, match="NaN"):
        HitFeatures("published").decode(torch.full((1, 4), float("nan")))
    with pytest.raises(ValueError, match="there are 0, 2 are needed"):
        HitFeatures("fitted").fit([])


def test_a_fit_brings_hits_back(fitted: tuple[HitTokenizer, list[dict[str, float]]]) -> None:
    """Hits near where they were, with about their energy: 64 codes for 4 numbers are few."""
    tokenizer, log = fitted
    showers = toy_box(40, seed=2)
    hits, tokens = tokenizer.hits(showers), tokenizer.encode(showers)
    assert tokens.ids.dtype == torch.int64
    assert np.array_equal(tokens.offsets.numpy(), hits.offsets)
    again = tokenizer.decode(tokens, showers.incident)
    assert np.array_equal(again.hits.counts, hits.counts)
    x = tokenizer.features.encode(hits)
    error = (tokenizer._decoded(tokens, showers.incident).detach() - x).square().mean()
    assert float(error) < 0.5 * float((x - x.mean(0)).square().mean())
    total = [np.bincount(h.shower_index, h.energy, len(h)) for h in (hits, again.hits)]
    assert np.corrcoef(*total)[0, 1] > 0.9
    assert (again.moved > 0).any()
    assert log[-1]["train_loss"] < 0.7 * log[0]["train_loss"]


def test_the_log_tells_usage(fitted: tuple[HitTokenizer, list[dict[str, float]]]) -> None:
    tokenizer, log = fitted
    assert all(0 < line["codes_used"] <= 1 and 1 < line["perplexity"] <= 64 for line in log)
    ids = tokenizer.encode(toy_box(150)).ids
    assert Usage.of(torch.bincount(ids, minlength=64)).share > 0.8


def test_showers_keep_to_themselves(fitted: tuple[HitTokenizer, list[dict[str, float]]]) -> None:
    tokenizer, _ = fitted
    showers = toy_box(12, seed=3)
    together = tokenizer.encode(showers)
    decoded = tokenizer.decode(together, showers.incident)
    for i in range(len(showers)):
        alone = tokenizer.encode(showers[i : i + 1])
        assert torch.equal(alone.ids, together.ids[together.offsets[i] : together.offsets[i + 1]])
        own = tokenizer.decode(alone, showers.incident[i : i + 1])
        hits = slice(int(together.offsets[i]), int(together.offsets[i + 1]))
        assert np.array_equal(own.hits.cell, decoded.hits.cell[hits])
        assert np.allclose(own.hits.energy, decoded.hits.energy[hits], rtol=1e-5)
        assert (own.outside[0], own.moved[0]) == (decoded.outside[i], decoded.moved[i])


def test_order_of_hits_is_that_of_tokens(fitted: tuple[HitTokenizer, list[dict[str, float]]]) -> None:
    """The networks have no order: hits in another order give the same tokens in that order."""
    tokenizer, _ = fitted
    hits = tokenizer.hits(toy_box(5))
    by_layer = hits.in_order("layer")
    of_cell = dict(zip(zip(hits.shower_index, hits.cell, strict=True), tokenizer.encode_hits(hits).ids, strict=True))
    again = tokenizer.encode_hits(by_layer).ids
    assert again.tolist() == [int(of_cell[key]) for key in zip(by_layer.shower_index, by_layer.cell, strict=True)]


def test_nothing_gives_nothing(fitted: tuple[HitTokenizer, list[dict[str, float]]]) -> None:
    tokenizer, _ = fitted
    assert len(tokenizer.encode(Showers.empty(BOX)).ids) == 0
    faint = Showers([0.0], [0.0], [0], [1e-6], [0, 0, 1], Incident.gun(2, energy=20), BOX)
    tokens = tokenizer.encode(faint)
    assert tokens.offsets.tolist() == [0, 0, 0]
    assert tokenizer.decode(tokens, faint.incident).hits.counts.tolist() == [0, 0]


def replaced(of: TokenizerStage) -> list[int]:
    """The codes that the stage is going to replace, as it does."""
    codes, replace = [], of.codebook.replace

    def note(dead: torch.Tensor, values: torch.Tensor) -> None:
        codes.extend(dead.tolist())
        replace(dead, values)

    of.codebook.replace = note
    return codes


def test_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    """A fit that was stopped on the way and one that was not end with the same bits, codes that moved included."""
    whole, first = stage(steps=40), stage(steps=40)
    moved, train = replaced(whole), toy_box(60)
    fit([whole], train, run_dir=tmp_path / "whole", progress=False)
    step, limit = first.after_step, 25

    def stop(n: int) -> None:
        step(n)
        if n == limit:
            raise KeyboardInterrupt

    first.after_step = stop
    with pytest.raises(KeyboardInterrupt):
        fit([first], train, run_dir=tmp_path / "cut", progress=False, checkpoint_seconds=0)
    again = stage(steps=40)
    fit([again], train, run_dir=tmp_path / "cut", progress=False)
    expected = whole.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.model.state_dict().items())
    assert len(moved) > SIZES.codes  # where all start, and some again
    assert (whole.codebook.life < SIZES.patience).any()


class Pair:
    """Two processes: the other has used code 3, and leads."""

    def add(self, tensors: list[torch.Tensor]) -> None:
        tensors[0][3] += 1

    def take_from_leader(self, tensors: list[torch.Tensor]) -> None:
        tensors[0].fill_(0.25)


def test_processes_agree_on_dead_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, together = stage(), stage()
    for made in (alone, together):
        made.codebook.life.fill_(1)
        made.codebook.used[:3] = 1
    alone.after_step(0)
    monkeypatch.setattr("calogen.systems.hit_tokenizer_stage.Group.current", Pair)
    together.after_step(0)
    changed = [(s.codebook.codes() == 0.25).all(1).nonzero()[:, 0].tolist() for s in (alone, together)]
    assert changed == [[], list(range(4, 64))]
    assert together.codebook.life.tolist() == [10] * 64
    assert not together.codebook.used.any()


def test_presets_are_published_sizes() -> None:
    published = HitTokenizer(PRESETS["published"], BOX_30)
    assert sum(p.numel() for p in published.parameters()) == 1_589_544
    assert published.vocabulary == 65_536
    assert PRESETS.keys() == PLANS.keys()
    with seeded(0, "desk"):
        desk = HitTokenizer(PRESETS["desk"], BOX_30)
    assert desk.condition(Incident.gun(3)).shape == (3, 1)


def test_refusals(fitted: tuple[HitTokenizer, list[dict[str, float]]]) -> None:
    tokenizer, _ = fitted
    with pytest.raises(ValueError, match="no regular box"):
        HitTokenizer(SMALL, CALOCHALLENGE_2)
    with pytest.raises(ValueError, match="the tokenizer is for 'box-8'"):
        tokenizer.encode(Showers.empty(BOX_30))
    with pytest.raises(ValueError, match="call eval"):
        small().encode(toy_box(1))
    with pytest.raises(ValueError, match="64 is no code"):
        tokenizer.decode(Tokens(torch.tensor([64]), torch.tensor([0, 1])), Incident.gun(1))
    with pytest.raises(ValueError, match="need 2 offsets"):
        tokenizer.decode(Tokens(torch.tensor([3, 3]), torch.tensor([0, 1])), Incident.gun(1))
    with pytest.raises(ValueError, match="513 hits, more than the 512 cells"):
        tokenizer.decode(Tokens(torch.zeros(513, dtype=torch.int64), torch.tensor([0, 513])), Incident.gun(1))
    with pytest.raises(ValueError, match="set ema to none"):
        stage(ema="constant").prepare(toy_box(5))
