"""`robopolicy demo`: record, train, calibrate, evaluate and deploy, in one go on a laptop."""

import argparse
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.errors import UsageError

ROBOT = "twin:lift"
ALPHA = 0.05
DEMO_SEEDS = 0  # demonstrations count up from here; the other seeds are far away from them
CALIBRATION_SEEDS = "10000:10100"
EVALUATION_SEEDS = "100000:100050"
DEPLOY_SEED = 200_000
STEPS = 2000
DEPLOYMENTS = {"calm": None, "disturbed": 20}  # step at which somebody snatches the cube
STATES = ("tool_pos", "tool_quat", "gripper", "cube_pos", "cube_quat")


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("demo", parents=[debug], help="the whole product in one go, minutes on two cores")
    parser.add_argument("--out", type=Path, default=Path("robopolicy-demo"), help="folder; what is there is resumed")
    parser.add_argument("--episodes", type=at_least(1), default=100, help="demonstrations to record")
    parser.add_argument("--steps", type=at_least(1), default=STEPS, help="training steps")
    parser.add_argument("--jobs", type=at_least(1), default=2, help="processes for rollouts")
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
    _stage(
        "3/5 calibrate", lambda: _calibrated(checkpoint, monitor), lambda: _calibrate(checkpoint, monitor, args.jobs)
    )
    episodes = [_deploy(checkpoint, monitor, out, label) for label in DEPLOYMENTS]
    say(("5/5 evaluate", "bold"), " over 50 fresh starts")
    headline = evaluate(
        checkpoint, ROBOT, EVALUATION_SEEDS, out / "evaluation", monitor=monitor, jobs=args.jobs,
        deployed=list(zip(DEPLOYMENTS, episodes, strict=True)),
    )  # fmt: skip
    _strip(out / "demo.png", episodes[-1])
    say(("\ndone", "bold green"), f" in {(time.perf_counter() - start) / 60:.1f} min: {headline}")
    for label, episode in zip(DEPLOYMENTS, episodes, strict=True):
        say(f"  {label}: {tell(episode, ROBOT)}")
    say("\nreport: ", (str(out / "evaluation" / "report.html"), "bold"), "\n\ntry next:")
    d, c, m = (shlex.quote(str(path)) for path in (data, checkpoint, monitor))
    say(f"  robopolicy data check {d}")
    say(f"  robopolicy eval --checkpoint {c} --env {ROBOT} --seeds 300000:300200 --monitor {m}")
    say(f"  robopolicy deploy --robot {ROBOT} --checkpoint {c} --monitor {m} --disturb-at 30")


def _record(data: Path, episodes: int) -> None:
    from robopolicy.cli.progress import say
    from robopolicy.cli.record import record

    say(("1/5 record", "bold"), " demonstrations of lifting a cube")
    record(ROBOT, data, episodes, seed=DEMO_SEEDS)


def _trained(checkpoint: Path) -> bool:
    from robopolicy.training.checkpoint import TRAIN, read_train

    return (checkpoint / TRAIN).exists() and bool(read_train(checkpoint)["finished"])


def _train(data: Path, checkpoint: Path, steps: int) -> None:
    from robopolicy.cli.train import train
    from robopolicy.training.checkpoint import TRAIN, WEIGHTS
    from robopolicy.training.resume import RESUME

    resume = (checkpoint / RESUME).exists()
    if not resume:  # what is left of a run without its state cannot be gone on with
        for name in (TRAIN, WEIGHTS):
            (checkpoint / name).unlink(missing_ok=True)
    train(
        data, checkpoint, states=STATES, n_obs=2, horizon=16, n_execute=8,
        settings={"steps": steps, "batch_size": 256}, resume=resume,
    )  # fmt: skip


def _calibrated(checkpoint: Path, monitor: Path) -> bool:
    """Whether there is a whole monitor of this very checkpoint."""
    from robopolicy.errors import MonitorError, SpecMismatch
    from robopolicy.monitor.monitor import load_monitor
    from robopolicy.training.checkpoint import checkpoint_sha

    try:
        load_monitor(monitor, policy_sha=checkpoint_sha(checkpoint))
    except (MonitorError, SpecMismatch):
        return False
    return True


def _calibrate(checkpoint: Path, monitor: Path, jobs: int) -> None:
    from robopolicy.cli.calibrate import calibrate, collect

    rollouts = monitor.with_name("rollouts")
    collect(checkpoint, ROBOT, CALIBRATION_SEEDS, rollouts, jobs=jobs)
    calibrate(checkpoint, rollouts, monitor, alpha=ALPHA)


def _deploy(checkpoint: Path, monitor: Path, out: Path, label: str) -> Any:
    """Run one guarded episode unless its outcome, of this checkpoint and monitor, is there; return the outcome."""
    from robopolicy.cli.deploy import deploy
    from robopolicy.evaluation.outcomes import Outcome
    from robopolicy.monitor.runtime import file_sha
    from robopolicy.training.checkpoint import checkpoint_sha
    from robopolicy.training.files import replace_file

    file = out / f"deployed-{label}.json"
    of = {"checkpoint": checkpoint_sha(checkpoint), "monitor": file_sha(monitor / "monitor.json")}

    def run() -> None:
        outcome = deploy(
            ROBOT, checkpoint, monitor=monitor, seed=DEPLOY_SEED, disturb_at=DEPLOYMENTS[label],
            video=file.with_suffix(".webm"),
        )  # fmt: skip
        replace_file(file, json.dumps({"of": of, "outcome": outcome.to_json()}, indent=1).encode())

    _stage(f"4/5 deploy, {label}", lambda: _read_object(file).get("of") == of, run)
    return Outcome.from_json(_read_object(file)["outcome"])


def _read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is no file, or nothing readable in it."""
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
        say((title, "bold"), " is done already")
        return
    say((title, "bold"))
    run()


def _same_settings(out: Path, settings: dict[str, Any]) -> None:
    """Refuse to mix results of two settings in one folder.

    Raises:
        UsageError: naming both, or the file that does not say.
    """
    from robopolicy.training.files import replace_file

    file = out / "demo.json"
    if file.exists():
        held = _read_object(file)
        if not held:
            raise UsageError(f"{file} is damaged: it does not say how {out} was made; name another folder with --out")
        if held != settings:
            raise UsageError(f"{out} was made with {held}, not {settings}; name another folder with --out")
    replace_file(file, json.dumps(settings).encode())
