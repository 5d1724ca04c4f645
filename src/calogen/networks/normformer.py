"""NormFormer blocks on packed sets: every point sees all points of its own set; the order of a set means nothing.

Shleifer et al., arXiv:2110.09456, in the form of OmniJet-alpha (arXiv:2403.05618): a second norm behind the attention,
and an MLP as wide as the points.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.set_attention import SetAttention


class NormFormerBlock(nn.Module):
    """r = h + LN(attention(LN(h))),  y = r + W₂ silu(W₁ LN(r)); a new one changes nothing: y = h.

    Args:
        width: d, of the points and of the MLP.
        heads: of attention.
        dropout: probability, in training, for the weights of attention and inside the MLP.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = SetAttention(width, heads, dropout)
        self.norm_seen = nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.widen = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(width, width)
        self._start_as_identity()

    def _start_as_identity(self) -> None:
        nn.init.xavier_uniform_(self.attention.query_key_value.weight)
        for zero in (
            self.attention.query_key_value.bias,
            self.attention.output.bias,
            self.norm_attention.weight,
            self.narrow.weight,
            self.narrow.bias,
        ):
            nn.init.zeros_(zero)

    def forward(self, h: Tensor, sizes: Sequence[int]) -> Tensor:
        """Points h [P, d] of sets of these sizes -> [P, d]."""
        h = h + self.norm_seen(self.attention(self.norm_attention(h), sizes))
        out: Tensor = h + self.narrow(self.dropout(F.silu(self.widen(self.norm_mlp(h)))))
        return out


class NormFormer(nn.Module):
    """Points of sets to as many points of other features; all points of a set see each other, and no others.

    Args:
        inputs: features of a point.
        outputs: features of what it becomes.
        width: of the blocks.
        heads: of attention.
        blocks: how many.
        dropout: see `NormFormerBlock`.
        condition: C, numbers that each set is given; they move its points, at first by nothing. 0: none.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 128,
        heads: int = 8,
        blocks: int = 4,
        dropout: float = 0.0,
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.input = nn.Linear(inputs, width)
        self.condition = nn.Linear(condition, width) if condition else None
        if self.condition is not None:
            nn.init.zeros_(self.condition.weight)
            nn.init.zeros_(self.condition.bias)
        self.blocks = nn.ModuleList(NormFormerBlock(width, heads, dropout) for _ in range(blocks))
        self.output = nn.Linear(width, outputs)

    def forward(self, x: Tensor, counts: Tensor, c: Tensor | None = None) -> Tensor:
        """Packed points x [P, inputs], points of each set counts [N], condition [N, C] -> [P, outputs].

        Raises:
            ValueError: counts that do not add up to P, or a condition where there should be none, or none.
        """
        sizes = counts.tolist()
        if sum(sizes) != len(x) or x.shape[1:] != (self.inputs,):
            raise ValueError(
                f"sets of {sum(sizes)} points in all need x [{sum(sizes)}, {self.inputs}], not {list(x.shape)}"
            )
        h: Tensor = self.input(x)
        if self.condition is not None:
            if c is None or c.shape != (len(sizes), self.condition.in_features):
                found = None if c is None else list(c.shape)
                raise ValueError(
                    f"{len(sizes)} sets need a condition [{len(sizes)}, {self.condition.in_features}], not {found}"
                )
            h = h + self.condition(c).repeat_interleave(counts, dim=0, output_size=len(x))
        elif c is not None:
            raise ValueError("this network takes no condition; build it with condition > 0")
        for block in self.blocks:
            h = block(h, sizes)
        out: Tensor = self.output(h)
        return out
