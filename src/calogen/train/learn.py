"""The gradient loop of one stage: the only loop that trains anything.

It is our own rather than a trainer library's for two reasons: a fit killed at any moment must end with the same bits
as an uninterrupted one, which asks for every number of the state to be in our hands; and the models are small, so that
a millisecond of overhead per step (Lightning's Trainer, measured) would be a large part of a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calogen.data.batches import bucketed, in_order, shuffled, within_points
from calogen.train.checkpoint import below, load_module, load_optimizer, optimizer_tensors, prefixed
from calogen.train.errors import TrainingError
from calogen.train.optim import clip_gradients, copy_into, make_ema, make_optimizer, make_schedule
from calogen.train.parallel import Group, ensure_gradients
from calogen.train.plan import Plan
from calogen.train.report import StageBar, StageLog, StageReport, Stopped, peak_memory_mb
from calogen.train.stage import Batch, LearnedStage
from calogen.train.streams import numpy_stream, seed_torch, torch_untouched

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.train.run import Run

LOG_EVERY_STEPS = 50
LEAST_WEIGHT = 1e-12
"""A batch of which no shower counts (all without points) moves nothing."""


@dataclass
class Counters:
    """Where a fit is: everything of its state that is not a tensor."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    position: int = 0  # batches done of this epoch
    seconds: float = 0.0
    train_loss: float | None = None  # mean over the last logged stretch
    validation_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    without_improvement: int = 0  # validations
    stopped: Stopped | None = None


class Learner:
    """The fit of one stage in progress."""

    def __init__(
        self,
        stage: LearnedStage,
        train: Showers,
        validation: Showers | None,
        plan: Plan,
        device: torch.device,
        group: Group,
    ) -> None:
        self.stage, self.plan, self.device, self.group = stage, plan, device, group
        self.train = train
        n_validation = min(len(validation), plan.validation_showers or len(validation)) if validation is not None else 0
        self.validation, self.n_validation = validation, n_validation
        self.shards = max(plan.shards, group.size)
        self.parameters = stage.trainable()
        self.optimizer = make_optimizer(self.parameters, plan)
        self.ema = make_ema(self.parameters, plan)
        self.counts: NDArray[np.integer] | None = None
        self.counters = Counters()
        self.best: dict[str, Tensor] = {}
        self.epoch_batches = self._batches(0)
        self.total = plan.total_steps(len(self.epoch_batches))
        self.rate = make_schedule(plan, self.total)
        # Sums since the last log line: weighted loss, weight, and the leader's wish to stop.
        self.sums = torch.zeros(3, device=device)

    # --- state -------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the fit: weights, averages, the optimiser's memory, the best weights so far."""
        averages = {str(i): average for i, average in enumerate(self.ema.averages)} if self.ema else {}
        return {
            **prefixed("model", self.stage.model.state_dict()),
            **prefixed("ema", averages),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
            **prefixed("best", self.best),
            "sums": self.sums,
        }

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any], where: str) -> None:
        """Continue from what `tensors` and `asdict(counters)` were."""
        load_module(self.stage.model, below("model", tensors), where)
        load_optimizer(self.optimizer, below("optimizer", tensors))
        self.best = below("best", tensors)
        self.sums.copy_(tensors["sums"])
        if self.ema:
            averages = below("ema", tensors)
            copy_into(self.ema.averages, [averages[str(i)] for i in range(len(averages))])
        self.counters = Counters(**counters)
        self.epoch_batches = self._batches(self.counters.epoch)

    # --- one step ----------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One optimiser step on the next batch."""
        counters = self.counters
        while counters.position >= len(self.epoch_batches):
            counters.epoch, counters.position = counters.epoch + 1, 0
            self.epoch_batches = self._batches(counters.epoch)
        batch = self.epoch_batches[counters.position]
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.rate(counters.step)
        self.optimizer.zero_grad(set_to_none=True)
        weight = self._accumulate_gradients(batch)
        gradients = ensure_gradients(self.parameters)
        self.group.add([*gradients, weight])
        torch._foreach_div_(gradients, weight[1].clamp(min=LEAST_WEIGHT))
        self.sums += weight
        clip_gradients(self.parameters, self.plan.grad_clip)
        self.optimizer.step()
        if self.ema:
            self.ema.update(counters.step)
        self.stage.after_step(counters.step)
        if self.group.size > 1:
            self.group.take_from_leader(list(self.stage.model.buffers()))
        counters.position += 1
        counters.step += 1

    def _accumulate_gradients(self, batch: NDArray[np.int64]) -> Tensor:
        """Add the gradients of this process's shards; returns its sums of loss and weight and the wish to stop."""
        step = self.counters.step
        sums = torch.zeros(3, device=self.device)
        for shard in range(self.group.rank, self.shards, self.group.size):
            mine = batch[shard :: self.shards]
            if len(mine):
                loss, weight = self._weighted_loss(self.train, mine, ("step", step, shard))
                loss.backward()
                sums[0] += loss.detach()
                sums[1] += weight
        sums[2] = float(self.group.leads and self._out_of_time())
        return sums

    def _weighted_loss(
        self, showers: Showers, indices: NDArray[np.int64], stream: tuple[int | str, ...]
    ) -> tuple[Tensor, Tensor]:
        """Sum over showers of weight x loss, and of the weights, with the noise of the named stream."""
        names = (self.plan.seed, self.stage.name, *stream)
        batch = to_device(self.stage.batch(showers, indices, numpy_stream(*names)), self.device)
        seed_torch(*names)
        losses = self.stage.loss(batch)
        if losses.shape != (len(indices),):
            raise ValueError(f"stage {self.stage.name!r}: loss {tuple(losses.shape)}, expected ({len(indices)},)")
        weights = self.stage.weights(batch)
        if weights is None:
            return losses.sum(), losses.new_full((), len(indices))
        return (losses * weights).sum(), weights.sum()

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        plan, rng = self.plan, numpy_stream(self.plan.seed, self.stage.name, "epoch", epoch)
        if plan.batching == "shuffled":
            return shuffled(len(self.train), plan.batch_size, rng)
        if self.counts is None:
            self.counts = self.stage.counts(self.train)
        if plan.batching == "bucketed":
            return bucketed(self.counts, plan.batch_size, rng, noise=plan.bucket_noise)
        return within_points(self.counts, plan.max_points, rng, max_showers=plan.batch_size)

    def _out_of_time(self) -> bool:
        return self.plan.max_minutes is not None and self.counters.seconds >= 60.0 * self.plan.max_minutes

    # --- validation --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> None:
        """Mean loss on the validation showers, averaged weights, the same noise every time; keeps the best weights."""
        model, counters = self.stage.model, self.counters
        sums = torch.zeros(2, device=self.device)
        model.eval()
        with self.ema.applied() if self.ema else nullcontext():
            for i, indices in enumerate(in_order(self.n_validation, self.plan.batch_size)):
                if self.validation is not None and i % self.group.size == self.group.rank:
                    sums += torch.stack(self._weighted_loss(self.validation, indices, ("validation", i)))
            self.group.add([sums])
            counters.validation_loss = float(sums[0] / sums[1].clamp(min=LEAST_WEIGHT))
            if counters.best_loss is None or counters.validation_loss < counters.best_loss:
                counters.best_loss, counters.best_step = counters.validation_loss, counters.step
                counters.without_improvement = 0
                self.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            else:
                counters.without_improvement += 1
        model.train()

    # --- the whole fit -----------------------------------------------------------------------------------------

    def run(self, run: Run, bar: StageBar, log: StageLog | None) -> None:
        """Step, log, validate and store until the plan, its patience or its minutes end."""
        counters = self.counters
        earlier, start, stored = counters.seconds, time.monotonic(), time.monotonic()
        self.stage.model.train()
        while counters.stopped is None:
            self.step()
            now = time.monotonic()
            counters.seconds = earlier + now - start
            last = counters.step >= self.total
            out_of_time = self.plan.max_minutes is not None and float(self.sums[2]) > 0
            due = counters.step % self.plan.validate_every == 0 or last or out_of_time
            if due or counters.step % LOG_EVERY_STEPS == 0:
                self._log(log, validate=due and self.n_validation > 0)
            bar.update(counters.step, counters.train_loss, counters.validation_loss, counters.best_loss, force=last)
            counters.stopped = self._reason_to_stop(last, out_of_time)
            if self.group.leads and counters.stopped is None and now - stored >= run.checkpoint_seconds:
                run.store(self.stage.name, self.tensors(), asdict(counters))
                stored = time.monotonic()

    def _reason_to_stop(self, last: bool, out_of_time: bool) -> Stopped | None:
        if last:
            return "finished"
        if self.plan.patience is not None and self.counters.without_improvement >= self.plan.patience:
            return "early"
        return "budget" if out_of_time else None

    def _log(self, log: StageLog | None, *, validate: bool) -> None:
        counters = self.counters
        counters.train_loss = float(self.sums[0] / self.sums[1].clamp(min=LEAST_WEIGHT))
        self.sums.zero_()
        if validate:
            self.validate()
        for kind, loss in (("training", counters.train_loss), ("validation", counters.validation_loss)):
            if loss is not None and not math.isfinite(loss):
                raise TrainingError(
                    f"stage {self.stage.name!r}: {kind} loss is {loss} at step {counters.step}; "
                    f"lower learning_rate ({self.plan.learning_rate}) or set grad_clip ({self.plan.grad_clip})"
                )
        if log:
            log.add(
                step=counters.step,
                train_loss=counters.train_loss,
                validation_loss=counters.validation_loss if validate else None,
                learning_rate=self.rate(counters.step - 1),
                seconds=round(counters.seconds, 3),
                memory_mb=round(peak_memory_mb(), 1),
                **self.stage.remarks(),
            )

    def last_weights(self) -> dict[str, Tensor]:
        """State dict with the averaged weights where there are averages."""
        with self.ema.applied() if self.ema else nullcontext():
            return {name: tensor.detach().cpu().clone() for name, tensor in self.stage.model.state_dict().items()}

    def report(self) -> StageReport:
        """The record of this fit."""
        counters = self.counters
        return StageReport(
            name=self.stage.name,
            stopped=counters.stopped or "finished",
            steps=counters.step,
            kept="best" if self.plan.keep == "best" and self.best else "last",
            train_loss=counters.train_loss,
            validation_loss=counters.validation_loss,
            best_loss=counters.best_loss,
            best_step=counters.best_step,
            seconds=counters.seconds,
            peak_memory_mb=peak_memory_mb(),
            parameters=sum(parameter.numel() for parameter in self.parameters),
            shards=self.shards,
        )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`; other members as they are."""
    return tuple(item.to(device, non_blocking=True) if isinstance(item, Tensor) else item for item in batch)


def learn(
    stage: LearnedStage,
    train: Showers,
    validation: Showers | None,
    plan: Plan,
    *,
    run: Run,
    device: torch.device,
    group: Group,
    progress: bool,
) -> StageReport:
    """Fit one stage to its end, from its checkpoint in `run` if there is one, and store its weights.

    A stage that holds all its parameters is only prepared: its transforms are fitted, its network is as it was.
    """
    with torch_untouched():
        seed_torch(plan.seed, stage.name, "prepare")
        stage.model.to(device)
        stage.prepare(train)
        stage.model.to(device)
        if not stage.trainable():
            return _held(stage, run, group)
        learner = Learner(stage, train, validation, plan, device, group)
        stored = run.stored(stage.name)
        if stored:
            learner.restore(*stored, where=str(run.checkpoint))
        log = StageLog(run.log(stage.name), learner.counters.step) if group.leads else None
        with StageBar(stage.name, learner.total, learner.counters.step, show=progress and group.leads) as bar:
            learner.run(run, bar, log)
        report = learner.report()
        if group.leads:
            run.finish(report, best=learner.best, last=learner.last_weights())
        group.wait()
    return report


def _held(stage: LearnedStage, run: Run, group: Group) -> StageReport:
    """The record of a stage of which nothing may move."""
    report = StageReport.without_steps(stage.name, "held", 0.0, 0)
    if group.leads:
        run.finish(report, best={}, last=stage.model.state_dict())
    group.wait()
    return report
