"""Runs in a Python that has lerobot (made for 0.4.4): the peer's half of benchmarks/bench_training_images.py.

lerobot's own training loop, `lerobot.scripts.lerobot_train.train`, on a dataset on disk; what it logs of the last steps
is read as it is logged, and one line of JSON printed: seconds of wall and of CPU a step, and its wait for data.
"""

import argparse
import json
import logging
import os
import resource
import sys
import time
from pathlib import Path

import torch


def cpu_s():
    """Seconds of this process and of all below it, living or dead."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime + children_s(os.getpid())


def children_s(parent):
    """Seconds of living children, which getrusage counts only once they have ended."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                total += (int(fields[11]) + int(fields[12])) / ticks + children_s(int(folder.name))
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True, help="steps before the clock starts")
    parser.add_argument("--resize", type=int, nargs=2, required=True, help="what the pictures are scaled to")
    parser.add_argument("--down-dims", type=int, nargs="+", required=True)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.scripts import lerobot_train

    policy = DiffusionConfig(
        n_obs_steps=2, horizon=16, n_action_steps=8, resize_shape=tuple(options.resize), crop_ratio=7 / 8,
        use_separate_rgb_encoder_per_camera=True, down_dims=tuple(options.down_dims), device=options.device,
        push_to_hub=False,
    )  # fmt: skip
    config = TrainPipelineConfig(
        dataset=DatasetConfig("local/bench", root=options.folder), policy=policy, output_dir=Path(options.out),
        batch_size=options.batch_size, steps=options.steps, num_workers=options.workers, save_checkpoint=False,
        eval_freq=0, log_freq=0,
    )  # fmt: skip
    marks, update = [], lerobot_train.update_policy

    def watched(tracker, *arguments, **named):
        found = update(tracker, *arguments, **named)
        data_s = float(tracker.metrics["dataloading_s"].val)
        marks.append((time.perf_counter(), cpu_s(), data_s, sum(p.numel() for p in arguments[0].parameters())))
        return found

    lerobot_train.update_policy = watched
    logging.disable(logging.WARNING)
    sys.argv = sys.argv[:1]  # which lerobot reads as well
    lerobot_train.train(config)
    begin, end = marks[options.warm - 1], marks[-1]
    count = options.steps - options.warm
    data_s = sum(mark[2] for mark in marks[options.warm :])
    print(json.dumps({
        "wall_s": (end[0] - begin[0]) / count, "cpu_s": (end[1] - begin[1]) / count, "data_s": data_s / count,
        "parameters": end[3],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
