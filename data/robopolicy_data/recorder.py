"""A watcher that records what the loop really did."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step
from robopolicy_data.episode_writer import EpisodeWriter
from robopolicy_data.writer import DatasetWriter


class Recorder:
    """Writes every episode of a loop into one dataset.

    The dataset is opened at the first episode and held until `close`. An episode that the loop never ended
    (an exception) stays uncommitted and is put aside at the next start.

    Args:
        path: the dataset; appended to if it exists.
        keep: decides at the end of each episode whether it is committed or discarded.
        quality: of the JPEG frames.
        lossless: store frames bit for bit instead.

    Attributes:
        committed: numbers of the episodes written so far.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        keep: Callable[[EpisodeMeta], bool] = lambda meta: True,
        quality: int = 90,
        lossless: bool = False,
    ) -> None:
        self.committed: list[int] = []
        self._path, self._keep, self._quality, self._lossless = Path(path), keep, quality, lossless
        self._writer: DatasetWriter | None = None
        self._episode: EpisodeWriter | None = None

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Begin an episode; raises what `DatasetWriter` and its `begin` raise."""
        if self._episode is not None:
            self._episode.abandon()
            self._episode = None
        if self._writer is None:
            self._writer = DatasetWriter(self._path, spec, quality=self._quality, lossless=self._lossless)
        self._writer.require(spec)
        self._episode = self._writer.begin(meta)

    def on_step(self, step: Step) -> None:
        """Append one step; raises what `EpisodeWriter.add` raises."""
        if self._episode is not None:
            self._episode.add(step)

    def on_end(self, meta: EpisodeMeta) -> None:
        """Commit the episode, or discard it if it is empty or not to be kept."""
        episode, self._episode = self._episode, None
        if episode is None:
            return
        if len(episode) and self._keep(meta):
            try:
                self.committed.append(episode.commit(meta))
            except BaseException:
                episode.abandon()
                raise
        else:
            episode.discard()

    def close(self) -> None:
        """Let the dataset go; idempotent."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._episode = None

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
