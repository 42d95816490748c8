"""`robopolicy data import | export`: other projects' formats, one row of `FORMATS` each."""

import argparse
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import positive, share
from robopolicy.cli.data_actions import video
from robopolicy.errors import UsageError

Options = dict[str, dict[str, Any]]  # {flag: arguments of argparse's add_argument; "dest" is the function's keyword}

RATE: Options = {
    "--rate": {
        "dest": "rate_hz",
        "type": positive,
        "default": None,
        "help": "steps per second of the source, if it does not say (default: what it says, else 10)",
    }
}
ROUND: Options = {
    "--round": {
        "dest": "round_to_float32",
        "action": "store_true",
        "help": "accept numbers that float32 cannot hold exactly",
    }
}
MISSING: Options = {
    "--allow-missing": {"action": "store_true", "help": "take chunks that are not there for zeros"},
}
COMPRESSOR: Options = {
    "--compressor": {
        "choices": ("default", "disk"),
        "default": None,
        "help": "default: lz4, as diffusion_policy writes; disk: zstd, smaller",
    }
}


@dataclass(frozen=True)
class Format:
    """One format: where its functions are, and what they take beside source, destination and progress."""

    says: str  # one line of help
    importer: str | None = None  # "module:function(source, destination, *, progress, ...) -> episodes"
    exporter: str | None = None  # "module:function(dataset_path, destination, *, episodes, progress, ...) -> episodes"
    import_options: Options = field(default_factory=dict)
    export_options: Options = field(default_factory=dict)
    unit: str = "episodes"  # what its progress counts
    outcome: str | None = None  # "module:function(destination) -> one more line on what an export came to, or empty"


FORMATS: dict[str, Format] = {
    "diffusion-policy": Format(
        "diffusion_policy's replay buffer: a zarr v2 folder, or a .zarr.zip of one",
        importer="robopolicy_data.importers.diffusion_policy:import_diffusion_policy",
        exporter="robopolicy_data.exporters.diffusion_policy:export_diffusion_policy",
        import_options=RATE | ROUND | MISSING,
        export_options=COMPRESSOR,
    ),
    "umi": Format(
        "UMI's dataset.zarr.zip: hand-held grippers' poses",
        importer="robopolicy_data.importers.umi:import_umi",
        exporter="robopolicy_data.exporters.umi:export_umi",
        import_options=RATE | ROUND | MISSING,
        export_options={
            "--gripper-width": {
                "dest": "gripper_width_m",
                "type": positive,
                "default": None,
                "help": "how far the gripper opens, m (default: 0.08)",
            },
            "--pictures": {
                "choices": ("jxl", "blosc"),
                "default": None,
                "help": "jxl: lossless JPEG-XL (default); blosc: lz4, opens without imagecodecs",
            },
        },
    ),
    "robomimic": Format(
        "robomimic's HDF5",
        importer="robopolicy_data.importers.robomimic:import_robomimic",
        exporter="robopolicy_data.exporters.robomimic:export_robomimic",
        import_options=RATE | ROUND,
        export_options={
            "--no-next-obs": {
                "dest": "next_obs",
                "action": "store_false",
                "help": "leave next_obs out: half the size (SequenceDataset then wants load_next_obs=False)",
            }
        },
    ),
    "landmarks": Format(
        "a recording of a hand with its 21 landmarks (record --robot hand:TASK): the points that its cameras see",
        importer="robopolicy_data.importers.landmarks:import_landmarks",
        import_options={
            "--closed-below": {
                "type": share,
                "default": None,
                "metavar": "OPENING",
                "help": "between thumb and index it grasps below this, 1 is fully open (default: 0.9)",
            },
            "--lossless": {"action": "store_true", "help": "keep the decoded pictures bit for bit (no JPEG)"},
        },
    ),
    "rosbag": Format(
        "ROS 2 bags (mcap, sqlite3), one or a folder of them; topics named by a YAML file",
        importer="robopolicy_data.importers.rosbag:import_rosbag",
        import_options={
            "--config": {
                "type": Path,
                "required": True,
                "metavar": "TOPICS.yaml",
                "help": "which topic is which field; data/README.md has an example",
            },
            "--lossless": {"action": "store_true", "help": "keep raw pictures bit for bit (no JPEG)"},
        },
    ),
    "zip": Format(
        "one file that robopolicy and stock zarr read as it is, from a disk or a server",
        exporter="robopolicy_data.exporters.zipped:export_zip",
        unit="files",
    ),
    "lerobot": Format(
        "LeRobot's v3.0 (v2.x too when importing): a folder of parquet, mp4 and json",
        importer="robopolicy_data.importers.lerobot:import_lerobot",
        exporter="robopolicy_data.exporters.lerobot:export_lerobot",
        import_options=ROUND
        | {"--lossless": {"action": "store_true", "help": "keep the videos' decoded frames bit for bit (no JPEG)"}},
        export_options={
            "--video": {
                "choices": ("libsvtav1", "h264", "none"),
                "default": None,
                "help": "encoder (default: libsvtav1, as LeRobot); none: pictures in the parquet, nothing lost",
            },
            "--crf": {
                "type": int,
                "default": None,
                "help": "rate factor of the videos, smaller is better (default: 30)",
            },
        },
        outcome="robopolicy_data.exporters.lerobot:outcome",
    ),
}


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments: a format is a sub-command, so that each has its own options and help."""
    load = actions.add_parser("import", help="make a dataset of somebody else's format")
    save = actions.add_parser("export", help="write a dataset in somebody else's format")
    loads = load.add_subparsers(dest="format", metavar="FORMAT", required=True)
    saves = save.add_subparsers(dest="format", metavar="FORMAT", required=True)
    for name, form in FORMATS.items():
        if form.importer is not None:
            parser = loads.add_parser(name, parents=[debug], help=form.says, description=form.says)
            parser.add_argument("source", type=_place)
            parser.add_argument("destination", type=Path, metavar="D.zarr")
            _add(parser, form.import_options, run_import)
        if form.exporter is not None:
            parser = saves.add_parser(name, parents=[debug], help=form.says, description=form.says)
            parser.add_argument("dataset", type=_place, metavar="D.zarr")
            parser.add_argument("destination", type=Path, metavar="OUT", help="must not exist")
            parser.add_argument("--episodes", type=numbers, help="positions, such as 0:10,12 (default: all)")
            _add(parser, form.export_options, run_export)
    video.add_format(loads, debug)


def run_import(args: argparse.Namespace) -> None:
    """Import and say what came of it."""
    from robopolicy.cli.progress import say

    form = FORMATS[args.format]
    if isinstance(args.source, str):
        raise UsageError(f"{args.source} is an address; an import reads files of this machine, so download it first")
    count = _run("import", form, form.importer, args.source, args.destination, _chosen(args, form.import_options))
    command = shlex.join(["robopolicy", "data", "check", str(args.destination)])
    say(f"{args.destination}: {count} episodes. Next: ", (command, "bold"))


def run_export(args: argparse.Namespace) -> None:
    """Export and say what came of it."""
    from robopolicy.cli.progress import say

    form = FORMATS[args.format]
    chosen = {"episodes": args.episodes, **_chosen(args, form.export_options)}
    count = _run("export", form, form.exporter, args.dataset, args.destination, chosen)
    say(f"{args.destination}: {count} episodes, {form.says}")
    if form.outcome is not None and (line := _function(form.outcome)(args.destination)):
        say(line)


def numbers(text: str) -> list[int]:
    """Read positions: whole numbers and FIRST:LAST+1 ranges, separated by commas."""
    found: list[int] = []
    for part in text.split(","):
        first, colon, end = part.partition(":")
        try:
            found += range(int(first), int(end)) if colon else [int(first)]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: want numbers and ranges, such as 0:10,12") from None
    if not found or min(found) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} names no episode; want numbers from 0, such as 0:10,12")
    return found


def _place(text: str) -> Any:
    """A path, or a URL as it is."""
    return text if "://" in text else Path(text)


def _add(parser: argparse.ArgumentParser, options: Options, run: Callable[[argparse.Namespace], None]) -> None:
    for flag, arguments in options.items():
        parser.add_argument(flag, **arguments)
    parser.set_defaults(run=run)


def _chosen(args: argparse.Namespace, options: Options) -> dict[str, Any]:
    """The options that were given; what was not is left to the function's own default."""
    named = {flag: arguments.get("dest", flag.lstrip("-").replace("-", "_")) for flag, arguments in options.items()}
    given = {keyword: getattr(args, keyword) for keyword in named.values()}
    return {keyword: value for keyword, value in given.items() if value is not None}


def _run(label: str, form: Format, where: str | None, source: Any, destination: Path, options: dict[str, Any]) -> int:
    from robopolicy.cli.progress import bar

    assert where is not None
    function = _function(where)
    with bar(label, None, form.unit) as progress:
        count: int = function(source, destination, progress=lambda done, total: progress.at(done, total), **options)
    return count


def _function(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
