"""An episode written by a thread of its own: the loop hands a step over in microseconds and never waits."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from robopolicy.types import Observation, Step
from robopolicy_data.episode_writer import EpisodeWriter

_MAX_SPANS = 100  # of dropped steps that are told apart
_AHEAD = 1.2  # time that passes faster than this in the stamps is simulated


class InlineEpisode:
    """The same without a thread: every step is written before `put` returns.

    Attributes:
        dropped: 0.
        error: what the newest failure was.
        told: whether the loop has heard of it: always.
    """

    dropped, queued, told = 0, 0, True

    def __init__(self, episode: EpisodeWriter) -> None:
        self.episode = episode
        self.error: BaseException | None = None

    def put(self, step: Step) -> None:
        """Write a step; raises what `EpisodeWriter.add` raises."""
        try:
            self.episode.add(step)
        except BaseException as error:
            self.error = error
            raise

    def drops(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def finish(self) -> None:
        """Do nothing."""


class BackgroundEpisode:
    """A bounded queue of steps and the thread that writes them.

    A full queue drops the step and counts it; only simulated time, which runs faster than ours, is made to wait.

    Args:
        episode: taken over until `finish`.
        capacity_steps, capacity_bytes: what the queue holds at most.

    Attributes:
        dropped: steps that found the queue full.
        error: what stopped the writing; steps before it are in the episode, none after it.
        told: whether `put` has raised it.
    """

    def __init__(self, episode: EpisodeWriter, capacity_steps: int, capacity_bytes: int) -> None:
        self.episode = episode
        self.dropped = 0
        self.error: BaseException | None = None
        self.told = False
        self._capacity, self._capacity_bytes = capacity_steps, capacity_bytes
        self._queue: SimpleQueue[tuple[Step, int] | None] = SimpleQueue()
        self._in = self._bytes_in = 0  # only the loop's thread counts these up,
        self._out = self._bytes_out = 0  # only the writer's these
        self._spans: list[list[int]] = []
        self._dropping = False
        self._stamps: dict[str, int] = {}  # of the newest frame of each camera in the queue
        self._began_ns, self._first_ns = time.monotonic_ns(), 0
        # a daemon, since a loop that dies without telling must not hang here; the journal keeps what it wrote
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Steps waiting."""
        return self._in - self._out

    def put(self, step: Step) -> None:
        """Hand a step over, or drop it and count it.

        Raises:
            ContractError, DiskFull, OSError: what stopped the writing of an earlier step.
        """
        self._tell()
        stamp_ns = step.observation.stamp_ns
        if not self._in:
            self._began_ns, self._first_ns = time.monotonic_ns(), stamp_ns
        step, size = self._without_repeats(step)
        while not self._fits(size):
            if (stamp_ns - self._first_ns) < _AHEAD * (time.monotonic_ns() - self._began_ns):
                self._drop(stamp_ns)
                return
            time.sleep(0.001)
            self._tell()
        self._dropping = False
        seen = step.observation
        for name in (*seen.images, *seen.encoded):
            self._stamps[name] = seen.image_stamps_ns.get(name, stamp_ns)
        self._in += 1
        self._bytes_in += size
        self._queue.put((step, size))

    def drops(self) -> dict[str, Any]:
        """Return what was dropped, empty if nothing: how many steps, and ``[first_ns, last_ns, steps]`` of each run."""
        return {"steps": self.dropped, "spans": [list(span) for span in self._spans]} if self.dropped else {}

    def finish(self) -> None:
        """Wait until all that was handed over is written; idempotent. `error` says whether it was."""
        self._queue.put(None)
        self._thread.join()

    def _tell(self) -> None:
        if self.error is not None:
            self.told = True
            raise self.error

    def _fits(self, size: int) -> bool:
        room = self._capacity_bytes - (self._bytes_in - self._bytes_out)
        return self.queued < self._capacity and (size <= room or not self.queued)

    def _drop(self, stamp_ns: int) -> None:
        self.dropped += 1
        if not self._dropping and len(self._spans) < _MAX_SPANS:
            self._spans.append([stamp_ns, stamp_ns, 0])
        self._spans[-1][1] = stamp_ns
        self._spans[-1][2] += 1
        self._dropping = True

    def _without_repeats(self, step: Step) -> tuple[Step, int]:
        """Return the step without the frames that are in the queue already, and the bytes of the others."""
        seen = step.observation
        images = {k: v for k, v in seen.images.items() if self._new(seen, k)}
        encoded = {k: v for k, v in seen.encoded.items() if self._new(seen, k)}
        if len(images) < len(seen.images) or len(encoded) < len(seen.encoded):
            step = replace(step, observation=replace(seen, images=images, encoded=encoded))
        return step, sum(image.nbytes for image in images.values()) + sum(map(len, encoded.values()))

    def _new(self, seen: Observation, camera: str) -> bool:
        return self._stamps.get(camera) != seen.image_stamps_ns.get(camera, seen.stamp_ns)

    def _write(self) -> None:
        for step, size in self._taken():
            if self.error is None:
                try:
                    self.episode.add(step)
                except BaseException as error:  # told to the loop with its next step
                    self.error = error
            self._out += 1
            self._bytes_out += size

    def _taken(self) -> Iterator[tuple[Step, int]]:
        while (item := self._queue.get()) is not None:
            yield item
