"""Export to diffusion_policy's replay buffer: a zarr v2 folder, or a zip of one."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from robopolicy.errors import DatasetError, UnknownName
from robopolicy.spec import PolicySpec
from robopolicy_data import carried
from robopolicy_data.episode import Episode
from robopolicy_data.exporters.destination import chosen, fresh
from robopolicy_data.exporters.zarr2 import Zarr2Writer
from robopolicy_data.reader import Dataset

CAMERA_KEYS = {"image": "img"}  # as Push-T's users know it
_BLOCK = 32  # frames decoded at a time
_RESERVED = ("action", "timestamp")


def export_diffusion_policy(
    dataset_path: Path | str,
    destination: Path | str,
    *,
    episodes: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    compressor: str = "default",
) -> int:
    """Write a replay buffer that diffusion_policy opens; return the number of episodes.

    ``data/<state>`` (N, D) float32, ``data/<camera>`` (N, H, W, 3) uint8 (``image`` is called ``img``; a depth camera
    is (N, H, W) uint16 mm), ``data/action`` (N, A), ``data/timestamp`` (N,) float64 s, ``meta/episode_ends`` (E,)
    int64. A camera of its own rate has one row a step: the frame the step saw. Spec, stamps, task texts and success are
    in the root's attributes and below ``meta/robopolicy``, where the way back finds them.

    Args:
        dataset_path: what to export.
        destination: a folder to make, or a file if its name ends in ``.zip``.
        episodes: positions; None is all.
        progress: called with (episodes done, episodes in all); it goes array by array, so this is a share.
        compressor: ``"default"`` (lz4, as diffusion_policy writes) or ``"disk"`` (zstd, smaller).

    Raises:
        DatasetError: if the destination exists, or two streams would get one name.
        DiskFull: if there is no room; nothing is left.
    """
    dataset = Dataset(dataset_path)
    picked, keys = chosen(dataset, episodes), keys_of(dataset.spec, CAMERA_KEYS)
    with (
        fresh(destination) as partial,
        Zarr2Writer(partial, zipped=str(destination).endswith(".zip")) as writer,
    ):
        write_buffer(writer, picked, dataset.spec, keys, blosc(compressor), progress)
    return len(picked)


def keys_of(spec: PolicySpec, renamed: dict[str, str]) -> dict[str, str]:
    """Return {camera or state: its key below ``data``}.

    Raises:
        DatasetError: if two would have the same.
    """
    keys = {name: renamed.get(name, name) for name in spec.cameras} | {name: name for name in spec.state}
    shared = set(spec.cameras) & set(spec.state)
    clash = shared | {name for name, key in keys.items() if key in _RESERVED or list(keys.values()).count(key) > 1}
    if clash:
        raise DatasetError(f"cannot export: {sorted(clash)} would share a key with another stream; rename them")
    return keys


def blosc(name: str) -> object:
    """Return one of diffusion_policy's two codecs; UnknownName lists them."""
    from numcodecs.blosc import Blosc

    codecs = {"default": ("lz4", Blosc.NOSHUFFLE), "disk": ("zstd", Blosc.BITSHUFFLE)}
    if name not in codecs:
        raise UnknownName("compressor", name, codecs)
    cname, shuffle = codecs[name]
    return Blosc(cname, clevel=5, shuffle=shuffle)


def write_buffer(
    writer: Zarr2Writer,
    picked: Sequence[Episode],
    spec: PolicySpec,
    keys: dict[str, str],
    codec: object,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the groups and every array; one pass over the episodes an array, so that memory holds one chunk."""
    ends = np.cumsum([episode.length for episode in picked])
    total = int(ends[-1])
    writer.group("", {carried.KEY: carried.attributes(spec, keys, picked)})
    writer.group("data")
    writer.group("meta")
    writer.group(f"meta/{carried.KEY}")
    writer.array("meta/episode_ends", (len(ends),), "int64", [ends], chunk_rows=max(1, int(1.5 * len(ends))))
    arrays = [*spec.state, *spec.cameras, "action", "timestamp"]
    for done, name in enumerate(arrays, 1):
        shape, dtype = _shape(spec, name)
        blocks = (block for episode in picked for block in _blocks(episode, spec, name))
        key = f"data/{keys.get(name, name)}"
        writer.array(key, (total, *shape), dtype, blocks, codec=codec)
        if progress is not None:
            progress(len(picked) * done // len(arrays), len(picked))
    for name in carried.columns(picked[0], spec):
        columns = [carried.columns(episode, spec)[name] for episode in picked]
        writer.array(f"meta/{carried.KEY}/{name}", (total,), columns[0].dtype.name, columns, codec=codec)


def _shape(spec: PolicySpec, name: str) -> tuple[tuple[int, ...], str]:
    if name in spec.cameras:
        return spec.cameras[name].shape, spec.cameras[name].dtype
    if name == "timestamp":
        return (), "float64"
    return ((spec.action.dim if name == "action" else spec.state[name].dim),), "float32"


def _blocks(episode: Episode, spec: PolicySpec, name: str) -> Iterator[np.ndarray]:
    if name in spec.cameras:
        for start in range(0, episode.length, _BLOCK):
            yield episode.images(name, slice(start, start + _BLOCK))
    elif name == "timestamp":
        yield episode.stamps_ns("step") * 1e-9
    else:
        yield episode.action() if name == "action" else episode.state(name)
