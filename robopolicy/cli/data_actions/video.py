"""`robopolicy data import video`: what a person's hand does in videos, as an episode."""

import argparse
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least, positive
from robopolicy.cli.image_size import read_sizes
from robopolicy.errors import DatasetError, UsageError

SAYS = "videos of a person's hand, one a calibrated camera, as one episode of a dataset of hands"
RULES = ("max_gap", "min_detected", "max_residual_px", "hand")
GRASP = ("close", "open", "least_s", "near_px", "contact_steps")


def add_format(formats: Any, debug: argparse.ArgumentParser) -> None:
    """Add the format's arguments to those of `data import`."""
    parser = formats.add_parser("video", parents=[debug], help=SAYS, description=SAYS)
    parser.add_argument(
        "destination", type=Path, nargs="?", default=Path("human.zarr"), metavar="D.zarr",
        help="made, or appended to (default: %(default)s)",
    )  # fmt: skip
    view = {"action": "append", "type": named, "metavar": "VIEW=FILE"}
    parser.add_argument(
        "--view", required=True, help="a view's video; once for each, begun at the same instant", **view
    )
    parser.add_argument(
        "--calibration", type=Path, required=True, metavar="CAMS.yaml", help="as calibrate-cameras writes it"
    )
    parser.add_argument("--task", required=True, help="what the hand does, in words")
    parser.add_argument("--operator", default="", help="whose hand it is")
    parser.add_argument("--rate", type=positive, metavar="HZ", help="steps a second (default: the videos' own)")
    parser.add_argument(
        "--size", action="append", metavar="HxW",
        help="px, store smaller pictures, such as a robot's: 240x320 for all views, left=240x320 for one; may be given "
        "more than once (default: the videos' own)",
    )  # fmt: skip
    parser.add_argument("--review", type=Path, metavar="OUT.html", help="(default: D-NUMBER.html beside the dataset)")
    parser.add_argument("--lossless", action="store_true", help="keep the decoded pictures bit for bit (no JPEG)")
    trust = parser.add_argument_group("what is interpolated, and what refused")
    trust.add_argument("--hand", choices=("left", "right"), help="(default: what most pictures say)")
    trust.add_argument("--max-gap", type=at_least(0), metavar="N", help="steps without a hand, at most (default: 5)")
    trust.add_argument("--min-detected", type=share, metavar="SHARE", help="of a view's pictures (default: 0.7)")
    trust.add_argument(
        "--max-residual", dest="max_residual_px", type=positive, metavar="PX",
        help="median between the views (default: 1.5 %% of the longer side)",
    )  # fmt: skip
    grasp = parser.add_argument_group("when the hand is closed; apertures of thumb and index, in sizes of the hand")
    grasp.add_argument("--grasp-close", dest="close", type=positive, metavar="A", help="closes below (default: 0.4)")
    grasp.add_argument("--grasp-open", dest="open", type=positive, metavar="A", help="opens above (default: 0.6)")
    grasp.add_argument(
        "--grasp-least", dest="least_s", type=positive, metavar="S", help="shorter ones are none (default: 0.2)"
    )
    grasp.add_argument(
        "--mask", help="where the object is white: a picture, or a video that follows it; it must be touched", **view
    )
    grasp.add_argument("--near", dest="near_px", type=positive, metavar="PX", help="of the mask (default: 15)")
    grasp.add_argument(
        "--contact", dest="contact_steps", type=at_least(1), metavar="N", help="steps in a row (default: 5)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Import, write the review page, and say what was understood."""
    from robopolicy.cli.progress import bar, say
    from robopolicy_data.hands_episode import HandRules
    from robopolicy_data.hands_grasp import GraspRule
    from robopolicy_data.hands_page import write_review
    from robopolicy_data.importers.video import import_video
    from robopolicy_data.reader import Dataset

    grasp = GraspRule(**_given(args, GRASP))
    rules = HandRules(**_given(args, RULES), grasp=grasp)
    if args.mask is None and (args.near_px is not None or args.contact_steps is not None):
        raise UsageError("--near and --contact are of the object's mask: add --mask VIEW=FILE")
    views = _views("--view", args.view)
    sizes = read_sizes("--size", args.size or [], views)
    with ExitStack() as bars:

        def told(label: str) -> Callable[[int, int], None]:
            """Return what moves a bar that appears at its first call, in the place of the one before."""
            shown: list[Any] = []

            def at(done: int, total: int) -> None:
                if not shown:
                    bars.close()
                    shown.append(bars.enter_context(bar(label, total, "pictures")))
                shown[0].at(done, total)

            return at

        done = import_video(
            views, args.destination, calibration=args.calibration, task=args.task, rate_hz=args.rate,
            sizes=sizes, rules=rules, masks=_views("--mask", args.mask or []), operator=args.operator,
            lossless=args.lossless, progress=told("hands"), writing=told("write"),
        )  # fmt: skip
    for line in done.hand.told(done.rate_hz):
        say(line)
    if done.shrunk:
        say("stored smaller: " + ", ".join(f"view {view} {h}x{w}" for view, (h, w) in done.shrunk.items()))
    dataset = Dataset(args.destination)
    episode = next(one for one in dataset if one.number == done.number)
    out = args.review or args.destination.with_name(f"{args.destination.stem}-{done.number:06d}.html")
    title = f"{args.task}: episode {done.number} of {args.destination.name}"
    try:
        write_review(out, done.hand, episode.images, title=title, rate_hz=done.rate_hz, rule=grasp)
    except OSError as error:
        why = f"the page {out} cannot be written ({error.strerror or error})"
        raise DatasetError(f"{why}; episode {done.number} is in {args.destination} all the same") from error
    say(f"{args.destination}: episode {done.number}. Look at {out}. Next: ", (_next(args.destination), "bold"))


def named(text: str) -> tuple[str, Path]:
    """Read VIEW=FILE."""
    view, equals, file = text.partition("=")
    if not (view and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r}: want VIEW=FILE, such as left=a.mp4")
    return view, Path(file)


def share(text: str) -> float:
    """Read a share, above 0 and at most 1."""
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; want a share, at most 1")
    return value


def _views(flag: str, pairs: list[tuple[str, Path]]) -> dict[str, Path]:
    views = dict(pairs)
    if len(views) < len(pairs):
        names = [view for view, _ in pairs]
        raise UsageError(f"{flag} names {next(v for v in names if names.count(v) > 1)!r} twice; a view has one file")
    return views


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """The options that were given; what was not is left to the rule's own default."""
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def _next(destination: Path) -> str:
    return shlex.join(["robopolicy", "data", "check", str(destination)])
