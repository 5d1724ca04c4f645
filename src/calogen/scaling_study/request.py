"""What is studied: sizes of the generator, shares of the data, and how each is trained and judged."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from calogen.evaluate.sliced import MIN_SHOWERS
from calogen.systems.token_generator import GeneratorSizes
from calogen.train import Plan

NAME = re.compile(r"(\d+)x(\d+)")
VALIDATIONS = 20
"""Points of a training curve, where the plan is not asked for others."""
WARMUP_SHARE = 0.1
"""The most of a run's steps that may be its warm-up, where the plan is not asked for another."""


@dataclass(frozen=True)
class Size:
    """Width and blocks of a generator, `96x3`."""

    width: int
    blocks: int

    @classmethod
    def read(cls, name: str) -> Size:
        """`96x3`.

        Raises:
            ValueError: not of this form, or without width or blocks.

        >>> Size.read("96x3")
        Size(width=96, blocks=3)
        """
        found = NAME.fullmatch(name)
        if found is None or not int(found[1]) or not int(found[2]):
            raise ValueError(f"size {name!r}: give width x blocks, for example 96x3")
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """`96x3`."""
        return f"{self.width}x{self.blocks}"

    def of(self, like: GeneratorSizes) -> GeneratorSizes:
        """Sizes with heads as wide as those of `like`, and a feedforward in its ratio to the width; without drafts.

        Raises:
            ValueError: a width that has no whole heads, or less room than a code's numbers need.
        """
        head = like.width // like.heads
        if self.width % head:
            below, above = (head * max(1, round_(self.width / head)) for round_ in (math.floor, math.ceil))
            raise ValueError(
                f"size {self.name}: width {self.width} is no multiple of {head}, the width of a head; give "
                f"{' or '.join(str(w) for w in dict.fromkeys((below, above)))}, or another --set network.heads"
            )
        if like.form == "modern" and self.width < like.rank:
            raise ValueError(
                f"size {self.name}: a width below {like.rank}, the numbers a code is known by; give a larger one, "
                "or a smaller --set network.rank"
            )
        feedforward = max(1, round(self.width * like.feedforward / like.width))
        return replace(
            like, width=self.width, blocks=self.blocks, heads=self.width // head, feedforward=feedforward, drafts=0
        )


@dataclass(frozen=True)
class Request:
    """What is studied. Raises ValueError for what cannot be meant."""

    sizes: tuple[Size, ...]
    fractions: tuple[float, ...] = (0.25, 0.5, 1.0)  # of the training showers, each part of the next larger
    showers: int = 200  # drawn by each run for the distance; 0: none
    batch_size: int = 64  # of drawing
    seed: int = 0  # of weights, parts of the data and drawing

    def __post_init__(self) -> None:
        for name, values in (("sizes", self.sizes), ("data fractions", self.fractions)):
            if not values:
                raise ValueError(f"{name}: none given; give at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: one of them twice; give each once")
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise ValueError(f"data fraction {fraction:g}: give a share above 0 and at most 1")
        if self.showers and self.showers < MIN_SHOWERS:
            raise ValueError(f"{self.showers} showers: a distance needs at least {MIN_SHOWERS}; 0 draws none")
        if self.batch_size < 1 or self.seed < 0:
            raise ValueError(f"batch_size={self.batch_size}, seed={self.seed}: give at least 1, and at least 0")


def plan_of_runs(plan: Plan, asked: frozenset[str]) -> Plan:
    """The plan of all runs, unless asked otherwise: with a curve of `VALIDATIONS` points, a warm-up in proportion, and
    no averages of weights, which lag behind and would show curves worse than they are.

    Raises:
        ValueError: a plan that is not in steps, that a clock stops, or whose batches are not drawn at random.
    """
    steps = plan.steps
    if steps is None:
        raise ValueError("the runs of a grid take equally many steps; the plan is in epochs: give --steps")
    if plan.max_minutes is not None:
        raise ValueError("max_minutes: runs that a clock stops cannot be compared; give --steps instead")
    if plan.batching != "shuffled":
        raise ValueError(f"batching={plan.batching}: tokens are counted of shuffled batches; use batching=shuffled")
    if "validate_every" not in asked:
        plan = replace(plan, validate_every=math.ceil(steps / VALIDATIONS))
    if "warmup_steps" not in asked:
        plan = replace(plan, warmup_steps=min(plan.warmup_steps, int(WARMUP_SHARE * steps)))
    if "ema" not in asked:
        plan = replace(plan, ema="none")
    return plan
