"""How to lift a cube: a feedback rule of what is seen now, with no plan or timer behind it."""

import numpy as np

from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.types import Command, Decision, Observation
from sim_envs.grasping import DOWN, TURN_LEAD, Grasp, about_z, shorten

LEAD = 0.007  # m, how far ahead of the tool the command runs: 0.12 m/s
HOVER = 0.08  # m above the cube where the tool waits until it is over it
CLEARANCE = 0.045  # m above the cube below which the tool must not travel sideways
FUNNEL = (0.004, 0.025)  # m beside the cube: within the first go all the way down, beyond the second hover
LIFT_TO = 0.24  # m, of the tool
GRASP_DEPTH = -0.004  # m, tool point against the cube's centre
HELD = (0.40, 0.62)  # opening of the gripper with a 4 cm cube between the fingers
CUBE = Grasp(HELD, GRASP_DEPTH, HOVER, CLEARANCE, FUNNEL)


class LiftExpert:
    """Go over the cube, down a funnel, close, lift; whatever goes wrong, the same rule starts over.

    It sees tool_pos, tool_quat, gripper, cube_pos and cube_quat, so a policy can learn it from those. Its seed sets
    the pace of an episode and a small slow wander of the commands, which makes demonstrations differ and shows how to
    come back from beside the path.
    """

    def __init__(self, wander_m: float = 0.0015) -> None:
        self.decision: Decision | None = None
        self._wander_m = wander_m
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._rng = np.random.default_rng(seed)
        self._pace = self._rng.uniform(0.85, 1.0)
        self._wander = np.zeros(3)  # m

    def act(self, observation: Observation) -> Command:
        """Return the tool pose a little ahead of where the tool is."""
        state = {name: np.asarray(value, np.float64) for name, value in observation.state.items()}
        tool_yaw, turn = turn_to_cube(state["tool_quat"], state["cube_quat"])
        goal, grip = self.where_to(state, tool_yaw, turn)
        self._wander += -0.2 * self._wander + np.sqrt(0.36) * self._wander_m * self._rng.standard_normal(3)
        move = shorten(goal - state["tool_pos"], LEAD * self._pace) + self._wander
        yaw = tool_yaw + float(np.clip(turn, -TURN_LEAD, TURN_LEAD))
        rotation = matrix_to_rot6d(about_z(yaw) @ DOWN)
        action = np.concatenate([state["tool_pos"] + move, rotation, [grip]]).astype(np.float32)
        return Command(action, "policy")

    def where_to(self, state: dict[str, np.ndarray], tool_yaw: float, turn: float) -> tuple[np.ndarray, float]:
        """Return the point to go to (3,) m and the grip to command, 0 or 1; another style is another rule here.

        Args:
            state: as observed, float64.
            tool_yaw: rad.
            turn: rad, how far the tool has to turn until it is in line with the cube.
        """
        tool, cube, opening = state["tool_pos"], state["cube_pos"], float(state["gripper"][0])
        if CUBE.holds(tool, cube, turn, opening):
            return np.array([tool[0], tool[1], LIFT_TO]), 0.0
        return CUBE.approach(tool, cube, turn, opening)


def turn_to_cube(tool_quat: np.ndarray, cube_quat: np.ndarray) -> tuple[float, float]:
    """Return the tool's yaw and the turn (rad, within +-45 degrees) that lines it up with the cube's sides."""
    tool, cube = quat_to_matrix(tool_quat), quat_to_matrix(cube_quat)
    tool_yaw = float(np.arctan2(tool[1, 0], tool[0, 0]))
    flat = int(np.argmin(np.abs(cube[2])))  # an edge of the cube that lies level
    cube_yaw = float(np.arctan2(cube[1, flat], cube[0, flat]))
    turn = (cube_yaw - tool_yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
    return tool_yaw, float(turn)
