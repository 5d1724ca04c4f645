"""The study: one tokenizer, then all runs of the grid, the cheap ones first; what is done is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calogen.data.batches import split
from calogen.data.showers import Showers
from calogen.evaluate.scaling_scores import DistanceJudge, RunScore, ScalingStudy, fitted_laws, unigram_entropy
from calogen.overrides import to_dict
from calogen.provenance import provenance
from calogen.scaling_study.request import Request
from calogen.scaling_study.runs import SCORE, Common, Run, part_of, scored
from calogen.systems.omnijet import OmniJet, OmniJetConfig
from calogen.systems.token_generator import TokenStage, encoded
from calogen.train import Plan, TrainingError, fit
from calogen.train.checkpoint import write_json
from calogen.train.fit import fingerprint
from calogen.train.identity import require_same

SETTINGS, TOKENIZER, RUNS = "settings.json", "tokenizer", "runs"
"""What a study keeps in its folder."""

LEAST_SHOWERS = 32
"""That a run learns from, as `calogen train` asks for."""

Tell = Callable[[ScalingStudy], None]
"""Told of all runs so far after each."""


def study(
    config: OmniJetConfig,
    plans: Mapping[str, Plan],
    showers: Showers,
    validation: float | Showers,
    truth: Showers,
    request: Request,
    *,
    folder: Path,
    start: OmniJet | None = None,
    names: tuple[str, str] = ("data", "truth"),
    tell: Tell | None = None,
    quiet: bool = True,
) -> ScalingStudy:
    """Train and judge all runs of a grid.

    Args:
        config: of the tokenizer, and what the sizes of generators are made like.
        plans: of all stages; that of the generator is each run's.
        showers: to learn from.
        validation: showers that losses are of, the same for all runs; or the share of `showers` held out for it.
        truth: Geant4's showers that drawn ones are compared with.
        request: the grid.
        folder: of what is done so far: the same study goes on there.
        start: a fitted system whose tokenizer is taken, instead of fitting one.
        names: of the data and the truth.
        tell: called after each run.
        quiet: no progress bars.

    Raises:
        ValueError: what cannot be studied, or another study in the folder, naming what differs.
    """
    for size in request.sizes:
        size.of(config.network)
    if isinstance(validation, Showers):
        train, held_out = showers, validation
    else:
        cut = split(len(showers), validation=validation, seed=request.seed)
        train, held_out = showers[cut.train], showers[cut.validation]
    truth = _chosen(truth, request)
    _require(train, held_out, truth, request, plans[TokenStage.name])
    tokenized = _untrained(config, train, request, start)
    tokenized.domain.check(truth.incident)
    _open(folder, config, plans, (train, held_out, truth), request, start)
    _tokenize(tokenized, plans, train, held_out, folder, quiet)
    judge = None
    if request.showers:
        judge = DistanceJudge(truth, held_out, paired=tokenized.conditioned, seed=request.seed)
    codes, held_codes = encoded(tokenized.tokens, train), encoded(tokenized.tokens, held_out)
    common = Common(tokenized, train, codes, held_out, held_codes, truth, judge, plans[TokenStage.name], request)
    about = {
        "system": tokenized.name,
        "detector": tokenized.detector.name,
        "data": names[0],
        "truth": names[1],
        "codes": tokenized.tokens.codes,
        "showers": len(train),
        "unigram": unigram_entropy(codes.codes, len(train)),
        "provenance": provenance(
            request=to_dict(request),
            plan=to_dict(common.plan),
            validation_showers=len(held_out),
            drawn=len(truth),
            threads=torch.get_num_threads(),
        ),
    }
    runs = [Run(size, fraction) for fraction in sorted(request.fractions) for size in request.sizes]
    runs.sort(key=lambda run: run.size.width**2 * run.size.blocks)
    done, failed = list[RunScore](), list[str]()
    for run in runs:
        known = (folder / RUNS / run.name / SCORE).is_file()
        try:
            done.append(scored(run, common, folder / RUNS / run.name, quiet))
        except (TrainingError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
            failed.append(f"{run.name} failed, and is tried again when the study goes on: {_one_line(error)}")
        if tell is not None and done and not known:
            tell(_made(about, done, failed, len(runs)))
    if not done:
        raise ValueError(f"no run could be finished; {failed[0]}")
    return _made(about, done, failed, len(runs))


def _made(about: Mapping[str, Any], done: list[RunScore], failed: list[str], planned: int) -> ScalingStudy:
    both, compute = fitted_laws(done)
    cut = "; ".join(f"{r.cut} of {r.label}" for r in done if r.cut)
    notes = [*failed, *([f"drawn showers without an end, which were cut: {cut}"] if cut else [])]
    return ScalingStudy(**about, planned=planned, runs=tuple(done), both=both, compute=compute, notes=tuple(notes))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _chosen(truth: Showers, request: Request) -> Showers:
    """As many as are drawn, from all of the file: it may be in order."""
    return truth[np.sort(np.random.default_rng([request.seed, 23]).permutation(len(truth))[: request.showers])]


def _require(train: Showers, held_out: Showers, truth: Showers, request: Request, plan: Plan) -> None:
    """Refuse what cannot be studied, before anything is trained."""
    for what, showers in (("the truth", truth), ("validation showers", held_out)):
        if showers.detector != train.detector:
            raise ValueError(f"{what}: of detector {showers.detector.name!r}, the data of {train.detector.name!r}")
    if not len(held_out):
        raise ValueError("no validation showers: losses are of these; hold some out")
    if request.showers > len(truth):
        raise ValueError(f"the truth has {len(truth)} showers; {request.showers} are to be drawn for its particles")
    for fraction in request.fractions:
        number = len(part_of(len(train), fraction, request.seed))
        if number < max(LEAST_SHOWERS, plan.batch_size):
            raise ValueError(
                f"data fraction {fraction:g} of {len(train)} showers are {number}; a run needs at least "
                f"{max(LEAST_SHOWERS, plan.batch_size)} (a batch has {plan.batch_size}): give larger fractions"
            )


def _open(
    folder: Path,
    config: OmniJetConfig,
    plans: Mapping[str, Plan],
    showers: tuple[Showers, Showers, Showers],
    request: Request,
    start: OmniJet | None,
) -> None:
    """Begin in a folder, or go on with the same study."""
    train, held_out, truth = showers
    now = {
        "config": to_dict(config),
        "plans": to_dict(plans),
        "training_showers": {"number": len(train), "hash": fingerprint(train)},
        "validation_showers": {"number": len(held_out), "hash": fingerprint(held_out)},
        "truth_showers": {"number": len(truth), "hash": fingerprint(truth)},
        "sizes": [size.name for size in request.sizes],
        "data_fractions": list(request.fractions),
        "seed": request.seed,
        "from": None if start is None else _hash(start),
    }
    file = folder / SETTINGS
    if file.is_file():
        require_same(json.loads(file.read_text(encoding="utf-8")), json.loads(json.dumps(now)), folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, now)


def _hash(start: OmniJet) -> str:
    tensors = [
        (n, t.cpu().numpy()) for name in (TOKENIZER, "groups") for n, t in start.parts()[name].state_dict().items()
    ]
    return fingerprint(tuple(tensors))


def _untrained(config: OmniJetConfig, train: Showers, request: Request, start: OmniJet | None) -> OmniJet:
    """A system that knows the range of particles, and the tokenizer of a state if there is one.

    Raises:
        ValueError: a detector, sizes or particles that the system is not for.
    """
    config = replace(config, network=replace(config.network, drafts=0), ranked=False)
    system = OmniJet.create(config, train.detector, seed=request.seed)
    if start is not None:
        for name in (TOKENIZER, "groups"):
            system.parts()[name].load_state_dict(start.parts()[name].state_dict())
        system.taken = True
    system.learn_range(train)
    return system


def _tokenize(
    system: OmniJet, plans: Mapping[str, Plan], train: Showers, held_out: Showers, folder: Path, quiet: bool
) -> None:
    """Fit all but the generator; of a tokenizer that was taken, what is learned of particles and energies."""
    stages = [stage for stage in system.stages() if stage.name != TokenStage.name]
    fit(
        stages,
        train,
        held_out,
        {stage.name: plans[stage.name] for stage in stages},
        run_dir=folder / TOKENIZER,
        identity={"system": system.name, "config": system.config, "from": _hash(system) if system.taken else None},
        progress=not quiet,
    )
