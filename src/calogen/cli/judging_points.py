"""`calogen evaluate` by the point-cloud protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from calogen.cli.judging import COMPETITION_REPEATS, Judged, Options, about, competing, training_bar
from calogen.cli.samples import Files, Sample

if TYPE_CHECKING:
    from calogen.evaluate.classifier_training import Epoch
    from calogen.evaluate.findings import Findings
    from calogen.evaluate.observables import Observed
    from calogen.evaluate.parts import Collected, Part


def judge_points(files: Files, options: Options) -> Judged:
    """Judge all models by their points; every file is read once.

    Raises:
        ValueError: unknown parts, or samples that cannot be judged.
    """
    from calogen.evaluate.judgement import Comparison
    from calogen.evaluate.points import judge_collected

    training = None if files.training is None else _collected(files.training, (), options)
    names = _names(options)
    true = _collected(files.truth, _parts(names, options, training), options)
    floor = None if files.floor is None else _collected(files.floor, (), options).observed
    comparisons, observed = [], {}
    for model in files.models:
        made = _collected(model, _parts(names, options, training), options)
        trainings = options.repeats * sum(n in _classifiers(options) for n in names)
        with training_bar(model.label, options, trainings) as bar, about(model, files.truth):
            parts = _parts(names, options, training, bar)
            judged = judge_collected(made, true, seed=options.seed, parts=parts, floor=floor, match=options.match)
        comparisons.append(
            Comparison(model.label, model.n_showers, judged.findings, judged.evaluation, model.provenance())
        )
        observed[model.label] = made.observed
    classified = any(name in _classifiers(options) for name in names)
    return Judged(tuple(comparisons), _competition(files, observed, true.observed, options) if classified else None)


def _competition(files: Files, models: dict[str, Observed], truth: Observed, options: Options) -> Findings | None:
    from calogen.evaluate.classifier_training import MIN_SHOWERS
    from calogen.evaluate.shower_classifier import shower_competition

    size = options.classifier
    if size == "none" or len(truth) < 2 * MIN_SHOWERS or not competing(files.models, options, MIN_SHOWERS):
        return None
    repeats = min(options.repeats, COMPETITION_REPEATS)
    with training_bar("of all models", options, repeats) as bar:
        return shower_competition(models, truth, size, repeats=repeats, seed=options.seed, progress=bar)


def _collected(sample: Sample, parts: Sequence[Part], options: Options) -> Collected:
    from calogen.evaluate.collect import collect

    with about(sample):
        return collect(sample.batches(quiet=options.quiet), parts, what=sample.label, seed=options.seed)


def _names(options: Options) -> tuple[str, ...]:
    """The parts that are asked for; without classifiers where these are not wanted.

    Raises:
        ValueError: an unknown part, or a classifier by name and none at all.
    """
    from calogen.evaluate.points import PARTS, parts_named

    if options.parts is None:
        return tuple(n for n in PARTS if options.classifier != "none" or n not in _classifiers(options))
    parts_named(options.parts)
    if options.classifier == "none" and (named := [n for n in options.parts if n in _classifiers(options)]):
        raise ValueError(f"--parts {named[0]} and --classifier none exclude each other; leave one out")
    return options.parts


def _classifiers(options: Options, bar: Callable[[Epoch], None] | None = None) -> dict[str, Part]:
    from calogen.evaluate.shower_classifier import shower_classifiers

    size = "fast" if options.classifier == "none" else options.classifier
    return {c.name: c for c in shower_classifiers(size, options.repeats, bar)}


def _parts(
    names: Sequence[str], options: Options, training: Collected | None, bar: Callable[[Epoch], None] | None = None
) -> tuple[Part, ...]:
    from calogen.evaluate.copies import Copies
    from calogen.evaluate.points import parts_named

    own: dict[str, Part] = _classifiers(options, bar) | {Copies.name: Copies(training)}
    return tuple(own.get(name) or parts_named((name,))[0] for name in names)
