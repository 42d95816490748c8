"""What the monitors' benchmark says of its tasks is possible, and no episode has two purposes."""

import sys
from pathlib import Path

import pytest

from robopolicy.clock import SimClock
from sim_envs.perturbations import perturb
from sim_envs.worlds import make_world

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from monitor_tasks import ARM, CHOOSING, DEMONSTRATIONS, N_EXECUTE, NOMINAL, PERTURBED, TASKS


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_states_and_every_perturbation(name: str) -> None:
    task, world = TASKS[name], make_world(f"twin:{name}", SimClock(), cameras=())
    try:
        assert {*ARM, *task.states} <= set(world.spec.state)
        assert task.limit % N_EXECUTE == 0
        assert task.limit < world.max_steps
        for axis, severity in task.severities.items():
            shaken = perturb(world, [f"{axis}:{severity:g}"])
            shaken.reset(CHOOSING)
            assert set(shaken.describe()) == {axis}, "nothing of it is in force"
            shaken.restore()
    finally:
        world.close()


def test_no_start_is_both_chosen_by_and_judged_by() -> None:
    episodes = max(task.nominal for task in TASKS.values())
    demonstrated = range(2 * DEMONSTRATIONS)  # failed ones are not counted
    assert max(demonstrated) < NOMINAL
    assert NOMINAL + episodes < PERTURBED < PERTURBED + 1000 < CHOOSING
