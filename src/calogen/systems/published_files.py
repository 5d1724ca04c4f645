"""Files of published weights (`.npz` of the authors' arrays by their names) as files of ours."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from calogen.systems.published_weights import FLOW_NAME, coupling_flow_from_showerflow, point_net_from_caloclouds3
from calogen.train.checkpoint import prefixed, read_tensors, write_tensors

FORMAT = "calogen-published-weights"
POINT_NAME = re.compile(r"(?:^|\.)(?:layers\.\d+\._|timestep_embed\.)")
PERMUTATION_NAME = re.compile(r"(?:perm|arr_)(\d+)$")

Arrays = dict[str, NDArray[Any]]


def convert(source: Path, permutations: Path | None = None) -> dict[str, Tensor]:
    """Tensors by our names from an authors' file.

    Groups before a `/` (student_ema, teacher, ...) stay in front: `student_ema/layers.0.map.weight`; arrays that are
    no weights are left out. A flow also needs its permutations, from the same file or from `permutations`.

    Raises:
        ValueError: no such file, not a .npz, no weights of a model known here, or a flow without permutations.
    """
    arrays = _arrays(source)
    orders = _permutations(_arrays(permutations) if permutations else arrays)
    tensors: dict[str, Tensor] = {}
    for group, weights in _groups(arrays).items():
        if any(POINT_NAME.search(name) for name in weights):
            tensors |= _named(group, point_net_from_caloclouds3(weights))
        elif any(FLOW_NAME.search(name) for name in weights):
            if not orders:
                raise ValueError(f"{source}: a flow without its permutations; give the file that holds them")
            tensors |= _named(group, coupling_flow_from_showerflow(weights, orders))
    if not tensors:
        raise ValueError(f"{source}: holds no weights of a CaloClouds point model or ShowerFlow")
    return tensors


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write converted weights, with `facts` in the header."""
    write_tensors(path, tensors, {"format": FORMAT, **facts})


def read(path: Path, group: str = "") -> dict[str, Tensor]:
    """The state dict of a group of a file made by `write`.

    Raises:
        ValueError: not such a file, or no such group.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise ValueError(f"{path}: not a file of converted weights")
    start = f"{group}/" if group else ""
    found = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
    if not found:
        groups = sorted({name.partition("/")[0] for name in tensors if "/" in name})
        raise ValueError(f"{path}: no weights {group!r}; it holds {', '.join(groups) or 'one group without a name'}")
    return found


def _arrays(path: Path) -> Arrays:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a .npz of the authors' arrays")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz ({' '.join(str(error).split())})") from None


def _groups(arrays: Arrays) -> dict[str, Arrays]:
    groups: dict[str, Arrays] = {}
    for name, array in arrays.items():
        group, slash, rest = name.rpartition("/")
        if POINT_NAME.search(rest) or FLOW_NAME.search(rest):
            groups.setdefault(group if slash else "", {})[rest] = array
    return groups


def _permutations(arrays: Arrays) -> list[NDArray[Any]]:
    numbered = {int(m[1]): arrays[name] for name in arrays if (m := PERMUTATION_NAME.search(name))}
    return [numbered[k] for k in sorted(numbered)]


def _named(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return prefixed(group, tensors) if group else tensors
