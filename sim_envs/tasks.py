"""The tasks a twin can play, by name."""

from robopolicy.errors import UnknownTask
from robopolicy.interfaces import Task
from sim_envs.lift import Lift
from sim_envs.pusht import PushT

TASKS: dict[str, type] = {"lift": Lift, "pusht": PushT}


def make_task(name: str) -> Task:
    """Return a new task.

    Raises:
        UnknownTask: naming the tasks there are.
    """
    if name not in TASKS:
        raise UnknownTask("task", name, TASKS)
    task: Task = TASKS[name]()
    return task
