"""Randomness without memory: every stream is a pure function of (seed, stage, purpose, step, ...).

Nothing random is carried from one step to the next, so a fit resumed at step n draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

SEED_BITS = 63  # torch.manual_seed takes a signed 64-bit integer


def stream_key(*names: int | str) -> int:
    """A seed in [0, 2^63) from what names the stream: BLAKE2b of the names.

    >>> stream_key(1, "points", "noise", 7) == stream_key(1, "points", "noise", 7)
    True
    """
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - SEED_BITS)


def numpy_stream(*names: int | str) -> np.random.Generator:
    """A fresh numpy generator for the named stream."""
    return np.random.Generator(np.random.PCG64(stream_key(*names)))


def seed_torch(*names: int | str) -> None:
    """Set torch's global generators to the start of the named stream (use inside `torch_untouched`)."""
    key = stream_key(*names)
    # Not torch.manual_seed: where CUDA is not in use, it formats and keeps a traceback at every call (2 ms).
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(key)


@contextmanager
def torch_untouched() -> Iterator[None]:
    """Whatever happens inside, torch's global generators are afterwards as before."""
    with torch.random.fork_rng():
        yield


@contextmanager
def seeded(*names: int | str) -> Iterator[None]:
    """Torch's global generators at the start of the named stream inside, as before afterwards.

    >>> with seeded(1, "weights"):
    ...     a = torch.rand(2)
    >>> with seeded(1, "weights"):
    ...     b = torch.rand(2)
    >>> bool((a == b).all())
    True
    """
    with torch_untouched():
        seed_torch(*names)
        yield
