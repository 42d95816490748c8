"""`robopolicy demo`: record, train, calibrate, evaluate and deploy, in one go on a laptop."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robopolicy.errors import UsageError

ROBOT = "twin:lift"
ALPHA = 0.05
DEMO_SEEDS = 0  # demonstrations count up from here; the other seeds are far away from them
CALIBRATION_SEEDS = "10000:10100"
EVALUATION_SEEDS = "100000:100050"
DEPLOY_SEED = 200_000
DISTURB_AT = 20
STATES = ("tool_pos", "tool_quat", "gripper", "cube_pos", "cube_quat")


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("demo", parents=[debug], help="the whole product in one go, minutes on two cores")
    parser.add_argument("--out", type=Path, default=Path("robopolicy-demo"), help="folder; what is there is resumed")
    parser.add_argument("--episodes", type=int, default=100, help="demonstrations to record")
    parser.add_argument("--minutes", type=float, default=3.0, help="training time")
    parser.add_argument("--jobs", type=int, default=2, help="processes for rollouts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run what is not done yet, stage by stage."""
    from robopolicy.cli.progress import say
    from sim_envs.rendering import probe

    start = time.perf_counter()
    say(f"rendering with {probe()}")  # fails now, with the remedy, rather than after the training
    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(out, {"episodes": args.episodes, "minutes": args.minutes})
    data, checkpoint, monitor = out / "lift.zarr", out / "policy", out / "monitor"
    _record(data, args.episodes)
    _stage("2/5 train", out / "policy" / "train.json", lambda: _train(data, checkpoint, args.minutes))
    promise = _stage("3/5 calibrate", monitor / "monitor.json", lambda: _calibrate(checkpoint, monitor, args.jobs))
    headline = _evaluate(checkpoint, monitor, out / "evaluation", args.jobs)
    stories = _deploy(checkpoint, monitor, out)
    report = _report(out, headline, promise, stories, time.perf_counter() - start)
    say(f"\n[bold green]done[/bold green] in {(time.perf_counter() - start) / 60:.1f} min: {headline}")
    for story in stories:
        say(f"  {story['sentence']}")
    say(f"\nreport: [bold]{report}[/bold]\n\ntry next:")
    say(f"  robopolicy eval --checkpoint {checkpoint} --env {ROBOT} --seeds 300000:300200")
    say(f"  robopolicy deploy --robot {ROBOT} --checkpoint {checkpoint} --monitor {monitor} --disturb-at 30")
    say(f"  robopolicy data check {data}")


def _record(data: Path, episodes: int) -> None:
    from robopolicy.cli.progress import say
    from robopolicy.cli.record import record

    say("[bold]1/5 record[/bold] demonstrations of lifting a cube")
    record(ROBOT, data, episodes, seed=DEMO_SEEDS)


def _train(data: Path, checkpoint: Path, minutes: float) -> None:
    from robopolicy.cli.train import train

    train(data, checkpoint, states=STATES, settings={"max_minutes": minutes}, resume=checkpoint.exists())


def _calibrate(checkpoint: Path, monitor: Path, jobs: int) -> None:
    from robopolicy.cli.calibrate import calibrate, collect

    rollouts = monitor.with_name("rollouts")
    collect(checkpoint, ROBOT, CALIBRATION_SEEDS, rollouts, jobs=jobs)
    calibrate(checkpoint, rollouts, monitor, alpha=ALPHA)


def _deploy(checkpoint: Path, monitor: Path, out: Path) -> list[dict[str, Any]]:
    """Run the same episode twice, calm and disturbed; return both stories."""
    from robopolicy.cli.deploy import deploy

    stories = []
    for name, disturb_at in (("calm", None), ("disturbed", DISTURB_AT)):
        file = out / f"{name}.json"

        def run(name: str = name, disturb_at: int | None = disturb_at, file: Path = file) -> None:
            story = deploy(
                ROBOT, checkpoint, monitor=monitor, seed=DEPLOY_SEED, disturb_at=disturb_at, video=out / f"{name}.webm"
            )
            file.write_text(json.dumps(story, indent=1))

        _stage(f"5/5 deploy ({name})", file, run)
        stories.append(json.loads(file.read_text()) | {"name": name, "video": str(out / f"{name}.webm")})
    return stories


def _stage(title: str, done: Path, run: Callable[[], None]) -> None:
    """Run a stage unless the file it ends with is there."""
    from robopolicy.cli.progress import say

    if done.exists():
        say(f"[bold]{title}[/bold] is done already ({done})")
        return
    say(f"[bold]{title}[/bold]")
    run()


def _same_settings(out: Path, settings: dict[str, Any]) -> None:
    """Refuse to mix results of two settings in one folder."""
    file = out / "demo.json"
    if file.exists() and (held := json.loads(file.read_text())) != settings:
        raise UsageError(f"{out} was made with {held}, not {settings}; name another folder with --out")
    file.write_text(json.dumps(settings))
