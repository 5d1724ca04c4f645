"""Fitting: the loss falls, a killed fit ends with the same bits, two processes agree with one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from toy import PickyStage, ToyStage, toy_showers, toy_stages, weights

from calogen.train import Plan, TrainingError, fit
from calogen.train.parallel import run_in_processes
from calogen.train.run import Run

HERE = Path(__file__).parent
KILLS = 2  # each costs a start of Python and torch
SCRIPT = """
import sys, time
import torch
torch.set_num_threads(1)
from toy import toy_showers, toy_stages, ToyStage
from calogen.train import fit
pause = float(sys.argv[2])
plain = ToyStage.after_step
ToyStage.after_step = lambda self, step: time.sleep(pause)
stages = toy_stages()
print("ready", flush=True)
fit(stages, toy_showers(300), toy_showers(50, 1), run_dir=sys.argv[1], progress=False, checkpoint_seconds=0.02)
"""


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(folder: Path, **changes):
    stages = toy_stages(**changes)
    reports = fit(stages, toy_showers(), toy_showers(50, 1), run_dir=folder, progress=False)
    return stages, reports


def test_loss_falls_and_reports(tmp_path):
    stages, reports = run(tmp_path)
    assert [r.name for r in reports] == ["first", "second", "calibrate"]
    lines = [json.loads(line) for line in (tmp_path / "logs" / "first.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_loss"] < 0.6 * lines[0]["train_loss"]
    assert [line["step"] for line in lines if line["validation_loss"] is not None] == [25, 50, 75, 100, 120]
    assert reports[0].best_loss == min(x["validation_loss"] for x in lines if x["validation_loss"] is not None)
    assert reports[0].seconds > 0
    assert reports[0].peak_memory_mb > 0
    assert reports[2].stopped == "solved"
    assert stages[2].model.factor != 1.0


def test_repeats_and_leaves_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, _ = run(tmp_path / "a")
    assert torch.equal(torch.rand(1), expected)
    second, _ = run(tmp_path / "b")
    assert same(weights(first), weights(second))
    third, _ = run(tmp_path / "c", seed=1)
    assert not same(weights(first), weights(third))


def test_finished_run_is_read_back(tmp_path):
    first, reports = run(tmp_path)
    again, same_reports = run(tmp_path)
    assert same(weights(first), weights(again))
    assert reports == same_reports


@pytest.mark.parametrize(
    "changes",
    [{}, {"batching": "points", "max_points": 300, "optimizer": "adam", "ema": "none", "steps": None, "epochs": 5.0}],
)
def test_interrupted_at_any_step(tmp_path, monkeypatch, changes):
    """Raised at chosen steps (exact moments), continued: the same bits."""
    whole, _ = run(tmp_path / "whole", **changes)
    stop_at = {("first", 1), ("first", 24), ("first", 25), ("first", 61), ("second", 0), ("second", 49)}

    def after_step(self, step):
        if (self.name, step) in stop_at:
            stop_at.remove((self.name, step))
            raise KeyboardInterrupt

    monkeypatch.setattr(ToyStage, "after_step", after_step)
    for _ in range(len(stop_at) + 1):
        stages = toy_stages(**changes)
        for stage in stages[:2]:  # an unseeded start would be forgotten too
            torch.nn.init.normal_(stage.model.net[0].weight) if (tmp_path / "cut/run.json").exists() else None
        try:
            fit(
                stages,
                toy_showers(),
                toy_showers(50, 1),
                run_dir=tmp_path / "cut",
                progress=False,
                checkpoint_seconds=0.0,
            )
        except KeyboardInterrupt:
            continue
    assert same(weights(whole), weights(stages))
    logs = [(tmp_path / d / "logs/first.jsonl").read_text().splitlines() for d in ("whole", "cut")]
    strip = [
        [{k: v for k, v in json.loads(x).items() if k not in ("seconds", "memory_mb")} for x in log] for log in logs
    ]
    assert strip[0] == strip[1]


def test_killed_at_random_moments(tmp_path):
    """A process killed with -9 several times, started again each time, ends with the bits of an uninterrupted one."""
    whole, _ = run(tmp_path / "whole")
    env = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    folder, chance = tmp_path / "killed", random.Random(1)
    kills = 0
    for attempt in range(KILLS + 1):
        pause = "0.004" if attempt < KILLS else "0"
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), pause], env=env, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        if attempt < KILLS:
            time.sleep(chance.uniform(0.05, 0.5))
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if process.returncode == 0:
            break
        kills += 1
    assert kills >= 1
    stages, _ = run(folder)
    assert same(weights(whole), weights(stages))


def test_two_processes_equal_one(tmp_path):
    one, _ = run(tmp_path / "one", steps=40, shards=2)
    two = toy_stages(steps=40)
    two[1].record = tmp_path
    reports = fit(two, toy_showers(), toy_showers(50, 1), run_dir=tmp_path / "two", devices=2, progress=False)
    a, b = weights(one), weights(two)
    for name in a:
        if not name.endswith("calls"):  # counts the shards of one process
            torch.testing.assert_close(a[name], b[name], atol=1e-4, rtol=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "two/logs/second.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_loss"] < lines[0]["validation_loss"]
    assert reports[0].shards == 2
    ranks = [(tmp_path / f"rank{rank}.json").read_text() for rank in range(2)]
    assert ranks[0] == ranks[1]


def test_complaint_of_a_process_is_one_line():
    with pytest.raises(TrainingError, match=r"^too bad$"):
        run_in_processes(_complain, (), 1, torch.device("cpu"))


def _complain(*, group) -> None:
    raise ValueError("too bad")


def test_loss_that_is_no_number_ends_the_fit(tmp_path):
    with pytest.raises(TrainingError, match="lower learning_rate"):
        run(tmp_path, learning_rate=1e30, grad_clip=None)


def test_another_fit_in_the_same_directory_is_refused(tmp_path):
    run(tmp_path, steps=5)
    with pytest.raises(ValueError, match=r"first.steps was 5, is 6.*--overwrite"):
        run(tmp_path, steps=6)
    for showers, words in (
        (toy_showers(seed=3), "training showers: as many, but others"),
        (toy_showers(200), "training showers: 300 then, 200 now"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(toy_stages(steps=5), showers, toy_showers(50, 1), run_dir=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"validation showers: 50 then, 0 now\)"):
        fit(toy_stages(steps=5), toy_showers(), run_dir=tmp_path, progress=False)
    for identity, words in (
        ({"config": {"halo_mm": 3.0}}, "config was none, is {'halo_mm': 3.0}"),
        ({"detector": "3f9a"}, "another detector"),
    ):
        with pytest.raises(ValueError) as refusal:
            fit(
                toy_stages(steps=5),
                toy_showers(),
                toy_showers(50, 1),
                run_dir=tmp_path,
                progress=False,
                identity=identity,
            )
        assert f"({words})" in str(refusal.value)
    with pytest.raises(ValueError, match="resume"):
        fit(toy_stages(steps=5), toy_showers(), run_dir=tmp_path, progress=False, resume=False)
    fit(toy_stages(steps=6), toy_showers(), run_dir=tmp_path, progress=False, overwrite=True)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_fit_that_refuses_leaves_nothing(tmp_path, devices):
    stages = [PickyStage("picky", Plan(steps=5))]
    with pytest.raises((ValueError, TrainingError), match="do not do"):
        fit(stages, toy_showers(), run_dir=tmp_path / "deep/new", devices=devices, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_fails_later_keeps_what_it_has(tmp_path):
    stages = [*toy_stages(steps=5), PickyStage("picky", Plan(steps=5))]
    with pytest.raises(ValueError, match="do not do"):
        fit(stages, toy_showers(), run_dir=tmp_path, progress=False)
    assert (tmp_path / "stages" / "first.json").exists()


def test_a_fit_killed_before_its_first_checkpoint_stands_in_nobodys_way(tmp_path, monkeypatch):
    def killed(self, step):
        raise KeyboardInterrupt  # like a kill: nothing is tidied up

    with monkeypatch.context() as patch:
        patch.setattr(ToyStage, "after_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, steps=5)
    (tmp_path / "run.json.tmp").touch()
    assert Run(tmp_path).holds_only_a_start()
    _, reports = run(tmp_path, steps=6)
    assert reports[0].steps == 6
    assert not Run(tmp_path).holds_only_a_start()


def test_stops(tmp_path):
    _, reports = run(tmp_path / "early", steps=100_000, learning_rate=1e-9, patience=2, schedule="constant", ema="none")
    assert reports[0].stopped == "early"
    assert reports[0].steps < 100_000
    _, reports = run(tmp_path / "budget", steps=100_000, max_minutes=0.003)
    assert reports[0].stopped == "budget"
    assert reports[0].best_loss is not None


def test_unknown_stage_of_a_plan(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'first'"):
        fit(toy_stages(steps=5), toy_showers(), plans={"fist": Plan(steps=1)}, run_dir=tmp_path)


def test_the_plan_decides_which_weights_stay(tmp_path):
    last, reports = run(tmp_path / "last", keep="last", learning_rate=0.3, ema="none")
    assert reports[0].kept == "last"
    best, reports = run(tmp_path / "best", keep="best", learning_rate=0.3, ema="none")
    assert reports[0].kept == "best"
    assert reports[0].best_step != reports[0].steps
    assert not same(weights(last), weights(best))
