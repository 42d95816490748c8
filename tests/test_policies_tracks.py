"""Motion tracks: pixels and points move together, views agree, tracks are learnt and drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robopolicy.errors import ContractError, UnknownName
from robopolicy.geometry.cameras import Camera
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.track_augment import draw_moves
from robopolicy.policies.track_config import AlignConfig, MotionTrackConfig, TrackAugmentation, ViewsConfig
from robopolicy.policies.track_net import XY, TrackNet
from robopolicy.policies.track_views import Views
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec

LENS = (-0.21, 0.07, 0.001, -0.002)


def look(eye, target=(0.45, 0.0, 0.1), lens=(), size=(48, 64)):
    eye, target = np.array(eye), np.array(target)
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(ahead, right), ahead])
    pose[:3, 3] = eye
    height, width = size
    return Camera([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]], pose, lens, size)


CAMERAS = (look((1.1, 0.0, 0.6)), look((0.45, 1.0, 0.5), lens=LENS))


def make_spec(views=("front", "side"), horizon=8, size=(48, 64)):
    states = {f"keypoints_{view}": StateSpec(XY, ("px",)) for view in views}
    names = tuple(f"{view}.{i}" for view in views for i in range(XY))
    return PolicySpec(
        cameras={view: CameraSpec(*size) for view in views},
        state={**states, "grasp": StateSpec(1, ("closed",)), "embodiment": StateSpec(1, ("human",))},
        action=ActionSpec("tracks", (*names, "grasp"), ("1",)),
        horizon=horizon, n_execute=4,
    )  # fmt: skip


SMALL = MotionTrackConfig(
    net=MlpConfig(width=64, depth=2), vision=VisionConfig(width=16, feature_dim=16, shared=True, crop=1.0)
)


def test_a_dot_and_its_point_land_on_the_same_place():
    config = TrackAugmentation(shift=0.15, zoom=0.25, turn_deg=25, colour=0.3)
    rng = np.random.default_rng(0)
    height, width = 60, 90
    sizes = torch.tensor([[width, height], [width, height]], dtype=torch.float32)
    moved = draw_moves(config, (20, 2), sizes, torch.Generator().manual_seed(1))
    at = np.column_stack([rng.integers(35, 55, 40), rng.integers(22, 38, 40)])
    pictures = np.full((40, 1, height, width, 3), 20, np.uint8)
    for k, (x, y) in enumerate(at):
        pictures[k, 0, y - 1 : y + 2, x - 1 : x + 2] = 250
    made = moved.pictures(torch.from_numpy(pictures))[:, 0].float().numpy()
    shares = (torch.from_numpy(at).float()[:, None] + 0.5) / sizes[:1] * 2 - 1
    told = ((moved.points(shares)[:, 0] + 1) / 2 * sizes[:1] - 0.5).numpy()
    grey = made.sum(-1) - np.median(made.sum(-1), axis=(1, 2), keepdims=True)
    weight = np.where(grey > 60, grey, 0)
    assert (weight.sum((1, 2)) > 0).all()
    total = weight.sum((1, 2))
    seen = np.column_stack(
        [(weight * np.arange(width)).sum((1, 2)), (weight.transpose(0, 2, 1) * np.arange(height)).sum((1, 2))]
    )
    seen /= total[:, None]
    assert np.abs(seen - told).max() < 0.5
    assert np.abs(told - at).max() > 5, "or nothing was moved"


def test_nothing_moves_without_augmentation():
    none = TrackAugmentation(0, 0, 0, 0, 0)
    moved = draw_moves(none, (3, 1), torch.tensor([[64.0, 48.0]]), torch.Generator().manual_seed(1))
    pictures = torch.randint(0, 256, (3, 2, 48, 64, 3), dtype=torch.uint8)
    assert torch.equal(moved.pictures(pictures), pictures)
    points = torch.rand(3, 5, 2)
    assert torch.equal(moved.points(points), points)


def test_views_of_one_point_agree_and_others_meet_in_between():
    views = Views(CAMERAS, [(48, 64)] * 2)
    rng = np.random.default_rng(0)
    points = np.array([0.45, 0, 0.1]) + rng.uniform(-0.15, 0.15, (200, 3))
    pixels = np.stack([camera.project(points) for camera in CAMERAS])
    shares = views.shares(torch.from_numpy(pixels).float()[None])
    same, apart = views.agreed(shares)
    assert apart.max() < 1e-2
    assert torch.allclose(same, shares, atol=1e-4)
    off = shares + torch.tensor([0.0, 0.1])[:, None, None] * torch.tensor([0.0, 1.0])  # the second view, downwards
    met, apart = views.agreed(off)
    assert apart.min() > 0.3
    again, none = views.agreed(met)
    assert none.max() < 2e-2, "what was agreed on is seen alike"
    assert torch.allclose(again, met, atol=1e-3)


def test_points_behind_a_camera_are_left_and_told():
    views = Views(CAMERAS, [(48, 64)] * 2)
    apart_rays = torch.tensor([[[-0.9, 0.9]], [[0.9, -0.9]]])[None]
    crossed = torch.stack([apart_rays[0, 1], apart_rays[0, 0]])[None]
    told = [views.agreed(rays) for rays in (apart_rays, crossed)]
    for (met, apart), rays in zip(told, (apart_rays, crossed), strict=True):
        behind = torch.isinf(apart)
        assert torch.equal(met[behind], rays[behind])
        assert torch.isfinite(met).all()
    straight = Views([look((1.1, 0, 0.6)), look((-0.2, 0, 0.6), target=(-0.9, 0, 0.1))], [(48, 64)] * 2)
    met, apart = straight.agreed(torch.zeros(1, 2, 1, 2))
    assert torch.isinf(apart).all(), "they look away from each other"
    assert torch.equal(met, torch.zeros(1, 2, 1, 2))


def test_one_view_or_two_at_one_place_are_refused():
    with pytest.raises(ContractError, match="two at least"):
        Views(CAMERAS[:1], [(48, 64)])
    with pytest.raises(ContractError, match="same place"):
        Views([CAMERAS[0]] * 2, [(48, 64)] * 2)


def test_a_configuration_goes_round_and_refuses_what_makes_no_sense():
    config = MotionTrackConfig(step="offset", views=ViewsConfig(agreement=0.5), align=AlignConfig(kl=0.1))
    assert MotionTrackConfig.from_json(config.to_json()) == config
    with pytest.raises(UnknownName, match="step"):
        MotionTrackConfig(step="velocity")
    with pytest.raises(ContractError, match="not their points"):
        MotionTrackConfig(vision=VisionConfig())
    with pytest.raises(ContractError, match="lie on a line"):
        MotionTrackConfig(closed=tuple((0.0, 0.0, 0.1 * i) for i in range(5)))
    with pytest.raises(ContractError, match="not a MotionTrackConfig"):
        MotionTrackConfig.from_json({**config.to_json(), "more": 1})


def episodes(spec, count=32, seed=0):
    """Points that all go the way the picture's brightness says; seen by both views."""
    rng = np.random.default_rng(seed)
    start = np.array([0.45, 0, 0.1]) + rng.uniform(-0.08, 0.08, (count, 1, 3)) + rng.uniform(-0.04, 0.04, (1, 5, 3))
    way = np.where(np.arange(count) % 2, 0.01, -0.01)[:, None] * np.array([0.0, 1.0, 0.0])  # m a row
    rows = np.arange(spec.horizon + 1)[None, :, None, None]
    points = start[:, None] + rows * way[:, None, None]  # (B, H + 1, 5, 3)
    pixels = np.stack([camera.project(points) for camera in CAMERAS], axis=2)  # (B, H + 1, V, 5, 2)
    grasp = (np.arange(count) % 2).astype(np.float32)[:, None, None]
    action = np.concatenate([pixels[:, 1:].reshape(count, spec.horizon, -1), np.repeat(grasp, spec.horizon, 1)], -1)
    colour = np.where(np.arange(count) % 2, 200, 50)[:, None, None, None, None]
    human = np.arange(count) // 2 % 2
    pictures = np.broadcast_to(colour, (count, 1, 48, 64, 3)).astype(np.uint8)
    state = {f"keypoints_{v}": pixels[:, :1, k].reshape(count, 1, XY) for k, v in enumerate(spec.cameras)}
    state |= {"grasp": np.zeros((count, 1, 1)), "embodiment": human[:, None, None]}
    return {
        "state": {k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in state.items()},
        "images": {v: torch.from_numpy(pictures) for v in spec.cameras},
        "action": torch.from_numpy(action.astype(np.float32)),
    }


class Numbers:
    def __init__(self, batch):
        self.state = {k: v[:, 0].numpy() for k, v in batch["state"].items()}
        self.action = batch["action"][:, 0].numpy()


def trained(config, steps=160):
    torch.manual_seed(0)
    spec = make_spec()
    net, batch = TrackNet(spec, config), episodes(spec)
    if config.step == "delta":
        net.fit_normaliser(Numbers(batch))
    else:
        net.action.center.zero_()
        net.action.scale.fill_(0.2)
        net.action.limit.fill_(5.0)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = net.loss(batch, generator)
        loss.backward()
        optimizer.step()
    return net.eval(), batch


@pytest.mark.parametrize("step", ["delta", "offset"])
def test_tracks_are_learnt_and_drawn_for_both_views(step):
    config = MotionTrackConfig(
        net=SMALL.net, vision=SMALL.vision, step=step, augmentation=TrackAugmentation(0.02, 0.02, 1, 0.02, 0.002)
    )
    net, batch = trained(config)
    views = Views(CAMERAS, [(48, 64)] * 2)
    with torch.inference_mode():
        cond, now = net.condition(batch["state"], batch["images"])
        cond = cond.unflatten(0, (-1, 2))
        for k in range(6):
            noise = net.draw_noise(4, torch.Generator().manual_seed(k))
            drawn = net.sample(cond[k], now[k], noise, views)
            want = batch["action"][k, :, :-1].unflatten(-1, (2, 5, 2)).transpose(0, 1)  # (V, H, 5, 2) px
            found = views.pixels(drawn.shares.transpose(1, 2)).transpose(1, 2)
            went = (want[:, -1] - want[:, 0]).abs().amax()
            assert (found - want).abs().mean() < 0.25 * went
            assert ((drawn.grasp > 0.5) == bool(k % 2)).float().mean() > 0.9


def test_agreement_makes_views_say_the_same_and_none_leaves_each_alone():
    net, batch = trained(SMALL, steps=3)  # hardly trained: views contradict each other
    views = Views(CAMERAS, [(48, 64)] * 2)
    gaps = {}
    with torch.inference_mode():
        cond, now = net.condition(batch["state"], batch["images"])
        for share in (0.0, 1.0):
            object.__setattr__(net.config, "views", ViewsConfig(agreement=share))
            drawn = net.sample(cond[:2], now[0], net.draw_noise(8, torch.Generator().manual_seed(0)), views)
            gaps[share] = views.agreed(drawn.shares.transpose(1, 2))[1].median()
    assert gaps[1.0] < 0.05 * gaps[0.0]


def test_views_that_disagree_on_the_grasp_of_one_motion_are_heard():
    """By a mean one view would close the gripper alone: whether both say so is for who commands it."""
    net, batch = trained(SMALL, steps=3)
    views = Views(CAMERAS, [(48, 64)] * 2)
    with torch.inference_mode():
        cond, now = net.condition(batch["state"], batch["images"])
        drawn = net.sample(cond[:2], now[0], net.draw_noise(8, torch.Generator().manual_seed(0)), views)
        gap = views.agreed(drawn.shares.transpose(1, 2))[1].max()
    assert gap < 0.1, "px: on the motion they agree"
    assert (drawn.grasp[:, 0] - drawn.grasp[:, 1]).abs().median() > 1e-3


def test_views_share_their_noise_only_if_asked_to():
    spec = make_spec()
    for together in (True, False):
        net = TrackNet(spec, MotionTrackConfig(net=SMALL.net, vision=SMALL.vision, views=ViewsConfig(together)))
        noise = net.draw_noise(3, torch.Generator().manual_seed(0))
        assert noise.shape == (3, 2, 8, 11)
        assert torch.equal(noise[:, 0], noise[:, 1]) == together
        assert torch.equal(net.draw_noise(1, torch.Generator().manual_seed(0))[0], noise[0])


def test_it_is_told_the_same_when_it_plans_as_when_it_learns(monkeypatch):
    net, batch = trained(SMALL, steps=1)
    net.eval()  # nothing is moved
    learnt = []
    monkeypatch.setattr(net.process, "loss", lambda _, cond, *rest: learnt.append(cond) or torch.zeros(()))
    grasp = (torch.arange(len(batch["state"]["grasp"])) % 2).float()[:, None, None].expand_as(batch["state"]["grasp"])
    state = {**batch["state"], "grasp": grasp}
    with torch.inference_mode():
        net.loss({**batch, "state": state}, torch.Generator().manual_seed(0))
        told, _ = net.condition(state, batch["images"])
    torch.testing.assert_close(told, learnt[0], rtol=0, atol=0)
    assert torch.equal(told[..., -1], grasp[..., 0].repeat_interleave(2, dim=0)), "of each of two views"


def test_the_grasp_has_its_share_of_the_loss_however_many_points():
    spec = make_spec()
    losses = {}
    for share in (0.01, 0.99):
        torch.manual_seed(0)
        net = TrackNet(spec, MotionTrackConfig(net=SMALL.net, vision=SMALL.vision, grasp_weight=share))
        batch = episodes(spec)
        net.fit_normaliser(Numbers(batch))
        net.eval()
        losses[share] = []
        for off in (0.0, 3.0):
            moved = {**batch, "action": batch["action"] + torch.tensor([0.0] * 20 + [off])}
            losses[share].append(net.loss(moved, torch.Generator().manual_seed(0)).item())
    assert losses[0.99][1] > 3 * losses[0.99][0], "a wrong grasp"
    assert losses[0.01][1] < 2 * losses[0.01][0]


def test_points_are_told_with_noise_and_learnt_without_and_views_share_theirs(monkeypatch):
    seen = {}
    for name, augmentation in {
        "none": TrackAugmentation(0, 0, 0, 0, 0),
        "jitter": TrackAugmentation(0, 0, 0, 0, 0.05),
        "shift": TrackAugmentation(0.2, 0, 0, 0, 0),
    }.items():
        torch.manual_seed(0)
        net = TrackNet(make_spec(), replace(SMALL, augmentation=augmentation))
        batch = episodes(make_spec())
        net.fit_normaliser(Numbers(batch))

        def loss(_, cond, x0, eps, *rest):
            return seen.setdefault(name, (cond[..., -11:-1], x0, eps))[1].sum()  # noqa: B023  # called at once

        monkeypatch.setattr(net.process, "loss", loss)
        net.train().loss(batch, torch.Generator().manual_seed(0))
    told, rows, eps = seen["none"]
    noise = (seen["jitter"][0] - told).flatten()
    assert noise.std().item() == pytest.approx(2 * 0.05, rel=0.15), "shares of a side that is 2 long"
    assert torch.equal(seen["jitter"][1], rows), "the way on is from where the points are"
    moved = seen["shift"][0] - told
    assert moved.abs().max() > 0.1
    assert torch.allclose(moved[..., ::2], moved[..., :1], atol=1e-5), "all points of a picture go the same way"
    assert torch.allclose(seen["shift"][1], rows, atol=1e-3), "and so do those ahead"
    assert torch.equal(eps[::2], eps[1::2]), "both views of a sample under one noise"


def divergence(features, human):
    gap = features[human].mean(0) - features[~human].mean(0)
    return (gap.norm() / features[human].std(0).norm()).item()


def test_what_is_seen_at_the_points_goes_where_they_go():
    """A block beside the points looks the same from there wherever both are in the picture; another place does not."""
    torch.manual_seed(0)
    spec = make_spec(size=(96, 128))
    vision = VisionConfig(width=16, feature_dim=16, shared=True, crop=1.0, stages=2)
    net = TrackNet(spec, MotionTrackConfig(net=SMALL.net, vision=vision)).eval()

    def seen(block, points):
        picture = np.full((96, 128, 3), 90, np.uint8)
        picture[block[1] : block[1] + 6, block[0] : block[0] + 6] = [220, 30, 30]
        pixels = torch.tensor(np.array(points, np.float32) + np.arange(5)[:, None] * [2, 1]).float().view(1, 1, XY)
        state = {"keypoints_front": pixels, "keypoints_side": pixels} | {
            name: torch.zeros(1, 1, 1) for name in ("grasp", "embodiment")
        }
        images = dict.fromkeys(spec.cameras, torch.from_numpy(picture)[None, None])
        with torch.inference_mode():
            return net.condition(state, images)[0][0, 0, 16:32]  # of the front view, at the points

    here, there, elsewhere = seen((48, 40), (54, 44)), seen((64, 48), (70, 52)), seen((48, 40), (70, 52))
    assert (here - there).abs().max() < 0.1 * (here - elsewhere).abs().max()
    blind = TrackNet(spec, MotionTrackConfig(net=SMALL.net, vision=vision, at_points=False))
    assert sum(p.numel() for p in blind.parameters()) < sum(p.numel() for p in net.parameters())


def test_alignment_pulls_the_features_of_both_embodiments_together():
    torch.manual_seed(0)
    net = TrackNet(
        make_spec(), MotionTrackConfig(net=SMALL.net, vision=SMALL.vision, align=AlignConfig(kl=1.0))
    ).train()
    generator = torch.Generator().manual_seed(0)
    human = torch.arange(64) % 2 == 1
    wide = net.domain[0].in_features
    features = torch.randn((64, 1, wide), generator=generator) + human[:, None, None] * 3.0
    features.requires_grad_()
    before = divergence(features[:, 0].detach(), human)
    for _ in range(30):
        (step,) = torch.autograd.grad(net._alignment(features, human.float()), features)
        features = (features - 20 * step).detach().requires_grad_()
    assert divergence(features[:, 0].detach(), human) < 0.5 * before
    assert net.eval()._alignment(features, human.float()) == 0, "a term of training alone"


def test_a_classifier_of_the_embodiment_is_learnt_and_its_gradient_reversed():
    torch.manual_seed(0)
    net = TrackNet(make_spec(), MotionTrackConfig(net=SMALL.net, vision=SMALL.vision, align=AlignConfig(domain=1.0)))
    net.train()
    human = torch.arange(64) % 2 == 1
    features = (torch.randn(64, 1, net.domain[0].in_features) + human[:, None, None]).requires_grad_()
    loss = net._alignment(features, human.float())
    loss.backward()
    said = torch.nn.functional.binary_cross_entropy_with_logits(net.domain(features[:, -1])[:, 0], human.float())
    (straight,) = torch.autograd.grad(said, features)
    assert torch.allclose(features.grad, -straight), "features are to confuse it"
    (own,) = torch.autograd.grad(said.new_zeros(()) + torch.nn.functional.binary_cross_entropy_with_logits(
        net.domain(features[:, -1])[:, 0], human.float()), net.domain[0].weight)  # fmt: skip
    assert torch.allclose(net.domain[0].weight.grad, own), "and it is to tell them apart"


def test_another_spec_is_refused():
    spec = make_spec()
    with pytest.raises(ContractError, match="keypoints_front"):
        TrackNet(PolicySpec(cameras=spec.cameras), SMALL)
