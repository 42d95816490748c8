"""What the zarr.json files of a dataset's episodes have in common, so that a thousand of them are judged as one."""

from typing import Any

from robopolicy.errors import DatasetError
from robopolicy.spec import CameraSpec, PolicySpec
from robopolicy_data.blocks import require_like
from robopolicy_data.frames import FrameCodec, frame_codec
from robopolicy_data.layout import Stream, monitor_streams, streams
from robopolicy_data.metadata import frames_dict


class StreamTable:
    """What all episodes of a dataset have in common, so that each need not find it out again.

    Attributes:
        streams: every low-dimensional stream an episode may have, by its path.
        judged: {(path, rows): (zarr.json found good, what was made of it)}.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self.streams: dict[str, Stream] = {s.path: s for s in (*streams(spec), *monitor_streams())}
        self.judged: dict[tuple[str, int], tuple[bytes, Any]] = {}


def require_frames(found: dict[str, Any], camera: CameraSpec, frames: int) -> FrameCodec:
    """Return what decodes the frames of a shard; DatasetError if its zarr.json describes another camera's."""
    codec = frame_codec(_inner_codecs(found))
    require_like(found, frames_dict(codec, camera, frames))
    return codec


def _inner_codecs(found: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        codecs = found["codecs"][0]["configuration"]["codecs"]
        if codecs[-1]["name"] == "crc32c":
            return list(codecs[:-1])
    except (KeyError, IndexError, TypeError):
        pass
    raise DatasetError("zarr.json describes no shard of checksummed frames")
