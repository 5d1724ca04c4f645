"""Which protocol judges which files: points by the point-cloud protocol, CaloChallenge voxels by the challenge's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calogen.cli.samples import Sample

if TYPE_CHECKING:
    from calogen.evaluate.judgement import Comparison
    from calogen.evaluate.published import Standing

Protocol = Literal["auto", "points", "voxels"]


@dataclass(frozen=True)
class Options:
    """What is asked of the judge, from the command line."""

    protocol: Protocol
    parts: tuple[str, ...] | None
    match: bool
    seed: int
    quiet: bool


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
    if voxels and options.match:
        raise ValueError("--match serves the point-cloud protocol; leave it out for voxels")
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


def ranked(dataset: str, comparisons: Sequence[Comparison]) -> Standing:
    """The models among the published ones."""
    from calogen.evaluate.published import compare as place

    return place(dataset, {c.label: c.sections for c in comparisons})


def compare(truth: Sample, models: Sequence[Sample], floor: Sample | None, options: Options) -> Iterator[Comparison]:
    """Judge all models; the truth is read once."""
    if by_voxels(truth, options):
        if floor is not None:
            raise ValueError(f"--floor {floor.path}: serves the point-cloud protocol; leave it out for voxels")
        return _compare_voxels(truth, models, options)
    return _compare_points(truth, models, floor, options)


def _compare_points(
    truth: Sample, models: Sequence[Sample], floor: Sample | None, options: Options
) -> Iterator[Comparison]:
    from calogen.evaluate.collect import collect
    from calogen.evaluate.judgement import Comparison
    from calogen.evaluate.points import PARTS, judge_collected, parts_named

    parts = parts_named(tuple(PARTS) if options.parts is None else options.parts)
    seed = options.seed
    with _about(truth):
        true = collect(truth.batches(quiet=options.quiet), parts, what="truth", seed=seed)
    extra = None
    if floor is not None:
        with _about(floor):
            extra = collect(floor.batches(quiet=options.quiet), (), what="floor sample", keep=0).observed
    for model in models:
        with _about(model):
            made = collect(model.batches(quiet=options.quiet), parts, what="generated sample", seed=seed)
        with _about(model, truth):
            judged = judge_collected(made, true, seed=seed, parts=parts, floor=extra, match=options.match)
        yield Comparison(model.label, model.n_showers, judged.findings, judged.evaluation, model.provenance())


def _compare_voxels(truth: Sample, models: Sequence[Sample], options: Options) -> Iterator[Comparison]:
    from calogen.evaluate.calochallenge import judge_observed, observe_voxels
    from calogen.evaluate.judgement import Comparison

    with _about(truth):
        true = observe_voxels(truth.raw(quiet=options.quiet), "truth", seed=options.seed)
    for number, model in enumerate(models, start=1):
        with _about(model):
            made = observe_voxels(model.raw(quiet=options.quiet), "generated sample", seed=options.seed + number)
        with _about(model, truth):
            findings = judge_observed(made, true, seed=options.seed)
        yield Comparison(model.label, model.n_showers, findings, provenance=model.provenance())


@contextmanager
def _about(*samples: Sample) -> Iterator[None]:
    """Errors name the files they are about."""
    try:
        yield
    except ValueError as error:
        if any(str(s.path) in str(error) for s in samples):
            raise
        raise ValueError(f"{' against '.join(str(s.path) for s in samples)}: {error}") from error
