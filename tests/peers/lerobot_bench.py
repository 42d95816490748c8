"""Runs in a Python that has lerobot (made for 0.4.4): the peer's half of benchmarks/bench_lerobot.py.

Each command prints one line of JSON. CPU seconds are the process's and its children's; importing is not counted.
"""

import argparse
import json
import logging
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset

FPS, CAMERAS = 30, ("front", "wrist")


def cpu_s():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def create(folder, frames, streaming):
    shape = frames.shape[1:]
    names = ["height", "width", "channels"]
    features = {
        f"observation.images.{c}": {"dtype": "video", "shape": shape, "names": names} for c in CAMERAS
    }  # fmt: skip
    features |= {key: {"dtype": "float32", "shape": (7,), "names": None} for key in ("observation.state", "action")}
    return LeRobotDataset.create(
        "local/bench", FPS, features, root=folder, streaming_encoding=streaming,
        image_writer_threads=0 if streaming else 4 * len(CAMERAS),
    )  # fmt: skip


def waiting(dataset):
    """Frames that the encoders have not taken yet."""
    encoder = dataset._streaming_encoder
    return 0 if encoder is None else max((q.qsize() for q in encoder._frame_queues.values()), default=0)


def add_episode(dataset, frames):
    """Feed at the cameras' rate, or slower if the encoders need it (nothing is dropped); return with queues empty."""
    start = time.monotonic()
    for k in range(len(frames)):
        time.sleep(max(0.0, start + k / FPS - time.monotonic()))
        while waiting(dataset) > 20:
            time.sleep(0.01)
        images = {f"observation.images.{c}": frames[(k + i) % len(frames)] for i, c in enumerate(CAMERAS)}
        low = np.full(7, k, np.float32)
        dataset.add_frame({**images, "observation.state": low, "action": low, "task": "bench"})
    while waiting(dataset):
        time.sleep(0.01)


def record(options):
    """CPU of recording some episodes, wall time of each save."""
    frames = np.load(options.frames)
    dataset = create(options.folder, frames, options.streaming)
    began, saves = cpu_s(), []
    for _ in range(options.episodes):
        add_episode(dataset, frames)
        start = time.perf_counter()
        dataset.save_episode()
        saves.append(time.perf_counter() - start)
        if options.kill_after == len(saves):
            os.kill(os.getpid(), signal.SIGKILL)
    dataset.finalize()
    used = cpu_s() - began
    size = sum(p.stat().st_size for p in Path(options.folder).rglob("*") if p.is_file())
    return {"cpu_s": used, "save_s": saves, "frames": options.episodes * len(frames) * len(CAMERAS), "bytes": size}


def load(options):
    """CPU of random windows through a DataLoader in this process."""
    from torch.utils.data import DataLoader, RandomSampler

    torch.set_num_threads(1)
    keys = [f"observation.images.{c}" for c in CAMERAS]
    past, chunk = [-1 / FPS, 0.0], [k / FPS for k in range(16)]
    deltas = dict.fromkeys([*keys, "observation.state"], past) | {"action": chunk}
    dataset = LeRobotDataset("local/bench", root=options.folder, delta_timestamps=deltas)
    wanted = 64 * (options.batches + 1)
    sampler = RandomSampler(
        dataset, replacement=True, num_samples=wanted, generator=torch.Generator().manual_seed(0)
    )  # fmt: skip
    loader = iter(DataLoader(dataset, batch_size=64, sampler=sampler, num_workers=0))
    next(loader)
    began = cpu_s()
    done = sum(len(batch["action"]) for batch in loader)
    return {"cpu_ms_per_sample": (cpu_s() - began) * 1e3 / done, "backend": dataset.video_backend}


def delete(options):
    """Wall time of leaving out one episode in the middle."""
    dataset = LeRobotDataset("local/bench", root=options.folder)
    out = f"{options.folder}-less"
    began, start = cpu_s(), time.perf_counter()
    left = delete_episodes(dataset, [dataset.num_episodes // 2], out, "local/less")
    found = {"wall_s": time.perf_counter() - start, "cpu_s": cpu_s() - began, "left": left.meta.total_episodes}
    shutil.rmtree(out)
    return found


def survivors(options):
    """How many episodes can be loaded, and what is said if none can."""
    try:
        return {"episodes": LeRobotDataset("local/bench", root=options.folder).num_episodes, "says": ""}
    except Exception as error:  # whatever a user would see
        return {"episodes": 0, "says": f"{type(error).__name__}: {error}".strip().splitlines()[0][:100]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("record", "load", "delete", "survivors"))
    parser.add_argument("folder")
    parser.add_argument("--frames")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--kill-after", type=int, default=0)
    parser.add_argument("--batches", type=int, default=4)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    actions = {"record": record, "load": load, "delete": delete, "survivors": survivors}
    print(json.dumps(actions[options.command](options)))


if __name__ == "__main__":
    main()
