"""Incident particles of two samples: are they the same, do their spectra agree, and how to make them agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, ks_2samp

from calogen.data.incident import DIRECTION_TOLERANCE
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector
from calogen.evaluate.observables import Observed

MIN_SHOWERS = 20
"""Fewer showers than this carry no error estimate."""
RELIABLE_SHOWERS = 250
"""With fewer, floors and errors rest on blocks of one or two showers: significances are then only a hint."""
DIFFERENT_INCIDENT_P = 1e-3
"""Kolmogorov-Smirnov probability below which incident spectra are reported to differ."""
SAME_INCIDENT_TOLERANCE = 1e-4
"""Relative difference of incident energies up to which two samples count as the same particles (with directions)."""
SAME_SHOWERS_SHARE = 0.01
"""Independent showers never have the same visible energy to the last bit; above this share of them it is said."""
FAR_OFF = 10.0
"""Mean visible energies this many times apart are no physics: a unit is wrong."""
MATCH_WIDTH = 0.02
"""Width in ln E of the bins in which `match_incident` makes two spectra equal: far below any calorimeter's response."""

Sample = Showers | Iterable[Showers]
"""Showers in memory, or batches of them as a reader yields them."""


class Particles(Protocol):
    """What the checks of this file need to know of N showers: points or voxels, already observed."""

    def __len__(self) -> int: ...

    @property
    def incident_energy(self) -> NDArray[Any]:
        """`[N]` GeV."""

    @property
    def direction(self) -> NDArray[Any]:
        """`[N, 3]`."""

    @property
    def pdg(self) -> NDArray[Any]:
        """`[N]`."""

    @property
    def visible_energy(self) -> NDArray[Any]:
        """`[N]` GeV."""

    @property
    def hits(self) -> NDArray[Any]:
        """Cells above threshold, `[N]`."""


def batches_of(sample: Sample, what: str) -> tuple[Detector, Iterator[Showers]]:
    """The detector of a sample and all its batches.

    Raises:
        ValueError: no batches at all.
    """
    batches = iter((sample,)) if isinstance(sample, Showers) else iter(sample)
    first = next(batches, None)
    if first is None:
        raise ValueError(f"the {what} is empty: no showers to judge")

    def all_of_them() -> Iterator[Showers]:
        yield first
        yield from batches

    return first.detector, all_of_them()


def check_same_detector(generated: Detector, truth: Detector) -> None:
    """Refuse to compare showers of two detectors.

    Raises:
        ValueError: they differ in name, layers or cells.
    """
    if generated != truth:
        raise ValueError(
            f"generated showers are of detector {generated.name!r}, the truth is of {truth.name!r}"
            f"{' with other layers or cells' if generated.name == truth.name else ''}; "
            "they can only be compared in the same detector"
        )


def check_sizes(gen: Particles, true: Particles, floor: Particles | None = None) -> None:
    """Refuse samples that cannot be scored: too few showers, no hits, other particles.

    Raises:
        ValueError: one of these, with the limit and the remedy.
    """
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


def cautions(gen: Particles, true: Particles) -> list[str]:
    """What a reader of the scores must know of the samples: other spectra, few showers, the same showers twice."""
    return [
        *_spectrum_warnings(gen, true),
        *_mixture_warnings(gen, true),
        *_unit_warnings(gen, true),
        *_size_warnings(gen, true),
        *_identity_warnings(gen, true),
    ]


def _spectrum_warnings(gen: Particles, true: Particles) -> list[str]:
    def spectra(s: Particles) -> dict[str, NDArray[Any]]:
        return {
            "incident energy": s.incident_energy,
            "direction x": s.direction[:, 0],
            "direction y": s.direction[:, 1],
        }

    warnings = []
    for (what, a), b in zip(spectra(gen).items(), spectra(true).values(), strict=True):
        p = float(ks_2samp(a, b, method="asymp").pvalue) if np.ptp(a) + np.ptp(b) + abs(a[0] - b[0]) > 0 else 1.0
        if p < DIFFERENT_INCIDENT_P:
            remedy = "draw showers for the particles of the truth"
            remedy += ", or match the spectra (calogen evaluate --match)" if what == "incident energy" else ""
            warnings.append(
                f"{what} is distributed differently (Kolmogorov-Smirnov p = {p:.1e}; generated {a.min():.3g} to "
                f"{a.max():.3g}, mean {a.mean():.3g}; truth {b.min():.3g} to {b.max():.3g}, mean {b.mean():.3g}): "
                f"the scores include that difference; {remedy}"
            )
    return warnings


def _mixture_warnings(gen: Particles, true: Particles) -> list[str]:
    types = np.unique(np.concatenate([gen.pdg, true.pdg]))
    if types.size < 2:
        return []
    counts = np.array([[np.sum(s.pdg == t) for t in types] for s in (gen, true)])
    p = float(chi2_contingency(counts).pvalue)
    if p >= DIFFERENT_INCIDENT_P:
        return []
    a, b = (", ".join(f"{t}: {c / n.sum():.0%}" for t, c in zip(types, n, strict=True)) for n in counts)
    return [
        f"particle types are mixed differently (chi-squared p = {p:.1e}; PDG codes generated {a}; truth {b}): the "
        "scores include that difference; draw showers for the particles of the truth"
    ]


def _unit_warnings(gen: Particles, true: Particles) -> list[str]:
    response = [float(np.sum(s.visible_energy) / np.sum(s.incident_energy)) for s in (gen, true)]
    ratio = response[0] / response[1]
    if 1 / FAR_OFF < ratio < FAR_OFF:
        return []
    return [
        f"visible energies are {ratio:.3g} times those of the truth (visible over incident: generated "
        f"{response[0]:.3g}, truth {response[1]:.3g}): check the energy units of both files"
    ]


def _size_warnings(gen: Particles, true: Particles) -> list[str]:
    small = {what: len(s) for what, s in (("generated", gen), ("truth", true)) if len(s) < RELIABLE_SHOWERS}
    if not small:
        return []
    counts = ", ".join(f"{n} {what}" for what, n in small.items())
    return [f"only {counts} showers: below {RELIABLE_SHOWERS} the errors, and so the significances, are unreliable"]


def _identity_warnings(gen: Particles, true: Particles) -> list[str]:
    def fingerprints(s: Particles) -> NDArray[np.float64]:
        return np.asarray(s.visible_energy[s.hits > 0], dtype=np.float64)

    shared = int(np.isin(fingerprints(gen), fingerprints(true)).sum())
    if shared <= SAME_SHOWERS_SHARE * len(gen):
        return []
    return [
        f"{shared} of {len(gen)} generated showers have exactly the visible energy of a shower of the truth: the "
        "samples share showers, so their scores lie below the floor and say nothing about a model"
    ]


def shuffled(s: Observed, seed: int) -> Observed:
    """The same showers in random order."""
    return s[np.random.default_rng([seed, 3]).permutation(len(s))]


def aligned_order(gen: Particles, true: Particles, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Orders of both samples: of incident energy where the particles are the same (then True), otherwise random."""
    if len(gen) == len(true):
        a, b = (np.lexsort((*s.direction.T, s.incident_energy)) for s in (gen, true))
        same = np.allclose(gen.incident_energy[a], true.incident_energy[b], rtol=SAME_INCIDENT_TOLERANCE, atol=0)
        if same and np.allclose(gen.direction[a], true.direction[b], rtol=0, atol=DIRECTION_TOLERANCE):
            return a, b, True
    first, second = (np.random.default_rng([k, 3]).permutation(len(s)) for k, s in ((seed, gen), (seed + 1, true)))
    return first, second, False


@dataclass(frozen=True, eq=False)
class Matched:
    """Showers of two samples with a common spectrum of incident energy: their indices, and how many were left out."""

    generated: NDArray[np.int64]
    truth: NDArray[np.int64]
    dropped_generated: int
    dropped_truth: int

    @property
    def text(self) -> str:
        """One sentence for the report."""
        return (
            f"incident energies were matched: {self.generated.size} generated and {self.truth.size} true showers kept, "
            f"{self.dropped_generated} and {self.dropped_truth} left out"
        )


def match_incident(generated: NDArray[Any], truth: NDArray[Any], seed: int) -> Matched:
    """Subsample two sets of incident energies `[N]`, `[M]` GeV to one spectrum.

    In each bin of `MATCH_WIDTH` in ln E as many showers are kept of one sample as of the other, drawn at random;
    nothing is weighted, so every score and its error keep their meaning. Directions are not matched.

    >>> import numpy as np
    >>> m = match_incident(np.array([10.0, 10.0, 50.0]), np.array([10.0, 90.0]), seed=1)
    >>> m.generated.size, m.truth.tolist(), m.dropped_generated
    (1, [0], 2)

    Raises:
        ValueError: no energy is common to both.
    """
    rng = np.random.default_rng([seed, 11])
    bins = [
        np.floor(np.log(np.asarray(e, dtype=np.float64)) / MATCH_WIDTH).astype(np.int64) for e in (generated, truth)
    ]
    low = min(int(b.min()) for b in bins)
    width = max(int(b.max()) for b in bins) - low + 1
    counts = [np.bincount(b - low, minlength=width) for b in bins]
    wanted = np.minimum(*counts)
    if not wanted.any():
        a, b = np.asarray(generated), np.asarray(truth)
        raise ValueError(
            f"no incident energy is common: generated {a.min():.3g} to {a.max():.3g} GeV, truth {b.min():.3g} to "
            f"{b.max():.3g} GeV; draw showers for the particles of the truth"
        )
    first, second = (_drawn(b - low, n, wanted, rng) for b, n in zip(bins, counts, strict=True))
    return Matched(first, second, bins[0].size - first.size, bins[1].size - second.size)


def _drawn(
    bins: NDArray[np.int64], counts: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of `wanted` random entries of each bin, ascending."""
    order = np.lexsort((rng.random(bins.size), bins))
    rank = np.arange(bins.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < wanted[bins[order]]])
