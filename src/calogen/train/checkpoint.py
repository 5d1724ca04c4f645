"""Tensors and numbers on disk, atomically: one safetensors file with a JSON header, never half written, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

HEADER_KEY = "calogen"  # entry of the safetensors metadata with our JSON
CHECKSUM_KEY = "checksum"  # BLAKE2b over our JSON and every tensor
MAX_HEADER_BYTES = 16 * 1024 * 1024  # the safetensors header; a state of a million tensors would fit


def unfinished(path: Path) -> Path:
    """Where the content of `path` is until it is whole."""
    return path.with_name(path.name + ".tmp")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: temporary name, fsync, rename, fsync of the folder."""
    temporary = unfinished(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Atomically write `value` as indented JSON."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Atomically write tensors and a JSON header with a checksum over both."""
    # A clone each: safetensors refuses tensors that share memory, and models do share (tied weights).
    cpu = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    write_bytes(path, save_tensors(cpu, metadata={HEADER_KEY: text, CHECKSUM_KEY: _checksum(text, cpu)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and header of a file made by `write_tensors`.

    Raises ValueError in one line if it is not such a file, is cut short, or does not agree with its checksum.
    """
    content = path.read_bytes()
    metadata = _metadata(path, content)
    if HEADER_KEY not in metadata or CHECKSUM_KEY not in metadata:
        raise ValueError(f"{path}: a safetensors file, but not one written by calogen (no {HEADER_KEY!r} header)")
    try:
        tensors = load_tensors(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: broken safetensors file ({_one_line(error)})") from None
    if _checksum(metadata[HEADER_KEY], tensors) != metadata[CHECKSUM_KEY]:
        raise ValueError(f"{path}: damaged, its content disagrees with its checksum; fetch or save it again")
    header = json.loads(metadata[HEADER_KEY])
    if not isinstance(header, dict):
        raise ValueError(f"{path}: the header is not a JSON object")
    return tensors, header


def _metadata(path: Path, content: bytes) -> dict[str, str]:
    """The string metadata of a safetensors file, its sizes checked first (format: 8-byte length, JSON, data)."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError(f"{path}: not a safetensors file, or cut short ({len(content)} bytes)")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"{path}: header of {length} bytes is above the limit of {MAX_HEADER_BYTES}")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not a safetensors file (its header is not JSON)") from None
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{path}: not a safetensors file (its metadata is not a table of strings)")
    return metadata


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode("utf-8", "surrogatepass"))
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names that start with `prefix` and a slash."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors whose names start with `prefix` and a slash, without it."""
    start = prefix + "/"
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy a state dict into `module`, names and shapes exactly equal. ValueError in one line otherwise."""
    own = module.state_dict()
    missing = sorted(set(own) - set(tensors))
    unexpected = sorted(set(tensors) - set(own))
    if missing or unexpected:
        raise ValueError(f"{where}: tensors missing {_some(missing)}; unexpected {_some(unexpected)}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{where}: {name} has shape {tuple(tensor.shape)}, expected {tuple(own[name].shape)}")
    module.load_state_dict(dict(tensors), strict=True)


def _some(names: list[str], limit: int = 3) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + rest) if names else "none"


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's memory as flat names `<parameter number>.<key>`, scalars as float64 tensors."""
    flat = {}
    for index, memory in optimizer.state_dict()["state"].items():
        for key, value in memory.items():
            flat[f"{index}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    return flat


def load_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; parameter groups stay those of `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
