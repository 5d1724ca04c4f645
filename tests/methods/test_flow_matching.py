"""Flow matching carries noise to data, in our time and in others', packed or padded, and distils to one step."""

import pytest
import torch
from torch import Tensor, nn

from calogen.methods.conditional import Network
from calogen.methods.flow_matching import BetweenNormals, FlowMatching, FromData, OneStepFlow, velocity_below

COUNTS = torch.tensor([3, 0, 5])
MEAN, WIDTH = 2.0, 0.5


class Exact(nn.Module):
    """The velocity whose flow carries N(0, 1) to N(MEAN, WIDTH²) along the path with σ_min = 0, in our time."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
        at = torch.repeat_interleave(t, counts)[:, None]
        variance = (1 - at) ** 2 + (at * WIDTH) ** 2
        gain = (at * WIDTH**2 - (1 - at)) / variance
        return MEAN + gain * (x - at * MEAN)


class Backwards(nn.Module):
    """Another network, in the time that is 0 at data."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
        return -self.network(x, 1 - t, c, counts)


class Counted(nn.Module):
    """A linear velocity that counts how often its condition was prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 2)
        self.bound = 0

    def bind(self, c: Tensor, counts: Tensor) -> Network:
        self.bound += 1
        each = torch.repeat_interleave(c, counts, dim=0)
        return lambda x, t: self.map(torch.cat([x, each, torch.repeat_interleave(t, counts)[:, None]], dim=1))

    def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
        return self.bind(c, counts)(x, t)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("network", [Exact(), FromData(Backwards(Exact()))], ids=["ours", "theirs"])
@pytest.mark.parametrize(("solver", "tolerance"), [("heun", 1e-3), ("midpoint", 1e-3), ("rk4", 1e-5)])
def test_noise_becomes_data(network: nn.Module, solver: str, tolerance: float) -> None:
    """Of a Gaussian the flow is known: x = MEAN + WIDTH z."""
    flow, z = FlowMatching(network, 2), torch.randn(8, 2, generator=generator())
    x = flow.sample(torch.zeros(3, 0), counts=COUNTS, noise=z, steps=40, solver=solver)
    torch.testing.assert_close(x, MEAN + WIDTH * z, atol=tolerance, rtol=0)


def test_the_exact_velocity_has_the_least_loss() -> None:
    """Its loss is the variance of the target that x_t leaves open; a scaled velocity loses more."""
    z, x = torch.randn(2, 4000, 1, generator=generator())
    x, c = MEAN + WIDTH * x, torch.zeros(4000, 0)
    t = torch.rand(4000, generator=generator(1))
    flow = FlowMatching(Exact(), 1, sigma_min=0.0)
    variance = (1 - t) ** 2 + (t * WIDTH) ** 2
    expected = (WIDTH**2 / variance).mean()  # of x - z given x_t, for independent Gaussians
    assert abs(float(flow.loss(x, c, t=t, noise=z).mean() / expected) - 1) < 0.05

    class Scaled(Exact):
        def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
            return 1.2 * super().forward(x, t, c, counts)

    worse = FlowMatching(Scaled(), 1, sigma_min=0.0).loss(x, c, t=t, noise=z)
    assert worse.mean() > 1.05 * expected


def test_weights_of_features_weigh_their_errors() -> None:
    weights, (x, c) = torch.tensor([1.0, 8.0, 0.5]), (torch.randn(5, 3), torch.randn(5, 2))
    t, z = torch.rand(5), torch.randn(5, 3)
    network = nn.Module()
    network.forward = lambda x, t, c, counts: torch.zeros_like(x)  # type: ignore[method-assign]
    loss = FlowMatching(network, 3, sigma_min=0.0, weights=weights).loss(x, c, t=t, noise=z)
    torch.testing.assert_close(loss, ((x - z) ** 2 * weights).mean(1))


def test_padded_and_packed_sets_have_one_loss() -> None:
    torch.manual_seed(0)
    flow = FlowMatching(Counted(), 2)
    padded, mask = torch.randn(3, 5, 2), torch.arange(5) < COUNTS[:, None]
    c, t, noise = torch.randn(3, 1), torch.rand(3), torch.randn(8, 2)
    packed = flow.loss(padded[mask], c, COUNTS, t=t, noise=noise)
    torch.testing.assert_close(packed, flow.loss(padded, c, mask, t=t, noise=noise))
    assert packed[1] == 0  # an empty set
    spoiled = torch.where(mask[..., None], padded, torch.nan)
    torch.testing.assert_close(packed, flow.loss(spoiled, c, mask, t=t, noise=noise))


def test_each_set_has_the_mean_of_its_own_points() -> None:
    torch.manual_seed(0)
    flow = FlowMatching(Counted(), 2)
    x, c, t, noise = torch.randn(8, 2), torch.randn(3, 1), torch.rand(3), torch.randn(8, 2)
    whole = flow.loss(x, c, COUNTS, t=t, noise=noise)
    alone = flow.loss(x[3:], c[2:], COUNTS[2:], t=t[2:], noise=noise[3:])
    torch.testing.assert_close(whole[2:], alone)


def test_seeds_repeat_and_conditions_are_prepared_once() -> None:
    flow, c = FlowMatching(Counted(), 2), torch.randn(3, 1)
    draws = [flow.sample(c, counts=COUNTS, generator=generator(k), steps=3) for k in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert flow.network.bound == 3
    losses = [flow.loss(draws[0], c, COUNTS, generator=generator(k)) for k in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("stratified", [False, True])
def test_times_of_training_are_uniform(stratified: bool) -> None:
    flow = FlowMatching(Exact(), 2, stratified=stratified)
    t = flow.draw_t(1000, torch.zeros(0), generator())
    assert 0 <= t.min() <= t.max() < 1
    worst = (t.sort().values - torch.arange(1000) / 1000).abs().max()
    assert worst < (0.0011 if stratified else 0.06)
    assert not torch.equal(t, t.sort().values)


def test_one_step_learns_what_the_flow_does() -> None:
    """A linear flow is one linear step: the student finds it."""
    torch.manual_seed(0)
    teacher = FlowMatching(Exact(), 1)
    z, c = torch.randn(256, 1), torch.zeros(256, 1)
    x = teacher.sample(c, noise=z, steps=20, solver="rk4")

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(1, 1)

        def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
            return self.map(x)

    student = OneStepFlow.from_teacher(FlowMatching(Linear(), 1))
    optimizer = torch.optim.LBFGS(student.parameters(), line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = student.loss(x, c, noise=z).mean()
        loss.backward()
        return loss

    optimizer.step(step)
    torch.testing.assert_close(student.sample(c, noise=z), x, atol=1e-4, rtol=0)
    assert student.sample(c, generator=generator()).shape == (256, 1)


def test_the_one_step_form_is_the_authors() -> None:
    """student(z) = z - net(τ = 1, z), in the time that is 0 at data."""
    net = Backwards(Counted())
    z, c, one = torch.randn(4, 2), torch.randn(4, 1), torch.ones(4, dtype=torch.int64)
    theirs = z - net(z, torch.ones(4), c, one)
    torch.testing.assert_close(OneStepFlow(FromData(net), 2).sample(c, noise=z), theirs.detach())


def test_what_cannot_be_is_refused() -> None:
    flow, c = FlowMatching(Counted(), 2), torch.zeros(3, 1)
    with pytest.raises(ValueError, match="unknown solver 'adams'"):
        flow.sample(c, counts=COUNTS, solver="adams")
    with pytest.raises(ValueError, match="at least 1 step"):
        flow.sample(c, counts=COUNTS, steps=0)
    with pytest.raises(ValueError, match="unknown options"):
        flow.sample(c, counts=COUNTS, sigma=1)
    with pytest.raises(ValueError, match="noise has shape"):
        flow.sample(c, counts=COUNTS, noise=torch.zeros(3, 2))
    with pytest.raises(ValueError, match="sigma_min"):
        FlowMatching(Exact(), 2, sigma_min=1.0)
    with pytest.raises(ValueError, match="learns from pairs"):
        OneStepFlow(Exact(), 2).loss(torch.zeros(8, 2), c, COUNTS)


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
def test_normal_data_without_a_network_is_the_noise(sigma_min: float) -> None:
    """A velocity of zero on top of that between normals: every feature stays standard normal."""

    class Zero(Exact):
        def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
            return torch.zeros_like(x)

    z = torch.randn(8, 2, generator=generator())
    flow = FlowMatching(Zero(), 2, sigma_min=sigma_min, base=BetweenNormals())
    x = flow.sample(torch.zeros(8, 0), noise=z, steps=40, solver="rk4")
    torch.testing.assert_close(x, z * (1 + sigma_min**2) ** 0.5, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("edge", "t", "sigma_min"), [(-1.0, 0.7, 0.0), (0.5, 0.3, 0.1), (3.0, 0.5, 1e-4)])
def test_velocity_below_an_edge_is_the_mean_of_the_velocities(edge: float, t: float, sigma_min: float) -> None:
    """Of a million pairs, in narrow slices of x_t; far from the edge it is that between normals."""
    z, x = torch.randn(2, 3_000_000, 1, generator=generator(), dtype=torch.float64)
    z, x = z[x[:, 0] < edge], x[x[:, 0] < edge]
    times, ones = torch.full((len(x),), t, dtype=torch.float64), torch.ones(len(x), dtype=torch.int64)
    x_t, v = t * x + (1 - (1 - sigma_min) * t) * z, x - (1 - sigma_min) * z
    expected = velocity_below(torch.full_like(x, edge), x_t, times, ones, sigma_min)
    for middle in (-1.5, -0.5, 0.2):
        near = (x_t - middle).abs() < 0.05
        error = float(v[near].std()) / float(near.sum()) ** 0.5
        assert abs(float(v[near].mean() - expected[near].mean())) < 5 * error
    nothing_known = velocity_below(torch.full_like(x, 1e3), x_t, times, ones, sigma_min)
    torch.testing.assert_close(nothing_known, BetweenNormals()(x_t, times, sigma_min))


def test_expected_velocities_have_the_gradient_of_drawn_ones() -> None:
    """Where numbers are only known to be below an edge the loss falls, its slope does not change."""
    torch.manual_seed(0)
    n, least = 200_000, torch.special.ndtr(torch.tensor(0.3))
    flow = FlowMatching(Counted(), 2, sigma_min=0.0)
    below = torch.special.ndtri(least * torch.rand(n, generator=generator(2)))
    x = torch.stack([below, torch.randn(n, generator=generator(1))], 1)
    edge = torch.tensor([0.3, torch.nan]).expand(n, 2)
    c, t, noise = torch.zeros(n, 1), torch.rand(n, generator=generator(3)), torch.randn(n, 2, generator=generator(4))
    losses, slopes = [], []
    for known in (None, edge):
        flow.zero_grad()
        loss = flow.loss(x, c, t=t, noise=noise, edge=known).mean()
        loss.backward()
        losses.append(loss.item())
        slopes.append(torch.cat([p.grad.flatten() for p in flow.parameters() if p.grad is not None]))
    assert losses[1] < 0.9 * losses[0]
    torch.testing.assert_close(slopes[1], slopes[0], atol=0.01, rtol=0.02)
