"""How exactly our files keep points: losslessly, or positions to 0.1 mm and energies to 0.05 %."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

STEPS_PER_MM = 10
MAX_CODED_MM = np.iinfo(np.int16).max / STEPS_PER_MM

ENERGY_LOG_STEP = 9.99e-4
"""Step of ln(energy): rounding to it changes an energy by at most exp(step / 2) - 1 < 0.05 %."""
LOWEST_CODED_GEV = 1e-15
"""Energy of code 1 (a micro-eV); code 0 is zero exactly. 65535 codes reach beyond any energy."""


@dataclass(frozen=True)
class Column:
    """One coded column: its stored type, what it means, and the two directions."""

    dtype: DTypeLike
    meaning: str
    encode: Callable[[NDArray[Any]], NDArray[Any]]
    decode: Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Precision:
    """A named way to keep points; columns not coded are kept as they are."""

    name: str
    target_share: float
    """Size to aim at, as a share of plain float32 columns (what a showerdata file holds)."""
    coded: dict[str, Column] = field(default_factory=dict)

    def stored(self, column: str) -> np.dtype[Any]:
        """Type of a column in the file."""
        if column in self.coded:
            return np.dtype(self.coded[column].dtype)
        return np.dtype(np.int16 if column == "layer" else np.float32)

    def meaning(self, column: str) -> str:
        """What a reader without this library must know about the column."""
        return self.coded[column].meaning if column in self.coded else PLAIN_MEANING[column]

    def encode(self, column: str, values: NDArray[Any]) -> NDArray[Any]:
        """Values as stored; raises ValueError if they do not fit."""
        return self.coded[column].encode(values) if column in self.coded else values

    def decode(self, column: str, values: NDArray[Any]) -> NDArray[Any]:
        """Values as used (mm, GeV, ns), the inverse of `encode` within the precision."""
        return self.coded[column].decode(values) if column in self.coded else values


PLAIN_MEANING = {
    "x": "mm",
    "y": "mm",
    "layer": "0-based layer of the detector",
    "energy": "GeV",
    "time": "ns",
}


def encode_position(mm: NDArray[Any]) -> NDArray[np.int16]:
    """Positions in units of 0.1 mm; raises ValueError beyond 3.2 m."""
    if mm.size and np.abs(mm).max() > MAX_CODED_MM:
        raise ValueError(
            f"a position of {np.abs(mm).max():g} mm exceeds {MAX_CODED_MM:g} mm; "
            "use the exact precision for such showers"
        )
    return np.rint(mm * np.float32(STEPS_PER_MM)).astype(np.int16)


def decode_position(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Positions in mm."""
    return np.true_divide(stored, STEPS_PER_MM, dtype=np.float32)


def _energy_of_code() -> NDArray[np.float32]:
    codes = np.arange(np.iinfo(np.uint16).max + 1, dtype=np.float64)
    energy = LOWEST_CODED_GEV * np.exp((codes - 1) * ENERGY_LOG_STEP)
    energy[0] = 0.0
    return energy.astype(np.float32)


ENERGY_OF_CODE = _energy_of_code()


def encode_energy(gev: NDArray[Any]) -> NDArray[np.uint16]:
    """Logarithmic codes of energies; raises ValueError below a micro-eV (other than zero)."""
    positive = gev > 0
    low = gev[positive].min(initial=LOWEST_CODED_GEV)
    if low < LOWEST_CODED_GEV:
        raise ValueError(
            f"an energy of {low:g} GeV is below {LOWEST_CODED_GEV:g} GeV; use the exact precision for such showers"
        )
    code = np.zeros(gev.shape, dtype=np.uint16)
    code[positive] = 1 + np.rint(np.log(gev[positive] / LOWEST_CODED_GEV) / ENERGY_LOG_STEP).astype(np.uint16)
    return code


def decode_energy(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Energies in GeV."""
    return ENERGY_OF_CODE[stored]


EXACT = Precision("exact", target_share=0.58)
COMPACT = Precision(
    "compact",
    0.32,
    {
        "x": Column(np.int16, "units of 0.1 mm", encode_position, decode_position),
        "y": Column(np.int16, "units of 0.1 mm", encode_position, decode_position),
        "energy": Column(
            np.uint16,
            f"0: 0 GeV; code k: {LOWEST_CODED_GEV} GeV exp((k - 1) {ENERGY_LOG_STEP})",
            encode_energy,
            decode_energy,
        ),
    },
)
PRECISIONS = {p.name: p for p in (EXACT, COMPACT)}
