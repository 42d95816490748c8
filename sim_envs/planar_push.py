"""Push-T in a plane as a `Robot` and `Environment`: gym-pusht's task, starts, score and spec, MuJoCo's physics."""

import numpy as np

from robopolicy.errors import ContractError, UnknownCamera, UnsafeCommand, UsageError
from robopolicy.interfaces import Clock
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation
from sim_envs.planar import CENTROID, PX, coverage
from sim_envs.planar_push_physics import IDENTIFIED, TICK_S, TICKS, Physics, PlanarPush, turned
from sim_envs.planar_push_picture import draw
from sim_envs.turning import TURNS, Turning

GOAL = np.array([256.0, 256.0, np.pi / 4])  # px, px, rad: the pose of the T's origin that is wanted
SIZE = 512.0  # px, of the world; actions are clipped to it
FULL = 0.95  # coverage above it is success, and scores 1
TURNING_POINT = 45.0  # px: about it gym-pusht turns the T when it puts it to a start
RATE_HZ = 1 / (TICK_S * TICKS)
CAMERA, CAMERA_SIZE, PICTURE_SIZE = "image", 96, 384  # px


def start(seed: int) -> np.ndarray:
    """Return the state (5,) from which gym-pusht starts at ``env.reset(seed=seed)``: px, px, px, px, rad.

    Gymnasium's ``np_random`` is NumPy's default generator. The T is put to its place first and then turned about its
    centre of mass, so its origin ends elsewhere.
    """
    rng = np.random.default_rng(seed)
    pusher = [rng.integers(50, 450), rng.integers(50, 450)]
    block = np.array([rng.integers(100, 400), rng.integers(100, 400)])
    angle = rng.uniform(-np.pi, np.pi)
    centre = block + np.array([0, TURNING_POINT])
    origin = centre - turned(angle, TURNING_POINT)
    return np.array([*pusher, *origin, angle])


def covered(state: np.ndarray) -> float:
    """Return the part of the goal that the T covers in ``state`` (5,), 0 to 1."""
    return coverage(_centroid(state[2:]), _centroid(GOAL))


class PlanarPushT:
    """The twin of gym-pusht, driven by a clock as `GymnasiumEnv` is: what runs in one runs in the other, unchanged.

    Its time begins with the first command after a reset. From then on `read` plays a step of 0.1 s for each that has
    passed, with the target that was due when it began. After success, or 300 steps, it stands still until it is reset.

    Args:
        clock: shared with the loop.
        cameras: ``("image",)`` for the 96 x 96 view from above; None or () for none.
        rate_hz: 10, or None.
        physics: what is not known of the doubled world.

    Raises:
        UnknownCamera: naming the one camera there is.
        UsageError: if asked for another rate: its control is part of the task.
    """

    instruction = "push the T onto its target"
    max_steps = 300
    modes = TURNS  # which way the T was turned on the whole, as the picture shows it

    def __init__(
        self,
        clock: Clock,
        *,
        cameras: tuple[str, ...] | None = None,
        rate_hz: float | None = None,
        physics: Physics = IDENTIFIED,
    ) -> None:
        for name in cameras or ():
            if name != CAMERA:
                raise UnknownCamera("camera", name, [CAMERA])
        if rate_hz is not None and abs(rate_hz - RATE_HZ) > 1e-6:
            raise UsageError(f"planar:pusht is pushed at {RATE_HZ:g} Hz, not at {rate_hz:g} Hz")
        self.spec = PolicySpec(
            cameras={name: CameraSpec(CAMERA_SIZE, CAMERA_SIZE) for name in cameras or ()},
            state={"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))},
            action=ActionSpec("vector", ("x", "y"), ("px",)),
            rate_hz=RATE_HZ,
        )
        self._clock = clock
        self._world = PlanarPush(physics)
        self._turning = Turning(positive="clockwise")  # y points down in the picture
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Put everything to where gym-pusht starts at that seed."""
        self.put(start(seed))

    def put(self, state: np.ndarray, velocity: np.ndarray | None = None) -> None:
        """Begin an episode from a state (5,) px, px, px, px, rad, such as one recorded in the doubled world.

        ``velocity`` (2,) px/s is the pusher's; None is at rest.

        Raises:
            ContractError: if it is not five finite numbers.
        """
        state = np.asarray(state, dtype=float)
        if state.shape != (5,) or not np.isfinite(state).all():
            raise ContractError(f"planar:pusht: state {state}; want 5 finite numbers: pusher x, y, T x, y in px, angle")
        self._world.put(state, velocity)
        self._turning.begin()
        self._turning.see(float(state[4]))
        self._start_ns: int | None = None  # due time of the first command
        self._steps = 0
        self._waiting: list[tuple[int, np.ndarray]] = []
        self._target = self._here()
        self._success, self._best = False, 0.0

    def state(self) -> np.ndarray:
        """Return where all is now, (5,) float64 px, px, px, px, rad, as `put` takes it."""
        return self._world.state()

    def read(self) -> Observation:
        """Play the steps that have passed and return what is seen now."""
        now_ns = self._clock.now_ns()
        while self._start_ns is not None and self._start_ns + (self._steps + 1) * self.spec.period_ns <= now_ns:
            self._play(self._start_ns + self._steps * self.spec.period_ns)
        state = self._world.state()
        state[4] %= 2 * np.pi
        images = {name: draw(state, GOAL, CAMERA_SIZE) for name in self.spec.cameras}
        return Observation(now_ns, {"state": state.astype(np.float32)}, images, dict.fromkeys(images, now_ns))

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Go for the target ``action`` (2,) px from ``due_ns`` on; return it clipped to the world, as it was sent.

        Raises:
            UnsafeCommand: on a wrong length or a non-finite number.
        """
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise UnsafeCommand(f"{self.instruction}: action {action}; want 2 finite numbers")
        sent = np.clip(action, 0, SIZE).astype(np.float32)
        if self._start_ns is None:
            self._start_ns = due_ns
        self._waiting.append((due_ns, sent))
        self._waiting.sort(key=lambda item: item[0])
        return sent.copy()

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold the pusher where it is now."""
        if self._start_ns is not None and not self._over():
            self.read()
        self._waiting.clear()
        self._target = self._here()
        return self._target.copy()

    def close(self) -> None:
        """Nothing is held."""

    def success(self) -> bool:
        """Whether the newest step left more than 95 % of the goal covered."""
        return self._success

    def score(self) -> float:
        """Best coverage of the episode / 0.95, at most 1; 0 before the first step, as in gym-pusht."""
        return self._best

    def mode(self) -> str | None:
        """Which way the T was turned on the whole; None before it has turned."""
        return self._turning.mode()

    def failure(self) -> str:
        """Nothing: walls keep the T within reach of the pusher."""
        return ""

    def disturb(self, rng: np.random.Generator) -> str:
        """Put the T into the corner that is farthest from the pusher, turned at random; return what, in words."""
        state = self._world.state()
        state[4] = rng.uniform(0, 2 * np.pi)
        state[2:4] = np.where(state[:2] > SIZE / 2, 75.0, 437.0) + rng.uniform(-15, 15, 2)
        self._world.put(state, self._world.velocity)
        self._turning.lift()
        return f"the T was moved to the corner ({state[2]:.0f}, {state[3]:.0f}) px"

    def picture(self) -> np.ndarray:
        """Return the view from above with the target marked, (384, 384, 3) uint8 RGB."""
        return draw(self._world.state(), GOAL, PICTURE_SIZE, target=self._target)

    def _play(self, begins_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= begins_ns:
            self._target = self._waiting.pop(0)[1]
        if not self._over():
            self._world.step(self._target)
            self._turning.see(float(self._world.state()[4]))
            part = covered(self._world.state())
            self._success = part > FULL
            self._best = max(self._best, min(part / FULL, 1.0))
        self._steps += 1

    def _over(self) -> bool:
        return self._success or self._steps >= self.max_steps

    def _here(self) -> np.ndarray:
        return self._world.state()[:2].astype(np.float32)


def _centroid(pose: np.ndarray) -> np.ndarray:
    """Return the pose (3,) m, m, rad of the T's centroid from that of its origin in px."""
    return np.array([*(pose[:2] + turned(pose[2], CENTROID)) * PX, pose[2]])
