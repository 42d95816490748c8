"""`robopolicy twin perturbations`: what there is, and a sheet of pictures of what can be seen."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.errors import UnknownName, UsageError


def add_action(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser(
        "perturbations", parents=[debug], help="what each axis of --perturb is for a task, and how it looks"
    )
    parser.add_argument("--task", metavar="NAME", help="only the axes that this task has; needed for --out")
    parser.add_argument("--out", type=Path, metavar="SHEET.png", help="pictures: an axis a row, a severity a column")
    parser.add_argument("--axis", action="append", metavar="NAME", help="only this axis; repeatable")
    parser.add_argument("--camera", default="front", metavar="NAME", help="front, wrist, side or view (default front)")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the start and the draws (0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.perturbing import say_axes
    from robopolicy.cli.progress import say

    if args.task is None and args.out is not None:
        raise UsageError("--out: say of which task, as in --task lift")
    if args.out is None:
        say_axes(_listed(args.task, args.axis))
        return
    if args.out.suffix != ".png":
        raise UsageError(f"--out {args.out}: want a name that ends in .png")
    import cv2

    from sim_envs.perturbation_sheet import draw_sheet
    from sim_envs.tasks import make_task

    sheet, told = draw_sheet(make_task(args.task), axes=args.axis, camera=args.camera, seed=args.seed)
    args.out.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    for axis, words in told.items():
        say("  ", (f"{axis:<13}", "bold"), words)
    say(f"pictures: {args.out}")


def _listed(task: str | None, asked: Sequence[str] | None) -> Sequence[str]:
    """Return the axes that were asked for, or all there are, of a task or of any.

    Raises:
        UnknownName, UnknownTask: naming those there are.
    """
    from robopolicy.clock import SimClock
    from sim_envs.perturbations import AXES, axes_of
    from sim_envs.worlds import make_world

    valid = list(AXES) if task is None else axes_of(make_world(f"twin:{task}", SimClock(), cameras=()))
    if unknown := [name for name in asked or () if name not in valid]:
        raise UnknownName("perturbation" if task is None else f"perturbation of {task}", unknown[0], valid)
    return valid if asked is None else asked
