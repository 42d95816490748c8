"""The tasks a twin can play, by name."""

from robopolicy.errors import UnknownTask
from robopolicy.interfaces import Task
from sim_envs.align import Align
from sim_envs.avoid import Avoid
from sim_envs.drawer import Drawer, LeftDrawer, RightDrawer, TurnedDrawer
from sim_envs.lift import Lift
from sim_envs.memory import Memory
from sim_envs.peg import Peg
from sim_envs.pusht import PushT
from sim_envs.stack import Stack

TASKS: dict[str, type] = {
    "lift": Lift,
    "stack": Stack,
    "drawer": Drawer,
    "turned_drawer": TurnedDrawer,
    "left_drawer": LeftDrawer,
    "right_drawer": RightDrawer,
    "peg": Peg,
    "pusht": PushT,
    "avoid": Avoid,
    "align": Align,
    "memory": Memory,
}
ALIASES = {"push_t": "pusht"}


def make_task(name: str) -> Task:
    """Return a new task, by its name in `TASKS` or another it goes by.

    Raises:
        UnknownTask: naming the tasks there are.
    """
    if canonical(name) not in TASKS:
        raise UnknownTask("task", name, TASKS)
    task: Task = TASKS[canonical(name)]()
    return task


def canonical(name: str) -> str:
    """Return the name that `TASKS` and `EXPERTS` have for ``name``: ``push_t`` is ``pusht``."""
    return ALIASES.get(name, name)
