"""Rollouts a second of a state policy on a task of ours, against one Gymnasium environment a process.

    python tests/benchmarks/bench_throughput.py [--presets mlp unet-small unet] [--task lift] [--steps 48]

Ours: worker processes with 32 environments each, which plan together, as ``robopolicy eval`` runs them, safety layer
and all; on one core, then on two, each process with a core of its own. Theirs: gymnasium.vector.AsyncVectorEnv over the
same world in a Gymnasium skin, a process each, one inference an environment in the process that steps them; a step a
call, or a chunk a call as diffusion_policy's runner plays it, with the number of environments and threads of torch that
serves it best, on cores of their own if that helps. Same task, same policy (its weights are as they were drawn: that
takes as long), episodes of one length, in one run. Bars: 3 times theirs; on two cores 80 % of twice one core's: beside
it stands what the machine itself gives two processes that share nothing, bare mj_step of the same model, since cores
may share caches or be two threads of one. Beside the wall clock's there are rollouts a second of CPU, all processes
together, which a busy machine changes less; a process that waits for others costs none. A core of a shared machine may
give half of what it gave a minute ago: each is run in ``--turns``, one after the other, and the best counts.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch

from robopolicy.cli.worlds import make_agent, make_safety, make_world
from robopolicy.clock import SimClock
from robopolicy.evaluation.batched import Batched
from robopolicy.evaluation.cores import core_shares, stay_on
from robopolicy.evaluation.rollouts import Options, Rollout
from robopolicy.evaluation.workers import ENOUGH, Seeds
from robopolicy.policies.config import preset
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.training.checkpoint import load_policy, read_spec, save_checkpoint
from robopolicy.types import Observation
from sim_envs.experts import make_expert

ENVS, ROWS = 32, 16


def untrained(task: str, name: str, folder: Path) -> Path:
    """Write a policy for the task whose normaliser has seen one demonstration; it goes where demonstrations go."""
    clock = SimClock()
    world = make_world(f"twin:{task}", clock, cameras=())
    expert = make_expert(task, world.spec)
    world.reset(0)
    expert.reset(0)
    seen, sent = [], []
    for _ in range(60):
        seen.append(world.read())
        sent.append(world.command(expert.act(seen[-1]).values, clock.now_ns()))
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)
    torch.manual_seed(0)
    policy = DiffusionPolicy(replace(world.spec, n_obs=2, horizon=16, n_execute=8), preset(name)).eval()
    state = {part: np.stack([one.state[part] for one in seen]) for part in world.spec.state}
    policy.fit_normaliser(SimpleNamespace(state=state, action=np.stack(sent)))
    save_checkpoint(folder / name, policy, train={})
    world.close()
    return folder / name


@dataclass(frozen=True)
class Race:
    """What both run."""

    task: str
    checkpoint: Path
    steps: int  # of an episode
    episodes: int  # of each process or environment


def work(race: Race, first: int, cores: Collection[int], gate: Any, times: Any) -> None:
    """One worker process of ours: be ready, wait for the others, run, tell when."""
    stay_on(cores)
    torch.set_num_threads(1)
    world = partial(make_world, f"twin:{race.task}", cameras=())
    rollout = partial(Rollout, world, partial(make_agent, race.checkpoint), make_safety, Options(max_steps=race.steps))
    batched = Batched(partial(Seeds, rollout), ENVS, ROWS)
    batched.settle()
    waiting, done = list(range(first, first + race.episodes)), []

    def take(wait: bool) -> Any:
        return (waiting[0], waiting.pop(0)) if waiting else ENOUGH

    def tell(ticket: int, what: str, content: Any) -> None:
        if what == "result":
            done.append(content.steps)

    gate.wait()
    begin_s, cpu_s = time.monotonic(), time.process_time()
    batched.serve(take, tell)
    times.put((begin_s, time.monotonic(), time.process_time() - cpu_s))
    assert done == [race.steps] * race.episodes, done


@dataclass(frozen=True)
class Rate:
    """Rollouts a second."""

    wall: float
    cpu: float  # of all processes together

    def __str__(self) -> str:
        return f"{self.wall:.2f} rollouts/s ({self.cpu:.2f} a CPU second)"


def ours(race: Race, processes: int) -> Rate:
    """Return the rate of so many worker processes."""
    context = multiprocessing.get_context("spawn")
    gate, times = context.Barrier(processes), context.Queue()
    shares = core_shares(processes) or [set()] * processes
    workers = [context.Process(target=work, args=(race, 1000 * k, shares[k], gate, times)) for k in range(processes)]
    for worker in workers:
        worker.start()
    found = [times.get() for _ in workers]
    for worker in workers:
        worker.join()
    begins_s, ends_s, cpus_s = zip(*found, strict=True)
    count = processes * race.episodes
    return Rate(count / (max(ends_s) - min(begins_s)), count / sum(cpus_s))


def step_bare(task: str, calls: int, gate: Any, times: Any) -> None:
    """A process that does nothing but physics."""
    world = make_world(f"twin:{task}", SimClock(), cameras=())
    world.reset(0)
    mujoco.mj_step(world.model, world.data, 1000)
    gate.wait()
    begin_s = time.monotonic()
    for _ in range(calls):
        mujoco.mj_step(world.model, world.data, 100)
    times.put((begin_s, time.monotonic()))


def bare_rates(task: str, calls: int = 1000) -> list[float]:
    """Return how fast one process, and two, do nothing but physics."""
    context = multiprocessing.get_context("spawn")
    rates = []
    for processes in (1, 2):
        gate, times = context.Barrier(processes), context.Queue()
        workers = [context.Process(target=step_bare, args=(task, calls, gate, times)) for _ in range(processes)]
        for worker in workers:
            worker.start()
        begins_s, ends_s = zip(*[times.get() for _ in workers], strict=True)
        for worker in workers:
            worker.join()
        rates.append(processes / (max(ends_s) - min(begins_s)))
    return rates


class TwinEnv(gymnasium.Env):
    """A task of ours as a Gymnasium environment; ``step`` plays a row (A,), or all rows of a chunk (n, A).

    It returns the last two observations, oldest first, flat. In a process of its own it keeps to ``cores``.
    """

    def __init__(self, task: str, rows: int, cores: Collection[int] = ()) -> None:
        if multiprocessing.parent_process() is not None:  # AsyncVectorEnv also makes one in the process that plans
            stay_on(cores)
        self._clock = SimClock()
        self._world = make_world(f"twin:{task}", self._clock, cameras=())
        spec = self._world.spec
        size, shape = 2 * sum(part.dim for part in spec.state.values()), (rows, spec.action.dim)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._world.reset(seed or 0)
        self._seen = deque([self._look()] * 2, maxlen=2)
        return np.concatenate(self._seen), {"cpu_s": time.process_time()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        for row in action:
            self._world.command(row, self._clock.now_ns())
            self._clock.sleep_until(self._clock.now_ns() + self._world.spec.period_ns)
            self._seen.append(self._look())
        return np.concatenate(self._seen), float(self._world.score()), bool(self._world.success()), False, {}

    def _look(self) -> np.ndarray:
        return np.concatenate(list(self._world.read().state.values()))


def theirs(race: Race, envs: int, rows: int, threads: int, *, pinned: bool = False, waves: int = 1) -> Rate:
    """Return the rate of an AsyncVectorEnv, each environment asking the policy by itself."""
    cores = sorted(os.sched_getaffinity(0)) if pinned else []
    shares = [{cores[k % len(cores)]} if cores else set() for k in range(envs)]
    torch.set_num_threads(threads)
    policy, spec = load_policy(race.checkpoint), read_spec(race.checkpoint)
    generators = [torch.Generator().manual_seed(k) for k in range(envs)]
    cuts = np.cumsum([part.dim for part in spec.state.values()])[:-1]

    def chunk_of(seen: np.ndarray, generator: torch.Generator) -> np.ndarray:
        window = [
            Observation(0, dict(zip(spec.state, np.split(part, cuts), strict=True))) for part in np.split(seen, 2)
        ]
        return policy.plan(window, generator=generator).chunks[0]

    vector = gymnasium.vector.AsyncVectorEnv(
        [partial(TwinEnv, race.task, rows, share) for share in shares], context="spawn"
    )
    try:
        seen, spent = vector.reset(seed=0)
        chunk_of(seen[0], generators[0])
        begin_s, cpu_s = time.monotonic(), time.process_time() + sum(spent["cpu_s"])
        for wave in range(waves):
            seen, _ = vector.reset(seed=[1000 * wave + k for k in range(envs)])
            for step in range(0, race.steps, rows):
                at = step % spec.n_execute
                if at == 0:
                    chunks = [chunk_of(*one) for one in zip(seen, generators, strict=True)]
                seen, *_ = vector.step(np.stack([chunk[at : at + rows] for chunk in chunks]))
        took_s = time.monotonic() - begin_s
        cpu_s = time.process_time() + sum(vector.reset(seed=0)[1]["cpu_s"]) - cpu_s
        return Rate(waves * envs / took_s, waves * envs / cpu_s)
    finally:
        vector.close()


def best_of_theirs(race: Race, rows: int, tried: Sequence[tuple[int, int]], turns: int) -> tuple[Rate, str]:
    """Return the best rate over (environments, threads) that are ``tried``, and what they were."""
    found = {one: theirs(race, one[0], rows, one[1]) for one in tried}
    envs, threads = max(found, key=lambda one: found[one].wall)
    kept = theirs(race, envs, rows, threads, pinned=True)
    pinned = kept.wall > found[envs, threads].wall
    waves = max(race.episodes // envs // turns, 1)  # as many episodes as ours, all turns together
    again = [theirs(race, envs, rows, threads, pinned=pinned, waves=waves) for _ in range(turns)]
    words = f"{envs} environments{' on cores of their own' * pinned}, {threads} thread{'s' * (threads > 1)}"
    return best([*again, kept, found[envs, threads]]), words


def best(rates: Sequence[Rate]) -> Rate:
    """Return the best by the wall clock and by CPU, each by itself."""
    return Rate(max(rate.wall for rate in rates), max(rate.cpu for rate in rates))


def measured(race: Race, tried: Sequence[tuple[int, int]], turns: int) -> Iterator[str]:
    """Run and describe one policy."""
    found = [(ours(race, 1), ours(race, 2), *bare_rates(race.task)) for _ in range(turns)]
    ones, twos, bare_ones, bare_twos = zip(*found, strict=True)
    one, two, bare = best(ones), best(twos), max(bare_twos) / max(bare_ones) / 2
    yield f"{race.checkpoint.name}: two cores {two}, one core {one}"
    yield f"  two cores are {two.wall / one.wall / 2:.0%} of twice one, {two.cpu / one.cpu:.0%} by CPU time; bar 80 %"
    yield f"  two processes of bare mj_step: {bare:.0%}, of which that is {two.wall / one.wall / 2 / bare:.0%}"
    for name, rows in (("a step a call", 1), ("a chunk a call", 8)):
        peer, words = best_of_theirs(race, rows, tried, turns)
        more, by_cpu = two.wall / peer.wall, two.cpu / peer.cpu
        yield f"  AsyncVectorEnv, {name}: {peer}, {words}: ours is {more:.1f} times that, {by_cpu:.1f} by CPU; bar 3"


def pair(text: str) -> tuple[int, int]:
    """Return the two numbers of ``4,1``."""
    envs, threads = text.split(",")
    return int(envs), int(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["mlp", "unet-small", "unet"])
    parser.add_argument("--task", default="lift")
    parser.add_argument("--steps", type=int, default=48, help="of an episode, a multiple of 8")
    parser.add_argument("--waves", type=int, default=2, help="of 32 episodes in each process of ours")
    parser.add_argument("--turns", type=int, default=2, help="of each, of which the best counts")
    parser.add_argument(
        "--tried", nargs="+", type=pair, default=[(2, 1), (2, 2), (4, 1), (8, 1)], metavar="ENVS,THREADS",
        help="of theirs (default 2,1 2,2 4,1 8,1)",
    )  # fmt: skip
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.presets:
            checkpoint = untrained(args.task, name, Path(folder))
            for line in measured(Race(args.task, checkpoint, args.steps, args.waves * ENVS), args.tried, args.turns):
                print(line, flush=True)


if __name__ == "__main__":
    main()
