"""Play an expert in a twin, step by step, and interfere."""

import numpy as np

from robopolicy.behaviour import failure_of
from robopolicy.clock import SimClock
from robopolicy.types import Observation
from sim_envs.experts import make_expert
from sim_envs.worlds import make_world


class Played:
    """A twin of a task and its expert from one seed; `go` steps them until a condition holds."""

    def __init__(self, task: str, seed: int) -> None:
        self.clock = SimClock()
        self.world = make_world(f"twin:{task}", self.clock, cameras=())
        self.world.reset(seed)
        self.expert = make_expert(task, self.world.spec)
        self.expert.reset(seed)
        self.failures: list[str] = []  # as of each step

    def go(self, until=None, steps: int | None = None, override=None) -> bool:
        """Step until ``until(observation)`` holds, the task is done if that is None; False if it never came.

        ``override(action)`` may change what the expert commands.
        """
        for _ in range(steps or self.world.max_steps):
            observation = self.look()
            self.failures.append(failure_of(self.world))
            if until(observation) if until is not None else self.world.success():
                return True
            action = self.expert.act(observation).values
            self.world.command(action if override is None else override(action), self.clock.now_ns())
            self.clock.sleep_until(self.clock.now_ns() + self.world.spec.period_ns)
        return False

    def hold(self, action: np.ndarray, seconds: float) -> None:
        """Command one set-point for a while."""
        for _ in range(round(seconds * self.world.spec.rate_hz)):
            self.world.command(action, self.clock.now_ns())
            self.clock.sleep_until(self.clock.now_ns() + self.world.spec.period_ns)
            self.look()

    def wait(self, seconds: float) -> None:
        """Let the physics go on, the arm holding still."""
        self.hold(self.world.stop(), seconds)

    def look(self) -> Observation:
        return self.world.read()


def recovered(task: str, seeds: range, at: int) -> int:
    """Return in how many episodes the expert succeeds though the world is disturbed at step ``at``."""
    won = 0
    for seed in seeds:
        played = Played(task, seed)
        played.go(until=lambda _: False, steps=at)
        played.world.disturb(np.random.default_rng((seed, 1)))
        won += played.go()
    return won
