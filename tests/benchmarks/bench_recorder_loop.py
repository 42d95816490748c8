"""What recording costs a real control loop: two 640x480 cameras at 30 Hz, state at 100 Hz, in real time.

python tests/benchmarks/bench_recorder_loop.py [--minutes 10] [--data FOLDER]

The same loop runs without and with the recorder, in turns. The robot hands out pictures prepared beforehand, as a
driver does: a new one of each camera every 33 ms, the newest at every tick. Lateness is how long after its deadline a
tick is over. The clock is the machine's, so a busy machine spoils the numbers; compare the two columns.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robopolicy.clock import WallClock
from robopolicy.loop import run_episode
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Command, EpisodeMeta, Observation
from robopolicy_data.episode_writer import EpisodeWriter
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder

RATE_HZ, CAMERA_HZ, HEIGHT, WIDTH = 100, 30, 480, 640
SPEC = PolicySpec(
    cameras={"front": CameraSpec(HEIGHT, WIDTH), "wrist": CameraSpec(HEIGHT, WIDTH)},
    state={"q": StateSpec(7, ("rad",)), "dq": StateSpec(7, ("rad/s",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", tuple(f"j{i}" for i in range(8)), ("rad",)),
    rate_hz=RATE_HZ,
)
META = EpisodeMeta("bench", "synthetic")


def make_frames(count: int) -> np.ndarray:
    """Pictures (count, H, W, 3) of a table with things on it that move: edges, shading, texture, sensor noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    coarse = rng.normal(0, 14, (HEIGHT // 8, WIDTH // 8)).repeat(8, 0).repeat(8, 1)
    table = 120 + 50 * np.sin(rows / 170) + 20 * np.cos(columns / 140) + coarse
    things = [
        (rng.uniform(0, HEIGHT), rng.uniform(0, WIDTH), rng.uniform(15, 60), rng.uniform(0, 255, 3)) for _ in range(14)
    ]
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    for k in range(count):
        image = np.repeat(table[..., None], 3, -1)
        for i, (row, column, size, colour) in enumerate(things):
            centre = column + 40 * np.sin(k / 9 + i)
            image[(np.abs(rows - row) < size) & (np.abs(columns - centre) < size)] = colour
        frames[k] = np.clip(image + rng.normal(0, 3, image.shape), 0, 255)
    return frames


class Cameras:
    """A robot with two cameras whose pictures come from a list."""

    spec = SPEC

    def __init__(self, frames: np.ndarray) -> None:
        self._frames, self._start_ns = frames, time.monotonic_ns()

    def read(self) -> Observation:
        """Return the newest of everything."""
        now = time.monotonic_ns()
        k = (now - self._start_ns) * CAMERA_HZ // 1_000_000_000
        stamp = self._start_ns + k * 1_000_000_000 // CAMERA_HZ
        images = {"front": self._frames[k % len(self._frames)], "wrist": self._frames[-1 - k % len(self._frames)]}
        phase = now / 1e9
        state = {
            "q": np.sin(phase + np.arange(7)).astype(np.float32),
            "dq": np.cos(phase + np.arange(7)).astype(np.float32),
            "gripper": np.float32([phase % 1]),
        }
        return Observation(now, state, images, dict.fromkeys(images, stamp))

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Take it."""
        return action

    def stop(self, reason: str = "") -> np.ndarray:
        """Stop."""
        return np.zeros(8, np.float32)

    def close(self) -> None:
        """Do nothing."""


class Still:
    """An agent and a safety layer that cost nothing."""

    decision = None

    def reset(self, seed: int = 0) -> None:
        """Do nothing."""

    def act(self, observation: Observation) -> Command:
        """Return the state."""
        return Command(np.concatenate([observation.state["q"], observation.state["gripper"]]), "human")

    def limit(self, action: np.ndarray, observation: Observation, now_ns: int) -> np.ndarray:
        """Let everything pass."""
        return action


@dataclass
class Lateness:
    """The last watcher: when each tick was over, after its deadline."""

    ns: list[int] = field(default_factory=list)

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Do nothing."""

    def on_step(self, step: object) -> None:
        """Note."""
        self.ns.append(time.monotonic_ns() - step.due_ns)

    def on_end(self, meta: EpisodeMeta) -> None:
        """Do nothing."""


def run(frames: np.ndarray, seconds: float, watchers: list) -> tuple[np.ndarray, float, EpisodeMeta]:
    """Return the lateness of every tick in ms, the CPU cores used, the episode's meta."""
    late, still = Lateness(), Still()
    wall, cpu = time.monotonic(), time.process_time()
    meta = run_episode(
        Cameras(frames), still, WallClock(), still, META, max_steps=int(seconds * RATE_HZ), watchers=[*watchers, late]
    )
    return np.array(late.ns) / 1e6, (time.process_time() - cpu) / (time.monotonic() - wall), meta


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1, help="episodes, each beside as long without a recorder")
    parser.add_argument("--data", type=Path, help="a new folder; default: a temporary one")
    options = parser.parse_args()
    frames, folder = make_frames(90), Path(tempfile.mkdtemp())
    path, commits = options.data or folder / "d", []
    really = EpisodeWriter.commit

    def timed(*args: object, **more: object) -> int:
        began = time.perf_counter()
        number = really(*args, **more)
        commits.append((time.perf_counter() - began) * 1e3)
        return number

    EpisodeWriter.commit = timed
    without, with_it, cores, dropped = [], [], [], 0
    with Recorder(path) as recorder:
        for _ in range(options.rounds):
            late, idle, _ = run(frames, 60 * options.minutes, [])
            without.append(late)
            late, busy, _ = run(frames, 60 * options.minutes, [recorder])
            with_it.append(late)
            cores.append(busy - idle)
            dropped += Dataset(path)[-1].attributes["drops"].get("steps", 0)
    for _ in range(20):  # commits of short episodes, for their distribution
        with Recorder(path) as recorder:
            run(frames, 0.5, [recorder])
    episode = Dataset(path)[0]
    sizes = np.concatenate([episode.frame_sizes(camera) for camera in SPEC.cameras])
    free, took = np.concatenate(without), np.concatenate(with_it)
    print(f"{options.rounds} x {options.minutes:g} min, {RATE_HZ} Hz, 2 cameras {WIDTH}x{HEIGHT} at {CAMERA_HZ} Hz")
    print(f"steps {len(took)}, frames {len(sizes)} in the first episode, steps dropped: {dropped}")
    print(f"achieved: {episode.attributes['timing']}")
    print("lateness of a tick, ms      without       with   recording adds")
    for name, q in (("median", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("worst", 1.0)):
        a, b = np.quantile(free, q), np.quantile(took, q)
        print(f"{name:<22} {a:12.3f} {b:10.3f} {b - a:16.3f}")
    print(f"CPU cores that recording takes: {np.mean(cores):.3f}")
    print(f"commit with fsync, ms: long {' '.join(f'{c:.1f}' for c in commits[: options.rounds])}; ", end="")
    short = commits[options.rounds :]
    print(f"20 short ones: median {np.median(short):.1f}, worst {np.max(short):.1f}")
    lz4 = lz4_bytes(frames)
    print(f"bytes a frame: {sizes.mean():.0f}; diffusion_policy's blosc-lz4: {lz4:.0f} = {lz4 / sizes.mean():.1f} x")
    shutil.rmtree(folder, ignore_errors=True)


def lz4_bytes(frames: np.ndarray) -> float:
    """Return the bytes a frame in diffusion_policy's replay buffer: blosc lz4 5 without shuffle, chunks of some MB."""
    from numcodecs.blosc import NOSHUFFLE, Blosc

    codec, chunk = Blosc("lz4", 5, NOSHUFFLE), 2
    chunks = [codec.encode(np.ascontiguousarray(frames[k : k + chunk])) for k in range(0, 20, chunk)]
    return sum(map(len, chunks)) / (chunk * len(chunks))


if __name__ == "__main__":
    sys.exit(main())
