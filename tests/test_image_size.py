"""Pictures of another size than the network's: the loader and the policy make them smaller alike."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from robopolicy.area import shrink
from robopolicy.cli.image_size import parse_sizes
from robopolicy.cli.main import main
from robopolicy.cli.train import train
from robopolicy.cli.training_data import DataChoice
from robopolicy.errors import ContractError, UnknownCamera, UsageError
from robopolicy.policies import vision
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import CameraSpec
from robopolicy.training.checkpoint import load_policy, read_config, read_spec
from robopolicy.types import Observation
from robopolicy_data.loader import Loader
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

sys.path.insert(0, str(Path(__file__).parent))
import recordings

SPEC = replace(recordings.SPEC, cameras={"front": CameraSpec(96, 128), "wrist": CameraSpec(64, 80)})
SIZES = {"front": (48, 64), "wrist": (44, 50)}
SMALL = VisionConfig(width=16, keypoints=4, feature_dim=4, sizes=tuple((n, *s) for n, s in SIZES.items()))
SETTINGS = {"steps": 2, "batch_size": 4, "device": "cpu", "num_threads": 1}
CHOSEN = {"cameras": ("front", "wrist"), "horizon": 4, "n_execute": 2, "policy": {"net.width": 16, "net.depth": 1}}


def record(path: Path, *, lossless: bool) -> Path:
    with DatasetWriter(path, SPEC, lossless=lossless) as writer:
        for seed in range(2):
            episode = writer.begin(replace(recordings.META, seed=seed))
            for step in recordings.make_steps(seed, 8, spec=SPEC):
                episode.add(step)
            episode.commit()
    return path


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return record(tmp_path_factory.mktemp("exact") / "d.zarr", lossless=True)


@pytest.fixture(scope="module")
def lossy(tmp_path_factory):
    return record(tmp_path_factory.mktemp("lossy") / "d.zarr", lossless=False)


@pytest.mark.parametrize("size", [(24, 32), (20, 13), (7, 5), (48, 64)])
def test_torch_makes_pictures_smaller_as_numpy_does(size):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 48, 64, 3), dtype=np.uint8)
    made = vision.shrink(torch.from_numpy(images), size)
    assert made.dtype == torch.uint8
    want = np.stack([shrink(one, size) for one in images.reshape(6, 48, 64, 3)]).reshape(2, 3, *size, 3)
    assert np.abs(made.numpy().astype(int) - want).max() <= 1
    assert np.mean(made.numpy() != want) < 1e-3, "sums in another order"


def policy() -> DiffusionPolicy:
    torch.manual_seed(0)
    made = DiffusionPolicy(replace(SPEC, n_obs=2, horizon=4), DiffusionConfig(MlpConfig(width=16, depth=1), SMALL))
    rng = np.random.default_rng(0)
    state = {name: rng.standard_normal((50, part.dim)).astype(np.float32) for name, part in SPEC.state.items()}
    made.fit_normaliser(SimpleNamespace(state=state, action=rng.standard_normal((50, 2)).astype(np.float32)))
    return made.eval()


@pytest.mark.parametrize(("lossless", "off"), [(True, 1e-5), (False, 0.02)])
def test_what_the_loader_made_smaller_is_encoded_as_what_the_camera_gives(exact, lossy, lossless, off):
    """A recording in JPEG is made smaller by JPEG's own scaling, which is not quite the mean of the area."""
    data, mine = Dataset(exact if lossless else lossy), policy()
    with Loader([data], n_obs=2, horizon=4, batch_size=16, cameras=tuple(SIZES), sizes=SIZES) as loader:
        batch = loader.batch(0)
        rows = loader.rows().obs[np.random.default_rng([0, 0]).permutation(len(loader))]
    raw = {name: np.concatenate([episode.images(name) for episode in data])[rows] for name in SIZES}
    state = {name: torch.from_numpy(values) for name, values in batch["state"].items()}
    with torch.inference_mode():
        trained = mine.encode({"state": state, "images": {n: torch.from_numpy(i) for n, i in batch["images"].items()}})
        driven = mine.encode({"state": state, "images": {n: torch.from_numpy(i) for n, i in raw.items()}})
    assert batch["images"]["wrist"].shape[2:4] == SIZES["wrist"]
    scale = trained.std()
    assert (trained - driven).abs().mean() / scale < off
    if lossless:
        windows = [[Observation(0, {n: v[i, t].numpy() for n, v in state.items()}, {n: v[i, t] for n, v in raw.items()})
                    for t in range(2)] for i in range(3)]  # fmt: skip
        for i, window in enumerate(windows):
            features = mine.plan(window, generator=np.random.default_rng(0)).features
            np.testing.assert_allclose(features, trained[i].flatten(), atol=1e-4)


def test_the_command_line_trains_it_and_the_checkpoint_looks_at_raw_pictures(exact, tmp_path, capsys):
    words = ["train", "--data", str(exact), "--out", str(tmp_path / "p"), "--steps", "1", "--batch-size", "4",
             "--device", "cpu", "--threads", "1", "--cameras", "front", "wrist", "--horizon", "4", "--net.width", "16",
             "--image-size", "48x64", "wrist=44x50"]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    assert "front 96x128 px as 48x64" in capsys.readouterr().out.replace("\n", " ")
    assert read_spec(tmp_path / "p").cameras == SPEC.cameras, "the robot's own size"
    assert read_config(tmp_path / "p").vision.sizes == (("front", 48, 64), ("wrist", 44, 50))
    (step,) = recordings.make_steps(0, 1, spec=SPEC)
    chunks = load_policy(tmp_path / "p").plan([step.observation] * 2, generator=np.random.default_rng(0)).chunks
    assert np.isfinite(chunks).all()


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def test_every_cache_trains_the_same_policy_and_resumes_it(lossy, tmp_path):
    for cache in ("auto", "compressed"):
        train(DataChoice((lossy,), cache=cache), tmp_path / cache, image_size=("48x50",), settings=SETTINGS, **CHOSEN)
        assert weights(tmp_path / cache) == weights(tmp_path / "auto"), cache
    more = {**SETTINGS, "steps": 4}
    train(lossy, tmp_path / "auto", resume=True, settings=more)
    train(lossy, tmp_path / "whole", image_size=("48x50",), settings=more, **CHOSEN)
    assert read_config(tmp_path / "auto").vision.sizes == (("front", 48, 50), ("wrist", 48, 50))
    assert read_config(tmp_path / "auto") == read_config(tmp_path / "whole")


def test_a_run_of_before_there_were_sizes_goes_on(exact, tmp_path):
    train(exact, tmp_path / "p", settings=SETTINGS, **CHOSEN)
    spec, state = tmp_path / "p" / "spec.json", tmp_path / "p" / "resume.safetensors"
    told = json.loads(spec.read_text())
    del told["config"]["vision"]["sizes"], told["config"]["vision"]["stages"]
    spec.write_text(json.dumps(told))
    with safe_open(state, framework="pt") as file:
        keys, cursor = file.keys(), json.loads(file.metadata()["cursor"])
        tensors = {key: file.get_tensor(key) for key in keys}
    del cursor["config"]["vision"]["sizes"], cursor["config"]["vision"]["stages"]
    save_file(tensors, state, {"cursor": json.dumps(cursor)})
    assert load_policy(tmp_path / "p").config.vision.sizes == ()
    train(exact, tmp_path / "p", resume=True, settings={**SETTINGS, "steps": 3})


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["96"], UsageError, "'96': want HEIGHTxWIDTH in px, 96x96, or CAMERA=HEIGHTxWIDTH"),
        (["back=48x48"], UnknownCamera, "no camera 'back'; valid: front, wrist"),
        (["97x128"], UsageError, "--image-size 97x128: camera front has 96x128 px, no more"),
    ],
)
def test_sizes_that_make_no_sense_are_one_line(words, error, message):
    with pytest.raises(error, match=message) as caught:
        parse_sizes(words, SPEC.cameras)
    assert "\n" not in str(caught.value)


def test_a_size_for_all_or_for_one():
    assert parse_sizes(["48x48"], SPEC.cameras) == (("front", 48, 48), ("wrist", 48, 48))
    assert parse_sizes(["wrist=48x48"], SPEC.cameras) == (("wrist", 48, 48),)
    assert parse_sizes(["wrist=48x60", "64x80"], SPEC.cameras) == (("front", 64, 80), ("wrist", 48, 60))
    assert parse_sizes(["front=96x128"], SPEC.cameras) == (), "as recorded"
    with pytest.raises(UsageError, match="sees no camera"):
        parse_sizes(["48x48"], {})


def test_a_network_needs_pictures_it_can_look_at():
    for size, message in (((36, 36), "want pictures of at least 40x40"), ((97, 50), "96x128 px, which cannot grow")):
        with pytest.raises(ContractError, match=message):
            DiffusionPolicy(SPEC, DiffusionConfig(vision=replace(SMALL, sizes=(("front", *size),))))
