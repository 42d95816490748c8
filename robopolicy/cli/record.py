"""`robopolicy record`: demonstrations into a dataset, through the ordinary loop with a recorder as a watcher."""

import argparse
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import EachOnce, at_least, positive
from robopolicy.cli.image_size import size
from robopolicy.cli.perturbing import add_perturbing, perturbations_of
from robopolicy.cli.reacting import add_reacting, reactions_of
from robopolicy.cli.running import add_running
from robopolicy.cli.watched import add_limits
from robopolicy.errors import UnknownName, UsageError
from robopolicy.spec import PolicySpec

ALSO = {"robosuite:Lift": "lift"}  # worlds of others which the expert of a task of ours solves too


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("record", parents=[debug], help="record demonstrations into a zarr dataset")
    parser.add_argument(
        "--robot", required=True, metavar="NAME",
        help="twin:TASK, hand:TASK, ros:FILE.yaml, gymnasium:ID, robosuite:TASK, mock, module:Class",
    )  # fmt: skip
    parser.add_argument(
        "--teleop", default="expert", metavar="NAME",
        help="who drives: expert (scripted), browser, keyboard, gamepad, spacemouse, ros, module:Class",
    )  # fmt: skip
    parser.add_argument("--data", required=True, type=Path, metavar="D.zarr", help="created, or appended to")
    parser.add_argument("--new", action="store_true", help="refuse a dataset that exists already")
    parser.add_argument("--episodes", type=at_least(1), default=20, help="episodes the dataset shall hold in the end")
    parser.add_argument("--rate", type=positive, metavar="HZ", help="steps a second; default: the robot's own")
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of the first episode")
    parser.add_argument("--cameras", nargs="*", action=EachOnce, metavar="CAMERA", help="default: all of the robot's")
    parser.add_argument(
        "--camera-size", type=size, metavar="HxW", help="px, of the pictures of a twin or a hand (default 96x96)"
    )
    add_limits(parser)
    parser.add_argument("--keep-failures", action="store_true", help="of the expert: keep what did not succeed")
    parser.add_argument(
        "--mode",
        metavar="MODE",
        help="of the expert: the one way to do it, as left of drawer (default: each in turn)",
    )
    parser.add_argument(
        "--jobs", type=at_least(1), metavar="N",
        help="of the expert: processes that demonstrate at a time (default 1); the episodes are the same for any",
    )  # fmt: skip
    add_perturbing(parser)
    about = parser.add_argument_group("stored with every episode")
    about.add_argument("--operator", default="", metavar="NAME")
    about.add_argument("--task", default="", metavar="TEXT", help="in words; default: a simulated world's own")
    about.add_argument("--notes", default="", metavar="TEXT")
    person = parser.add_argument_group("when a person drives")
    person.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="a policy drives, the person takes over")
    person.add_argument("--monitor", type=Path, metavar="FOLDER", help="its failure monitor")
    add_reacting(person)
    person.add_argument("--device", default="cpu", help="where the policy computes: cpu, cuda (default cpu)")
    add_running(person)
    person.add_argument("--auto-success", action="store_true", help="a simulated world's success ends the episode")
    person.add_argument("--time-limit", type=positive, metavar="S", help="an episode that takes longer has failed")
    person.add_argument("--speed", type=positive, default=1.0, help="factor of how far or fast the hand moves the tool")
    person.add_argument(
        "--compare-with", type=Path, metavar="D.zarr", help="say when a demonstration differs from these"
    )
    devices = parser.add_argument_group("devices")
    devices.add_argument("--host", default="127.0.0.1", help="browser: address of the page")
    devices.add_argument("--port", type=at_least(0), default=8765, help="browser: its port; 0 takes a free one")
    devices.add_argument("--token", help="browser: its secret; default: a new one")
    devices.add_argument("--topic", metavar="/NAME", help="ros: what the teleoperator publishes")
    devices.add_argument("--message", metavar="PKG/msg/TYPE", help="ros: its type; default: TwistStamped")
    devices.add_argument("--domain", type=at_least(0), help="ros, robot or teleop: default: ROS_DOMAIN_ID, or 0")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say

    if args.new and args.data.exists() and any(args.data.iterdir() if args.data.is_dir() else [args.data]):
        raise UsageError(f"--new: {args.data} exists already; without --new the recording is appended to it")
    _require_person(args)
    held, _ = recorded(args.data)
    if held >= args.episodes:
        say(f"{args.data} holds {held} episodes already; --episodes is how many it shall hold in the end")
    if args.teleop == "expert" and args.compare_with is not None:
        raise UsageError(
            "--compare-with speaks to a person while one drives; `robopolicy data quality` judges an expert"
        )
    if args.teleop == "expert":
        cameras = None if args.cameras is None else tuple(args.cameras)
        count = record(
            args.robot, args.data, args.episodes, seed=args.seed, cameras=cameras, keep_failures=args.keep_failures,
            operator=args.operator, rate_hz=args.rate, task=args.task, notes=args.notes, jobs=args.jobs or 1,
            perturbations=perturbations_of(args), limits=args.limits, size=args.camera_size, mode=args.mode,
        )  # fmt: skip
    else:
        from robopolicy.cli.demonstrate import demonstrate

        count = demonstrate(args).episodes
    if count == 0:
        say("no episode was kept")
        return
    then = ["train", "--data", str(args.data), "--out", "runs/first"]
    if args.robot.startswith("hand:"):
        then = ["data", "import", "landmarks", str(args.data), "human.zarr"]  # no robot can be trained on it as it is
    command = shlex.join(["robopolicy", *then])
    say(f"{args.data} holds {count} episode{'s' * (count != 1)}. Next: ", (command, "bold"))


def _require_person(args: argparse.Namespace) -> None:
    """Refuse who there is not, and what would be ignored."""
    from robopolicy_hardware.teleop.devices import DEVICES, OWN

    if args.teleop not in ("expert", *DEVICES) and ":" not in args.teleop:
        raise UnknownName("teleoperation device", args.teleop, ["expert", *DEVICES, OWN])
    if args.monitor is not None and args.checkpoint is None:
        raise UsageError("--monitor watches a policy: add its --checkpoint")
    reactions_of(args, operator=True)
    if args.checkpoint is None and (ignored := _given(args, ("solver", "solver_steps", "goal", "companion"))):
        raise UsageError(f"{ignored[0]} says how a policy plans: add its --checkpoint")
    if args.teleop != "expert" and args.jobs is not None:
        raise UsageError("--jobs is of the expert; a person drives one robot at a time")
    if args.teleop != "expert" and args.mode is not None:
        raise UsageError("--mode is of the expert; a person chooses while driving")
    if args.teleop != "expert":
        return
    if ignored := _given(args, ("checkpoint", "auto_success", "time_limit", "compare_with")):
        raise UsageError(f"{ignored[0]} wants a person who drives: add --teleop browser, keyboard, gamepad, ...")


def _given(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Return the options, as they are typed, that were given of those called ``names`` in the arguments."""
    typed = {"solver_steps": "solver.steps"}
    return [f"--{typed.get(name, name).replace('_', '-')}" for name in names if getattr(args, name)]


def accept(path: Path, spec: PolicySpec, *, recover: bool) -> None:
    """Refuse now a dataset that could not be appended to later, and say what an earlier recording left in it.

    Raises:
        SpecMismatch, DatasetError, DatasetBusy: as `DatasetWriter` does.
    """
    from robopolicy.cli.progress import say
    from robopolicy_data.metadata import writable_folder
    from robopolicy_data.writer import DatasetWriter

    if not (writable_folder(path) / "zarr.json").exists():
        return
    with DatasetWriter(path, spec, recover=recover) as writer:
        found = writer.interrupted
    for one in found:
        became = f"is episode {one.number} now, without success" if one.number is not None else "was put into the trash"
        more = "" if one.number is not None else f"; robopolicy data recover {shlex.quote(str(path))} tries to read it"
        say(f"an interrupted recording of {one.steps} steps {became}{more}")


def record(
    robot_name: str,
    path: Path,
    episodes: int,
    *,
    seed: int = 0,
    cameras: tuple[str, ...] | None = None,
    keep_failures: bool = False,
    operator: str = "",
    rate_hz: float | None = None,
    task: str = "",
    notes: str = "",
    limits: Path | None = None,
    jobs: int = 1,
    perturbations: tuple[str, ...] = (),
    size: tuple[int, int] | None = None,
    mode: str | None = None,
) -> int:
    """Record until the dataset holds ``episodes`` episodes; return how many it holds.

    Seeds go up from ``seed``, or from the newest recorded one, so an interrupted recording goes on where it was. The
    episodes are the same for any number of ``jobs``, processes.

    Raises:
        UsageError: if the robot is no simulation, or its expert fails 20 times running.
        EvaluationError: if a worker cannot be built, or dies again and again.
    """
    from contextlib import closing

    from robopolicy.cli.generating import Demonstrator, Scene, generate
    from robopolicy.cli.progress import bar
    from sim_envs.experts import make_expert

    kind, _, which = robot_name.partition(":")
    if kind not in ("twin", "hand") and robot_name not in ALSO:
        raise UsageError(f"--teleop expert drives twin:TASK, hand:TASK and {', '.join(ALSO)}, not {robot_name!r}")
    expert = ALSO.get(robot_name, which.partition(":")[0])  # hand:TASK:left
    scene = Scene(
        robot_name, partial(make_expert, expert, mode=mode), cameras, rate_hz, size, keep_failures,
        operator or "expert", task, notes, limits=limits, perturbations=perturbations,
    )  # fmt: skip
    with closing(Demonstrator(scene, path)) as demonstrator:
        demonstrator.try_drawing()
        accept(path, demonstrator.spec, recover=False)
        held, newest = recorded(path)
        with bar("record", episodes, "episodes") as progress:
            progress.at(held)
            seed = max(seed, newest + 1)
            for stands in generate(demonstrator, episodes, held=held, seed=seed, jobs=jobs):
                held = stands.held
                progress.at(held, note=f"seed {stands.next_seed}")
    return held


def recorded(path: Path) -> tuple[int, int]:
    """Return how many episodes a dataset holds and its newest seed; (0, -1) if there is none yet.

    A folder without a zarr.json may be a recording killed at its very start; what else it may be the writer judges.
    """
    if not (path / "zarr.json").exists():
        return 0, -1
    from robopolicy_data.reader import Dataset

    dataset = Dataset(path)
    seeds = [episode.meta.seed for episode in dataset if episode.meta.seed is not None]
    return len(dataset), max(seeds, default=-1)
