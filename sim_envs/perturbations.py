"""Perturbations of any world by name: what there is, what each means at severity 1, reading them, applying them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy.errors import ContractError, UnknownName, UsageError
from robopolicy.settings import mapping, read_settings
from sim_envs import perturbations_events, perturbations_looks, perturbations_objects, perturbations_signals
from sim_envs.perturbation_axis import Axis
from sim_envs.perturbed import Perturbed

# Applied in this order: sizes before poses would change whether an object has room there.
AXES: dict[str, Axis] = {
    **perturbations_objects.AXES,
    **perturbations_looks.AXES,
    **perturbations_signals.AXES,
    **perturbations_events.AXES,
}


@dataclass(frozen=True)
class Perturbation:
    """One axis and how much of it; ``str`` gives ``"camera:0.5"``.

    Raises:
        UnknownName: naming the axes there are.
        ContractError: if the severity is none.
    """

    axis: str
    severity: float  # 0 is exactly nothing, 1 what `AXES` says

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise UnknownName("perturbation", self.axis, AXES)
        if not (math.isfinite(self.severity) and 0 <= self.severity <= 1):
            raise ContractError(f"{self.axis}: severity {self.severity:g}; want 0 (nothing) to 1 (the most)")
        object.__setattr__(self, "severity", float(f"{self.severity:g}"))  # what its name says, so names tell all apart

    @classmethod
    def parse(cls, text: str) -> "Perturbation":
        """Read ``"camera:0.5"``.

        Raises:
            UsageError: if it is none, and what is wrong with it.
        """
        axis, _, severity = text.partition(":")
        try:
            return cls(axis, float(severity))
        except UnknownName as error:
            raise UsageError(str(error)) from error
        except ValueError as error:
            if isinstance(error, ContractError):
                raise UsageError(f"perturbation {error}") from error
            raise UsageError(f"perturbation {text!r}: want AXIS:SEVERITY, such as camera:0.5") from error

    def __str__(self) -> str:
        return f"{self.axis}:{self.severity:g}"


def read_perturbations(path: Path | str) -> tuple[Perturbation, ...]:
    """Read a YAML file: a list of ``camera:0.5``, or severities by axis.

    Raises:
        ConfigError: naming the file and what is wrong with it.
    """
    return read_settings(path, _from_yaml, "a YAML file of perturbations: a list of AXIS:SEVERITY, or AXIS: SEVERITY")


def canonical(perturbations: Iterable[Perturbation]) -> tuple[Perturbation, ...]:
    """Return those that change anything, in the order in which they are applied: what names an evaluation.

    Raises:
        UsageError: if an axis comes twice.
    """
    perturbations = tuple(perturbations)
    names = [one.axis for one in perturbations]
    if twice := [name for name in AXES if names.count(name) > 1]:
        raise UsageError(f"perturbation {twice[0]} comes twice: give it one severity")
    order = list(AXES)
    return tuple(sorted((one for one in perturbations if one.severity > 0), key=lambda one: order.index(one.axis)))


def axes_of(world: Any) -> tuple[str, ...]:
    """Return the axes that this world can have."""
    return tuple(name for name, axis in AXES.items() if not axis.lacks(world))


def perturb(world: Any, perturbations: Sequence[Perturbation | str]) -> Any:
    """Return ``world`` so that it is perturbed from its next reset on; without perturbations the world itself.

    Args:
        world: any `Robot` and `Environment`.
        perturbations: no axis twice.

    Raises:
        UsageError: if this world cannot have one of them, and which it can have.
    """
    asked = tuple(Perturbation.parse(one) if isinstance(one, str) else one for one in perturbations)
    if not asked:
        return world
    for one in asked:
        if why := AXES[one.axis].lacks(world):
            instruction = getattr(world, "instruction", type(world).__name__)
            raise UsageError(
                f"perturbation {one.axis}: this world ({instruction}) has {why}; it can have: "
                f"{', '.join(axes_of(world)) or '(none)'}"
            )
    return Perturbed(world, {one.axis: (AXES[one.axis], one.severity) for one in canonical(asked)}, asked)


def _from_yaml(data: Any) -> tuple[Perturbation, ...]:
    if isinstance(data, list):
        return tuple(Perturbation.parse(str(one)) for one in data)
    found = mapping(data, "the file")
    if odd := [name for name, value in found.items() if isinstance(value, bool) or not isinstance(value, int | float)]:
        raise ContractError(f"{odd[0]} is {found[odd[0]]!r}; want a severity, 0 to 1")
    return tuple(Perturbation(name, float(severity)) for name, severity in found.items())
