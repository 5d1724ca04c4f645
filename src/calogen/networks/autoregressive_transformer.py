"""AutoregressiveTransformer: numbers in sequence, each with a velocity given those before it; CaloDREAM's energies."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.layers import FourierFeatures
from calogen.networks.sequence_attention import Cache, Look, SequenceBlock, start_as_torch

TIME_STD = 30.0
"""Spread of the frequencies of the time, in periods from t = 0 to 1 (CaloDREAM). Fewer are learned in fewer steps."""


class ElementVelocity(nn.Module):
    """The velocity of a number u at time t in its context h, by an MLP of [u, time, h] with layer norms.

    Args:
        context: length of h.
        width: of the hidden layers.
        depth: linear maps, the first and the last included.
        time_features, time_std: of the time, see `FourierFeatures`.

    Raises:
        ValueError: for fewer than two maps.
    """

    def __init__(
        self, context: int, width: int = 512, depth: int = 8, time_features: int = 64, time_std: float = TIME_STD
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"a velocity needs a first and a last map: depth={depth} is below 2")
        self.fourier = FourierFeatures(time_features, time_std)
        self.time = nn.Linear(time_features, time_features)
        self.first = nn.Linear(1 + time_features + context, width)
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth - 2))
        self.last = nn.Linear(width, 1)

    def of_context(self, h: Tensor) -> Tensor:
        """The part of the context h [..., context] in the first map [..., width]."""
        return F.linear(h, self.first.weight[:, 1 + self.time.out_features :], self.first.bias)

    def of_time(self, t: Tensor) -> Tensor:
        """The part of the times t [...] in the first map [..., width]."""
        features = self.time(self.fourier(t.flatten()))
        part = F.linear(features, self.first.weight[:, 1 : 1 + self.time.out_features])
        return part.unflatten(0, t.shape) if t.ndim else part[0]

    def forward(self, u: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """u [...] with the parts of its time and context [..., width] -> velocity [...]."""
        in_place = not torch.is_grad_enabled()
        with torch.autocast(u.device.type, enabled=False):  # u keeps its digits
            h = F.silu(torch.addcmul(context + time, u[..., None], self.first.weight[:, 0]), inplace=in_place)
        for linear, norm in zip(self.maps, self.norms, strict=True):
            h = F.silu(norm(linear(h)), inplace=in_place)
        with torch.autocast(u.device.type, enabled=False):
            out: Tensor = self.last(h.to(u.dtype))
        return out[..., 0]


class AutoregressiveTransformer(nn.Module):
    """p(x | c) = Π_i p(x_i | x_1 ... x_{i-1}, c), each by the velocity of one number (arXiv:2405.09629, sec. 3.1).

        c -> tokens -> encoder -> memory
        [0, x_1, ..., x_{D-1}] -> tokens -> decoder (causal, sees the memory) -> contexts h_1 ... h_D
        v_i(u, t) = ElementVelocity(u, t; h_i)

    A token is a number, the one-hot of its place, and zeros up to the width: there is no other embedding. Each
    condition is a token of the encoder. With a single one (published) every attention to it has one answer: its queries
    and keys are parameters that nothing depends on.

    Sizes: 2,384,705 parameters as submitted to the CaloChallenge (the defaults); 1,695,297 as in the paper's table 1
    (feedforward 1024, velocity_width 256).

    Args:
        length: D.
        condition: C, numbers of the condition.
        width: d, more than the numbers of either sequence.
        heads: of attention.
        encoder_blocks, decoder_blocks: how many.
        feedforward: hidden width of a block's MLP.
        velocity_width, velocity_depth: of the velocity, see `ElementVelocity`.
        time_features, time_std: see `ElementVelocity`.

    Raises:
        ValueError: for an empty sequence or condition, or one that has no room in the width.
    """

    def __init__(
        self,
        length: int = 45,
        condition: int = 1,
        *,
        width: int = 64,
        heads: int = 4,
        encoder_blocks: int = 4,
        decoder_blocks: int = 4,
        feedforward: int = 512,
        velocity_width: int = 512,
        velocity_depth: int = 8,
        time_features: int = 64,
        time_std: float = TIME_STD,
    ) -> None:
        super().__init__()
        if not 0 < length < width or not 0 < condition < width:
            raise ValueError(
                f"{length} numbers given {condition} need 1 or more of each and a width above both, not {width}"
            )
        self.length, self.condition, self.width = length, condition, width
        self.encoder = nn.ModuleList(SequenceBlock(width, heads, feedforward) for _ in range(encoder_blocks))
        self.norm_memory = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(
            SequenceBlock(width, heads, feedforward, decoder=True) for _ in range(decoder_blocks)
        )
        self.norm_context = nn.LayerNorm(width)
        self.velocity = ElementVelocity(width, velocity_width, velocity_depth, time_features, time_std)
        start_as_torch(self.encoder)
        start_as_torch(self.decoder)

    def forward(self, x_t: Tensor, t: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """Velocities [N, D] of all elements x_t [N, D] at times t [N, D], given the true x [N, D] before each."""
        return self.given(x, c)(x_t, t)

    def given(self, x: Tensor, c: Tensor, elements: slice = slice(None)) -> ElementVelocities:
        """The velocities of the L chosen elements, given the true x [N, D] before each and conditions c [N, C].

        Raises:
            ValueError: for other shapes.
        """
        if x.shape != (len(c), self.length):
            raise ValueError(f"{len(c)} sequences must be [{len(c)}, {self.length}], not {list(x.shape)}")
        h = _tokens(F.pad(x[:, :-1], (1, 0)), self.width)
        for block, look in self.decode(c):
            h = block(h, look)
        return ElementVelocities(self.velocity, self.norm_context(h)[:, elements].to(x.dtype))

    def begin(self, c: Tensor) -> Prefix:
        """Empty sequences for conditions c [N, C], to which one element after the other is added."""
        return Prefix(self, c)

    def decode(self, c: Tensor) -> list[tuple[SequenceBlock, Look]]:
        """The blocks of the decoder, each with its attention to the encoded conditions c [N, C].

        Raises:
            ValueError: for another shape.
        """
        if c.ndim != 2 or c.shape[1] != self.condition:
            raise ValueError(f"conditions must be [N, {self.condition}], not {list(c.shape)}")
        h = _tokens(c, self.width)
        for block in self.encoder:
            h = block(h)
        memory = self.norm_memory(h)
        blocks = (cast(SequenceBlock, block) for block in self.decoder)
        return [(block, block.memory_attention.to_memory(memory)) for block in blocks]


class ElementVelocities:
    """v(u, t) of numbers in contexts h [N, L, d]. Not a module: it lives as long as a batch.

    Args:
        network: the velocity.
        h: contexts.
        times: where the parts of times are kept that do not need a gradient; by default nothing outside knows it.
    """

    def __init__(self, network: ElementVelocity, h: Tensor, times: dict[float, Tensor] | None = None) -> None:
        self.network = network
        self.times = {} if times is None else times
        with torch.autocast(h.device.type, enabled=False):
            self.context = network.of_context(h)

    def __call__(self, u: Tensor, t: Tensor) -> Tensor:
        """u [N, L] at a time t, a scalar or one each [N, L] -> [N, L].

        Raises:
            ValueError: for other shapes.
        """
        if u.shape != self.context.shape[:2] or t.ndim not in (0, 2) or (t.ndim and t.shape != u.shape):
            raise ValueError(
                f"numbers must be {list(self.context.shape[:2])} at one time or one each, "
                f"not {list(u.shape)} at times {list(t.shape)}"
            )
        v: Tensor = self.network(u, self._time(t), self.context)
        return v

    def of(self, rows: Tensor) -> ElementVelocities:
        """The velocities in some of the contexts, by their numbers [M]."""
        chosen = copy.copy(self)
        chosen.context = self.context[rows]
        return chosen

    def _time(self, t: Tensor) -> Tensor:
        """A sampler asks for the same few times again for every element; these are computed once."""
        with torch.autocast(t.device.type, enabled=False):
            if t.ndim or torch.is_grad_enabled():
                return self.network.of_time(t)
            key = float(t)
            if key not in self.times:
                self.times[key] = self.network.of_time(t)
            return self.times[key]


class Prefix:
    """N sequences as far as they are drawn. Not a module: it lives as long as a batch.

    Args:
        network: the transformer.
        c: conditions [N, C].
    """

    def __init__(self, network: AutoregressiveTransformer, c: Tensor) -> None:
        self.network = network
        self.blocks = [(block, look, Cache(network.length)) for block, look in network.decode(c)]
        self.first = c.new_zeros(len(c), 1)
        self.drawn = 0
        self.times: dict[float, Tensor] = {}

    def next(self, previous: Tensor | None) -> ElementVelocities:
        """The velocity v(u [N, 1], t) of the next element, given the one drawn before [N, 1]; None before the first.

        Raises:
            ValueError: if the sequences are complete, or an element is missing or has another shape.
        """
        if self.drawn == self.network.length:
            raise ValueError(f"all {self.drawn} elements are drawn")
        if (previous is None) != (self.drawn == 0) or (previous is not None and previous.shape != self.first.shape):
            shape = None if previous is None else list(previous.shape)
            raise ValueError(f"element {self.drawn} follows one [{len(self.first)}, 1], the first None, not {shape}")
        x = self.first if previous is None else previous
        h = _tokens(x, self.network.width, self.drawn)
        for block, look, cache in self.blocks:
            h = block(h, look, cache)
        self.drawn += 1
        return ElementVelocities(self.network.velocity, self.network.norm_context(h).to(x.dtype), self.times)


def _tokens(values: Tensor, width: int, first: int = 0) -> Tensor:
    """[value, one-hot of the place, zeros] of values [N, L] at places first, first + 1, ... -> [N, L, width]."""
    h = values.new_zeros(*values.shape, width)
    h[..., 0] = values
    h.diagonal(1 + first, 1, 2).fill_(1)
    return h
