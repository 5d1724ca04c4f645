"""Differences to a frozen dataclass: `override(plan, {"ecal.steps": "32"})`, checked against its types.

A configuration is a typed dataclass, and everything that changes one (a command line, a TOML file, the header of a
stored state) passes here: unknown keys are refused with the nearest known one, values are coerced only where
nothing is lost.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})
NONE_WORDS = frozenset({"none", "null", ""})
EVERY_MEMBER = "*"  # "*.seed": the key of all members of a mapping


def override(target: T, changes: Mapping[str, object]) -> T:
    """A copy of `target` with the dotted keys of `changes` replaced.

    `target` is a (nested) dataclass or a mapping from names to dataclasses, where the name `*` means every member.
    Values are Python objects or the strings of a command line. Raises ValueError, in one line, for an unknown key
    (naming the nearest), a value of another type, or what the dataclass itself refuses.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Plan:
    ...     steps: int = 10
    >>> override({"ecal": Plan()}, {"ecal.steps": "32"})
    {'ecal': Plan(steps=32)}
    """
    return _override(target, changes, "")


def from_dict(cls: type[T], values: Mapping[str, object], where: str = "") -> T:
    """An instance of dataclass `cls` from nested mappings (what `to_dict` or JSON or TOML gave).

    Fields left out take their defaults. Raises ValueError in one line: unknown or missing key, wrong type.
    """
    hints = _fields(cls)
    for key in values:
        _require_known(key, hints, where)
    arguments = {key: _coerce(value, hints[key], _join(where, key)) for key, value in values.items()}
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ValueError(f"{where or cls.__name__}: {error}") from None


def to_dict(value: Any) -> Any:
    """Plain JSON types (dict, list, str, float, ...) from dataclasses, mappings, tuples and their nestings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return value


def nearest(word: str, known: Any) -> str:
    """A hint for an error message: `; did you mean 'steps'?` or the list of what is known."""
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def _override(target: Any, changes: Mapping[str, object], where: str) -> Any:
    grouped = _group(changes, where)
    if isinstance(target, Mapping):
        return _override_members(target, grouped, where)
    if not dataclasses.is_dataclass(target) or isinstance(target, type):
        raise ValueError(f"{where}: is a single value and has no keys")
    hints = _fields(type(target))
    replaced: dict[str, Any] = {}
    for key, change in grouped.items():
        _require_known(key, hints, where)
        current = getattr(target, key)
        path = _join(where, key)
        replaced[key] = (
            _override(current, change.below, path) if change.below else _coerce(change.value, hints[key], path, current)
        )
    return dataclasses.replace(target, **replaced)


def _override_members(target: Mapping[str, Any], grouped: Mapping[str, _Change], where: str) -> dict[str, Any]:
    members = dict(target)
    for key, change in grouped.items():
        if key != EVERY_MEMBER:
            _require_known(key, members, where)
        below = change.below
        if not below and isinstance(change.value, Mapping):
            below = dict(change.value)
        if not below:
            raise ValueError(f"{_join(where, key)}: name a key below it, as in {_join(where, key)}.<key>=<value>")
        for name in list(members) if key == EVERY_MEMBER else [key]:
            members[name] = _override(members[name], below, _join(where, name))
    return members


@dataclasses.dataclass
class _Change:
    """What is asked of one key: a value for itself, or changes below it."""

    value: object = None
    below: dict[str, object] = dataclasses.field(default_factory=dict)


def _group(changes: Mapping[str, object], where: str) -> dict[str, _Change]:
    grouped: dict[str, _Change] = {}
    for key, value in changes.items():
        head, dot, rest = str(key).partition(".")
        if dot:
            grouped.setdefault(head, _Change()).below[rest] = value
        else:
            grouped.setdefault(head, _Change()).value = value
    for head, change in grouped.items():
        if change.below and change.value is not None:
            raise ValueError(f"{_join(where, head)}: set both as a whole and by its keys; choose one")
    return grouped


def _fields(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _require_known(key: str, known: Any, where: str) -> None:
    if key not in known:
        raise ValueError(f"unknown key {_join(where, key)!r}: {nearest(key, known)}")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _coerce(value: Any, kind: Any, where: str, current: Any = None) -> Any:
    """`value` as the annotated type `kind`, or a ValueError that says what was expected."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return _choice(value, get_args(kind), where)
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, get_args(kind), where, current)
    if origin is tuple:
        return _tuple(value, get_args(kind), where)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return _mapping(value, get_args(kind)[1], where)
    if dataclasses.is_dataclass(kind):
        return _nested(value, kind, where, current)
    return _scalar(value, kind, where)


def _choice(value: Any, allowed: tuple[Any, ...], where: str) -> Any:
    for choice in allowed:
        if value == choice or (isinstance(value, str) and value == str(choice)):
            return choice
    raise ValueError(f"{where}={value!r}: expected one of {', '.join(str(choice) for choice in allowed)}")


def _first_that_fits(value: Any, kinds: tuple[Any, ...], where: str, current: Any) -> Any:
    if type(None) in kinds and (value is None or (isinstance(value, str) and value.lower() in NONE_WORDS)):
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others:
        if isinstance(kind, type) and type(value) is kind:
            return value
    problems = []
    for kind in others:
        try:
            return _coerce(value, kind, where, current)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(problems[0] if len(problems) == 1 else f"{where}={value!r}: fits none of its types")


def _tuple(value: Any, kinds: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}={value!r}: expected a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{where}={value!r}: expected {len(kinds)} values, found {len(value)}")
    return tuple(_coerce(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _mapping(value: Any, kind: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}={value!r}: expected a table of keys and values")
    return {str(key): _coerce(item, kind, _join(where, str(key))) for key, item in value.items()}


def _nested(value: Any, kind: Any, where: str, current: Any) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}={value!r}: expected a table of its keys, or {where}.<key>=<value>")
    return _override(current, value, where) if isinstance(current, kind) else from_dict(kind, value, where)


def _scalar(value: Any, kind: Any, where: str) -> Any:
    readers = {bool: _bool, int: _int, float: _float, str: _str}
    if kind not in readers:
        if isinstance(kind, type) and isinstance(value, kind):
            return value
        raise ValueError(f"{where}: values of type {getattr(kind, '__name__', kind)} cannot be set from outside")
    result = readers[kind](value)
    if result is None:
        raise ValueError(f"{where}={value!r}: expected {kind.__name__}")
    return result


def _bool(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else None
    return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None


def _int(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = _float(value)
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    return value if isinstance(value, int) else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None
