"""What opening a dataset of many episodes costs: python tests/benchmarks/bench_opening.py [--episodes 1000].

Opened is: every length and meta known. Indexed is: every number of every step in memory, and where each frame lies,
which is all that a loader needs before its first batch. Each in a fresh process, warm disk cache; CPU and wall time,
and the process's peak memory, the interpreter and numpy counted in.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from robopolicy.spec import CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.writer import DatasetWriter

SPEC = PolicySpec(
    cameras={"front": CameraSpec(24, 32), "wrist": CameraSpec(24, 32)},
    state={"q": StateSpec(7, ("rad",)), "tool_pos": StateSpec(3, ("m",))},
    rate_hz=30.0,
)
RECORDED = 10  # episodes of different lengths, 150 steps in the mean; the rest are copies
PROBE = """
import json, resource, sys, time
from robopolicy_data.arrays import read_numbers
from robopolicy_data.reader import Dataset
began = time.perf_counter(), time.process_time()
dataset = Dataset(sys.argv[1])
steps = sum(episode.length for episode in dataset)
won = sum(episode.meta.success is True for episode in dataset)
if sys.argv[2] == "indexed":
    arrays = read_numbers(list(dataset), dataset.spec)
    shards = [episode.shard(camera) for camera in dataset.spec.cameras for episode in dataset]
    assert len(arrays.action) == steps
wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({"episodes": len(dataset), "steps": steps, "wall": wall, "cpu": cpu, "peak_mb": peak}))
"""


def make_dataset(path: Path, episodes: int) -> None:
    """Record a few episodes and copy them."""
    rng = np.random.default_rng(0)
    with DatasetWriter(path, SPEC) as writer:
        for number in range(min(RECORDED, episodes)):
            episode = writer.begin(EpisodeMeta("bench", "none", seed=number, success=True))
            for k in range(141 + 2 * number):
                images = {name: rng.integers(0, 255, (24, 32, 3), np.uint8) for name in SPEC.cameras}
                state = {name: rng.random(part.dim, np.float32) for name, part in SPEC.state.items()}
                stamp = k * SPEC.period_ns
                seen = Observation(stamp, state, images, dict.fromkeys(images, stamp))
                episode.add(Step(seen, rng.random(10, np.float32), stamp, "human"))
            episode.commit()
    for number in range(RECORDED, episodes):
        shutil.copytree(path / f"episodes/{number % RECORDED:06d}", path / f"episodes/{number:06d}")


def probe(path: Path, what: str) -> dict[str, float]:
    """Open it in a fresh process."""
    found = subprocess.run([sys.executable, "-c", PROBE, str(path), what], check=True, stdout=subprocess.PIPE)
    measured: dict[str, float] = json.loads(found.stdout)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.zarr"
        began = time.perf_counter()
        make_dataset(path, args.episodes)
        print(f"made in {time.perf_counter() - began:.0f} s")
        probe(path, "indexed")  # warms the disk cache
        for what in ("opened", "indexed"):
            found = [probe(path, what) for _ in range(args.rounds)]
            wall, cpu = (float(np.median([one[key] for one in found])) for key in ("wall", "cpu"))
            peak = max(one["peak_mb"] for one in found)
            print(
                f"{what:8} {found[0]['episodes']:,} episodes, {found[0]['steps']:,} steps: {wall:.3f} s wall, "
                f"{cpu:.3f} s CPU, peak {peak:.0f} MB"
            )


if __name__ == "__main__":
    main()
