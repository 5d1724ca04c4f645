"""How CaloHadronic is fitted: layers, then points of the ECal, points of the HCal given those, students, factors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.geometry import tilt
from calogen.methods.conditional import Condition
from calogen.systems.bespoke_stage import BespokeStage, FlowProblem
from calogen.systems.calibration import RadialPoints
from calogen.systems.calohadronic_sections import Calorimeter, given
from calogen.systems.cloud_view import CloudView
from calogen.systems.domain import TILT_SLACK
from calogen.systems.kind_calibration_stage import KindCalibrateStage
from calogen.systems.layer_stages import LayerFlowStage
from calogen.systems.points import FEATURES, Points
from calogen.systems.profile_targets import LayerProfile
from calogen.train import Batch, LearnedStage, Plan

if TYPE_CHECKING:
    from calogen.systems.calohadronic import CaloHadronic


class OneKindFlowStage(LayerFlowStage):
    """A flow of the layers for showers of one kind of particle, which no network is told.

    Args:
        system, name, part, plan: see `LayerFlowStage`.
        directions: whether networks are told the particle's direction.
    """

    def __init__(self, system: CaloHadronic, name: str, part: int, plan: Plan, *, directions: bool) -> None:
        super().__init__(system, name, part, plan)
        self.directions = directions

    def prepare(self, showers: Showers) -> None:
        """See `LayerFlowStage`; refuses showers of several kinds, and inclined ones that look alike to it."""
        species = np.unique(showers.incident.pdg)
        if len(species) > 1:
            raise ValueError(
                f"showers of particles {species.tolist()}: this system learns one kind, it cannot tell them"
            )
        steepest = float(np.abs(tilt(showers.incident.direction)).max(initial=0.0))
        if not self.directions and steepest > TILT_SLACK:
            raise ValueError(
                f"inclined showers, p_x/p_z or p_y/p_z up to {steepest:.3g} (limit {TILT_SLACK}): the networks are not "
                "told directions; train with directions=true, or on showers at normal incidence"
            )
        super().prepare(showers)


def section_points(view: Showers, section: Calorimeter) -> tuple[Points, NDArray[np.int64]]:
    """Points of one section, with the layer within it as depth, and their number in each shower [N]."""
    inside = (view.layer >= section.layers.start) & (view.layer < section.layers.stop)
    x, y, layer, energy = (torch.from_numpy(v[inside]) for v in (view.x, view.y, view.layer, view.energy))
    counts = np.bincount(view.shower_index[inside], minlength=len(view))
    return Points(x, y, layer - section.first, energy), counts


def latent_points(view: Showers, section: Calorimeter, rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Latent points [P, 4] of one section, and their number in each shower [N].

    Points lie anywhere within their layer, or without `rng` in its middle.
    """
    points, counts = section_points(view, section)
    u = torch.full((len(points.x),), 0.5).double() if rng is None else torch.from_numpy(rng.random(len(points.x)))
    device = next(section.points.buffers()).device
    latent = section.points.encode(Points(*(v.to(device) for v in points)), u.to(device))
    return latent, torch.from_numpy(counts)


class _PointStage(LearnedStage):
    """What teachers and students share: the points of their section in showers of Geant4, and what these are given."""

    suffix = ""

    def __init__(self, system: CaloHadronic, section: int, plan: Plan) -> None:
        self.system, self.plan = system, plan
        self.section = system.sections[section]
        self.before = system.sections[section - 1] if section > 0 else None
        self.name = self.section.name + self.suffix

    def counts(self, showers: Showers) -> NDArray[np.integer]:
        """Points of the section as the showers are viewed; none count as one."""
        counts: NDArray[np.int64] = self.system.view(showers).counts_per_layer[:, self.section.layers].sum(1)
        return np.maximum(counts, 1)

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Latent points [P, 4], numbers [N, C], points [N], weights [N]; of the section before, points [M, 4], [N]."""
        view = self.system.view(showers)[indices]
        latent, counts = latent_points(view, self.section, rng)
        values = self.section.values(self.system.numbers(view.incident), LayerProfile.of(view))
        # Showers weigh as the square root of their points: neither the few bright nor the many faint ones rule.
        batch = (latent, values, counts, counts.sqrt())
        if self.before is None:
            return batch
        before, many = latent_points(view, self.before, rng)
        return (*batch, self.before.of_geant4(before), many)

    @staticmethod
    def condition(batch: Batch) -> Condition:
        """What the network is given."""
        return given(batch[1], *batch[4:])

    def weights(self, batch: Batch) -> Tensor:
        """Weight [N] of each shower; those without points weigh nothing."""
        weights: Tensor = batch[3]
        return weights


class TeacherStage(_PointStage):
    """Fit the transforms of a section and the diffusion of its points."""

    def __init__(self, system: CaloHadronic, section: int, plan: Plan) -> None:
        super().__init__(system, section, plan)
        own = self.section
        self.model = nn.ModuleDict({"profile": own.profile, "points": own.points, "teacher": own.teacher})

    def prepare(self, showers: Showers) -> None:
        """Fit the transforms on all training points."""
        view = self.system.view(showers)
        points, _ = section_points(view, self.section)
        if len(points.x) < FEWEST_POINTS:
            raise ValueError(
                f"{len(points.x)} training points in section {self.section.name!r}; at least {FEWEST_POINTS} are needed"
            )
        self.section.points.fit(points)
        self.section.profile.fit(self.section.of(LayerProfile.of(view)))

    def loss(self, batch: Batch) -> Tensor:
        """EDM's loss [N]."""
        return self.section.teacher.loss(batch[0], self.condition(batch), batch[2])


FEWEST_POINTS = 100
"""In a section, over all training showers: fewer have no quantiles."""


class StudentStage(_PointStage):
    """Distil the teacher of a section into a consistency model."""

    suffix = "-student"

    def __init__(self, system: CaloHadronic, section: int, plan: Plan) -> None:
        super().__init__(system, section, plan)
        self.model = self.section.distillation

    def prepare(self, showers: Showers) -> None:
        """Teacher, student and target start from the trained teacher."""
        distillation, teacher = self.section.distillation, self.section.teacher
        distillation.teacher.load_state_dict(teacher.state_dict())
        for model in (distillation.student, distillation.target):
            model.network.load_state_dict(teacher.network.state_dict())
        pairs = zip(distillation.student.parameters(), teacher.network.parameters(), strict=True)
        for student, learned in pairs:  # what fine-tuning holds in the teacher it holds here
            student.requires_grad_(learned.requires_grad)

    def loss(self, batch: Batch) -> Tensor:
        """Consistency loss [N]; the teacher and the target drop nothing out."""
        distillation = self.section.distillation
        distillation.teacher.eval()
        distillation.target.eval()
        return distillation.loss(batch[0], self.condition(batch), batch[2])

    def after_step(self, step: int) -> None:
        """Move the target."""
        self.section.distillation.after_step()


SOLVER = "-bespoke"
SOLVER_SHOWERS = 16
SOLVER_REFERENCE = 16
"""Fine paths a solver learns from, and their steps of four evaluations: a transformer's evaluation is dear."""


class SectionFlow:
    """The flow of a section's points in showers of Geant4, for its solver; random is only the noise."""

    def __init__(self, system: CaloHadronic, section: int) -> None:
        self.system, self.index = system, section

    def __call__(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> FlowProblem:
        """See `calogen.systems.bespoke_stage.FlowOf`."""
        section = self.system.sections[self.index]
        view = self.system.view(showers)[indices]
        values = section.values(self.system.numbers(view.incident), LayerProfile.of(view))
        sizes = torch.from_numpy(view.counts_per_layer[:, section.layers].sum(1)).to(values.device)
        before: tuple[Tensor, Tensor] | tuple[()] = ()
        if self.index > 0:
            other = self.system.sections[self.index - 1]
            latent, many = latent_points(view, other)
            before = other.of_geant4(latent), many.to(values.device)
        noise = rng.standard_normal((int(sizes.sum()), FEATURES), dtype=np.float32)
        velocity = section.teacher.velocity(given(values, *before), sizes)
        return FlowProblem(velocity, torch.from_numpy(noise).to(values.device), sizes)


def solver_stage(system: CaloHadronic, section: int, plan: Plan) -> BespokeStage:
    """Fit the solver of a section's teacher."""
    own = system.sections[section]
    return BespokeStage(
        own.name + SOLVER,
        own.solver,
        SectionFlow(system, section),
        plan,
        showers=SOLVER_SHOWERS,
        reference_steps=SOLVER_REFERENCE,
    )


ONLY_KIND = 211
"""Stands for whatever kind of hadron the system knows where kinds are told apart."""


def one_kind(incident: Incident) -> Incident:
    """The particles, all of the kind that a system of one kind knows."""
    return replace(incident, pdg=np.full_like(incident.pdg, ONLY_KIND))


class CalibrateStage(KindCalibrateStage):
    """Factors of layers by the shares of points and energies that the readout sees; radii and energies of points.

    Sums of a thousand hadrons fluctuate by ten per cent in each section: factors fitted to them instead bend the
    linearity by three per cent and, where the sections' factors differ, the resolution by fifteen.
    """

    def __init__(self, system: CaloHadronic, plan: Plan) -> None:
        super().__init__(system, plan)
        self.sections, self.directions = system.sections, system.config.directions
        self.model = nn.ModuleDict(
            {"factors": system.calibration, **{section.name: section.shape for section in system.sections}}
        )

    def forget(self, train: Showers) -> None:
        """Back to factors of one, for points too."""
        super().forget(train)
        for section in self.sections:
            section.shape.forget()

    def known(self, incident: Incident) -> Incident:
        """All of one kind."""
        return one_kind(incident)

    def also(self, made: Showers, truth: Showers) -> None:
        """Correct the radii and energies of each section's points, from where they were drawn."""
        own = CloudView(made.detector, 0.0, 0.0, self.directions)(made)
        points = self.system.view(truth)
        for section in self.sections:
            section.shape.improve(_radial(own, section), _radial(points, section))


def _radial(view: Showers, section: Calorimeter) -> RadialPoints:
    points, _ = section_points(view, section)
    return RadialPoints(torch.hypot(points.x, points.y).numpy(), points.energy.numpy())
