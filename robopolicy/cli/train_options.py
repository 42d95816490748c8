"""The options of `robopolicy train`: data and horizons, then one for each field of training and policy."""

import argparse
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.cli.fields import add_options
from robopolicy.cli.training_data import CACHES

NAMES = {"max_minutes": "minutes", "num_threads": "threads"}  # of options that are not called as their fields
EVAL_SEEDS = "500000:500020"  # far from those of demonstrations and of `robopolicy eval`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: data, horizons, and an option for each field of policy and training."""
    from robopolicy.policies.config import DiffusionConfig
    from robopolicy.training.config import TrainConfig

    parser.description = f"Train a diffusion policy. Presets:\n{preset_lines()}"
    parser.add_argument("--data", required=True, nargs="+", metavar="D.zarr", help="folders, .zip files or URLs")
    parser.add_argument(
        "--weights", nargs="+", type=float, help="share of each dataset in the samples; default: by size"
    )
    parser.add_argument("--cache", default="auto", choices=CACHES, help="where pictures wait; auto: what fits")
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="MARK", help="leave out marked steps: idle, extraneous"
    )
    parser.add_argument(
        "--every", type=at_least(1), default=1, metavar="N", help="rows a step: 5 makes a 20 Hz policy of 100 Hz data"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="checkpoint folder")
    parser.add_argument("--preset", metavar="NAME", help="where to start from, see above (default mlp)")
    parser.add_argument("--list-presets", action=ListPresets, help="print the presets and exit")
    parser.add_argument("--states", nargs="*", metavar="NAME", help="states the policy sees; default: all")
    parser.add_argument("--cameras", nargs="*", metavar="CAMERA", help="cameras the policy sees; default: none")
    parser.add_argument(
        "--image-size", nargs="+", metavar="HxW",
        help="px, what the pictures of all cameras, 96x96, or of one, front=120x160, are made smaller to for the network; "
        "default: as recorded",
    )  # fmt: skip
    parser.add_argument(
        "--n-obs", type=at_least(1), metavar="N", help="observations it looks at; default 2, or --past + 1"
    )
    parser.add_argument(
        "--horizon", type=at_least(1), metavar="N",
        help="steps it plans; default: 1.6 s, or a third of the median episode if that is shorter",
    )  # fmt: skip
    parser.add_argument(
        "--n-execute",
        type=at_least(1),
        metavar="N",
        help="steps it plays before planning anew; default: half the horizon",
    )
    parser.add_argument(
        "--encoder", type=Path, metavar="CHECKPOINT",
        help="second stage of a long context: that policy's camera encoders, frozen; pictures are embedded once",
    )  # fmt: skip
    parser.add_argument(
        "--image-weights", type=Path, metavar="FILE", help="torchvision ResNet-18 to start from, .safetensors or .pth"
    )
    parser.add_argument(
        "--eval-env", metavar="NAME", help="score checkpoints there while training goes on: twin:TASK, gymnasium:ENV_ID"
    )
    parser.add_argument("--eval-seeds", default=EVAL_SEEDS, metavar="SEEDS", help=f"starts (default {EVAL_SEEDS})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument(
        "--resume", action="store_true",
        help="go on from the newest state in --out, exactly; what is not given is as the run has it",
    )  # fmt: skip
    add_options(
        parser, TrainConfig, names=NAMES, skip=("device",), defaults=True, title="training",
        about="A run given in steps repeats bit for bit. Unless told otherwise: batches of 256 windows, of 64 with\n"
        "cameras, fewer of few data; 200 epochs, within 5,000 to 100,000 steps.",
    )  # fmt: skip
    add_options(
        parser, DiffusionConfig, skip=("lr", "vision.sizes"), title="policy",
        about="What is not given is the preset's; another kind of net or process starts from that kind's defaults.\n"
        "In [brackets]: the kinds that have such a field.",
    )  # fmt: skip


def preset_lines() -> str:
    """Return a line for each preset: its name and what it is for."""
    from robopolicy.policies import config

    width = max(map(len, config.PRESETS))
    return "\n".join(f"  {name:<{width}}  {config.DESCRIPTIONS[name]}" for name in config.PRESETS)


class ListPresets(argparse.Action):
    """Prints the presets and exits, whatever else is missing."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and exit."""
        print(preset_lines())
        parser.exit()
