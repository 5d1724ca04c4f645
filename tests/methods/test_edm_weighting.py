"""The monotone weighting of EDM's loss: where it is EDM's own, that it never rises, its mean, its place in the loss."""

import pytest
import torch
from scipy.integrate import quad

from calogen.methods.edm import EDM, c_noise, edm_scalings
from calogen.methods.edm_weighting import MonotoneWeight
from calogen.networks.pointwise import PointwiseNet

SETTINGS = [(-1.2, 1.2, 0.5), (0.0, 1.0, 0.5), (-1.2, 0.8, 1.0), (0.5, 1.3, 0.2)]


def implied(sigma: torch.Tensor, factor: torch.Tensor, p_mean: float, p_std: float, sigma_data: float) -> torch.Tensor:
    """w(λ) of |ε - ε̂|²: density of the training's λ, times c_out^-2 σ², times the factor; from its definition."""
    normal = torch.distributions.Normal(-2 * p_mean, 2 * p_std)
    c_out = edm_scalings(sigma, torch.tensor(sigma_data)).c_out
    return normal.log_prob(-2 * sigma.log()).exp() * sigma**2 / c_out**2 * factor


@pytest.mark.parametrize("setting", SETTINGS)
def test_weight_is_edms_where_that_falls_and_held_before(setting: tuple[float, float, float]) -> None:
    factor = MonotoneWeight(*setting)
    p_mean, p_std, _ = setting
    sigma = (p_mean + p_std * torch.linspace(-4, 4, 2001, dtype=torch.float64)).exp()
    plain = implied(sigma, torch.ones_like(sigma), *setting)
    made = implied(sigma, factor(sigma), *setting)
    top = int(plain.argmax())
    torch.testing.assert_close(factor(sigma[:top]) * factor.mean, torch.ones(top, dtype=torch.float64))
    torch.testing.assert_close(made[top:] * factor.mean, plain.max().expand(2001 - top), rtol=1e-4, atol=0)
    assert (made.diff() >= -1e-6 * made[1:]).all()  # rises with the noise only
    assert 0 < top < 2000


@pytest.mark.parametrize("setting", SETTINGS)
def test_mean_over_the_noise_of_training_is_one(setting: tuple[float, float, float]) -> None:
    factor, (p_mean, p_std, _) = MonotoneWeight(*setting), setting

    def weighted(u: float) -> float:
        u = torch.tensor(u, dtype=torch.float64)
        return float(torch.exp(-(u**2) / 2) / (2 * torch.pi) ** 0.5 * factor((p_mean + p_std * u).exp()))

    # Beyond 9 standard deviations the normal density is lost in round-off, the product falls as e^{-2 p_std u}.
    assert quad(weighted, -9, 12, limit=300)[0] == pytest.approx(1, abs=1e-4)


def test_factor_of_each_set_multiplies_its_loss() -> None:
    torch.manual_seed(0)
    network = PointwiseNet(features=4, condition=2, widths=(16, 32, 16))
    counts = torch.tensor([2, 0, 5, 1] * 100)
    x, c = torch.randn(800, 4), torch.randn(400, 2)
    plain, weighted = EDM(network), EDM(network, weighting="monotonic")
    one, other = (m.loss(x, c, counts, generator=torch.Generator().manual_seed(1)) for m in (plain, weighted))
    sigma = plain.draw_sigma(400, torch.Generator().manual_seed(1))
    assert other.shape == weighted.weight(sigma).shape == (400,)
    torch.testing.assert_close(other, one * weighted.weight(sigma))
    assert not torch.allclose(other, one)
    assert 0.98 < float(weighted.weight(sigma).min()) < 1 < float(weighted.weight(sigma).max())
    assert weighted.state_dict().keys() == plain.state_dict().keys()


def test_features_of_different_size_weigh_as_their_mean_error() -> None:
    network = PointwiseNet(features=2, condition=1, widths=(8,))
    model = EDM(network, 2, sigma_data=[0.3, 1.5], weighting="monotonic")
    sigma = torch.linspace(-4, 3, 200).exp()
    normal = torch.distributions.Normal(-2 * model.p_mean, 2 * model.p_std)
    per_feature = (sigma[:, None] / edm_scalings(sigma[:, None], model.sigma_data).c_out) ** 2
    made = normal.log_prob(-2 * sigma.log()).exp() * per_feature.mean(1) * model.weight(sigma)
    assert (made.diff() >= -1e-4 * made[1:]).all()
    assert c_noise(sigma).shape == model.weight(sigma).shape


def test_what_cannot_be_monotone_is_refused() -> None:
    with pytest.raises(ValueError, match="two maxima"):
        MonotoneWeight(p_mean=-3.9, p_std=1.8, sigma_data=0.5)
    with pytest.raises(ValueError, match="unknown weighting"):
        EDM(PointwiseNet(features=4, condition=2), weighting="flat")  # type: ignore[arg-type]
