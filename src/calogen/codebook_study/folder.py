"""A study lives in one folder, and the same study goes on there.

study.json          what it is: another one is refused here
runs/SIZE/          the fit of each size (see `calogen.train.run`)
measured/NAME.json  what was measured of each
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from calogen.codebook_study.request import Request
from calogen.data.showers import Showers
from calogen.overrides import to_dict
from calogen.train.checkpoint import unfinished, write_json
from calogen.train.identity import fingerprint, require_same
from calogen.train.run import Run

IDENTITY, RUNS, MEASURED = "study.json", "runs", "measured"
FILES = (IDENTITY, RUNS, MEASURED)
"""What the study itself keeps in its folder."""


class Sample(NamedTuple):
    """Showers: to learn from, held out (if any), and unseen ones to measure on."""

    train: Showers | None
    held_out: Showers | None
    truth: Showers


def require_place(folder: Path, more: Sequence[str] = ()) -> None:
    """Refuse a folder that holds anything but a study and the files of its page, `more`.

    Raises:
        ValueError: a file, or a folder with something else.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the study")
    if not folder.exists():
        return
    held = {path.name for path in folder.iterdir()}
    if held and IDENTITY not in held:
        raise ValueError(f"directory {folder} is not empty and holds no study; choose another")
    other = held - {*FILES, *more, unfinished(Path(IDENTITY)).name}
    if other:
        raise ValueError(f"{folder} holds {min(other)!r}, which is no part of a study; choose another")


def clear(folder: Path) -> None:
    """Delete what a study keeps."""
    for name in FILES:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def open_folder(folder: Path, request: Request, sample: Sample, truth: Showers, overwrite: bool = False) -> None:
    """Begin a study, or go on with the same: sizes, states and targets may be others.

    With `overwrite` what is kept there is deleted.

    Raises:
        ValueError: the folder holds another study that has got anywhere; says how it differs.
    """
    now = json.loads(json.dumps(_identity(request, sample, truth)))
    file = folder / IDENTITY
    if overwrite:
        clear(folder)
    if file.is_file():
        then = json.loads(file.read_text(encoding="utf-8"))
        if then == now:
            return
        if _worth_keeping(folder):
            require_same(then, now, folder)
        clear(folder)
    (folder / MEASURED).mkdir(parents=True, exist_ok=True)
    (folder / RUNS).mkdir(exist_ok=True)
    write_json(file, now)


def _worth_keeping(folder: Path) -> bool:
    return any((folder / MEASURED).glob("*.json")) or any(Run(run).worth_keeping() for run in (folder / RUNS).glob("*"))


def _identity(request: Request, sample: Sample, truth: Showers) -> dict[str, Any]:
    asked = to_dict(request)
    del asked["code"]["sizes"]["codes"]
    return {
        "training_showers": _identified(sample.train),
        "validation_showers": _identified(sample.held_out),
        "more": {
            **{key: asked[key] for key in ("system", "code", "plan", "seed")},
            "truth": _identified(truth),
            "detector": truth.detector.name,
        },
    }


def _identified(showers: Showers | None) -> dict[str, Any]:
    return {"number": 0 if showers is None else len(showers), "hash": fingerprint(showers)}
