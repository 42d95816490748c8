"""Motion-track plans of many environments at once: each the plan alone, and in batches of one shape to the bit."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from robopolicy.errors import BehindCamera, TracksLost
from robopolicy.evaluation.batched import Batched
from robopolicy.evaluation.workers import ENOUGH
from robopolicy.geometry.keypoints import TWIN
from robopolicy.geometry.motion import Tool, tracks_to_poses
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.motion_track import MotionTrackPolicy
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.steady import is_steady
from robopolicy.policies.track_config import MotionTrackConfig, ViewsConfig
from robopolicy.policies.track_net import ROW, XY, TrackNet
from robopolicy.policies.track_views import Views
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation, PlanRequest

sys.path.insert(0, str(Path(__file__).parent))
from track_data import CAMERAS, DOWN, SIZE, SPEC, look

SMALL = MotionTrackConfig(
    net=MlpConfig(width=64, depth=2), vision=VisionConfig(width=16, feature_dim=16, shared=True, crop=1.0)
)
LENSES = {"none": (), "barrel": (-0.21, 0.07, 0.001, -0.002), "wide": (-0.32, 0.11, 0.0005, 0.0003, -0.01)}


def network(config=SMALL):
    """Whose every weight matters: those that start at zero do not stay there."""
    names = [f"{view}.{i}" for view in CAMERAS for i in range(XY)]
    spec = PolicySpec(
        cameras=SPEC.cameras,
        state={
            **{f"keypoints_{view}": StateSpec(XY, ("px",)) for view in CAMERAS},
            "grasp": StateSpec(1, ("closed",)), "embodiment": StateSpec(1, ("human",)),
        },
        action=ActionSpec("tracks", (*names, "grasp"), ("1",)), horizon=8, n_execute=4,
    )  # fmt: skip
    torch.manual_seed(0)
    net = TrackNet(spec, config).eval()
    for parameter in net.net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    shape = net.action.center.shape
    net.action.center.copy_(0.01 * torch.randn(shape))
    net.action.scale.copy_(0.02 + 0.02 * torch.rand(shape))
    net.action.limit.fill_(3.0)
    assert shape[-1] == ROW
    return net


def make(config=SMALL):
    spec = replace(SPEC, horizon=8, n_execute=4)
    return MotionTrackPolicy(network(config), spec, {v: c.to_json() for v, c in CAMERAS.items()}).eval()


@pytest.fixture(scope="module")
def policy():
    return make()


def request(who, n=2, at=None):
    rng = np.random.default_rng(who)
    position = np.array([0.45, 0.0, 0.1]) + rng.uniform(-0.06, 0.06, 3) if at is None else np.array(at)
    state = {"tool_pos": position, "tool_quat": DOWN + rng.normal(0, 0.05, 4), "gripper": rng.random(1)}
    images = {view: rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for view in CAMERAS}
    seen = Observation(0, {name: value.astype(np.float32) for name, value in state.items()}, images)
    return PlanRequest([seen], n, generator=np.random.default_rng(who))


CLOSE = partial(np.testing.assert_allclose, atol=1e-4)
EQUAL = np.testing.assert_array_equal


def assert_same(plan, want, close=CLOSE):
    assert plan.chunks.dtype == want.chunks.dtype == np.float32
    close(plan.chunks, want.chunks)
    close(plan.features, want.features)
    assert plan.aux.keys() == want.aux.keys() == {"view_gap", "misfit", "tracks", "features", "points"}
    for name, value in plan.aux.items():
        assert value.shape == want.aux[name].shape
        close(value / 100, want.aux[name] / 100)  # px


def test_many_plans_are_each_the_plan_alone_whatever_number_of_candidates(policy):
    counts = [2, 1, 3, 2, 1, 2, 3]
    plans = policy.plan_many([request(who, n) for who, n in enumerate(counts)])
    for who, n in enumerate(counts):
        assert plans[who].chunks.shape == (n, 8, 10)
        assert_same(plans[who], policy.plan_many([request(who, n)])[0])
    assert all(part.base is None for plan in plans for part in (plan.chunks, plan.features, *plan.aux.values()))
    first = [plan.chunks[0, -1, :3] for plan in plans]
    assert min(np.abs(a - b).max() for a in first for b in first if a is not b) > 1e-3, "each has its own"
    assert policy.plan_many([]) == []


@pytest.mark.parametrize("rows", [3, 4])
def test_in_batches_of_one_shape_a_plan_does_not_depend_on_who_else_asks(policy, rows):
    alone = {who: policy.plan_many([request(who)], rows=rows)[0] for who in range(7)}
    for asking in ([3, 1], [2, 4, 0], [6, 5, 4, 3, 2, 1, 0]):
        for who, plan in zip(asking, policy.plan_many([request(who) for who in asking], rows=rows), strict=True):
            assert_same(plan, alone[who], EQUAL)
    assert is_steady(policy, rows, 2)


def test_a_batch_is_one_pass_of_the_encoder_and_one_solve(policy, monkeypatch):
    looks, solves = [], []
    look_at, draw = policy.tracks.condition, policy.tracks.sample
    monkeypatch.setattr(policy.tracks, "condition", lambda *args: looks.append(1) or look_at(*args))
    monkeypatch.setattr(policy.tracks, "sample", lambda *args: solves.append(args[1].shape) or draw(*args))
    policy.plan_many([request(who) for who in range(3)], rows=4)
    assert (len(looks), solves) == (1, [(4, 2, 5, 2)])


LOST = {TracksLost: (0.45, 0.0, 1.2), BehindCamera: (3.0, 3.0, 0.1)}  # outside of both pictures; behind both cameras


@pytest.mark.parametrize("error", LOST)
def test_who_cannot_be_answered_is_alone_in_that(policy, error):
    """As an evaluation asks: the others' plans are, to the bit, those they get without it."""
    bad = {2: LOST[error]}
    with pytest.raises(error):
        policy.plan_many([request(who, at=bad.get(who)) for who in range(4)])

    class Once:
        def __init__(self, share):
            self.policy = share("policy", lambda: policy, 2)

        def prepare(self, who):
            pass

        def run(self, who):
            one = request(who, at=bad.get(who))
            try:
                return self.policy.plan(one.window, n=2, generator=one.generator)
            except error:
                return "lost"

        def close(self):
            pass

    told, waiting = {}, list(range(6))
    batched = Batched(Once, 4, 4)
    batched.serve(
        lambda wait: (waiting[0], waiting.pop(0)) if waiting else ENOUGH,
        lambda who, what, said: told.update({who: said} if what == "result" else {}),
    )
    batched.close()
    assert told.pop(2) == "lost"
    assert sorted(told) == [0, 1, 3, 4, 5]
    for who, plan in told.items():
        assert_same(plan, policy.plan_many([request(who)], rows=4)[0], EQUAL)


def test_a_policy_that_makes_nothing_of_made_up_pictures_is_not_called_steady(policy, monkeypatch):
    def lost(requests, *, rows=None):
        raise TracksLost("nothing")

    monkeypatch.setattr(policy, "plan_many", lost)
    assert not is_steady(policy, 4)


def test_planning_leaves_the_weights_as_they_are_and_trainable():
    policy = make()
    before = {name: value.clone() for name, value in policy.tracks.state_dict().items()}
    with torch.inference_mode():
        policy.plan_many([request(0)])
    assert all(torch.equal(value, before[name]) for name, value in policy.tracks.state_dict().items())
    assert not any(parameter.is_inference() for parameter in policy.tracks.parameters())


@pytest.mark.parametrize("step", ["delta", "offset"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("solver", [SolverConfig(steps=3), SolverConfig("ancestral", 3)])
def test_tracks_of_several_moments_are_those_of_each(step, share, solver):
    net = network(replace(SMALL, step=step, solver=solver, views=ViewsConfig(together=False, agreement=share)))
    views = Views(list(CAMERAS.values()), [SIZE] * 2)
    generator = torch.Generator().manual_seed(0)
    cond, now = (
        torch.randn((4, 2, 1, net.net.widths[2]), generator=generator),
        0.2 * torch.randn((4, 2, 5, 2), generator=generator),
    )
    noise = [net.draw_noise(3, torch.Generator().manual_seed(k)) for k in range(4)]
    with torch.inference_mode():
        together = net.sample(cond, now, torch.stack(noise, dim=-5), views)
        for k in range(4):
            for many, one in zip(together, net.sample(cond[k], now[k], noise[k], views), strict=True):
                assert torch.allclose(many[k], one, atol=1e-3, rtol=1e-3)
        alone = net.sample(cond[0, :1], now[0, :1], noise[0].narrow(-3, 0, 1), None)
        by_itself = net.sample(cond[0], now[0], noise[0], None)
    assert alone.apart.isnan().all()
    assert torch.allclose(alone.shares, by_itself.shares[:, :1], atol=1e-4), "one view by itself knows no other"
    assert together.shares.shape == (4, 3, 2, 8, 5, 2)
    assert (share == 0) == torch.allclose(together.shares[0], by_itself.shares, atol=1e-4)


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("count", [2, 3])
def test_views_meet_where_the_rays_of_the_cameras_come_nearest(lens, count):
    """Against least squares by numpy in double precision, of rays and pixels as `Camera` has them."""
    eyes = [(1.1, 0.0, 0.6), (0.45, 1.0, 0.5), (0.3, -0.9, 0.4)][:count]
    cameras = [look(eye, lens=LENSES[lens] if k else (), size=(96, 128)) for k, eye in enumerate(eyes)]
    rng = np.random.default_rng(0)
    points = np.array([0.45, 0.0, 0.1]) + rng.uniform(-0.25, 0.25, (300, 3))
    pixels = np.stack([camera.project(points) for camera in cameras]) + rng.normal(0, 2, (count, 300, 2))
    met, apart = Views(cameras, [(96, 128)] * count).agreed(shares_of(pixels, cameras))
    left, right = np.zeros((300, 3, 3)), np.zeros((300, 3))
    for camera, seen in zip(cameras, pixels, strict=True):
        ray = np.concatenate([camera.rays(seen), np.ones((300, 1))], axis=-1) @ camera.T_base_cam[:3, :3].T
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        across = np.eye(3) - ray[:, :, None] * ray[:, None, :]
        left, right = left + across, right + across @ camera.T_base_cam[:3, 3]
    nearest = np.linalg.solve(left, right[..., None])[..., 0]
    want = np.stack([camera.project(nearest) for camera in cameras])
    inside = np.all([camera.inside(seen) for camera, seen in zip(cameras, pixels, strict=True)], axis=0)
    assert inside.sum() > 100
    made = (met.numpy() + 1) / 2 * np.array([128, 96]) - 0.5
    assert np.abs(made - want)[:, inside].max() < 0.01
    assert np.abs(apart.numpy() - np.linalg.norm(want - pixels, axis=-1))[:, inside].max() < 0.01


def shares_of(pixels, cameras):
    sides = np.array([camera.size[::-1] for camera in cameras])[:, None]
    return torch.from_numpy((pixels + 0.5) / sides * 2 - 1).float()


def test_plans_that_start_in_several_places_are_lifted_as_each_alone():
    rng = np.random.default_rng(0)
    cameras = list(CAMERAS.values())
    position = np.array([0.45, 0.0, 0.1]) + rng.uniform(-0.05, 0.05, (3, 1, 3))
    quat, opening = DOWN + rng.normal(0, 0.1, (3, 1, 4)), rng.random((3, 1))
    quat /= np.linalg.norm(quat, axis=-1, keepdims=True)
    here = TWIN.placed(position, quat, opening)
    origin = np.stack([camera.project(here) for camera in cameras], axis=-3) + 3.0  # (3, 1, V, 5, 2)
    way = rng.normal(0, 0.5, (3, 2, 2, 8, 1, 2)).cumsum(-3)
    tracks, grasp = origin[:, :, :, None] + way, rng.random((3, 2, 2, 8))
    start = Tool(position, quat, opening, commanded=np.array([[0.0], [1.0], [1.0]]))
    every = np.broadcast_to(origin, (3, 2, 2, 5, 2))
    many = tracks_to_poses(tracks, grasp, cameras, TWIN, start, origin=every)
    for k in range(3):
        own = Tool(position[k, 0], quat[k, 0], float(opening[k, 0]), float(k > 0))
        one = tracks_to_poses(tracks[k], grasp[k], cameras, TWIN, own, origin=origin[k, 0])
        for name, part in vars(many[k]).items():
            np.testing.assert_allclose(part, getattr(one, name), rtol=1e-9, atol=1e-12, err_msg=name)
        assert one.told.min() == 8
