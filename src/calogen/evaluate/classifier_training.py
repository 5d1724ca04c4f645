"""Training of a classifier on rows that need not fit into memory: split, weights, early stopping, best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.evaluate.classifier_settings import ClassifierSettings

MIN_SHOWERS = 200
"""Fewer showers of a class leave less than 40 in the third sample of one in five."""
CHUNK_VALUES = 2**23
"""Values read at once where a whole sample is passed over (32 MB in float32)."""
LEAST_VARIANCE = 1e-6
"""Of a principal component of standardised inputs; features in float32 have rounding of 1e-7 of their size."""


class Features(Protocol):
    """A matrix `[N, d]` of which rows are read by ascending index or by slice: an array, a memory map, an HDF5 set."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Subset:
    """Rows `index [n]` (ascending) of others, read when they are asked for."""

    rows: Features
    index: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        return (self.index.size, *self.rows.shape[1:])

    def __getitem__(self, rows: Any) -> Any:
        return self.rows[self.index[rows]]


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of one class, each part ascending."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Epoch:
    """What is told after each epoch: losses are mean cross-entropies in nat, classes counting equally."""

    repeat: int
    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float


Progress = Callable[[Epoch], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """The network of the best epoch, and its logits `[n, outputs]` for the held-out rows of each class."""

    network: nn.Module
    epochs: tuple[Epoch, ...]
    best_epoch: int
    validation: tuple[NDArray[np.float64], ...]
    test: tuple[NDArray[np.float64], ...]

    def apply(self, rows: Features, batch: int) -> NDArray[np.float64]:
        """Logits `[n, outputs]` of other rows."""
        device = next(self.network.parameters()).device
        return _logits(self.network, [rows], [np.arange(rows.shape[0])], batch, device)[0]

    @property
    def parameters(self) -> int:
        """Trained numbers of the network."""
        return sum(p.numel() for p in self.network.parameters())


def split(n: int, settings: ClassifierSettings, seed: int, repeat: int = 0) -> Split:
    """Parts of `n` showers: repeats move the third sample on, so that `settings.folds` of them use every shower once.

    The order depends on nothing but `n` and the seed: where two samples of one size have the same incident particles
    row by row, such a pair is in the same part, and nothing is learnt from the incident particle alone.
    """
    folds = settings.folds
    order = np.random.default_rng([seed, 11, repeat // folds]).permutation(n)
    fold = repeat % folds
    start, stop = n * fold // folds, n * (fold + 1) // folds
    rest = np.concatenate([order[stop:], order[:start]])
    n_validation = max(1, round(n * settings.validation_share))
    return Split(np.sort(rest[n_validation:]), np.sort(rest[:n_validation]), np.sort(order[start:stop]))


def check(samples: Mapping[str, Features]) -> None:
    """Refuse what no classifier can be trained on; reads every row once.

    Raises:
        ValueError: not a matrix, different widths, too few showers, or values that are NaN or infinite.
    """
    width = next(iter(samples.values())).shape[-1]
    for name, rows in samples.items():
        if len(rows.shape) != 2 or rows.shape[1] != width or width == 0:
            raise ValueError(f"{name}: features of shape {rows.shape} instead of [showers, {width}]")
        if rows.shape[0] < MIN_SHOWERS:
            raise ValueError(
                f"{name}: {rows.shape[0]} showers; a classifier needs at least {MIN_SHOWERS} of each sample"
            )
        bad = sum(int((~np.isfinite(chunk)).any(axis=1).sum()) for chunk in chunks(rows, np.arange(rows.shape[0])))
        if bad:
            raise ValueError(f"{name}: {bad} of {rows.shape[0]} showers have features that are NaN or infinite")


def chunks(rows: Features, index: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """The rows of `index` (ascending), in pieces of a bounded size."""
    step = max(1, CHUNK_VALUES // rows.shape[1])
    for start in range(0, index.size, step):
        yield np.asarray(rows[index[start : start + step]], dtype=np.float32)


def train(
    samples: Sequence[Features],
    parts: Sequence[Split],
    settings: ClassifierSettings,
    *,
    seed: int,
    repeat: int = 0,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> Trained:
    """Train on the first parts, keep the epoch of the lowest loss on the second, apply to second and third.

    Two classes have one logit, that of the second class against the first; more have one logit each. Classes count
    equally whatever their sizes. Only the rows of a batch are in memory. The same seed on the same machine gives the
    same result; torch's global generators are left as they were.
    """
    outputs = 1 if len(samples) == 2 else len(samples)
    loader = _Loader(samples, [p.train for p in parts], np.random.default_rng([seed, 12, repeat]))
    weights = torch.tensor([loader.size / (len(parts) * p.train.size) for p in parts], device=device)
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, 13, repeat]).generate_state(1, np.uint64)[0] >> 1))
        network = nn.Sequential(_standardizer(samples, parts, settings), settings.build(samples[0].shape[1], outputs))
        network.to(device)
        best_state, best_loss, best_epoch, epochs = None, math.inf, 0, list[Epoch]()
        optimizer = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        for epoch in range(1, settings.epochs + 1):
            loss = _train_epoch(network, optimizer, loader, weights, settings.batch, device)
            held_out = _logits(network, samples, [p.validation for p in parts], settings.batch, device)
            epochs.append(Epoch(repeat, epoch, settings.epochs, loss, balanced_loss(held_out)))
            if progress is not None:
                progress(epochs[-1])
            if not math.isfinite(loss):
                raise ValueError(f"the classifier's loss is {loss} after epoch {epoch}; use a lower learning rate")
            if epochs[-1].validation_loss < best_loss:
                best_loss, best_epoch = epochs[-1].validation_loss, epoch
                best_state = {k: v.detach().clone() for k, v in network.state_dict().items()}
            if epoch - best_epoch >= settings.patience:
                break
    if best_state is not None:
        network.load_state_dict(best_state)
    network.eval()
    validation = _logits(network, samples, [p.validation for p in parts], settings.batch, device)
    test = _logits(network, samples, [p.test for p in parts], settings.batch, device)
    return Trained(network, tuple(epochs), best_epoch, validation, test)


def balanced_loss(logits: Sequence[NDArray[np.float64]]) -> float:
    """Mean over classes of the mean cross-entropy (nat) of logits `[n, outputs]`, one array a class."""
    return float(
        np.mean([_cross_entropy(torch.from_numpy(z), torch.full((len(z),), k)).mean() for k, z in enumerate(logits)])
    )


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropies `[n]` of one logit (of class 1 against 0) or of one a class."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], label.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, label, reduction="none")


def _train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: _Loader,
    weights: Tensor,
    batch: int,
    device: str | torch.device,
) -> float:
    network.train()
    total = 0.0
    for rows, label in loader.batches(batch):
        x, y = torch.from_numpy(rows).to(device), torch.from_numpy(label).to(device)
        loss = (weights[y] * _cross_entropy(network(x), y)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(label)
    return total / loader.size


@torch.no_grad()
def _logits(
    network: nn.Module,
    samples: Sequence[Features],
    index: Sequence[NDArray[np.int64]],
    batch: int,
    device: str | torch.device,
) -> tuple[NDArray[np.float64], ...]:
    network.eval()
    results = []
    for rows, wanted in zip(samples, index, strict=True):
        pieces = [torch.from_numpy(chunk).split(batch) for chunk in chunks(rows, wanted)]
        done = [network(x.to(device)).double().cpu().numpy() for piece in pieces for x in piece]
        results.append(np.concatenate(done))
    return tuple(results)


class _Loader:
    """Batches of all classes mixed, in a new order at every pass; reads the rows of one batch at a time."""

    def __init__(
        self, samples: Sequence[Features], index: Sequence[NDArray[np.int64]], generator: np.random.Generator
    ) -> None:
        self.samples = samples
        self.label = np.concatenate([np.full(rows.size, k, dtype=np.int64) for k, rows in enumerate(index)])
        self.row = np.concatenate(index)
        self.generator = generator

    @property
    def size(self) -> int:
        """Rows of one pass."""
        return self.row.size

    def batches(self, batch: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Rows `[b, d]` and labels `[b]`; batches of nearly equal sizes, so that none is too small to normalise."""
        order = self.generator.permutation(self.size)
        for chosen in np.array_split(order, math.ceil(self.size / batch)):
            label, row = self.label[chosen], self.row[chosen]
            rows = np.empty((chosen.size, self.samples[0].shape[1]), dtype=np.float32)
            for k, sample in enumerate(self.samples):
                mine = np.flatnonzero(label == k)
                mine = mine[np.argsort(row[mine])]
                if mine.size:
                    rows[mine] = sample[row[mine]]
            yield rows, label


class _Standardize(nn.Module):
    """(x - mean) / deviation, with the numbers of the training part."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        constant = deviation <= 0
        self.register_buffer("scale", torch.from_numpy(np.where(constant, 1, deviation).astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


class _Whiten(nn.Module):
    """Inputs turned into uncorrelated ones of mean 0 and deviation 1: the principal components of standardised inputs.

    Components of less than `LEAST_VARIANCE` are rounding, not differences of showers, and become zero.
    """

    turn: Tensor

    def __init__(self, standardize: _Standardize, covariance: NDArray[np.float64]) -> None:
        super().__init__()
        self.standardize = standardize
        scale = standardize.scale.double().numpy()
        variance, direction = np.linalg.eigh(covariance / np.outer(scale, scale))
        size = np.zeros_like(variance)
        np.divide(1, np.sqrt(variance.clip(min=0)), out=size, where=variance > LEAST_VARIANCE)
        self.register_buffer("turn", torch.from_numpy((direction * size).astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        standardized: Tensor = self.standardize(x)
        return standardized @ self.turn


def _standardizer(samples: Sequence[Features], parts: Sequence[Split], settings: ClassifierSettings) -> nn.Module:
    if settings.standardize == "none":
        return nn.Identity()
    classes = [len(samples) - 1] if settings.standardize == "truth" else range(len(samples))
    whiten, width = settings.standardize == "whiten", samples[0].shape[1]
    n, mean = 0, np.zeros(width)
    squares = np.zeros((width, width)) if whiten else np.zeros(width)
    for chunk in (c for k in classes for c in chunks(samples[k], parts[k].train)):
        # Sums of chunks joined as by Chan, Golub and LeVeque (1983): no difference of large numbers.
        own = chunk.mean(axis=0, dtype=np.float64)
        shift, centred, total = own - mean, chunk - own, n + len(chunk)
        product = (lambda v: v.T @ v) if whiten else (lambda v: (v**2).sum(axis=0))
        squares += product(centred) + product(shift[None]) * n * len(chunk) / total
        mean, n = mean + shift * len(chunk) / total, total
    variance = squares.diagonal() / n if whiten else squares / n
    standardize = _Standardize(mean, np.sqrt(variance))
    return _Whiten(standardize, squares / n) if whiten else standardize
