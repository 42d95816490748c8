"""`robopolicy twin render`: recorded episodes seen again in the twin, from any camera."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.errors import UsageError

TOOL = "twin_view@1"  # of what --into-dataset adds


def add_action(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("render", parents=[debug], help="see recorded episodes in the twin, from any camera")
    parser.add_argument("data", metavar="D.zarr", help="episodes with q, gripper and the objects' poses")
    parser.add_argument("--task", default="lift", metavar="NAME", help="what is on the table: lift, stack, drawer, ...")
    parser.add_argument(
        "--camera", default="front", metavar="CAMERA",
        help="front, wrist, side, view, or X,Y,Z,TX,TY,TZ[,FOVY]: where it stands (m), looks at, field of view",
    )  # fmt: skip
    parser.add_argument("--size", default="240x320", metavar="HxW", help="of the pictures (default 240x320)")
    parser.add_argument("--episode", type=at_least(0), metavar="N", help="one only; for --out it must be said")
    parser.add_argument("--out", type=Path, metavar="V.webm", help="film of one episode")
    parser.add_argument(
        "--into-dataset", action="store_true", help=f"add the pictures to each episode, as derived/{TOOL}"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import bar, say
    from robopolicy.cli.twin_offline import read_starts
    from robopolicy_data.reader import Dataset
    from sim_envs.tasks import make_task
    from sim_envs.views import Views

    if (args.out is None) == (not args.into_dataset):
        raise UsageError("say where the pictures go: --out V.webm, or --into-dataset")
    if args.out is not None and (args.episode is None or args.out.suffix != ".webm"):
        raise UsageError("--out wants one --episode and a name that ends in .webm")
    starts, _ = read_starts(args.data, args.task, None if args.episode is None else str(args.episode))
    episodes = [one for one in Dataset(args.data) if one.number in starts]
    views = Views(make_task(args.task), camera_of(args.camera), _size(args.size))
    try:
        with bar("render", sum(one.length for one in episodes), "pictures") as progress:
            for episode in episodes:
                pictures = _drawn(views, episode, list(starts[episode.number][0]), progress)
                _put(args, episode, pictures, views)
    finally:
        views.close()
    where = args.out or f"{args.data}, derived/{TOOL} of {len(episodes)} episode(s)"
    say(f"{sum(one.length for one in episodes)} pictures of {args.camera} in {where}")


def camera_of(text: str) -> Any:
    """Return a camera's name, or the `Eye` that six or seven numbers say.

    Raises:
        UsageError: if they are no camera.
    """
    from robopolicy.errors import ContractError
    from sim_envs.views import Eye

    if "," not in text:
        return text
    try:
        x, y, z, tx, ty, tz, *fovy = map(float, text.split(","))
        return Eye((x, y, z), (tx, ty, tz), *fovy)
    except (TypeError, ValueError) as error:
        why = f" ({error})" if isinstance(error, ContractError) else ""
        raise UsageError(f"--camera {text}: want front, wrist, side, view, or X,Y,Z,TX,TY,TZ[,FOVY]{why}") from error


def _drawn(views: Any, episode: Any, names: list[str], progress: Any) -> Iterator[Any]:
    states = {name: episode.state(name) for name in names}
    for step in range(episode.length):
        yield views.draw({name: values[step] for name, values in states.items()})
        progress.advance(1)


def _put(args: argparse.Namespace, episode: Any, pictures: Iterator[Any], views: Any) -> None:
    import numpy as np

    from robopolicy.evaluation.video import write_video
    from robopolicy_data.derived import write_derived

    if args.out is not None:
        write_video(args.out, pictures, rate_hz=episode.meta.rate_hz or 20.0)
        return
    drawn = np.stack(list(pictures))
    about = {"camera": args.camera, "task": args.task, **views.calibration()}
    write_derived(args.data, episode.number, TOOL, {"images": drawn}, about)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(f"--size {text}: want HxW, as in 240x320")
    return int(height), int(width)
