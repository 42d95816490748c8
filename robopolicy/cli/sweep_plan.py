"""A suite becomes episodes that can be run: every name is checked before the first of them is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from robopolicy.errors import CheckpointError, UsageError
from robopolicy.evaluation.rollouts import Options
from robopolicy.evaluation.suite import Cell, Entrant, Item, Suite, identity_of, items_of
from robopolicy.evaluation.sweep import Facts, Recipe, git_sha


@dataclass(frozen=True)
class Plan:
    """A suite, ready to run."""

    suite: Suite
    items: list[Item]
    recipes: dict[Cell, Recipe]
    facts: Facts
    modes: dict[str, tuple[str, ...]]  # that each world enumerates
    notes: tuple[str, ...] = ()  # what else is to be said, a line each


def plan(suite: Suite, device: str = "cpu", envs: int | None = None, *, exact: bool = False) -> Plan:
    """Check that all that a suite names exists and fits together; return what to run.

    Args:
        suite: what to run.
        device: where policies compute.
        envs: episodes at once in each process; None is as many as plan together.
        exact: every plan is made alone, as a robot's.

    Raises:
        CheckpointError: if a checkpoint is none; lists those beside it.
        UnknownName: if a world does not exist; lists those that do.
        SpecMismatch: if a checkpoint does not fit a world; both sides printed.
        UsageError: if there is no such perturbation, or a world cannot have it, and lists those there are; if it
            cannot be disturbed, and names what can; if two checkpoints are the same policy.
    """
    from robopolicy.cli.perturbing import unseen
    from robopolicy.cli.together import Together
    from robopolicy.cli.worlds import make_safety, packages_of
    from robopolicy.evaluation.report import versions
    from robopolicy.training.checkpoint import read_spec

    options = Options(max_steps=suite.max_steps, disturb_at=suite.disturb_at)
    disturbed = suite.disturb_at is not None
    subjects = {(name, world): _subject(entrant, world, device, disturbed=disturbed)
                for name, entrant in suite.checkpoints.items() for world in suite.worlds}  # fmt: skip
    modes = {world: check_world(world, suite.perturbations) for world in suite.worlds}
    for (a, world), (b, other) in combinations(subjects, 2):
        if world == other and subjects[a, world].identity == subjects[b, world].identity:
            raise UsageError(
                f"checkpoints {a} and {b} are the same policy (sha {subjects[a, world].sha[:12]}); name one"
            )
    together = {name: Together.of(entrant.folder, envs, exact=exact) for name, entrant in suite.checkpoints.items()}
    policies = {
        (name, world): f"{subject.identity}|plans by {together[name].rows}"
        for (name, world), subject in subjects.items()
    }
    items = items_of(suite, policies, repr(options))
    recipes = {
        cell: Recipe(
            partial(make_perturbed, subjects[cell.checkpoint, cell.world].make_world, cell.perturbations),
            subjects[cell.checkpoint, cell.world].make_agent,
            make_safety,
            options,
            _draws(suite.checkpoints[cell.checkpoint]),
            identity_of(policies[cell.checkpoint, cell.world], cell.world, cell.perturbations, -1, repr(options))[:16],
            together[cell.checkpoint].envs,
            together[cell.checkpoint].rows,
        )
        for cell in suite.cells()
    }
    shas = {name: (entrant.folder, subjects[name, suite.worlds[0]].sha) for name, entrant in suite.checkpoints.items()}
    packages = [package for world in suite.worlds for package in packages_of(world)]
    software = versions(tuple(dict.fromkeys(("robopolicy", "torch", "mujoco", "numpy", *packages))))
    axes = [one for condition in suite.perturbations for one in condition]
    seen = {name: unseen(axes, tuple(read_spec(entrant.folder).cameras)) for name, entrant in suite.checkpoints.items()}
    notes = tuple(f"{name}: {words}" for name, words in seen.items() if words)
    return Plan(suite, items, recipes, Facts(shas, software, git_sha()), modes, notes)


def make_perturbed(make_world: Any, perturbations: Sequence[str], clock: Any) -> Any:
    """Return a world that lives by ``clock``, perturbed; picklable under `functools.partial`."""
    world = make_world(clock)
    if not perturbations:
        return world
    from sim_envs.perturbations import perturb

    return perturb(world, perturbations)


def check_world(name: str, conditions: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the modes of a world once it is sure that it can be perturbed in each of the ways given.

    Raises:
        UsageError: if there is no such perturbation, or the world cannot have it; it lists those there are.
    """
    from robopolicy.behaviour import modes_of
    from robopolicy.cli.worlds import make_world
    from robopolicy.clock import SimClock
    from sim_envs.perturbations import Perturbation, perturb

    for condition in conditions:
        for perturbation in condition:
            Perturbation.parse(perturbation)
    world = make_world(name, SimClock())
    try:
        for condition in conditions:
            perturb(world, condition)
        return modes_of(world)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    finally:
        world.close()


def _subject(entrant: Entrant, world: str, device: str, *, disturbed: bool) -> Any:
    from robopolicy.cli.evaluate import Subject
    from robopolicy.cli.running import Choice

    folder = Path(entrant.folder)
    if not folder.is_dir():
        beside = folder.parent if folder.parent.is_dir() else Path()
        known = sorted(path.parent.name for path in beside.glob("*/spec.json"))
        raise CheckpointError(f"no checkpoint {folder}; in {beside}/ there are: {', '.join(known) or '(none)'}")
    monitor = None if entrant.monitor is None else Path(entrant.monitor)
    companions = tuple(Path(companion) for companion in entrant.companions)
    choice = Choice(entrant.solver, entrant.solver_steps, companions=companions)
    return Subject.of(folder, world, monitor, entrant.candidates, device, choice, disturbed=disturbed)


def _draws(entrant: Entrant) -> bool:
    from robopolicy.training.checkpoint import read_spec

    return bool(read_spec(entrant.folder).cameras)
