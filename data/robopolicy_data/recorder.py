"""A watcher that records what the loop really did."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step
from robopolicy_data.background import BackgroundEpisode, InlineEpisode
from robopolicy_data.pace import Pace
from robopolicy_data.writer import DatasetWriter, Interrupted


@dataclass(frozen=True)
class RecorderStatus:
    """How the recording goes."""

    queued: int  # steps waiting to be written
    capacity: int  # steps that may wait
    dropped: int  # steps of this episode that found no room: an error
    rate_hz: float  # achieved over the last two seconds
    message: str  # what is wrong, "" if nothing; after an episode, what was


class Recorder:
    """Writes every episode of a loop into one dataset, without making the loop wait.

    The dataset is opened at the first episode and held until `close`. An episode that the loop never ended
    (an exception) stays uncommitted and is put aside, or recovered, at the next start.

    Args:
        path: the dataset; appended to if it exists.
        keep: decides at the end of each episode whether it is committed or discarded.
        quality: of the JPEG frames.
        lossless: store frames bit for bit instead.
        background: write from a thread; a step that finds the queue full is dropped, counted, told and recorded. False
            writes at once and drops nothing: for simulated time, which can wait.
        capacity_steps, capacity_bytes: what may wait in the queue.
        recover: make episodes of interrupted recordings when the dataset is opened.

    Attributes:
        committed: numbers of the episodes written so far.
        steps: how many steps the newest of them has.
        interrupted: what interrupted recordings were found when the dataset was opened.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        keep: Callable[[EpisodeMeta], bool] = lambda meta: True,
        quality: int = 90,
        lossless: bool = False,
        background: bool = True,
        capacity_steps: int = 1000,
        capacity_bytes: int = 256_000_000,
        recover: bool = False,
    ) -> None:
        self.committed: list[int] = []
        self.steps = 0
        self.interrupted: tuple[Interrupted, ...] = ()
        self._path, self._keep, self._quality, self._lossless = Path(path), keep, quality, lossless
        self._background, self._capacity, self._recover = background, (capacity_steps, capacity_bytes), recover
        self._writer: DatasetWriter | None = None
        self._taking: BackgroundEpisode | InlineEpisode | None = None
        self._pace: Pace | None = None
        self._marks: list[dict[str, int | str]] = []
        self._stamp_ns: int | None = None  # of the newest step
        self._message = ""

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Begin an episode; raises what `DatasetWriter` and its `begin` raise."""
        self._leave()
        if self._writer is None:
            self._writer = DatasetWriter(
                self._path, spec, quality=self._quality, lossless=self._lossless, recover=self._recover
            )
            self.interrupted = self._writer.interrupted
        self._writer.require(spec)
        episode = self._writer.begin(meta)
        self._pace, self._marks, self._stamp_ns, self._message = Pace(spec), [], None, ""
        self._taking = BackgroundEpisode(episode, *self._capacity) if self._background else InlineEpisode(episode)

    def on_step(self, step: Step) -> None:
        """Take one step; raises what `EpisodeWriter.add` raised for this or, in the background, an earlier one."""
        if self._taking is not None and self._pace is not None:
            if self._stamp_ns is None:
                for mark in self._marks:
                    mark["stamp_ns"] = step.observation.stamp_ns
            self._stamp_ns = step.observation.stamp_ns
            self._pace.saw(step.observation)
            self._taking.put(step)

    def mark(self, name: str) -> None:
        """Mark the newest step, before there is one the first, for the episode's ``marks``."""
        self._marks.append({"stamp_ns": self._stamp_ns or 0, "name": name})

    def on_end(self, meta: EpisodeMeta) -> None:
        """Write what still waits, then commit the episode, or discard it if it is empty or not to be kept.

        Raises:
            ContractError, DiskFull, OSError: what stopped the writing of a step, if the loop does not know of it; the
                steps before it are committed, with ``success`` False and the reason in ``notes``.
        """
        taking = self._taking
        if taking is None:
            return
        try:
            taking.finish()
            self._taking = None
            self._message = "; ".join(filter(None, [_dropped(taking), self._pace.whole() if self._pace else ""]))
            untold = None if taking.told else taking.error
            if untold is not None:
                notes = f"{meta.notes} recording stopped after {len(taking.episode)} steps: {untold}".strip()
                meta = replace(meta, success=False, notes=notes)
            self._end(taking, meta)
        except BaseException:
            self._taking = taking
            self._leave()
            raise
        if untold is not None:
            raise untold

    def status(self) -> RecorderStatus:
        """Return how the recording goes; costs microseconds."""
        taking, pace, capacity = self._taking, self._pace, self._capacity[0]
        if taking is None or pace is None:
            return RecorderStatus(0, capacity, 0, 0.0, self._message)
        stopped = "" if taking.error is None else f"recording stopped: {taking.error}"
        message = stopped or _dropped(taking) or pace.now()
        return RecorderStatus(taking.queued, capacity, taking.dropped, pace.rate_hz, message)

    def close(self) -> None:
        """Let the dataset go; an episode still open is left unfinished; idempotent."""
        self._leave()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, taking: BackgroundEpisode | InlineEpisode, meta: EpisodeMeta) -> None:
        episode = taking.episode
        if len(episode) and self._keep(meta):
            steps = len(episode)
            self.committed.append(episode.commit(meta, drops=taking.drops(), marks=self._marks))
            self.steps = steps
        elif len(episode) and taking.error is not None:
            episode.abandon()  # what an error cut short is not for `keep` to delete
        else:
            episode.discard()

    def _leave(self) -> None:
        """Leave an episode that was not ended as it is."""
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.finish()
            taking.episode.abandon()


def _dropped(taking: BackgroundEpisode | InlineEpisode) -> str:
    """Return one line on what was dropped, "" if nothing was."""
    steps = f"{taking.dropped} step(s) DROPPED: the disk or the processor cannot keep up" if taking.dropped else ""
    torn = (f"camera {name!r} sent {count} torn frame(s), LEFT OUT" for name, count in taking.episode.torn.items())
    return "; ".join(filter(None, [steps, *torn]))
