"""`robopolicy replay`: a recorded episode's commands once more, in the twin or on the robot."""

import argparse
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robopolicy import __version__
from robopolicy.cli.arguments import at_least
from robopolicy.cli.signals import ended_once
from robopolicy.cli.watched import add_limits, by_hand, look_at_limits
from robopolicy.errors import ContractError, UsageError
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta

APPROACH_S = 30.0  # in which a robot must have come to the recording's start


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("replay", parents=[debug], help="send a recorded episode's commands once more")
    parser.add_argument("data", type=Path, metavar="D.zarr")
    parser.add_argument("--episode", type=at_least(0), required=True, metavar="N")
    parser.add_argument("--robot", metavar="NAME", help="default: the one it was recorded on")
    parser.add_argument("--realtime", action="store_true", help="run a simulated world at the pace of the wall clock")
    parser.add_argument("--video", type=Path, metavar="V.webm", help="film it")
    add_limits(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent: range, speeds; move nothing")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Replayed:
    """What came of it."""

    difference: dict[str, tuple[float, float]]  # {state: (root mean square, largest)}, units of the state
    success: bool | None  # now; None where nothing can tell
    recorded: bool | None  # then
    limited: int  # commands that safety changed
    steps: int


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say

    recording, spec, meta = load(args.data, args.episode)
    name = args.robot or meta.robot
    if args.dry_run:
        for line in describe(recording, spec):
            say(line)
        return
    with ended_once():
        outcome = replay(recording, spec, meta, name, realtime=args.realtime, video=args.video, limits=args.limits)
    for state, (rms, largest) in outcome.difference.items():
        unit = "" if state not in spec.state else f" {'/'.join(dict.fromkeys(spec.state[state].units))}"
        say(f"{state:<16} differs by {rms:.4g}{unit} (root mean square), {largest:.4g} at most")
    limited = f", {outcome.limited} of them limited by safety" if outcome.limited else ""
    say(f"episode {args.episode} on {name}: {outcome.steps} commands{limited}; {_verdict(outcome)}")


def load(path: Path, number: int) -> tuple[Any, PolicySpec, EpisodeMeta]:
    """Return an episode as a `robopolicy.replay.Recording`, its spec and what is known of it.

    Raises:
        DatasetError: if there is no such episode; the numbers are listed.
    """
    from robopolicy.replay import Recording
    from robopolicy_data.numbers import require_episodes
    from robopolicy_data.reader import Dataset

    dataset = Dataset(path)
    episodes = {episode.number: episode for episode in dataset}
    require_episodes([number], episodes, dataset.where)
    episode = episodes[number]
    state = {name: episode.state(name) for name in dataset.spec.state}
    recording = Recording(episode.action(), episode.stamps_ns("action"), episode.stamps_ns("step"), state)
    return recording, dataset.spec, episode.meta


def describe(recording: Any, spec: PolicySpec) -> list[str]:
    """Return what a replay would send, a line each."""
    from robopolicy.replay import preview

    seen = preview(recording, spec)
    lines = [f"{seen.steps} commands in {seen.time_s:.2f} s"]
    for i, name in enumerate(spec.action.names):
        unit = spec.action.units[i % len(spec.action.units)]
        lines.append(
            f"{name:<10} {seen.low[i]:9.4f} to {seen.high[i]:9.4f} {unit}, at most {seen.fastest[i]:.4g} {unit}/s"
        )
    if seen.speed_m_s is not None:
        lines.append(f"fastest: {seen.speed_m_s:.3f} m/s, {seen.turn_rad_s:.3f} rad/s")
    return lines


def replay(
    recording: Any,
    spec: PolicySpec,
    meta: EpisodeMeta,
    robot_name: str,
    *,
    realtime: bool = False,
    video: Path | None = None,
    limits: Path | None = None,
) -> Replayed:
    """Send the commands through safety; a simulated world starts from the recorded seed.

    Raises:
        SpecMismatch: if the robot takes other commands than were recorded.
        UsageError: if a film is asked of a robot that is no simulation, or its emergency stop is pressed or silent.
        ContractError: if the robot does not come to the recording's start.
    """
    from robopolicy.cli.progress import bar
    from robopolicy.cli.worlds import make_clock, make_robot
    from robopolicy.interfaces import Environment
    from robopolicy.loop import run_episode
    from robopolicy.replay import Replay

    clock = make_clock(robot_name, realtime=realtime)
    look_at_limits(limits)
    with ExitStack() as stack:
        rate_hz = spec.rate_hz if robot_name.startswith("twin:") else None
        robot = make_robot(robot_name, clock, spec, cameras=(), rate_hz=rate_hz)
        stack.callback(robot.close)
        PolicySpec(action=spec.action, rate_hz=robot.spec.rate_hz).require_from(
            robot.spec, needs="the recording", offers=f"robot {robot_name}"
        )
        world = robot if isinstance(robot, Environment) else None
        if video is not None and world is None:
            raise UsageError(f"--video needs a simulated world; {robot_name!r} is none")
        if world is not None:
            world.reset(meta.seed or 0)
        agent = Replay(recording, robot.spec)
        driven, safety = by_hand(robot, limits, stack, None)
        film = _Film(world, video) if video is not None else None
        if film is not None:
            stack.callback(film.close)
        length_s = float(recording.due_ns[-1] - recording.due_ns[0]) / 1e9
        steps = round((length_s + APPROACH_S) * robot.spec.rate_hz)
        progress = stack.enter_context(bar("replay", None, "steps"))
        ticker = _Ticker(progress.advance)
        once: list[bool] = [False]

        def done(observation: Any) -> bool:
            once[0] = once[0] or (world is not None and world.success())
            return agent.done(observation)

        run_episode(
            driven, agent, clock, safety,
            replace(meta, robot=robot_name, software=f"robopolicy {__version__}"),
            max_steps=steps, watchers=[agent, ticker, *([film] if film else [])], done=done,
        )  # fmt: skip
        if not agent.finished:
            raise ContractError(f"{robot_name} did not come to the start of the recording in {APPROACH_S:g} s")
        return Replayed(agent.difference(), once[0] if world else None, meta.success, _limited(safety), ticker.steps)


def _limited(safety: Any) -> int:
    counts = getattr(safety, "counts", {})
    return int(counts.get("speed", 0) + counts.get("box", 0))


def _verdict(outcome: Replayed) -> str:
    words = {True: "success", False: "no success", None: "success unknown"}
    now = "nothing here tells success" if outcome.success is None else f"now {words[outcome.success]}"
    return f"recorded as {words[outcome.recorded]}, {now}"


class _Ticker:
    """A watcher that moves a progress bar."""

    def __init__(self, advance: Any) -> None:
        self._advance, self.steps = advance, 0

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Nothing to show yet."""

    def on_step(self, step: Any) -> None:
        """One step on."""
        self.steps += 1
        self._advance()

    def on_end(self, meta: EpisodeMeta) -> None:
        """Nothing more to show."""


class _Film:
    """A watcher that films every second step of a simulated world."""

    def __init__(self, world: Any, path: Path) -> None:
        from robopolicy.evaluation.video import VideoWriter

        if path.suffix != ".webm":
            raise UsageError(f"--video {path}: videos are VP8 in .webm; name the file {path.with_suffix('.webm').name}")
        self._world, self._steps = world, 0
        self._writer = VideoWriter(path, rate_hz=world.spec.rate_hz / 2)
        world.picture()  # the first one is slow, and would make a step late

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Nothing to film yet."""

    def on_step(self, step: Any) -> None:
        """Film it."""
        if self._steps % 2 == 0:
            self._writer.add(self._world.picture())
        self._steps += 1

    def on_end(self, meta: EpisodeMeta) -> None:
        """Film the last moment."""
        self._writer.add(self._world.picture())

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
