"""`calogen presets`: the systems, their presets, and the values of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from calogen.cli.screen import say, table

if TYPE_CHECKING:
    from calogen.systems.system import Preset

CONFIG = "config"


def presets(
    name: Annotated[
        str | None, Parameter(metavar="NAME", help="The preset to print; SYSTEM/NAME where several have it.")
    ] = None,
) -> None:
    """List the systems and their presets, or print one as TOML.

    What is printed is what --config FILE.toml and --set KEY=VALUE of 'calogen train' change.
    """
    from calogen.overrides import nearest
    from calogen.systems import PRESETS, SYSTEMS

    if name is None:
        rows = [
            (system, preset, value.detector, value.about)
            for system in SYSTEMS
            for preset, value in PRESETS[system].items()
        ]
        table("Presets", ("system", "preset", "detector", "for"), rows, left=True)
        return
    full = {f"{system}/{preset}": value for system in SYSTEMS for preset, value in PRESETS[system].items()}
    matching = [key for key in full if name in (key, key.partition("/")[2])]
    if not matching:
        raise ValueError(f"unknown preset {name!r}: {nearest(name, [key.partition('/')[2] for key in full])}")
    if len(matching) > 1:
        raise ValueError(f"preset {name!r} is there for several systems: say which, {' or '.join(matching)}")
    preset = full[matching[0]]
    say(f"# {name}: {preset.about}\n\n{as_toml(targets(preset))}")


def presets_of(system: str) -> dict[str, Preset]:
    """The presets of one system, its default first.

    Raises:
        ValueError: no such system (naming the nearest).
    """
    from calogen.overrides import nearest
    from calogen.systems import PRESETS, SYSTEMS

    if system not in SYSTEMS:
        raise ValueError(f"unknown system {system!r}: {nearest(system, SYSTEMS)}")
    return PRESETS[system]


def targets(preset: Preset) -> dict[str, Any]:
    """What can be changed of a preset: its configuration under `config`, and the plan of each stage by its name."""
    return {CONFIG: preset.config, **preset.plans}


def as_toml(members: dict[str, Any]) -> str:
    """A table for each member; values that are none are comments, as TOML has no word for them."""
    from calogen.overrides import to_dict

    blocks = []
    for name, values in to_dict(members).items():
        lines = [f"# {key} = none" if v is None else f"{key} = {_value(v)}" for key, v in _flat(values)]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks)


def _value(value: Any) -> str:
    """As TOML writes it; a group in a list stands on its line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_value(v)}' for key, v in value.items())}}}"
    return json.dumps(value)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Values with dotted keys, where a value is a group of others."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return pairs
