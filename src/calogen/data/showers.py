"""Showers: ragged points with the particles that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calogen.data.incident import Incident
from calogen.detector.geometry import Detector, tilt


class PaddedShowers(NamedTuple):
    """Dense view for networks that need one: `points [N, P, 4]` (x mm, y mm, layer, energy GeV), `mask [N, P]`."""

    points: NDArray[Any]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Showers:
    """N showers of P points in all; shower i owns the points `offsets[i] : offsets[i + 1]`.

    `x`, `y` `[P]` mm from the entry point (tilt not removed), `layer` `[P]` (0-based), `energy` `[P]` GeV deposited,
    optional `time` `[P]` ns. Depth is not stored: it is `detector.z_mm[layer]`. A count is a difference of offsets.

    >>> from calogen import ILD_ECAL, Incident, Showers
    >>> one = Showers([0.5, 1.5], [0, 2], [3, 4], [1e-3, 2e-3], [0, 2], Incident.gun(1), ILD_ECAL)
    >>> len(one), one.counts.tolist(), round(float(one.visible_energy[0]), 6)
    (1, [2], 0.003)

    Raises:
        ValueError: lengths or offsets that disagree, NaN or infinite values, negative energies,
            layers outside the detector.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    layer: NDArray[Any]
    energy: NDArray[Any]
    offsets: NDArray[Any]
    incident: Incident
    detector: Detector
    time: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for name in ("x", "y", "energy") + (("time",) if self.time is not None else ()):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float32))
        object.__setattr__(self, "layer", _as_layer(self.layer))
        object.__setattr__(self, "offsets", np.ascontiguousarray(self.offsets, dtype=np.int64))
        _check_lengths(self)
        _check_values(self)

    def __len__(self) -> int:
        return len(self.incident)

    @property
    def n_points(self) -> int:
        """Points of all showers."""
        return self.x.shape[0]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Points of each shower, `[N]`."""
        return np.diff(self.offsets)

    @property
    def shower_index(self) -> NDArray[np.int64]:
        """Shower of each point, `[P]`."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def visible_energy(self) -> NDArray[Any]:
        """Energy of all points of each shower, `[N]` GeV."""
        return np.bincount(self.shower_index, weights=self.energy, minlength=len(self))

    @property
    def energy_per_layer(self) -> NDArray[np.float64]:
        """Energy of each shower's points in each layer, `[N, layers]` GeV."""
        return self._per_layer(self.energy)

    @property
    def counts_per_layer(self) -> NDArray[np.int64]:
        """Points of each shower in each layer, `[N, layers]`."""
        return self._per_layer(None).astype(np.int64)

    def _per_layer(self, weights: NDArray[Any] | None) -> NDArray[Any]:
        n = self.detector.n_layers
        flat = np.bincount(self.shower_index * n + self.layer, weights=weights, minlength=len(self) * n)
        return flat.reshape(len(self), n)

    def __getitem__(self, which: slice | ArrayLike) -> Showers:
        """Showers of a slice, an index array or a boolean mask, in that order."""
        if isinstance(which, slice) and which.step in (None, 1):
            return self._contiguous(*which.indices(len(self))[:2])
        index = np.arange(len(self))[which] if isinstance(which, slice) else np.arange(len(self))[np.asarray(which)]
        index = np.atleast_1d(index)
        counts = self.counts[index]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        points = np.arange(offsets[-1]) + np.repeat(self.offsets[index] - offsets[:-1], counts)
        return self._take(points, offsets, self.incident[index])

    def _contiguous(self, start: int, stop: int) -> Showers:
        stop = max(start, stop)
        points = slice(self.offsets[start], self.offsets[stop])
        return self._take(points, self.offsets[start : stop + 1] - self.offsets[start], self.incident[start:stop])

    def _take(self, points: Any, offsets: NDArray[np.int64], incident: Incident) -> Showers:
        time = None if self.time is None else self.time[points]
        return Showers(
            self.x[points],
            self.y[points],
            self.layer[points],
            self.energy[points],
            offsets,
            incident,
            self.detector,
            time,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Showers]) -> Showers:
        """The showers of all parts, one after the other.

        Raises:
            ValueError: no parts, parts of different detectors, or points with times and points without.
        """
        if not parts:
            raise ValueError("nothing to concatenate: give at least one part")
        first = parts[0]
        for part in parts[1:]:
            if part.detector != first.detector:
                raise ValueError(f"cannot join showers of {first.detector.name!r} and {part.detector.name!r}")
        shift = np.cumsum([0] + [p.n_points for p in parts[:-1]])
        offsets = np.concatenate([[0]] + [p.offsets[1:] + s for p, s in zip(parts, shift, strict=True)])
        return cls(
            np.concatenate([p.x for p in parts]),
            np.concatenate([p.y for p in parts]),
            np.concatenate([p.layer for p in parts]),
            np.concatenate([p.energy for p in parts]),
            offsets,
            Incident.concatenate([p.incident for p in parts]),
            first.detector,
            _joined_times(parts),
        )

    @classmethod
    def empty(cls, detector: Detector) -> Showers:
        """No showers at all, of a detector."""
        nothing = np.zeros(0, dtype=np.float32)
        incident = Incident(nothing, np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int32))
        return cls(nothing, nothing, nothing.astype(np.int16), nothing, np.zeros(1, np.int64), incident, detector)

    def untimed(self) -> Showers:
        """The showers without the times of their points."""
        return replace(self, time=None)

    def upright(self) -> Showers:
        """The showers with the tilt of their direction removed, layer by layer (an angular shear)."""
        return self._sheared(-1.0)

    def tilted(self) -> Showers:
        """Upright showers with the tilt of their direction restored: the inverse of `upright`."""
        return self._sheared(1.0)

    def _sheared(self, sign: float) -> Showers:
        t_x, t_y = tilt(self.incident.direction)
        depth = sign * self.detector.z_mm[self.layer]
        x = self.x + np.repeat(t_x, self.counts) * depth
        y = self.y + np.repeat(t_y, self.counts) * depth
        return Showers(x, y, self.layer, self.energy, self.offsets, self.incident, self.detector, self.time)

    def padded(self) -> PaddedShowers:
        """The dense view `[N, longest shower, 4]` with its mask."""
        counts = self.counts
        width = int(counts.max(initial=0))
        mask = np.arange(width)[None, :] < counts[:, None]
        points = np.zeros((len(self), width, 4), dtype=np.float32)
        points[mask] = np.stack([self.x, self.y, self.layer.astype(np.float32), self.energy], axis=-1)
        return PaddedShowers(points, mask)


def _joined_times(parts: Sequence[Showers]) -> NDArray[np.float32] | None:
    """Times of all parts; None if no part has any. Parts without points miss none."""
    timed = [p.time for p in parts if p.time is not None]
    if not timed:
        return None
    for i, part in enumerate(parts):
        if part.time is None and part.n_points:
            raise ValueError(
                f"cannot join showers with times and without: part {i} of {len(parts)} has none; "
                "take those of the others away (Showers.untimed) or make it with times too"
            )
    return np.concatenate(timed)


def _as_layer(layer: ArrayLike) -> NDArray[np.int16]:
    values = np.asarray(layer)
    if values.size and values.dtype != np.int16:
        if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
            raise ValueError("layers must be whole numbers")
        limits = np.iinfo(np.int16)
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"layers from {values.min()} to {values.max()} do not fit {limits.dtype}")
    return np.ascontiguousarray(values, dtype=np.int16)


def _check_lengths(s: Showers) -> None:
    n_points = s.x.shape[0] if s.x.ndim == 1 else -1
    for name in ("y", "layer", "energy") + (("time",) if s.time is not None else ()):
        if getattr(s, name).shape != (n_points,):
            raise ValueError(f"points need x, y, layer, energy [P]; x is {s.x.shape}, {name} {getattr(s, name).shape}")
    if s.offsets.shape != (len(s.incident) + 1,):
        raise ValueError(f"{len(s.incident)} showers need {len(s.incident) + 1} offsets, got {s.offsets.shape}")
    if s.offsets[0] != 0 or s.offsets[-1] != n_points or np.any(np.diff(s.offsets) < 0):
        raise ValueError(
            f"offsets must rise from 0 to the number of points {n_points}; "
            f"they go from {s.offsets[0]} to {s.offsets[-1]}, smallest step {np.diff(s.offsets).min(initial=0)}"
        )


def _check_values(s: Showers) -> None:
    for name in ("x", "y", "energy") + (("time",) if s.time is not None else ()):
        values = getattr(s, name)
        # One fast pass where all is well, as nearly always; only a doubt is looked into.
        if _surely_positive(values) if name == "energy" else _surely_finite(values):
            continue
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(f"{name} of point {bad[0]} is {values[bad[0]]}; points must be finite")
        if name == "energy" and values.min() < 0:
            i = int(values.argmin())
            raise ValueError(f"energy of point {i} is {values[i]} GeV; energies must not be negative")
    if s.layer.size and s.layer.view(np.uint16).max() >= s.detector.n_layers:  # negative ones are the largest
        raise ValueError(
            f"layers go from {s.layer.min()} to {s.layer.max()}; detector {s.detector.name!r} has layers "
            f"0 to {s.detector.n_layers - 1}"
        )


def _surely_finite(values: NDArray[np.float32]) -> bool:
    """The sum of squares is finite: so are all values. (It may overflow where they are finite, but huge.)"""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(values, values)))


LARGEST_BITS = np.finfo(np.float32).max.view(np.uint32)


def _surely_positive(values: NDArray[np.float32]) -> bool:
    """Finite and not negative: as integers, such floats are in their own order and all others are larger."""
    return values.size == 0 or bool(values.view(np.uint32).max() <= LARGEST_BITS)
