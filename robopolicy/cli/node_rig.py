"""What a node drives: a robot that is watched, a policy, the loop and the limits that `robopolicy deploy` has."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy import __version__
from robopolicy.cli.drifting import Judged, note_drift
from robopolicy.errors import UsageError
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

    def require_alone(self) -> None:
        """Refuse to drive beside somebody else who commands the robot; raises UsageError naming who it is."""
        for topic in self._commanded:
            others = len(self._transport.publishers(topic)) - 1
            if others > 0:
                who = ", ".join(self._transport.publishing_nodes(topic))
                raise UsageError(
                    f"{others + 1} publish on {topic} ({who}); two would fight over the robot: stop the other"
                )

    def run(self, agent: Callable[[Agent], Agent], done: Callable[[Observation], bool]) -> EpisodeMeta:
        """Run one episode, as `Rig` says; of a robot, the monitor's drift journal hears of it.

        Raises:
            MonitorError: beside what the loop raises, if the journal is damaged; DiskFull if there is no room.
        """
        from robopolicy.loop import run_episode

        parameters = self._parameters
        if self._world is not None:
            self._world.reset(parameters.seed)
        meta = EpisodeMeta(
            getattr(self._inner, "instruction", ""), parameters.robot, parameters.seed,
            software=f"robopolicy {__version__}", extra={"checkpoint": parameters.checkpoint},
        )  # fmt: skip
        judged = Judged(self.robot)
        with self._timing.on_time(self._clock):
            meta = run_episode(
                self._driven, agent(self._agent), self._clock, self._safety, meta,
                max_steps=parameters.max_steps or FOREVER, watchers=[self._topics, judged], done=done,
            )  # fmt: skip
        if parameters.monitor and self._world is None and judged.alone:
            note_drift(Path(parameters.monitor), judged.verdicts, meta, parameters.robot)
        return meta

    def close(self) -> None:
        """Release all of it; idempotent."""
        self._stack.close()

    def _open(self, stack: ExitStack, transport: Any, name: str) -> None:
        from robopolicy.cli.progress import say
        from robopolicy.cli.running import AS_SAVED
        from robopolicy.cli.timing import Timing
        from robopolicy.cli.watched import following, look_at_limits, read_limits, watched
        from robopolicy.cli.worlds import make_clock, make_safety
        from robopolicy.training.checkpoint import read_spec
        from robopolicy_hardware.ros.node_overrides import said_otherwise
        from robopolicy_hardware.ros.node_status import StatusTopics

        parameters = self._parameters
        self._timing = timing = Timing(parameters.control_rate or None, parameters.seams or None)
        self._clock = make_clock(parameters.robot, realtime=True)
        spec = read_spec(parameters.checkpoint)
        limited = partial(said_otherwise, parameters.limits or None, parameters.safety, "the limits of the robot")
        with limited() as told:
            look_at_limits(told)
        bare, self._commanded = _robot(parameters, self._clock, spec, transport, name)
        self._inner = bare
        stack.callback(bare.close)
        self._transport = transport
        self._world = bare if isinstance(bare, Environment) else None
        offers = f"robot {parameters.robot}"
        timing.fits(spec, bare.spec).require_from(bare.spec, needs=f"checkpoint {parameters.checkpoint}", offers=offers)
        with limited() as told:
            limits, watchdogs = read_limits(told, bare.spec)
        self._safety = make_safety(bare.spec, limits)
        running = AS_SAVED.resolve(parameters.checkpoint).placed(getattr(bare, "camera_calibration", dict)())
        if seeing := running.seeing(monitored=bool(parameters.monitor)):
            say(seeing)
        self._agent = _agent(parameters, timing, watchdogs, self._clock, bare.spec, running)
        stack.callback(getattr(self._agent, "close", lambda: None))
        self.robot = watched(bare, watchdogs, stack, lambda: Lent(transport))
        self._driven = following(self.robot, bare, self._agent, self._safety)
        self._agent.act(self.robot.read())  # the first plan is slow; the loop resets the agent
        planning = getattr(self._agent, "inner", self._agent)
        self._topics = StatusTopics(
            transport, self.robot, self._clock, name=name, hardware=parameters.robot,
            counts=getattr(self._safety, "counts", {}),
            plan_latency_s=lambda: getattr(planning, "latency_s", None),
        )  # fmt: skip
        stack.callback(self._topics.close)


class Lent:
    """A `Transport` that is somebody else's: to close it leaves the topics that were opened here, and no others."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._opened: list[Any] = []

    def subscribe(self, topic: str, kind: str, on_message: Any = None) -> Any:
        """Read a topic, as `Transport` says."""
        self._opened.append(self._transport.subscribe(topic, kind, on_message))
        return self._opened[-1]

    def publisher(self, topic: str, kind: str, *, latched: bool = False) -> Any:
        """Return what publishes on a topic, as `Transport` says."""
        self._opened.append(self._transport.publisher(topic, kind, latched=latched))
        return self._opened[-1]

    def publishers(self, topic: str) -> list[str]:
        """Return the type that each publisher of a topic has."""
        found: list[str] = self._transport.publishers(topic)
        return found

    def publishing_nodes(self, topic: str) -> list[str]:
        """Return the name of the node of each publisher of a topic, as `Transport` says."""
        found: list[str] = self._transport.publishing_nodes(topic)
        return found

    def close(self) -> None:
        """Leave the topics; idempotent."""
        for one in self._opened:
            one.close()
        self._opened = []


def _robot(parameters: Any, clock: Clock, spec: PolicySpec, transport: Any, name: str) -> tuple[Robot, list[str]]:
    """Return the robot, and the topics on which it is commanded."""
    from robopolicy.cli.worlds import make_robot

    rate_hz = parameters.control_rate or None
    kind, _, path = parameters.robot.partition(":")
    if kind != "ros" or not path:
        return make_robot(parameters.robot, clock, spec, cameras=tuple(spec.cameras), rate_hz=rate_hz), []
    from robopolicy.topics.config import load_config
    from robopolicy_hardware.ros.node_overrides import said_otherwise
    from robopolicy_hardware.ros.node_parameters import as_told
    from robopolicy_hardware.ros.robot import RosRobot, named_by

    with said_otherwise(path, parameters.topics, "the topics of the robot") as told:
        config = as_told(load_config(told or path), name, parameters)
    with named_by(path):
        robot = RosRobot(config, clock, transport, cameras=tuple(spec.cameras), rate_hz=rate_hz)
    return robot, [one.topic for one in (config.action, config.action.gripper) if one is not None]


def _agent(parameters: Any, timing: Any, watchdogs: Any, clock: Clock, robot: PolicySpec, running: Any = None) -> Any:
    import torch

    from robopolicy.cli.deploy import check_pace
    from robopolicy.cli.reacting import reactions
    from robopolicy.cli.worlds import check_device, make_agent

    deadline_s = parameters.monitor_deadline_ms / 1e3 or None
    asked = reactions(parameters.on_alarm, parameters.on_overrun or None, parameters.monitor_late, deadline_s)
    torch.set_num_threads(parameters.threads)
    return make_agent(
        running or parameters.checkpoint, monitor=parameters.monitor or None, on_alarm=asked,
        device=check_device(parameters.device), play=timing.agent(clock, watchdogs), clock=clock, robot=robot,
        check=partial(check_pace, waits=False, allow_slow=parameters.allow_slow, beside=timing.beside),
        timing=timing.words(robot.rate_hz),
    )  # fmt: skip
