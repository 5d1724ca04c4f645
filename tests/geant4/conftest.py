"""One small simulated sample that the physics tests share."""

import os
from pathlib import Path

import numpy as np
import pytest

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.geant4.environment import DATA_VARIABLE
from calogen.geant4.run import simulate


@pytest.fixture(scope="session")
def geant4(shared: Path) -> Path:
    """Geant4's data folder, in the environment of this process and its workers."""
    folder = Path(os.environ.get(DATA_VARIABLE, shared / "geant4-data"))
    os.environ[DATA_VARIABLE] = str(folder)
    pytest.importorskip("geant4_pybind")
    return folder


@pytest.fixture(scope="session")
def perpendicular(geant4: Path) -> Showers:
    """24 photons at evenly spaced energies between 10 and 100 GeV, as the published histograms have them."""
    n = 24
    energies = 10 + 90 * (np.arange(n) + 0.5) / n
    incident = Incident(energies, np.tile([0.0, 0.0, 1.0], (n, 1)), np.full(n, 22))
    return simulate("ild-ecal", incident, seed=11, workers=2, shard_size=4)
