"""One worker process of a run: reads shard numbers on stdin, simulates, writes shards, says so on stdout."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TextIO

import numpy as np

from calogen.data.incident import Incident
from calogen.detector.catalog import CATALOG
from calogen.geant4.engine import Engine, event_seed
from calogen.geant4.scoring import merge, subcell_mm, voxelize
from calogen.geant4.shards import Request, read_request, write_shard

READY, DONE, REFUSED = "ready", "done", "refused"

_OFFSET_STREAM = 1  # keeps the sub-cells' random offsets apart from the events' Geant4 seeds


def simulate_shard(engine: Engine, request: Request, folder: Path, shard: int) -> None:
    """Simulate one shard of a request and write it."""
    events = request.events(shard)
    incident: Incident = request.incident[events.start : events.stop]
    sizes = subcell_mm(request.setup.stack, request.subcells)
    detector = CATALOG[request.setup.stack.detector] if request.voxels else None
    points, voxels, cpu_s = [], [], []
    started = time.process_time()
    for event, steps in zip(events, engine.shoot(incident, [event_seed(request.seed, e) for e in events]), strict=True):
        offset = np.random.default_rng((request.seed, event, _OFFSET_STREAM)).random(2)
        points.append(merge(steps, sizes, offset))
        if detector is not None:
            voxels.append(voxelize(steps, detector))
        now = time.process_time()
        cpu_s.append(now - started)
        started = now
    write_shard(folder, shard, incident, points, voxels, cpu_s)


def _own_stdout() -> TextIO:
    """Keep stdout for messages to the parent, and send what Geant4 prints to stderr (the worker's log)."""
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return messages


def main(folder: Path) -> int:
    """Serve shards until stdin ends."""
    messages = _own_stdout()
    request = read_request(folder)
    try:
        engine = Engine(request.setup)
    except (RuntimeError, ValueError) as error:
        print(REFUSED, type(error).__name__, *str(error).split(), file=messages)
        return 2
    print(READY, file=messages)
    for line in sys.stdin:
        try:
            simulate_shard(engine, request, folder, int(line))
        except OSError as error:
            print(REFUSED, OSError.__name__, error.errno or 0, error.filename, file=messages)
            return 2
        print(DONE, int(line), file=messages)
    return 0


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status)  # Geant4's destructors and Python's do not agree on who owns what
