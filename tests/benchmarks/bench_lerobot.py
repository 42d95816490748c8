"""Recording, committing, loading, deleting and dying, beside LeRobot: the same frames, children of this one process.

python tests/benchmarks/bench_lerobot.py --peer-python PATH [--seconds 5] [--episodes 3] [--only record load ...]

PATH is a Python with lerobot 0.4.4 (`pip install lerobot==0.4.4`, with torchcodec and FFmpeg's libraries for its
default decoder). Both sides run with one OpenMP and torch thread and are fed at the cameras' 30 Hz, or slower where
they cannot keep up, so that neither drops a frame; both may empty their queues before a save is timed.
CPU time is that of the recording process and its children, without imports. Its default writes PNG files and
encodes them when an episode is saved; streaming encodes while recording.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.edit import delete
from robopolicy_data.exporters.lerobot import export_lerobot
from robopolicy_data.loader import Loader
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder

PEER = Path(__file__).parents[1] / "peers" / "lerobot_bench.py"
FPS, CAMERAS = 30, ("front", "wrist")
SIZES = {"240x320": (240, 320), "480x640": (480, 640)}
PARTS = ("record", "load", "delete", "kill")


def make_frames(path: Path, count: int, height: int, width: int) -> None:
    """Detail of every size that pans as a moving camera's does, and a sensor's noise.

    At 240x320 some 22 KB as JPEG of quality 90 and 6 KB as LeRobot's AV1, as a robot's pictures are.
    """
    import cv2

    rng = np.random.default_rng(0)
    scale, margin = height / 240, 64
    texture = np.zeros((height + margin, width + margin, 3), np.float32)
    for size in (1.0, 3.0, 10.0, 30.0):  # blur, pixels at 240x320
        part = rng.standard_normal(texture.shape).astype(np.float32)
        part += 3 * part[..., :1]  # light varies more than colour
        part = cv2.GaussianBlur(part, (0, 0), size * scale**0.7)
        texture += part / part.std() * (9 + 12 * np.log10(size))
    frames = np.empty((count, height, width, 3), np.uint8)
    for k in range(count):
        y, x = (round(margin / 2 * (1 + np.sin(k / rate))) for rate in (17, 23))
        noise = rng.normal(0, 2, (height, width, 3))
        frames[k] = np.clip(128 + texture[y : y + height, x : x + width] + noise, 0, 255)
    np.save(path, frames)


def spec_of(frames: np.ndarray) -> PolicySpec:
    camera = CameraSpec(*frames.shape[1:3])
    action = ActionSpec("joint", tuple(f"j{i}" for i in range(7)), ("rad",))
    return PolicySpec(dict.fromkeys(CAMERAS, camera), {"q": StateSpec(7, ("rad",))}, action, rate_hz=FPS)


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def record_ours(folder: Path, frames: np.ndarray, episodes: int, kill_after: int = 0) -> dict[str, Any]:
    """Record through the Recorder's background thread, as a session does; time each commit."""
    spec, meta = spec_of(frames), EpisodeMeta("bench", "none", success=True)
    began, saves = cpu_s(), []
    with Recorder(folder) as recorder:
        for _ in range(episodes):
            recorder.on_start(meta, spec)
            first = time.monotonic()
            for k in range(len(frames)):
                stamp, low = k * spec.period_ns, np.full(7, k, np.float32)
                images = {c: frames[(k + i) % len(frames)] for i, c in enumerate(CAMERAS)}
                seen = Observation(stamp, {"q": low}, images, dict.fromkeys(CAMERAS, stamp))
                time.sleep(max(0.0, first + k / FPS - time.monotonic()))
                while recorder.status().queued > 20:
                    time.sleep(0.01)
                recorder.on_step(Step(seen, low, stamp, "human"))
            while recorder.status().queued:
                time.sleep(0.01)
            start = time.perf_counter()
            recorder.on_end(meta)
            saves.append(time.perf_counter() - start)
            if kill_after == len(saves):
                os.kill(os.getpid(), signal.SIGKILL)
    used = cpu_s() - began
    assert all(episode.length == len(frames) for episode in Dataset(folder)), "a step was dropped"
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return {"cpu_s": used, "save_s": saves, "frames": episodes * len(frames) * len(CAMERAS), "bytes": size}


def load_ours(folder: Path, batches: int) -> dict[str, Any]:
    """CPU of random windows decoded from the compressed pictures, one process."""
    with Loader([folder], n_obs=2, horizon=16, batch_size=64, cache="compressed", threads=1, prefetch=0) as loader:
        loader.batch(0)
        began = cpu_s()
        for step in range(1, 1 + batches):
            loader.batch(step)
        return {"cpu_ms_per_sample": (cpu_s() - began) * 1e3 / (batches * 64)}


class Sides:
    """Runs a command of either side as a child and returns what it printed."""

    def __init__(self, peer_python: str, work: Path) -> None:
        self._peer, self._work = peer_python, work

    def ours(self, command: str, folder: Path, *arguments: object) -> dict[str, Any]:
        return self._run([sys.executable, __file__, "--child", command, folder, *arguments])

    def theirs(self, command: str, folder: Path, *arguments: object) -> dict[str, Any]:
        return self._run([self._peer, PEER, command, folder, *arguments])

    def _run(self, command: list[object]) -> dict[str, Any]:
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "SVT_LOG": "1"}
        environment = os.environ | threads | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self._work / "hf")}
        done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
        if done.returncode == -signal.SIGKILL:
            return {}
        if done.returncode:
            sys.exit(f"{command[1]} {command[2:4]} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def compare_recording(sides: Sides, work: Path, episodes: int, seconds: float) -> None:
    print(f"recording: 2 cameras and 7 joints at {FPS} Hz, {episodes} episodes of {seconds:g} s")
    print(
        f"{'':10}{'':22}{'CPU ms/frame':>13}{'save, s: median, worst':>26}{'KB/frame':>10}{'ratio CPU':>11}{'save':>8}"
    )
    for size in SIZES:
        frames = work / f"{size}.npy"
        runs = {"ours": sides.ours("record", work / "ours", "--frames", frames, "--episodes", episodes)}
        for name, flags in {"LeRobot streaming": ["--streaming"], "LeRobot default": []}.items():
            folder = work / "theirs"
            runs[name] = sides.theirs("record", folder, "--frames", frames, "--episodes", episodes, *flags)
            shutil.rmtree(folder)
        shutil.rmtree(work / "ours")
        ours = runs["ours"]
        for name, run in runs.items():
            cpu, save = run["cpu_s"] * 1e3 / run["frames"], np.median(run["save_s"])
            ratio = cpu / (ours["cpu_s"] * 1e3 / ours["frames"])
            slower = save / np.median(ours["save_s"])
            print(
                f"{size:10}{name:22}{cpu:13.2f}{save:16.3f}, {max(run['save_s']):8.3f}"
                f"{run['bytes'] / run['frames'] / 1e3:10.1f}{ratio:11.1f}{slower:8.0f}"
            )


def compare_loading(sides: Sides, work: Path, batches: int) -> None:
    print("random windows (2 frames x 2 cameras + state + 16 actions), batch 64, one process, from compressed data")
    for size in SIZES:
        ours, theirs = work / "ours", work / "theirs"
        sides.ours("record", ours, "--frames", work / f"{size}.npy", "--episodes", 4)
        export_lerobot(ours, theirs)  # libsvtav1, g 2, crf 30: what LeRobot writes
        a, b = sides.ours("load", ours, "--batches", 4 * batches), sides.theirs("load", theirs, "--batches", batches)
        mine, peers = a["cpu_ms_per_sample"], b["cpu_ms_per_sample"]
        print(f"{size:10}ours {mine:6.2f} CPU ms a sample; LeRobot ({b['backend']}) {peers:6.2f}: {peers / mine:.1f} x")
        for folder in (ours, theirs):
            shutil.rmtree(folder)


def compare_deleting(sides: Sides, work: Path, episodes: int = 20) -> None:
    ours, theirs = work / "ours", work / "theirs"
    sides.ours("record", ours, "--frames", work / "240x320.npy", "--episodes", episodes)
    export_lerobot(ours, theirs)
    peer = sides.theirs("delete", theirs)
    start = time.perf_counter()
    delete(ours, Dataset(ours)[episodes // 2].number)
    wall = time.perf_counter() - start
    assert len(Dataset(ours)) == peer["left"] == episodes - 1
    print(f"deleting one episode of {episodes}, 240x320: ours {wall * 1e3:.1f} ms, LeRobot {peer['wall_s']:.1f} s")
    for folder in (ours, theirs):
        shutil.rmtree(folder)


def compare_dying(sides: Sides, work: Path) -> None:
    print("kill -9 just after the third save_episode / commit has returned; what can be loaded then:")
    arguments = ("--frames", work / "short.npy", "--episodes", 4, "--kill-after", 3)
    sides.ours("record", work / "ours", *arguments)
    print(f"{'':10}ours: {len(Dataset(work / 'ours'))} episodes")
    for name, flags in {"default": [], "streaming": ["--streaming"]}.items():
        sides.theirs("record", work / "theirs", *arguments, *flags)
        left = sides.theirs("survivors", work / "theirs")
        says = f"; its files do not load and it looks for them on the Hub ({left['says']})" if left["says"] else ""
        print(f"{'':10}LeRobot {name}: {left['episodes']} episodes{says}")
        shutil.rmtree(work / "theirs")


def child(options: argparse.Namespace) -> None:
    if options.child == "load":
        print(json.dumps(load_ours(options.folder, options.batches)))
        return
    frames = np.load(options.frames)
    print(json.dumps(record_ours(options.folder, frames, options.episodes, options.kill_after)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python that has lerobot 0.4.4")
    parser.add_argument("--seconds", type=float, default=5.0, help="of an episode")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--batches", type=int, default=4, help="of LeRobot's loader; ours takes four times as many")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--child", choices=("record", "load"), help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--frames", help=argparse.SUPPRESS)
    parser.add_argument("--kill-after", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    if not options.peer_python:
        parser.error("--peer-python: a Python that has lerobot 0.4.4, see data/README.md")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, (height, width) in SIZES.items():
            make_frames(work / f"{name}.npy", round(options.seconds * FPS), height, width)
        make_frames(work / "short.npy", FPS, *SIZES["240x320"])
        sides = Sides(options.peer_python, work)
        if "record" in options.only:
            compare_recording(sides, work, options.episodes, options.seconds)
        if "load" in options.only:
            compare_loading(sides, work, options.batches)
        if "delete" in options.only:
            compare_deleting(sides, work)
        if "kill" in options.only:
            compare_dying(sides, work)


if __name__ == "__main__":
    main()
