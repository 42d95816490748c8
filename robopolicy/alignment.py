"""Streams of different rates brought to common instants: one code for live streams and for recorded ones.

As UMI does it (Chi et al. 2024): an instant is when the primary camera captured a picture (its stamp less its latency)
or a tick of fixed rate; low-dimensional streams are interpolated there, of other cameras the nearest picture is taken.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, StaleFrame, UnknownName
from robopolicy.resampling import Rule, blend, find, too_far_line

_ROOM = 64  # samples a fresh track has room for


@dataclass(frozen=True)
class Aligned:
    """Every stream at one instant."""

    reference_ns: int
    values: Mapping[str, Any]  # {stream: (D,) float64 if interpolated, else the sample as it was pushed}
    stamps_ns: Mapping[str, int]  # {stream: capture time of the sample used; of an interpolated one the instant}


@dataclass(frozen=True)
class AlignedStreams:
    """Every stream at N instants; a row means something where ``ok``."""

    references_ns: np.ndarray  # (N,) int64
    values: Mapping[str, np.ndarray]  # {interpolated stream: (N, D) float64}
    rows: Mapping[str, np.ndarray]  # {any other stream: (N,) int64, which sample}
    stamps_ns: Mapping[str, np.ndarray]  # {stream: (N,) int64}
    problems: Mapping[int, str] = field(default_factory=dict)  # {row: what is too far from its instant}

    @property
    def ok(self) -> np.ndarray:
        """Which rows (N,) bool every stream is within its limits at."""
        good = np.ones(len(self.references_ns), bool)
        good[list(self.problems)] = False
        return good


class Aligner:
    """The online form: push samples as they come, ask for instants; safe to push and ask from different threads.

    Args:
        rules: {stream: how it is read}.
        keep_s: how long samples are kept behind the newest of their stream.
    """

    def __init__(self, rules: Mapping[str, Rule], *, keep_s: float = 2.0) -> None:
        self.rules = dict(rules)
        self._tracks = {name: _Track(rule, round(keep_s * 1e9)) for name, rule in self.rules.items()}
        self._lock = threading.Lock()

    def push(self, stream: str, stamp_ns: int, value: Any) -> bool:
        """Take one sample; return False if its stamp is the one before: the same sample sent again, and not taken.

        Args:
            stream: one of the rules'; UnknownName lists them.
            stamp_ns: of its header, before the latency is taken off.
            value: (D,) numbers if the stream is interpolated, else anything.

        Raises:
            ContractError: if the stream goes back in time, or a vector changes its length.
        """
        track = self._track(stream)
        with self._lock:
            return track.push(stream, int(stamp_ns) - track.rule.latency_ns, value)

    def newest_ns(self, stream: str) -> int | None:
        """Return the capture time of the stream's newest sample, None if there is none: of the primary camera, the
        instant to ask for next.
        """
        track = self._track(stream)
        with self._lock:
            return int(track.stamps[track.end - 1]) if track.end > track.start else None

    def ready(self, reference_ns: int) -> bool:
        """Whether no later sample can change what `at` says, and so it says what `align` will say of the recording."""
        with self._lock:
            return all(t.end > t.start and t.stamps[t.end - 1] >= reference_ns for t in self._tracks.values())

    def at(self, reference_ns: int) -> Aligned:
        """Return every stream at an instant, from the samples there are.

        Raises:
            StaleFrame: naming the stream that has nothing near enough, and how far off it is.
        """
        references = np.array([reference_ns], np.int64)
        values, stamps = {}, {}
        with self._lock:
            for name, track in self._tracks.items():
                live = track.stamps[track.start : track.end]
                if len(live) and track.forgot and live[0] > reference_ns:
                    raise StaleFrame(f"stream {name!r} is kept from {live[0]} ns on; {reference_ns} ns is past")
                found = find(track.rule, live, references)
                if found.too_far[0]:
                    raise StaleFrame(too_far_line(name, track.rule, found, 0))
                first, second = (track.values[int(rows[0])] for rows in (found.first, found.second))
                if track.rule.how == "interpolate":
                    values[name] = blend(track.rule, first[None], second[None], found.weight)[0]
                else:
                    values[name] = first
                stamps[name] = int(found.stamps_ns[0])
        return Aligned(reference_ns, values, stamps)

    def clear(self) -> None:
        """Forget every sample, as at the start of an episode or when a clock was set back."""
        with self._lock:
            for track in self._tracks.values():
                track.clear()

    def _track(self, stream: str) -> "_Track":
        if stream not in self._tracks:
            raise UnknownName("stream", stream, self._tracks)
        return self._tracks[stream]


def align(
    streams: Mapping[str, tuple[np.ndarray, np.ndarray | None]], rules: Mapping[str, Rule], references_ns: np.ndarray
) -> AlignedStreams:
    """Return whole streams at many instants: what an `Aligner` that was `ready` would have said of each.

    Args:
        streams: {stream: (stamps (M,) int64 ns as in the headers, values (M, D) or None if not interpolated)}.
        rules: {stream: how it is read}; UnknownName if a stream has none.
        references_ns: (N,) int64 instants.

    Raises:
        ContractError: if a stream goes back in time, or stamps and values differ in length.
    """
    references = np.asarray(references_ns, np.int64)
    values, rows, stamps = {}, {}, {}
    problems: dict[int, str] = {}
    for name, (header_stamps, data) in streams.items():
        if name not in rules:
            raise UnknownName("rule for the stream", name, rules)
        rule = rules[name]
        captured, kept = _captured(name, rule, np.asarray(header_stamps))
        found = find(rule, captured, references)
        if rule.how == "interpolate":
            if data is None or len(data) != len(header_stamps):
                raise ContractError(f"stream {name!r}: {len(header_stamps)} stamps want as many values")
            table = np.asarray(data, np.float64)
            if len(kept):
                values[name] = blend(rule, table[kept[found.first]], table[kept[found.second]], found.weight)
            else:
                values[name] = np.zeros((len(references), *table.shape[1:]))
        else:
            rows[name] = kept[found.first] if len(kept) else found.first
        stamps[name] = found.stamps_ns
        for row in np.flatnonzero(found.too_far).tolist():
            problems.setdefault(row, too_far_line(name, rule, found, row))
    return AlignedStreams(references, values, rows, stamps, dict(sorted(problems.items())))


def _captured(name: str, rule: Rule, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Capture times (M',) and which samples (M',) they are, without those sent again."""
    stamps = stamps.astype(np.int64)
    steps = np.diff(stamps)
    back = np.flatnonzero(steps < 0)
    if len(back):
        raise ContractError(_back(name, int(stamps[back[0] + 1]), int(stamps[back[0]])))
    kept = np.flatnonzero(np.concatenate([np.ones(min(len(stamps), 1), bool), steps > 0]))
    return stamps[kept] - rule.latency_ns, kept


def _back(name: str, stamp_ns: int, newest_ns: int) -> str:
    return f"stream {name!r} goes back in time: a sample of {stamp_ns} ns came after one of {newest_ns} ns"


class _Track:
    """The samples of one stream that are still kept; rows count from ``start``."""

    def __init__(self, rule: Rule, keep_ns: int) -> None:
        self.rule, self._keep_ns = rule, keep_ns
        self.clear()

    def clear(self) -> None:
        self.stamps = np.empty(_ROOM, np.int64)
        self.values: list[Any] = []
        self.start = self.end = 0
        self.forgot = False

    def push(self, name: str, stamp_ns: int, value: Any) -> bool:
        if self.end > self.start:
            newest = int(self.stamps[self.end - 1])
            if stamp_ns < newest:
                latency = self.rule.latency_ns
                raise ContractError(_back(name, stamp_ns + latency, newest + latency))
            if stamp_ns == newest:
                return False
        if self.rule.how == "interpolate":
            value = self._vector(name, value)
        if self.end == len(self.stamps):
            self._make_room()
        self.stamps[self.end] = stamp_ns
        self.end += 1
        self.values.append(value)
        self._forget(stamp_ns - self._keep_ns)
        return True

    def _vector(self, name: str, value: Any) -> np.ndarray:
        vector = np.array(value, np.float64)  # a copy: whoever pushed may reuse his buffer
        if vector.ndim != 1 or (self.values and vector.shape != self.values[-1].shape):
            had = f", after {self.values[-1].shape}" if self.values else ""
            raise ContractError(f"stream {name!r}: a sample of shape {vector.shape}{had}; want (D,), always the same")
        return vector

    def _make_room(self) -> None:
        live = self.stamps[self.start : self.end]
        self.stamps = np.concatenate([live, np.empty(max(len(live), _ROOM), np.int64)])
        self.start, self.end = 0, len(live)

    def _forget(self, before_ns: int) -> None:
        """Drop what is older, but always keep two, so that a slow stream can be interpolated."""
        while self.end - self.start > 2 and self.stamps[self.start] < before_ns:
            self.start += 1
            self.forgot = True
        del self.values[: len(self.values) - (self.end - self.start)]
