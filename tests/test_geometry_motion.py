"""Tracks back to poses: exact tracks give exact poses, noisy ones the bars, and what cannot be told no motion."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from robopolicy.errors import BehindCamera, ContractError, TracksLost
from robopolicy.geometry import se3
from robopolicy.geometry.gripping import hold_gripper
from robopolicy.geometry.keypoints import TWIN, GripperKeypoints
from robopolicy.geometry.motion import DISAGREE, MISSHAPEN, OUTSIDE, Lifting, Tool, tracks_to_poses
from robopolicy.geometry.pose_fit import refine_pose
from robopolicy.geometry.rigid import fit_rigid
from robopolicy.geometry.triangulation import triangulate

sys.path.insert(0, str(Path(__file__).parent))
from watched_tool import LENS, STEPS, looking, reach, rig

STEPWISE = Lifting(smooth=False)
KABSCH = Lifting(smooth=False, refine=False)


def lifted(made, cameras, tracks=None, **settings):
    tracks = made.tracks(cameras)[:, 1:] if tracks is None else tracks
    return tracks_to_poses(tracks, np.zeros(tracks.shape[:-2]), cameras, TWIN, made.start, **settings)


def errors(cameras, noise, lifting, opening=None, count=40):
    """(2, count, H): mm and degrees of that many reaches."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        made = reach(rng, opening)
        tracks = made.tracks(cameras)[:, 1:]
        motion = lifted(made, cameras, tracks + noise * rng.normal(size=tracks.shape), lifting=lifting)
        assert (motion.told == STEPS).all()
        found.append(made.errors(motion.position, motion.quat))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("lens", [(), LENS], ids=["pinhole", "lens"])
@pytest.mark.parametrize(("angle", "views"), [(30, 2), (60, 2), (90, 2), (90, 3)])
@pytest.mark.parametrize("lifting", [KABSCH, STEPWISE, Lifting()], ids=["kabsch", "refined", "smooth"])
def test_exact_tracks_give_the_motion_back(lens, angle, views, lifting):
    mm, degrees = errors(rig(angle, views, lens), 0.0, lifting, count=10)
    assert mm.max() < 0.1
    assert degrees.max() < 0.05


@pytest.mark.parametrize("angle", [60, 75, 90])
@pytest.mark.parametrize("lifting", [KABSCH, STEPWISE, Lifting()], ids=["kabsch", "refined", "smooth"])
def test_one_pixel_of_noise_costs_less_than_the_bars(angle, lifting):
    mm, degrees = errors(rig(angle), 1.0, lifting)
    assert np.median(mm) < 5
    assert np.median(degrees) < 3


def test_refining_and_smoothing_each_help():
    noisy = {name: errors(rig(30), 1.0, one) for name, one in (("k", KABSCH), ("r", STEPWISE), ("s", Lifting()))}
    for unit in (0, 1):
        kabsch, refined, smooth = (np.median(noisy[name][unit]) for name in "krs")
        assert refined < 0.95 * kabsch
        assert smooth < 0.9 * refined


def test_a_closed_gripper_is_thin_and_needs_the_steps_together():
    _, alone = errors(rig(75), 1.0, STEPWISE, opening=0.0)
    mm, together = errors(rig(75), 1.0, Lifting(), opening=0.0)
    assert np.median(alone) > 3, "16 mm between its fingers at 1.7 mm a pixel: no single step can tell the turn"
    assert np.median(together) < 3
    assert np.median(mm) < 5


def test_opencvs_own_steps_give_the_same_pose():
    made, cameras = reach(np.random.default_rng(3), opening=0.7), rig(75, 2, LENS)
    tracks = made.tracks(cameras)[:, 1:] + np.random.default_rng(4).normal(size=(2, STEPS, 5, 2))
    motion = lifted(made, cameras, tracks, lifting=KABSCH)
    sides = [
        cv2.undistortPoints(p.reshape(-1, 1, 2), c.K, c.distortion)[:, 0] for p, c in zip(tracks, cameras, strict=True)
    ]
    points = cv2.triangulatePoints(cameras[0].P, cameras[1].P, sides[0].T, sides[1].T)
    points = (points[:3] / points[3]).T.reshape(STEPS, 5, 3)
    for k in range(STEPS):
        shape = TWIN.at(TWIN.opening(points[k]))
        here, there = shape.mean(0), points[k].mean(0)
        turn, _ = Rotation.align_vectors(points[k] - there, shape - here)
        assert (turn.inv() * Rotation.from_quat(motion.quat[k], scalar_first=True)).magnitude() < np.radians(2)
        assert np.linalg.norm(there - turn.apply(here) - motion.position[k]) < 2e-3


def test_the_refined_pose_is_nearly_the_most_likely_one():
    rng, cameras = np.random.default_rng(5), rig(30)
    made = reach(rng, opening=1.0)
    pixels = made.tracks(cameras)[:, 1:] + rng.normal(size=(2, STEPS, 5, 2))
    rays = np.stack([camera.rays(p) for camera, p in zip(cameras, pixels, strict=True)])
    kabsch = lifted(made, cameras, pixels, lifting=KABSCH)
    first = se3.pose(kabsch.position, kabsch.quat)
    shape = np.broadcast_to(TWIN.opened, (STEPS, 5, 3))
    found, information, left = refine_pose(first, shape, rays, np.ones((2, STEPS, 5)), cameras)

    def miss(twist, k):
        pose = first[k] @ se3.exp(twist)
        points = TWIN.opened @ pose[:3, :3].T + pose[:3, 3]
        return np.concatenate([(c.project(points) - pixels[v, k]).ravel() for v, c in enumerate(cameras)])

    for k in range(STEPS):
        best = least_squares(miss, np.zeros(6), args=(k,))
        off = se3.log(se3.inverse(first[k] @ se3.exp(best.x)) @ found[k])
        assert np.linalg.norm(off[:3]) < 4e-4
        assert np.linalg.norm(off[3:]) < np.radians(0.4)
        assert left[k] == pytest.approx(np.sqrt(2 * best.cost / 10), rel=0.02)
        assert np.allclose(information[k], np.diagonal(best.jac.T @ best.jac), rtol=0.15)


def seen_by(cameras, T):
    return np.stack([camera.project(TWIN.opened @ T[:3, :3].T + T[:3, 3]) for camera in cameras])


def test_a_step_of_refinement_is_taken_only_where_it_helps():
    rng, cameras, count = np.random.default_rng(22), rig(30), 200
    pixels = np.stack([camera.project(TWIN.opened) for camera in cameras])
    rays = np.repeat([[c.rays(p)] for c, p in zip(cameras, pixels, strict=True)], count, axis=1)
    first = se3.pose(
        rng.normal(0, 0.2, (count, 3)), rng.normal(size=(count, 4))
    )  # anywhere: linearised, it may go wrong
    first[0] = np.nan
    shape, ones = np.broadcast_to(TWIN.opened, (count, 5, 3)), np.ones((2, count, 5))
    found, _, left = refine_pose(first, shape, rays, ones, cameras)
    assert np.isnan(found[0]).all()
    assert np.isnan(left[0])
    stayed = 0
    for k in range(1, count):
        before, after = (np.sqrt(((seen_by(cameras, T) - pixels) ** 2).sum() / 10) for T in (first[k], found[k]))
        assert after <= before + 1e-9
        assert left[k] == pytest.approx(after)
        stayed += bool((found[k] == first[k]).all())
    assert 0 < stayed < count / 2


def test_plans_are_lifted_together_as_they_are_alone():
    rng, cameras = np.random.default_rng(6), rig()
    made = reach(rng)
    tracks = made.tracks(cameras)[:, 1:] + rng.normal(size=(3, 2, 2, STEPS, 5, 2))
    grasp = rng.uniform(size=tracks.shape[:-2])
    together = tracks_to_poses(tracks, grasp, cameras, TWIN, made.start)
    assert together.quat.shape == (3, 2, STEPS, 4)
    for i, j in np.ndindex(3, 2):
        alone = tracks_to_poses(tracks[i, j], grasp[i, j], cameras, TWIN, made.start)
        for name in ("position", "quat", "opening", "residual_px", "residual_m", "why"):
            assert np.allclose(getattr(together, name)[i, j], getattr(alone, name), atol=1e-12), name


def test_a_track_that_does_not_move_is_the_pose_where_it_starts():
    made, cameras = reach(np.random.default_rng(7)), rig(75, 2, LENS)
    origin = made.tracks(cameras)[:, 0] + np.random.default_rng(8).normal(0, 6, (2, 5, 2))  # a detector that is wrong
    still = np.repeat(origin[:, None], STEPS, axis=1)
    motion = lifted(made, cameras, still, origin=origin)
    assert np.abs(motion.position - made.position[0]).max() < 1e-9
    assert np.abs(motion.quat - made.quat[0]).max() < 1e-9
    assert motion.residual_px.max() < 1e-6
    free = lifted(made, cameras, still)
    assert np.linalg.norm(free.position - made.position[0], axis=-1).min() > 1e-3


def test_a_constant_offset_does_not_count_from_where_the_tracks_start():
    rng, cameras, anchored, free = np.random.default_rng(9), rig(), [], []
    for _ in range(20):
        made = reach(rng)
        tracks = made.tracks(cameras) + rng.normal(0, 5, (2, 1, 5, 2))
        anchored.append(made.errors(*pose_of(lifted(made, cameras, tracks[:, 1:], origin=tracks[:, 0]))))
        free.append(made.errors(*pose_of(lifted(made, cameras, tracks[:, 1:]))))
    for unit in (0, 1):
        with_origin, without = (np.median([one[unit] for one in errors]) for errors in (anchored, free))
        assert with_origin < 0.25 * without


def pose_of(motion):
    return motion.position, motion.quat


def test_the_opening_of_the_fit_is_told_by_the_tips():
    made, cameras = reach(np.random.default_rng(10), opening=0.0), rig()
    opens = replace(made, opening=np.linspace(0, 1, STEPS + 1))
    motion = lifted(opens, cameras, lifting=STEPWISE)
    assert motion.residual_m.max() < 1e-9
    assert opens.errors(*pose_of(motion))[1].max() < 1e-4
    fixed = GripperKeypoints(TWIN.opened, TWIN.opened + np.array([0, 0, 0.02]))  # tips that do not move apart
    start = Tool(made.position[0], made.quat[0], 0.3)
    points = fixed.placed(made.position, made.quat, np.full(STEPS + 1, 0.3))
    tracks = np.stack([camera.project(points) for camera in cameras])[:, 1:]
    motion = tracks_to_poses(tracks, np.zeros((2, STEPS)), cameras, fixed, start, lifting=STEPWISE)
    assert made.errors(*pose_of(motion))[0].max() < 1e-6


def test_a_view_that_loses_points_is_left_out_and_named_when_too_few_remain():
    rng, cameras = np.random.default_rng(11), rig()
    made = reach(rng, opening=1.0)
    tracks = made.tracks(cameras)[:, 1:]
    tracks[0, 3, 0], tracks[1, 6, 2] = np.nan, [1e4, 0]  # one of five points, not a number or out of the picture
    tracks[0, 8] = [-500.0, 100.0]  # a whole view, for one step
    motion = lifted(made, cameras, tracks)
    assert made.errors(*pose_of(motion))[0].max() < 1
    assert np.flatnonzero(motion.why).tolist() == [8]
    assert motion.why[8] == OUTSIDE
    assert np.isnan(motion.residual_px[8])
    assert np.isnan(lifted(made, cameras, tracks, lifting=STEPWISE).position[8]).all(), "not filled in"
    tracks[0, 8:] = np.nan
    motion = lifted(made, cameras, tracks)
    assert motion.told == 8
    assert np.isnan(motion.position[8:]).all()
    assert np.isnan(motion.quat[8:]).all()
    motion.require(8)
    with pytest.raises(
        TracksLost, match=r"1 of 1 plans tell no motion for 9 steps; the worst from step 9 on: fewer than"
    ):
        motion.require(9)
    with pytest.raises(ContractError, match="17 steps are wanted of plans of 16"):
        motion.require(17)


def test_one_finger_of_a_closed_gripper_is_too_thin_to_tell_its_turn():
    made, cameras = reach(np.random.default_rng(12), opening=0.0), rig()
    tracks = made.tracks(cameras)[:, 1:]
    tracks[0, :, 3:] = np.nan
    motion = lifted(made, cameras, tracks)
    assert (motion.why == OUTSIDE).all()
    assert motion.told == 0


def test_views_that_go_different_ways_give_no_motion():
    made, cameras = reach(np.random.default_rng(13), opening=1.0), rig()
    tracks = made.tracks(cameras)[:, 1:]
    tracks[0, 5:, :, 1] += np.linspace(40, 200, STEPS - 5)[:, None]  # one goes down, the other does not
    motion = lifted(made, cameras, tracks)
    assert motion.told == 5
    assert (motion.why[5:] == DISAGREE).all()
    assert (np.diff(motion.residual_px[5:]) > 0).all()
    assert motion.residual_px[5] > 10
    assert motion.residual_px[:5].max() < 1e-6
    with pytest.raises(TracksLost, match=r"views do not agree .* px\)"):
        motion.require(6)


def test_points_behind_a_camera_give_no_motion_and_a_finite_residual():
    cameras = rig(30)
    made = reach(np.random.default_rng(14), opening=1.0)
    tracks = np.empty((2, STEPS, 5, 2))
    tracks[0], tracks[1] = [100.0, 239.5], [540.0, 239.5]  # rays that spread
    motion = lifted(made, cameras, tracks)
    assert motion.told == 0
    assert (motion.why == DISAGREE).all()
    assert (motion.residual_px > 700).all()
    assert np.isfinite(motion.residual_px).all()
    away = Tool(np.array([0, 0, 5.0]), made.quat[0], 1.0)
    with pytest.raises(BehindCamera, match="behind the camera"):
        tracks_to_poses(tracks, np.zeros((2, STEPS)), cameras, TWIN, away, origin=tracks[:, 0])


def test_points_that_have_not_the_grippers_shape_give_no_motion():
    made, cameras = reach(np.random.default_rng(15), opening=1.0), rig()
    points = TWIN.placed(made.position, made.quat, made.opening)[1:]
    swollen = points.mean(1, keepdims=True) + 1.7 * (points - points.mean(1, keepdims=True))
    motion = lifted(made, cameras, np.stack([camera.project(swollen) for camera in cameras]))
    assert (motion.why == MISSHAPEN).all()
    assert motion.told == 0
    assert motion.residual_m.min() > 0.03


def test_a_point_that_one_view_mistakes_weighs_less():
    rng, cameras, trusting, doubting = np.random.default_rng(16), rig(60), [], []
    for _ in range(30):
        made = reach(rng)
        tracks = made.tracks(cameras)[:, 1:] + rng.normal(size=(2, STEPS, 5, 2))
        tracks[0, :, rng.integers(5), 0] += 20
        for errors, lifting in ((trusting, KABSCH), (doubting, STEPWISE)):
            errors.append(made.errors(*pose_of(lifted(made, cameras, tracks, lifting=lifting)))[0])
    assert np.median(doubting) < 0.7 * np.median(trusting)


def test_a_point_on_which_the_views_disagree_weighs_less_in_the_rigid_fit_too():
    rng, cameras, alike, weighted = np.random.default_rng(21), rig(60), [], []
    for _ in range(20):
        made = reach(rng, opening=1.0)
        tracks = made.tracks(cameras)[:, 1:]
        tracks[0, :, rng.integers(5), 1] += 20  # up and down: across the lines on which the other view would accept it
        weighted.append(made.errors(*pose_of(lifted(made, cameras, tracks, lifting=KABSCH))))
        fit = fit_rigid(TWIN.opened, triangulate(tracks, cameras).points)
        alike.append(made.errors(fit.translation, se3.quats_of(fit.rotation)))
    for unit in (0, 1):
        ours, plain = (np.median([one[unit] for one in errors]) for errors in (weighted, alike))
        assert ours < 0.6 * plain


def test_a_third_view_outvotes_nobody_but_helps():
    two, three = (errors(rig(90, views), 1.0, STEPWISE, count=30) for views in (2, 3))
    assert np.median(three[0]) < 0.9 * np.median(two[0])
    made, cameras = reach(np.random.default_rng(17), opening=1.0), rig(90, 3)
    tracks = made.tracks(cameras)[:, 1:]
    tracks[2] = np.nan
    assert made.errors(*pose_of(lifted(made, cameras, tracks)))[0].max() < 0.1, "two of three are enough"


def test_the_gripper_moves_only_when_all_views_agree():
    left = [0.9, 0.9, 0.1, 0.1, 0.5, np.nan, 0.1, 0.9]
    right = [0.1, 0.8, 0.9, 0.2, 0.5, 0.1, np.nan, 0.9]
    assert hold_gripper([left, right], 0.7).tolist() == [0.7, 0, 0, 1, 1, 1, 1, 0]
    assert hold_gripper([left, right], 0.7, closes_above=0.85, opens_below=0.15).tolist() == [0.7] * 7 + [0.0]
    both = hold_gripper(np.array([[left, right], [right, right]]), np.array([1.0, 0.0]))
    assert both[:, 0].tolist() == [1.0, 1.0], "each from its own"
    with pytest.raises(ContractError, match="not to cross"):
        hold_gripper([left], 0.0, closes_above=0.3, opens_below=0.6)
    with pytest.raises(ContractError, match="last command"):
        hold_gripper([left], np.nan)


def test_a_gripper_that_holds_something_goes_on_closing():
    made, cameras = reach(np.random.default_rng(18), opening=0.4), rig()
    tracks, grasp = made.tracks(cameras)[:, 1:], np.stack([np.ones(STEPS), np.zeros(STEPS)])
    start = replace(made.start, commanded=0.0)
    assert (tracks_to_poses(tracks, grasp, cameras, TWIN, start).opening == 0).all()
    assert (tracks_to_poses(tracks, grasp, cameras, TWIN, made.start).opening == 0.4).all()


def test_quaternions_do_not_jump():
    made, cameras = reach(np.random.default_rng(19), opening=1.0), rig()
    spin = Rotation.from_rotvec(np.linspace(0, 4, STEPS + 1)[:, None] * [0, 0, 1.0])
    turned = replace(
        made, quat=-(spin * Rotation.from_quat(made.quat[0], scalar_first=True)).as_quat(scalar_first=True)
    )
    motion = lifted(turned, cameras)
    all_of_them = np.concatenate([turned.quat[:1], motion.quat])
    assert ((all_of_them[1:] * all_of_them[:-1]).sum(-1) > 0.98).all()
    assert turned.errors(*pose_of(motion))[1].max() < 0.05, "and 229 degrees are no trouble"


def test_what_does_not_match_is_named():
    made, cameras = reach(np.random.default_rng(20)), rig()
    tracks = made.tracks(cameras)[:, 1:]
    with pytest.raises(ContractError, match=r"tracks are \(2, 16, 4, 2\); want \(..., 2, H, 5, 2\)"):
        lifted(made, cameras, tracks[:, :, :4])
    with pytest.raises(ContractError, match=r"tracks are \(0, 2, 16, 5, 2\)"):
        lifted(made, cameras, np.zeros((0, 2, STEPS, 5, 2)))
    with pytest.raises(ContractError, match="a row a camera"):
        lifted(made, [*cameras, looking(2.0)], tracks)
    with pytest.raises(ContractError, match=r"grasp is \(2, 15\); want \(2, 16\)"):
        tracks_to_poses(tracks, np.zeros((2, 15)), cameras, TWIN, made.start)
    with pytest.raises(ContractError, match=r"origin is \(5, 2\); want \(2, 5, 2\)"):
        lifted(made, cameras, tracks, origin=tracks[0, 0])
    with pytest.raises(ContractError, match="place in space wants two"):
        lifted(made, cameras[:1], tracks[:1])
    with pytest.raises(ContractError, match=r"opening is 1\.5"):
        Tool(np.zeros(3), np.array([1.0, 0, 0, 0]), 1.5)
    with pytest.raises(ContractError, match="quat is"):
        Tool(np.zeros(3), np.zeros(4), 0.5)
