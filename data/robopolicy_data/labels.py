"""What a person says of an episode afterwards: success, task, notes, free marks."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from robopolicy.errors import ContractError
from robopolicy_data.files import replace_durable
from robopolicy_data.history import Edit, editing, own_attributes
from robopolicy_data.metadata import KEY, read_json, to_bytes
from robopolicy_data.numbers import require_episodes

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
) -> list[Edit]:
    """Change what is said of episodes; each zarr.json is replaced at once, and stock zarr sees the new values.

    Args:
        path: the dataset.
        numbers: of the episodes.
        success: the new value, ``"unknown"`` for neither; None leaves it, as with the others.
        task: what was to be done.
        notes: anything.
        marks: JSON to be added, such as ``{"text": "slip", "start": 12, "stop": 20}`` (steps, stop excluded).
        unmark: marks with one of these texts are taken away.

    Returns:
        The edits made; an episode that is labelled so already makes none.

    Raises:
        ContractError: if there is nothing to change.
        DatasetError: if an episode is not there; then none is changed.
        DatasetBusy: if the dataset is being written.
    """
    new: dict[str, Any] = {"success": None if success == "unknown" else success} if success is not None else {}
    new |= {key: value for key, value in (("task", task), ("notes", notes)) if value is not None}
    if not new and not marks and not unmark:
        raise ContractError("label: nothing to change; give success, task, notes or marks")
    asked = [numbers] if isinstance(numbers, int) else list(numbers)
    added = json.loads(to_bytes(list(marks)))
    done, command = [], uuid4().hex
    with editing(path) as history:
        require_episodes(asked, history.numbers(), history.root)
        for number in asked:
            own = own_attributes(history.episode(number))
            wanted = {**new, **_marks(own, added, unmark)}
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


def mark_text(mark: Any) -> str:
    """Return what a mark says."""
    return str(mark.get("text", mark)) if isinstance(mark, Mapping) else str(mark)


def _marks(own: Mapping[str, Any], added: list[Any], unmark: Sequence[str]) -> dict[str, Any]:
    if not added and not unmark:
        return {}
    kept = [mark for mark in own.get("marks") or [] if mark_text(mark) not in unmark]
    return {"marks": kept + [mark for mark in added if mark not in kept]}


def _show(value: Any) -> str:
    if isinstance(value, list):
        return "[" + "; ".join(map(mark_text, value)) + "]"
    return "unknown" if value is None else json.dumps(value, ensure_ascii=False)
