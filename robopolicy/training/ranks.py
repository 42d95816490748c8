"""Several processes that train one policy, started by ``torchrun``; alone, all of this is nothing."""

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.training.draws import SharedDraws


class Ranks:
    """This process among those that train together, which see one global batch, each its share of it.

    Rank r takes the samples r, r + world, ... and of whatever is drawn for the batch the rows of its samples, so the
    numbers are those of one process, but for the rounding of sums.

    Args:
        rank: of this process.
        world: how many there are.
        local: of this process on its machine: which GPU it takes.
        neighbours: how many there are on its machine, itself included, which share its memory and cores.
    """

    def __init__(self, rank: int = 0, world: int = 1, local: int = 0, neighbours: int = 1) -> None:
        self.rank, self.world, self.neighbours, self._local = rank, world, neighbours, local
        self._began = False
        self._group: Any = None  # for words between the CPUs, whatever the gradients travel by
        self._words = torch.zeros(())  # what was said last: a thread of the group must not be the last to hold it

    @classmethod
    def of_environment(cls) -> "Ranks":
        """Return what ``torchrun`` says of this process; one alone if it did not start it."""
        said = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
        return cls(*(int(os.environ.get(name, default)) for name, default in said))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Return the device of this process: ``"cuda"`` is the GPU of its own."""
        return torch.device("cuda", self._local) if name == "cuda" and self.world > 1 else torch.device(name)

    def begin(self, device: torch.device) -> None:
        """Meet the others.

        Raises:
            ContractError: if this torch cannot.
        """
        if self.world == 1:
            return
        import torch.distributed as distributed

        if not distributed.is_available():
            raise ContractError("training: this torch cannot train in several processes; start it without torchrun")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
            self._began = True
        self._group = distributed.new_group(backend="gloo")

    def end(self) -> None:
        """Leave the others; a caller who had met them before `begin` stays with them."""
        if self._group is None:
            return
        import torch.distributed as distributed

        distributed.destroy_process_group(None if self._began else self._group)
        self._group, self._began = None, False

    def agree(self, value: float, wish: bool = False) -> tuple[float, bool]:
        """Return the first process's ``value``, and whether any of them has the ``wish``; all must ask."""
        if self.world == 1:
            return value, wish
        import torch.distributed as distributed

        self._words = torch.tensor([value if self.first else -math.inf, wish], dtype=torch.float64)
        distributed.all_reduce(self._words, distributed.ReduceOp.MAX, group=self._group)
        said, wished = self._words.tolist()
        return said, bool(wished)

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean over the processes of each number; all must ask."""
        if self.world == 1:
            return list(values)
        import torch.distributed as distributed

        self._words = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(self._words, group=self._group)
        return (self._words / self.world).tolist()

    def share(self, size: int) -> slice:
        """Return which samples of a batch of ``size`` are those of this process.

        Raises:
            ContractError: if they cannot be shared equally.
        """
        if size % self.world:
            raise ContractError(f"training: a batch of {size} for {self.world} processes; want a multiple of that")
        return slice(self.rank, None, self.world)

    def averaging(self, policy: nn.Module) -> Callable[[Mapping[str, Any], torch.Generator], Tensor]:
        """Return the loss of ``policy`` whose backward pass averages the gradients of all processes."""
        if self.world == 1:
            return policy.loss  # type: ignore[return-value]
        from torch.nn.parallel import DistributedDataParallel

        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
        return DistributedDataParallel(_Loss(policy), **{name: False})

    def drawing(self, generator: torch.Generator, samples: int) -> AbstractContextManager:
        """Within it, what is drawn for this process's ``samples`` is its rows of what one process would draw."""
        return nullcontext() if self.world == 1 else SharedDraws(self.rank, self.world, generator, samples)


class _Loss(nn.Module):
    """A policy whose forward is its loss, as DistributedDataParallel wants it."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> Tensor:
        return self.policy.loss(batch, generator)  # type: ignore[operator]
