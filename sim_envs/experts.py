"""The scripted experts, by task."""

from collections.abc import Callable
from functools import partial

from robopolicy.errors import SpecMismatch, UnknownTask, UsageError
from robopolicy.interfaces import Agent
from robopolicy.spec import TOOL_POSE, PolicySpec
from sim_envs.align_expert import AlignExpert
from sim_envs.avoid_expert import AvoidExpert
from sim_envs.drawer_expert import DrawerExpert
from sim_envs.lift_expert import LiftExpert
from sim_envs.memory_expert import MemoryExpert
from sim_envs.peg_expert import PegExpert
from sim_envs.pusht_expert import PushTExpert
from sim_envs.stack_expert import StackExpert
from sim_envs.tasks import canonical

EXPERTS: dict[str, Callable[..., Agent]] = {
    "lift": LiftExpert,
    "stack": StackExpert,
    "drawer": DrawerExpert,
    "turned_drawer": DrawerExpert,
    "left_drawer": partial(DrawerExpert, "left"),
    "right_drawer": partial(DrawerExpert, "right"),
    "peg": PegExpert,
    "pusht": PushTExpert,
    "avoid": AvoidExpert,
    "align": AlignExpert,
    "memory": MemoryExpert,
}
CHOOSE = ("stack", "drawer", "turned_drawer", "avoid", "align")  # whose experts can be held to one mode
HAND = ("tool_pos", "tool_quat", "gripper")
NEEDS: dict[str, tuple[str, ...]] = {
    "lift": (*HAND, "cube_pos", "cube_quat"),
    "stack": (*HAND, "red_pos", "red_quat", "blue_pos", "blue_quat"),
    "drawer": (*HAND, "chest", "left_handle", "right_handle"),
    "turned_drawer": (*HAND, "chest", "left_handle", "right_handle"),
    "left_drawer": (*HAND, "chest", "left_handle"),
    "right_drawer": (*HAND, "chest", "right_handle"),
    "peg": (*HAND, "peg_pos", "peg_quat", "hole"),
    "pusht": ("tool_pos", "block"),
    "avoid": ("tool_pos",),
    "align": ("tool_pos", "frame", "target"),
    "memory": ("tool_pos", "cue", "go"),
}


def make_expert(task_name: str, spec: PolicySpec, *, mode: str | None = None) -> Agent:
    """Return a scripted agent that does the task on a robot that offers ``spec``.

    Args:
        task_name: as in `EXPERTS`.
        spec: of the robot, or of the hand.
        mode: the one way to do it in every episode; None draws one by the seed.

    Raises:
        UnknownTask: naming the tasks that have an expert.
        SpecMismatch: if the robot does not show what the expert looks at, or does not take tool poses.
        UnknownName: if the task has no such mode, naming those it has.
        UsageError: if the expert does the task in one way only, naming those that have a choice.
    """
    task = canonical(task_name)
    if task not in EXPERTS:
        raise UnknownTask("expert for task", task_name, EXPERTS)
    missing = [name for name in NEEDS[task] if name not in spec.state]
    if missing or spec.action != TOOL_POSE:
        raise SpecMismatch(
            f"expert {task_name} needs state {', '.join(NEEDS[task])} and action tool_pose; "
            f"the robot has {', '.join(spec.state)} and {spec.action.kind}"
        )
    if mode is not None and task not in CHOOSE:
        raise UsageError(f"expert {task_name} does it as it sees fit; a mode can be asked of {', '.join(CHOOSE)}")
    return EXPERTS[task]() if mode is None else EXPERTS[task](mode=mode)
