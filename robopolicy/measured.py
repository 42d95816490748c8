"""Where a robot is, said as the command that would hold it there."""

import numpy as np

from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import ActionSpec
from robopolicy.types import Observation


def measured_action(observation: Observation, action: ActionSpec) -> np.ndarray | None:
    """Return the command (A,) float64 that holds the robot where it was observed; None if that is not known.

    Joints are the states ``q`` and ``gripper`` together, a tool pose ``tool_pos``, ``tool_quat`` and ``gripper``; of
    other kinds nothing is known.
    """
    state = observation.state
    gripper = np.asarray(state.get("gripper", np.empty(0)), np.float64)
    if action.kind == "joint":
        found = np.concatenate([np.asarray(state.get("q", np.empty(0)), np.float64), gripper])
    elif action.kind == "tool_pose" and {"tool_pos", "tool_quat"} <= state.keys():
        rotation = matrix_to_rot6d(quat_to_matrix(np.asarray(state["tool_quat"], np.float64)))
        found = np.concatenate([np.asarray(state["tool_pos"], np.float64), rotation, gripper])
    else:
        return None
    return found if len(found) == action.dim else None
