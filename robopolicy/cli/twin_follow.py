"""`robopolicy twin follow`: a twin in the shadow of a robot behind ROS 2 topics, aligned all the time."""

import argparse
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from robopolicy import __version__
from robopolicy.cli.arguments import EachOnce, at_least, positive, rate
from robopolicy.cli.signals import ended_by_signals
from robopolicy.cli.twin_seeing import Seeing, add_seeing, finders_of, groups_of, prepared, settings_of, tags
from robopolicy.errors import UsageError
from robopolicy.types import EpisodeMeta, Step

WAIT_S = 5.0
SHOWN_HZ = 5.0  # of the status line


def add_action(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser(
        "follow", parents=[debug], help="a twin that stays aligned with a robot on ROS 2 topics"
    )
    parser.add_argument("--robot", required=True, metavar="ros:FILE.yaml", help="the robot's topics, as for deploy")
    parser.add_argument("--task", required=True, metavar="NAME", help="what is on the table: lift, stack, drawer, ...")
    parser.add_argument("--domain", type=at_least(0), help="of ROS 2 (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument("--rate", type=rate, default=100.0, metavar="HZ", help="of corrections (default 100)")
    add_seeing(parser, unseen_s=1.0)
    parser.add_argument(
        "--mode", choices=("observer", "follower"), default="observer",
        help="observer: objects are put where they are believed to be; follower: drawn there by forces, no jumps",
    )  # fmt: skip
    parser.add_argument("--publish", metavar="PREFIX", help="publish the twin's state and health, as in /twin")
    parser.add_argument("--record", type=Path, metavar="D.zarr", help="record what the twin shows, and the commands")
    parser.add_argument(
        "--cameras", nargs="*", action=EachOnce, default=[], metavar="CAMERA", help="of the twin, to record"
    )
    parser.add_argument("--seconds", type=positive, metavar="S", help="end after so long (default: Ctrl-C ends it)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Follow until Ctrl-C, a signal or the end."""
    from robopolicy.cli.progress import bar, say

    with ExitStack() as stack:
        following = Following(args, stack)
        say(following.about)
        ticker = stack.enter_context(bar("twin follow", None, "steps"))
        with suppress(KeyboardInterrupt, SystemExit), ended_by_signals():
            following.run(args.seconds, lambda note: ticker.advance(1, note))
        following.end()
    say(following.summary())


class Following:
    """The robot's topics, the twin, and what it tells; closed with ``stack``."""

    def __init__(self, args: argparse.Namespace, stack: ExitStack) -> None:
        from robopolicy.clock import WallClock
        from robopolicy.topics.config import load_config
        from robopolicy_hardware.ros.dds import Topics
        from robopolicy_hardware.ros.transport import SHADOW
        from robopolicy_hardware.ros.twin_topics import TwinTopics
        from robopolicy_hardware.ros.watching import RobotWatch
        from sim_envs.aligned import AlignedTwin
        from sim_envs.arm import JOINTS
        from sim_envs.tasks import make_task
        from sim_envs.tracked import tracked_of

        kind, _, file = args.robot.partition(":")
        if kind != "ros" or not file:
            raise UsageError(f"--robot {args.robot}: a twin follows a robot on topics, as in ros:arm.yaml")
        config, task = load_config(file), make_task(args.task)
        objects = tracked_of(task)
        seeing = Seeing.of(args)
        finders, seen_by = finders_of(seeing.markers, config.cameras, objects)
        groups, extra = groups_of(config, objects, seeing.pose, seen_by)
        self._clock, self._rate_hz = WallClock(), args.rate
        self._topics = Topics(args.domain, node=SHADOW, watching=True)
        stack.callback(self._topics.close)
        self._watch = RobotWatch(config, self._topics, groups, extra)
        stack.callback(self._watch.close)
        self._watch.groups["arm"].wait(WAIT_S)
        self.aligned = AlignedTwin(
            task, self._clock.now_ns(), action=config.action.kind, mode=args.mode, cameras=tuple(args.cameras),
            finders=finders, settings=settings_of(seeing), rate_hz=config.rate_hz,
            **prepared(seeing.parameters),
        )  # fmt: skip
        stack.callback(self.aligned.close)
        self._told = None
        if args.publish:
            self._told = TwinTopics(self._topics, args.publish, JOINTS, [one.name for one in self.aligned.objects])
            stack.callback(self._told.close)
        self._recorder = _recorder(args.record, self.aligned.twin.spec, stack)
        self._meta = EpisodeMeta(
            self.aligned.twin.instruction, f"twin of {args.robot}", software=f"robopolicy {__version__}"
        )
        self._begun_s = time.monotonic()
        self._steps = self._troubled = 0
        self._note = ""
        self._least, self._recorded = 1.0, 0
        told = [f"{name} by {' and '.join(groups[name])}" for name in groups if name not in ("arm", *tags(seen_by))]
        how = ", ".join([*told, *(f"tags in {name}" for name in seen_by)])
        self.about = (
            f"twin:{args.task} follows {args.robot} in domain {self._topics.domain}: {how or 'its joints only'}; "
            "Ctrl-C ends it"
        )

    def run(self, seconds: float | None, tick: Any) -> None:
        """Follow at the rate; ticks that a stall swallowed are skipped."""
        period_ns, start_ns, k = round(1e9 / self._rate_hz), self._clock.now_ns(), 0
        while seconds is None or k * period_ns < seconds * 1e9:
            self._clock.sleep_until(start_ns + k * period_ns)
            now_ns = self._clock.now_ns()
            self.step(now_ns)
            health = self.aligned.health()["twin"]
            self._steps += 1
            self._troubled += bool(health.diverged)
            self._least = min(self._least, health.confidence) if health.accepted else self._least
            shown = self._steps % max(1, round(self._rate_hz / SHOWN_HZ)) == 0
            self._note = _line(health, self._watch.groups) if shown else self._note
            tick(self._note)
            k = max(k + 1, (self._clock.now_ns() - start_ns) // period_ns)

    def step(self, now_ns: int) -> None:
        """Bring the twin to the present, correct it, tell and record it."""
        aligned, wall_ns = self.aligned, time.time_ns()
        aligned.advance(now_ns)
        for group in self._watch.groups.values():
            seen = group.newest(now_ns)
            if seen is not None:
                aligned.observe(seen, arm="q" in seen.state)
        wanted = self._watch.commanded(now_ns, wall_ns, aligned.set_point())
        if wanted is not None:
            aligned.command(wanted, now_ns)
        elif self._watch.stopped:
            aligned.stop()
        if self._told is not None:
            q, dq = aligned.joints()
            estimates = [aligned.observer.estimate(one.name) for one in aligned.objects]
            poses = {one.name: (one.position, one.quat) for one in estimates}
            self._told.tell(wall_ns, q, dq, poses, aligned.health())
        self._record(now_ns)

    def end(self) -> None:
        """Commit what was recorded."""
        if self._recorder is not None and self._recorded:
            self._recorder.on_end(self._meta)

    def summary(self) -> str:
        """Return what happened in one line."""
        took_s = max(time.monotonic() - self._begun_s, 1e-9)
        health = self.aligned.health()["twin"]
        share = 100 * self._troubled / max(self._steps, 1)
        told = f"; {health.diverged}" if health.diverged else ""
        return (
            f"followed {took_s:.1f} s at {self._steps / took_s:.1f} Hz: {health.accepted} poses taken, "
            f"{health.rejected} rejected, {health.restarts} restarts, {health.recoveries} recoveries; confidence "
            f"{health.confidence:.2f}, least {min(self._least, health.confidence):.2f}, "
            f"diverged {share:.0f} % of the time{told}"
        )

    def _record(self, now_ns: int) -> None:
        """Record on a fixed grid of the spec's rate, from when the twin has begun."""
        spec = self.aligned.twin.spec
        tick = now_ns // spec.period_ns
        if self._recorder is None or not self.aligned.begun or tick == self._recorded:
            return
        if not self._recorded:
            self._recorder.on_start(self._meta, spec)
        self._recorded = tick
        self._recorder.on_step(Step(self.aligned.read(), self.aligned.set_point(), now_ns, "policy"))


def _line(health: Any, groups: Mapping[str, Any]) -> str:
    """Return how the twin stands, and every stream that is in trouble."""
    parts = [f"confidence {health.confidence:.2f}", f"{health.rejected} rejected"]
    parts += [health.diverged, *(f"{name}: {group.trouble}" for name, group in groups.items() if group.trouble)]
    return "; ".join(filter(None, parts))


def _recorder(path: Path | None, spec: Any, stack: ExitStack) -> Any:
    if path is None:
        return None
    from robopolicy.cli.record import accept
    from robopolicy_data.recorder import Recorder

    accept(path, spec, recover=True)
    return stack.enter_context(Recorder(path, recover=True))
