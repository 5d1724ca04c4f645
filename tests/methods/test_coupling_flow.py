"""The coupling flow: invertible, normalised, the same alone as in company."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.methods.coupling_flow import LAYOUTS, CouplingFlow
from calogen.methods.rational_spline import BINS, BOUND, knots, rational_linear_spline, spline_value


def flow(dim: int = 5, layout: str = "alt1", seed: int = 0) -> CouplingFlow:
    torch.manual_seed(seed)
    return CouplingFlow(dim, 3, blocks=1, layout=layout).double().eval()


def splines(rows: int, dim: int, seed: int, spread: float = 2.0):
    torch.manual_seed(seed)
    return knots(spread * torch.randn(rows, dim * (4 * BINS - 1), dtype=torch.float64), dim)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(st.integers(0, 1000), st.integers(2, 7))
@settings(max_examples=10, deadline=None)
def test_inverse_undoes_forward(layout: str, seed: int, dim: int) -> None:
    model = flow(dim, layout, seed)
    z, c = 2 * torch.randn(16, dim, dtype=torch.float64), torch.randn(16, 3, dtype=torch.float64)
    x, log_det = model(z, c)
    back, log_det_back = model.inverse(x, c)
    torch.testing.assert_close(back, z, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_log_det_is_that_of_the_jacobian(layout: str) -> None:
    model = flow(4, layout)
    z, c = torch.randn(4, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: model(v[None], c)[0][0], z)
    torch.testing.assert_close(model(z[None], c)[1][0], jacobian.slogdet().logabsdet)


def test_density_integrates_to_one() -> None:
    model = flow(2)
    axis = torch.linspace(-12, 12, 500, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = model.log_prob(grid, torch.ones(1, 3, dtype=torch.float64).expand(len(grid), 3)).exp()
    assert abs(float(density.sum()) * float(axis[1] - axis[0]) ** 2 - 1) < 2e-3


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_spline_rises_and_is_the_identity_outside(seed: int) -> None:
    v = torch.linspace(-5, 5, 2001, dtype=torch.float64)[:, None]
    one = splines(1, 1, seed)
    here = type(one)(*(a.expand(len(v), *a.shape[1:]) for a in one))
    y, log_slope = rational_linear_spline(v, here)
    assert (y.diff(dim=0) > 0).all()
    outside = v.abs() > BOUND
    assert torch.equal(y[outside], v[outside])
    assert (log_slope[outside] == 0).all()
    torch.testing.assert_close(spline_value(v, here), y)


def test_spline_slope_is_its_derivative() -> None:
    here = splines(200, 3, 0)
    v = (7 * torch.rand(200, 3, dtype=torch.float64) - 3.5).requires_grad_()
    y, log_slope = rational_linear_spline(v, here)
    (slope,) = torch.autograd.grad(y.sum(), v)
    torch.testing.assert_close(slope.log(), log_slope.detach())


def test_gradients_are_finite_far_outside_the_bound() -> None:
    model = flow().float().train()
    model.loss(1e3 * torch.randn(64, 5), torch.randn(64, 3)).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_drawing_is_the_forward_map() -> None:
    model = flow(7).float()
    z, c = torch.randn(700, 7), torch.randn(700, 3)
    with torch.no_grad():
        expected = model(z, c)[0]
    torch.testing.assert_close(model.sample(c, noise=z), expected, atol=2e-5, rtol=1e-4)


def test_a_draw_does_not_depend_on_its_batch() -> None:
    model = flow(6).float()
    z, c = torch.randn(20, 6), torch.randn(20, 3)
    together = model.sample(c, noise=z)
    alone = torch.cat([model.sample(c[i : i + 1], noise=z[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_drawing_follows_changed_weights() -> None:
    model, other = flow().float(), flow(seed=1).float()
    z, c = torch.randn(8, 5), torch.randn(8, 3)
    before, wanted = model.sample(c, noise=z), other.sample(c, noise=z)
    assert not torch.allclose(before, wanted)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model.sample(c, noise=z), wanted)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
    copied = copy.deepcopy(model)
    copied.train().eval()
    torch.testing.assert_close(model.sample(c, noise=z), copied.sample(c, noise=z))


def test_permutations_are_part_of_the_state() -> None:
    orders = [value for name, value in flow().state_dict().items() if name.endswith("order")]
    assert len(orders) == 7


def test_loss_falls() -> None:
    torch.manual_seed(0)
    model = CouplingFlow(3, 1, blocks=1)
    c = torch.rand(256, 1)
    x = c * torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(256, 3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = model.loss(x, c).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 2


def test_what_does_not_fit_is_refused() -> None:
    model, c = flow().float(), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="layout"):
        CouplingFlow(5, 3, layout="other")
    with pytest.raises(ValueError, match="log_prob needs"):
        model.log_prob(torch.zeros(2, 4), c)
    with pytest.raises(ValueError, match="conditions must be"):
        model.sample(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="noise has shape"):
        model.sample(c, noise=torch.zeros(3, 5))
    with pytest.raises(ValueError, match="unknown options of sample: steps"):
        model.sample(c, steps=3)
    with pytest.raises(ValueError, match="counts must be None"):
        model.sample(c, counts=torch.ones(2))
    with pytest.raises(ValueError, match="mask must be None"):
        model.loss(torch.zeros(2, 5), c, torch.ones(2))
