"""The commit of a long episode: 10 minutes of 2 cameras 640x480 at 30 Hz and state at 100 Hz, not in real time.

python tests/benchmarks/bench_commit.py [--minutes 10 1] [--rounds 5] [--data FOLDER]

The cameras send JPEG by themselves, so that only writing takes time; the last three seconds are in real time, so that
the disk is as far behind at the commit as it is when one really records.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_recorder_loop import CAMERA_HZ, META, RATE_HZ, SPEC, make_frames

from robopolicy.types import Observation, Step
from robopolicy_data.frames import JpegFrames
from robopolicy_data.recorder import Recorder

REAL_S = 3.0  # at the end


def record(path: Path, pictures: list[bytes], minutes: float) -> tuple[float, float]:
    """Record one episode and return how long its end took, and its CPU time, of all threads; ms."""
    steps, period_ns = int(60 * minutes * RATE_HZ), 1_000_000_000 // RATE_HZ
    real = steps - int(REAL_S * RATE_HZ)
    zero, began = np.zeros(8, np.float32), 0.0
    with Recorder(path, background=False) as recorder:
        recorder.on_start(META, SPEC)
        for k in range(steps):
            if k == real:
                began = time.monotonic()
            if k > real:
                time.sleep(max(0.0, began + (k - real) / RATE_HZ - time.monotonic()))
            stamp, frame = k * period_ns, k * CAMERA_HZ // RATE_HZ
            state = {name: np.full(one.dim, k / RATE_HZ, np.float32) for name, one in SPEC.state.items()}
            sent = {"front": pictures[frame % len(pictures)], "wrist": pictures[-1 - frame % len(pictures)]}
            stamps = dict.fromkeys(sent, frame * 1_000_000_000 // CAMERA_HZ)
            seen = Observation(stamp, state, {}, stamps, encoded=sent)
            recorder.on_step(Step(seen, zero, stamp + period_ns, "human"))
        ended, cpu = time.perf_counter(), time.process_time()
        recorder.on_end(META)
        return (time.perf_counter() - ended) * 1e3, (time.process_time() - cpu) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0, 1.0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a new folder; default: a temporary one")
    options = parser.parse_args()
    pictures = [JpegFrames().encode(frame) for frame in make_frames(30)]
    folder = Path(tempfile.mkdtemp())
    for minutes in options.minutes:
        took = []
        for k in range(options.rounds):
            path = (options.data or folder) / f"{minutes:g}-{k}"
            took.append(record(path, pictures, minutes))
            shutil.rmtree(path)
        walls, cpus = (" ".join(f"{one:.1f}" for one in column) for column in zip(*took, strict=True))
        print(f"{minutes:g} min: end of the episode, ms: {walls}; CPU {cpus}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
