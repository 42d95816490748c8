"""How well `calibrate-cameras` finds lenses and places, and how little a camera may move unnoticed.

    python tests/benchmarks/bench_cameras.py [--repetitions 5]

Pictures of 640 x 480 px with noise (2 of 255) through a lens, a board of 7 x 5 squares of 35 mm, 0.5 to 0.8 m away.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from charuco_pictures import BOARD, CAMERAS, T_TOOL_BOARD, Sensor, apart, boards_in_base, many_poses, told

from robopolicy_hardware.cameras.calibration import calibrate, check
from robopolicy_hardware.cameras.charuco import BoardFinder
from robopolicy_hardware.cameras.hand_eye import Setup

PICTURES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    count = parser.parse_args().repetitions
    sensors = {view: Sensor(camera) for view, camera in CAMERAS.items()}
    finder = BoardFinder(BOARD)

    def look_at(boards):
        shots = [
            finder.find(sensors[view].picture(np.linalg.inv(camera.T_base_cam) @ board), view, str(k))
            for k, board in enumerate(boards) for view, camera in CAMERAS.items()
        ]  # fmt: skip
        return [one for one in shots if one]

    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    residuals: dict[float, list[tuple[float, float]]] = {}
    for seed in range(count):
        rng, boards = np.random.default_rng(seed), boards_in_base(PICTURES, seed)
        seen = look_at(boards)
        for name, mm, deg in (
            ("arm exact", 0, 0),
            ("arm errs 0.3 mm, 0.03 deg", 0.3, 0.03),
            ("arm errs 1 mm, 0.1 deg", 1, 0.1),
        ):
            tools = {str(k): told(board @ np.linalg.inv(T_TOOL_BOARD), rng, mm, deg) for k, board in enumerate(boards)}
            found = calibrate(BOARD, seen, Setup("tool", (), tools), max_error_px=5.0)
            rows.setdefault(name, []).extend(_off(found))
            if mm == 0.3:
                again = boards_in_base(8, seed + 1000)
                after = look_at(again)
                tools = {
                    str(k): told(board @ np.linalg.inv(T_TOOL_BOARD), rng, mm, deg) for k, board in enumerate(again)
                }
                for moved_mm in (0.0, 2.0, 5.0, 10.0):
                    entries = found.entries()
                    entries["right"]["T_base_cam"][1][3] += moved_mm / 1000
                    px = check(entries, after, Setup("tool", (), tools)).residual_px
                    residuals.setdefault(moved_mm, []).append((px["left"], px["right"]))
        pictures = [
            finder.find(sensors[view].picture(pose), view, str(k))
            for k, pose in enumerate(many_poses(PICTURES, seed)) for view in CAMERAS
        ]  # fmt: skip
        placed = look_at(boards[:1])
        found = calibrate(BOARD, [one for one in pictures if one], Setup(T_board=boards[0]), placing=placed)
        rows.setdefault("one picture of a board at a known pose", []).extend(_off(found))
    print(f"{'cameras placed by':<42} {'off, mm':>14} {'off, deg':>14} {'focal, %':>9} {'error, px':>9}")
    for name, values in rows.items():
        mm, deg, focal, px = np.array(values).T
        label = name if "picture" in name else f"{PICTURES} pictures of a board on the tool, {name}"
        print(f"{label:<62} {np.median(mm):5.2f} (worst {mm.max():.2f}) {np.median(deg):6.3f} ({deg.max():.3f}) "
              f"{np.median(focal):6.2f} {np.median(px):8.2f}")  # fmt: skip
    print("\n--check, 8 pictures, arm errs 0.3 mm and 0.03 deg; the right camera moved by:")
    for moved_mm, pairs in residuals.items():
        left, right = np.array(pairs).T
        least = f"right {np.median(right):.2f} px (least {right.min():.2f})"
        print(f"{moved_mm:5.1f} mm: left {np.median(left):.2f} px, {least}")


def _off(found) -> list[tuple[float, float, float, float]]:
    """Return (mm, degrees, % of the focal length, px) of each camera."""
    off = []
    for view, camera in CAMERAS.items():
        mm, deg = apart(camera.T_base_cam, found.places.cameras[view])
        lens = found.lenses[view]
        off.append((mm, deg, 100 * abs(lens.K[0, 0] / camera.K[0, 0] - 1), found.error_px(view)))
    return off


if __name__ == "__main__":
    main()
