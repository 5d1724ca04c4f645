"""What a fit is - plans, data, models - and in words how another one differs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calogen.overrides import to_dict
from calogen.train.plan import Plan
from calogen.train.stage import Stage

if TYPE_CHECKING:
    from calogen.data.showers import Showers

MOST_NAMED = 4
"""Differences named in one line; the rest are counted."""


def identity_of(
    stages: Sequence[Stage],
    train: Showers,
    validation: Showers | None,
    plans: Mapping[str, Plan],
    devices: int,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """All that must be equal for a fit to go on where another one was; `more` is what the caller adds."""
    return {
        "plans": to_dict(plans),
        "shards": {stage.name: max(plans[stage.name].shards, devices) for stage in stages},
        "models": {stage.name: _shapes(stage) for stage in stages},
        "training_showers": {"number": len(train), "hash": fingerprint(train)},
        "validation_showers": {
            "number": 0 if validation is None else len(validation),
            "hash": fingerprint(validation),
        },
        "more": to_dict(more),
    }


def fingerprint(data: Any) -> str:
    """A hash of all arrays and plain values of a dataclass (showers, incident particles, detector), nested ones too."""
    digest = hashlib.blake2b(digest_size=16)
    _hash_into(digest, data)
    return digest.hexdigest()


def _hash_into(digest: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            digest.update(field.name.encode())
            _hash_into(digest, getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            _hash_into(digest, item)
    else:
        digest.update(repr(value).encode())


def _shapes(stage: Stage) -> str:
    shapes = [f"{name}{tuple(tensor.shape)}{tensor.dtype}" for name, tensor in stage.model.state_dict().items()]
    return hashlib.blake2b("\n".join(shapes).encode(), digest_size=8).hexdigest()


def require_same(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError if `now` is not the fit that was started in `folder`, saying in words what differs."""
    words = list(_in_words(then, now))
    if words:
        more = [f"{len(words) - MOST_NAMED} more differences"] if len(words) > MOST_NAMED else []
        raise ValueError(
            f"{folder} holds another fit ({'; '.join(words[:MOST_NAMED] + more)}): start that one again to go on "
            "with it, use another directory, or --overwrite to begin anew"
        )


def _in_words(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Each difference once, by its cause: another detector, for instance, has other showers and models."""
    changes = {where: values for where, *values in _changes(then, now, "")}
    if "more.detector" in changes:
        yield "another detector"
        changes = {k: v for k, v in changes.items() if k.startswith("plans")}
    for part in ("training", "validation"):
        number = changes.pop(f"{part}_showers.number", None)
        other = changes.pop(f"{part}_showers.hash", None)
        if number:
            yield f"{part} showers: {number[0]} then, {number[1]} now"
        elif other:
            yield f"{part} showers: as many, but others (other files, or another --seed or --validation)"
    settings = {k: v for k, v in changes.items() if not k.startswith("models.")}
    for where, (before, after) in settings.items():
        name = where.removeprefix("plans.").removeprefix("more.")
        yield f"{name} was {_short(before)}, is {_short(after)}"
    if not settings:
        for where in changes:
            yield f"the model of stage {where.partition('.')[2]} has other weights"


def _changes(then: Any, now: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from _changes(then.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif then != now:
        yield where, then, now


def _short(value: Any, limit: int = 60) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
