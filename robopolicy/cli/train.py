"""`robopolicy train`: a dataset in, a checkpoint folder out."""

import argparse
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy.cli.fields import given, late
from robopolicy.cli.train_eval import SCORES, trial
from robopolicy.cli.train_options import EVAL_SEEDS, add_arguments
from robopolicy.cli.train_plan import (
    choose_data,
    choose_policy,
    choose_sizes,
    choose_spec,
    choose_training,
    described,
    going_on,
    make_policy,
)
from robopolicy.cli.train_together import require_robot
from robopolicy.cli.train_tracks import build, described_tracks, is_tracks, on_robot, plan_tracks, read_gripper
from robopolicy.cli.training_data import DataChoice, OpenData, load_windows
from robopolicy.errors import UsageError

USAGE = "robopolicy train --data D.zarr [D.zarr ...] [--out FOLDER] [--preset NAME] [OPTION ...]"


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command; its options come of dataclasses that need torch, so only once it is used."""
    parser = commands.add_parser(
        "train", parents=[debug], usage=USAGE, help="train a diffusion policy from a dataset",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    late(parser, add_arguments)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say
    from robopolicy.policies.config import DiffusionConfig
    from robopolicy.policies.track_config import MotionTrackConfig
    from robopolicy.training.config import TrainConfig

    if args.out is None:
        if args.data is None:
            raise UsageError("--resume without --data: say which run goes on: --out FOLDER")
        args.out = default_folder(args.data)
    told = {"weights": _tuple(args.weights), "skip": _tuple(args.skip), "every": args.every}
    asked: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    choose = partial(DataChoice.of_run, args.out) if args.data is None else partial(DataChoice, tuple(args.data))
    choice = choose(cache=args.cache, **asked)
    train(
        choice, args.out, kind=args.policy, preset=args.preset,
        policy=given(args, DiffusionConfig) | given(args, MotionTrackConfig), states=_tuple(args.states),
        cameras=_tuple(args.cameras), n_obs=args.n_obs, horizon=args.horizon, n_execute=args.n_execute,
        resume=args.resume, settings={**given(args, TrainConfig), "device": args.device},
        encoder=args.encoder, image_weights=args.image_weights, image_size=args.image_size,
        eval_env=args.eval_env, eval_seeds=args.eval_seeds, gripper=args.gripper,
        about={"command": shlex.join(["robopolicy", *args.words])},
    )  # fmt: skip
    if not _is_first():
        return
    command = shlex.join(["robopolicy", "eval", "--checkpoint", str(args.out), "--env", "twin:TASK"])
    say(f"checkpoint in {args.out}. Next: ", (command, "bold"))


def train(
    data: DataChoice | Path | str,
    out: Path,
    *,
    kind: str | None = None,
    preset: str | None = None,
    policy: Mapping[str, Any] | None = None,
    states: tuple[str, ...] | None = None,
    cameras: tuple[str, ...] | None = None,
    n_obs: int | None = None,
    horizon: int | None = None,
    n_execute: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    encoder: Path | None = None,
    image_weights: Path | None = None,
    image_size: Sequence[str] | None = None,
    eval_env: str | None = None,
    eval_seeds: str = EVAL_SEEDS,
    about: Mapping[str, Any] | None = None,
    gripper: Path | None = None,
) -> None:
    """Train a policy on the episodes of ``data`` that did not fail, with a progress bar.

    What is None comes of the run to resume, or else of the data: see `robopolicy.training.defaults`.

    Args:
        data: which data.
        out: folder of the checkpoint.
        kind: ``diffusion``, ``motion-track``, or None: as the run to resume, or else diffusion.
        preset: name of a `DiffusionConfig` to start from; None is mlp.
        policy: what differs from it, ``{"net.width": 256}``.
        states: names; None is all.
        cameras: names; None is those of ``encoder``, or none.
        n_obs: observations.
        horizon: rows of a chunk.
        n_execute: rows executed before planning anew.
        resume: go on with the run in ``out``.
        settings: fields of `TrainConfig`; those of a dataclass within as ``{"part.field": value}``.
        encoder: checkpoint whose camera encoders are taken, frozen.
        image_weights: file of a torchvision ResNet-18 to start the camera encoders from.
        image_size: what pictures are made smaller to, ``["96x96"]`` or ``["front=120x160"]``.
        eval_env: world in which checkpoints are scored while training goes on; None scores nothing.
        eval_seeds: its starts.
        about: what else train.json shall tell.
        gripper: file of its points, for motion tracks.

    Raises:
        UsageError: if the folder already holds a checkpoint and ``resume`` is not asked for, nothing succeeded, or
            an option says nothing to what was chosen.
        ContractError: if a setting is out of its range.
        CheckpointError: if ``out`` cannot be written, or the run in it cannot be resumed with these settings.
    """
    from robopolicy.cli.progress import say
    from robopolicy.training.files import claim_folder
    from robopolicy.training.resume import read_cursor

    _require_use(settings or {}, policy or {}, eval_env, encoder, image_weights)
    if (out / "weights.safetensors").exists() and not resume:
        raise UsageError(f"{out} already holds a checkpoint; add --resume to go on with it or name another folder")
    before = read_cursor(out) if resume else {}
    asked = {"n_obs": n_obs, "horizon": horizon, "n_execute": n_execute}
    tracks = None
    if is_tracks(kind, before):
        idle = {"preset": preset, "states": states, "encoder": encoder, "image-weights": image_weights}
        if wrong := [name for name, value in idle.items() if value is not None]:
            raise UsageError(f"--{wrong[0]} says nothing to motion tracks")
        choice = data if isinstance(data, DataChoice) else DataChoice((data,))
        points = {} if gripper is None else read_gripper(gripper)
        tracks = plan_tracks(choice, before, {**(policy or {}), **points}, cameras, image_size)
        net, source, opened = tracks.config, None, tracks.data
        asked["n_obs"] = n_obs or (None if before else 1)
    else:
        if gripper is not None:
            raise UsageError("--gripper is of motion tracks: add --policy motion-track")
        net, source = choose_policy(preset, policy or {}, before, encoder, out)
        opened = choose_data(data, before, source, cameras, states)
        require_robot(opened.recorded, "diffusion")
        net = choose_sizes(net, opened, image_size, source)
    spec = choose_spec(opened, net, before, asked)
    config = choose_training(opened, settings or {}, before)
    told = [going_on(out, before, net, spec, config)] if resume else []
    save: Any = None
    if tracks is None:
        made = make_policy(spec, net, config.seed, source, image_weights)  # before the data are loaded, minutes later
    else:
        made, save = build(tracks, spec, config.seed)
    robot = spec if tracks is None else on_robot(tracks, spec)
    evaluate = None if eval_env is None else trial(eval_env, eval_seeds, robot)
    if _is_first():
        more = () if tracks is None else tuple(described_tracks(tracks))  # what holds no points is refused here
        claim_folder(out)
        for line in (*told, *described(opened, net, spec, config), *more, f"the checkpoint goes to {out}"):
            say(line)
    facts = {**opened.choice.about, "episodes": len(opened.episodes), **(about or {})}
    _fit(made, opened, out, config, resume=resume, about=facts, evaluate=evaluate, save=save)


def _fit(
    policy: Any, data: OpenData, out: Path, config: Any, *, resume: bool, about: Mapping[str, Any], evaluate: Any,
    save: Any = None,
) -> None:  # fmt: skip
    """Load the windows and train, with a bar."""
    from robopolicy.cli.progress import bar
    from robopolicy.training.trainer import train as fit

    net = policy.config
    with ExitStack() as stack:
        windows = load_windows(
            data, policy.spec, batch_size=config.batch_size, seed=config.seed, device=config.device, past=policy.past,
            goal=policy.goal_source, encoder=policy.encoder if net.vision.frozen else None,
            sizes={name: (height, width) for name, height, width in net.vision.sizes},
        )  # fmt: skip
        stack.callback(getattr(windows, "close", lambda: None))  # the threads of a loader
        progress = stack.enter_context(bar("train", None, "steps")) if _is_first() else None

        def show(now: Any) -> None:
            if progress is not None:
                progress.at(now.step, now.steps, note=progress_note(now, scores=evaluate is not None))

        more = {} if save is None else {"save": save}
        fit(policy, windows, out, config, resume=resume, about=about, evaluate=evaluate, on_progress=show, **more)


def _require_use(
    settings: Mapping[str, Any], policy: Mapping[str, Any], eval_env: str | None, encoder: Any, image_weights: Any
) -> None:
    """Refuse what would say nothing: when to score without a world, how to see beside an encoder that sees already.

    Raises:
        UsageError: naming the first such option.
    """
    idle = [name for name in ("eval_every_steps", "eval_every_minutes", "keep") if settings.get(name)]
    if idle and eval_env is None:
        raise UsageError(
            f"--{idle[0].replace('_', '-')} says nothing where nothing is scored; name a world: --eval-env"
        )
    if encoder is None:
        return
    seeing = [f"--{name}".replace("_", "-") for name in policy if name.startswith("vision.")]
    seeing += [] if image_weights is None else ["--image-weights"]
    if seeing:
        raise UsageError(f"{seeing[0]} says nothing to an --encoder, which sees as it was trained to")


def _is_first() -> bool:
    """Whether this is the process that speaks, of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


def progress_note(now: Any, *, scores: bool = False) -> str:
    """Return what is worth knowing beside the bar, of a `Progress`; ``scores``: whether checkpoints get any."""
    if scores and now.step >= now.steps and now.scores.get("step") != now.step:
        return f"loss {now.loss:.4f}  scoring the last checkpoint"  # which may take minutes
    found = "".join(f"  {key} {value:.3g}" for key, value in now.scores.items() if key in SCORES)
    if "error" in now.scores:
        found = f"  evaluation failed: {now.scores['error']}"
    return f"loss {now.loss:.4f}  {now.samples_per_s:,.0f} samples/s  data {now.data_share:.0%}{found}"


def default_folder(data: Sequence[str]) -> Path:
    """Return where the checkpoint goes if no folder is named: ``runs/robot-human`` of robot.zarr and human.zarr."""
    names = [re.sub(r"(\.zarr)?(\.zip)?/*$", "", name).rpartition("/")[2] for name in data]
    known = [re.sub(r"[^\w.+-]+", "_", name).strip("._") or "data" for name in names]
    return Path("runs", "-".join(known) if len(known) <= 4 else f"{known[0]}-and-{len(known) - 1}-more")


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
