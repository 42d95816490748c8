"""How long an edit of one episode in twenty takes: delete, undo, label, trim; the peer re-encodes (28 s)."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.edit import delete, undo
from robopolicy_data.labels import label
from robopolicy_data.trim import trim
from robopolicy_data.writer import DatasetWriter

BAR_MS = 50.0  # delete or undo of one episode in 20
SPEC = PolicySpec(
    cameras={"front": CameraSpec(240, 320), "wrist": CameraSpec(240, 320)},
    state={"q": StateSpec(7, ("rad",))},
    action=ActionSpec("vector", tuple("abcdefg"), ("rad",)),
    rate_hz=20.0,
)


def make(path: Path, episodes: int, steps: int) -> None:
    """Record episodes of the same noisy frames."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (30, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(8)]
    with DatasetWriter(path, SPEC) as writer:
        for seed in range(episodes):
            episode = writer.begin(EpisodeMeta("bench", "mock", seed=seed))
            for k in range(steps):
                stamp = 1_000_000_000 + k * SPEC.period_ns
                images = dict.fromkeys(SPEC.cameras, frames[k % 8])
                seen = Observation(stamp, {"q": rng.normal(size=7).astype(np.float32)}, images)
                episode.add(Step(seen, np.zeros(7, np.float32), stamp, "human"))
            episode.commit()


def timed(rounds: int, **steps) -> None:
    """Run the steps one after the other, so many times, and print what each took."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step(turn)
            spent[name].append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)))
    for name, times in spent.items():
        walls, cpus = zip(*times, strict=True)
        wall, worst, cpu = np.median(walls), np.max(walls), np.median(cpus)
        print(f"{name:<10} wall median {wall:6.1f} ms, worst {worst:6.1f} ms; CPU {cpu:5.1f} ms")
    for name in ("delete", "undo"):
        if name in spent:
            median = float(np.median([wall for wall, _ in spent[name]]))
            print(f"{name}: {median:.1f} ms of {BAR_MS:g} ms: {'met' if median <= BAR_MS else 'MISSED'}")


def main() -> None:
    """Print wall and CPU time of each edit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: the temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "d.zarr"
        make(path, args.episodes, args.steps)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{args.episodes} episodes of {args.steps} steps, 2 cameras 240x320, {size / 1e6:.0f} MB, in {folder}")
        timed(args.rounds, delete=lambda turn: delete(path, turn % args.episodes), undo=lambda turn: undo(path))
        timed(args.rounds, label=lambda turn: label(path, 3, success=bool(turn % 2), notes=f"{turn}"))
        timed(
            min(args.rounds, 5), trim=lambda turn: trim(path, 4, 10, args.steps - 10), undo_trim=lambda turn: undo(path)
        )


if __name__ == "__main__":
    sys.exit(main())
