"""The bytes of messages: as a real rclpy makes them."""

import json
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

from robopolicy.errors import UnknownName
from robopolicy_hardware.ros.codec import decoded, encoded, hashed, message

GOLDEN = Path(__file__).parents[2] / "shared" / "ros2_golden_cdr.json"

# As rclpy.serialization.serialize_message of ROS 2 Jazzy gave them, of messages filled at random.
REAL = {
    "std_msgs/msg/Float64MultiArray": (
        "0001000001000000040000002f5f62000e949409d090c2603de74d330200000000000000000000c0c3de1cc0000000205c22f53f"
    ),
    "std_msgs/msg/Float64": "00010000000000e008f214c0",
    "std_msgs/msg/Bool": "0001000000",
    "std_msgs/msg/Int64": "00010000d698ac4e3dd0ff32",
    "std_msgs/msg/String": "00010000020000006100",
    "rmw_dds_common/msg/ParticipantEntitiesInfo": (
        "000100007a6a311c5a55422a484b7c526d1c0c1001000000050000002f5f5f6300000000060000002f61622f2f0000000300"
        "0000706a39406a564f2c0a1c19701f7959461e50611f2a72167f571f5219193e7e3e7c560b2a0f036d544e3e5a251230082d"
        "030000005b6f43352935672f2c3d762448522951483d312a48082421066f0d5972256d37285b2c11435f550c4e277b0d776a"
        "1604"
    ),
    "sensor_msgs/msg/JointState": (
        "0001000012d86c6cc08afb67020000002f0000000100000001000000000000000300000000000060058cfb3f00000080"
        "cce112400000002086da05c002000000000000000000002011e010400000000023b119c00200000000000000000000c0"
        "74ecd23f000000c01f370040"
    ),
    "sensor_msgs/msg/Image": (
        "00010000f8f7b508a026280f0100000000000000fb405c471b5751090500000063622f5f005600007ea95c0402000000573c"
    ),
    "sensor_msgs/msg/CompressedImage": "00010000d51192294115da3a02000000620000000800000062615f6361626100010000006e",
    "sensor_msgs/msg/CameraInfo": (
        "0001000030527b422ab944060200000063000000442a4574a0afd14302000000630000000100000000000000000000e0"
        "70d215400000000048f9fabf00000020dcf3204000000020f6fe20c0000000803dd2f73f00000080d4a41ac000000060"
        "782913400000002026f02040000000001384c2bf000000e05c93184000000060143913c000000000a2fc20c0000000c0"
        "36d51540000000c066c3f9bf00000060eff21dc0000000e075e008400000008049e11c4000000020a1f71dc0000000a0"
        "75e8ff3f000000a09ef105c000000020d87820c0000000c065ba1ec000000020185e20c0000000e0a9d50bc000000020"
        "38aa0bc0000000c08892e53f00000080f0620140000000603c3b1940000000400ca6194000000060b3ad17c0000000c0"
        "a7610240b001fa3fd4c0cb53d895903b1069903f9ac7ba3776cd8f4f00"
    ),
    "sensor_msgs/msg/Joy": "00010000677a40775a92a83d040000006162610001000000952db540010000009fe99509",
    "geometry_msgs/msg/PoseStamped": (
        "000100000bec3e263a581c47020000002f000000000000605cac1440000000e041d91340000000204871f8bf00000040"
        "8af42140000000c077f11440000000406fc9f53f000000c0c8d31bc0"
    ),
    "geometry_msgs/msg/TwistStamped": (
        "00010000ff439f51f789c24f060000002f615f635f0000000000000000000020f9461940000000607f2111c0000000a0"
        "30af214000000020e7fe044000000000c37e09c00000000091a12140"
    ),
    "geometry_msgs/msg/Twist": (
        "0001000000000020a23c0c400000006049c714c00000004078ebf0bf000000e05376064000000020e443fd3f00000040ab1e18c0"
    ),
    "trajectory_msgs/msg/JointTrajectory": (
        "000100009696870e8d0ec727020000006100000001000000050000006263636200000000010000000200000000000060"
        "673f1b4000000020222af9bf0300000000000000000000c099a11a4000000040ecefeb3f00000000c57b194002000000"
        "00000000000000a06ea320c000000000a8ae03400200000000000000000000402bef1e400000008031340940a426c363"
        "f5f78a4e"
    ),
    "rosgraph_msgs/msg/Clock": "0001000071f90a54e789ed02",
    "diagnostic_msgs/msg/DiagnosticArray": (
        "00010000d888353c4de6ea220600000062625f62630000000200000070000000040000002f612f0008000000635f5f5f"
        "635f5f00020000006200000002000000010000000000000006000000615f2f5f63000000030000006261000005000000"
        "5f5f5f6300ee0000020000005f000000050000002f612f62000000000700000061625f615f2f00000100000003000000"
        "612f0000020000006100"
    ),
}


@pytest.mark.parametrize("kind", REAL)
def test_what_rclpy_made_is_made_again_byte_by_byte(kind):
    cdr = bytes.fromhex(REAL[kind])
    read = decoded(cdr, kind)
    assert isinstance(read, message(kind))
    assert encoded(read, kind) == cdr


def test_so_are_all_the_vectors_that_were_recorded():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN.name} is not beside the checkout")
    recorded = json.loads(GOLDEN.read_text())["messages"]
    for kind, vectors in recorded.items():
        for vector in vectors:
            cdr = bytes.fromhex(vector)
            assert encoded(decoded(cdr, kind), kind) == cdr, kind
    assert set(REAL) <= set(recorded)


def test_a_hash_and_a_name():
    assert hashed("sensor_msgs/msg/JointState").startswith(
        "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9"
    )
    with pytest.raises(UnknownName, match="no message type 'sensor_msgs/msg/Jointstate'; valid: sensor_msgs/msg/"):
        message("sensor_msgs/msg/Jointstate")
