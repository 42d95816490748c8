"""What a solve tells beside its chunks: how its guesses moved on their way, and how another network's differ."""

from typing import NamedTuple

import torch
from torch import Tensor

from robopolicy.policies.solvers import Denoiser


class Solved(NamedTuple):
    """The chunks of one solve, and what some of its candidates said on the way; all normalised."""

    chunks: Tensor  # (N, P + H, C), clean
    variance: Tensor  # (M, P + H), M = N / every
    disagreement: Tensor | None = None  # (M, P + H); None without companions


class Way:
    """A denoiser that says what another says, and remembers it; to serve one solve.

    Args:
        denoise: answers.
        every: of each so many candidates the first is remembered; it divides the batch.
        others: denoisers of companions, asked the same about those candidates alone.
    """

    def __init__(self, denoise: Denoiser, every: int = 1, others: tuple[Denoiser, ...] = ()) -> None:
        self._denoise, self._every, self._others = denoise, every, others
        self._guesses: list[Tensor] = []  # (M, P + H, C) each
        self._gap: Tensor | None = None  # (M, P + H, C), summed over the steps so far
        self._gaps = 0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Return the clean chunk that x (N, P + H, C) at level t came from."""
        clean = self._denoise(x, t)
        guess = clean if self._every == 1 else clean[:: self._every]
        self._guesses.append(guess)
        for other in self._others:
            gap = (other(x[:: self._every], t) - guess).square_()
            self._gap = gap if self._gap is None else self._gap.add_(gap)  # one by one: a sum's order may depend on
            self._gaps += 1  # where a number stands
        return clean

    def variance(self) -> Tensor:
        """Return the variance (M, P + H) of the guesses in the latter half of the solve, mean over a row's elements.

        Guesses of clean chunks settle as the noise goes, unless what the network makes of it depends on the noise that
        is left. Two guesses at least: a solver of one step has no variance, and 0 is returned.
        """
        count = len(self._guesses)
        if count < 2:
            return self._guesses[0].new_zeros(self._guesses[0].shape[:-1])
        last = torch.stack(
            self._guesses[-max(2, count // 2) :], dim=-1
        )  # (M, P + H, C, G): what is summed lies together
        last = last.sub_(last.mean(dim=-1, keepdim=True))
        return last.square_().mean(dim=(-2, -1))

    def disagreement(self) -> Tensor | None:
        """Return the squared difference (M, P + H) from the companions' guesses, mean over all steps and elements."""
        return None if self._gap is None else (self._gap / self._gaps).mean(dim=-1)
