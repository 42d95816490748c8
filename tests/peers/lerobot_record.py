"""Runs in a Python that has lerobot (made for 0.4.4): records a dataset with LeRobotDataset, as its users do.

python lerobot_record.py FOLDER IN.npz --fps 20 [--streaming] [--images]

IN.npz holds ``lengths`` (E,), ``state`` (N, D), ``action`` (N, A), ``task`` (E,) and pictures ``front`` (N, H, W, 3).
"""

import argparse

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("source")
    parser.add_argument("--fps", type=int, default=20)
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--images", action="store_true", help="pictures in the parquet in place of videos")
    options = parser.parse_args()
    data = np.load(options.source)
    kind = "image" if options.images else "video"
    features = {
        "observation.state": {"dtype": "float32", "shape": data["state"].shape[1:], "names": None},
        "action": {"dtype": "float32", "shape": data["action"].shape[1:], "names": ["x", "y"]},
        "observation.images.front": {
            "dtype": kind,
            "shape": data["front"].shape[1:],
            "names": ["height", "width", "channels"],
        },
    }
    dataset = LeRobotDataset.create(
        "local/peer", options.fps, features, root=options.folder, robot_type="so101", use_videos=not options.images,
        streaming_encoding=options.streaming,
    )  # fmt: skip
    row = 0
    for length, task in zip(data["lengths"], data["task"], strict=True):
        for _ in range(length):
            dataset.add_frame({
                "observation.state": data["state"][row],
                "action": data["action"][row],
                "observation.images.front": data["front"][row],
                "task": str(task),
            })  # fmt: skip
            row += 1
        dataset.save_episode()
    dataset.finalize()
    print(row)


if __name__ == "__main__":
    main()
