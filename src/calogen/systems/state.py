"""State: a fitted system in ONE safetensors file, weights and a JSON header that says what, from what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calogen.train.checkpoint import below, load_module, prefixed, read_tensors, write_tensors

FORMAT = "calogen-state"
FORMAT_VERSION = 1
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
HEADER_TYPES: dict[str, type] = {
    "system": str,
    "config": dict,
    "detector": dict,
    "transforms": dict,
    "provenance": dict,
    "dtype": str,
}


@dataclass(frozen=True)
class State:
    """What `System.save` writes. Tensors are named `part/parameter`."""

    tensors: Mapping[str, Tensor]
    system: str
    config: Mapping[str, Any]
    detector: Mapping[str, Any]
    transforms: Mapping[str, Any]  # for readers; the fitted numbers are among the tensors
    provenance: Mapping[str, Any]  # plans, training data, versions, command, date, time and memory of each stage
    dtype: str = "float32"  # in which parameters are stored (buffers are stored as they are)

    def header(self) -> dict[str, Any]:
        """The JSON header."""
        fields = {name: getattr(self, name) for name in HEADER_TYPES}
        return {"format": FORMAT, "version": FORMAT_VERSION, **fields}

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the file atomically. Raises ValueError if it exists (without `overwrite`)."""
        path = Path(path)
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists: choose another name, or --overwrite")
        write_tensors(path, self.tensors, self.header())

    @classmethod
    def read(cls, path: str | Path) -> State:
        """Read and check a file.

        Raises ValueError in one line: no such file, not a state, damaged, another format version, NaN weights.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; expected a state written by `calogen train`")
        tensors, header = read_tensors(path)
        if header.get("format") != FORMAT:
            raise ValueError(f"{path}: a file of calogen, but not a trained state (perhaps a checkpoint of a run)")
        if header.get("version") != FORMAT_VERSION:
            raise ValueError(
                f"{path}: state format {header.get('version')!r}, this calogen reads {FORMAT_VERSION}; "
                "use the calogen that wrote it, or train again"
            )
        for name, kind in HEADER_TYPES.items():
            if not isinstance(header.get(name), kind):
                raise ValueError(f"{path}: header entry {name!r} is missing or not a {kind.__name__}")
        _refuse_nan(tensors, str(path))
        return cls(tensors, **{name: header[name] for name in HEADER_TYPES})

    def load_into(self, parts: Mapping[str, nn.Module], where: str) -> None:
        """Copy the tensors into the parts of a system; ValueError if names or shapes are not exactly theirs."""
        stored = {name.partition("/")[0] for name in self.tensors}
        expected = {name for name, part in parts.items() if part.state_dict()}
        if stored != expected:
            raise ValueError(f"{where}: has parts {sorted(stored)}, the system {self.system!r} has {sorted(expected)}")
        for name, part in parts.items():
            load_module(part, below(name, self.tensors), f"{where}: {name}")


def gather(parts: Mapping[str, nn.Module], dtype: str) -> dict[str, Tensor]:
    """All tensors of the parts, float32 parameters stored as `dtype`; ValueError if one is not finite then."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        parameters = {key for key, _ in part.named_parameters(remove_duplicate=False)}
        own = {key: _stored(t, DTYPES[dtype]) if key in parameters else t for key, t in part.state_dict().items()}
        tensors |= prefixed(name, own)
        for key in parameters:
            if not bool(torch.isfinite(own[key]).all()):
                raise ValueError(f"{name}/{key} is not finite in {dtype}: not saved")
    _refuse_nan(tensors, "the system")
    return tensors


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype) if tensor.dtype == torch.float32 else tensor.detach()


def _refuse_nan(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise ValueError(f"{where}: {name} contains NaN")
