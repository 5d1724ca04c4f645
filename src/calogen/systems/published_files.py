"""Files of published weights (the authors' arrays by their names, `.npz` or checkpoints of torch) as files of ours."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from calogen.systems.published_omnijet import TOKENIZER_NAMES, hit_autoencoder_from_omnijet
from calogen.systems.published_omnijet_gpt import is_of_generator, token_transformer_from_omnijet
from calogen.systems.published_points import (
    ALLSHOWERS_NAMES,
    COUNT_NAMES,
    HADRONIC_NAMES,
    count_mlp_from_pointcountfm,
    hadronic_transformer_from_calohadronic,
    is_of,
    point_transformer_from_allshowers,
)
from calogen.systems.published_weights import FLOW_NAME, coupling_flow_from_showerflow, point_net_from_caloclouds3
from calogen.train.checkpoint import prefixed, read_tensors, write_tensors

FORMAT = "calogen-published-weights"
POINT_NAME = re.compile(r"(?:^|\.)(?:layers\.\d+\._|timestep_embed\.)")
PERMUTATION_NAME = re.compile(r"(?:perm|arr_)(\d+)$")
CHECKPOINTS = (".pt", ".pth")
"""Suffixes of files that torch wrote."""

Arrays = dict[str, ArrayLike | Tensor]


class Model(NamedTuple):
    """A published model: whether an array is one of its weights, by its name, and its state dict under our names."""

    known: Callable[[str], bool]
    convert: Callable[[Arrays], dict[str, Tensor]]


MODELS = {
    "a CaloClouds point model": Model(lambda name: bool(POINT_NAME.search(name)), point_net_from_caloclouds3),
    "a PointCountFM": Model(partial(is_of, COUNT_NAMES), count_mlp_from_pointcountfm),
    "AllShowers": Model(partial(is_of, ALLSHOWERS_NAMES), point_transformer_from_allshowers),
    "a generator of OmniJet": Model(is_of_generator, token_transformer_from_omnijet),
    "a denoiser of CaloHadronic": Model(partial(is_of, HADRONIC_NAMES), hadronic_transformer_from_calohadronic),
    "a tokenizer of OmniJet-alpha_C": Model(partial(is_of, TOKENIZER_NAMES), hit_autoencoder_from_omnijet),
}


def convert(source: Path, permutations: Path | None = None) -> dict[str, Tensor]:
    """Tensors by our names from an authors' file: `.npz`, or a checkpoint of torch (`.pt`, `.pth`).

    Groups before a `/` (student_ema, others/model_ema, ...) stay in front: `student_ema/layers.0.map.weight`; what is
    no weight is left out. A flow also needs its permutations, from the same file or from `permutations`. Checkpoints
    are read as tensors and plain values alone; nothing in them is run.

    Raises:
        ValueError: no such file, not a readable one, no weights of a model known here, or a flow without permutations.
    """
    arrays = _arrays(source)
    orders = _permutations(_arrays(permutations) if permutations else arrays)
    tensors: dict[str, Tensor] = {}
    for group, weights in _groups(arrays).items():
        model = _model_of(weights)
        if model is not None:
            tensors |= _named(group, model.convert({name: w for name, w in weights.items() if model.known(name)}))
        elif any(FLOW_NAME.search(name) for name in weights):
            if not orders:
                raise ValueError(f"{source}: a flow without its permutations; give the file that holds them")
            flow = {name: w for name, w in weights.items() if FLOW_NAME.search(name)}
            tensors |= _named(group, coupling_flow_from_showerflow(flow, orders))
    if not tensors:
        raise ValueError(f"{source}: holds no weights of {', '.join(MODELS)} or a ShowerFlow")
    return tensors


def _model_of(weights: Arrays) -> Model | None:
    """The model of which most of the arrays are; None if none of them is of any."""
    found = {name: sum(map(model.known, weights)) for name, model in MODELS.items()}
    most = max(found, key=lambda name: found[name])
    return MODELS[most] if found[most] else None


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
        raise ValueError(f"{path}: no such file; give the authors' weights, a .npz or a checkpoint of torch")
    try:
        if path.suffix in CHECKPOINTS:
            # The authors keep their arguments beside the weights: a Namespace holds values and does nothing.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return dict(_tensors(torch.load(path, weights_only=True, map_location="cpu")))
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, RuntimeError, UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable file of weights ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """What went wrong in a few words; torch's advice to read such a file unsafely is not passed on."""
    if isinstance(error, UnpicklingError):
        return "it holds more than tensors and plain values, or is damaged"
    return " ".join(str(error).split())[:LONGEST_REASON]


LONGEST_REASON = 200


def _tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested dictionaries, by the keys that lead to them."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{path}/{key}" if path else str(key))


def _groups(arrays: Arrays) -> dict[str, Arrays]:
    groups: dict[str, Arrays] = {}
    for name, array in arrays.items():
        group, slash, rest = name.rpartition("/")
        groups.setdefault(group if slash else "", {})[rest] = array
    return groups


def _permutations(arrays: Arrays) -> list[NDArray[Any]]:
    numbered = {int(m[1]): np.asarray(arrays[name]) for name in arrays if (m := PERMUTATION_NAME.search(name))}
    return [numbered[k] for k in sorted(numbered)]


def _named(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return prefixed(group, tensors) if group else tensors
