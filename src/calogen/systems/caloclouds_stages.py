"""How CaloClouds is fitted: the flow, the diffusion teacher, its one-step student, and the calibration."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.merging import merge, with_energy
from calogen.data.showers import Showers
from calogen.systems.calibration import RadialPoints, per_layer_after_projection
from calogen.systems.points import Points, across
from calogen.systems.profile_targets import LayerProfile
from calogen.train import Batch, LearnedStage, Plan, SolvedStage

if TYPE_CHECKING:
    from calogen.systems.caloclouds import CaloClouds

TRAINING_POINTS = 256
"""Points drawn of each shower for a training step: points are independent, so more showers teach more."""
CALIBRATION_SHOWERS = 3000
CALIBRATION_ROUNDS = 6
CALIBRATED = 0.05
"""A factor that still moves by more than this in the last round is reported."""


class View:
    """What the stages see of showers: upright, merged, across the axis; made once for each set."""

    def __init__(self, merge_mm: float, across_axis: bool) -> None:
        self.merge_mm, self.across_axis = merge_mm, across_axis
        self.made: dict[int, tuple[Showers, Showers]] = {}

    def __call__(self, showers: Showers) -> Showers:
        held = self.made.get(id(showers))
        if held is None or held[0] is not showers:
            self.made[id(showers)] = held = (showers, self._make(showers))
        return held[1]

    def _make(self, showers: Showers) -> Showers:
        s = with_energy(showers.upright())
        if self.merge_mm > 0:
            s = merge(s, self.merge_mm, seed=0)
        if not self.across_axis:
            return s
        x, y = across(s.x, s.y, s.incident.direction, s.counts)
        return Showers(x, y, s.layer, s.energy, s.offsets, s.incident, s.detector, s.time)

    def __getstate__(self) -> dict[str, Any]:
        """Other processes make their own: views are larger than what they are made of."""
        return {"merge_mm": self.merge_mm, "across_axis": self.across_axis, "made": {}}


class FlowStage(LearnedStage):
    """Fit the layer profiles' transforms and flow by maximum likelihood."""

    name = "flow"

    def __init__(self, system: CaloClouds, plan: Plan) -> None:
        self.system = system
        self.model = nn.ModuleDict(
            {"domain": system.domain, "conditioner": system.conditioner, "profile": system.profile}
        )
        self.plan = plan
        self.view = View(system.config.merge_mm, system.config.across)
        self.profiles: dict[int, tuple[Showers, LayerProfile]] = {}

    def _profile(self, showers: Showers) -> LayerProfile:
        held = self.profiles.get(id(showers))
        if held is None or held[0] is not showers:
            self.profiles[id(showers)] = held = (showers, LayerProfile.of(self.view(showers)))
        return held[1]

    def prepare(self, showers: Showers) -> None:
        """Fit the domain, the condition's scale, the targets and the limits of redrawing."""
        system, profile = self.system, self._profile(showers)
        species = np.unique(showers.incident.pdg)
        if len(species) > 1:
            raise ValueError(
                f"showers of particles {species.tolist()}: this system learns one kind, it cannot tell them"
            )
        self.model.to("cpu")  # where the showers are
        system.domain.fit(showers.incident)
        system.conditioner.fit(showers.incident, profile.counts.sum(1))
        system.profile.targets.fit(profile, system.conditioner(showers.incident))
        system.profile.limits.fit(profile, showers.incident.energy)

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Targets [N, D] and conditions [N, C]."""
        held = self._profile(showers)
        profile = LayerProfile(held.counts[indices], held.energy[indices], held.cog[indices])
        # Targets are small and live on the CPU, where the random numbers are drawn.
        condition = self.system.conditioner(showers.incident[indices]).cpu()
        targets = self.system.profile.targets
        device = next(targets.buffers()).device
        if device.type == "cpu":
            return targets.encode(profile, condition, rng), condition
        x = targets.cpu().encode(profile, condition, rng)
        targets.to(device)
        return x, condition

    def loss(self, batch: Batch) -> Tensor:
        """Negative log likelihood [N]."""
        x, condition = batch
        return self.system.profile.loss(x, condition)


class _PointStage(LearnedStage):
    """What teacher and student share: their view of the showers."""

    def __init__(self, system: CaloClouds, plan: Plan) -> None:
        self.system = system
        self.view = View(system.config.merge_mm, system.config.across)

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Latent points [P, 4], conditions [n, C], points per shower [n], weights [n]; empty showers weigh nothing."""
        merged = self.view(showers)
        counts = merged.counts[indices]
        lit, many = indices[counts > 0], counts[counts > 0]
        chosen = (rng.random((len(lit), TRAINING_POINTS)) * many[:, None]).astype(np.int64)
        chosen = (chosen + merged.offsets[lit][:, None]).ravel()
        points = Points(*(torch.from_numpy(v[chosen]) for v in (merged.x, merged.y, merged.layer, merged.energy)))
        transform = self.system.points
        device = next(transform.buffers()).device
        u = torch.from_numpy(rng.random(len(chosen)))
        latent = transform.encode(Points(*(v.to(device) for v in points)), u.to(device))
        per_shower = torch.from_numpy(np.where(counts > 0, TRAINING_POINTS, 0))
        # Showers weigh as the square root of their points: neither the few bright nor the many faint ones rule.
        weights = torch.from_numpy(np.sqrt(counts)).float()
        conditioner = self.system.conditioner
        condition = conditioner.for_points(conditioner(merged.incident[indices]), counts)
        return latent, condition, per_shower, weights

    def weights(self, batch: Batch) -> Tensor | None:
        """Weight [N] of each shower."""
        return batch[3]


class TeacherStage(_PointStage):
    """Fit the points' transform and the diffusion model."""

    name = "teacher"

    def __init__(self, system: CaloClouds, plan: Plan) -> None:
        super().__init__(system, plan)
        self.model = nn.ModuleDict({"points": system.points, "teacher": system.teacher})
        self.plan = plan

    def prepare(self, showers: Showers) -> None:
        """Fit the transform on all training points."""
        merged = self.view(showers)
        self.system.points.fit(
            Points(*(torch.from_numpy(v) for v in (merged.x, merged.y, merged.layer, merged.energy)))
        )

    def loss(self, batch: Batch) -> Tensor:
        """EDM's loss [N]."""
        x, condition, counts, _ = batch
        return self.system.teacher.loss(x, condition, counts)


class StudentStage(_PointStage):
    """Distil the teacher into one step."""

    name = "student"

    def __init__(self, system: CaloClouds, plan: Plan) -> None:
        super().__init__(system, plan)
        self.model = system.distillation
        self.plan = plan

    def prepare(self, showers: Showers) -> None:
        """Teacher, student and target start from the trained teacher."""
        distillation, teacher = self.system.distillation, self.system.teacher
        distillation.teacher.load_state_dict(teacher.state_dict())
        for model in (distillation.student, distillation.target):
            model.network.load_state_dict(teacher.network.state_dict())
        pairs = zip(distillation.student.parameters(), teacher.network.parameters(), strict=True)
        for student, learned in pairs:  # what fine-tuning holds in the teacher it holds here
            student.requires_grad_(learned.requires_grad)

    def loss(self, batch: Batch) -> Tensor:
        """Consistency loss [N]."""
        x, condition, counts, _ = batch
        return self.system.distillation.loss(x, condition, counts)

    def after_step(self, step: int) -> None:
        """Move the target."""
        self.system.distillation.after_step()


class CalibrateStage(SolvedStage):
    """Fit the factors on counts and energies so that hits and visible energy match Geant4 after projection."""

    name = "calibrate"

    def __init__(self, system: CaloClouds, plan: Plan) -> None:
        self.system = system
        self.model = system.calibration
        self.plan = plan

    def solve(self, train: Showers, validation: Showers | None) -> None:
        """Sample for training particles, project, compare, correct; a few rounds.

        A flow that cannot be sampled leaves the factors at one, with a warning: hours of training are not lost for it.
        """
        try:
            self._solve(train)
        except ValueError as error:
            self.system.calibration.set_scale(train.incident)
            warnings.warn(f"not calibrated: {error}", stacklevel=2)

    def _solve(self, train: Showers) -> None:
        calibration = self.system.calibration
        chosen = np.random.default_rng(self.plan.seed).permutation(len(train))[:CALIBRATION_SHOWERS]
        truth = train[np.sort(chosen)]
        calibration.set_scale(train.incident)
        true_hits, true_energy = per_layer_after_projection(truth)
        across_axis = self.system.config.across
        true_points = _about_axis(View(self.system.config.merge_mm, across_axis)(truth))
        for _ in range(CALIBRATION_ROUNDS):
            generated = self.system.sample(truth.incident, seed=self.plan.seed)
            calibration.points.improve(_about_axis(View(0.0, across_axis)(generated)), true_points)
            hits, energy = per_layer_after_projection(generated)
            left = (
                calibration.improve("occupancy", truth.incident, hits, true_hits),
                calibration.improve("energy", truth.incident, energy, true_energy),
            )
        if max(left) > CALIBRATED:
            warnings.warn(
                f"calibration still moved by {max(left):.0%} (limit {CALIBRATED:.0%}) after {CALIBRATION_ROUNDS} "
                "rounds: train the flow and the point model longer",
                stacklevel=2,
            )


def _about_axis(viewed: Showers) -> RadialPoints:
    return RadialPoints(np.hypot(viewed.x, viewed.y), viewed.energy)
