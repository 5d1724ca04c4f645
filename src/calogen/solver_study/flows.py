"""The flows of a system whose solver can be chosen, and the solvers that are compared; bespoke ones are fitted here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from calogen.data.showers import Showers
from calogen.methods.adaptive import NAME as ADAPTIVE
from calogen.methods.adaptive import AdaptiveSolver
from calogen.methods.bespoke import BespokeSolver, Solver
from calogen.methods.solvers import EVALUATIONS, STEPS
from calogen.overrides import nearest, override
from calogen.solver_study.request import BESPOKE, STORED, Request
from calogen.systems.bespoke_stage import BespokeStage, Pool
from calogen.systems.system import System
from calogen.train import Plan, fit

HELD_OUT = 0.1
"""Share of the training showers by which a fit is validated."""
BIG = 1 << 20
"""Nobody knows how many evaluations an adaptive solver takes: it comes last."""


class Flow(NamedTuple):
    """A flow of a system: the stages that fit solvers to it, and the option of `sample` that takes one."""

    name: str
    stages: tuple[BespokeStage, ...]
    option: str


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
    """The flows of a system whose solver can be chosen; several stages of one option are of one flow.

    Raises:
        ValueError: there are none, or not of these names.
    """
    stages: dict[str, list[BespokeStage]] = {}
    for stage in system.stages():
        if isinstance(stage, BespokeStage) and stage.name in system.solvers:
            stages.setdefault(system.solvers[stage.name], []).append(stage)
    found = {own[0].name: Flow(own[0].name, tuple(own), option) for option, own in stages.items()}
    if not found:
        raise ValueError(f"{system.name!r} has no flow whose solver can be chosen: there is nothing to compare")
    for name in names:
        if name not in found:
            raise ValueError(f"{system.name!r} has no solver stage {name!r}; {nearest(name, found)}")
    return tuple(found[name] for name in names or found)


def settings_of(
    flows: Sequence[Flow], system: System, training: Showers, request: Request, folder: Path, quiet: bool
) -> Iterator[Setting]:
    """All solvers of some flows; `training` are showers to fit bespoke ones to, `folder` of what is done of that."""
    for flow in flows:
        for family in request.solvers:
            if family in STEPS:
                yield from _in_steps(flow, family, request)
            elif family == ADAPTIVE:
                for tolerance in request.tolerances:
                    yield Setting(flow, family, f"tolerance {tolerance:g}", AdaptiveSolver(tolerance), BIG)
            elif family == STORED:
                for solver in (solver for stage in flow.stages for solver in stage.solvers):
                    yield Setting(flow, family, _label(solver), solver, solver.steps)
        if BESPOKE in request.solvers:
            yield from _fitted(flow, system, training, request, folder, quiet)


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
