"""`calogen train`: fit a system to showers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from calogen.cli.files import points
from calogen.cli.options import (
    STATE_FILE,
    ConfigFile,
    Device,
    Overwrite,
    Quiet,
    Seed,
    Set,
    Threads,
    differences,
    use_threads,
)
from calogen.cli.output import require_free_folder
from calogen.cli.presets import CONFIG, presets_of, targets
from calogen.cli.screen import say, table

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.detector.geometry import Detector
    from calogen.systems import System
    from calogen.train import Plan, StageReport

RUN_FILE = "run.json"
EVERY_STAGE = "*"


def train(
    system: Annotated[str, Parameter(metavar="SYSTEM", help="Which system; 'calogen presets' lists them.")],
    *,
    data: Annotated[
        list[Path],
        Parameter(
            metavar="FILE",
            negative="",
            help="Showers to learn from (GeV, mm); may be repeated, for allshowers with several detectors.",
        ),
    ],
    output: Annotated[
        Path,
        Parameter(name=("--output", "-o"), metavar="DIR", help="Directory of the run and of its state.safetensors."),
    ],
    preset: Annotated[
        str | None, Parameter(metavar="NAME", help="Where to start from; default: the system's first.")
    ] = None,
    from_: Annotated[
        str | None,
        Parameter(
            name="--from",
            metavar="STATE",
            help="Fine-tune this state: its configuration and weights, on the detector of the data.",
        ),
    ] = None,
    tune: Annotated[
        Literal["all", "bias"], Parameter(help="With --from: move all weights, or biases alone (few showers).")
    ] = "all",
    set_: Set = None,
    config: ConfigFile = None,
    validation: Annotated[
        float, Parameter(metavar="SHARE", help="Part held out, where the file does not mark one (0 to 1).")
    ] = 0.1,
    seed: Seed = 0,
    max_minutes: Annotated[
        float | None,
        Parameter(metavar="MIN", help="Stop within so many minutes, shared among the stages by their steps."),
    ] = None,
    devices: Annotated[int, Parameter(metavar="N", help="Processes that share every batch (data-parallel).")] = 1,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train all stages of a system; a run that was killed goes on where it was with the same command.

    Showers in GeV and mm. For example: calogen train caloclouds3 --data showers.h5 --preset ild-photons-desk
    --set teacher.steps=5000 -o run
    """
    _require_place(output, overwrite)
    if not 0 <= validation < 1:
        raise ValueError(f"--validation {validation}: give a share of at least 0 and below 1")
    if devices < 1:
        raise ValueError(f"--devices {devices}: give a number of at least 1")
    start = _start(system, from_)
    resolved = resolve(system, preset, differences(config, set_), seed, max_minutes, start)
    groups = _main_first(by_detector(data), system, preset, start)
    from calogen.systems import SYSTEMS

    _require_joinable(system, [detector for detector, _ in groups[1:]])
    _require_fit_for(system, preset, groups[0][0], any_detector=start is not None)
    if max_minutes is not None:
        resolved = resolve(system, preset, differences(config, set_), seed, max_minutes / len(groups), start)
    configuration = resolved.pop(CONFIG)
    fresh, *joined = [SYSTEMS[system].create(configuration, detector, seed=seed) for detector, _ in groups]
    (showers, held_out), *others = [read_parts(files, validation) for _, files in groups]
    for own in (showers, *(own for own, _ in others)):
        _require_enough(own)
    use_threads(threads)
    if start is not None:
        taken, total = fresh.start_from(start, tune=tune, label=str(from_))
        moving = "all move" if tune == "all" else "their biases move, and what was not taken"
        say(f"from {from_}: {taken:,} of {total:,} weights; {moving}", quiet=quiet)
    cuts = [one.cut(own, share, seed)[:2] for one, (own, share) in zip(joined, others, strict=True)]
    for companion, (learning, aside) in zip(joined, cuts, strict=True):
        fresh.learn_with(companion, learning, aside)
    source = {"files": [path.name for path in data], "preset": preset or next(iter(presets_of(system)))}
    settings: dict[str, Any] = {
        "split_seed": seed,
        "device": device,
        "devices": devices,
        "overwrite": overwrite,
        "progress": not quiet,
        "source": source,
    }
    fresh.fit(showers, resolved, run_dir=output, validation=held_out, **settings)
    _finish(fresh, output, quiet)
    for companion, (learning, aside) in zip(joined, cuts, strict=True):
        folder = output / companion.detector.name
        say(f"the same transformer in detector {companion.detector.name}", quiet=quiet)
        companion.fit(learning, resolved, run_dir=folder, validation=0.0 if aside is None else aside, **settings)
        _finish(companion, folder, quiet)


def _finish(fitted: System, folder: Path, quiet: bool) -> None:
    """Store a fitted system and say how it went."""
    from calogen.train import StageReport

    fitted.save(folder / STATE_FILE, overwrite=True)
    _report([StageReport(**stage) for stage in fitted.provenance["stages"]], quiet)
    left_out = fitted.provenance["data"]["energy_left_out"]
    if left_out > 0:
        say(f"{left_out:.2%} of the energy is in points too faint to be modelled (least_threshold)", quiet=quiet)
    say(f"state in {folder / STATE_FILE}", quiet=quiet)


def _main_first(
    groups: dict[Detector, list[Path]], system: str, preset: str | None, start: System | None
) -> list[tuple[Detector, list[Path]]]:
    """Detectors and their files, the preset's (or the start's) detector first."""
    from calogen.detector.catalog import CATALOG

    known = presets_of(system)
    wanted = start.detector if start is not None else CATALOG[known[preset or next(iter(known))].detector]
    return sorted(groups.items(), key=lambda group: group[0] != wanted)


def _require_joinable(system: str, others: list[Detector]) -> None:
    """Refuse, before anything is read, detectors that this system cannot learn together, or that name no folder."""
    from calogen.systems import SYSTEMS
    from calogen.systems.system import BARE_NAME

    if others and not SYSTEMS[system].joins_detectors:
        raise ValueError(
            f"--data: showers of several detectors ({others[0].name!r} besides the first); {system} learns one, "
            "allshowers learns several together"
        )
    for detector in others:
        if not BARE_NAME.fullmatch(detector.name) or detector.name in RUN_FOLDERS:
            raise ValueError(f"--data: the detector's name {detector.name!r} can be no folder of the run: rename it")


RUN_FOLDERS = ("stages", "logs")


def _start(system: str, name: str | None) -> System | None:
    """The state to start from, None without one.

    Raises:
        ValueError: no such state, or one of another system.
    """
    if name is None:
        return None
    from calogen.systems import load

    start = load(name)
    if start.name != system:
        raise ValueError(f"--from {name}: a state of {start.name!r}; train that system, or start without it")
    return start


def resolve(
    system: str,
    preset: str | None,
    changes: Mapping[str, object],
    seed: int,
    max_minutes: float | None,
    start: System | None = None,
) -> dict[str, Any]:
    """The configuration (under `config`) and the plans of a preset, changed as asked.

    With a system to start from, its configuration and stages; the preset has the plans of those it knows.

    Raises:
        ValueError: no such system, preset or key (naming the nearest), or a value that does not fit.
    """
    from calogen.overrides import nearest, override

    known = presets_of(system)
    name = preset or next(iter(known))
    if name not in known:
        raise ValueError(f"--preset {name}: unknown for {system}; {nearest(name, known)}")
    members = targets(known[name])
    if start is not None:
        members = {CONFIG: start.config} | {name: members.get(name, plan) for name, plan in start.plans().items()}
    plans = {key: plan for key, plan in members.items() if key != CONFIG}
    seeds: dict[str, object] = {f"{key}.seed": seed for key in plans}
    minutes = {} if max_minutes is None else _shared(plans, max_minutes)
    asked = _keyed(changes, {field.name for field in fields(members[CONFIG])}, list(plans))
    return override(members, seeds | minutes | asked)


def _keyed(changes: Mapping[str, object], own: set[str], stages: list[str]) -> dict[str, object]:
    """Full keys: `widths` is `config.widths`, and `*.batch_size` that of every stage."""
    keyed: dict[str, object] = {}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        names = [f"{stage}.{rest}" for stage in stages] if head == EVERY_STAGE else [key]
        keyed |= {f"{CONFIG}.{name}" if head in own else name: value for name in names}
    return keyed


def _shared(plans: Mapping[str, Plan], minutes: float) -> dict[str, object]:
    """A budget in minutes divided by steps, so that it is the same when a run is resumed; by stages, with epochs."""
    if minutes <= 0:
        raise ValueError(f"--max-minutes {minutes}: give a time above 0")
    long = {name: plan for name, plan in plans.items() if plan.steps != 1}
    in_epochs = any(plan.steps is None for plan in long.values())
    steps = {name: 1 if in_epochs else plan.steps or 1 for name, plan in long.items()}
    return {f"{name}.max_minutes": minutes * n / sum(steps.values()) for name, n in steps.items()}


def _require_fit_for(system: str, preset: str | None, detector: Detector, *, any_detector: bool) -> None:
    """Refuse, before anything is read, showers of another detector than the preset's."""
    from calogen.detector.catalog import CATALOG

    known = presets_of(system)
    name = preset or next(iter(known))
    expected = CATALOG[known[name].detector]
    if detector != expected and not any_detector:
        raise ValueError(
            f"--data: showers of detector {detector.name!r}; preset {name!r} is for {expected.name!r}: "
            "convert or simulate showers of that detector, or start --from a state"
        )


def _require_enough(showers: Showers) -> None:
    if len(showers) < LEAST_SHOWERS:
        raise ValueError(
            f"--data: {len(showers)} showers of {showers.detector.name!r} to learn from; give at least {LEAST_SHOWERS}"
        )


LEAST_SHOWERS = 32
"""Fewer do not even fix the scale of each layer; a useful training takes thousands."""


def _require_place(output: Path, overwrite: bool) -> None:
    """A new or empty directory, or one that holds a run, which decides itself whether it is this one."""
    if (output / RUN_FILE).is_file():
        return
    if output.is_dir() and any(output.iterdir()):
        from calogen.train.run import Run

        if Run(output).holds_only_a_start():
            return
    require_free_folder(output, overwrite)


def by_detector(files: list[Path]) -> dict[Detector, list[Path]]:
    """The files of each detector, in the order given.

    Raises:
        ValueError: two different detectors of one name.
    """
    from calogen.data.formats import open_source

    found: dict[Detector, list[Path]] = {}
    for file in files:
        with open_source(file) as source:
            found.setdefault(source.detector, []).append(file)
    names = [detector.name for detector in found]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"--data: files of different detectors that are both named {double!r}")
    return found


def read_data(files: list[Path]) -> Showers:
    """All showers of files of one detector.

    Raises:
        ValueError: files of several detectors.
    """
    groups = by_detector(files)
    if len(groups) > 1:
        names = " and of ".join(repr(detector.name) for detector in groups)
        raise ValueError(f"--data: showers of {names}; a state is for one detector")
    return _joined([_streamed(file, None) for file in files])


def read_parts(files: list[Path], validation: float) -> tuple[Showers, float | Showers]:
    """Showers to learn from, and those the files mark for validation; where they mark none, the share given."""
    from calogen.data.formats import open_source

    marked = True
    for file in files:
        with open_source(file) as source:
            marked = marked and source.split is not None
    if not marked:
        return _joined([_streamed(file, None) for file in files]), validation
    parts = {split: _joined([_streamed(file, split) for file in files]) for split in ("train", "validation")}
    return parts["train"], parts["validation"]


def _streamed(file: Path, split: str | None) -> Showers:
    """The showers of a file, in batches: voxels without energy, nine of ten, are in memory for a moment only."""
    from calogen.data.formats import batches
    from calogen.data.showers import Showers

    return Showers.concatenate([points(batch) for batch in batches(file, split=split)])


def _joined(parts: list[Showers]) -> Showers:
    """All showers; where not all files keep times, without them."""
    from calogen.data.showers import Showers

    timed = [part.time is not None for part in parts]
    if any(timed) and not all(timed):
        warnings.warn("--data: not all files have times of points; they are left out", stacklevel=2)
        parts = [part.untimed() for part in parts]
    return Showers.concatenate(parts)


def _report(reports: Sequence[StageReport], quiet: bool) -> None:
    def loss(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    rows = [
        (
            r.name,
            str(r.steps),
            r.stopped,
            loss(r.train_loss),
            loss(r.best_loss),
            f"{r.seconds / 60:.1f}",
            f"{r.peak_memory_mb:.0f}",
        )
        for r in reports
    ]
    table("Stages", ("stage", "steps", "stopped", "loss", "best val.", "minutes", "MB"), rows, quiet=quiet)
