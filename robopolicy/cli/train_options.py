"""The options of `robopolicy train`: data and horizons, then one for each field of training and policy."""

import argparse
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import EachOnce, at_least
from robopolicy.cli.fields import add_options, options
from robopolicy.cli.training_data import CACHES

NAMES = {"max_minutes": "minutes", "num_threads": "threads"}  # of options that are not called as their fields
EVAL_SEEDS = "500000:500020"  # far from those of demonstrations and of `robopolicy eval`
HELPS = {  # where the command's own default is another than the field's
    "steps": "gradient steps; the run ends there (default: 200 epochs, within 5,000 to 100,000 steps)",
    "batch_size": "windows a step, of all processes together (default: 256, 64 with cameras, fewer of few data)",
    "lr": "peak learning rate (default: the preset's)",
    "num_threads": "threads of torch on the CPU (default: one a core, 8 at most)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: data, horizons, and an option for each field of policy and training."""
    from robopolicy.policies.config import DiffusionConfig
    from robopolicy.policies.track_config import MotionTrackConfig
    from robopolicy.training.config import TrainConfig

    shared = {option.path for option in options(DiffusionConfig)} | {"opened", "closed"}
    parser.description = f"Train a diffusion policy. Presets:\n{preset_lines()}"
    resume = _add_run(parser.add_argument_group("run"))
    resume.known = _add_data(parser.add_argument_group("data"))
    _add_sight(parser.add_argument_group("what the policy sees and plans"))
    _add_scores(parser.add_argument_group("scores while training goes on"))
    add_options(
        parser, TrainConfig, names=NAMES, skip=("device",), helps=HELPS, defaults=True, title="training",
        about="A run given in --steps repeats bit for bit, and goes on bit for bit with --resume.",
    )  # fmt: skip
    add_options(
        parser, DiffusionConfig, skip=("lr", "vision.sizes"), title="policy",
        about="What is not given is the preset's; another kind of net or process starts from its own defaults.\n"
        "In [brackets]: the kinds that have such a field.",
    )  # fmt: skip
    add_options(
        parser, MotionTrackConfig, skip=tuple(shared), title="motion tracks",
        about="Of --policy motion-track, beside the options of net, vision, process and solver above.",
        defaults=True,
    )  # fmt: skip


def _add_run(group: Any) -> Any:
    """Return the action of --resume."""
    group.add_argument(
        "--out", type=Path, metavar="FOLDER", help="checkpoint folder (default: runs/A-B of --data A.zarr B.zarr)"
    )
    group.add_argument(
        "--policy", choices=("diffusion", "motion-track"),
        help="what is trained (default diffusion): motion-track learns from robots and human hands, see data/README.md",
    )  # fmt: skip
    group.add_argument("--preset", metavar="NAME", help="where to start from, see above (default mlp)")
    group.add_argument("--list-presets", action=ListPresets, help="print the presets and exit")
    group.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1 (default auto)"
    )
    return group.add_argument(
        "--resume", action=Resume,
        help="go on from the newest state in --out, exactly; what is not given is as the run has it",
    )  # fmt: skip


def _add_data(group: Any) -> Any:
    """Return the action of --data."""
    data = group.add_argument(
        "--data", required=True, nargs="+", action="extend", metavar="D.zarr",
        help="datasets: folders, .zip files or URLs; may be repeated (with --resume: those of the run)",
    )  # fmt: skip
    group.add_argument(
        "--weights", nargs="+", type=float, metavar="X", help="share of each dataset in the samples (default: by size)"
    )
    group.add_argument(
        "--cache", default="auto", choices=CACHES,
        help="where pictures wait: decoded or compressed in memory, or on the disk; auto: the first that fits",
    )  # fmt: skip
    group.add_argument("--skip", nargs="+", metavar="MARK", help="leave out marked steps: idle, extraneous")
    group.add_argument(
        "--every", type=at_least(1), metavar="N",
        help="rows of the data a step of the policy: 5 makes a 20 Hz policy of 100 Hz data (default 1)",
    )  # fmt: skip
    return data


def _add_sight(group: Any) -> None:
    group.add_argument("--states", nargs="*", action=EachOnce, metavar="NAME", help="states it sees (default: all)")
    group.add_argument(
        "--cameras",
        nargs="*",
        action=EachOnce,
        metavar="NAME",
        help="cameras it sees, each through a ResNet-18 (default: none)",
    )
    group.add_argument(
        "--image-size", nargs="+", metavar="HxW",
        help="px, what the pictures of all cameras, 96x96, or of one, front=120x160, are made smaller to for the "
        "network, here and on the robot (default: as recorded)",
    )  # fmt: skip
    group.add_argument(
        "--gripper", type=Path, metavar="G.yaml",
        help="of --policy motion-track: where the five points are on the robot's gripper, opened and closed, m in its "
        "tool frame (data/README.md; default: the twin's)",
    )  # fmt: skip
    group.add_argument(
        "--n-obs",
        type=at_least(1),
        metavar="N",
        help="steps it looks back, this one included (default 2, or --past + 1)",
    )
    group.add_argument(
        "--horizon", type=at_least(1), metavar="N",
        help="steps it plans (default: 1.6 s, or a third of the median episode if that is shorter)",
    )  # fmt: skip
    group.add_argument(
        "--n-execute", type=at_least(1), metavar="N",
        help="steps it plays before planning anew (default: half the horizon)",
    )  # fmt: skip
    group.add_argument(
        "--image-weights", type=Path, metavar="FILE", help="torchvision ResNet-18 to start from, .safetensors or .pth"
    )
    group.add_argument(
        "--encoder", type=Path, metavar="CHECKPOINT",
        help="second stage of a long context: the camera encoders of that policy, frozen (its cameras, unless "
        "others are named); pictures are embedded once",
    )  # fmt: skip


def _add_scores(group: Any) -> None:
    group.add_argument(
        "--eval-env", metavar="NAME", help="world in which checkpoints are scored: twin:TASK, gymnasium:ENV_ID"
    )
    group.add_argument("--eval-seeds", default=EVAL_SEEDS, metavar="SEEDS", help=f"its starts (default {EVAL_SEEDS})")


def preset_lines() -> str:
    """Return a line for each preset: its name and what it is for."""
    from robopolicy.policies import config

    width = max(map(len, config.PRESETS))
    return "\n".join(f"  {name:<{width}}  {config.DESCRIPTIONS[name]}" for name in config.PRESETS)


class Resume(argparse.Action):
    """Sets the flag, and wants no data any more: the run has its own."""

    known: argparse.Action  # what the run tells

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, help=help)

    def __call__(self, parser: argparse.ArgumentParser, args: argparse.Namespace, *_: Any) -> None:
        """Set it."""
        setattr(args, self.dest, True)
        self.known.required = False


class ListPresets(argparse.Action):
    """Prints the presets and exits, whatever else is missing."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and exit."""
        print(preset_lines())
        parser.exit()
