"""What all systems do when they draw: random streams by shower, batches with a bar, profiles drawn again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.methods.adaptive import AdaptiveSolver
from calogen.methods.bespoke import SOLVERS, BespokeSolver, Solver
from calogen.methods.solvers import STEPS
from calogen.progress import progress_bar
from calogen.systems.layer_counts import Limits
from calogen.systems.profile_targets import LayerProfile

MAX_REDRAWS = 50
"""Draws of one shower's layer profile before giving up. A fitted flow needs about one in a hundred twice."""

Precision = Literal["float32", "bfloat16"]


def require_precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in get_args(Precision):
        raise ValueError(f"unknown precision {name!r}; use 'float32' or 'bfloat16'")
    return cast(Precision, name)


def chosen_precision(name: str, shown: Precision, device: torch.device) -> Precision:
    """What `auto` means: `shown`, in which the state's scores are known to hold, where the device computes in it.

    Raises:
        ValueError: an unknown name.
    """
    if name != "auto":
        if name not in get_args(Precision):
            raise ValueError(f"unknown precision {name!r}; use 'auto', 'float32' or 'bfloat16'")
        return cast(Precision, name)
    return shown if shown == "float32" or has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16; without, they are slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


Streams = Sequence[np.random.Generator]

Draw = Callable[[NDArray[np.int64], NDArray[np.float32]], LayerProfile]
"""draw(rows, noise [rows, D]) -> the layer profiles of these showers of a batch."""


class ImpossibleProfileError(ValueError):
    """The flow keeps drawing layer profiles that no shower has."""


def stream(seed: int, index: int) -> np.random.Generator:
    """The random numbers of one shower, by the seed of the request and the index of the shower in it alone."""
    return np.random.Generator(np.random.SFC64([seed, index]))


def starts(n: int, batch_size: int, progress: bool) -> Iterator[int]:
    """First showers of the batches of n, with a bar.

    Raises:
        ValueError: batches of less than one shower.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    with progress_bar("sample", n, "showers", shown=progress) as advance:
        for start in range(0, n, batch_size):
            yield start
            advance(min(batch_size, n - start))


def normal(streams: Streams, counts: NDArray[np.int64], features: int) -> NDArray[np.float32]:
    """Standard normal numbers [P, features], those of each shower from its own stream; counts [N] add up to P."""
    noise = np.empty((int(counts.sum()), features), dtype=np.float32)
    for part, own in zip(np.split(noise, np.cumsum(counts)[:-1]), streams, strict=True):
        own.standard_normal(dtype=np.float32, out=part)
    return noise


def draw_profiles(
    draw: Draw, dim: int, limits: Limits, incident: Incident, streams: Streams, layers: int, most_negative: int = 0
) -> tuple[LayerProfile, int]:
    """Layer profiles of N particles, drawn again while they look like no shower of the training set.

    Returns them and how many were drawn again.

    Raises:
        ImpossibleProfileError: a profile that stays impossible after `MAX_REDRAWS` draws.
    """
    n = len(incident)
    result = LayerProfile(np.zeros((n, layers)), np.zeros((n, layers)), np.zeros((n, 3)))
    pending, redraws = np.arange(n), 0
    for _ in range(MAX_REDRAWS):
        noise = np.stack([streams[i].standard_normal(dim, dtype=np.float32) for i in pending.tolist()])
        drawn = draw(pending, noise)
        result.counts[pending], result.energy[pending], result.cog[pending] = drawn.counts, drawn.energy, drawn.cog
        pending = pending[limits.broken(drawn, incident.energy[pending], most_negative)]
        if pending.size == 0:
            return result, redraws
        redraws += pending.size
    raise ImpossibleProfileError(
        f"{pending.size} layer profiles are still impossible after {MAX_REDRAWS} draws, the first for "
        f"E = {incident.energy[pending[0]]:g} GeV: train the flow longer"
    )


def solver_options(solver: Solver, steps: int, bespoke: BespokeSolver) -> dict[str, Any]:
    """Options of a flow's `sample` for a solver by name (its own, `bespoke`, or one of `SOLVERS`), or a solver itself.

    Raises:
        ValueError: no such solver, a tolerance that is none, or steps below 1.
    """
    if not isinstance(solver, str):
        return {"solver": solver}
    if solver == "bespoke":
        return {"solver": bespoke}
    if adaptive := AdaptiveSolver.named(solver):
        return {"solver": adaptive}
    if solver not in STEPS:
        raise ValueError(f"unknown solver {solver!r}; use bespoke, {', '.join(SOLVERS)}")
    if steps < 1:
        raise ValueError(f"steps={steps}: give at least 1")
    return {"solver": solver, "steps": steps}
