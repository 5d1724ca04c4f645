"""The generator of tokens: fitted through the training entry, conditioned, drawn with seeds, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from toys import toy_showers

from calogen import Incident, Showers
from calogen.methods.token_slots import TooLongError
from calogen.networks.token_drafts import TokenDrafts
from calogen.systems.draft_stage import DraftStage
from calogen.systems.particles import Particles
from calogen.systems.token_generator import (
    PUBLISHED_SIZES,
    GeneratorSizes,
    TokenGenerator,
    TokenStage,
    encoded,
    spread_out,
)
from calogen.train import Plan, fit
from calogen.train.streams import seeded

SMALL = GeneratorSizes(width=16, blocks=1, heads=2, feedforward=24, groups=5, rank=8)
SIZES = {
    "modern": SMALL,
    "tied": replace(SMALL, groups=0, rotary=True, steered=False),
    "published": replace(PUBLISHED_SIZES, width=16, blocks=1, heads=2, feedforward=24),
}
PLAN = Plan(steps=150, batch_size=16, learning_rate=1e-2, schedule="cosine", validate_every=75)


@dataclass(frozen=True)
class Layers:
    """A tokenizer for tests: the layers in which a shower has points, from the front."""

    codes: int = 30
    wrong: int = 0

    def values(self) -> Tensor:
        return torch.arange(float(self.codes))[:, None]

    def encode(self, showers: Showers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = [np.unique(part) for part in np.split(showers.layer, showers.offsets[1:-1])]
        offsets = np.cumsum([0, *map(len, rows)])
        return np.concatenate(rows).astype(np.int64) + self.wrong, offsets


@pytest.fixture(scope="module")
def showers() -> Showers:
    return toy_showers(200, seed=1)


def fitted(name: str, showers: Showers, folder: Path) -> tuple[TokenGenerator, float]:
    with seeded(1, name):
        generator = TokenGenerator(30, Particles(kinds=False), SIZES[name])
    stage = TokenStage(generator, Layers(), PLAN)
    (report,) = fit([stage], showers[np.arange(150)], showers[np.arange(150, 200)], run_dir=folder, progress=False)
    assert report.best_loss is not None
    return generator, report.best_loss


@pytest.fixture(scope="module")
def modern(showers: Showers, tmp_path_factory: pytest.TempPathFactory) -> TokenGenerator:
    return fitted("modern", showers, tmp_path_factory.mktemp("modern"))[0]


@pytest.mark.parametrize("name", ["tied", "published"])
def test_other_forms_are_fitted_too(name: str, showers: Showers, tmp_path: Path) -> None:
    generator, loss = fitted(name, showers, tmp_path)
    assert loss < 0.6 * np.log(31)
    again = TokenGenerator(30, Particles(kinds=False), SIZES[name])
    again.load_state_dict(generator.state_dict())
    incident = Incident.gun(3, energy=20.0)
    made = again.sample(incident, seed=1)
    assert np.array_equal(made.codes, generator.sample(incident, seed=1).codes)
    assert made.passes == len(made.codes) + 3


@pytest.mark.parametrize("recalls", [False, True])
def test_drafts_are_fitted_to_a_generator_that_stays(recalls: bool, showers: Showers, tmp_path: Path) -> None:
    generator = TokenGenerator(30, Particles(kinds=False), replace(SMALL, recalls=recalls))
    stage = TokenStage(generator, Layers(), PLAN)
    drafts = TokenDrafts(SMALL.width, 3)
    plan = replace(PLAN, steps=100)
    fit([stage], showers, run_dir=tmp_path / "generator", progress=False)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    (report,) = fit([DraftStage(drafts, stage, plan)], showers, run_dir=tmp_path / "drafts", progress=False)
    assert report.parameters == sum(p.numel() for p in drafts.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    assert all(p.requires_grad for p in generator.parameters())
    incident = Incident.gun(60, energy=20.0)
    plain, guessed = generator.sample(incident, seed=1), generator.sample(incident, seed=1, drafts=drafts)
    assert guessed.passes < 0.6 * (len(guessed.codes) + 60)
    assert abs(len(guessed.codes) / len(plain.codes) - 1) < 0.2


def test_layers_are_drawn_in_order_and_more_of_them_at_high_energy(modern: TokenGenerator) -> None:
    def mean_number(energy: float) -> float:
        made = modern.sample(Incident.gun(60, energy=energy), seed=3)
        steps = np.diff(made.codes)
        inside = np.setdiff1d(np.arange(len(steps)), made.offsets[1:-1] - 1)
        assert (steps[inside] > 0).mean() > 0.85
        return float(np.diff(made.offsets).mean())

    truth = [np.diff(encoded(Layers(), toy_showers(300, seed=s)).offsets).mean() for s in (5, 6)]
    low, high = mean_number(3.0), mean_number(50.0)
    assert low + 4 < np.mean(truth) < high


def test_a_shower_is_its_particle_and_the_seed(modern: TokenGenerator) -> None:
    incident = Incident.gun(12, energy=(5.0, 50.0), seed=2)
    whole = modern.sample(incident, seed=7)
    parts = [modern.sample(incident[i : i + 5], seed=7, first=i, batch_size=2) for i in (0, 5, 10)]
    assert np.array_equal(whole.codes, np.concatenate([part.codes for part in parts]))
    assert not np.array_equal(whole.codes, modern.sample(incident, seed=8).codes)
    half = modern.sample(incident, seed=7, precision="bfloat16")
    assert abs(len(half.codes) - len(whole.codes)) < 0.2 * len(whole.codes)


def test_the_limit(modern: TokenGenerator) -> None:
    incident = Incident.gun(4, energy=50.0)
    with pytest.raises(TooLongError, match="after 3 tokens"):
        modern.sample(incident, seed=1, limit=3)
    cut = modern.sample(incident, seed=1, limit=3, cut=True)
    assert np.diff(cut.offsets).max() == 3
    assert not cut.complete.all()
    assert int(modern.longest) > 10


def test_codes_that_are_alike_start_alike(showers: Showers) -> None:
    def start(name: str, afresh: bool) -> tuple[Tensor, Tensor]:
        with seeded(1, name):
            generator = TokenGenerator(30, Particles(kinds=False), SIZES[name])
        weight = generator.network.vocabulary.table.embedding.weight
        before = weight.detach().clone()
        TokenStage(generator, Layers(), PLAN, afresh=afresh).prepare(showers)
        return before, weight.detach()

    before, after = start("modern", True)
    apart = torch.cdist(after[1:-1], after[1:-1])
    assert apart.diagonal(1).mean() < 0.3 * apart.mean()
    assert apart[0].argsort()[:3].tolist() == [0, 1, 2]
    assert torch.equal(before[[0, -1]], after[[0, -1]])
    for untouched in (start("modern", False), start("published", True)):
        assert torch.equal(*untouched)


def test_spread_out_numbers_are_of_size_one() -> None:
    values = torch.randn(4000, 3, generator=torch.Generator().manual_seed(4)) * torch.tensor([1.0, 50.0, 0.01]) + 7
    made = spread_out(values, 32)
    assert made.shape == (4000, 32)
    assert made.square().mean(0).sub(1).abs().max() < 0.9
    torch.testing.assert_close(made[:, :3], (values - values.mean(0)) / values.std(0))
    assert torch.isfinite(spread_out(torch.ones(5, 3), 8)).all()
    assert spread_out(values, 2).shape == (4000, 2)


def test_all_tokens_count_alike(showers: Showers) -> None:
    """The weighted mean of the showers' losses is the mean over tokens."""
    torch.manual_seed(0)
    stage = TokenStage(TokenGenerator(30, Particles(), SMALL), Layers(), PLAN)
    stage.prepare(showers)
    batch = stage.batch(showers, np.array([7, 3, 150]), np.random.default_rng(0))
    codes, counts, c = batch
    made = encoded(Layers(), showers)
    assert np.array_equal(
        codes, np.concatenate([made.codes[made.offsets[i] : made.offsets[i + 1]] for i in (7, 3, 150)])
    )
    loss, weights = stage.loss(batch), stage.weights(batch)
    assert torch.allclose(loss * weights, stage.generator.method.surprise(codes, c, counts))
    assert np.array_equal(stage.counts(showers)[[7, 3, 150]], weights)


def test_published_size() -> None:
    with torch.device("meta"):
        generator = TokenGenerator(65536, Particles(), PUBLISHED_SIZES)
    assert sum(p.numel() for p in generator.parameters()) == 35_987_970


def test_what_is_refused(showers: Showers) -> None:
    generator = TokenGenerator(30, Particles(), SMALL)
    with pytest.raises(ValueError, match="31 codes does not fit a generator of 30"):
        TokenStage(generator, Layers(31), PLAN)
    with pytest.raises(ValueError, match="are not within 0 to 29"):
        encoded(Layers(wrong=25), showers)
    with pytest.raises(ValueError, match="unknown form 'other'"):
        GeneratorSizes(form="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="drafts=-1"):
        GeneratorSizes(drafts=-1)
    with pytest.raises(ValueError, match="unknown precision 'half'"):
        generator.sample(Incident.gun(1), seed=1, precision="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit=0"):
        generator.sample(Incident.gun(1), seed=1)

    class Short(Layers):
        def encode(self, showers: Showers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            codes, offsets = super().encode(showers)
            return codes, offsets[:-1]

    with pytest.raises(ValueError, match="a tokenizer gave"):
        encoded(Short(), showers)
