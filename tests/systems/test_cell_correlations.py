"""The velocity of correlated normal numbers: exact where they are normal, and what the showers' correlations are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_voxels import RINGS

from calogen.detector.catalog import CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2, ILD_ECAL
from calogen.methods.flow_matching import BetweenNormals
from calogen.methods.solvers import STEPS, integrate
from calogen.systems.cell_correlations import CellCorrelations, rings_and_sectors

GRID = (3, 8, 2)


def correlated(n: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers: a common part of each layer, one that follows the cosine of a random angle, noise; variance 1."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(8) / 8
    common = rng.standard_normal((n, 3, 1, 1))
    wave = rng.standard_normal((2, n, 1, 1, 1))
    leaning = np.sqrt(2) * (wave[0] * np.cos(angle)[:, None] + wave[1] * np.sin(angle)[:, None])
    x = 0.6 * common + 0.5 / np.sqrt(2) * leaning + np.sqrt(1 - 0.36 - 0.25) * rng.standard_normal((n, *GRID))
    return torch.from_numpy(x.reshape(n, -1).astype(np.float32))


def fitted(kept: int = 6) -> CellCorrelations:
    base = CellCorrelations(GRID, kept)
    x = correlated(20_000)
    base.fit([x[:7000], x[7000:]])
    return base


def covariance(x: torch.Tensor) -> torch.Tensor:
    return x.T @ x / len(x)


def test_its_flow_draws_the_correlations() -> None:
    base, z = fitted(), torch.randn(20_000, 48, generator=torch.Generator().manual_seed(1))
    x = integrate(lambda x, t: base(x, t.expand(len(x))), z, torch.linspace(0, 1, 33), STEPS["midpoint"])
    torch.testing.assert_close(covariance(x), covariance(correlated(20_000, 2)), atol=0.05, rtol=0)
    assert float(covariance(x).fill_diagonal_(0).abs().max()) > 0.5


def test_velocity_is_the_mean_of_the_velocities() -> None:
    """Least squares of x - k z by x_t finds it."""
    base, x = fitted(), correlated(40_000, 3)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    for t, sigma_min in ((0.3, 0.0), (0.8, 0.1)):
        k = 1 - sigma_min
        x_t, v = t * x + (1 - k * t) * z, x - k * z
        best = torch.linalg.lstsq(x_t, v).solution
        unit = torch.eye(48)
        linear = base(unit, torch.full((48,), t), sigma_min)
        torch.testing.assert_close(linear, best, atol=0.06, rtol=0)


def test_turned_and_mirrored_showers_have_turned_and_mirrored_velocities() -> None:
    base, x, t = fitted(), correlated(5, 9).view(5, *GRID), torch.linspace(0.1, 0.9, 5)

    def velocity(grid: torch.Tensor) -> torch.Tensor:
        return base(grid.reshape(5, -1), t).view(5, *GRID)

    torch.testing.assert_close(velocity(x.roll(3, 2)), velocity(x).roll(3, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(velocity(x.flip(2)), velocity(x).flip(2), atol=1e-5, rtol=0)


def test_before_the_fit_every_number_is_alone() -> None:
    x, t = correlated(4), torch.tensor([0.0, 0.3, 0.6, 0.9])
    torch.testing.assert_close(CellCorrelations(GRID)(x, t), BetweenNormals()(x, t), atol=1e-6, rtol=0)


def test_few_kept_vectors_are_the_strongest() -> None:
    """One of each component is kept: the common part of layers at m = 0, the leaning one at m = 1; others share one."""
    whole, few = fitted(), fitted(kept=1)
    assert few.vectors.shape == (5, 6, 1)
    torch.testing.assert_close(few.variances[:, 0], whole.variances[:, 0])
    assert float(few.variances[1, 0]) > 5
    assert (few.rest > 0).all()


def test_what_has_no_sectors_is_refused() -> None:
    assert rings_and_sectors(CALOCHALLENGE_2) == (45, 16, 9)
    assert rings_and_sectors(RINGS) == (6, 4, 3)
    for detector in (ILD_ECAL, CALOCHALLENGE_1_PIONS):
        with pytest.raises(ValueError, match="set correlated=false"):
            rings_and_sectors(detector)
    with pytest.raises(ValueError, match="two showers or more, got 1"):
        CellCorrelations(GRID).fit([correlated(1)])
