"""Why an episode failed and from which step on, and how many did for which reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from robopolicy.evaluation.outcomes import Outcome

RISE = 0.01  # of the score, which runs from 0 to 1: less is no progress
STALL_SHARE = 0.25  # of the episode without progress, up to its end, is a stall

WORDS = {
    "stalled": "no progress from there on",
    "timeout": "still making progress when the time was over",
    "held": "the agent held still from there on",
    "stopped": "safety stopped it",
    "lost": "the policy had no plan for what it saw",
    "error": "no outcome: the episode's process or world broke",
}  # the reasons that any world has; a task's own are its slugs


class FailureTrace:
    """Follows one episode, so that afterwards it is known what went wrong first and was not made good again."""

    def __init__(self) -> None:
        self._slug, self._since = "", 0  # the trouble the episode is in, and the first step of it
        self._held_since: int | None = None
        self._level, self._rose = 0.0, 0  # the score at its newest rise, and its step
        self._seen = False

    def see(self, step: int, slug: str, score: float) -> None:
        """Take the world's ``failure`` and score at the observation before command ``step``."""
        if slug and not self._slug:
            self._slug, self._since = slug, step
        elif not slug:
            self._slug = ""
        if not self._seen:
            self._level, self._seen = score, True
        elif score >= self._level + RISE:
            self._level, self._rose = score, step

    def drive(self, step: int, *, held: bool) -> None:
        """Take whether command ``step`` was one to stay where it is."""
        if not held:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = step

    def cause(self, steps: int, *, stopped: str) -> tuple[str, int | None]:
        """Return why this episode of ``steps`` commands failed, and the step from which on it did.

        What was never made good again and began first: the slug that the task gave then (``"dropped"``, also where
        the cube later rolled off the table), or ``"held"``, if the agent only held still from there to the end. Without
        either: ``stopped``, which is ``"stopped"`` by safety or ``"lost"``, where it ended before its time;
        ``"stalled"`` where the score last rose by 0.01, if the last quarter of the episode or more brought no such
        rise; else ``"timeout"``, which has no onset.
        """
        troubles = [(self._since, self._slug)] if self._slug else []
        if self._held_since is not None:
            troubles.append((self._held_since, "held"))
        if troubles:
            since, slug = min(troubles, key=lambda trouble: trouble[0])
            return slug, since
        if stopped:
            return stopped, steps
        if steps - self._rose >= STALL_SHARE * steps:
            return "stalled", self._rose
        return "timeout", None


@dataclass(frozen=True)
class Cause:
    """One reason, and the episodes that failed for it."""

    failure: str  # the task's slug, or one of ``WORDS``
    seeds: tuple[int, ...]
    onset_step: float | None  # median; None where none has one

    @property
    def words(self) -> str:
        """What it means, in a few words."""
        return WORDS.get(self.failure, self.failure.replace("_", " "))


def taxonomy(outcomes: Sequence[Outcome]) -> list[Cause]:
    """Return the reasons why episodes of ``outcomes`` failed, the most frequent first; errors are one of them."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            groups.setdefault("error", []).append(outcome)
        elif not outcome.success:
            groups.setdefault(outcome.failure or "not known", []).append(outcome)
    causes = []
    for slug, failed in groups.items():
        onsets = [outcome.onset_step for outcome in failed if outcome.onset_step is not None]
        seeds = tuple(sorted(outcome.seed for outcome in failed))
        causes.append(Cause(slug, seeds, float(median(onsets)) if onsets else None))
    return sorted(causes, key=lambda cause: (-len(cause.seeds), cause.failure))
