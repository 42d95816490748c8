"""Does recording take memory? An hour of two cameras at 30 Hz and state at 100 Hz, simulated, in one episode.

python tests/benchmarks/bench_memory.py [--minutes 60] [--size 96 128] [--background]

Time is simulated, so the hour takes minutes; pictures are small, since what may grow are tables, not pictures. The
resident memory is read every simulated minute; flat means that the last minutes hold no more than the first.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from recordings import META, make_step

from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder

RATE_HZ, CAMERA_HZ, SECOND = 100, 30, 1_000_000_000


def resident_mb() -> float:
    """Return the memory that this process holds that no file backs, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("H", "W"))
    parser.add_argument("--background", action="store_true", help="through the queue and its thread")
    options = parser.parse_args()
    spec = PolicySpec(
        cameras=dict.fromkeys(("front", "wrist"), CameraSpec(*options.size)),
        state={"q": StateSpec(7, ("rad",)), "dq": StateSpec(7, ("rad/s",)), "gripper": StateSpec(1, ("open",))},
        action=ActionSpec("joint", tuple(f"j{i}" for i in range(8)), ("rad",)),
        rate_hz=RATE_HZ,
    )
    rng, folder = np.random.default_rng(0), Path(tempfile.mkdtemp())
    steps = [make_step(k, rng, spec=spec) for k in range(60)]
    resident, began = [], time.process_time()
    with Recorder(folder / "d", background=options.background) as recorder:
        recorder.on_start(META, spec)
        for k in range(options.minutes * 60 * RATE_HZ):
            stamp = SECOND + k * SECOND // RATE_HZ
            frame = k * CAMERA_HZ // RATE_HZ
            seen = replace(
                steps[frame % 60].observation,
                stamp_ns=stamp,
                image_stamps_ns=dict.fromkeys(spec.cameras, SECOND + frame * SECOND // CAMERA_HZ),
            )
            recorder.on_step(replace(steps[frame % 60], observation=seen, due_ns=stamp))
            if k % (60 * RATE_HZ) == 0:
                resident.append(resident_mb())
        resident.append(resident_mb())
        added = time.process_time() - began
        wall = time.perf_counter()
        recorder.on_end(META)
        wall = time.perf_counter() - wall
        end = resident_mb()
    episode = Dataset(folder / "d")[0]
    print(f"{options.minutes} min, {episode.length} steps, {episode.frame_count('front')} frames of each of 2 cameras")
    print("resident MB after each minute:", " ".join(f"{mb:.1f}" for mb in resident))
    early = resident[min(2, len(resident) - 1)]
    print(f"after 2 min {early:.1f}, at the end {resident[-1]:.1f}, after the commit {end:.1f}")
    print(f"growth over the recording: {resident[-1] - early:+.1f} MB, through the commit {end - early:+.1f} MB")
    print(f"{added / episode.length * 1e6:.0f} CPU us a step, commit {wall * 1e3:.0f} ms of wall time")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
