"""CaloClouds3 (arXiv:2511.01460), with CaloClouds2 (arXiv:2309.05704) as a preset of the same parts.

E, direction -> flow -> points n_l and energy E_l of each layer, centre of gravity
                          | redraw what no shower looks like, calibrate, round
E, direction -> one-step point model, Σ n_l points (x, y, depth, e), each on its own
                          | sort by depth onto the layers, scale energies to E_l, move the halo to the
                          | centre of gravity, restore the tilt of the direction
                        showers
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector, tilt
from calogen.methods.consistency import ConsistencyDistillation
from calogen.methods.coupling_flow import CouplingFlow
from calogen.methods.edm import EDM
from calogen.networks.pointwise import PointwiseNet
from calogen.systems.calibration import Calibration
from calogen.systems.caloclouds_stages import CalibrateStage, FlowStage, StudentStage, TeacherStage
from calogen.systems.domain import Domain
from calogen.systems.drawing import Streams, draw_profiles, normal, require_precision, starts, stream
from calogen.systems.halo import move_halo
from calogen.systems.layer_counts import Limits, assign_layers, rescale, whole
from calogen.systems.points import FEATURES, FittedPoints, LinearPoints, Points, PointTransform, across
from calogen.systems.profile_targets import (
    FittedTargets,
    LayerProfile,
    LinearTargets,
    ProfileTargets,
)
from calogen.systems.system import Preset, System
from calogen.train import Plan, Stage


@dataclass(frozen=True)
class CaloCloudsConfig:
    """What the model is. The defaults are ours: everything fitted, CaloClouds3's network sizes."""

    normalisation: Literal["fitted", "published"] = "fitted"  # published: the constants below, for their weights
    directions: bool = True  # condition on the direction (CaloClouds3) or on the energy alone (CaloClouds2)
    count_condition: bool = False  # the point model also sees the number of points (CaloClouds2)
    profile: Literal["normal", "linear"] = "normal"  # how layer profiles are shown to the flow
    columns: tuple[str, ...] = ("cog_x", "cog_y")  # flow dimensions besides the 2 per layer (linear profile)
    flow_layout: str = "alt1"  # order of couplings, splines and permutations in a block
    flow_blocks: int = 2
    coupling_width: int = 10  # hidden width of the couplings' networks, in flow dimensions
    spline_width: int = 4  # the same of the splines' networks
    merge_mm: float = 2.544  # points are merged on this grid first: half an ECal cell; 0: points as in the file
    across: bool = True  # points are seen across the axis: lengths in the plane of incidence shortened by p_z
    widths: tuple[int, ...] = (32, 64, 128, 64, 32)  # hidden widths of the point model
    time_features: int = 64  # length of the noise level's embedding
    sigma_data: float = 0.5  # standard deviation of the latent points
    sigma_min: float = 0.005  # the latent is nearly normal: nothing in it is finer than a hundredth
    sigma_max: float = 10.0  # 20 times the data; at 80, as published, 20 levels are too coarse: 7 % too wide
    p_mean: float = -1.2  # ln sigma of training ~ N(p_mean, p_std^2)
    p_std: float = 1.2
    distillation_steps: int = 40  # noise levels of the consistency distillation
    target_decay: float = 0.95  # EMA of the distillation's target
    halo_mm: float = 30.0  # radius from which points move fully with the centre of gravity; 0: it is not used

    @property
    def condition(self) -> int:
        """Length of the condition: energy, and with directions p_x, p_y, p_z."""
        return 4 if self.directions else 1


# Normalisation of the published CaloClouds3 weights (class PointCloudAngular of the authors' code). The
# energies' constants were computed in MeV and applied to GeV there; kept, since the weights know no other.
PUBLISHED_POINT_MEAN = (-0.0074305227, -0.21205868, 12.359252, -1.5300317)
PUBLISHED_POINT_STD = (21.608465, 22.748442, 5.305082, 1.2500798)
PUBLISHED_ENERGY_GEV = 127.0  # the flow and the point model see E / 127
PUBLISHED_LAYERS = 30
PUBLISHED_POINTS = 7864.0  # clusters_l is scaled by 30 / 7864
PUBLISHED_VISIBLE_GEV = 3.4  # E_l is scaled by 30 / 3.4
PUBLISHED_COG = {
    "cog_x": (-4.06743696e-3, 1.24559791),
    "cog_y": (-0.227790998, 0.95357278),
    "cog_z": (11.0137465, 2.59475371),
}
PUBLISHED_NEGATIVE_LAYERS = 7  # more layers below zero than this: drawn again


class ProfileFlow(nn.Module):
    """p(points and energy per layer | E, direction): a coupling flow on transformed layer profiles.

    What the targets leave normal (the shower as a whole) is drawn as it is and conditions the flow of the rest: the
    distributions of visible energy, points and depth then are those that were fitted, whatever the flow does.
    """

    def __init__(self, config: CaloCloudsConfig, layers: int) -> None:
        super().__init__()
        self.targets = _profile_targets(config, layers)
        self.flow = CouplingFlow(
            self.targets.dim - self.targets.given,
            config.condition + self.targets.given,
            config.flow_blocks,
            config.flow_layout,
            config.coupling_width,
            config.spline_width,
        )
        self.limits = Limits(layers)
        if config.profile == "normal":
            # The transform leaves nearly a normal distribution: start from its identity, not from random maps.
            for part in self.flow.parts:
                nn.init.zeros_(part.network[-1].weight)  # type: ignore[index, union-attr]
                nn.init.zeros_(part.network[-1].bias)  # type: ignore[index, union-attr]

    def loss(self, x: Tensor, condition: Tensor) -> Tensor:
        """Negative log likelihood [N] of targets x [N, dim], but for what is normal and fitted."""
        given, rest = x.tensor_split([self.targets.given], dim=1)
        return self.flow.loss(rest, torch.cat([condition, given], dim=1))

    def draw(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Targets [N, dim] out of standard normal noise [N, dim]."""
        given, rest = noise.tensor_split([self.targets.given], dim=1)
        return torch.cat([given, self.flow.sample(torch.cat([condition, given], dim=1), noise=rest)], dim=1)


def _profile_targets(config: CaloCloudsConfig, layers: int) -> ProfileTargets:
    if config.profile == "normal":
        return FittedTargets(layers, config.condition)
    if config.normalisation == "fitted":
        return LinearTargets(layers, config.columns)
    per_layer = [PUBLISHED_POINTS / PUBLISHED_LAYERS] * layers + [PUBLISHED_VISIBLE_GEV / PUBLISHED_LAYERS] * layers
    shift = [PUBLISHED_COG[name][0] for name in config.columns] + [0.0] * (2 * layers)
    return LinearTargets(layers, config.columns, (shift, [PUBLISHED_COG[n][1] for n in config.columns] + per_layer))


class Conditioner(nn.Module):
    """Incident particles as the networks see them, `[N, C]`: energy, and p_x, p_y, p_z where they are used."""

    mean: Tensor
    std: Tensor
    count_mean: Tensor
    count_std: Tensor

    def __init__(self, config: CaloCloudsConfig) -> None:
        super().__init__()
        self.logarithm = config.normalisation == "fitted"
        self.directions = config.directions
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0 if self.logarithm else PUBLISHED_ENERGY_GEV))
        self.register_buffer("count_mean", torch.tensor(0.0))
        self.register_buffer("count_std", torch.tensor(1.0))
        self.counts = config.count_condition

    def fit(self, incident: Incident, counts: NDArray[Any]) -> None:
        """Standardise ln E (published: E / 127 GeV stays) and ln of the points per shower on training showers."""
        log_counts = torch.from_numpy(np.log1p(counts)).float()
        self.count_mean.copy_(log_counts.mean())
        self.count_std.copy_(log_counts.std().clamp(min=1e-3))
        if self.logarithm:
            log = torch.from_numpy(np.log(incident.energy))
            self.mean.copy_(log.mean())
            self.std.copy_(log.std().clamp(min=1e-3))

    def forward(self, incident: Incident) -> Tensor:
        """Condition `[N, C]`."""
        energy = torch.from_numpy(incident.energy).to(self.mean.device)
        scaled = ((energy.log() if self.logarithm else energy) - self.mean) / self.std
        if not self.directions:
            return scaled[:, None]
        return torch.cat([scaled[:, None], torch.from_numpy(incident.direction).to(scaled)], dim=1)

    def for_points(self, condition: Tensor, counts: NDArray[Any]) -> Tensor:
        """The condition of the point model: with ln of the number of points where it sees that."""
        if not self.counts:
            return condition
        log_counts = torch.from_numpy(np.log1p(counts)).to(condition)
        return torch.cat([condition, ((log_counts - self.count_mean) / self.count_std)[:, None]], dim=1)


class CaloClouds(System):
    """Photon showers of any energy and angle in the trained range, as clouds of points."""

    name: ClassVar[str] = "caloclouds3"
    Config: ClassVar[type] = CaloCloudsConfig

    def __init__(self, config: CaloCloudsConfig, detector: Detector) -> None:
        super().__init__(config, detector)
        layers = detector.n_layers
        self.domain = Domain()
        self.conditioner = Conditioner(config)
        self.profile = ProfileFlow(config, layers)
        self.points = _point_transform(config, layers)
        self.teacher = EDM(
            PointwiseNet(FEATURES, config.condition + config.count_condition, config.widths, config.time_features),
            FEATURES,
            sigma_data=config.sigma_data,
            p_mean=config.p_mean,
            p_std=config.p_std,
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
        )
        self.distillation = ConsistencyDistillation(
            self.teacher, steps=config.distillation_steps, target_decay=config.target_decay
        )
        self.calibration = Calibration(layers)
        self.redraws = 0  # layer profiles drawn again in the last call of `sample`

    def parts(self) -> dict[str, nn.Module]:
        """See `System`."""
        return {
            "domain": self.domain,
            "conditioner": self.conditioner,
            "profile": self.profile,
            "points": self.points,
            "teacher": self.teacher,
            "student": self.distillation.target,
            "calibration": self.calibration,
        }

    def stages(self) -> list[Stage]:
        """The flow, the diffusion teacher, its one-step student, the factors that match Geant4 after projection."""
        kinds = (FlowStage, TeacherStage, StudentStage, CalibrateStage)
        return [kind(self, DESK_PLANS[kind.name]) for kind in kinds]

    def sample(
        self,
        incident: Incident,
        *,
        seed: int,
        batch_size: int = 64,
        progress: bool = False,
        first: int = 0,
        sampler: Literal["one-step", "teacher"] = "one-step",
        steps: int = 18,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> Showers:
        """One shower for each incident particle.

        Args:
            incident: particles within the trained range.
            seed: with the index of the shower it decides all random numbers; batches change only round-off.
            batch_size: showers computed together.
            progress: show a bar.
            first: index of the first of these showers in a larger request.
            sampler: the distilled `one-step` model or its `teacher` with Heun's method.
            steps: noise levels of the teacher.
            precision: of the point model's wide maps; `bfloat16` halves their time on processors that have it and
                moves points by about a hundredth of their spread at random.

        Raises:
            ValueError: particles outside the trained range, or an unknown option.
            ImpossibleProfileError: a layer profile that stays impossible after `MAX_REDRAWS` draws.
        """
        self.domain.check(incident)
        require_precision(precision)
        if sampler not in ("one-step", "teacher"):
            raise ValueError(f"unknown sampler {sampler!r}; use 'one-step' or 'teacher'")
        for part in self.parts().values():
            if part.training:  # calling eval() again would make the flow lay out its weights again
                part.eval()
        self.redraws = 0
        one_step = sampler == "one-step"
        model = self.distillation.target.sample if one_step else partial(self.teacher.sample, steps=steps)
        with torch.inference_mode():
            batches = [
                self._sample_batch(incident[start : start + batch_size], seed, first + start, model, precision)
                for start in starts(len(incident), batch_size, progress)
            ]
        return Showers.concatenate(batches) if batches else Showers.empty(self.detector)

    def _sample_batch(
        self, incident: Incident, seed: int, first: int, model: Callable[..., Tensor], precision: str
    ) -> Showers:
        streams = [stream(seed, first + i) for i in range(len(incident))]
        condition = self.conditioner(incident)
        profile = self._draw_profile(incident, condition, streams)
        counts = self._calibrated_counts(profile, incident, streams)
        total = counts.sum(1)
        noise = normal(streams, total, FEATURES)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            latent = model(
                self.conditioner.for_points(condition, total),
                counts=torch.from_numpy(total).to(self.device),
                noise=torch.from_numpy(noise).to(self.device),
            )
        return self._assemble(self.calibration.points(self.points.decode(latent)), profile, counts, incident)

    def _draw_profile(self, incident: Incident, condition: Tensor, streams: Streams) -> LayerProfile:
        """Layer profiles, drawn again (and counted) while they look like no shower of the training set."""
        targets = self.profile.targets

        def draw(rows: NDArray[np.int64], noise: NDArray[np.float32]) -> LayerProfile:
            c = condition[torch.from_numpy(rows).to(self.device)]
            return targets.decode(self.profile.draw(c, torch.from_numpy(noise).to(self.device)), c)

        profile, again = draw_profiles(
            draw,
            targets.dim,
            self.profile.limits,
            incident,
            streams,
            self.detector.n_layers,
            PUBLISHED_NEGATIVE_LAYERS,
        )
        self.redraws += again
        return profile

    def _calibrated_counts(self, profile: LayerProfile, incident: Incident, streams: Streams) -> NDArray[np.int64]:
        factors = self.calibration.factor("occupancy", incident)
        u = np.stack([stream.random(self.detector.n_layers) for stream in streams])
        return whole(profile.counts * factors, u)

    def _assemble(
        self, points: Points, profile: LayerProfile, counts: NDArray[np.int64], incident: Incident
    ) -> Showers:
        """Points onto their layers, with the energies, the centre of gravity and the tilt they should have."""
        x, y, depth, energy = (value.cpu().numpy() for value in points)
        order, layer = assign_layers(depth, counts)
        target = profile.energy * self.calibration.factor("energy", incident)
        energy = rescale(energy[order], counts, target)
        per_shower = counts.sum(1)
        offsets = np.concatenate([[0], np.cumsum(per_shower)])
        x, y = x[order], y[order]
        if self.config.halo_mm > 0:
            x, y = move_halo(x, y, energy, offsets, profile.cog, self.config.halo_mm)
        if self.config.across:
            x, y = across(x, y, incident.direction, per_shower, back=True)
        depth_mm = self.detector.z_mm[layer]
        t_x, t_y = (np.repeat(t, per_shower) * depth_mm for t in tilt(incident.direction))
        return Showers(x + t_x, y + t_y, layer, energy, offsets, incident, self.detector)


def _point_transform(config: CaloCloudsConfig, layers: int) -> PointTransform:
    if config.normalisation == "fitted":
        return FittedPoints(layers, config.sigma_data)
    return LinearPoints(PUBLISHED_POINT_MEAN, PUBLISHED_POINT_STD)


# Plans: how long and how fast.
DESK_PLANS: dict[str, Plan] = {
    # Sized for two CPU cores, a few thousand showers and an hour.
    "flow": Plan(
        steps=1000,
        batch_size=256,
        optimizer="adamw",
        learning_rate=3e-4,
        schedule="cosine",
        warmup_steps=50,
        weight_decay=0.3,
        grad_clip=10.0,
        ema="constant",
        ema_decay=0.98,
        validate_every=100,
        patience=5,
    ),
    "teacher": Plan(
        steps=4_000,
        batch_size=64,
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=200,
        grad_clip=10.0,
        ema="inverse",
        ema_decay=0.999,
        validate_every=1000,
        keep="last",
    ),
    "student": Plan(
        steps=3_000,
        batch_size=64,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=200,
        grad_clip=10.0,
        validate_every=1000,
        keep="last",
    ),
    "calibrate": Plan(steps=1),
}
PUBLISHED_PLANS: dict[str, Plan] = {
    # Flow: the code has Adam 1e-5 and batch 2048, the paper 2e-4 and 62; taken is the paper's rate, which
    # needs a twentieth of the steps. Point model: the arguments stored in the authors' checkpoint.
    "flow": Plan(epochs=1000, batch_size=2048, learning_rate=2e-4, validate_every=200),
    "teacher": Plan(
        steps=4_000_000, batch_size=32, learning_rate=1e-4, grad_clip=10.0, ema="inverse", ema_decay=0.9999, keep="last"
    ),
    "student": Plan(steps=6_135_000, batch_size=32, learning_rate=1e-4, grad_clip=10.0, keep="last"),
    "calibrate": Plan(steps=1),
}


CALOCLOUDS2_COLUMNS = ("points", "energy", "cog_x", "cog_y", "cog_z")  # with 2 x 30 layers: the 65 dimensions

PRESETS: dict[str, Preset] = {
    "ild-photons-desk": Preset(
        "photons in ILD's ECal at any barrel angle; two CPU cores, under an hour; everything fitted",
        CaloCloudsConfig(coupling_width=2, spline_width=1),
        DESK_PLANS,
        "ild-ecal",
    ),
    "ild-photons": Preset(
        "the same with the flow at CaloClouds3's width, for larger training sets",
        CaloCloudsConfig(),
        DESK_PLANS,
        "ild-ecal",
    ),
    "published": Preset(
        "CaloClouds3 as its authors trained it: 62 flow dimensions, their constants, fits their weights",
        CaloCloudsConfig(
            normalisation="published",
            profile="linear",
            merge_mm=0.0,
            across=False,
            sigma_min=0.002,
            sigma_max=80.0,
            distillation_steps=20,
        ),
        PUBLISHED_PLANS,
        "ild-ecal",
    ),
    "caloclouds2": Preset(
        "CaloClouds2: energy only, 65 flow dimensions, 10 blocks, the larger point model",
        # Energies enter as logarithms and scales are fitted: the paper's linear energies need its point-count
        # polynomials to undo what they do to faint points.
        CaloCloudsConfig(
            directions=False,
            count_condition=True,
            profile="linear",
            columns=CALOCLOUDS2_COLUMNS,
            flow_layout="original",
            flow_blocks=10,
            widths=(128, 256, 512, 256, 128),
            sigma_min=0.002,
            sigma_max=80.0,
            distillation_steps=20,
        ),
        PUBLISHED_PLANS,
        "ild-ecal",
    ),
}
DEFAULT_PRESET = "ild-photons-desk"
