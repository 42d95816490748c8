"""A dataset in parts, such as for training and validation: hard links, so no bytes are copied."""

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robopolicy.errors import UsageError
from robopolicy_data.episode import Episode
from robopolicy_data.merge import Made, assemble, require_absent
from robopolicy_data.reader import Dataset

By = Literal["success", "operator", "task"]


def split(path: Path | str, shares: Mapping[Path | str, float], *, seed: int = 0, by: By | None = None) -> list[Made]:
    """Make a new dataset of each share of the episodes, drawn at random; the source stays as it is.

    Args:
        path: the dataset.
        shares: {new dataset: its share}, together 1.
        seed: of the draw; the same one on the same episodes draws the same.
        by: give each part the same mix of this.

    Raises:
        UsageError: if the shares do not add up to 1, or a part would be empty.
        DatasetError: if ``path`` is no dataset or one of the others exists.
        DiskFull: if there is no room.
    """
    places = [Path(place) for place in shares]
    wanted = np.array(list(shares.values()), float)
    if len(set(places)) < 2 or np.any(wanted <= 0) or not math.isclose(wanted.sum(), 1, abs_tol=1e-6):
        raise UsageError(f"shares are {', '.join(f'{k}={v:g}' for k, v in shares.items())}; want two or more, sum 1")
    dataset = Dataset(path)
    parts = draw(list(dataset), wanted, seed, by)
    origins = []
    for place, part, share in zip(places, parts, wanted, strict=True):
        if not part:
            raise UsageError(f"{place} would get none of the {len(dataset)} episodes")
        words = f"{share:.4g} of {dataset.path}, seed {seed}" + (f", the same mix by {by}" if by else "")
        origins.append({"edit": "split", "words": words, "episodes": [episode.number for episode in part]})
    begun = [place for place, origin in zip(places, origins, strict=True) if _made_before(place, origin)]
    todo = places if len(begun) == len(places) else [place for place in places if place not in begun]
    for place in todo:
        require_absent(place)
    linked = {
        place: assemble(place, dataset, part, origin)
        for place, part, origin in zip(places, parts, origins, strict=True)
        if place in todo
    }
    return [Made(place, len(part), linked.get(place, True)) for place, part in zip(places, parts, strict=True)]


def _made_before(place: Path, origin: Mapping[str, Any]) -> bool:
    """Whether this very split was killed after it had made this part: the same command then makes the others."""
    return (place / "zarr.json").is_file() and Dataset(place).attrs.get("origin") == origin


def draw(episodes: list[Episode], shares: np.ndarray, seed: int, by: By | None) -> list[list[Episode]]:
    """Return the episodes of each share (P,), ascending: of each kind, and of all, as near to the share as can be."""
    kinds: dict[Hashable, list[Episode]] = {}
    for episode in episodes:
        kinds.setdefault(None if by is None else getattr(episode.meta, by), []).append(episode)
    rng = np.random.default_rng(seed)
    parts: list[list[Episode]] = [[] for _ in shares]
    owed = np.zeros(len(shares))  # what rounding has kept from each so far
    for kind in sorted(kinds, key=str):
        members = [kinds[kind][i] for i in rng.permutation(len(kinds[kind]))]
        exact = shares * len(members) + owed
        counts = np.maximum(np.floor(exact + 1e-9), 0).astype(int)
        for place in np.argsort(counts - exact, kind="stable")[: max(len(members) - counts.sum(), 0)]:
            counts[place] += 1
        while counts.sum() > len(members):
            counts[np.argmax(counts - exact)] -= 1
        owed = exact - counts
        ends = np.cumsum(counts)
        for part, end, count in zip(parts, ends, counts, strict=True):
            part += members[end - count : end]
    return [sorted(part, key=lambda episode: episode.number) for part in parts]
