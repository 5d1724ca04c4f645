"""The classifiers of the CaloChallenge (arXiv:2410.21611) on two samples of voxels: AUC, JSD, weights and their tails.

    low              log10 of the incident energy, every voxel over it                     dense network
    low_normalised   voxels over the energy of their layer, log10 of the layer energies    dense network
    high             362 high-level features (data sets 2 and 3)                           dense network
    resnet           as low, on the grid of layers, angles and radii                       3D ResNet-18

Showers are read from the hits that the samples kept; only the rows of a batch are dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from calogen.detector.geometry import Detector, PolarCells
from calogen.evaluate.classifier import Classified, classify_repeats
from calogen.evaluate.classifier_scores import Floor, classify_halves, score_repeats
from calogen.evaluate.classifier_settings import PRESETS, ClassifierSettings
from calogen.evaluate.classifier_tails import Observables, classifier_tails
from calogen.evaluate.classifier_training import MIN_SHOWERS, Features, Progress, Subset
from calogen.evaluate.classifier_weights import weights_of
from calogen.evaluate.findings import Findings
from calogen.evaluate.high_level import classifier_features
from calogen.evaluate.incidents import check_same_detector
from calogen.evaluate.log_posterior import log_posteriors
from calogen.evaluate.voxel_features import low_level, low_level_normalised, tail_observables
from calogen.evaluate.voxel_sample import VoxelPair, VoxelSample

Size = Literal["fast", "published"]

TITLES = {
    "low": "Classifier of voxels",
    "low_normalised": "Classifier of voxels over the energy of their layer",
    "high": "Classifier of high-level features",
    "resnet": "3D ResNet of voxels",
}
FAST_SHOWERS = 5000
"""Showers of each sample that `fast` trains and judges on."""
FAST_VOXELS = 1 << 25
"""Voxels of these, at most, where voxels are looked at: 5,000 showers of data set 2, 828 of data set 3."""
FAST_REPEATS = {"low": 3, "low_normalised": 3, "high": 5, "resnet": 1}
"""Trainings of `fast`, at most."""
SIZES = {
    "fast": "Sized for a CPU: a smaller network and at most {n:,} showers of each sample recognise less than the "
    "published size.",
    "published": "Network and training of the published size.",
}
TOO_FEW = "{title} needs at least {minimum} showers of each sample; there are {generated} generated and {truth} true"
LOG_POSTERIOR_TITLE = "The log-posterior of all models"


class _Rows(NamedTuple):
    """Features of both samples, and the places of these rows in the samples."""

    features: tuple[Features, Features]
    places: tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class VoxelClassifiers:
    """The classifiers of two samples of voxels, observed with `keep=self.keep` and one seed.

    `fast` takes minutes on a CPU; `published` networks and numbers of showers want a GPU (`device`). `repeats` are
    trainings on shifted parts, of `fast` no more than `FAST_REPEATS`. `floor` "permuted" costs no training, "halves"
    as many again (see `score_repeats`).
    """

    size: Size = "fast"
    repeats: int = 5
    which: tuple[str, ...] = ("low", "low_normalised", "high", "resnet")
    floor: Floor = "permuted"
    progress: Progress | None = None
    device: str | torch.device = "cpu"
    name: ClassVar[str] = "classifier"

    def __post_init__(self) -> None:
        if unknown := [w for w in self.which if w not in TITLES]:
            raise ValueError(f"classifier {unknown[0]!r} of voxels is not known; choose of {', '.join(TITLES)}")
        if self.size not in SIZES:
            raise ValueError(f"size {self.size!r} of the classifiers is not known; choose fast or published")

    @property
    def keep(self) -> int | None:
        """How many whole showers `observe_voxels` must keep; None is all."""
        return FAST_SHOWERS if self.size == "fast" else None

    @property
    def trainings(self) -> int:
        """How many networks are trained, those of the floor not counted."""
        return sum(self._repeats(which) for which in self.which)

    def findings(self, pair: VoxelPair) -> tuple[Findings, ...]:
        """AUC and JSD of each classifier, its weights, and what the showers it recognises have in common.

        Where there are too few showers, or no grid for the ResNet, the findings say so and have no scores.

        Raises:
            ValueError: no repeats, or features that are NaN.
        """
        return tuple(self._one(which, pair) for which in self.which)

    def _one(self, which: str, pair: VoxelPair) -> Findings:
        settings = _settings(which, self.size, pair.truth.detector)
        name, title = f"{self.name}_{which}", TITLES[which]
        if settings is None:
            note = (
                f"{title} needs layers of equal polar cells, which {pair.truth.detector.name!r} does not have: left out"
            )
            return Findings(name, title, notes=(note,), text="")
        rows = self._rows(which, pair)
        made, true = (r.size for r in rows.places)
        if min(made, true) < MIN_SHOWERS:
            note = TOO_FEW.format(title=title, minimum=MIN_SHOWERS, generated=made, truth=true)
            return Findings(name, title, "", notes=(note,))
        return self._trained(name, title, rows, settings, pair, self._repeats(which))

    def _repeats(self, which: str) -> int:
        return min(self.repeats, FAST_REPEATS[which]) if self.size == "fast" else self.repeats

    def _trained(
        self, name: str, title: str, rows: _Rows, settings: ClassifierSettings, pair: VoxelPair, repeats: int
    ) -> Findings:
        (generated, truth), seed = rows.features, pair.resampling.seed
        trained = classify_repeats(
            generated, truth, settings, repeats=repeats, seed=seed, progress=self.progress, device=self.device
        )
        halves: tuple[Classified, ...] = ()
        notes: tuple[str, ...] = ()
        if self.floor == "halves" and truth.shape[0] >= 2 * MIN_SHOWERS:
            halves = classify_halves(
                truth, settings, repeats=repeats, seed=seed, progress=self.progress, device=self.device
            )
        elif self.floor == "halves":
            notes = (f"{truth.shape[0]} true showers are too few to be halved: the floor is that of exchanged labels.",)
        scores = score_repeats(trained, settings, halves, seed=seed, name=name, title=title)
        tails = classifier_tails(weights_of(trained), _observables(rows, pair), name=name)
        size = SIZES[self.size].format(n=max(r.size for r in rows.places))
        return replace(
            scores,
            text=f"{scores.text} {size} {tails.text}",
            curves=scores.curves + tails.curves,
            matrices=tails.matrices,
            notes=scores.notes + notes + tails.notes,
            seconds=scores.seconds + tails.seconds,
        )

    def _rows(self, which: str, pair: VoxelPair) -> _Rows:
        """Features in an order in which row k of both samples is of the same incident particle, where there is one."""
        samples = pair.generated, pair.truth
        if which == "high":
            limit = FAST_SHOWERS if self.size == "fast" else None
            made, true = (_drawn(order, limit, pair.resampling.seed) for order in pair.orders)
            values = [classifier_features(s.features[p]).values for s, p in zip(samples, (made, true), strict=True)]
            return _Rows((values[0], values[1]), (made, true))
        limit = FAST_VOXELS // pair.truth.detector.n_cells if self.size == "fast" else None
        first, second = _kept_rows(pair, limit)
        features = low_level_normalised if which == "low_normalised" else low_level
        places = tuple(s.kept_index[rows] for s, rows in zip(samples, (first, second), strict=True))
        return _Rows(
            (Subset(features(pair.generated), first), Subset(features(pair.truth), second)), (places[0], places[1])
        )


def competition(
    samples: Mapping[str, VoxelSample],
    truth: VoxelSample,
    size: Size = "fast",
    *,
    repeats: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> Findings:
    """Log-posteriors of several models by their high-level features; half of the truth competes as the control.

    Args:
        samples: each model's showers by its name.
        truth: those of Geant4.
        size: `fast` takes at most `FAST_SHOWERS` of each sample.
        repeats: trainings, each with another part held out.
        seed: of everything random.
        progress: told of each epoch.
        device: where the network is trained.

    With too few showers the findings say so and have no scores.

    Raises:
        ValueError: no samples, or different detectors.
    """
    for sample in samples.values():
        check_same_detector(sample.detector, truth.detector)
    smallest = min((len(s) for s in samples.values()), default=0)
    if samples and (smallest < MIN_SHOWERS or len(truth) < 2 * MIN_SHOWERS):
        note = (
            f"{LOG_POSTERIOR_TITLE} needs at least {MIN_SHOWERS} showers of each model and {2 * MIN_SHOWERS} of the "
            f"truth; there are {smallest} and {len(truth)}"
        )
        return Findings("log_posterior", "Log-posterior of all models", "", notes=(note,))
    limit = FAST_SHOWERS if size == "fast" else None

    def features(s: VoxelSample) -> NDArray[np.float32]:
        rows = _drawn(np.arange(len(s)), limit, seed)
        return classifier_features(s.features[rows]).values

    values = {name: features(s) for name, s in samples.items()}
    settings = PRESETS["fast-high" if size == "fast" else "published-high"]
    return log_posteriors(
        values, features(truth), settings, repeats=repeats, seed=seed, progress=progress, device=device
    )


def _settings(which: str, size: Size, detector: Detector) -> ClassifierSettings | None:
    """Of one classifier; None where there is no grid for the ResNet."""
    if which != "resnet":
        fast = "fast-high" if which == "high" else "fast-low"
        return PRESETS[fast if size == "fast" else f"published-{which.split('_')[0]}"]
    cells = {layer.cells for layer in detector.layers}
    first = next(iter(cells))
    if len(cells) > 1 or not isinstance(first, PolarCells):
        return None
    grid = (detector.n_layers, first.n_alpha, first.n_r)
    return replace(PRESETS["fast-resnet" if size == "fast" else "published-resnet"], grid=grid)


def _drawn(order: NDArray[np.int64], limit: int | None, seed: int) -> NDArray[np.int64]:
    """At most `limit` entries, at random places that depend on nothing but their number and the seed."""
    if limit is None or order.size <= limit:
        return order
    return order[np.sort(np.random.default_rng([seed, 17]).permutation(order.size)[:limit])]


def _kept_rows(pair: VoxelPair, limit: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the kept showers of both samples, at most `limit`; those of common incident particles first."""
    rows, places = [], []
    for sample, order in zip((pair.generated, pair.truth), pair.orders, strict=True):
        chosen = np.sort(np.argsort(sample.marks, kind="stable")[:limit])
        place = np.empty(order.size, dtype=np.int64)
        place[order] = np.arange(order.size)
        rows.append(chosen)
        places.append(place[sample.kept_index[chosen]])
    if not pair.resampling.paired:
        return rows[0], rows[1]
    _, *common = np.intersect1d(places[0], places[1], assume_unique=True, return_indices=True)
    ordered = [np.concatenate([r[c], np.delete(r, c)]) for r, c in zip(rows, common, strict=True)]
    return ordered[0], ordered[1]


def _observables(rows: _Rows, pair: VoxelPair) -> Observables:
    made, true = (s.features[p] for s, p in zip((pair.generated, pair.truth), rows.places, strict=True))
    (a, names, units), (b, _, _) = tail_observables(made), tail_observables(true)
    return Observables(a, b, names, units, made.incident_energy, true.incident_energy)
