"""`robopolicy record` when a person drives: robot, device, terminal and recorder joined into one session."""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy import __version__
from robopolicy.cli.drifting import SessionDrift
from robopolicy.cli.perturbing import drawn, perturbations_of, perturbed
from robopolicy.cli.reacted import Marking
from robopolicy.cli.reacting import reactions_of
from robopolicy.cli.running import Choice, Running
from robopolicy.cli.signals import ended_once
from robopolicy.clock import WallClock
from robopolicy.errors import UsageError
from robopolicy.interfaces import Agent, Clock, Environment, Robot, Scene, Watcher
from robopolicy.session import SessionResult, Wishes, keep_unless_discarded, run_session
from robopolicy.shared_control import Shared
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta


def demonstrate(args: argparse.Namespace) -> SessionResult:
    """Run one session, in real time, as ``robopolicy record``'s arguments ask.

    Raises:
        UsageError: if the device needs a terminal and there is none, or cannot drive the robot.
        SpecMismatch: if the dataset holds episodes of another robot, or the policy does not fit it.
        ContractError, UnknownName, DatasetError: if the policy cannot be solved so, or there is no such goal.
    """
    from robopolicy.cli.record import accept, recorded
    from robopolicy.cli.watched import by_hand, look_at_limits
    from robopolicy_data.recorder import Recorder
    from robopolicy_hardware.teleop.devices import DeviceOptions, make_teleop

    running = None if args.checkpoint is None else Choice.of(args).resolve(args.checkpoint)
    clock = WallClock()
    look_at_limits(args.limits)
    with ExitStack() as stack:
        stack.enter_context(ended_once())
        robot = _robot(args, clock)
        stack.callback(robot.close)
        driven, safety = by_hand(robot, args.limits, stack, args.domain)
        if args.auto_success and not isinstance(robot, Environment):
            raise UsageError(f"--auto-success needs a simulated world; {args.robot!r} is none")
        robot.read()  # what cannot be drawn fails here, before there is a dataset
        accept(args.data, robot.spec, recover=True)
        held, newest = recorded(args.data)
        policy = None if running is None else _policy(args, running, robot, clock)
        options = DeviceOptions(
            args.speed, args.host, args.port, args.token, topic=args.topic, kind=args.message, domain=args.domain
        )
        scene = robot if isinstance(robot, Scene) else None
        device = make_teleop(args.teleop, robot.spec, scene=scene, options=options)
        stack.callback(device.close)
        terminal = _terminal(args)
        teleop, tell = _panel(device, terminal, stack)
        recorder = stack.enter_context(Recorder(args.data, keep=keep_unless_discarded, background=True, recover=True))
        wishes = Wishes(
            describe=lambda seed: _describe(args, running, robot, seed),
            episodes=args.episodes,
            held=held,
            seed=max(args.seed, newest + 1),
            auto_success=args.auto_success,
            time_limit_s=args.time_limit,
            undo=lambda: undo(args.data, recorder),
            tell=tell,
        )
        shared = Shared(policy, teleop, robot.spec)
        watchers = [device] if isinstance(device, Watcher) else []  # the browser shows a policy at work too
        if args.monitor is not None:
            watchers.append(Marking(policy, [recorder]))
            if not isinstance(robot, Environment):
                watchers.append(SessionDrift(driven, args.monitor, args.robot, tell))
        if args.compare_with is not None:
            watchers.append(_comparison(args.compare_with, robot.spec))
        return run_session(driven, shared, teleop, clock, safety, recorder, wishes, watchers=watchers)


def undo(path: Path, recorder: Any) -> int | None:
    """Delete the newest episode of the dataset that ``recorder`` writes; return its seed, or None if there is none."""
    from robopolicy_data.edit import delete
    from robopolicy_data.reader import Dataset

    recorder.close()  # it opens the dataset again with the next episode
    episodes = list(Dataset(path)) if (path / "zarr.json").exists() else []
    if not episodes:
        return None
    seed = episodes[-1].meta.seed or 0
    delete(path, episodes[-1].number)
    return seed


def _robot(args: argparse.Namespace, clock: Clock) -> Robot:
    from robopolicy.cli.worlds import make_robot, size_for
    from robopolicy_hardware.mock import ARM

    cameras = None if args.cameras is None else tuple(args.cameras)
    spec = ARM
    pictures = args.camera_size
    if args.checkpoint is not None:
        from robopolicy.training.checkpoint import read_spec

        driver = read_spec(args.checkpoint)
        spec, pictures = driver if args.robot == "mock" else spec, pictures or size_for(args.robot, driver)
    if args.rate is not None:
        spec = replace(spec, rate_hz=args.rate)
    robot = make_robot(args.robot, clock, spec.select(cameras) if args.robot == "mock" else spec, cameras=cameras,
                       rate_hz=args.rate, size=pictures, domain=args.domain)  # fmt: skip
    return perturbed(robot, args.robot, perturbations_of(args))  # type: ignore[no-any-return]


def _policy(args: argparse.Namespace, running: Running, robot: Robot, clock: Clock) -> Agent:
    import torch

    from robopolicy.cli.deploy import check_pace
    from robopolicy.cli.worlds import check_device, make_agent
    from robopolicy.training.checkpoint import read_spec

    read_spec(args.checkpoint).require_from(
        robot.spec, needs=f"checkpoint {args.checkpoint}", offers=f"robot {args.robot}"
    )
    running = running.placed(getattr(robot, "camera_calibration", dict)())
    torch.set_num_threads(1)
    check = partial(check_pace, waits=False, allow_slow=True)  # a person is there: told, not refused
    agent = make_agent(
        running, monitor=args.monitor, on_alarm=reactions_of(args, operator=True), device=check_device(args.device),
        check=check, clock=clock, robot=robot.spec,
    )  # fmt: skip
    agent.act(robot.read())  # the first plan is slow: buffers, threads; the loop resets the agent
    return agent


def _comparison(path: Path, spec: PolicySpec) -> Watcher:
    """Return a watcher that says when a demonstration differs from the successful ones in ``path``."""
    import torch

    from robopolicy.cli.data_actions.judging import base_policy
    from robopolicy.quality.watcher import CompatibilityWatcher

    torch.set_num_threads(1)
    watcher = CompatibilityWatcher(base_policy(path))
    watcher.require(spec)
    return watcher


def _terminal(args: argparse.Namespace) -> Any:
    """Return the terminal to control the session with, or None, said in one line, if there is none."""
    from robopolicy.cli.progress import say
    from robopolicy_hardware.teleop.terminal import Terminal

    needs_keys = args.teleop in ("keyboard", "ros") and not (args.message or "").endswith("Joy")
    if needs_keys or (sys.stdin.isatty() and sys.stderr.isatty()):
        return Terminal(sys.stdin, sys.stderr)
    say(f"no terminal here: its keys are off, the buttons of the {args.teleop} start and end the episodes")
    return None


def _panel(device: Any, terminal: Any, stack: ExitStack) -> tuple[Any, Any]:
    """Return the device, with the panel around it if there is a terminal, and what prints lines meanwhile."""
    from robopolicy.cli.progress import say

    if terminal is None:
        if hasattr(device, "help"):
            say(device.help)
        return device, say
    from robopolicy_hardware.teleop.panel import HELP, Panel

    stack.enter_context(terminal)
    for text in (getattr(device, "help", ""), HELP):
        if text:
            terminal.say(text)
    return Panel(device, terminal), terminal.say


def _describe(args: argparse.Namespace, running: Running | None, robot: Robot, seed: int) -> EpisodeMeta:
    calibration = getattr(robot, "camera_calibration", dict)()
    policy = {} if running is None else {"checkpoint": str(running.checkpoint), **running.about}
    return EpisodeMeta(
        task=args.task or getattr(robot, "instruction", ""),
        robot=args.robot,
        seed=seed,
        operator=args.operator,
        embodiment=getattr(robot, "embodiment", "robot"),
        software=f"robopolicy {__version__}",
        cameras={name: calibration[name] for name in robot.spec.cameras if name in calibration},
        notes=args.notes,
        extra={"teleop": args.teleop, **getattr(robot, "about", dict)(), **policy, **drawn(robot)},
    )
