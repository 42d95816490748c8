"""Policies of a few numbers that plan for many, and runners that crash and hang, importable in a spawned process."""

import os
import threading
import time
from functools import partial

import numpy as np
from tiny_worlds import SPEC, HomingPolicy, PointWorld

from robopolicy.agents import Chunked
from robopolicy.types import Observation


class Together(HomingPolicy):
    """Homes; adds a number that is the same in batches of one shape, and another in those of another."""

    def __init__(self):
        self.batches, self.threads = [], []

    def plan_many(self, requests, *, rows=None):
        self.batches.append(len(requests))
        self.threads.append(threading.get_ident())
        if any(not np.isfinite(one.window[-1].state["point"]).all() for one in requests):
            [one.generator.normal() for one in requests]  # too late: something was drawn
            raise ValueError("the point is nowhere")
        return [self._rounded(one, rows or len(requests)) for one in requests]

    def plan(self, window, **options):
        from robopolicy.types import PlanRequest

        return self.plan_many([PlanRequest(window, **options)])[0]

    def beside(self):
        return type(self)()

    def _rounded(self, one, rows):
        plan = super().plan(one.window, n=one.n, generator=one.generator)
        return type(plan)(plan.chunks + np.float32(1e-4 * rows), plan.features)


class Unsteady(Together):
    """Its numbers depend on who else asks."""

    def plan_many(self, requests, *, rows=None):
        plans = super().plan_many(requests, rows=rows)
        return [type(plan)(plan.chunks + np.float32(1e-3 * i), plan.features) for i, plan in enumerate(plans)]


class NowhereWorld(PointWorld):
    """Seed 5 is nowhere from its third step on."""

    def reset(self, seed):
        super().reset(seed)
        self._reads = 0

    def read(self):
        self._reads += 1
        if self._seed == 5 and self._reads > 3:
            return Observation(self._clock.now_ns(), {"point": np.full(2, np.nan, np.float32)})
        return super().read()


def make_agent(kind=Together, n=2, share=None):
    policy = kind() if share is None else share("policy", kind, n)
    return Chunked(policy, n=n, generator=np.random.default_rng)


class Echo:
    """Asks the shared policy for a plan, then says who it is; item 3 hangs, item 4 dies, the first time or always."""

    def __init__(self, folder=None, share=None):
        self._policy = share("policy", Together, 1)
        self._folder = folder

    def prepare(self, item):
        pass

    def run(self, item):
        window = [Observation(0, {"point": np.ones(2, np.float32)})]
        self._policy.plan(window, n=1, generator=np.random.default_rng(item))
        if item == 3:
            time.sleep(1000)
        if item == 4:
            os._exit(7)
        return item, threading.get_ident()

    def close(self):
        pass


class Placed:
    """Notes in a folder on which cores each process's threads may run; item 4 kills its process the first time."""

    def __init__(self, folder, share=None):
        self._folder = folder
        threads = [int(name) for name in os.listdir("/proc/self/task")]
        cores = {tuple(sorted(os.sched_getaffinity(thread))) for thread in threads}
        (folder / f"cores-{os.getpid()}").write_text(repr(cores))

    def prepare(self, item):
        pass

    def run(self, item):
        died = self._folder / "died"
        if item == 4 and not died.exists():
            died.write_text(str(os.getpid()))
            os._exit(7)
        return item

    def close(self):
        pass


def serve(build, items, envs, rows):
    """Run items in this process; return their results by item, and the `Batched`."""
    from robopolicy.evaluation.batched import Batched
    from robopolicy.evaluation.workers import ENOUGH

    batched, waiting, found = Batched(build, envs, rows), list(items), {}

    def take(wait):
        return (waiting[0], waiting.pop(0)) if waiting else ENOUGH

    def tell(ticket, what, content):
        if what == "result":
            found[ticket] = content

    batched.serve(take, tell)
    batched.close()
    return found


make_unsteady = partial(make_agent, Unsteady)
__all__ = ["SPEC", "Echo", "NowhereWorld", "Placed", "Together", "Unsteady", "make_agent", "make_unsteady", "serve"]
