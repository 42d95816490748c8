"""robosuite's tasks as a `Robot` and `Environment`: its Panda and its controller, our conventions."""

from typing import Any

import numpy as np

from robopolicy.errors import UnknownCamera, UnknownTask, UnsafeCommand, UsageError
from robopolicy.interfaces import Clock
from robopolicy.rotations import matrix_to_quat, matrix_to_rot6d, matrix_to_rotvec, quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import TOOL_POSE, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation
from sim_envs.robosuite_compat import load_robosuite, undisturbed

TASKS = {  # those of one arm, in words
    "Lift": "lift the cube",
    "Stack": "stack the red cube on the green one",
    "NutAssemblySquare": "put the square nut on its peg",
    "NutAssemblyRound": "put the round nut on its peg",
    "PickPlaceCan": "put the can into its bin",
    "PickPlaceMilk": "put the milk into its bin",
    "PickPlaceBread": "put the bread into its bin",
    "PickPlaceCereal": "put the cereal into its bin",
    "Door": "open the door",
    "ToolHang": "assemble the frame and hang the tool on it",
}
ALIASES = {"Can": "PickPlaceCan", "Square": "NutAssemblySquare"}  # as robomimic and Diffusion Policy call them
SECONDS = {"Lift": 10, "ToolHang": 35}  # until an episode has failed; 25 in all others
CAMERAS = ("agentview", "robot0_eye_in_hand")  # drawn if none are named
SITE, HAND = "gripper0_right_grip_site", "robot0_right_hand"
R_SITE_TOOL = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # its site's y is our x, forward
HOME_QUAT = np.array([0.0, 1.0, 0.0, 0.0])  # as the twin's: the sign that tool_quat takes
STEPS_HZ = 500  # of its physics
FINGER_TRAVEL = 0.08  # m between the fingers when open
COLLISION_SHAPES = 0  # group of geoms
PICTURE = (240, 320)  # (H, W), for people


class RobosuiteEnv:
    """A robosuite task that a clock drives, commanded with absolute tool poses.

    The base frame is as the twin's: x forward from the arm, z up from the top of the table (the floor of the bins)
    below the arm's foot; robosuite's own stands up to 11 cm higher, on a pedestal. The state is that of our twin
    (``q``, ``dq``, ``tool_pos``, ``tool_quat``, ``gripper``) and what robosuite tells of the task's objects, positions
    and quaternions in the base frame, wxyz. The command goes to robosuite's own OSC_POSE controller; its gripper moves
    at its own speed, a tenth of its travel a step, towards what is commanded.

    Sizes, masses and the like that robosuite draws as it builds a model (Lift's cube: 20 to 22 mm) are always those of
    its seed 0, for `reset` keeps the model.

    Its time begins with the first command after a reset: until then nothing moves. From then on `read` plays one
    ``env.step`` for each period that has passed, with the set-point that was due when the period began.

    Args:
        task: in `TASKS`, or ``Can`` or ``Square``.
        clock: shared with the loop.
        cameras: robosuite's names; None is `CAMERAS`, () draws nothing and needs no GL.
        rate_hz: steps a second; must divide 500.
        size: (H, W) of each camera's picture, pixels.

    Raises:
        MissingExtra: if robosuite is not installed.
        UnknownTask, UnknownCamera: naming the ones there are.
        UsageError: if the rate does not divide 500.
    """

    def __init__(
        self,
        task: str,
        clock: Clock,
        *,
        cameras: tuple[str, ...] | None = None,
        rate_hz: float = 20.0,
        size: tuple[int, int] = (96, 96),
    ) -> None:
        name = ALIASES.get(task, task)
        if name not in TASKS:
            raise UnknownTask("robosuite task", task, [*TASKS, *ALIASES])
        if rate_hz <= 0 or abs(STEPS_HZ / rate_hz - round(STEPS_HZ / rate_hz)) > 1e-9:
            raise UsageError(
                f"robosuite takes {STEPS_HZ} steps a second; {rate_hz:g} Hz does not divide that: 10, 20, 25"
            )
        self._env, self._clock, self._size = _make(name, rate_hz), clock, size
        self.instruction, self.max_steps = TASKS[name], round(SECONDS.get(name, 25) * rate_hz)
        self._painter: Any = None
        self._find_parts()
        names = CAMERAS if cameras is None else tuple(cameras)
        for camera in names:
            if camera not in self._env.sim.model.camera_names:
                raise UnknownCamera("camera", camera, self._env.sim.model.camera_names)
        self.spec = PolicySpec(rate_hz=rate_hz, cameras={camera: CameraSpec(*size) for camera in names})
        self.reset(0)
        self.spec = PolicySpec(
            cameras=self.spec.cameras,
            state={key: StateSpec(len(value), _units(key)) for key, value in self._state().items()},
            action=TOOL_POSE,
            rate_hz=rate_hz,
        )

    def reset(self, seed: int) -> None:
        """Put arm and objects into the start that ``seed`` names, whatever was before."""
        self._env.rng = np.random.default_rng(seed)
        _give(getattr(self._env, "placement_initializer", None), self._env.rng)
        with undisturbed():
            self._env.reset()
        self._start_ns: int | None = None  # due time of the first command
        self._steps = 0
        self._waiting: list[tuple[int, np.ndarray]] = []
        self._best = 0.0
        self._set_point = self._held = self._present()

    def read(self) -> Observation:
        """Step through the periods that have passed and return what arm and cameras see now."""
        self._advance()
        now_ns = self._clock.now_ns()
        images = {name: self._draw(name, *self._size) for name in self.spec.cameras}
        return Observation(now_ns, self._state(), images, dict.fromkeys(images, now_ns))

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Take the tool pose ``action`` (10,) from ``due_ns`` on; return it as it was sent (10,) float32.

        Raises:
            UnsafeCommand: on a wrong length, a non-finite number or two parallel rotation columns.
        """
        sent = _checked(action)
        if self._start_ns is None:
            self._start_ns = due_ns
        self._waiting.append((due_ns, sent))
        self._waiting.sort(key=lambda item: item[0])
        self._held = None
        return sent.copy()

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold the arm where it is now and keep the grip; a repeated stop holds the same place. Return it (10,)."""
        if self._held is None:
            self._advance()
            self._waiting.clear()
            grip = self._set_point[9]
            self._set_point = self._held = self._present()
            self._set_point[9] = grip
        return self._held.copy()

    def close(self) -> None:
        """Free the renderer; idempotent."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def success(self) -> bool:
        """Whether the task is done, as of the newest read."""
        return bool(self._env._check_success())

    def score(self) -> float:
        """The greatest shaped reward of the episode, 0 to 1."""
        return self._best

    def disturb(self, rng: np.random.Generator) -> str:
        """Put the task's objects somewhere else, out of the gripper if need be; return what, in words.

        Raises:
            UsageError: if they do not lie loose.
        """
        env = self._env
        sampler = getattr(env, "placement_initializer", None)
        _give(sampler, rng)
        free = (
            {} if sampler is None else {obj: (p, q) for p, q, obj in sampler.sample().values() if len(obj.joints) == 1}
        )
        if not free or type(env).__name__ == "Door":
            raise UsageError(f"robosuite:{type(env).__name__} has no disturbance: nothing in it lies loose")
        for thing, (position, quat) in free.items():
            env.sim.data.set_joint_qpos(thing.joints[0], np.concatenate([position, quat]))
            env.sim.data.set_joint_qvel(thing.joints[0], np.zeros(6))
        env.sim.forward()
        env._get_observations(force_update=True)
        return f"put down elsewhere: {', '.join(thing.name for thing in free)}"

    def picture(self) -> np.ndarray:
        """Return a view of the scene for people, (240, 320, 3) uint8 RGB."""
        return self._draw("frontview", *PICTURE)

    def camera_calibration(self) -> dict[str, dict[str, Any]]:
        """Return ``{camera: {"K": 3x3, "T_base_cam": 4x4}}`` as lists, as the cameras stand now, as our twin does."""
        from sim_envs.calibration import camera_pose, intrinsics

        model, data, found = self._env.sim.model._model, self._env.sim.data._data, {}
        tool = np.eye(4)
        tool[:3, :3], tool[:3, 3] = self._tool()[::-1]
        for name in self.spec.cameras:
            pose = self._T_base_world @ camera_pose(model, data, name)
            found[name] = {"K": intrinsics(model, name, *self._size), "T_base_cam": pose.tolist()}
            if model.cam_bodyid[model.camera(name).id] == self._hand:
                found[name]["T_tool_cam"] = (np.linalg.inv(tool) @ pose).tolist()
        return found

    def _advance(self) -> None:
        now_ns, period_ns = self._clock.now_ns(), self.spec.period_ns
        while self._start_ns is not None and self._start_ns + (self._steps + 1) * period_ns <= now_ns:
            begins_ns = self._start_ns + self._steps * period_ns
            while self._waiting and self._waiting[0][0] <= begins_ns:
                self._set_point = self._waiting.pop(0)[1]
            self._steps += 1
            _, reward, _, _ = self._env.step(self._robosuite_action())
            self._best = max(self._best, float(np.clip(reward, 0.0, 1.0)))

    def _robosuite_action(self) -> np.ndarray:
        """Return the set-point as OSC_POSE takes it: its site in its base frame, axis-angle; grip -1, 0 or 1."""
        point = self._set_point.astype(np.float64)
        position = point[:3] - [0, 0, self._below_foot]
        rotation = rot6d_to_matrix(point[3:9]) @ R_SITE_TOOL.T
        gripper = self._robot.gripper["right"]
        ahead = (2 * point[9] - 1) - float(np.asarray(gripper.current_action)[0])  # its first finger opens towards 1
        grip = 0.0 if abs(ahead) <= gripper.speed / 2 + 1e-9 else -np.sign(ahead)
        return np.concatenate([position, matrix_to_rotvec(rotation), [grip]])

    def _state(self) -> dict[str, np.ndarray]:
        data = self._env.sim.data
        position, rotation = self._tool()
        quat = matrix_to_quat(rotation)
        state = {
            "q": data.qpos[self._robot._ref_joint_pos_indexes],
            "dq": data.qvel[self._robot._ref_joint_vel_indexes],
            "tool_pos": position,
            "tool_quat": quat if quat @ HOME_QUAT >= 0 else -quat,
            "gripper": [self._opening()],
            **self._objects(),
        }
        return {name: np.array(value, np.float32) for name, value in state.items()}

    def _objects(self) -> dict[str, np.ndarray]:
        """Return what robosuite tells of the task's objects, without what is only relative to the hand."""
        found = {}
        for name, observable in self._env._observables.items():
            if observable.modality != "object" or not observable.is_enabled() or "_to_" in name:
                continue
            value = np.atleast_1d(np.asarray(observable.obs, np.float64)).ravel()
            if name.endswith("_quat"):
                rotation = self._T_base_world[:3, :3] @ quat_to_matrix(value[[3, 0, 1, 2]])
                value = matrix_to_quat(rotation)
            elif name.endswith("_pos"):
                value = self._T_base_world[:3, :3] @ value + self._T_base_world[:3, 3]
            found[name] = value
        return found

    def _tool(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where the tool is in the base frame: (3,) m and R_base_tool (3, 3)."""
        data, turn = self._env.sim.data, self._T_base_world[:3, :3]
        position = turn @ data.site_xpos[self._site] + self._T_base_world[:3, 3]
        return position, turn @ data.site_xmat[self._site].reshape(3, 3) @ R_SITE_TOOL

    def _opening(self) -> float:
        fingers = np.abs(self._env.sim.data.qpos[self._robot._ref_gripper_joint_pos_indexes["right"]])
        return float(np.clip(fingers.sum() / FINGER_TRAVEL, 0.0, 1.0))

    def _present(self) -> np.ndarray:
        position, rotation = self._tool()
        return np.concatenate([position, matrix_to_rot6d(rotation), [self._opening()]]).astype(np.float32)

    def _find_parts(self) -> None:
        sim = self._env.sim
        self._robot = self._env.robots[0]
        self._site = sim.model.site_name2id(SITE)
        self._hand = sim.model.body_name2id(HAND)
        env, foot = self._env, np.array(self._robot.base_pos)
        table_z = float((env.table_offset if hasattr(env, "table_offset") else env.bin1_pos)[2])
        self._below_foot = foot[2] - table_z  # m
        base = np.eye(4)
        base[:3, :3], base[:3, 3] = self._robot.base_ori, [*foot[:2], table_z]
        self._T_base_world = np.linalg.inv(base)

    def _draw(self, camera: str, height: int, width: int) -> np.ndarray:
        model = self._env.sim.model._model
        if self._painter is None:
            from sim_envs.rendering import OFFSCREEN, Painter

            model.vis.global_.offheight, model.vis.global_.offwidth = OFFSCREEN
            self._painter = Painter(model, hidden=(COLLISION_SHAPES,))
        return self._painter.draw(self._env.sim.data._data, camera, height, width)


def _make(task: str, rate_hz: float) -> Any:
    robosuite = load_robosuite()
    with undisturbed():
        config = robosuite.load_composite_controller_config(controller="BASIC", robot="Panda")
        # Absolute positions are those of the base frame; in "world" they would be 0.9 m off, and nothing would say so.
        config["body_parts"]["right"] |= {"type": "OSC_POSE", "input_type": "absolute", "input_ref_frame": "base"}
        return robosuite.make(
            task, robots="Panda", controller_configs=config, control_freq=rate_hz, reward_shaping=True,
            use_camera_obs=False, has_renderer=False, has_offscreen_renderer=False, renderer="mujoco",
            ignore_done=True, hard_reset=False, seed=0,
        )  # fmt: skip


def _give(sampler: Any, rng: np.random.Generator) -> None:
    """Let a placement sampler, and all it is made of, draw from ``rng``: it keeps the one it was made with."""
    if sampler is not None:
        sampler.rng = rng
        for part in getattr(sampler, "samplers", {}).values():
            _give(part, rng)


def _checked(action: np.ndarray) -> np.ndarray:
    sent = np.array(action, np.float32)
    if sent.shape != (TOOL_POSE.dim,) or not np.isfinite(sent).all():
        raise UnsafeCommand(f"command {action}; want {TOOL_POSE.dim} finite numbers, a tool pose")
    if np.linalg.norm(np.cross(sent[3:6], sent[6:9])) < 1e-6:
        raise UnsafeCommand(f"command {action}: its two rotation columns are parallel")
    sent[9] = np.clip(sent[9], 0.0, 1.0)
    return sent


def _units(name: str) -> tuple[str, ...]:
    known = {"q": "rad", "dq": "rad/s", "tool_pos": "m", "tool_quat": "quat", "gripper": "open"}
    if name in known:
        return (known[name],)
    endings = {"_pos": "m", "_quat": "quat", "_qpos": "rad"}
    return next(((unit,) for ending, unit in endings.items() if name.endswith(ending)), ("1",))
