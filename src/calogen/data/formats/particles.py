"""Incident particles in the files of others, where direction and kind are often left out."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calogen.data.formats.hdf5 import BadFile, dataset, has, same_length
from calogen.data.formats.writing import extend, growing
from calogen.data.incident import Incident

PERPENDICULAR = (0.0, 0.0, 1.0)


class IncidentColumns:
    """Energies `[N]` or `[N, 1]` with, where present, `direction` `[N, 3]` (or `[3, N]`) and `pdg` `[N]`.

    Missing directions are perpendicular, missing codes `default_pdg`.
    """

    def __init__(
        self,
        file: h5py.File,
        energy: str,
        *,
        gev: float,
        default_pdg: int,
        direction: str = "direction",
        pdg: str = "pdg",
    ) -> None:
        self._energy = dataset(file, energy, ndim=(1, 2))
        self._gev = gev
        self._default_pdg = default_pdg
        self.n = int(self._energy.shape[0])
        if self._energy.ndim == 2 and self._energy.shape[1] != 1:
            raise BadFile(f"{file.filename}: {energy}: has shape {self._energy.shape}, expected one energy a shower")
        self._direction = dataset(file, direction, kinds="f", ndim=2) if has(file, direction) else None
        self._transposed = self._direction is not None and self._direction.shape == (3, self.n) and self.n != 3
        if self._direction is not None and not self._transposed and self._direction.shape != (self.n, 3):
            raise BadFile(f"{file.filename}: {direction}: has shape {self._direction.shape}, expected ({self.n}, 3)")
        self._pdg = dataset(file, pdg, kinds="iu", ndim=1) if has(file, pdg) else None
        if self._pdg is not None:
            same_length(file, {pdg: self._pdg}, self.n)

    def load(self, start: int, stop: int) -> Incident:
        """Particles `start` to `stop`."""
        energy = self._energy[start:stop].reshape(-1) * self._gev
        if self._direction is None:
            direction = np.tile(PERPENDICULAR, (len(energy), 1))
        else:
            direction = self._direction[:, start:stop].T if self._transposed else self._direction[start:stop]
        pdg = np.full(len(energy), self._default_pdg) if self._pdg is None else self._pdg[start:stop]
        return Incident(energy, direction, pdg)


class IncidentRows:
    """The same columns being written: energies `[N, 1]`; directions and codes only if some differ from the defaults."""

    def __init__(
        self,
        file: h5py.File,
        energy: str,
        *,
        gev: float,
        default_pdg: int,
        direction: str = "direction",
        pdg: str = "pdg",
    ) -> None:
        self._file = file
        self._energy = growing(file, energy, (1,), np.float32)
        self._gev = gev
        self._defaults: dict[str, NDArray[Any]] = {
            direction: np.array([PERPENDICULAR], np.float32),
            pdg: np.array([default_pdg], np.int32),
        }

    def append(self, incident: Incident) -> None:
        """Add particles."""
        columns = (incident.direction, incident.pdg)
        for (name, default), values in zip(self._defaults.items(), columns, strict=True):
            if name not in self._file and np.any(values != default):
                rows = growing(self._file, name, default.shape[1:], default.dtype)
                extend(rows, np.repeat(default, self._energy.shape[0], axis=0))
            if name in self._file:
                extend(self._file[name], values)
        extend(self._energy, incident.energy[:, None] / self._gev)
