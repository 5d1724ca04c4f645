"""Stage: what is fitted - a model, its view of the showers, its transforms - and how by default."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.train.plan import Plan

if TYPE_CHECKING:
    from calogen.data.showers import Showers

Batch = tuple[Any, ...]  # what a stage's `batch` makes and its `loss` takes; tensors in it are moved to the device


class Stage(ABC):
    """One step of the training of a system.

    `model` holds everything the stage learns, transforms included, as parameters and buffers whose shapes are fixed
    by construction: its state dict is the stage's result. Stages are fitted in order; when `prepare` of one is called,
    the models of those before it are final.
    """

    name: str
    model: nn.Module
    plan: Plan

    def prepare(self, showers: Showers) -> None:  # noqa: B027 - many stages have nothing to prepare
        """Fit transforms on the training showers, copy a teacher's weights, cache a view.

        Must depend on nothing but its argument and the models of earlier stages: it is called again when a killed
        fit is resumed, before the stored weights are put back. Torch's global generator is seeded.
        """


class LearnedStage(Stage):
    """A stage fitted by gradient descent."""

    @abstractmethod
    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The view of the showers `indices`, on the CPU. All randomness (dequantisation, ...) comes from `rng`."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Loss [N] of each shower of a batch. Noise is drawn from torch's global generator, seeded per step."""

    def counts(self, showers: Showers) -> NDArray[np.integer]:
        """Points per shower [N], which batches by length go by."""
        return np.diff(showers.offsets)

    def weights(self, batch: Batch) -> Tensor | None:
        """Weight [N] of each shower in the mean loss; None: all alike."""
        return None

    def trainable(self) -> list[nn.Parameter]:
        """The parameters the optimiser moves: those of `model` that require a gradient."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def after_step(self, step: int) -> None:
        """Called after each optimiser step, for instance to move a distillation target. Must be deterministic."""

    def remarks(self) -> Mapping[str, float]:
        """Numbers of its own for a line of the log, of what was seen since the last line; none by default."""
        return {}


class SolvedStage(Stage):
    """A stage fitted in one go, without gradients: factors measured on samples, a table, a calibration."""

    @abstractmethod
    def solve(self, train: Showers, validation: Showers | None) -> None:
        """Set the buffers of `model`. Torch's global generator is seeded with the plan's seed."""
