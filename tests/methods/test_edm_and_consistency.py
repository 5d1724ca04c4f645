"""EDM and consistency distillation on packed sets: limits, conventions, independence of the sets, learning."""

import copy

import pytest
import torch

from calogen.methods.conditional import mean_per_set, pack, per_point
from calogen.methods.consistency import ConsistencyDistillation, ConsistencyModel
from calogen.methods.edm import EDM, boundary_scalings, edm_scalings
from calogen.networks.pointwise import PointwiseNet

COUNTS = torch.tensor([5, 0, 2000, 1, 37])


def network(seed: int = 0) -> PointwiseNet:
    torch.manual_seed(seed)
    return PointwiseNet(features=4, condition=2, widths=(16, 32, 16))


def sets(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(int(COUNTS.sum()), 4), torch.randn(len(COUNTS), 2)


def test_edm_denoiser_keeps_what_has_no_noise() -> None:
    x, c = sets()
    sigma = torch.full((len(COUNTS),), 1e-6)
    torch.testing.assert_close(EDM(network()).denoise(x, sigma, c, COUNTS), x, atol=1e-4, rtol=0)


def test_edm_scalings_keep_unit_variance() -> None:
    sigma, sigma_data = torch.logspace(-3, 2, 20), torch.tensor(0.7)
    skip, out, into = edm_scalings(sigma, sigma_data)
    torch.testing.assert_close(into**2 * (sigma**2 + sigma_data**2), torch.ones(20))
    torch.testing.assert_close(out**2, sigma_data**2 * (1 - skip) ** 2 + skip**2 * sigma**2)  # EDM eq. 125


def test_sigma_data_may_differ_between_features() -> None:
    x, c = sets()
    model = EDM(network(), sigma_data=[0.5, 0.5, 1.0, 2.0])
    assert model.sigma_data.tolist() == [0.5, 0.5, 1.0, 2.0]
    assert model.loss(x, c, COUNTS).shape == (len(COUNTS),)


def test_consistency_boundary_condition() -> None:
    x, c = sets()
    model = ConsistencyModel(network())
    sigma = torch.full((len(COUNTS),), model.sigma_min)
    assert torch.equal(model(x, sigma, c, COUNTS), x)
    assert float(boundary_scalings(torch.tensor(0.002), torch.tensor(0.5), 0.002).c_out) == 0


@pytest.mark.parametrize("make", [EDM, ConsistencyModel])
@pytest.mark.parametrize("options", [{}, {"several": True}])
def test_a_set_does_not_depend_on_its_batch(make: type, options: dict) -> None:
    _, c = sets()
    model = make(network())
    noise = torch.randn(int(COUNTS.sum()), 4)
    extra = {}
    if options:
        extra = {"steps": 4} if make is EDM else {"sigmas": (80.0, 1.0)}
        noise = noise if make is EDM else torch.stack([noise, noise.flip(0)])
    together = model.sample(c, counts=COUNTS, noise=noise, **extra).split(COUNTS.tolist())
    pieces = noise.split(COUNTS.tolist(), dim=-2)
    for k, piece in enumerate(pieces):
        alone = model.sample(c[k : k + 1], counts=COUNTS[k : k + 1], noise=piece, **extra)
        torch.testing.assert_close(alone, together[k], atol=1e-4, rtol=1e-4)


def test_permuted_points_give_permuted_samples() -> None:
    model, c, counts = ConsistencyModel(network()), torch.zeros(1, 2), torch.tensor([3000])
    noise, order = torch.randn(3000, 4), torch.randperm(3000)
    one, other = (model.sample(c, counts=counts, noise=z) for z in (noise, noise[order]))
    torch.testing.assert_close(one[order], other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("distil", [False, True])
def test_padded_and_packed_give_the_same_loss(distil: bool) -> None:
    x, c = sets()
    model = ConsistencyDistillation(EDM(network())) if distil else EDM(network())
    padded = torch.full((len(COUNTS), int(COUNTS.max()), 4), torch.nan)
    mask = torch.arange(int(COUNTS.max())) < COUNTS[:, None]
    padded[mask] = x
    one = model.loss(x, c, COUNTS, generator=torch.Generator().manual_seed(3))
    other = model.loss(padded, c, mask, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, other)
    assert one[1] == 0  # the empty set
    assert torch.isfinite(one).all()


def test_samples_repeat_with_the_seed() -> None:
    _, c = sets()
    model = EDM(network())
    one, other, third = (
        model.sample(c, counts=COUNTS, generator=torch.Generator().manual_seed(s), steps=3) for s in (1, 1, 2)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert model.sample(c, steps=2).shape == (len(c), 4)  # without counts: one point each


def test_stratified_noise_levels_have_the_distribution_and_less_spread() -> None:
    model = EDM(network(), stratified=True)
    draws = torch.stack([model.draw_sigma(64).log() for _ in range(200)])
    assert abs(float(draws.mean()) + 1.2) < 0.01
    assert abs(float(draws.std()) - 1.2) < 0.02
    assert float(draws.mean(dim=1).std()) < 0.3 * 1.2 / 64**0.5
    assert abs(float(draws[:, 0].mean()) + 1.2) < 0.3  # no place in the batch is special


def test_target_follows_the_student_and_is_in_the_state() -> None:
    model = ConsistencyDistillation(EDM(network()), target_decay=0.9)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(1.0)
    model.after_step()
    for name, value in model.target.named_parameters():
        torch.testing.assert_close(value, before[f"target.{name}"] + 0.1, atol=1e-5, rtol=1e-5)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in model.student.parameters()}
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[f"teacher.{name}"])


def cloud(n: int, points: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sets of Gaussian points whose centre is told by the condition."""
    c = torch.randn(n, 2)
    centre = torch.cat([c, -c], dim=1)
    x = 0.5 * (per_set(centre, points) + 0.3 * torch.randn(n * points, 4))
    return x, c, torch.full((n,), points)


def per_set(values: torch.Tensor, points: int) -> torch.Tensor:
    return values.repeat_interleave(points, dim=0)


def fit(model: torch.nn.Module, steps: int, after=lambda: None) -> list[float]:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(steps):
        loss = model.loss(*cloud(16, 16)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after()
        losses.append(loss.item())
    return losses


def test_teacher_and_student_learn_a_cloud() -> None:
    teacher = EDM(network())
    losses = fit(teacher, 250)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    student = ConsistencyDistillation(teacher)
    fit(student, 150, student.after_step)
    c = torch.tensor([[1.0, -1.0], [0.0, 0.5]])
    counts = torch.tensor([500, 500])
    for x in (teacher.sample(c, counts=counts, steps=12), student.sample(c, counts=counts)):
        means = x.reshape(2, 500, 4).mean(dim=1)
        torch.testing.assert_close(means, 0.5 * torch.cat([c, -c], dim=1), atol=0.15, rtol=0)


def test_huber_is_small_change_for_small_distance() -> None:
    x, c = sets()
    plain = ConsistencyDistillation(EDM(network()))
    huber = ConsistencyDistillation(EDM(network()), huber=0.1)
    d2, h = (m.loss(x, c, COUNTS, generator=torch.Generator().manual_seed(0)) for m in (plain, huber))
    torch.testing.assert_close(h, (d2 + 0.01).sqrt() - 0.1)


def test_packing() -> None:
    x, counts = pack(torch.zeros(3, 4), None, 3)
    assert x.shape == (3, 4)
    assert counts.tolist() == [1, 1, 1]
    x, counts = pack(torch.zeros(3, 7, 4), None, 3)
    assert x.shape == (21, 4)
    assert per_point(torch.arange(3.0), counts).shape == (21, 1)
    assert mean_per_set(torch.ones(21, 4), counts).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="do not describe"):
        pack(torch.zeros(5, 4), torch.tensor([2, 2]), 2)
    with pytest.raises(ValueError, match="does not say"):
        pack(torch.zeros(2, 5, 4), torch.ones(2, 4, dtype=torch.bool), 2)


def test_what_does_not_fit_is_refused() -> None:
    _, c = sets()
    with pytest.raises(ValueError, match="noise has shape"):
        EDM(network()).sample(c, counts=COUNTS, noise=torch.zeros(3, 4))
    with pytest.raises(ValueError, match="unknown options"):
        EDM(network()).sample(c, counts=COUNTS, churn=1)
    with pytest.raises(ValueError, match="sigmas must fall"):
        ConsistencyModel(network()).sample(c, counts=COUNTS, sigmas=(1.0, 80.0))
    with pytest.raises(ValueError, match="target_decay"):
        ConsistencyDistillation(EDM(network()), target_decay=1.0)
