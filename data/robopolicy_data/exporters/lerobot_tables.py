"""The parquet files of a LeRobot dataset, written with pyarrow alone."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import MissingExtra
from robopolicy_data.exporters.lerobot_layout import CHUNK_FILES, DATA, DATA_MB, EPISODES, TASKS

_PICTURE_ROWS = 64  # a row group that holds pictures


class DataWriter:
    """Writes ``data/chunk-*/file-*.parquet``, a row group (or, with pictures, several) an episode, files not too big.

    Args:
        root: of the LeRobot dataset.
        features: of ``info.json``; videos have no column.
    """

    def __init__(self, root: Path, features: Mapping[str, Mapping[str, Any]]) -> None:
        self._root, self._pa, self._pq = root, *_arrow()
        columns = {key: feature for key, feature in features.items() if feature["dtype"] != "video"}
        self._schema = self._pa.schema([(key, self._type(feature)) for key, feature in columns.items()])
        self._place, self._file = (0, -1), root
        self._writer: Any = None

    def write(self, columns: Mapping[str, np.ndarray], pictures: Mapping[str, Iterator[bytes]]) -> tuple[int, int]:
        """Append one episode, {column: (T, ...) array} and {column: T encoded pictures}; return chunk and file.

        Pictures are taken a block at a time, so that no long episode is in memory whole.
        """
        if self._writer is None or self._file.stat().st_size >= DATA_MB << 20:
            self.close()
            self._place = next_place(*self._place)
            self._file = self._root / DATA.format(chunk_index=self._place[0], file_index=self._place[1])
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._pq.ParquetWriter(self._file, self._schema, compression="snappy")
        length = len(next(iter(columns.values())))
        rows = _PICTURE_ROWS if pictures else length
        for start in range(0, length, rows):
            stop = min(start + rows, length)
            parts = {key: list(islice(each, stop - start)) for key, each in pictures.items()}
            parts |= {key: values[start:stop] for key, values in columns.items()}
            arrays = [self._array(parts[field.name], field.type) for field in self._schema]
            self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))
        return self._place

    def close(self) -> None:
        """Finish the last file; idempotent."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _type(self, feature: Mapping[str, Any]) -> Any:
        pa, shape = self._pa, feature["shape"]
        if feature["dtype"] == "image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        scalar = pa.from_numpy_dtype(feature["dtype"])
        return scalar if shape == [1] else pa.list_(scalar, shape[0])

    def _array(self, values: Any, kind: Any) -> Any:
        pa = self._pa
        if pa.types.is_struct(kind):
            return pa.array([{"bytes": data, "path": None} for data in values], kind)
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, kind.list_size) if pa.types.is_fixed_size_list(kind) else flat


def write_tasks(root: Path, tasks: list[str]) -> None:
    """Write ``meta/tasks.parquet``: the text is the index of a pandas table, its number the one column."""
    pa, pq = _arrow()
    columns = {"task_index": np.arange(len(tasks)), "__index_level_0__": tasks}
    kinds = {"task_index": ("int64", "int64"), "__index_level_0__": ("unicode", "object")}
    described = [
        {"name": None if name.startswith("__") else name, "field_name": name, "pandas_type": kind, "numpy_type": stored}
        | {"metadata": None}
        for name, (kind, stored) in kinds.items()
    ]
    pandas = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": described, "creator": {}}
    table = pa.table(columns).replace_schema_metadata({"pandas": json.dumps(pandas)})
    pq.write_table(table, root / TASKS)


def write_episodes(root: Path, rows: list[dict[str, Any]]) -> None:
    """Write ``meta/episodes``, a row an episode."""
    pa, pq = _arrow()
    path = root / EPISODES.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def next_place(chunk: int, file: int) -> tuple[int, int]:
    """Return the chunk and file after these."""
    return (chunk + 1, 0) if file == CHUNK_FILES - 1 else (chunk, file + 1)


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("pyarrow", "convert") from error
    return pa, pq
