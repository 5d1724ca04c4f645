"""Provenance: which command, when and with which versions something was made."""

from __future__ import annotations

import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("calogen", "torch", "numpy", "geant4-pybind")


def provenance(**facts: Any) -> dict[str, Any]:
    """`facts`, with the command line, the time (UTC) and the versions that made what they describe.

    >>> sorted(provenance(seed=1))
    ['command', 'created', 'seed', 'versions']
    """
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        **facts,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
