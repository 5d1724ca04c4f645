"""What a study has done so far, kept in a folder: the same study goes on there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calogen.data.showers import Showers
from calogen.solver_study.request import Request
from calogen.systems.system import System
from calogen.train.fit import fingerprint


def open_folder(folder: Path, system: System, truth: Showers, training: Showers, request: Request) -> None:
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
    write_json(file, identity)


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """What the file says, or what is made and kept there."""
    if not file.is_file():
        write_json(file, make())
    return json.loads(file.read_text(encoding="utf-8"))


def write_json(file: Path, value: Any) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(file)
