"""What is in a dataset, as plain data. Renders nothing."""

from collections import Counter
from pathlib import Path
from typing import Any

from robopolicy_data.episode import Episode
from robopolicy_data.layout import EPISODES, TRASH, WIP
from robopolicy_data.metadata import unfinished_import
from robopolicy_data.reader import Dataset


def info(path: Path | str) -> dict[str, Any]:
    """Return what a person wants to know of a dataset: counts, streams, sizes, as plain data.

    Raises:
        DatasetError, NewerFormat: if it cannot be read.
    """
    dataset = Dataset(path, unfinished=True)
    metas = [episode.meta for episode in dataset]
    steps = sum(episode.length for episode in dataset)
    labels = Counter({True: "true", False: "false", None: "unknown"}[meta.success] for meta in metas)
    root = dataset.attrs
    interrupted = unfinished_import(root, dataset.path)
    return {
        "path": str(dataset.path),
        **({} if interrupted is None else {"import": interrupted.partition(": ")[2]}),
        "version": root["version"],
        "created": root.get("created", ""),
        "episodes": len(dataset),
        "steps": steps,
        "seconds": sum(map(_seconds, dataset)),
        "success": {key: labels[key] for key in ("true", "false", "unknown")},
        "tasks": dict(Counter(meta.task for meta in metas)),
        "robots": dict(Counter(meta.robot for meta in metas)),
        "operators": dict(Counter(meta.operator for meta in metas)),
        "cameras": {name: (c.height, c.width) for name, c in dataset.spec.cameras.items()},
        "state": {name: (s.dim, s.units) for name, s in dataset.spec.state.items()},
        "action": {"kind": dataset.spec.action.kind, "names": dataset.spec.action.names},
        "rate_hz": dataset.spec.rate_hz,
        "megabytes": _bytes(dataset.path / EPISODES) / 1e6,
        "unfinished": count_folders(dataset.path / WIP),
        "set_aside": count_folders(dataset.path / TRASH),
        "set_aside_megabytes": _bytes(dataset.path / TRASH) / 1e6,
    }


def count_folders(path: Path) -> int:
    """Return how many folders lie in ``path``, none if it is absent."""
    return sum(entry.is_dir() for entry in path.iterdir()) if path.is_dir() else 0


def _seconds(episode: Episode) -> float:
    """Return the time from the first step to the end of the last."""
    stamps = episode.stamps_ns("step")
    period = 1 / episode.meta.rate_hz if episode.meta.rate_hz else 0.0
    return float(stamps[-1] - stamps[0]) / 1e9 + period


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
