"""Whole samples as CUDA graphs: a solve is hundreds of small kernels, and launching each costs more than it."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

Solve = Callable[[Tensor, Tensor], Sequence[Tensor]]  # condition and noise to chunks; nothing but tensor operations
KEPT = 4  # recordings; each has memory of its own


class Graphs:
    """Records a solve the first time its inputs have some shape, replays it from then on; on a CPU it just runs.

    A replay reads the weights where they lie, so training in place goes on being seen; the ``key`` must change when
    they move. What cannot be recorded is run as it is. A copy, or a pickle, holds no recording.

    Args:
        record: makes a replay of a solve for inputs like these; None is torch's CUDA graphs, on CUDA tensors only.
    """

    def __init__(self, record: Callable[[Solve, Tensor, Tensor], Solve] | None = None) -> None:
        self._record = record
        self._replays: dict[Hashable, Solve] = {}

    def run(self, solve: Solve, cond: Tensor, noise: Tensor, key: Hashable = ()) -> Sequence[Tensor]:
        """Return ``solve(cond, noise)``, a tensor or more, from a recording if there can be one.

        Args:
            solve: the same function for the same ``key``.
            cond: (N, K, E).
            noise: what the solver needs.
            key: all that ``solve`` depends on beside its inputs and the weights' values.
        """
        if self._record is None and cond.device.type != "cuda":
            return solve(cond, noise)
        whole = (key, tuple(cond.shape), tuple(noise.shape), cond.dtype, cond.device)
        if whole not in self._replays:
            while len(self._replays) >= KEPT:
                del self._replays[next(iter(self._replays))]
            try:
                self._replays[whole] = (self._record or record_cuda)(solve, cond, noise)
            except RuntimeError:  # something in it has to ask the CPU
                self._replays[whole] = solve
        return self._replays[whole](cond, noise)

    def __deepcopy__(self, memo: Any) -> "Graphs":
        return Graphs(self._record)

    def __reduce__(self) -> Any:
        return Graphs, ()


def record_cuda(solve: Solve, cond: Tensor, noise: Tensor) -> Solve:
    """Return a replay of ``solve`` for inputs in the shapes of cond and noise.

    Raises:
        RuntimeError: if the solve cannot be recorded.
    """
    inputs = cond.clone(), noise.clone()
    aside = torch.cuda.Stream(cond.device)
    aside.wait_stream(torch.cuda.current_stream(cond.device))
    with torch.cuda.stream(aside):
        for _ in range(2):  # kernels are chosen and work space is taken before anything is recorded
            solve(*inputs)
    torch.cuda.current_stream(cond.device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = solve(*inputs)

    def replay(cond: Tensor, noise: Tensor) -> Sequence[Tensor]:
        inputs[0].copy_(cond)
        inputs[1].copy_(noise)
        graph.replay()
        return tuple(part.clone() for part in made)  # the next replay writes over it

    return replay
