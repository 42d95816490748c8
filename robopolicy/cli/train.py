"""`robopolicy train`: a dataset in, a checkpoint folder out."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.cli.fields import add_options, changed, given, late, make
from robopolicy.cli.training_data import CACHES, DataChoice, OpenData, load_windows, open_data, policy_spec
from robopolicy.errors import UsageError
from robopolicy.training.defaults import (
    Horizons,
    budget_words,
    describe,
    suggest_batch,
    suggest_horizons,
    suggest_steps,
)

USAGE = "robopolicy train --data D.zarr [D.zarr ...] --out FOLDER [--preset NAME] [--resume] [OPTION ...]"
NAMES = {"max_minutes": "minutes", "num_threads": "threads"}  # of options that are not called as their fields


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command; its options come of dataclasses that need torch, so only once it is used."""
    parser = commands.add_parser(
        "train", parents=[debug], usage=USAGE, help="train a diffusion policy from a dataset",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    late(parser, add_arguments)
    parser.set_defaults(run=run)


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
        parser, DiffusionConfig, skip=("lr",), title="policy",
        about="What is not given is the preset's; another kind of net or process starts from that kind's defaults.\n"
        "In [brackets]: the kinds that have such a field.",
    )  # fmt: skip


def preset_lines() -> str:
    """Return a line for each preset: its name, what it is for and its main members."""
    from robopolicy.policies import config

    told = getattr(config, "DESCRIPTIONS", {})
    width = max(map(len, config.PRESETS))
    lines = []
    for name, made in config.PRESETS.items():
        solver = f"{made.solver.steps} steps of {made.solver.name}"
        parts = f"{made.net.kind}, {made.process.kind}, {solver}, lr {made.lr:g}"
        lines.append(f"  {name:<{width}}  {told[name]} ({parts})" if name in told else f"  {name:<{width}}  {parts}")
    return "\n".join(lines)


class ListPresets(argparse.Action):
    """Prints the presets and exits, whatever else is missing."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and exit."""
        print(preset_lines())
        parser.exit()


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say
    from robopolicy.policies.config import DiffusionConfig
    from robopolicy.training.config import TrainConfig

    choice = DataChoice(tuple(args.data), _tuple(args.weights), args.cache, tuple(args.skip), args.every)
    train(
        choice, args.out, preset=args.preset, policy=given(args, DiffusionConfig), states=_tuple(args.states),
        cameras=_tuple(args.cameras), n_obs=args.n_obs, horizon=args.horizon, n_execute=args.n_execute,
        resume=args.resume, settings={**given(args, TrainConfig), "device": args.device},
        about={"command": shlex.join(["robopolicy", *sys.argv[1:]])},
    )  # fmt: skip
    command = shlex.join(["robopolicy", "eval", "--checkpoint", str(args.out), "--env", "twin:TASK"])
    say(f"checkpoint in {args.out}. Next: ", (command, "bold"))


def train(
    data: DataChoice | Path | str,
    out: Path,
    *,
    preset: str | None = None,
    policy: Mapping[str, Any] | None = None,
    states: tuple[str, ...] | None = None,
    cameras: tuple[str, ...] | None = None,
    n_obs: int | None = None,
    horizon: int | None = None,
    n_execute: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Train a policy on the episodes of ``data`` that did not fail, with a progress bar.

    What is None comes of the run to resume, or else of the data: see `robopolicy.training.defaults`.

    Args:
        data: which data.
        out: folder of the checkpoint.
        preset: name of a `DiffusionConfig` to start from; None is mlp.
        policy: what differs from it, ``{"net.width": 256}``.
        states: names; None is all.
        cameras: names; None is none.
        n_obs: observations.
        horizon: rows of a chunk.
        n_execute: rows executed before planning anew.
        resume: go on with the run in ``out``.
        settings: fields of `TrainConfig`; those of a dataclass within as ``{"part.field": value}``.
        about: what else train.json shall tell.

    Raises:
        UsageError: if the folder already holds a checkpoint and ``resume`` is not asked for, nothing succeeded, or
            an option says nothing to what was chosen.
        ContractError: if a setting is out of its range.
        CheckpointError: if ``out`` cannot be written, or the run in it cannot be resumed with these settings.
    """
    import torch

    from robopolicy.cli.progress import bar, say
    from robopolicy.policies.diffusion import DiffusionPolicy
    from robopolicy.training.files import claim_folder
    from robopolicy.training.resume import plan_resume, read_cursor
    from robopolicy.training.trainer import train as fit

    if (out / "weights.safetensors").exists() and not resume:
        raise UsageError(f"{out} already holds a checkpoint; add --resume to go on with it or name another folder")
    before = read_cursor(out) if resume else {}
    net = _policy_config(preset, policy or {}, before)
    seen = before.get("spec", {})
    cameras = tuple(seen.get("cameras", ())) if cameras is None else cameras
    states = tuple(seen["state"]) if states is None and seen else states
    choice = data if isinstance(data, DataChoice) else DataChoice((data,))
    opened = open_data(choice, cameras, states)
    asked = {"n_obs": n_obs, "horizon": horizon, "n_execute": n_execute}
    horizons = _horizons(opened, net, {key: seen.get(key) if value is None else value for key, value in asked.items()})
    spec = policy_spec(opened, horizons.n_obs, horizons.horizon, horizons.n_execute)
    config = _train_config(opened, settings or {}, before, pictures=bool(cameras))
    if resume:
        say(plan_resume(out, config, net.lr if config.lr is None else config.lr))
    torch.manual_seed(config.seed)  # of the first weights
    made = DiffusionPolicy(spec, net)  # before the data are loaded, which can take minutes
    claim_folder(out)
    budget = budget_words(config.steps, config.max_minutes, config.batch_size, opened.rows)
    say(describe(opened.spec.rate_hz, opened.lengths, horizons, budget))
    windows = load_windows(
        opened, spec, batch_size=config.batch_size, seed=config.seed, device=config.device, past=net.past
    )
    told = {**choice.about, "episodes": len(opened.episodes), **(about or {})}
    with bar("train", None, "steps") as progress:

        def show(now: Any) -> None:
            note = f"loss {now.loss:.4f}  {now.samples_per_s:,.0f} samples/s  data {now.data_s:.0f}s"
            progress.at(now.step, now.steps, note=note)

        fit(made, windows, out, config, resume=resume, on_progress=show, about=told)


def _policy_config(preset: str | None, changes: Mapping[str, Any], before: Mapping[str, Any]) -> Any:
    """Return the `DiffusionConfig` of the preset, or else of the run to resume, with ``changes``."""
    from robopolicy.policies import config

    if preset is None and "config" in before:
        return changed(config.DiffusionConfig.from_json(before["config"]), changes)
    return changed(config.preset(preset or "mlp"), changes)


def _horizons(data: OpenData, net: Any, asked: Mapping[str, int | None]) -> Horizons:
    """Return the horizons that suit data and network, but for those that are asked for."""
    halvings = len(getattr(net.net, "channels", (1,))) - 1  # of the rows, in a U-Net
    return suggest_horizons(data.spec.rate_hz, data.lengths, past=net.past, multiple=2**halvings, **asked)


def _train_config(data: OpenData, settings: Mapping[str, Any], before: Mapping[str, Any], *, pictures: bool) -> Any:
    """Return the `TrainConfig` of what is set, of the run to resume, or of what suits the data, in this order."""
    import torch

    from robopolicy.training.config import TrainConfig

    held = {f.name: before[f.name] for f in fields(TrainConfig) if isinstance(before.get(f.name), int | float | str)}
    known = held | {key: value for key, value in settings.items() if value is not None}
    known.setdefault("num_threads", min(8, len(os.sched_getaffinity(0))))  # more only wait for one another
    if known.get("device", "auto") == "auto":
        known["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    windows = data.rows
    known.setdefault("batch_size", suggest_batch(windows, pictures=pictures))
    if "steps" not in known and "max_minutes" not in known:
        known |= before.get("budget") or {"steps": suggest_steps(windows, known["batch_size"])}
    return make(TrainConfig, known)


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
