"""Resident memory of `data import video` over a long film, and how long the parts of it take.

python tests/benchmarks/bench_video_import.py --minutes 10
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawn_hand import looking, reach
from test_data_video import calibration

from robopolicy_data.hands import Hand
from robopolicy_data.importers.video import import_video
from robopolicy_data.videos import VideoWriter

SIZE, RATE_HZ = (480, 640), 30.0


class Known:
    """Finds the hand where it is told to be, picture after picture."""

    def __init__(self, points):
        self._points = iter(points)

    def detect(self, rgb):
        return [Hand(next(self._points), "right", 0.9)]

    def close(self):
        pass


class Peak:
    """The most resident memory of this process while a part of the import runs."""

    def __init__(self, name):
        self.name, self.pictures, self.most = name, 0, 0.0

    def __call__(self, done, total):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.pictures, self.most = done, max(self.most, pages * 4096 / 1e6)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    steps = round(parser.parse_args().minutes * 60 * RATE_HZ)
    cameras = {
        "left": looking(np.zeros(3), -0.5, 0.45, SIZE, 600.0),
        "right": looking(np.zeros(3), 0.5, 0.45, SIZE, 600.0, height=0.3),
    }
    hands = reach(steps)
    with tempfile.TemporaryDirectory() as folder:
        takes = {view: Path(folder) / f"{view}.mp4" for view in cameras}
        for shift, path in enumerate(takes.values()):
            _film(path, steps, shift)
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {steps} pictures")
        made = iter([Known(camera.project(hands)) for camera in cameras.values()])
        parts = Peak("looking"), Peak("writing")
        began = time.monotonic()
        import_video(
            takes, Path(folder) / "h.zarr", calibration=calibration(Path(folder) / "c.yaml", cameras), task="bench",
            detector=lambda: next(made), progress=parts[0], writing=parts[1],
        )  # fmt: skip
        for part in parts:
            print(f"{part.name}: {part.pictures} pictures, {part.most:.0f} MB at most")
        print(f"{2 * steps / (time.monotonic() - began):.0f} pictures a second, the detector's own time left out")


def _film(path, steps, shift):
    """A smooth picture that wanders."""
    rng = np.random.default_rng(shift)
    wide = np.cumsum(rng.normal(0, 2, (SIZE[0], 2 * SIZE[1], 3)), axis=1).clip(-100, 100)
    wide = (wide + 128).astype(np.uint8)
    with VideoWriter(path, *SIZE, RATE_HZ, codec="h264", crf=28) as writer:
        for step in range(steps):
            writer.add(wide[:, step % SIZE[1] : step % SIZE[1] + SIZE[1]])


if __name__ == "__main__":
    main()
