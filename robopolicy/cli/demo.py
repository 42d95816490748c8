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
STEPS = 4000
DEPLOYMENTS = {"calm": None, "disturbed": 20}  # step at which somebody snatches the cube
STATES = ("tool_pos", "tool_quat", "gripper", "cube_pos", "cube_quat")


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("demo", parents=[debug], help="the whole product in one go, minutes on two cores")
    parser.add_argument("--out", type=Path, default=Path("robopolicy-demo"), help="folder; what is there is resumed")
    parser.add_argument("--episodes", type=int, default=100, help="demonstrations to record")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--jobs", type=int, default=2, help="processes for rollouts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run what is not done yet, stage by stage."""
    from robopolicy.cli.deploy import tell
    from robopolicy.cli.evaluate import evaluate
    from robopolicy.cli.progress import say
    from robopolicy.evaluation.video import load_cv2
    from sim_envs.rendering import probe

    start = time.perf_counter()
    say(f"drawing with {probe()}, OpenCV {load_cv2().__version__}")  # fails now, not after the training
    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(out, {"episodes": args.episodes, "steps": args.steps})
    data, checkpoint, monitor = out / "lift.zarr", out / "policy", out / "monitor"
    _record(data, args.episodes)
    _stage("2/5 train", lambda: _trained(checkpoint), lambda: _train(data, checkpoint, args.steps))
    _stage("3/5 calibrate", (monitor / "monitor.json").exists, lambda: _calibrate(checkpoint, monitor, args.jobs))
    episodes = [_deploy(checkpoint, monitor, out, label) for label in DEPLOYMENTS]
    say("[bold]5/5 evaluate[/bold] over 50 fresh starts")
    headline = evaluate(
        checkpoint, ROBOT, EVALUATION_SEEDS, out / "evaluation", monitor=monitor, jobs=args.jobs,
        deployed=list(zip(DEPLOYMENTS, episodes, strict=True)),
    )  # fmt: skip
    _strip(out / "demo.png", episodes[-1])
    say(f"\n[bold green]done[/bold green] in {(time.perf_counter() - start) / 60:.1f} min: {headline}")
    for label, episode in zip(DEPLOYMENTS, episodes, strict=True):
        say(f"  {label}: {tell(episode, ROBOT)}")
    say(f"\nreport: [bold]{out / 'evaluation' / 'report.html'}[/bold]\n\ntry next:")
    say(f"  robopolicy data check {data}")
    say(f"  robopolicy eval --checkpoint {checkpoint} --env {ROBOT} --seeds 300000:300200 --monitor {monitor}")
    say(f"  robopolicy deploy --robot {ROBOT} --checkpoint {checkpoint} --monitor {monitor} --disturb-at 30")


def _record(data: Path, episodes: int) -> None:
    from robopolicy.cli.progress import say
    from robopolicy.cli.record import record

    say("[bold]1/5 record[/bold] demonstrations of lifting a cube")
    record(ROBOT, data, episodes, seed=DEMO_SEEDS)


def _trained(checkpoint: Path) -> bool:
    file = checkpoint / "train.json"
    return file.exists() and json.loads(file.read_text())["finished"]


def _train(data: Path, checkpoint: Path, steps: int) -> None:
    from robopolicy.cli.train import train

    resume = (checkpoint / "train.json").exists()
    train(data, checkpoint, states=STATES, settings={"steps": steps}, resume=resume)


def _calibrate(checkpoint: Path, monitor: Path, jobs: int) -> None:
    from robopolicy.cli.calibrate import calibrate, collect

    rollouts = monitor.with_name("rollouts")
    collect(checkpoint, ROBOT, CALIBRATION_SEEDS, rollouts, jobs=jobs)
    calibrate(checkpoint, rollouts, monitor, alpha=ALPHA)


def _deploy(checkpoint: Path, monitor: Path, out: Path, label: str) -> Any:
    """Run one guarded episode unless its outcome is there; return the outcome."""
    from robopolicy.cli.deploy import deploy
    from robopolicy.evaluation.outcomes import Outcome

    file = out / f"deployed-{label}.json"

    def run() -> None:
        outcome = deploy(
            ROBOT, checkpoint, monitor=monitor, seed=DEPLOY_SEED, disturb_at=DEPLOYMENTS[label],
            video=file.with_suffix(".webm"),
        )  # fmt: skip
        file.write_text(json.dumps(outcome.to_json(), indent=1))

    _stage(f"4/5 deploy, {label}", file.exists, run)
    return Outcome.from_json(json.loads(file.read_text()))


def _strip(path: Path, episode: Any) -> None:
    """Draw the disturbed episode in one picture; it has its moments only if there was an alarm."""
    from robopolicy.evaluation.strip import write_strip

    moments = [(0, "start"), (episode.disturb_step or 0, "the cube is snatched")]
    if episode.alarm_step is not None:
        moments.append((episode.alarm_step, "alarm: the arm holds"))
    write_strip(path, episode, [*moments, (episode.steps, "still holding" if len(moments) == 3 else "end")])


def _stage(title: str, is_done: Callable[[], bool], run: Callable[[], None]) -> None:
    """Run a stage unless it is done."""
    from robopolicy.cli.progress import say

    if is_done():
        say(f"[bold]{title}[/bold] is done already")
        return
    say(f"[bold]{title}[/bold]")
    run()


def _same_settings(out: Path, settings: dict[str, Any]) -> None:
    """Refuse to mix results of two settings in one folder."""
    file = out / "demo.json"
    if file.exists() and (held := json.loads(file.read_text())) != settings:
        raise UsageError(f"{out} was made with {held}, not {settings}; name another folder with --out")
    file.write_text(json.dumps(settings))
