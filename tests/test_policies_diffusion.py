from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.config import PRESETS, DiffusionConfig, preset
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import VPConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.policies.vision import VisionConfig, centre_crop, random_crop
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.testing import PolicyContract
from robopolicy.types import Observation

SMALL = DiffusionConfig(MlpConfig(width=32, depth=1), VisionConfig(width=16, keypoints=8, feature_dim=8))
CAMERAS = {"front": CameraSpec(48, 64), "wrist": CameraSpec(40, 40)}
STATE = {"pos": StateSpec(3, ("m",)), "angle": StateSpec(1, ("rad_wrapped",))}
SPEC = PolicySpec(
    state=STATE, action=ActionSpec("vector", ("x", "y"), ("px",)), n_obs=2, horizon=8, n_execute=4, rate_hz=10
)


def observation(rng: np.random.Generator) -> Observation:
    return Observation(
        0,
        {"pos": rng.random(3, dtype=np.float32), "angle": rng.random(1, dtype=np.float32)},
        {name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for name, c in CAMERAS.items()},
    )


def make(spec: PolicySpec = SPEC, config: DiffusionConfig = SMALL) -> DiffusionPolicy:
    torch.manual_seed(0)
    policy = DiffusionPolicy(spec, config).eval()
    rng = np.random.default_rng(0)
    state = {"pos": rng.random((50, 3), dtype=np.float32), "angle": rng.random((50, 1), dtype=np.float32)}
    policy.fit_normaliser(SimpleNamespace(state=state, action=rng.random((50, 2), dtype=np.float32) * 500))
    return policy


def plan(policy: DiffusionPolicy, **arguments):
    rng = np.random.default_rng(7)
    return policy.plan([observation(rng) for _ in range(policy.spec.n_obs)], **arguments)


class TestFromStates(PolicyContract):
    def make(self):
        return make()

    def generator(self, seed):
        return torch.Generator().manual_seed(seed)


class TestFromImages(PolicyContract):
    def make(self):
        return make(replace(SPEC, cameras=CAMERAS, state={}), replace(SMALL, solver=SolverConfig("ddpm", 4)))


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_plan_is_reproducible_and_its_rows_differ(solver):
    policy = make(config=replace(SMALL, solver=SolverConfig(solver, 8)))
    first = plan(policy, n=5, generator=torch.Generator().manual_seed(3))
    again = plan(policy, n=5, generator=torch.Generator().manual_seed(3))
    assert first.chunks.shape == (5, 8, 2)
    assert first.chunks.dtype == first.features.dtype == np.float32
    assert np.array_equal(first.chunks, again.chunks)
    assert len(np.unique(first.chunks.reshape(5, -1), axis=0)) == 5
    assert not np.array_equal(first.chunks, plan(policy, n=5, generator=torch.Generator().manual_seed(4)).chunks)


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
@pytest.mark.parametrize("generator", [lambda: torch.Generator().manual_seed(3), lambda: np.random.default_rng(3)])
def test_first_candidate_does_not_depend_on_how_many_are_drawn_all_episode_long(solver, generator):
    policy = make(config=replace(SMALL, solver=SolverConfig(solver, 8)))
    episodes = {}
    for n in (1, 6):
        drawn_from = generator()
        episodes[n] = np.stack([plan(policy, n=n, generator=drawn_from).chunks[0] for _ in range(3)])
    assert np.allclose(episodes[1], episodes[6], atol=1e-2)  # px; batches of other sizes round differently
    assert not np.allclose(episodes[1][0], episodes[1][1], atol=1), "each plan draws its own noise"


def test_plan_takes_a_numpy_generator():
    policy = make()
    a, b = (plan(policy, generator=np.random.default_rng(5)).chunks for _ in range(2))
    assert np.array_equal(a, b)


def test_chunks_stay_within_the_range_of_the_data():
    chunks = plan(make(), n=20, generator=torch.Generator().manual_seed(0)).chunks
    assert chunks.min() >= -1
    assert chunks.max() <= 501


@pytest.mark.parametrize(
    ("cameras", "state", "size"),
    [({}, STATE, 2 * 5), (CAMERAS, {}, 2 * 16), (CAMERAS, STATE, 2 * 21)],
    ids=["state", "images", "both"],
)
def test_works_from_states_images_or_both(cameras, state, size):
    policy = make(replace(SPEC, cameras=cameras, state=state))
    made = plan(policy, n=2)
    assert made.features.shape == (size,)
    assert made.chunks.shape == (2, 8, 2)
    assert np.isfinite(made.chunks).all()


def test_sees_every_observation_of_the_window():
    policy = make()
    rng = np.random.default_rng(1)
    old, new = observation(rng), observation(rng)
    draws = [
        policy.plan(window, generator=torch.Generator().manual_seed(0)).features
        for window in ([old, new], [new, new], [old, old])
    ]
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_plan_sees_the_centre_of_a_picture_and_leaves_the_mode_as_it_was():
    policy = make(replace(SPEC, cameras=CAMERAS)).eval()
    want = plan(policy).features
    policy.train()  # in which crops are random
    for _ in range(3):
        assert np.array_equal(plan(policy).features, want)
    assert policy.training


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_build_and_survive_json(name):
    config = preset(name)
    assert DiffusionConfig.from_json(config.to_json()) == config
    policy = DiffusionPolicy(SPEC, config)
    assert policy.net(torch.zeros(2, 8, 2), torch.zeros(2), torch.zeros(2, 2, 5)).shape == (2, 8, 2)


def test_base_unet_has_the_size_of_the_paper():
    net = PRESETS["unet"].net.build(16, 2, 2, 10)
    assert 60e6 < sum(p.numel() for p in net.parameters()) < 70e6


@pytest.mark.parametrize("net", [MlpConfig(width=16, depth=1), UnetConfig((8, 16), groups=4, step_dim=8)])
def test_networks_use_all_three_inputs(net):
    torch.manual_seed(0)
    built = net.build(8, 2, 1, 3)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, t, cond = torch.randn(2, 8, 2), torch.tensor([1.0, 50.0]), torch.randn(2, 1, 3)
    base = built(x, t, cond)
    for other in (built(x + 1, t, cond), built(x, t + 7, cond), built(x, t, cond + 1)):
        assert (other - base).abs().amax(dim=(1, 2)).min() > 1e-4


def test_random_crops_are_the_pictures_own_pixels_and_shared_over_time():
    frame = torch.arange(10 * 12).view(10, 12, 1).expand(10, 12, 3).to(torch.uint8)
    images = frame.expand(6, 2, 10, 12, 3)
    cut = random_crop(images, (7, 8), torch.Generator().manual_seed(0))
    assert cut.shape == (6, 2, 7, 8, 3)
    assert torch.equal(cut[:, 0], cut[:, 1])
    for sample in cut[:, 0, :, :, 0].int():
        top, left = divmod(int(sample[0, 0]), 12)
        assert torch.equal(sample, frame[top : top + 7, left : left + 8, 0].int())
    assert len(cut[:, 0, 0, 0, 0].unique()) > 1
    assert torch.equal(centre_crop(images, (6, 8)), images[:, :, 2:8, 2:10])


def test_encoder_keys_are_torchvision_resnet18():
    from robopolicy.policies.vision import ResNet18

    state = ResNet18().state_dict()
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer1.1.bn2.weight"].shape == (64,)
    assert state["layer3.0.downsample.0.weight"].shape == (256, 128, 1, 1)
    assert state["layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    assert len(state) == 60  # torchvision's 122 less running mean, variance and count of 20 norms, and fc


def test_both_modes_of_a_bimodal_distribution_appear():
    spec = PolicySpec(state={"s": StateSpec(1, ("1",))}, action=ActionSpec("vector", ("x",), ("1",)), horizon=4)
    torch.manual_seed(0)
    policy = DiffusionPolicy(spec, DiffusionConfig(MlpConfig(width=64, depth=2), process=VPConfig()))
    sides = torch.tensor([-3.0, 5.0]).repeat(128)[:, None, None]
    batch = {"state": {"s": torch.zeros(256, 1, 1)}, "action": sides + 0.1 * torch.randn(256, 4, 1)}
    policy.fit_normaliser(SimpleNamespace(state={"s": torch.rand(9, 1)}, action=batch["action"].flatten(0, 1)))
    optimizer = torch.optim.Adam(policy.parameters(), 2e-3)
    for _ in range(400):
        optimizer.zero_grad()
        policy.loss(batch).backward()
        optimizer.step()
    window = [Observation(0, {"s": np.zeros(1, np.float32)})]
    chunks = policy.plan(window, n=200, generator=torch.Generator().manual_seed(0)).chunks[..., 0]  # (200, 4)
    nearest = np.minimum(np.abs(chunks + 3), np.abs(chunks - 5))
    assert np.mean(nearest < 0.6) > 0.9
    assert 0.25 < np.mean(chunks.mean(axis=1) > 1) < 0.75


def test_image_policy_learns_what_only_the_picture_tells():
    spec = replace(SPEC, cameras={"front": CameraSpec(64, 64)}, state={}, n_obs=1)
    config = replace(SMALL, net=MlpConfig(width=64, depth=1), process=VPConfig(prediction="x0"))
    torch.manual_seed(0)
    policy = DiffusionPolicy(spec, config)
    corners = [(10, 10), (10, 40), (40, 10), (40, 40)]
    images = torch.zeros(4, 1, 64, 64, 3, dtype=torch.uint8)
    for i, (row, column) in enumerate(corners):
        images[i, 0, row : row + 14, column : column + 14] = 255
    goals = torch.tensor(corners, dtype=torch.float32)[:, None].expand(4, 8, 2) * 10
    batch = {"images": {"front": images.repeat(8, 1, 1, 1, 1)}, "action": goals.repeat(8, 1, 1)}
    policy.fit_normaliser(SimpleNamespace(state={}, action=goals.flatten(0, 1)))
    optimizer = torch.optim.Adam(policy.parameters(), 2e-3)
    policy.train()
    for _ in range(60):
        optimizer.zero_grad()
        policy.loss(batch).backward()
        optimizer.step()
    for image, goal in zip(images, goals, strict=True):
        window = [Observation(0, {}, {"front": image[0].numpy()})]
        assert np.abs(policy.plan(window).chunks[0] - goal.numpy()).max() < 40


def test_one_clear_line_for_each_misuse():
    with pytest.raises(ContractError, match="a window of 1 observations; want 2"):
        make().plan([observation(np.random.default_rng(0))])
    with pytest.raises(ContractError, match="never fitted"):
        plan(DiffusionPolicy(SPEC, SMALL))
    with pytest.raises(ContractError, match="neither a camera nor a state"):
        DiffusionPolicy(replace(SPEC, state={}), SMALL)
    with pytest.raises(ContractError, match="want pictures of at least 40x40"):
        DiffusionPolicy(replace(SPEC, cameras={"tiny": CameraSpec(32, 96)}), SMALL)
    with pytest.raises(ContractError, match="horizon 6 is not a multiple of 4"):
        DiffusionPolicy(replace(SPEC, horizon=6), PRESETS["unet-small"])
    with pytest.raises(UnknownName, match="no preset 'huge'; valid: consistency, edm, flow, mlp"):
        preset("huge")
    with pytest.raises(UnknownName, match="no net 'rnn'; valid: mlp, transformer, unet1d"):
        DiffusionConfig.from_json({**SMALL.to_json(), "net": {"kind": "rnn"}})
    with pytest.raises(ContractError, match="not a DiffusionConfig"):
        DiffusionConfig.from_json({"net": {"kind": "mlp", "depht": 3}})
