"""An autoregressive flow: the authors' samples, a chain whose flow is known, and how often it asks its network."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calogen.methods import autoregressive_flow
from calogen.methods.autoregressive_flow import AutoregressiveFlow
from calogen.methods.bespoke import BespokeSolver, local_error, reference_path
from calogen.methods.conditional import BoundNetwork
from calogen.networks.autoregressive_transformer import AutoregressiveTransformer
from calogen.systems.published_dream import autoregressive_transformer_from_calodream

TOLERANCE = 1e-5  # of the largest value compared
LENGTH = 5


def same(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert float((ours - theirs).detach().abs().max() / theirs.abs().max()) < tolerance


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small(length: int = LENGTH, condition: int = 1, decoder_blocks: int = 2, **changes: float) -> AutoregressiveFlow:
    torch.manual_seed(0)
    net = AutoregressiveTransformer(
        length,
        condition,
        width=16,
        heads=2,
        encoder_blocks=1,
        decoder_blocks=decoder_blocks,
        feedforward=24,
        velocity_width=32,
        velocity_depth=4,
        time_features=8,
        **changes,
    )
    return AutoregressiveFlow(net)


# --- the authors' flow -----------------------------------------------------------------------------------------------


def test_published_sample(shared: Path) -> None:
    file: dict[str, Any] = torch.load(shared / "parity" / "dream_energy.pt", weights_only=True)
    config = file["config"]
    net = AutoregressiveTransformer(
        config["shape"][0],
        width=config["dim_embedding"],
        heads=config["n_head"],
        encoder_blocks=config["n_encoder_layers"],
        decoder_blocks=config["n_decoder_layers"],
        feedforward=config["dim_feedforward"],
        velocity_width=config["intermediate_dim"],
        velocity_depth=config["layers_per_block"],
        time_features=config["encode_t_dim"],
    )
    net.load_state_dict(autoregressive_transformer_from_calodream(file["state_dict"]))
    c, z = file["inputs"]["c"][..., 0], file["inputs"]["noise_per_layer"][..., 0]
    steps = round(1 / config["solver_kwargs"]["options"]["step_size"])
    flow, expected = AutoregressiveFlow(net), file["outputs"]["sample"]
    same(flow.sample(c, noise=z, steps=steps, solver="three_eighths"), expected)
    for k in range(len(c)):
        row = slice(k, k + 1)
        same(flow.sample(c[row], noise=z[row], steps=steps, solver="three_eighths"), expected[row])


# --- a chain whose flow is known -------------------------------------------------------------------------------------

PULL, SPREAD = 0.8, 0.5


class Chain(nn.Module):
    """x_i ~ N(PULL x_{i-1} + c, SPREAD²) from x_0 = 0: the exact velocity, which counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.length = LENGTH
        self.unused = nn.Parameter(torch.zeros(()))
        self.begun, self.elements, self.evaluations = 0, 0, list[int]()

    def given(self, x: Tensor, c: Tensor, elements: slice = slice(None)) -> BoundNetwork:
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        return self.towards((PULL * before + c)[:, elements])

    def begin(self, c: Tensor) -> "Started":
        self.begun += 1
        return Started(self, c)

    def towards(self, mean: Tensor) -> BoundNetwork:
        def velocity(u: Tensor, t: Tensor) -> Tensor:
            if self.evaluations:
                self.evaluations[-1] += 1
            variance = (t * SPREAD) ** 2 + (1 - t) ** 2
            return mean + (t * SPREAD**2 - (1 - t)) * (u - t * mean) / variance

        return velocity


class Started:
    def __init__(self, chain: Chain, c: Tensor) -> None:
        self.chain, self.c = chain, c

    def next(self, previous: Tensor | None) -> BoundNetwork:
        self.chain.elements += 1
        self.chain.evaluations.append(0)
        return self.chain.towards(self.c if previous is None else PULL * previous + self.c)


def chain_of(c: Tensor, z: Tensor) -> Tensor:
    """The chain that noise z [N, D] becomes."""
    x, columns = torch.zeros(len(c), 1), []
    for column in z.split(1, dim=1):
        x = PULL * x + c + SPREAD * column
        columns.append(x)
    return torch.cat(columns, dim=1)


def test_noise_becomes_the_chain_it_must() -> None:
    c, z = draw(20, 1), draw(20, LENGTH, seed=2)
    x = AutoregressiveFlow(Chain()).sample(c, noise=z, steps=20, solver="rk4")
    same(x, chain_of(c, z), 1e-4)


def test_loss_of_the_best_velocity() -> None:
    """E[(v - (x - z))²] at time t is the variance of x - z once t x + (1 - t) z is known: s² / (t² s² + (1 - t)²)."""
    n = 20_000
    c, z = draw(n, 1), draw(n, LENGTH, seed=2)
    x = chain_of(c, z)
    t = torch.full((n, LENGTH), 0.6)
    loss = AutoregressiveFlow(Chain()).loss(x, c, t=t, noise=draw(n, LENGTH, seed=3))
    assert loss.shape == (n,)
    best = SPREAD**2 / ((0.6 * SPREAD) ** 2 + 0.4**2)
    error = float(loss.std()) / math.sqrt(n)
    assert abs(float(loss.mean()) - best) < 4 * error


def test_one_pass_of_the_network_an_element_and_the_steps_asked_for() -> None:
    chain = Chain()
    flow, c = AutoregressiveFlow(chain), draw(3, 1)
    flow.sample(c, noise=draw(3, LENGTH), steps=4, solver="midpoint")
    assert (chain.begun, chain.elements, chain.evaluations) == (1, LENGTH, [8] * LENGTH)
    chain.evaluations.clear()
    flow.sample(c, noise=draw(3, LENGTH), steps=[5, 4, 3, 2, 1], solver="heun")
    assert chain.evaluations == [10, 8, 6, 4, 2]
    chain.evaluations.clear()
    solvers = ["three_eighths", BespokeSolver(6), "euler", "euler", BespokeSolver(2)]
    flow.sample(c, noise=draw(3, LENGTH), steps=[1, 9, 2, 3, 9], solver=solvers)
    assert chain.evaluations == [4, 6, 2, 3, 2]


def test_untrained_bespoke_solver_is_what_it_starts_from() -> None:
    flow, c, z = small(), draw(3, 1), draw(3, LENGTH, seed=2)
    same(flow.sample(c, noise=z, solver=BespokeSolver(8)), flow.sample(c, noise=z, steps=4, solver="midpoint"))


def test_a_solver_can_be_fitted_to_all_elements() -> None:
    flow, c, x, z = small(), draw(6, 1), draw(6, LENGTH, seed=2), draw(6, LENGTH, seed=3)
    solver, one = BespokeSolver(4), torch.ones(6, dtype=torch.int64)
    for elements in (slice(None), slice(2, 3)):
        velocity = flow.velocity(x, c, elements)
        path = reference_path(velocity, z[:, elements], steps=8)
        local_error(solver, velocity, path, one).sum().backward()
        for p in solver.parameters():
            assert p.grad is not None
            assert float(p.grad.abs().max()) > 0
            p.grad = None
        assert all(p.grad is None for p in flow.parameters())


# --- what a draw depends on ------------------------------------------------------------------------------------------


def test_a_vector_depends_on_its_own_noise_and_condition_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, c, z = small(condition=2), draw(7, 2), draw(7, LENGTH, seed=2)
    together = flow.sample(c, noise=z, steps=2)
    for k in range(len(c)):
        same(flow.sample(c[k : k + 1], noise=z[k : k + 1], steps=2), together[k : k + 1])
    monkeypatch.setattr(autoregressive_flow, "TOGETHER", 3)
    same(flow.sample(c, noise=z, steps=2), together)
    assert flow.sample(c[:0], steps=2).shape == (0, LENGTH)


def test_later_noise_does_not_change_earlier_elements() -> None:
    flow, c, z = small(), draw(4, 1), draw(4, LENGTH, seed=2)
    other = z.clone()
    other[:, 3] += 1
    difference = (flow.sample(c, noise=other, steps=2) - flow.sample(c, noise=z, steps=2)).abs().amax(0)
    assert bool((difference[:3] == 0).all())
    assert bool((difference[3:] > 0).all())


def test_the_seed_repeats() -> None:
    flow, c = small(), draw(4, 1)
    first, again, other = (flow.sample(c, steps=1, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stratified", [True, False])
def test_times_are_uniform(stratified: bool) -> None:
    flow, n = AutoregressiveFlow(Chain(), stratified=stratified), 500
    t = flow.draw_t((n, LENGTH), torch.zeros(()), torch.Generator().manual_seed(1))
    assert torch.equal(t, flow.draw_t((n, LENGTH), torch.zeros(()), torch.Generator().manual_seed(1)))
    distance = (t.sort(0).values - (torch.arange(n)[:, None] + 0.5) / n).abs().max()
    assert distance < (0.51 / n if stratified else 1.63 / math.sqrt(n) + 0.5 / n)  # Kolmogorov, 1 %
    assert abs(float(torch.corrcoef(t.T)[0, 1])) < 0.2
    assert 0 <= float(t.min()) <= float(t.max()) < 1


def test_it_learns_that_elements_depend_on_those_before() -> None:
    """x_1 ~ N(c, 1), x_2 ~ N(x_1, 0.3²): a network that misses either gives no such correlations."""
    flow, generator = small(length=2, decoder_blocks=1, time_std=1.0), torch.Generator().manual_seed(5)
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3, fused=True)
    for _ in range(150):
        c, steps = (torch.randn(128, n, generator=generator) for n in (1, 2))
        loss = flow.loss(c + (steps * torch.tensor([1.0, 0.3])).cumsum(1), c, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    c = draw(1000, 1)
    x = flow.sample(c, noise=draw(1000, 2, seed=2), steps=6)
    assert abs(float((x[:, :1] - c).std()) - 1) < 0.2
    assert float(x.diff().std()) < 0.55  # 0.3 in truth, 1.4 of numbers that do not know each other


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"solver": "magic"}, "unknown solver 'magic'"),
        ({"steps": [1, 2]}, "5 elements need one or 5"),
        ({"solver": ["euler"] * 6}, "5 elements need one or 5"),
        ({"noise": torch.zeros(3, 4)}, "noise has shape"),
        ({"counts": torch.ones(3)}, "counts must be None"),
        ({"temperature": 1.0}, "unknown options of sample: temperature"),
    ],
)
def test_samples_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small().sample(draw(3, 1), **options)


def test_losses_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="mask must be None"):
        small().loss(draw(3, LENGTH), draw(3, 1), torch.ones(3))
    with pytest.raises(ValueError, match="sequences must be"):
        small().loss(draw(3, LENGTH + 1), draw(3, 1))
    with pytest.raises(ValueError, match="Linear gives no velocities of elements"):
        AutoregressiveFlow(nn.Linear(1, 1))
