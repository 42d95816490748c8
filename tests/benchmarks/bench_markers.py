"""Markers rendered by MuJoCo and found again: how far off, with their plane and without, and what a picture costs.

python tests/benchmarks/bench_markers.py [--pictures 60]
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import sim_envs  # noqa: F401  the GL backend is chosen before mujoco is loaded
from robopolicy.errors import NoGLBackend
from sim_envs.markers import Calibration, Marker, MarkerFinder, MarkerSettings
from sim_envs.rendering import probe
from sim_envs.views import Eye, Views

sys.path.insert(0, str(Path(__file__).parents[1]))
from tagged import NUMBER, SIZE, THICK, TaggedLift

EYE = Eye((0.9, 0.0, 0.5), (0.5, 0.0, 0.0))
GREY = 4.0  # standard deviation of the noise of a pixel, of 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=60)
    args = parser.parse_args()
    try:
        print(f"a {1e3 * SIZE:.0f} mm tag seen from 0.65 m, drawn by {probe()}")
    except NoGLBackend as error:
        print(f"skipped: {error}")
        return
    for size in ((480, 640), (240, 320)):
        row(size, args.pictures)


def row(size, pictures):
    rng, views = np.random.default_rng(0), Views(TaggedLift(), EYE, size)
    errors: dict[str, list] = {"plane": [], "free": []}
    took = 0.0
    for _ in range(pictures):
        xy, half = rng.uniform([0.42, -0.08], [0.58, 0.08]), rng.uniform(-np.pi, np.pi) / 2
        state = {
            "q": np.array([2.0, -0.5, 0, -2, 0, 2, 0.8]), "gripper": np.ones(1),
            "cube_pos": np.array([*xy, 0.02]), "cube_quat": np.array([np.cos(half), 0, 0, np.sin(half)]),
        }  # fmt: skip
        image = np.clip(views.draw(state) + rng.normal(0, GREY, (*size, 1)), 0, 255).astype(np.uint8)
        told = views.calibration()
        camera = Calibration(np.array(told["K"]), np.array(told["T_base_cam"]))
        for name, plane in (("plane", 0.04 + 2 * THICK), ("free", None)):
            marker = Marker(NUMBER, "cube", SIZE, (0, 0, 0.02 + 2 * THICK, 1, 0, 0, 0), plane)
            finder = MarkerFinder(MarkerSettings((marker,), {"eye": camera}))
            start = time.process_time()
            found = finder.find(image, camera, 0)
            took += time.process_time() - start
            if found:
                w, x, y, z = found[0].quat
                turn = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)) - 2 * half
                off = np.linalg.norm((found[0].position - state["cube_pos"])[:2])
                errors[name].append((off, (turn + np.pi) % (2 * np.pi) - np.pi))
    views.close()
    told = {name: np.sqrt(np.mean(np.square(rows), axis=0)) if rows else (np.nan, np.nan)
            for name, rows in errors.items()}  # fmt: skip
    print(
        f"{size[1]}x{size[0]}: held to its plane {1e3 * told['plane'][0]:.2f} mm, {np.degrees(told['plane'][1]):.2f} "
        f"deg ({len(errors['plane'])} of {pictures} found); by perspective alone {1e3 * told['free'][0]:.2f} mm, "
        f"{np.degrees(told['free'][1]):.2f} deg ({len(errors['free'])} found); {500 * took / pictures:.1f} CPU ms"
    )


if __name__ == "__main__":
    main()
