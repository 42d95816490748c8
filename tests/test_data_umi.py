import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

sys.path.insert(0, str(Path(__file__).parent))
import peer
from exchanged import SPEC, colour, joined, record, require_same

from robopolicy.errors import DatasetError, MissingExtra
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import TOOL_POSE, ActionSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.exporters.umi import export_umi, quat_to_rotvec
from robopolicy_data.exporters.zarr2 import Zarr2Writer
from robopolicy_data.importers.umi import import_umi
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

OURS = replace(colour(), state={**SPEC.state, "gripper": StateSpec(1, ("open",))}, action=TOOL_POSE)
ENDS = [4, 9]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return record(tmp_path_factory.mktemp("ours") / "d.zarr", OURS)


def gripper_streams(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "robot0_eef_pos": rng.standard_normal((9, 3)).astype("f4"),
        "robot0_eef_rot_axis_angle": rng.standard_normal((9, 3)).astype("f4"),
        "robot0_gripper_width": rng.uniform(0, 0.08, (9, 1)).astype("f4"),
        "robot0_demo_start_pose": np.repeat(rng.standard_normal((2, 6)), [4, 5], axis=0),
        "robot0_demo_end_pose": np.repeat(rng.standard_normal((2, 6)), [4, 5], axis=0),
        "camera0_rgb": rng.integers(0, 256, (9, 16, 20, 3), dtype="u1"),
    }


def write_umi(path, **changed):
    """A zip in UMI's layout; pictures are JPEG-XL, lossless so that they can be compared."""
    from imagecodecs.numcodecs import Jpegxl

    streams = gripper_streams() | changed
    with Zarr2Writer(path, zipped=True) as writer:
        for group in ("", "data", "meta"):
            writer.group(group)
        writer.array("meta/episode_ends", (2,), "int64", [np.array(ENDS)])
        for name, values in streams.items():
            if values is not None:
                codec = Jpegxl(lossless=True, effort=2) if values.ndim == 4 else None
                rows = 1 if values.ndim == 4 else None
                writer.array(f"data/{name}", values.shape, values.dtype.name, [values], chunk_rows=rows, codec=codec)
    return streams


def test_an_umi_zip_becomes_a_dataset(tmp_path):
    streams = write_umi(tmp_path / "dataset.zarr.zip")
    assert import_umi(tmp_path / "dataset.zarr.zip", tmp_path / "d") == 2
    dataset = Dataset(tmp_path / "d")
    assert dataset.spec.rate_hz == pytest.approx(59.94, abs=0.001)
    assert set(dataset.spec.state) == {"robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width"}
    assert dataset.spec.action.names[:4] == ("robot0_x", "robot0_y", "robot0_z", "robot0_rx")
    assert dataset.spec.action.units == ("m", "m", "m", "rad", "rad", "rad", "m")
    for name in dataset.spec.state:
        assert joined(dataset, "state", name).tobytes() == streams[name].tobytes()
    made = np.concatenate([streams[f"robot0_{p}"] for p in ("eef_pos", "eef_rot_axis_angle", "gripper_width")], 1)
    assert joined(dataset, "action").tobytes() == made.tobytes()
    assert np.array_equal(joined(dataset, "images", "camera0_rgb"), streams["camera0_rgb"])
    meta = dataset[1].meta
    assert meta.embodiment == "human"
    assert meta.extra["umi"]["robot0_demo_start_pose"] == streams["robot0_demo_start_pose"][5].tolist()
    assert "as UMI's sampler" in meta.extra["action"]
    assert np.diff(dataset[0].stamps_ns("step")).tolist() == [16_683_333] * 3


def test_an_imported_zip_goes_back_as_it_was(tmp_path):
    streams = write_umi(tmp_path / "a.zarr.zip")
    import_umi(tmp_path / "a.zarr.zip", tmp_path / "d")
    export_umi(tmp_path / "d", tmp_path / "b.zarr.zip")
    group = zarr.open_group(zarr.storage.ZipStore(tmp_path / "b.zarr.zip", mode="r"), mode="r", zarr_format=2)
    data = dict(group["data"].arrays())
    assert set(data) == set(streams), "no action: UMI's sampler makes it"
    for name, values in streams.items():
        assert data[name].dtype == values.dtype
        assert np.array_equal(data[name][:], values), name
    assert group["meta/episode_ends"][:].tolist() == ENDS
    import_umi(tmp_path / "b.zarr.zip", tmp_path / "e")
    require_same(Dataset(tmp_path / "d"), Dataset(tmp_path / "e"))


@pytest.mark.parametrize("pictures", ["jxl", "blosc"])
def test_a_tool_pose_dataset_loses_nothing_on_the_way_back(ours, tmp_path, pictures):
    told = []
    export_umi(ours.path, tmp_path / "o.zarr.zip", pictures=pictures, progress=lambda *n: told.append(n))
    assert told[-1] == (3, 3)
    import_umi(tmp_path / "o.zarr.zip", tmp_path / "back")
    require_same(ours, Dataset(tmp_path / "back"))


def test_poses_in_umi_s_terms(tmp_path):
    """A tool turned by a known angle about a known axis, half open, commanded one step ahead."""
    spec = PolicySpec(state={n: OURS.state[n] for n in ("tool_pos", "tool_quat", "gripper")}, rate_hz=10)
    angles = np.linspace(-3, 3, 7)
    quats = np.stack([np.cos(angles / 2), 0 * angles, np.sin(angles / 2), 0 * angles], 1)
    with DatasetWriter(tmp_path / "d", spec) as writer:
        episode = writer.begin(EpisodeMeta("t", "arm"))
        for k, quat in enumerate(quats):
            state = {"tool_pos": np.array([k, 0, 0]), "tool_quat": quat, "gripper": np.array([0.5])}
            rot6d = matrix_to_rot6d(quat_to_matrix(quats[min(k + 1, 6)]))
            action = np.concatenate([[k + 1, 0, 0], rot6d, [1.0]])
            seen = Observation(k * spec.period_ns, {n: v.astype(np.float32) for n, v in state.items()})
            episode.add(Step(seen, action.astype(np.float32), k * spec.period_ns, "human"))
        episode.commit()
    export_umi(tmp_path / "d", tmp_path / "o.zip", gripper_width_m=0.1)
    data = zarr.open_group(zarr.storage.ZipStore(tmp_path / "o.zip", mode="r"), mode="r", zarr_format=2)["data"]
    assert np.allclose(data["robot0_eef_rot_axis_angle"][:], np.stack([0 * angles, angles, 0 * angles], 1), atol=1e-6)
    assert np.allclose(data["robot0_gripper_width"][:], 0.05)
    assert np.allclose(data["action"][:, 0], np.arange(1, 8))
    assert np.allclose(data["action"][:6, 4], angles[1:], atol=1e-5)
    assert np.allclose(data["action"][:, 6], 0.1)
    assert np.allclose(data["robot0_demo_end_pose"][:], [6, 0, 0, 0, 3, 0], atol=1e-6)


def test_rotation_vectors_against_scipy():
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    quats = np.concatenate(
        [rng.standard_normal((200, 4)), [[1, 0, 0, 0], [-1, 0, 0, 0], [1, 1e-9, 0, 0], [0, 0, 1, 0]]]
    )
    want = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_rotvec()
    assert np.allclose(quat_to_rotvec(quats), want, atol=1e-12)


def test_umi_itself_reads_it(ours, tmp_path):
    """Its ReplayBuffer with its own codecs, and every window of its SequenceSampler."""
    checkout, python = peer.named("ROBOPOLICY_UMI", "ROBOPOLICY_DIFFUSION_POLICY_PYTHON")
    export_umi(ours.path, tmp_path / "o.zarr.zip")
    peer.run(python, "umi_read.py", checkout, tmp_path / "o.zarr.zip", tmp_path / "found.npz", 4)
    found = peer.arrays(tmp_path / "found.npz")
    assert found["episode_ends"].tolist() == [5, 12, 21]
    for camera, key in (("front", "camera0_rgb"), ("wrist", "camera1_rgb")):
        assert np.array_equal(found[f"data/{key}"], joined(ours, "images", camera))
        assert np.array_equal(found[f"window/{key}"][:, -1], found[f"data/{key}"])
    assert np.array_equal(found["data/robot0_eef_pos"], joined(ours, "state", "tool_pos"))
    starts, ends = np.repeat([0, 5, 12], [5, 7, 9]), np.repeat([5, 12, 21], [5, 7, 9])
    rows = np.minimum(np.arange(21)[:, None] + np.arange(4), ends[:, None] - 1)
    assert np.array_equal(found["window/action"], found["data/action"][rows])
    seen = np.maximum(np.arange(21)[:, None] + [-1, 0], starts[:, None])
    assert np.allclose(found["window/robot0_eef_pos"], found["data/robot0_eef_pos"][seen], atol=1e-7)


def test_what_umi_itself_wrote_is_read(tmp_path):
    """Its lossy JPEG-XL pictures as its own reader decodes them."""
    checkout, python = peer.named("ROBOPOLICY_UMI", "ROBOPOLICY_DIFFUSION_POLICY_PYTHON")
    peer.run(python, "umi_write.py", checkout, tmp_path / "dataset.zarr.zip", tmp_path / "want.npz")
    want = peer.arrays(tmp_path / "want.npz")
    assert import_umi(tmp_path / "dataset.zarr.zip", tmp_path / "d") == 2
    dataset = Dataset(tmp_path / "d")
    assert np.array_equal(joined(dataset, "images", "camera0_rgb"), want["camera0_rgb"])
    for name in dataset.spec.state:
        assert joined(dataset, "state", name).tobytes() == want[name].tobytes()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"robot0_eef_pos": None}, r"no data/robot0_eef_pos; expected UMI's dataset\.zarr\.zip"),
        ({"robot0_gripper_width": np.zeros((9, 2), "f4")}, r"data/robot0_gripper_width is float32 \(9, 2\); expected"),
        ({"extra": np.zeros((8, 1), "f4")}, r"data/extra has shape \(8, 1\), but the episodes end at 9"),
        ({"robot0_demo_end_pose": np.arange(54.0).reshape(9, 6)}, r"_end_pose changes within an episode, rows 0\.\.4"),
        ({"robot0_eef_pos": np.full((9, 3), 0.1)}, r"data/robot0_eef_pos is float64 and float32 cannot hold.*--round"),
    ],
)  # fmt: skip
def test_another_layout_is_one_clear_line(tmp_path, changed, line):
    write_umi(tmp_path / "o.zarr.zip", **changed)
    with pytest.raises(DatasetError, match=line):
        import_umi(tmp_path / "o.zarr.zip", tmp_path / "d")
    with pytest.raises(DatasetError, match=r"is not a robopolicy dataset|was interrupted"):
        Dataset(tmp_path / "d")


def test_a_damaged_picture_is_one_clear_line(tmp_path):
    import zipfile

    write_umi(tmp_path / "o.zarr.zip")
    with zipfile.ZipFile(tmp_path / "o.zarr.zip") as old, zipfile.ZipFile(tmp_path / "bad.zip", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:40] if name == "data/camera0_rgb/6.0.0.0" else data)
    with pytest.raises(DatasetError, match=r"data/camera0_rgb, rows 4\.\.9: damaged"):
        import_umi(tmp_path / "bad.zip", tmp_path / "d")
    with pytest.raises(DatasetError, match="was interrupted"):
        Dataset(tmp_path / "d")


def test_a_dataset_without_a_pose_is_refused(tmp_path):
    spec = replace(colour(), state={"q": StateSpec(2, ("rad",))}, action=ActionSpec("vector", ("x",), ("1",)))
    dataset = record(tmp_path / "d", spec)
    with pytest.raises(DatasetError, match=r"the states \['q'\] hold no pose; want tool_pos, tool_quat, gripper"):
        export_umi(dataset.path, tmp_path / "o.zip")
    assert not (tmp_path / "o.zip").exists()


def test_every_jpeg_xl_picture_is_compared_with_what_went_in():
    """libjxl's fastest lossless mode is not, for some small pictures: such a coder must not be believed."""
    from imagecodecs.numcodecs import Jpegxl
    from recordings import picture

    from robopolicy_data.exporters.umi import _Lossless, _picture_codec

    rng = np.random.default_rng(0)
    pictures = [picture(rng, 16, 16)[None] for _ in range(300)]
    codec = _picture_codec("jxl")
    for image in pictures:
        assert np.array_equal(Jpegxl().decode(codec.encode(image)).reshape(image.shape), image)
    lossy = _Lossless([Jpegxl(lossless=False, distance=3.0)])
    with pytest.raises(DatasetError, match="does not hold a picture without loss"):
        lossy.encode(pictures[0])
    assert codec.get_config()["lossless"] is True
    assert "squeeze" not in codec.get_config(), "UMI's own codec does not know it"


def test_depth_is_refused(tmp_path):
    dataset = record(tmp_path / "d")
    with pytest.raises(DatasetError, match=r"no depth cameras, and \['depth'\] are"):
        export_umi(dataset.path, tmp_path / "o.zip")


def test_a_missing_extra_is_named(ours, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs.numcodecs", None)
    with pytest.raises(MissingExtra, match=r"robopolicy\[convert\]"):
        export_umi(ours.path, tmp_path / "o.zip")
    assert not (tmp_path / "d").exists()
