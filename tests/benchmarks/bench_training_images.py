"""Training from two cameras on disk beside LeRobot: the same frames, network and batch, children of this one process.

python tests/benchmarks/bench_training_images.py --peer-python PATH [--sizes 96x96 480x640:120x160] [--turns 2]

PATH is a Python with lerobot 0.4.4 and torchvision. Both train a diffusion policy from 2 observations of two cameras
and 7 joints to 16 actions: a ResNet-18 with GroupNorm and spatial softmax for each camera on crops of 7/8, and a UNet
of the given widths, batches of random windows decoded as they are needed. LeRobot runs its own training loop on the
dataset our exporter wrote (AV1, its default), with its own number of data workers; ours decodes JPEG in threads. Where
the network sees less than was recorded, LeRobot decodes all of it and resizes; ours decodes to that size.
The sides take turns. Wall time counts on an idle machine; CPU time, of all processes, on a busy one too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bench_lerobot import CAMERAS, make_frames, spec_of

from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.exporters.lerobot import export_lerobot
from robopolicy_data.writer import DatasetWriter

PEER = Path(__file__).parents[1] / "peers" / "lerobot_train.py"
SIDES = {"LeRobot": None, "ours, float32": "float32", "ours": "auto"}


def write_dataset(folder: Path, frames: np.ndarray, episodes: int) -> None:
    spec = spec_of(frames)
    rng = np.random.default_rng(1)
    with DatasetWriter(folder, spec) as writer:
        for _ in range(episodes):
            joints = rng.normal(size=(len(frames) + 1, 7)).cumsum(axis=0).astype(np.float32)
            episode = writer.begin(EpisodeMeta("bench", "none", success=True))
            for k in range(len(frames)):
                stamp = k * spec.period_ns
                images = {camera: frames[(k + i) % len(frames)] for i, camera in enumerate(CAMERAS)}
                seen = Observation(stamp, {"q": joints[k]}, images, dict.fromkeys(CAMERAS, stamp))
                episode.add(Step(seen, joints[k + 1], stamp, "human"))
            episode.commit()


def train_ours(options: argparse.Namespace) -> dict[str, float]:
    import resource
    from dataclasses import replace

    import torch

    from robopolicy.policies.config import PRESETS
    from robopolicy.policies.diffusion import DiffusionPolicy
    from robopolicy.policies.unet1d import UnetConfig
    from robopolicy.training.config import Progress, TrainConfig
    from robopolicy.training.trainer import train
    from robopolicy_data.loader import Loader

    marks: list[tuple[float, float, float]] = []

    def mark(now: Progress) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)  # threads included; there are no other processes
        marks.append((time.perf_counter(), used.ru_utime + used.ru_stime, now.data_s))

    loader = Loader(
        [options.folder], n_obs=2, horizon=16, batch_size=options.batch_size, cache=options.cache,
        sizes=dict.fromkeys(CAMERAS, tuple(options.resize)),
    )  # fmt: skip
    spec = replace(loader.spec, n_execute=8)
    torch.manual_seed(0)
    config = replace(PRESETS["unet-small"], net=UnetConfig(tuple(options.down_dims), step_dim=128))
    policy = DiffusionPolicy(spec, config)
    settings = TrainConfig(
        steps=options.steps, batch_size=options.batch_size, precision=options.precision, device=options.device,
        num_threads=options.threads, report_every_s=0.0, save_every_s=1e9,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        train(policy, loader, out, settings, on_progress=mark)
    loader.close()
    begin, end, count = marks[options.warm - 1], marks[options.steps - 1], options.steps - options.warm
    wall_s, cpu_s, data_s = ((b - a) / count for a, b in zip(begin, end, strict=True))
    size = sum(p.numel() for p in policy.parameters())
    return {"wall_s": wall_s, "cpu_s": cpu_s, "data_s": data_s, "parameters": size}


def run_side(name: str, folder: Path, work: Path, net: tuple[int, int], options: argparse.Namespace) -> dict[str, Any]:
    shared = [
        "--batch-size", options.batch_size, "--steps", options.steps, "--warm", options.warm, "--threads",
        options.threads, "--device", options.device, "--resize", *net, "--down-dims", *options.down_dims,
    ]  # fmt: skip
    if SIDES[name] is None:
        words = [options.peer_python, PEER, f"{folder}-lerobot", "--workers", options.workers]
        words += ["--out", tempfile.mkdtemp(dir=work) + "/run"]
    else:
        words = [sys.executable, __file__, folder, "--child", "--precision", SIDES[name], "--cache", options.cache]
    home = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "hf"), "OMP_NUM_THREADS": str(options.threads), "SVT_LOG": "1"}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or SIDES[name]} | home
    command = [str(word) for word in [*words, *shared]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(size: tuple[int, int], net: tuple[int, int], work: Path, options: argparse.Namespace) -> None:
    folder = work / "x".join(map(str, size))
    make_frames(work / "frames.npy", 60, *size)
    write_dataset(folder, np.load(work / "frames.npy"), options.episodes)
    export_lerobot(folder, Path(f"{folder}-lerobot"))
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for _ in range(options.turns):
        for name, runs in turns.items():
            runs.append(run_side(name, folder, work, net, options))
    best = {name: {key: min(run[key] for run in runs) for key in runs[0]} for name, runs in turns.items()}
    disk, seen = ("x".join(map(str, pair)) for pair in (size, net))
    print(f"two cameras {disk}, the network sees crops of 7/8 of {seen}, batch {options.batch_size}")
    columns = (
        f"{'M weights':>10}{'samples/s':>11}{'CPU ms a sample':>17}{'data wait':>11}{'faster: wall':>14}{'CPU':>7}"
    )
    print(f"{'':16}{columns}")
    theirs = best["LeRobot"]
    for name, run in best.items():
        print(
            f"{name:16}{run['parameters'] / 1e6:11.2f}{options.batch_size / run['wall_s']:11.1f}"
            f"{run['cpu_s'] * 1e3 / options.batch_size:17.1f}{run['data_s'] / run['wall_s']:11.1%}"
            f"{theirs['wall_s'] / run['wall_s']:13.2f}x{theirs['cpu_s'] / run['cpu_s']:6.2f}x",
            flush=True,
        )


def pair(size: str) -> tuple[int, int]:
    height, width = map(int, size.split("x"))
    return height, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python that has lerobot 0.4.4 and torchvision")
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["96x96", "480x640:120x160"],
        metavar="HxW",
        help="of the pictures on disk, and after a colon what the network sees of them",
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument(
        "--warm",
        type=int,
        default=6,
        help="steps untimed: LeRobot's workers decode ahead",
    )
    parser.add_argument("--turns", type=int, default=2, help="of each side; the best counts")
    parser.add_argument("--episodes", type=int, default=10, help="of 60 frames")
    parser.add_argument("--down-dims", type=int, nargs="+", default=[64, 128, 256], help="of the UNet")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--workers", type=int, default=2, help="of LeRobot's data loader, whose default is 4")
    parser.add_argument("--cache", default="compressed", choices=("compressed", "disk"), help="of our loader")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resize", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train_ours(options)))
        return
    if not options.peer_python:
        parser.error("--peer-python: a Python that has lerobot 0.4.4 and torchvision, see data/README.md")
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            disk, _, net = size.partition(":")
            compare(pair(disk), pair(net or disk), Path(folder), options)


if __name__ == "__main__":
    main()
