"""A robot made of a few numbers: it follows its commands with a first-order lag and draws its cameras' pictures."""

from collections import deque
from dataclasses import replace

import numpy as np

from robopolicy.errors import UnsafeCommand
from robopolicy.interfaces import Clock
from robopolicy.rotations import matrix_to_quat, matrix_to_rot6d, quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation

ARM = PolicySpec(
    cameras={"front": CameraSpec(96, 96)},
    state={
        "tool_pos": StateSpec(3, ("m",)),
        "tool_quat": StateSpec(4, ("1",)),
        "gripper": StateSpec(1, ("open",)),
    },
)
HOME = (0.4, 0.0, 0.3)  # m, in front of the base
DOWN = (0.0, 1.0, 0.0, 0.0)  # wxyz, the tool looks down


class MockRobot:
    """Satisfies ``robopolicy.interfaces.Robot`` without simulating anything.

    The set-point in force is approached as exp(-t / lag_s). Of the states, ``tool_pos``, ``tool_quat``,
    ``gripper`` and ``q`` follow it where the action says what they are; any other as long as the action is the
    set-point as reached, the rest are zeros.

    Args:
        spec: what it pretends to be; None is an arm that takes tool poses and has one camera.
        clock: time passes by it.
        lag_s: time constant.
    """

    def __init__(self, spec: PolicySpec | None, clock: Clock, *, lag_s: float = 0.1) -> None:
        self.spec = replace(spec or ARM, n_obs=1, horizon=1, n_execute=1)
        self._clock = clock
        self._lag_s = lag_s
        self._now_ns = clock.now_ns()
        self._at = np.zeros(self.spec.action.dim)  # (A,) where it is, in units of the action
        if self.spec.action.kind == "tool_pose":
            self._at[:] = [*HOME, *matrix_to_rot6d(quat_to_matrix(np.array(DOWN))), 1.0]
        self._target = self._at.copy()
        self._waiting: deque[tuple[int, np.ndarray]] = deque()  # set-points not yet due

    def read(self) -> Observation:
        """Return where it is now, and a picture from each camera."""
        self._advance(self._clock.now_ns())
        state = {name: self._state(name, part.dim) for name, part in self.spec.state.items()}
        images = {name: self._picture(camera) for name, camera in self.spec.cameras.items()}
        return Observation(self._now_ns, state, images, dict.fromkeys(images, self._now_ns))

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Approach ``action`` (A,) from ``due_ns`` on; a set-point for a later time than this one is dropped.

        Raises:
            UnsafeCommand: on a wrong length or a non-finite number; the previous set-point stays.
        """
        if np.shape(action) != self._at.shape:
            raise UnsafeCommand(f"command has shape {np.shape(action)}; want ({self.spec.action.dim},)")
        if not np.all(np.isfinite(action)):
            raise UnsafeCommand("command is not finite")
        while self._waiting and self._waiting[-1][0] >= due_ns:
            self._waiting.pop()
        self._waiting.append((due_ns, np.array(action, dtype=np.float64)))
        return np.array(action, dtype=np.float32)

    def stop(self, reason: str = "") -> np.ndarray:
        """Stay where it is; return that set-point (A,)."""
        self._advance(self._clock.now_ns())
        self._waiting.clear()
        self._target = self._at.copy()
        return self._at.astype(np.float32)

    def close(self) -> None:
        """There is nothing to release."""

    def _advance(self, now_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= now_ns:
            due_ns, target = self._waiting.popleft()
            self._approach(max(due_ns, self._now_ns))
            self._target = target
        self._approach(now_ns)

    def _approach(self, until_ns: int) -> None:
        left = np.exp(-(until_ns - self._now_ns) / 1e9 / self._lag_s)
        self._at = self._target + left * (self._at - self._target)
        self._now_ns = until_ns

    def _state(self, name: str, dim: int) -> np.ndarray:
        pose = self.spec.action.kind == "tool_pose"
        value: np.ndarray = np.zeros(dim)
        if pose and name == "tool_pos":
            value = self._at[:3]
        elif pose and name == "tool_quat":
            value = matrix_to_quat(rot6d_to_matrix(self._at[3:9]))
        elif name == "gripper" and self.spec.action.kind != "vector":
            value = self._at[-1:]
        elif (name == "q" and dim <= len(self._at)) or dim == len(self._at):
            value = self._at[:dim]
        return value.astype(np.float32)  # always a copy

    def _picture(self, camera: CameraSpec) -> np.ndarray:
        rows, columns = np.mgrid[: camera.height, : camera.width]
        shift = 40.0 * float(np.sum(self._at))
        image = np.stack([rows + shift, columns + 2 * shift, rows + columns + 3 * shift], axis=-1)
        return (image % 256).astype(np.uint8)
