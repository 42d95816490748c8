"""`robopolicy twin excite`: safe motions that show an arm's parameters, recorded for `robopolicy twin identify`."""

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least, positive, rate
from robopolicy.cli.signals import ended_once
from robopolicy.cli.watched import add_limits, look_at_limits, read_limits, topics_of, watched
from robopolicy.errors import UsageError
from robopolicy.types import EpisodeMeta


def add_action(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("excite", parents=[debug], help="move a robot so that it can be identified, record it")
    parser.add_argument("--robot", required=True, metavar="NAME", help="twin:TASK or ros:FILE.yaml")
    parser.add_argument("--data", required=True, type=Path, metavar="D.zarr", help="created, or appended to")
    parser.add_argument("--episodes", type=at_least(1), default=4, help="motions (default 4)")
    parser.add_argument("--seconds", type=positive, default=8.0, metavar="S", help="of each (default 8)")
    parser.add_argument(
        "--size", type=positive, default=0.5, metavar="X",
        help="1 is 0.3 rad at 0.6 rad/s, or 6 cm at 0.2 m/s, about where the arm is; default 0.5",
    )  # fmt: skip
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the first motion (default 0)")
    parser.add_argument("--rate", type=rate, metavar="HZ", help="commands a second; default: the robot's own")
    parser.add_argument("--domain", type=at_least(0), help="ros: default: ROS_DOMAIN_ID, or 0")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import bar, say
    from robopolicy.cli.record import accept
    from robopolicy.cli.worlds import make_clock, make_robot, make_safety
    from robopolicy.clock import SimClock
    from robopolicy.loop import run_episode
    from robopolicy.spec import PolicySpec
    from robopolicy_data.recorder import Recorder
    from sim_envs.excitation import Exciter

    if args.robot.partition(":")[0] not in ("twin", "ros"):
        raise UsageError(f"--robot {args.robot}: there is nothing to identify in it; want twin:TASK or ros:FILE.yaml")
    look_at_limits(args.limits)
    clock = make_clock(args.robot, realtime=False)
    with ended_once(), ExitStack() as stack:  # a signal stops the robot
        bare = make_robot(args.robot, clock, PolicySpec(), cameras=(), rate_hz=args.rate, domain=args.domain)
        stack.callback(bare.close)
        allowed, watchdogs = read_limits(args.limits, bare.spec)
        simulated = isinstance(clock, SimClock)
        robot = bare if simulated else watched(bare, watchdogs, stack, partial(topics_of, args.domain))
        exciter = Exciter(robot.spec, robot.stop, duration_s=args.seconds, size=args.size)
        accept(args.data, robot.spec, recover=True)
        reset = getattr(bare, "reset", lambda seed: None)
        recorder = stack.enter_context(Recorder(args.data))
        progress = stack.enter_context(bar("excite", args.episodes, "motions"))
        for seed in range(args.seed, args.seed + args.episodes):
            reset(seed)
            robot.read()
            meta = EpisodeMeta("excitation", args.robot, seed=seed, operator="excite")
            run_episode(
                robot, exciter, clock, make_safety(robot.spec, allowed), meta,
                max_steps=round(args.seconds * robot.spec.rate_hz), watchers=[recorder], done=exciter.done,
            )  # fmt: skip
            progress.advance()
    say(f"{args.episodes} motions in {args.data}. Next: ", (f"robopolicy twin identify {args.data}", "bold"))
