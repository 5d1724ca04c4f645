"""Times and memory are those of what was run, each configuration in a process of its own."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import calogen.systems
from calogen.bench import Bench, Measurement, _measure, bench, peak_mb
from calogen.cli import main
from calogen.data.incident import Incident

MS_PER_SHOWER, MS_PER_CALL = 2.0, 5.0


class Sleeper:
    """A system that takes a known time: so much for each call and each shower, and remembers what it was asked."""

    name = "sleeper"
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, dict[str, Any]]] = []
        self.seen: list[float] = []

    def sample(self, incident: Incident, *, seed: int, batch_size: int, **options: Any) -> None:
        assert batch_size == len(incident)
        self.calls.append((len(incident), seed, options))
        self.seen += incident.energy.tolist()
        time.sleep((MS_PER_CALL + MS_PER_SHOWER * len(incident)) / 1e3)


def request(**changes: Any) -> dict[str, Any]:
    incident = {"energy": [10.0, 20.0, 30.0], "direction": [[0.0, 0.0, 1.0]] * 3, "pdg": [22] * 3}
    plan = {"state": "toy", "batch": 2, "threads": 1, "runs": 10, "seconds": 5.0, "seed": 7}
    return plan | {"device": "cpu", "options": {}, "incident": incident} | changes


@contextmanager
def threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sleeper]:
    system = Sleeper()
    monkeypatch.setattr(calogen.systems, "load", lambda state, device: system)
    with threads_kept():
        yield system


def test_times_are_per_shower_over_ten_runs(sleeper: Sleeper) -> None:
    found = _measure(request(options={"steps": 3}))
    runs = sleeper.calls[-10:]
    assert found["runs"] == 10
    assert found["ms_per_shower"] >= MS_PER_SHOWER + MS_PER_CALL / 2
    assert found["cpu_ms_per_shower"] < found["ms_per_shower"]
    assert found["ms_std"] >= 0
    assert [(n, seed) for n, seed, _ in runs] == [(2, 7 + r) for r in range(10)]
    assert all(options == {"steps": 3} for *_, options in runs)
    # The pool of three is gone through in turn, run after run.
    assert sleeper.seen[-20:] == pytest.approx([(10.0, 20.0, 30.0)[i % 3] for i in range(20)])


def test_fewer_runs_where_the_time_is_over(sleeper: Sleeper) -> None:
    found = _measure(request(batch=60, seconds=0.6))
    assert 1 <= found["runs"] < 10
    assert sum(n == 60 for n, *_ in sleeper.calls) == found["runs"]


def test_what_takes_too_long_is_not_begun(sleeper: Sleeper) -> None:
    found = _measure(request(batch=10_000_000, seconds=0.2))
    assert found["runs"] == 0
    assert re.search(r"takes about \d+ (hours|days)", found["note"])
    assert "ms_per_shower" not in found
    assert max(n for n, *_ in sleeper.calls) < 1000


def test_peak_memory_sees_an_array() -> None:
    before = peak_mb()
    held = np.ones(int(before * 1e6 / 8) + 10_000_000)
    assert peak_mb() > before + 70
    assert held[-1] == 1


def test_a_busy_machine_is_told() -> None:
    quiet, busy = (Bench("x", "y", "cpu", "z", 2, "", (), None, {}, load) for load in (0.3, 1.8))
    assert not quiet.busy
    assert busy.busy
    assert not Bench("x", "y", "cpu", "z", 2, "", (), None, {}).busy


def test_geant4_over_the_model() -> None:
    made = Bench(
        "x", "y", "cpu", "z", 2, "", (Measurement(1, 1, 10, 4.0, 0.1, 8.0), Measurement(100, 1, 0)), 0.4, {"seed": 1}
    )
    assert [made.speed_up(m) for m in made.measurements] == [pytest.approx(50.0), None]
    kept = json.loads(json.dumps(made.to_dict()))
    assert kept["measurements"][0]["speed_up"] == pytest.approx(50.0)
    assert kept["geant4_s_per_shower"] == 0.4


def test_the_command_measures_the_shipped_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In another process, with its own memory: this one holds more than that one may have used."""
    held = np.ones(100_000_000)  # 0.8 GB
    out = tmp_path / "bench.json"
    options = ["--batches", "2", "--threads", "1", "--seconds", "2", "-o", str(out)]
    assert main(["bench", "caloclouds3", *options]) == 0
    assert held[-1] == 1
    kept = json.loads(out.read_text())
    assert [(m["batch"], m["threads"]) for m in kept["measurements"]] == [(2, 1)]
    for m in kept["measurements"]:
        assert m["runs"] >= 1
        assert 0 < m["cpu_ms_per_shower"] < 1e4
        assert 100 < m["loaded_mb"] <= m["peak_mb"] < 700
        assert m["speed_up"] == pytest.approx(1e3 * kept["geant4_s_per_shower"] / m["cpu_ms_per_shower"])
    shown = capsys.readouterr().out
    assert "ms per shower" in shown
    assert "Geant4" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no state 'nonsense'"),
        (["caloclouds3", "--batches", "0"], "batch 0"),
        (["caloclouds3", "--threads", "-1"], "-1"),
        (["caloclouds3", "--seconds", "0"], "seconds"),
        (["caloclouds3", "--geant4", "-3"], "-3 showers"),
        (["caloclouds3", "-n", "5"], "--batches"),
        (["caloclouds3", "--set", "nonsense=3"], "nonsense"),
        (["caloclouds3", "-o", "/nowhere/bench.json"], "/nowhere"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments, "-q"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_what_the_process_refuses_is_a_refusal() -> None:
    pions = Incident.gun(1, pdg=211)
    with pytest.raises(ValueError, match="211"):
        bench("caloclouds3", pions, batches=(1,), threads=(1,))
