"""Import ROS 2 bags (mcap, sqlite3), aligned by the same code as live streams (`robopolicy.alignment`)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.alignment import AlignedStreams, align
from robopolicy.errors import ContractError, DatasetError, MissingExtra, RobopolicyError
from robopolicy.geometry.calibrations import calibrations_for
from robopolicy.resampling import captures_ns, thinned_ns, ticks_ns
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.topics.config import CameraTopic, TopicConfig, load_config
from robopolicy.topics.messages import action_spec, command_of
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.importers.columns import require_new
from robopolicy_data.importers.rosbag_streams import BagStreams
from robopolicy_data.writer import DatasetWriter

_BAGS = (".mcap", ".db3")
_STARTS, _ENDS = ("start",), {"success": True, "failure": False, "end": None, "stop": None}


def import_rosbag(
    source: Path | str,
    destination: Path | str,
    *,
    config: Path | str,
    quality: int = 90,
    lossless: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Import a bag, or every bag in a folder, into a new dataset; return the number of episodes.

    One bag is one episode, or as many as the marker topic says. A step is an instant: a picture of the primary camera
    (thinned to ``rate_hz``) or a tick; there, numbers are interpolated or picked as the config says, other cameras give
    their nearest picture, with its own stamp. JPEG of a CompressedImage is stored as it came. Steps at the ends at
    which a stream has nothing yet, or nothing more, are left out.

    Args:
        source: a bag (folder, .mcap, .db3), or a folder of bags.
        destination: the dataset to make; must not exist, or be empty.
        config: the YAML file: which topic is which field (data/README.md).
        quality: of the JPEG of raw pictures, 1 to 100.
        lossless: store raw pictures bit for bit instead.
        progress: called with (episodes done, episodes of the bags read so far).

    Raises:
        DatasetError: one line naming bag and topic: unreadable, missing, back in time, too far apart, changed size.
        MissingExtra: without rosbags.
    """
    target, wanted = require_new(destination), load_config(config)
    writer: DatasetWriter | None = None
    count = 0
    try:
        for path in bags(Path(source)):
            with opened(path) as reader:
                bag = _Bag(path, reader, wanted)
                found = bag.episodes()
                if writer is None:
                    writer = DatasetWriter(target, bag.spec, quality=quality, lossless=lossless, importing=str(source))
                writer.require(bag.spec)
                for done in bag.write(writer, found):
                    if progress is not None:
                        progress(count + done, count + len(found))
                count += len(found)
        if writer is None or count == 0:
            raise DatasetError(f"{source}: no episode in it")
        writer.imported()
    finally:
        if writer is not None:
            writer.close()
    return count


def bags(source: Path) -> list[Path]:
    """Return the bags that ``source`` is or holds, by name.

    Raises:
        DatasetError: if there is none.
    """
    if (source.suffix in _BAGS and source.is_file()) or (source / "metadata.yaml").is_file():
        return [source]
    inside = sorted(source.iterdir()) if source.is_dir() else []
    folders = [path for path in inside if (path / "metadata.yaml").is_file()]
    found = folders or [path for path in inside if path.is_file() and path.suffix in _BAGS]
    if not found:
        raise DatasetError(
            f"{source}: no ROS bag; want a folder with metadata.yaml, or a file ending in {', '.join(_BAGS)}"
        )
    return found


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a bag; whatever its reader says of damage becomes one line."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise MissingExtra("rosbags", "ros") from None
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)) as reader:
            yield reader
    except ContractError as error:  # of a message
        raise DatasetError(str(error)) from error
    except (RobopolicyError, KeyboardInterrupt, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise DatasetError(f"{path} is no readable bag ({_short(error)})") from error
    except Exception as error:  # rosbags, sqlite3, struct, zstd and lz4 each have their own for a damaged file
        raise DatasetError(f"{path} is no readable bag ({_short(error)})") from error


@dataclass(frozen=True)
class _Episode:
    """Instants of one episode, and what every stream gives there."""

    aligned: AlignedStreams
    rows: np.ndarray  # (T,) which of the instants are steps
    success: bool | None
    left_out: int  # instants inside it at which a stream had nothing near


class _Bag:
    """One bag: its spec, its episodes, their steps."""

    def __init__(self, path: Path, reader: Any, config: TopicConfig) -> None:
        self._path, self._config = path, config
        self._streams = BagStreams(path, reader, config)
        self._tracks = self._streams.tracks
        self.spec = self._make_spec()
        sizes = {name: (camera.height, camera.width) for name, camera in self.spec.cameras.items()}
        self._calibration = calibrations_for(config.calibration, sizes) if config.calibration else {}

    def episodes(self) -> list[_Episode]:
        """Cut the bag into episodes and align each."""
        config = self._config
        rules = {what: t.rule if isinstance(t, CameraTopic) else t.rule(self._tracks[what].quats)
                 for what, t in config.streams().items()}  # fmt: skip
        streams = {what: (track.stamps, track.values) for what, track in self._tracks.items()}
        if config.primary is not None:
            what = f"camera {config.primary}"
            instants = thinned_ns(captures_ns(self._tracks[what].stamps, rules[what]), config.rate_hz)
        else:
            ends = [
                (t.stamps[0] - rules[w].latency_ns, t.stamps[-1] - rules[w].latency_ns) for w, t in self._tracks.items()
            ]
            instants = ticks_ns(
                int(max(first for first, _ in ends)), int(min(last for _, last in ends)), config.rate_hz
            )
        found = []
        for start, stop, success in self._spans():
            inside = instants[(instants >= start) & (instants <= stop)]
            try:
                aligned = align(streams, rules, inside)
            except ContractError as error:
                raise DatasetError(f"{self._path}: {error}") from error
            found.append(self._cut(aligned, success))
        return found

    def write(self, writer: DatasetWriter, episodes: list[_Episode]) -> Iterator[int]:
        """Write the episodes in the order of time, a picture at a time; yield how many are done."""
        for done, episode in enumerate(episodes, 1):
            recording = writer.begin(self._meta(episode))
            for step in self._steps(episode):
                recording.add(step)
            recording.commit()
            yield done

    def _make_spec(self) -> PolicySpec:
        config, tracks = self._config, self._tracks
        state = {}
        for name in config.state:
            table = tracks[f"state {name}"].values
            assert table is not None
            units = tracks[f"state {name}"].units
            if len(units) not in (1, table.shape[1]):
                raise DatasetError(f"{self._path}: state {name} has {table.shape[1]} numbers, and {len(units)} units")
            state[name] = StateSpec(table.shape[1], units)
        return PolicySpec(
            {name: tracks[f"camera {name}"].camera for name in config.cameras},  # type: ignore[misc]
            state,
            self._make_action(),
            float(config.rate_hz),
        )

    def _make_action(self) -> ActionSpec:
        track = self._tracks["action"]
        assert track.values is not None
        try:
            return action_spec(self._config.action, track.values.shape[1], track.units)
        except ContractError as error:
            raise DatasetError(f"{self._path}: {error}") from error

    def _spans(self) -> list[tuple[int, int, bool | None]]:
        """Return (start, stop, success) of every episode, bag time."""
        whole = (-(2**62), 2**62, self._config.success)
        if self._config.episodes is None:
            return [whole]
        found, start = [], None
        for bag_ns, said in self._streams.markers():
            word = {True: "start", False: "end"}.get(said, said) if isinstance(said, bool) else said
            if word in _STARTS:
                start = bag_ns
            elif word == "discard":
                start = None
            elif word in _ENDS and start is not None:
                success = _ENDS[word]
                found.append((start, bag_ns, self._config.success if success is None else success))
                start = None
            elif word not in _ENDS:
                valid = ", ".join([*_STARTS, *_ENDS, "discard"])
                raise DatasetError(
                    f"{self._path}: {self._config.episodes} says {said!r}; want a Bool, or one of {valid}"
                )
        if start is not None:
            found.append((start, whole[1], self._config.success))
        return found

    def _cut(self, aligned: AlignedStreams, success: bool | None) -> _Episode:
        """Leave out the ends at which a stream has nothing; refuse or leave out gaps inside."""
        good = np.flatnonzero(aligned.ok)
        if not len(good):
            why = next(iter(aligned.problems.values()), "no picture or tick in its time")
            raise DatasetError(f"{self._path}: no step can be made of an episode: {why}")
        inside = [row for row in aligned.problems if good[0] < row < good[-1]]
        if inside and self._config.gaps == "error":
            raise DatasetError(
                f"{self._path}: {len(inside)} of {good[-1] - good[0] + 1} steps have a gap; the first: "
                f"{aligned.problems[inside[0]]} (raise its max_age_s, or set gaps: drop to leave such steps out)"
            )
        return _Episode(aligned, good, success, len(inside))

    def _meta(self, episode: _Episode) -> EpisodeMeta:
        config = self._config
        by = f"pictures of {config.primary}" if config.primary else "ticks"
        extra = {"imported": f"rosbag {self._path.name}", "stamps": "of the messages' headers", "steps": by}
        if episode.left_out:
            extra["left_out_steps"] = episode.left_out  # type: ignore[assignment]
        task = config.task or self._path.stem
        return EpisodeMeta(
            task, config.robot, operator=config.operator, embodiment=config.embodiment, success=episode.success,
            extra=extra, cameras=self._calibration,
        )  # fmt: skip

    def _steps(self, episode: _Episode) -> Iterator[Step]:
        aligned, rows = episode.aligned, episode.rows
        low = {what: self._at(what, aligned)[rows] for what in self._tracks if not what.startswith("camera ")}
        commands = self._commands(low)
        stamps = {what: column[rows] for what, column in aligned.stamps_ns.items()}
        wanted = {name: aligned.rows[f"camera {name}"][rows] for name in self._config.cameras}
        every = self._streams.pictures(wanted) if wanted else repeat({}, len(rows))
        for k, pictures in enumerate(every):
            state = {name: low[f"state {name}"][k].astype(np.float32) for name in self._config.state}
            seen = Observation(
                int(aligned.references_ns[rows[k]]),
                state,
                {name: image for name, image in pictures.items() if not isinstance(image, bytes)},
                {name: int(stamps[f"camera {name}"][k]) for name in pictures},
                {name: image for name, image in pictures.items() if isinstance(image, bytes)},
            )
            yield Step(seen, commands[k].astype(np.float32), int(stamps["action"][k]), self._config.source)

    def _commands(self, low: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return (T, A): the action, its gripper last if that has a topic of its own."""
        if "action gripper" not in low:
            return low["action"]
        if self._config.action.kind == "tool_pose":
            return np.stack([command_of(*both) for both in zip(low["action"], low["action gripper"], strict=True)])
        return np.concatenate([low["action"], low["action gripper"]], axis=1)

    def _at(self, what: str, aligned: AlignedStreams) -> np.ndarray:
        table = self._tracks[what].values
        assert table is not None
        found: np.ndarray = aligned.values[what] if what in aligned.values else table[aligned.rows[what]]
        return found


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
