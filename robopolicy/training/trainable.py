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
        past: actions before the newest observation's that a window has besides; 0 if it learns none.
        goal_source: what a window also shows as ``goal``: the ``end`` of its episode, a ``future`` step, or None.
        needs_windows: whether `fit_normaliser` wants to know which rows make up the windows.
        networks: the parts worth compiling, which draw nothing at random but dropout; may be empty.
    """

    spec: PolicySpec
    config: Any

    @property
    def past(self) -> int:
        """Actions before the newest observation's."""
        ...

    @property
    def goal_source(self) -> str | None:
        """Where goals come from, if there are any."""
        ...

    @property
    def needs_windows(self) -> bool:
        """Whether its statistics are those of windows."""
        ...

    @property
    def networks(self) -> Iterable[nn.Module]:
        """The parts worth compiling."""
        ...

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the mean loss () of a batch as `DiffusionPolicy.loss` takes it; all it draws is from ``generator``.

        Each draw has one row a sample, so that processes which share a batch can share the draws; and the loss of a
        batch is the mean of those of its halves, so that they can share the batch.
        """
        ...

    def fit_normaliser(self, arrays: Any, windows: Any = None) -> None:
        """Take the statistics of all steps, ``arrays.state`` {name: (N, D)} and ``arrays.action`` (N, A).

        ``windows`` holds the rows ``obs``, ``action`` and ``padded_action`` of all windows if it ``needs_windows``.
        """
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
