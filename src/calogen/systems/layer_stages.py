"""How layer profiles are fitted: transforms and flows, and the flows' one-step students."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.showers import Showers
from calogen.systems.cloud_view import CloudView
from calogen.systems.domain import Domain
from calogen.systems.layer_counts import CountSampling, LayerFlow
from calogen.systems.particles import Particles
from calogen.systems.profile_targets import LayerProfile
from calogen.train import Batch, LearnedStage, Plan
from calogen.train.streams import numpy_stream

PAIRS = 4
"""Pairs of noise and profile that a student learns from, for each training shower."""
TEACHER = CountSampling(steps=32)
"""How a student's teacher draws: fine enough to be taken for the flow itself."""


FLOW_PLAN = Plan(
    steps=4000,
    batch_size=256,
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=1e-2,
    grad_clip=1.0,
    ema="constant",
    ema_decay=0.995,
    validate_every=250,
)
FLOW_STUDENT_PLAN = Plan(steps=3000, batch_size=256, learning_rate=5e-4, schedule="cosine", validate_every=500)
"""For some thousand showers and minutes of one core, of either flow and of its student."""


class DrawsLayers(Protocol):
    """What the stages need of a system."""

    domain: Domain
    particles: Particles
    layer_flow: LayerFlow
    view: CloudView


class _LayerStage(LearnedStage):
    """What the stages share: the profiles of showers, made once."""

    def __init__(self, system: DrawsLayers, plan: Plan) -> None:
        self.system, self.plan = system, plan
        self.profiles: dict[int, tuple[Showers, LayerProfile]] = {}

    def profile(self, showers: Showers) -> LayerProfile:
        """Layer profiles of the showers as they are viewed."""
        held = self.profiles.get(id(showers))
        if held is None or held[0] is not showers:
            self.profiles[id(showers)] = held = (showers, LayerProfile.of(self.system.view(showers)))
        return held[1]

    def targets(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Targets [N, D] and conditions [N, C], on the CPU, where their random numbers are drawn."""
        held = self.profile(showers)
        profile = LayerProfile(held.counts[indices], held.energy[indices], held.cog[indices])
        condition = self.system.particles(showers.incident[indices])
        device = condition.device
        targets = self.system.layer_flow.targets.cpu()
        x = targets.encode(profile, condition.cpu(), rng)
        targets.to(device)
        return x, condition.cpu()


class LayerFlowStage(_LayerStage):
    """Fit one of the flows; the first also fits the transforms and limits.

    Args:
        system: whose `layer_flow` is fitted.
        name: of the stage.
        part: which flow.
        plan: the default plan.
    """

    def __init__(self, system: DrawsLayers, name: str, part: int, plan: Plan) -> None:
        super().__init__(system, plan)
        self.name, self.part = name, part
        flow = system.layer_flow
        parts: dict[str, nn.Module] = {"flow": flow.flows[part]}
        if part == 0:
            parts |= {
                "domain": system.domain,
                "particles": system.particles,
                "targets": flow.targets,
                "limits": flow.limits,
            }
        self.model = nn.ModuleDict(parts)

    def prepare(self, showers: Showers) -> None:
        """Fit domain, scales, targets and limits."""
        if self.part > 0:
            return
        self.model.to("cpu")  # where the showers are
        system, profile = self.system, self.profile(showers)
        system.domain.fit(showers.incident)
        system.particles.fit(showers.incident)
        system.layer_flow.targets.fit(profile, system.particles(showers.incident))
        system.layer_flow.limits.fit(profile, showers.incident.energy)

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """What the flow learns [N, D] and is given [N, C]."""
        x, condition = self.targets(showers, indices, rng)
        return self.system.layer_flow.part(x, condition, self.part)

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the velocity [N]."""
        x, condition = batch
        loss: Tensor = self.system.layer_flow.flows[self.part].loss(x, condition)  # type: ignore[operator]
        return loss


class LayerStudentStage(_LayerStage):
    """Distil one of the flows into one evaluation, from pairs of noise and what the flow makes of it."""

    def __init__(self, system: DrawsLayers, name: str, part: int, plan: Plan) -> None:
        super().__init__(system, plan)
        self.name, self.part = name, part
        self.model = nn.ModuleDict({"student": system.layer_flow.students[part]})
        self.pairs: dict[int, tuple[Showers, tuple[Tensor, Tensor, Tensor]]] = {}

    def prepare(self, showers: Showers) -> None:
        """The student starts as the flow."""
        flow = self.system.layer_flow
        flow.students[self.part].network.load_state_dict(flow.flows[self.part].network.state_dict())  # type: ignore[union-attr]

    def _pairs(self, showers: Showers) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, profile [N, PAIRS, D] and condition [N, PAIRS, C], on the CPU."""
        held = self.pairs.get(id(showers))
        if held is None or held[0] is not showers:
            self.pairs[id(showers)] = held = (showers, self._make_pairs(showers))
        return held[1]

    @torch.no_grad()
    def _make_pairs(self, showers: Showers) -> tuple[Tensor, Tensor, Tensor]:
        rng = numpy_stream(self.plan.seed, self.name, "pairs", len(showers))
        rows = np.repeat(np.arange(len(showers)), PAIRS)
        flow = self.system.layer_flow
        device = next(flow.flows[self.part].parameters()).device
        made = []
        for part in np.array_split(rows, max(1, len(rows) // AT_ONCE)):
            x, condition = self.targets(showers, part, rng)
            _, c = flow.part(x, condition, self.part)
            z = torch.from_numpy(rng.standard_normal((len(part), flow.sizes[self.part]), dtype=np.float32))
            made.append((z, flow.one(self.part, c.to(device), z.to(device), TEACHER).cpu(), c))
        z, x, c = (torch.cat(parts).unflatten(0, (len(showers), PAIRS)) for parts in zip(*made, strict=True))
        return z, x, c

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Noise and profile [N, D], condition [N, C]: one of the pairs of each shower."""
        rows, which = torch.from_numpy(indices), torch.from_numpy(rng.integers(PAIRS, size=len(indices)))
        return tuple(t[rows, which] for t in self._pairs(showers))

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared distance to the flow's profile [N]."""
        z, x, condition = batch
        loss: Tensor = self.system.layer_flow.students[self.part].loss(x, condition, noise=z)  # type: ignore[operator]
        return loss


AT_ONCE = 4096
"""Profiles that the teacher draws together."""
