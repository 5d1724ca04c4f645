"""Which protocol judges which files: points by the point-cloud protocol, CaloChallenge voxels by the challenge's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from calogen.cli.samples import Files, Sample

if TYPE_CHECKING:
    from calogen.evaluate.classifier_training import Epoch
    from calogen.evaluate.findings import Findings
    from calogen.evaluate.judgement import Comparison
    from calogen.evaluate.published import Standing

Protocol = Literal["auto", "points", "voxels"]
Classifier = Literal["fast", "published", "none"]
COMPETITION_REPEATS = 3
"""Trainings of the classifier of all models, at most: each is of all samples."""


@dataclass(frozen=True)
class Options:
    """What is asked of the judge, from the command line."""

    protocol: Protocol
    parts: tuple[str, ...] | None
    classifier: Classifier
    repeats: int
    match: bool
    seed: int
    quiet: bool

    def described(self, files: Files) -> dict[str, Any]:
        """How the files were judged, in plain values: what is needed to do it again."""
        from importlib.metadata import version

        named = {"floor": files.floor, "training": files.training}
        voxels = by_voxels(files.truth, self)
        return {
            "calogen": version("calogen"),
            "protocol": "voxels" if voxels else "points",
            "parts": "all" if self.parts is None else ", ".join(self.parts) or "none",
            "classifier": self.classifier,
            "repeats": self.repeats,
            "match": self.match,
            **{name: file.provenance() for name, file in named.items() if file is not None},
        }


@dataclass(frozen=True)
class Judged:
    """Each model against the truth, and all of them against each other where classifiers ran on several."""

    comparisons: tuple[Comparison, ...]
    competition: Findings | None = None


def judge(files: Files, options: Options) -> Judged:
    """Judge all models; every file is read once.

    Raises:
        ValueError: options of the other protocol, or samples that cannot be judged.
    """
    if options.seed < 0:
        raise ValueError(f"--seed {options.seed}: give 0 or a positive number")
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: a classifier must be trained at least once")
    if options.match and files.floor is not None:
        raise ValueError(
            f"--floor {files.floor.path} and --match: the floor's showers would keep their own spectrum; leave one out"
        )
    if by_voxels(files.truth, options):
        if files.floor is not None:
            raise ValueError(f"--floor {files.floor.path}: serves the point-cloud protocol; leave it out for voxels")
        from calogen.cli.judging_voxels import judge_voxels

        return judge_voxels(files, options)
    from calogen.cli.judging_points import judge_points

    return judge_points(files, options)


def by_voxels(truth: Sample, options: Options) -> bool:
    """Whether the protocol of voxels judges: it is asked for, or the cells are rings and sectors as the challenge's.

    Raises:
        ValueError: it is asked for points, or with options of the other protocol.
    """
    from calogen.detector.geometry import PolarCells

    polar = isinstance(truth.detector.layers[0].cells, PolarCells)
    voxels = truth.voxels and (options.protocol == "voxels" or (options.protocol == "auto" and polar))
    if options.protocol == "voxels" and not truth.voxels:
        raise ValueError(f"--protocol voxels: {truth.path} holds points; calogen convert --voxels makes voxels of them")
    if voxels and options.parts is not None:
        raise ValueError("--parts chooses among the parts of the point-cloud protocol; leave it out for voxels")
    return voxels


def dataset_of(truth: Sample, options: Options) -> str:
    """The data set of the CaloChallenge whose cells these are.

    Raises:
        ValueError: none of them, or judged as points.
    """
    from calogen.evaluate.challenge_histograms import dataset_of as found

    name = found(truth.detector)
    if name is None or not by_voxels(truth, options):
        raise ValueError(
            f"--against published: {truth.path} does not hold voxels of a CaloChallenge data set "
            f"(its detector is {truth.detector.name!r}); leave it out"
        )
    return name


def ranked(dataset: str, judged: Judged) -> Standing:
    """The models among the published ones."""
    from calogen.evaluate.published import compare

    posteriors: Mapping[str, Mapping[str, float]] = {}
    if judged.competition is not None:
        posteriors = {s.observable: {"log_posterior": s.value} for s in judged.competition.scores}
    return compare(dataset, {c.label: c.sections for c in judged.comparisons}, extra=posteriors)


@contextmanager
def about(*samples: Sample) -> Iterator[None]:
    """Errors name the files they are about."""
    try:
        yield
    except ValueError as error:
        if any(str(s.path) in str(error) for s in samples):
            raise
        raise ValueError(f"{' against '.join(str(s.path) for s in samples)}: {error}") from error


@contextmanager
def training_bar(label: str, options: Options, trainings: int) -> Iterator[Callable[[Epoch], None]]:
    """A progress bar of so many trainings of classifiers, from the first epoch on."""
    from contextlib import ExitStack

    from calogen.progress import progress_bar

    with ExitStack() as stack:
        advance: Callable[[int], None] | None = None

        def report(epoch: Epoch) -> None:
            nonlocal advance
            if advance is None:
                advance = stack.enter_context(
                    progress_bar(f"classifiers {label}", trainings, "trainings", shown=not options.quiet)
                )
            elif epoch.epoch == 1:
                advance(1)

        yield report
        if advance is not None:
            advance(1)


def competing(models: Sequence[Sample], options: Options, least: int) -> bool:
    """Whether all models compete for the showers of the truth: several, with showers enough for a classifier."""
    return options.classifier != "none" and len(models) > 1 and min(m.n_showers for m in models) >= least
