"""The whole judgement of point clouds in one call: the table and every part, each stream read once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from calogen.evaluate.angle import Angle
from calogen.evaluate.clusters import SingleClusters
from calogen.evaluate.collect import KEPT_SHOWERS, align, collect
from calogen.evaluate.copies import Copies
from calogen.evaluate.correlations import Correlations
from calogen.evaluate.diphoton import Diphoton
from calogen.evaluate.evaluation import Evaluation
from calogen.evaluate.findings import Findings
from calogen.evaluate.hadronic import Hadronic
from calogen.evaluate.incidents import Sample, batches_of, check_same_detector, match_incident
from calogen.evaluate.mip import MipPeak
from calogen.evaluate.observables import Observed
from calogen.evaluate.parts import Collected, Part, SamplePair
from calogen.evaluate.protocol import REPLICAS, judge_aligned
from calogen.evaluate.response import Response
from calogen.evaluate.sections import Sections
from calogen.evaluate.shower_classifier import shower_classifiers
from calogen.evaluate.shower_distances import Distances
from calogen.evaluate.tokens import TokenResolution
from calogen.evaluate.tracks import Tracks

_DEFAULTS: tuple[Part, ...] = (
    Sections(),
    MipPeak(),
    Tracks(),
    Hadronic(),
    Response(),
    Correlations(),
    Angle(),
    SingleClusters(),
    Diphoton(),
    *shower_classifiers(),
    Distances(),
    Copies(),
)
PARTS: dict[str, Part] = {part.name: part for part in _DEFAULTS}
"""The parts of every judgement by their names, with their defaults."""
ON_REQUEST: dict[str, Part] = {TokenResolution.name: TokenResolution()}
"""Parts for special samples, which are judged only where they are named."""


class PointJudgement(NamedTuple):
    """The table of the point-cloud protocol, and what each part found."""

    evaluation: Evaluation
    findings: tuple[Findings, ...]


def judge_points(
    generated: Sample,
    truth: Sample,
    *,
    seed: int = 0,
    parts: Sequence[str | Part] = tuple(PARTS),
    floor_sample: Sample | None = None,
    match: bool = False,
    replicas: int = REPLICAS,
    keep: int = KEPT_SHOWERS,
) -> PointJudgement:
    """Judge generated showers against Geant4, after projection into the detector's cells and its thresholds.

    Args:
        generated: showers of the model, or batches of them; a stream is read once.
        truth: showers of Geant4, of the same detector.
        seed: of resampling, of the choice of showers kept as points, and of the places of overlaid pairs.
        parts: names from `PARTS`, or parts with other options, such as `Angle(percent=10)`.
        floor_sample: another Geant4 sample whose distance to the truth is the floor of the table (not of the parts).
        match: first subsample both to a common spectrum of incident energy (`incidents.match_incident`).
        replicas: resamplings behind errors and floors.
        keep: showers kept as points, for the clusters.

    Raises:
        ValueError: different detectors or particle types, too few showers, unknown parts, no common energies.
    """
    chosen = parts_named(parts)
    floor = None if floor_sample is None else collect(floor_sample, (), what="floor sample", keep=0).observed
    pair, remarks = _paired(*_collected(generated, truth, chosen, seed, keep), seed, replicas, match)
    return _judged(pair, chosen, floor, remarks)


def judge_part(
    part: str | Part,
    generated: Sample,
    truth: Sample,
    *,
    seed: int = 0,
    replicas: int = REPLICAS,
    keep: int = KEPT_SHOWERS,
) -> Findings:
    """One part alone, without the table: `judge_part("angle", generated, truth)`, or a part with other options.

    Raises:
        ValueError: as `judge_points`.
    """
    chosen = parts_named((part,))
    pair, _ = _paired(*_collected(generated, truth, chosen, seed, keep), seed, replicas, match=False)
    return _timed(chosen[0], pair)


def judge_collected(
    generated: Collected,
    truth: Collected,
    *,
    seed: int = 0,
    parts: Sequence[str | Part] = tuple(PARTS),
    floor: Observed | None = None,
    match: bool = False,
    replicas: int = REPLICAS,
) -> PointJudgement:
    """`judge_points` for samples already read by `collect` with these parts (so one truth serves many models).

    Raises:
        ValueError: as `judge_points`, and a part that was not collected.
    """
    chosen = parts_named(parts)
    for part in chosen:
        if part.name not in generated.rows or part.name not in truth.rows:
            raise ValueError(f"part {part.name!r} was not collected; name it when the samples are read")
    pair, remarks = _paired(generated, truth, seed, replicas, match)
    return _judged(pair, chosen, floor, remarks)


def _collected(
    generated: Sample, truth: Sample, parts: tuple[Part, ...], seed: int, keep: int
) -> tuple[Collected, Collected]:
    """Both samples, read once their detectors are known to be the same."""
    first, generated_batches = batches_of(generated, "generated sample")
    second, truth_batches = batches_of(truth, "truth")
    check_same_detector(first, second)
    return (
        collect(generated_batches, parts, what="generated sample", seed=seed, keep=keep),
        collect(truth_batches, parts, what="truth", seed=seed, keep=keep),
    )


def _paired(
    generated: Collected, truth: Collected, seed: int, replicas: int, match: bool
) -> tuple[SamplePair, tuple[str, ...]]:
    check_same_detector(generated.detector, truth.detector)
    remarks: tuple[str, ...] = ()
    if match:
        m = match_incident(generated.observed.incident_energy, truth.observed.incident_energy, seed)
        generated, truth = generated.ordered(m.generated), truth.ordered(m.truth)
        remarks = (m.text,)
    return align(generated, truth, seed=seed, replicas=replicas), remarks


def _judged(
    pair: SamplePair, parts: tuple[Part, ...], floor: Observed | None, remarks: tuple[str, ...]
) -> PointJudgement:
    evaluation = judge_aligned(
        pair.generated.observed,
        pair.truth.observed,
        pair.paired,
        pair.detector,
        pair.truth.binning,
        floor=floor,
        seed=pair.seed,
        replicas=pair.replicas,
    )
    findings = tuple(_timed(part, pair) for part in parts)
    return PointJudgement(replace(evaluation, warnings=(*remarks, *evaluation.warnings)), findings)


def _timed(part: Part, pair: SamplePair) -> Findings:
    start = time.perf_counter()
    found = part.findings(pair)
    return replace(found, seconds=time.perf_counter() - start)


def parts_named(parts: Sequence[str | Part]) -> tuple[Part, ...]:
    """The parts of these names, and those given as such.

    Raises:
        ValueError: an unknown name, or one given twice.
    """
    known = PARTS | ON_REQUEST
    for name in (p for p in parts if isinstance(p, str)):
        if name not in known:
            raise ValueError(f"unknown part {name!r} of the judgement; known: {', '.join(known)}")
    chosen = tuple(known[p] if isinstance(p, str) else p for p in parts)
    names = [p.name for p in chosen]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"part {name!r} of the judgement is named twice")
    return chosen
