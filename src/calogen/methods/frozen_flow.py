"""A coupling flow's weights laid out for fast drawing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from calogen.methods.couplings import AffineCoupling, RationalLinearSpline
from calogen.methods.rational_spline import Knots, knots, spline_value

ROWS = 512
"""Draws that go through all layers together: their hidden values (600 wide in ShowerFlow) stay in the L2 cache."""


class FrozenFlow:
    """The steps of a flow laid out to draw from quickly, without gradient. Not a module: it holds no state of its own.

    The same numbers as `CouplingFlow.forward` to round-off, in about two thirds of the time: weights are
    transposed once, what the condition gives to the first layer of every coupling is one product, and the
    minus sign of s = -tanh(r) is in the weights.
    """

    def __init__(self, steps: Sequence[nn.Module]) -> None:
        self.source = [parameter for step in steps for parameter in step.parameters()]
        self.versions = self._versions()
        with torch.no_grad():
            self.steps: list[FrozenCoupling | nn.Module] = [
                FrozenCoupling(step) if isinstance(step, AffineCoupling) else step for step in steps
            ]
            self.couplings = [step for step in self.steps if isinstance(step, FrozenCoupling)]
            self.condition = torch.cat([coupling.condition for coupling in self.couplings], dim=1)
            self.bias = torch.cat([coupling.bias for coupling in self.couplings])

    def _versions(self) -> list[tuple[int, int]]:
        return [(p.data_ptr(), p._version) for p in self.source]

    def is_current(self) -> bool:
        """Whether the flow's weights are still those laid out here."""
        return self.versions == self._versions()

    def __call__(self, z: Tensor, c: Tensor) -> Tensor:
        """z [N, D], c [N, C] -> x [N, D]."""
        rows = zip(z.split(ROWS), c.split(ROWS), strict=True)
        return torch.cat([self._draw(z_rows, c_rows) for z_rows, c_rows in rows])

    def _draw(self, x: Tensor, c: Tensor) -> Tensor:
        x = x.clone()
        from_condition = iter(torch.addmm(self.bias, c, self.condition).chunk(len(self.couplings), dim=1))
        splines = iter(self._splines(c))
        for step in self.steps:
            if isinstance(step, FrozenCoupling):
                step.apply(x, next(from_condition))
            elif isinstance(step, RationalLinearSpline):
                x = spline_value(x, next(splines))
            else:
                x = step(x)
        return x

    def _splines(self, c: Tensor) -> list[Knots]:
        """The knots of every spline, which depend on c alone, made together."""
        splines = [step for step in self.steps if isinstance(step, RationalLinearSpline)]
        together = knots(torch.stack([spline.network(c) for spline in splines]), splines[0].dim)
        return [Knots(*(values[k] for values in together)) for k in range(len(splines))]


class FrozenCoupling:
    """One affine coupling of a `FrozenFlow`."""

    def __init__(self, coupling: AffineCoupling) -> None:
        first, second, last = (layer for layer in coupling.network if isinstance(layer, nn.Linear))
        half, rest = coupling.split
        sign = torch.ones_like(last.bias)
        sign[rest:] = -1
        self.half, self.rest = half, rest
        self.condition = first.weight[:, :-half].T.detach()
        self.bias = first.bias.detach()
        self.first = first.weight[:, -half:].T.contiguous()
        self.second, self.second_bias = second.weight.T.contiguous(), second.bias.detach()
        self.last, self.last_bias = (sign[:, None] * last.weight).T.contiguous(), sign * last.bias

    def apply(self, x: Tensor, from_condition: Tensor) -> None:
        """Change x [N, D] in place; from_condition [N, width] is what c gives to the first layer."""
        h = torch.addmm(from_condition, x[:, : self.half], self.first).relu_()
        h = torch.addmm(self.second_bias, h, self.second).relu_()
        m, s = torch.addmm(self.last_bias, h, self.last).split(self.rest, dim=1)
        x2 = x[:, self.half :]
        torch.addcmul(m, x2, s.tanh_().exp_(), out=x2)
