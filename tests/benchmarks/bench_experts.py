"""The experts of all tasks against their bars: python tests/benchmarks/bench_experts.py [--seeds 100] [--tasks peg]

With --hand the floating hand does what it can in the place of the arm; its bar is 90 % of the seeds.

A row a task: successes with Clopper and Pearson's interval (bar: 95 % of the seeds; push_t 75 %), steps of the
successes, CPU seconds of a state demonstration (world, expert, loop; process time, so other load counts little; bar:
1 s), the modes of the successes (bar: two or more on avoid, push_t and stack) and their entropy, 1 when all are taken
equally often. Then the same with a disturbance after 1.5 s, where the task has one: what the experts recover from.
"""

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from robopolicy.behaviour import mode_of, modes_of
from robopolicy.clock import SimClock
from robopolicy.evaluation.entropy import behaviour_entropy
from robopolicy.evaluation.statistics import success_rate
from sim_envs.experts import make_expert
from sim_envs.hand_world import TASKS as HAND_TASKS
from sim_envs.tasks import TASKS
from sim_envs.worlds import make_world

LEAST = {"pusht": 0.75}  # of the seeds; of every other task 0.95
LEAST_OF_HAND = 0.90
MANY_WAYS = ("avoid", "pusht", "stack")
MOST_S = 1.0
DISTURBED_AT = 30  # step


@dataclass
class Record:
    """What an expert did over many seeds."""

    steps: list[int] = field(default_factory=list)  # of the successes
    modes: Counter[str] = field(default_factory=Counter)
    episodes: int = 0
    cpu_s: float = 0.0


def play(task: str, seeds: int, *, disturb: bool = False, kind: str = "twin") -> Record:
    """Run the expert of ``task`` from seeds 0, 1, ... as `robopolicy record --teleop expert` does, keeping nothing."""
    clock = SimClock()
    world = make_world(f"{kind}:{task}", clock, cameras=())
    expert, record = make_expert(task, world.spec), Record()
    start_s = time.process_time()
    for seed in range(seeds):
        world.reset(seed)
        expert.reset(seed)
        for step in range(world.max_steps):
            observation = world.read()
            if world.success():
                record.steps.append(step)
                record.modes.update([mode_of(world)] if mode_of(world) else [])
                break
            if disturb and step == DISTURBED_AT:
                world.disturb(np.random.default_rng((seed, 1)))
                observation = world.read()
            world.command(expert.act(observation).values, clock.now_ns())
            clock.sleep_until(clock.now_ns() + world.spec.period_ns)
        record.episodes += 1
    record.cpu_s = (time.process_time() - start_s) / seeds
    world.close()
    return record


def row(task: str, seeds: int, kind: str = "twin") -> str:
    """Return what a task's expert reaches beside the bars, in a line or two."""
    calm, modes = play(task, seeds, kind=kind), modes_of(make_world(f"twin:{task}", SimClock(), cameras=()))
    rate, least = success_rate(len(calm.steps), calm.episodes), LEAST.get(task, 0.95)
    least = LEAST_OF_HAND if kind == "hand" else least
    used = [mode for mode in modes if calm.modes[mode]]
    met = rate.value >= least and calm.cpu_s <= MOST_S and (task not in MANY_WAYS or len(used) >= 2)
    spread = (
        "no steps" if not calm.steps else f"{min(calm.steps)} / {np.median(calm.steps):.0f} / {max(calm.steps)} steps"
    )
    ways = "no modes"
    if used:
        shares = sorted((calm.modes[mode] / calm.modes.total() for mode in used), reverse=True)
        counts = {mode: calm.modes[mode] for mode in modes}
        entropy = behaviour_entropy(counts, rng=np.random.default_rng(0))
        ways = f"entropy {entropy}, {shares[0]:.0%} to {shares[-1]:.0%} each"
    line = f"{task:<7} {rate} (bar {least:.0%}); {spread}; {calm.cpu_s:.2f} CPU s a demo (bar {MOST_S:.0f}); {ways}"
    line += f"; bars {'met' if met else 'NOT MET'}"
    if hasattr(TASKS[task], "disturb"):
        hit = play(task, seeds, disturb=True, kind=kind)
        line += f"\n{'':<7} disturbed at step {DISTURBED_AT}: {success_rate(len(hit.steps), hit.episodes)}"
    return line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--hand", action="store_true")
    args = parser.parse_args()
    if args.hand:
        args.tasks = [task for task in args.tasks if task in HAND_TASKS]
    for task in args.tasks:
        print(row(task, args.seeds, "hand" if args.hand else "twin"), flush=True)
