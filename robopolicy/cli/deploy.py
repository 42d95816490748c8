"""`robopolicy deploy`: one policy, one robot, one loop, guarded."""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy import __version__
from robopolicy.cli.arguments import EachOnce, at_least
from robopolicy.cli.calibrate import CANDIDATES
from robopolicy.cli.drifting import note_drift
from robopolicy.cli.keeping import Keeping, add_keeping
from robopolicy.cli.perturbing import add_perturbing, drawn, perturbations_of, perturbed
from robopolicy.cli.reacted import Marking
from robopolicy.cli.reacting import add_reacting, reactions_of
from robopolicy.cli.running import AS_SAVED, Choice, Running, add_running
from robopolicy.cli.signals import ended_once
from robopolicy.cli.timing import IN_THE_LOOP, Timing, add_timing, may_last_s
from robopolicy.cli.twin_seeing import Seeing, add_seeing
from robopolicy.cli.watched import add_limits, following, look_at_limits, topics_of, watched
from robopolicy.clock import SimClock
from robopolicy.errors import SpecMismatch, TooSlow, UsageError
from robopolicy.interfaces import Watcher
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("deploy", parents=[debug], help="run a policy on a robot or its twin, guarded")
    parser.add_argument(
        "--robot",
        required=True,
        metavar="NAME",
        help="twin:TASK, ros:FILE.yaml, twin-first:TASK:ROBOT, gymnasium:ID, mock, module:Class",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FOLDER", help="as train wrote it")
    parser.add_argument("--monitor", type=Path, metavar="FOLDER", help="failure monitor; none: unguarded")
    add_reacting(parser)
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=200_000,
        metavar="N",
        help="start of a simulated world, samples of the policy (default 200000)",
    )
    parser.add_argument(
        "--max-steps", type=at_least(1), metavar="N", help="control steps (default: the world's own, or 10 s)"
    )
    parser.add_argument(
        "--disturb-at", type=at_least(0), metavar="STEP", help="disturb the simulated world at this step"
    )
    add_perturbing(parser)
    parser.add_argument("--record", type=Path, metavar="D.zarr", help="record the episode")
    parser.add_argument(
        "--cameras",
        nargs="+",
        action=EachOnce,
        default=[],
        metavar="CAMERA",
        help="record these too, beside those the policy sees",
    )
    parser.add_argument("--video", type=Path, metavar="V.webm", help="film the episode")
    parser.add_argument("--device", default="cpu", help="where the policy computes: cpu, cuda (default cpu)")
    parser.add_argument(
        "--threads",
        type=at_least(1),
        default=1,
        metavar="N",
        help="CPU threads of the policy; one is the steadiest (default 1)",
    )
    parser.add_argument("--realtime", action="store_true", help="run a simulated world at the pace of the wall clock")
    parser.add_argument(
        "--allow-slow",
        action="store_true",
        help="drive although plans take longer than a step: the robot waits for them",
    )
    parser.add_argument(
        "--domain", type=at_least(0), help="of a robot behind ROS 2 topics (default: ROS_DOMAIN_ID, or 0)"
    )
    add_timing(parser)
    add_limits(parser)
    add_running(parser)
    add_keeping(parser)
    first = parser.add_argument_group("a twin before the robot", "of --robot twin-first:TASK:ROBOT")
    add_seeing(first, unseen_s=Seeing.unseen)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say

    with ended_once():  # a second signal does not interrupt the stop
        outcome = deploy(
            args.robot, args.checkpoint, monitor=args.monitor, on_alarm=reactions_of(args), seed=args.seed,
            max_steps=args.max_steps, disturb_at=args.disturb_at, record=args.record, cameras=tuple(args.cameras),
            video=args.video, realtime=args.realtime, device=args.device, threads=args.threads,
            allow_slow=args.allow_slow, domain=args.domain, choice=Choice.of(args), timing=Timing.of(args),
            limits=args.limits, seeing=None if Seeing.of(args) == Seeing() else Seeing.of(args),
            perturbations=perturbations_of(args), keeping=Keeping.of(args),
        )  # fmt: skip
    say(tell(outcome, args.robot))


def deploy(
    robot_name: str,
    checkpoint: Path,
    *,
    monitor: Path | None = None,
    on_alarm: Any = "hold",
    seed: int = 200_000,
    max_steps: int | None = None,
    disturb_at: int | None = None,
    record: Path | None = None,
    cameras: tuple[str, ...] = (),
    video: Path | None = None,
    realtime: bool = False,
    device: str = "cpu",
    threads: int = 1,
    allow_slow: bool = False,
    domain: int | None = None,
    choice: Choice = AS_SAVED,
    timing: Timing = IN_THE_LOOP,
    limits: Path | None = None,
    seeing: Seeing | None = None,
    perturbations: Sequence[str] = (),
    keeping: Keeping | None = None,
    watch: Callable[[Any, Any], Sequence[Watcher]] = lambda robot, agent: (),
) -> Any:
    """Run one guarded episode and return its `Outcome`; ``on_alarm`` is a reaction's name, or `Reactions`.

    Where time is real the robot is watched (`robopolicy_hardware.supervisor`): whatever ends or stops the loop ends in
    one stop. ``watch`` is told the robot and the agent that are driven, and returns more watchers; ``seeing`` is of a
    twin before a robot.

    Raises:
        SpecMismatch: if the checkpoint does not fit the robot, or the recording not its dataset; both sides printed.
        UsageError: if a disturbance, a perturbation or a video is asked of a robot that is no simulation, or its
            emergency stop is pressed or silent.
        TooSlow: if plans take longer than a step on a robot that does not wait, unless ``allow_slow``.
    """
    import torch

    from robopolicy.cli.progress import bar, say
    from robopolicy.cli.twin_first import TwinHealth, limits_of
    from robopolicy.cli.worlds import check_device, make_agent, make_clock, make_robot, make_safety, rate_for
    from robopolicy.evaluation.rollouts import Options, Witness
    from robopolicy.interfaces import Environment
    from robopolicy.loop import run_episode
    from robopolicy.training.checkpoint import read_spec

    start_s = time.perf_counter()
    spec, running = read_spec(checkpoint), choice.resolve(checkpoint)
    clock = make_clock(robot_name, realtime=realtime)
    waits = isinstance(clock, SimClock)
    timing.require(clock, spec)
    look_at_limits(limits)
    with ExitStack() as stack:
        shown = tuple(dict.fromkeys((*spec.cameras, *cameras)))
        rate_hz = timing.control_rate_hz or rate_for(robot_name, spec)
        bare = make_robot(
            robot_name, clock, spec, cameras=shown, rate_hz=rate_hz, domain=domain, seeing=seeing, limits=limits,
        )  # fmt: skip
        bare = perturbed(bare, robot_name, perturbations)
        stack.callback(bare.close)
        running = running.placed(getattr(bare, "camera_calibration", dict)())
        world = bare if isinstance(bare, Environment) else None
        each = bare.spec.rate_hz / spec.rate_hz if timing.beside else 1.0  # control steps a step of the policy
        steps = max_steps or (world.max_steps if world else round(10 * bare.spec.rate_hz))
        _require(robot_name, world, steps, disturb_at, video)
        about = {"policy_sha": running.sha, "env": robot_name, "rate": f"{spec.rate_hz:g} Hz", **running.about}
        plans = timing.words(bare.spec.rate_hz)
        about |= {"timing": plans} if timing.beside else {}
        if keeping is not None:
            keeping.require(world, robot_name, monitor, on_alarm)
            keeping.same(about)
            seed = keeping.seed(seed, world)
        timing.fits(spec, bare.spec).require_from(
            bare.spec, needs=f"checkpoint {checkpoint}", offers=f"robot {robot_name}"
        )
        allowed, watchdogs = limits_of(limits, bare)
        # Simulated time waits for the disk: nothing is dropped.
        recorders = [] if record is None else [_recorder(record, bare.spec, background=not waits)]
        torch.set_num_threads(threads)
        check = partial(check_pace, waits=waits, allow_slow=allow_slow, beside=timing.beside)
        play = timing.agent(clock, watchdogs, partial(running.load, check_device(device)))
        if seeing_by := running.seeing(monitored=monitor is not None):
            say(seeing_by)
        agent = make_agent(
            running, monitor=monitor, on_alarm=on_alarm, device=device, check=check, play=play, clock=clock,
            robot=bare.spec, timing=plans, candidates=CANDIDATES if keeping is not None and monitor is None else None,
        )  # fmt: skip
        stack.callback(getattr(agent, "close", lambda: None))
        guarded = None if waits else watched(bare, watchdogs, stack, partial(topics_of, domain))
        safety = make_safety(bare.spec, allowed)
        robot = following(guarded or bare, bare, agent, safety)
        stack.enter_context(timing.on_time(clock))
        agent.act(robot.read())  # the first plan is slow: buffers, threads; the loop resets the agent
        if guarded is not None and (why := guarded.refusal()) is not None:
            raise UsageError(f"robot {robot_name}: {why}")
        if world is not None:
            world.reset(seed)
        every = max(2, round(2 * each)) if video else None
        options = Options(disturb_at=disturb_at, decisions=keeping is not None, video_every=every)
        witness = Witness(bare, agent, seed, options, video)
        stack.callback(witness.close)
        recording = [*map(stack.enter_context, recorders)]
        marking = [Marking(agent, recording)] if recording else []
        first = [TwinHealth(bare)] if robot_name.startswith("twin-first:") else []
        stack.callback(lambda: [say(one.summary()) for one in first])
        told = first[0].line if first else lambda: ""
        ticker = Ticker(stack.enter_context(bar("deploy", steps, "steps")).advance, robot, recording, told)
        meta = run_episode(
            robot, agent, clock, safety,
            _describe(bare, robot_name, seed, running, timing),
            max_steps=steps, watchers=[witness, *first, ticker, *watch(robot, agent), *recording, *marking],
            done=witness.done if world else lambda _: False,
            finish=lambda meta: ticker.told(replace(meta, success=world.success() if world else None)),
        )  # fmt: skip
        outcome = witness.outcome(bool(meta.success), world.score() if world else 0.0, time.perf_counter() - start_s)
    if keeping is not None:  # the robot stands, and is let go: a person may take their time to answer
        outcome = keeping.keep(witness, outcome, world, about)
        meta = replace(meta, success=outcome.success)
    if monitor is not None and world is None:
        note_drift(monitor, outcome.marks, meta, robot_name)
    return replace(outcome, video=None if video is None else str(video))


def _require(robot_name: str, world: Any, steps: int, disturb_at: int | None, video: Path | None) -> None:
    """Refuse what could not be done, before anything moves."""
    from robopolicy.cli.worlds import SIMULATED, make_world, require_disturbance

    if world is None and (disturb_at is not None or video is not None):
        raise UsageError(f"--disturb-at and --video need a simulated world; {robot_name!r} is none")
    if disturb_at is not None and disturb_at >= steps:
        raise UsageError(f"--disturb-at {disturb_at} is never reached: the episode has {steps} steps")
    if disturb_at is not None and robot_name.partition(":")[0] in SIMULATED:
        with closing(make_world(robot_name, SimClock())) as spare:
            require_disturbance(spare, robot_name)
    if video is not None and video.suffix != ".webm":
        raise UsageError(f"--video {video}: videos are VP8 in .webm; name the file {video.with_suffix('.webm').name}")


def _recorder(path: Path, spec: PolicySpec, *, background: bool) -> Any:
    """Return what records, once the dataset is known to take it; what a kill left in it is said and an episode now."""
    from robopolicy.cli.record import accept
    from robopolicy_data.recorder import Recorder

    require_cameras(path, spec)
    accept(path, spec, recover=True)
    return Recorder(path, background=background, recover=True)


def _describe(robot: Any, robot_name: str, seed: int, running: Running, timing: Timing) -> EpisodeMeta:
    calibration: dict[str, Any] = getattr(robot, "camera_calibration", dict)()
    instruction = getattr(robot, "instruction", "")
    return EpisodeMeta(
        instruction, robot_name, seed, software=f"robopolicy {__version__}", cameras=calibration,
        extra={"checkpoint": str(running.checkpoint), **running.about, **timing.about, **drawn(robot)},
    )  # fmt: skip


def check_pace(policy: Any, n: int, *, waits: bool, allow_slow: bool, beside: bool = False) -> None:
    """Measure how long a plan of ``n`` candidates takes, before the robot moves, and say what would help if too long.

    Args:
        policy: that plans.
        n: candidates.
        waits: time waits for plans.
        allow_slow: a plan that takes too long is only said.
        beside: plans are made beside the loop, and may take as long as the rows between two of them last.

    Raises:
        TooSlow: if it takes longer than it may, time does not wait for it, and that is not allowed.
    """
    from robopolicy.cli.progress import say
    from robopolicy.policies.latency import judge, keeps_up, measure_latency, milliseconds, remedies

    spec = policy.spec
    delay = min(policy.config.max_delay, spec.horizon - spec.n_execute) if beside else 0
    latency = measure_latency(policy, n, delay_steps=delay)
    told, fits = judge(latency, policy.spec), keeps_up(latency, policy.spec)
    if beside:
        allowed_s = may_last_s(policy.spec)
        told = f"{latency}; beside the loop it may take {milliseconds(allowed_s)}, until the next one is asked for"
        fits = latency.p50_s <= allowed_s
    if fits:
        if not waits:
            say(told)
        return
    helps = "; ".join(remedies(policy, latency)) or "a faster machine"
    if not waits and not allow_slow:
        raise TooSlow(f"{told}. What would help: {helps}. --allow-slow drives all the same")
    say(
        f"{told}. " + ("Simulated time waits for it; a robot would not. " if waits else ""), f"What would help: {helps}"
    )


def require_cameras(path: Path, spec: PolicySpec) -> None:
    """Refuse a recording that lacks cameras of the dataset it shall join; what else differs the recorder says.

    Raises:
        SpecMismatch: naming the cameras and what to do.
    """
    if not (path / "zarr.json").exists():
        return
    from robopolicy_data.reader import Dataset

    lacking = [name for name in Dataset(path, unfinished=True).spec.cameras if name not in spec.cameras]
    if lacking:
        names = " ".join(lacking)
        raise SpecMismatch(
            f"dataset {path} has the camera(s) {names}, which this recording lacks: the policy does not look at them; "
            f"add --cameras {names}, or record into another dataset"
        )


class Ticker:
    """A watcher that moves a progress bar, says in which state a watched robot is, and marks why it was stopped."""

    def __init__(
        self, advance: Callable[..., None], robot: Any = None, recorders: Sequence[Any] = (),
        also: Callable[[], str] = lambda: "",
    ) -> None:  # fmt: skip
        from robopolicy_hardware.supervisor import Supervised

        self._advance, self._recorders, self._also = advance, recorders, also
        self._robot = robot if isinstance(robot, Supervised) else None  # a robot of your own may have a `state` too
        self._trips: list[str] = [] if self._robot is None else self._robot.trips
        self._seen = 0

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Nothing to show yet."""

    def on_step(self, step: Step) -> None:
        """One step on; who drives, or the state and its reason, beside it."""
        state, reason = getattr(self._robot, "state", ""), getattr(self._robot, "reason", "")
        doing = ": ".join(part for part in (state or step.source, reason) if part)
        self._advance(note="; ".join(part for part in (doing, self._also()) if part))
        for why in self._trips[self._seen :]:
            self._seen += 1
            for recorder in self._recorders:
                recorder.mark(f"watchdog: {why}")

    def on_end(self, meta: EpisodeMeta) -> None:
        """Nothing more to show."""

    def told(self, meta: EpisodeMeta) -> EpisodeMeta:
        """Return the meta with what the watchdogs did, if they did anything."""
        return replace(meta, extra={**meta.extra, "watchdogs": list(self._trips)}) if self._trips else meta


def tell(outcome: Any, robot_name: str) -> str:
    """Return what happened in one sentence; only a simulated world knows of success."""
    simulated = robot_name.startswith(("twin:", "hand:", "gymnasium:", "planar:"))
    word = "success" if outcome.success else "no success" if simulated else "done"
    parts = [f"{robot_name}, seed {outcome.seed}: {word} after {outcome.steps} steps"]
    if outcome.disturb_step is not None:
        parts.append(f"disturbed at step {outcome.disturb_step} ({outcome.disturbance})")
    if outcome.marks:
        why = f" ({outcome.alarm_reason})" if outcome.alarm_reason else ""
        parts.append("no alarm" if outcome.alarm_step is None else f"alarm at step {outcome.alarm_step}{why}")
    return "; ".join(parts)
