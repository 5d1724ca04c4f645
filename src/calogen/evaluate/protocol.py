"""The point-cloud protocol: one sample judged against Geant4, every number with its error and its floor."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from calogen.data.incident import DIRECTION_TOLERANCE
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector
from calogen.evaluate.metrics import Resampling, Score, divergence_score, wasserstein_score
from calogen.evaluate.observables import (
    OBSERVABLES,
    Binning,
    Observed,
    block_histogram,
    block_sum,
    observe_all,
    quantile_edges,
    shower_edges,
)

FORMAT = 1
"""Version of the JSON layout."""
BLOCKS = 100
"""Groups of showers that are resampled; an even number."""
REPLICAS = 300
"""Resamplings behind each error and floor: they give standard deviations to 4 %."""
MIN_SHOWERS = 20
"""Fewer showers than this carry no error estimate."""
FINE_BINS = 2000
"""Bins over the common range in which Wasserstein distances of one number a shower are computed."""
COARSE_BINS = 30
"""Bins of equal content of the added, coarser centre-of-gravity rows."""
DECADES_GEV = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
PROFILE_BINS = 8
"""Bins of equal content in incident energy of the response figure."""
DIFFERENT_INCIDENT_P = 1e-3
"""Kolmogorov-Smirnov probability below which incident spectra are reported to differ."""
SAME_INCIDENT_TOLERANCE = 1e-4
"""Relative difference of incident energies up to which two samples count as the same particles (with directions)."""

Sample = Showers | Iterable[Showers]
"""Showers in memory, or batches of them as a reader yields them."""


@dataclass(frozen=True)
class Row:
    """One observable: its scores, and whether it stands in the published table."""

    observable: str
    title: str
    published: bool
    jsd: Score
    wasserstein: Score


@dataclass(frozen=True, eq=False)
class HistogramPair:
    """Contents per shower of both samples `[bins]` with their errors, on `edges [bins + 1]` in `unit`."""

    name: str
    title: str
    axis: str
    unit: str
    counted: str
    edges: NDArray[np.float64]
    generated: NDArray[np.float64]
    generated_error: NDArray[np.float64]
    truth: NDArray[np.float64]
    truth_error: NDArray[np.float64]


@dataclass(frozen=True)
class EnergyBin:
    """Means of one quantity (`visible_energy` GeV or `hits`) for incident energies in [low, high) GeV."""

    quantity: str
    low_gev: float
    high_gev: float
    n_generated: int
    n_truth: int
    generated: float
    generated_error: float
    truth: float
    truth_error: float
    ratio: float
    ratio_error: float


@dataclass(frozen=True)
class Losses:
    """What the readout of a sample left out: points beyond the cells, cells below threshold, showers without hits."""

    points_outside: int
    energy_outside_gev: float
    cells_below_threshold: int
    energy_below_threshold_gev: float
    empty_showers: int
    energy_kept_gev: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All numbers of one comparison. `same_incidents`: both samples have the same incident particles."""

    detector: str
    n_generated: int
    n_truth: int
    same_incidents: bool
    scores: tuple[Row, ...]
    histograms: tuple[HistogramPair, ...]
    decades: tuple[EnergyBin, ...]
    response: tuple[EnergyBin, ...]
    generated_losses: Losses
    truth_losses: Losses
    warnings: tuple[str, ...]
    seed: int

    def rows(self) -> list[dict[str, Any]]:
        """The table as plain values: observable, and for both metrics value, error, floor, floor error and verdict."""
        return [
            {"observable": r.title, "published": r.published}
            | {f"{s.metric}_{k}": v for s in (r.jsd, r.wasserstein) for k, v in _score_dict(s).items()}
            for r in self.scores
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "format": FORMAT,
            "detector": self.detector,
            "n_generated": self.n_generated,
            "n_truth": self.n_truth,
            "same_incidents": self.same_incidents,
            "seed": self.seed,
            "warnings": list(self.warnings),
            "scores": [_row_dict(r) for r in self.scores],
            "decades": [asdict(b) for b in self.decades],
            "response": [asdict(b) for b in self.response],
            "generated_losses": asdict(self.generated_losses),
            "truth_losses": asdict(self.truth_losses),
            "histograms": [_histogram_dict(h) for h in self.histograms],
        }

    def to_json(self) -> str:
        """JSON text of all numbers; a number that does not exist is null."""
        return json.dumps(_without_nan(self.to_dict()), indent=1, allow_nan=False)

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Evaluation:
        """The inverse of `to_dict`.

        Raises:
            ValueError: another format, or keys that are missing.
        """
        if d.get("format") != FORMAT:
            raise ValueError(f"scores of format {d.get('format')!r} cannot be read; this version reads {FORMAT}")
        try:
            return cls(
                detector=d["detector"],
                n_generated=d["n_generated"],
                n_truth=d["n_truth"],
                same_incidents=d["same_incidents"],
                seed=d["seed"],
                warnings=tuple(d["warnings"]),
                scores=tuple(_row_from(r) for r in d["scores"]),
                decades=tuple(EnergyBin(**_with_nan(b)) for b in d["decades"]),
                response=tuple(EnergyBin(**_with_nan(b)) for b in d["response"]),
                generated_losses=Losses(**d["generated_losses"]),
                truth_losses=Losses(**d["truth_losses"]),
                histograms=tuple(_histogram_from(h) for h in d["histograms"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"scores are incomplete: {type(error).__name__} {error}") from error


def evaluate(
    generated: Sample,
    truth: Sample,
    *,
    floor_sample: Sample | None = None,
    seed: int = 0,
    replicas: int = REPLICAS,
) -> Evaluation:
    """Judge generated showers against Geant4 after projection into the detector's cells and its thresholds.

    Args:
        generated: showers of the model, best drawn for the incident particles of the truth.
        truth: showers of Geant4, of the same detector.
        floor_sample: another independent Geant4 sample; its distance to the truth, carried to the compared sizes, is
            then the floor instead of the distance between halves of the truth.
        seed: of the resampling.
        replicas: number of resamplings.

    Raises:
        ValueError: different detectors or particle types, or too few showers.
    """
    detector, truth_batches = _batches(truth, "truth")
    generated_detector, generated_batches = _batches(generated, "generated sample")
    if generated_detector != detector:
        raise ValueError(
            f"generated showers are of detector {generated_detector.name!r}, the truth is of {detector.name!r}"
            f"{' with other layers or cells' if generated_detector.name == detector.name else ''}; "
            "they can only be compared in the same detector"
        )
    binning = Binning.of(detector)
    true = observe_all(truth_batches, binning, detector)
    gen = observe_all(generated_batches, binning, detector)
    extra = None
    if floor_sample is not None:
        extra = observe_all(_batches(floor_sample, "floor sample")[1], binning, detector)
    return judge(gen, true, detector, binning, floor=extra, seed=seed, replicas=replicas)


def judge(
    gen: Observed,
    true: Observed,
    detector: Detector,
    binning: Binning,
    *,
    floor: Observed | None = None,
    seed: int = 0,
    replicas: int = REPLICAS,
) -> Evaluation:
    """`evaluate` for samples that are already observed (so one truth serves many generated samples)."""
    _check_sizes(gen, true, floor)
    warnings = _incident_warnings(gen, true)
    gen, true, paired = _aligned(gen, true, seed)
    resampling = Resampling(len(gen), len(true), paired, replicas, seed, 0 if floor is None else len(floor))
    blocked = [
        _blocked(name, gen, true, floor if floor is None else _shuffled(floor, seed), detector, binning)
        for name in (*OBSERVABLES, *_COARSE)
    ]
    return Evaluation(
        detector=detector.name,
        n_generated=len(gen),
        n_truth=len(true),
        same_incidents=paired,
        scores=tuple(_row(b, resampling) for b in blocked),
        histograms=tuple(_histogram(b, len(gen), len(true)) for b in blocked),
        decades=_energy_bins(gen, true, np.array(DECADES_GEV), paired),
        response=_energy_bins(gen, true, _profile_edges(true), paired),
        generated_losses=_losses(gen),
        truth_losses=_losses(true),
        warnings=tuple(warnings),
        seed=seed,
    )


# ---- samples ----


def _batches(sample: Sample, what: str) -> tuple[Detector, Iterator[Showers]]:
    batches = iter((sample,)) if isinstance(sample, Showers) else iter(sample)
    first = next(batches, None)
    if first is None:
        raise ValueError(f"the {what} is empty: no showers to judge")

    def all_of_them() -> Iterator[Showers]:
        yield first
        yield from batches

    return first.detector, all_of_them()


def _check_sizes(gen: Observed, true: Observed, floor: Observed | None) -> None:
    named = {"generated sample": gen, "truth": true} | ({} if floor is None else {"floor sample": floor})
    for what, sample in named.items():
        if len(sample) < MIN_SHOWERS:
            raise ValueError(f"the {what} has {len(sample)} showers; scores with errors need at least {MIN_SHOWERS}")
        if not np.any(sample.hits):
            raise ValueError(f"the {what} has no cell above threshold in {len(sample)} showers: check its energy unit")
    types, expected = set(np.unique(gen.pdg).tolist()), set(np.unique(true.pdg).tolist())
    if types != expected:
        raise ValueError(
            f"generated showers are of particles {sorted(types)}, the truth of {sorted(expected)} (PDG codes); "
            "draw showers for the particles of the truth"
        )


def _incident_warnings(gen: Observed, true: Observed) -> list[str]:
    def spectra(s: Observed) -> dict[str, NDArray[Any]]:
        return {
            "incident energy": s.incident_energy,
            "direction x": s.direction[:, 0],
            "direction y": s.direction[:, 1],
        }

    warnings = []
    for (what, a), b in zip(spectra(gen).items(), spectra(true).values(), strict=True):
        p = float(ks_2samp(a, b, method="asymp").pvalue) if np.ptp(a) + np.ptp(b) + abs(a[0] - b[0]) > 0 else 1.0
        if p < DIFFERENT_INCIDENT_P:
            warnings.append(
                f"{what} is distributed differently (Kolmogorov-Smirnov p = {p:.1e}; generated {a.min():.3g} to "
                f"{a.max():.3g}, mean {a.mean():.3g}; truth {b.min():.3g} to {b.max():.3g}, mean {b.mean():.3g}): "
                "the scores include that difference; draw showers for the particles of the truth"
            )
    return warnings


def _shuffled(s: Observed, seed: int) -> Observed:
    return s[np.random.default_rng([seed, 3]).permutation(len(s))]


def _aligned(gen: Observed, true: Observed, seed: int) -> tuple[Observed, Observed, bool]:
    """Both samples in order of incident energy where these are the same, otherwise each in random order."""
    if len(gen) == len(true):
        a, b = (np.lexsort((*s.direction.T, s.incident_energy)) for s in (gen, true))
        same = np.allclose(gen.incident_energy[a], true.incident_energy[b], rtol=SAME_INCIDENT_TOLERANCE, atol=0)
        if same and np.allclose(gen.direction[a], true.direction[b], rtol=0, atol=DIRECTION_TOLERANCE):
            return gen[a], true[b], True
    return _shuffled(gen, seed), _shuffled(true, seed + 1), False


# ---- scores ----

_COARSE = {f"{name}_coarse": name for name in ("cog_x", "cog_y")}
"""Centres of gravity again in few bins of equal content: the published 2,000 bins mostly measure their floor."""


class _Blocked(NamedTuple):
    """One observable in blocks: published bins for the divergence, `fine` ones at `position` for Wasserstein."""

    name: str
    edges: NDArray[np.float64]
    generated: NDArray[np.float64]
    truth: NDArray[np.float64]
    floor: NDArray[np.float64] | None
    fine: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]
    position: NDArray[np.float64]


def _blocked(
    name: str, gen: Observed, true: Observed, floor: Observed | None, detector: Detector, binning: Binning
) -> _Blocked:
    n_blocks = min(BLOCKS, len(gen) // 2 * 2, len(true) // 2 * 2)
    samples = [s for s in (gen, true, floor) if s is not None]
    deals = [np.arange(len(s)) % n_blocks for s in samples]
    source = _COARSE.get(name, name)
    if OBSERVABLES[source].counted == "showers":
        values = [np.asarray(getattr(s, source), dtype=np.float64) for s in samples]
        coarse = name in _COARSE
        edges = quantile_edges(values[1], COARSE_BINS) if coarse else shower_edges(name, true, detector.n_layers)
        counts = [block_histogram(v, d, n_blocks, edges) for v, d in zip(values, deals, strict=True)]
        fine_edges = _common_range(values)
        fine = [block_histogram(v, d, n_blocks, fine_edges) for v, d in zip(values, deals, strict=True)]
        position = _positions(fine_edges)
    else:
        edges = binning.edges(name)
        counts = [block_sum(getattr(s, name), d, n_blocks) for s, d in zip(samples, deals, strict=True)]
        fine, position = counts, _positions(np.log10(edges) if name == "cell_energy" else edges)
    third = counts[2] if len(counts) > 2 else None
    fines = (fine[0], fine[1], fine[2] if len(fine) > 2 else None)
    return _Blocked(name, edges, counts[0], counts[1], third, fines, position)


def _common_range(values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    low = min(float(np.nanmin(v)) for v in values)
    high = max(float(np.nanmax(v)) for v in values)
    return np.linspace(low, np.nextafter(max(high, low + 1e-12), math.inf), FINE_BINS + 1)


def _positions(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Middles of the bins, and one step further for the entries below and above the range."""
    middle = 0.5 * (edges[1:] + edges[:-1])
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    return np.concatenate([[middle[0] - first], middle, [middle[-1] + last]])


def _row(b: _Blocked, resampling: Resampling) -> Row:
    observable = OBSERVABLES[_COARSE.get(b.name, b.name)]
    coarse = b.name in _COARSE
    jsd = divergence_score(b.name, b.generated, b.truth, resampling, b.floor)
    distance = wasserstein_score(b.name, b.fine[0], b.fine[1], b.position, resampling, b.fine[2])
    title = f"{observable.title} ({COARSE_BINS} equal bins)" if coarse else observable.title
    return Row(b.name, title, not coarse, jsd, distance)


def _histogram(b: _Blocked, n_generated: int, n_truth: int) -> HistogramPair:
    o = OBSERVABLES[_COARSE.get(b.name, b.name)]
    generated, generated_error = _per_shower(b.generated, n_generated)
    truth, truth_error = _per_shower(b.truth, n_truth)
    return HistogramPair(
        b.name, o.title, o.axis, o.unit, o.counted, b.edges, generated, generated_error, truth, truth_error
    )


def _per_shower(blocks: NDArray[np.float64], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean content per shower and its standard error from the scatter between blocks; flow entries left off."""
    inside = blocks[:, 1:-1]
    error = inside.std(axis=0, ddof=1) * math.sqrt(blocks.shape[0]) / n
    return inside.sum(axis=0) / n, error


# ---- means ----


def _profile_edges(true: Observed) -> NDArray[np.float64]:
    edges = quantile_edges(true.incident_energy.astype(np.float64), PROFILE_BINS)
    return np.array([edges[0], np.inf]) if edges.size < 2 else np.append(edges[:-1], np.nextafter(edges[-1], np.inf))


def _energy_bins(gen: Observed, true: Observed, edges_gev: NDArray[np.float64], paired: bool) -> tuple[EnergyBin, ...]:
    bins = []
    for quantity in ("visible_energy", "hits"):
        for low, high in pairwise(edges_gev.tolist()):
            a, b = (_inside(s, quantity, low, high) for s in (gen, true))
            if len(a) > 1 and len(b) > 1:
                bins.append(_energy_bin(quantity, low, high, a, b, paired and len(a) == len(b)))
    return tuple(bins)


def _inside(s: Observed, quantity: str, low: float, high: float) -> NDArray[np.float64]:
    here = (s.incident_energy >= low) & (s.incident_energy < high)
    return np.asarray(getattr(s, quantity)[here], dtype=np.float64)


def _energy_bin(
    quantity: str, low: float, high: float, a: NDArray[np.float64], b: NDArray[np.float64], paired: bool
) -> EnergyBin:
    mean_a, mean_b = float(a.mean()), float(b.mean())
    error_a, error_b = (float(v.std(ddof=1)) / math.sqrt(v.size) for v in (a, b))
    ratio = mean_a / mean_b if mean_b > 0 else math.nan
    # Pairs share their incident energy: only the scatter of their difference counts.
    scatter = float((a - ratio * b).std(ddof=1)) / math.sqrt(a.size) if paired else math.hypot(error_a, ratio * error_b)
    error = scatter / mean_b if mean_b > 0 else math.nan
    return EnergyBin(quantity, low, high, a.size, b.size, mean_a, error_a, mean_b, error_b, ratio, error)


def _losses(s: Observed) -> Losses:
    return Losses(
        int(s.outside_points.sum()),
        float(s.outside_energy.sum()),
        int(s.dropped_cells.sum()),
        float(s.dropped_energy.sum()),
        int(np.sum(s.hits == 0)),
        float(s.visible_energy.sum()),
    )


# ---- plain values ----


def _score_dict(s: Score) -> dict[str, Any]:
    return {
        "value": s.value,
        "error": s.error,
        "floor": s.floor,
        "floor_error": s.floor_error,
        "excess": s.excess,
        "significance": s.significance,
        "indistinguishable": s.indistinguishable,
    }


def _row_dict(r: Row) -> dict[str, Any]:
    scores = {s.metric: {"unit": s.unit} | _score_dict(s) for s in (r.jsd, r.wasserstein)}
    return {"observable": r.observable, "title": r.title, "published": r.published} | scores


def _row_from(d: dict[str, Any]) -> Row:
    def score(metric: str) -> Score:
        s = _with_nan(d[metric])
        numbers = (s[k] for k in ("value", "error", "floor", "floor_error"))
        return Score(d["observable"], metric, s["unit"], *numbers)

    return Row(d["observable"], d["title"], d["published"], score("jsd"), score("wasserstein"))


_ARRAYS = ("edges", "generated", "generated_error", "truth", "truth_error")


def _histogram_dict(h: HistogramPair) -> dict[str, Any]:
    text = {k: getattr(h, k) for k in ("name", "title", "axis", "unit", "counted")}
    return text | {k: [float(f"{v:.6g}") for v in getattr(h, k)] for k in _ARRAYS}


def _histogram_from(d: dict[str, Any]) -> HistogramPair:
    fields: dict[str, Any] = {k: np.array(v) if k in _ARRAYS else v for k, v in d.items()}
    return HistogramPair(**fields)


def _without_nan(value: Any) -> Any:
    match value:
        case dict():
            return {k: _without_nan(v) for k, v in value.items()}
        case list() | tuple():
            return [_without_nan(v) for v in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def _with_nan(d: dict[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None else v for k, v in d.items()}
