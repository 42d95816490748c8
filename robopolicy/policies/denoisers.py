"""A network as the denoiser of one solve: what depends on level and condition alone is done once for all steps."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robopolicy.policies.processes import Net, Process
from robopolicy.policies.solvers import Denoiser, Grid

Answer = Callable[[Tensor], Tensor]  # x (B, H, A) to what the network says of it, at a time and under a condition


def denoiser(process: Process, net: Net, cond: Tensor, grid: Grid, *, jumps: bool = False) -> Denoiser:
    """Return the denoiser of ``net`` under ``cond`` for the levels of ``grid``.

    It says what `Process.denoise` says, in two or three small operations beside the network's.

    Args:
        process: that made the grid.
        net: the network; one that has ``at(times (n,), cond)`` is asked for its `Answer` to each of the times at once.
        cond: (B, K, E).
        grid: of the solve.
        jumps: whether it is to jump to the end of the flow, as `Process.jump` does.

    Raises:
        ContractError: if jumps are asked for and the process learns none.
    """
    times = _on(cond.device, [process.jump_time(t) if jumps else process.time(t) for t in grid.t[:-1]])
    numbers = map(process.scalings, grid.alpha[:-1], grid.sigma[:-1])
    steps = dict(zip(grid.t, zip(_answers(net, times, cond), numbers, strict=True), strict=False))

    def denoise(x: Tensor, t: float) -> Tensor:
        answer, (fed, kept, said) = steps[t]
        output = answer(x if fed == 1 else fed * x).float()
        if kept == 0 and said == 1:
            return output
        return torch.add(x if kept == 1 else kept * x, output, alpha=said)

    return denoise


def _on(device: torch.device, numbers: Sequence[float]) -> Tensor:
    """Return (n,) float32; by filling on a GPU, for a copy to it cannot be recorded in a CUDA graph."""
    if device.type == "cpu":
        return torch.tensor(numbers, dtype=torch.float32)
    return torch.stack([torch.full((), number, dtype=torch.float32, device=device) for number in numbers])


def _answers(net: Net, times: Tensor, cond: Tensor) -> Sequence[Answer]:
    if hasattr(net, "at"):
        answers: Sequence[Answer] = net.at(times, cond)
        return answers
    return [lambda x, t=time: net(x, t.expand(x.shape[0]), cond) for time in times.unbind()]  # type: ignore[misc]
