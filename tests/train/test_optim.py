"""Schedules and averages against their formulas and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from calogen.train import Plan
from calogen.train.optim import EMA, make_optimizer, make_schedule


def test_onecycle_is_torchs():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=97, cycle_momentum=False)
    ours = make_schedule(Plan(steps=97, learning_rate=0.1, schedule="onecycle"), 97)
    for step in range(97):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", (0.5, 1, 1, 1)), ("linear", (0.5, 1, 0.6, 0.2)), ("cosine", (0.5, 1, 0.6, 0.2))],
)
def test_schedules(schedule, rates):
    rate = make_schedule(Plan(learning_rate=1.0, schedule=schedule, warmup_steps=4, final_fraction=0.2), 104)
    assert [rate(step) for step in (1, 4, 54, 104)] == pytest.approx(rates)


def test_average_follows_its_formula():
    parameter = nn.Parameter(torch.zeros(3))
    ema = EMA([parameter], 0.7, inverse=True)
    expected = 0.0
    for updates in range(10):
        parameter.data.fill_(float(updates))
        decay = min(0.7, 1 - (1 + updates) ** (-2 / 3))
        expected = decay * expected + (1 - decay) * updates
        ema.update(updates)
    assert ema.averages[0][0].item() == pytest.approx(expected, rel=1e-5)
    with ema.applied():
        assert parameter[0].item() == pytest.approx(expected, rel=1e-5)
    assert parameter[0].item() == 9.0


def test_each_optimizer_moves():
    for name in ("adam", "adamw", "radam"):
        parameter = nn.Parameter(torch.ones(2))
        optimizer = make_optimizer([parameter], Plan(optimizer=name, learning_rate=0.1))
        for _ in range(8):
            optimizer.zero_grad()
            parameter.square().sum().backward()
            optimizer.step()
        assert parameter.abs().max() < 1


def test_plans_that_cannot_be_meant():
    for changes in (
        {"steps": 0},
        {"steps": 1, "epochs": 1.0},
        {"learning_rate": 0.0},
        {"ema_decay": 2.0},
        {"seed": -1},
    ):
        with pytest.raises(ValueError):
            Plan(**changes)
    with pytest.raises(ValueError, match="neither"):
        Plan().total_steps(3)
