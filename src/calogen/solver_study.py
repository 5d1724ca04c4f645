"""How good and how dear the solvers of a state's flows are: figure 9 of CaloDREAM (arXiv:2405.09629) for any state.

Every solver draws showers for the particles of the truth, out of the same noise; a classifier says how well they are
told from Geant4's. Bespoke solvers are fitted here; a flow's others stay at their defaults.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from calogen.data.showers import Showers
from calogen.evaluate.classifier_training import MIN_SHOWERS
from calogen.evaluate.solver_scores import Floor, HighLevelJudge, SolverScore, SolverStudy
from calogen.methods.adaptive import NAME as ADAPTIVE
from calogen.methods.adaptive import AdaptiveSolver, UnreachedToleranceError
from calogen.methods.bespoke import BespokeSolver, Solver
from calogen.methods.counting import CountedSolver
from calogen.methods.solvers import EVALUATIONS, STEPS
from calogen.overrides import nearest, override
from calogen.provenance import provenance
from calogen.systems.bespoke_stage import ERRORS, BespokeStage, Pool
from calogen.systems.domain import Domain
from calogen.systems.system import System
from calogen.train import Plan, fit
from calogen.train.fit import fingerprint

BESPOKE = "bespoke"
STORED = "stored"
"""The bespoke solver that the state has."""
SOLVERS = (*STEPS, ADAPTIVE, BESPOKE, STORED)

Error = Literal["local", "global"]
Progress = Callable[[int, int], None]
"""Called with (showers done, all), over all solvers."""


@dataclass(frozen=True)
class Request:
    """What is studied. Raises ValueError for solvers that are none, and numbers that cannot be meant."""

    showers: int = 1000  # of each solver, at most as many as the truth has
    flows: tuple[str, ...] = ()  # stages of bespoke solvers; none: all
    solvers: tuple[str, ...] = SOLVERS
    evaluations: tuple[int, ...] = (4, 8, 16, 32, 64)  # of solvers in equal steps, where these allow them
    tolerances: tuple[float, ...] = (1e-1, 1e-2, 1e-3)  # of the adaptive solver
    bespoke: tuple[int, ...] = (4, 8, 16)  # evaluations of the solvers that are fitted
    errors: tuple[Error, ...] = ("local", "global")  # that they are fitted by
    plan: Mapping[str, object] = field(default_factory=dict)  # changes to the stage's plan
    fit_showers: int | None = None  # whose fine paths they learn from; None: as many as the stage takes
    repeats: int = 3  # trainings of each classifier
    batch_size: int = 32
    rounds: int = 3  # of the first batch, of which the least processor time counts
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)  # further ones of `sample`

    def __post_init__(self) -> None:
        for name, known in (("solvers", SOLVERS), ("errors", tuple(ERRORS))):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name}: unknown {value!r}; {nearest(value, known)}")
            if not getattr(self, name):
                raise ValueError(f"{name}: none given; choose of {', '.join(known)}")
        for name in ("evaluations", "bespoke"):
            if min(getattr(self, name), default=1) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: give numbers of at least 1")
        for name in ("repeats", "batch_size", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a number of at least 1")
        if self.showers < MIN_SHOWERS:
            raise ValueError(f"{self.showers} showers: the classifier needs at least {MIN_SHOWERS}")
        if self.fit_showers is not None and self.fit_showers < 1:
            raise ValueError(f"fit_showers={self.fit_showers}: give a number of at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: give 0 or a positive number")
        for tolerance in self.tolerances:
            AdaptiveSolver(tolerance)


class Flow(NamedTuple):
    """A flow of a system: the stages that fit solvers to it, and the options of `sample` that choose one."""

    name: str
    stages: tuple[BespokeStage, ...]
    solver: str
    steps: str


@dataclass(frozen=True)
class Setting:
    """A solver as one point of the figure."""

    flow: Flow
    family: str
    label: str
    solver: Solver
    steps: int = 1
    fit_seconds: float | None = None

    @property
    def key(self) -> str:
        """A name for its file."""
        return "-".join((self.flow.name, self.family, self.label)).replace(" ", "-")

    @property
    def cost(self) -> int:
        """Evaluations as far as they are known: cheap ones come first."""
        return self.steps * EVALUATIONS.get(self.family, 1)


def flows_of(system: System, names: Sequence[str] = ()) -> tuple[Flow, ...]:
    """The flows of a system whose solver can be chosen; several stages of the same options are of one flow.

    Raises:
        ValueError: there are none, or not of these names.
    """
    stages: dict[tuple[str, str], list[BespokeStage]] = {}
    for stage in system.stages():
        if isinstance(stage, BespokeStage) and stage.name in system.solvers:
            stages.setdefault(system.solvers[stage.name], []).append(stage)
    found = {own[0].name: Flow(own[0].name, tuple(own), *options) for options, own in stages.items()}
    if not found:
        raise ValueError(f"{system.name!r} has no flow whose solver can be chosen: there is nothing to compare")
    for name in names:
        if name not in found:
            raise ValueError(f"{system.name!r} has no solver stage {name!r}; {nearest(name, found)}")
    return tuple(found[name] for name in names or found)


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
    require(system, truth, training, request)
    truth = truth[: request.showers]
    _open(folder, system, truth, training, request)
    each = {s.key: s for s in _settings(flows, system, training, request, folder, quiet)}
    settings = sorted(each.values(), key=lambda s: s.cost)
    judge = HighLevelJudge(truth, voxels=system.events == "voxels", repeats=request.repeats, seed=request.seed)
    floor = _kept(folder / "floor.json", lambda: _plain(judge.floor(training)))
    scores, notes = [], list[str]()
    for done, setting in enumerate(settings):
        before, total = done * len(truth), len(settings) * len(truth)
        report = None if progress is None else _offset(progress, before, total)

        def measured(setting: Setting = setting, report: Progress | None = report) -> Any:
            try:
                return asdict(_measured(system, truth, setting, judge, request, report))
            except UnreachedToleranceError as error:
                return {"note": f"{setting.flow.name}, {setting.label}: left out: {error}"}

        row = _kept(folder / f"{setting.key}.json", measured)
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
        domain.check(truth[: request.showers].incident)
        if unknown := set(training.incident.pdg.tolist()) - set(domain.species):
            raise ValueError(f"training showers of PDG code {min(unknown)}; the state knows {domain.species}")
    if BESPOKE in request.solvers and len(training) < LEAST_TRAINING:
        raise ValueError(
            f"{len(training)} training showers: bespoke solvers are fitted to at least {LEAST_TRAINING}; give a file "
            "of more, or leave out the solver 'bespoke'"
        )


LEAST_TRAINING = 10
"""A tenth of them is held out."""
HELD_OUT = 0.1


# ---- what is compared ----


def _settings(
    flows: Sequence[Flow], system: System, training: Showers, request: Request, folder: Path, quiet: bool
) -> Iterator[Setting]:
    for flow in flows:
        for family in request.solvers:
            if family in STEPS:
                yield from _in_steps(flow, family, request)
            elif family == ADAPTIVE:
                for tolerance in request.tolerances:
                    yield Setting(flow, family, f"tolerance {tolerance:g}", AdaptiveSolver(tolerance), BIG)
            elif family == STORED:
                for stage in flow.stages:
                    yield Setting(flow, family, _label(stage.solver), stage.solver, stage.solver.steps)
        if BESPOKE in request.solvers:
            yield from _fitted(flow, system, training, request, folder, quiet)


BIG = 1 << 20
"""Nobody knows how many evaluations an adaptive solver takes: it comes last."""


def _in_steps(flow: Flow, family: str, request: Request) -> Iterator[Setting]:
    for evaluations in request.evaluations:
        steps, rest = divmod(evaluations, EVALUATIONS[family])
        if steps and not rest:
            yield Setting(flow, family, f"{steps} step{'' if steps == 1 else 's'}", family, steps)


def _label(solver: BespokeSolver) -> str:
    return f"{solver.steps} evaluation{'' if solver.steps == 1 else 's'}"


class _Refit(BespokeStage):
    """Another solver for the flow of a stage, learning from fine paths that were made once for all of them."""

    def prepare(self, showers: Showers) -> None:
        """Make the paths, if these are the first."""
        self._pool(showers)


def _fitted(
    flow: Flow, system: System, training: Showers, request: Request, folder: Path, quiet: bool
) -> Iterator[Setting]:
    stage, pools = flow.stages[0], list[tuple[Showers, Pool]]()
    train, held_out, _ = system.cut(training, HELD_OUT, request.seed)
    plan: Plan = override(stage.plan, request.plan)
    for error in request.errors:
        for n in request.bespoke:
            solver = BespokeSolver(n, "euler" if n % 2 else "midpoint")
            name = f"{flow.name}-{error}-{n}"
            refit = _Refit(
                *(name, solver, stage.flow_of, plan),
                error=error,
                showers=request.fit_showers or stage.size,
                reference_steps=stage.reference_steps,
            )
            refit.pools = pools
            (report,) = fit(
                [refit],
                train,
                held_out,
                run_dir=folder / name,
                device=system.device,
                progress=not quiet,
            )
            yield Setting(flow, f"{BESPOKE}, {error}", _label(solver), solver, n, report.seconds)


# ---- measuring ----


def _measured(
    system: System,
    truth: Showers,
    setting: Setting,
    judge: HighLevelJudge,
    request: Request,
    progress: Progress | None,
) -> SolverScore:
    counted = CountedSolver(setting.solver, setting.steps)
    options = {**request.options, setting.flow.solver: counted}
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


# ---- what is done so far ----


def _open(folder: Path, system: System, truth: Showers, training: Showers, request: Request) -> None:
    """Keep what the same study has left there; clear what another has."""
    weights = [
        (part, name, tensor.cpu().numpy())
        for part, module in system.parts().items()
        for name, tensor in module.state_dict().items()
    ]
    identity = {
        "state": fingerprint((system.name, system.config, tuple(weights))),
        "showers": fingerprint((truth, training)),
        "request": json.loads(json.dumps(asdict(request))),
    }
    file = folder / "identity.json"
    if folder.exists():
        if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == identity:
            return
        if not folder.is_dir() or (any(folder.iterdir()) and not file.is_file()):
            raise ValueError(f"{folder} is in the way: what is done so far is kept there; move it")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    _write(file, identity)


def _kept(file: Path, make: Callable[[], Any]) -> Any:
    """What the file says, or what is made and kept there."""
    if not file.is_file():
        _write(file, make())
    return json.loads(file.read_text(encoding="utf-8"))


def _write(file: Path, value: Any) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(file)


def _plain(floor: Floor | None) -> Any:
    return None if floor is None else asdict(floor)
