"""Worlds, agents and monitors of a few numbers, importable by name in a spawned process."""

import os
import time

import numpy as np

from robopolicy.agents import Chunked, Guarded
from robopolicy.errors import LateCommand, UnsafeCommand, UsageError
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation, Plan

SPEC = PolicySpec(state={"point": StateSpec(2, ("m",))}, action=ActionSpec("vector", ("x", "y"), ("m",)), rate_hz=10.0)


class PointWorld:
    """A point that goes 0.4 m a step; the goal is the origin. Seed 13 kills the process, seed 17 raises."""

    instruction = "go to the origin"
    max_steps = 40

    def __init__(self, clock):
        self.spec = SPEC
        self._clock = clock
        self.reset(0)

    def reset(self, seed):
        self._rng = np.random.default_rng(seed)
        self._seed = seed
        self._at = self._rng.uniform(0.5, 1.0, 2)
        self._start = np.linalg.norm(self._at)

    def read(self):
        if self._seed == 13:
            os._exit(3)
        if self._seed == 17:
            raise RuntimeError("the world broke")
        return Observation(self._clock.now_ns(), {"point": self._at.astype(np.float32)})

    def command(self, action, due_ns):
        way = np.asarray(action, np.float64) - self._at
        self._at = self._at + way * min(1.0, 0.4 / np.linalg.norm(way)) + self._rng.normal(0, 0.003, 2)
        return np.array(action, np.float32)

    def stop(self, reason=""):
        return self._at.astype(np.float32)

    def close(self):
        pass

    def success(self):
        return bool(np.linalg.norm(self._at) < 0.05)

    def score(self):
        return float(np.clip(1 - np.linalg.norm(self._at) / self._start, 0, 1))

    def disturb(self, rng):
        self._at = self._at + 20.0 + rng.uniform(0, 1, 2)
        return "the point was thrown far away"

    def picture(self):
        image = np.full((48, 64, 3), 255, np.uint8)
        row, column = np.clip(self._at * 40, 0, 47).astype(int)
        image[row, column] = (200, 0, 0)
        return image


class EasyWorld(PointWorld):
    """Every policy succeeds: six steps are enough."""

    def reset(self, seed):
        super().reset(seed)
        self._steps = 0

    def command(self, action, due_ns):
        self._steps += 1
        return super().command(action, due_ns)

    def success(self):
        return self._steps >= 6


class CalmWorld(EasyWorld):
    """Nothing can be done to it."""

    def disturb(self, rng):
        raise UsageError("a calm world")


class HomingPolicy:
    """Goes a fifth of the way to the origin each step; its embedding is where it is."""

    spec = PolicySpec(state=SPEC.state, action=SPEC.action, rate_hz=10.0, n_obs=1, horizon=4, n_execute=2)

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None):
        at = window[-1].state["point"]
        rows = np.stack([at * 0.8**i for i in range(1, 5)])
        noise = generator.normal(0, 1e-3, (n, 4, 2)) if generator is not None else 0.0
        chunks = (np.repeat(rows[None], n, axis=0) + noise).astype(np.float32)
        return Plan(chunks, np.concatenate([at, at**2]).astype(np.float32))

    def reset(self):
        pass


class SlowPolicy(HomingPolicy):
    """Takes two and a half steps to plan."""

    def plan(self, window, **options):
        time.sleep(0.25)
        return super().plan(window, **options)


class AnythingGoes:
    """A safety layer that limits nothing."""

    def __init__(self, spec):
        pass

    def limit(self, action, observation, now_ns):
        return np.array(action, np.float32)

    def reset(self):
        pass


class Strict(AnythingGoes):
    """Refuses what is no number."""

    def limit(self, action, observation, now_ns):
        if not np.isfinite(action).all():
            raise UnsafeCommand("command is not finite")
        return super().limit(action, observation, now_ns)


class NothingLate(AnythingGoes):
    """Refuses what comes 0.2 s after what it answers."""

    def limit(self, action, observation, now_ns):
        if now_ns - observation.stamp_ns > 200_000_000:
            raise LateCommand("observation is too old")
        return super().limit(action, observation, now_ns)


def make_slow():
    return Chunked(SlowPolicy(), generator=np.random.default_rng)


def make_agent(n=2):
    return Chunked(HomingPolicy(), n=n, generator=np.random.default_rng)


def make_guarded(monitor, on_alarm="log"):
    from robopolicy.monitor.monitor import load_monitor

    return Guarded(make_agent(), load_monitor(monitor), on_alarm=on_alarm)


def make_nothing(*args):
    raise ValueError("there is no such world")


def make_death(*args):
    os._exit(4)
