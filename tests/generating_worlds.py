"""Worlds that die or fail where a test says so, importable by name in a spawned process."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from tiny_worlds import HomingPolicy, PointWorld

from robopolicy.agents import Chunked
from robopolicy.types import Command


class FragileWorld(PointWorld):
    """Its process is killed at seed 4, once for each file in the folder that FRAGILE names."""

    def reset(self, seed):
        super().reset(seed)
        folder = Path(os.environ["FRAGILE"])
        if seed == 4 and (files := sorted(folder.iterdir())):
            files[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class EveryThirdFails(PointWorld):
    """Cannot be solved from the seeds 0, 3, 6, ...; the even ones take their time, so workers finish out of order."""

    def reset(self, seed):
        super().reset(seed)
        time.sleep(0.1 * (seed % 2 == 0))

    def success(self):
        return self._seed % 3 > 0 and super().success()


class HangingWorld(PointWorld):
    """Hangs at seed 5, for as many seconds as HANGS says; seed 13 kills its process."""

    def reset(self, seed):
        super().reset(seed)
        if seed == 5:
            time.sleep(float(os.environ["HANGS"]))


class NeverSolved(PointWorld):
    """Cannot be solved."""

    max_steps = 3

    def success(self):
        return False


def make_agent(spec):
    return Chunked(HomingPolicy(), generator=np.random.default_rng)


class Idle:
    """Stays where it is."""

    decision = None

    def act(self, observation):
        return Command(None, "hold")

    def reset(self, seed=0):
        pass


def make_idle(spec):
    return Idle()
