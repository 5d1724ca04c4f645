"""`calogen evaluate` by the protocol of the CaloChallenge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calogen.cli.judging import COMPETITION_REPEATS, Judged, Options, about, training_bar
from calogen.cli.samples import Files, Sample

if TYPE_CHECKING:
    from calogen.data.voxels import Voxels
    from calogen.evaluate.findings import Findings
    from calogen.evaluate.incidents import Matched
    from calogen.evaluate.voxel_classifiers import VoxelClassifiers
    from calogen.evaluate.voxel_sample import VoxelSample

INCIDENT_INPUTS = 1
"""So many of the challenge's high-level inputs, the first, are of the incident particle."""


def judge_voxels(files: Files, options: Options) -> Judged:
    """Judge all models by their voxels; every file is read once, but twice and more where spectra are matched.

    Raises:
        ValueError: samples that cannot be judged.
    """
    from calogen.evaluate.incidents import cautions
    from calogen.evaluate.judgement import Comparison

    truth = None if options.match else _observed(files.truth, options)
    training = None if files.training is None else _observed(files.training, options, whole=False)
    comparisons, observed = [], {}
    for model in files.models:
        if truth is None:
            matched = _matched(model, files.truth, options)
            made, true = _observed(model, options, matched.generated), _observed(files.truth, options, matched.truth)
            remarks: tuple[str, ...] = (matched.text,)
        else:
            made, true, remarks = _observed(model, options), truth, ()
        with about(model, files.truth):
            findings = _findings(model.label, made, true, training, options)
        warnings = (*remarks, *cautions(made.features, true.features))
        first = replace(findings[0], notes=tuple(n for n in findings[0].notes if n not in warnings))
        comparisons.append(
            Comparison(
                model.label,
                model.n_showers,
                (first, *findings[1:]),
                provenance=model.provenance(),
                warnings=warnings,
            )
        )
        observed[model.label] = made
    # Matched models have a truth each: nothing that they could compete for together.
    return Judged(tuple(comparisons), None if truth is None else _competition(observed, truth, options))


def _findings(
    label: str, made: VoxelSample, true: VoxelSample, training: VoxelSample | None, options: Options
) -> tuple[Findings, ...]:
    from calogen.evaluate.calochallenge import REPLICAS, judge_observed
    from calogen.evaluate.copies import copies
    from calogen.evaluate.voxel_sample import VoxelPair

    found = judge_observed(made, true, seed=options.seed)
    if classifiers := _classifiers(options):
        pair = VoxelPair.of(made, true, seed=options.seed, replicas=REPLICAS)
        with training_bar(label, options, classifiers.trainings) as bar:
            found = (*found, *replace(classifiers, progress=bar).findings(pair))
    known = None if training is None else _observables(training)
    return (*found, copies(_observables(made), _observables(true), known, seed=options.seed))


def _classifiers(options: Options) -> VoxelClassifiers | None:
    from calogen.evaluate.voxel_classifiers import VoxelClassifiers

    return None if options.classifier == "none" else VoxelClassifiers(options.classifier, options.repeats)


def _competition(models: dict[str, VoxelSample], truth: VoxelSample, options: Options) -> Findings | None:
    from calogen.evaluate.voxel_classifiers import competition

    if options.classifier == "none" or len(models) < 2:
        return None
    repeats = min(options.repeats, COMPETITION_REPEATS)
    with training_bar("of all models", options, repeats) as bar:
        return competition(models, truth, options.classifier, repeats=repeats, seed=options.seed, progress=bar)


def _observables(sample: VoxelSample) -> NDArray[np.float32]:
    from calogen.evaluate.high_level import classifier_features

    return classifier_features(sample.features).values[:, INCIDENT_INPUTS:]


# ---- reading ----


def _observed(
    sample: Sample, options: Options, rows: NDArray[np.int64] | None = None, *, whole: bool = True
) -> VoxelSample:
    """A sample, or some of its showers (ascending); with whole showers for the classifiers, if these are wanted."""
    from calogen.evaluate.voxel_sample import KEPT_SHOWERS, observe_voxels

    classifiers = _classifiers(options) if whole else None
    keep = KEPT_SHOWERS if classifiers is None else classifiers.keep

    batches = sample.raw(quiet=options.quiet)
    with about(sample):
        chosen = batches if rows is None else _rows(batches, rows)
        return observe_voxels(chosen, sample.label, seed=options.seed, keep=keep)


def _rows(batches: Iterator[Voxels], rows: NDArray[np.int64]) -> Iterator[Voxels]:
    done = 0
    for batch in batches:
        here = rows[(rows >= done) & (rows < done + len(batch))] - done
        done += len(batch)
        if here.size:
            yield batch[here]


def _matched(model: Sample, truth: Sample, options: Options) -> Matched:
    """Showers of both with one spectrum of incident energy."""
    from calogen.evaluate.incidents import match_incident

    made, true = (np.concatenate([b.incident.energy for b in s.raw(quiet=options.quiet)]) for s in (model, truth))
    with about(model, truth):
        return match_incident(made, true, options.seed)
