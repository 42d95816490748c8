"""The topics that a robot without a file of its own is served on: the usual names of ROS 2."""

from robopolicy.errors import ConfigError
from robopolicy.spec import PolicySpec, StateSpec
from robopolicy.topics.config import ActionTopic, CameraTopic, NumbersTopic, TopicConfig
from robopolicy_hardware.ros.set_points import ARRAY, POSE

JOINT_STATES, TOOL = "/joint_states", "/tool_pose"
FINGER, FINGER_OPEN = "finger", 0.04  # joint of the gripper in /joint_states, m when it is open
CAMERA_AGE_S = 0.2  # a simulated camera shares its cores with everything else


def usual_topics(spec: PolicySpec, joints: tuple[str, ...], *, compressed: bool = False) -> TopicConfig:
    """Return the topics of an arm with a gripper, and of what else its spec observes.

    ``q``, ``dq`` and ``gripper`` are ``/joint_states``, ``tool_pos`` and ``tool_quat`` are ``/tool_pose``, an object's
    ``NAME_pos`` and ``NAME_quat`` are ``/NAME_pose``, any other state is an array ``/NAME`` without a stamp, a camera
    is ``/NAME/image_raw``. Joint positions are taken on ``/joint_commands``, tool poses on ``/tool_commands``, the
    gripper on ``/gripper_commands``.

    Args:
        spec: of the robot.
        joints: names of its joints, in the order of ``q``.
        compressed: JPEG pictures on ``/NAME/image_raw/compressed``.

    Raises:
        ConfigError: if it is commanded with neither joint positions nor tool poses.
    """
    gripper = NumbersTopic("/gripper_commands", ARRAY, closed=0.0, open=1.0, align="after")
    if spec.action.kind == "joint":
        action = ActionTopic("/joint_commands", ARRAY, kind="joint", names=joints, units=("rad",), gripper=gripper,
                             align="after")  # fmt: skip
    elif spec.action.kind == "tool_pose":
        action = ActionTopic("/tool_commands", POSE, kind="tool_pose", frame="base", gripper=gripper, align="after")
    else:
        raise ConfigError(f"a robot of {spec.action.kind} actions has no usual topics; want joint or tool_pose")
    cameras = {
        name: CameraTopic(f"/{name}/image_raw{'/compressed' * compressed}", max_age_s=CAMERA_AGE_S)
        for name in spec.cameras
    }
    state = {name: _state(name, part, spec, joints) for name, part in spec.state.items()}
    primary = next(iter(cameras), None)
    return TopicConfig(spec.rate_hz, action, state, cameras, primary, robot="twin")


def _state(name: str, part: StateSpec, spec: PolicySpec, joints: tuple[str, ...]) -> NumbersTopic:
    if name in ("q", "dq"):
        return NumbersTopic(JOINT_STATES, field="position" if name == "q" else "velocity", joints=joints)
    if name == "gripper":
        return NumbersTopic(JOINT_STATES, joints=(FINGER,), closed=0.0, open=FINGER_OPEN)
    body, _, what = name.rpartition("_")
    if body and {f"{body}_pos", f"{body}_quat"} <= set(spec.state) and what in ("pos", "quat"):
        return NumbersTopic(f"/{body}_pose", POSE, "pose.position" if what == "pos" else "pose.orientation")
    return NumbersTopic(f"/{name}", ARRAY, units=part.units, stamp="bag")
