"""An episode less its numbers and frames: folders and zarr.json, laid out when it begins and filled in when it ends."""

import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from robopolicy.spec import PolicySpec
from robopolicy_data.columns import Columns
from robopolicy_data.files import write_file
from robopolicy_data.frames import Coding, FrameCodec
from robopolicy_data.layout import camera_path, groups, streams
from robopolicy_data.metadata import array_dict, frames_dict, group_json, to_bytes
from robopolicy_data.shard import ShardWriter


def lay_out(episode: Path, spec: PolicySpec, coding: Coding) -> list[str]:
    """Make the folders of an episode and each one's zarr.json, as of no rows; return them, relative to ``episode``.

    Once this is on the disk, a commit only has to write over a few small files.
    """
    described = {stream.path: array_dict(stream, 0) for stream in streams(spec)}
    for name, camera in spec.cameras.items():
        described[camera_path(spec, name)] = frames_dict(coding.codec(camera), camera, 0)
    folders = sorted({*groups(described), *described})
    root, group = str(episode), group_json()  # strings: an object for each path would take longer than the files
    for folder in folders:
        os.mkdir(f"{root}/{folder}")
        write_file(f"{root}/{folder}/zarr.json", to_bytes(described[folder]) if folder in described else group)
    return folders


def seal(
    episode: Path,
    spec: PolicySpec,
    attributes: Mapping[str, dict[str, Any]],
    columns: Columns,
    codecs: Mapping[str, FrameCodec],
    shards: Mapping[str, ShardWriter],
    laid_out: Container[str] = (),
) -> list[str]:
    """Finish the shards and arrays, write every zarr.json that ``laid_out`` has not or that has changed since.

    Returns:
        What has to be flushed besides the shards and arrays: files, and folders with new entries.
    """
    described = {stream.path: array_dict(stream, rows) for stream, rows in columns.finish()}
    for name, shard in shards.items():
        shard.finish(columns.index(name))
        described[camera_path(spec, name)] = frames_dict(codecs[name], spec.cameras[name], columns.frames[name])
    (own,) = attributes.values()
    own |= {"frames": dict(columns.frames), "timing": columns.timing()}
    made = {path: to_bytes(array) for path, array in described.items()}
    made[""] = group_json(attributes)
    new = [path for path in (*described, *groups(described)) if path not in laid_out]
    made |= {path: group_json() for path in new if path not in made}
    files = {f"{episode}/{path}/zarr.json": data for path, data in made.items()}
    for file, data in files.items():
        write_file(file, data)
    return [*files, *{str(folder) for path in new for folder in (episode / path, (episode / path).parent)}]
