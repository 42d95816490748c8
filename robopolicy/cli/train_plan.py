"""What `robopolicy train` is about to do: policy, data, horizons and budget, as asked for, as before, or as suits."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from robopolicy.cli.fields import changed, make
from robopolicy.cli.image_size import parse_sizes
from robopolicy.cli.training_data import DataChoice, OpenData, open_data, policy_spec
from robopolicy.errors import CheckpointError, UsageError
from robopolicy.training.defaults import (
    Horizons,
    budget_words,
    describe,
    suggest_batch,
    suggest_horizons,
    suggest_steps,
)


def choose_policy(
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


def choose_data(
    data: DataChoice | Path | str,
    before: Mapping[str, Any],
    source: Any,
    cameras: tuple[str, ...] | None,
    states: tuple[str, ...] | None,
) -> OpenData:
    """Open the data; cameras and states not asked for are those of the run to resume, or of the encoder's policy."""
    seen = before.get("spec", {})
    if cameras is None:
        cameras = tuple(seen.get("cameras", () if source is None else source.spec.cameras))
    states = tuple(seen["state"]) if states is None and seen else states
    return open_data(data if isinstance(data, DataChoice) else DataChoice((data,)), cameras, states)


def choose_sizes(net: Any, data: OpenData, image_size: Sequence[str] | None, source: Any) -> Any:
    """Return ``net`` with the size of its pictures, if one was asked for; raises UsageError if it makes no sense."""
    if image_size is None:
        return net
    if source is not None:
        raise UsageError("--image-size says nothing to an --encoder, which looks at the size it was trained on")
    return replace(net, vision=replace(net.vision, sizes=parse_sizes(image_size, data.recorded.cameras)))


def choose_spec(data: OpenData, net: Any, before: Mapping[str, Any], asked: Mapping[str, int | None]) -> Any:
    """Return the `PolicySpec`: horizons as asked for, of the run to resume, or else as suits data and network."""
    seen = before.get("spec", {})
    asked = {key: seen.get(key) if value is None else value for key, value in asked.items()}
    halvings = len(getattr(net.net, "channels", (1,))) - 1  # of the rows, in a U-Net
    found = suggest_horizons(
        data.spec.rate_hz, data.lengths, past=getattr(net, "past", 0), multiple=2**halvings, **asked
    )
    return policy_spec(data, found.n_obs, found.horizon, found.n_execute)


def choose_training(data: OpenData, settings: Mapping[str, Any], before: Mapping[str, Any]) -> Any:
    """Return the `TrainConfig` of what is set, of the run to resume, or of what suits the data, in this order."""
    import torch

    from robopolicy.training.config import TrainConfig

    names = [f.name for f in fields(TrainConfig) if f.name in before]
    held = {name: before[name] for name in names if isinstance(before[name], int | float | str | None)}
    cores, processes = len(os.sched_getaffinity(0)), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    mine = max(cores // processes, 1)  # torchrun's others have theirs
    if (held.get("num_threads") or 1) > mine:
        del held["num_threads"]  # another machine; on the same one other threads would round otherwise
    known = held | settings
    known.setdefault("num_threads", min(8, mine))  # more only wait for one another
    if known.get("device", "auto") == "auto":
        known["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    known.setdefault("batch_size", suggest_batch(data.rows, pictures=bool(data.recorded.cameras)))
    if "steps" not in known and "max_minutes" not in known:
        known |= before.get("budget") or {"steps": suggest_steps(data.rows, known["batch_size"])}
    return make(TrainConfig, known)


def make_policy(spec: Any, net: Any, seed: int, source: Any, image_weights: Path | None) -> Any:
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


def going_on(out: Path, before: Mapping[str, Any], net: Any, spec: Any, config: Any) -> str:
    """Return in words where the run in ``out`` goes on, once it is sure that it is the same one.

    Raises:
        CheckpointError: naming what of policy, spec or training is not as that run has it.
    """
    from robopolicy.training.resume import plan_resume

    was = {"spec": before["spec"]} if "spec" in before else {}
    if "config" in before:
        was["config"] = type(net).from_json(before["config"]).to_json()  # with the fields of later versions
    now = {"config": net.to_json(), "spec": spec.to_json()}
    wrong = [one for part in was for one in _differences(*(json.loads(json.dumps(one[part])) for one in (was, now)))]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"cannot resume {out}: its {'; its '.join(wrong[:3])}{more}")
    return plan_resume(out, config, net.lr if config.lr is None else config.lr)


def described(data: OpenData, net: Any, spec: Any, config: Any) -> Iterator[str]:
    """Yield lines for people: what the demonstrations are and what was made of them, how large pictures are."""
    budget = budget_words(config.steps, config.max_minutes, config.batch_size, data.rows)
    yield describe(data.spec.rate_hz, data.lengths, Horizons(spec.n_obs, spec.horizon, spec.n_execute), budget)
    sizes = [
        f"{name} {data.recorded.cameras[name].height}x{data.recorded.cameras[name].width} px as {height}x{width}"
        for name, height, width in net.vision.sizes
        if name in data.recorded.cameras
    ]
    if sizes:
        yield f"pictures: {', '.join(sizes)}"


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} was {before}, now {now}"
