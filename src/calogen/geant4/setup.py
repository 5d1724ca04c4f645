"""Setup: what Geant4 simulates besides the particles, checked before Geant4 is asked."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from calogen.data.incident import Incident
from calogen.geant4.stack import Stack

EM = "em"
"""Name of the electromagnetic-only physics (G4EmStandardPhysics, option 0)."""

REFERENCE_LISTS = (
    "FTFP_BERT",
    "FTFP_BERT_ATL",
    "FTFP_BERT_HP",
    "FTFP_BERT_TRV",
    "FTFP_INCLXX",
    "FTFP_INCLXX_HP",
    "FTF_BIC",
    "LBE",
    "NuBeam",
    "QBBC",
    "QGSP_BERT",
    "QGSP_BERT_HP",
    "QGSP_BIC",
    "QGSP_BIC_AllHP",
    "QGSP_BIC_HP",
    "QGSP_FTFP_BERT",
    "QGSP_INCLXX",
    "QGSP_INCLXX_HP",
    "QGS_BIC",
    "Shielding",
)
"""Those of Geant4 11.4's reference physics lists (`G4PhysListFactory`) that geant4-pybind has a class of."""

EM_PDG = frozenset({22, 11, -11, 13, -13})
"""What electromagnetic physics alone describes; anything else needs a reference list with hadrons."""


@dataclass(frozen=True)
class Setup:
    """What Geant4 simulates besides the particles.

    ``physics`` "em" or a reference list; ``field_tesla`` in the local frame (None: the stack's own);
    ``cut_mm`` production cut; ``time_cut_ns`` deposits later are dropped; ``birks_mm_per_mev`` Birks' constant
    of the sensitive materials that scintillate (polystyrene 0.126); ``keep_time`` points get the time of their
    highest deposit.
    """

    stack: Stack
    physics: str = EM
    field_tesla: tuple[float, float, float] | None = None
    cut_mm: float = 0.7
    time_cut_ns: float | None = None
    birks_mm_per_mev: float | None = None
    keep_time: bool = False

    def __post_init__(self) -> None:
        _check_physics(self.physics)
        for name in ("cut_mm", "time_cut_ns", "birks_mm_per_mev"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} {value} must be positive")

    @property
    def field(self) -> tuple[float, float, float]:
        """The magnetic field in tesla."""
        return self.stack.field_tesla if self.field_tesla is None else self.field_tesla

    @property
    def hadronic(self) -> bool:
        """Whether the physics list holds hadronic processes."""
        return self.physics != EM

    def check(self, incident: Incident) -> None:
        """Refuse particles the physics list does not describe."""
        unknown = sorted({int(code) for code in np.unique(incident.pdg)} - EM_PDG)
        if not self.hadronic and unknown:
            raise ValueError(
                f"physics 'em' does not describe pdg {unknown[0]}: choose a reference list such as FTFP_BERT"
            )


def _check_physics(name: str) -> None:
    """Refuse, before Geant4 starts, what is no physics list, naming those of similar names."""
    known = {known.upper(): known for known in (EM, *REFERENCE_LISTS)}
    if name not in known.values():
        close = [known[match] for match in difflib.get_close_matches(name.upper(), known, n=3)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known.values())}"
        raise ValueError(f"physics {name!r} is neither 'em' nor a reference list of Geant4; {hint}")
