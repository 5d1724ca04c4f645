"""The solvers have the order they claim, and their grids are Karras'."""

import math

import pytest
import torch

from calogen.methods.solvers import STEPS, heun_edm, integrate, sigma_karras

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "three_eighths": 4}


@pytest.mark.parametrize("name", STEPS)
def test_order(name: str) -> None:
    def error(n: int) -> float:
        times = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        x = integrate(lambda x, t: -2 * t * x**2, torch.ones((), dtype=torch.float64), times, STEPS[name])
        return abs(float(x) - 0.5)

    assert abs(math.log2(error(32) / error(64)) - ORDERS[name]) < 0.35


def test_heun_edm_on_a_gaussian() -> None:
    """For data N(0, s²) the denoiser is known and x(0) = x(σ_max) s / √(s² + σ_max²)."""
    s, sigmas = 0.5, sigma_karras(200, 0.002, 80.0).double()
    x = heun_edm(lambda x, sigma: x * s**2 / (s**2 + sigma**2), torch.tensor(80.0, dtype=torch.float64), sigmas)
    assert abs(float(x) - 80 * s / math.sqrt(s**2 + 80**2)) < 1e-3


def test_karras_levels() -> None:
    sigmas = sigma_karras(18, 0.002, 80.0)
    assert len(sigmas) == 19
    assert math.isclose(float(sigmas[0]), 80.0, rel_tol=1e-6)
    assert math.isclose(float(sigmas[-2]), 0.002, rel_tol=1e-4)
    assert float(sigmas[-1]) == 0
    with pytest.raises(ValueError, match="no noise levels"):
        sigma_karras(0, 0.002, 80.0)
