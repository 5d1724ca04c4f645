"""CaloDREAM (arXiv:2405.09629): energies of layers by an autoregressive flow, voxels in them by a vision transformer.

E -> flow, layer after layer -> u_0 = E_visible / E, u_i = E_i / (E_i + all behind it)
E, u -> flow of all voxels together, patches that see each other -> share of each voxel in its layer
       | shares below the noise are nothing; cut at the threshold, layers keep their energies
     showers: one point in the middle of each voxel with energy
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.projection import points_of
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector, PolarCells, tilt
from calogen.methods.autoregressive_flow import AutoregressiveFlow
from calogen.methods.bespoke import BespokeSolver
from calogen.methods.flow_matching import FlowMatching
from calogen.networks.autoregressive_transformer import AutoregressiveTransformer
from calogen.networks.patches import Patches
from calogen.networks.voxel_positions import FixedFrequencies
from calogen.networks.voxel_transformer import VoxelTransformer
from calogen.systems.bespoke_stage import BESPOKE_PLAN
from calogen.systems.calodream_stages import EnergiesStage, ShapesStage, solver_stages
from calogen.systems.domain import TILT_SLACK, Domain
from calogen.systems.drawing import Precision, require_precision, solver_options, starts, stream
from calogen.systems.layer_stages import FLOW_PLAN
from calogen.systems.system import Preset, System
from calogen.systems.voxel_shares import Cut
from calogen.systems.voxel_targets import TargetConstants, VoxelTargets
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

    patch: tuple[int, int, int] = (3, 16, 1)  # layers, angles, radii of a patch
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
    energy_evaluations: int = 8  # of each layer's velocity by the bespoke solver
    shape_evaluations: int = 8  # of the voxels' velocity by the bespoke solver


class CaloDream(System):
    """Showers of one kind of particle at normal incidence, in the cells of a calorimeter."""

    name: ClassVar[str] = "calodream"
    Config: ClassVar[type] = CaloDreamConfig
    events: ClassVar[Literal["points", "voxels"]] = "voxels"

    def __init__(self, config: CaloDreamConfig, detector: Detector) -> None:
        super().__init__(config, detector)
        self.domain = Domain()
        self.targets = VoxelTargets(detector.cells_per_layer.tolist(), config.scaling)
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
        network = VoxelTransformer(
            patches_of(detector, shapes.patch),
            1 + detector.n_layers,
            width=shapes.width,
            heads=shapes.heads,
            blocks=shapes.blocks,
            feedforward=shapes.feedforward,
            positions=None if shapes.positions == "learned" else FixedFrequencies(shapes.width, shapes.positions),
            causal=shapes.causal,
            gelu=shapes.gelu,
        )
        self.shape_flow = FlowMatching(network, detector.n_cells, sigma_min=0.0, stratified=True)
        self.energy_solver = BespokeSolver(config.energy_evaluations)
        self.shape_solver = BespokeSolver(config.shape_evaluations)
        self.thresholds_did = NOTHING_CUT  # what the thresholds did in the last call of `sample`

    def parts(self) -> dict[str, nn.Module]:
        """See `System`."""
        return {
            "domain": self.domain,
            "targets": self.targets,
            "energies": self.energy_flow,
            "shapes": self.shape_flow,
            "energy_solver": self.energy_solver,
            "shape_solver": self.shape_solver,
        }

    def stages(self) -> list[Stage]:
        """The two flows, then their solvers."""
        plans = DESK_PLANS
        flows: list[Stage] = [EnergiesStage(self, plans["energies"]), ShapesStage(self, plans["shapes"])]
        return [*flows, *solver_stages(self, plans["energy-solver"], plans["shape-solver"])]

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
        steps: int = 20,
        energy_solver: str = "bespoke",
        energy_steps: int = 8,
        precision: Precision = "float32",
    ) -> Showers:
        """One shower for each incident particle: a point in the middle of each cell with energy.

        Args:
            incident: particles within the trained range.
            seed: with the index of the shower it decides all random numbers; batches change only round-off.
            batch_size: showers computed together.
            progress: show a bar.
            first: index of the first of these showers in a larger request.
            solver: of the flow of the voxels: `bespoke`, with as many evaluations as the configuration says, or one of
                `calogen.methods.solvers.STEPS`.
            steps: of a solver that is not bespoke (published: 20 of three_eighths, 80 evaluations).
            energy_solver: the same for the energies of the layers.
            energy_steps: the same for them (published: 50 of three_eighths in each layer, 9,000 evaluations).
            precision: of the shape network's products.

        Raises:
            ValueError: particles outside the trained range, or an unknown option.
        """
        self.domain.check(incident)
        require_precision(precision)
        shapes = solver_options(solver, steps, self.shape_solver)
        energies = solver_options(energy_solver, energy_steps, self.energy_solver)
        for part in self.parts().values():
            part.eval()
        self.thresholds_did = NOTHING_CUT
        with torch.inference_mode():
            batches = [
                self._sample_batch(
                    incident[start : start + batch_size], seed, first + start, energies, shapes, precision
                )
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
        n_layers, n_cells = self.detector.n_layers, self.detector.n_cells
        streams = [stream(seed, first + i) for i in range(len(incident))]
        z = np.stack([own.standard_normal(n_layers + n_cells, dtype=np.float32) for own in streams])
        noise = torch.from_numpy(z).to(self.device)
        x = self.energy_flow.sample(
            self.targets.scaled_incident(incident.energy), noise=noise[:, :n_layers], **energies
        )
        condition = self.targets.condition(x, incident.energy)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            shape = self.shape_flow.sample(condition, noise=noise[:, n_layers:], **shapes)
        energy, cut = self._decoded(x, shape.float(), incident)
        self.thresholds_did = self.thresholds_did.plus(cut)
        return points_of(Voxels(energy.cpu().numpy(), incident, self.detector))

    def _decoded(self, x: Tensor, shape: Tensor, incident: Incident) -> tuple[Tensor, Cut]:
        return self.targets.decode(x, shape, incident.energy, self.detector.threshold_gev.tolist())


NOTHING_CUT = Cut(0, 0, 0.0, 0)


def patches_of(detector: Detector, patch: tuple[int, int, int]) -> Patches:
    """Patches of the detector's cells; rings lie where their inner edges are, as shares of the largest radius."""
    layout, rings = [], []
    outermost = max(_outer(layer.cells) for layer in detector.layers)
    for layer in detector.layers:
        cells = layer.cells
        if isinstance(cells, PolarCells):
            layout.append((cells.n_alpha, cells.n_r))
            rings.append([r / outermost for r in cells.r_edges_mm[:-1]])
        else:
            layout.append((cells.n_x, cells.n_y))
            rings.append([k / cells.n_y for k in range(cells.n_y)])
    alike = all(part == layout[0] for part in layout)
    return Patches.of_layers(layout, patch, rings=None if alike else rings)


def _outer(cells: Any) -> float:
    return float(cells.r_edges_mm[-1]) if isinstance(cells, PolarCells) else 1.0


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
    "energy-solver": replace(BESPOKE_PLAN, steps=200),
    "shape-solver": replace(BESPOKE_PLAN, steps=150, batch_size=8),
}


def _published(epochs: int, batch_size: int, learning_rate: float, schedule: Literal["cosine", "onecycle"]) -> Plan:
    return Plan(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, schedule=schedule, optimizer="adamw")


PUBLISHED_PLANS: dict[str, Plan] = {
    # Energies: the code's one cycle up to 2e-3 in batches of 4000; the paper has a cosine from 1e-3 in 4096.
    "energies": _published(500, 4000, 2e-3, "onecycle"),
    "shapes": _published(800, 64, 1e-3, "cosine"),
    "energy-solver": BESPOKE_PLAN,
    "shape-solver": BESPOKE_PLAN,
}

DS3_SHAPES = ShapeNetwork(patch=(3, 5, 2), width=240, feedforward=720)
DESK_ENERGIES = EnergyNetwork(
    encoder_blocks=1, decoder_blocks=2, feedforward=128, velocity_width=128, velocity_depth=5, time_std=4.0
)

PRESETS: dict[str, Preset] = {
    "dataset-2-desk": Preset(
        "electrons in the voxels of CaloChallenge's data set 2; small networks, for some thousand showers on a CPU",
        CaloDreamConfig(
            energy_network=DESK_ENERGIES,
            shape_network=ShapeNetwork(width=96, heads=4, blocks=4, feedforward=288, gelu="none"),
        ),
        DESK_PLANS,
        "calochallenge-2",
    ),
    "published": Preset(
        "CaloDREAM as submitted for data set 2 of the CaloChallenge: its networks and plans, fits its weights",
        # Sizes of the submission, which Table 1 does not have: the number of parameters it registered says so.
        CaloDreamConfig(),
        PUBLISHED_PLANS,
        "calochallenge-2",
    ),
    "published-3": Preset(
        "the same for data set 3",
        CaloDreamConfig(shape_network=DS3_SHAPES),
        PUBLISHED_PLANS | {"shapes": _published(600, 64, 1e-3, "cosine")},
        "calochallenge-3",
    ),
}
"""Table 2; each value where paper and code agree, else as the submission has it."""
