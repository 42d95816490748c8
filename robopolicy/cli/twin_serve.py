"""`robopolicy twin serve`: a simulated robot as a process of its own that looks like an arm with ROS 2 on the wire."""

import argparse
import re
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import EachOnce, at_least, positive, rate
from robopolicy.cli.signals import ended_by_signals
from robopolicy.errors import ContractError, UnknownCamera, UsageError

NODE = "robopolicy_twin"
TIMEOUT_S = 0.1
LARGEST = (480, 640)  # pixels, of a picture; as sim_envs.rendering.OFFSCREEN
IMPERFECT = {  # option: (field of Imperfections, scale, help)
    "--latency-ms": ("command_latency_s", 1e-3, "from a command until the arm begins to follow it"),
    "--joint-noise": ("joint_noise_rad", 1.0, "standard deviation of every measured joint, rad"),
    "--speed-noise": ("speed_noise_rad_s", 1.0, "of every measured joint speed, rad/s"),
    "--position-noise": ("position_noise_m", 1.0, "of the measured positions of tool and objects, m"),
    "--camera-latency-ms": ("camera_latency_s", 1e-3, "from a picture's stamp until it is sent"),
    "--camera-drop": ("camera_drop", 1.0, "probability that a picture is lost"),
    "--camera-stops": ("camera_stops_s", 1.0, "seconds after which no picture comes any more"),
    "--friction": ("friction", 1.0, "factor on every sliding friction"),
    "--mass": ("mass", 1.0, "factor on the masses of the objects"),
    "--damping": ("damping", 1.0, "factor on the damping of the arm's servos"),
    "--gain": ("gain", 1.0, "factor on the stiffness of the arm's servos"),
}


def add_action(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("serve", parents=[debug], help="a simulated robot on ROS 2 topics, no ROS needed")
    parser.add_argument("task", metavar="TASK", help="what is on the table: lift, stack, drawer, ...")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="topics (default: the usual ones)")
    parser.add_argument(
        "--commands", choices=("tool_pose", "joint"), help="what it takes without --config (default tool_pose)"
    )
    parser.add_argument("--domain", type=at_least(0), help="of ROS 2 (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument("--node", default=NODE, metavar="NAME", help=f"name of its node (default {NODE})")
    parser.add_argument("--rate", type=rate, default=100.0, metavar="HZ", help="joint states a second (100)")
    parser.add_argument(
        "--cameras", nargs="*", action=EachOnce, metavar="CAMERA", help="those to show; none: without pictures"
    )
    parser.add_argument("--camera-hz", type=rate, default=30.0, metavar="HZ", help="pictures a second (30)")
    parser.add_argument(
        "--camera-size", type=_size, default=(96, 96), metavar="HEIGHTxWIDTH", help="pixels, 480x640 at most (96x96)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the start and the noise (0)")
    parser.add_argument(
        "--command-timeout", type=_seconds, default=TIMEOUT_S, metavar="S",
        help=f"without commands for so long it holds; 0 follows the last one for ever (default {TIMEOUT_S:g})",
    )  # fmt: skip
    hidden = parser.add_argument_group("what the policy side does not know")
    for option, (_, _, told) in IMPERFECT.items():
        hidden.add_argument(option, type=_seconds, metavar="X", help=told)
    parser.add_argument("--parameters", type=Path, metavar="FILE.json", help="as `twin identify` wrote them")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or a signal."""
    from robopolicy.cli.progress import bar, say

    with ExitStack() as stack:
        served = stack.enter_context(_Served(args))
        say(served.about)
        ticker = stack.enter_context(bar("twin serve", None, "steps"))
        with suppress(KeyboardInterrupt, SystemExit), ended_by_signals():
            served.run(lambda: ticker.advance(1, served.state()))
    say(served.summary())
    return 0


class _Served:
    """The world, its server and its topics, from the command line."""

    def __init__(self, args: argparse.Namespace) -> None:
        from robopolicy.clock import WallClock
        from robopolicy.topics.config import load_config
        from robopolicy_hardware.ros.dds import Topics
        from robopolicy_hardware.ros.server import RobotServer
        from robopolicy_hardware.ros.usual import usual_topics
        from robopolicy_hardware.ros.world_topics import WorldTopics
        from sim_envs.arm import JOINTS

        config = None if args.config is None else load_config(args.config)
        if config is not None and args.commands is not None:
            raise UsageError(f"--commands {args.commands}: {args.config} says what is commanded; leave one of them out")
        self._clock, self._rate_hz = WallClock(), args.rate
        self._twin, robot = _robot(args, config, self._clock)
        self._stack = ExitStack()
        self._stack.callback(self._twin.close)
        try:
            self._twin.read()  # the first picture is slow
            spec = self._twin.spec
            config = usual_topics(spec, JOINTS) if config is None else _only(config, tuple(spec.cameras))
            topics = Topics(args.domain, node=args.node)
            self._stack.callback(topics.close)
            timeout_s = max(args.command_timeout, 2 / config.rate_hz) if args.command_timeout else None
            self.server = RobotServer(robot, config, topics, self._clock, timeout_s=timeout_s)
            self._stack.callback(self.server.close)
            self._world = WorldTopics(self._twin, topics, args.node)
            self._stack.callback(self._world.close)
        except BaseException:
            self._stack.close()
            raise
        self._steps, self._start_s = 0, time.monotonic()
        shown = sorted({topic.topic for topic in config.observed().values()})
        self.about = (
            f"serving twin:{args.task} as node {args.node} in domain {topics.domain}: {', '.join(shown)}; "
            f"commands on {', '.join(commanded(config))}; Ctrl-C ends it"
        )

    def __enter__(self) -> "_Served":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, tick: Any) -> None:
        """Step at the rate, for ever; ticks that a stall swallowed are skipped."""
        period_ns, start_ns, k = round(1e9 / self._rate_hz), self._clock.now_ns(), 0
        while True:
            self._clock.sleep_until(start_ns + k * period_ns)
            if (seed := self._world.seed()) is not None:
                self._twin.reset(seed)
                self.server.hold(f"reset to seed {seed}")
            self.server.step()
            self._world.tell(time.time_ns())
            self._steps += 1
            tick()
            k = max(k, (self._clock.now_ns() - start_ns) // period_ns) + 1

    def state(self) -> str:
        """Return how it stands, in a few words."""
        server = self.server
        parts = [f"{server.received} commands, {server.refused} refused"]
        parts += [f"holds: {server.holds}"] * bool(server.holds) + [f"last refused: {server.why}"] * bool(server.why)
        return "; ".join(parts)

    def summary(self) -> str:
        """Return what happened in one line."""
        took_s = max(time.monotonic() - self._start_s, 1e-9)
        return f"served {took_s:.1f} s at {self._steps / took_s:.1f} Hz: {self.state()}"


def _robot(args: argparse.Namespace, config: Any, clock: Any) -> tuple[Any, Any]:
    """Return the twin at its start, and the robot that it is with all that the policy side does not know."""
    import numpy as np

    from sim_envs.imperfections import Imperfect
    from sim_envs.parameters import apply, load
    from sim_envs.tasks import make_task
    from sim_envs.twin import CAMERAS, Twin

    imperfections, parameters = imperfections_of(args), args.parameters and load(args.parameters)
    twin = Twin(
        make_task(args.task), clock, camera_hz=args.camera_hz, size=args.camera_size,
        cameras=_cameras(args.cameras, CAMERAS if config is None else tuple(config.cameras)),
        action=(args.commands or "tool_pose") if config is None else config.action.kind,
        **({} if config is None else {"rate_hz": config.rate_hz}),
    )  # fmt: skip
    if parameters:
        apply(parameters, twin.model)
        imperfections = replace(imperfections, command_latency_s=imperfections.command_latency_s + parameters.delay_s)
    robot = Imperfect(twin, imperfections, clock, np.random.default_rng(args.seed))
    twin.reset(args.seed)
    return twin, robot


def imperfections_of(args: argparse.Namespace) -> Any:
    """Return the `Imperfections` that the command line asks for; raises UsageError."""
    from sim_envs.imperfections import Imperfections

    asked = {option: getattr(args, option[2:].replace("-", "_")) for option in IMPERFECT}
    values = {IMPERFECT[o][0]: value * IMPERFECT[o][1] for o, value in asked.items() if value is not None}
    try:
        return Imperfections(**values)
    except ContractError as error:
        raise UsageError(str(error)) from error


def commanded(config: Any) -> list[str]:
    """Return the topics that are commanded."""
    return [config.action.topic, *([] if config.action.gripper is None else [config.action.gripper.topic])]


def _cameras(asked: list[str] | None, have: tuple[str, ...]) -> tuple[str, ...]:
    for name in asked or ():
        if name not in have:
            raise UnknownCamera("camera", name, have)
    return have if asked is None else tuple(asked)


def _only(config: Any, cameras: tuple[str, ...]) -> Any:
    primary = config.primary if config.primary in cameras else None
    return replace(config, cameras={name: config.cameras[name] for name in cameras}, primary=primary)


def _seconds(text: str) -> float:
    """Read a finite number from 0 on."""
    return 0.0 if text.strip() in ("0", "0.0") else positive(text)


def _size(text: str) -> tuple[int, int]:
    """Read pixels as ``240x320``, height first."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None or int(found[1]) > LARGEST[0] or int(found[2]) > LARGEST[1]:
        most = "x".join(map(str, LARGEST))
        raise argparse.ArgumentTypeError(f"{text!r} is no size; want HEIGHTxWIDTH in pixels, {most} at most")
    return int(found[1]), int(found[2])
