"""Maps to the normal distribution: they invert, they make normal, they survive spikes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.gaussianize import (
    ConditionalStandardize,
    GaussianQuantiles,
    LayerQuantiles,
    RadialQuantiles,
    Whitening,
)


def _skew(z: torch.Tensor) -> float:
    return float((z**3).mean() / (z**2).mean() ** 1.5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["exponential", "spike", "cauchy"]))
def test_quantiles_invert_anywhere(seed: int, kind: str) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(500, 3, generator=g)
    x = {"exponential": -x.log(), "spike": torch.where(x < 0.5, torch.zeros(()), x), "cauchy": (3 * (x - 0.5)).tan()}[
        kind
    ]
    q = GaussianQuantiles(3)
    q.fit(x)
    probe = torch.cat([x, x * 3 - 1])  # beyond the fitted range too
    back = q.inverse(q(probe))
    scale = 1e-4 * (1 + probe.abs()) + 1e-5 * (x.amax(0) - x.amin(0))
    assert ((back - probe).abs() <= scale).all()


def test_quantiles_make_normal() -> None:
    x = -torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)).log()
    q = GaussianQuantiles(2)
    q.fit(x)
    z = q(x)
    assert float(z.mean().abs()) < 0.02
    assert abs(float(z.std()) - 1) < 0.02
    assert abs(_skew(z)) < 0.05


def test_radii_become_rayleigh_and_angles_stay() -> None:
    g = torch.Generator().manual_seed(1)
    r = (2 * torch.randn(20_000, generator=g)).exp()  # four decades
    phi = 6.2832 * torch.rand(20_000, generator=g)
    xy = torch.stack([r * phi.cos(), r * phi.sin()], dim=1)
    radial = RadialQuantiles()
    radial.fit(xy)
    z = radial(xy)
    assert abs(float(z.std()) - 1) < 0.02
    torch.testing.assert_close(torch.atan2(z[:, 1], z[:, 0]), torch.atan2(xy[:, 1], xy[:, 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(radial.inverse(z), xy, rtol=1e-3, atol=1e-4)
    assert torch.equal(radial(torch.zeros(1, 2)), torch.zeros(1, 2))


def test_layers_come_back_from_any_place_in_them() -> None:
    g = torch.Generator().manual_seed(2)
    layer = torch.multinomial(torch.tensor([0.5, 0.3, 0.0, 0.2]), 5000, replacement=True, generator=g)
    map_ = LayerQuantiles(4)
    map_.fit(layer)
    z = map_(layer, torch.rand(5000, generator=g))
    assert torch.equal(map_.inverse(z), layer)
    assert abs(float(z.std()) - 1) < 0.03


def test_whitening_uncorrelates() -> None:
    g = torch.Generator().manual_seed(3)
    a = torch.randn(3, 3, generator=g)
    z = torch.randn(20_000, 3, generator=g) @ a.T
    w, s = Whitening(3), torch.rand(20_000, generator=g)
    w.fit(z, s)
    assert float((torch.cov(w(z, s).T) - torch.eye(3)).abs().max()) < 0.05
    torch.testing.assert_close(w.inverse(w(z, s), s), z, rtol=1e-4, atol=1e-4)


def test_whitening_follows_the_condition() -> None:
    g = torch.Generator().manual_seed(5)
    s = torch.rand(30_000, generator=g)
    z = torch.randn(30_000, 2, generator=g)
    z[:, 1] = s * z[:, 0] + (1 - s**2).sqrt() * z[:, 1]  # correlation s
    left = {}
    for knots in (1, 3):
        w = Whitening(2, knots)
        w.fit(z, s)
        x = w(z, s)
        slices = [x[(s >= low) & (s < low + 0.3)] for low in (0.0, 0.3, 0.6)]
        left[knots] = max(abs(float(torch.corrcoef(part.T)[0, 1])) for part in slices)
    assert left[3] < 0.15 < 0.3 < left[1]
    beyond = torch.tensor([-1.0, 2.0])
    torch.testing.assert_close(w.inverse(w(z[:2], beyond), beyond), z[:2], rtol=1e-4, atol=1e-4)
    alike = Whitening(2, knots=3)
    alike.fit(z[:500], torch.ones(500))  # one direction: one factor decides
    torch.testing.assert_close(alike.inverse(alike(z[:5], torch.ones(5)), torch.ones(5)), z[:5], rtol=1e-4, atol=1e-4)


def test_conditional_standardisation_removes_mean_and_scale() -> None:
    g = torch.Generator().manual_seed(4)
    c = torch.randn(5000, 1, generator=g)
    features = torch.cat([torch.ones_like(c), c], dim=1)
    t = 3 + 2 * c + (0.5 * c).exp() * torch.randn(5000, 1, generator=g)
    s = ConditionalStandardize(1, 2)
    s.fit(t, features, torch.ones_like(t, dtype=torch.bool))
    z = s(t, features)
    for part in (c < 0, c > 0):
        assert abs(float(z[part].mean())) < 0.06
        assert abs(float(z[part].std()) - 1) < 0.06
    torch.testing.assert_close(s.inverse(z, features), t)


@pytest.mark.parametrize("bad", [torch.full((4, 2), torch.nan), torch.zeros(1, 2), torch.zeros(4, 3)])
def test_bad_data_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="quantiles need"):
        GaussianQuantiles(2).fit(bad)


@pytest.mark.parametrize("n", [3, 40, 400])
def test_radii_a_little_beyond_those_fitted_stay_near(n: int) -> None:
    """Few points do not reach the outer knots: what comes next lies on a line, not at the other end of the world."""
    xy = torch.randn(n, 2, generator=torch.Generator().manual_seed(n)).exp()
    radial = RadialQuantiles()
    radial.fit(xy)
    beyond = 1.2 * xy[xy.norm(dim=1).argmax()][None]
    assert float(radial(beyond).norm()) < 6
    torch.testing.assert_close(radial.inverse(radial(beyond)), beyond, rtol=1e-3, atol=1e-4)
