"""A teleoperation device that does what a script says, at which tick; importable by name."""

import numpy as np

from robopolicy.types import Command
from robopolicy_hardware.teleop.target import ToolTarget


class Hand:
    """Presses ``script[tick]`` and moves ``move`` (3,) m a tick; holds during the ticks of ``away``."""

    def __init__(self, spec, script=None, move=(0.0, 0.0, 0.0), away=range(0)):
        self.script, self.move, self.away = dict(script or {}), np.array(move), away
        self.target = ToolTarget(spec)
        self.tick = 0
        self.engaged, self.shown = [], []

    def engage(self, observation, set_point):
        self.target.engage(observation, set_point)
        self.engaged.append((self.tick, None if set_point is None else set_point.copy()))

    def read(self, observation):
        if self.tick in self.away:
            return Command(None, "hold", reason="nobody is there")
        self.target.see(observation)
        self.target.move(self.move)
        return Command(self.target.command(), "human")

    def events(self):
        self.tick += 1
        return self.script.get(self.tick, ())

    def show(self, status):
        self.shown.append(status)

    def close(self):
        pass
