"""What a twin that follows a robot publishes: its joints, its objects, how far it can be believed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.node_messages import STRING
from robopolicy_hardware.ros.set_points import JOINT_STATE, NUMBER, POSE, header
from robopolicy_hardware.ros.transport import Transport


class TwinTopics:
    """The topics of a following twin, below a prefix.

    ``joint_states`` (JointState), ``OBJECT_pose`` (PoseStamped) for each object, ``confidence`` (Float64, 0 to 1, the
    worst object's), ``health`` (String of JSON: confidence, innovation, age, dropouts, rejections, divergence of each).

    Args:
        transport: carries the topics.
        prefix: as in ``/twin``.
        joints: names in the order of ``q``.
        objects: names.
    """

    def __init__(self, transport: Transport, prefix: str, joints: Sequence[str], objects: Sequence[str]) -> None:
        prefix = prefix.rstrip("/")
        self._joints = list(joints)
        self._states = transport.publisher(f"{prefix}/joint_states", JOINT_STATE)
        self._poses = {name: transport.publisher(f"{prefix}/{name}_pose", POSE) for name in objects}
        self._confidence = transport.publisher(f"{prefix}/confidence", NUMBER)
        self._health = transport.publisher(f"{prefix}/health", STRING)

    def tell(
        self, wall_ns: int, q: np.ndarray, dq: np.ndarray, poses: Mapping[str, tuple[np.ndarray, np.ndarray]],
        health: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Publish one moment.

        Args:
            wall_ns: its stamp, wall clock.
            q: (J,) rad.
            dq: (J,) rad/s.
            poses: {object: (position (3,) m, quaternion wxyz (4,))}, base frame.
            health: {object, and "twin": a dataclass of numbers}.
        """
        stamp = header(wall_ns)
        self._states.send(message(JOINT_STATE)(stamp, self._joints, np.asarray(q, np.float64),
                                               np.asarray(dq, np.float64), np.zeros(0)))  # fmt: skip
        point, quaternion = message("geometry_msgs/msg/Point"), message("geometry_msgs/msg/Quaternion")
        for name, (position, (w, x, y, z)) in poses.items():
            pose = message("geometry_msgs/msg/Pose")(
                point(*map(float, position)), quaternion(*map(float, (x, y, z, w)))
            )
            self._poses[name].send(message(POSE)(header(wall_ns, "base"), pose))
        self._confidence.send(message(NUMBER)(float(health["twin"].confidence)))
        self._health.send(message(STRING)(json.dumps({name: _json(one) for name, one in health.items()})))

    def close(self) -> None:
        """Leave the topics; idempotent."""
        for one in (self._states, self._confidence, self._health, *self._poses.values()):
            one.close()


def _json(health: Any) -> dict[str, Any]:
    """JSON knows no infinity: an age before the first measurement is null."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(health).items()}
