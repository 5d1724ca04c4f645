"""How normal numbers of voxels hang together two by two, and the velocity that draws numbers correlated so.

Standard normal numbers x of voxels in rings and sectors, of showers that look alike when they are turned or mirrored:
their covariance is diagonal in the Fourier components m of the angle, and there a real symmetric matrix of the rings of
all layers, C_m = Q diag(λ) Qᵀ. Along an eigenvector the flow from white noise to a normal number of variance λ is
known,

    v = (t λ - k s) / (t² λ + s²) x_t,   s = 1 - k t,  k = 1 - σ_min,

so with this as the base of its velocity a flow has every mean, variance and correlation before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from calogen.detector.geometry import Detector, PolarCells

KEPT = 128
"""Eigenvectors of each component that are stored, of variances farthest from one; the others share their mean."""
STORED = torch.float16
"""Of eigenvectors, whose elements are a twentieth: half a per mille of one is less than their statistical error."""


def rings_and_sectors(detector: Detector) -> tuple[int, int, int]:
    """Layers, sectors and rings of a detector whose layers are alike.

    Raises:
        ValueError: layers of squares, or of different cells.
    """
    cells = {layer.cells for layer in detector.layers}
    one = next(iter(cells))
    if len(cells) > 1 or not isinstance(one, PolarCells):
        raise ValueError(f"{detector.name!r} has not the same rings and sectors in all layers: set correlated=false")
    return detector.n_layers, one.n_alpha, one.n_r


class CellCorrelations(nn.Module):
    """The velocity of correlated normal numbers; everything fitted is a buffer.

    Args:
        grid: layers, sectors, rings.
        kept: eigenvectors of each component, at most all.
    """

    vectors: Tensor
    variances: Tensor
    rest: Tensor

    def __init__(self, grid: tuple[int, int, int], kept: int = KEPT) -> None:
        super().__init__()
        layers, self.sectors, rings = grid
        self.grid, self.rows = grid, layers * rings
        components, kept = self.sectors // 2 + 1, min(kept, self.rows)
        self.register_buffer("vectors", torch.zeros(components, self.rows, kept, dtype=STORED))
        self.register_buffer("variances", torch.ones(components, kept))
        self.register_buffer("rest", torch.ones(components))

    def forward(self, x: Tensor, t: Tensor, sigma_min: float = 0.0) -> Tensor:
        """x [N, V] at times t [N] -> expected velocity [N, V]."""
        waves = self._waves(x)  # [M, 2N, rows], real parts above imaginary ones
        t = t.repeat(2)
        rest = _gain(self.rest[:, None], t, sigma_min)[..., None]  # [M, 2N, 1]
        gain = _gain(self.variances[:, None], t[:, None], sigma_min)  # [M, 2N, K]
        vectors = self.vectors.to(x.dtype)
        along = waves @ vectors
        return self._cells(rest * waves + ((gain - rest) * along) @ vectors.transpose(1, 2))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set variances and vectors from normal numbers [N, V], a batch at a time.

        Raises:
            ValueError: fewer than two showers.
        """
        total, n = torch.zeros(len(self.rest), self.rows, self.rows, dtype=torch.float64), 0
        for x in batches:
            waves = self._waves(x)
            total += (waves.transpose(1, 2) @ waves).double().cpu()
            n += len(x)
        if n < 2:
            raise ValueError(f"correlations need two showers or more, got {n}")
        for m in range(len(total)):
            variances, vectors = torch.linalg.eigh(total[m] / n)
            variances = variances.clamp(min=LEAST_VARIANCE)
            order = variances.log().abs().argsort(descending=True)
            kept, others = order[: self.vectors.shape[2]], order[self.vectors.shape[2] :]
            self.vectors[m] = vectors[:, kept].to(STORED)
            self.variances[m] = variances[kept]
            self.rest[m] = variances[others].mean() if len(others) else 1.0

    def _waves(self, x: Tensor) -> Tensor:
        """x [N, V] -> Fourier components [M, 2N, rows]; of white noise both parts together have variance one."""
        layers, sectors, rings = self.grid
        waves = torch.fft.rfft(x.view(-1, layers, sectors, rings), dim=2, norm="ortho").permute(2, 0, 1, 3).flatten(2)
        return torch.cat([waves.real, waves.imag], dim=1)

    def _cells(self, waves: Tensor) -> Tensor:
        layers, sectors, rings = self.grid
        real, imaginary = waves.chunk(2, dim=1)
        whole = torch.complex(real, imaginary).unflatten(2, (layers, rings)).permute(1, 2, 0, 3)
        return torch.fft.irfft(whole, n=sectors, dim=2, norm="ortho").reshape(len(whole), -1)


LEAST_VARIANCE = 1e-3
"""Of an eigenvector: less is round-off, and one flow step could not follow it."""


def _gain(variance: Tensor, t: Tensor, sigma_min: float) -> Tensor:
    k = 1 - sigma_min
    s = 1 - k * t
    return (t * variance - k * s) / (t**2 * variance + s**2)
