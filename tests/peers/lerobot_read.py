"""Runs in a Python that has lerobot (made for 0.4.4): loads a folder with LeRobotDataset and writes what came out.

python lerobot_read.py FOLDER OUT.npz [--backend default|torchcodec|pyav]

Arrays: every numeric key stacked over all items; pictures of colour cameras as uint8 (N, H, W, 3); "task" (N,);
"window/..." what delta_timestamps gives for the item in the middle. It prints versions and episodes as JSON.
"""

import argparse
import json
from importlib.metadata import version

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import get_safe_default_codec


def plain(values):
    """A picture (C, H, W) float 0..1 as the bytes it was made of; anything else as it is."""
    array = values.numpy()
    if array.ndim >= 3 and array.dtype == np.float32 and array.shape[-3] == 3:
        return np.moveaxis(np.round(array * 255), -3, -1).astype(np.uint8)
    return array


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--backend", default="default", help="default: torchcodec where it is installed, else pyav")
    options = parser.parse_args()
    if options.backend == "default":
        options.backend = get_safe_default_codec()
    dataset = LeRobotDataset("local/peer", root=options.folder, video_backend=options.backend)
    items = [dataset[i] for i in range(len(dataset))]
    keys = [key for key, value in items[0].items() if not isinstance(value, str)]
    found = {key: np.stack([plain(item[key]) for item in items]) for key in keys}
    found["task"] = np.array([item["task"] for item in items])
    steps = [k / dataset.fps for k in range(-1, 4)]
    cameras = [key for key in dataset.meta.camera_keys if "images" in key]
    deltas = {"action": steps} | dict.fromkeys(cameras, steps[:2])
    windows = LeRobotDataset("local/peer", root=options.folder, video_backend=options.backend, delta_timestamps=deltas)
    middle = windows[len(windows) // 2]
    found |= {f"window/{key}": plain(middle[key]) for key in (*deltas, *(f"{key}_is_pad" for key in deltas))}
    np.savez(options.out, **found)
    said = {
        "lerobot": version("lerobot"),
        "backend": options.backend,
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "fps": dataset.fps,
        "robot_type": dataset.meta.robot_type,
        "lengths": [int(n) for n in dataset.meta.episodes["length"]],
        "features": list(dataset.features),
        "stats": {
            key: {name: np.asarray(value).ravel().tolist() for name, value in each.items()}
            for key, each in dataset.meta.stats.items()
        },
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
