"""What a person says of an episode afterwards: success, task, notes, free marks, where the cameras stood."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from robopolicy.errors import ConfigError, ContractError
from robopolicy.geometry.calibrations import calibrations_for
from robopolicy_data.episode import Episode
from robopolicy_data.files import replace_durable
from robopolicy_data.history import Edit, editing, own_attributes
from robopolicy_data.metadata import KEY, read_json, to_bytes
from robopolicy_data.numbers import require_episodes
from robopolicy_data.reader import Dataset

Success = bool | Literal["unknown"]


def label(
    path: Path | str,
    numbers: int | Sequence[int],
    *,
    success: Success | None = None,
    task: str | None = None,
    notes: str | None = None,
    marks: Sequence[Any] = (),
    unmark: Sequence[str] = (),
    calibration: Path | str | None = None,
) -> list[Edit]:
    """Change what is said of episodes; each zarr.json is replaced at once, and stock zarr sees the new values.

    Args:
        path: the dataset.
        numbers: of the episodes.
        success: the new value, ``"unknown"`` for neither; None leaves it, as with the others.
        task: what was to be done.
        notes: anything.
        marks: to be added, such as ``{"name": "slip", "start": 12, "stop": 20}``: steps, ``stop`` excluded, which are
            stored as stamps; without ``stop`` an instant, without ``start`` of the whole episode.
        unmark: marks of one of these names are taken away.
        calibration: file of the cameras as they stood when the episodes were recorded; those that it lacks keep what
            is said of them.

    Returns:
        The edits made; an episode that is labelled so already makes none.

    Raises:
        ContractError: if there is nothing to change.
        ConfigError: if the file of the cameras is none, has none of the dataset's, or one of another size.
        DatasetError: if an episode is not there; then none is changed.
        DatasetBusy: if the dataset is being written.
    """
    new: dict[str, Any] = {"success": None if success == "unknown" else success} if success is not None else {}
    new |= {key: value for key, value in (("task", task), ("notes", notes)) if value is not None}
    if not new and not marks and not unmark and calibration is None:
        raise ContractError("label: nothing to change; give success, task, notes, marks or a calibration")
    asked = [numbers] if isinstance(numbers, int) else list(numbers)
    done, command = [], uuid4().hex
    with editing(path) as history:
        require_episodes(asked, history.numbers(), history.root)
        dataset = {episode.number: episode for episode in Dataset(history.root)} if marks else {}
        cameras = {} if calibration is None else _cameras(calibration, Dataset(history.root))
        added = {number: [_stamped(mark, dataset[number]) for mark in marks] for number in asked}
        for number in asked:
            own = own_attributes(history.episode(number))
            wanted = {**new, **_marks(own, added[number], unmark)}
            if cameras:
                wanted["cameras"] = {**(own.get("cameras") or {}), **cameras}
            after = {key: value for key, value in wanted.items() if own.get(key) != value}
            if not after:
                continue
            before = {key: own[key] for key in after if key in own}
            words = f"labelled episode {number}: " + ", ".join(f"{k} {_show(v)}" for k, v in after.items())
            edit = history.begin("label", words, number=number, before=before, after=after, command=command)
            write_attributes(history.episode(number), after)
            done.append(edit)
    return done


def write_attributes(episode: Path, changes: Mapping[str, Any], drop: Collection[str] = ()) -> None:
    """Change an episode's own attributes, and drop some, in one replacement of its zarr.json."""
    group = read_json(episode / "zarr.json")
    own = {key: value for key, value in {**group["attributes"][KEY], **changes}.items() if key not in drop}
    group["attributes"] = {**group["attributes"], KEY: own}
    replace_durable(episode / "zarr.json", to_bytes(group, indent=1))


def mark_name(mark: Any) -> str:
    """Return what a mark says."""
    return str(mark.get("name", mark)) if isinstance(mark, Mapping) else str(mark)


def _stamped(mark: Any, episode: Episode) -> Any:
    """Return a mark as it is stored, with stamps in the place of steps."""
    plain = json.loads(to_bytes(mark))
    if not isinstance(plain, dict) or "start" not in plain:
        return plain
    stamps, first, last = episode.stamps_ns("step"), plain.pop("start"), plain.pop("stop", None)
    if not 0 <= first < len(stamps) or (last is not None and last <= first):
        raise ContractError(f"mark {mark_name(mark)!r}: episode {episode.number} has the steps 0 to {len(stamps) - 1}")
    until = {} if last is None else {"until_ns": int(stamps[min(last, len(stamps)) - 1])}
    return {**plain, "stamp_ns": int(stamps[first]), **until}


def _marks(own: Mapping[str, Any], added: list[Any], unmark: Sequence[str]) -> dict[str, Any]:
    if not added and not unmark:
        return {}
    kept = [mark for mark in own.get("marks") or [] if mark_name(mark) not in unmark]
    return {"marks": kept + [mark for mark in added if mark not in kept]}


def _cameras(calibration: Path | str, dataset: Dataset) -> dict[str, Any]:
    """Return what an episode says of the dataset's cameras that are in the file, as it is stored."""
    sizes = {name: (camera.height, camera.width) for name, camera in dataset.spec.cameras.items()}
    found = calibrations_for(calibration, sizes)
    if not found:
        raise ConfigError(f"{calibration}: it has none of the cameras of {dataset.path}: {', '.join(sizes) or 'none'}")
    plain: dict[str, Any] = json.loads(to_bytes(found))
    return plain


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(value)
    if isinstance(value, list):
        return "[" + "; ".join(map(mark_name, value)) + "]"
    return "unknown" if value is None else json.dumps(value, ensure_ascii=False)
