"""A LeRobot dataset on the disk, v3.0 or v2.x: what it says of itself, its columns and its pictures."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, MissingExtra, NewerFormat
from robopolicy_data.exporters.lerobot_layout import INFO, META, SOURCE
from robopolicy_data.videos import VideoReader

_EXPECTED = "expected a LeRobot dataset (v3.0 or v2.x): meta/info.json, meta/episodes, data, videos"
_READS = 3  # newest major version


@dataclass(frozen=True)
class SourceEpisode:
    """One episode: where its rows and its videos are."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: Mapping[str, tuple[Path, float]] = field(
        default_factory=dict
    )  # {feature: file, seconds at which it begins}
    meta: Mapping[str, Any] | None = None  # ours, if an export of ours wrote it


class Source:
    """Opens a LeRobot dataset read-only.

    Args:
        root: its folder.

    Attributes:
        features: of ``info.json``.
        rate_hz: its fps.
        robot: its robot_type, or "".
        spec: the PolicySpec that an export of ours put there, as JSON, or None.
        episodes: all of them, by index.

    Raises:
        DatasetError: if something is missing or does not fit; one line, naming the file.
        NewerFormat: if it was written by a newer major version.
        MissingExtra: without pyarrow.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._info = info = _read_info(root)
        self.features: dict[str, dict[str, Any]] = info["features"]
        self.rate_hz = float(info["fps"])
        self.robot = str(info.get("robot_type") or "")
        self.spec: Any = (self.features.get(SOURCE, {}).get("info") or {}).get("spec")
        self._new = _version(info, root)[0] >= 3
        self._table = lru_cache(maxsize=1)(self._read_table)
        self._readers: dict[str, VideoReader] = {}
        try:
            self.episodes = self._episodes_v3() if self._new else self._episodes_v2()
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(
                f"{root}: its list of episodes is no LeRobot {info['codebase_version']}: {error!r}"
            ) from error
        if len(self.episodes) != info["total_episodes"]:
            raise DatasetError(
                f"{root}: {INFO} says {info['total_episodes']} episodes, its list of them has {len(self.episodes)}"
            )

    def columns(self, episode: SourceEpisode) -> dict[str, np.ndarray]:
        """Return every column of numbers, (T,) or (T, D), in the order of the frames."""
        table = self._table(episode.data)
        rows = np.flatnonzero(table["episode_index"] == episode.index)
        if len(rows) != episode.length:
            raise DatasetError(
                f"{episode.data} has {len(rows)} rows of episode {episode.index}, its list of episodes says "
                f"{episode.length}"
            )
        rows = rows[np.argsort(table["frame_index"][rows], kind="stable")]
        return {key: values[rows] for key, values in table.items()}

    def pictures(self, episode: SourceEpisode, key: str) -> Iterator[Any]:
        """Yield a camera's pictures: (H, W, 3) uint8 RGB of a video, or a picture file's bytes."""
        if self.features[key]["dtype"] == "image":
            yield from self._picture_files(episode, key)
            return
        path, start_s = episode.videos[key]
        reader = self._readers.get(key)
        if reader is None or reader.path != path:
            if reader is not None:
                reader.close()
            reader = self._readers[key] = VideoReader(path)
        yield from reader.read(start_s, episode.length, self.rate_hz)

    def close(self) -> None:
        """Let the videos go."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _episodes_v3(self) -> list[SourceEpisode]:
        files = sorted((self.root / "meta" / "episodes").glob("*/*.parquet"))
        if not files:
            raise DatasetError(
                f"{self.root}: no meta/episodes/*/*.parquet (a recording that was never finished has none)"
            )
        found = []
        for row in (row for file in files for row in _rows(file)):
            own = row.get(META)
            found.append(
                SourceEpisode(
                    int(row["episode_index"]),
                    int(row["length"]),
                    tuple(row["tasks"]),
                    self._path("data_path", row, "data/"),
                    {
                        key: (self._path("video_path", row, f"videos/{key}/", key), row[f"videos/{key}/from_timestamp"])
                        for key, feature in self.features.items()
                        if feature["dtype"] == "video"
                    },
                    None if own is None else json.loads(own),
                )
            )
        return sorted(found, key=lambda episode: episode.index)

    def _path(self, template: str, row: Mapping[str, Any], prefix: str, key: str = "") -> Path:
        place = {name: row[f"{prefix}{name}"] for name in ("chunk_index", "file_index")}
        return self.root / str(self._info[template]).format(video_key=key, **place)

    def _episodes_v2(self) -> list[SourceEpisode]:
        found = []
        for row in _lines(self.root / "meta" / "episodes.jsonl"):
            index = int(row["episode_index"])
            place = {"episode_chunk": index // self._info["chunks_size"], "episode_index": index}
            videos = {
                key: (self.root / self._info["video_path"].format(video_key=key, **place), 0.0)
                for key, feature in self.features.items()
                if feature["dtype"] == "video"
            }
            data = self.root / self._info["data_path"].format(**place)
            found.append(SourceEpisode(index, int(row["length"]), tuple(row["tasks"]), data, videos))
        return sorted(found, key=lambda episode: episode.index)

    def _read_table(self, path: Path) -> dict[str, np.ndarray]:
        """Read one parquet's columns of numbers."""
        numbers = [key for key, f in self.features.items() if f["dtype"] not in ("video", "image", "string")]
        one_dimensional = [key for key in numbers if len(self.features[key]["shape"]) == 1]
        table = _parquet(path, one_dimensional)
        found = {}
        for key in one_dimensional:
            shape = self.features[key]["shape"]
            values = _numbers(path, key, table[key], table.num_rows)
            if values.size != table.num_rows * shape[0]:
                raise DatasetError(
                    f"{path}: column {key} has {values.size} numbers in {table.num_rows} rows of {shape[0]}"
                )
            found[key] = values if shape[0] == 1 else values.reshape(table.num_rows, shape[0])
        return found

    def _picture_files(self, episode: SourceEpisode, key: str) -> Iterator[bytes]:
        table = _parquet(episode.data, [key, "frame_index"], ("episode_index", "==", episode.index))
        for row in np.argsort(table["frame_index"].to_numpy(), kind="stable"):
            data = (table[key][int(row)].as_py() or {}).get("bytes")
            if not data:
                raise DatasetError(f"{episode.data}: episode {episode.index}, {key}: frame {row} holds no picture")
            yield data


def _read_info(root: Path) -> dict[str, Any]:
    path = root / INFO
    info: dict[str, Any]
    try:
        info = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"{root}: no {INFO}; {_EXPECTED}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    wanted = {"codebase_version": str, "fps": int | float, "features": dict, "total_episodes": int, "data_path": str}
    for key, kind in wanted.items():
        if not isinstance(info, dict) or not isinstance(info.get(key), kind):
            got = info.get(key) if isinstance(info, dict) else info
            raise DatasetError(f"{path}: {key} is {got!r}; {_EXPECTED}")
    _version(info, root)
    if not info["fps"] > 0:
        raise DatasetError(f"{path}: fps is {info['fps']}; want a positive number")
    for key, feature in info["features"].items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if not isinstance(shape, list) or not isinstance(feature.get("dtype"), str):
            raise DatasetError(f"{path}: feature {key!r} is {feature!r}; want dtype, shape and names")
    return info


def _version(info: Mapping[str, Any], root: Path) -> tuple[int, int]:
    text = info["codebase_version"]
    major, _, minor = text.removeprefix("v").partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise DatasetError(f"{root / INFO}: codebase_version is {text!r}; want one such as 'v3.0'")
    if int(major) > _READS:
        raise NewerFormat(f"{root} has LeRobot's format {text}; this robopolicy reads v2.0 to v{_READS}.x")
    if int(major) < 2:
        raise DatasetError(f"{root} has LeRobot's format {text}; convert it with lerobot to v2.1 or v3.0 first")
    return int(major), int(minor)


def _parquet(path: Path, columns: list[str], where: tuple[str, str, Any] | None = None) -> Any:
    pa, pq = _arrow()
    try:
        return pq.read_table(path, columns=columns, filters=None if where is None else [where], partitioning=None)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is no whole parquet file with {', '.join(columns)}: {_line(error)}") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    pa, pq = _arrow()
    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        rows: list[dict[str, Any]] = file.read(columns).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is no whole parquet file: {_line(error)}") from error
    return rows


def _numbers(path: Path, key: str, column: Any, rows: int) -> np.ndarray:
    """Return a column's numbers one after the other."""
    pa, _ = _arrow()
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if array.null_count:
        raise DatasetError(f"{path}: column {key} lacks {array.null_count} of {rows} rows")
    while isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        array = array.flatten()
    values: np.ndarray = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiub":
        raise DatasetError(f"{path}: column {key} is {array.type}; want numbers")
    return values


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    except ValueError as error:
        raise DatasetError(f"{path} holds a line that is not JSON: {error}") from error


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("pyarrow", "convert") from error
    return pa, pq
