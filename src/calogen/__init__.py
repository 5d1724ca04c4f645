"""calogen: train, sample, judge and deploy generative models of calorimeter showers.

Names are imported when they are first used, so that the command line answers at once and only what needs PyTorch
loads it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calogen.data.formats import read, write
    from calogen.data.incident import Incident
    from calogen.data.showers import Showers
    from calogen.data.voxels import Voxels
    from calogen.detector.catalog import BOX_30, CATALOG, ILD, ILD_ECAL
    from calogen.detector.geometry import Detector
    from calogen.systems import SYSTEMS, load

__version__ = "0.1.0"

__all__ = [
    "BOX_30",
    "CATALOG",
    "ILD",
    "ILD_ECAL",
    "SYSTEMS",
    "Detector",
    "Incident",
    "Showers",
    "Voxels",
    "load",
    "read",
    "write",
]

_HOMES = {
    "calogen.data.formats": ("read", "write"),
    "calogen.data.incident": ("Incident",),
    "calogen.data.showers": ("Showers",),
    "calogen.data.voxels": ("Voxels",),
    "calogen.detector.catalog": ("BOX_30", "CATALOG", "ILD", "ILD_ECAL"),
    "calogen.detector.geometry": ("Detector",),
    "calogen.systems": ("SYSTEMS", "load"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'calogen' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
