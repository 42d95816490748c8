"""What a sweep runs: checkpoints x worlds x perturbations x seeds, read from YAML, each episode with its identity."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from robopolicy.errors import ConfigError, ContractError, UsageError
from robopolicy.evaluation.comparison import Of
from robopolicy.evaluation.statistics import parse_seeds
from robopolicy.settings import keys, mapping, read_settings

WHAT = "a YAML file with checkpoints, worlds and seeds"


@dataclass(frozen=True)
class Entrant:
    """A policy that takes part, and how it plans; None is as the checkpoint has it."""

    folder: str
    solver: str | None = None
    solver_steps: int | None = None
    candidates: int | None = None
    monitor: str | None = None  # folder; its alarms are logged, not acted upon
    companions: tuple[str, ...] = ()  # checkpoints trained alike from other seeds, for a monitor with "ensemble"


@dataclass(frozen=True)
class Suite:
    """The cells of a sweep and the seeds of each."""

    checkpoints: dict[str, Entrant]
    worlds: tuple[str, ...]
    seeds: tuple[int, ...]
    perturbations: tuple[tuple[str, ...], ...] = ((),)  # ("camera:0.5",): those that hold at once; () is none
    max_steps: int | None = None
    disturb_at: int | None = None
    compare: Of = "success"  # what verdicts are of

    def cells(self) -> list["Cell"]:
        """Return every cell; those of one start beside each other, so that policies can be compared early."""
        return [
            Cell(checkpoint, world, perturbations)
            for world in self.worlds
            for perturbations in self.perturbations
            for checkpoint in self.checkpoints
        ]


@dataclass(frozen=True)
class Cell:
    """One entry of the sweep's table."""

    checkpoint: str  # its name in the suite
    world: str
    perturbations: tuple[str, ...] = ()

    @property
    def condition(self) -> str:
        """The perturbations in words: ``camera:0.5 + friction:0.3``, or ``none``."""
        return " + ".join(self.perturbations) or "none"

    def __str__(self) -> str:
        return f"{self.checkpoint} in {self.world}" + (f" with {self.condition}" if self.perturbations else "")


@dataclass(frozen=True)
class Item:
    """One episode of a sweep."""

    cell: Cell
    seed: int
    identity: str


def identity_of(policy: str, world: str, perturbations: Sequence[str], seed: int, options: str) -> str:
    """Return what names one episode among all that were ever run: 32 hex digits of a sha256.

    Args:
        policy: all that decides how the policy acts: the checkpoint's sha, solver, software versions.
        world: its name.
        perturbations: ``axis:severity``; their order does not matter.
        seed: of the start.
        options: what else decides how the episode goes.
    """
    parts = (policy, world, tuple(sorted(perturbations)), seed, options)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def items_of(suite: Suite, policies: Mapping[tuple[str, str], str], options: str) -> list[Item]:
    """Return every episode: a world and its perturbations at a time, then seed by seed, each with every checkpoint.

    Args:
        suite: of the sweep.
        policies: what decides how a checkpoint acts in a world, by both names; see `identity_of`.
        options: see there.
    """
    return [
        Item(cell, seed, identity_of(policies[name, world], world, perturbations, seed, options))
        for world in suite.worlds
        for perturbations in suite.perturbations
        for seed in suite.seeds
        for name in suite.checkpoints
        for cell in [Cell(name, world, perturbations)]
    ]


def shard_of(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """Return the part of one of several machines: shard (i, n) of n, i from 0.

    Episodes from the same start stay together, so that each shard holds whole pairs.
    """
    index, of = shard
    starts: dict[tuple[Any, ...], int] = {}
    for item in items:
        starts.setdefault((item.cell.world, item.cell.perturbations, item.seed), len(starts))
    return [item for item in items if starts[item.cell.world, item.cell.perturbations, item.seed] % of == index]


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``0/8``: the first of eight.

    Raises:
        UsageError: saying what would be right.
    """
    index, slash, of = text.partition("/")
    if not (slash and index.strip().isdecimal() and of.strip().isdecimal() and int(of) > 0):
        raise UsageError(f"--shard {text!r}: want I/N, such as 0/8 for the first of eight")
    if int(index) >= int(of):
        raise UsageError(
            f"--shard {text}: the shards of {int(of)} are 0 to {int(of) - 1} (sbatch --array=0-{int(of) - 1})"
        )
    return int(index), int(of)


def read_suite(path: str | Path) -> Suite:
    """Read a suite; folders in it are relative to the file.

    Raises:
        ConfigError: naming the file, the key and what would be right.
        MissingExtra: without ruamel.yaml.
    """
    suite = read_settings(path, lambda data: make_suite(data, Path(path).parent), WHAT, extra="sweep")
    return suite


@dataclass(frozen=True)
class _File:
    """The keys of the file."""

    checkpoints: Any
    worlds: tuple[str, ...]
    seeds: str
    perturbations: Any = None
    combined: Any = None
    undisturbed: bool = True
    max_steps: int | None = None
    disturb_at: int | None = None
    compare: Of = "success"


def make_suite(data: Any, beside: Path = Path()) -> Suite:
    """Return the suite that YAML's keys and values ``data`` describe.

    Raises:
        ContractError, UnknownName, UsageError: naming the key and what would be right.
    """
    if isinstance(data, dict) and isinstance(data.get("seeds"), int | list):
        data = {**data, "seeds": ",".join(str(seed) for seed in _listed(data["seeds"]))}
    file = keys(data, _File, "the suite", required=("checkpoints", "worlds", "seeds"), prefix="")
    checkpoints = _entrants(file["checkpoints"], beside)
    worlds = file["worlds"]
    for key, named in (("checkpoints", checkpoints), ("worlds", worlds)):
        if not all(named) or not named:
            raise ContractError(f"{key} names nothing" if not named else f"{key} has a name without a letter")
    if len(set(worlds)) < len(worlds):
        raise ContractError("worlds names one twice")
    if file.get("max_steps") == 0:
        raise ContractError("max_steps is 0; want at least 1, or leave it out for each world's own")
    seeds = parse_seeds(file["seeds"])
    options = {name: file[name] for name in ("max_steps", "disturb_at", "compare") if name in file}
    return Suite(checkpoints, worlds, tuple(seeds), _conditions(file), **options)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _entrants(data: Any, beside: Path) -> dict[str, Entrant]:
    """Checkpoints as folders, or as names with a folder or with settings each."""
    if not isinstance(data, dict):
        folders = _listed(data)
        if not all(isinstance(folder, str) for folder in folders):
            raise ContractError(f"checkpoints is {str(data)[:40]!r}; want folders, or names and folders")
        data = {Path(folder).name: folder for folder in folders}
        if len(data) < len(folders):
            raise ContractError(f"checkpoints {folders}: two have the same name; give names, as in new: runs/a/best")
    entrants = {}
    for name, value in mapping(data, "checkpoints").items():
        where = f"checkpoints.{name}"
        settings = {"folder": value} if isinstance(value, str) else value
        entrant = Entrant(**keys(settings, Entrant, where, required=("folder",)))
        if entrant.candidates == 0:
            raise ContractError(f"{where}.candidates is 0; want at least 1")
        monitor = None if entrant.monitor is None else str(beside / entrant.monitor)
        entrants[name] = Entrant(
            str(beside / entrant.folder), entrant.solver, entrant.solver_steps, entrant.candidates, monitor,
            tuple(str(beside / folder) for folder in entrant.companions),
        )  # fmt: skip
    return entrants


def _conditions(file: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """None first, then each axis by itself at each severity, then those that hold together."""
    conditions: list[tuple[str, ...]] = [()] if file.get("undisturbed", True) else []
    for axis, severities in mapping(file.get("perturbations"), "perturbations").items():
        conditions += [(written(axis, severity),) for severity in _severities(severities, f"perturbations.{axis}")]
    for i, both in enumerate(_listed(file.get("combined") or [])):
        axes = mapping(both, f"combined[{i}]")
        if not axes:
            raise ContractError(f"combined[{i}] is empty; want axes and severities, such as camera: 0.5")
        each = [(axis, *_severities(severity, f"combined[{i}].{axis}")) for axis, severity in axes.items()]
        if wide := next((name for name, *several in each if len(several) != 1), None):
            raise ContractError(f"combined[{i}].{wide} has several severities; give each combination by itself")
        conditions.append(tuple(sorted(written(axis, severity) for axis, severity in each)))
    if not conditions:
        raise ContractError("undisturbed is false and there are no perturbations: nothing to run")
    for first, second in pairwise(sorted(conditions)):
        if first == second:
            raise ContractError(f"perturbations {' + '.join(first)} come twice")
    return tuple(conditions)


def _severities(value: Any, where: str) -> list[float]:
    numbers = _listed(value)
    if not numbers or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise ContractError(f"{where} is {str(value)[:40]!r}; want a severity or several, above 0 and at most 1")
    for number in numbers:
        if not 0 < number <= 1:
            raise ContractError(f"{where}: severity {number:g}; want above 0 (that is: undisturbed) and at most 1")
    return [float(number) for number in numbers]


def written(axis: str, severity: float) -> str:
    """Return ``axis:severity`` as it is named everywhere."""
    return f"{axis}:{severity:g}"


def parsed(perturbation: str) -> tuple[str, float]:
    """Return the axis and the severity of what `written` gave.

    Raises:
        ConfigError: if it is none.
    """
    axis, _, severity = perturbation.rpartition(":")
    try:
        return axis, float(severity)
    except ValueError:
        raise ConfigError(f"{perturbation!r} is no perturbation; want axis:severity, such as camera:0.5") from None
