import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robopolicy.errors import ContractError
from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.encoder import ObservationEncoder
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.vision import CameraEncoder, ResNet18, SpatialSoftmax, VisionConfig, centre_crop, random_crop
from robopolicy.policies.weights import IMAGENET_MEAN, IMAGENET_STD, take_resnet18
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec

TINY = VisionConfig(width=16, keypoints=4, feature_dim=5)
TWO = PolicySpec(
    cameras={"front": CameraSpec(48, 64), "wrist": CameraSpec(40, 40)},
    action=ActionSpec("vector", ("x", "y"), ("px",)),
    n_obs=2,
    horizon=8,
    n_execute=4,
)


def torchvision_keys() -> list[str]:
    """The names in torchvision's resnet18 state dicts, 122 of them."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    keys = ["conv1.weight", *(f"bn1.{part}" for part in norm)]
    for layer in range(1, 5):
        for block in range(2):
            at = f"layer{layer}.{block}"
            for i in (1, 2):
                keys += [f"{at}.conv{i}.weight", *(f"{at}.bn{i}.{part}" for part in norm)]
            if layer > 1 and block == 0:
                keys += [f"{at}.downsample.0.weight", *(f"{at}.downsample.1.{part}" for part in norm)]
    return [*keys, "fc.weight", "fc.bias"]


def imagenet_like(width: int = 64, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of random numbers in the shapes of torchvision's resnet18."""
    draw = torch.Generator().manual_seed(seed)
    own = ResNet18(width).state_dict()
    state = {}
    for key in torchvision_keys():
        if key in own:
            state[key] = 0.05 * torch.randn(own[key].shape, generator=draw) + (1.0 if ".bn" in key else 0.0)
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(100)
        elif key.startswith("fc"):
            state[key] = torch.zeros((1000, 8 * width) if key == "fc.weight" else 1000)
        else:
            state[key] = torch.ones(own[key.rsplit(".", 1)[0] + ".weight"].shape)
    return state


def pictures(batch=3, frames=2, height=48, width=64) -> torch.Tensor:
    draw = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (batch, frames, height, width, 3), generator=draw, dtype=torch.uint8)


def test_keys_are_torchvisions():
    keys = torchvision_keys()
    assert len(keys) == 122
    mine = [key for key in keys if "running" not in key and "num_batches" not in key and key[:2] != "fc"]
    assert len(mine) == 60
    assert list(ResNet18().state_dict()) == mine
    assert sum(p.numel() for p in ResNet18().parameters()) == 11_689_512 - 513_000  # torchvision's, less its classifier


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("shared", [False, True])
def test_weights_of_a_file_go_into_every_camera(tmp_path, suffix, shared):
    state = imagenet_like()
    path = tmp_path / f"resnet18.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    encoder = ObservationEncoder(TWO, VisionConfig(keypoints=4, feature_dim=5, shared=shared))
    taken = take_resnet18(encoder, path)
    assert (taken.used, len(taken.unused)) == (60, 62)
    assert str(taken) == "60 tensors taken; not used: 60 batch statistics, 2 of the classifier"
    for name in TWO.cameras:
        loaded = encoder.camera(name).net.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in loaded)


def test_fewer_stages_leave_a_finer_map_and_take_what_they_have_of_a_file(tmp_path):
    save_file(imagenet_like(), tmp_path / "w.safetensors")
    for stages, side, channels in ((1, 4, 64), (2, 8, 128), (3, 16, 256), (4, 32, 512)):
        encoder = ObservationEncoder(TWO, VisionConfig(keypoints=4, feature_dim=5, stages=stages, crop=1.0))
        camera = encoder.camera("front")
        assert camera.maps(pictures(height=96, width=128)).shape == (3, 2, channels, 96 // side, 128 // side)
        assert camera(pictures(height=96, width=128)).shape == (3, 2, 5)
        taken = take_resnet18(encoder, tmp_path / "w.safetensors")
        assert str(taken).endswith("of the stages that the encoder leaves out") == (stages < 4)
        assert taken.used == 3 + sum(len(camera.net.get_submodule(f"layer{k + 1}").state_dict()) for k in range(stages))
    for wrong in (0, 5):
        with pytest.raises(ContractError, match="stages"):
            VisionConfig(stages=wrong)


def test_loaded_encoder_scales_pixels_as_imagenet(tmp_path):
    save_file(imagenet_like(), tmp_path / "w.safetensors")
    encoder = ObservationEncoder(replace(TWO, cameras={"front": CameraSpec(48, 64)}), VisionConfig()).eval()
    seen = []
    camera = encoder.camera("front")
    camera.net.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    images = pictures()
    encoder.see("front", images)
    take_resnet18(encoder, tmp_path / "w.safetensors")
    encoder.see("front", images)
    cut = centre_crop(images, (42, 56)).flatten(0, 1).permute(0, 3, 1, 2) / 255
    assert torch.allclose(seen[0], cut * 2 - 1, atol=1e-5)
    want = (cut - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    assert torch.allclose(seen[1], want, atol=1e-5)
    assert {"cameras.0.mean", "cameras.0.std"} <= set(encoder.state_dict()), "a checkpoint needs them"


def test_a_wrong_weights_file_is_one_line(tmp_path):
    encoder = ObservationEncoder(TWO, VisionConfig(keypoints=4, feature_dim=5))
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    path = tmp_path / "w.pth"

    def refused(state, match, suffix="pth"):
        path = tmp_path / f"w.{suffix}"
        if isinstance(state, bytes):
            path.write_bytes(state)
        else:
            torch.save(state, path)
        with pytest.raises(ContractError, match=match) as error:
            take_resnet18(encoder, path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300

    with pytest.raises(ContractError, match="there is no such file"):
        take_resnet18(encoder, path)
    refused(imagenet_like(width=32), r"conv1.weight is \(32, 3, 7, 7\), the encoder's is \(64, 3, 7, 7\)")
    refused({k: v for k, v in imagenet_like().items() if k != "layer2.0.bn1.bias"}, "it lacks layer2.0.bn1.bias")
    refused(imagenet_like() | {"layer1.0.conv3.weight": torch.zeros(1)}, "it also has layer1.0.conv3.weight")
    refused({"epoch": 3}, "not a state dict")
    refused([torch.zeros(1)], "not a state dict")
    refused(b"garbage", "neither safetensors nor a state dict")
    refused(b"garbage", "neither safetensors nor a state dict", "safetensors")
    refused({"net": ResNet18(16)}, "neither safetensors nor a state dict")  # a pickled module is code
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    refused(path.read_bytes(), "neither safetensors nor a state dict")
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    blind = ObservationEncoder(replace(TWO, cameras={}), VisionConfig())
    with pytest.raises(ContractError, match="sees no camera"):
        take_resnet18(blind, path)


def test_a_shared_encoder_has_one_set_of_weights_for_cameras_of_any_size():
    apart, together = (ObservationEncoder(TWO, replace(TINY, shared=shared)).eval() for shared in (False, True))
    assert apart.token_dim == together.token_dim == 10
    count = [sum(p.numel() for p in encoder.parameters()) for encoder in (apart, together)]
    assert count[0] == 2 * count[1]
    images = {"front": pictures(), "wrist": pictures(height=40, width=40)}
    tokens = together({}, images)
    assert tokens.shape == (3, 2, 10)
    assert torch.equal(tokens[..., 5:], together.see("wrist", images["wrist"]))
    assert torch.equal(together.see("front", images["wrist"]), together.see("wrist", images["wrist"]))
    assert not torch.equal(apart.see("front", images["wrist"]), apart.see("wrist", images["wrist"]))


def test_a_shared_policy_survives_json_and_learns():
    config = DiffusionConfig(MlpConfig(width=16, depth=1), replace(TINY, shared=True))
    assert DiffusionConfig.from_json(config.to_json()) == config
    torch.manual_seed(0)
    policy = DiffusionPolicy(TWO, config)
    policy.action.fit(torch.rand(50, 2))
    batch = {"images": {"front": pictures(), "wrist": pictures(height=40, width=40)}, "action": torch.rand(3, 8, 2)}
    policy.loss(batch, torch.Generator().manual_seed(0)).backward()
    assert policy.encoder.camera("front").net.conv1.weight.grad.abs().max() > 0


def test_depth_is_refused_by_name():
    depth = replace(TWO, cameras={"front": CameraSpec(48, 64), "range": CameraSpec(48, 64, "depth")})
    with pytest.raises(ContractError, match="camera 'range' is a depth map; policies see colour"):
        DiffusionPolicy(depth, PRESETS["mlp"])


def test_a_picture_too_small_is_refused_by_name():
    with pytest.raises(ContractError, match="28x84 px of camera 'tiny' shrinks to one row"):
        DiffusionPolicy(replace(TWO, cameras={"tiny": CameraSpec(32, 96)}), PRESETS["mlp"])


class TestCrop:
    def test_every_place_comes_up_and_is_shared_over_time_not_over_samples(self):
        rows, columns = np.indices((9, 10))
        frame = torch.from_numpy(np.stack([rows, columns, rows * 10 + columns], axis=-1).astype(np.uint8))
        images = frame.expand(400, 2, 9, 10, 3)
        cut = random_crop(images, (7, 7), torch.Generator().manual_seed(0))
        assert cut.dtype == torch.uint8
        assert torch.equal(cut[:, 0], cut[:, 1])
        corners = {(int(r), int(c)) for r, c in cut[:, 0, 0, 0, :2]}
        assert corners == {(r, c) for r in range(3) for c in range(4)}
        for sample, (top, left) in zip(cut[:, 0], cut[:, 0, 0, 0, :2].tolist(), strict=True):
            assert torch.equal(sample, frame[top : top + 7, left : left + 7])

    def test_the_generator_places_it(self):
        images = pictures()
        first, again, other = (random_crop(images, (30, 40), torch.Generator().manual_seed(s)) for s in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_training_moves_it_evaluation_and_a_frozen_encoder_do_not(self):
        images = pictures()
        for frozen in (False, True):
            camera = CameraEncoder(replace(TINY, frozen=frozen)).train()
            drawn = [camera(images, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
            assert torch.equal(*drawn) == frozen
            assert torch.equal(camera.eval()(images), camera(images))

    def test_pixels_reach_the_convolutions_channels_last(self):
        camera, seen = CameraEncoder(TINY).train(), []
        camera.net.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
        for encoder in (camera, camera.eval()):
            encoder(pictures())
        assert [pixels.shape for pixels in seen] == [(6, 3, 42, 56)] * 2
        assert all(pixels.is_contiguous(memory_format=torch.channels_last) for pixels in seen)


def test_spatial_softmax_finds_a_peak():
    pool = SpatialSoftmax(1, 1)
    torch.nn.init.ones_(pool.maps.weight)
    torch.nn.init.zeros_(pool.maps.bias)
    features = torch.zeros(1, 1, 5, 9)
    features[0, 0, 1, 6] = 100
    assert torch.allclose(pool(features), torch.tensor([[0.5, -0.5]]))


def test_statistics_are_of_one_picture_alone():
    camera = CameraEncoder(TINY).train()  # with BatchNorm this would depend on the rest of the batch
    images = pictures(batch=4)
    draws = [camera(images[:n], torch.Generator().manual_seed(0)) for n in (4, 4)]
    assert torch.equal(*draws)
    calm = camera.eval()
    assert torch.allclose(calm(images)[:1], calm(images[:1]), atol=1e-5)
    assert not any("running" in key for key in camera.state_dict())
