"""What a node drives: a robot that is watched, a policy, the loop and the limits that `robopolicy deploy` has."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from robopolicy import __version__
from robopolicy.interfaces import Agent, Clock, Environment, Robot
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Observation

FOREVER = 2**62  # steps


class NodeRig:
    """Satisfies `robopolicy_hardware.ros.node.Rig`.

    Args:
        parameters: `robopolicy_hardware.ros.node_parameters.Parameters`.
        transport: carries the robot's topics, and those of the node.
        name: of the node, in full.

    Raises:
        RobopolicyError: whatever opening the robot or loading the policy raises; nothing stays open then.
    """

    def __init__(self, parameters: Any, transport: Any, name: str) -> None:
        parameters.require()
        self._parameters = parameters
        with ExitStack() as stack:
            self._open(stack, transport, name)
            self._stack = stack.pop_all()

    def run(self, agent: Callable[[Agent], Agent], done: Callable[[Observation], bool]) -> EpisodeMeta:
        """Run one episode, as `Rig` says."""
        from robopolicy.loop import run_episode

        parameters = self._parameters
        if self._world is not None:
            self._world.reset(parameters.seed)
        meta = EpisodeMeta(
            getattr(self._inner, "instruction", ""), parameters.robot, parameters.seed,
            software=f"robopolicy {__version__}", extra={"checkpoint": parameters.checkpoint},
        )  # fmt: skip
        return run_episode(
            self.robot, agent(self._agent), self._clock, self._safety, meta,
            max_steps=parameters.max_steps or FOREVER, watchers=[self._topics], done=done,
        )  # fmt: skip

    def close(self) -> None:
        """Release all of it; idempotent."""
        self._stack.close()

    def _open(self, stack: ExitStack, transport: Any, name: str) -> None:
        from robopolicy.cli.deploy import check_pace
        from robopolicy.cli.worlds import check_device, make_clock
        from robopolicy.training.checkpoint import read_spec
        from robopolicy_hardware.ros.node_status import StatusTopics
        from robopolicy_hardware.safety import SafetyLayer

        parameters = self._parameters
        self._clock = make_clock(parameters.robot, realtime=True)
        spec = read_spec(parameters.checkpoint)
        self._inner = _robot(parameters, self._clock, spec, transport)
        stack.callback(self._inner.close)
        self._world = self._inner if isinstance(self._inner, Environment) else None
        offered = replace(self._inner.spec, rate_hz=spec.rate_hz) if parameters.control_rate else self._inner.spec
        spec.require_from(offered, needs=f"checkpoint {parameters.checkpoint}", offers=f"robot {parameters.robot}")
        limits, watchdogs = _limits(parameters.limits, self._inner.spec)
        self.robot = _watched(self._inner, watchdogs, transport, name, stack)
        stack.callback(self.robot.close)
        self._safety = SafetyLayer(limits, self._inner.spec)
        check_device(parameters.device)
        check = partial(check_pace, waits=False, allow_slow=parameters.allow_slow or parameters.control_rate > 0)
        self._agent, latency_s = _agent(parameters, self._clock, check, stack)
        self._agent.act(self.robot.read())  # the first plan is slow; the loop resets the agent
        self._topics = StatusTopics(
            transport, self.robot, self._clock, name=name, hardware=parameters.robot, counts=self._safety.counts,
            plan_latency_s=latency_s,
        )  # fmt: skip
        stack.callback(self._topics.close)


def _robot(parameters: Any, clock: Clock, spec: PolicySpec, transport: Any) -> Robot:
    from robopolicy.cli.worlds import make_robot

    rate_hz = parameters.control_rate or None
    kind, _, path = parameters.robot.partition(":")
    if kind != "ros" or not path:
        return make_robot(parameters.robot, clock, spec, cameras=tuple(spec.cameras), rate_hz=rate_hz)
    from robopolicy.topics.config import load_config
    from robopolicy_hardware.ros.robot import RosRobot

    return RosRobot(load_config(path), clock, transport, cameras=tuple(spec.cameras), rate_hz=rate_hz)


def _limits(path: str, spec: PolicySpec) -> tuple[Any, Any]:
    from robopolicy_hardware.safety_limits import limits_for, load_limits
    from robopolicy_hardware.supervisor import Watchdogs

    if path:
        return load_limits(path, spec)
    return limits_for(spec), Watchdogs(silent_s=max(0.1, 2.5 / spec.rate_hz))


def _watched(robot: Robot, watchdogs: Any, transport: Any, name: str, stack: ExitStack) -> Any:
    from robopolicy_hardware.ros.signals import EmergencyStop, Heartbeat
    from robopolicy_hardware.supervisor import Supervised

    beat = None if watchdogs.deadman_s is None else Heartbeat(transport, f"{name}/deadman")
    stop = None if watchdogs.estop_s is None else EmergencyStop(transport, f"{name}/estop")
    for one in (beat, stop):
        if one is not None:
            stack.callback(one.close)
    return Supervised(
        robot, watchdogs, deadman=None if beat is None else beat.age_s,
        estop=None if stop is None else stop.pressed_and_age,
    )  # fmt: skip


def _agent(
    parameters: Any, clock: Clock, check: Callable[[Any, int], None], stack: ExitStack
) -> tuple[Agent, Callable[[], float | None]]:
    """Return what acts, and what tells how long a plan takes."""
    import torch

    from robopolicy.cli.worlds import make_agent

    torch.set_num_threads(parameters.threads)
    agent = make_agent(
        parameters.checkpoint, monitor=parameters.monitor or None, on_alarm=parameters.on_alarm,
        device=parameters.device, check=check,
    )  # fmt: skip
    return agent, lambda: None
