"""Which particles to shoot: the options `simulate` and `sample` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclopts import Parameter

from calogen.cli.options import Angles, Count, Energy, Like, Pdg, Seed, Spectrum, read_energy, read_pdg

if TYPE_CHECKING:
    from calogen.data.incident import Incident


@Parameter(name="*")
@dataclass(frozen=True)
class Gun:
    """Incident particles, drawn or taken from a file."""

    number: Count = None
    pdg: Pdg = "22"
    energy: Energy = "10:90"
    spectrum: Spectrum = "uniform"
    angles: Angles = "perpendicular"
    like: Like = None
    seed: Seed = 0

    def incident(self) -> Incident:
        """The particles. Raises ValueError for options that make none."""
        from calogen.data.incident import Incident

        if self.seed < 0:
            raise ValueError(f"--seed {self.seed}: give a whole number of at least 0")
        if self.number is not None and self.number < 1:
            raise ValueError(f"-n {self.number}: give a number of showers of at least 1")
        if self.like is not None:
            return self._as_in_file()
        if self.number is None:
            raise ValueError("say how many showers with -n, or whose particles with --like FILE")
        return Incident.gun(
            self.number,
            pdg=read_pdg(self.pdg),
            energy=read_energy(self.energy),
            spectrum=self.spectrum,
            angles=self.angles,
            seed=self.seed,
        )

    def _as_in_file(self) -> Incident:
        from calogen.data.formats import batches
        from calogen.data.incident import Incident

        assert self.like is not None
        for name in ("pdg", "energy", "spectrum", "angles"):
            if getattr(self, name) != getattr(Gun, name):
                raise ValueError(f"--{name} and --like {self.like}: the file says it all; give one or the other")
        particles = Incident.concatenate([part.incident for part in batches(self.like)])
        if self.number is not None and self.number > len(particles):
            raise ValueError(f"-n {self.number}: {self.like} holds {len(particles)} showers; ask for at most as many")
        return particles[: self.number]
