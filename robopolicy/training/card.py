"""The policy card: README.md beside the weights, for people."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robopolicy.policies.motion_track import MotionTrackPolicy
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import CameraSpec, PolicySpec
from robopolicy.training.files import replace_file

CARD = "README.md"
MARK = "<!-- Written by robopolicy at every save. Delete this line to keep what you write here. -->"
NEWEST = 5  # evaluations that are listed


def write_card(folder: Path, policy: Any, train: Mapping[str, Any]) -> None:
    """Write README.md into a checkpoint's folder; one that somebody has made their own is left alone.

    How long a plan takes is measured once the run is finished.

    Args:
        folder: of the checkpoint.
        policy: as it is saved.
        train: train.json; what it does not tell is left out.

    Raises:
        DiskFull: if there is no room.
    """
    path = folder / CARD
    if path.exists() and not path.read_text(errors="replace").startswith(MARK):
        return
    replace_file(path, card(folder, policy, train).encode())


def card(folder: Path, policy: Any, train: Mapping[str, Any]) -> str:
    """Return the card in Markdown."""
    parts = [
        f"{MARK}\n# {folder.resolve().name}\n\n{_summary(policy, train)}",
        _table(("", ""), _spec_rows(policy, train)),
        _data(train.get("data", {})),
        _training(train),
        _scores(train.get("eval") or ()),
        _latency(policy) if train.get("finished") else "",
        f"## Use\n\n```python\npolicy = robopolicy.load_policy({str(folder)!r})\n```\n\n```\n"
        f"robopolicy eval --checkpoint {folder} --env twin:TASK\n"
        f"robopolicy deploy --checkpoint {folder} --robot NAME\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(policy: Any, train: Mapping[str, Any]) -> str:
    spec, data = policy.spec, train.get("data", {})
    streams = [f"`{name}`" for name in (*spec.cameras, *spec.state)]
    learnt = f", learnt from {data['episodes']:,} episodes" if "episodes" in data else ""
    unfinished = "" if train.get("finished", True) else " **Its training is not finished.**"
    what = "motion-track" if isinstance(policy, MotionTrackPolicy) else "diffusion"
    return f"A {what} policy that turns {_and(streams)} into commands at {spec.rate_hz:g} Hz{learnt}.{unfinished}"


def _spec_rows(policy: Any, train: Mapping[str, Any]) -> list[tuple[str, str]]:
    spec, config = policy.spec, policy.config
    count = train.get("parameters") or sum(p.numel() for p in policy.parameters())
    extras = {
        "tracks": f"steps learnt as {config.step}s, views agree by {config.views.agreement:g}",
        "alignment of embodiments": any(vars(config.align).values()) and f"{config.align}",
    } if isinstance(policy, MotionTrackPolicy) else {
        "codec, scaling": f"{config.codec}, {config.scaling.action}",
        "past rows": config.past, "goal": config.goal and ", ".join(config.goal.streams),
        "selector": config.selector.name != "first" and f"{config.selector.name} of {config.selector.samples}",
        "real-time chunking": config.real_time and config.real_time.jacobian,
        "rows given in training": config.max_delay and f"up to {config.max_delay}",
    }  # fmt: skip
    return [
        *((f"camera `{name}`", _size(config.vision, name, c)) for name, c in spec.cameras.items()),
        *((f"state `{name}`", f"{s.dim} x {'/'.join(s.units)}") for name, s in spec.state.items()),
        ("command", f"{spec.action.kind}: {' '.join(spec.action.names)} ({'/'.join(spec.action.units)})"),
        ("sees", f"{spec.n_obs} observation{'s' if spec.n_obs > 1 else ''}"),
        ("plans", _rows(spec.horizon, spec)),
        ("executes", _rows(spec.n_execute, spec)),
        ("network", f"{config.net.kind}, {count / 1e6:.3g} M parameters in all"),
        ("process", f"{config.process.kind}, {config.solver.steps} steps of {config.solver.name}"),
        *(
            []
            if isinstance(policy, MotionTrackPolicy)
            else [("codec, scaling", f"{config.codec}, {config.scaling.action}")]
        ),
        *((name, str(value)) for name, value in extras.items() if value),
    ]


def _size(config: VisionConfig, name: str, camera: CameraSpec) -> str:
    """Return a camera's size in words, and that which the network sees if it is another."""
    height, width = config.size(name, camera)
    smaller = "" if (height, width) == (camera.height, camera.width) else f", made smaller to {height} x {width}"
    return f"{camera.height} x {camera.width} px{smaller}"


def _rows(count: int, spec: PolicySpec) -> str:
    return f"{count} steps, {count / spec.rate_hz:.3g} s"


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    paths = data.get("path", [])
    rows = [("datasets", ", ".join(f"`{path}`" for path in ([paths] if isinstance(paths, str) else paths)))]
    rows += [(key, f"{data[key]:,}") for key in ("episodes", "windows") if key in data]
    rows += [(key, str(data[key])) for key in ("weights", "skip", "every") if key in data]
    return "## Data\n\n" + _table(("", ""), [row for row in rows if row[1]])


def _training(train: Mapping[str, Any]) -> str:
    command = train.get("data", {}).get("command")
    settings = train.get("train", {})
    losses = train.get("losses") or ()
    told = [
        (f"{train.get('steps', 0):,} steps", "steps" in train),
        (f"batches of {settings.get('batch_size')}", "batch_size" in settings),
        (f"peak learning rate {settings.get('lr')}", settings.get("lr") is not None),
        (f"seed {settings.get('seed')}", "seed" in settings),
        (f"{train.get('minutes', 0):.3g} min on {settings.get('device')}", "minutes" in train and "device" in settings),
        (f"{train.get('samples_per_s', 0):,.0f} samples/s", "samples_per_s" in train),
        (f"last loss {losses[-1][1]:.4g}" if losses else "", bool(losses)),
        (" ".join(f"{name} {version}" for name, version in train.get("versions", {}).items()), "versions" in train),
    ]
    words = "; ".join(text for text, known in told if known)
    run = f"```\n{command}\n```\n\n" if command else ""
    return f"## Training\n\n{run}{words}." if words or run else ""


def _scores(results: Sequence[Mapping[str, Any]]) -> str:
    scored = [result for result in results if "error" not in result]
    parts = [_score_table(scored)] if scored else []
    failed = [result for result in results if "error" in result]
    if failed:
        last = failed[-1]
        parts.append(f"{len(failed)} of {len(results)} evaluations failed, at step {last['step']:,}: {last['error']}")
    return "\n\n".join(["## Scores while training", *parts]) if parts else ""


def _score_table(scored: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in scored[-1] if name not in ("step", "minutes")]
    best = max(scored, key=lambda result: result.get(names[0], 0.0)) if names else scored[-1]
    shown = [best, *(result for result in scored[-NEWEST:] if result is not best)]
    rows = [
        (f"{result['step']:,}" + (" (best)" if result is best else ""), *(f"{result.get(n, 0.0):.3g}" for n in names))
        for result in sorted(shown, key=lambda result: result["step"])
    ]
    return _table(("step", *names), rows)


def _latency(policy: Any) -> str:
    from robopolicy.errors import BehindCamera
    from robopolicy.policies.latency import judge, measure_latency

    threads = 1  # of a CPU, as `robopolicy deploy` plans, however many there were to train with
    try:
        told = judge(measure_latency(policy, repetitions=20, threads=threads), policy.spec)
    except BehindCamera as error:  # of cameras that look at no place together; what was trained is kept all the same
        told = f"not measured: {error}"
    return f"## Latency\n\n{told[0].upper()}{told[1:]}."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
