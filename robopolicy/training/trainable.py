"""What the trainer asks of a policy."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robopolicy.spec import PolicySpec


class Trainable(Protocol):
    """A `torch.nn.Module` that can be trained: `DiffusionPolicy`, or another that has these beside what a module has.

    Attributes:
        spec: cameras and states that its batches hold, and its horizons.
        config: has ``lr``, the peak learning rate, and ``to_json()``.
        networks: the parts worth compiling, which draw nothing at random but dropout; may be empty.
    """

    spec: PolicySpec
    config: Any

    @property
    def networks(self) -> Iterable[nn.Module]:
        """The parts worth compiling."""
        ...

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the mean loss () of a batch as `DiffusionPolicy.loss` takes it; all it draws is from ``generator``.

        Each draw has one row a sample, so that processes which share a batch can share the draws.
        """
        ...

    def fit_normaliser(self, arrays: Any) -> None:
        """Take the statistics of all steps, ``arrays.state`` {name: (N, D)} and ``arrays.action`` (N, A)."""
        ...

    def stats(self) -> dict[str, Any]:
        """Return those statistics for people to read."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all weights, in an order that does not change."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return all weights by name."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights and buffers by name."""
        ...
