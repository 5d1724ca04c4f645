"""The files of a judgement: which is the truth, what each holds, and whether they may be compared at all."""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calogen.cli.files import points
from calogen.cli.screen import progress

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.detector.geometry import Detector

HASH_BLOCK = 1 << 20


@dataclass(frozen=True)
class Sample:
    """One file of showers: how it is called on the page, and what is known of it without reading its showers."""

    path: Path
    label: str
    detector: Detector
    n_showers: int
    voxels: bool
    facts: dict[str, Any]
    given: Detector | None
    """The detector named on the command line, for files that do not say theirs."""

    def batches(self, *, quiet: bool) -> Iterator[Showers]:
        """The showers as points, batch by batch, with a progress bar."""
        return (points(batch) for batch in self.raw(quiet=quiet))

    def raw(self, *, quiet: bool) -> Iterator[Any]:
        """The showers as the file holds them (points or voxels), batch by batch, with a progress bar."""
        from calogen.data.formats import batches

        done = 0
        with progress(f"read {self.label}", quiet=quiet) as report:
            for batch in batches(self.path, detector=self.given):
                yield batch
                done += len(batch)
                report(done, self.n_showers)

    def first(self, n: int) -> Showers:
        """The first showers as points."""
        from calogen.data.formats import read

        return points(read(self.path, detector=self.given, stop=n))

    def provenance(self) -> dict[str, Any]:
        """What is known of the file, with its checksum."""
        return {**self.facts, "sha256": _checksum(self.path)}


def roles(files: Sequence[Path], truth: Path | None) -> tuple[tuple[Path, ...], Path]:
    """The models' files and the truth's: `A B ... --truth G4`, or the two of `GENERATED TRUTH`.

    >>> roles([Path("a.h5"), Path("g4.h5")], None)
    ((PosixPath('a.h5'),), PosixPath('g4.h5'))

    Raises:
        ValueError: no model, or no truth.
    """
    if truth is not None:
        if not files:
            raise ValueError(
                f"there is nothing to judge against {truth}: give files of generated showers before --truth"
            )
        return tuple(files), truth
    if len(files) == 2:
        return (files[0],), files[1]
    raise ValueError(
        f"the truth is missing: {len(files)} file{'' if len(files) == 1 else 's'} and no --truth; "
        "give A.h5 [B.h5 ...] --truth GEANT4.h5, or the two files GENERATED TRUTH"
    )


@dataclass(frozen=True)
class Files:
    """The files of a judgement; `floor` are other Geant4 showers, `training` those that a model was trained on."""

    truth: Sample
    models: tuple[Sample, ...]
    floor: Sample | None = None
    training: Sample | None = None


def examine(
    models: Sequence[Path],
    truth: Path,
    given: Detector | None = None,
    *,
    floor: Path | None = None,
    training: Path | None = None,
) -> Files:
    """All files; none of their showers is read but the first.

    Raises:
        ValueError: a file that is not usable, given twice or too small, or files of different detectors or kinds.
    """
    others = [path for path in (floor, training) if path is not None]
    paths = [truth, *models, *others]
    samples = [_examined(path, label, given) for path, label in zip(paths, _labels(paths), strict=True)]
    _refuse_twice(paths)
    _refuse_few(samples)
    for other in samples[1:]:
        _refuse_different(other, samples[0])
    rest = samples[1 + len(models) :]
    return Files(
        samples[0],
        tuple(samples[1 : 1 + len(models)]),
        floor=None if floor is None else rest[0],
        training=None if training is None else rest[-1],
    )


def _refuse_different(other: Sample, truth: Sample) -> None:
    if other.detector != truth.detector:
        same_name = " with other layers or cells" if other.detector.name == truth.detector.name else ""
        raise ValueError(
            f"{other.path} is of detector {other.detector.name!r}{same_name}, the truth {truth.path} of "
            f"{truth.detector.name!r}; they can only be compared in the same detector"
        )
    if other.voxels != truth.voxels:
        kinds = [("voxels" if s.voxels else "points") for s in (other, truth)]
        raise ValueError(
            f"{other.path} holds {kinds[0]}, the truth {truth.path} {kinds[1]}; convert the points with "
            f"calogen convert --voxels {truth.detector.name}"
        )


def _examined(path: Path, label: str, given: Detector | None) -> Sample:
    from calogen.data.formats import open_source, sniff
    from calogen.data.voxels import Voxels

    with open_source(path, detector=given) as source:
        voxels = isinstance(source.load(0, 1), Voxels)
        facts = {
            "file": path.name,
            "size": f"{path.stat().st_size / 1e6:.3g} MB",
            "format": sniff(path),
            "holds": f"{source.n_showers} showers as {'voxels' if voxels else 'points'}",
            "detector": f"{source.detector.name}, {source.detector.n_layers} layers",
            **source.provenance,
        }
        return Sample(path, label, source.detector, source.n_showers, voxels, facts, given)


def _labels(paths: Sequence[Path]) -> list[str]:
    """The names of the files without their endings; with their folders where these alone tell them apart."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.absolute().parent.name}/{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return names


def _refuse_twice(paths: Sequence[Path]) -> None:
    for i, path in enumerate(paths):
        for other in paths[:i]:
            same = path.samefile(other)
            if same or (path.stat().st_size == other.stat().st_size and filecmp.cmp(path, other, shallow=False)):
                which = f"{path} is given twice" if same else f"{path} is a copy of {other}"
                raise ValueError(f"{which}: a file cannot be judged beside or against itself; give another sample")


def _refuse_few(samples: Sequence[Sample]) -> None:
    from calogen.evaluate.incidents import MIN_SHOWERS

    for sample in samples:
        if sample.n_showers < MIN_SHOWERS:
            raise ValueError(
                f"{sample.path} holds {sample.n_showers} showers; scores with errors need at least {MIN_SHOWERS}"
            )


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
