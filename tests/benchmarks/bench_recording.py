"""What recording costs: our writer beside zarr-python's own one-frame append, in one process, in turns.

python tests/benchmarks/bench_recording.py [--rounds 5] [--frames 60]

Both write the same frames with the same JPEG codec into the same kind of shard; ours also writes state, action,
stamps and journal, and its commit (footers, metadata, fsync, rename) is counted in. CPU time is the process's own.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from robopolicy.spec import CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter
from robopolicy_data.zarr_codec import JpegCodec

HEIGHT, WIDTH = 240, 320
SPEC = PolicySpec(cameras={"front": CameraSpec(HEIGHT, WIDTH)}, state={"q": StateSpec(7, ("rad",))}, rate_hz=30.0)
SHARD = 64  # frames, for zarr's append


def make_frames(count: int) -> np.ndarray:
    """Pictures with edges, gradients and a little noise, 22 KB at quality 90 as a camera's are."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    for k in range(count):
        waves = 128 + 60 * np.sin(rows / 17 + k / 5) + 50 * np.sign(np.sin(columns / 23 - k / 9))
        frames[k] = np.clip(waves[..., None] + rng.normal(0, 4, (HEIGHT, WIDTH, 3)), 0, 255)
    return frames


def ours(path: Path, frames: np.ndarray) -> tuple[float, float]:
    """Return CPU seconds of the adds, and of the commit."""
    with DatasetWriter(path, SPEC) as writer:
        began = time.process_time()
        episode = writer.begin(EpisodeMeta("bench", "none"))
        for k, frame in enumerate(frames):
            seen = Observation(k * SPEC.period_ns, {"q": np.full(7, k, np.float32)}, {"front": frame}, {"front": k})
            episode.add(Step(seen, np.full(10, k, np.float32), k * SPEC.period_ns, "policy"))
        added = time.process_time()
        episode.commit()
        return added - began, time.process_time() - added


def zarrs(path: Path, frames: np.ndarray, *, sharded: bool) -> float:
    """Return CPU seconds of appending the pictures alone, one by one."""
    began = time.process_time()
    array = zarr.create_array(
        path,
        shape=(0, HEIGHT, WIDTH, 3),
        chunks=(1, HEIGHT, WIDTH, 3),
        shards=(SHARD, HEIGHT, WIDTH, 3) if sharded else None,
        dtype="u1",
        serializer=JpegCodec(90),
        compressors=[Crc32cCodec()],
        filters=None,
    )
    for frame in frames:
        array.append(frame[None])
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=60)
    options = parser.parse_args()
    frames, times = make_frames(options.frames), []
    for _ in range(options.rounds):
        folder = Path(tempfile.mkdtemp())
        add, commit = ours(folder / "ours", frames)
        sharded, plain = (zarrs(folder / f"z{s}", frames, sharded=bool(s)) for s in (1, 0))
        times.append(np.array([add, commit, sharded, plain]) / len(frames) * 1e3)
        size = Dataset(folder / "ours")[0].frame_sizes("front").mean()
        shutil.rmtree(folder)
    add, commit, sharded, plain = np.median(times, axis=0)
    total, version = add + commit, zarr.__version__
    print(f"{options.rounds} rounds of {len(frames)} frames {HEIGHT}x{WIDTH}, {size / 1e3:.1f} KB each")
    print("median CPU ms a frame")
    print(f"ours: add (encode, journal)         {add:7.3f}")
    print(f"ours: commit, spread over frames    {commit:7.3f}")
    print(f"zarr {version}: append, shard of {SHARD}    {sharded:7.3f}   {sharded / total:5.1f} x ours")
    print(f"zarr {version}: append, no shard       {plain:7.3f}   {plain / total:5.1f} x ours")


if __name__ == "__main__":
    sys.exit(main())
