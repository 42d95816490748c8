"""Node names on the wire: who reads and writes what, as every ROS 2 node sees it, over real DDS on loopback."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import LOOPBACK
from served_twin import until

from robopolicy.errors import UsageError
from robopolicy_hardware.ros.codec import decoded
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.dds_types import struct_of

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAINS = itertools.count(10 + os.getpid() % 60)
NUMBER, INFO = "std_msgs/msg/Float64", "rmw_dds_common/msg/ParticipantEntitiesInfo"
OTHER = """
import sys
from robopolicy_hardware.ros.dds import Topics
topics = Topics(int(sys.argv[1]), node="lab/arm")
kept = topics.publisher("/x", "std_msgs/msg/Float64"), topics.subscribe("/y", "std_msgs/msg/Float64")
print("up", flush=True)
sys.stdin.read()
topics.close()
"""


@pytest.fixture
def domain():
    return next(DOMAINS)


@pytest.fixture
def other(domain):
    """A node of another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(domain)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_plain_dds_reader_finds_every_endpoint_under_our_name(domain):
    from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.qos import Policy, Qos
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic
    from cyclonedds.util import duration

    ours = Topics(domain, node="lab/policy")
    ours.publisher("/x", NUMBER)
    ours.subscribe("/y", NUMBER)
    participant = DomainParticipant(domain)
    reliable = Policy.Reliability.Reliable(duration(seconds=1))
    qos = Qos(reliable, Policy.Durability.TransientLocal, Policy.History.KeepLast(1))
    reader = DataReader(participant, Topic(participant, "ros_discovery_info", struct_of(INFO)), qos=qos)
    published = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
    subscribed = BuiltinDataReader(participant, BuiltinTopicDcpsSubscription)

    def there():
        infos = [decoded(one.cdr, INFO) for one in reader.take(N=10) if hasattr(one, "cdr")]
        return infos[-1] if infos else None

    info = until(there)  # told before this reader was there: it lasts
    (node,) = info.node_entities_info_seq
    assert (node.node_namespace, node.node_name) == ("/lab", "policy")
    assert len(info.gid.data) == 16

    def guids(builtin, topic):
        return {one.key.bytes for one in builtin.read(N=1000) if one.topic_name == topic}

    assert {bytes(gid.data) for gid in node.writer_gid_seq} == until(lambda: guids(published, "rt/x"))
    assert {bytes(gid.data) for gid in node.reader_gid_seq} == until(lambda: guids(subscribed, "rt/y"))
    told = [one for one in published.read(N=1000) if one.topic_name == "ros_discovery_info"]
    hashes = {bytes(one.qos[Policy.Userdata].data) for one in told}
    assert hashes == {b"typehash=RIHS01_91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e;"}
    ours.close()


def test_nodes_of_other_processes_are_seen_by_name_and_so_is_who_publishes(domain, other):
    ours = Topics(domain)
    ours.publisher("/x", NUMBER)
    until(lambda: ours.nodes() == ["/lab/arm", "/robopolicy"])
    until(lambda: sorted(ours.publishing_nodes("/x")) == ["/lab/arm", "/robopolicy"])
    assert ours.publishing_nodes("/y") == []
    other.stdin.close()  # it leaves in order: at once, not after ten seconds
    until(lambda: ours.nodes() == ["/robopolicy"])
    until(lambda: ours.publishing_nodes("/x") == ["/robopolicy"])
    ours.close()
    assert ours.nodes() == []


def test_who_tells_no_name_is_seen_by_its_guid(domain):
    ours, nameless = Topics(domain), Topics(domain, node="")
    nameless.publisher("/x", NUMBER)
    until(lambda: [name for name in ours.publishing_nodes("/x") if name.startswith("guid ")])
    assert ours.nodes() == ["/robopolicy"]
    nameless.close()
    ours.close()


def test_what_is_opened_later_is_told_too_and_what_is_closed_no_more(domain, other):
    ours = Topics(domain, node="late")
    until(lambda: "/lab/arm" in ours.nodes())
    watcher = Topics(domain, node="watcher")
    until(lambda: "/late" in watcher.nodes())
    first = ours.publisher("/later", NUMBER)
    until(lambda: watcher.publishing_nodes("/later") == ["/late"])
    first.close()
    ours.subscribe("/something", NUMBER)
    until(lambda: watcher.publishing_nodes("/later") == [])
    watcher.close()
    ours.close()


@pytest.mark.parametrize("name", ["a b", "1st", "lab//x", "näh"])
def test_names_that_ros_does_not_have_are_refused(domain, name):
    with pytest.raises(UsageError, match="is no node's name; want letters, digits and _"):
        Topics(domain, node=name)


def test_bytes_that_are_no_name_do_no_harm(domain):
    ours = Topics(domain)
    until(lambda: ours.nodes() == ["/robopolicy"])
    ours._announced._hear(b"\0\1\0\0" + bytes(range(9)))  # CycloneDDS would not send them
    assert (ours.nodes(), ours._announced.unread) == (["/robopolicy"], 1)
    ours.close()


LOOKING = """
import sys, threading, time
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.dds_discovery import everybody, look
topics = Topics(int(sys.argv[1]), node="crowd")
kinds = ("std_msgs/msg/Float64", "std_msgs/msg/Bool", "std_msgs/msg/String", "sensor_msgs/msg/JointState")
kept = [topics.publisher(f"/t{k}", kind, latched=k % 2 == 0) for k, kind in enumerate(kinds)]
def seen(ends):
    return sorted((one.topic_name, str(one.qos)) for one in look(*ends))
ends = [everybody(topics._participant, "Publication") for _ in range(6)]
alone, over = seen(ends[0]), time.monotonic() + 2.0
def together(mine):
    while time.monotonic() < over:
        assert seen(mine) == alone
threads = [threading.Thread(target=together, args=(mine,)) for mine in ends]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_many_threads_look_at_once_and_see_what_one_sees(domain):
    """Every subscription looks for itself when nothing comes: cyclonedds reads QoS through buffers of a class."""
    done = subprocess.run([sys.executable, "-c", LOOKING, str(domain)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
