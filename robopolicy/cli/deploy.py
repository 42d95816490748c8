"""`robopolicy deploy`: one policy, one robot, one loop, guarded."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from robopolicy import __version__
from robopolicy.errors import UsageError
from robopolicy.types import EpisodeMeta


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("deploy", parents=[debug], help="run a policy on a robot or its twin, guarded")
    parser.add_argument("--robot", required=True, metavar="NAME", help="twin:TASK, gymnasium:ENV_ID, mock, module:Class")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--monitor", type=Path, metavar="FOLDER", help="failure monitor; none: unguarded")
    parser.add_argument("--on-alarm", choices=["hold", "log"], default="hold")
    parser.add_argument("--seed", type=int, default=200_000, help="start of a simulated world, samples of the policy")
    parser.add_argument("--max-steps", type=int, help="default: the world's own, or 10 s")
    parser.add_argument("--disturb-at", type=int, metavar="STEP", help="disturb the simulated world at this step")
    parser.add_argument("--record", type=Path, metavar="D.zarr", help="record the episode")
    parser.add_argument("--video", type=Path, metavar="V.webm", help="film the episode")
    parser.add_argument("--realtime", action="store_true", help="run a simulated world at the pace of the wall clock")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say

    report = deploy(
        args.robot, args.checkpoint, monitor=args.monitor, on_alarm=args.on_alarm, seed=args.seed,
        max_steps=args.max_steps, disturb_at=args.disturb_at, record=args.record, video=args.video,
        realtime=args.realtime,
    )  # fmt: skip
    say(report["sentence"])


def deploy(
    robot_name: str,
    checkpoint: Path,
    *,
    monitor: Path | None = None,
    on_alarm: str = "hold",
    seed: int = 200_000,
    max_steps: int | None = None,
    disturb_at: int | None = None,
    record: Path | None = None,
    video: Path | None = None,
    realtime: bool = False,
) -> dict[str, Any]:
    """Run one guarded episode; return what happened, JSON-able: success, alarm step, verdicts and a sentence.

    Raises:
        SpecMismatch: if the checkpoint does not fit the robot; both sides printed.
        UsageError: if a disturbance or a video is asked of a robot that is no simulation.
    """
    from robopolicy.cli.progress import bar
    from robopolicy.cli.worlds import make_agent, make_clock, make_robot, make_safety
    from robopolicy.interfaces import Environment
    from robopolicy.loop import run_episode
    from robopolicy.training.checkpoint import read_spec

    spec = read_spec(checkpoint)
    clock = make_clock(robot_name, realtime=realtime)
    robot = make_robot(robot_name, clock, spec, cameras=tuple(spec.cameras))
    spec.require_from(robot.spec, needs=f"checkpoint {checkpoint}", offers=f"robot {robot_name}")
    world = robot if isinstance(robot, Environment) else None
    if world is None and (disturb_at is not None or video is not None):
        raise UsageError(f"--disturb-at and --video need a simulated world; {robot_name!r} is none")
    agent = make_agent(checkpoint, monitor=monitor, on_alarm=on_alarm)
    steps = max_steps or (world.max_steps if world else round(10 * robot.spec.rate_hz))
    with bar("deploy", steps, "steps") as progress:
        story = Story(world, disturb_at=disturb_at, seed=seed, film=video is not None, on_step=progress.advance)
        watchers: list[Any] = [story]
        if record is not None:
            from robopolicy_data.recorder import Recorder

            watchers.append(Recorder(record))
        if world is not None:
            world.reset(seed)
        meta = EpisodeMeta(
            task=world.instruction if world else "", robot=robot_name, seed=seed, software=f"robopolicy {__version__}"
        )
        try:
            meta = run_episode(
                robot, agent, clock, make_safety(robot.spec), meta, max_steps=steps, watchers=watchers,
                done=lambda _: world is not None and world.success(),
                finish=lambda meta: replace(meta, success=world.success() if world else None),
            )  # fmt: skip
        finally:
            robot.close()
    if video is not None:
        from robopolicy.evaluation.video import write_video

        write_video(video, story.frames, rate_hz=robot.spec.rate_hz / 2)
    return story.tell(meta)


class Story:
    """A watcher that remembers what an episode was like, and disturbs it when told to."""

    def __init__(self, world: Any, *, disturb_at: int | None, seed: int, film: bool, on_step: Any) -> None:
        self.frames: list[Any] = []
        self._world, self._disturb_at, self._seed, self._film, self._on_step = world, disturb_at, seed, film, on_step
        self._verdicts: list[dict[str, Any]] = []
        self._steps = 0
        self._alarm: int | None = None
        self._disturbance = ""

    def on_start(self, meta: Any, spec: Any) -> None:
        """Nothing yet."""

    def on_step(self, step: Any) -> None:
        """Remember the verdict, film every second step, disturb once."""
        if step.verdict is not None:
            verdict = step.verdict
            self._verdicts.append(
                {"step": self._steps, "statistic": verdict.statistic, "threshold": verdict.threshold,
                 "p_value": verdict.p_value, "state": verdict.state, "latency_s": verdict.latency_s}
            )  # fmt: skip
            if verdict.state == "alarm" and self._alarm is None:
                self._alarm = self._steps
        if self._film and self._steps % 2 == 0:
            self.frames.append(self._world.picture())
        if self._steps == self._disturb_at:
            import numpy as np

            self._disturbance = self._world.disturb(np.random.default_rng(self._seed))
        self._steps += 1
        self._on_step()

    def on_end(self, meta: Any) -> None:
        """Nothing more."""

    def tell(self, meta: EpisodeMeta) -> dict[str, Any]:
        """Return the episode in numbers and in one sentence."""
        outcome = {True: "success", False: "no success", None: "outcome unknown"}[meta.success]
        parts = [f"{meta.robot}, seed {meta.seed}: {outcome} after {self._steps} steps"]
        if self._disturbance:
            parts.append(f"disturbed at step {self._disturb_at} ({self._disturbance})")
        if self._verdicts:
            parts.append("no alarm" if self._alarm is None else f"alarm at step {self._alarm}")
        return {
            "robot": meta.robot, "seed": meta.seed, "success": meta.success, "steps": self._steps,
            "disturb_at": self._disturb_at if self._disturbance else None, "disturbance": self._disturbance,
            "alarm_step": self._alarm, "verdicts": self._verdicts, "sentence": "; ".join(parts),
        }  # fmt: skip
