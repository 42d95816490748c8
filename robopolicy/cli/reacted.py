"""A watcher that marks, in what is recorded, what a guarded robot did and when."""

from collections.abc import Sequence
from typing import Any

from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step


class Marking:
    """Marks the step at which a reaction began; comes after the recorders among the watchers.

    Args:
        agent: guarded; another has no reactions.
        recorders: told.
    """

    def __init__(self, agent: Any, recorders: Sequence[Any]) -> None:
        self._agent, self._recorders = agent, recorders
        self._seen = "log"

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Nothing was done yet."""
        self._seen = "log"

    def on_step(self, step: Step) -> None:
        """Mark a reaction that is another one than before."""
        now = getattr(self._agent, "reaction", "log")
        if now not in (self._seen, "log", "handover"):  # a session marks that itself
            for recorder in self._recorders:
                recorder.mark(f"monitor: {now}")
        self._seen = now

    def on_end(self, meta: EpisodeMeta) -> None:
        """Nothing more to mark."""
