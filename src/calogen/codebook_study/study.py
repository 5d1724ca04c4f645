"""The study: for every size the tokenizer alone is fitted, the same way each time, and measured on unseen showers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from calogen.codebook_study.coding import coded, usage
from calogen.codebook_study.folder import MEASURED, RUNS, Sample, open_folder
from calogen.codebook_study.request import LEAST_SHOWERS, Request
from calogen.data.showers import Showers
from calogen.detector.geometry import CartesianCells
from calogen.evaluate.codebook_scores import CodebookScore, CodebookStudy, score
from calogen.overrides import to_dict
from calogen.progress import progress_bar
from calogen.provenance import provenance
from calogen.systems.domain import Domain
from calogen.systems.hit_tokenizer import HitTokenizer
from calogen.systems.hit_tokenizer_stage import TokenizerStage
from calogen.systems.system import System
from calogen.train import StageReport, fit
from calogen.train.checkpoint import write_json
from calogen.train.identity import fingerprint
from calogen.train.run import CHECKPOINT_SECONDS
from calogen.train.streams import seeded


class Given(NamedTuple):
    """A fitted system whose tokenizer is measured as it is, and its name on the page."""

    name: str
    system: System


def study(
    request: Request,
    sample: Sample,
    given: Sequence[Given] = (),
    *,
    folder: Path,
    truth_name: str = "truth",
    device: str | torch.device = "cpu",
    overwrite: bool = False,
    quiet: bool = True,
    say: Callable[[str], object] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> CodebookStudy:
    """Fit and score all sizes, and score given states.

    Args:
        request: what is studied.
        sample: showers.
        given: states to be measured beside.
        folder: of the study.
        truth_name: of the truth's file.
        device: to compute on.
        overwrite: delete what another study has kept there.
        quiet: no progress bars.
        say: told in a line what comes next.
        checkpoint_seconds: how often a fit stores where it is.

    Raises:
        ValueError: a folder of another study, or showers that cannot be studied.
    """
    truth = _chosen(sample.truth, request.showers, request.seed)
    require(request, sample, truth, given)
    open_folder(folder, request, sample, truth, overwrite)
    tell = say or (lambda _: None)
    scores = []
    for size in sorted(request.sizes):
        file = folder / MEASURED / f"{size}.json"
        if not file.is_file():
            tell(f"{size:,} codes")
            tokenizer, report = _fitted(request, size, sample, folder, device, quiet, checkpoint_seconds)
            fitting = _how(report, tokenizer)
            made = _scored(tokenizer, f"{size:,}", sample.train, truth, request, fitting, device, quiet)
            write_json(file, made.to_dict())
        scores.append(_read(file))
    for one in given:
        tokenizer = tokenizer_of(one)
        weights = [(name, tensor.cpu().numpy()) for name, tensor in tokenizer.state_dict().items()]
        file = folder / MEASURED / f"state-{fingerprint((tokenizer.config, weights))}.json"
        if not file.is_file():
            tell(one.name)
            made = _scored(tokenizer, one.name, sample.train, truth, request, None, device, quiet)
            write_json(file, made.to_dict())
        scores.append(replace(_read(file), name=one.name))
    return CodebookStudy(
        system=request.system,
        detector=truth.detector.name,
        truth=truth_name,
        showers=len(truth),
        scores=tuple(scores),
        targets=dict(request.targets),
        notes=tuple(_notes(scores)),
        provenance=provenance(
            tokenizer=to_dict(request.code),
            plan=to_dict(request.plan),
            seed=request.seed,
            training_showers=0 if sample.train is None else len(sample.train),
            validation_showers=0 if sample.held_out is None else len(sample.held_out),
        ),
    )


def require(request: Request, sample: Sample, truth: Showers, given: Sequence[Given]) -> None:
    """Refuse showers that cannot be studied.

    Raises:
        ValueError: one of them, in one line.
    """
    if not request.sizes and not given:
        raise ValueError("nothing to study: give sizes, or states")
    if len(truth) < LEAST_SHOWERS:
        raise ValueError(f"the truth has {len(truth)} showers; errors of their hits need at least {LEAST_SHOWERS}")
    if sample.train is None:
        if request.sizes:
            raise ValueError("no showers to learn from: codebooks of these sizes cannot be trained")
    else:
        if not len(sample.train):
            raise ValueError("there are no training showers: give a file that has some")
        if sample.train.detector != truth.detector:
            raise ValueError(
                f"the truth is of detector {truth.detector.name!r}, the training showers are of "
                f"{sample.train.detector.name!r}: convert them to the same cells"
            )
        seen = seen_before(sample.train, truth)
        if seen:
            raise ValueError(f"{seen} of the truth's {len(truth)} showers are training showers; give unseen ones")
        domain = Domain()
        domain.fit(sample.train.incident)
        domain.check(truth.incident)
    for one in given:
        if one.system.detector != truth.detector:
            raise ValueError(f"{one.name}: trained for {one.system.detector.name!r}, truth is {truth.detector.name!r}")
        tokenizer_of(one)
        for part in one.system.parts().values():
            if isinstance(part, Domain):
                part.check(truth.incident)


def seen_before(train: Showers, truth: Showers) -> int:
    """How many showers of the truth are among the training showers: the same particle, points and energies."""
    return len(_marks(train) & _marks(truth))


def _marks(showers: Showers) -> set[tuple[float, ...]]:
    """What tells showers that have points apart. Sums are taken in the order of points: the same for the same ones."""
    n = len(showers)
    sums = [np.bincount(showers.shower_index, weights=w, minlength=n) for w in (showers.energy, showers.x, showers.y)]
    rows = np.column_stack([showers.incident.energy, showers.counts, *sums])
    return set(map(tuple, rows[showers.counts > 0].tolist()))


def tokenizer_of(given: Given) -> HitTokenizer:
    """The tokenizer of a fitted system.

    Raises:
        ValueError: it has none.
    """
    for part in given.system.parts().values():
        if isinstance(part, HitTokenizer):
            return part
    raise ValueError(f"{given.name}: a state of {given.system.name!r}, which writes no hits as codes")


def _chosen(truth: Showers, number: int, seed: int) -> Showers:
    """As many as are asked for, from all of the file: it may be in order."""
    return truth[np.sort(np.random.default_rng([seed, 29]).permutation(len(truth))[:number])]


def _fitted(
    request: Request,
    size: int,
    sample: Sample,
    folder: Path,
    device: str | torch.device,
    quiet: bool,
    checkpoint_seconds: float,
) -> tuple[HitTokenizer, StageReport]:
    """The tokenizer with so many codes; its initial weights and random numbers are those of the whole system."""
    if sample.train is None:
        raise ValueError(f"no showers to learn {size} codes from")
    with seeded(request.seed, request.system, "initial weights"):
        tokenizer = HitTokenizer(request.code_of(size), sample.train.detector)
    stage = TokenizerStage(tokenizer, request.plan)
    (report,) = fit(
        [stage],
        sample.train,
        sample.held_out,
        run_dir=folder / RUNS / str(size),
        device=device,
        progress=not quiet,
        identity={"system": request.system, "code": request.code_of(size), "seed": request.seed},
        checkpoint_seconds=checkpoint_seconds,
    )
    return tokenizer, report


def _how(report: StageReport, tokenizer: HitTokenizer) -> dict[str, Any]:
    parameters = sum(p.numel() for p in tokenizer.parameters())
    return {k: v for k, v in asdict(report).items() if k not in ("name", "shards")} | {"parameters": parameters}


def _scored(
    tokenizer: HitTokenizer,
    name: str,
    train: Showers | None,
    truth: Showers,
    request: Request,
    training: dict[str, Any] | None,
    device: str | torch.device,
    quiet: bool,
) -> CodebookScore:
    """Measured on the truth, and codes counted on as many training showers."""
    tokenizer.to(device)
    own = None if train is None else _chosen(train, len(truth), request.seed)
    total = len(truth) + (0 if own is None else len(own))
    with progress_bar("measure", total, "showers", shown=not quiet) as advance:
        hits = coded(tokenizer, truth, batch_size=request.batch_size, advance=advance)
        used = None if own is None else usage(tokenizer, own, batch_size=request.batch_size, advance=advance)
    cells = truth.detector.layers[0].cells
    if not isinstance(cells, CartesianCells):
        raise TypeError(f"a tokenizer of hits in a box, but cells are {type(cells).__name__}")
    return score(
        hits,
        tokenizer.vocabulary,
        cells.pitch_mm,
        name=name,
        seed=request.seed,
        training_usage=None if used is None else (used.share, used.perplexity),
        training=training,
    )


def _read(file: Path) -> CodebookScore:
    return CodebookScore.from_dict(json.loads(file.read_text(encoding="utf-8")))


def _notes(scores: Sequence[CodebookScore]) -> list[str]:
    steps = {s.training["steps"] for s in scores if s.training is not None}
    if len(steps) > 1:
        return [f"trainings took from {min(steps):,} to {max(steps):,} steps: sizes are not compared on equal terms"]
    return []
