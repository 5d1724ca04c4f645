"""VoxelTransformer: patches of a calorimeter's voxels see each other; the vision transformer of CaloDREAM's shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.patches import Patches
from calogen.networks.steered_block import Gelu, SteeredBlock, modulated
from calogen.networks.voxel_positions import LearnedFrequencies

ROWS = 512
"""Patches that go through all blocks together without gradient, or one shower: 480 numbers of each are 1 MB."""

FEW = 4
"""Showers: one alone takes a sixth less time with its modulations made beforehand, a hundred take no less."""

SLOWEST = 10_000.0
"""Ratio of the frequencies of a time's features (Vaswani et al., arXiv:1706.03762)."""

TIME_FEATURES = 256
"""Features of a time, the published number."""

T_STD = 0.02
"""Standard deviation with which the weights of a time's MLP start, as published."""


class TimeFeatures(nn.Module):
    """f(t) = [cos ω_k t, sin ω_k t], ω_k = 10000^{-k/K}, k < K; t is in [0, 1] and not scaled (as published)."""

    frequencies: Tensor

    def __init__(self, features: int = TIME_FEATURES) -> None:
        super().__init__()
        half = features // 2
        exponent = torch.arange(half) / half
        self.register_buffer("frequencies", torch.exp(-math.log(SLOWEST) * exponent), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """t [N] -> [N, features]."""
        f = t[:, None] * self.frequencies
        return torch.cat([f.cos(), f.sin()], dim=1)


class VoxelTransformer(nn.Module):
    """The velocity of voxels, in patches that see each other (arXiv:2405.09629, sec. 3.2; a DiT, arXiv:2212.09748).

        e = MLP(t) + MLP(c),    h = Linear(patches of x) + position
        h -> blocks:  h += g₁ ⊙ attention(LN(h) ⊙ (1 + s₁) + b₁),  h += g₂ ⊙ MLP(LN(h) ⊙ (1 + s₂) + b₂)
          -> LN(h) ⊙ (1 + s) + b -> Linear -> v in patches -> v

    All s, b, g are linear in SiLU(e), and start as zero, as does the last map: v = 0 before training.
    Published sizes: 26,042,688 (data set 2), 5,868,870 (data set 3), 10,711,566 and 10,720,224 (on latents) parameters.

    Args:
        patches: of the voxels.
        condition: C, numbers of a shower's condition.
        width: D, a multiple of 6 and of the heads.
        heads: of attention.
        blocks: how many.
        feedforward: hidden width of a block's MLP.
        positions: coordinates [T, 3] -> [T, D]; without, learned frequencies.
        causal: patches see patches of their own and earlier layers alone.
        gelu: `tanh` is the published approximation, `none` the GELU itself, which processors compute faster.
    """

    def __init__(
        self,
        patches: Patches,
        condition: int,
        *,
        width: int = 480,
        heads: int = 6,
        blocks: int = 6,
        feedforward: int = 1920,
        positions: nn.Module | None = None,
        causal: bool = False,
        gelu: Gelu = "tanh",
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be cut into {heads} heads")
        self.patches, self.condition, self.causal = patches, condition, causal
        self.embedding = nn.Linear(patches.size, width)
        self.positions = LearnedFrequencies(width) if positions is None else positions
        self.time = nn.Sequential(TimeFeatures(), nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.context = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(SteeredBlock(width, heads, feedforward, gelu) for _ in range(blocks))
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, patches.size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as published: a velocity of zero."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            nn.init.zeros_(module.bias)
            if name.endswith("modulation") or module is self.head:
                nn.init.zeros_(module.weight)
            elif name.startswith("time."):
                nn.init.normal_(module.weight, std=T_STD)
            else:
                nn.init.xavier_uniform_(module.weight)

    def bind(self, c: Tensor, counts: Tensor | None = None) -> BoundVoxelTransformer:
        """The network for conditions c [N, C]: what does not depend on x and t is computed once.

        Within `torch.autocast` the blocks multiply in its number format, as they do where their parameters are stored
        in it (`network.blocks.bfloat16()`: no conversion for each batch). Everything else keeps its digits.

        Args:
            c: conditions.
            counts: how many vectors a shower has; one, if given.

        Raises:
            ValueError: for another shape of c, or other counts.
        """
        if c.ndim != 2 or c.shape[1] != self.condition:
            raise ValueError(f"conditions must be [N, {self.condition}], not {list(c.shape)}")
        if counts is not None and (counts.shape != (len(c),) or not bool((counts == 1).all())):
            raise ValueError("each shower is one vector of voxels: counts must be one for each condition")
        return BoundVoxelTransformer(self, c)

    def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor | None = None) -> Tensor:
        """Voxels x [N, V], time t [N], condition c [N, C] -> velocity [N, V]."""
        return self.bind(c, counts)(x, t)


class BoundVoxelTransformer:
    """A `VoxelTransformer` for given conditions. Not a module: it lives as long as a batch."""

    def __init__(self, network: VoxelTransformer, c: Tensor) -> None:
        self.network = network
        device = c.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        self.blocks = cast(list[SteeredBlock], list(network.blocks))
        self.maps = [block.maps(dtype) for block in self.blocks]
        with torch.autocast(device, enabled=False):
            self.context = network.context(c)
            self.position = network.positions(network.patches.coordinates) + network.embedding.bias
        self.scheduled: dict[float, list[Tensor]] = {}

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Voxels x [N, V], time t [N] -> [N, V]."""
        network = self.network
        if len(x) != len(self.context) or t.shape != (len(x),):
            raise ValueError(f"{len(self.context)} conditions need as many x and t, not {len(x)} and {list(t.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            given = self._given(t)
            parts = [self._velocity(x[rows], [m[rows] for m in given]) for rows in self._groups(x)]
        return network.patches.join(torch.cat(parts) if len(parts) != 1 else parts[0])

    @torch.no_grad()
    def schedule(self, times: Tensor) -> None:
        """Compute what depends on time for evaluations at `times` [S], all at once.

        For a few showers that is faster: a third of the parameters is read once instead of S times. The numbers kept
        are S · N · (6 · blocks + 2) · D. Other times may still be asked for. For more showers nothing is done.
        """
        n = len(self.context)
        if n > FEW:
            return
        with torch.autocast(times.device.type, enabled=False):
            each = self._modulations(times.repeat_interleave(n), self.context.repeat(len(times), 1))
        for k, t in enumerate(times.tolist()):
            self.scheduled[t] = [m[k * n : (k + 1) * n] for m in each]

    def _given(self, t: Tensor) -> list[Tensor]:
        """What steers at time t [N]: as scheduled, if it was and all showers are at this time."""
        if self.scheduled and not torch.is_grad_enabled() and len(t) and bool((t == t[0]).all()):
            found = self.scheduled.get(float(t[0]))
            if found is not None:
                return found
        return self._modulations(t, self.context)

    def _modulations(self, t: Tensor, context: Tensor) -> list[Tensor]:
        """What steers the blocks and the head at t [N], context [N, D]: [N, 6, 1, D] a block, and [N, 2, 1, D]."""
        e = F.silu(self.network.time(t) + context)
        blocks = [maps.modulation(e).to(e.dtype).unflatten(1, (6, 1, -1)) for maps in self.maps]
        return [*blocks, self.network.modulation(e).unflatten(1, (2, 1, -1))]

    def _groups(self, x: Tensor) -> Iterator[slice]:
        """All showers; without gradient on a CPU as few as stay in its cache."""
        size = max(1, len(x))
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            size = max(1, ROWS // len(self.network.patches))
        yield from (slice(first, first + size) for first in range(0, max(1, len(x)), size))

    def _velocity(self, x: Tensor, given: Sequence[Tensor]) -> Tensor:
        """x [n, V], what steers the n showers -> the velocity in patches [n, T, S]."""
        network = self.network
        steps = network.patches.per_depth if network.causal else ()
        h = F.linear(network.patches.cut(x), network.embedding.weight) + self.position
        for block, maps, m in zip(self.blocks, self.maps, given[:-1], strict=True):
            h = block(h, m, maps, steps)
        out: Tensor = network.head(modulated(h, *given[-1].unbind(1)))
        return out
