"""Any Gymnasium environment as a `Robot` and `Environment`."""

import difflib
import importlib
import math
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, MissingExtra, UnknownCamera, UnknownTask, UnsafeCommand, UsageError
from robopolicy.interfaces import Clock
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation
from sim_envs.gymnasium_known import KNOWN, KnownEnv

RENDERED = "image"  # the camera that shows what the environment renders


class GymnasiumEnv:
    """A Gymnasium environment that a clock drives.

    Its time begins with the first command after a reset: until then nothing moves, so no set-point has to be made up.
    From then on `read` plays one ``env.step`` for each period that has passed, with the set-point that was due when
    the period began. A terminated or truncated environment stands still until it is reset.

    Box observations become the state stream ``state``, dictionaries and tuples one stream a key or place (``arm.q`` of
    one within another), and uint8 (H, W, 3) boxes cameras. Actions of several dimensions are commanded as one vector.
    What the environment renders is the camera ``image``, drawn only when asked for by name.

    Args:
        env_id: as for ``gymnasium.make``; the package before the slash is imported first, if there is one.
        clock: shared with the loop.
        cameras: names to include; None includes none.
        rate_hz: steps a second; None takes ``env.metadata["render_fps"]``.

    Raises:
        MissingExtra: if gymnasium or gym_pusht is not installed.
        UnknownTask: if there is no such environment; others by that name are listed.
        UnknownCamera: naming the cameras there are.
        UsageError: if its actions are no Box of numbers, or its rate is not known.
    """

    def __init__(
        self,
        env_id: str,
        clock: Clock,
        *,
        cameras: tuple[str, ...] | None = None,
        rate_hz: float | None = None,
    ) -> None:
        self._known = KNOWN.get(env_id, KnownEnv())
        self._env, self._clock = _make(env_id, self._known), clock
        if self._known.settle is not None:
            self._known.settle(self._env.unwrapped)
        self.instruction = self._known.instruction or env_id
        self.max_steps = int(self._env.spec.max_episode_steps or 1000)
        self._low, self._high = _bounds(env_id, self._env.action_space)
        self.reset(0)
        self.spec = self._describe(env_id, cameras, rate_hz)

    def reset(self, seed: int) -> None:
        """Reset with ``env.reset(seed=seed)``, nothing added."""
        self._seen, _ = self._env.reset(seed=seed)
        self._start_ns: int | None = None  # due time of the first command
        self._steps = 0
        self._waiting: list[tuple[int, np.ndarray]] = []
        self._set_point = self._harmless()
        self._over = self._success = self._terminated = False
        self._best = 0.0

    def read(self) -> Observation:
        """Step through the periods that have passed and return what the environment shows now.

        Raises:
            ContractError: if the environment's reward is no number; it then stands still until it is reset.
        """
        now_ns = self._clock.now_ns()
        while self._start_ns is not None and self._start_ns + (self._steps + 1) * self.spec.period_ns <= now_ns:
            self._play(self._start_ns + self._steps * self.spec.period_ns)
        state, images = _sort(self._seen)
        images = {name: images[name] if name in images else self._frame() for name in self.spec.cameras}
        return Observation(now_ns, state, images, dict.fromkeys(images, now_ns))

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Take the action (A,) from ``due_ns`` on; return it clipped to the action space, as it was sent.

        Raises:
            UnsafeCommand: on a wrong length or a non-finite number.
        """
        action = np.asarray(action, dtype=np.float32)
        if action.shape != self._low.shape or not np.isfinite(action).all():
            raise UnsafeCommand(f"{self.instruction}: action {action}; want {len(self._low)} finite numbers")
        sent = np.clip(action, self._low, self._high)
        if self._start_ns is None:
            self._start_ns = due_ns
        self._waiting.append((due_ns, sent))
        self._waiting.sort(key=lambda item: item[0])
        return sent.copy()

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold: the agent's own position where that is known, else an action as near to zero as the space allows."""
        if self._start_ns is not None and not self._over:
            self.read()
        self._waiting.clear()
        self._set_point = self._harmless()
        return self._set_point.copy()

    def close(self) -> None:
        """Close the environment; idempotent."""
        self._env.close()

    def success(self) -> bool:
        """Whether the newest step said so: info's ``is_success`` or ``success`` if it has one, else terminated."""
        return self._success

    def failure(self) -> str:
        """``"terminated"`` if the environment ended the episode before its time, and not as a success; else ""."""
        return "terminated" if self._terminated and not self._success else ""

    def score(self) -> float:
        """The greatest reward of the episode, clipped to 0..1 (Push-T's is coverage / 0.95)."""
        return self._best

    def disturb(self, rng: np.random.Generator) -> str:
        """Do to the world what no demonstration holds; return what, in words.

        Raises:
            UsageError: for environments without a known disturbance.
        """
        if self._known.disturb is None:
            raise UsageError(f"{self.instruction} has no disturbance; those that do: {', '.join(KNOWN)}")
        what = self._known.disturb(self._env.unwrapped, rng)
        self._seen = self._env.unwrapped.get_obs()
        return what

    def picture(self) -> np.ndarray:
        """Return what the environment renders, (H, W, 3) uint8 RGB.

        Raises:
            UsageError: if it renders nothing.
        """
        if self._env.render_mode != "rgb_array":
            raise UsageError(f"{self.instruction} draws no pictures (no render mode rgb_array)")
        return np.array(self._env.render(), dtype=np.uint8)

    def _play(self, begins_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= begins_ns:
            self._set_point = self._waiting.pop(0)[1]
        self._steps += 1
        if self._over:
            return
        action = self._set_point.astype(self._env.action_space.dtype).reshape(self._env.action_space.shape)
        self._seen, reward, terminated, truncated, info = self._env.step(action)
        self._over, self._terminated = terminated or truncated, bool(terminated)
        self._success = bool(info.get("is_success", info.get("success", terminated)))
        if not math.isfinite(reward):
            self._over = True  # whoever stops it now is not told again
            raise ContractError(
                f"{self.instruction}: the reward of step {self._steps} is {reward}; want a finite number"
            )
        self._best = max(self._best, min(float(reward), 1.0))

    def _harmless(self) -> np.ndarray:
        if self._known.here is not None:
            return np.array(self._known.here(self._seen), dtype=np.float32)
        return np.clip(np.zeros_like(self._low), self._low, self._high)

    def _frame(self) -> np.ndarray:
        return self.picture() if self._known.frame is None else self._known.frame(self._env.unwrapped)

    def _describe(self, env_id: str, cameras: tuple[str, ...] | None, rate_hz: float | None) -> PolicySpec:
        state, images = _sort(self._seen)
        valid = {*images, RENDERED} if self._env.render_mode == "rgb_array" else set(images)
        for name in cameras or ():
            if name not in valid:
                raise UnknownCamera("camera", name, valid)
        shown = {name: images[name] if name in images else self._frame() for name in cameras or ()}
        rate_hz = rate_hz or self._env.metadata.get("render_fps")
        if not rate_hz:
            raise UsageError(f"{env_id} does not say how many steps a second it takes; give rate_hz")
        known, n = self._known, len(self._low)
        return PolicySpec(
            cameras={name: CameraSpec(*picture.shape[:2]) for name, picture in shown.items()},
            state={name: StateSpec(len(v), known.state_units.get(name, ("1",))) for name, v in state.items()},
            action=ActionSpec("vector", known.action_names or tuple(f"a{i}" for i in range(n)), known.action_units),
            rate_hz=float(rate_hz),
        )


def _make(env_id: str, known: KnownEnv) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise MissingExtra("gymnasium", "pusht") from error
    package = env_id.partition("/")[0] if "/" in env_id else ""
    if env_id not in gymnasium.registry and package:
        try:
            importlib.import_module(package)
        except ImportError as error:
            if package == "gym_pusht":
                raise MissingExtra("gym_pusht", "pusht") from error
    if env_id not in gymnasium.registry:
        near = [name for name in gymnasium.registry if package and name.startswith(f"{package}/")]
        near = near or difflib.get_close_matches(env_id, gymnasium.registry, 5, 0.4) or list(gymnasium.registry)
        raise UnknownTask("Gymnasium environment", env_id, near)
    try:
        entry = gymnasium.spec(env_id).entry_point  # a class, or where to import it from
        creator = entry if callable(entry) else gymnasium.envs.registration.load_env_creator(entry)
        draws = "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ())
        options = {**known.options, "render_mode": "rgb_array"} if draws else known.options
        return gymnasium.make(env_id, disable_env_checker=True, **options)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise UsageError(f"{env_id} cannot be made here: {error}") from error


def _bounds(env_id: str, space: Any) -> tuple[np.ndarray, np.ndarray]:
    if type(space).__name__ != "Box" or math.prod(space.shape) < 1:
        raise UsageError(f"{env_id} takes actions {space}; only a Box can be commanded")
    return space.low.astype(np.float32).ravel(), space.high.astype(np.float32).ravel()


def _sort(seen: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Split what an environment shows into state streams (D,) float32 and images (H, W, 3) uint8, all fresh."""
    parts = _flat(seen) if isinstance(seen, dict | tuple) else {RENDERED if np.ndim(seen) == 3 else "state": seen}
    state, images = {}, {}
    for name, value in parts.items():
        array = np.asarray(value)
        if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
            images[name] = array.copy()
        elif array.dtype.kind in "fiub" and math.prod(array.shape) > 0:
            state[name] = array.astype(np.float32).ravel()  # astype copies
        else:
            raise ContractError(f"observation {name!r} is {array.dtype} {array.shape}; want numbers or an image")
    return state, images


def _flat(parts: dict[str, Any] | tuple[Any, ...]) -> dict[str, Any]:
    """Return the leaves of dictionaries and tuples within each other, their keys joined by dots."""
    found = {}
    for name, value in parts.items() if isinstance(parts, dict) else enumerate(parts):
        if isinstance(value, dict | tuple):
            found |= {f"{name}.{below}": leaf for below, leaf in _flat(value).items()}
        else:
            found[str(name)] = value
    return found
