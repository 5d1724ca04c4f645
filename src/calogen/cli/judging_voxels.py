"""`calogen evaluate` by the protocol of the CaloChallenge."""

from __future__ import annotations

from calogen.cli.judging import Judged, Options, about
from calogen.cli.samples import Files


def judge_voxels(files: Files, options: Options) -> Judged:
    """Judge all models by their voxels; every file is read once.

    Raises:
        ValueError: samples that cannot be judged.
    """
    from calogen.evaluate.calochallenge import judge_observed, observe_voxels
    from calogen.evaluate.judgement import Comparison

    with about(files.truth):
        true = observe_voxels(files.truth.raw(quiet=options.quiet), "truth", seed=options.seed)
    comparisons = []
    for number, model in enumerate(files.models, start=1):
        with about(model):
            made = observe_voxels(model.raw(quiet=options.quiet), "generated sample", seed=options.seed + number)
        with about(model, files.truth):
            findings = judge_observed(made, true, seed=options.seed)
        comparisons.append(Comparison(model.label, model.n_showers, findings, provenance=model.provenance()))
    return Judged(tuple(comparisons))
