"""`robopolicy train`: a dataset in, a checkpoint folder out."""

import argparse
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from robopolicy.cli.fields import changed, given, late, make
from robopolicy.cli.train_eval import SCORES, trial
from robopolicy.cli.train_options import EVAL_SEEDS, add_arguments
from robopolicy.cli.training_data import DataChoice, OpenData, load_windows, open_data, policy_spec
from robopolicy.errors import CheckpointError, UsageError
from robopolicy.training.defaults import (
    Horizons,
    budget_words,
    describe,
    suggest_batch,
    suggest_horizons,
    suggest_steps,
)

USAGE = "robopolicy train --data D.zarr [D.zarr ...] --out FOLDER [--preset NAME] [--resume] [OPTION ...]"


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
    from robopolicy.training.config import TrainConfig

    choice = DataChoice(tuple(args.data), _tuple(args.weights), args.cache, tuple(args.skip), args.every)
    train(
        choice, args.out, preset=args.preset, policy=given(args, DiffusionConfig), states=_tuple(args.states),
        cameras=_tuple(args.cameras), n_obs=args.n_obs, horizon=args.horizon, n_execute=args.n_execute,
        resume=args.resume, settings={**given(args, TrainConfig), "device": args.device},
        encoder=args.encoder, image_weights=args.image_weights, eval_env=args.eval_env, eval_seeds=args.eval_seeds,
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
    eval_env: str | None = None,
    eval_seeds: str = EVAL_SEEDS,
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
        encoder: checkpoint whose camera encoders are taken, frozen.
        image_weights: file of a torchvision ResNet-18 to start the camera encoders from.
        eval_env: world in which checkpoints are scored while training goes on; None scores nothing.
        eval_seeds: its starts.
        about: what else train.json shall tell.

    Raises:
        UsageError: if the folder already holds a checkpoint and ``resume`` is not asked for, nothing succeeded, or
            an option says nothing to what was chosen.
        ContractError: if a setting is out of its range.
        CheckpointError: if ``out`` cannot be written, or the run in it cannot be resumed with these settings.
    """
    from robopolicy.cli.progress import bar, say
    from robopolicy.training.files import claim_folder
    from robopolicy.training.resume import plan_resume, read_cursor
    from robopolicy.training.trainer import train as fit

    if (out / "weights.safetensors").exists() and not resume:
        raise UsageError(f"{out} already holds a checkpoint; add --resume to go on with it or name another folder")
    before = read_cursor(out) if resume else {}
    net, source = _policy_config(preset, policy or {}, before, encoder, out)
    seen = before.get("spec", {})
    cameras = tuple(seen.get("cameras", ())) if cameras is None else cameras
    states = tuple(seen["state"]) if states is None and seen else states
    choice = data if isinstance(data, DataChoice) else DataChoice((data,))
    opened = open_data(choice, cameras, states)
    asked = {"n_obs": n_obs, "horizon": horizon, "n_execute": n_execute}
    horizons = _horizons(opened, net, {key: seen.get(key) if value is None else value for key, value in asked.items()})
    spec = policy_spec(opened, horizons.n_obs, horizons.horizon, horizons.n_execute)
    config = _train_config(opened, settings or {}, before, pictures=bool(cameras))
    first = _is_first()
    if resume:
        _require_same(out, before, {"config": net.to_json(), "spec": spec.to_json()})
        going_on = plan_resume(out, config, net.lr if config.lr is None else config.lr)
        if first:
            say(going_on)
    made = _make_policy(spec, net, config.seed, source, image_weights)  # before the data are loaded, minutes later
    evaluate = None if eval_env is None else trial(eval_env, eval_seeds, spec)
    if first:
        claim_folder(out)
        budget = budget_words(config.steps, config.max_minutes, config.batch_size, opened.rows)
        say(describe(opened.spec.rate_hz, opened.lengths, horizons, budget))
    with ExitStack() as stack:
        windows = load_windows(
            opened, spec, batch_size=config.batch_size, seed=config.seed, device=config.device, past=net.past,
            goal=None if net.goal is None else net.goal.source, encoder=made.encoder if net.vision.frozen else None,
        )  # fmt: skip
        stack.callback(getattr(windows, "close", lambda: None))  # the threads of a loader
        told = {**choice.about, "episodes": len(opened.episodes), **(about or {})}
        progress = stack.enter_context(bar("train", None, "steps") if first else nullcontext())
        fit(
            made, windows, out, config, resume=resume, about=told, evaluate=evaluate,
            on_progress=lambda now: progress.at(now.step, now.steps, note=progress_note(now)) if first else None,
        )  # fmt: skip


def _is_first() -> bool:
    """Whether this is the process that speaks, of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


def progress_note(now: Any) -> str:
    """Return what is worth knowing beside the bar, of a `Progress`."""
    scores = "".join(f"  {key} {value:.3g}" for key, value in now.scores.items() if key in SCORES)
    return f"loss {now.loss:.4f}  {now.samples_per_s:,.0f} samples/s  data {now.data_share:.0%}{scores}"


def _policy_config(
    preset: str | None, changes: Mapping[str, Any], before: Mapping[str, Any], encoder: Path | None, out: Path
) -> tuple[Any, Any]:
    """Return the `DiffusionConfig` of the preset, or else of the run to resume, with ``changes``.

    The second value is the policy whose camera encoders it takes: that of ``encoder``, or of the run itself.
    """
    from robopolicy.policies import config
    from robopolicy.training.checkpoint import load_policy
    from robopolicy.training.features import with_encoder

    if preset is None and "config" in before:
        net = changed(config.DiffusionConfig.from_json(before["config"]), changes)
        source = load_policy(out) if net.vision.frozen else None
    else:
        net = changed(config.preset(preset or "mlp"), changes)
        source = None if encoder is None else load_policy(encoder)
    if source is None and net.vision.frozen:
        raise UsageError("--vision.frozen keeps the weights of another policy; name it: --encoder CHECKPOINT")
    return (net if source is None else with_encoder(net, source)), source


def _make_policy(spec: Any, net: Any, seed: int, source: Any, image_weights: Path | None) -> Any:
    """Return the policy before its first step."""
    import torch

    from robopolicy.cli.progress import say
    from robopolicy.policies.diffusion import DiffusionPolicy
    from robopolicy.policies.weights import take_resnet18
    from robopolicy.training.features import take_encoder

    torch.manual_seed(seed)  # of the first weights
    made = DiffusionPolicy(spec, net)
    if source is not None:
        take_encoder(made, source)
    elif image_weights is not None:
        say(f"{image_weights}: {take_resnet18(made.encoder, image_weights)}")
    return made


def _require_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise CheckpointError naming what of policy and spec is not as the run to resume has it."""
    for part, value in now.items():
        wrong = list(_differences(before.get(part, value), json.loads(json.dumps(value))))
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise CheckpointError(f"cannot resume {out}: its {'; its '.join(wrong[:3])}{more}")


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} was {before}, now {now}"


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
