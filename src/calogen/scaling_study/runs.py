"""One run of the grid: a generator of one size, trained on one share of the data, and its score beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.showers import Showers
from calogen.evaluate.scaling_scores import CurvePoint, DistanceJudge, RunScore
from calogen.overrides import to_dict
from calogen.scaling_study.counting import Spent, parameters_of, spent
from calogen.scaling_study.request import Request, Size
from calogen.systems.omnijet import OmniJet
from calogen.systems.token_generator import Codes, TokenStage
from calogen.train import Plan, StageReport, fit
from calogen.train.checkpoint import write_json
from calogen.train.fit import fingerprint

SCORE, STATE = "score.json", "state.safetensors"
SHARED = frozenset({"domain", "tokenizer", "groups", "energies", "counts"})
"""Parts of the system that all runs have in common."""


@dataclass(frozen=True)
class Common:
    """What all runs share: the fitted tokenizer, the showers, as codes too, and the judge (None: nothing is drawn)."""

    tokenized: OmniJet
    train: Showers
    train_codes: Codes
    validation: Showers
    validation_codes: Codes
    truth: Showers
    judge: DistanceJudge | None
    plan: Plan
    request: Request


@dataclass(frozen=True)
class Run:
    """A size and a share of the data."""

    size: Size
    fraction: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.size.name}-{self.fraction:g}"


class TimedStage(TokenStage):
    """The generator's stage, whose log tells the processor time."""

    def prepare(self, showers: Showers) -> None:
        """See `TokenStage`; the clock starts."""
        super().prepare(showers)
        self.since = time.process_time()

    def remarks(self) -> Mapping[str, float]:
        """CPU seconds since the last line, of all threads."""
        before, self.since = self.since, time.process_time()
        return {"cpu_seconds": round(self.since - before, 3)}


def part_of(n: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Which of n showers are a share of them, ascending; a smaller share is part of a larger one.

    >>> bool(np.isin(part_of(100, 0.1, 3), part_of(100, 0.5, 3)).all())
    True
    """
    order = np.random.default_rng([seed, 29]).permutation(n)
    return np.sort(order[: max(1, round(fraction * n))])


def some(codes: Codes, part: NDArray[np.int64]) -> Codes:
    """The codes of some of the showers.

    >>> some(Codes(np.array([1, 2, 3]), np.array([0, 1, 1, 3])), np.array([0, 2])).offsets.tolist()
    [0, 1, 3]
    """
    counts = np.diff(codes.offsets)[part]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    at = np.repeat(codes.offsets[part] - offsets[:-1], counts) + np.arange(offsets[-1])
    return Codes(codes.codes[at], offsets)


def scored(run: Run, common: Common, folder: Path, quiet: bool) -> RunScore:
    """Train a run, go on with it, or read what it came to.

    Raises:
        TrainingError: the loss is not finite.
        ValueError: another run is in the folder.
    """
    file = folder / SCORE
    if file.is_file():
        return RunScore.from_dict(json.loads(file.read_text(encoding="utf-8")))
    own = common.tokenized.config
    config = replace(own, network=run.size.of(own.network))
    system = OmniJet.create(config, common.tokenized.detector, seed=common.request.seed)
    for name in SHARED & system.parts().keys():
        system.parts()[name].load_state_dict(common.tokenized.parts()[name].state_dict())
    stage = TimedStage(system.generator, system.tokens, common.plan)
    part = part_of(len(common.train), run.fraction, common.request.seed)
    showers = common.train[part]
    for known, codes in ((showers, some(common.train_codes, part)), (common.validation, common.validation_codes)):
        stage.held[id(known)] = (known, codes)
    identity = {"system": system.name, "config": config, "detector": fingerprint(system.detector)}
    plans = {stage.name: common.plan}
    (report,) = fit([stage], showers, common.validation, plans, run_dir=folder, identity=identity, progress=not quiet)
    score = _trained(run, system, stage, showers, report, folder)
    if common.judge is not None:
        score = _judged(score, system, common, common.judge)
    system.provenance = {
        "plans": to_dict(plans),
        "stages": [asdict(report)],
        "data": {"showers": len(showers), "training": len(showers), "hash": fingerprint(showers)},
    }
    system.save(folder / STATE, overwrite=True)
    write_json(file, asdict(score))
    return score


def _trained(
    run: Run, system: OmniJet, stage: TimedStage, showers: Showers, report: StageReport, folder: Path
) -> RunScore:
    network, counts = system.generator.network, stage.counts(showers)
    cost = spent(network, counts, stage.plan, stage.name, report.steps)
    lines = _lines(folder / "logs" / f"{stage.name}.jsonl")
    parameters = parameters_of(network)
    if report.best_loss is None or report.best_step is None:
        raise ValueError(f"{run.name}: no validation, so no loss to compare; give validation showers")
    return RunScore(
        size=run.size.name,
        fraction=run.fraction,
        width=run.size.width,
        blocks=run.size.blocks,
        parameters=parameters.without_vocabulary,
        all_parameters=parameters.all,
        showers=len(showers),
        tokens=int(counts.sum()),
        steps=report.steps,
        tokens_seen=int(cost.tokens[-1]),
        flops=float(cost.flops[-1]),
        cpu_seconds=round(sum(float(line["cpu_seconds"]) for line in lines), 3),
        loss=report.best_loss,
        best_step=report.best_step,
        curve=tuple(_curve(lines, cost)),
    )


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _curve(lines: list[dict[str, Any]], cost: Spent) -> list[CurvePoint]:
    points, cpu = [], 0.0
    for line in lines:
        cpu += line["cpu_seconds"]
        if line["validation_loss"] is not None:
            k = line["step"] - 1
            done = int(cost.tokens[k]), float(cost.flops[k]), round(cpu, 3)
            points.append(CurvePoint(line["step"], *done, line["validation_loss"]))
    return points


def _judged(score: RunScore, system: OmniJet, common: Common, judge: DistanceJudge) -> RunScore:
    """Draw showers for the particles of the truth; one that does not end stays as it is at the limit."""
    begun, truth = time.process_time(), common.truth
    drawn = system.draw(truth.incident, seed=common.request.seed, batch_size=common.request.batch_size, cut=True)
    showers = system.showers_of(drawn, truth.incident)
    seconds = time.process_time() - begun
    found = judge.score(showers)
    return replace(
        score,
        distance=found.value,
        distance_error=found.error,
        distance_floor=found.floor,
        distance_floor_error=found.floor_error,
        cut=int((~drawn.complete).sum()),
        draw_cpu_seconds=round(seconds, 3),
    )
