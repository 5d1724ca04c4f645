"""HitCounts: how many hits a shower has, drawn for its particle before the hits are.

E, direction, kind -> CountMixture: p(n | E, direction, kind)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.methods.count_mixture import CountMixture
from calogen.systems.drawing import stream
from calogen.systems.particles import Particles
from calogen.train import Batch, LearnedStage, Plan

PLAN = Plan(
    steps=1500,
    batch_size=256,
    optimizer="adam",
    learning_rate=1e-2,
    schedule="cosine",
    warmup_steps=50,
    validate_every=100,
)
"""Seconds: the network is small, and a shower is one number to it."""


class HitCounts(nn.Module):
    """p(n | particle), with the scales of the condition; fitted by the stage."""

    def __init__(self, particles: Particles | None = None) -> None:
        super().__init__()
        self.particles = particles or Particles()
        self.mixture = CountMixture(self.particles.size)

    @torch.inference_mode()
    def draw(self, incident: Incident, *, seed: int, first: int = 0) -> NDArray[np.int64]:
        """Hits [N] of a shower for each particle. With the seed, particle i is shower `first` + i of a request.

        The numbers it uses are none of those that hits are drawn by.
        """
        u = np.array([stream(seed, first + i).spawn(1)[0].random(2) for i in range(len(incident))]).reshape(-1, 2)
        c = self.particles(incident)
        return self.mixture.draw(c, torch.from_numpy(u).to(c.device)).cpu().numpy()


class HitCountsStage(LearnedStage):
    """Fit the mixture to showers.

    Args:
        counts: what is fitted.
        of: hits of each shower [N].
        plan: how.
    """

    name = "counts"

    def __init__(self, counts: HitCounts, of: Callable[[Showers], NDArray[np.int64]], plan: Plan) -> None:
        self.model, self.hit_counts, self.of, self.plan = counts, counts, of, plan
        self.held: dict[int, tuple[Showers, Tensor]] = {}

    def prepare(self, showers: Showers) -> None:
        """Fit the scales of the condition and of the counts."""
        self.hit_counts.particles.fit(showers.incident)
        self.hit_counts.mixture.standardise(self._counts(showers))

    def _counts(self, showers: Showers) -> Tensor:
        """Hits [N]; counted once."""
        held = self.held.get(id(showers))
        if held is None or held[0] is not showers:
            self.held[id(showers)] = held = (showers, torch.from_numpy(self.of(showers)))
        return held[1]

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Counts [n] and conditions [n, C]."""
        c = self.hit_counts.particles(showers.incident[indices]).cpu()
        return self._counts(showers)[torch.from_numpy(indices)], c

    def loss(self, batch: Batch) -> Tensor:
        """-log p of the counts [n], nats."""
        return self.hit_counts.mixture.loss(*batch)
