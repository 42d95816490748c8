"""Horizons, batch and budget that suit the demonstrations: what a run takes unless it is told otherwise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from robopolicy.errors import ContractError

CHUNK_S = 1.6  # a chunk of Diffusion Policy at 10 Hz, half of it executed before planning anew
ROWS = (8, 80)  # fewest and most rows of a chunk
EPOCHS = 200  # times each window is seen: Push-T's score stops rising before
STEPS = (5_000, 100_000)  # fewest and most steps of a budget made of epochs
BATCH = (16, 256)  # smallest and largest batch
BATCH_PICTURES = 64  # largest with cameras, whose networks a batch fills sooner


@dataclass(frozen=True)
class Horizons:
    """How far a policy looks back and ahead, in steps."""

    n_obs: int
    horizon: int
    n_execute: int


def suggest_horizons(
    rate_hz: float,
    lengths: Sequence[int],
    *,
    past: int = 0,
    multiple: int = 1,
    n_obs: int | None = None,
    horizon: int | None = None,
    n_execute: int | None = None,
) -> Horizons:
    """Return horizons for demonstrations of ``lengths`` steps at ``rate_hz``; what is given stays as it is.

    A chunk lasts 1.6 s, or a third of the median episode if that is shorter (a policy that plans half an episode ahead
    meets few situations), and half of it is executed. No chunk is longer than every episode.

    Args:
        rate_hz: steps a second.
        lengths: of the episodes, steps.
        past: rows before the newest observation that a chunk holds as well: as many earlier observations are seen.
        multiple: what the network divides its rows, past ones included, by.
        n_obs: observations, or None.
        horizon: rows of a chunk, or None.
        n_execute: rows executed, or None.

    Raises:
        ContractError: if no episode is as long as a chunk: every window would end in rows that nobody demonstrated.
    """
    if horizon is None:
        rows = min(CHUNK_S * rate_hz, median(lengths) / 3)
        horizon = int(min(max(round(rows / 8) * 8, ROWS[0]), ROWS[1]))
        horizon += -(past + horizon) % multiple
        spare = horizon - max(lengths)  # rows that no episode has
        horizon -= min(max(-(-spare // multiple), 0), (horizon - 1) // multiple) * multiple
    if max(lengths) < horizon:
        longest = f"the longest of {len(lengths):,} episodes" if len(lengths) > 1 else "the only episode"
        raise ContractError(
            f"data: {longest} has {max(lengths)} steps, too short for one window: a chunk takes {horizon} at "
            f"{rate_hz:g} Hz; want longer episodes, or a smaller horizon"
        )
    return Horizons(past + 1 if past and n_obs is None else n_obs or 2, horizon, n_execute or max(horizon // 2, 1))


def suggest_batch(windows: int, *, pictures: bool) -> int:
    """Return a batch size, a power of two: an epoch of ``windows`` has at least 8 of them where that is possible."""
    most = BATCH_PICTURES if pictures else BATCH[1]
    return min(max(1 << int(math.log2(max(windows / 8, 1))), BATCH[0]), most)


def suggest_steps(windows: int, batch_size: int) -> int:
    """Return the gradient steps of 200 epochs, no fewer than 5,000 and no more than 100,000."""
    steps = EPOCHS * max(windows // max(batch_size, 1), 1)
    return min(max(steps, STEPS[0]), STEPS[1])


def describe(rate_hz: float, lengths: Sequence[int], horizons: Horizons, batch: str) -> str:
    """Return one line on the demonstrations and what was made of them.

    Args:
        rate_hz: steps a second.
        lengths: of the episodes, steps.
        horizons: the horizons.
        batch: the budget in words, as `budget_words` has it.
    """
    ahead, executed = horizons.horizon / rate_hz, horizons.n_execute / rate_hz
    episodes = f"{len(lengths):,} episode{'s' if len(lengths) > 1 else ''} of {median(lengths) / rate_hz:.2g} s"
    return (
        f"{rate_hz:g} Hz, {episodes}: horizon {horizons.horizon} ({ahead:.2g} s), "
        f"n_execute {horizons.n_execute} ({executed:.2g} s), n_obs {horizons.n_obs}; {batch}"
    )


def budget_words(steps: int | None, minutes: float | None, batch_size: int, windows: int) -> str:
    """Return a budget in words, e.g. ``20,000 steps of 256 windows (200 epochs)``."""
    parts = []
    if steps is not None:
        epochs = steps * batch_size / max(windows, 1)
        parts.append(f"{steps:,} steps of {batch_size} windows ({epochs:.3g} epochs)")
    if minutes is not None:
        parts.append(f"{minutes:g} min" + ("" if parts else f", batches of {batch_size} windows"))
    return " or ".join(parts)
