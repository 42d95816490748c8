"""Worlds by name: ``twin:lift``, ``hand:lift``, ``gymnasium:ID``, ``planar:pusht``, ``robosuite:Lift``."""

from typing import Any

from robopolicy.errors import UnknownName, UnknownTask, UsageError
from robopolicy.interfaces import Clock

KINDS = ("twin:TASK", "hand:TASK", "gymnasium:ENV_ID", "planar:pusht", "robosuite:TASK")

SIZED = ("twin", "hand")  # whose pictures may have any size


def make_world(
    name: str,
    clock: Clock,
    *,
    cameras: tuple[str, ...] | None = None,
    rate_hz: float | None = None,
    size: tuple[int, int] | None = None,
) -> Any:
    """Return the `Robot` and `Environment` that ``name`` names, driven by ``clock``.

    Args:
        name: ``twin:`` and a task of ours, ``gymnasium:`` and the id of a Gymnasium environment, or ``planar:pusht``,
            the twin of gym-pusht, ``robosuite:`` and one of its tasks of one arm, or ``hand:`` and a task of ours
            that a human-like hand does in the place of the arm, its right one or, ``hand:lift:left``, the other.
        clock: shared with the loop.
        cameras: which cameras to draw; None is the world's default (front and wrist of a twin, front
            and side of a hand, two of robosuite's, none of the others).
        rate_hz: steps a second; None is the world's own rate.
        size: (H, W) of each picture, of twins and hands only; None is 96 x 96.

    Raises:
        UnknownName: if the kind of world does not exist; the valid ones are listed.
        UnknownTask: if the kind does and the world does not.
        UnknownCamera: if it has no such camera.
        UsageError: if the size of its pictures cannot be chosen.
        MissingExtra: if a package that it needs is not installed.
    """
    kind, _, which = name.partition(":")
    options: dict[str, Any] = {} if rate_hz is None else {"rate_hz": rate_hz}
    if size is not None and kind not in SIZED:
        raise UsageError(f"pictures of {name} have the size they have; a size is of twin:TASK and hand:TASK")
    drawn = {} if size is None else {"size": size}
    if kind == "twin" and which:
        from sim_envs.tasks import make_task
        from sim_envs.twin import Twin

        return Twin(make_task(which), clock, cameras=cameras, **options, **drawn)
    if kind == "hand" and which:
        from sim_envs.hand_world import HandTwin

        task, _, side = which.partition(":")
        return HandTwin(task, clock, cameras=cameras, **({"hand": side} if side else {}), **options, **drawn)
    if kind == "gymnasium" and which:
        from sim_envs.gymnasium_env import GymnasiumEnv

        return GymnasiumEnv(which, clock, cameras=cameras, rate_hz=rate_hz)
    if kind == "planar" and which:
        from sim_envs.planar_push import PlanarPushT
        from sim_envs.tasks import canonical

        if canonical(which) != "pusht":
            raise UnknownTask("planar task", which, ["pusht"])
        return PlanarPushT(clock, cameras=cameras, rate_hz=rate_hz)
    if kind == "robosuite" and which:
        from sim_envs.robosuite_env import RobosuiteEnv

        return RobosuiteEnv(which, clock, cameras=cameras, **options)
    raise UnknownName("world", name, KINDS)
