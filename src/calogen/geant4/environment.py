"""Is Geant4 there? Said in one line, before its package is imported and asks for anything."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, MutableMapping
from pathlib import Path

DATA_VARIABLE = "GEANT4_DATA_DIR"
LEVELS_VARIABLE = "G4LEVELGAMMADATA"

# Folder names Geant4 11.4 looks for under GEANT4_DATA_DIR. EM physics reads the first two; a hadronic list
# reads neutron and ion cross sections too. PhotonEvaporation may be absent (continuum de-excitation then),
# but its variable must be set.
EM_DATA = ("G4EMLOW8.8", "G4ENSDFSTATE3.0")
HADRONIC_DATA = ("G4PARTICLEXS4.2",)
LEVELS_DATA = "PhotonEvaporation6.1.2"


DOWNLOAD = f"env -u {DATA_VARIABLE} python -c 'import geant4_pybind'"
"""Command that offers to download all data sets to `OWN_FOLDER` (geant4-pybind asks when the variable is unset)."""

OWN_FOLDER = ".geant4_pybind"
"""Where geant4-pybind keeps the data sets it downloads, in the home folder."""


class Geant4Unavailable(RuntimeError):
    """Geant4 or its data cannot be used; the message is one line with the remedy."""


def prepare(hadronic: bool = False, environ: MutableMapping[str, str] | None = None) -> Path:
    """Check package and data, set the variables Geant4 reads where they are unset, return the data folder.

    Data that geant4-pybind has downloaded itself are found without any variable.

    Raises Geant4Unavailable with one line naming the variable to set or the command to run.
    """
    variables = os.environ if environ is None else environ
    if importlib.util.find_spec("geant4_pybind") is None:
        raise Geant4Unavailable("Geant4 is not installed: run pip install 'calogen[geant4]'")
    path = Path(variables.get(DATA_VARIABLE) or Path(variables.get("HOME", "")) / OWN_FOLDER)
    if not variables.get(DATA_VARIABLE) and not path.is_dir():
        raise Geant4Unavailable(
            f"{DATA_VARIABLE} is not set: set it to the folder with Geant4's data sets (G4EMLOW8.8, ...), "
            f"or run {DOWNLOAD}, which downloads them"
        )
    _require(path, EM_DATA + (HADRONIC_DATA if hadronic else ()))
    variables[DATA_VARIABLE] = str(path)
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
            f"data set {', '.join(missing)} missing in {DATA_VARIABLE}={folder}: set it to another folder, or run "
            f"{DOWNLOAD}, which downloads all data sets to ~/{OWN_FOLDER}"
        )
