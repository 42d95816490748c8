"""A sweep of tiny worlds as a program of its own, to be killed: python tiny_sweep.py FOLDER [OPTIONS]."""

import argparse
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_worlds as tiny

from robopolicy.evaluation.results import Patience
from robopolicy.evaluation.rollouts import Options
from robopolicy.evaluation.suite import Suite, identity_of, items_of, shard_of
from robopolicy.evaluation.sweep import Facts, Processes, Recipe, sweep
from robopolicy.evaluation.sweep_table import VARYING

FACTS = Facts({"a": ("runs/a", "aa"), "b": ("runs/b", "bb")}, "tiny 1", "")
WORLDS = {"point": tiny.PointWorld, "easy": tiny.EasyWorld}


class HangingWorld(tiny.PointWorld):
    """Seed 5 never ends, and hears of no signal but SIGKILL's."""

    def read(self):
        while self._seed == 5:
            time.sleep(1)
        return super().read()


class AbortingWorld(tiny.PointWorld):
    """Seed 6 aborts as C++ does, seed 7 does only the first time: a file remembers."""

    def read(self):
        if self._seed == 6:
            os.abort()
        if self._seed == 7 and (mark := os.environ.get("ABORTED")) and not Path(mark).exists():
            Path(mark).touch()
            os.abort()
        return super().read()


class Slowly:
    """A world whose every reset takes ``pause_s``, and tells a file which seed it began and in which process."""

    def __new__(cls, kind, pause_s, begun, clock):
        world = kind(clock)
        reset = world.reset

        def slow_reset(seed):
            if begun:
                with open(begun, "a") as file:
                    file.write(f"{seed} {os.getpid()}\n")
            time.sleep(pause_s)
            reset(seed)

        world.reset = slow_reset
        return world


def make_agent(n, share=None):
    """An agent, with a policy of its own: tiny ones know nothing of batches."""
    return tiny.make_agent(n)


class RaisingBench:
    """A runner that can run nothing."""

    def prepare(self, item):
        raise ValueError("no")

    def close(self):
        pass


def suite(n, perturbations=((), ("camera:0.5",))):
    return Suite({"a": None, "b": None}, tuple(WORLDS), tuple(range(20, 20 + n)), perturbations)


def parts(suite, worlds=WORLDS, pause_s=0.0, begun="", envs=1):
    """Items and recipes of a suite whose two checkpoints draw one chunk and three."""
    policies = {(name, world): name for name in suite.checkpoints for world in suite.worlds}
    recipes = {
        cell: Recipe(
            partial(Slowly, worlds[cell.world], pause_s, begun),
            partial(make_agent, {"a": 1, "b": 3}[cell.checkpoint]), tiny.AnythingGoes,
            Options(max_steps=suite.max_steps),
            folder=identity_of(cell.checkpoint, cell.world, cell.perturbations, -1, "")[:16],
            envs=envs,
        )
        for cell in suite.cells()
    }  # fmt: skip
    return items_of(suite, policies, ""), recipes


def steady(rows):
    """What must be the same of the same episodes, whenever and wherever they ran."""
    return [{name: value for name, value in row.items() if name not in VARYING} for row in rows]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--retries", type=int, default=1)
    parser.add_argument("--shard", type=int, nargs=2)
    parser.add_argument("--begun", default="")
    parser.add_argument("--envs", type=int, default=1)
    parser.add_argument("--ray")
    args = parser.parse_args()
    items, recipes = parts(suite(args.seeds), pause_s=args.pause, begun=args.begun, envs=args.envs)
    if args.shard:
        items = shard_of(items, tuple(args.shard))
    patience = Patience(retries=args.retries)
    executor = Processes(args.jobs, patience)
    if args.ray:
        from robopolicy.evaluation.sweep_ray import RayActors

        executor = RayActors(args.ray, args.jobs, patience)

    def show(item, row, fresh):
        print(json.dumps({"identity": item.identity, "fresh": fresh}), flush=True)

    sweep(items, recipes, args.folder, facts=FACTS, executor=executor, on_progress=show)


if __name__ == "__main__":
    main()
