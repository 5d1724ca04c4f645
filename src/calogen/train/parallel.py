"""Data-parallel processes: what they add up, and how they are started.

A batch is cut into shards; each shard has its own noise stream, whoever computes it. Processes take whole shards
and add their gradients, so the result depends on the number of shards and, up to round-off, not on that of processes.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from calogen.train.errors import TrainingError

COMPLAINT = "complaint"  # file in which a process leaves the one line that says why it ended
PATIENCE = timedelta(hours=12)  # others wait this long while one process solves a stage or writes


@dataclass(frozen=True)
class Group:
    """This process among `size` that fit together; the default is one process alone."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Group:
        """The processes this one fits with, for what a stage does after a step."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, bit-identical in all: one message for all tensors."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        _scatter(flat, tensors)

    @torch.no_grad()
    def take_from_leader(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the leading process."""
        # In the order of the tensors: a set would be walked in another order by each process.
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors) if self.size > 1 else ():
            alike = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            dist.broadcast(flat, 0)
            _scatter(flat, alike)


def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
        start += tensor.numel()


def ensure_gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradients, zeros where a shard did not touch a parameter."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def device_of(device: torch.device, group: Group) -> torch.device:
    """The device of one process: its own GPU where there are several."""
    return torch.device("cuda", group.rank) if device.type == "cuda" and group.size > 1 else device


def run_in_processes(work: Callable[..., None], arguments: tuple[Any, ...], size: int, device: torch.device) -> None:
    """Call `work(*arguments, group=Group(rank, size))` in `size` new processes and wait for all.

    The arguments travel as a byte copy in memory: sent as they are, torch would make their tensors shared memory and
    all processes would train the same numbers. Scripts need the usual `if __name__ == "__main__":`.
    """
    if device.type == "cuda" and torch.cuda.device_count() < size:
        raise ValueError(f"{size} devices asked for, {torch.cuda.device_count()} CUDA devices found")
    content = pickle.dumps((work, arguments))
    threads = max(1, torch.get_num_threads() // size)
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        try:
            mp.spawn(_process, args=(content, size, meeting, threads, device.type), nprocs=size, join=True)
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            complaint = Path(folder) / COMPLAINT
            if not complaint.exists():
                raise
            raise TrainingError(complaint.read_text()) from error


def _process(rank: int, content: bytes, size: int, meeting: str, threads: int, device_type: str) -> None:
    torch.set_num_threads(threads)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all processes are on this machine
    backend = "nccl" if device_type == "cuda" else "gloo"
    if device_type == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE)
    try:
        work, arguments = pickle.loads(content)
        work(*arguments, group=Group(rank, size))
    except (ValueError, TrainingError) as error:
        (Path(meeting).parent / COMPLAINT).write_text(str(error))
        raise
    finally:
        dist.destroy_process_group()
