"""What a step of the twin costs on the CPU, and how often the experts succeed: the numbers in sim_envs/README.md.

python tests/benchmarks/bench_twin.py [--seeds 100]
"""

import argparse
import time

import numpy as np

from robopolicy.clock import SimClock
from sim_envs.experts import make_expert
from sim_envs.tasks import TASKS
from sim_envs.worlds import make_world

VIEWS = {"state only": (), "one camera": ("front",), "both cameras": ("front", "wrist")}


def step_ms(task: str, cameras: tuple[str, ...], *, expert: bool, steps: int = 60) -> float:
    """CPU milliseconds of one 20 Hz step, the arm holding still or driven by its expert (not counted)."""
    clock = SimClock()
    world = make_world(f"twin:{task}", clock, cameras=cameras)
    agent = make_expert(task, world.spec)
    world.reset(0)
    hold = world.stop()
    observation = world.read()
    spent_s = 0.0
    for _ in range(steps):
        action = agent.act(observation).values if expert else hold
        world.command(action, clock.now_ns())
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)
        start_s = time.process_time()
        observation = world.read()
        spent_s += time.process_time() - start_s
    world.close()
    return 1000 * spent_s / steps


def expert_record(task: str, seeds: int) -> tuple[int, np.ndarray, float]:
    """Return successes, the steps of each and the fastest commanded speed (m/s), over ``seeds`` starts."""
    clock = SimClock()
    world = make_world(f"twin:{task}", clock, cameras=())
    expert = make_expert(task, world.spec)
    lengths, fastest = [], 0.0
    for seed in range(seeds):
        world.reset(seed)
        expert.reset(seed)
        before = world.stop()
        for step in range(world.max_steps):
            observation = world.read()
            if world.success():
                lengths.append(step)
                break
            action = world.command(expert.act(observation).values, clock.now_ns())
            fastest = max(fastest, float(np.linalg.norm(action[:3] - before[:3])) * world.spec.rate_hz)
            before = action
            clock.sleep_until(clock.now_ns() + world.spec.period_ns)
    world.close()
    return len(lengths), np.array(lengths), fastest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    seeds = parser.parse_args().seeds
    for task in TASKS:
        for view, cameras in VIEWS.items():
            still, moving = (step_ms(task, cameras, expert=expert) for expert in (False, True))
            print(f"{task:<6} {view:<13} {still:5.2f} CPU ms a step holding still, {moving:5.2f} with the expert")
        good, lengths, fastest = expert_record(task, seeds)
        spread = f"{lengths.min()} / {np.median(lengths):.0f} / {lengths.max()} steps" if good else "no success"
        print(f"{task:<6} expert {good}/{seeds}, {spread} (least, median, most), at most {fastest:.2f} m/s")
