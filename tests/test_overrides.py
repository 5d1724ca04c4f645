"""Overrides: types are checked, unknown keys name the nearest, nested values are reached."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from calogen.overrides import from_dict, override, to_dict
from calogen.train import Plan


@dataclass(frozen=True)
class Net:
    width: int = 64
    kind: Literal["mlp", "unet"] = "mlp"
    sizes: tuple[int, ...] = (1, 2)
    box: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Config:
    ecal: Net = field(default_factory=Net)
    hcal: Net | None = None
    rate: float | None = 0.5
    angles: bool = True
    label: str = "x"
    scales: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("changes", "read", "expected"),
    [
        ({"ecal.width": "32"}, lambda c: c.ecal.width, 32),
        ({"ecal.width": "1e3"}, lambda c: c.ecal.width, 1000),
        ({"ecal.kind": "unet"}, lambda c: c.ecal.kind, "unet"),
        ({"ecal.sizes": "3, 4,5"}, lambda c: c.ecal.sizes, (3, 4, 5)),
        ({"ecal.box": [1, 2]}, lambda c: c.ecal.box, (1.0, 2.0)),
        ({"ecal": {"width": 8}}, lambda c: c.ecal, Net(width=8)),
        ({"hcal": {"width": 8}}, lambda c: c.hcal, Net(width=8)),
        ({"rate": "none"}, lambda c: c.rate, None),
        ({"rate": "2e-4"}, lambda c: c.rate, 2e-4),
        ({"angles": "off"}, lambda c: c.angles, False),
        ({"label": "none"}, lambda c: c.label, "none"),
        ({"scales": {"a": "2"}}, lambda c: c.scales, {"a": 2.0}),
    ],
)
def test_values_are_coerced(changes, read, expected):
    value = read(override(Config(), changes))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ecal.widht": 1}, "unknown key 'ecal.widht': did you mean 'width'"),
        ({"zzz": 1}, "known: angles, ecal"),
        ({"ecal.width": "many"}, "ecal.width='many': expected int"),
        ({"ecal.width": 1.5}, "expected int"),
        ({"ecal.width": True}, "expected int"),
        ({"angles": "maybe"}, "expected bool"),
        ({"rate": "nan"}, "expected float"),
        ({"ecal.kind": "cnn"}, "expected one of mlp, unet"),
        ({"ecal.box": "1,2,3"}, "expected 2 values, found 3"),
        ({"ecal": "big"}, "expected a table"),
        ({"label.x": 1}, "has no keys"),
        ({"ecal.width": 1, "ecal": {"width": 2}}, "choose one"),
    ],
)
def test_what_does_not_fit_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        override(Config(), changes)
    assert "\n" not in str(error.value)


def test_members_of_a_mapping():
    plans = {"flow": Plan(steps=5), "points": Plan(epochs=2.0)}
    changed = override(plans, {"*.seed": "7", "flow.steps": "32", "points": {"steps": 9, "epochs": None}})
    assert (changed["flow"].steps, changed["flow"].seed, changed["points"].steps) == (32, 7, 9)
    assert plans["flow"].steps == 5
    with pytest.raises(ValueError, match="did you mean 'flow'"):
        override(plans, {"flw.steps": 1})
    with pytest.raises(ValueError, match="name a key"):
        override(plans, {"flow": 3})
    with pytest.raises(ValueError, match="steps or epochs, not both"):
        override(plans, {"flow.epochs": 3})


def test_json_round_trip():
    config = override(Config(), {"ecal.sizes": "7,8", "hcal": {"kind": "unet"}})
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config
    plan = Plan(steps=3, betas=(0.9, 0.95))
    assert from_dict(Plan, json.loads(json.dumps(to_dict(plan)))) == plan
    with pytest.raises(ValueError, match="did you mean 'label'"):
        from_dict(Config, {"lable": "x"})
