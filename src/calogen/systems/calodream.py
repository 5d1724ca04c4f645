"""CaloDREAM (arXiv:2405.09629): energies of layers by an autoregressive flow, voxels in them by a vision transformer.

E -> flow, layer after layer -> u_0 = E_visible / E, u_i = E_i / (E_i + all behind it)
E, u -> flow of all voxels together, patches that see each other -> share of each voxel in its layer
       (with marginals: first how many voxels of each layer are filled, which the flow is given)
       (or of latent numbers, which an autoencoder makes voxels of)
       | of logits, shares below the noise are nothing; cut at the threshold, layers keep their energies
     showers: one point in the middle of each voxel with energy
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.projection import points_of
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector, tilt
from calogen.methods.autoregressive_flow import AutoregressiveFlow
from calogen.methods.bespoke import BespokeSolvers
from calogen.methods.flow_matching import BetweenNormals, FlowMatching
from calogen.networks.autoregressive_transformer import AutoregressiveTransformer
from calogen.networks.grid_convolution import Triple
from calogen.networks.voxel_positions import FixedFrequencies
from calogen.networks.voxel_transformer import VoxelTransformer
from calogen.networks.voxel_vae import Level
from calogen.systems.bespoke_stage import BESPOKE_PLAN, BespokeStage
from calogen.systems.calodream_stages import AutoencoderStage, EnergiesStage, ShapesStage, cells_of
from calogen.systems.cell_marginals import alike
from calogen.systems.domain import TILT_SLACK, Domain
from calogen.systems.drawing import Precision, chosen_precision, require_precision, solver_options, starts, stream
from calogen.systems.faint_cut import FaintCut, FaintCutStage
from calogen.systems.layer_stages import FLOW_PLAN
from calogen.systems.published_vae import PUBLISHED_VAES
from calogen.systems.shape_spaces import Autoencoder, Cuts, LatentSpace, ShapeSpace, ShareSpace, patches_of
from calogen.systems.system import Preset, System
from calogen.systems.turns import Turns
from calogen.systems.voxel_shares import Cut
from calogen.systems.voxel_targets import DrawnLayers, TargetConstants, VoxelTargets
from calogen.train import Plan, Stage


@dataclass(frozen=True)
class EnergyNetwork:
    """Sizes of the energy network, as submitted to the CaloChallenge (2,384,705 parameters; Table 1 has others)."""

    width: int = 64  # d of encoder and decoder; more than the layers
    heads: int = 4
    encoder_blocks: int = 4
    decoder_blocks: int = 4
    feedforward: int = 512  # Table 1: 1024
    velocity_width: int = 512  # Table 1: 256
    velocity_depth: int = 8
    time_std: float = 30.0  # spread of the frequencies of the time


@dataclass(frozen=True)
class ShapeNetwork:
    """Sizes of the shape network (Table 2)."""

    patch: Triple = (3, 16, 1)  # layers, angles, radii of a patch
    width: int = 480  # D
    heads: int = 6
    blocks: int = 6
    feedforward: int = 1920
    positions: Literal["learned", "cylindrical", "cartesian"] = "learned"
    causal: bool = False  # patches see no later layer
    gelu: Literal["tanh", "none"] = "tanh"


@dataclass(frozen=True)
class CaloDreamConfig:
    """What the model is. The defaults are those of the submission to data set 2 of the CaloChallenge."""

    scaling: TargetConstants = field(default_factory=TargetConstants)  # logits, noise, f
    energy_network: EnergyNetwork = field(default_factory=EnergyNetwork)
    shape_network: ShapeNetwork = field(default_factory=ShapeNetwork)
    autoencoder: Autoencoder = field(default_factory=Autoencoder)  # of the latent form
    calibrated: bool = False  # cells too faint to be Geant4's are cut, so that there are as many
    turned: bool = False  # training showers are turned by sectors and mirrored at random, see `Turns`
    energy_evaluations: tuple[int, ...] = (8, 4, 16)  # of each layer's velocity: its bespoke solvers, the usual first
    shape_evaluations: tuple[int, ...] = (8, 4, 16)  # of the voxels' velocity
    precision: Precision = "float32"  # of the shape network's products in `sample`, where scores were shown to hold
    solver_error: Literal["global", "local"] = "global"  # the truncation error that the solvers are fitted by

    def __post_init__(self) -> None:
        require_precision(self.precision)


class CaloDream(System):
    """Showers of one kind of particle at normal incidence, in the cells of a calorimeter."""

    name: ClassVar[str] = "calodream"
    solvers: ClassVar[Mapping[str, str]] = {"shape-solver": "solver", "energy-solver": "energy_solver"}
    Config: ClassVar[type] = CaloDreamConfig
    events: ClassVar[Literal["points", "voxels"]] = "voxels"

    def __init__(self, config: CaloDreamConfig, detector: Detector) -> None:
        super().__init__(config, detector)
        if config.autoencoder.levels and config.scaling.shares != "logit":
            raise ValueError("an autoencoder sees shares as they are: scaling.shares=marginals is for the voxels alone")
        self.domain = Domain()
        self.targets = VoxelTargets(detector.cells_per_layer.tolist(), config.scaling, alike(detector))
        energies, shapes = config.energy_network, config.shape_network
        self.energy_flow = AutoregressiveFlow(
            AutoregressiveTransformer(
                detector.n_layers,
                1,
                width=energies.width,
                heads=energies.heads,
                encoder_blocks=energies.encoder_blocks,
                decoder_blocks=energies.decoder_blocks,
                feedforward=energies.feedforward,
                velocity_width=energies.velocity_width,
                velocity_depth=energies.velocity_depth,
                time_std=energies.time_std,
            )
        )
        self.space: ShapeSpace = (
            LatentSpace(self.targets, detector, config.autoencoder, shapes.patch)
            if config.autoencoder.levels
            else ShareSpace(self.targets, patches_of(detector, shapes.patch, self.targets.rings_per_layer))
        )
        network = VoxelTransformer(
            self.space.patches,
            self.space.conditions,
            width=shapes.width,
            heads=shapes.heads,
            blocks=shapes.blocks,
            feedforward=shapes.feedforward,
            positions=None if shapes.positions == "learned" else FixedFrequencies(shapes.width, shapes.positions),
            causal=shapes.causal,
            gelu=shapes.gelu,
        )
        base, weights = None, None
        if self.targets.marginals is not None:
            base = BetweenNormals()
            weights = torch.full((self.targets.marginals.n_numbers,), RING_WEIGHT)
            weights[: detector.n_cells] = 1.0
        self.shape_flow = FlowMatching(
            network, self.space.patches.voxels, sigma_min=0.0, stratified=True, base=base, weights=weights
        )
        self.turns = Turns(detector) if config.turned else None
        self.energy_solvers = BespokeSolvers(config.energy_evaluations)
        self.shape_solvers = BespokeSolvers(config.shape_evaluations)
        self.faint = FaintCut(detector.n_layers)
        self.thresholds_did = NOTHING_CUT  # what the thresholds did in the last call of `sample`

    def parts(self) -> dict[str, nn.Module]:
        """See `System`."""
        autoencoder = {"autoencoder": self.space.module} if isinstance(self.space, LatentSpace) else {}
        return {
            "domain": self.domain,
            "targets": self.targets,
            "energies": self.energy_flow,
            **autoencoder,
            "shapes": self.shape_flow,
            "energy_solvers": self.energy_solvers,
            "shape_solvers": self.shape_solvers,
            "faint": self.faint,
        }

    def stages(self) -> list[Stage]:
        """The flow of the energies, the autoencoder if there is one, the flow of the shapes, then their solvers."""
        plans = DESK_PLANS
        energies, shapes = EnergiesStage(self, plans["energies"]), ShapesStage(self, plans["shapes"])
        autoencoder: list[Stage] = []
        if isinstance(self.space, LatentSpace):
            autoencoder = [AutoencoderStage(self, self.space, plans["code"])]
        error = self.config.solver_error
        calibrate: list[Stage] = [FaintCutStage(self, plans["calibrate"])] if self.config.calibrated else []
        return [
            energies,
            *autoencoder,
            shapes,
            BespokeStage("energy-solver", self.energy_solvers, energies.flow_of, plans["energy-solver"], error=error),
            BespokeStage("shape-solver", self.shape_solvers, shapes.flow_of, plans["shape-solver"], error=error),
            *calibrate,
        ]

    def require_upright(self, incident: Incident) -> None:
        """Refuse inclined particles: the networks are not told directions.

        Raises:
            ValueError: a tilt beyond that of normal incidence.
        """
        steepest = float(np.abs(tilt(incident.direction)).max(initial=0.0))
        if steepest > TILT_SLACK:
            raise ValueError(
                f"inclined showers, p_x/p_z or p_y/p_z up to {steepest:.3g} (limit {TILT_SLACK}): {self.name} knows "
                "normal incidence"
            )

    def sample(
        self,
        incident: Incident,
        *,
        seed: int,
        batch_size: int = 32,
        progress: bool = False,
        first: int = 0,
        solver: str = "bespoke",
        evaluations: int = 0,
        steps: int = 20,
        energy_solver: str = "bespoke",
        energy_evaluations: int = 0,
        energy_steps: int = 8,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> Showers:
        """One shower for each incident particle: a point in the middle of each cell with energy.

        Args:
            incident: particles within the trained range.
            seed: with the index of the shower it decides all random numbers; batches change only round-off.
            batch_size: showers computed together.
            progress: show a bar.
            first: index of the first of these showers in a larger request.
            solver: of the flow of the voxels: `bespoke`, or one of `calogen.methods.bespoke.SOLVERS`.
            evaluations: of a bespoke solver: one of the numbers in the configuration; 0: the first of them.
            steps: equal ones, of a solver that is neither bespoke nor adaptive (published: 20 of three_eighths, which
                are 80 evaluations).
            energy_solver: the same for the energies of the layers.
            energy_evaluations: the same for them.
            energy_steps: the same for them (published: 50 of three_eighths in each layer, 9,000 evaluations).
            precision: of the shape network's products; `auto`: the configuration's, on processors that compute in it.

        Raises:
            ValueError: particles outside the trained range, or an unknown option.
        """
        self.domain.check(incident)
        chosen = chosen_precision(precision, self.config.precision, self.device)
        shapes = solver_options(solver, steps, self.shape_solvers.of(evaluations))
        energies = solver_options(energy_solver, energy_steps, self.energy_solvers.of(energy_evaluations))
        for part in self.parts().values():
            part.eval()
        self.thresholds_did = NOTHING_CUT
        with torch.inference_mode():
            batches = [
                self._sample_batch(incident[start : start + batch_size], seed, first + start, energies, shapes, chosen)
                for start in starts(len(incident), batch_size, progress)
            ]
        return Showers.concatenate(batches) if batches else Showers.empty(self.detector)

    def _sample_batch(
        self,
        incident: Incident,
        seed: int,
        first: int,
        energies: dict[str, Any],
        shapes: dict[str, Any],
        precision: Precision,
    ) -> Showers:
        numbers = [self.detector.n_layers, self.space.layer_noise, self.space.patches.voxels]
        streams = [stream(seed, first + i) for i in range(len(incident))]
        z = np.stack([own.standard_normal(sum(numbers), dtype=np.float32) for own in streams])
        of_energies, of_layers, of_shapes = torch.from_numpy(z).to(self.device).split(numbers, dim=1)
        x_energy = self.energy_flow.sample(self.targets.scaled_incident(incident.energy), noise=of_energies, **energies)
        layers = self.space.layers(x_energy, incident.energy, of_layers)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            x = self.shape_flow.sample(layers.condition, noise=of_shapes, **shapes)
        return self._showers(layers, x.float(), incident)

    def _showers(self, layers: DrawnLayers, x: Tensor, incident: Incident) -> Showers:
        """What was drawn -> showers, with the account of what thresholds did."""
        cuts = Cuts(self.detector.threshold_gev.tolist(), self.faint.gev)
        energy, cut = self.space.decode(layers, x, incident.energy, cuts)
        self.thresholds_did = self.thresholds_did.plus(cut)
        return points_of(Voxels(energy.cpu().numpy(), incident, self.detector))

    def reconstruct(
        self, showers: Showers, *, seed: int, batch_size: int = 32, progress: bool = False, first: int = 0
    ) -> Showers:
        """See `System`: showers to latent numbers and back, the energies of their layers kept."""
        space = self.space
        if not isinstance(space, LatentSpace):
            return super().reconstruct(showers, seed=seed, batch_size=batch_size, progress=progress, first=first)
        self.domain.check(showers.incident)
        space.module.eval()
        self.thresholds_did = NOTHING_CUT
        with torch.inference_mode():
            batches = [
                self._reconstruct_batch(
                    space, showers[np.arange(start, min(start + batch_size, len(showers)))], seed, first + start
                )
                for start in starts(len(showers), batch_size, progress)
            ]
        return Showers.concatenate(batches) if batches else Showers.empty(self.detector)

    def _reconstruct_batch(self, space: LatentSpace, showers: Showers, seed: int, first: int) -> Showers:
        energy, incident = cells_of(showers)
        x_energy, _ = self.targets.encode_energies(energy, incident)
        streams = [stream(seed, first + i) for i in range(len(showers))]
        noise = np.stack([own.standard_normal(space.patches.voxels, dtype=np.float32) for own in streams])
        drawn = space.encode_with(energy, incident, torch.from_numpy(noise))
        return self._showers(DrawnLayers(x_energy, drawn.condition, None), drawn.x, showers.incident)


NOTHING_CUT = Cut(0, 0, 0.0, 0)
RING_WEIGHT = 4.0
"""Of a ring's number of filled voxels in the loss: one number beside its voxels, on which all of them depend."""


DESK_PLANS: dict[str, Plan] = {
    # Sized for one CPU core and some thousand showers.
    "energies": replace(FLOW_PLAN, batch_size=128),
    "shapes": Plan(
        steps=12_000,
        batch_size=32,
        optimizer="adamw",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=200,
        weight_decay=1e-2,
        grad_clip=1.0,
        ema="constant",
        ema_decay=0.999,
        validate_every=500,
        validation_showers=200,
        keep="last",
    ),
    "code": Plan(
        steps=3000,
        batch_size=32,
        optimizer="adamw",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=200,
        weight_decay=0.0,
        grad_clip=1.0,
        validate_every=500,
        validation_showers=200,
        keep="last",
    ),
    "energy-solver": replace(BESPOKE_PLAN, steps=200),
    "shape-solver": replace(BESPOKE_PLAN, steps=150, batch_size=8),
    "calibrate": Plan(steps=1),
}


def _published(epochs: int, batch_size: int, learning_rate: float, schedule: Literal["cosine", "onecycle"]) -> Plan:
    return Plan(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, schedule=schedule, optimizer="adamw")


PUBLISHED_PLANS: dict[str, Plan] = {
    # Energies: the code's one cycle up to 2e-3 in batches of 4000; the paper has a cosine from 1e-3 in 4096.
    "energies": _published(500, 4000, 2e-3, "onecycle"),
    "code": _published(200, 128, 1e-3, "cosine"),  # epochs are not in the paper
    "shapes": _published(800, 64, 1e-3, "cosine"),
    "energy-solver": BESPOKE_PLAN,
    "shape-solver": BESPOKE_PLAN,
}

DS3_SHAPES = ShapeNetwork(patch=(3, 5, 2), width=240, feedforward=720)
DESK_ENERGIES = EnergyNetwork(
    encoder_blocks=1, decoder_blocks=2, feedforward=128, velocity_width=128, velocity_depth=5, time_std=4.0
)
DESK_TARGETS = TargetConstants(shares="marginals")
DESK_SHAPES = ShapeNetwork(width=96, heads=4, blocks=4, feedforward=288, gelu="none")


def _latent(detector: str, patch: Triple) -> CaloDreamConfig:
    """The published latent form; its autoencoder sees no angle beyond the seam."""
    return CaloDreamConfig(
        shape_network=ShapeNetwork(patch=patch, width=240, feedforward=960, blocks=10),
        autoencoder=Autoencoder(PUBLISHED_VAES[detector].levels, around=False),
    )


def _preset(about: str, config: CaloDreamConfig, plans: dict[str, Plan], detector: str) -> Preset:
    """With the plans of the stages that the configuration has."""
    has = {"code": bool(config.autoencoder.levels), "calibrate": config.calibrated}
    return Preset(about, config, {name: plan for name, plan in plans.items() if has.get(name, True)}, detector)


PRESETS: dict[str, Preset] = {
    "dataset-2-desk": _preset(
        "electrons in the voxels of CaloChallenge's data set 2; small networks, for some thousand showers on a CPU",
        CaloDreamConfig(
            scaling=DESK_TARGETS,
            energy_network=DESK_ENERGIES,
            shape_network=DESK_SHAPES,
            turned=True,
            precision="bfloat16",  # AUC of high-level features with the same noise: 0.615 in both (docs/voxels.md)
        ),
        DESK_PLANS,
        "calochallenge-2",
    ),
    "dataset-2-latent-desk": _preset(
        "the same in latent numbers of an autoencoder whose angles close to a circle",
        CaloDreamConfig(
            energy_network=DESK_ENERGIES,
            shape_network=replace(DESK_SHAPES, patch=(3, 8, 1)),
            autoencoder=Autoencoder((Level(16, (3, 4, 1), (3, 2, 1)), Level(16))),
            calibrated=True,
            turned=True,
        ),
        DESK_PLANS,
        "calochallenge-2",
    ),
    "dataset-3-desk": _preset(
        "electrons in the voxels of CaloChallenge's data set 3; small networks, for some thousand showers on a CPU",
        CaloDreamConfig(
            scaling=DESK_TARGETS,
            energy_network=DESK_ENERGIES,
            shape_network=replace(DESK_SHAPES, patch=(3, 25, 2)),
            turned=True,
        ),
        DESK_PLANS,
        "calochallenge-3",
    ),
    "published": _preset(
        "CaloDREAM as submitted for data set 2 of the CaloChallenge: its networks and plans, fits its weights",
        # Sizes of the submission, which Table 1 does not have: the number of parameters it registered says so.
        CaloDreamConfig(),
        PUBLISHED_PLANS,
        "calochallenge-2",
    ),
    "published-3": _preset(
        "the same for data set 3",
        CaloDreamConfig(shape_network=DS3_SHAPES),
        PUBLISHED_PLANS | {"shapes": _published(600, 64, 1e-3, "cosine")},
        "calochallenge-3",
    ),
    "published-latent": _preset(
        "the latent form of CaloDREAM (laViT) for data set 2",
        _latent("calochallenge-2", (3, 1, 1)),
        PUBLISHED_PLANS | {"shapes": _published(800, 128, 1e-3, "cosine")},
        "calochallenge-2",
    ),
    "published-latent-3": _preset(
        "the same for data set 3",
        # Its strides are those that give the published latent grid; the paper prints others (see `published_vae`).
        _latent("calochallenge-3", (3, 2, 2)),
        PUBLISHED_PLANS | {"shapes": _published(400, 128, 1e-3, "cosine")},
        "calochallenge-3",
    ),
}
"""Table 2; each value where paper and code agree, else as the submission has it."""
