import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from ros_bags import (
    MS,
    START,
    compressed,
    floats,
    image,
    joints,
    jpeg,
    pixels,
    pose,
    recording,
    text,
    write_bag,
    write_config,
)  # fmt: skip
from rosbags.rosbag2 import StoragePlugin

from robopolicy.alignment import Aligner
from robopolicy.errors import ConfigError, DatasetError, MissingExtra
from robopolicy.resampling import Rule
from robopolicy.rotations import quat_to_matrix
from robopolicy.spec import TOOL_POSE, ActionSpec, CameraSpec, StateSpec
from robopolicy.topics.config import load_config
from robopolicy_data.check import check
from robopolicy_data.importers.rosbag import import_rosbag
from robopolicy_data.reader import Dataset

PLUGINS = [StoragePlugin.MCAP, StoragePlugin.SQLITE3]


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bag") / "b", recording())


def imported(bag, tmp_path, **options):
    config = write_config(tmp_path / "topics.yaml", **options)
    count = import_rosbag(bag, tmp_path / "d", config=config, lossless=True)
    return Dataset(tmp_path / "d"), count


def seconds(stamps_ns):
    return (np.asarray(stamps_ns) - START) / 1e9


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda p: p.name)
def test_a_bag_becomes_an_episode_whose_every_stream_fits_its_stamp(tmp_path, plugin):
    dataset, count = imported(write_bag(tmp_path / "b", recording(), plugin), tmp_path)
    assert count == len(dataset) == 1
    assert dataset.spec.cameras == {
        "front": CameraSpec(12, 16), "wrist": CameraSpec(12, 16), "depth": CameraSpec(12, 16, "depth"),
    }  # fmt: skip
    assert dataset.spec.state["quat"] == StateSpec(4, ("quat",))
    assert dataset.spec.state["q"] == StateSpec(3, ("rad",))
    assert dataset.spec.action == ActionSpec("vector", ("x", "y"), ("m",))
    (episode,) = dataset
    assert (episode.meta.task, episode.meta.robot, episode.meta.success) == ("pick up", "ur5", None)
    steps = episode.stamps_ns("step")
    assert 27 <= len(steps) <= 30
    assert np.abs(np.diff(steps) - 100 * MS).max() <= 40 * MS, "thinned from 30 Hz to 10"
    t = seconds(steps)
    assert np.allclose(episode.state("q")[:, 0], t, atol=1e-6), "linear in time: interpolation is exact"
    assert np.allclose(episode.state("q")[:, 1], -2 * t, atol=1e-6), "by joint name, whatever the message's order"
    assert np.allclose(episode.state("pos"), np.stack([t, 2 * t, 0 * t + 0.5], 1), atol=1e-6)
    turn = np.stack([np.cos(t / 2), 0 * t, 0 * t, np.sin(t / 2)], 1)
    assert np.allclose(quat_to_matrix(episode.state("quat")), quat_to_matrix(turn), atol=1e-6)
    gripper = episode.state("gripper")[:, 0]
    assert (gripper <= t + 1e-6).all(), "the newest before the step"
    assert (t - gripper).max() < 0.054
    command, due = episode.action()[:, 0], seconds(episode.stamps_ns("action"))
    assert np.allclose(command, due, atol=1e-6)
    assert (due - t >= 0).all()
    assert (due - t).max() < 0.053
    assert set(episode.sources()) == {1}
    assert [p for p in check(tmp_path / "d") if p.severity == "error"] == []


def test_cameras_keep_their_own_stamps_and_bytes(bag, tmp_path):
    dataset, _ = imported(bag, tmp_path)
    (episode,) = dataset
    steps = episode.stamps_ns("step")
    assert episode.stamps_ns("front").tolist() == steps.tolist(), "the primary: capture is the step"
    sent = [jpeg(stamp + 10 * MS) for stamp in steps]  # latency 10 ms: the header is later than the capture
    assert list(episode.frame_bytes("front")) == sent, "stored as the camera sent them"
    wrist = episode.stamps_ns("wrist")
    assert np.abs(wrist - steps).max() <= 45 * MS, "the nearest of 12 Hz"
    for image_, stamp in zip(episode.images("wrist"), wrist, strict=True):
        assert np.array_equal(image_, pixels(stamp))
    for image_, stamp in zip(episode.images("depth"), episode.stamps_ns("depth"), strict=True):
        assert np.array_equal(image_, pixels(stamp)[..., 0].astype(np.uint16) * 20)


def test_calibrated_cameras_go_into_the_episodes(bag, tmp_path):
    from robopolicy.geometry.calibrations import write_calibrations
    from robopolicy.geometry.cameras import Camera

    front = Camera(np.diag([30.0, 30.0, 1.0]), np.eye(4), (), (12, 16)).to_json()
    write_calibrations(tmp_path / "cams.yaml", {"front": {**front, "calibration": {"error_px": 0.1}}, "top": front})
    config = write_config(tmp_path / "topics.yaml")
    config.write_text(config.read_text() + "\ncalibration: cams.yaml\n")
    import_rosbag(bag, tmp_path / "d", config=config)
    (episode,) = Dataset(tmp_path / "d")
    assert episode.meta.cameras == {"front": front}
    write_calibrations(tmp_path / "cams.yaml", {"front": {**front, "size": [480, 640]}})
    with pytest.raises(ConfigError, match="calibrated at 640 x 480, its pictures are 16 x 12"):
        import_rosbag(bag, tmp_path / "e", config=config)


def test_a_slower_camera_is_stored_once_a_frame(bag, tmp_path):
    dataset, _ = imported(bag, tmp_path, rate=30)
    (episode,) = dataset
    assert episode.length > 80
    assert episode.frame_count("front") == episode.length
    assert episode.frame_count("wrist") <= 37
    assert len(set(episode.frame_stamps_ns("wrist").tolist())) == episode.frame_count("wrist")


def test_ticks_in_place_of_a_primary_camera(bag, tmp_path):
    dataset, _ = imported(bag, tmp_path, rate=20, primary="null")
    (episode,) = dataset
    assert set(np.diff(episode.stamps_ns("step")).tolist()) == {50 * MS}
    assert np.allclose(episode.state("q")[:, 0], seconds(episode.stamps_ns("step")), atol=1e-6)


def test_the_live_aligner_says_the_same_of_the_same_messages(bag, tmp_path):
    """What a node would have fed its policy is what the dataset holds, bit for bit."""
    dataset, _ = imported(bag, tmp_path)
    (episode,) = dataset
    rules = {"q": Rule("interpolate"), "quat": Rule("interpolate", quats=(0,)), "wrist": Rule("nearest", 0.06)}
    aligner, steps, k = Aligner(rules), episode.stamps_ns("step"), 0
    states = {name: episode.state(name) for name in ("q", "quat")}
    for topic, _, (_, message) in sorted(recording(), key=lambda one: one[1]):
        if topic not in ("/joints", "/pose", "/wrist"):
            continue
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        if topic == "/joints":
            aligner.push("q", stamp, [message.position[message.name.index(name)] for name in "abc"])
        elif topic == "/pose":
            turn = message.pose.orientation
            aligner.push("quat", stamp, [turn.w, turn.x, turn.y, turn.z])
        else:
            aligner.push("wrist", stamp, stamp)
        while k < len(steps) and aligner.ready(int(steps[k])):
            found = aligner.at(int(steps[k]))
            for name in states:
                assert np.float32(found.values[name]).tobytes() == states[name][k].tobytes()
            assert found.values["wrist"] == episode.stamps_ns("wrist")[k]
            k += 1
    assert k > 20


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_encodings_of_raw_images(tmp_path, encoding):
    messages = [m if m[0] != "/wrist" else (m[0], m[1], image(m[1] - 20 * MS, encoding)) for m in recording()]
    dataset, _ = imported(write_bag(tmp_path / "b", messages), tmp_path)
    (episode,) = dataset
    for image_, stamp in zip(episode.images("wrist"), episode.stamps_ns("wrist"), strict=True):
        want = pixels(stamp)
        assert np.array_equal(image_, np.repeat(want[..., :1], 3, 2) if encoding == "mono8" else want)


def test_a_compressed_png_is_decoded(tmp_path):
    import cv2

    def png(stamp):
        return compressed(stamp, cv2.imencode(".png", pixels(stamp)[..., ::-1])[1].tobytes(), "png")

    messages = [m if m[0] != "/wrist" else (m[0], m[1], png(m[1] - 20 * MS)) for m in recording()]
    dataset, _ = imported(write_bag(tmp_path / "b", messages), tmp_path)
    (episode,) = dataset
    assert np.array_equal(episode.images("wrist", [3])[0], pixels(episode.stamps_ns("wrist")[3]))


def test_a_marker_topic_cuts_a_bag_into_episodes(tmp_path):
    words = {100: "start", 900: "success", 950: "start", 1300: "discard", 1350: "start", 2000: "failure", 2100: "start"}
    marks = [("/episode", START + at * MS, text(word)) for at, word in words.items()]
    path = write_bag(tmp_path / "b", recording() + marks)
    dataset, count = imported(path, tmp_path, more="episodes: /episode\n")
    assert count == 3
    assert [episode.meta.success for episode in dataset] == [True, False, None]
    spans = [(0.1, 0.9), (1.35, 2.0), (2.1, 3.1)]
    for episode, (start, stop) in zip(dataset, spans, strict=True):
        t = seconds(episode.stamps_ns("step"))
        assert start <= t[0]
        assert t[0] < start + 0.2
        assert t[-1] <= stop


def test_a_folder_of_bags_is_an_episode_each(tmp_path):
    (tmp_path / "bags").mkdir()
    for k in (1, 0):
        write_bag(tmp_path / "bags" / f"b{k}", recording(1.0 + k), PLUGINS[k])
    told = []
    config = write_config(tmp_path / "topics.yaml")
    assert import_rosbag(tmp_path / "bags", tmp_path / "d", config=config, progress=lambda *n: told.append(n)) == 2
    assert told == [(1, 1), (2, 2)]
    assert [e.meta.extra["imported"] for e in Dataset(tmp_path / "d")] == ["rosbag b0", "rosbag b1"]


def without(messages, topic, first_ms, last_ms):
    return [m for m in messages if m[0] != topic or not first_ms <= (m[1] - START) / MS <= last_ms]


def test_a_gap_is_an_error_or_drops_its_steps(tmp_path):
    path = write_bag(tmp_path / "b", without(recording(), "/joints", 1000, 1600))
    line = (
        r"b: \d of \d+ steps have a gap; the first: stream 'state q': the sample it needs is 0\.\d+ s from .*gaps: drop"
    )
    with pytest.raises(DatasetError, match=line):
        imported(path, tmp_path)
    dataset, _ = imported(path, tmp_path, more="gaps: drop\n")
    (episode,) = dataset
    t = seconds(episode.stamps_ns("step"))
    assert not ((t > 1.11) & (t < 1.5)).any()
    assert episode.meta.extra["left_out_steps"] >= 4
    assert np.allclose(episode.state("q")[:, 0], t, atol=1e-6)


def changed(kind, messages):
    """Spoil a recording; return it and the line that is due."""
    if kind == "missing topic":
        return [
            m for m in messages if m[0] != "/pose"
        ], r"no messages on topic '/pose' \(for state pos\); it has \['/command'"
    if kind == "wrong type":
        made = [(t, s, floats([1.0]) if t == "/wrist" else m) for t, s, m in messages]
        return made, r"topic '/wrist' \(for camera wrist\) is std_msgs/msg/Float64MultiArray; want sensor_msgs"
    if kind == "back in time":
        late = ("/joints", START + 1500 * MS, joints(START + 200 * MS))
        return [*messages, late], r"state q \(/joints\) goes back in time at message \d+: 1700000000200000000 ns after"
    if kind == "camera back in time":
        late = ("/wrist", START + 1500 * MS, image(START + 200 * MS, "bgr8"))
        return [*messages, late], r"camera wrist \(/wrist\) goes back in time at message \d+"
    if kind == "size":
        made = [(t, s, image(s, height=10) if t == "/wrist" and s > START + 1500 * MS else m) for t, s, m in messages]
        return made, r"camera wrist, message \d+: 10x16 colour, want 12x16 colour"
    if kind == "encoding":
        made = [(t, s, image(s, "yuv422") if t == "/wrist" else m) for t, s, m in messages]
        return made, r"camera wrist: encoding 'yuv422' is not read; want one of"
    if kind == "no jpeg":
        made = [(t, s, compressed(s, b"xx") if t == "/front" else m) for t, s, m in messages]
        return made, r"camera front: a compressed image cannot be decoded"
    if kind == "joint":
        made = [(t, s, joints(s, names=("a", "b")) if t == "/joints" else m) for t, s, m in messages]
        return made, r"/joints has no joint 'c'; it has \['a', 'b'\]"
    if kind == "length":
        made = [(t, s, floats([1.0]) if t == "/command" and s > START + 1000 * MS else m) for t, s, m in messages]
        return made, r"action had 2 numbers and now has 1"
    if kind == "no stamp":
        made = [(t, s, joints(0) if t == "/joints" else m) for t, s, m in messages]
        return made, r"state q: the header stamps of /joints are 0; set its stamp: bag"
    assert kind == "apart"
    made = [(t, s + 10**13, pose(s + 10**13)) if t == "/pose" else (t, s, m) for t, s, m in messages]
    return made, r"no step can be made of an episode: stream 'state pos'"


@pytest.mark.parametrize(
    "kind",
    [
        "missing topic", "wrong type", "back in time", "camera back in time", "size", "encoding", "no jpeg", "joint",
        "length", "no stamp", "apart",
    ],
)  # fmt: skip
def test_a_spoilt_bag_is_one_clear_line_and_no_dataset(tmp_path, kind):
    messages, line = changed(kind, recording())
    path = write_bag(tmp_path / "b", messages)
    with pytest.raises(DatasetError, match=line) as caught:
        imported(path, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(DatasetError, match=r"is not a robopolicy dataset|was interrupted"):
        Dataset(tmp_path / "d")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda p: p.name)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_bag_is_one_clear_line(tmp_path, plugin, keep):
    path = write_bag(tmp_path / "b", recording(), plugin)
    (file,) = (f for f in path.iterdir() if f.suffix in (".mcap", ".db3"))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DatasetError) as caught:
        imported(path, tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=r"is not a robopolicy dataset|was interrupted"):
        Dataset(tmp_path / "d")


def test_what_is_no_bag_is_refused(tmp_path):
    config = write_config(tmp_path / "topics.yaml")
    for place in (tmp_path, tmp_path / "nothing", config):
        with pytest.raises(DatasetError, match=r"no ROS bag; want a folder with metadata\.yaml, or a file ending in"):
            import_rosbag(place, tmp_path / "d", config=config)


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        ("a: [", "is no YAML"),
        ("- 1", "the file is list"),
        ("rate_hz: 10\nstate: {}\n", "the file has no 'action'"),
        ("rate_hz: 0\nstate: {q: /q}\naction: /a\n", "rate_hz is 0; want steps per second"),
        ("rate_hz: 10\nstate: {q: /q}\naction: /a\nprimry: front\n", "no key in the file 'primry'; valid: action, "),
        ("rate_hz: 10\nstate: {q: /q}\naction: /a\nprimary: front\n", r"no primary camera 'front'; valid: \(none\)"),
        ("rate_hz: 10\nstate: {q: {field: x}}\naction: /a\n", "state.q has no 'topic'"),
        ("rate_hz: 10\nstate: {q: {topic: /q, align: lerp}}\naction: /a\n", "no state.q.align 'lerp'; valid: after"),
        ("rate_hz: 10\nstate: {q: /q}\naction: {topic: /a, kind: pose}\n", "no action kind 'pose'; valid: joint"),
        ("rate_hz: 10\nstate: {q: /q}\naction: /a\ncameras: {f: /f, g: /f}\n", "two cameras have the topic '/f'"),
        ("rate_hz: 10\nstate: {q: /q}\naction: {topic: /a, kind: tool_pose}\n", "give action.gripper its topic"),
        ("rate_hz: 10\nstate: {q: /q}\naction: {topic: /a, gripper: {topc: /g}}\n", "no key in action.gripper 'topc'"),
        ("rate_hz: 10\nstate: {q: {topic: /q, open: 1}}\naction: /a\n", "state.q: closed None, open 1.0; want two"),
        ("rate_hz: 10\nstate: {q: /q}\naction: /a\ngaps: fill\n", "no gaps 'fill'; valid: drop, error"),
        ("rate_hz: 10\nstate: {q: /q}\naction: /a\ncameras: {f: {topic: /f, max_age_s: -1}}\n", "_age_s is -1; want"),
        *[
            (f"rate_hz: 10\nstate: {{q: {{topic: /q, {key}}}}}\naction: /a\n", line)
            for key, line in {
                "latency_s: soon": r"state\.q\.latency_s is 'soon'; want a finite number",
                "max_age_s: .inf": r"state\.q\.max_age_s is 'inf'; want a finite number",
                "closed: a, open: 1": r"state\.q\.closed is 'a'; want a finite number",
                "index: [a]": r"state\.q\.index is .*; want a number from 0 or a list of such",
                "index: [true]": r"state\.q\.index is",
                "index: [-1]": r"state\.q\.index is",
                "joints: {a: 1}": r"state\.q\.joints is .*; want text or a list of texts",
                "joints: [a, a]": r"state\.q\.joints: 'a' is there twice",
                "field: 5": r"state\.q\.field is '5'; want text",
                "stamp: never": r"no state\.q\.stamp 'never'; valid: bag, header",
            }.items()
        ],
        ("rate_hz: true\nstate: {q: /q}\naction: /a\n", ": rate_hz is 'True'; want a finite number"),
        ("rate_hz: .inf\nstate: {q: /q}\naction: /a\n", ": rate_hz is 'inf'; want a finite number"),
        ("rate_hz: 10\nstate: {q: {topic: 5}}\naction: /a\n", r"state\.q\.topic is '5'; want text"),
        ("rate_hz: 10\nstate: {1: /q}\naction: /a\n", "state: the name 1 is no text"),
        ("rate_hz: 10\nstate: {q: /q}\naction: /a\nsuccess: 1\n", ": success is '1'; want true or false"),
        ("rate_hz: 10\nstate: {q: /q}\naction: /a\ncameras: {f: /f, g: f}\n", "two cameras have the topic '/f'"),
    ],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_one_clear_line(tmp_path, yaml, line):
    (tmp_path / "topics.yaml").write_text(yaml)
    with pytest.raises(ConfigError, match=line) as caught:
        load_config(tmp_path / "topics.yaml")
    assert str(caught.value).startswith(str(tmp_path / "topics.yaml"))


def test_a_config_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file or directory; want the YAML file"):
        load_config(tmp_path / "none.yaml")


def test_the_example_in_the_documentation_is_a_config():
    config = load_config(Path(__file__).parents[1] / "data" / "topics.example.yaml")
    assert config.primary == "front"
    assert config.state["gripper"].align == "before"
    assert config.action.align == "after"
    assert len(config.action.names) == 6
    assert config.action.gripper.open == config.state["gripper"].open == 0.085
    assert config.action.gripper.align == "after"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("names: [x, y]", "names: [x]", "action has 2 numbers, and the config 1 names"),
        ("units: m", "units: [m, m, m]", "action has 2 numbers, and 3 units"),
        ("field: pose.position", "field: pose.position, units: [m, m]", "state pos has 3 numbers, and 2 units"),
        ("index: [0]", "index: [2]", r"/gripper holds 2 numbers; index asks for \[2\]"),
        ("field: pose.position", "field: pose.place", r"has no field 'pose.place'; 'place' is not among \['position'"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_the_bag_is_one_clear_line(bag, tmp_path, old, new, line):
    config = write_config(tmp_path / "topics.yaml")
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=line):
        import_rosbag(bag, tmp_path / "d", config=config)
    assert not (tmp_path / "d").exists()


def test_a_tool_pose_and_a_gripper_of_its_own_are_one_command(tmp_path):
    times = [START + k * 20 * MS for k in range(100)]
    messages = [("/joints", s, joints(s)) for s in times] + [("/target", s, pose(s)) for s in times]
    messages += [("/finger", s, floats([0.04 * (k % 2)])) for k, s in enumerate(times)]
    (tmp_path / "topics.yaml").write_text(
        "rate_hz: 10\nstate: {q: {topic: /joints, joints: [a, b, c]}}\n"
        "action: {topic: /target, kind: tool_pose, field: pose, align: before, "
        "gripper: {topic: /finger, closed: 0.0, open: 0.04, stamp: bag}}\n"
    )
    import_rosbag(write_bag(tmp_path / "b", messages), tmp_path / "d.zarr", config=tmp_path / "topics.yaml")
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert Dataset(tmp_path / "d.zarr").spec.action == TOOL_POSE
    command = episode.action()
    t = np.arange(len(command)) * 0.1
    np.testing.assert_allclose(command[:, 0], t, atol=1e-6)
    np.testing.assert_allclose(command[:, 3], np.cos(t), atol=1e-6)  # a turn about z by t
    np.testing.assert_allclose(command[:, 4], np.sin(t), atol=1e-6)
    assert set(command[:, 9].tolist()) <= {0.0, 1.0}
    assert command[0, 9] == 0.0


def test_the_command_line(bag, tmp_path):
    config = write_config(tmp_path / "topics.yaml")
    command = [sys.executable, "-m", "robopolicy.cli.main", "data", "import", "rosbag", bag, tmp_path / "d"]
    done = subprocess.run([*command, "--config", config], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'd'}: 1 episodes" in done.stdout
    assert len(Dataset(tmp_path / "d")) == 1
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "--config" in done.stderr


def test_a_missing_extra_is_named(bag, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    with pytest.raises(MissingExtra, match=r"robopolicy\[ros\]"):
        imported(bag, tmp_path)
    assert not (tmp_path / "d").exists()
