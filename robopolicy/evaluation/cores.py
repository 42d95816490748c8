"""Cores of their own for the processes of an evaluation, so that the system does not move them about."""

import os
from collections.abc import Collection
from contextlib import suppress


def core_shares(jobs: int) -> list[set[int]]:
    """Return which of the cores that this process may use each of ``jobs`` processes is to have.

    Shares are as equal as can be, and no core is in two. There are none where there are fewer cores than jobs, or
    where the system pins no processes.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= jobs <= len(cores):
        return []
    cuts = [len(cores) * k // jobs for k in range(jobs + 1)]
    return [set(cores[cuts[k] : cuts[k + 1]]) for k in range(jobs)]


def stay_on(cores: Collection[int]) -> None:
    """Keep the thread that calls, and all that it begins from now on, to ``cores``; none changes nothing."""
    if not cores:
        return
    with suppress(OSError):  # a core was taken from this machine's share since: it runs where the system lets it
        os.sched_setaffinity(0, cores)
