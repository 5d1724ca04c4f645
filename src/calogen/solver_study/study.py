"""The study: every solver draws showers for the particles of the truth, out of the same noise, and a classifier judges.

While one flow is studied the others keep their default solvers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from calogen.data.showers import Showers
from calogen.evaluate.classifier_training import MIN_SHOWERS
from calogen.evaluate.solver_scores import Floor, HighLevelJudge, SolverScore, SolverStudy
from calogen.methods.adaptive import UnreachedToleranceError
from calogen.methods.counting import CountedSolver
from calogen.provenance import provenance
from calogen.solver_study.flows import Setting, flows_of, settings_of
from calogen.solver_study.kept import kept, open_folder
from calogen.solver_study.request import BESPOKE, SOLVERS, Request
from calogen.systems.domain import Domain
from calogen.systems.system import System

Progress = Callable[[int, int], None]
"""Called with (showers done, all), over all solvers."""

LEAST_TRAINING = 10
"""A tenth of them is held out."""


def study(
    system: System,
    truth: Showers,
    training: Showers,
    request: Request,
    *,
    folder: Path,
    names: tuple[str, str] = ("state", "truth"),
    progress: Progress | None = None,
    quiet: bool = True,
) -> SolverStudy:
    """Score all solvers.

    Args:
        system: fitted.
        truth: Geant4's showers, not those that the system learned from.
        training: others, for bespoke solvers to be fitted on and for the floor.
        request: what is studied.
        folder: of what is done so far: the same study goes on there, another starts anew.
        names: of the state and the truth.
        progress: called after each batch.
        quiet: no progress bars of the fits.

    Raises:
        ValueError: showers of another detector, particles the system does not know, too few of them, or a system
            without such a flow.
    """
    flows = flows_of(system, request.flows)
    truth = _chosen(truth, request)
    require(system, truth, training, request)
    open_folder(folder, system, truth, training, request)
    each = {s.key: s for s in settings_of(flows, system, training, request, folder, quiet)}
    settings = sorted(each.values(), key=lambda s: s.cost)
    judge = HighLevelJudge(truth, voxels=system.events == "voxels", repeats=request.repeats, seed=request.seed)
    floor = kept(folder / "floor.json", lambda: _plain(judge.floor(training)))
    scores, notes = [], list[str]()
    for done, setting in enumerate(settings):
        before, total = done * len(truth), len(settings) * len(truth)
        report = None if progress is None else _offset(progress, before, total)

        def measured(setting: Setting = setting, report: Progress | None = report) -> Any:
            try:
                return asdict(_measured(system, truth, setting, judge, request, report))
            except UnreachedToleranceError as error:
                return {"note": f"{setting.flow.name}, {setting.label}: left out: {error}"}

        row = kept(folder / f"{setting.key}.json", measured)
        if "note" in row:
            notes.append(row["note"])
        else:
            scores.append(SolverScore(**row))
        if progress is not None:
            progress(before + len(truth), total)
    if floor is None:
        notes.append(f"no floor: {len(truth)} showers are too few to be halved, and the training showers do not serve")
    order = {name: k for k, name in enumerate(SOLVERS)}
    return SolverStudy(
        *(names[0], system.name, system.detector.name, names[1], len(truth), request.repeats, judge.text),
        scores=tuple(sorted(scores, key=lambda s: order[s.solver.split(",")[0]])),
        floor=None if floor is None else Floor(**floor),
        notes=tuple(notes),
        provenance=provenance(request=asdict(request), other_flows="at their defaults, unless an option says else"),
    )


def require(system: System, truth: Showers, training: Showers, request: Request) -> None:
    """Refuse showers that cannot be studied.

    Raises:
        ValueError: one of them, in one line.
    """
    for what, showers in (("truth", truth), ("training showers", training)):
        if showers.detector != system.detector:
            raise ValueError(
                f"the {what} are of detector {showers.detector.name!r}, the state is for {system.detector.name!r}"
            )
    if len(truth) < MIN_SHOWERS:
        raise ValueError(f"the truth has {len(truth)} showers; the classifier needs at least {MIN_SHOWERS}")
    domain = next((part for part in system.parts().values() if isinstance(part, Domain)), None)
    if domain is not None:
        domain.check(truth.incident)
        if unknown := set(training.incident.pdg.tolist()) - set(domain.species):
            raise ValueError(f"training showers of PDG code {min(unknown)}; the state knows {domain.species}")
    if BESPOKE in request.solvers and len(training) < LEAST_TRAINING:
        raise ValueError(
            f"{len(training)} training showers: bespoke solvers are fitted to at least {LEAST_TRAINING}; give a file "
            "of more, or leave out the solver 'bespoke'"
        )


def _chosen(truth: Showers, request: Request) -> Showers:
    """As many as are asked for, from all of the file: it may be in order."""
    return truth[np.sort(np.random.default_rng([request.seed, 23]).permutation(len(truth))[: request.showers])]


def _measured(
    system: System,
    truth: Showers,
    setting: Setting,
    judge: HighLevelJudge,
    request: Request,
    progress: Progress | None,
) -> SolverScore:
    counted = CountedSolver(setting.solver, setting.steps)
    options = {**request.options, setting.flow.option: counted}
    incident, batch = truth.incident, request.batch_size

    def draw(start: int) -> tuple[Showers, float]:
        begun = time.process_time()
        part = incident[start : start + batch]
        made = system.sample(part, seed=request.seed, batch_size=batch, first=start, **options)
        return made, time.process_time() - begun

    parts, seconds = [], list[float]()
    for start in range(0, len(incident), batch):
        part, taken = draw(start)
        parts.append(part)
        seconds += [taken] if start == 0 else []
        if progress is not None:
            progress(min(start + batch, len(incident)), len(incident))
    evaluations = counted.mean
    seconds += [draw(0)[1] for _ in range(request.rounds - 1)]
    auc, error = judge.auc(Showers.concatenate(parts))
    cpu_ms = 1e3 * min(seconds) / min(batch, len(incident))
    return SolverScore(
        setting.flow.name, setting.family, setting.label, evaluations, auc, error, cpu_ms, setting.fit_seconds
    )


def _offset(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, of: progress(before + done, total)


def _plain(floor: Floor | None) -> Any:
    return None if floor is None else asdict(floor)
