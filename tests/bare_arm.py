"""A robot that knows nothing of success: the lift twin's arm, without what an environment has beside."""

from sim_envs.worlds import make_world


class BareArm:
    def __init__(self, clock):
        self._twin = make_world("twin:lift", clock, cameras=())
        self._twin.reset(0)
        self.spec = self._twin.spec
        self.read, self.command = self._twin.read, self._twin.command
        self.stop, self.close = self._twin.stop, self._twin.close
