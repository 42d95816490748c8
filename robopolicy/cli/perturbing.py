"""Perturbations on the command line: one at a time, from a file, and the list of what there is."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopolicy.errors import UsageError


def add_perturbing(parser: Any) -> None:
    """Add the options that perturb a simulated world to a parser, or to a group of one."""
    parser.add_argument(
        "--perturb", action="append", default=[], metavar="AXIS:SEVERITY",
        help="perturb a simulated world: camera:0.5, friction:0.3; severity 0 is nothing, 1 the most; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--perturbations", type=Path, metavar="FILE.yaml", help="the same from a file: a list, or AXIS: SEVERITY"
    )
    parser.add_argument(
        "--list-perturbations", action=_List, nargs=0, help="say what each axis is at severity 1, and end"
    )


def perturbations_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Return what `add_perturbing` asked for that changes anything, each as AXIS:SEVERITY, in a fixed order.

    Raises:
        UsageError, ConfigError: if there is no such axis, no such severity, or an axis comes twice.
    """
    if not args.perturb and args.perturbations is None:
        return ()
    from sim_envs.perturbations import Perturbation, canonical, read_perturbations

    asked = [Perturbation.parse(text) for text in args.perturb]
    if args.perturbations is not None:
        asked += read_perturbations(args.perturbations)
    return tuple(map(str, canonical(asked)))


def unseen(perturbations: Sequence[str], cameras: Sequence[str]) -> str:
    """Return in words which perturbations cannot matter to a policy that sees these cameras; "" if each can."""
    if not perturbations or cameras:
        return ""
    from sim_envs.perturbations_looks import AXES

    looks = dict.fromkeys(one for one in perturbations if one.partition(":")[0] in AXES)
    return f"{', '.join(looks)}: that changes pictures only, and this policy sees none" if looks else ""


def perturbed(world: Any, name: str, perturbations: Sequence[str]) -> Any:
    """Return ``world``, called ``name``, so that it is perturbed from its next reset on; itself without any.

    Raises:
        UsageError: if it is no simulation, or cannot have one of them; the world is closed then.
    """
    if not perturbations:
        return world
    from robopolicy.interfaces import Environment
    from sim_envs.perturbations import perturb

    try:
        if not isinstance(world, Environment):
            raise UsageError(f"robot {name} is no simulation: nothing can be perturbed ({', '.join(perturbations)})")
        return perturb(world, perturbations)
    except BaseException:
        world.close()
        raise


def say_axes(names: Sequence[str] | None = None) -> None:
    """Print what each axis is at severity 1; None is all there are."""
    from robopolicy.cli.progress import say
    from sim_envs.perturbations import AXES

    say("severity 1 is the most; the seed of an episode draws direction, sign and moment")
    for name, axis in AXES.items():
        if names is None or name in names:
            say("  ", (f"{name:<13}", "bold"), axis.most)


def drawn(world: Any) -> dict[str, dict[str, Any]]:
    """Return what perturbs a world's present episode, for an episode's extra; {} if nothing does."""
    words: dict[str, str] = getattr(world, "describe", dict)()
    severities = {one.axis: one.severity for one in getattr(world, "perturbations", ())}
    if not words:
        return {}
    return {"perturbations": {name: {"severity": severities[name], "drawn": told} for name, told in words.items()}}


class _List(argparse.Action):
    """Prints the axes and ends, as --help does: no other argument is wanted then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        say_axes()
        parser.exit()
