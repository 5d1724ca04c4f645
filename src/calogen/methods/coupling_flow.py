"""Conditional normalising flow of affine couplings and element-wise rational-linear splines: CaloClouds' ShowerFlow."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from calogen.methods.conditional import Conditional, gaussian, refuse_unknown
from calogen.methods.couplings import AffineCoupling, Permutation, RationalLinearSpline
from calogen.methods.frozen_flow import FrozenFlow

LAYOUTS = {"alt1": "APAPAPSPAPAPAP", "original": "APAPAPPSAPAPAP"}
"""One block, noise to data: A affine coupling, P permutation, S spline. CaloClouds 3: alt1, CaloClouds 2: original."""

COUPLING_WIDTH = 10
"""Hidden width of a coupling's network, in units of the flow's dimension (ShowerFlow)."""

SPLINE_WIDTH = 4
"""Hidden width of a spline's network, in units of the flow's dimension (ShowerFlow)."""


class CouplingFlow(Conditional):
    """p(x | c) by invertible steps from z ~ N(0, 1)^D.

    Args:
        dim: D.
        cond_dim: C, length of the condition.
        blocks: how often the layout is repeated (CaloClouds3: 2, CaloClouds2: 10).
        layout: the order of parts in a block, a key of `LAYOUTS`.
        coupling_width, spline_width: hidden widths of the networks, in units of D.

    Raises:
        ValueError: for an unknown layout or dim < 2.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int,
        blocks: int = 2,
        layout: str = "alt1",
        coupling_width: int = COUPLING_WIDTH,
        spline_width: int = SPLINE_WIDTH,
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS or dim < 2 or blocks < 1:
            raise ValueError(
                f"no flow with layout={layout!r} (known: {', '.join(LAYOUTS)}), dim={dim}, blocks={blocks}"
            )
        self.dim, self.cond_dim = dim, cond_dim
        self._frozen: FrozenFlow | None = None
        self.register_load_state_dict_post_hook(_drop_frozen)
        self.sequence = LAYOUTS[layout] * blocks
        self.permutations = nn.ModuleList(Permutation(dim) for _ in range(self.sequence.count("P")))
        self.parts = nn.ModuleList(
            AffineCoupling(dim, cond_dim, coupling_width * dim)
            if letter == "A"
            else RationalLinearSpline(dim, cond_dim, spline_width * dim)
            for letter in self.sequence.replace("P", "")
        )

    def in_order(self) -> list[nn.Module]:
        """The steps from noise to data."""
        parts, permutations = iter(self.parts), iter(self.permutations)
        return [next(permutations if letter == "P" else parts) for letter in self.sequence]

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data: z [N, D], c [N, C] -> x [N, D], log|dx/dz| [N]."""
        x, log_det = z, z.new_zeros(len(z))
        for step in self.in_order():
            if isinstance(step, Permutation):
                x = step(x)
            else:
                x, change = step(x, c)
                log_det = log_det + change
        return x, log_det

    def inverse(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise: x [N, D], c [N, C] -> z [N, D], log|dz/dx| [N]."""
        z, log_det = x, x.new_zeros(len(x))
        for step in reversed(self.in_order()):
            if isinstance(step, Permutation):
                z = step.inverse(z)
            else:
                assert isinstance(step, AffineCoupling | RationalLinearSpline)
                z, change = step.inverse(z, c)
                log_det = log_det + change
        return z, log_det

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        """log p(x | c): x [N, D], c [N, C] -> [N].

        Raises:
            ValueError: if the shapes are not these.
        """
        if x.shape != (len(c), self.dim) or c.shape[1:] != (self.cond_dim,):
            raise ValueError(
                f"log_prob needs x [N, {self.dim}] and c [N, {self.cond_dim}], not {list(x.shape)}, {list(c.shape)}"
            )
        z, log_det = self.inverse(x, c)
        return log_det - 0.5 * (z**2).sum(dim=-1) - 0.5 * self.dim * math.log(2 * math.pi)

    def loss(self, x: Tensor, c: Tensor, mask: Tensor | None = None) -> Tensor:
        """-log p(x | c) of each example [N]; x has no ragged part, so `mask` must be None."""
        if mask is not None:
            raise ValueError("a coupling flow has a fixed number of dimensions: mask must be None")
        return -self.log_prob(x, c)

    @torch.no_grad()
    def sample(
        self,
        c: Tensor,
        *,
        counts: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw x [N, D].

        Args:
            c: conditions [N, C].
            counts: must be None, x is no set of points.
            noise: standard normal numbers [N, D]; else they are drawn from `generator`.

        Raises:
            ValueError: for noise or conditions of another shape, or an unknown option.
        """
        refuse_unknown(options, "noise, generator")
        if counts is not None:
            raise ValueError("a coupling flow draws no sets of points: counts must be None")
        if c.ndim != 2 or c.shape[1] != self.cond_dim:
            raise ValueError(f"conditions must be [N, {self.cond_dim}], not {list(c.shape)}")
        z = gaussian((len(c), self.dim), c, noise, generator)
        return self(z, c)[0] if self.training else self._frozen_now()(z, c)

    def _frozen_now(self) -> FrozenFlow:
        """The weights laid out for drawing, made anew if they changed."""
        if self._frozen is None or not self._frozen.is_current():
            self._frozen = FrozenFlow(self.in_order())
        return self._frozen

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which lay out their own."""
        return {**self.__dict__, "_frozen": None}

    def train(self, mode: bool = True) -> CouplingFlow:
        """As in torch; what was laid out for drawing is dropped."""
        self._frozen = None
        return super().train(mode)


def _drop_frozen(flow: nn.Module, _: object) -> None:
    """After loading a state."""
    if isinstance(flow, CouplingFlow):
        flow._frozen = None
