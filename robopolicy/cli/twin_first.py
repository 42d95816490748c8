"""`robopolicy deploy --robot twin-first:TASK:ROBOT`: a twin that the policy acts on, and an arm that tracks it."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robopolicy.cli.twin_seeing import Seeing, finders_of, groups_of, prepared, settings_of, tags
from robopolicy.cli.watched import read_limits
from robopolicy.errors import ConfigError, StaleFrame, UsageError
from robopolicy.interfaces import Clock, Robot
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step

CAMERA_HZ = 30.0  # at most, of a twin in front of a robot
WAIT_S = 5.0  # until every object was seen


def make_twin_first(
    name: str,
    clock: Clock,
    spec: PolicySpec,
    seeing: Seeing,
    make: Callable[..., Robot],
    *,
    cameras: tuple[str, ...] | None = (),
    limits: Path | None = None,
    **real: Any,
) -> Robot:
    """Return the robot called ``twin-first:TASK:ROBOT``.

    Of a robot behind topics each object is read by itself, as `twin follow` does: one that is silent is carried by
    physics until the twin is called diverged, and holds up nobody.

    Args:
        name: the whole of it.
        clock: shared by all.
        spec: of the policy.
        seeing: what shows where the objects are, and what the arm is like.
        make: `robopolicy.cli.worlds.make_robot`.
        cameras: of the twin, that the policy looks at.
        limits: of the arm, or of the twin's commands (`limits_before`): what the arm is sent keeps the arm's.
        real: rate and domain of the robot.

    Raises:
        UsageError: if the name is none, or poses on topics are asked of a robot that is not behind topics.
        StaleFrame: if an object is not seen.
    """
    from robopolicy.cli.worlds import make_safety
    from sim_envs.aligned import AlignedTwin
    from sim_envs.modes import TwinFirst
    from sim_envs.tasks import make_task
    from sim_envs.tracked import tracked_of

    _, task, behind = [*name.split(":", 2), "", ""][:3]
    if not (task and behind):
        raise UsageError(f"--robot {name}: want a task and the robot, as in twin-first:lift:ros:arm.yaml")
    action = "joint" if spec.action.kind == "joint" else "tool_pose"
    scene = make_task(task)
    arm, lead_s = _arm(seeing.parameters)
    with ExitStack() as stack:
        if behind.startswith("ros:") and behind != "ros:":
            robot, sources, finders = _on_topics(behind[4:], clock, tracked_of(scene), seeing, stack, **real)
        else:
            robot, finders = _at_hand(behind, clock, spec, tracked_of(scene), seeing, make, **real)
            sources = {}
        stack.callback(robot.close)
        rates = {"rate_hz": robot.spec.rate_hz, "camera_hz": min(robot.spec.rate_hz, CAMERA_HZ)}
        twin = AlignedTwin(
            scene, clock.now_ns(), cameras=cameras, action=action, finders=finders, settings=settings_of(seeing),
            **arm, **rates,
        )  # fmt: skip
        stack.callback(twin.close)
        made = limits_before(limits, twin.twin.spec, robot.spec)
        first = TwinFirst(
            twin, robot, clock, lead_s=lead_s, sources=sources, safety=make_safety(robot.spec, made.of_arm),
            apart=made.apart,
        )  # fmt: skip
        if sources:
            _wait(first)
        stack.pop_all()  # it closes them
        return first


@dataclass(frozen=True)
class Limited:
    """What limits a twin and the arm behind it."""

    of_twin: Any  # `SafetyLimits` of the policy's commands
    of_arm: Any  # of what the arm is sent
    watchdogs: Any  # around both
    apart: float  # rad, that a joint of the arm may be from the twin's


def limits_before(path: Path | None, twin: PolicySpec, arm: PolicySpec) -> Limited:
    """Return what ``--limits`` says of a twin before an arm; what it does not say is as `limits_for` has it.

    But for the accelerations of an arm's joints (`_quick`). The file is of the arm's kind of command, or else of the
    twin's; one that says nothing of either, or where both are the same, is of both. ``watchdogs.tracking`` of an arm's
    joints is how far they may be from the twin's.

    Raises:
        ConfigError: as `load_limits`, of the arm, if it fits neither.
    """
    from robopolicy_hardware.ros.node_overrides import raw
    from robopolicy_hardware.safety_limits import arm_joints, limits_for
    from sim_envs.modes import APART

    def said(spec: PolicySpec) -> tuple[Any, Any] | ConfigError:
        try:
            return read_limits(path, spec)
        except ConfigError as error:
            return error

    of_arm, of_twin = said(arm), said(twin)
    if isinstance(of_arm, ConfigError):
        if isinstance(of_twin, ConfigError):
            raise of_arm
        return Limited(of_twin[0], _quick(limits_for(arm)), of_twin[1], APART)
    (limits, watchdogs), apart = of_arm, APART
    if path is None or "max_accel" not in raw(path, "the limits of the robot"):
        limits = _quick(limits)
    if arm.action.kind == "joint" and watchdogs.tracking is not None:
        apart = min((APART, *watchdogs.tracking[: len(arm_joints(arm))]))
        watchdogs = replace(watchdogs, tracking=None)
    return Limited(limits_for(twin) if isinstance(of_twin, ConfigError) else of_twin[0], limits, watchdogs, apart)


def _quick(limits: Any) -> Any:
    """Return limits with twice the accelerations of joints, 15 rad/s^2 by default.

    What follows a motion can only catch up with it by accelerating more than it does: at the cautious 7.5 the arm
    lagged its twin by up to 0.22 rad and missed the cube in six of twelve starts of lift, at 15 in none.
    """
    return limits if limits.max_accel is None else replace(limits, max_accel=tuple(2 * one for one in limits.max_accel))


def limits_of(path: Path | None, robot: Any) -> tuple[Any, Any]:
    """Return (`SafetyLimits`, `Watchdogs`) of the robot that the loop drives; raises `ConfigError`."""
    arm = getattr(robot, "real_spec", None)
    if arm is None:
        return read_limits(path, robot.spec)
    made = limits_before(path, robot.spec, arm)
    return made.of_twin, made.watchdogs


class TwinHealth:
    """A watcher that keeps how well the twin could be believed, and says it in a line."""

    def __init__(self, first: Any) -> None:
        self._first = first
        self._steps = self._troubled = 0
        self._least = 1.0

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Nothing was seen yet."""

    def on_step(self, step: Step) -> None:
        """Note how it stands now."""
        health = self._first.health()["twin"]
        self._steps += 1
        self._troubled += bool(health.diverged)
        self._least = min(self._least, health.confidence)

    def on_end(self, meta: EpisodeMeta) -> None:
        """Nothing more to note."""

    def line(self) -> str:
        """Return how the twin stands, for a bar: its confidence, and why it is not to be believed."""
        health = self._first.health()["twin"]
        return "; ".join(filter(None, (f"twin {health.confidence:.2f}", health.diverged)))

    def summary(self) -> str:
        """Return what happened in one line."""
        health = self._first.health()["twin"]
        share = 100 * self._troubled / max(self._steps, 1)
        told = f"; {health.diverged}" if health.diverged else ""
        acted = ", ".join(f"{name} {count}" for name, count in self._first.acted.items())
        told += f"; limits of the arm acted: {acted}" if acted else ""
        return (
            f"the twin took {health.accepted} poses, rejected {health.rejected}, {health.restarts} restarts, "
            f"{health.recoveries} recoveries; confidence {health.confidence:.2f}, least "
            f"{min(self._least, health.confidence):.2f}, diverged {share:.0f} % of the steps{told}"
        )


def _arm(path: Path | None) -> tuple[dict[str, Any], Any]:
    """Return what gives the twin the arm's parameters, and the arm's lag (7,) s.

    The delay is not the twin's, which goes before the arm: by it, and by its servo's lag, the arm is sent ahead.
    """
    if path is None:
        return {}, 0.0
    import numpy as np

    from sim_envs.arm import JOINTS
    from sim_envs.parameters import load

    found = load(path)
    made = prepared(path)
    joints = [found.joints[name] for name in JOINTS if name in found.joints]
    lags = np.array([(one.kv + one.damping) / one.kp for one in joints]) + made.pop("delay_s")
    return made, lags if len(lags) == len(JOINTS) else float(lags.mean())


def _on_topics(
    path: str, clock: Clock, objects: Any, seeing: Seeing, stack: ExitStack, *, rate_hz: float | None,
    domain: int | None,
) -> tuple[Robot, dict[str, Any], tuple[Any, ...]]:  # fmt: skip
    """Return the robot without its objects, what sees each of them, and what finds tags."""
    from robopolicy.topics.config import load_config
    from robopolicy_hardware.ros.dds import Topics
    from robopolicy_hardware.ros.robot import RosRobot, named_by
    from robopolicy_hardware.ros.watching import Group

    config = load_config(path)
    finders, seen_by = finders_of(seeing.markers, config.cameras, objects)
    groups, extra = groups_of(config, objects, seeing.pose, seen_by)
    have = {**config.observed(), **extra}
    of_objects = {name for one in objects for name in one.states}
    kept = {name: topic for name, topic in config.state.items() if name not in of_objects}
    transport = Topics(domain)
    stack.callback(transport.close)
    sources = {}
    for name in [*(one.name for one in objects if one.name in groups), *tags(seen_by)]:
        sources[name] = Group({what: have[what] for what in groups[name]}, transport)
        stack.callback(sources[name].close)
    with named_by(path):
        robot = RosRobot(replace(config, state=kept), clock, transport, cameras=(), rate_hz=rate_hz)
    return robot, sources, finders


def _at_hand(
    name: str, clock: Clock, spec: PolicySpec, objects: Any, seeing: Seeing, make: Callable[..., Robot], **real: Any
) -> tuple[Robot, tuple[Any, ...]]:
    """Return a robot that is not behind topics, with the cameras that see tags, and what finds them."""
    if seeing.pose:
        raise UsageError(f"--pose {seeing.pose[0]}: {name} is not behind topics; want a robot that is, ros:FILE.yaml")
    cameras: tuple[str, ...] = ()
    if seeing.markers is not None:
        from sim_envs.markers import load_markers

        cameras = tuple(load_markers(seeing.markers).cameras)
    robot = make(name, clock, spec, cameras=cameras, **real)
    try:
        return robot, finders_of(seeing.markers, robot.spec.cameras, objects)[0]
    except BaseException:
        robot.close()
        raise


def _wait(first: Any) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            first.read()
            return
        except StaleFrame:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
