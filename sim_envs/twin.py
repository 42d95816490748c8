"""The twin: a MuJoCo arm and a task's world as one `Robot` and `Environment`, driven by any clock."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import mujoco
import numpy as np

from robopolicy.errors import ContractError, UnknownCamera, UnknownName, UsageError
from robopolicy.interfaces import Clock, Task
from robopolicy.rotations import matrix_to_quat
from robopolicy.spec import CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation, Shape
from sim_envs.arm_body import ArmBody
from sim_envs.calibration import calibrate
from sim_envs.rendering import Decoration, Painter
from sim_envs.servo import RATE_HZ
from sim_envs.shapes import make_shapes, poses_of
from sim_envs.tracked import place_objects, tracked_of

CAMERAS = ("front", "wrist")  # drawn if none are named
OFFERED = (*CAMERAS, "side")
TASKS_HZ = 20.0  # at which tasks count their `max_steps`
HOME_POSITION = np.array([0.45, 0.0, 0.20])  # m, of the tool
HOME_QUAT = np.array([0.0, 1.0, 0.0, 0.0])  # the tool points down, its x forward
START_SPREAD = np.array([0.05, 0.05, 0.03])  # m, +- of the tool at a reset
START_YAW = 0.25  # rad, +-
SUBSTEP_NS = 2_000_000
SUBSTEPS_A_TICK = round(1e9 / RATE_HZ / SUBSTEP_NS)
PICTURE = (240, 320)  # (H, W), for people


class Twin(ArmBody):
    """A simulated arm at one task.

    Time passes for it by ``clock``: each `read` integrates the physics, 2 ms at a time, up to the clock's now. So it
    runs in lock-step under a `SimClock` and in real time under a `WallClock`. A set-point takes force at its due time
    (never before it was given), at the next 10 ms tick of the tool servo.

    The state ``tool_quat`` has the sign that puts it on the side of the home pose (0, 1, 0, 0): the usual w >= 0
    would flip at random, since w is zero whenever the tool points straight down.

    Args:
        task: what is on the table.
        clock: shared with the loop.
        cameras: names among `OFFERED` to draw; None is `CAMERAS`, () draws nothing and needs no GL.
        rate_hz: steps a second that the spec offers; an episode lasts as many seconds at any rate.
        size: (H, W) of each camera's picture, pixels.
        action: what it is commanded with: ``"tool_pose"``, or ``"joint"``: seven joint positions and the gripper.
        camera_hz: pictures a second of each camera; reads between them repeat the last with its own stamp. None draws
            at each read.

    Raises:
        UnknownCamera, UnknownName: naming the ones there are.
    """

    default_cameras: tuple[str, ...] = CAMERAS
    offered_cameras: tuple[str, ...] = OFFERED

    def __init__(
        self,
        task: Task,
        clock: Clock,
        *,
        cameras: tuple[str, ...] | None = None,
        rate_hz: float = 20.0,
        size: tuple[int, int] = (96, 96),
        action: str = "tool_pose",
        camera_hz: float | None = None,
    ) -> None:
        cameras = self.default_cameras if cameras is None else tuple(cameras)
        for name in cameras:
            if name not in self.offered_cameras:
                raise UnknownCamera("camera", name, self.offered_cameras)
        if action not in self.actions:
            raise UnknownName("action of the twin", action, self.actions)
        self._task, self._clock, self._size = task, clock, size
        scene = task.build()
        self._stick = bool(getattr(task, "stick", False))  # then the gripper holds it, whatever is commanded
        self._add_body(scene)
        self.model: mujoco.MjModel = scene.compile()
        self.data = mujoco.MjData(self.model)
        task.bind(self.model, self.data)
        self.instruction = task.instruction
        self.max_steps = max(round(task.max_steps * rate_hz / TASKS_HZ), 1)
        self.modes: tuple[str, ...] = tuple(getattr(task, "modes", ()))
        self._drive = self._make_drive(action)
        self._picture_ns = 0 if camera_hz is None else round(1e9 / camera_hz)
        self._shown: tuple[int, dict[str, np.ndarray]] | None = None  # stamp and pictures
        self._painter: Painter | None = None
        self.decorations: tuple[Decoration, ...] = ()  # drawn beside the model; nothing touches them
        self._find_parts()
        self.reset(0)
        units: Any = getattr(task, "units", {})
        queries = {k: StateSpec(len(v), units.get(k, ("1",))) for k, v in task.queries().items()}
        self.spec = PolicySpec(
            cameras={name: CameraSpec(*size) for name in cameras},
            state={**self.body_state, **queries},
            action=self._drive.action,
            rate_hz=rate_hz,
        )

    @property
    def task(self) -> Task:
        """What is on the table."""
        return self._task

    def reset(self, seed: int) -> None:
        """Put arm and objects into the start that ``seed`` names; time goes on."""
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        self._start_body(rng)
        self._task.reset(rng)
        self._begin()

    def reset_to(self, state: Mapping[str, np.ndarray], *, set_point: np.ndarray | None = None) -> None:
        """Put arm and objects where ``state`` says, as observed or recorded; time goes on.

        Args:
            state: ``q`` (7,), ``gripper`` (1,) and the poses of the task's objects; ``dq`` (7,) or else at rest.
            set_point: (A,) the command in force there, which an object in the gripper needs; None is the pose itself.

        Raises:
            ContractError: naming what it lacks, or what is no such state.
            UsageError: if the task's objects cannot be placed.
        """
        for name, length in self.placed_by.items():
            if np.shape(state.get(name)) != (length,) or not np.isfinite(state[name]).all():
                raise ContractError(f"state wants {length} finite number(s) {name}; it has {state.get(name)}")
        if lacking := [name for name in getattr(self._task, "placed", ()) if name not in state]:
            raise ContractError(f"state has no {', '.join(lacking)}, by which {type(self._task).__name__} is placed")
        mujoco.mj_resetData(self.model, self.data)
        self._place_body(state)
        self._task.reset(np.random.default_rng(0))  # what it kept of an episode before is forgotten
        if (place := getattr(self._task, "place", None)) is not None:
            place(state)
        if place is None or getattr(self._task, "tracked", ()):
            place_objects(self.data, tracked_of(self._task), state)
        self._begin()
        if set_point is not None:
            self._set_point = self._held = self._drive.checked(set_point)
            self._drive.aim(self._set_point)

    def _begin(self) -> None:
        mujoco.mj_forward(self.model, self.data)
        self._time_ns = self._clock.now_ns()  # of the physics, on the robot's clock
        self._substeps = 0
        self._waiting: list[tuple[int, np.ndarray]] = []
        self._agenda: list[tuple[int, Callable[[int], None]]] = []
        self._best = 0.0
        self._shown = None
        self._set_point = self._drive.present(self.data, self._opening())
        self._held: np.ndarray | None = self._set_point
        self._drive.aim(self._set_point)

    def advance(self) -> int:
        """Let the physics catch up with the clock, draw nothing; return the time it has come to."""
        self._advance()
        return self._time_ns

    def call_at(self, stamp_ns: int, call: Callable[[int], None]) -> None:
        """Have ``call`` called, with the time, when the physics comes to the first tick of 10 ms from ``stamp_ns`` on.

        It may change model and data, and ask to be called again. A reset forgets it.
        """
        self._agenda.append((stamp_ns, call))

    def retexture(self) -> None:
        """Draw from now on with the textures that ``model.tex_data`` holds now."""
        if self._painter is not None:
            self._painter.retexture()

    def read(self) -> Observation:
        """Let the physics catch up with the clock and return what the arm and the cameras see now."""
        self._advance()
        stamp_ns, images = self._pictures()
        return Observation(self._time_ns, self._state(), images, dict.fromkeys(images, stamp_ns))

    def observed_state(self) -> dict[str, np.ndarray]:
        """Return the state of an observation as of the newest `advance` or `read`, and draw nothing."""
        return self._state()

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Take the set-point ``action`` (A,) from ``due_ns`` on; return it as it was sent (A,) float32.

        Raises:
            UnsafeCommand: on a wrong length, a non-finite number or two parallel rotation columns.
        """
        sent = self._drive.checked(action)
        self._waiting.append((max(due_ns, self._clock.now_ns()), sent))
        self._waiting.sort(key=lambda item: item[0])
        self._held = None
        return sent.copy()

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold the arm where it is now and keep the grip; a repeated stop holds the same place. Return it (A,)."""
        if self._held is None:
            self._advance()
            self._waiting.clear()
            grip = self._set_point[-1]
            self._set_point = self._drive.present(self.data, self._opening())
            self._set_point[-1] = grip
            self._drive.aim(self._set_point)
            self._held = self._set_point
        return self._held.copy()

    def close(self) -> None:
        """Free the renderer; idempotent."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def success(self) -> bool:
        """Whether the task is done, as of the newest read."""
        return self._task.success()

    def score(self) -> float:
        """How far the episode came at its best, 0 to 1."""
        return self._best

    def mode(self) -> str | None:
        """Which of ``modes`` the episode so far is; None while that is not decided, or if the task has none."""
        ask = getattr(self._task, "mode", None)
        return None if ask is None else ask()

    def failure(self) -> str:
        """What has gone wrong and is so as of the newest read, as a slug; "" when nothing has."""
        return str(getattr(self._task, "failure", str)())

    def disturb(self, rng: np.random.Generator) -> str:
        """Do to the task's objects what no demonstration holds; return what, in words.

        Raises:
            UsageError: if the task has no disturbance.
        """
        disturb = getattr(self._task, "disturb", None)
        if disturb is None:
            raise UsageError(f"task {type(self._task).__name__} has no disturbance; give it a method disturb(rng)")
        what: str = disturb(rng)
        mujoco.mj_forward(self.model, self.data)
        return what

    def picture(self) -> np.ndarray:
        """Return a view of the scene for people, (240, 320, 3) uint8 RGB, smoothed and with shadows."""
        height, width = PICTURE
        fine = self._draw("view", 2 * height, 2 * width, shadows=True).astype(np.uint16)
        return (fine.reshape(height, 2, width, 2, 3).sum(axis=(1, 3)) // 4).astype(np.uint8)

    def draw(self, camera: str, height: int, width: int) -> np.ndarray:
        """Return what any camera of the model sees now, (height, width, 3) uint8 RGB."""
        return self._draw(camera, height, width)

    def camera_calibration(self) -> dict[str, dict[str, Any]]:
        """Return ``{camera: {"K": 3x3, "T_base_cam": 4x4, "size": [H, W]}}`` as lists, as the cameras stand now.

        OpenCV's convention: x right, y down, z into the scene, the centre of the first pixel at (0, 0). What moves
        with the hand also has the constant ``"T_tool_cam"``.
        """
        return {name: calibrate(self.model, self.data, name, *self._size) for name in self.spec.cameras}

    def shapes(self) -> list[Shape]:
        """Return every visible part of arm, table and objects, for 3-D views."""
        return self._parts[0]

    def poses(self) -> dict[str, np.ndarray]:
        """Return each part's pose as of the newest read, ``{name: (7,) float32 x y z qw qx qy qz}``."""
        return poses_of(self.data, *self._parts)

    @cached_property
    def _parts(self) -> tuple[list[Shape], np.ndarray]:
        return make_shapes(self.model)

    def _advance(self) -> None:
        left = (self._clock.now_ns() - self._time_ns) // SUBSTEP_NS
        self._time_ns += left * SUBSTEP_NS
        tick_ns = self._time_ns - left * SUBSTEP_NS
        while left > 0:
            into_tick = self._substeps % SUBSTEPS_A_TICK
            if into_tick == 0:
                self._tick(tick_ns)
            n = min(left, SUBSTEPS_A_TICK - into_tick)
            mujoco.mj_step(self.model, self.data, n)
            self._substeps += n
            left -= n
            tick_ns += n * SUBSTEP_NS
        mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves the poses of one substep ago
        mujoco.mj_camlight(self.model, self.data)
        getattr(self._task, "watch", lambda: None)()
        progress = getattr(self._task, "progress", self._task.success)
        self._best = max(self._best, float(progress()))

    def _tick(self, now_ns: int) -> None:
        if self._agenda:
            due = [call for stamp_ns, call in self._agenda if stamp_ns <= now_ns]
            self._agenda = [item for item in self._agenda if item[0] > now_ns]
            for call in due:
                call(now_ns)
        braked = getattr(self._task, "braked", bool)()
        while self._waiting and self._waiting[0][0] <= now_ns:
            due = self._waiting.pop(0)[1]
            if not braked:
                self._set_point = due
                self._drive.aim(due)
        self._actuate()

    def _pictures(self) -> tuple[int, dict[str, np.ndarray]]:
        """Return the newest pictures, fresh arrays, and when they were taken; due ones are drawn on a fixed grid."""
        now_ns, period_ns = self._time_ns, self._picture_ns
        if not period_ns or self._shown is None or now_ns // period_ns > self._shown[0] // period_ns:
            self._shown = now_ns, {name: self._draw(name, *self._size) for name in self.spec.cameras}
        stamp_ns, images = self._shown
        return stamp_ns, {name: image.copy() for name, image in images.items()} if period_ns else images

    def _state(self) -> dict[str, np.ndarray]:
        quat = matrix_to_quat(self.data.site_xmat[self._site].reshape(3, 3))
        state = {
            **self._own_state(),
            "tool_pos": self.data.site_xpos[self._site],
            "tool_quat": quat if quat @ HOME_QUAT >= 0 else -quat,
            "gripper": [self._opening()],
            **self._task.queries(),
        }
        return {name: np.array(value, dtype=np.float32) for name, value in state.items()}

    def _start(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw where the tool starts (3,) m, and how it is turned, wxyz."""
        half_yaw = rng.uniform(-START_YAW, START_YAW) / 2
        spread = np.asarray(getattr(self._task, "home_spread", START_SPREAD))
        position = np.asarray(getattr(self._task, "home", HOME_POSITION)) + rng.uniform(-spread, spread)
        return position, np.array([0, np.cos(half_yaw), np.sin(half_yaw), 0])

    def _draw(self, camera: str, height: int, width: int, *, shadows: bool = False) -> np.ndarray:
        if self._painter is None:
            self._painter = Painter(self.model)
        return self._painter.draw(self.data, camera, height, width, shadows=shadows, decorations=self.decorations)
