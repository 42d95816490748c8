"""Tracks of a gripper in two or three pictures back to its poses: how wrong, and what a plan costs.

A gripper of the twin's size reaches in front of 640x480 cameras one metre away. The peer is the way of the released
Motion Tracks code, written afresh: pixels rounded, lenses left out, two views through OpenCV, and an unweighted fit
from the present points to each step's, whose motion is applied to the present pose. The noise is independent from step
to step; of noise that stays from step to step smoothing takes less away.

python tests/benchmarks/bench_track_geometry.py [--reaches 40]
"""

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from robopolicy.geometry import se3
from robopolicy.geometry.keypoints import TWIN
from robopolicy.geometry.motion import Lifting, tracks_to_poses
from robopolicy.geometry.rigid import fit_rigid
from robopolicy.geometry.triangulation import triangulate

sys.path.insert(0, str(Path(__file__).parents[1]))
from watched_tool import LENS, STEPS, reach, rig

NOISES = (0.0, 0.5, 1.0, 2.0, 5.0)
KABSCH, REFINED, SMOOTH = Lifting(refine=False, smooth=False), Lifting(smooth=False), Lifting()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reaches", type=int, default=40, help="a row of a table, of 16 steps each")
    args = parser.parse_args()
    table(args.reaches)
    openings(args.reaches)
    anchors(args.reaches)
    cost()


def table(reaches):
    print(f"errors of {reaches} reaches of {STEPS} steps, any opening: median and 95 %, mm | deg; 'ours' smoothed")
    print(f"{'noise':>6} {'angle':>6} views lens  {'peer':^29}  {'ours, a step alone':^29}  {'ours':^29}  peer / ours")
    for lens in ((), LENS):
        for views in (2, 3):
            for angle in (30, 60, 90):
                for noise in NOISES:
                    rows = measured(
                        reaches,
                        noise,
                        rig(angle, views, lens),
                        {"peer": peer, "one": ours(REFINED), "all": ours(SMOOTH)},
                    )
                    ratios = " ".join(
                        f"{np.median(p) / max(np.median(o), 1e-6):6.1f}x"
                        for p, o in zip(rows["peer"], rows["all"], strict=True)
                    )
                    print(
                        f"{noise:4g}px {angle:5d}d {views:5d} {'yes' if lens else ' no':>4}  "
                        f"{'  '.join(cell(rows[name]) for name in ('peer', 'one', 'all'))}  {ratios}"
                    )


def openings(reaches):
    print("\n1 px, two views: median mm | deg by the gripper's opening (16 mm between closed fingers, 96 mm open)")
    for angle in (60, 90):
        for opening in (0.0, 0.25, 0.5, 1.0):
            ways = {"peer": peer, "kabsch": ours(KABSCH), "refined": ours(REFINED), "smoothed": ours(SMOOTH)}
            rows = measured(reaches, 1.0, rig(angle), ways, opening)
            print(f"{angle:5d}d {opening:5g}  " + "  ".join(f"{name} {middle(rows[name])}" for name in ways))


def anchors(reaches):
    print("\nwhere tracks start, two views at 75 degrees: median mm | deg, each step alone")
    for named, noise, offset, start_noise in (
        ("1 px of noise, start exact", 1, 0, 0), ("1 px, start as noisy", 1, 0, 1),
        ("1 px, a constant 2 px a point", 1, 2, 0), ("1 px, a constant 5 px a point", 1, 5, 0),
    ):  # fmt: skip
        ways = {"as they are": believed, "moved in the pictures": moved_in_pictures, "relative in space": relative}
        rows = measured(reaches, noise, rig(75), ways, offset=offset, start_noise=start_noise)
        print(f"{named:32s}" + "  ".join(f"{name} {middle(rows[name])}" for name in ways))


def cost():
    print("\na plan of 32 candidates x 16 steps x 5 points x 2 views, time of the processor")
    for named, lens in (("pinhole", ()), ("lens", LENS)):
        rng, cameras = np.random.default_rng(0), rig(75, 2, lens)
        made = reach(rng)
        tracks = made.tracks(cameras)[:, 1:] + rng.normal(size=(32, 2, STEPS, 5, 2))
        took = []
        for _ in range(50):
            begun = time.process_time()
            tracks_to_poses(tracks, np.zeros(tracks.shape[:-2]), cameras, TWIN, made.start)
            took.append(1e3 * (time.process_time() - begun))
        print(f"  {named:8s} median {np.median(took):.1f} ms, fastest {min(took):.1f} ms")


def measured(reaches, noise, cameras, ways, opening=None, *, offset=0.0, start_noise=0.0):
    """Return {name: (mm, deg)} of the ways, all on the same tracks."""
    rng, found = np.random.default_rng(0), {name: [] for name in ways}
    for _ in range(reaches):
        made = reach(rng, opening)
        tracks = made.tracks(cameras)
        tracks = tracks + offset * rng.normal(size=(len(cameras), 1, 5, 2))
        shaken = tracks + np.concatenate([
            start_noise * rng.normal(size=tracks[:, :1].shape), noise * rng.normal(size=tracks[:, 1:].shape)
        ], axis=1)  # fmt: skip
        for name, way in ways.items():
            found[name].append(made.errors(*way(shaken, cameras, made)))
    return {name: np.stack(errors, axis=1) for name, errors in found.items()}


def ours(lifting):
    return lambda tracks, cameras, made: lift(tracks, cameras, made, lifting=lifting)


def lift(tracks, cameras, made, **settings):
    ahead = tracks[:, 1:]
    motion = tracks_to_poses(ahead, np.zeros(ahead.shape[:2]), cameras, TWIN, made.start, **settings)
    at = np.isfinite(motion.position).all(-1)  # where no pose is told, the tool stays
    return (
        np.where(at[:, None], motion.position, made.position[0]),
        np.where(at[:, None], motion.quat, made.quat[0]),
    )


def believed(tracks, cameras, made):
    return lift(tracks, cameras, made, lifting=REFINED)


def moved_in_pictures(tracks, cameras, made):
    return lift(tracks, cameras, made, lifting=REFINED, origin=tracks[:, 0])


def relative(tracks, cameras, made):
    """Return the present pose moved as the present triangulated points are to each step's."""
    points = triangulate(tracks, cameras).points
    return applied(fit_rigid(points[0], points[1:]), made)


def peer(tracks, cameras, made):
    """Return the same of rounded pixels, two views and no lens."""
    tracks = np.array(tracks)
    tracks[:, 0] = made.tracks(cameras)[:, 0]  # it projects the present points, and rounds them
    flat = np.round(tracks[:2]).reshape(2, -1, 2)
    found = cv2.triangulatePoints(*(camera.K @ camera.P for camera in cameras[:2]), flat[0].T, flat[1].T)
    points = (found[:3] / found[3]).T.reshape(-1, 5, 3)
    return applied(fit_rigid(points[0], points[1:]), made)


def applied(fit, made):
    motion = np.zeros((STEPS, 4, 4))
    motion[:, :3, :3], motion[:, :3, 3], motion[:, 3, 3] = fit.rotation, fit.translation, 1
    poses = motion @ se3.pose(made.position[0], made.quat[0])
    return poses[:, :3, 3], se3.quats_of(poses[:, :3, :3])


def cell(errors):
    return " | ".join(f"{np.median(e):6.2f} {np.quantile(e, 0.95):6.2f}" for e in errors)


def middle(errors):
    return " | ".join(f"{np.median(e):5.2f}" for e in errors)


if __name__ == "__main__":
    main()
