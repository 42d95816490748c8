"""`robopolicy train`: a dataset in, a checkpoint folder out."""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.cli.training_data import CACHES, DataChoice, load_windows, open_data, policy_spec
from robopolicy.errors import UsageError

STEPS = 20_000  # unless told otherwise


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("train", parents=[debug], help="train a diffusion policy from a dataset")
    parser.add_argument("--data", required=True, nargs="+", metavar="D.zarr", help="folders, .zip files or URLs")
    parser.add_argument(
        "--weights", nargs="+", type=float, help="share of each dataset in the samples; default: by size"
    )
    parser.add_argument("--cache", default="auto", choices=CACHES, help="where pictures wait; auto: what fits")
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="MARK", help="leave out marked steps: idle, extraneous"
    )
    parser.add_argument(
        "--every", type=at_least(1), default=1, help="rows a step: 5 makes a 20 Hz policy of 100 Hz data"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="checkpoint folder")
    parser.add_argument("--preset", default="mlp", help="network: mlp (CPUs), unet-small, unet")
    parser.add_argument("--states", nargs="*", metavar="NAME", help="states the policy sees; default: all")
    parser.add_argument("--cameras", nargs="*", default=[], metavar="CAMERA", help="cameras the policy sees")
    parser.add_argument("--n-obs", type=int, default=2, help="observations it looks at")
    parser.add_argument("--horizon", type=int, default=16, help="steps it plans")
    parser.add_argument("--n-execute", type=int, default=8, help="steps it plays before planning anew")
    parser.add_argument(
        "--steps", type=int, help="gradient steps; a run of steps repeats bit for bit (default 20000; resumed: its own)"
    )
    parser.add_argument("--minutes", type=float, help="budget in time instead, learning rate annealed to it")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads; default: one a core, at most 8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--resume", action="store_true", help="go on from the newest state in --out, exactly")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say

    given = {
        "steps": args.steps, "max_minutes": args.minutes, "batch_size": args.batch_size, "lr": args.lr,
        "num_threads": args.threads, "seed": args.seed, "device": args.device,
    }  # fmt: skip
    choice = DataChoice(tuple(args.data), _tuple(args.weights), args.cache, tuple(args.skip), args.every)
    train(
        choice, args.out, preset=args.preset, states=_tuple(args.states), cameras=tuple(args.cameras),
        n_obs=args.n_obs, horizon=args.horizon, n_execute=args.n_execute, resume=args.resume,
        settings={key: value for key, value in given.items() if value is not None},
    )  # fmt: skip
    command = shlex.join(["robopolicy", "eval", "--checkpoint", str(args.out), "--env", "twin:TASK"])
    say(f"checkpoint in {args.out}. Next: ", (command, "bold"))


def train(
    data: DataChoice | Path | str,
    out: Path,
    *,
    preset: str = "mlp",
    states: tuple[str, ...] | None = None,
    cameras: tuple[str, ...] = (),
    n_obs: int = 2,
    horizon: int = 16,
    n_execute: int = 8,
    resume: bool = False,
    settings: dict[str, Any] | None = None,
) -> None:
    """Train a policy on the episodes of ``data`` that did not fail, with a progress bar; see `TrainConfig`.

    Raises:
        UsageError: if the folder already holds a checkpoint and ``resume`` is not asked for, or nothing succeeded.
        ContractError: if a setting is out of its range.
        CheckpointError: if ``out`` cannot be written, or the run in it cannot be resumed with these settings.
    """
    import torch

    from robopolicy.cli.progress import bar, say
    from robopolicy.policies.config import preset as find_preset
    from robopolicy.policies.diffusion import DiffusionPolicy
    from robopolicy.training.config import TrainConfig
    from robopolicy.training.files import claim_folder
    from robopolicy.training.resume import plan_resume, read_cursor
    from robopolicy.training.trainer import train as fit

    if (out / "weights.safetensors").exists() and not resume:
        raise UsageError(f"{out} already holds a checkpoint; add --resume to go on with it or name another folder")
    net = find_preset(preset)
    settings = dict(settings or {})
    settings.setdefault("num_threads", min(8, len(os.sched_getaffinity(0))))  # more only wait for one another
    if settings.get("device", "auto") == "auto":
        settings["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if settings.get("steps") is None and settings.get("max_minutes") is None:
        settings |= (read_cursor(out).get("budget") if resume else None) or {"steps": STEPS}
    config = TrainConfig(**settings)  # before the data are loaded, which can take minutes
    if resume:
        say(plan_resume(out, config, net.lr if config.lr is None else config.lr))
    choice = data if isinstance(data, DataChoice) else DataChoice((data,))
    opened = open_data(choice, cameras, states)
    spec = policy_spec(opened, n_obs, horizon, n_execute)
    claim_folder(out)
    with load_windows(opened, spec, batch_size=config.batch_size, seed=config.seed, device=config.device) as windows:
        torch.manual_seed(config.seed)  # of the first weights
        policy = DiffusionPolicy(spec, net)
        about = {**choice.about, "episodes": len(opened.episodes)}
        with bar("train", None, "steps") as progress:

            def show(now: Any) -> None:
                note = f"loss {now.loss:.4f}  {now.samples_per_s:,.0f} samples/s  data {now.data_s:.0f}s"
                progress.at(now.step, now.steps, note=note)

            fit(policy, windows, out, config, resume=resume, on_progress=show, about=about)


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
