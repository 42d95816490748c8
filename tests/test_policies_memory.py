import copy
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.agents import Chunked
from robopolicy.cli.train import train as train_command
from robopolicy.errors import ContractError
from robopolicy.policies.config import DiffusionConfig, SelectorConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.vision import CameraEncoder, VisionConfig
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.training.checkpoint import load_policy, read_train
from robopolicy.training.config import TrainConfig
from robopolicy.training.features import embed, embedded, take_encoder, with_encoder
from robopolicy.training.trainer import train
from robopolicy.types import Observation
from robopolicy_data.arrays import Arrays
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import WindowSampler
from robopolicy_data.writer import DatasetWriter

sys.path.insert(0, str(Path(__file__).parent))
import recordings
from patrol_world import PatrolWorld, demonstrate

SPEC = PolicySpec(
    cameras={"front": CameraSpec(40, 48), "wrist": CameraSpec(40, 40)},
    state={"pos": StateSpec(1, ("m",))},
    action=ActionSpec("vector", ("x", "y"), ("m",)),
    rate_hz=10.0, n_obs=4, horizon=4, n_execute=1,
)  # fmt: skip
SMALL = DiffusionConfig(
    MlpConfig(width=16, depth=1), VisionConfig(width=16, keypoints=4, feature_dim=4), solver=SolverConfig(steps=2)
)


def make(spec=SPEC, config=SMALL, seed=0):
    torch.manual_seed(seed)
    policy = DiffusionPolicy(spec, config).eval()
    rng = np.random.default_rng(0)
    data = SimpleNamespace(state={"pos": rng.random((9, 1), np.float32)}, action=rng.random((9, 2), np.float32))
    policy.fit_normaliser(data)
    return policy


def observe(i, seed=0, slow_wrist=False):
    """Step i of an episode; a slow wrist camera takes a picture every other step."""
    shown = {"front": i, "wrist": i // 2 * 2 if slow_wrist else i}
    images = {
        name: np.random.default_rng([seed, k, ord(name[0])]).integers(0, 256, SPEC.cameras[name].shape, np.uint8)
        for name, k in shown.items()
    }
    stamps_ns = {name: 10**8 * k for name, k in shown.items()}
    return Observation(10**8 * i, {"pos": np.float32([0.1 * i])}, images, stamps_ns)


class Counts(list):
    """How many frames each call encoded, and whether it was one of a training step."""

    def __init__(self):
        super().__init__()
        self.training = []

    def clear(self):
        super().clear()
        self.training.clear()


@pytest.fixture
def encoded(monkeypatch):
    """How many frames each call of a camera's encoder was given."""
    counts = Counts()
    forward = CameraEncoder.forward

    def counting(self, images, generator=None):
        counts.append(images.shape[0] * images.shape[1])
        counts.training.append(torch.is_grad_enabled())
        return forward(self, images, generator)

    monkeypatch.setattr(CameraEncoder, "forward", counting)
    return counts


def anew(policy, window):
    """What a policy without a memory would say of a window."""
    state = {"pos": torch.from_numpy(np.stack([o.state["pos"] for o in window]))[None]}
    images = {c: torch.from_numpy(np.stack([o.images[c] for o in window]))[None] for c in policy.spec.cameras}
    with torch.inference_mode():
        return policy.encode({"state": state, "images": images})[0].flatten().numpy()


def test_only_the_newest_frame_is_encoded_and_the_features_are_as_if_all_were(encoded):
    policy = make()
    agent = Chunked(policy, generator=np.random.default_rng)
    agent.reset(0)
    features = []
    for i in range(8):
        agent.act(observe(i))
        features.append(agent.decision.embedding)
    assert encoded == [1, 1] * 8, "of each of two cameras one frame a step, at the start too"
    for i in range(8):
        window = [observe(max(i - j, 0)) for j in (3, 2, 1, 0)]
        assert np.allclose(features[i], anew(policy, window), atol=1e-5)
    assert not np.allclose(features[3], features[4], atol=1e-2)


def test_a_slow_camera_is_encoded_as_often_as_it_takes_pictures(encoded):
    policy = make()
    agent = Chunked(policy, generator=np.random.default_rng)
    agent.reset(0)
    for i in range(6):
        agent.act(observe(i, slow_wrist=True))
    assert sum(encoded) == 6 + 3


def test_pictures_are_told_apart_whatever_their_stamps():
    policy = make()
    for seed in (1, 2):  # two episodes, both from 0 s on, and nobody says reset
        window = [observe(i, seed) for i in range(4)]
        assert np.allclose(policy.plan(window).features, anew(policy, window), atol=1e-5)
    same_stamp = [replace(observe(i), stamp_ns=0, image_stamps_ns={}) for i in range(4)]
    assert np.allclose(policy.plan(same_stamp).features, anew(policy, same_stamp), atol=1e-5)


def test_it_is_forgotten_when_the_weights_change_and_at_a_reset(encoded):
    policy, window = make(), [observe(i) for i in range(4)]
    policy.plan(window)
    assert sum(encoded) == 8
    policy.plan(window)
    assert sum(encoded) == 8
    other = make(seed=1)
    for change in (
        lambda: policy.load_state_dict(other.state_dict()),
        lambda: next(policy.encoder.cameras.parameters()).data.mul_(1.5),
        policy.reset,
    ):
        change()
        if change is not policy.reset:
            policy.train()
            policy.eval()
        encoded.clear()
        made = policy.plan(window).features
        assert sum(encoded) == 8
        assert np.allclose(made, anew(policy, window), atol=1e-5)


def test_an_optimisers_step_is_noticed_without_being_told():
    policy, window = make(), [observe(i) for i in range(4)]
    before = policy.plan(window).features
    with torch.no_grad():
        for parameter in policy.encoder.cameras.parameters():
            parameter.add_(0.1)
    after = policy.plan(window).features
    assert not np.allclose(before, after, atol=1e-2)
    assert np.allclose(after, anew(policy, window), atol=1e-5)


def test_copies_start_with_nothing(encoded):
    policy, window = make(), [observe(i) for i in range(4)]
    want = policy.plan(window).features
    for made in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        encoded.clear()
        assert np.array_equal(made.plan(window).features, want)
        assert sum(encoded) == 8


def arrays(episodes=3, length=7, slow=False):
    rng = np.random.default_rng(1)
    rows = episodes * length
    frames = {"front": rows, "wrist": rows // 2 + 1 if slow else rows}
    images = {c: rng.integers(0, 256, (n, *SPEC.cameras[c].shape), np.uint8) for c, n in frames.items()}
    seen = {"front": np.arange(rows), "wrist": np.arange(rows) // 2 if slow else np.arange(rows)}
    state = {"pos": rng.random((rows, 1), np.float32)}
    return Arrays(state, rng.random((rows, 2), np.float32), images, length * np.arange(1, episodes + 1), seen)


def second_stage(source, seed=7, **changes):
    policy = make(SPEC, replace(with_encoder(replace(SMALL, past=3, **changes), source)), seed)
    take_encoder(policy, source)
    return policy


def test_a_frozen_encoder_embeds_every_frame_once_as_at_run_time(encoded):
    source = make(replace(SPEC, n_obs=2), seed=5)
    policy, data = second_stage(source), arrays(slow=True)
    blocks = (data.images["front"][i : i + 5] for i in range(0, 21, 5))
    features = embed(policy.encoder, "front", blocks)
    assert sum(encoded) == 21
    assert features.shape == (21, 4)
    assert features.dtype == np.float32
    whole = embedded(data, policy.encoder)
    assert whole.images == {}
    assert np.allclose(whole.features["front"], features, atol=1e-6)
    window = WindowSampler(data, 4, 4).batch(np.array([9]))
    want = source.encoder.see("wrist", torch.from_numpy(window["images"]["wrist"])).detach().numpy()[0]
    rows = WindowSampler(data, 4, 4).obs_rows[9]
    assert np.allclose(whole.features["wrist"][data.seen["wrist"][rows]], want, atol=1e-5)


@pytest.mark.parametrize("slow", [False, True])
def test_training_on_features_is_training_on_pictures(tmp_path, encoded, slow):
    source, data = make(replace(SPEC, n_obs=2), seed=5), arrays(slow=slow)
    config = TrainConfig(steps=4, batch_size=8, seed=3, precision="float32")
    made = []
    for k, some in enumerate((data, embedded(data, source.encoder))):
        encoded.clear()
        policy = train(second_stage(source), WindowSampler(some, 4, 4, past=3), tmp_path / str(k), config)
        assert any(encoded.training) == (k == 0)
        for name in ("front", "wrist"):
            at = policy.encoder.camera_names.index(name)
            assert_same(policy.encoder.cameras[at], source.encoder.cameras[at])
        made.append(torch.cat([parameter.flatten() for parameter in policy.net.parameters()]))
    untrained = torch.cat([parameter.flatten() for parameter in second_stage(source).net.parameters()])
    assert (made[0] - untrained).norm() > 100 * (made[0] - made[1]).norm()


def assert_same(a, b):
    for left, right in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_checkpoint_of_the_second_stage_needs_no_other(tmp_path):
    source, data = make(replace(SPEC, n_obs=2), seed=5), arrays()
    policy = second_stage(source, selector=SelectorConfig("past", 3))
    sampler = WindowSampler(embedded(data, policy.encoder), 4, 4, past=3)
    made = train(policy, sampler, tmp_path, TrainConfig(steps=2, batch_size=8))
    loaded = load_policy(tmp_path)
    window = [observe(i) for i in range(4)]
    plans = [p.plan(window, generator=np.random.default_rng(0)) for p in (made, loaded)]
    assert np.array_equal(plans[0].chunks, plans[1].chunks)
    front = replace(SPEC, n_obs=2, cameras={"front": SPEC.cameras["front"]})
    again = make(front, with_encoder(SMALL, loaded), seed=9)
    take_encoder(again, loaded)  # it can give its encoder in turn
    assert_same(again.encoder.cameras[0], source.encoder.cameras[0])


def test_a_second_stage_resumes(tmp_path):
    source, data = make(replace(SPEC, n_obs=2), seed=5), arrays()
    sampler = WindowSampler(embedded(data, source.encoder), 4, 4, past=3)
    config = TrainConfig(steps=4, batch_size=8, precision="float32")
    whole = train(second_stage(source), sampler, tmp_path / "whole", config)
    train(second_stage(source), sampler, tmp_path / "parts", replace(config, steps=2, lr=None))
    resumed = train(second_stage(source, seed=8), sampler, tmp_path / "parts", config, resume=True)
    assert resumed.config == whole.config
    assert_same(resumed.encoder.cameras, whole.encoder.cameras)


TINY = {"net.width": 16, "net.depth": 1, "solver.steps": 2}
VISION = {"vision.width": 16, "vision.keypoints": 4, "vision.feature_dim": 4}


def test_from_recordings_in_two_stages(tmp_path, encoded):
    seeing = replace(recordings.SPEC, cameras=SPEC.cameras)
    steps = [recordings.make_steps(seed, spec=seeing) for seed in (0, 1)]
    with DatasetWriter(tmp_path / "d.zarr", seeing, lossless=True) as writer:
        for some in steps:
            episode = writer.begin(recordings.META)
            for step in some:
                episode.add(step)
            episode.commit()
    what = {"cameras": ("front", "wrist"), "horizon": 4, "n_execute": 1}
    settings = {"steps": 2, "batch_size": 5, "device": "cpu", "num_threads": 1}
    train_command(
        tmp_path / "d.zarr", tmp_path / "short", policy={**TINY, **VISION}, n_obs=2, settings=settings, **what
    )
    encoded.clear()
    changes = {**TINY, "past": 5, "selector.name": "past", "selector.samples": 3}
    long = tmp_path / "long"
    train_command(
        tmp_path / "d.zarr", long, policy=changes, encoder=tmp_path / "short", settings=settings, **what
    )  # fmt: skip
    frames = sum(e.frame_count(camera) for e in Dataset(tmp_path / "d.zarr") for camera in SPEC.cameras)
    assert sum(encoded[:2]) == frames, "each picture of both cameras once, in a block each"
    made = load_policy(long)
    assert (made.spec.n_obs, made.config.past, made.config.vision.width) == (6, 5, 16)
    assert_same(made.encoder.cameras, load_policy(tmp_path / "short").encoder.cameras)
    shutil.rmtree(tmp_path / "short")
    train_command(tmp_path / "d.zarr", long, resume=True, settings={**settings, "steps": 4})
    assert read_train(long)["steps"] == 4
    assert_same(load_policy(long).encoder.cameras, made.encoder.cameras)


def patrol(sides, seed=3):
    """Drive to the stations in this order; return the world at home again."""
    world = PatrolWorld(None)
    world.reset(seed)
    for side in sides:
        for x in (0.35, 0.7, 1.0, 0.7, 0.35, 0.0, 0.0):
            world.see()
            world.command(np.float32([side * x]))
    return world


def test_the_memory_task_shows_at_home_nothing_of_the_way_it_came():
    left, right = patrol([-1]), patrol([1])
    assert np.array_equal(left.see(), right.see())
    assert (left.visits, right.visits) == ([-1], [1])
    assert patrol([-1, 1] * 4).success()
    again = patrol([-1, 1, 1, -1, 1, -1, 1, -1, 1])
    assert not again.success()
    assert again.in_turns() == 2
    seen, done, world = demonstrate(5)
    assert seen.shape == (len(done), 16)
    assert world.in_turns() == 5


def test_windows_of_another_past_are_refused(tmp_path):
    source = make(replace(SPEC, n_obs=2), seed=5)
    sampler = WindowSampler(embedded(arrays(), source.encoder), 4, 4, past=2)
    with pytest.raises(ContractError, match=r"\(4, 2, 4, 2\), the policy has \(4, 3, 4, 2\)"):
        train(second_stage(source), sampler, tmp_path, TrainConfig(steps=1))


def test_an_encoder_that_does_not_fit_is_refused():
    source = make(replace(SPEC, n_obs=2, cameras={"front": SPEC.cameras["front"]}))
    frozen = with_encoder(SMALL, source)
    with pytest.raises(ContractError, match=r"not trained on camera 'wrist'; it knows \['front'\]"):
        take_encoder(make(SPEC, frozen), source)
    bigger = replace(SPEC, cameras={"front": CameraSpec(64, 64)})
    with pytest.raises(ContractError, match=r"trained on \(40, 48, 3\) of camera 'front', the data have \(64, 64, 3\)"):
        take_encoder(make(bigger, frozen), source)
    with pytest.raises(ContractError, match="sees no camera"):
        take_encoder(make(replace(SPEC, cameras={}), frozen), source)
    with pytest.raises(ContractError, match="want its own, frozen"):
        take_encoder(make(replace(SPEC, cameras=source.spec.cameras), SMALL), source)
