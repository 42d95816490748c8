"""What is in a dataset and what happened to it, as plain data. Renders nothing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopolicy.errors import DatasetError
from robopolicy_data.episode import Episode
from robopolicy_data.history import edits
from robopolicy_data.layout import EPISODES, TRASH, WIP
from robopolicy_data.metadata import unfinished_import
from robopolicy_data.numbers import numbers_in_words
from robopolicy_data.reader import Dataset


def info(path: Path | str) -> dict[str, Any]:
    """Return what a person wants to know of a dataset: counts, streams, sizes, history, as plain data.

    Episodes whose attributes or stamps cannot be read are named and counted in nothing else.

    Raises:
        DatasetError, NewerFormat: if it cannot be opened.
    """
    dataset = Dataset(path, unfinished=True)
    whole = [episode for episode in dataset if _readable(episode)]
    damaged = {episode.number for episode in dataset} - {episode.number for episode in whole}
    metas = [episode.meta for episode in whole]
    labels = Counter({True: "true", False: "false", None: "unknown"}[meta.success] for meta in metas)
    root = dataset.attrs
    interrupted = unfinished_import(root, Path(dataset.where))
    return {
        "path": dataset.where,
        **({} if interrupted is None else {"import": interrupted.partition(": ")[2]}),
        "version": root["version"],
        "created": root.get("created", ""),
        **({"origin": _origin(root["origin"])} if "origin" in root else {}),
        "episodes": len(dataset),
        "numbers": numbers_in_words(episode.number for episode in dataset),
        **({"damaged": f"episodes {numbers_in_words(damaged)}, see robopolicy data check"} if damaged else {}),
        "steps": sum(episode.length for episode in whole),
        "seconds": sum(map(seconds, whole)),
        "success": {key: labels[key] for key in ("true", "false", "unknown")},
        "tasks": dict(Counter(meta.task for meta in metas)),
        "robots": dict(Counter(meta.robot for meta in metas)),
        "operators": dict(Counter(meta.operator for meta in metas)),
        "cameras": {name: tuple(c.shape[:2]) for name, c in dataset.spec.cameras.items()},
        "state": {name: (s.dim, s.units) for name, s in dataset.spec.state.items()},
        "action": {"kind": dataset.spec.action.kind, "names": dataset.spec.action.names},
        "rate_hz": dataset.spec.rate_hz,
        **_happened(whole),
        **(_on_disk(dataset.path) if Path(dataset.where).is_dir() else {}),
    }


def _on_disk(path: Path) -> dict[str, Any]:
    """Return what only a folder can tell."""
    found: dict[str, Any] = {"megabytes": _bytes(path / EPISODES) / 1e6}
    if log := edits(path):
        found["edits"] = f"{len(log)}, the latest: {log[-1].words} ({log[-1].when})"
    if words := trash_in_words(path):
        found["trash"] = words
    sizes = {"set_aside": count_folders(path / TRASH), "set_aside_megabytes": _bytes(path / TRASH) / 1e6}
    return {**found, "unfinished": count_folders(path / WIP), **sizes}


def seconds(episode: Episode) -> float:
    """Return the time from an episode's first step to the end of its last."""
    stamps = episode.stamps_ns("step")
    period = 1 / episode.meta.rate_hz if episode.meta.rate_hz else 0.0
    return float(stamps[-1] - stamps[0]) / 1e9 + period


def count_folders(path: Path) -> int:
    """Return how many folders lie in ``path``, none if it is absent."""
    return sum(entry.is_dir() for entry in path.iterdir()) if path.is_dir() else 0


def trash_in_words(path: Path | str) -> str | None:
    """Return what the trash holds, None if that is nothing."""
    trash = Path(path) / TRASH
    names = [entry.name for entry in trash.iterdir()] if trash.is_dir() else []
    if not names:
        return None
    deleted = [int(name[8:]) for name in names if name.startswith("episode-") and name[8:].isdigit()]
    journals = sum((trash / name / "journal").is_file() for name in names)
    other = len(names) - len(deleted) - journals
    parts = [f"deleted episodes {numbers_in_words(deleted)}"] if deleted else []
    parts += [f"{journals} interrupted recording(s), which `robopolicy data recover` can read"] if journals else []
    parts += [f"{other} left-over(s)"] if other else []
    return f"{', '.join(parts)}; {_bytes(trash) / 1e6:.1f} MB"


def _readable(episode: Episode) -> bool:
    try:
        return bool(episode.meta and len(episode.stamps_ns("step")))
    except DatasetError:
        return False


def _happened(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return what befell the recordings; only what there is to say."""
    found: dict[str, Any] = {}
    own = {episode.number: episode.attributes for episode in episodes}
    for key, words in (("recovered", "recovered"), ("parent", "cut_from_others"), ("drops", "with_drops")):
        if numbers := [number for number, attributes in own.items() if any_in(attributes.get(key))]:
            found[words] = f"episodes {numbers_in_words(numbers)}"
    return found


def any_in(value: Any) -> bool:
    """Whether an attribute says anything: ``{"front": 0}`` and ``None`` do not."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def _origin(origin: Any) -> str:
    return str(origin.get("words", origin)) if isinstance(origin, dict) else str(origin)


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
