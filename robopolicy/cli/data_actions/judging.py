"""Datasets meet the judges of demonstrations: a base policy, and what no other demonstration does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopolicy.errors import UsageError
from robopolicy.spec import PolicySpec

EXTRANEOUS = "extraneous@1"  # the name of what is written into derived/


def looked_at(spec: PolicySpec, states: Sequence[str] | None = None) -> PolicySpec:
    """Return ``spec`` with the states that demonstrations are compared in: those named, or all that tell something new.

    Speeds do not, nor do joint angles where the tool's pose is commanded; each needless number asks for more data.

    Raises:
        UnknownName: naming the valid ones.
        UsageError: if there is none.
    """
    if states is None:
        joints = {"rad"} if spec.action.kind == "tool_pose" else set()
        states = [
            name
            for name, part in spec.state.items()
            if not all(unit.endswith("/s") or unit in joints for unit in part.units)
        ]
    if not states:
        raise UsageError("demonstrations are compared in their states, and there are none; pictures alone do not do")
    return spec.select(cameras=(), state=tuple(states))


def load(dataset: Any, spec: PolicySpec, episodes: Sequence[int] | None = None) -> Any:
    """Return the arrays of the states and actions of ``dataset``'s episodes (positions; None is all).

    Raises:
        DatasetError: if one of them holds NaN.
    """
    from robopolicy_data.quality.signals import require_finite
    from robopolicy_data.windows import load_arrays

    chosen = range(len(dataset)) if episodes is None else episodes
    arrays = load_arrays(dataset, cameras=(), states=tuple(spec.state), episodes=episodes)
    require_finite(arrays, [dataset[i].number for i in chosen], dataset.where)
    return arrays


def base_policy(path: Path | str, *, states: Sequence[str] | None = None, first: int | None = None) -> Any:
    """Return the `BasePolicy` of the demonstrations in ``path`` that did not fail.

    Args:
        path: dataset.
        states: to look at; None is as `looked_at` says.
        first: only those among so many, from the beginning.

    Raises:
        UsageError: if all failed, or no episode is left to compare.
        ContractError: if they are too few.
    """
    from robopolicy.quality.compatibility import BasePolicy
    from robopolicy_data.reader import Dataset

    dataset = Dataset(path)
    if first is not None and first >= len(dataset):
        raise UsageError(f"{path} has {len(dataset)} episodes; there is none after the first {first} to compare")
    good = [i for i, episode in enumerate(dataset[:first]) if episode.meta.success is not False]
    if not good:
        raise UsageError(f"{path} holds no demonstration to compare with ({len(dataset)} recorded, all failures)")
    spec = looked_at(dataset.spec, states)
    return BasePolicy(load(dataset, spec, good), spec)


def compare(path: Path | str, base: Any, base_path: Path | str, *, first: int = 0) -> list[tuple[int, Any]]:
    """Return (number, `Judged`) of every episode of ``path`` from position ``first`` on.

    Raises:
        SpecMismatch: if the two are of different robots.
    """
    from robopolicy.quality.compatibility import judge_all
    from robopolicy_data.reader import Dataset

    dataset = Dataset(path)
    base.spec.require_from(dataset.spec, needs=f"base {base_path}", offers=str(path))
    rest = range(first, len(dataset))
    judged = judge_all(base, load(dataset, base.spec, rest))
    return [(dataset[i].number, one) for i, one in zip(rest, judged, strict=True)]


def extraneous(path: Path | str, *, states: Sequence[str] | None = None, seed: int = 0) -> list[tuple[int, Any, Any]]:
    """Return (number, score (T,) float32, marks (T,) bool) of every episode of ``path``."""
    from robopolicy.quality.extraneous import find_extraneous
    from robopolicy_data.reader import Dataset

    dataset = Dataset(path)
    spec = looked_at(dataset.spec, states)
    found = find_extraneous(load(dataset, spec), spec, seed=seed).episodes()
    return [(episode.number, score, marks) for episode, (score, marks) in zip(dataset, found, strict=True)]


def write_extraneous(path: Path | str, found: Sequence[tuple[int, Any, Any]]) -> None:
    """Write ``derived/extraneous@1`` of every episode, replacing what an earlier run left."""
    from robopolicy_data.derived import write_derived

    for number, score, marks in found:
        share = {"extraneous_share": float(marks.mean())}
        write_derived(path, number, EXTRANEOUS, {"extraneous": marks, "score": score}, share)
