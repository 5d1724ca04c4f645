"""CaloHadronic (arXiv:2506.21720): hadrons in an ECal and the HCal behind it, as clouds of points.

E -> flow -> each section as a whole (points, energy), centre of gravity
  -> flow -> points n_l and energy E_l of each layer
       | redraw what no shower looks like, calibrate, round
E, layers of the ECal -> transformer, diffused or distilled, all points together: (x, y, depth, e) of the ECal
E, layers of the HCal, points of the ECal just drawn -> the same of the HCal
       | sort by depth onto the layers of each section, scale energies to E_l, restore the tilt of the direction
     showers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector, tilt
from calogen.systems import calohadronic_published as published
from calogen.systems.calohadronic_sections import Calorimeter, Placed, PointSampling, given, noise_of
from calogen.systems.calohadronic_stages import (
    SOLVER,
    CalibrateStage,
    OneKindFlowStage,
    StudentStage,
    TeacherStage,
    one_kind,
    solver_stage,
)
from calogen.systems.cloud_view import CloudView
from calogen.systems.domain import Domain
from calogen.systems.drawing import Streams, draw_profiles, require_precision, starts, stream
from calogen.systems.hadron_targets import LogCounts, SectionTargets
from calogen.systems.halo import move_halo
from calogen.systems.kind_calibration import KindCalibration, Quantity
from calogen.systems.layer_counts import CountSampling, LayerFlow, whole
from calogen.systems.layer_stages import FLOW_PLAN, FLOW_STUDENT_PLAN, LayerStudentStage
from calogen.systems.particles import Particles
from calogen.systems.points import across
from calogen.systems.profile_targets import LayerProfile
from calogen.systems.system import Preset, System
from calogen.train import Plan, Stage


@dataclass(frozen=True)
class CaloHadronicConfig:
    """What the model is. The defaults are ours with the published sizes; pairs are of the ECal and the HCal."""

    normalisation: Literal["fitted", "published"] = "fitted"  # published: their constants, counts without energies
    directions: bool = False  # condition on the direction too; lengths are then those across the axis
    merge_cells: float = 1.0  # points are merged on a grid of so many cells first; 0: points as in the file
    least_threshold: float = 0.3  # fainter points, in thresholds of their layer, are not modelled: 1.2 % of the energy
    whole_widths: tuple[int, ...] = (128, 128, 128)  # hidden widths of the flow of the sections
    layer_widths: tuple[int, ...] = (128, 256, 512, 256, 128)  # of the flow of the layers: PointCountFM's
    width: int = 128  # d of the transformers
    heads: tuple[int, int] = (8, 16)  # of their attention
    blocks: tuple[int, int] = (3, 4)  # of their encoders; the HCal has a decoder block more
    feedforward: int = 512  # hidden width of a block's MLP
    highest: float = 4.0  # points are seen in frequencies 2^0 to 2^highest; at 2^16, as published, they are noise
    frequencies: int = 8  # how many
    added: bool = True  # noise level and condition are also added to every point, not only tokens beside them
    dropout: float = 0.0
    weighting: Literal["edm", "monotonic"] = "monotonic"  # of the diffusion's loss over sigma
    sigma_data: float = 0.5  # standard deviation of the latent points
    sigma_min: float = 0.005  # the latent is nearly normal: nothing in it is finer than a hundredth
    sigma_max: float = 10.0
    p_mean: float = -0.6  # ln sigma of training ~ N(p_mean, p_std^2); a whole set is seen through more noise than
    p_std: float = 1.3  # a point: EDM's own -1.2 and 1.2 are too low
    distillation_steps: int = 18  # noise levels of the consistency distillation
    target_decay: float = 0.95  # EMA of the distillation's target
    sigmas: tuple[float, ...] = (10.0, 1.0)  # noise levels at which the students are evaluated, from sigma_max down
    bespoke_steps: int = 6  # evaluations of the teachers' own solvers
    halo_mm: float = 30.0  # radius from which points move fully with the centre of gravity, in narrow showers; 0: none


class CaloHadronic(System):
    """Showers of one kind of hadron in a calorimeter of two sections."""

    name: ClassVar[str] = "calohadronic"
    Config: ClassVar[type] = CaloHadronicConfig

    def __init__(self, config: CaloHadronicConfig, detector: Detector) -> None:
        super().__init__(config, detector)
        if detector.sections != SECTIONS:
            raise ValueError(
                f"this system needs a detector with sections {' and '.join(SECTIONS)}, "
                f"{detector.name!r} has {', '.join(detector.sections)}"
            )
        self.published = config.normalisation == "published"
        self.domain = Domain()
        self.particles = (
            published.FixedEnergy() if self.published else Particles(directions=config.directions, kinds=False)
        )
        self.view = CloudView(detector, config.merge_cells, config.least_threshold, config.directions)
        self.layer_flow = self._layer_flow()
        self.sections = [Calorimeter(config, detector, k, self.particles.numbers) for k in range(len(SECTIONS))]
        self.calibration = KindCalibration(detector.n_layers)
        self.redraws = 0  # layer profiles drawn again in the last call of `sample`

    def _layer_flow(self) -> LayerFlow:
        config, detector = self.config, self.detector
        if self.published:
            targets = LogCounts(detector.n_layers, published.COUNTS_OFFSET, published.COUNTS_LOG)
            return LayerFlow(targets, self.particles.size, [published.COUNTS_WIDTHS], from_data=True)
        size = self.particles.size
        return LayerFlow(SectionTargets(detector, size), size, [config.whole_widths, config.layer_widths])

    def parts(self) -> dict[str, nn.Module]:
        """See `System`."""
        parts: dict[str, nn.Module] = {
            "domain": self.domain,
            "particles": self.particles,
            "layers": self.layer_flow,
        }
        for section in self.sections:
            parts |= section.parts()
        return parts | {"calibration": self.calibration}

    def stages(self) -> list[Stage]:
        """Flows of sections and layers and their students; diffusions of points, their solvers and students; factors.

        With the published normalisation there are no factors, as there are no layer energies.
        """
        flows = ["whole", "layers"] if len(self.layer_flow.sizes) > 1 else ["layers"]
        plans = DESK_PLANS
        told = self.config.directions
        stages: list[Stage] = [
            OneKindFlowStage(self, name, k, plans[name], directions=told) for k, name in enumerate(flows)
        ]
        for k, name in enumerate(flows):
            stages.append(LayerStudentStage(self, f"{name}-student", k, plans[f"{name}-student"]))
        for kind in (TeacherStage, StudentStage):
            stages += [kind(self, k, plans[name + kind.suffix]) for k, name in enumerate(SECTIONS)]
        stages += [solver_stage(self, k, plans[name + SOLVER]) for k, name in enumerate(SECTIONS)]
        return stages if self.published else [*stages, CalibrateStage(self, plans["calibrate"])]

    def numbers(self, incident: Incident) -> Tensor:
        """The particles as the points' networks see them [N, C]."""
        if self.published:
            return published.point_energy(incident, self.particles.mean)
        return self.particles.energy_and_direction(incident)

    def left_out(self, showers: Showers) -> float:
        """See `System`: that of points below `least_threshold`. Energies of layers are calibrated to make up for it."""
        share = self.view.left_out(showers)
        self.view.made.clear()  # the last that fitting needs of it
        return share

    def sample(
        self,
        incident: Incident,
        *,
        seed: int,
        batch_size: int = 16,
        progress: bool = False,
        first: int = 0,
        sampler: Literal["few", "bespoke", "teacher"] = "few",
        sigmas: tuple[float, ...] = (),
        steps: int = 18,
        layers: Literal["flow", "one-step"] = "flow",
        layer_steps: int = 16,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> Showers:
        """One shower for each incident particle.

        Args:
            incident: particles within the trained range.
            seed: with the index of the shower it decides all random numbers; batches change only round-off.
            batch_size: showers computed together.
            progress: show a bar.
            first: index of the first of these showers in a larger request.
            sampler: points by the distilled students in a `few` evaluations, or by the teachers with their `bespoke`
                solvers, or by the `teacher` with Heun's method.
            sigmas: falling noise levels at which the students are evaluated, the first is sigma_max; without any, those
                of the configuration.
            steps: noise levels of the teacher (published: 30), 2 steps - 1 evaluations.
            layers: points and energies of the layers by the `flow` or by its `one-step` student.
            layer_steps: of the midpoint solver for the layers.
            precision: of the transformers' products; in bfloat16 batches change points by tenths of a millimetre.

        Raises:
            ValueError: particles outside the trained range, an unknown option, or one the sampler does not have.
            ImpossibleProfileError: a layer profile that stays impossible after many draws.
        """
        self.domain.check(incident)
        how = PointSampling(sampler, steps, tuple(sigmas), require_precision(precision))
        for section in self.sections:
            section.require_possible(how)
        layers_how = CountSampling(layers, layer_steps)
        for part in self.parts().values():
            part.eval()
        self.redraws = 0
        with torch.inference_mode():
            batches = [
                self._sample_batch(incident[start : start + batch_size], seed, first + start, how, layers_how)
                for start in starts(len(incident), batch_size, progress)
            ]
        return Showers.concatenate(batches) if batches else Showers.empty(self.detector)

    def _sample_batch(
        self, incident: Incident, seed: int, first: int, how: PointSampling, layers: CountSampling
    ) -> Showers:
        streams = [stream(seed, first + i) for i in range(len(incident))]
        profile = self._draw_profile(incident, streams, layers)
        u = np.stack([own.random(self.detector.n_layers) for own in streams])
        counts = whole(profile.counts * self._factor("occupancy", incident), u)
        noise = [
            noise_of(streams, counts[:, section.layers].sum(1), section.evaluations(how)) for section in self.sections
        ]
        placed = self._points(incident, profile, counts, noise, how)
        return self._assemble(placed, profile, counts, incident)

    def _draw_profile(self, incident: Incident, streams: Streams, how: CountSampling) -> LayerProfile:
        """Layer profiles, drawn again (and counted) while they look like no shower of the training set."""
        flow, condition = self.layer_flow, self.particles(incident)

        def draw(rows: NDArray[np.int64], noise: NDArray[np.float32]) -> LayerProfile:
            c = condition[torch.from_numpy(rows).to(self.device)]
            return flow.targets.decode(flow.draw(c, torch.from_numpy(noise).to(self.device), how), c)

        profile, again = draw_profiles(draw, flow.targets.dim, flow.limits, incident, streams, self.detector.n_layers)
        self.redraws += again
        return profile

    def _factor(self, quantity: Quantity, incident: Incident) -> NDArray[np.float64]:
        """Calibration factors [N, L] of points (occupancy) or energy in all layers."""
        return self.calibration.factor(quantity, one_kind(incident))

    def _points(
        self,
        incident: Incident,
        profile: LayerProfile,
        counts: NDArray[np.int64],
        noise: list[NDArray[np.float32]],
        how: PointSampling,
    ) -> list[Placed]:
        """Points of each section on their layers; those of the HCal are drawn given what became of the ECal."""
        numbers, drawn = self.numbers(incident), list[Placed]()
        # As in training, networks are told the points that are there, and the energies that these will have.
        profile = LayerProfile(counts, profile.energy * self._factor("energy", incident), profile.cog)
        before: tuple[Tensor, Tensor] | tuple[()] = ()
        for section, z in zip(self.sections, noise, strict=True):
            own = section.of(profile)
            condition = given(section.values(numbers, profile), *before)
            latent = section.draw(condition, own.counts.sum(1), torch.from_numpy(z).to(self.device), how)
            drawn.append(section.placed(latent, own.counts, None if self.published else own.energy, how))
            before = (
                section.as_given(latent, drawn[-1], own.counts),
                torch.from_numpy(own.counts.sum(1)).to(latent.device),
            )
        return drawn

    def _assemble(
        self, placed: list[Placed], profile: LayerProfile, counts: NDArray[np.int64], incident: Incident
    ) -> Showers:
        """One shower out of its sections, with the centre of gravity and the tilt it should have."""
        of_shower = [np.repeat(np.arange(len(counts)), counts[:, section.layers].sum(1)) for section in self.sections]
        order = np.argsort(np.concatenate(of_shower), kind="stable")  # sections of one shower behind each other
        x, y, layer, energy = (np.concatenate(column)[order] for column in zip(*placed, strict=True))
        per_shower = counts.sum(1)
        offsets = np.concatenate([[0], np.cumsum(per_shower)])
        if self.config.halo_mm > 0 and not self.published:
            x, y = move_halo(x, y, energy, offsets, profile.cog, self.config.halo_mm, wide=True)
        if self.config.directions:
            x, y = across(x, y, incident.direction, per_shower, back=True)
        depth_mm = self.detector.z_mm[layer]
        t_x, t_y = (np.repeat(t, per_shower) * depth_mm for t in tilt(incident.direction))
        return Showers(x + t_x, y + t_y, layer, energy, offsets, incident, self.detector)


SECTIONS = ("ecal", "hcal")
"""What a detector must have, in this order."""


# Plans: how long and how fast.
_POINTS = Plan(
    steps=2800,
    batch_size=32,
    batching="points",
    max_points=4000,
    optimizer="adamw",
    learning_rate=2e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=1e-2,
    grad_clip=2.0,
    ema="constant",
    ema_decay=0.995,
    validate_every=500,
    validation_showers=100,
    keep="last",
)
_STUDENT = Plan(
    steps=700,
    batch_size=32,
    batching="points",
    max_points=4000,
    learning_rate=5e-4,
    schedule="cosine",
    warmup_steps=50,
    grad_clip=2.0,
    validate_every=400,
    validation_showers=50,
    keep="last",
)
_SOLVER = Plan(
    steps=100,
    batch_size=3,
    learning_rate=5e-3,
    schedule="cosine",
    grad_clip=1.0,
    validate_every=50,
    validation_showers=8,
    keep="last",
)
DESK_PLANS: dict[str, Plan] = {
    # Sized for one CPU core, some thousand pions and three quarters of an hour.
    "whole": FLOW_PLAN,
    "layers": FLOW_PLAN,
    "whole-student": FLOW_STUDENT_PLAN,
    "layers-student": FLOW_STUDENT_PLAN,
    "ecal": _POINTS,
    "hcal": _POINTS,
    "ecal-student": _STUDENT,
    "hcal-student": _STUDENT,
    "ecal-bespoke": _SOLVER,
    "hcal-bespoke": _SOLVER,
    "calibrate": Plan(steps=1),
}


def _published_points(steps: int, rate: float, warmup: int, final: float) -> Plan:
    return Plan(
        steps=steps,
        batch_size=32,
        learning_rate=rate,
        schedule="cosine",
        warmup_steps=warmup,
        final_fraction=final,
        grad_clip=2.0,
        ema="inverse",
        ema_decay=0.9999,
        validate_every=10_000,
        validation_showers=1000,
        keep="last",
    )


PUBLISHED_PLANS: dict[str, Plan] = {
    # Counts: 3000 epochs of batches of 2700, one cycle up to 1e-3. Points: rates and steps of the yaml files beside the
    # authors' checkpoints; the paper's table has one cycle up to 3e-4 for both. Adam-mini there, Adam here.
    "layers": Plan(epochs=3000, batch_size=2700, learning_rate=1e-3, schedule="onecycle"),
    "layers-student": Plan(epochs=1000, batch_size=2700, learning_rate=1e-4, schedule="onecycle"),
    "ecal": _published_points(4_000_000, 1.35e-4, 300_000, 0.05),
    "hcal": _published_points(2_920_000, 3e-4, 500_000, 1 / 300),
    # Not in the paper, which names distillation as future work.
    "ecal-student": _published_points(1_000_000, 1e-4, 1000, 0.05),
    "hcal-student": _published_points(1_000_000, 1e-4, 1000, 0.05),
    "ecal-bespoke": _SOLVER,
    "hcal-bespoke": _SOLVER,
}

PRESETS: dict[str, Preset] = {
    "pions-desk": Preset(
        "pions at normal incidence in ILD's ECal and HCal; small networks, under an hour of one CPU core",
        CaloHadronicConfig(
            whole_widths=(64, 64),
            layer_widths=(128, 256, 128),
            width=64,
            heads=(4, 4),
            blocks=(2, 2),
            feedforward=128,
        ),
        DESK_PLANS,
        "ild",
    ),
    "pions": Preset(
        "the same with the networks at CaloHadronic's sizes, for larger training sets and a GPU",
        CaloHadronicConfig(),
        {name: plan for name, plan in DESK_PLANS.items()}
        | {name: PUBLISHED_PLANS[name] for name in ("ecal", "hcal", "ecal-student", "hcal-student")},
        "ild",
    ),
    "published": Preset(
        "CaloHadronic as its authors trained it: their constants, counts without energies, fits their weights",
        CaloHadronicConfig(
            normalisation="published",
            merge_cells=0.0,
            least_threshold=0.0,
            highest=16.0,
            frequencies=32,
            added=False,
            dropout=0.1,
            sigma_min=0.01,
            p_mean=0.0,
            p_std=1.0,
            halo_mm=0.0,
        ),
        PUBLISHED_PLANS,
        "ild",
    ),
}
DEFAULT_PRESET = "pions-desk"
