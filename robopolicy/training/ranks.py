"""Several processes that train one policy, started by ``torchrun``; alone, all of this is nothing."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robopolicy.errors import ContractError

DRAWS = (torch.randn, torch.rand, torch.randint)


class Ranks:
    """This process among those that train together, which see one global batch, each its share of it.

    Rank r takes the samples r, r + world, ... and of whatever is drawn for the batch the rows of its samples, so the
    numbers are those of one process, but for the rounding of sums.

    Args:
        rank: of this process.
        world: how many there are.
        local: of this process on its machine: which GPU it takes.
    """

    def __init__(self, rank: int = 0, world: int = 1, local: int = 0) -> None:
        self.rank, self.world, self._local = rank, world, local
        self._began = False
        self._group: Any = None  # for words between the CPUs, whatever the gradients travel by

    @classmethod
    def of_environment(cls) -> "Ranks":
        """Return what ``torchrun`` says of this process; one alone if it did not start it."""
        rank, world, local = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
        return cls(rank, world, local)

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
        """Leave the others, if it was `begin` that met them."""
        if self._began:
            import torch.distributed as distributed

            distributed.destroy_process_group()
            self._began = False

    def agree(self, *values: float) -> list[float]:
        """Return what the first process says; all must ask."""
        if self.world == 1:
            return list(values)
        import torch.distributed as distributed

        said = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(said, 0, group=self._group)
        return said.tolist()

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean over the processes of each number; all must ask."""
        if self.world == 1:
            return list(values)
        import torch.distributed as distributed

        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total, group=self._group)
        return (total / self.world).tolist()

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
        return nullcontext() if self.world == 1 else _SharedDraws(self, generator, samples)


class _Loss(nn.Module):
    """A policy whose forward is its loss, as DistributedDataParallel wants it."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> Tensor:
        return self.policy.loss(batch, generator)  # type: ignore[operator]


class _SharedDraws(TorchFunctionMode):
    """Draws for all processes and keeps the rows of one: noise, levels, crops and the masks of dropout."""

    def __init__(self, ranks: Ranks, generator: torch.Generator, samples: int) -> None:
        super().__init__()
        self._ranks, self._generator, self._samples = ranks, generator, samples

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in DRAWS and kwargs.get("generator") is self._generator:
            return self._draw(func, args, kwargs)
        if func is nn.functional.dropout:
            return self._dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _draw(self, func: Callable, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        args = list(args)
        if func is torch.randint or isinstance(args[-1], Sequence):
            shape, before = tuple(args[-1]), args[:-1]
        else:
            shape, before = tuple(args), []
        return self._rows(func(*before, (self._ranks.world * shape[0], *shape[1:]), **kwargs), shape)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        ones = torch.ones((self._ranks.world * len(input), *input.shape[1:]), dtype=input.dtype, device=input.device)
        return input * self._rows(nn.functional.dropout(ones, p, training), input.shape)

    def _rows(self, drawn: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the rows of this process; ``shape`` may have several rows a sample, which stay together."""
        each = max(shape[0] // self._samples, 1)
        mine = drawn.unflatten(0, (-1, each))[self._ranks.rank :: self._ranks.world]
        return mine.flatten(0, 1).reshape(tuple(shape))
