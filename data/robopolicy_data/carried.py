"""What a foreign format has no place for, kept beside it so that the way back loses nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, RobopolicyError
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.episode import Episode
from robopolicy_data.layout import SOURCES
from robopolicy_data.metadata import meta_from_json, to_bytes

KEY = "robopolicy"  # the name of an attribute, and of a group of arrays
VERSION = 1


def attributes(spec: PolicySpec, names: Mapping[str, str], episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return plain JSON: rate, spec, who is called what over there, and the meta of every episode.

    Args:
        spec: the dataset's.
        names: {camera or state: its name in the foreign file}.
        episodes: those exported, in order.
    """
    return {
        "version": VERSION,
        "fps": spec.rate_hz,
        "spec": spec.to_json(),
        "names": dict(names),
        "episodes": [meta_json(episode.meta) for episode in episodes],
    }


def meta_json(meta: EpisodeMeta) -> dict[str, Any]:
    """Return an episode's meta as plain JSON: task text, success, operator, seed and all else."""
    plain: dict[str, Any] = json.loads(to_bytes({f.name: getattr(meta, f.name) for f in fields(meta)}))
    return plain


def columns(episode: Episode, spec: PolicySpec) -> dict[str, np.ndarray]:
    """Return the stamps (T,) int64 of step, action and every camera, and who drove, (T,) uint8."""
    stamps = {f"time_{name}": episode.stamps_ns(name) for name in ("step", "action", *spec.cameras)}
    return {**stamps, "source": episode.sources()}


class Carried:
    """What came back with a file that we exported.

    Args:
        data: what `attributes` gave.
        where: the file, for messages.

    Raises:
        DatasetError: if it was written by a newer version, or does not make sense.
    """

    def __init__(self, data: Mapping[str, Any], where: object) -> None:
        if data.get("version") != VERSION:
            raise DatasetError(f"{where}: its {KEY} attributes have version {data.get('version')!r}; want {VERSION}")
        try:
            self.spec = PolicySpec.from_json(data["spec"])
            self.names = dict(data["names"])
            self.metas = [meta_from_json(meta) for meta in data["episodes"]]
        except (KeyError, TypeError, ValueError, RobopolicyError) as error:
            raise DatasetError(f"{where}: its {KEY} attributes are damaged ({error})") from error

    def require_fits(self, episodes: int, where: object) -> None:
        """Refuse a file that was edited so that the attributes no longer belong to it."""
        if len(self.metas) != episodes:
            raise DatasetError(
                f"{where} holds {episodes} episodes, but its {KEY} attributes describe {len(self.metas)}; "
                "delete them to import it as anybody's file"
            )


def sources_of(numbers: np.ndarray) -> list[Any]:
    """Return who drove, from (T,) uint8."""
    return [SOURCES[int(k)] for k in numbers]
