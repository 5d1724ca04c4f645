"""The one training entry: fit the stages of any system in order, resumable to the bit, on one or more devices."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from calogen.overrides import nearest
from calogen.train.identity import fingerprint as fingerprint
from calogen.train.identity import identity_of
from calogen.train.learn import learn
from calogen.train.parallel import Group, device_of, run_in_processes
from calogen.train.plan import Plan
from calogen.train.report import StageReport
from calogen.train.run import CHECKPOINT_SECONDS, Run
from calogen.train.stage import LearnedStage, SolvedStage, Stage
from calogen.train.streams import seed_torch, torch_untouched

if TYPE_CHECKING:
    from calogen.data.showers import Showers


def fit(
    stages: Sequence[Stage],
    train: Showers,
    validation: Showers | None = None,
    plans: Mapping[str, Plan] | None = None,
    *,
    run_dir: str | Path,
    device: str | torch.device = "cpu",
    devices: int = 1,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool = True,
    identity: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> tuple[StageReport, ...]:
    """Fit all stages in order; afterwards each stage's model (on the CPU) has its final weights.

    `plans` by stage name, else each stage's own. Everything is stored in `run_dir`: a fit killed at any moment and
    called again ends with the bits of an uninterrupted one (same machine, thread count, plans and data). `devices` > 1
    starts that many processes, each with part of every batch; the result is that of one process with
    `shards=devices` up to round-off. `identity` adds to what must be equal for a run to be resumed.

    Raises ValueError if `run_dir` holds another fit, or any fit with `resume=False` (and no `overwrite`), and
    for plans without a stage; TrainingError (of calogen.train) if a loss stops being finite. A fit that fails before
    its first checkpoint leaves nothing in `run_dir`, and one that was killed so early does not stand in the way.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KEPT_PRIMITIVES)
    resolved = _plans(stages, plans)
    for stage in stages:  # some draw more than their batches from their plan's seed
        stage.plan = resolved[stage.name]
    run = Run(Path(run_dir), checkpoint_seconds)
    if run.exists() and overwrite:
        run.clear()
    elif run.exists() and not resume:
        raise ValueError(f"{run_dir} holds a fit: resume it, use another directory, or --overwrite")
    fixed = json.loads(json.dumps(identity_of(stages, train, validation, resolved, devices, identity or {})))
    run.require_same(fixed)
    job = _Job(list(stages), train, validation, resolved, run.folder, checkpoint_seconds, str(device), progress, fixed)
    try:
        if devices > 1:
            run_in_processes(_fit_all, (job,), devices, torch.device(device))
        else:
            _fit_all(job, group=Group())
    except Exception:
        run.forget()
        raise
    return tuple(_take_result(run, stage) for stage in stages)


KEPT_PRIMITIVES = "64"
"""Ragged batches have other shapes at every step; of its own, oneDNN keeps the code it made for 1,024 of them: 2 GB. It
reads this when it makes the first, so a process that has computed before keeps what it had."""


@dataclasses.dataclass
class _Job:
    """What every process of a fit is told."""

    stages: list[Stage]
    train: Showers
    validation: Showers | None
    plans: dict[str, Plan]
    folder: Path
    checkpoint_seconds: float
    device: str
    progress: bool
    identity: dict[str, Any]


def _plans(stages: Sequence[Stage], plans: Mapping[str, Plan] | None) -> dict[str, Plan]:
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError(f"stage names must differ: {', '.join(names)}")
    for name in plans or {}:
        if name not in names:
            raise ValueError(f"a plan for an unknown stage {name!r}: {nearest(name, names)}")
    return {stage.name: (plans or {}).get(stage.name, stage.plan) for stage in stages}


def _fit_all(job: _Job, *, group: Group) -> None:
    """The work of one process."""
    run = Run(job.folder, job.checkpoint_seconds)
    models = {stage.name: stage.model for stage in job.stages}
    if group.leads:
        run.open(job.identity, models)
    try:
        group.wait()
        run.load_initial(models)
        for stage in job.stages:
            _fit_one(stage, job, run, group)
    finally:
        run.close()


def _fit_one(stage: Stage, job: _Job, run: Run, group: Group) -> None:
    device = device_of(torch.device(job.device), group)
    plan = job.plans[stage.name]
    report = run.finished(stage.name)
    if report is None:
        if isinstance(stage, LearnedStage):
            learn(
                stage,
                job.train,
                job.validation,
                plan,
                run=run,
                device=device,
                group=group,
                progress=job.progress,
            )
        elif isinstance(stage, SolvedStage):
            _solve(stage, job, plan, run, device, group)
        else:
            raise TypeError(f"stage {stage.name!r} is neither a LearnedStage nor a SolvedStage")
        report = run.finished(stage.name)
    if report is None:
        raise RuntimeError(f"stage {stage.name!r} left no result in {run.folder}")
    stage.model.to(device)
    run.load_finished(report, stage.model)
    stage.model.eval()


def _solve(stage: SolvedStage, job: _Job, plan: Plan, run: Run, device: torch.device, group: Group) -> None:
    """The leader solves and stores; the others take the result from there."""
    if group.leads:
        start = time.monotonic()
        with torch_untouched():
            seed_torch(plan.seed, stage.name, "solve")
            stage.model.to(device)
            stage.prepare(job.train)
            stage.solve(job.train, job.validation)
        numbers = sum(tensor.numel() for tensor in stage.model.state_dict().values())
        report = StageReport.without_steps(stage.name, "solved", time.monotonic() - start, numbers)
        run.finish(report, best={}, last=stage.model.state_dict())
    group.wait()


def _take_result(run: Run, stage: Stage) -> StageReport:
    report = run.finished(stage.name)
    if report is None:
        raise RuntimeError(f"stage {stage.name!r} left no result in {run.folder}")
    stage.model.to("cpu")
    run.load_finished(report, stage.model)
    stage.model.eval()
    return report
