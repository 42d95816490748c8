"""Worlds by name: ``twin:lift``, ``gymnasium:gym_pusht/PushT-v0``, ``planar:pusht``, ``robosuite:Lift``."""

from typing import Any

from robopolicy.errors import UnknownName, UnknownTask
from robopolicy.interfaces import Clock

KINDS = ("twin:TASK", "gymnasium:ENV_ID", "planar:pusht", "robosuite:TASK")


def make_world(name: str, clock: Clock, *, cameras: tuple[str, ...] | None = None, rate_hz: float | None = None) -> Any:
    """Return the `Robot` and `Environment` that ``name`` names, driven by ``clock``.

    Args:
        name: ``twin:`` and a task of ours, ``gymnasium:`` and the id of a Gymnasium environment, or ``planar:pusht``,
            the twin of gym-pusht, ``robosuite:`` and one of its tasks of one arm.
        clock: shared with the loop.
        cameras: which cameras to draw; None is the world's default (all of a twin's, two of robosuite's, none of the
            others).
        rate_hz: steps a second; None is the world's own rate.

    Raises:
        UnknownName: if the kind of world does not exist; the valid ones are listed.
        UnknownTask: if the kind does and the world does not.
        UnknownCamera: if it has no such camera.
        MissingExtra: if a package that it needs is not installed.
    """
    kind, _, which = name.partition(":")
    if kind == "twin" and which:
        from sim_envs.tasks import make_task
        from sim_envs.twin import Twin

        rate = {} if rate_hz is None else {"rate_hz": rate_hz}
        return Twin(make_task(which), clock, cameras=cameras, **rate)
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

        rate = {} if rate_hz is None else {"rate_hz": rate_hz}
        return RobosuiteEnv(which, clock, cameras=cameras, **rate)
    raise UnknownName("world", name, KINDS)
