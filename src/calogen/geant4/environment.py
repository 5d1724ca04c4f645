"""Is Geant4 there? Said in one line, before its package is imported and asks for anything."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

DATA_VARIABLE = "GEANT4_DATA_DIR"
LEVELS_VARIABLE = "G4LEVELGAMMADATA"

# Folder names Geant4 11.4 looks for under GEANT4_DATA_DIR. EM physics reads the first two; a hadronic list
# reads neutron and ion cross sections too. PhotonEvaporation may be absent (continuum de-excitation then),
# but its variable must be set.
EM_DATA = ("G4EMLOW8.8", "G4ENSDFSTATE3.0")
HADRONIC_DATA = ("G4PARTICLEXS4.2",)
LEVELS_DATA = "PhotonEvaporation6.1.2"


class Geant4Unavailable(RuntimeError):
    """Geant4 or its data cannot be used; the message is one line with the remedy."""


def prepare(hadronic: bool = False, environ: dict[str, str] | None = None) -> Path:
    """Check package and data, set what is still unset, return the data folder.

    Raises Geant4Unavailable with one line naming the variable to set or the command to run.
    """
    variables: dict[str, str] | os._Environ[str] = os.environ if environ is None else environ
    if importlib.util.find_spec("geant4_pybind") is None:
        raise Geant4Unavailable("Geant4 is not installed: run `pip install 'calogen[geant4]'`")
    folder = variables.get(DATA_VARIABLE, "")
    if not folder:
        raise Geant4Unavailable(
            f"{DATA_VARIABLE} is not set: set it to the folder with Geant4's data sets (G4EMLOW8.8, ...), "
            f"or run `{DATA_VARIABLE}=$HOME/geant4-data python -c 'import geant4_pybind'`, which downloads them there"
        )
    path = Path(folder)
    _require(path, EM_DATA + (HADRONIC_DATA if hadronic else ()))
    variables.setdefault(LEVELS_VARIABLE, str(path / LEVELS_DATA))
    return path


def _require(folder: Path, names: Iterable[str]) -> None:
    if not folder.is_dir():
        raise Geant4Unavailable(
            f"{DATA_VARIABLE}={folder} is not a folder: set it to the folder with Geant4's data sets"
        )
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise Geant4Unavailable(
            f"data set {', '.join(missing)} missing in {DATA_VARIABLE}={folder}: "
            f"download from https://geant4.web.cern.ch/download and unpack it there"
        )
