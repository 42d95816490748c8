"""The file of calibrated cameras: what is written is read, what is none is refused in one line."""

import json

import numpy as np
import pytest
from ruamel.yaml import YAML

from robopolicy.errors import ConfigError, ContractError
from robopolicy.geometry.calibrations import calibrations_for, read_calibrations, read_cameras, write_calibrations
from robopolicy.geometry.cameras import Camera
from robopolicy.topics.config import load_config

POSE = np.eye(4)
POSE[:3, 3] = 1e-05, -0.25, 1e-17
CAMERA = Camera(
    np.array([[611.25, 0, 318.7], [0, 608.0, 241.2], [0, 0, 1]]), POSE, [-2.1e-07, 0.07, 1e-05, -0.002], (480, 640)
)
ABOUT = {"error_px": 0.25, "board": {"dictionary": "DICT_5X5_100", "legacy": False},
         "pictures_px": {"0": 0.1, "a: b": 1e-07},
         "dropped_px": {}, "none": None}  # fmt: skip
ENTRIES = {
    "front": {**CAMERA.to_json(), "calibration": ABOUT},
    "no": {"K": CAMERA.K.tolist(), "T_tool_cam": POSE.tolist()},
    "a: 'b' ü": CAMERA.to_json(),
    "lens": {"K": CAMERA.K.tolist(), "distortion": [], "size": [480, 640]},
}  # fmt: skip


@pytest.mark.parametrize("name", ["cams.yaml", "cams.json"])
def test_what_is_written_is_read_to_the_bit(tmp_path, name):
    write_calibrations(tmp_path / "new" / name, ENTRIES, "one line\nanother: {")
    assert read_calibrations(tmp_path / "new" / name) == ENTRIES
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [name]
    cameras = read_cameras(tmp_path / "new" / name)
    assert list(cameras) == ["front", "a: 'b' ü"]  # those that stand somewhere
    for found in cameras.values():
        for part in ("K", "T_base_cam", "distortion"):
            np.testing.assert_array_equal(getattr(found, part), getattr(CAMERA, part))
        assert found.size == (480, 640)


def test_numbers_are_numbers_to_a_reader_of_yaml_1_1_too(tmp_path):
    write_calibrations(tmp_path / "c.yaml", ENTRIES)
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)
    assert reader.load((tmp_path / "c.yaml").read_text()) == ENTRIES


@pytest.mark.parametrize(("names", "message"), [
    (["side"], r"no calibrated camera 'side'; valid: .*front"), (["no"], "camera 'no' rides on the tool"),
    (["lens"], "camera 'lens' has a lens and no place"),
])  # fmt: skip
def test_a_camera_that_is_not_there_or_nowhere_is_named(tmp_path, names, message):
    write_calibrations(tmp_path / "c.json", ENTRIES)
    with pytest.raises(ConfigError, match=message) as told:
        read_cameras(tmp_path / "c.json", names)
    assert str(told.value).startswith(str(tmp_path / "c.json"))


@pytest.mark.parametrize(("text", "message"), [
    ("", "there is no camera in it"), ("[1, 2]", "want keys and values"), ("front: 3", "camera front is int"),
    ("front: {T_base_cam: 1}", "camera 'front' is not calibrated: K is wanted"), ("front: {K: [", "is no YAML"),
    ("front: {K: [[1,0,0],[0,1,0],[0,0,1]], T_base_cam: [[2,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}",
     "no rotation matrix"),
    ("front: {K: [[1,0,0],[0,1,0],[0,0,1]], T_base_cam: [[a]]}", "camera 'front'"),
])  # fmt: skip
def test_a_damaged_file_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as told:
        read_cameras(tmp_path / "c.yaml")
    assert "\n" not in str(told.value)


def test_a_file_without_places_or_that_is_none_is_refused(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"lens": ENTRIES["lens"]}))
    with pytest.raises(ConfigError, match="no camera in it has a place"):
        read_cameras(tmp_path / "c.json")
    (tmp_path / "d.json").write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        read_cameras(tmp_path / "d.json")
    with pytest.raises(ConfigError, match=r"No such file.*want the file of calibrated cameras"):
        read_cameras(tmp_path / "none.json")
    with pytest.raises(ContractError, match="K is wanted"):
        write_calibrations(tmp_path / "e.yaml", {"front": {"size": [1, 2]}})
    assert not (tmp_path / "e.yaml").exists()


def test_a_robot_takes_what_is_of_its_cameras_and_of_their_size(tmp_path):
    write_calibrations(tmp_path / "c.json", ENTRIES)
    found = calibrations_for(tmp_path / "c.json", {"front": (480, 640), "no": (480, 640), "top": (24, 32)})
    assert found == {"front": CAMERA.to_json(), "no": ENTRIES["no"]}  # nothing of how well it is known
    with pytest.raises(ConfigError, match=r"camera 'front' was calibrated at 640 x 480, its pictures are 32 x 24"):
        calibrations_for(tmp_path / "c.json", {"front": (24, 32)})
    words = r"c\.json: camera 'no': K has its principal point at \(318\.7, 241\.2\), outside pictures of 32 x 24 px"
    with pytest.raises(ConfigError, match=words):
        calibrations_for(tmp_path / "c.json", {"no": (24, 32)})


def test_a_topics_file_names_it_as_seen_from_its_own_folder(tmp_path):
    text = "rate_hz: 20\nstate: {}\naction: {topic: /c, kind: joint, names: [a], units: rad}\n"
    (tmp_path / "a.yaml").write_text(text + "calibration: sub/c.yaml\n")
    assert load_config(tmp_path / "a.yaml").calibration == str(tmp_path / "sub" / "c.yaml")
    (tmp_path / "a.yaml").write_text(text)
    assert load_config(tmp_path / "a.yaml").calibration == ""
    (tmp_path / "a.yaml").write_text(text + "calibration: 3\n")
    with pytest.raises(ConfigError, match="calibration is '3'; want text"):
        load_config(tmp_path / "a.yaml")
