"""`robopolicy doctor --ros` beside a fake arm in another process, over real DDS."""

import os
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import LOOPBACK, Arm

from robopolicy.cli.doctor_ros import of_topic
from robopolicy.cli.main import main
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.survey import Endpoint, Heard

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAIN = 160 + os.getpid() % 60  # beside other tests on this machine
ARRAY = "std_msgs/msg/Float64MultiArray"


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    made = Arm(tmp_path_factory.mktemp("arm"), DOMAIN)
    yield made
    made.close()


@pytest.fixture
def examined(capsys):
    """Run the doctor; return its exit status and its lines by what they are about."""

    def examine(*words, domain=DOMAIN, seconds=1.0):
        status = main(["doctor", "--ros", "--domain", str(domain), "--seconds", str(seconds), *map(str, words)])
        lines = capsys.readouterr().out.splitlines()
        return status, lines

    return examine


def about(lines, what):
    return [line for line in lines if line[5:].startswith(what + " ")]


def test_topics_are_told_with_type_rate_qos_age_clock_and_node(arm, examined):
    for _ in range(5):  # on a busy machine the newest message may be too old just then
        status, lines = examined("--robot", f"ros:{arm.config}", seconds=2)
        if status == 0:
            break
    assert status == 0, lines
    (line,) = about(lines, "/joint_states")
    assert line.startswith("ok   /joint_states sensor_msgs/msg/JointState, ")
    rate_hz = float(line.split(", ")[1].removesuffix(" Hz"))
    assert 20 < rate_hz < 120  # 100 on an idle machine
    assert "ms ago" in line
    assert "ms behind" in line
    assert line.endswith("reliable, volatile, by /robopolicy")
    for what in ("camera front", "camera wrist", "state q", "state dq", "action"):
        assert about(lines, what)[0].startswith("ok"), lines
    assert "heard by /robopolicy" in about(lines, "action")[0]
    assert about(lines, "domain") == [f"ok   domain      {DOMAIN}"]
    assert about(lines, "interface") == ["ok   interface   lo, no multicast (CYCLONEDDS_URI)"]
    assert about(lines, "nodes") == ["ok   nodes       /robopolicy"]
    assert "cyclonedds 11" in about(lines, "transport")[0]


WRONG = {
    "state q": ("joints: [a, b, c]", "joints: [a, b, x]", "/joint_states has no joint 'x'; it has ['other', "),
    "camera front": ("/front/image_raw,", "/side/image_raw,", "nobody publishes /side/image_raw"),
    "state dq": ("field: velocity", "type: geometry_msgs/msg/PoseStamped", "carries sensor_msgs/msg/JointState, not g"),
    "action": ("kind: joint", "kind: joint, type: sensor_msgs/msg/JointState", f"listening: /robopolicy as {ARRAY}, b"),
}


def test_what_the_file_names_and_is_not_there_is_a_failure(arm, examined, tmp_path):
    text = arm.config.read_text()
    for old, new, _ in WRONG.values():
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "bad.yaml").write_text(text)
    status, lines = examined("--robot", f"ros:{tmp_path / 'bad.yaml'}")
    assert status == 1
    for what, (_, _, says) in WRONG.items():
        (line,) = about(lines, what)
        assert line.startswith("FAIL")
        assert says in line
    (tmp_path / "bad.yaml").write_text(arm.config.read_text().replace("/joint_commands", "/other_commands"))
    status, lines = examined("--robot", f"ros:{tmp_path / 'bad.yaml'}", seconds=0.5)
    assert status == 1
    assert f"nobody listens on /other_commands to {ARRAY}, volatile" in about(lines, "action")[0]


def test_a_second_publisher_of_commands_is_named(arm, examined):
    rival = Topics(DOMAIN, node="rival")
    try:
        rival.publisher("/joint_commands", ARRAY)
        status, lines = examined("--robot", f"ros:{arm.config}")
    finally:
        rival.close()
    assert status == 1
    assert about(lines, "action")[1] == f"FAIL action      /rival ({ARRAY}) publishes on /joint_commands too"


def test_a_twin_that_follows_is_no_controller(arm, examined, tmp_path):
    (tmp_path / "dead.yaml").write_text(arm.config.read_text().replace("/joint_commands", "/dead_commands"))
    shadow = Topics(DOMAIN, node="robopolicy_shadow", watching=True)
    try:
        shadow.subscribe("/dead_commands", ARRAY)
        status, lines = examined("--robot", f"ros:{tmp_path / 'dead.yaml'}")
    finally:
        shadow.close()
    assert status == 1
    listening = f"/robopolicy_shadow as {ARRAY}, best effort, volatile, which only watches"
    assert about(lines, "action")[0].endswith(listening)


def test_another_clock_and_silence_are_told(tmp_path, examined):
    late = Arm(tmp_path, DOMAIN + 1, offset_s=-1.5)
    try:
        status, lines = examined("--robot", f"ros:{late.config}", domain=DOMAIN + 1)
        assert status == 1
        assert about(lines, "/joint_states")[0].startswith("note")
        assert "state q     the stamps of /joint_states are 1.5" in about(lines, "state q")[0]
        assert "behind this machine's clock" in about(lines, "state q")[0]
        late.kill()
        time.sleep(0.1)
        status, lines = examined("--robot", f"ros:{late.config}", domain=DOMAIN + 1)
        assert status == 1  # discovery still knows it for ten seconds
        told = about(lines, "state q")[0]
        assert "nothing came on /joint_states" in told or "nobody publishes /joint_states" in told
    finally:
        late.close()


def test_an_empty_network_is_a_note_and_odd_words_are_one_line(examined, capsys):
    status, lines = examined(domain=DOMAIN + 2, seconds=0.3)
    assert status == 0
    assert about(lines, "topics")[0].startswith("note topics      nobody publishes anything within 0.3 s")
    for words, says in (
        (["doctor", "--ros", "--robot", "twin:lift"], "--robot twin:lift: only a robot behind topics has any"),
        (["doctor", "--robot", "ros:x.yaml"], "--robot and --domain are of the ROS 2 network: add --ros"),
        (["doctor", "--ros", "--domain", "999"], "no ROS 2 domain '999'"),
    ):
        assert main(words) == 1
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1


def test_two_types_on_a_topic_are_a_failure():
    ends = [Endpoint("/x", kind, "/n", True, latched) for kind, latched in (("a/msg/A", False), ("b/msg/B", True))]
    found = of_topic("/x", ends, Heard())
    assert (found.level, found.what) == ("problem", "/x")
    assert found.found == "a/msg/A and b/msg/B, nothing came, reliable, transient local; reliable, volatile, by /n, /n"


def test_a_node_that_publishes_a_topic_twice_is_a_note():
    ends = [Endpoint("/x", "a/msg/A", name, True, False) for name in ("/arm", "/arm", "/hand")]
    found = of_topic("/x", ends, Heard())
    assert (found.level, found.remedy) == (
        "note", "/arm publishes it twice: was it started twice? (one that was killed is seen for another 10 s)"
    )  # fmt: skip
    assert of_topic("/x", ends[1:], Heard()).level == "ok"
