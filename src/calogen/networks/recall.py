"""Which tokens a sequence has had: those are less likely, or likelier, to come again than the rows before them say."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Seen(NamedTuple):
    """Of each of P tokens in sequences, those of the same group that came earlier, each once: Q pairs."""

    row: Tensor  # [Q], of which token; ascending
    token: Tensor  # [Q], what came earlier
    again: Tensor  # [P]; the token itself came earlier

    def of(self, rows: Tensor) -> Seen:
        """For some of the tokens [R], in any order, and several times if need be."""
        first, beyond = (torch.searchsorted(self.row, rows, right=right) for right in (False, True))
        counts = beyond - first
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(counts)
        return Seen(row, self.token[first.repeat_interleave(counts) + _counted(counts)], self.again[rows])


class InUse(Protocol):
    """Tokens that the sequences of R rows have."""

    @property
    def table(self) -> Tensor:
        """Whether each of N sequences has each of S tokens [N, S], bool."""

    @property
    def owner(self) -> Tensor:
        """The sequence of each row [R]."""

    @property
    def more(self) -> Tensor | None:
        """Further tokens of each row alone [R, m]; 0, the start, is none."""


def seen_before(owner: Tensor, group: Tensor, token: Tensor) -> Seen:
    """Pairs of packed tokens [P] of groups [P] in sequences owner [P], ascending.

    >>> seen_before(torch.tensor([0, 0, 0, 1]), torch.tensor([4, 4, 4, 4]), torch.tensor([8, 9, 8, 8]))
    Seen(row=tensor([1, 2, 2]), token=tensor([8, 8, 9]), again=tensor([False, False,  True, False]))
    """
    order, run = _runs(owner, token)
    again = torch.zeros_like(token, dtype=torch.bool)
    again[order] = run > 0
    order, before = _runs(owner, group)
    place = torch.arange(len(order), device=order.device)
    row = place.repeat_interleave(before)
    earlier = row - before.repeat_interleave(before) + _counted(before)
    row, earlier = order[row], order[earlier]
    first = ~again[earlier]
    row, earlier = row[first], earlier[first]
    by_row = row.argsort(stable=True)
    return Seen(row[by_row], token[earlier[by_row]], again)


def _runs(owner: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """An order [P] in which equal values of a sequence are neighbours, as they came; and how many came before [P]."""
    order = value.argsort(stable=True)
    order = order[owner[order].argsort(stable=True)]
    new = torch.ones_like(order, dtype=torch.bool)
    new[1:] = (owner[order][1:] != owner[order][:-1]) | (value[order][1:] != value[order][:-1])
    place = torch.arange(len(order), device=order.device)
    return order, place - place[new].repeat_interleave(torch.diff(place[new], append=place.new_tensor([len(order)])))


def _counted(counts: Tensor) -> Tensor:
    """0 ... n - 1 for each n of the counts, one after the other."""
    starts = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) - starts.repeat_interleave(counts)
