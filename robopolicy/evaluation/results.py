"""What comes of an item that a process was given, a result, an error or nothing, and how long it may take."""

from dataclasses import dataclass
from typing import Any

BUILD_S = 600.0  # longest that a world and an agent may take to be made where episodes have a limit
HUNG = "hung: "  # how what is said of an episode that was ended begins


@dataclass(frozen=True)
class Patience:
    """How long workers may take, and how often they may die."""

    episode_s: float | None = None  # longest an episode may last by the wall clock; None is for ever
    build_s: float | None = None  # the same of what is built before it
    retries: int = 0  # runs of one item after the one in which its worker died

    @classmethod
    def with_episodes(cls, episode_s: float | None, retries: int = 0) -> "Patience":
        """Return one that also has an end with what never gets as far as an episode, if that has one."""
        return cls(episode_s, None if episode_s is None else max(BUILD_S, episode_s), retries)


@dataclass(frozen=True)
class Lost:
    """Why there is no result of an item: its worker died or hung."""

    how: str  # "SIGKILL", "exit code 3", "ran for more than 60 s"
    hung: bool = False
    building: bool = False  # before the episode began

    def words(self, attempts: int) -> str:
        """Return in words why an episode has no outcome, after so many attempts."""
        if self.hung:
            return f"{HUNG}{self.how}, and was ended"
        what = "while its world and agent were made" if self.building else "during this episode"
        return f"crashed: the process died {what} ({self.how}){f', {attempts} times' if attempts > 1 else ''}"


@dataclass(frozen=True)
class Result:
    """What came of one item."""

    item: Any
    value: Any  # what the runner returned; a `Lost`; or a `Raised`
    attempts: int = 1


@dataclass(frozen=True)
class Raised:
    """What a runner raised, in one line."""

    what: str


WAITING = Patience()  # for ever
