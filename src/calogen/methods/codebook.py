"""A codebook: points are replaced by the nearest of K learned codes, and gradients pass as if they were not.

The vector quantiser of OmniJet-alpha (van den Oord et al., arXiv:1711.00937; affine map, synchronised gradient and
replacement of Huh et al., arXiv:2305.08842). Own code: published weights have an affine map that is learned, and
vector-quantize-pytorch makes its own of the statistics of batches; it holds the distances of all points to all codes
beside a one-hot matrix as large, where 65,536 codes need blocks; and it replaces codes by a running mean of their use.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from calogen.methods.nearest import nearest

JITTER = 0.01
"""Of a point's length: how far from it a code is put that is to be near it, as published."""

LEAST_SCALE = 1e-6
"""Below this the affine map has no inverse worth the name: all codes are one in that direction."""


class Quantized(NamedTuple):
    """Of P points: their codes' values [P, D], which gradients pass, the codes [P] int64, and the loss [P] of each."""

    values: Tensor
    ids: Tensor
    loss: Tensor


class Usage(NamedTuple):
    """How well K codes are used: the share of them that is, and exp(entropy), from 1 (all alike) to K (all equally)."""

    share: float
    perplexity: float

    @classmethod
    def of(cls, tally: Tensor) -> Usage:
        """From how often each code was used [K]; nothing used is (0, 0)."""
        total = float(tally.sum())
        if total == 0:
            return cls(0.0, 0.0)
        p = tally[tally > 0].double() / total
        return cls(len(p) / len(tally), float((-(p * p.log()).sum()).exp()))


class Codebook(nn.Module):
    """K codes of D numbers, seen through an affine map: c_k = (1 + r a) w_k + r b with learned w, a, b.

    a and b start at 0 and let all codes follow the points together, where only the few that are used get a gradient.

    In training it keeps account of what was used since `forget`: codes that are not for `patience` steps are to be put
    where points are. `age`, `fresh` and `replace` are the parts of that, so that processes that fit together can agree.

    Args:
        codes: K.
        dim: D.
        beta: weight of what moves codes to points in the loss; 1 - beta of what moves points to codes.
        affine_rate: r; 0: no affine map.
        sync: how much of the gradient of its values a code gets itself (nu in arXiv:2305.08842).
        patience: steps without use after which a code is replaced.

    Raises:
        ValueError: fewer than two codes, or numbers that make no sense.
    """

    life: Tensor
    """Steps that each code has to live if it stays unused [K]."""
    used: Tensor
    """Whether each code was used since `forget` [K]."""
    tally: Tensor
    """How often each code was used in training [K], until it is set to zero."""

    def __init__(
        self,
        codes: int,
        dim: int,
        *,
        beta: float = 0.8,
        affine_rate: float = 2.0,
        sync: float = 1.0,
        patience: int = 100,
    ) -> None:
        super().__init__()
        if codes < 2 or dim < 1 or not 0 <= beta <= 1 or affine_rate < 0 or sync < 0 or patience < 1:
            raise ValueError(
                f"a codebook needs 2 codes of 1 number or more, beta in [0, 1], affine_rate and sync not negative and "
                f"patience of at least 1, got {codes=}, {dim=}, {beta=}, {affine_rate=}, {sync=}, {patience=}"
            )
        self.beta, self.affine_rate, self.sync, self.patience = beta, affine_rate, sync, patience
        self.weight = nn.Parameter(torch.randn(codes, dim))
        self.scale = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("life", torch.full((codes,), patience))
        self.register_buffer("used", torch.zeros(codes, dtype=torch.uint8), persistent=False)
        self.register_buffer("tally", torch.zeros(codes, dtype=torch.int64), persistent=False)
        self.seen: Tensor | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def codes(self) -> Tensor:
        """The codes [K, D] as points are compared to them."""
        return self._mapped(self.weight)

    def forward(self, z: Tensor) -> Quantized:
        """Points z [P, D] -> their codes; the loss is (1 - beta) |z - sg c|² + beta |sg z - c|², each a mean over D.

        Raises:
            ValueError: NaN or infinite points.
        """
        ids = self.ids(z)
        code = self.lookup(ids)
        loss = (1 - self.beta) * (z - code.detach()).square().mean(1) + self.beta * (z.detach() - code).square().mean(1)
        values = code.detach() + (z - z.detach()) + self.sync * (code - code.detach())
        if self.training:
            self._account(z, ids)
        return Quantized(values, ids, loss)

    def ids(self, z: Tensor) -> Tensor:
        """Points z [P, D] -> the nearest codes [P] int64; ties go to the smaller number.

        Raises:
            ValueError: NaN or infinite points.
        """
        return nearest(z, self.codes())

    def lookup(self, ids: Tensor) -> Tensor:
        """Codes ids [P] -> their values [P, D].

        Raises:
            ValueError: a number that is no code.
        """
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self):
            bad = ids[(ids < 0) | (ids >= len(self))]
            raise ValueError(f"{int(bad[0])} is no code: this codebook has 0 to {len(self) - 1}")
        return self._mapped(self.weight[ids])

    def _mapped(self, w: Tensor) -> Tensor:
        return (1 + self.affine_rate * self.scale) * w + self.affine_rate * self.bias

    # --- replacement -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _account(self, z: Tensor, ids: Tensor) -> None:
        self.used[ids] = 1
        self.tally += torch.bincount(ids, minlength=len(self))
        if self.seen is None:
            self.seen = z.detach()

    def age(self) -> Tensor:
        """Note a step in the codes' lives: full for the used, one less for the others; returns the dead [n]."""
        self.life.copy_(torch.where(self.used.bool(), self.patience, self.life - 1))
        return (self.life <= 0).nonzero()[:, 0]

    @torch.no_grad()
    def fresh(self, dead: Tensor, generator: torch.Generator) -> Tensor:
        """Values [n, D] for n dead codes: at random points of the first batch since `forget`, and a little beside them.

        Without such points, the values they have. The generator is of the CPU.
        """
        if self.seen is None or not len(self.seen):
            return self.lookup(dead)
        return beside(self.seen, len(dead), generator)

    @torch.no_grad()
    def replace(self, dead: Tensor, values: Tensor) -> None:
        """Give codes [n] these values [n, D], and full lives.

        Raises:
            ValueError: if the affine map gives all codes the same number somewhere, so that no value can be set.
        """
        scale = 1 + self.affine_rate * self.scale
        if float(scale.abs().min()) < LEAST_SCALE:
            raise ValueError(
                f"the codebook has collapsed: its affine map scales by {float(scale.abs().min()):g}; "
                "lower the learning rate or affine_rate"
            )
        self.weight[dead] = (values - self.affine_rate * self.bias) / scale
        self.life[dead] = self.patience

    def forget(self) -> None:
        """Start a new step's account of what is used."""
        self.used.zero_()
        self.seen = None

    def start_at(self, z: Tensor, generator: torch.Generator) -> None:
        """Put all codes at or beside random points z [P, D]: a start that knows where points are.

        Raises:
            ValueError: no points.
        """
        if not len(z):
            raise ValueError("codes cannot start at points where there are none")
        everyone = torch.arange(len(self), device=self.weight.device)
        self.replace(everyone, beside(z, len(self), generator))


def beside(z: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n points [n, D] within about `JITTER` |z| of random points z [P, D]; each point once before any twice."""
    rounds = [torch.randperm(len(z), generator=generator) for _ in range(-(-n // len(z)))]
    chosen = z.detach()[torch.cat(rounds)[:n].to(z.device)] if rounds else z.detach()[:0]
    noise = torch.randn(chosen.shape, generator=generator).to(chosen)
    return chosen + JITTER * chosen.norm(dim=1, keepdim=True) * noise
