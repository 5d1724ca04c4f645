"""Options that several commands share, each written once with its unit, and how their text is read."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

MAX_CONFIG_BYTES = 1_000_000
STATE_FILE = "state.safetensors"
"""What a training leaves in its directory."""


class EnergyRange(NamedTuple):
    """Lowest and highest energy, GeV."""

    low: float
    high: float


def read_energy(text: str) -> EnergyRange:
    """`10:90`, or `50` for one energy.

    >>> read_energy("1:127")
    EnergyRange(low=1.0, high=127.0)
    """
    low, colon, high = text.partition(":")
    try:
        pair = EnergyRange(float(low), float(high if colon else low))
    except ValueError:
        raise ValueError(f"--energy {text}: give LOW:HIGH or one value in GeV, for example 10:90") from None
    if not (0 < pair.low <= pair.high < math.inf):
        raise ValueError(f"--energy {text}: needs 0 < LOW <= HIGH in GeV, for example 10:90")
    return pair


def read_pdg(text: str) -> tuple[int, ...]:
    """`22`, or several codes with commas: `11,22`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--pdg {text}: give PDG codes, for example 22 (photon) or 211,-211") from None


def read_field(text: str) -> tuple[float, float, float]:
    """`3.5,0,0`: three components in tesla."""
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--field-tesla {text}: give X,Y,Z in tesla, for example 3.5,0,0") from None
    return x, y, z


def read_state(text: str) -> str:
    """Name of a shipped state or path of one; for the directory of a training, its state."""
    if not Path(text).is_dir():
        return text
    from calogen.systems import WEIGHTS

    if (WEIGHTS / f"{text}{Path(STATE_FILE).suffix}").is_file():
        return text
    if not (Path(text) / STATE_FILE).is_file():
        raise ValueError(
            f"{text}: a directory without {STATE_FILE}: the training has not finished, go on with it or give another"
        )
    return str(Path(text) / STATE_FILE)


def read_output(out: Path | None, output: Path | None) -> Path:
    """The new file, given either as the last word or with -o."""
    if out is not None and output is not None:
        raise ValueError(f"two names for the new file, {out} and {output}: give OUT or -o OUT, not both")
    if out is None and output is None:
        raise ValueError("no name for the new file: give it as the last word, OUT, or with -o OUT")
    return out or output or Path()


Count = Annotated[int | None, Parameter(name=("--number", "-n"), metavar="N", help="How many showers.")]
Pdg = Annotated[
    str,
    Parameter(
        metavar="CODE",
        allow_leading_hyphen=True,
        help="PDG code: 22 photon, 11 electron, 211 pi+, 2112 neutron; several with commas, taken in turn.",
    ),
]
Energy = Annotated[str, Parameter(metavar="LOW:HIGH", help="Kinetic energy, GeV: a range LOW:HIGH, or one value.")]
Spectrum = Annotated[
    Literal["uniform", "log"], Parameter(help="Energies between LOW and HIGH: uniform in E, or in log E.")
]
Angles = Annotated[
    str,
    Parameter(
        metavar="HOW",
        help="Directions: perpendicular; fixed:THETA,PHI (degrees from the normal and about it); "
        "cone:DEG (uniform in solid angle within so many degrees of the normal); barrel (from the interaction point "
        "onto ILD's barrel: cotangents of polar angle, 30 to 150, and azimuth, 80 to 110, uniform; normal at 90, 90).",
    ),
]
Seed = Annotated[int, Parameter(help="Same seed, same showers.")]
Like = Annotated[
    Path | None, Parameter(metavar="FILE", help="Take the incident particles of this file instead (GeV, directions).")
]
Output = Annotated[Path, Parameter(name=("--output", "-o"), metavar="PATH", help="Where to write.")]
Out = Annotated[Path | None, Parameter(metavar="OUT", show_default=False, help="The new file; -o OUT does as well.")]
OutputToo = Annotated[
    Path | None, Parameter(name=("--output", "-o"), metavar="OUT", help="The new file, where OUT is not given.")
]
Overwrite = Annotated[
    bool, Parameter(negative="", help="Replace what is there; without it an existing output is an error.")
]
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"), negative="", help="Print nothing but errors.")]
Set = Annotated[
    list[str] | None,
    Parameter(name="--set", negative="", metavar="KEY=VALUE", help="Change one value; may be repeated."),
]
ConfigFile = Annotated[
    Path | None, Parameter(name="--config", metavar="FILE.toml", help="A TOML file of values to change.")
]
Threads = Annotated[
    int | None, Parameter(metavar="N", help="Threads of one process; default: OMP_NUM_THREADS, or all cores.")
]
Device = Annotated[str, Parameter(metavar="NAME", help="cpu, cuda, cuda:1 or mps.")]


def differences(config: Path | None, settings: Sequence[str] | None) -> dict[str, object]:
    """What `--config` and `--set` change, by dotted key; `--set` wins."""
    changes: dict[str, object] = _toml(config) if config else {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set {setting}: give KEY=VALUE, for example --set points.steps=2000")
        changes[key.strip()] = value.strip()
    return changes


def _toml(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise ValueError(f"--config {path}: no such file; give a TOML file of differences")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"--config {path}: larger than {MAX_CONFIG_BYTES} bytes; not a file of differences")
    try:
        return _dotted(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {path}: not TOML: {error}") from None


def _dotted(table: dict[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def use_threads(threads: int | None) -> None:
    """Let PyTorch use so many threads."""
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"--threads {threads}: give a number of at least 1")
    import torch

    torch.set_num_threads(threads)
